"""Damaged snapshots by the hundred: a sentence or the right particles; no traceback, no hang, no wrong answer.

Every damaged file is opened and streamed to its end in another process, which a crash of the HDF5 library or a time
limit would end. What comes out is one of

- refused: a `UserError` of one line that names the file;
- right: every particle as it was written, and every number of the header, except for a cosmological parameter that
  the file no longer holds;
- payload: in this many bytes changed no more than as many particles, all of them still inside the box: numbers without
  a checksum, which no reader can tell from others;
- value: a number of the header became another possible one, and the particles fit it, for the same reason;
- wrong: anything else, which fails the test.
"""

import faulthandler
import math
import shutil
import struct
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import pytest

from cosmogan.errors import UserError
from data_tools.snapshots import Slab, open_snapshot
from tests.data_tools.snapshots.gadget_files import write_binary, write_hdf5
from tests.data_tools.snapshots.swift_files import H, write_swift

N = 1200
BOX = 100.0
REDSHIFT = 0.5
# Positions are float32 and may be multiplied by a unit.
ROUNDING = 1e-6
# Read besides, with the index of places where there is one.
SLAB = Slab(1, 10.0, 20.0)
# One damaged file takes some milliseconds.
SECONDS = 20
# All of a family's damaged files hold some 50 kB; HDF5 keeps caches of some megabytes.
MEGABYTES = 100
FAMILIES = ("gadget binary", "gadget hdf5", "swift", "arrays")


@dataclass
class Sample:
    """A healthy snapshot: what to open, its files, and what must come out."""

    path: str
    files: list[Path]
    positions: np.ndarray
    masses: np.ndarray | None = None
    box: float = BOX
    cosmology: dict[str, float] = field(default_factory=lambda: {"omega_m": 0.3, "h": 0.68})
    options: dict[str, object] = field(default_factory=dict)


@dataclass
class Damage:
    """What was done to a sample."""

    kind: str
    # How many bytes may differ, where any particle may be hit.
    n_bytes: int = 0
    # Whether nothing but a sentence will do.
    hopeless: bool = False
    # Whether particles may come in another order.
    reordered: bool = False


def make_sample(family: str, folder: Path, rng: np.random.Generator, bad: str = "") -> Sample:
    """Write a healthy snapshot, or one with ``bad`` positions or box."""
    positions = rng.uniform(0, BOX, (N, 3)).astype(np.float32)
    masses = rng.uniform(1, 2, N).astype(np.float32)
    written = positions.copy()
    if bad in ("nan", "infinite", "outside"):
        values = {"nan": np.nan, "infinite": -np.inf, "outside": rng.choice([-1.0, 2.0, 1e30]) * BOX}
        written[rng.integers(N), rng.integers(3)] = values[bad]
    box = {"box zero": 0.0, "box negative": -BOX, "box nan": np.nan, "box too small": BOX / 2}.get(bad, BOX)
    n_files = int(rng.integers(1, 4))
    write = {
        "gadget binary": _write_gadget_binary,
        "gadget hdf5": _write_gadget_hdf5,
        "swift": _write_swift,
        "arrays": _write_array,
    }[family]
    sample = write(folder, rng, written, masses, n_files, box)
    if family != "swift":
        sample.positions = positions
    return sample


def _write_gadget_binary(folder, rng, positions, masses, n_files, box) -> Sample:
    form = {"order": rng.choice(["<", ">"]), "version": int(rng.integers(1, 3)), "dtype": rng.choice(["f4", "f8"])}
    files = [folder / f"snap.{i}" for i in range(n_files)] if n_files > 1 else [folder / "snap"]
    for file, part, mass in zip(
        files, np.array_split(positions, n_files), np.array_split(masses, n_files), strict=True
    ):
        write_binary(file, part, n_total=N, n_files=n_files, box_size=box, redshift=REDSHIFT, masses=mass, **form)
    return Sample(str(files[0]), files, positions, masses)


