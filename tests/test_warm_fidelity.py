# ruff: noqa: E501  # scripts are in one line of text
"""A script from a warm parent cannot tell it from ``python script.py``: both print the same, byte for byte.

Each script runs over ``spawn`` and over ``warm``, with everything imported beforehand that usual scripts import; what
they write to both streams and how they end is compared. The few differences that remain are in the README.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from servers import wait_until

from wsgicgi.runners import ExitStatus, Invocation, Restrictions, Runner, SpawnRunner, WarmRunner
from wsgicgi.runners.warmparent import WarmExecution

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")

PRELOADED = (
    "threading",
    "json",
    "html",
    "urllib.parse",
    "sqlite3",
    "datetime",
    "email.message",
    "logging",
    "random",
    "secrets",
    "tempfile",
    "uuid",
    "multiprocessing",
    "concurrent.futures",
    "asyncio",
    "subprocess",
    "wsgiref.handlers",
    "inspect",
    "traceback",
    "decimal",
)

MORE_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Case:
    """A script and how it is started."""

    text: str
    options: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    stdin: bytes | str = b""  # a text: the name of a file
    siblings: Mapping[str, str] = field(default_factory=dict)
    restrictions: Restrictions = Restrictions()
    is_warm: bool = True


@dataclass(frozen=True)
class Outcome:
    stdout: bytes
    stderr: bytes
    status: ExitStatus


def read_all(descriptor: int) -> bytes:
    data = b""
    while piece := os.read(descriptor, 65536):
        data += piece
    return data


def run(runner: Runner, script: Path, case: Case, preload: tuple[str, ...] | str = PRELOADED) -> tuple[Outcome, bool]:
    """Run a script; also whether it came from a warm parent."""
    if isinstance(case.stdin, str):
        stdin = os.open(case.stdin, os.O_RDONLY)
    else:
        stdin, write_end = os.pipe()
        os.write(write_end, case.stdin)
        os.close(write_end)
    try:
        metavars = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "QUERY_STRING": "a=b", **case.variables}
        argv = (str(script), *case.words)
        execution = runner.start(
            Invocation(
                argv=argv,
                metavars=metavars,
                cwd=str(script.parent),
                stdin=stdin,
                restrictions=case.restrictions,
                preload=preload,
            )
        )
    finally:
        os.close(stdin)
    errors: list[bytes] = []
    reader = threading.Thread(target=lambda: errors.append(read_all(execution.stderr)))
    reader.start()
    try:
        output = read_all(execution.stdout)
        reader.join()
        status = execution.wait(MORE_SECONDS)
        assert status is not None
    finally:
        execution.terminate()
        execution.close()
    return Outcome(output, errors[0], status), isinstance(execution, WarmExecution)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmRunner]:
    """A runner whose parent is ready, for all scripts that need nothing particular."""
    runner = WarmRunner()
    case = Case(text="pass")
    become_warm(runner, write(tmp_path_factory.mktemp("ready"), case), case)
    yield runner
    runner.close()


@pytest.fixture
def warm(case: Case, shared: WarmRunner, tmp_path: Path) -> Iterator[WarmRunner]:
    if not (case.options or case.variables) or not case.is_warm:
        yield shared
        return
    runner = WarmRunner()
    place = tmp_path / "ready"
    place.mkdir()
    become_warm(runner, write(place, Case(text="pass", options=case.options)), case)
    yield runner
    runner.close()


def write(directory: Path, case: Case) -> Path:
    for name, text in case.siblings.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    script = directory / "script.py"
    options = f" {case.options}" if case.options else ""
    script.write_text(f"#!{sys.executable}{options}\n{case.text}")
    script.chmod(0o755)
    return script


def become_warm(runner: WarmRunner, script: Path, case: Case) -> Outcome:
    """Run it until it comes from a warm parent."""
    found: list[Outcome] = []

    def is_warm() -> bool:
        outcome, from_parent = run(runner, script, case)
        found.append(outcome)
        return from_parent

    wait_until(is_warm, "the script is started warm", 60)
    return found[-1]


CASES: dict[str, Case] = {
    "hello": Case(text="print('hello')"),
    "names of the module": Case(
        text="""
