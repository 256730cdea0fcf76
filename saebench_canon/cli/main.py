"""The program `saebench-canon`: its commands and their options."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TypeAlias

from saebench_canon import __version__
from saebench_canon.cli.streams import allow_any_encoding, is_coloured, printable_output
from saebench_canon.errors import CanonError, from_system

USAGE_ERROR = 4
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
KIT = ("check", "new", "schema")
EPILOG = """
exit codes are pytest's: 0 all cases measured and all gates hold, 1 a case failed or a gate does not
hold, 2 interrupted, 3 internal error, 4 wrong usage or a bad suite, 5 nothing selected
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    allow_any_encoding()
    with printable_output(colours=is_coloured(words)):
        return _exit_code(words)


def _exit_code(words: list[str]) -> int:
    try:
        return _run_command(words)
    except CanonError as error:
        print(f"saebench-canon: {error}", file=sys.stderr)
        return USAGE_ERROR
    except BrokenPipeError:  # the reader, such as `head`, has stopped reading
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"saebench-canon: {from_system(error)}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        return 2


def _run_command(words: list[str]) -> int:
    if words[:1] == ["run"]:  # everything after it is pytest's and the plugin's
        from saebench_canon.cli.run import run

        return run(words[1:])
    try:
        options = _parser().parse_args(words)
    except SystemExit as stop:
        return USAGE_ERROR if stop.code else 0
    from saebench_canon.cli import export as commands_export
    from saebench_canon.cli import frankenstein as commands_frankenstein
    from saebench_canon.cli import listings as commands
    from saebench_canon.cli import plugin_kit as commands_kit

    homes = {
        **dict.fromkeys(KIT, commands_kit), "frankenstein": commands_frankenstein,
        "export": commands_export,
    }  # fmt: skip
    home = homes.get(options.command, commands)
    return getattr(home, options.command)(options) or 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="saebench-canon",
        description="Do sparse autoencoders find canonical units of a language model?",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"saebench-canon {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run", help="measure a suite; takes any pytest option", add_help=False
    )
    run.add_argument("suite")

    plan = commands.add_parser("plan", help="what would be measured, and what already is")
    plan.add_argument("suite", help="a TOML file or the name of a packaged suite")
    plan.add_argument("--json", action="store_true", help="the cases as a list of JSON objects")
    plan.add_argument("--set", action="append", default=[], dest="settings", metavar="T.KEY=VALUE")
    plan.add_argument("--limit", type=_positive, metavar="TOKENS")
    plan.add_argument("--dtype", choices=["float32", "float64", "bfloat16", "float16"])

    _add_show(commands)
    _add_frankenstein(commands)
    commands.add_parser(
        "ls", help="packaged suites, metrics, questions, data kinds, architectures, schemes"
    )
    commands.add_parser("plugins", help="the loaded plugins and those that are broken")
    commands.add_parser("doctor", help="versions, hardware, store and hub of this machine")

    check = commands.add_parser("check", help="whether an adapter, a metric or a world conforms")
    check.add_argument("what", metavar="REF|METRIC|WORLD",
                       help="an SAE of the adapter, a metric, or a world")  # fmt: skip
    check.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    check.add_argument("--except", action="append", default=[], dest="except_scores",
                       metavar="SCORE", help="a score that dead latents may change")  # fmt: skip

    new = commands.add_parser("new", help="write a template of a plugin or a suite")
    new.add_argument("kind", choices=["adapter", "metric", "world", "suite"])
    new.add_argument("name")
    new.add_argument("--to", default=".", metavar="DIR", help="the folder to write into")

    export = commands.add_parser(
        "export", help="write the activations of a data table, or an SAE that is trained"
    )
    export.add_argument("suite", help="a TOML file or the name of a packaged suite")
    export.add_argument("name", metavar="NAME", help="a data table or an SAE of the suite")
    export.add_argument("-o", "--output", required=True, metavar="FOLDER",
                        help="a new folder to write")  # fmt: skip
    export.add_argument("--canonical", action="store_true",
                        help="of an SAE, only its canonical latents")  # fmt: skip
    export.add_argument("--training", type=_positive, metavar="TOKENS",
                        help="of a world, also so many tokens to train on")  # fmt: skip
    export.add_argument(
        "--set", action="append", default=[], dest="settings", metavar="T.KEY=VALUE"
    )

    commands.add_parser("schema", help="the JSON schema of suite files, for editors")

    for name in ("plan", "show", "doctor", "frankenstein", "export"):
        commands.choices[name].add_argument("--store", default=".canon", metavar="DIR")
    for name in ("plan", "show", "ls", "plugins", "doctor", "frankenstein", "export", *KIT):
        commands.choices[name].add_argument(
            "--plugin", action="append", default=[], metavar="FILE", help="a one-file plugin"
        )
    for command in (parser, *commands.choices.values()):
        vars(command)["color"] = False  # Python 3.14 colours help, and `printable_output` shows it
    return parser


def _add_show(commands: Commands) -> None:
    show = commands.add_parser("show", help="the tables of the last run")
    show.add_argument("suite", nargs="?", help="the suite; if absent, that of the last run")
    show.add_argument("--json", action="store_true", help="one object per score")
    show.add_argument("--answers", action="store_true",
                      help="only the answers; with --json one object per answer")  # fmt: skip
    show.add_argument("--errors", action="store_true", help="why cases failed, with tracebacks")
    show.add_argument("--all", action="store_true", help="every score, not only the main ones")
    show.add_argument(
        "--canonical",
        action="store_true",
        help="which latents are canonical; with --json, or --to a .csv, .parquet or .md",
    )
    card = show.add_mutually_exclusive_group()
    card.add_argument("--latent", metavar="[SAE:]N", help="the card of one latent of an SAE")
    card.add_argument(
        "--meta-latent", metavar="[SAE:]N", help="the card of one meta-latent of an SAE"
    )
    show.add_argument("--to", metavar="FILE",
                      help="write tables (.md, .html, .txt, .csv, .parquet)"
                      " or the paths between sizes as a figure (.png, .svg, .pdf)")  # fmt: skip


def _add_frankenstein(commands: Commands) -> None:
    frankenstein = commands.add_parser(
        "frankenstein", help="save a small SAE with the helpful latents of a larger one"
    )
    frankenstein.add_argument("small", metavar="SMALL", help="a ref or a path")
    frankenstein.add_argument("large", metavar="LARGE", help="a wider SAE of the same activations")
    frankenstein.add_argument("--to", required=True, metavar="FOLDER", help="a new folder to write")
    frankenstein.add_argument("--data", required=True, metavar="DATA",
                       help="a .safetensors file of activations, or a language model")  # fmt: skip
    frankenstein.add_argument(
        "--hook", metavar="HOOK", help="where in the model, if the SAEs do not say"
    )
    frankenstein.add_argument("--text", metavar="TEXT", help="what the model reads")
    frankenstein.add_argument("--threshold", type=float, metavar="COSINE",
                       help="only latents whose cosines with small ones are all below")  # fmt: skip
