"""Python scripts in this process, one at a time, for systems that have no child processes.

A script runs as ``__main__`` in a thread of its own, with a standard input, output and error of its own (objects, not
descriptors 0, 1 and 2), and with ``sys.argv``, ``os.environ``, ``sys.path`` and the working directory of its own. These
exist once in a process, so scripts take turns, and all is put back before the next one's turn. Who waits for a turn
has started already, as far as its deadlines go.

Who holds what: the script's thread has the write ends of three pipes (output, error, and one that only tells of its
end) and a duplicate of the caller's standard input; the Execution has the read ends.

What this cannot give, and a process can:

* A thread cannot be killed. ``terminate`` takes its output away, so that writing raises BrokenPipeError, and raises an
  exception in it, which comes when it next runs Python code. One that is not impressed within ``KILL_GRACE`` (it
  sleeps, or waits inside a library) is given up: that is logged, it counts as killed, and no other script is started
  (``OutOfResources``) until it ends by itself.
* What a script writes to descriptor 1, and what processes print that it starts, goes to the server's own output.
* Threads that it starts are not waited for, print to the server's output and see the server's variables: streams and
  ``os.environ`` are for the script's thread, so that the server's others find and write what is theirs. They see the
  script's ``sys.argv``, ``sys.path`` and working directory, though, and C code and new processes its variables.
* ``atexit`` functions run when the server ends, ``os._exit`` ends the server, ``signal.signal`` is for main threads.
* Modules of the standard library and of installed packages stay imported, with their state. What comes from elsewhere,
  the script's own directory first of all, is imported anew for each run.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import errno
import io
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import weakref
from collections import deque
from importlib.machinery import SourceFileLoader
from types import ModuleType, TracebackType

from wsgicgi.errors import ConfigError, OutOfResources, ScriptCannotStart

from . import interpreter
from .base import Execution, ExitStatus, Invocation, Restrictions

#: Seconds that a terminated script has to come to its end.
KILL_GRACE = 3.0

#: Where there are no threads either, a script runs while it is being started, and its output waits in a file.
THREADLESS = ("emscripten", "wasi")

_WINDOWS = sys.platform == "win32"
_PYTHON = re.compile(r"python[0-9.]*w?(\.exe)?", re.IGNORECASE)
_SHEBANG = re.compile(rb"#![ \t]*[^\r\n]*\bpython[0-9.]*w?\b")

_TERMINATED = ExitStatus(signal=signal.SIGTERM)
_KILLED = ExitStatus(signal=getattr(signal, "SIGKILL", 9))
#: What Python ends with when it cannot write the last of its output.
_OUTPUT_LOST = 120
_logger = logging.getLogger("wsgicgi")


class InProcessRunner:
    """Runs Python scripts in a thread of this process.

    Args:
        platform: Tells what this system can do.

    Raises:
        ConfigError: Threads are none here: gevent has put its own in their place.
    """

    def __init__(self, platform: str = sys.platform) -> None:
        monkey = sys.modules.get("gevent.monkey")
        if monkey is not None and monkey.is_module_patched("threading"):
            raise ConfigError(
                "runner='inprocess': needs threads, and gevent has replaced them. Take another worker class, such as"
                " gthread, or runner='spawn'"
            )
        self._has_threads = platform not in THREADLESS
        self._running: weakref.WeakSet[_Run] = weakref.WeakSet()

    def start(self, invocation: Invocation) -> Execution:
        """Start a Python script; see ``Runner``.

        Raises:
            OSError: It cannot be read.
            OutOfResources: A script that was given up is still running.
            ScriptCannotStart: It is no Python script.
        """
        unrestricted = Restrictions(no_new_privs=invocation.restrictions.no_new_privs)
        if invocation.identity or invocation.sandbox or invocation.restrictions != unrestricted:
            raise OSError(errno.ENOTSUP, "a script in this process has its identity and its limits")
        words = _python_words(invocation.argv)
        with io.open_code(os.path.abspath(words[0])) as opened:
            source = opened.read()
        if not _is_python(invocation, words, source):
            raise ScriptCannotStart(
                f"{words[0]} is no Python script, and runner='inprocess' runs nothing else. Rewrite it in Python (its"
                " name then ends in .py, or its first line names python), or take runner='spawn'"
            )
        run = _Run(invocation, words, source, is_piped=self._has_threads)
        try:
            _turns.join(run)
            try:
                run.start(in_thread=self._has_threads)
            except BaseException:
                _turns.leave(run)
                raise
        except BaseException:
            run.discard()
            raise
        with _lock:
            self._running.add(run)
            _all_running.add(run)
        return run

    def close(self) -> None:
        """End all scripts that still run."""
        _end_all(self._running)


def _end_all(runs: weakref.WeakSet[_Run]) -> None:
    with _lock:
        candidates = list(runs)
    # a forked process has its parent's scripts in the set, but they are not its own
    running = [run for run in candidates if run.pid == os.getpid() and run.wait(0) is None]
    for run in running:  # all, before the first one's end lets the next begin
        run.is_terminated = True
    for run in running:
        run.terminate()


class _Turns:
    """The queue of those that want to run; the first of them does."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[_Run] = deque()

    def join(self, run: _Run) -> None:
        with self._changed:
            first = self._queue[0] if self._queue else None
            if first is not None and (first.is_given_up or not first.is_piped):
                raise OutOfResources(f"{run.file}: cannot start: {first.file} is still running in this process")
            self._queue.append(run)

    def wait(self, run: _Run) -> bool:
        """Wait for a turn; False when the run was terminated before it had begun."""
        with self._changed:
            self._changed.wait_for(lambda: run.is_terminated or self._queue[0] is run)
            return not run.is_terminated

    def look_again(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def leave(self, run: _Run) -> None:
        with self._changed, contextlib.suppress(ValueError):
            self._queue.remove(run)
            self._changed.notify_all()


_turns = _Turns()
_lock = threading.Lock()  # for both sets
_all_running: weakref.WeakSet[_Run] = weakref.WeakSet()


def _forget() -> None:
    """In a process that was just forked: the scripts run in its parent, and so do their threads."""
    global _turns, _lock  # one a process, as what they take turns in
    _turns, _lock = _Turns(), threading.Lock()
    _all_running.clear()


atexit.register(_end_all, _all_running)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class _Terminated(BaseException):
    """Raised in the thread of a script that is to end; no script catches it by ``except Exception``."""


class _Run:
    """An Execution that is a thread. ``pid`` is this process's own: never to be signalled."""

    def __init__(self, invocation: Invocation, words: tuple[str, ...], source: bytes, *, is_piped: bool) -> None:
        self.file = words[0]
        self.owner = self.pid = os.getpid()
        self.is_piped = is_piped
        self.is_terminated = False
        self.is_given_up = False
        self._words = words
        self._source = source
        self._metavars = invocation.metavars
        self._cwd = invocation.cwd
        self._is_unbuffered = _is_unbuffered(invocation, words, source)
        self._status: ExitStatus | None = None
        self._has_ended = threading.Event()
        self._is_closed = False
        # for who interrupts the thread, gives it up, or says that it has ended, and for our descriptors
        self._decision = threading.Lock()
        self._thread: int | None = None  # while it runs the script
        opened: list[int] = []
        try:
            opened += (_pipe if is_piped else _file)()
            opened += (_pipe if is_piped else _file)()
            opened += _pipe() if is_piped else ()
            opened.append(os.dup(invocation.stdin))
        except BaseException:
            for descriptor in opened:
                os.close(descriptor)
            raise
        self.stdout, script_stdout, self.stderr, script_stderr, *exit_ends, script_stdin = opened
        self.exit_fd: int | None
        self._script_exit: int | None
        self.exit_fd, self._script_exit = exit_ends if is_piped else (None, None)
        self._script_ends = {"stdin": script_stdin, "stdout": script_stdout, "stderr": script_stderr}

    def start(self, *, in_thread: bool) -> None:
        """Let it run."""
        if in_thread:
            try:
                threading.Thread(target=self._main, name=f"wsgicgi {self.file}", daemon=True).start()
            except RuntimeError as error:
                raise OutOfResources(f"{self.file}: cannot start: {error}") from None
        else:
            self._main()
            for descriptor in (self.stdout, self.stderr):
                os.lseek(descriptor, 0, os.SEEK_SET)

    def discard(self) -> None:
        """Close everything of a run that never began."""
        self._close_script_ends()
        if self._script_exit is not None:
            os.close(self._script_exit)
        self.close()

    # -- the Execution

    def wait(self, timeout: float | None) -> ExitStatus | None:
        """Wait for its end; see ``Execution``. A run that was given up counts as ended."""
        if self._status is None:
            self._has_ended.wait(timeout)
        return self._status

    def told(self) -> ExitStatus | None:
        """It tells nothing; see ``Execution``."""
        return None

    def begin_end(self) -> None:
        """Ask it to end; see ``Execution``."""
        if self._status is None:
            self.is_terminated = True
            _turns.look_again()
            self._take_output_away(self.stdout)
            self._raise_in_thread()

    def terminate(self) -> ExitStatus:
        """Ask it to end, or give it up; see ``Execution`` and this module's docstring."""
        self.begin_end()
        if self._status is None and not self._has_ended.wait(KILL_GRACE / 2):
            self._take_output_away(self.stderr)
            self._raise_in_thread()
            if not self._has_ended.wait(KILL_GRACE / 2):
                self._give_up()
        return self._status or _KILLED

    def close(self) -> None:
        """Close our descriptors; see ``Execution``."""
        with self._decision:
            if self._is_closed:
                return
            self._is_closed = True
            for descriptor in (self.stdout, self.stderr, self.exit_fd):
                if descriptor is not None:
                    os.close(descriptor)

    def _take_output_away(self, descriptor: int) -> None:
        """Close the read end of a pipe, so that writers fail, and leave an empty file in its place."""
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            with self._decision:
                if not self._is_closed:  # by another one who terminates it
                    os.dup2(null, descriptor, inheritable=False)
        finally:
            os.close(null)

    def _raise_in_thread(self) -> None:
        with self._decision:
            if self._thread is not None:
                _set_async_exception(self._thread, _Terminated)

    def _give_up(self) -> None:
        with self._decision:
            if self._status is not None:  # it has ended after all, just now
                return
            self.is_given_up = True
            self._status = _KILLED
        _logger.warning(
            "%s: cannot be ended, and goes on in this process; until it ends by itself, other scripts get 503",
            self.file,
        )

    # -- the thread

    def _main(self) -> None:
        status = _TERMINATED
        try:
            if _turns.wait(self):
                status = self._run()
        except Exception:
            _logger.exception("%s: cannot run in this process", self.file)
            status = ExitStatus(code=1)
        finally:
            self._close_script_ends()
            self._end(status)

    def _close_script_ends(self) -> None:
        """Close what the script would have had, if it did not come to run."""
        for descriptor in self._script_ends.values():
            os.close(descriptor)
        self._script_ends = {}

    def _end(self, status: ExitStatus) -> None:
        _turns.leave(self)
        with self._decision:
            if self._status is None:
                self._status = status
        if self.is_given_up:
            _logger.warning("%s: has ended at last; scripts can run again", self.file)
        if self._script_exit is not None:
            # a byte, not only the end: a process that the script has forked may hold another copy of this descriptor
            with contextlib.suppress(OSError):  # nobody waits any more
                os.write(self._script_exit, b"\0")
            os.close(self._script_exit)
        self._has_ended.set()

    def _run(self) -> ExitStatus:
        main = ModuleType("__main__")
        loader = SourceFileLoader("__main__", self.file)
        main.__dict__.update(__file__=self.file, __builtins__=builtins, __cached__=None, __loader__=loader)
        directory = os.path.dirname(os.path.realpath(self.file))
        with contextlib.ExitStack() as borrowed:
            borrowed.enter_context(interpreter.modules(main, directory))
            borrowed.enter_context(interpreter.search_path(directory, self._metavars.get("PYTHONPATH", "")))
            borrowed.enter_context(interpreter.process_settings())
            borrowed.enter_context(interpreter.variables(self._metavars))
            borrowed.enter_context(interpreter.working_directory(self._cwd))
            borrowed.enter_context(interpreter.argv(self._words))
            streams = borrowed.enter_context(
                interpreter.streams(self._script_ends, self._metavars, is_unbuffered=self._is_unbuffered)
            )
            try:
                with self._decision:
                    self._thread = threading.get_ident()
                status = self._run_main(main)
                return status if interpreter.flush(streams) or status.signal else ExitStatus(code=_OUTPUT_LOST)
            except _Terminated:
                return _TERMINATED
            finally:
                self._end_interruptions()

    def _run_main(self, main: ModuleType) -> ExitStatus:
        if self.is_terminated:
            return _TERMINATED
        try:
            code = compile(self._source, self.file, "exec", dont_inherit=True)
            exec(code, main.__dict__)
        except SystemExit as error:
            return _status_of_exit(error.code)
        except _Terminated:
            return _TERMINATED
        except BaseException as error:
            error.__traceback__ = _script_frames(error.__traceback__)
            sys.excepthook(type(error), error, error.__traceback__)
            return ExitStatus(signal=signal.SIGINT) if isinstance(error, KeyboardInterrupt) else ExitStatus(code=1)
        return ExitStatus()

    def _end_interruptions(self) -> None:
        """From here on the thread does our work, which nothing may interrupt."""
        while self._thread is not None:
            with contextlib.suppress(_Terminated), self._decision:
                if self._thread is not None:
                    _set_async_exception(self._thread, None)
                self._thread = None


# -- the script and its end


def _python_words(argv: tuple[str, ...]) -> tuple[str, ...]:
    """The script and its arguments out of a command that may begin with an interpreter."""
    if not _PYTHON.fullmatch(os.path.basename(argv[0])):
        return argv
    for number, word in enumerate(argv[1:], start=1):
        if not word.startswith("-"):
            return argv[number:]
        if word == "-" or word[1] in "cmWX":
            break
    raise ScriptCannotStart(f"{' '.join(argv):.200}: runner='inprocess' runs files, without options that take a value")


def _is_python(invocation: Invocation, words: tuple[str, ...], source: bytes) -> bool:
    """Whether its interpreter, its name or its first line says so."""
    return (
        words != invocation.argv
        or words[0].lower().endswith((".py", ".pyw"))
        or _SHEBANG.match(source.removeprefix(b"\xef\xbb\xbf")) is not None
    )


def _is_unbuffered(invocation: Invocation, words: tuple[str, ...], source: bytes) -> bool:
    """Whether Python would be started with ``-u``."""
    options = invocation.argv[1 : len(invocation.argv) - len(words)]
    found = _SHEBANG.match(source)
    first_line = source[found.end() :].split(b"\n", 1)[0].split() if found else []
    return "-u" in options or b"-u" in first_line or bool(invocation.metavars.get("PYTHONUNBUFFERED"))


def _pipe() -> tuple[int, int]:
    return os.pipe()


def _file() -> tuple[int, int]:
    """A file in place of a pipe, where nobody reads while the script writes."""
    with tempfile.TemporaryFile(buffering=0) as file:
        return os.dup(file.fileno()), os.dup(file.fileno())


def _status_of_exit(code: object) -> ExitStatus:
    """What ``sys.exit`` means: nothing, a number, or a text to be printed."""
    if code is None:
        return ExitStatus()
    if isinstance(code, int):
        return ExitStatus(code=code & 0xFF)
    print(code, file=sys.stderr)
    return ExitStatus(code=1)


def _script_frames(traceback: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames of this module that come first."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
        traceback = traceback.tb_next
    return traceback


def _set_async_exception(thread: int, exception: type[BaseException] | None) -> None:
    """Raise an exception in a thread when it next runs Python code, or take that back."""
    try:
        import ctypes  # noqa: PLC0415  # large, and needed for this alone
    except ImportError:  # WebAssembly
        return
    argument = None if exception is None else ctypes.py_object(exception)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), argument)
