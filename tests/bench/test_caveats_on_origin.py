"""What every record says of its data: another origin than the SAE's, special tokens, sinks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from planted import write_acts, write_sae
from safetensors.torch import save_file

from saebench_canon.bench.measure import Bench
from saebench_canon.bench.plan import Plan, make_plan
from saebench_canon.bench.results import rows_of
from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError
from saebench_canon.plugin.line_rules import by_line
from saebench_canon.plugin.question import Answer, Question
from saebench_canon.plugin.registry import load_registry
from saebench_canon.questions.ask import answers_of
from saebench_canon.tables.summarise import summarise
from saebench_canon.tables.summary import Summary

REGISTRY = load_registry()
HOOK = "blocks.2.hook_resid_post"
TRAINED = {"model_name": "tiny-lm", "hook_name": HOOK, "prepend_bos": True}
MODEL = """
[suite]
name = "s"
[data.d]
model = "packaged:tiny-lm"
hook = "blocks.2.hook_resid_post"
text = "text.jsonl"
context = 16
loss_tokens = 64
{keys}
"""
FILE = """
[suite]
name = "s"
[data.d]
file = "acts.safetensors"
"""
SAES = """
[[sae]]
name = "w{width}-{name}"
uri = "{name}-{width}"
{data}
axes = {{ name = ["a", "b"], width = [{widths}] }}
[[metric]]
name = "{metric}"
{over}
"""


def recorded(folder: Path, d: int, width: int, seed: int, **metadata: object) -> None:
    write_sae(folder, width, d=d, seed=seed)
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(config | {"metadata": metadata}))


def planned(
    tmp_path: Path, data: str, metric: str, over: str = "", *, d: int, widths: str = "24",
    **metadata: object,
) -> Plan:  # fmt: skip
    """A plan of SAEs `a`, with this metadata, and `b`, as the data is."""
    for width in map(int, widths.split(",")):
        recorded(tmp_path / f"a-{width}", d, width, 0, **metadata)
        recorded(tmp_path / f"b-{width}", d, width, 1, **TRAINED)
    lines = (json.dumps({"text": f"{i}. The function returns a list of names."}) for i in range(20))
    (tmp_path / "text.jsonl").write_text("\n".join(lines))
    write_acts(tmp_path / "acts.safetensors")
    used = 'data = "d"' if "[data.d]" in data else ""
    saes = SAES.format(
        data=used, width="{width}", name="{name}", metric=metric, over=over, widths=widths
    )
    (tmp_path / "suite.toml").write_text(data + saes)
    return make_plan(tmp_path / "suite.toml", REGISTRY, Store(tmp_path / "store"))


def measured(plan: Plan) -> Summary:
    bench = Bench(REGISTRY, plan.store)
    for case in plan.cases:
        bench.measure(case)
    rows = rows_of(plan.listed(), plan.store, REGISTRY.metrics)
    return summarise(rows, REGISTRY.metrics.values())


def caveats(summary: Summary) -> dict[str, list[str]]:
    """The caveats on origin by SAE or case."""
    reasons: dict[str, list[str]] = {}
    for block in summary.blocks:
        for note in block.notes:
            if note.kind == "caveat" and ("trained " in note.reason or "hooks" in note.reason):
                for name in note.subjects:
                    reasons.setdefault(name, []).append(note.reason)
    return reasons


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"hook_name": "blocks.1.hook_resid_post"},
         f"trained at blocks.1.hook_resid_post, measured at {HOOK}"),
        ({"model_name": "gpt2"}, "trained on the model gpt2, measured on packaged:tiny-lm"),
        ({"prepend_bos": False}, "trained on windows without BOS, measured on windows with it"),
    ],
)  # fmt: skip
def test_a_caveat_stands_beside_the_table_and_the_answer(
    tmp_path: Path, metadata: dict[str, object], reason: str
) -> None:
    plan = planned(tmp_path, MODEL.format(keys=""), "fidelity", d=128, **metadata)
    summary = measured(plan)
    assert caveats(summary) == {"w24-a": [reason]}
    marked = [line.caveat for block in summary.blocks for t in block.tables for line in t.lines]
    assert any(marked)
    sparse = Question(
        "sparse?", needs=("fidelity.l0",), answers=("yes",),
        rule=by_line("fidelity", lambda line, _: Answer.on(line, "yes", "Sparse.", "l0")),
    )  # fmt: skip
    (of_a, of_b) = answers_of(summary, {"sparse?": sparse}, {"sparse?": {}})
    assert f"{reason} (w24-a)" in of_a.notes
    assert reason not in " ".join(of_b.notes)


def test_a_table_without_bos_suits_an_sae_without(tmp_path: Path) -> None:
    keys = "bos = false"
    plan = planned(tmp_path, MODEL.format(keys=keys), "fidelity", d=128, prepend_bos=False)
    reason = "trained on windows with BOS, measured on windows without it"
    assert caveats(measured(plan)) == {"w24-b": [reason]}
    tokens = Bench(REGISTRY, plan.store).artifacts.input("tokens", plan.cases[0].data)
    assert not tokens.bos
    assert tokens.counts.equal(tokens.length)


def test_an_sae_without_data_is_measured_nowhere_else(tmp_path: Path) -> None:
    plan = planned(
        tmp_path, '[suite]\nname = "s"\n', "meta_sae", d=16, widths="64", hook_name="blocks.1.mlp"
    )
    assert caveats(measured(plan)) == {}


def test_a_pair_of_two_hooks_has_a_caveat(tmp_path: Path) -> None:
    data = '[suite]\nname = "s"\n'
    over = 'over = "pairs:name"'
    plan = planned(tmp_path, data, "composition", over, d=16, hook_name="blocks.1.hook_resid_post")
    (reasons,) = caveats(measured(plan)).values()
    assert reasons == [f"SAEs of two hooks are compared, blocks.1.hook_resid_post and {HOOK}"]


def test_two_layers_on_one_file_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(CanonError, match="holds the activations of one hook"):
        planned(tmp_path, FILE, "fidelity", d=16, hook_name="blocks.1.hook_resid_post")
    planned(tmp_path, FILE, "fidelity", d=16, hook_name="blocks.3.hook_resid_pre")  # the same value
    planned(tmp_path, FILE, "fidelity", d=16)  # nobody knows


def notes(summary: Summary) -> list[tuple[str, str]]:
    return [(note.kind, note.reason) for block in summary.blocks for note in block.notes]


def test_special_tokens_in_the_text_change_no_score_and_are_told(tmp_path: Path) -> None:
    plan = planned(tmp_path, MODEL.format(keys=""), "fidelity", d=128)
    plain = measured(plan)
    text = (tmp_path / "text.jsonl").read_text()
    (tmp_path / "text.jsonl").write_text(text.replace('"text": "', '"text": "<|bos|>'))
    plan = make_plan(tmp_path / "suite.toml", REGISTRY, Store(tmp_path / "store"))
    special = measured(plan)
    for table, other in zip(special.blocks[0].tables, plain.blocks[0].tables, strict=True):
        assert table.lines[0].cells == other.lines[0].cells
    told = [entry for entry in notes(special) if "special tokens" in entry[1]]
    assert told[0] == ("note", "special tokens in the text do not count: 20 × <|bos|>")
    assert not [entry for entry in notes(plain) if "special tokens" in entry[1]]


@pytest.mark.parametrize("far", [0, 40])
def test_sinks_in_a_file_of_activations_are_told(tmp_path: Path, far: int) -> None:
    plan = planned(tmp_path, FILE, "fidelity", d=16)
    x = torch.randn(400, 16, generator=torch.Generator().manual_seed(0))
    x[:far] *= 1000
    save_file({"acts": x, "doc": torch.arange(400) // 20}, tmp_path / "acts.safetensors")
    plan = make_plan(tmp_path / "suite.toml", REGISTRY, Store(tmp_path / "store"))
    told = [kind for kind, reason in notes(measured(plan)) if "the centred energy" in reason]
    assert bool(told) == bool(far)
    assert set(told) <= {"caveat"}


def test_a_changed_origin_makes_another_case_and_another_caveat(tmp_path: Path) -> None:
    """Caveats are of what the files record: a record must not lend them to other files."""
    model = MODEL.format(keys="")
    before = planned(tmp_path, model, "fidelity", d=128)
    assert sum(before.state(case_id) == "missing" for case_id in before.ids) == 2
    for case in before.cases:
        Bench(REGISTRY, before.store).measure(case)
    for changed in (
        {**TRAINED, "hook_name": "blocks.0.hook_resid_post"},
        {**TRAINED, "model_name": "gpt2"},
        {**TRAINED, "prepend_bos": False},
    ):
        after = planned(tmp_path, model, "fidelity", d=128, **changed)
        assert [after.state(case_id) for case_id in after.ids] == ["missing", "measured"]


def test_files_that_record_no_origin_keep_the_ids_of_their_cases(tmp_path: Path) -> None:
    first = planned(tmp_path, MODEL.format(keys=""), "fidelity", d=128)
    assert first.ids[0] != first.ids[1]
    case = first.cases[0]
    assert "origins" not in Bench(REGISTRY, first.store).identities.facts(case)
    assert "origins" in Bench(REGISTRY, first.store).identities.facts(first.cases[1])
