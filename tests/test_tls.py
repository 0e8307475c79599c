"""HTTPS in the local server: all that works without it works with it, over real connections."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from programs import find
from servers import BIN, Server, dev, steps, wait_until
from sites import Site

from wsgicgi import client, tls
from wsgicgi.errors import ConfigError

CT = "Content-Type: text/plain\n"
PASSWORD = "correct horse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """A certificate, its key in three forms, another key, and the password."""

    certificate: Path
    key: Path
    encrypted_key: Path
    both: Path
    other_key: Path
    password: Path

    def client(self) -> ssl.SSLContext:
        """What a client needs that believes the certificate."""
        return ssl.create_default_context(cafile=self.certificate)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Made by openssl for this run."""
    openssl = find("openssl", package="openssl")
    place = tmp_path_factory.mktemp("tls")

    def run(*words: str) -> None:
        subprocess.run([openssl, *words], cwd=place, check=True, capture_output=True, timeout=60)

    new_key = ("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out")
    run(*new_key, "key.pem")
    run(*new_key, "other.pem")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    run("req", "-x509", "-key", "key.pem", "-out", "cert.pem", "-days", "30", *names)
    run("pkcs8", "-topk8", "-in", "key.pem", "-out", "encrypted.pem", "-passout", f"pass:{PASSWORD}")
    (place / "both.pem").write_bytes((place / "cert.pem").read_bytes() + (place / "key.pem").read_bytes())
    (place / "password").write_text(f"{PASSWORD}\n")
    return Files(
        certificate=place / "cert.pem",
        key=place / "key.pem",
        encrypted_key=place / "encrypted.pem",
        both=place / "both.pem",
        other_key=place / "other.pem",
        password=place / "password",
    )


@contextlib.contextmanager
def serving(files: Files, site: Site, log_file: Path, *arguments: str) -> Iterator[Server]:
    options = ["--tls-cert", str(files.certificate), "--tls-key", str(files.key), "-d", str(site.directory)]
    with dev(log_file, *options, *arguments) as server:
        server.tls = files.client()
        yield server


@pytest.fixture(scope="module")
def _shared(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Site]]:
    place = tmp_path_factory.mktemp("https")
    site = Site(place / "site")
    with serving(files, site, place / "server.log") as started:
        yield started, site


@pytest.fixture
def server(_shared: tuple[Server, Site]) -> Server:
    _shared[0].begin_log()
    return _shared[0]


@contextlib.contextmanager
def connected(server: Server, receive_bytes: int = 0) -> Iterator[ssl.SSLSocket]:
    """A TLS connection, on which an end that was not announced is an error."""
    assert server.tls is not None
    with socket.socket() as plain:
        plain.settimeout(20)
        if receive_bytes:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        plain.connect((server.host, server.port))
        with server.tls.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as sock:
            yield sock


