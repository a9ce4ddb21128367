"""TRL's own methods, run on a stand-in for the trainer, against the library: losses, gradients, advantages, credit.

Nothing of TRL is typed in again. `_compute_loss` and `_generate_and_score_completions` are called as they are
installed, with log-probs, completions and rewards injected in float64, so a change in TRL shows here.
"""

import ast
import hashlib
import math
import subprocess
import sys
import zipfile
from collections import defaultdict
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlino_lib.methods.advantages import advantages
from rlino_lib.methods.catalogue import DIFFERENCES, OBJECTIVES
from rlino_lib.methods.credit import Graded, credit
from rlino_lib.methods.loss import Batch, micro_share, policy_loss, value_loss
from rlino_lib.methods.objective import Objective
from rlino_lib.methods.token_credit import gae

pytest.importorskip("trl")
from trl.trainer.grpo_trainer import GRPOTrainer  # noqa: E402
from trl.trainer.rloo_trainer import RLOOTrainer  # noqa: E402

F64 = torch.float64
TOLERANCE = dict(rtol=1e-9, atol=1e-9)
ROUNDED = dict(rtol=1e-7, atol=1e-9)
NORMALISERS = {
    "grpo": "per_response",
    "bnpo": "micro_token_mean",
    "dr_grpo": "constant",
    "dapo": "token_mean",
    "luspo": "token_sum",
    "cispo": "token_mean",
    "sapo": "per_response",
}


# --- the stand-in ----------------------------------------------------------------------------------------------------


def trainer(**settings):
    """What TRL's methods read of a trainer, on one process, without a model."""
    accelerator = SimpleNamespace(
        num_processes=1, process_index=0, is_main_process=True, device=torch.device("cpu"), gather=lambda x: x,
        gather_for_metrics=lambda x: x, reduce=lambda x, reduction: x,
    )  # fmt: skip
    args = dict(
        use_bias_correction_kl=False, delta=None, sapo_temperature_pos=1.0, sapo_temperature_neg=1.0625,
        steps_per_generation=1, gradient_accumulation_steps=1, per_device_train_batch_size=1,
        gradient_checkpointing_kwargs=None,
    )  # fmt: skip
    given = dict(
        model=SimpleNamespace(training=True, is_gradient_checkpointing=False), accelerator=accelerator,
        aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None, use_vllm=False,
        _entropy_bonus_enabled=False, importance_sampling_level="token", beta=0.0, epsilon_low=0.2, epsilon_high=0.2,
        current_gradient_accumulation_steps=1, max_completion_length=8, num_iterations=1, ref_model="the reference",
        environment_factories=None, environments=None, tools=[], pad_to_multiple_of=None, log_multimodal=False,
        mask_truncated_completions=False, _tokenizer=SimpleNamespace(pad_token_id=0), reward_clip_range=None,
        multi_objective_aggregation="sum_then_normalize", reward_weights=torch.ones(1, dtype=F64),
        reward_func_names=["reward"], normalize_advantages=False, _pending_extra_logs={}, _pending_metrics={},
        _metrics={"train": defaultdict(list)}, _logs=defaultdict(list) | {"rewards": defaultdict(list)},
    )  # fmt: skip
    args |= {k: settings.pop(k) for k in list(settings) if k in args}
    return SimpleNamespace(args=SimpleNamespace(**args), **(given | settings))


def trl_loss(stub, new, old, ref, adv, mask, total_tokens=None, **more):
    """The loss of GRPOTrainer._compute_loss on log-probs of our own; `more` of its inputs, as `tool_mask`."""
    stub._get_per_token_logps_and_entropies = lambda *args, **kwargs: (new, torch.zeros_like(new), None)
    ids, ones = torch.ones(len(new), 1, dtype=torch.long), torch.ones(new.shape, dtype=torch.long)
    inputs = dict(prompt_ids=ids, prompt_mask=ids, completion_ids=ones, completion_mask=mask.long(), advantages=adv)
    inputs |= dict(old_per_token_logps=old, ref_per_token_logps=ref)
    inputs["num_items_in_batch"] = mask.sum() if total_tokens is None else torch.tensor(total_tokens)
    return GRPOTrainer._compute_loss(stub, None, inputs | more)


