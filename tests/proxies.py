"""The reverse proxies of ``deploy/``, started as they are but for addresses, which are the tests' own."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from programs import find
from servers import BIN, Server, running, wait_until

DEPLOY = Path(__file__).parent.parent / "deploy"

#: What the configurations for one machine say, and a test replaces.
SOCKET = "/run/wsgicgi.sock"


def free_port() -> int:
    """A port that the kernel has chosen, for programs that cannot tell which one they were given."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def replaced(text: str, old: str, new: str) -> str:
    """A text with something else in a place that it has once."""
    assert text.count(old) == 1, f"{text.count(old)} times {old!r}"
    return text.replace(old, new)


def can_connect(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


@contextlib.contextmanager
def behind_gunicorn(directory: Path, log_file: Path, **variables: str) -> Iterator[tuple[Server, Path]]:
    """gunicorn as ``deploy/gunicorn.conf.py`` has it, on a Unix socket; also the socket."""
    with tempfile.TemporaryDirectory(prefix="wsgicgi") as place:
        os.chmod(place, 0o755)  # proxies that root starts run as somebody else
        file = Path(place, "s")
        env = {"WSGICGI_DIRECTORY": str(directory), "BIND": f"unix:{file}", "WORKERS": "2", **variables}
        command = [BIN / "gunicorn", "--config", DEPLOY / "gunicorn.conf.py"]
        with running(command, r"(?s)(?:Booting worker with pid: (\d+).*?){2}", log_file, env=env) as server:
            yield server, file


def nginx(place: Path, port: int, upstream: Path) -> list[str | Path]:
    text = replaced((DEPLOY / "nginx.conf").read_text(), "listen 80;", f"listen 127.0.0.1:{port};")
    (place / "site.conf").write_text(replaced(text, SOCKET, str(upstream)))
    paths = [f"{name}_temp_path {place}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
    user = "user root;" if os.geteuid() == 0 else ""  # another one may not enter pytest's directories
    (place / "nginx.conf").write_text(
        f"daemon off; {user} pid {place}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {' '.join(paths)} include {place}/site.conf; }}\n"
    )
    return [find("nginx", package="nginx-light"), "-p", place, "-e", "stderr", "-c", place / "nginx.conf"]


def caddy(place: Path, port: int, upstream: Path) -> list[str | Path]:
    text = replaced((DEPLOY / "Caddyfile").read_text(), "\n:80 {", f"\nhttp://:{port} {{\n\tbind 127.0.0.1")
    # its port for administration is always the same
    (place / "Caddyfile").write_text("{\n\tadmin off\n}\n" + replaced(text, SOCKET, str(upstream)))
    return [find("caddy", package="caddy"), "run", "--adapter", "caddyfile", "--config", place / "Caddyfile"]


def apache(place: Path, port: int, upstream: Path) -> list[str | Path]:
    program = find("apache2", package="apache2")
    text = (DEPLOY / "apache.conf").read_text()
    # what Debian has switched on, as far as it matters, and what the file asks for
    modules = ["mpm_event", "authz_core", "filter", "deflate", *re.findall(r"a2enmod ([\w ]+?) &&", text)[0].split()]
    loads = [f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in modules]
    text = replaced(text, "*:80", f"127.0.0.1:{port}")
    main = [
        *loads,
        f"Listen 127.0.0.1:{port}",
        "ServerName localhost",
        f"DefaultRuntimeDir {place}",
        f"PidFile {place}/pid",
        f"ErrorLog {place}/error.log",
        # one process, from the beginning to the end
        *("StartServers 1", "ServerLimit 1", "ThreadsPerChild 25", "MaxRequestWorkers 25"),
        *("MinSpareThreads 1", "MaxSpareThreads 25"),
        *(["User www-data", "Group www-data"] if os.geteuid() == 0 else []),
        "AddOutputFilterByType DEFLATE text/plain",
        replaced(text, SOCKET, str(upstream)),
    ]
    (place / "apache.conf").write_text("\n".join(main))
    return [program, "-D", "FOREGROUND", "-d", place, "-f", place / "apache.conf"]


def haproxy(place: Path, port: int, upstream: Path) -> list[str | Path]:
    text = (DEPLOY / "haproxy.cfg").read_text()
    text = replaced(text, "bind :80", f"bind 127.0.0.1:{port}")
    text = replaced(text, "/run/haproxy/admin.sock", str(upstream.with_name("a")))
    text = replaced(text, "m1 10.0.0.11:8000", f"m1 unix@{upstream}")
    if os.geteuid() != 0:
        text = re.sub(r"(?m)^    (user|group) haproxy\n", "", text)
    (place / "haproxy.cfg").write_text(re.sub(r"(?m)^    server m[23] .*\n", "", text))
    return [find("haproxy", package="haproxy"), "-db", "-f", place / "haproxy.cfg"]


PROXIES: dict[str, Callable[[Path, int, Path], list[str | Path]]] = {
    "nginx": nginx,
    "caddy": caddy,
    "apache": apache,
    "haproxy": haproxy,
}


def telling(port: int, command: list[str | Path]) -> list[str | Path]:
    """A command that first says which port it was given, for ``servers.running``."""
    return ["sh", "-c", 'echo "port $0"; exec "$@"', str(port), *command]


@contextlib.contextmanager
def serving(kind: str, place: Path, upstream: Path) -> Iterator[Server]:
    """A proxy in front of a Unix socket."""
    port = free_port()
    command = telling(port, PROXIES[kind](place, port, upstream))
    env = {"HOME": str(place), "XDG_DATA_HOME": str(place), "XDG_CONFIG_HOME": str(place)}
    with running(command, r"port (\d+)", place / "proxy.log", env=env) as server:
        wait_until(lambda: can_connect(port), f"{kind} listens", 20)
        yield server
