"""Other people's HDF5 and npy files, opened with every check and sentence."""
