"""What a run says of the repository around its suite; a stranger's repository runs nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from saebench_canon.bench.provenance import git_state, without_credentials

WITH_GIT = pytest.mark.skipif(shutil.which("git") is None, reason="git is not here")
POSIX = pytest.mark.skipif(os.name != "posix", reason="its programs are shell scripts")
TOML = b'[suite]\nname = "it"\n'


def git(folder: Path, *arguments: str, config: str = os.devnull) -> str:
    """The user's git, without settings of this machine."""
    settings = {
        "GIT_CONFIG_GLOBAL": config, "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b.c",
        "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b.c",
    }  # fmt: skip
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        check=True, capture_output=True, text=True, env={**os.environ, **settings},
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed suite file in a folder of a repository."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    path = tmp_path / "repository" / "suites" / "it.toml"
    path.parent.mkdir(parents=True)
    path.write_bytes(TOML)
    git(path.parent.parent, "init", "-q")
    git(path.parent.parent, "remote", "add", "origin", "https://me:token@example.org/it.git")
    git(path.parent.parent, "add", ".")
    git(path.parent.parent, "commit", "-q", "-m", "it")
    return path


def changed(path: Path) -> None:
    path.write_bytes(TOML + b"\n")


def with_other_line_ends(path: Path) -> None:
    path.write_bytes(TOML.replace(b"\n", b"\r\n"))


def untracked(path: Path) -> None:
    git(path.parent, "rm", "-q", "--cached", "it.toml")
    git(path.parent, "commit", "-q", "-m", "without it")


def another_file_changed(path: Path) -> None:
    path.with_name("notes.md").write_text("not part of what is measured")


def staged(path: Path) -> None:
    changed(path)
    git(path.parent, "add", ".")


@WITH_GIT
@pytest.mark.parametrize(
    ("change", "dirty"),
    [
        (lambda path: None, "no"),
        (changed, "yes"),
        (staged, "yes"),
        (untracked, "yes"),
        (with_other_line_ends, "no"),
        (another_file_changed, "no"),
    ],
)
def test_a_suite_is_dirty_if_it_is_not_what_was_committed(
    change: Callable[[Path], None], dirty: str, suite: Path
) -> None:
    change(suite)
    assert git_state(suite) == {
        "commit": git(suite.parent, "rev-parse", "HEAD"),
        "dirty": dirty,
        "origin": "https://example.org/it.git",
    }


@WITH_GIT
def test_a_repository_of_sha256_and_a_name_with_blanks_are_understood(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--object-format=sha256")
    path = tmp_path / "my suite ü.toml"
    path.write_bytes(TOML)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "it")
    state = git_state(path)
    assert state is not None
    assert len(state["commit"]) == 64
    assert (state["dirty"], state["origin"]) == ("no", "")


