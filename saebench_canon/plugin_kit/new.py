"""Files of a new plugin or suite, which work as they are."""

from __future__ import annotations

import keyword
import re
import sys
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from string import Template

from saebench_canon.errors import CanonError, writing
from saebench_canon.plugin.registry import Registry

TITLES = {
    "adapter": "An adapter of saebench-canon for SAEs in weights.npz",
    "metric": "A metric of saebench-canon",
    "world": "A world of saebench-canon",
}


def new_suite(name: str, folder: Path) -> list[Path]:
    """The suite file NAME.toml in a folder."""
    from saebench_canon.suite.load import packaged_suites

    _check_word(name, "suite")
    if name in packaged_suites():
        raise CanonError(f"'{name}' is a packaged suite", hint="Choose another name.")
    return _write(folder, {f"{name}.toml": _filled("suite.toml", name)})


def new_plugin(kind: str, name: str, folder: Path, registry: Registry) -> list[Path]:
    """The distribution NAME in a folder: project file, README, one module, its tests."""
    _check_word(name, kind)
    home = folder / name
    if home.exists():
        raise CanonError(f"{home} already exists", hint="Choose another name or --to DIR.")
    module = name.replace("-", "_")
    _check_module(module, name)
    _check_free(kind, name, registry)
    return _write(
        home,
        {
            "pyproject.toml": _filled("pyproject.toml", name, TITLES[kind]),
            "README.md": _filled(f"{kind}.md", name),
            f"{module}.py": _filled(f"{kind}.py", name),
            f"tests/test_{module}.py": _filled(f"{kind}_test.py", name),
        },
    )


def _check_word(name: str, kind: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]+(-[a-z0-9]+)*", name):
        raise CanonError(
            f"'{name}' cannot be the name of a new {kind}",
            hint="Use at least two lower-case letters or digits, and hyphens between words.",
        )


def _check_module(module: str, name: str) -> None:
    """Raise CanonError if the new module would hide another one, or be hidden by it."""
    if keyword.iskeyword(module) or keyword.issoftkeyword(module):
        raise CanonError(f"'{name}' is a keyword of Python", hint="Choose another name.")
    if module in sys.stdlib_module_names or find_spec(module) is not None:
        raise CanonError(f"a Python module '{module}' already exists", hint="Choose another name.")


def _check_free(kind: str, name: str, registry: Registry) -> None:
    if name in registry.sources or any(plugin.name == name for plugin in registry.broken):
        raise CanonError(f"a plugin '{name}' already exists", hint="Choose another name.")
    noun = "scheme" if kind == "adapter" else kind
    taken: dict[str, set[str]] = {
        "scheme": {*registry.adapters},
        "metric": {*registry.metrics},
        "world": {*registry.named_data},
    }
    if name in taken[noun]:
        raise CanonError(f"a {noun} '{name}' already exists", hint="Choose another name.")


def _filled(template: str, name: str, title: str = "") -> str:
    """A template with the name filled in."""
    files = resources.files("saebench_canon.plugin_kit") / "templates"
    text = (files / f"{template}.txt").read_text(encoding="utf-8")
    words = {
        "name": name,
        "module": name.replace("-", "_"),
        "title": title,
        "title_case": "".join(part.title() for part in name.split("-")),
    }
    return Template(text).substitute(words)


def _write(folder: Path, files: dict[str, str]) -> list[Path]:
    """Write files, none of which may exist yet."""
    written = []
    for name, text in files.items():
        path = folder / name
        with writing(path):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("x", encoding="utf-8") as file:
                    file.write(text)
            except FileExistsError:
                raise CanonError(f"{path} already exists, and is not overwritten") from None
        written.append(path)
    return written
