"""Nothing outside `metrics/` and the built-in questions knows a metric of ours by its name."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from clone import ROOT

from saebench_canon.metrics.builtin import canon_metrics
from saebench_canon.plugin.role import ROLES

HOME = ROOT / "saebench_canon"
MAY_NAME = ("metrics", "questions")  # packaged suites are TOML, templates of plugin_kit/ are text
OFFENDERS: frozenset[str] = frozenset()  # "file: name"; it only ever shrinks

METRICS = tuple(canon_metrics())
NAMES = frozenset(metric.name for metric in METRICS)
ENGLISH = frozenset({"composition", "fidelity"})  # a word of a sentence is no metric's name
_DECLARED = Counter(score.name for metric in METRICS for score in metric.scores)
_OF_ROLES = {name for role in ROLES.values() for name in (*role.scores, *role.optional)}
SCORES = frozenset(  # a role's scores are the role's, whichever metric has it
    name
    for name, metrics in _DECLARED.items()
    if metrics == 1 and "_" in name and name not in _OF_ROLES
)


def mentions(source: str) -> Iterator[str]:
    """Names of metrics, and of scores that one metric alone has, in identifiers and strings.

    Docstrings are prose, and what is imported is named after what it does.
    """
    tree = ast.parse(source)
    prose = {id(node) for node in docstrings(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in prose:
                yield from in_string(node.value)
            continue
        for identifier in identifiers(node):
            yield from in_identifier(identifier)


def docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    """Strings that stand for themselves."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def identifiers(node: ast.AST) -> Iterator[str]:
    """What a node of the syntax calls by name."""
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.arg) or (isinstance(node, ast.keyword) and node.arg is not None):
        yield node.arg
    elif isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name


def in_identifier(identifier: str) -> Iterator[str]:
    """The names that are a whole identifier or some of its words."""
    for name in NAMES:
        if f"_{name}_" in f"_{identifier}_".lower():
            yield name


def in_string(text: str) -> Iterator[str]:
    """The names that stand in a string as words; English ones quoted or outside a sentence."""
    words = set(re.findall(r"\w+", text))
    sentence = " " in text.strip()
    quoted = set(re.findall(r"[`'](\w+)[`']", text))
    yield from words & NAMES - (ENGLISH - quoted if sentence else frozenset())
    yield from words & SCORES


def found(home: Path = HOME) -> set[str]:
    """Every mention, as "file: name"."""
    return {
        f"{path.relative_to(home)}: {name}"
        for path in home.rglob("*.py")
        if path.relative_to(home).parts[0] not in MAY_NAME
        for name in mentions(path.read_text(encoding="utf-8"))
    }


def test_no_metric_is_named_outside_its_room() -> None:
    assert found() - OFFENDERS == set()


def test_the_list_of_offenders_only_shrinks() -> None:
    assert OFFENDERS - found() == set()


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ('if row.metric == "stitching": pass', "stitching"),
        ('names = {"fidelity": 1}', "fidelity"),
        ('plan("fidelity,meta_sae")', "meta_sae"),
        ('hint = "the stitching paths as a figure"', "stitching"),
        ('hint = f"{1}: run meta_ladder first"', "meta_ladder"),
        ('hint = "Run `fidelity` first."', "fidelity"),
        ("def fidelity_sums(): pass", "fidelity"),
        ("cost(seed_matching=1)", "seed_matching"),
        ("costs.composition(n)", "composition"),
        ('scores["stable_novel_share"]', "stable_novel_share"),
    ],
)
def test_a_mention_is_seen(line: str, name: str) -> None:
    assert name in mentions(line)


@pytest.mark.parametrize(
    "line",
    [
        'said = "No sign of composition: none"',
        '"""What fidelity is, and stitching."""',
        "from saebench_canon.kernels.composition import Rule",
        "loss_with = compositions = MetaSAE",
        'scores["explained_variance"]',  # several metrics have it
        'scores["heldout_explained_variance"]',  # a role gives it
    ],
)
def test_prose_and_what_is_shared_is_no_mention(line: str) -> None:
    assert list(mentions(line)) == []


def test_a_file_that_names_a_metric_is_an_offender(tmp_path: Path) -> None:
    for room in ("tables", "metrics", "questions"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "it.py").write_text('NAMES = ("mcc_abs", "stitching")\n')
    assert found(tmp_path) == {"tables/it.py: mcc_abs", "tables/it.py: stitching"}
