# ruff: noqa: E501  # scripts are in one line of text
"""The runner ``warm`` on real servers: what it survives, what takes effect when, what goes the cold way."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import servers
from servers import Server, wait_until
from sites import Site
from test_warm_fidelity import PRELOADED, Case, become_warm, read_all, run, write
from werkzeug.test import create_environ, run_wsgi_app

from wsgicgi import CGIMiddleware
from wsgicgi.exchange import Exchange
from wsgicgi.runners import Execution, SpawnRunner, WarmRunner
from wsgicgi.runners.base import ExitStatus, Identity, Invocation, Restrictions
from wsgicgi.runners.shebang import Command, parse, plan
from wsgicgi.runners.warmparent import WarmExecution

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

HEAD = "print('Content-Type: text/plain\\n')\n"
# A script tells by its parent where it comes from.
ORIGIN = (
    HEAD + "import os\nprint('warm' if b'_zygote' in open(f'/proc/{os.getppid()}/cmdline', 'rb').read() else 'cold')\n"
)


def parents_of(pid: int) -> list[int]:
    """The warm parents among a process's descendants."""
    found = []
    for each in servers.descendants(pid):
        with contextlib.suppress(OSError):
            if b"_zygote.py" in Path(f"/proc/{each}/cmdline").read_bytes():
                found.append(each)
    return found


def text_of(server: Server, target: str) -> str:
    response, body = server.get(target)
    assert response.status == 200, (response.status, body, server.log)
    return body.decode()


def wait_until_warm(server: Server, target: str = "/cgi-bin/origin.py") -> None:
    """Until several in a row are warm: each worker of a server has a parent of its own."""
    wait_until(lambda: all("warm" in text_of(server, target) for _ in range(6)), "scripts are warm", 60)


@contextlib.contextmanager
def warm_server(kind: str, site: Site, tmp_path: Path, *options: str, **env: str) -> Iterator[Server]:
    settings = {"WSGICGI_RUNNER": "warm", "WSGICGI_PRELOAD": "none", **env}
    site.python("origin.py", ORIGIN)
    with servers.serving(kind, site.directory, tmp_path / "server.log", settings, options) as server:
        yield server


# -- on servers


@pytest.mark.parametrize("kind", ["gunicorn", "gunicorn-gevent", "waitress"])
def test_scripts_are_warm_on_each_server(kind: str, site: Site, tmp_path: Path) -> None:
    """Each worker starts its parent when it needs it; other programs run as ever; nothing outlives the server."""
    site.sh("shell", "echo 'Content-Type: text/plain'; echo; echo shell")
    with warm_server(kind, site, tmp_path) as server:
        assert parents_of(server.process.pid) == []
        assert text_of(server, "/cgi-bin/shell") == "shell\n"
        wait_until_warm(server)
        assert text_of(server, "/cgi-bin/shell") == "shell\n"
        left = server.pids()
        server.stop()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left), "all processes have ended", 15)


def test_a_parent_dies_with_a_worker_that_is_killed(site: Site, tmp_path: Path) -> None:
    """It sees the end of its socket; so do the scripts that it runs."""
    site.python("sleep.py", HEAD + "import sys, time\nsys.stdout.flush()\ntime.sleep(300)")
    with warm_server("gunicorn", site, tmp_path, "-w", "1") as server:
        wait_until_warm(server)
        connection = server.connection()
        connection.request("GET", "/cgi-bin/sleep.py")
        connection.getresponse()
        [worker] = [pid for pid in servers.descendants(server.process.pid) if parent_of(pid) == server.process.pid]
        below = [pid for pid in servers.descendants(worker) if pid != worker]
        assert parents_of(worker)
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not any(is_alive(pid) for pid in below), "the parent and its script have ended", 15)
        connection.close()
        wait_until_warm(server)


