import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from cosmogan import cli
from cosmogan.baselines import fit
from cosmogan.baselines.command import baseline
from cosmogan.baselines.field import (
    NORMAL,
    PROBABILITY,
    TransformedGaussian,
    color,
    fit_spectrum,
    look_up,
    power_deviation,
    ring_mean,
    rings,
)
from cosmogan.baselines.fit import fit_copula, fit_lognormal
from cosmogan.baselines.training import Training, measure_training, symmetric_plane
from cosmogan.cli import main
from cosmogan.errors import UserError
from cosmogan.slices import SliceMetadata, SliceReader, SliceSet, check_slices, write_example, write_slices
from cosmogan.slices.smoothing import smooth
from data_tools.simulation.simulate import simulate

SIDE = 32
METADATA = SliceMetadata(box_size=70.0, n_pixels=SIDE, thickness=1.1)
# A sum of independent numbers leaves five sigmas once in two million.
SIGMAS = 5.0
TWIN = 1.05
# P(k) of a smoothed copula is brought to the target by iteration over 2^19 pixels.
COPULA_POWER = 0.02
# Its amplitude is that of the few hundred slices which the distribution was fitted to.
MOCK_POWER = 0.025


def spectrum(slope: float = -1.5) -> np.ndarray:
    """Spectrum of sum 1, a power law that falls with |k|; the mean mode as the longest waves."""
    power = np.maximum(rings(np.zeros((SIDE, SIDE))), 1.0) ** slope
    return power / power.sum()


def lognormal_slices(n: int, *, sigma: float = 0.8, slope: float = -1.5, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((n, SIDE, SIDE))
    return np.exp(sigma * color(noise, spectrum(slope)) - sigma**2 / 2).astype(np.float32)


def lognormal_power(sigma: float = 0.8) -> np.ndarray:
    """Power of `lognormal_slices`, from the correlation function exp(sigma^2 rho) - 1."""
    rho = np.fft.ifft2(spectrum()).real * SIDE**2
    return np.fft.fft2(np.expm1(sigma**2 * rho)).real / SIDE**2


def write(path: Path, slices: np.ndarray, metadata: SliceMetadata = METADATA) -> Path:
    n = len(slices)
    labels = np.zeros(n, np.int32), np.full(n, 255, np.uint8), np.full(n, np.nan, np.float32)
    write_slices(path, SliceSet(slices, *labels, metadata), overwrite=True)
    return path


def training_of(path: Path, slices: np.ndarray, metadata: SliceMetadata = METADATA) -> Training:
    with SliceReader(write(path, slices, metadata)) as reader:
        return measure_training(reader)


def mean_power(slices: np.ndarray, mean: float) -> tuple[np.ndarray, np.ndarray]:
    """P(k) in rings and its error, by a plain loop over numpy's transform."""
    each = np.stack([ring_mean(np.abs(np.fft.fft2(s.astype(float) - mean)) ** 2) / SIDE**4 for s in slices])
    return each.mean(0), each.std(0) / np.sqrt(len(each))


@pytest.fixture
def quick_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "_FIT_PIXELS", 2**19)


def test_measured_are_mean_power_and_pixels(tmp_path: Path):
    slices = lognormal_slices(40)
    training = training_of(tmp_path / "t.h5", slices)
    plane = (np.abs(np.fft.fft2(slices.astype(float) - slices.mean(dtype=float))) ** 2).mean(0) / SIDE**4
    flipped = [np.roll(np.flip(plane, axes), 1, axes) for axes in ((), (0,), (1,), (0, 1))]
    expected = np.mean([*flipped, *(f.T for f in flipped)], axis=0)
    np.testing.assert_allclose(training.power, expected, rtol=1e-6, atol=1e-14)
    assert training.power.sum() == pytest.approx(slices.var(dtype=float), rel=1e-6)
    share = np.array([1e-4, 0.1, 0.5, 0.9, 0.9999, 1.0])
    np.testing.assert_allclose(training.quantile(share), np.quantile(slices, share, method="inverted_cdf"), rtol=1e-4)


@pytest.mark.parametrize("side", [8, 9])
def test_the_half_plane_becomes_the_whole(side: int):
    field = np.random.default_rng(0).standard_normal((side, side))
    every = [np.abs(np.fft.fft2(np.rot90(f, turn))) ** 2 for f in (field, field.T) for turn in range(4)]
    np.testing.assert_allclose(symmetric_plane(np.abs(np.fft.rfft2(field)) ** 2), np.mean(every, axis=0))


