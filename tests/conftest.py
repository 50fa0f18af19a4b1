import pytest


@pytest.fixture(autouse=True)
def small_prior_fit(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Fit the prior of toy generators to few fields; tests of the fit itself ask for ``full_prior_fit``."""
    if "full_prior_fit" not in request.fixturenames:
        monkeypatch.setattr("cosmogan.networks.spectral_prior._FIT_PIXELS", 2**13)


@pytest.fixture
def full_prior_fit() -> None:
    """Fit the prior as users do."""
