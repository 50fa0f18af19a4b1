"""Minkowski functionals against quantimpy and against the expectation of Gaussian random fields.

python minkowski.py [SLICE_FILE ...]      prints the tables, rewrites minkowski.json; exit code 1 if any disagrees
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from samples import Sample, Table, largest_difference, maps, of_files, stored, write
from scipy.stats import multivariate_normal, norm

from cosmogan.statistics.minkowski import minkowski_functionals

# Counts over their stored mean of 2 are halves: no pixel equals a threshold.
THRESHOLDS = np.array([0.25, 0.75, 1.25, 1.75, 2.75, 4.75])
# Whole numbers on both sides but for quantimpy's irrational weights.
ROUNDING = 1e-9
# Standard deviations of the mean over Gaussian slices, for some dozen numbers.
SIGMAS = 4.0


def quantimpy(image: np.ndarray) -> dict[str, float]:
    """Area, boundary and Euler characteristic of one binary image on the torus, in pixels.

    quantimpy sums over squares of 2 x 2 pixels inside the image: the first row and column are repeated at the end. In
    its Euler characteristic pixels touch at edges only. On a torus that of a set and that of its complement, in which
    pixels touch at corners as well, add up to 0. Its length counts neighbours that differ along the axes and along the
    diagonals, all with the weight 2 pi (sqrt(2) - 1) / 8.
    """
    from quantimpy.minkowski import functionals

    wrapped = np.pad(image, ((0, 1), (0, 1)), mode="wrap")
    area, length, _ = functionals(wrapped)
    _, _, euler_of_complement = functionals(~wrapped)
    return {"area": area, "length": 2 * np.pi * length, "euler": -np.pi * euler_of_complement}


def axial(length: float, image: np.ndarray) -> float:
    """Return the pixel edges in quantimpy's length: without the pairs along the diagonals, counted here."""
    diagonal = sum(int((image ^ np.roll(image, (1, shift), (0, 1))).sum()) for shift in (1, -1))
    return length / (2 * np.pi * (np.sqrt(2) - 1) / 8) - diagonal


def compare(table: Table, sample: Sample) -> list[dict[str, Any]]:
    """Note the rows of one sample; return what quantimpy found on its first slice."""
    density = sample.density
    n_pixels = density[0].size
    ours = minkowski_functionals(torch.from_numpy(density), torch.from_numpy(THRESHOLDS)).numpy() * n_pixels
    found, smooth = np.empty_like(ours), []
    first = []
    for number, one in enumerate(density):
        for place, threshold in enumerate(THRESHOLDS):
            image = one > threshold
            theirs = quantimpy(image)
            edges = axial(theirs["length"], image)
            found[number, :, place] = theirs["area"], edges, theirs["euler"]
            if edges:
                smooth.append(np.pi / 4 * edges / theirs["length"])
            if number == 0:
                first.append({"threshold": threshold, "edges": edges, **theirs})
    for order, quantity in enumerate(("area", "boundary along pixel edges", "Euler characteristic")):
        difference = np.abs(ours[:, order] - found[:, order]).max()
        # Of whole numbers: anything below a half is rounding, but more than that of floats is worth a failure.
        table.add(quantity, "quantimpy", sample.name, ours[:, order].size, difference / n_pixels, ROUNDING)
    worst = largest_difference(np.array(smooth), np.ones(len(smooth)))
    table.add("boundary, pi / 4 of the edges", "quantimpy's length", sample.name, len(smooth), worst)
    return first


def gaussian_fields(n_slices: int, n_pixels: int, sigma: float, seed: int) -> tuple[np.ndarray, dict[str, float]]:
    """Return smoothed Gaussian fields of variance 1, correlations of neighbours and mu = <|grad f|^2> / 2."""
    k = 2 * np.pi * np.fft.fftfreq(n_pixels)
    squared = k[:, None] ** 2 + k**2
    power = np.exp(-squared * sigma**2)
    power /= power.sum()
    modes = np.fft.fft2(np.random.default_rng(seed).normal(size=(n_slices, n_pixels, n_pixels)))
    fields = np.fft.ifft2(modes * np.sqrt(power) * n_pixels).real
    correlation = np.fft.ifft2(power).real * n_pixels**2
    return fields, {
        "next": correlation[0, 1],
        "diagonal": correlation[1, 1],
        "mu": float((power * squared).sum() / 2),
    }


def expected_of_pixels(nu: float, known: dict[str, float]) -> np.ndarray:
    """Return the exact expectation per pixel, from the chances that 1, 2 or 4 neighbours all lie below it."""
    near, far = known["next"], known["diagonal"]
    square = np.array([[1, near, near, far], [near, 1, far, near], [near, far, 1, near], [far, near, near, 1]])
    face = norm.sf(nu)
    edge = 1 - multivariate_normal([0, 0], [[1, near], [near, 1]], allow_singular=True).cdf([nu, nu])
    four = multivariate_normal(np.zeros(4), square, maxpts=2_000_000, abseps=1e-8, releps=1e-8, seed=0)
    corner = 1 - four.cdf([nu] * 4)
    # Per pixel there are two edges and one corner.
    return np.array([face, 2 * 2 * edge - 4 * face, corner - 2 * edge + face])


def expected_of_contours(nu: float, mu: float) -> np.ndarray:
    """Return the expectation of smooth contours (Tomita 1986, Prog. Theor. Phys. 76, 952); 4 / pi for edges."""
    weight = np.exp(-(nu**2) / 2)
    return np.array([norm.sf(nu), 4 / np.pi * np.sqrt(mu) / 2 * weight, mu * nu * weight / (2 * np.pi) ** 1.5])


def compare_gaussian() -> tuple[bool, list[dict[str, Any]]]:
    """Print means over Gaussian slices, the exact expectation on pixels, and what pixels do to smooth contours."""
    print("\n| smoothing (pixels) | threshold | functional | measured / on pixels | sigmas | on pixels / contours |")
    print("|---|---|---|---|---|---|")
    passed, stored_numbers = True, []
    for sigma, n_slices in ((1.0, 400), (2.0, 400), (4.0, 400)):
        fields, known = gaussian_fields(n_slices, 128, sigma, seed=int(sigma))
        for nu in (-1.0, 0.5, 1.5):
            threshold = torch.tensor([nu], dtype=torch.float64)
            values = minkowski_functionals(torch.from_numpy(fields), threshold)[..., 0].numpy()
            mean, error = values.mean(0), values.std(0, ddof=1) / np.sqrt(n_slices)
            exact, contours = expected_of_pixels(nu, known), expected_of_contours(nu, known["mu"])
            stored_numbers.append({"sigma": sigma, "nu": nu, "mu": known["mu"], "expected": exact.tolist()})
            for order, name in enumerate(("area", "boundary", "Euler")):
                deviation = (mean[order] - exact[order]) / error[order]
                good = abs(deviation) < SIGMAS
                passed &= bool(good)
                print(
                    f"| {sigma:g} | {nu:g} | {name} | {mean[order] / exact[order]:.4f} | "
                    f"{deviation:+.1f}{'' if good else ' **FAILS**'} | {exact[order] / contours[order]:.4f} |"
                )
    return passed, stored_numbers


def main() -> int:
    table, results = Table(), {}
    for name, sample in stored().items():
        results[name] = compare(table, sample)
    for sample in [*maps(), *of_files(sys.argv[1:])]:
        compare(table, sample)
    failed = table.print()
    passed, results["gaussian"] = compare_gaussian()
    write("minkowski", ["quantimpy", "scipy", "numpy"], results)
    return failed or int(not passed)


if __name__ == "__main__":
    sys.exit(main())
