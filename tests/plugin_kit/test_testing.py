"""The conformance kit: what conforms passes every check, and each check catches a bad example."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import FORMATS as ALL_FORMATS
from clone import PLUGINS
from other_processor import OtherProcessor
from own_formats import FORMS, write
from planted import write_sae

from saebench_canon import CanonError, Score, Undefined, metric
from saebench_canon.plugin.adapter import Description
from saebench_canon.plugin.metric import Measurement, Metric
from saebench_canon.plugin.ref import Ref
from saebench_canon.plugin.registry import Registry, load_registry
from saebench_canon.plugin.sae import CanonicalSAE, LinearEncoder
from saebench_canon.saes.fold import fold
from saebench_canon.testing import check_adapter, check_metric, examine_adapter, examine_metric

D, M = 8, 12


class Good:
    """ReLU SAEs in one .npz file."""

    scheme = "good"

    def read(self, ref: Ref) -> dict[str, Any]:
        try:
            with np.load(ref.path / "w.npz", allow_pickle=False) as arrays:
                return {name: arrays[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
        except Exception as error:
            raise CanonError(f"it does not read ({error})", where=str(ref)) from error

    def identity(self, ref: Ref) -> str:
        digest = hashlib.sha256()
        for name, array in sorted(self.read(ref).items()):
            digest.update(name.encode() + array.tobytes())
        return f"good:{digest.hexdigest()}"

    def describe(self, ref: Ref) -> Description:
        m, d = self.read(ref)["W_dec"].shape
        return Description(d=d, width=m, architecture="relu")

    def load(self, ref: Ref, *, device: str = "cpu", dtype: Any = "float32") -> CanonicalSAE:
        weights = {name: torch.from_numpy(array) for name, array in self.read(ref).items()}
        torch_dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        return fold(**weights, where=str(ref)).to(device, torch_dtype)

    def list(self) -> tuple[str, ...]:
        return ()

    def claim(self, path: Path) -> str | None:
        return f"good:{path}" if (path / "w.npz").is_file() else None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0).standard_normal
    shapes = {"W_enc": (D, M), "b_enc": (M,), "W_dec": (M, D), "b_dec": (D,)}
    home = tmp_path / "sae"
    home.mkdir()
    np.savez(home / "w.npz", **{k: draw(s).astype(np.float32) for k, s in shapes.items()})
    return home


def test_a_good_adapter_passes_every_check(folder: Path) -> None:
    report = check_adapter(Good(), folder)
    assert {finding.result for finding in report} == {"ok"}
    assert report["it claims the bare path"].message == f"good:{folder}"


@pytest.mark.parametrize("form", FORMS)
def test_an_adapter_of_one_function_passes(form: str, tmp_path: Path) -> None:
    adapter = write(tmp_path / "sae", form)
    report = check_adapter(adapter, f"{form}:{tmp_path / 'sae'}")
    skipped = [finding for finding in report if finding.result == "skipped"]
    assert len(skipped) == (4 if form == "st-batch" else 0)
    assert all("stores no threshold" in finding.message for finding in skipped)


def test_the_built_in_adapter_passes(tmp_path: Path) -> None:
    registry = load_registry()
    write_sae(tmp_path / "sae", 24)
    report = check_adapter(registry.adapters["saelens"], tmp_path / "sae", claim=registry.claim)
    assert report["identity and describe do not import torch"].message.startswith("neither torch")


@pytest.mark.parametrize("form", FORMS)
def test_a_report_on_an_adapter_is_the_same_on_another_processor(form: str, tmp_path: Path) -> None:
    """The output is compared letter by letter (docs/tutorial-adapter.md)."""
    adapter, ref = write(tmp_path / "sae", form), f"{form}:{tmp_path / 'sae'}"
    findings = list(examine_adapter(adapter, ref))
    with OtherProcessor():
        elsewhere = list(examine_adapter(adapter, ref))
    assert findings == elsewhere


@pytest.mark.parametrize("name", ["fidelity", "stitching", "seed_matching"])
def test_a_report_on_a_metric_is_the_same_on_another_processor(name: str) -> None:
    metric = load_registry().metrics[name]
    findings = list(examine_metric(metric))
    with OtherProcessor():
        elsewhere = list(examine_metric(metric))
    assert findings == elsewhere


def test_another_processor_rounds_otherwise_and_counts_alike() -> None:
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(30, 20, generator=draw), torch.randn(20, 10, generator=draw)
    integers = torch.arange(600.0).reshape(30, 20) % 7
    product, sums = a @ b, integers.sum(dim=0)
    with OtherProcessor():
        other_product = a @ b
        assert torch.equal(integers.sum(dim=0), sums)
        assert not torch.equal((a[:7] @ b), other_product[:7])  # another shape, another kernel
    assert not torch.equal(product, other_product)
    torch.testing.assert_close(product, other_product, rtol=1e-6, atol=0)


PLUGINS = sorted((PLUGINS).glob("*/saebench_canon_*.py"))


@pytest.fixture(scope="module")
def registry() -> Registry:
    """The built-ins and the plugins of this repository, by file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANON_PLUGINS", "")  # they may be installed, too
        return load_registry(PLUGINS)