def parent_of(pid: int) -> int:
    """0 for one that has just ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_workers_are_reloaded_while_scripts_run(site: Site, tmp_path: Path) -> None:
    """A request that has begun is answered, and new workers have new parents."""
    site.python(
        "slow.py",
        HEAD
        + "import sys, time, os\nprint('begin', flush=True)\nwhile not os.path.exists('go'): time.sleep(.02)\nprint('end')",
    )
    with warm_server("gunicorn", site, tmp_path, "--graceful-timeout", "90") as server:
        wait_until_warm(server)
        before = parents_of(server.process.pid)
        connection = server.connection()
        connection.request("GET", "/cgi-bin/slow.py")
        response = connection.getresponse()
        assert response.readline() == b"begin\n"
        os.kill(server.process.pid, signal.SIGHUP)
        wait_until_warm(server)
        site.file("cgi-bin/go", "")
        assert response.read() == b"end\n"
        connection.close()
        wait_until(lambda: not any(map(is_alive, before)), "the old parents have ended", 20)


def test_no_request_is_lost_when_parents_are_killed(site: Site, tmp_path: Path) -> None:
    """What had not begun begins the cold way; what runs is told by 502, or breaks off; another parent takes its place."""
    site.python("short.py", HEAD + "print('whole answer')")
    answers: list[tuple[int, bytes]] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                response, body = server.get("/cgi-bin/short.py")
            except (http.client.HTTPException, ConnectionError):  # its head was sent; how it ends nobody can tell
                answers.append((502, b""))
            else:
                answers.append((response.status, body))

    with warm_server("gunicorn", site, tmp_path) as server:
        wait_until_warm(server)
        clients = [threading.Thread(target=ask) for _ in range(4)]
        for each in clients:
            each.start()
        for _ in range(4):
            victims = parents_of(server.process.pid)
            count = len(answers)
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            wait_until(lambda count=count: len(answers) > count + 20, "requests are answered", 30)  # type: ignore[misc]
            wait_until(lambda: parents_of(server.process.pid), "another parent has started", 30)
        stop.set()
        for each in clients:
            each.join()
        assert "the warm parent of scripts has gone (killed?); another takes its place" in server.log
    assert {status for status, _ in answers} <= {200, 502}
    assert all(body == b"whole answer\n" for status, body in answers if status == 200)
    failed = sum(status != 200 for status, _ in answers)
    assert failed <= 4 * 4 * 2  # those that were running at a kill


def test_a_process_that_waits_for_a_script_may_be_killed(site: Site, tmp_path: Path) -> None:
    """Then another is forked; and it never runs what has changed since it was made."""
    script = site.python("short.py", HEAD + "print('one')")

    def waiting() -> list[int]:
        return [pid for pid in parents_of(parent) if pid != parent]

    with warm_server("waitress", site, tmp_path) as server:
        wait_until_warm(server)
        found = parents_of(server.process.pid)
        [parent] = [pid for pid in found if parent_of(pid) not in found]
        for _ in range(4):
            assert text_of(server, "/cgi-bin/short.py") == "one\n"
        killed: set[int] = set()
        for _ in range(3):
            wait_until(lambda: set(waiting()) - killed, "a process waits")
            killed.update(waiting())
            for pid in killed:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert text_of(server, "/cgi-bin/short.py") == "one\n"
        wait_until(waiting, "a process waits")
        for number in range(3):
            script.write_text(script.read_text().replace("print('", f"print('{number}"))
            assert text_of(server, "/cgi-bin/short.py").startswith(str(number))
        assert is_alive(parent)


def test_scripts_of_several_directories_take_turns(site: Site, tmp_path: Path) -> None:
    """A process that waited has the directory of the script that it gets, and keeps none until then."""
    for name in ("a", "b"):
        site.python(f"{name}/where.py", HEAD + "import os\nprint(os.getcwd())")

    def are_at_the_root() -> bool:
        with contextlib.suppress(OSError):  # one has just ended
            return {os.readlink(f"/proc/{pid}/cwd") for pid in parents_of(server.process.pid)} == {"/"}
        return False

    with warm_server("waitress", site, tmp_path) as server:
        for name in "ababab":
            wait_until_warm(server)
            expected = f"{site.directory}/cgi-bin/{name}"
            assert text_of(server, f"/cgi-bin/{name}/where.py").split() == [expected]
        wait_until(lambda: len(parents_of(server.process.pid)) == 2, "a process waits")
        wait_until(are_at_the_root, "both are at the root")


def test_limits_are_told_as_for_other_scripts(site: Site, tmp_path: Path) -> None:
    """Statuses and lines of the log are the same as with ``spawn``."""
    site.python("cpu.py", "while True: pass")
    site.python("memory.py", "x = bytearray(2**30)")
    site.python("files.py", "x = [open('/dev/null') for _ in range(60)]")
    limits = {"WSGICGI_MAX_CPU": "1", "WSGICGI_MAX_MEMORY": "512M", "WSGICGI_MAX_OPEN_FILES": "40"}
    found = []
    for runner in ("spawn", "warm"):
        (tmp_path / runner).mkdir()
        with warm_server("waitress", site, tmp_path / runner, **limits, WSGICGI_RUNNER=runner) as server:
            if runner == "warm":
                wait_until_warm(server)
            server.begin_log()
            statuses = [server.get(f"/cgi-bin/{name}.py")[0].status for name in ("cpu", "memory", "files")]
            wait_until(lambda: "max_open_files" in server.log, "the log has all")
            lines = [line for line in server.log.splitlines() if "max_" in line]
            told = [re.sub(r"\[[0-9a-f]{16}\]", "", line.partition("/cgi-bin")[2]) for line in lines]
            found.append((statuses, [line.replace(runner, "runner") for line in told]))
    assert found[0] == found[1]
    assert len(found[0][1]) == 3
    assert all(status >= 500 for status in found[0][0])


@pytest.mark.root_only
def test_scripts_of_other_identities_have_parents_of_their_own(site: Site, tmp_path: Path) -> None:
    """A parent runs as its scripts do, from its first instruction on."""
    for each in (site.directory, *site.directory.parents):
        if str(each).startswith(("/tmp/", str(tmp_path.parent.parent))):
            each.chmod(0o755)
    text = ORIGIN + "print(os.getresuid(), os.getresgid(), os.getgroups())"
    site.script("identity.py", "#!/usr/bin/python3\n" + text)
    runner = WarmRunner()
    script = site.directory / "cgi-bin" / "identity.py"
    found: list[bytes] = []

    def is_warm() -> bool:
        found.append(output_as_nobody(runner, script))
        return b"warm" in found[-1]

    wait_until(is_warm, "it is warm", 30)
    assert found[0].replace(b"cold", b"warm") == found[-1]
    assert b"(65534, 65534, 65534) (65534, 65534, 65534) [65534]" in found[-1]
    [parents] = runner._parents.values()
    assert parents._current is not None
    assert b"\nUid:\t65534\t65534\t65534\t65534\n" in Path(f"/proc/{parents._current.pid}/status").read_bytes()
    runner.close()


@pytest.mark.root_only
def test_a_directory_that_may_not_be_listed_is_no_hindrance(warm: WarmRunner, site: Site) -> None:
    """Mode 711: scripts run, but an import finds nothing beside them, warm or cold."""
    for each in (site.directory, *site.directory.parents):
        if str(each).startswith("/tmp/"):
            each.chmod(0o755)
    site.script("origin.py", "#!/usr/bin/python3\n" + ORIGIN + "try: import sibling\nexcept ImportError as e: print(e)")
    site.script("sibling.py", "")
    directory = site.directory / "cgi-bin"
    directory.chmod(0o711)
    found: list[bytes] = []

    def is_warm() -> bool:
        found.append(output_as_nobody(warm, directory / "origin.py"))
        return b"warm" in found[-1]

    wait_until(is_warm, "it is warm", 30)
    assert {output.replace(b"cold", b"warm") for output in found} == {
        b"Content-Type: text/plain\n\nwarm\nNo module named 'sibling'\n"
    }


def output_as_nobody(runner: WarmRunner, script: Path) -> bytes:
    null = os.open(os.devnull, os.O_RDONLY)
    execution = runner.start(
        Invocation(
            argv=(str(script),),
            metavars={"PATH": os.environ["PATH"]},
            cwd=str(script.parent),
            stdin=null,
            identity=Identity(uid=65534, gid=65534, groups=(65534,)),
        )
    )
    os.close(null)
    with os.fdopen(os.dup(execution.stdout), "rb") as stream:
        output = stream.read()
    assert execution.wait(20) == ExitStatus()
    execution.close()
    return output


# -- what takes effect when


@pytest.fixture
def warm() -> Iterator[WarmRunner]:
    runner = WarmRunner()
    yield runner
    runner.close()


def test_a_changed_script_is_in_effect_with_the_next_request(warm: WarmRunner, tmp_path: Path) -> None:
    """Also one of the same size, in the same moment, or that was replaced."""
    script = write(tmp_path, Case(text="print(1)"))
    become_warm(warm, script, Case(text=""))
    for number in range(2, 9):
        if number % 2:
            write(tmp_path, Case(text=f"print({number})"))
        else:
            (tmp_path / "new").write_text(f"#!{sys.executable}\nprint({number})")
            (tmp_path / "new").chmod(0o755)
            os.replace(tmp_path / "new", script)
        assert run(warm, script, Case(text=""))[0].stdout == f"{number}\n".encode()
    script.chmod(0o644)
    with pytest.raises(PermissionError):
        run(warm, script, Case(text=""))
    script.unlink()
    with pytest.raises(FileNotFoundError):
        run(warm, script, Case(text=""))


def test_a_changed_module_of_the_scripts_directory_is_in_effect(warm: WarmRunner, tmp_path: Path) -> None:
    """Its code is kept in the parent, as long as the file is the same."""
    case = Case(text="import sibling; print(sibling.x)", siblings={"sibling.py": "x = 1"})
    script = write(tmp_path, case)
    for _ in range(4):
        become_warm(warm, script, case)
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    assert run(warm, script, case)[0].stdout == b"1\n"
    assert not (tmp_path / "__pycache__").exists()  # nothing was compiled
    (tmp_path / "sibling.py").write_text("x = 22222")
    outcome, is_warm = run(warm, script, case)
    assert (outcome.stdout, is_warm) == (b"22222\n", True)


def package(site_packages: Path, name: str, text: str) -> Path:
    file = site_packages / f"{name}.py"
    file.write_text(text)
    return file


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A virtual environment without anything."""
    place = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    return place


