"""Checkpoints of the BatchTopK repository load as its mathematics says."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import saebench_canon_batchtopk as plugin
import torch
from torch import Tensor, nn

from saebench_canon import Acts, CanonError, CanonicalSAE, Ref
from saebench_canon.testing import Registry, calibrate, normalise, registry_of

D, M, K, N = 12, 30, 4, 200
KINDS = ("topk", "batchtopk", "vanilla", "jumprelu")


def weights(kind: str, *, unit: bool = False, seed: int = 0) -> dict[str, Tensor]:
    """A state dict as the repository's classes name it; `b_enc` is there for every class."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(M, D, generator=g)
    rows /= rows.norm(dim=1, keepdim=True)
    state = {
        "b_dec": 0.3 * torch.randn(D, generator=g),
        "b_enc": 0.3 * torch.randn(M, generator=g),
        "W_enc": rows.T.contiguous() + 0.1 * torch.randn(D, M, generator=g),
        "W_dec": rows if unit else rows * (0.5 + torch.rand(M, 1, generator=g)),
    }
    if kind == "jumprelu":
        state["jumprelu.log_threshold"] = torch.randn(M, generator=g) - 1
    return state


def module(tensors: dict[str, Tensor | None]) -> nn.Module:
    """A module with these parameters, whose state dict is of torch's own making."""
    root = nn.Module()
    for name, tensor in tensors.items():
        above, _, last = name.rpartition(".")
        if above:
            setattr(root, above, nn.Module())
        if tensor is not None:
            setattr(getattr(root, above) if above else root, last, nn.Parameter(tensor))
    return root


def write(
    folder: Path,
    kind: str,
    *,
    names: tuple[str, str] = ("sae.pt", "config.json"),
    unit: bool = False,
    change: dict[str, Any] | None = None,
    **config: Any,
) -> Path:
    """A folder as the repository's save_checkpoint leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    state = module(weights(kind, unit=unit) | (change or {})).state_dict()
    torch.save(state, folder / names[0])
    defaults = {
        "seed": 49, "batch_size": 4096, "lr": 0.0003, "num_tokens": 1000000000, "l1_coeff": 0.0,
        "beta1": 0.9, "beta2": 0.99, "max_grad_norm": 100000, "seq_len": 128,
        "dtype": "torch.float32", "model_name": "gpt2-small", "site": "resid_pre", "layer": 8,
        "act_size": D, "dict_size": M, "device": "cuda", "model_batch_size": 512,
        "num_batches_in_buffer": 10, "dataset_path": "Skylion007/openwebtext",
        "wandb_project": "batchtopk_comparison", "input_unit_norm": True, "perf_log_freq": 1000,
        "sae_type": kind, "checkpoint_freq": 10000, "n_batches_to_dead": 5, "top_k": K,
        "top_k_aux": 512, "aux_penalty": 0.03125, "bandwidth": 0.001,
        "hook_point": "blocks.8.hook_resid_pre",
        "name": f"gpt2-small_blocks.8.hook_resid_pre_{M}_{kind}_{K}_0.0003",
    }  # fmt: skip
    (folder / names[1]).write_text(json.dumps(defaults | config, indent=4))
    return folder


def upstream(
    state: dict[str, Tensor], kind: str, x: Tensor, *, unit_norm: bool, level: float | None = None
) -> tuple[Tensor, Tensor]:
    """Codes and reconstructions of the repository's classes; `level` stands for a selection."""
    mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    if unit_norm:
        x = (x - mean) / (std + 1e-5)
    if kind in ("topk", "batchtopk"):
        codes = ((x - state["b_dec"]) @ state["W_enc"]).relu()
        if kind == "topk":
            codes = codes * (codes >= codes.topk(K, dim=1).values[:, -1:])
        else:
            assert level is not None
            codes = codes * (codes > level)
    elif kind == "vanilla":
        codes = ((x - state["b_dec"]) @ state["W_enc"] + state["b_enc"]).relu()
    else:
        codes = (x @ state["W_enc"] + state["b_enc"]).relu()
        codes = codes * (codes > state["jumprelu.log_threshold"].exp())
    x_hat = codes @ state["W_dec"] + state["b_dec"]
    return codes, x_hat * std + mean if unit_norm else x_hat


def inputs(n: int = N, seed: int = 7) -> Tensor:
    return 3 * torch.randn(n, D, generator=torch.Generator().manual_seed(seed)) + 1


@pytest.fixture(scope="module")
def registry() -> Registry:
    return registry_of(plugin)


def load(folder: Path, registry: Registry, **options: Any) -> CanonicalSAE:
    return registry.adapters["file"].load(Ref.parse(f"file:{folder}"), **options)


