"""What an SAE does to its input is done to the activations and undone on its output."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import D, planted_acts, write_acts
from safetensors.torch import load_file, save_file
from tiny_models import tiny
from torch import Tensor

from saebench_canon.bench.measure import Bench
from saebench_canon.bench.plan import Plan, make_plan
from saebench_canon.bench.store import Store
from saebench_canon.data.hook_points import resolve_hook
from saebench_canon.data.text import Document
from saebench_canon.errors import CanonError
from saebench_canon.inputs.extraction import extract
from saebench_canon.inputs.normalise import normalise
from saebench_canon.inputs.spliced_loss import spliced_losses
from saebench_canon.inputs.tokens import tokenize
from saebench_canon.plugin.adapter import Normalisation
from saebench_canon.plugin.record import Record
from saebench_canon.plugin.registry import load_registry

KINDS = [kind for kind in get_args(Normalisation) if kind != "none"]


@given(seed=st.integers(0, 10_000), size=st.sampled_from([0.1, 1.0, 1000.0]))
@settings(max_examples=30, deadline=None)
def test_layer_norm_is_the_plain_formula(seed: int, size: float) -> None:
    g = torch.Generator().manual_seed(seed)
    x = size * (torch.randn(7, 9, generator=g, dtype=torch.float64) + 1)
    read = normalise(x, "layer_norm")
    for row, given_row in zip(read.x, x.tolist(), strict=True):
        mean = sum(given_row) / 9
        std = math.sqrt(sum((value - mean) ** 2 for value in given_row) / 8)
        expected = [(value - mean) / (std + 1e-5) for value in given_row]
        assert row.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    # by how much the epsilon, which is not undone, shrinks what comes back
    shrunk = float((1e-5 / x.std(dim=1)).max())
    back = read.undo(read.x)
    assert float(((back - x).abs() / x.std(dim=1, keepdim=True)).max()) <= 4 * shrunk


@given(seed=st.integers(0, 10_000), size=st.sampled_from([1e-3, 1.0, 1000.0]))
@settings(max_examples=30, deadline=None)
def test_a_constant_norm_is_the_plain_formula(seed: int, size: float) -> None:
    x = size * torch.randn(7, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    read = normalise(x, "constant_norm_rescale")
    for row, given_row in zip(read.x, x.tolist(), strict=True):
        norm = math.sqrt(sum(value**2 for value in given_row))
        assert row.tolist() == pytest.approx([3 * value / norm for value in given_row], rel=1e-9)
    torch.testing.assert_close(read.undo(read.x), x)


@pytest.mark.parametrize("kind", [None, "none"])
def test_nothing_is_done_where_nothing_is_asked(kind: Normalisation | None) -> None:
    x = planted_acts(20)
    read = normalise(x, kind)
    assert torch.equal(read.x, x)
    assert torch.equal(read.undo(x), x)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_that_do_not_vary_and_zero_vectors_come_back(kind: Normalisation) -> None:
    x = torch.stack([torch.zeros(D), torch.full((D,), 3.0), torch.arange(D).float()])
    read = normalise(x, kind)
    assert bool(torch.isfinite(read.x).all())
    torch.testing.assert_close(read.undo(read.x), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_normalised_by_itself(kind: Normalisation) -> None:
    x = planted_acts(50)
    x = x[x.std(dim=1) > 1e-3]  # else rounding errors are divided by layer_norm's 1e-5
    alone = torch.cat([normalise(row[None], kind).x for row in x])
    torch.testing.assert_close(alone, normalise(x, kind).x, rtol=1e-6, atol=1e-6)


PLUGIN = '''
"""SAEs that normalise their input as their file's name says."""

from saebench_canon import hookimpl
from saebench_canon.saes.checkpoint import Parameters, checkpoint

KINDS = ("none", "layer_norm", "constant_norm_rescale")


@checkpoint("made-up", files=["*.made_up"])
def made_up(files):
    found = files.find("*.made_up")
    w = files.safetensors(found.name)
    return Parameters(
        W_enc=w["W_enc"], W_dec=w["W_dec"], b_dec=w["b_dec"], normalize=found.stem
    )


@hookimpl
def canon_adapters():
    return [made_up]
