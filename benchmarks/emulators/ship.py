r"""Put an emulator into the package: its weights, and a card written from its record, its run and the scoreboard.

    python ship.py box500-64 runs/box500-64.safetensors --run runs/box500-64

The emulator is known by the hash of its file: ``scoreboard.py`` must have judged it. Nothing is written by hand.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from scoreboard import FOLDER, board
from scoreboard_page import (
    BASELINES,
    MEMORISATION,
    TEST,
    TRAINING,
    Line,
    asked,
    beaten_by_baselines,
    misses,
    n_asked,
    not_measured,
    written,
)
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

import cosmogan.emulator.weights
from cosmogan.emulator.card import model_card
from cosmogan.emulator.emulator import Emulator
from cosmogan.emulator.file import SUFFIX, shipped_emulators
from cosmogan.emulator.shipped import ENTRY, JudgedFile, PowerCheck, Shipped, ShippedScore
from cosmogan.errors import UserError
from cosmogan.files import file_sha256
from cosmogan.validation.wording import percent

SHIPPED = Path(cosmogan.emulator.weights.__file__).parent
# The limit is 8 MB; the record of the scores, which comes in, takes some kB.
LARGEST_FILE = 7_900_000
# The bars are meant for so many mocks.
LEAST_MOCKS = 5000
LICENCE = "MIT, like the package; cite CITATION.cff and Rodriguez et al. 2018 (arXiv:1801.09070)."
# What `cosmogan emulators` shows.
HEADLINES = (
    ("power_spectrum", "training", "largest"),
    ("histogram", "training", "largest"),
    ("peaks", "training", "largest"),
    ("power_spectrum", "test", "chi2"),
    ("two_sample", "test", "value"),
)
LIMITS = (
    "One box, cosmology, redshift, slice thickness and smoothing: those above. Nothing is interpolated.",
    "As good as its simulations: approximate N-body runs (COLA) by `cosmogan simulate`; how they differ from L-PICOLA "
    "stands in benchmarks/accuracy/simulation.",
    "There are no light cones, galaxies or velocities.",
)
ALONE = "Each slice is on its own: no two of them are neighbours in a box."
TOGETHER = "Slices of one box are cuts of one volume: neighbours resemble each other, and all share its longest waves."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the emulator, such as box500-64")
    parser.add_argument("emulator", type=Path, help="file of `cosmogan export` that the scoreboard judged")
    parser.add_argument(
        "--run",
        type=Path,
        nargs="+",
        default=[],
        help="folder of `cosmogan fit` (one per stage), or results.json of reference/run.py, for the wall time",
    )
    parser.add_argument("--scores", type=Path, default=FOLDER, help="folder of scoreboard/")
    parser.add_argument(
        "--out", type=Path, default=SHIPPED, help="folder to write to; that of the package if not given"
    )
    parser.add_argument("--notes", nargs="*", default=[], metavar="SENTENCE", help="what else its card should tell")
    arguments = parser.parse_args()
    try:
        judged = board(arguments.scores, arguments.name)
        told = {"runs": arguments.run, "notes": arguments.notes}
        for path in ship(arguments.name, arguments.emulator, judged=judged, folder=arguments.out, **told):
            print(path)
    except UserError as error:
        raise SystemExit(f"ship: {error}") from None


def ship(
    name: str, path: Path, *, judged: Path, runs: Sequence[Path], folder: Path, notes: Sequence[str] = ()
) -> tuple[Path, Path]:
    if not judged.exists():
        raise UserError(f"{judged}: no such file; run scoreboard.py {name} first")
    if path.stat().st_size > LARGEST_FILE:
        size, most = path.stat().st_size / 1e6, LARGEST_FILE / 1e6
        raise UserError(f"{path}: takes {size:.1f} MB; at most {most:.1f} MB may ship")
    record = json.loads(judged.read_text(encoding="utf-8"))
    emulator, digest = Emulator.load(path), file_sha256(path)
    same = [one for one, held in record["candidates"].items() if held["source_sha256"] == digest]
    if not same:
        raise UserError(f"{path}: {judged} has no candidate that is this emulator; run scoreboard.py with it first")
    n_mocks = record["candidates"][same[0]]["n_slices"]
    if n_mocks < LEAST_MOCKS:
        raise UserError(f"{judged}: {same[0]} was judged by {n_mocks} mocks; expected at least {LEAST_MOCKS:,}")
    if "recipe" in emulator.training:
        recipe = without_places(yaml.safe_load(emulator.training["recipe"]))
        emulator.training["recipe"] = yaml.safe_dump(recipe, sort_keys=False)
    emulator.training[ENTRY] = shipped(name, same[0], record, emulator, runs, notes).to_dict()
    out = folder / f"{name}{SUFFIX}"
    emulator.save(out, overwrite=True)
    card = out.with_suffix(".md")
    card.write_text(model_card(emulator), encoding="utf-8")
    return out, card


def without_places(recipe: Any) -> Any:
    """Return a recipe with the names of files in place of where they were on the machine of the training."""
    if isinstance(recipe, dict):
        return {key: without_places(value) for key, value in recipe.items()}
    if isinstance(recipe, list):
        return [without_places(value) for value in recipe]
    return Path(recipe).name if isinstance(recipe, str) and Path(recipe).is_absolute() else recipe


def shipped(
    name: str, candidate: str, record: dict[str, Any], emulator: Emulator, runs: Sequence[Path], notes: Sequence[str]
) -> Shipped:
    """Return what the card tells beyond the record of the training."""
    held, box = record["candidates"][candidate], record["box"]
    missed, worse = misses(record, candidate), beaten_by_baselines(record, candidate)
    unknown = not_measured(record, candidate)
    limits = [f"Not measured: {'; '.join(unknown)}."] if unknown else []
    limits += [f"A baseline is as good in: {'; '.join(worse)}."] if worse else []
    return Shipped(
        name=name,
        title=f"{name}: slices of the cosmic web, {record['box']['length']}",
        data={key: data(record[key], emulator) for key in ("training", "test")},
        cost=cost(name, record, held, emulator, runs),
        judged=f"{n_asked(record, candidate) - len(missed)} of {n_asked(record, candidate)} bars met",
        mocks=f"{held['n_slices']:,} mocks, scored {record['date'][:10]}",
        scores=[score(line, record, candidate, box) for line in (*TRAINING, *TEST)],
        memorisation=memorisation(held["rows"]),
        limits=[*limits, *LIMITS, ALONE if emulator.boxes is None else TOGETHER, *notes],
        licence=LICENCE,
        check=PowerCheck(**held["check"]),
    )


def data(held: dict[str, Any], emulator: Emulator) -> JudgedFile:
    """Return what a slice file was made of, and which of its realisations only chose the checkpoint."""
    learnt = set(emulator.training.get("realisations", held["realisations"]))
    return JudgedFile(
        n_slices=held["n_slices"],
        realisations=held["realisations"],
        not_learnt=sorted(set(held["realisations"]) - learnt) if learnt & set(held["realisations"]) else [],
        sha256=held["sha256"],
        # The scoreboard's are those of all candidates.
        learnt=sorted(learnt) if "learnt" in held and not learnt <= set(held["realisations"]) else None,
    )


def cost(
    name: str, record: dict[str, Any], held: dict[str, Any], emulator: Emulator, runs: Sequence[Path]
) -> list[str]:
    """Return sentences on what it takes."""
    simulation, sampling = record["simulation"], held["sampling_seconds"]
    found = []
    seen = emulator.training.get("n_slices_seen")
    if len(runs) == 1 and runs[0].is_file():
        found += reference_cost(runs[0], seen)
    elif runs:
        best, whole = (_duration(sum(training_seconds(run, most) for run in runs)) for most in (seen, math.inf))
        found.append(f"Training: {best} of wall time for {seen:,} slices seen, {whole} for the whole run.")
    elif (before := training_before(name, emulator)) is not None:
        found.append(before)
    elif seen is not None:
        found.append(f"Training: {seen:,} slices seen; the wall time was not recorded.")
    if simulation is not None:
        n = len(record["training"]["realisations"])
        found.append(
            f"Simulations: {simulation['seconds']:.0f} s of processor time per realisation of "
            f"{simulation['particles']}³ particles and its slices, {_duration(n * simulation['seconds'])} for the "
            f"{n} of training and validation, on {record['machine']}."
        )
    text = f"Sampling: {1e3 * sampling:.2g} ms of processor time per slice"
    if simulation is not None:
        per_slice = simulation["seconds_per_slice"]
        text += f", {per_slice / sampling:.0f} times faster than its simulations ({1e3 * per_slice:.3g} ms)"
    found.append(f"{text}, on {record['machine']}.")
    return found


def reference_cost(results: Path, n_slices_seen: int) -> list[str]:
    """Return what a run of reference/run.py says of the training of so many slices, and of its simulations."""
    held = json.loads(results.read_text(encoding="utf-8"))
    for stage, told in held["done"].items():
        kind, _, rest = stage.partition(" ")
        if kind == "train" and told["n_slices_seen"] == n_slices_seen:
            box = rest.split()[0]
            each = statistics.median(held["simulation"][box]["seconds"])
            return [
                f"Training: {_duration(told['used'])} of wall time for {n_slices_seen:,} slices seen, validations and "
                f"starts included, on {held['machine']}.",
                f"Simulations: {each:.2g} s of wall time per realisation of {held['geometry']['particles']}³ particles "
                "and its slices, on the same machine.",
            ]
    raise UserError(f"{results}: knows no training that saw {n_slices_seen:,} slices")


def training_before(name: str, emulator: Emulator) -> str | None:
    """Return what the card that ships says of the training, where this is the same one, refitted."""
    if name not in shipped_emulators():
        return None
    before = Emulator.load(name).training
    same = all(before.get(key) == emulator.training.get(key) for key in ("recipe", "n_slices_seen"))
    return before[ENTRY]["cost"][0] if same and ENTRY in before else None


def training_seconds(run: Path, n_slices_seen: float) -> float:
    """Return the wall time that a run took to see so many slices, from its TensorBoard events, pauses left out.

    Raises
    ------
    UserError
        If the folder holds no events.
    """
    seconds = []
    for path in sorted(run.glob("events.out.tfevents.*")):
        # The version record has no step of its own and the time of the writer's beginning.
        events = [event for event in EventFileLoader(str(path)).Load() if not event.HasField("file_version")]
        times = [event.wall_time for event in events if event.step <= n_slices_seen]
        seconds.append(max(times) - min(times) if times else 0.0)
    if not seconds:
        raise UserError(f"{run}: holds no TensorBoard events; expected the folder of `cosmogan fit`")
    return sum(seconds)


def score(line: Line, record: dict[str, Any], candidate: str, box: dict[str, Any]) -> ShippedScore:
    """Return a line of the scoreboard as it is written there."""
    rows, bar = record["candidates"], line.bar(box)
    same = record["floor"] if line.against == "training" else record["simulations"]
    return ShippedScore(
        title=line.title,
        against=line.against,
        value=written(line, rows[candidate]["rows"]),
        asked="" if bar is None else asked(line, bar),
        met=line.met(rows[candidate]["rows"], box),
        simulations=written(line, same["rows"]),
        baselines={name: written(line, rows[name]["rows"]) for name in BASELINES if name in rows},
        headline=(line.row, line.against, line.key) in HEADLINES,
    )


def memorisation(rows: dict[str, Any]) -> str:
    """Return a sentence on copies of training slices; empty where they were not looked for."""
    found = rows.get(MEMORISATION, {}).get("test")
    if found is None or found["value"] is None:
        return ""
    floor = "" if found["floor"] is None else f", of the test slices {percent(found['floor'])}"
    missed = "; that misses its bar" if found["outcome"] == "fail" else ""
    return f"Mocks with a copy among the training slices: {percent(found['value'])}{floor}{missed}."


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.0f} min"


if __name__ == "__main__":
    main()
