"""No name of a file, a tensor or a setting makes a terminal do anything but show it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from planted import SUITE, write_sae
from safetensors.torch import load_file, save_file

from saebench_canon.bench.sealed_record import digest_of
from saebench_canon.bench.store import Store
from saebench_canon.cli.latent import WRITERS
from saebench_canon.cli.main import main
from saebench_canon.cli.streams import _PrintableOutput
from saebench_canon.cli.terminal_line import TerminalLine
from saebench_canon.errors import UNPRINTABLE, CanonError, printable
from saebench_canon.latents.card import Card
from saebench_canon.plugin.evidence import Evidence

ORDER = "\x1b[2J\x1b]0;title\x07\x9b31m\u202e"
SHOWN = r"\x1b[2J\x1b]0;title\x07\x9b31m\u202e"
SMALL = SUITE.split('[[metric]]\nname = "stitching"')[0]
FAILING = f"""
from saebench_canon import Score, hookimpl, metric


@metric(scores=[Score("count")], of="sae", version=1)
def fussy(sae):
    \"\"\"Counts {SHOWN}.\"\"\"
    raise ValueError("{SHOWN}")


@hookimpl
def canon_metrics():
    return [fussy]
"""


@pytest.mark.parametrize(
    "text", ["a", "größe Ω 😀 می‌خواهم 日本", "a\tb\nc", "── ↑ ± ⏎ ␣", r"\x1b[0m"]
)
def test_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    "code",
    [*range(0x09), 0x0B, 0x0D, *range(0x0E, 0x20), *range(0x7F, 0xA0), 0x61C, 0x200B, 0x200E,
     0x200F, *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xD800, 0xDFFF, 0xFEFF, 0xFFF9,
     0xE0001, 0xE007F],
)  # fmt: skip
def test_an_order_is_shown_by_its_code(code: int) -> None:
    shown = printable(f"a{chr(code)}b")
    assert chr(code) not in shown
    assert f"{code:x}" in shown or shown == r"a\rb"
    assert shown.isascii()


def test_an_error_is_one_line_that_can_be_printed() -> None:
    error = CanonError(f"a\n{ORDER}", where=f"b\n\n{ORDER}", hint=f"{ORDER}\r\nc")
    assert str(error) == f"a {SHOWN} (b {SHOWN}). {SHOWN} c"
    assert error.what == f"a\n{ORDER}"
    assert len(str(CanonError("a" * 10**6, where="b" * 10**6, hint="c" * 10**6))) < 4000


@pytest.mark.parametrize("colours", [False, True])
def test_a_stream_lets_colours_through_if_asked(colours: bool) -> None:
    stream = io.StringIO()
    output: Any = _PrintableOutput(stream, colours=colours)
    assert output.write(f"\x1b[31;1ma\x1b[0m{ORDER}") == len(f"\x1b[31;1ma\x1b[0m{ORDER}")
    output.writelines(["b\n", "\x1b[1A"])
    red, plain = ("\x1b[31;1m", "\x1b[0m") if colours else (r"\x1b[31;1m", r"\x1b[0m")
    assert stream.getvalue() == rf"{red}a{plain}{SHOWN}b" + "\n" + r"\x1b[1A"


def test_the_status_line_shows_orders(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    TerminalLine(stream).show(f"1/3 {ORDER}\nb")
    assert stream.getvalue() == f"1/3 {SHOWN} b\n"


def test_a_card_shows_orders_and_stays_in_its_fence() -> None:
    evidence = Evidence(sae=f"a{ORDER}", latent=3, kind="latent")
    card = Card(f"s{ORDER}<script>", "```", evidence, source=ORDER, notes=(f"````{ORDER}\n",))
    for suffix, write in WRITERS.items():
        page = write(card)
        assert not UNPRINTABLE.search(page), suffix
        assert ("<script" in page) == (suffix == ".json")
    assert json.loads(WRITERS[".json"](card))["sae"] == f"a{ORDER}"
    head, fence, *_, last = WRITERS[".md"](card).rstrip().split("\n")[0:1] + [
        line for line in WRITERS[".md"](card).splitlines() if line.startswith("`````")
    ]
    assert head.startswith("# latent 3")
    assert (fence, last) == ("`````text", "`````")


@pytest.fixture
def printed(suite: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """What a command prints, checked; a run is a process of its own."""

    def call(*words: str) -> tuple[int, str]:
        if words[0] == "run":
            command = [sys.executable, "-m", "saebench_canon", *words]
            result = subprocess.run(command, capture_output=True, text=True)
            code, text = result.returncode, result.stdout + result.stderr
        else:
            code = main(list(words))
            text = "".join(capfd.readouterr())
        assert not UNPRINTABLE.search(text), text
        assert "INTERNALERROR" not in text
        return code, text

    return call


def configured(**values: Any) -> Callable[[Path], None]:
    """A change of a checkpoint's cfg.json."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "cfg.json").read_text())
        (folder / "cfg.json").write_text(json.dumps(config | values))

    return change