def _write_gadget_hdf5(folder, rng, positions, masses, n_files, box) -> Sample:
    files = [folder / f"snap.{i}.hdf5" for i in range(n_files)] if n_files > 1 else [folder / "snap.hdf5"]
    compression = rng.choice(["", "gzip"])
    for file, part, mass in zip(
        files, np.array_split(positions, n_files), np.array_split(masses, n_files), strict=True
    ):
        header = {"BoxSize": box, "Redshift": REDSHIFT, "Time": 1 / (1 + REDSHIFT), "MassTable": np.zeros(6)}
        write_hdf5(file, part, n_total=N, n_files=n_files, unit_in_cm=3.085678e24, **header)
        with h5py.File(file, "r+") as handle:
            handle["PartType1/Masses"] = mass
            if compression:
                del handle["PartType1/Coordinates"]
                handle.create_dataset("PartType1/Coordinates", data=part, compression="gzip", shuffle=True)
    return Sample(str(files[0]), files, positions, masses)


def _write_swift(folder, rng, positions, masses, n_files, box) -> Sample:
    path = folder / "snap.hdf5"
    order = write_swift(
        path,
        # Cells cannot be made from what is not in the box.
        np.nan_to_num(positions, nan=1.0, posinf=1.0, neginf=1.0) % BOX,
        n_files=n_files,
        redshift=REDSHIFT,
        masses=masses,
        compression=rng.choice([None, "gzip"]),
    )
    files = [folder / f"snap.{i}.hdf5" for i in range(n_files)] if n_files > 1 else []
    parts = np.array_split(order, np.cumsum([_count(file) for file in files])[:-1]) if files else [order]
    for file, members in zip(files or [path], parts, strict=True):
        with h5py.File(file, "r+") as handle:
            handle["PartType1/Coordinates"][:] = positions[members]
            handle["Header"].attrs["BoxSize"] = np.full(3, box)
    if files:
        with h5py.File(path, "r+") as handle:
            handle["Header"].attrs["BoxSize"] = np.full(3, box)
    cosmology = {"omega_m": 0.3, "omega_b": 0.045, "h": H, "w0": -1.0}
    return Sample(str(path), [path, *files], positions[order] * H, masses[order], BOX * H, cosmology)


def _count(file: Path) -> int:
    with h5py.File(file) as handle:
        return len(handle["PartType1/Coordinates"])


def _write_array(folder, rng, positions, masses, n_files, box) -> Sample:
    options = {"box_size": f"{box:g} Mpc/h", "redshift": REDSHIFT}
    dtype, order = rng.choice(["<f4", ">f4", "<f8"]), rng.choice(["C", "F"])
    path = folder / rng.choice(["snap.npy", "snap.h5", "snap_virtual.h5"])
    files = [path]
    if path.suffix == ".npy":
        np.save(path, np.asarray(positions, dtype, order=order))
        return Sample(str(path), files, positions, cosmology={}, options=options)
    layout, half, compression = h5py.VirtualLayout((N, 3), dtype), N // 2, rng.choice([None, "gzip"])
    if path.name == "snap_virtual.h5":
        files += [folder / "snap_part0.h5", folder / "snap_part1.h5"]
    parts = np.array_split(positions, len(files[1:]) or 1)
    for i, (file, part) in enumerate(zip(files[1:] or files, parts, strict=True)):
        with h5py.File(file, "w") as handle:
            handle.create_dataset("a/positions", data=part.astype(dtype), compression=compression)
            layout[i * half : i * half + len(part)] = h5py.VirtualSource(file.name, "a/positions", part.shape)
    if len(files) > 1:
        with h5py.File(path, "w") as handle:
            handle.create_virtual_dataset("a/positions", layout)
    return Sample(f"{path}:/a/positions", files, positions, cosmology={}, options=options)


