"""The warden: a small process that starts a server's scripts, holds them to their limits, and ends them.

It runs in a bare interpreter (``python -I -S``) and uses nothing of ours, so it has few megabytes whatever the server
has, and a start never copies a large process. It has taken the scripts' identity before it says that it is ready, for
good, and what it starts inherits it; so no script can run with half of a change.

Standard input is a socket to the server. Frames come in on it, each a kind, a length and that many bytes (marshal):

* ``S`` with four descriptors (a script's standard input, output and error, and the pipe for records): start a script;
* ``T``: end one, with all that it started.

Records about a script go out through its own pipe: started (pid), refused (errno, at what), ended (status, memory,
microseconds of processor time). How many frames were taken stands in memory that the server sees: what was not, when a
warden is killed, another can do.
The end of the socket is the end of the server, however it came: then everything that runs is ended.

Linux: it is the reaper of its scripts' orphans (PR_SET_CHILD_SUBREAPER), so that processes which made a session of
their own are still found below it. No other process can look into it (PR_SET_DUMPABLE).
"""

from __future__ import annotations

import array
import contextlib
import errno
import marshal
import mmap
import os
import select
import signal
import socket
import struct
import sys
import time

if sys.platform != "win32":
    import resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

KILL_GRACE = 3.0  # seconds between SIGTERM and SIGKILL
KILL_TICK = 0.05  # seconds between looks at what is still there
KILL_SECONDS = 10.0  # after which what cannot be killed (a process in the kernel) is left
PIECE = 16 * 1024  # bytes of frames that are read at once: most are shorter than one
COUNT_SECONDS = 1.0  # how long a count of a user's other processes holds

KEEPERS = (b"_warden.py", b"_zygote.py")  # what wardens and warm parents run

FRAME = struct.Struct("=cI")
RECORD = struct.Struct("=iiiqq")
TAKEN = struct.Struct("=Q")
# how a script ends, which a warm process tells: its number, a bit for its parent, eight bits of its status
OUTCOME, OUTCOMES = struct.Struct("=Q"), 512
ANCILLARY = socket.CMSG_SPACE(4 * 4) if hasattr(socket, "CMSG_SPACE") else 0  # of four descriptors
READY, STARTED, REFUSED, ENDED = range(4)
AT_PROGRAM, AT_DIRECTORY, AT_LIMITS = range(3)
AT_UNFIT, AT_STALE = 3, 4  # of a warm parent: this script, or this parent, is not for warm starts

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38

IS_LINUX = sys.platform == "linux"

# A script begins with all signals at their defaults. All are named, not just those that Python or we ignore: of the
# others a C library (glibc 2.36) asks first how they are handled, which is twice as many system calls.
DEFAULT_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}) if sys.platform != "win32" else []


def become(identity: tuple[int, int, list[int]]) -> None:
    """Take an identity for good, and make sure of it."""
    uid, gid, groups = identity
    os.setgroups(groups)
    os.setgid(gid)  # for root: the real, the effective and the saved one
    os.setuid(uid)
    have = (os.getuid(), os.geteuid(), os.getgid(), os.getegid())
    if have != (uid, uid, gid, gid) or set(os.getgroups()) - {gid} != set(groups) - {gid}:
        raise PermissionError(errno.EPERM, "the identity was not taken")
    if uid != 0:
        with contextlib.suppress(PermissionError):
            os.setuid(0)
            raise OSError(errno.EPERM, "the identity could be given up again")


def controls(*, no_new_privs: bool) -> Any:
    """Prepare what only prctl can do; gives what does it.

    Everything is imported here: the identity that is taken afterwards may not be able to read this Python.
    """
    if not IS_LINUX:
        return lambda: None
    import ctypes  # noqa: PLC0415  # not needed on other systems

    libc = ctypes.CDLL(None, use_errno=True)
    wanted = [(PR_SET_DUMPABLE, 0), (PR_SET_CHILD_SUBREAPER, 1)] + [(PR_SET_NO_NEW_PRIVS, 1)] * no_new_privs
    wanted.append((PR_SET_PDEATHSIG, signal.SIGCONT))  # one that was stopped would not see the server's end

    def control() -> None:
        for option, value in wanted:
            if libc.prctl(option, value, 0, 0, 0) != 0:
                number = ctypes.get_errno()
                raise OSError(number, "prctl: " + os.strerror(number))

    return control


