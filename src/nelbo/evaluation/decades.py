"""Where on the chain the bound lies: shares by decade of t."""

from torch import Tensor

from nelbo.evaluation.tally import BoundEstimate, StepTable


def shares_by_decade(timesteps: Tensor, table: StepTable, estimate: BoundEstimate) -> dict[str, float]:
    """Share of the total in L_0 (t = 1), in each decade of t, and in L_T; they add up to 1.

    Args:
        timesteps: (K,) t of each step of the chain.
        table: draws of each step; steps 2..K may have been drawn unevenly, or not at all.
        estimate: the bound that is shared out.

    Returns:
        ``L_0``, ``t_2_10``, ``t_11_100``, ..., ``L_T``; a decade takes its part of the denoising sum in
        proportion to what was drawn there.
    """
    total = estimate.total.mean
    shares = {"L_0": estimate.reconstruction.mean / total}
    drawn_nats = float(table.sum[1:].sum())
    low, last = 2, int(timesteps[-1])
    while low <= last:
        high = 10 ** len(str(low - 1)) if low > 2 else 10
        inside = (timesteps >= low) & (timesteps <= high)
        inside[0] = False  # the chain's first step is L_0, whatever its t
        part = float(table.sum[inside].sum()) / drawn_nats if drawn_nats else 0.0
        shares[f"t_{low}_{high}"] = part * estimate.denoising.mean / total
        low = high + 1
    shares["L_T"] = estimate.prior.mean / total
    return shares
