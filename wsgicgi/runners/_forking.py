"""What a warm parent does: it is a Python that has started already, and forks a process for each script.

It runs under the interpreter that a script's first line names, with its options and variables, and needs nothing but
the standard library (3.8 and newer) and the files beside it: ``_zygote`` and ``_parent``, which begin; ``_warden``,
whose protocol it speaks on standard input (``S`` starts a script, ``T`` ends one); ``_loaded``, what it has loaded;
``_programs``, what it knows of scripts; ``_script``, what a new process does, and ``_ending``, how that ends. It was
started by a warden, so it has the scripts' identity and can never have another.

What it tells the server on the same socket are frames too: ready (with the memory that its scripts' processes leave in
how they end: the server need not wait until the system has taken a process apart); dropped (a module that cannot be
shared among processes; then it ends, and the server starts another without that one); learned (modules that scripts
import); path (a script that changes where its modules come from, and how: what is kept for others may not be for it);
stale (something that it has loaded has changed, or it has grown: it wants to be replaced).
"""

from __future__ import annotations

import _socket  # its objects are made faster than those of socket
import array
import contextlib
import ctypes
import errno
import gc
import marshal
import mmap
import os
import posix
import re
import select
import signal
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wsgicgi.runners import _ending, _loaded, _programs, _script, _warden
else:
    _ending, _loaded, _programs, _script, _warden = (
        sys.modules[name] for name in ("_ending", "_loaded", "_programs", "_script", "_warden")
    )

GROWTH_BYTES = 64 * 1024 * 1024  # by which it may grow before it wants to be replaced
STARTS_BETWEEN_LOOKS = 64
REHEARSALS = 20  # after so many runs the interpreter has specialized what it runs (PEP 659)

BLOCKED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}

libc = ctypes.CDLL(None, use_errno=True)


class Stale(Exception):
    """This process is not for warm starts any more."""


def resident_bytes() -> int:
    """Memory of this process; 0 where that is not known."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


def address_space() -> int:
    """Address space of this process, which RLIMIT_AS is about; 0 where that is not known."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * mmap.PAGESIZE
    except OSError:
        return 0


class Spare:
    """A process that was forked when there was nothing else to do, and waits for its script.

    It ends when its link is closed before that.

    Raises:
        OSError: No process can be had.
    """

    def __init__(self, script: Any, programs: Any) -> None:
        self.state = programs.changes
        self.link, its_end = _socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self.link.detach()  # without the warning that it is still open, whose text takes much to make
            del self.link  # this function is a part of the way to the script
            try:
                script.wait(its_end, programs)
            except Exception:  # not on the parent's way
                os._exit(127)
        its_end.close()

    def give(self, value: Any, descriptors: Sequence[int]) -> bool:
        """Give it its script; False: it has gone."""
        data = marshal.dumps(value, 4)
        frame = _warden.FRAME.pack(b"S", len(data)) + data
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        try:
            sent = self.link.sendmsg([frame], rights)
            if sent < len(frame):
                self.link.sendall(frame[sent:])
        except OSError:
            return False
        return True


