"""How many scripts run at once: across threads, processes, servers; who comes next; what happens when one dies."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import servers
from servers import Server, wait_until
from sites import Site

from wsgicgi import admission as module
from wsgicgi import slots
from wsgicgi.admission import Admission, Pool, admit
from wsgicgi.errors import ClientGone, OutOfResources, TooManyScripts

WORKER = Path(__file__).parent / "admission_worker.py"
#: This process is a server; the workers of these tests are its children.
ENVIRON = {"wsgi.multithread": True, "wsgi.multiprocess": False}
#: A time that no test waits for: what must not happen would take so long.
NEVER = 100.0


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of a test's own for temporary files, of its worker processes too; what was done once is undone."""
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    # a queue that found no file to share, and lives on in a traceback, would be found again under its name
    monkeypatch.setattr(module, "_queues", weakref.WeakValueDictionary())
    for name, value in {"_has_warned": False, "_short_wait_begin": -1e9}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(slots, "_has_cleaned", False)
    # threads of tests, too, belong to pools that have a size
    monkeypatch.setattr(module, "threads", lambda environ: None)
    return place


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """Where worker processes show that they have a slot."""
    place = tmp_path / "inside"
    place.mkdir()
    return place


def enter(pool: Pool, timeout: float = NEVER, environ: dict[str, Any] | None = None, **rest: Any) -> Admission:
    return admit([pool], ENVIRON if environ is None else environ, label="/x", timeout=timeout, **rest)


@contextlib.contextmanager
def worker(what: str, pool: str, size: int, inside: Path, times: int = 1) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, WORKER, what, pool, str(size), inside, str(times)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def result(process: subprocess.Popen[str]) -> list[tuple[int, int]]:
    """The largest number that was inside, and how many were refused: a line for each process."""
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return [(int(line.split()[0]), int(line.split()[1])) for line in out.splitlines()]


