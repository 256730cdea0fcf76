"""Checkpoints that dictionary_learning itself writes give its codes and reconstructions.

Codes of ours are upstream's times the norm of the decoder row, the rows being at unit norm here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import saebench_canon_dictionary_learning as plugin
import torch
from torch import Tensor

from saebench_canon import Acts, CanonicalSAE, Ref
from saebench_canon.testing import calibrate

pytest.importorskip("dictionary_learning")
from dictionary_learning import training, utils
from dictionary_learning.trainers import standard
from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
from dictionary_learning.trainers.gdm import GatedSAETrainer
from dictionary_learning.trainers.jumprelu import JumpReluTrainer
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
from dictionary_learning.trainers.p_anneal import PAnnealTrainer
from dictionary_learning.trainers.top_k import TopKTrainer

D, M, K, N, STEPS = 16, 40, 5, 300, 12


CLASSES: dict[str, Any] = {
    "AutoEncoder": lambda: utils.AutoEncoder(D, M),
    "AutoEncoderNew": lambda: utils.AutoEncoderNew(D, M),
    "GatedAutoEncoder": lambda: utils.GatedAutoEncoder(D, M),
    "JumpReluAutoEncoder": lambda: utils.JumpReluAutoEncoder(D, M),
    "AutoEncoderTopK": lambda: utils.AutoEncoderTopK(D, M, K),
    "BatchTopKSAE": lambda: utils.BatchTopKSAE(D, M, K),
    "MatryoshkaBatchTopKSAE": lambda: utils.MatryoshkaBatchTopKSAE(D, M, K, [10, 30]),
}
SELECTS = {"k": K, "auxk_alpha": 0.0}
TRAINERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "standard": (standard.StandardTrainer, {}),
    "april": (standard.StandardTrainerAprilUpdate, {}),
    "p_anneal": (PAnnealTrainer, {}),
    "gated": (GatedSAETrainer, {}),
    "jumprelu": (JumpReluTrainer, {}),
    "top_k": (TopKTrainer, SELECTS),
    "batch_top_k": (BatchTopKTrainer, SELECTS),
    "matryoshka": (MatryoshkaBatchTopKTrainer, {**SELECTS, "group_fractions": [0.25, 0.75]}),
}


def inputs(scale: float = 1.0, seed: int = 3) -> Tensor:
    return scale * (torch.randn(N, D, generator=torch.Generator().manual_seed(seed)) + 0.3)


@pytest.fixture(autouse=True)
def _random() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def randomised(kind: str, *, unit: bool) -> Any:
    """One of upstream's SAEs with nothing left at its initial value; buffers apart."""
    sae = CLASSES[kind]()
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            parameter.copy_((1.0 if parameter.ndim == 2 else 0.3) * torch.randn_like(parameter))
            if name == "threshold":
                parameter.abs_()
        rows = rows_of(sae)
        rows /= rows.norm(dim=1, keepdim=True)
        if not unit:
            rows *= 0.5 + torch.rand(M, 1)
        if "threshold" in dict(sae.named_buffers()):
            sae.threshold.fill_(0.7)
    return sae


def rows_of(sae: Any) -> Tensor:
    """Decoder rows [m, d], the parameter itself."""
    return sae.W_dec.data if hasattr(sae, "W_dec") else sae.decoder.weight.data.T


def save(sae: Any, folder: Path) -> Path:
    """The files that upstream's training ends with."""
    folder.mkdir(parents=True)
    torch.save({k: v.cpu() for k, v in sae.state_dict().items()}, folder / "ae.pt")
    trainer = {"dict_class": type(sae).__name__, "activation_dim": D, "dict_size": M, "k": K}
    (folder / "config.json").write_text(json.dumps({"trainer": trainer}))
    return folder


def load(folder: Path) -> CanonicalSAE:
    return plugin.dictionary_learning.load(Ref.parse(f"dictionary-learning:{folder}"))


