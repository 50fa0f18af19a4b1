"""What a run of `cosmogan fit` would do and cost: printed before anything is written, after one step of each kind."""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch import Tensor

from cosmogan.emulator.card import stage_text
from cosmogan.networks.cost import count_cost
from cosmogan.text import binary_bytes, duration, ranges
from cosmogan.training.callbacks.alarms import Alarms
from cosmogan.training.callbacks.progress import SliceProgress
from cosmogan.training.checkpoint_file import CheckpointFile
from cosmogan.training.data import SliceDataModule
from cosmogan.training.gan import CosmoGAN
from cosmogan.training.log import MetricsFile

# Each kind of step is taken once to warm up (allocators, compilers), then this many times to be measured.
_REPEATS = 2


def dry_run(module: CosmoGAN, data: SliceDataModule, trainer: L.Trainer, *, n_processes: int) -> str:
    """Try one step of each kind, one validation and one checkpoint in a temporary folder; return what was found.

    Parameters
    ----------
    module, data, trainer
        Parts of the run to be tried; the trainer itself is not used up.
    n_processes
        Processes of the run. The trial is one process on one device.

    Returns
    -------
        Lines of text: networks, memory, split of the data, steps, time, precision, devices.
    """
    out = Path(trainer.default_root_dir)
    plan = Plan(module, data, n_processes=n_processes, max_passes=trainer.max_epochs)
    trial = Trial(plan)
    slices_per_epoch, max_slices, n_slices = (
        data.slices_per_epoch,
        module.max_slices,
        len(trial.steps) * data.batch_size,
    )
    # One pass of these steps, however short the run itself is.
    data.slices_per_epoch, module.max_slices = n_slices, max(max_slices, n_slices)
    with tempfile.TemporaryDirectory(prefix="cosmogan-dry-run-") as folder:
        left_out = (Checkpoint, SaveConfigCallback, SliceProgress, Alarms, Announcement)
        callbacks = [c for c in trainer.callbacks if not isinstance(c, left_out)]  # type: ignore[attr-defined]
        L.Trainer(
            accelerator=trainer.accelerator,
            devices=1,
            precision=trainer.precision,
            max_epochs=1,
            num_sanity_val_steps=0,
            limit_train_batches=len(trial.steps),
            log_every_n_steps=1,
            default_root_dir=folder,
            logger=[MetricsFile(folder), TensorBoardLogger(folder, name="", version="")],
            callbacks=[*callbacks, trial, ModelCheckpoint(dirpath=folder, save_on_train_epoch_end=False)],
            # Not what a cluster says about ranks: the trial is alone.
            plugins=[LightningEnvironment(), CheckpointFile()],
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(module, datamodule=data)
    data.slices_per_epoch, module.max_slices = slices_per_epoch, max_slices
    used = out.exists() and any(out.iterdir())
    sections = {
        "networks": count_cost(module.generator, module.critic).lines(),
        "memory": trial.memory(data),
        "data": plan.split(),
        "steps": plan.steps(),
        "time": trial.time(),
        "precision": [str(trainer.precision)],
        "devices": [
            f"{n_processes} x {module.device.type}"
            + ("" if n_processes == 1 else "; the trial ran on one of them, communication comes on top")
        ],
        "run folder": [f"{out}" + (" (in use: add --resume or --overwrite)" if used else "")],
    }
    return columns(sections)


def columns(sections: Mapping[str, Sequence[str]]) -> str:
    """Return named lines, the name before the first of them only.

    >>> print(columns({"steps": ["10 of 16 slices", "2 validations"]}))
    steps       10 of 16 slices
                2 validations
    """
    rows = [(name if line is lines[0] else "", line) for name, lines in sections.items() for line in lines]
    return "\n".join(f"{name:12s}{line}" for name, line in rows)


class Plan:
    """Steps and slices of a run, from its settings alone.

    Parameters
    ----------
    module, data
        Parts of the run.
    n_processes
        Processes that share each step.
    max_passes
        Passes of ``data.slices_per_epoch`` slices, each ended by a validation, after which the run ends if it has not
        seen ``model.max_slices`` before; no such end if None or -1.
    """

    def __init__(
        self, module: CosmoGAN, data: SliceDataModule, *, n_processes: int, max_passes: int | None = None
    ) -> None:
        self._module, self._data, self._n_processes = module, data, n_processes
        self._batch = data.batch_size * n_processes
        self.n_steps = math.ceil(module.max_slices / self._batch)
        self._between = max(1, math.ceil(data.slices_per_epoch / self._batch))
        if max_passes is not None and max_passes >= 0:
            self.n_steps = min(self.n_steps, max_passes * self._between)
        self.n_validations = math.ceil(self.n_steps / self._between)
        self._every = 1 if module.penalty is None else module.penalty.every
        # Kinds of steps repeat after so many.
        self.period = math.lcm(self._every, module.n_critic_steps)

    def kind(self, step: int) -> str:
        """Return what happens at a step."""
        penalised = self._module.penalty is not None and step % self._every == 0
        generates = (step + 1) % self._module.n_critic_steps == 0
        return "critic" + " with penalty" * penalised + " and generator" * generates

    def split(self) -> list[str]:
        """Return lines on the data."""
        data = self._data
        box = f"{data.n_pixels} x {data.n_pixels} pixels, {data.metadata.box_size:g} Mpc/h"
        passes = self.n_steps * self._batch / data.n_training
        return [
            f"{data.path}: {box}",
            f"train      {data.n_training:7,} slices of realisations {ranges(data.training_realisations)}; "
            f"each is seen {passes:.3g} times",
            f"validate   {len(data.validation):7,} slices of realisations {ranges(data.validation_realisations)}",
        ]

    def steps(self) -> list[str]:
        """Return lines on the steps."""
        each = f"{self._data.batch_size} slices"
        if self._n_processes > 1:
            each += f" in each of {self._n_processes} processes"
        kinds = Counter(self.kind(step) for step in range(self.period))
        shares = "; ".join(f"{count} in {self.period}: {kind}" for kind, count in kinds.items())
        return [
            f"{self.n_steps:,} of {each}: {self.n_steps * self._batch:,} slices seen",
            shares,
            f"{self.n_validations:,} validations, one every {self._between:,} steps",
        ]


class Announcement(L.Callback):
    """Say before the first step, on standard error, what the run is: one block of plain lines."""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Print in the first process."""
        assert isinstance(module, CosmoGAN)
        if not trainer.is_global_zero:
            return
        data, passes = trainer.datamodule, trainer.max_epochs  # type: ignore[attr-defined]
        plan = Plan(module, data, n_processes=trainer.world_size, max_passes=passes)
        sections = {
            "networks": count_cost(module.generator, module.critic).lines(),
            "data": plan.split(),
            "steps": plan.steps(),
            "precision": [str(trainer.precision)],
            "devices": [f"{trainer.world_size} x {module.device.type}"],
        }
        if module.n_slices_seen:
            changed = [stage_text(one) for one in module.stages if one["until"] == module.n_slices_seen]
            sections["resuming"] = [f"after {module.n_slices_seen:,} slices", *changed]
        print(columns(sections), file=sys.stderr, flush=True)


class Trial(L.Callback):
    """Take a step of each kind, and measure time and memory.

    Parameters
    ----------
    plan
        Plan of the run that is tried.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        kinds = {plan.kind(step): step for step in reversed(range(plan.period))}
        self.steps = list(kinds.values()) * (1 + _REPEATS)
        self._seconds: dict[str, list[float]] = {}
        self._marks: dict[str, float] = {"start": time.perf_counter()}
        self._bytes: dict[str, int] = {}

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Note memory at rest."""
        self._marks["ready"] = time.perf_counter()
        self._bytes["rest"] = _reset_peak(module.device)

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        """Make this step one of its kind."""
        assert isinstance(module, CosmoGAN)
        module.n_steps = self.steps[batch_idx]
        _synchronise(module.device)
        self._marks["step"] = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure the step."""
        _synchronise(module.device)
        seconds = time.perf_counter() - self._marks["step"]
        self._seconds.setdefault(self.plan.kind(self.steps[batch_idx]), []).append(seconds)
        self._bytes["peak"] = _peak(module.device)

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Note when validation begins."""
        self._marks["validation"] = time.perf_counter()

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Note sizes, and when validation and checkpoint were done."""
        self._marks["end"] = time.perf_counter()
        self._bytes["validation"] = _peak(module.device)
        self._bytes["networks"] = _size([*module.parameters(), *module.buffers()])
        states = [value for o in trainer.optimizers for state in o.state.values() for value in state.values()]
        self._bytes["optimisers"] = _size(value for value in states if isinstance(value, Tensor))
        self._device = module.device

    def memory(self, data: SliceDataModule) -> list[str]:
        """Return lines on memory."""
        found = {name: binary_bytes(value) for name, value in self._bytes.items()}
        of = "process" if self._device.type == "cpu" else "device"
        steps = binary_bytes(max(0, self._bytes["peak"] - self._bytes["rest"]))
        return [
            f"networks and buffers {found['networks']}, optimisers {found['optimisers']}",
            f"{of} before the first step {found['rest']}, peak of the steps {found['peak']} "
            f"(gradients, optimisers and activations {steps}), peak with validation {found['validation']}",
        ]

    def time(self) -> list[str]:
        """Return lines on time."""
        measured = {kind: min(seconds[1:]) for kind, seconds in self._seconds.items()}
        mean = sum(measured[self.plan.kind(step)] for step in range(self.plan.period)) / self.plan.period
        validation = self._marks["end"] - self._marks["validation"]
        ready = self._marks["ready"] - self._marks["start"]
        total = ready + self.plan.n_steps * mean + self.plan.n_validations * validation
        steps = ", ".join(f"{kind} {duration(seconds)}" for kind, seconds in measured.items())
        return [
            f"about {duration(total)} in all: {self.plan.n_steps:,} steps of {duration(mean)} on average, "
            f"{self.plan.n_validations:,} validations with checkpoint of {duration(validation)}, "
            f"start {duration(ready)}",
            f"steps: {steps}",
        ]


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: torch.device) -> int:
    """Begin to measure the peak; return what is in use now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    # Linux forgets the high-water mark of a process that writes this; elsewhere the mark is that of the whole trial.
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return _resident("VmRSS")


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return _resident("VmHWM")


def _resident(name: str) -> int:
    """Return a number of this process from the kernel, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        import resource

        # In bytes on macOS.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