def damage(family: str, folder: Path, rng: np.random.Generator) -> tuple[Sample, Damage]:
    """Write a snapshot and damage it in one of many ways."""
    bad = ("nan", "infinite", "outside", "box zero", "box negative", "box nan", "box too small")
    anywhere: dict[str, Callable] = {
        "cut short": lambda raw: (raw[: rng.integers(len(raw))], 0),
        "bits flipped": lambda raw: _flip(raw, rng, len(raw)),
        "bits flipped at the start": lambda raw: _flip(raw, rng, min(len(raw), 600)),
        "bytes overwritten": lambda raw: _overwrite(raw, rng),
        "bytes inserted": lambda raw: _insert(raw, rng),
        "bytes removed": lambda raw: _remove(raw, rng),
    }
    if family == "arrays":
        # Their box is no part of the file.
        bad = (*bad[:3], "box too small")
    kinds = [*bad, *2 * list(anywhere), "file missing", "symbolic link loop", "empty", "files exchanged"]
    kinds += {"gadget binary": ["record length", "record length", "count"], "arrays": ["npy header"]}.get(family, [])
    if family in ("gadget hdf5", "swift"):
        kinds += 2 * ["attribute missing", "attribute odd", "object missing"] + ["count", "unknown filter"]
    kind = str(rng.choice(kinds))
    sample = make_sample(family, folder, rng, kind if kind in bad else "")
    victim = sample.files[rng.integers(len(sample.files))]
    if kind in bad:
        return sample, Damage(kind, hopeless=True)
    if kind in anywhere:
        raw, n_bytes = anywhere[kind](victim.read_bytes())
        victim.write_bytes(raw)
        return sample, Damage(kind, n_bytes)
    if kind == "files exchanged":
        # The same particles in another order where there are several files. A part of plain positions in place of the
        # virtual file is as good a file.
        files = (sample.files[1:] if family == "arrays" else None) or sample.files
        victim, other = (files[i] for i in rng.integers(len(files), size=2))
        one, two = victim.read_bytes(), other.read_bytes()
        victim.write_bytes(two)
        other.write_bytes(one)
        return sample, Damage(kind, reordered=True)
    if kind in ("file missing", "symbolic link loop", "empty"):
        victim.unlink()
        if kind == "symbolic link loop":
            victim.symlink_to(victim)
        if kind == "empty":
            victim.touch()
        # The virtual file may be missing where the distributed ones are there, but not the one to open.
        return sample, Damage(kind, hopeless=True)
    special = {
        "record length": _change_record_length,
        "count": _change_count,
        "npy header": _change_npy_header,
        "attribute missing": _remove_attribute,
        "attribute odd": _replace_attribute,
        "object missing": _remove_object,
        "unknown filter": _unknown_filter,
    }[kind]
    hopeless = special(victim, rng)
    return sample, Damage(kind, hopeless=bool(hopeless))


def _flip(raw: bytes, rng: np.random.Generator, reach: int) -> tuple[bytes, int]:
    changed, n = bytearray(raw), int(rng.integers(1, 9))
    for place in rng.integers(reach, size=n):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed), n


def _overwrite(raw: bytes, rng: np.random.Generator) -> tuple[bytes, int]:
    n, start = int(rng.integers(1, 65)), int(rng.integers(len(raw)))
    new = rng.choice([b"\0" * n, b"\xff" * n, rng.bytes(n)])
    return raw[:start] + bytes(new)[: len(raw) - start] + raw[start + n :], n


def _insert(raw: bytes, rng: np.random.Generator) -> tuple[bytes, int]:
    start = int(rng.integers(len(raw)))
    return raw[:start] + rng.bytes(int(rng.integers(1, 17))) + raw[start:], 0


def _remove(raw: bytes, rng: np.random.Generator) -> tuple[bytes, int]:
    start = int(rng.integers(len(raw)))
    return raw[:start] + raw[start + int(rng.integers(1, 17)) :], 0


