"""Who may import whom: data flows one way, and the judge never sees the model."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Modules by level; a module may import its own level and those below.
LEVELS = [
    {"devices", "errors", "units", "slices", "ranks", "processes", "shards", "checkpoint_file"},
    {"statistics", "transforms", "networks", "losses", "ema", "threads", "stores", "conditions"},
    {"data", "gan", "emulator", "emulator_file", "card", "export", "latents", "onnx_file", "samples", "sizes"},
    {"generate", "mock_run", "baselines", "validation", "callbacks", "log", "interruption", "run_folder"},
    {"cli", "fit", "inspection", "demo", "dry_run", "recipe_errors"},
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
MODEL = {
    "gan",
    "networks",
    "losses",
    "emulator",
    "emulator_file",
    "export",
    "generate",
    "mock_run",
    "transforms",
    "data",
}
WITHOUT_TORCH = (
    "cosmogan/slices/",
    "cosmogan/units.py",
    "cosmogan/processes.py",
    "cosmogan/ranks.py",
    "cosmogan/shards.py",
    "data_tools/convert.py",
    "data_tools/published/",
    "data_tools/assignment",
    "data_tools/slabs.py",
    "data_tools/slice_job.py",
    "data_tools/slicing.py",
    "data_tools/snapshots/",
    "data_tools/workers.py",
)


def imported(source: str) -> set[str]:
    """Names of all modules that a source imports, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def violations(path: str, source: str) -> list[str]:
    """Imports of one file that the architecture forbids."""
    parts = path.removesuffix(".py").split("/")
    bad = []
    for name in imported(source):
        target = name.split(".")
        if target[0] == "tests" or (target[0] == "torch" and path.startswith(WITHOUT_TORCH)):
            bad.append(f"{path} imports {name}")
        foreign = target[0] == "cosmogan" and len(target) > 1 and target[1] not in LEVELS[0] | {"__version__"}
        if parts[0] == "data_tools" and foreign:
            bad.append(f"{path} imports {name}")
        if parts[0] == "cosmogan" and parts[1] not in ("__init__", "cli", "fit", "inspection", "demo"):
            if target[0] == "data_tools":
                bad.append(f"{path} imports {name}")
            if target[0] == "cosmogan" and len(target) > 1 and LEVEL.get(target[1], 0) > LEVEL[parts[1]]:
                bad.append(f"{path} imports {name}")
            if parts[1] == "validation" and target[0] == "cosmogan" and len(target) > 1 and target[1] in MODEL:
                bad.append(f"{path} imports {name}")
    return bad


@pytest.mark.parametrize(
    "path", sorted(p.relative_to(ROOT) for d in ("cosmogan", "data_tools") for p in (ROOT / d).rglob("*.py")), ids=str
)
def test_imports_follow_the_architecture(path: Path):
    assert violations(path.as_posix(), (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("cosmogan/validation/compare.py", "from cosmogan.gan import CosmoGAN"),
        ("cosmogan/slices/reader.py", "import torch"),
        ("cosmogan/losses/base.py", "def f():\n    from cosmogan.generate import generate"),
        ("data_tools/slicing.py", "from cosmogan import emulator"),
        ("cosmogan/gan.py", "import data_tools.cola"),
    ],
)
def test_forbidden_imports_are_found(path: str, source: str):
    assert violations(path, source)
