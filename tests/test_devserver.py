"""``wsgicgi-dev`` as its users meet it: a real process, its words, its end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import servers
from servers import BIN, Server, dev, running, steps, wait_until
from sites import Site

CT = "Content-Type: text/plain\n"


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / "wsgicgi-dev", *arguments], capture_output=True, text=True, timeout=30, cwd=cwd)


def test_banner_names_the_address_and_the_scripts(site: Site, tmp_path: Path) -> None:
    """One look tells where to go and whether the scripts were found."""
    with dev(tmp_path / "log", "-d", str(site.directory)) as server:
        wait_until(lambda: "Stop with Ctrl-C.\n" in server.log, "the end of the banner")
        port = server.port
        assert server.log.startswith(f"Serving HTTP on 127.0.0.1 port {port} (http://127.0.0.1:{port}/) ...\n")
        assert f"  directory: {site.directory}\n" in server.log
        assert "  /cgi-bin: 3 runnable scripts\n" in server.log
        assert "  /htbin: no such directory\n" in server.log
        assert "  /-/wsgicgi: the last script runs, for browsers on this machine\n" in server.log


def test_access_line_has_method_target_status_bytes_time_and_exit(site: Site, tmp_path: Path) -> None:
    """One line for each request; for scripts also how they ended."""
    site.file("page.txt", "12345")
    with dev(tmp_path / "log", cwd=site.directory) as server:
        server.get("/page.txt")
        server.get(steps(["out", CT + "\nabc"], ["exit", 3]))
        server.request("HEAD", "/nope")
        server.wait_for_log(
            r"GET  /page\.txt  200  5 B  \d+ ms(  slow)?\n",
            r"GET  /cgi-bin/steps\.py\?\S+  200  3 B  \d+ ms  exited with status 3(  slow)?\n",
            r"HEAD  /nope  404  0 B  \d+ ms(  slow)?\n",
        )


def test_without_standard_error_it_serves(site: Site, tmp_path: Path) -> None:
    """As under pythonw.exe: what would be logged is lost, and nothing else."""
    command = ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", BIN / "wsgicgi-dev", "-d", site.directory, "0"]
    site.sh("broken", "echo x\n")
    with running(command, r"http://127\.0\.0\.1:(\d+)/", tmp_path / "log") as server:
        assert [server.get(f"/cgi-bin/{name}")[0].status for name in ("report.py", "broken")] == [200, 502]


def test_cgi_dir_option_replaces_the_default(site: Site, tmp_path: Path) -> None:
    """``--cgi-dir`` may be given several times."""
    (site.directory / "cgi-bin").rename(site.directory / "scripts")
    with dev(tmp_path / "log", "-d", str(site.directory), "--cgi-dir", "/scripts", "--cgi-dir", "/more") as server:
        assert "/scripts: 3 runnable scripts\n  /more: no such directory" in server.log
        assert server.get("/scripts/report.py")[0].status == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_stop_leaves_no_script(site: Site, tmp_path: Path, number: int) -> None:
    """The server ends with status 0 and without a traceback; so do scripts that still run."""
    pid_file = tmp_path / "pid"
    site.sh("sleeper", f"echo $$ > {pid_file}; exec sleep 300\n")
    with dev(tmp_path / "log", "-d", str(site.directory)) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(b"GET /cgi-bin/sleeper HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), "the script runs")
            assert server.stop(number) == 0
        assert not Path(f"/proc/{pid_file.read_text().strip()}").exists()
        assert "Traceback" not in server.log
        assert ("\nKeyboard interrupt received, exiting.\n" in server.log) == (number == signal.SIGINT)


def test_terminated_server_lets_requests_finish(site: Site, tmp_path: Path) -> None:
    """SIGTERM, as service managers send it: the answer that is under way is completed."""
    go_on, answers = tmp_path / "go-on", []
    target = steps(["touch", str(tmp_path / "began")], ["wait_for", str(go_on)], ["out", CT + "\ndone"])
    with dev(tmp_path / "log", "-d", str(site.directory)) as server:
        client = threading.Thread(target=lambda: answers.append(server.get(target)[1]))
        client.start()
        wait_until((tmp_path / "began").exists, "the script runs")
        server.process.send_signal(signal.SIGTERM)
        go_on.touch()
        client.join(20)
        assert answers == [b"done"]
        assert server.process.wait(20) == 0


def test_busy_port_gets_a_sentence() -> None:
    """Not a traceback; and it says what to do."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        result = run(str(port))
    assert result.returncode == 1
    assert result.stderr == (
        f"wsgicgi-dev: port {port} of 127.0.0.1 is in use. Give another, for example: wsgicgi-dev {port + 1}\n"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-d", "/no/such/place"], "directory='/no/such/place': there is no such directory"),
        (
            ["--cgi-dir", "cgi-bin"],
            "'cgi-bin' must start with '/': entries are URL paths, not folders. Did you mean '/cgi-bin'?",
        ),
        (["--timeout", "soon"], "timeout='soon': expected a number of seconds above 0, at most a year, for example 30"),
        (["--interpreters", ".php=no-such-php"], "there is no program 'no-such-php' on PATH"),
        (["-b", "256.0.0.1"], "cannot listen on port 8000 of '256.0.0.1'"),
        (["-b", "192.0.2.1"], "cannot listen on port 8000 of '192.0.2.1': Cannot assign requested address"),
        (["70000"], "cannot listen on port 70000 of '127.0.0.1': bind(): port must be 0-65535."),
        (["-p", "HTTP/2"], "--protocol: 'HTTP/2': expected HTTP/1.1 or HTTP/1.0"),
        (["--runner", "fork"], "runner='fork': expected 'spawn'"),
        (["--content-type", "html"], "content_type='html': expected a media type, for example 'text/plain"),
        (["--content-type", "text/html\r\nX: y"], "content_type='text/html\\r\\nX: y': expected a media type"),
        (["-H", "X Y", "1"], "--header: 'X Y' is no name of a field: write for example --header X-Test 1"),
        (["-H", "X:", "1"], "--header: 'X:' is no name of a field"),
        (["-H", "", "1"], "--header: '' is no name of a field"),
        (["-H", "X", "1\r\nY: 2"], "--header: X: '1\\r\\nY: 2' cannot be sent"),
        (["-H", "X", "\u20ac"], "cannot be sent: printable characters of Latin-1 can"),
        (["-H", "content-LENGTH", "1"], "--header: content-LENGTH tells how an answer is sent"),
    ],
)
def test_wrong_settings_end_the_start_with_a_sentence(arguments: list[str], sentence: str) -> None:
    """Bad input gets a clear error, in one line and without a traceback."""
    result = run(*arguments)
    assert result.returncode in (1, 2)
    assert result.stderr.startswith("wsgicgi-dev: ")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_unknown_variable_ends_the_start(tmp_path: Path) -> None:
    """A misspelt WSGICGI_ variable is not silently ignored."""
    environ = {**os.environ, "WSGICGI_TIMEOT": "3"}
    result = subprocess.run([BIN / "wsgicgi-dev"], capture_output=True, text=True, timeout=30, env=environ)
    assert result.stderr == "wsgicgi-dev: WSGICGI_TIMEOT: there is no such setting. Did you mean 'WSGICGI_TIMEOUT'?\n"


