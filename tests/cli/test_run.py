"""`run` as a user meets it: pytest's options, exit codes, resume, errors, workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from planted import SUITE, write_acts

import saebench_canon
from saebench_canon.bench.store import Store
from saebench_canon.cli.run import _hermetic, pytest_arguments

FAILING = """
from saebench_canon import Score, hookimpl, metric


@metric(scores=[Score("count")], of="sae", version=1)
def fussy(sae, *, refuse: int = 24):
    if sae.width == refuse:
        raise ValueError("no such width")
    return {"count": float(sae.width)}


@hookimpl
def canon_metrics():
    return [fussy]
"""


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """`saebench-canon run` in this process."""
    with _hermetic():
        return pytester.runpytest_inprocess(*pytest_arguments(arguments))


def records(store: Path = Path(".canon")) -> dict[str, dict[str, object]]:
    """Every record of a store by id."""
    return {path.stem: json.loads(path.read_text()) for path in (store / "records").glob("*.json")}


@pytest.fixture
def small(suite: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small suite, with only the metrics that take no time."""
    text = SUITE.split('[[metric]]\nname = "meta_sae"')[0]
    suite.write_text(text + '[[metric]]\nname = "seed_matching"\n')
    monkeypatch.chdir(suite.parent)
    return suite


def test_a_run_measures_every_case_and_prints_tables(
    small: Path, pytester: pytest.Pytester
) -> None:
    result = run(pytester, "small.toml")
    assert result.ret == 0
    result.assert_outcomes(passed=28)
    result.stdout.fnmatch_lines(["*4 SAEs, 28 cases, 0 of them already measured*"])
    result.stdout.fnmatch_lines(["*unique?*", "fidelity v*"])
    assert len(records()) == 28


def test_a_second_run_measures_nothing(small: Path, pytester: pytest.Pytester) -> None:
    run(pytester, "small.toml")
    before = {path: path.stat().st_mtime_ns for path in Path(".canon/records").glob("*.json")}
    result = run(pytester, "small.toml")
    result.stdout.fnmatch_lines(["*28 of them already measured*"])
    assert before == {
        path: path.stat().st_mtime_ns for path in Path(".canon/records").glob("*.json")
    }


def test_fresh_measures_again_and_finds_the_same(small: Path, pytester: pytest.Pytester) -> None:
    run(pytester, "small.toml")
    before = {path: path.stat().st_mtime_ns for path in Path(".canon/records").glob("*.json")}
    scores = {key: record["scores"] for key, record in records().items()}
    run(pytester, "small.toml", "--fresh")
    after = {path: path.stat().st_mtime_ns for path in Path(".canon/records").glob("*.json")}
    assert all(after[path] > before[path] for path in before)
    assert scores == {key: record["scores"] for key, record in records().items()}


@pytest.mark.parametrize(
    ("arguments", "selected"),
    [
        (["-k", "fidelity"], 4),
        (["-k", "fidelity and w24"], 2),
        (["-m", "sae(width=48) and metric(name='fidelity')"], 2),
        (["-m", "sae(width=48) and metric(name='stitching')"], 3),  # pairs with a member, and floor
        (["-m", "metric(name='floor')"], 2),
        (["-m", "sae(name='relu-w24-s0') and metric(name='fidelity')"], 1),
    ],
)
def test_selection_is_pytests(
    small: Path, pytester: pytest.Pytester, arguments: list[str], selected: int
) -> None:
    result = run(pytester, "small.toml", "--collect-only", "-q", *arguments)
    assert result.ret == 0
    assert len([line for line in result.outlines if "::" in line]) == selected
    assert not records()


