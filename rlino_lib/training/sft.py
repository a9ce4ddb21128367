"""Filtered iterative SFT as literal supervised learning (chapter 05).

Each iteration turns the policy's own responses into a data set of accepted and rejected examples, and trains on it by
signed cross-entropy with −100 labels, as any SFT code does. Nothing here is shared with `methods/loss.py`: that the two
give the same gradient is a result (chapter 06), not built in. (Over a large vocabulary both take the log-softmax of
`policy/logprobs.py`, and no loss.)
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from rlino_lib.errors import RlinoError
from rlino_lib.policy.device import autocast, to_device
from rlino_lib.policy.logprobs import large_head, last_hidden, token_logprobs
from rlino_lib.policy.rollouts import Rollouts
from rlino_lib.training.micro_batches import Limit

# The data set whose signed weights are the advantages of a rule of `methods.advantages`: variant and weights.
DATASETS = {
    "positive": ("pos", "unit"),
    "negative": ("neg", "unit"),
    "signed": ("posneg", "unit"),
    "group_balanced": ("posneg", "group_balanced"),
}
IGNORE = -100


@dataclass(frozen=True)
class Example:
    """One supervised example: learn the response (sign +1) or unlearn it (sign −1), with a weight ≥ 0.

    `row` says which of the sampled responses it was. `context` are the places in the response of tokens that somebody
    else wrote, which are read and not learned.
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    sign: int
    weight: float
    row: int = 0
    context: tuple[int, ...] = ()


def build_dataset(rollouts: Rollouts, variant: str = "posneg", weights: str = "group_balanced") -> list[Example]:
    """The data set of one iteration: right responses as positives, wrong ones as negatives, as the variant has it.

    Weights: `unit` (every example 1) or `group_balanced` (each side of a group sums to 1; groups that are all right or
    all wrong are left out). Raises RlinoError for unknown names or responses that were not graded.
    """
    if variant not in ("pos", "neg", "posneg") or weights not in ("unit", "group_balanced"):
        raise RlinoError("F-ISFT has variants pos, neg, posneg and weights unit, group_balanced")
    if len(rollouts.grades) != len(rollouts.ids):
        raise RlinoError("grade the rollouts before building a data set from them")
    dataset = []
    for start in range(0, len(rollouts.ids), rollouts.group_size):
        rows = range(start, start + rollouts.group_size)
        right = [i for i in rows if rollouts.grades[i].correct]
        wrong = [i for i in rows if not rollouts.grades[i].correct]
        if weights == "group_balanced" and not (right and wrong):
            continue
        for sign, side in ((1, right), (-1, wrong)):
            if variant == "posneg" or (variant == "pos") == (sign > 0):
                weight = 1.0 if weights == "unit" else 1.0 / len(side)
                dataset += [example_of(rollouts, i, sign, weight) for i in side]
    return dataset


def example_of(rollouts: Rollouts, i: int, sign: int = 1, weight: float = 1.0) -> Example:
    """Response i of the rollouts as an example."""
    g = i // rollouts.group_size
    prompt = rollouts.prompt_ids[g][rollouts.prompt_mask[g]].tolist()
    response = rollouts.ids[i][rollouts.written[i]].tolist()
    context = (rollouts.written[i] & ~rollouts.mask[i]).nonzero()[:, 0].tolist()
    return Example(tuple(prompt), tuple(response), sign, weight, i, tuple(context))


def collate(examples: Sequence[Example], pad_id: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs [B, L] padded on the right, labels [B, L] with −100 outside responses, and signed weights [B]."""
    rows = [torch.tensor(e.prompt_ids + e.response_ids) for e in examples]
    inputs = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad_id)  # [B, L]
    labels = torch.full_like(inputs, IGNORE)  # [B, L]
    for row, e in enumerate(examples):
        start = len(e.prompt_ids)
        labels[row, start : start + len(e.response_ids)] = inputs[row, start : start + len(e.response_ids)]
        labels[row, [start + place for place in e.context]] = IGNORE
    return inputs, labels, torch.tensor([e.sign * e.weight for e in examples])


def sft_loss(
    model, inputs: torch.Tensor, labels: torch.Tensor, signed_weights: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """Σ_i s_i w_i CE_i, where CE_i is the mean cross-entropy over the tokens of response i (a scalar).

    At a temperature other than 1 the likelihood is that of softmax(logits / temperature), which the responses were
    sampled from.

    Minimising it raises the likelihood of positives and lowers that of negatives. Padding stands to the right of every
    response, where causal attention does not look, so no attention mask is needed. A head over a large vocabulary reads
    the places that have a label alone.
    """
    # The first label that counts stands after the shortest prompt; logits before it would be thrown away. Labels may
    # be on the CPU still, where to look at them waits for nothing.
    start = max(int((labels != IGNORE).any(0).int().argmax()) - 1, 0)
    keep = labels.shape[1] - start
    options = dict(input_ids=inputs, use_cache=False, logits_to_keep=keep)
    targets = labels[:, start + 1 :]  # [B, L']
    counts = targets != IGNORE  # [B, L']
    read = to_device(counts.flatten().nonzero()[:, 0], inputs.device)  # [M], among B·L'
    targets, counts = to_device(targets, inputs.device), to_device(counts, inputs.device)
    if (head := large_head(model)) is not None:
        hidden = last_hidden(model, head, **options)[:, :-1].flatten(0, 1).index_select(0, read)  # [M, H]
        labelled = -token_logprobs(hidden, head.weight, targets.flatten().index_select(0, read), temperature)  # [M]
        ce = labelled.new_zeros(counts.numel()).index_copy(0, read, labelled).view(counts.shape)  # [B, L']
    else:
        logits = model(**options).logits[:, :-1]  # [B, L', V]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # half types are too coarse, float64 stays
        logits = logits if temperature == 1 else logits / temperature
        ce = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=IGNORE, reduction="none")  # [B, L']
    mean_ce = ce.sum(1) / counts.sum(1).clamp_min(1)  # [B]
    return (signed_weights.to(mean_ce) * mean_ce).sum()


def minibatches(dataset: Sequence[Example], n: int, rng: random.Random) -> Iterator[list[Example]]:
    """The data set in `n` random mini-batches of about equal size (one mini-batch: the whole set, in order)."""
    order = list(range(len(dataset)))
    if n > 1:
        rng.shuffle(order)
    for k in range(n):
        batch = order[k::n]
        if batch:
            yield [dataset[i] for i in batch]


def accumulate_gradients(
    model, batch: Sequence[Example], n_sampled: float, pad_id: int, limit: Limit = Limit(32),  # noqa: B008
    temperature: float = 1.0, precision: str = "fp32",
) -> float:  # fmt: skip
    """Backward passes over one mini-batch, in micro-batches of similar length; returns the loss.

    The sum is divided by `n_sampled`, the number of responses that this mini-batch stands for, accepted or not: the
    step then does not grow when few responses are accepted.
    """
    ordered = sorted(batch, key=lambda e: len(e.prompt_ids) + len(e.response_ids))
    lengths = [len(e.prompt_ids) + len(e.response_ids) for e in ordered]
    losses = []
    device = next(model.parameters()).device
    for part in limit.cut(lengths):
        inputs, labels, weights = collate(ordered[part], pad_id)
        inputs, weights = to_device(inputs, device), to_device(weights, device)
        with autocast(precision, model):
            loss = sft_loss(model, inputs, labels, weights, temperature) / n_sampled
        loss.backward()
        losses.append(loss.detach())
    return sum((loss.item() for loss in losses), 0.0)  # read after the last pass, since reading waits for a GPU
