"""Rank of this process, as torchrun, mpirun or srun say it; without any message passing."""

from __future__ import annotations

from collections.abc import Mapping

from cosmogan.errors import UserError

# Rank and number of ranks as launchers say them. In a SLURM batch script, outside of srun, only those of the step are
# unset: a plain command there is alone, however many tasks were asked for.
_RANKS = (
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)
# Number of a process among those of its node.
_LOCAL_RANKS = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")


def find_rank(environment: Mapping[str, str]) -> tuple[int, int]:
    """Return the rank of this process and the number of ranks, as torchrun, mpirun or srun say them.

    Raises
    ------
    UserError
        If they say nonsense.
    """
    for rank_name, size_name in _RANKS:
        if rank_name in environment and size_name in environment:
            try:
                rank, size = int(environment[rank_name]), int(environment[size_name])
            except ValueError:
                rank, size = -1, 0
            if not 0 <= rank < size:
                raise UserError(
                    f"environment variables {rank_name}={environment[rank_name]!r} and {size_name}="
                    f"{environment[size_name]!r}: expected a rank below the number of ranks; unset both to run alone"
                )
            return rank, size
    return 0, 1


def find_local_rank(environment: Mapping[str, str]) -> int:
    """Return the number of this process on its node, 0 where no launcher says it."""
    for name in _LOCAL_RANKS:
        if environment.get(name, "").isdecimal():
            return int(environment[name])
    return 0
