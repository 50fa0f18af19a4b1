from pathlib import Path

import numpy as np
import pytest
import torch

from cosmogan.emulator.card import model_card
from cosmogan.emulator.emulator import Emulator
from cosmogan.emulator.export import export
from cosmogan.errors import UserError
from cosmogan.networks.smoothing import gaussian_kernel, smooth
from cosmogan.networks.spectral_prior.generator import SpectralPriorGenerator
from cosmogan.slices import SliceMetadata
from cosmogan.statistics.power_spectrum import power_spectrum
from cosmogan.transforms import GaussianisingTransform


def few_mocks(monkeypatch: pytest.MonkeyPatch, n_pixels: int) -> None:
    """Refit with mocks of so many pixels in all."""
    monkeypatch.setattr(SpectralPriorGenerator, "REFIT_LARGEST", n_pixels)


def test_a_refit_says_what_it_does(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    few_mocks(monkeypatch, 96 * 16**2)
    torch.manual_seed(1)
    generator = SpectralPriorGenerator(16, width=4)
    with pytest.raises(UserError, match="does not hold the statistics"):
        generator.refit(seed=1)
    assert capsys.readouterr().err == ""
    generator.target_pixels.fill_(64 * 16**2)
    generator.refit(seed=1)
    # No bar where standard error is no terminal.
    assert capsys.readouterr().err == "refit: P(k) and pixel distribution of 96 mocks to those of the training slices\n"
    # Whole batches.
    generator.refit(seed=1, n_mocks=150)
    assert "of 128 mocks" in capsys.readouterr().err


def test_an_emulator_file_is_refitted(spectral: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    few_mocks(monkeypatch, 64 * 16**2)
    generator = spectral.generator
    assert isinstance(generator, SpectralPriorGenerator)
    generator.target_pixels.fill_(64 * 16**2)
    spectral.training["shipped"] = {"judged": "13 of 13 bars met"}
    before, after, again = (tmp_path / f"{name}.safetensors" for name in ("before", "after", "again"))
    spectral.save(before)
    with pytest.raises(UserError, match="expected a checkpoint for --out, --refit or --refit-power"):
        export(str(before), out=str(after))
    with pytest.raises(UserError, match="--refit-mocks is for --refit and --refit-power"):
        export(str(before), out=str(after), refit_mocks=64)
    with pytest.raises(UserError, match="give one of them"):
        export(str(before), out=str(after), refit=True, refit_power=True)
    with pytest.raises(UserError, match="refit: expected at least 32 mocks, found 31"):
        export(str(before), out=str(after), refit=True, refit_mocks=31)
    export(str(before), out=str(after), refit=True)
    # The scores were those of other mocks.
    assert Emulator.load(after).training == {"n_slices_seen": 7, "refitted": True}
    assert np.abs(Emulator.load(after).sample(4, seed=1) / Emulator.load(before).sample(4, seed=1) - 1).max() > 0.01
    export(str(after), out=str(again), refit_power=True)
    both = Emulator.load(again)
    assert both.training == {"n_slices_seen": 7, "refitted": True, "refitted_power": True}
    assert "P(k) and pixels refitted to the training slices, P(k) refitted to the training slices" in model_card(both)


@pytest.mark.parametrize("power_only", [False, True])
def test_a_refit_gives_the_trained_network_the_power_and_the_pixels_of_the_data(
    power_only: bool, monkeypatch: pytest.MonkeyPatch
):
    few_mocks(monkeypatch, 2**17)
    for pixels, n in (("FIT_PIXELS", 2**14), ("CALIBRATION_PIXELS", 2**16)):
        monkeypatch.setattr(SpectralPriorGenerator, pixels, n)
    random = torch.Generator().manual_seed(1)
    field = torch.exp(0.7 * torch.randn(1024, 16, 16, generator=random))
    density = smooth(field, gaussian_kernel(1.0))
    density /= density.mean()
    transform = GaussianisingTransform()
    transform.fit(density)
    torch.manual_seed(2)
    generator = SpectralPriorGenerator(16, width=4).eval()
    metadata = SliceMetadata(box_size=70.0, n_pixels=16, thickness=1.0, smoothing=1.0)
    levels = torch.tensor([0.05, 0.1, 0.25, 0.5, 0.9, 0.99, 0.999], dtype=torch.float64)

    @torch.no_grad()
    def deviations() -> tuple[float, float]:
        """Return the largest deviation of quantiles and of P(k)."""
        mocks = generator(torch.randn(2048, 2, 16, 16, generator=torch.Generator().manual_seed(3)))
        ratio = power_spectrum(mocks - 1, 70.0).mean(0) / power_spectrum(density - 1, 70.0).mean(0)
        values = [torch.quantile(each.flatten().double(), levels) for each in (mocks, density)]
        return float((values[0] / values[1] - 1).abs().max()), float((ratio - 1).abs().max())

    with torch.no_grad():
        generator.prepare(density, transform=transform, metadata=metadata, seed=0)
        for parameter in generator.network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
        # As if training had left pixels and power wrong.
        generator.log_field.mul_(1.1)
        generator.set_prior(generator.log_power + torch.linspace(0, 0.5, len(generator.log_power)))
    generator.calibrate(seed=1)
    pixels, power = deviations()
    transform_before = generator.log_field.clone()
    generator.refit(seed=1, power_only=power_only)
    refitted_pixels, refitted_power = deviations()
    assert pixels > 0.08
    assert power > 0.2
    assert refitted_power < power / 2
    assert (refitted_pixels < pixels / 2) != power_only
    assert torch.equal(generator.log_field, transform_before) == power_only
