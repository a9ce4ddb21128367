"""What right chains earn, against the advantages themselves; means over problems; equal budgets of tokens."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch

from rlino_lib.analysis.chains import against, chain_advantages, covariances, over_problems, pass_at_budgets
from rlino_lib.analysis.pass_at_k import pass_at_k
from rlino_lib.errors import RlinoError
from rlino_lib.methods.advantages import advantages


def test_the_theorem_holds_on_every_group_of_four():
    """All 4⁴ patterns of right answers and right chains: the formula is the mean of the advantages, to 1e-12."""
    patterns = list(product(product((0.0, 1.0), (False, True)), repeat=4))
    rows = [dict(group=g, reward=r, chain_right=c) for g, pattern in enumerate(patterns) for r, c in pattern]
    frame = pd.DataFrame(rows)
    for eps in (0.0, 1e-4):
        rewards = torch.tensor(frame["reward"].to_numpy())
        frame["advantage"] = advantages(rewards, 4, "zscore", eps=eps).numpy()
        table = chain_advantages(frame, eps=eps)
        assert len(table) == 256 and table["n"].eq(4).all()
        for name, side in (("right", frame["chain_right"]), ("wrong", ~frame["chain_right"])):
            means = frame[side].groupby("group")["advantage"].mean().reindex(table.index)
            np.testing.assert_allclose(table[name], means, atol=1e-12, rtol=0)
            weights = table["n"] * (table["p_c"] if name == "right" else 1 - table["p_c"])
            whole = (table[name].fillna(0) * weights).sum() / weights.sum()
            assert whole == pytest.approx(frame.loc[side, "advantage"].mean(), abs=1e-12)
        mixed = table.dropna()
        assert (np.sign(mixed["right"]) == np.sign(mixed["alpha"] - mixed["beta"])).all()
        assert (np.sign(mixed["wrong"]) == -np.sign(mixed["right"])).all()


def test_a_guess_can_earn_more_than_a_right_chain():
    """α < β: a group in which right chains fail and guesses succeed turns the sign round."""
    frame = pd.DataFrame({"group": 0, "reward": [0, 1, 1, 0], "chain_right": [True, True, False, False]})
    assert chain_advantages(frame)["right"].item() == 0
    assert chain_advantages(frame.assign(reward=[0, 0, 1, 1]))["right"].item() < 0


def test_a_problem_counts_once_however_many_responses_it_has():
    frame = pd.DataFrame({"problem": list("aaab"), "edit": "none", "correct": [1, 1, 1, 0], "x": [None, None, None, 1]})
    table = over_problems(frame, ["correct", "x"], "edit").set_index("measure")
    assert table["mean"].tolist() == [0.5, 1.0] and table["problems"].tolist() == [2, 1]
    assert table.loc["correct", "low"] <= 0.5 <= table.loc["correct", "high"]


def test_differences_are_paired_by_problem():
    problems = range(40)
    level = np.random.default_rng(0).normal(size=40) * 10  # problems differ much more than hints do
    rows = [
        dict(problem=p, hint=h, value=level[p] + gain) for p in problems for h, gain in (("none", 0), ("half", 0.5))
    ]
    row = against(pd.DataFrame(rows), "value", "hint", "none").iloc[0]
    assert row["hint"] == "half" and row["mean"] == pytest.approx(0.5) and row["high"] - row["low"] < 1e-9
    assert row["problems"] == 40
    with pytest.raises(RlinoError, match="no 'plan' to compare with"):
        against(pd.DataFrame(rows), "value", "hint", "plan")


def test_modes_are_compared_at_equal_tokens():
    thinking = pd.DataFrame({"id": ["a", "b"], "n": 16, "c": [8, 2], "tokens": 16 * 40})
    direct = pd.DataFrame({"id": ["a", "b"], "n": 64, "c": [8, 1], "tokens": 64 * 10})
    table = pass_at_budgets({"thinking": thinking, "direct": direct}, [39, 40, 165, 10_000])
    ks = table.groupby(["mode", "budget"], sort=False)["k"].first()
    assert ks.to_dict() == {("thinking", 40): 1, ("thinking", 165): 4, ("direct", 39): 3, ("direct", 40): 4,
                            ("direct", 165): 16}  # fmt: skip
    row = table[(table["mode"] == "direct") & (table["budget"] == 165) & (table["problem"] == "a")].iloc[0]
    assert row["value"] == pass_at_k(64, 8, 16)
    fair = against(table[table["budget"] == 165], "value", "mode", "thinking").iloc[0]
    gains = [pass_at_k(64, c, 16) - pass_at_k(16, d, 4) for c, d in ((8, 8), (1, 2))]
    assert fair["mean"] == pytest.approx(np.mean(gains)) and fair["problems"] == 2


def test_covariances_are_those_of_the_single_responses():
    rng = np.random.default_rng(0)
    pairs = rng.random((20, 6, 2)) < 0.5  # [P, n, (process, correct)]
    counts = {"n": 6, "process": pairs[..., 0].sum(1), "correct": pairs[..., 1].sum(1), "both": pairs.all(2).sum(1)}
    expected = [np.cov(own.T.astype(float))[0, 1] for own in pairs]
    np.testing.assert_allclose(covariances(pd.DataFrame({"problem": range(20), **counts})), expected, atol=1e-12)
    one = pd.DataFrame({"problem": [0], "n": 1, "process": 1, "correct": 1, "both": 1})
    assert covariances(one).isna().all()
