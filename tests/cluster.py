"""Several machines on one: network namespaces with a replica each, and one with HAProxy, at the addresses of its file.

Where the kernel refuses namespaces, addresses of the loopback network stand for them; a line says so.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from programs import find
from proxies import DEPLOY, free_port, replaced, telling
from servers import BIN, Server, running, wait_until


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Network:
    """Machines ``m1``, ``m2``, ... and ``balancer``; an address each."""

    def __init__(self, machines: int) -> None:
        self.names = [f"m{number}" for number in range(1, machines + 1)]
        self._id = f"w{os.getpid()}"
        self._made: list[str] = []
        self.front_port = 80
        self.port = 8000
        self.base = "10.0.0."
        find("ip", package="iproute2")
        try:
            self._make()
        except OSError as error:
            print(f"no network namespaces here ({error}): addresses of the loopback network in their place")
            self.close()
            self.base, self.front_port, self.port = "127.0.0.", free_port(), free_port()

    def _make(self) -> None:
        self._add("balancer")
        balancer = f"{self._id}balancer"
        _ip("-n", balancer, "link", "add", "br0", "type", "bridge")
        _ip("-n", balancer, "addr", "add", f"{self.base}1/24", "dev", "br0")
        _ip("-n", balancer, "link", "set", "br0", "up")
        for name in self.names:
            self._add(name)
            _ip("-n", balancer, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", self._id + name)
            _ip("-n", balancer, "link", "set", name, "master", "br0", "up")
            _ip("-n", self._id + name, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
            _ip("-n", self._id + name, "link", "set", "eth0", "up")

    def _add(self, name: str) -> None:
        _ip("netns", "add", self._id + name)
        self._made.append(self._id + name)
        _ip("-n", self._id + name, "link", "set", "lo", "up")

    def address(self, name: str) -> str:
        """As in ``deploy/haproxy.cfg``."""
        return self.base + ("1" if name == "balancer" else f"1{name[1:]}")

    def on(self, name: str) -> list[str]:
        """What a command begins with that runs on a machine."""
        return ["ip", "netns", "exec", self._id + name] if self._made else []

    def close(self) -> None:
        for name in self._made:
            _ip("netns", "del", name)
        self._made = []


@contextlib.contextmanager
def network(machines: int) -> Iterator[Network]:
    """Machines until the end of the block."""
    made = Network(machines)
    try:
        yield made
    finally:
        made.close()


def replica(
    net: Network, name: str, directory: Path, log_file: Path, *, prefix: Sequence[str] = (), **variables: str
) -> contextlib.AbstractContextManager[Server]:
    """gunicorn with ``deploy/gunicorn.conf.py`` and the variables of ``deploy/haproxy.cfg`` on a machine."""
    [line] = re.findall(r"(?m)^# On each machine: (.*)$", (DEPLOY / "haproxy.cfg").read_text())
    said = dict(re.findall(r"(\b[A-Z_]+)=(\S+)", line.replace(",", "")))
    assert said == {
        "WSGICGI_HEALTH": "yes",
        "WSGICGI_REQUEST_ID": "yes",
        "WSGICGI_TRUSTED_PROXIES": "10.0.0.1",
        "BIND": "0.0.0.0:8000",
        "DRAIN": "10",
    }
    said["WSGICGI_TRUSTED_PROXIES"] = net.address("balancer")
    said["BIND"] = f"{net.address(name)}:{net.port}"
    env = {"WSGICGI_DIRECTORY": str(directory), "WSGICGI_ENV": f"REPLICA={name}", **said, **variables}
    command = [*net.on(name), *prefix, BIN / "gunicorn", "--config", DEPLOY / "gunicorn.conf.py"]
    return running(command, r"Booting worker with pid: (\d+)", log_file, env=env)


class Balancer:
    """HAProxy with ``deploy/haproxy.cfg``."""

    def __init__(self, server: Server, admin: Path) -> None:
        self.server = server
        self._admin = admin

    def ask(self, command: str) -> str:
        """An answer from the socket for administration."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(30)
            asking.connect(str(self._admin))
            asking.sendall(command.encode() + b"\n")
            pieces = []
            while piece := asking.recv(65536):
                pieces.append(piece)
        return b"".join(pieces).decode()

    def is_up(self, name: str) -> bool:
        """Whether it sends requests to a machine."""
        return self._figures(name)[17].startswith("UP")

    def is_idle(self, name: str) -> bool:
        """Whether no request is under way to a machine."""
        return self._figures(name)[4] == "0"

    def _figures(self, name: str) -> list[str]:
        [line] = [line for line in self.ask("show stat").splitlines() if line.startswith(f"machines,{name},")]
        return line.split(",")


@contextlib.contextmanager
def balancing(net: Network, place: Path) -> Iterator[Balancer]:
    """HAProxy in front of all machines; it finds them by itself."""
    with tempfile.TemporaryDirectory(prefix="wsgicgi") as short:
        admin = Path(short, "admin")
        text = replaced((DEPLOY / "haproxy.cfg").read_text(), "/run/haproxy/admin.sock", str(admin))
        text = replaced(text, "bind :80", f"bind {net.address('balancer')}:{net.front_port}")
        for number in range(1, 4):
            line = f"    server m{number} 10.0.0.1{number}:8000\n"
            name = f"m{number}"
            new = f"    server {name} {net.address(name)}:{net.port}\n" if name in net.names else ""
            text = replaced(text, line, new)
        config = place / "haproxy.cfg"
        config.write_text(text)
        command = [*net.on("balancer"), find("haproxy", package="haproxy"), "-db", "-f", config]
        with running(telling(net.front_port, command), r"port (\d+)", place / "haproxy.log") as server:
            balancer = Balancer(server, admin)
            wait_until(admin.exists, "HAProxy runs")
            for name in net.names:
                wait_until(lambda name=name: balancer.is_up(name), f"{name} is up", 30)  # type: ignore[misc]
            yield balancer


def kill(server: Server) -> None:
    """End a machine at once: the server, its workers, its scripts."""
    for pid in server.pids():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.process.wait(15)
