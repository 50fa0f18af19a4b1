import pytest
import torch

from cosmogan.errors import UserError
from cosmogan.networks.base import count_parameters
from cosmogan.networks.mlp import MLPCritic, MLPGenerator


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n_pixels", [1, 2, 16])
def test_layers_and_shapes(n_pixels: int):
    generator = MLPGenerator(n_pixels, latent_size=5, width=7, n_hidden=3)
    critic = MLPCritic(n_pixels, width=7, n_hidden=3)
    assert count_parameters(generator) == 6 * 7 + 2 * 8 * 7 + 8 * n_pixels**2
    assert count_parameters(critic) == (n_pixels**2 + 1) * 7 + 2 * 8 * 7 + 8
    values = generator(noise(4, *generator.latent_shape))
    assert values.shape == (4, n_pixels, n_pixels)
    assert critic(values).shape == (4,)
    assert critic.features(values).shape == (4, 7)


def test_one_hidden_layer_by_hand():
    generator, critic = MLPGenerator(2, latent_size=3, width=5, n_hidden=1), MLPCritic(2, width=5, n_hidden=1)
    latent = noise(4, 3)
    values = (latent @ generator.enter.weight.T + generator.enter.bias).clamp_min(0) @ generator.leave.weight.T
    values = values + generator.leave.bias
    torch.testing.assert_close(generator(latent), values.reshape(4, 2, 2))
    hidden = values @ critic.enter.weight.T + critic.enter.bias
    hidden = torch.where(hidden > 0, hidden, 0.2 * hidden)
    torch.testing.assert_close(critic(values.reshape(4, 2, 2)), hidden @ critic.head.weight[0] + critic.head.bias)


def test_pixels_have_no_neighbours():
    generator, critic = MLPGenerator(16, latent_size=4, width=8), MLPCritic(16, width=8)
    values = noise(2, 16, 16)
    with torch.no_grad():
        assert not torch.allclose(critic(values.roll(8, 1)), critic(values), rtol=1e-3)
        # All orders of the pixels are as good as any: permuted weights make permuted slices of the same scores.
        order = torch.randperm(256, generator=torch.Generator().manual_seed(0))
        latent = noise(2, 4)
        expected, score = generator(latent).flatten(1)[:, order], critic(values)
        generator.leave.weight.copy_(generator.leave.weight[order])
        generator.leave.bias.copy_(generator.leave.bias[order])
        critic.enter.weight.copy_(critic.enter.weight[:, order])
        torch.testing.assert_close(generator(latent).flatten(1), expected)
        torch.testing.assert_close(critic(values.flatten(1)[:, order].unflatten(1, (16, 16))), score)


@pytest.mark.parametrize("numbers", [{"n_pixels": 0}, {"n_pixels": 4, "width": 0}, {"n_pixels": 4, "n_hidden": 0}])
def test_impossible_sizes_are_refused(numbers: dict[str, int]):
    for network in (MLPGenerator, MLPCritic):
        with pytest.raises(UserError, match="expected at least 1, found 0"):
            network(**numbers)
