import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cosmogan import Emulator
from cosmogan.cli import main
from cosmogan.emulator.emulator import latents
from cosmogan.errors import UserError
from cosmogan.networks.spectral_prior.generator import SpectralPriorGenerator

# Both runtimes compute in float32.
RELATIVE, ABSOLUTE = 1e-4, 1e-6


def test_matrix_products_filter_as_fourier_transforms_do(spectral: Emulator):
    generator = spectral.generator
    assert isinstance(generator, SpectralPriorGenerator)
    with torch.no_grad():
        generator.prior_log_power.copy_(-3 * torch.linspace(0, 1, 16) ** 2)
    for side in (16, 24):
        noise = torch.randn(3, side, side, generator=torch.Generator().manual_seed(side))
        expected = generator.resized(side).color(noise)
        torch.testing.assert_close(generator.resized(side).portable().color(noise), expected, rtol=1e-5, atol=1e-5)
        # Twin: the filter does something.
        assert not torch.allclose(noise, expected, rtol=0.05)


def test_missing_packages_are_named(dcgan: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"ONNX needs onnxruntime; pip install 'cosmogan\[onnx\]'"):
        dcgan.to_onnx(tmp_path / "e.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("side", [16, 24])
def test_onnx_makes_the_same_slices(emulator: Emulator, tmp_path: Path, side: int):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    if side != 16 and emulator.generator.side_multiple is None:
        pytest.skip("makes one size only")
    emulator = emulator.resized(side)
    emulator.to_onnx(tmp_path / "e.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "e.onnx", providers=["CPUExecutionProvider"])
    for n in (1, 5):
        (found,) = session.run(None, {"latents": latents(range(n), emulator.generator.latent_shape, seed=4)})
        np.testing.assert_allclose(found, emulator.sample(n, seed=4), rtol=RELATIVE, atol=ABSOLUTE)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["metadata"])["box_size"] == emulator.metadata.box_size
    assert "Philox" in about["latents"]
    with pytest.raises(UserError, match="exists already"):
        emulator.to_onnx(tmp_path / "e.onnx")


@pytest.mark.slow
def test_the_command_exports_emulators(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert main(["export", str(saved), "--onnx", str(tmp_path / "e.onnx")]) == 0
    assert (tmp_path / "e.onnx").stat().st_size > 1000
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected --out"),
        (["--out", "a.safetensors"], "is an emulator already"),
        (["--out", "a.safetensors", "--pixels", "32"], "--pixels is for --onnx"),
    ],
)
def test_the_command_says_what_it_needs(saved: Path, words: list[str], message: str, capsys):
    assert main(["export", str(saved), *words]) == 2
    assert message in capsys.readouterr().err
