"""What is in an SAELens folder is told, checked and loaded, and what is wrong is said."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import saelens
from safetensors.torch import load_file, save_file

from saebench_canon.errors import CanonError, NotOffline
from saebench_canon.plugin.activations import Acts
from saebench_canon.plugin.adapter import Adapter
from saebench_canon.plugin.file_scheme import LocalAdapter
from saebench_canon.plugin.ref import Ref
from saebench_canon.saes.calibration import calibrate
from saebench_canon.saes.formats import saelens_releases as saelens_hub
from saebench_canon.saes.formats.saelens import SaeLensAdapter
from saebench_canon.saes.formats.saelens_folder import claim_saelens
from saebench_canon.testing import check_adapter

ADAPTER = SaeLensAdapter()
D, M, N = 8, 24, 200


def activations() -> torch.Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(9))


def local(folder: Path) -> Ref:
    return Ref.parse(f"saelens:{folder}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small SAE folder made without SAELens."""
    return written(tmp_path / "sae")


def written(path: Path, config: dict[str, Any] | None = None, **weights: torch.Tensor) -> Path:
    g = torch.Generator().manual_seed(1)
    path.mkdir()
    tensors = {
        "W_enc": torch.randn(D, M, generator=g),
        "b_enc": torch.randn(M, generator=g),
        "W_dec": torch.randn(M, D, generator=g),
        "b_dec": torch.randn(D, generator=g),
    }
    raw = {"architecture": "standard", "d_in": D, "d_sae": M, "metadata": {"hook_name": "h"}}
    content = {key: value for key, value in {**raw, **(config or {})}.items() if value is not None}
    (path / "cfg.json").write_text(json.dumps(content))
    save_file({**tensors, **weights}, path / "sae_weights.safetensors")
    return path


def test_the_layout_of_saelens_3_is_read(tmp_path: Path) -> None:
    old = {
        "architecture": None, "metadata": None, "hook_point": "blocks.1.hook_resid_pre",
        "model_name": "gpt2", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3},
        "normalize_activations": None, "prepend_bos": True, "apply_b_dec_to_input": False,
        "model_from_pretrained_kwargs": {"center_writing_weights": False},
    }  # fmt: skip
    path = written(tmp_path / "old", old)
    description = ADAPTER.describe(local(path))
    assert (description.architecture, description.k, description.hook) == (
        "topk",
        3,
        "blocks.1.hook_resid_pre",
    )
    assert (description.model, description.prepend_bos, description.center_writing_weights) == (
        "gpt2",
        True,
        False,
    )
    assert ADAPTER.load(local(path)).encode_sparse(activations()).l0 <= 3


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"normalize_activations": "expected_average_only_in"}, "not folded"),
        ({"normalize_activations": "covariance_whitening"}, "not folded"),
        ({"normalize_activations": "novel"}, "not known"),
        ({"normalize_activations": 3}, "no name"),
        ({"reshape_activations": "novel"}, "not known"),
        ({"activation_fn_str": "tanh-relu", "metadata": None}, "only relu and topk"),
        ({"apply_b_dec_to_input": "yes"}, "not true or false"),
        ({"architecture": "temporal"}, "tokens before it"),
        ({"architecture": "transcoder"}, "transcoder"),
        ({"architecture": "abstopk"}, "signed"),
        ({"architecture": "novel"}, "Known: batchtopk"),
        ({"d_out": 2 * D}, "transcoder"),
        ({"use_error_term": True}, "whatever the codes"),
        ({"architecture": "topk", "k": M + 1}, "k is 25"),
        ({"architecture": "topk"}, "k is None"),
        ({"architecture": "topk", "k": 2.5}, "a whole number of latents"),
        ({"architecture": "batchtopk", "k": float("nan")}, "k is nan"),
        ({"activation_fn_str": "topk", "metadata": None, "activation_fn_kwargs": 3}, "k is None"),
        ({"architecture": "jumprelu"}, "no threshold"),
        ({"d_in": D + 1}, r"W_enc has shape \[8, 24\] where cfg.json says \[9, 24\]"),
        ({"d_sae": 10**9}, r"W_enc has shape .*sae_weights\.safetensors\)"),
        ({"d_in": "many"}, "d_in is 'many'"),
    ],
)
def test_what_has_no_canonical_form_is_refused_before_loading(
    tmp_path: Path, config: dict[str, Any], says: str
) -> None:
    path = written(tmp_path / "sae", config)
    for ask in (ADAPTER.describe, ADAPTER.identity, ADAPTER.load):
        with pytest.raises(CanonError, match=says):
            ask(local(path))


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
def test_a_batch_selection_without_a_threshold_waits_for_data(
    tmp_path: Path, architecture: str
) -> None:
    zero = torch.tensor(0.0, dtype=torch.float64)
    path = written(tmp_path / "sae", {"architecture": architecture, "k": 4.0}, topk_threshold=zero)
    assert not ADAPTER.describe(local(path)).calibrated
    sae, x = ADAPTER.load(local(path)), activations()
    with pytest.raises(CanonError, match="no threshold for single tokens"):
        sae.encode(x)
    calibrated = calibrate(sae, Acts(x, torch.zeros(N, dtype=torch.int64)))
    assert calibrated.encode_sparse(x).l0 == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("kind", ["layer_norm", "constant_norm_rescale"])
