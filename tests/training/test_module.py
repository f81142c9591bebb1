"""The LightningModule: terms of a training step, logged metrics, optimizer, evaluation and checkpoint."""

import pytest
import torch
from scipy.stats import norm
from torch.distributions import Normal, kl_divergence

from nelbo.data import Batch
from nelbo.diffusion.timesteps import TimestepSample
from nelbo.evaluation.accumulator import BoundAccumulator
from nelbo.evaluation.bound_variant import BoundVariant
from nelbo.evaluation.control_variate import control_of
from nelbo.evaluation.t_bins import t_bins

STEPS = torch.tensor([1, 1, 2, 3, 40, 500, 900, 1000])
FIXED = ("loss=simple", "parameterization=eps", "variance=fixed_large", "timesteps=uniform")
PARTS = {"bpd", "L_0", "L_t", "L_T"}
ERRORS = {f"{name}_stderr" for name in PARTS}


def trained_step(tiny_run, stub_trainer, monkeypatch, *overrides):
    """A module with random weights, a batch at STEPS, and the output of its training step."""
    run = tiny_run(*overrides)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in run.module.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=g))
    batch = run.data.take("train", len(STEPS))
    eps = torch.randn(batch.x0.shape, generator=g)
    weight = torch.rand(len(STEPS), generator=g, dtype=torch.float64) + 0.5
    monkeypatch.setattr(
        run.module, "draw", lambda x0: (TimestepSample(STEPS, weight, torch.zeros(len(STEPS))), eps)
    )
    stub_trainer(run.module)
    return run.module, batch, eps, weight, run.module.training_step(batch, 0)


def ddpm_terms(module, batch, eps):
    """Network output, and the bound's terms in nats by the equations of DDPM, in float64."""
    alpha_bar = torch.sigmoid(module.bound.chain.schedule.table()).reshape(-1, 1, 1, 1)
    before = torch.cat([torch.ones(1, 1, 1, 1), alpha_bar[:-1]])
    beta = 1 - alpha_bar / before
    beta_tilde = (1 - before) / (1 - alpha_bar) * beta
    beta_tilde[0] = beta_tilde[1]  # first_step=beta_tilde, the default of learned_range
    alpha_bar, before, beta, beta_tilde = (x[STEPS - 1] for x in (alpha_bar, before, beta, beta_tilde))
    x0, noise = batch.x0.double(), eps.double()
    xt = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise
    with torch.no_grad():
        out = module.denoiser.network(xt.float(), STEPS.float(), None).double()
    mean_output, *var_output = out.split(1, dim=1)
    if var_output:  # parameterization=v, variance=learned_range
        x0_hat = alpha_bar.sqrt() * xt - (1 - alpha_bar).sqrt() * mean_output
        v = (var_output[0] + 1) / 2
        variance = beta**v * beta_tilde ** (1 - v)
    else:  # parameterization=eps, variance=fixed_large
        x0_hat = (xt - (1 - alpha_bar).sqrt() * mean_output) / alpha_bar.sqrt()
        variance = beta.expand_as(x0)
    terms = torch.empty(len(STEPS), dtype=torch.float64)
    for i, t in enumerate(STEPS):
        std = variance[i].sqrt()
        if t == 1:  # the probability of the bin of x_0, 17 levels in [-1, 1]
            upper = norm.cdf((x0[i] + 1 / 16 - x0_hat[i]) / std)
            lower = norm.cdf((x0[i] - 1 / 16 - x0_hat[i]) / std)
            upper[x0[i] == 1], lower[x0[i] == -1] = 1, 0
            terms[i] = -torch.from_numpy(upper - lower).log().sum()
        else:
            a, b, before_i = alpha_bar[i], beta[i], before[i]
            mean = [
                (before_i.sqrt() * b * x + (1 - b).sqrt() * (1 - before_i) * xt[i]) / (1 - a)
                for x in (x0[i], x0_hat[i])
            ]
            posterior = Normal(mean[0], ((1 - before_i) / (1 - a) * b).sqrt().expand_as(mean[0]))
            terms[i] = kl_divergence(posterior, Normal(mean[1], std)).sum()
    return mean_output, terms


