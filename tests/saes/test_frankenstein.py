"""A small SAE with a large one's latents: codes side by side, the stitched MSE, a folder to run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import brute_force
import pandas as pd
import pytest
import torch
from brute_force import CodedSAE
from planted import D, planted_acts, write_acts, write_sae
from safetensors.torch import load_file

from saebench_canon.bench.measure import Bench
from saebench_canon.bench.plan import make_plan
from saebench_canon.bench.store import Store
from saebench_canon.cli.main import main
from saebench_canon.errors import CanonError
from saebench_canon.plugin.ref import Ref
from saebench_canon.plugin.registry import load_registry
from saebench_canon.plugin.sae import CanonicalSAE, LinearEncoder
from saebench_canon.saes.fold import fold
from saebench_canon.saes.formats.any_object import canonical
from saebench_canon.saes.formats.frankenstein import frankenstein, save
from saebench_canon.suite.from_command_line import Options, suite_of_saes

SMALL, LARGE = 10, 24
KINDS = ["relu", "jumprelu", "batchtopk", "gated"]
BECOMES = {"relu": "standard", "jumprelu": "jumprelu", "batchtopk": "jumprelu", "gated": "gated"}


def an_sae(kind: str, width: int, *, subtracts: bool = False, dtype: Any = torch.float64,
           massive: float = 0.0) -> CanonicalSAE:  # fmt: skip
    """A random SAE, its rows at other norms than one, of a kind whose codes are per token."""
    g = torch.Generator().manual_seed(width)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    rows, bias = draw(width, D), 0.1 * draw(D)
    bias[3] += massive
    more: dict[str, Any] = {"b_enc": 0.3 * draw(width) - 0.3}
    if kind == "gated":
        more = {"b_gate": more["b_enc"], "b_mag": 0.2 * draw(width), "r_mag": 0.3 * draw(width)}
    if kind == "jumprelu":
        more["threshold"] = 0.5 * draw(width).abs()
    if kind in ("batchtopk", "topk"):
        more["k"] = 3
    norms = rows.norm(dim=1, keepdim=True)
    tensors = {"W_enc": (rows / norms).T + 0.1 * draw(D, width), "W_dec": rows, "b_dec": bias}
    tensors |= {name: value for name, value in more.items() if name != "k"}
    sae = fold(
        **{name: value.to(dtype) for name, value in tensors.items()},
        k=more.get("k"),
        activation=kind,  # type: ignore[arg-type]
        apply_b_dec_to_input=subtracts,
    )
    if kind == "batchtopk":  # as calibration leaves it, with row norms that selection must not see
        assert isinstance(sae.coder, LinearEncoder)
        return CanonicalSAE(sae.W_dec, sae.b_dec, sae.coder.with_threshold(0.4))
    return sae


def some(width: int = LARGE) -> torch.Tensor:
    return torch.arange(width) % 3 == 1


def loaded(folder: Path, dtype: str = "float64") -> CanonicalSAE:
    return load_registry().adapter("file").load(Ref.parse(f"file:{folder}"), dtype=dtype)


def config(folder: Path) -> Any:
    return json.loads((folder / "cfg.json").read_text())


@pytest.mark.parametrize("subtract", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("small_kind", KINDS)
@pytest.mark.parametrize("large_kind", KINDS)
def test_codes_stand_side_by_side_and_the_mse_is_the_stitched_one(
    tmp_path: Path, small_kind: str, large_kind: str, subtract: tuple[bool, bool]
) -> None:
    small = an_sae(small_kind, SMALL, subtracts=subtract[0])
    large = an_sae(large_kind, LARGE, subtracts=subtract[1])
    save(frankenstein(small, large, some()), tmp_path / "it")
    ours, x = loaded(tmp_path / "it"), planted_acts(100).double()
    expected_codes = torch.cat([small.encode(x), large.encode(x)[:, some()]], dim=1)
    assert ((expected_codes > 0).sum(dim=0) > 0).sum() > SMALL
    codes = ours.encode(x)
    assert torch.equal(codes > 0, expected_codes > 0)
    torch.testing.assert_close(codes, expected_codes, rtol=1e-12, atol=1e-12)
    members = [CodedSAE(sae, sae.encode(x)) for sae in (small, large)]  # type: ignore[arg-type]
    stitched = brute_force.stitched(
        *members, list(range(SMALL)), some().nonzero()[:, 0].tolist(), fixed_bias=True
    )
    mse = brute_force.mse(x, ours.decode(codes))
    assert mse == pytest.approx(brute_force.mse(x, stitched), rel=1e-10)
    kinds = {small_kind, large_kind}
    expected = max((BECOMES[kind] for kind in kinds), key=["standard", "jumprelu", "gated"].index)
    assert config(tmp_path / "it")["architecture"] == expected
    assert config(tmp_path / "it")["apply_b_dec_to_input"] is subtract[0]


def test_relu_latents_beside_jumprelu_ones_have_the_threshold_0() -> None:
    combined = frankenstein(an_sae("relu", SMALL), an_sae("jumprelu", LARGE), some())
    assert (combined.tensors["threshold"][:SMALL] == 0).all()
    assert (combined.tensors["threshold"][SMALL:] > 0).all()


def test_no_latent_or_all_of_them_can_be_added() -> None:
    small, large = an_sae("relu", SMALL), an_sae("relu", LARGE)
    x = planted_acts(50).double()
    for chosen in (torch.zeros(LARGE, dtype=torch.bool), torch.ones(LARGE, dtype=torch.bool)):
        tensors = frankenstein(small, large, chosen).tensors
        assert tensors["W_dec"].shape == (SMALL + int(chosen.sum()), D)
        codes = (x @ tensors["W_enc"] + tensors["b_enc"]).relu()
        torch.testing.assert_close(codes[:, :SMALL], small.encode(x))


def test_a_massive_dimension_costs_no_digits_where_both_subtract_their_bias(
    tmp_path: Path,
) -> None:
    """Folded into the encoder's bias, a bias of 3000 would leave float32 some three digits."""
    saes = [
        an_sae("relu", width, subtracts=True, dtype=torch.float32, massive=3000.0)
        for width in (SMALL, LARGE)
    ]
    x = planted_acts(100)
    x[:, 3] += 3000
    save(frankenstein(*saes, some()), tmp_path / "it")
    expected_codes = torch.cat([saes[0].encode(x), saes[1].encode(x)[:, some()]], dim=1)
    torch.testing.assert_close(loaded(tmp_path / "it", "float32").encode(x), expected_codes,
                               rtol=1e-4, atol=1e-4)  # fmt: skip


