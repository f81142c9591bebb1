"""The folder of a run: every file in it, with its writer and its reader."""
