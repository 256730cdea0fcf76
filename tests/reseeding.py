"""Do the words of answers repeat when quickstart's SAEs are trained with other seeds?

    python tests/reseeding.py --store STORE     # resumable; about an hour on two idle cores
    python tests/reseeding.py --page            # from the file, at once

Each repetition trains all sizes and architectures with three seeds of its own. The answers go to
docs/reseeding.csv, and from there into docs/statistics.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from clone import DOCS
from generated_part import put

from saebench_canon.suite.load import packaged_suites

RESULT, PAGE = DOCS / "reseeding.csv", DOCS / "statistics.md"
BEGIN, END = "<!-- of tests/reseeding.py -->\n", "<!-- end of tests/reseeding.py -->\n"
REPETITIONS, SEEDS = 10, 3
METRICS = ("fidelity", "meta_sae", "seed_matching")  # and what the questions plan by themselves
NEAR = "near its margin"


def suite_text(repetitions: int) -> str:
    """Quickstart's data and training, with other seeds in each repetition."""
    suite = tomllib.loads(packaged_suites()["quickstart"].read_text(encoding="utf-8"))
    (data,), (sae,) = suite["data"].values(), suite["sae"]
    tables = ['[suite]\nname = "reseeding"\nversion = 1\n']
    tables += [f"[data.r{repetition}]\n{_keys(data)}" for repetition in range(repetitions)]
    for repetition in range(repetitions):
        first = SEEDS * (repetition + 1)  # quickstart itself has 0, 1 and 2
        axes = {
            **sae["axes"],
            "repetition": [f"r{repetition}"],
            "seed": list(range(first, first + SEEDS)),
        }
        tables.append(
            '[[sae]]\nname = "{repetition}-{arch}-w{width}-s{seed}"\ndata = "{repetition}"\n'
            f"axes = {_inline(axes)}\ntrain = {_inline(sae['train'])}\n"
        )
    tables += [f'[[metric]]\nname = "{metric}"\n' for metric in METRICS]
    tables.append('[[metric]]\nname = "comparison"\nover = "family"\n')
    return "\n".join(tables)


def _keys(table: dict[str, Any]) -> str:
    return "".join(f"{key} = {_inline(value)}\n" for key, value in table.items())


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_inline(inner)}' for key, inner in value.items())} }}"
    return json.dumps(value)


def measure(repetitions: int, store: Path, workers: str) -> pd.DataFrame:
    """Run the suite, and read its answers."""
    store.mkdir(parents=True, exist_ok=True)
    suite = store / "reseeding.toml"
    suite.write_text(suite_text(repetitions), encoding="utf-8")
    program = [sys.executable, "-m", "saebench_canon"]
    subprocess.run(
        [*program, "run", str(suite), "-q", "-n", workers, "--store", str(store)], check=True
    )
    show = [*program, "show", str(suite), "--json", "--answers", "--store", str(store)]
    answers = json.loads(subprocess.run(show, capture_output=True, check=True).stdout)
    return pd.DataFrame(
        {
            "arch": answer["axes"]["arch"],
            "repetition": answer["axes"]["repetition"],
            "question": answer["question"],
            "smaller": answer["smaller"],
            "size": answer["size"],
            "answer": answer["answer"],
            "near": NEAR in answer["sentence"],
        }
        for answer in answers
        if answer["question"] != "canonical?"
    )


def lines(table: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    """Each line of the grid: its words by how often, and how many say that they are near."""
    for (question, arch, size), of in table.groupby(["question", "arch", "size"], sort=False):
        words = of["answer"].value_counts()
        told = ", ".join(f"{word} {count}" for word, count in words.items())
        yield question, arch, str(size), told, str(int(of["near"].sum()) or "–")


def agreement(table: pd.DataFrame) -> tuple[int, int]:
    """How many words are their line's most frequent one, of those that are not near a margin."""
    sure = table[~table["near"]]
    groups = sure.groupby(["question", "arch", "size"])["answer"]
    return int(groups.agg(lambda words: words.value_counts().iloc[0]).sum()), len(sure)


def page(table: pd.DataFrame) -> str:
    """The part of the page that is made of the file."""
    same, count = agreement(table)
    head = ("| question | architecture | size | words | near its margin |", "|---|---|--:|---|--:|")
    rows = [f"| {' | '.join(line)} |" for line in lines(table)]
    repetitions = table["repetition"].nunique()
    intro = (
        f"{repetitions} repetitions; {same} of {count} words ({100 * same / count:.0f} %) are the "
        "most frequent one of their line, those near their margin left out."
    )
    return "\n".join([intro, "", *head, *rows, ""])


def main() -> None:
    """Measure what is missing, and write the file and the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path)
    parser.add_argument("--page", action="store_true", help="only the page, from the file")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--workers", default="2")
    asked = parser.parse_args()
    if not asked.page:
        if asked.store is None:
            parser.error("--store says where measured cases are kept")
        table = measure(asked.repetitions, asked.store.resolve(), asked.workers)
        table.to_csv(RESULT, index=False)
    put(PAGE, BEGIN, END, page(pd.read_csv(RESULT)))


if __name__ == "__main__":
    main()
