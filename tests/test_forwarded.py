"""``X-Forwarded-*``: what declared proxies say counts, what others say has no effect."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from handlers import handler_on, handling
from servers import BIN, gunicorn, running, waitress
from sites import Site
from werkzeug.test import Client

from wsgicgi import CGIScript
from wsgicgi.forwarded import FIELDS, Proxies
from wsgicgi.values import PROXY_HEADERS

PROXY = "10.0.0.1"


def applied(
    fields: dict[str, str],
    *,
    trusted: tuple[str, ...] = ("10.0.0.0/8",),
    believed: tuple[str, ...] = ("X-Forwarded-For", "X-Forwarded-Proto"),
    peer: str = PROXY,
    **more: str,
) -> dict[str, Any]:
    """A request's environ after the proxies' fields were put in their places."""
    environ: dict[str, Any] = {
        "REMOTE_ADDR": peer,
        "REMOTE_PORT": "1234",
        "SERVER_PORT": "8000",
        "HTTP_HOST": "example.org",
        "SCRIPT_NAME": "",
        "wsgi.url_scheme": "http",
        **{"HTTP_" + name.upper().replace("-", "_"): value for name, value in fields.items()},
        **more,
    }
    Proxies(trusted, believed).apply(environ)
    return environ


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        pytest.param("192.0.2.7", "192.0.2.7", id="one"),
        pytest.param("198.51.100.1, 192.0.2.7", "192.0.2.7", id="what-a-client-made-up-stands-before"),
        pytest.param("192.0.2.7, 10.0.0.9", "192.0.2.7", id="two-proxies"),
        pytest.param("198.51.100.1, 192.0.2.7, 10.0.0.9, 10.0.0.8", "192.0.2.7", id="three-proxies"),
        pytest.param("10.0.0.7, 10.0.0.9", "10.0.0.7", id="client-in-the-proxies-network"),
        pytest.param("192.0.2.7:4711", "192.0.2.7", id="port"),
        pytest.param("[2001:db8::1]:4711", "2001:db8::1", id="address-6-with-port"),
        pytest.param("2001:db8::1", "2001:db8::1", id="address-6"),
        pytest.param("::ffff:192.0.2.7", "192.0.2.7", id="address-4-in-6"),
        pytest.param("192.0.2.7, unknown", PROXY, id="unknown-ends-it"),
        pytest.param("192.0.2.7, ", PROXY, id="empty-ends-it"),
        pytest.param("<script>", PROXY, id="no-address"),
    ],
)
def test_client_is_the_last_address_that_no_proxy_has(chain: str, expected: str) -> None:
    """Each proxy adds whom it has seen; what stands before the first address of a stranger may be made up."""
    assert applied({"X-Forwarded-For": chain})["REMOTE_ADDR"] == expected


@pytest.mark.parametrize(
    ("trusted", "peer"),
    [
        pytest.param(("10.0.0.1",), "10.0.0.1", id="address"),
        pytest.param(("10.0.0.1",), "::ffff:10.0.0.1", id="address-4-in-6"),
        pytest.param(("fd00::/8",), "fd00::1", id="network-6"),
        pytest.param(("192.0.2.0/24", "10.0.0.0/8"), "10.1.2.3", id="one-of-two"),
        pytest.param(("unix",), "", id="socket"),
        pytest.param(("unix",), "localhost", id="socket-as-waitress-shows-it"),
    ],
)
def test_a_declared_proxy_is_believed(trusted: tuple[str, ...], peer: str) -> None:
    """Address, scheme, and the port that goes with it; the proxy's own port is none of the client's."""
    fields = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
    environ = applied(fields, trusted=trusted, peer=peer)
    assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"], environ["SERVER_PORT"]) == ("192.0.2.7", "https", "443")
    assert "REMOTE_PORT" not in environ


ALL = {
    "X-Forwarded-For": "192.0.2.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "666",
    "X-Forwarded-Prefix": "/evil",
}


@pytest.mark.parametrize(
    ("trusted", "peer"),
    [
        pytest.param(("10.0.0.1",), "10.0.0.2", id="another-address"),
        pytest.param(("10.0.0.1",), "", id="socket"),
        pytest.param(("unix",), "127.0.0.1", id="this-machine"),
        pytest.param(("0.0.0.0/0",), "fd00::1", id="another-family"),
    ],
)
def test_what_others_say_is_as_if_they_had_not(trusted: tuple[str, ...], peer: str) -> None:
    """No variable differs, and no script sees such a field."""
    environ = applied(ALL, trusted=trusted, peer=peer, believed=PROXY_HEADERS)
    plain = applied({}, trusted=trusted, peer=peer)
    assert environ == plain


def test_a_field_that_is_not_declared_does_not_come_through_a_declared_proxy() -> None:
    """A proxy that sets two fields passes on the client's others."""
    environ = applied(ALL)
    assert {name for name in FIELDS if name in environ} == {"HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO"}
    assert (environ["HTTP_HOST"], environ["SERVER_PORT"], environ["SCRIPT_NAME"]) == ("example.org", "443", "")


