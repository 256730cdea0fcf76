"""Checkpoints that sparsify itself writes give its codes and reconstructions.

Codes of ours are upstream's times the norm of the decoder row, the rows being at unit norm here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import saebench_canon_sparsify as plugin
import torch
from torch import Tensor

from saebench_canon import CanonError, Ref

os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")  # its kernels run on GPUs alone
pytest.importorskip("sparsify")
from sparsify import SparseCoder, SparseCoderConfig

D, M, K, N = 16, 48, 5, 300
NEAR = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(autouse=True)
def _random() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def inputs() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(3)) + 0.3


def upstream_sae(
    *, unit: bool = True, dtype: torch.dtype = torch.float32, **config_changes: Any
) -> SparseCoder:
    """One of upstream's SAEs with nothing left at its initial value."""
    config = SparseCoderConfig(**{"expansion_factor": 3, "k": K} | config_changes)
    sae = SparseCoder(D, config, dtype=dtype)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_((1.0 if parameter.ndim == 2 else 0.3) * torch.randn_like(parameter))
        sae.set_decoder_norm_to_unit_norm()
        if not unit:
            sae.W_dec.mul_(0.5 + torch.rand(M, 1))
    return sae


@torch.no_grad()
def check(folder: Path) -> None:
    """The same codes and reconstructions as upstream's reading of it, at once and one by one."""
    theirs = SparseCoder.load_from_disk(folder).float()
    ours = plugin.sparsify.load(Ref.parse(f"sparsify:{folder}"))
    x = inputs()
    upstream_codes = theirs.encode(x)
    codes = torch.zeros(N, M).scatter_(1, upstream_codes.top_indices, upstream_codes.top_acts)
    assert 0 < int((codes > 0).sum()) <= N * K
    our_codes = ours.encode(x)
    torch.testing.assert_close(our_codes, codes * theirs.W_dec.norm(dim=1), **NEAR)
    torch.testing.assert_close(ours.encode_sparse(x).dense(), our_codes, **NEAR)
    x_hat = theirs.decode(upstream_codes.top_acts, upstream_codes.top_indices)
    if not theirs.cfg.multi_topk:  # its forward then returns what the 4 k largest give, a loss term
        torch.testing.assert_close(theirs(x).sae_out, x_hat)
    torch.testing.assert_close(ours.decode(our_codes), x_hat, **NEAR)
    torch.testing.assert_close(torch.cat([ours.encode(row[None]) for row in x]), our_codes, **NEAR)


@pytest.mark.parametrize("unit", [True, False], ids=["unit rows", "other rows"])
@pytest.mark.parametrize(
    "told", [{}, {"num_latents": M}, {"multi_topk": True}, {"normalize_decoder": False}], ids=str
)
def test_what_it_saves_is_read_as_it_computes(
    tmp_path: Path, config: dict[str, Any], unit: bool
) -> None:
    folder = tmp_path / "layers.3" / "seed1"
    upstream_sae(unit=unit, **config).save_to_disk(folder)
    check(folder)
    description = plugin.sparsify.describe(Ref.parse(plugin.canon_claim(folder) or ""))
    assert (description.width, description.k) == (M, K)
    assert description.hook == "blocks.3.hook_resid_post"


def test_weights_in_bfloat16(tmp_path: Path) -> None:
    upstream_sae(unit=False, dtype=torch.bfloat16).save_to_disk(tmp_path / "layers.3")
    check(tmp_path / "layers.3")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"transcode": True}, "it is a transcoder"),
        ({"skip_connection": True}, "adds a linear map of its input"),
        ({"transcode": True, "skip_connection": True}, "it is a transcoder"),
        ({"activation": "groupmax", "k": 6}, "activation is 'groupmax'"),
    ],
    ids=str,
)
def test_what_is_no_sae_of_this_form_is_refused(
    tmp_path: Path, config: dict[str, Any], says: str
) -> None:
    upstream_sae(**config).save_to_disk(tmp_path / "layers.3")
    with pytest.raises(CanonError, match=rf"cfg\.json: .*{re.escape(says)}"):
        plugin.sparsify.load(Ref.parse(f"sparsify:{tmp_path / 'layers.3'}"))
