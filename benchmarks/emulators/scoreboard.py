r"""Emulators and baselines against the simulations they were learnt from, and against others.

Makes the lognormal and the copula baseline and mocks of the emulators named, measures all of it, writes
``scoreboard/NAME.json`` and, from all such files, ``scoreboard.md``. What was measured before and has not changed, by
the hashes of its files, is not measured again, so that all candidates of a box can be named each time.

    python scoreboard.py box500-64 --training train500.h5 --test test500.h5 --time-simulation \
        --candidates dcgan=dcgan.safetensors ours=box500-64.safetensors
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import shlex
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scoreboard_page import render

from cosmogan import __version__
from cosmogan.baselines.command import baseline
from cosmogan.baselines.fit import METHODS
from cosmogan.emulator.emulator import Emulator, find_emulator
from cosmogan.emulator.file import SUFFIX, shipped_emulators
from cosmogan.emulator.generate import generate
from cosmogan.errors import UserError
from cosmogan.files import file_sha256
from cosmogan.slices import SliceMetadata, SliceReader
from cosmogan.units import format_length
from cosmogan.validation.closeness import closeness
from cosmogan.validation.compare import compare_candidates
from cosmogan.validation.comparison import Comparison
from cosmogan.validation.report.report import write_report
from cosmogan.validation.thresholds import load_thresholds
from cosmogan.validation.verdict import judge_score
from data_tools.simulation.simulate import simulate

FOLDER = Path(__file__).parent
SIMULATIONS = "simulations"
# What a file of mocks says of itself and is told on.
_TOLD = ("command", "cosmogan", "method", "power_deviation", "emulator", "emulator_sha256", "seed")
# Slices that an emulator is timed with, and how often; the fastest counts. Times are those of the processor, all
# threads together, which other processes disturb least.
TIMED_SLICES, TIMINGS = 256, 5
# P(k) of so many mocks, at every fifth of the judged bins, is what a test of a shipped emulator looks at.
CHECKED_SLICES, CHECKED_EVERY = 64, 5


def box(metadata: SliceMetadata) -> dict[str, Any]:
    """Return what the page says of the slices."""
    return {
        "length": format_length(metadata.box_size, metadata.cosmology.h),
        "side_Mpc": round(metadata.box_size / (metadata.cosmology.h or 1)),
        "n_pixels": metadata.n_pixels,
        "thickness": metadata.thickness,
        "smoothing": metadata.smoothing,
        "redshift": metadata.redshift,
        "h": metadata.cosmology.h,
        "k_F": metadata.fundamental,
        "k_Nyquist": metadata.nyquist,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "name",
        nargs="?",
        help="boxMPC-PIXELS, such as box500-64, or gravityMPC-PIXELS; only writes the page if not given",
    )
    parser.add_argument("--training", type=Path, help="slice file that emulators and baselines were learnt from")
    parser.add_argument(
        "--test", type=Path, help="slice file of realisations that neither trained nor chose a checkpoint"
    )
    parser.add_argument("--candidates", nargs="*", default=[], metavar="NAME=FILE", help="emulators, or files of mocks")
    parser.add_argument("-n", type=int, default=5000, help="mocks of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bootstrap", type=int, default=200)
    parser.add_argument(
        "--two-sample", nargs="*", metavar="NAME", help="test these by a network only; all if not given"
    )
    parser.add_argument("--time-simulation", action="store_true", help="run one simulation and time it")
    parser.add_argument("--particles", type=int, help="of that simulation along a side; two per pixel if not given")
    parser.add_argument("--report", type=Path, help="folder for the pages of `cosmogan validate`; measures everything")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of scoreboard.md and of scoreboard/")
    parser.add_argument(
        "--part-of-training",
        action="store_true",
        help="allow a training file that holds only some of the realisations that emulators learnt from",
    )
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    arguments = parser.parse_args()
    try:
        if arguments.name is not None:
            if arguments.training is None or arguments.test is None:
                parser.error("--training and --test are needed")
            record = score(arguments)
            path = board(arguments.out, arguments.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(plain(record), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except UserError as error:
        raise SystemExit(f"scoreboard: {error}") from None
    records = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(board(arguments.out, "*").parent.glob("*.json"))
    ]
    page = arguments.out / "scoreboard.md"
    page.write_text(render(records), encoding="utf-8")
    print(page)


def board(folder: Path, name: str) -> Path:
    """Return the file of what was measured of an emulator's box and size."""
    return folder / "scoreboard" / f"{name}.json"


