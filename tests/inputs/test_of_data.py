"""Which tokens are scored and which are trained on: no document is both."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from saebench_canon.bench.measure import Bench
from saebench_canon.bench.store import Store
from saebench_canon.data.activations_file import ActivationFile
from saebench_canon.data.model_on_text import ModelOnText
from saebench_canon.errors import CanonError, placed
from saebench_canon.inputs.holdout import held_out
from saebench_canon.plugin.activations import Acts
from saebench_canon.plugin.data import DataSpec
from saebench_canon.plugin.registry import load_registry

REGISTRY = load_registry()


def bench(tmp_path: Path) -> Bench:
    return Bench(REGISTRY, Store(tmp_path / "store"))


def of_file(tmp_path: Path, doc: torch.Tensor, *, holdout: float | None) -> DataSpec:
    """Activations whose first entry is the token's number, so that each row can be told."""
    x = torch.zeros(len(doc), 4)
    x[:, 0] = torch.arange(len(doc))
    save_file({"acts": x, "doc": doc}, tmp_path / "acts.safetensors")
    return DataSpec("d", "here", ActivationFile(tmp_path / "acts.safetensors"), holdout=holdout)


def parts(tmp_path: Path, data: DataSpec) -> tuple[Acts, Acts]:
    artifacts = bench(tmp_path).artifacts
    return artifacts.input("acts", data), artifacts.input("train_acts", data)


@pytest.mark.parametrize(
    "doc",
    [
        torch.arange(100) // 5,
        torch.arange(100) % 20,  # documents interleaved
        torch.arange(100) // 5 * 7 + 3,  # document numbers with gaps
    ],
    ids=["in order", "interleaved", "gaps"],
)
def test_scored_and_trained_on_are_disjoint_documents_and_everything(
    tmp_path: Path, doc: torch.Tensor
) -> None:
    scored, trained = parts(tmp_path, of_file(tmp_path, doc, holdout=0.25))
    assert len(scored.doc.unique()) == 5
    assert not set(scored.doc.tolist()) & set(trained.doc.tolist())
    tokens = torch.cat([scored.x[:, 0], trained.x[:, 0]]).long()
    assert sorted(tokens.tolist()) == list(range(100))
    for part in (scored, trained):
        assert torch.equal(doc[part.x[:, 0].long()], part.doc)


