"""Score against slices seen: every network, and the spectral prior without its parts; same data, same time.

python -P benchmarks/emulators/networks.py TRAIN.h5 --minutes 20 --out FOLDER [--runs dcgan mlp] [--precision ...]

Each run is `cosmogan fit` in a process of its own. A trial of one minute finds how many slices it sees in the time, so
that its schedules end with it. Runs that are there are not made again. Writes FOLDER/networks.{json,md,png}.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from cosmogan.cli import main as cosmogan
from cosmogan.emulator.export import load_checkpoint
from cosmogan.networks.convolution import CircularConvolution
from cosmogan.networks.spectral_prior.generator import SpectralPriorGenerator

_TRIAL_MINUTES = 1
_VALIDATIONS = 12
_SHOWN = ("score", "power_spectrum_error", "histogram_error", "peaks_error", "euler_characteristic_error")
RUNS: dict[str, list[str]] = {
    "dcgan": ["--config", "networks/dcgan"],
    "mlp": ["--config", "networks/mlp"],
    "periodic": ["--config", "networks/periodic"],
    "spectral prior": ["--config", "networks/spectral_prior"],
    "spectral prior, no pins": ["--config", "networks/spectral_prior", "--model.pins", "null"],
    "spectral prior, white noise": ["--config", "networks/spectral_prior", "--model.generator", "WhitePriorGenerator"],
    "spectral prior, zero padding": ["--config", "networks/spectral_prior", "--model.generator", "ZeroPaddedGenerator"],
}


class WhitePriorGenerator(SpectralPriorGenerator):
    """The spectral prior without its spectrum: the network starts from white noise."""

    def set_prior(self, log_power: Tensor) -> None:
        """Take over a constant instead of ``ln P``."""
        super().set_prior(torch.zeros_like(log_power))


class ZeroPaddedGenerator(SpectralPriorGenerator):
    """The spectral prior with a network that sees zeros beyond the edge."""

    def __init__(
        self,
        n_pixels: int,
        width: int = 32,
        training_pixels: int | None = None,
        smoothing: float = 0.0,
        n_conditions: int = 0,
        tails: float | None = None,
    ) -> None:
        super().__init__(n_pixels, width, training_pixels, smoothing, n_conditions, tails)
        for module in self.network.modules():
            if isinstance(module, CircularConvolution):
                # The same layer, padded as torch does by default.
                module.__class__ = nn.Conv2d  # type: ignore[assignment]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", nargs="*", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--also", action="append", default=[], help="NAME=FOLDER of another run to show")
    parser.add_argument("--slices", type=int, help="slices seen, in place of the trial")
    parser.add_argument("--n-validation", type=int, default=8, help="realisations that judge")
    parser.add_argument("--fit", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit:
        # The process of one run: the generators above are known by name in it.
        sys.exit(cosmogan(["fit", *options.fit]))
    for name in options.runs:
        if not (folder(options.out, name) / "cost.json").exists():
            train(name, options)
    write(options)


def folder(out: Path, name: str) -> Path:
    return out / name.replace(",", "").replace(" ", "_")


def train(name: str, options: argparse.Namespace) -> None:
    common = [
        *RUNS[name],
        *("--data.path", str(options.data), "--data.n_validation", str(options.n_validation)),
        *("--trainer.precision", options.precision, "--trainer.accelerator", "cpu", "--overwrite"),
    ]
    wanted = options.slices
    if wanted is None:
        with tempfile.TemporaryDirectory() as trial:
            words = ["--out", trial, "--data.slices_per_epoch", "256", "--validation.n_mocks", "16"]
            rate = fit([*common, *words, "--trainer.max_time", f"00:00:{_TRIAL_MINUTES:02d}:00"])
        wanted = rate * 60 * options.minutes
    n_slices = round(wanted / _VALIDATIONS / 64) * 64 * _VALIDATIONS
    out = folder(options.out, name)
    words = ["--out", str(out), "--data.slices_per_epoch", str(n_slices // _VALIDATIONS)]
    started = time.monotonic()
    fit([*common, *words, "--model.max_slices", str(n_slices)])
    cost = {"n_slices": n_slices, "minutes": (time.monotonic() - started) / 60, "threads": torch.get_num_threads()}
    (out / "cost.json").write_text(json.dumps(cost))


def fit(words: list[str]) -> float:
    """Run `cosmogan fit` and return slices per second, validations included."""
    program = [sys.executable, "-P", __file__, "-", "--out", "-", "--fit", *words]
    done = subprocess.run(program, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return float(re.findall(r"([\d.e+]+) slices/s", done.stderr)[-1])


def write(options: argparse.Namespace) -> None:
    runs = {name: folder(options.out, name) for name in RUNS if (folder(options.out, name) / "cost.json").exists()}
    runs |= {name: Path(path) for name, path in (each.split("=", 1) for each in options.also)}
    curves: dict[str, Any] = {}
    for name, path in runs.items():
        if not (path / "cost.json").exists():
            took = (path / "last.ckpt").stat().st_mtime - (path / "config.yaml").stat().st_mtime
            seen = json.loads(load_checkpoint(path / "last.ckpt")["cosmogan"])["training"]["n_slices_seen"]
            (path / "cost.json").write_text(json.dumps({"n_slices": seen, "minutes": took / 60}))
        with (path / "metrics.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["score"]]
        curves[name] = {
            **json.loads((path / "cost.json").read_text()),
            "slices": [int(float(row["step"])) for row in rows],
            **{key: [float(row[key]) for row in rows] for key in _SHOWN},
        }
    (options.out / "networks.json").write_text(json.dumps(curves, indent=1))
    (options.out / "networks.md").write_text(table(curves))
    draw(curves, options.out / "networks.png")
    print(table(curves))


def table(curves: dict[str, Any]) -> str:
    lines = [
        "| network | slices seen | minutes | best score | P(k) | histogram | peaks | Euler | last score |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, run in curves.items():
        best = min(range(len(run["score"])), key=run["score"].__getitem__)
        errors = " | ".join(f"{100 * run[key][best]:.1f}%" for key in _SHOWN[1:])
        lines.append(
            f"| {name} | {run['n_slices']:,} | {run['minutes']:.1f} | {run['score'][best]:.2f} | {errors} | "
            f"{run['score'][-1]:.2f} |"
        )
    return "\n".join(lines) + "\n"


def draw(curves: dict[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained", sharex=True)
    labels = {
        "score": "score: median deviation in sigmas",
        "power_spectrum_error": "P(k), median of |mocks / held-out - 1|",
        "euler_characteristic_error": "Euler characteristic, the same",
    }
    for place, (key, label) in zip(axes, labels.items(), strict=True):
        for name, run in curves.items():
            style = "--" if "," in name else "-"
            place.plot(run["slices"], run[key], style, marker="o", ms=3, label=name)
        place.set(xlabel="slices seen", ylabel=label, yscale="log", xscale="log")
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
