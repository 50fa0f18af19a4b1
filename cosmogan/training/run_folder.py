"""The folder of a run: whether it is free, where to continue from, and whether that belongs to the recipe."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cosmogan.emulator.export import load_checkpoint
from cosmogan.errors import UserError
from cosmogan.slices import SliceMetadata

LAST = "last.ckpt"
# What may be another when a run continues: its length, and how rather than what is computed.
_LENGTH, _HOW = "model.max_slices", {"model.compile", "model.n_microbatches"}
# The order of the slices and which of them train, other keys of data say where and how the slices are held; digits of
# the networks; what scores are compared by.
_BINDING = {f"data.{key}" for key in ("seed", "augment", "n_validation", "n_test", "slices_per_epoch", "batch_size")}
_BINDING |= {"trainer.precision", "validation.n_mocks"}
# Lightning's other words for the same.
_PRECISIONS = {None: "32-true", 32: "32-true", "32": "32-true", "bf16": "bf16-mixed"}


@dataclass(frozen=True)
class Resumption:
    """A checkpoint to continue from.

    Parameters
    ----------
    path
        The file.
    record
        Text that `cosmogan fit` wrote into it.
    """

    path: Path
    record: Mapping[str, Any]

    @property
    def n_slices_seen(self) -> int:
        """Slices seen when it was written."""
        return int(self.record["training"]["n_slices_seen"])

    def changes(self, recipe: str) -> dict[str, tuple[Any, Any]]:
        """Return the settings that decide how weights are trained and are others than in the checkpoint.

        Parameters
        ----------
        recipe
            The resolved configuration as YAML.

        Returns
        -------
            By dotted name: what was, and what is asked for. Of the model, the order of the slices, the precision and
            the number of mocks that the score is made of.
        """
        # A null is left out of a recipe that was written.
        default = {"trainer.precision": "32-true"}
        former = default | dict(_leaves(yaml.safe_load(self.record["training"]["recipe"]) or {}))
        now = default | dict(_leaves(yaml.safe_load(recipe)))
        changed = (name for name in {**former, **now} if former.get(name) != now.get(name) and name not in _HOW)
        return {
            name: (former.get(name), now.get(name)) for name in changed if name in _BINDING or name.startswith("model.")
        }

    def require_recipe(self, recipe: str) -> None:
        """Refuse a recipe under which the weights of the checkpoint would be trained differently.

        Takes a recipe as `changes` does.

        Raises
        ------
        UserError
            If one of the `changes` is more than a longer training.
        """
        for name, values in self.changes(recipe).items():
            if name != _LENGTH:
                former, now = ("null" if value is None else value for value in values)
                raise UserError(
                    f"{name}: is {now} here and was {former} in {self.path}; continue with the settings that it was "
                    "made with, start anew in another --out, or add --allow-changes"
                )

    def stages(self, recipe: str) -> list[dict[str, Any]]:
        """Return what the settings were until which number of slices, where they were others than in a recipe.

        Takes a recipe as `changes` does.

        Returns
        -------
            ``{"until": slices seen, "settings": {dotted name: value}}`` per stage, the first one first; settings are
            those that the next stage has changed.
        """
        earlier = list(self.record["training"].get("stages", []))
        former = {name: was for name, (was, _) in self.changes(recipe).items()}
        return [*earlier, {"until": self.n_slices_seen, "settings": former}] if former else earlier

    def require_data(self, metadata: SliceMetadata, path: Path) -> None:
        """Refuse slices whose pixels mean something else than those that the checkpoint was trained on.

        Raises
        ------
        UserError
            If box, pixels, thickness or smoothing are others.
        """
        former, found = self.record["metadata"], metadata.to_dict()
        for name in ("box_size", "n_pixels", "thickness", "smoothing"):
            if former.get(name) != found.get(name):
                raise UserError(
                    f"{path}: {name} is {found.get(name)}, and was {former.get(name)} for {self.path}; continue with "
                    "the slices that it was trained on"
                )


def find_resumption(out: Path, *, checkpoint: str | None, resume: bool, overwrite: bool) -> Resumption | None:
    """Return the checkpoint to continue from, or None for a run that starts.

    Parameters
    ----------
    out
        The run folder.
    checkpoint
        A file, ``"last"`` for the last one of the run folder, or None.
    resume
        Go on where the run folder has a checkpoint, start where not.
    overwrite
        Start over in a folder that is in use.

    Raises
    ------
    UserError
        If the wishes contradict each other, there is no such checkpoint, or the folder holds another run.
    """
    if sum((checkpoint is not None, resume, overwrite)) > 1:
        raise UserError("--ckpt_path, --resume and --overwrite: each says where to start; give one of them")
    if resume:
        path = out / LAST if (out / LAST).exists() else None
    elif checkpoint == "last":
        path = out / LAST
    else:
        path = None if checkpoint is None else Path(checkpoint)
    own = path is not None and path.resolve().parent == out.resolve()
    # A folder without a checkpoint is one that a run was stopped in before its first.
    signs = (LAST,) if resume else (LAST, "config.yaml")
    used = next((name for name in signs if (out / name).exists()), None)
    if used and not own and not overwrite:
        raise UserError(
            f"{out}: holds a run already ({used}); continue with --resume, choose another --out, or add --overwrite"
        )
    if path is None:
        return None
    return Resumption(path, json.loads(load_checkpoint(path)["cosmogan"]))


def prepare_folder(out: Path, *, make: bool) -> None:
    """Find out whether a run can write into its folder, before anything is built.

    Parameters
    ----------
    out
        The run folder.
    make
        Make it, unless it is there.

    Raises
    ------
    UserError
        If it cannot be made or written.
    """
    try:
        # A file without a name where the file system has such; it leaves nothing behind in any case.
        with tempfile.TemporaryFile(dir=next(one for one in (out, *out.parents) if os.path.lexists(one))):
            pass
        if make:
            out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); choose another --out") from None


def remove_checkpoints(out: Path) -> None:
    """Remove the checkpoints of a run that is started over, lest the new one continues from them."""
    for path in (out / LAST, *out.glob("best*.ckpt"), *out.glob("checkpoints/slices_*_score_*.ckpt")):
        path.unlink(missing_ok=True)


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Iterate over dotted names and values; classes count by their name, wherever they are defined."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        elif name == "class_path":
            yield f"{prefix}{name}", str(value).rsplit(".", 1)[-1]
        elif name == "precision":
            yield f"{prefix}{name}", _PRECISIONS.get(value, value)
        else:
            yield f"{prefix}{name}", value