def test_the_spectrum_below_a_lognormal_is_known():
    sigma = 1.2
    table = np.exp(sigma * NORMAL - sigma**2 / 2)
    found, made = fit_spectrum(table, lognormal_power(sigma))
    # The table's steps are 1e-4 wide.
    np.testing.assert_allclose(found, spectrum(), rtol=1e-3)
    np.testing.assert_allclose(made, lognormal_power(sigma), rtol=1e-3)
    assert np.abs(found / fit_spectrum(table, lognormal_power(TWIN * sigma))[0] - 1).max() > 1e-3


def test_the_covariance_of_steps_is_known():
    """Of signs of normal numbers: the arcsine law."""
    rho = np.fft.ifft2(spectrum()).real * SIDE**2
    target = np.fft.fft2(2 / np.pi * np.arcsin(np.clip(rho, -1, 1))).real / SIDE**2
    found, _ = fit_spectrum(np.sign(NORMAL), target)
    # The series of a step converges slowly.
    np.testing.assert_allclose(found, spectrum(), rtol=2e-2)


def test_impossible_power_is_approached():
    """No exponential of a Gaussian field lacks the waves that the exponential makes."""
    table = np.exp(1.5 * NORMAL)
    target = np.where(rings(np.zeros((SIDE, SIDE))) < 5, 1.0, 1e-9)
    found, made = fit_spectrum(table, target)
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1)
    assert power_deviation(made, target * (made.sum() / target.sum())) > 1


def test_a_lognormal_has_the_power_it_was_fitted_to(tmp_path: Path):
    training = replace(training_of(tmp_path / "t.h5", lognormal_slices(400)), power=lognormal_power())
    fitted = fit_lognormal(training)
    assert fitted.power_deviation < 1e-3
    power, error = mean_power(fitted.field.sample(1500, seed=3), training.mean)
    chi_squared = (((power - ring_mean(lognormal_power())) / error) ** 2).sum()
    high = scipy.stats.chi2.isf(1e-4, len(power))
    assert chi_squared < high
    assert (((TWIN * power - ring_mean(lognormal_power())) / error) ** 2).sum() > high


def test_white_noise_stays_white(tmp_path: Path):
    """Independent pixels: every mode of the Gaussian field has the same power, and so has every ring of the mocks."""
    pixels = np.random.default_rng(4).gamma(2.0, 0.5, (600, SIDE, SIDE)).astype(np.float32)
    training = training_of(tmp_path / "t.h5", pixels)
    field = fit_copula(training).field
    power, error = mean_power(field.sample(600, seed=1), training.mean)
    assert np.abs((power - 0.5 / SIDE**2) / np.hypot(error, error))[1:].max() < SIGMAS
    assert np.abs((TWIN * power - 0.5 / SIDE**2) / np.hypot(error, error))[1:].max() > SIGMAS


def test_a_copula_has_pixels_and_power_of_its_training(tmp_path: Path):
    slices = lognormal_slices(400) ** np.float32(1.3)
    training = training_of(tmp_path / "t.h5", slices)
    mocks = fit_copula(training).field.sample(1000, seed=2)
    power, error = mean_power(mocks, training.mean)
    chi_squared = (((power - ring_mean(training.power)) / error) ** 2).sum()
    high = scipy.stats.chi2.isf(1e-4, len(power))
    assert chi_squared < high
    assert (((TWIN * power - ring_mean(training.power)) / error) ** 2).sum() > high
    edges = np.quantile(slices, np.linspace(0.02, 0.98, 25))
    shares = np.stack([np.histogram(m, edges)[0] / m.size for m in mocks])
    pulls = (shares.mean(0) - 0.04) / (shares.std(0) / np.sqrt(len(mocks)))
    assert np.abs(pulls).max() < SIGMAS
    assert np.abs((TWIN * shares.mean(0) - 0.04) / (shares.std(0) / np.sqrt(len(mocks)))).max() > SIGMAS
    assert mocks.max() <= slices.max() * 1.0001
    assert mocks.min() >= slices.min() * 0.9999


