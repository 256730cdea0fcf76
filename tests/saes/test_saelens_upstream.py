"""SAEs that SAELens itself writes give the codes and reconstructions that SAELens gives.

Codes of ours are SAELens' times the norm of the decoder row, the rows being at unit norm here.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from clone import SHARED
from safetensors.torch import load_file, save_file
from torch import Tensor

from saebench_canon.errors import CanonError, NotOffline
from saebench_canon.inputs.normalise import normalise
from saebench_canon.plugin.activations import Acts
from saebench_canon.plugin.ref import Ref
from saebench_canon.plugin.sae import CanonicalSAE
from saebench_canon.saes.calibration import calibrate
from saebench_canon.saes.formats import saelens_releases as saelens_hub
from saebench_canon.saes.formats.any_object import canonical
from saebench_canon.saes.formats.saelens import SaeLensAdapter
from saebench_canon.saes.formats.saelens_config import ARCHITECTURES, REFUSED

ADAPTER = SaeLensAdapter()
HEADS, D_HEAD = 2, 4
D, M, N = HEADS * D_HEAD, 24, 200
REAL = SHARED / "data/othello-saelens-l3-1024"
NORMALISATIONS = ["none", "layer_norm", "constant_norm_rescale"]
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def lens() -> Any:
    """SAELens, imported once: it takes ten seconds and more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sae_lens
    return sae_lens


INFERENCE: dict[str, Make] = {
    "standard": lambda lens, **options: lens.StandardSAEConfig(D, M, **options),
    "jumprelu": lambda lens, **options: lens.JumpReLUSAEConfig(D, M, **options),
    "gated": lambda lens, **options: lens.GatedSAEConfig(D, M, **options),
    "topk": lambda lens, **options: lens.TopKSAEConfig(D, M, k=5, **options),
    "topk-rescaled": lambda lens, **options: lens.TopKSAEConfig(
        D, M, k=5, rescale_acts_by_decoder_norm=True, **options
    ),
}
TRAINING: dict[str, Make] = {
    "standard": lambda lens, **options: lens.StandardTrainingSAEConfig(D, M, **options),
    "jumprelu": lambda lens, **options: lens.JumpReLUTrainingSAEConfig(D, M, **options),
    "gated": lambda lens, **options: lens.GatedTrainingSAEConfig(D, M, **options),
    **{
        f"{name}{suffix}": lambda lens, name=name, rescale=rescale, **options: training(
            lens, name, k=4, rescale_acts_by_decoder_norm=rescale, **options
        )
        for name in ("topk", "batchtopk", "matryoshka")
        for suffix, rescale in (("", False), ("-rescaled", True))
    },
}


def training(lens: Any, name: str, **options: Any) -> Any:
    """The configuration of a training class that takes k."""
    if name == "matryoshka":
        return lens.MatryoshkaBatchTopKTrainingSAEConfig(
            D, M, matryoshka_widths=[M // 2, M], **options
        )
    kinds = {"topk": lens.TopKTrainingSAEConfig, "batchtopk": lens.BatchTopKTrainingSAEConfig}
    return kinds[name](D, M, **options)


def built(lens: Any, config: Any, *, kind: str = "SAE", seed: int = 0) -> Any:
    """SAELens' SAE with random parameters: row norms from 0.3 to 3 and biases that matter."""
    sae = getattr(lens, kind).from_dict(config.to_dict())
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(sae.named_parameters()):
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=g))
            if name == "threshold":
                parameter.abs_()
        norms = 10 ** (torch.rand(M, 1, generator=g) - 0.5)
        sae.W_dec.copy_(sae.W_dec / sae.W_dec.norm(dim=1, keepdim=True) * norms)
        if hasattr(sae, "topk_threshold"):
            sae.topk_threshold.fill_(0.7)
    return sae.eval()


def activations() -> Tensor:
    """Activations whose norms differ and whose mean over d is not 0."""
    g = torch.Generator().manual_seed(9)
    return (torch.randn(N, D, generator=g) + 0.3) * torch.linspace(0.5, 2, N)[:, None]


def local(folder: Path) -> Ref:
    return Ref.parse(f"saelens:{folder}")