def in_venv(venv: Path, text: str, name: str = "script.py") -> Path:
    script = venv.parent / name
    script.write_text(f"#!{venv}/bin/python\n{text}")
    script.chmod(0o755)
    return script


def site_packages(venv: Path) -> Path:
    return venv / f"lib/python3.{sys.version_info[1]}/site-packages"


def until_warm(runner: WarmRunner, script: Path, preload: tuple[str, ...] | str) -> bytes:
    """Run a script until it is warm; what it wrote then."""
    found: list[bytes] = []

    def is_warm() -> bool:
        outcome, from_parent = run(runner, script, Case(text=""), preload)
        assert outcome.status == ExitStatus(), outcome
        found.append(outcome.stdout)
        return from_parent

    wait_until(is_warm, "the script is warm", 60)
    return found[-1]


def test_a_changed_preloaded_module_is_in_effect_with_the_next_request(venv: Path, warm: WarmRunner) -> None:
    """The parent that has the old one starts nothing any more."""
    file = package(site_packages(venv), "mine", "x = 1")
    script = in_venv(venv, "import sys\nwas_there = 'mine' in sys.modules\nimport mine; print(mine.x, was_there)")
    assert until_warm(warm, script, ("mine",)) == b"1 True\n"
    file.write_text("x = 22")  # of another size: a compiled file tells only so states of one second apart
    assert run(warm, script, Case(text=""), ("mine",))[0].stdout == b"22 False\n"
    assert until_warm(warm, script, ("mine",)) == b"22 True\n"


def test_a_replaced_interpreter_is_in_effect_with_the_next_request(venv: Path, warm: WarmRunner) -> None:
    """A virtual environment that is made anew, of another version say, has other parents."""
    script = in_venv(venv, "import sys; print(sys.executable, sys.flags.isolated, 'site' in sys.modules, sys.prefix)")
    before = until_warm(warm, script, ())
    (venv / "pyvenv.cfg").write_text((venv / "pyvenv.cfg").read_text() + "\nprompt = new\n")
    outcome, is_warm = run(warm, script, Case(text=""), ())
    assert (outcome.stdout, is_warm) == (before, False)
    assert until_warm(warm, script, ()) == before


# -- modules


def test_what_scripts_import_is_learned(venv: Path, warm: WarmRunner) -> None:
    """From the standard library and installed packages; never what is in the script's own directory."""
    package(site_packages(venv), "installed", "")
    (venv.parent / "own.py").write_text("")
    script = in_venv(
        venv,
        "import sys\nthere = [n for n in ('installed', 'own', 'csv') if n in sys.modules]\nimport installed, own, csv\nprint(there)",
    )
    seen = []

    def has_learned() -> bool:
        seen.append(run(warm, script, Case(text=""), "learn")[0].stdout)
        return seen[-1] == b"['installed', 'csv']\n"

    wait_until(has_learned, "modules are learned", 60)
    assert seen[0] == b"[]\n"
    assert not any(b"own" in line for line in seen)


@pytest.mark.parametrize("in_module", [False, True], ids=["script", "module-of-its"])
def test_a_script_with_modules_elsewhere_gets_these(in_module: bool, venv: Path, warm: WarmRunner) -> None:
    """One that is kept warm since another script uses it is not taken in the place of its own (vendored libraries)."""
    package(site_packages(venv), "both", "whose = 'installed'")
    other = in_venv(
        venv, "import sys; there = 'both' in sys.modules; import both; print(both.whose, there)", "other.py"
    )
    (venv.parent / "vendored").mkdir()
    package(venv.parent / "vendored", "both", "whose = 'its own'")
    add = f"import sys\nsys.path.insert(0, {str(venv.parent / 'vendored')!r})\n"
    package(venv.parent, "settings", add)
    script = in_venv(venv, f"{'import settings' if in_module else add}\nimport both; print(both.whose)")
    assert until_warm(warm, script, "learn") == b"its own\n"

    def is_kept() -> bool:
        assert run(warm, script, Case(text=""), "learn")[0].stdout == b"its own\n"
        return run(warm, other, Case(text=""), "learn")[0].stdout == b"installed True\n"

    wait_until(is_kept, "the installed one is kept warm", 60)
    assert until_warm(warm, script, "learn") == b"its own\n"


@pytest.mark.parametrize("place", ["elsewhere", "{directory}/elsewhere", "missing"])
def test_a_script_with_modules_elsewhere_gets_what_was_learned(place: str, venv: Path, warm: WarmRunner) -> None:
    """As long as nothing there has the name of a module that is kept: this is looked for with each request."""
    package(site_packages(venv), "installed", "whose = 'installed'")
    (venv.parent / "elsewhere").mkdir()
    package(venv.parent / "elsewhere", "its_own", "")
    text = "import sys\nthere = [n for n in ('installed', 'its_own', 'csv') if n in sys.modules]\n"
    text += f"sys.path.insert(0, {place.format(directory=venv.parent)!r})\nimport installed, csv\nfrom contextlib import suppress\n"
    script = in_venv(venv, text + "with suppress(ImportError): import its_own\nprint(there, installed.whose)")
    seen = []

    def has_learned() -> bool:
        seen.append(run(warm, script, Case(text=""), "learn")[0].stdout)
        return seen[-1] == b"['installed', 'csv'] installed\n"

    wait_until(has_learned, "modules are learned", 60)
    assert not any(b"its_own" in line for line in seen)
    if place == "missing":  # until now
        with zipfile.ZipFile(venv.parent / place, "w") as archive:
            archive.writestr("installed.py", "whose = 'its own'")
    else:
        package(venv.parent / "elsewhere", "installed", "whose = 'its own'")
    assert run(warm, script, Case(text=""), "learn")[0].stdout == b"[] its own\n"
    assert until_warm(warm, script, "learn") == b"[] its own\n"


