"""The weights explorer and the gradient microscope (chapter 06): pages as HTML, and controls over them.

The numbers come from `credit` and `token_weights`, so they are those that an optimiser would use at ratio 1.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

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
from rlino_lib.widgets.explorer import Explorer, Menus, explorer, refill
from rlino_lib.widgets.groups import chosen
from rlino_lib.widgets.page import LINES, folds, frame_table, page, sides_svg, svg_html
from rlino_lib.widgets.tokens import Html, escape_line, legend_html, number, token_spans, trace_box

# Methods whose weights follow from one group alone, by their names in menus.
METHODS = {name: text for name, text in LABELS.items() if name != "grpo"}
_METHOD_OPTIONS = [(name, method) for method, name in METHODS.items()]
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


def group_weights(method: str, group_size: int = 8, k: int = 2, lengths: tuple[int, int] = (12, 24)) -> pd.DataFrame:
    """A group of which k are right, as two rows, right and wrong, all responses of a side equally long.

    Columns: count, tokens of a response, advantage, w of a token, and its sums over a response and over the side.
    Raises RlinoError for a group, a k, a length or a method outside what can be shown.
    """
    if not (2 <= group_size <= 64 and 0 <= k <= group_size):
        raise RlinoError(f"{k} right of a group of {group_size}: groups have 2 to 64 responses")
    if not all(1 <= n <= LONGEST for n in lengths):
        raise RlinoError(f"lengths {lengths[0]} and {lengths[1]}: from 1 to {LONGEST} tokens")
    right = torch.arange(group_size) < k  # [G]
    mask = torch.arange(max(lengths)) < torch.where(right, *lengths)[:, None]  # [G, T]
    advantage, weights = batch_weights(method, right.to(F64), group_size, mask, CAP)  # [G], [G, T]
    table = {"count": [k, group_size - k], "tokens": list(lengths)}
    by_response = {"advantage": advantage, "w": weights[:, 0], "response": weights.sum(1)}
    for name, values in by_response.items():
        table[name] = [values[0].item() if k else float("nan"), values[-1].item() if k < group_size else float("nan")]
    table["side"] = [weights[right].sum().item(), weights[~right].sum().item()]
    return pd.DataFrame(table, index=["right", "wrong"])


def side_curves(method: str, group_size: int = 8, lengths: tuple[int, int] = (12, 24)) -> pd.DataFrame:
    """The sum of all weights of each side for every number k right: columns k, p, right, wrong, total."""
    sides = [group_weights(method, group_size, k, lengths)["side"] for k in range(group_size + 1)]
    frame = pd.DataFrame([s.to_dict() for s in sides]).rename_axis("k").reset_index()
    return frame.assign(p=frame["k"] / group_size, total=frame["right"] + frame["wrong"])


def _bars_svg(table: pd.DataFrame) -> str:
    """One response of each side: as wide as it is long, as high as w; the area is the push on the response."""
    top = max(table["w"].abs().fillna(0).max(), 1e-12)
    parts = []
    for (side, row), zero, (colour, *_) in zip(table.iterrows(), (74, 120), LINES, strict=True):
        count = int(row["count"])
        w = row["w"]
        pushes = w == w and w != 0  # a side without responses has no w
        name = f"each of {count} {side}" if count else f"none is {side}"
        push = f": w = {number(w)}, {int(row['tokens'])} tokens" if pushes else ""
        y = zero + 15 if side == "right" else zero - 5
        parts.append(f'<text x="4" y="{y}">{name}{push}</text><path d="M4 {zero}H316" stroke="#8888"/>')
        if pushes:
            height = 56 * abs(w) / top
            width = 6.5 * row["tokens"]
            top_edge, dash = (zero - height, "") if w > 0 else (zero, ' stroke-dasharray="5 3"')
            parts.append(
                f'<rect x="4" y="{top_edge:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}" '
                f'fill-opacity=".45" stroke="{colour}" stroke-width="1.5"{dash}/>'
            )
    alt = "one bar per side, as wide as a response is long and as high as the weight of a token; the table has both"
    return svg_html("".join(parts), 322, 190, alt)


def weights_html(
    method: str = "grpo_no_kl", group_size: int = 8, k: int = 2, right_length: int = 12, wrong_length: int = 24
) -> Html:
    """A method on a group in which k are right: curves over p, the weight of a token, and the sums.

    The bars are as wide as a response is long. Raises RlinoError as `group_weights` does.
    """
    lengths = (right_length, wrong_length)
    table = group_weights(method, group_size, k, lengths)
    curves = side_curves(method, group_size, lengths)
    words = table.map(number).assign(count=table["count"], tokens=table["tokens"])
    words.columns = ["responses", "tokens", "Â", "w of a token", "sum over a response", "sum over the side"]
    total = table["side"].sum()
    total = 0.0 if abs(total) < 1e-12 else total
    text = f"p = {k}/{group_size} = {k / group_size:.3g}. All weights of the group sum to {number(total)}."
    if not table["side"].any():
        text += " From this group the update learns nothing."
    formula = f"<p><code>{html.escape(repr(OBJECTIVES[method]))}</code></p>"
    caption = "sum of w: ● right, solid; ▲ wrong, dashed"
    alt = "sum of the weights of right and of wrong responses against the share right; the table has the chosen one"
    pictures = f'<div class="rlino-pair">{sides_svg(curves.set_index("p"), k / group_size, caption, alt)}'
    pictures += f"{_bars_svg(table)}</div>"
    title = f"<p><strong>{html.escape(METHODS[method])}</strong>, {k} of {group_size} right</p>"
    return page(f"{title}{formula}{pictures}{frame_table(words)}<p>{text}</p>", "Weights explorer")


def static_weights(methods: Sequence[str] = tuple(METHODS), **choice: int) -> Html:
    """The explorer's page of several methods as folds, with no kernel; `choice` as in `weights_html`."""
    return folds((METHODS[chosen(m, METHODS, "method")], weights_html(m, **choice)) for m in methods)


