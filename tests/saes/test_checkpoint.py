"""A format told in one function: it is claimed, described, identified, checked and loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from own_formats import FORMS, D, M, npz_relu, pt_topk, weights, write
from safetensors.torch import save_file

from saebench_canon.errors import CanonError
from saebench_canon.plugin.ref import Ref
from saebench_canon.saes.checkpoint import Parameters, checkpoint
from saebench_canon.saes.files import Files


@pytest.mark.parametrize("form", FORMS)
def test_it_describes_and_loads_what_was_written(tmp_path: Path, form: str) -> None:
    adapter = write(tmp_path / "sae", form)
    ref = Ref.parse(adapter.claim(tmp_path / "sae") or "")
    description = adapter.describe(ref)
    assert (description.d, description.width, description.calibrated) == (D, M, form != "st-batch")
    sae, w = adapter.load(ref), weights()
    norms = w["W_dec"].norm(dim=1)
    torch.testing.assert_close(sae.W_dec, w["W_dec"] / norms[:, None])
    x = torch.randn(40, D, generator=torch.Generator().manual_seed(5))
    if form == "st-batch":
        with pytest.raises(CanonError, match="no threshold"):
            sae.encode(x)
        return
    shift = w["b_dec"] if form == "pt-topk" else 0
    pre = ((x - shift) @ w["W_enc"] + w["b_enc"]).relu()
    if form == "pt-topk":
        pre = torch.where(pre >= pre.topk(3).values[:, -1:], pre, 0)
    torch.testing.assert_close(sae.decode(sae.encode(x)), pre @ w["W_dec"] + w["b_dec"])
    torch.testing.assert_close(sae.encode(x), pre * norms)


@pytest.mark.parametrize("form", FORMS)
def test_its_identity_is_of_its_content(tmp_path: Path, form: str) -> None:
    adapter = write(tmp_path / "one", form)
    write(tmp_path / "same", form)
    write(tmp_path / "other", form, b_dec=torch.zeros(D))
    identity, same, changed = (
        adapter.identity(Ref.parse(f"{form}:{tmp_path / name}"))
        for name in ("one", "same", "other")
    )
    assert identity == same != changed


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("W_enc", torch.zeros(D, M + 1), "fits the decoder"),
        ("b_dec", torch.full((D,), torch.nan), "not finite"),
        ("W_dec", torch.zeros(M, D), "rows of zeros"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, form: str, key: str, value: torch.Tensor, message: str
) -> None:
    adapter = write(tmp_path / "sae", form, **{key: value})
    with pytest.raises(CanonError, match=message):
        adapter.load(Ref.parse(f"{form}:{tmp_path / 'sae'}"))


def test_a_value_that_is_refused_is_named_as_its_file_names_it(tmp_path: Path) -> None:
    adapter = write(tmp_path / "sae", "npz-relu", b_enc=torch.full((M,), torch.nan))
    message = r"b_enc holds a value that is not finite \(read from bias\) \(.*weights\.npz\)"
    with pytest.raises(CanonError, match=message):
        adapter.load(Ref.parse(f"npz-relu:{tmp_path / 'sae'}"))


def test_what_the_format_does_not_know_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "sae", "npz-relu", skip=torch.zeros(3))
    with pytest.raises(CanonError, match="holds skip, which is no part"):
        npz_relu.describe(Ref.parse(f"npz-relu:{tmp_path / 'sae'}"))


def test_a_key_that_the_configuration_lacks_is_named(tmp_path: Path) -> None:
    write(tmp_path / "sae", "pt-topk")
    (tmp_path / "sae" / "config.json").write_text("{}")
    with pytest.raises(CanonError, match=r"the file has no 'k' \(.*config\.json\)"):
        pt_topk.describe(Ref.parse(f"pt-topk:{tmp_path / 'sae'}"))


def test_a_pickle_that_wants_more_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "sae", "pt-topk")
    torch.save({"encoder.weight": print}, tmp_path / "sae" / "ae.pt")
    with pytest.raises(CanonError, match=r"asks for builtins\.print|asks for __builtin__\.print"):
        pt_topk.describe(Ref.parse(f"pt-topk:{tmp_path / 'sae'}"))


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "sae", "npz-relu")
    (tmp_path / "sae" / "weights.npz").rename(tmp_path / "elsewhere.npz")
    (tmp_path / "sae" / "weights.npz").symlink_to(tmp_path / "elsewhere.npz")
    with pytest.raises(CanonError, match="link to a file outside the folder"):
        npz_relu.load(Ref.parse(f"npz-relu:{tmp_path / 'sae'}"))


def test_more_latents_than_memory_holds_are_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = write(tmp_path / "sae", "pt-topk")
    monkeypatch.setattr(
        "psutil.virtual_memory", lambda: type("", (), {"available": 100, "total": 100})()
    )
    with pytest.raises(CanonError, match=r"10 latents needs \d+ B of memory, and 100 B are free"):
        adapter.load(Ref.parse(f"pt-topk:{tmp_path / 'sae'}"))


@checkpoint("npz-jump", files=["weights.npz"], or_files=["Weights.npz"])
def npz_jump(files: Files) -> Parameters:
    """JumpReLU SAEs that store the logarithm of their thresholds, in a file of either name."""
    w = files.npz("Weights.npz" if files.find("Weights.npz") else "weights.npz")
    return Parameters(
        W_enc=w["W_enc"], b_enc=w["b_enc"], W_dec=w["W_dec"], b_dec=w["b_dec"],
        activation="jumprelu", threshold=w["log"].exp(),
    )  # fmt: skip


def write_jump(folder: Path, name: str) -> None:
    folder.mkdir(parents=True)
    arrays = {key: value.numpy() for key, value in weights().items()}
    np.savez(folder / name, log=np.linspace(-3, 0, M, dtype="f4"), **arrays)


@pytest.mark.parametrize("name", ["weights.npz", "Weights.npz"])
def test_a_format_whose_files_have_two_names_is_found_by_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    snapshot = tmp_path / "hub" / "models--made--up" / "snapshots" / "0123abc"
    write_jump(snapshot / "sae", name)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0123abc")
    assert npz_jump.claim(snapshot / "sae") == f"npz-jump:{snapshot / 'sae'}"
    assert npz_jump.claim(snapshot / "sae" / name) == f"npz-jump:{snapshot / 'sae' / name}"
    ref = Ref.parse("npz-jump://made/up/sae")
    assert npz_jump.describe(ref).width == npz_jump.load(ref).width == M
    with pytest.raises(CanonError, match="not in the hub's cache"):
        npz_jump.load(Ref.parse("npz-jump://made/up/other"))


def test_a_stored_logarithm_is_undone(tmp_path: Path) -> None:
    write_jump(tmp_path / "sae", "weights.npz")
    sae, w = npz_jump.load(Ref.parse(f"npz-jump:{tmp_path / 'sae'}")), weights()
    x = torch.randn(40, D, generator=torch.Generator().manual_seed(5))
    pre = x @ w["W_enc"] + w["b_enc"]
    codes = torch.where(pre > torch.linspace(-3, 0, M).exp(), pre, 0).relu()
    torch.testing.assert_close(sae.encode(x), codes * w["W_dec"].norm(dim=1))


def test_files_without_fixed_names_are_not_looked_for_on_a_hub(tmp_path: Path) -> None:
    adapter = checkpoint("any-pt", files=["*.pt"])(pt_topk._read)
    with pytest.raises(CanonError, match=r"any-pt files have no fixed names.*any-pt:PATH"):
        adapter.load(Ref.parse("any-pt://made/up"))


@pytest.mark.parametrize("normalize", ["none", "layer_norm"])
def test_a_hub_sae_that_reads_otherwise_than_was_planned_is_refused_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, normalize: str
) -> None:
    @checkpoint("npz-norm", files=["weights.npz"])
    def npz_norm(files: Files) -> Parameters:
        return replace(npz_relu._read(files), normalize=normalize)  # type: ignore[arg-type]

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    ref = Ref.parse("npz-norm://made/up@0123abc")
    assert npz_norm.describe(ref).normalize == "none"  # planned while it is not here
    snapshot = tmp_path / "models--made--up" / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    write(snapshot, "npz-relu")
    if normalize != "none":
        with pytest.raises(
            CanonError, match=r"other activations than were planned.*Run the command again"
        ):
            npz_norm.load(ref)
    assert npz_norm.describe(ref).normalize == normalize
    assert npz_norm.load(ref).width == M


def test_its_configuration_is_described(tmp_path: Path) -> None:
    @checkpoint("with-config", files=["w.safetensors", "config.json"])
    def with_config(files: Files) -> Parameters:
        """A format with a configuration."""
        files.json("config.json")
        w = files.safetensors("w.safetensors")
        return Parameters(W_enc=w["W_enc"], W_dec=w["W_dec"], b_dec=w["b_dec"], b_enc=w["b_enc"])

    save_file(weights(), tmp_path / "w.safetensors")
    (tmp_path / "config.json").write_text('{"trainer": {"seed": 3, "lr": 0.1}}')
    described = with_config.describe(Ref.parse(f"with-config:{tmp_path}"))
    assert described.metadata == {"trainer": {"seed": 3, "lr": 0.1}}
