"""The built-in trainers: SAELens' training classes, their settings and defaults.

Activations are scaled to a mean squared norm of d and the factor is folded back into what is
saved, so lr, l1 and l0 carry over between models. `warm_up` and `decay` are shares of the steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.errors import CanonError
from saebench_canon.plugin.trainer import Trained, trainer

if TYPE_CHECKING:
    from saebench_canon.plugin.acts import Acts

TOKENS = 2_000_000
BATCH_SIZE = 1024
LR = 1e-3
WARM_UP = 0.02
DECAY = 0.3
DECODER_NORM = 0.1  # of each row at the start
AUX_COEFFICIENT = 1 / 32
AUX_K = 512
DEAD_AFTER = 100_000  # tokens
HELD_OUT = 0.05  # share of the training tokens that sets the threshold of eq. 8


@trainer(version=1)
def relu(
    acts: Acts,
    folder: Path,
    *,
    width: int,
    seed: int,
    tokens: int = TOKENS,
    batch_size: int = BATCH_SIZE,
    lr: float = LR,
    warm_up: float = WARM_UP,
    decay: float = DECAY,
    l1: float = 1.0,
    l1_warm_up: float = 0.05,
    decoder_norm: float = DECODER_NORM,
) -> Trained:
    """ReLU with `‖x−x̂‖² + l1 Σ f_i ‖w_i‖`."""
    from sae_lens import StandardTrainingSAEConfig

    from saebench_canon.trainers import loop

    schedule = loop.Schedule(tokens, batch_size, lr, warm_up, decay)
    rise = max(l1_warm_up * schedule.steps, 1)
    return loop.run(
        StandardTrainingSAEConfig(acts.d, width, decoder_init_norm=decoder_norm, l1_coefficient=l1),
        acts,
        folder,
        schedule,
        seed=seed,
        gradients=loop.ClosedForm(l1=lambda step: l1 * min((step + 1) / rise, 1.0)),
    )


@trainer(version=1)
def topk(
    acts: Acts,
    folder: Path,
    *,
    width: int,
    seed: int,
    tokens: int = TOKENS,
    batch_size: int = BATCH_SIZE,
    lr: float = LR,
    warm_up: float = WARM_UP,
    decay: float = DECAY,
    k: int = 32,
    aux_coefficient: float = AUX_COEFFICIENT,
    aux_k: int = AUX_K,
    dead_after: int = DEAD_AFTER,
    decoder_norm: float = DECODER_NORM,
) -> Trained:
    """The k largest codes of each token; dead latents learn from the error that is left."""
    from sae_lens import TopKTrainingSAEConfig

    from saebench_canon.trainers import gradients, loop

    _check_k(k, width)
    return loop.run(
        TopKTrainingSAEConfig(acts.d, width, k=k, decoder_init_norm=decoder_norm),
        acts,
        folder,
        loop.Schedule(tokens, batch_size, lr, warm_up, decay),
        seed=seed,
        gradients=loop.ClosedForm(
            select=gradients.LargestOfEach(k),
            revival=gradients.Revival(aux_coefficient, aux_k, dead_after),
        ),
    )


@trainer(version=1)
def batchtopk(
    acts: Acts,
    folder: Path,
    *,
    width: int,
    seed: int,
    tokens: int = TOKENS,
    batch_size: int = BATCH_SIZE,
    lr: float = LR,
    warm_up: float = WARM_UP,
    decay: float = DECAY,
    k: int = 32,
    aux_coefficient: float = AUX_COEFFICIENT,
    aux_k: int = AUX_K,
    dead_after: int = DEAD_AFTER,
    decoder_norm: float = DECODER_NORM,
    threshold_share: float = HELD_OUT,
) -> Trained:
    """The n·k largest codes of a batch of n; one threshold at inference, from tokens held out."""
    from sae_lens import BatchTopKTrainingSAEConfig

    from saebench_canon.trainers import gradients, loop

    _check_k(k, width)
    return loop.run(
        BatchTopKTrainingSAEConfig(acts.d, width, k=k, decoder_init_norm=decoder_norm),
        acts,
        folder,
        loop.Schedule(tokens, batch_size, lr, warm_up, decay),
        seed=seed,
        held=threshold_share,
        gradients=loop.ClosedForm(
            select=gradients.LargestOfBatch(k),
            revival=gradients.Revival(aux_coefficient, aux_k, dead_after),
        ),
    )


@trainer(version=1)
def matryoshka(
    acts: Acts,
    folder: Path,
    *,
    width: int,
    seed: int,
    tokens: int = TOKENS,
    batch_size: int = BATCH_SIZE,
    lr: float = LR,
    warm_up: float = WARM_UP,
    decay: float = DECAY,
    k: int = 32,
    levels: int = 4,
    aux_coefficient: float = AUX_COEFFICIENT,
    aux_k: int = AUX_K,
    dead_after: int = DEAD_AFTER,
    decoder_norm: float = DECODER_NORM,
    threshold_share: float = HELD_OUT,
) -> Trained:
    """BatchTopK whose first width/2, width/4, … latents must also reconstruct by themselves."""
    from sae_lens import MatryoshkaBatchTopKTrainingSAEConfig

    from saebench_canon.trainers import gradients, loop

    _check_k(k, width)
    if levels < 1 or width % 2 ** (levels - 1):
        raise CanonError(f"a width of {width} cannot be halved for {levels} levels")
    widths = tuple(width >> level for level in reversed(range(levels)))
    config = MatryoshkaBatchTopKTrainingSAEConfig(
        acts.d,
        width,
        k=k,
        matryoshka_widths=list(widths),
        decoder_init_norm=decoder_norm,
    )
    return loop.run(
        config,
        acts,
        folder,
        loop.Schedule(tokens, batch_size, lr, warm_up, decay),
        seed=seed,
        held=threshold_share,
        gradients=loop.ClosedForm(
            select=gradients.LargestOfBatch(k),
            widths=widths,
            revival=gradients.Revival(aux_coefficient, aux_k, dead_after),
        ),
    )


@trainer(version=1)
def jumprelu(
    acts: Acts,
    folder: Path,
    *,
    width: int,
    seed: int,
    tokens: int = TOKENS,
    batch_size: int = BATCH_SIZE,
    lr: float = LR,
    warm_up: float = WARM_UP,
    decay: float = DECAY,
    l0: float = 1.0,
    l0_warm_up: float = 0.1,
    bandwidth: float = 0.05,
    threshold: float = 0.01,
    decoder_norm: float = DECODER_NORM,
) -> Trained:
    """A learnt threshold for each latent with `‖x−x̂‖² + l0 ‖f‖₀`."""
    from sae_lens import JumpReLUTrainingSAEConfig

    from saebench_canon.trainers import loop

    schedule = loop.Schedule(tokens, batch_size, lr, warm_up, decay)
    rise = max(l0_warm_up * schedule.steps, 1)
    config = JumpReLUTrainingSAEConfig(
        acts.d,
        width,
        decoder_init_norm=decoder_norm,
        jumprelu_bandwidth=bandwidth,
        jumprelu_init_threshold=threshold,
        l0_coefficient=l0,
    )
    return loop.run(
        config,
        acts,
        folder,
        schedule,
        seed=seed,
        gradients=loop.Autograd(lambda step: {"l0": l0 * min((step + 1) / rise, 1.0)}),
    )


TRAINERS: tuple[Any, ...] = (relu, topk, batchtopk, matryoshka, jumprelu)


def _check_k(k: float, width: int) -> None:
    if not 0 < k <= width:
        raise CanonError(
            f"k is {k} and the SAE has {width} latents", hint="k is between 1 and the width."
        )
