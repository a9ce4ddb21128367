"""Micro-batches by tokens: every row once, none too large, and the gradients of any other cut."""

import sys
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlino_lib.errors import RlinoError, RlinoWarning
from rlino_lib.policy import logprobs
from rlino_lib.policy.models import load_policy
from rlino_lib.policy.sampling import sample
from rlino_lib.tasks import Grade
from rlino_lib.training import memory, sft
from rlino_lib.training import trainer as trainer_module
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.micro_batches import Limit, by_tokens, micro_batches, most_rows, pass_lengths
from rlino_lib.training.run import train
from rlino_lib.training.trainer import Trainer
from rlino_lib.training.updates import UPDATES
from tests.policy.test_rollout import UNEVEN, random_model

SMALL = TrainConfig(
    method="grpo", steps=2, prompts=6, group_size=4, eval_every=0, max_new_tokens=50, guard="warn", device="cpu"
)


@given(st.lists(st.integers(1, 300)), st.integers(0, 5), st.integers(0, 900))
def test_every_row_is_in_one_micro_batch_and_none_of_several_rows_is_too_large(lengths, rows, tokens):
    parts = [list(range(len(lengths)))[part] for part in Limit(rows, tokens).cut(lengths)]
    assert [i for part in parts for i in part] == list(range(len(lengths)))
    assert all(parts)
    for part, following in zip(parts, [*parts[1:], []], strict=False):
        held = len(part) * max(lengths[i] for i in part)
        assert len(part) == 1 or (len(part) <= (rows or len(part)) and held <= (tokens or held))
        if following:  # it was full: with the next row it would be too large
            more = [*part, following[0]]
            most = len(more) * max(lengths[i] for i in more)
            assert (rows and len(more) > rows) or (tokens and most > tokens)


def test_rows_are_cut_as_they_were_where_tokens_do_not_count():
    rollouts = sample(load_policy(), UNEVEN, 8, max_new_tokens=40, seed=1)
    rows = torch.randperm(len(rollouts.ids))[:20]
    before = rows[rollouts.lengths[rows].argsort(stable=True)].split(3)
    found = micro_batches(rollouts, rows, Limit(3))
    assert len(found) == len(before) and all(torch.equal(a, b) for a, b in zip(found, before, strict=True))
    assert micro_batches(rollouts, rows[:0], Limit(3)) == []
    _, mask = rollouts.sequences()
    assert torch.equal(pass_lengths(rollouts), mask.sum(1))


@pytest.fixture(scope="module")
def batch():
    """The responses of a step, every third called right, and none of the third group."""
    return graded(Trainer(SMALL).sample(1))


def graded(rollouts):
    right = [i % 3 == 0 and i // 4 != 2 for i in range(len(rollouts.ids))]
    rollouts.grades = [replace(g, reward=float(r), correct=r) for g, r in zip(rollouts.grades, right, strict=True)]
    return rollouts


def gradients(config: TrainConfig, rollouts, double: bool = True) -> tuple[Trainer, torch.Tensor]:
    """The gradient of a batch's one update, in float64, and the trainer, which has not moved."""
    trainer = Trainer(config, load_policy())
    trainer.model.double() if double else None
    trainer.reference.double() if double and trainer.reference else None
    trainer._descend = lambda *_: 0.0
    if config.gradient_checkpointing:
        trainer_module.recompute_layers(trainer.model)
    UPDATES[trainer.objective.kind](trainer, rollouts, None)
    return trainer, torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.requires_grad])


@pytest.mark.parametrize(
    "method",
    ["grpo", "dr_grpo", "dapo", "luspo", "reinforce_pp", "grpo_entropy", "f_isft_posneg"],
)
def test_gradients_are_those_of_any_other_cut(method, batch):
    rows, expected = gradients(replace(SMALL, method=method), batch)
    assert rows.micro_tokens == 0 and expected.norm() > 0
    for tokens in (1, 700, 10**6):
        trainer, found = gradients(replace(SMALL, method=method, micro_tokens=tokens), batch)
        for name, value in rows.sums.means().items():
            assert trainer.sums.means()[name] == (value if value is None else pytest.approx(value, rel=1e-5, abs=1e-7))
        # Log-probs of the old policy and the reference are kept in float32, and are rounded once.
        exact = 1e-6 if trainer.objective.needs_reference else 1e-10
        assert (found - expected).norm() <= exact * expected.norm()


