"""Which cases are the same: fingerprints of data, SAEs, inputs and cases, without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from saebench_canon.errors import CanonError, nearest, placed
from saebench_canon.plugin.data import SPLIT_SEED, DataSpec
from saebench_canon.plugin.fingerprint import Remembers, fingerprint
from saebench_canon.plugin.ref import Ref
from saebench_canon.saes.source import Checkpoint
from saebench_canon.suite.specs import SaeSpec

if TYPE_CHECKING:
    from saebench_canon.plugin.registry import Registry
    from saebench_canon.suite.cases import Case

# The parameters of a metric that stand for its SAEs.
SUBJECTS = {"sae": ("sae",), "pair": ("small", "large"), "group": ("saes",)}
OF_CASE = ("seed", "memo", "keep")
# Parameters of an input that say how it is computed; they are no part of its identity.
EXECUTION = ("device", "batch_size", "folder")


@dataclass(frozen=True)
class NeededInput:
    """One parameter of a metric: the input, its SAEs, and whether it is a tuple."""

    parameter: str
    input: str
    saes: tuple[SaeSpec, ...] | None  # None: an input of the data or the case
    many: bool = False


@dataclass
class Identities:
    """Fingerprints with one registry; each is computed once."""

    registry: Registry
    memory: Remembers
    _known: dict[Any, str] = field(default_factory=dict)

    def data(self, data: DataSpec) -> str:
        """The fingerprint of the activations a data table describes, its split included."""
        key = ("data", data)
        if key not in self._known:
            with placed(data.where):
                self._known[key] = fingerprint(self._data(data))
        return self._known[key]

    def check_data(self, data: DataSpec) -> None:
        """Raise CanonError if the files behind a data table are no longer those of its fingerprint.

        Called after they are read: scores of other content must not get the planned id.
        """
        with placed(data.where):
            if fingerprint(self._data(data)) != self.data(data):
                raise CanonError(
                    f"the data '{data.name}' has changed since the suite was read",
                    hint="Run again.",
                )

    def _data(self, data: DataSpec) -> dict[str, Any]:
        common: dict[str, Any] = {"holdout": data.holdout, "tokens": data.tokens}
        common["split_seed"] = SPLIT_SEED
        if data.normalize not in (None, "none"):
            common["normalize"] = data.normalize
        if data.fresh is not None:
            common["fresh"] = data.fresh
        return {**data.source.identity(data, self.memory), **common}

    def sae(self, sae: SaeSpec, data: DataSpec | None) -> str:
        """The fingerprint of an SAE: its content, or everything that its training depends on."""
        key = ("sae", sae)
        if key not in self._known:
            with placed(sae.where):
                reads = self.read_by(sae, data)
                source = sae.source.identity(data, lambda name: self.input(name, reads, None))
                self._known[key] = fingerprint({"dtype": sae.dtype, **source})
        return self._known[key]

    def read_by(self, sae: SaeSpec, data: DataSpec | None) -> DataSpec | None:
        """The data that an SAE is trained or calibrated on."""
        return None if data is None else data.to_train(sae.source.training or {})

    def input(self, name: str, data: DataSpec | None, sae: SaeSpec | None) -> str:
        """The fingerprint of an input: name, version, settings and all that it needs."""
        if name == "data":
            return self.data(data) if data is not None else ""
        if name == "sae":
            assert sae is not None
            return self.sae(sae, data)
        definition = self.registry.inputs[name]
        needs = {
            need: self.input(need, data, sae)
            for need in definition.needs
            if need not in EXECUTION and self.available(need, data)
        }
        settings = dict(definition.identity(data)) if data is not None else {}
        return fingerprint(
            {"input": name, "version": definition.version, "settings": settings, "needs": needs}
        )

    def available(self, name: str, data: DataSpec | None) -> bool:
        """Whether an input can be computed for the data (or without data)."""
        if name == "sae" or name in EXECUTION:
            return True
        if data is None:
            return False
        if name == "data":
            return True
        definition = self.registry.inputs[name]
        required = (need for need in definition.needs if need not in definition.optional)
        return definition.available(data) and all(self.available(need, data) for need in required)

    def case(self, case: Case) -> str:
        """The fingerprint of a case, which is its record's id."""
        return fingerprint(
            {
                "metric": case.metric.name,
                "version": case.metric.version,
                "seed": case.seed,
                "subject": [self.sae(sae, case.data) for sae in case.subject],
                "peers": sorted(self.sae(sae, case.data) for sae in case.peers),
                **self.facts(case),
            }
        )

    def facts(self, case: Case) -> dict[str, Any]:
        """What a case's id depends on besides its metric, seed and SAEs: settings and inputs.

        And the hook, model and use of BOS that local checkpoints record: caveats are of them.
        """
        needs = {
            needed.parameter: [
                self.input(needed.input, case.data, sae)
                for sae in ((None,) if needed.saes is None else needed.saes)
            ]
            for needed in needed_inputs(case, self.registry)
            if needed.input not in OF_CASE and self.available(needed.input, case.data)
        }
        origins = [_origin(sae) for sae in case.subject]
        known = {"origins": origins} if any(any(origin) for origin in origins) else {}
        return {"settings": self._settings(case), "needs": needs, **known}

    def _settings(self, case: Case) -> dict[str, Any]:
        """The settings, with the content of an SAE in place of its name; None is left out."""
        settings = dict(case.settings)
        for name in case.metric.sae_settings:
            text = settings.pop(name, None)
            if text is not None:
                settings[name] = {"sae": self.named(text)}
        return settings

    def named(self, text: str) -> str:
        """The identity of an SAE that a setting names."""
        key = ("named", text)
        if key not in self._known:
            self._known[key] = Checkpoint(Ref.parse(text), self.registry).content
        return str(self._known[key])


