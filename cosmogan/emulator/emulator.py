"""A trained generator as people use it: load, sample, resize, save. Nothing is ever unpickled or imported by name."""

from __future__ import annotations

import copy
import json
import textwrap
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

# Imported so that the names of all networks are known.
import cosmogan.networks.dcgan
import cosmogan.networks.mlp
import cosmogan.networks.periodic
import cosmogan.networks.spectral_prior.generator  # noqa: F401
from cosmogan.emulator.card import model_card
from cosmogan.emulator.conditions import Conditions
from cosmogan.emulator.file import build_part, find_emulator, read_emulator_file, shipped_emulators, write_emulator_file
from cosmogan.emulator.latents import by_block, latents
from cosmogan.emulator.requests import (
    LARGEST_INDEX,
    LARGEST_SEED,
    MockBatch,
    consecutive,
    labelled,
    new_array,
    numbers_of,
    require_between,
    require_room,
)
from cosmogan.emulator.resizing import require_memory, resized_metadata, untrusted
from cosmogan.emulator.starts import MockBoxes, StartMaker
from cosmogan.errors import UserError
from cosmogan.files import file_sha256
from cosmogan.machine.devices import choose_device
from cosmogan.machine.threads import map_in_order
from cosmogan.networks.base import AbstractGenerator, cached_slices
from cosmogan.networks.gravity_start import GravityStartGenerator
from cosmogan.slices import SliceMetadata, SliceReader
from cosmogan.transforms import AbstractTransform

__all__ = ["Emulator", "MockBatch", "find_emulator", "latents", "shipped_emulators"]

# Building a network draws from torch's global generator, which is put back.
_BUILDING = threading.Lock()


