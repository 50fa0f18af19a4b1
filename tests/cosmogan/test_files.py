"""Files are the former or the new one, whatever interrupts their writing."""

import hashlib
import shutil
from pathlib import Path

import pytest

from cosmogan.errors import UserError
from cosmogan.files import file_sha256, replaced, require_room, written


def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("former")
    with replaced(path, durable=True) as beside:
        beside.write_text("new")
        assert path.read_text() == "former"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interruption_leaves_the_former_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("former")
    with pytest.raises(KeyboardInterrupt), replaced(path) as beside:
        beside.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


def test_errors_of_writing_are_sentences(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"a\.txt: cannot be written \(Not a directory\)"),
        written(tmp_path / "file/b/a.txt"),
    ):
        pass
    with (
        pytest.raises(UserError, match=r"a\.txt: cannot be written \(odd\)"),
        written(tmp_path / "a.txt", RuntimeError),
    ):
        raise RuntimeError("odd")
    # Others are no errors of writing.
    with pytest.raises(ZeroDivisionError), written(tmp_path / "a.txt"):
        raise ZeroDivisionError
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_checksum_is_that_of_all_bytes(tmp_path: Path):
    content = bytes(range(256)) * 1000
    (tmp_path / "a").write_bytes(content)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    (tmp_path / "a").write_bytes(content + b"x")
    assert file_sha256(tmp_path / "a") != hashlib.sha256(content).hexdigest()


def test_room_is_that_of_the_disk_and_of_the_part_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=2_000_000)
    monkeypatch.setattr("cosmogan.files.shutil.disk_usage", lambda folder: usage)
    for output in (tmp_path, tmp_path / "new" / "folder"):
        require_room(output, 2_000_000)
        with pytest.raises(UserError, match=rf"{output}: needs 3 MB and 2 MB are free in {tmp_path}; make fewer"):
            require_room(output, 3_000_000)
    (tmp_path / "a.h5.part").write_bytes(bytes(1_000_000))
    require_room(tmp_path / "a.h5", 3_000_000)
    # Nothing is made beforehand.
    assert [one.name for one in tmp_path.iterdir()] == ["a.h5.part"]
