import pickle
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from cosmogan.errors import UserError
from cosmogan.slices import (
    SliceMetadata,
    SliceReader,
    SliceSet,
    SliceWriter,
    check_slices,
    density_from_counts,
    describe_slices,
    read_slices,
    write_example,
    write_slices,
)
from cosmogan.units import RODRIGUEZ2018


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / "example.h5"
    write_example(path)
    return path


@pytest.mark.parametrize("quantity", ["density", "counts"])
def test_examples_are_valid_and_read_back(tmp_path: Path, quantity: str):
    path = tmp_path / "slices.h5"
    metadata = write_example(path, quantity=quantity)
    assert check_slices(path) == []
    read = read_slices(path)
    assert read.metadata == metadata
    assert read.slices.shape == (24, 16, 16)
    assert read.slices.dtype == (np.uint16 if quantity == "counts" else np.float32)
    assert np.unique(read.realisation).tolist() == [0, 1, 2, 3]


def test_every_field_of_the_metadata_survives(tmp_path: Path):
    metadata = SliceMetadata(
        box_size=70.0,
        n_pixels=8,
        thickness=1.25,
        redshift=0.5,
        quantity="counts",
        mean_count=2.0,
        smoothing=0.0,
        assignment="CIC",
        periodic=False,
        cosmology=RODRIGUEZ2018,
    )
    pixels = np.arange(128, dtype=np.uint16).reshape(2, 8, 8)
    original = SliceSet(pixels, np.array([3, 4]), np.array([0, 255]), np.array([1.5, np.nan]), metadata)
    write_slices(tmp_path / "a.h5", original, provenance={"command": "test"})
    read = read_slices(tmp_path / "a.h5")
    assert read.metadata == metadata
    np.testing.assert_array_equal(read.slices, pixels)
    np.testing.assert_array_equal(read.realisation, [3, 4])
    np.testing.assert_array_equal(read.axis, [0, 255])
    np.testing.assert_array_equal(read.position, [1.5, np.nan])
    assert SliceMetadata.from_dict(metadata.to_dict()) == metadata


def conditioned(path: Path) -> SliceSet:
    """Write 24 slices whose conditions differ from slice to slice."""
    write_example(path)
    whole = read_slices(path)
    values = {"Omega_m": np.linspace(0.1, 0.5, 24), "M_seed": np.arange(24) * 1e5}
    whole = replace(whole, conditions=values, condition_units={"M_seed": "Msun/h"})
    write_slices(path, whole, overwrite=True)
    return whole


def test_conditions_survive_with_their_units(tmp_path: Path):
    written = conditioned(tmp_path / "a.h5")
    read = read_slices(tmp_path / "a.h5")
    assert check_slices(tmp_path / "a.h5") == []
    assert read.conditions.keys() == {"Omega_m", "M_seed"}
    for name, values in written.conditions.items():
        np.testing.assert_array_equal(read.conditions[name], values)
    assert read.condition_units == {"M_seed": "Msun/h"}
    described = describe_slices(tmp_path / "a.h5")
    assert "Omega_m 0.1 to 0.5" in described
    assert "M_seed 0 to 2.3e+06 Msun/h" in described


def test_conditions_grow_with_the_slices(tmp_path: Path, example: Path):
    whole = read_slices(example)
    with SliceWriter(tmp_path / "grown.h5", whole.metadata, conditions={"sigma8": ""}) as writer:
        writer.append(whole.slices[:5], realisation=0, conditions={"sigma8": 0.8})
        writer.append(whole.slices[5:8], realisation=1, conditions={"sigma8": np.array([0.7, 0.75, 0.9])})
    read = read_slices(tmp_path / "grown.h5")
    np.testing.assert_array_equal(read.conditions["sigma8"], [0.8] * 5 + [0.7, 0.75, 0.9])


@pytest.mark.parametrize("given", [{}, {"sigma8": 0.8, "h": 0.7}, {"Sigma8": 0.8}, {"sigma8": np.nan}])
def test_other_conditions_than_announced_are_refused(tmp_path: Path, example: Path, given: dict):
    whole = read_slices(example)
    with (
        pytest.raises(UserError, match="condition"),
        SliceWriter(tmp_path / "a.h5", whole.metadata, conditions={"sigma8": ""}) as writer,
    ):
        writer.append(whole.slices, realisation=0, conditions=given)
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize("name", ["", "a/b", "..", "sigma 8", "nul\0"])
def test_names_of_conditions_are_words(tmp_path: Path, example: Path, name: str):
    with pytest.raises(UserError, match="letters"):
        SliceWriter(tmp_path / "a.h5", read_slices(example).metadata, conditions={name: ""})
    assert list(tmp_path.glob("a*")) == []


