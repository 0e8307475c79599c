"""What a warden holds scripts to: their identity, their limits, and an end that nothing escapes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pwd
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import living, wait_until

from wsgicgi.runners import Execution, Identity, IdentityRefused, Invocation, Restrictions, SpawnRunner, warden
from wsgicgi.runners.base import ExitStatus

ROOT = os.geteuid() == 0
NOBODY = pwd.getpwnam("nobody")
AS_NOBODY = Identity(uid=NOBODY.pw_uid, gid=NOBODY.pw_gid, groups=(NOBODY.pw_gid,))
needs_root = pytest.mark.root_only


@pytest.fixture(params=["own", pytest.param("nobody", marks=needs_root)])
def identity(request: pytest.FixtureRequest) -> Identity | None:
    """The server's own user, and another one."""
    return AS_NOBODY if request.param == "nobody" else None


@pytest.fixture
def start() -> Iterator[Callable[..., Execution]]:
    """Starts a shell command; ends and closes it after the test."""
    runner = SpawnRunner()
    started: list[Execution] = []

    def start(
        command: str | list[str],
        *,
        identity: Identity | None = None,
        stdin: int | None = None,
        cwd: str = "/",
        mark: str = "",
        **restrictions: object,
    ) -> Execution:
        null = os.open(os.devnull, os.O_RDONLY)
        argv = ("/bin/sh", "-c", command) if isinstance(command, str) else tuple(command)
        try:
            execution = runner.start(
                Invocation(
                    argv=argv,
                    metavars={"PATH": os.environ["PATH"], "UNIQUE_ID": mark or os.urandom(8).hex()},
                    cwd=cwd,
                    stdin=null if stdin is None else stdin,
                    identity=identity,
                    restrictions=Restrictions(**restrictions),
                )
            )
        finally:
            os.close(null)
        started.append(execution)
        return execution

    yield start
    for execution in started:
        execution.terminate()
        execution.close()


def output(execution: Execution) -> str:
    data = b""
    while piece := os.read(execution.stdout, 65536):
        data += piece
    return data.decode()


def errors(execution: Execution) -> str:
    data = b""
    while piece := os.read(execution.stderr, 65536):
        data += piece
    return data.decode()


# -- identity


@needs_root
def test_script_has_the_identity_wholly_and_for_good(start: Callable[..., Execution]) -> None:
    """Real, effective, saved and file system ids, of user and group; no further group; no way back."""
    status = output(start("cat /proc/self/status; python3 -c 'import os; os.setuid(0)'", identity=AS_NOBODY))
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == [str(AS_NOBODY.uid)] * 4
    assert fields["Gid"].split() == [str(AS_NOBODY.gid)] * 4
    assert set(fields["Groups"].split()) <= {str(AS_NOBODY.gid)}
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == int(fields["CapInh"], 16) == 0


@needs_root
def test_streams_can_be_opened_again_by_the_scripts_user(start: Callable[..., Execution]) -> None:
    """Shell scripts write to /dev/stderr and read from /dev/stdin; the server made these as another user."""
    read_end, write_end = os.pipe()
    os.write(write_end, b"body")
    os.close(write_end)
    execution = start("cat /dev/stdin > /dev/stdout; echo oops > /dev/stderr", identity=AS_NOBODY, stdin=read_end)
    os.close(read_end)
    assert output(execution) == "body"
    assert errors(execution) == "oops\n"
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert os.stat("/dev/null").st_uid == 0  # what has a name of its own keeps its owner


