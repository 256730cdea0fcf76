"""A language model opens from a folder, and what is wrong with a name or folder is a sentence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import STORIES, needs_stories, tiny

from saebench_canon.data import language_model
from saebench_canon.data.language_model import (
    load_language_model,
    model_folder,
    model_identity,
    with_random_weights,
)
from saebench_canon.errors import CanonError, NotOffline
from saebench_canon.saes import hub_offline as hub


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a tiny GPT-2."""
    folder = tmp_path_factory.mktemp("models") / "tiny-gpt2"
    lm = tiny("gpt2")
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    """The same folder, to be spoilt."""
    return shutil.copytree(saved, tmp_path / "copy")


def test_a_folder_loads_quietly_and_as_it_was_saved(saved, capfd):
    lm = load_language_model("tiny-gpt2", folder=saved.parent)
    assert capfd.readouterr() == ("", "")
    assert lm.bos == 1
    assert lm.longest == 64
    assert not lm.model.training
    assert not any(weight.requires_grad for weight in lm.model.parameters())
    for ours, theirs in zip(lm.model.parameters(), tiny("gpt2").model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_random_weights_are_the_seeds_and_leave_the_architecture(saved):
    lm = load_language_model(str(saved), dtype="bfloat16")
    state = torch.get_rng_state()
    first, again, other = (with_random_weights(lm, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    trained, drawn = dict(lm.model.named_parameters()), dict(first.model.named_parameters())
    assert {name: p.shape for name, p in trained.items()} == {
        name: p.shape for name, p in drawn.items()
    }
    assert all(torch.equal(p, dict(again.model.named_parameters())[n]) for n, p in drawn.items())
    for name, weight in drawn.items():
        if weight.ndim == 2:  # biases and norms begin as zeros and ones
            assert not torch.equal(weight, trained[name])
            assert not torch.equal(weight, dict(other.model.named_parameters())[name])
    assert first.model.dtype == torch.bfloat16
    assert not first.model.training
    assert not any(weight.requires_grad for weight in first.model.parameters())
    assert len({lm.identity, first.identity, other.identity}) == 3
    assert first.identity == again.identity


def test_the_dtype_is_the_one_asked_for(saved):
    assert load_language_model(str(saved), dtype="bfloat16").model.dtype == torch.bfloat16
    with pytest.raises(CanonError, match="unknown dtype 'float33'"):
        load_language_model(str(saved), dtype="float33")


def test_soft_capped_attention_is_computed_as_such(tmp_path):
    for family, attention in (("gemma2", "eager"), ("llama", "sdpa")):
        lm = tiny(family)
        lm.model.save_pretrained(tmp_path / family)
        lm.tokenizer.save_pretrained(tmp_path / family)
        loaded = load_language_model(str(tmp_path / family))
        assert loaded.model.config._attn_implementation == attention


def test_the_identity_follows_the_content(saved, copy):
    assert model_identity(str(saved)) == model_identity(str(copy))
    assert load_language_model(str(saved)).identity == model_identity(str(saved))
    (copy / "README.md").write_text("words")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(dict(reversed(config.items()))))
    assert model_identity(str(saved)) == model_identity(str(copy))
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(bytes(weights))
    assert model_identity(str(saved)) != model_identity(str(copy))


def test_the_identity_of_a_hub_model_does_not_depend_on_the_cache():
    assert model_identity("gpt2") == "hub:gpt2@main"
    assert model_identity("a/b", revision="abc") == "hub:a/b@abc"


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("config.json", "the model folder has no config.json"),
        ("model.safetensors", "has no weights"),
        ("tokenizer*", "has no tokenizer"),
    ],
)
def test_a_folder_that_lacks_something_says_what(copy, file, sentence):
    for path in copy.glob(file):
        path.unlink()
    for function in (load_language_model, model_identity):
        with pytest.raises(CanonError, match=sentence):
            function(str(copy))


def test_weights_that_lack_a_tensor_are_not_made_up(copy):
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CanonError, match=r"lack 1 of the model's tensors, for example 'transformer\.h\.1"
    ):
        load_language_model(str(copy))


def with_surplus(copy, *names):
    """A copy of the model with more tensors in its file."""
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    weights |= {name: torch.ones(2) for name in names}
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    return load_language_model(str(copy))


@pytest.mark.parametrize(
    "name",
    [
        "transformer.h.7.mlp.c_fc.weight",  # more blocks than the configuration has
        "h.7.mlp.c_fc.weight",
        "transformer.h.0.attn.q_norm.weight",  # a part that the architecture does not know
        "transformer.h.0.mlp.c_fc.weight_scale",
        "transformer.h.0.attn.c_attn.lora_A.weight",
        "base_model.model.transformer.h.0.attn.c_attn.lora_B.default.weight",
        "transformer.h.1.mlp.ia3_l",
    ],
)
def test_weights_that_would_change_the_model_are_refused(copy, name):
    with pytest.raises(CanonError, match=r"does not use|would not use") as caught:
        with_surplus(copy, name)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["vision_tower.layers.0.weight", "v_head.summary.weight", "mtp.layers.0.norm.weight",
     "transformer.h.0.attn.masked_bias", "transformer.h.0.attn.bias", "score.weight"],
)  # fmt: skip
def test_weights_beside_the_model_are_told(copy, name):
    """Masks that older versions saved are left out by transformers without a word."""
    assert with_surplus(copy, name).surplus in ((name,), ())


