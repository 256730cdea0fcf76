"""Plugins: nouns of one name, misspelt hooks, broken plugins, CANON_PLUGINS, one-file plugins."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest

from saebench_canon.errors import CanonError
from saebench_canon.plugin import registry as plugins
from saebench_canon.plugin.registry import load_registry
from saebench_canon.testing import registry_of

METRIC = """
from saebench_canon import Score, hookimpl, metric


@metric(scores=[Score("count")], of="sae", version=1, name="{name}")
def count(sae):
    return {{"count": float(sae.width)}}


@hookimpl
def canon_metrics():
    return [count]
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend that entry points are installed, each loading to the given object or error."""
    monkeypatch.delenv("CANON_PLUGINS")

    class Point(EntryPoint):
        def load(self) -> object:
            found = objects[self.name]
            if isinstance(found, Exception):
                raise found
            return found

    objects: dict[str, object] = {}

    def install(**given: object) -> None:
        objects.update(given)
        points = [Point(name=name, value="x", group=plugins.GROUP) for name in objects]
        monkeypatch.setattr(plugins, "entry_points", lambda group: points)

    return install


def test_the_built_ins_come_through_the_same_hooks() -> None:
    registry = load_registry()
    assert {"fidelity", "stitching", "meta_sae", "seed_matching"} <= set(registry.metrics)
    assert {"relu", "topk", "batchtopk"} <= set(registry.trainers)
    assert {"file", "saelens"} <= set(registry.adapters)
    assert not registry.broken


def test_a_one_file_plugin_brings_its_metric(plugin: Callable[..., Path]) -> None:
    assert "mine" in load_registry([plugin(METRIC.format(name="mine"))]).metrics


SHADOW = """
import dataclasses
from saebench_canon import Score, hookimpl, metric


@dataclasses.dataclass(frozen=True)
class Part:
    size: int


@metric(scores=[Score("count")], of="sae", version=1, name="parts")
def parts(sae):
    import pandas

    return {"count": float(pandas.Series([sae.width]).sum())}


@hookimpl
def canon_metrics():
    return [parts]
"""


def test_a_plugin_file_replaces_no_library(plugin: Callable[..., Path]) -> None:
    """In a process of its own, where the library has not been imported yet."""
    path = plugin(SHADOW, "pandas.py")
    told = (
        "import sys; from pathlib import Path; from types import SimpleNamespace\n"
        "from saebench_canon.plugin.registry import load_registry\n"
        "registry = load_registry([Path(sys.argv[1])])\n"
        "print('pandas' in sys.modules)\n"
        "print(registry.metrics['parts'].measure(SimpleNamespace(width=3)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", told, path.name],
        cwd=path.parent, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["False", "{'count': 3.0}"], done.stderr


@pytest.mark.parametrize("name", ["mine.py", "my-own.v2.py"])
def test_what_a_plugin_file_defines_can_be_pickled(name: str, plugin: Callable[..., Path]) -> None:
    path = plugin(SHADOW, name)
    for _ in range(2):  # as often as it is loaded
        registry = load_registry([path])
        part = registry.manager.get_plugin(path.stem).Part(3)
        assert pickle.loads(pickle.dumps(part)) == part


def test_a_plugin_file_that_fails_leaves_no_module(plugin: Callable[..., Path]) -> None:
    before = set(sys.modules)
    with pytest.raises(CanonError, match="does not import: ValueError: no"):
        load_registry([plugin("raise ValueError('no')", "failing.py")])
    assert set(sys.modules) == before


def test_two_owners_of_one_name_are_an_error_naming_both(plugin: Callable[..., Path]) -> None:
    registry = load_registry([plugin(METRIC.format(name="fidelity"))])
    with pytest.raises(CanonError, match=r"mine and built-in both have|built-in and mine both"):
        _ = registry.metrics


def test_a_misspelt_hook_is_an_error(plugin: Callable[..., Path]) -> None:
    text = METRIC.format(name="mine").replace("canon_metrics", "canon_metrcs")
    with pytest.raises(CanonError, match=r"unknown hook 'canon_metrcs'.*'canon_metrics'"):
        load_registry([plugin(text)])


def test_a_hook_with_a_wrong_argument_is_an_error(plugin: Callable[..., Path]) -> None:
    text = METRIC.format(name="mine") + "\n\n@hookimpl\ndef canon_recorded(recrd): ...\n"
    with pytest.raises(CanonError, match="recrd"):
        load_registry([plugin(text)])


def test_a_plugin_that_does_not_import_is_broken_and_the_rest_works(
    installed: Callable[..., None],
) -> None:
    installed(bad=ImportError("no module named nothing"))
    registry = load_registry()
    assert [(each.name, each.reason) for each in registry.broken] == [
        ("bad", "ImportError: no module named nothing")
    ]
    assert "fidelity" in registry.metrics


def test_canon_plugins_allows_blocks_and_empties(
    installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(one=SimpleNamespace(x=1), two=SimpleNamespace(x=2))
    wishes = {"one": {"one"}, "-one": {"two"}, "": set(), "one,two": {"one", "two"}}
    for wish, names in wishes.items():
        monkeypatch.setenv("CANON_PLUGINS", wish)
        assert set(load_registry().sources) - {plugins.BUILT_IN} == names
    monkeypatch.setenv("CANON_PLUGINS", "tow")
    with pytest.raises(CanonError, match=r"'tow', which is not installed.*'two'"):
        load_registry()


def test_installed_plugins_stay_out_when_asked(
    plugin: Callable[..., Path], installed: Callable[..., None]
) -> None:
    file = plugin(METRIC.format(name="counted"))
    installed(mine_installed=plugins._module_of(file))
    with pytest.raises(CanonError, match="both have"):
        _ = load_registry([file]).metrics
    alone = load_registry([file], installed=False)
    assert "counted" in alone.metrics
    assert list(alone.sources) == ["built-in", "mine"]
    module = SimpleNamespace(__file__=str(file))
    assert list(registry_of(module).sources) == ["built-in", "mine"]
