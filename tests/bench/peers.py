"""Starting servers on one site: wsgicgi's hosts and their peers, each with a configuration that is fair to it.

Fair is: keep-alive, no access log, as many workers as there are requests at once, and for streams also the setting that
does not hold bytes back. Everything that a server writes goes to a temporary directory of its own.

Started by root, servers run in a user namespace as an ordinary user: the same files can be read, but none of them gives
its scripts to another user, as http.server and wsgicgi would and Apache must.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from content import NotInstalled, program
from measure import Group

HERE = Path(__file__).parent
APPS = HERE / "apps"
OWN_TREE = HERE.parent.parent
HOST = "127.0.0.1"
START_SECONDS = 30
STOP_SECONDS = 5
NOBODY = 65534


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and how a server is to be started.

    Attributes:
        site: The directory that it serves.
        work: A directory of its own.
        port: Where it listens.
        concurrency: Requests at once, at most.
        workers: Processes of gunicorn.
        threads: Threads of each of them, and of waitress.
        http_server_python: The interpreter for Python's own server; "" to look for one.
    """

    site: Path
    work: Path
    port: int
    concurrency: int
    workers: int = 2
    threads: int = 8
    http_server_python: str = ""

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Commands:
    """What starts a server: its command, helpers that must be there before it, variables."""

    main: list[str | Path]
    helpers: list[list[str | Path]] = field(default_factory=list)
    env: Mapping[str, str] = field(default_factory=dict)


Builder = Callable[[Place], Commands]


