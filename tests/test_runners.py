"""The contract of ``runners/base`` and the exchange on it, over every runner and both ways of reading pipes.

What runs no shell commands has its tests in ``test_inprocess``.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import wait_until

from wsgicgi.errors import BadScriptOutput, ClientGone, ResponseCutShort, ScriptTimeout, log, write_log
from wsgicgi.exchange import Exchange, Limits
from wsgicgi.pipes import PolledPipes, Source, ThreadedPipes
from wsgicgi.response import HeadParser
from wsgicgi.runners import RUNNERS, Execution, Invocation, Runner, child, spawn
from wsgicgi.runners.base import ExitStatus

STEPS = Path(__file__).parent / "site/cgi-bin/steps.py"
HEAD = "Content-Type: text/plain\n\n"


@pytest.fixture(params=sorted(set(RUNNERS) - {"inprocess"}))
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    made = RUNNERS[request.param]()
    yield made
    made.close()


@pytest.fixture(params=[True, False], ids=["pidfd", "no pidfd"])
def has_pidfd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Systems other than Linux have no descriptor that tells of a child's end."""
    if not request.param:
        monkeypatch.delattr(os, "pidfd_open")
        monkeypatch.setattr(subprocess, "_CAN_USE_PIDFD_OPEN", False, raising=False)  # 3.15 looks once
    return bool(request.param)


def invocation(argv: tuple[str, ...], stdin: int, cwd: str = "/", **metavars: str) -> Invocation:
    return Invocation(argv=argv, metavars={"PATH": os.environ["PATH"], **metavars}, cwd=cwd, stdin=stdin)


@pytest.fixture
def start(runner: Runner, has_pidfd: bool) -> Iterator[Callable[..., Execution]]:
    """Starts a shell command; ends and closes it after the test."""
    null = os.open(os.devnull, os.O_RDONLY)
    started: list[Execution] = []

    def start(command: str, **metavars: str) -> Execution:
        started.append(runner.start(invocation(("/bin/sh", "-c", command), null, **metavars)))
        return started[-1]

    yield start
    for execution in started:
        execution.terminate()
        execution.close()
    os.close(null)


def read_all(descriptor: int) -> bytes:
    data = b""
    while piece := os.read(descriptor, 65536):
        data += piece
    return data


def test_environment_is_exactly_the_metavars_as_bytes(start: Callable[..., Execution]) -> None:
    """Native strings become the bytes they stand for (PEP 3333); a text from elsewhere becomes UTF-8."""
    execution = start("cat /proc/self/environ", X_BYTES="\xff\xc3\xa9", X_TEXT="\u20ac")
    environ = dict(item.split(b"=", 1) for item in read_all(execution.stdout).split(b"\0") if item)
    assert environ.pop(b"X_BYTES") == b"\xff\xc3\xa9"
    assert environ.pop(b"X_TEXT") == "\u20ac".encode()
    assert set(environ) - {b"PWD", b"SHLVL", b"_", b"OLDPWD"} == {b"PATH"}


@pytest.mark.parametrize(
    ("command", "status"),
    [("exit 0", ExitStatus()), ("exit 7", ExitStatus(code=7)), ("kill -9 $$", ExitStatus(signal=9))],
)
def test_exit_status_is_told(start: Callable[..., Execution], command: str, status: ExitStatus) -> None:
    """By number, or by the signal that killed it."""
    execution = start(command)
    assert execution.wait(10) == status
    assert execution.wait(0) == status


def test_wait_gives_up_in_time(start: Callable[..., Execution]) -> None:
    """A running script has no status yet."""
    assert start("sleep 300").wait(0.01) is None


def test_script_starts_with_default_signals(start: Callable[..., Execution]) -> None:
    """Nothing is ignored or blocked, though Python itself ignores SIGPIPE."""
    status = read_all(start("cat /proc/self/status").stdout).decode()
    masks = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Sig"))
    the_c_librarys_own = 0b11 << 31  # 32 and 33, which glibc's posix_spawn leaves ignored: no program can name them
    assert int(masks["SigIgn"], 16) & ~the_c_librarys_own == int(masks["SigBlk"], 16) == 0


def test_terminate_ends_the_whole_group(start: Callable[..., Execution]) -> None:
    """Children too, also those that ignore SIGTERM; and it is reaped."""
    execution = start("(trap '' TERM; echo ready; sleep 300; sleep 300) & wait")
    assert os.read(execution.stdout, 100) == b"ready\n"
    begin = time.monotonic()
    assert execution.terminate() == ExitStatus(signal=signal.SIGTERM)
    wait_until(lambda: not has_living_member(execution.pid), "the group is gone")
    assert 2.5 < time.monotonic() - begin < 60  # the three seconds of grace
    # the kernel lets go of a group once its last member is reaped, by init
    wait_until(lambda: not group_exists(execution.pid), "the group is gone")