@pytest.mark.parametrize("unit", [True, False], ids=["unit rows", "other rows"])
@pytest.mark.parametrize("unit_norm", [True, False], ids=["normalised", "as they are"])
@pytest.mark.parametrize("kind", KINDS)
def test_codes_and_reconstructions_are_upstream_s(
    tmp_path: Path, registry: Registry, kind: str, unit_norm: bool, unit: bool
) -> None:
    folder = write(tmp_path / "sae", kind, unit=unit, input_unit_norm=unit_norm)
    state, x = weights(kind, unit=unit), inputs()
    description = registry.adapters["file"].describe(Ref.parse(f"file:{folder}"))
    assert description.normalize == ("layer_norm" if unit_norm else "none")
    assert description.calibrated == (kind != "batchtopk")
    read = normalise(x, description.normalize)
    sae = calibrate(load(folder, registry), Acts(read.x, torch.arange(N)))
    level = None if sae.calibration is None else sae.calibration.threshold
    codes, x_hat = upstream(state, kind, x, unit_norm=unit_norm, level=level)
    assert 0 < int((codes > 0).sum()) < codes.numel()
    scaled = codes * state["W_dec"].norm(dim=1)
    torch.testing.assert_close(sae.encode(read.x), scaled, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae.encode_sparse(read.x).dense(), scaled, rtol=1e-5, atol=1e-5)
    ours = read.undo(sae.decode(sae.encode(read.x)))
    torch.testing.assert_close(ours, x_hat, rtol=1e-5, atol=1e-5)
    alone = torch.cat([sae.encode(row[None]) for row in read.x])
    torch.testing.assert_close(alone, sae.encode(read.x))


def test_a_batch_s_selection_is_calibrated_to_what_upstream_selects(
    tmp_path: Path, registry: Registry
) -> None:
    state, x = weights("batchtopk"), inputs(4096)
    folder = write(tmp_path / "sae", "batchtopk", input_unit_norm=False)
    sae = calibrate(load(folder, registry), Acts(x, torch.arange(len(x))))
    pre = ((x - state["b_dec"]) @ state["W_enc"]).relu().flatten()
    least = pre.topk(K * len(x)).values[-1]
    assert sae.calibration is not None
    assert sae.calibration.threshold == pytest.approx(float(least), rel=0.02)
    assert sae.encode_sparse(x).l0 == pytest.approx(K, rel=0.02)


@pytest.mark.parametrize("sae_type", ["topk", "batchtopk", None])
def test_the_published_meta_sae_loads_and_selects_over_batches(
    tmp_path: Path, registry: Registry, sae_type: str | None
) -> None:
    folder = write(
        tmp_path / "meta", "topk", names=("SAE.pt", "Config.json"), input_unit_norm=False
    )
    config = json.loads((folder / "Config.json").read_text()) | {"sae_type": sae_type}
    if sae_type is None:
        del config["sae_type"]
    (folder / "Config.json").write_text(json.dumps(config))
    for path in (folder, folder / "SAE.pt"):
        description = registry.adapters["file"].describe(Ref.parse(f"file:{path}"))
        assert (description.d, description.width, description.k, description.architecture) == (
            D,
            M,
            K,
            "batchtopk",
        )
        assert not description.calibrated
        assert description.hook is None
    sae, state = load(folder, registry), weights("topk")
    norms = state["W_dec"].norm(dim=1)
    torch.testing.assert_close(sae.W_dec, state["W_dec"] / norms[:, None])
    assert sae.encoder is not None
    torch.testing.assert_close(sae.encoder, state["W_enc"] * norms)


