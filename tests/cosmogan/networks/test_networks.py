import copy

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.nn import functional

from cosmogan.errors import UserError
from cosmogan.networks import unet
from cosmogan.networks.base import count_parameters
from cosmogan.networks.convolution import CircularConvolution, doubled, with_margin
from cosmogan.networks.dcgan import DCGANCritic, DCGANGenerator
from cosmogan.networks.patch_critic import PatchCritic
from cosmogan.networks.smoothing import gaussian_kernel, sharpen, smooth
from cosmogan.networks.spectral_prior.generator import SpectralPriorGenerator
from cosmogan.slices import SliceMetadata
from cosmogan.statistics.power_spectrum import power_spectrum
from cosmogan.transforms import GaussianisingTransform

# Fourier transforms in float32, and a factor of a few from the exponential of the point transform.
FFT_ROUNDING = 1e-4
# The fit leaves some per cent on a field this far from normal; 1024 fields of 32 x 32 scatter by less.
PRIOR_POWER, PRIOR_QUANTILES = 0.15, 0.15
# Eight bits of a correction of a few per cent, times the slope of a steep point transform; measured 0.0004 and 0.003.
AUTOCAST_MEDIAN, AUTOCAST_WORST = 0.002, 0.01


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stir(module: torch.nn.Module) -> None:
    """Give zero-initialised layers weights, so that a test sees what they do."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def test_the_papers_dcgan_at_256_pixels():
    generator, critic = DCGANGenerator(256), DCGANCritic(256)
    # 200 -> 16 x 16 x 512, then 5 x 5 kernels 512 -> 256 -> 128 -> 64 -> 1 with biases and BatchNorm.
    expected = 201 * 16 * 16 * 512 + 2 * (512 + 256 + 128 + 64)
    expected += 25 * (512 * 256 + 256 * 128 + 128 * 64 + 64 * 1) + 256 + 128 + 64 + 1
    assert count_parameters(generator) == expected
    with torch.no_grad():
        values = generator(noise(2, 200))
        assert values.shape == (2, 256, 256)
        assert values.abs().max() <= 1
        assert critic(values).shape == (2,)


@pytest.mark.parametrize("n_pixels", [16, 32, 64])
def test_dcgan_is_sized_from_the_pixels(n_pixels: int):
    generator = DCGANGenerator(n_pixels, latent_size=8, width=4)
    assert generator(noise(3, 8)).shape == (3, n_pixels, n_pixels)
    assert DCGANCritic(n_pixels, width=4)(noise(3, n_pixels, n_pixels)).shape == (3,)


@pytest.mark.parametrize("make", [DCGANGenerator, DCGANCritic, SpectralPriorGenerator, PatchCritic])
def test_impossible_sizes_are_refused(make):
    with pytest.raises(UserError, match="20"):
        make(20)


def test_the_spectral_prior_is_equivariant_under_shifts_by_eight_pixels():
    generator = SpectralPriorGenerator(32, width=8, smoothing=1.0)
    stir(generator)
    latent = noise(2, 2, 32, 32)
    with torch.no_grad():
        shifted = generator(latent.roll((8, 16), (2, 3)))
        expected = generator(latent).roll((8, 16), (1, 2))
        torch.testing.assert_close(shifted, expected, rtol=FFT_ROUNDING, atol=0)
        # Twin: the patches of 8 pixels can be told from each other inside.
        assert not torch.allclose(generator(latent.roll(3, 2)), generator(latent).roll(3, 1), rtol=FFT_ROUNDING)


def mirrored(network: nn.Module) -> nn.Module:
    """Return a copy of the spectral prior's network with all its weights seen in a mirror."""
    other = copy.deepcopy(network)
    # Columns of the two by two pixels that are channels change places.
    swapped = torch.tensor([1, 0, 3, 2])
    with torch.no_grad():
        for module in other.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_(module.weight.flip(3))
        other.enter.weight.copy_(other.enter.weight[:, torch.cat([swapped, swapped + 4])])
    return other


def test_no_diagonal_is_built_into_the_spectral_prior(monkeypatch: pytest.MonkeyPatch):
    def difference() -> float:
        torch.manual_seed(0)
        generator = SpectralPriorGenerator(32, width=8, smoothing=1.0)
        stir(generator)
        latent = noise(2, 2, 32, 32)
        with torch.no_grad():
            expected = generator(latent).flip(2)
            generator.network = mirrored(generator.network)
            return float((generator(latent.flip(3)) / expected - 1).abs().max())

    assert difference() < FFT_ROUNDING
    # Twin: with three taps, halving shifts everything towards one corner.
    monkeypatch.setattr(unet, "_halving", lambda n_in, n_out: CircularConvolution(n_in, n_out, 3, stride=2))
    assert difference() > 10 * FFT_ROUNDING


