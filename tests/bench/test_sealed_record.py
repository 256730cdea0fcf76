"""A record proves itself: nothing edited, borrowed, damaged or of another shape is used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sealed import rewrite

from saebench_canon.bench.measure import Bench
from saebench_canon.bench.plan import Plan, make_plan
from saebench_canon.bench.results import cases_of_run, keep_run, last_run, rows_of
from saebench_canon.bench.sealed_record import digest_of, opened
from saebench_canon.bench.store import Store
from saebench_canon.cli.main import main
from saebench_canon.errors import CanonError
from saebench_canon.plugin.registry import load_registry

REGISTRY = load_registry()
WRONG: tuple[Any, ...] = (None, True, 3, -1.5, "x", [], [1], {}, {"a": 1}, [{}], [["a"]])


@pytest.fixture
def measured(suite: Path) -> tuple[Plan, Path]:
    """The plan of the small suite, and the file of the first case, which alone is measured."""
    store = Store(Path(".canon"))
    plan = make_plan(suite, REGISTRY, store)
    record = Bench(REGISTRY, store).measure(plan.cases[0])
    keep_run(plan, name=str(suite), flags={"settings": [], "limit": None})
    return plan, store.root / "records" / f"{record.id}.json"


def leaves(value: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """The paths to every value of a JSON document, containers included."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) \
        if isinstance(value, list) else ()  # fmt: skip
    for key, inner in items:
        yield from leaves(inner, *path, key)


def changed(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at a path."""
    if not path:
        return value
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[path[0]] = changed(copy[path[0]], path[1:], value)
    return copy


def at(data: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        data = data[key]
    return data


def other(value: Any) -> Any:
    """Another value of the same type."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}x"
        case None:
            return 0.5
        case list():
            return [*value, *value] if value else ["x"]
        case _:
            return {**value, "added": 1}


def test_a_record_is_read_as_it_was_written(measured: tuple[Plan, Path]) -> None:
    plan, path = measured
    store = Store(Path(".canon"))
    record = store.record(plan.ids[0])
    assert record == opened(json.loads(path.read_text()), plan.ids[0])
    assert store.remarks() == []


def test_no_value_can_be_edited(measured: tuple[Plan, Path]) -> None:
    _, path = measured
    data = json.loads(path.read_text())
    paths = [place for place in leaves(data) if place]
    assert len(paths) > 100
    for place in paths:
        edited = changed(data, place, other(at(data, place)))
        with pytest.raises(CanonError):
            opened(edited, data["id"])


@pytest.mark.parametrize("key", ["metric", "version", "seed", "settings", "subject", "peers",
                                 "identity"])  # fmt: skip
def test_what_the_id_is_made_of_cannot_be_edited_and_sealed_again(
    measured: tuple[Plan, Path], key: str
) -> None:
    _, path = measured
    data = json.loads(path.read_text())
    for place in leaves(data[key], key):
        value = other(at(data, place))
        if place[-1] == "ref":
            continue  # a name, no part of the id
        edited = changed(data, place, value)
        with pytest.raises(CanonError):
            opened({**edited, "digest": digest_of(edited)}, data["id"])


def test_the_id_is_that_of_the_file(measured: tuple[Plan, Path]) -> None:
    plan, path = measured
    path.rename(path.with_name(f"{plan.ids[1]}.json"))
    store = Store(Path(".canon"))
    assert store.record(plan.ids[1]) is None
    (remark,) = store.remarks()
    assert remark == (
        f"The record {plan.ids[1]} is damaged and counts as not measured: "
        f"it is the record of another case, {plan.ids[0]}."
    )


def test_values_of_the_wrong_type_are_no_record_even_sealed(measured: tuple[Plan, Path]) -> None:
    _, path = measured
    data = json.loads(path.read_text())
    refused = 0
    for place in leaves(data):
        if place and place[0] in ("provenance", "digest") and len(place) > 1:
            continue
        for value in WRONG:
            edited = changed(data, place, value)
            if not isinstance(edited, dict):
                continue  # the store reads objects only
            if "digest" in edited and place[:1] != ("digest",):
                edited = {**edited, "digest": digest_of(edited)}
            try:
                record = opened(edited, data["id"])
            except CanonError:
                refused += 1
                continue
            for score in record.scores.values():
                assert isinstance(score["value"], int | float | None)
                assert not isinstance(score["value"], bool)
    assert refused > 500


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
        lambda path: path.unlink(),
    ],
)
def test_a_table_that_is_gone_or_changed_makes_the_case_not_measured(
    measured: tuple[Plan, Path], spoil: Callable[[Path], object]
) -> None:
    plan, _ = measured
    store = Store(Path(".canon"))
    assert store.record(plan.ids[0]) is not None
    (table,) = Path(".canon/tables").glob("*/latents.parquet")
    spoil(table)
    store = Store(Path(".canon"))
    assert store.record(plan.ids[0]) is None
    (remark,) = store.remarks()
    assert "its table 'latents' " in remark
    record = Bench(REGISTRY, store).measure(plan.cases[0])
    assert Store(Path(".canon")).record(plan.ids[0]) == record