def score(arguments: argparse.Namespace) -> dict[str, Any]:
    training, test = describe(arguments.training), describe(arguments.test)
    with SliceReader(arguments.training) as reader:
        metadata = reader.metadata
    require_name(arguments.name, metadata)
    shared = set(training["realisations"]) & set(test["realisations"])
    if shared:
        raise UserError(f"{arguments.test}: realisations {sorted(shared)[:5]} are in {arguments.training}, too")
    settings = {"seed": arguments.seed, "bootstrap": arguments.bootstrap, "n": arguments.n, "cosmogan": __version__}
    known = earlier(arguments, training, test, settings)
    sources: dict[str, tuple[str, Path]] = dict.fromkeys(METHODS, ("baseline", arguments.training))
    for word in arguments.candidates:
        name, equals, path = word.partition("=")
        if not (name and equals and path) or name in (*sources, SIMULATIONS):
            raise UserError(f"--candidates {word}: expected NAME=FILE with a name that no other has")
        emulator = Path(path).suffix == SUFFIX or path in shipped_emulators()
        sources[name] = ("emulator", find_emulator(path)) if emulator else ("mocks", Path(path))
        if emulator:
            # Before the work, not after it.
            require_learnt(sources[name][1], training, test, part=arguments.part_of_training)
    candidates: dict[str, dict[str, Any]] = {}
    new: dict[str, Path | str] = {}
    comparisons: list[Comparison] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (kind, source) in sources.items():
            before = known.get("candidates", {}).get(name)
            candidates[name] = {"kind": kind, "source_sha256": file_sha256(source)}
            same = before and before["source_sha256"] == candidates[name]["source_sha256"]
            if same and enough(before, name, arguments):
                candidates[name] = before
            else:
                new[name], candidates[name]["sampling_seconds"] = make(name, kind, source, arguments, Path(folder))
                print(f"{name}: mocks are there", flush=True)
        for tested in (True, False):
            chosen = {name: path for name, path in new.items() if wanted(name, arguments) == tested}
            if chosen:
                print(f"measuring {', '.join(chosen)}: minutes for each", flush=True)
                comparisons += compare_candidates(
                    chosen,
                    arguments.test,
                    training=arguments.training,
                    two_sample=tested,
                    n_bootstrap=arguments.bootstrap,
                    seed=arguments.seed,
                )
    for comparison in comparisons:
        provenance = comparison.mocks.provenance
        candidates[comparison.name] |= {
            "n_slices": comparison.mocks.n_slices,
            "provenance": {k: provenance[k] for k in _TOLD if k in provenance},
            "rows": rows(comparison),
            "check": check(comparison),
            "notes": list(comparison.notes),
        }
    floor = training_floor(comparisons[0]) if comparisons else known["floor"]
    itself = known.get(SIMULATIONS)
    if itself is None or not enough(itself, SIMULATIONS, arguments):
        itself = {"rows": simulations(arguments)}
    if arguments.report is not None:
        write_report(comparisons, arguments.report, load_thresholds(), overwrite=True)
    return {
        "name": arguments.name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "box": box(metadata),
        "command": command(),
        "settings": settings,
        "training": training,
        "test": test,
        "machine": machine(),
        "simulation": timed(metadata, arguments) if arguments.time_simulation else known.get("simulation"),
        "floor": floor,
        SIMULATIONS: itself,
        "candidates": candidates,
    }


def earlier(
    arguments: argparse.Namespace, training: dict[str, Any], test: dict[str, Any], settings: dict[str, Any]
) -> dict[str, Any]:
    """Return what was measured before with the same simulations and settings; nothing where all is to be new."""
    path = board(arguments.out, arguments.name)
    if arguments.fresh or arguments.report is not None or not path.exists():
        return {}
    held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    same = held["settings"] == settings and all(
        held[key]["sha256"] == now["sha256"] for key, now in (("training", training), ("test", test))
    )
    return held if same else {}


