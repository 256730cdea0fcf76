"""What other seeds find of an SAE: planted groups have known answers, and loops agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import brute_force
import pandas as pd
import pytest
import torch
from brute_force import CodedSAE, TinySAE, random_sae
from measured import value
from torch import Tensor

from saebench_canon.kernels.random_generators import generator
from saebench_canon.metrics.seed_matching.carried import explained
from saebench_canon.metrics.seed_matching.code_products import correlations_of
from saebench_canon.metrics.seed_matching.found_again import candidates
from saebench_canon.metrics.seed_matching.metric import seed_matching
from saebench_canon.metrics.seed_matching.over_members import over_members
from saebench_canon.metrics.seed_matching.subspaces import basis, overlap, overlaps
from saebench_canon.metrics.shared.dictionary import Dictionary, dictionary_of
from saebench_canon.plugin.activations import Acts
from saebench_canon.plugin.metric import Measurement, Undefined, Value
from saebench_canon.tables.stats import jackknife_stderr

TOKENS = 60
GRADES = ("found_by_two", "found_by_one", "found_by_none")
WAYS = ("", "_centred", "_codes", "_encoder")


def unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


def of_rows(
    rows: Tensor, *, encoder: Tensor | None = None, dense: Tensor | None = None
) -> CodedSAE:
    """An SAE of unit rows, tied unless an encoder [m, d] is given; latents fire on other tokens."""
    m, d = rows.shape
    codes = torch.eye(m, dtype=torch.float64).repeat(2, 1) if dense is None else dense
    return CodedSAE(
        TinySAE(unit(rows), torch.zeros(d), (rows if encoder is None else encoder).T), codes
    )


def measure(
    members: Sequence[CodedSAE], *, x: Tensor | None = None, data: bool = True, **settings: Any
) -> Measurement:
    measured = seed_matching.measure(
        tuple(member.sae for member in members),
        0,
        tuple(member.codes for member in members) if data else None,
        None if x is None else Acts(x, torch.arange(len(x))),
        **settings,
    )
    assert isinstance(measured, Measurement)
    return measured


def grades(measured: Measurement, way: str = "") -> list[float]:
    return [value(measured, f"{name}{way}") for name in GRADES]


def orthogonal(d: int, seed: int = 0) -> Tensor:
    free = torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q: Tensor = torch.linalg.qr(free).Q
    return q


def noisy_group(kind: str, members: int, seed: int = 0) -> tuple[list[CodedSAE], Tensor]:
    """SAEs of noisy copies of common rows; each has a duplicate, and some have dead latents."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(TOKENS, 6, generator=g, dtype=torch.float64) + 0.5
    common = torch.randn(14, 6, generator=g, dtype=torch.float64)
    saes = []
    for member in range(members):
        noise = torch.randn(14, 6, generator=g, dtype=torch.float64)
        rows = common[torch.randperm(14, generator=g)] + (0.2 + 0.1 * member) * noise
        rows[3] = rows[8] + 0.02 * noise[0]
        saes.append(random_sae(x, 14, kind, g, dead=range(member % 3), rows=rows))
    return saes, x


# ── plain loops ──


def loops_found(
    way: str, a: CodedSAE, b: CodedSAE, first: Dictionary, second: Dictionary
) -> list[bool]:
    """Which representatives of `a` are found in `b`."""
    if way == "_centred":
        first, second = first.centred(), second.centred()
    merged = {latent: torch.zeros(len(b.dense)).double() for latent in second.owners.tolist()}
    for latent, owner in zip(second.every_latent.tolist(), second.owners.tolist(), strict=True):
        merged[owner] = merged[owner] + b.dense[:, latent]
    found = []
    for row, latent in zip(first.rows, first.latents.tolist(), strict=True):
        own = torch.zeros(len(a.dense)).double()
        for other, owner in zip(first.every_latent.tolist(), first.owners.tolist(), strict=True):
            own = own + a.dense[:, other] if owner == latent else own
        finds = False
        for other_row, other, owner in zip(
            second.every, second.every_latent.tolist(), second.owners.tolist(), strict=True
        ):
            agrees = brute_force.cosine(row, other_row) >= 0.7
            if way == "_codes":
                agrees = agrees and brute_force.correlation(own, merged[owner]) >= 0.7
            if way == "_encoder":
                assert a.sae.encoder is not None
                assert b.sae.encoder is not None
                encoders = a.sae.encoder[:, latent], b.sae.encoder[:, other]
                agrees = agrees and brute_force.cosine(*encoders) >= 0.7
            finds = finds or agrees
        found.append(finds)
    return found


