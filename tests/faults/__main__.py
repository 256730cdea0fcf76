"""Faults on purpose: kills, refused operations, power loss, damage. Prints the table of the docs.

python tests/faults [FAMILY …] [--quick]
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from families import FAMILIES  # noqa: E402
from trial import SHIM, Ended, Tally, World, compiled, table  # noqa: E402


def main() -> int:
    """Run every family of faults; returns 1 if an outcome was wrong."""
    quick = "--quick" in sys.argv
    chosen = [word for word in sys.argv[1:] if not word.startswith("-")]
    with tempfile.TemporaryDirectory() as folder:
        if SHIM not in os.environ:
            library = compiled(Path(folder))
            threads = {"OMP_NUM_THREADS": "1", "COLUMNS": "100"}
            environment = {**os.environ, **threads, SHIM: str(library), "LD_PRELOAD": str(library)}
            words = [sys.executable, *sys.orig_argv[1:]]
            return os.spawnve(os.P_WAIT, sys.executable, words, environment)
        warm()
        families = [f for f in FAMILIES if not chosen or f.__name__ in chosen]
        work = [(family, Path(folder) / family.__name__, quick) for family in families]
        with ProcessPoolExecutor(min(2, os.cpu_count() or 1), get_context("fork")) as pool:
            tallies = [tally for some in pool.map(tried, work) for tally in some]
    print(f"\n{table(tallies)}")
    return 1 if any(tally.wrong for tally in tallies) else 0


def tried(work: tuple[Callable[[World, Ended, bool], Iterator[Tally]], Path, bool]) -> list[Tally]:
    """The tallies of a family of faults, in a folder of its own."""
    family, folder, quick = work
    folder.mkdir()
    world = World(folder)
    undisturbed = world.run()
    _, world.golden = world.scores()
    if undisturbed.code != 0 or not world.golden:
        raise RuntimeError(
            f"the undisturbed run ended with {undisturbed.code}: {undisturbed.output}"
        )
    tallies = []
    for tally in family(world, undisturbed, quick):
        tallies.append(tally)
        print(table([tally]).splitlines()[-1], flush=True)
    return tallies


def warm() -> None:
    """Import what a run imports, so that each fork has it."""
    import _pytest.terminal  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import sae_lens  # noqa: F401
    import safetensors.torch  # noqa: F401
    import scipy.special  # noqa: F401
    import torch

    import saebench_canon.bench.measure
    import saebench_canon.cli.pytest_plugin
    import saebench_canon.cli.pytest_terminal
    import saebench_canon.reports.terminal
    import saebench_canon.trainers.training_loop  # noqa: F401
    from saebench_canon.plugin.registry import load_registry

    torch.set_num_threads(1)
    load_registry()


if __name__ == "__main__":
    sys.exit(main())