@WITH_GIT
def test_a_packaged_suite_names_the_commit_of_the_working_folder(
    suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(suite.parent)
    state = git_state(None)
    assert state is not None
    assert set(state) == {"commit", "origin"}


@WITH_GIT
def test_git_settings_of_the_environment_name_no_other_repository(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a hook, where git tells its children which repository it is about."""
    git(tmp_path, "init", "-q", "other")
    here = git_state(suite)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert git_state(suite) == here


def test_there_may_be_no_repository_and_no_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "it.toml"
    path.write_bytes(TOML)
    assert git_state(path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(path) is None


@POSIX
@WITH_GIT
def test_a_git_of_the_working_folder_is_not_run(
    suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(suite.parent / "git", ran := suite.parent / "ran")
    monkeypatch.chdir(suite.parent)
    monkeypatch.setenv("PATH", f".{os.pathsep}{os.environ['PATH']}")
    assert git_state(suite) is None
    assert not ran.exists()


def program(path: Path, ran: Path) -> str:
    """A program that leaves a line in a file; called as a filter it passes its input on."""
    path.write_text(f'#!/bin/sh\necho "$0 $@" >> "{ran}"\ncat\n')
    path.chmod(0o755)
    return str(path)


def hostile(suite: Path, ran: Path) -> None:
    """Let a repository name its own program wherever git may call one, and its own hooks."""
    top = suite.parent.parent
    evil = program(ran.with_name("evil"), ran)
    for name in (
        "core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "core.askPass",
        "core.gitProxy", "core.alternateRefsCommand", "diff.external", "diff.it.textconv",
        "diff.it.command", "filter.it.clean", "filter.it.smudge", "filter.it.process",
        "credential.helper", "gpg.program", "uploadpack.packObjectsHook", "alias.rev-parse",
        "alias.config", "remote.origin.uploadpack", "pager.config", "pager.rev-parse",
    ):  # fmt: skip
        git(top, "config", name, f"!{evil}" if name.startswith(("alias", "cred")) else evil)
    more = ran.with_name("more")
    more.write_text(f"[core]\n\tfsmonitor = {evil}\n")
    git(top, "config", f"includeIf.gitdir:{top}/.path", str(more))
    hooks = top / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-index-change", "fsmonitor-watchman", "query-watchman", "post-checkout",
                 "reference-transaction", "pre-auto-gc"):  # fmt: skip
        program(hooks / name, ran)
    (top / ".gitattributes").write_text("* filter=it diff=it\n")


def fetching(suite: Path, ran: Path) -> None:
    """Let objects be missing that a command of the repository's would fetch."""
    top = suite.parent.parent
    evil = program(ran.with_name("transport"), ran)
    git(top, "config", "remote.origin.url", f"ext::{evil}")
    git(top, "config", "protocol.allow", "always")
    git(top, "config", "protocol.ext.allow", "always")
    git(top, "config", "remote.origin.promisor", "true")
    git(top, "config", "core.repositoryFormatVersion", "1")
    git(top, "config", "extensions.partialClone", "origin")
    tree = git(top, "rev-parse", "HEAD^{tree}")
    (top / ".git" / "objects" / tree[:2] / tree[2:]).unlink()


@POSIX
@WITH_GIT
@pytest.mark.parametrize("trap", [hostile, fetching])
@pytest.mark.parametrize(
    ("change", "dirty"), [(lambda path: None, "no"), (changed, "yes"), (untracked, "yes")]
)
def test_nothing_of_a_strangers_repository_is_run(
    trap: Callable[[Path, Path], None], change: Callable[[Path], None], dirty: str,
    suite: Path, tmp_path: Path,
) -> None:  # fmt: skip
    change(suite)
    commit = git(suite.parent, "rev-parse", "HEAD")
    ran = tmp_path / "ran"
    trap(suite, ran)
    os.utime(suite, (1, 1))  # so that the index does not take it for unchanged
    state = git_state(suite)
    assert not ran.exists(), ran.read_text()
    assert state is not None
    assert state["commit"] == commit
    if trap is hostile:  # the other has lost what it committed
        assert state["dirty"] == dirty


@POSIX
@WITH_GIT
def test_the_traps_would_catch_a_program_that_asks_git_for_more(
    suite: Path, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    hostile(suite, ran)
    os.utime(suite, (1, 1))
    git(suite.parent, "status", "--porcelain")
    assert "it.toml" in ran.read_text() or "evil" in ran.read_text()
    assert git_state(suite) is not None


@pytest.mark.parametrize(
    ("url", "recorded"),
    [
        ("https://example.org/it.git", "https://example.org/it.git"),
        ("https://token@example.org/it.git", "https://example.org/it.git"),
        ("https://me:p@ss@example.org/it.git", "https://example.org/it.git"),
        ("https://me:p/ss@example.org/it.git", "https://…"),
        ("https://me:p@s/s@example.org/it.git", "https://…"),
        ("https://me:p?ss@example.org/it.git", "https://…"),
        ("https://me:p#ss@example.org/it.git", "https://…"),
        ("https://example.org/it.git?token=p@ss", "https://…"),
        ("https://example.org/it@1.git", "https://…"),
        ("https://me:p://ss@example.org/it.git", "…"),
        ("me:pass@example.org:it.git", "example.org:it.git"),
        ("ssh://git@example.org/it.git", "ssh://example.org/it.git"),
        ("https://example.org/it.git?private_token=abc#def", "https://example.org/it.git"),
        ("git@example.org:it.git", "git@example.org:it.git"),
        ("git@example.org:2/it.git;token=SECRET", "git@example.org:2/it.git"),
        ("myhost:it.git", "myhost:it.git"),
        ("https://example.org:8443/a/b.git/", "https://example.org:8443/a/b.git/"),
        ("ssh://[::1]:22/it.git", "ssh://[::1]:22/it.git"),
        ("https://example.org/My%20Work/größe.git", "https://example.org/My%20Work/größe.git"),
        ("https://example.org", "https://example.org"),
        ("https://example.org/x;token=SECRET/", "https://example.org/x"),
        ("https://example.org/x%3Btoken=SECRET/", "https://example.org/x"),
        ("https://example.org/x&token=SECRET", "https://example.org/x"),
        ("https://example.org/x$SECRET", "https://example.org/x"),
        ("https://example.org/x\nSECRET", "https://example.org/x"),
        ("https://example.org;token=SECRET/x", "https://…"),
        ("https://me:SECRET", "https://…"),
        ("https://me;SECRET@example.org/x", "https://…"),
        ("https://ex ample.org/x", "https://…"),
        ("/srv/it.git", "…"),
        ("../it.git", "…"),
        ("C:/it.git", "…"),
        ("file:///srv/it.git", "…"),
        ('ext::sh -c "curl -H Authorization:SECRET %S"', "…"),
        ("ext::ssh me:SECRET@example.org:it.git", "…"),
        ("fd::17/SECRET", "…"),
        ("s3://KEY:SECRET@bucket/it.git", "…"),
        ("codecommit::eu-west-1://SECRET@it", "…"),
        ("git+ssh://me@example.org/it.git", "…"),
        ("SECRET", "…"),
        ("", ""),
    ],
)
def test_an_origin_is_recorded_without_its_secrets(url: str, recorded: str) -> None:
    assert without_credentials(url) == recorded
    assert "SECRET" not in recorded
