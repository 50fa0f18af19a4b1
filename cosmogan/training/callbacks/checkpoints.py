"""Which checkpoints are kept: the best one by score, and some more of the best."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from cosmogan.training.gan import CosmoGAN


class BestCheckpoints(ModelCheckpoint):
    """Keep the checkpoints with the best scores.

    Parameters
    ----------
    folder
        Folder that they lie in.
    keep
        Number to keep.
    name
        Name of the file, if there is one only; by default each is named by the slices seen and its score.
    """

    def __init__(self, folder: str | Path, *, keep: int = 1, name: str | None = None) -> None:
        super().__init__(
            dirpath=folder,
            filename=name,
            monitor="score",
            mode="min",
            save_top_k=keep,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
            auto_insert_metric_name=False,
        )
        self._name = name

    @property
    def state_key(self) -> str:
        """Tell the states of several of these in one checkpoint apart."""
        return f"{super().state_key} {self._name or 'several'}"

    def check_monitor_top_k(self, trainer: L.Trainer, current: Tensor | None = None) -> bool:
        """Return whether the score is among the best; one that is not a number never is."""
        if current is None or not torch.isfinite(current):
            return False
        return super().check_monitor_top_k(trainer, current)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, and remove what is no longer among the best."""
        assert isinstance(pl_module, CosmoGAN)
        if self._name is None:
            self.filename = f"slices_{pl_module.n_slices_seen:09d}_score_{{score:.4f}}"
        super().on_validation_end(trainer, pl_module)
