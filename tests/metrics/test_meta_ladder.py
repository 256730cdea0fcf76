"""Along a ladder whose wider SAEs hold sums, rows take more meta-latents as SAEs grow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from brute_force import TinySAE
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saebench_canon.errors import CanonError
from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.nulls import isotropic
from saebench_canon.kernels.random_generators import generator
from saebench_canon.metrics.meta_ladder.metric import meta_ladder
from saebench_canon.metrics.meta_sae.fits import fit_all_rows
from saebench_canon.metrics.meta_sae.settings import MetaTraining
from saebench_canon.metrics.shared.live_rows import live_rows
from saebench_canon.plugin.metric import Measurement, Undefined

QUICK: dict[str, Any] = {"width": 12, "k": 2, "steps": 30}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "test"), dtype=torch.float64).float()


def tiny(rows: Tensor) -> TinySAE:
    return TinySAE(rows, torch.zeros(rows.shape[1]))


def measure(*tables: Tensor, codes: tuple[Codes, ...] | None = None, **more: Any) -> Measurement:
    saes = tuple(tiny(rows) for rows in tables)
    found = meta_ladder.measure(saes, more.pop("seed", 0), codes, None, **more)
    assert isinstance(found, Measurement)
    return found


def ladder(d: int = 48, atoms: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Atoms; sums of two of them; sums of four."""
    g = generator(0, "ladder")
    small = isotropic(atoms, d, g)

    def sums(m: int, count: int) -> Tensor:
        return torch.stack(
            [small[torch.randperm(atoms, generator=g)[:count]].sum(dim=0) for _ in range(m)]
        )

    return small.repeat(2, 1).float(), sums(200, 2).float(), sums(300, 4).float()


def test_the_scores_are_those_of_one_meta_sae_of_all_rows() -> None:
    tables = random(20, 5), random(30, 5, seed=1), random(40, 5, seed=2)
    measured = measure(*tables, **QUICK)
    rows = torch.cat([live_rows(tiny(table), None).rows for table in tables])
    model = fit_all_rows(
        rows, MetaTraining(preset="quarter", width=12, k=2, steps=30).on(90), 0, None
    )
    assert model.b_enc is not None
    z = (rows - model.b_dec[0]) @ model.W_enc[0].T + model.b_enc[0]
    codes = torch.where(z >= model.threshold[0], z, 0)
    guess = codes @ model.W_dec[0] + model.b_dec[0]
    explained = 1 - ((rows - guess) ** 2).sum() / ((rows - rows.mean(dim=0)) ** 2).sum()
    assert measured.scores["explained_variance"] == pytest.approx(float(explained), abs=1e-5)
    active = [table > 0 for table in codes.split([20, 30, 40])]
    l0 = [float(table.sum(dim=1).double().mean()) for table in active]
    assert measured.scores["meta_l0_smallest"] == pytest.approx(l0[0])
    assert measured.scores["meta_l0_largest"] == pytest.approx(l0[2])
    users = [sum(bool(table[:, j].any()) for table in active) for j in range(12)]
    live = [count for count in users if count]
    assert measured.scores["shared_share"] == pytest.approx(live.count(3) / len(live))
    assert measured.scores["own_share"] == pytest.approx(live.count(1) / len(live))
    table = measured.tables["widths"]
    assert table["width"].tolist() == table["latents"].tolist() == [20, 30, 40]
    assert table["meta_l0"].tolist() == pytest.approx(l0)
    alone = [
        sum(users[j] == 1 and bool(each[:, j].any()) for j in range(12)) / len(live)
        for each in active
    ]
    assert table["own_share"].tolist() == pytest.approx(alone)
    assert sum(alone) == pytest.approx(measured.scores["own_share"])
    used = [sum(bool(each[:, j].any()) for j in range(12)) / len(live) for each in active]
    assert table["used_share"].tolist() == pytest.approx(used)
    part, back = rows[20:50], guess[20:50]
    explained = 1 - ((part - back) ** 2).sum() / ((part - part.mean(dim=0)) ** 2).sum()
    assert table["explained_variance"][1] == pytest.approx(float(explained), abs=1e-5)
    assert set(measured.scores) == {score.name for score in meta_ladder.scores}


