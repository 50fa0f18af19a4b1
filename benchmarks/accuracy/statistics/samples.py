"""Slices that the scripts of this folder measure, and the table that they print.

python samples.py      rewrites slices.json: three small slices of counts, whole numbers that every machine reads alike
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
SLICES = HERE / "slices.json"
# Slices taken from each file named by the user, spread over the whole file.
N_OF_FILE = 4


@dataclass(frozen=True, eq=False)
class Sample:
    """A few slices of one kind.

    Parameters
    ----------
    name
        The column of the table.
    density
        1 + delta, shape ``(n_slices, n_pixels, n_pixels)``, float64 that float32 holds exactly.
    box_size
        Side in Mpc/h.
    """

    name: str
    density: np.ndarray
    box_size: float


def lognormal(n_slices: int, n_pixels: int, contrast: float, seed: int) -> np.ndarray:
    """Return exponentials of Gaussian fields with a red spectrum, mean 1."""
    rng = np.random.default_rng(seed)
    modes = np.fft.rfft2(rng.normal(size=(n_slices, n_pixels, n_pixels)))
    k = np.hypot(np.fft.fftfreq(n_pixels)[:, None], np.fft.rfftfreq(n_pixels)) * n_pixels
    fields = np.fft.irfft2(modes / (1 + k), s=(n_pixels, n_pixels))
    density = np.exp(contrast * fields / fields.std())
    return (density / density.mean()).astype(np.float32).astype(np.float64)


def stored() -> dict[str, Sample]:
    """Return the slices of ``slices.json``: two of an even, one of an odd number of pixels."""
    record = json.loads(SLICES.read_text())
    return {
        name: Sample("stored counts", np.array(one["counts"])[None] / one["mean_count"], one["box_size"])
        for name, one in record["slices"].items()
    }


def maps() -> list[Sample]:
    """Return larger lognormal slices: 256 pixels in both boxes of the paper, strongly peaked in one, and 63 pixels."""
    return [
        Sample("lognormal", lognormal(2, 256, 0.5, 1), 350.0),
        Sample("lognormal", lognormal(2, 256, 2.0, 2), 70.0),
        Sample("lognormal", lognormal(2, 63, 1.0, 4), 100.0),
    ]


def of_files(paths: Iterable[str]) -> Iterator[Sample]:
    """Give some slices of each slice file."""
    from cosmogan.slices import SliceReader

    for path in paths:
        with SliceReader(path) as reader:
            picks = np.linspace(0, reader.n_slices - 1, N_OF_FILE).astype(int)
            density = np.concatenate([reader.density(int(i), int(i) + 1) for i in picks]).astype(np.float64)
            yield Sample(Path(path).stem, density, reader.metadata.box_size)


def write(name: str, packages: Iterable[str], results: dict[str, Any]) -> None:
    """Write what other codes found to ``<name>.json`` beside the scripts; the tests read it."""
    record = {
        "made_by": f"benchmarks/accuracy/statistics/{name}.py",
        "versions": {package: version(package) for package in packages},
        "slices": "slices.json",
        "results": results,
    }
    (HERE / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def largest_difference(found: np.ndarray, expected: np.ndarray, scale: np.ndarray | float | None = None) -> float:
    """Return the largest difference relative to ``scale``, by default the expected value itself."""
    reference = np.abs(expected) if scale is None else scale
    return float(np.max(np.abs(np.asarray(found) - expected) / reference))


class Table:
    """Largest differences by quantity and by slices, printed as Markdown at the end."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, float | None], dict[str, tuple[int, float]]] = {}

    def add(
        self, quantity: str, against: str, sample: str, n: int, difference: float, tolerance: float | None = None
    ) -> None:
        """Note a difference; those without ``tolerance`` are shown and not judged."""
        cells = self._rows.setdefault((quantity, against, tolerance), {})
        n_before, largest = cells.get(sample, (0, 0.0))
        # Not max(), which may lose a NaN.
        cells[sample] = n_before + int(n), largest if difference <= largest else float(difference)

    def print(self) -> int:
        """Print all rows; return the exit code, 1 if a difference is not tolerable or no number."""
        columns = list(dict.fromkeys(name for cells in self._rows.values() for name in cells))
        print(f"| quantity | against | {' | '.join(columns)} | tolerated |\n|---|---|{'---|' * (len(columns) + 1)}")
        passed = True
        for (quantity, against, tolerance), cells in self._rows.items():
            shown = []
            for name in columns:
                n, difference = cells.get(name, (0, 0.0))
                good = tolerance is None or difference <= tolerance
                passed &= good
                text = "equal" if difference == 0 else f"{difference:.1e}"
                shown.append(f"{text}{'' if good else ' **FAILS**'} ({n})" if n else "")
            allowed = "not judged" if tolerance is None else "none" if tolerance == 0 else f"{tolerance:.0e}"
            print(f"| {quantity} | {against} | {' | '.join(shown)} | {allowed} |")
        return 0 if passed else 1


def main() -> None:
    slices = {}
    for name, n_pixels, box_size, seed in (("even", 32, 100.0, 1), ("partner", 32, 100.0, 2), ("odd", 33, 70.0, 3)):
        # 2 is held exactly in binary, so that counts / mean is too.
        mean_count = 2.0
        density = lognormal(1, n_pixels, 1.0, seed)[0]
        counts = np.random.default_rng(100 + seed).poisson(mean_count * density)
        slices[name] = {"box_size": box_size, "mean_count": mean_count, "counts": counts.tolist()}
    text = json.dumps({"made_by": "benchmarks/accuracy/statistics/samples.py", "slices": slices})
    SLICES.write_text(text.replace("]], ", "]],\n").replace("], [", "],\n[") + "\n")


if __name__ == "__main__":
    main()
