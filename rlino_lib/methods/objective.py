"""Every method as one update, ∇J = Σ w_it ∇log π(o_it | ·), with its own rule for the weights w (chapters 04 and 06).

An `Objective` is a row of named choices: advantage × ratio × surrogate × normaliser × KL × entropy × filter, each of
them a key of a table (`terms.py`, `advantages.py`). `credit` turns
rewards into advantages (`advantages.py`); `policy_loss` is the only loss. `token_weights`, computed from it, is the
weight at ratio 1 with the whole batch as one update; mini-batches and gradient clipping rescale it. The losses agree
with TRL's own code (tests/methods/test_trl_parity.py); where they differ on purpose, `DIFFERENCES` says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from rlino_lib.errors import RlinoError
from rlino_lib.methods.advantages import ADVANTAGES, FILTERS, check_rule
from rlino_lib.methods.covariance import COVARIANT
from rlino_lib.methods.preference import CHOICES, PREFERENCES
from rlino_lib.methods.terms import ESTIMATORS, LIKELIHOOD, NORMALISERS, RATIOS, ROUNDING, SURROGATES, Surrogate
from rlino_lib.methods.token_credit import CREDITS, CUTS, VALUES
from rlino_lib.settings import BATCH, FLAG, TABLE, check, list_of, nothing_or, number, one_of, setting, text, whole

# What the options of the rules of `advantages` may be.
OPTIONS = {"eps": number(0), "threshold": number(), "weight": number(0)}
# The kinds of update that a row may name; `rlino_lib.training.updates` has a function for each.
KINDS = ("policy_gradient", "supervised", "critic", "preference")
# The rules whose advantages are the signed weights of a data set of right and wrong responses.
DATASET_RULES = ("positive", "negative", "signed", "group_balanced")
NO_CLIP = {"clip_low": None, "clip_high": None}
CLIP = number(ROUNDING)  # a bound nearer to ρ = 1 than that would take the gradient of tokens by how they are rounded


@dataclass(frozen=True, repr=False)
class Objective:
    """A method as a row of choices; it prints as its formula. Vary one with `dataclasses.replace`.

    Raises RlinoError for unknown choices, and for choices that do not go together.
    """

    name: str = field(metadata={"help": "what the method is called", "allowed": text("a name")})
    advantage: str = setting("zscore", "what a response is credited with: a rule of `advantages`", one_of(ADVANTAGES))
    options: Mapping[str, float] = setting(dict, "options of that rule", TABLE, hash=False)
    ratio: str = setting(
        "token", 'ρ: "none" (plain log-likelihood, as supervised learning has it), "token" ρ_it = π/π_old of the '
        'token, "sequence" s_i = exp(mean_t log ρ_it), "trajectory" ρ_i = Π_t ρ_it', one_of(RATIOS),
    )  # fmt: skip
    clip_low: float | None = setting(
        0.2, "ρ is clipped below 1 − clip_low; None: no clip", nothing_or(number(ROUNDING, 1))
    )
    clip_high: float | None = setting(0.2, "ρ is clipped above 1 + clip_high; None: no clip", nothing_or(CLIP))
    delta: float | None = setting(
        None, "a cap on ρ before the min, for negative advantages", nothing_or(number(1 + ROUNDING))
    )
    surrogate: str = setting(
        "clip",
        '"clip", "cispo" sg[clip(ρ)] Â log π, "sapo" 4/τ σ(τ(ρ − 1)) Â, or "nft" log π⁺ or π⁻',
        one_of(SURROGATES),
    )
    tau: tuple[float, float] = setting(
        (1.0, 1.05), "sapo's τ where Â > 0, and elsewhere", list_of(number(above=0), length=2)
    )
    normaliser: str = setting(
        "per_response", "what a sum is divided by: " + "; ".join(f'"{k}" {n.formula}' for k, n in NORMALISERS.items()),
        one_of(NORMALISERS),
    )  # fmt: skip
    beta: float = setting(0.0, "the weight β of KL(π ‖ ref) in the loss", number(0))
    kl: str = setting("k3", "the estimator of that KL", one_of(ESTIMATORS))
    kl_correction: bool = setting(False, "whether that KL is multiplied by ρ", FLAG)
    kl_in_reward: float = setting(0.0, "the weight of k1 taken off the reward", number(0))
    reward_to_go: bool = setting(False, "whether it is taken off from each token on, or whole", FLAG)
    entropy_bonus: float = setting(0.0, "the weight η of each token's entropy in the loss", number(0))
    entropy_by_advantage: float = setting(0.0, "the weight α of each token's Â H in the loss", number(0))
    covariant: str | None = setting(
        None, "whether tokens of high covariance are spared (clip) or held (kl)", nothing_or(one_of(COVARIANT))
    )
    covariant_share: float = setting(2e-4, "how many those are, of all tokens", number(0, 1))
    covariant_cost: float = setting(1.0, "the weight of |log ρ| on tokens that are held", number(0))
    preference: str | None = setting(
        None, "the loss of chosen and rejected responses that weighs them", nothing_or(one_of(PREFERENCES))
    )
    preference_beta: float = setting(0.1, "β of that loss", number(above=0))
    pairing: str = setting("longest", "which of a group's right responses is chosen for its pair", one_of(CHOICES))
    filter: str | None = setting(None, "which rows stay: a key of `advantages.FILTERS`", nothing_or(one_of(FILTERS)))
    shortest: int = setting(0, "so many of the shortest of each group stay; 0: all", whole())
    overlong: float = setting(0.0, "the share of the cap L over which the reward falls by 1", number(0, 1))
    length_cost: float = setting(0.0, "what is off a reward at length L", number(0))
    credit: str = setting("response", "what a token is credited with: a key of `token_credit.CREDITS`", one_of(CREDITS))
    values: str | None = setting(None, "where the values of that credit come from", nothing_or(one_of(VALUES)))
    cuts: str = setting("steps", "where a step begins that has a value of its own", one_of(CUTS))
    value_samples: int = setting(9, "continuations K of each step's start", BATCH)
    gamma: float = setting(1.0, "discount γ of later steps", number(0, 1))
    lam: float = setting(1.0, "λ of a credit that has one", number(0, 1))
    critic_lam: float = setting(1.0, "λ of the returns that a critic learns", number(0, 1))
    value_clip: float | None = setting(0.2, "how far V may move from its old value in a batch", nothing_or(CLIP))
    whiten: bool = setting(False, "whether advantages are whitened over the tokens of the batch", FLAG)
    unlikely: float | None = setting(
        None, "only tokens that the sampler gave a lower probability train", nothing_or(number(0, 1))
    )
    update: str = setting(
        "policy_gradient", "how the step is made: by the gradient of the loss, or on a data set", one_of(KINDS)
    )
    source: str = setting("", "the paper, its equation, and where the settings come from", text("words"), compare=False)

    def __post_init__(self) -> None:
        check(self, f"objective {self.name}: ")
        check_rule(self.advantage, self.options)
        for name, value in self.options.items():
            OPTIONS[name].check(f"objective {self.name}: option {name}", value)
        if self.ratio == "none" and (self.surrogate != "clip" or self.delta is not None or self.kl_correction):
            raise RlinoError(f"objective {self.name}: cispo, sapo, delta and kl_correction need a ratio")
        whole = self.credit == "response" and not self.whiten
        shaped = self.overlong or self.length_cost or self.kl_in_reward
        if self.surrogate == "nft" and (self.advantage != "mean" or shaped or not whole):
            raise RlinoError(f"objective {self.name}: nft reads a group's share right off advantage=mean, and no other")
        if self.reward_to_go and self.advantage != "batch_zscore":
            raise RlinoError(f"objective {self.name}: reward_to_go is a credit of tokens, and needs batch_zscore")
        if self.shortest and self.reward_to_go:
            raise RlinoError(f"objective {self.name}: shortest counts responses, and does not go with reward_to_go")
        self._check_credit()
        self._check_preference()

    def _check_preference(self) -> None:
        """Raise RlinoError for a loss of preferences that is not a row's whole objective."""
        if (self.update == "preference") != (self.preference is not None):
            raise RlinoError(f"objective {self.name}: a preference is update=preference, and it one")
        if self.preference and (self.ratio, self.normaliser, self.by_token) != ("none", "token_sum", False):
            raise RlinoError(f"objective {self.name}: a preference weighs whole responses: ratio=none, token_sum")

    def _check_credit(self) -> None:
        """Raise RlinoError where the choices of a credit do not go together."""
        rule = CREDITS[self.credit]
        if (rule.needs == "values") != (self.values is not None):
            raise RlinoError(f"objective {self.name}: values go with the credit gae, and it with them")
        if rule.needs and self.advantage != "reward":
            raise RlinoError(
                f"objective {self.name}: the credit {self.credit} has baselines of its own: advantage=reward"
            )
        if self.credit != "response" and self.reward_to_go:
            raise RlinoError(f"objective {self.name}: reward_to_go is a credit of tokens of its own")
        if (self.update == "critic") != (self.values == "critic") or (self.values == "critic") != (
            self.cuts == "tokens"
        ):
            raise RlinoError(f"objective {self.name}: a critic is values=critic, cuts=tokens and update=critic")
        if self.cuts == "unlikely" and self.values != "continuations":
            raise RlinoError(f"objective {self.name}: cuts=unlikely needs values=continuations")

    @property
    def kind(self) -> str:
        """The kind of update that makes the step: `update`, or the policy gradient where that cannot express the row.

        Supervised learning maximises a mean over responses of signed mean log-likelihoods, and nothing else.
        """
        plain = Objective(self.name, self.advantage, ratio="none", update="supervised", **NO_CLIP)
        literal = self.advantage in DATASET_RULES and replace(self, **NO_CLIP) == plain
        return self.update if literal or self.update != "supervised" else "policy_gradient"

    @property
    def gain(self) -> Surrogate:
        """What a token gains: without a ratio the log-likelihood itself."""
        return LIKELIHOOD if self.ratio == "none" else SURROGATES[self.surrogate]

    @property
    def clip_bounds(self) -> tuple[float | None, float | None]:
        """The bounds that ρ is clipped to; None where it is not clipped."""
        low, high = self.clip_low, self.clip_high
        return None if low is None else 1 - low, None if high is None else 1 + high

    @property
    def needs_reference(self) -> bool:
        """Whether reference log-probs are read, in the loss or in the reward."""
        return bool(self.beta or self.kl_in_reward)

    @property
    def by_token(self) -> bool:
        """Whether credit may differ among the tokens of a response: its advantages are [N, T]."""
        return self.reward_to_go or self.credit != "response" or self.whiten or self.covariant == "clip"

    @property
    def needs_entropies(self) -> bool:
        """Whether the loss reads entropies, with gradient."""
        return bool(self.entropy_bonus or self.entropy_by_advantage)

    @property
    def bare(self) -> "Objective":
        """The row without what stands beside the gain in its loss."""
        return replace(self, beta=0.0, entropy_bonus=0.0, entropy_by_advantage=0.0, covariant=None)

    def __repr__(self) -> str:
        if self.preference:
            return f"{self.name}: {_preference_text(self)}"
        ratio, normaliser = RATIOS[self.ratio], NORMALISERS[self.normaliser]
        credit = "Â_it" if self.by_token else "Â_i"
        gain = self.gain.formula(self, ratio.symbol, credit)
        beside = ""  # the terms beside the gain
        if self.beta:
            beside += f" − {self.beta:g} {ratio.symbol + ' ' if self.kl_correction else ''}{self.kl}_it"
        if self.entropy_bonus:
            beside += f" + {self.entropy_bonus:g} H_it"
        if self.entropy_by_advantage:
            beside += f" + {self.entropy_by_advantage:g} {credit} H_it"
        if self.covariant == "kl":
            beside += f" − {self.covariant_cost:g} m_it |log ρ_it|"
        by_row = self.ratio in ("sequence", "trajectory") and self.surrogate != "cispo"
        front = normaliser.by_row if by_row and not beside and not self.by_token else normaliser.formula
        return f"{self.name}: J = {front} {f'[ {gain}{beside} ]' if beside else gain},  {_credit_text(self)}"


