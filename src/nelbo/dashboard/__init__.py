"""What people look at: Weights & Biases charts, and the table at the end of a run."""
