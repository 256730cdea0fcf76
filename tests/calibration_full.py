"""Error rates of answers: many SAEs trained on worlds whose truth is known.

    python tests/calibration_full.py --store STORE            # resumable; says what it costs
    python tests/calibration_full.py --page                   # from the file, at once

A setting is a world, an architecture, two widths and several seeds. Each of its replicates draws
the world anew. Answers and the truth beside them go to docs/calibration-full.csv, and from there
into docs/calibration.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from calibration_page import FOUND, NEAR, between, number
from clone import DOCS
from generated_part import put
from scipy.stats import beta

RESULT = DOCS / "calibration-full.csv"
BEGIN, END = "<!-- of tox -e calibration-full -->\n", "<!-- end of calibration-full -->\n"
REPLICATES = 40
TOPK = {"arch": "topk", "k": 3, "lr": 3e-3}
BATCHTOPK = {**TOPK, "arch": "batchtopk"}
RELU = {"arch": "relu", "l1": 1.0, "lr": 3e-3}
Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """A world and the SAEs that are trained on it."""

    world: Mapping[str, Any]
    train: Mapping[str, Any] = field(default_factory=lambda: TOPK)
    widths: tuple[int, int] = (64, 96)
    seeds: int = 3
    tokens: int = 400_000
    drawn: bool = True  # the world has a seed; else replicates differ in their trainings alone

    def seeds_of(self, replicate: int) -> range:
        """The training seeds of one replicate."""
        return range(replicate * self.seeds, (replicate + 1) * self.seeds)


def world(name: str, features: int = 48, **settings: Any) -> Mapping[str, Any]:
    """A data table of 64 dimensions and three features a token, if nothing else is said."""
    others = {"d": 64, "l0": 3.0, "zipf": 0.5, "tokens": 8192}
    return {"synthetic": name, "features": features, **others, **settings}


def text_window() -> Mapping[str, Any]:
    """Token embeddings of the packaged model over its packaged text."""
    return {"synthetic": "text-window", "tokens": 8192}


def spoiled(fault: str, share: float) -> Mapping[str, Any]:
    """TopK SAEs with one fault, in so many of their latents."""
    return {**TOPK, "arch": "spoiled", "fault": fault, "share": share}


SETTINGS = {
    "ReLU": Setting(world("independent"), RELU),
    "ReLU, 5 seeds": Setting(world("independent"), RELU, seeds=5),
    "ReLU, high L0": Setting(world("independent"), {**RELU, "l1": 0.4}),
    "ReLU, half too narrow": Setting(world("independent", 96), RELU, widths=(48, 128)),
    "ReLU, d 256": Setting(world("independent", 64, d=256), RELU, widths=(64, 128), tokens=200_000),
    "BatchTopK": Setting(world("independent"), BATCHTOPK, widths=(56, 80)),
    "BatchTopK, 5 seeds": Setting(world("independent"), BATCHTOPK, widths=(56, 80), seeds=5),
    "TopK": Setting(world("independent", 56), TOPK),
    "dense": Setting(world("dense", dense=4), RELU),
    "product": Setting(
        {"synthetic": "product", "values": 24, "d": 64, "noise": 0.1, "tokens": 8192}, BATCHTOPK
    ),
    "pairs": Setting(world("pairs"), RELU),
    "hierarchy": Setting(world("hierarchy"), BATCHTOPK, widths=(56, 80)),
    "common direction": Setting(world("common-direction"), RELU),
    "duplicates": Setting(world("independent"), spoiled("duplicated", 0.15)),
    "merged": Setting(world("independent"), spoiled("merged", 0.25)),
    "twins": Setting(world("independent"), spoiled("twin", 0.25)),
    "text window": Setting(text_window(), TOPK, widths=(64, 128), drawn=False),
}


def suite_text(name: str, setting: Setting, replicates: int) -> str:
    """The suite of one setting: a world for each replicate."""
    tables = [f"[suite]\nname = {json.dumps(_stem(name))}\nversion = 1\n"]
    for replicate in range(replicates):
        keys = {**setting.world, **({"seed": replicate} if setting.drawn else {})}
        lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        tables.append("\n".join([f"[data.r{replicate}]", *lines, ""]))
    train = {**setting.train, "tokens": setting.tokens}
    train_keys = ", ".join(f"{key} = {json.dumps(value)}" for key, value in train.items())
    for replicate in range(replicates):
        axes = {
            "replicate": [f"r{replicate}"],
            "width": list(setting.widths),
            "seed": list(setting.seeds_of(replicate)),
        }
        axes_keys = ", ".join(f"{key} = {json.dumps(value)}" for key, value in axes.items())
        tables.append(
            '[[sae]]\nname = "{replicate}-w{width}-s{seed}"\ndata = "{replicate}"\n'
            f"train = {{ {train_keys} }}\naxes = {{ {axes_keys} }}\n"
        )
    return "\n".join([*tables, METRICS])


METRICS = """
[[metric]]
name = "truth"
settings.draws = 1

[[metric]]
name = "fidelity"