# --- how it prints ---------------------------------------------------------------------------------------------------


def _preference_text(o: Objective) -> str:
    """What a loss of preferences maximises, and what it takes for chosen."""
    rule = PREFERENCES[o.preference or ""]
    symbols = f"Δ_i = Σ_t log(π/π_old)_it,  β = {o.preference_beta:g}"
    return f"J = {rule.formula},  {symbols}" + (f",  chosen: the {o.pairing} that is right" if rule.paired else "")


def _credit_text(o: Objective) -> str:
    """What Â is, the rows that stay, and what the symbols stand for: the texts of the choices that the row has made."""
    options = f" ({', '.join(f'{k} = {v:g}' for k, v in o.options.items())})" if o.options else ""
    formula = f"Â_i = {ADVANTAGES[o.advantage].formula}"
    if o.reward_to_go:
        formula = "Â_it = (R_it − mean R) / (std R + 1e-4) over the tokens of the batch"
    elif o.by_token:
        rule = CREDITS[o.credit]
        formula = f"Â_it = {rule.formula or 'Â_i'}" + ("" if rule.needs else f",  {formula}")
    of_values = f"V {VALUES[o.values]}, at {CUTS[o.cuts]}" if o.values else ""
    texts = (
        (True, formula + options),
        (o.credit in ("gae", "decay"), f"γ = {o.gamma:g}, λ = {o.lam:g}"),
        (o.values, of_values.replace(" K ", f" {o.value_samples} ")),
        (o.values == "critic", f"learned with λ = {o.critic_lam:g}, value clip {o.value_clip}"),
        (o.whiten, "whitened over the tokens of the batch"),
        (o.covariant == "clip", COVARIANT["clip"].formula.format(share=o.covariant_share)),
        (o.covariant == "kl", "m_it = 1 on " + COVARIANT["kl"].formula.format(share=o.covariant_share)),
        (o.unlikely is not None, f"only tokens with π_old < {o.unlikely}"),
        (o.reward_to_go, f"R_it = r_i − {o.kl_in_reward:g} Σ_{{s ≥ t}} log(π_old/ref)_is"),
        (o.kl_in_reward and not o.reward_to_go, f"r_i less {o.kl_in_reward:g} Σ_t log(π_old/ref)_it"),
        (o.overlong, f"r_i less up to 1 over the last {o.overlong:g} L"),
        (o.length_cost, f"r_i less {o.length_cost:g} |o_i|/L"),
        (o.shortest, f"of each group the {o.shortest} shortest alone"),
        (o.filter, f"only {FILTERS[o.filter].formula if o.filter else ''}"),
        (RATIOS[o.ratio].formula, RATIOS[o.ratio].formula),
        (o.surrogate == "sapo", f"τ = {o.tau[0]:g} if Â > 0, else {o.tau[1]:g}"),
    )
    return ",  ".join(text for chosen, text in texts if chosen)