@pytest.mark.parametrize("method", ["grpo_no_kl", "f_isft_posneg"])
@pytest.mark.parametrize("large", [False, True], ids=["small", "large vocabulary"])
def test_adapters_and_large_vocabularies_have_the_same_gradients_too(method, large, batch, monkeypatch):
    monkeypatch.setattr(logprobs, "LARGE", 1 if large else logprobs.LARGE)
    config = replace(SMALL, method=method, lora_rank=4, gradient_checkpointing=1)
    torch.manual_seed(0)
    _, expected = gradients(config, batch)
    _, found = gradients(replace(config, micro_tokens=900), batch)
    assert expected.norm() > 0 and (found - expected).norm() <= 1e-10 * expected.norm()


def test_a_method_that_divides_by_the_micro_batch_keeps_its_rows():
    config = replace(SMALL, method="bnpo", micro_batch=5)
    with pytest.raises(RlinoError, match="divides by a micro-batch of rows: --micro-batch, not --micro-tokens"):
        Trainer(replace(config, micro_tokens=300))


def short_of_memory(model, tokens, monkeypatch):
    forward = model.forward

    def limited(*args, input_ids=None, **kwargs):
        if input_ids.numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(*args, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(model, "forward", limited)


@pytest.mark.parametrize("method", ["grpo", "f_isft_posneg"])
def test_the_tokens_are_halved_where_memory_runs_out(method, monkeypatch):
    config = replace(SMALL, method=method, micro_tokens=10**6)
    policy = load_policy()
    trainer = Trainer(config, policy)
    rollouts = graded(trainer.sample(1))
    short_of_memory(policy.model, 500, monkeypatch)
    trainer.sample = lambda step: rollouts
    with pytest.warns(RlinoWarning, match="from here on a micro-batch has .* tokens") as said:
        trainer.step()
    longest = int(pass_lengths(rollouts).max())
    assert longest <= trainer.micro_tokens <= 500 < 2 * trainer.micro_tokens + 1 and len(said) > 1
    before = trainer.micro_tokens
    trainer.step()  # it is remembered
    assert trainer.micro_tokens == before
    _, expected = gradients(replace(config, micro_tokens=0), rollouts, double=False)
    _, found = gradients(replace(config, micro_tokens=before), rollouts, double=False)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_no_memory_for_the_longest_row_is_an_error(monkeypatch, batch):
    policy = load_policy()
    trainer = Trainer(replace(SMALL, method="grpo_no_kl", micro_tokens=10**6), policy)
    longest = int(pass_lengths(batch).max())
    short_of_memory(policy.model, longest - 1, monkeypatch)
    with pytest.raises(torch.OutOfMemoryError), pytest.warns(RlinoWarning):
        trainer.all_logprobs(batch)
    with pytest.raises(torch.OutOfMemoryError):  # fewer tokens than the longest row are not tried again
        Trainer(replace(SMALL, micro_tokens=1), policy).all_logprobs(batch)


# --- log-probs of the old policy -------------------------------------------------------------------------------------


def passes(trainer: Trainer, rollouts) -> int:
    """Forward passes of a batch's updates; the trainer does not move."""
    count, forward = [], trainer.model.forward
    trainer.model.forward = lambda *args, **kwargs: count.append(1) or forward(*args, **kwargs)
    trainer._descend = lambda *_: 0.0
    trainer.sums.norms.clear()
    UPDATES["policy_gradient"](trainer, rollouts, torch.Generator())
    del trainer.model.forward
    return len(count)


@pytest.mark.parametrize(
    "method, epochs, scored",
    [("grpo_no_kl", 1, 0), ("gspo", 1, 0), ("grpo_no_kl", 2, 1), ("raft", 2, 0), ("rloo", 1, 2), ("grpo", 1, 1)],
)
def test_old_log_probs_are_computed_only_where_something_reads_them(method, epochs, scored, batch):
    """Of rloo and grpo one pass is the reference's, which has adapters off."""
    config = replace(SMALL, method=method, epochs=epochs, micro_batch=10**6, lora_rank=2)
    reference = method in ("rloo", "grpo")
    for precision, more in (("bf16", scored), ("fp32", int(reference))):  # in float32 the sampler's are the policy's
        assert passes(Trainer(replace(config, precision=precision), load_policy()), batch) == epochs + more


@pytest.mark.parametrize("method", ["grpo_no_kl", "gspo", "cispo", "sapo"])
def test_one_update_starts_from_the_ratio_that_another_pass_would_find(method, batch, monkeypatch):
    monkeypatch.setattr(trainer_module, "autocast", lambda *args: nullcontext())  # what is rounded would differ
    config = replace(SMALL, method=method, precision="bf16")
    trainer, found = gradients(config, batch)
    module = sys.modules["rlino_lib.training.updates.policy_gradient"]  # the package has a function of that name
    monkeypatch.setattr(module, "_old_logprobs", lambda trainer, rollouts: trainer.all_logprobs(rollouts))
    again, expected = gradients(config, batch)
    assert (found - expected).norm() <= 1e-6 * expected.norm() > 0  # kept in float32
    assert trainer.sums.means()["loss"] == pytest.approx(again.sums.means()["loss"], abs=1e-6)


# --- nothing is read between the passes ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["grpo", "dapo", "f_isft_posneg"])
def test_numbers_are_read_after_the_last_pass(method, batch, monkeypatch):
    """Reading one waits for a GPU, which should have its next pass by then."""
    events, item, backward = [], torch.Tensor.item, torch.Tensor.backward
    monkeypatch.setattr(torch.Tensor, "item", lambda self: events.append("read") or item(self))
    monkeypatch.setattr(torch.Tensor, "backward", lambda self: events.append("pass") or backward(self))
    gradients(replace(SMALL, method=method, micro_tokens=400), batch, double=False)
    last = len(events) - events[::-1].index("pass")
    assert events.count("pass") > 2 and "read" in events[last:]
    assert "read" not in events[events.index("pass") : last]


def test_a_run_by_tokens_resumes_with_its_optimizer_and_its_tokens(tmp_path, monkeypatch):
    """Fused Adam is what a GPU has; the tokens of a micro-batch are those that the run began with."""
    adam, free = torch.optim.AdamW, [2**30]
    monkeypatch.setattr(torch.optim, "AdamW", lambda *a, **k: adam(*a, **(k | {"fused": True})))
    monkeypatch.setattr(memory, "by_tokens", lambda config, device: True)
    monkeypatch.setattr(memory, "free_bytes", lambda device: free[0])
    config = replace(SMALL, steps=3, prompts=4, checkpoint_every=1, lr=1e-3)
    policies = [load_policy() for _ in range(3)]
    whole = train(config, tmp_path / "whole", policy=policies[0])
    assert "micro_tokens" not in whole.config

    def stop(step, metrics):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "stopped", on_step=stop, policy=policies[1])
    state = torch.load(tmp_path / "stopped" / "checkpoint.pt", weights_only=True)["trainer"]
    free[0] = 2**26
    fresh = Trainer(config, load_policy())
    assert 0 < fresh.micro_tokens < state["micro_tokens"]
    fresh.load_state(state)
    assert fresh.micro_tokens == state["micro_tokens"]
    train(config, tmp_path / "stopped", policy=policies[2])
    assert (tmp_path / "stopped" / "metrics.csv").read_bytes() == (whole.path / "metrics.csv").read_bytes()


