"""A training step: the engine beside a plain loop of torch and beside a public program, what it reaches, what pays.

python benchmarks/speed/training.py PART ... [--case WORDS] [--public FOLDER] [--out FILE.json]
parts: engine, public, data, options, compile; without any, the tables of the file are printed

Loops take turns in one process, a few steps each; times are per step, median of the turns with the smallest and the
largest; ratios are medians of the ratios turn by turn. On a CPU processor time is measured. Results are
written to the JSON file as soon as they are there, beside those of earlier calls, and the tables of all are
printed at the end. The data are lognormal slices, made first.
"""

import argparse
import json
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from training_loops import Loop, Plain, Public, Relay, engine, model, slices, spread
from validate import write

Results = Iterator[dict[str, Any]]

_SPECTRAL_PRIOR, _DCGAN = "demo/box500", "rodriguez2018/box100"
# 3 x 3 convolutions of (channels, side), as in the networks.
_CONVOLUTIONS = ((32, 32), (64, 16), (64, 32), (128, 16), (256, 8), (64, 64))
_MATRIX = 8192


@dataclass(frozen=True)
class Case:
    """Networks by their recipe, slices of one size; turns hold whole cycles of a lazy penalty."""

    name: str
    recipe: str
    n_pixels: int
    batch_size: int
    steps_per_turn: int

    @property
    def title(self) -> str:
        """Name in tables."""
        return f"{self.name}, {self.n_pixels}², batch {self.batch_size}"


CASES = {
    "cpu": (
        Case("spectral prior", _SPECTRAL_PRIOR, 64, 16, 8),
        Case("DCGAN", _DCGAN, 64, 16, 2),
        Case("DCGAN", _DCGAN, 256, 2, 1),
    ),
    "cuda": (Case("spectral prior", _SPECTRAL_PRIOR, 256, 64, 40), Case("DCGAN", _DCGAN, 256, 64, 40)),
}


