"""P(k) and the cross spectrum against Pylians, powerbox, plain numpy and the binning of Rodriguez et al. 2018.

python power_spectrum.py [SLICE_FILE ...]      prints the table, rewrites power_spectrum.json; exit code 1 if it fails
"""

from __future__ import annotations

import contextlib
import io
import sys

import numpy as np
import torch
from samples import Sample, Table, largest_difference, maps, of_files, stored, write

from cosmogan.statistics.cross_spectrum import cross_power_spectrum
from cosmogan.statistics.power_spectrum import power_spectrum, radial_bins

# The transform of Pylians is in float32; all others differ by the order of sums in float64.
PYLIANS, FLOAT64 = 1e-6, 1e-12


def pylians(delta: np.ndarray, box_size: float) -> dict[str, np.ndarray]:
    """Rings of width k_F; independent modes only, the same average below Nyquist."""
    import Pk_library

    found = Pk_library.Pk_plane(delta.astype(np.float32), box_size, "None", 1, verbose=False)
    n = len(delta) // 2 - 1
    return {"k": found.k[:n], "power": found.Pk[:n], "modes": found.Nmodes[:n]}


def pylians_cross(first: np.ndarray, second: np.ndarray, box_size: float) -> dict[str, np.ndarray]:
    """XPk_plane multiplies by L / N^2 once more than Pk_plane, in its auto spectra as well; taken out here."""
    import Pk_library

    with contextlib.redirect_stdout(io.StringIO()):
        found = Pk_library.XPk_plane(first.astype(np.float32), second.astype(np.float32), box_size, "None", "None", 1)
    n = len(first) // 2 - 1
    return {"cross": found.XPk[:n] * len(first) ** 2 / box_size, "coherence": found.r[:n]}


