"""Cost of a bound: standard error against network evaluations.

    python -m benchmarks.bound --checkpoint outputs/.../checkpoints/last.ckpt
    python -m benchmarks.bound --checkpoint ... --no-full  # without the loop

The full loop evaluates every t of every example of the split once, like
calc_bpd_loop of improved-diffusion (diffusers has no bound). Its standard error
comes mostly from the finite data set; the Monte Carlo (MC) error, from the
noise, is a small part. The other estimators use fewer evaluations and have a
larger Monte Carlo error:

    stderr^2 = data set^2 + MC^2,     MC^2 = V / evaluations

V, the variance per evaluation, ranks the estimators independently of the
budget. They have no control variate where the row does not say so. ``spread``
is the standard deviation of the totals over seeds, which should equal ``MC``.

The last part compares the time of one evaluation in a loop of T passes per
batch and in the estimator, which evaluates several timesteps per network call.
The two are interleaved on a few examples.
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
from nelbo.compose.config import CONFIG_DIR
from nelbo.compose.trained import TrainedModel, read_model
from nelbo.data import DataModule
from nelbo.data.base import Batches
from nelbo.diffusion.bound import VariationalBound
from nelbo.diffusion.chain import Chain, StepSequence
from nelbo.evaluation.accumulator import BoundAccumulator
from nelbo.evaluation.bound_variant import BoundVariant
from nelbo.evaluation.control_variate import control_of
from nelbo.evaluation.estimators import (
    BoundEstimator,
    FullEstimator,
    ImportanceEstimator,
    StratifiedEstimator,
)
from nelbo.evaluation.estimators.base import Assignment
from nelbo.evaluation.measure import measure
from nelbo.evaluation.stratified_draws import deviations_of_sum
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

    def stored_draws(self, chain: StepSequence) -> int:
        """None: the draws are independent."""
        return 0

    def deviations(self, steps: Tensor, weights: Tensor, values: Tensor) -> Tensor | None:
        """Deviations of the independent draws from their mean, (B, R, V)."""
        return deviations_of_sum(weights.unsqueeze(2) * values)


class Case:
    """A model and a split, measured by several estimators."""

    def __init__(self, model: TrainedModel, data: DataModule, split: str, device: torch.device) -> None:
        self.model, self.data = model, data
        self.split = split
        self.batches = Batches(data, split, device, (0, 1))
        self.device = device
        self.num_examples = len(data.split(split))
        self.per_nat = model.module.unit.per_nat
        self.control = control_of(data, split, device)

    def __call__(self, estimator: BoundEstimator) -> tuple[float, float, float, int, float]:
        """Mean, standard error, MC error (NaN if not known), evaluations, seconds."""
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
            control=self.control if estimator.control_variate else None,
        )
        total = result.estimate.total
        mc_stderr = math.nan if total.mc_stderr is None else total.mc_stderr
        values = (total.mean * self.per_nat, total.stderr * self.per_nat, mc_stderr * self.per_nat)
        return *values, result.estimate.num_evaluations, time.perf_counter() - begun

    def table_row(self, name: str, make: Callable[[int], BoundEstimator], seeds: int) -> tuple[float, float]:
        """Measure with several seeds and print the averages; return MC^2 and spread^2 times evaluations."""
        results = [self(make(seed)) for seed in range(seeds)]
        mean, stderr, mc_stderr, evaluations, seconds = (
            statistics.mean(column) for column in zip(*results, strict=True)
        )
        spread = statistics.stdev(result[0] for result in results) if seeds > 1 else math.nan
        variance = mc_stderr**2 * evaluations
        print(
            f"{name:<34}{evaluations:>10,.0f}{mean:>9.4f}{stderr:>9.4f}{mc_stderr:>9.4f}{spread:>9.4f}"
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
    """Print the errors of the estimators, and the evaluations for the same error."""
    T, n = case.model.module.bound.chain.num_steps, case.num_examples
    print(f"{n} examples, T = {T}: the full loop is {n * T:,} evaluations; bits/dim")
    print(f"{'':<34}{'evals':>10}{'mean':>9}{'stderr':>9}{'MC':>9}{'spread':>9}{'V':>9}{'s':>8}")
    budget = n * T // 50
    per_example = max(8, budget // n)
    variances = {
        "uniform": case.table_row(
            "uniform t", lambda seed: Uniform(per_example, seed, control_variate=False), seeds
        ),
        "stratified": case.table_row(
            "stratified uniform t",
            lambda seed: StratifiedEstimator(per_example, seed, control_variate=False),
            seeds,
        ),
        "importance": case.table_row(
            "importance, 1/50 of the full loop", lambda seed: importance(seed, budget, per_example - 3), seeds
        ),
    }
    for control in (False, True):
        case.table_row(
            f"importance, default{', control variate' * control}",
            lambda seed, control=control: ImportanceEstimator(seed=seed, control_variate=control),
            seeds,
        )
        case.table_row(
            f"stratified, 16{', control variate' * control}",
            lambda seed, control=control: StratifiedEstimator(16, seed, control_variate=control),
            seeds,
        )
    for name in ("uniform", "stratified"):
        by_stderr, by_spread = (a / b for a, b in zip(variances[name], variances["importance"], strict=True))
        reported = "" if math.isnan(by_stderr) else f"{by_stderr:.1f} by the reported MC errors, "
        print(
            f"evaluations for the same MC error, {name} / importance: "
            f"{reported}{by_spread:.1f} by the deviation between seeds"
        )
    if not full:
        return
    mean, stderr, mc_stderr, evaluations, seconds = case(FullEstimator(control_variate=False))
    print(f"{'full loop, L_0 twice':<34}{evaluations:>10,}{mean:>9.4f}{stderr:>9.4f}{mc_stderr:>9.4f}{'':>9}"
          f"{mc_stderr**2 * evaluations:>9.3f}{seconds:>8.1f}")  # fmt: skip
    print(f"\nuntil the MC error is below the standard error of the full loop, {stderr:.4f}:")
    for per_round in (5, 8, 16):
        results = [case(importance(seed, 10**9, per_round, stderr)) for seed in range(seeds)]
        used = statistics.mean(result[3] for result in results)
        mc_left = statistics.mean(result[2] for result in results)
        print(
            f"  importance, {per_round} evaluations per example and round: {used:,.0f} evaluations, "
            f"{n * T / used:.0f} times fewer, MC error {mc_left:.4f}"
        )
    print("until the standard error is near that of the full loop:")
    data_set = math.sqrt(max(stderr**2 - mc_stderr**2, 0.0))
    for more in (1.05, 1.10, 1.20):
        left = (more * stderr) ** 2 - data_set**2
        needed = variances["importance"][0] / left
        print(f"  {more - 1:.0%} above: {needed:,.0f} evaluations, {n * T / needed:.1f} times fewer")


def importance(seed: int, most: int, per_round: int, target: float = 1e-9) -> ImportanceEstimator:
    """An estimator that uses its whole budget, with the smallest pilot."""
    return ImportanceEstimator(
        target_stderr=target,
        enough=0.0,
        max_evaluations=most,
        evaluations_per_round=per_round,
        pilot_evaluations=1,
        seed=seed,
        control_variate=False,
    )


def compare_times(case: Case, clock: Clock, rounds: int) -> None:
    """Compare the time of one evaluation in a loop of T passes per batch and in the estimator."""
    module = case.model.module
    every = max(1, module.bound.chain.num_steps // 50)
    chain = Chain(module.bound.chain.schedule, torch.arange(every, module.bound.chain.num_steps + 1, every))
    bound = VariationalBound(chain, module.bound.decoder)
    batch = case.data.take(case.split, TIMED_EXAMPLES).to(case.device)
    noise = torch.randn_like(batch.x0)

    def passes() -> None:
        bound.terms(module.denoiser, batch.x0, lambda _: noise, batch.cond if module.conditional else None)

    def estimator() -> int:
        accumulator = BoundAccumulator(chain.num_steps, case.device, len(batch.x0))
        index = torch.arange(len(batch.x0), device=case.device)
        cond = batch.cond if module.conditional else None
        FullEstimator().measure(
            [accumulator], [BoundVariant(bound)], module.denoiser, batch.x0, index, cond, len(batch.x0)
        )
        return accumulator.num_evaluations

    evaluations = estimator()
    seconds = interleave({"passes": passes, "estimator": estimator}, clock, rounds)
    in_passes = [s / (TIMED_EXAMPLES * chain.num_steps) for s in seconds["passes"]]
    in_estimator = [s / evaluations for s in seconds["estimator"]]
    print(
        f"\n{TIMED_EXAMPLES} examples at a time, one evaluation: {statistics.median(in_passes) * 1e3:.3f} ms "
        f"in a loop with one pass for each t, {statistics.median(in_estimator) * 1e3:.3f} ms in the "
        f"estimator; ratio {ratio(in_passes, in_estimator)}"
    )


if __name__ == "__main__":
    main()
