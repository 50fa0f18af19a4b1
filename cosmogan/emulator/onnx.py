"""An emulator as an ONNX file, for programs without torch: latents in, 1 + delta out."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from cosmogan.emulator.latents import LATENTS_RECIPE, latents
from cosmogan.errors import UserError
from cosmogan.files import written
from cosmogan.slices import require_absent

if TYPE_CHECKING:
    from cosmogan.emulator.emulator import Emulator

INPUT, OUTPUT = "latents", "density"
# Both runtimes round in float32; measured differences are 2e-6.
_RELATIVE, _ABSOLUTE = 1e-4, 1e-6
_SAME_PIXELS = 0.99
_CHECKED = 3


def write_onnx(emulator: Emulator, path: Path, *, overwrite: bool = False) -> None:
    """Write generator and transform as one ONNX graph, and compare slices of onnxruntime with those of torch.

    The graph takes ``latents``, float32, shape ``(n, *latent_shape)`` with n free, and gives ``density``, shape
    ``(n, n_pixels, n_pixels)``. Its metadata hold what the pixels are and how the latents of a slice are drawn.

    Raises
    ------
    UserError
        If packages are missing, the file exists or cannot be written, or the slices differ by more than 1e-4 in more
        than one pixel in a hundred: where pixels are rounded to whole numbers of particles, the last bit of a sum
        decides now and then.
    """
    require_absent(path, overwrite=overwrite)
    if emulator.boxes is not None:
        raise UserError(
            f"{path}: {type(emulator.generator).__name__} starts from simulations, which no ONNX file can hold; take "
            "an emulator that starts from noise, such as one of SpectralPriorGenerator"
        )
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"{path}: ONNX needs {error.name}; pip install 'cosmogan[onnx]'") from None
    # One slice would be taken for a fixed number of them.
    example = torch.from_numpy(latents(range(_CHECKED), emulator.generator.latent_shape, seed=0))
    program = _graph(_Portable(emulator).eval(), example.to("cpu"))
    for name, text in _description(emulator).items():
        program.model.metadata_props[name] = text
    with written(path) as beside:
        program.save(beside)
        session = onnxruntime.InferenceSession(beside, providers=["CPUExecutionProvider"])
        # Another number of slices than the graph was traced with.
        for n in (_CHECKED, 1):
            (found,) = session.run(None, {INPUT: example[:n].numpy()})
            expected = emulator.density(example[:n]).cpu().numpy()
            if np.isclose(found, expected, rtol=_RELATIVE, atol=_ABSOLUTE).mean() < _SAME_PIXELS:
                worst = np.abs(found - expected).max()
                raise UserError(f"{path}: slices of onnxruntime differ from those of torch by up to {worst:.2g}")


class _Portable(nn.Module):
    """Generator and transform with operations that ONNX has."""

    def __init__(self, emulator: Emulator) -> None:
        super().__init__()
        self.generator = emulator.generator.portable().cpu()
        self.transform = None if self.generator.emits_density else copy.deepcopy(emulator.transform).cpu()

    def forward(self, latent: Tensor) -> Tensor:
        made = self.generator(latent)
        return made if self.transform is None else self.transform.inverse(made)


def _graph(module: nn.Module, example: Tensor) -> Any:
    # The exporter warns of packages that it does not need.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"), torch.no_grad():
            return torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                verbose=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("n_slices")},),
            )
    finally:
        logger.setLevel(level)


def _description(emulator: Emulator) -> dict[str, str]:
    provenance = {name: str(value) for name, value in emulator.provenance.items()}
    return provenance | {"metadata": json.dumps(emulator.metadata.to_dict()), "latents": LATENTS_RECIPE}