@needs_root
def test_directory_that_the_scripts_user_may_not_enter_is_named(
    start: Callable[..., Execution], tmp_path: Path
) -> None:
    """Nothing runs in another directory instead."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(PermissionError) as caught:
        start("echo ran", identity=AS_NOBODY, cwd=str(closed))
    assert caught.value.filename == str(closed)


@pytest.mark.user_only
def test_identity_that_cannot_be_taken_runs_nothing_as_a_user(start: Callable[..., Execution]) -> None:
    """An ordinary user cannot become another."""
    with pytest.raises(IdentityRefused):
        start("echo ran", identity=AS_NOBODY if os.geteuid() != AS_NOBODY.uid else Identity(uid=1, gid=1, groups=(1,)))


@needs_root
def test_identity_that_cannot_be_taken_runs_nothing(start: Callable[..., Execution]) -> None:
    """A number that is no gid: the warden does not begin, and nothing runs as root instead."""
    with pytest.raises(IdentityRefused):
        start("echo ran", identity=Identity(uid=1, gid=2**32 - 1))


# -- privileges


def test_no_new_privileges_unless_allowed(start: Callable[..., Execution], identity: Identity | None) -> None:
    """PR_SET_NO_NEW_PRIVS is on from the start, and off only where set-user-id programs are allowed."""
    command = "grep NoNewPrivs /proc/self/status"
    assert output(start(command, identity=identity)).split() == ["NoNewPrivs:", "1"]
    allowed = output(start(command, identity=identity, no_new_privs=False)).split()
    assert allowed == ["NoNewPrivs:", "0"]


@needs_root
def test_set_user_id_program_gives_a_script_nothing(start: Callable[..., Execution], tmp_path: Path) -> None:
    """A set-user-id copy of a shell that belongs to root."""
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    program = tmp_path / "id"
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    program.chmod(0o4755)
    assert output(start([str(program), "-u"], identity=AS_NOBODY)).strip() == str(AS_NOBODY.uid)
    assert output(start([str(program), "-u"], identity=AS_NOBODY, no_new_privs=False)).strip() == "0"


def test_warden_cannot_be_looked_into(start: Callable[..., Execution]) -> None:
    """A script of the same user may not trace the process that starts all others (PR_SET_DUMPABLE)."""
    execution = start("cat /proc/$PPID/maps /proc/$PPID/environ; echo $PPID")
    pid = output(execution).split()[-1]
    if not ROOT:
        assert "Permission denied" in errors(execution)
    assert os.stat(f"/proc/{pid}/environ").st_uid == 0


# -- limits

LIMITS = [
    ("max_cpu", 3, "-t", "3", resource.RLIMIT_CPU),
    ("max_memory", 64 << 20, "-v", str(64 << 10), resource.RLIMIT_AS),
    ("max_file_size", 1 << 20, "-f", "2048", resource.RLIMIT_FSIZE),
    ("max_open_files", 20, "-n", "20", resource.RLIMIT_NOFILE),
]


@pytest.mark.parametrize(("name", "value", "flag", "shown", "number"), LIMITS, ids=[row[0] for row in LIMITS])
def test_limit_holds_from_the_first_instruction(
    start: Callable[..., Execution],
    identity: Identity | None,
    name: str,
    value: int,
    flag: str,
    shown: str,
    number: int,
) -> None:
    """Softly and, so that no script lifts it again, hard; this process and later scripts have none of it."""
    before = resource.getrlimit(number)
    # the read waits for what is set from outside right after the start
    command = f"sleep 0.5; ulimit -S {flag}; ulimit -S {flag} unlimited 2>/dev/null && echo lifted; ulimit -S {flag}"
    lines = output(start(command, identity=identity, **{name: value})).split()
    assert lines == [shown, shown]
    assert resource.getrlimit(number) == before
    assert output(start(f"ulimit -S {flag}", identity=identity)).split() != [shown]


def test_processor_time_ends_a_script(start: Callable[..., Execution], identity: Identity | None) -> None:
    """By SIGXCPU, and by SIGKILL a second later who catches that."""
    assert start("while :; do :; done", identity=identity, max_cpu=1).wait(20) == ExitStatus(signal=signal.SIGXCPU)
    stubborn = start("trap '' XCPU; while :; do :; done", identity=identity, max_cpu=1)
    assert stubborn.wait(20) == ExitStatus(signal=signal.SIGKILL)


def test_memory_that_a_script_asks_for_is_refused(start: Callable[..., Execution], identity: Identity | None) -> None:
    """Beyond ``max_memory`` there is none."""
    execution = start(["/usr/bin/perl", "-e", "$x = 'x' x 200_000_000; print 'had it'"], max_memory=100 << 20)
    assert output(execution) == ""
    assert Restrictions(max_memory=100 << 20).reached(execution.wait(10), errors(execution).encode())


def test_file_that_grows_too_large_ends_its_writer(start: Callable[..., Execution], tmp_path: Path) -> None:
    """By SIGXFSZ; it is never larger."""
    execution = start(f"exec head -c 5000000 /dev/zero > {tmp_path}/file", max_file_size=1 << 20)
    assert execution.wait(20) == ExitStatus(signal=signal.SIGXFSZ)
    assert (tmp_path / "file").stat().st_size == 1 << 20


def test_descriptors_come_to_an_end(start: Callable[..., Execution], identity: Identity | None) -> None:
    """The program is told so."""
    opening = "open($f[$_], '<', '/dev/null') or die \"$_ $!\" for 1 .. 100"
    execution = start(["/usr/bin/perl", "-e", opening], identity=identity, max_open_files=20)
    assert "Too many open files" in errors(execution)


@pytest.mark.user_only  # nothing limits root's own processes; those of another identity: the fork bomb
@pytest.mark.parametrize("number", [10, 30])
def test_processes_of_a_script_are_counted_beside_those_of_its_user(
    start: Callable[..., Execution], number: int
) -> None:
    """Whatever else the user runs, ``max_processes`` more can be had."""
    count = "n=0; while [ $n -lt 60 ]; do sleep 60 >/dev/null 2>&1 & n=$((n+1)); done; echo all"
    # the script itself goes on, so that all of it is ended with it
    execution = start(f"({count}); exec sleep 60 >/dev/null 2>&1", max_processes=number)
    assert "all" not in output(execution)
    assert "ork" in errors(execution)


@needs_root
def test_fork_bomb_is_bounded_and_leaves_no_process(start: Callable[..., Execution]) -> None:
    """RLIMIT_NPROC holds it; the end of the script is the end of all of it."""
    uid = 61234
    bomb = start(
        ["/usr/bin/perl", "-e", "while (1) { defined(fork) or select(undef, undef, undef, 0.01) }"],
        identity=Identity(uid=uid, gid=uid, groups=(uid,)),
        max_processes=40,
    )
    wait_until(lambda: len(of_user(uid)) >= 40, "the bomb has gone off")
    assert len(of_user(uid)) <= 41  # and the warden
    bomb.terminate()
    wait_until(lambda: len(of_user(uid)) <= 1, "nothing of it is left", 20)


def of_user(uid: int) -> list[int]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{name}/status").read_text()
            if f"\nUid:\t{uid}\t" in text and "State:\tZ" not in text:
                found.append(int(name))
    return found


def test_umask_and_niceness_are_the_scripts_own(start: Callable[..., Execution], identity: Identity | None) -> None:
    """And not those of the next."""
    before = output(start("umask; nice", identity=identity)).split()
    assert output(start("umask; sleep 0.5; nice", identity=identity, umask=0o077, nice=5)).split() == ["0077", "5"]
    assert output(start("umask; nice", identity=identity)).split() == before


def test_start_under_limits_is_no_fork_of_this_process() -> None:
    """However large the server is: its memory is not copied, not even its page tables."""
    source = Path(warden.__file__).read_text() + Path(sys.modules["wsgicgi.runners.spawn"].__file__).read_text()
    assert "os.fork" not in source
    assert "preexec_fn" not in source


# -- the end


ESCAPE = (
    "import os, sys, time\n"
    "for way in range(3):\n"
    "    if os.fork() == 0:\n"
    "        os.setsid()\n"
    "        if way and os.fork(): os._exit(0)\n"
    "        if way == 2: os.setsid() if os.getsid(0) != os.getpid() else None\n"
    "        print(os.getpid(), flush=True); os.close(1); time.sleep(300)\n"
    "print('parent', flush=True); time.sleep(300)\n"
)


def test_processes_with_a_session_of_their_own_end_too(start: Callable[..., Execution], identity: object) -> None:
    """setsid, and setsid with a second fork: the daemons' way out of a process group."""
    execution = start(["/usr/bin/python3", "-c", ESCAPE], identity=identity)
    said = ""
    while len(said.split()) < 4:
        said += os.read(execution.stdout, 1000).decode()
    pids = [int(word) for word in said.split() if word.isdigit()]
    assert len(living(pids)) == 3
    assert execution.terminate().signal == signal.SIGTERM
    wait_until(lambda: not living(pids), "they have ended")