def loops_grades(found: dict[tuple[int, int], list[bool]], members: Sequence[int]) -> list[float]:
    """By two, by one, by none: from how many others find each latent, over the members."""
    n = len(members) - 1
    two, none = [], []
    for member in members:
        times = [
            sum(found[member, other][latent] for other in members if other != member)
            for latent in range(len(found[member, next(o for o in members if o != member)]))
        ]
        two.append(sum(k * (k - 1) / (n * (n - 1)) for k in times) / len(times))
        none.append(sum((n - k) * (n - k - 1) / (n * (n - 1)) for k in times) / len(times))
    by_two, by_none = sum(two) / len(two), sum(none) / len(none)
    return [by_two, 1 - by_two - by_none, by_none]


def loops_explained(chosen: Sequence[int], coded: CodedSAE, x: Tensor) -> float:
    """Cov(x, x̂)² / (Var(x̂) Var(x)) of a dense reconstruction."""
    rebuilt = torch.zeros_like(x)
    for latent in chosen:
        rebuilt = rebuilt + coded.dense[:, latent, None] * coded.sae.W_dec[latent]
    x, rebuilt = x - x.mean(dim=0), rebuilt - rebuilt.mean(dim=0)
    spread = float((rebuilt**2).sum())
    return float((x * rebuilt).sum()) ** 2 / spread / float((x**2).sum()) if spread > 1e-20 else 0.0


@pytest.mark.parametrize("kind", ["relu", "topk"])
@pytest.mark.parametrize("size", [3, 5])
def test_every_way_of_finding_agrees_with_plain_loops(kind: str, size: int) -> None:
    members, x = noisy_group(kind, size)
    measured = measure(members, x=x)
    dictionaries = [dictionary_of(member.sae, member.codes) for member in members]  # type: ignore[arg-type]
    assert any(dictionary.duplicates for dictionary in dictionaries)
    everyone = range(size)
    by_pair = measured.tables["pairs"].set_index(["first", "second"])
    for way in WAYS:
        found = {
            (a, b): loops_found(way, members[a], members[b], dictionaries[a], dictionaries[b])
            for a in everyone
            for b in everyone
            if a != b
        }
        assert grades(measured, way) == pytest.approx(loops_grades(found, everyone)), way
        for a, b in combinations(everyone, 2):
            ahead, back = (sum(each) / len(each) for each in (found[a, b], found[b, a]))
            assert by_pair.loc[(a, b), f"share{way}"] == pytest.approx((ahead + back) / 2)
        if size == 5:
            without = [
                loops_grades(found, [other for other in everyone if other != member])
                for member in everyone
            ]
            for at, name in enumerate(GRADES):
                score = measured.scores[f"{name}{way}"]
                assert isinstance(score, Value)
                assert score.stderr == pytest.approx(
                    jackknife_stderr([rest[at] for rest in without]), abs=1e-12
                )
    assert 0 < value(measured, "found_by_two_codes") < value(measured, "found_by_two") < 1


@pytest.mark.parametrize("size", [3, 4])
def test_the_variance_carried_agrees_with_a_dense_reconstruction(size: int) -> None:
    members, x = noisy_group("relu", size, seed=3)
    measured = measure(members, x=x)
    table = measured.tables["found"]
    own = []
    for member, coded in enumerate(members):
        dictionary = dictionary_of(coded.sae, coded.codes)  # type: ignore[arg-type]
        owner = dict(zip(dictionary.every_latent.tolist(), dictionary.owners.tolist(), strict=True))
        finders = table[table["member"] == member].set_index("latent")["in"]
        whole = loops_explained(brute_force.live(coded), coded, x)
        shares = []
        for p, q in combinations([other for other in range(size) if other != member], 2):
            chosen = [latent for latent in owner if {p, q} <= set(finders[owner[latent]])]
            shares.append(loops_explained(chosen, coded, x) / whole)
        own.append(sum(shares) / len(shares))
    assert measured.tables["members"]["shared_variance"].tolist() == pytest.approx(own)
    assert value(measured, "shared_variance") == pytest.approx(sum(own) / size)
    assert 0 < value(measured, "shared_variance") < 1
    assert value(measured, "shared_variance_null") > 0