def test_a_normalisation_is_described_and_left_to_the_data(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / "sae", {"normalize_activations": kind})
    plain = written(tmp_path / "plain")
    assert ADAPTER.describe(local(path)).normalize == kind
    assert ADAPTER.identity(local(path)) != ADAPTER.identity(local(plain))
    ours, x = ADAPTER.load(local(path)), activations()
    assert torch.equal(ours.encode(x), ADAPTER.load(local(plain)).encode(x))


def test_a_known_input_scale_is_folded(tmp_path: Path) -> None:
    path = written(tmp_path / "sae", {"normalize_activations": "expected_average_only_in"})
    (path / "activation_scaler.json").write_text('{"scaling_factor": 2.0}')
    plain = ADAPTER.load(local(written(tmp_path / "plain")))
    x = activations()
    scaled = ADAPTER.load(local(path))
    torch.testing.assert_close(
        scaled.decode(scaled.encode(x)), plain.decode(plain.encode(2 * x)) / 2
    )


def test_a_finetuning_factor_is_folded_into_the_rows(tmp_path: Path) -> None:
    factor = torch.linspace(0.5, 2, M)
    path = written(tmp_path / "sae", {"finetuning_scaling_factor": True}, scaling_factor=factor)
    plain = load_file(path / "sae_weights.safetensors")
    x = activations()
    codes = ((x - plain["b_dec"]) @ plain["W_enc"] + plain["b_enc"]).relu() * factor
    ours = ADAPTER.load(local(path))
    torch.testing.assert_close(
        ours.decode(ours.encode(x)), codes @ plain["W_dec"] + plain["b_dec"], atol=1e-5, rtol=1e-5
    )
    with pytest.raises(CanonError, match="finetuning_scaling_factor is off"):
        ADAPTER.load(local(written(tmp_path / "off", scaling_factor=factor)))


def test_identity_is_the_content(folder: Path, tmp_path: Path) -> None:
    identity = ADAPTER.identity(local(folder))
    raw = json.loads((folder / "cfg.json").read_text())
    elsewhere = written(tmp_path / "elsewhere")
    turned = dict(reversed({**raw, "device": "cuda", "metadata": {"note": 1}}.items()))
    (elsewhere / "cfg.json").write_text(json.dumps(turned))
    assert ADAPTER.identity(local(elsewhere)) == identity
    (elsewhere / "cfg.json").write_text(json.dumps({**raw, "apply_b_dec_to_input": False}))
    assert ADAPTER.identity(local(elsewhere)) != identity
    changed = written(tmp_path / "other", b_dec=torch.zeros(D))
    assert ADAPTER.identity(local(changed)) != identity


def test_what_is_loaded_does_not_change_with_the_file(folder: Path) -> None:
    sae, x = ADAPTER.load(local(folder)), activations()
    before = sae.encode(x)
    weights = load_file(folder / "sae_weights.safetensors")
    save_file({k: torch.zeros_like(v) for k, v in weights.items()}, folder / "new")
    (folder / "sae_weights.safetensors").write_bytes((folder / "new").read_bytes())
    torch.testing.assert_close(sae.encode(x), before)


ONES = torch.ones(M)


