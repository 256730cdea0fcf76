"""The packaged suites of published ladders: planned with nothing there, and run to the end offline.

The hub cache is made up (`made_up_hub`): names and layouts of the real one, small random weights.
What is not tested here is the download itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_hub import COMMIT, GEMMA_SAES, GEMMA_WIDTHS, GPT2_WIDTHS, made_up_hub
from program import call

from saebench_canon.bench.plan import make_plan
from saebench_canon.bench.store import Store
from saebench_canon.plugin.registry import load_registry
from saebench_canon.saes.formats.saelens_releases import locate, releases
from saebench_canon.saes.source import Checkpoint
from saebench_canon.suite.load import find_suite, load_suite
from saebench_canon.suite.specs import Suite

LADDERS = ("gpt2-ladder", "gemma-scope-2b")
CASES = {"gpt2-ladder": 58, "gemma-scope-2b": 21}
QUICK = {
    "gpt2-ladder": ["--set", "metric.meta_sae.settings.steps=3",
                    "--set", "metric.meta_sae_paper.settings.steps=3"],
    "gemma-scope-2b": ["--set", "metric.meta_sae.settings.steps=3"],
}  # fmt: skip
LIMIT = ["--limit", "1000"]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which the made-up hub cache is found, and no network is."""
    return made_up_hub(tmp_path_factory.mktemp("home"))


def canon(*words: str, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own, as a user starts it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-m", "saebench_canon", *words],
        cwd=cwd, env=environment | env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def suite(name: str) -> Suite:
    return load_suite(find_suite(name), load_registry())


@pytest.mark.parametrize("name", LADDERS)
def test_it_is_planned_with_an_empty_cache_and_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = call("plan", name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "IMPORTED []" in done.stderr
    assert f"{CASES[name]} cases, {CASES[name]} to measure." in done.stdout


@pytest.mark.parametrize("name", LADDERS)
def test_its_cases_are_the_same_before_and_after_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: dict[str, str], name: str
) -> None:
    registry, store = load_registry(), Store(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ids = []
    for home in (str(tmp_path / "empty"), hub["HF_HOME"]):
        monkeypatch.setenv("HF_HUB_CACHE", f"{home}/hub")
        ids.append(make_plan(find_suite(name), registry, store).ids)
    assert ids[0] == ids[1]


@pytest.fixture(scope="module", params=LADDERS)
def ran(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, hub: dict[str, str]
) -> tuple[str, Path, str]:
    """A ladder that has been run: its name, where, and what was printed."""
    name: str = request.param
    folder = tmp_path_factory.mktemp(name)
    done = canon("run", name, *LIMIT, *QUICK[name], cwd=folder, env=hub)
    assert done.returncode == 0, done.stdout + done.stderr
    return name, folder, done.stdout


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (folder / ".canon/records").glob("*.json")]


def test_every_case_is_measured_and_tables_are_printed(
    ran: tuple[str, Path, str], hub: dict[str, str]
) -> None:
    name, folder, printed = ran
    assert f"{CASES[name]} passed" in printed
    assert len(records(folder)) == CASES[name]
    assert not list((folder / ".canon").glob("errors/*.json"))
    for metric in ("fidelity", "stitching", "meta_sae"):
        assert f"\n{metric} v" in printed
    assert "published" in printed
    assert "latents where the suite says" in printed.replace("\n", " ")  # made up small
    planned = canon("plan", name, *LIMIT, *QUICK[name], cwd=folder, env=hub)
    assert f"{CASES[name]} cases, 0 to measure." in planned.stdout


def test_records_name_the_commits_of_saes_and_model(ran: tuple[str, Path, str]) -> None:
    name, folder, _ = ran
    model = {"gpt2-ladder": "gpt2", "gemma-scope-2b": "google/gemma-2-2b"}[name]
    for record in records(folder):
        saes = {sae["ref"] for sae in (*record["subject"], *record["peers"])}
        assert record["provenance"]["commits"] == dict.fromkeys({model, *saes}, COMMIT)


def test_it_measured_the_saes_of_the_cache(ran: tuple[str, Path, str], hub: dict[str, str]) -> None:
    name, folder, _ = ran
    x = np.load(next((folder / ".canon/artefacts").glob("*/acts.npy"))).astype(float)
    centred = bool(np.abs(x.mean(axis=1)).max() < 1e-5)
    assert centred == (name == "gpt2-ladder")
    if centred:
        return
    folders = [f"layer_12/width_{width}" for width in GEMMA_WIDTHS]
    cache = Path(hub["HF_HOME"], "hub", f"models--{GEMMA_SAES[0].replace('/', '--')}", "snapshots")
    measured = {
        record["subject"][0]["ref"].partition("-res/")[2]: record["scores"]["mse"]["value"]
        for record in records(folder)
        if record["metric"] == "fidelity"
    }
    assert measured.keys() == set(folders)
    for name in folders:
        w = np.load(next(cache.iterdir()) / name / "params.npz")
        pre = x @ w["W_enc"] + w["b_enc"]
        rebuilt = np.where(pre > w["threshold"], pre, 0) @ w["W_dec"] + w["b_dec"]
        assert measured[name] == pytest.approx(((x - rebuilt) ** 2).mean(), rel=1e-4)


def test_without_files_and_network_a_case_fails_in_a_sentence(tmp_path: Path) -> None:
    empty = {"HF_HOME": str(tmp_path / "empty"), "HF_HUB_OFFLINE": "1"}
    done = canon("run", "gpt2-ladder", "-k", "w768 and meta_sae", cwd=tmp_path, env=empty)
    assert done.returncode == 1
    assert "the hub cannot be reached" in done.stdout.replace("\n", " ")
    assert "Traceback" not in done.stdout + done.stderr


def test_the_ladders_name_saes_that_there_are() -> None:
    for sae in suite("gpt2-ladder").saes:
        assert isinstance(sae.source, Checkpoint)
        assert (
            locate(sae.source.uri).repository
            == "jbloom/GPT2-Small-Feature-Splitting-Experiment-Layer-8"
        )
    assert [sae.axes["width"] for sae in suite("gpt2-ladder").saes] == list(GPT2_WIDTHS)
    canonical = releases()["gemma-scope-2b-pt-res-canonical"].folders
    every = set(releases()["gemma-scope-2b-pt-res"].folders.values())
    registry = load_registry()
    for sae in suite("gemma-scope-2b").saes:
        assert isinstance(sae.source, Checkpoint)
        folder = sae.source.uri.target.removeprefix("google/gemma-scope-2b-pt-res/")
        description = registry.adapter("gemma-scope").describe(sae.source.uri)
        assert (description.d, description.width, description.hook) == (
            2304,
            sae.axes["width"],
            "blocks.12.hook_resid_post",
        )
        assert folder in every
        assert canonical.get(f"layer_12/width_{sae.name}/canonical", folder) == folder