def test_demo_serves_its_scripts(tmp_path: Path) -> None:
    """``--demo`` shows a Python, a shell and a form script at work; also as ``python -m wsgicgi``."""
    command = [sys.executable, "-m", "wsgicgi", "--demo", "0"]
    with servers.running(command, r"http://127\.0\.0\.1:(\d+)/", tmp_path / "log", cwd=tmp_path) as server:
        assert "/cgi-bin: 3 runnable scripts" in server.log
        page = server.get("/")[1].decode()
        for name in ("hello.py", "hello.sh", "form.py"):
            assert f"cgi-bin/{name}" in page
            assert server.get(f"/cgi-bin/{name}")[0].status == 200
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        _, body = server.request("POST", "/cgi-bin/form.py", body="text=Änne+%26+Co".encode(), headers=form)
        assert "Änne &amp; Co" in body.decode()


def test_served_directory_may_be_on_ipv6(site: Site, tmp_path: Path) -> None:
    """``-b ::1`` prints a URL with brackets."""
    command = [BIN / "wsgicgi-dev", "-b", "::1", "-d", str(site.directory), "0"]
    with servers.running(command, r"http://\[::1\]:(\d+)/", tmp_path / "log") as server:
        server.host = "::1"
        assert server.get("/cgi-bin/report.py")[0].status == 200


