"""The cubes of Feder, Berger and Stein 2020 (arXiv:2005.03050): particles per voxel of GADGET-2 runs."""

from __future__ import annotations

import re
from pathlib import Path

from cosmogan.errors import UserError
from data_tools.files.arrays import Hdf5Array
from data_tools.published.base import AbstractFormat, Contents, PublishedFile, Realisation, Request, cube

_NAME = re.compile(r"n(\d+)_(\d+)Mpc_.*?_z(\d+(?:\.\d+)?)_gridpart\.h(?:df)?5")
_KEY = re.compile(r"seed(\d+)")


class FederFormat(AbstractFormat):
    """Several cubes per file, ``/seed1``, ``/seed2``, ...; grid, box and redshift are in the name."""

    name = "feder"

    def recognises(self, path: Path, contents: Contents) -> bool:
        """Return whether there are cubes by the name of their seed."""
        return contents.kind == "hdf5" and any(map(_KEY.fullmatch, contents.names))

    def open(self, path: Path, contents: Contents, request: Request) -> PublishedFile:
        """Find the cubes."""
        match = _NAME.fullmatch(path.name)
        keys = {int(found[1]): found[0] for found in map(_KEY.fullmatch, contents.names) if found}
        if not keys:
            found = ", ".join(contents.names) or "nothing"
            raise UserError(f"{path}: has no cubes seed1, seed2, ...; it holds {found}")
        realisations = [
            Realisation(values=cube(Hdf5Array(path, key)), label=seed) for seed, key in sorted(keys.items())
        ]
        if len({realisation.values.shape for realisation in realisations}) > 1:
            raise UserError(f"{path}: its cubes differ in shape; expected one grid for all")
        if match is None:
            box, redshift = request.length("box_size", None, request.cosmology), request.require_redshift()
        else:
            box = request.length("box_size", float(match[2]), request.cosmology)
            redshift = float(match[3])
        return PublishedFile(
            path=path,
            format_name=self.name,
            layout="cubes",
            box_size=box,
            redshift=redshift,
            realisations=tuple(realisations),
            notes=(
                f"box {box:g} Mpc/h "
                + ("as asked" if request.box_size else "from the name, taken for Mpc/h; or say --box-size"),
            ),
        )
