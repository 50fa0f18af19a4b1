import subprocess
import sys
from pathlib import Path

import pytest

from cosmogan.cli import main
from cosmogan.slices import write_example


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / "slices.h5"
    write_example(path)
    return path


def test_help_answers_without_heavy_imports():
    program = "import sys; from cosmogan.cli import main; main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("False")
    for command in ("simulate", "slice", "fit", "export", "generate", "validate", "check", "info", "demo"):
        assert f"\n  {command} " in done.stdout


@pytest.mark.parametrize(
    "command", ["simulate", "slice", "export", "generate", "validate", "check", "info", "emulators", "demo", "fit"]
)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"cosmogan {command}" in capsys.readouterr().out


def test_check_and_info(example: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["check", str(example)]) == 0
    assert main(["info", str(example)]) == 0
    assert "70 Mpc/h (100 Mpc)" in capsys.readouterr().out
    example.write_bytes(example.read_bytes()[:2000])
    assert main(["check", str(example)]) == 1


def test_dashes_and_flags_as_people_type_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["simulate", "--box-size", "100 Mpc", "--particles", "8", "--steps=2", "--out", str(tmp_path / "s")]
    assert main(words) == 0
    written = Path(capsys.readouterr().out.splitlines()[-1])
    assert written.exists()
    cut = ["slice", str(written), "--pixels", "4", "--slabs", "4", "--out", str(tmp_path / "a.h5")]
    assert main(cut) == 0
    assert main(cut) == 2
    assert main([*cut, "--overwrite"]) == 0
    assert main([*cut, "--overwrite", "true"]) == 0
    assert main([*cut, "--overwrite", "false"]) == 2
    assert main(["check", str(tmp_path / "a.h5")]) == 0


BAD_WORDS = {
    "no such command": ["simmulate"],
    "invalid or missing length unit": ["simulate", "--box-size", "500", "--out", "x"],
    "not a number": ["simulate", "--box-size", "500 Mpc", "--particles", "many", "--out", "x"],
    "unknown option": ["generate", "e", "-n", "3", "--out", "x", "--colour", "red"],
    "missing option": ["generate", "e"],
    "unknown emulator": ["generate", "box900", "-n", "3", "--out", "x"],
    "missing snapshot": ["slice", "none.hdf5", "--pixels", "8", "--out", "x.h5"],
    "missing file": ["info", "none.h5"],
    "nothing to check": ["check", "none.h5"],
    "odd number of files": ["validate", "a.h5", "--out", "r"],
    "missing pair": ["validate", "a.h5", "b.h5", "--out", "r"],
    "missing checkpoint": ["export", "none.ckpt", "--out", "e.safetensors"],
    "unknown recipe": ["fit", "--config", "demo/box900", "--data.path", "a.h5"],
    "unknown key": ["fit", "--config", "demo/box500", "--data.path", "a.h5", "--modl.seed", "1"],
    "missing slices": ["fit", "--config", "demo/box500", "--data.path", "none.h5", "--out", "run"],
}


@pytest.mark.parametrize("name", BAD_WORDS)
def test_bad_words_give_one_sentence_and_exit_code_two(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert main(BAD_WORDS[name]) == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("cosmogan ")
    assert "Traceback" not in message
    assert len(message.splitlines()) == 1
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
