"""Thousands of broken files of every published format: each is refused in one sentence or converted correctly.

What is correct is decided by an independent reading of the broken file, with NumPy and h5py alone.
"""

import os
import pickle
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pytest

from cosmogan.errors import UserError
from cosmogan.slices import check_slices, read_slices
from data_tools.published.convert import convert
from tests.data_tools.published import published_files as files

QUICK, MANY = 30, 500
# As in `test_convert`; scaled values lose digits where they come near 1.
ROUNDING = {"rtol": 3e-5, "atol": 3e-5}
PLAIN = {"box_size": "100 Mpc/h", "redshift": 0.0}
CUBE = PLAIN | {"layout": "cubes"}
Array = np.ndarray


def slabs(cube: Array) -> Array:
    cube = cube[0] if cube.shape[0] == 1 else cube
    return np.concatenate([np.moveaxis(cube, axis, 0) for axis in range(3)])


def load(path: Path) -> Array:
    return np.load(path, allow_pickle=False).astype(np.float64)


def dataset(path: Path, name: str) -> Array:
    with h5py.File(path) as handle:
        return handle[name][()].astype(np.float64)


def camels(path: Path) -> Array:
    values = load(path)
    if values.ndim == 4:
        return np.concatenate([slabs(grid / grid.mean()) for grid in values])
    blocks = values.reshape(-1, 15, *values.shape[1:])
    return (blocks / blocks.mean(axis=(1, 2, 3), keepdims=True)).reshape(values.shape)


def density_or_delta(values: Array) -> Array:
    values = values + 1 if values.min() < 0 else values
    return values if (values == np.rint(values)).all() else values / values.mean()


def feder(path: Path) -> Array:
    with h5py.File(path) as handle:
        keys = sorted((key for key in handle if key.startswith("seed")), key=lambda key: int(key[4:]))
        return np.concatenate([slabs(density_or_delta(handle[key][()].astype(np.float64))) for key in keys])


def pytorch(path: Path) -> Array:
    values = load(path)[:, 0]
    return 4 * (1 + values) / (1 - values) if values.min() < 0 else values


def cosmogan(path: Path) -> Array:
    values = 5 * (1 + load(path)) / (1 - load(path))
    return values / values.mean()


def plain_archive(path: Path) -> Array:
    with np.load(path, allow_pickle=False) as archive:
        (values,) = (archive[name] for name in archive.files if archive[name].ndim >= 3)
        return slabs(density_or_delta(values.astype(np.float64)))


def plain_hdf5(path: Path) -> Array:
    with h5py.File(path) as handle:
        (name,) = (name for name in handle if handle[name].ndim >= 3)
    return slabs(density_or_delta(dataset(path, name)))


@dataclass(frozen=True)
class Family:
    """One format: how to write a file, convert it and read it independently."""

    write: Callable[[Path], Path]
    expected: Callable[[Path], Array]
    options: dict = field(default_factory=dict)


FAMILIES = {
    "3dcosmo": Family(files.write_three_d_cosmo, lambda p: slabs(dataset(p, "data"))),
    "camels maps": Family(files.write_camels_maps, camels),
    "camels grids": Family(files.write_camels_grids, camels),
    "cosmoflow": Family(files.write_cosmoflow, lambda p: slabs(dataset(p, "full")[..., 1]), {"redshift": 0.5}),
    "quijote": Family(files.write_quijote, lambda p: slabs(density_or_delta(load(p)))),
    "feder": Family(files.write_feder, feder),
    "cosmogan-pytorch": Family(lambda folder: files.write_cosmogan_pytorch(folder, scaled=True), pytorch),
    "cosmogan": Family(
        files.write_cosmogan, cosmogan, PLAIN | {"scale": 5.0, "thickness": "1 Mpc/h", "periodic": True}
    ),
    "plain npy": Family(files.write_plain_cube, lambda p: slabs(density_or_delta(load(p))), CUBE),
    "plain npz": Family(lambda f: files.write_plain_cube(f, name="c.npz"), plain_archive, CUBE),
    "plain hdf5": Family(
        lambda f: files.write_plain_cube(f, name="c.h5"),
        plain_hdf5,
        CUBE,
    ),
}
Mutation = Callable[[Path, np.random.Generator], None]