def test_without_holdout_every_token_is_scored(tmp_path: Path) -> None:
    data = of_file(tmp_path, torch.arange(30) // 3, holdout=None)
    scored = bench(tmp_path).artifacts.input("acts", data)
    assert scored.x[:, 0].tolist() == list(range(30))


def test_a_holdout_that_leaves_a_side_empty_is_refused() -> None:
    data = DataSpec("d", "here", ActivationFile(Path("acts.safetensors")), holdout=0.1)
    with pytest.raises(CanonError, match="of 3 documents leaves one part empty"):
        held_out(data, range(3))
    assert sum(held_out(data, range(10))) == 1
    with pytest.raises(CanonError, match="of 4 different documents leaves one part empty"):
        held_out(data, [0, 1, 2, 3, 0, 0, 1, 2, 2, 3, 3, 3])


@pytest.mark.parametrize("interleaved", [False, True])
def test_copies_are_on_one_side_of_the_holdout(tmp_path: Path, *, interleaved: bool) -> None:
    """20 documents of which 16 repeat an earlier one."""
    contents = [0, 1, 2, 3] + [n % 4 for n in range(16)]
    doc = torch.arange(200) % 20 if interleaved else torch.arange(200) // 10
    x = torch.zeros(200, 4)
    for number, content in enumerate(contents):
        x[doc == number] = torch.randn(10, 4, generator=torch.Generator().manual_seed(content))
    save_file({"acts": x, "doc": doc}, tmp_path / "acts.safetensors")
    data = DataSpec("d", "here", ActivationFile(tmp_path / "acts.safetensors"), holdout=0.25)
    scored, trained = parts(tmp_path, data)
    sides = [{contents[number] for number in part.doc.tolist()} for part in (scored, trained)]
    assert len(sides[0]) == 1
    assert len(sides[1]) == 3
    assert len(scored) + len(trained) == 200
    assert bench(tmp_path).artifacts.input("twins", data) == [
        contents.index(content) for content in contents
    ]


def test_without_copies_the_split_is_that_of_the_documents_numbers(tmp_path: Path) -> None:
    import random

    chosen = random.Random(0).sample(range(40), 10)
    data = of_file(tmp_path, torch.arange(120) // 3, holdout=0.25)
    scored, _ = parts(tmp_path, data)
    assert sorted(set(scored.doc.tolist())) == sorted(chosen)


def test_copies_of_a_text_are_on_one_side_whatever_their_white_space(tmp_path: Path) -> None:
    lines = [f"Return the number {n % 5} of the list, or raise an error." for n in range(20)]
    lines = [line.replace(" ", "  " if at % 2 else " ") for at, line in enumerate(lines)]
    (tmp_path / "words.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in lines))
    source = ModelOnText(
        "packaged:tiny-lm", "blocks.1.hook_resid_pre", "words.jsonl", context=16, loss_tokens=60
    )
    data = DataSpec("d", "here", source, holdout=0.4, root=tmp_path)
    artifacts = bench(tmp_path).artifacts
    scored, trained = parts(tmp_path, data)
    sides = [{number % 5 for number in part.doc.tolist()} for part in (scored, trained)]
    assert (len(sides[0]), len(sides[1])) == (2, 3)
    assert not sides[0] & sides[1]
    assert {number % 5 for number in artifacts.input("tokens", data).doc.tolist()} == sides[0]


def test_a_models_activations_are_split_as_its_windows_are(tmp_path: Path) -> None:
    words = "\f".join(
        f"Return the number {n} of the list, or raise an error. " * 9 for n in range(8)
    )
    (tmp_path / "words.txt").write_text(words)
    source = ModelOnText(
        "packaged:tiny-lm", "blocks.1.hook_resid_pre", "words.txt", context=32, loss_tokens=60
    )
    data = DataSpec("d", "here", source, holdout=0.25, root=tmp_path)
    artifacts = bench(tmp_path).artifacts
    tokens, everything = artifacts.input("tokens", data), artifacts.input("all_tokens", data)
    scored, trained = parts(tmp_path, data)
    assert set(scored.doc.tolist()) == set(tokens.doc.tolist())
    assert torch.equal(scored.doc, tokens.token_doc)
    assert not set(scored.doc.tolist()) & set(trained.doc.tolist())
    assert len(scored) + len(trained) == int(everything.counts.sum())
    mapped = {part.x.untyped_storage().data_ptr() for part in (scored, trained)}
    assert len(mapped) == 1  # held-out documents stand first, so that both are slices, not copies
    few = artifacts.input("loss_tokens", data)
    assert 0 < int(few.counts.sum()) <= 60
    assert set(few.doc.tolist()) <= set(tokens.doc.tolist())


def test_a_mistake_is_placed_once() -> None:
    with (
        pytest.raises(CanonError) as caught,
        placed("s.toml, [[sae]] 'a'"),
        placed("s.toml, [data.d]"),
    ):
        raise CanonError("the text is empty", where="words.txt")
    assert str(caught.value) == "the text is empty (s.toml, [data.d]: words.txt)"


def control(tmp_path: Path, **settings: Any) -> DataSpec:
    (tmp_path / "words.txt").write_text("Return the number of the list, or raise an error. " * 40)
    source = ModelOnText(
        "packaged:tiny-lm", "blocks.1.hook_resid_pre", "words.txt", context=32, loss_tokens=60,
        **settings,
    )  # fmt: skip
    return DataSpec("d", "here", source, root=tmp_path)


def test_a_model_that_was_never_trained_is_other_data_on_the_same_tokens(tmp_path: Path) -> None:
    plain, random, other = (
        control(tmp_path),
        control(tmp_path, weights="random"),
        control(tmp_path, weights="random", weights_seed=1),
    )
    artifacts = bench(tmp_path).artifacts
    acts = [artifacts.input("acts", data).x for data in (plain, random, other)]
    assert acts[0].shape == acts[1].shape == acts[2].shape
    assert not torch.allclose(acts[0], acts[1])
    assert not torch.allclose(acts[1], acts[2])
    ids = [artifacts.input("tokens", data).input_ids for data in (plain, random)]
    assert torch.equal(*ids)
    assert "random weights (seed 1) at blocks.1" in other.describe()
    assert "random" not in plain.describe()
    origin = random.source.origin(random)
    assert origin.model is not None
    assert origin.model.endswith("with random weights")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"weights": "untrained"}, "'weights' must be pretrained or random, got 'untrained'"),
        ({"weights": "random", "weights_seed": -1}, "'weights_seed' must be at least 0, got -1"),
        ({"weights_seed": 3}, 'must be left out, or weights must be "random", got 3'),
    ],
)
def test_weights_that_mean_nothing_are_refused(
    tmp_path: Path, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(CanonError, match=re.escape(sentence)):
        control(tmp_path, **settings)
