import pytest
import torch

from cosmogan.errors import UserError
from cosmogan.networks import spectral_prior
from cosmogan.networks.spectral_prior import SpectralPriorGenerator


def test_a_refit_says_what_it_does(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(spectral_prior, "_REFIT_PIXELS", 64 * 16**2)
    monkeypatch.setattr(spectral_prior, "_CALIBRATION_PIXELS", 64 * 16**2)
    torch.manual_seed(1)
    generator = SpectralPriorGenerator(16, width=4)
    with pytest.raises(UserError, match="does not hold the statistics"):
        generator.refit(seed=1)
    assert capsys.readouterr().err == ""
    generator.target_pixels.fill_(64 * 16**2)
    rounds = []
    monkeypatch.setattr(generator, "_correct", lambda mocks, damping: rounds.append(len(mocks)))
    generator.refit(seed=1)
    expected = "refit: P(k) and pixel distribution of the mocks to the training slices, 6 rounds of 64 mocks\n"
    # No bar where standard error is no terminal.
    assert capsys.readouterr().err == expected
    assert rounds == [64] * 6
