"""The hidden target by enumeration, and identities of masked and unmasked losses with an environment's tokens."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from rlino_lib.errors import RlinoError
from rlino_lib.evaluation.graded import sample_graded
from rlino_lib.exact.hidden_target import environment_term, masks_compared, optima, optimum
from rlino_lib.exact.identities import Identity, float64_copy, grpo_is_weighted_sft
from rlino_lib.exact.token_mdp import F64
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.credit import Graded, credit, without_likely
from rlino_lib.methods.loss import Batch, policy_loss, token_weights
from rlino_lib.paths import base_of
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.policy.models import load_policy
from rlino_lib.tasks import Countdown, HiddenTarget
from rlino_lib.tasks.countdown.environment import Calculator
from rlino_lib.tasks.countdown.game import make_problem, reachable
from rlino_lib.tasks.countdown.mdp import attempts, best_value
from rlino_lib.training.masks import MASKS, delimiter_ids

# --- the optima ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [1, 2, 3, 9])
@pytest.mark.parametrize("lies", [0.0, 0.1, 0.5, 0.75, 1.0])
def test_optima_by_brute_force_and_by_formula(targets, lies):
    """All maps from what is written to an answer, played against every truth and every word of the environment."""
    best = 0.0
    for answers in product(range(targets), repeat=targets) if targets < 4 else ():
        total = 0.0
        for truth, written in product(range(targets), repeat=2):
            lie = lies / (targets - 1) if targets > 1 else 0.0
            chance = (1 - lies if targets > 1 else 1.0) if truth == written else lie
            total += chance / targets * (answers[written] == truth)
        best = max(best, total)
    formula = max(1 - lies, lies / (targets - 1)) if targets > 1 else 1.0  # believe it, or take another target
    found = optimum(targets, lies)
    assert found.closed_loop == pytest.approx(formula, abs=1e-12)
    assert targets > 3 or found.closed_loop == pytest.approx(best, abs=1e-12)
    assert found.open_loop == pytest.approx(1 / targets, abs=1e-12)


def test_a_calculator_adds_nothing_and_the_gap_of_a_look_closes_with_lies():
    problems = HiddenTarget().problems("test", 64)
    table = optima(problems, [0.0, 0.3, 0.6, 0.9, 1.0]).set_index(["tool", "lies"])
    assert (table.loc["calculator", "gap"] == 0).all()  # exactly
    counts = [len(HiddenTarget().possible_targets(p)) for p in problems]
    assert table.loc["look", "response"].tolist() == pytest.approx([sum(1 / r for r in counts) / 64] * 5)
    assert table.loc[("look", 0.0), "policy"] == pytest.approx(1)
    gaps = table.loc["look", "gap"]
    assert (gaps[:0.9].diff().dropna() < 0).all() and (gaps > 0).all()
    where_nothing_is_said = optimum(9, 8 / 9)  # all targets are written alike
    assert where_nothing_is_said.closed_loop == pytest.approx(where_nothing_is_said.open_loop)


def test_optima_of_nothing_and_of_no_chance_are_refused():
    problems = HiddenTarget().problems("test", 1)
    for given, lies, words in (
        (problems, [2.0], "lies must be"),
        (problems, ["x"], "lies must be"),
        ([], [0.0], "none"),
    ):
        with pytest.raises(RlinoError, match=words):
            optima(given, lies)


def test_with_the_target_in_view_a_calculator_leaves_the_bandit_as_it_is():
    """The best policy with the calculator against the best steps fixed beforehand, on targets in reach and not."""
    for problem in Countdown().problems("test", 8):
        start = tuple(sorted(problem.data["nums"]))
        for target in range(10, 100):
            fixed = 0
            for steps in attempts(start):  # a response fixed beforehand holds what the calculator will write
                texts = [f" {a} {op} {b} =" for a, op, b, _ in steps]
                results = [int(Calculator().answer(text)) for text in texts]
                assert results == [c for *_, c in steps]
                fixed = max(fixed, int(results[-1] == target))
            assert fixed == best_value(start, target)


def test_every_possible_target_is_in_reach_and_in_range():
    problem = make_problem([8, 2, 4], 24)
    possible = HiddenTarget().possible_targets(problem)
    assert possible == sorted(t for t in reachable((2, 4, 8)) if 10 <= t <= 99) and 24 in possible


# --- an unmasked token of the environment ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_an_unmasked_token_adds_its_term_in_the_logits(seed):
    """A whole game enumerated: a choice, then a token of the environment, then an answer; the loss counts all three."""
    rng = torch.Generator().manual_seed(seed)
    choices, words = 2, 4
    first, after = torch.randn(choices, generator=rng, dtype=F64), torch.randn(choices, words, generator=rng, dtype=F64)
    answers = torch.randn(choices, words, words, generator=rng, dtype=F64)
    after.requires_grad_()  # the model's logits where the environment writes
    written = torch.randn(choices, words, generator=rng, dtype=F64).softmax(-1)
    rewards = torch.rand(choices, words, words, generator=rng, dtype=F64)
    pi, last = first.softmax(0), answers.softmax(-1)
    chance = pi[:, None, None] * written[:, :, None] * last  # [choice, word, answer]
    credit_of = rewards - (chance * rewards).sum()  # advantages of courses
    gain = (
        chance * credit_of * after.log_softmax(-1)[:, :, None]
    ).sum()  # the part of E[Σ A log π] at the environment's
    (found,) = torch.autograd.grad(gain, after)
    mean = (last * credit_of).sum(-1)  # [choice, word], the mean advantage after each word
    for c in range(choices):
        expected = pi[c] * environment_term(written[c], after[c].softmax(0).detach(), mean[c])
        assert (found[c] - expected).abs().max() < 1e-12
    assert found.abs().max() > 1e-3


def test_the_term_vanishes_only_where_the_model_predicts_the_environment_and_its_word_is_worth_nothing():
    p = torch.tensor([0.5, 0.3, 0.2], dtype=F64)
    even, uneven = torch.full((3,), 0.7, dtype=F64), torch.tensor([1.0, 0.0, 0.0], dtype=F64)
    assert environment_term(p, p, even).abs().max() < 1e-15
    assert environment_term(p, p, uneven).abs().max() > 0.1
    one = torch.tensor([1.0, 0.0, 0.0], dtype=F64)  # a deterministic environment: a·(1 − π) at its token
    assert environment_term(one, p, even)[0] == pytest.approx(0.7 * (1 - 0.5))


# --- identities on the base ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def batch():
    policy, task = load_policy(base_of("hidden_target")), HiddenTarget(lies=0.2)
    rollouts = sample_graded(policy, task, task.problems("train", 8), 8, seed=8, max_new_tokens=64)
    foreign = rollouts.written & ~rollouts.mask
    with_look = (foreign.any(1) & rollouts.correct).sum()
    assert with_look > 1  # in every method's update, of right responses alone too
    return policy, task, rollouts, float64_copy(policy.model)


@pytest.fixture(scope="module")
def scored(batch):
    """Log-probs [N, T] with a graph that is kept, and the parameters."""
    *_, rollouts, model = batch
    logprobs, mask = response_logprobs(model, rollouts, torch.arange(len(rollouts.ids)))
    assert torch.equal(mask, rollouts.mask[:, : mask.shape[1]])
    return logprobs, mask, list(model.parameters())


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_masked_every_objective_is_weighted_sft_on_the_policys_tokens(batch, scored, name):
    *_, rollouts, _ = batch
    logprobs, mask, parameters = scored
    no_entropies = dict(entropy_bonus=0.0, entropy_by_advantage=0.0)  # which are no weights of a log-likelihood
    objective = replace(OBJECTIVES[name], **no_entropies)
    old = logprobs.detach()  # [N, T]
    rng = torch.Generator().manual_seed(0)
    values, collisions = (
        torch.rand(mask.shape, generator=rng, dtype=F64) * mask for _ in range(2)
    )  # whatever they are
    rewards, right = rollouts.rewards.to(F64), rollouts.correct
    graded = Graded(rewards, 8, mask, old, old, 64, rollouts.truncated, right, values, None, collisions)
    credited, keep = credit(objective, graded)
    counts = without_likely(objective, mask, old)[keep]  # [N', T]
    weights = token_weights(objective, credited[keep], counts, 64)  # [N', T]
    foreign = (rollouts.written[:, : mask.shape[1]] & ~mask)[keep]  # [N', T]
    assert (weights[foreign] == 0).all() and foreign.any()
    parts = logprobs[keep], credited[keep], counts, old[keep], old[keep], 64
    loss = policy_loss(objective, Batch(*parts, covariant=counts)).loss
    likelihood = (weights * logprobs[keep])[mask[keep]].sum()
    ours, theirs = (
        torch.cat([part.flatten() for part in torch.autograd.grad(side, parameters, retain_graph=True)])
        for side in (loss, -likelihood)
    )
    assert Identity(name, ours, theirs).holds and ours.norm() > 0


def test_masked_grpo_is_the_signed_cross_entropy_of_its_examples(batch):
    *_, rollouts, model = batch
    assert all(identity.holds for identity in grpo_is_weighted_sft(model, rollouts))


def test_what_masks_leak(batch):
    policy, task, rollouts, model = batch
    table = masks_compared(model, rollouts, OBJECTIVES["grpo_no_kl"], delimiter_ids(task, policy.tokenizer))
    table = table.set_index("mask")
    assert list(table.index) == list(MASKS)
    assert table.loc["policy", "cosine"] == pytest.approx(1) and table.loc["policy", "foreign"] == 0
    assert 0 < table.loc["delimiter", "foreign"] < table.loc["all", "foreign"]  # one line break, against four tokens
    assert table.loc["all", "cosine"] < table.loc["delimiter", "cosine"] < 1 - 1e-6
    assert (table["own"] == 1).all()  # the base does not write delimiters
