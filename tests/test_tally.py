"""Counts of several processes: the sums of the living and the dead, and what goes with the dead."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wsgicgi import tally as module
from wsgicgi.tally import GROWTH, PRESENT, Tally

pytestmark = pytest.mark.skipif(module.fcntl is None, reason="this system has no flock")

SIBLING: dict[str, Any] = {"wsgi.multiprocess": True}

COUNTER = """
import sys
from wsgicgi.tally import tally
tally.attach({"wsgi.multiprocess": True})
for line in sys.stdin:
    key, amount = line.split()
    tally.add(key, float(amount))
    print("counted", flush=True)
"""


class Sibling:
    """Another process that counts what it is told to."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", COUNTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def add(self, key: str, amount: float) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{key} {amount}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "counted\n"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def attached() -> Iterator[Tally]:
    """A tally of this process, with its file; another server's process has the same parent as a sibling of it."""
    tally = Tally()
    tally.attach(SIBLING)
    try:
        yield tally
    finally:
        tally.begin_anew()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of all files; the name of the server is made from this process, for siblings have it as parent."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    monkeypatch.setattr(os, "getppid", os.getpid)
    return tmp_path / "wsgicgi"


@contextlib.contextmanager
def siblings(count: int) -> Iterator[list[Sibling]]:
    started = [Sibling() for _ in range(count)]
    try:
        yield started
    finally:
        for each in started:
            each.kill()


def test_any_process_tells_the_sums_of_all() -> None:
    """Which worker is asked makes no difference."""
    with attached() as tally, siblings(2) as others:
        tally.add("a", 1)
        others[0].add("a", 2)
        others[1].add("a", 4)
        others[1].add("b", 0.5)
        assert tally.sums() == {"a": 7, "b": 0.5}
        others[0].add("a", 8)
        assert tally.sums() == {"a": 15, "b": 0.5}


def test_a_dead_process_leaves_its_counts_and_takes_its_gauges_with_it(place: Path) -> None:
    """Counters never go down, and nothing runs in a process that was killed."""
    with attached() as tally, siblings(2) as others:
        for each in others:
            each.add("a", 1)
            each.add(PRESENT + "running", 1)
        assert tally.sums() == {"a": 2, PRESENT + "running": 2}
        others[0].kill()
        assert tally.sums() == {"a": 2, PRESENT + "running": 1}
        others[1].kill()
        assert tally.sums() == tally.sums() == {"a": 2}
        # recycled workers do not pile up files
        [directory] = place.iterdir()
        assert len(list(directory.iterdir())) == 2


def test_what_was_buried_is_not_counted_again_when_its_file_could_not_be_removed(place: Path) -> None:
    """A process may be killed between the two steps."""
    with attached() as tally, siblings(1) as others:
        others[0].add("a", 3)
        [directory] = place.iterdir()
        name = next(path for path in directory.iterdir() if path.name.startswith(f"{others[0].process.pid}-"))
        kept = name.read_bytes()
        others[0].kill()
        assert tally.sums() == {"a": 3}
        name.write_bytes(kept)
        assert tally.sums() == {"a": 3}
        assert not name.exists()


def test_more_keys_than_a_file_had_room_for() -> None:
    """A file grows; its reader sees whole entries."""
    keys = {f"{'k' * 200}{number}": float(number) for number in range(3 * GROWTH // 200)}
    with attached() as tally, siblings(1) as others:
        for key, value in keys.items():
            others[0].add(key, value)
        assert tally.sums() == keys


def test_directories_of_ended_servers_are_removed(place: Path) -> None:
    """Nothing is left for long of a server that was killed; what lives stays."""
    left = place / "tally-1-0"
    with attached():
        pass  # makes the place
    left.mkdir()
    (left / "1-abc").write_bytes(b"")
    with siblings(1) as others:
        others[0].add("a", 1)
        assert not left.exists()
        [directory] = place.iterdir()
        with attached() as tally:
            assert tally.sums() == {"a": 1}
            assert directory.exists()


def test_without_a_place_each_process_tells_its_own(caplog: pytest.LogCaptureFixture, place: Path) -> None:
    """A read-only machine still has metrics, and a line in the log that says what they are of."""
    place.write_text("")  # no directory can be made here
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", "")
        patch.setattr("tempfile.tempdir", str(place))
        with attached() as tally:
            tally.add("a", 2)
            assert tally.sums() == {"a": 2}
    assert "metrics are of each process" in caplog.text


def test_a_single_process_has_no_file(place: Path) -> None:
    """waitress has one: nothing needs to be shared."""
    tally = Tally()
    assert tally.attach({"wsgi.multiprocess": False})
    assert not tally.attach({"wsgi.multiprocess": False})
    tally.add("a", 2)
    assert tally.sums() == {"a": 2}
    assert not place.exists()