def weights_explorer(
    method: str = "grpo_no_kl", group_size: int = 8, k: int = 2, right_length: int = 12, wrong_length: int = 24
) -> Explorer:
    """Sliders over `weights_html`, at the choices given. Raises RlinoError as `weights_html` does."""
    weights_html(method, group_size, k, right_length, wrong_length)  # raises for what cannot be shown

    def fit(menus: Menus, name: str | None) -> None:
        menus["k"].max = menus["group_size"].value  # a k beyond it moves with it

    return explorer(
        weights_html,
        name="WeightsExplorer()",
        fit=fit,
        method=("Method:", method, _METHOD_OPTIONS),
        group_size=("Group:", group_size, range(2, max(16, group_size) + 1)),
        k=("Right:", k, range(group_size + 1)),
        right_length=("Tokens, right:", right_length, range(1, LONGEST + 1)),
        wrong_length=("Tokens, wrong:", wrong_length, range(1, LONGEST + 1)),
    )


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


def _strip(tokens: list[str], value: float, limit: float, title: str) -> str:
    spans, notes = token_spans(tokens, [value] * len(tokens), limit=limit or None, label="w")
    return f"<p>{escape_line(title)}: {number(value)}</p>{trace_box(spans, notes, title)}"


def microscope_html(
    scores: Scores, a: str = "grpo_no_kl", b: str = "f_isft_posneg", group: int | None = None, sample: int = 0
) -> Html:
    """Two methods on one group: every response's weight under each, their difference, and how the gradients compare.

    B is scaled by one factor for the whole batch, so that both gradients are equally long there: a learning rate can
    make up for that factor. Weights are shown in thousandths. Raises RlinoError for an unknown method, group or sample.
    """
    group = first_mixed(scores) if group is None else group
    rows = _rows(scores, group)
    r = scores.rollouts
    if not 0 <= sample < r.group_size:
        raise RlinoError(f"sample {sample} of {r.group_size}: count from 0")
    wa, wb = scores.weights(a), scores.weights(b)  # [N] each
    squares = [scores.product(w, w) for w in (wa, wb)]  # of both gradients' lengths
    factor = (squares[0] / squares[1]) ** 0.5 if min(squares) > 0 else 1.0
    sides = [(1000 * w[rows]).tolist() for w in (wa, factor * wb, wa - factor * wb)]
    sides = [[0.0 if abs(v) < 1e-9 * max(map(abs, sides[0] + sides[1])) else v for v in side] for side in sides]
    heads = [f"A: {METHODS[a]}", f"B: {METHODS[b]}, × {number(factor, False)}", "A − B"]
    names = sample_names(scores, group)
    words = pd.DataFrame({h: map(number, side) for h, side in zip(heads, sides, strict=True)}, index=names)
    limit = max(map(abs, sides[0] + sides[1]))
    right = int(r.correct[rows].sum())
    text = (
        f"Cosine of the two gradients: {number(scores.cosine(wa, wb, rows), False)} on this group, "
        f"{number(scores.cosine(wa, wb), False)} on the batch of {len(r.prompts)} groups. B is multiplied by "
        f"{number(factor, False)}, one factor for the batch. Weights of a token, in thousandths:"
    )
    tokens = scores.tokens[rows.start + sample]
    strips = "".join(_strip(tokens, side[sample], limit, h) for h, side in zip(heads, sides, strict=True))
    title = f"<p><strong>{escape_line(r.prompts[group], 80)}</strong>: {right} of {r.group_size} right</p>"
    legend = legend_html(sides[0] + sides[1], "diverging", label="w of a token, in thousandths")
    response = f"<p><strong>Response {html.escape(names[sample])}</strong></p>{legend}{strips}"
    return page(f"{title}<p>{text}</p>{frame_table(words, names[sample])}{response}", "Gradient microscope")