def _origin(sae: SaeSpec) -> list[str]:
    """The hook, the model and the use of BOS that a local checkpoint records; "" for unknown."""
    if not sae.source.local or sae.source.training is not None:
        return ["", "", ""]  # of the hub's, its name and revision stand for them
    described = sae.source.describe()
    bos = "" if described.prepend_bos is None else str(described.prepend_bos)
    return [described.hook or "", described.model or "", bos]


def needed_inputs(case: Case, registry: Registry) -> Iterator[NeededInput]:
    """What each positional parameter of the case's metric stands for."""
    for parameter in case.metric.inputs:
        yield _needed(parameter, case, registry)


def _needed(parameter: str, case: Case, registry: Registry) -> NeededInput:
    roles = SUBJECTS[case.metric.of]
    group = case.metric.of == "group"
    if parameter in OF_CASE:
        return NeededInput(parameter, parameter, None)
    if parameter in roles:
        saes = case.subject if group else (case.subject[roles.index(parameter)],)
        return NeededInput(parameter, "sae", saes, many=group)
    if parameter == "peers":
        return NeededInput(parameter, "sae", case.peers, many=True)
    role, _, rest = parameter.partition("_")
    if role == "peers" and rest in registry.inputs:
        return NeededInput(parameter, rest, case.peers, many=True)
    if case.metric.of == "pair" and role in roles and rest in registry.inputs:
        return NeededInput(parameter, rest, (case.subject[roles.index(role)],))
    if parameter not in registry.inputs or (
        case.metric.of == "pair" and registry.inputs[parameter].per == "sae"
    ):
        known = [*roles, *OF_CASE, "peers", *registry.inputs]
        raise CanonError(
            f"metric '{case.metric.name}' needs an unknown input '{parameter}'",
            hint=nearest(parameter, known),
        )
    per_sae = registry.inputs[parameter].per == "sae"
    return NeededInput(
        parameter, parameter, case.subject if per_sae else None, many=group and per_sae
    )