def test_a_smoothed_copula_has_pixels_and_power_of_its_training(tmp_path: Path, quick_fit: None):
    smoothed = smooth(lognormal_slices(400, sigma=0.8, slope=-0.5), 1.0)
    training = training_of(tmp_path / "t.h5", smoothed, replace(METADATA, smoothing=1.0))
    fitted = fit_copula(training)
    assert fitted.power_deviation < COPULA_POWER
    mocks = fitted.field.sample(2000, seed=2)
    power, _ = mean_power(mocks, training.mean)
    ratio = (power / ring_mean(training.power))[1 : int(0.9 * SIDE / 2)]
    for part in np.array_split(ratio, 2):
        assert abs(np.median(part) - 1) < MOCK_POWER
        assert abs(np.median(TWIN * part) - 1) > MOCK_POWER
    edges = np.quantile(smoothed, np.linspace(0.02, 0.98, 25))
    shares = np.histogram(mocks, edges)[0] / mocks.size / 0.04
    # Sampling of the 512 slices that the distribution was fitted to.
    assert np.abs(shares - 1).max() < 0.04
    assert np.abs(TWIN * shares - 1).max() > 0.04


def test_a_pointwise_function_could_not_have_made_smoothed_slices(tmp_path: Path):
    """Why the field is transformed before it is smoothed."""
    smoothed = smooth(lognormal_slices(200, sigma=1.2), 1.0)
    training = training_of(tmp_path / "t.h5", smoothed)
    assert fit_copula(training).power_deviation > 0.5
    assert fit_lognormal(replace(training, metadata=replace(METADATA, smoothing=1.0))).power_deviation < 1e-3


def test_the_mean_of_slices_scatters_as_in_training(tmp_path: Path):
    training = training_of(tmp_path / "t.h5", lognormal_slices(600))
    means = fit_copula(training).field.sample(2000, seed=0).mean((1, 2), dtype=np.float64)
    # The variance of a variance of 2000 nearly normal numbers; 0.06 is the training's own.
    assert means.var() / training.power[0, 0] == pytest.approx(1, abs=SIGMAS * np.sqrt(2 / 2000) * 1.2)
    assert training.power[0, 0] > 0.1 * ring_mean(training.power)[1]


@pytest.mark.parametrize("fitter", [fit_lognormal, fit_copula])
def test_counts_give_counts(tmp_path: Path, fitter):
    mean_count = 3.0
    counts = np.random.default_rng(1).poisson(mean_count * lognormal_slices(400)).astype(np.uint16)
    metadata = replace(METADATA, quantity="counts", mean_count=mean_count)
    training = training_of(tmp_path / "t.h5", counts, metadata)
    mocks = fitter(training).field.sample(1500, seed=5)
    assert mocks.dtype == np.uint16
    power, error = mean_power(mocks / mean_count, training.mean)
    pulls = (power - ring_mean(training.power)) / error
    assert np.abs(pulls).max() < SIGMAS
    assert np.abs((TWIN * power - ring_mean(training.power)) / error).max() > SIGMAS
    shares = np.stack([np.bincount(m.ravel(), minlength=7)[:7] / m.size for m in mocks])
    wanted = np.bincount(counts.ravel(), minlength=7)[:7] / counts.size
    # Training and mocks scatter; the former is a quarter of the latter.
    assert np.abs((shares.mean(0) - wanted) / (2.2 * shares.std(0) / np.sqrt(len(mocks)))).max() < SIGMAS


def test_phases_are_gaussian():
    """A field and its negative are alike below any function of pixels: odd moments of normal scores vanish."""
    field = TransformedGaussian(metadata=METADATA, spectrum=spectrum(), table=np.exp(NORMAL))
    scores = smooth(np.log(field.sample(1000, seed=0)), 2.0)
    skewness = (scores**3).mean((1, 2)) / scores.var() ** 1.5
    assert abs(skewness.mean()) < SIGMAS * skewness.std() / np.sqrt(len(skewness))


def test_a_slice_depends_on_seed_and_number_only():
    field = TransformedGaussian(metadata=METADATA, spectrum=spectrum(), table=np.exp(NORMAL))
    whole = field.sample(20, seed=5)
    for first, n in ((0, 1), (7, 9), (19, 1)):
        np.testing.assert_array_equal(field.sample(n, seed=5, first=first), whole[first : first + n])
    random = np.random.Generator(np.random.Philox(key=5, counter=[0, 0, 0, 11]))
    noise = random.standard_normal((SIDE, SIDE), dtype=np.float32)
    np.testing.assert_allclose(whole[11], np.exp(color(noise, spectrum())), rtol=1e-3)
    assert not np.array_equal(field.sample(20, seed=6), whole)
    assert len({s.tobytes() for s in whole}) == 20