[[metric]]
name = "comparison"
over = "family"
"""


def _stem(name: str) -> str:
    return name.replace(",", "").replace(" ", "-").lower()


def show_after_run(
    name: str, setting: Setting, replicates: int, store: Path, workers: str
) -> list[str]:
    """Run one setting's suite; returns the command that shows it."""
    store.mkdir(parents=True, exist_ok=True)
    suite = store / f"{_stem(name)}.toml"
    suite.write_text(suite_text(name, setting, replicates), encoding="utf-8")
    program = [sys.executable, "-m", "saebench_canon"]
    subprocess.run(
        [*program, "run", str(suite), "-q", "-n", workers, "--store", str(store)],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return [*program, "show", str(suite), "--store", str(store)]


def as_json(show: Sequence[str], *words: str) -> list[Row]:
    """What a `show` prints as JSON."""
    done = subprocess.run([*show, "--json", *words], capture_output=True, check=True)
    rows: list[Row] = json.loads(done.stdout)
    return rows


def measure(name: str, setting: Setting, replicates: int, store: Path, workers: str) -> list[Row]:
    """Run one setting's suite, and put the truth beside each answer."""
    show = show_after_run(name, setting, replicates, store, workers)
    answers = as_json(show, "--answers")
    features, latents = truth_tables(as_json(show, "--all"), store)
    found = []
    for answer in answers:
        replicate, size, smaller = answer["axes"]["replicate"], answer["size"], answer["smaller"]
        seeds = setting.seeds_of(int(replicate[1:]))
        larger = [f"{replicate}-w{size}-s{seed}" for seed in seeds]
        below = [f"{replicate}-w{setting.widths[0]}-s{seed}" for seed in seeds]
        wide = [f"{replicate}-w{setting.widths[1]}-s{seed}" for seed in seeds]
        smallest = size == setting.widths[0]
        truth = true_value(answer["question"], [] if smallest else below, larger, features, latents)
        if "merged_share" in answer["numbers"]:
            of_wide = true_value(answer["question"], wide, larger, features, latents)
            merged = answer["numbers"]["merged_share"]
            truth |= {
                "merged": merged["value"], "merged_lo": merged["lo"], "merged_hi": merged["hi"],
                "chance": merged["null"], "merged_truth": of_wide["seen"],
            }  # fmt: skip
        found.append(
            {
                "setting": name,
                "replicate": int(replicate[1:]),
                "question": answer["question"],
                "smaller": smaller,
                "size": size,
                "answer": answer["answer"],
                **truth,
            }
        )
    return found


def truth_tables(
    rows: Sequence[Row], store: Path
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """The tables of the metric `truth`, by SAE."""
    features, latents = {}, {}
    for row in rows:
        if row["metric"] == "truth" and row["score"] == "recovery":
            (name,) = row["subject"]
            folder = store / "tables" / row["id"]
            features[name] = pd.read_parquet(folder / "features.parquet")
            latents[name] = pd.read_parquet(folder / "latents.parquet")
    return features, latents


def true_value(
    question: str,
    smaller: Sequence[str],
    larger: Sequence[str],
    features: Mapping[str, pd.DataFrame],
    latents: Mapping[str, pd.DataFrame],
) -> Row:
    """What is true: `truth`, and for atomic? `seen`, the sums whose parts the smaller SAEs find."""

    def cosines(names: Sequence[str]) -> np.ndarray:
        return np.array([features[name]["cosine_centred"] for name in names])

    if question == "complete?" and smaller:
        found = (cosines(larger) >= FOUND).mean(axis=0)
        lacks = (cosines(smaller) < NEAR).mean(axis=0)
        return {"truth": between(found @ lacks, found.sum())}
    if question == "atomic?":
        near = cosines(smaller).max(axis=0) >= FOUND if smaller else None
        sums, seen, count = 0, 0, 0
        for name in larger:
            number_of = {feature: at for at, feature in enumerate(features[name]["feature"])}
            for parts in latents[name]["sum_of"]:
                count += 1
                sums += len(parts) > 0
                if near is not None and len(parts):
                    seen += all(near[number_of[part]] for part in parts)
        return {"truth": between(sums, count), "seen": between(seen, count)}
    if question == "unique?":
        found = cosines(larger) >= FOUND
        return {"truth": between(found.all(axis=0).sum(), found.any(axis=0).sum())}
    return {}


MARGINS = {"complete?": 0.05, "atomic?": 0.10}


def upper(count: int, of: int) -> float:
    """The upper end of Clopper and Pearson's 95 % interval."""
    return 1.0 if count == of else float(beta.ppf(0.975, count + 1, of - count))


def share(count: int, of: int) -> str:
    """How many of how many."""
    return f"{count} of {of}" if of else "–"


def rates(table: pd.DataFrame) -> str:
    """For complete? and atomic?: wrong and right words where the truth is none, and where it is no.

    A truth of at most half the margin is "none", above the margin it is "no"; between them an
    answer is neither right nor wrong.
    """
    parts = []
    for question, margin in MARGINS.items():
        asked = table[table.question == question]
        if question == "complete?":
            asked = asked[asked.smaller.notna()]
        else:
            asked = asked.sort_values("size").groupby(["setting", "replicate"]).tail(1)
            asked = asked.sort_index()
        lines = [
            "| setting | the truth | none: said no | none: none found | above: said no "
            "| above: none found | undecided | not judged |",
            "|---|--:|--:|--:|--:|--:|--:|--:|",
        ]
        total = dict.fromkeys(("false no", "none", "false none", "above", "hits"), 0)
        for setting, of in asked.groupby("setting", sort=False):
            none, above = of[of.truth <= margin / 2], of[of.truth > margin]
            seen = of[of.seen > margin] if question == "atomic?" else above
            said = {
                "false no": int((none.answer == "no").sum()), "none": len(none),
                "hits": int((above.answer == "no").sum()), "above": len(seen),
                "false none": int((seen.answer == "none-found").sum()),
            }  # fmt: skip
            total = {key: total[key] + said[key] for key in total}
            open_ = int((of.answer == "undecided").sum())
            silent = int(of.answer.isin(["not-judged", "not-measurable"]).sum())
            lines.append(
                f"| {setting} | {number(of.truth.mean())} | {share(said['false no'], len(none))} "
                f"| {share(int((none.answer == 'none-found').sum()), len(none))} "
                f"| {share(said['hits'], len(above))} | {share(said['false none'], len(seen))} "
                f"| {open_} | {silent} |"
            )
        bound = number(upper(total["false no"], total["none"])) if total["none"] else "–"
        missed = number(upper(total["false none"], total["above"])) if total["above"] else "–"
        lines += [
            "",
            f'False "no": {share(total["false no"], total["none"])} (at most {bound}). '
            f'False "none found": {share(total["false none"], total["above"])} '
            f"(at most {missed}).",
        ]
        parts.append("\n".join([f"### {question}", "", *lines]))
    return "\n\n".join(parts)


MERGING = (
    "What atomic? tells of a size's own latents as sums of the next larger SAE's, beside the share "
    "that are sums of features each of which a larger SAE has (cosine ≥ .9); means over replicates."
)


def merging(table: pd.DataFrame) -> str:
    """What atomic? tells of merging, beside the share of latents that are such sums."""
    told = table[(table.question == "atomic?") & table.merged.notna()]
    lines = [
        "| setting | size | told | chance | the truth | mean difference |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for (setting, size), of in told.groupby(["setting", "size"], sort=False):
        off = (of.merged - of.merged_truth).abs().mean()
        cells = (of.merged.mean(), of.chance.mean(), of.merged_truth.mean(), off)
        lines.append(f"| {setting} | {size} | {' | '.join(number(cell) for cell in cells)} |")
    return "\n".join(lines)


def same_words(table: pd.DataFrame) -> str:
    """How many replicates of a setting get the word that most get."""
    lines = ["| setting | question | size | words |", "|---|---|--:|---|"]
    for (setting, question, size), of in table.groupby(["setting", "question", "size"], sort=False):
        counts = of.answer.value_counts()
        words = ", ".join(f"{word} {count}" for word, count in counts.items())
        lines.append(f"| {setting} | {question} | {size} | {words} |")
    return "\n".join(lines)


def page(table: pd.DataFrame) -> str:
    """The part of the page that is made of the file."""
    count = table.groupby("setting").replicate.nunique()
    intro = (
        f"{len(count)} settings, {count.max()} replicates each, from `docs/calibration-full.csv`."
    )
    parts = [intro, rates(table), "### Merging", MERGING, merging(table)]
    return "\n\n".join([*parts, "### Words by replicate", same_words(table), ""])


def main() -> None:
    """Measure what is missing, and write the file and the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path)
    parser.add_argument("--page", action="store_true", help="only the page, from the file")
    parser.add_argument("--replicates", type=int, default=REPLICATES)
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--workers", default="2")
    parser.add_argument("--result", type=Path, default=RESULT)
    asked = parser.parse_args()
    if not asked.page:
        if asked.store is None:
            parser.error("--store says where measured cases are kept")
        done = pd.read_csv(asked.result) if asked.result.exists() else pd.DataFrame()
        for name in asked.settings:
            rows = measure(
                name, SETTINGS[name], asked.replicates, asked.store.resolve(), asked.workers
            )
            others = done[done.setting != name] if len(done) else done
            done = pd.concat([others, pd.DataFrame(rows)], ignore_index=True)
            order = {setting: at for at, setting in enumerate(SETTINGS)}
            done = done.sort_values(
                ["setting", "replicate", "question", "size"],
                key=lambda column: column.map(order) if column.name == "setting" else column,
            )
            done.to_csv(asked.result, index=False, float_format="%.4f")
            print(f"{name}: {len(rows)} answers", flush=True)
    from calibration_page import PAGE

    put(PAGE, BEGIN, END, page(pd.read_csv(asked.result)))


if __name__ == "__main__":
    main()
