"""The N-body cubes of 3DcosmoGAN (Perraudin et al. 2019, arXiv:1908.05519; Zenodo 3369574): particles per voxel."""

from __future__ import annotations

import re
from pathlib import Path

from cosmogan.errors import UserError
from cosmogan.units import RODRIGUEZ2018, Cosmology
from data_tools.files.arrays import Hdf5Array
from data_tools.published.base import AbstractFormat, Contents, PublishedFile, Realisation, Request, cube

_NAME = re.compile(r"(\d+)_nbody_(\d+)Mpc(?:_(\d+))?\.h(?:df)?5")
# The published boxes, in Mpc/h although the name says Mpc: 500 Mpc and 100 Mpc at h = 0.7.
_BOXES = (350, 70)
_BOXES_IN_MPC = (500, 100)


class ThreeDCosmoFormat(AbstractFormat):
    """One cube per file, ``/data`` of shape (256, 256, 256); box and number of the simulation are in the name."""

    name = "3dcosmo"
    options = ("dataset",)

    def recognises(self, path: Path, contents: Contents) -> bool:
        """Return whether name and data set are those of a cube."""
        return contents.kind == "hdf5" and "data" in contents.names and _NAME.fullmatch(path.name) is not None

    def open(self, path: Path, contents: Contents, request: Request) -> PublishedFile:
        """Read box and number from the name."""
        match = _NAME.fullmatch(path.name)
        published = float(match[2]) if match and int(match[2]) in _BOXES else None
        if published is None and request.box_size is None:
            raise UserError(
                f"{path}: its name is not one of those published, such as 256_nbody_350Mpc_0.h5 and "
                "256_nbody_70Mpc_0.h5 (where Mpc means Mpc/h); say how large the box is with --box-size"
            )
        array = Hdf5Array(path, request.dataset or "data")
        # Boxes of other sizes are runs of other people, who gave theirs such a name.
        theirs = match is None or int(match[2]) in (*_BOXES, *_BOXES_IN_MPC)
        cosmology = RODRIGUEZ2018 if theirs else Cosmology()
        box = request.length("box_size", published, cosmology)
        return PublishedFile(
            path=path,
            format_name=self.name,
            layout="cubes",
            box_size=box,
            redshift=0.0 if theirs else request.require_redshift(),
            quantity="counts",
            cosmology=cosmology,
            assignment="NGP" if theirs else "other",
            realisations=(
                Realisation(
                    values=cube(array),
                    label=int(match[3]) if match and match[3] else None,
                ),
            ),
            notes=(
                f"box {box:g} Mpc/h " + ("as asked" if request.box_size else "from the name, whose Mpc is Mpc/h"),
                "redshift 0 and cosmology of Rodriguez et al. 2018, which the file does not say"
                if theirs
                else "cosmology unknown: no box of this size was published; give --cosmology",
            ),
        )
