"""The sentences that word problems are put together from (chapter 02): families, pieces and fillers, as data.

A template is a path through a family: an opening, up to two events, a question (`things-packs-gives-share`). A piece
is a sentence of the question with the lines that it adds to the solution. In a line `[t=t-a]` stands for an equation
and binds its result: `t` is what the story is about, `a` and `b` are numbers drawn from the piece's ranges, `p`, `y`
and `z` are results on the way. `{N}`, `{M}` and `{K}` are people, `{S}`, `{s}` and `{h}` the first one's pronouns.
"""

from __future__ import annotations

from typing import NamedTuple


class Piece(NamedTuple):
    """A sentence, the lines of the solution that it calls for, and the range of each number that it draws."""

    text: str
    lines: tuple[str, ...]
    ranges: dict[str, tuple[int, int]]


def _piece(text: str, *lines: str, **ranges: tuple[int, int]) -> Piece:
    return Piece(text, lines, ranges)


# name: the pronoun as subject and as object
PEOPLE = dict.fromkeys(["Anna", "Ella", "Lily", "Maya", "Nina", "Rosa", "Sara", "Vera"], ("she", "her"))
PEOPLE |= dict.fromkeys(["Ben", "Carl", "Emil", "Jack", "Leo", "Omar", "Paul", "Tom"], ("he", "him"))

_OBJECTS = ["apples", "balls", "beads", "books", "cards", "cookies", "marbles", "pencils", "shells", "stamps", "toys"]
FILLERS = {  # slot: what may fill it; two slots of one story never hold the same
    "o": _OBJECTS,
    "q": _OBJECTS,
    "c": ["bags", "baskets", "jars", "packs"],
    "g": ["hat", "lamp", "cake", "game", "ticket"],
    "w": ["bike", "phone", "camera", "tent"],
}

DISTRACTORS = [  # sentences with a number that does not matter
    "It is {n} degrees outside.",
    "There are {n} people in the park.",
    "The bus has {n} seats.",
    "{N} is {n} years old.",
    "{N} lives in house number {n}.",
]

_THINGS = {
    "open": {
        "has": _piece("{N} has {t} {o}.", t=(12, 60)),
        "packs": _piece("{N} has {a} {c} with {b} {o} in each.", "{N} has [t=a*b] {o}.", a=(2, 9), b=(3, 12)),
        "finds": _piece(
            "{N} finds {a} {o} in the morning and {b} {o} in the evening.",
            "{N} finds [t=a+b] {o}.",
            a=(5, 40),
            b=(5, 40),
        ),
        "dozen": _piece("{N} has {a} dozen {o}.", "{N} has [t=a*12] {o}.", a=(2, 8)),
        "week": _piece("{N} finds {a} {o} a day for a week.", "{N} finds [t=a*7] {o}.", a=(3, 12)),
        "times": _piece(
            "{M} has {a} {o}. {N} has {b} times as many {o} as {M}.", "{N} has [t=a*b] {o}.", a=(3, 12), b=(2, 8)
        ),
        "more": _piece("{M} has {a} {o}. {N} has {b} more {o} than {M}.", "{N} has [t=a+b] {o}.", a=(5, 40), b=(3, 40)),
    },
    "event": {
        "gives": _piece("{N} gives {a} {o} to {K}.", "{S} has [t=t-a] {o} left.", a=(2, 40)),
        "buys": _piece("{N} buys {a} more {o}.", "{S} now has [t=t+a] {o}.", a=(2, 40)),
        "brings": _piece("{K} brings {N} {a} {o}.", "{S} now has [t=t+a] {o}.", a=(2, 40)),
        "packs": _piece(
            "{N} buys {a} boxes of {b} {o}.",
            "The boxes hold [p=a*b] {o}.",
            "{S} now has [t=t+p] {o}.",
            a=(2, 8),
            b=(2, 10),
        ),
        "each": _piece(
            "{N} gives {a} {o} to each of {b} friends.",
            "The friends get [p=a*b] {o}.",
            "{S} has [t=t-p] {o} left.",
            a=(2, 8),
            b=(2, 8),
        ),
        "half": _piece("{N} loses half of the {o}.", "{S} has [t=t/2] {o} left."),
        "twice": _piece("A month later {N} has twice as many {o}.", "{S} now has [t=t*2] {o}."),
    },
    "ask": {
        "now": _piece("How many {o} does {N} have now?"),
        "share": _piece(
            "{N} shares the {o} equally among {a} children. How many {o} does each child get?",
            "Each child gets [t=t/a] {o}.",
            a=(2, 9),
        ),
        "boxes": _piece(
            "{N} puts the {o} into boxes of {a}. How many boxes does {s} fill?", "{S} fills [t=t/a] boxes.", a=(2, 12)
        ),
        "sells": _piece(
            "{N} sells the {o} for {a} dollars each. How many dollars does {s} get?",
            "{S} gets [t=t*a] dollars.",
            a=(2, 6),
        ),
        "wants": _piece(
            "{N} wants to have {a} {o}. How many more {o} does {s} need?", "{S} needs [t=a-t] more {o}.", a=(20, 150)
        ),
    },
}

