"""What is done of a reference run, in how many seconds and how much memory: a file to go on from."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import judging
import torch
from budget import Clock

from cosmogan.errors import UserError


class Journal:
    """Stages that are done, and the time.

    Parameters
    ----------
    work
        Folder of the file.
    settings
        What a run that goes on must not change.
    device
        Whose memory is watched.
    budget, limit
        Seconds of all commands together, and of this one.

    Raises
    ------
    UserError
        If the file is damaged or of other settings.
    """

    def __init__(
        self, work: Path, settings: dict[str, Any], *, device: torch.device, budget: float, limit: float | None
    ) -> None:
        self.work, self.device, self.state_file = work, device, work / "state.json"
        self.state = self._load(settings)
        self.clock = Clock(budget, used=self.state["used_seconds"], limit=limit)

    def _load(self, settings: dict[str, Any]) -> dict[str, Any]:
        if not self.state_file.exists():
            return {"settings": settings, "used_seconds": 0.0, "done": {}, "simulation": {}, "trainings": {}}
        try:
            state: dict[str, Any] = json.loads(self.state_file.read_text(encoding="utf-8"))
        except json.JSONDecodeError:
            raise UserError(f"{self.state_file}: is damaged; remove {self.work} and start over") from None
        for name, value in settings.items():
            if state["settings"][name] != value:
                raise UserError(
                    f"{self.state_file}: was begun with {name} {state['settings'][name]}, not {value}; go on with the "
                    "same settings or in another --work"
                )
        return state

    def save(self) -> None:
        """Write down what is done."""
        self.state["used_seconds"] = self.clock.used
        self.work.mkdir(parents=True, exist_ok=True)
        judging.write_json(self.state_file, self.state)

    def say(self, text: str) -> None:
        """Tell the log, with the time."""
        print(f"[{self.clock.used / 60:5.1f} of {self.clock.budget / 60:g} min] {text}", flush=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        """Note seconds and peak memory of a stage, and that it is done."""
        self.say(name)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        began, found = time.perf_counter(), {}
        yield found
        found |= {"seconds": time.perf_counter() - began} | self.memory()
        self.state["done"][name] = found
        self.save()

    def memory(self) -> dict[str, float]:
        """Return peaks: of the GPU since the stage began, of the host since the command began."""
        # ru_maxrss is in kB on Linux.
        found = {"host_peak_GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}
        if self.device.type == "cuda":
            found["gpu_peak_GB"] = torch.cuda.max_memory_allocated(self.device) / 1e9
        return found

    def once(self, name: str, work: Callable[[dict[str, Any]], None]) -> None:
        """Do a stage unless it is done."""
        if name not in self.state["done"]:
            with self.stage(name) as found:
                work(found)
