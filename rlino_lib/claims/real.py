"""Evidence from public records of real models (chapter 13): one run, with prompts as the sample.

Bins, visits and thresholds stand in `data/claims.toml`. Nothing here has looked at a gain yet.
"""

from __future__ import annotations

from rlino_lib.claims.ledger import Claim, Evidence, NotTestable, Records, evidence

_NOT_YET = "the thresholds are set, and the record has not been looked at"


@evidence
def gains_in_the_order_of_weights(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: bins of prompts gain in the order of the weights √(p(1−p)) that GRPO gave them."""
    raise NotTestable(_NOT_YET)


@evidence
def gains_know_no_side(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: hard and easy prompts of equal weight gain equally."""
    raise NotTestable(_NOT_YET)


@evidence
def log_odds_move_as_weights(claim: Claim, records: Records) -> Evidence:
    """Hypothesis: from the first visits to the last, log-odds move as √(p(1−p)), rather than by the same amount."""
    raise NotTestable(_NOT_YET)
