"""Checkpoints in the layout of EleutherAI's sparsify load as its mathematics says."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import saebench_canon_sparsify as plugin
import torch
from safetensors.torch import save_file
from torch import Tensor

from saebench_canon import CanonError, CanonicalSAE, Ref
from saebench_canon.testing import Registry, check_adapter, registry_of

D, M, K, N = 12, 36, 4, 200


def state_of(*, unit: bool = False, seed: int = 0) -> dict[str, Tensor]:
    """The weights under their names."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(M, D, generator=g)
    rows /= rows.norm(dim=1, keepdim=True)
    return {
        "encoder.weight": rows + 0.1 * torch.randn(M, D, generator=g),
        "encoder.bias": 0.3 * torch.randn(M, generator=g),
        "W_dec": rows if unit else rows * (0.5 + torch.rand(M, 1, generator=g)),
        "b_dec": 0.3 * torch.randn(D, generator=g),
    }


def write(
    folder: Path,
    *,
    unit: bool = False,
    change: dict[str, Tensor | None] | None = None,
    drop: tuple[str, ...] = (),
    **config: Any,
) -> Path:
    """A hookpoint's folder as save_to_disk leaves it; a `change` to None leaves a tensor out."""
    folder.mkdir(parents=True, exist_ok=True)
    state = state_of(unit=unit) | (change or {})
    tensors = {name: value.contiguous() for name, value in state.items() if value is not None}
    save_file(tensors, folder / "sae.safetensors")
    defaults = {
        "activation": "topk", "expansion_factor": 3, "normalize_decoder": True, "num_latents": 0,
        "k": K, "multi_topk": False, "skip_connection": False, "transcode": False, "d_in": D,
    }  # fmt: skip
    defaults = {key: value for key, value in (defaults | config).items() if key not in drop}
    (folder / "cfg.json").write_text(json.dumps(defaults))
    return folder