class Script:
    """One that runs, or whose processes are being ended."""

    def __init__(self, number: int, *, records: int, mark: bytes | None) -> None:
        self.number = number
        self.pid = 0
        self.records = records
        self.mark = mark
        self.is_reaped = False
        self.next_look: float | None = None  # when to see what is left of it; None while nobody wants its end
        self.kill_at = 0.0
        self.give_up_at = 0.0

    def tell(self, kind: int, value: int, *, at: int = 0, max_rss: int = 0, cpu: int = 0) -> None:
        """Write a record. Nobody may be there to read it."""
        try:  # noqa: SIM105  # which takes longer than the write does
            os.write(self.records, RECORD.pack(kind, value, at, max_rss, cpu))
        except OSError:
            pass

    def begin_end(self) -> None:
        """Ask all of its processes to end."""
        if self.next_look is None:
            self.kill_at = time.monotonic() + KILL_GRACE
            self.give_up_at = self.kill_at + KILL_SECONDS
            self.next_look = 0.0
            self.signal_all(signal.SIGTERM, signal.SIGCONT)  # one that is stopped (SIGSTOP) takes no other signal

    def go_on_ending(self, now: float) -> bool:
        """Kill what had its time; whether nothing is left."""
        if self.next_look is None or now < self.next_look:
            return False
        self.next_look = now + KILL_TICK
        number = signal.SIGKILL if now >= self.kill_at else 0
        return (not self.signal_all(number) and self.is_reaped) or now >= self.give_up_at

    def signal_all(self, *numbers: int) -> bool:
        """Signal all processes that come from it; whether there is one."""
        found = members(self)
        if found is None:  # a system without /proc: its process group, then
            try:
                for number in numbers:
                    os.killpg(self.pid, number)
            except OSError:
                return False
            return True
        for pid in found:
            with contextlib.suppress(OSError):
                for number in numbers:
                    os.kill(pid, number)
        return bool(found)


def members(script: Script) -> set[int] | None:
    """The living processes of a script: its session, orphans with its mark, what comes from these; None: unknown."""
    processes = table()
    if processes is None:
        return None
    me = os.getpid()
    children: dict[int, list[int]] = {}
    found = set()
    for pid, (parent, session, _threads) in processes.items():
        children.setdefault(parent, []).append(pid)
        is_orphan = parent == me and pid not in scripts_by_pid
        if session == script.pid or (is_orphan and has_mark(pid, script.mark)):
            found.add(pid)
    if not script.is_reaped and script.pid in processes:
        found.add(script.pid)
    todo = list(found)
    while todo:
        for child in children.get(todo.pop(), ()):
            if child not in found:
                found.add(child)
                todo.append(child)
    return found


def has_mark(pid: int, mark: bytes | None) -> bool:
    """Whether a process was started with a script's environment."""
    if not mark:
        return False
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
    except OSError:
        return False
    return mark == mark_of(dict(variable.split(b"=", 1) for variable in variables if b"=" in variable))


def table() -> dict[int, tuple[int, int, int]] | None:
    """All living processes: parent, session, number of threads; None where the system does not say."""
    processes = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return None
    for name in names:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if fields[0] not in b"ZX":
                processes[int(name)] = (int(fields[1]), int(fields[3]), int(fields[17]))
    return processes if os.getpid() in processes else None


scripts: dict[int, Script] = {}  # by number
scripts_by_pid: dict[int, Script] = {}  # those whose first process was not reaped yet
counted_at = 0.0  # when this user's other processes were counted
counted = 0  # how many threads they have


def count_others() -> int:
    """How many threads this user has that belong to no script of any warden."""
    global counted_at, counted
    now = time.monotonic()
    if now - counted_at > COUNT_SECONDS or not counted_at:
        processes = table() or {}
        wardens = {pid for pid in processes if any(word.endswith(KEEPERS) for word in words_of(pid))}
        count = 0
        for pid, (above, _, threads) in processes.items():
            ancestor = above
            while ancestor in processes and ancestor not in wardens:
                ancestor = processes[ancestor][0]
            if (pid in wardens or ancestor not in wardens) and is_mine(pid):
                count += threads
        counted_at, counted = now, count
    return counted


def words_of(pid: int) -> list[bytes]:
    """The command line of a process."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def is_mine(pid: int) -> bool:
    """Whether a process has this one's real user id, by which they are counted."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            return b"\nUid:\t%d\t" % os.getuid() in file.read()
    except OSError:
        return False


