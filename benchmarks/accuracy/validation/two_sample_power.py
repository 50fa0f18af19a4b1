r"""What the two-sample test sees: known damage of 1, 3 and 10%, and simulations with fewer steps.

Boxes that the reference does not have are taken for mocks: as they are, damaged in four ways, and simulated again with
fewer COLA steps. Rows that the record has already are not computed again.

    python two_sample_power.py box100.h5 --others more_box100.h5 --out two_sample_power_box100

Both files are slices of ``cosmogan simulate`` of the same kind; as many boxes of ``--others`` are used as the reference
has.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from power import take, with_density

from cosmogan.slices import SliceReader, SliceSet, read_slices, write_slices
from cosmogan.slices.smoothing import smooth
from cosmogan.statistics.summary_vector import LOG_OFFSET, octaves
from cosmogan.validation.sets.two_sample import compare_two_sample, draw_halves
from cosmogan.validation.sets.where import locate
from cosmogan.validation.wording import number
from data_tools.simulation.linear import linear_power
from data_tools.simulation.realisations import SimulationParameters
from data_tools.simulation.starts import start_counts

DAMAGE = (0.01, 0.03, 0.1)
STEPS = (3, 5, 8, 10)
# 1 + delta below which pixels are voids.
VOID = 0.2
TITLE = "| mocks | summary statistics: AUC | p | most by | AUC | network: AUC | p | seconds |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--others", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="stem of the .json and .md to write")
    parser.add_argument(
        "--network", nargs="*", default=[], metavar="WORD", help="train networks for rows with these words"
    )
    parser.add_argument("--trainings", type=int, default=1, help="networks per row; `cosmogan validate` takes 3")
    arguments = parser.parse_args()
    record_path = arguments.out.with_suffix(".json")
    rows = json.loads(record_path.read_text()) if record_path.exists() else {}
    with SliceReader(arguments.reference) as reader:
        n_boxes = len(np.unique(reader.realisation))
    others = read_slices(arguments.others)
    others = take(others, np.unique(others.realisation)[:n_boxes])
    with SliceReader(arguments.others) as reader:
        parameters = json.loads(reader.provenance["parameters"])
    for name, spoil in mocks(others, parameters):
        if name in rows:
            continue
        with TemporaryDirectory() as folder:
            path = Path(folder) / "mocks.h5"
            write_slices(path, spoil())
            with SliceReader(path) as ours, SliceReader(arguments.reference) as theirs:
                start = time.perf_counter()
                found = locate(draw_halves(ours, theirs), theirs.metadata, seed=0)
                most = max(found[1:], key=lambda row: row.auc)
                rows[name] = {
                    "summary": [found[0].auc, found[0].p],
                    "most": [most.what, most.auc, most.p],
                    "seconds": round(time.perf_counter() - start),
                }
                if any(word in name for word in arguments.network):
                    start = time.perf_counter()
                    judged = compare_two_sample(ours, theirs, n_trainings=arguments.trainings)
                    rows[name] |= {
                        "network": [network_auc(judged.distributions), judged.p_value],
                        "network_seconds": round(time.perf_counter() - start),
                    }
        record_path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        print(name, rows[name], flush=True)
    lines = [TITLE, "|---|---|---|---|---|---|---|---|"]
    for name, row in rows.items():
        auc, p = row["summary"]
        what, most_auc, _ = row["most"]
        network = (
            "- | -" if "network" not in row else f"{row['network'][0]:.3f} | {number(row['network'][1], figures=2)}"
        )
        seconds = str(row["seconds"]) + (f" + {row['network_seconds']}" if "network" in row else "")
        lines.append(
            f"| {name} | {auc:.3f} | {number(p, figures=2)} | {what} | {most_auc:.3f} | {network} | {seconds} |"
        )
    arguments.out.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def network_auc(scores: dict[str, np.ndarray]) -> float:
    ours, theirs = np.sort(scores["mocks"]), np.sort(scores["simulation"])
    low, high = (np.searchsorted(theirs, ours, side=side) for side in ("left", "right"))
    return float((low + high).mean() / 2 / len(theirs))


def mocks(others: SliceSet, parameters: dict[str, float]) -> Iterator[tuple[str, Callable[[], SliceSet]]]:
    density = others.slices.astype(np.float64)
    yield "as they are", lambda: others
    for part in DAMAGE:
        for name, damage in (
            ("P(k) tilted", tilted),
            ("tail clipped", clipped),
            ("phases of an octave scrambled", scrambled),
            ("voids filled", filled),
        ):
            yield (
                f"{name}, {part:.0%}",
                lambda damage=damage, part=part: with_density(others, damage(density, part, others)),  # type: ignore[misc]
            )
    for steps in STEPS:
        yield f"COLA, {steps} steps", lambda steps=steps: with_density(others, coarse(others, parameters, steps))  # type: ignore[misc]


def wavenumbers(others: SliceSet) -> np.ndarray:
    side = others.metadata.n_pixels
    k_1d = 2 * np.pi / others.metadata.box_size * np.fft.fftfreq(side, 1 / side)
    return np.hypot(k_1d[:, None], np.abs(k_1d[: side // 2 + 1]))


def tilted(density: np.ndarray, part: float, others: SliceSet) -> np.ndarray:
    """Multiply P(k) by a power of k: by 1 + part at 0.9 of Nyquist, by the inverse at the fundamental mode."""
    k, low, high = wavenumbers(others), others.metadata.fundamental, 0.9 * others.metadata.nyquist
    pivot = math.sqrt(low * high)
    slope = math.log1p(part) / math.log(high / pivot)
    k[0, 0] = pivot
    modes = np.fft.rfft2(density - 1) * (k / pivot) ** (slope / 2)
    return np.maximum(1 + np.fft.irfft2(modes, s=density.shape[-2:]), 0)


def clipped(density: np.ndarray, part: float, others: SliceSet) -> np.ndarray:
    """Clip the highest pixels, so that the variance of all falls by a part."""
    wanted, low, high = (1 - part) * density.var(), 1.0, density.max()
    for _ in range(40):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if np.minimum(density, middle).var() < wanted else (low, middle)
    return np.minimum(density, high)


def scrambled(density: np.ndarray, part: float, others: SliceSet) -> np.ndarray:
    """Replace a part of the power of ln(1 + delta + .05) in the last octave but one by waves of random phases.

    Each slice keeps the values of its pixels, by rank.
    """
    low, high = octaves(others.metadata)[-2]
    k, random = wavenumbers(others), np.random.default_rng(0)
    inside = (k >= low) & (k <= high)
    modes = np.fft.rfft2(np.log(density + LOG_OFFSET))
    phases = np.fft.rfft2(random.standard_normal(density.shape))
    phases /= np.maximum(np.abs(phases), 1e-300)
    mixed = math.sqrt(1 - part) * modes + math.sqrt(part) * np.abs(modes) * phases
    field = np.fft.irfft2(np.where(inside, mixed, modes), s=density.shape[-2:])
    flat, values = field.reshape(len(field), -1), np.sort(density.reshape(len(density), -1), 1)
    ranks = flat.argsort(1).argsort(1)
    return np.take_along_axis(values, ranks, 1).reshape(density.shape)


def filled(density: np.ndarray, part: float, others: SliceSet) -> np.ndarray:
    """Raise pixels below 0.2 by a part of what they lack."""
    return np.where(density < VOID, density + part * (VOID - density), density)


def coarse(others: SliceSet, parameters: dict[str, float], steps: int) -> np.ndarray:
    """Simulate other boxes with few steps, on a mesh as fine as the particles."""
    meta = others.metadata
    settings = SimulationParameters(
        box_size=meta.box_size,
        particles=int(parameters["particles"]),
        mesh=int(parameters["particles"]),
        steps=steps,
        start_redshift=float(parameters["start_redshift"]),
        redshift=meta.redshift,
        cosmology=meta.cosmology,
    )
    power = linear_power(meta.cosmology, math.sqrt(3) * math.pi * settings.particles / meta.box_size)
    n_slabs = round(meta.box_size / meta.thickness)
    slices = []
    for seed in np.unique(others.realisation).tolist():
        counts = start_counts(settings, power, seed, pixels=meta.n_pixels, slabs=n_slabs)
        boxes = counts.to(torch.float64).numpy().reshape(-1, meta.n_pixels, meta.n_pixels)
        slices.append(smooth(boxes / boxes.mean(), meta.smoothing))
    return np.concatenate(slices)


if __name__ == "__main__":
    main()
