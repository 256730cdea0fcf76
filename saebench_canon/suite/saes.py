"""Reading the [[sae]] tables of a suite: axes are multiplied out, refs and trainings checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from saebench_canon.errors import CanonError, known_names, nearest, nearest_file, placed
from saebench_canon.plugin.data import DataSpec, Dtype
from saebench_canon.plugin.ref import Ref, is_bare_path
from saebench_canon.plugin.registry import Registry
from saebench_canon.plugin.source import SaeSource
from saebench_canon.saes.source import Checkpoint
from saebench_canon.suite.axes import Axes, AxisValue, fields_of, fill, multiply
from saebench_canon.suite.names import checked_name, typed_setting
from saebench_canon.suite.specs import SaeSpec
from saebench_canon.suite.toml_table import TomlTable, checked_table
from saebench_canon.suite.training import Training

MOST_SAES = 10_000


def parse_saes(
    table: TomlTable, data: Mapping[str, DataSpec], registry: Registry, root: Path
) -> list[SaeSpec]:
    """The SAEs of one table: its axes multiplied out."""
    where = table.where
    template = table.take("name", str)
    uri, train = table.optional("uri", str), table.optional("train", dict)
    source = table.optional("data", str)
    dtype = cast(Dtype, table.choice("dtype", Dtype, "float32"))
    axes = {
        axis: _axis(axis, values, where) for axis, values in table.take("axes", dict, {}).items()
    }
    tags = {
        axis: _axis(axis, [value], where)[0] for axis, value in table.take("tags", dict, {}).items()
    }
    if both := sorted(tags.keys() & axes.keys()):
        raise CanonError(f"'{both[0]}' is an axis and a tag", where=where, hint="Keep one.")
    exclude = [_exclusion(drop, axes, where) for drop in table.take("exclude", list, [])]
    table.finish()
    refuse_too_many(math.prod(map(len, axes.values())), where)
    if (uri is None) == (train is None):
        raise CanonError("an [[sae]] table needs either 'uri' or 'train'", where=where)
    data_name, saes = source, []
    known = settings_of(registry)
    if train is not None and (named := sorted(tags.keys() & known)):
        raise CanonError(
            f"the tag '{named[0]}' would not be the training's", where=where, hint="Use an axis."
        )
    picks_data = fields_of(data_name or "") - known  # axes that set nothing else
    for setting in multiply(axes, exclude):
        point = setting | tags
        source = _data_of(data_name, point, data, where)
        name = checked_name(fill(template, point, key="name", where=where), where)
        if uri is not None:
            text = fill(uri, point, key="uri", where=where)
            text = f"file:{text}" if is_bare_path(text) else text
            ref = ref_of(text, registry, root, where)
            saes.append(SaeSpec(name, point, source, Checkpoint(ref, registry), dtype, where))
            continue
        settings = {axis: value for axis, value in setting.items() if axis not in picks_data}
        spec = _train(cast("dict[str, Any]", train), settings, registry, where)
        _check_trainable(data[source] if source is not None else None, where)
        saes.append(SaeSpec(name, point, source, spec, dtype, where))
    if not saes:
        raise CanonError("'exclude' leaves no SAE of this table", where=where)
    _check_sources(saes)
    return saes


def _check_sources(saes: Sequence[SaeSpec]) -> None:
    """Raise CanonError for one checkpoint under two names, or an axis `width` that is wrong."""
    names: dict[SaeSource, str] = {}
    for sae in saes:
        if sae.source in names:
            raise CanonError(
                f"'{names[sae.source]}' and '{sae.name}' are the same checkpoint, {sae.source.ref}",
                where=sae.where, hint="Use every axis in 'uri', such as {width}.",
            )  # fmt: skip
        names[sae.source] = sae.name
        if sae.source.local:
            with placed(sae.where):
                width = sae.source.describe().width
            declared = sae.axes.get("width", width)
            if width is not None and declared != width:
                raise CanonError(
                    f"'{sae.name}' has {width} latents, not {declared}", where=sae.where
                )


def _check_trainable(data: DataSpec | None, where: str) -> None:
    if data is None:
        raise CanonError("an SAE that is trained needs 'data'", where=where)
    if data.holdout is None and not data.draws_fresh:
        raise CanonError(
            f"an SAE is trained on data '{data.name}', which has no 'holdout'", where=where,
            hint=f"Set holdout = 0.1 in [data.{data.name}], so that scores use unseen documents.",
        )  # fmt: skip


def _axis(axis: str, values: Any, where: str) -> list[AxisValue]:
    if not isinstance(values, list) or not values:
        raise CanonError(f"axis '{axis}' must be a list of values", where=where)
    if not axis.isidentifier():
        raise CanonError(f"the name of axis '{axis}' must be a plain word", where=where)
    for value in values:
        if not isinstance(value, int | float | str | bool) or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            raise CanonError(
                f"axis '{axis}' must have numbers, strings or true/false, got {value!r}",
                where=where,
            )
        if isinstance(value, str) and "\n" in value:
            raise CanonError(f"a value of axis '{axis}' has several lines, {value!r}", where=where)
    if len(set(values)) < len(values):
        raise CanonError(f"axis '{axis}' has a value twice", where=where)
    return values


def _exclusion(drop: Any, axes: Mapping[str, Any], where: str) -> dict[str, AxisValue]:
    if not isinstance(drop, dict):
        raise CanonError("'exclude' must be a list of tables", where=where)
    for key in drop:
        if key not in axes:
            raise CanonError(
                f"'exclude' names an unknown axis '{key}'", where=where, hint=nearest(key, axes)
            )
        if drop[key] not in axes[key]:
            raise CanonError(
                f"'exclude' names {key} = {drop[key]!r}, which is no value of the axis", where=where
            )
    return drop


def ref_of(text: str, registry: Registry, root: Path, where: str) -> Ref:
    """The ref of a URI, with relative paths from the suite file; raises CanonError if it is bad."""
    try:
        ref = Ref.parse(text)
    except CanonError as error:
        raise CanonError(error.what, where=where, hint=error.hint) from None
    registry.adapter(ref.scheme, where=where)
    if ref.local:
        ref = ref.within(root)
        if not ref.path.exists():
            raise CanonError(f"{ref.path} does not exist", where=where, hint=nearest_file(ref.path))
    return ref


def settings_of(registry: Registry) -> set[str]:
    """Every setting that a training may have."""
    of_trainers = {
        setting for trainer in registry.trainers.values() for setting in trainer.settings
    }
    return {"arch", "width", "seed"} | of_trainers


def _data_of(
    template: str | None, point: Axes, data: Mapping[str, DataSpec], where: str
) -> str | None:
    """The data table of an SAE, `{axis}` replaced."""
    if template is None:
        return None
    name = fill(template, point, key="data", where=where)
    if name not in data:
        raise CanonError(f"no data '{name}'", where=where, hint=nearest(name, data))
    return name


def _train(table: Mapping[str, Any], point: Axes, registry: Registry, where: str) -> Training:
    """The training that a train table and one point of the axes describe."""
    arch = point.get("arch", table.get("arch"))
    if not isinstance(arch, str):
        raise CanonError("'train' has no 'arch'", where=where,
                         hint=known_names(list(registry.trainers)))  # fmt: skip
    trainer = registry.trainer(arch, where=where)
    shared = {key: value for key, value in table.items() if key not in registry.trainers}
    for_arch = checked_table(table.get(arch, {}), f"{where}, train.{arch}")
    values = {**shared, **for_arch, **point}
    known = {*trainer.settings, "arch", "width", "seed"}
    of_others = {setting for other in registry.trainers.values() for setting in other.settings}
    for key in (*point, *for_arch):
        if key not in known:
            kind = "axis" if key in point else "key"
            raise CanonError(
                f"the {kind} '{key}' is not a setting of trainer '{arch}'",
                where=where, hint=nearest(key, known),
            )  # fmt: skip
    for key in shared:
        if key not in known | of_others:
            raise CanonError(f"unknown key '{key}' in 'train'", where=where,
                             hint=nearest(key, known | set(registry.trainers)))  # fmt: skip
    settings = {
        key: typed_setting(key, values[key], default, where) if key in values else default
        for key, default in trainer.settings.items()
    }
    width, seed = values.get("width"), values.get("seed", 0)
    if type(width) is not int or width < 1:
        raise CanonError(f"'width' must be a whole number above 0, got {width!r}", where=where)
    if type(seed) is not int:
        raise CanonError(f"'seed' must be a whole number, got {seed!r}", where=where)
    for key in ("tokens", "batch_size", "lr", "k"):
        if settings.get(key, 1) <= 0:
            raise CanonError(f"'{key}' must be above 0, got {settings[key]}", where=where)
    if settings.get("batch_size", 0) > settings.get("tokens", math.inf):
        raise CanonError("'tokens' must be at least 'batch_size', one batch", where=where)
    if isinstance(settings.get("k"), int | float) and settings["k"] > width:
        raise CanonError(
            f"'k' must be at most the width, {width}, got {settings['k']}", where=where
        )
    return Training(trainer, width, seed, settings, registry)


def refuse_too_many(count: int, where: str) -> None:
    """Raise CanonError for more SAEs than any plan can list in reasonable time."""
    if count > MOST_SAES:
        raise CanonError(
            f"there are {count:,} SAEs, and a suite has at most {MOST_SAES:,}", where=where,
            hint="Each value of an axis multiplies those of the others.",
        )  # fmt: skip


def refuse_twins(saes: Sequence[SaeSpec]) -> None:
    """Raise CanonError for two SAEs with the same name."""
    names: dict[str, SaeSpec] = {}
    for sae in saes:
        if sae.name in names:
            raise CanonError(f"two SAEs have the name '{sae.name}'", where=sae.where,
                             hint="Use the axes in the name, such as {width}.")  # fmt: skip
        names[sae.name] = sae