def test_all_fields_count_when_they_are_declared() -> None:
    """Host, port and prefix too."""
    environ = applied(ALL, believed=PROXY_HEADERS)
    assert (environ["HTTP_HOST"], environ["SERVER_PORT"], environ["SCRIPT_NAME"]) == ("evil.example", "666", "/evil")


@pytest.mark.parametrize(
    ("fields", "port"),
    [
        pytest.param({"X-Forwarded-Proto": "https"}, "443", id="of-the-scheme"),
        pytest.param({"X-Forwarded-Proto": "http"}, "80", id="of-http"),
        pytest.param({"X-Forwarded-Proto": "https", "Host": "example.org:8443"}, "8443", id="of-the-host"),
        pytest.param({"X-Forwarded-Proto": "https", "Host": "[::1]"}, "443", id="host-without-port"),
        pytest.param({"X-Forwarded-Port": "0"}, "8000", id="no-port"),
        pytest.param({"X-Forwarded-Proto": "gopher"}, "8000", id="no-scheme"),
    ],
)
def test_port_is_the_one_that_the_client_asked_for(fields: dict[str, str], port: str) -> None:
    """A script that makes URLs would otherwise name the port behind the proxy."""
    assert applied(fields, believed=PROXY_HEADERS)["SERVER_PORT"] == port


@pytest.mark.parametrize(
    ("proto", "expected"),
    [
        pytest.param("https, http", "https", id="each-adds-one"),
        pytest.param("https", "https", id="one-for-both"),
        pytest.param("http, https, http", "https", id="a-client-made-one-up"),
    ],
)
def test_scheme_is_what_the_proxy_nearest_to_the_client_saw(proto: str, expected: str) -> None:
    """Behind two proxies, the inner of which is spoken to in plain HTTP."""
    fields = {"X-Forwarded-For": "192.0.2.7, 10.0.0.9", "X-Forwarded-Proto": proto}
    assert applied(fields)["wsgi.url_scheme"] == expected


def test_without_a_declared_proxy_nothing_is_touched() -> None:
    """An application around this one may have looked at the fields already."""
    environ = applied(ALL, trusted=())
    assert environ["REMOTE_ADDR"] == PROXY
    assert environ["HTTP_X_FORWARDED_FOR"] == "192.0.2.7"


def test_fields_are_looked_at_once() -> None:
    """An application in an application does not take the client for a proxy."""
    proxies = Proxies(["10.0.0.0/8"], ["X-Forwarded-For"])
    environ: dict[str, Any] = {"REMOTE_ADDR": PROXY, "HTTP_X_FORWARDED_FOR": "192.0.2.7, 10.0.0.2"}
    proxies.apply(environ)
    environ["REMOTE_ADDR"] = PROXY
    proxies.apply(environ)
    assert environ["REMOTE_ADDR"] == PROXY


def seen(connection: http.client.HTTPConnection) -> dict[str, str]:
    """What a script sees of a request with all fields."""
    connection.request("GET", "/cgi-bin/report.py", headers={**ALL, "Host": "example.org"})
    found: dict[str, str] = json.loads(connection.getresponse().read())["environ"]
    connection.close()
    return found


