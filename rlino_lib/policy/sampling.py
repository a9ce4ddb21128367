"""Sampling groups of responses (chapter 04): prefill each prompt once, decode all its samples together.

`respond` is the whole loop. What makes it fast at small sizes: the decoder (`decode.py`), finished responses leaving
the batch, one uniform number for each token drawn beforehand in place of a multinomial call, and threads that split
the batch by rows instead of splitting each matrix product. Of many samples of a prompt, rows that have written the same
so far are one row of the model, which the decoder keeps to itself. A row's randomness is its own, so that its text does
not depend on which rows sit beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from rlino_lib import settings
from rlino_lib.errors import RlinoError
from rlino_lib.policy.decode import Decoder, fast_attention, fused_decoder, in_blocks
from rlino_lib.policy.device import autocast, casts, is_out_of_memory, is_small, policy_precision, within_memory
from rlino_lib.policy.draft import Draft, Replies
from rlino_lib.policy.fused import FusedDecoder
from rlino_lib.policy.graph import BLOCK
from rlino_lib.policy.logprobs import LARGE
from rlino_lib.policy.models import Policy
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.policy.stopping import Ends
from rlino_lib.settings import COUNT, check, number, setting, whole, zero_or
from rlino_lib.tasks.base import Environment


@dataclass(frozen=True)
class SampleConfig:
    """The settings of `sample`. Raises RlinoError for a wrong value."""

    group_size: int = setting(8, "responses per prompt", settings.BATCH)
    max_new_tokens: int = setting(112, "the cap on a response", COUNT)
    temperature: float = setting(1.0, "divides the logits; 0: greedy", zero_or(settings.TEMPERATURE))
    top_p: float = setting(1.0, "keep the likeliest tokens with this share of the probability", settings.TOP_P)
    top_k: int = setting(0, "keep so many of the likeliest tokens; 0: all", whole())
    min_p: float = setting(0.0, "keep tokens with at least this share of the likeliest's probability", number(0, 1))
    seed: int = setting(0, "of the draws; a run makes one of its own seed and the step", whole(0, 2**63 - 1))
    max_rows: int = setting(1024, "rows decoded at a time", COUNT)
    ignore_eos: bool = setting(False, "go on to the cap, for measuring", settings.FLAG)
    precision: str = setting("auto", settings.PRECISION_HELP, settings.PRECISION)

    def __post_init__(self) -> None:
        check(self)


T = TypeVar("T")
ROWS_PER_WORKER = 128  # with fewer, Python's own work between the products weighs more than a second core
VARIED_ROWS = 384  # of a chunk whose prefixes differ in length: shorter ones are padded, and read that at each step
_ROWS_THAT_FIT: WeakKeyDictionary[torch.nn.Module, int] = WeakKeyDictionary()  # where more did not


def respond(decoder: Decoder, draft: Draft, prompt_rows: torch.Tensor, uniform: torch.Tensor, pick: Callable) -> None:
    """Write a response for each row of the draft: pick a token by the model's logits, tell the model, and so on.

    prompt_rows [N] int64: which of the decoder's prompts each row goes on from. uniform [T, N] in [0, 1): a number for
    each token. `pick` makes tokens, log-probs and entropies of logits and such numbers (`choose`).
    """
    logits = decoder.prefill(prompt_rows)  # [B, V]
    for u in uniform:
        with torch.autocast(logits.device.type, enabled=False):  # which would round entropies
            tokens, logprobs, entropies = pick(logits, u[draft.rows])  # each [B]
        draft.add(tokens[None], logprobs[None], refuse_infinite(entropies)[None])
        if draft.is_over():
            break
        if (staying := draft.leave()) is not None:
            decoder.keep(staying)
        logits = decoder.step(draft.newest)  # [B, V]


def respond_in_blocks(
    decoder: Decoder, draft: Draft, prompt_rows: torch.Tensor, uniform: torch.Tensor, pick: Callable
) -> None:
    """The same for a GPU, which writes a block of tokens for all rows before anybody looks at one."""
    logits, steps = decoder.capture(prompt_rows, pick)
    with torch.autocast(logits.device.type, enabled=False):
        tokens, logprobs, entropies = (values[None] for values in pick(logits, uniform[0]))  # each [1, B]
        while True:
            draft.add(tokens, logprobs, refuse_infinite(entropies))
            if draft.is_over():
                break
            if steps.grows and (staying := draft.leave()) is not None:
                steps.keep(staying)
            done = draft.time - draft.window
            size = 1 if draft.replies else BLOCK  # an environment reads every token
            u = uniform[done : done + size, draft.rows]  # [k, B]
            tokens, logprobs, entropies = steps.run(draft.newest, u)  # each [k, B]


# --- choosing a token ------------------------------------------------------------------------------------------------


def _filter(logprobs: torch.Tensor, top_p: float, top_k: int, min_p: float) -> torch.Tensor:
    """Log-probs with what top-k, top-p and min-p exclude at −inf (not renormalised), [N, V]."""
    if top_k:
        kth = logprobs.topk(min(top_k, logprobs.shape[-1]), -1).values[:, -1:]  # [N, 1]
        logprobs = logprobs.masked_fill(logprobs < kth, -torch.inf)
    if min_p:
        least = logprobs.amax(-1, keepdim=True) + math.log(min_p)  # [N, 1]
        logprobs = logprobs.masked_fill(logprobs < least, -torch.inf)
    if top_p < 1:
        ordered, index = logprobs.sort(-1, descending=True)  # [N, V]
        p = ordered.softmax(-1)
        out = p.cumsum(-1) - p >= top_p  # the first token always stays
        logprobs = logprobs.masked_fill(out.scatter(-1, index, out), -torch.inf)
    return logprobs


def choose(
    logits: torch.Tensor, u: torch.Tensor, temperature: float, top_p: float = 1.0, top_k: int = 0, min_p: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sample by inverting the cumulative distribution at u.

    logits [N, V]; u [N] uniform in [0, 1). Returns ids, log-probs and entropies, each [N]; the log-prob is the policy's
    at this temperature, untruncated: with top-p < 1 (or top-k, min-p) a ratio would be biased; training does not pass
    them. Temperature 0 is greedy, and then the log-prob is that of temperature 1. Where a logit is NaN or +∞ the
    entropy is not finite (`refuse_infinite`).
    """
    truncating = top_k or min_p or top_p < 1
    scaled = logits if temperature in (0, 1) else logits.float() / temperature  # [N, V]
    if logits.shape[1] >= LARGE and temperature and not truncating:
        return _choose_from_many(scaled, u)
    logprobs = scaled.log_softmax(-1, dtype=torch.float32)  # [N, V]
    probs = logprobs.exp()  # [N, V]
    entropy = -torch.linalg.vecdot(probs, logprobs.clamp_min(-1e4))  # [N]; the clamp keeps 0 · −inf from being NaN
    if not temperature:
        ids = logits.argmax(-1)  # [N]
    else:
        kept = _filter(logprobs, top_p, top_k, min_p).exp() if truncating else probs  # [N, V]
        ids, *_ = _invert(kept, u)  # [N]
    return ids, logprobs.gather(1, ids[:, None])[:, 0], entropy


