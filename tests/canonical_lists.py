"""Are canonical latents true features? Their precision and recall where the truth is known.

    python tests/canonical_lists.py --store STORE     # resumable; a quarter of an hour
    python tests/canonical_lists.py --page            # from the file, at once

The settings are those of tests/calibration_full.py. Numbers go to docs/canonical.csv, and from
there into docs/calibration.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from calibration_full import SETTINGS, Row, Setting, suite_text
from calibration_page import PAGE, between, number
from clone import DOCS

RESULT = DOCS / "canonical.csv"
BEGIN, END = "<!-- of tests/canonical_lists.py -->\n", "<!-- end of tests/canonical_lists.py -->\n"
REPLICATES = 4
LEVELS = (0.7, 0.9)  # cosines from which a latent is a true feature
INSEPARABLE = ("dense", "product", "pairs", "hierarchy")  # worlds with parts seldom seen apart


def measure(name: str, setting: Setting, replicates: int, store: Path, workers: str) -> list[Row]:
    """Run one setting's suite, and hold its lists against the truth."""
    store.mkdir(parents=True, exist_ok=True)
    stem = name.replace(",", "").replace(" ", "-").lower()
    suite, lists = store / f"{stem}.toml", store / f"{stem}.csv"
    suite.write_text(suite_text(name, setting, replicates), encoding="utf-8")
    program = [sys.executable, "-m", "saebench_canon"]
    subprocess.run(
        [*program, "run", str(suite), "-q", "-n", workers, "--store", str(store)],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    show = [*program, "show", str(suite), "--store", str(store)]
    written = subprocess.run([*show, "--canonical", "--to", str(lists)], capture_output=True,
                             text=True, check=False)  # fmt: skip
    if written.returncode:
        return []  # no SAE is fit to be judged
    listed = pd.read_csv(lists)
    features, latents = truths(show, store)
    return list(_held(name, listed, features, latents))


def truths(show: list[str], store: Path) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """The tables of the metric `truth`, by SAE."""
    import json

    from calibration_full import truth_tables

    rows = json.loads(
        subprocess.run([*show, "--json", "--all"], capture_output=True, check=True).stdout
    )
    return truth_tables(rows, store)


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
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    generated = page(pd.read_csv(RESULT))
    PAGE.write_text(f"{head}{BEGIN}\n{generated}{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
