"""SAEs of several formats in one suite: one table, whoever wrote the files."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import FORMATS, D
from clone import ROOT
from planted import planted_acts, write_acts

from saebench_canon.plugin.known_formats import KNOWN, OPENAI

PLUGINS = [
    ROOT / known.folder / f"{known.distribution.replace('-', '_')}.py" for known in (*KNOWN, OPENAI)
]
MIXED = {
    "saelens": "saelens-standard",
    "gemma": "gemma-scope",
    "dictionary-learning": "dictionary-learning-AutoEncoderTopK",
    "sparsify": "sparsify",
    "batchtopk": "batchtopk-batchtopk",
}  # each reads activations as they are; OpenAI's normalise them and need a data table of their own


@pytest.fixture
def options(pytester: pytest.Pytester) -> list[str]:
    if not all(module.is_file() for module in PLUGINS):
        pytest.skip("the plugins lie in a clone only")
    write_acts(pytester.path / "acts.safetensors", planted_acts(200, D))
    return [word for module in PLUGINS for word in ("--plugin", str(module))]


def suite(pytester: pytest.Pytester) -> Path:
    lines = ['[data.acts]\nfile = "acts.safetensors"\n']
    for name, form in MIXED.items():
        path = FORMATS[form](pytester.path / name)
        lines.append(
            f'[[sae]]\nname = "{name}"\nuri = "file:{path}"\ndata = "acts"\naxes.width = [10]\n'
        )
    lines.append('[[metric]]\nname = "fidelity"\n')
    path = pytester.path / "mixed.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_formats_of_one_width_stand_in_one_table(
    pytester: pytest.Pytester, options: list[str]
) -> None:
    suite(pytester)
    ran = pytester.run("saebench-canon", "run", "mixed.toml", *options)
    assert ran.ret == 0
    printed = ran.stdout.str()
    assert printed.count("fidelity v") == 1
    table = printed.partition("fidelity v")[2].partition("one seed")[0]
    assert [name for name in sorted(MIXED) if f"\n{name} " in table] == sorted(MIXED)
    ran.stdout.fnmatch_lines(["*no threshold in its checkpoint: calibrated on 200 tokens (eq. 8)*"])


def test_bare_paths_of_several_formats_are_recognised(
    pytester: pytest.Pytester, options: list[str]
) -> None:
    forms = [*MIXED.items(), ("openai", "openai")]
    paths = [str(FORMATS[form](pytester.path / name)) for name, form in forms]
    request = ["--metrics", "fidelity,meta_sae,stitching", "--data", "acts.safetensors"]
    ran = pytester.run("saebench-canon", "run", *paths, *request, "--collect-only", "-q", *options)
    assert ran.ret == 0
    ran.stdout.fnmatch_lines([
        "not measured: stitching compares two widths of a kind, and there is only one.",
        *(f"*::{scheme}-w10::fidelity" for scheme in ("saelens", "gemma-scope", *list(MIXED)[2:])),
    ])  # fmt: skip


def test_without_the_plugins_the_error_names_what_installs_them(
    pytester: pytest.Pytester, options: list[str]
) -> None:
    suite(pytester)
    ran = pytester.run("saebench-canon", "run", "mixed.toml")
    assert ran.ret == 4
    ran.stderr.fnmatch_lines(["*pip install saebench-canon-dictionary-learning*"])
