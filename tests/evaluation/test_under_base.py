"""Log-probs under the policy itself, temperatures that match, and cells of support."""

import numpy as np
import pandas as pd
import pytest
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.evaluation.evaluate import mean_entropy
from rlino_lib.evaluation.graded import sample_graded
from rlino_lib.evaluation.under_base import matching_samples, responses_under, support
from rlino_lib.policy.models import load_policy
from rlino_lib.tasks import Countdown

TASK = Countdown()
PROBLEMS = TASK.problems("test", 8)


@pytest.fixture(scope="module")
def policy():
    return load_policy()


def test_a_policys_own_samples_have_the_log_probs_that_they_were_drawn_with(policy):
    rollouts = sample_graded(policy, TASK, PROBLEMS, 4, seed=1)
    frame = responses_under(policy, rollouts, rows=5)
    np.testing.assert_allclose(frame["logprob"], rollouts.logprobs.double().sum(1), atol=1e-3)
    assert frame["tokens"].tolist() == rollouts.lengths.tolist() and frame["correct"].any()
    assert frame["problem"].tolist() == [p.id for p in PROBLEMS for _ in range(4)]
    np.testing.assert_allclose(np.log(frame["perplexity"]) * frame["tokens"], -frame["logprob"])


def test_a_prefix_is_context_and_not_counted(policy):
    task = Countdown(thinking=False)
    rollouts = sample_graded(policy, task, PROBLEMS, 2, seed=1)
    frame = responses_under(policy, rollouts)
    np.testing.assert_allclose(frame["logprob"], rollouts.logprobs.double().sum(1), atol=1e-3)
    assert (frame["tokens"] == torch.tensor([len(row) for row in rollouts.ids]).numpy()).sum() < len(frame)


def test_the_temperature_of_an_entropy_is_the_one_that_it_came_from(policy):
    def samples_at(temperature):
        return sample_graded(policy, TASK, PROBLEMS, 4, seed=0, temperature=temperature)

    entropy = mean_entropy(samples_at(1.6))
    found, matched = matching_samples(samples_at, mean_entropy, entropy, (1.0, 2.0))
    assert found == pytest.approx(1.6, abs=0.05) and mean_entropy(matched) == pytest.approx(entropy, 0.05)
    assert len(matched.texts) == 32 and matched.grades
    with pytest.raises(RlinoError, match="give 0.* not 9.000"):
        matching_samples(samples_at, mean_entropy, 9.0, (1.0, 2.0))


def test_right_completions_fall_into_cells_by_both_probabilities():
    rows = [("a", "x", True), ("a", "x", True), ("a", "y", True), ("b", "x", True), ("b", "z", True), ("b", "w", False)]
    frame = pd.DataFrame(rows, columns=["problem", "response", "correct"])
    base = frame.assign(logprob=np.log([0.2, 0.2, 0.2, 0.001, 0.001, 0.5]))
    model = frame.assign(logprob=np.log([0.3, 0.3, 0.001, 0.2, 0.001, 0.5]))
    expected = {"both": 1, "base_only": 1, "model_only": 1, "neither": 1, "completions": 4}
    assert support(base, model, 0.01).to_dict() == expected
    with pytest.raises(RlinoError, match="same responses"):
        support(base, model.iloc[::-1], 0.01)
