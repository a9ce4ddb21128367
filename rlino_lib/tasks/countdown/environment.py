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