def test_localhost_is_all_addresses_of_that_name_on_one_port(site: Site, tmp_path: Path) -> None:
    """A line for each, as http.server prints it; a browser may take either."""
    with dev(tmp_path / "log", "-b", "localhost", "-d", str(site.directory)) as server:
        lines = re.findall(r"(?m)^Serving HTTP on (\S+) port (\d+) \(http://(\S+):(\d+)/\) \.\.\.$", server.log)
        found = {info[4][0] for info in socket.getaddrinfo("localhost", None)}
        assert {host for host, *_ in lines} <= found
        assert {port for _, port, _, _ in lines} == {port for *_, port in lines} == {str(server.port)}
        for host, *_ in lines:
            server.host = host
            assert server.get("/cgi-bin/report.py")[0].status == 200


def test_all_interfaces_are_those_of_both_kinds(site: Site, tmp_path: Path) -> None:
    """``-b ::`` serves IPv4 too, as http.server does by default."""
    command = [BIN / "wsgicgi-dev", "-b", "::", "-d", str(site.directory), "0"]
    ready = r"Serving HTTP on :: port (\d+) \(http://\[::\]:\d+/\) \.\.\."
    with servers.running(command, ready, tmp_path / "log") as server:
        for server.host in ("127.0.0.1", "::1"):
            assert server.get("/cgi-bin/report.py")[0].status == 200


def answers(server: Server, *requests: bytes) -> bytes:
    """What comes back on one connection until the server closes it."""
    with socket.create_connection((server.host, server.port), timeout=20) as sock:
        sock.sendall(b"".join(requests))
        data = b""
        while piece := sock.recv(65536):
            data += piece
    return data


GET = b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"


def test_protocol_1_0_ends_the_connection_after_each_answer(site: Site, tmp_path: Path) -> None:
    """As http.server's default: status line, no chunks, nothing kept alive; scripts are told what the client spoke."""
    site.file("page.txt", "12345")
    site.python("many.py", "print('Content-Type: text/plain\\n')\nprint('x' * 100000)")
    with dev(tmp_path / "log", "-p", "HTTP/1.0", "--cgi", cwd=site.directory) as server:
        static = answers(server, GET % b"/page.txt", GET % b"/page.txt")
        head, _, body = static.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.0 200 OK\r\n")
        assert body == b"12345"
        assert b"keep-alive" not in head.lower()
        head, _, body = answers(server, GET % b"/cgi-bin/many.py").partition(b"\r\n\r\n")
        assert b"chunked" not in head.lower()
        assert body == b"x" * 100000 + b"\n"
        assert answers(server, GET % b"/nope", GET % b"/nope").count(b"HTTP/1.0 404 Not Found") == 1
        assert answers(server, b"nonsense\r\n\r\n").startswith(b"HTTP/1.0 400 ")
        chunked = {"Content-Type": "text/plain", "Transfer-Encoding": "chunked"}
        response, data = server.request("POST", "/cgi-bin/report.py", iter([b"ab", b"c"]), headers=chunked)
        assert response.version == 10
        assert json.loads(data)["environ"]["SERVER_PROTOCOL"] == "HTTP/1.1"


