"""The built-in inputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from saebench_canon.plugin.hookspecs import hookimpl

if TYPE_CHECKING:
    from saebench_canon.plugin.data import DataKind
    from saebench_canon.plugin.input import Input


@hookimpl
def canon_inputs() -> Iterable[Input]:
    """What the built-in metrics ask for."""
    from saebench_canon.inputs import of_data as data
    from saebench_canon.inputs import of_sae as encoding
    from saebench_canon.inputs import of_world as world

    return [
        data.lm, data.surplus, data.all_tokens, data.tokens, data.positions, data.hook,
        data.extracted, data.all_acts, data.twins, data.acts, data.sinks, data.train_acts,
        world.drawn, world.features,
        encoding.codes, encoding.loss_tokens, encoding.baseline, encoding.loss, encoding.loss_with,
    ]  # fmt: skip


@hookimpl
def canon_data() -> Iterable[DataKind]:
    """The world whose making needs a model's activations."""
    from saebench_canon.inputs.planted import Planted

    return [Planted]