def _binary_layout(raw: bytes) -> tuple[str, int, list[int]]:
    """Return byte order, where the header begins, and where all lengths of records are."""
    order = next(o for o in "<>" if struct.unpack_from(o + "I", raw)[0] in (8, 256))
    places, place = [], 0
    while place < len(raw):
        length = struct.unpack_from(order + "I", raw, place)[0]
        places += [place, place + 4 + length]
        place += length + 8
    return order, 4 if raw[:4] == struct.pack(order + "I", 256) else 20, places


def _change_record_length(file: Path, rng: np.random.Generator) -> None:
    raw = bytearray(file.read_bytes())
    order, _, places = _binary_layout(raw)
    one, two = rng.choice(len(places), 2, replace=False)
    a, b = (struct.unpack_from(order + "I", raw, places[i])[0] for i in (one, two))
    if rng.integers(2):
        a, b = int(rng.choice([0, 1, a - 4, a + 4, 2 * a, 2**31, 2**32 - 1]) % 2**32), a
    struct.pack_into(order + "I", raw, places[one], b)
    struct.pack_into(order + "I", raw, places[two], a)
    file.write_bytes(raw)


def _change_count(file: Path, rng: np.random.Generator) -> bool:
    if file.suffix != ".hdf5":
        raw = bytearray(file.read_bytes())
        order, start, _ = _binary_layout(raw)
        # Dark matter in this file, in all files; number of files.
        place = start + int(rng.choice([4, 100, 124]))
        old = struct.unpack_from(order + "I", raw, place)[0]
        new = int(rng.choice([0, old + 1, 2 * old, 2**31 - 1, 2**32 - 1]))
        struct.pack_into(order + "I", raw, place, new)
        file.write_bytes(raw)
        # One file may as well be announced as none, and its particles in no total, as in runs of isolated systems.
        n_files = struct.unpack_from(order + "I", raw, start + 124)[0]
        return new != 0 or place == start + 4 or (old if place == start + 124 else n_files) > 1
    with h5py.File(file, "r+") as handle:
        header = handle["Header"].attrs
        name = str(rng.choice(["NumPart_ThisFile", "NumPart_Total", "NumPart_Total_HighWord"]))
        if name not in header:
            name = "NumPart_Total"
        values = header[name]
        values[1] = rng.choice([values[1] + 1, 2 * values[1] + 2, 2**31 - 1])
        header[name] = values
        # Nobody reads the virtual file's own count.
        return name != "NumPart_ThisFile" or not handle["PartType1/Coordinates"].is_virtual


def _change_npy_header(file: Path, rng: np.random.Generator) -> bool:
    raw = file.read_bytes()
    if file.suffix != ".npy":
        file.write_bytes(raw[:8])
        return True
    header = raw[:128]
    changes = [
        (b"(1200, 3)", rng.choice([b"(1201, 3)", b"(1199, 3)", b"(3600, 1)", b"(1200,3,)", b"(-1200,-3)"])),
        (b"'descr'", b"'decsr'"),
        (b"f", rng.choice([b"i", b"O", b"c", b"("])),
        (b"{", rng.choice([b"[", b"\xff", b"'"])),
    ]
    old, new = changes[rng.integers(len(changes))]
    file.write_bytes(header.replace(old, new, 1)[:128].ljust(128) + raw[128:])
    return new != b"(1200,3,)"


def _remove_attribute(file: Path, rng: np.random.Generator) -> None:
    with h5py.File(file, "r+") as handle:
        group, name = _any_attribute(handle, rng)
        del handle[group].attrs[name]


def _replace_attribute(file: Path, rng: np.random.Generator) -> None:
    odd = [
        "nonsense",
        "",
        np.nan,
        np.inf,
        -1,
        0,
        1e300,
        [],
        [[1.0, 2.0]],
        b"\xff\xfe",
        [True],
        h5py.Empty("f8"),
        2**63 - 1,
    ]
    with h5py.File(file, "r+") as handle:
        group, name = _any_attribute(handle, rng)
        handle[group].attrs[name] = odd[rng.integers(len(odd))]


