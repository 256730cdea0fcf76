"""Figures of paths: what is on them, and that equal runs give equal files."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from program import call

from saebench_canon.bench.measure import Bench
from saebench_canon.bench.plan import make_plan
from saebench_canon.bench.results import keep_run
from saebench_canon.bench.store import Store
from saebench_canon.cli.main import main
from saebench_canon.plugin.metric import Metric
from saebench_canon.plugin.registry import load_registry
from saebench_canon.plugin.row import Row
from saebench_canon.reports.curves import Panel, extremes, joints, middle, panel
from saebench_canon.reports.figure_files import FIGURES
from saebench_canon.reports.ladders import find_ladders, titles

Made = tuple[list[Row], dict[str, pd.DataFrame]]
ARCHS, WIDTHS, SEEDS = ("relu", "topk", "batchtopk"), (64, 128, 256, 512), (0, 1, 2)
FOLLOWED = Metric(
    "walk", "pair", 1, (), dict, (), frozenset(), {}, "A plugin's metric.", roles=("path",)
)
SVG = "{http://www.w3.org/2000/svg}"


def points(small: float, large: float, *, novel: int, orders: int = 3) -> pd.DataFrame:
    """A path of `novel` latents that come, three swaps of two latents each, and orphans."""
    steps = [("start", 0), *[("novel", 1)] * novel, *[("swap", 2)] * 3, ("orphans", 0)]
    named = [("random", number) for number in range(orders)] + [("max_cos", 0)]
    frames = []
    for bend, (order, number) in enumerate(named):
        way = np.linspace(0, 1, len(steps)) ** (1 + bend / 4)
        frames.append(pd.DataFrame({
            "seed": number, "order": order, "phase": [phase for phase, _ in steps],
            "step": range(len(steps)), "latents_in": [list(range(count)) for _, count in steps],
            "latents_out": [[] for _ in steps], "mse": small + (large - small) * way,
            "l0": 8 + 4 * np.sin(np.pi * way),
        }))  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def made_up(
    archs: Sequence[str] = ARCHS, widths: Sequence[int] = WIDTHS, seeds: Sequence[int] = SEEDS
) -> Made:
    """Rows and paths of ladders whose MSE halves at each step, and of their floors."""
    rows, paths = [], {}

    def add(label: str, over: str, arch: str, pair: Sequence[tuple[int, int]]) -> str:
        members = tuple({"arch": arch, "width": width, "seed": seed} for width, seed in pair)
        names = tuple(f"{arch}-w{width}-s{seed}" for width, seed in pair)
        case = "+".join(names)
        rows.append(Row(label=label, metric=FOLLOWED.name, score="novel_gain", subject=names,
                        status="measured", suite="made-up", seed=0, id=case, of="pair",
                        over=over, members=members))  # fmt: skip
        return case

    for arch in archs:
        for seed in seeds:
            for step, (small, large) in enumerate(pairwise(widths)):
                case = add("stitching", "pairs:width", arch, [(small, seed), (large, seed)])
                mse = (1 + seed / 10) / 2**step
                paths[case] = points(mse, mse / 2, novel=10 + seed)
        for width in widths:
            for first, second in combinations(seeds, 2):
                case = add("floor", "all-pairs:seed", arch, [(width, first), (width, second)])
                paths[case] = points(1.0, 1.0, novel=5)
    return rows, paths


def drawn(made: Made) -> list[Panel]:
    """The panels of a made-up run."""
    rows, paths = made
    panels = (
        panel(ladder_panel)
        for ladder_panel in find_ladders(rows, [FOLLOWED], lambda case, name: paths.get(case))
    )
    return [ladder_panel for ladder_panel in panels if ladder_panel is not None]


def write(made: Made, path: Path) -> Path:
    """Write the figure of a made-up run."""
    rows, paths = made
    report = next(candidate for candidate in FIGURES if candidate.suffix == path.suffix)
    report.write(rows, [FOLLOWED], path, tables=lambda case, name: paths.get(case))
    return path


def words(path: Path) -> str:
    """All text of an SVG file, a line each."""
    every = ElementTree.parse(path).iter(f"{SVG}text")
    return "\n".join("".join(element.itertext()).strip() for element in every)


def test_a_ladder_is_one_curve_from_the_smallest_sae_to_the_largest() -> None:
    first = drawn(made_up())[0]
    assert first.sizes == WIDTHS
    assert first.x[0] == 0
    assert first.x[-1] == 3
    assert (np.diff(first.x) >= 0).all()
    mse_at = {position: mse for position, mse, _ in joints(first)}
    assert mse_at == pytest.approx({0: 1.0, 1: 0.5, 2: 0.25, 3: 0.125})  # of each seed's smallest
    assert first.smallest == pytest.approx(1.1)
    lines = first.orders["random"].mse
    assert lines.shape == (9, len(first.x))
    assert not np.isnan(lines).any()


def test_x_is_the_share_of_latents_inserted_and_phases_are_as_long_as_in_the_mean() -> None:
    first = drawn(made_up(widths=(64, 128)))[0]
    bounds = {phase: (start, end) for phase, start, end in first.phases}
    novel = np.mean([count / (count + 6) for count in (10, 11, 12)])
    assert bounds["novel"] == pytest.approx((0, 0.94 * novel))
    assert bounds["swap"] == pytest.approx((0.94 * novel, 0.94))
    assert bounds["orphans"] == pytest.approx((0.94, 1))


def test_one_seeds_points_are_the_paths_own() -> None:
    rows, paths = made_up(["relu"], (64, 128), [0])
    (first,) = drawn((rows, paths))
    (walk,) = paths.values()
    for order in ("random", "max_cos"):
        walked = walk[(walk["order"] == order) & (walk["seed"] == 0)]
        line = first.orders[order].mse[0]
        on_steps = np.interp([0.0, *np.unique(first.x)[1:]], first.x, line)
        assert on_steps == pytest.approx(walked["mse"].to_numpy() / walked["mse"].iloc[0])


def test_floors_are_not_drawn_and_architectures_stand_apart() -> None:
    panels = drawn(made_up())
    assert titles([ladder_panel.ladder for ladder_panel in panels]) == list(ARCHS)
    assert {ladder_panel.seeds for ladder_panel in panels} == {3}


def test_of_all_pairs_only_neighbours_are_drawn() -> None:
    rows, paths = made_up(["relu"], (64, 128, 256), [0])
    wide = Row(label="every", metric="stitching", score="novel_gain", subject=("a", "b"),
               status="measured", id="wide", of="pair", over="all-pairs:width", seed=0,
               suite="made-up",
               members=({"arch": "relu", "width": 64, "seed": 0},
                        {"arch": "relu", "width": 256, "seed": 0}))  # fmt: skip
    paths["wide"] = points(9.0, 9.0, novel=3)
    every = [replace(row, label="every", over="all-pairs:width") for row in rows]
    (first,) = drawn(([*rows, *every, wide], paths))
    assert first.orders["max_cos"].mse.max() == pytest.approx(1.0)
    assert first.pairs_without_path == 0


def test_a_pair_without_a_path_leaves_a_gap_and_is_told(tmp_path: Path) -> None:
    rows, paths = made_up()
    del paths["relu-w128-s1+relu-w256-s1"]
    first = drawn((rows, paths))[0]
    assert first.pairs_without_path == 1
    assert np.isnan(first.orders["random"].mse).any(axis=1).sum() == 3
    assert not np.isnan(middle(first.orders["random"].mse)).any()
    assert "want of a path: 1 pair of SAEs" in words(write((rows, paths), tmp_path / "out.svg"))


def test_a_band_is_from_the_lowest_to_the_highest() -> None:
    low, high = extremes(np.array([[1.0, np.nan, 3.0], [2.0, 5.0, 1.0]]))
    assert low.tolist() == [1.0, 5.0, 1.0]
    assert high.tolist() == [2.0, 5.0, 3.0]


@pytest.mark.parametrize("seeds", [[0], [0, 1], [0, 1, 2]])
def test_a_band_is_drawn_from_three_seeds_on(tmp_path: Path, seeds: list[int]) -> None:
    text = words(write(made_up(["relu"], seeds=seeds), tmp_path / "out.svg"))
    assert ("lowest to highest" in text) == (len(seeds) == 3)
    assert f"{len(seeds)} seed{'s' * (len(seeds) > 1)} × 3 random orders" in text


def test_a_picture_says_what_it_shows(tmp_path: Path) -> None:
    text = words(write(made_up(), tmp_path / "out.svg"))
    captions = ["made-up: error and L0", "MSE, relative to", "L0 (active", "per token)",
            "width (in", "1 is an MSE of 1.10", "random order, mean", "max_cos", "novel",
            "swap", "orphans", *ARCHS, *map(str, WIDTHS)]  # fmt: skip
    assert [caption for caption in captions if caption not in text] == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (r"a$\frac$b", r"a$\frac$b"), ("a\x1b[2J\x00b", r"a\x1b[2J\x00b"),
        ("a<script>b", "a<script>b"), ("a\u202eb", r"a\u202eb"), ("a\nb", "a b"),
    ],
)  # fmt: skip
def test_a_name_is_drawn_as_it_is_written(tmp_path: Path, name: str, shown: str) -> None:
    rows, paths = made_up(["relu"])
    named = [
        replace(row, suite=name, members=tuple({**member, "arch": name} for member in row.members))
        for row in rows
    ]
    text = words(write((named, paths), tmp_path / "out.svg"))
    assert f"{shown}: error and L0" in text
    assert text.count(shown) > 1
    assert "<script" not in (tmp_path / "out.svg").read_text()


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_equal_runs_give_equal_files_whatever_the_users_settings(
    tmp_path: Path, suffix: str
) -> None:
    made = made_up(["relu", "topk"], (64, 128), [0])
    before = dict(matplotlib.rcParams)
    first = write(made, tmp_path / f"one{suffix}").read_bytes()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        assert write(made, tmp_path / f"two{suffix}").read_bytes() == first
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("archs", [1, 2, 3, 5])
def test_a_png_is_no_blank_page_and_as_wide_as_columns_are(tmp_path: Path, archs: int) -> None:
    made = made_up([f"arch{number}" for number in range(archs)], seeds=[0])
    image = imread(write(made, tmp_path / "out.png"))
    assert image.shape[1] == {1: 700, 2: 1080, 3: 1440, 5: 1440}[archs]
    dark = image[..., :3].max(axis=-1) < 0.9
    assert 0.01 < dark.mean() < 0.4


@pytest.fixture
def measured(suite: Path) -> Callable[[str], Path]:
    """Measure the stitching cases of the small suite, after a change of its text."""

    def measure(without: str) -> Path:
        suite.write_text(suite.read_text().replace(without, ""))
        registry, store = load_registry(), Store(suite.parent / "store")
        plan = make_plan(suite, registry, store)
        keep_run(plan, name="small.toml", flags={})
        for case in plan.cases:
            if case.metric.name == "stitching":
                Bench(registry, store).measure(case)
        return store.root

    return measure


@pytest.mark.parametrize(
    "suffix", [".csv", ".html", ".md", ".parquet", ".pdf", ".png", ".svg", ".txt"]
)
@pytest.mark.parametrize("fault", ["a folder", "a full disk"])
def test_a_file_that_cannot_be_written_is_a_sentence(
    measured: Callable[[str], Path], suffix: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root, path = measured(""), Path(f"out{suffix}")
    if fault == "a folder":
        path.mkdir()
    elif Path("/dev/full").exists():
        path.symlink_to("/dev/full")
    else:
        pytest.skip("no /dev/full")
    assert main(["show", "small", "--to", str(path), "--store", str(root)]) == 4
    printed = capsys.readouterr()
    assert f"saebench-canon: {path} cannot be written (" in printed.err
    assert "Traceback" not in printed.err
    assert "wrote" not in printed.out


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_show_draws_the_last_run(
    measured: Callable[[str], Path], suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root, path = measured(""), Path(f"path{suffix}")
    assert main(["show", "small", "--to", str(path), "--store", str(root)]) == 0
    assert f"wrote {path}" in capsys.readouterr().out
    first = path.read_bytes()
    assert main(["show", "small", "--to", str(path), "--store", str(root)]) == 0
    assert path.read_bytes() == first
    if suffix == ".svg":
        assert "2 seeds × 3 random orders" in words(path)


def test_drawing_imports_no_torch(measured: Callable[[str], Path]) -> None:
    done = call("show", "--to", "path.svg", "--store", str(measured("")), cwd=Path())
    assert done.returncode == 0, done.stderr
    assert "IMPORTED []" in done.stderr


PLUGIN = """
from saebench_canon import hookimpl
from saebench_canon.plugin.report import Report