def test_a_node_id_selects_one_case(small: Path, pytester: pytest.Pytester) -> None:
    result = run(pytester, "small.toml::relu-w24-s0::fidelity", "-v")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["small.toml::relu-w24-s0::fidelity PASSED*"])
    assert len(records()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["smal.toml"], "no suite file *smal.toml*Did you mean 'small.toml'*"),
        (["smalll"], "no suite 'smalll'*"),
        ([], "name a suite*"),
        (["small.toml", "-m", "sae(widht=24)"], "sae has no 'widht' (-m)*'width'*"),
        (["small.toml", "-m", "metric(name='fidelty')"], "no metric 'fidelty' (-m)*'fidelity'*"),
        (["small.toml", "-m", "slow"], "unknown marker 'slow' (-m)*"),
        (["small.toml::relu-w24-s9"], "no subject 'relu-w24-s9'*'relu-w24-s0'*"),
        (["small.toml::relu-w24-s0::fidelty"], "no case 'fidelty'*'fidelity'*"),
        (["small.toml", "--threads", "0"], "--threads must be a positive number, got 0"),
        (["small.toml", "--set", "data.plantd.tokens=3"], "no data table 'plantd' (--set)*"),
        (["small.toml", "--plugin", "none.py"], "the plugin file none.py does not exist*"),
        (["small.toml", "--device", "coda"], "'coda' is not a device (--device)*'cuda'*"),
        (
            ["small.toml", "--store", "small.toml"],
            "the store small.toml cannot be written* (--store)*",
        ),
        (["saes/w24-s0"], "SAEs are named, but not what to measure*"),
    ],
)
def test_wrong_usage_is_exit_4_and_a_sentence(
    small: Path, pytester: pytest.Pytester, arguments: list[str], sentence: str
) -> None:
    result = run(pytester, *arguments)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: *{sentence}"])
    assert "Traceback" not in result.stderr.str() + result.stdout.str()
    assert not records()


def test_nothing_selected_is_exit_5(small: Path, pytester: pytest.Pytester) -> None:
    assert run(pytester, "small.toml", "-k", "zebra").ret == 5


def test_one_failing_case_leaves_the_others_and_lf_reruns_just_it(
    small: Path, pytester: pytest.Pytester
) -> None:
    Path("fussy.py").write_text(FAILING)
    small.write_text(small.read_text() + '[[metric]]\nname = "fussy"\nwhere.seed = 0\n')
    result = run(pytester, "small.toml", "--plugin", "fussy.py")
    assert result.ret == 1
    result.assert_outcomes(passed=29, failed=1)
    result.stdout.fnmatch_lines(["*ValueError: no such width*"])
    assert len(records()) == 29
    rerun = run(pytester, "small.toml", "--plugin", "fussy.py", "--lf")
    rerun.assert_outcomes(failed=1, deselected=29)
    mended = run(
        pytester,
        "small.toml",
        "--plugin",
        "fussy.py",
        "--lf",
        "--set",
        "metric.fussy.settings.refuse=1",
    )
    mended.assert_outcomes(passed=1, deselected=29)


def test_an_error_never_counts_as_measured(small: Path, pytester: pytest.Pytester) -> None:
    Path("fussy.py").write_text(FAILING)
    small.write_text(small.read_text() + '[[metric]]\nname = "fussy"\n')
    run(pytester, "small.toml", "--plugin", "fussy.py", "-k", "fussy")
    assert {record["metric"] for record in records().values()} == {"fussy"}
    assert len(records()) == 2
    errors = list(Path(".canon/errors").glob("*.json"))
    assert len(errors) == 2
    assert "no such width" in errors[0].read_text()


def test_a_case_that_fails_when_measured_again_does_not_count_as_measured(
    small: Path, pytester: pytest.Pytester
) -> None:
    Path("fussy.py").write_text(FAILING.replace("sae.width == refuse", "False"))
    small.write_text(small.read_text() + '[[metric]]\nname = "fussy"\n')
    arguments = ["small.toml", "--plugin", "fussy.py", "-k", "fussy"]
    assert run(pytester, *arguments).ret == 0
    Path("fussy.py").write_text(FAILING)
    assert run(pytester, *arguments, "--fresh").ret == 1
    rerun = run(pytester, *arguments)
    assert rerun.ret == 1  # tried again, although an old record is there
    rerun.stdout.fnmatch_lines(["ValueError: no such width", "* failed: fussy (relu-w24-s0; *"])


