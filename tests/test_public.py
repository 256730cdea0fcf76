"""The public line: what plugins, notebooks and scripts import, and what they are told they may."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Template

import pytest
from clone import DOCS, PLUGINS, ROOT

import saebench_canon
from saebench_canon import testing
from saebench_canon.plugin import hookspecs

PUBLIC = {"saebench_canon": saebench_canon.__all__, "saebench_canon.testing": testing.__all__}
TEMPLATES = ROOT / "saebench_canon" / "plugin_kit" / "templates"
FENCED = re.compile(r"^```python[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GOING = {"Launcher"}  # its hook is declared and nothing calls it

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="docs/ is not here")


def breaches(source: str) -> list[str]:
    """Each use of the package in Python text that is not of a public name."""
    return [name for name in _uses(ast.parse(source)) if not _is_public(name)]


def _uses(tree: ast.AST) -> Iterator[str]:
    """The dotted names that a module imports of the package or reads from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node)


def _is_public(name: str) -> bool:
    if name != "saebench_canon" and not name.startswith("saebench_canon."):
        return True
    if name in {*PUBLIC, "saebench_canon.__version__"}:
        return True
    return any(
        name.startswith(f"{module}.") and name.removeprefix(f"{module}.").split(".")[0] in public
        for module, public in PUBLIC.items()
    )


def pages() -> list[Path]:
    """The README and every page of docs/ and plugins/."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md")), *sorted(PLUGINS.rglob("*.md"))]


def sources() -> Iterator[tuple[str, str]]:
    """Python text as plugins and users write it: its place, and the text."""
    for path in sorted(PLUGINS.rglob("*.py")):
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    for path in [*pages(), *sorted(TEMPLATES.glob("*.md.txt"))]:
        for number, block in enumerate(FENCED.findall(path.read_text(encoding="utf-8")), start=1):
            yield f"{path.relative_to(ROOT)}, block {number}", block
    for path in sorted(TEMPLATES.glob("*.py.txt")):
        text = Template(path.read_text(encoding="utf-8")).substitute(
            name="it", module="it", title_case="It"
        )
        yield str(path.relative_to(ROOT)), text


SOURCES = dict(sources())


def test_there_are_plugins_pages_and_templates_to_read() -> None:
    places = " ".join(SOURCES)
    for part in ("plugins/openai/tests", "docs/tutorial-metric.md", "README.md", "metric_test.py"):
        assert part in places


@pytest.mark.parametrize("place", SOURCES)
def test_nothing_but_public_names_is_imported(place: str) -> None:
    assert breaches(SOURCES[place]) == []


@pytest.mark.parametrize(
    "line",
    [
        "from saebench_canon.plugin.ref import Ref",
        "from saebench_canon import plugin",
        "from saebench_canon import Reff",
        "from saebench_canon import *",
        "from saebench_canon.testing import World",
        "import saebench_canon.kernels.codes",
        "import saebench_canon\nsaebench_canon.cli.main.main([])",
        "def late():\n    from saebench_canon.errors import CanonError",
    ],
)
def test_another_import_is_seen(line: str) -> None:
    assert len(breaches(line)) >= 1


def test_public_imports_pass() -> None:
    assert breaches("import saebench_canon\nsaebench_canon.evaluate({}, None)") == []
    assert breaches("from saebench_canon.testing import check_metric") == []
    assert breaches("import saebench_canon_openai\nfrom saebench_canon import Ref") == []


@pytest.mark.parametrize("module", PUBLIC)
def test_the_page_lists_the_public_names_and_no_others(module: str) -> None:
    text = (DOCS / "plugins.md").read_text(encoding="utf-8")
    table = text.split(f"| `{module}` | what it is |\n|---|---|\n")[1].split("\n\n")[0]
    rows = [re.fullmatch(r"\| `(\w+)` \| (.+) \|", line) for line in table.splitlines()]
    assert all(rows), table
    listed = [row[1] for row in rows if row]
    assert sorted(listed) == sorted(PUBLIC[module])


def test_every_public_name_is_there_and_is_what_a_type_checker_reads() -> None:
    tree = ast.parse(Path(saebench_canon.__file__).read_text(encoding="utf-8"))
    typed = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("saebench_canon.")
        for alias in node.names
    }
    homes = {name: f"saebench_canon.{home}" for name, home in saebench_canon._HOME.items()}
    assert typed == homes
    assert sorted(homes) == sorted(saebench_canon.__all__)
    for name, home in homes.items():
        assert getattr(saebench_canon, name) is getattr(sys.modules[home], name)


def test_every_type_of_a_hook_is_public() -> None:
    tree = ast.parse(Path(hookspecs.__file__).read_text(encoding="utf-8"))
    types = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("saebench_canon.")
        for alias in node.names
    }
    assert len(types) >= 8
    assert types - GOING <= set(saebench_canon.__all__)


def test_dir_lists_the_public_names() -> None:
    assert set(dir(saebench_canon)) == {*saebench_canon.__all__, "__version__"}


def test_another_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r"has no public name 'Scor'.*'Score'"):
        saebench_canon.Scor  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError):
        from saebench_canon import LinearEncoder  # noqa: F401
    with pytest.raises(AttributeError, match="has no name 'World'"):
        testing.World  # type: ignore[attr-defined]  # noqa: B018


def test_the_page_names_what_imports_torch() -> None:
    text = (DOCS / "plugins.md").read_text(encoding="utf-8")
    (sentence,) = re.findall(r"`import saebench_canon` takes no time\. (.*) import torch", text)
    heavy = set(re.findall(r"`(\w+)`", sentence))
    light = [name for name in saebench_canon.__all__ if name not in heavy]
    assert not imports_torch("saebench_canon.testing", *light)
    for name in heavy:
        assert imports_torch("saebench_canon.testing", name), name


def imports_torch(module: str, *names: str) -> bool:
    """Whether a fresh Python has torch after importing a module and taking names of the root."""
    taken = "".join(f"saebench_canon.{name}\n" for name in names)
    program = f"import sys, {module}\n{taken}print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.strip() == "True"