def wanted(name: str, arguments: argparse.Namespace) -> bool:
    return arguments.two_sample is None or name in arguments.two_sample


def enough(before: dict[str, Any], name: str, arguments: argparse.Namespace) -> bool:
    """Say whether what is known of a candidate holds all that is asked for."""
    return "two_sample" in before["rows"] or not wanted(name, arguments)


def make(name: str, kind: str, source: Path, arguments: argparse.Namespace, folder: Path) -> tuple[Path, float | None]:
    """Make the mocks of a candidate where they are not made yet; return where they are and the seconds per slice."""
    out = folder / f"{name}.h5"
    if kind == "mocks":
        return source, None
    if kind == "emulator":
        generate(str(source), n=arguments.n, out=str(out), seed=arguments.seed)
        return out, sampling_seconds(Emulator.load(source))
    baseline(str(source), method=name, n=arguments.n, out=str(out), seed=arguments.seed)
    return out, None


def sampling_seconds(emulator: Emulator) -> float:
    """Return the processor time that an emulator takes for a slice."""
    found = []
    # Slices of boxes cost what their box does.
    n = TIMED_SLICES if emulator.boxes is None else emulator.boxes.per_box
    for seed in range(TIMINGS):
        start = time.process_time()
        emulator.sample(n, seed=seed)
        found.append((time.process_time() - start) / n)
    return min(found)


