"""Kill every command of promotion wherever it has just changed a file: `python -m tests.promotion_killer FOLDER`.

A command is first watched, line of code by line, for the lines before which the directory is not what it was. Then it
runs again and again, each time as a fork that is sent SIGKILL before one of those, and in the middle of its write to
the ledger. After each, verifying must find nothing but what it can finish, and the directory must be as before the
command or as after it. What a kill leaves is recovered under kills in the same way.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from tests.promotions import candidate, history, judge, release
from townlet_train import files
from townlet_train.files import PARTIAL, sha256_of
from townlet_train.services.promotion import PromotionService, folder, ledger

TRACED = {files.__file__, folder.__file__, ledger.__file__}
ARMING = {"store", "commit", "rebuild", "finish"}  # nothing is written before one of these is called
Command = Callable[[PromotionService], object]


class Seen(NamedTuple):
    """What a person sees of a directory: what is released, how far the candidate is, how long the ledger is."""

    release: str | None
    state: str
    streak: int
    lines: int


class Tally:
    """How often a process was killed, and which different things that left behind."""

    def __init__(self) -> None:
        self.kills = 0
        self.left: set[tuple[Any, ...]] = set()


def main(base: Path) -> None:
    """Kill every command everywhere; print how often, and how many different things were left behind."""
    logging.disable()  # every recovery says what it finished
    a, b, c = (candidate(base, name) for name in ("a", "b", "c"))
    (base / "empty").mkdir()
    for name in ("half", "ready", "damaged"):
        (base / name).mkdir()
        history(base / name)
    judge(PromotionService(base / "ready/promotion"), "PASS", c, 2)
    (base / "damaged/promotion/state.json").unlink()
    (base / "damaged/promotion/release.zip").write_bytes(b"somebody else's")
    release(PromotionService(base / "two"), a)
    release(PromotionService(base / "two"), b)
    tally = Tally()
    for template, command in (
        ("empty", lambda service: judge(service, "PASS", a, 1)),
        ("half/promotion", lambda service: judge(service, "PASS", c, 2)),
        ("ready/promotion", PromotionService.promote),
        ("two", lambda service: service.rollback("it faints at night")),
        ("damaged/promotion", lambda service: service.verify(rebuild=True)),
    ):
        kill_everywhere(base / template, command, base / "work", tally)
    print(json.dumps({"kills": tally.kills, "left": len(tally.left)}))  # noqa: T201 - what the test reads


def kill_everywhere(template: Path, command: Command, work: Path, tally: Tally) -> None:
    """Kill a command wherever it changes a file and in the middle of its write to the ledger."""
    before = None if "damaged" in str(template) else seen(copied(template, work))
    moments = watched(template, command, work)
    after, added = seen(work), line_length(work)
    assert len(moments) > 3
    for nth in moments:
        assert life(template, command, work, at_line=nth), "it ended before the line it was to be killed at"
        check(work, command, before, after, tally)
    for written in (1, added // 2, added - 1, added):
        assert life(template, command, work, tear_after=written), "the ledger was not written to"
        check(work, command, before, after, tally)


def check(work: Path, command: Command, before: Seen | None, after: Seen, tally: Tally) -> None:
    """The directory is as before or as after, and goes on from there, however often recovering is killed, too."""
    tally.kills += 1
    tally.left.add(signature(work))
    kept = copied(work, work.with_name("kept"))
    check_settled(work, command, before, after)
    recover: Command = PromotionService.verify if before is None else PromotionService.status
    for nth in watched(kept, recover, work):
        assert life(kept, recover, work, at_line=nth), "it ended before the line it was to be killed at"
        tally.kills += 1
        check_settled(work, command, before, after)


def watched(template: Path, command: Command, work: Path) -> list[int]:
    """The lines of code of a command, by number, before which the directory is not what it was; it is run for that."""
    service = PromotionService(copied(template, work))
    found: list[int] = []
    last = signature(work)

    def look(nth: int) -> None:
        nonlocal last
        now = signature(work)
        if now != last:
            found.append(nth)
        last = now

    sys.settrace(tracer(look))
    try:
        command(service)
    finally:
        sys.settrace(None)
    return found


def copied(template: Path, target: Path) -> Path:
    """A fresh copy of a directory."""
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(template, target))


def check_settled(work: Path, command: Command, before: Seen | None, after: Seen) -> None:
    service = PromotionService(work)
    verified = service.verify()
    if before is None and not verified.valid:  # it was broken before, and still is
        assert len(verified.problems) > 0
    else:
        assert verified.valid, verified.problems
        assert seen(work) in (before, after)
    if before is None or seen(work) == before:
        command(service)
        assert before is None or seen(work) == after
    assert service.verify().valid
    assert not list(work.rglob(f"*{PARTIAL}"))


def seen(work: Path) -> Seen:
    """What is there, once status has finished what was left to do; the released file is what status says."""
    status = PromotionService(work).status()
    released = status.current_release.sha256 if status.current_release else None
    assert released == (sha256_of(work / "release.zip") if status.release_file else None)
    return Seen(released, status.state, status.pass_streak, status.ledger_lines)


def signature(work: Path) -> tuple[Any, ...]:
    """What a kill left, but for times and random names."""
    contents = ((path.name.split(".")[1 if path.name.startswith(".") else 0], path.stat().st_size)
                for path in sorted(work.rglob("*")) if path.is_file())  # fmt: skip
    release_file = work / "release.zip"
    return (
        *contents,
        hashlib.sha256(release_file.read_bytes()).hexdigest() if release_file.exists() else None,
    )


def line_length(work: Path) -> int:
    """Bytes of the ledger's last line with its end."""
    return len((work / "ledger.jsonl").read_bytes().splitlines(keepends=True)[-1])


def life(template: Path, command: Command, work: Path, *, at_line: int = 0, tear_after: int = 0) -> bool:
    """Run a command on a copy of the template in a process of its own; whether it was killed."""
    copied(template, work)
    process = os.fork()
    if not process:
        try:
            if tear_after:
                tear(tear_after)
            else:
                sys.settrace(killer(at_line))
            command(PromotionService(work))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(process, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a command failed that nobody killed")
    return os.WIFSIGNALED(status)


def tear(after: int) -> None:
    """From now on the first write to a descriptor stops after so many bytes, and the process with it."""
    write = os.write

    def torn(descriptor: int, content: bytes) -> int:
        write(descriptor, content[:after])
        os.kill(os.getpid(), signal.SIGKILL)
        return after

    os.write = torn  # type: ignore[assignment]


def killer(nth: int) -> Callable[..., Any]:
    """A trace function that kills the process before the n-th line of code that touches files."""

    def kill(number: int) -> None:
        if number == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    return tracer(kill)


def tracer(before_line: Callable[[int], None]) -> Callable[..., Any]:
    """A trace function that counts the lines of code that touch files, from the first that may write."""
    armed, count = False, 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal armed, count
        if event == "call":
            if frame.f_code.co_filename not in TRACED:
                return None
            armed = armed or frame.f_code.co_name in ARMING
        elif event == "line" and armed:
            count += 1
            before_line(count)
        return trace

    return trace


if __name__ == "__main__":
    main(Path(sys.argv[1]))