def test_a_table_outside_of_the_store_is_not_read(measured: tuple[Plan, Path]) -> None:
    plan, path = measured
    outside = Path("latents.parquet").absolute()
    outside.write_bytes(b"secret")
    digests = {"latents": {"bytes": 6, "sha256": "0"}}
    rewrite(Path(".canon"), plan.ids[0], tables={"latents": "../latents.parquet"}, digests=digests)
    assert Store(Path(".canon")).record(plan.ids[0]) is None
    assert path.is_file()


def test_older_records_are_counted_and_left(
    measured: tuple[Plan, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    plan, path = measured
    data = json.loads(path.read_text())
    for key in ("format", "digest", "identity", "digests"):
        del data[key]
    path.write_text(json.dumps(data))
    (path.parent / f"{plan.ids[1]}.json").write_text(json.dumps({**data, "id": plan.ids[1]}))
    assert main(["show"]) == 0
    told = capsys.readouterr().err
    assert told == "note: 2 records are of an older format and not used; nothing is deleted.\n"
    assert main(["plan", "small.toml"]) == 0
    assert "2 records are of an older format" in capsys.readouterr().err
    assert path.is_file()


def test_an_edited_number_is_not_shown(
    measured: tuple[Plan, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, path = measured
    data = json.loads(path.read_text())
    data["scores"]["explained_variance"]["value"] = 0.987654
    path.write_text(json.dumps(data))
    assert main(["show", "--json"]) == 0
    printed = capsys.readouterr()
    assert "0.987654" not in printed.out
    assert json.loads(printed.out)[0]["status"] == "missing"
    assert "is damaged and counts as not measured: its digest" in printed.err


def test_run_files_of_any_shape_end_in_no_traceback(
    measured: tuple[Plan, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = Path(".canon/runs").glob("*.json")
    text = path.read_text()
    run = json.loads(text)
    run["cases"] = run["cases"][:1]
    for place in leaves(run):
        if place and place[0] in ("versions", "hardware", "git", "started"):
            continue
        for value in WRONG:
            path.write_text(reseal(changed(run, place, value)))
            assert main(["show"]) in (0, 4), (place, value)
            assert main(["show", "--errors"]) in (0, 4), (place, value)
    capsys.readouterr()


def reseal(run: Any) -> str:
    if not isinstance(run, dict):
        return json.dumps(run)
    try:
        return json.dumps({**run, "digest": digest_of(run)})
    except ValueError:  # a number that is not finite has no digest
        return json.dumps(run)


def test_an_edited_run_file_is_not_shown(
    measured: tuple[Plan, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = Path(".canon/runs").glob("*.json")
    run = json.loads(path.read_text())
    text = path.read_text()
    cases = run["cases"]
    swapped = [{**cases[0], "id": cases[1]["id"]}, {**cases[1], "id": cases[0]["id"]}, *cases[2:]]
    wider = [{**cases[0], "axes": {"width": 4096}}, *cases[1:]]
    for edited in ({"cases": swapped}, {"cases": wider}, {"suite": "other"}, {"digest": "0"}):
        path.write_text(json.dumps({**run, **edited}))
        assert main(["show"]) == 4
        assert "its digest is not that of its content" in capsys.readouterr().err
    path.write_text(json.dumps({key: run[key] for key in run if key != "digest"}))
    assert main(["show"]) == 4
    path.write_text(text)
    assert main(["show"]) == 0


def test_the_run_before_a_damaged_one_is_shown(
    measured: tuple[Plan, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = Path(".canon/runs").glob("*.json")
    later = path.with_name(f"9{path.name}")
    later.write_text(json.dumps({**json.loads(path.read_text()), "cases": [3]}))
    assert main(["show"]) == 0
    printed = capsys.readouterr()
    assert "fidelity" in printed.out
    assert f"The run file {later} is damaged and left out: " in printed.err


@pytest.mark.parametrize("value", WRONG)
def test_errors_of_any_shape_end_in_no_traceback(
    measured: tuple[Plan, Path], value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, _ = measured
    store = Store(Path(".canon"))
    store.keep_error(plan.ids[1], {"case": "c", "metric": "m", "error": "e", "traceback": ""})
    (path,) = Path(".canon/errors").glob("*.json")
    error = json.loads(path.read_text())
    for place in leaves(error):
        path.write_text(json.dumps(changed(error, place, value)))
        assert main(["show"]) == 0
        assert main(["show", "--errors"]) == 0
    capsys.readouterr()


def test_a_checkpoint_overwritten_while_it_is_read_is_not_measured(
    suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    from planted import write_sae

    from saebench_canon.saes.checkpoint import CheckpointAdapter

    store = Store(Path(".canon"))
    plan = make_plan(suite, REGISTRY, store)
    load = CheckpointAdapter.load

    def overwriting(self: CheckpointAdapter, ref: Any, **more: Any) -> Any:
        file = ref.path / "sae_weights.safetensors"
        status = file.stat()
        write_sae(ref.path, int(ref.path.name[1:3]), seed=77)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # the stamp stays the same
        return load(self, ref, **more)

    monkeypatch.setattr(CheckpointAdapter, "load", overwriting)
    with pytest.raises(CanonError, match="has changed since the suite was read"):
        Bench(REGISTRY, store).measure(plan.cases[0])
    assert store.record(plan.ids[0]) is None


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_data_overwritten_after_planning_passes_no_case(
    suite: Path, workers: tuple[str, ...]
) -> None:
    """The metric overwrites the data that the next case reads."""
    import subprocess
    import sys

    plugin = Path("overwrites.py")
    plugin.write_text("""
import torch
from pathlib import Path
from safetensors.torch import save_file
from saebench_canon import hookimpl

@hookimpl(tryfirst=True)
def canon_measure(case, bench):
    save_file({"acts": torch.randn(600, 16)}, Path("acts.safetensors"))
""")
    command = [sys.executable, "-m", "saebench_canon", "run", str(suite), "--plugin", str(plugin)]
    done = subprocess.run([*command, *workers], capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "has changed since the suite was read" in done.stdout
    assert " passed" not in done.stdout.rpartition("\n=")[2]
    assert not list(Path(".canon/records").glob("*.json"))


def test_each_passed_case_has_its_record(measured: tuple[Plan, Path]) -> None:
    plan, _ = measured
    rows = rows_of(cases_of_run(last_run(plan.store, None)), plan.store, REGISTRY.metrics)
    assert {row.id for row in rows if row.status == "measured"} == {plan.ids[0]}