@pytest.mark.parametrize("overrides", [FIXED, ()], ids=["simple", "vlb"])
def test_bound_of_a_training_step_equals_the_terms_of_ddpm(overrides, tiny_run, stub_trainer, monkeypatch):
    module, batch, eps, weight, output = trained_step(tiny_run, stub_trainer, monkeypatch, *overrides)
    mean_output, terms = ddpm_terms(module, batch, eps)
    torch.testing.assert_close(output["bound"].double(), terms, rtol=2e-4, atol=1e-4)
    last = torch.sigmoid(module.bound.chain.schedule.table())[-1]
    prior = 0.5 * (last * batch.x0.double().square() - last - torch.log1p(-last))  # KL to N(0, 1)
    torch.testing.assert_close(output["prior"].double(), prior.flatten(1).sum(1), rtol=1e-3, atol=0.0)
    assert torch.equal(output["index"], STEPS)
    assert torch.equal(output["weight"], weight)
    # L_simple is the mean squared error of eps; L_vlb is T times the term, per dimension
    losses = (mean_output - eps).square().mean((1, 2, 3)) if overrides else 1000 / 64 * terms
    assert output["loss"].item() == pytest.approx(float((weight * losses).mean()), rel=2e-4)
    assert output["loss"].requires_grad
    assert not output["bound"].requires_grad


def test_an_adaptive_sampler_receives_steps_and_losses_of_the_batch(tiny_run, stub_trainer, monkeypatch):
    module, _, _, _, output = trained_step(tiny_run, stub_trainer, monkeypatch)
    received = []
    monkeypatch.setattr(module.timesteps, "update", lambda *args: received.append(args))
    module.on_after_backward()
    ((index, loss, bound),) = received
    assert torch.equal(bound, output["bound"].double())
    assert torch.equal(index, STEPS)
    torch.testing.assert_close(loss.float(), 1000 / 64 * output["bound"], rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("world_size", [1, 2])
def test_labels_are_dropped_with_the_given_probability(world_size, tiny_run, stub_trainer):
    module = tiny_run("conditional=true", "cond_dropout=0.25").module
    label = torch.arange(4000) % 10
    batch = Batch(torch.zeros(4000, 1, 8, 8), label, torch.arange(4000))
    stub_trainer(module)
    whole = module.training_cond(batch)
    assert torch.equal(whole[whole != 10], label[whole != 10])
    assert float((whole == 10).float().mean()) == pytest.approx(0.25, abs=0.03)  # 4 standard deviations
    parts = []
    for rank in range(world_size):
        stub_trainer(module, world_size=world_size, rank=rank)
        rows = slice(rank * 4000 // world_size, (rank + 1) * 4000 // world_size)
        parts.append(module.training_cond(Batch(*(field[rows] for field in batch))))
    assert torch.equal(torch.cat(parts), whole)
    assert module.cond(batch) is label


def test_an_unconditional_model_receives_no_condition(tiny_run, stub_trainer):
    run = tiny_run()
    stub_trainer(run.module)
    batch = run.data.take("train", 4)
    assert batch.cond is not None
    assert run.module.cond(batch) is None
    assert run.module.training_cond(batch) is None


def test_the_optimizer_has_all_weights_and_its_schedule_is_stepped_per_step(tiny_run):
    module = tiny_run("optimizer.lr=0.5", "lr_schedule=constant", "lr_schedule.warmup_steps=4").module
    configured = module.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]
    assert schedule["interval"] == "step"
    weights = {id(parameter) for parameter in module.denoiser.network.parameters()}
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == weights
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule["scheduler"].step()
    assert rates == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5, 0.5])


