"""Seed matching finds permuted twins, not random rows, and agrees with plain loops."""

from __future__ import annotations

from typing import Any

import brute_force
import pytest
import torch
from brute_force import Made, TinySAE, made
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saebench_canon.errors import CanonError
from saebench_canon.kernels.seeds import generator
from saebench_canon.metrics.seed_matching.matching import correlations, match
from saebench_canon.metrics.seed_matching.metric import seed_matching
from saebench_canon.plugin.metric import Measurement, Undefined, Value
from saebench_canon.plugin.question import Answer
from saebench_canon.plugin.row import Row
from saebench_canon.questions.unique import UNIQUE
from saebench_canon.tables.fold import summarise
from saebench_canon.tables.stats import jackknife_stderr

KINDS = ["relu", "topk", "batchtopk"]


def group(kind: str = "relu", members: int = 3, seed: int = 0, d: int = 6) -> list[Made]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(40, d, generator=g, dtype=torch.float64)
    common = torch.randn(10, d, generator=g, dtype=torch.float64)
    out = []
    for member in range(members):
        noise = torch.randn(10, d, generator=g, dtype=torch.float64)
        rows = common[torch.randperm(10, generator=g)] + 0.25 * noise
        out.append(made(x, 10, kind, g, dead=range(member % 3), rows=rows))
    return out


def measure(members: list[Made], *, data: bool = True, **more: Any) -> Measurement:
    seed = more.pop("seed", 0)
    codes = tuple(each.codes for each in members) if data else None
    found = seed_matching.measure(tuple(each.sae for each in members), seed, codes, **more)
    assert isinstance(found, Measurement)
    return found


def value(found: Measurement, name: str) -> float:
    score = found.scores[name]
    assert not isinstance(score, Undefined), score.reason
    return score.value if isinstance(score, Value) else score


