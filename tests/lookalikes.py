"""Small models of the make of those on the hub: Qwen2 and Llama, byte-level BPE, large vocabularies, pad = EOS."""

import json
from functools import lru_cache

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from rlino_lib.policy.models import Policy, add_lora
from rlino_lib.tasks import WordProblems
from rlino_lib.tasks.fetch import data_folder

LARGE = 151_936  # entries of Qwen-2.5's vocabulary, more than its tokenizer has
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@lru_cache(maxsize=1)
def texts() -> list[str]:
    """GSM8K's questions and solutions where they were fetched, else the shipped word problems."""
    path = data_folder("gsm8k") / "train.jsonl"
    if path.exists():
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:400]]
        return [f"Question: {r['question']}\nAnswer: {r['answer']}" for r in rows]
    task = WordProblems()
    return [f"{task.prompt(p)} {p.gold}" for p in task.problems("train", 400)]


@lru_cache(maxsize=1)
def bpe() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts(), trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    return tokenizer.to_str()


def lookalike(kind="qwen2", seed=0, lora=False, vocab_size=LARGE, **changes) -> Policy:
    """A random model with a tokenizer whose pad is its EOS, and two ids that end a response."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(bpe()), eos_token=SPECIAL[0], pad_token=SPECIAL[0], padding_side="left"
    )
    settings = dict(
        vocab_size=vocab_size, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=8192, bos_token_id=None, eos_token_id=0, pad_token_id=0,
        tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    config, cls = (Qwen2Config, Qwen2ForCausalLM) if kind == "qwen2" else (LlamaConfig, LlamaForCausalLM)
    torch.manual_seed(seed)
    model = cls(config(**(settings | changes))).eval()
    model.generation_config.eos_token_id = [0, 2]
    if lora:
        model = with_adapters(model)
    return Policy(model, tokenizer)


def with_adapters(model):
    model = add_lora(model, rank=4, alpha=8)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.3)
    return model.eval()