@pytest.mark.skipif(not PLUGINS, reason="plugins/ is not here")
@pytest.mark.parametrize("form", ALL_FORMATS)
def test_the_adapter_of_every_format_conforms(
    form: str, registry: Registry, tmp_path: Path
) -> None:
    ref = Ref.parse(registry.claim(ALL_FORMATS[form](tmp_path / "it")) or "")
    report = check_adapter(registry.adapters[ref.scheme], ref, claim=registry.claim)
    waits = not registry.adapters[ref.scheme].describe(ref).calibrated
    assert sum(finding.result == "skipped" for finding in report) == (4 if waits else 0)


def altered(**changed: Callable[..., Any]) -> Callable[[], Any]:
    """The good adapter with some methods replaced; each gets the method that it replaces."""

    def make() -> Any:
        good = Good()
        for name, function in changed.items():
            before = getattr(good, name)
            setattr(good, name, lambda *a, _f=function, _b=before, **k: _f(_b, *a, **k))
        return good

    return make


def recoded(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], Any]:
    """The good adapter with codes changed."""

    @dataclass(frozen=True, eq=False)
    class Encoder(LinearEncoder):
        def dense(self, x: torch.Tensor) -> torch.Tensor:
            return change(super().dense(x))

    def load(real: Callable[..., CanonicalSAE], *args: Any, **named: Any) -> CanonicalSAE:
        sae = real(*args, **named)
        return replace(sae, coder=Encoder(sae.coder.weights, sae.coder.bias, "relu"))  # type: ignore[attr-defined]

    return altered(load=load)


class OtherDecode(CanonicalSAE):
    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return codes @ self.W_dec


def schemed(scheme: str) -> Callable[[], Any]:
    return lambda: type("Bad", (Good,), {"scheme": scheme})()


def drawing(real: Callable[..., Any], *args: Any, **named: Any) -> Any:
    torch.randn(3)
    return real(*args, **named)


def importing(real: Callable[..., Any], ref: Ref) -> Any:
    import torch  # noqa: F401

    return real(ref)


def uncaught(real: Callable[..., Any], ref: Ref, **named: Any) -> Any:
    with np.load(ref.path / "w.npz") as arrays:
        _ = arrays["W_enc"]
    return real(ref, **named)


