"""The weights explorer and the gradient microscope (chapter 06): two methods side by side.

The numbers come from `credit` and `token_weights`, so they are those that an optimiser would use at ratio 1.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from rlino_lib.errors import RlinoError
from rlino_lib.methods.catalogue import LABELS, OBJECTIVES
from rlino_lib.methods.credit import Graded, credit
from rlino_lib.methods.loss import token_weights
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.policy.models import Policy
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.widgets.page import LINES, Control, Slot, Trace, chosen, explorer, sides_svg, slot, trace_box
from rlino_lib.widgets.tokens import Html, colour_limit, colour_style, escape_line, number

# Methods whose weights follow from one group alone, by their names in menus.
METHODS = {name: text for name, text in LABELS.items() if name != "grpo"}
LONGEST = 48  # tokens of a response in the explorer
CAP = 64  # the L of 1/(N·L)
F64 = torch.float64


def batch_weights(method: str, rewards: Tensor, group_size: int, mask: Tensor, cap: int) -> tuple[Tensor, Tensor]:
    """Advantages [N] and weights [N, T] of a batch at ratio 1, in float64; 0 on rows that the method leaves out.

    rewards [N], groups together; mask [N, T]; `cap` the length L. The policy is its own reference, so that KL is 0.
    Raises RlinoError for a method that is not among METHODS.
    """
    objective = OBJECTIVES[chosen(method, METHODS, "method")]
    same = torch.zeros(mask.shape, dtype=F64)  # [N, T]
    advantage, keep = credit(objective, Graded(rewards.to(F64), group_size, mask, same, same, cap))  # [N], [N]
    weights = torch.zeros(mask.shape, dtype=F64)  # [N, T]
    if keep.any():
        weights[keep] = token_weights(objective, advantage[keep], mask[keep], cap)
    return advantage, weights


# --- the explorer: a group in four numbers ---------------------------------------------------------------------------


Side = dict[str, float]


def _sides(method: str, group_size: int, k: int, lengths: tuple[int, int]) -> dict[str, Side]:
    right = torch.arange(group_size) < k  # [G]
    mask = torch.arange(max(lengths)) < torch.where(right, *lengths)[:, None]  # [G, T]
    advantage, weights = batch_weights(method, right.to(F64), group_size, mask, CAP)  # [G], [G, T]
    sums = weights.sum(1).tolist()
    first, advantages = weights[:, 0].tolist(), advantage.tolist()
    sides = {}
    for side, count, tokens, i in (("right", k, lengths[0], 0), ("wrong", group_size - k, lengths[1], -1)):
        row = {"count": count, "tokens": tokens, "advantage": advantages[i], "w": first[i], "response": sums[i]}
        if not count:
            row |= dict.fromkeys(("advantage", "w", "response"), math.nan)
        sides[side] = row | {"side": sum(sums[:k] if side == "right" else sums[k:])}
    return sides


def group_weights(method: str, group_size: int = 8, k: int = 2, lengths: tuple[int, int] = (12, 24)) -> pd.DataFrame:
    """A group of which k are right, as two rows, right and wrong, all responses of a side equally long.

    Columns: count, tokens of a response, advantage, w of a token, and its sums over a response and over the side.
    Raises RlinoError for a group, a k, a length or a method outside what can be shown.
    """
    if not (2 <= group_size <= 64 and 0 <= k <= group_size):
        raise RlinoError(f"{k} right of a group of {group_size}: groups have 2 to 64 responses")
    if not all(1 <= n <= LONGEST for n in lengths):
        raise RlinoError(f"lengths {lengths[0]} and {lengths[1]}: from 1 to {LONGEST} tokens")
    return pd.DataFrame.from_dict(_sides(method, group_size, k, lengths), "index")


GROUPS = (2, 4, 8)  # sizes of the explorer's groups
LENGTHS = (8, 16, 32)  # tokens of its responses
SHARES = tuple(k / 8 for k in range(9))
_LETTERS = ("a", "b")


def _row_html(side: str, row: Side, top: float) -> str:
    """A side as a row of a table; the bar is as long as a response and as high as the weight of a token, of `top`."""
    numbers = [number(row[name]) for name in ("advantage", "w", "response", "side")]
    cells = [str(int(row["count"])), str(int(row["tokens"])), *numbers]
    colour, _, sign = LINES[int(row["w"] < 0)]
    height = 0 if math.isnan(row["w"]) else 40 * abs(row["w"]) / top
    size = f"width:{3 * row['tokens']:.0f}px;height:{height:.0f}px;background:{colour}"
    bar = f'<span class="rlino-bar" style="{size}"></span>{"below 0" if row["w"] < 0 else ""}' if height else "–"
    return f'<th scope="row">{sign if height else ""} {side}</th>' + "".join(f"<td>{c}</td>" for c in [*cells, bar])


def _weight_slots(methods: Sequence[str]) -> dict[str, dict[tuple[int, ...], str]]:
    """What the explorer shows of each method, group size, share right and pair of lengths."""
    curves: dict[tuple[int, ...], str] = {}
    rows: dict[str, dict[tuple[int, ...], str]] = {"right": {}, "wrong": {}, "all": {}}
    for m, method in enumerate(methods):
        for g, size in enumerate(GROUPS):
            tables = {
                (k, r, w): _sides(method, size, k, (LENGTHS[r], LENGTHS[w]))
                for k, r, w in itertools.product(range(size + 1), range(len(LENGTHS)), range(len(LENGTHS)))
            }
            for r, w in itertools.product(range(len(LENGTHS)), repeat=2):
                sides = [{side: row["side"] for side, row in tables[k, r, w].items()} for k in range(size + 1)]
                curve = pd.DataFrame(sides, index=[k / size for k in range(size + 1)])
                caption = "sum of w over a side against p: ● right, solid; ▲ wrong, dashed"
                alt = f"{METHODS[method]}: sum of the weights of right and of wrong responses against the share right"
                curves[m, g, r, w] = sides_svg(curve, caption, html.escape(alt))
            for (k, r, w), table in tables.items():
                same = (row["w"] for (other, _, _), t in tables.items() if other == k for row in t.values())
                top = colour_limit(same) or 1.0
                place = m, g, SHARES.index(k / size), r, w
                for side, row in table.items():
                    rows[side][place] = _row_html(side, row, top)
                total = sum(row["side"] for row in table.values())
                text = f"sum over the group: {number(0.0 if abs(total) < 1e-12 else total)}"
                text += (
                    "" if any(row["side"] for row in table.values()) else "; from this group the update learns nothing"
                )
                rows["all"][place] = f'<td colspan="8">{text}</td>'
    return {"curve": curves, **rows}


def weights_explorer(
    a: str = "grpo_no_kl", b: str = "dr_grpo", methods: Sequence[str] = tuple(METHODS), size: int = 8, k: int = 2
) -> Html:
    """Two methods side by side on a group: its size, the share right p, and how long right and wrong responses are.

    For each method the weight of a token and its sums, bars as wide as a response is long, and a curve over p. It
    starts at methods a and b and k right of `size`. Raises RlinoError for an unknown method, size or k.
    """
    for method in (a, b, *methods):
        chosen(method, METHODS, "method")
    if size not in GROUPS or not 0 <= k <= size:
        raise RlinoError(f"{k} right of a group of {size}: the explorer has groups of {', '.join(map(str, GROUPS))}")
    methods = list(dict.fromkeys([*methods, a, b]))
    views = _weight_slots(methods)
    names = [METHODS[m] for m in methods]
    lengths = [f"{n} tokens" for n in LENGTHS]
    shares = [f"p = {p:g}" for p in SHARES]
    controls = [
        Control("a", "A", names, methods.index(a), buttons=True),
        Control("b", "B", names, methods.index(b), buttons=True),
        Control("size", "Group", [f"G = {g}" for g in GROUPS], GROUPS.index(size)),
        Control("p", "Share right", shares, SHARES.index(k / size), "slider", nearest=True),
        Control("right", "Right ones", lengths, 1, "slider"),
        Control("wrong", "Wrong ones", lengths, 1, "slider"),
    ]
    places = {(s,): f'<span style="left:{60 + 250 * p:.0f}px"></span>' for s, p in enumerate(SHARES)}
    heads = ("side", "count", "tokens", "Â", "w of a token", "of a response", "of the side", "w × |o|")
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    slots: dict[str, Slot] = {}
    columns = []
    for x in _LETTERS:
        by = (x, "size", "p", "right", "wrong")
        slots |= {f"{name}_{x}": Slot(by, views[name]) for name in ("right", "wrong", "all")}
        slots |= {f"curve_{x}": Slot((x, "size", "right", "wrong"), views["curve"]), f"p_{x}": Slot(("p",), places)}
        formulas = [
            f"<strong>{METHODS[m]}</strong><br><code>{html.escape(repr(OBJECTIVES[m]))}</code>" for m in methods
        ]
        slots[f"name_{x}"] = Slot((x,), {(m,): f"{x.upper()}: {text}" for m, text in enumerate(formulas)})
        rows = "".join(slot(f"{name}_{x}", "tr") for name in ("right", "wrong", "all"))
        columns.append(
            f"<div>{slot(f'name_{x}', 'p')}"
            f'<div class="rlino-at">{slot(f"curve_{x}")}{slot(f"p_{x}", "div", "rlino-places")}</div>'
            f'<div class="rlino-wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></div>'
        )
    return explorer("Weights explorer", controls, slots, f'<div class="rlino-two">{"".join(columns)}</div>')


# --- the microscope: a real group ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """Sampled groups with the scalar products of their scores: gram [N, N] float64, ∇log π(o_i) · ∇log π(o_j).

    A method that gives every token of a response one weight has the gradient Σ_i w_i ∇log π(o_i), so `gram` is all it
    takes to compare the gradients of any two. tokens: N lists of text; cap: the length L at which responses are
    truncated.
    """

    rollouts: Rollouts
    tokens: list[list[str]]
    gram: Tensor
    cap: int

    def __repr__(self) -> str:
        return f"Scores({len(self.rollouts.prompts)} groups of {self.rollouts.group_size})"

    def weights(self, method: str) -> Tensor:
        """The weight of a token of each response, [N] float64. Raises RlinoError for a method that has none."""
        r = self.rollouts
        return batch_weights(method, r.rewards, r.group_size, r.mask, self.cap)[1][:, 0]

    def product(self, a: Tensor, b: Tensor, rows: slice = slice(None)) -> float:
        """The scalar product of two gradients Σ_i w_i ∇log π(o_i), from their weights [N], over some rows."""
        return (a[rows] @ self.gram[rows, rows] @ b[rows]).item()

    def cosine(self, a: Tensor, b: Tensor, rows: slice = slice(None)) -> float:
        """The cosine of two gradients; nan where one is 0."""
        size = self.product(a, a, rows) * self.product(b, b, rows)
        return self.product(a, b, rows) / size**0.5 if size > 0 else float("nan")


def score_rows(policy: Policy, rollouts: Rollouts, cap: int) -> Scores:
    """One backward pass for each sampled response; `cap` is the length at which they are truncated.

    Raises RlinoError for responses that were not graded.
    """
    if len(rollouts.grades) != len(rollouts.ids):
        raise RlinoError("grade the rollouts before comparing methods on them")
    params = [p for p in policy.model.parameters() if p.requires_grad]
    scores = []
    for row in range(len(rollouts.ids)):
        logprobs, mask = response_logprobs(policy.model, rollouts, torch.tensor([row]))  # [1, T'] each
        gradients = torch.autograd.grad((logprobs * mask).sum(), params, materialize_grads=True)
        scores.append(torch.cat([g.flatten() for g in gradients]).to(F64))
    matrix = torch.stack(scores)  # [N, parameters]
    tokens = [
        [policy.tokenizer.decode([t]) for t in ids[written].tolist()]
        for ids, written in zip(rollouts.ids, rollouts.mask, strict=True)
    ]
    return Scores(rollouts, tokens, (matrix @ matrix.T).cpu(), cap)


def sample_names(scores: Scores, group: int) -> list[str]:
    """A line for each response of a group: its number from 1, the verdict, its length."""
    r = scores.rollouts
    rows = _rows(scores, group)
    responses = zip(r.correct[rows].tolist(), r.lengths[rows].tolist(), strict=True)
    return [f"{j + 1}: {'right' if right else 'wrong'}, {n} tokens" for j, (right, n) in enumerate(responses)]


def first_mixed(scores: Scores) -> int:
    """The first group with right and wrong responses, or group 0."""
    k = scores.rollouts.correct.view(-1, scores.rollouts.group_size).sum(1)  # [P]
    mixed = ((k > 0) & (k < scores.rollouts.group_size)).nonzero()
    return int(mixed[0]) if len(mixed) else 0


def _rows(scores: Scores, group: int) -> slice:
    if not 0 <= group < len(scores.rollouts.prompts):
        raise RlinoError(f"group {group} of {len(scores.rollouts.prompts)}: count from 0")
    g = scores.rollouts.group_size
    return slice(group * g, (group + 1) * g)


def _pair_html(scores: Scores, a: str, b: str, weights: dict[str, Tensor], group: int) -> str:
    """Two methods on one group: every response's weight under each, their difference, and how the gradients compare."""
    r = scores.rollouts
    rows = _rows(scores, group)
    wa, wb = weights[a], weights[b]  # [N] each
    squares = [scores.product(w, w) for w in (wa, wb)]  # of both gradients' lengths
    factor = (squares[0] / squares[1]) ** 0.5 if min(squares) > 0 else 1.0
    sides = [(1000 * w[rows]).tolist() for w in (wa, factor * wb, wa - factor * wb)]
    limit = colour_limit(sides[0] + sides[1])
    sides = [[0.0 if abs(v) < 1e-9 * limit else v for v in side] for side in sides]
    heads = ("response", "A", f"B × {number(factor, False)}", "A − B")
    lines = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        + "".join(f'<td style="{colour_style(v, "diverging", limit)}">{number(v)}</td>' for v in values)
        + "</tr>"
        for name, *values in zip(sample_names(scores, group), *sides, strict=True)
    )
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    right = int(r.correct[rows].sum())
    return (
        f"<p><strong>{escape_line(r.prompts[group], 80)}</strong>: {right} of {r.group_size} right</p>"
        f"<p>A: {METHODS[a]}. B: {METHODS[b]}. Cosine of the two gradients: "
        f"<strong>{number(scores.cosine(wa, wb, rows), False)}</strong> on this group, "
        f"<strong>{number(scores.cosine(wa, wb), False)}</strong> on the batch of {len(r.prompts)} groups. "
        "Weights of a token, in thousandths:</p>"
        f'<div class="rlino-wide"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
    )


