"""The weights explorer and the gradient microscope (chapter 06): two methods side by side.

The numbers come from `credit` and `token_weights`, so they are those that an optimiser would use at ratio 1.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Sequence

import pandas as pd
from torch import Tensor

from rlino_lib.errors import chosen
from rlino_lib.evaluation.scores import Scores, first_mixed, rows_of, sample_names
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.groups import METHODS, Side, sides_of
from rlino_lib.widgets.page import LINES, Boxes, Control, Slot, Trace, explorer, frame_table, sides_svg, slot, wide
from rlino_lib.widgets.tokens import Html, colour_limit, colour_style, escape_line, number

# --- the explorer: a group in four numbers ---------------------------------------------------------------------------

GROUPS = (2, 4, 8)  # sizes of the explorer's groups
LENGTHS = (8, 16, 32)  # tokens of its responses
SHARES = tuple(k / 8 for k in range(9))


def _row_html(side: str, row: Side, top: float) -> str:
    """A side as a row of a table; the bar is as long as a response and as high as the weight of a token, of `top`."""
    numbers = [number(row[name]) for name in ("advantage", "w", "response", "side")]
    cells = [str(int(row["count"])), str(int(row["tokens"])), *numbers]
    colour, _, sign = LINES[int(row["w"] < 0)]
    height = 0 if math.isnan(row["w"]) else 40 * abs(row["w"]) / top
    size = f"width:{3 * row['tokens']:.0f}px;height:{height:.0f}px;background:{colour}"
    bar = f'<span class="rlino-bar" style="{size}"></span>{"below 0" if row["w"] < 0 else ""}' if height else "–"
    return f'<th scope="row">{sign if height else ""} {side}</th>' + "".join(f"<td>{c}</td>" for c in [bar, *cells])


def _weight_slots(methods: Sequence[str]) -> dict[str, dict[tuple, str]]:
    """What the explorer shows of each method, group size, share right and pair of lengths."""
    curves: dict[tuple, str] = {}
    rows: dict[str, dict[tuple, str]] = {"right": {}, "wrong": {}, "all": {}}
    caption = "sum of w over a side against p: ● right, solid; ▲ wrong, dashed"
    for method, size in itertools.product(methods, GROUPS):
        counts = range(size + 1)
        tables: dict[tuple, dict[str, Side]] = {
            (k, right, wrong): sides_of(method, size, k, (right, wrong))
            for k, right, wrong in itertools.product(counts, LENGTHS, LENGTHS)
        }
        alt = f"{METHODS[method]}: sum of the weights of right and of wrong responses against the share right"
        for lengths in itertools.product(LENGTHS, repeat=2):
            sides = [{side: row["side"] for side, row in tables[k, *lengths].items()} for k in counts]
            curve = pd.DataFrame(sides, index=[k / size for k in counts])
            curves[method, size, *lengths] = sides_svg(curve, caption, html.escape(alt))
        for (k, right, wrong), table in tables.items():
            same = (row["w"] for (other, *_), t in tables.items() if other == k for row in t.values())
            top = colour_limit(same) or 1.0
            place = method, size, k / size, right, wrong
            for side, row in table.items():
                rows[side][place] = _row_html(side, row, top)
            total = sum(row["side"] for row in table.values())
            text = f"sum over the group: {number(0.0 if abs(total) < 1e-12 else total)}"
            if not any(row["side"] for row in table.values()):
                text += "; from this group the update learns nothing"
            rows["all"][place] = f'<td colspan="8">{text}</td>'
    return {"curve": curves, **rows}


def weights_explorer(methods: Sequence[str] = tuple(METHODS)) -> Html:
    """Two methods side by side on a group: its size, the share right p, and how long right and wrong responses are.

    For each method the weight of a token and its sums, bars as wide as a response is long, and a curve over p. Raises
    RlinoError for an unknown method.
    """
    views = _weight_slots(methods)
    names = {m: METHODS[m] for m in methods}
    lengths = {n: f"{n} tokens" for n in LENGTHS}
    shares = {p: f"p = {p:g}" for p in SHARES}
    controls = [
        Control("a", "A", names, "grpo_no_kl", buttons=True),
        Control("b", "B", names, "dr_grpo", buttons=True),
        Control("size", "Group", {g: f"G = {g}" for g in GROUPS}, 8),
        Control("p", "Share right", shares, 0.25, "slider", nearest=True),
        Control("right", "Right ones", lengths, LENGTHS[1], "slider"),
        Control("wrong", "Wrong ones", lengths, LENGTHS[1], "slider"),
    ]
    places = {(p,): f'<span style="left:{60 + 250 * p:.0f}px"></span>' for p in SHARES}
    columns = ("side", "w × |o|", "count", "tokens", "Â", "w of a token", "of a response", "of the side")
    head = "".join(f'<th scope="col">{text}</th>' for text in columns)
    slots: dict[str, Slot] = {}
    halves = []
    for x in ("a", "b"):
        by = (x, "size", "p", "right", "wrong")
        slots |= {f"{name}_{x}": (by, views[name]) for name in ("right", "wrong", "all")}
        slots |= {f"curve_{x}": ((x, "size", "right", "wrong"), views["curve"]), f"p_{x}": (("p",), places)}
        formulas = {m: html.escape(repr(OBJECTIVES[m])) for m in methods}
        heads = {(m,): f"{x.upper()}: <strong>{names[m]}</strong><br><code>{formulas[m]}</code>" for m in methods}
        slots[f"name_{x}"] = ((x,), heads)
        rows = "".join(slot(f"{name}_{x}", "tr") for name in ("right", "wrong", "all"))
        halves.append(
            f"<div>{slot(f'name_{x}', 'p')}"
            f'<div class="rlino-at">{slot(f"curve_{x}")}<div class="rlino-places">{slot(f"p_{x}")}</div></div>'
            f"{wide(head, rows)}</div>"
        )
    return explorer("Weights explorer", controls, slots, f'<div class="rlino-two">{"".join(halves)}</div>')


def _pair_html(scores: Scores, a: str, b: str, weights: dict[str, Tensor], group: int) -> str:
    """Two methods on one group: every response's weight under each, their difference, and how the gradients compare."""
    r = scores.rollouts
    rows = rows_of(scores, group)
    wa = weights[a]  # [N]
    wb = weights[b]  # [N]
    factor = scores.factor(wa, wb)
    sides = [(1000 * w[rows]).tolist() for w in (wa, factor * wb, wa - factor * wb)]
    limit = colour_limit(sides[0] + sides[1])
    sides = [[0.0 if abs(v) < 1e-9 * limit else v for v in side] for side in sides]
    names = pd.Index(sample_names(scores, group), name="response")
    frame = pd.DataFrame(dict(zip(("A", f"B × {number(factor, False)}", "A − B"), sides, strict=True)), names)
    table = frame_table(frame.map(number), styles=frame.map(lambda v: colour_style(v, "diverging", limit)))
    right = int(r.correct[rows].sum())
    return (
        f"<p><strong>{escape_line(r.prompts[group], 80)}</strong>: {right} of {r.group_size} right</p>"
        f"<p>A: {METHODS[a]}. B: {METHODS[b]}. Cosine of the two gradients: "
        f"<strong>{number(scores.cosine(wa, wb, rows), False)}</strong> on this group, "
        f"<strong>{number(scores.cosine(wa, wb), False)}</strong> on the batch of {len(r.prompts)} groups. "
        f"Weights of a token, in thousandths:</p>{table}"
    )