def powerbox(delta: np.ndarray, box_size: float) -> dict[str, np.ndarray]:
    """Rings of width k_F; edges a little below the lattice, where powerbox's floating lengths are safe."""
    from powerbox import get_power

    edges = (np.arange(1, len(delta) // 2 + 1) - 1e-6) * 2 * np.pi / box_size
    found = get_power(delta, boxlength=box_size, bins=edges, nthreads=1)
    return {"k": np.asarray(found.bin_avg), "power": np.asarray(found.power)}


def plain_numpy(delta: np.ndarray, box_size: float) -> dict[str, np.ndarray]:
    """Full plane, floating wave numbers, np.bincount; the edges as for powerbox."""
    n, fundamental = len(delta), 2 * np.pi / box_size
    frequency = np.fft.fftfreq(n, box_size / n) * 2 * np.pi
    k = np.hypot(frequency[:, None], frequency).ravel()
    power = (np.abs(np.fft.fft2(delta)) ** 2).ravel() * box_size**2 / n**4
    ring = np.floor(k / fundamental + 1e-6).astype(int)
    modes, total, length = (np.bincount(ring, w)[1 : n // 2] for w in (None, power, k))
    return {"k": length / modes, "power": total / modes}


def rodriguez2018(delta: np.ndarray, box_size: float, *, half_plane: bool) -> dict[str, np.ndarray]:
    """Mean power between 50 logarithmic edges from the smallest to the largest k; k is the middle.

    The analysis code of that lineage averages over the half plane of rfft2, where the modes of the column k_y = 0 occur
    twice and all others once.
    """
    n = len(delta)
    rows = np.fft.fftfreq(n, box_size / n) * 2 * np.pi
    columns = np.fft.rfftfreq(n, box_size / n) * 2 * np.pi if half_plane else rows
    k = np.hypot(rows[:, None], columns)
    power = np.abs(np.fft.fft2(delta)[:, : len(columns)]) ** 2 * box_size**2 / n**4
    # A hair beyond the smallest and the largest k, so that rounding loses neither.
    low, high = np.log10(k[k > 0].min()) - 1e-15, np.log10(k.max()) + 1e-15
    edges = np.logspace(low, high, 50)
    found = np.full(49, np.nan)
    for i in range(49):
        chosen = (k >= edges[i]) & (k < edges[i + 1])
        if chosen.any():
            found[i] = power[chosen].mean()
    return {"k": 0.5 * (edges[1:] + edges[:-1]), "power": found}


def compare(table: Table, sample: Sample) -> dict[str, dict[str, list[float]]]:
    """Print the rows of one sample; return what the other codes found on its first slice."""
    delta, box = sample.density - 1, sample.box_size
    tensors = torch.from_numpy(delta)
    n_pixels = len(delta[0])
    bins = radial_bins(n_pixels)
    ours, k = power_spectrum(tensors, box).numpy(), bins.wavenumbers(box).numpy()
    first = {}
    for name, measure, tolerance in (
        ("Pylians Pk_plane", pylians, PYLIANS),
        ("powerbox get_power", powerbox, FLOAT64),
        ("numpy, full plane", plain_numpy, FLOAT64),
    ):
        found = [measure(one, box) for one in delta]
        power = np.stack([one["power"] for one in found])
        table.add("P(k)", name, sample.name, power.size, largest_difference(ours, power), tolerance)
        table.add("mean k", name, sample.name, len(k), largest_difference(k, found[0]["k"]), FLOAT64)
        if "modes" in found[0]:
            difference = float(np.abs(bins.n_modes.numpy() - found[0]["modes"]).max())
            table.add("independent modes", name, sample.name, len(k), difference, 0)
        first[name] = {key: value.tolist() for key, value in found[0].items()}

    published = radial_bins(n_pixels, "rodriguez2018")
    ours = power_spectrum(tensors, box, bins=published).numpy()
    filled = published.n_plane.numpy() > 0
    for name, half_plane in (("Rodriguez 2018, full plane", False), ("Rodriguez 2018, half plane", True)):
        found = [rodriguez2018(one, box, half_plane=half_plane) for one in delta]
        power = np.stack([one["power"] for one in found])
        assert (np.isfinite(power) == filled).all(), "other bins are empty"
        difference = largest_difference(ours[:, filled], power[:, filled])
        if half_plane:
            table.add("P(k), rodriguez2018", name, sample.name, power[:, filled].size, difference)
        else:
            table.add("P(k), rodriguez2018", name, sample.name, power[:, filled].size, difference, FLOAT64)
            middle = published.wavenumbers(box).numpy()[filled]
            table.add(
                "middle k", name, sample.name, filled.sum(), largest_difference(middle, found[0]["k"][filled]), 1e-13
            )
            first[name] = {"power": np.nan_to_num(found[0]["power"], nan=-1.0).tolist()}
    return first


def compare_cross(
    table: Table, sample: str, first: np.ndarray, second: np.ndarray, box: float
) -> dict[str, list[float]]:
    """Print the rows of one pair; return what Pylians found."""
    pair = [torch.from_numpy(one - 1)[None] for one in (first, second)]
    cross = cross_power_spectrum(*pair, box)[0].numpy()
    scale = np.sqrt(np.prod([power_spectrum(one, box)[0].numpy() for one in pair], axis=0))
    found = pylians_cross(first - 1, second - 1, box)
    against = "Pylians XPk_plane"
    difference = largest_difference(cross, found["cross"], scale)
    table.add("X(k) over sqrt(P P)", against, sample, len(cross), difference, PYLIANS)
    coherence = largest_difference(cross / scale, found["coherence"], 1.0)
    table.add("coherence", against, sample, len(cross), coherence, PYLIANS)
    return {key: value.tolist() for key, value in found.items()}


def main() -> int:
    table, results, small = Table(), {}, stored()
    for name, sample in small.items():
        results[name] = compare(table, sample)
    pair = [small[name].density[0] for name in ("even", "partner")]
    results["even x partner"] = {
        "Pylians XPk_plane": compare_cross(table, "stored counts", *pair, small["even"].box_size)
    }
    for sample in [*maps(), *of_files(sys.argv[1:])]:
        compare(table, sample)
        compare_cross(table, sample.name, *sample.density[:2], sample.box_size)
    write("power_spectrum", ["Pylians", "powerbox", "numpy"], results)
    return table.print()


if __name__ == "__main__":
    sys.exit(main())