def gradient_microscope(
    scores: Scores, a: str = "grpo_no_kl", b: str = "f_isft_posneg", group: int | None = None,
    firsts: Sequence[str] = ("grpo_no_kl", "dr_grpo"),
) -> Html:  # fmt: skip
    """Two methods on sampled groups: the weights of every response under each, and the cosine of their gradients.

    B is scaled by one factor for the whole batch, so that both gradients are equally long there: a learning rate can
    make up for that factor. A is `a` or one of `firsts`, B any method. It starts at `group`, by default the first with
    right and wrong responses. Raises RlinoError for an unknown method or group.
    """
    group = first_mixed(scores) if group is None else group
    _rows(scores, group)  # raises where there is no such group
    for method in (a, b, *firsts):
        chosen(method, METHODS, "method")
    firsts = list(dict.fromkeys([*firsts, a]))
    seconds = list(METHODS)
    size = scores.rollouts.group_size
    groups = range(len(scores.rollouts.prompts))
    weights = {m: scores.weights(m) for m in seconds}
    pages = {
        (i, j, g): _pair_html(scores, one, other, weights, g)
        for (i, one), (j, other), g in itertools.product(enumerate(firsts), enumerate(seconds), groups)
    }
    texts = {}
    traces: list[Trace] = []
    for g, k in itertools.product(groups, range(size)):
        name = sample_names(scores, g)[k]
        texts[g, k] = f"<p>Response {name}</p>{trace_box(len(traces), f'Response {name}')}"
        traces.append(Trace(scores.tokens[g * size + k]))
    right = scores.rollouts.correct.view(-1, size).sum(1).tolist()
    controls = [
        Control("a", "A", [METHODS[m] for m in firsts], firsts.index(a)),
        Control("b", "B", [METHODS[m] for m in seconds], seconds.index(b), buttons=True),
        Control("group", "Group", [f"{g + 1}: {k} of {size} right" for g, k in enumerate(right)], group, buttons=True),
        Control("response", "Response", [str(k + 1) for k in range(size)], buttons=True),
    ]
    slots = {"pair": Slot(("a", "b", "group"), pages), "text": Slot(("group", "response"), texts)}
    return explorer("Gradient microscope", controls, slots, slot("pair") + slot("text"), traces)