@pytest.mark.parametrize("kind", ["gunicorn", "waitress"])
@pytest.mark.parametrize("is_declared", [True, False], ids=["declared", "undeclared"])
def test_scripts_behind_servers_see_it(site: Site, tmp_path: Path, kind: str, is_declared: bool) -> None:
    """The peer is this machine: it is the declared proxy, or it is not."""
    proxies = "127.0.0.1" if is_declared else "127.0.0.2"
    env = {"WSGICGI_DIRECTORY": str(site.directory), "WSGICGI_TRUSTED_PROXIES": proxies}
    if kind == "gunicorn":
        config = tmp_path / "gunicorn.conf.py"
        config.write_text("secure_scheme_headers = {}\n")
        start = gunicorn("wsgicgi:create_app()", tmp_path / "log", options=["-w", "1", "-c", str(config)], env=env)
    else:
        options = ["--no-clear-untrusted-proxy-headers", "--call"]
        start = waitress("wsgicgi:create_app", tmp_path / "log", options=options, env=env)
    with start as server:
        environ = seen(server.connection())
    if is_declared:
        expected = ("192.0.2.7", "192.0.2.7", "on", "https", "443", None)
    else:
        expected = ("127.0.0.1", "127.0.0.1", None, "http", str(server.port), None)
    names = ("REMOTE_ADDR", "REMOTE_HOST", "HTTPS", "REQUEST_SCHEME", "SERVER_PORT", "HTTP_X_FORWARDED_HOST")
    assert tuple(environ.get(name) for name in names) == expected
    assert environ["HTTP_HOST"] == "example.org"


class OverSocket(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, file: Path) -> None:
        super().__init__("example.org", timeout=30)
        self._file = file

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._file))


def test_unix_socket_is_a_peer_of_its_own(site: Site, tmp_path: Path) -> None:
    """It has no address; who may open it, may speak for clients, when that is declared."""
    listen = tmp_path / "s"
    config = tmp_path / "gunicorn.conf.py"
    config.write_text("secure_scheme_headers = {}\n")
    command = [BIN / "gunicorn", "-k", "gthread", "-c", config, "-b", f"unix:{listen}", "wsgicgi:create_app()"]
    env = {"WSGICGI_DIRECTORY": str(site.directory), "WSGICGI_TRUSTED_PROXIES": "unix"}
    with running([*command, "--no-control-socket"], r"Booting worker with pid: (\d+)", tmp_path / "log", env=env):
        environ = seen(OverSocket(listen))
    assert (environ["REMOTE_ADDR"], environ["HTTPS"], environ["SERVER_PORT"]) == ("192.0.2.7", "on", "443")


@pytest.mark.parametrize(("proxies", "expected"), [("127.0.0.1", "192.0.2.7"), ("127.0.0.2", "127.0.0.1")])
def test_the_handler_believes_the_same_proxies(site: Site, proxies: str, expected: str) -> None:
    """``CGIHTTPRequestHandler`` with ``cgi_settings``."""
    handler = handler_on(site.directory, cgi_settings={"trusted_proxies": proxies})
    with handling(handler) as client:
        answer = client.get("/cgi-bin/report.py", "X-Forwarded-For: 192.0.2.7", "X-Forwarded-Host: evil.example")
    environ = json.loads(answer.body)["environ"]
    assert (environ["REMOTE_ADDR"], environ.get("HTTP_X_FORWARDED_HOST")) == (expected, None)


@pytest.mark.parametrize(("proxies", "expected"), [("10.0.0.1", "192.0.2.7"), ("10.0.0.2", PROXY)])
def test_a_mounted_script_believes_the_same_proxies(site: Site, proxies: str, expected: str) -> None:
    """``CGIScript`` in an application that has not looked at the fields."""
    app = CGIScript(site.directory / "cgi-bin/report.py", trusted_proxies=proxies)
    headers = {"X-Forwarded-For": "192.0.2.7"}
    answer = Client(app).get("/", headers=headers, environ_base={"REMOTE_ADDR": PROXY})
    assert json.loads(answer.data)["environ"]["REMOTE_ADDR"] == expected
    app.close()
