"""The families of faults; each yields tallies of its outcomes."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from trial import KILL, STOP, Ended, Tally, World, spread

from saebench_canon.bench.store import Store

ERRORS = ("ENOSPC", "EIO", "EROFS", "EACCES", "ENOLCK", "EMFILE", "EDQUOT", "ESTALE")


def kills_at_moments(world: World, undisturbed: Ended, quick: bool) -> Iterator[Tally]:
    """SIGKILL at moments drawn over the length of a run."""
    tally = Tally("killed at a moment")
    rng = random.Random(0)
    for number in range(5 if quick else 60):
        moment = rng.uniform(0, undisturbed.seconds)
        world.fresh()
        killed(world, tally, f"{number} at {moment:.3f} s", world.run(kill_after=moment))
    yield tally


def kills_at_operations(world: World, undisturbed: Ended, quick: bool) -> Iterator[Tally]:
    """SIGKILL before a file operation that changes the store."""
    tally = Tally("killed before a file operation")
    for at in spread(8 if quick else 100, changes(world), seed=1):
        world.fresh()
        killed(world, tally, f"operation {at}", world.run(at=at, action=KILL, changes_only=True))
    yield tally


def changes(world: World) -> int:
    """How many operations of a run change the store."""
    world.fresh()
    return world.run(changes_only=True).operations


def killed(world: World, tally: Tally, title: str, ended: Ended) -> None:
    fault = world.verdict()
    if fault is not None:
        tally.fault(title, fault)
    elif ended.code < 0:
        tally.add("healed by a rerun, bit for bit")
    else:
        tally.add("ended before the kill")


def refusals_of_run(world: World, undisturbed: Ended, quick: bool) -> Iterator[Tally]:
    """One file operation of a run is refused."""
    world.fresh()
    operations = world.run().operations
    for number, name in enumerate(ERRORS):
        tally = Tally(f"one operation of `run` gives {name}")
        for at in spread(3 if quick else 15, operations, seed=number):
            world.fresh()
            ended = world.run(at=at, action=getattr(errno, name))
            refused(world, tally, f"operation {at}", ended)
        yield tally


def refusals_of_readers(world: World, undisturbed: Ended, quick: bool) -> Iterator[Tally]:
    """One file operation of `show` or `plan` on a full store is refused."""
    for command in (("show",), ("plan", "suite.toml")):
        tally = Tally(f"one operation of `{command[0]}` is refused")
        world.fresh()
        world.run()
        count = world.call(*command).operations
        for at in spread(3 if quick else 40, count, seed=9):
            name = ERRORS[at % len(ERRORS)]
            ended = world.call(*command, at=at, action=getattr(errno, name))
            refused(world, tally, f"{name} at operation {at}", ended)
        yield tally


def refused(world: World, tally: Tally, title: str, ended: Ended) -> None:
    if ended.torn or ended.code not in (0, 1, 2, 4):
        tally.fault(title, f"ended with {ended.code}: {ended.output[-1200:]}")
    elif drafts := world.drafts():
        tally.fault(title, f"left the draft {drafts[0]}")
    elif ended.code == 0 and world.scores()[1] != world.golden:
        tally.fault(title, "ended with 0 and lacks scores")
    elif (fault := world.verdict()) is not None:
        tally.fault(title, fault)
    else:
        tally.add("right in spite of it" if ended.code == 0 else "refused in a sentence, healed")


def damage(world: World, undisturbed: Ended, quick: bool) -> Iterator[Tally]:
    """Every kind of file of a full store is flipped, cut, emptied, removed or replaced."""
    world.fresh()
    world.other_runs()
    world.run()
    whole = world.home / "whole"
    shutil.copytree(world.store, whole)
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    by_kind: dict[str, list[Path]] = {}
    for file in files:
        by_kind.setdefault(file.parts[0], []).append(file)
    for kind, members in by_kind.items():
        tally = Tally(f"damage in {kind}/")
        for file in members[:: max(1, len(members) // (2 if quick else 6))]:
            for how in ("flip", "half", "empty", "remove", "other"):
                world.fresh()
                shutil.copytree(whole, world.store)
                spoil(world.store / file, how, [world.store / member for member in members])
                if kind == "artefacts":  # so that the rerun needs it
                    shutil.rmtree(world.store / "records")
                fault = world.verdict()
                if fault is not None:
                    tally.fault(f"{how} {file}", fault)
                else:
                    tally.add("right, or measured anew")
        yield tally
    shutil.rmtree(whole)


def spoil(path: Path, how: str, others: list[Path]) -> None:
    content = path.read_bytes()
    match how:
        case "flip" if content:
            middle = len(content) // 2
            path.write_bytes(
                content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            )
        case "half":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.write_bytes(b"")
        case "remove":
            path.unlink()
        case "other":
            different = [p for p in others if p.read_bytes() != content and p.suffix == path.suffix]
            if different:
                path.write_bytes(different[0].read_bytes())


def power(world: World, undisturbed: Ended, quick: bool) -> Iterator[Tally]:
    """The disk as it is before a file operation, as after a loss of power, mounted again."""
    tally = Tally("power lost before a file operation")
    home = Path(tempfile.mkdtemp())
    image, snapshot, mount = home / "disk.img", home / "snapshot.img", home / "mount"
    mount.mkdir()
    try:
        reason = _mounted(image, mount, new=True)
        if reason is not None:
            tally.skipped = f"not run: {reason}"
            yield tally
            return
        _unmount(mount)
        count = changes(world)
        kept = world.store
        for at in spread(3 if quick else 40, count, seed=3):
            _mounted(image, mount, new=True)
            world.store = mount / "store"
            finished: list[str] = []

            def cut(found: list[str] = finished) -> None:
                found += [path.stem for path in (mount / "store" / "records").glob("*.json")]
                shutil.copyfile(image, snapshot)

            world.run(at=at, action=STOP, changes_only=True, when_stopped=cut)
            _unmount(mount)
            _mounted(snapshot, mount, new=False)
            lost = [case for case in finished if Store(world.store).record(case) is None]
            fault = world.verdict()
            if len(lost) > 1:  # one may just have got its name
                fault = f"{len(lost)} of {len(finished)} finished records are lost"
            if fault is not None:
                tally.fault(f"operation {at}", fault)
            else:
                tally.add("healed by a rerun, bit for bit")
            _unmount(mount)
        world.store = kept
    finally:
        subprocess.run(["umount", str(mount)], capture_output=True)
        shutil.rmtree(home, ignore_errors=True)
    yield tally


def _mounted(image: Path, mount: Path, *, new: bool) -> str | None:
    """Mount an ext4 image; what stands in the way, or None."""
    if os.geteuid() != 0:
        return "needs root"
    if new:
        with image.open("wb") as file:
            file.truncate(64 << 20)
        if shutil.which("mkfs.ext4") is None:
            return "needs mkfs.ext4"
        subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    options = "loop,commit=300"  # the journal is not written by itself meanwhile
    done = subprocess.run(
        ["mount", "-o", options, str(image), str(mount)], capture_output=True, text=True
    )
    return None if done.returncode == 0 else f"no loop device ({done.stderr.strip()})"


def _unmount(mount: Path) -> None:
    subprocess.run(["umount", str(mount)], check=True)


FAMILIES = (  # the longest first
    damage,
    refusals_of_run,
    kills_at_operations,
    kills_at_moments,
    power,
    refusals_of_readers,
)
