"""The built-in plugin: what this package brings, through the hooks that any plugin uses."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from saebench_canon.errors import CanonError
from saebench_canon.hookspecs import hookimpl

if TYPE_CHECKING:
    from saebench_canon.adapter import Adapter
    from saebench_canon.bench import Bench
    from saebench_canon.case import Case
    from saebench_canon.input import Input
    from saebench_canon.labels import Evidence
    from saebench_canon.record import Record
    from saebench_canon.report import Report
    from saebench_canon.scores import Metric
    from saebench_canon.training import Trainer


@hookimpl
def canon_adapters() -> Iterable[Adapter]:
    """SAELens' releases and folders, and Gemma Scope."""
    from saebench_canon.adapters.gemma_scope import GEMMA_SCOPE
    from saebench_canon.adapters.saelens import SaeLensAdapter

    return [SaeLensAdapter(), GEMMA_SCOPE]


@hookimpl
def canon_inputs() -> Iterable[Input]:
    """What the built-in metrics ask for."""
    from saebench_canon.inputs import data, encoding

    return [
        data.lm, data.all_tokens, data.tokens, data.hook, data.extracted, data.all_acts, data.acts,
        data.train_acts, encoding.codes, encoding.loss_tokens, encoding.baseline, encoding.loss,
        encoding.loss_with,
    ]  # fmt: skip


@hookimpl
def canon_metrics() -> Iterable[Metric]:
    """Fidelity, completeness, atomicity, uniqueness."""
    from saebench_canon.metrics.composition import composition
    from saebench_canon.metrics.fidelity import fidelity
    from saebench_canon.metrics.meta_ladder import meta_ladder
    from saebench_canon.metrics.meta_replace import meta_replace
    from saebench_canon.metrics.meta_sae import meta_sae
    from saebench_canon.metrics.seed_matching import seed_matching
    from saebench_canon.metrics.stitching import stitching
    from saebench_canon.metrics.stitching_loss import stitching_loss

    return [
        fidelity, stitching, stitching_loss, meta_sae, composition, meta_replace, meta_ladder,
        seed_matching,
    ]  # fmt: skip


@hookimpl
def canon_trainers() -> Iterable[Trainer]:
    """SAELens' training classes."""
    from saebench_canon.trainers import saelens

    return saelens.TRAINERS


@hookimpl
def canon_reports() -> Iterable[Report]:
    """Tables as files."""
    from saebench_canon.reports.files import REPORTS

    return REPORTS


@hookimpl
def canon_claim(path: Path) -> str | None:
    """Folders of SAELens and of Gemma Scope."""
    from saebench_canon.adapters.gemma_scope import GEMMA_SCOPE
    from saebench_canon.adapters.local import claim_saelens

    claims = [claim for claim in (claim_saelens(path), GEMMA_SCOPE.claim(path)) if claim]
    if len(claims) > 1:
        raise CanonError(
            f"'{path}' holds checkpoints of two formats",
            hint=f"Say which one is meant: {' or '.join(claims)}.",
        )
    return claims[0] if claims else None


@hookimpl(trylast=True)
def canon_measure(case: Case, bench: Bench) -> Record:
    """Run the metric on its inputs."""
    return bench.compute(case)


@hookimpl(trylast=True)
def canon_label(evidence: Evidence) -> str | None:
    """The tokens on which it fires most, or else those that it promotes."""
    from saebench_canon.labels import token_list

    return token_list(evidence)
