"""Run N-body simulations: seeds -> snapshots, or straight to a slice file."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
import torch
from tqdm import tqdm

from cosmogan.errors import UserError
from cosmogan.slices import SliceMetadata, SliceReader, SliceWriter
from cosmogan.units import RODRIGUEZ2018, Cosmology, format_length, parse_length
from data_tools.cola import ColaSettings, evolve, lattice
from data_tools.linear import PowerSpectrum, gaussian_field, linear_power
from data_tools.particle_mesh import ParticleMesh
from data_tools.slicing import SlabCounter, append_slabs, resolve_slabs, slice_metadata
from data_tools.snapshots import SnapshotHeader, open_snapshot
from data_tools.snapshots.gadget_hdf5 import write_gadget_hdf5

# Boxes at least this wide (Mpc/h) need 15 steps, smaller ones 30: at 100 Mpc/h and k = 3.2 h/Mpc, 10 / 20 / 30 steps
# are off by -36 / -10 / -2 per cent.
_LARGE_BOX = 200.0
_STEPS_LARGE, _STEPS_SMALL = 15, 30
# Force cells per particle spacing.
_MESH_FACTOR = 2
# Marks the random stream of the lattice offset apart from that of the phases.
_OFFSET_STREAM = 1
# The calibration runs at most this many particles along a side: a tenth of a second.
_CALIBRATION = 64
# What the calibration leaves out: drifts, memory farther away than in a small run; the initial conditions cost about
# two steps.
_OVERHEAD = 1.2
_BYTES_TORCH = 0.4e9
_SLICE_CHUNK = 2**20


@dataclass(frozen=True, kw_only=True)
class SimulationParameters:
    """Everything that determines a simulation but the seed; two runs that agree in it may share a folder.

    Parameters
    ----------
    box_size
        Mpc/h.
    particles, mesh
        Particles and force cells along a side.
    steps
        Time steps, equal in scale factor.
    start_redshift, redshift
        Of the first and the last step.
    cosmology
        All parameters but w0.
    """

    box_size: float
    particles: int
    mesh: int
    steps: int
    start_redshift: float
    redshift: float
    cosmology: Cosmology

    def __post_init__(self) -> None:
        if self.particles < 4 or self.particles % 2:
            raise UserError(f"particles must be even and at least 4 along a side, got {self.particles}")
        if self.mesh < self.particles or self.mesh % 2:
            raise UserError(f"mesh must be even and not below particles ({self.particles}), got {self.mesh}")
        if self.steps < 1:
            raise UserError(f"steps must be at least 1, got {self.steps}")
        if not (math.isfinite(self.start_redshift) and -1 < self.redshift < self.start_redshift):
            raise UserError(
                f"redshift must lie above -1 and below start_redshift; got redshift {self.redshift:g}, "
                f"start_redshift {self.start_redshift:g}"
            )

    def to_json(self) -> str:
        """Return the parameters as text, for comparison and for the record."""
        return json.dumps(asdict(self) | {"cosmology": self.cosmology.known()}, sort_keys=True)

    def settings(self) -> ColaSettings:
        """Return what the integrator needs."""
        return ColaSettings(
            box_size=self.box_size,
            cosmology=self.cosmology,
            steps=self.steps,
            mesh=self.mesh,
            start_redshift=self.start_redshift,
            redshift=self.redshift,
        )


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
        "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU where there is one.
    slice_pixels
        Write slices of this many pixels along a side instead of snapshots.
    slabs
        With `slice_pixels`: equal slabs that cover the box along each axis; as many as pixels by default.
    thickness
        With `slice_pixels`: depth of a slab instead of their number, with its unit.
    smoothing
        With `slice_pixels`: sigma in pixels of a Gaussian applied to each slice.
    quantity
        With `slice_pixels`: "density" (1 + delta) or "counts".
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
        steps=(_STEPS_LARGE if side >= _LARGE_BOX else _STEPS_SMALL) if steps is None else steps,
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


def choose_device(name: str) -> torch.device:
    """Return the device of that name; ``"auto"`` takes a GPU where there is one.

    Raises
    ------
    UserError
        If there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device {name!r}: cannot be used here ({reason}); try 'auto' or 'cpu'") from None
    return device


def run_seed(
    parameters: SimulationParameters,
    power: PowerSpectrum,
    seed: int,
    *,
    device: torch.device,
    on_step: Callable[[], None] | None = None,
) -> np.ndarray:
    """Simulate one realisation.

    Parameters
    ----------
    parameters
        What to simulate.
    power
        Linear P(k) at redshift 0, (Mpc/h)^3 of h/Mpc.
    seed
        Of the phases and of the offset of the box.
    device
        Where to compute.
    on_step
        Called after each step.

    Returns
    -------
        Positions, shape ``(particles^3, 3)``, float32, in ``[0, box_size)`` Mpc/h.
    """
    box = parameters.box_size
    field = gaussian_field(power, n_grid=parameters.particles, box_size=box, seed=seed)
    positions = evolve(field, parameters.settings(), device=device, on_step=on_step).cpu().numpy()
    # A periodic box has no origin, so a uniform translation is as likely a realisation as the box itself; it moves the
    # particle lattice, which survives in voids, against the pixel grid.
    offset = np.random.default_rng([seed, _OFFSET_STREAM]).uniform(0, box, 3).astype(np.float32)
    positions += offset
    positions -= np.float32(box) * (positions >= box)
    np.clip(positions, 0, np.nextafter(np.float32(box), np.float32(0)), out=positions)
    return positions


