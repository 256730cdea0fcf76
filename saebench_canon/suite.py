"""What a suite file says: TOML in, typed values out; whatever is wrong is said before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast

from saebench_canon.axes import Axes, AxisValue, Condition, condition, fill, multiply
from saebench_canon.errors import CanonError, nearest
from saebench_canon.plugins import Registry
from saebench_canon.ref import Ref, is_bare_path
from saebench_canon.toml_table import Table, apply_settings, merge, read_toml

Dtype = Literal["float32", "float64", "bfloat16", "float16"]
SPLIT_SEED = 0


@dataclass(frozen=True)
class DataSpec:
    """Where activations come from: a model reading a text, or a file."""

    name: str
    where: str
    model: str | None = None
    hook: str | None = None
    text: str | None = None
    split: str = "train"
    column: str = "text"
    revision: str | None = None
    model_revision: str | None = None
    context: int = 128
    tokens: int | None = None
    holdout: float | None = None
    loss_tokens: int = 32_768
    file: Path | None = None
    dtype: Dtype = "float32"
    center: bool | None = None
    root: Path = field(default=Path(), compare=False)

    @property
    def has_model(self) -> bool:
        """Whether a language model is at hand."""
        return self.model is not None


@dataclass(frozen=True)
class TrainSpec:
    """An SAE to train: the trainer's name and every setting, defaults included."""

    arch: str
    width: int
    seed: int
    settings: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class SaeSpec:
    """One SAE of a suite: a ref to load or a training to do."""

    name: str
    axes: Axes
    data: str | None
    source: Ref | TrainSpec | object
    dtype: Dtype
    where: str


@dataclass(frozen=True, eq=False)
class MetricSpec:
    """One metric table of a suite."""

    metric: str
    label: str
    over: str
    peers: str | None
    conditions: Mapping[str, Condition]
    settings: Mapping[str, Any]
    seeds: Sequence[int]
    where: str


@dataclass(frozen=True)
class GateSpec:
    """A bound that scores of a run must keep."""

    score: str
    require: str
    where: str


@dataclass(frozen=True, eq=False)
class Suite:
    """A parsed suite file."""

    name: str
    version: int
    path: Path | None
    data: Mapping[str, DataSpec]
    saes: Sequence[SaeSpec]
    metrics: Sequence[MetricSpec]
    gates: Sequence[GateSpec]