def plain(a: Made, b: Made, threshold: float = 0.7, slack: float = 0.05) -> dict[str, float]:
    """Every score of one pair by loops; shares from both sides, averaged."""
    live, other = brute_force.live(a), brute_force.live(b)
    assert a.sae.encoder is not None
    assert b.sae.encoder is not None
    rows, others = a.sae.W_dec[live], b.sae.W_dec[other]
    enc, encs = a.sae.encoder.T[live], b.sae.encoder.T[other]
    C = torch.tensor([[brute_force.cosine(p, q) for q in others] for p in rows]).double()
    E = torch.tensor([[brute_force.cosine(p, q) for q in encs] for p in enc]).double()
    by_rows, by_encoders = brute_force.assignment(C), brute_force.assignment(E)
    good = {(i, j) for i, j in by_rows.items() if C[i, j] >= threshold and E[i, j] >= threshold}
    shared = [(i, j) for i, j in good if E[i, j] >= max(E[i]) - slack]
    back = [(i, j) for i, j in good if E[i, j] >= max(E[:, j]) - slack]
    strict = [(i, j) for i, j in good if by_encoders.get(i) == j]

    def both(first: int, second: int) -> float:
        return (first / len(live) + second / len(other)) / 2

    pearson = [
        brute_force.correlation(a.dense[:, live[i]], b.dense[:, other[j]])
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
    found = measure(members)
    pairs = {(a, b): plain(members[a], members[b]) for a, b in [(0, 1), (0, 2), (1, 2)]}
    for name in pairs[0, 1]:
        numbers = {pair: each[name] for pair, each in pairs.items()}
        score = found.scores[name]
        assert isinstance(score, Value)
        assert score.value == pytest.approx(sum(numbers.values()) / 3, rel=1e-5), name
        left = [numbers[1, 2], numbers[0, 2], numbers[0, 1]]
        assert score.stderr == pytest.approx(jackknife_stderr(left), rel=1e-5, abs=1e-12)
        assert (score.n, score.unit) == (3, "training seed")
    assert 0 < value(found, "shared_share") < 1
    assert set(found.scores) == {score.name for score in seed_matching.scores}


@pytest.mark.parametrize("kind", KINDS)
def test_a_permuted_dictionary_matches_at_one(kind: str) -> None:
    first = group(kind, 1)[0]
    order = torch.randperm(10, generator=torch.Generator().manual_seed(5))
    assert first.sae.encoder is not None
    twin = Made(
        TinySAE(first.sae.W_dec[order], first.sae.b_dec, first.sae.encoder[:, order]),
        first.dense[:, order],
    )
    found = measure([first, twin])
    perfect = ("mcc", "mcc_abs", "shared_share", "shared_share_strict", "mmcs", "coverage")
    for name in (*perfect, "code_correlation"):
        assert value(found, name) == pytest.approx(1), name
    mcc = found.scores["mcc"]
    assert isinstance(mcc, Value)
    assert mcc.stderr is None
    table = found.tables["matches"]
    assert (table["found_in"] == 2).all()
    own = table[table["member"] == 0]
    for latent, (counterpart,) in zip(own["latent"], own["counterparts"], strict=True):
        assert order[counterpart] == latent


def test_duplicated_rows_are_shared_though_the_strict_rule_may_miss_them() -> None:
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(8, 6, generator=g, dtype=torch.float64).repeat(2, 1)
    rows = rows / rows.norm(dim=1, keepdim=True)
    orders = [torch.randperm(16, generator=g) for _ in range(2)]
    saes = [TinySAE(rows[o], torch.zeros(6), rows[o].T * 2) for o in orders]
    found = seed_matching.measure(tuple(saes), 0)
    assert value(found, "shared_share") == 1
    assert value(found, "mcc") == pytest.approx(1)


def test_the_nulls_of_random_rows_are_their_scores() -> None:
    g = torch.Generator().manual_seed(0)
    members = []
    for _ in range(3):
        rows = torch.randn(128, 32, generator=g)
        rows = rows / rows.norm(dim=1, keepdim=True)
        members.append(TinySAE(rows, torch.zeros(32), torch.randn(32, 128, generator=g)))
    found = seed_matching.measure(tuple(members), 0)
    for null in ("null_mcc", "null_isotropic"):
        assert value(found, null) == pytest.approx(value(found, "mcc"), abs=0.02)
    assert value(found, "shared_share") == 0
    assert value(found, "null_shared") == 0
    again = seed_matching.measure(tuple(members), 0)
    other = seed_matching.measure(tuple(members), 1)
    assert again.scores == found.scores
    assert value(other, "null_mcc") != value(found, "null_mcc")


@pytest.mark.parametrize("d", [8, 64])
def test_where_random_tied_rows_are_shared_uniqueness_is_not_measurable(d: int) -> None:
    g = torch.Generator().manual_seed(0)
    members = []
    for _ in range(3):
        rows = torch.randn(128, d, generator=g)
        rows = rows / rows.norm(dim=1, keepdim=True)
        members.append(TinySAE(rows, torch.zeros(d), rows.T * 2))
    found = seed_matching.measure(tuple(members), 0)
    shared, null = value(found, "shared_share"), value(found, "null_shared")
    assert null == pytest.approx(shared, abs=0.05)
    said = answer(found)
    if d == 8:
        assert null > 0.5
        assert said.answer == "not-measurable"
        assert said.sentence.startswith("not measurable here: ")
    else:
        assert null == 0
        assert said.answer == "graded"
        assert said.sentence.startswith("Not unique: ")


def answer(found: Measurement) -> Answer:
    """What is said of uniqueness when this is all that a run measured of three seeds."""
    rows = []
    for name, score in found.scores.items():
        number = score if isinstance(score, Value) else None
        known = None if isinstance(score, Undefined) else score
        rows.append(
            Row(
                label="seed_matching",
                metric="seed_matching",
                score=name,
                subject=("s0", "s1", "s2"),
                status="undefined" if known is None else "measured",
                value=known if isinstance(known, float) else number and number.value,
                stderr=number and number.stderr,
                n=number and number.n,
                unit=number and number.unit,
                of="group",
                over="group:seed",
                seed=0,
                members=tuple({"width": 128, "seed": seed} for seed in range(3)),
                axes={"width": 128},
                settings={},
            )
        )
    (block,) = summarise(rows, [seed_matching]).blocks
    (answer,) = UNIQUE.ask(block)
    return answer


def test_anisotropic_rows_are_told_from_the_isotropic_null() -> None:
    g = torch.Generator().manual_seed(0)
    spectrum = torch.linspace(1, 0.05, 24)
    members = tuple(
        TinySAE(torch.randn(96, 24, generator=g) * spectrum + 0.3, torch.zeros(24))
        for _ in range(2)
    )
    found = seed_matching.measure(members, 0)
    assert value(found, "null_mcc") > value(found, "null_isotropic") + 0.1
    assert value(found, "mcc") == pytest.approx(value(found, "null_mcc"), abs=0.03)


def test_without_a_linear_encoder_sharing_does_not_apply() -> None:
    members = group()
    deaf = Made(TinySAE(members[0].sae.W_dec, members[0].sae.b_dec), members[0].dense)
    found = measure([deaf, *members[1:]])
    for name in ("shared_share", "shared_share_strict", "null_shared"):
        assert isinstance(found.scores[name], Undefined)
    assert value(found, "mcc") > 0
    assert found.tables["matches"]["found_in"].isna().all()


def test_without_codes_every_latent_counts_and_codes_do_not_speak() -> None:
    found = measure(group(), data=False)
    assert found.scores["code_correlation"] == Undefined("needs activations")
    assert len(found.tables["matches"]) == 30
    assert found.marks[0].kind == "note"


@pytest.mark.parametrize(
    ("members", "settings", "reason"),
    [
        (1, {}, "one SAE has no other to be matched with"),
        (2, {"exact_up_to": 5}, "10 live latents are more than exact_up_to = 5"),
    ],
)
def test_groups_that_cannot_be_matched_say_why(
    members: int, settings: dict[str, Any], reason: str
) -> None:
    found = measure(group(members=members), **settings)
    assert set(found.scores) == {score.name for score in seed_matching.scores}
    assert set(found.scores.values()) == {Undefined(reason)}


def test_a_threshold_that_is_no_cosine_is_refused() -> None:
    with pytest.raises(CanonError, match=r"seed_matching: threshold = 1\.5 is not a cosine"):
        measure(group(), threshold=1.5)


def test_the_table_counts_in_how_many_members_a_latent_is_found() -> None:
    members = group()
    found = measure(members)
    table = found.tables["matches"]
    assert table["found_in"].between(1, 3).all()
    shares = []
    for member in range(3):
        own = table[table["member"] == member]
        assert own["latent"].tolist() == brute_force.live(members[member])
        density = (members[member].dense[:, own["latent"].tolist()] > 0).double().mean(0)
        assert own["density"].tolist() == pytest.approx(density.tolist())
        shares.append((own["found_in"] - 1).mean() / 2)
    assert sum(shares) / 3 == pytest.approx(value(found, "shared_share"))
    first = table[(table["member"] == 0) & (table["latent"] == 4)].iloc[0]
    cosines = [
        brute_force.cosine(members[0].sae.W_dec[4], members[other].sae.W_dec[latent])
        for other, latent in zip((1, 2), first["counterparts"], strict=True)
        if latent >= 0
    ]
    assert first["cosine"] == pytest.approx(sum(cosines) / len(cosines))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.sampled_from(KINDS))
