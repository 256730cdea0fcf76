"""Pipes and devices where a suite or the command line names a file: refused, and not waited for."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from planted import write_sae

from saebench_canon.cli.main import main
from saebench_canon.data.language_model import PACKAGED, load_language_model
from saebench_canon.data.text import iter_documents, text_source
from saebench_canon.errors import CanonError

SAES = '[[sae]]\nname = "w24"\nuri = "file:{sae}"\ndata = "x"\n\n[[metric]]\nname = "fidelity"\n'
LM = '[data.x]\nmodel = "{model}"\nhook = "blocks.1.hook_resid_pre"\ntext = "{text}"\n'
FILE = '[data.x]\nfile = "{file}"\n'


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    def fail(*_: object) -> None:
        raise TimeoutError("it waits for what is no file")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=["a named pipe", "a device"])
def there(suite: Path, request: pytest.FixtureRequest) -> str:
    """What `not.txt` and `not.safetensors` are."""
    for name in ("not.txt", "not.safetensors"):
        if request.param == "a device":
            Path(name).symlink_to("/dev/zero")
        else:
            os.mkfifo(name)
    write_sae(Path("w24"), 24, d=128)
    Path("words.txt").write_text("some words\n")
    return str(request.param)


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (LM, {"text": "not.txt"}), (LM, {"text": "./not.txt"}), (LM, {"model": "not.txt"}),
        (LM, {"sae": "not.txt"}), (FILE, {"file": "not.safetensors"}), (FILE, {"file": "not.txt"}),
    ],
)  # fmt: skip
def test_in_a_suite(
    there: str, capsys: pytest.CaptureFixture[str], data: str, names: dict[str, str]
) -> None:
    known = {"model": "packaged:tiny-lm", "text": "words.txt", "sae": "w24", **names}
    Path("small.toml").write_text((data + SAES).format_map(known))
    assert main(["plan", "small.toml"]) == 4
    assert f"is {there}, not a regular file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["w24", "--data", "packaged:tiny-lm", "--text", "not.txt"],
        ["w24", "--data", "not.safetensors"], ["w24", "--data", "./not.txt"],
        ["not.txt"], ["file:not.safetensors"], ["w24", "--plugin", "not.txt"],
    ],
)  # fmt: skip
def test_on_the_command_line(
    there: str, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main(["run", *words, "--metrics", "meta_sae"]) == 4
    assert f"is {there}, not a regular file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "x.json"])
def test_in_a_models_folder(there: str, capsys: pytest.CaptureFixture[str], name: str) -> None:
    folder = shutil.copytree(PACKAGED / "tiny-lm", "lm")
    Path(folder, name).unlink(missing_ok=True)
    os.rename("not.txt", Path(folder, name))
    Path("small.toml").write_text((LM + SAES).format(model="lm", text="words.txt", sae="w24"))
    assert main(["plan", "small.toml"]) == 4
    assert f"is {there}, not a regular file" in capsys.readouterr().err
    with pytest.raises(CanonError, match=f"is {there}"):
        load_language_model("lm")


def test_as_text(there: str) -> None:
    with pytest.raises(CanonError, match=f"is {there}"):
        list(iter_documents(text_source("not.txt")))