def test_daemon_of_another_script_stays(start: Callable[..., Execution]) -> None:
    """What one script started and left is not ended with another."""
    left = start("setsid sh -c 'echo $$; exec sleep 300' & wait -n; true")
    pid = int(os.read(left.stdout, 100))
    other = start("sleep 300")
    other.terminate()
    assert living([pid]) == [pid]
    left.terminate()
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_orphans_of_another_run_for_the_same_request_stay(start: Callable[..., Execution]) -> None:
    """A local redirect runs a second script; that one has a mark of its own beside the request's id."""
    first = start("sleep 300", mark="x7")
    second = start("export CGI_RUN_ID=y; setsid sh -c 'echo $$; exec sleep 300' & wait -n; true", mark="x7")
    pid = int(os.read(second.stdout, 100))
    wait_until(lambda: os.readlink(f"/proc/{pid}/exe").endswith("sleep"), "it has no shell any more")
    first.terminate()
    assert living([pid]) == [pid]
    second.terminate()
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_scripts_of_a_killed_server_end_with_their_daemons(tmp_path: Path) -> None:
    """The end of its socket is all that a warden needs to know."""
    program = (
        "import os, sys, time\n"
        "from wsgicgi.runners import Invocation, SpawnRunner\n"
        f"argv = ('/usr/bin/python3', '-c', {ESCAPE!r})\n"
        "null = os.open('/dev/null', os.O_RDONLY)\n"
        "run = SpawnRunner().start(Invocation(argv=argv, metavars={'UNIQUE_ID': 'x1'}, cwd='/', stdin=null))\n"
        "os.dup2(run.stdout, 0); print(run.pid, flush=True); os.execvp('cat', ['cat'])\n"
    )
    program = program.replace("os.execvp('cat', ['cat'])", "\nwhile True: os.write(1, os.read(0, 100))")
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as server:
        said = b""
        while len(said.split()) < 5:
            piece = os.read(server.stdout.fileno(), 1000)
            assert piece, "the program has ended"
            said += piece
        pids = [int(word) for word in said.split() if word.isdigit()]
        assert len(living(pids)) == 4
        server.kill()
        wait_until(lambda: not living(pids), "they have ended")


