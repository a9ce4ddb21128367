"""How far a batch of samples has gone stale: measured before some of its updates, for chapter 06.

A probe reads and never trains. It compares, at the current weights, the gradient of the clipped objective with that of
plain weighted likelihood (the same advantages, no ratio) and with that of balanced F-ISFT⁺⁻.
"""

from collections.abc import Callable
from typing import Any

import torch

from rlino_lib.methods.advantages import advantages
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.loss import Batch, policy_loss
from rlino_lib.methods.objective import Objective
from rlino_lib.policy.rollouts import Rollouts

CLIPPED = OBJECTIVES["grpo_no_kl"]
COMPARED = {
    "clipped": CLIPPED,
    "plain": Objective("plain", CLIPPED.advantage, ratio="none", clip_low=None, clip_high=None),
    "f_isft": OBJECTIVES["f_isft_posneg"],
}
MEASURES = (
    "ratio/outside", "clip_ratio", "kl/sampler",
    "cosine/plain", "norm_ratio/plain", "cosine/f_isft", "norm_ratio/f_isft",
)  # fmt: skip
QUANTILES = {"q01": 0.01, "q05": 0.05, "q50": 0.5, "q95": 0.95, "q99": 0.99}


def is_probed(update: int) -> bool:
    """Whether an update of a batch (from 1) is measured: the powers of two."""
    return update & (update - 1) == 0


def probe(
    logprobs_of: Callable[[torch.Tensor], tuple[torch.Tensor, ...]], parameters: list[torch.nn.Parameter],
    rollouts: Rollouts, micro_batch: int,
) -> dict[str, Any]:  # fmt: skip
    """Ratios to the sampler, share clipped, KL to the sampler, and two comparisons of gradients.

    `logprobs_of(rows)` gives log-probs with gradient and mask, both [B, T'], of rows of the rollouts. Groups without
    contrast weigh nothing in any of the three gradients and are left out; with none left every number is None.
    """
    by_rule = {
        rule: advantages(rollouts.rewards, rollouts.group_size, rule) for rule in (CLIPPED.advantage, "group_balanced")
    }  # [N] each
    rows = by_rule[CLIPPED.advantage].nonzero()[:, 0]
    rows = rows[rollouts.lengths[rows].argsort(stable=True)]
    if not len(rows):
        return dict.fromkeys([*(f"ratio/{q}" for q in QUANTILES), *MEASURES])
    gradients = {name: [torch.zeros_like(p) for p in parameters] for name in COMPARED}
    log_ratios, clipped = [], 0.0
    for part in rows.split(micro_batch):
        new, mask = logprobs_of(part)  # [B, T'] each
        old = rollouts.logprobs[part, : new.shape[1]].to(new)  # [B, T']
        log_ratios.append((new.detach() - old)[mask])
        for name, objective in COMPARED.items():
            loss = policy_loss(objective, Batch(new, by_rule[objective.advantage][part].to(new), mask, old))
            of_part = torch.autograd.grad(loss.loss * len(part), parameters, retain_graph=True, materialize_grads=True)
            for total, gradient in zip(gradients[name], of_part, strict=True):
                total += gradient
            clipped += loss.metrics.get("clip_ratio", 0.0) * int(mask.sum())
    gaps = torch.cat(log_ratios).double()  # [tokens], log π − log π_old
    flat = {name: torch.cat([g.flatten() for g in whole]).double() for name, whole in gradients.items()}
    out = {f"ratio/{name}": gaps.quantile(q).exp().item() for name, q in QUANTILES.items()}
    out["ratio/outside"] = ((gaps.exp() - 1).abs() > 0.2).double().mean().item()
    out["clip_ratio"] = clipped / len(gaps)
    out["kl/sampler"] = (gaps.exp() - 1 - gaps).mean().item()
    for name in ("plain", "f_isft"):
        out[f"cosine/{name}"] = torch.cosine_similarity(flat["clipped"], flat[name], dim=0).item()
        out[f"norm_ratio/{name}"] = (flat["clipped"].norm() / flat[name].norm()).item()
    return out
