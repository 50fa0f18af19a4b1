r"""The paper's case at full size, within a wall-clock budget: simulate, train, export, generate, score.

    python benchmarks/emulators/reference/run.py --minutes 28 --work /scratch/reference --out results

Boxes of 500 Mpc and 100 Mpc, 256 x 256 pixels, our recipe and the paper's on the same slices. Whatever ends it, the
same command goes on with the stage it was in. Exit code 0: all done; 3: out of time, go on with the same command; 2:
refused; 143: SIGTERM. README.md beside this file has estimates and how to prepare a machine without a network.
"""

# ruff: noqa: E402, because the scoreboard is a program and no package: it must be put on the path first

from __future__ import annotations

import argparse
import json
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import yaml

FOLDER = Path(__file__).parent
sys.path.append(str(FOLDER.parent))

import judging
import learning
import scoreboard_page
from budget import (
    EXPORT_SHARE,
    LEAST_TEST,
    LEAST_TRAINING,
    SCORING_SHARE,
    Realisations,
    now,
    plan_realisations,
    slices_to_see,
    training_seconds,
)
from journal import Journal
from simulations import BOXES, GEOMETRIES, join, part, simulate

from cosmogan.emulator.generate import generate
from cosmogan.errors import UserError
from cosmogan.machine.devices import choose_device
from cosmogan.training.fit import find_recipe

RECIPES = {"ours": "emulators", "rodriguez2018": "rodriguez2018"}
LARGEST_WEIGHTS = 8_000_000
_FIRST_TEST_SEED = 1001
# Seconds that a command keeps for its end: the last checkpoint, copies of the results.
_END = 12.0
# Seconds of the two-sample test of a candidate, before one has been measured.
_TWO_SAMPLE = 60.0
_TOY = {"data.batch_size": 8, "data.slices_per_epoch": 96, "validation.n_mocks": 32, "trainer.log_every_n_steps": 2}
_TOY |= {"model.generator.init_args.width": 8, "model.critic.init_args.width": 8, "trainer.precision": "32-true"}
_REHEARSAL = {"data.slices_per_epoch": 2048, "validation.n_mocks": 128, "trainer.log_every_n_steps": 8}
# Seconds that a training has in a rehearsal at least: a rate is what it is for.
_REHEARSED = 45.0
# Slabs of a rehearsal are this much sparser.
_SPARSER = 8


class OutOfTime(Exception):  # noqa: N818, because it is none
    """What comes next does not fit into this command."""


