"""Do sparse autoencoders find canonical units of a language model: complete, atomic, unique?

What plugins, notebooks and scripts may import stands here; docs/plugins.md says what each name is.
`saebench_canon.evaluate(saes, acts, metrics=[…])` measures SAEs in a notebook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saebench_canon.cli.notebook import evaluate
    from saebench_canon.errors import CanonError, nearest
    from saebench_canon.kernels.codes import Codes
    from saebench_canon.kernels.cosine import max_cosine
    from saebench_canon.kernels.nulls import covariance_matched
    from saebench_canon.plugin.activations import Acts
    from saebench_canon.plugin.adapter import Adapter, Description
    from saebench_canon.plugin.cost import Cost, Work
    from saebench_canon.plugin.data import DataKind, DataSize, DataSource, LanguageModelSource
    from saebench_canon.plugin.evidence import Evidence
    from saebench_canon.plugin.hookspecs import hookimpl
    from saebench_canon.plugin.input import Input, made
    from saebench_canon.plugin.line_rules import by_line
    from saebench_canon.plugin.measuring import Bench, Case
    from saebench_canon.plugin.metric import (
        Mark,
        Measurement,
        Metric,
        Score,
        Undefined,
        Value,
        metric,
    )
    from saebench_canon.plugin.question import Answer, Margin, Planned, Question
    from saebench_canon.plugin.record import Record
    from saebench_canon.plugin.ref import Ref
    from saebench_canon.plugin.report import Report
    from saebench_canon.plugin.sae import CanonicalSAE
    from saebench_canon.plugin.signature import InputGroup
    from saebench_canon.plugin.trainer import Trained, Trainer, trainer
    from saebench_canon.plugin.world import Place, TrueFeatures, World
    from saebench_canon.saes.checkpoint import Activation, CheckpointAdapter, Parameters, checkpoint
    from saebench_canon.saes.files import Config, Files
    from saebench_canon.saes.fold import fold
    from saebench_canon.saes.weights.lazy_tensor import Stored, Tensors

__version__ = "0.1.0"

__all__ = [
    "Activation", "Acts", "Adapter", "Answer", "Bench", "CanonError", "CanonicalSAE", "Case",
    "CheckpointAdapter", "Codes", "Config", "Cost", "DataKind", "DataSize", "DataSource",
    "Description", "Evidence", "Files", "Input", "InputGroup", "LanguageModelSource", "Margin",
    "Mark", "Measurement", "Metric", "Parameters", "Place", "Planned", "Question", "Record", "Ref",
    "Report",
    "Score", "Stored", "Tensors", "Trained", "Trainer", "TrueFeatures", "Undefined", "Value",
    "Work", "World", "by_line", "checkpoint", "covariance_matched", "evaluate", "fold",
    "hookimpl", "made", "max_cosine", "metric", "nearest", "trainer",
]  # fmt: skip

_HOME = {
    "Activation": "saes.checkpoint", "Acts": "plugin.activations", "Adapter": "plugin.adapter",
    "Answer": "plugin.question", "Bench": "plugin.measuring", "CanonError": "errors",
    "CanonicalSAE": "plugin.sae", "Case": "plugin.measuring",
    "CheckpointAdapter": "saes.checkpoint", "Codes": "kernels.codes", "Config": "saes.files",
    "Cost": "plugin.cost", "DataKind": "plugin.data", "DataSize": "plugin.data",
    "DataSource": "plugin.data", "Description": "plugin.adapter", "Evidence": "plugin.evidence",
    "Files": "saes.files", "Input": "plugin.input",
    "InputGroup": "plugin.signature", "LanguageModelSource": "plugin.data",
    "Margin": "plugin.question", "Mark": "plugin.metric", "Measurement": "plugin.metric",
    "Metric": "plugin.metric", "Parameters": "saes.checkpoint", "Place": "plugin.world",
    "Planned": "plugin.question",
    "Question": "plugin.question",
    "Record": "plugin.record", "Ref": "plugin.ref", "Report": "plugin.report",
    "Score": "plugin.metric", "Stored": "saes.weights.lazy_tensor",
    "Tensors": "saes.weights.lazy_tensor",
    "Trained": "plugin.trainer", "Trainer": "plugin.trainer", "TrueFeatures": "plugin.world",
    "Undefined": "plugin.metric", "World": "plugin.world",
    "Value": "plugin.metric", "Work": "plugin.cost", "by_line": "plugin.line_rules",
    "checkpoint": "saes.checkpoint", "covariance_matched": "kernels.nulls",
    "evaluate": "cli.notebook", "fold": "saes.fold", "hookimpl": "plugin.hookspecs",
    "made": "plugin.input", "max_cosine": "kernels.cosine", "metric": "plugin.metric",
    "nearest": "errors", "trainer": "plugin.trainer",
}  # fmt: skip


def __dir__() -> list[str]:
    """The public names."""
    return sorted([*__all__, "__version__"])


if not TYPE_CHECKING:  # a type checker knows the names above and no others

    def __getattr__(name: str) -> object:
        """A public name, imported when first used: `--help` needs none of them."""
        from importlib import import_module

        if name not in _HOME:
            from saebench_canon.errors import nearest

            hint = nearest(name, __all__)
            raise AttributeError(f"saebench_canon has no public name '{name}'. {hint}")
        return getattr(import_module(f"saebench_canon.{_HOME[name]}"), name)
