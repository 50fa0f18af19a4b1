"""Signals during training: the run ends after its current step, with a checkpoint, and goes back to SLURM's queue."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from cosmogan.training.gan import CosmoGAN
from cosmogan.training.run_folder import LAST

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# Steps between two questions to the other processes whether they heard a signal; each question waits for the device.
_QUESTION = 10


class Interrupted(SystemExit):
    """The run has ended because of a signal; its checkpoint is written."""


class Unstarted(Interrupted):
    """The run has ended before its first step; there was nothing to save."""


@contextmanager
def ended_by_signals(*, is_first: bool) -> Iterator[None]:
    """End what happens before the first step at once when a signal comes, and say so.

    `Interruption` takes over at the first step.

    Parameters
    ----------
    is_first
        Whether this is the process that speaks, and puts a job back into SLURM's queue after SIGUSR1.

    Raises
    ------
    Unstarted
        With code 128 plus the number of the signal.
    """

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise Unstarted(128 + number)

    former = {number: signal.signal(number, end) for number in _SIGNALS}
    try:
        yield
    except Unstarted as ended:
        if is_first:
            print("cosmogan fit: interrupted; run the same command again to continue or start over", file=sys.stderr)
            if ended.code == 128 + signal.SIGUSR1 and "SLURM_JOB_ID" in os.environ:
                print(f"cosmogan fit: {_requeue()}", file=sys.stderr)
        raise
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


class Interruption(Checkpoint):
    """End a run after the current step when SIGTERM, SIGINT or SIGUSR1 comes, with everything in ``last.ckpt``.

    Lightning's own handler writes a checkpoint wherever the signal strikes, which may be between the critic's and the
    generator's step: a run that continues from there is not the uninterrupted one. SIGUSR1, by which SLURM announces
    the time limit (``--signal=SIGUSR1@90``), also puts the job back into the queue.

    A subclass of `Checkpoint`, because Lightning calls these after all other callbacks.
    """

    def __init__(self) -> None:
        self._heard: signal.Signals | None = None
        self.stops = False

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Listen from now on; Lightning puts the former handlers back when the run ends."""
        for number in _SIGNALS:
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._heard = signal.Signals(number)
        # Whoever presses Ctrl-C twice does not want to wait.
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the checkpoint, once any process has heard a signal."""
        assert isinstance(module, CosmoGAN)
        if not self._any_heard(trainer, module.n_steps) or module.n_slices_seen >= module.max_slices:
            return
        # Behind the last step of a pass comes a validation, which writes the same file.
        if not trainer.is_last_batch:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / LAST)
        self.stops = True

    def _any_heard(self, trainer: L.Trainer, n_steps: int) -> bool:
        heard = self._heard is not None
        if trainer.world_size == 1:
            return heard
        return n_steps % _QUESTION == 0 and trainer.strategy.reduce_boolean_decision(heard, all=False)

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        """End the run.

        Not in `on_train_batch_end`, because the last step is logged after it.
        """
        if self.stops:
            # Processes that others have started end with 0: their launcher kills the first one for any other code.
            raise Interrupted(128 + (self._heard or signal.SIGTERM) if trainer.is_global_zero else 0)

    def report(self, module: CosmoGAN, out: Path) -> None:
        """Say what happened, and put the job back into the queue after SIGUSR1; in the first process."""
        name = "a signal to another process" if self._heard is None else self._heard.name
        print(
            f"cosmogan fit: stopped by {name} after {module.n_slices_seen} of {module.max_slices} slices; "
            f"continue with the same command and --resume ({out / LAST})",
            file=sys.stderr,
        )
        if self._heard == signal.SIGUSR1 and "SLURM_JOB_ID" in os.environ:
            print(f"cosmogan fit: {_requeue()}", file=sys.stderr)


def _requeue() -> str:
    """Put this job of SLURM back into the queue; return what to tell."""
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        result = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"job {job} could not be put back into the queue ({error}); submit it again"
    if result.returncode:
        return f"job {job} could not be put back into the queue ({result.stderr.strip()}); submit it again"
    return f"job {job} is back in the queue"
