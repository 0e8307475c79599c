"""Faults under load, on real servers: who is not concerned is answered exactly, and afterwards all is as it was."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import http.client
import os
import random
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import servers
from programs import find
from servers import BIN, Server, is_warden, running, serving, steps, wait_until
from sites import Site

CT = "Content-Type: text/plain\n\n"


def state(server: Server) -> dict[str, int]:
    """What a fault could leave behind: processes, descriptors, MiB of memory of the server and all below it."""
    pids = [pid for pid in server.pids() if not is_warden(pid)]
    found = {"processes": len(pids), "descriptors": 0, "memory": 0}
    for pid in pids:
        with contextlib.suppress(OSError):
            found["descriptors"] += len(os.listdir(f"/proc/{pid}/fd"))
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith(("RssAnon:", "RssShmem:")):
                    found["memory"] += int(line.split()[1]) // 1024
    return found


def settled(server: Server) -> dict[str, int]:
    """The state of a server once each of its workers has served.

    gunicorn's are told to have booted before they load the application; what they open once (their way to the warden,
    the null device) and load when it is needed is there then, too.
    """
    processes = len(server.pids())  # as many at once, so that each worker serves one
    served = at_once(processes * 3, lambda _: server.get(steps(["sleep", 0.2], ["out", CT + "served"]))[1], processes)
    assert served == [b"served"] * processes * 3
    return state(server)


@contextlib.contextmanager
def as_before(server: Server, spool: Path | None = None) -> Iterator[None]:
    """Whatever happens inside, afterwards the server serves, and nothing is left: the connections of clients aside."""
    before = settled(server)
    yield
    assert server.get(steps(["out", CT + "alive"]))[1] == b"alive"
    now: dict[str, int] = {}

    def is_as_before() -> bool:
        now.update(state(server))
        room = {"processes": 0, "descriptors": 8, "memory": 40}
        return all(now[what] <= before[what] + more for what, more in room.items())

    try:
        wait_until(is_as_before, "all is as before", 120)
    except AssertionError:
        raise AssertionError(f"before: {before}, now: {now}\n{server.log[-2000:]}") from None
    assert spool is None or not list(spool.iterdir())


def at_once(number: int, call: Callable[[int], object], threads: int | None = None) -> list:
    """Call a function with 0, 1, ... in threads; results or exceptions, in order."""

    def safely(i: int) -> object:
        try:
            return call(i)
        except Exception as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(threads or number) as pool:
        return list(pool.map(safely, range(number)))


def test_two_hundred_slow_scripts_at_once_are_all_answered(server: Server) -> None:
    """Those that find no thread wait for one; none is lost and none gets another's answer."""
    with as_before(server):
        answers = at_once(200, lambda i: server.get(steps(["sleep", 0.2], ["out", f"{CT}{i}"]), timeout=240)[1])
    assert answers == [str(i).encode() for i in range(200)]


def test_killed_scripts_do_not_concern_others(server: Server, tmp_path: Path) -> None:
    """SIGKILL for scripts at random during 500 requests: all others are exact, victims get a 502 or a broken answer."""
    victims: set[str] = set()
    chance = random.Random(1)
    over = threading.Event()

    def kill_some() -> None:
        while not over.wait(0.02):
            files = sorted(tmp_path.glob("pid-*"))
            if files:
                name = chance.choice(files)
                with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
                    pid = int(name.read_text())
                    victims.add(name.name)
                    os.kill(pid, signal.SIGKILL)

    def ask(i: int) -> object:
        name = f"pid-{i}"
        work = [["touch", str(tmp_path / name)]] if i % 3 == 0 else []
        target = steps(*work, ["out", f"{CT}begin {i} "], ["sleep", 0.05], ["out", f"end {i}"])
        try:
            response, body = server.get(target, timeout=240)
            return response.status, body
        finally:
            (tmp_path / name).unlink(missing_ok=True)

    with as_before(server):
        killer = threading.Thread(target=kill_some)
        killer.start()
        try:
            answers = at_once(500, ask, threads=12)
        finally:
            over.set()
            killer.join()
    for i, answer in enumerate(answers):
        if f"pid-{i}" not in victims:
            assert answer == (200, f"begin {i} end {i}".encode())
        elif not isinstance(answer, http.client.IncompleteRead):
            assert answer == (200, f"begin {i} end {i}".encode()) or answer[0] == 502
    assert victims


