"""Checkpoint to emulator file, and emulator to ONNX."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from cosmogan.emulator.emulator import Emulator
from cosmogan.emulator.file import SUFFIX, shipped_emulators
from cosmogan.emulator.starts import BoxStarts, box_seed, make_boxes
from cosmogan.errors import UserError
from cosmogan.networks.gravity_start import GravityStartGenerator
from cosmogan.slices import require_absent

# Far from the seeds that people use.
_REFIT_SEED = 2**31 - 3


def export(
    checkpoint: str,
    *,
    out: str | None = None,
    refit: bool = False,
    refit_power: bool = False,
    refit_mocks: int | None = None,
    onnx: str | None = None,
    pixels: int | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Turn a checkpoint of `cosmogan fit` into an emulator file, and an emulator into ONNX.

    Parameters
    ----------
    checkpoint
        A ``.ckpt`` file; for ONNX and to refit also an emulator file or the name of a shipped emulator.
    out
        Emulator file to write, ending in ``.safetensors``.
    refit
        Fit spectrum and pixel distribution of the trained generator's mocks to the training slices once more, some
        minutes on a CPU; for generators with such a part (`SpectralPriorGenerator`). The emulator says that it was
        done.
    refit_power
        The same for P(k) alone, by a filter; the point transform stays as it is. May follow a refit of both. Pixels
        change a little all the same.
    refit_mocks
        Mocks to refit with, in whole batches of 32; by default as many as take some minutes. Slices of small boxes
        scatter: at 70 Mpc/h 4,096 mocks know their own P(k) to 2 to 3%, four times as many to half of that, in four
        times the time, with 20 bytes of memory per pixel.
    onnx
        ONNX file to write, for programs without torch; needs the extra ``onnx``.
    pixels
        Pixels along a side of the slices of the ONNX file; those of the training by default.
    overwrite
        Replace existing files.

    Returns
    -------
        The files written.

    Raises
    ------
    UserError
        If the checkpoint is missing, damaged or of something else, or a file cannot be written.
    """
    if out is None and onnx is None:
        raise UserError("expected --out, an emulator file to write, or --onnx, an ONNX file")
    if pixels is not None and onnx is None:
        raise UserError("--pixels is for --onnx; an emulator file makes slices of any size that its network can")
    if refit and refit_power:
        raise UserError("--refit fits P(k) and pixels, --refit-power P(k) alone; give one of them")
    if refit_mocks is not None and not (refit or refit_power):
        raise UserError("--refit-mocks is for --refit and --refit-power")
    path = Path(checkpoint)
    written = []
    if path.suffix == SUFFIX or checkpoint in shipped_emulators():
        if out is not None and not (refit or refit_power):
            raise UserError(
                f"{path}: is an emulator already; expected a checkpoint for --out, --refit or --refit-power"
            )
        emulator = Emulator.load(checkpoint)
    else:
        emulator = _from_checkpoint(path)
    if refit or refit_power:
        if emulator.boxes is not None:
            _give_starts(emulator)
        emulator.generator.refit(seed=_REFIT_SEED, n_mocks=refit_mocks, power_only=refit_power)
        emulator.training["refitted_power" if refit_power else "refitted"] = True
        # Scores of what it was before.
        emulator.training.pop("shipped", None)
    if onnx is not None:
        require_absent(Path(onnx), overwrite=overwrite)
    if out is not None:
        emulator.save(out, overwrite=overwrite)
        emulator = Emulator.load(out)
        written.append(Path(out))
    if onnx is not None:
        emulator.resized(pixels).to_onnx(onnx, overwrite=overwrite)
        written.append(Path(onnx))
    return written


def _give_starts(emulator: Emulator) -> None:
    """Make the starts of the training realisations, whose P(k) and pixels the mocks are to have."""
    assert emulator.boxes is not None
    assert isinstance(emulator.generator, GravityStartGenerator)
    paired = emulator.training.get("phases") == "same"
    realisations = emulator.training["realisations"]
    seeds = realisations if paired else [box_seed(_REFIT_SEED, box) for box in range(len(realisations))]
    emulator.generator.starts = BoxStarts(make_boxes(emulator.boxes.maker, seeds))


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
    _from_checkpoint(Path(checkpoint)).save(out, overwrite=overwrite)
    return Path(out)


def _from_checkpoint(path: Path) -> Emulator:
    content = load_checkpoint(path)
    record = json.loads(content["cosmogan"])
    weights = content["state_dict"]
    tensors = {
        key.replace("average.", "generator.", 1): value
        for key, value in weights.items()
        if key.startswith(("average.", "transform."))
    }
    try:
        return Emulator.from_record(record, tensors)
    except (KeyError, RuntimeError, TypeError) as error:
        raise UserError(f"{path}: weights and record of the checkpoint do not fit ({error})") from None


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
