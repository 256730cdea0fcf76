"""Reading the [data.…] tables of a suite."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from saebench_canon.errors import CanonError, nearest
from saebench_canon.plugin.adapter import Normalisation
from saebench_canon.plugin.data import DataSpec, Dtype
from saebench_canon.suite.toml_table import Table

MODEL_ONLY = (
    "hook", "text", "column", "split", "subset", "revision", "model_revision", "context", "center",
    "loss_tokens",
)  # fmt: skip


def parse_data(name: str, table: Table, root: Path) -> DataSpec:
    """The data source that a table describes; relative paths are the root's."""
    file = table.optional("file", str)
    spec = DataSpec(
        name=name,
        where=table.where,
        model=table.optional("model", str),
        hook=table.optional("hook", str),
        text=table.optional("text", str),
        split=table.take("split", str, "train"),
        column=table.take("column", str, "text"),
        subset=table.optional("subset", str),
        revision=table.optional("revision", str),
        model_revision=table.optional("model_revision", str),
        context=table.take("context", int, 128),
        tokens=table.optional("tokens", int),
        holdout=table.optional("holdout", float),
        loss_tokens=table.take("loss_tokens", int, 32_768),
        file=root / file if file else None,
        dtype=cast(Dtype, table.choice("dtype", Dtype, "float32")),
        center=table.optional("center", bool),
        normalize=cast(Normalisation, table.choice("normalize", Normalisation, "none"))
        if table.optional("normalize", str) is not None
        else None,
        root=root,
    )
    table.finish()
    if file is not None:
        for key in MODEL_ONLY:
            if key in table.values:
                raise CanonError(f"'{key}' goes with 'model', not with 'file'", where=table.where)
    if (spec.model is None) == (spec.file is None):
        raise CanonError(
            "needs either 'model' (with 'hook' and 'text') or 'file'", where=table.where
        )
    if spec.model is not None and (spec.hook is None or spec.text is None):
        missing = "hook" if spec.hook is None else "text"
        raise CanonError(f"names a model but no '{missing}'", where=table.where)
    if spec.file is not None and not spec.file.is_file():
        beside = spec.file.parent.glob("*") if spec.file.parent.is_dir() else ()
        raise CanonError(f"no file {spec.file}", where=table.where,
                         hint=nearest(spec.file.name, [each.name for each in beside]))  # fmt: skip
    if spec.holdout is not None and not 0 < spec.holdout < 1:
        raise CanonError(f"'holdout' is {spec.holdout}", where=table.where,
                         hint="It is a share of documents between 0 and 1.")  # fmt: skip
    for key in ("tokens", "context", "loss_tokens"):
        value = getattr(spec, key)
        if value is not None and value < 2:
            raise CanonError(f"'{key}' is {value}; it must be at least 2", where=table.where)
    return spec
