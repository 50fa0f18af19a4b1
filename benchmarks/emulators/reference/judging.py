"""Mocks of the emulators that were trained, their scores as the scoreboard has them, and a figure."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import scoreboard
import torch

from cosmogan import __version__
from cosmogan.emulator.emulator import Emulator
from cosmogan.emulator.export import export
from cosmogan.files import file_sha256, replaced
from cosmogan.slices import SliceReader
from cosmogan.validation.compare import compare_candidates
from cosmogan.validation.comparison import Comparison
from cosmogan.validation.report.figures import draw_slices, draw_statistic
from cosmogan.validation.report.matrices import draw_correlation
from cosmogan.validation.sets.two_sample import compare_two_sample
from cosmogan.validation.thresholds import load_thresholds
from cosmogan.validation.verdict import judge_score

SIMULATIONS = scoreboard.SIMULATIONS
# As `cosmogan export --refit` has it.
_REFIT_SEED = 2**31 - 3
# Mocks whose processor time is taken, on the CPU.
_TIMED = 16
# What is told of where mocks come from.
_TOLD = ("command", "cosmogan", "emulator", "emulator_sha256", "seed")
_PANELS = ("histogram", "peaks", "power_spectrum")


def export_emulator(run: Path, out: Path, *, refit: bool, device: torch.device) -> dict[str, Any]:
    """Write the best checkpoint of a run as an emulator, the last one where none was judged; refit on the device."""
    checkpoint = run / "best.ckpt" if (run / "best.ckpt").exists() else run / "last.ckpt"
    export(str(checkpoint), out=str(out), overwrite=True)
    began = time.perf_counter()
    if refit:
        emulator = Emulator.load(out, device=device)
        emulator.generator.refit(seed=_REFIT_SEED)
        emulator.training["refitted"] = True
        emulator.save(out, overwrite=True)
    emulator = Emulator.load(out)
    return {
        "checkpoint": checkpoint.name,
        "n_slices_seen": emulator.training["n_slices_seen"],
        "refitted": refit,
        "refit_seconds": time.perf_counter() - began if refit else None,
        "bytes": out.stat().st_size,
        "sha256": file_sha256(out),
    }


def sampling(path: Path, device: torch.device, *, n: int) -> dict[str, float]:
    """Return how many slices per second an emulator makes on the device, in its memory."""
    emulator = Emulator.load(path, device=device)
    began = 0.0
    for turn in range(2):
        # The first turn plans and allocates.
        began = time.perf_counter()
        for batch in emulator.stream(n, seed=turn):
            last = batch
        del last
    return {"slices": n, "slices_per_second": n / (time.perf_counter() - began)}


def processor_seconds(path: Path) -> float:
    """Return the processor time of a mock, as the scoreboard means it, of fewer mocks."""
    emulator = Emulator.load(path)
    found = []
    for seed in range(2):
        began = time.process_time()
        emulator.sample(_TIMED, seed=seed)
        found.append((time.process_time() - began) / _TIMED)
    return min(found)


def record_statistics(
    name: str,
    emulators: Mapping[str, Path],
    mocks: Mapping[str, Path],
    *,
    training: Path,
    test: Path,
    bootstrap: int,
    device: torch.device,
    command: str,
    figure: Path,
) -> dict[str, Any]:
    """Measure everything but the two-sample test, draw the figure, and return a record of the scoreboard."""
    described = {"training": scoreboard.describe(training), "test": scoreboard.describe(test)}
    for path in emulators.values():
        scoreboard.require_learnt(path, described["training"], described["test"])
    comparisons = compare_candidates(mocks, test, training=training, n_bootstrap=bootstrap, device=device)
    (itself,) = compare_candidates({SIMULATIONS: training}, test, n_bootstrap=bootstrap, device=device)
    draw(comparisons, figure)
    candidates = {}
    for comparison in comparisons:
        emulator = Emulator.load(emulators[comparison.name])
        candidates[comparison.name] = {
            "kind": "emulator",
            "source_sha256": file_sha256(emulators[comparison.name]),
            "sampling_seconds": processor_seconds(emulators[comparison.name]),
            "n_slices": comparison.mocks.n_slices,
            "provenance": {key: held for key, held in comparison.mocks.provenance.items() if key in _TOLD},
            "n_slices_seen": emulator.training["n_slices_seen"],
            "rows": scoreboard.rows(comparison),
            "check": scoreboard.check(comparison),
            "notes": list(comparison.notes),
        }
    with SliceReader(test) as reader:
        metadata = reader.metadata
    scoreboard.require_name(name, metadata)
    n_mocks = max(comparison.mocks.n_slices for comparison in comparisons)
    record = {
        "name": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "box": scoreboard.box(metadata),
        "command": command,
        "settings": {"seed": 0, "bootstrap": bootstrap, "n": n_mocks, "cosmogan": __version__},
        **described,
        "machine": scoreboard.machine(),
        # In processor time, which a simulation on a GPU does not have.
        "simulation": None,
        "floor": scoreboard.training_floor(comparisons[0]),
        SIMULATIONS: {"rows": scoreboard.rows(itself)},
        "candidates": candidates,
    }
    plain: dict[str, Any] = scoreboard.plain(record)
    return plain


def add_two_sample(record: dict[str, Any], name: str, path: Path, test: Path, *, device: torch.device) -> None:
    """Test one candidate, or the simulations themselves, by networks that learn to tell."""
    with SliceReader(path) as mocks, SliceReader(test) as reference:
        tested = compare_two_sample(mocks, reference, device=device)
    rows = (record[SIMULATIONS] if name == SIMULATIONS else record["candidates"][name])["rows"]
    for one in tested.scores:
        found = {"value": one.value, "floor": one.floor, "outcome": judge_score(one, load_thresholds()).outcome}
        found |= {"p_value": tested.p_value, "n_orders": tested.n_orders}
        rows[one.name] = scoreboard.plain({"title": one.title, "units": one.units, "test": found})


def draw(comparisons: tuple[Comparison, ...], path: Path) -> None:
    """Write slices beside mocks, and histogram, peaks, P(k) and its correlation matrix, as one PNG."""
    measured = {entry.statistic.name: entry for entry in comparisons[0].statistics}
    drawings = [draw_statistic(comparisons, name) for name in _PANELS if name in measured]
    for comparison in comparisons:
        (entry,) = (one for one in comparison.statistics if one.statistic.name == "power_spectrum")
        if entry.correlation is not None:
            drawings.append(draw_correlation(comparison, entry, entry.correlation))
    n_panels = len(_PANELS)
    rows = [[draw_slices(comparisons)], drawings[:n_panels], drawings[n_panels:]]
    images = [_beside([_pixels(one.png) for one in row]) for row in rows if row]
    width = max(image.shape[1] for image in images)
    page = [np.pad(image, ((0, 0), (0, width - image.shape[1]), (0, 0)), constant_values=1.0) for image in images]
    matplotlib.image.imsave(path, np.concatenate(page))


def _beside(images: list[np.ndarray]) -> np.ndarray:
    height = max(image.shape[0] for image in images)
    return np.concatenate(
        [np.pad(one, ((0, height - one.shape[0]), (0, 0), (0, 0)), constant_values=1.0) for one in images], axis=1
    )


def _pixels(png: bytes) -> np.ndarray:
    pixels: np.ndarray = matplotlib.image.imread(io.BytesIO(png))[..., :3]
    return pixels


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file that is either whole or not there."""
    with replaced(path) as beside:
        beside.write_text(json.dumps(scoreboard.plain(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")