def test_the_meta_sae_is_reached_by_its_hub_name(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    name = "gpt2-small_blocks.8.hook_resid_pre_2304_topk_4_0.001_2000"
    ref = Ref.parse(f"batchtopk://pleask/{name}")
    description = registry.adapter("batchtopk").describe(ref)  # nothing is there yet but the name
    assert (description.width, description.k) == (2304, 4)
    repository = tmp_path / f"models--pleask--{name}"
    snapshot = repository / "snapshots" / "0123abc"
    write(snapshot, "topk", names=("SAE.pt", "Config.json"), input_unit_norm=False)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    adapter = registry.adapter("batchtopk")
    assert adapter.describe(ref).width == adapter.load(ref).width == M
    another = Ref.parse("batchtopk://pleask/another")
    assert adapter.describe(another).width is None
    with pytest.raises(CanonError, match="not in the hub's cache"):
        adapter.load(another)


def test_it_says_where_its_activations_are(tmp_path: Path, registry: Registry) -> None:
    folder = write(tmp_path / "sae", "topk")
    assert registry.claim(folder) == registry.claim(folder / "config.json") == f"batchtopk:{folder}"
    description = registry.adapters["batchtopk"].describe(Ref.parse(f"batchtopk:{folder}"))
    assert (description.hook, description.model) == ("blocks.8.hook_resid_pre", "gpt2-small")
    assert description.center_writing_weights
    for config in ({"model_name": "gemma-2-2b"}, {"hook_point": "blocks.8.attn.hook_z"}):
        write(folder, "topk", **config)
        description = registry.adapters["batchtopk"].describe(Ref.parse(f"batchtopk:{folder}"))
        assert not description.center_writing_weights


def test_older_versions_settings_are_respected(tmp_path: Path, registry: Registry) -> None:
    older = {"activation": "relu", "tied_weights": False, "use_encoder_bias": True}
    x = inputs()
    state = weights("topk")
    pre = ((x - state["b_dec"]) @ state["W_enc"] + state["b_enc"]).relu()
    codes = pre * (pre >= pre.topk(K, dim=1).values[:, -1:])

    biased = load(write(tmp_path / "b", "topk", input_unit_norm=False, **older), registry)
    x_hat = codes @ state["W_dec"] + state["b_dec"]
    torch.testing.assert_close(biased.decode(biased.encode(x)), x_hat, rtol=1e-5, atol=1e-5)

    older["tied_weights"] = True
    tied = load(write(tmp_path / "t", "topk", input_unit_norm=False, **older), registry)
    x_hat = codes @ state["W_enc"].T + state["b_dec"]
    torch.testing.assert_close(tied.decode(tied.encode(x)), x_hat, rtol=1e-5, atol=1e-5)

    vanilla = write(tmp_path / "v", "vanilla", input_unit_norm=True, **older)
    assert plugin.batchtopk.describe(Ref.parse(f"batchtopk:{vanilla}")).normalize == "none"


def test_bfloat16_files_load(tmp_path: Path, registry: Registry) -> None:
    half = {key: tensor.bfloat16() for key, tensor in weights("jumprelu").items()}
    folder = write(tmp_path / "sae", "jumprelu", change=half, input_unit_norm=False)
    sae, x = load(folder, registry), inputs()
    wide = {key: tensor.float() for key, tensor in half.items()}
    wide["jumprelu.log_threshold"] = half["jumprelu.log_threshold"].exp().float().log()
    _, x_hat = upstream(wide, "jumprelu", x, unit_norm=False)
    torch.testing.assert_close(sae.decode(sae.encode(x)), x_hat, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "change", "says"),
    [
        ({"sae_type": "quantile"}, {}, "sae_type 'quantile' is not known"),
        ({"activation": "abs"}, {}, "activation is 'abs'"),
        ({"dict_size": 10**9}, {}, "dict_size is 1000000000, but the weights have 30"),
        ({"act_size": 13}, {}, "act_size is 13"),
        ({"top_k": 0}, {}, "k is 0"),
        ({"top_k": "four"}, {}, "k is 'four'"),
        ({}, {"W_enc": None}, r"the file has no W_enc \(.*sae\.pt\)"),
        ({}, {"W_enc": torch.zeros(M, D)}, "W_enc has shape"),
        ({}, {"W_dec": torch.zeros(M, D)}, "W_dec has only rows of zeros"),
        ({}, {"b_dec": torch.full((D,), math.nan)}, "b_dec holds a value that is not finite"),
        ({}, {"W_skip": torch.zeros(D, D)}, "holds W_skip, which is no part"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    tmp_path: Path,
    registry: Registry,
    config: dict[str, Any],
    change: dict[str, Any],
    says: str,
) -> None:
    folder = write(tmp_path / "sae", "topk", change=change, **config)
    with pytest.raises(CanonError, match=says):
        load(folder, registry)


def test_jumprelu_without_its_thresholds_is_refused(tmp_path: Path, registry: Registry) -> None:
    folder = write(tmp_path / "sae", "jumprelu", change={"jumprelu.log_threshold": None})
    with pytest.raises(CanonError, match=r"the file has no jumprelu\.log_threshold"):
        load(folder, registry)


@pytest.mark.parametrize("name", ["sae.pt", "config.json"])
@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_truncated_file_is_named(
    tmp_path: Path, registry: Registry, name: str, share: float
) -> None:
    folder = write(tmp_path / "sae", "topk")
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(CanonError, match=name.replace(".", r"\.")):
        load(folder, registry)


def test_the_module_imports_without_torch() -> None:
    code = "import sys, saebench_canon_batchtopk; assert 'torch' not in sys.modules"
    folder = Path(plugin.__file__).parent
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
