"""`show --canonical`: which latents of each SAE are canonical, and which test the others fail."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from saebench_canon.errors import CanonError, nearest, writing

if TYPE_CHECKING:
    import pandas as pd

    from saebench_canon.questions.canonical import Listed
    from saebench_canon.tables.summary import Block, Summary

FORMATS = (".csv", ".parquet", ".md")


def show_canonical(summary: Summary, options: Namespace) -> None:
    """Print how many latents of each SAE pass each test, or write the tests of each latent."""
    saes = [sae for block in summary.begun for sae in _listed(block)]
    if not saes:
        raise CanonError(
            "no SAEs were compared, so that no latent is known to be found again",
            hint="Add another seed or a wider SAE to the suite, and run it.",
        )
    if options.to:
        _write(_latents(saes), Path(options.to))
        return
    if options.json:
        print(_latents(saes).to_json(orient="records", indent=1))
        return
    print(tabulate([_counts(sae) for sae in saes], headers="keys", tablefmt="simple"))
    print(
        "\ncanonical: found by all other seeds of its size, or in a wider SAE; no sum of own "
        "latents,\nnor of those of half or more of the smaller or larger SAEs; no duplicate. "
        "Which latents: --to FILE.csv"
    )


def _listed(block: Block) -> Iterator[Listed]:
    """The lists of a block's SAEs; those that are not fit to be judged are named instead."""
    from saebench_canon.questions.canonical import list_of
    from saebench_canon.questions.judged import line_of
    from saebench_canon.questions.kinship import kin_of

    kin = kin_of(block)
    for size, names in ({} if kin is None else kin.sizes).items():
        for name in names:
            reasons = block.reasons("unfit", line_of(block, (size,), [name]))
            if reasons:
                print(f"note: left out: {reasons[0]}", file=sys.stderr)
            elif (sae := list_of(block, name)) is not None:
                yield sae


def _counts(sae: Listed) -> dict[str, str | int]:
    """How many latents of one SAE pass each test; – where it could not be run."""
    from saebench_canon.questions.canonical import MOST

    table, against = sae.table, sae.against
    distinct = table[table["twin_of"] < 0]

    def count(column: str, least: float, there: bool) -> str | int:
        return int((distinct[column] >= least).sum()) if there else "–"

    return {
        "SAE": str(table["sae"].iloc[0]) if len(table) else "",
        "latents": len(table),
        "duplicates": len(table) - len(distinct),
        "found by all seeds": count("found_in", len(against.others), bool(against.others)),
        "in a wider": count("above", 1, bool(against.larger)),
        "sums of smaller": count(
            "sum_of_smaller", MOST * len(against.smaller), bool(against.smaller)
        ),
        "of larger": count("sum_of_larger", MOST * len(against.larger), bool(against.larger)),
        "of own": count("sum_of_own", 1, sae.tests_own),
        "canonical": sae.count,
    }


def _latents(saes: list[Listed]) -> pd.DataFrame:
    """One row for each live latent of each SAE."""
    import pandas as pd

    return pd.concat([sae.table for sae in saes], ignore_index=True)


def _write(table: pd.DataFrame, path: Path) -> None:
    if not path.parent.is_dir():
        raise CanonError(f"the folder {path.parent} does not exist", where="--to")
    if path.suffix not in FORMATS:
        raise CanonError(f"the list of canonical latents cannot be written as '{path.suffix}'",
                         where=str(path), hint=nearest(path.suffix, FORMATS))  # fmt: skip
    with writing(path):
        if path.suffix == ".parquet":
            table.to_parquet(path, index=False)
        elif path.suffix == ".md":
            path.write_text(table.to_markdown(index=False) + "\n", encoding="utf-8")
        else:
            path.write_text(table.to_csv(index=False, lineterminator="\n"), encoding="utf-8")
    print(
        f"wrote {path}: {len(table):,} latents, {int(table['canonical'].sum()):,} of them canonical"
    )
