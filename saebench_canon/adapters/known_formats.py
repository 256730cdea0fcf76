"""Formats whose plugins come apart: how their checkpoints look, and what installs each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from saebench_canon.errors import CanonError
from saebench_canon.weights.torch_file import open_torch


@dataclass(frozen=True)
class Known:
    """A format: what makes its checkpoints, the files that they consist of, and its plugin."""

    name: str
    files: tuple[frozenset[str], ...]  # any of these sets
    distribution: str
    folder: str  # in a clone


KNOWN = (
    Known(
        "dictionary_learning", (frozenset({"ae.pt", "config.json"}),),
        "saebench-canon-dictionary-learning", "plugins/dictionary-learning",
    ),
    Known(
        "EleutherAI sparsify", (frozenset({"sae.safetensors", "cfg.json"}),),
        "saebench-canon-sparsify", "plugins/sparsify",
    ),
    Known(
        "the BatchTopK repository",
        (frozenset({"sae.pt", "config.json"}), frozenset({"SAE.pt", "Config.json"})),
        "saebench-canon-batchtopk", "plugins/batchtopk",
    ),
)  # fmt: skip
OPENAI = Known("OpenAI sparse_autoencoder", (), "saebench-canon-openai", "plugins/openai")
_OPENAI_KEYS = frozenset({"pre_bias", "latent_bias"})


def lacking_plugin(path: Path) -> str | None:
    """The sentence that names the format of a path nobody claims, and what installs its plugin."""
    folders = [path.parent] if path.is_file() else [path, *path.glob("*/"), *path.glob("*/*/")]
    for folder in folders:
        names = {each.name for each in folder.iterdir()} if folder.is_dir() else set()
        for known in KNOWN:
            fitting = [files for files in known.files if files <= names]
            if any(path.is_dir() or path.name in files for files in fitting):
                return _install(known)
    return _install(OPENAI) if _is_openai(path) else None


def _is_openai(path: Path) -> bool:
    """Whether a file has the keys that no other format's has."""
    if path.suffix != ".pt" or not path.is_file():
        return False
    try:
        return open_torch(path).keys() >= _OPENAI_KEYS
    except CanonError:
        return False


def _install(known: Known) -> str:
    return (
        f"It looks like a checkpoint of {known.name}: `pip install {known.distribution}` "
        f"(in a clone: `pip install ./{known.folder}`) installs the plugin that reads it."
    )