# Any file.


def truncate(path: Path, rng: np.random.Generator) -> None:
    os.truncate(path, int(rng.integers(path.stat().st_size)))


def extend(path: Path, rng: np.random.Generator) -> None:
    with open(path, "ab") as stream:
        stream.write(rng.bytes(int(rng.integers(1, 5000))))


def flip(path: Path, rng: np.random.Generator, *, end: int | None = None, number: int = 20) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(int(rng.integers(1, number))):
        content[int(rng.integers(min(len(content), end or len(content))))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def flip_head(path: Path, rng: np.random.Generator) -> None:
    flip(path, rng, end=200, number=4)


def flip_one(path: Path, rng: np.random.Generator) -> None:
    flip(path, rng, number=2)


def overwrite_piece(path: Path, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    start = int(rng.integers(len(content)))
    piece = rng.bytes(min(int(rng.integers(1, 2000)), len(content) - start))
    content[start : start + len(piece)] = piece
    path.write_bytes(content)


def swap_halves(path: Path, rng: np.random.Generator) -> None:
    content = path.read_bytes()
    at = int(rng.integers(len(content)))
    path.write_bytes(content[at:] + content[:at])


def empty(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(b"")


def noise(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(path.read_bytes()[: int(rng.integers(12))] + rng.bytes(3000))


def link_to_itself(path: Path, rng: np.random.Generator) -> None:
    path.unlink()
    path.symlink_to(path)


def folder(path: Path, rng: np.random.Generator) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path, rng: np.random.Generator) -> None:
    path.unlink()
    os.mkfifo(path)


def missing(path: Path, rng: np.random.Generator) -> None:
    path.unlink()


# Values and shapes, in whatever container.


def edit(path: Path, change: Callable[[Array], Array]) -> None:
    if path.suffix == ".npy":
        np.save(path, change(np.load(path)))
    elif path.suffix == ".npz":
        with np.load(path) as archive:
            arrays = dict(archive)
        arrays["density"] = change(arrays["density"])
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "r+") as handle:
            name = next(name for name in handle if handle[name].ndim >= 3)
            values = change(handle[name][()])
            del handle[name]
            handle[name] = values


def one_value(value: float) -> Mutation:
    def mutate(path: Path, rng: np.random.Generator) -> None:
        def change(values: Array) -> Array:
            values = values.astype(np.float32)
            values.flat[int(rng.integers(values.size))] = value
            return values

        edit(path, change)

    return mutate


def changed(change: Callable[[Array], Array]) -> Mutation:
    return lambda path, rng: edit(path, change)


VALUES: dict[str, Mutation] = {
    "NaN": one_value(np.nan),
    "infinite": one_value(np.inf),
    "negative": one_value(-7.5),
    "huge": one_value(3e38),
    "tiny peak": one_value(1e-30),
    "fraction": one_value(0.3),
    "zeros": changed(np.zeros_like),
    "ones": changed(np.ones_like),
    "logarithm": changed(lambda x: np.log10(np.abs(x) + 1e-3)),
    "standardised": changed(lambda x: (x - x.mean()) / x.std()),
    "doubled": changed(lambda x: x * 2),
    "negated": changed(lambda x: -x),
    "between 0 and 1": changed(lambda x: (x - x.min()) / np.ptp(x)),
    "between -1 and 1": changed(lambda x: 2 * (x - x.min()) / np.ptp(x) - 1),
    "complex": changed(lambda x: x.astype(np.complex64)),
    "text": changed(lambda x: x.astype("S6")),
    "logical": changed(lambda x: x > 0),
    "half precision": changed(lambda x: x.astype(np.float16)),
    "long double": changed(lambda x: x.astype(np.longdouble)),
    "big endian": changed(lambda x: x.astype(">f8")),
    "transposed": changed(lambda x: x.T),
    "Fortran order": changed(np.asfortranarray),
    "one plane less": changed(lambda x: x[1:]),
    "one column less": changed(lambda x: x[..., 1:]),
    "one dimension less": changed(lambda x: x[0]),
    "one dimension more": changed(lambda x: x[None]),
    "flat": changed(np.ravel),
    "scalar": changed(lambda x: x.flat[0]),
    "no planes": changed(lambda x: x[:0]),
    "one voxel": changed(lambda x: x[tuple(slice(1) for _ in x.shape)]),
    "records": changed(lambda x: x.astype(np.float32).view(np.dtype([("a", np.float32)]))),
}


# NumPy files.


def rewrite_header(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert len(new) <= len(old)
    path.write_bytes(content.replace(old, new.ljust(len(old)), 1))


def pickled(path: Path, rng: np.random.Generator) -> None:
    np.save(path, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)


def bare_pickle(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(pickle.dumps({"a": np.zeros(3)}))


def huge_shape(path: Path, rng: np.random.Generator) -> None:
    with open(path, "r+b") as stream:
        stream.truncate(0)
        header = {"descr": "<f4", "fortran_order": False, "shape": (10 ** int(rng.integers(3, 15)),) * 3}
        np.lib.format.write_array_header_2_0(stream, header)
        stream.write(rng.bytes(4000))


NPY: dict[str, Mutation] = {
    "pickled objects": pickled,
    "bare pickle": bare_pickle,
    "huge shape": huge_shape,
    "negative shape": lambda path, rng: rewrite_header(path, b", 8", b",-8"),
    "type of objects": lambda path, rng: rewrite_header(path, b"'<f", b"'|O"),
    "no such type": lambda path, rng: rewrite_header(path, b"'<f", b"'<q"),
    "code in header": lambda path, rng: rewrite_header(path, b"{'descr': '<f4'", b"{exit(): '<f4'"),
    "version 9": lambda path, rng: rewrite_header(path, b"NUMPY\x01", b"NUMPY\x09"),
}


# Archives.


def rezip(path: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in change(members).items():
            archive.writestr(name, content)


def bomb(path: Path, rng: np.random.Generator) -> None:
    """Write some kilobytes that unpack to 3 GB, by their own account."""
    rezip(path, lambda members: members | {"density.npy": members["density.npy"][:128] + bytes(10**6)})
    content = path.read_bytes()
    size = (10**6 + 128).to_bytes(4, "little")
    path.write_bytes(content.replace(size, (3 * 10**9).to_bytes(4, "little")))


NPZ: dict[str, Mutation] = {
    "missing member": lambda p, r: rezip(p, lambda m: {"other.npy": m["other.npy"]}),
    "no members": lambda p, r: rezip(p, lambda m: {}),
    "two candidates": lambda p, r: rezip(p, lambda m: m | {"again.npy": m["density.npy"]}),
    "cut member": lambda p, r: rezip(p, lambda m: m | {"density.npy": m["density.npy"][: int(r.integers(2000))]}),
    "long member": lambda p, r: rezip(p, lambda m: m | {"density.npy": m["density.npy"] + bytes(100)}),
    "text member": lambda p, r: rezip(p, lambda m: m | {"density.npy": b"no array"}),
    "path as name": lambda p, r: rezip(p, lambda m: {"../../density.npy": m["density.npy"]}),
    "bomb": bomb,
}


# HDF5 files.


def reopened(change: Callable[[h5py.File, str, np.random.Generator], None]) -> Mutation:
    def mutate(path: Path, rng: np.random.Generator) -> None:
        with h5py.File(path, "r+") as handle:
            change(handle, next(name for name in handle if handle[name].ndim >= 3), rng)

    return mutate


def replaced(make: Callable[[h5py.File, str, Array], None]) -> Mutation:
    def change(handle: h5py.File, name: str, rng: np.random.Generator) -> None:
        values = handle[name][()]
        del handle[name]
        make(handle, name, values)

    return reopened(change)


def with_unwritten_chunks(handle: h5py.File, name: str, values: Array) -> None:
    made = handle.create_dataset(name, values.shape, values.dtype, chunks=(4, *values.shape[1:]))
    made[:4] = values[:4]


def virtual(handle: h5py.File, name: str, values: Array) -> None:
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[:] = h5py.VirtualSource("missing.h5", "data", values.shape)
    handle.create_virtual_dataset(name, layout)


def drop_others(handle: h5py.File, name: str, rng: np.random.Generator) -> None:
    others = [other for other in handle if other != name]
    if others:
        del handle[others[int(rng.integers(len(others)))]]


def shorten_others(handle: h5py.File, name: str, rng: np.random.Generator) -> None:
    for other in [other for other in handle if other != name and handle[other].ndim == 1]:
        values = handle[other][()]
        del handle[other]
        handle[other] = values[: int(rng.integers(len(values) + 1))]


def spoil_others(handle: h5py.File, name: str, rng: np.random.Generator) -> None:
    for other in [other for other in handle if other != name and handle[other].dtype.kind == "f"]:
        handle[other][int(rng.integers(len(handle[other])))] = rng.choice([np.nan, np.inf, -1.0, 1e300])


HDF5: dict[str, Mutation] = {
    "missing data set": reopened(lambda h, name, r: h.__delitem__(name)),
    "renamed data set": reopened(lambda h, name, r: h.move(name, "elsewhere")),
    "group for data set": replaced(lambda h, name, v: h.create_group(name)),
    "soft link loop": replaced(lambda h, name, v: h.__setitem__(name, h5py.SoftLink(f"/{name}"))),
    "external link": replaced(lambda h, name, v: h.__setitem__(name, h5py.ExternalLink("none.h5", "data"))),
    "never written": replaced(lambda h, name, v: h.create_dataset(name, v.shape, v.dtype)),
    "half written": replaced(with_unwritten_chunks),
    "virtual": replaced(virtual),
    "compressed": replaced(lambda h, name, v: h.create_dataset(name, data=v, compression="gzip", shuffle=True)),
    "checksummed": replaced(lambda h, name, v: h.create_dataset(name, data=v, fletcher32=True)),
    "null": replaced(lambda h, name, v: h.create_dataset(name, dtype="f4")),
    "one list less": reopened(drop_others),
    "short lists": reopened(shorten_others),
    "impossible parameters": reopened(spoil_others),
    "attribute of text": reopened(lambda h, name, r: h.attrs.__setitem__("seed9", "text")),
    "slice file": reopened(lambda h, name, r: h.attrs.__setitem__("format", "cosmogan-slices")),
}


# Tables of parameters.


def table_lines(change: Callable[[list[str], np.random.Generator], list[str]]) -> Mutation:
    def mutate(path: Path, rng: np.random.Generator) -> None:
        (table,) = path.parent.glob("params_*.txt")
        table.write_text("\n".join(change(table.read_text().splitlines(), rng)))

    return mutate


def binary_table(path: Path, rng: np.random.Generator) -> None:
    (table,) = path.parent.glob("params_*.txt")
    table.write_bytes(rng.bytes(500))


TABLE: dict[str, Mutation] = {
    "row less": table_lines(lambda lines, rng: lines[1:]),
    "row more": table_lines(lambda lines, rng: [*lines, lines[0]]),
    "no rows": table_lines(lambda lines, rng: []),
    "text in table": table_lines(lambda lines, rng: ["none " + line for line in lines]),
    "NaN in table": table_lines(lambda lines, rng: [lines[0].replace("e-01", "e+nan"), *lines[1:]]),
    "one column": table_lines(lambda lines, rng: [line.split()[0] for line in lines]),
    "ragged": table_lines(lambda lines, rng: [lines[0] + " 1", *lines[1:]]),
    "negative Omega_m": table_lines(lambda lines, rng: ["-" + line for line in lines]),
    "Omega_m of another": table_lines(lambda lines, rng: [" ".join(["0.95", *line.split()[1:]]) for line in lines]),
    "binary table": binary_table,
    "table missing": lambda path, rng: [table.unlink() for table in path.parent.glob("params_*.txt")] and None,
}
ANY: dict[str, Mutation] = {
    f.__name__: f
    for f in (truncate, extend, flip, flip_head, flip_one, overwrite_piece, swap_halves, empty, noise, link_to_itself)
} | {f.__name__: f for f in (folder, pipe, missing)}


def mutations(name: str) -> dict[str, Mutation]:
    """All mutations that a family can suffer."""
    own = {"plain npz": NPZ}.get(name, HDF5 if name in ("3dcosmo", "cosmoflow", "feder", "plain hdf5") else NPY)
    return ANY | VALUES | own | (TABLE if name.startswith("camels") else {})


def suffer(name: str, number: int, place: Path) -> tuple[str, str]:
    """Mutate one file and convert it; return the mutation and what came of it."""
    family = FAMILIES[name]
    rng = np.random.default_rng([sum(name.encode()), number])
    choices = mutations(name)
    # Every mutation in turn, from another start for each family; random bytes make the rest.
    kind = list(choices)[(7 * number) % len(choices)] if number < 7 * len(choices) else str(rng.choice(list(ANY)))
    path = family.write(place)
    choices[kind](path, rng)
    out = place / "slices.h5"
    try:
        convert([str(path)], out=str(out), **family.options)
    except UserError as error:
        assert not out.exists()
        text = str(error)
        assert text.count("\n") == 0, text
        assert place.name in text, text
        return kind, "refused"
    assert check_slices(out) == []
    read = read_slices(out)
    expected = family.expected(path)
    np.testing.assert_allclose(read.slices, expected, **ROUNDING, err_msg=f"{name} {number}: {kind}")
    if name == "cosmoflow":
        omega_m = dataset(path, "physPar")[0]
        np.testing.assert_array_equal(read.conditions["Omega_m"], omega_m)
    return kind, "converted"


def count(name: str, n: int, tmp_path: Path) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    for number in range(n):
        place = tmp_path / f"case{number}"
        place.mkdir()
        try:
            outcomes[suffer(name, number, place)[1]] += 1
        except Exception as error:
            raise AssertionError(f"{name}, case {number}: {type(error).__name__}: {error}") from error
        shutil.rmtree(place)
    print(f"{name:18s} {n:5d} files: {outcomes['refused']:4d} refused, {outcomes['converted']:4d} converted correctly")
    return outcomes


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:invalid value")
@pytest.mark.parametrize("name", FAMILIES)
def test_some_broken_files(name: str, tmp_path: Path):
    outcomes = count(name, QUICK, tmp_path)
    assert outcomes.total() == QUICK
    assert outcomes["refused"] > QUICK / 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:invalid value")
@pytest.mark.parametrize("name", FAMILIES)
def test_many_broken_files(name: str, tmp_path: Path):
    outcomes = count(name, MANY, tmp_path)
    assert outcomes.total() == MANY
    # Files that survive, by other byte orders, compression or bytes behind the end, are part of it.
    assert min(outcomes["refused"], outcomes["converted"]) > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_whole_files_pass(name: str, tmp_path: Path):
    family = FAMILIES[name]
    path = family.write(tmp_path)
    convert([str(path)], out=str(tmp_path / "slices.h5"), **family.options)
    read = read_slices(tmp_path / "slices.h5").slices
    np.testing.assert_allclose(read, family.expected(path), **ROUNDING)
    # Twin: a result 5% off fails.
    assert not np.allclose(read * 1.05, family.expected(path), **ROUNDING)


@pytest.mark.parametrize(
    ("name", "mutate", "expected"),
    [
        ("plain npz", bomb, "unpacks to 3.0 GB"),
        ("plain npz", NPZ["missing member"], "holds no array of 3 or 4 dimensions"),
        ("plain npy", pickled, "Python objects"),
        ("plain npy", huge_shape, "is cut short by"),
        ("plain npy", NPY["negative shape"], "not a whole .npy file"),
        ("3dcosmo", HDF5["half written"], "never written to the end"),
        ("3dcosmo", HDF5["virtual"], "in other files"),
        ("3dcosmo", HDF5["soft link loop"], "no data set 'data'"),
        ("quijote", link_to_itself, "symbolic links"),
        ("quijote", pipe, "is not a file"),
        ("quijote", VALUES["NaN"], "1 values are NaN or infinite"),
        ("cosmoflow", reopened(lambda h, name, r: h.__delitem__("redshifts")), "has no list /redshifts"),
        ("camels maps", TABLE["Omega_m of another"], "parameters another's"),
    ],
)
def test_broken_files_are_refused_for_what_is_broken(name: str, mutate: Mutation, expected: str, tmp_path: Path):
    family = FAMILIES[name]
    path = family.write(tmp_path)
    mutate(path, np.random.default_rng(0))
    with pytest.raises(UserError, match=expected):
        convert([str(path)], out=str(tmp_path / "slices.h5"), **family.options)
