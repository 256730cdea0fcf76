"""How large an SAE is: the number of its live latents, whatever its width."""

from __future__ import annotations

import hashlib

from torch import Tensor

from saebench_canon.kernels.codes import Codes
from saebench_canon.metrics.shared.live_rows import live_latents
from saebench_canon.plugin.sae import CanonicalSAE


def live_count(sae: CanonicalSAE, codes: Codes | None) -> int:
    """The number of live latents."""
    return int(live_latents(sae, codes).sum())


def by_size(rows: Tensor) -> tuple[int, bytes]:
    """A key that orders tables of rows by their length, and equally long ones by their content."""
    content = rows.contiguous().numpy().tobytes()
    return len(rows), hashlib.blake2b(content, digest_size=16).digest()
