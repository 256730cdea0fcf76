"""A language model's folder with strange JSON: planning it and loading it end in a sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from planted import write_sae

from saebench_canon.cli.main import main
from saebench_canon.data.language_model import PACKAGED, load_language_model, model_identity
from saebench_canon.data.model_config import model_config
from saebench_canon.errors import CanonError

SUITE = """
[data.words]
model = "lm"
hook = "blocks.1.hook_resid_pre"
text = "words.txt"
context = 64

[[sae]]
name = "w24"
uri = "file:saes/w24-s0"
data = "words"

[[metric]]
name = "fidelity"
"""
DEEP = '{"a": ' * 100_000 + "1" + "}" * 100_000
COUNTS = ("num_hidden_layers", "max_position_embeddings")


@pytest.fixture
def folder(suite: Path) -> Path:
    """A copy of the packaged model, which the suite reads."""
    suite.write_text(SUITE)
    write_sae(Path("saes/w24-s0"), 24, d=128)
    Path("words.txt").write_text("some words\n")
    return shutil.copytree(PACKAGED / "tiny-lm", suite.parent / "lm")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["[1]", DEEP, "", "null", '"x"', "{"])
def test_damaged_json_of_a_model_is_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    (folder / name).write_text(content)
    code, told = main(["plan", "small.toml"]), capsys.readouterr().err
    assert (code, told.count("\n")) == (4, 1)
    assert f"lm/{name}" in told
    with pytest.raises(CanonError, match="JSON"):
        model_identity(str(folder))
    with pytest.raises(CanonError):
        load_language_model(str(folder))


@pytest.mark.parametrize("key", json.loads((PACKAGED / "tiny-lm" / "config.json").read_text()))
@pytest.mark.parametrize("value", ["x", ["x"], 2.5, None, 10**30])
def test_a_value_of_another_type_breaks_no_plan(
    folder: Path, capsys: pytest.CaptureFixture[str], key: str, value: Any
) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    code, told = main(["plan", "small.toml"]), capsys.readouterr().err
    if key in COUNTS and value not in (None, 10**30):
        assert (code, told.count("\n")) == (4, 1)
        assert f"'{key}' must be a positive whole number" in told
        assert "lm/config.json" in told
    elif (key, value) == ("hidden_size", 10**30):
        assert (code, told.count("\n")) == (4, 1)
    else:
        assert (code, told) == (0, "")


def test_the_part_on_text_comes_first(folder: Path) -> None:
    values = {"n_layer": 3, "_name_or_path": "a/b", "text_config": {"num_hidden_layers": 5}}
    (folder / "config.json").write_text(json.dumps(values))
    config = model_config(folder)
    assert config is not None
    assert (config.layers, config.positions, config.name) == (5, None, "a/b")
    (folder / "config.json").unlink()
    assert model_config(folder) is None
