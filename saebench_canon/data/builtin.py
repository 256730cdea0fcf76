"""The built-in kinds of data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from saebench_canon.plugin.hookspecs import hookimpl

if TYPE_CHECKING:
    from saebench_canon.plugin.data import DataKind


@hookimpl
def canon_data() -> Iterable[DataKind]:
    """A file of activations, a language model reading a text, and worlds of known features."""
    from saebench_canon.data.activations_file import ActivationFile
    from saebench_canon.data.model_on_text import ModelOnText
    from saebench_canon.data.text_window import TextWindow
    from saebench_canon.data.worlds.builtin import worlds

    return [ActivationFile, ModelOnText, *worlds(), TextWindow]
