"""What a server takes: processor time and memory of all its processes, scripts included (Linux)."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")


class _Stat(NamedTuple):
    parent: int
    ticks: int  # its own and those of children that it has waited for
    started: int


def _stat(pid: int) -> _Stat | None:
    """A process as it is now; None when there is none, or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else _Stat(int(fields[1]), sum(map(int, fields[11:15])), int(fields[19]))


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def tree(roots: list[int]) -> list[int]:
    """Processes and all below them."""
    children: dict[int, list[int]] = {}
    for pid in _all_pids():
        stat = _stat(pid)
        if stat is not None:
            children.setdefault(stat.parent, []).append(pid)
    found: list[int] = []
    todo = list(roots)
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.append(pid)
            todo += children.get(pid, [])
    return [pid for pid in found if _stat(pid)]


class Group:
    """The processes of one server, found by a control group where one can be made, else by their parents.

    The group counts all that ever ran in it. /proc counts a script's time when somebody waits for the script: servers
    that ignore SIGCHLD (Apache's mod_cgid, fcgiwrap) do not, and then only their own time is known (``is_partial``).
    """

    def __init__(self, name: str) -> None:
        self.roots: list[int] = []
        self.directory = _new_control_group(name)

    def launch(self, command: list[str]) -> list[str]:
        """The command that runs a command in the group."""
        if self.directory is None:
            return command
        return ["/bin/sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(self.directory), *command]

    def pids(self) -> list[int]:
        if self.directory is None:
            return tree(self.roots)
        return [int(line) for line in (self.directory / "cgroup.procs").read_text().split()]

    def cpu_seconds(self) -> float:
        if self.directory is not None:
            lines = (line.split() for line in (self.directory / "cpu.stat").read_text().splitlines())
            return int(next(value for name, value in lines if name == "usage_usec")) / 1e6
        return sum(stat.ticks for pid in self.pids() if (stat := _stat(pid))) / TICKS

    @property
    def is_partial(self) -> bool:
        """Whether ``cpu_seconds`` lacks that of scripts."""
        return self.directory is None and any(_ignores_children(pid) for pid in self.pids())

    def memory_bytes(self, scripts: Path) -> int:
        """Proportional set size of the server's own processes: of all but those that run in the scripts' directory."""
        return sum(_pss(pid) for pid in self.pids() if _directory(pid) != str(scripts))

    def end(self) -> None:
        """Kill what is left, and the group."""
        for _ in range(50):
            left = {pid: stat.started for pid in self.pids() if (stat := _stat(pid))}
            if not left:
                break
            for pid, started in left.items():
                now = _stat(pid)
                if now is not None and now.started == started:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
            threading.Event().wait(0.02)
        if self.directory is not None:
            with contextlib.suppress(OSError):  # something cannot be killed; the group stays with it
                self.directory.rmdir()


def _new_control_group(name: str) -> Path | None:
    """A control group of ours below this process's own; None where there are none, or we may not."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        mount = next(words[1] for words in mounts if words[2] == "cgroup2")
        own = Path("/proc/self/cgroup").read_text().split("0::", 1)[1].splitlines()[0]
        directory = Path(mount + own) / f"wsgicgi-bench-{os.getpid()}-{name}"
        directory.mkdir()
    except (OSError, StopIteration, IndexError):
        return None
    if "usage_usec" in (directory / "cpu.stat").read_text():
        return directory
    directory.rmdir()
    return None


def _ignores_children(pid: int) -> bool:
    try:
        ignored = Path(f"/proc/{pid}/status").read_text().split("SigIgn:", 1)[1].split()[0]
    except (OSError, IndexError):
        return False
    return bool(int(ignored, 16) >> (signal.SIGCHLD - 1) & 1)


def _directory(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return int(text.split("\nPss:", 1)[1].split()[0]) * 1024
    except (OSError, IndexError):  # gone meanwhile, or of another user
        return 0


class Peak:
    """The most memory that was seen; ``before`` is that at the start."""

    def __init__(self, before: int) -> None:
        self.before = before
        self.bytes = before

    @property
    def growth(self) -> int:
        return self.bytes - self.before


@contextlib.contextmanager
def peak_memory(group: Group, scripts: Path, *, interval: float) -> Iterator[Peak]:
    """Look at a server's memory before, every so many seconds during, and after the work."""
    peak = Peak(group.memory_bytes(scripts))
    ended = threading.Event()

    def look() -> None:
        while True:
            is_last = ended.wait(interval)
            peak.bytes = max(peak.bytes, group.memory_bytes(scripts))
            if is_last:
                return

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()
