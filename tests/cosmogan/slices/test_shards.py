import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest

from cosmogan.errors import UserError
from cosmogan.slices import SliceMetadata, SliceReader, SliceWriter, check_slices, read_slices
from cosmogan.slices.shards import Shard, merge, write_index

METADATA = SliceMetadata(box_size=70.0, n_pixels=8, thickness=1.0)
SIZES = (3, 5, 2)


def write(path: Path, n: int, first: int, metadata: SliceMetadata = METADATA, **options: object) -> Path:
    """Slices whose pixels are their numbers, counted from 1."""
    numbers = 1.0 + first + np.arange(n)
    pixels = np.broadcast_to(numbers[:, None, None], (n, 8, 8)).astype(np.float32)
    with SliceWriter(path, metadata, n_slices=n, provenance={"seed": 1, "shard": path.name}, **options) as writer:
        writer.append(pixels, realisation=np.arange(first, first + n), axis=1, position=numbers % 70)
    return path


@pytest.fixture
def index(tmp_path: Path) -> Path:
    path = tmp_path / "mocks.h5"
    firsts = np.cumsum([0, *SIZES])
    for i, (first, size) in enumerate(zip(firsts[:-1], SIZES, strict=True)):
        write(Shard(i, 3).file(path), size, int(first), with_checksums=True)
    return write_index(path, [Shard(i, 3).file(path) for i in range(3)])


@pytest.mark.parametrize(
    ("n", "block", "total"), [(100, 16, 7), (100, 16, 3), (1, 16, 1), (1_000_000, 16, 64), (5, 1, 5)]
)
def test_shards_cover_all_slices_once_and_end_between_blocks(n: int, block: int, total: int):
    ranges = [Shard(i, total).slices(n, block=block) for i in range(total)]
    assert ranges[0].start == 0
    assert ranges[-1].stop == n
    assert all(a.stop == b.start and a.stop % block == 0 for a, b in pairwise(ranges))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 2 * block
    assert all(map(len, ranges))


def test_names_of_shards():
    assert Shard.parse("3/16").file(Path("runs/mocks.h5")) == Path("runs/mocks_00003-of-00016.h5")
    for text in ("3", "-1/4", "4/4", "0/0", "a/b", "1/2/3"):
        with pytest.raises(UserError, match="shard"):
            Shard.parse(text)


def test_an_index_is_a_slice_file(index: Path, monkeypatch: pytest.MonkeyPatch):
    assert check_slices(index) == []
    # Parts are found beside the index, wherever the process works.
    monkeypatch.chdir("/")
    with SliceReader(index) as reader:
        assert len(reader) == 10
        np.testing.assert_array_equal(reader.read()[:, 0, 0], 1 + np.arange(10))
        np.testing.assert_array_equal(reader.realisation, np.arange(10))
        assert reader.provenance == {"seed": 1, "n_shards": 3}
    with h5py.File(index) as file:
        assert file["shards/name"].asstr()[:].tolist() == [f"mocks_0000{i}-of-00003.h5" for i in range(3)]
        assert file["shards/n_slices"][:].tolist() == list(SIZES)
        assert len(set(file["shards/sha256"].asstr()[:])) == 3


def test_a_moved_index_with_its_shards_works(index: Path, tmp_path: Path):
    other = tmp_path / "elsewhere"
    other.mkdir()
    for path in tmp_path.glob("*.h5"):
        path.rename(other / path.name)
    assert check_slices(other / index.name) == []


def test_a_missing_shard_is_named_by_whoever_reads(index: Path, tmp_path: Path):
    (tmp_path / "mocks_00001-of-00003.h5").unlink()
    (problem,) = check_slices(index)
    assert "mocks_00001-of-00003.h5 is missing or damaged" in problem
    for read in (SliceReader, read_slices):
        with pytest.raises(UserError, match="is missing or damaged"):
            read(index)
    with pytest.raises(UserError, match="is missing or damaged"):
        merge([str(index)], out=str(tmp_path / "one.h5"))


def test_a_shorter_shard_is_found(index: Path, tmp_path: Path):
    shard = tmp_path / "mocks_00001-of-00003.h5"
    shard.unlink()
    write(shard, 4, 3, with_checksums=True)
    (problem,) = check_slices(index)
    assert "of shape (4, 8, 8); expected (5, 8, 8)" in problem