def packaged_suites() -> dict[str, Path]:
    """The suites that go by bare name."""
    folder = Path(str(resources.files("saebench_canon") / "suites"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find_suite(name: str) -> Path:
    """The file of a suite given by path or by bare name."""
    path, known = Path(name), packaged_suites()
    if path.is_file() or path.suffix == ".toml" or "/" in name:
        return path
    if name in known:
        return known[name]
    raise CanonError(f"no suite '{name}'", hint=nearest(name, known))


def load_suite(path: Path, registry: Registry, *, settings: Iterable[str] = ()) -> Suite:
    """The suite of a file, with what it extends and `--set` applied."""
    tables = apply_settings(_with_base(path, ()), settings)
    return parse_suite(tables, registry, file=str(path), path=path)


def _with_base(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    tables = read_toml(path)
    head = tables.get("suite", {})
    base = tables.pop("extends", None) or (head.pop("extends", None) if isinstance(head, dict) else None)
    if base is None:
        return tables
    if not isinstance(base, str):
        raise CanonError("'extends' must be a string", where=str(path))
    parent = packaged_suites().get(base, path.parent / base)
    if parent.resolve() in seen:
        raise CanonError(f"'{base}' extends itself", where=str(path))
    return merge(_with_base(parent, (*seen, path.resolve())), tables)


def parse_suite(
    tables: dict[str, Any], registry: Registry, *, file: str, path: Path | None = None
) -> Suite:
    """The suite that TOML tables describe; every mistake is a CanonError naming file and table."""
    top = Table(tables, file)
    head = Table(top.take("suite", dict, {}), f"{file}, [suite]")
    name = head.take("name", str, path.stem if path else "suite")
    version = head.take("version", int, 1)
    head.finish()
    root = path.parent if path else Path()
    data = {
        key: _data(key, Table(_a_table(value, f"{file}, [data.{key}]"), f"{file}, [data.{key}]"), root)
        for key, value in top.take("data", dict, {}).items()
    }
    saes: list[SaeSpec] = []
    for index, table in enumerate(_tables(top, "sae", file)):
        title = table.get("name", f"number {index + 1}")
        saes.extend(_saes(Table(table, f"{file}, [[sae]] '{title}'"), data, registry, root))
    _refuse_twins(saes)
    axes = sorted({axis for sae in saes for axis in sae.axes})
    metrics = [
        parse_metric(Table(table, f"{file}, [[metric]] '{table.get('label', table.get('name', '?'))}'"),
                axes, registry)
        for table in _tables(top, "metric", file)
    ]  # fmt: skip
    _refuse_shared_labels(metrics)
    gates = [
        _gate(Table(table, f"{file}, [[gate]] {index + 1}"), metrics, registry)
        for index, table in enumerate(_tables(top, "gate", file))
    ]
    top.finish()
    if not saes:
        raise CanonError("there is no [[sae]] table", where=file)
    if not metrics:
        raise CanonError("there is no [[metric]] table", where=file)
    return Suite(name, version, path, data, saes, metrics, gates)


def _a_table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CanonError("must be a table", where=where)
    return value


def _tables(top: Table, key: str, file: str) -> list[dict[str, Any]]:
    return [_a_table(value, f"{file}, [[{key}]]") for value in top.take(key, list, [])]


def _data(name: str, table: Table, root: Path) -> DataSpec:
    file = table.optional("file", str)
    spec = DataSpec(
        name=name,
        where=table.where,
        model=table.optional("model", str),
        hook=table.optional("hook", str),
        text=table.optional("text", str),
        split=table.take("split", str, "train"),
        column=table.take("column", str, "text"),
        revision=table.optional("revision", str),
        model_revision=table.optional("model_revision", str),
        context=table.take("context", int, 128),
        tokens=table.optional("tokens", int),
        holdout=table.optional("holdout", float),
        loss_tokens=table.take("loss_tokens", int, 32_768),
        file=root / file if file else None,
        dtype=cast(Dtype, table.choice("dtype", Dtype, "float32")),
        center=table.optional("center", bool),
        root=root,
    )
    table.finish()
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


def _saes(
    table: Table, data: Mapping[str, DataSpec], registry: Registry, root: Path
) -> list[SaeSpec]:
    """The SAEs of one table: its axes multiplied out."""
    where = table.where
    template = table.take("name", str)
    uri, train = table.optional("uri", str), table.optional("train", dict)
    source = table.optional("data", str)
    dtype = cast(Dtype, table.choice("dtype", Dtype, "float32"))
    axes = {axis: _axis(axis, values, where) for axis, values in table.take("axes", dict, {}).items()}
    exclude = [_exclusion(drop, axes, where) for drop in table.take("exclude", list, [])]
    table.finish()
    if (uri is None) == (train is None):
        raise CanonError("needs either 'uri' or 'train'", where=where)
    if source is not None and source not in data:
        raise CanonError(f"no data '{source}'", where=where, hint=nearest(source, data))
    saes = []
    for point in multiply(axes, exclude):
        name = _checked_name(fill(template, point, key="name", where=where), where)
        if uri is not None:
            ref = _ref(fill(uri, point, key="uri", where=where), registry, root, where)
            saes.append(SaeSpec(name, point, source, ref, dtype, where))
            continue
        spec = _train(cast("dict[str, Any]", train), point, registry, where)
        _check_trainable(data[source] if source is not None else None, where)
        saes.append(SaeSpec(name, point, source, spec, dtype, where))
    return saes


def _check_trainable(data: DataSpec | None, where: str) -> None:
    if data is None:
        raise CanonError("trains an SAE without 'data'", where=where)
    if data.holdout is None:
        raise CanonError(
            f"trains on data '{data.name}', which holds nothing out", where=where,
            hint=f"Set holdout = 0.1 in [data.{data.name}], so that scores use unseen documents.",
        )  # fmt: skip


def _axis(axis: str, values: Any, where: str) -> list[AxisValue]:
    if not isinstance(values, list) or not values:
        raise CanonError(f"axis '{axis}' must be a list of values", where=where)
    if not axis.isidentifier():
        raise CanonError(f"axis '{axis}' must be a plain word", where=where)
    for value in values:
        if not isinstance(value, int | float | str | bool):
            raise CanonError(f"axis '{axis}' has the value {value!r}", where=where)
    if len(set(values)) < len(values):
        raise CanonError(f"axis '{axis}' has a value twice", where=where)
    return values


def _exclusion(drop: Any, axes: Mapping[str, Any], where: str) -> dict[str, AxisValue]:
    if not isinstance(drop, dict):
        raise CanonError("'exclude' must be a list of tables", where=where)
    for key in drop:
        if key not in axes:
            raise CanonError(f"'exclude' names the axis '{key}'", where=where, hint=nearest(key, axes))
    return drop


def _checked_name(name: str, where: str) -> str:
    if not re.fullmatch(r"[^\s\[\]/+]+", name) or "::" in name:
        raise CanonError(
            f"'{name}' cannot be a name", where=where,
            hint="Names have no blanks, brackets, slashes, plus signs or '::'.",
        )  # fmt: skip
    return name


def _ref(text: str, registry: Registry, root: Path, where: str) -> Ref:
    """The ref of a URI or bare path; relative paths are the suite file's."""
    try:
        ref = Ref.parse(f"file:{text}" if is_bare_path(text) else text)
    except CanonError as error:
        raise CanonError(error.what, where=where, hint=error.hint) from None
    registry.adapter(ref.scheme, where=where)
    if ref.local:
        ref = ref.within(root)
        if not ref.path.exists():
            folder = ref.path.parent
            beside = [each.name for each in folder.iterdir()] if folder.is_dir() else []
            raise CanonError(f"no file or folder {ref.path}", where=where,
                             hint=nearest(ref.path.name, beside))  # fmt: skip
    return ref


def _train(
    table: Mapping[str, Any], point: Axes, registry: Registry, where: str
) -> TrainSpec:
    """The training that a train table and one point of the axes describe."""
    arch = point.get("arch", table.get("arch"))
    if not isinstance(arch, str):
        raise CanonError("'train' names no 'arch'", where=where,
                         hint=f"There is {', '.join(registry.trainers)}.")  # fmt: skip
    trainer = registry.trainer(arch, where=where)
    shared = {key: value for key, value in table.items() if key not in registry.trainers}
    own = _a_table(table.get(arch, {}), f"{where}, train.{arch}")
    given = {**shared, **own, **point}
    known = {*trainer.settings, "arch", "width", "seed"}
    elsewhere = {setting for each in registry.trainers.values() for setting in each.settings}
    for key in (*point, *own):
        if key not in known:
            kind = "axis" if key in point else "key"
            raise CanonError(f"the {kind} '{key}' is no setting of trainer '{arch}'", where=where,
                             hint=nearest(key, known))  # fmt: skip
    for key in shared:
        if key not in known | elsewhere:
            raise CanonError(f"unknown key '{key}' in 'train'", where=where,
                             hint=nearest(key, known | set(registry.trainers)))  # fmt: skip
    settings = {
        key: _setting(key, given[key], default, where) if key in given else default
        for key, default in trainer.settings.items()
    }
    width, seed = given.get("width"), given.get("seed", 0)
    if type(width) is not int or width < 1:
        raise CanonError(f"'width' is {width!r}; it must be a whole number", where=where)
    if type(seed) is not int:
        raise CanonError(f"'seed' is {seed!r}; it must be a whole number", where=where)
    if isinstance(settings.get("k"), int | float) and settings["k"] > width:
        raise CanonError(f"k = {settings['k']} is above the width {width}", where=where)
    return TrainSpec(arch, width, seed, settings)


def _setting(key: str, value: Any, default: Any, where: str) -> Any:
    """A setting's value, of the kind its default has; None as default takes any plain value."""
    kind = type(default)
    if kind is float and type(value) is int:
        return float(value)
    if kind is tuple and isinstance(value, list):
        return tuple(value)
    if default is not None and type(value) is not kind:
        raise CanonError(f"the setting '{key}' is {value!r}; its default is {default!r}", where=where)
    return value


def parse_metric(table: Table, axes: Sequence[str], registry: Registry) -> MetricSpec:
    """The metric that a [[metric]] table describes, for SAEs with these axes."""
    where = table.where
    metric = registry.metric(table.take("name", str), where=where)
    label = _checked_name(table.take("label", str, metric.name), where)
    default_over = {"sae": "each", "pair": "pairs:width", "group": "group:seed"}[metric.of]
    over = table.take("over", str, default_over)
    _check_over(over, metric.of, axes, where)
    peers = table.optional("peers", str)
    wanted = table.take("where", dict, {})
    for axis in [*wanted, *([peers] if peers else [])]:
        if axis not in axes:
            raise CanonError(f"no SAE has the axis '{axis}'", where=where, hint=nearest(axis, axes))
    given = table.take("settings", dict, {})
    for key in given:
        if key not in metric.settings:
            raise CanonError(f"metric '{metric.name}' has no setting '{key}'", where=where,
                             hint=nearest(key, metric.settings))  # fmt: skip
    seeds = table.take("seeds", list, [0])
    if not seeds or any(type(seed) is not int for seed in seeds) or len(set(seeds)) < len(seeds):
        raise CanonError(f"'seeds' is {seeds!r}; it is a list of different whole numbers", where=where)
    table.finish()
    settings = {
        key: _setting(key, given[key], default, where) if key in given else default
        for key, default in metric.settings.items()
    }
    conditions = {axis: condition(text, where=where) for axis, text in wanted.items()}
    return MetricSpec(metric.name, label, over, peers, conditions, settings, seeds, where)


def _check_over(over: str, of: str, axes: Sequence[str], where: str) -> None:
    kind, _, axis = over.partition(":")
    fits = {"each": "sae", "pairs": "pair", "all-pairs": "pair", "group": "group"}
    if kind not in fits or (kind == "each") == bool(axis):
        raise CanonError(f"'over' is '{over}'", where=where,
                         hint="It is each, pairs:AXIS, all-pairs:AXIS or group:AXIS.")  # fmt: skip
    if fits[kind] != of:
        raise CanonError(f"over = '{over}' does not fit a metric of a {of}", where=where)
    if axis and axis not in axes:
        raise CanonError(f"'over' names the axis '{axis}', which no SAE has", where=where,
                         hint=nearest(axis, axes))  # fmt: skip


def _gate(table: Table, metrics: Sequence[MetricSpec], registry: Registry) -> GateSpec:
    score = table.take("score", str)
    require = table.take("require", str)
    table.finish()
    label, _, name = score.partition(".")
    spec = next((each for each in metrics if each.label == label), None)
    if spec is None:
        raise CanonError(f"no metric '{label}' in this suite", where=table.where,
                         hint=nearest(label, [each.label for each in metrics]))  # fmt: skip
    names = [each.name for each in registry.metrics[spec.metric].scores]
    if name not in names:
        raise CanonError(f"metric '{spec.metric}' has no score '{name}'", where=table.where,
                         hint=nearest(name, names))  # fmt: skip
    if not re.match(r"\s*(==|!=|<=|>=|<|>)", require):
        raise CanonError(f"'require' is '{require}'", where=table.where,
                         hint="It is a bound such as '>= 0.6'.")  # fmt: skip
    condition(require, where=table.where)
    return GateSpec(score, require, table.where)


def _refuse_twins(saes: Sequence[SaeSpec]) -> None:
    names: dict[str, SaeSpec] = {}
    for sae in saes:
        if sae.name in names:
            raise CanonError(f"two SAEs are called '{sae.name}'", where=sae.where,
                             hint="Put its axes into the name, such as {width}.")  # fmt: skip
        names[sae.name] = sae


def _refuse_shared_labels(metrics: Sequence[MetricSpec]) -> None:
    seen: set[str] = set()
    for spec in metrics:
        if spec.label in seen:
            raise CanonError(f"two [[metric]] tables are called '{spec.label}'", where=spec.where,
                             hint="Give each its own 'label'.")  # fmt: skip
        seen.add(spec.label)