CALLS = iter(range(10_000))
BAD_ADAPTERS: dict[str, tuple[Callable[[], Any], str]] = {
    "its scheme is valid": (schemed("C"), "'C'"),
    "the ref parses back to itself": (schemed("Good"), "good"),
    "it lists refs of its scheme": (
        altered(list=lambda real: ["other:x"]), "'other:x', which is no ref of 'good'",
    ),
    "it claims the bare path": (
        altered(claim=lambda real, path: f"good:{path}"), "an empty folder is also claimed",
    ),
    "describe agrees with load": (
        altered(describe=lambda real, ref: replace(real(ref), width=3)),
        "describe says width = 3, but load gives 12",
    ),
    "identity and describe do not import torch": (altered(describe=importing), "import torch"),
    "identity stays the same": (
        altered(identity=lambda real, ref: real(ref) + str(ref)), "leave out the path",
    ),
    "identity changes when the SAE does": (
        altered(identity=lambda real, ref: real(ref)[:5]), "which changes the SAE",
    ),
    "load returns the canonical form": (
        altered(load=lambda real, ref, **k: replace(s := real(ref, **k), W_dec=2 * s.W_dec)),
        "differs from 1",
    ),
    "codes are at least 0": (recoded(lambda codes: codes - 1), "a code is -1"),
    "codes times rows plus bias is the reconstruction": (
        altered(load=lambda real, ref, **k: OtherDecode(
            (s := real(ref, **k)).W_dec, s.b_dec, s.coder)),
        "decode is not codes @ W_dec",
    ),
    "a token's codes depend on no other token": (
        recoded(lambda codes: codes / codes.sum().clamp(min=1)), "row by row",
    ),
    "sparse codes equal dense codes": (recoded(lambda codes: 2 * codes), "other codes"),
    "dtype and device are as requested": (
        altered(load=lambda real, ref, **k: real(ref)), "load with torch.float64 on cpu",
    ),
    "the global random state is unchanged": (altered(load=drawing), "generator of torch"),
    "a missing path raises a CanonError": (
        altered(describe=uncaught), "describe raises FileNotFoundError",
    ),
    "truncated files raise a CanonError": (altered(describe=uncaught), "w.npz cut to"),
}  # fmt: skip


@pytest.mark.parametrize("check", BAD_ADAPTERS)
def test_each_check_of_an_adapter_catches_a_bad_one(check: str, folder: Path) -> None:
    make, message = BAD_ADAPTERS[check]
    adapter = make()
    ref = Ref("good", str(folder), local=True)
    finding = examine_adapter(adapter, ref)[check]
    assert finding.result == "failed", finding
    assert message in finding.message


def test_there_is_a_bad_adapter_for_every_check(folder: Path) -> None:
    assert [finding.check for finding in examine_adapter(Good(), folder)] == list(BAD_ADAPTERS)


def test_other_ways_to_be_bad_are_caught_too(folder: Path) -> None:
    bad: list[tuple[str, Callable[[], Any], str]] = [
        ("identity stays the same", altered(identity=lambda real, ref: str(next(CALLS))), "second"),
        ("identity stays the same", altered(identity=lambda real, ref: 3), "not a text"),
        ("it claims the bare path", altered(claim=lambda real, path: None), "no plugin claims"),
        ("it claims the bare path", altered(claim=lambda real, path: "other:x"), "other:x"),
        ("describe agrees with load", altered(describe=lambda real, ref: 3), "Description"),
        ("describe agrees with load",
         altered(describe=lambda real, ref: replace(real(ref), width=None)), "does not return d"),
        ("load returns the canonical form", altered(load=lambda real, ref, **k: 3), "fold makes a"),
        ("load returns the canonical form", altered(load=lambda real, ref, **k: replace(
            s := real(ref, **k), b_dec=s.b_dec / 0)), "not finite"),
        ("truncated files raise a CanonError",
         altered(load=lambda real, ref, **k: real(Ref("good", str(folder), local=True), **k),
                 describe=lambda real, ref: real(Ref("good", str(folder), local=True))),
         "still loads"),
    ]  # fmt: skip
    for check, make, message in bad:
        finding = examine_adapter(make(), folder)[check]
        assert finding.result == "failed", (check, finding)
        assert message in finding.message


