"""Who wrote a token: environments and prefixes in the text, outside the mask, against a slow loop and by hand."""

import pytest
import torch
from test_rollout import EVEN, TOKENIZER, UNEVEN, random_model

from rlino_lib.errors import RlinoError
from rlino_lib.evaluation.evaluate import evaluate, outcome_metrics
from rlino_lib.methods.advantages import advantages
from rlino_lib.methods.catalogue import OBJECTIVES
from rlino_lib.methods.loss import Batch, policy_loss
from rlino_lib.policy.logprobs import response_logprobs
from rlino_lib.policy.models import load_policy
from rlino_lib.policy.sampling import choose, sample
from rlino_lib.tasks import Countdown
from rlino_lib.tasks.arithmetic import trace_steps
from rlino_lib.tasks.countdown.environment import Calculator
from rlino_lib.training.sft import IGNORE, build_dataset, collate

EOS = 1


class Echo:
    """Answers often, so that a random model meets it: after a sign or an even digit, with some of the text so far."""

    after = ("+", "2", "4", "=")

    def answer(self, text: str) -> str:
        return f" {len(text) % 100}, {text[-1]}" if text[-1:] in ("+", "2", "4", "=") else ""


def slowly(policy, prompt, uniform, cap, environment=None, prefix="", temperature=1.0):
    """Ids and authors of one response: the whole text is read anew for each token, and nothing is shared or cached."""
    ids = policy.tokenizer(prompt)["input_ids"]
    start, written = len(ids), policy.tokenizer(prefix, add_special_tokens=False)["input_ids"]
    own, waiting, t = [False] * len(written), [], 0
    ask = environment is not None and bool(written)
    while True:
        if ask:
            answer = environment.answer(policy.tokenizer.decode(written, skip_special_tokens=True))
            waiting = policy.tokenizer(answer, add_special_tokens=False)["input_ids"][: cap - len(written) - 1]
        if waiting:
            written.append(waiting.pop(0))
            own.append(False)
        else:
            with torch.no_grad():
                logits = policy.model(input_ids=torch.tensor([ids[:start] + written])).logits[:, -1]
            written.append(int(choose(logits, uniform[t : t + 1], temperature)[0]))
            own.append(True)
        t += 1
        if written[-1] == EOS or len(written) == cap:
            return written, own
        ask = environment is not None and own[-1]


CASES = {
    "calculator": (Calculator(), ["", "", "", ""]),
    "answers everywhere": (Echo(), ["", "", "", ""]),
    "prefixes": (None, ["", " 3 + 7 = 10", " 8", " 1 - 1"]),
    "both": (Echo(), [" 3 + 2", "", " 4 +", " 5 * 7 = 35"]),
}


@pytest.mark.parametrize("rows", [4, 64])
@pytest.mark.parametrize("case", CASES)
def test_texts_are_those_of_a_slow_loop(case, rows):
    environment, prefixes = CASES[case]
    policy, cap, size = random_model(seed=5), 30, 4
    rollouts = sample(
        policy, UNEVEN, size, max_new_tokens=cap, seed=2, max_rows=rows, prefixes=prefixes, environment=environment
    )
    least = min(len(TOKENIZER(p, add_special_tokens=False)["input_ids"]) for p in prefixes)
    uniform = torch.rand(len(rollouts.ids), cap - least, generator=torch.Generator().manual_seed(2))
    for i, (ids, mask, written) in enumerate(zip(rollouts.ids, rollouts.mask, rollouts.written, strict=True)):
        prompt, prefix = UNEVEN[i // size], prefixes[i // size]
        expected, own = slowly(policy, prompt, uniform[i], cap, environment, prefix)
        assert ids[written].tolist() == expected and mask[written].tolist() == own
        assert rollouts.texts[i] == TOKENIZER.decode(expected, skip_special_tokens=True)
        assert rollouts.texts[i].startswith(prefix) and own[-1]
        assert rollouts.truncated[i] == (expected[-1] != EOS) and (ids[~written] == 0).all()
    foreign = rollouts.written & ~rollouts.mask
    assert foreign.any() or case == "calculator"  # a random model writes no step
    assert rollouts.truncated.any() and not rollouts.truncated.all()
    # A scoring pass reads all tokens and weighs the policy's, and so do lengths, entropies and log-probs.
    with torch.no_grad():
        full, seen = response_logprobs(policy.model, rollouts, torch.arange(len(rollouts.ids)))
    assert torch.equal(seen, rollouts.mask) and torch.equal(rollouts.lengths, rollouts.mask.sum(1))
    assert (full - rollouts.logprobs)[seen].abs().max() < 1e-5
    assert (rollouts.logprobs[~seen] == 0).all() and (rollouts.entropies[~seen] == 0).all()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("19 * 3 =", " 57"), (" 19 - 3 =", " 16"), ("no, 18 / 3 =", " 6"), ("2 + 2 =", " 4"), ("3 - 3 =", " 0"),
        ("3 - 19 =", ""), ("7 / 2 =", ""), ("7 / 0 =", ""), ("8 - 2 + 3 =", ""), ("1.5 + 3 =", ""), ("19 * 3 = ", ""),
        ("19 * 3 = 57", ""), ("1234567890 + 1 =", ""), ("999999999 * 2 =", ""), ("٣ + 1 =", ""), ("=", ""), ("", ""),
    ],
)  # fmt: skip
def test_the_calculator_is_right_or_says_nothing(text, answer):
    assert Calculator().answer(text) == answer
    assert not answer or trace_steps(text + answer)[0][1]  # as the reader of traces sees it


