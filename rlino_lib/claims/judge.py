"""The ledger of claims: each is judged by a function over identities or records, against a threshold set beforehand.

`data/claims.toml` holds statements, thresholds and verdicts; nothing here knows how a run was made.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from rlino_lib.analysis.statistics import (
    beyond,
    differences,
    final_accuracy,
    holm,
    outcomes,
    seeds_needed,
    t_interval,
    t_test,
    tost,
)
from rlino_lib.claims.ledger import (
    CONDITIONS,
    FAILS,
    HOLDS,
    KINDS,
    RECORDED,
    UNDECIDED,
    UNTESTED,
    VERDICTS,
    Claim,
    Evidence,
    Records,
    of_all,
    sided,
    told,
    untested,
)
from rlino_lib.claims.length import LENGTH_EVIDENCE
from rlino_lib.errors import RlinoError
from rlino_lib.exact import identities
from rlino_lib.exact.token_mdp import SharedPolicy, TokenMDP, best_of_tool_game, tool_game
from rlino_lib.paths import REPO, RUNS
from rlino_lib.records.runs import Run

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


def _arm_losses(games: float, **world: float) -> list[float]:
    """What the best arm lacks to the best policy in each of so many random games with a tool."""
    return [best_of_tool_game(tool_game(seed, **world)).gap for seed in range(int(games))]


def deterministic_tool(claim: Claim, records: Records) -> Evidence:
    games, bound = claim.threshold["games"], claim.threshold["gap"]
    worst = max(_arm_losses(games))
    effect = f"by enumeration in float64, in {games:.0f} random games with a tool that answers every token"
    if worst > bound:
        return Evidence(FAILS, f"{effect}: the best arm loses up to {worst:.1g}")
    return Evidence(HOLDS, f"{effect}: best policy and best arm differ by less than {bound:.0e}")


def noisy_environment(claim: Claim, records: Records) -> Evidence:
    games, loss = claim.threshold["games"], claim.threshold["loss"]
    slips = _toy(slip=0.2).optimum()
    noisy, hidden = (sum(_arm_losses(games, **world)) / games for world in ({"slip": 0.2}, {"hidden": 2}))
    holds = min(slips.gap, noisy, hidden) > loss
    effect = f"best reward with the state in view {slips.closed_loop:.3f}, chosen beforehand {slips.open_loop:.3f}"
    effect = f"{effect}, where a token slips with chance 0.2; mean loss of the best arm over {games:.0f} random games "
    effect = f"{effect}{noisy:.3f} with a tool that slips with chance 0.2, {hidden:.3f} with one of two tools, unseen"
    return Evidence(HOLDS if holds else FAILS, effect)


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
    "accuracy open": it is not, but neither does the interval lie within the threshold, so that nothing is settled.
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
    within = (found["low"] > -threshold["points"]) & (found["high"] < threshold["points"])
    found["accuracy open"] = ~found["accuracy ends"] & ~within
    return found


def name_only(claim: Claim, records: Records) -> Evidence:
    runs = [run for run in stale_runs(records) if run.method in ("grpo_no_kl", "f_isft_posneg")]
    if len({run.method for run in runs}) < 2:
        return Evidence(UNTESTED, "no recorded runs of both methods")
    table = where_it_ends(runs, claim.threshold)
    ends, still_open = table[["cosine ends", "clipped ends", "accuracy ends"]], table["accuracy open"]
    said = [f"{name.removesuffix(' ends')} at {_listed(hit.index[hit])}" for name, hit in ends.items() if hit.any()]
    effect = "; ".join(said) or "no bound was crossed"
    if still_open.any():
        effect += f"; accuracy undecided at {_listed(table.index[still_open])}: its interval reaches beyond the margin"
    return _by_updates(~ends.any(axis=1), effect, runs)


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


@dataclass(frozen=True)
class _Family:
    """What the claims of one kind of evidence come to together; those that cannot be tested yet count as p = 1."""

    found: tuple[pd.Series, list[Run]] | None  # the differences of the claim in question, and its runs
    p_for: float  # of its test, after Holm's correction over all of them
    p_against: float  # of the test of the contrary, after Holm's correction over the tests of the contrary
    open_for: int  # how many tests do not pass, the claim's own among them if it does not
    open_against: int

    def verdict(self, alpha: float) -> str:
        """Only a test that passes settles a claim, either way."""
        return HOLDS if self.p_for < alpha else FAILS if self.p_against < alpha else UNDECIDED


PValue = Callable[[Claim, pd.Series], float]


def _family(claim: Claim, records: Records, p_for: PValue, p_against: PValue) -> _Family:
    family = [c for c in records.ledger if c.evidence == claim.evidence] or [claim]
    found = [_differences(c, records) for c in family]
    place = [c.id for c in family].index(claim.id)
    corrected = [
        holm([1.0 if d is None else p_of(c, d[0]) for c, d in zip(family, found, strict=True)])
        for p_of in (p_for, p_against)
    ]
    still_open = [int((p >= claim.threshold["alpha"]).sum()) for p in corrected]
    return _Family(found[place], *(float(p[place]) for p in corrected), *still_open)


def equivalent(claim: Claim, records: Records) -> Evidence:
    margin, alpha = claim.threshold["points"], claim.threshold["alpha"]
    family = _family(
        claim,
        records,
        lambda c, gaps: tost(gaps, c.threshold["points"]),
        lambda c, gaps: beyond(gaps, c.threshold["points"]),
    )
    if family.found is None:
        return untested(claim)
    gaps, runs = family.found
    verdict, names = family.verdict(alpha), tuple(run.name for run in runs)
    effect = f"{told(gaps)}; within ±{margin:g}: p = {family.p_for:.2g}, beyond: p = {family.p_against:.2g} after Holm"
    if verdict == UNDECIDED:
        tests = family.open_for if abs(gaps.mean()) < margin else family.open_against
        more = seeds_needed(gaps.std(), margin, gaps.mean(), alpha=alpha, tests=tests)
        effect = f"{effect}; about {more or 'too many'} seeds would settle it"
    return Evidence(verdict, effect, names)


def below(claim: Claim, records: Records) -> Evidence:
    family = _family(
        claim,
        records,
        lambda c, gaps: t_test(gaps, alternative="less"),
        lambda c, gaps: t_test(gaps, alternative="greater"),
    )
    if family.found is None:
        return untested(claim)
    gaps, runs = family.found
    effect = f"{told(gaps)}; below: p = {family.p_for:.2g}, above: p = {family.p_against:.2g} after Holm"
    return Evidence(family.verdict(claim.threshold["alpha"]), effect, tuple(run.name for run in runs))


def base_accuracy(run: Run) -> float:
    """What the run's base got right on the test split, in points, from the evaluation that is shipped with it."""
    path = REPO / run.config["model"] / "evaluation.json"
    try:
        return 100 * json.loads(path.read_text(encoding="utf-8"))["found"]["pass@1"]["value"]
    except (OSError, ValueError, KeyError) as e:
        raise RlinoError(f"{path} is missing or damaged: {e}") from e


