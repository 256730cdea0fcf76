"""The inputs of one SAE on its data: codes, computed once for all metrics, and losses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from saebench_canon.inputs.of_data import gives, windows
from saebench_canon.plugin.input import made

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from torch import Tensor

    from saebench_canon.data.hook_points import HookPoint
    from saebench_canon.data.language_model import LanguageModel
    from saebench_canon.inputs.spliced_loss import BaselineLosses, Losses
    from saebench_canon.inputs.tokens import Tokens
    from saebench_canon.kernels.codes import Codes
    from saebench_canon.plugin.activations import Acts
    from saebench_canon.plugin.data import DataSpec
    from saebench_canon.plugin.sae import CanonicalSAE


def _save_codes(codes: Codes, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {"indptr": codes.indptr, "indices": codes.indices, "values": codes.values}
    width = torch.tensor([codes.width])
    save_file({**tensors, "width": width}, folder / "codes.safetensors")


def _load_codes(folder: Path) -> Codes:
    from safetensors.torch import load_file

    from saebench_canon.kernels.codes import Codes

    tensors = load_file(folder / "codes.safetensors")
    width = int(tensors.pop("width"))
    return Codes(**tensors, width=width)


@made(per="sae", version=1, save=_save_codes, load=_load_codes)
def codes(sae: CanonicalSAE, acts: Acts, batch_size: int) -> Codes:
    """The SAE's codes of every scored token, sparse."""
    from saebench_canon.kernels.codes import Codes
    from saebench_canon.progress import track

    device = sae.W_dec.device
    total = -(-len(acts) // batch_size)
    parts = [
        sae.encode_sparse(x.to(device=device, dtype=sae.W_dec.dtype)).to("cpu")
        for x in track(acts.batches(batch_size), "encoding", total)
    ]
    return Codes.concatenate(parts)


def _save_losses(losses: Any, folder: Path) -> None:
    from dataclasses import fields

    from safetensors.torch import save_file

    tensors = {field.name: getattr(losses, field.name) for field in fields(losses)}
    save_file(tensors, folder / "losses.safetensors")


def _load_baseline(folder: Path) -> BaselineLosses:
    from safetensors.torch import load_file

    from saebench_canon.inputs.spliced_loss import BaselineLosses

    return BaselineLosses(**load_file(folder / "losses.safetensors"))


def _load_losses(folder: Path) -> Losses:
    from safetensors.torch import load_file

    from saebench_canon.inputs.spliced_loss import Losses

    return Losses(**load_file(folder / "losses.safetensors"))


def _loss_settings(data: DataSpec) -> Mapping[str, Any]:
    return {"loss_tokens": data.lm_source.loss_tokens}


@made(per="data", version=1, available=gives("tokens"), identity=_loss_settings)
def loss_tokens(data: DataSpec, tokens: Tokens) -> Tokens:
    """The first windows that scores use, up to `loss_tokens`: a loss needs a full forward pass."""
    import torch

    count = int((torch.cumsum(tokens.counts, 0) <= data.lm_source.loss_tokens).sum())
    return tokens.at(slice(0, max(count, 1)))


@made(
    per="data", version=1, available=gives("tokens", "lm"), save=_save_losses, load=_load_baseline
)
def baseline(
    data: DataSpec,
    lm: LanguageModel,
    hook: HookPoint,
    loss_tokens: Tokens,
    acts: Acts,
    batch_size: int,
) -> BaselineLosses:
    """Cross-entropy of the clean, the zero-ablated and the mean-ablated model, by document."""
    from saebench_canon.inputs.spliced_loss import baseline_losses

    mean = acts.x.double().mean(dim=0)
    return baseline_losses(
        lm,
        loss_tokens,
        hook,
        mean=mean,
        center=bool(data.center),
        normalize=data.normalize,
        batch_size=windows(data, batch_size),
    )


@made(per="sae", version=1, available=gives("tokens", "lm"), save=_save_losses, load=_load_losses)
def loss(
    data: DataSpec,
    lm: LanguageModel,
    hook: HookPoint,
    loss_tokens: Tokens,
    baseline: BaselineLosses,
    sae: CanonicalSAE,
    batch_size: int,
) -> Losses:
    """Cross-entropy by document with the SAE's reconstruction spliced in, and the baselines."""
    from saebench_canon.inputs.spliced_loss import spliced_losses

    sums, _ = spliced_losses(
        lm,
        loss_tokens,
        hook,
        lambda x: sae.decode(sae.encode(x.to(sae.W_dec))).to(x),
        center=bool(data.center),
        normalize=data.normalize,
        batch_size=windows(data, batch_size),
    )
    return baseline.with_sae(sums)


@made(per="data", version=1, available=gives("tokens", "lm"))
def loss_with(
    data: DataSpec, lm: LanguageModel, hook: HookPoint, loss_tokens: Tokens, batch_size: int
) -> Callable[[Callable[[Tensor], Tensor]], Tensor]:
    """A function from a reconstruction to the sums of cross-entropy [docs] with it spliced in."""
    from saebench_canon.inputs.spliced_loss import spliced_losses

    def losses(reconstruct: Callable[[Tensor], Tensor]) -> Tensor:
        sums, _ = spliced_losses(
            lm,
            loss_tokens,
            hook,
            reconstruct,
            center=bool(data.center),
            normalize=data.normalize,
            batch_size=windows(data, batch_size),
        )
        return sums

    return losses