def with_tensor(folder: Path) -> None:
    tensors = load_file(folder / "sae_weights.safetensors")
    save_file({**tensors, ORDER: torch.zeros(3)}, folder / "sae_weights.safetensors")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (configured(architecture=ORDER), 4),
        (configured(normalize_activations=ORDER), 4),
        (configured(reshape_activations=ORDER), 4),
        (configured(hook_name=ORDER, model_name=ORDER), 0),
        (configured(metadata={"hook_name": ORDER, "model_name": ORDER}), 0),
        (configured(**{ORDER: ORDER}), 0),
        (with_tensor, 4),
    ],
)
def test_a_checkpoint_gives_no_orders(
    suite: Path,
    printed: Callable[..., tuple[int, str]],
    change: Callable[[Path], None],
    code: int,
) -> None:
    change(suite.parent / "saes" / "w24-s0")
    suite.write_text(SMALL)
    assert printed("plan", "small.toml")[0] == code
    assert printed("run", "small.toml", "--collect-only")[0] == code


@pytest.mark.parametrize(("name", "code"), [(ORDER, 4), ("a\u202eb", 4), ("a\nb", 0)])
@pytest.mark.parametrize("inside", [False, True])
def test_a_folder_gives_no_orders(
    suite: Path, printed: Callable[..., tuple[int, str]], name: str, code: int, inside: bool
) -> None:
    write_sae(suite.parent / "up" / name, 24)
    named = "up" if inside else f"up/{name}"
    assert printed("run", named, "--metrics", "fidelity", "--collect-only")[0] == code


def test_a_folder_may_be_called_by_any_letters(
    suite: Path, printed: Callable[..., tuple[int, str]]
) -> None:
    name = "größe-Ω-😀-می‌خواهم"
    write_sae(suite.parent / name, 24)
    assert printed("run", name, "--metrics", "fidelity", "--collect-only")[0] == 0


@pytest.mark.parametrize("words", [
    ["plan", ORDER], ["plan", f"{ORDER}.toml"], ["run", f"{ORDER}.toml"], ["show", ORDER],
    ["check", ORDER], ["new", "metric", ORDER], ["plan", "small.toml", "--store", ORDER],
    ["plan", "small.toml", "--set", f"data.{ORDER}.x=1"], ["plugins", "--plugin", f"{ORDER}.py"],
    [ORDER], ["plan", f"--{ORDER}"],
])  # fmt: skip
def test_an_argument_gives_no_orders(
    words: list[str], printed: Callable[..., tuple[int, str]]
) -> None:
    assert printed(*words)[0] == (0 if "--store" in words else 4)


def test_a_suite_called_by_an_order_is_planned_but_not_run(
    suite: Path, printed: Callable[..., tuple[int, str]]
) -> None:
    Path(f"{ORDER}.toml").write_text(SMALL)
    assert printed("plan", f"{ORDER}.toml")[0] == 0
    code, text = printed("run", f"{ORDER}.toml")
    assert code == 4
    assert "has control characters" in text


def test_what_was_measured_gives_no_orders(
    suite: Path, printed: Callable[..., tuple[int, str]]
) -> None:
    Path("fussy.py").write_text(FAILING)
    suite.write_text(f'{SMALL}\n[[metric]]\nname = "fussy"\n')
    code, text = printed("run", "small.toml", "--plugin", "fussy.py", "-k", "w24-s0")
    assert code == 1
    assert SHOWN in text
    (run,) = Store(Path(".canon")).runs()  # of someone else, whose names are no suite's
    hostile = run.read_text().replace('"relu-w24-s0"', json.dumps(ORDER))
    edited = json.loads(hostile.replace('"planted"', json.dumps(ORDER)))
    run.write_text(json.dumps({**edited, "digest": digest_of(edited)}))
    for words in (["show"], ["show", "--all"], ["show", "--errors"], ["ls"]):
        code, text = printed(*words, "--plugin", "fussy.py")
        assert code == 0
        assert SHOWN in text
    for words in (["--json"], ["--answers"], ["--to", "run.txt"]):
        assert printed("show", *words, "--plugin", "fussy.py")[0] == 0
