"""Seed matching finds permuted twins, not random rows, and agrees with plain loops."""

from __future__ import annotations

import re
from typing import Any

import brute_force
import pytest
import torch
from brute_force import CodedSAE, TinySAE, random_sae
from hypothesis import given, settings
from hypothesis import strategies as st
from measured import value
from torch import Tensor

from saebench_canon.errors import CanonError
from saebench_canon.kernels.random_generators import generator
from saebench_canon.metrics.seed_matching.matching import correlations, match
from saebench_canon.metrics.seed_matching.metric import seed_matching
from saebench_canon.plugin.activations import Acts
from saebench_canon.plugin.metric import Measurement, Undefined, Value
from saebench_canon.tables.stats import jackknife_stderr

KINDS = ["relu", "topk", "batchtopk"]


def activations(generator: torch.Generator, d: int = 6) -> Tensor:
    return torch.randn(40, d, generator=generator, dtype=torch.float64)


def group(kind: str = "relu", members: int = 3, seed: int = 0, d: int = 6) -> list[CodedSAE]:
    g = torch.Generator().manual_seed(seed)
    x = activations(g, d)
    common = torch.randn(10, d, generator=g, dtype=torch.float64)
    out = []
    for member in range(members):
        noise = torch.randn(10, d, generator=g, dtype=torch.float64)
        rows = common[torch.randperm(10, generator=g)] + 0.25 * noise
        out.append(random_sae(x, 10, kind, g, dead=range(member % 3), rows=rows))
    return out


def measure(members: list[CodedSAE], *, data: bool = True, **more: Any) -> Measurement:
    seed, acts = more.pop("seed", 0), more.pop("acts", None)
    codes = tuple(member.codes for member in members) if data else None
    measurement = seed_matching.measure(
        tuple(member.sae for member in members), seed, codes, acts, **more
    )
    assert isinstance(measurement, Measurement)
    return measurement


