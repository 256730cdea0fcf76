"""truth: scores beside plain loops in float64, planted failures, and what must not change them."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from planted_failures import KINDS, Planted, found, measured, plant, world
from torch import Tensor

from saebench_canon.errors import CanonError
from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.common_direction import centred, shares_direction
from saebench_canon.kernels.cosine import unit
from saebench_canon.metrics.truth.metric import truth
from saebench_canon.metrics.truth.rows import Rule, compare
from saebench_canon.plugin.metric import Measurement, Undefined, Value
from saebench_canon.plugin.sae import CanonicalSAE, LinearEncoder
from saebench_canon.plugin.world import TrueFeatures


def random_case(
    seed: int, m: int = 7, features: int = 5, n: int = 300
) -> tuple[CanonicalSAE, Codes, TrueFeatures, Tensor, Tensor]:
    """An SAE and features of five dimensions, whose rows are near to one another."""
    g = torch.Generator().manual_seed(seed)
    true = unit(torch.randn(features, 5, generator=g) + 0.3)
    mixed = torch.cat([true, true[:2] + true[2:4]])[:m].clone()
    rows = unit(mixed + 0.15 * torch.randn(len(mixed), 5, generator=g))
    fires = (torch.rand(n, features, generator=g) < 0.2).float()
    codes = (torch.rand(n, len(rows), generator=g) < 0.25).float() + fires[:, :1] * 0.1
    codes[:, 0] = fires[:, 0]
    parents = torch.tensor([-1, 0, 0, -1, 3])
    known = TrueFeatures(true.float(), Codes.from_dense(fires), parents, list("abcde"))
    encoder = LinearEncoder(rows.float().T.contiguous(), torch.zeros(len(rows)), "relu")
    sae = CanonicalSAE(rows.float(), torch.zeros(5), encoder)
    return sae, Codes.from_dense(codes), known, codes.double(), fires.double()


def scores_of(measurement: object) -> dict[str, float]:
    assert isinstance(measurement, Measurement)
    return {
        name: score.value for name, score in measurement.scores.items() if isinstance(score, Value)
    }


def nnls(row: Tensor, atoms: Tensor) -> tuple[float, list[float]]:
    """The best share of a unit row explained by atoms with weights ≥ 0, over all subsets."""
    best, weights = 0.0, [0.0] * len(atoms)
    for size in range(1, len(atoms) + 1):
        for subset in itertools.combinations(range(len(atoms)), size):
            part = atoms[list(subset)]
            fitted = torch.linalg.lstsq(part.T, row[:, None]).solution[:, 0]
            if bool((fitted >= 0).all()):
                share = 1 - float(((row - fitted @ part) ** 2).sum())
                if share > best + 1e-12:
                    best = share
                    weights = [0.0] * len(atoms)
                    for index, weight in zip(subset, fitted.tolist(), strict=True):
                        weights[index] = weight
    return best, weights


def brute_sum(row: Tensor, features: Tensor) -> bool:
    """Orthogonal matching pursuit with weights ≥ 0, step by step, and the rule."""
    chosen: list[int] = []
    shares: list[float] = []
    weights: list[float] = []
    residual = row.clone()
    for _ in range(4):
        cosines = [
            -math.inf if index in chosen else float(residual @ feature)
            for index, feature in enumerate(features)
        ]
        best = max(range(len(features)), key=lambda index: cosines[index])
        if cosines[best] <= 1e-6:
            break
        chosen.append(best)
        share, weights = nnls(row, features[chosen])
        shares.append(share)
        residual = row - torch.tensor(weights, dtype=torch.float64) @ features[chosen]
    return (
        shares[-1] >= 0.6 and shares[-1] - shares[0] >= 0.2
        and sum(weight**2 for weight in weights) <= 1.6
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_scores_are_those_of_plain_loops(seed: int) -> None:
    sae, codes, known, dense, fires = random_case(seed)
    scores = scores_of(truth.measure(sae, codes, known, 0, draws=1))
    rows, true = unit(sae.W_dec), unit(known.rows)
    cos = [[float(f @ r) for r in rows] for f in true]
    count, m = len(cos), len(rows)
    best = [max(line) for line in cos]
    near = [max(line[r] for line in cos) for r in range(m)]
    assert scores["recovery"] == pytest.approx(sum(best) / count, abs=1e-6)
    assert scores["recall"] == sum(b >= 0.9 for b in best) / count
    assert scores["precision"] == pytest.approx(sum(b >= 0.9 for b in near) / m)
    assert scores["missing_share"] == sum(b < 0.7 for b in best) / count
    matched = max(
        sum(cos[f][r] for f, r in enumerate(order))
        for order in itertools.permutations(range(m), count)
    )
    assert scores["recovery_one_to_one"] == pytest.approx(matched / count, abs=1e-6)
    taken: dict[int, int] = {}
    for r in range(m):
        f = max(range(count), key=lambda index, r=r: cos[index][r])
        taken[f] = taken.get(f, 0) + (cos[f][r] >= 0.9)
    # the best latent of a feature counts as its first, where its own best feature is this one
    extra = sum(
        near[r] >= 0.9 and r != max(range(m), key=lambda index, f=f: cos[f][index])
        for r in range(m)
        for f in [max(range(count), key=lambda index, r=r: cos[index][r])]
    )
    assert scores["duplicate_share"] == pytest.approx(extra / m)
    assert scores["composed_share"] == pytest.approx(sum(brute_sum(r, true) for r in rows) / m)
    f1 = []
    for f in range(count):
        values = []
        for r in range(m):
            both = int(((fires[:, f] > 0) & (dense[:, r] > 0)).sum())
            either = int((fires[:, f] > 0).sum()) + int((dense[:, r] > 0).sum())
            values.append(2 * both / either if either else 0.0)
        f1.append(max(values))
    assert scores["firing_f1"] == pytest.approx(sum(f1) / count)
    assert (
        scores["split_share"]
        == sum(brute_split(f, cos, fires, dense) for f in range(count)) / count
    )
    absorbed = [brute_absorbed(p, cos, fires, dense, known.parents.tolist()) for p in (0, 3)]
    assert scores["absorbed_share"] == sum(absorbed) / 2


def brute_split(f: int, cos: list[list[float]], fires: Tensor, dense: Tensor) -> bool:
    tokens = [t for t in range(len(fires)) if fires[t, f] > 0]
    pieces = [r for r, c in enumerate(cos[f]) if c >= 0.7 and any(dense[t, r] > 0 for t in tokens)]
    each = [sum(bool(dense[t, r] > 0) for t in tokens) / len(tokens) for r in pieces]
    union = sum(any(dense[t, r] > 0 for r in pieces) for t in tokens) / len(tokens)
    return len(pieces) >= 2 and max(each) <= 0.5 and union > 0.5


def brute_absorbed(
    p: int, cos: list[list[float]], fires: Tensor, dense: Tensor, parents: list[int]
) -> bool:
    latent = max(range(len(cos[p])), key=lambda r: cos[p][r])
    if cos[p][latent] < 0.7:
        return False
    left = {t for t in range(len(fires)) if fires[t, p] > 0}
    silent = False
    for child in (index for index, parent in enumerate(parents) if parent == p):
        tokens = [t for t in range(len(fires)) if fires[t, child] > 0]
        if sum(bool(dense[t, latent] > 0) for t in tokens) / len(tokens) < 0.5:
            silent, left = True, left - set(tokens)
    return silent and bool(left) and sum(bool(dense[t, latent] > 0) for t in left) / len(left) > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_failure_is_found_and_no_other(kind: str) -> None:
    result = found(kind)
    assert result.planted >= 8
    assert result.recall == 1
    assert {name: count for name, count in result.counts.items() if count} == {kind: result.planted}


def test_where_nothing_is_planted_nothing_is_found() -> None:
    assert not any(found(None).counts.values())


@pytest.mark.parametrize(
    ("kind", "score", "of"),
    [
        ("composed", "composed_share", "m"), ("duplicate", "duplicate_share", "m"),
        ("split", "split_share", "F"), ("absorbed", "absorbed_share", "parents"),
        ("missing", "missing_share", "F"),
    ],
)  # fmt: skip
def test_a_score_is_the_share_of_what_is_planted(kind: str, score: str, of: str) -> None:
    made = plant(kind)
    scores = scores_of(measured(made))
    latents = 4 if kind == "composed" else 8
    total = {"m": len(made.rows), "F": 60, "parents": 20}[of]
    assert scores[score] == pytest.approx(latents / total)
    others = {name for name in scores if name.endswith("_share")} - {score}
    # a feature that is part of a sum has no latent of its own: its cosine with the sum is .66
    allowed = {"missing_share"} if kind == "composed" else set()
    assert all(scores[name] == 0 for name in others - allowed)


def test_an_sae_that_has_every_feature_scores_one_and_random_rows_do_not() -> None:
    known, fires = world(3)
    made = Planted(known, fires, torch.Generator().manual_seed(0))
    for feature in range(60):
        made.rows.append(known.rows[feature].double())
        made.codes.append(fires[:, feature])
    scores = scores_of(measured(made))
    for name in ("recovery", "recovery_one_to_one", "recall", "precision", "firing_f1"):
        assert scores[name] == pytest.approx(1), name
        assert scores[f"{name}_null"] < 0.6, name
    assert scores["composed_share"] == scores["missing_share"] == 0
    assert scores["missing_share_null"] > 0.9


def test_permuting_and_scaling_latents_changes_nothing() -> None:
    sae, codes, known, dense, _ = random_case(0)
    before = scores_of(truth.measure(sae, codes, known, 0))
    order = torch.tensor([3, 1, 0, 6, 5, 2, 4])
    encoder = LinearEncoder(sae.W_dec[order].T.contiguous(), torch.zeros(7), "relu")
    turned = CanonicalSAE(sae.W_dec[order], sae.b_dec, encoder)
    after = scores_of(truth.measure(turned, Codes.from_dense(8 * dense[:, order]), known, 0))
    assert after == pytest.approx(before, abs=1e-6)


def test_dead_latents_do_not_count_and_none_alive_is_said() -> None:
    sae, _, known, dense, _ = random_case(1)
    dead = dense.clone()
    dead[:, 2] = 0
    scores = truth.measure(sae, Codes.from_dense(dead), known, 0)
    assert isinstance(scores, Measurement)
    precision = scores.scores["precision"]
    assert isinstance(precision, Value)
    assert precision.n == 6
    assert 2 not in scores.tables["latents"]["latent"].tolist()
    none = truth.measure(sae, Codes.from_dense(0 * dense), known, 0)
    assert isinstance(none, Measurement)
    assert none.scores["recovery"] == Undefined("no latent is live")


def test_a_world_without_parents_has_no_absorbed_share() -> None:
    sae, codes, known, _, _ = random_case(2)
    flat = TrueFeatures(known.rows, known.codes, torch.full((5,), -1), known.names)
    scores = truth.measure(sae, codes, flat, 0)
    assert isinstance(scores, Measurement)
    for name in ("absorbed_share", "absorbed_share_null"):
        assert scores.scores[name] == Undefined("no feature of this world needs another one")


def test_rows_that_share_a_direction_are_centred_and_it_is_said() -> None:
    g = torch.Generator().manual_seed(0)
    away = torch.randn(40, 64, generator=g, dtype=torch.float64)
    common = unit(torch.ones(1, 64, dtype=torch.float64))
    true = unit(unit(away) + common)
    rows = unit(unit(away) + 3 * common)  # the same features, with more of the direction
    assert shares_direction(true)
    assert not shares_direction(away)
    fires = (torch.rand(500, 40, generator=g) < 0.1).float()
    known = TrueFeatures(
        true.float(), Codes.from_dense(fires), torch.full((40,), -1), [str(n) for n in range(40)]
    )
    encoder = LinearEncoder(rows.float().T.contiguous(), torch.zeros(40), "relu")
    sae = CanonicalSAE(rows.float(), torch.zeros(64), encoder)
    result = truth.measure(sae, Codes.from_dense(fires), known, 0)
    assert isinstance(result, Measurement)
    scores = scores_of(result)
    assert scores["recall"] < 0.6
    assert scores["recall_centred"] == scores["precision_centred"] == 1
    assert result.marks[0].reason.startswith("the rows of the features and the latents share")


def test_a_row_that_is_the_common_direction_alone_drops_out() -> None:
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(30, 16, generator=g, dtype=torch.float64)
    rows = unit(rows - rows.mean(dim=0))
    table = unit(rows + 2 * torch.eye(16, dtype=torch.float64)[0])
    table = torch.cat([table, unit(unit(table).mean(dim=0)[None])])
    apart, left = centred(table)
    assert left[:30].all()
    assert torch.allclose(apart[left].norm(dim=1), torch.ones(int(left.sum()), dtype=torch.float64))


def test_atoms_that_cancel_explain_nothing() -> None:
    first = unit(torch.tensor([[1.0, 0.0, 0.0], [-0.95, 0.3122, 0.0], [0.0, 0.0, 1.0]]))
    latent = unit(torch.tensor([[0.3, 1.0, 0.0]]))
    assert not compare(first, latent, Rule()).sums.any()
    assert compare(first, latent, Rule(gate=100.0, gain=0.05)).sums.any()


@pytest.mark.parametrize(
    "settings", [{"near": 0.95}, {"found": 1.5}, {"atoms": 1}, {"draws": 0}, {"near": 0.0}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    sae, codes, known, _, _ = random_case(0)
    with pytest.raises(CanonError, match="truth: "):
        truth.measure(sae, codes, known, 0, **settings)


def test_above_its_limit_nothing_is_assigned() -> None:
    sae, codes, known, _, _ = random_case(0)
    result = truth.measure(sae, codes, known, 0, exact_up_to=6)
    assert isinstance(result, Measurement)
    for name in ("recovery_one_to_one", "recovery_one_to_one_null"):
        assert result.scores[name] == Undefined("more features or latents than exact_up_to")
    assert isinstance(result.scores["recovery"], Value)


def test_features_that_never_fire_do_not_count_and_it_is_said() -> None:
    sae, codes, known, _, fires = random_case(3)
    silent = fires.clone().float()
    silent[:, 1] = 0
    fewer = TrueFeatures(known.rows, Codes.from_dense(silent), known.parents, known.names)
    result = truth.measure(sae, codes, fewer, 0)
    assert isinstance(result, Measurement)
    recovery = result.scores["recovery"]
    assert isinstance(recovery, Value)
    assert recovery.n == 4
    assert result.tables["features"]["feature"].tolist() == [0, 2, 3, 4]
    assert result.tables["features"]["name"].tolist() == list("acde")
    assert set(result.tables["latents"]["feature"]) <= {0, 2, 3, 4}
    assert result.marks[0].reason == "1 of 5 features never fire on these tokens and do not count"


def test_where_the_shared_direction_is_all_that_latents_are_nothing_is_centred() -> None:
    g = torch.Generator().manual_seed(0)
    common = unit(torch.ones(1, 64, dtype=torch.float64))
    true = unit(unit(torch.randn(40, 64, generator=g, dtype=torch.float64)) + common)
    rows = unit(common + 1e-3 * torch.randn(20, 64, generator=g, dtype=torch.float64))
    fires = (torch.rand(500, 40, generator=g) < 0.1).float()
    known = TrueFeatures(
        true.float(), Codes.from_dense(fires), torch.full((40,), -1), [str(n) for n in range(40)]
    )
    encoder = LinearEncoder(rows.float().T.contiguous(), torch.zeros(20), "relu")
    sae = CanonicalSAE(rows.float(), torch.zeros(64), encoder)
    result = truth.measure(sae, Codes.from_dense(fires[:, :20]), known, 0)
    assert isinstance(result, Measurement)
    reason = "no latent is more than the direction that rows share"
    assert result.scores["recovery_centred"] == Undefined(reason)
    assert "without 20 latents that are nothing else" in result.marks[0].reason


def test_a_feature_with_next_to_no_weight_is_no_part_of_a_sum() -> None:
    true = torch.eye(6, dtype=torch.float64)
    latent = torch.tensor([[1.0, 1.0, 0.1, 0.0, 0.0, 0.0]], dtype=torch.float64)
    rows = compare(true, latent, Rule())
    assert bool(rows.sums[0])
    assert sorted(rows.parts[0].tolist()) == [-1, -1, 0, 1]


def test_the_table_names_what_a_latent_is_a_sum_of() -> None:
    true = torch.eye(16, dtype=torch.float64)[:6]
    latents = torch.cat([true[:3], (true[1] + true[4])[None], (true[2] + true[3] + true[5])[None]])
    fires = torch.ones(4, 6)
    fires[:, 0] = 0  # the first feature never fires: numbers are the world's, not the table's
    known = TrueFeatures(
        true.float(), Codes.from_dense(fires), torch.full((6,), -1), [str(n) for n in range(6)]
    )
    rows = torch.nn.functional.normalize(latents, dim=1).float()
    sae = CanonicalSAE(
        rows, torch.zeros(16), LinearEncoder(rows.T.contiguous(), torch.zeros(5), "relu")
    )
    result = truth.measure(sae, Codes.from_dense(torch.ones(4, 5)), known, 0)
    assert isinstance(result, Measurement)
    table = result.tables["latents"].set_index("latent")["sum_of"]
    assert [sorted(parts) for parts in table] == [[], [], [], [1, 4], [2, 3, 5]]