@pytest.mark.parametrize("which", ["smaller", "larger"])
@pytest.mark.parametrize(("kind", "why"), [("topk", "latents would compete"),
                                           ("batchtopk", "no threshold")])  # fmt: skip
def test_codes_that_depend_on_other_latents_are_refused(which: str, kind: str, why: str) -> None:
    widths = {"smaller": SMALL, "larger": LARGE}
    saes = {name: an_sae("relu", width) for name, width in widths.items()}
    rows = saes[which].W_dec
    saes[which] = fold(W_enc=rows.T, W_dec=rows, b_dec=rows[0], b_enc=rows[:, 0], k=3,
                       activation=kind)  # type: ignore[arg-type]  # fmt: skip
    with pytest.raises(CanonError, match=f"the {which} SAE is {kind}: .*{why}"):
        frankenstein(saes["smaller"], saes["larger"], some())


def test_what_does_not_fit_is_refused() -> None:
    small, large = an_sae("relu", SMALL), an_sae("relu", LARGE)

    class Somebodys:
        W_dec, b_dec = torch.eye(D), torch.zeros(D)

        def encode(self, x: torch.Tensor) -> torch.Tensor:
            return x.relu()

        def decode(self, codes: torch.Tensor) -> torch.Tensor:
            return codes

    with pytest.raises(CanonError, match="the smaller SAE's encoder is not known"):
        frankenstein(canonical(Somebodys()), large, some())
    with pytest.raises(CanonError, match=r"shape \[10\]"):
        frankenstein(small, large, some(SMALL))
    with pytest.raises(CanonError, match="type torch"):
        frankenstein(small, large, some().long())
    narrow = fold(W_enc=torch.eye(4), W_dec=torch.eye(4), b_dec=torch.zeros(4))
    with pytest.raises(CanonError, match="width 4 and 16"):
        frankenstein(narrow, large, some())


