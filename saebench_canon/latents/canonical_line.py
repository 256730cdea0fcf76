"""Why a latent is canonical, or which test it fails."""

from __future__ import annotations

from collections.abc import Iterator

from saebench_canon.bench.plan import Plan
from saebench_canon.bench.results import rows_of, tables_of
from saebench_canon.plugin.registry import Registry
from saebench_canon.questions.canonical import MOST, Listed, list_of
from saebench_canon.tables.summarise import summarise


def canonical_line(plan: Plan, registry: Registry, sae: str, latent: int) -> str | None:
    """A sentence on one latent of an SAE; None where the SAE was compared with nothing."""
    metrics = registry.metrics
    rows = rows_of(plan.listed(), plan.store, metrics)
    blocks = summarise(rows, metrics.values(), tables=tables_of(plan.store)).begun
    lists = (list_of(block, sae) for block in blocks)
    listed = next((one for one in lists if one is not None), None)
    return why(listed, latent) if listed is not None and listed.against.confirms else None


def why(listed: Listed, latent: int) -> str | None:
    """A sentence on one latent of a list; None for one that is not there."""
    rows = listed.table[listed.table["latent"] == latent]
    if rows.empty:
        return None
    row = {str(name): value for name, value in rows.iloc[0].items()}
    if row["twin_of"] >= 0:
        return f"not canonical: a duplicate of latent {row['twin_of']}"
    head = "canonical" if row["canonical"] else "not canonical"
    return f"{head}: {'; '.join([*_found(listed, row), *_sums(listed, row)])}"


def _found(listed: Listed, row: dict[str, int]) -> Iterator[str]:
    against = listed.against
    if against.others:
        yield f"{row['found_in']} of {len(against.others)} other seeds find it"
    if against.larger:
        yield f"{row['above']} of {len(against.larger)} wider SAEs have it"
    if against.smaller:
        yield f"{row['below']} of {len(against.smaller)} narrower ones do"


def _sums(listed: Listed, row: dict[str, int]) -> Iterator[str]:
    """The sums that it is; those of less than half of the SAEs do not count, and are told."""
    if row["sum_of_own"]:
        yield "a sum of its own SAE's other latents"
    for column, names, which in (
        ("sum_of_larger", listed.against.larger, "wider"),
        ("sum_of_smaller", listed.against.smaller, "narrower"),
    ):
        if row[column]:
            few = "" if row[column] >= MOST * len(names) else ", fewer than half"
            yield f"a sum of latents of {row[column]} of the {len(names)} {which} SAEs{few}"
    if not (row["sum_of_own"] or row["sum_of_larger"] or row["sum_of_smaller"]):
        yield "no sum of others"
