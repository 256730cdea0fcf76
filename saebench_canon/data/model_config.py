"""What a language model's config.json says, read without transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saebench_canon.saes.weights.json_file import read_json, whole_number

CONFIG = "config.json"


@dataclass(frozen=True)
class ModelConfig:
    """A configuration; of a model of text and images, the part on text comes first."""

    path: Path
    values: dict[str, Any]

    @property
    def layers(self) -> int | None:
        """The number of blocks."""
        return whole_number(self.values, "num_hidden_layers", "n_layer", path=self.path)

    @property
    def positions(self) -> int | None:
        """The longest context."""
        return whole_number(self.values, "max_position_embeddings", "n_positions", path=self.path)

    @property
    def name(self) -> str | None:
        """The model that the folder was saved from, if the configuration names it."""
        name = self.values.get("_name_or_path")
        return name if isinstance(name, str) else None


def model_config(folder: Path) -> ModelConfig | None:
    """The configuration in a folder; None if it has none, which loading the model will tell.

    Raises:
        CanonError: the file is damaged.
    """
    path = folder / CONFIG
    if not path.exists():
        return None
    values = read_json(path)
    inner = values.get("text_config")
    return ModelConfig(path, {**values, **inner} if isinstance(inner, dict) else values)