@pytest.mark.parametrize(
    ("config", "weights", "says"),
    [
        ({}, {"b_enc": ONES / 0}, "b_enc holds a value that is not finite"),
        ({}, {"W_enc": torch.full((D, M), torch.nan)}, "W_enc holds a value that is not finite"),
        ({}, {"W_dec": torch.zeros(M, D)}, "W_dec has only rows of zeros"),
        ({}, {"W_enc": torch.ones(M, D)}, r"W_enc has shape \[24, 8\] where cfg\.json"),
        ({}, {"W_dec": torch.ones(D, M)}, r"W_dec has shape \[8, 24\] where cfg\.json"),
        ({}, {"W_dec": torch.ones(D * M)}, r"W_dec has shape \[192\] where cfg\.json"),
        ({}, {"b_dec": torch.ones(M)}, r"b_dec has shape \[24\] .*sae_weights\.safetensors\)"),
        ({}, {"b_enc": torch.ones(D)}, r"b_enc has shape \[8\] .*sae_weights\.safetensors\)"),
        ({}, {"b_enc": torch.ones(M, dtype=torch.int64)}, "b_enc is of int64"),
        ({}, {"W_skip": torch.ones(D, D)}, "holds W_skip, which is no part of the format"),
        ({"architecture": "gated"}, {}, r"the file has no b_gate \(.*sae_weights\.safetensors\)"),
        ({"architecture": "jumprelu"}, {"threshold": ONES[:3]}, r"threshold has shape \[3\]"),
        ({"architecture": "jumprelu"}, {"log_threshold": 99 * ONES}, "threshold holds a value"),
        ({"architecture": "batchtopk", "k": 2}, {}, "the file has no topk_threshold"),
        ({"architecture": "batchtopk", "k": 2}, {"topk_threshold": ONES}, "not one number"),
        (
            {"architecture": "batchtopk", "k": 2},
            {"topk_threshold": torch.tensor(torch.nan)},
            "threshold holds a value that is not finite",
        ),
        ({}, {"scaling_factor": torch.ones(D)}, r"scaling_factor has shape \[8\]"),
        ({"finetuning_scaling_factor": True}, {"scaling_factor": -ONES}, "is not above 0"),
        ({"finetuning_scaling_factor": True}, {"scaling_factor": ONES / 0}, "not finite"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    tmp_path: Path, config: dict[str, Any], weights: dict[str, torch.Tensor], says: str
) -> None:
    path = written(tmp_path / "sae", config, **weights)
    with pytest.raises(CanonError, match=says) as caught:
        ADAPTER.load(local(path))
    assert str(path) in str(caught.value)


def test_more_than_the_memory_is_refused_in_a_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "psutil.virtual_memory", lambda: type("", (), {"available": 100, "total": 100})()
    )
    with pytest.raises(CanonError, match=r"24 latents needs .* of memory, and 100 B are free"):
        ADAPTER.load(local(folder))


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "cfg.json").rename(tmp_path / "cfg.json")
    (folder / "cfg.json").symlink_to(tmp_path / "cfg.json")
    with pytest.raises(CanonError, match=r"cfg\.json is a link to a file outside the folder"):
        ADAPTER.load(local(folder))


@pytest.mark.parametrize("value", ["0", "-2", "true", '"2"', "NaN", "Infinity"])
def test_a_factor_of_activations_is_a_number_above_0(folder: Path, value: str) -> None:
    (folder / "activation_scaler.json").write_text(f'{{"scaling_factor": {value}}}')
    with pytest.raises(CanonError, match=r"scaling_factor is .*activation_scaler\.json\)"):
        ADAPTER.load(local(folder))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: (f / "cfg.json").write_bytes(b'{"a": "\xff"}'), r"UTF-8 .*cfg\.json\)"),
        (lambda f: (f / "cfg.json").write_text("[" * 10**5), "nested too deep"),
        (lambda f: (f / "activation_scaler.json").write_text("{"), "not JSON"),
        (lambda f: (f / "cfg.json").write_text("{"), "not JSON"),
        (lambda f: (f / "cfg.json").write_text("[]"), "not a JSON object"),
        (lambda f: (f / "cfg.json").unlink(), r"no cfg\.json"),
        (lambda f: (f / "sae_weights.safetensors").write_bytes(b"x"), "not a safetensors file"),
        (
            lambda f: (f / "sae_weights.safetensors").write_bytes(
                (f / "sae_weights.safetensors").read_bytes()[:-50]
            ),
            "ends before its tensor",
        ),
    ],
)
def test_a_spoilt_folder_is_named(folder: Path, spoil: Callable[[Path], Any], says: str) -> None:
    spoil(folder)
    with pytest.raises(CanonError, match=says):
        ADAPTER.describe(local(folder))


def test_dtype_goes_by_name_or_by_value(folder: Path) -> None:
    assert ADAPTER.load(local(folder), dtype="float64").W_dec.dtype == torch.float64
    assert ADAPTER.load(local(folder), dtype=torch.bfloat16).W_dec.dtype == torch.bfloat16