def workers(server: Server) -> list[int]:
    """The processes that start scripts."""
    pids = [pid for pid in server.pids() if not is_warden(pid)]
    return pids[1:] or pids


def test_no_script_survives_a_worker_that_is_killed(server_kind: str, site: Site, tmp_path: Path) -> None:
    """A process that gets SIGKILL cannot end its scripts; its warden does."""
    with serving(server_kind, site.directory, tmp_path / "log") as server:
        its_workers = workers(server)
        clients = []
        for i in range(6):
            work = [["child", 300], ["touch", str(tmp_path / f"pid-{i}")], ["sleep", 300]]
            sock = socket.create_connection(("127.0.0.1", server.port))
            sock.sendall(f"GET {steps(*work)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            clients.append(sock)
            if server_kind == "gunicorn-sync" and i == 3:
                break  # as many as it has workers
        files = [tmp_path / f"pid-{i}" for i in range(len(clients))]
        wait_until(lambda: all(file.exists() and file.read_text() for file in files), "the scripts run")
        groups = [int(file.read_text()) for file in files]
        for pid in its_workers:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not living(groups), "the scripts and their children have ended")
        for sock in clients:
            sock.close()


def living(groups: list[int]) -> list[int]:
    """The living processes of some process groups."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            status, _, group = Path(f"/proc/{int(name)}/stat").read_text().rpartition(")")[2].split()[:3]
            if int(group) in groups and status not in "ZX":
                found.append(int(name))
    return found


def test_graceful_stop_completes_what_runs(site: Site, tmp_path: Path) -> None:
    """gunicorn and wsgicgi-dev let twenty running scripts answer before they end."""
    for kind in ("gunicorn", "gunicorn-gevent", "dev"):
        go_on = tmp_path / f"go-on-{kind}"
        # a worker that hangs at its end would be killed only after the test's deadline
        options = [] if kind == "dev" else ["--graceful-timeout", "60"]
        options += ["--threads", "20"] if kind == "gunicorn" else []
        with serving(kind, site.directory, tmp_path / f"{kind}.log", options=options) as server:

            def ask(i: int, server: Server = server, kind: str = kind, go_on: Path = go_on) -> bytes:
                began = str(tmp_path / f"{kind}-{i}")
                return server.get(steps(["touch", began], ["wait_for", str(go_on)], ["out", f"{CT}{i}"]))[1]

            with concurrent.futures.ThreadPoolExecutor(20) as pool:
                answers = [pool.submit(ask, i) for i in range(20)]
                wait_until(lambda kind=kind: len(list(tmp_path.glob(f"{kind}-*"))) == 20, "all scripts run", 50)
                server.process.send_signal(signal.SIGTERM)
                go_on.touch()
                assert [answer.result() for answer in answers] == [str(i).encode() for i in range(20)], kind
            assert server.process.wait(50) == 0


def test_scripts_that_outstay_a_graceful_stop_are_ended(site: Site, tmp_path: Path) -> None:
    """When gunicorn's graceful time-out is over it kills its workers; their scripts go with them."""
    with serving("gunicorn", site.directory, tmp_path / "log", options=["--graceful-timeout", "1"]) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            work = [["ignore", signal.SIGTERM], ["touch", str(tmp_path / "pid")], ["sleep", 300]]
            sock.sendall(f"GET {steps(*work)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the script runs")
            group = int((tmp_path / "pid").read_text())
            server.stop()
        wait_until(lambda: not living([group]), "the script has ended")


