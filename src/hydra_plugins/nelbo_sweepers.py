"""The sweepers, where Hydra looks for them: it takes them from this namespace alone."""

from nelbo.cli.sweep import grid, search


class GridSweeper(grid.GridSweeper):
    """``hydra/sweeper=grid``: every combination."""


class OptunaSweeper(search.OptunaSweeper):
    """``hydra/sweeper=optuna``: a search for the lowest bound."""
