"""A store that the system refuses to read or write: one sentence, exit code 4, nothing lost."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty_disk import OPERATIONS, FaultyDisk, Site, refusing
from planted import write_acts, write_sae

from saebench_canon.bench.measure import Bench
from saebench_canon.bench.plan import make_plan
from saebench_canon.bench.store import Store
from saebench_canon.cli.main import main
from saebench_canon.plugin.registry import load_registry

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

NUMBERS = (errno.EIO, errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EMFILE, errno.EDQUOT,
           errno.ESTALE)  # fmt: skip
PLUGIN = """
import pandas as pd

from saebench_canon import Measurement, Score, hookimpl, metric


@metric(scores=[Score("count")], of="sae", version=1)
def quick(sae, memo, *, rows: int = 3):
    with open("computed", "a") as file:
        file.write("x")
    null = memo({"name": "quick"}, lambda: {"one": 1.0})
    table = pd.DataFrame({"latent": list(range(rows))})
    return Measurement({"count": sae.width * null["one"]}, {"latents": table})


@hookimpl
def canon_metrics():
    return [quick]
"""
SUITE = """
[data.planted]
file = "acts.safetensors"

[[sae]]
name = "s{seed}"
uri = "file:saes/s{seed}"
data = "planted"
axes = { width = [24], seed = [0, 1] }

[[metric]]
name = "quick"
"""
RUN = ("run", "s.toml", "--plugin", "p.py", "-p", "no:unraisableexception")
PLAN = ("plan", "s.toml", "--plugin", "p.py")
SHOW = ("show", "--plugin", "p.py")
ERRORS = ("show", "--errors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A suite of two SAEs and a metric that takes no time, in the working directory."""
    root = tmp_path_factory.mktemp("broken")
    write_acts(root / "acts.safetensors")
    for seed in (0, 1):
        write_sae(root / "saes" / f"s{seed}", 24, seed=seed)
    (root / "s.toml").write_text(SUITE)
    (root / "p.py").write_text(PLUGIN)
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield root
    torch.set_num_threads(threads)


@dataclass
class Outcome:
    """What the program answered, and how many cases it computed after the first refusal."""

    code: int
    printed: str
    computed: list[int] = field(default_factory=list)

    @property
    def sentences(self) -> list[str]:
        """The lines that say that the store cannot be used, without pytest's own summary."""
        said = "the store .canon cannot be"
        lines = [line for line in self.printed.splitlines() if said in line]
        return [line for line in lines if not line.startswith("FAILED")]


def count() -> int:
    return len(Path("computed").read_text()) if Path("computed").exists() else 0


