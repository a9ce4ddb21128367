"""The token MDP: what it enumerates, its values against brute force, the bandit, and where the two part."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlino_lib.errors import RlinoError
from rlino_lib.exact.token_mdp import (
    F64,
    SharedPolicy,
    TabularPolicy,
    TokenMDP,
    best_of_tool_game,
    flat_gradient,
    tool_game,
)


def noise(seed: int):
    """A dense reward with nothing regular in it."""
    return lambda tokens, mask: torch.rand(len(tokens), generator=torch.Generator().manual_seed(seed), dtype=F64)


def adds_to_three(tokens, mask):
    return tokens.sum(1) == 3


def responses_by_hand(vocab: int, horizon: int) -> set[tuple[int, ...]]:
    cut = lambda s: s[: s.index(0) + 1] if 0 in s else s  # noqa: E731
    return {cut(s) for s in itertools.product(range(vocab), repeat=horizon)}


small = st.tuples(st.integers(2, 4), st.integers(1, 4), st.integers(0, 99))


@settings(deadline=None, max_examples=15)
@given(small)
def test_every_response_is_there_once(drawn):
    vocab, horizon, seed = drawn
    mdp = TokenMDP(vocab, horizon, noise(seed))
    rows = [tuple(r[m].tolist()) for r, m in zip(mdp.tokens, mdp.mask, strict=True)]
    assert len(rows) == mdp.n_responses and set(rows) == responses_by_hand(vocab, horizon)
    assert mdp.lengths.tolist() == [len(r) for r in rows] == sorted(len(r) for r in rows)
    for n, (row, states) in enumerate(zip(rows, mdp.states, strict=True)):  # the transitions append
        state = 0
        for t, token in enumerate(row):
            assert int(states[t]) == state
            state = int(mdp.successors[state, token])
        assert state == mdp.n_states + n


@settings(deadline=None, max_examples=15)
@given(small, st.booleans(), st.sampled_from([0.0, 0.3]))
def test_the_bellman_equation_and_the_sum_over_responses_agree(drawn, shared, slip):
    vocab, horizon, seed = drawn
    mdp = TokenMDP(vocab, horizon, noise(seed), slip=slip)
    policy = SharedPolicy(mdp, seed=seed) if shared else TabularPolicy(mdp, 1.0, seed)
    found, p = mdp.values(policy), mdp.probs(policy)
    assert p.sum().item() == pytest.approx(1, abs=1e-12)
    assert found.V[0].item() == pytest.approx(mdp.J(policy).item(), abs=1e-12)
    passed = torch.zeros(mdp.n_states, dtype=F64)
    passed.index_add_(0, mdp.states[mdp.mask], p.detach()[:, None].expand_as(mdp.mask)[mdp.mask])
    assert torch.allclose(passed, found.visits, atol=1e-12)
    assert (policy().softmax(-1) * found.A).sum(1).abs().max() < 1e-12  # an advantage has mean 0 at every state
    theorem, twin = mdp.gradient(policy), mdp.autograd_gradient(policy)
    assert (theorem - twin).norm() <= 1e-12 * max(1, twin.norm())
    assert twin.norm() > 0 or slip == 1


@settings(deadline=None, max_examples=10)
@given(small)
def test_the_bandit_is_the_same_problem(drawn):
    vocab, horizon, seed = drawn
    mdp = TokenMDP(vocab, horizon, noise(seed))
    policy, bandit = SharedPolicy(mdp, seed=seed), mdp.bandit()
    assert bandit.J(policy).item() == pytest.approx(mdp.values(policy).V[0].item(), abs=1e-12)
    assert (bandit.gradient(policy) - mdp.gradient(policy)).norm() < 1e-12
    best = int(bandit.rewards.argmax())
    text = mdp.text(mdp.tokens[best, mdp.mask[best]])
    optimum = mdp.optimum()
    assert optimum.closed_loop == optimum.open_loop == bandit.rewards[best].item() and optimum.gap == 0
    assert optimum.arm == optimum.greedy == text


def test_ascent_finds_the_best_arm():
    mdp = TokenMDP(3, 3, noise(4))
    policy = TabularPolicy(mdp)
    for _ in range(300):
        (gradient,) = torch.autograd.grad(mdp.J(policy), [policy.logits])
        policy.logits.data += 20 * gradient
    assert mdp.J(policy).item() > 0.99 * mdp.optimum().open_loop
    assert int(mdp.probs(policy).argmax()) == int(mdp.rewards.argmax())


def test_an_arm_cannot_react_to_what_the_environment_writes():
    mdp = TokenMDP(3, 3, adds_to_three, slip=0.3)
    optimum = mdp.optimum()
    assert optimum.gap > 0.1
    hit, slip = 1 - 0.3 * 2 / 3, 0.1  # the chance of the token that was meant, and of each other one
    by_hand = 0.0  # of the arm aaa, response by response
    for row in ((1, 1, 1), (1, 2, 0), (2, 1, 0)):
        by_hand += math.prod(hit if token == 1 else slip for token in row)
    assert mdp.arm_values()[1, 1, 1].item() == pytest.approx(by_hand, abs=1e-12)
    assert optimum.open_loop == mdp.arm_values().max().item()
    greedy = TabularPolicy(mdp)  # policy iteration, with the state in view
    for _ in range(3):
        best = mdp.values(greedy).Q.argmax(1)
        greedy.logits.data = 40 * torch.nn.functional.one_hot(best, 3).to(F64)
    assert mdp.J(greedy).item() == pytest.approx(optimum.closed_loop, abs=1e-9)


@pytest.mark.parametrize("slip", [0.0, 0.4])
def test_arms_by_brute_force(slip):
    mdp = TokenMDP(3, 3, noise(7), slip=slip)
    rows = [tuple(r[m].tolist()) for r, m in zip(mdp.tokens, mdp.mask, strict=True)]
    for arm in itertools.product(range(3), repeat=3):
        value = 0.0
        for row, reward in zip(rows, mdp.rewards.tolist(), strict=True):
            value += reward * math.prod((1 - slip) * (a == b) + slip / 3 for a, b in zip(arm, row, strict=False))
        assert mdp.arm_values()[arm].item() == pytest.approx(value, abs=1e-12)


@settings(deadline=None, max_examples=10)
@given(st.floats(0.05, 0.95), st.integers(0, 99))
def test_an_arm_is_never_better_than_a_policy(slip, seed):
    assert TokenMDP(3, 3, noise(seed), slip=slip).optimum().gap >= -1e-12


def test_states_that_look_alike_cost_a_policy_what_an_arm_still_has():
    """With states merged by their last token the policy can't count, and the best fixed string beats it."""
    mdp = TokenMDP(2, 3, lambda tokens, mask: (tokens[:, :2] == 1).all(1) & (tokens[:, 2] == 0) & (mask.sum(1) == 3))
    merged = TabularPolicy(mdp, classes=mdp.last)
    best = max(
        mdp.J(_with(merged, 0.02 * i, 0.02 * j)).item() for i in range(51) for j in range(51)
    )  # over the chance of going on after nothing, and after an "a"
    assert best == pytest.approx(0.25, abs=1e-6) and mdp.optimum().open_loop == 1