def test_a_stopped_script_can_clean_up(start: Callable[..., Execution]) -> None:
    """SIGTERM waits until a process goes on (signal(7)), so it is told to."""
    execution = start("trap 'echo clean; exit 0' TERM; echo begin; kill -STOP $$; while :; do sleep 0.1; done")
    assert os.read(execution.stdout, 100) == b"begin\n"
    wait_until(lambda: ") T " in Path(f"/proc/{execution.pid}/stat").read_text(), "it is stopped")
    execution.begin_end()
    assert read_all(execution.stdout) == b"clean\n"
    assert execution.wait(10) == ExitStatus()


def has_living_member(group: int) -> bool:
    return child._has_living_member(group)


def group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_close_of_the_runner_ends_all_that_runs(runner: Runner, start: Callable[..., Execution]) -> None:
    """No script outlives the application that started it."""
    executions = [start("exec sleep 300") for _ in range(5)]
    runner.close()
    assert all(execution.wait(0) == ExitStatus(signal=signal.SIGTERM) for execution in executions)


@pytest.mark.parametrize(
    ("argv", "number"),
    [(("/no/such/program",), errno.ENOENT), (("/",), errno.EACCES), (("/bin/sh", "x" * 200_000), errno.E2BIG)],
)
def test_refusal_of_the_system_is_an_oserror(runner: Runner, argv: tuple[str, ...], number: int) -> None:
    """With its errno; no descriptor and no process is left."""
    null = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(OSError) as caught:
        runner.start(invocation(argv, null))
    os.close(null)
    assert caught.value.errno == number


# -- the pipes


def test_end_of_a_pipe_comes_with_its_last_piece(start: Callable[..., Execution]) -> None:
    """Where nobody can write any more, one look tells all: the bytes and their end."""
    execution = start("echo out; echo error >&2")
    assert execution.wait(20) == ExitStatus()
    pipes = PolledPipes(execution)
    events = [event for event in pipes.wait(20) if event[0] is not Source.EXIT]
    assert events == [
        (Source.STDOUT, b"out\n"),
        (Source.STDOUT, b""),
        (Source.STDERR, b"error\n"),
        (Source.STDERR, b""),
    ]
    assert pipes.are_over


# -- the exchange


class Talk:
    """An exchange with what it logged."""

    def __init__(
        self,
        execution: Execution,
        pipes: type,
        *,
        timeout: float = 20,
        max_time: float | None = None,
        gone: bool = False,
    ) -> None:
        self.pid = execution.pid
        self.messages: list[str] = []
        self.stderr: list[str] = []
        self.exchange = Exchange(
            execution,
            label="/cgi-bin/x",
            limits=Limits(timeout=timeout, max_time=max_time),
            log=self.messages.append,
            write_stderr=self.stderr.append,
            is_client_gone=lambda: gone,
            pipes=pipes(execution),
        )

    def answer(self) -> bytes:
        head = self.exchange.read_head(HeadParser(max_bytes=65536))
        self.exchange.answer(head, has_body=head.has_body)
        return b"".join(self.exchange)


@pytest.fixture(params=[PolledPipes, ThreadedPipes], ids=["polled", "threaded"])
def talk(request: pytest.FixtureRequest, runner: Runner, has_pidfd: bool) -> Iterator[Callable[..., Talk]]:
    """Starts a shell command and an exchange with it."""
    null = os.open(os.devnull, os.O_RDONLY)
    talks: list[Talk] = []

    def talk(command: str, **options: object) -> Talk:
        execution = runner.start(invocation(("/bin/sh", "-c", command), null))
        talks.append(Talk(execution, request.param, **options))
        return talks[-1]

    yield talk
    for each in talks:
        each.exchange.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(each.pid, signal.SIGKILL)  # children in the background
    os.close(null)
    gc.collect()


SAY = "printf 'Content-Type: text/plain\\n\\n'; "


def test_answer_is_whole(talk: Callable[..., Talk]) -> None:
    """More than a pipe holds, byte for byte."""
    assert talk(SAY + "head -c 1000000 /dev/zero").answer() == bytes(1_000_000)


def test_output_after_the_exit_is_not_lost(talk: Callable[..., Talk]) -> None:
    """What is still in the pipe when the script has exited belongs to the answer; a child that holds it does not."""
    one = talk(SAY + "head -c 60000 /dev/zero; sleep 300 & echo end")
    assert one.answer() == bytes(60_000) + b"end\n"


def test_standard_error_is_written_in_whole_lines(talk: Callable[..., Talk]) -> None:
    """With the script's path; the last line needs no end; a line without end is broken, not kept for ever."""
    one = talk(SAY + "printf 'a\\nb\\033\\nc' >&2; head -c 20000 /dev/zero | tr '\\0' x >&2")
    one.answer()
    lines = "".join(one.stderr).splitlines()
    assert lines[:2] == ["/cgi-bin/x: a", "/cgi-bin/x: b\\x1b"]
    assert "".join(line.removeprefix("/cgi-bin/x: ") for line in lines[2:]) == "c" + "x" * 20_000
    assert max(map(len, lines)) < 9000


