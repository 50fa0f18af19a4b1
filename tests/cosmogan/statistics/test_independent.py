"""Our statistics against numbers that other codes found, written by the scripts in benchmarks/accuracy/statistics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from closeness import FIVE_PERCENT, expect_close

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.bispectrum import EquilateralBispectrum, IsoscelesBispectrum, bispectrum
from cosmogan.statistics.cross_spectrum import cross_power_spectrum
from cosmogan.statistics.histogram import Histogram, jensen_shannon, kl_divergence, wasserstein
from cosmogan.statistics.minkowski import minkowski_functionals
from cosmogan.statistics.peaks import Peaks, Voids
from cosmogan.statistics.power_spectrum import power_spectrum, radial_bins

FOLDER = Path(__file__).parents[3] / "benchmarks" / "accuracy" / "statistics"
# Pylians transforms in float32; the others differ by the order of float64 sums.
TOLERANCE = {"Pylians Pk_plane": 1e-6, "powerbox get_power": 1e-12, "numpy, full plane": 1e-12}
PYLIANS, FLOAT64 = 1e-6, 1e-12
# Whole numbers of pixels and edges; those of quantimpy passed through irrational weights.
ROUNDING = 1e-6
# Standard deviations of the mean of Gaussian slices, nine numbers of one seed.
SIGMAS = 4.0


def load(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text())


def results(name: str) -> dict[str, Any]:
    return load(name)["results"]


def density(name: str) -> torch.Tensor:
    """1 + delta of a stored slice, shape ``(1, n_pixels, n_pixels)``."""
    one = load("slices")["slices"][name]
    return torch.tensor(one["counts"], dtype=torch.float64)[None] / one["mean_count"]


def box_size(name: str) -> float:
    return load("slices")["slices"][name]["box_size"]


@pytest.mark.parametrize("code", TOLERANCE)
@pytest.mark.parametrize("name", ["even", "partner", "odd"])
def test_power_spectrum(name: str, code: str) -> None:
    theirs, delta = results("power_spectrum")[name][code], density(name) - 1
    bins = radial_bins(delta.shape[-1])
    expect_close(power_spectrum(delta, box_size(name))[0], theirs["power"], TOLERANCE[code])
    expect_close(bins.wavenumbers(box_size(name)), theirs["k"], FLOAT64)
    if "modes" in theirs:
        assert bins.n_modes.tolist() == theirs["modes"]


@pytest.mark.parametrize("name", ["even", "partner", "odd"])
def test_binning_of_rodriguez2018(name: str) -> None:
    theirs = np.array(results("power_spectrum")[name]["Rodriguez 2018, full plane"]["power"])
    delta = density(name) - 1
    found = power_spectrum(delta, box_size(name), bins=radial_bins(delta.shape[-1], "rodriguez2018"))[0].numpy()
    # JSON has no NaN: empty rings are -1 there.
    np.testing.assert_array_equal(np.isnan(found), theirs == -1)
    expect_close(found[theirs != -1], theirs[theirs != -1], FLOAT64)


def test_cross_spectrum_by_pylians() -> None:
    theirs = results("power_spectrum")["even x partner"]["Pylians XPk_plane"]
    pair, box = [density(name) - 1 for name in ("even", "partner")], box_size("even")
    scale = torch.sqrt(power_spectrum(pair[0], box) * power_spectrum(pair[1], box))[0]
    cross = cross_power_spectrum(*pair, box)[0]
    expect_close(cross, theirs["cross"], PYLIANS, scale=scale)
    expect_close(cross / scale, theirs["coherence"], PYLIANS, scale=1.0)


@pytest.mark.parametrize("statistic", [EquilateralBispectrum(), IsoscelesBispectrum()], ids=lambda s: s.name)
@pytest.mark.parametrize("name", ["even", "partner", "odd"])
def test_bispectrum_by_a_sum_over_triangles(name: str, statistic: EquilateralBispectrum | IsoscelesBispectrum) -> None:
    theirs = results("bispectrum")[name][statistic.name.removeprefix("bispectrum_")]
    delta = density(name) - 1
    legs, thirds = statistic.rings(delta.shape[-1])
    assert (legs.tolist(), thirds.tolist()) == (theirs["legs"], theirs["thirds"])
    found = bispectrum(delta, box_size(name), legs, thirds)[0]
    expect_close(found, theirs["bispectrum"], FLOAT64, scale=np.abs(theirs["bispectrum"]).max())


@pytest.mark.parametrize("name", ["even", "partner", "odd"])
def test_minkowski_functionals_by_quantimpy(name: str) -> None:
    field = density(name)
    for theirs in results("minkowski")[name]:
        found = field[0].numel() * minkowski_functionals(field, torch.tensor([theirs["threshold"]]))[0, :, 0]
        for value, key in zip(found.tolist(), ("area", "edges", "euler"), strict=True):
            assert abs(value - theirs[key]) < ROUNDING


def gaussian_fields(n_slices: int, n_pixels: int, sigma: float, seed: int) -> torch.Tensor:
    """Variance 1, smoothed by ``sigma`` pixels."""
    k = 2 * np.pi * np.fft.fftfreq(n_pixels)
    power = np.exp(-(k[:, None] ** 2 + k**2) * sigma**2)
    modes = np.fft.fft2(np.random.default_rng(seed).normal(size=(n_slices, n_pixels, n_pixels)))
    return torch.from_numpy(np.fft.ifft2(modes * np.sqrt(power / power.sum()) * n_pixels).real)


def test_minkowski_functionals_of_gaussian_pixels() -> None:
    # Exact on pixels, from the chances that one, two and four neighbours lie below a threshold. The least smoothing has
    # the most independent pixels.
    sigma = 1.0
    fields = gaussian_fields(150, 128, sigma, seed=11)
    deviations = []
    for theirs in results("minkowski")["gaussian"]:
        if theirs["sigma"] == sigma:
            found = minkowski_functionals(fields, torch.tensor([theirs["nu"]], dtype=torch.float64))[..., 0]
            expected = torch.tensor(theirs["expected"])
            error = found.std(0) / np.sqrt(len(found))
            assert ((found.mean(0) - expected).abs() < SIGMAS * error).all()
            deviations.append((expected * (FIVE_PERCENT - 1) / error).abs())
    assert len(deviations) == 3
    # Twin: five per cent would have been seen in each functional, at its best threshold.
    assert (torch.stack(deviations).max(0).values > 2 * SIGMAS).all()


@pytest.mark.parametrize("statistic", [Peaks(), Voids()], ids=lambda s: s.name)
@pytest.mark.parametrize("name", ["even", "partner", "odd"])
def test_extrema_by_scipy(name: str, statistic: Peaks | Voids) -> None:
    theirs, fields = results("extrema")[name][statistic.name], density(name)
    metadata = SliceMetadata(box_size=box_size(name), n_pixels=fields.shape[-1], thickness=1.0)
    np.testing.assert_allclose(statistic.edges(metadata)[1:-1], theirs["edges"], rtol=FLOAT64)
    assert statistic.per_slice(fields, metadata)[0].tolist() == theirs["counts"]
    # Twin: heights off by five per cent of the mean density.
    assert statistic.per_slice(fields + 0.05, metadata)[0].tolist() != theirs["counts"]


def test_histogram_and_distances_by_scipy() -> None:
    theirs = results("histogram")["even, partner"]
    fields = torch.cat([density("even"), density("partner")])
    metadata = SliceMetadata(box_size=box_size("even"), n_pixels=32, thickness=1.0)
    np.testing.assert_allclose(Histogram().edges(metadata)[1:-1], theirs["edges"], rtol=FLOAT64)
    shares = Histogram().per_slice(fields, metadata).numpy()
    expect_close(shares, theirs["shares"], FLOAT64, scale=1.0)
    p, q = np.array(theirs["shares"])
    both = (p > 0) & (q > 0)
    expect_close(kl_divergence(p[both], q[both]), theirs["kl"], FLOAT64)
    expect_close(kl_divergence(q[both], p[both]), theirs["kl_back"], FLOAT64)
    # A square of a root of differences.
    expect_close(jensen_shannon(p, q), theirs["jensen_shannon"], 1e-9)
    # scipy's has 1000 points where ours has a bin.
    expect_close(wasserstein(p, q, Histogram().edges(metadata)), theirs["wasserstein"], 1e-6)
