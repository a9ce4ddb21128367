"""Training and evaluating from wrong prefixes: context that is not learned, and numbers that are not mixed."""

import json

import pytest
import torch

from rlino_lib.cli import main as cli
from rlino_lib.evaluation.evaluate import evaluate, summarise
from rlino_lib.evaluation.graded import sample_graded
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.policy.models import load_policy
from rlino_lib.tasks import Countdown
from rlino_lib.training.config import TrainConfig
from rlino_lib.training.run import train
from rlino_lib.training.trainer import Trainer

SMALL = dict(steps=2, prompts=8, group_size=4, eval_every=2, eval_problems=8, trace_groups=8, lr=1e-3, device="cpu")
HALF = {"restarts": 0.5, "restart_bonus": 0.5}


@pytest.mark.parametrize("method, bonus", [("grpo_no_kl", 0.5), ("f_isft_pos", 0.0)])  # which learns verdicts alone
def test_a_prefix_is_context_of_the_policys_tokens_and_not_learned(method, bonus, tmp_path):
    settings = HALF | {"restart_bonus": bonus}
    rows = train(TrainConfig(method=method, task_settings=settings, **SMALL), tmp_path / "run").rollouts
    openings = rows["data"].map(lambda data: data.get("opening", ""))
    assert 0 < (openings != "").mean() < 1 and len(rows) == 2 * 8 * 4
    assert openings.groupby([rows["step"], rows["group"]]).nunique().eq(1).all()  # one state a group
    for row, opening in zip(rows.itertuples(), openings, strict=True):
        given = len(row.tokens) - row.length
        assert row.response.startswith(opening) and "".join(row.tokens[:given]) == opening
        assert row.weights[:given] == [0] * given
        assert row.reward == row.correct * (1 + bonus * bool(opening))
    assert rows["weights"].map(any).any()


def test_evaluations_during_a_run_with_restarts_are_from_scratch():
    with_restarts, without = (Trainer(TrainConfig(task_settings=s, **SMALL)) for s in (HALF, {}))
    assert with_restarts.evaluate() == without.evaluate()
    assert any(p.opening for p in with_restarts.problems) and not any(p.opening for p in with_restarts.eval_problems)


def test_a_bonus_for_a_repair_moves_a_centred_advantage_and_no_standardised_one():
    """A group has one opening, so that its rewards are all scaled: grpo divides by their spread, dr_grpo does not."""
    moved = {}
    for method in ("grpo_no_kl", "dr_grpo"):
        steps = []
        for bonus in (0.0, 0.5):
            settings = {"restarts": 1.0, "restart_bonus": bonus}
            steps.append(Trainer(TrainConfig(method=method, task_settings=settings, **SMALL)).step()[2]["advantage"])
        assert steps[0].any()
        moved[method] = ((steps[1] - steps[0]).abs().max() / steps[0].abs().max()).item()
    assert moved["grpo_no_kl"] < 1e-3 and moved["dr_grpo"] == pytest.approx(0.5)
    assert OBJECTIVES["grpo_no_kl"].advantage == "zscore"


def test_the_repair_rate_is_an_evaluation_of_its_own_which_counts_the_policys_attempts(tmp_path, capsys):
    words = ["evaluate", "--problems", "8", "--samples", "4", "--device", "cpu", "--max-new-tokens", "80"]
    words += ["--task-set", "restart_held_out=2", "--responses", "--out", str(tmp_path / "evaluation")]
    assert cli.main(words) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    lines = [json.loads(line) for line in (tmp_path / "evaluation" / "responses.jsonl").read_text().splitlines()]
    assert len(lines) == 32 and all(line["response"].startswith(line["opening"]) for line in lines)
    assert all(line["opening"].count(" no\n") == 2 for line in lines)
    task = Countdown(restart_held_out=2)
    summary = summarise(evaluate(load_policy(), task, task.problems("test", 8), samples=4, max_new_tokens=80))
    assert found["pass@1"] == summary["pass@1"]
    own = [line["response"].removeprefix(line["opening"]) for line in lines]
    verdicts = sum(text.count(" no") + text.count(" yes") for text in own)
    assert summary["attempts_per_response"] == pytest.approx(verdicts / 32)


def test_the_policy_is_sampled_from_its_prefix_as_if_it_had_written_it():
    """The log-probs of what follows are those of one pass over the whole text."""
    policy, task = load_policy(), Countdown(restart_held_out=1)
    problems = task.problems("test", 4)
    rollouts = sample_graded(policy, task, problems, 2, seed=3, precision="fp32")
    ids, attention = rollouts.sequences()  # [N, S+T] each
    with torch.no_grad():
        logits = policy.model(input_ids=ids, attention_mask=attention).logits.log_softmax(-1)  # [N, S+T, V]
    logprobs = logits[:, :-1].gather(2, ids[:, 1:, None])[:, -rollouts.ids.shape[1] :, 0]  # [N, T]
    where = rollouts.mask
    torch.testing.assert_close(logprobs[where], rollouts.logprobs[where], rtol=1e-4, atol=1e-4)
    assert (where.sum(1) < rollouts.written.sum(1)).all()
