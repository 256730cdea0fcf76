"""SAEs named on the command line: what they stand for, and whose checkpoint a path is."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import torch
from clone import ROOT
from planted import D, write_acts, write_sae

from saebench_canon.bench.plan import make_plan
from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError
from saebench_canon.plugin.known_formats import install
from saebench_canon.plugin.ref import Ref
from saebench_canon.plugin.registry import load_registry
from saebench_canon.saes.unclaimed import lacking_plugin
from saebench_canon.saes.weights.safetensors_file import SafetensorsFile
from saebench_canon.suite.from_command_line import Options, suite_of_saes


def suite_of(*saes: Path | str, metrics: str = "fidelity", **asked: str) -> dict:  # type: ignore[type-arg]
    text, *_ = suite_of_saes(list(map(str, saes)), Options(metrics, **asked), load_registry())
    return tomllib.loads(text)


def test_widths_are_read_and_equal_ones_counted(tmp_path: Path) -> None:
    paths = [write_sae(tmp_path / str(i), width, seed=i) for i, width in enumerate((8, 12, 8))]
    saes = suite_of(*paths)["sae"]
    assert [sae["axes"] for sae in saes] == [
        {"width": [8], "seed": [0]}, {"width": [12], "seed": [0]}, {"width": [8], "seed": [1]},
    ]  # fmt: skip


def test_a_folder_of_seeds_opens_as_a_group(tmp_path: Path) -> None:
    for seed in (10, 2, 3):
        write_sae(tmp_path / "layers.3" / f"seed{seed}", 8, seed=seed)
    saes = suite_of(tmp_path / "layers.3", metrics="seed_matching")["sae"]
    assert [sae["axes"]["seed"] for sae in saes] == [[2], [3], [10]]
    assert [Path(Ref.parse(sae["uri"]).target).name for sae in saes] == ["seed2", "seed3", "seed10"]


def test_what_does_not_apply_is_said_and_the_rest_is_measured(tmp_path: Path) -> None:
    sae = write_sae(tmp_path / "sae", 8)
    text, called, left_out = suite_of_saes(
        [str(sae)], Options("meta_sae,stitching,seed_matching"), load_registry()
    )
    assert [metric["name"] for metric in tomllib.loads(text)["metric"]] == ["meta_sae"]
    assert called == ()
    assert [each.partition(": ")[0] for each in left_out] == ["not measured"] * 2
    with pytest.raises(CanonError, match="stitching compares two widths"):
        suite_of_saes([str(sae)], Options("stitching"), load_registry())


def test_saes_that_differ_in_more_than_their_seed_are_no_seeds(tmp_path: Path) -> None:
    for at, (hook, k) in enumerate((("a", 2), ("a", 2), ("b", 2), ("b", 3))):
        folder = write_sae(tmp_path / str(at), 8, seed=at)
        config = json.loads((folder / "cfg.json").read_text())
        config |= {"architecture": "topk", "k": k, "metadata": {"hook_name": hook}}
        (folder / "cfg.json").write_text(json.dumps(config))
    told = suite_of(tmp_path, metrics="seed_matching")
    names = [sae["name"] for sae in told["sae"]]
    assert names == ["2-a-w8-s0", "2-a-w8-s1", "2-b-w8-s0", "3-b-w8-s0"]
    hooks = [tmp_path / "0", tmp_path / "2"]
    with pytest.raises(CanonError, match="differ in their seed only"):
        suite_of(*hooks, metrics="seed_matching")
    assert [sae["name"] for sae in suite_of(*hooks)["sae"]] == ["a-w8", "b-w8"]


def test_k_may_grow_along_a_ladder(tmp_path: Path) -> None:
    for width in (8, 16):
        folder = write_sae(tmp_path / str(width), width)
        config = json.loads((folder / "cfg.json").read_text())
        config |= {"architecture": "topk", "k": width // 4}
        (folder / "cfg.json").write_text(json.dumps(config))
    told = suite_of(tmp_path, metrics="stitching")
    assert [sae["name"] for sae in told["sae"]] == ["w8", "w16"]


def test_seeds_are_peers_and_pairs_get_their_floor(tmp_path: Path) -> None:
    for width in (8, 12):
        for seed in (0, 1, 2):
            write_sae(tmp_path / f"w{width}" / f"seed{seed}", width, seed=seed)
    told = suite_of(tmp_path, metrics="fidelity,stitching")["metric"]
    assert told == [
        {"name": "fidelity"},
        {"name": "stitching", "peers": "seed"},
        {
            "name": "stitching",
            "label": "stitching_floor",
            "over": "all-pairs:seed",
            "peers": "seed",
        },
    ]


def test_what_is_named_twice_and_texts_that_are_not_there_are_refused(tmp_path: Path) -> None:
    sae = write_sae(tmp_path / "sae", 8)
    with pytest.raises(CanonError, match="is named twice"):
        suite_of(sae, tmp_path)
    with pytest.raises(CanonError, match=r"the file nothere\.jsonl does not exist \(--text\)"):
        suite_of(
            sae, data="packaged:tiny-lm", hook="blocks.0.hook_resid_post", text="nothere.jsonl"
        )


def test_a_claim_that_fails_does_not_take_the_others_down(tmp_path: Path) -> None:
    sae = write_sae(tmp_path / "sae", 8)
    (tmp_path / "none").mkdir()
    for name, body in (("raises", "raise ValueError('oops')"), ("answers", "return 42")):
        file = tmp_path / f"{name}.py"
        file.write_text(TWIN.partition("    return")[0] + f"    {body}\n")
        registry = load_registry([file])
        assert registry.claim(sae) == f"saelens:{sae}"
        with pytest.raises(CanonError, match=f"these plugins fail on it: '{name}'"):
            registry.claim(tmp_path / "none")


def test_a_model_is_data_at_the_hook_that_the_saes_name(tmp_path: Path) -> None:
    one, other = (write_sae(tmp_path / name, 8) for name in ("one", "other"))
    for folder, layer in ((one, 1), (other, 2)):
        config = json.loads((folder / "cfg.json").read_text())
        config["metadata"] = {"hook_name": f"blocks.{layer}.hook_resid_post"}
        (folder / "cfg.json").write_text(json.dumps(config))
    tables = suite_of(one, other, data="packaged:tiny-lm")
    hooks = {name: table["hook"] for name, table in tables["data"].items()}
    assert hooks == {"data": "blocks.1.hook_resid_post", "data-2": "blocks.2.hook_resid_post"}
    assert [sae["data"] for sae in tables["sae"]] == ["data", "data-2"]
    assert tables["data"]["data"]["text"] == "packaged:python-docs"
    asked = suite_of(one, other, data="packaged:tiny-lm", hook="blocks.0.hook_mlp_out")
    assert [table["hook"] for table in asked["data"].values()] == ["blocks.0.hook_mlp_out"]


def test_saes_that_read_activations_in_two_ways_get_two_data_tables(tmp_path: Path) -> None:
    acts = write_acts(tmp_path / "acts.safetensors")
    plain, normed = (write_sae(tmp_path / name, 8) for name in ("plain", "normed"))
    config = json.loads((normed / "cfg.json").read_text())
    (normed / "cfg.json").write_text(json.dumps(config | {"normalize_activations": "layer_norm"}))
    tables = suite_of(plain, normed, data=str(acts))
    assert [sae["data"] for sae in tables["sae"]] == ["data", "data-2"]


def test_a_model_without_a_hook_and_a_missing_file_are_sentences(tmp_path: Path) -> None:
    sae = write_sae(tmp_path / "sae", 8)
    with pytest.raises(CanonError, match=r"does not name its hook.*--hook"):
        suite_of(sae, data="packaged:tiny-lm")
    with pytest.raises(CanonError, match=r"acts\.safetensors does not exist"):
        suite_of(sae, data=str(tmp_path / "acts.safetensors"))


TWIN = """
from saebench_canon import hookimpl

