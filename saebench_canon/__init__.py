"""Do sparse autoencoders find canonical units of a language model: complete, atomic, unique?

`saebench_canon.evaluate(saes, acts, metrics=[…])` measures SAEs in a notebook; `metric`, `Score`,
`made`, `trainer`, `hookimpl` are what plugins are written with.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saebench_canon.cli.notebook import evaluate
    from saebench_canon.errors import CanonError
    from saebench_canon.plugin.acts import Acts
    from saebench_canon.plugin.by_line import by_line
    from saebench_canon.plugin.hookspecs import hookimpl
    from saebench_canon.plugin.input import made
    from saebench_canon.plugin.metric import Mark, Measurement, Score, Undefined, Value, metric
    from saebench_canon.plugin.question import Answer, Margin, Question
    from saebench_canon.plugin.trainer import trainer

__version__ = "0.1.0"

_HOME = {
    "Acts": "plugin.acts", "Answer": "plugin.question", "CanonError": "errors",
    "Margin": "plugin.question", "Mark": "plugin.metric", "Question": "plugin.question",
    "by_line": "plugin.by_line",
    "Measurement": "plugin.metric", "Score": "plugin.metric", "Undefined": "plugin.metric",
    "Value": "plugin.metric", "evaluate": "cli.notebook", "hookimpl": "plugin.hookspecs",
    "made": "plugin.input", "metric": "plugin.metric", "trainer": "plugin.trainer",
}  # fmt: skip

__all__ = [
    "Acts", "Answer", "CanonError", "Margin", "Mark", "Measurement", "Question", "Score",
    "Undefined", "Value", "by_line", "evaluate", "hookimpl", "made", "metric", "trainer",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Public names, imported when first used: `--help` needs none of them."""
    if name not in _HOME:
        raise AttributeError(f"module 'saebench_canon' has no attribute '{name}'")
    return getattr(import_module(f"saebench_canon.{_HOME[name]}"), name)