def _simulate_snapshots(
    folder: Path, parameters: SimulationParameters, seeds: list[int], *, device: torch.device, overwrite: bool
) -> list[Path]:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; expected a folder for the snapshots")
    name = f"snapshot_{parameters.box_size:g}Mpch"
    paths = {seed: folder / f"{name}_seed{seed:04d}.hdf5" for seed in seeds}
    record = parameters.to_json()
    todo = _pending(paths, record, _snapshot_record, overwrite=overwrite)
    _require_space(folder, len(todo) * (12 * parameters.particles**3 + 10_000))
    for seed, positions in _runs(parameters, todo, device):
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
    if not _pending({0: path}, whole, _slices_record, overwrite=overwrite, noun="file"):
        return path
    parts = {seed: path.with_name(f"{path.name}.parts") / f"seed{seed:04d}.h5" for seed in seeds}
    todo = _pending(parts, record, _slices_record, overwrite=overwrite)
    bytes_per_seed = 3 * n_slabs * metadata.n_pixels**2 * (2 if metadata.quantity == "counts" else 4)
    # The parts and the whole file exist together for a moment.
    _require_space(path.parent, bytes_per_seed * (len(todo) + len(seeds)))
    n_slices = 3 * n_slabs
    for seed, positions in _runs(parameters, todo, device):
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
    shutil.rmtree(parts[seeds[0]].parent)
    return path


def _runs(parameters: SimulationParameters, seeds: list[int], device: torch.device) -> Iterator[tuple[int, np.ndarray]]:
    """Simulate the seeds one after the other, with one progress bar over all steps."""
    if not seeds:
        return
    # The largest wave number of the initial grid is the corner of its cube.
    power = linear_power(parameters.cosmology, math.sqrt(3) * math.pi * parameters.particles / parameters.box_size)
    _announce(parameters, seeds, device)
    with tqdm(total=len(seeds) * parameters.steps, desc="simulate", unit="step") as bar:

        def on_step() -> None:
            bar.update()

        for seed in seeds:
            bar.set_postfix_str(f"seed {seed}")
            yield seed, run_seed(parameters, power, seed, device=device, on_step=on_step)


def _announce(parameters: SimulationParameters, seeds: list[int], device: torch.device) -> None:
    box = format_length(parameters.box_size, parameters.cosmology.h)
    seconds = len(seeds) * _estimate_seconds(parameters, device)
    where = "memory" if device.type == "cpu" else f"memory on {device}"
    print(
        f"simulating {len(seeds)} x {parameters.particles}^3 particles in {box}, {parameters.steps} steps, "
        f"mesh {parameters.mesh}^3: about {_estimate_bytes(parameters) / 1e9:.1f} GB of {where} and about "
        f"{_format_seconds(seconds)}",
        file=sys.stderr,
    )


def _estimate_bytes(parameters: SimulationParameters) -> float:
    # Positions, velocities and two displacement fields; on the mesh three force components, the modes of the density
    # and two work arrays of a transform.
    return _BYTES_TORCH + 48 * parameters.particles**3 + 24 * parameters.mesh**3


def _estimate_seconds(parameters: SimulationParameters, device: torch.device) -> float:
    """Time one step of a small run on this machine and scale it by particles and steps."""
    n = min(_CALIBRATION, parameters.particles)
    mesh = 2 * round(n * parameters.mesh / parameters.particles / 2)
    position = lattice(n, parameters.box_size, device=device)
    force = torch.empty_like(position)
    elapsed = []

    with ParticleMesh(mesh, parameters.box_size, device=device) as particle_mesh:

        def interpolate(rows: slice) -> None:
            force[rows] = particle_mesh.force_at(position[rows])

        # The first round pays for fresh memory.
        for _ in range(3):
            start = time.perf_counter()
            particle_mesh.compute_force(position)
            particle_mesh.for_each_particle(interpolate, len(position))
            force[0].cpu()
            elapsed.append(time.perf_counter() - start)
    return _OVERHEAD * min(elapsed) * (parameters.particles / n) ** 3 * (parameters.steps + 2)


def _format_seconds(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _pending(
    paths: dict[int, Path],
    record: str,
    read_record: Callable[[Path], str | None],
    *,
    overwrite: bool,
    noun: str = "seed",
) -> list[int]:
    """Return the seeds still to do, and say so; refuse to touch files made with other parameters."""
    done = []
    for seed, path in paths.items():
        if overwrite or not path.exists():
            continue
        found = read_record(path)
        if found != record:
            raise UserError(
                f"{path}: exists already and was made otherwise ({_record_difference(found, record)}); "
                "choose another name or add --overwrite"
            )
        done.append(seed)
    todo = [seed for seed in paths if seed not in done]
    if done and noun == "seed":
        rest = f"simulating {', '.join(map(str, todo))}" if todo else "nothing to do"
        print(f"complete already, skipped: seed {', '.join(map(str, done))}; {rest}", file=sys.stderr)
    elif done:
        print(f"{paths[done[0]]}: complete already with these parameters; nothing to do", file=sys.stderr)
    return todo


def _record_difference(found: str | None, expected: str) -> str:
    if found is None:
        return "without a record of its parameters"
    old, new = json.loads(found), json.loads(expected)
    old, new = ({**record, **record.pop("cosmology", {})} for record in (old, new))
    return ", ".join(f"{k} {old.get(k)} instead of {new.get(k)}" for k in sorted(old | new) if old.get(k) != new.get(k))


def _snapshot_record(path: Path) -> str | None:
    # Opened as a snapshot first: a damaged file must not pass for a complete one.
    open_snapshot(path)
    with h5py.File(path) as handle:
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


def _require_space(folder: Path, needed: int) -> None:
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(f"{folder}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free on that disk")
