import pytest
import torch

from cosmogan.transforms import GaussianisingTransform, LogTransform, Rodriguez2018Transform, interpolate, thin

# float32 carries 7 digits; the steepest map loses two of them.
ROUND_TRIP = 1e-4


def lognormal(n: int = 64) -> torch.Tensor:
    return torch.exp(1.5 * torch.randn(n, 32, 32, generator=torch.Generator().manual_seed(0)) - 1.125)


@pytest.fixture(
    params=[lambda: Rodriguez2018Transform(0.25), LogTransform, GaussianisingTransform], ids=["s", "log", "g"]
)
def transform(request):
    made = request.param()
    made.fit(lognormal())
    return made


def test_inverse_undoes_forward(transform):
    density = lognormal()
    torch.testing.assert_close(transform.inverse(transform(density)), density, rtol=ROUND_TRIP, atol=1e-5)


def test_an_inverse_five_per_cent_off_is_found(transform):
    density = lognormal()
    wrong = 1.05 * transform.inverse(transform(density))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(wrong, density, rtol=ROUND_TRIP, atol=1e-5)


def test_order_is_kept_and_densities_are_never_negative(transform):
    ramp = torch.logspace(-3, 3, 200)
    assert (transform(ramp).diff() > 0).all()
    assert (transform.inverse(torch.linspace(-50, 8, 100)) >= 0).all()
    assert torch.isfinite(transform(torch.zeros(1))).all()


def test_settings_and_state_build_the_same_transform(transform):
    copy = type(transform)(**transform.settings())
    copy.load_state_dict(transform.state_dict())
    torch.testing.assert_close(copy(lognormal()), transform(lognormal()), rtol=0, atol=0)


def test_the_papers_values():
    # s(x) = 2 x / (x + a) - 1: s(0) = -1, s(a) = 0.
    s = Rodriguez2018Transform(4.0)(torch.tensor([0.0, 4.0, 12.0]))
    torch.testing.assert_close(s, torch.tensor([-1.0, 0.0, 0.5]))


def test_gaussianised_pixels_are_normal():
    transform = GaussianisingTransform()
    density = lognormal()
    transform.fit(density)
    values = transform(density)
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
    # Kurtosis of a normal distribution is 3.
    assert abs((values**4).mean() - 3) < 0.1


def test_gaussianising_survives_empty_pixels():
    density = lognormal()
    density[density < 0.3] = 0.0
    transform = GaussianisingTransform()
    transform.fit(density)
    torch.testing.assert_close(transform.inverse(transform(density)), density, rtol=ROUND_TRIP, atol=1e-3)


def test_thinning_bounds_the_pixels(monkeypatch: pytest.MonkeyPatch):
    slices = lognormal(10)
    torch.testing.assert_close(thin(slices), slices, rtol=0, atol=0)
    monkeypatch.setattr("cosmogan.transforms.tables._FITTED_PIXELS", 4 * 32 * 32)
    torch.testing.assert_close(thin(slices), slices[::3], rtol=0, atol=0)


def test_interpolation_is_linear_beyond_the_ends_and_differentiable():
    knots, values = torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0.0, 2.0, 3.0])
    x = torch.tensor([-1.0, 0.5, 2.0, 5.0], requires_grad=True)
    y = interpolate(x, knots, values)
    torch.testing.assert_close(y, torch.tensor([-2.0, 1.0, 2.5, 4.0]))
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([2.0, 2.0, 0.5, 0.5]))
