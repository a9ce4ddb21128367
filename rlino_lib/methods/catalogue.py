"""The table of methods, each a row of choices (chapters 04 and 06), and where the library differs from TRL."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from rlino_lib.errors import RlinoError, chosen
from rlino_lib.methods.objective import NO_CLIP, Objective
from rlino_lib.methods.preference import PREFERENCES
from rlino_lib.settings import as_tuples, check_names

# --- the named methods -----------------------------------------------------------------------------------------------

_LIKELIHOOD: dict[str, Any] = dict(ratio="none", **NO_CLIP)
_SFT: dict[str, Any] = dict(**_LIKELIHOOD, update="supervised")
_BY_VALUES: dict[str, Any] = dict(advantage="reward", credit="gae", normaliser="token_mean")
_PAIRS: dict[str, Any] = dict(advantage="signed", **_LIKELIHOOD, normaliser="token_sum", update="preference")
_F_ISFT = "2505.13697: filtered iterative supervised fine-tuning"
_MINIMAL = "2504.11343 §2; batches of "
_NSR = "2506.01347 §2; ratio, clip and token mean as its code on verl has them"

_ROWS = (
    Objective("grpo", beta=0.04, source="DeepSeekMath 2402.03300 eq. 3, with its β"),
    Objective("grpo_no_kl", source="2402.03300 eq. 3 at β = 0; GRPO-wo-KL of 2505.13697"),
    Objective("grpo_no_clip", **NO_CLIP, source="2402.03300 eq. 3 at β = 0 without the min"),
    Objective(
        "grpo_entropy", entropy_bonus=0.01,
        source="2402.03300 eq. 3 at β = 0 with the entropy bonus of PPO, 1707.06347 eq. 9, and its 0.01 on Atari",
    ),
    Objective("clip_higher", clip_high=0.28, source="DAPO 2503.14476 §3.1, the wider upper clip alone"),
    Objective("bnpo", normaliser="micro_token_mean", source="TRL's loss_type bnpo: a token mean of each micro-batch"),
    Objective("dr_grpo", advantage="mean", normaliser="constant", source="2503.20783 §3.2; β = 0"),
    Objective(
        "dapo", clip_high=0.28, normaliser="token_mean", filter="mixed", overlong=0.2,
        source="2503.14476 eq. 8, penalty eq. 13 with its 4096 of 20480 tokens",
    ),
    Objective(
        "luspo", ratio="sequence", clip_low=2e-3, clip_high=2.5e-3, normaliser="token_sum",
        source="2602.05261; clip of its §5.1",
    ),
    Objective("gspo", ratio="sequence", clip_low=3e-4, clip_high=4e-4, source="2507.18071 eq. 5 and 7; clip of §5.1"),
    Objective(
        "cispo", surrogate="cispo", clip_low=None, clip_high=4.0, normaliser="token_mean",
        source="MiniMax-M1 2506.13585; the cap of 5 is that of ScaleRL, 2510.13786",
    ),
    Objective("sapo", surrogate="sapo", **NO_CLIP, source="2511.20347; τ as there"),
    Objective(
        "rloo", advantage="leave_one_out", ratio="trajectory", kl_in_reward=0.05,
        source="2402.14740; ratio, clip 0.2 and β = 0.05 as TRL's RLOOTrainer has them",
    ),
    Objective(
        "reinforce_pp", advantage="batch_zscore", kl_in_reward=0.01, reward_to_go=True,
        source="2501.03262; β = 0.01 as OpenRLHF's script has it",
    ),
    Objective(
        "reinforce_pp_baseline", advantage="group_batch_zscore", beta=1e-3, kl="k2",
        source="2501.03262, the variant with baseline; k2 and β = 0.001 as OpenRLHF's script has them",
    ),
    Objective(
        "optimal_baseline", advantage="reward", credit="optimal_baseline", normaliser="token_mean",
        source="RLOO's leave-one-out with verl's optimal_token_baseline, token by token",
    ),
    Objective(
        "grpo_lambda", credit="decay", lam=0.99,
        source="GRPO-λ 2510.00194, its recent trace, on 2402.03300 eq. 3 at β = 0",
    ),
    Objective(
        "ppo", values="critic", cuts="tokens", lam=0.95, critic_lam=0.95, update="critic", **_BY_VALUES, whiten=True,
        source="1707.06347 with GAE, 1506.02438; λ, value clip and whitening as TRL's PPO has them, without its KL",
    ),
    Objective(
        "vc_ppo", values="critic", cuts="tokens", lam=0.95, update="critic", **_BY_VALUES, whiten=True,
        source="VC-PPO 2503.01491: ppo whose critic learns with λ = 1; its warm-up is the run's critic_warmup",
    ),
    Objective(
        "vineppo", values="continuations", lam=0.0, beta=1e-4, **_BY_VALUES, whiten=True,
        source="VinePPO 2410.01679 eq. 5; K, KL and whitening as its code has them",
    ),
    Objective(
        "spo_chain", values="continuations", cuts="unlikely", unlikely=0.9, lam=0.0, **_BY_VALUES, whiten=True,
        source="SPO-chain 2505.23564; cuts, mask and K as its code has them",
    ),
    Objective(
        "step_verifier", values="exact", lam=0.0, **_BY_VALUES,
        source="VinePPO's credit with the task's exact values: an upper bound that no real task has",
    ),
    Objective(
        "nft", advantage="mean", surrogate="nft", **NO_CLIP, normaliser="constant", filter="mixed",
        source="NFT 2505.18116; prompt weight 1 − r, bound 1 and constant length as its code has them",
    ),
    Objective(
        "ibro", entropy_by_advantage=0.005,
        source="IBRO 2507.18391 on 2402.03300 eq. 3 at β = 0; its α is not published, 0.005 is ours",
    ),
    Objective(
        "clip_cov", clip_low=1.0, clip_high=1.0, normaliser="token_mean", covariant="clip",
        source="Clip-Cov 2505.22617 §4; share, bounds and wide clip as its code has them",
    ),
    Objective(
        "kl_cov", **NO_CLIP, normaliser="token_mean", covariant="kl", covariant_share=2e-3,
        source="KL-Cov 2505.22617 §4; share as its script for 7B has it, and no clip",
    ),
    Objective("iterative_dpo", **_PAIRS, preference="dpo", source="DPO 2305.18290 eq. 7 in rounds, 2503.12854"),
    Objective("ipo", **_PAIRS, preference="ipo", source="2310.12036 eq. 17, by token as TRL has it; pairs as above"),
    Objective("kto", **_PAIRS, preference="kto", source="2402.01306 eq. 7, both weights 1; z₀ as TRL has it"),
    Objective("raft", advantage="positive", **_LIKELIHOOD, filter="right", source=_MINIMAL + "right responses"),
    Objective("raft_pp", advantage="positive", filter="right", source=_MINIMAL + "right responses, ratio and clip"),
    Objective("reinforce_rej", advantage="signed", filter="mixed", source=_MINIMAL + "mixed groups; rewards ±1"),
    Objective(
        "best_of_group", advantage="best", **_LIKELIHOOD,
        source="SFT-Sharpening, 2412.01951 §3.1, where the reward is log_likelihood; best-of-N SFT by any other",
    ),
    Objective("psr", advantage="positive", normaliser="token_mean", source=_NSR),
    Objective("nsr", advantage="negative", normaliser="token_mean", source=_NSR),
    Objective("w_reinforce", advantage="weighted", options={"weight": 0.1}, normaliser="token_mean", source=_NSR),
    Objective("f_isft_pos", advantage="positive", **_SFT, source=_F_ISFT),
    Objective("f_isft_neg", advantage="negative", **_SFT, source=_F_ISFT),
    Objective("f_isft_posneg", advantage="group_balanced", **_SFT, source=_F_ISFT + ", both sides balanced"),
    Objective("f_isft_posneg_unit", advantage="signed", **_SFT, source=_F_ISFT + ", both sides, weight 1"),
)  # fmt: skip

OBJECTIVES: dict[str, Objective] = {o.name: o for o in _ROWS}
GRPO, GRPO_NO_KL = OBJECTIVES["grpo"], OBJECTIVES["grpo_no_kl"]


# Choices that few rows read, and which those are.
READ_BY: dict[str, Callable[[Objective], bool]] = {
    "gamma": lambda o: o.credit in ("gae", "decay"),
    "lam": lambda o: o.credit in ("gae", "decay"),
    "value_samples": lambda o: o.values == "continuations",
    "critic_lam": lambda o: o.values == "critic",
    "value_clip": lambda o: o.values == "critic",
    "covariant_share": lambda o: o.covariant is not None,
    "covariant_cost": lambda o: o.covariant == "kl",
    "preference_beta": lambda o: o.preference is not None,
    "pairing": lambda o: o.preference is not None and PREFERENCES[o.preference].paired,
}
# What an update on preferences reads beside them: its pairs are of verdicts, whatever credit a row has.
BESIDE_PREFERENCES = (
    "update", "preference", "preference_beta", "pairing", "ratio", "normaliser",
    "entropy_bonus", "entropy_by_advantage",
)  # fmt: skip


def varied(name: str, settings: Mapping[str, Any]) -> Objective:
    """A named method with some of its choices changed: `varied("grpo", {"normaliser": "constant"})`.

    Raises RlinoError for an unknown method or choice, for one that the row does not read, and for a
    kind of update that cannot make the step.
    """
    chosen(name, OBJECTIVES, "method")
    check_names(settings, [f.name for f in fields(Objective) if f.name not in ("name", "source")], "an objective")
    row = replace(OBJECTIVES[name], **as_tuples(settings))
    unread = [choice for choice in settings if choice in READ_BY and not READ_BY[choice](row)]
    unread += [choice for choice in settings if row.preference and choice not in BESIDE_PREFERENCES]
    if unread:
        raise RlinoError(f"objective {name}: nothing in it reads {unread[0]}: leave it out")
    if "update" in settings and row.kind != row.update:
        raise RlinoError(f"objective {name}: an update by {row.update} cannot make the step of these choices")
    return row


# Where the library differs from TRL 1.16 on purpose: what, TRL, here, why.
DIFFERENCES: tuple[tuple[str, str, str, str], ...] = (
    ("far log-ratios", "exp of any log-ratio", "cut at ±20 first, no gradient beyond", "exp overflows float32 past 88"),
    ("KL times the ratio", "on by default", "off unless kl_correction", "the papers' k3 has no such factor"),
    ("token mean, several updates per batch", "tokens of the whole batch over the updates", "tokens of each update",
     "an update is a mean of its own tokens"),
    ("temperatures of sapo", "rounded to float32", "in the dtype of the loss", "float64 stays float64"),
    ("correction of the sample std", "G/(G − 1) rounded to float32", "in the dtype of the rewards", "as above"),
    ("cap of cispo", "epsilon_high is the cap", "the cap is 1 + clip_high", "one meaning of clip_high in every row"),
    ("entropy bonus", "a token mean, whatever the loss divides by", "divided as the gain is", "one bracket, one mean"),
    ("KL estimator", "k3; RLOO k1", "k1, k2 or k3", "REINFORCE++ with baseline has k2"),
    ("accumulation", "each loss over the number of micro-batches", "times micro_share", "exact for unequal ones too"),
    ("rewards that are not finite", "None counts as advantage 0", "an error", "our graders always answer"),
    ("all rewards of a group equal", "rounding of their mean over 1e-4", "exactly 0", "Adam makes a step of any size"),
    ("empty responses in RLOO", "count with ρ = 1", "count 0", "no token, no gradient: the loss moves alone"),
    ("half precision", "as the model computes", "log-probs widened to float32", "sums and exp need the digits"),
    ("mixed groups only", "not offered", "filter, without refilling the batch", "DAPO samples until it is full"),
)  # fmt: skip

# The order and the names of methods wherever the book lists them: GRPO and its relatives, then F-ISFT, then others.
LABELS: dict[str, str] = {
    "grpo": "GRPO",
    "grpo_no_kl": "GRPO without KL",
    "dr_grpo": "Dr. GRPO",
    "dapo": "DAPO",
    "rloo": "RLOO",
    "f_isft_pos": "F-ISFT⁺",
    "f_isft_neg": "F-ISFT⁻",
    "f_isft_posneg": "F-ISFT⁺⁻ balanced",
    "f_isft_posneg_unit": "F-ISFT⁺⁻ unit",
    "w_reinforce": "W-REINFORCE",
    "ppo": "PPO",
    "vc_ppo": "VC-PPO",
    "vineppo": "VinePPO",
    "spo_chain": "SPO-chain",
    "step_verifier": "ideal solver's values",
    "grpo_lambda": "GRPO-λ",
    "optimal_baseline": "optimal token baseline",
    "nft": "NFT",
    "iterative_dpo": "iterative DPO",
    "ipo": "IPO",
    "kto": "KTO",
    "ibro": "IBRO",
    "clip_cov": "Clip-Cov",
    "kl_cov": "KL-Cov",
}