def test_explained_variance_is_exact_where_activations_lie_far_from_zero() -> None:
    members, x = noisy_group("relu", 1)
    far = x + 1e5
    masks = torch.zeros(3, 14, dtype=torch.bool)
    masks[0, :5], masks[1, 7] = True, True
    spread = float(((x - x.mean(dim=0)) ** 2).sum() / len(x))
    got = explained(masks, members[0].sae.W_dec, members[0].codes, far) / spread
    for mask, share in zip(masks, got.tolist(), strict=True):
        chosen = mask.nonzero()[:, 0].tolist()
        assert share == pytest.approx(loops_explained(chosen, members[0], x), abs=1e-9)


def test_correlations_of_pairs_add_up_duplicates_and_ignore_constants() -> None:
    g = torch.Generator().manual_seed(0)
    dense = torch.rand(30, 5, generator=g, dtype=torch.float64).sub(0.5).relu()
    dense[:, 4] = 2.0
    codes = of_rows(torch.eye(5), dense=dense).codes
    ours, theirs = torch.tensor([3, 0, 0, 4, 2]), torch.tensor([1, 0, 2, 1, 3])
    expected = [
        brute_force.correlation(dense[:, i], dense[:, j])
        for i, j in zip(ours.tolist(), theirs.tolist(), strict=True)
    ]
    got = correlations_of(codes, codes, ours, theirs)
    assert got.tolist() == pytest.approx(expected)
    assert got[3] == 0


def test_candidates_do_not_depend_on_the_block() -> None:
    g = torch.Generator().manual_seed(0)
    rows, others = torch.randn(23, 4, generator=g), torch.randn(31, 4, generator=g)
    whole, parts = candidates(rows, others, 0.7), candidates(rows, others, 0.7, block=70)
    for name in ("first", "second", "nearest", "nearest_back"):
        assert torch.equal(getattr(whole, name), getattr(parts, name))
    best, which = brute_force.max_cosines(rows.double(), others.double())
    assert whole.nearest.tolist() == which
    assert set(whole.first.tolist()) == {at for at, cosine in enumerate(best) if cosine >= 0.7}
    _, back = brute_force.max_cosines(others.double(), rows.double())
    assert whole.nearest_back.tolist() == back


# ── planted groups ──


