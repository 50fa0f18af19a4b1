"""The universes of CosmoFlow (Mathuriya et al. 2018, arXiv:1808.04728), run with PyCOLA: particles per voxel."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cosmogan.errors import UserError
from cosmogan.units import Cosmology
from data_tools.files.arrays import Field, Hdf5Array, hdf5_member, open_hdf5
from data_tools.published.base import AbstractFormat, Contents, PublishedFile, Realisation, Request
from data_tools.published.tables import check_parameters

# Voxels along the side of a whole box, each 1 Mpc/h wide and with one particle on average.
WHOLE_BOX = 512
VOXEL = 1.0
MEAN_COUNT = 1.0
_NAMES = {"Omega_m": "Omega_m", "sigma_8": "sigma8", "N_spec": "n_s", "n_s": "n_s", "H_0": "h"}
_NUMBER = re.compile(r"_a?(\d+)\.h(?:df)?5$")


class CosmoFlowFormat(AbstractFormat):
    """One universe per file: ``/full`` of shape (512, 512, 512, redshifts), parameters beside it."""

    name = "cosmoflow"

    def recognises(self, path: Path, contents: Contents) -> bool:
        """Return whether the data sets are those of a universe."""
        return contents.kind == "hdf5" and {"full", "physPar"} <= set(contents.names)

    def open(self, path: Path, contents: Contents, request: Request) -> PublishedFile:
        """Choose the redshift, read the parameters."""
        array = Hdf5Array(path, "full")
        if len(array.shape) != 4 or len(set(array.shape[:3])) != 1:
            raise UserError(f"{array.name}: has shape {array.shape}; expected (n, n, n, redshifts)")
        side = array.shape[0]
        with open_hdf5(path) as handle:
            redshifts = [float(z) for z in _values(path, handle, "redshifts")]
            values = [float(value) for value in _values(path, handle, "physPar")]
            names = [_text(name) for name in _values(path, handle, "namePar")]
            seed = handle.attrs.get("seed9")
        if len(redshifts) != array.shape[3]:
            raise UserError(f"{path}: /redshifts has {len(redshifts)} entries and /full {array.shape[3]} fields")
        if len(names) != len(values) or not names:
            raise UserError(f"{path}: /namePar has {len(names)} entries and /physPar {len(values)}")
        conditions = {_NAMES.get(name, name): value for name, value in zip(names, values, strict=True)}
        if "H_0" in names:
            conditions["h"] /= 100
        check_parameters(f"{path}: /physPar", conditions)
        which = _choose(path, redshifts, request.redshift)
        whole = side == WHOLE_BOX or request.box_size is not None
        note = f"box of {side} voxels" + (", as asked" if request.box_size else ", 1 Mpc/h each")
        if not whole:
            note = (
                f"{side} voxels are a part of the box of {WHOLE_BOX}: 1 Mpc/h each, not periodic, normalised by the "
                "mean of the box, one particle per voxel; a whole box is said with --box-size"
            )
        match = _NUMBER.search(path.name)
        return PublishedFile(
            path=path,
            format_name=self.name,
            layout="cubes",
            box_size=request.length("box_size", side * VOXEL, Cosmology(h=conditions.get("h"))),
            redshift=redshifts[which],
            quantity="counts",
            mean=None if whole else MEAN_COUNT,
            assignment="NGP",
            periodic=whole,
            realisations=(
                Realisation(
                    values=Field(array, (side, side, side), lambda a, b, c: (a, b, c, which)),
                    label=int(seed) if isinstance(seed, np.integer) else int(match[1]) if match else None,
                    conditions=conditions,
                    expected_means=() if request.box_size or request.mean else (MEAN_COUNT,),
                ),
            ),
            notes=(note,),
        )


def _choose(path: Path, redshifts: list[float], asked: float | None) -> int:
    if asked is None and len(redshifts) == 1:
        return 0
    if asked in redshifts:
        return redshifts.index(asked)
    found = ", ".join(f"{z:g}" for z in redshifts)
    raise UserError(
        f"{path}: holds redshifts {found}; choose one with --redshift" + ("" if asked is None else f", not {asked:g}")
    )


def _values(path: Path, handle: h5py.File, name: str) -> np.ndarray:
    """Return a small data set of one dimension."""
    dataset = hdf5_member(handle, name)
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 1 or dataset.size > 1000:
        raise UserError(f"{path}: has no list /{name}; expected a file with full, namePar, physPar and redshifts")
    try:
        values: np.ndarray = dataset[:]
        return values if dataset.dtype.kind in "SO" else values.astype(np.float64)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"{path}: /{name} cannot be read ({str(error).splitlines()[0]})") from None


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