def test_more_parts_than_files_may_be_open_are_no_zeros(tmp_path: Path):
    # In a process of its own, as limits cannot be raised again.
    index, n = tmp_path / "mocks.h5", 80
    shards = [write(Shard(i, n).file(index), 1, i, with_checksums=True) for i in range(n)]
    write_index(index, shards)
    program = """
import resource, sys
from cosmogan.cli import main
index, one, *shards = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096))
codes = [main(["check", index])]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
codes += [main(["check", index]), main(["merge", *shards, "--out", one])]
print(codes)
"""
    words = [str(path) for path in (index, tmp_path / "one.h5", *shards)]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[0, 1, 0]"
    assert "has 80 parts, and this process may open 64 files" in done.stdout
    np.testing.assert_array_equal(read_slices(tmp_path / "one.h5").slices[:, 0, 0], 1 + np.arange(n))


def test_changed_pixels_are_found(index: Path, tmp_path: Path):
    shard = tmp_path / "mocks_00001-of-00003.h5"
    with h5py.File(shard, "r+") as file:
        # 5% off.
        file["slices"][2, 3, 4] *= 1.05
    (problem,) = check_slices(index)
    assert "slice 5, of mocks_00001-of-00003.h5, is not what was written" in problem
    (problem,) = check_slices(shard)
    assert "slice 2 is not what was written" in problem
    for inputs in ([str(index)], [str(path) for path in tmp_path.glob("mocks_*")]):
        with pytest.raises(UserError, match="is not what was written"):
            merge(inputs, out=str(tmp_path / "one.h5"))
    assert not (tmp_path / "one.h5").exists()


def test_a_shard_of_another_run_with_its_own_checksums_is_found(index: Path, tmp_path: Path):
    shard = tmp_path / "mocks_00001-of-00003.h5"
    shard.unlink()
    write(shard, 5, 4, with_checksums=True)
    assert check_slices(shard) == []
    assert "slice 3, of mocks_00001-of-00003.h5, is not what was written" in check_slices(index)[0]


def test_merged_is_one_file_whatever_the_order_of_shards(index: Path, tmp_path: Path):
    expected = read_slices(index)
    shards = sorted(map(str, tmp_path.glob("mocks_*")))
    for number, inputs in enumerate(([str(index)], shards, shards[::-1])):
        one = merge(inputs, out=str(tmp_path / f"one{number}.h5"), compression="gzip" if number else "none")
        assert check_slices(one) == []
        with SliceReader(one) as reader:
            assert reader.checksums is not None
            assert reader.provenance == {"seed": 1}
        found = read_slices(one)
        for name in ("slices", "realisation", "axis", "position"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_other_files_are_merged_as_given(tmp_path: Path):
    paths = [write(tmp_path / name, 2, first) for name, first in (("b.h5", 0), ("a.h5", 5))]
    one = merge([str(path) for path in paths], out=str(tmp_path / "one.h5"))
    assert read_slices(one).realisation.tolist() == [0, 1, 5, 6]


def test_what_does_not_belong_together_is_not_merged(index: Path, tmp_path: Path):
    out = str(tmp_path / "one.h5")
    shards = sorted(map(str, tmp_path.glob("mocks_*")))
    with pytest.raises(UserError, match="shard 0 of its 3 is not among the files to merge, nor are 1 others"):
        merge(shards[1:2], out=out)
    other = SliceMetadata(box_size=70.0 * 1.05, n_pixels=8, thickness=1.0)
    wide = write(tmp_path / "wide.h5", 2, 0, other)
    half = write(tmp_path / "half.h5", 2, 0, dtype="float16")
    for path, message in ((wide, "box_size 70 Mpc/h against 73.5 Mpc/h"), (half, "float32 against float16")):
        with pytest.raises(UserError, match=message):
            merge([str(index), str(path)], out=out)
    with pytest.raises(UserError, match="no such file"):
        merge([str(tmp_path / "none.h5")], out=out)
    with pytest.raises(UserError, match="is one of the files to merge"):
        merge([str(index)], out=str(index), overwrite=True)
    with pytest.raises(UserError, match="exists already"):
        merge(shards, out=str(wide))
    with pytest.raises(UserError, match="has no checksums"):
        write_index(tmp_path / "i.h5", [wide])
    assert not Path(out).exists()
