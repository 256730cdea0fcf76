"""Activations of a language model: the value at a hook, for every token that counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saebench_canon.data.hook_points import HookPoint, centring_refused
from saebench_canon.data.language_model import LanguageModel
from saebench_canon.errors import CanonError
from saebench_canon.inputs.forward_pass import check_causal, value_at
from saebench_canon.inputs.mapped import empty, open_activations
from saebench_canon.inputs.normalise import normalise
from saebench_canon.inputs.tokens import Batch, Tokens, batches
from saebench_canon.plugin.activations import Acts
from saebench_canon.plugin.adapter import Normalisation
from saebench_canon.progress import track


def extract(
    lm: LanguageModel,
    tokens: Tokens,
    hook: HookPoint,
    *,
    batch_size: int = 16,
    center: bool = False,
    normalize: Normalisation | None = None,
    out: Path | None = None,
) -> Acts:
    """The value at the hook for every token that counts, in order; later layers are not computed.

    `center` subtracts each vector's mean over its d entries: `x − (x·1/d) 1`. That equals centring
    everything that is written to the residual stream, and a LayerNorm model computes the same from
    it, since every LayerNorm begins by subtracting this mean. Dictionaries trained on
    TransformerLens's folded models expect it.

    `normalize` is then applied to each vector, as its SAEs expect it.

    With `out`, a .npy file of this name is written and the result is mapped from it.

    Raises:
        CanonError: the model is not causal, centring would change it, the module does not give
            [batch, position, d], or an activation is not finite.
    """
    check_centring(lm, hook, center)
    check_causal(lm, tokens, hook)
    counts = tokens.counts
    starts = torch.cumsum(counts, 0) - counts  # the first row of each window
    rows = int(counts.sum())
    x: Any = None
    parts = batches(tokens, batch_size)
    for batch in track(parts, f"activations at {hook.name}", len(parts)):
        value = value_at(lm, hook, batch)
        vectors = value[batch.mask.to(value.device)].float()  # [tokens of the batch that count, d]
        if center:
            vectors = vectors - vectors.mean(dim=1, keepdim=True)
        vectors = normalise(vectors, normalize).x.cpu()
        if not bool(torch.isfinite(vectors).all()):
            raise _not_finite(vectors, batch, tokens, hook, lm)
        if x is None:
            x = empty(out, (rows, vectors.shape[1]))
        sizes = counts[batch.windows].tolist()
        for start, part in zip(
            starts[batch.windows].tolist(), torch.split(vectors, sizes), strict=True
        ):
            x[start : start + len(part)] = part.numpy()
    if out is None:
        return Acts(torch.from_numpy(x), tokens.token_doc)
    x.flush()
    return Acts(open_activations(out), tokens.token_doc)


def check_centring(lm: LanguageModel, hook: HookPoint, center: bool) -> None:
    """Raise CanonError, with the reason, if centring would change what the model computes."""
    reason = centring_refused(lm.model, hook) if center else None
    if reason is not None:
        raise CanonError(f"activations at {hook.name} cannot be centred: {reason}", where=lm.name)


def _not_finite(
    vectors: Tensor, batch: Batch, tokens: Tokens, hook: HookPoint, lm: LanguageModel
) -> CanonError:
    """The error that names the first bad token of a batch."""
    bad = int((~torch.isfinite(vectors)).any(dim=1).nonzero()[0])
    row, position = batch.mask.nonzero()[bad].tolist()
    doc = int(tokens.doc[batch.windows[row]])
    name = tokens.names[doc] if tokens.names else f"document {doc}"
    token = lm.tokenizer.decode([int(batch.input_ids[row, position])])
    return CanonError(
        f"the activation at {hook.name} is not finite on token {position} ({token!r}) "
        f"of a window of {name!r}",
        where=lm.name,
        hint="Load the model in float32.",
    )