@torch.no_grad()
def check(ours: CanonicalSAE, theirs: Any, *, scale: float = 1.0) -> None:
    """The same codes and reconstructions, at once and token by token."""
    x = inputs(scale)
    codes, x_hat = theirs.encode(x), theirs(x)
    assert 0 < int((codes > 0).sum()) < codes.numel()
    near = {"rtol": 1e-5, "atol": 1e-5 * scale}
    our_codes = ours.encode(x)
    torch.testing.assert_close(our_codes, codes * rows_of(theirs).norm(dim=1), **near)
    torch.testing.assert_close(ours.encode_sparse(x).dense(), our_codes, **near)
    torch.testing.assert_close(ours.decode(our_codes), x_hat, **near)
    torch.testing.assert_close(torch.cat([ours.encode(row[None]) for row in x]), our_codes, **near)


@pytest.mark.parametrize("unit", [True, False], ids=["unit rows", "other rows"])
@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_is_read_as_it_computes(tmp_path: Path, kind: str, unit: bool) -> None:
    folder = save(randomised(kind, unit=unit), tmp_path / "trainer_0")
    theirs = utils.load_dictionary(str(folder), device="cpu")[0]
    check(load(folder), theirs)


@pytest.mark.parametrize("kind", ["BatchTopKSAE", "MatryoshkaBatchTopKSAE"])
def test_a_calibrated_threshold_is_what_upstream_would_apply(tmp_path: Path, kind: str) -> None:
    theirs = randomised(kind, unit=False)
    theirs.threshold.fill_(-1)
    ours = calibrate(load(save(theirs, tmp_path / "trainer_0")), Acts(inputs(), torch.arange(N)))
    assert ours.calibration is not None
    theirs.threshold.fill_(ours.calibration.threshold)
    check(ours, theirs)
    with torch.no_grad():
        batch = theirs.encode(inputs(), use_threshold=False)
    share = ((batch > 0) == (ours.encode(inputs()) > 0)).float().mean()
    assert share > 0.999  # all of one batch: only the least of the selected is not above it


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind != "AutoEncoderNew"])
def test_a_backup_is_what_its_scaled_weights_compute(tmp_path: Path, kind: str) -> None:
    """Upstream scales at the end of training; AutoEncoderNew alone cannot be scaled."""
    theirs, factor = randomised(kind, unit=False), 6.5
    folder = save(theirs, tmp_path / "trainer_0")
    optimizer = torch.optim.Adam(theirs.parameters())
    theirs(inputs()).sum().backward()
    optimizer.step()
    backup = {"step": 3, "ae": theirs.state_dict(), "optimizer": optimizer.state_dict(),
              "config": {"dict_class": kind}, "norm_factor": factor}  # fmt: skip
    torch.save(backup, folder / "ae.pt")
    with torch.no_grad():
        theirs.scale_biases(factor)
    check(load(folder), theirs, scale=factor)


class Buffer:
    """Activations as upstream's buffer gives them, with its configuration."""

    config = {"d_submodule": D, "io": "out", "n_ctxs": 10, "ctx_len": 8, "device": "cpu"}  # noqa: RUF012

    def __iter__(self) -> Iterator[Tensor]:
        for step in range(200):
            yield inputs(4.0, seed=100 + step)


@pytest.mark.parametrize("normalise", [True, False], ids=["normalised", "as they are"])
@pytest.mark.parametrize("name", TRAINERS)
def test_what_its_training_leaves_is_read_as_it_computes(
    tmp_path: Path, name: str, normalise: bool
) -> None:
    trainer, settings = TRAINERS[name]
    config = {
        "trainer": trainer, "activation_dim": D, "dict_size": M, "layer": 3, "lm_name": "made/up",
        "steps": STEPS, "lr": 1e-2, "warmup_steps": 1, "device": "cpu", "seed": 1,
        "submodule_name": "resid_post_layer_3", **settings,
    }  # fmt: skip
    if name in ("batch_top_k", "matryoshka"):
        config["threshold_start_step"] = 2
    if "k" not in settings:
        config["sparsity_warmup_steps"] = 2
    training.trainSAE(
        Buffer(), [config], steps=STEPS, save_dir=str(tmp_path), device="cpu",
        normalize_activations=normalise,
    )  # fmt: skip
    folder = tmp_path / "trainer_0"
    ref = Ref.parse(plugin.canon_claim(folder) or "")
    description = plugin.dictionary_learning.describe(ref)
    assert (description.hook, description.model) == ("blocks.3.hook_resid_post", "made/up")
    assert description.calibrated
    check(load(folder), utils.load_dictionary(str(folder), device="cpu")[0], scale=4.0)
