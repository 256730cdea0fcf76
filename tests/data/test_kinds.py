"""Kinds of data: what a plugin brings is planned, measured and shown like the built-in ones."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from planted import write_sae
from program import call

from saebench_canon.bench.plan import make_plan
from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError
from saebench_canon.plugin.data import DataKind, DataSource
from saebench_canon.plugin.data_keys import keys_of
from saebench_canon.plugin.registry import load_registry
from saebench_canon.plugin_kit.schema import suite_schema

SUITE = """
[suite]
name = "noise"

[data.x]
noise = true
d = 16
tokens = 400

[[sae]]
name = "w{width}"
uri = "file:saes/w{width}"
data = "x"
axes = { width = [24] }

[[metric]]
name = "fidelity"
"""
PLUGIN = '''
from dataclasses import dataclass
from saebench_canon import Acts, hookimpl
from saebench_canon.plugin.data import DataSize, DataSource

@dataclass(frozen=True)
class Noise(DataSource):
    """Activations of a normal distribution."""

    noise: bool
    d: int = 8
    seed: int = 0

    def size(self, data):
        return DataSize(data.tokens, self.d)

    def acts(self, data):
        import torch
        draws = torch.Generator().manual_seed(self.seed)
        return Acts(torch.randn(500, self.d, generator=draws), torch.arange(500) // 10)

@hookimpl
def canon_data():
    return [Noise]
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an SAE, the plugin, and a suite of both."""
    monkeypatch.chdir(tmp_path)
    write_sae(tmp_path / "saes" / "w24", 24)
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "noise.toml").write_text(SUITE)
    return tmp_path


def ids(folder: Path, *settings: str) -> list[str]:
    registry = load_registry([folder / "mine.py"])
    plan = make_plan(folder / "noise.toml", registry, Store(folder / "s"), settings=settings)
    return list(plan.ids)


def test_it_is_planned_without_torch_measured_and_shown(here: Path) -> None:
    planned = call("plan", "noise.toml", "--plugin", "mine.py", cwd=here)
    assert planned.returncode == 0, planned.stderr
    assert "IMPORTED []" in planned.stderr
    assert "1 cases, 1 to measure" in planned.stdout
    assert "left out" not in planned.stdout
    ran = call("run", "noise.toml", "--plugin", "mine.py", cwd=here)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    shown = call("show", "noise", "--plugin", "mine.py", "--json", cwd=here)
    rows = {row["score"]: row for row in json.loads(shown.stdout)}
    assert "IMPORTED []" in shown.stderr
    assert rows["l0"]["status"] == "measured"
    assert rows["l0"]["value"] > 0
    assert rows["explained_variance"]["n"] == 40  # documents: cut to 400 of the 500 tokens
    listed = call("plugins", "--plugin", "mine.py", cwd=here).stdout
    assert "  data noise\n" in listed
    assert {"  data file", "  data model"} <= set(listed.splitlines())


def test_its_settings_and_its_version_are_part_of_a_case(here: Path) -> None:
    before = ids(here)
    assert ids(here) == before
    assert ids(here, "data.x.seed=1") != before
    assert ids(here, "data.x.tokens=300") != before
    text = PLUGIN.replace("    noise: bool", "    version = 2\n    noise: bool")
    (here / "mine.py").write_text(text)
    assert ids(here) != before


def test_a_trained_sae_and_an_sae_of_another_width(here: Path) -> None:
    with pytest.raises(
        CanonError, match=r"d = 16, and the activations of 'x' \(noise\) have d = 12"
    ):
        ids(here, "data.x.d=12")
    train = 'train = { arch = "topk", tokens = 4000, batch_size = 64, k = 4 }\ndata'
    text = SUITE.replace('uri = "file:saes/w{width}"\ndata', train)
    (here / "noise.toml").write_text(text.replace("d = 16", "d = 12\nholdout = 0.2"))
    ran = call("run", "noise.toml", "--plugin", "mine.py", cwd=here)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (record,) = (json.loads(path.read_text()) for path in here.glob(".canon/records/*.json"))
    facts = record["subject"][0]
    assert facts["ref"] == f"train:topk/24/0/{facts['digest']}"
    (training,) = record["provenance"]["trained"].values()
    assert training["tokens"] == 4000 // 64 * 64


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("d = 16", "sed = 16", r"unknown key 'sed' \(.*\[data.x\]\).*'seed'"),
        ("d = 16", 'd = "16"', "'d' must be a whole number"),
        ("d = 16", "context = 16", "'context' is a key of 'model', not of 'noise'"),
        ("d = 16", "center = true", "'center' is a key of 'model', not of 'noise'"),
        ("noise = true", 'noise = true\nfile = "x"', "either 'file' or 'noise', not both"),
        ("noise = true", "", "'d' needs 'noise', which is missing"),
        ("noise = true\nd = 16", "", "needs 'file' or 'model' or 'noise' or 'synthetic'"),
        ("noise = true", 'model = "m"', "'hook' is missing, which 'model' needs"),
        ("noise = true", "nosie = true", "unknown key 'nosie'.*'noise'"),
    ],
)
def test_mistakes_are_sentences(here: Path, old: str, new: str, sentence: str) -> None:
    assert old in SUITE
    (here / "noise.toml").write_text(SUITE.replace(old, new))
    with pytest.raises(CanonError, match=sentence) as caught:
        ids(here)
    assert "[data.x]" in str(caught.value)


