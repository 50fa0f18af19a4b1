from pathlib import Path

import pytest
import torch

from cosmogan import Emulator
from cosmogan.networks.base import AbstractGenerator
from cosmogan.networks.dcgan import DCGANGenerator
from cosmogan.networks.periodic import PeriodicGenerator
from cosmogan.networks.spectral_prior.generator import SpectralPriorGenerator
from cosmogan.slices import SliceMetadata
from cosmogan.transforms import AbstractTransform, GaussianisingTransform, LogTransform
from cosmogan.units import RODRIGUEZ2018


def untrained(generator: AbstractGenerator, transform: AbstractTransform) -> Emulator:
    """An emulator of 16 x 16 slices with stirred weights."""
    stirred = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=stirred))
        transform.fit(torch.exp(torch.randn(8, 16, 16, generator=stirred)))
    metadata = SliceMetadata(box_size=70.0, n_pixels=16, thickness=1.1, smoothing=1.0, cosmology=RODRIGUEZ2018)
    return Emulator(generator, transform, metadata=metadata, training={"n_slices_seen": 7})


@pytest.fixture
def dcgan() -> Emulator:
    return untrained(DCGANGenerator(16, latent_size=10, width=4, bounded=False), LogTransform())


@pytest.fixture
def spectral() -> Emulator:
    return untrained(SpectralPriorGenerator(16, width=4, smoothing=1.0), GaussianisingTransform())


@pytest.fixture
def periodic() -> Emulator:
    return untrained(PeriodicGenerator(16, width=4, n_levels=3, latent_channels=4, tails=4.0), LogTransform())


@pytest.fixture(params=["dcgan", "spectral", "periodic"])
def emulator(request: pytest.FixtureRequest) -> Emulator:
    return request.getfixturevalue(request.param)


@pytest.fixture
def saved(emulator: Emulator, tmp_path: Path) -> Path:
    emulator.save(tmp_path / "e.safetensors")
    return tmp_path / "e.safetensors"
