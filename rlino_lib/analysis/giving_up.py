"""How often a Countdown search gives up: the share of failed attempts after which a response ends (chapter 08c).

A mean length has the cap in it, whether truncated responses are counted or left out. This rate has not: an attempt
after which a response was truncated is censored, as in a survival analysis, and leaves the risk set. Under a constant
rate g a search without a hit and without a cap makes 1/g attempts on average.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from rlino_lib.analysis.growth import final_responses
from rlino_lib.errors import RlinoError
from rlino_lib.records.runs import Run


class GivingUp(NamedTuple):
    """Counts over responses: how many attempts failed and were not censored, and what followed them."""

    failed: int  # attempts at risk; after each the response ended or made another attempt
    ended: int  # after how many of them it ended
    false_yes: int  # in how many of those responses a miss was called yes: they ended in error, not in resignation

    @property
    def rate(self) -> float:
        """(ended + ½) / (failed + 1): with half a count on either side a rate of 0 has a logarithm too."""
        return (self.ended + 0.5) / (self.failed + 1)


def giving_up(responses: pd.DataFrame) -> GivingUp:
    """The counts of a frame of recorded Countdown responses (`Run.responses`).

    Whether an attempt failed is what the arithmetic and the grader say, never what the response says of itself. For a
    response of a attempts:

    - with its first hit at attempt h, right, wrong or truncated: h − 1 failed, and another followed each. What it
      writes after a hit is not at risk, even where it overlooked the hit and went on.
    - without a hit, but with a right answer (it slipped in an attempt and not in the answer): a − 1, likewise.
    - without a hit, wrong, ended by itself: a failed, another followed a − 1 of them, and the last ended it, be it with
      a no or with a false yes.
    - without a hit, truncated: a − 1. Nobody knows what would have followed the last.

    The cap is out of it as long as an ending and a further step both fit, or neither does, after every attempt. Of
    three numbers an attempt takes 12 tokens, its first step 5 and an ending 11: so it is at caps of 76, 112 and 304;
    at 152 the twelfth attempt can be seen to go on and not to end, and the rate is a little low there.
    Raises RlinoError where no failed attempt is left, and for responses that are not read as attempts.
    """
    if not {"attempts", "first_hit", "false_yes"} <= set(responses.columns):
        raise RlinoError("giving up is read from responses that are counted in attempts, as those to Countdown are")
    no_hit = responses["first_hit"].isna()
    made = responses["first_hit"].fillna(responses["attempts"]).astype(float)  # up to the first hit
    ended = no_hit & ~responses["correct"] & ~responses["clipped"] & (made > 0)
    failed = (made - 1).clip(lower=0) + ended
    if not failed.sum():
        raise RlinoError("no response goes on or ends after a failed attempt")
    return GivingUp(int(failed.sum()), int(ended.sum()), int((ended & (responses["false_yes"] > 0)).sum()))


def giving_up_rates(runs: Iterable[Run]) -> pd.Series:
    """The rate of each run in its test after training, by seed. Raises RlinoError as `giving_up` does."""
    return pd.Series({run.seed: giving_up(final_responses(run)).rate for run in runs}, dtype=float).sort_index()


def false_yes_share(runs: Iterable[Run]) -> float:
    """Of the failed attempts that ended a response in the tests of these runs, the share in responses with a false yes.

    Training takes away resignation and leaves these, so that where little is left, most of it may be error.
    """
    counts = [giving_up(final_responses(run)) for run in runs]
    return sum(c.false_yes for c in counts) / max(1, sum(c.ended for c in counts))


def log_ratios(one: pd.Series, other: pd.Series) -> pd.Series:
    """log(one / other), seed by seed, on the seeds that both have."""
    return np.log(one / other).dropna()


def share_of_fall(base: float, lowest: pd.Series, other: pd.Series) -> pd.Series:
    """How much of the fall from `base` to `lowest` is absent in `other`, seed by seed, on the scale of logarithms.

    log(other / lowest) / log(base / lowest): 0 where other fell as far, 1 where it did not fall. A factor counts the
    same wherever it stands, as it does for the number of attempts, 1/g. As a difference of rates a fall from 4 % to 1 %
    would hardly count, and the share would be the smaller for it.
    Raises RlinoError where `lowest` did not fall: there is nothing to have a share of.
    """
    fall = np.log(base / lowest)
    if not (fall > 0).all():
        raise RlinoError(f"giving up did not fall: seed {', '.join(map(str, fall.index[~(fall > 0)]))}")
    return (log_ratios(other, lowest) / fall).dropna()