class Bench:
    """Data, folders and settings that all parts share."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.device, self.n_turns, self.public = arguments.device, arguments.turns, arguments.public
        self.folder = folder
        self.cases = [case for case in CASES[self.device] if arguments.case in case.title]
        self._n_folders = 0

    def data(self, n_pixels: int) -> str:
        """Return a file of slices with 8 realisations, 512 slices or fewer of large sides."""
        path = self.folder / f"{n_pixels}.h5"
        if not path.exists():
            write(path, min(512, 2**23 // n_pixels**2), n_pixels, 1.0, 0)
        return str(path)

    def out(self) -> Path:
        """Return a new folder."""
        self._n_folders += 1
        return self.folder / f"run{self._n_folders}"

    def engine(self, case: Case, *, constant: bool = False, precision: str = "32-true", **changes: Any) -> Loop:
        """Return the loop of `cosmogan fit` with some attributes of its module changed."""
        path = self.data(case.n_pixels)
        module = model(case.recipe, path)
        if layout := changes.pop("layout", None):
            module.generator.to(memory_format=layout)
            module.critic.to(memory_format=layout)
        if "every" in changes:
            module.penalty.every = changes.pop("every")
        for name, value in changes.items():
            setattr(module, name, value)
        data = slices(path, case.batch_size, constant)
        return engine(module, data, self.out(), device=self.device, precision=precision)

    def plain(self, case: Case) -> Plain:
        """Return the same training without a framework."""
        path = self.data(case.n_pixels)
        training = slices(path, case.batch_size).training
        return Plain(model(case.recipe, path), training, case.batch_size, device=self.device)

    def run(self, loops: dict[str, Loop], steps_per_turn: int) -> dict[str, list[float]]:
        """Return the seconds per step of each turn of each loop."""
        return Relay(loops, n_turns=self.n_turns, steps_per_turn=steps_per_turn, device=self.device).run()


def measure_engine(bench: Bench) -> Results:
    """Measure engine and plain loop, and the engine in bfloat16; count operations, and those the machine can do."""
    ceilings = {str(dtype).removeprefix("torch."): ceiling(dtype, bench) for dtype in (torch.float32, torch.bfloat16)}
    for case in bench.cases:
        module = model(case.recipe, bench.data(case.n_pixels))
        every = 0 if module.penalty is None else module.penalty.every
        if every and case.steps_per_turn % every:
            raise SystemExit(f"{case.title}: turns of {case.steps_per_turn} steps do not hold whole cycles of {every}")
        loops = {
            "plain loop": bench.plain(case),
            "cosmogan fit": bench.engine(case),
            "cosmogan fit, bf16-mixed": bench.engine(case, precision="bf16-mixed"),
        }
        result: dict[str, Any] = {"case": case.title, "seconds": bench.run(loops, case.steps_per_turn)}
        pair, penalty = operations(bench, case)
        result |= {"slices": case.batch_size, "every": every, "pair": pair, "penalty": penalty, "ceilings": ceilings}
        yield result


def measure_public(bench: Bench) -> Results:
    """Measure the public program and the engine with networks of the same sizes."""
    if bench.public is None:
        raise SystemExit("public: needs --public FOLDER; benchmarks/speed/README.md says how to prepare it")
    case = Case("DCGAN", _DCGAN, 128, 16, 1)
    path = bench.data(case.n_pixels)
    module = model(case.recipe, path, generator__latent_size=64)
    data = slices(path, case.batch_size)
    values = module.transform(data.training)
    loops: dict[str, Loop] = {
        name: Public(bench.public, values, case.batch_size, bench.out(), bare=bare, device=bench.device)
        for name, bare in (("public program", False), ("public program, adversarial loss alone", True))
    }
    loops["cosmogan fit"] = engine(module, data, bench.out(), device=bench.device)
    seconds = bench.run(loops, case.steps_per_turn)
    yield {"case": case.title, "slices": case.batch_size, "seconds": seconds}


def measure_data(bench: Bench) -> Results:
    """Measure the engine with its data path and with one constant batch."""
    for case in bench.cases:
        loops = {"one constant batch": bench.engine(case, constant=True), "drawn and turned": bench.engine(case)}
        yield {"case": case.title, "slices": case.batch_size, "seconds": bench.run(loops, case.steps_per_turn)}


def measure_options(bench: Bench) -> Results:
    """Measure the engine with one option after the other."""
    for case in bench.cases:
        module = model(case.recipe, bench.data(case.n_pixels))
        options: dict[str, dict[str, Any]] = {
            "as in the recipe": {},
            "bf16-mixed": {"precision": "bf16-mixed"},
            "n_microbatches: 4": {"n_microbatches": 4},
        }
        # The memory format that the networks do not ask for.
        last = any(w.ndim == 4 and not w.is_contiguous() for w in module.parameters())
        name, layout = ("contiguous", torch.contiguous_format) if last else ("channels_last", torch.channels_last)
        options[f"weights {name}"] = {"layout": layout}
        if module.penalty is not None:
            options |= {"no penalty": {"penalty": None}, "penalty at every step": {"every": 1}}
        loops = {name: bench.engine(case, **changes) for name, changes in options.items()}
        yield {"case": case.title, "slices": case.batch_size, "seconds": bench.run(loops, case.steps_per_turn)}


def measure_compile(bench: Bench) -> Results:
    """Measure the engine with compiled networks; compiling falls into the turn that is not counted."""
    if bench.device == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        raise SystemExit("compile: torch.compile needs a C++ compiler on a CPU, and there is none")
    case = bench.cases[0]
    loops = {"compile: none": bench.engine(case), "compile: default": bench.engine(case, compile_mode="default")}
    yield {"case": case.title, "slices": case.batch_size, "seconds": bench.run(loops, case.steps_per_turn)}


def operations(bench: Bench, case: Case) -> tuple[int, int]:
    """Return the floating-point operations of a critic and a generator step, and those of one penalty, on a batch."""
    plain = bench.plain(case)
    batch = plain.density[: case.batch_size]
    counts = []
    # A lazy penalty is taken at step 0 and not at step 1.
    for plain.n_steps in (1, 0):
        with FlopCounterMode(display=False) as counter:
            plain.step(batch)
        counts.append(counter.get_total_flops())
    return counts[0], counts[1] - counts[0]


def ceiling(dtype: torch.dtype, bench: Bench) -> float:
    """Return the most operations per second: of convolutions on a CPU, of matrix products on a GPU."""
    if bench.device == "cuda":
        left, right = (torch.randn(_MATRIX, _MATRIX, device="cuda", dtype=dtype) for _ in range(2))
        return 2 * _MATRIX**3 / _fastest(lambda: left @ right, bench.device)
    best = 0.0
    for channels, side in _CONVOLUTIONS:
        for layout in (torch.contiguous_format, torch.channels_last):
            images = torch.randn(16, channels, side, side, dtype=dtype).contiguous(memory_format=layout)
            weight = torch.randn(channels, channels, 3, 3, dtype=dtype).contiguous(memory_format=layout)
            n_operations = 2 * 9 * channels * images.numel()
            tracked = images.clone().requires_grad_(), weight.clone().requires_grad_()
            gradient = torch.randn_like(images)

            def forward(images: torch.Tensor = images, weight: torch.Tensor = weight) -> None:
                functional.conv2d(images, weight, padding=1)

            def both(tracked: tuple = tracked, gradient: torch.Tensor = gradient) -> None:
                torch.autograd.grad(functional.conv2d(*tracked, padding=1), tracked, gradient)

            best = max(best, n_operations / _fastest(forward, bench.device))
            best = max(best, 3 * n_operations / _fastest(both, bench.device))
    return best


def _fastest(work: Callable[[], object], device: str, *, repeats: int = 12) -> float:
    """Return the least seconds; processor time on a CPU."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    seconds = []
    for _ in range(repeats):
        if device == "cuda":
            torch.cuda.synchronize()
        began = clock()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - began)
    # The first one plans and allocates.
    return min(seconds[1:])


