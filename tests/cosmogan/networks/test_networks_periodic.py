import copy
import functools

import pytest
import torch

from cosmogan.errors import UserError
from cosmogan.networks.autoencoder import AutoencoderCritic
from cosmogan.networks.base import count_parameters
from cosmogan.networks.patch_critic import PatchCritic
from cosmogan.networks.periodic import PeriodicCritic, PeriodicGenerator
from cosmogan.networks.smoothing import smooth

# Sums of some hundred terms in float64, in another order at another place.
EXACT = {"rtol": 1e-10, "atol": 1e-10}
# Change of features under a shift, in units of their scatter between slices: 0.3, and 1 where planes are picked.
SMALL_CHANGE = 0.6


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stirred(network: torch.nn.Module) -> torch.nn.Module:
    """Give strengths and biases values, so that a test sees what they do."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.double().requires_grad_(False)


def small(**settings) -> PeriodicGenerator:
    return stirred(PeriodicGenerator(**({"n_pixels": 32, "width": 4, "n_levels": 3, "latent_channels": 5} | settings)))


def without_padding(network: torch.nn.Module) -> torch.nn.Module:
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.padding_mode = "zeros"
            module.forward = functools.partial(torch.nn.Conv2d.forward, module)
    return network


def test_shifting_the_latent_by_a_cell_shifts_the_slice():
    generator, latent = small(tails=4.0), noise(2, 5 + 4 + 16 + 64, 4, 4)
    assert generator.latent_shape == latent.shape[1:]

    def shifted_both_ways() -> tuple[torch.Tensor, torch.Tensor]:
        return generator(latent.roll((1, 3), (2, 3))), generator(latent).roll((8, 24), (1, 2))

    torch.testing.assert_close(*shifted_both_ways(), **EXACT)
    # Twin: padded with zeros, the same weights know where the edges are.
    without_padding(generator)
    assert not torch.allclose(*shifted_both_ways(), rtol=0.05)


def test_larger_slices_are_periodic_and_of_the_same_weights():
    generator, latent = small(), noise(1, 89, 4, 4)
    larger = generator.resized(64)
    assert larger.latent_shape == (89, 8, 8)
    assert generator.n_pixels == 32
    # A latent that repeats itself makes a slice that does.
    torch.testing.assert_close(larger(latent.tile(2, 2)), generator(latent).tile(2, 2), **EXACT)
    assert larger(noise(1, 89, 8, 8)).shape == (1, 64, 64)
    assert generator.side_multiple == 8


@pytest.mark.parametrize("level", [1, 2, 3])
def test_noise_at_each_resolution_is_part_of_the_latent(level: int):
    generator, latent = small(), noise(1, 89, 4, 4)
    torch.testing.assert_close(generator(latent), generator(latent), rtol=0, atol=0)
    # One number of the plane of this level, at row 5 and column 6 of its 4 * 2**level.
    cells = 2**level
    row, column = 5 % (4 * cells), 6
    first = 5 + sum(4**coarser for coarser in range(1, level))
    changed = latent.clone()
    changed[0, first + (row % cells) * cells + column % cells, row // cells, column // cells] += 1
    different = (generator(changed) - generator(latent))[0].abs() > 1e-12
    # What it reaches: one pixel of its own level for each convolution at that level, two at each finer, one at the end.
    size = 2 ** (3 - level)
    reach = size + sum(2 * 2**finer for finer in range(3 - level)) + 1
    pixels = torch.arange(32)
    inside = [((pixels - place * size + reach) % 32) < size + 2 * reach for place in (row, column)]
    outside = ~(inside[0][:, None] & inside[1][None, :])
    assert different[row * size, column * size]
    assert not (different & outside).any()
    assert outside.any()


def test_untrained_values_have_the_variance_of_the_transforms():
    torch.manual_seed(0)
    generator = PeriodicGenerator(64)
    with torch.no_grad():
        values = generator(noise(16, *generator.latent_shape).float())
    assert values.shape == (16, 64, 64)
    assert 0.5 < values.std() < 2
    # Not a constant per slice.
    assert values.std((1, 2)).min() > 0.2
    assert 2e5 < count_parameters(generator) < 1e6


def test_the_score_does_not_change_when_slices_are_shifted():
    critic, values = stirred(PeriodicCritic(32, width=4)), noise(3, 32, 32)
    assert critic.n_halvings == 3
    # Each slice by another shift.
    shifted = torch.stack([v.roll((8 * i, 24 * i), (0, 1)) for i, v in enumerate(values, start=1)])
    torch.testing.assert_close(critic(shifted), critic(values), **EXACT)
    torch.testing.assert_close(critic.features(shifted), critic.features(values), **EXACT)
    # Twins: a shift by a pixel, and padding with zeros.
    assert not torch.allclose(critic(values.roll(1, 1)), critic(values), rtol=1e-4)
    without_padding(critic)
    assert not torch.allclose(critic(shifted), critic(values), rtol=1e-4)


def test_other_shifts_change_features_little():
    values = smooth(noise(32, 32, 32, seed=4), torch.exp(-0.5 * torch.arange(-4.0, 5.0).double() ** 2))
    values = values / values.std()

    def change(critic: torch.nn.Module) -> float:
        features = critic.double().requires_grad_(False).features(values)
        return ((critic.features(values.roll(3, 1)) - features).abs() / features.std(0)).mean().item()

    torch.manual_seed(0)
    assert change(PeriodicCritic(32, width=16)) < SMALL_CHANGE
    # Twin: strided convolutions.
    assert change(PatchCritic(32, patch=32, width=16)) > SMALL_CHANGE


def mirrored(network: torch.nn.Module) -> torch.nn.Module:
    """The network of mirrored kernels; folded pixels change places where they come in and go out."""
    other, swapped = copy.deepcopy(network), [1, 0, 3, 2]
    for name, module in other.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.copy_(module.weight.flip(3))
            if name == "enter" and not isinstance(network, PeriodicGenerator):
                module.weight.copy_(module.weight[:, swapped])
            if name == "leave" and isinstance(network, AutoencoderCritic):
                module.weight.copy_(module.weight[swapped])
                module.bias.copy_(module.bias[swapped])
    return other


@pytest.mark.parametrize(
    "critic",
    [PeriodicCritic(32, width=4), AutoencoderCritic(32, width=4, n_halvings=3, code_channels=3)],
    ids=["periodic", "autoencoder"],
)
def test_no_direction_is_built_into_critics(critic: torch.nn.Module):
    critic, values = stirred(critic), noise(3, 32, 32)
    torch.testing.assert_close(mirrored(critic)(values.flip(2)), critic(values), **EXACT)
    # Twin: the kernels themselves know left from right.
    assert not torch.allclose(critic(values.flip(2)), critic(values), rtol=1e-3)


def test_no_direction_is_built_into_the_generator():
    generator, latent = small(), noise(2, 89, 4, 4)
    coarse, *folded = latent.split([5, 4, 16, 64], 1)
    turned = [coarse.flip(3)]
    for level, plane in enumerate(folded, start=1):
        unfolded = torch.nn.functional.pixel_shuffle(plane, 2**level).flip(3)
        turned.append(torch.nn.functional.pixel_unshuffle(unfolded, 2**level))
    torch.testing.assert_close(mirrored(generator)(torch.cat(turned, 1)), generator(latent).flip(2), **EXACT)
    assert not torch.allclose(generator(torch.cat(turned, 1)), generator(latent).flip(2), rtol=0.05)


def test_the_critic_sees_that_slices_are_alike():
    critic, values = stirred(PeriodicCritic(16, width=4)), noise(4, 16, 16)
    alone = critic(values[:1])
    # Equal ones, also when they are shifted, are as one alone; among others the same slice has another score.
    alike = torch.stack([values[0].roll(4 * i, 0) for i in range(4)])
    torch.testing.assert_close(critic(alike), alone.expand(4), **EXACT)
    assert (critic(values)[0] - alone[0]).abs() > 1e-3


@pytest.mark.parametrize(("n_pixels", "n_halvings"), [(8, 1), (24, 2), (64, 4), (96, 4), (256, 6)])
def test_sizes_of_the_critic(n_pixels: int, n_halvings: int):
    critic = PeriodicCritic(n_pixels, width=1)
    assert critic.n_halvings == n_halvings
    assert critic(noise(2, n_pixels, n_pixels).float()).shape == (2,)


@pytest.mark.parametrize("n_pixels", [0, 4, 7, 18, 100])
def test_impossible_sizes_of_the_critic_are_refused(n_pixels: int):
    with pytest.raises(UserError, match=f"found {n_pixels}"):
        PeriodicCritic(n_pixels)


@pytest.mark.parametrize("n_pixels", [0, 20, 40])
def test_impossible_sizes_of_the_generator_are_refused(n_pixels: int):
    with pytest.raises(UserError, match=f"multiple of 16, found {n_pixels}"):
        PeriodicGenerator(n_pixels)
