"""What a data table of a suite says: where activations come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from saebench_canon.plugin.adapter import Normalisation

Dtype = Literal["float32", "float64", "bfloat16", "float16"]
SPLIT_SEED = 0


@dataclass(frozen=True)
class DataSpec:
    """Where activations come from: a model reading a text, or a file."""

    name: str
    where: str
    model: str | None = None
    hook: str | None = None
    text: str | None = None
    split: str = "train"
    column: str = "text"
    subset: str | None = None
    revision: str | None = None
    model_revision: str | None = None
    context: int = 128
    tokens: int | None = None
    holdout: float | None = None
    loss_tokens: int = 32_768
    file: Path | None = None
    dtype: Dtype = "float32"
    center: bool | None = None
    normalize: Normalisation | None = None
    limited: bool = False
    root: Path = field(default=Path(), compare=False)

    @property
    def calibrates_on(self) -> str:
        """The input whose activations set thresholds: those not scored, where some are held out."""
        return "acts" if self.holdout is None else "train_acts"

    @property
    def has_model(self) -> bool:
        """Whether a language model is at hand."""
        return self.model is not None
