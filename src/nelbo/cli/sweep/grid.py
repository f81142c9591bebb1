"""Every combination of the choices on the command line."""

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from nelbo.cli.sweep.folder import say_what_is_done, sweep_folder
from nelbo.cli.sweep.job import Job, plan
from nelbo.cli.sweep.launch import launch


class GridSweeper(BasicSweeper):
    """Hydra's own sweeper, which goes on where it was interrupted and ends with a table of the runs."""

    def sweep(self, arguments: list[str]) -> Any:
        """Run all combinations; all are composed before the first is run.

        Raises:
            HydraException: for options that cannot be composed.
            ValueError: for a folder with jobs of other options.
            SweepFailedError: when some jobs did not end well.
        """
        assert self.config is not None
        assert self.launcher is not None
        batches = self._batches(arguments)
        jobs = [job for batch in batches for job in batch]
        for job in jobs:
            job.check_same_options()
        with sweep_folder(self.config) as known:
            known += jobs
            say_what_is_done(jobs)
            for batch in batches:
                launch(self.launcher, batch)

    def _batches(self, arguments: list[str]) -> list[list[Job]]:
        assert self.config is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        parser = OverridesParser.create(config_loader=loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        chosen = {override.get_key_element() for override in overrides if override.is_sweep_override()}
        batches: list[list[Job]] = []
        number = 0
        for combinations in self.split_arguments(overrides, self.max_batch_size):
            batches.append([])
            for combination in combinations:
                options = [override.partition("=") for override in combination]
                choices = {option: value for option, _, value in options if option in chosen}
                batches[-1].append(plan(number, combination, choices, self.config, loader))
                number += 1
        return batches
