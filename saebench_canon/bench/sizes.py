"""How large the things of a suite are, as far as can be known offline and without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saebench_canon.data import language_model
from saebench_canon.data.sources import text_source
from saebench_canon.errors import CanonError
from saebench_canon.plugin.data import DataSpec
from saebench_canon.plugin.ref import Ref
from saebench_canon.plugin.registry import Registry
from saebench_canon.saes.hub_files import cached_files, repository_of
from saebench_canon.saes.memory import ITEM
from saebench_canon.suite.specs import SaeSpec, Suite, TrainSpec

L0_SHARE = 1 / 16  # of d, where nobody says how many latents are active
PYTHON_DOCS = 400_000  # tokens of packaged:python-docs
BYTES_A_TOKEN = 4  # of English text
WHOLE = 0.5  # the share of an SAE's weights from which its files count as downloaded


@dataclass(frozen=True)
class ModelSize:
    """A language model: width, layers, vocabulary, parameters, and bytes still to download."""

    d: int
    layers: int
    vocabulary: int
    parameters: int
    download: int = 0


# Models of the packaged suites, whose size is known before their configuration is downloaded.
KNOWN = {
    "gpt2": ModelSize(768, 12, 50_257, 124_439_808, download=548_105_171),
    "openai-community/gpt2": ModelSize(768, 12, 50_257, 124_439_808, download=548_105_171),
    "google/gemma-2-2b": ModelSize(2304, 26, 256_000, 2_614_341_888, download=2 * 2_614_341_888),
}


@dataclass(frozen=True)
class DataSize:
    """Activations: tokens in all and scored, width, the model and how much of it is below."""

    tokens: int | None
    scored: int | None
    d: int | None
    model: ModelSize | None = None
    reach: float = 1.0
    loss_tokens: int = 0


@dataclass(frozen=True)
class SaeSize:
    """An SAE: width of its activations, latents, active latents a token, bytes to download."""

    d: int | None
    width: int | None
    l0: float = 0.0
    download: int | None = 0  # None: unknown

    @property
    def entries(self) -> int | None:
        """Numbers in encoder and decoder."""
        return None if self.d is None or self.width is None else 2 * self.d * self.width


def sizes_of(suite: Suite, registry: Registry) -> tuple[dict[str, DataSize], dict[str, SaeSize]]:
    """What is known of each data table's size and of each SAE's, by name."""
    told = {sae.name: _told(sae, registry) for sae in suite.saes}
    data = {}
    for name, spec in suite.data.items():
        there = [told[sae.name][0] for sae in suite.saes if sae.data == name]
        data[name] = _data_size(spec, next((d for d in there if d is not None), None))
    others = {d for d, _, _ in told.values() if d is not None}
    saes = {}
    for sae in suite.saes:
        d, width, k = told[sae.name]
        if d is None:
            d = data[sae.data].d if sae.data else min(others) if len(others) == 1 else None
        saes[sae.name] = _sae_size(sae, d, width, k)
    return data, saes


def _told(sae: SaeSpec, registry: Registry) -> tuple[int | None, int | None, float | None]:
    """An SAE's d, width and k, by its training, its checkpoint or its axes."""
    axis = sae.axes.get("width")
    width = axis if type(axis) is int else None
    if isinstance(sae.source, TrainSpec):
        return None, sae.source.width, sae.source.settings.get("k")
    if isinstance(sae.source, Ref):
        with suppress(CanonError):  # not in the cache, or what is wrong with it is said elsewhere
            found = registry.adapter(sae.source.scheme).describe(sae.source)
            return found.d, found.width or width, found.k
    return None, width, None


def _sae_size(sae: SaeSpec, d: int | None, width: int | None, k: float | None) -> SaeSize:
    l0 = float(k) if k is not None else L0_SHARE * (d or 0)
    size = SaeSize(d, width, l0)
    if not isinstance(sae.source, Ref) or sae.source.local:
        return size
    weights = None if size.entries is None else size.entries * ITEM["float32"]
    there = cached_bytes(sae.source)
    if there and (weights is None or there >= WHOLE * weights):
        return size
    return SaeSize(d, width, l0, download=weights)


