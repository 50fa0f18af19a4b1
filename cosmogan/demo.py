"""The whole chain for both boxes of the paper on two CPU cores: simulate, slice, fit, export, generate, validate."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from cosmogan.emulator.export import export_checkpoint
from cosmogan.emulator.file import shipped_emulators
from cosmogan.emulator.generate import generate
from cosmogan.errors import UserError
from cosmogan.training.fit import fit
from cosmogan.validation.command import validate
from data_tools.simulation.simulate import simulate
from data_tools.slicing.slicing import slice_snapshots

_BOXES = {"box100": "100 Mpc", "box500": "500 Mpc"}
_REPORT = "report"
# Names of the mocks in the report.
_TRAINED_HERE, _SHIPPED = "trained here", "shipped"


def demo(
    *,
    out: str = "runs/demo",
    particles: int = 128,
    pixels: int = 64,
    training_seeds: str = "1:12",
    test_seeds: str = "1001:1006",
    max_slices: int | None = None,
    mocks: int = 1000,
    overwrite: bool = False,
) -> int:
    """Simulate, train, generate and validate for 100 Mpc and 500 Mpc.

    Two sets of small N-body simulations are run with COLA, cut into slices, a GAN is trained on the slices of one part
    of the realisations, and its mocks are compared with the realisations that it never saw; beside them stand those of
    the emulator that ships for such slices. Everything else is made from nothing; 10 to 15 minutes on two CPU
    cores.

    Parameters
    ----------
    out
        Folder for all files of the demonstration.
    particles
        Particles along a side of each simulation.
    pixels
        Pixels along a side of a slice; slabs are as thick as a pixel is wide.
    training_seeds
        Simulations to train on; the last two choose the checkpoint.
    test_seeds
        Simulations to compare with; no network has seen them, those of the shipped emulators neither.
    max_slices
        Length of each training in slices seen; that of the recipe by default.
    mocks
        Mock slices per box.
    overwrite
        Start over in a folder that holds a demonstration.

    Returns
    -------
        Exit code 0.

    Raises
    ------
    UserError
        If the folder is in use.
    """
    root = Path(out)
    if root.exists() and any(root.iterdir()) and not overwrite:
        raise UserError(f"{root}: holds files already; choose another --out or add --overwrite")
    for name in (*_BOXES, _REPORT):
        shutil.rmtree(root / name, ignore_errors=True)
    costs: list[tuple[str, float]] = []
    candidates: list[str] = []
    references: list[str] = []
    for name, box_size in _BOXES.items():
        folder = root / name
        _announce(f"{box_size}: simulate")
        started = time.perf_counter()
        common = {"box_size": box_size, "particles": particles, "out": str(folder / "snapshots")}
        training = simulate(**common, seeds=training_seeds)  # type: ignore[arg-type]
        test = simulate(**common, seeds=test_seeds)  # type: ignore[arg-type]
        started = _book(costs, f"{name}: simulate {len(training) + len(test)} boxes of {particles}^3", started)

        _announce(f"{box_size}: slice")
        data, reference = str(folder / "train.h5"), str(folder / "test.h5")
        for snapshots, file in ((training, data), (test, reference)):
            slice_snapshots([str(path) for path in snapshots], out=file, pixels=pixels, slabs=pixels, smoothing=1.0)
        started = _book(costs, f"{name}: slice", started)

        _announce(f"{box_size}: fit")
        words = ["--config", f"demo/{name}", "--data.path", data, "--out", str(folder / "fit")]
        if max_slices is not None:
            words += [f"--model.max_slices={max_slices}"]
        checkpoint = fit(words)
        started = _book(costs, f"{name}: fit", started)

        _announce(f"{box_size}: export and generate")
        emulator = export_checkpoint(str(checkpoint), out=str(folder / "emulator.safetensors"))
        generate(str(emulator), n=mocks, out=str(folder / "mocks.h5"))
        candidates.append(f"{_TRAINED_HERE}={folder / 'mocks.h5'}")
        references.append(reference)
        shipped = f"{name}-{pixels}"
        # Eight particles per voxel, as those have.
        if shipped in shipped_emulators() and particles == 2 * pixels:
            generate(shipped, n=mocks, out=str(folder / "shipped.h5"))
            candidates.append(f"{_SHIPPED}={folder / 'shipped.h5'}")
        started = _book(costs, f"{name}: export and generate {mocks} slices", started)

    _announce("validate against simulations that the networks never saw")
    started = time.perf_counter()
    validate(mocks=candidates, reference=references, out=str(root / _REPORT))
    _book(costs, "validate both boxes", started)
    print("\nCost of each stage")
    for stage, seconds in [*costs, ("total", sum(seconds for _, seconds in costs))]:
        print(f"  {stage:42s} {seconds:6.0f} s")
    print(f"\nReport: {root / _REPORT / 'index.html'}")
    return 0


def _announce(stage: str) -> None:
    print(f"\n== {stage}", flush=True)


def _book(costs: list[tuple[str, float]], stage: str, started: float) -> float:
    now = time.perf_counter()
    costs.append((stage, now - started))
    return now
