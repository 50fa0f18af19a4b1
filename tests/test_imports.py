"""Who may import whom: data flows one way, and the judge never sees the model, not even through others."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Parts of the package from the ground up; a part may import those of its own level and of the levels below.
LEVELS = [
    {"errors", "units", "text", "settings_file", "hdf5", "files", "seeds", "checks"},
    {"machine"},
    {"slices"},
    {"statistics", "transforms"},
    {"networks", "losses", "validation"},
    {"training", "emulator", "baselines"},
    {"cli", "demo"},
]
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}
# A score depends on two files only: validation cannot know which of them is real.
MODEL = {"transforms", "networks", "losses", "training", "emulator", "baselines"}
# What starts from a simulation makes it with the same code as `cosmogan simulate`.
WITH_SIMULATION = {"training", "emulator", "baselines"}
PHYSICS = ("data_tools.simulation", "data_tools.slicing")
BELOW_DATA_TOOLS = LEVELS[0] | LEVELS[1] | LEVELS[2]
# The modules that compute with torch, of the parts that otherwise start without it.
WITH_TORCH = {"cosmogan.machine.devices", "cosmogan.machine.threads"}
WITHOUT_TORCH = (
    "cosmogan.machine",
    "cosmogan.slices",
    "data_tools.files",
    "data_tools.published",
    "data_tools.slicing",
    "data_tools.snapshots",
)


def part(module: str) -> str:
    """The part of the package that a module belongs to, such as ``slices``; empty for ``cosmogan`` itself."""
    return module.partition(".")[2].partition(".")[0]


def imported(source: str) -> Iterator[str]:
    """Names of all modules that a source imports when it runs, at any depth of its code."""
    skipped = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped |= {id(inner) for statement in node.body for inner in ast.walk(statement)}
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """What each module imports: modules of ours, each with the packages around it, and ``torch``."""
    edges = {}
    for module, source in sources.items():
        found = set()
        for name in imported(source):
            # `cosmogan` itself imports nothing before it is asked for an emulator.
            name = "cosmogan.emulator.emulator" if name == "cosmogan.Emulator" else name
            words = name.split(".")
            around = {".".join(words[:length]) for length in range(2, len(words) + 1)}
            found |= (around & sources.keys()) | ({"torch"} & set(words[:1]))
        edges[module] = found - {module}
    return edges


def reach(edges: Mapping[str, set[str]], module: str) -> dict[str, list[str]]:
    """All that a module imports, directly or through others, each with the way there."""
    ways = {module: [module]}
    queue = [module]
    while queue:
        here = queue.pop(0)
        for there in sorted(edges.get(here, ())):
            if there not in ways:
                ways[there] = [*ways[here], there]
                queue.append(there)
    return ways


def violations(sources: Mapping[str, str]) -> list[str]:
    """Ways from a module to one that it must not import."""
    edges = graph(sources)
    bad = []
    for module in sources:
        own, ours = part(module), module.startswith("cosmogan.")
        for target, way in reach(edges, module).items():
            foreign = target.startswith("data_tools")
            foreign &= not (own in WITH_SIMULATION and target.startswith(PHYSICS))
            if not ours:
                wrong = target.startswith("cosmogan.") and part(target) not in BELOW_DATA_TOOLS
            elif own in LEVELS[-1]:
                wrong = False
            else:
                wrong = foreign or LEVEL.get(part(target), 0) > LEVEL[own]
                wrong |= own == "validation" and part(target) in MODEL
            wrong |= target == "torch" and module.startswith(WITHOUT_TORCH) and module not in WITH_TORCH
            if wrong:
                bad.append(" -> ".join(way))
    return bad


def test_imports_follow_the_architecture():
    sources = {}
    for folder in ("cosmogan", "data_tools"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            words = path.relative_to(ROOT).with_suffix("").parts
            sources[".".join(words).removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    del sources["cosmogan"]
    assert {part(name) for name in sources if name.startswith("cosmogan.")} <= LEVEL.keys()
    assert violations(sources) == []


@pytest.mark.parametrize(
    "sources",
    [
        {"cosmogan.validation.compare": "from cosmogan.training.gan import CosmoGAN", "cosmogan.training.gan": ""},
        {"cosmogan.slices.reader": "import torch"},
        {"cosmogan.slices.reader": "def f():\n    import torch.fft"},
        {
            "cosmogan.losses.base": "def f():\n    from cosmogan.emulator.generate import generate",
            "cosmogan.emulator.generate": "",
        },
        {"data_tools.slicing.slicing": "from cosmogan import Emulator", "cosmogan.emulator.emulator": ""},
        {"cosmogan.training.gan": "import data_tools.snapshots.swift", "data_tools.snapshots.swift": ""},
        {"cosmogan.networks.dcgan": "import data_tools.simulation.cola", "data_tools.simulation.cola": ""},
        # Through another module, and through the package around a module.
        {
            "data_tools.snapshots.swift": "from data_tools.simulation import cola",
            "data_tools.simulation.cola": "from torch import Tensor",
        },
        {
            "cosmogan.validation.compare": "from cosmogan.statistics.peaks import Peaks",
            "cosmogan.statistics": "import cosmogan.transforms",
            "cosmogan.statistics.peaks": "",
            "cosmogan.transforms": "",
        },
    ],
)
def test_forbidden_imports_are_found(sources: dict[str, str]):
    assert violations(sources)


def test_imports_for_type_checkers_are_none():
    assert not violations({"cosmogan.slices.reader": "if TYPE_CHECKING:\n    import torch\nelse:\n    import numpy"})
