"""What a script can and cannot do in the sandbox: real scripts, in real sandboxes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import wait_until

from wsgicgi import CGIMiddleware, ConfigError
from wsgicgi.runners import Execution, Invocation, SpawnRunner
from wsgicgi.runners.base import ExitStatus
from wsgicgi.runners.sandbox import find_bwrap, prefix, status_of_script

NOBODY = 65534


@pytest.fixture(scope="module")
def bwrap() -> str:
    """bubblewrap, where it is installed and works; in CI it has to be."""
    try:
        return find_bwrap()
    except ConfigError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(params=["/tmp", "/var/tmp"])
def place(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory that every user may read, below a private directory and elsewhere."""
    with tempfile.TemporaryDirectory(prefix="wsgicgi-sandbox-", dir=request.param) as name:
        Path(name).chmod(0o755)
        for directory in ("site/cgi-bin", "data"):
            (Path(name) / directory).mkdir(parents=True)
        yield Path(name)


class Sandbox:
    """Runs scripts of one place."""

    def __init__(self, bwrap: str, place: Path) -> None:
        self.bwrap = bwrap
        self.place = place
        self.scripts = place / "site/cgi-bin"

    def words(self, **options: Any) -> tuple[str, ...]:
        return prefix(self.bwrap, script_dir=self.scripts, root_dir=self.place / "site", **options)

    def script(self, text: str) -> str:
        file = self.scripts / "x"
        file.write_text(text)
        file.chmod(0o755)
        return str(file)

    def run(self, text: str, *arguments: object, user: int | None = None, env: Any = None, **options: Any) -> str:
        """Run a script; what it printed."""
        command = [*self.words(**options), self.script(text), *map(str, arguments)]
        as_whom = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        done = subprocess.run(
            command, cwd=self.scripts, capture_output=True, text=True, timeout=60, env=env, check=False, **as_whom
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def python(self, text: str, *arguments: object, **options: Any) -> Any:
        """Run a Python script; what it printed, as JSON."""
        return json.loads(self.run(f"#!{sys.executable}\nimport json, os, sys\n{text}", *arguments, **options))


@pytest.fixture
def sandbox(bwrap: str, place: Path) -> Sandbox:
    return Sandbox(bwrap, place)


WRITE = """
result = {}
for path in sys.argv[1:]:
    try:
        with open(os.path.join(path, "written"), "w") as file:
            file.write("x")
        result[path] = "written"
    except OSError as error:
        result[path] = error.strerror
print(json.dumps(result))
"""
READ_ONLY = "Read-only file system"


def test_nothing_can_be_written(sandbox: Sandbox, place: Path) -> None:
    """Not beside the site, not in it, not in the script's directory, not elsewhere, even by root."""
    paths = [place, place / "data", place / "site", sandbox.scripts, "/etc", "/var/tmp", Path.home()]
    tried = [str(path) for path in paths]
    if str(place).startswith("/tmp/"):
        tried = tried[2:]  # what is beside the site is not there at all
    assert sandbox.python(WRITE, *tried) == dict.fromkeys(tried, READ_ONLY)
    assert list(place.rglob("written")) == []


def test_tmp_is_private(sandbox: Sandbox) -> None:
    """A script may write to /tmp; nobody else sees it, and it sees only the site and its interpreter there."""
    with tempfile.NamedTemporaryFile(dir="/tmp", prefix="wsgicgi-secret-") as secret:
        assert sandbox.python(WRITE, "/tmp") == {"/tmp": "written"}
        assert not Path("/tmp/written").exists()
        names = sandbox.python("print(json.dumps(os.listdir('/tmp')))")
        assert Path(secret.name).name not in names
        visible = {Path(path).parts[2] for path in (sandbox.place, sys.prefix) if Path(path).parts[1] == "tmp"}
        assert set(names) == visible


def test_writable_directories_can_be_written(sandbox: Sandbox, place: Path) -> None:
    """Below a private directory too."""
    assert sandbox.python(WRITE, place / "data", writable=[place / "data"]) == {str(place / "data"): "written"}
    assert (place / "data/written").read_text() == "x"


def test_the_scripts_directory_is_read_only_in_a_writable_one(sandbox: Sandbox, place: Path) -> None:
    """A script that could write there would run what its visitors bring; a directory in it may be writable."""
    inner = sandbox.scripts / "cache"
    inner.mkdir()
    result = sandbox.python(WRITE, place / "site", sandbox.scripts, inner, writable=[inner, place])
    assert list(result.values()) == ["written", READ_ONLY, "written"]


def test_a_link_to_a_writable_directory_is_followed(sandbox: Sandbox, place: Path) -> None:
    """What is mounted is the real directory, at its real name."""
    (place / "link").symlink_to("data")
    assert sandbox.python(WRITE, place / "data", writable=[place / "link"]) == {str(place / "data"): "written"}


CONNECT = """
import socket
address = sys.argv[1] if sys.argv[1:2] and not sys.argv[1].isdigit() else ("127.0.0.1", int(sys.argv[1]))
if isinstance(address, str):
    sock, address = socket.socket(socket.AF_UNIX), "\\0" + address
else:
    sock = socket.socket()
try:
    sock.connect(address)
    print(json.dumps("connected"))
except OSError as error:
    print(json.dumps(error.strerror))
"""


@pytest.mark.parametrize("network", [True, False])
def test_the_network_is_there_unless_it_is_taken_away(network: bool, sandbox: Sandbox) -> None:
    """A server on this machine, by TCP and by an abstract Unix socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as abstract:
        name = f"wsgicgi-test-{os.getpid()}"
        abstract.bind("\0" + name)
        abstract.listen()
        expected = "connected" if network else "Connection refused"
        assert sandbox.python(CONNECT, listener.getsockname()[1], network=network) == expected
        assert sandbox.python(CONNECT, name, network=network) == expected


PROCESSES = """
seen = [int(name) for name in os.listdir("/proc") if name.isdigit()]
try:
    os.kill(int(sys.argv[1]), 0)
    reached = True
except ProcessLookupError:
    reached = False
print(json.dumps([len(seen), os.getpid() in seen, reached]))
"""


def test_other_processes_are_out_of_sight(sandbox: Sandbox) -> None:
    """It sees itself and the first process of its namespace, and reaches no other."""
    assert sandbox.python(PROCESSES, os.getpid()) == [2, True, False]


@pytest.mark.root_only
def test_a_setuid_program_gives_no_privileges(sandbox: Sandbox, place: Path) -> None:
    """sudo, su and their like: neither the user nor capabilities change."""
    program = place / "site/id"
    shutil.copy(shutil.which("id") or "", program)
    program.chmod(0o4755)
    outside = subprocess.run(
        [program, "-u"], user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, text=True, check=True
    )
    assert outside.stdout == "0\n"
    assert sandbox.run(f"#!/bin/sh\n{program} -u\n", user=NOBODY) == f"{NOBODY}\n"


@pytest.mark.parametrize(
    "user",
    [None, pytest.param(NOBODY, marks=pytest.mark.root_only)],
)
def test_no_capability_is_left(user: int | None, sandbox: Sandbox) -> None:
    """None in any set, and none to come (no_new_privs); for root, the set of those that could come stays as it is."""
    status = sandbox.run("#!/bin/sh\ngrep -E '^(Cap|NoNewPrivs)' /proc/self/status\n", user=user)
    found = dict(line.split(":\t") for line in status.splitlines())
    assert found.pop("NoNewPrivs") == "1"
    if user is None and os.geteuid() == 0:
        del found["CapBnd"]
    assert {"CapInh", "CapPrm", "CapEff", "CapAmb"} <= set(found)
    assert {int(value, 16) for value in found.values()} == {0}


def test_environment_directory_and_descriptors_are_the_scripts_own(sandbox: Sandbox) -> None:
    """bubblewrap adds PWD, as a shell does, and nothing else."""
    text = "print(json.dumps([dict(os.environ), os.getcwd(), sys.argv, sorted(os.listdir('/proc/self/fd'))[:-1]]))"
    environ, directory, argv, descriptors = sandbox.python(text, "a b", env={"X": "y", "LC_ALL": "C.UTF-8"})
    place = str(sandbox.scripts)
    assert environ == {"X": "y", "LC_ALL": "C.UTF-8", "PWD": place}
    assert (directory, argv, descriptors) == (place, [f"{place}/x", "a b"], ["0", "1", "2"])


# -- how it ends


def start(sandbox: Sandbox, text: str, **options: Any) -> Execution:
    with open(os.devnull) as null:
        return SpawnRunner().start(
            Invocation(
                argv=(*sandbox.words(**options), sandbox.script(text)),
                metavars={"PATH": os.environ["PATH"]},
                cwd=str(sandbox.scripts),
                stdin=null.fileno(),
            )
        )


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("exit 0", ExitStatus()),
        ("exit 3", ExitStatus(code=3)),
        ("exit 255", ExitStatus(code=255)),
        ("kill -SEGV $$", ExitStatus(signal=11)),
        ("kill -KILL $$", ExitStatus(signal=9)),
    ],
)
def test_how_a_script_ended_is_known(end: str, expected: ExitStatus, sandbox: Sandbox) -> None:
    """A death by a signal breaks the answer off; bubblewrap shows it as an exit status."""
    execution = start(sandbox, f"#!/bin/sh\n{end}\n")
    status = execution.wait(30)
    execution.close()
    assert status is not None
    assert status_of_script(status) == expected


def test_only_a_status_that_means_a_signal_is_taken_for_one() -> None:
    """128 and what is above the last signal is a script's own; a signal from outside stays what it is."""
    for code in (0, 1, 127, 128, 193, 255):
        assert status_of_script(ExitStatus(code=code)) == ExitStatus(code=code)
    assert status_of_script(ExitStatus(code=192)) == ExitStatus(signal=64)
    assert status_of_script(ExitStatus(signal=15)) == ExitStatus(signal=15)


def commands() -> list[str]:
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            found.append(Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def test_the_whole_tree_ends_and_has_time_for_it(sandbox: Sandbox, place: Path) -> None:
    """SIGTERM reaches the script, which may tidy up; children in a session of their own end with the group."""
    seconds = f"9{os.getpid()}"
    text = f"""#!/usr/bin/perl
$| = 1;
$SIG{{TERM}} = sub {{
    select undef, undef, undef, 0.3; open F, '>', '{place}/data/end'; print F "tidied\\n"; close F; exit
}};
system 'setsid sleep {seconds} &';
print "ready\\n";
sleep 1 while 1;
"""
    execution = start(sandbox, text, writable=[place / "data"])
    assert os.read(execution.stdout, 100) == b"ready\n"
    wait_until(lambda: any(f"sleep {seconds}" in command for command in commands()), "the child runs")
    execution.terminate()
    execution.close()
    end = place / "data/end"
    wait_until(lambda: end.exists() and end.read_text() == "tidied\n", "it has tidied up")
    wait_until(lambda: not any(f"sleep {seconds}" in command for command in commands()), "the child has ended")


# -- a request


class SandboxedRunner(SpawnRunner):
    """Starts everything in a sandbox."""

    sandbox: Sandbox

    def start(self, invocation: Invocation) -> Execution:
        return super().start(dataclasses.replace(invocation, argv=(*self.sandbox.words(), *invocation.argv)))


def test_a_request_is_answered_out_of_the_sandbox(sandbox: Sandbox) -> None:
    """Body, arguments, extra path: all as without it; the body's file is a descriptor and needs no name."""
    from io import BytesIO

    from werkzeug.test import Client

    sandbox.script(
        f"#!{sys.executable}\nimport os, sys\nbody = sys.stdin.buffer.read()\n"
        "print('Content-Type: text/plain')\nprint()\n"
        "print(len(body), os.environ['PATH_INFO'], os.environ['CONTENT_LENGTH'])\n"
    )
    runner = SandboxedRunner()
    runner.sandbox = sandbox
    app = CGIMiddleware(
        lambda environ, start_response: [], sandbox.place / "site", runner=runner, body_memory=100_000, max_time=60
    )
    for size in (0, 50_000, 300_000):
        response = Client(app).post("/cgi-bin/x/extra", input_stream=BytesIO(bytes(size)), content_length=size)
        assert (response.status_code, response.text) == (200, f"{size} /extra {size}\n")
    app.close()


# -- the start


def test_bubblewrap_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A plain sentence at the start, not an error with each request."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="there is no program 'bwrap' on PATH: install bubblewrap"):
        find_bwrap()


def test_a_bubblewrap_that_cannot_run_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its own words are passed on, and what to do."""
    file = tmp_path / "bwrap"
    file.write_text("#!/bin/sh\necho 'bwrap: first' >&2\necho 'bwrap: No permissions' >&2\nexit 1\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ConfigError, match=f"sandbox='bwrap': {file} does not work here: bwrap: No permissions. ."):
        find_bwrap()
    file.write_text("#!/missing/interpreter\n")
    with pytest.raises(ConfigError, match=f"sandbox='bwrap': {file} cannot run: "):
        find_bwrap()


@pytest.mark.root_only
def test_a_system_that_forbids_user_namespaces_is_told_apart(bwrap: str) -> None:
    """In a user namespace of the test's own, where there may be no more of them."""
    shell = """
echo 0 > /proc/sys/user/max_user_namespaces || exit 99
exec setpriv --ambient-caps=-all --inh-caps=-all "$0" -c "$1"
"""
    check = "from wsgicgi.runners.sandbox import find_bwrap; find_bwrap()"
    done = subprocess.run(
        ["unshare", "-U", "--map-user=1000", "--keep-caps", "sh", "-c", shell, sys.executable, check],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "This system forbids user namespaces (/proc/sys/user/max_user_namespaces is 0). Try: sysctl" in done.stderr


@pytest.mark.root_only
def test_it_is_tried_as_the_user_whom_scripts_run_as(bwrap: str) -> None:
    """What root may do, another may not: here both may."""
    assert find_bwrap(user=NOBODY, group=NOBODY) == bwrap


# -- the command


def test_outer_directories_are_mounted_before_inner_ones() -> None:
    """The last mount on a place counts."""
    words = prefix(
        "/usr/bin/bwrap", script_dir="/srv/a/cgi-bin", root_dir="/srv/a", writable=["/srv/a/cgi-bin/c", "/srv"]
    )
    assert words[:3] == ("/usr/bin/bwrap", "--ro-bind", "/")
    assert words[-1] == "--"
    binds = [words[n : n + 3] for n, word in enumerate(words) if word in ("--bind", "--ro-bind")]
    assert [bind for bind in binds if bind[1].startswith("/srv")] == [
        ("--bind", "/srv", "/srv"),
        ("--ro-bind", "/srv/a/cgi-bin", "/srv/a/cgi-bin"),
        ("--bind", "/srv/a/cgi-bin/c", "/srv/a/cgi-bin/c"),
    ]
    assert "--unshare-net" not in words
    assert "--unshare-net" in prefix("bwrap", script_dir="/srv", root_dir="/srv", network=False)