def test_a_head_that_is_not_used_is_named(copy):
    lm = with_surplus(copy, "v_head.summary.weight", "vision_tower.layers.0.weight")
    assert lm.surplus == ("v_head.summary.weight", "vision_tower.layers.0.weight")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", b"not weights"),
        ("config.json", b'{"model_type": "mamba9"}'),
        ("config.json", b'{"model_type": "clip"}'),
        ("config.json", b"{"),
        ("tokenizer.json", b"{}"),
    ],
)
def test_a_spoilt_folder_is_a_sentence(copy, file, content):
    (copy / file).write_bytes(content)
    with pytest.raises(CanonError) as caught:
        load_language_model(str(copy))
    assert "\n" not in str(caught.value)
    assert str(copy) in str(caught.value)


def test_a_missing_folder_names_the_nearest(saved):
    with pytest.raises(
        CanonError, match=r"the model folder does not exist \(.*\)\. Did you mean 'tiny-gpt2'"
    ):
        load_language_model(str(saved.parent / "tiny-gtp2"))
    with pytest.raises(CanonError, match="the model is a file, not a folder"):
        model_folder(str(saved / "config.json"))
    with pytest.raises(CanonError, match="no packaged model 'tiny-lmm'"):
        model_folder("packaged:tiny-lmm")


def test_a_packaged_model_is_a_folder_of_the_package(saved, monkeypatch):
    monkeypatch.setattr(language_model, "PACKAGED", saved.parent)
    assert load_language_model("packaged:tiny-gpt2").identity == model_identity(str(saved))


def test_a_hub_that_cannot_be_reached_is_said_at_once(monkeypatch):
    monkeypatch.setattr(hub, "out_of_reach", lambda: True)
    with pytest.raises(
        NotOffline, match=r"neither a folder nor in the cache.* \(nobody/model@v1\)\. Download"
    ):
        load_language_model("nobody/model", revision="v1")


def test_a_hub_model_in_the_cache_opens_without_the_hub(saved, tmp_path, monkeypatch):
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--a--b"
    shutil.copytree(saved, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "out_of_reach", lambda: True)
    found = language_model._check_hub("a/b", None)
    assert found is None


@needs_stories
def test_a_real_model_has_a_stable_identity():
    assert model_identity(str(STORIES)) == "model:c126667d44c6837c6a9085df74915d5d"


def test_a_pointer_of_git_lfs_is_told_from_weights(copy):
    (copy / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    with pytest.raises(CanonError, match=r"Git LFS pointer.*git lfs pull"):
        load_language_model(str(copy))


def test_a_configuration_that_transformers_refuses_is_a_sentence(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"vocab_size": None}))
    with pytest.raises(CanonError, match="does not load"):
        load_language_model(str(copy))


def test_a_tokenizer_without_vocabulary_names_the_files_that_hold_one(copy):
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model"):
        (copy / name).unlink(missing_ok=True)
    with pytest.raises(CanonError, match=r"tokenizer does not load \(.*none of tokenizer\.json"):
        load_language_model(str(copy))


def test_an_adapter_beside_a_model_is_refused(copy):
    (copy / "adapter_config.json").write_text("{}")
    with pytest.raises(CanonError, match=r"holds an adapter.*Merge"):
        load_language_model(str(copy))


class Trap:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
@pytest.mark.parametrize("beside", [False, True])
def test_a_pickled_model_is_refused_and_never_read(copy, tmp_path, name, beside):
    (copy / "model.safetensors").unlink()
    torch.save({"transformer.wte.weight": Trap(str(tmp_path / "ran"))}, copy / name)
    if beside:  # weights of something else
        save_file({"x": torch.zeros(1)}, copy / "other.safetensors")
    with pytest.raises(CanonError, match=r"could run code|no file named model\.safetensors"):
        load_language_model(str(copy))
    if not beside:
        with pytest.raises(CanonError, match=rf"a pickle \({name}\), which could run code"):
            model_identity(str(copy))
    assert not (tmp_path / "ran").exists()


def test_a_pickled_model_of_the_hub_is_refused_too(copy, tmp_path):
    (copy / "model.safetensors").unlink()
    torch.save({"transformer.wte.weight": Trap(str(tmp_path / "ran"))}, copy / "pytorch_model.bin")
    cache, commit = tmp_path / "hub" / "models--of--us", "0" * 40
    shutil.copytree(copy, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache.parent)}
    code = "from saebench_canon.data.language_model import *; load_language_model('of/us')"
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert "the hub model has no weights in safetensors" in result.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("key", "count"), [("vocab_size", 1), ("n_inner", 9), ("n_embd", 40)])
def test_weights_of_another_shape_are_named(copy, key, count):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {key: 24}))
    with pytest.raises(CanonError, match=r"^the weights have .*: '.*' is \[.*\], not \[") as caught:
        load_language_model(str(copy))
    assert (f"(and {count - 1} more differ)" in str(caught.value)) == (count > 1)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("We met issues. For details look at the above report!", "We met issues"),
        ("For details look at the above report!", "RuntimeError"),
    ],
)
def test_no_message_points_at_a_report_that_is_not_printed(copy, monkeypatch, message, said):
    import transformers

    def fail(*_, **__):
        raise RuntimeError(message)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", fail)
    with pytest.raises(CanonError, match=rf"does not load \({said}\)"):
        load_language_model(str(copy))
