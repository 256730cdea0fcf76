"""Gemma Scope: what the files compute, what the names tell, and how little memory loading takes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import D, M, gemma_scope, parameters
from safetensors.torch import save_file

from saebench_canon.errors import CanonError, NotOffline
from saebench_canon.plugin.ref import Ref
from saebench_canon.plugin.registry import load_registry
from saebench_canon.saes.formats.gemma_scope import GEMMA_SCOPE, PathFacts, path_facts
from saebench_canon.testing import check_adapter

RES = "google/gemma-scope-2b-pt-res"
SAE = "layer_12/width_16k/average_l0_82"
SNAPSHOT = "models--google--gemma-scope-2b-pt-res/snapshots/0123abc"


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and no network."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "hub"


def local(path: Path) -> Ref:
    return Ref.parse(f"gemma-scope:{path}")


def written(folder: Path, **changed: torch.Tensor) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = parameters() | changed
    np.savez(folder / "params.npz", **{name: tensor.numpy() for name, tensor in tensors.items()})
    return folder


def second(folder: Path, *, config: dict[str, Any] | None = None, **more: torch.Tensor) -> Path:
    """A folder of Gemma Scope 2."""
    folder.mkdir(parents=True, exist_ok=True)
    w = {name.lower(): tensor for name, tensor in parameters().items()}
    save_file(w | more, folder / "params.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def expected(x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """Reconstructions by the definition, of activations that the SAE reads times a factor."""
    w = parameters()
    pre = (x * scale) @ w["W_enc"] + w["b_enc"]
    codes = pre.relu() * (pre > w["threshold"])
    return (codes @ w["W_dec"] + w["b_dec"]) / scale


def drawn(n: int = 60) -> torch.Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(3))


def test_a_file_computes_what_its_makers_say(tmp_path: Path) -> None:
    sae = GEMMA_SCOPE.load(local(gemma_scope(tmp_path)))
    x = drawn()
    torch.testing.assert_close(sae.decode(sae.encode(x)), expected(x))
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(M))


def test_an_embedding_is_read_on_the_scale_on_which_the_model_hands_it_on(tmp_path: Path) -> None:
    folder = written(tmp_path / "embedding" / "width_4k" / "average_l0_6")
    assert GEMMA_SCOPE.describe(local(folder)).hook == "blocks.0.hook_resid_pre"
    sae, x = GEMMA_SCOPE.load(local(folder)), math.sqrt(D) * drawn()
    torch.testing.assert_close(sae.decode(sae.encode(x)), expected(x, 1 / math.sqrt(D)))
    plain = written(tmp_path / "layer_0" / "width_4k" / "average_l0_6")
    assert GEMMA_SCOPE.identity(local(folder)) != GEMMA_SCOPE.identity(local(plain))


def test_the_second_generation_is_the_same_in_other_files(tmp_path: Path) -> None:
    config = {"architecture": "jump_relu", "hf_hook_point_in": "model.layers.9.output"}
    folder = second(tmp_path / "resid_post" / "layer_9_width_16k_l0_small", config=config)
    bare = second(tmp_path / "bare")
    x = drawn()
    for path in (folder, bare):
        sae = GEMMA_SCOPE.load(local(path))
        torch.testing.assert_close(sae.decode(sae.encode(x)), expected(x))


@pytest.mark.parametrize(
    ("config", "more"),
    [
        ({"architecture": "relu"}, {}),
        ({"architecture": "jump_relu", "hf_hook_point_out": "model.layers.9.mlp"}, {}),
        (None, {"affine_skip_connection": torch.zeros(D, D)}),
        (None, {"w_dec": torch.ones(M, D + 1), "b_dec": torch.zeros(D + 1)}),
    ],
    ids=["another activation", "another hook for the output", "a skip", "another width"],
)
def test_transcoders_of_the_second_generation_are_refused(
    tmp_path: Path, config: dict[str, Any] | None, more: dict[str, torch.Tensor]
) -> None:
    folder = second(tmp_path / "sae", config=config, **more)
    with pytest.raises(CanonError, match=r"transcoder|not 'jump_relu'"):
        GEMMA_SCOPE.describe(local(folder))


@pytest.mark.parametrize(
    ("path", "facts", "d", "hook"),
    [
        (f"{RES}/{SAE}", PathFacts("gemma-2-2b", "google/gemma-2-2b", "res", 12, 2**14, 82), 2304,
         "blocks.12.hook_resid_post"),
        (f"/hub/{SNAPSHOT}/{SAE}",
         PathFacts("gemma-2-2b", "google/gemma-2-2b", "res", 12, 2**14, 82), 2304,
         "blocks.12.hook_resid_post"),
        (f"/hub/{SNAPSHOT}/{SAE}/params.npz",
         PathFacts("gemma-2-2b", "google/gemma-2-2b", "res", 12, 2**14, 82), 2304,
         "blocks.12.hook_resid_post"),
        ("google/gemma-scope-9b-it-res/layer_20/width_131k/average_l0_13",
         PathFacts("gemma-2-9b", "google/gemma-2-9b-it", "res", 20, 2**17, 13), 3584,
         "blocks.20.hook_resid_post"),
        ("google/gemma-scope-2b-pt-att/layer_0/width_65k/average_l0_39",
         PathFacts("gemma-2-2b", "google/gemma-2-2b", "att", 0, 2**16, 39), 2048,
         "blocks.0.attn.hook_z"),
        ("google/gemma-scope-27b-pt-mlp/layer_7/width_1m/average_l0_9",
         PathFacts("gemma-2-27b", "google/gemma-2-27b", "mlp", 7, 2**20, 9), 4608,
         "blocks.7.hook_mlp_out"),
        ("google/gemma-scope-2-4b-pt/resid_post_all/layer_0_width_262k_l0_big",
         PathFacts("gemma-3-4b", "google/gemma-3-4b-pt", "res", 0, 2**18), 2560,
         "blocks.0.hook_resid_post"),
        ("google/gemma-scope-2-270m-pt/attn_out/layer_5_width_16k_l0_small",
         PathFacts("gemma-3-270m", "google/gemma-3-270m", "att", 5, 2**14), 1024,
         "blocks.5.attn.hook_z"),
        (f"/somewhere/{SAE}", PathFacts(None, None, None, 12, 2**14, 82), None, None),
        ("/somewhere/else", PathFacts(), None, None),
        ("/my-gemma-scope-2b-pt-resampled/else", PathFacts(), None, None),
    ],
)  # fmt: skip
def test_names_tell_model_hook_and_sizes(
    path: str, facts: PathFacts, d: int | None, hook: str | None
) -> None:
    assert path_facts(path) == facts
    assert (path_facts(path).d, path_facts(path).hook) == (d, hook)


@pytest.mark.parametrize(
    ("written", "width"),
    [("4k", 4096), ("16k", 16384), ("32k", 32768), ("65k", 65536), ("131k", 131072),
     ("262k", 262144), ("524k", 524288), ("1m", 1048576)],
)  # fmt: skip
def test_what_is_not_on_this_machine_is_described_by_its_name(written: str, width: int) -> None:
    description = GEMMA_SCOPE.describe(
        Ref.parse(f"gemma-scope://{RES}/layer_12/width_{written}/average_l0_5")
    )
    assert (description.d, description.width, description.prepend_bos) == (2304, width, True)
    assert description.metadata == {"average_l0": 5}


def test_every_sae_that_saelens_lists_is_understood() -> None:
    from saebench_canon.saes.formats.saelens_releases import releases

    known = ("gemma_2", "gemma_3")
    count = 0
    for release in releases().values():
        if release.loader not in known:
            continue
        for folder in release.folders.values():
            facts = path_facts(f"{release.repository}/{folder}")
            transcoder = "transcoder" in folder or "clt" in folder
            assert facts.transcoder == transcoder, (release.repository, folder)
            if not transcoder:
                count += 1
                assert None not in (facts.width, facts.d, facts.hook), (release.name, folder)
    assert count > 1000


@pytest.mark.parametrize(
    "name",
    [
        "google/gemma-scope-2b-pt-transcoders/layer_0/width_16k/average_l0_76",
        "google/gemma-scope-2-4b-pt/transcoder_all/layer_0_width_16k_l0_big_affine",
    ],
)
def test_transcoders_are_refused_by_their_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(CanonError, match="a transcoder, which reconstructs other activations"):
        GEMMA_SCOPE.describe(Ref.parse(f"gemma-scope://{name}"))
    folder = written(tmp_path / name)
    with pytest.raises(CanonError, match="a transcoder, which reconstructs other activations"):
        GEMMA_SCOPE.load(local(folder))


def test_a_repository_in_the_cache_is_read_and_what_is_not_there_is_a_sentence(hub: Path) -> None:
    ref = Ref.parse(f"gemma-scope://{RES}/{SAE}")
    with pytest.raises(NotOffline, match="not in the hub's cache"):
        GEMMA_SCOPE.load(ref)
    written(hub / SNAPSHOT / SAE)
    (hub / SNAPSHOT).parents[1].joinpath("refs").mkdir()
    (hub / SNAPSHOT).parents[1].joinpath("refs", "main").write_text("0123abc")
    description = GEMMA_SCOPE.describe(ref)
    assert (description.d, description.width, description.hook) == (
        D,
        M,
        "blocks.12.hook_resid_post",
    )
    assert description.model == "google/gemma-2-2b"
    assert GEMMA_SCOPE.load(ref).width == GEMMA_SCOPE.load(Ref.parse(f"{ref}@0123abc")).width == M
    with pytest.raises(NotOffline):
        GEMMA_SCOPE.load(Ref.parse(f"{ref}@fedcba9"))


def test_a_bare_path_is_recognised(tmp_path: Path) -> None:
    registry, folder = load_registry(), gemma_scope(tmp_path)
    assert registry.claim(folder) == f"gemma-scope:{folder}"
    assert registry.claim(folder / "params.npz") == f"gemma-scope:{folder / 'params.npz'}"
    assert registry.adapter("file").describe(Ref.parse(f"file:{folder}")).width == M
    assert registry.claim(second(tmp_path / "two")) == f"gemma-scope:{tmp_path / 'two'}"
    (folder / "cfg.json").write_text("{}")
    (folder / "sae_weights.safetensors").write_bytes(b"")
    with pytest.raises(CanonError, match=r"two formats.*Name one of them: saelens:"):
        registry.claim(folder)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"threshold": torch.zeros(M + 1)}, "threshold has shape"),
        ({"W_enc": torch.zeros(M, D)}, "W_enc has shape"),
        ({"b_enc": torch.full((M,), torch.nan)}, "b_enc holds a value that is not finite"),
        ({"W_dec": torch.zeros(M, D)}, "rows of zeros"),
        ({"scaling_factor": torch.ones(M)}, "scaling_factor, which is no part"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, changed: dict[str, torch.Tensor], message: str
) -> None:
    with pytest.raises(CanonError, match=message):
        GEMMA_SCOPE.load(local(written(tmp_path / "sae", **changed)))


def test_a_lacking_array_is_named(tmp_path: Path) -> None:
    (tmp_path / "sae").mkdir()
    arrays = {name: tensor.numpy() for name, tensor in parameters().items() if name != "threshold"}
    np.savez(tmp_path / "sae" / "params.npz", **arrays)
    with pytest.raises(CanonError, match=r"the file has no threshold \(.*params\.npz\)"):
        GEMMA_SCOPE.describe(local(tmp_path / "sae"))


@pytest.mark.parametrize("make", [gemma_scope, second])
def test_it_is_an_adapter_as_the_kit_checks_them(tmp_path: Path, make: Any) -> None:
    check_adapter(GEMMA_SCOPE, str(local(make(tmp_path / "sae"))))


def test_saelens_reads_the_same_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lens = pytest.importorskip("sae_lens")
    from sae_lens.loading import pretrained_sae_loaders as loaders

    x = 3 * drawn()
    for name in (SAE, "embedding/width_4k/average_l0_6"):
        folder = written(tmp_path / name)
        monkeypatch.setattr(
            loaders, "hf_hub_download", lambda *_, folder=folder, **__: folder / "params.npz"
        )
        config, state, _ = loaders.gemma_2_sae_huggingface_loader(
            RES, name, cfg_overrides={"d_in": D, "d_sae": M}
        )
        theirs = lens.SAE.from_dict(config | {"normalize_activations": "none"})
        theirs.load_state_dict(state)
        ours = GEMMA_SCOPE.load(local(folder))
        bias = parameters()["b_dec"]
        # of an embedding SAELens scales the rows and leaves the bias as it is
        unscaled = (math.sqrt(D) - 1) * bias if "embedding" in name else 0 * bias
        with torch.no_grad():
            rebuilt = theirs.eval()(x) + unscaled
            torch.testing.assert_close(ours.decode(ours.encode(x)), rebuilt, atol=1e-5, rtol=1e-5)
            codes = theirs.encode(x) * theirs.W_dec.norm(dim=1)
            torch.testing.assert_close(ours.encode(x), codes, atol=1e-5, rtol=1e-5)


PEAK = """
import sys, threading, time
from pathlib import Path
import torch
from saebench_canon.saes.formats.gemma_scope import GEMMA_SCOPE
from saebench_canon.plugin.ref import Ref
import saebench_canon.plugin.sae

