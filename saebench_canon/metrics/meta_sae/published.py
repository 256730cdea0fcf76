"""A published meta-SAE, to be evaluated instead of one that is trained here."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from saebench_canon.errors import CanonError
from saebench_canon.kernels.meta_sae import PASSES, MetaSAE
from saebench_canon.kernels.random_generators import generator
from saebench_canon.plugin.sae import CanonicalSAE, LinearEncoder
from saebench_canon.saes.calibration import least_selected

BATCH = 16384  # rows of a batch from which a missing threshold is calibrated


def published(sae: CanonicalSAE, rows: Tensor, k: int | None = None) -> MetaSAE:
    """The meta-SAE (B = 1) that a loaded SAE is, to be evaluated on unit rows [m, d].

    A meta-SAE that selects over batches and has no threshold gets the threshold of eq. 8 on these
    rows: the least code selected in a batch of at most 16384 rows, averaged over the full batches
    of one permutation. `k` replaces the file's k. Decoder rows keep their stored norms.

    Raises CanonError for an SAE that is no meta-SAE of these rows: one of another d, with an
    encoder bias, that does not subtract its decoder bias from the rows, or that selects otherwise.
    """
    coder = sae.coder
    if sae.d != rows.shape[1]:
        raise CanonError(
            f"the meta-SAE takes rows with d = {sae.d}, and these rows have d = {rows.shape[1]}"
        )
    if not isinstance(coder, LinearEncoder) or coder.activation in ("topk", "gated"):
        kind = coder.activation if isinstance(coder, LinearEncoder) else "not linear"
        raise CanonError(
            f"the meta-SAE's encoder is {kind}; it must select over batches or by a threshold"
        )
    if bool((coder.bias != 0).any()):
        raise CanonError("the meta-SAE's encoder has a bias; the encoder of a meta-SAE has none")
    shift = torch.zeros_like(sae.b_dec) if coder.shift is None else coder.shift
    if not torch.equal(shift, sae.b_dec):
        raise CanonError("the meta-SAE does not subtract its decoder bias from the rows")
    W_enc, W_dec = coder.weights.T.contiguous(), sae.W_dec
    if coder.activation == "batchtopk":
        if coder.scale is not None:
            W_dec = W_dec * coder.scale[:, None]
        level = _level(replace(coder, k=coder.k if k is None else k), rows.to(W_dec))
    elif k is not None:
        raise CanonError(f"k = {k} has no effect: the meta-SAE stores its threshold")
    elif coder.threshold is None or not bool((coder.threshold > 0).any()):
        level = 0.0
    else:  # one threshold for all: what differs between latents goes into their codes' scale
        if not bool((coder.threshold > 0).all()):
            raise CanonError("some latents of the meta-SAE have a threshold and others have none")
        level = float(coder.threshold.double().mean())
        scale = coder.threshold / level
        W_enc, W_dec = W_enc / scale[:, None], W_dec * scale[:, None]
    threshold = torch.tensor([level]).to(W_dec)
    return MetaSAE(W_enc[None], W_dec[None], sae.b_dec[None], threshold)


def _level(coder: LinearEncoder, rows: Tensor) -> float:
    """The least code selected in a batch, averaged over batches (eq. 8)."""
    order = torch.randperm(len(rows), generator=generator(0, "meta_sae", "published"))
    size = min(BATCH, len(rows))
    levels = [
        least_selected(coder, rows[batch])
        for batch in torch.split(order, size)[: len(rows) // size]
    ]
    least = [level for level in levels if level is not None]
    if not least:
        raise CanonError("no latent of the meta-SAE is active on these rows")
    return sum(least) / len(least) * PASSES
