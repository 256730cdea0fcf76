"""Files of OpenAI's sparse_autoencoder load as its mathematics says."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import saebench_canon_openai as plugin
import torch
from torch import Tensor, nn

from saebench_canon import CanonError, CanonicalSAE, Ref
from saebench_canon.testing import Registry, normalise, registry_of

D, M, K, N = 12, 30, 4, 200


def weights(*, unit: bool = False, seed: int = 0) -> dict[str, Tensor]:
    """The parameters under their names; torch keeps a linear map as [out, in]."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(M, D, generator=g)
    rows /= rows.norm(dim=1, keepdim=True)
    return {
        "pre_bias": 0.3 * torch.randn(D, generator=g),
        "latent_bias": 0.3 * torch.randn(M, generator=g),
        "encoder.weight": rows + 0.1 * torch.randn(M, D, generator=g),
        "decoder.weight": (rows if unit else rows * (0.5 + torch.rand(M, 1, generator=g))).T,
    }


class Layout(nn.Module):
    """A module whose state dict is named as upstream's: two linear maps, two biases, counts."""

    def __init__(self, w: dict[str, Tensor], *, tied: bool = False, counts: bool = True) -> None:
        super().__init__()
        self.pre_bias = nn.Parameter(w["pre_bias"])
        self.encoder = nn.Linear(D, M, bias=False)
        self.encoder.weight = nn.Parameter(w["encoder.weight"])
        self.latent_bias = nn.Parameter(w["latent_bias"])
        self.decoder = nn.Module() if tied else nn.Linear(M, D, bias=False)
        if tied:
            self.decoder.linear = self.encoder
        else:
            self.decoder.weight = nn.Parameter(w["decoder.weight"])
        self.register_buffer("stats_last_nonzero", torch.zeros(M, dtype=torch.long))
        if counts:
            self.register_buffer("latents_activation_frequency", torch.ones(M))
            self.register_buffer("latents_mean_square", torch.zeros(M))


def write(path: Path, activation: str | None = "TopK", **options: Any) -> Path:
    """A file as upstream saves it: the state dict, the activation's name, and its own state."""
    change, layout = options.pop("change", {}), options.pop("layout", {})
    state = Layout(weights(unit=options.pop("unit", False)), **layout).state_dict()
    if activation is not None:
        state["activation"] = activation
        activation_state = nn.ReLU().state_dict()
        if activation == "TopK":
            activation_state.update({"k": K, "postact_fn": "ReLU"})
            # a TopK is a module inside, so its state is written under its name as well
            state.update({f"activation.{key}": value for key, value in activation_state.items()})
        state["activation_state_dict"] = activation_state
    state.update(change)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(type(state)((key, value) for key, value in state.items() if value is not None), path)
    return path