def scored(cls, stub, rewards, group_size, lengths=None, old=None, ref=None):
    """The batch that a trainer's _generate_and_score_completions makes of rewards [N] and log-probs of our own."""
    ids = [[1] * n for n in (lengths or [1] * len(rewards))]
    generated = ([[1]] * len(ids), ids, ["text"] * len(ids))
    if cls is GRPOTrainer:
        generated = (generated[0], ids, None, generated[2], None, {}, None, None)
    stub.num_generations = group_size
    stub._generate = lambda prompts: generated
    stub._calculate_rewards = lambda *args: rewards[:, None].clone()
    stub._get_per_token_logps_and_entropies = lambda model, *args, **kwargs: (
        (ref if model == "the reference" else old, None, None)
    )
    return cls._generate_and_score_completions(stub, [{"prompt": "a prompt"} for _ in ids])


# --- losses ----------------------------------------------------------------------------------------------------------


def batch(seed, n, t, spread, holes=False):
    """Random log-probs with ratios up to e^±spread, advantages of which some are 0, and a mask."""
    g = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(n, t, generator=g, dtype=F64)
    new = old + spread * (2 * torch.rand(n, t, generator=g, dtype=F64) - 1)
    ref = old + spread * (2 * torch.rand(n, t, generator=g, dtype=F64) - 1)
    adv = torch.randn(n, generator=g, dtype=F64) * (torch.rand(n, generator=g) < 0.9)
    mask = torch.arange(t) < torch.randint(0, t + 1, (n, 1), generator=g)
    if holes:  # the results of tools stand inside a response and are not learned
        mask &= torch.rand(n, t, generator=g) < 0.7
    return new.requires_grad_(), old, ref, adv, mask


def ours_for(loss_type, level, eps, beta, delta, correction):
    """Our row of TRL's settings, as `DIFFERENCES` says how to write one as the other."""
    low, high = (None, eps[1]) if loss_type == "cispo" else eps
    surrogate = loss_type if loss_type in ("cispo", "sapo") else "clip"
    return Objective(
        "parity", ratio=level, clip_low=low, clip_high=high, surrogate=surrogate, delta=delta, beta=beta,
        kl_correction=correction, normaliser=NORMALISERS[loss_type], tau=(1.0, 1.0625),
    )  # fmt: skip


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("loss_type", sorted(NORMALISERS))
@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 6),
    t=st.integers(1, 7),
    spread=st.sampled_from([0.0, 0.01, 0.3, 3.0]),
    eps=st.tuples(st.floats(1e-4, 0.9), st.floats(1e-4, 5.0)),
    beta=st.sampled_from([0.0, 0.04, 1.0]),
    delta=st.none() | st.floats(1.001, 8.0),
    correction=st.booleans(),
    holes=st.booleans(),
    old_is_new=st.booleans(),
    extra=st.integers(0, 9),
)
def test_loss_and_gradient(
    loss_type, level, seed, n, t, spread, eps, beta, delta, correction, holes, old_is_new, extra
):
    new, old, ref, adv, mask = batch(seed, n, t, spread, holes)
    old = None if old_is_new else old
    stub = trainer(
        loss_type=loss_type, importance_sampling_level=level, epsilon_low=eps[0], beta=beta, delta=delta,
        epsilon_high=eps[1] + (loss_type == "cispo"), use_bias_correction_kl=correction,
        max_completion_length=t + extra,
    )  # fmt: skip
    expected = trl_loss(stub, new, old, ref, adv, mask)
    (gradient,) = torch.autograd.grad(expected, new)
    objective = ours_for(loss_type, level, eps, beta, delta, correction)
    found = policy_loss(objective, Batch(new, adv, mask, old, ref, t + extra))
    torch.testing.assert_close(found.loss, expected, **TOLERANCE)
    torch.testing.assert_close(torch.autograd.grad(found.loss, new)[0], gradient, **TOLERANCE)

    if t == 1:  # TRL's metrics take a single column for the level of sequences, and count masked rows
        return
    logged = {k: v[0] for k, v in stub._metrics["train"].items()}
    if beta and not correction:
        assert found.metrics["kl"] == pytest.approx(logged["kl"], rel=1e-9, abs=1e-9)
    if loss_type in ("grpo", "dapo") and level == "token" and delta is None:  # TRL's mean is float32
        assert found.metrics["clip_ratio"] == pytest.approx(logged["clip_ratio/region_mean"], abs=1e-6)


