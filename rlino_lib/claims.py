"""The ledger of claims: each is judged by a function over identities or records, against a threshold set beforehand.

`data/claims.toml` holds statements, thresholds and verdicts; nothing here knows how a run was made.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from rlino_lib import identities
from rlino_lib.claims_length import LENGTH_EVIDENCE
from rlino_lib.compare import differences, final_accuracy, holm, outcomes, seeds_needed, t_interval, t_test, tost
from rlino_lib.errors import RlinoError
from rlino_lib.ledger import (
    CONDITIONS,
    FAILS,
    HOLDS,
    KINDS,
    RECORDED,
    UNTESTED,
    VERDICTS,
    Claim,
    Evidence,
    Records,
    told,
    untested,
)
from rlino_lib.mdp import SharedPolicy, TokenMDP
from rlino_lib.records import REPO, RUNS, Run

LEDGER = REPO / "data" / "claims.toml"


def read_ledger(path: str | Path = LEDGER) -> list[Claim]:
    """The claims in their order. Raises RlinoError for a file or a row that is not as it should be."""
    try:
        rows = tomllib.loads(Path(path).read_text(encoding="utf-8"))["claim"]
        claims = [Claim(**row) for row in rows]
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as e:
        raise RlinoError(f"{path} is no ledger: {e}") from e
    for c in claims:
        if c.kind not in KINDS or c.evidence not in EVIDENCE or c.verdict not in (None, *VERDICTS):
            raise RlinoError(f"claim {c.id}: unknown kind {c.kind!r}, evidence {c.evidence!r} or verdict {c.verdict!r}")
    if len({c.id for c in claims}) < len(claims):
        raise RlinoError(f"{path} has two claims of one id")
    return claims


def judge_all(path: str | Path = LEDGER, root: str | Path = RUNS) -> pd.DataFrame:
    """The ledger with its evidence, one row a claim: its fields, `found` and `effect`, and the `runs` behind."""
    rows, records = [], Records(Path(root), read_ledger(path))
    for claim in records.ledger:
        found = EVIDENCE[claim.evidence](claim, records)
        rows.append(vars(claim) | {"found": found.verdict, "effect": found.effect, "runs": found.runs})
    return pd.DataFrame(rows)


# --- exact claims ----------------------------------------------------------------------------------------------------


def _toy(slip: float = 0.0) -> TokenMDP:
    """Three tokens and EOS, up to four of them; right is to begin and end alike, in two tokens or more."""

    def reward(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        words = (tokens > 0).sum(1)  # [N], tokens before EOS
        last = tokens.gather(1, (words - 1).clamp_min(0)[:, None])[:, 0]  # [N]
        return ((words >= 2) & (tokens[:, 0] == last)).double()

    return TokenMDP(4, 4, reward, slip=slip)


def _exact(found: Sequence[identities.Identity], threshold: Mapping[str, float]) -> Evidence:
    worst, bound = max(found, key=lambda i: i.gap), threshold["gap"]
    if worst.gap > bound:
        return Evidence(FAILS, f"relative gap {worst.gap:.1g} ({worst.name})")
    # No digits of a gap that is all rounding: they differ from machine to machine.
    return Evidence(HOLDS, f"both sides computed in float64: relative gap below {bound:.0e}")


def bandit(claim: Claim, records: Records) -> Evidence:
    mdp = _toy()
    policy, arms, best = SharedPolicy(mdp, seed=0), mdp.bandit(), mdp.optimum()
    optima = torch.tensor([best.closed_loop, best.open_loop], dtype=torch.float64)
    sides = [
        ("objective", mdp.J(policy).detach(), arms.J(policy).detach()),
        ("gradient", mdp.gradient(policy), arms.gradient(policy)),
        ("optimum", optima[0], optima[1]),
    ]
    return _exact([identities.Identity(*side) for side in sides], claim.threshold)


def history(claim: Claim, records: Records) -> Evidence:
    same, slips = _toy().optimum(), _toy(slip=0.2).optimum()
    holds = same.gap == 0 and slips.gap > claim.threshold["loss"]
    effect = f"best reward with the state in view {slips.closed_loop:.3f}, chosen beforehand {slips.open_loop:.3f}"
    return Evidence(HOLDS if holds else FAILS, f"{effect}, at a slip of 0.2; without slips no difference")


def _toy_identities() -> list[identities.Identity]:
    mdp = _toy()
    policy = SharedPolicy(mdp, seed=0)
    rollouts = identities.sample_mdp(mdp, policy, prompts=16, group_size=8)
    return identities.grpo_is_weighted_sft(identities.TokenLM(mdp, policy), rollouts)


def weighted_sft(claim: Claim, records: Records) -> Evidence:
    return _exact(_toy_identities()[:2], claim.threshold)


def closed_form(claim: Claim, records: Records) -> Evidence:
    return _exact([i for g in (2, 3, 5, 8, 16) for i in identities.curve_identities(g)[-2:]], claim.threshold)


def balanced(claim: Claim, records: Records) -> Evidence:
    return _exact(_toy_identities()[-1:], claim.threshold)


def uniform_credit(claim: Claim, records: Records) -> Evidence:
    mdp = _toy()
    policy = SharedPolicy(mdp, seed=0)
    whole, split = (mdp.expected_update(policy, mdp.credit(policy, kind)) for kind in ("return", "split"))
    cosine = torch.cosine_similarity(whole, split, dim=0).item()
    gap = identities.Identity("split", split / split.norm(), whole / whole.norm()).gap
    verdict = HOLDS if gap <= claim.threshold["gap"] else FAILS
    return Evidence(verdict, f"cosine of the two expected gradients {cosine:.3f}, lengths put to one scale")


# --- claims on records -----------------------------------------------------------------------------------------------


def stale_runs(records: Records = RECORDED) -> list[Run]:
    """The recorded runs in which a batch of samples serves several updates."""
    return [run for run in records.runs("staleness") if (run.path / "probes.csv").exists()]


def last_update(runs: Sequence[Run], columns: Sequence[str]) -> pd.DataFrame:
    """By method, updates a batch and seed: the mean over probed steps of what the last update of a batch measured."""
    rows = []
    for run in runs:
        updates = run.config["epochs"] * run.config["minibatches"]
        own = run.probes[run.probes["update"] == updates]
        rows.append({"method": run.method, "updates": updates, "seed": run.seed} | own[list(columns)].mean().to_dict())
    return pd.DataFrame(rows)


def accuracy_gap(runs: Sequence[Run], method: str, other: str) -> pd.DataFrame:
    """By updates a batch: mean difference of test accuracy in points, paired by seed, with its 95 % t-interval."""
    rows = [(r.method, r.config["epochs"] * r.config["minibatches"], r.seed, r.summary["test"]) for r in runs]
    frame = pd.DataFrame(rows, columns=["method", "updates", "seed", "test"])
    frame["accuracy"] = [100 * test["pass@1"]["value"] for test in frame.pop("test")]
    wide = frame.pivot(index=["updates", "seed"], columns="method", values="accuracy")
    found = []
    for updates, gap in (wide[method] - wide[other]).dropna().groupby(level="updates"):
        low, high = t_interval(gap)
        found.append({"updates": updates, "points": gap.mean(), "low": low, "high": high, "seeds": len(gap)})
    return pd.DataFrame(found)


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _by_updates(passed: pd.Series, effect: str, runs: Sequence[Run]) -> Evidence:
    """The verdict on a claim that holds or not at each number of updates a batch (the index of `passed`)."""
    passed = passed.sort_index()
    failed = [int(u) for u, ok in passed.items() if not ok]
    verdict = HOLDS if not failed else FAILS if failed[0] == passed.index[0] else CONDITIONS
    where = f"up to {passed.index[-1]} updates a batch" if not failed else f"not at {_listed(failed)} updates a batch"
    return Evidence(verdict, f"{where}; {effect}", tuple(run.name for run in runs))


def clip_range(claim: Claim, records: Records) -> Evidence:
    runs = [run for run in stale_runs(records) if run.method == "grpo_no_kl"]
    if not runs:
        return Evidence(UNTESTED, "no recorded runs")
    clipped = last_update(runs, ["clip_ratio"]).groupby("updates")["clip_ratio"].mean()
    shares = ", ".join(f"{u}: {100 * share:.1f} %" for u, share in clipped.items())
    return _by_updates(clipped <= claim.threshold["clipped"], f"clipped by updates a batch {shares}", runs)


def where_it_ends(runs: Sequence[Run], threshold: Mapping[str, float]) -> pd.DataFrame:
    """What tells GRPO from balanced F-ISFT⁺⁻ at each number of updates a batch (the index), and whether it does.

    Columns: cosine and clipped, the means over GRPO's runs at the last update of a batch; points, low, high and seeds
    as in `accuracy_gap`; and "cosine ends", "clipped ends", "accuracy ends": whether each is beyond its threshold.
    A mean leaves out what no run of it could measure: a policy without any mixed group has no gradient to compare.
    """
    grpo = [run for run in runs if run.method == "grpo_no_kl"]
    found = last_update(grpo, ["cosine/f_isft", "clip_ratio"]).groupby("updates").mean(numeric_only=True)
    found = found.drop(columns="seed").set_axis(["cosine", "clipped"], axis=1)
    found = found.join(accuracy_gap(runs, "grpo_no_kl", "f_isft_posneg").set_index("updates"))
    found["cosine ends"] = found["cosine"] < threshold["cosine"]
    found["clipped ends"] = found["clipped"] > threshold["clipped"]
    excludes_0 = (found["low"] > 0) | (found["high"] < 0)
    found["accuracy ends"] = (found["points"].abs() > threshold["points"]) & excludes_0
    return found


def name_only(claim: Claim, records: Records) -> Evidence:
    runs = [run for run in stale_runs(records) if run.method in ("grpo_no_kl", "f_isft_posneg")]
    if len({run.method for run in runs}) < 2:
        return Evidence(UNTESTED, "no recorded runs of both methods")
    ends = where_it_ends(runs, claim.threshold)[["cosine ends", "clipped ends", "accuracy ends"]]
    said = [f"{name.removesuffix(' ends')} at {_listed(hit.index[hit])}" for name, hit in ends.items() if hit.any()]
    return _by_updates(~ends.any(axis=1), "; ".join(said) or "no bound was crossed", runs)


# --- head to head ----------------------------------------------------------------------------------------------------


def duels(task: str, records: Records = RECORDED) -> list[Run]:
    """The recorded runs of all methods on a task, each at its own best learning rate."""
    return [run for run in records.runs("head-to-head") if run.config["task"] == task]


def _differences(claim: Claim, records: Records) -> tuple[pd.Series, list[Run]] | None:
    """Method − reference in points by seed, and the runs; None before as many seeds are recorded as were planned.

    A verdict on fewer would be one of many looks at the same data.
    """
    pair = [claim.about["method"], claim.about["reference"]]
    runs = [run for run in duels(claim.about["task"], records) if run.method in pair]
    common = set.intersection(*({run.seed for run in runs if run.method == method} for method in pair))
    if len(common) < claim.threshold["seeds"]:
        return None
    runs = [run for run in runs if run.seed in common]
    return differences(outcomes(runs), *pair), runs


def _tested(claim: Claim, records: Records, p_of: Callable[[Claim, pd.Series], float]) -> tuple[float, Any]:
    """The p value of a claim after Holm's correction over all claims of its kind of evidence, and its differences.

    Those that cannot be tested yet count as p = 1: the family is the one that was announced.
    """
    family = [c for c in records.ledger if c.evidence == claim.evidence] or [claim]
    found = [_differences(c, records) for c in family]
    p = [1.0 if d is None else p_of(c, d[0]) for c, d in zip(family, found, strict=True)]
    place = [c.id for c in family].index(claim.id)
    return holm(p)[place], found[place]


def equivalent(claim: Claim, records: Records) -> Evidence:
    margin, alpha = claim.threshold["points"], claim.threshold["alpha"]
    p, found = _tested(claim, records, lambda c, gaps: tost(gaps, c.threshold["points"]))
    if found is None:
        return untested(claim)
    gaps, runs = found
    effect, names = f"{told(gaps)}, margin ±{margin:g}: p = {p:.2g} after Holm", tuple(run.name for run in runs)
    if p < alpha:
        return Evidence(HOLDS, effect, names)
    if t_test(gaps) < alpha and abs(gaps.mean()) > margin:
        return Evidence(FAILS, effect, names)
    more = seeds_needed(gaps.std(), margin, min(abs(gaps.mean()), 0.999 * margin), alpha=alpha)
    return Evidence(UNTESTED, f"{effect}; about {more or 'too many'} seeds would settle it", names)


def below(claim: Claim, records: Records) -> Evidence:
    p, found = _tested(claim, records, lambda c, gaps: t_test(gaps, alternative="less"))
    if found is None:
        return untested(claim)
    gaps, runs = found
    verdict = HOLDS if p < claim.threshold["alpha"] else FAILS
    return Evidence(verdict, f"{told(gaps)}: p = {p:.2g} after Holm", tuple(run.name for run in runs))


def base_accuracy(run: Run) -> float:
    """What the run's base got right on the test split, in points, from the evaluation that is shipped with it."""
    path = REPO / run.config["model"] / "evaluation.json"
    try:
        return 100 * json.loads(path.read_text(encoding="utf-8"))["found"]["pass@1"]["value"]
    except (OSError, ValueError, KeyError) as e:
        raise RlinoError(f"{path} is missing or damaged: {e}") from e


