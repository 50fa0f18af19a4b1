r"""Two-sample tests of other libraries beside ours, on the same slices.

PQMass (arXiv:2402.04355, package ``pqm``) counts slices in random cells of the space of their numbers, and ``pted``
permutes the energy distance. Both take what they are given as independent draws; ours exchanges whole boxes. They see
P(k) of 1 + delta and of ln(1 + delta + .05) in rings, or raw pixels; ours is the logistic classifier of
``cosmogan validate --two-sample`` on the same rings, learnt from half of the boxes.

    pip install 'cosmogan[referee]'
    python referee.py test.h5 simulations=other_boxes.h5 mocks=mocks.h5 --out referee_box100
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from pqm import pqm_pvalue
from pted import pted

from cosmogan.slices import AXIS_NOT_APPLICABLE, SliceReader
from cosmogan.statistics.exchange import exchange_test
from cosmogan.statistics.logistic import fit_logistic
from cosmogan.statistics.summary_vector import LOG_OFFSET, power_features
from cosmogan.validation.wording import number

# Slices of either file, at most.
N_SLICES = 1536
N_CELLS, N_TESSELLATIONS, N_PERMUTATIONS = 100, 20, 999
# Raw pixels: as many of them as can be held in a distance matrix at once.
N_PIXEL_SLICES = 512
HEAD = "| files | pqm, P(k) | pqm, pixels | pted, P(k) | pted, pixels | ours, P(k): AUC | p | seconds |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path)
    parser.add_argument("candidates", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--out", type=Path, required=True, help="stem of the .md to write")
    arguments = parser.parse_args()
    lines = [HEAD, "|---|---|---|---|---|---|---|---|"]
    reference = read(arguments.reference)
    boxes = np.unique(reference[1])
    halves = [np.isin(reference[1], part) for part in np.array_split(boxes, 2)]
    pairs = {"halves of the reference": tuple((reference[0][half], reference[1][half]) for half in halves)}
    for word in arguments.candidates:
        name, _, path = word.partition("=")
        pairs[name] = (read(Path(path)), reference)
    for name, (ours, theirs) in pairs.items():
        lines.append(row(name, ours, theirs))
        print(lines[-1], flush=True)
    arguments.out.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with SliceReader(path) as reader:
        rows = np.linspace(0, reader.n_slices - 1, min(N_SLICES, reader.n_slices)).astype(int)
        density = np.concatenate([reader.density(row, row + 1) for row in rows.tolist()])
        alone = (reader.axis == AXIS_NOT_APPLICABLE).all()
        # Independent slices in as many groups as there would be boxes.
        boxes = np.arange(len(rows)) * 16 // len(rows) if alone else reader.realisation[rows]
    return density, boxes


def row(name: str, ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]) -> str:
    vectors = [power_features(one[0]) for one in (ours, theirs)]
    few = [one[0][:: -(-len(one[0]) // N_PIXEL_SLICES)] for one in (ours, theirs)]
    pixels = [np.log(density.reshape(len(density), -1) + LOG_OFFSET) for density in few]
    start = time.perf_counter()
    cells = [counted(*each) for each in (vectors, pixels)]
    # By default pted rejects sets that are more alike than chance allows, too.
    distances = [
        float(pted(*standard(*each), permutations=N_PERMUTATIONS, two_tailed=False)) for each in (vectors, pixels)
    ]
    auc, p = exchanged(vectors, ours[1], theirs[1])
    values = " | ".join(number(value, figures=2) for value in (cells[0], cells[1], distances[0], distances[1]))
    return f"| {name} | {values} | {auc:.3f} | {number(p, figures=2)} | {time.perf_counter() - start:.0f} |"


def counted(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the median p-value of PQMass over tessellations."""
    found = pqm_pvalue(ours, theirs, num_refs=N_CELLS, re_tessellation=N_TESSELLATIONS, z_score_norm=True)
    return float(np.median(found))


def standard(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pooled = np.concatenate([ours, theirs])
    mean, scale = pooled.mean(0), np.maximum(pooled.std(0), 1e-9)
    return (ours - mean) / scale, (theirs - mean) / scale


def exchanged(vectors: list[np.ndarray], ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Return AUC and p-value of a logistic classifier that learns from half of the boxes."""
    learned = [np.isin(boxes, np.unique(boxes)[::2]) for boxes in (ours, theirs)]
    classifier = fit_logistic([each[mask] for each, mask in zip(vectors, learned, strict=True)])
    scores = [classifier.scores(each[~mask]) for each, mask in zip(vectors, learned, strict=True)]
    found = exchange_test(*scores, mock_groups=ours[~learned[0]], simulation_groups=theirs[~learned[1]])
    return found.auc, found.p


if __name__ == "__main__":
    main()
