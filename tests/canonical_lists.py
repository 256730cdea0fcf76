"""Are canonical latents true features? Their precision and recall where the truth is known.

    python tests/canonical_lists.py --store STORE     # resumable; a quarter of an hour
    python tests/canonical_lists.py --page            # from the file, at once

The settings are those of tests/calibration_full.py. Numbers go to docs/canonical.csv, and from
there into docs/calibration.md.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from calibration_full import (
    SETTINGS,
    Row,
    Setting,
    as_json,
    show_after_run,
    truth_tables,
)
from calibration_page import PAGE, between, number
from clone import DOCS
from generated_part import put

RESULT = DOCS / "canonical.csv"
BEGIN, END = "<!-- of tests/canonical_lists.py -->\n", "<!-- end of tests/canonical_lists.py -->\n"
REPLICATES = 4
LEVELS = (0.7, 0.9)  # cosines from which a latent is a true feature
INSEPARABLE = ("dense", "product", "pairs", "hierarchy")  # worlds with parts seldom seen apart


def measure(name: str, setting: Setting, replicates: int, store: Path, workers: str) -> list[Row]:
    """Run one setting's suite, and hold its lists against the truth."""
    show = show_after_run(name, setting, replicates, store, workers)
    lists = store / "canonical.csv"
    written = subprocess.run([*show, "--canonical", "--to", str(lists)], capture_output=True,
                             check=False)  # fmt: skip
    if written.returncode:
        return []  # no SAE is fit to be judged
    features, latents = truth_tables(as_json(show, "--all"), store)
    return list(_held(name, pd.read_csv(lists), features, latents))


def _held(
    name: str,
    listed: pd.DataFrame,
    features: dict[str, pd.DataFrame],
    latents: dict[str, pd.DataFrame],
) -> Iterator[Row]:
    """Precision and recall of each SAE's canonical latents, and of all its live ones."""
    for sae, table in listed.groupby("sae"):
        joined = table.merge(latents[str(sae)][["latent", "feature", "cosine"]], on="latent")
        row: Row = {
            "setting": name, "sae": sae, "width": str(sae).split("-w")[1].split("-")[0],
            "latents": len(table), "canonical": int(table["canonical"].sum()),
            "features": len(features[str(sae)]),
        }  # fmt: skip
        for which, chosen in (("all", joined), ("canonical", joined[joined["canonical"]])):
            for level in LEVELS:
                true = chosen[chosen["cosine"] >= level]
                end = f"{which}_{round(100 * level)}"
                row[f"precision_{end}"] = between(len(true), len(chosen))
                row[f"recall_{end}"] = true["feature"].nunique() / row["features"]
        yield row


def page(table: pd.DataFrame) -> str:
    """The part of the page that is made of the file."""
    lines = [
        "| setting | width | canonical | precision .7 | recall .7 | precision .9 | recall .9 |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for (setting, width), of in table.groupby(["setting", "width"], sort=False):
        cells = [
            f"{number(of[f'{kind}_all_{level}'].mean())} → "
            f"{number(of[f'{kind}_canonical_{level}'].mean())}"
            for level in (70, 90)
            for kind in ("precision", "recall")
        ]
        counts = f"{of['canonical'].mean():.0f} of {of['latents'].mean():.0f}"
        lines.append(f"| {setting} | {width} | {counts} | {' | '.join(cells)} |")
    apart = table[~table["setting"].isin(INSEPARABLE)]
    totals = [
        f"where parts are seen apart {number(apart['precision_canonical_70'].mean())} (recall "
        f"{number(apart['recall_canonical_70'].mean())})"
    ]
    together = table[table["setting"].isin(INSEPARABLE)]
    if len(together):
        totals.append(
            f"in the others ({', '.join(INSEPARABLE)}) "
            f"{number(together['precision_canonical_70'].mean())} (recall "
            f"{number(together['recall_canonical_70'].mean())})"
        )
    mean = f"Mean precision of canonical latents at a cosine of .7 or more: {'; '.join(totals)}."
    return "\n".join([*lines, "", mean, ""])


def main() -> None:
    """Measure what is missing, and write the file and the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path)
    parser.add_argument("--page", action="store_true", help="only the page, from the file")
    parser.add_argument("--replicates", type=int, default=REPLICATES)
    parser.add_argument("--workers", default="2")
    asked = parser.parse_args()
    if not asked.page:
        if asked.store is None:
            parser.error("--store says where measured cases are kept")
        rows: list[Row] = []
        for name, setting in SETTINGS.items():
            rows += measure(name, setting, asked.replicates, asked.store.resolve(), asked.workers)
            pd.DataFrame(rows).to_csv(RESULT, index=False, float_format="%.4f")
            print(f"{name}: {len(rows)} SAEs in all", flush=True)
    put(PAGE, BEGIN, END, page(pd.read_csv(RESULT)))


if __name__ == "__main__":
    main()
