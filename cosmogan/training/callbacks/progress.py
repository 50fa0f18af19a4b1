"""Progress in slices seen: a bar in a terminal, a line per validation in a log file."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Any

import lightning as L
from tqdm import tqdm

from cosmogan.training.gan import CosmoGAN


class SliceProgress(L.Callback):
    """Show slices seen, slices per second, time left, and the latest error of P(k) and score, on standard error.

    Where that is no terminal, such as the log of a batch job, a bar would write thousands of lines into one: there is
    one plain line per validation instead.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._start = (0.0, 0)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Open the bar, start the clock."""
        assert isinstance(module, CosmoGAN)
        self._start = (time.monotonic(), module.n_slices_seen)
        if trainer.is_global_zero and sys.stderr.isatty():
            self._bar = tqdm(
                total=module.max_slices, initial=module.n_slices_seen, unit="slice", desc="fit", mininterval=1.0
            )

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        assert isinstance(module, CosmoGAN)
        if self._bar is not None:
            self._bar.update(module.n_slices_seen - self._bar.n)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Show how good mocks are against held-out slices."""
        assert isinstance(module, CosmoGAN)
        error, score = (trainer.callback_metrics.get(name) for name in ("power_spectrum_error", "score"))
        if trainer.sanity_checking or not trainer.is_global_zero or error is None or score is None:
            return
        text = f"P(k) off by {100 * float(error):.1f}%, score {float(score):.2f}"
        if self._bar is not None:
            self._bar.set_postfix_str(text)
            return
        seen, (start, former) = module.n_slices_seen, self._start
        rate = (seen - former) / (time.monotonic() - start)
        left = timedelta(seconds=round((module.max_slices - seen) / rate)) if rate > 0 else "unknown"
        text = f"{seen:,} of {module.max_slices:,} slices, {rate:.3g} slices/s, time left {left}; {text}"
        print(text, file=sys.stderr, flush=True)

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
