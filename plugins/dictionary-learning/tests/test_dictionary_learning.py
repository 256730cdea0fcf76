"""Checkpoints in the layout of dictionary_learning load as its mathematics says."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import saebench_canon_dictionary_learning as plugin
import torch
from torch import Tensor

from saebench_canon import Acts, CanonError, CanonicalSAE, Ref
from saebench_canon.testing import Registry, calibrate, check_adapter, registry_of

D, M, K, N = 12, 30, 4, 200
LINEAR = ("AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "AutoEncoderTopK", "BatchTopKSAE")
RAW = ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE")
BATCH = ("BatchTopKSAE", "MatryoshkaBatchTopKSAE")
CLASSES = (*LINEAR, *RAW)


def state_of(kind: str, *, unit: bool = False, seed: int = 0) -> dict[str, Tensor]:
    """A state dict as the class names it; torch keeps a linear map as [out, in]."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(M, D, generator=g)
    rows /= rows.norm(dim=1, keepdim=True)
    weights = rows + 0.1 * torch.randn(M, D, generator=g)
    if not unit:
        rows = rows * (0.5 + torch.rand(M, 1, generator=g))
    b_enc, b_mag, r_mag = (0.3 * torch.randn(M, generator=g) for _ in range(3))
    b_dec = 0.3 * torch.randn(D, generator=g)
    linear = {"encoder.weight": weights, "decoder.weight": rows.T}
    raw = {"W_enc": weights.T, "b_enc": b_enc, "W_dec": rows, "b_dec": b_dec}
    level = {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(0.4)}
    return {
        "AutoEncoder": lambda: {"bias": b_dec, "encoder.bias": b_enc} | linear,
        "AutoEncoderNew": lambda: {"decoder.bias": b_dec, "encoder.bias": b_enc} | linear,
        "GatedAutoEncoder": lambda: linear | {
            "decoder_bias": b_dec, "r_mag": r_mag, "gate_bias": b_enc, "mag_bias": b_mag,
        },
        "JumpReluAutoEncoder": lambda: raw | {"threshold": 0.5 * torch.rand(M, generator=g)},
        "AutoEncoderTopK": lambda: linear | {"b_dec": b_dec, "encoder.bias": b_enc} | level,
        "BatchTopKSAE": lambda: linear | {"b_dec": b_dec, "encoder.bias": b_enc} | level,
        "MatryoshkaBatchTopKSAE": lambda: raw | level | {"group_sizes": torch.tensor([10, 20])},
    }[kind]()  # fmt: skip


def write(
    folder: Path,
    kind: str,
    *,
    unit: bool = False,
    change: dict[str, Any] | None = None,
    backup: dict[str, Any] | None = None,
    buffer: dict[str, Any] | None = None,
    **trainer: Any,
) -> Path:
    """A trainer's folder; a `change` to None leaves the tensor out; `backup` is what one adds."""
    folder.mkdir(parents=True, exist_ok=True)
    state: Any = state_of(kind, unit=unit) | (change or {})
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    trainer_config = {
        "trainer_class": "Trainer", "dict_class": kind, "lr": 5e-05, "steps": 244140, "seed": 0,
        "activation_dim": D, "dict_size": M, "device": "cuda:0", "layer": 8,
        "lm_name": "EleutherAI/pythia-160m-deduped", "wandb_name": "made-up",
        "submodule_name": "resid_post_layer_8",
    }  # fmt: skip
    if kind not in ("AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "JumpReluAutoEncoder"):
        trainer_config["k"] = K
    if backup is not None:
        parameter = torch.nn.Parameter(torch.zeros(3))
        optimizer = torch.optim.Adam([parameter])
        parameter.sum().backward()
        optimizer.step()
        state = {
            "step": 500,
            "ae": state,
            "optimizer": optimizer.state_dict(),
            "config": trainer_config,
        }
        state |= backup
    torch.save(state, folder / "ae.pt")
    config = {
        "trainer": trainer_config | trainer,
        "buffer": {"d_submodule": D, "io": "out", "n_ctxs": 244, "ctx_len": 1024} | (buffer or {}),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=4))
    return folder


