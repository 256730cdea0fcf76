"""One trial: the program in a forked process, with a fault; what is left is compared with truth."""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

SHIM = "CANON_FAULTS_SHIM"
KILL, STOP = 0, -1
SUITE = """
[suite]
name = "faults"

[data.planted]
file = "acts.safetensors"
holdout = 0.3

[[sae]]
name = "trained"
data = "planted"
train = { arch = "topk", width = 24, k = 2, tokens = 1_000, batch_size = 100 }

[[sae]]
name = "w{width}"
uri = "file:saes/w{width}"
data = "planted"
axes = { width = [24, 48] }

[[metric]]
name = "fidelity"

[[metric]]
name = "meta_sae"
settings = { width = 8, k = 2, steps = 3, meta_seeds = 1, composition = false }
"""
Scores = dict[str, Any]


def compiled(folder: Path) -> Path:
    """The shim as a shared library."""
    library = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run(
        ["cc", "-O1", "-w", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True
    )
    return library


@dataclass
class Ended:
    """How a process ended, and what it printed."""

    code: int  # negative: the signal that killed it
    output: str
    operations: int
    seconds: float

    @property
    def torn(self) -> bool:
        """Whether it ended in something that no user should see."""
        return "Traceback (most recent" in self.output or "INTERNALERROR" in self.output


@dataclass
class World:
    """A folder with a suite, its golden scores, and trials in it."""

    home: Path
    store: Path = field(init=False)
    golden: Scores = field(default_factory=dict)

    def __post_init__(self) -> None:
        from planted import write_acts, write_sae

        self.store = self.home / "store"
        write_acts(self.home / "acts.safetensors")
        for width in (24, 48):
            write_sae(self.home / "saes" / f"w{width}", width)
        (self.home / "suite.toml").write_text(SUITE)

    def call(self, *words: str, **fault: Any) -> Ended:
        """The program with these words; see `forked` for the fault."""
        from saebench_canon.cli.main import main

        arguments = [*words, "--store", str(self.store)]
        return forked(lambda: main(arguments), self.home, self.store, **fault)

    def run(self, **fault: Any) -> Ended:
        """A run of the suite."""
        return self.call("run", "suite.toml", "-q", **fault)

    def other_runs(self) -> None:
        """Runs whose failures and suites stand in the store too: a broken SAE, SAEs by name."""
        import torch
        from safetensors.torch import load_file, save_file

        weights = shutil.copytree(self.home / "saes" / "w24", self.home / "saes" / "broken")
        weights = weights / "sae_weights.safetensors"
        save_file({name: torch.nan * x for name, x in load_file(weights).items()}, weights)
        suite = SUITE.replace("saes/w{width}", "saes/broken").replace("[24, 48]", "[24]")
        (self.home / "broken.toml").write_text(suite.replace('"faults"', '"broken"'))
        self.call("run", "broken.toml", "-q")
        options = ("--metrics", "fidelity", "--data", "acts.safetensors", "-q")
        self.call("run", "saes/w24", *options)

    def scores(self) -> tuple[Ended, Scores]:
        """What `show faults --json` prints, by case and score; {} if it refuses."""
        ended = self.call("show", "faults", "--json")
        text = ended.output[ended.output.find("[\n") :] if "[\n" in ended.output else "[]"
        rows = json.loads(text[: text.rfind("]") + 1]) if ended.code == 0 else []
        return ended, {
            f"{row['label']} {'+'.join(row['subject'])} {row['score']}": (
                row["value"], row["stderr"], row["n"]
            )
            for row in rows
            if row["status"] in ("measured", "undefined")
        }  # fmt: skip

    def fresh(self) -> None:
        """Forget the store."""
        shutil.rmtree(self.store, ignore_errors=True)

    def drafts(self) -> list[str]:
        """Files and folders that never got their name."""
        paths = (path.relative_to(self.store) for path in self.store.rglob(".*"))
        return [str(path) for path in paths if not path.parts[0].startswith("pytest")]

    def verdict(self) -> str | None:
        """What is wrong after a fault; None if all that is shown is true and a rerun heals it."""
        ended, shown = self.scores()
        if ended.torn or ended.code not in (0, 4):
            return f"show ended with {ended.code}: {ended.output[-500:]}"
        if wrong := [name for name, value in shown.items() if value != self.golden.get(name)]:
            return f"show printed other scores, {wrong[0]}"
        ended = self.run()
        if ended.code != 0 or ended.torn:
            return f"the rerun ended with {ended.code}: {ended.output[-800:]}"
        _, shown = self.scores()
        if shown != self.golden:
            lacking = sorted(set(self.golden) ^ set(shown)) or ["values"]
            return f"after the rerun the scores differ: {lacking[0]}"
        drafts = self.drafts()
        return f"drafts are left: {drafts[0]}" if drafts else None


def forked(
    work: Callable[[], int],
    folder: Path,
    store: Path,
    *,
    at: int = 0,
    action: int = KILL,
    changes_only: bool = False,
    kill_after: float | None = None,
    when_stopped: Callable[[], None] | None = None,
) -> Ended:
    """Work in a forked process whose file operation number `at` below the store meets a fault."""
    started = time.monotonic()
    with tempfile.NamedTemporaryFile("r+") as output, tempfile.NamedTemporaryFile("r+") as count:
        child = os.fork()
        if child == 0:
            os.chdir(folder)
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            shim = ctypes.CDLL(os.environ[SHIM])
            shim.fault_arm(str(store).encode(), ctypes.c_long(at), action, int(changes_only))
            code = 70
            try:
                code = work()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                seen = shim.fault_seen()
                shim.fault_arm(b"", ctypes.c_long(0), 0, 0)
                os.write(count.fileno(), str(seen).encode())
                os._exit(code)
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            if when_stopped is not None:
                when_stopped()
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        output.seek(0)
        count.seek(0)
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        seconds = time.monotonic() - started
        return Ended(code, output.read(), int(count.read() or 0), seconds)


@dataclass
class Tally:
    """The outcomes of a family of faults."""

    family: str
    outcomes: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    skipped: str = ""

    def add(self, outcome: str) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def fault(self, title: str, what: str) -> None:
        self.wrong.append(f"{title}: {what}")
        print(f"WRONG {self.family}, {title}: {what}", flush=True)

    @property
    def total(self) -> int:
        return sum(self.outcomes.values()) + len(self.wrong)


def table(tallies: list[Tally]) -> str:
    """The tallies as the Markdown table of docs/reliability.md."""
    lines = ["| fault | trials | outcomes | wrong |", "|---|--:|---|--:|"]
    for tally in tallies:
        outcomes = tally.skipped or ", ".join(f"{n} {o}" for o, n in tally.outcomes.items())
        lines.append(f"| {tally.family} | {tally.total} | {outcomes} | {len(tally.wrong)} |")
    return "\n".join(lines)


def spread(count: int, total: int, seed: int = 0) -> list[int]:
    """`count` different numbers from 1 to `total`, in order."""
    numbers = range(1, total + 1)
    return sorted(random.Random(seed).sample(numbers, min(count, total)))