print({k: v for k, v in globals().items() if k not in ('__builtins__', '__loader__')})
import sys
m = sys.modules['__main__']
print(m, m.__dict__ is globals(), type(__builtins__), type(__loader__), __loader__.name, __loader__.path)
print(sys.argv, sys.path, sys.orig_argv, sys.executable, sys.prefix, sys.base_prefix, sys.exec_prefix)
""",
        words=("one", "tw o", "\udcff"),
    ),
    "docstring and annotations": Case(text='"""doc"""\nx: int = 3\nprint(__doc__, __annotations__)'),
    "future": Case(text="from __future__ import annotations\ndef f(x: y): pass\nprint(f.__annotations__)"),
    "flags": Case(text="import sys; print(sys.flags, sys.warnoptions, sys._xoptions, sys.dont_write_bytecode)"),
    **{
        f"option {option}": Case(
            text="import sys; print(sys.flags, sys.warnoptions, sys._xoptions, sys.path, sys.orig_argv)\n"
            "assert print('assertions') or True\nprint(__doc__, sys.stdout.write_through, sys.stdin.write_through)\n"
            "import warnings; warnings.warn('hm', DeprecationWarning)\nprint(sys.getdefaultencoding(), sys.stdout.encoding)",
            options=option,
        )
        for option in (
            "-u",
            "-E",
            "-s",
            "-I",
            "-B",
            "-O",
            "-OO",
            "-bb",
            "-Wignore",
            "-Werror::UserWarning",
            "-P",
            "-uE",
        )
    },
    "option -X utf8": Case(text="import sys; print(sys.flags, sys._xoptions)", options="-Xutf8"),
    "options -X dev": Case(text="import sys; print(sys.flags, sys._xoptions)", options="-Xdev"),
    "environment": Case(
        text="import os; print(os.environ, os.environb, os.getcwd(), os.umask(0))\nos.system('env')\nprint(os.environ is"
        " __import__('posix').environ, list(__import__('posix').environ.items()))",
        variables={"HTTP_X": "\xff\xc3\xa9", "UNIQUE_ID": "0123456789", "EMPTY": "", "SCRIPT_NAME": "/x"},
    ),
    "environment is changed": Case(
        text="import os, subprocess\nos.environ['NEW'] = '1'\ndel os.environ['QUERY_STRING']\nprint(subprocess.run(['env'],"
        " capture_output=True).stdout)"
    ),
    "exit 3": Case(text="import sys; sys.exit(3)"),
    "exit 256": Case(text="import sys; sys.exit(256)"),
    "exit -1": Case(text="import sys; sys.exit(-1)"),
    # from 3.12 on this leaves an error behind, which the interpreter shows when it waits for threads
    "exit huge": Case(text="import sys; sys.exit(2**70)"),
    "exit True": Case(text="import sys; sys.exit(True)"),
    "exit None": Case(text="import sys; print('x'); sys.exit(None)"),
    "exit text": Case(text="import sys; print('out', end=''); sys.exit('no way: \\u20ac')"),
    "exit object": Case(text="import sys; sys.exit(['a', 1])"),
    "exit by raise": Case(text="raise SystemExit"),
    "exit by site": Case(text="print('x'); exit(4)"),
    "quit by site": Case(text="quit()"),
    "exit in a function": Case(text="import sys\ndef f():\n    f = open('/dev/null')\n    sys.exit(5)\nf()"),
    "os._exit": Case(text="import os; print('lost'); os._exit(3)"),
    "os.abort": Case(text="import os; os.abort()"),
    "killed": Case(text="import os; os.kill(os.getpid(), 9)"),
    "terminated": Case(text="import os; os.kill(os.getpid(), 15)"),
    "interrupted": Case(text="import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(1)"),
    "interrupted and handled": Case(
        text="import os, signal, time\ntry:\n    os.kill(os.getpid(), 2); time.sleep(1)\nexcept KeyboardInterrupt: print('k')"
    ),
    "broken pipe's signal": Case(text="import os, signal; signal.signal(13, signal.SIG_DFL); os.kill(os.getpid(), 13)"),
    "segmentation fault": Case(text="import ctypes; ctypes.string_at(0)"),
    "faulthandler": Case(text="import faulthandler, os; faulthandler.enable(); os.kill(os.getpid(), 11)"),
    "exception": Case(text="def f(x):\n    return 1 / x\n\nprint('before')\nf(0)"),
    "exception with carets": Case(text="a = {'b': [1]}\nprint(a['b'][3] + a['c'])"),
    "exception chain": Case(text="try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('x') from e"),
    "exception group": Case(text="raise ExceptionGroup('g', [ValueError(1), TypeError(2)])"),
    "exception with notes": Case(text="e = ValueError('v'); e.add_note('note'); raise e"),
    "exception in a sibling": Case(text="import sibling", siblings={"sibling.py": "x = 1\nx / 0"}),
    "exception through a sibling": Case(
        text="import sibling\nsibling.f()",
        siblings={"sibling.py": "def f():\n    g()\ndef g():\n    raise KeyError('k')"},
    ),
    "syntax error in a sibling": Case(text="import sibling", siblings={"sibling.py": "x = (\n"}),
    "import error": Case(text="import no_such_module"),
    "import error of a name": Case(text="from json import nothing"),
    "syntax error": Case(text="print('x'\nx = = 3", is_warm=False),
    "syntax warning": Case(text="print('x' is 'x')\nprint('\\d')", is_warm=False),
    "null byte": Case(text="x = '\0'", is_warm=False),
    "encoding cookie": Case(text="# -*- coding: utf-8 -*-\nprint('\xe9\u20ac')"),
    "keyboard interrupt raised": Case(text="raise KeyboardInterrupt('x')"),
    "generator exit": Case(text="raise GeneratorExit"),
    "memory error": Case(text="raise MemoryError"),
    "recursion": Case(
        text="def f(): f()\ntry: f()\nexcept RecursionError as e: print(e)\nimport sys; print(sys.getrecursionlimit())"
    ),
    "recursion uncaught": Case(text="def f(): f()\nf()"),
    "stack": Case(
        text="import sys, inspect, traceback\nprint(sys._getframe().f_back, len(inspect.stack()))\ntraceback.print_stack()\n"
        "print(sys.exc_info(), hasattr(sys, 'last_value'), hasattr(sys, 'last_traceback'))\n"
        "def f(): traceback.print_stack()\nf()"
    ),
    "warning": Case(
        text="import warnings\nwarnings.warn('hm')\nwarnings.warn('hm', stacklevel=2)\nprint(warnings.filters)"
    ),
    "deprecation warning": Case(text="import warnings\nwarnings.warn('old', DeprecationWarning)\n__import__('imp')"),
    "resource warning": Case(text="open('/dev/null')", options="-Wdefault"),
    "hooks": Case(
        text="import sys\nprint(sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__)\n"
        "sys.excepthook = lambda t, v, tb: print('hook', t, v, tb.tb_lineno, tb.tb_next)\n1/0"
    ),
    "excepthook fails": Case(text="import sys\ndef hook(*a): [][1]\nsys.excepthook = hook\n1/0"),
    "excepthook exits": Case(text="import sys\nsys.excepthook = lambda *a: sys.exit(7)\n1/0"),
    "excepthook is missing": Case(text="import sys\ndel sys.excepthook\n1/0"),
    "cgitb": Case(text="import cgitb; cgitb.enable(format='text'); a = 1; a/0", options="-Wignore"),
    "unraisable": Case(text="class A:\n    def __del__(self): 1/0\nA()\nprint('on')"),
    "unraisable with a hook": Case(
        text="import sys\nsys.unraisablehook = lambda a: print('unraisable', a.exc_value)\nclass A:\n"
        "    def __del__(self): 1/0\nA()\nprint('on')"
    ),
    "a hook of its own, and an exception": Case(
        text="import sys\nprint(sys.unraisablehook is sys.__unraisablehook__, type(sys), 'unraisablehook' in dir(sys))\n"
        "sys.unraisablehook = lambda a: print('unraisable', a.exc_value)\n1/0"
    ),
    "a hook of its own, and an exit": Case(text="import sys\nsys.unraisablehook = print\nsys.exit(6)"),
    "no hook": Case(text="import sys\ndel sys.unraisablehook\n1/0"),
    "atexit": Case(
        text="import atexit, sys\natexit.register(print, 'first registered')\n@atexit.register\ndef f(): 1/0\n"
        "atexit.register(lambda: print('last registered'))\natexit.register(lambda: sys.exit(9))\nprint('end')"
    ),
    "atexit after an exception": Case(text="import atexit\natexit.register(print, 'bye')\n1/0"),
    "finalizers": Case(
        text="class A:\n    def __init__(self, n): self.n = n\n    def __del__(self): print('del', self.n)\n"
        "a = A('a'); _b = A('b'); cycle = [A('c')]; cycle.append(cycle)\ndef f(): pass\nf.x = A('d')\nprint('end')"
    ),
    "finalizers after exit": Case(
        text="import sys\nclass A:\n    def __del__(self): print('del')\na = A()\ndef f():\n    b = A()\n    sys.exit(2)\nf()"
    ),
    "finalizer without modules": Case(
        text="import sys\nclass A:\n    def __del__(self, s=sys): print(s.modules, s.meta_path, s.path, s.argv)\na = A()"
    ),
    "unflushed file": Case(
        text="f = open('out.txt', 'w')\nf.write('data')\ndef g(): return f\nimport atexit, os\n"
        "print(os.path.getsize('out.txt'))"
    ),
    "threads": Case(
        text="import threading, time\ndef f():\n    time.sleep(.5); print('thread', threading.current_thread().name)\n"
        "threading.Thread(target=f).start()\nprint(threading.main_thread().name, threading.active_count())"
    ),
    "daemon thread": Case(
        text="import threading, time\nthreading.Thread(target=time.sleep, args=(300,), daemon=True).start()\nprint('x')"
    ),
    "exception in a thread": Case(
        text="import threading\nt = threading.Thread(target=lambda: 1/0)\nt.start(); t.join()"
    ),
    "exit in a thread": Case(text="import threading, sys\nt = threading.Thread(target=sys.exit)\nt.start(); t.join()"),
    "thread after exception": Case(
        text="import threading, time\ndef f():\n    time.sleep(.1); print('late')\nthreading.Thread(target=f).start()\n1/0"
    ),
    "executor": Case(
        text="from concurrent.futures import ThreadPoolExecutor\np = ThreadPoolExecutor(2)\nprint(list(p.map(str, range(3))))\n"
        "p.submit(print, 'more')"
    ),
    "multiprocessing fork": Case(
        text="import multiprocessing as m\ndef f(x): return x * x\nif __name__ == '__main__':\n"
        "    with m.get_context('fork').Pool(2) as p: print(p.map(f, [1, 2, 3]))\n    print(m.current_process().name)"
    ),
    "multiprocessing spawn": Case(
        text="import multiprocessing as m\nprint(__name__, flush=True)\ndef f(x): print(x, __name__)\nif __name__ == '__main__':\n"
        "    p = m.get_context('spawn').Process(target=f, args=(1,)); p.start(); p.join(); print(p.exitcode)"
    ),
    "multiprocessing forkserver": Case(
        text="import multiprocessing as m\ndef f(x): print('in', x, flush=True)\nif __name__ == '__main__':\n"
        "    p = m.get_context('forkserver').Process(target=f, args=(1,)); p.start(); p.join(); print(p.exitcode)"
    ),
    "pickle": Case(
        text="import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))) is A, A.__module__)"
    ),
    "asyncio": Case(
        text="import asyncio\nasync def f():\n    await asyncio.sleep(0.01)\n    p = await asyncio.create_subprocess_exec('echo', 'hi')\n"
        "    await p.wait()\n    return 5\nprint(asyncio.run(f()))"
    ),
    "fork": Case(
        text="import os, sys\nprint('before')\nsys.stdout.flush()\npid = os.fork()\nif pid == 0:\n    print('child'); sys.exit(4)\n"
        "print('status', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    ),
    "fork and fall off the end": Case(
        text="import os\npid = os.fork()\nprint('parent' if pid else 'child')\nif pid: os.waitpid(pid, 0)"
    ),
    "exec": Case(
        text="import os, sys\nprint('x', flush=True)\nos.execv('/bin/sh', ['sh', '-c', 'echo $QUERY_STRING; exit 5'])"
    ),
    "exec of itself": Case(
        text="import os, sys\nif len(sys.argv) == 1:\n    os.execv(sys.executable, [sys.executable, *sys.argv, 'again'])\nprint(sys.argv)"
    ),
    "subprocess": Case(
        text="import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'import sys; print(sys.path[1:], sys.flags)'],"
        " capture_output=True, text=True))\nsubprocess.run('cat; exit 3', shell=True)",
        stdin=b"input",
    ),
    "signals": Case(
        text="import signal\nprint([(s, signal.getsignal(s)) for s in sorted(signal.valid_signals())])\n"
        "print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.set_wakeup_fd(-1), signal.sigpending())\n"
        "print([l for l in open('/proc/self/status') if l.startswith(('Name', 'Threads', 'SigPnd', 'SigBlk', 'NoNewPrivs'))])"
    ),
    "descriptors": Case(
        text="import os, stat\nfor n in range(64):\n    try: print(n, stat.S_IFMT(os.fstat(n).st_mode), os.get_inheritable(n), os.get_blocking(n))\n"
        "    except OSError: pass\nprint(sorted(os.listdir('/proc/self/fd')))"
    ),
    "process": Case(
        text="import os, resource\nprint(os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid(), os.getcwd(), os.umask(0))\n"
        "print([(n, resource.getrlimit(getattr(resource, n))) for n in dir(resource) if n.startswith('RLIMIT')])\n"
        "print(os.getpriority(os.PRIO_PROCESS, 0), os.getuid(), os.getgroups(), os.sched_getaffinity(0))\n"
        "print(open('/proc/self/cmdline', 'rb').read(), open('/proc/self/comm').read())\n"
        "print(open('/proc/self/environ', 'rb').read())\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime, os.times().children_user)",
        words=("word",),
        variables={"UNIQUE_ID": "abc", "REMOTE_ADDR": "127.0.0.1"},
    ),
    "restrictions": Case(
        text="import os, resource\nprint([(n, resource.getrlimit(getattr(resource, n))) for n in dir(resource) if n.startswith('RLIMIT')"
        " and n != 'RLIMIT_NPROC'])\nprint(os.umask(0), os.getpriority(os.PRIO_PROCESS, 0))",
        restrictions=Restrictions(
            max_cpu=5, max_memory=2**30, max_processes=500, max_file_size=2**20, max_open_files=50, umask=0o27, nice=3
        ),
    ),
    "too much memory": Case(text="x = bytearray(2**30)", restrictions=Restrictions(max_memory=2**29)),
    "too much processor time": Case(text="while True: pass", restrictions=Restrictions(max_cpu=1)),
    "too large a file": Case(
        text="f = open('large', 'wb')\nf.write(bytes(2**21)); f.close()", restrictions=Restrictions(max_file_size=2**20)
    ),
    "nothing may be written": Case(
        text="f = open('large', 'wb', buffering=0)\nf.write(b'x')", restrictions=Restrictions(max_file_size=0)
    ),
    "too many files": Case(
        text="x = [open('/dev/null') for n in range(60)]", restrictions=Restrictions(max_open_files=40)
    ),
    "streams": Case(
        text="import sys\nfor n in ('stdin', 'stdout', 'stderr'):\n    s = getattr(sys, n)\n    print(s, s is getattr(sys, f'__{n}__'),"
        " s.encoding, s.errors, s.line_buffering, s.write_through, s.newlines, s.isatty(), s.fileno(), s.buffer, s.buffer.raw, s.mode)\n"
        "    print(s.seekable(), s.readable(), s.writable(), s.buffer.seekable(), s.buffer.raw.closefd, s.closed)"
    ),
    "what is no module among modules": Case(
        text="import json, sys\njson.no = sys.modules['no'] = type('No', (), {})\n"
        "class Lib: __slots__ = (); __class__ = type(json)\nsys.modules['lib'] = Lib()\nclass A:\n"
        "    def __del__(self): print('gone')\na = A()\nprint('there')",
    ),
    "streams on a file": Case(
        text="import sys\ns = sys.stdin\nprint(s, s.encoding, s.errors, s.seekable(), s.isatty(), s.buffer, s.buffer.raw, s.mode)\n"
        "print(s.readline(), s.tell(), s.seek(0), s.read(10), s.buffer.tell())",
        stdin=__file__,
    ),
    "streams on nothing": Case(
        text="import sys\ns = sys.stdin\nprint(s.seekable(), s.isatty(), s.buffer, s.mode, repr(s.read()))",
        stdin="/dev/null",
    ),
    **{
        f"encoding {' '.join(f'{k}={v}' for k, v in variables.items())}": Case(
            text="import sys, locale\nprint([(s.encoding, s.errors) for s in (sys.stdin, sys.stdout, sys.stderr)], sys.flags.utf8_mode)\n"
            "print(sys.getfilesystemencoding(), locale.getpreferredencoding(), locale.setlocale(locale.LC_ALL), ascii(input()))\n"
            "print('\\xe9')\nprint('\\udcff')",
            variables=variables,
            stdin=b"\xc3\xa9\xff\n",
        )
        for variables in (
            {"LANG": "C"},
            {"LANG": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            {"LANG": "C.UTF-8"},
            {"LC_ALL": "en_US.ISO-8859-1"},
            {"PYTHONIOENCODING": "latin-1:replace"},
            {"PYTHONUTF8": "1"},
        )
    },
    "PYTHON variables": Case(
        text="import sys\nprint(sys.flags, sys.path, sys.dont_write_bytecode, hash('x'), sys.warnoptions)",
        variables={
            "PYTHONPATH": "/nowhere:/usr/share",
            "PYTHONUNBUFFERED": "1",
            "PYTHONHASHSEED": "7",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONWARNINGS": "ignore",
        },
    ),
    "PYTHONPATH below the working directory": Case(
        text="import sibling; print(sibling.__file__)",
        variables={"PYTHONPATH": "lib"},
        siblings={"lib/sibling.py": ""},
        is_warm=False,
    ),
    "as much memory of variables as there is": Case(
        text="import os; print({name: len(value) for name, value in os.environ.items()})",
        variables={f"HTTP_X{number}": "x" * 40_000 for number in range(3)},
    ),
    "more than that": Case(
        text="import os; print({name: len(value) for name, value in os.environ.items()})",
        variables={f"HTTP_X{number}": "x" * 40_000 for number in range(4)},
        is_warm=False,
    ),
    "PYTHONINSPECT": Case(text="print('x')", variables={"PYTHONINSPECT": "1"}, is_warm=False),
    "time zone": Case(
        text="import time, datetime; print(time.tzname, time.localtime(0), datetime.datetime.fromtimestamp(0))",
        variables={"TZ": "Asia/Tokyo"},
    ),
    "input": Case(
        text="print(input('? '))\nprint(input())\ntry: input()\nexcept EOFError as e: print(repr(e))", stdin=b"a\r\nb\n"
    ),
    "stdin by lines": Case(text="import sys\nfor l in sys.stdin: print(repr(l))", stdin=b"a\r\nb\rc\nd"),
    "stdin bytes": Case(
        text="import sys\nprint(sys.stdin.buffer.read(3), sys.stdin.buffer.raw.read())", stdin=b"abcdef" * 2000
    ),
    "stdin by descriptor": Case(text="import os\nprint(os.read(0, 3), os.read(0, 100))", stdin=b"abcdef"),
    "stdin opened anew": Case(text="print(open('/dev/stdin').read())", stdin=b"abcdef"),
    "stdout opened anew": Case(text="open('/dev/stdout', 'w').write('x\\n'); open('/dev/stderr', 'w').write('y\\n')"),
    "stdout closed": Case(text="import sys\nprint('x')\nsys.stdout.close()\nprint('y', file=sys.stderr)"),
    "stdout closed and used": Case(text="import sys\nsys.stdout.close()\nprint('y')"),
    "descriptor 1 closed": Case(text="import os\nprint('x')\nos.close(1)"),
    "stdout replaced": Case(
        text="import sys, io\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, 'utf-16', newline='\\r\\n')\nprint('\\u20ac')"
    ),
    "stdout detached": Case(text="import sys\nb = sys.stdout.detach()\nb.write(b'bytes')"),
    "stdout reconfigured": Case(
        text="import sys\nsys.stdout.reconfigure(encoding='latin-1', line_buffering=True)\nprint('\\xe9')"
    ),
    "stdout is None": Case(text="import sys\nprint('x')\nsys.stdout = None\nprint('y')"),
    "stdout and stderr mixed": Case(
        text="import sys\nprint('a'); print('b', file=sys.stderr); sys.stdout.buffer.write(b'c'); sys.stderr.write('no newline')"
    ),
    "unencodable": Case(text="print('\\udc80\\ud800')", variables={"PYTHONIOENCODING": "utf-8"}),
    "large output": Case(
        text="import sys\nfor n in range(100): sys.stdout.write('x' * 99999)\nsys.stdout.buffer.write(b'y' * 10**6)"
    ),
    "buffering": Case(
        text="import os, sys\nprint('buffered')\nos.write(1, b'direct\\n')\nsys.stdout.write('y' * 9000)\nos.write(1, b'direct')"
    ),
    "argument clinic": Case(
        text="import argparse\np = argparse.ArgumentParser()\np.add_argument('x', type=int)\np.parse_args()",
        words=("a",),
    ),
    "logging": Case(
        text="import logging\nlogging.basicConfig(level=10, format='%(name)s %(pathname)s %(lineno)d %(funcName)s %(processName)s %(message)s')\n"
        "logging.info('x')\nlogging.getLogger('a').exception('y', stacklevel=1)\nlogging.warning('w')"
    ),
    "logging handler of memory": Case(
        text="import logging.handlers, sys\nh = logging.handlers.MemoryHandler(100, target=logging.StreamHandler(sys.stdout))\n"
        "logging.getLogger().addHandler(h)\nlogging.warning('at the end')"
    ),
    "gc": Case(text="import gc; print(gc.isenabled(), gc.get_threshold(), gc.garbage, gc.get_debug())"),
    "sys": Case(
        text="import sys\nprint(sys.meta_path, sys.path_hooks, sys.implementation, sys.byteorder, sys.getswitchinterval(), sys.gettrace(),"
        " sys.getprofile(), sys.get_asyncgen_hooks(), sys.is_finalizing(), sys.platlibdir, sys._git, sys.pycache_prefix, sys.api_version)"
    ),
    "builtins": Case(text="import builtins; print(sorted(vars(builtins)), sorted(dir()))"),
    "modules of a new interpreter": Case(
        text="import sys\nprint([n for n in ('cgi', 'xml', '_warden', 'wsgicgi', 'decimal_', 'forkserver') if n in sys.modules])"
    ),
    "runpy": Case(
        text="import runpy\nprint(runpy.run_path('other.py', run_name='other')['x'])",
        siblings={"other.py": "x = __name__"},
    ),
    "sibling": Case(
        text="import sibling, package.module, importlib\nprint(sibling, sibling.__file__, sibling.__spec__, package.module.x, sibling.__cached__)\n"
        "importlib.reload(sibling)\nimport inspect; print(inspect.getsource(sibling.f))",
        siblings={
            "sibling.py": "print('imported', __name__)\ndef f(): pass\n",
            "package/__init__.py": "",
            "package/module.py": "x = 7",
        },
    ),
    "sibling with the name of a loaded module": Case(
        text="import json; print(json)", siblings={"json.py": "x = 1"}, is_warm=False
    ),
    "directory with the name of a loaded module": Case(
        text="import json; print(json.dumps(1))", siblings={"json/data.txt": ""}
    ),
    "file with the name of a loaded module": Case(
        text="import json; print(json.dumps(1))", siblings={"json": "print('a script, which no import finds')"}
    ),
    "sibling beside a directory with the name of a loaded module": Case(
        text="import json; print(json.x)", siblings={"json.py": "x = 1", "json/data.txt": ""}, is_warm=False
    ),
    "package with the name of a loaded module": Case(
        text="import json; print(json.x)", siblings={"json/__init__.py": "x = 2"}, is_warm=False
    ),
    "no modules among sys.modules": Case(
        text="import sys\nclass Loud:\n    def __getattr__(self, name): raise KeyError(name)\n"
        "class Ending:\n    def __del__(self): print('end')\nsys.modules.update(a_class=Ending, loud=Loud())\nending = Ending()"
    ),
    "itself imported": Case(text="print(__name__)\nimport script"),
    "linecache": Case(
        text="import linecache, inspect, sys\ndef f():\n    return 1\nprint(inspect.getsource(f), linecache.getline(__file__, 2))"
    ),
    "locals at the top": Case(text="print(locals() is globals(), vars() is globals())"),
    "exec and eval": Case(text="exec('x = 1'); print(eval('x'), compile('1', 'f', 'eval').co_flags)"),
    "doctest": Case(text='"""\n>>> 1 + 1\n3\n"""\nimport doctest; doctest.testmod()'),
    "unittest": Case(
        text="import unittest, sys\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(1, 1)\n"
        "unittest.main(verbosity=0, exit=True, testRunner=unittest.TextTestRunner(stream=open('/dev/null', 'w')))"
    ),
    "tracing": Case(
        text="import sys\nn = []\nsys.settrace(lambda *a: n.append(a[1]))\ndef f(): pass\nf()\nsys.settrace(None)\nprint(n)"
    ),
    "contextvars": Case(text="import contextvars; print(list(contextvars.copy_context()))"),
    "dataclass, enum, typing": Case(
        text="import dataclasses, enum, typing\n@dataclasses.dataclass\nclass A: x: int = 1\nclass E(enum.Enum): A = 1\n"
        "print(A(), E.A, typing.get_type_hints(A), A.__module__, E.__module__, type('N', (), {}).__module__)\n"
        "import collections; print(collections.namedtuple('P', 'x').__module__)"
    ),
    "sqlite3": Case(
        text="import sqlite3\nc = sqlite3.connect('db')\nc.execute('create table t (x)')\nc.execute('insert into t values (1)')\nc.commit()\nprint(c.execute('select * from t').fetchall())"
    ),
    "form": Case(
        text="import cgi\nf = cgi.FieldStorage()\nprint(f, f.getfirst('name'), f['file'].filename, f['file'].file.read())",
        options="-Wignore",
        variables={
            "REQUEST_METHOD": "POST",
            "CONTENT_TYPE": "multipart/form-data; boundary=x",
            "CONTENT_LENGTH": "167",
        },
        stdin=b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nAda\r\n--x\r\nContent-Disposition: form-data; name="file";'
        b' filename="a.bin"\r\nContent-Type: image/png\r\n\r\n\x89\x00\r\n--x--\r\n\r\n'[:167].ljust(167, b" "),
    ),
    "wsgiref": Case(
        text="from wsgiref.handlers import CGIHandler\ndef app(environ, start_response):\n    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    yield repr(sorted((k, v) for k, v in environ.items() if k.isupper())).encode()\n    yield environ['wsgi.input'].read(4)\nCGIHandler().run(app)",
        variables={
            "REQUEST_METHOD": "POST",
            "CONTENT_LENGTH": "4",
            "SERVER_NAME": "x",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.0",
        },
        stdin=b"body",
    ),
    "wsgiref fails": Case(
        text="from wsgiref.handlers import CGIHandler\ndef app(environ, start_response):\n    1/0\nCGIHandler().run(app)",
        variables={"REQUEST_METHOD": "GET", "SERVER_NAME": "x", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.0"},
    ),
    "tempfile": Case(
        text="import tempfile, os\nwith tempfile.TemporaryDirectory() as d: print(os.path.isdir(d))\nt = tempfile.NamedTemporaryFile(); print(os.path.dirname(t.name))"
    ),
    "ssl": Case(text="import ssl; print(ssl.OPENSSL_VERSION, len(ssl.RAND_bytes(4)))"),
    "socket": Case(
        text="import socket\na, b = socket.socketpair()\na.send(b'x'); print(b.recv(1), a.fileno(), socket.getdefaulttimeout())"
    ),
    "alarm": Case(text="import signal, time\nsignal.alarm(1)\ntime.sleep(20)"),
    "child of a session of its own": Case(
        text="import subprocess\nprint(subprocess.run(['sh', '-c', 'echo in'], start_new_session=True, capture_output=True).stdout)"
    ),
    "wait for any child": Case(text="import os\ntry: os.wait()\nexcept ChildProcessError as e: print(e)"),
    "setrecursionlimit": Case(
        text="import sys\nsys.setrecursionlimit(5000)\ndef f(n): return n and f(n - 1)\nprint(f(4000))"
    ),
    "deleted modules": Case(text="import sys\nsys.modules.clear()\nprint('x')"),
    "main is deleted": Case(text="import sys\ndel sys.modules['__main__']\nprint('x', __name__)"),
    "raises in finalizer at the end": Case(text="class A:\n    def __del__(self): raise ValueError('late')\na = A()"),
    "exception with a broken str": Case(text="class E(Exception):\n    def __str__(self): raise ValueError\nraise E"),
    "timers and clocks": Case(text="import time; print(time.process_time() < 5, time.monotonic() > 0)"),
    "set of names": Case(text="print(sorted(k for k in dir() if not k.startswith('__')))"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_script_says_the_same_from_a_warm_parent(case: Case, warm: WarmRunner, tmp_path: Path) -> None:
    """Output, errors and the exit status are those of a new interpreter.

    The first two runs of a script come from a process that tells what it imports, the next from one that waited for it.
    """
    script = write(tmp_path, case)
    expected, cold_file = outcome(SpawnRunner(), script, case)
    for _ in range(2):
        actual, warm_file = outcome(warm, script, case)
        assert actual[1] == case.is_warm
        assert without_addresses(actual[0].stdout) == without_addresses(expected[0].stdout)
        assert without_addresses(actual[0].stderr) == without_addresses(expected[0].stderr)
        assert actual[0].status == expected[0].status
        assert warm_file == cold_file


def outcome(runner: SpawnRunner, script: Path, case: Case) -> tuple[tuple[Outcome, bool], bytes | None]:
    for left in ("out.txt", "db", "large"):
        (script.parent / left).unlink(missing_ok=True)
    return run(runner, script, case), contents(script.parent / "out.txt")


def contents(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def without_addresses(text: bytes) -> bytes:
    text = re.sub(rb"0x[0-9a-f]{6,}", b"0x", text)
    # from 3.14 on faulthandler shows calls in C as well
    text = re.sub(rb"(?s)(C stack trace \(.*?\)).*", rb"\1", text)
    # up to 3.11 the interpreter counts calls in C too, and a warm child has some more of them below it
    return re.sub(rb"repeated \d+ more times", b"repeated many times", text)