def test_with_the_calculator_the_base_makes_no_mistake_in_arithmetic():
    policy, task = load_policy(), Countdown()
    problems = task.problems("test", 16)
    settings = dict(seed=1, max_new_tokens=96)
    prompts = [task.prompt(p) for p in problems]
    alone = sample(policy, prompts, 4, **settings)
    helped = sample(policy, prompts, 4, environment=Calculator(), **settings).grade(task, problems)
    assert torch.equal(alone.written, alone.mask) and not torch.equal(helped.written, helped.mask)
    steps = [step for text in helped.texts for step in trace_steps(text)]
    # What a step has for result was written for it, unless that would have been negative or no integer; the base may
    # write another digit behind it.
    results = [(str(c), Calculator().answer(f"{a} {op} {b} =").strip()) for (a, op, b, c), _ in steps]
    assert len(results) > 100 and all(c.startswith(right) for c, right in results)
    foreign = zip(helped.ids, helped.written & ~helped.mask, strict=True)
    assert all(TOKENIZER.decode(ids[where]).replace(" ", "").isdigit() for ids, where in foreign)
    metrics = outcome_metrics(helped)
    assert metrics["completions/mean_length"] == helped.mask.sum(1).double().mean()
    assert metrics["entropy"] == pytest.approx(helped.entropies[helped.mask].double().mean().item())
    settings = dict(samples=2, max_new_tokens=96)
    frame = evaluate(policy, task, problems[:2], environment=Calculator(), **settings)
    assert (frame["steps"] > 0).any()
    assert frame.equals(evaluate(policy, Countdown(calculator=True), problems[:2], **settings))  # the task's own
    assert not frame.equals(evaluate(policy, task, problems[:2], **settings))


