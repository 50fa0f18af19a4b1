"""Training arrays of cosmoGAN (Mustafa et al. 2019, arXiv:1706.02390) and of cosmogan_pytorch, its later version."""

from __future__ import annotations

import re
from pathlib import Path

from cosmogan.errors import UserError
from cosmogan.units import Cosmology
from data_tools.files.arrays import NpyArray
from data_tools.published.base import AbstractFormat, Contents, PublishedFile, Realisation, Request, stack
from data_tools.published.cosmoflow import MEAN_COUNT, VOXEL, WHOLE_BOX

_PYTORCH_NAME = re.compile(r"(?:full_|norm_\d|.*Om[0-9.]+_Sg).*\.npy")
_PARAMETERS = re.compile(r"Om(\d+(?:\.\d+)?)_Sg(\d+(?:\.\d+)?)_H(\d+(?:\.\d+)?)(?:_|\.npy)")
# The a of s(x) = 2x / (x + a) - 1 in the code of cosmogan_pytorch.
_SCALE = 4.0
# Sigma in voxels of the Gaussian of its "with_smoothing" arrays, applied in three dimensions.
_SMOOTHED = 0.5


class CosmoganPytorchFormat(AbstractFormat):
    """Slices ``(n, 1, N, N)``, one voxel thick, cut from CosmoFlow universes at z = 0 and shuffled."""

    name = "cosmogan-pytorch"

    def recognises(self, path: Path, contents: Contents) -> bool:
        """Return whether name and shape are those of such an array."""
        shape = contents.shape
        return len(shape) == 4 and shape[1] == 1 and _PYTORCH_NAME.fullmatch(path.name) is not None

    def open(self, path: Path, contents: Contents, request: Request) -> PublishedFile:
        """Take what the code that cuts them says."""
        array = NpyArray(path)
        if len(array.shape) != 4 or array.shape[1] != 1 or array.shape[2] != array.shape[3]:
            raise UserError(f"{array.name}: has shape {array.shape}; expected (n, 1, N, N)")
        match = _PARAMETERS.search(path.name)
        cosmology = Cosmology()
        if match:
            omega_m, sigma8, hubble = map(float, match.groups())
            cosmology = Cosmology(omega_m=omega_m, sigma8=sigma8, h=hubble / 100)
        side = array.shape[3]
        smoothed = _SMOOTHED if "smoothing" in path.name else 0.0
        return PublishedFile(
            path=path,
            format_name=self.name,
            layout="slices",
            box_size=request.length("box_size", side * VOXEL, cosmology),
            thickness=request.length("thickness", VOXEL, cosmology),
            redshift=0.0,
            quantities=("counts", "scaled"),
            scale=_SCALE,
            mean=MEAN_COUNT,
            cosmology=cosmology,
            assignment="NGP",
            periodic=side == WHOLE_BOX,
            smoothed=smoothed,
            realisations=(
                Realisation(
                    values=stack(array, 0, array.shape[0], channel=True),
                    expected_means=() if request.mean else (MEAN_COUNT,),
                ),
            ),
            notes=(
                "slices of CosmoFlow universes: pixels of 1 Mpc/h, 1 Mpc/h thick, z = 0, one particle per voxel of the "
                "box on average; other boxes are said with --box-size and --thickness",
                "slices of all universes are shuffled, so all count as one realisation: nothing of this file can be "
                "held out for tests",
                *((f"smoothed by {smoothed:g} voxels in three dimensions already",) if smoothed else ()),
            ),
        )


class CosmoganFormat(AbstractFormat):
    """Maps ``(n, 256, 256)`` in [-1, 1]; what they are, in which box, has to be said."""

    name = "cosmogan"

    def recognises(self, path: Path, contents: Contents) -> bool:
        """Return whether the name is that of published maps."""
        return contents.kind == "npy" and len(contents.shape) == 3 and path.name.startswith("cosmogan_maps")

    def open(self, path: Path, contents: Contents, request: Request) -> PublishedFile:
        """Take what the user says."""
        array = NpyArray(path)
        if len(array.shape) != 3 or array.shape[1] != array.shape[2]:
            raise UserError(f"{array.name}: has shape {array.shape}; expected (n, N, N)")
        given = (request.scale, request.box_size, request.thickness, request.redshift, request.periodic)
        if None in given:
            raise UserError(
                f"{path}: the maps published with cosmoGAN are weak-lensing convergence in [-1, 1], which is no matter "
                "density in a box. If yours are densities scaled by s(x) = 2x / (x + a) - 1, say so with all of "
                "--scale (that a), --box-size, --thickness, --redshift and --periodic"
            )
        return PublishedFile(
            path=path,
            format_name=self.name,
            layout="slices",
            box_size=request.length("box_size", None, request.cosmology),
            thickness=request.length("thickness", None, request.cosmology),
            redshift=request.require_redshift(),
            quantity="scaled",
            realisations=(Realisation(values=stack(array, 0, array.shape[0])),),
            notes=(
                "the maps published with cosmoGAN are lensing convergence; these are taken for densities, as asked",
            ),
        )