def upstream(state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and reconstructions, by the mathematics."""
    codes = ((x - state["b_dec"]) @ state["encoder.weight"].T + state["encoder.bias"]).relu()
    codes = codes * (codes >= codes.topk(K, dim=1).values[:, -1:])
    return codes, codes @ state["W_dec"] + state["b_dec"]


def inputs() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(7)) + 0.3


@pytest.fixture(scope="module")
def registry() -> Registry:
    return registry_of(plugin)


def load(folder: Path, registry: Registry, **options: Any) -> CanonicalSAE:
    return registry.adapters["file"].load(Ref.parse(f"file:{folder}"), **options)


def check(sae: CanonicalSAE, state: dict[str, Tensor]) -> None:
    """Codes, dense and sparse, and reconstructions; and the same token by token."""
    x, near = inputs(), {"rtol": 1e-5, "atol": 1e-5}
    codes, x_hat = upstream(state, x)
    assert 0 < int((codes > 0).sum()) <= N * K
    our_codes = sae.encode(x)
    torch.testing.assert_close(our_codes, codes * state["W_dec"].norm(dim=1), **near)
    torch.testing.assert_close(sae.encode_sparse(x).dense(), our_codes, **near)
    torch.testing.assert_close(sae.decode(our_codes), x_hat, **near)
    torch.testing.assert_close(torch.cat([sae.encode(row[None]) for row in x]), our_codes, **near)


@pytest.mark.parametrize("unit", [True, False], ids=["unit rows", "other rows"])
def test_codes_and_reconstructions_are_upstream_s(
    tmp_path: Path, registry: Registry, unit: bool
) -> None:
    folder = write(tmp_path / "layers.3", unit=unit)
    assert registry.claim(folder) == f"sparsify:{folder}"
    check(load(folder, registry), state_of(unit=unit))


def test_it_keeps_what_an_adapter_promises(tmp_path: Path) -> None:
    check_adapter(plugin.sparsify, write(tmp_path / "layers.3"))


def test_codes_are_never_more_than_k_a_token(tmp_path: Path, registry: Registry) -> None:
    codes = load(write(tmp_path / "layers.3"), registry).encode_sparse(inputs())
    assert len(codes.values) <= N * K


@pytest.mark.parametrize(
    ("config", "drop"),
    [
        ({}, ()),
        ({"num_latents": M}, ()),
        ({"num_latents": M, "expansion_factor": 99}, ()),
        ({}, ("num_latents",)),
        ({"signed": False}, ("activation", "transcode", "skip_connection", "multi_topk")),
    ],
    ids=["expansion", "latents", "latents win", "no latents told", "an older version"],
)
def test_its_width_is_told_in_either_way(
    tmp_path: Path, registry: Registry, config: dict[str, Any], drop: tuple[str, ...]
) -> None:
    folder = write(tmp_path / "layers.3", drop=drop, **config)
    description = plugin.sparsify.describe(Ref.parse(f"file:{folder}"))
    assert (description.d, description.width, description.k, description.calibrated) == (
        D,
        M,
        K,
        True,
    )
    check(load(folder, registry), state_of())


@pytest.mark.parametrize(
    ("folder", "hook"),
    [
        ("layers.3", "blocks.3.hook_resid_post"),
        ("h.11", "blocks.11.hook_resid_post"),
        ("layers.3/seed7", "blocks.3.hook_resid_post"),
        ("layers.3.mlp", "layers.3.mlp"),
        ("h.0.attn/seed0", "h.0.attn"),
        ("0123abc", None),
        ("my sae", None),
        ("sae-v1.2", None),
    ],
)
def test_the_folder_names_the_place(tmp_path: Path, folder: str, hook: str | None) -> None:
    description = plugin.sparsify.describe(Ref.parse(f"sparsify:{write(tmp_path / folder)}"))
    assert (description.hook, description.model, description.center_writing_weights) == (
        hook,
        None,
        False,
    )


def test_the_seeds_of_a_hookpoint_are_claimed_each(tmp_path: Path, registry: Registry) -> None:
    for seed in range(3):
        write(tmp_path / "layers.3" / f"seed{seed}", change=state_of(seed=seed))
    assert registry.claim(tmp_path / "layers.3") is None
    folders = sorted((tmp_path / "layers.3").iterdir())
    assert [registry.claim(path) for path in folders] == [f"sparsify:{path}" for path in folders]
    refs = [Ref.parse(f"sparsify:{path}") for path in folders]
    assert len({plugin.sparsify.identity(ref) for ref in refs}) == 3


def test_weights_in_bfloat16_compute_in_float32(tmp_path: Path, registry: Registry) -> None:
    state = {name: tensor.bfloat16() for name, tensor in state_of().items()}
    folder = write(tmp_path / "layers.3", change=state)
    assert plugin.sparsify.describe(Ref.parse(f"file:{folder}")).dtype == "bfloat16"
    check(load(folder, registry), {name: tensor.float() for name, tensor in state.items()})


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"transcode": True}, "it is a transcoder"),
        ({"skip_connection": True}, "it adds a linear map of its input"),
        ({"signed": True}, "codes can be negative"),
        ({"activation": "groupmax"}, "activation is 'groupmax': it keeps the largest"),
        ({"activation": "relu"}, "activation is 'relu', and only topk is known"),
        ({"d_in": 9}, "d_in is 9, but that of the weights is 12"),
        ({"num_latents": 10**9}, "num_latents is 1000000000, but that of the weights is 36"),
        ({"expansion_factor": 5}, "expansion_factor is 5, but that of the weights is 3"),
        ({"expansion_factor": "3"}, "expansion_factor is '3'"),
        ({"num_latents": [36]}, r"num_latents is \[36\]"),
    ],
)
def test_a_configuration_that_has_no_canonical_form_is_refused(
    tmp_path: Path, registry: Registry, config: dict[str, Any], says: str
) -> None:
    folder = write(tmp_path / "layers.3", **config)
    with pytest.raises(CanonError, match=says) as caught:
        load(folder, registry)
    assert "cfg.json" in str(caught.value)


@pytest.mark.parametrize("key", ["k", "d_in", "expansion_factor"])
def test_a_key_that_the_configuration_lacks_is_named(
    tmp_path: Path, registry: Registry, key: str
) -> None:
    folder = write(tmp_path / "layers.3", drop=(key,))
    with pytest.raises(CanonError, match=rf"the file has no '{key}' \(.*cfg\.json\)"):
        load(folder, registry)


@pytest.mark.parametrize(
    ("change", "config", "says"),
    [
        ({"W_skip": torch.zeros(D, D)}, {}, r"it adds a linear map of its input \(W_skip\)"),
        ({"W_dec": None}, {}, "the file has no W_dec"),
        ({"b_enc": torch.zeros(M)}, {}, "holds b_enc, which is no part"),
        ({"encoder.weight": torch.zeros(D, M)}, {}, "encoder.weight has shape"),
        ({"W_dec": torch.zeros(M)}, {}, "W_dec has shape"),
        ({"W_dec": torch.zeros(M, D)}, {}, "W_dec has only rows of zeros"),
        ({"b_dec": torch.full((D,), math.nan)}, {}, "b_dec holds a value that is not finite"),
        ({}, {"k": M + 1}, "k is 37 where the SAE has 36 latents"),
        ({}, {"k": "4"}, "k is '4' where the SAE has 36 latents"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    tmp_path: Path,
    registry: Registry,
    change: dict[str, Tensor | None],
    config: dict[str, Any],
    says: str,
) -> None:
    folder = write(tmp_path / "layers.3", change=change, **config)
    with pytest.raises(CanonError, match=says) as caught:
        load(folder, registry)
    assert "sae.safetensors" in str(caught.value)


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_truncated_file_is_named(tmp_path: Path, registry: Registry, share: float) -> None:
    folder = write(tmp_path / "layers.3")
    content = (folder / "sae.safetensors").read_bytes()
    (folder / "sae.safetensors").write_bytes(content[: int(share * len(content))])
    with pytest.raises(CanonError, match=r"sae\.safetensors\)"):
        load(folder, registry)


def test_the_module_imports_without_torch() -> None:
    code = "import sys, saebench_canon_sparsify; assert 'torch' not in sys.modules"
    folder = Path(plugin.__file__).parent
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