def agree(ours: Tensor, theirs: Tensor) -> None:
    """Equal to 1e-5 of their size, each value and all of them."""
    assert ours.shape == theirs.shape
    assert float((ours - theirs).norm()) <= 1e-5 * float(theirs.norm())
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def check(ours: CanonicalSAE, theirs: Any, *, kind: Any = "none", scaled: bool = False) -> None:
    """Ours computes what theirs does, however many tokens are encoded at once.

    `scaled` says that their codes are already times the norms.
    """
    x = activations()
    codes, x_hat = theirs.encode(x), theirs(x)
    codes = codes if scaled else codes * theirs.W_dec.norm(dim=1)
    read = normalise(x, kind)
    z = ours.encode(read.x)
    assert 0 < int((codes > 0).sum()) < codes.numel()
    agree(z, codes)
    assert torch.equal(z > 0, codes > 0)
    agree(read.undo(ours.decode(z)), x_hat)
    agree(ours.encode_sparse(read.x).dense(), codes)
    alone = torch.cat([ours.encode(read.x[row : row + 1]) for row in range(len(x))])
    agree(alone, codes)
    torch.testing.assert_close(ours.W_dec.norm(dim=1), torch.ones(M))


@pytest.mark.parametrize("normalization", NORMALISATIONS)
@pytest.mark.parametrize("on_input", [False, True])
@pytest.mark.parametrize("name", INFERENCE)
def test_an_inference_checkpoint(
    lens: Any, tmp_path: Path, name: str, on_input: bool, normalization: str
) -> None:
    theirs = built(
        lens,
        INFERENCE[name](lens, apply_b_dec_to_input=on_input, normalize_activations=normalization),
    )
    theirs.save_model(tmp_path)
    description = ADAPTER.describe(local(tmp_path))
    assert (description.d, description.width, description.normalize) == (D, M, normalization)
    scaled = name == "topk-rescaled"
    check(ADAPTER.load(local(tmp_path)), theirs, kind=normalization, scaled=scaled)
    if normalization == "none":
        check(canonical(theirs), theirs, scaled=scaled)
    else:
        with pytest.raises(CanonError, match="not supported for an SAE in memory"):
            canonical(theirs)


@pytest.mark.parametrize("normalization", NORMALISATIONS)
@pytest.mark.parametrize("on_input", [False, True])
@pytest.mark.parametrize("name", TRAINING)
def test_a_training_checkpoint_and_its_inference_model(
    lens: Any, tmp_path: Path, name: str, on_input: bool, normalization: str
) -> None:
    options = {"apply_b_dec_to_input": on_input, "normalize_activations": normalization}
    config = TRAINING[name](lens, **options)
    theirs = built(lens, config, kind="TrainingSAE")
    theirs.save_model(tmp_path / "training")
    ours = ADAPTER.load(local(tmp_path / "training"))
    assert ADAPTER.describe(local(tmp_path / "training")).calibrated
    batch = name.startswith(("batchtopk", "matryoshka"))
    if not batch:
        reloaded = lens.TrainingSAE.load_from_disk(tmp_path / "training")
        check(ours, reloaded, kind=normalization, scaled=name == "topk-rescaled")
    if normalization == "none":
        torch.testing.assert_close(canonical(theirs).encode(activations()).shape, (N, M))
    theirs.save_inference_model(tmp_path / "inference")
    inference = lens.SAE.load_from_disk(tmp_path / "inference")
    # rows of rescaled ones are saved at unit norm, so that their codes need no factor
    check(ADAPTER.load(local(tmp_path / "inference")), inference, kind=normalization)
    if batch:
        described = ADAPTER.describe(local(tmp_path / "inference"))
        assert (described.k, described.architecture) == (4, config.architecture())
        codes = ours.encode(normalise(activations(), normalization).x)
        with torch.no_grad():
            agree(codes, inference.encode(activations()) * inference.W_dec.norm(dim=1))


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("name", ["batchtopk", "matryoshka"])
def test_a_training_checkpoint_before_its_first_threshold_is_calibrated(
    lens: Any, tmp_path: Path, name: str, rescale: bool
) -> None:
    theirs = built(
        lens, training(lens, name, k=4.5, rescale_acts_by_decoder_norm=rescale), kind="TrainingSAE"
    )
    theirs.topk_threshold.fill_(0.0)
    theirs.save_model(tmp_path)
    description = ADAPTER.describe(local(tmp_path))
    assert (description.calibrated, description.k) == (False, 4.5)
    x = activations()
    with torch.no_grad():
        chosen = theirs.encode(x)  # over the whole batch, which is smaller than a batch of ours
        norms = theirs.W_dec.norm(dim=1)
    least = chosen[chosen > 0].min()
    for ours in (ADAPTER.load(local(tmp_path)), canonical(theirs)):
        calibrated = calibrate(ours, Acts(x, torch.zeros(N, dtype=torch.int64)))
        assert calibrated.calibration is not None
        assert calibrated.calibration.threshold == pytest.approx(float(least), rel=1e-5)
        z = calibrated.encode(x)
        expected_codes = torch.where(chosen > least, chosen, 0) * (1 if rescale else norms)
        # the code at the threshold itself is in or out by its last digit
        assert int(((z > 0) != (expected_codes > 0)).sum()) <= 1
        both = (z > 0) & (expected_codes > 0)
        agree(z[both], expected_codes[both])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize("name", ["standard", "jumprelu", "gated", "topk-rescaled"])
