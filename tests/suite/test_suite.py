from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from clone import ROOT
from planted import SUITE

from saebench_canon.errors import CanonError
from saebench_canon.metrics.meta_sae.presets import PRESETS
from saebench_canon.plugin.registry import Registry, load_registry
from saebench_canon.suite.cases import cases_of
from saebench_canon.suite.load import load_suite, packaged_suites
from saebench_canon.suite.names import words_of
from saebench_canon.suite.training import Training

TRAINED = """
[data.planted]
file = "acts.safetensors"
holdout = 0.2

[[sae]]
name = "{arch}-w{width}-s{seed}"
train = { tokens = 2000, k = 4, lr = 1e-3, relu = { l1 = 0.1 } }
data = "planted"
axes = { arch = ["relu", "topk"], width = [16, 32], seed = [0, 1, 2] }
exclude = [{ arch = "relu", width = 32 }]

[[metric]]
name = "fidelity"
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


def test_a_suite_multiplies_its_axes(suite: Path, registry: Registry) -> None:
    loaded = load_suite(suite, registry)
    assert [sae.name for sae in loaded.saes] == [
        "relu-w24-s0", "relu-w24-s1", "relu-w48-s0", "relu-w48-s1",
    ]  # fmt: skip
    assert loaded.saes[0].axes == {"width": 24, "seed": 0}


def test_cases_by_metric(suite: Path, registry: Registry) -> None:
    cases = cases_of(load_suite(suite, registry), registry)
    by_label: dict[str, list[str]] = {}
    for case in cases:
        by_label.setdefault(case.label, []).append(case.name)
    assert sorted(by_label["stitching"]) == ["relu-w24-s0+relu-w48-s0", "relu-w24-s1+relu-w48-s1"]
    assert sorted(by_label["floor"]) == ["relu-w24-s0+relu-w24-s1", "relu-w48-s0+relu-w48-s1"]
    assert sorted(by_label["seed_matching"]) == sorted(by_label["floor"])
    assert len(by_label["fidelity"]) == len(by_label["meta_sae"]) == 4


def test_a_train_table_takes_settings_from_axes_and_the_architecture(
    suite: Path, write_suite: Callable[[str], Path], registry: Registry
) -> None:
    loaded = load_suite(write_suite(TRAINED), registry)
    assert len(loaded.saes) == 9
    relu, topk = loaded.saes[0].source, loaded.saes[-1].source
    assert isinstance(relu, Training)
    assert isinstance(topk, Training)
    assert relu.training["l1"] == 0.1
    assert (topk.trainer.name, topk.width, topk.seed, topk.training["k"]) == ("topk", 32, 2, 4)


def test_extends_merges_tables_by_name(
    suite: Path, write_suite: Callable[[str], Path], registry: Registry
) -> None:
    text = 'extends = "small.toml"\n[[metric]]\nname = "stitching"\nsettings.threshold = 0.4\n'
    loaded = load_suite(write_suite(text), registry)
    assert [spec.planned for spec in loaded.metrics] == [False] * 5 + [True] * 3
    assert loaded.metrics[1].settings["threshold"] == 0.4
    assert loaded.metrics[2].settings["threshold"] == 0.7


def test_extends_keeps_paths_with_their_own_file_and_replaces_lists(
    suite: Path, tmp_path: Path, registry: Registry
) -> None:
    text = suite.read_text().replace("seed = [0, 1] }", "seed = [0, 1] }\nexclude = [{ seed = 0 }]")
    gate = '[[gate]]\nscore = "fidelity.l0"\nrequire = "{}"\n'
    suite.write_text(text + gate.format(">= 1") + gate.format("<= 9"))
    (tmp_path / "below").mkdir()
    child = tmp_path / "below" / "child.toml"
    sae = '[[sae]]\nname = "relu-w{width}-s{seed}"\nexclude = [{ seed = 1 }, { width = 48 }]\n'
    child.write_text('extends = "../small.toml"\n' + sae + gate.format("!= 0"))
    loaded = load_suite(child, registry)
    assert [sae.name for sae in loaded.saes] == ["relu-w24-s0"]
    assert [gate.require for gate in loaded.gates] == [">= 1", "<= 9", "!= 0"]
    assert cases_of(loaded, registry)


def test_saes_alike_in_every_axis_are_not_neighbours(
    suite: Path, write_suite: Callable[[str], Path], registry: Registry
) -> None:
    other = SUITE.split("[[metric]]")[0].split("[[sae]]")[1].replace("relu-w", "other-w")
    text = SUITE.replace("[[metric]]", f"[[sae]]{other}\n[[metric]]", 1)
    loaded = load_suite(write_suite(text.replace("file:saes", "file:./saes")), registry)
    with pytest.raises(
        CanonError, match="'relu-w24-s0' and 'other-w24-s0' have the same axes and data"
    ):
        cases_of(loaded, registry)


def test_the_width_of_the_file_is_held_against_the_axis(suite: Path, registry: Registry) -> None:
    shutil.move(suite.parent / "saes/w48-s0", suite.parent / "saes/w96-s0")
    shutil.move(suite.parent / "saes/w48-s1", suite.parent / "saes/w96-s1")
    suite.write_text(SUITE.replace("[24, 48]", "[24, 96]"))
    with pytest.raises(CanonError, match="'relu-w96-s0' has 48 latents, not 96"):
        load_suite(suite, registry)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("data.plantd.tokens=3", r"no data table 'plantd' \(--set\)\. Did you mean 'planted'"),
        ("metric.fidelty.seeds=[1]", r"no metric table or key 'fidelty' \(--set\).*'fidelity'"),
        ("tokens=3", r"is not TABLE.KEY=VALUE \(--set\)"),
        ("colour.red=3", r"is not TABLE.KEY=VALUE \(--set\)"),
        ("suite.name.x=3", r"'name' is not a table \(--set\)"),
    ],
)
def test_mistakes_in_set_are_sentences(
    suite: Path, registry: Registry, setting: str, sentence: str
) -> None:
    with pytest.raises(CanonError, match=sentence):
        load_suite(suite, registry, settings=[setting])


def test_set_changes_one_gate_and_hides_no_mistake(suite: Path, registry: Registry) -> None:
    suite.write_text(SUITE + '[[gate]]\nscore = "fidelity.l0"\nrequire = ">= 1"\n')
    loaded = load_suite(suite, registry, settings=["gate.fidelity.l0.require=<= 3"])
    assert loaded.gates[0].require == "<= 3"
    suite.write_text(SUITE.replace('label = "floor"', 'label = "stitching"'))
    with pytest.raises(CanonError, match="have the label 'stitching'"):
        load_suite(suite, registry, settings=["metric.stitching.seeds=[1]"])


@pytest.mark.parametrize("metric", ["meta_sae", "meta_replace", "meta_ladder"])
def test_a_setting_of_fixed_words_takes_no_other(
    suite: Path, registry: Registry, metric: str
) -> None:
    over = 'over = "group:width"\n' if metric == "meta_ladder" else ""
    table = f'[[metric]]\nname = "{metric}"\nlabel = "it"\n{over}settings.preset = '
    suite.write_text(SUITE + table + '"paper"\n')
    specs = {spec.label: spec for spec in load_suite(suite, registry).metrics}
    assert specs["it"].settings["preset"] == "paper"
    suite.write_text(SUITE + table + '"quater"\n')
    with pytest.raises(CanonError, match=r"unknown preset 'quater'.*Did you mean 'quarter'"):
        load_suite(suite, registry)
    assert words_of(registry.metrics[metric].kinds["preset"]) == tuple(PRESETS)


def test_words_that_an_annotation_allows() -> None:
    assert words_of("Literal['a', 'b'] | None") == ("a", "b")
    assert words_of("int | None") == words_of(None) == ()
    assert words_of("Literal[1, 'a']") == words_of("Literal[Colour.RED]") == ()


def test_set_replaces_values(suite: Path, registry: Registry) -> None:
    loaded = load_suite(
        suite, registry, settings=["data.planted.tokens=100", "metric.floor.settings.threshold=0.5"]
    )
    assert loaded.data["planted"].tokens == 100
    thresholds = [
        spec.settings.get("threshold") for spec in loaded.metrics if spec.metric == "stitching"
    ]
    assert thresholds == [0.7, 0.5]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('name = "small"', 'nam = "small"', r"unknown key 'nam' \(.*\[suite\]\).*'name'"),
        ('file = "acts', 'fil = "acts', r"'fil' \(.*\[data.planted\]\)"),
        ('name = "fidelity"', 'name = "fidelty"', r"unknown metric 'fidelty'.*'fidelity'"),
        ('uri = "file:', 'uri = "fiel:', r"unknown scheme 'fiel'.*'file'"),
        ('w{width}-s{seed}"\ndata', 'w{widht}-s{seed}"\ndata', r"'\{widht\}'.*'width'"),
        ('"relu-w{width}-s{seed}"', '"relu-w{width}"', "two SAEs have the name 'relu-w24'"),
        (
            'file = "acts.safetensors"',
            'file = "act.safetensors"',
            r"act.safetensors does not exist .*'acts.safetensors'",
        ),
        ('data = "planted"', 'data = "plantd"', r"no data 'plantd'.*'planted'"),
        ("saes/w{width}", "saes/v{width}", r"v24-s0 does not exist"),
        ('over = "all-pairs:seed"', 'over = "all-pairs:sed"', r"axis 'sed'.*'seed'"),
        ('over = "all-pairs:seed"', 'over = "each"', "does not fit a metric of a pair"),
        ('label = "floor"', 'label = "stitching"', "two .* have the label 'stitching'"),
        ("steps = 20", "stps = 20", r"no setting 'stps'.*'steps'"),
        ("steps = 20", 'steps = "many"', "'steps' must be a whole number, got 'many'"),
        ("[[metric]]", "[[metrik]]", "unknown key 'metrik'"),
        ('name = "small"', 'name = "a/b"', "'a/b' cannot be a name"),
        ('file = "acts', 'center = true\nfile = "acts', "'center' is a key of 'model'"),
        (
            "saes/w{width}-s{seed}",
            "saes/w24-s{seed}",
            "are the same checkpoint.*every axis in 'uri'",
        ),
        ("saes/w{width}-s{seed}", "saes/w24-s0", "are the same checkpoint"),
        ("width = [24, 48]", "width = [24, nan]", "axis 'width' must have numbers, .*got nan"),
        ('"relu-w{width}-s', '"relu-w{width:s}-s', "'name' cannot be filled in"),
        ("steps = 20", "lr = nan", "'lr' must be finite, got nan"),
        (
            'over = "all-pairs:seed"',
            'over = "all-pairs:seed"\nwhere.width = "=> 24"',
            "not a condition",
        ),
        ('over = "all-pairs:seed"', 'over = "all-pairs:seed"\nwhere.width = []', "not a condition"),
        (
            "seed = [0, 1] }",
            'seed = [0, 1] }\nexclude = [{ width = "24" }]',
            "is no value of the axis",
        ),
        ("seed = [0, 1] }", "seed = [0, 1] }\nexclude = [{ seed = 0 }, { seed = 1 }]", "no SAE"),
        ("[suite]", "[suite", "not valid TOML"),
    ],
)
def test_mistakes_are_sentences(
    suite: Path, registry: Registry, old: str, new: str, sentence: str
) -> None:
    assert old in SUITE
    suite.write_text(SUITE.replace(old, new, 1))
    with pytest.raises(CanonError, match=sentence) as caught:
        load_suite(suite, registry)
    assert "small.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("holdout = 0.2", "", "has no 'holdout'.*holdout = 0.1"),
        ("holdout = 0.2", "holdout = 1.5", "'holdout' must be .* between 0 and 1, got 1.5"),
        ("k = 4", "k = 17", "'k' must be at most the width, 16, got 17"),
        ("lr = 1e-3", "lrr = 1e-3", r"unknown key 'lrr' in 'train'.*'lr'"),
        ("relu = { l1 = 0.1 }", "relu = { l2 = 0.1 }", r"'l2' is not a setting of trainer 'relu'"),
        ('["relu", "topk"]', '["relu", "topq"]', r"unknown architecture 'topq'.*'topk'"),
        (
            "seed = [0, 1, 2] }",
            "seed = [0, 1, 2], colour = [1] }",
            "axis 'colour' is not a setting",
        ),
        ("relu = {", "rleu = {", "unknown key 'rleu' in 'train'.*'relu'"),
    ],
)
def test_mistakes_in_training_are_sentences(
    suite: Path, write_suite: Callable[[str], Path], registry: Registry,
    old: str, new: str, sentence: str,
) -> None:  # fmt: skip
    assert old in TRAINED
    with pytest.raises(CanonError, match=sentence):
        load_suite(write_suite(TRAINED.replace(old, new, 1)), registry)


def test_a_missing_suite_names_its_neighbours(suite: Path, registry: Registry) -> None:
    with pytest.raises(CanonError, match=r"no suite file .*Did you mean 'small.toml'"):
        load_suite(suite.with_name("smal.toml"), registry)


@pytest.mark.parametrize("name", packaged_suites())
def test_packaged_suites_parse(name: str, registry: Registry) -> None:
    if name == "meta-sae-published":
        plugin = ROOT / "plugins/batchtopk/saebench_canon_batchtopk.py"
        registry = load_registry([plugin])
    loaded = load_suite(packaged_suites()[name], registry)
    assert loaded.name == name
    assert cases_of(loaded, registry)


def test_specs_are_frozen(suite: Path, registry: Registry) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_suite(suite, registry).saes[0].name = "other"  # type: ignore[misc]


OF_WORLDS = """
[suite]
name = "worlds"

