"""What all generators and critics have in common: conditions, heavy-tailed latents, heads in float32."""

import numpy as np
import pytest
import torch
from scipy import stats

from cosmogan.emulator.file import build_part
from cosmogan.errors import UserError
from cosmogan.networks.autoencoder import AutoencoderCritic
from cosmogan.networks.base import AbstractCritic, AbstractGenerator
from cosmogan.networks.dcgan import DCGANCritic, DCGANGenerator
from cosmogan.networks.mlp import MLPCritic, MLPGenerator
from cosmogan.networks.patch_critic import PatchCritic
from cosmogan.networks.periodic import PeriodicCritic, PeriodicGenerator
from cosmogan.networks.spectral_prior.generator import SpectralPriorGenerator
from cosmogan.networks.tails import HeavyTails

# A table in float32 whose knots are 0.004 apart.
TAIL_ACCURACY = 1e-4
GENERATORS = {
    "dcgan": lambda **options: DCGANGenerator(16, latent_size=6, width=4, **options),
    "mlp": lambda **options: MLPGenerator(16, latent_size=6, width=8, **options),
    "periodic": lambda **options: PeriodicGenerator(16, width=4, n_levels=2, latent_channels=4, **options),
    "spectral-prior": lambda **options: SpectralPriorGenerator(16, width=4, smoothing=1.0, **options),
}
CRITICS = {
    "dcgan": lambda **options: DCGANCritic(16, width=4, **options),
    "dcgan-plain": lambda **options: DCGANCritic(16, width=4, normalisation="none", **options),
    "mlp": lambda **options: MLPCritic(16, width=8, **options),
    "autoencoder": lambda **options: AutoencoderCritic(16, width=4, n_halvings=3, code_channels=3, **options),
    "periodic": lambda **options: PeriodicCritic(16, width=4, **options),
    "patch": lambda **options: PatchCritic(16, patch=16, width=4, **options),
    "patch-particles": lambda **options: PatchCritic(16, patch=16, width=4, moments=True, mean_count=8.0, **options),
}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(make, **options) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(**options)