@pytest.mark.parametrize(
    "change",
    [
        "sys.path = sys.path[1:] + [here]",
        "sys.path.insert(0, sys.path.pop())",
        "sys.path.append(b'bytes')",
        "sys.path.append(here + '/archive')",
        "import os; os.chdir('/'); sys.path.append('tmp')",
    ],
    ids=["less", "other-order", "no-text", "archive", "elsewhere"],
)
def test_a_script_that_does_more_to_its_path_gets_nothing_that_was_learned(
    change: str, venv: Path, warm: WarmRunner
) -> None:
    """Where its modules come from then is not for us to foresee."""
    (venv.parent / "archive").write_bytes(b"")
    other = in_venv(venv, "import sys; print('csv' in sys.modules); import csv", "other.py")
    begin = "import sys; print('csv' in sys.modules); import csv\nhere = sys.path[0]\n"
    script = in_venv(venv, begin + change)

    def is_kept() -> bool:
        assert run(warm, script, Case(text=""), "learn")[0].stdout == b"False\n"
        return run(warm, other, Case(text=""), "learn")[0].stdout == b"True\n"

    wait_until(is_kept, "the module is kept warm", 60)
    for _ in range(3):  # it has told by now
        assert until_warm(warm, script, "learn") == b"False\n"


def test_a_script_that_only_reads_its_path_gets_what_was_learned(venv: Path, warm: WarmRunner) -> None:
    """As its first run has shown."""
    script = in_venv(venv, "import sys; print('csv' in sys.modules, len(sys.path) > 1); import csv")
    wait_until(
        lambda: run(warm, script, Case(text=""), "learn")[0].stdout == b"True True\n", "the module is learned", 60
    )


def test_the_code_of_modules_below_and_elsewhere_is_kept(venv: Path, warm: WarmRunner) -> None:
    """What may not be written beside them is not compiled with each request; and what has changed is read anew."""
    below, elsewhere = venv.parent / "below", venv.parent.parent / "elsewhere"
    for directory in (below, elsewhere):
        directory.mkdir()
    package(below, "__init__", "")
    package(below, "one", "x = 1")
    package(elsewhere, "other", "x = 1")
    text = "import sys; sys.dont_write_bytecode = True; compiled = []\n"
    text += "sys.addaudithook(lambda event, args: compiled.append(args[1]) if event == 'compile' else None)\n"
    text += f"sys.path.insert(0, {str(elsewhere)!r}); import below.one, other\n"
    script = in_venv(venv, text + "print(below.one.x, other.x, len(compiled))")
    wait_until(lambda: run(warm, script, Case(text=""), "learn")[0].stdout == b"1 1 0\n", "their code is kept", 60)
    package(elsewhere, "other", "x = 22")
    assert run(warm, script, Case(text=""), "learn")[0].stdout.startswith(b"1 22 ")
    wait_until(lambda: run(warm, script, Case(text=""), "learn")[0].stdout == b"1 22 0\n", "the new code is kept", 60)


@pytest.mark.parametrize("in_module", [False, True], ids=["script", "module-of-its"])
def test_a_script_whose_path_depends_on_the_request_gets_its_modules(
    in_module: bool, venv: Path, warm: WarmRunner
) -> None:
    """From the first such request on: one that changes its path in a block gets nothing that was learned."""
    package(site_packages(venv), "both", "whose = 'installed'")
    (venv.parent / "vendored").mkdir()
    package(venv.parent / "vendored", "both", "whose = 'its own'")
    other = in_venv(venv, "import sys; print('both' in sys.modules); import both", "other.py")
    add = "import os, sys\nif os.environ['QUERY_STRING'] == 'own':\n"
    add += f"    sys.path.insert(0, {str(venv.parent / 'vendored')!r})\n"
    package(venv.parent, "settings", add)
    script = in_venv(venv, f"{'import settings' if in_module else add}\nimport both; print(both.whose)")

    def is_kept() -> bool:
        assert run(warm, script, Case(text=""), "learn")[0].stdout == b"installed\n"
        return run(warm, other, Case(text=""), "learn")[0].stdout == b"True\n"

    wait_until(is_kept, "the installed one is kept warm", 60)
    for query, expected in [("own", b"its own\n"), ("", b"installed\n"), ("own", b"its own\n")]:
        case = Case(text="", variables={"QUERY_STRING": query})
        assert run(warm, script, case, "learn")[0].stdout == expected


def until_learned(runner: WarmRunner, venv: Path, name: str) -> None:
    """Run a script that imports a module until the module is kept warm."""
    other = in_venv(venv, f"import sys; print({name!r} in sys.modules); import {name}", "other.py")
    wait_until(lambda: run(runner, other, Case(text=""), "learn")[0].stdout == b"True\n", "the module is kept warm", 60)


@pytest.mark.parametrize("file", ["optional.py", "optional/__init__.py"])
def test_a_module_that_a_library_looks_for_is_the_scripts_own(file: str, venv: Path, warm: WarmRunner) -> None:
    """A library that was imported where there was no such module has done without it."""
    text = "try: import optional\nexcept ImportError: found = 'nothing'\nelse: found = optional.found"
    package(site_packages(venv), "installed", text)
    until_learned(warm, venv, "installed")
    script = in_venv(venv, "import installed; print(installed.found)")
    assert until_warm(warm, script, "learn") == b"nothing\n"
    (venv.parent / file).parent.mkdir(exist_ok=True)
    (venv.parent / file).write_text("found = 'its own'")
    assert run(warm, script, Case(text=""), "learn")[0].stdout == b"its own\n"
    assert until_warm(warm, script, "learn") == b"its own\n"


@pytest.mark.parametrize(
    "change",
    ["os.environ['PLACE'] = 'its own'", "os.environ.setdefault('PLACE', 'its own')", "import settings"],
    ids=["set", "setdefault", "module-of-its"],
)
def test_a_variable_that_a_script_sets_is_there_for_libraries(change: str, venv: Path, warm: WarmRunner) -> None:
    """Also for those that are kept warm and have read it at their import."""
    package(site_packages(venv), "installed", "import os; place = os.environ.get('PLACE')")
    package(venv.parent, "settings", "import os; os.environ['PLACE'] = 'its own'")
    script = in_venv(venv, f"import os; {change}; import installed; print(installed.place)")
    for _ in range(3):
        assert until_warm(warm, script, "learn") == b"its own\n"
    until_learned(warm, venv, "installed")
    if change != "import settings":
        assert run(warm, script, Case(text=""), "learn")[0].stdout == b"its own\n"
    run(warm, script, Case(text=""), "learn")  # which may show it
    for _ in range(3):
        assert until_warm(warm, script, "learn") == b"its own\n"