def test_warden_that_is_killed_is_replaced_and_takes_its_scripts_along(start: Callable[..., Execution]) -> None:
    """What runs is ended and told as killed; the next script starts as if nothing had been."""
    running = start("exec sleep 300")
    keeper = warden.find(None, no_new_privs=True)
    os.kill(keeper._process.pid, signal.SIGKILL)
    assert running.wait(10) == ExitStatus(signal=signal.SIGKILL)
    wait_until(lambda: not living([running.pid]), "its script has ended")
    assert output(start("echo on")) == "on\n"
    assert warden.find(None, no_new_privs=True) is not keeper


def test_warden_that_a_script_has_stopped_goes_on(start: Callable[..., Execution]) -> None:
    """``kill -STOP -1`` by an unlucky script: the next script starts, and none hangs."""
    waits = "until grep -q ') S ' /proc/$PPID/stat; do :; done"  # with nothing of the script open any more
    execution = start(f"{waits}; kill -STOP $PPID; echo stopped")
    assert output(execution) == "stopped\n"
    assert execution.wait(30) == ExitStatus()
    assert output(start(f"{waits}; kill -STOP $PPID; echo stopped")) == "stopped\n"
    keeper = warden.find(None, no_new_privs=True)
    stat_file = Path(f"/proc/{keeper._process.pid}/stat")
    wait_until(lambda: b") T " in stat_file.read_bytes(), "it has stopped")
    assert output(start("echo on")) == "on\n"
    assert warden.find(None, no_new_privs=True) is keeper


def test_warden_that_a_script_has_stopped_ends_with_its_server() -> None:
    """It would stay for ever, and its scripts with it."""
    keeper = warden.Warden(None, no_new_privs=True)
    os.kill(keeper._process.pid, signal.SIGSTOP)
    keeper.close()
    wait_until(lambda: os.waitpid(keeper._process.pid, os.WNOHANG)[0], "it has ended")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")
def test_warden_that_a_script_has_stopped_ends_with_a_server_that_is_killed() -> None:
    """Nobody is left to tell it to go on."""
    text = (
        "import os, signal\n"
        "from wsgicgi.runners import warden\n"
        "keeper = warden.Warden(None, no_new_privs=True)\n"
        "os.kill(keeper._process.pid, signal.SIGSTOP)\n"
        "os.waitid(os.P_PID, keeper._process.pid, os.WSTOPPED)\n"
        "print(keeper._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", text], stdout=subprocess.PIPE, timeout=60)
    assert done.returncode == -signal.SIGKILL
    wait_until(lambda: not living([int(done.stdout)]), "it has ended")


