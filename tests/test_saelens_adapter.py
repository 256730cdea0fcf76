"""Folders and objects of SAELens give the codes and reconstructions that SAELens gives."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from saebench_canon.acts import Acts
from saebench_canon.adapter import Adapter
from saebench_canon.adapters import saelens_hub
from saebench_canon.adapters.local import LocalAdapter, claim_saelens
from saebench_canon.adapters.saelens import SaeLensAdapter
from saebench_canon.any_sae import canonical
from saebench_canon.calibration import calibrate
from saebench_canon.errors import CanonError, NotOffline
from saebench_canon.ref import Ref

ADAPTER = SaeLensAdapter()
D, M, N = 8, 24, 200
REAL = Path(__file__).parents[2] / "shared/data/othello-saelens-l3-1024"


@pytest.fixture(scope="module")
def lens() -> Any:
    """SAELens, imported once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sae_lens
    return sae_lens


def randomised(sae: Any, seed: int = 0) -> Any:
    """The SAE with random parameters: row norms from 0.3 to 3 and biases that matter."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(sae.named_parameters()):
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=g))
            if name == "threshold":
                parameter.abs_()
        norms = 10 ** (torch.rand(M, 1, generator=g) - 0.5)
        sae.W_dec.copy_(sae.W_dec / sae.W_dec.norm(dim=1, keepdim=True) * norms)
    return sae


def activations() -> torch.Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(9))


def local(folder: Path) -> Ref:
    return Ref.parse(f"saelens:{folder}")


CONFIGS: dict[str, Callable[[Any, bool], Any]] = {
    "standard": lambda lens, b: lens.StandardSAEConfig(D, M, apply_b_dec_to_input=b),
    "jumprelu": lambda lens, b: lens.JumpReLUSAEConfig(D, M, apply_b_dec_to_input=b),
    "gated": lambda lens, b: lens.GatedSAEConfig(D, M, apply_b_dec_to_input=b),
    "topk": lambda lens, b: lens.TopKSAEConfig(D, M, k=5, apply_b_dec_to_input=b),
    "topk rescaled": lambda lens, b: lens.TopKSAEConfig(
        D, M, k=5, apply_b_dec_to_input=b, rescale_acts_by_decoder_norm=True
    ),
}


@pytest.mark.parametrize("on_input", [False, True])
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_folder_and_an_object_reconstruct_as_saelens_does(
    lens: Any, tmp_path: Path, kind: str, on_input: bool
) -> None:
    theirs = randomised(lens.SAE.from_dict(CONFIGS[kind](lens, on_input).to_dict()))
    theirs.save_model(tmp_path)
    x = activations()
    with torch.no_grad():
        codes, expected = theirs.encode(x), theirs(x)
        norms = theirs.W_dec.norm(dim=1)
    if kind != "topk rescaled":  # whose codes SAELens already has times the norms
        codes = codes * norms
    for ours in (ADAPTER.load(local(tmp_path)), canonical(theirs)):
        torch.testing.assert_close(ours.encode(x), codes, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.encode_sparse(x).dense(), codes, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.decode(ours.encode(x)), expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(ours.encode(x) > 0, codes > 0)


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka", "topk", "jumprelu", "standard"])
def test_a_training_checkpoint_is_what_saelens_would_save_for_inference(
    lens: Any, tmp_path: Path, kind: str, rescale: bool
) -> None:
    shared = {"k": 4, "rescale_acts_by_decoder_norm": rescale}
    config = {
        "batchtopk": lambda: lens.BatchTopKTrainingSAEConfig(D, M, **shared),
        "matryoshka": lambda: lens.MatryoshkaBatchTopKTrainingSAEConfig(
            D, M, matryoshka_widths=[M // 2, M], **shared
        ),
        "topk": lambda: lens.TopKTrainingSAEConfig(D, M, **shared),
        "jumprelu": lambda: lens.JumpReLUTrainingSAEConfig(D, M),
        "standard": lambda: lens.StandardTrainingSAEConfig(D, M),
    }[kind]()
    sae = randomised(lens.TrainingSAE.from_dict(config.to_dict()))
    if hasattr(sae, "topk_threshold"):
        sae.topk_threshold.fill_(0.7)
    sae.save_model(tmp_path / "training")
    sae.save_inference_model(tmp_path / "inference")
    theirs = lens.SAE.load_from_disk(tmp_path / "inference")
    x = activations()
    ours = ADAPTER.load(local(tmp_path / "training"))
    with torch.no_grad():
        expected = theirs(x)
    torch.testing.assert_close(ours.decode(ours.encode(x)), expected, atol=1e-5, rtol=1e-5)
    if kind in ("batchtopk", "matryoshka"):
        with pytest.raises(KeyError):
            lens.SAE.load_from_disk(tmp_path / "training")
        assert ADAPTER.describe(local(tmp_path / "inference")).k == 4
    assert ADAPTER.describe(local(tmp_path / "training")).width == M


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
    told = ADAPTER.describe(local(path))
    assert (told.architecture, told.k, told.hook) == ("topk", 3, "blocks.1.hook_resid_pre")
    assert (told.model, told.prepend_bos, told.center_writing_weights) == ("gpt2", True, False)
    assert ADAPTER.load(local(path)).encode_sparse(activations()).l0 <= 3


@pytest.mark.skipif(not REAL.exists(), reason="the real SAELens 3.4 checkpoint is not here")
def test_a_real_checkpoint_of_saelens_3_reconstructs_as_saelens_does(lens: Any) -> None:
    x = torch.randn(50, 128, generator=torch.Generator().manual_seed(0))
    ours, theirs = ADAPTER.load(local(REAL)), lens.SAE.load_from_disk(REAL)
    with torch.no_grad():
        expected = theirs(x)
    torch.testing.assert_close(ours.decode(ours.encode(x)), expected, atol=1e-5, rtol=1e-5)
    assert ADAPTER.describe(local(REAL)).width == 1024


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
        ({"architecture": "novel"}, "There is batchtopk"),
        ({"d_out": 2 * D}, "transcoder"),
        ({"use_error_term": True}, "whatever its codes"),
        ({"architecture": "topk", "k": M + 1}, "k is 25"),
        ({"architecture": "topk"}, "k is None"),
        ({"architecture": "topk", "k": 2.5}, "counts latents"),
        ({"architecture": "batchtopk", "k": float("nan")}, "k is nan"),
        ({"activation_fn_str": "topk", "metadata": None, "activation_fn_kwargs": 3}, "k is None"),
        ({"architecture": "jumprelu"}, "no threshold"),
        ({"d_in": D + 1}, r"W_enc has shape \[8, 24\] where cfg.json says \[9, 24\]"),
        ({"d_sae": 10**9}, r"sae_weights\.safetensors: W_enc has shape"),
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


def test_an_object_that_returns_its_error_is_refused(lens: Any) -> None:
    sae = lens.SAE.from_dict(CONFIGS["standard"](lens, True).to_dict())
    sae._use_error_term = True
    with pytest.raises(CanonError, match="use_error_term"):
        canonical(sae)


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
    other = written(tmp_path / "other", b_dec=torch.zeros(D))
    assert ADAPTER.identity(local(other)) != identity


def test_what_is_loaded_does_not_change_with_the_file(folder: Path) -> None:
    sae, x = ADAPTER.load(local(folder)), activations()
    before = sae.encode(x)
    weights = load_file(folder / "sae_weights.safetensors")
    save_file({k: torch.zeros_like(v) for k, v in weights.items()}, folder / "new")
    (folder / "sae_weights.safetensors").write_bytes((folder / "new").read_bytes())
    torch.testing.assert_close(sae.encode(x), before)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
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
    files = LocalAdapter(claim_saelens, {"saelens": ADAPTER}.__getitem__)
    assert isinstance(files, Adapter)
    assert isinstance(ADAPTER, Adapter)
    for path in (folder, folder / "cfg.json", folder / "sae_weights.safetensors"):
        ref = Ref.parse(f"file:{path}")
        assert files.identity(ref) == ADAPTER.identity(local(folder))
        assert files.describe(ref).d == D
        assert files.load(ref).width == M
    with pytest.raises(CanonError, match=f"Below it there is {folder}"):
        files.load(Ref.parse(f"file:{tmp_path}"))
    with pytest.raises(CanonError, match="there is no file or folder"):
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


def cached(cache: Path, commit: str, config: dict[str, Any]) -> Path:
    """A made-up copy of the release in the cache, laid out as the hub's client does."""
    place = saelens_hub.locate(Ref.parse(HUB))
    repository = cache / f"models--{place.repository.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs/main").write_text(commit)
    (repository / "snapshots" / commit / place.folder).parent.mkdir(parents=True)
    return written(repository / "snapshots" / commit / place.folder, config)