class Starter:
    """Forks scripts."""

    def __init__(self, sock: socket.socket, script: Any) -> None:
        self.sock = sock
        self.script = script
        self.watch = _loaded.Watch()
        self.programs = _programs.Programs()
        self.running: list[tuple[Any, Any, mmap.mmap | None]] = []  # scripts, with what they may leave
        self.told: set[str] = set()
        self.starts = 0
        self.first_bytes = resident_bytes()
        self.is_stale = False
        self.spare: Spare | None = None
        self.wants_spare = False
        self.poll = select.poll()
        self.poll.register(sock, select.POLLIN)

    def start(self, frame: Any, given: Sequence[int]) -> None:
        """Start a script; its process tells of it."""
        number, path, stamp, is_executed, cwd, places, mark, restrictions, told = frame
        *streams, records = given
        at = _warden.AT_DIRECTORY
        try:
            if self.watch.look():
                raise Stale
            os.chdir(cwd)  # also where the last one was the same: it may have been renamed
            at = _warden.AT_PROGRAM
            path = os.fsdecode(path)
            program = self.programs.find(path, stamp, is_executed=is_executed, places=places)
            wanted = limits(restrictions)
            report = mmap.mmap(-1, _ending.REPORT_BYTES) if program.is_learning() else None
            pid = self.hand_over((number, path, cwd, told, wanted), given) if report is None else 0
            pid = pid or os.fork()
        except (OSError, ValueError, _programs.Unfit, Stale) as error:
            self.refuse(error, at, records)
            if isinstance(error, _programs.Shadowed):
                send(self.sock, b"P", (path, stamp, None))
            for descriptor in given:
                os.close(descriptor)
            return
        if pid == 0:
            self.script.leave_parent()
            self.script.begin(number, program, told, streams=streams, records=records, wanted=wanted, report=report)
        os.set_blocking(records, False)
        script = _warden.Script(number, records=records, mark=mark)
        script.pid = pid
        _warden.scripts[number] = _warden.scripts_by_pid[pid] = script
        for stream in streams:
            os.close(stream)
        self.running.append((script, program, report))
        self.starts += 1
        self.wants_spare = restrictions[2] is None  # which would be counted as one of the script's

    def hand_over(self, value: Any, given: Sequence[int]) -> int:
        """Give a script to the process that waits for one; its process id, or 0: there is none that can take it."""
        spare, self.spare = self.spare, None
        if spare is None:
            return 0
        try:
            if spare.state != self.programs.changes:
                return 0
            return spare.pid if spare.give(value, given) else 0
        finally:
            spare.link.close()

    def refuse(self, error: Exception, at: int, records: int) -> None:
        """Tell of a script that is not started."""
        number = getattr(error, "errno", None)
        if isinstance(error, Stale):
            at, number = _warden.AT_STALE, 0
        elif isinstance(error, _programs.Unfit):
            at, number = _warden.AT_UNFIT, 0
        elif number == errno.ENOTSUP:
            at = _warden.AT_LIMITS
        _warden.Script(0, records=records, mark=None).tell(
            _warden.REFUSED, errno.EINVAL if number is None else number, at=at
        )
        if isinstance(error, Stale):
            self.retire()

    def after(self) -> None:
        """Between requests: read what scripts have told at their end, and look at the memory."""
        if any(script.is_reaped for script, _, _ in self.running):
            done = [each for each in self.running if each[0].is_reaped]
            self.running = [each for each in self.running if not each[0].is_reaped]
            for script, program, report in done:
                if report is not None:
                    with report:
                        self.learn(program, report)
                elif _ending.outcomes.was_news(script.number):  # it is not the same with each request
                    send(self.sock, b"P", (program.path, program.code.stamp, None))
        if self.starts >= STARTS_BETWEEN_LOOKS:
            self.starts = 0
            if resident_bytes() > self.first_bytes + GROWTH_BYTES:
                self.retire()
        if self.wants_spare and self.spare is None and not self.is_stale and not self.poll.poll(0):
            self.wants_spare = False
            with contextlib.suppress(OSError):
                self.spare = Spare(self.script, self.programs)

    def learn(self, program: Any, report: mmap.mmap) -> None:
        """Take in what a script has imported."""
        length = int.from_bytes(report[:4], "little")
        if not length:
            return
        try:
            names, own, places, variables = marshal.loads(report[4 : 4 + length])
        except (EOFError, ValueError, TypeError):
            return
        self.programs.add_modules(program, own)
        program.variables.update(variables)
        if any(code.changes_path for code in program.modules.values()):
            places = None  # they may do so at times only
        if places is not None:
            places = tuple(sorted({*places, *(program.places or ())}))  # it need not add all of them each time
        if places != program.places or places is None:
            send(self.sock, b"P", (program.path, program.code.stamp, places))
        if places is None:
            return
        new = [name for name in names if name not in self.told and name not in sys.modules]
        self.told.update(new)
        if new:
            send(self.sock, b"L", new)

    def retire(self) -> None:
        """Ask to be replaced."""
        if not self.is_stale:
            self.is_stale = True
            if self.spare is not None:
                self.spare.link.close()
                self.spare = None
            send(self.sock, b"X", None)


def limits(restrictions: Sequence[int | None]) -> list[tuple[int, int, int]]:
    """The limits to set, as ``_warden`` has them.

    Raises:
        Unfit: A limit of memory that this process would take most of means less to a script here than in a small one.
    """
    max_memory = restrictions[1]
    if max_memory is not None and address_space() > max_memory // 2:
        raise _programs.Unfit("its limit of memory is near to what is loaded already")
    return _warden.limits(restrictions)


def send(sock: socket.socket, kind: bytes, value: Any, *, file: int = -1) -> None:
    """Tell the server something, and hand a file over that is not needed here any more."""
    data = marshal.dumps(value, 4)
    frame = _warden.FRAME.pack(kind, len(data)) + data
    with contextlib.suppress(OSError):
        if file < 0:
            sock.sendall(frame)
            return
        sock.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))])
        os.close(file)


def hide() -> None:
    """Open no window to what is in this process's memory, and keep its standard output and error out of the way."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)
    for number, on in ((_warden.PR_SET_DUMPABLE, 0), (_warden.PR_SET_CHILD_SUBREAPER, 1)):
        if _warden.IS_LINUX and libc.prctl(number, on, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


def clean(baseline: frozenset[str]) -> None:
    """After all imports: nothing of this process's own is left that scripts could see."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    for name in list(posix.environ):
        os.unsetenv(name)
    posix.environ.clear()  # which os.environ and os.environb have too
    _ending.remember_modules()
    names = _ending.known - baseline | _loaded.missing.names
    _programs.loaded = frozenset(name.partition(".")[0] for name in names)
    _programs.lend_code()


def main(baseline: frozenset[str], names: dict[str, Any]) -> None:
    """Begin.

    Args:
        baseline: The modules that a script finds in a new interpreter.
        names: The names that it finds in itself.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    sock = socket.socket(fileno=0)
    sock.setblocking(True)
    hide()
    os.environ.pop("LD_BIND_NOW", None)  # which was for this process
    if sys.implementation.name != "cpython":
        send(sock, b"D", ("", f"{sys.implementation.name} is not CPython"))
        return
    wanted, of_a_request, changes_path = marshal.loads(bytes.fromhex(sys.argv[1]))
    try:
        _programs.changes_path = re.compile(changes_path).search
        _loaded.preload(wanted, of_a_request)
    except _loaded.Dropped as dropped:
        send(sock, b"D", dropped.args)
        return
    clean(baseline)
    script = _script.Script(names)
    starter = Starter(sock, script)
    script.rehearse(REHEARSALS)
    _ending.keep.append(sys.modules["__main__"])
    gc.collect()
    gc.disable()
    gc.freeze()
    _loaded.fill_heap()
    room = (script.memory.place, len(script.memory.room)) if script.memory else None
    send(sock, b"R", room, file=_ending.outcomes.file)
    _warden.run(sock, starter.start, starter.after)