@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (3, 2), (4, 2)])
def test_periodic_convolutions_are_those_of_torch(kernel_size: int, stride: int):
    ours = CircularConvolution(3, 5, kernel_size, stride=stride)
    theirs = nn.Conv2d(3, 5, kernel_size, stride=stride, padding=1, padding_mode="circular")
    theirs.load_state_dict(ours.state_dict())
    values = noise(2, 3, 8, 8).requires_grad_(True)
    results = [layer(values) for layer in (ours, theirs)]
    torch.testing.assert_close(*results)
    # Twice differentiated, as a gradient penalty does.
    for result, layer in zip(results, (ours, theirs), strict=True):
        (gradient,) = torch.autograd.grad(result.square().sum(), values, create_graph=True)
        gradient.square().sum().backward(inputs=[layer.weight])
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-3)
    # Twin: it is not a margin of zeros.
    assert not torch.allclose(nn.Conv2d.forward(ours, values), results[0], rtol=0.05)


def test_the_dcgan_is_not_periodic():
    critic = DCGANCritic(32, width=4)
    values = noise(2, 32, 32)
    with torch.no_grad():
        assert not torch.allclose(critic(values.roll(16, 1)), critic(values), rtol=1e-3)


def test_the_patch_critic_of_whole_slices_is_periodic():
    critic = PatchCritic(32, patch=64, width=8).double()
    assert critic.patch_pixels == 32
    values = noise(3, 32, 32).double()
    torch.testing.assert_close(critic.features(values.roll(8, 1)), critic.features(values))
    # Twin: a shift by one pixel is another slice to it.
    assert not torch.allclose(critic.features(values.roll(1, 1)), critic.features(values), rtol=1e-3)


def test_moments_tell_slices_by_what_is_in_them_and_not_by_where():
    torch.manual_seed(0)
    critic = PatchCritic(32, patch=32, width=8, moments=True).double()
    values = noise(4, 32, 32).double().requires_grad_(True)
    with torch.no_grad():
        places = PatchCritic(32, patch=32, width=8, moments=False).double()
        places.load_state_dict({k: v for k, v in critic.state_dict().items() if not k.startswith("moments")})

        def by_moments(slices: torch.Tensor) -> torch.Tensor:
            return critic(slices) - places(slices)

        torch.testing.assert_close(by_moments(values.roll((8, 16), (1, 2))), by_moments(values))
        # Twins: places count without them, and a little more scatter counts with them.
        assert (places(values.roll((8, 16), (1, 2))) - places(values)).abs().max() > 1e-3
        assert (by_moments(1.05 * values) - by_moments(values)).abs().min() > 1e-4
    # As a gradient penalty does; the logarithm of the variance of a constant slice stays finite.
    flat = torch.cat([values, torch.zeros(1, 32, 32, dtype=torch.float64)])
    (gradient,) = torch.autograd.grad(critic(flat).sum(), flat, create_graph=True)
    (again,) = torch.autograd.grad(gradient.square().sum(), critic.moments[0].weight)
    assert again.isfinite().all()
    assert again.abs().max() > 0


def test_the_patch_critic_sees_the_particles_that_slices_were_smoothed_from():
    counts = torch.poisson(torch.exp(1.5 * noise(8, 32, 32)))
    metadata = SliceMetadata(box_size=70.0, n_pixels=32, thickness=1.0, smoothing=1.0)
    torch.manual_seed(0)
    critic = PatchCritic(32, patch=32, width=8, moments=True, mean_count=3.0)
    density = smooth(counts / 3, gaussian_kernel(1.0)).requires_grad_(True)
    critic.prepare(density.detach(), metadata=metadata)
    values = torch.log(density + 0.1)
    planes = critic.shown(density, values)
    torch.testing.assert_close(planes[:, 0], values)
    torch.testing.assert_close(planes[:, 1].exp() * 4 - 1, counts, rtol=1e-2, atol=1e-2)
    # The score depends on where they are, whatever the values say.
    assert (critic(planes) - critic(torch.stack([planes[:, 0], planes[:, 1].roll(1, -1)], 1))).abs().min() > 1e-4
    (gradient,) = torch.autograd.grad(planes[:, 1].sum(), density)
    # d/d density of ln(1 + n), summed over a slice: what sharpening makes of 3 / (1 + n), empty pixels too.
    expected = sharpen(3 / (1 + counts), gaussian_kernel(1.0)).float()
    torch.testing.assert_close(gradient, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max()))
    # Twin: without, it sees the network values alone.
    assert PatchCritic(32, width=8).shown(density, values) is values