def test_scores_do_not_depend_on_order_scale_or_dead_latents(seed: int, kind: str) -> None:
    members = group(kind, 3, seed)
    g = torch.Generator().manual_seed(seed)

    def grow(each: Made) -> Made:
        order = torch.randperm(12, generator=g)

        def more(table: Tensor, extra: Tensor) -> Tensor:
            return torch.cat([table, extra])[order]

        draw = torch.randn(2, 6, generator=g, dtype=torch.float64)
        assert each.sae.encoder is not None
        scale = torch.rand(12, 1, generator=g, dtype=torch.float64) * 4 + 0.1
        rows = more(each.sae.W_dec, draw) * scale
        encoder = more(each.sae.encoder.T, draw) * scale
        dense = more(each.dense.T, torch.zeros(2, len(each.dense), dtype=torch.float64)).T
        rows = rows / rows.norm(dim=1, keepdim=True)
        return Made(TinySAE(rows, each.sae.b_dec, encoder.T), dense)

    before, after = measure(members), measure([grow(each) for each in members])
    for name, score in before.scores.items():
        assert not isinstance(score, Undefined)
        assert value(after, name) == pytest.approx(value(before, name), rel=1e-6, abs=1e-9), name


def test_correlations_ignore_unmatched_latents_and_constants() -> None:
    a = torch.tensor([[1.0, 2, 0], [2, 2, 1], [0, 2, 0]], dtype=torch.float64)
    b = torch.tensor([[0.0, 3], [1, 6], [5, 0]], dtype=torch.float64)
    codes, others = (Made(TinySAE(torch.eye(1), torch.zeros(1)), each).codes for each in (a, b))
    found = correlations(codes, others, torch.tensor([1, 0, -1]))
    assert found[0].item() == pytest.approx(1)
    assert found[1].item() == 0
    assert found[2].isnan()


def test_rectangular_matchings_are_divided_by_the_smaller_count() -> None:
    g = generator(0)
    rows = torch.randn(5, 4, generator=g, dtype=torch.float64)
    others = torch.randn(8, 4, generator=g, dtype=torch.float64)
    assert match(rows, others).mcc == pytest.approx(brute_force.mcc(rows, others))
    assert match(others, rows).mcc == pytest.approx(brute_force.mcc(rows, others))
    with pytest.raises(ValueError, match="empty"):
        match(rows, others[:0])