_MONEY = {
    "open": {
        "has": _piece("{N} has {t} dollars.", t=(20, 90)),
        "works": _piece(
            "{N} works {a} hours for {b} dollars an hour.", "{N} gets [t=a*b] dollars.", a=(2, 9), b=(5, 15)
        ),
        "sells": _piece("{N} sells {a} {o} for {b} dollars each.", "{N} gets [t=a*b] dollars.", a=(3, 12), b=(2, 9)),
        "saves": _piece(
            "{N} saves {a} dollars a week for {b} weeks.", "{N} saves [t=a*b] dollars.", a=(3, 12), b=(3, 9)
        ),
        "week": _piece("{N} saves {a} dollars a day for a week.", "{N} saves [t=a*7] dollars.", a=(3, 15)),
        "two": _piece("{N} has {a} dollars and finds {b} dollars.", "{N} has [t=a+b] dollars.", a=(10, 60), b=(5, 40)),
    },
    "event": {
        "buys": _piece(
            "{S} buys {a} {q} for {b} dollars each.",
            "The {q} cost [p=a*b] dollars.",
            "{S} has [t=t-p] dollars left.",
            a=(2, 8),
            b=(2, 9),
        ),
        "spends": _piece("{S} buys a {g} for {a} dollars.", "{S} has [t=t-a] dollars left.", a=(3, 40)),
        "half": _piece("{S} spends half of the money.", "{S} has [t=t/2] dollars left."),
        "brings": _piece("{K} gives {h} {a} dollars.", "{S} now has [t=t+a] dollars.", a=(3, 40)),
        "works": _piece(
            "{S} works {a} hours for {b} dollars an hour.",
            "{S} gets [p=a*b] dollars.",
            "{S} now has [t=t+p] dollars.",
            a=(2, 6),
            b=(4, 12),
        ),
    },
    "ask": {
        "now": _piece("How many dollars does {N} have now?"),
        "wants": _piece(
            "{S} wants a {w} for {a} dollars. How many more dollars does {s} need?",
            "{S} needs [t=a-t] more dollars.",
            a=(30, 180),
        ),
        "share": _piece(
            "{S} shares the money equally among {a} children. How many dollars does each child get?",
            "Each child gets [t=t/a] dollars.",
            a=(2, 9),
        ),
        "lasts": _piece(
            "{S} spends {a} dollars a day. For how many days is the money enough?",
            "It is enough for [t=t/a] days.",
            a=(2, 12),
        ),
    },
}

