"""What happens during training besides the steps: the generator's average, physics on held-out slices, sample grids."""
