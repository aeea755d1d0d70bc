"""What a run leaves behind, as arrays: trajectories, the files they live in, and datasets to learn from. NumPy only."""
