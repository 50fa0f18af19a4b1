import functools

import pytest
import torch

from cosmogan.errors import UserError
from cosmogan.networks.autoencoder import AutoencoderCritic

# Sums of some hundred terms in float64, in another order at another place.
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded() -> AutoencoderCritic:
    torch.manual_seed(0)
    return AutoencoderCritic(16, width=4, n_halvings=3, code_channels=2).double().requires_grad_(False)


def test_the_score_is_minus_the_squared_error_per_pixel():
    critic, values = seeded(), noise(3, 16, 16)
    by_hand = [-((critic.reproduce(v[None])[0] - v) ** 2).sum() / 256 for v in values]
    torch.testing.assert_close(critic(values), torch.stack(by_hand), **EXACT)
    # A network that reproduces nothing has the variance for an error.
    critic.leave.weight.zero_()
    torch.testing.assert_close(critic(values), -values.square().mean((1, 2)), **EXACT)


def test_slices_are_reproduced_from_the_code_alone():
    critic, values = seeded(), noise(3, 16, 16)
    assert critic.features(values).shape == (3, 2 * 2 * 2)
    # All that the code cannot say is lost: slices of one code are reproduced alike.
    critic.encoder[-1].weight.zero_()
    critic.encoder[-1].bias.copy_(noise(2))
    torch.testing.assert_close(critic.reproduce(values)[0], critic.reproduce(values)[1], **EXACT)


def test_shifts_by_a_cell_of_the_code_change_no_score():
    critic, values = seeded(), noise(3, 16, 16)
    torch.testing.assert_close(critic.reproduce(values.roll(8, 2)), critic.reproduce(values).roll(8, 2), **EXACT)
    torch.testing.assert_close(critic(values.roll((8, 8), (1, 2))), critic(values), **EXACT)
    # Twins: a shift by a pixel, and padding with zeros.
    assert not torch.allclose(critic(values.roll(1, 1)), critic(values), rtol=1e-3)
    for module in critic.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.padding_mode = "zeros"
            module.forward = functools.partial(torch.nn.Conv2d.forward, module)
    assert not torch.allclose(critic(values.roll((8, 8), (1, 2))), critic(values), rtol=1e-3)


def test_it_learns_to_reproduce_waves_and_nothing_else():
    torch.manual_seed(0)
    critic = AutoencoderCritic(16, width=8, n_halvings=3, code_channels=4)
    optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3)
    phase, place = 2 * torch.pi * torch.rand(16, 1, 1), 2 * torch.pi * torch.arange(16) / 16
    waves = torch.sin(place[:, None] + phase).expand(16, 16, 16)
    for _ in range(20):
        optimizer.zero_grad()
        (-critic(waves)).mean().backward()
        optimizer.step()
    with torch.no_grad():
        assert critic(waves).mean() > -0.1
        assert critic(noise(64, 16, 16).float() / 2**0.5).mean() < -0.3


@pytest.mark.parametrize(("n_pixels", "n_halvings"), [(20, 3), (0, 1), (16, 0)])
def test_impossible_sizes_are_refused(n_pixels: int, n_halvings: int):
    with pytest.raises(UserError, match=f"found {n_pixels}"):
        AutoencoderCritic(n_pixels, n_halvings=n_halvings)
