"""What a mock slice costs and how good it is: simulation, lognormal fields, copula, emulator; same pixels, one run.

    python -P benchmarks/speed/worth.py emulator.safetensors train.h5 test.h5 [--simulate] [--lpicola L-PICOLA]

`train.h5` and `test.h5` are slices of different realisations of the emulator's box. With `--simulate` a box of as many
particles as eight per voxel is run for its cost. powerbox, where installed, makes lognormal fields of that P(k). The
fits of copula and lognormal count, the training of the emulator does not. With `--lpicola` the public N-body code of
that name (github.com/CullanHowlett/l-picola; -DMEMORY_MODE -DGAUSSIAN -DGADGET_STYLE) is timed as well: as many
particles, mesh, steps and MPI processes as the embedded simulation has particles, mesh, steps and threads.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from cosmogan import Emulator
from cosmogan.baselines.command import baseline
from cosmogan.emulator.generate import generate
from cosmogan.slices import SliceMetadata, SliceReader, SliceWriter
from cosmogan.statistics.accumulator import Accumulator
from cosmogan.statistics.measurement import measure
from cosmogan.statistics.power_spectrum import PowerSpectrum
from cosmogan.validation.compare import compare_candidates
from cosmogan.validation.report.table import format_table
from cosmogan.validation.thresholds import load_thresholds
from cosmogan.validation.verdict import judge_all, mean_excess
from data_tools.simulation.realisations import default_steps
from data_tools.simulation.simulate import simulate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("emulator")
    parser.add_argument("training", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--lpicola", type=Path, help="compiled program")
    arguments = parser.parse_args()
    n, metadata = arguments.n, Emulator.load(arguments.emulator).metadata
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        makers: dict[str, Callable[[Path], object]] = {
            "emulator": lambda out: generate(arguments.emulator, n=n, out=str(out)),
            "copula": lambda out: baseline(str(arguments.training), method="copula", n=n, out=str(out)),
            "lognormal": lambda out: baseline(str(arguments.training), method="lognormal", n=n, out=str(out)),
            "powerbox": lambda out: from_powerbox(arguments.training, n, out),
        }
        costs: dict[str, float] = {}
        for label, make in makers.items():
            started = time.perf_counter()
            try:
                make(folder / f"{label}.h5")
            except (ImportError, ValueError) as error:
                # powerbox refuses spectra that no lognormal field has.
                print(f"{label} is left out: {error}")
                continue
            costs[label] = (time.perf_counter() - started) / n
        comparisons = compare_candidates({label: folder / f"{label}.h5" for label in costs}, arguments.test)
        # Three axes of as many slabs as pixels.
        side, n_slices = 2 * metadata.n_pixels, 3 * metadata.n_pixels
        if arguments.lpicola is not None:
            run_file = write_run_file(folder, metadata, side)
            command = ["mpirun", "--allow-run-as-root", "-n", str(torch.get_num_threads()), arguments.lpicola, run_file]
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
            costs["L-PICOLA"] = (time.perf_counter() - started) / n_slices
        if arguments.simulate:
            started = time.perf_counter()
            simulate(box_size=f"{metadata.box_size} Mpc/h", particles=side, seeds="1", out=str(folder / "snapshots"))
            costs["embedded simulation"] = (time.perf_counter() - started) / n_slices
    thresholds = load_thresholds()
    judged = {c.name: list(judge_all(c, thresholds).values()) for c in comparisons}
    print("\n| | seconds per slice | emulator is faster by | statistics that pass | times what is asked, mean |")
    print("|---|---|---|---|---|")
    for label, cost in costs.items():
        verdicts = judged.get(label, [])
        passed = f"{sum(v.passed for v in verdicts)} of {len(verdicts)}" if verdicts else "reference"
        excess = f"{mean_excess(verdicts):.2g}" if verdicts else "-"
        print(f"| {label} | {cost:.2g} | {cost / costs['emulator']:.2g} | {passed} | {excess} |")
    print()
    print(format_table(comparisons, thresholds))


def write_run_file(folder: Path, metadata: SliceMetadata, side: int) -> Path:
    """Write what L-PICOLA needs for a box like that of the slices."""
    cosmology, steps = metadata.cosmology, default_steps(metadata.box_size)
    (folder / "redshifts.dat").write_text(f"{metadata.redshift}, {steps}\n")
    values: dict[str, object] = {
        "OutputDir": f"{folder}/",
        "FileBase": "lpicola",
        "OutputRedshiftFile": folder / "redshifts.dat",
        "NumFilesWrittenInParallel": 1,
        "UseCOLA": 1,
        "Buffer": 1.5,
        "Nmesh": 2 * side,
        "Nsample": side,
        "Box": metadata.box_size,
        "Init_Redshift": 9.0,
        "Seed": 1,
        "SphereMode": 0,
        "WhichSpectrum": 2,
        "WhichTransfer": 0,
        "FileWithInputSpectrum": "none",
        "FileWithInputTransfer": "none",
        "Omega": cosmology.omega_m,
        "OmegaBaryon": cosmology.omega_b,
        "OmegaLambda": 1 - (cosmology.omega_m or 0),
        "HubbleParam": cosmology.h,
        "Sigma8": cosmology.sigma8,
        "PrimordialIndex": cosmology.n_s,
        "StepDist": 0,
        "DeltaA": 0,
        "nLPT": -2.5,
        "UnitLength_in_cm": 3.085678e24,
        "UnitMass_in_g": 1.989e43,
        "UnitVelocity_in_cm_per_s": 1e5,
        "InputSpectrum_UnitLength_in_cm": 3.085678e24,
    }
    path = folder / "run.dat"
    path.write_text("".join(f"{name} {value}\n" for name, value in values.items()))
    return path


def from_powerbox(training: Path, n: int, out: Path) -> None:
    """Write lognormal fields of powerbox with the P(k) of the training slices, as a user of powerbox would."""
    import powerbox

    statistic = PowerSpectrum(to_corner=True)
    with SliceReader(training) as reader:
        metadata = reader.metadata
        accumulator: Accumulator = measure(reader, [statistic]).accumulators["power_spectrum"]
    k, power = statistic.centres(metadata), accumulator.mean()
    known = np.isfinite(power) & (power > 0)

    def spectrum(wavenumber: np.ndarray) -> np.ndarray:
        return np.exp(np.interp(np.log(np.maximum(wavenumber, k[0])), np.log(k[known]), np.log(power[known])))

    with SliceWriter(out, metadata, n_slices=n, provenance={"command": "powerbox"}) as writer:
        for i in range(n):
            field = powerbox.LogNormalPowerBox(
                N=metadata.n_pixels, dim=2, pk=spectrum, boxlength=metadata.box_size, seed=i
            ).delta_x()
            writer.append((1 + field[None]).astype(np.float32), realisation=0)


if __name__ == "__main__":
    main()