def _at_every_rate(claim: Claim, records: Records) -> dict[float, list[Run]]:
    """The runs of a claim's method by learning rate: those head to head, each method at its own, and those in which
    all methods have GRPO's (chapters 04 and 05). One run at a rate says nothing of seeds, and is left out."""
    pool = {run.path: run for group in ("head-to-head", "countdown") for run in records.runs(group)}
    found: dict[float, list[Run]] = {}
    for run in pool.values():
        if (run.config["task"], run.method) == (claim.about["task"], claim.about["method"]):
            found.setdefault(run.config["lr"], []).append(run)
    return {rate: runs for rate, runs in sorted(found.items()) if len(runs) > 1}


def collapses(claim: Claim, records: Records) -> Evidence:
    """Below the base at every learning rate that was run; where rates disagree, the claim has a condition."""
    rates = _at_every_rate(claim, records)
    if max(map(len, rates.values()), default=0) < claim.threshold["seeds"]:
        return untested(claim)
    of_grpo = {run.config["lr"] for run in duels(claim.about["task"], records) if run.method == "grpo"}
    verdicts, words = [], []
    for rate, runs in rates.items():
        gains = pd.Series([final_accuracy(run) - base_accuracy(run) for run in runs])
        verdicts.append(sided(-gains))
        whose = ", GRPO's own," if rate in of_grpo else ""
        words.append(f"at a learning rate of {rate:g}{whose} {told(gains)} from the base: {verdicts[-1]}")
    verdict = verdicts[0] if len(set(verdicts)) == 1 else CONDITIONS
    return Evidence(verdict, "; ".join(words), tuple(run.name for runs in rates.values() for run in runs))


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
        moved.append(sided(sign * change))
    effect = f"nats a response, over {len(runs)} seeds: right {ends['correct']}, wrong {ends['incorrect']}"
    return Evidence(of_all(moved), effect, tuple(run.name for run in runs))


_FUNCTIONS = (bandit, deterministic_tool, noisy_environment, weighted_sft, closed_form, balanced, uniform_credit)
_FUNCTIONS += (clip_range, name_only, equivalent, below, collapses, likelihood, *LENGTH_EVIDENCE)
EVIDENCE: dict[str, Callable[[Claim, Records], Evidence]] = {f.__name__: f for f in _FUNCTIONS}


def ledger_rows(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    """`judge_all` as rows of a table for the README and chapter 00, the head first."""
    head = ("claim", "in the paper", "kind", "verdict", "what was found")
    why = frame["revision"].map(lambda words: words and f". *Under revision:* {words}")
    columns = frame[["statement", "paper", "kind", "found"]].assign(effect=frame["effect"] + why)
    return [head, *columns.itertuples(index=False, name=None)]
