"""Run N-body simulations: seeds -> snapshots, or straight to a slice file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch

from cosmogan.errors import UserError
from cosmogan.files import require_room
from cosmogan.hdf5 import open_file
from cosmogan.machine.devices import choose_device
from cosmogan.slices import SliceMetadata, SliceReader, SliceWriter
from cosmogan.units import RODRIGUEZ2018, Cosmology, parse_length
from data_tools.simulation.realisations import SimulationParameters, default_steps, run_seeds
from data_tools.slicing.slicing import SlabCounter, append_slabs, resolve_slabs, slice_metadata
from data_tools.snapshots import SnapshotHeader, open_snapshot
from data_tools.snapshots.gadget_hdf5 import write_gadget_hdf5

# Force cells per particle spacing.
_MESH_FACTOR = 2
_SLICE_CHUNK = 2**20


def simulate(
    *,
    box_size: str,
    out: str,
    particles: int = 128,
    seeds: str = "1",
    omega_m: float = RODRIGUEZ2018.omega_m,  # type: ignore[assignment]
    omega_b: float = RODRIGUEZ2018.omega_b,  # type: ignore[assignment]
    h: float = RODRIGUEZ2018.h,  # type: ignore[assignment]
    sigma8: float = RODRIGUEZ2018.sigma8,  # type: ignore[assignment]
    n_s: float = RODRIGUEZ2018.n_s,  # type: ignore[assignment]
    redshift: float = 0.0,
    steps: int | None = None,
    mesh: int | None = None,
    start_redshift: float = 9.0,
    device: str = "auto",
    slice_pixels: int | None = None,
    slabs: int | None = None,
    thickness: str | None = None,
    smoothing: float = 0.0,
    quantity: str = "density",
    overwrite: bool = False,
) -> list[Path]:
    """Simulate the growth of structure with COLA and write snapshots, or slices.

    One simulation per seed. Seeds that are already complete with the same parameters are skipped, so an interrupted
    run is resumed by repeating the command. Each box is shifted as a whole by a random offset that depends on its seed,
    so that the lattice the particles start from does not lie alike on the pixels of every realisation.

    Parameters
    ----------
    box_size
        Comoving side of the periodic box with its unit: "500 Mpc" or "350 Mpc/h".
    out
        Folder for the snapshots; the slice file to write if `slice_pixels` is given.
    particles
        Particles along a side of the box; even.
    seeds
        Seeds of the initial conditions, one simulation each: "1:8" (1 to 8), "3" or "1,4,7".
    omega_m
        Density of matter today in units of the critical density.
    omega_b
        Density of baryons, in the same unit.
    h
        Hubble constant in units of 100 km/s/Mpc.
    sigma8
        Linear rms of the overdensity today in spheres of 8 Mpc/h.
    n_s
        Slope of the primordial power spectrum.
    redshift
        Redshift of the result.
    steps
        Time steps, equal in scale factor; by default 15 for boxes of at least 200 Mpc/h and 30 for smaller ones.
    mesh
        Cells of the force mesh along a side; by default twice the particles.
    start_redshift
        Redshift of the initial conditions, from second-order perturbation theory.
    device
        Device: "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU where there is one.
    slice_pixels
        Write slices of this many pixels along a side instead of snapshots.
    slabs
        Number, with `slice_pixels`, of equal slabs that cover the box along each axis; as many as pixels by default.
    thickness
        Depth, with `slice_pixels`, of a slab instead of their number, with its unit.
    smoothing
        Sigma, with `slice_pixels`, in pixels of a Gaussian applied to each slice.
    quantity
        Quantity, with `slice_pixels`: "density" (1 + delta) or "counts".
    overwrite
        Replace existing files.

    Returns
    -------
        The snapshots, one per seed in the order of `seeds`, or the slice file.

    Raises
    ------
    UserError
        If a parameter is out of range, CAMB is missing, an existing file was made with other parameters, or disk space
        does not suffice.
    """
    cosmology = Cosmology(omega_m=omega_m, omega_b=omega_b, h=h, sigma8=sigma8, n_s=n_s)
    side = parse_length(box_size, h)
    parameters = SimulationParameters(
        box_size=side,
        particles=particles,
        mesh=_MESH_FACTOR * particles if mesh is None else mesh,
        steps=default_steps(side) if steps is None else steps,
        start_redshift=start_redshift,
        redshift=redshift,
        cosmology=cosmology,
    )
    seed_list = parse_seeds(seeds)
    target = choose_device(device)
    if slice_pixels is not None:
        n_slabs = resolve_slabs(side, pixels=slice_pixels, slabs=slabs, thickness=thickness, h=h)
        header = SnapshotHeader(box_size=side, redshift=redshift, n_particles=particles**3, cosmology=cosmology)
        metadata = slice_metadata(header, pixels=slice_pixels, slabs=n_slabs, smoothing=smoothing, quantity=quantity)
        return [_simulate_slices(Path(out), parameters, seed_list, metadata, device=target, overwrite=overwrite)]
    if slabs is not None or thickness is not None or smoothing or quantity != "density":
        raise UserError("slabs, thickness, smoothing and quantity describe slices; give slice_pixels as well")
    return _simulate_snapshots(Path(out), parameters, seed_list, device=target, overwrite=overwrite)


def parse_seeds(text: str) -> list[int]:
    """Read a list of seeds.

    Raises
    ------
    UserError
        If it is not a list of numbers and ranges, or a seed occurs twice.

    Examples
    --------
    >>> parse_seeds("1:3,7")
    [1, 2, 3, 7]
    """
    seeds: list[int] = []
    for part in str(text).split(","):
        ends = part.split(":")
        if len(ends) > 2 or not all(end.strip().isdigit() for end in ends):
            raise UserError(f"seeds {text!r}: expected whole numbers such as '3', '1,4,7' or '1:8' (1 to 8 inclusive)")
        first, last = int(ends[0]), int(ends[-1])
        if last < first:
            raise UserError(f"seeds {text!r}: the range {part!r} is empty; expected the smaller number first")
        if last >= 2**31:
            raise UserError(f"seeds {text!r}: seeds must be below 2^31")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds {text!r}: a seed occurs twice; the same simulation must not count as two")
    return seeds


def _simulate_snapshots(
    folder: Path, parameters: SimulationParameters, seeds: list[int], *, device: torch.device, overwrite: bool
) -> list[Path]:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; expected a folder for the snapshots")
    name = f"snapshot_{parameters.box_size:g}Mpch"
    paths = {seed: folder / f"{name}_seed{seed:04d}.hdf5" for seed in seeds}
    record = parameters.to_json()
    todo = _pending(paths, record, _snapshot_record, overwrite=overwrite, redo=overwrite)
    _announce_skipped(seeds, todo)
    require_room(folder, len(todo) * (12 * parameters.particles**3 + 10_000))
    for seed, positions in run_seeds(parameters, todo, device=device):
        write_gadget_hdf5(
            paths[seed],
            positions,
            box_size=parameters.box_size,
            redshift=parameters.redshift,
            cosmology=parameters.cosmology,
            seed=seed,
            attributes=_provenance(record),
        )
    return list(paths.values())


def _simulate_slices(
    path: Path,
    parameters: SimulationParameters,
    seeds: list[int],
    metadata: SliceMetadata,
    *,
    device: torch.device,
    overwrite: bool,
) -> Path:
    """Simulate to a slice file; each seed's slices wait in a file of their own, so that a rerun resumes."""
    n_slabs = round(metadata.box_size / metadata.thickness)
    slicing = {name: getattr(metadata, name) for name in ("n_pixels", "thickness", "smoothing", "quantity")}
    record = json.dumps(json.loads(parameters.to_json()) | slicing, sort_keys=True)
    seed_text = ",".join(map(str, seeds))
    whole = json.dumps(json.loads(record) | {"seeds": seed_text}, sort_keys=True)
    if not _pending({0: path}, whole, _slices_record, overwrite=overwrite, redo=overwrite):
        print(f"{path}: complete already with these parameters; nothing to do", file=sys.stderr)
        return path
    parts = {seed: path.with_name(f"{path.name}.parts") / f"seed{seed:04d}.h5" for seed in seeds}
    todo = _pending(parts, record, _slices_record, overwrite=overwrite, redo=False)
    _announce_skipped(seeds, todo)
    bytes_per_seed = 3 * n_slabs * metadata.n_pixels**2 * (2 if metadata.quantity == "counts" else 4)
    # The parts and the whole file exist together for a moment.
    require_room(path, bytes_per_seed * (len(todo) + len(seeds)))
    n_slices = 3 * n_slabs
    for seed, positions in run_seeds(parameters, todo, device=device):
        counter = SlabCounter(box_size=metadata.box_size, pixels=metadata.n_pixels, slabs=n_slabs)
        for start in range(0, len(positions), _SLICE_CHUNK):
            counter.add(positions[start : start + _SLICE_CHUNK])
        with SliceWriter(
            parts[seed], metadata, n_slices=n_slices, provenance=_provenance(record), overwrite=True
        ) as writer:
            append_slabs(writer, counter, realisation=seed)

    provenance = _provenance(whole) | {"seeds": seed_text}
    with SliceWriter(
        path, metadata, n_slices=n_slices * len(seeds), provenance=provenance, overwrite=overwrite
    ) as writer:
        for seed in seeds:
            with SliceReader(parts[seed]) as part:
                for start, block in part.blocks():
                    rows = slice(start, start + len(block))
                    writer.append(block, realisation=seed, axis=part.axis[rows], position=part.position[rows])
    for part_path in parts.values():
        part_path.unlink()
    folder = part_path.parent
    if not any(folder.iterdir()):
        folder.rmdir()
    return path