@hookimpl
def canon_claim(path):
    return f"twin:{path}" if (path / "cfg.json").is_file() else None
"""


def test_a_path_that_two_plugins_know_is_an_error_naming_both(tmp_path: Path) -> None:
    sae = write_sae(tmp_path / "sae", 8)
    (tmp_path / "twin.py").write_text(TWIN)
    registry = load_registry([tmp_path / "twin.py"])
    with pytest.raises(CanonError, match="more than one plugin") as caught:
        registry.claim(sae)
    assert "'twin' (twin:" in str(caught.value)
    assert "'built-in' (saelens:" in str(caught.value)


@pytest.mark.parametrize(
    ("files", "distribution"),
    [
        (("ae.pt", "config.json"), "saebench-canon-dictionary-learning"),
        (("sae.safetensors", "cfg.json"), "saebench-canon-sparsify"),
        (("sae.pt", "config.json"), "saebench-canon-batchtopk"),
        (("SAE.pt", "Config.json"), "saebench-canon-batchtopk"),
    ],
)
def test_a_format_whose_plugin_is_lacking_is_named_with_its_install_command(
    tmp_path: Path, files: tuple[str, ...], distribution: str
) -> None:
    folder = tmp_path / "run" / "trainer_0"
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).write_bytes(b"")
    for path in (folder, tmp_path / "run", folder / files[0]):
        with pytest.raises(CanonError, match=f"pip install {distribution}"):
            load_registry().adapters["file"].describe(Ref.parse(f"file:{path}"))


def test_an_openai_file_is_known_by_its_keys(tmp_path: Path) -> None:
    state = {"pre_bias": torch.zeros(D), "latent_bias": torch.zeros(8)}
    torch.save(state, tmp_path / "v5_32k_layer_8.pt")
    known = lacking_plugin(tmp_path / "v5_32k_layer_8.pt")
    assert known is not None
    assert "saebench-canon-openai" in install(known)
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    assert lacking_plugin(tmp_path / "other.pt") is None


def test_each_named_plugin_lies_where_the_command_says() -> None:
    from saebench_canon.plugin.known_formats import KNOWN, OPENAI

    root = ROOT
    if not (root / "plugins").is_dir():
        pytest.skip("not a clone")
    for known in (*KNOWN, OPENAI):
        project = tomllib.loads((root / known.folder / "pyproject.toml").read_text())["project"]
        assert project["name"] == known.distribution


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    """A suite of two SAEs under two names that are one."""
    for seed in (0, 1):
        write_sae(tmp_path / f"s{seed}", 8, seed=0)
    text = (
        '[[sae]]\nname = "s{seed}"\nuri = "file:s{seed}"\naxes = { seed = [0, 1] }\n'
        '[[metric]]\nname = "seed_matching"\n'
    )
    (tmp_path / "twins.toml").write_text(text)
    return tmp_path / "twins.toml"


def test_an_sae_is_not_compared_with_itself(twins: Path) -> None:
    with pytest.raises(CanonError, match="'s0' and 's1' are the same SAE"):
        make_plan(twins, load_registry(), Store(twins.parent / "store"))


def test_what_does_not_fit_into_memory_is_refused_before_it_is_read(
    twins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "psutil.virtual_memory", lambda: type("", (), {"available": 100, "total": 100})()
    )
    monkeypatch.setattr(SafetensorsFile, "blocks", lambda *_: pytest.fail("it was read"))
    with pytest.raises(CanonError, match="100 B are free"):
        make_plan(twins, load_registry(), Store(twins.parent / "store"), to_measure=True)


def write_recorded(folder: Path, rows: int, *, width: int = 8, **metadata: object) -> Path:
    """A random SAE whose configuration records these facts of its training."""
    write_sae(folder, width, seed=rows)
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(config | {"metadata": metadata}))
    return folder


def test_seeds_are_those_that_the_files_record(tmp_path: Path) -> None:
    for at, seed in enumerate((7, 3, 5)):
        write_recorded(tmp_path / f"seed_{at}", at, seed=seed, training_tokens=100)
    saes = suite_of(tmp_path, metrics="seed_matching")["sae"]
    assert [sae["axes"]["seed"] for sae in saes] == [[7], [3], [5]]


@pytest.mark.parametrize("names", [("a", "b", "c"), ("seed_0", "seed_1", "seed_2")])
def test_saes_that_record_one_seed_are_checkpoints(tmp_path: Path, names: tuple[str, ...]) -> None:
    for at, name in enumerate(names):
        write_recorded(tmp_path / name, at, seed=42)
    text, _, sentences = suite_of_saes([str(tmp_path)], Options("fidelity"), load_registry())
    axes = [sae["axes"] for sae in tomllib.loads(text)["sae"]]
    assert axes == [{"checkpoint": [name], "width": [8]} for name in names]
    (sentence,) = sentences
    assert sentence.endswith("several record the same seed (42)")
    with pytest.raises(CanonError, match="differ in their seed only"):
        suite_of(tmp_path, metrics="seed_matching")


@pytest.mark.parametrize("seeds", [(0, 0, 0), (None, None, None), (0, 1, 2)])
def test_a_sweep_is_an_axis_of_its_own(tmp_path: Path, seeds: tuple[int | None, ...]) -> None:
    for at, penalty in enumerate((1.0, 2.0, 4.0)):
        recorded = {} if seeds[at] is None else {"seed": seeds[at]}
        for width in (8, 16):
            folder = tmp_path / f"{width}-{at}"
            write_recorded(folder, at, width=width, l1_coefficient=penalty, **recorded)
    suite = suite_of(tmp_path, metrics="stitching,fidelity")
    axes = [sae["axes"] for sae in suite["sae"]]
    assert {(tuple(a["l1_coefficient"]), tuple(a["width"])) for a in axes} == {
        ((penalty,), (width,)) for penalty in (1.0, 2.0, 4.0) for width in (8, 16)
    }
    assert [metric["name"] for metric in suite["metric"]] == ["stitching", "fidelity"]  # no floor
    with pytest.raises(CanonError, match="differ in their seed only"):
        suite_of(tmp_path, metrics="seed_matching")


def test_checkpoints_of_several_runs_are_seeds_of_one_another_at_each_step(tmp_path: Path) -> None:
    for seed in (0, 1):
        for step in (1000, 2000):
            folder = tmp_path / f"seed{seed}" / str(step)
            write_recorded(folder, seed + step, seed=seed, training_tokens=step)
    saes = suite_of(tmp_path, metrics="seed_matching")["sae"]
    assert sorted((sae["axes"]["training_tokens"], sae["axes"]["seed"]) for sae in saes) == [
        ([1000], [0]), ([1000], [1]), ([2000], [0]), ([2000], [1]),
    ]  # fmt: skip


def test_what_grows_with_the_width_is_no_axis(tmp_path: Path) -> None:
    for width in (8, 16):
        for seed in (0, 1):
            folder = tmp_path / f"{width}-{seed}"
            write_recorded(folder, seed, width=width, seed=seed, l1_coefficient=width / 8)
    assert [list(sae["axes"]) for sae in suite_of(tmp_path)["sae"]] == [["width", "seed"]] * 4