def stirred(module: torch.nn.Module) -> torch.nn.Module:
    """Give zero-initialised layers weights, so that a test sees what they do."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module


def inputs(network: torch.nn.Module) -> torch.Tensor:
    if isinstance(network, AbstractGenerator):
        return noise(6, *network.latent_shape)
    return noise(6, *[2] * (network.n_planes - 1), network.patch_pixels, network.patch_pixels)


def require_gradients(network: torch.nn.Module, output: torch.Tensor) -> None:
    output.square().sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert not idle


both = pytest.mark.parametrize("make", [*GENERATORS.values(), *CRITICS.values()], ids=[*GENERATORS, *CRITICS])
generators = pytest.mark.parametrize("make", GENERATORS.values(), ids=GENERATORS)
critics = pytest.mark.parametrize("make", CRITICS.values(), ids=CRITICS)


@pytest.mark.parametrize("degrees_of_freedom", [2.5, 3.0, 5.0, 50.0])
def test_heavy_tails_are_those_of_student(degrees_of_freedom: float):
    normal = torch.linspace(-5, 5, 10001, dtype=torch.float64)
    found = HeavyTails(degrees_of_freedom)(normal.float()).double().numpy()
    quantile = stats.t.isf(stats.norm.sf(normal.abs().numpy()), degrees_of_freedom)
    expected = np.sign(normal.numpy()) * quantile * np.sqrt(1 - 2 / degrees_of_freedom)
    np.testing.assert_allclose(found, expected, rtol=TAIL_ACCURACY, atol=TAIL_ACCURACY)
    assert (np.diff(found) > 0).all()
    # Twin: without the unit variance it is far off.
    assert not np.allclose(found, np.sign(normal.numpy()) * quantile, rtol=0.01)


def test_heavy_tails_have_unit_variance():
    # Quantiles of equal probability, so that no sampling noise hides an error; the rest is the end of the grid.
    normal = torch.special.ndtri((torch.arange(10**6, dtype=torch.float64) + 0.5) / 10**6).float()
    assert HeavyTails(10.0)(normal).double().square().mean() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("degrees_of_freedom", [2.0, -1.0, float("inf"), float("nan")])
def test_tails_without_a_variance_are_refused(degrees_of_freedom: float):
    with pytest.raises(UserError, match="more than 2 degrees of freedom"):
        HeavyTails(degrees_of_freedom)


@generators
def test_heavy_tailed_latents_are_a_setting(make):
    generator = stirred(seeded(make, tails=3.0)).eval()
    assert generator.settings()["tails"] == 3.0
    # Nothing of it is among the weights.
    copy = build_part(AbstractGenerator, {"name": type(generator).__name__, "settings": generator.settings()})
    copy.load_state_dict(generator.state_dict())
    latent = inputs(generator)
    with torch.no_grad():
        torch.testing.assert_close(copy.eval()(latent), generator(latent), rtol=0, atol=0)
        normal = stirred(seeded(make)).eval()
        assert not torch.allclose(normal(latent), generator(latent), rtol=0.01)
        # The same network of latents that were mapped before.
        if isinstance(generator, SpectralPriorGenerator):
            mapped = torch.stack([latent[:, 0], HeavyTails(3.0)(latent[:, 1])], 1)
        else:
            mapped = HeavyTails(3.0)(latent)
        torch.testing.assert_close(normal(mapped), generator(latent), rtol=0, atol=0)


@both
def test_conditions_start_as_none_and_are_learnt(make):
    plain, conditional = seeded(make), seeded(make, n_conditions=2)
    values, conditions = inputs(plain), noise(6, 2, seed=3)
    torch.testing.assert_close(conditional(values, conditions), plain(values), rtol=0, atol=0)
    stirred(conditional)
    one, other = conditional(values, conditions), conditional(values, conditions + 1)
    assert not torch.allclose(one, other, rtol=1e-4)
    require_gradients(conditional, one)


@both
def test_conditions_are_those_of_their_own_slice(make):
    network = stirred(seeded(make, n_conditions=1)).eval()
    values, conditions = inputs(network), noise(6, 1, seed=3)
    conditions[3] += 1
    changed = conditions.clone()
    changed[0] += 1
    with torch.no_grad():
        difference = (network(values, changed) - network(values, conditions)).abs().reshape(6, -1)
    assert difference[0].max() > 1e-4
    # The standard deviation over the batch is all that slices tell each other.
    if not isinstance(network, PatchCritic | PeriodicCritic):
        assert difference[1:].max() == 0


@both
def test_missing_and_superfluous_conditions_are_refused(make):
    plain, conditional = make(), make(n_conditions=2)
    values = inputs(plain)
    with pytest.raises(UserError, match=r"takes none, found \(6, 2\)"):
        plain(values, noise(6, 2))
    for wrong, found in ((None, "none"), (noise(6, 1), r"\(6, 1\)"), (noise(5, 2), r"\(5, 2\)")):
        with pytest.raises(UserError, match=rf"takes \(6, 2\), found {found}"):
            conditional(values, wrong)
    with pytest.raises(UserError, match="found -1"):
        make(n_conditions=-1)


@generators
def test_files_of_before_there_were_options_still_load(make):
    generator = make()
    old = {k: v for k, v in generator.settings().items() if k not in ("n_conditions", "tails")}
    copy = build_part(AbstractGenerator, {"name": type(generator).__name__, "settings": old})
    copy.load_state_dict(generator.state_dict())


@both
def test_gradients_reach_all_weights(make):
    network = stirred(make())
    require_gradients(network, network(inputs(network)))


@both
def test_heads_are_in_float32_under_autocast(make):
    network = stirred(seeded(make)).eval()
    values = inputs(network)
    with torch.no_grad():
        expected = network(values)
        with torch.autocast("cpu", torch.bfloat16):
            found = network(values)
    assert found.dtype == torch.float32
    # Not rounded to 16 bits at the end, but computed with 16 bits before.
    assert (found.bfloat16().float() != found).float().mean() > 0.8
    assert 0 < (found - expected).std() < 0.02 * expected.std()


@critics
def test_features_are_those_that_a_batch_is_matched_by(make):
    critic: AbstractCritic = stirred(make()).eval()
    values = inputs(critic)
    features = critic.features(values)
    assert features.shape[:1] == (6,)
    assert features.ndim == 2
    torch.testing.assert_close(critic.features(values[2:3]), features[2:3])
    with torch.autocast("cpu", torch.bfloat16):
        assert critic.features(values).dtype == torch.float32
    gradient = torch.autograd.grad(features[0].sum(), list(critic.parameters()), allow_unused=True)
    assert any(g is not None and g.abs().max() > 0 for g in gradient)
