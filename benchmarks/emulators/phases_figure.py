r"""Start, mock and simulation of the same phases side by side, and how far the mock knows the simulation.

python phases_figure.py gravity100-64 simulated.h5 --out gravity100-64-phases.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from cosmogan import Emulator
from cosmogan.networks.gravity_start import GravityStartGenerator
from cosmogan.slices import SliceReader
from cosmogan.statistics.cross_spectrum import cross_power_spectrum
from cosmogan.statistics.power_spectrum import PowerSpectrum, power_spectrum
from cosmogan.statistics.summary_vector import LOG_OFFSET
from cosmogan.units import format_length
from cosmogan.validation.report.figures import mark_short_range

# Slabs shown, far from each other; slices that r(k) is measured on.
SHOWN, N_MEASURED = (20, 84, 148), 384
STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("emulator")
    parser.add_argument("simulations", type=Path, help="slice file of `cosmogan simulate`")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    emulator = Emulator.load(arguments.emulator).like(arguments.simulations)
    assert emulator.boxes is not None
    assert isinstance(emulator.generator, GravityStartGenerator)
    n = min(N_MEASURED, emulator.boxes.n_slices or 0)
    mocks = emulator.sample(n)
    per_box = emulator.boxes.per_box
    boxes = [range(first, min(first + per_box, n)) for first in range(0, n, per_box)]
    starts = torch.cat([emulator.generator.start_density(emulator.boxes.take(box, 0)) for box in boxes]).numpy()
    with SliceReader(arguments.simulations) as reader:
        truth, metadata = reader.density(0, n), reader.metadata
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 5.9), dpi=110)
        places = {"left": 0.02, "right": 0.94, "top": 0.89, "bottom": 0.03}
        grid = figure.add_gridspec(3, 4, width_ratios=[1, 1, 1, 1.25], wspace=0.06, hspace=0.04, **places)
        low, high = np.percentile(truth[truth > 0], [1, 99.9])
        norm = LogNorm(max(low, 1e-3 * high), high)
        for row, place in enumerate(SHOWN):
            for column, (name, shown) in enumerate((("start", starts), ("mock", mocks), ("simulation", truth))):
                axes = figure.add_subplot(grid[row, column], xticks=[], yticks=[])
                axes.imshow(np.maximum(shown[place], norm.vmin), norm=norm, cmap="magma", interpolation="nearest")
                if row == 0:
                    axes.set_title(name)
        axes = figure.add_subplot(grid[1, 3])
        axes.yaxis.tick_right()
        k = PowerSpectrum().centres(metadata)
        for name, shown, color in (("start", starts, "#888888"), ("mock", mocks, "#d55e00")):
            axes.plot(k, coherence(shown, truth, metadata.box_size), color=color, label=name)
        axes.set(xscale="log", ylim=(0, 1.02), xlabel="k, h/Mpc", title="r of ln(1 + δ + .05)\nwith the simulation")
        mark_short_range(axes.xaxis)
        axes.axvline(metadata.nyquist / 2, color="#bbbbbb", linewidth=0.8)
        axes.legend(frameon=False, loc="lower left")
        length = format_length(metadata.box_size, metadata.cosmology.h)
        figure.suptitle(f"{Path(arguments.emulator).stem}: {length}, the same phases", fontsize=11)
        FigureCanvasAgg(figure).print_png(arguments.out)
    for name, shown in (("start", starts), ("mock", mocks)):
        half = np.abs(k - metadata.nyquist / 2).argmin()
        r = coherence(shown, truth, metadata.box_size)
        print(
            f"{name}: r of ln(1 + delta + .05) at k = {k[half]:.3g} h/Mpc, half of Nyquist: {r[half]:.3f} ({n} slices)"
        )


def coherence(one: np.ndarray, other: np.ndarray, box_size: float) -> np.ndarray:
    """Return r(k) of the logarithms of two sets of slices of the same phases, shape ``(n_rings,)``."""
    fields = [torch.log(torch.from_numpy(each).double() + LOG_OFFSET) for each in (one, other)]
    # Rings leave out the mean.
    cross = cross_power_spectrum(*fields, box_size).mean(0)
    own = [power_spectrum(field, box_size).mean(0) for field in fields]
    return (cross / (own[0] * own[1]).sqrt()).numpy()


if __name__ == "__main__":
    main()
