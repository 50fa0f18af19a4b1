"""Files are the former or the new one, whatever interrupts their writing."""

import hashlib
from pathlib import Path

import pytest

from cosmogan.errors import UserError
from cosmogan.files import file_sha256, replaced, written


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
