"""Tiny models with random weights, one of each family, and a tokenizer of letters."""

from __future__ import annotations

import pytest
import torch
import transformers
from clone import SHARED
from tokenizers import Tokenizer, models, pre_tokenizers

from saebench_canon.data.language_model import LanguageModel

STORIES = SHARED / "data" / "stories260K"
TINYSTORIES = SHARED / "data" / "tinystories-1000.jsonl"
needs_stories = pytest.mark.skipif(
    not (STORIES.is_dir() and TINYSTORIES.is_file()),
    reason="stories260K and tinystories-1000.jsonl are not here",
)

LETTERS = "abcdefghijklmnopqrstuvwxyz "
VOCABULARY = {"<unk>": 0, "<s>": 1, **{letter: 2 + at for at, letter in enumerate(LETTERS)}}
LAYERS, WIDTH = 3, 16

_COMMON = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
_NEOX = {key: _COMMON[key] for key in _COMMON if key not in {"num_key_value_heads", "head_dim"}}
_GEMMA = {**_COMMON, "query_pre_attn_scalar": 8, "sliding_window": 8}
CONFIGS = {
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=len(VOCABULARY),
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=2,
        n_positions=64,
        bos_token_id=1,
        eos_token_id=1,
    ),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**_NEOX),
    "gpt_neox-sequential": lambda: transformers.GPTNeoXConfig(**_NEOX, use_parallel_residual=False),
    "llama": lambda: transformers.LlamaConfig(**_COMMON),
    "mistral": lambda: transformers.MistralConfig(**_COMMON),
    "qwen2": lambda: transformers.Qwen2Config(**_COMMON),
    "qwen3": lambda: transformers.Qwen3Config(**_COMMON),
    "gemma": lambda: transformers.GemmaConfig(**_COMMON),
    "gemma2": lambda: transformers.Gemma2Config(**_GEMMA),
    "gemma3_text": lambda: transformers.Gemma3TextConfig(**_GEMMA),
}
FAMILIES = tuple(CONFIGS)
LAYER_NORM = ("gpt2", "gpt_neox", "gpt_neox-sequential")


def letter_tokenizer(*, bos: bool = True) -> transformers.PreTrainedTokenizerFast:
    """A token for each letter."""
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>" if bos else None
    )


def tiny(family: str, *, bos: bool = True, spread: float = 0.3) -> LanguageModel:
    """A model of the family whose weights are random and large enough to matter."""
    config = CONFIGS[family]()
    config._attn_implementation = "eager"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for name, weight in model.named_parameters():
            offset = 1.0 if "ln" in name and "weight" in name else 0.0
            weight.data = offset + spread * torch.randn_like(weight)
    model.requires_grad_(False)
    return LanguageModel(family, family, model.eval(), letter_tokenizer(bos=bos))