def limits(restrictions: Sequence[int | None]) -> list[tuple[int, int, int]]:
    """The limits to set: a resource's number, the soft limit, the hard one."""
    if restrictions.count(None) == len(restrictions):
        return []
    max_cpu, max_memory, max_processes, max_file_size, max_open_files = restrictions
    if max_processes is not None:
        max_processes += count_others()
    wanted = [
        ("RLIMIT_CPU", max_cpu),
        ("RLIMIT_AS", max_memory),
        ("RLIMIT_NPROC", max_processes),
        ("RLIMIT_FSIZE", max_file_size),
        ("RLIMIT_NOFILE", max_open_files),
    ]
    found = []
    for name, value in wanted:
        if value is not None:
            if not hasattr(resource, name):
                raise OSError(errno.ENOTSUP, "this system has no " + name)
            which = getattr(resource, name)
            most = resource.getrlimit(which)[1]
            # a script that catches SIGXCPU has a second more until SIGKILL
            hard = value + (which == resource.RLIMIT_CPU)
            if most != resource.RLIM_INFINITY:
                hard = min(hard, most)
            found.append((which, min(value, hard), hard))
    return found


def spawn(
    argv: list[bytes],
    environment: dict[bytes, bytes],
    streams: Sequence[int],
    *,
    restrictions: Sequence[int | None],
    nice: int | None,
) -> int:
    """Start a program under limits.

    The soft limits are this process's own for the moment of the start, so that they hold from the first instruction;
    the hard ones follow at once, from outside. Processor time needs no such haste, and must not count against this
    process. Where limits cannot be set from outside (not Linux) the start takes a fork, and they are set between.
    """
    wanted = limits(restrictions)
    if not IS_LINUX:
        return fork(argv, environment, streams, wanted=wanted, nice=nice)
    actions = [(os.POSIX_SPAWN_DUP2, stream, target) for target, stream in enumerate(streams)]
    before = []
    try:
        for which, soft, _ in wanted:
            if which != resource.RLIMIT_CPU:
                before.append((which, resource.getrlimit(which)))
                resource.setrlimit(which, (soft, before[-1][1][1]))
        pid = os.posix_spawn(
            argv[0], argv, environment, file_actions=actions, setsid=True, setsigmask=[], setsigdef=DEFAULT_SIGNALS
        )
    finally:
        for which, pair in before:
            resource.setrlimit(which, pair)
    try:
        for which, soft, hard in wanted:
            resource.prlimit(pid, which, (soft, hard))
        if nice:
            os.setpriority(os.PRIO_PROCESS, pid, min(19, os.getpriority(os.PRIO_PROCESS, 0) + nice))
    except ProcessLookupError:
        pass  # it has ended already
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    return pid


def fork(
    argv: list[bytes],
    environment: dict[bytes, bytes],
    streams: Sequence[int],
    *,
    wanted: list[tuple[int, int, int]],
    nice: int | None,
) -> int:
    """Start a program in the way that every POSIX system has."""
    errors, its_errors = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for number in DEFAULT_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            for target, stream in enumerate(streams):
                os.dup2(stream, target)
            for which, soft, hard in wanted:
                resource.setrlimit(which, (soft, hard))
            if nice:
                os.nice(nice)
            os.execve(argv[0], argv, environment)
        except OSError as error:
            os.write(its_errors, struct.pack("=i", error.errno or 0))
        finally:
            os._exit(127)
    os.close(its_errors)
    refused = os.read(errors, 4)
    os.close(errors)
    if refused:
        os.waitpid(pid, 0)
        raise OSError(struct.unpack("=i", refused)[0], "refused")
    return pid


def mark_of(environment: dict[bytes, bytes]) -> bytes | None:
    """What a script's processes are known by: the request's id, unless that is not theirs alone."""
    name = b"CGI_RUN_ID" if b"CGI_RUN_ID" in environment else b"UNIQUE_ID"
    mark = environment.get(name)
    return name + b"=" + mark if mark else None


def start(frame: Any, descriptors: Sequence[int]) -> None:
    """Start a script and tell of it."""
    number, argv, environment, cwd, umask, nice, restrictions = frame
    *streams, records = descriptors
    script = Script(number, records=records, mark=mark_of(environment))
    at = AT_DIRECTORY
    try:
        os.chdir(cwd)  # also where the last one was the same: it may have been renamed
        at = AT_PROGRAM
        before = None if umask is None else os.umask(umask)
        try:
            script.pid = spawn(argv, environment, streams, restrictions=restrictions, nice=nice)
        finally:
            if before is not None:
                os.umask(before)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ENOTSUP:
            at = AT_LIMITS
        script.tell(REFUSED, getattr(error, "errno", None) or errno.EINVAL, at=at)
        os.close(records)
    else:
        script.tell(STARTED, script.pid)
        scripts[number] = scripts_by_pid[script.pid] = script
    finally:
        for stream in streams:
            os.close(stream)


