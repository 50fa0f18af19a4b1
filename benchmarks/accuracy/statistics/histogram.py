"""Pixel histograms and their distances against numpy and scipy.stats.

python histogram.py [SLICE_FILE ...]      prints the table, rewrites histogram.json; exit code 1 if any disagrees
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from samples import Sample, Table, largest_difference, maps, of_files, stored, write
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, wasserstein_distance

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.histogram import Histogram, jensen_shannon, kl_divergence, wasserstein

FLOAT64 = 1e-12
# Masses spread evenly over a bin, as ours are, stand here on this many points; the error falls with its square.
POINTS, SPREAD = 1000, 1e-6


def spread_wasserstein(p: np.ndarray, q: np.ndarray, edges: np.ndarray) -> float:
    """Wasserstein-1 distance by scipy of histograms with evenly filled bins; the bin without end is a point."""
    share = (np.arange(POINTS) + 0.5) / POINTS
    places = np.append((edges[:-2, None] + share * np.diff(edges[:-1])[:, None]).ravel(), edges[-2])
    first, second = (np.append(np.repeat(one[:-1] / POINTS, POINTS), one[-1]) for one in (p, q))
    return float(wasserstein_distance(places, places, first, second))


def compare(table: Table, sample: str, first: np.ndarray, second: np.ndarray, box_size: float) -> dict:
    """Note the rows of a pair of slices; return what the others found."""
    metadata = SliceMetadata(box_size=box_size, n_pixels=len(first), thickness=1.0)
    edges = Histogram().edges(metadata)
    shares = [np.histogram(one, edges)[0] / one.size for one in (first, second)]
    ours = Histogram().per_slice(torch.from_numpy(np.stack([first, second])), metadata).numpy()
    table.add("share of pixels", "numpy.histogram", sample, ours.size, largest_difference(ours, shares, 1.0), FLOAT64)
    p, q = shares
    # entropy() is infinite where q is empty and p is not: bins in which neither is.
    both = (p > 0) & (q > 0)
    found = {
        "kl": float(entropy(p[both], q[both])),
        "kl_back": float(entropy(q[both], p[both])),
        "jensen_shannon": float(jensenshannon(p, q) ** 2),
        "wasserstein": spread_wasserstein(p, q, edges),
    }
    for name, against, value, tolerance in (
        ("kl", "scipy.stats.entropy", kl_divergence(p[both], q[both]), FLOAT64),
        ("kl_back", "scipy.stats.entropy", kl_divergence(q[both], p[both]), FLOAT64),
        ("jensen_shannon", "scipy jensenshannon", jensen_shannon(p, q), 1e-9),
        ("wasserstein", "scipy wasserstein_distance", wasserstein(p, q, edges), SPREAD),
    ):
        table.add(name, against, sample, 1, abs(value / found[name] - 1), tolerance)
    unbinned = wasserstein_distance(first.ravel(), second.ravel())
    table.add("wasserstein", "scipy, pixels not in bins", sample, 1, abs(wasserstein(p, q, edges) / unbinned - 1))
    return {"edges": edges[1:-1].tolist(), "shares": [one.tolist() for one in shares], **found}


def main() -> int:
    table, small = Table(), stored()
    pair = [small[name].density[0] for name in ("even", "partner")]
    results = {"even, partner": compare(table, "stored counts", *pair, small["even"].box_size)}
    samples: list[Sample] = [*maps(), *of_files(sys.argv[1:])]
    for sample in samples:
        compare(table, sample.name, *sample.density[:2], sample.box_size)
    write("histogram", ["scipy", "numpy"], results)
    return table.print()


if __name__ == "__main__":
    sys.exit(main())
