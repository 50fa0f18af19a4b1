"""The generator that starts from a simulation: it copies its start, corrects it, and is refitted."""

import numpy as np
import pytest
import torch

from cosmogan.errors import UserError
from cosmogan.networks.base import AbstractGenerator
from cosmogan.networks.gravity_start import GravityStartGenerator
from cosmogan.networks.smoothing import gaussian_kernel, smooth
from cosmogan.slices import SliceMetadata
from cosmogan.transforms import LogTransform
from cosmogan.units import RODRIGUEZ2018

SIDE = 16
METADATA = SliceMetadata(box_size=70.0, n_pixels=SIDE, thickness=70 / SIDE, smoothing=1.0, cosmology=RODRIGUEZ2018)


class Starts:
    """Poisson numbers with a density that differs from slice to slice."""

    def __init__(self, n: int, mean: float = 8.0) -> None:
        random = np.random.default_rng(4)
        means = mean * random.lognormal(-0.02, 0.2, (n, 1, 1, 1)) * np.exp(random.normal(-0.5, 1, (n, 3, SIDE, SIDE)))
        self.counts = torch.from_numpy(random.poisson(means)).float()

    def __len__(self) -> int:
        return len(self.counts)

    def take(self, index: np.ndarray) -> torch.Tensor:
        return self.counts[torch.from_numpy(index)]


def made(**changes) -> GravityStartGenerator:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return GravityStartGenerator(SIDE, **({"start_particles": 32, "width": 4, "smoothing": 1.0} | changes)).eval()


def latents(starts: torch.Tensor, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(len(starts), 2, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return torch.cat([starts, noise], 1)


def density_of(counts: torch.Tensor) -> torch.Tensor:
    return smooth(counts / 8, gaussian_kernel(1.0))


def test_without_training_it_copies_the_start():
    starts = Starts(6).counts
    torch.testing.assert_close(made()(latents(starts)), density_of(starts[:, 0]))
    torch.testing.assert_close(made().start_density(starts), density_of(starts[:, 0]))


def test_it_sees_neighbours_and_noise():
    generator, starts = made(), Starts(2).counts
    with torch.no_grad():
        generator.network.leave.weight.normal_(std=0.5, generator=torch.Generator().manual_seed(2))
    here = generator.corrected(latents(starts))
    other = starts.clone()
    other[:, 1] = 0
    assert not torch.allclose(here, generator.corrected(latents(other)))
    assert not torch.allclose(here, generator.corrected(latents(starts, seed=1)))


def test_corrections_bend_at_the_limit():
    generator, starts = made(limit=0.5), Starts(2).counts
    with torch.no_grad():
        generator.network.leave.bias.fill_(100.0)
    correction = generator.corrected(latents(starts)) - torch.log1p(starts[:, 0])
    torch.testing.assert_close(correction, torch.full_like(correction, 0.5), rtol=0, atol=1e-4)


def test_particles_of_the_start_count_as_those_of_the_data():
    # Data: 8 particles per pixel of 16^3; a start of 16^3 particles has one.
    generator = made(start_particles=16)
    slices = density_of(Starts(8).counts[:, 0])
    generator.prepare(slices, transform=LogTransform(), metadata=METADATA, seed=0)
    assert float(generator.start_scale) == 8
    starts = Starts(4, mean=1.0).counts
    torch.testing.assert_close(generator.start_density(starts), density_of(8 * starts[:, 0]))


def test_mocks_have_the_mean_density_of_their_starts():
    generator = made()
    with torch.no_grad():
        generator.network.leave.bias.fill_(0.3)
    generator.starts = Starts(64, mean=6.0)
    generator.CALIBRATION_PIXELS = 64 * SIDE**2
    generator.calibrate(seed=0)
    starts = generator.starts.counts
    mocks = generator(latents(starts))
    assert float(mocks.mean()) == pytest.approx(float(starts[:, 0].mean()) / 8, rel=5e-3)


def test_a_refit_mends_power_and_pixels():
    generator, starts = made(), Starts(256)
    generator.prepare(density_of(starts.counts[:, 0]), transform=LogTransform(), metadata=METADATA, seed=0)
    with torch.no_grad():
        # A network that makes peaks too high.
        generator.count_table.add_(0.2 * generator.count_places.clamp_min(0))
    generator.starts = starts
    generator.CALIBRATION_PIXELS = 256 * SIDE**2
    generator.calibrate(seed=0)
    truth = density_of(starts.counts[:, 0])

    def off() -> tuple[float, float]:
        mocks = generator(latents(starts.counts))
        tails = (mocks > 3).float().mean() / (truth > 3).float().mean()
        return abs(float(mocks.var() / truth.var()) - 1), abs(float(tails) - 1)

    before = off()
    generator.refit(seed=0, n_mocks=256)
    after = off()
    assert after[0] < 0.15 * before[0]
    assert after[1] < 0.3 * before[1]


def test_without_starts_it_says_so():
    with pytest.raises(UserError, match="starts from simulations, and nobody has made some"):
        made().calibrate(seed=0)


def test_slices_without_particles_are_refused():
    slices = torch.rand(4, SIDE, SIDE) + 0.5
    with pytest.raises(UserError, match=r"no multiples of 1 / 8 .* take SpectralPriorGenerator"):
        made().prepare(slices, transform=LogTransform(), metadata=METADATA, seed=0)


def test_settings_build_it_again():
    generator = made(start_steps=3, start_mesh=64, limit=None, rounding=0.2)
    other = GravityStartGenerator(**generator.settings())
    assert other.settings() == generator.settings()
    assert other.state_dict().keys() == generator.state_dict().keys()


def test_only_start_generators_have_planes_of_a_start():
    assert made().noise_shape == (2, SIDE, SIDE)
    assert AbstractGenerator.n_start_planes == 0
