"""Checkpoint to emulator file, and emulator to ONNX."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from cosmogan.emulator import Emulator
from cosmogan.errors import UserError


def export_checkpoint(checkpoint: str, *, out: str, overwrite: bool = False) -> Path:
    """Turn a checkpoint of `cosmogan fit` into an emulator file.

    The averaged generator, the fitted transform and the metadata go into one safetensors file. The checkpoint is read
    without running any code it may hold.

    Parameters
    ----------
    checkpoint
        A ``.ckpt`` file.
    out
        Emulator file to write, ending in ``.safetensors``.
    overwrite
        Replace an existing file.

    Returns
    -------
        The file written.

    Raises
    ------
    UserError
        If the checkpoint is missing, damaged or of something else.
    """
    path = Path(checkpoint)
    content = load_checkpoint(path)
    record = json.loads(content["cosmogan"])
    weights = content["state_dict"]
    tensors = {
        key.replace("average.", "generator.", 1): value
        for key, value in weights.items()
        if key.startswith(("average.", "transform."))
    }
    try:
        emulator = Emulator.from_record(record, tensors)
    except (KeyError, RuntimeError, TypeError) as error:
        raise UserError(f"{path}: weights and record of the checkpoint do not fit ({error})") from None
    emulator.save(out, overwrite=overwrite)
    return Path(out)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of `cosmogan fit` without unpickling anything but tensors and plain values.

    Raises
    ------
    UserError
        If the file is missing, damaged, unsafe or of something else.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    # torch raises many kinds of errors for files that are not its own.
    try:
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        raise UserError(
            f"{path}: is not a checkpoint of `cosmogan fit`, is damaged, or holds code, which is never run"
        ) from None
    if not isinstance(content, dict) or "cosmogan" not in content or "state_dict" not in content:
        raise UserError(f"{path}: is a checkpoint of another program; expected one written by `cosmogan fit`")
    return content
