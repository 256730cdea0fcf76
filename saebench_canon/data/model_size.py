"""How large are a model and its text? Estimated offline and without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saebench_canon.data import language_model
from saebench_canon.data.model_config import model_config
from saebench_canon.data.text import TextSource
from saebench_canon.plugin.data import ModelSize
from saebench_canon.saes.hub_download import cached_files

PYTHON_DOCS = 400_000  # tokens of packaged:python-docs
BYTES_PER_TOKEN = 4  # of English text

# Models of the packaged suites, whose size is known before their configuration is downloaded.
KNOWN = {
    "gpt2": ModelSize(768, 12, 50_257, 124_439_808, download=548_105_171),
    "openai-community/gpt2": ModelSize(768, 12, 50_257, 124_439_808, download=548_105_171),
    "google/gemma-2-2b": ModelSize(2304, 26, 256_000, 2_614_341_888, download=2 * 2_614_341_888),
}


def tokens_of(source: TextSource, limit: int | None) -> int | None:
    """Tokens of a text: the limit, or fewer if a local text is estimated to have fewer."""
    available: float | None = None
    if source.kind == "packaged":
        available = PYTHON_DOCS
    elif source.kind == "file" and Path(source.name).suffix != ".parquet":
        available = Path(source.name).stat().st_size / BYTES_PER_TOKEN
    known = [count for count in (limit, available) if count is not None]
    return round(min(known)) if known else None


def reach(hook: str, layers: int) -> float:
    """The share of the layers that run before the value at the hook is known."""
    numbers = [int(part) for part in hook.split(".") if part.isdigit()]
    return min(1.0, (numbers[0] + ("resid_pre" not in hook)) / layers) if numbers else 1.0


def model_size(name: str, revision: str | None, root: Path) -> ModelSize | None:
    """The size of a language model, from its configuration or from `KNOWN`."""
    folder = language_model.model_folder(name, folder=root)
    local = folder is not None
    if folder is None:
        folder = cached_files(name, "", revision)
    size = None if folder is None else _of_config(folder)
    if size is None or folder is None or local:
        return size if local else size or KNOWN.get(name)
    weights = any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))
    return size if weights else KNOWN.get(name, size)


def _of_config(folder: Path) -> ModelSize | None:
    config = model_config(folder)
    if config is None or (layers := config.layers) is None:
        return None
    try:
        return _count(config.values, layers)
    except (TypeError, KeyError):
        return None  # a model whose layers differ lists their sizes


def _count(config: dict[str, Any], layers: int) -> ModelSize:
    """The size by a Hugging Face configuration, without biases and norms.

    Raises KeyError or TypeError if a size is missing or no number.
    """
    d = _number(config.get("hidden_size") or config["n_embd"])
    heads = _number(config.get("num_attention_heads") or config["n_head"])
    inner = _number(config.get("intermediate_size") or config.get("n_inner") or 4 * d)
    size = _number(config.get("head_dim") or d // heads)
    shared = _number(config.get("num_key_value_heads") or heads)
    attention = 2 * d * size * (heads + shared)
    gates = 2 if config.get("model_type") in ("gpt2", "gpt_neox", "gptj", "opt") else 3
    vocabulary = _number(config["vocab_size"])
    tables = 1 if config.get("tie_word_embeddings", True) else 2
    parameters = layers * (attention + gates * d * inner) + tables * vocabulary * d
    return ModelSize(d, layers, vocabulary, parameters)


def _number(value: object) -> int:
    if type(value) is not int or value < 1:
        raise TypeError(f"{value!r} is not a positive whole number")
    return value
