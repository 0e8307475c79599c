"""Scripts behind the reverse proxies of ``deploy/``: nginx, Caddy, Apache, HAProxy; gunicorn has its configuration."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import json
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import proxies
import pytest
from servers import Server, wait_until
from sites import Site

#: Where the client is; the proxy is at another address of this machine.
CLIENT = "127.0.0.9"


class Stack:
    """A proxy, gunicorn behind it, and the site."""

    def __init__(self, kind: str, proxy: Server, gunicorn: Server, site: Site) -> None:
        self.kind = kind
        self.proxy = proxy
        self.gunicorn = gunicorn
        self.site = site

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.proxy.port, timeout=30, source_address=(CLIENT, 0))

    def request(self, *words: Any, **options: Any) -> tuple[http.client.HTTPResponse, bytes]:
        connection = self.connection()
        try:
            connection.request(*words, **options)
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def report(self, target: str, **options: Any) -> dict[str, Any]:
        """What a script was given."""
        response, body = self.request(options.pop("method", "GET"), target, **options)
        assert response.status == 200, body
        found: dict[str, Any] = json.loads(body)
        return found


@pytest.fixture(scope="module", params=proxies.PROXIES)
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Each proxy in turn."""
    place = tmp_path_factory.mktemp(request.param)
    site = Site(place / "site")
    variables = {
        "WSGICGI_TRUSTED_PROXIES": "unix",
        "WSGICGI_HEALTH": "yes",
        "WSGICGI_METRICS": "yes",
        "WSGICGI_REQUEST_ID": "yes",
    }
    with (
        proxies.behind_gunicorn(site.directory, place / "gunicorn.log", **variables) as (gunicorn, socket),
        proxies.serving(request.param, place, socket) as proxy,
    ):
        found = Stack(request.param, proxy, gunicorn, site)
        wait_until(
            lambda: found.request("GET", "/cgi-bin/report.py")[0].status == 200, "the proxy has found gunicorn", 20
        )
        yield found


SPOOFED = {
    "X-Forwarded-For": "192.0.2.66",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "666",
    "X-Forwarded-Prefix": "/evil",
    "Forwarded": "for=192.0.2.66;proto=https",
    "X-Real-IP": "192.0.2.66",
}


# a proxy that takes its own fields away for it would speak for a client of the same machine
HOP_BY_HOP = {"Connection": "close, X-Forwarded-For, X-Forwarded-Proto"}


@pytest.mark.parametrize("fields", [{}, SPOOFED, HOP_BY_HOP], ids=["plain", "spoofed", "hop-by-hop"])
def test_scripts_see_the_client_and_what_it_asked_for(stack: Stack, fields: dict[str, str]) -> None:
    """Address, scheme, host and port are the client's own, whatever it claims."""
    host = f"www.example.org:{stack.proxy.port}"
    environ = stack.report("/cgi-bin/report.py", headers={**fields, "Host": host})["environ"]
    assert (environ["REMOTE_ADDR"], environ["REMOTE_HOST"]) == (CLIENT, CLIENT)
    assert (environ["HTTP_HOST"], environ["SERVER_NAME"]) == (host, "www.example.org")
    assert (environ["REQUEST_SCHEME"], environ.get("HTTPS")) == ("http", None)
    assert environ["SERVER_PORT"] == str(stack.proxy.port)
    assert environ["SCRIPT_NAME"] == "/cgi-bin/report.py"
    told = {name for name in environ if "FORWARDED" in name or name == "HTTP_X_REAL_IP"}
    assert told == {"HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO"}
    assert (environ["HTTP_X_FORWARDED_FOR"], environ["HTTP_X_FORWARDED_PROTO"]) == (CLIENT, "http")


def test_a_request_has_one_id_of_the_proxys(stack: Stack) -> None:
    """In what the script sees, in the answer, and in gunicorn's log; never one that a client made up."""
    stack.gunicorn.begin_log()
    response, body = stack.request("GET", "/cgi-bin/report.py", headers={"X-Request-Id": "made-up"})
    environ = json.loads(body)["environ"]
    number = environ["HTTP_X_REQUEST_ID"]
    assert number not in ("", "made-up")
    assert (environ["UNIQUE_ID"], response.headers["X-Request-Id"]) == (number, number)
    wait_until(lambda: number in stack.gunicorn.log, "the access line")