def test_tables_are_looked_up_where_they_are():
    np.testing.assert_array_equal(look_up(PROBABILITY, NORMAL[::1000]), PROBABILITY[::1000])
    np.testing.assert_array_equal(look_up(PROBABILITY, np.array([-50.0, 50.0])), PROBABILITY[[0, -1]])


@pytest.mark.parametrize("method", ["lognormal", "copula"])
@pytest.mark.parametrize("quantity", ["density", "counts"])
def test_the_command_writes_a_slice_file(
    tmp_path: Path, method: str, quantity: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path, out = tmp_path / "training.h5", tmp_path / "mocks.h5"
    metadata = write_example(path, quantity=quantity, n_slices=12)
    words = ["baseline", str(path), "--method", method, "-n", "9", "--seed", "4", "--out", str(out)]
    assert cli.main(words) == 0
    assert check_slices(out) == []
    with SliceReader(out) as reader:
        first = reader.read()
        assert reader.metadata == metadata
        assert (reader.realisation == 4).all()
        assert reader.provenance["method"] == method
        assert reader.provenance["training_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    # Written in blocks of other sizes they are the same slices.
    monkeypatch.setattr("cosmogan.baselines.command._BLOCK_PIXELS", 2 * metadata.n_pixels**2)
    assert cli.main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main([*words, "--overwrite"]) == 0
    with SliceReader(out) as reader:
        np.testing.assert_array_equal(reader.read(), first)


def test_unusable_training_is_refused(tmp_path: Path):
    path, out = tmp_path / "t.h5", str(tmp_path / "m.h5")
    slices = lognormal_slices(4)

    def refused(text: str, training: Path = path, **settings) -> None:
        with pytest.raises(UserError, match=text):
            baseline(str(training), **({"method": "copula", "n": 2, "out": out} | settings))

    refused("no such file", tmp_path / "none.h5")
    write(path, slices[:1])
    refused("holds 1 slice; expected at least 2")
    write(path, np.ones((4, SIDE, SIDE), np.float32))
    refused("all slices are constant")
    write(path, np.ones((4, SIDE, SIDE), np.float32) * np.arange(1, 5, dtype=np.float32)[:, None, None])
    refused("all slices are constant")
    write(path, slices, replace(METADATA, periodic=False))
    refused("need slices that are periodic")
    write(path, slices)
    refused("expected lognormal, copula or cola", method="gaussian")
    refused("n: expected at least 1", n=0)
    refused("seed: expected 0 to", seed=2**31)
    refused("is the training file", out=str(path), overwrite=True)
    Path(out).write_bytes(b"precious")
    refused("exists already")
    assert Path(out).read_bytes() == b"precious"
    assert not list(tmp_path.glob("*.part"))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("simulated") / "slices.h5"
    simulate(
        box_size="70 Mpc/h",
        particles=16,
        seeds="1:3",
        steps=6,
        slice_pixels=16,
        smoothing=1.0,
        out=str(path),
        device="cpu",
    )
    return path


def test_cola_is_a_coarse_simulation_with_power_and_pixels_of_the_slices(simulated: Path, tmp_path: Path):
    out = tmp_path / "cola.h5"
    words = ["baseline", str(simulated), "--method", "cola", "--steps", "2", "-n", "96", "--out", str(out)]
    assert main(words) == 0
    with SliceReader(out) as mocks, SliceReader(simulated) as reader:
        assert mocks.realisation.tolist() == [0] * 48 + [1] * 48
        assert mocks.provenance["start"] == "COLA, 16^3 particles, mesh 16^3, 2 steps"
        made, truth = mocks.density(0, 96), reader.density(0, 144)
    assert made.mean() == pytest.approx(1, abs=0.02)
    # Two boxes of 70 Mpc/h against three others.
    assert made.var() == pytest.approx(truth.var(), rel=0.4)
    assert np.log(made + 0.05).var() == pytest.approx(np.log(truth + 0.05).var(), rel=0.15)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--method", "copula", "--steps", "3"], "steps, particles: are those of the simulations of cola"),
        (["--method", "cola", "--steps", "0"], "steps: expected at least 1"),
        (["--method", "cola", "--particles", "24"], "no multiples of 1 /"),
        (["--method", "coma"], "expected lognormal, copula or cola, found 'coma'"),
    ],
)
def test_cola_says_what_it_cannot_do(
    words: list[str], sentence: str, simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "cola.h5"
    assert main(["baseline", str(simulated), *words, "-n", "8", "--out", str(out)]) == 2
    assert sentence in capsys.readouterr().err
    assert not out.exists()