def test_a_module_that_imports_torch_at_its_top_is_caught(folder: Path, tmp_path: Path) -> None:
    text = (
        "import torch\nfrom saebench_canon import Parameters, checkpoint\n\n"
        '@checkpoint("good", files=["w.npz"])\ndef heavy(files):\n    w = files.npz("w.npz")\n'
        '    return Parameters(w["W_enc"], w["W_dec"], w["b_dec"], w["b_enc"])\n\n'
        "def canon_adapters():\n    return [heavy]\n"
    )
    (tmp_path / "heavy.py").write_text(text)
    (tmp_path / "fine.py").write_text(text.removeprefix("import torch\n"))
    for name, result in (("heavy", "failed"), ("fine", "ok")):
        adapter = load_registry([_hooked(tmp_path / f"{name}.py")]).adapters["good"]
        finding = examine_adapter(adapter, folder)["identity and describe do not import torch"]
        assert finding.result == result, finding


def _hooked(path: Path) -> Path:
    text = path.read_text().replace(
        "def canon", "from saebench_canon import hookimpl\n@hookimpl\ndef canon"
    )
    path.write_text(text)
    return path


def test_a_failing_report_raises_with_a_line_for_each_check(folder: Path) -> None:
    with pytest.raises(AssertionError, match=r"3 of 17 checks failed\n  its scheme .*'C'.*\n  the"):
        check_adapter(schemed("C")(), Ref("good", str(folder), local=True))


def test_an_sae_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(CanonError, match="there is no file or folder"):
        check_adapter(Good(), tmp_path / "nowhere")


SCORES = [Score("value", help="Some number.")]


@metric(of="sae", version=1, scores=SCORES)
def good(sae: Any, codes: Any, *, above: float = 0.1) -> Any:
    """The share of live latents active on many tokens."""
    return {"value": float((codes.counts[codes.live] / len(codes) > above).double().mean())}


def measuring(function: Callable[..., Any]) -> Metric:
    """A metric of the function, with a docstring."""
    function.__doc__ = "Something."
    return metric(of="sae", version=1, scores=SCORES, name="bad")(function)


def fails(sae: Any) -> Any:
    raise ValueError("no")


def needs_data(sae: Any, codes: Any = None) -> Any:
    return {"value": codes.l0}


def drifts(sae: Any) -> Any:
    return {"value": float(next(CALLS))}


def draws(sae: Any) -> Any:
    torch.manual_seed(0)
    random.seed(0)
    np.random.rand()
    return {"value": 1.0}


def overwrites(sae: Any, acts: Any) -> Any:
    acts.x.add_(1)
    return {"value": 1.0}


def by_place(sae: Any) -> Any:
    return {"value": float(sae.W_dec[0, 0])}


def counts(sae: Any) -> Any:
    return {"value": float(sae.width)}


def odd(sae: Any, *, mode: Any = object) -> Any:
    return {"value": 1.0}


def loose(sae: Any, *, mode=None) -> Any:  # type: ignore[no-untyped-def]
    return {"value": 1.0}


def unknown(sae: Any, cods: Any) -> Any:
    return {"value": 1.0}


def silent(sae: Any) -> Any:
    return {}


def infinite(sae: Any) -> Any:
    return {"value": float("inf")}


def without_a_column(sae: Any) -> Any:
    import pandas as pd

    tables = {"decomposition": pd.DataFrame({"latent": [0], "weight": [1.0]})}
    return Measurement({"value": 1.0}, tables)


