"""`show --canonical` and `export --canonical`, on SAEs trained on a world."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from saebench_canon.cli.main import main
from saebench_canon.questions.canonical import COLUMNS

SUITE = """
[suite]
name = "world"

[data.w]
synthetic = "independent"
d = 24
features = 16
l0 = 2.0
tokens = 4_000

[[sae]]
name = "{arch}-w{width}-s{seed}"
data = "w"
train = { tokens = 60_000, k = 2, lr = 3e-3, relu = { l1 = 1.0 } }
axes = { arch = ["relu", "topk"], width = [16, 24], seed = [0, 1] }

[[metric]]
name = "fidelity"

[[metric]]
name = "comparison"
over = "family"
"""


UNFIT = "explained variance"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("canonical")
    (folder / "world.toml").write_text(SUITE)
    home = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["run", "world.toml", "-q", "-n", "0"]) == 0
    finally:
        os.chdir(home)
    return folder


@pytest.fixture(autouse=True)
def here(ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ran)


def listed(name: str = "canonical.csv") -> pd.DataFrame:
    assert main(["show", "world", "--canonical", "--to", name]) == 0
    return pd.read_parquet(name) if name.endswith("parquet") else pd.read_csv(name)


def test_each_sae_has_a_line_with_what_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "world", "--canonical"]) == 0
    printed = capsys.readouterr().out
    table = listed()
    for name, latents in table.groupby("sae"):
        (line,) = (line for line in printed.splitlines() if line.startswith(f"{name} "))
        cells = line.split()
        assert cells[1] == str(len(latents))
        assert cells[-1] == str(latents["canonical"].sum())
        distinct = latents[latents["twin_of"] < 0]
        wider = str((distinct["above"] > 0).sum()) if "w16" in str(name) else "–"
        assert cells[4] == wider


def test_the_file_has_a_row_for_each_live_latent(capsys: pytest.CaptureFixture[str]) -> None:
    table = listed()
    assert tuple(table.columns) == COLUMNS
    relu = {f"relu-w{width}-s{seed}" for width in (16, 24) for seed in (0, 1)}
    assert set(table["sae"]) >= relu
    assert f"note: left out: {UNFIT}" in capsys.readouterr().err  # two of TopK
    assert main(["show", "world", "--canonical", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(table.to_json(orient="records"))
    again = listed("canonical.parquet")
    pd.testing.assert_frame_equal(again.reset_index(drop=True), table, check_dtype=False)
    assert table["canonical"].sum() > 0
    assert (table["found_in"] <= 1).all()


@pytest.mark.parametrize(("name", "exact"), [("relu-w16-s0", True), ("topk-w24-s1", False)])
def test_canonical_latents_are_exported_as_an_sae(
    name: str, exact: bool, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from sae_lens import SAE

    folder = tmp_path / "exported"
    assert main(["export", "world.toml", name, "--canonical", "-o", str(folder)]) == 0
    assert f"of the {name[-5:-3]} latents of '{name}'" in capsys.readouterr().out
    table = listed()
    chosen = table[(table["sae"] == name) & table["canonical"]]["latent"].tolist()
    config = json.loads((folder / "cfg.json").read_text())
    assert config["metadata"]["canonical"]["latents"] == chosen
    whole = tmp_path / "whole"
    assert main(["export", "world.toml", name, "-o", str(whole)]) == 0
    acts = tmp_path / "acts"
    assert main(["export", "world.toml", "w", "-o", str(acts)]) == 0
    x = load_file(acts / "acts.safetensors")["acts"][:500]
    some, all_of = SAE.load_from_disk(folder), SAE.load_from_disk(whole)
    theirs, codes = some.encode(x).detach(), all_of.encode(x).detach()
    rows = torch.nn.functional.normalize(all_of.W_dec.detach()[chosen], dim=1)
    assert torch.allclose(some.W_dec.detach(), rows, atol=1e-6)
    expected = codes[:, chosen] * all_of.W_dec.detach()[chosen].norm(dim=1)
    if exact:
        assert torch.allclose(theirs, expected, atol=1e-5)
    else:
        kept = expected > 0
        assert ((theirs > 0).sum(dim=1) <= config["k"]).all()
        both = kept & (theirs > 0)
        assert both.sum() > 0.5 * kept.sum()
        assert torch.allclose(theirs[both], expected[both], atol=1e-5)


def test_an_exported_list_measures_like_any_sae(tmp_path: Path) -> None:
    """It is read by its path, and its codes here are SAELens'."""
    from sae_lens import SAE

    folder = tmp_path / "exported"
    assert main(["export", "world.toml", "relu-w24-s0", "--canonical", "-o", str(folder)]) == 0
    acts = tmp_path / "acts"
    assert main(["export", "world.toml", "w", "-o", str(acts)]) == 0
    from saebench_canon.plugin.ref import Ref
    from saebench_canon.plugin.registry import load_registry

    ours = load_registry().adapters["file"].load(Ref("file", str(folder), local=True))
    x = load_file(acts / "acts.safetensors")["acts"][:500]
    theirs = SAE.load_from_disk(folder).encode(x).detach()
    assert torch.allclose(ours.encode(x), theirs, atol=1e-5)


def test_mistakes_are_sentences(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    target = str(tmp_path / "x")
    for words, sentence in (
        (["show", "world", "--canonical", "--to", "list.docx"], "cannot be written as '.docx'"),
        (["show", "world", "--canonical", "--to", "no/list.csv"], "the folder no does not exist"),
        (["export", "world.toml", "w", "--canonical", "-o", target], "no canonical latents"),
        (
            ["export", "world.toml", "relu-w16-s0", "--canonical", "-o", target, "--store", "new"],
            "was not compared with another seed or a wider SAE",
        ),
    ):
        assert main(words) == 4
        assert sentence in capsys.readouterr().err
        assert not Path(target).exists()


def test_topk_without_data_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """How many of its canonical codes a token has is only known from activations."""
    for seed in (0, 1):
        folder = str(tmp_path / f"s{seed}")
        assert main(["export", "world.toml", f"topk-w24-s{seed}", "-o", folder]) == 0
    suite = tmp_path / "loaded.toml"
    suite.write_text(
        '[suite]\nname = "loaded"\n[[sae]]\nname = "s{seed}"\nuri = "file:s{seed}"\n'
        "axes = { width = [24], seed = [0, 1] }\n"
        '[[metric]]\nname = "comparison"\nover = "family"\n'
    )
    store = ["--store", str(tmp_path / "store")]
    assert main(["run", str(suite), "-q", *store]) == 0
    capsys.readouterr()
    target = str(tmp_path / "x")
    assert main(["export", str(suite), "s0", "--canonical", "-o", target, *store]) == 4
    printed = capsys.readouterr().err
    assert "how many of them are canonical is not known without data" in printed
    assert "Give the SAE `data` in the suite." in printed
    assert not Path(target).exists()