PAIRS = (("grpo_no_kl", "f_isft_posneg"), ("grpo_no_kl", "f_isft_pos"), ("grpo_no_kl", "dapo"))


def static_microscope(scores: Scores, pairs: Sequence[tuple[str, str]] = PAIRS, group: int | None = None) -> Html:
    """The microscope's page of several pairs of methods as folds, with no kernel."""
    names = [f"{METHODS[chosen(a, METHODS, 'method')]} and {METHODS[chosen(b, METHODS, 'method')]}" for a, b in pairs]
    return folds(zip(names, (microscope_html(scores, a, b, group) for a, b in pairs), strict=True))


def gradient_microscope(
    scores: Scores, a: str = "grpo_no_kl", b: str = "f_isft_posneg", group: int | None = None
) -> Explorer:
    """Two methods, a group and one of its responses over `microscope_html`. Raises RlinoError as it does."""
    group = first_mixed(scores) if group is None else group
    microscope_html(scores, a, b, group)  # raises for what cannot be shown
    size = scores.rollouts.group_size
    right = scores.rollouts.correct.view(-1, size).sum(1).tolist()

    def samples(group: int) -> list[tuple[str, int]]:
        return [(name.removesuffix(" tokens"), j) for j, name in enumerate(sample_names(scores, group))]

    def fit(menus: Menus, name: str | None) -> None:
        if name == "group":
            refill(menus["sample"], samples(menus["group"].value), 0)

    return explorer(
        partial(microscope_html, scores),
        name="GradientMicroscope()",
        fit=fit,
        a=("A:", a, _METHOD_OPTIONS),
        b=("B:", b, _METHOD_OPTIONS),
        group=("Group:", group, [(f"{j + 1}: {k} of {size} right", j) for j, k in enumerate(right)]),
        sample=("Response:", 0, samples(group)),
    )
