"""What the inputs of cases cost: text, activations, trained SAEs, codes, losses.

The constants were fitted to the records of a quickstart on two quiet cores that do 52e9 float32
multiply-adds a second each in numpy. docs/suites.md says how accurate they are. The cost of a
metric is in its room.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from saebench_canon.plugin.cost import Dictionary, Work
from saebench_canon.plugin.data import DataSize, ModelSize

START = 6.0  # seconds in which a worker imports torch and transformers
BASE = 1000 * 2**20  # bytes of a worker after its imports, with mapped activations
READ_TEXT = 2e-5  # seconds a token to read and tokenise
LM_FACTOR = 1.8  # seconds of a forward pass over those of its products (tiny-lm, GPT-2)
TRAIN_STEP = 1.9e-3  # seconds of a training step besides its products
TRAIN_FACTOR = 2.7  # multiply-adds of a step, divided by batch · d · width
WINDOWS = 4096  # tokens of a batch of windows, and of codes


def extraction(data: DataSize, tokens: int, model: ModelSize) -> Work:
    """Reading the text and running the model up to the hook."""
    body = model.parameters - model.vocabulary * model.d
    return Work(LM_FACTOR * tokens * body * data.reach, READ_TEXT * tokens)


def losses(data: DataSize, model: ModelSize, passes: int) -> Work:
    """Full forward passes over the tokens that losses use."""
    return Work(LM_FACTOR * passes * _loss_tokens(data) * model.parameters)


def encoding(n: int, sae: Dictionary) -> Work:
    """Codes of n tokens."""
    return Work(n * sae.d * sae.width, 3e-9 * n * sae.width)


def loss_with(data: DataSize, model: ModelSize, saes: Iterable[Dictionary]) -> Work:
    """A forward pass with a reconstruction that is computed from all these SAEs."""
    tokens = _loss_tokens(data)
    return sum((encoding(tokens, sae) for sae in saes), losses(data, model, 1))


def _loss_tokens(data: DataSize) -> int:
    return min(data.loss_tokens, data.scored or data.loss_tokens)


def training(sae: Dictionary, settings: Mapping[str, Any]) -> Work:
    """Training on as many tokens as the settings say."""
    tokens, batch = settings.get("tokens", 0), settings.get("batch_size", 1024)
    return Work(TRAIN_FACTOR * tokens * sae.d * sae.width, TRAIN_STEP * tokens / batch)


def rows_bytes(saes: Iterable[Dictionary]) -> float:
    """The largest SAE's decoder rows in float64: what a metric without `cost=` may take."""
    return float(max(8 * sae.width * sae.d for sae in saes))


def codes_bytes(n: int, sae: Dictionary) -> float:
    """Codes of n tokens in memory."""
    return n * (8 + 8 * sae.l0)


def encoding_bytes(sae: Dictionary) -> float:
    """A batch of dense codes and its selection."""
    return 2 * 4 * WINDOWS * sae.width


def training_bytes(sae: Dictionary, batch: int) -> float:
    """Parameters, gradients and Adam's two moments, and a batch of codes."""
    return 4 * (4 * 2 * sae.d * sae.width + 4 * batch * sae.width)


def model_bytes(model: ModelSize, item: int) -> float:
    """A language model's weights, and the logits of a batch of windows."""
    return item * model.parameters + 2 * 4 * WINDOWS * model.vocabulary
