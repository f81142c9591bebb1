"""Other projects' checkpoints and formats, in and out."""