def _with(policy, *go_on):
    p = torch.tensor(go_on, dtype=F64).clamp(1e-9, 1 - 1e-9)
    policy.logits.data = torch.stack([1 - p, p], 1).log()
    return policy


def test_uniform_credit_has_the_right_mean_and_the_split_does_not():
    mdp = TokenMDP(3, 4, adds_to_three)
    policy = SharedPolicy(mdp, seed=2)
    true = mdp.gradient(policy)
    for kind in ("return", "uniform", "exact"):
        update = mdp.expected_update(policy, mdp.credit(policy, kind))
        assert (update - true).norm() < 1e-12 * true.norm()
    for kind in ("reward_split", "split"):
        update = mdp.expected_update(policy, mdp.credit(policy, kind))
        assert torch.nn.functional.cosine_similarity(update, true, dim=0) < 0.999  # another direction
    spread = {kind: mdp.update_variance(policy, mdp.credit(policy, kind)) for kind in ("return", "uniform", "exact")}
    assert spread["exact"] < spread["uniform"]


def test_the_split_adds_up_to_the_advantage_of_a_response():
    mdp = TokenMDP(3, 3, adds_to_three)
    policy = SharedPolicy(mdp, seed=1)
    advantage = mdp.rewards - mdp.J(policy)
    split = mdp.credit(policy, "split")
    assert torch.allclose(split.sum(1), advantage, atol=1e-12)
    assert torch.allclose(split[:, 0] * mdp.lengths, advantage, atol=1e-12) and mdp.lengths.unique().numel() == 3
    assert torch.allclose(mdp.credit(policy, "reward_split").sum(1), mdp.rewards, atol=1e-12)


def test_the_split_is_right_where_all_responses_are_equally_long():
    mdp = TokenMDP(3, 1, noise(3))
    policy = SharedPolicy(mdp)
    for kind in ("reward_split", "split"):
        assert (mdp.expected_update(policy, mdp.credit(policy, kind)) - mdp.gradient(policy)).norm() < 1e-12


def test_the_variance_of_an_update_by_brute_force():
    mdp = TokenMDP(3, 2, noise(1))
    policy = SharedPolicy(mdp, width=3)
    weights = mdp.credit(policy, "uniform")
    one_by_one = []
    for n in range(mdp.n_responses):
        one_by_one.append(flat_gradient((weights[n] * mdp.logprobs(policy)[n]).sum(), policy))
    updates, p = torch.stack(one_by_one), mdp.probs(policy).detach()
    mean = p @ updates
    assert torch.allclose(mean, mdp.expected_update(policy, weights), atol=1e-12)
    by_hand = (p @ (updates - mean).square().sum(1)).item()
    assert mdp.update_variance(policy, weights) == pytest.approx(by_hand, rel=1e-10)


