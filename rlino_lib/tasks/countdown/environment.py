"""A calculator for Countdown: the policy writes `19 * 3 =`, and the result is written for it."""

import re

from rlino_lib.tasks.arithmetic import calculate

# As in `arithmetic`: not from the middle of a longer number, a decimal or a chain.
_BEGUN = re.compile(r"(?<![0-9.])(?<![0-9)] [+\-*/] )([0-9]{1,9}) ([+\-*/]) ([0-9]{1,9}) =\Z")


class Calculator:
    """An `Environment` that writes the result after `=`: `Calculator().answer("19 * 3 =") == " 57"`.

    It writes nothing where the result is negative, no integer, or longer than the nine digits that a step may have.
    """

    after = (" =",)

    def answer(self, text: str) -> str:
        match = _BEGUN.search(text[-64:])  # a step is shorter
        result = calculate(int(match[1]), match[2], int(match[3])) if match else None
        return "" if result is None or not 0 <= result < 10**9 else f" {result}"


LOOK, OPENS, CLOSES = " look", " <target>", " </target>"
_SEEN = re.compile(rf"{LOOK}({OPENS} [0-9]{{1,10}}{CLOSES}\n)")


class Look:
    """An `Environment` that writes a target after ` look`: `Look(24).answer(" look") == " <target> 24 </target>\\n"`.

    A text has one target: where one stands after an earlier ` look`, that one is written again. What is there of the
    answer already is not written twice. The line break after the closing delimiter is the environment's too, as the
    ones that R1-Searcher (2503.05592) appends to its documents are: a mask by delimiters leaves it out.
    """

    after = (LOOK,)

    def __init__(self, target: int) -> None:
        self.reply = f"{OPENS} {target}{CLOSES}\n"

    def answer(self, text: str) -> str:
        _, look, begun = text.rpartition(LOOK)
        earlier = _SEEN.search(text)
        reply = earlier[1] if earlier else self.reply
        return reply[len(begun) :] if look and reply.startswith(begun) else ""
