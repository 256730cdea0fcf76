"""Cards of a small run on the packaged language model, as `show --latent` prints them."""

from __future__ import annotations

import argparse
import inspect
import json
import logging
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from planted import SUITE, write_acts, write_sae
from safetensors.torch import load_file, save_file
from sealed import rewrite

from saebench_canon.bench.measure import Bench
from saebench_canon.bench.plan import make_plan
from saebench_canon.bench.results import keep_run, last_run
from saebench_canon.bench.sealed_record import digest_of
from saebench_canon.bench.store import Store
from saebench_canon.cli.main import main
from saebench_canon.latents.open_run import OpenRun
from saebench_canon.latents.token_text import columns
from saebench_canon.plugin.registry import load_registry

TINY = """
[suite]
name = "tiny"

[data.words]
model = "packaged:tiny-lm"
hook = "blocks.3.hook_resid_pre"
text = "words.jsonl"
context = 64
holdout = 0.4

[[sae]]
name = "topk-w{width}"
data = "words"
axes = { width = [16, 48] }
train = { arch = "topk", tokens = 6000, batch_size = 256, lr = 1e-2, k = 4 }

[[metric]]
name = "fidelity"

[[metric]]
name = "meta_sae"
settings = { steps = 30, k = 2 }

[[metric]]
name = "composition"
"""


def measure(path: Path, store: Path = Path(".canon"), only: str = "") -> None:
    """What `run` does, without pytest in between."""
    registry, record_store = load_registry(), Store(store)
    plan = make_plan(path, registry, record_store)
    keep_run(plan, name=str(path), flags={"settings": [], "batch_size": 512})
    bench = Bench(registry, record_store)
    for case in plan.cases:
        if only in str(case):
            bench.measure(case)