def test_the_same_sae_is_the_same_bytes_and_no_folder_is_overwritten(tmp_path: Path) -> None:
    combined = frankenstein(an_sae("relu", SMALL), an_sae("gated", LARGE), some())
    for name in ("one", "other"):
        save(combined, tmp_path / name, hook_name="blocks.0.hook_resid_pre")
    for name in ("cfg.json", "sae_weights.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    with pytest.raises(CanonError, match="already exists"):
        save(combined, tmp_path / "one")
    with pytest.raises(ValueError, match="JSON compliant"):
        save(combined, tmp_path / "third", threshold=float("nan"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]


@pytest.mark.parametrize("kinds", [("relu", "relu"), ("relu", "jumprelu"), ("gated", "jumprelu")])
def test_saelens_reads_it_alike(tmp_path: Path, kinds: tuple[str, str]) -> None:
    lens = pytest.importorskip("sae_lens")
    small, large = (
        an_sae(kind, width, subtracts=True, dtype=torch.float32)
        for kind, width in zip(kinds, (SMALL, LARGE), strict=True)
    )
    save(frankenstein(small, large, some()), tmp_path / "it", hook_name="blocks.0.hook_resid_pre")
    theirs, x = lens.SAE.load_from_disk(str(tmp_path / "it")), planted_acts(100)
    expected_codes = torch.cat([small.encode(x), large.encode(x)[:, some()]], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(theirs.encode(x), expected_codes, rtol=1e-4, atol=1e-5)
        out = expected_codes @ torch.cat([small.W_dec, large.W_dec[some()]]) + small.b_dec
        torch.testing.assert_close(theirs(x), out, rtol=1e-4, atol=1e-4)


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with activations and two SAEs."""
    monkeypatch.chdir(tmp_path)
    write_acts(tmp_path / "acts.safetensors")
    for width in (24, 48):
        write_sae(tmp_path / f"w{width}", width)
    return tmp_path


def call(*more: str, small: str = "w24", large: str = "w48", to: str = "made") -> int:
    return main(["frankenstein", small, large, "--data", "acts.safetensors", "--to", to, *more])


def test_the_command_adds_what_helps_and_tells_the_measured_error(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call() == 0
    (line,) = capsys.readouterr().out.splitlines()
    x = planted_acts()
    saes = [loaded(workdir / name) for name in ("w24", "w48")]
    members = [CodedSAE(sae, sae.encode(x.double())) for sae in saes]  # type: ignore[arg-type]
    base = brute_force.mse(x, brute_force.rebuilt(members[0]))
    base_latents = list(range(24))
    helpful = [
        latent
        for latent in brute_force.live(members[1])
        if brute_force.mse(
            x, brute_force.stitched(*members, base_latents, [latent], fixed_bias=True)
        )
        < base
    ]
    assert config(workdir / "made")["metadata"]["frankenstein"]["added"] == helpful
    stitched = brute_force.stitched(*members, base_latents, helpful, fixed_bias=True)
    after = brute_force.mse(x, stitched)
    assert line == (
        f"Added {len(helpful)} of 48 latents to the smaller SAE's 24: "
        f"MSE {base:.4g} before and {after:.4g} after, written to made."
    )
    assert 0 < len(helpful) < 48
    registry, store = load_registry(), Store(workdir / ".canon")
    text, *_ = suite_of_saes(
        ["made", "w24", "w48"], Options("fidelity", "acts.safetensors"), registry
    )
    (workdir / "run.toml").write_text(text)
    plan, bench = make_plan(workdir / "run.toml", registry, store), Bench(registry, store)
    errors = [bench.measure(case, rerun=False).scores["mse"]["value"] for case in plan.cases]
    assert errors[:2] == pytest.approx([after, base], rel=1e-5)


def test_latents_that_help_alone_and_harm_together_are_said_to(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four times the one direction that the small SAE lacks."""
    x = torch.zeros(40, D)
    x[:, 0] = 1 + torch.arange(40) / 40
    write_acts(workdir / "acts.safetensors", x)
    for width in (2, 4):
        rows = torch.eye(D)[[0] * width if width == 4 else [1, 2]]
        sae = fold(W_enc=rows.T, W_dec=rows, b_dec=torch.zeros(D), b_enc=torch.full((width,), 0.1))
        none = torch.zeros(width, dtype=torch.bool)
        save(frankenstein(sae, sae, none), workdir / f"w{width}")
    assert call(small="w2", large="w4") == 0
    assert "after (each helps alone, together they harm), written" in capsys.readouterr().out


def test_a_threshold_keeps_to_novel_latents(workdir: Path) -> None:
    assert call() == 0
    assert call("--threshold", "0.5", to="novel") == 0
    paths = (workdir / ".canon" / "tables").glob("*/latents.parquet")
    tables = (pd.read_parquet(path) for path in paths)
    latents = next(table for table in tables if "max_cos" in table)
    helps = latents.delta_mse_fixed_bias < 0
    provenance = {
        name: config(workdir / name)["metadata"]["frankenstein"] for name in ("made", "novel")
    }
    assert provenance["made"]["added"] == latents.latent[helps].tolist()
    assert provenance["novel"]["added"] == latents.latent[helps & (latents.max_cos < 0.5)].tolist()
    assert provenance["made"]["record"] == provenance["novel"]["record"]
    assert (
        load_file(workdir / "novel" / "sae_weights.safetensors")["W_dec"].shape[0]
        < 24 + helps.sum()
    )


def test_what_the_sae_says_of_its_input_is_handed_on(workdir: Path) -> None:
    more = {"normalize_activations": "layer_norm", "metadata": {
        "hook_name": "blocks.1.hook_resid_pre", "prepend_bos": True,
        "model_from_pretrained_kwargs": {"center_writing_weights": True},
    }}  # fmt: skip
    for width in (24, 48):
        changed = config(workdir / f"w{width}") | more
        (workdir / f"w{width}" / "cfg.json").write_text(json.dumps(changed))
    assert call() == 0
    combined = config(workdir / "made")
    assert combined["normalize_activations"] == "layer_norm"
    assert combined["metadata"].items() >= more["metadata"].items()  # type: ignore[attr-defined]
    records = [json.loads(path.read_text()) for path in (workdir / ".canon/records").glob("*.json")]
    assert len({record["provenance"]["data"]["digest"] for record in records}) == 1


def test_wrong_usage_of_the_command_is_a_sentence(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error_of(*more: str, **named: str) -> str:
        assert call(*more, **named) == 4
        output = capsys.readouterr()
        assert output.out == ""
        return output.err

    assert "w48 is the larger SAE. Name the smaller one first." in error_of(
        small="w48", large="w24"
    )
    assert "is named twice" in error_of(large="w24")
    assert "w24 already exists (--to)" in error_of(to="w24")
    assert "lowers the MSE" in error_of("--threshold", "-0.99")
    (workdir / "both").mkdir()
    for width in (24, 48):
        write_sae(workdir / "both" / f"w{width}", width, seed=3)
    assert "hold 3 SAEs" in error_of(small="both")
    changed = config(workdir / "w24") | {"normalize_activations": "layer_norm"}
    (workdir / "w24" / "cfg.json").write_text(json.dumps(changed))
    assert "read activations in different ways" in error_of()
    changed = config(workdir / "w24") | {
        "architecture": "topk",
        "k": 3,
        "normalize_activations": "none",
    }
    (workdir / "w24" / "cfg.json").write_text(json.dumps(changed))
    (measured,) = (workdir / ".canon" / "records").glob("*.json")
    assert "the smaller SAE is topk" in error_of()
    assert list((workdir / ".canon" / "records").glob("*.json")) == [measured]
    assert not (workdir / "made").exists()