BAD_METRICS: list[tuple[str, Metric, str]] = [
    ("it documents what it measures", replace(good, help=""), "no docstring"),
    ("it documents what it measures", replace(good, scores=()), "declares no score"),
    ("it documents what it measures", replace(good, scores=(*SCORES, *SCORES)), "value twice"),
    ("it documents what it measures", replace(good, scores=(Score("value", null="no"),)),
     "none of its scores"),
    ("its settings have defaults of plain types", measuring(odd), "the default of 'mode'"),
    ("its settings have defaults of plain types", measuring(loose), "annotate it"),
    ("its settings have defaults of plain types", replace(good, settings={}), "'above' has no"),
    ("its inputs are known", measuring(unknown), "'cods'"),
    ("it returns every score it declares", measuring(silent), "did not return 'value'"),
    ("it returns every score it declares", measuring(infinite), "not a finite number"),
    ("it returns every score it declares", measuring(fails), "ValueError: no"),
    ("it returns every score it declares",
     replace(measuring(without_a_column), roles=("meta_latents",)), "a column 'meta_latent'"),
    ("it does not fail without data", measuring(needs_data), "AttributeError"),
    ("the same seed gives the same scores", measuring(drifts), "at a second measurement value is"),
    ("the global random state is unchanged", measuring(draws), "random and numpy.random and torch"),
    ("its inputs are unchanged", measuring(overwrites), "it changes acts in place"),
    ("the order of latents does not matter", measuring(by_place), "in another order value is"),
    ("dead latents do not matter", measuring(counts), "value is 46, not 40"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "bad", "message"), BAD_METRICS, ids=[f"{n}-{b[0]}" for n, b in enumerate(BAD_METRICS)]
)
def test_each_check_of_a_metric_catches_a_bad_one(check: str, bad: Metric, message: str) -> None:
    finding = examine_metric(bad)[check]
    assert finding.result == "failed", finding
    assert message in finding.message, finding
    with pytest.raises(AssertionError, match=f"bad|good: .* checks failed(.|\n)*{check}"):
        check_metric(bad)


def test_there_is_a_bad_metric_for_every_check() -> None:
    titles = {finding.check for finding in examine_metric(good)} - {
        "importing it imports no slow library"
    }
    assert titles == {check for check, *_ in BAD_METRICS}


def test_a_good_metric_passes_every_check() -> None:
    report = check_metric(good, settings={"above": 0.05})
    skipped = [finding.check for finding in report if finding.result == "skipped"]
    assert skipped == ["importing it imports no slow library"]  # this very file imports torch


@pytest.mark.parametrize("top", ["import torch\n", ""], ids=["torch", "light"])
def test_a_metric_whose_module_imports_torch_is_caught(top: str, tmp_path: Path) -> None:
    path = tmp_path / "weighty.py"
    path.write_text(
        f"{top}from saebench_canon import Score, hookimpl, metric\n\n"
        '@metric(of="sae", version=1, scores=[Score("value")])\n'
        'def weighty(sae):\n    """Nothing."""\n    return {"value": 1.0}\n\n'
        "@hookimpl\ndef canon_metrics():\n    return [weighty]\n"
    )
    registry = load_registry([path])
    report = examine_metric(registry.metrics["weighty"], registry=registry)
    assert [finding.check for finding in report.failed] == (
        ["importing it imports no slow library"] if top else []
    )


def test_scores_that_count_dead_latents_are_set_aside() -> None:
    report = check_metric(measuring(counts), except_scores=["value"])
    assert report["dead latents do not matter"].message.endswith("except value")


def test_scores_that_say_that_they_count_dead_latents_are_set_aside_by_themselves() -> None:
    counting = replace(measuring(counts), scores=(Score("value", counts_dead=True),))
    report = check_metric(counting)
    assert report["dead latents do not matter"].message.endswith("except value")


def test_a_metric_that_is_undefined_here_says_why() -> None:
    report = check_metric(measuring(lambda sae, lm: {"value": 1.0}))
    finding = report["it returns every score it declares"]
    assert finding.result == "skipped"
    assert "needs 'lm'" in finding.message


def test_undefined_scores_conform() -> None:
    check_metric(measuring(lambda sae: {"value": Undefined("never")}))


@pytest.mark.parametrize("name", load_registry().metrics)
def test_every_built_in_metric_passes(name: str) -> None:
    quick = {"steps": 60} if name == "meta_sae" else {}
    report = check_metric(load_registry().metrics[name], settings=quick)
    dead = report["dead latents do not matter"].message
    assert dead.endswith("except dead_share") == (name == "fidelity")
