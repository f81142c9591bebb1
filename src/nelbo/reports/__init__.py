"""What people look at: the end of a run, its report, comparisons, and Weights & Biases charts."""