def test_sums_take_more_meta_latents_than_atoms_do_and_random_rows_do_not() -> None:
    found = measure(*ladder(), width=40, k=3, steps=800, lr=3e-3)
    scores = found.scores
    l0 = found.tables["widths"]["meta_l0"].tolist()
    assert l0[0] < l0[1] < l0[2]
    assert scores["meta_l0_largest"] > scores["meta_l0_smallest"] + 1
    grown = scores["meta_l0_largest_null"] - scores["meta_l0_smallest_null"]
    assert scores["meta_l0_largest"] - scores["meta_l0_smallest"] > grown + 1
    assert scores["explained_variance"] > scores["explained_variance_null"] + 0.2


def test_dictionaries_of_apart_directions_share_no_meta_latent() -> None:
    d, g = 60, generator(1, "apart")
    halves = [isotropic(80, d // 2, g) for _ in range(2)]
    zero = torch.zeros(80, d // 2, dtype=torch.float64)
    apart = [torch.cat([halves[0], zero], dim=1), torch.cat([zero, halves[1]], dim=1)]
    found = measure(apart[0].float(), apart[1].float()[:79], width=40, k=1, steps=800, lr=3e-3)
    same = measure(apart[0].float(), apart[0].float()[:70], width=40, k=1, steps=800, lr=3e-3)
    assert found.scores["own_share"] > 0.9
    assert found.scores["shared_share"] < 0.1
    assert same.scores["shared_share"] > 0.9


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 999))
def test_order_scale_and_dead_latents_change_nothing(seed: int) -> None:
    tables = [random(m, 5, seed=seed + m) for m in (20, 40)]
    g = generator(seed, "change")
    before = measure(*tables, **QUICK)
    changed, codes = [], []
    for rows in tables:
        order = torch.randperm(len(rows), generator=g)
        scale = 2.0 ** torch.randint(-3, 4, (len(rows), 1), generator=g)
        changed.append(torch.cat([random(4, 5, seed=seed), rows[order] * scale]))
        codes.append(Codes.from_dense((torch.arange(len(rows) + 4) >= 4).float().repeat(2, 1)))
    after = measure(*changed, codes=tuple(codes), **QUICK)
    assert after.scores == pytest.approx(before.scores, abs=1e-9)
    assert not after.marks
    assert before.marks


def live_last(m: int, dead: int) -> Codes:
    """Codes of m live latents that follow dead ones."""
    return Codes.from_dense((torch.arange(m + dead) >= dead).float().repeat(2, 1))


def test_sizes_are_live_latents_and_the_members_may_come_in_any_order() -> None:
    tables = random(20, 5), random(40, 5, seed=1), random(20, 5, seed=2)
    wanted = measure(*tables, **QUICK)
    padded = torch.cat([random(50, 5, seed=3), tables[0]]), tables[1], tables[2]
    codes = live_last(20, 50), live_last(40, 0), live_last(20, 0)
    for order in ([0, 1, 2], [1, 2, 0], [2, 1, 0]):
        own = tuple(codes[at] for at in order)
        found = measure(*(padded[at] for at in order), codes=own, **QUICK)
        assert found.scores == wanted.scores
        table = found.tables["widths"]
        assert table["latents"].tolist() == [20, 20, 40]
        assert [order[at] for at in table["member"]][2] == 1
        assert table["width"].tolist() == [len(padded[order[at]]) for at in table["member"]]
    assert wanted.scores["meta_l0_largest"] == wanted.tables["widths"]["meta_l0"][2]


def test_with_as_many_live_latents_there_is_no_smallest() -> None:
    codes = live_last(20, 0), live_last(20, 5)
    found = measure(random(20, 5), random(25, 5, seed=1), codes=codes, **QUICK)
    names = [name for name in found.scores if name.startswith("meta_l0")]
    assert len(names) == 4
    for name, score in found.scores.items():
        assert isinstance(score, Undefined) == (name in names)


def test_an_sae_without_a_live_latent_leaves_every_score_undefined() -> None:
    dead, live = (Codes.from_dense(torch.full((3, m), v)) for m, v in ((20, 0.0), (30, 1.0)))
    found = measure(random(20, 5), random(30, 5, seed=1), codes=(dead, live), **QUICK)
    assert set(found.scores.values()) == {Undefined("an SAE of the group has no live latent")}


def test_too_narrow_a_meta_sae_is_refused() -> None:
    with pytest.raises(CanonError, match="narrower than 2k = 8"):
        measure(random(10, 5), random(12, 5, seed=1))
