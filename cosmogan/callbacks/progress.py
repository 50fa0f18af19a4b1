"""Progress bar in slices seen."""

from __future__ import annotations

from typing import Any

import lightning as L
from tqdm import tqdm

from cosmogan.gan import CosmoGAN


class SliceProgress(L.Callback):
    """Show slices seen, slices per second, time left and the latest error of P(k)."""

    def __init__(self) -> None:
        self._bar: Any = None

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Open the bar."""
        assert isinstance(module, CosmoGAN)
        if trainer.is_global_zero:
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
        """Show the error of P(k) against held-out slices."""
        error = trainer.callback_metrics.get("power_spectrum_error")
        if self._bar is not None and error is not None:
            self._bar.set_postfix_str(f"P(k) off by {100 * float(error):.1f}%")

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
