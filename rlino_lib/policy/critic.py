"""A critic: the value of the state before each token of a response, by a linear head on a transformer (chapter 10)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rlino_lib.errors import RlinoError
from rlino_lib.folders import replacing
from rlino_lib.policy.logprobs import padded_inputs
from rlino_lib.policy.rollouts import Rollouts


class Critic(nn.Module):
    """V of a state, from the last hidden state at the token before: a linear head, which starts at 0.

    Its trunk is a copy of the policy's that learns with it, as verl and VinePPO have it. Or it is the policy's own
    (`trunk="policy"`): then the head alone learns, on hidden states that only the policy's loss moves.
    """

    def __init__(self, model: Any, trunk: str = "copy") -> None:
        super().__init__()
        decoder = getattr(model, "get_base_model", lambda: model)().get_decoder()
        self.own = copy.deepcopy(decoder).requires_grad_(True) if trunk == "copy" else None
        self._shared = None if self.own is not None else [decoder]  # in a list: its weights are not the critic's
        weight = next(decoder.parameters())
        self.head = nn.Linear(model.config.hidden_size, 1, device=weight.device, dtype=weight.dtype)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, rollouts: Rollouts, rows: torch.Tensor) -> torch.Tensor:
        """Values [B, T'] of some rows, T' the longest of them: of the state before each token, whoever writes it."""
        trunk = self.own if self._shared is None else self._shared[0]
        inputs, width = padded_inputs(rollouts, rows, self.head.weight.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.own is not None):
            hidden = trunk(**inputs).last_hidden_state  # [B, L, H]
        return self.head(hidden[:, -width - 1 : -1])[..., 0]  # [B, T']


def save_critic(critic: Critic, file: str | Path) -> None:
    """Write the weights of a critic, without those of a trunk that is the policy's (safetensors)."""
    with replacing(Path(file)) as part:
        save_file({name: weight.contiguous() for name, weight in critic.state_dict().items()}, str(part))


def load_critic(file: str | Path, model: Any) -> Critic:
    """The critic of a policy's model from the file of `save_critic`; raises RlinoError where it does not fit."""
    try:
        weights = load_file(str(file))
        critic = Critic(model, "copy" if any(name.startswith("own.") for name in weights) else "policy")
        critic.load_state_dict(weights)
    except Exception as e:  # of the file system, the format, or of weights that do not fit
        raise RlinoError(f"cannot load a critic from {file}: {str(e).strip().splitlines()[0]}") from e
    return critic.eval()