def exit_code(status: int) -> int:
    """How a process ended, in the way of ``subprocess``; ``os.waitstatus_to_exitcode`` is not in Python 3.8."""
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def reap() -> None:
    """Tell of all that have ended; orphans among them are nobody's concern."""
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        script = scripts_by_pid.pop(pid, None)
        if script is not None:
            max_rss = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
            cpu = int((usage.ru_utime + usage.ru_stime) * 1e6)
            script.is_reaped = True
            script.tell(ENDED, exit_code(status), max_rss=max_rss, cpu=cpu)
            os.close(script.records)
            if script.next_look is None:
                del scripts[script.number]


class Frames:
    """Takes frames from the socket; each brings its descriptors with its first byte."""

    def __init__(self, sock: socket.socket, taken: int | None) -> None:
        self.sock = sock
        self.is_over = False
        self.taken = 0
        self.memory = None
        if taken is not None:
            self.memory = mmap.mmap(taken, TAKEN.size)
            os.close(taken)  # it was given to be inherited

    def take(self) -> Iterator[tuple[bytes, Any, Sequence[int]]]:
        """The frames that have come, with the rest of the last one: kind, value, descriptors."""
        data, descriptors = self._receive()
        self.is_over = not data
        while data:
            data = self._complete(data, FRAME.size)
            if not data:
                return
            kind, length = FRAME.unpack_from(data)
            end = FRAME.size + length
            data = self._complete(data, end)
            if not data:
                return
            self.taken += 1
            if self.memory is not None:
                TAKEN.pack_into(self.memory, 0, self.taken)
            yield kind, marshal.loads(memoryview(data)[FRAME.size : end]), descriptors
            data = data[end:]

    def _receive(self) -> tuple[bytes, Sequence[int]]:
        """Read what is there; the system gives no more at once than what the descriptors of one frame came with."""
        flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        data, ancillary, _, _ = self.sock.recvmsg(PIECE, ANCILLARY, flags)
        descriptors = array.array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(content[: len(content) // 4 * 4])
        if not flags:
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
        return data, descriptors

    def _complete(self, data: bytes, size: int) -> bytes:
        """Read as many bytes as are missing, and none of a next frame; b"" at the end."""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            if not more:
                self.is_over = True
                return b""
            data += more
        return data


def run(
    sock: socket.socket,
    start: Callable[[Any, Sequence[int]], None] = start,
    after: Callable[[], None] = lambda: None,
    *,
    taken: int | None = None,
) -> None:
    """Serve until the server is gone, and then until nothing is left of its scripts.

    Args:
        sock: The socket to the server.
        start: Starts a script, of a frame and descriptors.
        after: What else is to be done after each look at the socket.
        taken: A descriptor of the memory that shows how many frames were taken.
    """
    woken, waker = os.pipe()
    for descriptor in (woken, waker):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    frames = Frames(sock, taken)
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while scripts or not frames.is_over:
        ending = [script for script in scripts.values() if script.next_look is not None]
        for descriptor, _ in poll.poll(KILL_TICK * 1000 if ending else None):
            if descriptor == woken:
                os.read(woken, 4096)
                reap()
                continue
            for kind, value, descriptors in frames.take():
                if kind == b"S":
                    start(value, descriptors)
                elif value in scripts:
                    scripts[value].begin_end()
            if frames.is_over:
                poll.unregister(sock)
                for script in list(scripts.values()):
                    script.begin_end()
        now = time.monotonic()
        for script in ending:
            if script.go_on_ending(now):
                del scripts[script.number]
        after()
        if not scripts:
            os.chdir("/")  # holds no directory of a script's back


def main() -> None:
    """Begin."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    sock = socket.socket(fileno=0)
    sock.setblocking(True)
    identity, no_new_privs, taken = marshal.loads(bytes.fromhex(sys.argv[1]))
    control = controls(no_new_privs=no_new_privs)
    try:
        if identity is not None:
            become(identity)
        control()
    except OSError as error:
        sock.sendall(RECORD.pack(REFUSED, error.errno or errno.EPERM, 0, 0, 0))
        return
    sock.sendall(RECORD.pack(READY, 0, 0, 0, 0))
    run(sock, taken=taken)


if __name__ == "__main__":
    main()