def plain(
    a: CodedSAE, b: CodedSAE, threshold: float = 0.7, slack: float = 0.05
) -> dict[str, float]:
    """Every score of one pair by loops; shares from both sides, averaged."""
    live_a, live_b = brute_force.live(a), brute_force.live(b)
    assert a.sae.encoder is not None
    assert b.sae.encoder is not None
    rows, others = a.sae.W_dec[live_a], b.sae.W_dec[live_b]
    enc, encs = a.sae.encoder.T[live_a], b.sae.encoder.T[live_b]
    C = torch.tensor([[brute_force.cosine(p, q) for q in others] for p in rows]).double()
    E = torch.tensor([[brute_force.cosine(p, q) for q in encs] for p in enc]).double()
    by_rows, by_encoders = brute_force.assignment(C), brute_force.assignment(E)
    good = {(i, j) for i, j in by_rows.items() if C[i, j] >= threshold and E[i, j] >= threshold}
    shared = [(i, j) for i, j in good if E[i, j] >= max(E[i]) - slack]
    back = [(i, j) for i, j in good if E[i, j] >= max(E[:, j]) - slack]
    strict = [(i, j) for i, j in good if by_encoders.get(i) == j]

    def both(first: int, second: int) -> float:
        return (first / len(live_a) + second / len(live_b)) / 2

    pearson = [
        brute_force.correlation(a.dense[:, live_a[i]], b.dense[:, live_b[j]])
        for i, j in by_rows.items()
    ]
    ahead, behind = C.max(1).values, C.max(0).values
    return {
        "mcc": brute_force.mcc(rows, others),
        "mcc_abs": brute_force.mcc(rows, others, absolute=True),
        "shared_share": both(len(shared), len(back)),
        "shared_share_strict": both(len(strict), len(strict)),
        "mmcs": (float(ahead.mean()) + float(behind.mean())) / 2,
        "coverage": both(int((ahead > threshold).sum()), int((behind > threshold).sum())),
        "code_correlation": sum(pearson) / len(pearson),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_score_agrees_with_plain_loops_and_the_jackknife(kind: str) -> None:
    members = group(kind)
    measurement = measure(members)
    pairs = {(a, b): plain(members[a], members[b]) for a, b in [(0, 1), (0, 2), (1, 2)]}
    for name in pairs[0, 1]:
        numbers = {pair: numbers_of_pair[name] for pair, numbers_of_pair in pairs.items()}
        score = measurement.scores[name]
        assert isinstance(score, Value)
        assert score.value == pytest.approx(sum(numbers.values()) / 3, rel=1e-5), name
        without_one = [numbers[1, 2], numbers[0, 2], numbers[0, 1]]
        assert score.stderr == pytest.approx(jackknife_stderr(without_one), rel=1e-5, abs=1e-12)
        assert (score.n, score.unit) == (3, "training seed")
    assert 0 < value(measurement, "shared_share") < 1
    assert set(measurement.scores) == {score.name for score in seed_matching.scores}


@pytest.mark.parametrize("kind", KINDS)
def test_a_permuted_dictionary_matches_at_one(kind: str) -> None:
    first = group(kind, 1)[0]
    order = torch.randperm(10, generator=torch.Generator().manual_seed(5))
    assert first.sae.encoder is not None
    twin = CodedSAE(
        TinySAE(first.sae.W_dec[order], first.sae.b_dec, first.sae.encoder[:, order]),
        first.dense[:, order],
    )
    measurement = measure([first, twin])
    perfect = ("mcc", "mcc_abs", "shared_share", "shared_share_strict", "mmcs", "coverage")
    for name in (*perfect, "code_correlation"):
        assert value(measurement, name) == pytest.approx(1), name
    mcc = measurement.scores["mcc"]
    assert isinstance(mcc, Value)
    assert mcc.stderr is None
    table = measurement.tables["matches"]
    assert (table["found_in"] == 2).all()
    matches = table[table["member"] == 0]
    for latent, (counterpart,) in zip(matches["latent"], matches["counterparts"], strict=True):
        assert order[counterpart] == latent


def test_duplicated_rows_are_shared_though_the_strict_rule_may_miss_them() -> None:
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(8, 6, generator=g, dtype=torch.float64).repeat(2, 1)
    rows = rows / rows.norm(dim=1, keepdim=True)
    orders = [torch.randperm(16, generator=g) for _ in range(2)]
    saes = [TinySAE(rows[o], torch.zeros(6), rows[o].T * 2) for o in orders]
    measurement = seed_matching.measure(tuple(saes), 0)
    assert value(measurement, "shared_share") == 1
    assert value(measurement, "mcc") == pytest.approx(1)


def test_the_nulls_of_random_rows_are_their_scores() -> None:
    g = torch.Generator().manual_seed(0)
    members = []
    for _ in range(3):
        rows = torch.randn(128, 32, generator=g)
        rows = rows / rows.norm(dim=1, keepdim=True)
        members.append(TinySAE(rows, torch.zeros(32), torch.randn(32, 128, generator=g)))
    measurement = seed_matching.measure(tuple(members), 0)
    for null in ("null_mcc", "null_isotropic"):
        assert value(measurement, null) == pytest.approx(value(measurement, "mcc"), abs=0.02)
    assert value(measurement, "shared_share") == 0
    assert value(measurement, "null_shared") == 0
    repeated = seed_matching.measure(tuple(members), 0)
    other_seed = seed_matching.measure(tuple(members), 1)
    assert repeated.scores == measurement.scores
    assert value(other_seed, "null_mcc") != value(measurement, "null_mcc")


@pytest.mark.parametrize("d", [8, 64])
def test_in_few_dimensions_random_rows_are_found_too(d: int) -> None:
    g = torch.Generator().manual_seed(0)
    members = []
    for _ in range(3):
        rows = torch.randn(128, d, generator=g)
        rows = rows / rows.norm(dim=1, keepdim=True)
        members.append(TinySAE(rows, torch.zeros(d), rows.T * 2))
    measurement = seed_matching.measure(tuple(members), 0)
    shared, null = value(measurement, "shared_share"), value(measurement, "null_shared")
    assert null == pytest.approx(shared, abs=0.05)
    two, one = (value(measurement, f"found_by_{count}_null") for count in ("two", "one"))
    if d == 8:
        assert null > 0.5
        assert two + one / 2 > 0.5
    else:
        assert null == two == one == 0


def test_anisotropic_rows_are_told_from_the_isotropic_null() -> None:
    g = torch.Generator().manual_seed(0)
    spectrum = torch.linspace(1, 0.05, 24)
    members = tuple(
        TinySAE(torch.randn(96, 24, generator=g) * spectrum + 0.3, torch.zeros(24))
        for _ in range(2)
    )
    measurement = seed_matching.measure(members, 0)
    assert value(measurement, "null_mcc") > value(measurement, "null_isotropic") + 0.1
    assert value(measurement, "mcc") == pytest.approx(value(measurement, "null_mcc"), abs=0.03)


def test_without_a_linear_encoder_sharing_does_not_apply() -> None:
    members = group()
    deaf = CodedSAE(TinySAE(members[0].sae.W_dec, members[0].sae.b_dec), members[0].dense)
    measurement = measure([deaf, *members[1:]])
    for name in ("shared_share", "shared_share_strict", "null_shared"):
        assert isinstance(measurement.scores[name], Undefined)
    assert value(measurement, "mcc") > 0
    assert measurement.tables["matches"]["found_in"].isna().all()


def test_without_codes_every_latent_counts_and_codes_do_not_speak() -> None:
    measurement = measure(group(), data=False)
    assert measurement.scores["code_correlation"] == Undefined("needs activations")
    assert len(measurement.tables["matches"]) == 30
    assert measurement.marks[0].kind == "note"


@pytest.mark.parametrize(
    ("members", "settings", "reason"),
    [
        (1, {}, "the group has only one SAE, and nothing to match it with"),
        (2, {"exact_up_to": 5}, "10 live latents are more than exact_up_to = 5"),
    ],
)
def test_groups_that_cannot_be_matched_say_why(
    members: int, settings: dict[str, Any], reason: str
) -> None:
    measurement = measure(group(members=members), **settings)
    assert set(measurement.scores) == {score.name for score in seed_matching.scores}
    assert set(measurement.scores.values()) == {Undefined(reason)}


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"threshold": 1.5}, "threshold must be a cosine, −1 to 1, got 1.5"),
        ({"code_threshold": -2}, "code_threshold must be a correlation, −1 to 1, got -2"),
        ({"subspace_rows": 1}, "subspace_rows must be 2 or more, got 1"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CanonError, match=f"seed_matching: {re.escape(sentence)}"):
        measure(group(), **setting)