def _any_attribute(handle: h5py.File, rng: np.random.Generator) -> tuple[str, str]:
    everything: list[tuple[str, str]] = []
    handle.visititems(lambda name, item: everything.extend((name, key) for key in item.attrs))
    # Half of them of the header, the rest of anything.
    chosen = [pair for pair in everything if pair[0] == "Header"] if rng.integers(2) else everything
    return chosen[rng.integers(len(chosen))]


def _remove_object(file: Path, rng: np.random.Generator) -> None:
    with h5py.File(file, "r+") as handle:
        names: list[str] = []
        handle.visit(names.append)
        name = names[rng.integers(len(names))]
        del handle[name]
        if rng.integers(3) == 0:
            # A thing of another kind in its place.
            handle[name] = np.arange(3)


def _unknown_filter(file: Path, rng: np.random.Generator) -> bool:
    with h5py.File(file, "r+") as handle:
        data = handle["PartType1/Coordinates"]
        if data.is_virtual:
            return False
        values = data[:]
        attributes = dict(data.attrs)
        del handle["PartType1/Coordinates"]
        data = handle.create_dataset("PartType1/Coordinates", data=values, compression="gzip")
        data.attrs.update(attributes)
    deflate, unknown = (struct.pack("<HHHH", number, 8, 1, 1) + b"deflate" for number in (1, 32099))
    file.write_bytes(file.read_bytes().replace(deflate, unknown))
    return True


def outcome(sample: Sample, done: Damage) -> str:
    """Read a damaged snapshot to its end and say what came of it."""
    try:
        snapshot = open_snapshot(sample.path, **sample.options)
        read = list(snapshot.particles(500, weights=sample.masses is not None))
        in_slab = list(snapshot.positions(500, slab=SLAB))
    except UserError as error:
        clear = "\n" not in str(error) and "snap" in str(error) and len(str(error)) < 2000
        return "refused" if clear else f"unclear: {error}"
    except Exception as error:
        return f"traceback: {error!r}"
    positions = np.concatenate([block for block, _ in read])
    masses = None if sample.masses is None else np.concatenate([block for _, block in read])
    inside = SLAB.contains(positions, snapshot.header.box_size)
    if len(positions) and not np.array_equal(np.concatenate([positions[:0], *in_slab]), positions[inside]):
        return "wrong: the slab is not that of all particles"
    return judge(sample, done, snapshot.header, positions, masses)


def judge(sample: Sample, done: Damage, header, positions: np.ndarray, masses: np.ndarray | None) -> str:
    """Compare what was read with what was written."""
    if done.hopeless:
        return "wrong: read in spite of the damage"
    if positions.shape != sample.positions.shape or header.n_particles != N:
        return f"wrong: {len(positions)} particles"
    if done.reordered:
        ours, theirs = np.lexsort(positions.T), np.lexsort(sample.positions.T)
        sample = replace(sample, positions=sample.positions[theirs])
        positions = positions[ours]
        if masses is not None and sample.masses is not None:
            masses, sample.masses = masses[ours], sample.masses[theirs]
    differ = ~np.isclose(positions, sample.positions, rtol=0, atol=ROUNDING * sample.box).all(axis=1)
    if masses is not None:
        differ |= ~np.isclose(masses, sample.masses, rtol=ROUNDING)
    same_header = (
        math.isclose(header.box_size, sample.box, rel_tol=ROUNDING)
        and header.redshift == REDSHIFT
        # What the file no longer says is unknown, not wrong.
        and header.cosmology.known().items() <= sample.cosmology.items()
    )
    if same_header and not differ.any():
        return "right"
    if same_header and differ.sum() <= done.n_bytes:
        return "payload"
    # Lengths follow the box where the unit of the file changed.
    fits = np.isclose(positions / header.box_size, sample.positions / sample.box, rtol=0, atol=ROUNDING).all(axis=1)
    if min(differ.sum(), (~fits).sum()) <= done.n_bytes and not same_header:
        return "value"
    return f"wrong: {differ.sum()} particles, {header}"