def collapses(claim: Claim, records: Records) -> Evidence:
    runs = [run for run in duels(claim.about["task"], records) if run.method == claim.about["method"]]
    if len(runs) < claim.threshold["seeds"]:
        return untested(claim)
    gains = pd.Series([final_accuracy(run) - base_accuracy(run) for run in runs])
    verdict = HOLDS if t_interval(gains)[1] < 0 else FAILS
    return Evidence(verdict, f"{told(gains)} from the base", tuple(run.name for run in runs))


def likelihood(claim: Claim, records: Records) -> Evidence:
    runs = [run for run in duels(claim.about["task"], records) if run.method == claim.about["method"]]
    if len(runs) < claim.threshold["seeds"]:
        return untested(claim)
    ends, moved = {}, []
    for side, sign in (("correct", 1), ("incorrect", -1)):
        measured = [run.metrics[f"eval/base/{side}"].dropna() for run in runs]
        change = pd.Series([column.iloc[-1] - column.iloc[0] for column in measured])
        low, high = t_interval(change)
        ends[side] = f"{change.mean():+.1f} [{low:+.1f}, {high:+.1f}]"
        moved.append(sign * (low if sign > 0 else high) > 0)
    verdict = HOLDS if all(moved) else CONDITIONS if any(moved) else FAILS
    effect = f"nats a response, over {len(runs)} seeds: right {ends['correct']}, wrong {ends['incorrect']}"
    return Evidence(verdict, effect, tuple(run.name for run in runs))


_FUNCTIONS = (bandit, history, weighted_sft, closed_form, balanced, uniform_credit, clip_range, name_only)
_FUNCTIONS += (equivalent, below, collapses, likelihood, *LENGTH_EVIDENCE)
EVIDENCE: dict[str, Callable[[Claim, Records], Evidence]] = {f.__name__: f for f in _FUNCTIONS}


def ledger_rows(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    """`judge_all` as rows of a table for the README and chapter 00, the head first."""
    head = ("claim", "in the paper", "kind", "verdict", "what was found")
    return [head, *frame[["statement", "paper", "kind", "found", "effect"]].itertuples(index=False, name=None)]