class Emulator:
    """Makes mock slices: a generator, its pixel transform, and what the pixels are.

    Several threads may sample one emulator at the same time: nothing in it changes, and no global random generator is
    used.

    Parameters
    ----------
    generator, transform
        Trained and fitted.
    metadata
        Metadata of its slices; always densities.
    training
        Record of how it was trained: plain numbers and strings.

    Attributes
    ----------
    trained_metadata
        Metadata of the training slices; other than ``metadata`` where slices are larger.
    file
        File that it was read from; None where there is none.
    precision
        ``"float32"`` or ``"bfloat16"``, as given to `load`.
    given_conditions
        Conditions that `given` has set.
    boxes
        Simulations that slices are made of, one box after the other; None for networks that start from noise.

    Examples
    --------
    ``Emulator.load("emulator.safetensors").sample(16, seed=1)`` returns 1 + delta, shape ``(16, n, n)``.
    """

    def __init__(
        self,
        generator: AbstractGenerator,
        transform: AbstractTransform,
        *,
        metadata: SliceMetadata,
        training: dict[str, Any] | None = None,
    ) -> None:
        self.generator = generator.eval().requires_grad_(False)
        self.transform = transform.eval().requires_grad_(False)
        self.metadata, self.training = metadata, training or {}
        self.trained_metadata = metadata
        self.file: Path | None = None
        self._file_sha256 = ""
        self.precision = "float32"
        self.given_conditions: dict[str, float] = {}
        self._told: Tensor | None = None
        # Simulations that slices start from, for networks that start from some.
        self.boxes: MockBoxes | None = None
        if isinstance(self.generator, GravityStartGenerator):
            self.boxes = MockBoxes(StartMaker(self.generator, metadata))

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        device: torch.device | str = "cpu",
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> Emulator:
        """Read an emulator file.

        Parameters
        ----------
        name_or_path
            A safetensors file written by `save`, or the name of an emulator that ships with the package.
        device
            Device such as "cpu" or "cuda:1"; "auto" takes a GPU where there is one.
        precision
            ``"bfloat16"`` computes the body of the network in 16 bits and is about 1.8 times as fast on processors
            that have them (AVX-512 BF16, AMX). Other bits; statistics are those of float32 within
            a quarter of a per cent.

        Raises
        ------
        UserError
            If there is no such emulator or device, the file is damaged or something else, or the network has no
            16-bit body.
        """
        path = find_emulator(name_or_path)
        device = choose_device(device)
        if precision not in ("float32", "bfloat16"):
            raise UserError(f"precision: expected float32 or bfloat16, found {precision!r}")
        record, tensors = read_emulator_file(path)
        try:
            emulator = cls.from_record(record, tensors, device=device)
            if precision == "bfloat16":
                emulator.generator.use_bfloat16()
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            details = textwrap.shorten(str(error), 160, placeholder=" ...")
            raise UserError(
                f"{path}: the emulator's record does not fit its weights, as in files of other versions of cosmogan "
                f"({details}); use the version that wrote it, or train it anew"
            ) from None
        emulator.file, emulator.precision = path, precision
        # Now: the file may be another one by the time somebody asks.
        emulator._file_sha256 = file_sha256(path)
        return emulator

    @classmethod
    def from_record(
        cls, record: dict[str, Any], tensors: dict[str, Tensor], *, device: torch.device | str = "cpu"
    ) -> Emulator:
        """Build from the record of networks and metadata, and tensors named ``generator.*`` and ``transform.*``."""
        with _BUILDING, torch.random.fork_rng(devices=[]):
            generator = build_part(AbstractGenerator, record["generator"])  # type: ignore[type-abstract]
            transform = build_part(AbstractTransform, record["transform"])  # type: ignore[type-abstract]
        for name, module in (("generator", generator), ("transform", transform)):
            prefix = name + "."
            module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        return cls(
            generator.to(device),
            transform.to(device),
            metadata=SliceMetadata.from_dict(record["metadata"]),
            training=record["training"],
        )

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write one safetensors file with weights, transform, metadata, training record and a checksum of all.

        Raises
        ------
        UserError
            If the file exists and may not be replaced, cannot be written, or the emulator is resized or in bfloat16.
        """
        if self.metadata != self.trained_metadata or self.precision != "float32":
            raise UserError(f"{path}: save the emulator at its own size in float32; this one can be made of it again")
        record = {
            "generator": {"name": type(self.generator).__name__, "settings": self.generator.settings()},
            "transform": {"name": type(self.transform).__name__, "settings": self.transform.settings()},
            "metadata": self.metadata.to_dict(),
            "training": self.training,
        }
        tensors = {
            f"{name}.{key}": value.contiguous()
            for name, module in (("generator", self.generator), ("transform", self.transform))
            for key, value in module.state_dict().items()
        }
        write_emulator_file(Path(path), record, tensors, overwrite=overwrite)

    def to_onnx(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write an ONNX file that makes the same slices, to 1e-4, without torch; needs the extra ``onnx``.

        Raises
        ------
        UserError
            As `cosmogan.emulator.onnx.write_onnx`, or if the emulator is in bfloat16.
        """
        if self.precision != "float32":
            raise UserError(f"{path}: ONNX files are in float32; load the emulator without precision")
        from cosmogan.emulator.onnx import write_onnx

        write_onnx(self, Path(path), overwrite=overwrite)

    def resized(self, n_pixels: int | None = None, *, box_size: float | None = None) -> Emulator:
        """Return an emulator of larger slices, periodic and without seams, with pixels of the same size.

        Only networks that know pixels and no places can do this; `DCGANGenerator` cannot. Modes longer than the
        trained box are extrapolated: `warning` says what not to trust.

        Parameters
        ----------
        n_pixels
            Pixels along a side; give this or ``box_size``, or neither for the emulator as it is.
        box_size
            Comoving side, Mpc/h.

        Raises
        ------
        UserError
            If the network makes slices of one size only, the size is impossible (the message names the nearest possible
            ones) or one slice needs more memory than there is.
        """
        metadata = resized_metadata(
            self.trained_metadata, self.generator.side_multiple, n_pixels=n_pixels, box_size=box_size
        )
        if metadata == self.metadata or (n_pixels is None and box_size is None):
            return self
        if self.device.type == "cpu":
            require_memory(metadata.n_pixels, self.generator.bytes_per_pixel)
        other = copy.copy(self)
        other.generator, other.metadata = self.generator.resized(metadata.n_pixels), metadata
        return other

    def given(self, **conditions: float) -> Emulator:
        """Return an emulator of slices with these parameters, for networks that were trained with conditions.

        Parameters
        ----------
        conditions
            A value for each parameter, in the units of the training's slice file, such as ``Omega_m=0.3``.

        Raises
        ------
        UserError
            If a parameter is missing, unknown or beyond its range in training.
        """
        known = self.conditions
        if unknown := sorted(conditions.keys() - {column.name for column in known.columns}):
            names = ", ".join(column.name for column in known.columns) or "none"
            raise UserError(f"conditions: this emulator knows no {unknown[0]!r}; it was trained with: {names}")
        told = known.standardised(conditions)
        for column in known.columns:
            if not column.low <= conditions[column.name] <= column.high:
                raise UserError(
                    f"conditions: {column.name} was {column.low:g} to {column.high:g} in training, found "
                    f"{conditions[column.name]:g}; networks do not extrapolate"
                )
        other = copy.copy(self)
        other.given_conditions, other._told = dict(conditions), told.to(self.device)
        return other

    def spread(self, slices_per_box: int) -> Emulator:
        """Return an emulator that takes so many slices of each box, spread over it, for networks that start from boxes.

        Slices of one box are cuts of one volume, as those of a simulation are: neighbours resemble each other, and all
        share its longest waves. Few of each box are nearly independent, and cost the simulation of more boxes.

        Parameters
        ----------
        slices_per_box
            From 1 to the slabs of a box along three axes, which is what `load` sets.

        Raises
        ------
        UserError
            If the network starts from noise, or a box has not so many slices.
        """
        if self.boxes is None:
            raise UserError("slices_per_box: the slices of this emulator start from noise and are independent already")
        other = copy.copy(self)
        other.boxes = MockBoxes(self.boxes.maker, slices_per_box, self.boxes.seeds)
        return other

    def like(self, simulations: str | Path) -> Emulator:
        """Return an emulator of the very boxes of a slice file, for networks that start from boxes.

        Slice i is then the mock of slice i of the file, whatever the seed, where the file holds all slabs of each
        realisation in order, as `cosmogan simulate` writes them; the seed only draws what the start leaves open.

        Parameters
        ----------
        simulations
            Slice file of `cosmogan simulate`, with the particles, box and slabs of the emulator's training.

        Raises
        ------
        UserError
            If the network starts from noise, the file has not those phases or other pixels.
        """
        path = Path(simulations)
        if self.boxes is None:
            raise UserError(f"{path}: this emulator starts from noise, which no simulation has")
        maker = self.boxes.maker
        with SliceReader(path) as reader:
            maker.require_phases(path, reader.provenance, "simulate such ones, or leave this out")
            meta = reader.metadata
            if (meta.n_pixels, round(meta.box_size / meta.thickness)) != (maker.n_pixels, maker.n_slabs):
                raise UserError(
                    f"{path}: holds slices of {meta.n_pixels} pixels, {meta.thickness:g} Mpc/h thick; the emulator "
                    f"makes {maker.n_pixels} pixels, {self.metadata.thickness:g} Mpc/h thick"
                )
            order = np.sort(np.unique(reader.realisation, return_index=True)[1])
            seeds = tuple(reader.realisation[order].tolist())
            box, axis, slab = MockBoxes(maker, seeds=seeds).places(range(len(seeds) * maker.n_per_box)).T
            found = reader.realisation, reader.axis, np.rint(reader.position / meta.thickness)
            wanted = np.array(seeds)[box], axis, slab
            if reader.n_slices != len(box) or not all(map(np.array_equal, found, wanted)):
                raise UserError(
                    f"{path}: does not hold all {maker.n_per_box} slabs of each realisation in the order in which "
                    "`cosmogan simulate` writes them"
                )
        other = copy.copy(self)
        other.boxes = MockBoxes(maker, self.boxes.per_box, seeds)
        return other

    def labels(self, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Return box, axis and position (Mpc/h) of slices with these numbers; None where they are cut from no box."""
        if self.boxes is None:
            return None
        box, axis, slab = self.boxes.places(numbers).T
        if self.boxes.seeds is not None:
            box = np.array(self.boxes.seeds)[box]
        return box, axis, slab * self.metadata.thickness

    @property
    def conditions(self) -> Conditions:
        """Parameters that its slices depend on and their ranges; mostly none."""
        return Conditions.from_list(self.training.get("conditions", []))

    @property
    def warning(self) -> str:
        """What of its slices is not to be trusted, in one sentence; empty at the size it was trained at."""
        return untrusted(self.metadata, self.trained_metadata)

    @property
    def provenance(self) -> dict[str, Any]:
        """What a file of its slices should say of it: plain numbers and strings."""
        known: dict[str, Any] = {"emulator_training": json.dumps(self.training)}
        known |= {f"condition {name}": value for name, value in self.given_conditions.items()}
        if self.file is not None:
            known["emulator"] = self.file.name
            known["emulator_sha256"] = self._file_sha256
        if self.precision != "float32":
            known["precision"] = self.precision
        if self.boxes is not None:
            start = self.boxes.maker.parameters
            known["slices_per_box"] = self.boxes.per_box
            if self.boxes.seeds is not None:
                known["like_seeds"] = ",".join(map(str, self.boxes.seeds))
            known["start"] = f"COLA, {start.particles}^3 particles, mesh {start.mesh}^3, {start.steps} steps"
        if self.warning:
            known["trained_box_size"] = self.trained_metadata.box_size
            known["trained_n_pixels"] = self.trained_metadata.n_pixels
            known["not_trustworthy"] = self.warning
        return known

    @property
    def card(self) -> str:
        """The model card in Markdown: the one beside the file (``NAME.md``), or one composed of the record."""
        beside = self.file.with_suffix(".md") if self.file is not None else None
        return beside.read_text() if beside is not None and beside.is_file() else model_card(self)

    @property
    def block_size(self) -> int:
        """Slices that a CPU makes together: those of a box, or 16, fewer of more than 64 x 64 pixels, 1 from 256 x 256.

        Matrix products round differently for other numbers of slices, so a slice always shares its block with the same
        others.
        """
        return cached_slices(self.metadata.n_pixels) if self.boxes is None else self.boxes.per_box

    def sample(
        self,
        n: int | None = None,
        *,
        seed: int = 0,
        first: int = 0,
        indices: Iterable[int] | None = None,
        out: Any = None,
        returns: Literal["numpy", "torch", "xarray"] = "numpy",
        batch_size: int = 64,
    ) -> Any:
        """Make slices ``first`` to ``first + n`` of a seed, or exactly those of ``indices``.

        Parameters
        ----------
        n
            Number of slices; not needed with ``indices``.
        seed
            0 to 2^64 - 1.
        first
            Number of the first slice. Slice i depends on (seed, i) only.
        indices
            Numbers of the slices, in any order. A CPU computes slice i in its block of `block_size`, whatever else is
            asked for, so that a lone slice of 64 x 64 pixels costs as much as 16 neighbours.
        out
            Array to fill and return: NumPy, memory map, HDF5 data set or tensor, of floating point numbers, of shape
            ``(n, n_pixels, n_pixels)``.
        returns
            ``"numpy"``; ``"torch"``, a tensor on the emulator's device; ``"xarray"``, with places in Mpc/h and
            the metadata.
        batch_size
            Slices computed at a time on a GPU.

        Returns
        -------
            1 + delta, float32, shape ``(n, n_pixels, n_pixels)``.

        Raises
        ------
        UserError
            If a number is out of range, ``out`` does not fit or xarray is missing.
        """
        numbers = self.within(numbers_of(n, first, indices))
        require_between("seed", seed, 0, LARGEST_SEED)
        require_between("batch_size", batch_size, 1, LARGEST_INDEX)
        shape = (len(numbers), self.metadata.n_pixels, self.metadata.n_pixels)
        if out is not None:
            if returns != "numpy":
                raise UserError(f"sample: out is returned as it is; expected no returns={returns!r} beside it")
            require_room(out, shape)
        array: Any = new_array(shape, returns, self.device) if out is None else out
        for places, slices in self._computed(numbers, seed, batch_size):
            block: Any = slices if isinstance(array, Tensor) else slices.cpu().numpy()
            if places[-1] - places[0] == len(places) - 1:
                array[places[0] : places[-1] + 1] = block
            else:
                for place, one in zip(places, block, strict=True):
                    array[place] = one
        if returns == "xarray":
            return labelled(array, numbers, seed=seed, metadata=self.metadata, provenance=self.provenance)
        return array

    def stream(self, n: int, *, seed: int = 0, first: int = 0, batch_size: int = 64) -> Iterator[MockBatch]:
        """Iterate over the slices of `sample` in batches with their numbers and metadata, in bounded memory."""
        numbers = self.within(consecutive(n, first))
        blocks = self.blocks(n, seed=seed, first=first, batch_size=batch_size)

        def batches() -> Iterator[MockBatch]:
            done = 0
            for block in blocks:
                indices = np.array(numbers[done : done + len(block)])
                done += len(block)
                yield MockBatch(block, indices, seed, self.metadata)

        return batches()

    def blocks(self, n: int, *, seed: int = 0, first: int = 0, batch_size: int = 64) -> Iterator[np.ndarray]:
        """Iterate over the slices of `sample` as plain arrays, those of a block at a time."""
        numbers = self.within(consecutive(n, first))
        require_between("seed", seed, 0, LARGEST_SEED)
        require_between("batch_size", batch_size, 1, LARGEST_INDEX)
        return (slices.cpu().numpy() for _, slices in self._computed(numbers, seed, batch_size))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.generator.parameters()).device

    def _computed(self, numbers: Sequence[int], seed: int, batch_size: int) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Iterate over places in ``numbers`` and the slices that belong there."""
        if self.device.type != "cpu":
            # A box at a time, where there are some.
            for places in by_block(numbers, batch_size if self.boxes is None else self.block_size):
                for start in range(0, len(places), batch_size):
                    some = places[start : start + batch_size]
                    yield some, self.density(self._latents([numbers[place] for place in some], seed))
            return

        def block(places: Sequence[int]) -> tuple[Sequence[int], Tensor]:
            return places, self._in_block([numbers[place] for place in places], seed)

        yield from map_in_order(block, by_block(numbers, self.block_size))

    def within(self, numbers: Sequence[int]) -> Sequence[int]:
        """Return numbers of slices; refuse those beyond the boxes that there are."""
        most = None if self.boxes is None else self.boxes.n_slices
        if most is not None and (largest := max(numbers, default=0)) >= most:
            raise UserError(
                f"n: the simulations to be like have {most:,} slices; expected no more, found {largest + 1:,}"
            )
        return numbers

    def _latents(self, numbers: Sequence[int], seed: int) -> Tensor:
        """Return what slices of one block are made of."""
        noise = torch.from_numpy(latents(numbers, self.generator.noise_shape, seed=seed))
        return noise if self.boxes is None else torch.cat([self.boxes.take(numbers, seed), noise], 1)

    def _in_block(self, numbers: Sequence[int], seed: int) -> Tensor:
        """Make slices of one block; what the others of the block are made of changes no bit of these."""
        size = cached_slices(self.metadata.n_pixels)
        within = [number % self.block_size for number in numbers]
        made = torch.empty(len(numbers), self.metadata.n_pixels, self.metadata.n_pixels)
        # In a box several groups are computed together.
        for places in by_block(within, size):
            rows = [within[place] % size for place in places]
            latent = torch.zeros(size, *self.generator.latent_shape)
            latent[rows] = self._latents([numbers[place] for place in places], seed)
            made[list(places)] = self.density(latent)[rows]
        return made

    @torch.inference_mode()
    def density(self, latent: Tensor) -> Tensor:
        """Return 1 + delta, shape ``(n, n_pixels, n_pixels)``, of latents ``(n, *generator.latent_shape)``.

        Raises
        ------
        UserError
            If the device has not got the memory.
        """
        told = self._told
        if self.generator.n_conditions and told is None:
            names = ", ".join(f"{c.name} ({c.low:g} to {c.high:g})" for c in self.conditions.columns)
            raise UserError(f"this emulator must be told {names}: `emulator.given(...)` or --conditions NAME=VALUE,...")
        try:
            made = self.generator(latent.to(self.device), None if told is None else told.expand(len(latent), -1))
            return made if self.generator.emits_density else self.transform.inverse(made)
        except RuntimeError as error:
            # The allocators of CPU and GPU have no kind of error in common.
            if "allocate" not in str(error):
                raise
            side = self.metadata.n_pixels
            raise UserError(
                f"{len(latent)} slices of {side} x {side} pixels at a time need more memory than {self.device} has; "
                "make smaller ones, or on a GPU fewer with batch_size"
            ) from None
