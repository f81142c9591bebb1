"""ODE solvers of evaluations: the fixed-step ones, and an adaptive one of another library."""

# torchode annotates with types of torchtyping, which a type checker does not match with Tensor
# pyright: reportArgumentType=false

import torch
from torch import Tensor

from nelbo.diffusion.likelihood.solvers import RK4, HeunSolver, Solution, Solver, VectorField
from nelbo.option_types import PositiveFloat, PositiveInt

__all__ = ["RK4", "AdaptiveSolver", "HeunSolver", "Solver"]


class AdaptiveSolver(Solver):
    """Tsit5 with a step size of its own for each example (torchode, Lienen & Günnemann 2022).

    A result does not depend on the other examples of the batch.

    Args:
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step.
        max_steps: of an example.

    Raises:
        ValueError: without the library.
    """

    def __init__(
        self, rtol: PositiveFloat = 1e-4, atol: PositiveFloat = 1e-4, max_steps: PositiveInt = 1000
    ) -> None:
        try:
            import torchode  # noqa: F401  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ValueError("solver=adaptive needs torchode: pip install 'nelbo[ode]'") from error
        self.rtol = rtol
        self.atol = atol
        self.max_steps = max_steps

    def __str__(self) -> str:
        return f"Tsit5, rtol {self.rtol:g}, atol {self.atol:g}"

    def solve(self, f: VectorField, y: Tensor, start: float, end: float) -> Solution:
        """The states at ``end``, (B, F).

        Raises:
            ValueError: if an example needs more than ``max_steps``, or its state is not finite.
        """
        import torchode  # pyright: ignore[reportMissingImports]

        times = torch.full_like(y[:, 0], start), torch.full_like(y[:, 0], end)
        term = torchode.ODETerm(f)
        method = torchode.Tsit5(term=term)
        solver = torchode.AutoDiffAdjoint(
            method,
            torchode.IntegralController(rtol=self.rtol, atol=self.atol, term=term),
            max_steps=self.max_steps,
            backprop_through_step_size_control=False,
        )
        solution = solver.solve(torchode.InitialValueProblem(y0=y, t_start=times[0], t_end=times[1]))
        failed = int((solution.status != 0).sum())
        if failed:
            raise ValueError(
                f"solver=adaptive: {failed} of {len(y)} examples did not reach the noisy end with rtol="
                f"{self.rtol:g}, atol={self.atol:g} and solver.max_steps={self.max_steps}: use a larger one"
            )
        # f is evaluated for the whole batch until its last example has finished: count an example's own
        # steps; the first stage of a step is the last one of the step before
        own_steps = solution.stats["n_steps"]
        later = (own_steps.max() - own_steps) * (method.TABLEAU.n_stages - 1)
        evaluations = solution.stats["n_f_evals"].to(later.device) - later
        return Solution(solution.ys[:, -1], evaluations)

    def coarser(self) -> "AdaptiveSolver":
        """The same method with ten times the tolerances."""
        return AdaptiveSolver(10.0 * self.rtol, 10.0 * self.atol, self.max_steps)
