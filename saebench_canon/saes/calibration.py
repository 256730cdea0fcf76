"""The threshold that replaces selection over a batch at inference (Bussmann et al. 2024, eq. 8)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from saebench_canon.errors import CanonError
from saebench_canon.plugin.activations import Acts
from saebench_canon.plugin.sae import CHUNK, Calibration, CanonicalSAE, LinearEncoder
from saebench_canon.progress import track

BATCHES = 50
BATCH = 1024  # tokens; the threshold hardly depends on it


@torch.no_grad()
def calibrate(sae: CanonicalSAE, acts: Acts) -> CanonicalSAE:
    """The SAE with one threshold for single tokens: `θ = E_X[min{z_ij : z_ij > 0}]`, eq. 8.

    The mean is over batches X: of each, the smallest positive pre-activation among the n·k largest
    of its n tokens, on the scale that selects. There are up to 50 batches of 1024 tokens, drawn
    from the activations [n, d] without replacement, the same at every call.

    Raises CanonError when no batch has a positive pre-activation.
    """
    coder = sae.coder
    if not isinstance(coder, LinearEncoder) or coder.calibrated:
        return sae
    assert coder.k is not None
    if acts.d != sae.d:
        raise CanonError(
            f"the SAE reads activations of width {sae.d}, but these have width {acts.d}"
        )
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(acts), generator=generator)[: BATCHES * BATCH]
    parts = torch.split(chosen, min(BATCH, len(chosen)))
    batches = [part for part in parts if len(part) == len(parts[0])]
    least = []
    for batch in track(batches, "calibrating", len(batches)):
        x = acts.x[batch.sort().values].to(sae.W_dec)
        level = least_selected(coder, x)
        if level is not None:
            least.append(level)
    if not least:
        raise CanonError("no latent is active on the SAE's data, so it has no threshold")
    threshold = sum(least) / len(least)
    tokens = len(batches) * len(parts[0])
    calibration = Calibration(threshold, coder.k, tokens, len(batches))
    return replace(sae, coder=coder.with_threshold(threshold), calibration=calibration)


def least_selected(coder: LinearEncoder, x: Tensor) -> float | None:
    """The smallest positive value among the n·k largest pre-activations of x [n, d], if any."""
    assert coder.k is not None
    count = min(int(coder.k * len(x)), len(x) * len(coder.bias))
    best = x.new_zeros(0)
    for part in torch.split(x, max(1, CHUNK // len(coder.bias))):
        values = coder.pre(part).flatten()
        values = values[values > 0]
        best = torch.cat([best, values])
        if len(best) > count:
            best = best.topk(count, sorted=False).values
    return float(best.min()) if len(best) else None
