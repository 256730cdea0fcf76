"""The last run of a suite, opened to show single latents: its SAEs on their evaluation data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from saebench_canon.bench.artifact_cache import ArtifactCache, Execution
from saebench_canon.bench.identity import Identities
from saebench_canon.bench.rerun import check_unchanged, plan_of_run
from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError, nearest
from saebench_canon.latents.contexts import Text
from saebench_canon.latents.evidence import Observed
from saebench_canon.plugin.data import DataSpec
from saebench_canon.plugin.registry import Registry
from saebench_canon.suite.axes import ladders
from saebench_canon.suite.specs import SaeSpec


class OpenRun:
    """A run whose stored inputs and records make cards; `notes` say what the cards lack."""

    def __init__(self, run: Mapping[str, Any], registry: Registry, store: Store) -> None:
        self.run, self.registry, self.store = run, registry, store
        self.plan = plan_of_run(run, registry, store)
        self.identities = Identities(registry, store)
        batch_size = (run.get("flags") or {}).get("batch_size") or Execution.batch_size
        execution = Execution(batch_size=batch_size)
        self.artifacts = ArtifactCache(registry, store, self.identities, execution)
        self.notes: list[str] = []
        self._observed: dict[str, Observed] = {}

    @property
    def suite(self) -> str:
        """The suite's name."""
        return str(self.run["suite"])

    def choose(self, name: str | None) -> SaeSpec:
        """The SAE of that name, or else the widest that differs from the first in width only."""
        saes = {sae.name: sae for sae in self.plan.suite.saes}
        if name is None:
            return self.ladder(next(iter(saes.values())))[-1]
        if name not in saes:
            raise CanonError(f"no SAE '{name}' in {self.suite}", hint=nearest(name, saes))
        return saes[name]

    def ladder(self, sae: SaeSpec) -> list[SaeSpec]:
        """The SAEs that differ from this one in width only, narrowest first."""
        return next(
            (ladder for ladder in ladders(self.plan.suite.saes, "width") if sae in ladder), [sae]
        )

    def data(self, sae: SaeSpec) -> DataSpec | None:
        """The data of an SAE, as its cases read it."""
        for case in self.plan.cases:
            if sae in case.subject:
                return case.data
        raise CanonError(f"no case of the suite measures '{sae.name}'")

    def note(self, sentence: str) -> None:
        """Note once what the cards lack."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def observed(self, sae: SaeSpec) -> Observed:
        """The SAE on its evaluation data, as far as data and model are available.

        Raises CanonError for an SAE that was not trained yet or is not what the run measured.
        """
        if sae.name not in self._observed:
            data = self.data(sae)
            trained = self.store.root / "artefacts" / self.identities.sae(sae, data)
            if sae.source.training is not None and not trained.is_dir():
                raise CanonError(
                    f"'{sae.name}' was not trained in {self.store.root}",
                    hint=f"Run `saebench-canon run {self.run['called']}` first.",
                )
            check_unchanged(self.run, self.store, self.identities, sae, data)
            self._observed[sae.name] = self._observe(data, sae)
        return self._observed[sae.name]

    def _observe(self, data: DataSpec | None, sae: SaeSpec) -> Observed:
        rows = self.artifacts.sae(sae, data).to("cpu").W_dec
        if data is None:
            self.note("The SAE has no data, so it is unknown where its latents fire.")
            return Observed(rows)
        codes = self.artifacts.input("codes", data, sae)
        if not data.gives("tokens", "lm"):
            self.note("The data is a file of activations: it has no text and no model.")
            return Observed(rows, codes, self.artifacts.input("acts", data).doc)
        tokens = self.artifacts.input("tokens", data)
        try:
            lm = self.artifacts.input("lm", data)
            hook = self.artifacts.input("hook", data)
        except CanonError as error:
            self.note(f"Tokens are left out: {str(error).rstrip('.')}.")
            return Observed(rows, codes, tokens.token_doc)
        text = Text(tokens, lm.tokenizer)
        if len(text.ids) != len(codes):
            raise CanonError(f"there are {len(text.ids)} tokens, but codes of {len(codes)}")
        return self._with_model(Observed(rows, codes, tokens.token_doc, text, (lm, hook)), rows)

    def _with_model(self, observed: Observed, rows: Tensor) -> Observed:
        """The same, without the model if it cannot say which tokens a direction promotes."""
        try:
            observed.promoted({0: 1.0})
        except CanonError as error:
            self.note(f"Promoted tokens are left out: {str(error).rstrip('.')}.")
            return replace(observed, model=None)
        return observed