class Reference(Journal):
    """All stages."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.out = arguments, arguments.out
        self.boxes: list[str] = arguments.boxes
        self.recipes = list(RECIPES) if arguments.recipe == "both" else [arguments.recipe]
        self.geometry = GEOMETRIES[arguments.geometry]
        if arguments.realisations is not None:
            training, test = arguments.realisations
            self.geometry = replace(self.geometry, training=training, test=test)
        self.scoring = EXPORT_SHARE if arguments.unscored else SCORING_SHARE
        if arguments.rehearse:
            self.geometry = replace(self.geometry, every=min(_SPARSER * self.geometry.every, self.geometry.slabs // 4))
        settings = {
            name: getattr(arguments, name)
            for name in ("boxes", "recipe", "geometry", "realisations", "rehearse", "mocks")
        }
        super().__init__(
            arguments.work,
            settings,
            device=choose_device(arguments.device),
            budget=60 * arguments.minutes,
            limit=arguments.limit,
        )
        self.signals = learning.Signals()

    def run(self) -> None:
        """Do all stages that are not done."""
        self.once("ceiling", lambda found: found.update(learning.matrix_ceiling(self.device)))
        if "plan" not in self.state:
            self.plan()
        # Ours first: whatever happens later, these are the emulators to keep.
        for recipe in self.recipes:
            for box in self.boxes:
                self.simulate_all(box)
                self.train(box, recipe)
                self.once(f"export {box} {recipe}", lambda found, b=box, r=recipe: self.export(found, b, r))
        if self.arguments.unscored:
            return
        for box in self.boxes:
            for recipe in self.recipes:
                self.once(f"generate {box} {recipe}", lambda found, b=box, r=recipe: self.generate(found, b, r))
            self.once(f"statistics {box}", lambda found, b=box: self.statistics(found, b))
            self.collect()
        for box in self.boxes:
            self.two_sample(box)

    # Simulations.

    def seeds(self, kind: str) -> list[int]:
        """Return the seeds of the training or of the test."""
        first = 1 if kind == "training" else _FIRST_TEST_SEED
        return list(range(first, first + self.state["plan"][kind]))

    def slices(self, box: str, kind: str) -> Path:
        """Return the slice file of training or test."""
        return self.work / f"{box}-{kind}.h5"

    def simulate(self, box: str, seeds: list[int]) -> None:
        """Make the slices of these seeds, those apart that are there."""
        folder = self.work / f"{box}-parts"
        missing = [s for s in seeds if not part(folder, s).exists()] if not self.slices(box, "test").exists() else []
        known = self.state["simulation"].setdefault(box, {"seconds": []})
        if not missing:
            return
        self.say(f"simulate {box}: {len(missing)} x {self.geometry.particles}^3 particles")
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        for _ in self._timed(self._simulations(box, missing, folder), known["seconds"]):
            known |= self.memory()
            self.save()

    def _simulations(self, box: str, seeds: list[int], folder: Path) -> Iterator[int]:
        cubes = self.work / "cubes" if self.arguments.cubes else None
        return simulate(BOXES[box], self.geometry, seeds, folder, self.device, cubes=cubes)

    def _timed(self, seeds: Iterator[int], seconds: list[float]) -> Iterator[int]:
        while True:
            if seconds and not self.arguments.rehearse and self.clock.left_now < 1.3 * min(seconds) + _END:
                raise OutOfTime
            began = time.perf_counter()
            try:
                seed = next(seeds)
            except StopIteration:
                return
            seconds.append(time.perf_counter() - began)
            yield seed

    def plan(self) -> None:
        """Measure simulations, decide their numbers for good, and say so."""
        # The first one of all pays for plans and fresh memory; the second is what the others will be like.
        for place, box in enumerate(self.boxes):
            self.simulate(box, [1] if place else [1, 2])
        seconds = {box: min(self.state["simulation"][box]["seconds"]) for box in self.boxes}
        wanted = Realisations(self.geometry.training, self.geometry.test)
        planned = plan_realisations(
            seconds,
            wanted,
            left=self.clock.left,
            budget=self.clock.budget,
            rehearsal=self.arguments.rehearse,
            scoring=self.scoring,
        )
        self.state["plan"] = asdict(planned) | {"validation": planned.validation, "seconds_per_simulation": seconds}
        each = ", ".join(f"{box} {value:.3g} s" for box, value in seconds.items())
        self.say(
            f"plan: {planned.training} training realisations, {planned.validation} of which choose the checkpoint, and "
            f"{planned.test} test realisations of each box (asked for: {wanted.training} and {wanted.test}; a "
            f"simulation takes {each}); {self.scoring:.0%} of the time for export and scores"
        )
        self.save()

    def simulate_all(self, box: str) -> None:
        """Make the slice files of training and test."""
        for kind in ("training", "test"):
            if not self.slices(box, kind).exists():
                seeds = self.seeds(kind)
                self.simulate(box, seeds)
                join(self.work / f"{box}-parts", seeds, self.slices(box, kind))
        learning.release_memory()

    # Training.

    def train(self, box: str, recipe: str) -> None:
        """Train within the time that this training has; its length is decided behind its first validation."""
        key = f"train {box} {recipe}"
        if key in self.state["done"]:
            return
        run = self.work / f"{box}-{recipe}"
        known = self.state["trainings"].setdefault(key, {"used": 0.0})
        if "allotted" not in known:
            # Ours is trained on all boxes first, then the paper's: what follows this one in that order.
            order = [(r, b) for r in self.recipes for b in self.boxes]
            waiting = [r for r, b in order if f"train {b} {r}" not in self.state["done"]]
            known["allotted"] = training_seconds(
                self.clock.left,
                self.clock.budget,
                simulations=self.simulations_left(),
                recipe=recipe,
                waiting=waiting,
                own=self.recipes,
                scoring=self.scoring,
            )
            if self.arguments.rehearse:
                known["allotted"] = max(known["allotted"], _REHEARSED)
        with self.stage(key) as found:
            while True:
                seconds = min(known["allotted"] - known["used"], self.clock.left_now - _END)
                if known["allotted"] - known["used"] < 1.0 and learning.slices_seen(run):
                    break
                if self.another_command() and seconds < 2 * _END:
                    raise OutOfTime
                self.train_once(run, box, recipe, known, max(seconds, 1.0))
                seen = learning.slices_seen(run)
                if seen and seen >= known.get("max_slices", seen + 1):
                    break
            costs = learning.operations_per_slice(run, self.geometry.pixels)
            found |= known | {"n_slices_seen": learning.slices_seen(run), "operations_per_slice": costs}
            if known.get("rate"):
                ceilings = self.state["done"]["ceiling"]
                found["operations_per_second"] = known["rate"] * costs["training"]
                found["share_of_ceiling"] = {
                    dtype: found["operations_per_second"] / ceilings[dtype] for dtype in ("float32", "bfloat16")
                }

    def train_once(self, run: Path, box: str, recipe: str, known: dict[str, Any], seconds: float) -> None:
        """Train up to the first validation, or from there to the end; note how fast it went."""
        config = find_recipe(f"{RECIPES[recipe]}/{box}")
        values = {"data.path": self.slices(box, "training"), "data.n_validation": self.state["plan"]["validation"]}
        values |= _TOY if self.arguments.geometry == "toy" else _REHEARSAL if self.arguments.rehearse else {}
        values |= {"trainer.accelerator": "cpu"} if self.device.type == "cpu" else {}
        data = yaml.safe_load(config.read_text(encoding="utf-8"))
        per_pass = int(values.get("data.slices_per_epoch", data["data"]["slices_per_epoch"]))
        batch_size = int(values.get("data.batch_size", data["data"]["batch_size"]))
        # The same networks on other slices of the same size are as fast.
        for other in (self.state["trainings"].get(f"train {b} {recipe}", {}) for b in self.boxes):
            if other.get("rate") and not known.get("rate"):
                known |= {name: other[name] for name in ("rate", "validation")}
        first = not known.get("rate")
        if not first:
            known["max_slices"] = slices_to_see(
                learning.slices_seen(run),
                known["allotted"] - known["used"] if self.another_command() else seconds,
                rate=known["rate"],
                validation=known["validation"] or 0.0,
                per_pass=per_pass,
                batch_size=batch_size,
                most=None if recipe == "ours" else data["model"]["max_slices"],
            )
            values["model.max_slices"] = known["max_slices"]
            self.say(
                f"{known['max_slices']:,} slices to see: {known['rate']:.4g} slices/s, a validation takes "
                f"{known['validation'] or 0.0:.3g} s, {known['allotted'] - known['used']:.0f} s are left to it"
            )
        self.save()
        words = ["--config", str(config), *(f"--{name}={value}" for name, value in values.items())]
        began = now()
        pace = learning.Pace()
        try:
            pace = self.signals.train(words, run, seconds=seconds, first_validation=first)
        finally:
            known["used"] += now() - began
            known.setdefault("start_seconds", []).append(pace.start)
            known["rate"] = pace.rate or known.get("rate")
            known["validation"] = pace.validation or known.get("validation")
            self.save()

    def simulations_left(self) -> float:
        """Return the seconds of simulations that are still to run."""
        total = self.state["plan"]["training"] + self.state["plan"]["test"]
        waiting = [box for box in self.boxes if not self.slices(box, "test").exists()]
        return sum(total * self.state["plan"]["seconds_per_simulation"][box] for box in waiting)

    # Emulators and scores.

    def emulator(self, box: str, recipe: str) -> Path:
        """Return the file of an emulator; the name says the recipe where it is not ours."""
        return self.work / (f"{box}.safetensors" if recipe == "ours" else f"{box}-{recipe}.safetensors")

    def mocks(self, box: str, recipe: str) -> Path:
        """Return the file of its mocks."""
        return self.work / f"{box}-{recipe}-mocks.h5"

    def export(self, found: dict[str, Any], box: str, recipe: str) -> None:
        """Write the emulator, ours refitted."""
        refit = recipe == "ours"
        path = self.emulator(box, recipe)
        found |= judging.export_emulator(self.work / f"{box}-{recipe}", path, refit=refit, device=self.device)

    def generate(self, found: dict[str, Any], box: str, recipe: str) -> None:
        """Write the mocks and measure how fast they are made."""
        path, n = self.emulator(box, recipe), self.arguments.mocks
        found["sampling"] = judging.sampling(path, self.device, n=min(n, 1024))
        began = time.perf_counter()
        generate(str(path), n=n, out=str(self.mocks(box, recipe)), device=str(self.device), overwrite=True)
        found["slices_per_second_to_file"] = n / (time.perf_counter() - began)

    def name(self, box: str) -> str:
        """Return the name that the scoreboard has for the case."""
        return f"{box}-{self.geometry.pixels}"

    def record_file(self, box: str) -> Path:
        """Return the file of the scores."""
        return self.work / f"{self.name(box)}.json"

    def statistics(self, found: dict[str, Any], box: str) -> None:
        """Measure all recipes side by side, against the training mean and against the test."""
        needed = self.state.get("statistics_seconds", SCORING_SHARE * self.clock.budget / 2 / len(self.boxes))
        self._require(needed)
        began = time.perf_counter()
        record = judging.record_statistics(
            self.name(box),
            {recipe: self.emulator(box, recipe) for recipe in self.recipes},
            {recipe: self.mocks(box, recipe) for recipe in self.recipes},
            training=self.slices(box, "training"),
            test=self.slices(box, "test"),
            bootstrap=20 if self.arguments.rehearse or self.arguments.geometry == "toy" else 200,
            device=self.device,
            command=command(),
            figure=self.work / f"{box}.png",
        )
        judging.write_json(self.record_file(box), record)
        self.state["statistics_seconds"] = found["measuring_seconds"] = time.perf_counter() - began

    def two_sample(self, box: str) -> None:
        """Let a network tell mocks from simulations, as far as time allows."""
        record = json.loads(self.record_file(box).read_text(encoding="utf-8"))
        sources = {recipe: self.mocks(box, recipe) for recipe in self.recipes}
        for name, path in (sources | {judging.SIMULATIONS: self.slices(box, "training")}).items():
            key = f"two-sample {box} {name}"
            if key in self.state["done"]:
                continue
            needed = self.state.get("two_sample_seconds", _TWO_SAMPLE)
            self._require(needed)
            if self.clock.left < needed and self.arguments.rehearse:
                return
            if self.clock.left < needed:
                self.say(f"{key}: left out, there is no time for it; a larger --minutes goes on here")
                raise OutOfTime
            with self.stage(key):
                judging.add_two_sample(record, name, path, self.slices(box, "test"), device=self.device)
                judging.write_json(self.record_file(box), record)
            self.state["two_sample_seconds"] = self.state["done"][key]["seconds"]

    def another_command(self) -> bool:
        """Say whether the budget goes beyond this command."""
        return self.clock.left - self.clock.left_now > _END

    def _require(self, seconds: float) -> None:
        """Leave to the next command what does not fit into this one, if there is time for a next one."""
        if self.clock.left_now - _END < seconds and self.another_command():
            raise OutOfTime

    def collect(self) -> None:
        """Leave what there is in the folder of results: weights, JSON, figures; written anew each time."""
        self.out.mkdir(parents=True, exist_ok=True)
        records, left_out = [], {}
        for box in self.boxes:
            for path in [*(self.emulator(box, recipe) for recipe in self.recipes), self.work / f"{box}.png"]:
                if path.exists() and path.suffix == ".safetensors" and path.stat().st_size > LARGEST_WEIGHTS:
                    left_out[path.name] = f"{path.stat().st_size / 1e6:.1f} MB, more than {LARGEST_WEIGHTS / 1e6:g}"
                elif path.exists():
                    shutil.copyfile(path, self.out / path.name)
            if self.record_file(box).exists():
                records.append(json.loads(self.record_file(box).read_text(encoding="utf-8")))
                shutil.copyfile(self.record_file(box), self.out / self.record_file(box).name)
        if records:
            (self.out / "scoreboard.md").write_text(scoreboard_page.render(records), encoding="utf-8")
        place = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else platform.machine()
        about = {"command": command(), "machine": place, "torch": str(torch.__version__), "left_out": left_out}
        judging.write_json(self.out / "results.json", about | {"geometry": asdict(self.geometry)} | self.state)


def command() -> str:
    """Return the command line without places of this machine."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return "python benchmarks/emulators/reference/run.py " + shlex.join(words)


def parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="wall-clock budget of all commands together; 28, 3 to rehearse")
    parser.add_argument("--this-command", type=float, metavar="MINUTES", help="of these, at most this many now")
    parser.add_argument("--boxes", nargs="+", default=list(BOXES), choices=list(BOXES), metavar="BOX")
    parser.add_argument("--recipe", choices=[*RECIPES, "both"], default="both")
    parser.add_argument("--geometry", choices=list(GEOMETRIES), default="gpu", help="see README.md")
    parser.add_argument("--toy", dest="geometry", action="store_const", const="toy", help="the same as --geometry toy")
    parser.add_argument(
        "--rehearse", action="store_true", help="all stages with the least that works, to look at speeds"
    )
    parser.add_argument(
        "--realisations", nargs=2, type=int, metavar=("TRAINING", "TEST"), help="of each box, not those of the geometry"
    )
    parser.add_argument("--cubes", action="store_true", help="keep particles per voxel in --work, too, 34 MB a cube")
    parser.add_argument(
        "--unscored", action="store_true", help="end with emulators: mocks and scores are made elsewhere, of the cubes"
    )
    parser.add_argument("--mocks", type=int, help="of each emulator; 5000, 300 to rehearse or as a toy")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--work", type=Path, default=Path("runs/reference"), help="folder of everything, to go on from")
    parser.add_argument("--out", type=Path, default=Path("runs/reference-results"), help="weights, JSON and figures")
    arguments = parser.parse_args(words)
    small = arguments.rehearse or arguments.geometry == "toy"
    arguments.minutes = (3.0 if small else 28.0) if arguments.minutes is None else arguments.minutes
    arguments.mocks = (300 if small else 5000) if arguments.mocks is None else arguments.mocks
    arguments.limit = None if arguments.this_command is None else 60 * arguments.this_command
    for name, least in (("minutes", 0.0), ("this_command", 0.0), ("mocks", 1)):
        value = getattr(arguments, name)
        if value is not None and not value > least:
            raise UserError(f"--{name.replace('_', '-')}: expected more than {least:g}, found {value:g}")
    least = [LEAST_TRAINING, LEAST_TEST]
    if arguments.realisations and any(n < m for n, m in zip(arguments.realisations, least, strict=True)):
        found = " ".join(map(str, arguments.realisations))
        raise UserError(f"--realisations {found}: expected at least {least[0]} to train and {least[1]} to test")
    if len(set(arguments.boxes)) < len(arguments.boxes):
        raise UserError(f"--boxes: {' '.join(arguments.boxes)} names a box twice")
    if arguments.work.resolve() == arguments.out.resolve():
        raise UserError(f"--out {arguments.out}: is --work, too; give results a folder of their own")
    return arguments


def main(words: list[str] | None = None) -> int:
    try:
        reference = Reference(parse(words))
        try:
            reference.run()
        finally:
            reference.save()
            reference.collect()
    except UserError as error:
        print(f"run: {error}", file=sys.stderr)
        return 2
    except OutOfTime:
        reference.say(f"out of time; the same command goes on here (results so far: {reference.out})")
        return 3
    reference.say(f"all done: {reference.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