def test_tables():
    mdp = TokenMDP(3, 2, adds_to_three)
    assert mdp.responses(TabularPolicy(mdp)).response.tolist() == ["·", "a·", "aa", "ab", "b·", "ba", "bb"]
    tree = mdp.tree(TabularPolicy(mdp))
    assert tree.state.tolist() == ["", "a", "b"] and tree["V"][0] == pytest.approx(2 / 9)
    assert tree["Q(b)"].tolist() == pytest.approx([1 / 3, 1, 0])
    assert "7 responses, 2 right" in repr(mdp)


def test_close_to_the_limit():
    mdp = TokenMDP(4, 10, lambda tokens, mask: (tokens == 1).sum(1) % 2)
    policy = TabularPolicy(mdp)
    assert mdp.n_responses == sum(3**t for t in range(11)) and mdp.probs(policy).sum().item() == pytest.approx(
        1, abs=1e-9
    )
    assert mdp.values(policy).V[0].item() == pytest.approx(mdp.J(policy).item(), abs=1e-9)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((10, 8, []), "more than 1,000,000 responses"),
        ((1, 3, []), "2 ≤ vocab"),
        ((3, 0, []), "horizon"),
        ((3, 2, [1.0]), "need 7 finite numbers"),
        ((3, 2, [math.nan] * 7), "need 7 finite numbers"),
        ((3, 2, [0.0] * 7, 1.5), "slip"),
    ],
)
def test_what_it_refuses(arguments, message):
    with pytest.raises(RlinoError, match=message):
        TokenMDP(*arguments)


def test_slips_hide_the_actions():
    mdp = TokenMDP(3, 2, [0.0] * 7, slip=0.1)
    policy = TabularPolicy(mdp)
    for call in (mdp.bandit, lambda: mdp.credit(policy), lambda: mdp.expected_update(policy, mdp.rewards)):
        with pytest.raises(RlinoError, match="slip"):
            call()
    with pytest.raises(RlinoError, match="unknown credit"):
        TokenMDP(3, 2, [0.0] * 7).credit(policy, "none")
    with pytest.raises(RlinoError, match="arms"):
        TokenMDP(3, 13, lambda tokens, mask: tokens[:, 0]).arm_values()


# ---- an environment that writes --------------------------------------------------------------------------------------
def courses(paid, tokens, policy):
    """What a game pays to a policy, a function of what stands there, summed over all answers."""
    turns, total = paid.ndim // 2, 0.0
    for answers in itertools.product(range(tokens), repeat=turns):
        course = []
        for answer in answers:
            course += [policy(tuple(course)), answer]
        total += paid[tuple(course)].item()
    return total


@pytest.mark.parametrize("world", [{}, {"slip": 0.3}, {"hidden": 2}])
def test_optima_of_a_tool_game_by_brute_force(world):
    paid, tokens = tool_game(3, tokens=2, turns=2, **world), 2
    found = best_of_tool_game(paid)
    arms = itertools.product(range(tokens), repeat=2)
    assert found.open_loop == pytest.approx(max(courses(paid, tokens, lambda c, a=a: a[len(c) // 2]) for a in arms))
    seen = [(), *itertools.product(range(tokens), repeat=2)]  # all that a policy may see before it writes
    tables = (dict(zip(seen, row, strict=True)) for row in itertools.product(range(tokens), repeat=len(seen)))
    assert found.closed_loop == pytest.approx(max(courses(paid, tokens, table.get) for table in tables))


def test_a_tool_game_is_one_of_chances_and_rewards():
    for world in ({}, {"slip": 0.4}, {"hidden": 3}):
        one = tool_game(0, **world)
        assert one.shape == (3,) * 6 and 0 <= one.min() and one.max() < 1
    never = tool_game(0) == 0  # a deterministic tool has one answer to everything
    assert ((~never).sum(5) <= 1).all()
    assert not torch.equal(tool_game(0), tool_game(1)) and torch.equal(tool_game(2), tool_game(2))


@pytest.mark.parametrize("seed", range(5))
def test_a_deterministic_tool_costs_an_arm_nothing_and_a_noisy_or_hidden_one_may(seed):
    assert best_of_tool_game(tool_game(seed)).gap == 0
    assert best_of_tool_game(tool_game(seed, slip=0.2)).gap > 1e-3
    assert best_of_tool_game(tool_game(seed, hidden=2)).gap >= 0
    assert max(best_of_tool_game(tool_game(k, hidden=2)).gap for k in range(5)) > 0.01