def test_a_metric_without_a_subject_is_told(small: Path, pytester: pytest.Pytester) -> None:
    result = run(pytester, "small.toml", "--set", "sae.axes.seed=[0]", "-k", "fidelity")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["note: *'floor' has nothing to measure here"])


def test_maxfail_and_junit(small: Path, pytester: pytest.Pytester) -> None:
    Path("fussy.py").write_text(FAILING)
    small.write_text(small.read_text() + '[[metric]]\nname = "fussy"\n')
    result = run(
        pytester, "small.toml", "--plugin", "fussy.py", "-k", "fussy", "-x", "--junitxml=out.xml"
    )
    result.assert_outcomes(failed=1)
    assert 'failures="1"' in Path("out.xml").read_text()


def test_damaged_activations_fail_one_case_and_say_which_token(
    small: Path, pytester: pytest.Pytester
) -> None:
    x = torch.randn(100, 16)
    x[17, 3] = float("nan")
    write_acts(Path("acts.safetensors"), x)
    result = run(pytester, "small.toml", "-k", "fidelity and w24-s0")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "the activation of token 17 of *acts.safetensors is not finite *"
            "(small.toml, [[]data.planted])"
        ]
    )


def test_another_width_of_activations_is_a_sentence(small: Path, pytester: pytest.Pytester) -> None:
    write_acts(Path("acts.safetensors"), torch.randn(100, 8))
    result = run(pytester, "small.toml", "-k", "fidelity and w24-s0")
    assert result.ret in (1, 4)
    text = result.stdout.str() + result.stderr.str()
    assert "has d = 16" in text
    assert "Traceback" not in text


def test_workers_measure_the_same(small: Path, pytester: pytest.Pytester) -> None:
    alone = run(pytester, "small.toml", "--store", "alone")
    assert alone.ret == 0
    both = run(pytester, "small.toml", "--store", "both", "-n", "2")
    assert both.ret == 0
    both.assert_outcomes(passed=28)
    first, second = records(Path("alone")), records(Path("both"))
    assert first.keys() == second.keys()
    assert all(first[key]["scores"] == second[key]["scores"] for key in first)


MINE = ("json", "random", "logging", "platform", "tokenize", "inspect", "queue", "csv", "pandas")


@pytest.mark.parametrize("program", ["script", "module"])
@pytest.mark.parametrize("words", [["run", "-n", "2"], ["run"], ["plan"], ["check"]], ids=" ".join)
def test_files_of_the_working_folder_are_not_imported(
    words: list[str], program: str, small: Path
) -> None:
    """Scripts of the user's, or of whoever packed the SAEs, that are called as Python's modules."""
    for name in MINE:
        Path(f"{name}.py").write_text(f"open('ran-{name}', 'w').close()\n")
    script = "import sys; from saebench_canon.cli.main import main; sys.exit(main())"
    Path("bin").mkdir()
    Path("bin/saebench-canon").write_text(script)
    called = ["bin/saebench-canon"] if program == "script" else ["-m", "saebench_canon"]
    about = "saes/w24-s0" if words == ["check"] else "small.toml"
    picked = ["-k", "fidelity"] if words[0] == "run" else []
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    home = Path(saebench_canon.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, *called, words[0], about, *words[1:], *picked],
        env={**environment, "PYTHONPATH": str(home)}, capture_output=True, text=True,
    )  # fmt: skip
    assert not list(Path().glob("ran-*")), done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr


def test_another_seed_of_the_case_is_another_record(small: Path, pytester: pytest.Pytester) -> None:
    run(pytester, "small.toml", "-k", "seed_matching")
    before = set(records())
    run(pytester, "small.toml", "-k", "seed_matching", "--set", "metric.seed_matching.seeds=[1]")
    new = [record for key, record in records().items() if key not in before]
    old = [record for key, record in records().items() if key in before]
    assert len(new) == len(old) == 2
    nulls = [{record["scores"]["null_mcc"]["value"] for record in group} for group in (old, new)]
    assert not nulls[0] & nulls[1]