def test_protocol_1_1_is_the_default(site: Site, tmp_path: Path) -> None:
    """It keeps connections, which costs nothing here."""
    site.file("page.txt", "12345")
    for arguments in ((), ("--protocol", "HTTP/1.1")):
        with dev(tmp_path / "log", *arguments, cwd=site.directory) as server:
            close = GET.replace(b"keep-alive", b"close")
            assert answers(server, GET % b"/page.txt", close % b"/page.txt").count(b"HTTP/1.1 200 OK") == 2


def test_close_among_other_words_ends_the_connection(site: Site, tmp_path: Path) -> None:
    """RFC 9112 section 9.6; Perl's LWP says "TE, close", and would wait."""
    site.file("a.txt", "text")
    with (
        dev(tmp_path / "log", "-d", str(site.directory)) as server,
        socket.create_connection((server.host, server.port), timeout=20) as client,
    ):
        client.sendall(b"GET /a.txt HTTP/1.1\r\nHost: x\r\nTE: deflate\r\nConnection: TE, Close\r\n\r\n")
        assert client.makefile("rb").read().endswith(b"\r\n\r\ntext")


@pytest.mark.parametrize("protocol", ["HTTP/1.0", "HTTP/1.1"])
@pytest.mark.parametrize("coding", ["chunked", "chunked, chunked"])
def test_a_request_with_two_lengths_is_refused(protocol: str, coding: str, site: Site, tmp_path: Path) -> None:
    """What follows it may be a part of its body to a proxy before us (RFC 9112 section 6.1)."""
    site.file("page.txt", "12345")
    body = b"0\r\n\r\nGET /page.txt HTTP/1.1\r\nHost: x\r\n\r\n"
    lengths = f"Transfer-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n"
    head = f"POST /cgi-bin/report.py HTTP/1.1\r\nHost: x\r\n{lengths}\r\n"
    with dev(tmp_path / "log", "-d", str(site.directory), "-p", protocol) as server:
        found = answers(server, head.encode() + body)
    assert found.startswith(protocol.encode() + b" 400 ")
    assert found.count(b"HTTP/1.") == 1


def test_header_option_adds_fields_to_successful_answers(site: Site, tmp_path: Path) -> None:
    """Files, ranges, listings and scripts; no errors; and never a second field where there is to be one."""
    site.file("page.txt", "12345")
    site.python("own.py", "print('Content-Type: text/plain\\nSet-Cookie: a=1\\nX-Own: script\\n\\nx')")
    options = ["-H", "Set-Cookie", "b=2", "--header", "Set-Cookie", "c=3", "-H", "X-Own", "server"]
    options += ["-H", "Vary", "Origin"]
    options += ["-H", "Content-Type", "text/html", "-H", "X-Latin", "\xe4"]
    with dev(tmp_path / "log", *options, cwd=site.directory) as server:
        for target, headers in (("/page.txt", {}), ("/page.txt", {"Range": "bytes=1-2"}), ("/", {})):
            fields = server.get(target, headers=headers)[0].headers
            assert fields.get_all("Set-Cookie") == ["b=2", "c=3"]
            assert fields.get_all("X-Own") == ["server"]
            assert "Origin" in (fields.get_all("Vary") or [])
            assert len(fields.get_all("Content-Type") or []) == 1
            assert fields["X-Latin"] == "\xe4"
        assert server.request("HEAD", "/page.txt")[0].headers["X-Own"] == "server"
        fields = server.get("/cgi-bin/own.py")[0].headers
        assert fields.get_all("Set-Cookie") == ["a=1", "b=2", "c=3"]
        assert fields.get_all("X-Own") == ["script"]
        assert fields.get_all("Content-Type") == ["text/plain"]
        for target in ("/nope", "/cgi-bin", "/cgi-bin/"):
            assert "X-Own" not in server.get(target)[0].headers


