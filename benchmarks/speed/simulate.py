"""Wall time and peak memory of `cosmogan simulate`, each run in a process of its own.

python benchmarks/speed/simulate.py [PARTICLES ...]      default: 128 256
"""

import os
import subprocess
import sys
import tempfile
import time

BOXES = ("500 Mpc/h", "100 Mpc/h")


def main() -> None:
    sides = [int(word) for word in sys.argv[1:]] or [128, 256]
    print(f"{os.cpu_count()} cores\n")
    print("| box | particles | wall (s) | CPU (s) | peak memory (GB) |\n|---|---|---|---|---|")
    for particles in sides:
        for box_size in BOXES:
            with tempfile.TemporaryDirectory() as folder:
                words = ["--box-size", box_size, "--particles", str(particles), "--seeds", "1", "--out", folder]
                started = time.perf_counter()
                process = subprocess.Popen(
                    [sys.executable, "-m", "cosmogan.cli", "simulate", *words],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                _, status, usage = os.wait4(process.pid, 0)
                wall = time.perf_counter() - started
            if status:
                sys.exit(f"cosmogan simulate failed for {box_size} and {particles}^3 particles")
            cpu = usage.ru_utime + usage.ru_stime
            # ru_maxrss is in kB on Linux.
            print(f"| {box_size} | {particles}³ | {wall:.1f} | {cpu:.1f} | {usage.ru_maxrss / 1e6:.2f} |", flush=True)


if __name__ == "__main__":
    main()