def test_a_gate_that_does_not_hold_fails_the_run(small: Path, pytester: pytest.Pytester) -> None:
    gate = '\n[[gate]]\nscore = "fidelity.dead_share"\nrequire = "<= {}"\n'
    small.write_text(small.read_text() + gate.format(1))
    assert run(pytester, "small.toml", "-k", "fidelity").ret == 0
    small.write_text(small.read_text().replace("<= 1", "< 0"))
    result = run(pytester, "small.toml", "-k", "fidelity")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["gate fidelity.dead_share < 0: relu-w24-s0 has *"])


def test_saes_by_path_are_a_suite_of_saes(small: Path, pytester: pytest.Pytester) -> None:
    result = run(
        pytester, "saes/w24-s0", "saes/w24-s1", "saes/w48-s0", "--metrics",
        "fidelity,stitching,seed_matching", "--data", "acts.safetensors",
    )  # fmt: skip
    assert result.ret == 0
    result.assert_outcomes(passed=16)  # the pair's floor and what it is compared with among them
    result.stdout.fnmatch_lines(["w24-s1 is saes/w24-s1."])


def test_without_data_what_decoders_tell_is_measured(
    small: Path, pytester: pytest.Pytester
) -> None:
    result = run(pytester, "saes/w24-s0", "saes/w48-s0", "--metrics", "fidelity,stitching")
    assert result.ret == 0  # fidelity is undefined, and says what it lacks
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(["*needs activations, and the SAE has no data*"])


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("hook_resid_pre", "hook_resid_prr", "unknown hook *Did you mean 'hook_resid_pre'*"),
        ("blocks.1", "blocks.9", "*on no layer of the model; the layers are 0 to 5*"),
        (
            "context = 64",
            "context = 999",
            "'context' must be at most the model's 128 positions, got 999*",
        ),
        ("words.txt", "wrods.txt", "the text file *does not exist*'words.txt'*"),
        ("packaged:tiny-lm", "packaged:tiny", "no packaged model 'tiny'*'tiny-lm'*"),
        ("packaged:tiny-lm", "./models/nope", "the model folder does not exist*"),
    ],
)
def test_mistakes_about_model_and_text_are_exit_4(
    small: Path, pytester: pytest.Pytester, old: str, new: str, sentence: str
) -> None:
    Path("words.txt").write_text("some words\n")
    text = """
[data.words]
model = "packaged:tiny-lm"
hook = "blocks.1.hook_resid_pre"
text = "words.txt"
context = 64

[[sae]]
name = "w24"
uri = "file:saes/w24-s0"
data = "words"

[[metric]]
name = "fidelity"
"""
    assert old in text
    small.write_text(text.replace(old, new))
    result = run(pytester, "small.toml")
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: *{sentence}"])
    assert result.stderr.str().count("(small.toml, [data.words]") == 1
    assert not records()


def test_a_failing_metric_shows_its_own_lines_only(small: Path, pytester: pytest.Pytester) -> None:
    Path("fussy.py").write_text(FAILING)
    small.write_text(small.read_text() + '[[metric]]\nname = "fussy"\n')
    result = run(pytester, "small.toml", "--plugin", "fussy.py", "-k", "fussy and w24-s0")
    shown = result.stdout.str()
    assert "fussy.py" in shown
    assert "ValueError: no such width" in shown
    assert "pluggy" not in shown


def test_limit_is_another_case_and_says_so(small: Path, pytester: pytest.Pytester) -> None:
    run(pytester, "small.toml", "-k", "fidelity and w24-s0")
    run(pytester, "small.toml", "-k", "fidelity and w24-s0", "--limit", "100")
    limited = [record["provenance"]["limited"] for record in records().values()]  # type: ignore[index]
    assert sorted(limited) == [False, True]


def test_a_dead_owners_claim_is_taken_over(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "abc.lock").touch()  # its owner was killed
    artefact = store.artefact("abc", lambda folder: (folder / "x").touch(), title="a thing")
    assert (artefact / "x").exists()