def test_a_hub_sae_is_described_from_the_cache_and_loaded_through_saelens(
    lens: Any, cache: Path
) -> None:
    ref = Ref.parse(HUB)
    assert ADAPTER.identity(ref) == HUB
    with pytest.raises(NotOffline, match="cannot be reached"):
        ADAPTER.describe(ref)
    with pytest.raises(NotOffline, match="cannot be reached"):
        ADAPTER.load(ref)
    old = {"hook_point": "h", "dtype": "float32", "device": "cpu", "metadata": None}
    first = cached(cache, "a" * 40, {**old, "apply_b_dec_to_input": True})
    second = cached(cache, "b" * 40, {**old, "apply_b_dec_to_input": False})
    assert ADAPTER.identity(ref) == HUB  # as before the download, so that records are found again
    assert ADAPTER.describe(ref).center_writing_weights is True  # from SAELens' own table
    x = activations()
    for revision, path in ((f"@{'a' * 40}", first), ("", second)):
        hub, disk = ADAPTER.load(Ref.parse(HUB + revision)), ADAPTER.load(local(path))
        torch.testing.assert_close(hub.encode(x), disk.encode(x))
    assert not torch.allclose(ADAPTER.load(local(first)).encode(x), disk.encode(x))
    with pytest.raises(NotOffline):
        ADAPTER.load(Ref.parse(f"{HUB}@other"))


def test_describing_needs_neither_torch_nor_saelens(folder: Path) -> None:
    import subprocess

    code = (
        "import sys; from saebench_canon.adapters.saelens import SaeLensAdapter as A; "
        "from saebench_canon.ref import Ref; "
        f"r = Ref.parse('saelens:{folder}'); A().describe(r); A().identity(r); list(A().list()); "
        "sys.exit('torch' in sys.modules or 'sae_lens' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