def test_content_type_option_is_for_files_whose_name_tells_none(site: Site, tmp_path: Path) -> None:
    """As http.server's since Python 3.15; scripts and known suffixes are not concerned."""
    for name in ("README", "x.unheard-of", "page.html"):
        site.file(name, "x")
    with dev(tmp_path / "log", cwd=site.directory) as server:
        assert server.get("/README")[0].headers["Content-Type"] == "application/octet-stream"
    with dev(tmp_path / "log", "--content-type", "text/plain; charset=utf-8", cwd=site.directory) as server:
        types = [server.get(target)[0].headers["Content-Type"] for target in ("/README", "/x.unheard-of", "/page.html")]
        assert types == ["text/plain; charset=utf-8", "text/plain; charset=utf-8", "text/html"]


def test_options_of_http_server_are_taken() -> None:
    """All of Python 3.15's, in their short and long forms, and the help tells where we differ."""
    text = " ".join(run("--help").stdout.split())
    for option in ("-b", "--bind", "-d", "--directory", "-p", "--protocol", "--cgi", "--tls-cert", "--tls-key"):
        assert re.search(rf"{option}[ ,\]]", text), option
    for option in ("--tls-password-file", "-H", "--header NAME VALUE", "--content-type"):
        assert re.search(rf"{option}[ ,\]]", text), option
    assert "default: 127.0.0.1, so that nobody else can run your scripts" in text


def test_second_interrupt_does_not_wait(site: Site, tmp_path: Path) -> None:
    """A script may take three seconds to end; who presses Ctrl-C twice does not want to see that."""
    pid_file = tmp_path / "pid"
    site.sh("stubborn", f"trap '' TERM; echo $$ > {pid_file}; while :; do sleep 0.05; done\n")
    with dev(tmp_path / "log", "-d", str(site.directory)) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(b"GET /cgi-bin/stubborn HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), "the script runs")
            server.process.send_signal(signal.SIGINT)
            wait_until(lambda: "Keyboard interrupt received" in server.log, "the first is noticed")
            assert server.stop(signal.SIGINT) == -signal.SIGINT
        script = int(pid_file.read_text())
        wait_until(lambda: not Path(f"/proc/{script}").exists(), "the warden ends the script")


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_open_shows_the_site_in_a_browser(site: Site, tmp_path: Path, address: str) -> None:
    """``--open``, once the server listens; where it listens everywhere, by a name that a browser can go to."""
    site.file("index.html", "it is served")
    browser = tmp_path / "browser"
    browser.write_text(
        f"#!{sys.executable}\nimport http.client, pathlib, sys, urllib.parse\n"
        "url = urllib.parse.urlsplit(sys.argv[1])\n"
        "connection = http.client.HTTPConnection(url.netloc)\nconnection.request('GET', url.path)\n"
        f"pathlib.Path({str(tmp_path / 'seen')!r}).write_text(url.hostname + ': ' + "
        "connection.getresponse().read().decode())\n"
    )
    browser.chmod(0o755)
    command = [BIN / "wsgicgi-dev", "--open", "-b", address, "-d", str(site.directory), "0"]
    env = {"BROWSER": f"{browser} %s"}
    with servers.running(command, r"http://[\d.]+:(\d+)/", tmp_path / "log", env=env):
        seen = tmp_path / "seen"
        wait_until(lambda: seen.exists() and seen.read_text().endswith("served"), "the browser has the page")
    assert seen.read_text() == ("localhost" if address == "0.0.0.0" else address) + ": it is served"


def test_open_without_a_browser_says_so(site: Site, tmp_path: Path) -> None:
    """And the server serves all the same."""
    env = {"BROWSER": "", "DISPLAY": "", "WAYLAND_DISPLAY": "", "PATH": str(tmp_path)}
    with dev(tmp_path / "log", "--open", "-d", str(site.directory), env=env) as server:
        sentence = f"wsgicgi-dev: --open: no browser was found. Open {server.url}/ in one yourself.\n"
        wait_until(lambda: sentence in server.log, "the sentence")
        assert server.get("/cgi-bin/report.py")[0].status == 200
