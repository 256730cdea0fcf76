"""Making the card of one latent or meta-latent: its evidence and related latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch

from saebench_canon.bench.results import cases_of_run
from saebench_canon.errors import CanonError
from saebench_canon.kernels.cosine import unit
from saebench_canon.latents.canonical_line import canonical_line
from saebench_canon.latents.card import Card, Related, Section
from saebench_canon.latents.chance import chance, sums
from saebench_canon.latents.decomposition import MetaSae, Records
from saebench_canon.latents.labels import label_of
from saebench_canon.latents.open_run import OpenRun
from saebench_canon.plugin.evidence import Evidence, Part
from saebench_canon.reports.terminal import number
from saebench_canon.suite.specs import SaeSpec

NEAREST = 3  # smaller latents listed
HEAVIEST = 12  # latents of a meta-latent that are listed and labelled
T = TypeVar("T")


@dataclass(eq=False)
class Cards:
    """Makes cards of the latents of a run; each latent is labelled once."""

    run: OpenRun
    _labels: dict[tuple[str, int], str | None] = field(default_factory=dict)

    def latent(self, sae: SaeSpec, latent: int) -> Card:
        """The card of one latent; raises CanonError for a latent that is dead or does not exist."""
        self._check(sae, latent)
        candidates = [self._or_note("Meta-latents", lambda: self._meta_latents(sae, latent))]
        ladder = self.run.ladder(sae)
        if ladder[0] is sae:
            self.run.note(f"The suite has no smaller SAE to compare {sae.name} with.")
        else:
            smaller = ladder[ladder.index(sae) - 1]
            candidates += [
                self._or_note("Nearest latents", lambda: self._nearest(sae, smaller, latent)),
                self._or_note("Sums of latents", lambda: self._sum(sae, smaller, latent)),
            ]
        sections = tuple(section for section in candidates if section is not None)
        line = canonical_line(self.run.plan, self.run.registry, sae.name, latent)
        return replace(self._card(sae, self._evidence(sae, latent), sections), canonical=line)

    def meta_latent(self, sae: SaeSpec, meta_latent: int) -> Card:
        """The card of one meta-latent; raises CanonError if it is dead or does not exist."""
        meta = self._decomposition(sae)
        count = len(meta.meta_latents)
        if not 0 <= meta_latent < count:
            raise CanonError(
                f"{sae.name} has no meta-latent {meta_latent}",
                hint=f"Its meta-latents are 0 to {count - 1}.",
            )
        weights = meta.of_meta_latent(meta_latent)
        if not weights:
            raise CanonError(f"meta-latent {meta_latent} of {sae.name} is dead: no latent uses it")
        evidence = self._meta_evidence(sae, meta, meta_latent)
        items = tuple(
            Related(part.latent, part.weight, part.label, meta.explained(part.latent))
            for part in evidence.parts
        )
        title = (
            f"used by {len(weights):,} of {len(meta.latents):,} latents "
            "(explained: share of each row, by all its meta-latents)"
        )
        more, sentences = len(weights) - len(items), chance(meta.record.scores)
        return self._card(
            sae, evidence, (Section("latents", title, items, more, sentences=sentences),)
        )

    def _card(self, sae: SaeSpec, evidence: Evidence, sections: tuple[Section, ...]) -> Card:
        data, observed = self.run.data(sae), self.run.observed(sae)
        return Card(
            suite=self.run.suite,
            label=self._label_from(evidence),
            evidence=evidence,
            firing=observed.firing(evidence.latent) if evidence.kind == "latent" else None,
            source=data.lm_source.text if data is not None and data.gives("tokens", "lm") else None,
            sections=sections,
            notes=tuple(self.run.notes),
        )

    def _check(self, sae: SaeSpec, latent: int) -> None:
        observed = self.run.observed(sae)
        width, codes = len(observed.rows), observed.codes
        if not 0 <= latent < width:
            raise CanonError(
                f"{sae.name} has no latent {latent}", hint=f"Its latents are 0 to {width - 1}."
            )
        if codes is None or codes.counts[latent]:
            return
        live = codes.live.nonzero()[:, 0]
        near = live[torch.argsort((live - latent).abs(), stable=True)[:3]].sort().values.tolist()
        raise CanonError(
            f"latent {latent} of {sae.name} is dead: it fires on none of {len(codes):,} tokens",
            hint=f"The nearest live latents are {', '.join(map(str, near))}." if near else None,
        )

    def _or_note(self, description: str, make: Callable[[], T]) -> T | None:
        """The result of `make`, or None and a note with the reason."""
        try:
            return make()
        except CanonError as error:
            self.run.note(f"{description} are left out: {str(error).rstrip('.')}.")
            return None

    def _evidence(self, sae: SaeSpec, latent: int) -> Evidence:
        observed, weights = self.run.observed(sae), {latent: 1.0}
        token_evidence = (
            observed.tokens(weights),
            observed.contexts(weights),
            observed.promoted(weights),
        )
        return Evidence(sae.name, latent, "latent", *token_evidence)

    def _meta_evidence(self, sae: SaeSpec, meta: MetaSae, meta_latent: int) -> Evidence:
        observed, weights = self.run.observed(sae), meta.of_meta_latent(meta_latent)
        token_evidence = (
            observed.tokens(weights),
            observed.contexts(weights),
            observed.promoted(weights),
        )
        parts = tuple(
            Part(latent, weight, self._label(sae, latent))
            for latent, weight in list(weights.items())[:HEAVIEST]
        )
        return Evidence(sae.name, meta_latent, "meta-latent", *token_evidence, parts)

    def _label(self, sae: SaeSpec, latent: int) -> str | None:
        key = sae.name, latent
        if key not in self._labels:
            self._labels[key] = self._label_from(self._evidence(sae, latent))
        return self._labels[key]

    def _label_from(self, evidence: Evidence) -> str | None:
        return label_of(evidence, self.run.registry)

    @property
    def _records(self) -> Records:
        metrics = self.run.registry.metrics.values()
        return Records(cases_of_run(self.run.run), self.run.store, metrics)

    def _decomposition(self, sae: SaeSpec) -> MetaSae:
        return self._records.meta_latents(sae.name)

    def _meta_latents(self, sae: SaeSpec, latent: int) -> Section:
        meta = self._decomposition(sae)
        explained, sentences = meta.explained(latent), chance(meta.record.scores)
        items = tuple(
            Related(
                meta_latent, weight, self._label_from(self._meta_evidence(sae, meta, meta_latent))
            )
            for meta_latent, weight in meta.of_latent(latent).items()
        )
        source = f"{meta.label}: {len(meta.meta_latents)} meta-latents"
        share = "" if explained is None else f" explain {number(explained, 2)} of its row"
        title = f"made of meta-latents ({source}), which{share or ' were fitted to its row'}"
        return Section("meta_latents", title if items else f"made of no meta-latent ({source})",
                       items, explained=explained, sentences=sentences)  # fmt: skip

    def _nearest(self, sae: SaeSpec, smaller: SaeSpec, latent: int) -> Section:
        row = self.run.observed(sae).rows[latent]
        smaller_observed = self.run.observed(smaller)
        cosines = unit(smaller_observed.rows).double() @ unit(row[None])[0].double()
        if smaller_observed.codes is not None:
            cosines[~smaller_observed.codes.live] = -torch.inf
        best = torch.sort(cosines, descending=True, stable=True).indices[:NEAREST].tolist()
        items = tuple(
            Related(index, float(cosines[index]), self._label(smaller, index))
            for index in best
            if cosines[index] > -torch.inf
        )
        return Section("nearest", f"nearest latents of {smaller.name}", items)

    def _sum(self, sae: SaeSpec, smaller: SaeSpec, latent: int) -> Section:
        latent_sum = self._records.sum_of(smaller.name, sae.name, latent)
        items = tuple(
            Related(atom, weight, self._label(smaller, atom), explained)
            for atom, weight, explained in latent_sum.atoms
        )
        explained = items[-1].explained if items else 0.0
        title = f"as a sum of latents of {smaller.name}"
        title += (
            " (explained: by this latent and those above)"
            if items
            else ": none of them is part of it"
        )
        floor = self._records.floor(sae.name)
        sentences = sums(
            latent_sum.record.scores, f"{sae.name}'s latents", f"{smaller.name}'s", floor
        )
        return Section("sum", title, items, explained=explained, sentences=sentences)
