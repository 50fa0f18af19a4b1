"""P(k) of cosmogan against Pylians and powerbox on the same maps.

Run `measure` in an environment that has the other package and `compare` in one that has cosmogan; see README.md.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
# (name, pixels, side in Mpc/h, contrast of the lognormal field, seed): even and odd, both boxes of the paper.
MAPS = (
    ("smooth_350", 256, 350.0, 0.5, 1),
    ("peaked_70", 256, 70.0, 2.0, 2),
    ("small", 64, 100.0, 1.0, 3),
    ("odd", 63, 100.0, 1.0, 4),
)


def make_map(n_pixels: int, contrast: float, seed: int) -> np.ndarray:
    """Overdensity of a lognormal field with a red spectrum, float32 values held exactly in float64."""
    rng = np.random.default_rng(seed)
    modes = np.fft.rfft2(rng.normal(size=(n_pixels, n_pixels)))
    k = np.hypot(np.fft.fftfreq(n_pixels)[:, None], np.fft.rfftfreq(n_pixels)) * n_pixels
    field = np.fft.irfft2(modes / (1 + k), s=(n_pixels, n_pixels))
    density = np.exp(contrast * field / field.std())
    return (density / density.mean() - 1).astype(np.float32).astype(np.float64)


def run_pylians(delta: np.ndarray, box_size: float) -> dict[str, list[float]]:
    """Rings of width k_F up to the corner."""
    import Pk_library as pylians

    found = pylians.Pk_plane(delta.astype(np.float32), box_size, "None", 1)
    return {
        "k": list(map(float, found.k)),
        "power": list(map(float, found.Pk)),
        "modes": list(map(float, found.Nmodes)),
    }


def run_powerbox(delta: np.ndarray, box_size: float) -> dict[str, list[float]]:
    """Rings of width k_F; edges a little below the lattice, where powerbox's floating lengths are safe."""
    from powerbox import get_power

    edges = (np.arange(1, len(delta) // 2 + 1) - 1e-6) * 2 * np.pi / box_size
    found = get_power(delta, boxlength=box_size, bins=edges, nthreads=1)
    return {"k": np.asarray(found.bin_avg).tolist(), "power": np.asarray(found.power).tolist()}


# Pylians transforms in float32; powerbox in float64.
TOLERANCE = {"Pylians": 1e-6, "powerbox": 1e-13}
RUNNERS = {"Pylians": run_pylians, "powerbox": run_powerbox}


def measure(package: str) -> None:
    """Write what another package finds to ``<package>.json`` beside this script."""
    maps = {name: RUNNERS[package](make_map(n, contrast, seed), box) for name, n, box, contrast, seed in MAPS}
    record = {"package": package, "version": version(package), "maps": maps}
    (HERE / f"{package.lower()}.json").write_text(json.dumps(record, indent=1) + "\n")


def compare() -> bool:
    """Print the largest relative differences over the rings below Nyquist; return whether all are tolerable."""
    import torch

    from cosmogan.statistics.power_spectrum import power_spectrum, radial_bins

    agree = True
    print("package          map          rings   P(k)      k         modes")
    for package in RUNNERS:
        path = HERE / f"{package.lower()}.json"
        if not path.exists():
            continue
        record = json.loads(path.read_text())
        for name, n_pixels, box_size, contrast, seed in MAPS:
            found = record["maps"][name]
            bins = radial_bins(n_pixels)
            delta = torch.from_numpy(make_map(n_pixels, contrast, seed))
            ours = power_spectrum(delta[None], box_size, bins=bins)[0].numpy()
            k = bins.wavenumbers(box_size).numpy()
            theirs, their_k = (np.array(found[key][: len(ours)]) for key in ("power", "k"))
            modes = "-"
            if "modes" in found:
                modes = f"{np.abs(np.array(found['modes'][: len(ours)]) - bins.n_modes.numpy()).max():.0f}"
            agree &= float(np.abs(theirs / ours - 1).max()) < TOLERANCE[package] and modes in ("-", "0")
            print(
                f"{package + ' ' + record['version']:<16} {name:<12} {len(ours):<7} "
                f"{np.abs(theirs / ours - 1).max():<9.1e} {np.abs(their_k / k - 1).max():<9.1e} {modes}"
            )
    return agree


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("measure").add_argument("package", choices=sorted(RUNNERS))
    steps.add_parser("compare")
    arguments = parser.parse_args()
    if arguments.step == "measure":
        measure(arguments.package)
    elif not compare():
        raise SystemExit("P(k) disagrees by more than the precision of the other package")