@pytest.mark.parametrize("per_token", [False, True], ids=["response", "token"])
@pytest.mark.parametrize("loss_type", sorted(NORMALISERS))
def test_tokens_of_an_environment_are_trls_tool_mask(loss_type, per_token):
    """Attended to and not learned; advantages are [N], or [N, T] for credit per token."""
    for seed in range(20):
        new, old, ref, adv, written = batch(seed, 5, 6, 0.3)
        own = written & (torch.rand(5, 6, generator=torch.Generator().manual_seed(seed)) < 0.6)  # [N, T]
        adv = adv[:, None] * torch.linspace(0.5, 1.5, 6, dtype=F64) if per_token else adv
        high = 0.28 + (loss_type == "cispo")
        stub = trainer(loss_type=loss_type, beta=0.04, epsilon_high=high, max_completion_length=7)
        expected = trl_loss(stub, new, old, ref, adv, written, int(own.sum()), tool_mask=own.long())
        objective = ours_for(loss_type, "token", (0.2, 0.28), 0.04, None, False)
        found = policy_loss(objective, Batch(new, adv, own, old, ref, 7)).loss
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
        gradients = [torch.autograd.grad(x, new, retain_graph=True)[0] for x in (found, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)
        assert not gradients[0][~own].any()


ROWS = {
    "grpo": dict(loss_type="grpo", beta=0.04),
    "bnpo": dict(loss_type="bnpo"),
    "dr_grpo": dict(loss_type="dr_grpo"),
    "dapo": dict(loss_type="dapo", epsilon_high=0.28),
    "luspo": dict(loss_type="luspo", importance_sampling_level="sequence", epsilon_low=2e-3, epsilon_high=2.5e-3),
    "gspo": dict(loss_type="grpo", importance_sampling_level="sequence", epsilon_low=3e-4, epsilon_high=4e-4),
    "cispo": dict(loss_type="cispo", epsilon_high=5.0),
}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_named_rows_are_settings_of_trl(name):
    for seed in range(20):
        new, old, ref, adv, mask = batch(seed, 5, 6, 1.5)
        expected = trl_loss(trainer(**ROWS[name]), new, old, ref, adv, mask)
        found = policy_loss(OBJECTIVES[name], Batch(new, adv, mask, old, ref, 8)).loss
        torch.testing.assert_close(found, expected, **TOLERANCE)
        gradients = [torch.autograd.grad(x, new)[0] for x in (found, expected)]
        torch.testing.assert_close(*gradients, **TOLERANCE)


@pytest.mark.parametrize("loss_type", sorted(NORMALISERS))
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), rows=st.integers(1, 3), parts=st.integers(2, 3), t=st.integers(1, 6))
def test_micro_batches_with_accumulation(loss_type, seed, rows, parts, t):
    """Micro-batches of equal size, as TRL has them: its losses of one step add up to ours."""
    new, old, ref, adv, mask = batch(seed, rows * parts, t, 0.5)
    stub = trainer(
        loss_type=loss_type, beta=0.04, max_completion_length=t, steps_per_generation=parts,
        current_gradient_accumulation_steps=parts, epsilon_high=0.28 if loss_type != "cispo" else 1.28,
    )  # fmt: skip
    eps = (0.2, 0.28)
    objective = ours_for(loss_type, "token", eps, 0.04, None, False)
    expected, found, total = 0.0, 0.0, int(mask.sum())
    for k in range(parts):
        cut = slice(k * rows, (k + 1) * rows)
        args = (new[cut], old[cut], ref[cut], adv[cut], mask[cut])
        expected = expected + trl_loss(stub, *args, total_tokens=total)
        part = Batch(new[cut], adv[cut], mask[cut], old[cut], ref[cut], t)
        found = found + policy_loss(objective, part).loss * micro_share(objective, mask[cut], rows * parts, total)
    torch.testing.assert_close(found, expected, **TOLERANCE)
    gradients = [torch.autograd.grad(x, new, retain_graph=True)[0] for x in (found, expected)]
    torch.testing.assert_close(*gradients, **TOLERANCE)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 6),
    t=st.integers(1, 6),
    spread=st.sampled_from([0.0, 0.1, 3.0]),
    eps=st.tuples(st.floats(1e-4, 0.9), st.floats(1e-4, 2.0)),
)
def test_rloo_loss_and_gradient(seed, n, t, spread, eps):
    new, old, _, adv, mask = batch(seed, n, t, spread)
    mask = mask.clone()
    mask[:, 0] = True  # an empty response is one of the differences
    stub = trainer(epsilon_low=eps[0], epsilon_high=eps[1])
    stub._get_per_token_logps_and_entropies = lambda *args, **kwargs: (new, torch.zeros_like(new), None)
    ones = torch.ones(new.shape, dtype=torch.long)
    inputs = dict(prompt_ids=ones, prompt_mask=ones, completion_ids=ones, completion_mask=mask.long(), advantages=adv)
    expected = RLOOTrainer._compute_loss(stub, None, inputs | {"old_logps": (old * mask).sum(1)})
    objective = replace(OBJECTIVES["rloo"], clip_low=eps[0], clip_high=eps[1])
    found = policy_loss(objective, Batch(new, adv, mask, old))
    torch.testing.assert_close(found.loss, expected, **TOLERANCE)
    gradients = [torch.autograd.grad(x, new)[0] for x in (found.loss, expected)]
    torch.testing.assert_close(*gradients, **TOLERANCE)