@pytest.fixture
def call(folder: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the program on a disk."""

    def call_program(words: tuple[str, ...], disk: FaultyDisk) -> Outcome:
        capfd.readouterr()
        computed: list[int] = []
        disk.on_refusal = lambda: computed.append(count())
        with refusing(disk):
            code = main(words)
        printed = capfd.readouterr()
        return Outcome(code, printed.out + printed.err, [*computed[:1], count()])

    return call_program


def empty() -> None:
    shutil.rmtree(".canon", ignore_errors=True)
    Path("computed").unlink(missing_ok=True)


def drafts() -> list[str]:
    return [str(path) for path in Path(".canon").rglob(".*") if "pytest" not in str(path)]


def sites_of(call: Callable[..., Outcome], folder: Path, words: tuple[str, ...]) -> list[Site]:
    """Every operation of a call on every kind of file; filelock's trials are not ours."""
    disk = FaultyDisk(folder / ".canon")
    assert call(words, disk).code == 0
    return [site for site in disk.seen if "#" not in site.path and site.path != "claims"]


def healed() -> dict[str, Any]:
    """The scores of all cases once the disk is whole; what is stored already is taken."""
    registry, store = load_registry([Path("p.py")]), Store(Path(".canon"))
    store.prepare()
    bench = Bench(registry, store)
    cases = make_plan(Path("s.toml").resolve(), registry, store, file="s.toml").cases
    return {str(case): bench.measure(case, rerun=False).scores["count"]["value"] for case in cases}


def fault_of(outcome: Outcome, site: Site, number: int) -> str | None:
    """What is wrong with an answer to a refusal; None if nothing."""
    if "Traceback" in outcome.printed or "INTERNALERROR" in outcome.printed:
        return outcome.printed
    if outcome.code == 0:
        return None if not outcome.sentences else "a sentence, and exit code 0"
    if outcome.code != 4 or len(outcome.sentences) != 1:
        return f"exit code {outcome.code}, {outcome.sentences}"
    if os.strerror(number) not in outcome.sentences[0]:
        return outcome.sentences[0]
    if outcome.computed[-1] != outcome.computed[0]:
        return f"goes on computing: {outcome.computed}"
    if drafts() and site.operation not in ("unlink", "listdir"):
        return f"leaves {drafts()}"
    return None


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Site, int]]:
    """The operations and errors that the tests of this file have tried."""
    return []


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """The operations of a run on a whole disk, and its scores, once they are known."""
    return {}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_run_ends_in_one_sentence_at_any_refused_operation(
    folder: Path, call: Callable[..., Outcome], operation: str, pairs: list[tuple[Site, int]],
    whole: dict[str, Any],
) -> None:  # fmt: skip
    if not whole:
        empty()
        whole |= {"sites": sites_of(call, folder, RUN), "scores": healed()}
    numbers = cycle((errno.EIO, errno.ENOLCK) if operation == "lock" else NUMBERS)
    faults: dict[tuple[Site, str], str] = {}
    sites = [site for site in whole["sites"] if site.operation == operation]
    for site, number in zip(sites, numbers, strict=False):
        empty()
        outcome = call(RUN, FaultyDisk(folder / ".canon", site, number))
        fault = fault_of(outcome, site, number)
        if fault is None and healed() != whole["scores"]:
            fault = "does not heal"
        if fault is None and drafts() and operation != "unlink":  # this process lives: not swept
            fault = f"does not sweep {drafts()}"
        if fault is not None:
            faults[site, errno.errorcode[number]] = fault
        pairs.append((site, number))
    assert sites or operation == "listdir"  # a new store has folders to list only when it is swept
    assert not faults


@pytest.mark.parametrize("words", [PLAN, SHOW, ERRORS], ids=lambda words: "-".join(words[:2]))
def test_what_only_reads_ends_in_one_sentence_at_any_refused_operation(
    folder: Path, call: Callable[..., Outcome], words: tuple[str, ...],
    pairs: list[tuple[Site, int]],
) -> None:  # fmt: skip
    empty()
    assert call(RUN, FaultyDisk(folder / "nowhere")).code == 0
    faults: dict[tuple[Site, str], str] = {}
    for site in sites_of(call, folder, words):
        for number in NUMBERS:
            outcome = call(words, FaultyDisk(folder / ".canon", site, number))
            fault = fault_of(outcome, site, number)
            if fault is None and outcome.code == 0:
                fault = "shows what it could not read"
            if fault is not None:
                faults[site, errno.errorcode[number]] = fault
            pairs.append((site, number))
    assert not faults


def test_many_operations_and_errors_were_tried(pairs: list[tuple[Site, int]]) -> None:
    if not pairs:
        pytest.skip("counts what the other tests of this file tried")
    assert len(set(pairs)) >= 100
    assert {number for _, number in pairs} >= set(NUMBERS)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_store_without_locks_is_refused_before_anything_runs(
    folder: Path, call: Callable[..., Outcome], number: int
) -> None:
    empty()
    outcome = call(RUN, FaultyDisk(folder / ".canon", Site("lock", "DRAFT"), number))
    assert outcome.code == 4
    (sentence,) = outcome.sentences
    assert "its file system has no locks" in sentence
    assert "Name a --store on a disk whose file system has locks." in sentence
    assert not count()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ESTALE, errno.EIO])
@pytest.mark.parametrize("operation", ["open", "read"])
def test_an_artefact_that_cannot_be_read_now_is_not_deleted(
    folder: Path, call: Callable[..., Outcome], operation: str, number: int
) -> None:
    empty()
    assert call(RUN, FaultyDisk(folder / "nowhere")).code == 0
    (artefact,) = Path(".canon/artefacts").iterdir()
    before = (artefact / "memo.json").stat().st_mtime_ns
    shutil.rmtree(".canon/records")
    site = Site(operation, "artefacts/ID/memo.json")
    assert call(RUN, FaultyDisk(folder / ".canon", site, number)).code == 4
    assert (artefact / "memo.json").stat().st_mtime_ns == before
    assert len(healed()) == 2
    assert (artefact / "memo.json").stat().st_mtime_ns == before