def gradient_microscope(
    scores: Scores, a: str = "grpo_no_kl", b: str = "f_isft_posneg", firsts: Sequence[str] = ("grpo_no_kl", "dr_grpo")
) -> Html:
    """Two methods on sampled groups: the weights of every response under each, and the cosine of their gradients.

    B is scaled by one factor for the whole batch, so that both gradients are equally long there: a learning rate can
    make up for that factor. A is `a` or one of `firsts`, B any method. It starts at the first group with right and
    wrong responses. Raises RlinoError for an unknown method.
    """
    firsts = [chosen(method, METHODS, "method") for method in dict.fromkeys([*firsts, a])]
    size = scores.rollouts.group_size
    groups = range(len(scores.rollouts.prompts))
    weights = {m: scores.weights(m) for m in METHODS}
    pages = {
        (one, other, g): _pair_html(scores, one, other, weights, g)
        for one, other, g in itertools.product(firsts, METHODS, groups)
    }
    texts = {}
    boxes = Boxes()
    for g, k in itertools.product(groups, range(size)):
        name = sample_names(scores, g)[k]
        texts[g, k] = f"<p>Response {name}</p>{boxes.add(Trace(scores.tokens[g * size + k]), f'Response {name}')}"
    right = scores.rollouts.correct.view(-1, size).sum(1).tolist()
    names = {g: f"{g + 1}: {k} of {size} right" for g, k in enumerate(right)}
    controls = [
        Control("a", "A", {m: METHODS[m] for m in firsts}, a),
        Control("b", "B", METHODS, chosen(b, METHODS, "method"), buttons=True),
        Control("group", "Group", names, first_mixed(scores), buttons=True),
        Control("response", "Response", {k: str(k + 1) for k in range(size)}, buttons=True),
    ]
    slots: dict[str, Slot] = {"pair": (("a", "b", "group"), pages), "text": (("group", "response"), texts)}
    return explorer("Gradient microscope", controls, slots, slot("pair") + slot("text"), boxes.traces)
