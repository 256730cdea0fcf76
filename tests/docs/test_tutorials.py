"""The tutorials of docs/: every file is written, every console block run, its output compared.

`python tests/test_tutorials.py` writes the outputs into the pages as they are now.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from clone import DOCS, GOLDEN

import saebench_canon

PAGES = ("tutorial-adapter", "tutorial-metric")
COMPARED = [
    *(DOCS / f"{page}.md" for page in PAGES),
    *sorted(GOLDEN.iterdir()),
]
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d*\.?\d+")
CLOSE = 0.05  # how far a printed number may be off on another machine

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="docs/ is not here")


@dataclass(frozen=True)
class Step:
    """A command of a console block, what the page says it prints, and what it prints."""

    command: str
    told: str
    printed: str
    code: int


def commands(block: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with its output."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)
    assert parts[0] == "", f"a console block starts with {parts[0]!r}"
    return list(zip(parts[1::2], parts[2::2], strict=True))


def played(page: str, folder: Path) -> Iterator[Step]:
    """Each command of a page, run in order in a folder that its files are written into."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    site = folder.parent / f"{folder.name}-site"
    for language, title, body in FENCE.findall(text):
        if language != "console":
            if title:
                path = folder / title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(body, encoding="utf-8")
            continue
        for command, told in commands(body):
            installing = re.fullmatch(r"pip install \./([\w-]+)", command)
            if installing:
                install(folder / installing[1], site)
                yield Step(command, told, "", 0)
                continue
            done = subprocess.run(
                ["bash", "-c", command], cwd=folder, env=surroundings(site), text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            yield Step(command, told, neutral(done.stdout, folder), done.returncode)


def surroundings(site: Path) -> dict[str, str]:
    """An environment where this Python's programs come first and what is installed is found."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "CANON_"))
    }
    tested = Path(saebench_canon.__file__).parents[1]
    found = f"{site}{os.pathsep}{tested}"
    return {**kept, "PATH": path, "PYTHONPATH": found, "COLUMNS": "100", "HF_HUB_OFFLINE": "1"}


def install(source: Path, site: Path) -> None:
    """What `pip install` does, into a folder of its own and without a network."""
    if find_spec("pip") and find_spec("hatchling"):
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation",
             "--no-index", "--disable-pip-version-check", "--target", str(site), str(source)],
            check=True,
        )  # fmt: skip
        return
    name, module = source.name, source.name.replace("-", "_")
    info = site / f"{module}-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[saebench_canon]\n{name} = {module}\n")
    shutil.copy(source / f"{module}.py", site)


def neutral(text: str, folder: Path) -> str:
    """Output without paths, times, and blanks at ends of lines."""
    text = text.replace(f"{folder.resolve()}/", "").replace(f"{folder}/", "")
    text = re.sub(r"\b\d+(\.\d+)? ?s\b", "0 s", text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n" if text else ""


def same(told: str, printed: str) -> bool:
    """Whether two texts are the same but for numbers that another machine computes a bit off."""
    if _words(told) != _words(printed):
        return False
    pairs = zip(NUMBER.findall(told), NUMBER.findall(printed), strict=True)
    return all(
        abs(float(a) - float(b)) <= CLOSE * max(abs(float(a)), 1.0) if "." in a else a == b
        for a, b in pairs
    )


def _words(text: str) -> list[str]:
    return NUMBER.sub("#", re.sub(r"[-─]{3,}", "---", text)).split()


@pytest.mark.parametrize("page", PAGES)
def test_a_tutorial_does_what_it_says(page: str, tmp_path: Path) -> None:
    steps = 0
    for step in played(page, tmp_path):
        failing = re.search(r"checks, \d+ failed", step.told) is not None
        assert (step.code != 0) == failing, f"$ {step.command}\n{step.printed}"
        assert same(step.told, step.printed), (
            f"$ {step.command}\n{step.printed}\nthe page says\n{step.told}"
        )
        steps += 1
    assert steps >= 8


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_tutorial_is_a_file_or_a_console(page: str) -> None:
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    assert len(FENCE.findall(text)) * 2 == len(re.findall(r"^```", text, re.MULTILINE))
    assert all(title or language == "console" for language, title, _ in FENCE.findall(text))


@pytest.mark.parametrize("path", COMPARED, ids=lambda path: path.name)
def test_no_compared_text_shows_a_rounding_error(path: Path) -> None:
    """Its digits are another processor's as soon as it runs there; print a bound instead."""
    text = path.read_text(encoding="utf-8")
    if path.parent == DOCS:
        text = "".join(body for kind, _, body in FENCE.findall(text) if kind == "console")
    assert not re.findall(r".*\de-\d.*", text, re.IGNORECASE)


def test_what_differs_is_seen() -> None:
    assert same("a  1.00 b\n----\n", "a 1.01  b\n------\n")
    assert same("explains .736", "explains .737")
    for other in ("a 1.20 b\n----\n", "a 1.00 c\n----\n", "a 1.00\n----\n"):
        assert not same("a 1.00 b\n----\n", other)
    assert not same("3 failed", "4 failed")


def write_outputs(page: str) -> None:
    """Put what the commands print now into a page."""
    path = DOCS / f"{page}.md"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "tutorial"
        home.mkdir()
        printed = iter([f"$ {step.command}\n{step.printed}" for step in played(page, home)])

        def filled(match: re.Match[str]) -> str:
            if match[1] != "console":
                return match[0]
            return f"```console\n{''.join(next(printed) for _ in commands(match[3]))}```"

        text = FENCE.sub(filled, path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    for each in PAGES:
        write_outputs(each)
