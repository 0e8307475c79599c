"""Python scripts in the server's own process: what they find, what they leave, their end, their turns."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import servers
from servers import Server, wait_until
from sites import Site
from test_runners import Talk, invocation, read_all

from wsgicgi import CGIMiddleware, CGIScript, Config, ConfigError, create_app
from wsgicgi.config import default_runner
from wsgicgi.errors import (
    BadScriptOutput,
    ClientGone,
    OutOfResources,
    ResponseCutShort,
    ScriptCannotStart,
    ScriptTimeout,
)
from wsgicgi.pipes import PolledPipes, ThreadedPipes
from wsgicgi.response import HeadParser
from wsgicgi.runners import RUNNERS, Execution, ExitStatus, InProcessRunner, SpawnRunner, inprocess, interpreter
from wsgicgi.values import RUNNER_NAMES

HEAD = "print('Content-Type: text/plain\\n', flush=True)\n"


@pytest.fixture(params=["linux", "emscripten"], ids=["threads", "no threads"])
def runner(request: pytest.FixtureRequest) -> Iterator[InProcessRunner]:
    """With a thread for each script, and as where there are none; the latter is for what needs no second thread."""
    made = InProcessRunner(request.param)
    yield made
    made.close()


@pytest.fixture
def threads() -> Iterator[InProcessRunner]:
    made = InProcessRunner("linux")
    yield made
    made.close()


class Scripts:
    """Starts Python texts as scripts; ends and closes them after the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started: list[Execution] = []

    def write(self, text: str, name: str = "script.py") -> Path:
        file = self.directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def start(
        self,
        runner: InProcessRunner,
        text: str,
        *words: str,
        name: str = "script.py",
        stdin: bytes = b"",
        options: tuple[str, ...] = (),
        **metavars: str,
    ) -> Execution:
        file = self.write(text, name)
        theirs, ours = os.pipe()
        os.write(ours, stdin)
        os.close(ours)
        argv = (*options, str(file), *words)
        try:
            execution = runner.start(invocation(argv, theirs, str(file.parent), **metavars))
        finally:
            os.close(theirs)
        self.started.append(execution)
        return execution

    def run(
        self, runner: InProcessRunner, text: str, *words: str, **rest: object
    ) -> tuple[bytes, bytes, ExitStatus | None]:
        """Output, standard error and end of a script."""
        execution = self.start(runner, text, *words, **rest)  # type: ignore[arg-type]
        return read_all(execution.stdout), read_all(execution.stderr), execution.wait(10)


@pytest.fixture
def scripts(tmp_path: Path) -> Iterator[Scripts]:
    made = Scripts(tmp_path / "cgi-bin")
    yield made
    for execution in made.started:
        execution.terminate()
        execution.close()
    gc.collect()


# -- what a script finds


REPORT = """
import io, json, os, sys
report = {
    "name": __name__, "file": __file__, "argv": sys.argv, "environ": dict(os.environ), "cwd": os.getcwd(),
    "path": sys.path[0], "main": sys.modules["__main__"].__dict__ is globals(), "stdin": sys.stdin.read(),
    "globals": sorted(name for name in globals() if not name.startswith("__")),
}
for name in ("stdin", "stdout", "stderr"):
    stream = getattr(sys, name)
    report[name + " is"] = [
        isinstance(stream, io.TextIOWrapper), stream is getattr(sys, f"__{name}__"), stream.name, stream.mode,
        stream.encoding, stream.errors, stream.line_buffering, type(stream.buffer).__name__,
        type(stream.buffer.raw).__name__, stream.isatty(),
    ]
print(json.dumps(report))
"""