# --- advantages and credit -------------------------------------------------------------------------------------------

grouped = st.integers(1, 6).flatmap(
    lambda g: st.tuples(
        st.just(g),
        st.integers(1, 5).flatmap(
            lambda p: st.lists(st.sampled_from([0.0, 0.1, 1.0]) | st.floats(-2, 2), min_size=p * g, max_size=p * g)
        ),
    )
)


@pytest.mark.parametrize("scale, rule", [("group", "zscore"), ("batch", "batch"), ("none", "mean")])
@settings(deadline=None, max_examples=40)
@given(drawn=grouped)
def test_advantages(scale, rule, drawn):
    g, values = drawn
    rewards = torch.tensor(values, dtype=F64)
    expected = scored(GRPOTrainer, trainer(scale_rewards=scale), rewards, g)["advantages"]
    # TRL corrects the variance by a float32 n/(n − 1), which is exact where n − 1 is a power of two.
    n = {"group": g, "batch": len(rewards), "none": 2}[scale]
    exact = n == 1 or (n - 1).bit_count() == 1
    torch.testing.assert_close(advantages(rewards, g, rule), expected, **(TOLERANCE if exact else ROUNDED))


@settings(deadline=None, max_examples=40)
@given(drawn=grouped, seed=st.integers(0, 2**31), beta=st.sampled_from([0.0, 0.05, 1.0]))
def test_rloo_credit_with_the_kl_in_the_reward(drawn, seed, beta):
    g, values = drawn
    rewards, t = torch.tensor(values, dtype=F64), 5
    gen = torch.Generator().manual_seed(seed)
    old, ref = -3 * torch.rand(2, len(rewards), t, generator=gen, dtype=F64)
    lengths = torch.randint(1, t + 1, (len(rewards),), generator=gen)
    lengths[0] = t  # TRL pads to the longest
    mask = torch.arange(t) < lengths[:, None]
    expected = scored(RLOOTrainer, trainer(beta=beta), rewards, g, lengths.tolist(), old, ref)
    assert torch.equal(expected["completion_mask"].bool(), mask)
    found, keep = credit(replace(OBJECTIVES["rloo"], kl_in_reward=beta), Graded(rewards, g, mask, old, ref))
    torch.testing.assert_close(found, expected["advantages"], **TOLERANCE)
    assert keep.all()


