"""Formats whose plugins come apart: how their checkpoints look, and what installs each."""

from __future__ import annotations

from dataclasses import dataclass


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


def lacking_scheme(scheme: str) -> str | None:
    """The sentence on what installs the plugin of a scheme."""
    return next((install(each) for each in (*KNOWN, OPENAI) if each.scheme == scheme), None)


def install(known: Known) -> str:
    """The sentence that names the format and what installs its plugin."""
    return (
        f"It looks like a checkpoint of {known.name}: `pip install {known.distribution}` "
        f"(in a clone: `pip install ./{known.folder}`) installs the plugin that reads it."
    )