def run(family: str, seeds: list[int], folder: str) -> tuple[Counter, float]:
    """Damage and read one snapshot per seed; return outcomes by kind of damage, and megabytes of memory taken."""
    before = peak_megabytes()
    outcomes: Counter = Counter()
    for seed in seeds:
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        place = Path(folder) / f"{family.replace(' ', '_')}_{seed}"
        place.mkdir()
        sample, done = damage(family, place, np.random.default_rng([FAMILIES.index(family), seed]))
        result = outcome(sample, done)
        outcomes[done.kind, result if result in GOOD else f"{result} (seed {seed})"] += 1
        shutil.rmtree(place)
        faulthandler.cancel_dump_traceback_later()
    return outcomes, peak_megabytes() - before


def peak_megabytes() -> float:
    """Return the most memory that this process has had (Linux; elsewhere 0)."""
    # Not getrusage, which counts the parent's memory too.
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


GOOD = ("refused", "right", "payload", "value")


def run_apart(family: str, seeds: list[int], folder: Path) -> tuple[Counter, float]:
    """Call `run` in another process; after a crash once for each seed."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(run, family, seeds, str(folder)).result()
        except BrokenProcessPool:
            if len(seeds) == 1:
                return Counter({("any", f"crash or hang (seed {seeds[0]})"): 1}), 0.0
    outcomes: Counter = Counter()
    shutil.rmtree(folder)
    folder.mkdir()
    for seed in seeds:
        outcomes += run_apart(family, [seed], folder)[0]
    return outcomes, 0.0


def check(family: str, seeds: list[int], folder: Path) -> None:
    outcomes, megabytes = run_apart(family, seeds, folder)
    kinds = sorted({kind for kind, _ in outcomes})
    print(
        f"\n{family}: {outcomes.total()} damaged snapshots, {megabytes:.0f} MB\n{'':26}"
        + "".join(f"{g:>9}" for g in GOOD)
    )
    for kind in kinds:
        print(f"{kind:26}" + "".join(f"{outcomes[kind, good]:9}" for good in GOOD))
    print(f"{'all':26}" + "".join(f"{sum(outcomes[kind, good] for kind in kinds):9}" for good in GOOD))
    bad = [f"{kind}: {result}" for kind, result in outcomes if result not in GOOD]
    assert not bad, "\n".join(bad)
    assert outcomes.total() == len(seeds)
    assert megabytes < MEGABYTES


@pytest.mark.parametrize("family", FAMILIES)
def test_damaged_snapshots(family: str, tmp_path: Path):
    check(family, list(range(40)), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_many_damaged_snapshots(family: str, tmp_path: Path):
    check(family, list(range(40, 1040)), tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_judge_knows_right_from_wrong(family: str, tmp_path: Path):
    sample = make_sample(family, tmp_path, np.random.default_rng(3))
    assert outcome(sample, Damage("none")) == "right"
    assert outcome(sample, Damage("none", hopeless=True)).startswith("wrong")
    snapshot = open_snapshot(sample.path, **sample.options)
    positions = np.concatenate(list(snapshot.positions()))
    done = Damage("bits flipped", n_bytes=3)
    for wrong in (positions * 0.95, positions[::-1], positions[:-1], positions[:, ::-1]):
        assert judge(sample, done, snapshot.header, wrong, sample.masses).startswith("wrong")
    if sample.masses is not None:
        assert judge(sample, done, snapshot.header, positions, sample.masses * 0.95).startswith("wrong")
    hit = positions.copy()
    hit[:3, 0] = 50.0
    assert judge(sample, done, snapshot.header, hit, sample.masses) == "payload"
    hit[3, 0] = 50.0
    assert judge(sample, done, snapshot.header, hit, sample.masses).startswith("wrong")