class Server:
    """A running server."""

    def __init__(self, name: str, place: Place, group: Group, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.port = place.port
        self.scripts = place.site / "cgi-bin"
        self.group = group
        self.process = process
        self.log = log

    def wait_until_idle(self, seconds: float = 5) -> None:
        """Wait until no script runs any more."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if all(_cwd(pid) != str(self.scripts) for pid in self.group.pids()):
                return
            time.sleep(0.02)


def _cwd(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


@contextlib.contextmanager
def running(name: str, builder: Builder, *, in_namespace: bool = True, **settings: object) -> Iterator[Server]:
    """Start a server, wait until it answers, and stop it at the end; ``settings`` as in ``Place``.

    Raises:
        NotInstalled: It is not here.
        RuntimeError: It does not start; the message has its log's end.
    """
    with contextlib.ExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="wsgicgi-bench-"))
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        work.chmod(0o755)
        place = Place(work=work, port=_free_port(), **settings)  # type: ignore[arg-type]
        commands = builder(place)
        log = work / "server.log"
        group = Group(name.replace("/", "-"))
        stack.callback(group.end)
        prefix = _namespace() if in_namespace else ()
        env = {**_environment(), **commands.env, "TMPDIR": str(work)}
        with open(log, "wb") as output:
            for command in (*commands.helpers, commands.main):
                process = subprocess.Popen(
                    group.launch([*prefix, *map(str, command)]),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=work,
                    env=env,
                    start_new_session=True,
                )
                group.roots.append(process.pid)
                stack.callback(_stop, process)
                if command in commands.helpers:
                    _wait(lambda: (work / "helper.sock").exists(), process, log, f"{name}'s helper is there")
        _wait(lambda: _answers(place.port), process, log, f"{name} answers")
        yield Server(name, place, group, process, log)


def _environment() -> dict[str, str]:
    """Our own variables without those that change what Python and wsgicgi do, and the locale: not all hand it on."""
    ours = ("PYTHON", "WSGICGI_", "BENCH_", "LANG", "LC_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            text = "".join(file.read_text(errors="replace") for file in sorted(log.parent.glob("*.log")))
            raise RuntimeError(f"not so within {START_SECONDS} s: {what}: {text[-2000:]}")
        time.sleep(0.02)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/no-such-file")
        connection.getresponse().read()
        return True
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@functools.cache
def _namespace() -> tuple[str, ...]:
    if os.geteuid() != 0:
        return ()
    prefix = ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}")
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        print("note: no user namespaces here: servers run as root, and some of them do not start so", file=sys.stderr)
        return ()
    return prefix


# -- wsgicgi


@functools.cache
def _gunicorn_options() -> tuple[str, ...]:
    if importlib.util.find_spec("gunicorn") is None:
        raise NotInstalled("there is no gunicorn; pip install -e '.[test]'")
    text = subprocess.run([sys.executable, "-m", "gunicorn", "--help"], capture_output=True, text=True).stdout
    return ("--no-control-socket",) if "--no-control-socket" in text else ()


def gunicorn(place: Place, app: str, *, kind: str = "gthread", env: Mapping[str, str] | None = None) -> Commands:
    """gunicorn with an application of ``apps``, or another."""
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "gunicorn",
        "-b",
        place.address,
        "-k",
        kind,
        *_gunicorn_options(),
    ]
    command += ["-w", str(place.workers), "--backlog", "2048", "--timeout", "300", "--graceful-timeout", "2"]
    command += ["--log-level", "warning", "--pythonpath", APPS, "--worker-connections", "4096", "--keep-alive", "5"]
    if kind == "gthread":
        command += ["--threads", str(place.threads)]
    return Commands(main=[*command, app], env={"BENCH_SITE": str(place.site), **(env or {})})


def ours(kind: str, tree: Path, settings: Mapping[str, str] | None = None) -> Builder:
    """The builder for wsgicgi from a checkout, under a kind of gunicorn's workers, or waitress."""

    def build(place: Place) -> Commands:
        env = {"PYTHONPATH": str(tree), "WSGICGI_DIRECTORY": str(place.site), **(settings or {})}
        if kind != "waitress":
            return gunicorn(place, "ours:app", kind=kind, env=env)
        command: list[str | Path] = [sys.executable, "-m", "waitress", f"--listen={place.address}"]
        command += [f"--threads={max(place.threads, place.concurrency)}", "--connection-limit=2000", "--backlog=1024"]
        # poll, for with select it ends at the 1024th descriptor; each script has three
        command += ["--asyncore-use-poll", f"--max-request-body-size={1 << 40}", "--call", "wsgicgi:create_app"]
        return Commands(main=command, env=env)

    return build


OUR_KINDS = ("gthread", "gevent", "waitress")


# -- peers


def _lighttpd(place: Place, *, streams: bool) -> Commands:
    way = 2 if streams else 0
    configuration = place.work / "lighttpd.conf"
    configuration.write_text(f"""
server.modules = ( "mod_cgi" )
server.document-root = "{place.site}"
server.bind = "{HOST}"
server.port = {place.port}
server.errorlog = "{place.work}/error.log"
server.upload-dirs = ( "{place.work}" )
server.max-worker = 2
server.max-connections = 4096
server.max-fds = 16384
server.listen-backlog = 2048
server.max-keep-alive-requests = 100000000
server.stream-request-body = {way}
server.stream-response-body = {way}
mimetype.assign = ( ".bin" => "application/octet-stream" )
$HTTP["url"] =~ "^/cgi-bin/" {{ cgi.assign = ( "" => "" ) }}
cgi.execute-x-only = "enable"
""")
    return Commands(main=[program("lighttpd", "lighttpd"), "-D", "-f", configuration])


def _nginx(place: Place, *, streams: bool, helpers: list[list[str | Path]], fast_cgi: str) -> Commands:
    on_off = "off" if streams else "on"
    configuration = place.work / "nginx.conf"
    configuration.write_text(f"""
worker_processes 2;
worker_rlimit_nofile 16384;
daemon off;
pid {place.work}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  default_type application/octet-stream;
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 100000000;
  client_max_body_size 0;
  client_body_temp_path {place.work}/body;
  fastcgi_temp_path {place.work}/fastcgi;
  proxy_temp_path {place.work}/proxy;
  uwsgi_temp_path {place.work}/uwsgi;
  scgi_temp_path {place.work}/scgi;
  open_file_cache max=1000;
  server {{
    listen {place.address} backlog=2048;
    root {place.site};
    location /cgi-bin/ {{
      {fast_cgi}
      fastcgi_buffering {on_off};
      fastcgi_request_buffering {on_off};
    }}
  }}
}}
""")
    command: list[str | Path] = [program("nginx", "nginx"), "-p", place.work, "-c", configuration]
    command += ["-e", place.work / "error.log"]
    return Commands(main=command, helpers=helpers)


def _fcgiwrap(place: Place, *, streams: bool) -> Commands:
    variables = {
        "SCRIPT_FILENAME": "$document_root$fastcgi_script_name",
        "SCRIPT_NAME": "$fastcgi_script_name",
        "DOCUMENT_ROOT": "$document_root",
        "QUERY_STRING": "$query_string",
        "REQUEST_METHOD": "$request_method",
        "REQUEST_URI": "$request_uri",
        "CONTENT_TYPE": "$content_type",
        "CONTENT_LENGTH": "$content_length",
        "SERVER_PROTOCOL": "$server_protocol",
        "SERVER_SOFTWARE": "nginx",
        "SERVER_NAME": "$server_name",
        "SERVER_PORT": "$server_port",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REMOTE_ADDR": "$remote_addr",
    }
    if streams:
        variables["NO_BUFFERING"] = "1"  # fcgiwrap: hand each piece on
    lines = [f"fastcgi_param {name} {value};" for name, value in variables.items()]
    socket_file = place.work / "helper.sock"
    processes = str(max(16, place.concurrency))
    return _nginx(
        place,
        streams=streams,
        helpers=[[program("fcgiwrap", "fcgiwrap"), "-c", processes, "-s", f"unix:{socket_file}"]],
        fast_cgi="\n      ".join([f"fastcgi_pass unix:{socket_file};", *lines]),
    )


def _nginx_alone(place: Place) -> Commands:
    return _nginx(place, streams=False, helpers=[], fast_cgi="return 404;")


APACHE_MODULES = "/usr/lib/apache2/modules"


def _apache(place: Place) -> Commands:
    apache = program("apache2", "apache2")
    modules = ("mpm_event", "cgid", "authz_core", "mime", "dir")
    loaded = "\n".join(f"LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so" for name in modules)
    configuration = place.work / "apache.conf"
    configuration.write_text(f"""
ServerRoot {place.work}
DefaultRuntimeDir {place.work}
ServerName localhost
Listen {place.address}
ListenBacklog 2048
PidFile {place.work}/apache.pid
{loaded}
ScriptSock {place.work}/cgid.sock
StartServers 2
ServerLimit 8
ThreadsPerChild 64
MinSpareThreads 64
MaxSpareThreads 512
MaxRequestWorkers 512
Timeout 300
KeepAlive On
MaxKeepAliveRequests 0
ErrorLog {place.work}/error.log
LogLevel warn
TypesConfig /etc/mime.types
EnableSendfile On
DocumentRoot {place.site}
<Directory />
  AllowOverride None
  Options FollowSymLinks
</Directory>
<Directory {place.site}/cgi-bin>
  SetHandler cgi-script
  Options +ExecCGI
</Directory>
""")
    return Commands(main=[apache, "-D", "FOREGROUND", "-f", str(configuration)])


def _uwsgi(place: Place) -> Commands:
    """uWSGI's CGI plugin behind its own router, which has no keep-alive for scripts' answers without a length."""
    if not Path("/usr/lib/uwsgi/plugins/cgi_plugin.so").exists():
        raise NotInstalled("there is no uWSGI with its cgi plugin; the Debian package is uwsgi-core")
    channel = str(place.work / "uwsgi.sock")
    command: list[str | Path] = [
        "/usr/bin/uwsgi",
        "--plugin",
        "http,cgi",
        "--http",
        place.address,
        "--http-to",
        channel,
    ]
    command += ["--socket", channel, "--http-modifier1", "9", "--http-chunked-input", "--http-timeout", "300"]
    command += ["--master", "--die-on-term", "--processes", "4", "--threads", str(max(16, place.concurrency // 4 + 1))]
    command += ["--thunder-lock", "--disable-logging", "--listen", _listen_backlog(), "--socket-timeout", "300"]
    command += ["--cgi-timeout", "300", "--cgi-close-stdin-on-eof", "--cgi", f"/cgi-bin={place.site}/cgi-bin"]
    return Commands(main=command)


def _listen_backlog() -> str:
    """At most what the kernel allows, or uWSGI does not start."""
    with contextlib.suppress(OSError):
        return str(min(1024, int(Path("/proc/sys/net/core/somaxconn").read_text())))
    return "100"


def _http_server(place: Place) -> Commands:
    command: list[str | Path] = [_python_with_cgi(place.http_server_python), APPS / "http_server.py"]
    return Commands(main=[*command, place.site, str(place.port)])


@functools.cache
def _python_with_cgi(given: str) -> str:
    """The newest Python here that still has a CGI server."""
    candidates = [given] if given else [*(shutil.which(f"python3.{n}") for n in (14, 13, 12, 11)), sys.executable]
    for python in filter(None, candidates):
        check = [python, "-W", "ignore", "-c", "import http.server; http.server.CGIHTTPRequestHandler"]
        if subprocess.run(check, capture_output=True).returncode == 0:
            return python
    raise NotInstalled("there is no Python with http.server's CGI (3.14 or older); give --http-server-python")


def _go(place: Place) -> Commands:
    go = program("go", "golang-go")
    target = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wsgicgi-bench" / "cgi_host"
    source = APPS / "cgi_host.go"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        env = {**os.environ, "GO111MODULE": "off", "CGO_ENABLED": "0", "GOFLAGS": ""}
        env["GOCACHE"] = str(target.parent / "cache")
        subprocess.run([go, "build", "-o", target, source], check=True, env=env, cwd=place.work)
    return Commands(main=[str(target), place.site, place.address])


def _files_app(package: str, app: str) -> Builder:
    def build(place: Place) -> Commands:
        if importlib.util.find_spec(package) is None:
            raise NotInstalled(f"there is no {package}; pip install {package}")
        return gunicorn(place, f"files:{app}()")

    return build


PEERS: Mapping[str, Builder] = {
    "lighttpd": functools.partial(_lighttpd, streams=False),
    "lighttpd-stream": functools.partial(_lighttpd, streams=True),
    "nginx-fcgiwrap": functools.partial(_fcgiwrap, streams=False),
    "nginx-fcgiwrap-stream": functools.partial(_fcgiwrap, streams=True),
    "apache": _apache,
    "uwsgi": _uwsgi,
    "go": _go,
    "http.server": _http_server,
    "gunicorn-popen": functools.partial(gunicorn, app="least:popen"),
    "gunicorn-fork": functools.partial(gunicorn, app="least:fork"),
    "gunicorn-posix_spawn": functools.partial(gunicorn, app="least:posix_spawn"),
    "nginx": _nginx_alone,
    "whitenoise": _files_app("whitenoise", "whitenoise"),
    "shareddata": _files_app("werkzeug", "shared_data"),
}
