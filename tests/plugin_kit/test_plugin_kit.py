"""The plugin kit on the command line: check, new, schema, and plugins that do not import."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clone import DOCS
from every_world import EVERY_WORLD
from planted import SUITE, write_sae

from saebench_canon.bench.plan import make_plan
from saebench_canon.bench.store import Store
from saebench_canon.cli import main as cli
from saebench_canon.errors import CanonError
from saebench_canon.plugin.registry import load_registry
from saebench_canon.plugin_kit.schema import suite_schema
from saebench_canon.suite import toml_table
from saebench_canon.suite.load import load_suite, packaged_suites

jsonschema = pytest.importorskip("jsonschema")


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if not name.startswith("saebench_canon"):
            file = getattr(sys.modules[name], "__file__", None) or ""
            if file and (not Path(file).is_absolute() or Path(file).is_relative_to(tmp_path)):
                del sys.modules[name]


def own_lines(text: str) -> list[str]:
    """The lines of a module that are neither blank, imports, nor docstrings."""
    bare = re.sub(r'""".*?"""', "", text, flags=re.DOTALL)
    return [
        line
        for line in bare.splitlines()
        if line.strip() and not line.startswith(("from ", "import "))
    ]


def passes_its_tests(folder: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_a_new_adapter_works_as_it_is(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["new", "adapter", "my-format"]) == 0
    message = capsys.readouterr().out
    assert "wrote my-format/my_format.py\n" in message
    assert "saebench-canon check PATH --plugin my-format/my_format.py" in message
    module = workdir / "my-format" / "my_format.py"
    assert len(own_lines(module.read_text())) == 10
    assert "my-format" in load_registry([module]).adapters
    passes_its_tests(workdir / "my-format", workdir)


def test_a_new_metric_works_as_it_is(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["new", "metric", "common-share", "--to", "mine"]) == 0
    module = "mine/common-share/common_share.py"
    assert f"saebench-canon check common-share --plugin {module}" in capsys.readouterr().out
    assert cli.main(["check", "common-share", "--plugin", module]) == 0
    assert "common-share: 11 checks, none failed." in capsys.readouterr().out
    passes_its_tests(workdir / "mine" / "common-share", workdir)


@pytest.mark.parametrize("kind", ["adapter", "metric", "world"])
def test_a_new_distribution_names_its_module_as_entry_point(kind: str, workdir: Path) -> None:
    assert cli.main(["new", kind, "my-own"]) == 0
    project = tomllib.loads((workdir / "my-own" / "pyproject.toml").read_text())
    assert project["project"]["name"] == "my-own"
    assert project["project"]["entry-points"] == {"saebench_canon": {"my-own": "my_own"}}
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"] == ["my_own.py"]


def test_a_new_suite_can_be_planned(workdir: Path) -> None:
    assert cli.main(["new", "suite", "first"]) == 0
    plan = make_plan(workdir / "first.toml", load_registry(), Store(workdir / "store"))
    assert {case.label for case in plan.cases} == {
        "fidelity", "stitching", "seed_matching", "comparison", "insertion", "geometry",
    }  # fmt: skip
    jsonschema.validate(
        tomllib.loads((workdir / "first.toml").read_text()), suite_schema(load_registry())
    )


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("metric", "Mine", "'Mine' cannot be the name of a new metric"),
        ("metric", "a/b", "cannot be the name"),
        ("suite", "two words", "cannot be the name"),
        ("metric", "json", "a Python module 'json' already exists"),
        ("adapter", "torch", "a Python module 'torch' already exists"),
        ("adapter", "class", "'class' is a keyword of Python"),
        ("metric", "fidelity", "a metric 'fidelity' already exists"),
        ("world", "pairs", "a world 'pairs' already exists"),
        ("adapter", "saelens", "a scheme 'saelens' already exists"),
        ("suite", "quickstart", "'quickstart' is a packaged suite"),
        ("metric", "taken", "taken already exists"),
        ("suite", "kept", "kept.toml already exists, and is not overwritten"),
    ],
)
def test_a_name_that_cannot_be_is_refused_in_a_sentence(
    kind: str, name: str, message: str, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workdir / "taken").mkdir()
    (workdir / "kept.toml").write_text("mine")
    assert cli.main(["new", kind, name]) == cli.USAGE_ERROR
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in workdir.iterdir()) == ["kept.toml", "taken"]
    assert (workdir / "kept.toml").read_text() == "mine"


def test_check_says_what_fails_and_ends_in_1(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workdir / "bad.py").write_text(
        "from saebench_canon import Score, hookimpl, metric\n\n"
        '@metric(of="sae", version=1, scores=[Score("value")])\n'
        "def bad(sae):\n    return {'value': float(sae.width)}\n\n"
        "@hookimpl\ndef canon_metrics():\n    return [bad]\n"
    )
    assert cli.main(["check", "bad", "--plugin", "bad.py"]) == 1
    message = capsys.readouterr().out
    assert re.search(r"dead latents do not matter +failed +with dead latents appended", message)
    assert message.endswith("bad: 11 checks, 2 failed.\n")
    assert cli.main(["check", "bad", "--plugin", "bad.py", "--except", "value"]) == 1
    assert capsys.readouterr().out.endswith("bad: 11 checks, 1 failed.\n")


def test_check_takes_a_ref_a_bare_path_and_settles_names(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sae(workdir / "fidelity", 24)  # a folder of a metric's name
    for argument, count in (("./fidelity", 17), ("saelens:fidelity", 17), ("file:fidelity", 17)):
        assert cli.main(["check", argument]) == 0
        assert capsys.readouterr().out.endswith(f"{argument}: {count} checks, none failed.\n")
    assert cli.main(["check", "fidelity"]) == 0
    assert capsys.readouterr().out.endswith("fidelity: 11 checks, none failed.\n")


def test_check_of_a_damaged_sae_fails(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = write_sae(workdir / "it", 24) / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    assert cli.main(["check", "it"]) == 1
    assert re.search(r"load returns the canonical form +failed", capsys.readouterr().out)


def test_check_on_a_hub_out_of_reach_says_so(
    workdir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saebench_canon.saes.hub_offline.out_of_reach", lambda: True)
    (workdir / "it.py").write_text(
        "from saebench_canon import checkpoint, hookimpl\n\n"
        "@checkpoint('it', files=['no-such-file'])\ndef it(files): ...\n\n"
        "@hookimpl\ndef canon_adapters():\n    return [it]\n"
    )
    ref = "it://nobody/no-such-sae/folder"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert cli.main(["check", ref, "--plugin", "it.py"]) == cli.USAGE_ERROR
    assert "hub cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fidelty"], "no metric, no world, and no file or folder. Did you mean 'fidelity'?"),
        (["./fidelity"], "no metric, no world, and no file or folder"),
        (["saelens:nowhere"], "there is no file or folder"),
        (["saelnes:x"], "unknown scheme 'saelnes'"),
        (["."], "holds no checkpoint of a known format"),
        (
            ["stitching", "--set", "treshold=1"],
            "no setting 'treshold' (--set). Did you mean 'threshold'?",
        ),
        (["stitching", "--set", "threshold"], "'threshold' is not KEY=VALUE"),
        ([".", "--except", "x"], "--except is only for metrics"),
    ],
)
def test_wrong_usage_of_check_ends_in_4(
    words: list[str], message: str, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", *words]) == cli.USAGE_ERROR
    assert message in capsys.readouterr().err


SCHEMA = suite_schema(load_registry())


def keys_of(kind: str) -> set[str]:
    home = SCHEMA if kind == "top" else SCHEMA["$defs"][kind]
    return set(home["properties"])


def test_the_schema_has_every_key_that_parsers_know_and_no_other(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys_read: dict[str, set[str]] = {}
    finish = toml_table.TomlTable.finish

    def recording(self: toml_table.TomlTable, also: Any = ()) -> None:
        kind = re.search(r"\[+\w+", self.where)
        known = self._known | set(also)
        keys_read.setdefault(kind[0].strip("[") if kind else "top", set()).update(known)
        finish(self, also)

    monkeypatch.setattr(toml_table.TomlTable, "finish", recording)
    more = (
        '\n[data.lm]\nmodel = "packaged:tiny-lm"\nhook = "h"\ntext = "packaged:python-docs"\n'
        '\n[[gate]]\nscore = "fidelity.l0"\nrequire = "> 0"\n'
        '\n[[reference]]\nscore = "fidelity.l0"\naxis = "width"\n'
        'values = { 24 = 3 }\nsource = "x"\n'
    )
    for kind in EVERY_WORLD:
        more += f'\n[data.{kind.__name__}]\nsynthetic = "{kind.named}"\n'
    (workdir / "acts.safetensors").write_bytes(b"")
    for width in (24, 48):
        for seed in (0, 1):
            write_sae(workdir / "saes" / f"w{width}-s{seed}", width, seed=seed)
    (workdir / "it.toml").write_text(
        SUITE.replace("[data.planted]", "[data.planted]\nnormalize = 'none'") + more
    )
    load_suite(workdir / "it.toml", load_registry())
    keys_read["suite"].add("extends")  # taken out before parsing
    keys_read["top"].add("extends")
    assert set(keys_read) == {"top", *SCHEMA["$defs"]}
    assert {kind: keys_of(kind) for kind in keys_read} == keys_read


def test_the_schema_has_every_setting_with_its_default() -> None:
    registry = load_registry()
    by_metric = {
        rule["if"]["properties"]["name"]["const"]: rule["then"]["properties"]["settings"]
        for rule in SCHEMA["$defs"]["metric"]["allOf"]
    }
    assert by_metric.keys() == registry.metrics.keys()
    for name, metric in registry.metrics.items():
        schemas = by_metric[name]["properties"]
        defaults = {key: schema.get("default") for key, schema in schemas.items()}
        assert defaults == json.loads(json.dumps(metric.settings))
    train = SCHEMA["$defs"]["sae"]["properties"]["train"]["properties"]
    for name, trainer in registry.trainers.items():
        schemas = train[name]["properties"]
        defaults = {key: schema.get("default") for key, schema in schemas.items()}
        assert defaults == dict(trainer.settings)
        assert trainer.settings.keys() <= train.keys()


def test_the_schema_has_every_margin_with_its_default_and_meaning() -> None:
    questions = SCHEMA["properties"]["question"]["properties"]
    assert {name: {key: (each["default"], each["description"])
                   for key, each in table["properties"].items()}
            for name, table in questions.items()} == {
        name: {margin.name: (margin.default, margin.meaning) for margin in question.margins}
        for name, question in load_registry().questions.items()
    }  # fmt: skip
    jsonschema.validate(WHOLE | {"question": {"unique?": {"unique": 0.95}}}, SCHEMA)


@pytest.mark.parametrize("name", packaged_suites())
def test_every_packaged_suite_is_valid(name: str) -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(tomllib.loads(packaged_suites()[name].read_text()), SCHEMA)


WHOLE = {"sae": [{"name": "a", "uri": "x"}], "metric": [{"name": "fidelity"}]}


@pytest.mark.parametrize(
    "tables",
    [
        {"sea": []},
        {"suite": {"nam": "x"}},
        {"suite": {"version": "1"}},
        {"data": {"d": {"modle": "gpt2"}}},
        {"data": {"d": {"dtype": "float31"}}},
        {"data": {"d": {"tokens": 1.5}}},
        {"sae": [{"name": "a", "ury": "x"}]},
        {"sae": [{"uri": "x"}]},
        {"sae": [{"name": "a", "train": {"arch": "topk", "kk": 3}}]},
        {"sae": [{"name": "a", "train": {"arch": "tpok"}}]},
        {"sae": [{"name": "a", "train": {"topk": {"l1": 3}}}]},
        {"sae": [{"name": "a", "axes": {"width": []}}]},
        {"metric": [{"name": "fidelty"}]},
        {"metric": [{"name": "stitching", "settings": {"treshold": 0.5}}]},
        {"metric": [{"name": "stitching", "settings": {"threshold": "0.5"}}]},
        {"metric": [{"name": "fidelity", "seeds": [0, 0]}]},
        {"gate": [{"score": "fidelity.l0"}]},
        {"question": {"uniqe?": {}}},
        {"question": {"unique?": {"uniqe": 0.9}}},
        {"question": {"unique?": {"unique": "0.9"}}},
        {"question": {"unique?": {"unique": 95}}},
        {"metric": []} | {"suite": {}, "sae": None},
    ],
    ids=str,
)
def test_a_misspelt_key_is_not_valid(tables: dict[str, Any]) -> None:
    jsonschema.validate(WHOLE, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(WHOLE | tables, SCHEMA)


def test_a_suite_that_extends_another_may_name_less() -> None:
    less = {"metric": [{"label": "floor", "seeds": [1]}]}
    for tables in ({"extends": "quickstart", **less}, {"suite": {"extends": "a.toml"}, **less}):
        jsonschema.validate(tables, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(less, SCHEMA)


def test_schema_prints_it_with_the_metrics_of_plugins(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["new", "metric", "my-own"]) == 0
    capsys.readouterr()
    assert cli.main(["schema", "--plugin", "my-own/my_own.py"]) == 0
    message = json.loads(capsys.readouterr().out)
    assert "my-own" in message["$defs"]["metric"]["properties"]["name"]["enum"]
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(SCHEMA))


def installed(folder: Path, name: str, module: str, text: str) -> None:
    """A distribution in a folder of sys.path, as an installer leaves it."""
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[saebench_canon]\n{name} = {module}\n")
    (folder / f"{module}.py").write_text(text)


LATE = (
    "from saebench_canon import hookimpl\n\n@hookimpl\ndef canon_metrics():\n"
    "    import nothing_of_this_name\n"
)
BROKEN = {
    "an-import": ("import nothing_of_this_name", "ModuleNotFoundError: No module named"),
    "an-exit": ("raise SystemExit(3)", "SystemExit: 3"),
    "a-syntax": ("def (", "SyntaxError"),
    "a-late-import": (LATE, "ModuleNotFoundError: No module named"),
    "a-misspelt-hook": ("def canon_metrcs(): ...", "unknown hook 'canon_metrcs'"),
}


def test_installed_plugins_that_do_not_import_are_shown_as_broken_and_the_rest_works(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CANON_PLUGINS", raising=False)
    site = workdir / "site"
    for name, (text, _) in BROKEN.items():
        installed(site, name, name.replace("-", "_"), text)
    assert cli.main(["new", "metric", "another-one"]) == 0
    installed(
        site, "another-one", "another_one", (workdir / "another-one" / "another_one.py").read_text()
    )

    def call(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "saebench_canon", *words], cwd=workdir, text=True,
            capture_output=True, env={**os.environ, "PYTHONPATH": str(site)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    message = call("plugins")
    for name, (_, reason) in BROKEN.items():
        assert re.search(rf"^{name} \(broken: .*{re.escape(reason)}", message, re.MULTILINE), (
            message
        )
    assert "another-one (another-one 1.0)\n  metric another-one\n" in message
    assert "another-one" in call("ls")
    call("plan", "quickstart")


def test_a_plugin_file_that_does_not_import_is_wrong_usage(workdir: Path) -> None:
    (workdir / "bad.py").write_text("import nothing_of_this_name")
    with pytest.raises(CanonError, match="does not import"):
        load_registry([workdir / "bad.py"])


DOCS = DOCS / "plugins.md"


@pytest.mark.skipif(not DOCS.is_file(), reason="docs/ is not here")
def test_the_ten_lines_of_the_docs_are_the_template_and_conform(workdir: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    text = next(block for block in blocks if block.startswith('"""Format:'))
    assert len(own_lines(text)) == 10
    assert cli.main(["new", "adapter", "my-format"]) == 0
    template = (workdir / "my-format" / "my_format.py").read_text()
    assert own_lines(text) == own_lines(template)