@pytest.mark.parametrize(
    "act", ["os.environ.update(PLACE=query)", "getattr(sys, 'path').insert(0, query)"], ids=["variable", "path"]
)
def test_a_script_that_turns_out_to_be_otherwise_with_a_request_gets_nothing_learned(
    act: str, venv: Path, warm: WarmRunner
) -> None:
    """What its text does not show, and its first runs have not shown, is seen when it is done."""
    (venv.parent / "vendored").mkdir()
    package(venv.parent / "vendored", "installed", "place = 'vendored'")
    package(site_packages(venv), "installed", "import os; place = os.environ.get('PLACE')")
    text = "import os, sys; there = 'installed' in sys.modules; query = os.environ['QUERY_STRING']\n"
    text += f"if query: {act}\nimport installed; print(there, installed.place)"
    script = in_venv(venv, text)
    no_query = Case(text="", variables={"QUERY_STRING": ""})
    wait_until(lambda: run(warm, script, no_query, "learn")[0].stdout == b"True None\n", "the module is kept", 60)
    for _ in range(4):  # its first runs under this parent, which tell more
        run(warm, script, no_query, "learn")
    query = Case(text="", variables={"QUERY_STRING": str(venv.parent / "vendored")})
    expected = query.variables["QUERY_STRING"] if "PLACE" in act else "vendored"
    wait_until(
        lambda: run(warm, script, query, "learn")[0].stdout.decode() == f"False {expected}\n", "it gets its own", 60
    )
    for _ in range(4):
        assert run(warm, script, no_query, "learn")[0].stdout == b"False None\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import os; seen = os.environ.get('QUERY_STRING')", "it reads QUERY_STRING, which is the request's"),
        ("import os; os.environ['SET'] = seen = 'x'", "it changes environment variables"),
    ],
    ids=["reads", "sets"],
)
def test_a_library_that_uses_variables_at_its_import_is_left_to_the_scripts(
    text: str, reason: str, venv: Path, warm: WarmRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """They find in each process what they would find in a new interpreter."""
    package(site_packages(venv), "installed", text)
    script = in_venv(
        venv, "import os, installed; print(os.environ['QUERY_STRING'], installed.seen, os.environ.get('SET'))"
    )

    def is_told() -> bool:
        for query in "ab":
            case = Case(text="", variables={"QUERY_STRING": query})
            expected = f"{query} {query} None\n" if "reads" in reason else f"{query} x x\n"
            assert run(warm, script, case, "learn")[0].stdout.decode() == expected
        return f"installed is not kept warm: {reason}" in caplog.text

    wait_until(is_told, "the module is left out", 60)


def test_what_modules_take_of_the_time_and_the_variables_is_the_scripts(venv: Path, warm: WarmRunner) -> None:
    """The time that ``logging`` counts from; what ``wsgiref`` knows of the request; nothing of the parent's own."""
    package(site_packages(venv), "installed", "import os; seen = [n for n in os.environ if n.startswith('LD_')]")
    text = "import os; os.environ['PATH'] = os.environ['PATH']\nimport logging, wsgiref.handlers as h, installed\nbegin = float(os.environ['QUERY_STRING'])\n"
    text += "start = logging._startTime / (1e9 if isinstance(logging._startTime, int) else 1)\n"
    text += "print(start >= begin, h.BaseHandler.os_environ == dict(os.environ), installed.seen)"
    script = in_venv(venv, text)
    preload = ("logging", "wsgiref.handlers", "installed")
    until_warm_case = Case(text="", variables={"QUERY_STRING": "0"})
    wait_until(lambda: run(warm, script, until_warm_case, preload)[1], "the script is warm", 60)
    for _ in range(4):
        case = Case(text="", variables={"QUERY_STRING": repr(time.time())})
        assert run(warm, script, case, preload)[0].stdout == b"True True []\n"


def test_a_library_that_ends_its_threads_before_a_fork_is_kept(venv: Path, warm: WarmRunner) -> None:
    """As numpy's does, which would start anew with each request else; and one that does not is named once, as a whole."""
    text = "import os, threading\nend = threading.Event()\nthread = threading.Thread(target=end.wait, daemon=True)\nthread.start()\n"
    package(site_packages(venv), "installed", text + "os.register_at_fork(before=lambda: (end.set(), thread.join()))")
    until_learned(warm, venv, "installed")
    script = in_venv(venv, "import installed, threading; print(threading.active_count())")
    assert until_warm(warm, script, "learn") == b"1\n"


def test_a_package_that_is_left_out_is_named_once(
    venv: Path, warm: WarmRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """And not for each of its modules, one after the other, each with a new parent."""
    place = site_packages(venv) / "installed"
    place.mkdir()
    package(place, "__init__", "from . import one, two; import os; os.pipe()")
    package(place, "one", "")
    package(place, "two", "")
    script = in_venv(venv, "import sys; print('csv' in sys.modules); import installed, csv")
    wait_until(lambda: run(warm, script, Case(text=""), "learn")[0].stdout == b"True\n", "others are kept", 60)
    assert re.findall(r"preload: (\S+) is not kept warm", caplog.text) == ["installed"]


@pytest.mark.parametrize(
    ("text", "preload"),
    [
        ("import sys; print(sys.path_hooks)", "learn"),
        ("import sys; sys.path.insert(0, 'x')", ()),
        ("from sys import path", ()),
        ("from sys import (argv,\n path as p)", ()),
        ("from sys import *", ()),
        ("from sys import argv, exit\npath = argv[0]", "learn"),
        ("import site; site.addsitedir('x')", ()),
        ("import sys as s; s.path.append('x')", ()),
    ],
)
def test_nothing_is_learned_for_scripts_that_change_where_modules_come_from(
    text: str, preload: tuple[str, ...] | str, venv: Path
) -> None:
    """Modules that are named are kept all the same: somebody has chosen these."""
    script = in_venv(venv, text)
    for given, expected in (("learn", preload), (("csv",), ("csv",))):
        found = plan(Invocation(argv=(str(script),), metavars={}, cwd="/", stdin=0, preload=given))
        assert found is not None
        assert found.kind.preload == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(300,), daemon=True).start()",
            "it starts a thread",
        ),
        ("f = open('/dev/null')", "it opens a descriptor"),
        ("1 / 0", "it cannot be imported: ZeroDivisionError: division by zero"),
    ],
    ids=["thread", "descriptor", "exception"],
)
def test_a_module_that_cannot_be_shared_is_left_out(
    text: str, reason: str, venv: Path, warm: WarmRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """With a line in the log; the others are kept warm."""
    package(site_packages(venv), "bad", text)
    script = in_venv(venv, "import sys; print([n for n in ('csv', 'bad', 'wave') if n in sys.modules])")
    assert until_warm(warm, script, ("csv", "bad", "wave")) == b"['csv', 'wave']\n"
    [line] = [record.getMessage() for record in caplog.records]
    assert line == f"{venv}/bin/python: preload: bad is not kept warm: {reason}"


def test_a_parent_that_cannot_start_is_not_tried_again_at_once(
    venv: Path, warm: WarmRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """Scripts go the cold way, after one line in the log."""
    (site_packages(venv) / "own.pth").write_text("import fails_at_start\n")  # sitecustomize may be the system's
    (site_packages(venv) / "fails_at_start.py").write_text(
        "import sys, os\nif sys.argv and '_zygote' in str(sys.orig_argv):\n    sys.stderr.write('not here\\n'); sys.stderr.flush(); os._exit(1)"
    )
    script = in_venv(venv, "print('cold')")
    for _ in range(2):
        wait_until(
            lambda: run(warm, script, Case(text=""), ())[0].stdout == b"cold\n" and caplog.records,
            "a failure is told",
            30,
        )
    [line] = [record.getMessage() for record in caplog.records]
    assert line == f"{venv}/bin/python cannot be kept warm (not here): its scripts are started cold"
    [parents] = warm._parents.values()
    assert parents._next is None or parents._delay > 1


def test_a_parent_that_grows_is_replaced(venv: Path, warm: WarmRunner) -> None:
    """Code of many scripts is memory too."""
    package(site_packages(venv), "big", "import gc\n")
    script = in_venv(venv, "import os; print(os.getppid())")
    first = until_warm(warm, script, ())
    large = in_venv(
        venv,
        "x = " + repr(list(range(10_000))) + "\n" + "\n".join(f"y{n} = {'a' * 99!r} + str({n})" for n in range(20_000)),
        "large.py",
    )

    def is_replaced() -> bool:
        for number in range(40):
            shutil.copy(large, copy := large.with_name(f"large{number}.py"))
            run(warm, copy, Case(text=""), ())
        outcome, is_warm = run(warm, script, Case(text=""), ())
        return is_warm and outcome.stdout != first

    wait_until(is_replaced, "another parent is there", 300)


def test_imports_of_the_parent_share_nothing_that_was_drawn_by_lot(warm: WarmRunner, tmp_path: Path) -> None:
    """Two scripts of one parent have different random numbers, names and keys."""
    case = Case(
        text="import random, uuid, tempfile, secrets, multiprocessing, json\nprint(json.dumps([random.random(), str(uuid.uuid4()),"
        " tempfile.mktemp(), secrets.token_hex(), multiprocessing.current_process().authkey.hex()]))"
    )
    script = write(tmp_path, case)
    become_warm(warm, script, case)
    outcomes = [run(warm, script, case) for _ in range(2)]
    assert all(is_warm for _, is_warm in outcomes)
    one, other = (json.loads(outcome.stdout) for outcome, _ in outcomes)
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_globals_never_reach_another_request(warm: WarmRunner, tmp_path: Path) -> None:
    """What a script does to modules and variables ends with it."""
    case = Case(
        text="import json, os, sys\nprint(getattr(json, 'leak', None), os.environ.get('LEAK'), sys.path[0][-4:], 'x' in globals())\n"
        "json.leak = os.environ['LEAK'] = 'yes'; sys.path.insert(0, 'leak'); x = 1; os.chdir('/')"
    )
    script = write(tmp_path, case)
    become_warm(warm, script, case)
    assert run(warm, script, case)[0].stdout == run(SpawnRunner(), script, case)[0].stdout


def test_memory_of_a_child_is_shared(warm: WarmRunner, tmp_path: Path) -> None:
    """A parent with the usual imports has less than 40 MiB, a child adds less than 3 MiB."""
    case = Case(
        text="import re\nt = open('/proc/self/smaps_rollup').read()\n"
        "print(sum(int(n) for n in re.findall(r'Private_\\w+:\\s+(\\d+)', t)))"
    )
    script = write(tmp_path, case)
    become_warm(warm, script, case)
    outcome, is_warm = run(warm, script, case)
    assert is_warm
    assert int(outcome.stdout) < 3 * 1024
    [parents] = warm._parents.values()
    assert parents._current is not None
    status = Path(f"/proc/{parents._current.pid}/status").read_text()
    assert int(status.partition("VmRSS:")[2].split()[0]) < 40 * 1024


# -- how scripts end


@pytest.fixture
def start(warm: WarmRunner, tmp_path: Path) -> Iterator[Callable[[str], Execution]]:
    """Starts a script of this text from a warm parent; ends it after the test."""
    become_warm(warm, write(tmp_path, Case(text="pass")), Case(text=""))
    started: list[Execution] = []

    def start(text: str) -> Execution:
        script = write(tmp_path, Case(text=text))
        stdin = os.open(os.devnull, os.O_RDONLY)
        metavars = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        cwd = str(tmp_path)
        invocation = Invocation(argv=(str(script),), metavars=metavars, cwd=cwd, stdin=stdin, preload=PRELOADED)
        started.append(warm.start(invocation))
        os.close(stdin)
        assert isinstance(started[-1], WarmExecution)
        return started[-1]

    yield start
    for execution in started:
        execution.terminate()
        execution.close()


WAIT_FOR_GO = "import os, time\nwhile not os.path.exists('go'): time.sleep(.02)\n"


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does nothing meanwhile; it waits, so nothing of what it has started is open in it any more."""
    wait_until(lambda: b") S " in Path(f"/proc/{pid}/stat").read_bytes(), "it waits")
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: b") T " in Path(f"/proc/{pid}/stat").read_bytes(), "it has stopped")
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_a_parent_that_a_script_has_stopped_goes_on(start: Callable[[str], Execution]) -> None:
    """``kill -STOP -1`` by an unlucky script: the next one waits a second, and its parent stays."""
    parent = int(read_all(start("import os\nprint(os.getppid())").stdout))
    stopping = start(
        "import os, signal, time\n"
        "while b') S ' not in open(f'/proc/{os.getppid()}/stat', 'rb').read(): time.sleep(.01)\n"
        "os.kill(os.getppid(), signal.SIGSTOP)\nprint('stopped')"
    )
    assert read_all(stopping.stdout) == b"stopped\n"
    wait_until(lambda: b") T " in Path(f"/proc/{parent}/stat").read_bytes(), "it has stopped")
    assert read_all(start("import os\nprint(os.getppid())").stdout) == b"%d\n" % parent


def test_a_script_tells_how_it_ends_before_its_process_has_gone(
    start: Callable[[str], Execution], tmp_path: Path
) -> None:
    """Behind its last output; nobody has to see the process end to know it, though only that tells what it took."""
    execution = start(WAIT_FOR_GO + "print('end')\nraise SystemExit(3)")
    with stopped(parent_of(execution.pid)):
        (tmp_path / "go").touch()
        assert read_all(execution.stdout) == b"end\n"
        assert execution.told() == ExitStatus(code=3)
        assert execution.wait(0) is None
    status = execution.wait(20)
    assert status == ExitStatus(code=3)
    assert status.max_rss > 2**20


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("import os\nos._exit(4)", ExitStatus(code=4)),
        ("import os\nos.kill(os.getpid(), 9)", ExitStatus(signal=signal.SIGKILL)),
        # another process comes to the script's end first
        ("import os\nif pid := os.fork():\n os.waitpid(pid, 0)\n os.kill(os.getpid(), 9)", ExitStatus(signal=9)),
        ("import os\nos.execv('/bin/sh', ['sh', '-c', 'exit 5'])", ExitStatus(code=5)),
        ("raise KeyboardInterrupt", ExitStatus(signal=signal.SIGINT)),
    ],
    ids=["exit", "killed", "fork", "exec", "interrupt"],
)
def test_a_script_that_ends_otherwise_tells_nothing(
    start: Callable[[str], Execution], text: str, status: ExitStatus
) -> None:
    """What counts is then what the system tells."""
    execution = start(text)
    assert read_all(execution.stdout) == b""
    assert execution.wait(20) == status
    assert execution.told() is None


def test_a_script_that_has_told_was_not_killed(start: Callable[[str], Execution], tmp_path: Path) -> None:
    """Its output was whole before whoever could have told of its process was killed."""
    execution = start(WAIT_FOR_GO + "print('whole')")
    parent = parent_of(execution.pid)
    with stopped(parent):
        (tmp_path / "go").touch()
        assert read_all(execution.stdout) == b"whole\n"
        os.kill(parent, signal.SIGKILL)
    assert execution.wait(20) == ExitStatus()


def test_an_answer_does_not_wait_until_its_process_is_seen_to_end(warm: WarmRunner, site: Site) -> None:
    """How its script ends is known, though not what it took; that is added when the process has gone."""
    site.python("origin.py", ORIGIN)
    site.python("slow.py", HEAD + "import os; print(os.getpid(), flush=True)\n" + WAIT_FOR_GO + "raise SystemExit(2)")
    log = io.StringIO()
    environ = create_environ("/cgi-bin/slow.py")
    environ["wsgi.errors"] = log
    with contextlib.closing(CGIMiddleware(lambda environ, start_response: [], site.directory, runner=warm)) as app:
        wait_until(lambda: b"warm" in b"".join(run_wsgi_app(app, create_environ("/cgi-bin/origin.py"))[0]), "warm", 60)
        exchange = app(environ, lambda status, headers, exc_info=None: lambda data: None)
        assert isinstance(exchange, Exchange)
        parent = parent_of(int(next(exchange)))
        with stopped(parent):
            site.file("cgi-bin/go", "")
            assert list(exchange) == []
            status = exchange.exit_status
            assert status == ExitStatus(code=2)
            assert status.max_rss == 0
        wait_until(lambda: "exited with status 2" in log.getvalue(), "the end of its process is seen")
        assert exchange.exit_status == status
        assert exchange.exit_status.max_rss > 2**20
        assert log.getvalue().count("\n") == 1


# -- interpreters


def interpreters() -> list[str]:
    names = [f"python3.{minor}" for minor in range(8, 16)]
    places = [*os.environ["PATH"].split(":"), *map(str, Path.home().glob(".pyenv/versions/*/bin"))]
    found = {}
    for file in (Path(place, name) for name in names for place in places):
        if file.name not in found and os.access(file, os.X_OK) and file.read_bytes()[:2] != b"#!":  # pyenv's shims
            found[file.name] = str(file)
    return list(found.values())


@pytest.mark.parametrize("interpreter", interpreters(), ids=lambda path: Path(path).name)
def test_each_interpreter_keeps_its_own_scripts_warm(interpreter: str, warm: WarmRunner, tmp_path: Path) -> None:
    """From 3.8 on; it needs nothing of ours."""
    script = tmp_path / "script.py"
    script.write_text(
        f"#!{interpreter}\nimport sys, traceback\nprint(sys.version, sys.path, sys.argv, {{k: v for k, v in globals().items() if k[:2] != '__b'"
        " and k != '__loader__'}.keys())\ntraceback.print_stack()\nprint(sys.stdin, sys.stdout, sys.stderr, sys.flags)\nclass A:\n"
        "    def __del__(self): print('del')\na = A()\ndef f(): {}['k']\nf()\n"
    )
    script.chmod(0o755)
    expected, _ = run(SpawnRunner(), script, Case(text=""))
    found = become_warm(warm, script, Case(text=""))
    assert found == expected
    assert found.status == ExitStatus(code=1)


# -- what the cold way is for


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"#!/usr/bin/python3", Command(program="/usr/bin/python3", options=(), is_sought=False)),
        (b"#! /usr/bin/python3.12 -uE ", Command(program="/usr/bin/python3.12", options=("-uE",), is_sought=False)),
        (b"#!/usr/bin/env python3", Command(program="python3", options=(), is_sought=True)),
        (b"#!/usr/bin/env -S python3 -u -E", Command(program="python3", options=("-u", "-E"), is_sought=True)),
        (b"#!/venv/bin/python", Command(program="/venv/bin/python", options=(), is_sought=False)),
        (b"#!/usr/bin/python3 -u -E", None),
        (b"#!/usr/bin/python3 -i", None),
        (b"#!/usr/bin/python3 -m", None),
        (b"#!/usr/bin/python3 -c", None),
        (b"#!/usr/bin/python3 -x", None),
        (b"#!/usr/bin/python3 -v", None),
        (b"#!/usr/bin/python2", None),
        (b"#!/usr/bin/pypy3", None),
        (b"#!/usr/bin/perl", None),
        (b"#!python3", None),
        (b"#!/usr/bin/env", None),
        (b"#!/usr/bin/env -i python3", None),
        (b"#!/usr/bin/env -S python3 '-u'", None),
        (b"#!/usr/bin/env A=1 python3", None),
        (b"#!/usr/bin/env /usr/bin/python3", None),
        (b"#!/usr/bin/python3\r", None),
        (b"#!/usr/bin/p\xc3\xbfthon3", None),
        (b"\x7fELF", None),
        (b"", None),
    ],
    ids=lambda value: value.decode("latin-1") if isinstance(value, bytes) else "",
)
def test_first_lines_are_read_as_the_kernel_reads_them(line: bytes, expected: Command | None) -> None:
    """What is not plainly a Python with options of a whole process is left to the kernel (execve(2), env(1))."""
    assert parse(line + b"\nprint()\n") == expected
    assert parse(line) is None  # cut off


def test_an_interpreter_is_found_on_the_scripts_own_path(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As env(1) finds it; a script in its place, such as pyenv's, may choose another each time, which the log tells."""
    script = tmp_path / "script"
    script.write_text("#!/usr/bin/env python3\n")
    script.chmod(0o755)
    (tmp_path / "shims").mkdir()
    (tmp_path / "shims" / "python3").write_text('#!/bin/sh\nexec /usr/bin/python3 "$@"\n')
    (tmp_path / "shims" / "python3").chmod(0o755)

    def interpreter(path: str) -> str | None:
        found = plan(
            Invocation(argv=(str(script), "word"), metavars={"PATH": path, "QUERY_STRING": "x"}, cwd="/", stdin=0)
        )
        return found and found.kind.interpreter

    there = str(Path(sys.executable).parent)
    assert interpreter(f"{tmp_path}:{there}:/usr/bin") == f"{there}/python3"
    for _ in range(2):
        assert interpreter(f"{tmp_path}/shims:{there}") is None
    assert caplog.text.count(f"{tmp_path}/shims/python3 is no program but a script") == 1
    assert interpreter(f":{there}") is None
    assert interpreter(str(tmp_path)) is None


def test_what_a_request_brings_makes_no_other_kind(tmp_path: Path) -> None:
    """Scripts of one kind have the same variables, but for meta-variables."""
    script = tmp_path / "script"
    script.write_text(f"#!{sys.executable}\n")

    def kind(**metavars: str) -> object:
        found = plan(Invocation(argv=(str(script),), metavars={"PATH": "/bin", **metavars}, cwd="/", stdin=0))
        assert found is not None
        return found.kind

    assert kind(HTTP_X="1", REMOTE_ADDR="::1", PATH_INFO="/x", UNIQUE_ID="1") == kind(CONTENT_LENGTH="3", HTTPS="on")
    assert kind(LANG="C") != kind(LANG="C.UTF-8")
    assert kind(MY="1") != kind()


def test_what_is_not_for_warm_starts_goes_the_cold_way(tmp_path: Path) -> None:
    """A sandbox, an interpreter that asks for more at its end, a directory that decides what is imported."""
    script = tmp_path / "script"
    script.write_text(f"#!{sys.executable}\n")
    for options in ({"sandbox": ("bwrap",)}, {"metavars": {"PYTHONINSPECT": "1"}}, {"metavars": {"PYTHONPATH": "lib"}}):
        given = {"argv": (str(script),), "metavars": {}, "cwd": "/", "stdin": 0, **options}
        assert plan(Invocation(**given)) is None  # type: ignore[arg-type]


def test_more_kinds_than_there_is_room_for_go_the_cold_way(warm: WarmRunner, tmp_path: Path) -> None:
    """So that variables of many values do not fill the memory with parents."""
    script = write(tmp_path, Case(text="print(1)"))
    for number in range(12):
        assert run(warm, script, Case(text="", variables={"KIND": str(number)}))[0].stdout == b"1\n"
    assert len(warm._parents) == 8


def test_a_script_may_have_another_runner(site: Site, tmp_path: Path) -> None:
    """In a section of the configuration file."""
    site.python("cold.py", ORIGIN)
    (tmp_path / "config.toml").write_text(
        "runner = 'warm'\npreload = ['json']\n[[script]]\nmatch = '/cgi-bin/cold.py'\nrunner = 'spawn'\n"
    )
    site.python("origin.py", ORIGIN)
    env = {"WSGICGI_CONFIG": str(tmp_path / "config.toml")}
    with servers.serving("waitress", site.directory, tmp_path / "log", env) as server:
        wait_until_warm(server)
        assert text_of(server, "/cgi-bin/cold.py") == "cold\n"


def test_the_dev_server_has_an_option(site: Site, tmp_path: Path) -> None:
    """wsgicgi-dev --warm."""
    site.python("origin.py", ORIGIN)
    with servers.serving("dev", site.directory, tmp_path / "log", {}, ["--warm"]) as server:
        wait_until_warm(server)


def test_a_broken_program_says_the_same(warm: WarmRunner, tmp_path: Path) -> None:
    """An interpreter or a directory that is not there is refused as the system refuses it."""
    script = write(tmp_path, Case(text="print(1)"))
    become_warm(warm, script, Case(text=""))
    null = os.open(os.devnull, os.O_RDONLY)
    good = Invocation(
        argv=(str(script),), metavars={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}, cwd="/no/such", stdin=null
    )
    for runner in (SpawnRunner(), warm):
        with pytest.raises(FileNotFoundError) as caught:
            runner.start(good)
        assert caught.value.filename == "/no/such"
    os.close(null)


def test_restrictions_hold_from_the_first_instruction_on(warm: WarmRunner, tmp_path: Path) -> None:
    """A script never runs with less than it was to be held to."""
    script = write(tmp_path, Case(text="import resource; print(resource.getrlimit(resource.RLIMIT_CPU))"))
    case = Case(text="", restrictions=Restrictions(max_cpu=7))
    become_warm(warm, script, case)
    assert run(warm, script, case)[0].stdout == b"(7, 8)\n"


def test_the_code_for_other_interpreters_is_within_their_grammar() -> None:
    """3.8 is the oldest that is kept warm."""
    import ast

    for name in ("_zygote", "_parent", "_loaded", "_programs", "_script", "_ending", "_forking", "_warden"):
        spec = importlib.util.find_spec(f"wsgicgi.runners.{name}")
        assert spec is not None and spec.origin is not None
        ast.parse(Path(spec.origin).read_text(), feature_version=(3, 8))
