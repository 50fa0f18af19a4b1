"""Power spectrum of our COLA run against L-PICOLA's, started from the same initial phases.

    python compare_lpicola.py FILE... [--steps N] [--out FOLDER]

FILE is HDF5 with the attributes box_size (Mpc/h), omega_m, redshift, start_redshift, and two cubes of side n:
``linear_density``, the linear overdensity at redshift 0 that L-PICOLA started from (particles at
``q = i box_size / n``), and ``counts``, its particles at the final redshift in the n^3 cells. Prints a table and writes
compare_lpicola.json and compare_lpicola.md. Exit code 1 if a ratio is off by more than the bar.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from tqdm import tqdm

from cosmogan.units import Cosmology
from data_tools.simulation.cola import ColaSettings, evolve
from data_tools.simulation.realisations import default_steps
from data_tools.slicing.slicing import SlabCounter

# The bar: within 1.5% up to 1 h/Mpc in boxes of 200 Mpc/h and more, up to 4 h/Mpc in smaller ones.
BAR = 0.015
K_LIMIT_LARGE, K_LIMIT_SMALL, LARGE_BOX = 1.0, 4.0, 200.0
N_BINS = 12


def spectra(ours: np.ndarray, theirs: np.ndarray, box_size: float, k_limit: float) -> list[dict[str, float]]:
    """Ratio and correlation of two cubes of counts in logarithmic bins of k, h/Mpc, up to ``k_limit``."""
    n = len(ours)
    k_1d = np.fft.fftfreq(n, 1 / n)
    k = np.sqrt(k_1d[:, None, None] ** 2 + k_1d[:, None] ** 2 + k_1d[: n // 2 + 1] ** 2).ravel()
    fundamental = 2 * np.pi / box_size
    edges = np.geomspace(0.99, k_limit / fundamental, N_BINS + 1)
    which = np.digitize(k, edges)
    first, second = (np.fft.rfftn(cube / cube.mean() - 1).ravel() for cube in (ours, theirs))

    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(which, values, minlength=N_BINS + 2)[1:-1]

    n_modes = sums(np.ones_like(k))
    power_ours, power_theirs = sums(np.abs(first) ** 2), sums(np.abs(second) ** 2)
    rows = np.stack(
        [
            fundamental * sums(k) / n_modes,
            n_modes,
            power_ours / power_theirs,
            sums((first * second.conj()).real) / np.sqrt(power_ours * power_theirs),
        ]
    )
    return [dict(zip(("k", "n_modes", "ratio", "correlation"), row, strict=True)) for row in rows.T.tolist()]


def compare(path: Path, steps: int | None) -> dict[str, Any]:
    with h5py.File(path) as handle:
        attributes = {name: float(value) for name, value in handle.attrs.items() if isinstance(value, np.number)}
        linear_density, theirs = handle["linear_density"][:], handle["counts"][:].astype(float)
    box_size, n = attributes["box_size"], len(theirs)
    settings = ColaSettings(
        box_size=box_size,
        cosmology=Cosmology(omega_m=attributes["omega_m"]),
        steps=steps or default_steps(box_size),
        mesh=2 * n,
        start_redshift=attributes["start_redshift"],
        redshift=attributes["redshift"],
    )
    start = time.perf_counter()
    with tqdm(total=settings.steps, desc=path.name, unit="step") as bar:
        positions = evolve(linear_density, settings, on_step=lambda: bar.update() and None)
    elapsed = time.perf_counter() - start
    counter = SlabCounter(box_size=box_size, pixels=n, slabs=n)
    counter.add(positions.numpy())
    k_limit = K_LIMIT_LARGE if box_size >= LARGE_BOX else K_LIMIT_SMALL
    rows = spectra(counter.counts(0).astype(float), theirs, box_size, k_limit)
    return {
        "file": path.name,
        "box_size": box_size,
        "particles": n,
        "mesh": settings.mesh,
        "steps": settings.steps,
        "steps_lpicola": attributes.get("steps"),
        "seconds": round(elapsed, 1),
        "k_limit": k_limit,
        "worst": max(abs(row["ratio"] - 1) for row in rows),
        "rows": rows,
    }


def table(result: dict[str, Any]) -> str:
    lines = [
        f"## {result['box_size']:g} Mpc/h, {result['particles']}³ particles, mesh {result['mesh']}³, "
        f"{result['steps']} steps (L-PICOLA {result['steps_lpicola']:g})",
        "",
        "| k (h/Mpc) | modes | P ours / L-PICOLA | correlation |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['k']:.3f} | {row['n_modes']:.0f} | {row['ratio']:.4f} | {row['correlation']:.5f} |"
        for row in result["rows"]
    ]
    verdict = "reached" if result["worst"] <= BAR else "NOT reached"
    lines += ["", f"Largest deviation {100 * result['worst']:.2f}% up to k = {result['k_limit']:g} h/Mpc; bar "]
    lines[-1] += f"{100 * BAR:g}%: {verdict}."
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--steps", type=int, help="time steps; by default as `cosmogan simulate`")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the results")
    arguments = parser.parse_args()
    results = [compare(path, arguments.steps) for path in arguments.files]
    text = "\n\n".join(
        ["# COLA against L-PICOLA, same initial phases: 3D P(k) of counts at nearest grid points", *map(table, results)]
    )
    print(text)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "compare_lpicola.md").write_text(text + "\n")
    (arguments.out / "compare_lpicola.json").write_text(json.dumps({"bar": BAR, "results": results}, indent=2) + "\n")
    return int(any(result["worst"] > BAR for result in results))


if __name__ == "__main__":
    sys.exit(main())