def cached_bytes(ref: Ref) -> int:
    """How many bytes the hub's cache has of an SAE's files."""
    with suppress(CanonError):
        repository, folder = repository_of(ref)
        if ref.scheme == "saelens":
            from saebench_canon.saes.formats import saelens_hub

            place = saelens_hub.locate(ref)
            repository, folder = place.repository, place.folder
        found = cached_files(repository, folder, ref.revision)
        if found is not None:
            return sum(each.stat().st_size for each in found.iterdir() if each.is_file())
    return 0


def _data_size(data: DataSpec, d: int | None) -> DataSize:
    if data.file is not None:
        from saebench_canon.saes.weights.safetensors_file import read_header

        n, width = read_header(data.file)["acts"].shape
        n = n if data.tokens is None else min(n, data.tokens)
        return DataSize(n, _scored(n, data.holdout), width)
    model = model_size(data)
    tokens = _tokens(data)
    return DataSize(
        tokens,
        None if tokens is None else _scored(tokens, data.holdout),
        d if model is None else model.d,
        model,
        1.0 if model is None else _reach(data.hook or "", model.layers),
        data.loss_tokens,
    )


def _scored(tokens: int, holdout: float | None) -> int:
    return tokens if holdout is None else round(holdout * tokens)


def _tokens(data: DataSpec) -> int | None:
    """Tokens of a text: as many as are asked for, or as a local text may have."""
    source = text_source(data)
    there: float | None = None
    if source.kind == "packaged":
        there = PYTHON_DOCS
    elif source.kind == "file" and Path(source.name).suffix != ".parquet":
        there = Path(source.name).stat().st_size / BYTES_A_TOKEN
    known = [each for each in (data.tokens, there) if each is not None]
    return round(min(known)) if known else None


def _reach(hook: str, layers: int) -> float:
    """The share of the layers that run before the hook's value is there."""
    numbers = [int(part) for part in hook.split(".") if part.isdigit()]
    return min(1.0, (numbers[0] + ("resid_pre" not in hook)) / layers) if numbers else 1.0


def model_size(data: DataSpec) -> ModelSize | None:
    """The size of a data table's language model, by its configuration or as known."""
    assert data.model is not None
    folder = language_model.model_folder(data.model, folder=data.root)
    local = folder is not None
    if folder is None:
        folder = cached_files(data.model, "", data.model_revision)
    found = None if folder is None else _of_config(folder)
    if found is None or folder is None or local:
        return found if local else found or KNOWN.get(data.model)
    weights = any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))
    return found if weights else KNOWN.get(data.model, found)


def _of_config(folder: Path) -> ModelSize | None:
    try:
        config = json.loads((folder / language_model.CONFIG).read_text(encoding="utf-8"))
        return _count({**config, **(config.get("text_config") or {})})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # what is wrong with it is said when it is loaded


def _count(config: Mapping[str, Any]) -> ModelSize:
    """The size that a configuration in Hugging Face's words gives, biases and norms left out."""
    d = config.get("hidden_size") or config["n_embd"]
    layers = config.get("num_hidden_layers") or config["n_layer"]
    heads = config.get("num_attention_heads") or config["n_head"]
    inner = config.get("intermediate_size") or config.get("n_inner") or 4 * d
    size = config.get("head_dim") or d // heads
    shared = config.get("num_key_value_heads") or heads
    attention = 2 * d * size * (heads + shared)
    gates = 2 if config.get("model_type") in ("gpt2", "gpt_neox", "gptj", "opt") else 3
    vocabulary = config["vocab_size"]
    tables = 1 if config.get("tie_word_embeddings", True) else 2
    parameters = layers * (attention + gates * d * inner) + tables * vocabulary * d
    return ModelSize(d, layers, vocabulary, parameters)