def upstream(kind: str, state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, reconstructions and norms of decoder rows, by the mathematics of the class."""
    raw = kind in RAW
    weights = state["W_enc"] if raw else state["encoder.weight"].T
    rows = state["W_dec"] if raw else state["decoder.weight"].T
    names = {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias"}
    b_dec = state[names.get(kind, "decoder_bias" if kind == "GatedAutoEncoder" else "b_dec")]
    read = x if kind in ("AutoEncoderNew", "JumpReluAutoEncoder") else x - b_dec
    z = read @ weights
    if kind == "GatedAutoEncoder":
        codes = (state["r_mag"].exp() * z + state["mag_bias"]).relu()
        codes = codes * (z + state["gate_bias"] > 0)
    else:
        codes = (z + state["b_enc" if raw else "encoder.bias"]).relu()
        if kind == "AutoEncoderTopK":
            codes = codes * (codes >= codes.topk(K, dim=1).values[:, -1:])
        elif "threshold" in state:
            codes = codes * (codes > state["threshold"])
    return codes, codes @ rows + b_dec, rows.norm(dim=1)


def inputs(seed: int = 7) -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(seed)) + 0.3


@pytest.fixture(scope="module")
def registry() -> Registry:
    return registry_of(plugin)


def load(folder: Path, registry: Registry, **options: Any) -> CanonicalSAE:
    return registry.adapters["file"].load(Ref.parse(f"file:{folder}"), **options)


def check(sae: CanonicalSAE, kind: str, state: dict[str, Tensor], scale: float = 1.0) -> None:
    """Codes, dense and sparse, and reconstructions; and the same token by token."""
    x = scale * inputs()
    codes, x_hat, norms = upstream(kind, state, x / scale)
    assert 0 < int((codes > 0).sum()) < codes.numel()
    near = {"rtol": 1e-5, "atol": 1e-5 * scale}
    torch.testing.assert_close(sae.encode(x), scale * codes * norms, **near)
    torch.testing.assert_close(sae.encode_sparse(x).dense(), scale * codes * norms, **near)
    torch.testing.assert_close(sae.decode(sae.encode(x)), scale * x_hat, **near)
    alone = torch.cat([sae.encode(row[None]) for row in x])
    torch.testing.assert_close(alone, sae.encode(x), **near)


@pytest.mark.parametrize("unit", [True, False], ids=["unit rows", "other rows"])
@pytest.mark.parametrize("kind", CLASSES)
def test_codes_and_reconstructions_are_upstream_s(
    tmp_path: Path, registry: Registry, kind: str, unit: bool
) -> None:
    folder = write(tmp_path / "trainer_0", kind, unit=unit)
    assert registry.claim(folder) == f"dictionary-learning:{folder}"
    check(load(folder, registry), kind, state_of(kind, unit=unit))


@pytest.mark.parametrize("kind", CLASSES)
def test_it_keeps_what_an_adapter_promises(tmp_path: Path, kind: str) -> None:
    check_adapter(plugin.dictionary_learning, write(tmp_path / "trainer_0", kind))


@pytest.mark.parametrize("kind", BATCH)
def test_a_threshold_that_was_never_set_is_calibrated_on_data(
    tmp_path: Path, registry: Registry, kind: str
) -> None:
    folder = write(tmp_path / "trainer_0", kind, change={"threshold": torch.tensor(-1.0)})
    description = registry.adapters["file"].describe(Ref.parse(f"file:{folder}"))
    assert (description.calibrated, description.k) == (False, K)
    assert plugin.dictionary_learning.calibrates
    sae = load(folder, registry)
    with pytest.raises(CanonError, match="no threshold"):
        sae.encode(inputs())
    sae = calibrate(sae, Acts(inputs(), torch.arange(N)))
    assert sae.calibration is not None
    level = torch.tensor(sae.calibration.threshold)
    check(sae, kind, state_of(kind) | {"threshold": level})
    assert abs(float((sae.encode(inputs()) > 0).sum(dim=1).float().mean()) - K) < 0.1


@pytest.mark.parametrize("level", [-1.0, 0.0, 9.0])
def test_top_k_selects_per_token_whatever_threshold_is_stored(
    tmp_path: Path, registry: Registry, level: float
) -> None:
    kind, change = "AutoEncoderTopK", {"threshold": torch.tensor(level)}
    sae = load(write(tmp_path / "trainer_0", kind, change=change), registry)
    check(sae, kind, state_of(kind))


@pytest.mark.parametrize("kind", ["AutoEncoderTopK", *BATCH])
def test_the_k_of_the_weights_goes_before_that_of_the_configuration(
    tmp_path: Path, registry: Registry, kind: str
) -> None:
    folder = write(tmp_path / "trainer_0", kind, k=2 * K)
    assert plugin.dictionary_learning.describe(Ref.parse(f"file:{folder}")).k == K
    check(load(folder, registry), kind, state_of(kind))


def test_files_of_old_versions_hold_no_k(tmp_path: Path, registry: Registry) -> None:
    change = {"k": None, "threshold": None}
    folder = write(tmp_path / "trainer_0", "AutoEncoderTopK", change=change)
    check(load(folder, registry), "AutoEncoderTopK", state_of("AutoEncoderTopK"))


@pytest.mark.parametrize("kind", BATCH)
def test_a_threshold_beside_weights_in_bfloat16_is_not_rounded(
    tmp_path: Path, registry: Registry, kind: str
) -> None:
    level, full = torch.tensor(0.4003), state_of(kind)
    assert level.bfloat16() != level
    state = {key: w.bfloat16() if w.is_floating_point() else w for key, w in full.items()}
    state["threshold"] = level
    folder = write(tmp_path / "trainer_0", kind, change=state)
    sae = load(folder, registry)
    state = {key: w.float() if w.is_floating_point() else w for key, w in state.items()}
    check(sae, kind, state)
    rows = state["W_dec"] if kind in RAW else state["decoder.weight"].T
    torch.testing.assert_close(sae.coder.threshold, level * rows.norm(dim=1))


@pytest.mark.parametrize("kind", CLASSES)
def test_a_backup_reads_activations_that_were_divided_by_its_factor(
    tmp_path: Path, registry: Registry, kind: str
) -> None:
    folder = write(tmp_path / "trainer_0", kind, backup={"norm_factor": 7.5})
    assert registry.adapters["file"].describe(Ref.parse(f"file:{folder}")).width == M
    check(load(folder, registry), kind, state_of(kind), scale=7.5)
    finished = write(tmp_path / "trainer_1", kind)
    refs = [Ref.parse(f"file:{path}") for path in (folder, finished)]
    assert len({plugin.dictionary_learning.identity(ref) for ref in refs}) == 2


@pytest.mark.parametrize(
    ("factor", "says"),
    [
        (0.0, "norm_factor is 0.0, not a positive number"),
        (-3.0, "norm_factor is -3.0"),
        (math.nan, "norm_factor is nan"),
        (None, "norm_factor is None"),
        ("7", "norm_factor is '7'"),
    ],
)
def test_a_backup_without_a_usable_factor_is_refused(
    tmp_path: Path, registry: Registry, factor: Any, says: str
) -> None:
    folder = write(tmp_path / "trainer_0", "AutoEncoder", backup={"norm_factor": factor})
    with pytest.raises(CanonError, match=says) as caught:
        load(folder, registry)
    assert "ae.pt" in str(caught.value)


@pytest.mark.parametrize(
    ("backup", "says"),
    [
        ({}, "the file has no norm_factor"),
        ({"norm_factor": 1.0, "scaler": {}}, "the file holds scaler, which is no part"),
        ({"norm_factor": 1.0, "ae": 3}, "ae is not a state dict"),
        ({"norm_factor": 1.0, "ae": {"bias": torch.zeros(D)}}, "the file has no encoder"),
    ],
)
def test_another_object_under_the_same_name_is_refused(
    tmp_path: Path, registry: Registry, backup: dict[str, Any], says: str
) -> None:
    folder = write(tmp_path / "trainer_0", "AutoEncoder", backup=backup)
    with pytest.raises(CanonError, match=says) as caught:
        load(folder, registry)
    assert "ae.pt" in str(caught.value)


def test_a_tensor_that_a_backup_has_too_many_is_refused(tmp_path: Path, registry: Registry) -> None:
    change, backup = {"extra": torch.zeros(3)}, {"norm_factor": 2.0}
    folder = write(tmp_path / "trainer_0", "AutoEncoder", change=change, backup=backup)
    with pytest.raises(CanonError, match="the file holds extra, which is no part"):
        load(folder, registry)


@pytest.mark.parametrize(
    ("trainer", "buffer", "hook"),
    [
        ({}, {}, "blocks.8.hook_resid_post"),
        ({"layer": 7}, {}, None),
        ({}, {"io": "in"}, None),
        ({"submodule_name": "mlp_layer_8"}, {}, None),
        ({"submodule_name": None}, {}, None),
    ],
)
def test_where_the_activations_are_is_told_where_the_names_tell(
    tmp_path: Path, trainer: dict[str, Any], buffer: dict[str, Any], hook: str | None
) -> None:
    folder = write(tmp_path / "trainer_0", "AutoEncoder", buffer=buffer, **trainer)
    description = plugin.dictionary_learning.describe(Ref.parse(f"file:{folder}"))
    assert description.hook == hook
    assert (description.model, description.center_writing_weights) == (
        "EleutherAI/pythia-160m-deduped",
        False,
    )


def test_a_transcoder_is_refused(tmp_path: Path, registry: Registry) -> None:
    folder = write(tmp_path / "trainer_0", "AutoEncoder", buffer={"io": "in_and_out"})
    with pytest.raises(CanonError, match=r"it is a transcoder .*config\.json\)"):
        load(folder, registry)


def test_a_class_that_is_not_known_is_named_with_those_that_are(
    tmp_path: Path, registry: Registry
) -> None:
    folder = write(tmp_path / "trainer_0", "AutoEncoder", dict_class="CrossCoder")
    message = r"dict_class 'CrossCoder' is not known \(.*config\.json\)"
    with pytest.raises(CanonError, match=message) as caught:
        load(folder, registry)
    for kind in CLASSES:
        assert kind in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("AutoEncoder", {"encoder.bias": None}, "the file has no encoder.bias"),
        ("AutoEncoder", {"threshold": torch.zeros(M)}, "holds threshold, which is no part"),
        ("AutoEncoder", {"encoder.weight": torch.zeros(D, M)}, "encoder.weight has shape"),
        ("AutoEncoder", {"decoder.weight": torch.zeros(M)}, "decoder.weight has shape"),
        ("GatedAutoEncoder", {"encoder.bias": torch.zeros(M)}, "holds encoder.bias, which is no"),
        ("GatedAutoEncoder", {"r_mag": torch.zeros(D)}, "r_mag has shape"),
        ("JumpReluAutoEncoder", {"W_enc": torch.full((D, M), math.nan)}, "W_enc holds a value"),
        ("AutoEncoderTopK", {"k": torch.tensor(M + 1)}, "k is 31 where the SAE has 30 latents"),
        ("AutoEncoderTopK", {"k": torch.tensor(0)}, "k is 0 where the SAE has 30 latents"),
        ("BatchTopKSAE", {"threshold": None}, "the file has no threshold"),
        ("BatchTopKSAE", {"threshold": torch.tensor(math.nan)}, "threshold holds a value"),
        ("BatchTopKSAE", {"threshold": torch.zeros(M)}, "threshold has shape"),
        ("MatryoshkaBatchTopKSAE", {"W_dec": torch.zeros(M, D)}, "W_dec has only rows of zeros"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    tmp_path: Path, registry: Registry, kind: str, change: dict[str, Any], says: str
) -> None:
    folder = write(tmp_path / "trainer_0", kind, change=change)
    with pytest.raises(CanonError, match=says) as caught:
        load(folder, registry)
    assert "ae.pt" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "the file has no 'trainer'"),
        ('{"trainer": []}', "'trainer' is not an object"),
        ('{"trainer": {}}', "the file has no 'dict_class'"),
        ('{"trainer": {"dict_class": ["AutoEncoder"]}}', r"dict_class .* is not known"),
        (
            '{"trainer": {"dict_class": "AutoEncoder", "dict_size": 1000000000}}',
            "dict_size is 1000",
        ),
        ('{"trainer": {"dict_class": "AutoEncoder", "activation_dim": 9}}', "activation_dim is 9"),
        ("[1]", "the file is not a JSON object"),
        ("{", "the file is not JSON"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(
    tmp_path: Path, registry: Registry, text: str, says: str
) -> None:
    folder = write(tmp_path / "trainer_0", "AutoEncoder")
    (folder / "config.json").write_text(text)
    with pytest.raises(CanonError, match=says) as caught:
        load(folder, registry)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_truncated_file_is_named(tmp_path: Path, registry: Registry, share: float) -> None:
    folder = write(tmp_path / "trainer_0", "AutoEncoder")
    content = (folder / "ae.pt").read_bytes()
    (folder / "ae.pt").write_bytes(content[: int(share * len(content))])
    with pytest.raises(CanonError, match=r"no file of torch\.save.*ae\.pt\)"):
        load(folder, registry)


def test_a_pickled_object_is_refused_by_name(tmp_path: Path, registry: Registry) -> None:
    folder = write(tmp_path / "trainer_0", "AutoEncoder")
    torch.save({"bias": subprocess.run}, folder / "ae.pt")
    with pytest.raises(CanonError, match=r"the pickle asks for \w+\.run.*ae\.pt\)"):
        load(folder, registry)


def test_the_module_imports_without_torch() -> None:
    code = "import sys, saebench_canon_dictionary_learning; assert 'torch' not in sys.modules"
    folder = Path(plugin.__file__).parent
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
