"""What stands on the card of one latent or meta-latent: its evidence, and others beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from saebench_canon.errors import CanonError
from saebench_canon.kernels.cosine import unit
from saebench_canon.latents.card import Card, Related, Section
from saebench_canon.latents.chance import chance, sums
from saebench_canon.latents.decomposition import MetaSae, Records
from saebench_canon.latents.labels import label_of
from saebench_canon.latents.opened import Opened
from saebench_canon.plugin.evidence import Evidence, Part
from saebench_canon.reports.render import number
from saebench_canon.suite.specs import SaeSpec

NEAREST = 3  # smaller latents listed
HEAVIEST = 12  # latents of a meta-latent that are listed and labelled
T = TypeVar("T")


@dataclass(eq=False)
class Cards:
    """Makes cards of the latents of a run; each latent is labelled once."""

    run: Opened
    _labels: dict[tuple[str, int], str | None] = field(default_factory=dict)

    def latent(self, sae: SaeSpec, latent: int) -> Card:
        """The card of one latent; raises CanonError for one that is not there or is dead."""
        self._check(sae, latent)
        found = [self._left_out("Meta-latents", lambda: self._meta_latents(sae, latent))]
        ladder = self.run.ladder(sae)
        if ladder[0] is sae:
            self.run.note(f"The suite has no smaller SAE than {sae.name} beside it.")
        else:
            smaller = ladder[ladder.index(sae) - 1]
            found += [
                self._left_out("Nearest latents", lambda: self._nearest(sae, smaller, latent)),
                self._left_out("Sums of latents", lambda: self._sum(sae, smaller, latent)),
            ]
        sections = tuple(each for each in found if each is not None)
        return self._card(sae, self._evidence(sae, latent), sections)

    def meta_latent(self, sae: SaeSpec, meta_latent: int) -> Card:
        """The card of one meta-latent; raises CanonError where there is none or it is dead."""
        meta = self._meta(sae)
        count = len(meta.meta_latents)
        if not 0 <= meta_latent < count:
            raise CanonError(
                f"{sae.name} has the meta-latents 0 to {count - 1}, and no {meta_latent}"
            )
        weights = meta.of_meta_latent(meta_latent)
        if not weights:
            raise CanonError(f"meta-latent {meta_latent} of {sae.name} is dead: no latent has it")
        evidence = self._meta_evidence(sae, meta, meta_latent)
        items = tuple(
            Related(each.latent, each.weight, each.label, meta.explained(each.latent))
            for each in evidence.parts
        )
        title = (
            f"stands in {len(weights):,} of {len(meta.latents):,} latents "
            "(explained: of each row, by all its meta-latents)"
        )
        more, said = len(weights) - len(items), chance(meta.record.scores)
        return self._card(sae, evidence, (Section("latents", title, items, more, said=said),))

    def _card(self, sae: SaeSpec, evidence: Evidence, sections: tuple[Section, ...]) -> Card:
        data, observed = self.run.data(sae), self.run.observed(sae)
        return Card(
            suite=self.run.suite,
            label=self._named(evidence),
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
            raise CanonError(f"{sae.name} has the latents 0 to {width - 1}, and no {latent}")
        if codes is None or codes.counts[latent]:
            return
        live = codes.live.nonzero()[:, 0]
        near = live[torch.argsort((live - latent).abs(), stable=True)[:3]].sort().values.tolist()
        raise CanonError(
            f"latent {latent} of {sae.name} is dead: it fires on none of {len(codes):,} tokens",
            hint=f"The next live ones are {', '.join(map(str, near))}." if near else None,
        )

    def _left_out(self, what: str, make: Callable[[], T]) -> T | None:
        """What is made, or else None and a note on why it is not."""
        try:
            return make()
        except CanonError as error:
            self.run.note(f"{what} are left out: {str(error).rstrip('.')}.")
            return None

    def _evidence(self, sae: SaeSpec, latent: int) -> Evidence:
        observed, one = self.run.observed(sae), {latent: 1.0}
        read = observed.tokens(one), observed.contexts(one), observed.promoted(one)
        return Evidence(sae.name, latent, "latent", *read)

    def _meta_evidence(self, sae: SaeSpec, meta: MetaSae, meta_latent: int) -> Evidence:
        observed, weights = self.run.observed(sae), meta.of_meta_latent(meta_latent)
        read = observed.tokens(weights), observed.contexts(weights), observed.promoted(weights)
        parts = tuple(
            Part(latent, weight, self._label(sae, latent))
            for latent, weight in list(weights.items())[:HEAVIEST]
        )
        return Evidence(sae.name, meta_latent, "meta-latent", *read, parts)

    def _label(self, sae: SaeSpec, latent: int) -> str | None:
        key = sae.name, latent
        if key not in self._labels:
            self._labels[key] = self._named(self._evidence(sae, latent))
        return self._labels[key]

    def _named(self, evidence: Evidence) -> str | None:
        return label_of(evidence, self.run.registry)

    @property
    def _records(self) -> Records:
        metrics = self.run.registry.metrics.values()
        return Records(self.run.run["cases"], self.run.store, metrics)

    def _meta(self, sae: SaeSpec) -> MetaSae:
        return self._records.meta_latents(sae.name)

    def _meta_latents(self, sae: SaeSpec, latent: int) -> Section:
        meta = self._meta(sae)
        explained, said = meta.explained(latent), chance(meta.record.scores)
        items = tuple(
            Related(each, weight, self._named(self._meta_evidence(sae, meta, each)))
            for each, weight in meta.of_latent(latent).items()
        )
        of = f"{meta.label}: {len(meta.meta_latents)} meta-latents"
        share = "" if explained is None else f" explain {number(explained, 2)} of its row"
        title = f"made of meta-latents ({of}), which{share or ' were fitted to its row'}"
        return Section("meta_latents", title if items else f"made of no meta-latent ({of})",
                       items, explained=explained, said=said)  # fmt: skip

    def _nearest(self, sae: SaeSpec, smaller: SaeSpec, latent: int) -> Section:
        own, other = self.run.observed(sae), self.run.observed(smaller)
        cosines = unit(other.rows).double() @ unit(own.rows[latent][None])[0].double()
        if other.codes is not None:
            cosines[~other.codes.live] = -torch.inf
        best = torch.sort(cosines, descending=True, stable=True).indices[:NEAREST].tolist()
        items = tuple(
            Related(each, float(cosines[each]), self._label(smaller, each))
            for each in best
            if cosines[each] > -torch.inf
        )
        return Section("nearest", f"nearest latents of {smaller.name}", items)

    def _sum(self, sae: SaeSpec, smaller: SaeSpec, latent: int) -> Section:
        found = self._records.sum_of(smaller.name, sae.name, latent)
        items = tuple(
            Related(atom, weight, self._label(smaller, atom), explained)
            for atom, weight, explained in found.atoms
        )
        explained = items[-1].explained if items else 0.0
        title = f"as a sum of latents of {smaller.name}"
        title += " (explained: by it and those above)" if items else ": none has a part in it"
        floor = self._records.floor(sae.name)
        said = sums(found.record.scores, f"{sae.name}'s latents", f"{smaller.name}'s", floor)
        return Section("sum", title, items, explained=explained, said=said)