def _choose_from_many(scaled: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same over a large vocabulary: half of a GPU's time for a token would be passes over it, and these are fewer.

    Of parts of 128 entries one is drawn by its sum, and in it an entry by what is left of u.
    """
    probs = scaled.softmax(-1, dtype=torch.float32)  # [N, V]
    parts = pad(probs, (0, -probs.shape[1] % 128)).unflatten(1, (-1, 128))  # [N, V/128, 128]
    masses = parts.sum(-1)  # [N, V/128]
    part, below, total = _invert(masses, u)  # [N], [N, 1], [N, V/128]
    own = masses.gather(1, part[:, None])  # [N, 1]
    rest = ((below - total.gather(1, part[:, None]) + own) / own).clamp(0, 1)  # [N, 1], uniform if u is
    rows = torch.arange(len(u), device=u.device)  # [N]
    place, *_ = _invert(parts[rows, part], rest[:, 0])  # [N]
    ids = (part * 128 + place).clamp_max(probs.shape[1] - 1)  # [N]; of NaN
    return ids, probs[rows, ids].log(), torch.special.entr(probs).sum(-1)


def _invert(masses: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where the running sum of masses [N, C] exceeds the share u of its total: the entry [N], with u [N] in [0, 1).

    Returned too are what it had to exceed, [N, 1], and the running sum, [N, C].
    """
    total = masses.cumsum(-1)  # [N, C]
    # `right` picks the first entry strictly above u·total, so an entry of mass 0 is never chosen; rounding can lift
    # u·total to the total itself, above which there is none, hence the float just below it.
    mass = total[:, -1:]  # [N, 1]
    below = torch.minimum(u[:, None] * mass, torch.nextafter(mass, torch.zeros_like(mass)))  # [N, 1]
    index = torch.searchsorted(total, below, right=True)  # [N, 1]
    index = index.clamp_max(masses.shape[1] - 1)  # of NaN there is no entry, and a GPU does not survive a wrong index
    return index[:, 0], below, total


def refuse_infinite(entropies: torch.Tensor) -> torch.Tensor:
    """The entropies as they are; raises RlinoError where one is not finite. Waits for a GPU, as `choose` must not."""
    if not bool(entropies.isfinite().all()):
        raise RlinoError("the model's logits are not finite: lower the learning rate, or check the weights")
    return entropies


# --- sampling --------------------------------------------------------------------------------------------------------


def sample(
    policy: Policy,
    prompts: Sequence[str],
    group_size: int = 8,
    *,
    stop_strings: Sequence[str] = (),
    prefixes: Sequence[str] = (),
    environment: Environment | Sequence[Environment] | None = None,
    **sampling: Any,
) -> Rollouts:
    """Sample `group_size` responses to each prompt (temperature 0 is greedy): `sample(policy, ["2 + 2 ="], 4).texts`.

    `sampling` are the settings of `SampleConfig`: `max_new_tokens=112`, `temperature=1.0`, `top_p=1.0`, `top_k=0`,
    `min_p=0.0`, `seed=0`, `max_rows=1024`, `ignore_eos=False`, `precision="auto"`.

    A response ends with EOS, or with the token that completes one of `stop_strings`, both part of it. `max_rows` bounds
    the rows decoded at a time; texts do not depend on it beyond float rounding. Where memory runs out it is halved
    for this model until the process ends, and a warning says so. `ignore_eos` goes on to the cap, for measuring.
    `precision` of the products: auto, fp32 or bf16 (`device.policy_precision`).

    `prefixes` (hints, restarts, prefilled answers), one for each prompt or one for each response, the responses to a
    prompt together, begin the responses, and an `environment` may write into them: one for all, or one for each prompt
    or response, as prefixes are. What these write is part of the text
    and not of the mask; `max_new_tokens` caps the whole response, whoever wrote it. Raises RlinoError where there is
    nothing to sample, a setting is out of range, a prefix fills the cap, logits are not finite, or there is no memory
    for one response.
    """
    c = SampleConfig(group_size, **sampling)
    batch = _Batch(policy, prompts, prefixes, c)
    model = policy.model
    device = model.device
    each = environment if isinstance(environment, Sequence) else [environment] * len(prompts) if environment else []
    environments = _for_rows("environments", each, len(prompts), group_size)
    ends = Ends.of(policy, stop_strings, c.ignore_eos)
    pick = partial(choose, temperature=c.temperature, top_p=c.top_p, top_k=c.top_k, min_p=c.min_p)
    precision = policy_precision(c.precision, model)
    # Autocast is a thread's own setting.
    plain = not (casts(precision, model) or torch.is_autocast_enabled(device.type))
    with torch.inference_mode(), fast_attention(model), autocast(precision, model):
        fused = fused_decoder(model, batch.length, plain)
        decode = partial(_decode, policy, fused, batch, ends, pick, environments)
        threads = torch.get_num_threads() if plain and device.type == "cpu" and is_small(model) else 1
        parts = _in_chunks(policy, decode, batch, c.max_rows, threads)
    return batch.rollouts(policy, parts)


class _Batch:
    """What is to be sampled: P prompts, the prefixes of their responses, and a row of random numbers for each response.

    N = P·G rows, the rows of a group together. A row goes on from one of C contexts, a prompt with a prefix: rows of a
    group whose prefixes are the same share theirs.
    """

    def __init__(self, policy: Policy, prompts: Sequence[str], prefixes: Sequence[str], c: SampleConfig) -> None:
        if not prompts:
            raise RlinoError("sampling needs at least one prompt")
        self.prompts = list(prompts)
        self.group_size = c.group_size
        texts = _for_rows("prefixes", prefixes or [""] * len(prompts), len(prompts), c.group_size)
        pairs = [(i // c.group_size, text) for i, text in enumerate(texts)]
        place = {pair: k for k, pair in enumerate(dict.fromkeys(pairs))}
        self.contexts = torch.tensor([place[pair] for pair in pairs])  # [N], in [0, C)
        prompt_tokens = policy.tokenizer(self.prompts)["input_ids"]
        begun = policy.tokenizer([text for _, text in place], add_special_tokens=False)["input_ids"]
        longest = max(map(len, begun))
        if longest >= c.max_new_tokens:
            raise RlinoError(f"a prefix of {longest} tokens leaves nothing to sample under a cap of {c.max_new_tokens}")
        self.limits = c.max_new_tokens - torch.tensor([len(row) for row in begun])  # [C], tokens after the prefix
        self.pad = policy.tokenizer.pad_token_id
        self.prefixes = _left_padded(begun)  # [C, W]
        self.prompt_ids = _left_padded(prompt_tokens)  # [P, S']
        begins = [prompt_tokens[p] + tokens for (p, _), tokens in zip(place, begun, strict=True)]
        self.ids = _left_padded(begins)  # [C, S], prefixes included
        shape = len(pairs), int(self.limits.max())
        self.uniform = torch.rand(shape, generator=torch.Generator().manual_seed(c.seed))  # [N, T]
        # Rows are decoded in the order of their prefixes' lengths, so that a chunk is padded little.
        self.order = self.limits[self.contexts].argsort(stable=True)  # [N]
        self.varied = bool((self.limits != self.limits[0]).any())
        self.length = self.ids.shape[1] + shape[1]  # of the longest sequence

    def rollouts(self, policy: Policy, parts: Sequence[tuple[torch.Tensor, ...]]) -> Rollouts:
        """The rows of all parts, in order, as `Draft.columns` gives them."""
        width = max(part[0].shape[1] for part in parts)
        *columns, truncated = zip(*parts, strict=True)
        back = self.order.argsort()  # [N]
        ids, mask, written, logprobs, entropies = (
            torch.cat([pad(values, (0, width - values.shape[1]), value=fill) for values in column])[back]
            for column, fill in zip(columns, (self.pad, False, False, 0.0, 0.0), strict=True)
        )  # each [N, T]
        responses = [row[where] for row, where in zip(ids, written, strict=True)]
        return Rollouts(
            prompts=self.prompts,
            prompt_ids=self.prompt_ids.where(self.prompt_ids >= 0, self.pad),
            prompt_mask=self.prompt_ids >= 0,
            ids=ids,
            mask=mask,
            logprobs=logprobs,
            entropies=entropies,
            truncated=torch.cat(truncated)[back],
            texts=policy.tokenizer.batch_decode(responses, skip_special_tokens=True),
            group_size=self.group_size,
            written=written,
        )


def _for_rows(what: str, values: Sequence[T], prompts: int, group_size: int) -> list[T]:
    """What is given for each prompt, or for each response, for each response: [N], or [0] where nothing is given.

    Raises RlinoError for any other number of values.
    """
    if len(values) not in (0, prompts, prompts * group_size):
        raise RlinoError(f"{len(values)} {what} for {prompts} prompts")
    return [value for value in values for _ in range(prompts * group_size // len(values))]


def _left_padded(rows: Sequence[list[int]]) -> torch.Tensor:
    """Token ids [P, longest] int64, −1 left of the shorter rows."""
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=-1, padding_side="left")


def _cropped(ids: torch.Tensor) -> torch.Tensor:
    """Left-padded ids [P, S] without the columns that are padding in every row."""
    return ids[:, int((ids < 0).all(0).sum()) :]


def _decode(
    policy: Policy, fused: FusedDecoder | None, batch: _Batch, ends: Ends, pick: Callable,
    environments: Sequence[Environment], rows: torch.Tensor,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """Some rows [N'] of the batch, as `Draft.columns` gives them."""
    device = policy.model.device
    of_rows = batch.contexts[rows]  # [N']
    contexts, prompt_rows = of_rows.unique(return_inverse=True)  # [C'], [N']
    ids, prefixes = batch.ids[contexts], batch.prefixes[of_rows]  # [C', S], [N', W]
    if batch.varied:
        ids, prefixes = _cropped(ids), _cropped(prefixes)
    limits = batch.limits[of_rows]  # [N']
    of_draft = [environments[row] for row in rows.tolist()] if environments else []  # N'
    replies = Replies(of_draft, policy.tokenizer, device) if of_draft else None
    with torch.inference_mode():  # a thread's own setting
        decoder = Decoder(policy.model, fused, ids.where(ids >= 0, batch.pad), ids >= 0, int(limits.max()))
        draft = Draft(prefixes, limits, batch.pad, ends, replies)
        uniform = batch.uniform[rows].t().to(device)  # [T, N']
        write = respond_in_blocks if fused and in_blocks(device) else respond
        write(decoder, draft, prompt_rows.to(device), uniform, pick)
        return draft.columns()


def _in_chunks(
    policy: Policy, decode: Callable, batch: _Batch, max_rows: int, threads: int
) -> list[tuple[torch.Tensor, ...]]:
    """`decode` of all rows in order, in chunks of at most `max_rows`, each thread its share of them."""
    n = len(batch.uniform)
    size = batch.group_size
    workers = min(threads, max(1, n // ROWS_PER_WORKER))
    few = batch.varied and policy.model.device.type == "cpu"
    rows = min(max_rows, math.ceil(n / workers), VARIED_ROWS if few else n)
    rows = rows // size * size or rows  # of a chunk: whole groups, or a part of one
    chunks = batch.order.split(rows)
    every = torch.get_num_threads()
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(every // workers,)) as pool:
        parts = (pool.map if workers > 1 else map)(lambda c: _within_memory(policy, decode, c, size), chunks)
        return [part for of_chunk in parts for part in of_chunk]


def _within_memory(policy: Policy, decode, rows: torch.Tensor, group_size: int) -> list[tuple[torch.Tensor, ...]]:
    """`decode(rows)` in as many parts as memory takes: whole groups as long as they fit."""
    known = min(_ROWS_THAT_FIT.get(policy.model, len(rows)), len(rows))

    def halve(n: int) -> int:
        return n // 2 - n // 2 % group_size or n // 2

    try:
        parts, fitting = within_memory(
            lambda n: [decode(rows[k : k + n]) for k in range(0, len(rows), n)],
            known, "{} responses are decoded at a time", halve=halve,
        )  # fmt: skip
    except RuntimeError as e:
        if not is_out_of_memory(e):
            raise
        raise RlinoError("no memory for one response: lower --max-new-tokens, or take a smaller model") from e
    if fitting < known:
        _ROWS_THAT_FIT[policy.model] = fitting
    return parts
