"""Arrays of cubes or slices in ``.npy``, ``.npz`` and HDF5 files that say nothing about themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cosmogan.errors import UserError
from data_tools.files.arrays import (
    AbstractArray,
    Field,
    Hdf5Array,
    NpyArray,
    NpzArray,
    hdf5_shapes,
    listed,
    npz_shapes,
)
from data_tools.published.base import AbstractFormat, Contents, PublishedFile, Realisation, Request, cube, cubes, stack

# Dimensions of what can be cubes or slices: (N, N, N), (n, N, N), (n, 1, N, N), (n, N, N, N).
_DIMENSIONS = (3, 4)


class PlainFormat(AbstractFormat):
    """Box, redshift and whatever else the numbers do not show come from the command line."""

    name = "plain"
    options = ("layout", "slices_per_realisation", "dataset")

    def recognises(self, path: Path, contents: Contents) -> bool:
        """Return True: anything with an array in it."""
        return True

    def open(self, path: Path, contents: Contents, request: Request) -> PublishedFile:
        """Find the array and take what the user says."""
        array = _array(path, contents, request.dataset)
        layout, note = _layout(array, request.layout)
        if layout == "slices":
            fields = _stacks(array, request.slices_per_realisation)
        else:
            fields = [cube(array)] if len(array.shape) == 3 else cubes(array)
        if layout == "slices" and request.periodic is None:
            raise UserError(
                f"{array.name}: say with --periodic true or --periodic false whether slices span a whole periodic box"
            )
        box = request.length("box_size", None, request.cosmology)
        return PublishedFile(
            path=path,
            format_name=self.name,
            layout=layout,
            box_size=box,
            thickness=request.length("thickness", None, request.cosmology) if layout == "slices" else None,
            redshift=request.require_redshift(),
            realisations=tuple(Realisation(values=values) for values in fields),
            notes=(
                note,
                *(
                    ("cubes are whole periodic boxes; or say --periodic false",)
                    if layout == "cubes" and request.periodic is None
                    else ()
                ),
            ),
        )


def _array(path: Path, contents: Contents, asked: str | None) -> AbstractArray:
    if contents.kind == "npy":
        return NpyArray(path)
    if contents.kind == "npz":
        return NpzArray(path, asked or _single(path, npz_shapes(path)))
    return Hdf5Array(path, asked or _single(path, hdf5_shapes(path)))


def _single(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return the name of the only array that may be meant."""
    found = {name: shape for name, shape in shapes.items() if len(shape) in _DIMENSIONS}
    if not found:
        held = f"holds no array of 3 or 4 dimensions, but {listed(shapes)}" if shapes else "holds no arrays"
        raise UserError(f"{path}: {held}; expected a cube (n, n, n) or slices (m, n, n)")
    if len(found) > 1:
        raise UserError(
            f"{path}: holds {len(found)} arrays that may be meant: {listed(found)}; name one with --dataset"
        )
    return next(iter(found))


def _layout(array: AbstractArray, asked: str | None) -> tuple[str, str]:
    """Return the layout and a sentence on where it comes from."""
    shape = array.shape
    possible = []
    if (len(shape) == 3 and shape[1] == shape[2]) or (len(shape) == 4 and shape[1] == 1 and shape[2] == shape[3]):
        possible.append("slices")
    if len(shape) in _DIMENSIONS and len(set(shape[-3:])) == 1 and shape[-1] > 1:
        possible.insert(0, "cubes")
    if not possible or (asked is not None and asked not in possible):
        raise UserError(
            f"{array.name}: has shape {shape}; expected a cube (n, n, n), cubes (m, n, n, n), or slices (m, n, n) or "
            f"(m, 1, n, n)" + ("" if asked is None else f", and {asked} as asked")
        )
    if asked is None and len(possible) > 1:
        raise UserError(
            f"{array.name}: has shape {shape}, which may be {'a cube' if len(shape) == 3 else 'cubes'} or "
            f"{shape[0]} slices; say which with --layout cubes or --layout slices"
        )
    layout = asked or possible[0]
    return layout, f"shape {shape} taken for {layout}"


def _stacks(array: AbstractArray, per_realisation: int | None) -> list[Field]:
    number, channel = array.shape[0], len(array.shape) == 4
    size = number if per_realisation is None else per_realisation
    if size < 1 or number % size:
        raise UserError(
            f"{array.name}: {number} slices are not a whole number of realisations of {size}; "
            "correct --slices-per-realisation"
        )
    return [stack(array, start, start + size, channel=channel) for start in range(0, number, size)]