def test_equal_saes_are_found_by_two_and_orthogonal_ones_by_none() -> None:
    rows = orthogonal(24)
    x = torch.randn(48, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    same = measure([of_rows(rows[:8]) for _ in range(3)], x=x[:16])
    apart = measure([of_rows(rows[8 * at : 8 * at + 8]) for at in range(3)], x=x[:16])
    for way in WAYS:
        assert grades(same, way) == [1, 0, 0]
        assert grades(apart, way) == [0, 0, 1]
    assert value(same, "shared_variance") == pytest.approx(1)
    assert value(apart, "shared_variance") == 0
    assert same.scores["found_by_two"] == Value(1.0, None, 3, "training seed")


def pool_group(members: int, kept: float, seed: int) -> list[CodedSAE]:
    g = torch.Generator().manual_seed(seed)
    pool = torch.randn(500, 64, generator=g)
    return [of_rows(pool[torch.rand(500, generator=g) < kept]) for _ in range(members)]


@pytest.mark.parametrize("members", [3, 5])
def test_the_grades_mean_the_same_for_every_number_of_seeds(members: int) -> None:
    kept = 0.6
    groups = [measure(pool_group(members, kept, seed), data=False) for seed in range(4)]
    mean = torch.tensor([grades(measured) for measured in groups]).mean(dim=0)
    expected = [kept**2, 2 * kept * (1 - kept), (1 - kept) ** 2]
    assert mean.tolist() == pytest.approx(expected, abs=0.025)
    assert sum(grades(groups[0])) == pytest.approx(1)
    assert grades(groups[0], "_null") == [0, 0, 1]


def test_a_latent_found_by_exactly_one_of_three_others() -> None:
    rows = orthogonal(32)
    members = [of_rows(rows[8 * at : 8 * at + 8]) for at in range(4)]
    members[1] = of_rows(torch.cat([rows[:1], rows[9:16]]))
    measured = measure(members, data=False)
    shares = measured.tables["members"]
    assert shares["found_by_one"].tolist() == pytest.approx([2 / 3 / 8, 2 / 3 / 8, 0, 0])
    assert shares["found_by_none"].tolist() == pytest.approx([1 - 2 / 3 / 8] * 2 + [1, 1])
    assert (shares["found_by_two"] == 0).all()
    table = measured.tables["found"]
    assert [latents for latents in table["in"] if latents] == [[1], [0]]


def test_two_seeds_have_no_two_others() -> None:
    rows = orthogonal(24)
    measured = measure([of_rows(rows[:8]), of_rows(rows[4:12])], x=torch.randn(16, 24))
    lacking = Undefined("it takes three seeds")
    for name in ("found_by_two", "found_by_two_codes", "found_by_two_null", "shared_variance"):
        assert measured.scores[name] == lacking
    assert measured.scores["found_by_one"] == Value(0.5, None, 2, "training seed")
    assert measured.scores["found_by_none"] == Value(0.5, None, 2, "training seed")
    assert measured.tables["members"]["found_by_two"].isna().all()
    assert measured.tables["pairs"]["share"].tolist() == [0.5]


def test_duplicates_change_no_grade() -> None:
    members, x = noisy_group("relu", 3, seed=5)

    def split(coded: CodedSAE) -> CodedSAE:
        """Latents 10 and 11 twice, each copy active on half of the tokens."""
        assert coded.sae.encoder is not None
        again = torch.tensor([*range(14), 10, 11])
        dense = coded.dense[:, again].clone()
        dense[::2, 10:12], dense[1::2, 14:] = 0, 0
        return CodedSAE(
            TinySAE(coded.sae.W_dec[again], coded.sae.b_dec, coded.sae.encoder[:, again]), dense
        )

    before, after = measure(members, x=x), measure([split(members[0]), *members[1:]], x=x)
    for way in WAYS:
        assert grades(after, way) == pytest.approx(grades(before, way))
    assert value(after, "shared_variance") == pytest.approx(value(before, "shared_variance"))


def test_equal_rows_with_other_codes_are_not_found_by_codes() -> None:
    rows = orthogonal(8)
    fires = torch.eye(8, dtype=torch.float64).repeat(2, 1)
    members = [
        of_rows(rows, dense=fires),
        of_rows(rows, dense=1 - fires),
        of_rows(rows, dense=fires),
    ]
    measured = measure(members)
    assert grades(measured) == [1, 0, 0]
    assert grades(measured, "_codes") == pytest.approx([0, 2 / 3, 1 / 3])
    assert grades(measure(members, code_threshold=-1.0), "_codes") == [1, 0, 0]


def test_a_latent_is_found_by_codes_though_another_row_is_nearer() -> None:
    g = torch.Generator().manual_seed(0)
    rows = orthogonal(16)[:4]
    fires = torch.rand(40, 4, generator=g, dtype=torch.float64)
    tilted = unit(torch.cat([rows + 0.5 * orthogonal(16)[4:8], rows + 0.1 * orthogonal(16)[8:12]]))
    noise = torch.rand(40, 4, generator=g, dtype=torch.float64)
    larger = of_rows(tilted, dense=torch.cat([fires, noise], dim=1))
    measured = measure([of_rows(rows, dense=fires), larger])
    table = measured.tables["found"]
    assert table.loc[table["member"] == 0, "nearest"].tolist() == [[4], [5], [6], [7]]
    assert measured.tables["members"]["found_by_one_codes"].tolist() == [1, 0.5]


def test_turned_encoders_are_not_found_by_encoders() -> None:
    rows = orthogonal(8)
    members = [of_rows(rows), of_rows(rows), of_rows(rows, encoder=rows.roll(1, 0))]
    measured = measure(members)
    assert grades(measured) == grades(measured, "_codes") == [1, 0, 0]
    assert grades(measured, "_encoder") == pytest.approx([0, 2 / 3, 1 / 3])
    deaf = [CodedSAE(TinySAE(rows, torch.zeros(8)), members[0].dense), *members[1:]]
    for name in GRADES:
        reason = "an SAE of the group has no linear encoder"
        assert measure(deaf).scores[f"{name}_encoder"] == Undefined(reason)


def test_a_common_direction_makes_all_found_until_rows_are_centred() -> None:
    basis_of_all = orthogonal(40)
    members = [
        of_rows(2 * basis_of_all[0] + basis_of_all[1 + 8 * at : 9 + 8 * at]) for at in range(3)
    ]
    measured = measure(members)
    assert grades(measured) == [1, 0, 0]
    assert grades(measured, "_centred") == [0, 0, 1]
    assert all(latents == [] for latents in measured.tables["found"]["in_centred"])
    alone = measure([of_rows(row[None]) for row in basis_of_all[:3]])
    reason = "no latent is more than the direction that rows share"
    assert alone.scores["found_by_none_centred"] == Undefined(reason)
    assert alone.tables["found"]["in_centred"].isna().all()


def test_without_activations_codes_and_variance_are_undefined() -> None:
    members, x = noisy_group("relu", 3)
    lacking = Undefined("needs activations")
    without = measure(members, data=False)
    assert {without.scores[f"{name}_codes"] for name in GRADES} == {lacking}
    assert without.scores["shared_variance"] == lacking
    assert without.tables["members"]["shared_variance"].isna().all()
    silent = measure(members, x=torch.ones_like(x))
    reason = "the latents of an SAE of the group explain nothing"
    assert silent.scores["shared_variance"] == Undefined(reason)


# ── subspaces ──


def two_bases(seed: int, d: int = 48) -> list[Tensor]:
    """Two SAEs whose latents span the same two 8-dimensional subspaces, by other latents."""
    space = orthogonal(d, seed)
    ones = torch.ones(8, 1, dtype=torch.float64) / math.sqrt(8)
    common = 1.2 * ones @ ones.T
    shift = 2 * ones @ ones.T - torch.eye(8, dtype=torch.float64)  # keeps the mean direction
    own = unit(torch.eye(8, dtype=torch.float64) + common)
    other = unit((torch.eye(8, dtype=torch.float64) + common) @ shift)
    return [torch.cat([part @ space[:8], part @ space[8:16]]) for part in (own, other)]


def test_other_bases_of_the_same_subspaces_overlap_though_no_latent_is_found() -> None:
    members = [of_rows(rows) for rows in two_bases(0)]
    measured = measure(members, data=False)
    assert value(measured, "found_by_none") == 1
    assert value(measured, "subspace_overlap") == pytest.approx(1)
    assert value(measured, "subspace_null") < 0.8
    assert (measured.scores["subspace_overlap"]) == Value(
        pytest.approx(1), None, 2, "training seed"
    )


def test_independent_latents_span_no_more_than_random_rows() -> None:
    g = torch.Generator().manual_seed(0)
    members = [of_rows(torch.randn(160, 48, generator=g)) for _ in range(3)]
    measured = measure(members, data=False)
    overlap_of_seeds, null = value(measured, "subspace_overlap"), value(measured, "subspace_null")
    assert overlap_of_seeds == pytest.approx(null, abs=0.02)
    score = measured.scores["subspace_overlap"]
    assert isinstance(score, Value)
    assert score.stderr is not None
    assert score.stderr < 0.02


def test_few_unfound_latents_have_no_subspaces() -> None:
    rows = orthogonal(32)
    measured = measure([of_rows(rows[:15]), of_rows(rows[16:32])], data=False)
    reason = "no two SAEs have 16 latents each that the other does not find"
    assert measured.scores["subspace_overlap"] == Undefined(reason)
    assert measured.scores["subspace_null"] == Undefined(reason)
    smaller = measure([of_rows(rows[:15]), of_rows(rows[16:32])], data=False, subspace_rows=7)
    assert value(smaller, "subspace_overlap") == pytest.approx(0, abs=1e-9)


def test_the_overlap_agrees_with_principal_angles_by_loops() -> None:
    g = torch.Generator().manual_seed(2)
    rows = torch.randn(30, 12, generator=g, dtype=torch.float64)
    others = unit(torch.randn(25, 12, generator=g, dtype=torch.float64))
    got = overlaps(rows, [others], 6, generator(0))[0]
    start = torch.randperm(30, generator=generator(0))[:6]
    _, cluster = brute_force.k_means(unit(rows), unit(rows)[start])
    total = count = 0.0
    for group in range(6):
        part = rows[[at for at in range(30) if cluster[at] == group]]
        if len(part) < 2:
            continue
        span = torch.linalg.qr(part.T).Q
        near = sorted(range(25), key=lambda at: -float((others[at] @ span).norm()))[: len(part)]
        angles = torch.linalg.svdvals(span.T @ torch.linalg.qr(others[near].T).Q)
        total, count = total + len(part) * float((angles**2).mean()), count + len(part)
    assert got == pytest.approx(total / count)


def test_dependent_rows_span_less() -> None:
    rows = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=torch.float64)
    assert basis(rows).shape == (3, 2)
    assert overlap(basis(rows), basis(rows[:1])) == pytest.approx(1)