def test_the_gradient_is_that_of_the_policys_tokens_by_hand():
    policy, size = random_model(seed=7), 4
    rollouts = sample(policy, EVEN, size, max_new_tokens=24, seed=3, prefixes=[" 3 +", ""], environment=Echo())
    assert (rollouts.written & ~rollouts.mask)[:4].any(1).all() and (rollouts.written & ~rollouts.mask)[4:].any()
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    objective = OBJECTIVES["grpo_no_kl"]
    adv = advantages(rewards, size, objective.advantage)
    new, mask = response_logprobs(policy.model, rollouts, torch.arange(8))
    policy_loss(objective, Batch(new, adv, mask, rollouts.logprobs)).loss.backward()
    gradients = [p.grad.clone() for p in policy.model.parameters()]

    policy.model.zero_grad()
    uniform = torch.rand(8, 24, generator=torch.Generator().manual_seed(3))
    total = 0.0
    for i in range(8):
        prompt, prefix = EVEN[i // size], [" 3 +", ""][i // size]
        tokens, own = slowly(policy, prompt, uniform[i], 24, Echo(), prefix)
        ids = TOKENIZER(prompt)["input_ids"]
        for t, by_policy in enumerate(own):
            if by_policy:  # one forward pass for each token, each row divided by what the policy wrote of it
                logits = policy.model(input_ids=torch.tensor([ids + tokens[:t]])).logits[0, -1]
                total = total - adv[i] * logits.log_softmax(-1)[tokens[t]] / sum(own) / 8
    total.backward()
    for p, gradient in zip(policy.model.parameters(), gradients, strict=True):
        assert torch.allclose(gradient, p.grad, atol=2e-6), (gradient - p.grad).abs().max()


def test_supervised_examples_have_the_same_tokens_as_labels():
    policy, task = random_model(seed=7), Countdown()
    problems = task.problems("test", 2)
    prompts = [task.prompt(p) for p in problems]
    rollouts = sample(policy, prompts, 2, max_new_tokens=24, prefixes=[" 3 +", ""], environment=Echo())
    dataset = build_dataset(rollouts.grade(task, problems), "neg", "unit")
    inputs, labels, _ = collate(dataset, 0)
    assert len(dataset) == 4
    for i, example in enumerate(dataset):
        assert list(example.response_ids) == rollouts.ids[i][rollouts.written[i]].tolist()
        assert labels[i][labels[i] != IGNORE].tolist() == rollouts.ids[i][rollouts.mask[i]].tolist()
        whole = [*example.prompt_ids, *example.response_ids]
        assert inputs[i, : len(whole)].tolist() == whole


# --- prefixes --------------------------------------------------------------------------------------------------------


def test_hints_are_graded_and_not_trained_on():
    """A hint is part of the answer that the grader reads: the base closes what the hint has begun."""
    policy, task = load_policy(), Countdown()
    problems = task.problems("test", 4)
    solutions = [p.gold.split(" = ")[0] for p in problems]
    hints = [f" </think> <answer> {solution}" for solution in solutions]
    rollouts = sample(policy, [task.prompt(p) for p in problems], 8, prefixes=hints, seed=1).grade(task, problems)
    hinted = [hint for hint in hints for _ in range(8)]
    assert all(text.startswith(hint) for text, hint in zip(rollouts.texts, hinted, strict=True))
    assert rollouts.correct.double().mean() > 0.9 and rollouts.lengths.max() < 20
    lengths = torch.tensor([len(policy.tokenizer(h, add_special_tokens=False)["input_ids"]) for h in hinted])
    assert torch.equal((rollouts.written & ~rollouts.mask).sum(1), lengths)
    first = torch.arange(rollouts.mask.shape[1]) < lengths[:, None]
    assert torch.equal(first, rollouts.written & ~rollouts.mask)
    assert rollouts.prompt_mask.sum(1).tolist() == [len(policy.tokenizer(p)["input_ids"]) for p in rollouts.prompts]


def test_the_cap_counts_the_prefix():
    policy, prefixes = random_model(seed=2), [" 3 + 7", ""]
    rollouts = sample(policy, EVEN, 4, max_new_tokens=9, ignore_eos=True, prefixes=prefixes)
    assert (rollouts.written.sum(1) == 9).all() and rollouts.truncated.all()
    assert rollouts.lengths.tolist() == [6] * 4 + [9] * 4
    with pytest.raises(RlinoError, match="a prefix of 3 tokens leaves nothing to sample under a cap of 3"):
        sample(policy, EVEN, 4, max_new_tokens=3, prefixes=prefixes)
    with pytest.raises(RlinoError, match="3 prefixes for 2 prompts"):
        sample(policy, EVEN, 4, prefixes=["", "", ""])


def test_no_prefix_and_an_empty_one_are_the_same():
    policy = random_model(seed=2)
    none, empty = (sample(policy, UNEVEN, 2, max_new_tokens=12, prefixes=p) for p in ((), [""] * 4))
    assert torch.equal(none.ids, empty.ids) and torch.equal(none.logprobs, empty.logprobs)


def test_a_stop_string_may_begin_in_the_prefix():
    policy = random_model(seed=2)
    free = sample(policy, EVEN[:1], 8, max_new_tokens=12, prefixes=[" 3 + 7"], temperature=0)
    begun = TOKENIZER.decode(free.ids[0, :4])  # the prefix and the first token after it
    ended = sample(policy, EVEN[:1], 8, max_new_tokens=12, prefixes=[" 3 + 7"], temperature=0, stop_strings=[begun[3:]])
    assert ended.lengths.tolist() == [1] * 8 and not ended.truncated.any() and ended.texts[0] == begun


# --- a prefix for each response --------------------------------------------------------------------------------------

OF_ROWS = [
    "", " 3 + 7 = 10", " 8", "", " 8", " 8", "", " 8", " 1 - 1", " 2", " 1 - 1", " 3", "", "", "", " 5 * 7 = 35",
]  # fmt: skip


@pytest.mark.parametrize("environment", [None, Echo()])
@pytest.mark.parametrize("rows", [3, 4, 64])
def test_each_response_may_have_a_prefix_of_its_own(rows, environment):
    policy, cap, size = random_model(seed=5), 30, 4
    settings = dict(max_new_tokens=cap, seed=2, prefixes=OF_ROWS, environment=environment)
    rollouts = sample(policy, UNEVEN, size, max_rows=rows, **settings)
    uniform = torch.rand(len(rollouts.ids), cap, generator=torch.Generator().manual_seed(2))
    for i, (ids, mask, written) in enumerate(zip(rollouts.ids, rollouts.mask, rollouts.written, strict=True)):
        expected, own = slowly(policy, UNEVEN[i // size], uniform[i], cap, environment, OF_ROWS[i])
        assert ids[written].tolist() == expected and mask[written].tolist() == own
        assert rollouts.texts[i] == TOKENIZER.decode(expected, skip_special_tokens=True)
    with torch.no_grad():
        full, seen = response_logprobs(policy.model, rollouts, torch.arange(len(rollouts.ids)))
    assert torch.equal(seen, rollouts.mask) and (full - rollouts.logprobs)[seen].abs().max() < 1e-5


def test_equal_prefixes_of_a_group_are_read_once():
    policy, seen, size = random_model(seed=5), [], 4

    def spy(module, args, kwargs):
        seen.append(kwargs["input_ids"].shape[0])

    handle = policy.model.register_forward_pre_hook(spy, with_kwargs=True)
    sample(policy, UNEVEN, size, max_new_tokens=30, prefixes=OF_ROWS)
    handle.remove()
    assert seen[0] == len({(i // size, prefix) for i, prefix in enumerate(OF_ROWS)}) == 10


def test_one_prefix_for_all_of_a_group_is_one_for_each_prompt():
    policy, prefixes = random_model(seed=5), ["", " 3 + 7 = 10", " 8", " 1 - 1"]
    by_row = [prefix for prefix in prefixes for _ in range(4)]
    one, other = (sample(policy, UNEVEN, 4, max_new_tokens=30, seed=2, prefixes=p) for p in (prefixes, by_row))
    for name in ("ids", "mask", "written", "logprobs", "entropies", "truncated", "prompt_ids"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


# --- an environment for each response --------------------------------------------------------------------------------


class Says(Echo):
    """An echo with a word of its own, consulted after other strings."""

    def __init__(self, word, after):
        self.word, self.after = word, after

    def answer(self, text):
        return f" {self.word}" if text.endswith(self.after) else ""


@pytest.mark.parametrize("rows", [3, 4, 64])
def test_each_response_may_have_an_environment_of_its_own(rows):
    policy, cap, size = random_model(seed=5), 30, 4
    environments = [Says(k, ("+", "2") if k % 2 else ("4", "=")) for k in range(len(UNEVEN) * size)]
    rollouts = sample(policy, UNEVEN, size, max_new_tokens=cap, seed=2, max_rows=rows, environment=environments)
    uniform = torch.rand(len(rollouts.ids), cap, generator=torch.Generator().manual_seed(2))
    for i, (ids, mask, written) in enumerate(zip(rollouts.ids, rollouts.mask, rollouts.written, strict=True)):
        expected, own = slowly(policy, UNEVEN[i // size], uniform[i], cap, environments[i])
        assert ids[written].tolist() == expected and mask[written].tolist() == own
    assert (rollouts.written & ~rollouts.mask).any(1).sum() > 2


def test_one_environment_for_each_prompt_is_one_for_each_response():
    policy = random_model(seed=5)
    of_prompts = [Says(k, ("+", "2", "4")) for k in range(4)]
    of_rows = [environment for environment in of_prompts for _ in range(4)]
    settings = dict(max_new_tokens=30, seed=2)
    one, other = (sample(policy, UNEVEN, 4, environment=each, **settings) for each in (of_prompts, of_rows))
    same, shared = (sample(policy, UNEVEN, 4, environment=each, **settings) for each in ([Echo()] * 4, Echo()))
    for name in ("ids", "mask", "written", "logprobs"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert torch.equal(getattr(same, name), getattr(shared, name)), name
    with pytest.raises(RlinoError, match="3 environments for 4 prompts"):
        sample(policy, UNEVEN, 4, environment=of_prompts[:3])
