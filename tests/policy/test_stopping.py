"""Stop strings: a response ends with the token that completes one, found without decoding every row at every step."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlino_lib.policy.sampling import sample
from rlino_lib.policy.stopping import StopStrings
from tests.lookalikes import lookalike, texts
from tests.policy.test_rollout import EVEN, random_model

PROMPTS = ["Question: 1 + 1?\nAnswer:", "Question: how many eggs are 3 eggs and 4 eggs?\nAnswer:"]
TOKENIZER = lookalike(vocab_size=700).tokenizer


def first_end(ids: list[int], stops: list[str]) -> int | None:
    """The number of tokens up to which a text has to be decoded to hold a stop string, the slow way."""
    for n in range(1, len(ids) + 1):
        if any(s in TOKENIZER.decode(ids[:n], skip_special_tokens=False) for s in stops):
            return n
    return None


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_rows_end_where_their_text_first_holds_a_stop_string(temperature):
    policy = lookalike(vocab_size=700, seed=1)  # 100 entries that the tokenizer does not have
    policy.model.generation_config.eos_token_id = 0
    ask = dict(max_new_tokens=40, temperature=temperature, seed=3)
    free = sample(policy, PROMPTS, 16, **ask)
    stops = [re.search(r"[ -~]{3}", free.texts[row][9:])[0] for row in (0, 17)]  # of ASCII, somewhere within
    found = sample(policy, PROMPTS, 16, stop_strings=stops, **ask)
    ends = [first_end(row[mask].tolist(), stops) for row, mask in zip(free.ids, free.mask, strict=True)]
    assert ends[0] and ends[17] and (temperature == 0 or not all(ends))
    for i, end in enumerate(ends):
        n = end or int(free.lengths[i])
        assert found.ids[i][found.mask[i]].tolist() == free.ids[i][:n].tolist()
        assert found.truncated[i] == (free.truncated[i] and not end)
        assert torch.allclose(found.logprobs[i, :n], free.logprobs[i, :n], atol=1e-5)
        assert (found.logprobs[i, n:] == 0).all() and not end or any(s in found.texts[i] for s in stops)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_the_newest_token_completes_a_stop_string_exactly_when_the_text_holds_one(data):
    text = data.draw(st.sampled_from(texts()))[:60] + data.draw(st.sampled_from(["", " é ü", "<|im_end|>", "½\n\n "]))
    low = data.draw(st.integers(0, len(text) - 1))
    stop = text[low : low + data.draw(st.integers(1, 8))]
    ids = TOKENIZER(text).input_ids
    if data.draw(st.booleans()):  # other tokens for the same text: each byte on its own
        ids = [i for piece in text for i in TOKENIZER(piece).input_ids]
    stops = StopStrings(TOKENIZER, [stop, "never"], torch.device("cpu"))
    end = first_end(ids, [stop])
    alive = torch.ones(data.draw(st.integers(1, end)), 1, dtype=torch.bool)  # [k, 1], the tokens that are new
    for n in range(len(alive), end + 1):
        tail = torch.tensor(ids[max(0, n - len(alive) + 1 - stops.reach) : n])[:, None]  # [t, 1]
        assert stops.reached(tail, alive).flatten().tolist() == [False] * (len(alive) - 1) + [n == end]
    assert not stops.reached(tail, ~alive).any()


def test_without_stop_strings_there_is_nothing_to_look_at(monkeypatch):
    monkeypatch.setattr(StopStrings, "reached", lambda *a: pytest.fail("looked"))
    sample(random_model(), EVEN, 4, max_new_tokens=8)
    sample(random_model(), EVEN, 4, max_new_tokens=8, stop_strings=["<think>"], ignore_eos=True)