def test_start_that_a_killed_warden_had_not_taken_is_made_by_another(
    start: Callable[..., Execution], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was started, and that is known: nobody has to be turned away."""
    monkeypatch.setattr(warden, "NUDGE_SECONDS", 60)  # it stays stopped
    start("true").wait(10)
    keeper = warden.find(None, no_new_privs=True)
    os.kill(keeper._process.pid, signal.SIGSTOP)
    stat_file = Path(f"/proc/{keeper._process.pid}/stat")
    wait_until(lambda: b") T " in stat_file.read_bytes(), "it has stopped")
    sent = keeper._sent
    with concurrent.futures.ThreadPoolExecutor() as pool:
        started = pool.submit(start, "echo once")
        wait_until(lambda: keeper._sent > sent, "it was asked")
        os.kill(keeper._process.pid, signal.SIGKILL)
        assert output(started.result(timeout=30)) == "once\n"
    assert warden.find(None, no_new_privs=True) is not keeper


@needs_root  # scripts of the server's own user would end this process
def test_script_that_kills_all_it_may_does_not_stop_the_server(start: Callable[..., Execution]) -> None:
    """``kill -9 -1`` by an unlucky script of another user takes the warden too, but not the server."""
    uid = Identity(uid=61235, gid=61235, groups=(61235,))
    assert start("sleep 0.3; kill -9 -1; sleep 300", identity=uid).wait(10) == ExitStatus(signal=signal.SIGKILL)
    assert output(start("echo on", identity=uid)) == "on\n"


def test_terminate_does_not_wait_for_stubborn_children(start: Callable[..., Execution]) -> None:
    """The script itself has ended; what ignores SIGTERM is killed later, while nobody waits."""
    execution = start("(trap '' TERM; echo $$; sleep 300; sleep 300) & sleep 0.2; exec sleep 300")
    os.read(execution.stdout, 100)
    begin = time.monotonic()
    execution.terminate()
    assert time.monotonic() - begin < 2.5
    wait_until(lambda: not in_session(execution.pid), "the rest has ended")


def in_session(session: int) -> list[int]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                found.append(int(name))
    return found


def test_many_at_once_over_one_warden(start: Callable[..., Execution]) -> None:
    """Each gets its own streams and its own end; none its neighbour's."""
    executions = [start(f"echo {number}; exit {number}") for number in range(100)]
    assert [output(execution) for execution in executions] == [f"{number}\n" for number in range(100)]
    assert [execution.wait(10) for execution in executions] == [ExitStatus(code=number) for number in range(100)]


def test_environment_larger_than_a_socket_holds_arrives(start: Callable[..., Execution]) -> None:
    """Frames are sent in as many pieces as it takes."""
    runner = SpawnRunner()
    null = os.open(os.devnull, os.O_RDONLY)
    metavars = {"PATH": os.environ["PATH"], **{f"X_{number}": "y" * 100_000 for number in range(15)}}
    execution = runner.start(Invocation(argv=("/bin/sh", "-c", "env | wc -c"), metavars=metavars, cwd="/", stdin=null))
    os.close(null)
    assert int(output(execution)) > 1_500_000
    execution.terminate()
    execution.close()


def test_script_has_no_descriptor_but_its_three(start: Callable[..., Execution]) -> None:
    """Nothing of the server's, nothing of the warden's."""
    assert output(start("exec ls /proc/self/fd")).split() == ["0", "1", "2", "3"]  # 3 is ls's own


def test_memory_of_a_script_is_told(start: Callable[..., Execution]) -> None:
    """In bytes, as the system counts it."""
    status = start(["/usr/bin/perl", "-e", "$x = 'x' x 50_000_000"]).wait(20)
    assert status is not None
    assert status.max_rss > 50_000_000


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warden as on systems other than Linux: without prctl, without prlimit, and with fork."""
    program = tmp_path / "other_warden.py"
    place = str(Path(warden._warden.__file__).parent)
    program.write_text(
        f"import sys\nsys.path.insert(0, {place!r})\nimport _warden\n_warden.IS_LINUX = False\n_warden.main()\n"
    )
    monkeypatch.setattr(warden._warden, "__file__", str(program))
    monkeypatch.setattr(warden, "_wardens", {})


def test_other_systems_have_the_same_but_for_what_only_linux_has(
    elsewhere: None, start: Callable[..., Execution]
) -> None:
    """Streams, exit status, limits, umask, refusals, the end of a process group."""
    one = start("umask; ulimit -n; cat; exit 3", max_open_files=20, umask=0o027, nice=1)
    assert output(one).split() == ["0027", "20"]
    assert one.wait(10) == ExitStatus(code=3)
    with pytest.raises(FileNotFoundError):
        start(["/no/such/program"])
    status = output(start("exec cat /proc/self/status"))
    masks = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Sig"))
    assert int(masks["SigIgn"], 16) == int(masks["SigBlk"], 16) == 0
    running = start("sleep 300 & exec sleep 300")
    assert running.terminate() == ExitStatus(signal=signal.SIGTERM)
    wait_until(lambda: not in_session(running.pid), "its group has ended")
    assert output(start("exec ls /proc/self/fd")).split() == ["0", "1", "2", "3"]
    warden._let_go()