def timed(metadata: SliceMetadata, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one simulation with slices like these, and return the processor time it took."""
    cosmology = metadata.cosmology.known()
    particles = arguments.particles or 2 * metadata.n_pixels
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        (path,) = simulate(
            box_size=f"{metadata.box_size} Mpc/h",
            out=f"{folder}/slices.h5",
            particles=particles,
            seeds="1",
            slice_pixels=metadata.n_pixels,
            slabs=round(metadata.box_size / metadata.thickness),
            smoothing=metadata.smoothing,
            redshift=metadata.redshift,
            device="cpu",
            **cosmology,
        )
        seconds = time.process_time() - start
        with SliceReader(path) as reader:
            n_slices = reader.n_slices
    return {"particles": particles, "seconds": seconds, "n_slices": n_slices, "seconds_per_slice": seconds / n_slices}


def simulations(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return what the training slices score against the test realisations, as if they were mocks."""
    (comparison,) = compare_candidates(
        {SIMULATIONS: arguments.training},
        arguments.test,
        two_sample=wanted(SIMULATIONS, arguments),
        n_bootstrap=arguments.bootstrap,
        seed=arguments.seed,
    )
    return rows(comparison)


def training_floor(comparison: Comparison) -> dict[str, Any]:
    """Return what disjoint sets of the training realisations differ by, as the mocks differ from all of them."""
    entries = comparison.training_statistics
    assert comparison.training is not None
    found: dict[str, dict[str, Any]] = {
        name: {"training": {"median": one.floor_median, "largest": one.floor_maximum}}
        for name, one in closeness(entries, n_slices=comparison.training.n_slices).items()
    }
    for entry in entries:
        if entry.correlation is not None:
            for score in entry.correlation.scores(entry.statistic.name):
                found[score.name] = {"training": {"value": score.floor}}
    return {"sets": entries[0].floor_sets, "rows": found}


def rows(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Return everything measured of a candidate: by statistic, against the training mean and against the test."""
    found: dict[str, dict[str, Any]] = {}
    for key, entries, n_slices in (
        ("test", comparison.statistics, comparison.reference.n_slices),
        ("training", comparison.training_statistics, comparison.training.n_slices if comparison.training else 0),
    ):
        for name, one in closeness(entries, n_slices=n_slices).items():
            numbers: dict[str, Any] = {"median": one.median, "largest": one.maximum, "n_bins": one.n_bins}
            numbers |= {"within": one.within, "chi2": one.chi2} if key == "test" else {}
            found.setdefault(name, {"title": one.title, "bins": one.bins})[key] = numbers
        for entry in entries:
            if entry.correlation is not None:
                for score in entry.correlation.scores(entry.statistic.name):
                    found.setdefault(score.name, {"title": score.title, "bins": ""})[key] = {"value": score.value}
    asked = load_thresholds()
    scores = [entry.coherence.score() for entry in comparison.statistics if entry.coherence is not None]
    scores += [one for sample in comparison.samples for one in sample.scores]
    for one in scores:
        found[one.name] = {
            "title": one.title,
            "units": one.units,
            "test": {"value": one.value, "floor": one.floor, "outcome": judge_score(one, asked).outcome},
        }
    for sample in comparison.samples:
        if sample.p_value is not None:
            held = found[sample.scores[0].name]["test"]
            held |= {"p": sample.p_value, "n_orders": sample.n_orders}
            if sample.rows:
                held |= {"summary_auc": sample.rows[0].auc, "summary_p": sample.rows[0].p}
                held["where"] = [[row.what, row.auc, row.p] for row in sample.rows[1:]]
    return found


def check(comparison: Comparison) -> dict[str, Any]:
    """Return the mean density of the mocks, their P(k) at a few k, and how far P(k) of 64 of them may be from that.

    Five standard deviations of the mean of 64 slices, and at least 10%.
    """
    entry = next(entry for entry in comparison.statistics if entry.statistic.name == "power_spectrum")
    bins = np.flatnonzero(entry.judged)[::CHECKED_EVERY]
    mean = entry.mocks[bins]
    reach = np.maximum(5 * entry.mocks_scatter[bins] / math.sqrt(CHECKED_SLICES), 0.1 * mean)
    return {
        "mean_density": comparison.mocks.mean_density,
        "n_slices": CHECKED_SLICES,
        "bins": bins.tolist(),
        "k": entry.x[bins].tolist(),
        "power": mean.tolist(),
        "reach": reach.tolist(),
    }


def describe(path: Path) -> dict[str, Any]:
    with SliceReader(path) as reader:
        provenance = {k: v for k, v in reader.provenance.items() if k != "snapshots"}
        return {
            "file": path.name,
            "sha256": file_sha256(path),
            "n_slices": reader.n_slices,
            "realisations": np.unique(reader.realisation).tolist(),
            "provenance": provenance,
        }


def require_learnt(path: Path, training: dict[str, Any], test: dict[str, Any], *, part: bool = False) -> None:
    """Refuse an emulator that has seen the test, or has learnt from something else than the training slices.

    With ``part``, the file may hold some of them only; ``training["learnt"]`` then names all.
    """
    learnt, held = set(Emulator.load(path).training.get("realisations", [])), set(training["realisations"])
    if learnt & set(test["realisations"]):
        seen = sorted(learnt & set(test["realisations"]))
        raise UserError(f"{path}: was trained on realisations {seen[:5]} of {test['file']}, which are to test it")
    if learnt <= held:
        return
    if not part or not learnt & held:
        raise UserError(
            f"{path}: was trained on realisations {sorted(learnt - held)[:5]}, which {training['file']} does not hold"
            + ("; --part-of-training allows that" if learnt & held else "")
        )
    training["learnt"] = sorted(learnt | set(training.get("learnt", [])))


def require_name(name: str, metadata: SliceMetadata) -> None:
    side = metadata.box_size / (metadata.cosmology.h or math.nan)
    size = f"{side:.0f}-{metadata.n_pixels}"
    if name not in (f"box{size}", f"gravity{size}"):
        raise UserError(f"{name}: the training slices are those of box{size} or gravity{size}")


def machine() -> str:
    """Return processor and threads that times belong to."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    n = torch.get_num_threads()
    return f"{model}, {n} thread{'' if n == 1 else 's'}"


def command() -> str:
    """Return the command line, files by their names alone."""
    words = []
    for word in sys.argv[1:]:
        name, equals, path = word.rpartition("=")
        words.append(name + equals + Path(path).name)
    return "python benchmarks/emulators/scoreboard.py " + shlex.join(words)


def plain(value: Any) -> Any:
    """Return JSON values: None for NaN and infinity."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    main()
