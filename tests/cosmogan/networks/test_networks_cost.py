import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cosmogan.losses.penalties import ZeroCentred
from cosmogan.networks.base import count_parameters
from cosmogan.networks.cost import count_cost
from cosmogan.networks.dcgan import DCGANCritic, DCGANGenerator
from cosmogan.networks.mlp import MLPCritic, MLPGenerator
from cosmogan.networks.patch_critic import PatchCritic
from cosmogan.networks.periodic import PeriodicCritic, PeriodicGenerator
from cosmogan.networks.spectral_prior.generator import SpectralPriorGenerator

# One training pair of the paper's networks at 256 x 256 pixels: "about 65 GFLOP". Ours takes 61, as the generator step
# computes no gradients of the critic's weights, which are another 5.
PAPER_PAIR, PAPER_TOLERANCE = 65e9, 0.07


@pytest.fixture
def paper() -> tuple[DCGANGenerator, DCGANCritic]:
    """The paper's networks, whose tens of millions of weights need not be drawn."""
    with torch.device("meta"):
        return DCGANGenerator(256), DCGANCritic(256)


def test_the_dcgan_at_64_pixels_by_hand():
    # Multiplications and additions, 5 x 5 kernels, at the pixels that a kernel is set on.
    project = 2 * 200 * 4 * 4 * 512
    up = [2 * 25 * n_in * n_out * side**2 for n_in, n_out, side in ((512, 256, 4), (256, 128, 8), (128, 64, 16))]
    generator = project + sum(up) + 2 * 25 * 64 * 1 * 32**2
    first = 2 * 25 * 1 * 64 * 32**2
    down = [2 * 25 * n_in * n_out * side**2 for n_in, n_out, side in ((64, 128, 16), (128, 256, 8), (256, 512, 4))]
    critic = first + sum(down) + 2 * 4 * 4 * 512
    cost = count_cost(DCGANGenerator(64), DCGANCritic(64))
    assert (cost.generator, cost.critic) == (generator, critic)
    # Forward, gradients of weights, and of inputs but for the slices themselves.
    assert cost.critic_step == generator + 2 * (3 * critic - first)
    # Two forward; back to the mocks, from there to the weights, but not to the latents.
    assert cost.generator_step == 3 * critic + 2 * generator - project
    assert cost.pair == cost.critic_step + cost.generator_step


def test_a_pair_of_the_papers_networks(paper: tuple[DCGANGenerator, DCGANCritic]):
    cost = count_cost(*paper)
    assert cost.pair == pytest.approx(PAPER_PAIR, rel=PAPER_TOLERANCE)
    assert cost.generator_parameters == count_parameters(paper[0])


@pytest.mark.parametrize(
    ("generator", "critic"),
    [
        (DCGANGenerator(16, latent_size=4, width=4), DCGANCritic(16, width=4, normalisation="none")),
        (PeriodicGenerator(16, width=4, n_levels=2), PeriodicCritic(16, width=4)),
        (SpectralPriorGenerator(32, width=4, smoothing=1.0, training_pixels=16), PatchCritic(32, patch=16, width=4)),
        (
            SpectralPriorGenerator(32, width=4, smoothing=1.0, mean_count=8),
            PatchCritic(32, patch=16, width=4, mean_count=8),
        ),
        (MLPGenerator(1, latent_size=2, width=8), MLPCritic(1, width=8)),
    ],
    ids=["dcgan", "periodic", "spectral-prior", "particles", "mlp"],
)
def test_counts_are_those_of_real_slices(generator, critic):
    cost = count_cost(generator, critic)
    n, side = 3, critic.patch_pixels
    real = torch.randn(n, *[2] * (critic.n_planes - 1), side, side)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        generator(torch.randn(n, *generator.latent_shape))
    assert counter.get_total_flops() == n * cost.generator
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        critic(real)
    assert counter.get_total_flops() == n * cost.critic
    with FlopCounterMode(display=False) as counter:
        ZeroCentred(gamma=1.0, on="real")(critic, real, real, step=0, seed=0).backward()
    assert counter.get_total_flops() == pytest.approx(n * cost.penalty, rel=0.02)


def test_counting_changes_nothing():
    generator, critic = PeriodicGenerator(16, width=4, n_levels=2), PeriodicCritic(16, width=4)
    generator.requires_grad_(False)
    state = torch.random.get_rng_state()
    count_cost(generator, critic)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert generator.training
    assert not any(p.requires_grad for p in generator.parameters())
    assert all(p.device.type == "cpu" and p.grad is None for p in critic.parameters())


def test_conditions_are_counted_with():
    plain = count_cost(DCGANGenerator(16, width=4), DCGANCritic(16, width=4))
    told = count_cost(DCGANGenerator(16, width=4, n_conditions=2), DCGANCritic(16, width=4, n_conditions=2))
    assert told.generator_parameters - plain.generator_parameters == 2 * 2 * 8 * 4
    assert told.pair == plain.pair


def test_what_is_printed():
    text = str(count_cost(DCGANGenerator(64), DCGANCritic(64)))
    assert text.splitlines() == [
        "generator  5,951,361 parameters, 321 MFLOP per slice",
        "critic     4,313,473 parameters, 318 MFLOP per slice",
        "training   3.81 GFLOP per slice for a step of both, 2.05 GFLOP more for R1, as for R2",
    ]
