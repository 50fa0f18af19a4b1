import pytest

from cosmogan.networks.spectral_prior import SpectralPriorGenerator


@pytest.fixture(autouse=True)
def small_prior_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit the prior of toy generators to few fields."""
    for name in ("FIT_PIXELS", "CALIBRATION_PIXELS"):
        monkeypatch.setattr(SpectralPriorGenerator, name, 2**13)
