"""Worlds of known features: what each one promises, and the suites that use them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from every_world import EVERY_WORLD
from hypothesis import given, settings
from hypothesis import strategies as st
from program import call
from torch import Tensor

from saebench_canon.bench.plan import make_plan
from saebench_canon.bench.store import Store
from saebench_canon.cli.main import main
from saebench_canon.data.hook_points import resolve_hook
from saebench_canon.data.language_model import load_language_model
from saebench_canon.data.text import iter_documents, text_source
from saebench_canon.data.text_window import TextWindow
from saebench_canon.data.worlds.attributes import ColouredShapes, Product, ThreeFeatures
from saebench_canon.data.worlds.firing import (
    Correlated,
    Dense,
    Hierarchy,
    Independent,
    MutuallyExclusive,
    Pairs,
    Superposition,
)
from saebench_canon.data.worlds.shared_directions import CommonDirection, Sinks
from saebench_canon.errors import CanonError
from saebench_canon.inputs.extraction import extract
from saebench_canon.inputs.planted import Planted
from saebench_canon.inputs.tokens import tokenize
from saebench_canon.plugin.data import DataSpec
from saebench_canon.plugin.registry import load_registry
from saebench_canon.plugin.world import Drawing, World

TOKENS = 20_480
SMALL: Mapping[str, Mapping[str, Any]] = {"three-features": {"d": 8}}


def made(kind: type[World], **settings: Any) -> World:
    return kind(kind.named, **settings)


def drawn(world: Drawing, tokens: int = TOKENS, purpose: str = "scored") -> tuple[Tensor, Tensor]:
    """Activations and dense codes."""
    blocks = list(world.blocks(tokens, purpose))
    x = torch.cat([block.x for block in blocks])
    return x, torch.cat([block.codes.dense() for block in blocks])


@pytest.mark.parametrize("kind", EVERY_WORLD, ids=lambda kind: kind.named)
def test_activations_are_sums_of_unit_features_and_the_same_every_time(kind: type[World]) -> None:
    source = made(kind, noise=0.0)
    world = source.opened(DataSpec("w", "test", source))
    x, codes = drawn(world, 3000)
    rows = world.rows()
    count = len(rows)
    assert torch.allclose(rows.norm(dim=1), torch.ones(count), atol=1e-6)
    assert len(world.names()) == len(set(world.names())) == len(world.parents()) == count
    assert 0 < float((codes > 0).sum(dim=1).float().mean()) < count / 2
    if not isinstance(source, Sinks | Planted):
        assert torch.allclose(x, codes @ rows, atol=1e-4)
    assert all(torch.equal(*both) for both in zip((x, codes), drawn(world, 3000), strict=True))
    assert not torch.equal(codes, drawn(world, 3000, "training")[1])
    if "seed" not in kind.without:
        assert codes[codes > 0].min() >= 1
        again = made(kind, noise=0.0, seed=1)
        assert not torch.equal(rows, again.rows())
        assert not torch.equal(codes, drawn(again, 3000)[1])


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 9000), st.integers(1, 300))
def test_more_tokens_begin_with_the_same_ones(tokens: int, document: int) -> None:
    world = made(Independent, document=document, d=4, features=8, l0=2.0)
    few, many = drawn(world, tokens)[0], drawn(world, 9000)[0]
    assert torch.equal(few, many[:tokens])
    places = [block.place for block in world.blocks(9000, "scored")]
    doc, position = (torch.cat([getattr(p, key) for p in places]) for key in ("doc", "position"))
    assert torch.equal(doc, torch.arange(9000) // document)
    assert torch.equal(position, torch.arange(9000) % document)


@pytest.mark.parametrize("kind", [Independent, Superposition, Correlated, Pairs, Hierarchy])
def test_a_token_has_l0_features_on_average(kind: type[World]) -> None:
    world = made(kind, l0=6.0)
    fires = drawn(world)[1] > 0
    assert float(fires.sum(dim=1).float().mean()) == pytest.approx(6.0, rel=0.03)


def test_firing_follows_zipf_up_to_a_half() -> None:
    rates = made(Independent, features=64, l0=4.0).rates()
    fires = (drawn(made(Independent, features=64, l0=4.0))[1] > 0).double().mean(dim=0)
    assert float(rates.sum()) == pytest.approx(4.0)
    assert rates.max() == 0.5
    assert torch.allclose(rates[5:] * torch.arange(6, 65), rates[5] * 6)
    assert torch.allclose(fires, rates.double(), atol=0.02)
    flat = made(Independent, features=64, l0=4.0, zipf=0.0).rates()
    assert torch.allclose(flat, torch.full((64,), 4 / 64))


def test_topics_change_what_documents_are_about() -> None:
    def spread(topics: float) -> float:
        fires = drawn(made(Independent, topics=topics, zipf=0.0))[1] > 0
        shares = fires.view(-1, 128, 128).double().mean(dim=1)  # documents, features
        return float(shares.std(dim=0).mean())

    assert spread(1.0) > 2 * spread(0.0)


def test_topics_change_no_features_rate() -> None:
    fires = drawn(made(Independent, topics=0.7, zipf=0.0, document=16), 60_000)[1] > 0
    assert float(fires.sum(dim=1).float().mean()) == pytest.approx(4.0, rel=0.03)


def test_correlated_features_keep_their_rates_and_fire_together() -> None:
    settings = {"features": 32, "zipf": 0.0, "l0": 4.0, "factors": 2}
    tight = drawn(made(Correlated, correlation=0.9, **settings))[1] > 0
    loose = drawn(made(Correlated, correlation=0.0, **settings))[1] > 0
    assert torch.allclose(tight.double().mean(dim=0), torch.full((32,), 0.125).double(), atol=0.02)

    def largest(fires: Tensor) -> float:
        matrix = torch.corrcoef(fires.double().T).fill_diagonal_(0)
        return float(matrix.amax(dim=1).mean())

    assert largest(loose) < 0.05
    assert largest(tight) > 0.4


def test_pairs_seldom_fire_alone() -> None:
    fires = drawn(made(Pairs, together=0.9))[1] > 0
    first, second = fires[:, ::2], fires[:, 1::2]
    assert float((first & second).sum() / (first | second).sum()) == pytest.approx(0.9, abs=0.01)


def test_of_a_group_at_most_one_fires() -> None:
    fires = drawn(made(MutuallyExclusive, group=4, l0=8.0))[1] > 0
    assert fires.view(TOKENS, -1, 4).sum(dim=2).max() == 1


def test_dense_features_fire_on_half_of_the_tokens() -> None:
    world = made(Dense, dense=5)
    rates = (drawn(world)[1] > 0).double().mean(dim=0)
    assert torch.allclose(rates[:5], torch.full((5,), 0.5).double(), atol=0.02)
    assert float(rates[5:].sum()) == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("exclusive", [True, False])
def test_children_fire_only_with_their_parent(exclusive: bool) -> None:
    world = made(Hierarchy, exclusive=exclusive, share=0.6, children=3)
    assert isinstance(world, Hierarchy)
    fires = drawn(world)[1] > 0
    parent = world.parents()
    children = (parent >= 0).nonzero()[:, 0]
    assert bool((fires[:, parent[children]] | ~fires[:, children]).all())
    families = fires[:, world.families :].view(TOKENS, world.families, 3).sum(dim=2)
    on = fires[:, : world.families]
    assert float(families[on].double().mean()) == pytest.approx(0.6, abs=0.02)
    assert (families.max() == 1) == exclusive


def test_three_features_come_as_they_are_said_to() -> None:
    fires = drawn(made(ThreeFeatures))[1] > 0
    first, second, third = fires.T
    assert float((first & second).double().mean()) == pytest.approx(0.4, abs=0.02)
    assert float((first & ~second).double().mean()) == pytest.approx(0.1, abs=0.02)
    assert float(third.double().mean()) == pytest.approx(0.02, abs=0.005)


@pytest.mark.parametrize("kind", [ColouredShapes, Product])
def test_a_thing_has_one_value_of_every_attribute(kind: type[Product]) -> None:
    world = made(kind, things=0.7)
    assert isinstance(world, Product)
    fires = (drawn(world)[1] > 0).view(TOKENS, world.attributes, world.values)
    things = fires.any(dim=2).any(dim=1)
    assert bool((fires[things].sum(dim=2) == 1).all())
    assert float(things.double().mean()) == pytest.approx(0.7, abs=0.02)


def test_all_features_share_a_direction() -> None:
    rows = made(CommonDirection, d=256, shared=0.5).rows()
    cosines = (rows @ rows.T)[~torch.eye(len(rows), dtype=torch.bool)]
    assert float(cosines.mean()) == pytest.approx(0.5, abs=0.02)


def test_the_first_token_of_a_document_is_a_sink() -> None:
    x, _ = drawn(made(Sinks))
    first = torch.arange(TOKENS) % 128 == 0
    assert float(x[first].norm(dim=1).min()) > 5 * float(x[~first].norm(dim=1).max())
    assert float((x[first] ** 2).sum() / (x**2).sum()) > 0.8


def test_a_text_window_is_the_sum_of_the_last_embeddings() -> None:
    source = made(TextWindow, window=3, decay=0.5)
    assert isinstance(source, TextWindow)
    world = source.opened(DataSpec("w", "test", source))
    lm = load_language_model("packaged:tiny-lm")
    table = lm.model.get_input_embeddings().weight.double()
    documents = iter_documents(
        text_source("packaged:python-docs", folder=Path(), split="train", column="text",
                    revision=None, subset=None)
    )  # fmt: skip
    ids = lm.tokenizer(next(iter(documents)).text, add_special_tokens=False)["input_ids"]
    count = min(len(ids), 2500)  # over the edge of a block
    x, codes = drawn(world, count)
    expected = torch.zeros(count, table.shape[1], dtype=torch.float64)
    for token in range(count):
        for back in range(min(3, token + 1)):
            expected[token] += 0.5**back * table[ids[token - back]]
    assert torch.allclose(x.double(), expected, atol=1e-4)
    assert torch.allclose(codes @ world.rows(), x, atol=1e-4)


def test_planted_features_are_added_to_the_models_activations_on_their_tokens() -> None:
    source = made(Planted, features=8, words=2, strength=0.7)
    assert isinstance(source, Planted)
    world = source.opened(DataSpec("w", "test", source))
    lm = load_language_model("packaged:tiny-lm")
    documents = iter_documents(
        text_source("packaged:python-docs", folder=Path(), split="train", column="text",
                    revision=None, subset=None)
    )  # fmt: skip
    tokens = tokenize([next(iter(documents))], lm, context=128)
    own = extract(lm, tokens, resolve_hook(lm.model, "blocks.3.hook_resid_pre")).x
    x, codes = drawn(world, len(own))
    assert torch.allclose(x - codes @ world.rows(), own, atol=1e-3)
    ids = tokens.input_ids[tokens.mask]
    owners = {}  # every token fires one feature, always the same, or none
    for token, code in zip(ids.tolist(), codes, strict=True):
        fires = tuple(code.nonzero()[:, 0].tolist())
        assert len(fires) <= 1
        assert owners.setdefault(token, fires) == fires
    words = [token for token, fires in owners.items() if fires]
    assert 0 < len(words) <= 16
    size = float(codes.max())
    assert size == pytest.approx(0.7 * float(own.norm(dim=1).median()), rel=0.2)


@pytest.mark.parametrize("kind", [TextWindow, Planted])
def test_scores_and_trainings_read_other_documents(kind: type[World]) -> None:
    source = made(kind)
    world = source.opened(DataSpec("w", "test", source))
    read = {
        purpose: {int(doc) for block in world.blocks(10**7, purpose) for doc in block.place.doc}
        for purpose in ("scored", "training")
    }
    assert not read["scored"] & read["training"]
    tokens = {purpose: world.available(purpose) or 0 for purpose in read}
    assert tokens["training"] > 2 * tokens["scored"] > 50_000


def test_superposition_has_so_many_features_a_dimension() -> None:
    assert made(Superposition, d=32, ratio=4.0).count == 128


SUITE = """
[suite]
name = "a-world"

