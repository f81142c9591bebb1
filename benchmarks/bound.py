"""What a bound costs: standard error against network evaluations, for every way to choose timesteps.

    python -m benchmarks.bound --checkpoint outputs/.../checkpoints/last.ckpt
    python -m benchmarks.bound --checkpoint ... --no-full      # without the full loop, the longest part

The full loop evaluates every t of every example of the split once, as improved-diffusion's calc_bpd_loop does
(diffusers has no bound). Its standard error comes from the examples being a sample; chance, from the noise,
is a small part of it. Every other way spends fewer evaluations and adds chance of its own:

    stderr^2 = data set^2 + chance^2,     chance^2 = V / evaluations

so V, the variance per evaluation, ranks the ways whatever the budget. ``spread`` is how far the totals of
several seeds lie apart: it should be what ``chance`` says.

The last part times the loop of T passes a batch against ours, which puts several timesteps into one call of
the network, on a few examples, interleaved: the ratio of the times of one evaluation.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor

from benchmarks.interleave import Clock, interleave, ratio, set_up_clock
from nelbo.cli.command import CONFIG_DIR
from nelbo.cli.evaluate import Batches
from nelbo.compose.trained import TrainedModel, read_model
from nelbo.data import DataModule
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain
from nelbo.evaluation.accumulator import BoundAccumulator
from nelbo.evaluation.bound_variant import BoundVariant
from nelbo.evaluation.estimators import (
    BoundEstimator,
    FullEstimator,
    ImportanceEstimator,
    StratifiedEstimator,
)
from nelbo.evaluation.estimators.base import Assignment, variance_of_sum
from nelbo.evaluation.measure import measure
from nelbo.randomness import generator

TIMED_EXAMPLES = 8


class Uniform(StratifiedEstimator):
    """Independent uniform timesteps from 2..T: the baseline."""

    def assign(self, index: Tensor, num_examples: int, chain: Chain) -> Assignment:
        """Independent uniform draws."""
        draws = self.evaluations_per_example - 2
        source = generator(self.seed, "uniform", num_examples, draws)
        steps = torch.randint(2, chain.num_steps + 1, (num_examples, draws), generator=source)[index]
        return Assignment(steps, torch.full(steps.shape, (chain.num_steps - 1) / draws, dtype=torch.float64))

    def mc_variance(self, steps: Tensor, nats: Tensor, weighted: Tensor) -> Tensor | None:
        """Monte Carlo variance of the sum of L_t, (B,), from the spread of the independent draws."""
        return variance_of_sum(weighted)


class Case:
    """A model and a split, measured again and again."""

    def __init__(self, model: TrainedModel, data: DataModule, split: str, device: torch.device) -> None:
        self.model, self.data = model, data
        self.split = split
        self.batches = Batches(data, split, device, (0, 1))
        self.device = device
        self.num_examples = len(data.split(split))
        self.per_nat = model.module.unit.per_nat

    def __call__(self, estimator: BoundEstimator) -> tuple[float, float, float, int, float]:
        """Mean, standard error, chance, evaluations, seconds."""
        module, begun = self.model.module, time.perf_counter()
        [result] = measure(
            estimator,
            [BoundVariant(module.bound)],
            module.denoiser,
            self.batches,
            self.num_examples,
            module.unit,
            self.device,
            module.conditional,
        )
        total = result.estimate.total
        figures = (total.mean * self.per_nat, total.stderr * self.per_nat, total.mc_stderr * self.per_nat)
        return *figures, result.estimate.num_evaluations, time.perf_counter() - begun

    def table_row(self, name: str, make: Callable[[int], BoundEstimator], seeds: int) -> tuple[float, float]:
        """Measure with several seeds and print the averages; chance^2 and spread^2 times evaluations."""
        results = [self(make(seed)) for seed in range(seeds)]
        mean, stderr, chance, evaluations, seconds = (
            statistics.mean(column) for column in zip(*results, strict=True)
        )
        spread = statistics.stdev(result[0] for result in results) if seeds > 1 else math.nan
        variance = chance**2 * evaluations
        print(
            f"{name:<34}{evaluations:>10,.0f}{mean:>9.4f}{stderr:>9.4f}{chance:>9.4f}{spread:>9.4f}"
            f"{variance:>9.3f}{seconds:>8.1f}",
            flush=True,
        )
        return variance, spread**2 * evaluations


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="on the CPU (default 1)")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=20, help="of the timing")
    parser.add_argument("--full", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    torch.set_float32_matmul_precision("high")  # as evaluate.py
    device = torch.device(arguments.device)
    clock = set_up_clock(device, arguments.threads)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        model = read_model(compose("evaluate", overrides=[f"checkpoint={arguments.checkpoint}"]))
    model.module.to(device)
    data: DataModule = instantiate(model.config.data)
    data.prepare_data()
    case = Case(model, data, arguments.split, device)
    with torch.no_grad():
        compare_errors(case, arguments.seeds, arguments.full)
        compare_times(case, clock, arguments.rounds)


def compare_errors(case: Case, seeds: int, full: bool) -> None:
    """The table of errors and what follows from it."""
    T, n = case.model.module.bound.chain.num_steps, case.num_examples
    print(f"{n} examples, T = {T}: every t of every example once is {n * T:,} evaluations; bits/dim")
    print(f"{'':<34}{'evals':>10}{'mean':>9}{'stderr':>9}{'chance':>9}{'spread':>9}{'V':>9}{'s':>8}")
    budget = n * T // 50
    per_example = max(8, budget // n)
    variances = {
        "uniform": case.table_row("uniform t", lambda seed: Uniform(per_example, seed), seeds),
        "stratified": case.table_row(
            "stratified uniform t", lambda seed: StratifiedEstimator(per_example, seed), seeds
        ),
        "importance": case.table_row(
            "importance, 1/50 of the full loop", lambda seed: importance(seed, budget, per_example - 3), seeds
        ),
    }
    case.table_row("importance, default", lambda seed: ImportanceEstimator(seed=seed), min(seeds, 3))
    for name in ("uniform", "stratified"):
        by_chance, by_spread = (a / b for a, b in zip(variances[name], variances["importance"], strict=True))
        bars = "" if math.isnan(by_chance) else f"{by_chance:.1f} by their error bars, "
        apart = f"{by_spread:.1f} by how far the seeds lie apart"
        print(f"evaluations for the same chance, {name} / importance: {bars}{apart}")
    if not full:
        return
    mean, stderr, chance, evaluations, seconds = case(FullEstimator())
    print(f"{'full loop, L_0 twice':<34}{evaluations:>10,}{mean:>9.4f}{stderr:>9.4f}{chance:>9.4f}{'':>9}"
          f"{chance**2 * evaluations:>9.3f}{seconds:>8.1f}")  # fmt: skip
    print(f"\nuntil chance is below the full loop's standard error of {stderr:.4f}:")
    for per_round in (5, 8, 16):
        results = [case(importance(seed, 10**9, per_round, stderr)) for seed in range(seeds)]
        used = statistics.mean(result[3] for result in results)
        chance_left = statistics.mean(result[2] for result in results)
        print(
            f"  importance, {per_round} evaluations per example and round: {used:,.0f} evaluations, "
            f"{n * T / used:.0f} times fewer, chance {chance_left:.4f}"
        )
    print("until stderr, data set and chance together, is near that of the full loop:")
    data_set = math.sqrt(max(stderr**2 - chance**2, 0.0))
    for more in (1.05, 1.10, 1.20):
        left = (more * stderr) ** 2 - data_set**2
        needed = variances["importance"][0] / left
        print(f"  {more - 1:.0%} above: {needed:,.0f} evaluations, {n * T / needed:.1f} times fewer")


def importance(seed: int, most: int, per_round: int, target: float = 1e-9) -> ImportanceEstimator:
    """One that spends its budget, with the smallest pilot there is."""
    return ImportanceEstimator(
        target_stderr=target,
        enough=0.0,
        max_evaluations=most,
        evaluations_per_round=per_round,
        pilot_evaluations=1,
        seed=seed,
    )


def compare_times(case: Case, clock: Clock, rounds: int) -> None:
    """Time of one evaluation in a loop of T passes a batch, and in ours."""
    module = case.model.module
    every = max(1, module.bound.chain.num_steps // 50)
    chain = Chain(module.bound.chain.schedule, torch.arange(every, module.bound.chain.num_steps + 1, every))
    bound = VariationalBound(chain, module.bound.decoder)
    batch = case.data.take(case.split, TIMED_EXAMPLES).to(case.device)
    noise = torch.randn_like(batch.x0)

    def passes() -> None:
        bound.terms(module.denoiser, batch.x0, lambda _: noise, batch.label if module.conditional else None)

    def ours() -> None:
        accumulator = BoundAccumulator(chain.num_steps, case.device, len(batch.x0))
        index = torch.arange(len(batch.x0), device=case.device)
        label = batch.label if module.conditional else None
        FullEstimator().measure(
            [accumulator], [BoundVariant(bound)], module.denoiser, batch.x0, index, label, len(batch.x0)
        )

    seconds = interleave({"passes": passes, "ours": ours}, clock, rounds)
    each = [s / (TIMED_EXAMPLES * chain.num_steps) for s in seconds["passes"]]
    mine = [s / (TIMED_EXAMPLES * (chain.num_steps + 1)) for s in seconds["ours"]]
    print(
        f"\n{TIMED_EXAMPLES} examples at a time, one evaluation: {statistics.median(each) * 1e3:.3f} ms in a "
        f"loop of a pass for each t, {statistics.median(mine) * 1e3:.3f} ms in ours; "
        f"ratio {ratio(each, mine)}"
    )


if __name__ == "__main__":
    main()
