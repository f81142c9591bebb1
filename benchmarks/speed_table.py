"""Rows of times and rates, as a markdown table and as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.interleave import Ratio, ratio


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        part: of the benchmark.
        variant: what was timed.
        images: in one step; None if no images are counted.
        milliseconds: median time of a step.
        images_per_second: or None.
        tflops: 10^12 floating-point operations per second, or None.
        ratio: time of the part's first variant divided by that of this one; None for the first one itself.
    """

    part: str
    variant: str
    images: int | None
    milliseconds: float
    images_per_second: float | None
    tflops: float | None
    ratio: Ratio | None


@dataclass
class SpeedTable:
    """The measurements of one run on one device.

    Attributes:
        device: name of the device.
        settings: versions and settings of the run.
        rows: in the order of measurement.
        peak: TFLOP/s of the device, of which the rows are a share; None before it is measured.
        not_measured: reasons of what has no rows, by part.
    """

    device: str
    settings: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    peak: float | None = None
    not_measured: dict[str, str] = field(default_factory=dict)

    def add(
        self,
        part: str,
        seconds: Mapping[str, list[float]],
        images: int | None = None,
        flops: float | None = None,
        repeats: int = 1,
    ) -> None:
        """Add a row for each variant of interleaved timings.

        Args:
            part: of the benchmark.
            seconds: timings of each variant; the first one is the baseline of the ratios.
            images: in one step.
            flops: floating-point operations of one step.
            repeats: steps in each timing.
        """
        baseline = next(iter(seconds.values()))
        for variant, times in seconds.items():
            step = median(times) / repeats
            self.rows.append(
                Row(
                    part=part,
                    variant=variant,
                    images=images,
                    milliseconds=1e3 * step,
                    images_per_second=None if images is None else images / step,
                    tflops=None if flops is None else flops / step / 1e12,
                    ratio=None if times is baseline else ratio(baseline, times),
                )
            )

    def markdown(self) -> str:
        """The table, below the device and the settings, and above what was not measured."""
        settings = "".join(f", {name} {value}" for name, value in self.settings.items())
        lines = [
            f"{self.device}{settings}",
            "",
            "| part | variant | images | ms | images/s | TFLOP/s | of the bf16 peak | first / variant |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *(self._line(row) for row in self.rows),
        ]
        if self.not_measured:
            lines += ["", *(f"- not measured: {part}: {why}" for part, why in self.not_measured.items())]
        return "\n".join(lines) + "\n"

    def _line(self, row: Row) -> str:
        share = None if row.tflops is None or self.peak is None else row.tflops / self.peak
        cells = [
            row.part,
            row.variant,
            "" if row.images is None else f"{row.images}",
            f"{row.milliseconds:.2f}",
            "" if row.images_per_second is None else f"{row.images_per_second:,.0f}",
            "" if row.tflops is None else f"{row.tflops:.3g}",
            "" if share is None else f"{share:.1%}",
            "1" if row.ratio is None else f"{row.ratio}",
        ]
        return f"| {' | '.join(cells)} |"

    def write(self, folder: Path, name: str) -> None:
        """Write ``name.md`` and ``name.json`` into a folder, which is created."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.md").write_text(self.markdown())
        (folder / f"{name}.json").write_text(json.dumps(asdict(self), indent=2) + "\n")