def under(prefix: list[str], site: Site, log_file: Path, *options: str) -> contextlib.AbstractContextManager[Server]:
    """gunicorn with one worker and eight threads, started through another command."""
    command = [*prefix, str(BIN / "gunicorn"), "-k", "gthread", "-w", "1", "--threads", "8", "-b", "127.0.0.1:0"]
    env = {"WSGICGI_DIRECTORY": str(site.directory)}
    if servers.has_control_socket():
        command.append("--no-control-socket")
    ready = r"(?s)Listening at: http://127\.0\.0\.1:(\d+).*Booting worker"
    return running([*command, *options, "wsgicgi:create_app()"], ready, log_file, env=env)


def test_full_disk_is_507_and_leaves_nothing(site: Site, tmp_path: Path) -> None:
    """A body that finds no room is refused with a clear line; smaller ones go on being taken."""
    unshare = find("unshare", package="util-linux")
    spool = tmp_path / "spool"
    spool.mkdir()
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    mount = f'mount -t tmpfs -o size=3m tmpfs {spool} && export TMPDIR={spool} && exec "$@"'
    with (
        under([unshare, "--mount", *user, "sh", "-c", mount, "sh"], site, tmp_path / "log") as server,
        as_before(server),
    ):
        for body in (os.urandom(8 << 20), iter([bytes(1 << 20)] * 8)):
            response, _ = server.request("POST", steps(["out", CT], ["hash"]), body=body)
            assert response.status == 507
        wait_until(lambda: f"no room for a request body in {spool}: No space left on device" in server.log, "the cause")
        body = os.urandom(2 << 20)
        answers = [server.request("POST", steps(["out", CT], ["hash"]), body=body)[1] for _ in range(3)]
        assert answers == [f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()] * 3


def accepted(server: Server) -> set[int]:
    """The clients' ports of the connections that a server has open (proc_pid_net(5): inode 0 is nobody's)."""
    lines = Path(f"/proc/{server.process.pid}/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return {int(each[2][-4:], 16) for each in fields if each[1].endswith(f":{server.port:04X}") and each[9] != "0"}


def test_out_of_descriptors_is_503_and_recovers(site: Site, tmp_path: Path) -> None:
    """Scripts that find no descriptor get 503 with Retry-After; when others have ended, all is well again."""
    limit = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32)); "
    limit += "os.execv(sys.argv[1], sys.argv[1:])"
    go_on = tmp_path / "go-on"
    with under([sys.executable, "-c", limit], site, tmp_path / "log", "--keep-alive", "0") as server, as_before(server):
        connections = [server.connection() for _ in range(8)]
        for connection in connections:
            connection.connect()
        # the server has all of them before the first script: none waits for a descriptor that no script gives back
        peers = {connection.sock.getsockname()[1] for connection in connections}
        wait_until(lambda: peers <= accepted(server), "all are accepted")

        def ask(i: int) -> tuple[int, str | None]:
            target = steps(["touch", str(tmp_path / f"began-{i}")], ["wait_for", str(go_on)], ["out", CT])
            with contextlib.closing(connections[i]) as connection:
                try:
                    connection.request("GET", target)
                    response = connection.getresponse()
                    response.read()
                except (http.client.RemoteDisconnected, ConnectionResetError):
                    return 0, None  # gunicorn itself found no descriptor
                return response.status, response.headers["Retry-After"]

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, i) for i in range(8)]
            wait_until(lambda: any(each.done() for each in asked), "one of them is refused")
            go_on.touch()
            answers = [each.result() for each in asked]
        assert {(200, None), (503, "5")} <= set(answers) <= {(200, None), (503, "5"), (0, None)}
        wait_until(lambda: "Too many open files" in server.log, "the cause is in the log")