def test_weights_of_another_precision(lens: Any, tmp_path: Path, name: str, dtype: str) -> None:
    theirs = built(lens, INFERENCE[name](lens, dtype=dtype))
    theirs.save_model(tmp_path)
    assert ADAPTER.describe(local(tmp_path)).dtype == dtype
    wide = lens.SAE.load_from_disk(tmp_path, dtype="float32").eval()
    check(ADAPTER.load(local(tmp_path)), wide, scaled=name == "topk-rescaled")


@pytest.mark.parametrize("normalization", NORMALISATIONS)
@pytest.mark.parametrize("name", INFERENCE)
def test_heads_side_by_side(lens: Any, tmp_path: Path, name: str, normalization: str) -> None:
    theirs = built(
        lens,
        INFERENCE[name](
            lens,
            reshape_activations="hook_z",
            normalize_activations=normalization,
            metadata=lens.saes.sae.SAEMetadata(hook_name="blocks.0.attn.hook_z"),
        ),
    )
    theirs.save_model(tmp_path)
    assert ADAPTER.describe(local(tmp_path)).hook == "blocks.0.attn.hook_z"
    ours, x = ADAPTER.load(local(tmp_path)), activations()
    read = normalise(x, normalization)
    z = x.view(N, HEADS, D_HEAD)
    with torch.no_grad():
        codes, x_hat = theirs.encode(z), theirs(z)
    norms = 1 if name == "topk-rescaled" else theirs.W_dec.detach().norm(dim=1)
    agree(ours.encode(read.x), codes * norms)
    agree(read.undo(ours.decode(ours.encode(read.x))), x_hat.reshape(N, D))


@pytest.mark.parametrize("name", TRAINING)
def test_a_factor_of_activations_kept_beside_a_training_checkpoint(
    lens: Any, tmp_path: Path, name: str
) -> None:
    from sae_lens.training.activation_scaler import ActivationScaler

    options = {"normalize_activations": "expected_average_only_in"}
    theirs = built(lens, TRAINING[name](lens, **options), kind="TrainingSAE")
    theirs.save_model(tmp_path / "sae")
    with pytest.raises(CanonError, match="the factor is not folded"):
        ADAPTER.load(local(tmp_path / "sae"))
    ActivationScaler(scaling_factor=1.7).save(str(tmp_path / "sae/activation_scaler.json"))
    ours = ADAPTER.load(local(tmp_path / "sae"))
    theirs.fold_activation_norm_scaling_factor(1.7)
    theirs.save_inference_model(tmp_path / "inference")
    check(ours, Rescaled(lens.SAE.load_from_disk(tmp_path / "inference")))
    (tmp_path / "sae/activation_scaler.json").write_text('{"scaling_factor": -1}')
    with pytest.raises(CanonError, match=r"scaling_factor is -1, .*activation_scaler\.json\)"):
        ADAPTER.load(local(tmp_path / "sae"))


class Rescaled:
    """An SAE of SAELens under the name that `check` knows it by."""

    def __init__(self, sae: Any) -> None:
        self.encode, self.forward, self.W_dec = sae.encode, sae.forward, sae.W_dec

    def __call__(self, x: Tensor) -> Tensor:
        return self.forward(x)