def test_files_without_conditions_have_none(example: Path):
    assert read_slices(example).conditions == {}
    with h5py.File(example) as handle:
        assert "conditions" not in handle


def _condition(values: np.ndarray):
    return lambda handle: handle.__setitem__("conditions/sigma8", values)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_condition(np.full(24, np.inf)), "/conditions/sigma8 holds inf at slice 0"),
        (_condition(np.zeros(23)), "expected float64 (24,)"),
        (_condition(np.zeros(24, np.float32)), "expected float64 (24,)"),
        (lambda handle: handle.create_group("conditions/sigma8"), "is not a data set"),
        (lambda handle: handle.__setitem__("conditions", np.zeros(24)), "is not a group"),
        (lambda handle: handle.__setitem__("conditions", h5py.SoftLink("/conditions")), "is not a group"),
    ],
)
def test_check_finds_bad_conditions(example: Path, change, expected: str):
    edit(example, change)
    problems = check_slices(example)
    assert len(problems) == 1
    assert expected in problems[0]


def test_counts_become_densities_with_the_mean_of_the_box(tmp_path: Path):
    write_example(tmp_path / "c.h5", quantity="counts")
    with SliceReader(tmp_path / "c.h5") as reader:
        np.testing.assert_allclose(reader.density(2, 5), reader.read(2, 5) / 8.0, rtol=1e-6)
    # Twin: another mean gives another density.
    assert not np.allclose(density_from_counts(np.array([8.0]), 8.4), 1.0, rtol=0.01)


def test_reading_in_blocks_gives_all_slices(example: Path):
    with SliceReader(example) as reader:
        blocks = np.concatenate([block for _, block in reader.blocks(size=7)])
        np.testing.assert_array_equal(blocks, reader.read())


def test_a_pickled_reader_opens_the_file_again(example: Path):
    with SliceReader(example) as reader:
        copy = pickle.loads(pickle.dumps(reader))
        np.testing.assert_array_equal(copy.read(0, 1), reader.read(0, 1))
        copy.close()


def test_writer_without_a_number_grows(tmp_path: Path, example: Path):
    whole = read_slices(example)
    with SliceWriter(tmp_path / "grown.h5", whole.metadata) as writer:
        for part in (slice(0, 5), slice(5, 24)):
            writer.append(whole.slices[part], realisation=whole.realisation[part], axis=0, position=0.0)
    np.testing.assert_array_equal(read_slices(tmp_path / "grown.h5").slices, whole.slices)
    assert check_slices(tmp_path / "grown.h5") == []


def test_nothing_stands_under_the_final_name_until_all_is_written(tmp_path: Path, example: Path):
    whole = read_slices(example)
    path = tmp_path / "new.h5"
    with pytest.raises(RuntimeError, match="stop"), SliceWriter(path, whole.metadata, n_slices=24) as writer:
        writer.append(whole.slices[:10], realisation=0)
        assert not path.exists()
        raise RuntimeError("stop")
    assert list(tmp_path.glob("new*")) == []


def test_fewer_slices_than_announced_is_an_error(tmp_path: Path, example: Path):
    whole = read_slices(example)
    with (
        pytest.raises(UserError, match="24 slices were announced and 10 written"),
        SliceWriter(tmp_path / "new.h5", whole.metadata, n_slices=24) as writer,
    ):
        writer.append(whole.slices[:10], realisation=0)
    assert not (tmp_path / "new.h5").exists()


def test_an_existing_file_is_kept_unless_told_otherwise(example: Path):
    before = example.read_bytes()
    with pytest.raises(UserError, match="--overwrite"):
        write_slices(example, read_slices(example))
    assert example.read_bytes() == before


@pytest.mark.parametrize("value", [np.nan, -1.0, np.inf])
def test_bad_values_are_not_written(tmp_path: Path, example: Path, value: float):
    whole = read_slices(example)
    whole.slices[3, 2, 1] = value
    with pytest.raises(UserError, match="first at slice 3"):
        write_slices(tmp_path / "bad.h5", whole)


def test_counts_beyond_uint16_are_refused(tmp_path: Path):
    metadata = SliceMetadata(box_size=1.0, n_pixels=2, thickness=1.0, quantity="counts", mean_count=1.0)
    with pytest.raises(UserError, match="65535"), SliceWriter(tmp_path / "a.h5", metadata) as writer:
        writer.append(np.full((1, 2, 2), 70_000), realisation=0)