def read_to_end(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def ask(target: str, *, method: str = "GET", version: str = "1.1", fields: str = "") -> bytes:
    return f"{method} {target} HTTP/{version}\r\nHost: x\r\n{fields}\r\n".encode()


CLOSE = "Connection: close\r\n"

# -- what works without TLS works with it


def test_banner_and_access_log_are_those_of_http(server: Server, site: Site) -> None:
    """With https in them."""
    banner = f"Serving HTTPS on 127.0.0.1 port {server.port} (https://127.0.0.1:{server.port}/) ...\n  directory: "
    assert server.log_file.read_text().startswith(banner)
    site.file("page.txt", "12345")
    server.get("/page.txt")
    server.get(steps(["out", CT + "\nabc"], ["exit", 3]))
    server.wait_for_log(
        r"GET  /page\.txt  200  5 B  \d+ ms(  slow)?\n",
        r"GET  /cgi-bin/steps\.py\?\S+  200  3 B  \d+ ms  exited with status 3(  slow)?\n",
    )


def test_scripts_know_of_it(server: Server, site: Site) -> None:
    """``HTTPS=on`` and the port, as with every other server."""
    environ = json.loads(server.get("/cgi-bin/report.py/x?y")[1])["environ"]
    assert (environ["HTTPS"], environ["REQUEST_SCHEME"]) == ("on", "https")
    assert (environ["SERVER_PORT"], environ["SERVER_NAME"]) == (str(server.port), "127.0.0.1")
    assert (environ["REMOTE_ADDR"], environ["PATH_INFO"]) == ("127.0.0.1", "/x")


def test_connection_is_kept(server: Server, site: Site) -> None:
    """Files, scripts and HEAD, one after the other on one connection."""
    site.file("page.txt", "12345")
    connection = server.connection()
    connection.connect()
    sock = connection.sock
    for method, target, status, body in (
        ("GET", "/page.txt", 200, b"12345"),
        ("HEAD", "/page.txt", 200, b""),
        ("GET", steps(["out", CT + "Content-Length: 3\n\nabc"]), 200, b"abc"),
        ("GET", "/page.txt", 200, b"12345"),
        ("GET", "/nope", 404, None),
        ("GET", "/page.txt", 200, b"12345"),
    ):
        connection.request(method, target)
        response = connection.getresponse()
        data = response.read()
        assert (response.status, data if body is not None else None) == (status, body)
        assert connection.sock is sock
    connection.close()


def test_requests_in_one_record_are_all_answered(server: Server, site: Site) -> None:
    """What OpenSSL has taken from the socket already wakes nobody up."""
    site.file("page.txt", "12345")
    with connected(server) as sock:
        filler = f"X-Filler: {'x' * 3000}\r\n"
        sock.sendall(ask("/page.txt", fields=filler) * 5 + ask("/page.txt", fields=CLOSE))
        assert read_to_end(sock).count(b"12345") == 6


@pytest.mark.parametrize("size", [1, 16384, 16385, 5_000_000])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_uploads_arrive_whole(server: Server, size: int, chunked: bool) -> None:
    """Records end elsewhere than chunks and messages do."""
    data = os.urandom(size)
    pieces = [data[begin : begin + 30_001] for begin in range(0, size, 30_001)]
    target = steps(["out", CT + "\n"], ["hash"])
    response, body = server.request("POST", target, body=iter(pieces) if chunked else data)
    assert (response.status, body) == (200, f"{size} {hashlib.sha256(data).hexdigest()}".encode())


def test_client_that_asks_whether_to_send_is_told(server: Server) -> None:
    """``Expect: 100-continue``, as curl does with large bodies."""
    fields = f"Content-Length: 3\r\nExpect: 100-continue\r\n{CLOSE}"
    with connected(server) as sock:
        sock.sendall(ask(steps(["out", CT + "\n"], ["echo"]), method="POST", fields=fields))
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc")
        assert b"abc" in read_to_end(sock)


def test_concurrent_downloads_are_whole(server: Server, site: Site) -> None:
    """Threads write while the loop reads and writes; OpenSSL allows one at a time for a connection."""
    data = os.urandom(3_000_000)
    site.file("data.bin", data)
    site.sh("copy", "echo Content-Type: x/y; echo; cat ../data.bin")
    wrong: list[str] = []

    def fetch(target: str) -> None:
        for _ in range(3):
            if server.get(target, timeout=120)[1] != data:
                wrong.append(target)

    clients = [threading.Thread(target=fetch, args=(target,)) for target in ("/data.bin", "/cgi-bin/copy") * 4]
    for each in clients:
        each.start()
    for each in clients:
        each.join(120)
    assert wrong == []


def test_output_streams(server: Server, tmp_path: Path) -> None:
    """The head and each piece at once."""
    go_on = tmp_path / "go-on"
    with connected(server) as sock:
        sock.sendall(ask(steps(["out", CT + "\nfirst"], ["wait_for", str(go_on)], ["out", "last"])))
        data = b""
        while b"first" not in data:
            data += sock.recv(65536)
        go_on.touch()
        assert b"last" in read_to_end(sock)


def test_slow_reader_gets_all(server: Server, tmp_path: Path) -> None:
    """What does not fit into the connection waits, and goes on when there is room."""
    size = 30_000_000
    with connected(server, receive_bytes=65536) as sock:
        sock.sendall(ask(steps(["out", CT + "\n"], ["fill", size], ["touch", str(tmp_path / "end")]), version="1.0"))
        assert sock.recv(1) == b"H"
        assert not (tmp_path / "end").exists()
        assert len(read_to_end(sock).partition(b"\r\n\r\n")[2]) == size


def test_head_has_no_body(server: Server) -> None:
    """Nor the mark of its end."""
    with connected(server) as sock:
        sock.sendall(ask(steps(["out", CT + "\nabc"]), method="HEAD", fields=CLOSE))
        assert read_to_end(sock).endswith(b"\r\n\r\n")


def test_end_of_an_answer_is_announced(server: Server) -> None:
    """Without close_notify, a client could not tell the end of an answer without a length from a break."""
    with connected(server) as sock:
        sock.sendall(ask(steps(["out", CT + "\n"], ["fill", 100_000]), version="1.0"))
        assert len(read_to_end(sock).partition(b"\r\n\r\n")[2]) == 100_000  # SSLEOFError, were it not announced


def test_answer_that_cannot_be_completed_breaks_the_connection(server: Server, tmp_path: Path) -> None:
    """The client must know."""
    go_on = tmp_path / "go-on"
    connection = server.connection()
    connection.request("GET", steps(["out", CT + "\nbegin"], ["wait_for", str(go_on)], ["kill", 9]))
    response = connection.getresponse()
    assert response.read(5) == b"begin"
    go_on.touch()
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    connection.close()


def test_client_gone_ends_the_script(server: Server, tmp_path: Path) -> None:
    """Also while the script is silent."""
    pid_file = tmp_path / "pid"
    with connected(server) as sock:
        sock.sendall(ask(steps(["touch", str(pid_file)], ["sleep", 300])))
        wait_until(lambda: pid_file.exists() and pid_file.read_text(), "the script runs")
    wait_until(lambda: not Path(f"/proc/{pid_file.read_text()}").exists(), "the script is ended")
    wait_until(lambda: "the client has gone" in server.log, "it is logged")


def test_http_1_0_can_be_asked_for(files: Files, site: Site, tmp_path: Path) -> None:
    """``-p`` works with TLS as it does without."""
    site.file("page.txt", "12345")
    with serving(files, site, tmp_path / "log", "-p", "HTTP/1.0") as server, connected(server) as sock:
        sock.sendall(ask("/page.txt", fields="Connection: keep-alive\r\n"))
        assert read_to_end(sock).startswith(b"HTTP/1.0 200 OK\r\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_stop_leaves_no_script(files: Files, site: Site, tmp_path: Path, number: int) -> None:
    """The server ends with status 0 and without a traceback; so do scripts that still run."""
    pid_file = tmp_path / "pid"
    with serving(files, site, tmp_path / "log") as server:
        with connected(server) as sock:
            sock.sendall(ask(steps(["touch", str(pid_file)], ["sleep", 300])))
            wait_until(lambda: pid_file.exists() and pid_file.read_text(), "the script runs")
            assert server.stop(number) == 0
        assert not Path(f"/proc/{pid_file.read_text()}").exists()
        assert "Traceback" not in server.log


def test_terminated_server_lets_requests_finish(files: Files, site: Site, tmp_path: Path) -> None:
    """The answer that is under way is completed."""
    go_on, answers = tmp_path / "go-on", []
    target = steps(["touch", str(tmp_path / "began")], ["wait_for", str(go_on)], ["out", CT + "\ndone"])
    with serving(files, site, tmp_path / "log") as server:
        asking = threading.Thread(target=lambda: answers.append(server.get(target)[1]))
        asking.start()
        wait_until((tmp_path / "began").exists, "the script runs")
        server.process.send_signal(signal.SIGTERM)
        go_on.touch()
        asking.join(20)
        assert answers == [b"done"]
        assert server.process.wait(20) == 0


# -- what only TLS has


def test_client_that_does_not_shake_hands_holds_up_nobody(server: Server) -> None:
    """Browsers open connections in advance; others send half a greeting."""
    with contextlib.ExitStack() as idle:
        for sent in (b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01"):
            sock = idle.enter_context(socket.create_connection((server.host, server.port)))
            sock.sendall(sent)
        assert server.get("/cgi-bin/report.py")[0].status == 200


def test_plain_http_gets_a_sentence(server: Server) -> None:
    """Whoever writes http:// for https:// is told so, in the browser and in the log."""
    with socket.create_connection((server.host, server.port), timeout=20) as sock:
        sock.sendall(ask("/"))
        answer = read_to_end(sock)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.endswith(b"\r\n\r\nThis port speaks HTTPS: write https:// instead of http://\n")
    assert "no TLS connection with 127.0.0.1: HTTP_REQUEST\n" in server.log


@pytest.mark.parametrize(
    "sent", [bytes(100), b"\x16\x03\x01\x00\x05hello", b"SSH-2.0-x\r\n", b"\x15\x03\x03\x00\x02\x02\x28"]
)
def test_nonsense_ends_its_connection_alone(server: Server, sent: bytes) -> None:
    """One line in the log, no traceback; others are served."""
    with socket.create_connection((server.host, server.port), timeout=20) as sock:
        sock.sendall(sent)
        with contextlib.suppress(ConnectionResetError):
            read_to_end(sock)
    wait_until(lambda: "no TLS connection with 127.0.0.1: " in server.log, "it is logged")
    assert server.get("/cgi-bin/report.py")[0].status == 200
    assert "Traceback" not in server.log


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_protocol_is_a_new_one(server: Server, files: Files, version: ssl.TLSVersion) -> None:
    """TLS 1.2 and 1.3; HTTP/1.1 is offered, not HTTP/2."""
    assert tls.context(files.certificate, files.key).minimum_version is ssl.TLSVersion.TLSv1_2
    limited = files.client()
    limited.minimum_version = limited.maximum_version = version
    limited.set_alpn_protocols(["h2", "http/1.1"])
    server.tls = limited
    try:
        with connected(server) as sock:
            assert sock.selected_alpn_protocol() == "http/1.1"
            sock.sendall(ask("/cgi-bin/report.py", fields=CLOSE))
            assert read_to_end(sock).startswith(b"HTTP/1.1 200 OK\r\n")
    finally:
        server.tls = files.client()


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_client_of_a_tls_connection_is_seen_to_be_gone(
    files: Files, platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not while it is silent, nor when it has sent something more; in every system's way."""
    with contextlib.ExitStack() as opened:
        listening = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        theirs = opened.enter_context(socket.create_connection(listening.getsockname()))
        accepted, _ = listening.accept()
        context = tls.context(files.certificate, files.key)
        ours = opened.enter_context(context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False))
        monkeypatch.setattr(client.sys, "platform", platform)
        assert not client._is_closed(ours)
        theirs.sendall(b"x")
        assert not client._is_closed(ours)
        assert socket.socket.recv(ours, 1) == b"x"
        theirs.close()
        wait_until(lambda: client._is_closed(ours), "it is seen")


# -- the files


@pytest.mark.parametrize(
    "options",
    [
        ["--tls-cert", "both"],
        ["--tls-cert", "certificate", "--tls-key", "encrypted_key", "--tls-password-file", "password"],
        ["--tls-cert", "certificate", "--tls-key", "key", "--tls-password-file", "password"],
    ],
    ids=["one file", "encrypted", "password without need"],
)
def test_files_as_http_server_takes_them(files: Files, site: Site, tmp_path: Path, options: list[str]) -> None:
    """The key in the same file; a key with a password."""
    words = [word if word.startswith("-") else str(getattr(files, word)) for word in options]
    with dev(tmp_path / "log", *words, cwd=site.directory) as server:
        server.tls = files.client()
        assert server.get("/cgi-bin/report.py")[0].status == 200


@pytest.mark.parametrize(
    ("choose", "sentence"),
    [
        (lambda f: {"certificate": "/no/cert"}, "--tls-cert: cannot read '/no/cert': No such file or directory"),
        (lambda f: {"certificate": f.key.parent}, "--tls-cert: cannot read '{0.key.parent}': Is a directory"),
        (lambda f: {"certificate": "a\0b"}, "--tls-cert: cannot read 'a\\x00b': embedded null byte"),
        (
            lambda f: {"certificate": f.certificate, "key": "/no/key"},
            "--tls-key: cannot read '/no/key': No such file or directory",
        ),
        (
            lambda f: {"certificate": f.certificate, "key": f.key, "password_file": "/no/password"},
            "--tls-password-file: cannot read '/no/password': No such file or directory",
        ),
        (
            lambda f: {"certificate": f.certificate},
            "--tls-cert: '{0.certificate}' holds no private key (PEM): name the file that does by --tls-key",
        ),
        (
            lambda f: {"certificate": f.certificate, "key": f.certificate},
            "--tls-key: '{0.certificate}' holds no private key (PEM)",
        ),
        (
            lambda f: {"certificate": f.key, "key": f.key},
            "--tls-cert: '{0.key}' holds no certificate (PEM, '-----BEGIN CERTIFICATE-----')",
        ),
        (
            lambda f: {"certificate": f.password, "key": f.key},
            "--tls-cert: '{0.password}' holds no certificate (PEM, '-----BEGIN CERTIFICATE-----')",
        ),
        (
            lambda f: {"certificate": f.certificate, "key": f.other_key},
            "--tls-key: '{0.other_key}' is not the key of the certificate in '{0.certificate}'",
        ),
        (
            lambda f: {"certificate": f.certificate, "key": f.encrypted_key},
            "--tls-key: '{0.encrypted_key}' is encrypted: name a file with its password by --tls-password-file",
        ),
        (
            lambda f: {"certificate": f.certificate, "key": f.encrypted_key, "password_file": f.certificate},
            "--tls-password-file: '{0.certificate}' does not hold the password of '{0.encrypted_key}'",
        ),
    ],
)
def test_wrong_files_get_a_sentence(
    files: Files, choose: Callable[[Files], dict[str, str | Path]], sentence: str
) -> None:
    """Which option, which file, what is wrong, what to do."""
    with pytest.raises(ConfigError) as raised:
        tls.context(**choose(files))  # type: ignore[arg-type]
    assert str(raised.value) == sentence.format(files)


def test_password_file_of_another_kind_gets_a_sentence(files: Files, tmp_path: Path) -> None:
    """It is a text."""
    (tmp_path / "password").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"--tls-password-file: '.*' is no UTF-8 text"):
        tls.context(files.certificate, files.key, tmp_path / "password")


@pytest.mark.parametrize("option", ["--tls-key", "--tls-password-file"])
def test_options_without_a_certificate_end_the_start(files: Files, option: str) -> None:
    """In one line, without a traceback."""
    command = [BIN / "wsgicgi-dev", option, files.key]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    sentence = f"wsgicgi-dev: {option}: is for a certificate: name its file too, by --tls-cert\n"
    assert (result.returncode, result.stderr) == (2, sentence)
