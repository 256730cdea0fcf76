"""Whatever a suite file holds, `plan` answers in time, and with one sentence if it cannot."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from planted import SUITE

from saebench_canon.bench.plan import check_saes_fit, make_plan
from saebench_canon.bench.store import Store
from saebench_canon.cli.main import main
from saebench_canon.errors import UNPRINTABLE, CanonError
from saebench_canon.plugin.registry import load_registry
from saebench_canon.suite.load import BASES
from saebench_canon.suite.names import typed_setting
from saebench_canon.suite.toml_limits import BYTES, DEPTH

SMALL = SUITE.split('[[metric]]\nname = "stitching"')[0]
SECONDS = 5.0
MANY = 200_000
SIXTY = ", ".join(f"{axis} = {list(range(1, 61))}" for axis in "abcdefg")
TRAINED = SMALL.replace(
    'uri = "file:saes/w{width}-s{seed}"', 'train = { tokens = 2000, k = 4, arch = "topk" }'
).replace('file = "acts.safetensors"', 'file = "acts.safetensors"\nholdout = 0.2')


def replaced(old: str, new: str, text: str = SMALL) -> str:
    assert old in text
    return text.replace(old, new, 1)


def axis(values: str) -> str:
    return replaced("[24, 48]", values)


def over(table: str, widths: int, seeds: int) -> str:
    """A suite of so many SAEs to train, with one more metric."""
    axes = f"width = {list(range(8, 8 + widths))}, seed = {list(range(seeds))}"
    return replaced("width = [24, 48], seed = [0, 1]", axes, TRAINED) + f"\n[[metric]]\n{table}"


HOSTILE = {
    "lists in lists": f"x = {'[' * MANY}",
    "closed lists": f"{SMALL}settings.x = {'[' * 99}{']' * 99}",
    "tables in tables": f"x = {'{a=' * MANY}",
    "a key of many words": f"a{'.a' * MANY} = 1",
    "a key of many quoted words": f"""{'"a" . ' * (MANY // 2)}a = 1""",
    "a head of many words": f"[a{'.a' * MANY}]",
    "a list's head of many words": f"[[a{'.a' * MANY}]]",
    "a key of many words in a table": f"x = {{a{'.a' * MANY} = 1}}",
    "too many letters": f"# {'a' * BYTES}\n{SMALL}",
    "5,000 digits": replaced("[suite]", f"[suite]\nversion = {'1' * 5000}"),
    "5,000 digits of a float": replaced("[24, 48]", f"[{'1' * 5000}.0]"),
    "5,000 digits in 16s": replaced("[suite]", f"[suite]\nversion = 0x{'f' * 5000}"),
    "65 bits": axis("[24, 18446744073709551616]"),
    "NUL": replaced("small", "sm\0all"),
    "NUL in a name": replaced('"small"', r'"sm\u0000all"'),
    "NUL in a file": replaced("acts.", r"acts\u0000."),
    "NUL in a uri": replaced("file:saes", r"file:\u0000saes"),
    "NUL in a key": rf'{SMALL}settings."a\u0000b" = 1',
    "NUL in a data table": replaced("[data.planted]", r'[data."a\u0000b"]'),
    "NUL in extends": rf'extends = "a\u0000b"{SMALL}',
    "an order in an axis": axis(r'["\u001b[31m"]'),
    "an order in a source": rf'{SMALL}[[reference]]{chr(10)}source = "\u009b31m"',
    "a direction in a name": replaced('"small"', '"sm\u202eall"'),
    "lines in an axis": axis(r'["a\nb"]'),
    "inf": axis("[24, inf]"),
    "-inf": axis("[24, -inf]"),
    "nan": axis("[24, nan]"),
    "1e999": axis("[24, 1e999]"),
    "a bound of nan": f'{SMALL}where.width = "<= nan"',
    "a gate of nan": f'{SMALL}[[gate]]\nscore = "fidelity.l0"\nrequire = ">= nan"',
    "a holdout of nan": replaced("file =", "holdout = nan\nfile ="),
    "a date": axis("[1979-05-27]"),
    "an impossible date": axis("[1979-02-31]"),
    "a wide field": replaced("relu-w{width}", "relu-w{width:>999999999}"),
    "a wide field of zeros": replaced("saes/w{width}", "saes/w{width:0999999999}"),
    "a field of many decimals": replaced("saes/w{width}", "saes/w{width:.999999999f}"),
    "a field as wide as a value": replaced("saes/w{width}", "saes/w{width:{seed}}"),
    "a field of an object": replaced("saes/w{width}", "saes/w{width.__class__}"),
    "a letter beyond Unicode": replaced("w{width}", "{seed:c}").replace("[0, 1]", "[-1]"),
    "a letter that is an order": replaced("w{width}", "{seed:c}").replace("[0, 1]", "[27]"),
    "60^7 SAEs": replaced("width = [24, 48], seed = [0, 1]", SIXTY),
    "60^7 SAEs to train": replaced("width = [24, 48], seed = [0, 1]", SIXTY, TRAINED),
    "many pairs": over('name = "stitching"\nover = "all-pairs:seed"', 5, 300),
    "many peers": over('name = "stitching"\npeers = "seed"', 30, 300),
    "many seeds": f"{SMALL}seeds = {list(range(MANY // 2))}",
    "a long name": replaced('"small"', f'"{"a" * 3000}"'),
    "a long name of an SAE": replaced("relu-w", "r" * 3000),
    "a long uri": replaced("file:saes", f"file:{'s' * 3000}"),
    "a long file": replaced("acts.safetensors", "a" * 3000),
    "a long base": f'extends = "{"a" * 3000}"\n{SMALL}',
    "nobody's home": replaced("file:saes", "file:~nobody-of-this-name/saes"),
    "a device as a base": f'extends = "/dev/zero"\n{SMALL}',
    "itself as a base": f'extends = "small.toml"\n{SMALL}',
    "UTF-16": SMALL.encode("utf-16"),
    "latin-1": replaced("small", "smäll").encode("latin-1"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_suite_is_one_sentence(
    suite: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = HOSTILE[name]
    suite.write_bytes(text if isinstance(text, bytes) else text.encode())
    started = time.perf_counter()
    assert main(["plan", "small.toml"]) == 4
    assert time.perf_counter() - started < SECONDS
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("saebench-canon: ")
    assert printed.err.count("\n") == 1
    assert len(printed.err) < 3000
    assert not UNPRINTABLE.search(printed.err)


@pytest.mark.parametrize(
    "value",
    ["[" * 5000, "{a=" * 5000, "1" * 5000, "0x" + "f" * 5000, "\x1b[31m", r'"\u0000"', "a." * 200],
)  # fmt: skip
def test_a_hostile_setting_is_one_sentence(
    suite: Path, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "small.toml", "--set", f"metric.fidelity.settings.min_live={value}"]) == 4
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert not UNPRINTABLE.search(printed)


def chain(folder: Path, length: int) -> None:
    """`small.toml` and `length` suites that extend one another, the last of them it."""
    for index in range(length):
        base = f"{index + 1}.toml" if index + 1 < length else "small.toml"
        (folder / f"{index}.toml").write_text(f'extends = "{base}"\n')


@pytest.mark.parametrize(("length", "code"), [(BASES, 0), (BASES + 1, 4), (1000, 4)])
def test_a_long_chain_of_bases_is_one_sentence(
    suite: Path, length: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    chain(suite.parent, length)
    assert main(["plan", "0.toml"]) == code
    printed = capsys.readouterr().err
    assert ("suites extend one another" in printed) == (code == 4)


@pytest.mark.parametrize("length", [1, 2, 5, BASES + 5])
def test_a_circle_of_bases_is_one_sentence(
    suite: Path, length: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(length):
        Path(f"{index}.toml").write_text(f'extends = "{(index + 1) % length}.toml"\n')
    assert main(["plan", "0.toml"]) == 4
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("command", ["plan", "show"])
def test_links_in_a_circle_are_one_sentence(
    suite: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    os.symlink("loop.toml", "loop.toml")
    Path("base.toml").write_text('extends = "loop.toml"\n')
    for name in ("loop.toml", "base.toml"):
        assert main([command, name]) == 4
        assert capsys.readouterr().err.count("\n") == 1


def test_a_pipe_is_not_waited_for(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe.toml")
    assert main(["plan", "pipe.toml"]) == 4
    assert "pipe.toml is not a file" in capsys.readouterr().err


@pytest.mark.parametrize("change", [
    lambda text: "\ufeff" + text,
    lambda text: text.replace("\n", "\r\n"),
    lambda text: replaced('"small"', '"größe-Ω-😀-می‌خواهم"', text),
    lambda text: replaced("file =", f"tokens = {2**63 - 1}\nfile =", text),
    lambda text: replaced("relu-w{width}", "relu-w{width:>08,d}", text),
    lambda text: f"{text}# {'a.' * (DEPTH - 4)}a = [[[1]]]\n",
])  # fmt: skip
def test_a_harmless_suite_is_read(suite: Path, change: Callable[[str], str]) -> None:
    suite.write_bytes(change(SMALL).encode())
    assert main(["plan", "small.toml"]) == 0


def test_the_largest_suites_are_planned_in_time(suite: Path) -> None:
    suite.write_text(over("", 100, 100).removesuffix("\n[[metric]]\n"))
    started = time.perf_counter()
    assert main(["plan", "small.toml"]) == 0
    assert time.perf_counter() - started < 2 * SECONDS


def test_a_width_larger_than_any_memory_is_refused_before_a_run(suite: Path) -> None:
    suite.write_text(replaced("[24, 48]", f"[24, {2**63 - 1}]", TRAINED))
    registry = load_registry()
    plan = make_plan(suite, registry, Store(Path("store")))
    with pytest.raises(CanonError, match=r"an SAE of 9223372036854775807 latents needs .* free"):
        check_saes_fit(plan.suite)


@pytest.mark.parametrize("number", ["inf", "-inf", "nan"])
@pytest.mark.parametrize("listed", [False, True])
def test_a_setting_is_finite_in_lists_too(number: str, listed: bool) -> None:
    value, default = ([1.0, float(number)], (1.0,)) if listed else (float(number), 1.0)
    with pytest.raises(CanonError, match="'scales' must be finite"):
        typed_setting("scales", value, default, "here")