_PAGES = {
    "open": {
        "first": _piece("{N} reads {t} pages on Monday.", t=(8, 60)),
        "days": _piece("{N} reads {a} pages a day for {b} days.", "{N} reads [t=a*b] pages.", a=(4, 15), b=(2, 9)),
        "week": _piece("{N} reads {a} pages a day for a week.", "{N} reads [t=a*7] pages.", a=(3, 15)),
        "two": _piece(
            "{N} reads {a} pages in the morning and {b} pages in the evening.",
            "{N} reads [t=a+b] pages.",
            a=(5, 40),
            b=(5, 40),
        ),
    },
    "event": {
        "more": _piece("Then {s} reads {a} more pages.", "Now {s} has read [t=t+a] pages.", a=(3, 40)),
        "hours": _piece(
            "Then {s} reads {a} pages an hour for {b} hours.",
            "Then {s} reads [p=a*b] pages.",
            "Now {s} has read [t=t+p] pages.",
            a=(3, 12),
            b=(2, 6),
        ),
        "twice": _piece(
            "Then {s} reads twice as many pages as before.",
            "Then {s} reads [p=t*2] pages.",
            "Now {s} has read [t=t+p] pages.",
        ),
    },
    "ask": {
        "now": _piece("How many pages does {N} read in all?"),
        "wants": _piece(
            "The book has {a} pages. How many more pages does {s} need to read?",
            "{S} needs to read [t=a-t] more pages.",
            a=(30, 180),
        ),
        "rest": _piece(
            "The book has {a} pages. {S} reads the rest in {b} days. How many pages a day is that?",
            "The rest is [p=a-t] pages.",
            "That is [t=p/b] pages a day.",
            a=(30, 180),
            b=(2, 9),
        ),
    },
}

_MINUTES = {
    "open": {
        "hour": _piece("{N} walks for an hour and {a} minutes.", "{N} walks for [t=60+a] minutes.", a=(5, 50)),
        "hours": _piece(
            "{N} walks for {a} hours and {b} minutes.",
            "The hours are [p=a*60] minutes.",
            "{N} walks for [t=p+b] minutes.",
            a=(2, 2),
            b=(5, 40),
        ),
        "days": _piece(
            "{N} walks {a} minutes a day for {b} days.", "{N} walks for [t=a*b] minutes.", a=(5, 15), b=(2, 9)
        ),
        "week": _piece("{N} walks {a} minutes a day for a week.", "{N} walks for [t=a*7] minutes.", a=(5, 20)),
        "two": _piece(
            "{N} walks {a} minutes in the morning and {b} minutes in the evening.",
            "{N} walks for [t=a+b] minutes.",
            a=(5, 40),
            b=(5, 40),
        ),
    },
    "event": {
        "swims": _piece("Then {s} swims for {a} minutes.", "That is [t=t+a] minutes now.", a=(5, 40)),
        "hour": _piece("Then {s} swims for an hour.", "That is [t=t+60] minutes now."),
        "times": _piece(
            "Then {s} swims {a} times for {b} minutes each.",
            "{S} swims for [p=a*b] minutes.",
            "That is [t=t+p] minutes now.",
            a=(2, 6),
            b=(4, 15),
        ),
    },
    "ask": {
        "now": _piece("How many minutes is that in all?"),
        "wants": _piece(
            "{S} wants to have {a} minutes. How many more minutes does {s} need?",
            "{S} needs [t=a-t] more minutes.",
            a=(60, 200),
        ),
        "half": _piece("{K} needs half of that. How many minutes does {K} need?", "{K} needs [t=t/2] minutes."),
        "fewer": _piece(
            "{K} needs {a} fewer minutes. How many minutes does {K} need?", "{K} needs [t=t-a] minutes.", a=(5, 50)
        ),
    },
}

