"""How far scores depend on how they are computed. Prints the table of SECURITY.md.

python tests/faults/invariance.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

SUITE = """
[suite]
name = "invariance"

[data.text]
model = "packaged:tiny-lm"
hook = "blocks.2.hook_resid_post"
text = "packaged:python-docs"
tokens = 20_000
holdout = 0.3
loss_tokens = 2_048

[[sae]]
name = "{arch}-w{width}-s{seed}"
data = "text"
train = { tokens = 40_000, batch_size = 500, k = 8, lr = 1e-3 }
axes = { arch = ["relu", "topk", "batchtopk"], width = [64, 128], seed = [0, 1] }

[[metric]]
name = "fidelity"

[[metric]]
name = "stitching"

[[metric]]
name = "composition"

[[metric]]
name = "seed_matching"

[[metric]]
name = "meta_sae"
settings = { steps = 200, meta_seeds = 2 }
"""
REVERSED = "reversed.toml"
Scores = dict[str, float]
RUNS: dict[str, tuple[str, ...]] = {
    "run again": (),
    "2 workers": ("-n", "2"),
    "2 threads": ("--threads", "2"),
    "batches of 700 tokens": ("--batch-size", "700"),
    "cases in reverse order": (REVERSED,),
    "float64": ("--dtype", "float64"),
    "bfloat16": ("--dtype", "bfloat16"),
}


def program(*words: str, folder: Path) -> str:
    """What the program prints; raises for an exit code above 1."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-m", "saebench_canon", *words]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode > 1:
        raise RuntimeError(f"{words} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def measured(name: str, options: tuple[str, ...], folder: Path) -> Scores:
    """The scores of a run with these options, in a store of its own."""
    store = ("--store", f"store {name}")
    suite = REVERSED if REVERSED in options else "suite.toml"
    options = tuple(option for option in options if option != REVERSED)
    program("run", suite, *options, *store, folder=folder)
    rows = json.loads(program("show", "--json", *store, folder=folder))
    return {
        f"{row['label']} {row['subject']} {row['score']}": row["value"]
        for row in rows
        if row["status"] == "measured"
    }


def line(name: str, scores: Scores, base: Scores) -> str:
    """How many scores are the same, and differences relative to a score's size, or .01."""
    shared = sorted(base.keys() & scores.keys())
    same = sum(scores[key] == base[key] for key in shared)
    apart = {key: abs(scores[key] - base[key]) / max(abs(base[key]), 0.01) for key in shared}
    worst = max(apart, key=lambda key: apart[key])
    missing = f", {len(base) - len(shared)} not measured" if len(shared) < len(base) else ""
    most = f"{sorted(apart.values())[int(0.95 * len(apart))]:.1g}"
    largest = f"{apart[worst]:.1g}" + (f" ({worst.split()[-1]})" if apart[worst] else "")
    return f"| {name} | {same} of {len(base)}{missing} | {most} | {largest} |"


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "suite.toml").write_text(SUITE)
        head, *metrics = SUITE.split("[[metric]]")
        order = (head, *reversed([f"{text.rstrip()}\n\n" for text in metrics]))
        turned = "[[metric]]".join(order).replace("[64, 128]", "[128, 64]")
        (folder / REVERSED).write_text(turned.replace("seed = [0, 1]", "seed = [1, 0]"))
        base = measured("base", (), folder)
        print("| changed | scores that are equal bit for bit | 95 % differ less than | largest |")
        print("|---|--:|--:|--:|")
        for title, options in RUNS.items():
            if not sys.argv[1:] or title in sys.argv[1:]:
                print(line(title, measured(title, options, folder), base), flush=True)


if __name__ == "__main__":
    main()