def words() -> list[str]:
    """Documents that every Python has, one with letters beyond ASCII."""
    documented = [argparse, argparse.ArgumentParser, argparse.Namespace, json.load, json.dumps,
           logging, logging.Logger.log, logging.basicConfig, textwrap.wrap, textwrap.fill,
           textwrap.dedent, inspect.getdoc, inspect.signature, shutil.copytree,
           shutil.move]  # fmt: skip
    texts = [inspect.getdoc(source) or "" for source in documented]
    return [*texts, 'The naïve café\'s ☃\n\tand\u00a0日本 — «quoted» "twice".']


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the measured tiny suite, not to be written to."""
    folder = tmp_path_factory.mktemp("tiny")
    lines = [json.dumps({"text": word}) for word in words()]
    (folder / "words.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "tiny.toml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        measure(folder / "tiny.toml")
    return folder


@pytest.fixture
def tiny(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The measured tiny suite as working directory."""
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def spoilt(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to be changed."""
    folder = shutil.copytree(made, tmp_path / "spoilt")
    for path in (folder / ".canon" / "runs").glob("*.json"):
        record = json.loads(path.read_text())
        moved = {**record, "path": str(folder / "tiny.toml")}
        path.write_text(json.dumps({**moved, "digest": digest_of(moved)}))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def show(*words: str, suite: str = "tiny", code: int = 0) -> str:
        assert main(["show", suite, *words]) == code
        printed = capsys.readouterr()
        assert (printed.out == "") == (code != 0)
        return " ".join(printed.err.split()) if code else printed.out

    return show


def a_live_latent(name: str = "topk-w48") -> int:
    """The latent that fires most."""
    store = Store(Path(".canon"))
    open_run = OpenRun(last_run(store, None), load_registry(), store)
    codes = open_run.observed(open_run.choose(name)).codes
    assert codes is not None
    return int(codes.counts.argmax())


def test_a_card_has_every_part_and_fits_the_terminal(tiny: Path, shown: Callable[..., str]) -> None:
    latent = a_live_latent()
    page = shown("--latent", f"topk-w48:{latent}")
    for part in (
        f"── latent {latent} of topk-w48 (tiny) ──", "fires on ", "tokens    '", "promotes  '",
        "top contexts in words.jsonl", "made of meta-latents (meta_sae: 12 meta-latents), which",
        "nearest latents of topk-w16", "as a sum of latents of topk-w16", "explain .",
    ):  # fmt: skip
        assert part in page, part
    assert max(map(columns, page.splitlines())) <= 100


def test_codes_on_a_card_are_those_of_the_token_it_marks(
    tiny: Path, shown: Callable[..., str]
) -> None:
    """The marked token, read by the model anew, gives the code that stands beside it."""
    latent = a_live_latent()
    card = json.loads(shown("--latent", f"topk-w48:{latent}", "--json"))
    store = Store(Path(".canon"))
    open_run = OpenRun(last_run(store, None), load_registry(), store)
    sae = open_run.choose("topk-w48")
    observed, model = open_run.observed(sae), open_run.artifacts.sae(sae, open_run.data(sae))
    assert observed.text is not None
    assert observed.model is not None
    lm, tokens = observed.model[0], observed.text.tokens
    for context in card["contexts"]:
        tokens_found = []
        for window in range(len(tokens)):
            if tokens.names[int(tokens.doc[window])] != context["document"]:
                continue
            ids = tokens.input_ids[window, : int(tokens.length[window])][None]
            with torch.no_grad():
                states = lm.model(ids, output_hidden_states=True).hidden_states[3][0]
            codes = model.encode(states[1:])[:, latent]
            token = int((codes - context["code"]).abs().argmin())
            if abs(float(codes[token]) - context["code"]) < 1e-3:
                tokens_found.append(lm.tokenizer.decode([int(ids[0, token + 1])]))
        assert context["token"] in tokens_found or "<" in context["token"]


def test_the_card_says_what_the_records_say(tiny: Path, shown: Callable[..., str]) -> None:
    latent = a_live_latent()
    card = json.loads(shown("--latent", f"topk-w48:{latent}", "--json"))
    records = [json.loads(path.read_text()) for path in Path(".canon/records").glob("*.json")]
    (meta,) = (
        record for record in records
        if record["metric"] == "meta_sae" and "/48/0/" in record["subject"][0]["ref"]
    )  # fmt: skip
    table = pd.read_parquet(Path(".canon") / meta["tables"]["decomposition"])
    rows = table[table.latent == latent].sort_values("weight", ascending=False)
    items = card["meta_latents"]["items"]
    assert [row["number"] for row in items] == rows.meta_latent.tolist()
    assert [row["weight"] for row in items] == rows.weight.tolist()
    heldout = meta["scores"]["heldout_explained_variance"]["value"]
    assert f"{heldout:.2f}".lstrip("0").replace("-0", "-") in card["meta_latents"]["sentences"][0]
    (pair,) = (record for record in records if record["metric"] == "composition")
    atoms = pd.read_parquet(Path(".canon") / pair["tables"]["latents"])
    rows = atoms[atoms.latent == latent]
    assert [row["number"] for row in card["sum"]["items"]] == rows.atom.tolist()
    assert [row["explained"] for row in card["sum"]["items"]] == rows.explained.tolist()


def test_nearest_latents_are_those_of_the_largest_cosine(
    tiny: Path, shown: Callable[..., str]
) -> None:
    latent = a_live_latent()
    items = json.loads(shown("--latent", f"topk-w48:{latent}", "--json"))["nearest"]["items"]
    store = Store(Path(".canon"))
    open_run = OpenRun(last_run(store, None), load_registry(), store)
    small, large = (open_run.observed(open_run.choose(name)) for name in ("topk-w16", "topk-w48"))
    assert small.codes is not None
    cosines = torch.cosine_similarity(small.rows, large.rows[latent][None])
    live = {index: float(cosines[index]) for index in range(16) if small.codes.counts[index]}
    best = sorted(live, key=lambda index: -live[index])[:3]
    assert [row["number"] for row in items] == best
    assert [row["weight"] for row in items] == pytest.approx(
        [live[index] for index in best], abs=1e-5
    )


def test_without_an_sae_the_widest_is_taken_and_said_to_be(
    tiny: Path, shown: Callable[..., str]
) -> None:
    latent = str(a_live_latent())
    page = " ".join(shown("--latent", latent).split())
    assert f"latent {latent} of topk-w48 (tiny)" in page
    assert f"Of 2 SAEs, this is topk-w48, the widest that differs from the first in width only. Choose another with --latent SAE:{latent}." in page  # fmt: skip  # noqa: E501
    named = shown("--latent", f"topk-w48:{latent}")
    assert "was taken" not in named


def test_a_meta_latent_lists_its_latents(tiny: Path, shown: Callable[..., str]) -> None:
    latent = a_live_latent()
    card = json.loads(shown("--latent", f"topk-w48:{latent}", "--json"))
    first = card["meta_latents"]["items"][0]
    meta = json.loads(shown("--meta-latent", f"topk-w48:{first['number']}", "--json"))
    assert (meta["kind"], meta["label"]) == ("meta-latent", first["label"])
    parts = {part["latent"]: part for part in meta["parts"]}
    assert parts[latent]["weight"] == first["weight"]
    assert parts[latent]["label"] == card["label"]
    assert meta["firing"] is None
    assert meta["contexts"]
    page = shown("--meta-latent", f"topk-w48:{first['number']}")
    assert "used by " in page
    assert max(map(columns, page.splitlines())) <= 100


def test_the_smallest_sae_has_none_smaller_and_says_so(
    tiny: Path, shown: Callable[..., str]
) -> None:
    page = shown("--latent", f"topk-w16:{a_live_latent('topk-w16')}")
    assert "The suite has no smaller SAE to compare topk-w16 with." in page


def test_a_plugin_labels_every_latent_of_the_card(
    tiny: Path, shown: Callable[..., str], tmp_path: Path
) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from saebench_canon import hookimpl\n\n\n@hookimpl\ndef canon_label(evidence):\n"
        '    seen = evidence.contexts[0].token.strip() if evidence.contexts else "nothing"\n'
        '    return f"{evidence.kind} seen on {seen}" if evidence.sae == "topk-w48" else None\n'
    )
    arguments = ("--latent", f"topk-w48:{a_live_latent()}", "--json")
    before, after = (
        json.loads(shown(*arguments, *more)) for more in ((), ("--plugin", str(plugin)))
    )
    assert after["label"] == f"latent seen on {before['contexts'][0]['token'].strip()}"
    assert all(
        meta_latent["label"].startswith("meta-latent seen on ")
        for meta_latent in after["meta_latents"]["items"]
    )
    assert after["nearest"] == before["nearest"]  # of another SAE: the plugin has no answer


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--latent", "48"], "topk-w48 has no latent 48. Its latents are 0 to 47."),
        (["--latent", "topk-w8:1"], "no SAE 'topk-w8' in tiny. Did you mean 'topk-w48'"),
        (["--latent", "one"], "'one' is not a latent (--latent). Give its number, or SAE:NUMBER."),
        (["--latent", ""], "'' is not a latent (--latent)"),
        (["--meta-latent", "-1"], "'-1' is not a meta-latent (--meta-latent)"),
        (["--meta-latent", "12"], "topk-w48 has no meta-latent 12. Its meta-latents are 0 to 11."),
        (["--latent", "1", "--errors"], "--errors cannot be combined with --latent"),
        (["--latent", "1", "--to", "x.png"], "cannot be written as '.png'"),
        (["--latent", "1", "--to", "nowhere/x.md"], "the folder nowhere does not exist (--to)"),
        (["--latent", "1", "--meta-latent", "1"], "not allowed with argument --latent"),
    ],
)
def test_wrong_usage_is_a_sentence(
    tiny: Path, shown: Callable[..., str], words: list[str], sentence: str
) -> None:
    assert sentence in shown(*words, code=4)


def test_a_card_is_written_to_a_file(tiny: Path, shown: Callable[..., str], tmp_path: Path) -> None:
    arguments = ("--latent", f"topk-w48:{a_live_latent()}")
    for suffix in (".md", ".txt", ".json"):
        path = tmp_path / f"card{suffix}"
        assert shown(*arguments, "--to", str(path)) == f"wrote {path}\n"
    assert (tmp_path / "card.txt").read_text(encoding="utf-8") == shown(*arguments)
    assert (tmp_path / "card.md").read_text(encoding="utf-8").startswith("# latent ")


def test_a_card_that_cannot_be_written_is_a_sentence(
    tiny: Path, shown: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "card.md"
    path.mkdir()
    said = shown("--latent", f"topk-w48:{a_live_latent()}", "--to", str(path), code=4)
    assert f"{path} cannot be written (" in said


def test_a_record_without_decomposition_says_what_to_run(
    spoilt: Path, shown: Callable[..., str]
) -> None:
    for path in list(Path(".canon/records").glob("*.json")):
        record = json.loads(path.read_text())
        if record["metric"] == "meta_sae":
            rewrite(Path(".canon"), record["id"], version=1, tables={})
    page = " ".join(shown("--latent", f"topk-w48:{a_live_latent()}").split())
    assert (
        "Meta-latents are left out: the record of meta_sae (version 1) has no table "
        "'decomposition'; run meta_sae version 2." in page
    )
    assert "run meta_sae version 2" in shown("--meta-latent", "0", code=4)


def test_what_the_run_did_not_measure_is_left_out_with_a_note(
    spoilt: Path, shown: Callable[..., str]
) -> None:
    shutil.rmtree(".canon/records")
    page = " ".join(shown("--latent", f"topk-w48:{a_live_latent()}").split())
    assert "Meta-latents are left out: meta_sae of topk-w48 is not measured." in page
    assert "Sums of latents are left out: composition of topk-w16 and topk-w48 is not" in page
    assert "top contexts in words.jsonl" in page


def test_an_sae_that_is_not_trained_is_not_trained_now(
    spoilt: Path, shown: Callable[..., str]
) -> None:
    latent = a_live_latent()
    for path in Path(".canon/artefacts").glob("*/cfg.json"):
        if json.loads(path.read_text())["d_sae"] == 16:
            shutil.rmtree(path.parent)
    page = " ".join(shown("--latent", f"topk-w48:{latent}").split())
    assert "Nearest latents are left out: 'topk-w16' was not trained in .canon" in page
    assert "'topk-w16' was not trained in .canon" in shown("--latent", "topk-w16:1", code=4)


def test_a_suite_that_changed_since_its_run_is_not_mixed_with_it(
    spoilt: Path, shown: Callable[..., str]
) -> None:
    path = Path("words.jsonl")
    path.write_text(path.read_text(encoding="utf-8") + '\n{"text": "one more"}', encoding="utf-8")
    latent = shown("--latent", "1", code=4)
    assert "'topk-w48' was not trained" in latent
    Path("tiny.toml").unlink()
    assert "the suite file of the run" in shown("--latent", "1", code=4)


@pytest.fixture
def of_a_file(suite: Path) -> Path:
    """A measured suite on a file of activations; latent 3 of each SAE is dead."""
    for folder in Path("saes").iterdir():
        tensors = load_file(folder / "sae_weights.safetensors")
        tensors["b_enc"][3] = -1e6
        save_file(tensors, folder / "sae_weights.safetensors")
    suite.write_text(SUITE.split('[[metric]]\nname = "stitching"')[0])
    measure(suite)
    return suite


def test_a_file_of_activations_has_neither_text_nor_model(
    of_a_file: Path, shown: Callable[..., str]
) -> None:
    page = " ".join(shown("--latent", "5", suite="small").split())
    assert "latent 5 of relu-w48-s0 (small)" in page
    assert "fires on " in page
    assert "in 20 documents" in page
    assert "nearest latents of relu-w24-s0" in page
    assert "it has no text and no model" in page
    assert "Meta-latents are left out: the suite has no meta_sae of relu-w48-s0." in page
    assert "promotes" not in page


def test_a_dead_latent_is_a_sentence_with_live_ones_near_it(
    of_a_file: Path, shown: Callable[..., str]
) -> None:
    assert (
        "latent 3 of relu-w48-s0 is dead: it fires on none of 600 tokens. "
        "The nearest live latents are 1, 2, 4." in shown("--latent", "3", suite="small", code=4)
    )


def test_dead_latents_are_nobodys_nearest(of_a_file: Path, shown: Callable[..., str]) -> None:
    """The dead latent 3 of the smaller SAE has the very row of the larger one's latent 5."""
    (small, tensors), (_, larger) = (
        (path, load_file(path))
        for path in (Path(f"saes/w{width}-s0/sae_weights.safetensors") for width in (24, 48))
    )
    tensors["W_dec"][3] = larger["W_dec"][5]
    save_file(tensors, small)
    shutil.rmtree(".canon")
    measure(of_a_file)
    items = json.loads(shown("--latent", "5", "--json", suite="small"))["nearest"]["items"]
    assert len(items) == 3
    assert all(latent["number"] != 3 and latent["weight"] < 0.99 for latent in items)


def test_data_that_changed_since_the_run_is_told(
    of_a_file: Path, shown: Callable[..., str]
) -> None:
    write_acts(Path("acts.safetensors"), torch.randn(100, 16))
    assert "has changed since the last run of small" in shown(
        "--latent", "5", suite="small", code=4
    )


def test_an_sae_without_data_has_its_neighbours_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: Callable[..., str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for width in (12, 24, 48):
        write_sae(tmp_path / f"w{width}", width)
    Path("bare.toml").write_text(
        '[[sae]]\nname = "w{width}"\nuri = "file:w{width}"\naxes = { width = [12, 24, 48] }\n'
        '[[metric]]\nname = "fidelity"\n'
    )
    measure(Path("bare.toml"))
    page = " ".join(shown("--latent", "5", suite="bare").split())
    assert "The SAE has no data, so it is unknown where its latents fire." in page
    assert "nearest latents of w24" in page
    bare_card: dict[str, Any] = json.loads(shown("--latent", "5", "--json", suite="bare"))
    assert (bare_card["label"], bare_card["firing"], bare_card["tokens"]) == (None, None, [])
