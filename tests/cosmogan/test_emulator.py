import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cosmogan import Emulator
from cosmogan.emulator import latents
from cosmogan.errors import UserError
from cosmogan.networks.base import AbstractGenerator
from cosmogan.networks.dcgan import DCGANGenerator
from cosmogan.networks.spectral_prior import SpectralPriorGenerator
from cosmogan.slices import SliceMetadata
from cosmogan.transforms import GaussianisingTransform, LogTransform
from cosmogan.units import RODRIGUEZ2018

METADATA = SliceMetadata(box_size=70.0, n_pixels=16, thickness=1.1, smoothing=1.0, cosmology=RODRIGUEZ2018)


def make(generator: AbstractGenerator, transform) -> Emulator:
    stirred = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=stirred))
        transform.fit(torch.exp(torch.randn(8, 16, 16, generator=stirred)))
    return Emulator(generator, transform, metadata=METADATA, training={"n_slices_seen": 7})


@pytest.fixture(params=["dcgan", "spectral-prior"])
def emulator(request) -> Emulator:
    if request.param == "dcgan":
        return make(DCGANGenerator(16, latent_size=10, width=4, bounded=False), LogTransform())
    return make(SpectralPriorGenerator(16, width=4, smoothing=1.0), GaussianisingTransform())


@pytest.fixture
def saved(emulator: Emulator, tmp_path: Path) -> Path:
    emulator.save(tmp_path / "e.safetensors")
    return tmp_path / "e.safetensors"


def test_saved_and_loaded_is_the_same(emulator: Emulator, saved: Path):
    loaded = Emulator.load(saved)
    assert loaded.metadata == METADATA
    assert loaded.training == {"n_slices_seen": 7}
    np.testing.assert_array_equal(loaded.sample(5, seed=1), emulator.sample(5, seed=1))


def test_samples_are_densities(emulator: Emulator):
    slices = emulator.sample(6, seed=2)
    assert slices.shape == (6, 16, 16)
    assert slices.dtype == np.float32
    assert np.isfinite(slices).all()
    assert (slices >= 0).all()
    assert slices.std() > 0


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_a_slice_depends_on_seed_and_number_only(emulator: Emulator, batch_size: int):
    whole = emulator.sample(35, seed=5)
    np.testing.assert_array_equal(emulator.sample(35, seed=5, batch_size=batch_size), whole)
    for first, n in ((0, 1), (9, 4), (14, 20), (34, 1)):
        part = emulator.sample(n, seed=5, first=first, batch_size=batch_size)
        np.testing.assert_array_equal(part, whole[first : first + n])
    # Twins: other seeds and other numbers are other slices.
    assert not np.array_equal(emulator.sample(35, seed=6), whole)
    assert len({s.tobytes() for s in whole}) == 35


def test_latents_can_be_made_by_any_program_with_numpy():
    expected = np.random.Generator(np.random.Philox(key=4, counter=[0, 0, 0, 123456])).standard_normal(
        (2, 3), dtype=np.float32
    )
    np.testing.assert_array_equal(latents(range(123456, 123457), (2, 3), seed=4)[0], expected)
    many = latents(range(2000), (50,), seed=0)
    # Mean of 100,000 normal numbers: 5 sigma.
    assert abs(many.mean()) < 5 / np.sqrt(many.size)
    assert abs(many.var() - 1) < 5 * np.sqrt(2 / many.size)


@pytest.mark.gpu
def test_a_gpu_makes_the_same_slices_up_to_rounding(saved: Path):
    on_cpu = Emulator.load(saved).sample(20, seed=5)
    on_gpu = Emulator.load(saved, device="cuda").sample(20, seed=5)
    # Convolutions in tensor-float precision carry three digits.
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-2)


@pytest.mark.parametrize("values", [{"n": 0}, {"n": -1}, {"n": 1, "seed": -1}, {"n": 1, "first": -1}])
def test_impossible_numbers_are_refused(emulator: Emulator, values: dict[str, int]):
    with pytest.raises(UserError, match="expected at least"):
        emulator.sample(**values)


def test_other_files_are_refused(tmp_path: Path, saved: Path):
    with pytest.raises(UserError, match="no such emulator file"):
        Emulator.load("box900")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(UserError, match="is not a safetensors file"):
        Emulator.load(tmp_path / "empty")
    (tmp_path / "cut").write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        Emulator.load(tmp_path / "cut")
    torch.save({"a": torch.zeros(1)}, tmp_path / "pickle.ckpt")
    with pytest.raises(UserError, match="cosmogan export"):
        Emulator.load(tmp_path / "pickle.ckpt")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="not an emulator"):
        Emulator.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize("device", ["warp", "cuda:77", "meta:x"])
def test_a_device_that_is_not_there_is_refused(saved: Path, device: str):
    with pytest.raises(UserError, match=f"device '{device}': cannot be used here"):
        Emulator.load(saved, device=device)


def test_a_file_cannot_name_what_is_imported(tmp_path: Path):
    record = {
        "format": "cosmogan-emulator",
        "format_version": 1,
        "generator": {"name": "os.system", "settings": {"command": "true"}},
    }
    save_file({"a": torch.zeros(1)}, tmp_path / "bad.safetensors", metadata={"cosmogan": json.dumps(record)})
    with pytest.raises(UserError, match=r"needs os.system, which is not among .*SpectralPriorGenerator"):
        Emulator.load(tmp_path / "bad.safetensors")