def upstream(w: dict[str, Tensor], x: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """Codes and reconstructions, by the mathematics; only TopK normalises its input."""
    mean = x.mean(-1, keepdim=True)
    std = ((x - mean) ** 2).sum(-1, keepdim=True).div(D - 1).sqrt()
    read = (x - mean) / (std + 1e-5) if activation == "TopK" else x
    pre = (read - w["pre_bias"]) @ w["encoder.weight"].T + w["latent_bias"]
    codes = pre.relu()
    if activation == "TopK":
        codes = codes * (pre >= pre.topk(K, dim=1).values[:, -1:])
    x_hat = codes @ w["decoder.weight"].T + w["pre_bias"]
    return codes, x_hat * std + mean if activation == "TopK" else x_hat


def inputs() -> Tensor:
    return 3 * torch.randn(N, D, generator=torch.Generator().manual_seed(7)) + 1


@pytest.fixture(scope="module")
def registry() -> Registry:
    return registry_of(plugin)


def load(path: Path, registry: Registry, **options: Any) -> CanonicalSAE:
    return registry.adapters["file"].load(Ref.parse(f"file:{path}"), **options)


def check(path: Path, registry: Registry, w: dict[str, Tensor], activation: str) -> None:
    """Codes, reconstructions, and the same token by token."""
    description = registry.adapters["file"].describe(Ref.parse(f"file:{path}"))
    x = inputs()
    read = normalise(x, description.normalize)
    sae = load(path, registry)
    codes, x_hat = upstream(w, x, activation)
    assert 0 < int((codes > 0).sum()) < codes.numel()
    scaled = codes * w["decoder.weight"].norm(dim=0)
    torch.testing.assert_close(sae.encode(read.x), scaled, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae.encode_sparse(read.x).dense(), scaled, rtol=1e-5, atol=1e-5)
    ours = read.undo(sae.decode(sae.encode(read.x)))
    torch.testing.assert_close(ours, x_hat, rtol=1e-5, atol=1e-5)
    alone = torch.cat([sae.encode(row[None]) for row in read.x])
    torch.testing.assert_close(alone, sae.encode(read.x))


@pytest.mark.parametrize("unit", [True, False], ids=["unit rows", "other rows"])
@pytest.mark.parametrize("activation", ["TopK", "ReLU"])
def test_codes_and_reconstructions_are_upstream_s(
    tmp_path: Path, registry: Registry, activation: str, unit: bool
) -> None:
    path = write(tmp_path / "8.pt", activation, unit=unit)
    check(path, registry, weights(unit=unit), activation)


def test_the_first_files_name_no_activation_and_are_relu(
    tmp_path: Path, registry: Registry
) -> None:
    path = write(tmp_path / "8.pt", None, layout={"counts": False})
    check(path, registry, weights(), "ReLU")


@pytest.mark.parametrize("activation", ["TopK", "ReLU"])
def test_a_tied_decoder_is_the_encoder(tmp_path: Path, registry: Registry, activation: str) -> None:
    path = write(tmp_path / "8.pt", activation, layout={"tied": True})
    w = weights()
    check(path, registry, w | {"decoder.weight": w["encoder.weight"].T}, activation)


def test_it_describes_itself(tmp_path: Path, registry: Registry) -> None:
    description = plugin.openai.describe(Ref.parse(f"openai:{write(tmp_path / 'v5' / '8.pt')}"))
    assert (description.d, description.width, description.architecture, description.k) == (
        D,
        M,
        "topk",
        K,
    )
    assert (description.normalize, description.calibrated, description.hook) == (
        "layer_norm",
        True,
        None,
    )
    description = plugin.openai.describe(
        Ref.parse(f"openai:{write(tmp_path / 'v1' / '8.pt', 'ReLU')}")
    )
    assert (description.architecture, description.k, description.normalize) == (
        "relu",
        None,
        "none",
    )


def test_what_is_claimed_has_its_keys(tmp_path: Path, registry: Registry) -> None:
    path = write(tmp_path / "one" / "8.pt")
    assert registry.claim(path) == f"openai:{path}"
    assert registry.claim(path.parent) == f"openai:{path.parent}"
    assert load(path.parent, registry).width == M
    write(tmp_path / "one" / "9.pt")
    assert registry.claim(path.parent) is None  # two SAEs: each is named by its own path
    torch.save({"bias": torch.zeros(3)}, tmp_path / "ae.pt")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "ae.pt").write_bytes(b"PK")
    (tmp_path / "broken" / "config.json").write_text("{}")
    for path in (tmp_path / "ae.pt", tmp_path / "broken", tmp_path / "broken" / "ae.pt"):
        assert registry.claim(path) is None


def test_a_hub_ref_is_refused_with_what_to_do(registry: Registry) -> None:
    with pytest.raises(CanonError, match=r"no fixed names.*openai:PATH"):
        registry.adapter("openai").load(Ref.parse("openai://made/up"))


@pytest.mark.parametrize(
    ("activation", "change", "says"),
    [
        ("Identity", {}, "activation is 'Identity'"),
        ("JumpReLU", {}, "activation is 'JumpReLU'"),
        ("TopK", {"activation_state_dict": {"k": K, "postact_fn": "Identity"}}, "can be negative"),
        ("TopK", {"activation_state_dict": {"postact_fn": "ReLU"}}, "the file has no k"),
        ("TopK", {"activation_state_dict": None}, "the file has no activation_state_dict"),
        ("TopK", {"activation_state_dict": {"k": M + 1}}, "k is 31 where the SAE has 30 latents"),
        ("TopK", {"decoder.weight": None}, "the file has no decoder.weight"),
        ("TopK", {"decoder.weight": torch.zeros(M, D)}, "W_dec|fits the decoder"),
        ("ReLU", {"decoder.weight": torch.zeros(D, M)}, "W_dec has only rows of zeros"),
        ("ReLU", {"pre_bias": torch.full((D,), math.nan)}, r"not finite \(read from pre_bias\)"),
        ("ReLU", {"latent_bias": torch.zeros(D)}, "latent_bias has shape"),
        ("ReLU", {"threshold": torch.zeros(M)}, "holds threshold, which is no part"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    tmp_path: Path, registry: Registry, activation: str, change: dict[str, Any], says: str
) -> None:
    path = write(tmp_path / "8.pt", activation, change=change)
    with pytest.raises(CanonError, match=says) as caught:
        load(path, registry)
    assert "8.pt" in str(caught.value)


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_truncated_file_is_named(tmp_path: Path, registry: Registry, share: float) -> None:
    path = write(tmp_path / "v5_layer_8.pt")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CanonError, match=r"no file of torch\.save.*layer_8\.pt\)"):
        load(path, registry)


def test_the_module_imports_without_torch() -> None:
    code = "import sys, saebench_canon_openai; assert 'torch' not in sys.modules"
    folder = Path(plugin.__file__).parent
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