def _pending(
    paths: dict[int, Path], record: str, read_record: Callable[[Path], str | None], *, overwrite: bool, redo: bool
) -> list[int]:
    """Return the seeds whose files are still to be made.

    Parameters
    ----------
    paths
        File of each seed.
    record
        Parameters that a complete file must carry.
    read_record
        Function that reads them from a file.
    overwrite
        Replace files made with other parameters, instead of refusing.
    redo
        Replace complete files too.
    """
    todo = []
    for seed, path in paths.items():
        if redo or not path.exists():
            todo.append(seed)
            continue
        try:
            found = read_record(path)
        except UserError:
            if not overwrite:
                raise
            found = None
        if found == record:
            continue
        if not overwrite:
            raise UserError(
                f"{path}: exists already and was made otherwise ({_record_difference(found, record)}); "
                "choose another name or add --overwrite"
            )
        todo.append(seed)
    return todo


def _announce_skipped(seeds: list[int], todo: list[int]) -> None:
    done = [str(seed) for seed in seeds if seed not in todo]
    if done:
        rest = f"simulating {', '.join(map(str, todo))}" if todo else "nothing left to simulate"
        print(f"complete already, skipped: seed {', '.join(done)}; {rest}", file=sys.stderr)


def _record_difference(found: str | None, expected: str) -> str:
    if found is None:
        return "without a record of its parameters"
    old, new = json.loads(found), json.loads(expected)
    old, new = (record | record.pop("cosmology", {}) for record in (old, new))
    return ", ".join(f"{k} {old.get(k)} instead of {new.get(k)}" for k in sorted(old | new) if old.get(k) != new.get(k))


def _snapshot_record(path: Path) -> str | None:
    # Opened as a snapshot first: a damaged file must not pass for a complete one.
    open_snapshot(path)
    with open_file(path) as handle:
        return handle["Provenance"].attrs.get("parameters") if "Provenance" in handle else None


def _slices_record(path: Path) -> str | None:
    with SliceReader(path) as reader:
        return reader.provenance.get("parameters")


def _provenance(record: str) -> dict[str, str]:
    return {
        "command": "cosmogan simulate",
        "code": "cosmogan COLA",
        "cosmogan": version("cosmogan"),
        "torch": str(torch.__version__),
        "parameters": record,
    }
