"""Summary statistics of slices, one file each: pure functions of tensors."""
