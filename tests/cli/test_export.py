"""`export`: activations and features of a world, activations of any data, SAEs that are trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from planted import write_acts, write_sae
from safetensors import safe_open
from safetensors.torch import load_file

from saebench_canon.cli.main import main
from saebench_canon.data.worlds.firing import Hierarchy
from saebench_canon.inputs.mapped import write_activations
from saebench_canon.plugin.activations import Acts

SUITE = """
[suite]
name = "exported"

[data.w]
synthetic = "hierarchy"
tokens = 5_000
noise = 0.0

[data.file]
file = "acts.safetensors"

[[sae]]
name = "trained"
data = "w"
train = { arch = "topk", width = 8, tokens = 2_000, batch_size = 200, k = 2 }

[[sae]]
name = "loaded"
uri = "file:sae"
data = "file"

[[metric]]
name = "fidelity"
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_acts(Path("acts.safetensors"))
    write_sae(Path("sae"), 24)
    Path("suite.toml").write_text(SUITE)


def test_a_world_is_written_with_its_features(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "suite.toml", "w", "-o", "out"]) == 0
    printed = capsys.readouterr().out
    assert "wrote out/acts.safetensors: acts [5,000, 64], doc [5,000]" in printed
    acts, known = load_file("out/acts.safetensors"), load_file("out/features.safetensors")
    world = Hierarchy("hierarchy", noise=0.0)
    assert torch.equal(known["features"], world.rows())
    assert torch.equal(known["parents"], world.parents())
    x = torch.zeros_like(acts["acts"])
    x.index_add_(0, known["token"], known["value"][:, None] * known["features"][known["feature"]])
    assert torch.allclose(x, acts["acts"], atol=1e-4)
    counts = torch.bincount(known["feature"], minlength=world.count)
    assert torch.allclose(known["density"].double(), counts.double() / 5000)
    assert torch.equal(acts["doc"], torch.arange(5000) // 128)
    with safe_open("out/features.safetensors", "pt") as file:
        assert json.loads(file.metadata()["names"]) == list(world.names())


def test_what_is_written_is_what_scores_use_and_can_be_measured() -> None:
    assert main(["export", "suite.toml", "w", "-o", "out"]) == 0
    assert main(["export", "suite.toml", "trained", "-o", "sae-out"]) == 0
    assert {path.name for path in Path("sae-out").iterdir()} >= {"cfg.json"}
    values = []
    for words in (
        ["suite.toml", "-k", "trained"],
        ["sae-out", "--metrics", "fidelity", "--data", "out/acts.safetensors"],
    ):
        assert main(["run", *words, "-q", "--store", "s"]) == 0
    for path in Path("s/records").glob("*.json"):
        values.append(json.loads(path.read_text())["scores"]["explained_variance"]["value"])
    assert len(values) == 2
    assert values[0] == pytest.approx(values[1], abs=1e-6)


def test_other_data_is_written_without_features(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "suite.toml", "file", "-o", "out"]) == 0
    assert [path.name for path in Path("out").iterdir()] == ["acts.safetensors"]
    both = load_file("out/acts.safetensors"), load_file("acts.safetensors")
    assert all(torch.equal(both[0][name], both[1][name]) for name in ("acts", "doc"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["suite.toml", "wx", "-o", "out"], "neither data nor an SAE named 'wx'. Did you mean 'w'"),
        (["suite.toml", "loaded", "-o", "out"], "'loaded' is not trained by this suite: it is"),
        (["suite.toml", "w", "-o", "sae"], "sae already exists"),
        (["nowhere.toml", "w", "-o", "out"], "nowhere.toml"),
        (["suite.toml", "w", "-o", "acts.safetensors/out"], "acts.safetensors/out"),
    ],
)
def test_mistakes_are_sentences_and_leave_nothing(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(Path().iterdir())
    assert main(["export", *words]) == 4
    assert sentence in capsys.readouterr().err
    assert set(Path().iterdir()) - before <= {Path(".canon")}


def test_activations_are_written_in_parts_as_safetensors_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saebench_canon.inputs.mapped.CHUNK", 7)
    x = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    acts = Acts(x, torch.arange(30) // 4)
    write_activations(tmp_path / "x.safetensors", acts)
    back = load_file(tmp_path / "x.safetensors")
    assert torch.equal(back["acts"], x)
    assert torch.equal(back["doc"], acts.doc)


def test_tokens_to_train_on_are_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "suite.toml", "w", "-o", "out", "--training", "3000"]) == 0
    assert (
        "wrote out/train.safetensors: acts [3,000, 64] of other tokens" in capsys.readouterr().out
    )
    train, scored = load_file("out/train.safetensors"), load_file("out/acts.safetensors")
    assert train["acts"].shape == (3000, 64)
    assert not torch.equal(train["acts"], scored["acts"][:3000])