def fresh(file: Path, *words: str, stdin: bytes, **metavars: str) -> subprocess.CompletedProcess[bytes]:
    """The same in an interpreter of its own."""
    return subprocess.run(
        [sys.executable, file, *words],
        input=stdin,
        env={"PATH": os.environ["PATH"], **metavars},
        capture_output=True,
        cwd=file.parent,
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_script_finds_what_a_fresh_interpreter_would_show_it(
    runner: InProcessRunner, scripts: Scripts, locale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``__main__``, arguments, exactly the meta-variables, directory, import path, and streams down to their layers."""
    import locale as module

    before = module.setlocale(module.LC_CTYPE)
    module.setlocale(module.LC_CTYPE, "C.UTF-8")  # what Python makes of both
    try:
        words = ("a b", "\u20ac")
        out, err, status = scripts.run(runner, REPORT, *words, stdin=b"x\r\ny\xc3\xa9", X_Y="z", LC_ALL=locale)
    finally:
        module.setlocale(module.LC_CTYPE, before)
    assert (err, status) == (b"", ExitStatus())
    expected = fresh(scripts.directory / "script.py", *words, stdin=b"x\r\ny\xc3\xa9", X_Y="z", LC_ALL=locale)
    theirs = json.loads(expected.stdout)
    theirs["environ"].pop("LC_CTYPE", None)  # of PEP 538, which a running interpreter cannot repeat
    assert json.loads(out) == theirs


def test_variables_are_bytes_and_reach_child_processes(threads: InProcessRunner, scripts: Scripts) -> None:
    """Native strings become the bytes they stand for (PEP 3333), for the script and what it starts."""
    text = (
        "import os, subprocess, sys\nsys.stdout.buffer.write(os.environb[b'X'] + b'|')\nsys.stdout.flush()\n"
        "sys.stdout.buffer.write(subprocess.run(['env'], stdout=subprocess.PIPE).stdout)"
    )
    out, err, _ = scripts.run(threads, text, X="\xff\xc3\xa9", TEXT="\u20ac")
    first, _, rest = out.partition(b"|")
    assert (first, err) == (b"\xff\xc3\xa9", b"")
    names = {line.partition(b"=")[0] for line in rest.splitlines()}
    # readline, which pytest has loaded, sets two by itself
    assert names - {b"COLUMNS", b"LINES", b"PWD", b"SHLVL", b"_"} == {b"PATH", b"X", b"TEXT"}


@pytest.mark.parametrize("how", ["option", "variable", "first line"])
def test_unbuffered_output_is_as_with_u(threads: InProcessRunner, scripts: Scripts, how: str) -> None:
    """``python -u``, as http.server starts Python scripts: each write goes out."""
    text = "#!/usr/bin/python3 -u\n" if how == "first line" else ""
    text += "import sys\nsys.stdout.write('a')\nsys.stdin.buffer.raw\nwhile True: pass"
    options = (sys.executable, "-u") if how == "option" else ()
    variables = {"PYTHONUNBUFFERED": "1"} if how == "variable" else {}
    execution = scripts.start(threads, text, options=options, **variables)
    assert os.read(execution.stdout, 10) == b"a"


def test_modules_beside_a_script_are_its_own(runner: InProcessRunner, scripts: Scripts) -> None:
    """Two scripts in two directories each import their own ``helper``, anew each time; the server's own is back."""
    server_module = types.ModuleType("helper")
    sys.modules["helper"] = server_module
    try:
        text = "import helper.sub\nprint(helper.name, helper.sub.name, len(helper.log))\nhelper.log.append(1)"
        for name in ("one", "two"):
            scripts.write(f"name, log = {name!r}, []", f"{name}/helper/__init__.py")
            scripts.write(f"name = 'sub of {name}'", f"{name}/helper/sub.py")
        for name in ("one", "two", "one"):
            out, err, _ = scripts.run(runner, text, name=f"{name}/script.py")
            assert (out, err) == (f"{name} sub of {name} 0\n".encode(), b"")
        assert sys.modules["helper"] is server_module
        assert "helper.sub" not in sys.modules
    finally:
        del sys.modules["helper"]


def test_modules_from_a_place_that_a_script_names_do_not_stay(runner: InProcessRunner, scripts: Scripts) -> None:
    """``sys.path.insert(0, "../lib")`` is common; what is made by hand goes too; the standard library stays."""
    scripts.write("name = 'lib'", "../lib/helper.py")
    text = (
        "import sys, types\nsys.path.insert(0, '../lib')\nimport helper, colorsys\n"
        "sys.modules['made'] = types.ModuleType('made')\nprint(helper.name)"
    )
    sys.modules.pop("colorsys", None)
    out, err, _ = scripts.run(runner, text)
    assert (out, err) == (b"lib\n", b"")
    assert {"helper", "made", "colorsys"} & set(sys.modules) == {"colorsys"}


def test_pythonpath_is_heeded(runner: InProcessRunner, scripts: Scripts) -> None:
    """The setting ``env`` may give it, as for a process."""
    lib = scripts.write("name = 'lib'", "../lib/helper.py").parent.resolve()
    out, err, _ = scripts.run(runner, "import helper; print(helper.name)", PYTHONPATH=f"/nowhere{os.pathsep}{lib}")
    assert (out, err) == (b"lib\n", b"")
    assert str(lib) not in sys.path


# -- what it leaves


UPSET = """
import locale, os, socket, sys, warnings
os.environ["LEFT"] = "x"
os.environ = {}
os.chdir("/")
os.umask(0o777)
sys.argv = None
sys.path = ["/nowhere"]
sys.path_hooks
sys.excepthook = None
sys.setrecursionlimit(5000)
socket.setdefaulttimeout(0.001)
locale.setlocale(locale.LC_ALL, "C")
warnings.simplefilter("error")
sys.modules["__main__"] = None
sys.modules["json"] = None
sys.stdout.write("still ")
sys.stdout.flush()
sys.stdout = sys.__stdout__ = open(sys.stdout.fileno(), "w", closefd=False)
sys.stdout.write("written")
sys.stdin.close()
sys.stderr = None
"""


def process_state() -> dict[str, object]:
    umask = os.umask(0)
    os.umask(umask)
    import locale
    import warnings

    return {
        "environ": (id(os.environ), dict(os.environ)),
        "inherited": set(subprocess.check_output(["env", "-0"]).split(b"\0")),
        "cwd": os.getcwd(),
        "umask": umask,
        "argv": (id(sys.argv), list(sys.argv)),
        "path": (id(sys.path), list(sys.path)),
        "hook": sys.excepthook,
        "limit": sys.getrecursionlimit(),
        "timeout": socket.getdefaulttimeout(),
        "locale": locale.setlocale(locale.LC_ALL),
        "warnings": list(warnings.filters),
        "main": sys.modules["__main__"],
        "json": sys.modules["json"],
        "streams": [getattr(sys, name) for name in interpreter.STREAM_NAMES],
    }


def test_process_is_as_before(runner: InProcessRunner, scripts: Scripts) -> None:
    """Whatever a script does to what a process has only once."""
    before = process_state()
    out, _, status = scripts.run(runner, UPSET)
    assert (out, status) == (b"still written", ExitStatus())
    assert process_state() == before


@pytest.mark.parametrize(
    "text",
    [
        "import sys; sys.stdout.detach().write(b'text')",
        "import sys; sys.stdout.write('text'); sys.stdout = None",
        "import sys; sys.stdout.write('text'); kept = sys.stdout.detach()",
        (
            "import io, sys, warnings; warnings.simplefilter('ignore'); out = sys.stdout.buffer\n"
            "sys.stdout = io.TextIOWrapper(out, 'latin-1'); print('text', end='')"
        ),
        "import codecs, sys; sys.stdout = codecs.getwriter('ascii')(sys.stdout.buffer); print('text', end='')",
        "import os, sys; os.write(sys.stdout.fileno(), b'text')",
        "import sys; sys.stdout.buffer.raw.write(b'text')",
        "import sys; print('text', end=''); sys.stdout.close()",
        "import sys; sys.stdout.reconfigure(encoding='utf-8'); sys.stdout.writelines(['te', 'xt'])",
    ],
)
def test_output_is_whole_however_it_is_written(runner: InProcessRunner, scripts: Scripts, text: str) -> None:
    """Scripts take the layers apart and put others on top."""
    assert scripts.run(runner, text) == (b"text", b"", ExitStatus())


def test_closed_output_ends_at_once(threads: InProcessRunner, scripts: Scripts, tmp_path: Path) -> None:
    """As for a process: the answer is over, and the script works on."""
    go_on = tmp_path / "go-on"
    text = "import os, sys, time\nprint('all')\nsys.stdout.close()\n"
    text += f"while not os.path.exists({str(go_on)!r}): time.sleep(0.01)"
    execution = scripts.start(threads, text)
    assert read_all(execution.stdout) == b"all\n"
    assert execution.wait(0) is None
    go_on.touch()
    assert execution.wait(10) == ExitStatus()


# -- its end


@pytest.mark.parametrize(
    ("text", "status", "error"),
    [
        ("pass", ExitStatus(), b""),
        ("import sys; sys.exit()", ExitStatus(), b""),
        ("import sys; sys.exit(0)", ExitStatus(), b""),
        ("import sys; sys.exit(7)", ExitStatus(code=7), b""),
        ("import sys; sys.exit(300)", ExitStatus(code=44), b""),
        ("import sys; sys.exit(-1)", ExitStatus(code=255), b""),
        ("import sys; sys.exit(True)", ExitStatus(code=1), b""),
        ("import sys; sys.exit('out of ink')", ExitStatus(code=1), b"out of ink\n"),
        ("import sys; sys.exit(('a', 1))", ExitStatus(code=1), b"('a', 1)\n"),
        ("raise SystemExit", ExitStatus(), b""),
        ("raise KeyboardInterrupt", ExitStatus(signal=signal.SIGINT), None),
        ("x = 1\n1/0", ExitStatus(code=1), None),
        ("def f(:", ExitStatus(code=1), None),
        ("def f():\n    raise ValueError('\u20ac') from KeyError(1)\nf()", ExitStatus(code=1), None),
        ("import nothing_of_that_name", ExitStatus(code=1), None),
        ("x = '\0'", ExitStatus(code=1), None),
        ("import sys\nsys.excepthook = lambda *error: print('hook', error[0].__name__)\n1/0", ExitStatus(code=1), b""),
    ],
)
def test_end_is_as_a_process_ends(
    runner: InProcessRunner, scripts: Scripts, text: str, status: ExitStatus, error: bytes | None
) -> None:
    """Status and standard error, traceback included, are those of an interpreter of its own."""
    out, err, ended = scripts.run(runner, text)
    theirs = fresh(scripts.directory / "script.py", stdin=b"")
    assert ended == status
    assert theirs.returncode == (-status.signal if status.signal else status.code)
    if "\0" in text:  # an interpreter says it in other words when it reads from a file
        assert b"null bytes" in err
    else:
        assert (out, err) == (theirs.stdout, theirs.stderr)
    assert error is None or err == error


def test_wait_gives_up_in_time(threads: InProcessRunner, scripts: Scripts) -> None:
    """A running script has no status yet."""
    execution = scripts.start(threads, "while True: pass")
    assert execution.wait(0) is None
    assert execution.wait(0.01) is None


@pytest.mark.parametrize(
    "text",
    [
        "while True: pass",
        "import time\nwhile True:\n    try: time.sleep(0.001)\n    except Exception: pass",
        "while True: print('x' * 1000)",
        "import sys\nwhile True: sys.stderr.write('x' * 1000)",
        "import os, sys\nwhile True: os.write(sys.stdout.fileno(), b'x' * 1000)",
    ],
    ids=["busy", "catches Exception", "writes", "writes errors", "writes below"],
)
def test_terminated_script_ends(threads: InProcessRunner, scripts: Scripts, text: str) -> None:
    """By an exception that ``except Exception`` does not catch, and because nobody takes its output any more."""
    execution = scripts.start(threads, f"import sys\nsys.stdout.write('ready')\nsys.stdout.flush()\n{text}")
    assert os.read(execution.stdout, 5) == b"ready"
    assert not execution.terminate().is_success
    assert execution.terminate() == execution.wait(0)
    assert scripts.run(threads, "print('next')") == (b"next\n", b"", ExitStatus())


CLEANS_UP = """
try:
    print("ready", flush=True)
    while True:
        pass
finally:
    open("clean", "w").close()
"""


def test_terminated_script_cleans_up(threads: InProcessRunner, scripts: Scripts) -> None:
    """``finally`` and ``with`` do their work: what a script holds is held by the server's process."""
    execution = scripts.start(threads, CLEANS_UP)
    assert os.read(execution.stdout, 9) == b"ready\n"
    assert execution.terminate() == ExitStatus(signal=signal.SIGTERM)
    assert (scripts.directory / "clean").exists()


def test_script_that_cannot_be_ended_is_given_up(
    threads: InProcessRunner,
    scripts: Scripts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It counts as killed; others get 503 until it ends by itself; the log tells both."""
    monkeypatch.setattr(inprocess, "KILL_GRACE", 0.2)
    go_on = tmp_path / "go-on"
    text = (
        "import os, time\nready = ['ready']\nwhile True:\n    try:\n"
        "        while ready: print(ready.pop(), flush=True)\n"
        f"        while not os.path.exists({str(go_on)!r}): time.sleep(0.001)\n        break\n"
        "    except BaseException: pass\nprint('more', flush=True)"
    )
    execution = scripts.start(threads, text, name="stuck.py")
    assert os.read(execution.stdout, 9) == b"ready\n"
    assert execution.terminate() == execution.wait(0) == ExitStatus(signal=signal.SIGKILL)
    assert "stuck.py: cannot be ended, and goes on in this process" in caplog.text
    with pytest.raises(OutOfResources, match=r"stuck\.py is still running in this process"):
        scripts.start(threads, "pass")
    go_on.touch()
    wait_until(lambda: "stuck.py: has ended at last; scripts can run again" in caplog.text, "the script ends")
    assert scripts.run(threads, "print('next')") == (b"next\n", b"", ExitStatus())


def test_close_of_the_runner_ends_all_that_runs(threads: InProcessRunner, scripts: Scripts) -> None:
    """The one that runs and those that wait; a later start is allowed."""
    executions = [scripts.start(threads, "while True: pass", name=f"{number}.py") for number in range(5)]
    threads.close()
    assert [execution.wait(0) for execution in executions] == [ExitStatus(signal=signal.SIGTERM)] * 5
    assert scripts.run(threads, "print('next')") == (b"next\n", b"", ExitStatus())


def test_script_is_ended_with_the_interpreter(tmp_path: Path) -> None:
    """It has the chance to clean up; the interpreter does not wait for what cannot be ended."""
    (tmp_path / "script.py").write_text(CLEANS_UP)
    program = (
        "import os\nfrom wsgicgi.runners import *\n"
        f"argv, cwd = ({str(tmp_path / 'script.py')!r},), {str(tmp_path)!r}\n"
        "run = InProcessRunner().start(Invocation(argv=argv, metavars={}, cwd=cwd, stdin=0))\nos.read(run.stdout, 9)"
    )
    done = subprocess.run([sys.executable, "-c", program], stdin=subprocess.DEVNULL, timeout=30, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "clean").exists()


def test_forked_process_has_turns_of_its_own(threads: InProcessRunner, scripts: Scripts) -> None:
    """A worker that was forked while a script ran is not held up by it, and does not end it."""
    execution = scripts.start(threads, "print('ready', flush=True)\nwhile True: pass")
    assert os.read(execution.stdout, 9) == b"ready\n"
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            threads.close()
            out, _, status = scripts.run(InProcessRunner("linux"), "print('next')", name="next.py")
            code = 0 if (out, status) == (b"next\n", ExitStatus()) else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert execution.wait(0) is None


# -- turns


def test_scripts_run_one_at_a_time_in_order(threads: InProcessRunner, scripts: Scripts, tmp_path: Path) -> None:
    """Each from its begin to its end, as they were started, over all runners of the process."""
    log, go_on = tmp_path / "log", tmp_path / "go-on"
    text = (
        f"import os, sys, time\nlog = open({str(log)!r}, 'a', buffering=1)\nlog.write(f'begin {{sys.argv[1]}}\\n')\n"
        f"while not os.path.exists({str(go_on)!r}): time.sleep(0.001)\n"
        "assert os.environ['WHO'] == sys.argv[1]\nlog.write(f'end {sys.argv[1]}\\n')\nlog.close()"
    )
    other = InProcessRunner("linux")
    executions = [
        scripts.start((threads, other)[number % 2], text, str(number), WHO=str(number), name=f"{number}.py")
        for number in range(6)
    ]
    wait_until(log.exists, "the first begins")
    go_on.touch()
    assert [execution.wait(10) for execution in executions] == [ExitStatus()] * 6
    assert log.read_text() == "".join(f"begin {number}\nend {number}\n" for number in range(6))


def test_one_that_waits_can_be_ended(threads: InProcessRunner, scripts: Scripts, tmp_path: Path) -> None:
    """At once, without having run."""
    first = scripts.start(threads, "while True: pass", name="first.py")
    second = scripts.start(threads, f"open({str(tmp_path / 'ran')!r}, 'w')", name="second.py")
    assert second.terminate() == ExitStatus(signal=signal.SIGTERM)
    assert first.wait(0) is None
    first.terminate()
    assert scripts.run(threads, "print('next')")[0] == b"next\n"
    assert not (tmp_path / "ran").exists()


def test_what_the_server_writes_meanwhile_stays_the_servers(
    threads: InProcessRunner, scripts: Scripts, capsys: pytest.CaptureFixture[str]
) -> None:
    """Servers take ``sys.stderr`` for a log whenever a request comes, and keep it."""
    execution = scripts.start(threads, "print('script', flush=True)\nwhile True: pass")
    assert os.read(execution.stdout, 99) == b"script\n"
    kept = sys.stderr
    assert kept is not capsys
    print("a line of the server", flush=True)
    print("a line of its log", file=kept, flush=True)
    execution.terminate()
    print("a line afterwards", file=kept, flush=True)
    assert capsys.readouterr() == ("a line of the server\n", "a line of its log\na line afterwards\n")
    assert read_all(execution.stderr) == b""


# -- what cannot start


def test_run_that_fails_before_the_script_is_logged(
    threads: InProcessRunner, scripts: Scripts, caplog: pytest.LogCaptureFixture
) -> None:
    """An encoding that is none, say; nothing leaks, and the turn is given back."""
    out, _, status = scripts.run(threads, "print('no')", PYTHONIOENCODING="no-such-encoding")
    assert (out, status) == (b"", ExitStatus(code=1))
    assert "script.py: cannot run in this process" in caplog.text
    assert scripts.run(threads, "print('next')")[0] == b"next\n"


@pytest.mark.parametrize(
    ("name", "text"), [("x.sh", "#!/bin/sh\necho"), ("x", "\x7fELF"), ("x.pl", "#!/usr/bin/perl\n"), ("empty", "")]
)
def test_what_is_no_python_script_is_refused(runner: InProcessRunner, scripts: Scripts, name: str, text: str) -> None:
    """The sentence says what to do."""
    with pytest.raises(ScriptCannotStart, match=r"is no Python script.*Rewrite it in Python.*or take runner='spawn'"):
        scripts.start(runner, text, name=name)


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("x.py", (), ""),
        ("x.PYW", (), ""),
        ("x", (), "#!/usr/bin/env python3\n"),
        ("x", (), "#! /opt/python3.11/bin/python3.11 -u\r\n"),
        ("x.cgi", (sys.executable,), ""),
        ("x.cgi", ("/usr/bin/python3", "-u", "-B"), ""),
    ],
)
def test_python_scripts_are_known_by_name_first_line_and_interpreter(
    runner: InProcessRunner, scripts: Scripts, name: str, options: tuple[str, ...], text: str
) -> None:
    """As a system would find that Python runs them."""
    out, err, _ = scripts.run(runner, text + "import sys; print(sys.argv[1:])", "w", name=name, options=options)
    assert (out, err) == (b"['w']\n", b"")


@pytest.mark.parametrize("options", [("python3", "-c"), ("python3", "-m"), ("python3", "-W", "error")])
def test_interpreter_with_other_options_is_refused(
    runner: InProcessRunner, scripts: Scripts, options: tuple[str, ...]
) -> None:
    """They would mean something else than a file to run."""
    with pytest.raises(ScriptCannotStart, match="runs files, without options that take a value"):
        scripts.start(runner, "pass", options=options)


def test_refusal_of_the_system_is_an_oserror(runner: InProcessRunner, tmp_path: Path) -> None:
    """With its errno; nothing is left."""
    null = os.open(os.devnull, os.O_RDONLY)
    for place, number in ((tmp_path / "no.py", errno.ENOENT), (tmp_path, errno.EISDIR)):
        with pytest.raises(OSError) as caught:
            runner.start(invocation((str(place),), null))
        assert caught.value.errno == number
    os.close(null)


def test_no_thread_left_is_a_503(threads: InProcessRunner, scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    """And gives the turn back."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OutOfResources, match="can't start new thread"):
            scripts.start(threads, "pass")
    assert scripts.run(threads, "print('next')")[0] == b"next\n"


def test_threads_that_are_none_are_refused() -> None:
    """gevent's run in turns of their own, which a script would never give away."""
    program = (
        "from gevent import monkey; monkey.patch_all()\nfrom wsgicgi import create_app\n"
        "create_app('/', runner='inprocess')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "ConfigError: runner='inprocess': needs threads, and gevent has replaced them" in done.stderr


# -- the exchange


@pytest.fixture(params=[PolledPipes, ThreadedPipes], ids=["polled", "threaded"])
def talk(request: pytest.FixtureRequest, threads: InProcessRunner, scripts: Scripts) -> Iterator[Callable[..., Talk]]:
    """Starts a script and an exchange with it."""
    talks: list[Talk] = []

    def talk(text: str, **options: object) -> Talk:
        talks.append(Talk(scripts.start(threads, text), request.param, **options))  # type: ignore[arg-type]
        return talks[-1]

    yield talk
    for each in talks:
        each.exchange.close()


def test_answer_is_whole(talk: Callable[..., Talk]) -> None:
    """More than a pipe holds, byte for byte; as for a process."""
    text = HEAD + "import sys; sys.stdout.buffer.write(bytes(range(256)) * 4000)"
    assert talk(text).answer() == bytes(range(256)) * 4000


def test_answer_of_a_system_without_threads_is_whole(scripts: Scripts) -> None:
    """It waits in a file, and polls like a pipe."""
    text = HEAD + "import sys; sys.stdout.buffer.write(bytes(range(256)) * 4000); sys.exit(4)"
    one = Talk(scripts.start(InProcessRunner("emscripten"), text), PolledPipes)
    assert one.answer() == bytes(range(256)) * 4000
    assert one.messages == ["/cgi-bin/x: exited with status 4"]


def test_traceback_after_the_head_is_logged_with_the_exit_status(talk: Callable[..., Talk]) -> None:
    """Line by line, with the script's path."""
    one = talk(HEAD + "print('begin')\n1/0")
    assert one.answer() == b"begin\n"
    lines = "".join(one.stderr).splitlines()
    assert lines[0] == "/cgi-bin/x: Traceback (most recent call last):"
    assert lines[-1] == "/cgi-bin/x: ZeroDivisionError: division by zero"
    wait_until(lambda: one.messages == ["/cgi-bin/x: exited with status 1"], "its end is told")


def test_no_head_is_told_with_the_exit_status(talk: Callable[..., Talk], monkeypatch: pytest.MonkeyPatch) -> None:
    """What came, and how it ended, in one message."""
    monkeypatch.setattr("wsgicgi.exchange.EXIT_GRACE", 10.0)  # a thread's end comes a moment after its output's
    with pytest.raises(BadScriptOutput, match=r"the output ended inside the header.* It exited with status 4\.$"):
        talk("import sys\nprint('X-A: 1')\nsys.exit(4)").answer()


def test_output_streams(talk: Callable[..., Talk], tmp_path: Path) -> None:
    """Each flushed piece goes out while the script runs."""
    go_on = tmp_path / "go-on"
    one = talk(HEAD + f"print('a', flush=True)\nimport os\nwhile not os.path.exists({str(go_on)!r}): pass\nprint('b')")
    head = one.exchange.read_head(HeadParser(max_bytes=65536))
    one.exchange.answer(head, has_body=True)
    assert next(one.exchange) == b"a\n"
    go_on.touch()
    assert b"".join(one.exchange) == b"b\n"


@pytest.mark.parametrize("begin", ["", HEAD + "print('a', flush=True)\n"], ids=["no head", "no more"])
def test_silence_is_a_timeout(talk: Callable[..., Talk], begin: str) -> None:
    """And the script is ended, so that the next one has its turn."""
    one = talk(begin + "while True: pass", timeout=2)
    with pytest.raises(ScriptTimeout if not begin else ResponseCutShort):
        one.answer()
    one.exchange.close()
    assert talk(HEAD + "print('next')").answer() == b"next\n"


def test_waiting_for_a_turn_counts_towards_the_timeout(talk: Callable[..., Talk]) -> None:
    """Nobody waits longer than he said because of others."""
    first = talk(HEAD + "while True: pass")
    with pytest.raises(ScriptTimeout, match=r"no complete header after \d+\.\d s \(timeout=0\.5, 0 bytes received\)"):
        talk(HEAD, timeout=0.5).answer()
    assert first.exchange.read_head(HeadParser(max_bytes=65536)).status == 200


def test_client_gone_ends_the_script(talk: Callable[..., Talk]) -> None:
    """Before and after the head."""
    one = talk("while True: pass", gone=True)
    with pytest.raises(ClientGone):
        one.answer()
    one.exchange.close()
    with pytest.raises(ResponseCutShort, match="the client has gone"):
        talk(HEAD + "while True: pass", gone=True).answer()
    assert talk(HEAD + "print('next')").answer() == b"next\n"


def test_process_that_a_script_leaves_does_not_hold_up_the_answer(talk: Callable[..., Talk], tmp_path: Path) -> None:
    """A forked one holds copies of all that the script had."""
    go_on = tmp_path / "go-on"
    text = (
        "import os, sys, time\nif os.fork() == 0:\n"
        f"    while not os.path.exists({str(go_on)!r}): time.sleep(0.01)\n    os._exit(0)\n"
    )
    one = talk("import warnings; warnings.simplefilter('ignore')\n" + HEAD + text + "print('answer')")
    try:
        assert one.answer() == b"answer\n"
    finally:
        go_on.touch()
        with contextlib.suppress(ChildProcessError):
            os.wait()


# -- the setting


def test_setting_names_a_runner(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As keyword, variable, configuration or argument; an object is taken as it is."""
    assert set(RUNNER_NAMES) == set(RUNNERS) - {"subprocess"}  # which "spawn" takes where it has to
    place = site.directory

    def app(environ: object, start_response: object) -> list[bytes]:
        raise AssertionError("not called")

    def kind(made: object) -> type:
        return type(made._gateway.runner)  # type: ignore[attr-defined]

    assert kind(CGIMiddleware(app, place)) is SpawnRunner
    assert kind(CGIMiddleware(app, place, runner="inprocess")) is InProcessRunner
    assert kind(CGIMiddleware(app, config=Config(runner="inprocess", run_as=None))) is InProcessRunner
    assert kind(CGIMiddleware(app, config=Config(runner="inprocess", run_as=None), runner="spawn")) is SpawnRunner
    assert kind(CGIScript(place / "cgi-bin/report.py", runner="inprocess")) is InProcessRunner
    own = SpawnRunner()
    assert CGIMiddleware(app, place, runner=own, timeout=3)._gateway.runner is own
    monkeypatch.setenv("WSGICGI_RUNNER", "inprocess")
    assert create_app(place).config.runner == "inprocess"
    assert kind(create_app(place)._app) is InProcessRunner
    assert kind(CGIMiddleware(app, place, runner="spawn")) is SpawnRunner


@pytest.mark.parametrize("make", [create_app, lambda runner: CGIScript(__file__, runner=runner)])
def test_unknown_runner_is_told(make: Callable[..., object]) -> None:
    """In one sentence, with what there is."""
    expected = r"^runner='fork': expected 'spawn' \(a process each\), 'warm' .* or 'inprocess'"
    with pytest.raises(ConfigError, match=expected):
        make(runner="fork")


@pytest.mark.parametrize(
    ("platform", "name"),
    [("linux", "spawn"), ("darwin", "spawn"), ("win32", "spawn"), ("freebsd14", "spawn")]
    + [(platform, "inprocess") for platform in ("emscripten", "wasi", "ios", "tvos", "watchos", "android")],
)
def test_systems_without_processes_choose_by_themselves(platform: str, name: str) -> None:
    """Where Python's ``subprocess`` is documented not to work."""
    assert default_runner(platform) == name


# -- real servers


@pytest.fixture(params=["gunicorn", "waitress", "dev"])
def host(request: pytest.FixtureRequest, site: Site, tmp_path: Path) -> Iterator[Server]:
    """A server whose scripts run in it, in one process."""
    options = {"gunicorn": ("-w", "1"), "waitress": (), "dev": ("--runner", "inprocess")}[request.param]
    env = {"WSGICGI_RUNNER": "inprocess", "WSGICGI_TIMEOUT": "3"}
    with servers.serving(request.param, site.directory, tmp_path / "log", env=env, options=options) as server:
        yield server


def test_real_server_runs_scripts_in_its_process(host: Server, site: Site) -> None:
    """A form, an exit code, an exception, a script that is none, state, and others: one after the other."""
    site.python(
        "form.py",
        "import os, sys, urllib.parse\n"
        "data = sys.stdin.buffer.read(int(os.environ['CONTENT_LENGTH']))\n"
        "print('Content-Type: text/plain; charset=utf-8\\n')\n"
        "print(os.getpid(), urllib.parse.parse_qs(data.decode())['text'][0])\n",
    )
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    response, body = host.request("POST", "/cgi-bin/form.py", body="text=\u00c4nne+%26+Co".encode(), headers=form)
    pid, text = body.decode().split(maxsplit=1)
    assert (response.status, text) == (200, "\u00c4nne & Co\n")
    assert int(pid) in host.pids()
    assert len(host.request("POST", "/cgi-bin/form.py", body=b"text=" + b"x" * 2_000_000, headers=form)[1]) > 2_000_000

    site.python("exit.py", HEAD + "import sys; print('whole'); sys.exit(9)")
    assert host.get("/cgi-bin/exit.py")[1] == b"whole\n"
    wait_until(lambda: "/cgi-bin/exit.py: exited with status 9" in host.log, "the exit status is logged")

    site.python("broken.py", "import sys, os\nos.environ['LEFT'] = '1'\nos.chdir('/')\nsys.path.clear()\n1/0")
    assert host.get("/cgi-bin/broken.py")[0].status == 502
    assert "/cgi-bin/broken.py: ZeroDivisionError: division by zero" in host.log

    site.sh("shell", "echo Content-Type: text/plain; echo; echo no")
    assert host.get("/cgi-bin/shell")[0].status == 500
    assert f"{site.directory}/cgi-bin/shell is no Python script, and runner='inprocess' runs nothing else" in host.log

    report = json.loads(host.get("/cgi-bin/report.py/extra?x=1")[1])
    assert report["cwd"] == str(site.directory / "cgi-bin")
    assert "LEFT" not in report["environ"] if "environ" in report else "LEFT" not in report
    assert host.get("/cgi-bin/missing.py")[0].status == 404


def test_real_server_streams_from_its_process(host: Server, site: Site, tmp_path: Path) -> None:
    """The head and each piece at once, while the script runs."""
    go_on = tmp_path / "go-on"
    site.python(
        "stream.py",
        "import os, time\n" + HEAD + "print('first', flush=True)\n"
        f"while not os.path.exists({str(go_on)!r}): time.sleep(0.01)\nprint('last')",
    )
    with socket.create_connection((host.host, host.port), timeout=20) as sock:
        sock.sendall(b"GET /cgi-bin/stream.py HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = b""
        while b"first" not in data:
            piece = sock.recv(65536)
            assert piece, data
            data += piece
        go_on.touch()
        while piece := sock.recv(65536):
            data += piece
    assert b"last" in data


def test_real_server_takes_concurrent_requests_in_turns(host: Server, site: Site) -> None:
    """Each gets its own answer, with its own variables, though all come at once."""
    site.python(
        "who.py",
        "import os, sys, time\nbegin = os.environ['QUERY_STRING'], list(sys.argv)\ntime.sleep(0.01)\n"
        + HEAD
        + "assert begin == (os.environ['QUERY_STRING'], sys.argv)\nprint(begin[0], sys.stdin.read(), end='')",
    )
    answers: dict[int, bytes] = {}

    def ask(number: int) -> None:
        answers[number] = host.request("POST", f"/cgi-bin/who.py?n={number}", body=b"b%d" % number)[1]

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(60)
    assert answers == {number: b"n=%d b%d" % (number, number) for number in range(12)}


def test_real_server_ends_a_script_that_takes_too_long(host: Server, site: Site) -> None:
    """504, and the next one has its turn."""
    site.python("slow.py", "import time\nwhile True: time.sleep(0.01)")
    assert host.get("/cgi-bin/slow.py")[0].status == 504
    begin = time.monotonic()
    assert host.get("/cgi-bin/report.py")[0].status == 200
    assert time.monotonic() - begin < 9


def test_real_server_stops_while_a_script_runs(host: Server, site: Site, tmp_path: Path) -> None:
    """And the script cleans up."""
    clean, began = tmp_path / "clean", tmp_path / "began"
    site.python(
        "busy.py",
        f"import time\ntry:\n    open({str(began)!r}, 'w').close()\n    while True: time.sleep(0.01)\n"
        f"finally:\n    open({str(clean)!r}, 'w').close()",
    )
    with socket.create_connection((host.host, host.port)) as sock:
        sock.sendall(b"GET /cgi-bin/busy.py HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(began.exists, "the script runs")
        # waitress-serve leaves SIGTERM to the system, which ends a process without a last word
        host.stop(signal.SIGINT if "waitress" in str(host.process.args) else signal.SIGTERM)
        assert clean.exists()


@pytest.mark.root_only
def test_root_must_say_that_scripts_shall_be_its_own(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script in this process cannot be nobody."""
    monkeypatch.delenv("WSGICGI_RUN_AS")
    with pytest.raises(ConfigError, match="say run_as='none' if you mean that"):
        create_app(site.directory, runner="inprocess")


@pytest.mark.parametrize("name", ["max_cpu", "umask", "nice"])
def test_limits_of_processes_are_refused(site: Site, name: str) -> None:
    """They would hold the server."""
    with pytest.raises(ConfigError, match=f"{name}: runner='inprocess' cannot hold scripts to it"):
        create_app(site.directory, runner="inprocess", **{name: 10})