def test_particles_that_are_not_there_cannot_be_shown():
    critic = PatchCritic(32, width=8, mean_count=3.0)
    density = torch.poisson(torch.full((4, 32, 32), 3.0)) / 3
    metadata = SliceMetadata(box_size=70.0, n_pixels=32, thickness=1.0)
    critic.prepare(density, metadata=metadata)
    with pytest.raises(
        UserError, match=r"no multiples of 1 / 3 .* set mean_count of generator and critic .* or smoothed"
    ):
        critic.prepare(1.1 * density, metadata=metadata)
    with pytest.raises(UserError, match=r"model\.critic\.mean_count: expected a number above 0 or null, found 0"):
        PatchCritic(32, mean_count=0.0)


def test_other_sizes_come_from_the_same_weights():
    generator = SpectralPriorGenerator(32, width=8, smoothing=1.0)
    assert generator(noise(1, 2, 64, 64)).shape == (1, 64, 64)
    assert generator.training_latent_shape == (2, 32, 32)


def test_smoothing_is_that_of_the_slice_file():
    generator = SpectralPriorGenerator(32, smoothing=1.0)
    field = torch.exp(3 * noise(2, 32, 32)).double()
    expected = [gaussian_filter(f, 1.0, mode="wrap", truncate=4.0) for f in field.numpy()]
    np.testing.assert_allclose(smooth(field.float(), generator.kernel).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("sigma", [1.0, 2.0, 2.4, 5.0, 30.0])
def test_kernels_wider_than_the_slice_go_around(side: int, sigma: float):
    field = torch.exp(noise(2, side, side)).double()
    expected = [gaussian_filter(f, sigma, mode="wrap", truncate=4.0) for f in field.numpy()]
    found = smooth(field, gaussian_kernel(sigma).double()).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.abs(1.05 * found / expected - 1).min() > 1e-5


@pytest.mark.parametrize("chance", [1.0, 0.4])
def test_pixels_are_whole_numbers_of_particles(chance: float):
    torch.manual_seed(0)
    rounded = SpectralPriorGenerator(32, width=4, mean_count=8.0, rounding=chance).eval()
    stir(rounded)
    smoothly = SpectralPriorGenerator(32, width=4).eval()
    smoothly.load_state_dict(rounded.state_dict())
    latent = noise(512, 3, 32, 32)
    # The same field, rounded in 512 ways.
    latent[:, :2] = latent[:1, :2]
    counts = 8 * rounded(latent)
    expected = 8 * smoothly(latent[:1, :2])
    assert (counts - counts.round()).abs().max() < 1e-5 * counts.max()
    assert (counts - expected).abs().max() < 1 + 1e-4
    assert (expected - expected.round()).abs().max() > 0.4
    whole = expected[0].floor()
    share = ((expected[0] - whole - 0.5) / chance + 0.5).clamp(0, 1)
    # Standard error of the mean of a number that is rounded up with probability one half.
    assert (counts.mean(0) - whole - share).abs().max() < 5 * 0.5 / 512**0.5
    # Where there is less chance, some pixels need none; those have the same number in all 512.
    sure = (share == 0) | (share == 1)
    assert sure.any() == (chance < 1)
    assert (counts.std(0)[sure] < 1e-4).all()
    # The gradient is that of the field that is not rounded.
    (gradient,) = torch.autograd.grad(counts.sum(), rounded.network.enter.weight)
    (wanted,) = torch.autograd.grad(512 * expected.sum(), smoothly.network.enter.weight)
    torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


def test_the_mean_density_is_one_whatever_is_rounded():
    torch.manual_seed(0)
    generator = SpectralPriorGenerator(32, width=4, mean_count=8.0, rounding=0.4).eval()
    latent = noise(512, 3, 32, 32, seed=3)
    with torch.no_grad():
        generator.log_field.copy_(1.5 * generator.normal - 2.5)
        (field,) = generator.normalise([generator.corrected(latent)])
        # Without a second look at the mean it would be 1.02.
        assert abs(float(generator.to_density(field, latent[:, 2:]).mean()) - 1) < 2e-3


def test_rounding_that_cannot_be_is_refused():
    with pytest.raises(UserError, match="mean_count: expected a number of particles above 0 or null, found 0"):
        SpectralPriorGenerator(32, mean_count=0)
    with pytest.raises(UserError, match="rounding: expected a share between 0 and 1, found 2"):
        SpectralPriorGenerator(32, rounding=2.0)
    with pytest.raises(UserError, match=r"rounding: 0\.5 of what is rounded .* mean_count is null"):
        SpectralPriorGenerator(32, rounding=0.5)
    spread = SliceMetadata(box_size=70.0, n_pixels=32, thickness=1.0, assignment="CIC")
    generator = SpectralPriorGenerator(32, width=4, mean_count=8.0)
    with pytest.raises(UserError, match=r"mean_count: the slices are made by CIC, .* set it to null"):
        generator.prepare(torch.ones(2, 32, 32), transform=GaussianisingTransform(), metadata=spread, seed=0)


def test_smoothing_can_be_undone_where_it_is_a_pixel_wide():
    counts = torch.poisson(torch.exp(2 * noise(4, 32, 32)))
    kernel = gaussian_kernel(1.0)
    torch.testing.assert_close(sharpen(smooth(counts, kernel), kernel), counts.double(), rtol=0, atol=0.05)


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_with_less_chance_the_untrained_generator_has_the_particle_counts_of_the_data(
    monkeypatch: pytest.MonkeyPatch, smoothing: float
):
    monkeypatch.setattr(SpectralPriorGenerator, "FIT_PIXELS", 2**17)
    counts = torch.poisson(torch.exp(1.2 * noise(256, 32, 32)))
    mean_count = float(counts.mean())
    density = smooth(counts / mean_count, gaussian_kernel(smoothing))
    transform = GaussianisingTransform()
    transform.fit(density)
    generator = SpectralPriorGenerator(32, width=4, mean_count=mean_count, rounding=0.2)
    metadata = SliceMetadata(box_size=70.0, n_pixels=32, thickness=1.0, smoothing=smoothing)
    with torch.no_grad():
        generator.prepare(density, transform=transform, metadata=metadata, seed=0)
        mocks = generator(noise(512, 3, 32, 32, seed=5))
        found = (mean_count * sharpen(mocks, generator.kernel)).round()
    for number in (0, 2, 5, 10, 40):
        assert abs((found <= number).float().mean() - (counts <= number).float().mean()) < 0.01, number
    with pytest.raises(UserError, match=r"no multiples of 1 / 2\.\d+ .*; set .* model\.generator\.rounding to 1"):
        generator.prepare(1.1 * density, transform=transform, metadata=metadata, seed=0)
    with pytest.raises(UserError, match="rounding: the pixels of the slices hold fewer than 3 different numbers"):
        generator.prepare(torch.ones(2, 32, 32), transform=transform, metadata=metadata, seed=0)


def test_fields_in_pieces_are_those_of_all_at_once(monkeypatch: pytest.MonkeyPatch):
    generator = SpectralPriorGenerator(16, width=4, n_conditions=2)
    stir(generator)
    latent, conditions = noise(7, *generator.latent_shape), noise(7, 2, seed=1)
    with torch.no_grad():
        whole = generator.corrected(latent, conditions)
        assert not torch.allclose(generator.corrected(latent, conditions.flip(0)), whole, rtol=0.01)
        # Three at a time.
        monkeypatch.setattr("cosmogan.networks.base._CACHED_SLICES", 3)
        torch.testing.assert_close(generator.corrected_in_pieces(latent, conditions), whole, rtol=1e-4, atol=1e-4)


def test_corrections_stay_below_their_limit():
    plain, limited = SpectralPriorGenerator(32, width=4), SpectralPriorGenerator(32, width=4, limit=8.0)
    stir(plain)
    limited.load_state_dict(plain.state_dict())
    latent = noise(4, *plain.latent_shape)
    prior = plain.color(latent[:, 0])
    correction = plain.corrected(latent) - prior
    expected = correction / torch.sqrt(1 + (correction / 8) ** 2)
    torch.testing.assert_close(limited.corrected(latent) - prior, expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        # A pixel that ran away.
        limited.network.leave.bias.fill_(1e4)
        assert (limited.corrected(latent) - prior).abs().max() <= 8.0001
    with pytest.raises(UserError, match="limit: expected a largest correction above 0 or null, found -1"):
        SpectralPriorGenerator(32, limit=-1.0)


def test_the_untrained_generator_has_the_power_and_the_pixels_of_the_data(monkeypatch: pytest.MonkeyPatch):
    # An eighth of what users fit with.
    monkeypatch.setattr(SpectralPriorGenerator, "FIT_PIXELS", 2**18)
    box_size = 70.0
    field = torch.exp(1.2 * noise(256, 32, 32)).double().numpy()
    density = torch.from_numpy(np.stack([gaussian_filter(f, 1.0, mode="wrap") for f in field])).float()
    density /= density.mean()
    transform = GaussianisingTransform()
    transform.fit(density)
    generator = SpectralPriorGenerator(32, width=4)
    metadata = SliceMetadata(box_size=box_size, n_pixels=32, thickness=1.0, smoothing=1.0)
    with torch.no_grad():
        generator.prepare(density, transform=transform, metadata=metadata, seed=0)
        mocks = generator(noise(1024, 2, 32, 32, seed=5))
    ratio = power_spectrum(mocks - 1, box_size).mean(0) / power_spectrum(density - 1, box_size).mean(0)
    assert (ratio - 1).abs().max() < PRIOR_POWER
    levels = torch.tensor([0.01, 0.1, 0.5, 0.9, 0.99])
    quantiles = torch.quantile(mocks[:256].flatten(), levels) / torch.quantile(density.flatten(), levels)
    assert (quantiles - 1).abs().max() < PRIOR_QUANTILES
    assert mocks.min() > 0


@pytest.mark.parametrize(
    "generator",
    [
        DCGANGenerator(16, latent_size=6, width=4),
        SpectralPriorGenerator(16, width=4, smoothing=1.5),
        SpectralPriorGenerator(16, width=4, smoothing=1.5, mean_count=2.0),
        SpectralPriorGenerator(16, width=4, limit=0.1),
        SpectralPriorGenerator(16, width=4, mean_count=2.0, rounding=0.0),
    ],
    ids=["dcgan", "spectral-prior", "particles", "limit", "nearest"],
)
def test_settings_and_weights_build_the_same_generator(generator):
    stir(generator)
    copy = type(generator)(**generator.settings())
    copy.load_state_dict(generator.state_dict())
    latent = noise(4, *generator.latent_shape)
    torch.testing.assert_close(copy.eval()(latent), generator.eval()(latent), rtol=0, atol=0)


def test_densities_are_in_float32_under_autocast():
    generator = SpectralPriorGenerator(32, width=8, smoothing=1.0)
    stir(generator)
    with torch.no_grad():
        # A tail of some ten thousand means.
        generator.log_field.mul_(3.0)
        latent = noise(4, 2, 32, 32)
        expected = generator(latent)
        with torch.autocast("cpu", torch.bfloat16):
            found = generator(latent)
    assert found.dtype == torch.float32
    tail = found[expected > 1000]
    assert len(tail) > 20
    # Sixteen bits would leave about 128 values between 1,000 and 2,000 and make equal pixels of neighbours.
    assert (tail.bfloat16().float() != tail).float().mean() > 0.95
    ratio = torch.log(found / expected).abs()
    assert 0 < ratio.median() < AUTOCAST_MEDIAN
    assert ratio.max() < AUTOCAST_WORST


@pytest.mark.parametrize(
    "critic",
    [PatchCritic(32, patch=32, width=8), PatchCritic(32, patch=32, width=8, moments=True)],
    ids=["patch", "moments"],
)
def test_scores_and_features_are_in_float32_under_autocast(critic):
    values = noise(8, 32, 32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores, features = critic(values), critic.features(values)
    assert scores.dtype == features.dtype == torch.float32
    assert (scores.bfloat16().float() != scores).any()


def test_doubling_and_margins_have_the_gradients_of_what_they_do():
    """Both written by hand: against torch's interpolation of torch's margin, on sides of 6 and 4."""
    features = torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = torch.randn(2, 3, 12, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, expected = features.clone().requires_grad_(True), features.clone().requires_grad_(True)
    padded = functional.pad(expected, (1, 1, 1, 1), mode="circular")
    theirs = functional.interpolate(padded, scale_factor=2, mode="bilinear")[:, :, 2:-2, 2:-2]
    torch.testing.assert_close(doubled(found), theirs)
    for finer, leaf in ((doubled(found), found), (theirs, expected)):
        (finer * weights).sum().backward(inputs=[leaf])
    torch.testing.assert_close(found.grad, expected.grad)
    # Twin: it is the interpolation, not the nearest pixel.
    assert not torch.allclose(functional.avg_pool2d(weights, 2, divisor_override=1), expected.grad, rtol=0.05)
    # Twice, as penalties differentiate a critic.
    for function in (doubled, lambda planes: with_margin(planes, 1), lambda planes: with_margin(planes, 3)):
        assert torch.autograd.gradcheck(function, found)
        assert torch.autograd.gradgradcheck(function, found)
    # What makes slices has no gradient, and the same numbers.
    with torch.no_grad():
        torch.testing.assert_close(doubled(features), theirs.detach(), rtol=0, atol=0)
