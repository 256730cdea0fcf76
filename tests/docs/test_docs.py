"""The reference in docs/: its suites parse, its plugins run, and it names all that the code has."""

from __future__ import annotations

import json
import re
import textwrap
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import world_tables
from clone import DOCS
from pages import EXAMPLES, PAGES, blocks
from planted import D, planted_acts, write_acts, write_sae

from saebench_canon.bench.measure import Bench
from saebench_canon.bench.plan import Plan, make_plan
from saebench_canon.bench.results import rows_of
from saebench_canon.bench.store import Store
from saebench_canon.cli import pytest_plugin
from saebench_canon.data.activations_file import ActivationFile
from saebench_canon.plugin import registry as plugins
from saebench_canon.plugin.data import DataSpec
from saebench_canon.plugin.data_keys import keys_of
from saebench_canon.plugin.ref import Ref
from saebench_canon.plugin.registry import Registry, load_registry
from saebench_canon.plugin.role import ROLES
from saebench_canon.plugin.sae import CanonicalSAE
from saebench_canon.plugin.world import TOKENS, World
from saebench_canon.questions.ask import answers_of
from saebench_canon.suite import toml_table
from saebench_canon.tables.summarise import summarise

ARROWS = {"higher": "↑", "lower": "↓", None: "–"}

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="docs/ is not here")


SUITES = {name: text for name, text in blocks("toml").items() if "[[sae]]" in text}


def section(page: str, title: str) -> str:
    """The text below a heading of the second level."""
    parts = re.split(r"^## ", PAGES[page], flags=re.MULTILINE)
    return next(part for part in parts if part.splitlines()[0] == title)


def rows(text: str) -> dict[str, list[str]]:
    """The cells of each line of the text's tables, by the code names in its first cell."""
    found = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            first, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            found |= dict.fromkeys(re.findall(r"`([^`]+)`", first), cells)
    return found


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every file that the suites of docs/ name."""
    monkeypatch.chdir(tmp_path)
    write_acts(tmp_path / "acts.safetensors")
    for width in (24, 48):
        for seed in (0, 1):
            write_sae(tmp_path / "saes" / f"w{width}-s{seed}", width, seed=seed)
    model = tmp_path / "models" / "my-lm"
    model.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json"):
        (model / name).write_text("{}")
    (model / "model.safetensors").write_bytes(b"")
    (tmp_path / "stories.jsonl").write_text('{"text": "Once upon a time"}\n')
    return tmp_path


def planned(text: str, folder: Path, plugin: str | None = None) -> tuple[Plan, Bench]:
    """The plan of TOML text, under a plugin file if there is one, and a bench for it."""
    (folder / "suite.toml").write_text(text)
    if plugin is not None:
        (folder / "mine.py").write_text(plugin)
    found = load_registry([] if plugin is None else [folder / "mine.py"])
    store = Store(folder / "store")
    return make_plan(folder / "suite.toml", found, store), Bench(found, store)


def test_every_role_is_told_with_its_tables_and_scores() -> None:
    for name, role in ROLES.items():
        (line,) = (
            line
            for line in PAGES["plugins"].splitlines()
            if line.startswith(f"| `{name}` | {role.of} | {role.use} |")
        )
        columns = (column for each in role.tables.values() for column in each)
        told = line.removeprefix(f"| `{name}` | {role.of} | {role.use} |")
        words = {*role.tables, *columns, *role.scores, *role.optional}
        assert {*re.findall(r"`(\w+)`", told)} == words


def test_there_are_whole_suites_and_a_plugin_of_each_kind() -> None:
    assert len(SUITES) >= 2
    assert set(EXAMPLES) >= {"metric", "question", "input", "adapter", "data", "trainer", "verb"}


@pytest.mark.parametrize("name", SUITES)
def test_a_whole_suite_of_the_docs_can_be_planned(name: str, example: Path) -> None:
    plan, _ = planned(SUITES[name], example)
    labels = {case.label for case in plan.cases}
    whole = {"fidelity", "stitching", "floor", "meta_sae", "seed_matching"}
    assert labels >= ({"truth"} if name.startswith("worlds") else whole)


def test_set_as_the_docs_write_it_is_understood(example: Path, registry: Registry) -> None:
    lines = re.findall(r"^    --set '?(.+?)'?(?: +#.*)?$", PAGES["suites"], re.MULTILINE)
    assert len(lines) == 5
    (example / "suite.toml").write_text(SUITES["suites-2"])
    store = Store(example / "store")
    plan = make_plan(example / "suite.toml", registry, store, settings=lines)
    assert plan.suite.data["stories"].tokens == 100_000
    assert {(sae.source.training or {})["lr"] for sae in plan.suite.saes} == {3e-4}
    assert {sae.dtype for sae in plan.suite.saes} == {"float64"}
    assert [spec.settings.get("threshold") for spec in plan.suite.metrics][1] == 0.5
    own = [spec for spec in plan.suite.metrics if not spec.planned]
    assert {tuple(spec.seeds) for spec in own} == {(0, 1)}


ON_FILE = """
[data.acts]
file = "acts.safetensors"