OLD = {
    "d_in": D, "d_sae": M, "dtype": "torch.float32", "device": "cpu", "model_name": "gpt2",
    "hook_point": "blocks.1.hook_resid_pre", "hook_point_layer": 1, "hook_point_head_index": None,
    "use_ghost_grads": False, "context_size": 128, "prepend_bos": True, "dataset_path": "none",
    "finetuning_scaling_factor": False, "sae_lens_training_version": "3.5.0",
}  # fmt: skip
LAYOUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "3 relu": ("standard", {"activation_fn_str": "relu", "normalize_activations": None}),
    "3 no bias on input": ("standard", {"apply_b_dec_to_input": False}),
    "3 topk": ("topk", {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 5}}),
    "4 gated": ("gated", {"architecture": "gated", "activation_fn_str": "relu"}),
    "4 jumprelu": ("jumprelu", {"architecture": "jumprelu", "normalize_activations": False}),
    "5 jumprelu": ("jumprelu", {"architecture": "jumprelu", "rescale_acts_by_decoder_norm": True}),
    "5 topk": (
        "topk",
        {
            "architecture": "standard", "activation_fn": "topk", "activation_fn_kwargs": {"k": 5},
            "hook_name": "blocks.1.hook_resid_pre", "normalize_activations": "none",
        },
    ),
    "5 layer norm": ("standard", {"activation_fn": "relu", "normalize_activations": "layer_norm"}),
}  # fmt: skip


@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_configuration_from_before_version_6(
    lens: Any, tmp_path: Path, layout: str, ones: bool
) -> None:
    name, config = LAYOUTS[layout]
    built(lens, INFERENCE[name](lens)).save_model(tmp_path)
    (tmp_path / "cfg.json").write_text(json.dumps(OLD | config))
    if ones:  # some versions wrote it whatever it was
        weights = load_file(tmp_path / "sae_weights.safetensors")
        save_file(weights | {"scaling_factor": torch.ones(M)}, tmp_path / "sae_weights.safetensors")
    theirs = lens.SAE.load_from_disk(tmp_path).eval()
    described = ADAPTER.describe(local(tmp_path))
    assert described.hook == "blocks.1.hook_resid_pre"
    check(ADAPTER.load(local(tmp_path)), theirs, kind=described.normalize)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logarithms_of_thresholds_in_older_training_checkpoints(
    lens: Any, tmp_path: Path, dtype: torch.dtype
) -> None:
    built(lens, TRAINING["jumprelu"](lens), kind="TrainingSAE").save_model(tmp_path)
    weights = load_file(tmp_path / "sae_weights.safetensors")
    weights["log_threshold"] = weights["threshold"].log().to(dtype)
    both = ADAPTER.identity(local(tmp_path))
    save_file(weights, tmp_path / "sae_weights.safetensors")
    with pytest.raises(CanonError, match="threshold, which is no part of the format"):
        ADAPTER.load(local(tmp_path))
    del weights["threshold"]
    save_file(weights, tmp_path / "sae_weights.safetensors")
    assert ADAPTER.identity(local(tmp_path)) != both
    ours, theirs = ADAPTER.load(local(tmp_path)), lens.TrainingSAE.load_from_disk(tmp_path)
    check(ours, theirs)
    agree(ours.coder.threshold, (theirs.threshold * theirs.W_dec.norm(dim=1)).detach())


@pytest.mark.skipif(not REAL.exists(), reason="the real SAELens 3.4 checkpoint is not here")
def test_a_real_checkpoint_of_version_3(lens: Any) -> None:
    x = torch.randn(50, 128, generator=torch.Generator().manual_seed(0))
    ours, theirs = ADAPTER.load(local(REAL)), lens.SAE.load_from_disk(REAL)
    with torch.no_grad():
        agree(ours.decode(ours.encode(x)), theirs(x))
        agree(ours.encode(x), theirs.encode(x) * theirs.W_dec.norm(dim=1))
    assert ADAPTER.describe(local(REAL)).width == 1024


def test_every_architecture_that_saelens_opens_is_read_or_refused(lens: Any) -> None:
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

    opened = SAE_CLASS_REGISTRY.keys() | SAE_TRAINING_CLASS_REGISTRY.keys()
    assert opened == ARCHITECTURES.keys() | REFUSED.keys()
    assert not ARCHITECTURES.keys() & REFUSED.keys()


@pytest.mark.parametrize("architecture", REFUSED)
def test_what_saelens_writes_of_the_others_is_refused_with_the_reason(
    lens: Any, tmp_path: Path, architecture: str
) -> None:
    from sae_lens.registry import get_sae_class

    kind, config = get_sae_class(architecture)
    settings_of = {
        "temporal": {"n_heads": 2, "bottleneck_factor": 1, "kval_topk": 3},
        "abstopk": {"k": 3},
    }
    across = {"d_out": D, "apply_b_dec_to_input": False} if "transcoder" in architecture else {}
    settings = settings_of.get(architecture, across)
    sae = kind(config(d_in=D, d_sae=M, **settings))
    sae.save_model(tmp_path)
    reason = f"'{architecture}': {REFUSED[architecture]}"
    for ask in (ADAPTER.describe, ADAPTER.identity, ADAPTER.load):
        with pytest.raises(CanonError, match=reason) as caught:
            ask(local(tmp_path))
        assert "cfg.json" in str(caught.value)
    with pytest.raises(CanonError, match=reason):
        canonical(sae)