SLOW = """
import time

from saebench_canon import Score, hookimpl, metric


@metric(scores=[Score("count")], of="sae", version=1)
def slow(sae):
    time.sleep(0.5)
    return {"count": float(sae.width)}


@hookimpl
def canon_metrics():
    return [slow]
"""


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "two workers"])
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT], ids=["kill", "Ctrl-C"])
def test_a_run_that_is_broken_off_loses_no_finished_case(
    small: Path, workers: list[str], blow: signal.Signals
) -> None:
    Path("slow.py").write_text(SLOW)
    small.write_text(small.read_text() + '[[metric]]\nname = "slow"\nseeds = [0, 1, 2]\n')
    command = [sys.executable, "-m", "saebench_canon", "run", "small.toml", "-k", "slow", "-q"]
    command += ["--plugin", "slow.py", *workers]
    started = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 60
    while len(records()) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(started.pid, blow)
    started.communicate(timeout=60)
    if blow is signal.SIGINT:
        assert started.returncode == 2
    finished = {path: path.stat().st_mtime_ns for path in Path(".canon/records").glob("*.json")}
    assert 3 <= len(finished) < 12
    rerun = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert rerun.returncode == 0, rerun.stdout
    assert len(records()) == 12
    assert finished == {path: path.stat().st_mtime_ns for path in finished}


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "workers"])
@pytest.mark.parametrize("whole_group", [False, True], ids=["controller", "group"])
@pytest.mark.parametrize("blow", [signal.SIGTERM, signal.SIGHUP], ids=["term", "hangup"])
def test_sigterm_and_sighup_stop_a_run_as_ctrl_c_does(
    small: Path, workers: list[str], whole_group: bool, blow: signal.Signals
) -> None:
    Path("slow.py").write_text(SLOW)
    small.write_text(small.read_text() + '[[metric]]\nname = "slow"\nseeds = [0, 1, 2]\n')
    command = [sys.executable, "-m", "saebench_canon", "run", "small.toml", "-k", "slow"]
    started = subprocess.Popen(
        [*command, "--plugin", "slow.py", *workers], start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(records()) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    (os.killpg if whole_group else os.kill)(started.pid, blow)
    output, _ = started.communicate(timeout=60)
    assert started.returncode == 2, output
    assert "passed" in output.splitlines()[-1] or "no tests ran" in output
    with pytest.raises(ProcessLookupError):  # no worker is left
        os.killpg(started.pid, 0)


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_a_folder_with_brackets_is_a_folder(
    small: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    folder = Path("sweep [lr=1e-3]")
    folder.mkdir()
    for name in ("small.toml", "acts.safetensors", "saes"):
        Path(name).rename(folder / name)
    monkeypatch.chdir(folder)
    done = subprocess.run(
        [sys.executable, "-m", "saebench_canon", "run", "small.toml", "-k", "fidelity", *options],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(records()) == 4


def test_a_misspelt_sae_is_not_taken_for_a_suite(small: Path, pytester: pytest.Pytester) -> None:
    result = run(pytester, "sase", "--metrics", "fidelity", "--data", "acts.safetensors")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*no suite, file or folder 'sase'. Did you mean 'saes'*"])


def test_a_suite_may_begin_with_a_byte_order_mark_and_end_in_capitals(
    small: Path, pytester: pytest.Pytester
) -> None:
    Path("SMALL.TOML").write_bytes(b"\xef\xbb\xbf" + small.read_bytes())
    result = run(pytester, "SMALL.TOML", "-k", "fidelity and w24-s0")
    assert result.ret == 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_path_that_is_not_utf8_is_refused_in_a_sentence(
    small: Path, pytester: pytest.Pytester
) -> None:
    name = os.fsdecode(b"caf\xe9")
    Path("saes/w24-s0").rename(name)
    result = run(pytester, name, "--metrics", "fidelity", "--data", "acts.safetensors")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: the path b'caf*' is not UTF-8. Rename*"])