def count(rows, metrics, path):
    path.write_text(f"{len({row.id for row in rows})} cases")


def last(rows, metrics, path, *, tables):
    case = next(row.id for row in rows if row.metric == "stitching")
    path.write_text(f"{tables(case, 'path').mse.iloc[-1]} {tables(case, 'none')}")


@hookimpl
def canon_reports():
    return [Report(".count", count), Report(".last", last, reads_tables=True)]
"""


def test_a_plugins_candidategets_tables_if_it_asks_for_them(
    measured: Callable[[str], Path],
) -> None:
    root = str(measured(""))
    Path("mine.py").write_text(PLUGIN)
    for suffix in ("count", "last"):
        words = ["show", "--to", f"out.{suffix}", "--store", root, "--plugin", "mine.py"]
        assert main(words) == 0
    assert Path("out.count").read_text() == "32 cases"
    number, absent = Path("out.last").read_text().split()
    assert float(number) > 0
    assert absent == "None"


def test_a_metric_without_the_role_is_not_drawn() -> None:
    rows, paths = made_up(["relu"])
    assert len(find_ladders(rows, [FOLLOWED], lambda case, name: paths.get(case))) == 1
    for others in ([replace(FOLLOWED, roles=())], []):
        assert find_ladders(rows, others, lambda case, name: paths.get(case)) == []


def test_a_run_without_paths_is_a_sentence(
    measured: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = measured('data = "planted"\n')
    assert main(["show", "small", "--to", "path.png", "--store", str(root)]) == 4
    message = capsys.readouterr().err
    assert message.startswith("saebench-canon: there is nothing to draw")
    assert "larger one (path.png). " in message
    assert "`stitching` makes paths" in message
    assert not Path("path.png").exists()


def test_a_notebook_s_backend_is_not_needed(measured: Callable[[str], Path]) -> None:
    root = measured("")
    command = [sys.executable, "-m", "saebench_canon", "show", "small", "--store", str(root)]
    done = subprocess.run(
        [*command, "--to", "path.svg"], capture_output=True, text=True,
        env={**os.environ, "MPLBACKEND": "module://no_such_module.backend"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("path.svg").is_file()