def test_paths_arrive_as_they_were_written(stack: Stack) -> None:
    """An encoded slash stays one in REQUEST_URI, which programs with routes of their own take apart."""
    target = "/cgi-bin/report.py/a%2Fb/%20c?x=%2F%20"
    environ = stack.report(target)["environ"]
    assert (environ["REQUEST_URI"], environ["PATH_INFO"]) == (target, "/a/b/ c")


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_uploads_arrive_whole(stack: Stack, is_chunked: bool) -> None:
    """With their true length, however they came."""
    body = bytes(range(128)) * (3 * 2**20 // 128)
    stack.site.python(
        "sum.py",
        "import hashlib, os, sys\nbody = sys.stdin.buffer.read()\n"
        "print('Content-Type: text/plain\\n')\n"
        "print(os.environ['CONTENT_LENGTH'], hashlib.sha256(body).hexdigest())\n",
    )
    given = iter([body[:70000], body[70000:]]) if is_chunked else body
    response, answer = stack.request("POST", "/cgi-bin/sum.py", body=given, encode_chunked=is_chunked)
    assert response.status == 200
    assert answer.decode().split() == [str(len(body)), hashlib.sha256(body).hexdigest()]


def test_output_goes_out_when_a_script_prints_it(stack: Stack, tmp_path: Path) -> None:
    """The first line is here while the script waits to print the second."""
    go_on = tmp_path / "go-on"
    stack.site.sh(
        "slow", f"printf 'Content-Type: text/plain\\n\\none\\n'; while [ ! -e {go_on} ]; do sleep 0.05; done; echo two"
    )
    connection = stack.connection()
    connection.request("GET", "/cgi-bin/slow")
    response = connection.getresponse()
    assert response.readline() == b"one\n"
    go_on.touch()
    assert response.read() == b"two\n"
    connection.close()


@pytest.mark.parametrize(
    ("target", "location"),
    [
        pytest.param("/cgi-bin/redirect?/there", "/there", id="path"),
        pytest.param("/cgi-bin/redirect?self", "http://{host}/self", id="url-of-the-scripts-making"),
        pytest.param("/folder", "/folder/", id="directory"),
    ],
)
def test_redirects_lead_the_client_to_where_it_came_from(stack: Stack, target: str, location: str) -> None:
    """Not to a name or a port behind the proxy."""
    stack.site.file("folder/index.html", "x")
    stack.site.sh(
        "redirect",
        'where=$QUERY_STRING; [ "$where" = self ] && where="$REQUEST_SCHEME://$SERVER_NAME:$SERVER_PORT/self"\n'
        "printf 'Status: 302 Found\\nLocation: %s\\nContent-Type: text/plain\\n\\nx' \"$where\"\n",
    )
    host = f"www.example.org:{stack.proxy.port}"
    response, _ = stack.request("GET", target, headers={"Host": host})
    assert response.status in (301, 302, 308)
    found = str(response.headers["Location"])
    assert found.removeprefix(f"http://{host}") == location.format(host=host).removeprefix(f"http://{host}")


@pytest.mark.parametrize("target", ["/-/health/live", "/%2d/health/live", "/-%2fhealth", "/-%2Fmetrics", "/-/metrics"])
def test_what_is_for_operators_is_not_for_clients(stack: Stack, target: str) -> None:
    """Health and metrics are not to be had through the proxy; gunicorn is not even asked."""
    stack.gunicorn.begin_log()
    assert stack.request("GET", target)[0].status == 404
    assert stack.request("GET", "/cgi-bin/report.py?then")[0].status == 200
    wait_until(lambda: "report.py?then" in stack.gunicorn.log, "the access line")
    assert [line for line in stack.gunicorn.log.splitlines() if target in line] == []


@pytest.mark.root_only
def test_what_reads_requests_is_not_root(stack: Stack) -> None:
    """A proxy that root starts, as systemd does, has workers without root's rights."""
    if stack.kind in ("nginx", "caddy"):
        return  # nginx's user is said in Debian's nginx.conf, and Debian starts Caddy as one
    workers = [pid for pid in stack.proxy.pids() if Path(f"/proc/{pid}").stat().st_uid != 0]
    assert len(workers) >= 1


def test_a_body_that_is_too_large_is_413(stack: Stack) -> None:
    """The client is told so, while it sends what nobody would take."""
    with socket.create_connection(("127.0.0.1", stack.proxy.port), timeout=30) as client:
        fields = f"Host: x\r\nContent-Length: {2**30 + 1}\r\n\r\n"
        client.sendall(f"POST /cgi-bin/report.py HTTP/1.1\r\n{fields}".encode())
        with contextlib.suppress(ConnectionError):
            while not select.select([client], [], [], 0)[0]:
                client.sendall(bytes(2**16))
        assert client.recv(1000).split(b" ", 2)[1] == b"413"


def test_what_a_proxy_has_compressed_is_not_sent_again(stack: Stack) -> None:
    """Debian's Apache compresses text by itself, and marks the tag; the client has that tag."""
    stack.site.file("long.txt", b"0123456789" * 1000)
    take = {"Accept-Encoding": "gzip"}
    response, _ = stack.request("GET", "/long.txt", headers=take)
    assert (response.headers["Content-Encoding"] == "gzip") is (stack.kind == "apache")
    etag = response.headers["ETag"]
    assert stack.request("GET", "/long.txt", headers={**take, "If-None-Match": f'"x", {etag}'})[0].status == 304
    stack.site.file("long.txt.gz", gzip.compress(b"0123456789" * 1000))
    etag = stack.request("GET", "/long.txt", headers=take)[0].headers["ETag"]
    assert stack.request("GET", "/long.txt", headers={**take, "If-None-Match": etag})[0].status == 304


def test_files_and_errors_come_through(stack: Stack) -> None:
    """Types, conditions, ranges and statuses are wsgicgi's."""
    stack.site.file("a.txt", b"0123456789" * 1000)
    response, body = stack.request("GET", "/a.txt")
    assert (response.status, len(body), response.headers.get_content_type()) == (200, 10000, "text/plain")
    etag = response.headers["ETag"]
    assert stack.request("GET", "/a.txt", headers={"If-None-Match": etag})[0].status == 304
    response, body = stack.request("GET", "/a.txt", headers={"Range": "bytes=5-9"})
    assert (response.status, body) == (206, b"56789")
    assert stack.request("GET", "/cgi-bin/none")[0].status == 404


def test_a_script_ends_when_its_client_leaves(stack: Stack, tmp_path: Path) -> None:
    """The proxy tells gunicorn, and wsgicgi ends the script: at once, or behind Apache when it is sent something."""
    pid_file = tmp_path / "pid"
    rest = "exec sleep 600"
    if stack.kind == "apache":
        rest = "printf 'Content-Type: text/plain\\n\\n'; while echo more; do sleep 0.2; done; exec sleep 600"
    stack.site.sh("endless", f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; {rest}")
    connection = stack.connection()
    connection.request("GET", "/cgi-bin/endless")
    wait_until(pid_file.exists, "the script runs")
    connection.close()
    script = Path("/proc", pid_file.read_text().strip())
    wait_until(lambda: not script.exists(), "the script has ended", 20)