def wait_for_line(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{line}\n"


def waiting(pool: Pool) -> int:
    return len(pool._queue._waiters)


def slot_files(place: Path) -> list[str]:
    return [path.name for path in place.glob("*/*")]


@pytest.fixture
def start() -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Calls something in a thread of its own, and gives its future."""
    with ThreadPoolExecutor(max_workers=32) as executor:
        yield executor.submit


# -- in one process


def test_a_slot_that_is_given_back_is_the_next_ones() -> None:
    """No more than the pool's size are inside; ``leave`` may be called twice and frees one slot, not two."""
    pool = Pool("x", 2)
    first, second = enter(pool), enter(pool)
    first.leave()
    first.leave()
    third = enter(pool)
    with pytest.raises(TooManyScripts):
        enter(pool, timeout=0.01)
    second.leave()
    third.leave()


def test_who_waits_too_long_is_told_to_come_again() -> None:
    """503 with Retry-After, and a line for the log with both settings."""
    pool = Pool("x", 1)
    held = enter(pool)
    with pytest.raises(TooManyScripts) as caught:
        enter(pool, timeout=0.05)
    held.leave()
    assert caught.value.status == 503
    assert dict(caught.value.headers)["Retry-After"].isdigit()
    assert str(caught.value).startswith("/x: 1 scripts run already (max_scripts=1), and none ended within ")
    assert str(caught.value).endswith(" s (queue_timeout=0.05)")


def test_those_who_wait_are_served_in_the_order_in_which_they_came(start: Callable[..., Any]) -> None:
    """First come, first served, among the threads of a process."""
    pool = Pool("x", 1)
    held = enter(pool)
    order: list[int] = []

    def wait(number: int) -> None:
        admission = enter(pool)
        order.append(number)
        admission.leave()

    futures = []
    for number in range(12):
        futures.append(start(lambda number=number: wait(number)))
        wait_until(lambda number=number: waiting(pool) == number + 1, "the thread is in line")
    held.leave()
    for future in futures:
        future.result(30)
    assert order == list(range(12))


def test_no_slot_and_no_file_is_left(temporary: Path) -> None:
    """The last one closes the file and removes it (descriptors: the fixture ``nothing_left``)."""
    pool = Pool("x", 2)
    first, second = enter(pool), enter(pool)
    first.leave()
    assert len(slot_files(temporary)) == 1
    second.leave()
    assert slot_files(temporary) == []
    assert module._busy == 0


def test_a_client_that_leaves_the_line_is_not_waited_for() -> None:
    """The wait ends with the client, and the line moves on."""
    pool = Pool("x", 1)
    held = enter(pool)
    with pytest.raises(ClientGone):
        enter(pool, is_client_gone=lambda: True)
    assert waiting(pool) == 0
    held.leave()
    enter(pool, timeout=0).leave()


def test_a_client_that_seems_gone_only_once_keeps_its_place(start: Callable[..., Any]) -> None:
    """One look is no proof: the wait goes on until two, some time apart, say the same."""
    pool = Pool("x", 1)
    held = enter(pool)
    looks: list[bool] = []

    def is_gone() -> bool:
        looks.append(True)
        return len(looks) == 1

    future = start(lambda: enter(pool, is_client_gone=is_gone))
    wait_until(lambda: len(looks) > 5, "several looks")
    held.leave()
    future.result(30).leave()


def test_closing_turns_away_those_who_wait(start: Callable[..., Any]) -> None:
    """An application that is closed leaves nobody waiting, and can be used again."""
    pool, other = Pool("x", 1), Pool("x", 1)
    held = enter(pool)
    future, kept = start(lambda: enter(pool)), start(lambda: enter(other))
    wait_until(lambda: waiting(pool) == 2, "both wait")
    pool.close()
    with pytest.raises(TooManyScripts, match="was closed"):
        future.result(30)
    held.leave()
    kept.result(30).leave()
    enter(pool, timeout=0).leave()


def test_pools_of_one_name_share_their_slots_and_others_do_not() -> None:
    """Two applications of one server may have one pool; two scripts have two."""
    one, same, other = Pool("x", 1), Pool("x", 1), Pool("y", 1)
    held = enter(one)
    with pytest.raises(TooManyScripts):
        enter(same, timeout=0)
    enter(other, timeout=0).leave()
    held.leave()
    enter(same, timeout=0).leave()


def test_a_request_needs_a_slot_of_each_of_its_pools() -> None:
    """A script's own limit and the limit for all hold both, within one time; nothing is kept when one refuses."""
    script, everything = Pool("script", 2), Pool("all", 1)
    held = admit([script, everything], ENVIRON, label="/x", timeout=0)
    with pytest.raises(TooManyScripts, match="max_scripts=1"):
        admit([script, everything], ENVIRON, label="/x", timeout=0)
    other = enter(script, timeout=0)
    with pytest.raises(TooManyScripts, match="max_scripts=2"):
        admit([script, everything], ENVIRON, label="/x", timeout=0)
    other.leave()
    held.leave()
    admit([], ENVIRON, label="/x", timeout=0).leave()
    assert module._busy == 0


def test_the_last_thread_of_a_process_waits_only_a_moment(start: Callable[..., Any], monkeypatch: Any) -> None:
    """Files are never queued behind scripts that wait: a thread stays for them, or soon is there again."""
    monkeypatch.setattr(module, "threads", lambda environ: 3)
    pool = Pool("x", 1)
    held = enter(pool)
    patient = start(lambda: enter(pool))
    wait_until(lambda: waiting(pool) == 1, "one waits")
    for _ in range(20):  # all of them together take the time that one may
        with pytest.raises(TooManyScripts, match="last thread"):
            enter(pool)
    assert waiting(pool) == 1
    held.leave()
    patient.result(30).leave()


def test_the_last_thread_gets_a_slot_that_becomes_free_at_once(start: Callable[..., Any], monkeypatch: Any) -> None:
    """A burst is absorbed."""
    monkeypatch.setattr(module, "threads", lambda environ: 2)
    monkeypatch.setattr(module, "SHORT_WAIT", NEVER)
    pool = Pool("x", 1)
    held = enter(pool)
    last = start(lambda: enter(pool))
    wait_until(lambda: waiting(pool) == 1, "one waits")
    held.leave()
    last.result(30).leave()


def test_no_descriptor_left_for_the_file_is_a_503() -> None:
    """It may be there later; without the file now and with it later there would be too many scripts."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), hard))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        with pytest.raises(OutOfResources, match="Too many open files"):
            enter(Pool("x", 1))
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    pool = Pool("x", 1)
    held = enter(pool)
    assert pool._queue._file is not None
    held.leave()
    assert module._busy == 0


# -- processes


def test_processes_share_the_slots_of_their_server(inside: Path) -> None:
    """Never more than the size are inside, of three processes with three threads each; nobody waits in vain."""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(worker("compete", "x", 3, inside, 40)) for _ in range(3)]
        results = [line for process in processes for line in result(process)]
    assert max(most for most, _ in results) == 3
    assert [refused for _, refused in results] == [0, 0, 0]


def test_the_slots_of_a_killed_process_are_free(inside: Path, temporary: Path) -> None:
    """SIGKILL leaves no time to give anything back: the kernel does. Those who waited get them."""
    pool = Pool("x", 4)
    with worker("hold", "x", 4, inside, 4) as holder:
        wait_for_line(holder, "held")
        with pytest.raises(TooManyScripts):
            enter(pool, timeout=0.05)
        with ThreadPoolExecutor() as executor:
            futures = [executor.submit(enter, pool) for _ in range(4)]
            wait_until(lambda: waiting(pool) == 4, "all wait")
            holder.send_signal(signal.SIGKILL)
            for future in futures:
                future.result(30)
            for future in futures:
                future.result().leave()
    assert slot_files(temporary) == []


def test_slots_that_another_process_gives_back_are_found(inside: Path) -> None:
    """A worker that ends as it should."""
    pool = Pool("x", 1)
    with worker("hold", "x", 1, inside) as holder, ThreadPoolExecutor() as executor:
        wait_for_line(holder, "held")
        future = executor.submit(enter, pool)
        wait_until(lambda: waiting(pool) == 1, "one waits")
        holder.communicate(timeout=30)
        future.result(30).leave()


def test_two_servers_have_two_limits(inside: Path) -> None:
    """One that is full does not hold up another of the same user and the same name."""
    with worker("hold alone", "x", 2, inside, 2) as other:
        wait_for_line(other, "held")
        pool = Pool("x", 2)
        first, second = enter(pool, timeout=0), enter(pool, timeout=0)
        first.leave()
        second.leave()


def test_a_busy_process_leaves_slots_to_others(inside: Path) -> None:
    """One that always has somebody in line does not keep every slot to itself: the others' wait has an end."""
    pool, is_over = Pool("x", 1), threading.Event()

    def keep_busy() -> None:
        while not is_over.is_set():
            admission = enter(pool)
            is_over.wait(0.002)
            admission.leave()

    with ThreadPoolExecutor() as executor:
        futures = [executor.submit(keep_busy) for _ in range(6)]
        try:
            wait_until(lambda: waiting(pool) > 2, "there is a line")
            with worker("compete", "x", 1, inside, 10) as other:
                assert result(other) == [(1, 0)]
        finally:
            is_over.set()
        for future in futures:
            future.result(30)


def test_a_pool_made_before_the_fork_holds_for_all_children(inside: Path) -> None:
    """gunicorn --preload makes the application in a process that serves nobody."""
    with worker("preload", "x", 2, inside, 40) as process:
        lines = result(process)
    assert len(lines) == 2
    assert max(most for most, _ in lines) == 2


def test_a_forked_process_gives_nothing_of_its_parent_back(inside: Path) -> None:
    """Its copy of an admission is not its own; and it begins with no slots and nobody in line."""
    pool = Pool("x", 2)
    held = enter(pool)
    pid = os.fork()
    if not pid:
        status = 1
        with contextlib.suppress(BaseException):
            held.leave()
            # its parent has one of the two slots still, so there is one for it
            worker = {**ENVIRON, "wsgi.multiprocess": True}
            own = enter(pool, timeout=0, environ=worker)
            try:
                enter(pool, timeout=0.05, environ=worker)
            except TooManyScripts:
                own.leave()
                status = 0
        os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    second = enter(pool, timeout=0)
    with pytest.raises(TooManyScripts):
        enter(pool, timeout=0)
    held.leave()
    second.leave()


def test_greenlets_wait_without_stopping_each_other(inside: Path) -> None:
    """Under gevent all is one thread: who waits lets the others go on."""
    with worker("gevent", "x", 3, inside, 10) as one, worker("gevent", "x", 3, inside, 10) as two:
        results = result(one) + result(two)
    assert max(most for most, _ in results) == 3
    assert [refused for _, refused in results] == [0, 0]


# -- the file


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was logged."""
    return lambda: [record.getMessage() for record in caplog.records if record.name == "wsgicgi"]


def in_the_way(kind: str, place: Path, elsewhere: Path) -> None:
    ours = place / f"wsgicgi-{os.geteuid()}"
    elsewhere.mkdir(mode=0o700)
    if kind == "of another user":
        ours.mkdir(mode=0o700)
        os.chown(ours, 54321, 54321)
    elif kind == "open to others":
        ours.mkdir()
        ours.chmod(0o770)
    elif kind == "readable for others":
        ours.mkdir()
        ours.chmod(0o755)
    elif kind == "link":
        ours.symlink_to(elsewhere)
    elif kind == "link to nothing":
        ours.symlink_to(elsewhere / "missing")
    elif kind == "file":
        ours.touch(mode=0o600)
    elif kind == "fifo":
        os.mkfifo(ours, 0o600)


KINDS = [
    pytest.param("of another user", marks=pytest.mark.root_only),
    "open to others",
    "readable for others",
    "link",
    "link to nothing",
    "file",
    "fifo",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_directory_that_is_not_ours_alone_is_not_used(
    kind: str, temporary: Path, tmp_path: Path, warnings: Callable[[], list[str]]
) -> None:
    """Anybody can make one in /tmp before us (CWE-377): one warning, and the limit holds in each process."""
    in_the_way(kind, temporary, tmp_path / "elsewhere")
    pool, other = Pool("x", 1), Pool("y", 1)
    held, other_held = enter(pool), enter(other)
    with pytest.raises(TooManyScripts):
        enter(pool, timeout=0.01)
    held.leave()
    other_held.leave()
    enter(pool, timeout=0).leave()
    assert len(warnings()) == 1
    assert warnings()[0].startswith("max_scripts holds for each process, not for the server, without a file to share: ")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_waiting_works_without_the_file(temporary: Path, tmp_path: Path, start: Callable[..., Any]) -> None:
    """Threads wait for each other in one process."""
    in_the_way("file", temporary, tmp_path / "elsewhere")
    pool = Pool("x", 1)
    held = enter(pool)
    futures = [start(lambda: enter(pool).leave()) for _ in range(5)]
    wait_until(lambda: waiting(pool) == 5, "all wait")
    held.leave()
    for future in futures:
        future.result(30)


def test_without_record_locks_the_limit_holds_in_each_process(
    monkeypatch: pytest.MonkeyPatch, temporary: Path, warnings: Callable[[], list[str]]
) -> None:
    """Windows has none; the README says so, the log need not."""
    monkeypatch.setattr(module, "IS_POSSIBLE", False)
    pool = Pool("x", 1)
    held = enter(pool)
    with pytest.raises(TooManyScripts):
        enter(pool, timeout=0.01)
    held.leave()
    assert (warnings(), list(temporary.iterdir())) == ([], [])


def test_nobody_else_can_look_into_the_directory(temporary: Path) -> None:
    """Who could lock a slot could stop all scripts."""
    held = enter(Pool("x", 1))
    directory = temporary / f"wsgicgi-{os.geteuid()}"
    (file,) = directory.iterdir()
    assert (directory.stat().st_mode & 0o7777, file.stat().st_mode & 0o7777) == (0o700, 0o600)
    held.leave()


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_the_runtime_directory_is_used_when_it_is_private(
    mode: int, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XDG_RUNTIME_DIR is meant for such files; after ``sudo`` it may be that of another."""
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    runtime.chmod(mode)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    held = enter(Pool("x", 1))
    assert [bool(slot_files(runtime)), bool(slot_files(temporary))] == [mode == 0o700, mode != 0o700]
    held.leave()


def test_what_killed_servers_left_is_removed(inside: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that nobody uses go with the next server's first script; those in use stay."""
    with worker("hold alone", "x", 1, inside) as used, worker("hold alone", "x", 1, inside) as killed:
        wait_for_line(used, "held")
        wait_for_line(killed, "held")
        assert len(slot_files(temporary)) == 2
        killed.kill()
        killed.wait()
        assert len(slot_files(temporary)) == 2
        enter(Pool("x", 1)).leave()
        (left,) = slot_files(temporary)
        assert left.startswith(f"{used.pid}-")


def test_a_file_that_was_removed_is_made_again(inside: Path, temporary: Path) -> None:
    """Programs that tidy /tmp take old files away: from then on all processes find the new one."""
    pool = Pool("x", 1)
    enter(pool).leave()
    for path in sorted(temporary.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with worker("hold", "x", 1, inside) as holder:
        wait_for_line(holder, "held")
        with pytest.raises(TooManyScripts):
            enter(pool, timeout=0.05)
        holder.communicate(timeout=30)


# -- servers

#: Shows how many of its kind run at once: each has a file of its own in the directory DIR meanwhile.
COUNTED = r"""
import os, sys, time
place = os.environ["QUERY_STRING"]
full = place + ".full"  # there once as many as may were inside
marker = os.path.join(place, str(os.getpid()))
open(marker, "x").close()
most = len(os.listdir(place))
deadline = time.monotonic() + 20
while most < int(os.environ.get("HTTP_X_WANTED", 0)) and not os.path.exists(full) and time.monotonic() < deadline:
    time.sleep(0.005)
    most = max(most, len(os.listdir(place)))
open(full, "w").close()
time.sleep(0.05)
most = max(most, len(os.listdir(place)))
os.unlink(marker)
print("Content-Type: text/plain")
print()
print(most)
"""

#: Says "begin" in the file log, waits until a file go is there, and says "end".
WAITING = r"""
cd "$QUERY_STRING" || exit 1
echo "begin $PATH_INFO" >> log
while [ ! -e go ]; do sleep 0.02; done
echo "end $PATH_INFO" >> log
printf 'Content-Type: text/plain\n\nok\n'
"""

#: The same, but its answer is complete before it waits.
OUTLIVING = r"""
cd "$QUERY_STRING" || exit 1
printf 'Content-Type: text/plain\nContent-Length: 3\n\nok\n'
exec >&-
echo "begin $PATH_INFO" >> log
while [ ! -e go ]; do sleep 0.02; done
echo "end $PATH_INFO" >> log
"""


def limited(
    kind: str, site: Site, max_scripts: int, *, queue_timeout: float = NEVER, options: tuple[str, ...] = ()
) -> contextlib.AbstractContextManager[Server]:
    """A server with a limit on scripts."""
    env = {
        "WSGICGI_DIRECTORY": str(site.directory),
        "WSGICGI_MAX_SCRIPTS": str(max_scripts),
        "WSGICGI_QUEUE_TIMEOUT": str(queue_timeout),
        "PYTHONPATH": str(Path(__file__).parent),
    }
    log_file = site.directory.parent / "server.log"
    if kind == "waitress":
        return servers.waitress("wsgicgi:create_app", log_file, options=[*options, "--call"], env=env)
    worker = kind.partition("-")[2] or "gthread"
    return servers.gunicorn("wsgicgi:create_app()", log_file, kind=worker, options=options, env=env)


LIMITED = ["gunicorn", "gunicorn-gevent", "waitress", "preload"]


@pytest.mark.parametrize("kind", LIMITED)
def test_never_more_scripts_run_than_may(kind: str, site: Site, inside: Path) -> None:
    """200 requests on max_scripts=4, over two workers where there are workers: 4 at most, and 4 in fact."""
    site.python("counted.py", COUNTED)
    target = f"/cgi-bin/counted.py?{inside}"
    options: tuple[str, ...] = ("--threads", "16") if kind == "gunicorn" else ()
    if kind == "preload":
        kind, options = "gunicorn", ("--threads", "16", "--preload")
    if kind == "waitress":
        options = ("--threads", "16")
    with limited(kind, site, 4, options=options) as server, ThreadPoolExecutor(max_workers=12) as executor:
        answers = list(executor.map(lambda _: server.get(target, headers={"X-Wanted": "4"}), range(200)))
        assert "Traceback" not in server.log
    assert {response.status for response, _ in answers} == {200}
    assert max(int(data) for _, data in answers) == 4
    assert list(inside.iterdir()) == []


@pytest.mark.parametrize("kind", ["gunicorn", "waitress", "gunicorn-sync"])
def test_files_and_cheap_errors_do_not_wait_for_scripts(kind: str, site: Site, inside: Path) -> None:
    """Even when more scripts are asked for than there are threads: some get a 503, and files are served."""
    site.sh("waiting.sh", WAITING)
    site.file("x.txt", "a file")
    options = ("-w", "2") if kind == "gunicorn-sync" else ("--threads", "4")
    if kind == "gunicorn":
        options = ("-w", "1", *options)
    with limited(kind, site, 1, options=options) as server, ThreadPoolExecutor(max_workers=24) as executor:
        futures = [executor.submit(server.get, f"/cgi-bin/waiting.sh/{n}?{inside}", timeout=60) for n in range(16)]
        wait_until(lambda: (inside / "log").exists(), "one script runs")
        wait_until(lambda: sum(future.done() for future in futures) >= 12, "those without a thread are refused", 30)
        for _ in range(10):
            assert server.get("/x.txt")[1] == b"a file"
            assert server.get("/cgi-bin/missing")[0].status == 404
        assert (inside / "log").read_text().count("\n") == 1
        (inside / "go").touch()
        statuses = [future.result(60)[0].status for future in futures]
    assert set(statuses) == {200, 503}
    assert 1 <= statuses.count(200) <= 4


def test_a_slot_is_kept_until_the_script_has_ended(site: Site, inside: Path) -> None:
    """A script that works on after its answer runs still, and counts."""
    site.sh("outliving.sh", OUTLIVING)
    with limited("gunicorn", site, 1) as server, ThreadPoolExecutor() as executor:
        assert server.get(f"/cgi-bin/outliving.sh/1?{inside}")[1] == b"ok\n"
        future = executor.submit(server.get, f"/cgi-bin/outliving.sh/2?{inside}")
        wait_until(lambda: (inside / "log").exists(), "the first runs")
        assert server.get("/cgi-bin/missing")[0].status == 404
        assert not future.done()
        (inside / "go").touch()
        assert future.result(30)[1] == b"ok\n"
        wait_until(lambda: (inside / "log").read_text().count("\n") == 4, "both have ended")
    assert (inside / "log").read_text() == "begin /1\nend /1\nbegin /2\nend /2\n"


def test_a_slow_upload_has_no_slot(site: Site, inside: Path) -> None:
    """A body is collected before its script waits: clients that dawdle hold up nobody."""
    site.python("counted.py", COUNTED)
    head = f"POST /cgi-bin/counted.py?{inside} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"
    with (
        limited("gunicorn", site, 1) as server,
        socket.create_connection((server.host, server.port), timeout=30) as slow,
    ):
        slow.sendall(head.encode() + b"ab")
        for _ in range(4):
            assert server.get(f"/cgi-bin/counted.py?{inside}")[1] == b"1\n"
        slow.sendall(b"cd")
        assert slow.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_script_that_fails_gives_its_slot_back(site: Site, inside: Path) -> None:
    """Whatever way it ends: it cannot start, has no head, dies, or its client leaves."""
    site.script("broken", "#!/missing/interpreter\n")
    site.sh("silent.sh", "exit 3\n")
    site.sh("killed.sh", "kill -9 $$\n")
    site.sh("endless.sh", "printf 'Content-Type: text/plain\n\nx'; exec sleep 1000\n")
    site.python("counted.py", COUNTED)
    with limited("waitress", site, 1) as server:
        for name, status in {"broken": 500, "silent.sh": 502, "killed.sh": 502}.items():
            assert server.get(f"/cgi-bin/{name}")[0].status == status
        with socket.create_connection((server.host, server.port), timeout=30) as client:
            client.sendall(b"GET /cgi-bin/endless.sh HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(65536)
        assert server.get(f"/cgi-bin/counted.py?{inside}")[1] == b"1\n"


def test_a_killed_worker_takes_no_slot_with_it(site: Site, inside: Path) -> None:
    """The system ends a worker (OOM): its slots are free for the other ones, and its scripts end."""
    site.sh("waiting.sh", WAITING)
    site.python("counted.py", COUNTED)
    options = ("-w", "1", "--threads", "8")
    with limited("gunicorn", site, 1, options=options) as server, ThreadPoolExecutor() as executor:
        future = executor.submit(server.get, f"/cgi-bin/waiting.sh?{inside}")
        wait_until(lambda: (inside / "log").exists(), "the script runs")
        (worker_pid,) = [pid for pid in server.pids() if "gunicorn" in command(pid) and pid != server.process.pid]
        os.kill(worker_pid, signal.SIGKILL)
        with pytest.raises((OSError, servers.http.client.HTTPException)):
            future.result(30)
        (inside / "log").unlink()
        (inside / "go").touch()
        wait_until(lambda: server.log.count("Booting worker") == 2, "there is a new worker", 30)
        assert server.get(f"/cgi-bin/waiting.sh?{inside}")[1] == b"ok\n"


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


@pytest.mark.parametrize("kind", ["gunicorn", "waitress"])
def test_a_server_with_scripts_in_line_can_stop(kind: str, site: Site, inside: Path) -> None:
    """Those who wait do not hold it up beyond its own grace."""
    site.sh("waiting.sh", WAITING)
    options = ("-w", "1", "--graceful-timeout", "1") if kind == "gunicorn" else ()
    with limited(kind, site, 1, options=options) as server, ThreadPoolExecutor() as executor:
        futures = [executor.submit(server.get, f"/cgi-bin/waiting.sh/{n}?{inside}") for n in range(4)]
        wait_until(lambda: (inside / "log").exists(), "one script runs")
        server.stop()
        for future in futures:
            with contextlib.suppress(OSError, servers.http.client.HTTPException):
                future.result(30)
        wait_until(lambda: not servers.descendants(server.process.pid)[1:], "nothing is left")
    # none of those in line began when the first one's end freed its slot
    assert (inside / "log").read_text().count("begin") == 1