def status():
    lines = Path("/proc/self/status").read_text().splitlines()
    return {k: int(v.split()[0]) * 1024 for k, v in (l.split(":") for l in lines if l[:3] in
            ("VmH", "Rss"))}

own = [0]
def watch():
    while not done.wait(0.002):
        own.append(status()["RssAnon"])

done = threading.Event()
before = status()
thread = threading.Thread(target=watch)
thread.start()
sae = GEMMA_SCOPE.load(Ref.parse(sys.argv[1]))
done.set()
thread.join()
after = status()
print(sae.width, max(own) - before["RssAnon"], after["VmHWM"] - before["VmHWM"])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_loading_takes_no_second_copy_of_the_weights(tmp_path: Path) -> None:
    width, d = 2**17, 256
    size = 4 * (2 * width * d + 2 * width + d)
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((width, d), dtype=np.float32)
    zeros = np.zeros(width, np.float32)
    np.savez(
        tmp_path / "params.npz",
        W_enc=rows.reshape(d, width), W_dec=rows, b_enc=zeros, threshold=zeros,
        b_dec=np.zeros(d, np.float32),
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PEAK, f"gemma-scope:{tmp_path}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    loaded, private, peak = map(int, done.stdout.split())
    assert loaded == width
    print(f"memory of its own {private / size:.2f}, with pages of the file {peak / size:.2f}")
    assert private < 1.6 * size  # the canonical form, and what looks for values that are not finite
    assert peak < 2.6 * size  # and the pages of the file, which the system may take back