# ── invariance, standard errors, tables ──


def test_scores_do_not_depend_on_the_order_of_members_or_on_a_rotation() -> None:
    members, x = noisy_group("relu", 4, seed=1)
    turn = orthogonal(6, 9)
    turned = []
    for coded in members:
        assert coded.sae.encoder is not None
        sae = TinySAE(coded.sae.W_dec @ turn, coded.sae.b_dec @ turn, turn.T @ coded.sae.encoder)
        turned.append(CodedSAE(sae, coded.dense))
    before, other_order = measure(members, x=x), measure(members[::-1], x=x)
    after = measure(turned, x=x @ turn)
    names = [f"{name}{way}" for name in GRADES for way in WAYS]
    for name in [*names, "shared_variance"]:
        for changed in (other_order, after):
            first, second = before.scores[name], changed.scores[name]
            assert isinstance(first, Value)
            assert isinstance(second, Value)
            assert second.value == pytest.approx(first.value), name
            assert second.stderr == pytest.approx(first.stderr, abs=1e-9), name
    strict = {"threshold": 0.95, "subspace_rows": 2}
    overlap_before = value(measure(members, **strict), "subspace_overlap")
    overlap_after = value(measure(members[::-1], **strict), "subspace_overlap")
    assert overlap_after == pytest.approx(overlap_before)