def test_logged_metrics_have_the_documented_names_and_the_completed_steps(tiny_run):
    run = tiny_run(*FIXED)
    run.fit()
    logged = {name: float(value) for name, value in run.trainer.logged_metrics.items()}
    for split in ("train", "val"):
        own = {name.partition("/")[2] for name in logged if name.startswith(f"{split}/")}
        extra = {"loss", "lr"} if split == "train" else {"share_below_half_bin"}
        found = {name for name in own if not name.startswith("share/") and "_stderr_" not in name}
        assert found == PARTS | ERRORS | extra
        assert sum(logged[f"{split}/{name}"] for name in ("L_0", "L_t", "L_T")) == pytest.approx(
            logged[f"{split}/bpd"], rel=1e-5
        )
    assert logged["step"] == 6
    assert logged["epoch"] == 0


def test_validation_adds_up_what_the_estimator_measures_on_the_whole_split(tiny_run):
    run = tiny_run("data.eval_batch_size=50")
    run.trainer.validate(run.module, datamodule=run.data, verbose=False)
    module, chain = run.module, run.module.bound.chain
    whole = run.data.take("val", 180)
    stored = module.val_estimator.stored_draws(chain)
    expected = BoundAccumulator(chain.num_steps, "cpu", 180, t_bins(chain.t()), stored, control=True)
    with torch.no_grad():
        module.val_estimator.measure(
            [expected],
            [BoundVariant(module.bound)],
            module.denoiser,
            whole.x0,
            whole.index,
            None,
            180,
            control_of(run.data, "val", "cpu"),
        )
    for name, value in expected.sums.items():
        torch.testing.assert_close(module.accumulator.sums[name], value, rtol=1e-5, atol=1e-6)
    assert module.accumulator.sums["examples"] == 180
    logged, total = run.trainer.callback_metrics, expected.estimate().total
    nats = 64 * torch.log(torch.tensor(2.0)).item()
    assert float(logged["val/bpd"]) == pytest.approx(total.mean / nats, rel=1e-5)
    assert float(logged["val/bpd_stderr"]) == pytest.approx(total.stderr / nats, rel=1e-4)


def test_a_checkpoint_restores_the_timestep_sampler_and_the_metrics(tiny_run, tmp_path):
    run = tiny_run()
    run.fit()
    checkpoint = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    restored = tiny_run().module
    restored.on_load_checkpoint(checkpoint)
    before, after = run.module.timesteps.state_dict(), restored.timesteps.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(torch.as_tensor(before[name]), torch.as_tensor(after[name])) for name in before)
    fresh = tiny_run().module.timesteps.state_dict()
    assert any(
        not torch.equal(torch.as_tensor(before[name]), torch.as_tensor(fresh[name])) for name in before
    )
    assert restored.validated_at == 6
    metrics = {name: float(x) for name, x in run.trainer.callback_metrics.items() if "/" in name}
    assert restored.reported == metrics
    assert checkpoint["nelbo"]["config"]["schedule"]["num_steps"] == 1000


@pytest.mark.parametrize(("name", "value"), [("exp_avg", torch.zeros(1)), ("step", torch.zeros(0))])
def test_a_checkpoint_cannot_shrink_the_state_of_a_fused_optimizer(tiny_run, name, value):
    optimizer = tiny_run().module.configure_optimizers()["optimizer"]
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = optimizer.state_dict()
    optimizer.load_state_dict(state)  # its own is accepted
    state["state"][0][name] = value
    with pytest.raises(ValueError, match=f"optimizer state {name} has shape"):
        optimizer.load_state_dict(state)


def test_the_loss_receives_the_importance_weights_of_its_steps(tiny_run, stub_trainer, monkeypatch):
    module, batch, _, weight, _ = trained_step(tiny_run, stub_trainer, monkeypatch, *FIXED)
    seen, loss = [], module.loss
    module.loss = lambda noisy, *others: seen.append(noisy.weight) or loss(noisy, *others)
    module.training_step(batch, 0)
    assert torch.equal(seen[0], weight)