def test_death_in_the_middle_cuts_the_answer_short(talk: Callable[..., Talk]) -> None:
    """A signal after the head: the connection must break."""
    one = talk(SAY + "echo begin; kill -9 $$")
    with pytest.raises(ResponseCutShort):
        one.answer()
    assert one.messages == ["/cgi-bin/x: was killed by SIGKILL in the middle of its output"]


def test_no_head_is_told_with_the_exit_status(talk: Callable[..., Talk]) -> None:
    """What came, and how it ended, in one message."""
    with pytest.raises(
        BadScriptOutput, match=r"^/cgi-bin/x: the output ended inside the header.* It exited with status 4\.$"
    ):
        talk("echo X-A: 1; exit 4").answer()


def test_silence_is_a_timeout_but_a_slow_client_is_not(talk: Callable[..., Talk], tmp_path: Path) -> None:
    """The time that passes while the client does not take the output is not the script's."""
    one = talk(SAY + "echo a; sleep 1.5; echo b; sleep 300", timeout=3)
    head = one.exchange.read_head(HeadParser(max_bytes=65536))
    one.exchange.answer(head, has_body=True)
    assert next(one.exchange) == b"a\n"
    begin = time.monotonic()
    wait_until(lambda: time.monotonic() - begin > 3.2, "the client is slower than the timeout")
    assert next(one.exchange) == b"b\n"
    with pytest.raises(ResponseCutShort, match=r"no output for \d\.\d s \(timeout=3\)"):
        next(one.exchange)


def test_what_a_script_left_when_it_ended_in_time_is_not_cut(talk: Callable[..., Talk]) -> None:
    """``max_time`` is the script's: the rest of its answer may wait in the pipe for a slow client."""
    one = talk(SAY + "head -c 50000 /dev/zero", max_time=3)  # it fits into the pipe, so that the script can end
    head = one.exchange.read_head(HeadParser(max_bytes=65536))
    one.exchange.answer(head, has_body=True)
    begin = time.monotonic()
    wait_until(lambda: time.monotonic() - begin > 3.2, "the client is slower than max_time")
    assert b"".join(one.exchange) == bytes(50_000)


def test_head_that_comes_too_slowly_is_a_timeout(talk: Callable[..., Talk]) -> None:
    """Dripping header fields do not count as an answer."""
    with pytest.raises(ScriptTimeout, match=r"no complete header after \d"):
        talk("while :; do echo X-A: 1; sleep 0.1; done", timeout=0.5).answer()


def test_client_gone_is_noticed_before_and_after_the_head(talk: Callable[..., Talk]) -> None:
    """Within two seconds, while the script is silent."""
    begin = time.monotonic()
    with pytest.raises(ClientGone):
        talk("sleep 300", gone=True).answer()
    with pytest.raises(ResponseCutShort, match="the client has gone"):
        talk(SAY + "sleep 300", gone=True).answer()
    assert time.monotonic() - begin < 20


def test_close_before_the_end_ends_the_script(talk: Callable[..., Talk]) -> None:
    """The server closes the app_iter when it cannot send (PEP 3333); closing twice is harmless."""
    one = talk(SAY + "echo a; exec sleep 300")
    head = one.exchange.read_head(HeadParser(max_bytes=65536))
    one.exchange.answer(head, has_body=True)
    assert next(one.exchange) == b"a\n"
    one.exchange.close()
    one.exchange.close()
    assert one.exchange.exit_status == ExitStatus(signal=signal.SIGTERM)
    assert sys.exc_info() == (None, None, None)


def test_forked_process_that_ends_does_not_end_its_parents_scripts(start: Callable[..., Execution]) -> None:
    """It has inherited what ends scripts at exit, but not the scripts."""
    execution = start("exec sleep 300")
    pid = os.fork()
    if pid == 0:
        spawn._end()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert execution.wait(0.05) is None


@pytest.mark.parametrize("kind", sorted(set(RUNNERS) - {"inprocess"}))
def test_script_outlives_the_object_that_started_it(kind: str, has_pidfd: bool) -> None:
    """An application object may be made for one request; its script goes on when the object is gone."""
    null = os.open(os.devnull, os.O_RDONLY)
    execution = RUNNERS[kind]().start(invocation(("/bin/sh", "-c", "echo begin; read x; echo end"), null))
    gc.collect()
    assert read_all(execution.stdout) == b"begin\nend\n"
    assert execution.wait(10) == ExitStatus()
    execution.close()
    os.close(null)


def test_log_that_cannot_be_written_spoils_nothing(runner: Runner) -> None:
    """A full disk: the answer goes out, and nothing leaks."""

    class Full:
        def write(self, text: str) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def flush(self) -> None:
            raise AssertionError("nothing was written")

    environ = {"wsgi.errors": Full()}
    log(environ, "x")
    null = os.open(os.devnull, os.O_RDONLY)
    execution = runner.start(invocation(("/bin/sh", "-c", SAY + "echo oops >&2; echo answer"), null))
    talk = Talk(execution, PolledPipes)
    talk.exchange.stderr.write = lambda lines: write_log(environ, lines)
    assert talk.answer() == b"answer\n"
    os.close(null)
