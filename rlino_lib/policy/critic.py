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
from rlino_lib.policy.fused import base_model
from rlino_lib.policy.logprobs import padded_inputs
from rlino_lib.policy.rollouts import Rollouts


class Critic(nn.Module):
    """V of a state, from the last hidden state at the token before: a linear head, which starts at 0.

    Its trunk is a copy of the policy's that learns with it, as verl and VinePPO have it.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        decoder = base_model(model).get_decoder()
        self.own = copy.deepcopy(decoder).requires_grad_(True)
        weight = next(decoder.parameters())
        self.head = nn.Linear(model.config.hidden_size, 1, device=weight.device, dtype=weight.dtype)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, rollouts: Rollouts, rows: torch.Tensor) -> torch.Tensor:
        """Values [B, T'] of some rows, T' the longest of them: of the state before each token, whoever writes it."""
        inputs, width = padded_inputs(rollouts, rows, self.head.weight.device)
        hidden = self.own(**inputs).last_hidden_state  # [B, L, H]
        return self.head(hidden[:, -width - 1 : -1])[..., 0]  # [B, T']


def save_critic(critic: Critic, file: str | Path) -> None:
    """Write the weights of a critic (safetensors)."""
    with replacing(Path(file)) as part:
        save_file({name: weight.contiguous() for name, weight in critic.state_dict().items()}, str(part))


def load_critic(file: str | Path, model: Any) -> Critic:
    """The critic of a policy's model from the file of `save_critic`; raises RlinoError where it does not fit."""
    try:
        critic = Critic(model)
        critic.load_state_dict(load_file(str(file)))
    except Exception as e:  # of the file system, the format, or of weights that do not fit
        raise RlinoError(f"cannot load a critic from {file}: {str(e).strip().splitlines()[0]}") from e
    return critic.eval()
