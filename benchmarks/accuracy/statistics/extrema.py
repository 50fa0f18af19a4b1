"""Peaks and voids against scipy's maximum filter, and what equal pixels do to them.

python extrema.py [SLICE_FILE ...]      prints the table, rewrites extrema.json; exit code 1 if any disagrees
"""

from __future__ import annotations

import itertools
import sys

import numpy as np
import torch
from samples import Sample, Table, maps, of_files, stored, write
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.peaks import Peaks, Voids


def first_of_window(field: np.ndarray) -> np.ndarray:
    """Return the heights of the pixels that are the largest of 5 x 5, and the first of equal ones, row by row."""
    before = np.arange(25).reshape(5, 5) < 12
    earlier, later = (maximum_filter(field, footprint=part, mode="wrap") for part in (before, before[::-1, ::-1]))
    return field[(field > earlier) & (field >= later)]


def plateaus_joined(field: np.ndarray) -> np.ndarray:
    """Return the heights of all pixels that no pixel of their window exceeds; equal ones in one window are one."""
    n = len(field)
    candidate = maximum_filter(field, 5, mode="wrap") == field
    number = np.arange(n * n).reshape(n, n)
    pairs = []
    for shift in itertools.product(range(-2, 3), repeat=2):
        both = candidate & np.roll(candidate, shift, (0, 1))
        pairs.append((number[both], np.roll(number, shift, (0, 1))[both]))
    first, second = (np.concatenate(part) for part in zip(*pairs, strict=True))
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(n * n, n * n))
    _, label = connected_components(graph, directed=False)
    _, one_of_each = np.unique(label[candidate.ravel()], return_index=True)
    return field[candidate][one_of_each]


def compare(table: Table, sample: Sample) -> dict[str, dict[str, list[float]]]:
    """Note the rows of one sample; return what scipy found on its first slice."""
    metadata = SliceMetadata(box_size=sample.box_size, n_pixels=sample.density.shape[-1], thickness=1.0)
    first = {}
    for statistic, sign in ((Peaks(), 1), (Voids(), -1)):
        edges = statistic.edges(metadata)
        ours = statistic.per_slice(torch.from_numpy(sample.density), metadata).numpy()
        for name, heights, tolerance in (
            ("scipy, first of equal pixels", first_of_window, 0.0),
            ("scipy, plateaus joined", plateaus_joined, None),
        ):
            theirs = np.stack([np.histogram(sign * heights(sign * one), edges)[0] for one in sample.density])
            # Pixels in another bin or in none, as a share of all.
            difference = float(np.abs(ours - theirs).sum() / theirs.sum())
            table.add(statistic.name, name, sample.name, theirs.sum(), difference, tolerance)
            if tolerance is not None:
                first[statistic.name] = {"edges": edges[1:-1].tolist(), "counts": theirs[0].tolist()}
    return first


def smoothed(sample: Sample) -> Sample:
    """Return the slices smoothed by one pixel, as `cosmogan slice --smoothing 1` does."""
    density = gaussian_filter(sample.density, 1.0, mode="wrap", axes=(1, 2))
    return Sample(f"{sample.name}, smoothed", density, sample.box_size)


def main() -> int:
    table = Table()
    results = {name: compare(table, sample) for name, sample in stored().items()}
    for sample in [*maps(), *of_files(sys.argv[1:])]:
        compare(table, sample)
        if sample.name != "lognormal":
            compare(table, smoothed(sample))
    write("extrema", ["scipy", "numpy"], results)
    return table.print()


if __name__ == "__main__":
    sys.exit(main())