def tables(results: dict[str, Any]) -> str:
    """Return everything measured as Markdown."""
    lines = []
    for part in (name for name in PARTS if name in results):
        lines += [f"### {part}", ""]
        lines += ["| | | ms per step | ms per slice | time over that of the first |", "|---|---|---|---|---|"]
        for case, result in results[part].items():
            first = next(iter(result["seconds"].values()))
            for name, seconds in result["seconds"].items():
                middle, low, high = (1e3 * value for value in spread(seconds))
                ratios = spread([b / a for a, b in zip(first, seconds, strict=True)])
                lines.append(
                    f"| {case} | {name} | {middle:.4g} ({low:.4g} to {high:.4g}) | "
                    f"{middle / result['slices']:.3g} | {ratios[0]:.3f} ({ratios[1]:.3f} to {ratios[2]:.3f}) |"
                )
        if part == "engine":
            lines += ["", *rates(results[part])]
        runs = list(results[part].values())
        machines = ", ".join(sorted({run["machine"] for run in runs}))
        turns, loads = ", ".join(str(run["turns"]) for run in runs), ", ".join(run["load"] for run in runs)
        lines += ["", f"{machines}; turns: {turns}; load of the machine: {loads}.", ""]
    return "\n".join(lines)


def rates(results: dict[str, Any]) -> list[str]:
    """Return the table of operations per second."""
    lines = [
        "| | precision | critic and generator step (GFLOP per slice) | penalty (GFLOP per slice) | reached (GFLOP/s) | "
        "ceiling (GFLOP/s) | share |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, result in results.items():
        per_step = result["pair"] + (result["penalty"] / result["every"] if result["every"] else 0)
        for loop, dtype in (("cosmogan fit", "float32"), ("cosmogan fit, bf16-mixed", "bfloat16")):
            reached, most = per_step / spread(result["seconds"][loop])[0], result["ceilings"][dtype]
            pair, penalty = (result[name] / result["slices"] / 1e9 for name in ("pair", "penalty"))
            lines.append(
                f"| {case} | {dtype} | {pair:.3g} | {penalty:.3g} | {reached / 1e9:.4g} | {most / 1e9:.4g} | "
                f"{reached / most:.0%} |"
            )
    return lines


PARTS = {
    "engine": measure_engine,
    "public": measure_public,
    "data": measure_data,
    "options": measure_options,
    "compile": measure_compile,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; none: only print the tables of --out")
    parser.add_argument("--public", type=Path, help="prepared folder of the public program")
    parser.add_argument("--out", type=Path, default=Path("training.json"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--case", default="", help="only those whose title has this in it, such as 64²")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - PARTS.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU")
    torch.set_num_threads(arguments.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    L.seed_everything(0, verbose=False)
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    place = torch.cuda.get_device_name() if arguments.device == "cuda" else f"threads: {arguments.threads}"
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(arguments, Path(name))
        for part in arguments.parts:
            load = os.getloadavg()[0]
            for result in PARTS[part](bench):
                result |= {"machine": f"{place}, torch {torch.__version__}", "turns": arguments.turns}
                load, before = os.getloadavg()[0], load
                result["load"] = f"{before:.1f} to {load:.1f}"
                results.setdefault(part, {})[result.pop("case")] = result
                arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(tables(results))


if __name__ == "__main__":
    main()