def test_without_a_model_it_gives_what_a_file_gives(here: Path) -> None:
    text = SUITE.replace('name = "fidelity"', 'name = "stitching_loss"').replace("[24]", "[24, 48]")
    write_sae(here / "saes" / "w48", 48)
    (here / "noise.toml").write_text(text)
    ran = call("run", "noise.toml", "--plugin", "mine.py", cwd=here)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (record,) = (json.loads(path.read_text()) for path in here.glob(".canon/records/*.json"))
    reasons = {score.get("reason") for score in record["scores"].values()}
    assert reasons == {"needs 'lm', which data without a language model does not give"}


@pytest.mark.parametrize(
    ("acts", "sentence"),
    [
        ("torch.full((500, self.d), float('nan'))", "the activation of token 0 of noise is not"),
        ("torch.ones(400, self.d)", r"noise gives activations \[400, 16\] with documents \[500\]"),
        ("torch.ones(500)", r"noise gives activations \[500\]"),
    ],
)
def test_activations_that_are_none_are_refused(here: Path, acts: str, sentence: str) -> None:
    draws = "torch.randn(500, self.d, generator=draws)"
    assert draws in PLUGIN
    (here / "mine.py").write_text(PLUGIN.replace(draws, acts))
    ran = call("run", "noise.toml", "--plugin", "mine.py", cwd=here)
    assert ran.returncode == 1
    assert re.search(sentence, ran.stdout)


def test_a_suite_that_extends_another_finds_the_paths_of_its_kinds(here: Path) -> None:
    plugin = PLUGIN.replace("noise: bool", "noise: Path")
    (here / "mine.py").write_text("from pathlib import Path\n" + plugin)
    (here / "a.bin").write_bytes(b"a")
    (here / "noise.toml").write_text(SUITE.replace("noise = true", 'noise = "a.bin"'))
    (here / "below").mkdir()
    (here / "below" / "noise.toml").write_text('extends = "../noise.toml"\n')
    registry = load_registry([here / "mine.py"])
    plans = [
        make_plan(here / path, registry, Store(here / "s"))
        for path in ("noise.toml", "below/noise.toml")
    ]
    assert plans[0].ids == plans[1].ids
    (here / "a.bin").write_bytes(b"b")  # its content is what it is
    assert make_plan(here / "noise.toml", registry, Store(here / "s")).ids != plans[0].ids


def test_the_schema_knows_its_keys(here: Path) -> None:
    data = suite_schema(load_registry([here / "mine.py"]))["$defs"]["data"]
    assert {"noise", "d", "file", "synthetic"} <= data["properties"].keys()
    (kind,) = (part for part in data["allOf"] if part["if"]["required"] == ["noise"])
    assert kind["then"]["properties"]["d"] == {"type": "integer", "default": 8}


@dataclass(frozen=True)
class Words(DataSource):
    words: Literal["a", "b"]
    least: float | None = None


@dataclass(frozen=True)
class Common(DataSource):
    common: str
    tokens: int = 3


@dataclass(frozen=True)
class Method(DataSource):
    method: str
    size: int = 3  # type: ignore[assignment]


@dataclass(frozen=True)
class Listed(DataSource):
    listed: list[int]


class Bare(DataSource):
    bare: int = 3


def test_the_keys_of_a_kind_are_its_fields() -> None:
    first, second = keys_of(Words)
    assert (first.name, first.words, first.required) == ("words", ("a", "b"), True)
    assert (second.name, second.type, second.default) == ("least", float, None)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (Bare, r"Bare has no fields.*@dataclass\(frozen=True\)"),
        (Common, "'tokens' is already a key of every data table"),
        (Method, "'size' is a method"),
        (Listed, r"the key 'listed' is of the type list\[int\]"),
    ],
)
def test_a_field_that_no_table_can_say_is_refused(kind: DataKind, sentence: str) -> None:
    with pytest.raises(CanonError, match=sentence):
        keys_of(kind)


def test_a_plugin_with_such_a_field_is_refused_by_name(here: Path) -> None:
    (here / "mine.py").write_text(PLUGIN.replace("d: int = 8", "size: int = 8"))
    with pytest.raises(CanonError, match=r"mine.py does not import.*'noise': 'size' is a method"):
        load_registry([here / "mine.py"])


def test_ls_names_the_kinds(here: Path) -> None:
    listed = call("ls", "--plugin", "mine.py", cwd=here).stdout.split("kinds of data\n")[1]
    kinds = [line.split(maxsplit=1) for line in listed.splitlines()[:3]]
    assert [name for name, _ in kinds] == ["file", "model", "noise"]
    assert kinds[2][1] == "Activations of a normal distribution."