[data.w]
synthetic = "NAME"
tokens = 2_000

[[sae]]
name = "w{width}-s{seed}"
data = "w"
train = { arch = "topk", tokens = 4_000, batch_size = 200, k = 2 }
axes = { width = [8, 16], seed = [0] }

[[metric]]
name = "truth"
settings = { draws = 1 }
"""


def write(folder: Path, name: str = "independent", **more: Any) -> Path:
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in more.items())
    path = folder / "suite.toml"
    path.write_text(SUITE.replace('"NAME"\n', f'"{name}"\n{lines}'))
    return path


def ids(folder: Path, *changes: str) -> list[str]:
    registry = load_registry(installed=False)
    plan = make_plan(folder / "suite.toml", registry, Store(folder / "s"), settings=changes)
    return list(plan.ids)


@pytest.mark.parametrize("name", [kind.named for kind in EVERY_WORLD])
def test_every_world_runs_from_one_suite_file(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, name)
    assert main(["run", "suite.toml"]) == 0
    assert "truth v2" in capsys.readouterr().out
    for path in tmp_path.glob(".canon/records/*.json"):
        record = json.loads(path.read_text())
        assert 0 < record["scores"]["recovery"]["value"] < 1
        (training,) = record["provenance"]["trained"].values()
        assert training["epochs"] <= 1


def test_a_world_is_planned_without_torch(tmp_path: Path) -> None:
    write(tmp_path)
    planned = call("plan", "suite.toml", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert "IMPORTED []" in planned.stderr


def test_settings_tokens_and_seed_are_part_of_a_case(tmp_path: Path) -> None:
    write(tmp_path)
    before = ids(tmp_path)
    assert ids(tmp_path) == before
    for change in ("seed=1", "d=32", "tokens=1_000", "noise=0.1"):
        assert not set(ids(tmp_path, f"data.w.{change}")) & set(before), change


def test_a_training_does_not_depend_on_the_tokens_that_scores_use(tmp_path: Path) -> None:
    from saebench_canon.bench.identity import Identities

    registry = load_registry(installed=False)
    saes = []
    for tokens in (1_000, 2_000):
        path = write(tmp_path)
        store = Store(tmp_path / "s")
        plan = make_plan(path, registry, store, settings=[f"data.w.tokens={tokens}"])
        data = plan.suite.data["w"]
        identities = Identities(registry, store)
        reads = identities.read_by(plan.suite.saes[0], data)
        assert reads is not None
        assert reads.fresh == 5_000
        saes.append(identities.sae(plan.suite.saes[0], data))
    assert saes[0] == saes[1]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"name": "hierarchie"}, r"unknown synthetic 'hierarchie'.*'hierarchy'"),
        ({"children": 2}, r"'children' is a key of 'synthetic = \"hierarchy\"', not of"),
        ({"featurs": 2}, r"unknown key 'featurs'.*'features'"),
        ({"holdout": 0.1}, r"'holdout' is not for worlds: SAEs are trained on fresh tokens"),
        ({"hook": "x"}, r"'hook' is a key of 'model', not of 'synthetic = \"independent\"'"),
        ({"d": 1}, r"'d' must be from 2 to 16777216, got 1"),
        ({"d": 8.5}, r"'d' must be a whole number, got 8.5"),
        ({"zipf": 2000.0}, r"'zipf' must be from 0 to 10, got 2000"),
        ({"document": 10**6}, r"'document' must be from 1 to 4096"),
        ({"name": "coloured-shapes", "attributes": 3}, r"'attributes' means nothing in the world"),
        ({"name": "three-features", "rare": 5.0}, r"must be chances"),
        ({"noise": -1}, r"'noise' must not be negative"),
        ({"l0": 65}, r"'l0' must be above 0 and at most half of the 128 features"),
        ({"features": 10**8}, r"100,000,000 features of 64 dimensions are too many"),
        ({"name": "hierarchy", "features": 127}, r"multiple of 1 \+ 'children'"),
        (
            {"name": "superposition", "features": 8},
            r"'features' means nothing in the world 'superposition'",
        ),
        ({"name": "product", "l0": 2}, r"'l0' means nothing in the world 'product'"),
        ({"name": "product", "values": 300}, r"a million combinations at most"),
        ({"name": "three-features", "both": 0.9}, r"must be chances, 1 in all at most"),
        ({"name": "mutually-exclusive", "group": 3}, r"multiple of 'group'"),
        ({"name": "planted", "strength": 0.0}, r"'strength' above 0"),
        ({"name": "planted", "hook": "blocks.9.hook_resid_pre"}, r"is on no layer of the model"),
        ({"name": "text-window", "seed": 2}, r"'seed' means nothing in the world 'text-window'"),
        ({"name": "text-window", "decay": 0}, r"'decay' above 0 to 1"),
        ({"name": "text-window", "model": "nowhere/x/y"}, r"nowhere/x/y"),
        ({"name": "pairs", "model": "m"}, r"either 'model' or 'synthetic', not both"),
        ({"name": "common-direction", "shared": 1.0}, r"cosine from 0 to below 1"),
    ],
)
def test_mistakes_are_sentences(tmp_path: Path, more: dict[str, Any], sentence: str) -> None:
    write(tmp_path, **more)
    with pytest.raises(CanonError, match=sentence) as caught:
        ids(tmp_path)
    assert "[data.w]" in str(caught.value)


def test_a_metric_of_worlds_says_so_where_features_are_unknown(tmp_path: Path) -> None:
    from planted import write_acts, write_sae

    write_acts(tmp_path / "acts.safetensors")
    write_sae(tmp_path / "sae", 24)
    ran = call("run", "sae", "--metrics", "truth", "--data", "acts.safetensors", cwd=tmp_path)
    assert "needs a world, whose features are known: `synthetic` in its data table" in " ".join(
        ran.stdout.split()
    )


def test_what_is_planted_has_no_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "planted")
    assert main(["run", "suite.toml", "-k", "w8"]) == 0
    (path,) = tmp_path.glob(".canon/records/*.json")
    scores = json.loads(path.read_text())["scores"]
    for name in ("precision", "precision_centred", "composed_share", "duplicate_share_null"):
        assert scores[name]["reason"] == "these activations hold features that are not known"
    assert scores["recovery"]["value"] is not None