def test_out_of_processes_is_503_and_recovers(tmp_path_factory: pytest.TempPathFactory) -> None:
    """EAGAIN: the same, for processes. The server may run as a user who cannot run its own Python again."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        site = Site(Path(place) / "site")
        go_on = Path(place) / "go-on"
        os.mkfifo(go_on)
        os.chmod(go_on, 0o666)
        gate = os.open(go_on, os.O_RDWR)
        # waits without a process of its own, which might be the one that is refused
        site.sh("wait", f"read line < {go_on}; printf 'X-A: 1\\n\\ndone'\n")
        site.sh("quick", "printf 'X-A: 1\\n\\nquick'\n")
        command = [sys.executable, Path(__file__).parent / "limited_server.py", site.directory, "5"]
        log_file = tmp_path_factory.mktemp("log") / "log"
        with running(command, r"Serving on http://127\.0\.0\.1:(\d+)", log_file) as server:

            def ask(_: int) -> tuple[int, str | None]:
                response, _body = server.get("/cgi-bin/wait")
                return response.status, response.headers["Retry-After"]

            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                asked = [pool.submit(ask, i) for i in range(8)]
                wait_until(lambda: any(each.done() for each in asked), "one of them is refused")
                os.write(gate, b"\n" * 100)
                answers = [each.result() for each in asked]
            os.close(gate)
            assert set(answers) == {(200, None), (503, "5")}
            wait_until(
                lambda: "cannot start: Resource temporarily unavailable" in server.log, "the cause is in the log"
            )
            assert [server.get("/cgi-bin/quick")[1] for _ in range(3)] == [b"quick"] * 3


def test_tree_of_children_ends_with_its_client(server: Server, tmp_path: Path) -> None:
    """Children and grandchildren that stay in the process group go with the script."""
    pid_file = tmp_path / "pid"
    tree = [["background", [["background", [["sleep", 300]]], ["child", 300], ["sleep", 300]]]] * 5
    with as_before(server):
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            target = steps(*tree, ["touch", str(pid_file)], ["sleep", 300])
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            wait_until(lambda: pid_file.exists() and pid_file.read_text(), "the script runs")
            group = int(pid_file.read_text())
            wait_until(lambda: len(living([group])) >= 16, "its children run")
        wait_until(lambda: not living([group]), "all of them have ended")


def test_clients_that_read_slowly_get_every_byte(server: Server) -> None:
    """The script waits for its reader; the server does not keep the answer in memory."""
    size = 2_000_000

    def read_slowly(_: int) -> str:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            sock.settimeout(60)
            sock.connect(("127.0.0.1", server.port))
            sock.sendall(f"GET {steps(['out', CT], ['fill', size])} HTTP/1.0\r\n\r\n".encode())
            data = b""
            while piece := sock.recv(4096):
                data += piece
        return hashlib.sha256(data.partition(b"\r\n\r\n")[2]).hexdigest()

    block = b"0123456789abcdef" * 4096
    expected = hashlib.sha256((block * (size // len(block) + 1))[:size]).hexdigest()
    with as_before(server):
        assert at_once(8, read_slowly) == [expected] * 8


def test_clients_that_send_slowly_are_answered(server: Server) -> None:
    """A body in pieces of a few bytes, with others served meanwhile."""
    body = os.urandom(3000)

    def send_slowly(_: int) -> bytes:
        with socket.create_connection(("127.0.0.1", server.port), 60) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            head = f"POST {steps(['out', CT], ['hash'])} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n"
            sock.sendall(head.encode())
            for i in range(0, len(body), 10):
                sock.sendall(body[i : i + 10])
            data = b""
            while piece := sock.recv(4096):
                data += piece
        return data.partition(b"\r\n\r\n")[2]

    with as_before(server):
        assert at_once(3, send_slowly) == [f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()] * 3


def test_clients_that_leave_in_the_middle_leave_nothing(server: Server) -> None:
    """Two hundred clients that reset their connection: while sending, while waiting, while reading."""

    def leave(i: int) -> None:
        with socket.create_connection(("127.0.0.1", server.port), 120) as sock:
            if i % 3 == 0:
                sock.sendall(b"POST /cgi-bin/report.py HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc")
            elif i % 3 == 1:
                sock.sendall(f"GET {steps(['sleep', 300])} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            else:
                sock.sendall(f"GET {steps(['out', CT], ['fill', 1 << 40])} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                sock.recv(1000)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with as_before(server):
        assert at_once(200, leave, threads=8) == [None] * 200
