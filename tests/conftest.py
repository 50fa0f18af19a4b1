import pytest


@pytest.fixture(autouse=True)
def small_prior_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit the prior of toy generators to few fields."""
    for name in ("_FIT_PIXELS", "_CALIBRATION_PIXELS"):
        monkeypatch.setattr(f"cosmogan.networks.spectral_prior.generator.{name}", 2**13)
