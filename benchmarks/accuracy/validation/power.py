"""What the report sees: five ways to spoil mocks, against every statistic.

Half of the realisations of a slice file are the reference, the other half the mocks: as they are, which must pass, and
spoiled in five ways, each of which must fail.

    python power.py box500.h5 box100.h5 --two-sample --out power_box500
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from cosmogan.baselines.command import baseline
from cosmogan.slices import AXIS_NOT_APPLICABLE, SliceSet, read_slices, write_slices
from cosmogan.statistics.power_spectrum import radial_bins
from cosmogan.validation.compare import compare, compare_candidates
from cosmogan.validation.comparison import Comparison
from cosmogan.validation.thresholds import load_thresholds
from cosmogan.validation.verdict import judge_all, worst_outcome
from cosmogan.validation.wording import box_title, in_units

MORE_POWER = 0.03
SHARE_OF_COPIES = 0.05
CLIPPED_PERCENTILE = 99.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("simulations", type=Path, help="slice file of many realisations")
    parser.add_argument("other_box", type=Path, help="slice file of another box, same pixels, to be mislabelled")
    parser.add_argument("--out", type=Path, required=True, help="stem of the .json and .md to write")
    parser.add_argument("--two-sample", action="store_true", help="train networks too")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        comparisons = run(
            arguments.simulations,
            arguments.other_box,
            Path(folder),
            two_sample=arguments.two_sample,
            seed=arguments.seed,
        )
    table, record = tabulate(comparisons)
    arguments.out.with_suffix(".md").write_text(table + "\n", encoding="utf-8")
    arguments.out.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(table)


def run(simulations: Path, other_box: Path, folder: Path, *, two_sample: bool, seed: int) -> list[Comparison]:
    rng = np.random.default_rng(seed)
    held = read_slices(simulations)
    labels = rng.permutation(np.unique(held.realisation))
    reference, mocks = (take(held, half) for half in np.array_split(labels, 2))
    reference_path, honest = folder / "reference.h5", folder / "honest.h5"
    write_slices(reference_path, reference)
    write_slices(honest, mocks)
    density = mocks.slices.astype(np.float64)
    spoiled: dict[str, Callable[[], SliceSet]] = {
        "P(k) 3% above floor": lambda: with_density(mocks, more_power(density, honest, reference_path)),
        "5% copies": lambda: with_density(mocks, copies(density, rng)),
        "top 0.1% clipped": lambda: with_density(
            mocks, np.minimum(density, np.percentile(density, CLIPPED_PERCENTILE))
        ),
        "box mislabelled": lambda: mislabelled(read_slices(other_box), mocks),
    }
    candidates: dict[str, Path | str] = {"as they are": honest}
    for number, (name, spoil) in enumerate(spoiled.items()):
        path = folder / f"spoiled{number}.h5"
        write_slices(path, spoil())
        candidates[name] = path
    candidates["phases randomised"] = baseline(
        str(honest), method="copula", n=len(density), out=str(folder / "copula.h5"), seed=seed
    )
    return list(compare_candidates(candidates, reference_path, two_sample=two_sample, seed=seed))


def take(held: SliceSet, labels: np.ndarray) -> SliceSet:
    chosen = np.isin(held.realisation, labels)
    return replace(
        held,
        slices=held.slices[chosen],
        realisation=held.realisation[chosen],
        axis=held.axis[chosen],
        position=held.position[chosen],
    )


def with_density(held: SliceSet, density: np.ndarray) -> SliceSet:
    return replace(held, slices=density.astype(np.float32))


def more_power(density: np.ndarray, honest: Path, reference: Path) -> np.ndarray:
    """Give slices, mode by mode, a mean P(k) of the reference times 1 + floor(k) + 3%, and cut what turns negative."""
    entry = compare(honest, reference).statistics[0]
    assert entry.floor is not None
    wanted = (1 + entry.floor + MORE_POWER) * entry.reference / entry.mocks
    n = density.shape[-1]
    bins = radial_bins(n)
    # Modes beyond the last ring stay as they are.
    factor = np.append(np.sqrt(wanted), 1.0)[bins.index.numpy().reshape(n, n // 2 + 1)]
    modes = np.fft.rfft2(density - 1) * factor
    modes[:, 0, 0] /= factor[0, 0]
    return np.maximum(1 + np.fft.irfft2(modes, s=(n, n)), 0)


def clipped(density: np.ndarray) -> np.ndarray:
    return np.minimum(density, np.percentile(density, CLIPPED_PERCENTILE))


def copies(density: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Replace 5% of the slices by shifted, turned and mirrored copies of others."""
    chosen = rng.permutation(len(density))[: 2 * round(SHARE_OF_COPIES * len(density))]
    replaced, originals = np.array_split(chosen, 2)
    spoiled = density.copy()
    for target, source in zip(replaced, originals, strict=True):
        slice_ = np.rot90(density[source], rng.integers(4))
        slice_ = slice_.T if rng.integers(2) else slice_
        spoiled[target] = np.roll(slice_, rng.integers(0, density.shape[-1], 2), axis=(0, 1))
    return spoiled


def mislabelled(other: SliceSet, mocks: SliceSet) -> SliceSet:
    n = min(len(other.slices), len(mocks.slices))
    return replace(
        other,
        slices=other.slices[:n],
        realisation=other.realisation[:n],
        axis=other.axis[:n],
        position=np.where(other.axis[:n] == AXIS_NOT_APPLICABLE, np.nan, 0).astype(np.float32),
        metadata=mocks.metadata,
    )


def tabulate(comparisons: list[Comparison]) -> tuple[str, dict[str, object]]:
    thresholds = load_thresholds()
    judged = {c.name: judge_all(c, thresholds) for c in comparisons}
    names = list(judged)
    first = comparisons[0]
    lines = [
        f"{box_title(first)}: reference {first.reference.n_slices} slices of {first.reference.n_realisations} "
        "realisations. Bold: fails.",
        "",
        "| | itself | " + " | ".join(names) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for key, one in judged[names[0]].items():
        cells = []
        for name in names:
            verdict = judged[name][key]
            mark = {"pass": "", "fail": "**", "inconclusive": "?"}[verdict.outcome]
            cells.append(f"{mark}{in_units(verdict.value, verdict.units)}{mark}")
        lines.append(f"| {one.title} | {in_units(one.floor, one.units)} | " + " | ".join(cells) + " |")
    overall = {name: worst_outcome(list(verdicts.values())) for name, verdicts in judged.items()}
    lines.append("| overall | | " + " | ".join(overall[name] for name in names) + " |")
    record = {
        "box": box_title(first),
        "reference": {"slices": first.reference.n_slices, "realisations": first.reference.n_realisations},
        "mocks": {c.name: {"slices": c.mocks.n_slices, "realisations": c.mocks.n_realisations} for c in comparisons},
        "overall": overall,
        "verdicts": {name: {key: v.text for key, v in verdicts.items()} for name, verdicts in judged.items()},
    }
    return "\n".join(lines), record


if __name__ == "__main__":
    main()