# --- PPO: generalised advantages and the loss of values --------------------------------------------------------------

# The last release of TRL with a PPO trainer: no newer one has its loop, and no method of it can be called alone. So the
# file is read out of that release's wheel, which is not installed, and statements of it are run as they stand there.
PPO_RELEASE = "trl-1.12.0-py3-none-any.whl", "9c8f117b21a941edbc85744f5a341c9453d38e81f24ae81d3c6e9b9ca3b96409"
PPO_FILE = "trl/experimental/ppo/ppo_trainer.py"


@cache
def ppo_source():
    """The syntax tree of TRL's PPO trainer, from the package index or kept from before; None without either."""
    name, digest = PPO_RELEASE
    folder = Path(__file__).parents[2] / ".pytest_cache" / "trl"
    if not (folder / name).exists():
        how = ["--no-deps", "--only-binary", ":all:", "--retries", "0", "--timeout", "10", "-d", str(folder)]
        pip = [sys.executable, "-m", "pip", "download", "-q", *how, f"trl=={name.split('-')[1]}"]
        subprocess.run(pip, capture_output=True, timeout=120)
    if not (folder / name).exists():
        return None
    assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    with zipfile.ZipFile(folder / name) as wheel:
        return ast.parse(wheel.read(PPO_FILE))


def run_ppo(first, last, **names):
    """What the statements of PPOTrainer from the assignment of `first` to that of `last`, in one block, make of names.

    Functions of the file, as `masked_mean`, are there too. Skips the test where there is no such release to be had.
    """
    tree = ppo_source() or pytest.skip(f"{PPO_RELEASE[0]} is not here, and cannot be downloaded")

    def place(block, name):
        targets = [[ast.unparse(t) for t in s.targets] if isinstance(s, ast.Assign) else [] for s in block]
        return next((k for k, names in enumerate(targets) if name in names), None)

    blocks = [block for node in ast.walk(tree) if isinstance(block := getattr(node, "body", None), list)]
    (block,) = (b for b in blocks if None not in (place(b, first), place(b, last)))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("masked_")]
    body = [*functions, *block[place(block, first) : place(block, last) + 1]]
    known = {"torch": torch} | names
    exec(compile(ast.Module(body, []), PPO_FILE, "exec"), known)
    return known


def trl_gae(rewards, values, gamma, lam, mask):
    """TRL's generalised advantages and returns, both [B, T], of rewards and values [B, T]; 0 outside mask [B, T].

    TRL has no tokens of an environment: its mask is one of padding. Before the loop it fills values and rewards beyond
    a response with 0, after it the advantages; that is done here. It also whitens them, which is left out. (In TRL the
    reward stands, and the value counts, one place after the last token; whoever calls this says where.)
    """
    given = {k: v.masked_fill(~mask, 0) for k, v in {"rewards": rewards, "values": values}.items()}
    args = SimpleNamespace(gamma=gamma, lam=lam)
    made = run_ppo("lastgaelam", "returns", args=args, responses=rewards, **given)
    return made["advantages"].masked_fill(~mask, 0), made["returns"].masked_fill(~mask, 0)


def trl_value_loss(vpred, values, returns, cliprange_value, mask):
    """TRL's clipped loss of values, a scalar, of predictions, values before the update and returns [B, T]: ½ the mean
    over mask [B, T] of the larger of two squared errors; of these, the prediction is within the clip range of values
    in one."""
    names = dict(vpred=vpred, mb_values=values, mb_return=returns, padding_mask_p1=~mask, micro_batch_inds=slice(None))
    return run_ppo("vpredclipped", "vf_loss", args=SimpleNamespace(cliprange_value=cliprange_value), **names)["vf_loss"]


