"""Trainers find planted features, repeat themselves exactly, and save what SAELens opens."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from saebench_canon import progress
from saebench_canon.errors import CanonError
from saebench_canon.plugin.activations import Acts
from saebench_canon.plugin.ref import Ref
from saebench_canon.plugin.sae import CanonicalSAE
from saebench_canon.plugin.trainer import Trained, Trainer, trainer
from saebench_canon.saes.formats.saelens import SaeLensAdapter
from saebench_canon.trainers.architectures import TRAINERS
from saebench_canon.trainers.settings import Revival, Schedule

BY_NAME = {each.name: each for each in TRAINERS}
D, FEATURES = 32, 48


@pytest.fixture(scope="module")
def lens() -> Any:
    """SAELens, imported once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sae_lens
    return sae_lens


def planted(n: int, *, size: float = 1.0) -> Acts:
    """Sparse sums of 48 directions in 32 dimensions around a common bias."""
    g = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(FEATURES, D, generator=g), dim=1)
    on = torch.rand(n, FEATURES, generator=g) < 0.06
    codes = on * (0.5 + torch.rand(n, FEATURES, generator=g))
    bias = 0.3 * torch.randn(D, generator=g)
    return Acts(size * (codes @ rows + bias), torch.arange(n) // 50)


def load(folder: Path) -> CanonicalSAE:
    return SaeLensAdapter().load(Ref.parse(f"saelens:{folder}"))


def explained(sae: CanonicalSAE, x: Tensor) -> float:
    error = (x - sae.decode(sae.encode(x))).pow(2).sum()
    return float(1 - error / (x - x.mean(dim=0)).pow(2).sum())


def settings_of(each: Trainer, **settings: Any) -> dict[str, Any]:
    known = {"k": 4, "lr": 3e-3, "batch_size": 256, "dead_after": 20_000, **settings}
    return {key: value for key, value in known.items() if key in each.settings}


@pytest.mark.parametrize("name", BY_NAME)
def test_each_architecture_explains_planted_features(lens: Any, tmp_path: Path, name: str) -> None:
    acts, each = planted(20_000), BY_NAME[name]
    trained = each.train(
        acts, tmp_path, width=FEATURES, seed=0, **settings_of(each, tokens=300_000)
    )
    sae, x = load(tmp_path), acts.x
    assert explained(sae, x) > 0.8
    assert sae.encode_sparse(x).l0 < 6
    assert trained.tokens == trained.steps * 256
    kept = 20_000 - 8 * 256 * ("batch" in name or name == "matryoshka")  # for the threshold
    assert trained.epochs == pytest.approx(trained.tokens / kept)
    theirs = lens.SAE.load_from_disk(tmp_path)
    with torch.no_grad():
        expected = theirs(x[:500])
    ours = sae.decode(sae.encode(x[:500]))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    assert theirs.cfg.metadata.epochs == trained.epochs
    assert theirs.cfg.metadata.training_architecture == lens_name(name)


def lens_name(name: str) -> str:
    return {"relu": "standard", "matryoshka": "matryoshka_batchtopk"}.get(name, name)


def bytes_of(each: Trainer, acts: Acts, folder: Path, *, seed: int) -> dict[str, bytes]:
    each.train(acts, folder, width=16, seed=seed, **settings_of(each, tokens=2_000, batch_size=64))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", BY_NAME)
def test_a_seed_is_all_that_decides(lens: Any, tmp_path: Path, name: str) -> None:
    acts, each = planted(1_000), BY_NAME[name]
    state = torch.get_rng_state()
    first = bytes_of(each, acts, tmp_path / "first", seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(17)
    assert bytes_of(each, acts, tmp_path / "again", seed=0) == first
    other = bytes_of(each, acts, tmp_path / "other", seed=1)
    assert other["sae_weights.safetensors"] != first["sae_weights.safetensors"]


@pytest.mark.parametrize("name", ["relu", "topk", "batchtopk"])
def test_the_size_of_activations_does_not_matter(lens: Any, tmp_path: Path, name: str) -> None:
    each = BY_NAME[name]
    scores = []
    for size in (1.0, 64.0):
        acts, folder = planted(2_000, size=size), tmp_path / str(size)
        each.train(acts, folder, width=16, seed=0, **settings_of(each, tokens=20_000))
        scores.append((explained(load(folder), acts.x), load(folder).encode_sparse(acts.x).l0))
    assert scores[0] == pytest.approx(scores[1], rel=1e-3)


def test_the_threshold_of_batchtopk_keeps_its_l0(lens: Any, tmp_path: Path) -> None:
    acts, trainer = planted(20_000), BY_NAME["batchtopk"]
    trainer.train(acts, tmp_path, width=FEATURES, seed=0, **settings_of(trainer, tokens=60_000))
    assert load(tmp_path).encode_sparse(acts.x).l0 == pytest.approx(4, rel=0.1)


def test_the_ragged_tail_of_an_epoch_is_dropped(lens: Any) -> None:
    from saebench_canon.trainers.training_loop import Batches

    x = torch.arange(1.0, 11.0)[:, None]
    batches = Batches(x, 3, seed=0, holdout=0.2)
    drawn = batches.training()
    seen = [next(drawn) / batches.factor for _ in range(6)]
    assert {len(batch) for batch in seen} == {3}
    first, second = torch.cat(seen[:2]), torch.cat(seen[2:4])
    assert len(first.unique()) == 6
    assert not torch.equal(first, second)
    drawn = batches.held_out()
    held_out = torch.cat([next(drawn) for _ in range(2)]) / batches.factor
    assert not set(held_out.flatten().round().tolist()) & set(
        torch.cat(seen).flatten().round().tolist()
    )


@pytest.mark.parametrize(
    ("tokens", "holdout", "held_out"),
    [
        (20_000, 0.0, 0),
        (20_000, 0.05, 1_000),  # more than 8 batches of 64
        (4_000, 0.05, 512),  # 8 batches
        (1_000, 0.05, 200),  # a fifth of the tokens
        (1_000, 0.5, 500),  # asked for
    ],
)
def test_the_threshold_rests_on_several_batches_where_the_data_allows(
    lens: Any, tokens: int, holdout: float, held_out: int
) -> None:
    from saebench_canon.trainers.training_loop import Batches

    batches = Batches(torch.ones(tokens, 2), 64, seed=0, holdout=holdout)
    assert batches.tokens == tokens - held_out


def test_the_threshold_is_read_from_tokens_that_training_never_saw(
    lens: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saebench_canon.trainers import training_loop as loop

    trained: list[Tensor] = []
    asked: list[Tensor] = []
    draw, threshold = loop.Batches.training, loop.threshold

    def noting(batches: Any, seen: list[Tensor]) -> Any:
        for batch in batches:
            seen.append(batch)
            yield batch

    monkeypatch.setattr(loop.Batches, "training", lambda self: noting(draw(self), trained))
    monkeypatch.setattr(loop, "threshold", lambda sae, b: threshold(sae, noting(b, asked)))
    acts = planted(1_000)
    noise = 0.1 * torch.randn(acts.x.shape, generator=torch.Generator().manual_seed(1))
    bytes_of(BY_NAME["batchtopk"], Acts(acts.x + noise, acts.doc), tmp_path, seed=0)
    seen = {tuple(row) for row in torch.cat(trained).tolist()}
    fresh = {tuple(row) for row in torch.cat(asked).tolist()}
    assert len(asked) == loop.THRESHOLD_BATCHES
    assert 100 < len(fresh) <= 200
    assert not seen & fresh


def test_the_learning_rate_warms_up_and_decays() -> None:
    schedule = Schedule(tokens=1_000, batch_size=10, lr=1.0, warm_up=0.1, decay=0.5)
    rates = [schedule.rate(step) for step in range(schedule.steps)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[50] == 1.0
    assert rates[75] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.02)


def reference(sae: Any, x: Tensor, *, revival: Any, dead: Tensor) -> Tensor:
    """The loss by SAELens' own forward pass, plus the auxiliary loss by its definition."""
    from sae_lens.saes.sae import TrainStepInput

    out = sae.training_forward_pass(TrainStepInput(x, {"l1": 0.7}, None, 0, False))
    if revival is None:
        return out.loss
    norms = sae.W_dec.norm(dim=1)
    unselected = torch.where(dead, out.hidden_pre, 0).relu()
    best = unselected.topk(revival.aux_k, dim=1)
    kept = torch.zeros_like(unselected).scatter(1, best.indices, best.values)
    rest = (x - out.sae_out).detach() - (kept / norms) @ sae.W_dec
    return out.loss + revival.aux_coefficient * rest.pow(2).sum(dim=1).mean()


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("share", [0.0, 2.0], ids=["dense", "sparse"])
@pytest.mark.parametrize("kind", ["relu", "topk", "batchtopk", "matryoshka"])
def test_gradients_in_closed_form_are_those_of_saelens(
    lens: Any, kind: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saebench_canon.trainers import gradients

    monkeypatch.setattr(gradients, "SPARSE", share)
    width, k, widths = 24, 5, (6, 12, 24)
    config, select = {
        "relu": lambda: (lens.StandardTrainingSAEConfig(D, width), None),
        "topk": lambda: (lens.TopKTrainingSAEConfig(D, width, k=k), gradients.LargestOfToken(k)),
        "batchtopk": lambda: (
            lens.BatchTopKTrainingSAEConfig(D, width, k=k),
            gradients.LargestOfBatch(k),
        ),
        "matryoshka": lambda: (
            lens.MatryoshkaBatchTopKTrainingSAEConfig(
                D, width, k=k, matryoshka_widths=list(widths)
            ),
            gradients.LargestOfBatch(k),
        ),
    }[kind]()
    config.dtype = "float64"
    sae = lens.TrainingSAE.from_dict(config.to_dict())
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in sorted(sae.named_parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=g))
    x = torch.randn(40, D, generator=g, dtype=torch.float64)
    dead = torch.rand(width, generator=g) < 0.4
    revival = None if kind == "relu" else Revival(0.3, 3, 0)
    expected = reference(sae, x, revival=revival, dead=dead)
    expected.backward()
    grads = {name: parameter.grad.clone() for name, parameter in sae.named_parameters()}
    sae.zero_grad()
    for _ in range(2):  # the second time the batch selection starts from the first one's bound
        result = gradients.set_gradients(
            sae,
            x,
            select=select,
            l1=0.7 if kind == "relu" else 0.0,
            widths=widths if kind == "matryoshka" else (),
            revival=revival,
            dead=dead,
        )
        torch.testing.assert_close(result.loss, expected.detach())
        for name, parameter in sae.named_parameters():
            torch.testing.assert_close(parameter.grad, grads[name])


@pytest.mark.parametrize("width", [16, 600])
def test_selections_keep_the_largest(width: int) -> None:
    from saebench_canon.trainers import gradients

    g = torch.Generator().manual_seed(0)
    batch = gradients.LargestOfBatch(3)
    for size in (1.0, 0.1, 30.0):
        z = size * torch.randn(50, width, generator=g)
        assert ((z >= gradients.LargestOfToken(3)(z)).sum(dim=1) == 3).all()
        assert (z >= batch(z)).sum() == 150


@pytest.mark.parametrize("width", [16, 600])
def test_indices_are_those_of_the_selected_codes(width: int) -> None:
    from saebench_canon.trainers import gradients

    z = torch.randn(50, width, generator=torch.Generator().manual_seed(0))
    for select in (gradients.LargestOfToken(3), gradients.LargestOfBatch(3)):
        selected = (z >= select(z)) & (z > 0)
        assert select.indices(z).tolist() == selected.view(-1).nonzero()[:, 0].tolist()


def test_gradients_are_clipped_as_torch_clips_them() -> None:
    from saebench_canon.trainers import training_loop as loop

    g = torch.Generator().manual_seed(0)
    for size in (0.01, 10.0):
        mine = [size * torch.randn(4, 3, generator=g), size * torch.randn(5, generator=g)]
        theirs = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in mine]
        for parameter, gradient in zip(theirs, mine, strict=True):
            parameter.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        loop.clip(mine, 1.0)
        for gradient, parameter in zip(mine, theirs, strict=True):
            torch.testing.assert_close(gradient, parameter.grad)


def test_progress_is_reported(lens: Any, tmp_path: Path) -> None:
    reports: list[tuple[str, int, int]] = []
    with progress.listening(lambda *report: reports.append(report)):
        bytes_of(BY_NAME["topk"], planted(500), tmp_path, seed=0)
    assert reports[0] == ("training topk 16", 0, 31)
    assert reports[-1][1:] == (31, 31)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("topk", {"k": 17}, "k must be between 1 and the width, 16, got 17"),
        ("batchtopk", {"k": 0}, "k must be between 1 and the width, 16, got 0"),
        ("relu", {"tokens": 10}, "less than one batch"),
        ("relu", {"batch_size": 4_096, "tokens": 10_000}, "a batch has 4096 tokens"),
        ("relu", {"lr": 1e30}, "diverged"),
        ("relu", {"lr": 0.0}, "lr must be above 0, got 0"),
        ("relu", {"batch_size": 0}, "batch_size must be above 0, got 0"),
        ("relu", {"decay": 1.5}, "decay must be a share of the steps from 0 to 1, got 1.5"),
        ("batchtopk", {"threshold_share": 1.0}, "held-out"),
        ("matryoshka", {"levels": 6}, "cannot be halved"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    lens: Any, tmp_path: Path, name: str, settings: dict[str, Any], says: str
) -> None:
    trainer = BY_NAME[name]
    known = {"tokens": 2_000, "batch_size": 64, **settings}
    with pytest.raises(CanonError, match=says):
        trainer.train(planted(1_000), tmp_path, width=16, seed=0, **settings_of(trainer, **known))


def test_activations_without_size_are_refused(lens: Any, tmp_path: Path) -> None:
    for x in (torch.zeros(500, D), torch.full((500, D), float("nan"))):
        with pytest.raises(CanonError, match="all zero"):
            BY_NAME["relu"].train(
                Acts(x, torch.zeros(500)), tmp_path, width=16, seed=0, batch_size=64
            )


def test_a_trainer_is_a_function_with_defaults() -> None:
    @trainer(version=3)
    def mine(acts: Acts, folder: Path, *, width: int, seed: int, depth: int = 2) -> Trained:
        """Train my way."""
        return Trained(depth, 1.0, width, 0.0)

    assert (mine.name, mine.version, dict(mine.settings)) == ("mine", 3, {"depth": 2})
    assert mine.help == "Train my way."
    assert mine.train(planted(1), Path(), width=5, seed=0, depth=9).tokens == 9

    def without(acts: Acts, folder: Path, *, width: int, seed: int, depth: int) -> Trained: ...  # type: ignore[empty-body]
    def loose(acts: Acts, folder: Path, *, width: int, seed: int, **more: int) -> Trained: ...  # type: ignore[empty-body]
    def seedless(acts: Acts, folder: Path, *, width: int) -> Trained: ...  # type: ignore[empty-body]

    for function, says in (
        (without, "'depth' has no default"),
        (loose, r"takes \*more"),
        (seedless, "must take"),
    ):
        with pytest.raises(CanonError, match=says):
            trainer(version=1)(function)
