"""Slices for training: split by realisation, drawn and augmented as a function of (seed, step)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning as L
import numpy as np
import torch
from torch import Tensor

from cosmogan.checks import require_least
from cosmogan.emulator.conditions import Conditions
from cosmogan.emulator.starts import N_AXES, BoxStarts, StartMaker, make_boxes
from cosmogan.errors import UserError
from cosmogan.seeds import derive_seed
from cosmogan.slices import SliceMetadata, SliceReader, check_slices
from cosmogan.training.slice_stores import (
    AbstractStore,
    FileStore,
    Memory,
    MemoryStore,
    choose_memory,
    fetch_ahead,
    load,
    sample,
    to_device,
)

# Slices that fits and measurements look at, as float32: 4096 of 256 x 256 pixels.
_FITTED_BYTES = 2**30
# Boxes of random phases that starts are drawn from, at most.
_RANDOM_BOXES = 32
# What the state of a data module holds, in words.
_NAMES = {
    "n_slices": "number of slices",
    "training": "training realisations",
    "validation": "validation realisations",
    "conditions": "conditions",
}


class SliceBatch(NamedTuple):
    """The slices of one step that a process has, their seed, and their slots in the batch of all processes.

    Slots ``first`` to ``first + len(density)`` of ``total`` are these; what is drawn for a slice depends on the seed
    and the slot only, so that two processes of n slices see what one of 2 n sees. Conditions are standardised, shape
    ``(n, n_conditions)``, or None. Starts, for generators that have some, are particles per pixel of a slab and its two
    neighbours, ``(n, 3, side, side)``.
    """

    density: Tensor
    seed: int
    first: int
    total: int
    conditions: Tensor | None = None
    starts: Tensor | None = None


class StepLoader:
    """Batches of a shuffled set; batch number ``step`` is a function of set, seed and place among processes.

    One pass over the iterator is one Lightning epoch: it ends at the next multiple of a fixed number of steps. The set
    itself is reshuffled whenever it has been used up. ``state_dict`` holds the step, so that a resumed run continues
    where it stopped.

    Parameters
    ----------
    slices
        The set.
    batch_size
        Slices per step and rank.
    steps_per_epoch
        Length of one pass.
    seed
        Seed of the order and of the augmentation.
    rank, world_size
        Number of this process, and of all; together they use every slice once per reshuffle.
    conditions
        Conditions of each slice of the set, shape ``(n, n_conditions)``, if anything.
    starts
        Start of each slice of the set or, with ``any_start``, starts of other phases, of which some are drawn.
    any_start
        Whether starts are not those of the slices.
    """

    def __init__(
        self,
        slices: AbstractStore,
        *,
        batch_size: int,
        steps_per_epoch: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        conditions: Tensor | None = None,
        starts: BoxStarts | None = None,
        any_start: bool = False,
    ) -> None:
        self.starts, self.any_start = starts, any_start
        self.slices, self.batch_size, self.steps_per_epoch = slices, batch_size, steps_per_epoch
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.conditions = conditions
        self.step = 0
        # A batch reaches into two reshuffles at most, if it is not larger than the set.
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def __len__(self) -> int:
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[SliceBatch]:
        end = (self.step // self.steps_per_epoch + 1) * self.steps_per_epoch
        with closing(fetch_ahead(self.batch, range(self.step, end), self.slices.n_ahead)) as batches:
            for batch in batches:
                self.step += 1
                yield batch

    def batch(self, step: int) -> SliceBatch:
        """Return batch number ``step`` of this rank."""
        n_slices, total = len(self.slices), self.world_size * self.batch_size
        first = self.rank * self.batch_size
        turn, place = np.divmod(step * total + first + np.arange(self.batch_size), n_slices)
        index = np.concatenate([self._order(int(t))[place[turn == t]] for t in np.unique(turn)])
        conditions = None if self.conditions is None else self.conditions[torch.from_numpy(index)]
        density = self.slices.take(index)
        seed, starts = derive_seed(self.seed, step), None
        if self.starts is not None:
            if self.any_start:
                drawn = np.random.default_rng(derive_seed(seed, 4)).integers(len(self.starts), size=total)
                index = drawn[first : first + self.batch_size]
            starts = self.starts.take(index)
        return SliceBatch(density, seed, first, total, conditions, starts)

    def _shuffled(self, turn: int) -> np.ndarray:
        return np.random.default_rng([self.seed, turn]).permutation(len(self.slices))

    def state_dict(self) -> dict[str, Any]:
        """Return the number of batches drawn."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the number of batches drawn."""
        self.step = state["step"]


