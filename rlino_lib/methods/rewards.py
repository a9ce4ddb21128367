"""What is added to the verifier's reward before advantages are taken (chapters 04 and 08)."""

from __future__ import annotations

import torch


def overlong_penalty(lengths: torch.Tensor, max_response_length: int, share: float) -> torch.Tensor:
    """DAPO's soft punishment [N] (2503.14476 eq. 13) of response lengths [N]: 0 up to L_max − L_c, then down to −1.

    L_c is `share` of L_max (the paper: 4096 of 20480). float64.
    """
    buffer = share * max_response_length
    return ((max_response_length - buffer - lengths.double()) / buffer).clamp(-1, 0)  # [N]
