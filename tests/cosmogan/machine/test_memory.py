"""Memory that a process may take, from files as Linux writes them."""

from pathlib import Path

import pytest

from cosmogan.emulator.resizing import require_memory
from cosmogan.errors import UserError
from cosmogan.machine.memory import available_memory, memory_limit
from data_tools.slicing.slicing import _grid_bytes

FREE = 4096 * 1024


def linux(folder: Path, lines: str, files: dict[str, str]) -> Path:
    """Write what a system says whose free memory is `FREE`, given lines of /proc/self/cgroup and files of cgroups."""
    files = {f"sys/fs/cgroup/{name}": text for name, text in files.items()} | {
        "proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    4096 kB\n",
        "proc/self/cgroup": lines + "\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("lines", "files", "expected"),
    [
        ("0::/job/step", {}, FREE),
        ("0::/job/step", {"job/memory.max": "1000\n", "job/step/memory.max": "max\n"}, 1000),
        ("0::/job/step", {"memory.max": str(2**40)}, FREE),
        ("4:cpu,memory:/slurm/job", {"memory/slurm/memory.limit_in_bytes": "2000\n"}, 2000),
        ("4:cpu:/slurm/job", {"memory/slurm/memory.limit_in_bytes": "2000\n"}, FREE),
        # What is used is gone, but for files in the cache that nobody reads.
        ("0::/job", {"job/memory.max": "1000\n", "job/memory.current": "700\n"}, 300),
        (
            "0::/job",
            {
                "job/memory.max": "1000\n",
                "job/memory.current": "700\n",
                "job/memory.stat": "anon 100\ninactive_file 500\n",
            },
            800,
        ),
        (
            "4:memory:/job",
            {
                "memory/job/memory.limit_in_bytes": "1000\n",
                "memory/job/memory.usage_in_bytes": "700\n",
                "memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 500\n",
            },
            800,
        ),
        # The step has room left, the job around it has not.
        (
            "0::/job/step",
            {
                "job/memory.max": "900\n",
                "job/memory.current": "850\n",
                "job/step/memory.max": "800\n",
                "job/step/memory.current": "100\n",
            },
            50,
        ),
        ("0::/job", {"job/memory.max": "1000\n", "job/memory.current": "1100\n"}, 0),
    ],
)
def test_memory_is_what_the_batch_job_leaves(tmp_path: Path, lines: str, files: dict[str, str], expected: int):
    assert available_memory(linux(tmp_path, lines, files)) == expected


def test_the_limit_is_the_same_whatever_is_in_use(tmp_path: Path):
    root = linux(tmp_path, "0::/job/step", {"job/memory.max": "1000\n", "job/memory.current": "700\n"})
    assert (memory_limit(root), available_memory(root)) == (1000, 300)
    (root / "sys/fs/cgroup/job/memory.current").write_text("900\n")
    assert (memory_limit(root), available_memory(root)) == (1000, 100)
    assert memory_limit(tmp_path / "nowhere") == memory_limit() > 0


def test_memory_is_that_of_the_machine_where_nothing_is_known(tmp_path: Path):
    assert available_memory(tmp_path) >= available_memory() > 0


def test_slabs_fit_into_a_batch_job(tmp_path: Path):
    root = linux(tmp_path, "0::/job", {"job/memory.max": str(4 * 10**9)})
    # 0.8 of the limit, shared by five, less the programs themselves.
    assert _grid_bytes(None, 1, holders=5, root=root) == pytest.approx(0.8 * 4e9 / 5 - 0.35e9)
    assert _grid_bytes(None, 10**9, holders=5, root=root) == 10**9
    (root / "sys/fs/cgroup/job/memory.max").write_text(str(10**15))
    assert _grid_bytes(None, 1, holders=1, root=root) == pytest.approx(min(1.65e9, 0.8 * memory_limit() - 0.35e9))


def test_slices_beyond_the_limit_of_a_batch_job_are_refused(tmp_path: Path):
    root = linux(tmp_path, "0::/job", {"job/memory.max": "4000000\n", "job/memory.current": "1000000\n"})
    require_memory(1000, 3, root=root)
    with pytest.raises(UserError, match=r"n_pixels 1001: .* may take 3 MB, enough for 1000 pixels along a side"):
        require_memory(1001, 3, root=root)
