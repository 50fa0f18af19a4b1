"""Everything before the slice file: N-body runs, snapshots, slabs."""