def test_trls_gae_of_three_tokens_by_hand():
    """γ = 1/2, λ = 1/4, so that a token's advantage is δ_t + 1/8 of the next one's."""
    rewards = torch.tensor([[0.0, 0.0, 1.0, 9.0], [2.0, 9.0, 9.0, 9.0]], dtype=F64)
    values = torch.tensor([[0.5, 0.25, 0.75, 9.0], [1.0, 9.0, 9.0, 9.0]], dtype=F64)
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    adv, returns = trl_gae(rewards, values, 0.5, 0.25, mask)
    third = 1 - 0.75
    second = 0.5 * 0.75 - 0.25 + third / 8
    first = 0.5 * 0.25 - 0.5 + second / 8
    expected = torch.tensor([[first, second, third, 0], [1, 0, 0, 0]], dtype=F64)
    torch.testing.assert_close(adv, expected, rtol=0, atol=0)
    torch.testing.assert_close(returns, expected + values.masked_fill(~mask, 0), rtol=0, atol=0)


def test_trls_loss_of_values_by_hand():
    """Of three tokens one is within the clip range, one beyond it and worse clipped, one beyond it and better."""
    vpred = torch.tensor([[0.1, 1.0, -1.0, 9.0]], dtype=F64, requires_grad=True)
    values = torch.zeros(1, 4, dtype=F64)
    returns = torch.tensor([[1.0, 1.0, 1.0, 9.0]], dtype=F64)
    mask = torch.tensor([[True, True, True, False]])
    loss = trl_value_loss(vpred, values, returns, 0.25, mask)
    torch.testing.assert_close(loss.item(), 0.5 * (0.9**2 + 0.75**2 + 2.0**2) / 3, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(loss, vpred)
    torch.testing.assert_close(gradient, torch.tensor([[-0.9 / 3, 0, -2.0 / 3, 0]], dtype=F64), rtol=1e-12, atol=0)


# --- the differences are differences ---------------------------------------------------------------------------------


def test_the_table_of_differences_is_a_table():
    assert all(len(row) == 4 and all(row) for row in DIFFERENCES)
    assert len({row[0] for row in DIFFERENCES}) == len(DIFFERENCES)


def test_far_ratios_differ():
    old, mask, adv = torch.full((1, 1), -800.0, dtype=F64), torch.ones(1, 1).bool(), torch.tensor([-1.0], dtype=F64)
    new = torch.zeros(1, 1, dtype=F64)
    stub = trainer(loss_type="grpo")
    assert trl_loss(stub, new, old, None, adv, mask).isinf()
    assert policy_loss(OBJECTIVES["grpo_no_kl"], Batch(new, adv, mask, old)).loss.item() == pytest.approx(math.exp(20))


def test_the_temperatures_of_sapo_are_rounded_by_trl():
    new, old, ref, _, mask = batch(3, 4, 5, 0.5)
    adv = torch.tensor([1.0, -1.0, -0.5, -2.0], dtype=F64)
    expected = trl_loss(trainer(loss_type="sapo", sapo_temperature_neg=1.05), new, old, ref, adv, mask)
    exact = policy_loss(OBJECTIVES["sapo"], Batch(new, adv, mask, old)).loss
    rounded = replace(OBJECTIVES["sapo"], tau=(1.0, torch.tensor(1.05).double().item()))
    torch.testing.assert_close(policy_loss(rounded, Batch(new, adv, mask, old)).loss, expected, **TOLERANCE)
    assert 1e-9 < (exact - expected).abs().item() < 1e-6


def test_the_spread_of_a_group_is_rounded_by_trl():
    rewards = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=F64)
    expected = scored(GRPOTrainer, trainer(scale_rewards="group"), rewards, 4)["advantages"]
    assert 1e-9 < (advantages(rewards, 4) - expected).abs().max().item() < 1e-7