# --- which rule holds ------------------------------------------------------------------------------------------------


def test_tokens_come_before_rows_and_rows_that_are_set_bound_the_automatic_choice():
    assert not by_tokens(SMALL, "cpu") and not by_tokens(SMALL, "mps") and by_tokens(SMALL, "cuda:1")
    assert by_tokens(replace(SMALL, micro_tokens=1), "cpu")
    assert not by_tokens(replace(SMALL, method="bnpo"), "cuda")
    assert most_rows(SMALL) == 0 and most_rows(replace(SMALL, micro_batch=4)) == 4
    assert most_rows(replace(SMALL, micro_batch=4, micro_tokens=100)) == 0


def test_a_limit_of_tokens_and_rows_holds_both():
    assert [s.stop - s.start for s in Limit(2, 30).cut([4, 5, 9, 10, 16, 40])] == [2, 2, 1, 1]
    assert Limit(2, 100).most_tokens([10, 20, 30]) == 60 and Limit(0, 50).most_tokens([10, 20, 30]) == 50
    assert Limit(0, 10**6).most_tokens([10, 20, 30]) == 90


def test_cross_entropy_takes_a_limit_of_rows_or_of_tokens():
    policy = random_model(seed=5)
    policy.model.double()
    rollouts = sample(policy, UNEVEN, 4, max_new_tokens=30, seed=2)
    rollouts.grades = [Grade(float(i % 2), bool(i % 2), True, None, "") for i in range(len(rollouts.ids))]
    found = []
    for limit in (Limit(3), Limit(tokens=100)):
        policy.model.zero_grad()
        sft.accumulate_gradients(policy.model, sft.build_dataset(rollouts), 16, 0, limit)
        found.append(torch.cat([p.grad.flatten() for p in policy.model.parameters()]))
    assert (found[0] - found[1]).norm() <= 1e-6 * found[0].norm() > 0
