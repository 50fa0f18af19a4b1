"""A training within a number of seconds, in this process, and what it costs."""

from __future__ import annotations

import csv
import gc
import importlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import budget
import torch
import yaml
from lightning.pytorch.utilities.exceptions import SIGTERMException

from cosmogan.emulator.export import load_checkpoint
from cosmogan.networks.cost import count_cost
from cosmogan.training.fit import fit

# Seconds between two looks at the clock, and between two signals to a training that has not ended yet.
_LOOK, _REPEAT = 0.2, 2.0
_MATRIX = {"cuda": 8192, "cpu": 1024}


@dataclass
class Pace:
    """What the rows of ``metrics.csv`` say, by the time at which they came.

    Parameters
    ----------
    rows
        Seconds, slices seen, and whether the row is a validation's.
    began
        Seconds at which the call began.
    """

    rows: list[tuple[float, int, bool]] = field(default_factory=list)
    began: float = 0.0

    @property
    def start(self) -> float | None:
        """Seconds up to the first row: imports, the fit of prior and transform, the first steps."""
        return self.rows[0][0] - self.began if self.rows else None

    @property
    def rate(self) -> float | None:
        """Slices per second between validations; None where there are too few rows."""
        steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(self.rows) if not (a[2] or b[2])]
        # What came first paid for plans and fresh memory.
        steps = steps[1:] if len(steps) > 2 else steps
        seconds, slices = (sum(column) for column in zip(*steps, strict=True)) if steps else (0.0, 0)
        return slices / seconds if seconds > 0 and slices > 0 else None

    @property
    def validation(self) -> float | None:
        """Seconds of a validation; None where there was none."""
        rate = self.rate
        if rate is None:
            return None
        found = [b[0] - a[0] - (b[1] - a[1]) / rate for a, b in pairwise(self.rows) if b[2] and not a[2]]
        return max(0.0, sum(found) / len(found)) if found else None


class Watch(threading.Thread):
    """Looks at a training from outside and ends it by SIGTERM, behind a whole step and with a checkpoint.

    Parameters
    ----------
    metrics
        ``metrics.csv`` of the run.
    seconds
        After which it ends, behind the first row of its metrics.
    first_validation
        Whether it ends behind its first validation, too.
    """

    def __init__(self, metrics: Path, seconds: float, *, first_validation: bool) -> None:
        super().__init__(daemon=True)
        self.metrics, self.first_validation = metrics, first_validation
        self.pace, self.sent = Pace(began=budget.now()), False
        self._deadline, self._over = self.pace.began + seconds, threading.Event()
        self._former = _last_row(metrics)

    def run(self) -> None:
        """Look and signal until `stop`."""
        while not self._over.wait(_LOOK):
            row = _last_row(self.metrics)
            if row != self._former and row is not None:
                self._former = row
                self.pace.rows.append((budget.now(), *row))
            validated = self.first_validation and any(scored for _, _, scored in self.pace.rows)
            over = validated or budget.now() >= self._deadline
            # Without a row it may be setting up: it would end without a checkpoint, and be begun again for ever.
            if over and self.pace.rows and not self._over.is_set():
                self.sent = True
                os.kill(os.getpid(), signal.SIGTERM)
                self._over.wait(_REPEAT)

    def stop(self) -> None:
        """Send no more signals, and wait for the last one."""
        self._over.set()
        self.join()


def _last_row(path: Path) -> tuple[int, bool] | None:
    """Return slices seen and whether it is a validation's row, of the last row that is whole."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return None
    rows = list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))
    if not rows or not (rows[-1].get("step") or "").isdigit():
        return None
    return int(rows[-1]["step"]), bool(rows[-1].get("score"))


class Signals:
    """The process's answer to SIGTERM: to end with code 143, unless a `Watch` has sent it to end a training.

    One of another sender is overheard while a training is ending because of a watch: some seconds at most.
    """

    def __init__(self) -> None:
        self.watch: Watch | None = None
        self._heard = False
        signal.signal(signal.SIGTERM, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.watch is None or not self.watch.sent:
            self._heard = True
            raise SystemExit(128 + signal.SIGTERM)

    def train(self, words: Sequence[str], out: Path, *, seconds: float, first_validation: bool) -> Pace:
        """Train by `cosmogan fit` until it is complete or its time is over; return how fast it went.

        Raises
        ------
        SystemExit
            If somebody else ends it; its checkpoint is there, too.
        """
        self.watch = Watch(out / "metrics.csv", seconds, first_validation=first_validation)
        self.watch.start()
        try:
            fit([*words, "--out", str(out), "--resume"])
        except SystemExit:
            if not self.watch.sent:
                raise
        except KeyboardInterrupt as interrupt:
            # What `fit` makes of SIGTERM while it is setting up, and of Ctrl-C.
            if not (self._heard or isinstance(interrupt.__context__, SIGTERMException)):
                raise
            raise SystemExit(128 + signal.SIGTERM) from None
        finally:
            self.watch.stop()
            pace, self.watch = self.watch.pace, None
            release_memory()
        return pace


def release_memory() -> None:
    """Give back what nobody needs: Lightning's objects refer to each other, and torch keeps what it has had."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def slices_seen(out: Path) -> int:
    """Return the slices that the last checkpoint of a run has seen, 0 without one."""
    path = out / "last.ckpt"
    if not path.exists():
        return 0
    return int(json.loads(load_checkpoint(path)["cosmogan"])["training"]["n_slices_seen"])


def operations_per_slice(out: Path, n_pixels: int) -> dict[str, float]:
    """Return floating-point operations per slice seen in training and per mock, of the networks of a run.

    A slice seen takes a critic step; a generator step, a penalty are shared out among the critic steps between them.
    """
    recipe = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))["model"]
    built = [
        _class(recipe[name])(**(recipe[name].get("init_args") or {}) | {"n_pixels": n_pixels})
        for name in ("generator", "critic")
    ]
    cost = count_cost(*built)
    per_slice = cost.critic_step + cost.generator_step / recipe["n_critic_steps"]
    if recipe["penalty"] is not None:
        settings = recipe["penalty"].get("init_args") or {}
        kinds = 2 if settings.get("on") == "both" else 1
        per_slice += kinds * cost.penalty / settings.get("every", 1)
    return {"training": per_slice, "mock": cost.generator, "parameters": cost.generator_parameters}


def _class(entry: dict[str, Any]) -> type:
    module, _, name = entry["class_path"].rpartition(".")
    found: type = getattr(importlib.import_module(module), name)
    return found


def matrix_ceiling(device: torch.device, *, repeats: int = 10) -> dict[str, float]:
    """Return the operations per second of large matrix products of random numbers, by type of number."""
    side = _MATRIX[device.type]
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        found[str(dtype).removeprefix("torch.")] = 2 * side**3 / _fastest(lambda a=left, b=right: a @ b, repeats)
    return found


def _fastest(work: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    # The first one plans and allocates.
    return min(seconds[1:])