def test_equal_rewards_have_a_rounded_advantage_in_trl_and_none_here():
    rewards = torch.full((8,), 0.1)
    expected = scored(GRPOTrainer, trainer(scale_rewards="group", reward_weights=torch.ones(1)), rewards, 8)
    assert 1e-5 < expected["advantages"].abs().max().item() < 1e-4
    assert (advantages(rewards, 8) == 0).all()


def test_token_mean_of_several_updates_a_batch_differs():
    new, old, ref, adv, mask = batch(5, 4, 6, 0.5)
    stub = trainer(loss_type="dapo", steps_per_generation=2)  # two updates of two rows each
    objective, total = ours_for("dapo", "token", (0.2, 0.2), 0.0, None, False), int(mask.sum())
    for cut in (slice(0, 2), slice(2, 4)):
        args = (new[cut], old[cut], ref[cut], adv[cut], mask[cut])
        expected = trl_loss(stub, *args, total_tokens=total)
        found, tokens = policy_loss(objective, Batch(*args[:1], *args[3:], *args[1:3])).loss, int(mask[cut].sum())
        assert tokens != total / 2
        torch.testing.assert_close(found * tokens, expected * total / 2, **TOLERANCE)


def test_an_empty_response_counts_in_trls_rloo_loss_and_has_no_gradient():
    new, old = torch.zeros(2, 1, dtype=F64, requires_grad=True), torch.zeros(2, 1, dtype=F64)
    mask, adv = torch.tensor([[True], [False]]), torch.tensor([1.0, -0.5], dtype=F64)
    stub, ones = trainer(), torch.ones(2, 1, dtype=torch.long)
    stub._get_per_token_logps_and_entropies = lambda *args, **kwargs: (new, torch.zeros_like(new), None)
    inputs = dict(prompt_ids=ones, prompt_mask=ones, completion_ids=ones, completion_mask=mask.long(), advantages=adv)
    theirs = RLOOTrainer._compute_loss(stub, None, inputs | {"old_logps": (old * mask).sum(1)})
    ours = policy_loss(OBJECTIVES["rloo"], Batch(new, adv, mask, old)).loss
    assert (ours - theirs).item() == pytest.approx(-0.25)
    torch.testing.assert_close(*(torch.autograd.grad(x, new)[0] for x in (ours, theirs)), **TOLERANCE)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.floats(0.5, 1), st.floats(0, 1))
def test_advantages_and_returns_are_those_of_trls_ppo(seed, gamma, lam):
    """Of responses whose reward comes with their last token; TRL's mask is of padding alone."""
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 7, (4,), generator=rng)
    mask = torch.arange(6) < lengths[:, None]  # [4, 6]
    values = torch.randn(4, 6, dtype=F64, generator=rng) * mask
    rewards = torch.randn(4, dtype=F64, generator=rng)
    terminal = torch.zeros_like(values).scatter_(1, lengths[:, None] - 1, rewards[:, None])
    theirs, returns = trl_gae(terminal, values, gamma, lam, mask)
    ours = gae(rewards, values, mask, gamma=gamma, lam=lam)
    torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)
    torch.testing.assert_close((ours + values) * mask, returns * mask, atol=1e-9, rtol=0)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.floats(0.01, 1))
def test_the_value_loss_and_its_gradient_are_those_of_trls_ppo(seed, clip):
    rng = torch.Generator().manual_seed(seed)
    new, old, returns = (torch.randn(4, 6, dtype=F64, generator=rng) for _ in range(3))
    mask = torch.arange(6) < torch.randint(1, 7, (4, 1), generator=rng)  # [4, 6]
    results = []
    for loss in (
        lambda v: trl_value_loss(v, old, returns, clip, mask),
        lambda v: value_loss(v, old, returns, mask, clip),
    ):
        leaf = new.clone().requires_grad_()
        value = loss(leaf)
        results.append((value.detach(), torch.autograd.grad(value, leaf)[0]))
    torch.testing.assert_close(results[1], results[0], atol=1e-9, rtol=0)