def test_a_path_is_loaded_by_the_format_it_holds(folder: Path, tmp_path: Path) -> None:
    files = LocalAdapter(claim_saelens, {"saelens": ADAPTER}.__getitem__, lambda path: None)
    assert isinstance(files, Adapter)
    assert isinstance(ADAPTER, Adapter)
    for path in (folder, folder / "cfg.json", folder / "sae_weights.safetensors"):
        ref = Ref.parse(f"file:{path}")
        assert files.identity(ref) == ADAPTER.identity(local(folder))
        assert files.describe(ref).d == D
        assert files.load(ref).width == M
    with pytest.raises(CanonError, match=f"Name a checkpoint in it: {folder}"):
        files.load(Ref.parse(f"file:{tmp_path}"))
    with pytest.raises(CanonError, match="does not exist"):
        files.describe(Ref.parse(f"file:{tmp_path}/missing"))


def test_releases_are_known_without_importing_saelens() -> None:
    assert "saelens://gpt2-small-res-jb/blocks.8.hook_resid_pre" in set(ADAPTER.list())
    with pytest.raises(CanonError, match="Did you mean 'gpt2-small-res-jb'"):
        ADAPTER.identity(Ref.parse("saelens://gpt2-small-res-jbb/x"))
    with pytest.raises(CanonError, match=r"blocks\.8\.hook_resid_pre"):
        ADAPTER.identity(Ref.parse("saelens://gpt2-small-res-jb/blocks.8.hook_resid_pree"))


HUB = "saelens://gpt2-small-res-jb/blocks.8.hook_resid_pre"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache and no connection."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def cached(cache: Path, commit: str, config: dict[str, Any], **weights: torch.Tensor) -> Path:
    """A made-up copy of the release in the cache, laid out as the hub's client does."""
    hub_sae = saelens_hub.locate(Ref.parse(HUB))
    repository = cache / f"models--{hub_sae.repository.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs/main").write_text(commit)
    (repository / "snapshots" / commit / hub_sae.folder).parent.mkdir(parents=True)
    return written(repository / "snapshots" / commit / hub_sae.folder, config, **weights)


def test_a_hub_sae_is_described_from_the_cache(cache: Path) -> None:
    ref = Ref.parse(HUB)
    assert ADAPTER.identity(ref) == HUB
    for ask in (ADAPTER.describe, ADAPTER.load):
        with pytest.raises(NotOffline, match="cannot be reached"):
            ask(ref)
    old = {"hook_point": "h", "dtype": "float32", "device": "cpu", "metadata": None}
    path = cached(cache, "a" * 40, {**old, "normalize_activations": "layer_norm"})
    assert ADAPTER.identity(ref) == HUB  # as before the download, so that records are found again
    description = ADAPTER.describe(ref)
    assert description.center_writing_weights is True  # from SAELens' own table
    assert (description.d, description.width, description.hook, description.normalize) == (
        D,
        M,
        "h",
        "layer_norm",
    )
    ours, disk = ADAPTER.load(ref), ADAPTER.load(local(path))
    assert torch.equal(ours.encode(activations()), disk.encode(activations()))
    assert torch.equal(
        ours.W_dec, ADAPTER.load(Ref.parse(f"{HUB}@{'a' * 40}"), dtype="float32").W_dec
    )


def test_what_a_hub_says_is_too_large_is_not_downloaded(cache: Path) -> None:
    path = cached(cache, "a" * 40, {"d_in": 10**4, "d_sae": 10**9})
    (path / "sae_weights.safetensors").unlink()
    with pytest.raises(CanonError, match=r"an SAE of 1000000000 latents needs .* TiB of memory"):
        ADAPTER.load(Ref.parse(HUB))


def test_a_hub_sae_cannot_be_calibrated(cache: Path) -> None:
    zero = torch.tensor(0.0, dtype=torch.float64)
    cached(cache, "a" * 40, {"architecture": "batchtopk", "k": 3}, topk_threshold=zero)
    with pytest.raises(CanonError, match="Name this folder instead of the hub's name"):
        ADAPTER.load(Ref.parse(HUB))


def test_a_hub_name_does_not_lead_out_of_the_cache(cache: Path) -> None:
    with pytest.raises(CanonError, match="leads out of its repository"):
        ADAPTER.load(Ref.parse("saelens://owner/name/../../elsewhere"))


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated", "batchtopk"])
def test_it_keeps_what_an_adapter_promises(tmp_path: Path, architecture: str) -> None:
    check_adapter(ADAPTER, saelens(architecture, k=3)(tmp_path / "sae"))


def test_describing_needs_neither_torch_nor_saelens(folder: Path) -> None:
    import subprocess

    code = (
        "import sys; from saebench_canon.saes.formats.saelens import SaeLensAdapter as A; "
        "from saebench_canon.plugin.ref import Ref; "
        f"r = Ref.parse('saelens:{folder}'); A().describe(r); A().identity(r); list(A().list()); "
        "sys.exit('torch' in sys.modules or 'sae_lens' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
