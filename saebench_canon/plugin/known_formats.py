"""Formats with plugins of their own: their files, and how to install the plugin."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """A format: the library that writes it, the files of a checkpoint, and its plugin."""

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


def lacking_scheme(scheme: str) -> str | None:
    """The sentence that says how to install the plugin of a scheme."""
    return next((install(known) for known in (*KNOWN, OPENAI) if known.scheme == scheme), None)


def install(known: Known) -> str:
    """The sentence that names the format and says how to install its plugin."""
    return (
        f"It looks like a checkpoint of {known.name}: `pip install {known.distribution}` "
        f"(in a clone: `pip install ./{known.folder}`) installs the plugin that reads it."
    )