def test_without_one_of_three_no_triple_is_left() -> None:
    values = {(0, 1, 2): 0.2, (1, 0, 2): 0.5, (2, 0, 1): 0.8}
    assert over_members(values, 3) == Value(0.5, None, 3, "training seed")
    pairs = {(0, 1): 0.2, (0, 2): 0.3, (1, 2): 0.7}
    expected = jackknife_stderr([0.7, 0.3, 0.2])
    assert over_members(pairs, 3).stderr == pytest.approx(expected)
    assert over_members({(0, 1): 0.2}, 2).stderr is None
    assert over_members({(0, 1): 0.2, (1, 0): 0.4}, 3).stderr is None


def test_the_tables_have_every_member_pair_and_latent() -> None:
    members, x = noisy_group("relu", 3)
    measured = measure(members, x=x)
    table: pd.DataFrame = measured.tables["found"]
    own = measured.tables["members"]
    for member, coded in enumerate(members):
        part = table[table["member"] == member]
        dictionary = dictionary_of(coded.sae, coded.codes)  # type: ignore[arg-type]
        assert part["latent"].tolist() == sorted(dictionary.latents.tolist())
        for column, way in (("in", ""), ("in_centred", "_centred")):
            times = part[column].dropna().map(len)
            assert own[f"found_by_two{way}"][member] == pytest.approx((times == 2).mean())
        others = [other for other in range(3) if other != member]
        latent, nearest = part.iloc[0][["latent", "nearest"]]
        for other, near in zip(others, nearest, strict=True):
            live = brute_force.live(members[other])
            rows = members[other].sae.W_dec[live]
            _, (best,) = brute_force.max_cosines(coded.sae.W_dec[latent][None], rows)
            assert near == live[best]
    for name in GRADES:
        score = measured.scores[name]
        assert isinstance(score, Value)
        assert score.value == pytest.approx(own[name].mean())
        assert score.stderr is None
    assert set(measured.scores) == {score.name for score in seed_matching.scores}
    assert measured.tables["pairs"][["first", "second"]].to_numpy().tolist() == [
        [0, 1],
        [0, 2],
        [1, 2],
    ]
