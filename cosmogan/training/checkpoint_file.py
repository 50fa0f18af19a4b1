"""How checkpoints reach the disk: whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from cosmogan.files import replaced


class CheckpointFile(TorchCheckpointIO):
    """Write a checkpoint beside its place, and move it there in one step once it is on the disk.

    Lightning writes into the folder for temporary files first. Where that is another file system, as on most clusters,
    what follows is a copy, and a process that is killed while copying leaves half a checkpoint in place of a good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; whatever interrupts this, the file at ``path`` is the former or the new one."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # By way of memory: only then does a full disk raise an OSError that says so.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with replaced(path, durable=True) as beside:
            beside.write_bytes(content.getbuffer())
