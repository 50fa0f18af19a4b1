"""The machine a run has: devices, memory, processes, ranks, threads and locks."""