'''

SUITE = """
[suite]
name = "normalised"

[data.here]
{data}
"""
SAE = """
[[sae]]
name = "{kind}"
uri = "made-up:{kind}"
data = "here"
axes = {{ seed = [{seed}] }}
"""
FIDELITY = """
[[metric]]
name = "fidelity"
"""
MODEL = """
model = "packaged:tiny-lm"
hook = "blocks.2.hook_resid_pre"
text = "words.txt"
context = 32
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the format's plugin and a text."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made_up.py").write_text(PLUGIN)
    text = "\f".join(
        f"Return the number {n} of the list, or raise an error. " * 5 for n in "123456"
    )
    (tmp_path / "words.txt").write_text(text)
    return tmp_path


def write_identity(folder: Path, kind: str, d: int) -> None:
    """A ReLU SAE of d latents and their opposites, which gives back whatever it reads."""
    (folder / kind).mkdir()
    both = torch.cat([torch.eye(d), -torch.eye(d)])
    weights = {"W_enc": both.T.contiguous(), "W_dec": both, "b_dec": torch.zeros(d)}
    save_file(weights, folder / kind / f"{kind}.made_up")


def planned(folder: Path, data: str, *kinds: str) -> tuple[Plan, Bench]:
    saes = "".join(SAE.format(kind=kind, seed=seed) for seed, kind in enumerate(kinds))
    (folder / "suite.toml").write_text(SUITE.format(data=data) + saes + FIDELITY)
    registry, store = load_registry([folder / "made_up.py"]), Store(folder / "store")
    return make_plan(folder / "suite.toml", registry, store), Bench(registry, store)


def fidelity(folder: Path, data: str, kind: str) -> Record:
    plan, bench = planned(folder, data, kind)
    (case,) = plan.cases
    return bench.measure(case)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_normalised_reconstruction_goes_into_a_model_on_the_model_s_scale(
    kind: Normalisation, center: bool
) -> None:
    lm = tiny("gpt2")
    tokens = tokenize([Document("0", "the quick brown fox jumps over")], lm, context=16)
    hook = resolve_hook(lm.model, "blocks.1.hook_resid_post")
    clean, _ = spliced_losses(lm, tokens, hook, "clean")
    acts = extract(lm, tokens, hook, center=center, normalize=kind).x
    seen: list[Tensor] = []

    def identity(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    same, _ = spliced_losses(lm, tokens, hook, identity, center=center, normalize=kind)
    torch.testing.assert_close(same, clean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.cat(seen), acts)  # the splice gives the SAE what it was given
    other, _ = spliced_losses(lm, tokens, hook, lambda x: -x, center=center, normalize=kind)
    assert float((other - clean).abs()) > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_model_an_identity_that_normalises_costs_nothing(folder: Path, kind: str) -> None:
    write_identity(folder, kind, 128)
    record = fidelity(folder, MODEL, kind)
    scores = {name: score["value"] for name, score in record.scores.items()}
    assert scores["explained_variance"] == pytest.approx(1, abs=1e-6)
    assert scores["loss_recovered"] == pytest.approx(1, abs=1e-4)
    assert scores["l0"] == pytest.approx(128, abs=0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_activations_of_a_file_are_normalised_too(folder: Path, kind: Normalisation) -> None:
    write_identity(folder, kind, D)
    write_acts(folder / "acts.safetensors")
    plan, bench = planned(folder, 'file = "acts.safetensors"', kind)
    (case,) = plan.cases
    assert case.data is not None
    assert case.data.normalize == kind
    acts = bench.artifacts.input("acts", case.data)
    x = load_file(folder / "acts.safetensors")["acts"]
    torch.testing.assert_close(acts.x, normalise(x, kind).x)
    assert bench.measure(case).scores["explained_variance"]["value"] == pytest.approx(1, abs=1e-6)


def test_the_same_activations_read_otherwise_are_other_data(folder: Path) -> None:
    write_acts(folder / "acts.safetensors")
    ids = set()
    for kind in ("none", *KINDS):
        write_identity(folder, kind, D)
        plan, bench = planned(folder, 'file = "acts.safetensors"', kind)
        (case,) = plan.cases
        assert case.data is not None
        ids.add(bench.identities.data(case.data))
    assert len(ids) == 3


def test_saes_that_read_otherwise_cannot_share_a_data_table(folder: Path) -> None:
    write_acts(folder / "acts.safetensors")
    for kind in ("none", *KINDS):
        write_identity(folder, kind, D)
    table = 'file = "acts.safetensors"'
    with pytest.raises(CanonError, match=r"'none' reads activations as they are") as caught:
        planned(folder, table, "layer_norm", "none")
    assert "a data table for each, or set 'normalize'" in str(caught.value)
    with pytest.raises(CanonError, match="rescaled to one norm"):
        planned(folder, table, "layer_norm", "constant_norm_rescale")
    plan, _ = planned(folder, table + '\nnormalize = "none"', "layer_norm", "none")
    assert {case.data.normalize for case in plan.cases if case.data} == {"none"}
    with pytest.raises(CanonError, match="normalize"):
        planned(folder, table + '\nnormalize = "batch_norm"', "none")
