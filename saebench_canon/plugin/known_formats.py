"""Formats whose plugins come apart: how their checkpoints look, and what installs each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from saebench_canon.errors import CanonError
from saebench_canon.saes.weights.torch_file import open_torch


@dataclass(frozen=True)
class Known:
    """A format: what makes its checkpoints, the files that they consist of, and its plugin."""

    scheme: str
    name: str
    files: tuple[frozenset[str], ...]  # any of these sets
    distribution: str
    folder: str  # in a clone


KNOWN = (
    Known(
        "dictionary-learning", "dictionary_learning", (frozenset({"ae.pt", "config.json"}),),
        "saebench-canon-dictionary-learning", "plugins/dictionary-learning",
    ),
    Known(
        "sparsify", "EleutherAI sparsify", (frozenset({"sae.safetensors", "cfg.json"}),),
        "saebench-canon-sparsify", "plugins/sparsify",
    ),
    Known(
        "batchtopk", "the BatchTopK repository",
        (frozenset({"sae.pt", "config.json"}), frozenset({"SAE.pt", "Config.json"})),
        "saebench-canon-batchtopk", "plugins/batchtopk",
    ),
)  # fmt: skip
OPENAI = Known("openai", "OpenAI sparse_autoencoder", (), "saebench-canon-openai", "plugins/openai")
_OPENAI_KEYS = frozenset({"pre_bias", "latent_bias"})


def lacking_scheme(scheme: str) -> str | None:
    """The sentence on what installs the plugin of a scheme."""
    return next((install(each) for each in (*KNOWN, OPENAI) if each.scheme == scheme), None)


def lacking_plugin(path: Path, *, below: bool = True) -> Known | None:
    """The format of a path that nobody claims, where its plugin comes apart."""
    folders = [path.parent] if path.is_file() else [path]
    if below and path.is_dir():
        folders += [*path.glob("*/"), *path.glob("*/*/")]
    for folder in folders:
        names = {each.name for each in folder.iterdir()} if folder.is_dir() else set()
        for known in KNOWN:
            fitting = [files for files in known.files if files <= names]
            if any(path.is_dir() or path.name in files for files in fitting):
                return known
    return OPENAI if _is_openai(path) else None


def _is_openai(path: Path) -> bool:
    """Whether a file has the keys that no other format's has."""
    if path.suffix != ".pt" or not path.is_file():
        return False
    try:
        return open_torch(path).keys() >= _OPENAI_KEYS
    except CanonError:
        return False


def install(known: Known) -> str:
    """The sentence that names the format and what installs its plugin."""
    return (
        f"It looks like a checkpoint of {known.name}: `pip install {known.distribution}` "
        f"(in a clone: `pip install ./{known.folder}`) installs the plugin that reads it."
    )