[data.pairs]
synthetic = "pairs"

[data.dense]
synthetic = "dense"

[[sae]]
name = "{world}-{kind}-s{seed}"
data = "{world}"
tags = { kind = "early" }
train = { arch = "topk", width = 8, tokens = 2_000, k = 2 }
axes = { world = ["pairs", "dense"], seed = [0, 1] }

[[metric]]
name = "truth"
"""


def test_an_axis_picks_the_data_and_a_tag_is_no_setting(tmp_path: Path, registry: Registry) -> None:
    path = tmp_path / "worlds.toml"
    path.write_text(OF_WORLDS)
    saes = load_suite(path, registry).saes
    assert [sae.data for sae in saes] == ["pairs", "pairs", "dense", "dense"]
    assert saes[2].name == "dense-early-s0"
    assert saes[2].axes == {"world": "dense", "seed": 0, "kind": "early"}
    training = saes[2].source.training
    assert training is not None
    assert not {"world", "kind"} & training.keys()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"dense"], seed', '"dnse"], seed', r"no data 'dnse'.*'dense'"),
        ('data = "{world}"', 'data = "{wrld}"', r"'data' names the axis '\{wrld\}'.*'world'"),
        ('data = "{world}"', 'data = "pairs"', r"the axis 'world' is not a setting of trainer"),
        ("{ kind =", "{ seed =", r"'seed' is an axis and a tag"),
        ('{ kind = "early" }', '{ kind = ["a", "b"] }', r"tag|axis"),
        ('data = "{world}"', 'data = "{world"', r"'data' is not a template"),
    ],
)
def test_mistakes_in_picking_data_and_in_tags(
    tmp_path: Path, registry: Registry, old: str, new: str, sentence: str
) -> None:
    path = tmp_path / "worlds.toml"
    assert old in OF_WORLDS
    path.write_text(OF_WORLDS.replace(old, new))
    with pytest.raises(CanonError, match=sentence):
        load_suite(path, registry)


def test_an_axis_that_picks_the_data_may_be_the_trainings_too(
    tmp_path: Path, registry: Registry
) -> None:
    text = OF_WORLDS.replace("[data.pairs]", "[data.w0]").replace("[data.dense]", "[data.w1]")
    text = text.replace('"{world}-{kind}-s{seed}"', '"s{seed}"').replace('"{world}"', '"w{seed}"')
    path = tmp_path / "seeds.toml"
    path.write_text(text.replace('world = ["pairs", "dense"], ', ""))
    saes = load_suite(path, registry).saes
    assert [sae.data for sae in saes] == ["w0", "w1"]
    assert [sae.source.describe().metadata["seed"] for sae in saes] == [0, 1]


@pytest.mark.parametrize("tag", ["seed = 7", "width = 9", "k = 3", "fault = 'merged'"])
def test_a_tag_that_names_a_setting_of_trainings_is_refused(
    tmp_path: Path, registry: Registry, tag: str
) -> None:
    path = tmp_path / "tagged.toml"
    text = OF_WORLDS.replace('{ kind = "early" }', f"{{ {tag} }}").replace("-{kind}", "")
    path.write_text(text.replace(", seed = [0, 1]", "").replace("-s{seed}", ""))
    with pytest.raises(CanonError, match=r"the tag '\w+' would not be the training's"):
        load_suite(path, registry)
