"""Train a rung of the records within its time, and write docs/records.md.

    python -m records digits            # seeds 0, 1 and 2; make record NAME=...
    python -m records mnist --seeds 1   # one of them
    python -m records --table           # the table alone

A rung is a file of ``records/rungs``: data, machine, seconds, options. The
clock runs from the start of ``python train.py`` to its end, with its start-up,
validations and final test. ``evaluate.py`` then measures the bound of the test
split, outside of the time. A result is written only for a committed tree, a
machine of the class of the rung, and a run that ended by itself in time.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from nelbo.atomic_file import read_json, write_json
from nelbo.evaluation.accumulator import Estimate
from nelbo.evaluation.seeds import SeedEstimate

ROOT = Path(__file__).parents[1]
RUNGS, RESULTS, PAGE = ROOT / "records/rungs", ROOT / "records/results", ROOT / "docs/records.md"
SEEDS = (0, 1, 2)
LOGS = ("train", "evaluate")
MARK = "<!-- python -m records writes what follows -->\n"
COLUMNS = (
    "| date | bits/dim (± seeds ± images) | seeds | seconds | images/s | train.py; evaluate.py | commit |",
    "| --- | --- | --- | --- | --- | --- | --- |",
)


@dataclass(frozen=True)
class Rung:
    """What a record is measured on.

    Attributes:
        name: of its file.
        title: data, as the table shows it.
        cores: of the machine that this process may use.
        gpus: of the machine.
        seconds: limit of ``train.py``.
        aim: bits/dim to reach.
        published: values of other projects, in bits/dim.
        train: options of ``train.py``.
        evaluate: options of ``evaluate.py``.
    """

    name: str
    title: str
    cores: int
    gpus: int
    seconds: float
    aim: float
    published: Sequence[str]
    train: Sequence[str]
    evaluate: Sequence[str]

    @classmethod
    def read(cls, name: str) -> "Rung":
        """Read a file of ``records/rungs``."""
        return cls(name, **yaml.safe_load((RUNGS / f"{name}.yaml").read_text()))

    def check_machine(self) -> None:
        """Check that the machine has the cores and GPUs of the rung.

        Raises:
            SystemExit: naming what it has.
        """
        cores, gpus = len(os.sched_getaffinity(0)), torch.cuda.device_count()
        if (cores, gpus) != (self.cores, self.gpus):
            raise SystemExit(
                f"record {self.name} is for {self.cores} CPU cores and {self.gpus} GPUs, and here are "
                f"{cores} and {gpus}: nothing is run"
            )


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def committed() -> str:
    """The commit of the tree. Results of other seeds and the page with their table may be uncommitted.

    Raises:
        SystemExit: for a tree with other changes.
    """
    written = [f":(exclude){path.relative_to(ROOT)}" for path in (RESULTS, PAGE)]
    if git("status", "--porcelain", "--", ".", *written):
        raise SystemExit("the tree has changes that are not committed: a record belongs to a commit")
    return git("rev-parse", "--short=10", "HEAD")


def command(script: str, *options: str) -> list[str]:
    return [sys.executable, str(ROOT / script), *options]


def run(arguments: Sequence[str], log: Path, seconds: float | None = None) -> float:
    """Run a command; return its seconds.

    Raises:
        SystemExit: if it fails, is interrupted or takes longer than ``seconds``.
    """
    started = time.monotonic()
    with log.open("w") as output:
        try:
            code = subprocess.run(
                arguments, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, timeout=seconds, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            raise SystemExit(
                f"it was stopped after {seconds:.0f} s, the limit of the record: no result is written"
            ) from None
    if code:
        raise SystemExit(f"it ended with exit code {code}, see {log}: no result is written")
    return time.monotonic() - started


def measure(rung: Rung, seed: int, folder: Path) -> dict[str, Any]:
    """Train and evaluate one seed in an empty folder."""
    training, evaluation = folder / "train", folder / "evaluate"
    options = [*rung.train, f"seed={seed}", "logger=csv", f"hydra.run.dir={training}"]
    seconds = run(command("train.py", *options), folder / "train.txt", rung.seconds)
    checkpoint = f"checkpoint={training}/checkpoints/last.ckpt"
    run(
        command("evaluate.py", checkpoint, *rung.evaluate, f"hydra.run.dir={evaluation}"),
        folder / "evaluate.txt",
    )
    summary, measured = read_json(training / "summary.json"), read_json(evaluation / "evaluation.json")
    return {
        "seed": seed,
        "bits_per_dim": measured["test/bpd"],
        "stderr": measured["test/bpd_stderr"],
        "examples": measured["ledger"]["num_examples"],
        "seconds": round(seconds, 1),
        "steps": summary["step"],
        "images_per_second": summary["throughput/images_per_second"],
        "network_evaluations": measured["network_evaluations"],
        "ledger": measured["ledger"],
    }


def record(rung: Rung, seed: int) -> Path:
    """Run one seed, then write its result and logs; return the file.

    Raises:
        SystemExit: if there is a result of this commit, the machine is of another class, the tree is or was
            changed, or a run fails or takes too long.
    """
    rung.check_machine()
    commit = committed()
    kept = RESULTS / rung.name / commit / f"{seed}.json"
    if kept.exists():
        raise SystemExit(f"{kept} is there: a commit has one result for each seed")
    folder = ROOT / "outputs/records" / rung.name / commit / str(seed)
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted record
    folder.mkdir(parents=True)
    found = measure(rung, seed, folder)
    if committed() != commit:
        raise SystemExit("another commit was checked out during the record: no result is written")
    kept.parent.mkdir(parents=True, exist_ok=True)
    for name in LOGS:
        log = (folder / f"{name}.txt").read_text().replace(f"{ROOT}/", "")
        kept.with_name(f"{seed}_{name}.txt").write_text(log)
    options = {"options": list(rung.train), "evaluate": list(rung.evaluate)}
    write_json(kept, {"date": time.strftime("%Y-%m-%d"), **options, **found})
    return kept


def table() -> str:
    """All results, a Markdown table for each rung."""
    rungs = [Rung.read(path.stem) for path in RUNGS.glob("*.yaml")]
    return "\n".join(section(rung) for rung in sorted(rungs, key=lambda rung: (rung.gpus, rung.seconds)))


def section(rung: Rung) -> str:
    """The heading of a rung and the table of its records."""
    minutes = rung.seconds / 60
    limit = f"{minutes:g} minutes" if minutes < 60 else f"{minutes / 60:g} h"
    machine = f"{rung.gpus} GPU" if rung.gpus else f"{rung.cores} CPU cores"
    published = f" Published: {', '.join(rung.published)}." if rung.published else ""
    head = (
        f"### {rung.title}\n\n{limit} on {machine}: `make record NAME={rung.name}`. "
        f"Aim: {rung.aim:g} bits/dim.{published}\n\n"
    )
    by_commit: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((RESULTS / rung.name).glob("*/*.json")):
        by_commit.setdefault(path.parent.name, []).append(read_json(path))
    rows = sorted((row(commit, results) for commit, results in by_commit.items()))
    return head + ("\n".join([*COLUMNS, *rows]) if rows else "No record yet.") + "\n"


def row(commit: str, results: Sequence[Mapping[str, Any]]) -> str:
    """One record: means over its seeds."""
    bpd = SeedEstimate.of([Estimate(result["bits_per_dim"], result["stderr"]) for result in results])
    over_seeds = f" ± {bpd.seed_stderr:.4f}" if bpd.count > 1 else ""
    cells = [
        results[0]["date"],
        f"{bpd.mean:.4f}{over_seeds} ± {bpd.within:.4f}",
        str(bpd.count),
        f"{max(result['seconds'] for result in results):.0f}",
        f"{statistics.fmean(result['images_per_second'] for result in results):.0f}",
        "; ".join(
            f"`{' '.join(results[0][name])}`" for name in ("options", "evaluate") if name in results[0]
        ),
        commit,
    ]
    return "| " + " | ".join(cells) + " |"


def write_table() -> None:
    """Replace what follows the mark in docs/records.md."""
    PAGE.write_text(f"{PAGE.read_text().partition(MARK)[0]}{MARK}\n{table()}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m records", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = sorted(path.stem for path in RUNGS.glob("*.yaml"))
    parser.add_argument("name", nargs="?", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, default=SEEDS)
    parser.add_argument("--table", action="store_true", help="write docs/records.md from the results")
    arguments = parser.parse_args()
    if not arguments.table and arguments.name is None:
        parser.error(f"NAME is missing, one of: {', '.join(names)}")
    for seed in () if arguments.table else arguments.seeds:
        print(record(Rung.read(arguments.name), seed))
    write_table()
    print(PAGE)


if __name__ == "__main__":
    main()