def edit(path: Path, change) -> None:
    with h5py.File(path, "r+") as handle:
        change(handle)


def _replace(name: str, data: np.ndarray):
    def change(handle: h5py.File) -> None:
        del handle[name]
        handle[name] = data

    return change


def _set(name: str, value) -> object:
    return lambda handle: handle.attrs.__setitem__(name, value)


DAMAGES = {
    "no box size": (lambda h: h.attrs.__delitem__("box_size"), "no box size in Mpc/h"),
    "no unit": (lambda h: h.attrs.__delitem__("box_size_units"), "no box size in Mpc/h"),
    "box size zero": (_set("box_size", 0.0), "box_size: expected a length in Mpc/h above 0"),
    "box size text": (_set("box_size", "large"), "wrong type"),
    "other format": (_set("format", "something"), "expected 'cosmogan-slices'"),
    "later version": (_set("format_version", 2), "format_version is 2"),
    "no thickness": (lambda h: h.attrs.__delitem__("thickness"), "'thickness' of '/' is missing"),
    "unknown quantity": (_set("quantity", "mass"), "'density' or 'counts'"),
    "counts without mean": (_set("quantity", "counts"), "mean_count"),
    "no slices": (lambda h: h.__delitem__("slices"), "/slices is missing"),
    "wrong dtype": (_replace("slices", np.zeros((24, 16, 16))), "/slices is float64; expected float32"),
    "wrong shape": (_replace("slices", np.zeros((24, 16, 8), np.float32)), "expected (n, 16, 16)"),
    "short labels": (_replace("realisation", np.zeros(3, np.int32)), "expected int32 (24,)"),
    "bad axis": (lambda h: h["axis"].__setitem__(0, 7), "/axis holds 7"),
    "bad position": (lambda h: h["position"].__setitem__(0, 70.0), "/position holds 70"),
    "NaN": (lambda h: h["slices"].__setitem__((5, 0, 0), np.nan), "first at slice 5"),
    "negative": (lambda h: h["slices"].__setitem__((9, 0, 0), -0.5), "1 negative values (first at slice 9)"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_check_finds(example: Path, name: str):
    change, expected = DAMAGES[name]
    edit(example, change)
    problems = check_slices(example)
    assert len(problems) == 1
    assert expected in problems[0]
    assert str(example) in problems[0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "is empty"), (b"no hdf5 at all" * 100, "is not an HDF5 file")],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, expected: str):
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    assert expected in check_slices(path)[0]


def test_missing_truncated_and_folder(tmp_path: Path, example: Path):
    assert "no such file" in check_slices(tmp_path / "none.h5")[0]
    assert "is a folder" in check_slices(tmp_path)[0]
    example.write_bytes(example.read_bytes()[:-3000])
    assert "cut short" in check_slices(example)[0]


def test_check_misses_no_source_of_a_virtual_file(tmp_path: Path, example: Path):
    whole = read_slices(example)
    path = tmp_path / "virtual.h5"
    write_slices(path, whole)
    layout = h5py.VirtualLayout((24, 16, 16), np.float32)
    layout[:] = h5py.VirtualSource(example.name, "slices", (24, 16, 16))

    def change(handle: h5py.File) -> None:
        del handle["slices"]
        handle.create_virtual_dataset("slices", layout)

    edit(path, change)
    assert check_slices(path) == []
    example.unlink()
    assert "its part" in check_slices(path)[0]


def test_differences_name_values_and_units():
    one = SliceMetadata(box_size=350.0, n_pixels=64, thickness=5.0, smoothing=1.0)
    # 500 Mpc taken for 500 Mpc/h.
    other = SliceMetadata(box_size=500.0, n_pixels=64, thickness=5.0, smoothing=0.0)
    assert one.differences(one) == []
    assert one.differences(other) == ["box_size 350 Mpc/h against 500 Mpc/h", "smoothing 1 pixels against 0 pixels"]


def test_a_box_five_per_cent_off_is_another_box():
    one = SliceMetadata(box_size=350.0, n_pixels=64, thickness=5.0)
    assert one.differences(SliceMetadata(box_size=350.0 * 1.05, n_pixels=64, thickness=5.0))
    assert one.fundamental == pytest.approx(0.017952, rel=1e-4)


def test_description_prints_both_units(example: Path):
    assert "70 Mpc/h (100 Mpc)" in describe_slices(example)