_FARM = {
    "open": {
        "rows": _piece("A farm has {a} rows of {b} trees.", "The farm has [t=a*b] trees.", a=(3, 9), b=(4, 12)),
        "fields": _piece(
            "A farm has {a} trees in a field and {b} trees in a garden.",
            "The farm has [t=a+b] trees.",
            a=(10, 60),
            b=(5, 40),
        ),
        "dozen": _piece("A farm has {a} dozen trees.", "The farm has [t=a*12] trees.", a=(2, 8)),
    },
    "event": {
        "falls": _piece("In a storm {a} trees fall.", "There are [t=t-a] trees left.", a=(2, 40)),
        "half": _piece("In a storm half of the trees fall.", "There are [t=t/2] trees left."),
        "plants": _piece("The farm gets {a} more trees.", "There are [t=t+a] trees now.", a=(2, 40)),
        "rows": _piece(
            "The farm gets {a} more rows of {b} trees.",
            "The rows have [p=a*b] trees.",
            "There are [t=t+p] trees now.",
            a=(2, 6),
            b=(3, 9),
        ),
    },
    "ask": {
        "now": _piece("How many trees does the farm have now?"),
        "each": _piece(
            "It takes {a} minutes to cut each tree. How many minutes does it take in all?",
            "It takes [t=t*a] minutes.",
            a=(2, 6),
        ),
        "share": _piece(
            "The trees are shared equally among {a} children. How many trees does each child get?",
            "Each child gets [t=t/a] trees.",
            a=(2, 9),
        ),
        "wants": _piece(
            "The farm wants to have {a} trees. How many more trees does it need?",
            "It needs [t=a-t] more trees.",
            a=(30, 180),
        ),
    },
}


def _relations(second: str, first: str, y: str, x: str) -> dict[str, Piece]:
    """What one person has, told by what another has."""
    has = f"{second} has"
    return {
        "times": _piece(f"{has} {{a}} times as many {{o}} as {first}.", f"{has} [{y}={x}*a] {{o}}.", a=(2, 5)),
        "more": _piece(f"{has} {{a}} more {{o}} than {first}.", f"{has} [{y}={x}+a] {{o}}.", a=(2, 30)),
        "fewer": _piece(f"{has} {{a}} fewer {{o}} than {first}.", f"{has} [{y}={x}-a] {{o}}.", a=(2, 20)),
        "half": _piece(f"{has} half as many {{o}} as {first}.", f"{has} [{y}={x}/2] {{o}}."),
    }


_OWNS = {name: _THINGS["open"][name] for name in ("packs", "dozen")} | {"has": _piece("{N} has {t} {o}.", t=(4, 40))}
_TWO = {
    "open": _OWNS,
    "second": _relations("{M}", "{N}", "y", "t"),
    "ask": {
        "both": _piece("How many {o} do they have in all?", "In all they have [t=t+y] {o}."),
        "share": _piece(
            "They share all {o} equally among {a} children. How many {o} does each child get?",
            "In all they have [p=t+y] {o}.",
            "Each child gets [t=p/a] {o}.",
            a=(2, 9),
        ),
        "wants": _piece(
            "They want to have {a} {o}. How many more {o} do they need?",
            "In all they have [p=t+y] {o}.",
            "They need [t=a-p] more {o}.",
            a=(20, 180),
        ),
    },
}
_THREE = {
    "open": _OWNS,
    "second": _relations("{M}", "{N}", "y", "t"),
    "third": _relations("{K}", "{M}", "z", "y"),
    "ask": {
        "last": _piece("How many {o} does {K} have?"),
        "ends": _piece("How many {o} do {N} and {K} have in all?", "In all they have [t=t+z] {o}."),
        "all": _piece(
            "How many {o} do they have in all?", "{N} and {M} have [p=t+y] {o}.", "In all they have [t=p+z] {o}."
        ),
    },
}  # fmt: skip

FAMILIES = {
    "things": _THINGS, "money": _MONEY, "pages": _PAGES, "minutes": _MINUTES, "farm": _FARM, "two": _TWO,
    "three": _THREE,
}  # fmt: skip
