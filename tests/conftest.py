import pytest


@pytest.fixture(autouse=True)
def small_prior_fit(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Fit the prior of toy generators to few fields; tests of the fit itself ask for ``full_prior_fit``."""
    if "full_prior_fit" not in request.fixturenames:
        for name in ("_FIT_PIXELS", "_CALIBRATION_PIXELS"):
            monkeypatch.setattr(f"cosmogan.networks.spectral_prior.{name}", 2**13)


@pytest.fixture
def full_prior_fit() -> None:
    """Fit the prior as users do."""
