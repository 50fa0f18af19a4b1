"""The command ``cosmogan baseline``."""

from __future__ import annotations

import sys
from pathlib import Path

from tqdm import tqdm

from cosmogan import __version__
from cosmogan.baselines.fit import METHODS
from cosmogan.baselines.training import measure_training
from cosmogan.checks import require_least, require_seed
from cosmogan.errors import UserError
from cosmogan.files import file_sha256
from cosmogan.slices import SliceReader, SliceWriter, require_absent

_BLOCK_PIXELS = 2**20
# Deviation of the expected P(k) from the training slices' that is worth a word.
_NOTABLE = 0.02
_COLA, _STEPS = "cola", 8


def baseline(
    training: str,
    *,
    method: str,
    n: int,
    out: str,
    seed: int = 0,
    steps: int | None = None,
    particles: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write mock slices that need no training: an emulator that does not beat them is not worth its own.

    "lognormal" is a lognormal field with the power spectrum of the training slices. "copula" has their power spectrum
    and their pixel distribution. Both are made of Gaussian fields, so every other statistic shows what these two miss.
    "cola" is a simulation with few steps, its slabs mapped to power spectrum and pixels of the training slices. Slice i
    depends on the training file, the method, the seed and i only.

    Parameters
    ----------
    training
        Slice file of simulations.
    method
        "lognormal", "copula" or "cola".
    n
        Number of slices.
    out
        Slice file to write, in the quantity of the training file: counts for counts.
    seed
        Seed of the mocks, 0 to 2147483647; it is their realisation number, but for slices of "cola", which are cut from
        boxes.
    steps
        Time steps of "cola"; 8 by default.
    particles
        Particles along a side of "cola"; by default as many as the simulations of the training file had.
    overwrite
        Replace an existing file.

    Returns
    -------
        The file written.

    Raises
    ------
    UserError
        If the training file cannot be fitted to, or the output exists.
    """
    path = Path(out)
    known = (*METHODS, _COLA)
    if method not in known:
        raise UserError(f"method: expected {', '.join(known[:-1])} or {known[-1]}, found {method!r}")
    if method != _COLA and not (steps is None and particles is None):
        raise UserError(f"steps, particles: are those of the simulations of cola, and the method is {method}")
    require_least(1, steps=_STEPS if steps is None else steps)
    require_least(1, n=n)
    require_seed(seed)
    require_absent(path, overwrite=overwrite)
    if path.resolve() == Path(training).resolve():
        raise UserError(f"{path}: is the training file; choose another name for the mocks")
    if method == _COLA:
        return _simulated(
            Path(training), path, n=n, seed=seed, steps=_STEPS if steps is None else steps, particles=particles
        )
    with SliceReader(training) as reader:
        measured = measure_training(reader)
    fitted = METHODS[method](measured)
    if fitted.power_deviation > _NOTABLE:
        deviation = fitted.power_deviation
        by_much = f"{deviation:.0%}" if deviation < 1 else f"a factor of {1 + deviation:.3g}"
        print(
            f"{training}: the {method} does not reach the P(k) of these slices; expect it to be off by up to {by_much} "
            "below 0.9 of Nyquist",
            file=sys.stderr,
        )
    provenance = {
        "command": "cosmogan baseline",
        "cosmogan": __version__,
        "method": method,
        "training": Path(training).name,
        "training_sha256": file_sha256(training),
        "power_deviation": fitted.power_deviation,
        "seed": seed,
    }
    size = max(1, _BLOCK_PIXELS // measured.metadata.n_pixels**2)
    with (
        SliceWriter(path, measured.metadata, n_slices=n, provenance=provenance, overwrite=overwrite) as writer,
        tqdm(total=n, unit="slice", desc=path.name, disable=None) as bar,
    ):
        for first in range(0, n, size):
            block = fitted.field.sample(min(size, n - first), seed=seed, first=first)
            writer.append(block, realisation=seed)
            bar.update(len(block))
    return path


def _simulated(training: Path, path: Path, *, n: int, seed: int, steps: int, particles: int | None) -> Path:
    """Write slices of coarse simulations, which must not be there yet or may be replaced."""
    # Only here: it needs the network, and CAMB.
    from cosmogan.baselines.cola import fit_cola

    with SliceReader(training) as reader:
        if reader.metadata.quantity != "density":
            raise UserError(f"{training}: holds {reader.metadata.quantity}; the baseline cola makes densities")
        emulator = fit_cola(reader, steps=steps, particles=particles)
    provenance = emulator.provenance | {
        "command": "cosmogan baseline",
        "cosmogan": __version__,
        "method": _COLA,
        "training": training.name,
        "training_sha256": file_sha256(training),
        "seed": seed,
    }
    labels = emulator.labels(range(n))
    assert labels is not None
    with (
        SliceWriter(path, emulator.metadata, n_slices=n, provenance=provenance, overwrite=True) as writer,
        tqdm(total=n, unit="slice", desc=path.name, disable=None) as bar,
    ):
        for block in emulator.blocks(n, seed=seed):
            rows = slice(writer.n_written, writer.n_written + len(block))
            realisation, axis, position = (each[rows] for each in labels)
            writer.append(block, realisation=realisation, axis=axis, position=position)
            bar.update(len(block))
    return path