def test_an_object_that_returns_its_error_is_refused(lens: Any) -> None:
    sae = built(lens, INFERENCE["standard"](lens))
    sae._use_error_term = True
    with pytest.raises(CanonError, match="use_error_term"):
        canonical(sae)


def test_an_object_that_is_not_finite_is_refused_by_name(lens: Any) -> None:
    sae = built(lens, INFERENCE["standard"](lens))
    sae.b_enc.data[3] = torch.nan
    with pytest.raises(
        CanonError, match=r"b_enc holds a value that is not finite .*\(StandardSAE\)"
    ):
        canonical(sae)


HUB = "saelens://gpt2-small-res-jb/blocks.8.hook_resid_pre"
HEADS_OF_THE_HUB = "saelens://gpt2-small-hook-z-kk/blocks.0.hook_z"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache and no connection."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def cached(cache: Path, hub_sae: saelens_hub.HubSae, commit: str) -> Path:
    """The path in the cache at which the client stores a hub SAE."""
    repository = cache / f"models--{hub_sae.repository.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs/main").write_text(commit)
    path = repository / "snapshots" / commit / hub_sae.folder
    path.parent.mkdir(parents=True)
    return path


def test_a_release_in_saelens_own_format_is_as_saelens_opens_it(lens: Any, cache: Path) -> None:
    ref = Ref.parse(HUB)
    hub_sae = saelens_hub.locate(ref)
    with pytest.raises(NotOffline, match="cannot be reached"):
        ADAPTER.load(ref)
    for commit, on_input in (("a" * 40, True), ("b" * 40, False)):
        config = INFERENCE["standard"](lens, apply_b_dec_to_input=on_input)
        built(lens, config, seed=int(on_input)).save_model(cached(cache, hub_sae, commit))
    theirs = lens.SAE.from_pretrained(hub_sae.release, hub_sae.id)
    check(ADAPTER.load(ref), theirs)
    described = ADAPTER.describe(ref)
    assert (described.d, described.width) == (D, M)
    folder = f"saelens://{hub_sae.repository}/{hub_sae.folder}"
    check(ADAPTER.load(Ref.parse(folder)), theirs)
    first = ADAPTER.load(Ref.parse(f"{HUB}@{'a' * 40}"))
    assert not torch.allclose(first.encode(activations()), ADAPTER.load(ref).encode(activations()))
    with pytest.raises(NotOffline):
        ADAPTER.load(Ref.parse(f"{HUB}@other"))


def test_a_release_with_a_factor_of_activations_is_folded(lens: Any, cache: Path) -> None:
    name, release = next(
        (name, release)
        for name, release in saelens_hub.releases().items()
        if release.scales and release.loader == saelens_hub.SAE_LENS
    )
    id, scale = next(iter(release.scales.items()))
    ref = Ref.parse(f"saelens://{name}/{id}")
    config = INFERENCE["standard"](lens, normalize_activations="expected_average_only_in")
    built(lens, config).save_model(cached(cache, saelens_hub.locate(ref), "c" * 40))
    assert scale != 1
    check(ADAPTER.load(ref), lens.SAE.from_pretrained(name, id))


def test_a_release_in_another_format_goes_through_its_loader(lens: Any, cache: Path) -> None:
    ref = Ref.parse(HEADS_OF_THE_HUB)
    hub_sae = saelens_hub.locate(ref)
    assert ADAPTER.describe(ref).width is None
    with pytest.raises(NotOffline, match="cannot be reached"):
        ADAPTER.load(ref)
    plain = built(lens, INFERENCE["standard"](lens))
    path = cached(cache, hub_sae, "d" * 40)
    torch.save(dict(plain.state_dict()), path)
    config = {"act_size": D, "dict_size": M, "act_name": "blocks.0.attn.hook_z"}
    Path(str(path).split(".pt")[0] + "_cfg.json").write_text(json.dumps(config))
    check(ADAPTER.load(ref), plain)