[[sae]]
name = "it"
{source}
data = "acts"

[[metric]]
name = "{metric}"
"""


def measured(text: str, folder: Path, plugin: str) -> Mapping[str, Any]:
    """The scores of the one case of a suite under a plugin."""
    plan, bench = planned(text, folder, plugin)
    (case,) = plan.cases
    return bench.measure(case).scores


def test_the_metric_of_the_docs_measures(example: Path) -> None:
    text = ON_FILE.format(source='uri = "saes/w24-s0"', metric="crowding")
    scores = measured(text, example, EXAMPLES["metric"])
    assert 0 < scores["nearest"]["value"] <= 1
    assert 0 < scores["nearest_null"]["value"] <= 1


def test_the_question_of_the_docs_is_answered(example: Path) -> None:
    text = ON_FILE.format(source='uri = "saes/w24-s0"', metric="fidelity")
    fit = "settings = { max_l0 = 1.0, min_explained_variance = -9.0 }\n"
    sets = f'{fit}[question."sparse?"]\nmost = 0.5\n'
    plan, bench = planned(text + sets, example, EXAMPLES["question"])
    assert plan.suite.questions == {"sparse?": {"most": 0.5}}
    for case in plan.cases:
        bench.measure(case)
    registry = load_registry([example / "mine.py"])
    rows_now = rows_of(plan.listed(), bench.store, registry.metrics)
    summary = summarise(rows_now, registry.metrics.values())
    (answer,) = answers_of(summary, registry.questions, plan.suite.questions)
    assert answer.answer == "no"
    assert answer.sentence.endswith("latents are active on a token (limit 0.5).")


def test_the_docs_have_every_margin_as_the_code_has_it(registry: Registry) -> None:
    tables = re.split(
        r"^\| margin of ",
        section("statistics", "Answers").split("### Answers as data")[0],
        flags=re.MULTILINE,
    )
    told = {table.split(" |")[0]: rows(table) for table in tables[1:]}
    assert told == {
        question.name: {
            margin.name: [f"{margin.default:g}", margin.meaning] for margin in question.margins
        }
        for question in registry.questions.values()
        if question.margins
    }


def test_the_docs_have_every_word_of_an_answer(registry: Registry) -> None:
    told = rows(section("statistics", "Answers").split("### Answers as data")[1])
    assert {name: re.findall(r"`([^`]+)`", told[name][0]) for name in registry.questions} == {
        question.name: list(question.words) for question in registry.questions.values()
    }


def test_rules_are_told_by_the_names_of_their_margins() -> None:
    """A number there could disagree with the code: the one table of margins has them."""
    text = PAGES["statistics"].split("## Answers")[1].split("### Margins")[0]
    numbers = re.findall(r"(?<![\w.])\d*\.\d+|\b\d+ training seeds|\b\d+ %", text)
    assert set(numbers) <= {"95 %"}  # the interval's level
    assert len(re.findall(r"`unique`|\{unique\}", text)) >= 1


def test_the_input_of_the_docs_is_made_and_kept(example: Path) -> None:
    text = ON_FILE.format(source='uri = "saes/w24-s0"', metric="breadth")
    assert 0 <= measured(text, example, EXAMPLES["input"])["narrow_share"]["value"] <= 1
    plan, bench = planned(text, example, EXAMPLES["input"])
    (case,) = plan.cases
    share = bench.artifacts.input("document_share", case.data, case.subject[0])
    codes, acts = (
        bench.artifacts.input(each, case.data, case.subject[0]) for each in ("codes", "acts")
    )
    active = codes.dense() > 0
    by_hand = torch.stack([active[acts.doc == doc].any(dim=0) for doc in acts.doc.unique()])
    assert torch.allclose(share, by_hand.float().mean(dim=0))
    assert list((example / "store" / "artefacts").glob("*/share.pt"))


def test_the_adapter_of_the_docs_loads_by_scheme_and_by_bare_path(example: Path) -> None:
    numpy = pytest.importorskip("numpy")
    from safetensors.torch import load_file

    weights = load_file(example / "saes" / "w24-s0" / "sae_weights.safetensors")
    numpy.savez(example / "it.npz", **{key: each.numpy() for key, each in weights.items()})
    for uri in ("npz:it.npz", "it.npz"):
        text = ON_FILE.format(source=f'uri = "{uri}"', metric="fidelity")
        plan, bench = planned(text, example, EXAMPLES["adapter"])
        sae = bench.artifacts.sae(plan.cases[0].subject[0], plan.cases[0].data)
        same = load_registry().adapter("file").load(Ref.parse(f"file:{example}/saes/w24-s0"))
        x = planned_x(sae)
        assert torch.allclose(sae.decode(sae.encode(x)), same.decode(same.encode(x)), atol=1e-5)
        assert bench.measure(plan.cases[0]).scores["l0"]["value"] > 0


def planned_x(sae: CanonicalSAE) -> torch.Tensor:
    assert sae.d == D
    return planted_acts(n=50)


def test_the_data_of_the_docs_is_measured(example: Path) -> None:
    (table,) = re.findall(r"^    \[data.nothing\]\n(?:    .+\n)+", PAGES["plugins"], re.MULTILINE)
    text = ON_FILE.format(source='uri = "saes/w24-s0"', metric="fidelity")
    text = text.replace('[data.acts]\nfile = "acts.safetensors"', textwrap.dedent(table))
    scores = measured(text.replace('"acts"', '"nothing"'), example, EXAMPLES["data"])
    assert scores["explained_variance"]["n"] == 40
    assert scores["l0"]["value"] > 0


def test_the_trainer_of_the_docs_trains_what_is_measured(example: Path) -> None:
    source = "train = { arch = 'random_rows', width = 24, k = 3 }"
    text = ON_FILE.format(source=source, metric="fidelity").replace("[[sae]]", HOLDOUT, 1)
    scores = measured(text, example, EXAMPLES["trainer"])
    assert 0 < scores["l0"]["value"] <= 3


HOLDOUT = "holdout = 0.2\n\n[[sae]]"


def test_the_verb_of_the_docs_sees_every_case(example: Path) -> None:
    text = ON_FILE.format(source='uri = "saes/w24-s0"', metric="fidelity")
    measured(text, example, EXAMPLES["verb"])
    assert (example / "seconds.csv").read_text().startswith("it fidelity,")


def test_the_distribution_of_the_docs_names_the_entry_point_group() -> None:
    found = [
        tomllib.loads(text)["project"]["entry-points"]
        for text in blocks("toml").values()
        if "[project]" in text
    ]
    assert [list(groups) for groups in found] == [[plugins.GROUP]]


def test_every_score_stands_in_its_metrics_table_with_direction_and_null(
    registry: Registry,
) -> None:
    for metric in registry.metrics.values():
        table = rows(section("metrics", metric.name))
        for score in metric.scores:
            assert score.name in table, f"{metric.name}.{score.name}"
            direction, *rest = table[score.name]
            assert direction == ARROWS[score.better], f"{metric.name}.{score.name}"
            assert score.null is None or f"`{score.null}`" in rest, f"{metric.name}.{score.name}"


def test_every_setting_of_a_metric_stands_there_with_its_default(registry: Registry) -> None:
    for metric in registry.metrics.values():
        text = section("metrics", metric.name)
        for name, default in metric.settings.items():
            assert f"`{name}`" in text, f"{metric.name}.{name}"
            assert default is None or _with_default(name, default, text), f"{metric.name}.{name}"


def _with_default(name: str, default: Any, text: str) -> bool:
    if isinstance(default, bool):
        shown = json.dumps(default)
    elif isinstance(default, tuple):
        shown = f"`({', '.join(json.dumps(each) for each in default)})`"
    else:
        shown = f'`"{default}"`' if isinstance(default, str) else f"{default:g}"
    return f"`{name}` ({shown})" in text or rows(text).get(name, [""])[0] == shown


def test_every_table_of_a_metric_is_described(registry: Registry, example: Path) -> None:
    plan, bench = planned(SUITES["suites-1"].replace("meta_seeds = 2", "steps = 2"), example)
    seen: set[str] = set()
    for case in plan.cases:
        if case.metric.name in seen:
            continue
        seen.add(case.metric.name)
        text = section("metrics", case.metric.name)
        for name, path in bench.measure(case).tables.items():
            import pandas as pd

            told = text.split(f"Table `{name}`", 1)[1]
            for column in pd.read_parquet(bench.store.root / path).columns:
                assert f"`{column}`" in told, f"{case.metric.name}, table {name}, {column}"
    assert len(seen) == 7


REFERENCE = """
[[reference]]
score = "fidelity.l0"
axis = "width"
values = { 24 = 7 }
source = "a paper"
"""


def test_every_key_of_a_suite_is_told(
    example: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, set[str]] = {}
    finish = toml_table.TomlTable.finish

    def noting(self: toml_table.TomlTable, also: Any = ()) -> None:
        kind = re.search(r"\[+\w+", self.where)
        asked.setdefault(kind[0].strip("[") if kind else "top", set()).update(self._known)
        finish(self, also)

    monkeypatch.setattr(toml_table.TomlTable, "finish", noting)
    planned(SUITES["suites-1"] + REFERENCE, example)
    titles = {"suite": "[suite]", "data": "[data.NAME]", "sae": "[[sae]]",
              "metric": "[[metric]]", "gate": "[[gate]]",
              "reference": "[[reference]]"}  # fmt: skip
    assert set(asked) == {*titles, "top"}
    for kind, title in titles.items():
        told = rows(section("suites", title))
        assert asked[kind] <= told.keys(), kind
    assert asked["top"] == {*titles, "question"}
    assert section("suites", '[question."NAME"]')


def test_every_default_of_a_datchecked_table_is_the_codes(registry: Registry) -> None:
    told = rows(section("suites", "[data.NAME]"))
    defaults = {field.name: field.default for field in fields(DataSpec) if field.name in told}
    for kind in registry.data.values():
        for key in keys_of(kind)[: 1 if kind.named else None]:
            defaults[key.name] = None if key.required else key.default
    assert defaults.keys() == told.keys()
    for name, default in defaults.items():
        text = str(default).lower() if isinstance(default, bool) else str(default)
        assert told[name][1].strip('`"') == text or default is None, name


def test_every_default_of_a_world_is_the_codes() -> None:
    told = rows(section("worlds", "Settings of every world"))
    common = {field.name: field.default for field in fields(World)} | {"tokens": TOKENS}
    assert told.keys() == common.keys()
    for name, default in common.items():
        assert told[name][1] == (str(default) if name != "synthetic" else "obligatory"), name


def test_every_world_stands_on_its_page_with_its_settings(registry: Registry) -> None:
    page = PAGES["worlds"]
    written = page.split(world_tables.BEGIN)[1].split(world_tables.END)[0].strip()
    assert world_tables.without_numbers(written) == world_tables.without_numbers(
        world_tables.tables().strip()
    )
    named = {kind.named for kind in registry.data.values() if kind.named}
    assert set(re.findall(r"^### (\S+)$", written, re.MULTILINE)) == named


def test_every_setting_of_a_trainer_is_told_with_its_default(registry: Registry) -> None:
    table = rows(section("suites", "[[sae]]"))
    names = re.findall(r"\| setting \|(.+)\| meaning \|", PAGES["suites"])[0].split("|")
    assert {name.strip() for name in names} == set(registry.trainers)
    for at, name in enumerate(names):
        settings = registry.trainers[name.strip()].settings
        for setting, cells in table.items():
            if len(cells) > len(names):
                shown = str(settings[setting]) if setting in settings else ""
                assert cells[at] == shown, f"{name}.{setting}"
        assert set(settings) <= table.keys()


class Options(list[str]):
    """A pytest parser that only notes the options it is given."""

    def getgroup(self, name: str) -> Options:
        return self

    def addoption(self, name: str, **how: Any) -> None:
        self.append(name)


def test_every_option_of_run_is_told() -> None:
    options = Options()
    pytest_plugin.pytest_addoption(options)  # type: ignore[arg-type]
    told = " ".join(rows(section("suites", "run")))
    assert len(options) > 10
    assert [option for option in options if f"{option} " not in f"{told} "] == []


def test_every_hook_and_every_built_in_input_is_told(registry: Registry) -> None:
    from saebench_canon.plugin import hookspecs

    hooks = {name for name in vars(hookspecs) if name.startswith("canon_")}
    told = {name.split("(")[0] for name in rows(section("plugins", "Hooks"))}
    assert hooks == told
    table = rows(section("plugins", "One-file plugins"))
    file = DataSpec("x", "x", ActivationFile(Path("x")), holdout=0.1)
    for each in registry.inputs.values():
        assert table[each.name][0] == ("SAE" if each.per == "sae" else "data"), each.name
        known = each.name in ("drawn", "features")  # of a world
        assert (table[each.name][1] == "yes") == (not each.available(file) and not known)