class SliceDataModule(L.LightningDataModule):
    """One slice file, split by realisation into training and validation slices.

    Neighbouring slabs of one simulation share structure, hence never a split by slice. Realisations are ordered by
    number; the last ones validate. Keep test realisations in a file of their own, or leave them out with ``n_test``.

    Networks train on all ``n_training`` slices, wherever these lie. What is fitted and measured takes ``training`` and
    ``validation``, which are in the memory of the host: all slices up to 1 GiB as float32, beyond that the same share
    of each realisation, drawn with ``seed``. They do not depend on ``memory``, and neither does the result.

    Parameters
    ----------
    path
        Slice file with counts or densities.
    batch_size
        Slices per training step and process.
    n_validation
        Realisations held out to choose the checkpoint by.
    n_test
        Realisations, after those for validation, that are not touched at all.
    slices_per_epoch
        Training slices between two validations, over all processes.
    augment
        Whether training slices are rolled periodically and turned by the 8 symmetries of the square.
    memory
        Place of the training slices: ``"device"``, ``"host"``, or in the ``"file"``, which is then read in the
        background; ``"auto"``: the first of these that has room.
    conditions
        Names of parameters in ``/conditions`` that networks are told, standardised over the training slices.
    phases
        Starts, for generators that have some: ``"same"``, each slice beside the start of its own phases, which needs
        slices of `cosmogan simulate`, whose seeds their file holds; ``"random"``, starts of other phases, for slices of
        anybody.
    seed
        Seed of order and augmentation.

    Attributes
    ----------
    training_starts, validation_starts
        Starts of ``training`` and ``validation`` or, of random phases, some; None before `make_starts`.
    training, validation
        1 + delta, shape ``(n, n_pixels, n_pixels)``, to fit and measure with.
    training_label
        Realisations of ``training``.
    conditions
        Names, means, scales and ranges of the conditions; None without.
    training_conditions, validation_conditions
        Conditions of ``training`` and ``validation``, shape ``(n, n_conditions)``; None without.

    Raises
    ------
    UserError
        If the file is bad or has too few realisations, or a value is out of its range.
    """

    def __init__(
        self,
        path: str,
        batch_size: int = 16,
        n_validation: int = 1,
        n_test: int = 0,
        slices_per_epoch: int = 4096,
        augment: bool = True,
        memory: Memory = "auto",
        conditions: list[str] | None = None,
        phases: Literal["same", "random"] = "same",
        seed: int = 0,
    ) -> None:
        super().__init__()
        require_least(1, where="data", batch_size=batch_size, slices_per_epoch=slices_per_epoch)
        require_least(0, where="data", n_test=n_test)
        if n_validation < 1:
            raise UserError(
                f"data.n_validation: expected at least 1, found {n_validation}; the checkpoint is chosen by "
                "realisations that the networks have not trained on"
            )
        self.path, self.batch_size, self.slices_per_epoch = Path(path), batch_size, slices_per_epoch
        self.augment, self.memory, self.phases, self.seed = augment, memory, phases, seed
        self._starts: BoxStarts | None = None
        self.training_starts: BoxStarts | None = None
        self.validation_starts: BoxStarts | None = None
        problems = check_slices(self.path, pixels=False)
        if problems:
            raise UserError(problems[0])
        with SliceReader(self.path) as reader:
            self.metadata: SliceMetadata = reader.metadata
            label = reader.realisation
            self._axis, self._position, self._provenance = reader.axis, reader.position, reader.provenance
            self._split(np.unique(label), n_validation, n_test)
            self._rows = np.flatnonzero(np.isin(label, self.training_realisations))
            self.conditions = Conditions.measured(reader, conditions, self._rows) if conditions else None
            standardised = self.conditions.standardised(reader.conditions) if self.conditions else None
        self._require_batch(1)
        self._n_slices, self._label = len(label), label
        held_out = np.flatnonzero(np.isin(label, self.validation_realisations))
        most = max(1, _FITTED_BYTES // (4 * self.n_pixels**2))
        fitted = sample(self._rows, label[self._rows], most, seed=seed)
        judged = sample(held_out, label[held_out], most, seed=seed)
        self.training, self.training_label = load(self.path, fitted), label[fitted]
        self.validation = load(self.path, judged)
        self._fitted, self._judged = fitted, judged
        if not self.training.std() > 0:
            raise UserError(f"{self.path}: all training pixels are equal; expected slices with structure")
        self._conditions, self.training_conditions, self.validation_conditions = (
            None if standardised is None else standardised[torch.from_numpy(rows)]
            for rows in (self._rows, fitted, judged)
        )

    def _split(self, realisations: np.ndarray, n_validation: int, n_test: int) -> None:
        n_training = len(realisations) - n_validation - n_test
        if n_training < 1:
            raise UserError(
                f"{self.path}: realisations found: {len(realisations)}, but the split needs at least 1 to train, "
                f"{n_validation} to validate and {n_test} to test; simulate more or lower --data.n_validation"
            )
        self.training_realisations: list[int] = realisations[:n_training].tolist()
        self.validation_realisations: list[int] = realisations[n_training : n_training + n_validation].tolist()

    def make_starts(self, maker: StartMaker) -> None:
        """Simulate the starts of the slices, or some of other phases; minutes where there are many realisations.

        Raises
        ------
        UserError
            If starts of the same phases are wanted and the file does not say how its slices were simulated, or it was
            from another grid of phases.
        """
        if self.phases == "random":
            n_boxes = min(len(self.training_realisations), _RANDOM_BOXES)
            counts = make_boxes(maker, [derive_seed(self.seed, 3, box) for box in range(n_boxes)])
            self._starts = self.training_starts = self.validation_starts = BoxStarts(counts)
            return
        way_out = "set data.phases to random, and model.critic.pairs to false, to learn from any slices"
        maker.require_phases(self.path, self._provenance, way_out)
        if (self._axis >= N_AXES).any():
            raise UserError(f"{self.path}: holds slices of no axis, which have no start of the same phases; {way_out}")
        realisations = [*self.training_realisations, *self.validation_realisations]
        counts = make_boxes(maker, realisations)
        box = {realisation: number for number, realisation in enumerate(realisations)}
        slab = np.rint(self._position / self.metadata.thickness).astype(np.int64) % maker.n_slabs

        def starts(rows: np.ndarray) -> BoxStarts:
            boxes = [box[realisation] for realisation in self._label[rows].tolist()]
            return BoxStarts(counts, np.stack([boxes, self._axis[rows].astype(np.int64), slab[rows]], 1))

        self._starts, self.training_starts, self.validation_starts = map(
            starts, (self._rows, self._fitted, self._judged)
        )

    def _require_batch(self, world_size: int) -> None:
        if self.batch_size * world_size > self.n_training:
            processes = f" in each of {world_size} processes" if world_size > 1 else ""
            raise UserError(
                f"data.batch_size: {self.batch_size}{processes} is more than the {self.n_training} training slices of "
                f"{self.path}; lower it, or train on more realisations"
            )

    @property
    def n_pixels(self) -> int:
        """Pixels along a side."""
        return self.metadata.n_pixels

    @property
    def n_training(self) -> int:
        """Slices to train on."""
        return len(self._rows)

    @property
    def n_conditions(self) -> int:
        """Parameters that networks are told."""
        return 0 if self.conditions is None else len(self.conditions)

    def setup(self, stage: str) -> None:
        """Refuse what has no room, before anything is fitted or written."""
        self._choose_memory()

    def _choose_memory(self) -> tuple[Memory, torch.device]:
        """Return where the training slices are to lie, and the device that they are for."""
        device, world_size, n_here = torch.device("cpu"), 1, 1
        if self.trainer:
            device = self.trainer.strategy.root_device
            world_size, n_here = self.trainer.world_size, self.trainer.num_devices
        self._require_batch(world_size)
        n_bytes = 4 * self.n_training * self.n_pixels**2
        return choose_memory(self.memory, n_bytes, device=device, n_processes=n_here), device

    def train_dataloader(self) -> StepLoader:
        """Return the batches of this process.

        Raises
        ------
        UserError
            If the processes together take more than all slices in a step, or the wanted memory has no room.
        """
        memory, device = self._choose_memory()
        pinned = device.type == "cuda"
        slices: AbstractStore
        if memory == "file":
            slices = FileStore(self.path, self._rows, pinned=pinned)
        else:
            place = device if memory == "device" else torch.device("cpu")
            # Small sets are in memory already.
            fitted_all = len(self.training) == self.n_training
            whole = self.training.to(place) if fitted_all else load(self.path, self._rows, device=place)
            slices = MemoryStore(whole, pinned=pinned and memory == "host")
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return StepLoader(
            slices,
            batch_size=self.batch_size,
            steps_per_epoch=max(1, math.ceil(self.slices_per_epoch / (self.batch_size * world_size))),
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            conditions=self._conditions,
            starts=self._starts,
            any_start=self.phases == "random",
        )

    def val_dataloader(self) -> range:
        """Return one empty step: whole sets of slices are compared at its end, in every process alike."""
        return range(1)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must find again: numbers of slices and realisations, and scales of conditions."""
        return {
            "n_slices": self._n_slices,
            "training": self.training_realisations,
            "validation": self.validation_realisations,
            "conditions": self.conditions.to_list() if self.conditions else [],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Refuse a file that is not the one of the checkpoint.

        Raises
        ------
        UserError
            If slices, their split, or what networks are told of them have changed.
        """
        for name, found in self.state_dict().items():
            if found != state[name]:
                values = "" if name == "conditions" else f": {state[name]} then, {found} now"
                raise UserError(
                    f"{self.path}: {_NAMES[name]} changed since the checkpoint{values}; resume with the file and the "
                    "split that it was made with, or start anew without --ckpt_path"
                )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment training slices on the device."""
        if not isinstance(batch, SliceBatch):
            return batch
        if not self.augment:
            return batch
        seed, first, total = derive_seed(batch.seed, 1), batch.first, batch.total
        if batch.starts is None or self.phases == "random":
            return batch._replace(density=augment(batch.density, seed=seed, first=first, total=total))
        # Slices and their starts together, and the two sides of a slab at random.
        planes = augment(torch.cat([batch.density[:, None], batch.starts], 1), seed=seed, first=first, total=total)
        generator = torch.Generator().manual_seed(derive_seed(batch.seed, 2))
        mirrored = torch.randint(2, (total,), generator=generator)[first : first + len(planes)]
        starts = planes[:, 1:]
        other = starts[:, [0, 2, 1]]
        starts = torch.where(to_device(mirrored, starts.device)[:, None, None, None] == 1, other, starts)
        return batch._replace(density=planes[:, 0], starts=starts)


def augment(slices: Tensor, *, seed: int, first: int = 0, total: int | None = None, turn: bool = True) -> Tensor:
    """Roll each periodic slice by a random shift and turn it by one of the 8 symmetries of the square.

    Parameters
    ----------
    slices
        Shape ``(n, side, side)``, or several planes of each, ``(n, n_planes, side, side)``, that go together.
    seed
        Seed of the random numbers.
    first, total
        The slices are slots ``first`` to ``first + n`` of a batch of ``total``; the whole batch if None.
    turn
        Whether to turn, or only to roll.

    Returns
    -------
        Same shape; every pixel value occurs as often as before.
    """
    n_slices, side = len(slices), slices.shape[-1]
    generator = torch.Generator().manual_seed(seed)
    total = n_slices if total is None else total
    drawn = torch.stack([torch.randint(n, (total,), generator=generator) for n in (side, side, 8)])
    down, right, symmetry = to_device(drawn[:, first : first + n_slices], slices.device)[:, :, None]
    places = torch.arange(side, device=slices.device)
    row, column = (places + down) % side, (places + right) % side
    outer, inner = row * side, column
    if turn:
        # Two flips and a transpose, each or not, make the 8 symmetries.
        row = torch.where(symmetry & 1 > 0, row.flip(1), row)
        column = torch.where(symmetry & 2 > 0, column.flip(1), column)
        outer = torch.where(symmetry & 4 > 0, column, row * side)
        inner = torch.where(symmetry & 4 > 0, row * side, column)
    # One gather of flat slices takes a third of the time of indices along either side and a transpose.
    index = (outer[:, :, None] + inner[:, None, :]).reshape(n_slices, 1, -1)
    planes = slices.reshape(n_slices, -1, side * side)
    return planes.gather(2, index.expand_as(planes)).view_as(slices)