def test_the_table_counts_in_how_many_members_a_latent_is_found() -> None:
    members = group()
    measurement = measure(members)
    table = measurement.tables["matches"]
    assert table["found_in"].between(1, 3).all()
    shares = []
    for member in range(3):
        matches = table[table["member"] == member]
        assert matches["latent"].tolist() == brute_force.live(members[member])
        density = (members[member].dense[:, matches["latent"].tolist()] > 0).double().mean(0)
        assert matches["density"].tolist() == pytest.approx(density.tolist())
        shares.append((matches["found_in"] - 1).mean() / 2)
    assert sum(shares) / 3 == pytest.approx(value(measurement, "shared_share"))
    first = table[(table["member"] == 0) & (table["latent"] == 4)].iloc[0]
    cosines = [
        brute_force.cosine(members[0].sae.W_dec[4], members[member].sae.W_dec[latent])
        for member, latent in zip((1, 2), first["counterparts"], strict=True)
        if latent >= 0
    ]
    assert first["cosine"] == pytest.approx(sum(cosines) / len(cosines))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.sampled_from(KINDS))
def test_scores_do_not_depend_on_order_scale_or_dead_latents(seed: int, kind: str) -> None:
    members = group(kind, 3, seed)
    g = torch.Generator().manual_seed(seed)

    def grow(example: CodedSAE) -> CodedSAE:
        order = torch.randperm(12, generator=g)

        def more(table: Tensor, extra: Tensor) -> Tensor:
            return torch.cat([table, extra])[order]

        draw = torch.randn(2, 6, generator=g, dtype=torch.float64)
        assert example.sae.encoder is not None
        scale = torch.rand(12, 1, generator=g, dtype=torch.float64) * 4 + 0.1
        rows = more(example.sae.W_dec, draw) * scale
        encoder = more(example.sae.encoder.T, draw) * scale
        dense = more(example.dense.T, torch.zeros(2, len(example.dense), dtype=torch.float64)).T
        rows = rows / rows.norm(dim=1, keepdim=True)
        return CodedSAE(TinySAE(rows, example.sae.b_dec, encoder.T), dense)

    acts = Acts(activations(torch.Generator().manual_seed(seed)), torch.arange(40))
    grown = [grow(example) for example in members]
    before, after = measure(members, acts=acts), measure(grown, acts=acts)
    for name, score in before.scores.items():
        if isinstance(score, Undefined):
            assert name in ("subspace_overlap", "subspace_null")
            assert after.scores[name] == score
            continue
        assert value(after, name) == pytest.approx(value(before, name), rel=1e-6, abs=1e-9), name


def test_correlations_ignore_unmatched_latents_and_constants() -> None:
    a = torch.tensor([[1.0, 2, 0], [2, 2, 1], [0, 2, 0]], dtype=torch.float64)
    b = torch.tensor([[0.0, 3], [1, 6], [5, 0]], dtype=torch.float64)
    codes, others = (
        CodedSAE(TinySAE(torch.eye(1), torch.zeros(1)), dense).codes for dense in (a, b)
    )
    correlation = correlations(codes, others, torch.tensor([1, 0, -1]))
    assert correlation[0].item() == pytest.approx(1)
    assert correlation[1].item() == 0
    assert correlation[2].isnan()


def test_rectangular_matchings_are_divided_by_the_smaller_count() -> None:
    g = generator(0)
    rows = torch.randn(5, 4, generator=g, dtype=torch.float64)
    others = torch.randn(8, 4, generator=g, dtype=torch.float64)
    assert match(rows, others).mcc == pytest.approx(brute_force.mcc(rows, others))
    assert match(others, rows).mcc == pytest.approx(brute_force.mcc(rows, others))
    with pytest.raises(ValueError, match="empty"):
        match(rows, others[:0])
