"""Published cubes, maps and arrays: one file per format, each saying what its numbers are and where they lie."""
