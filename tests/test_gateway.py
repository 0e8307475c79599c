"""Scripts through real servers: what they are given, what becomes of what they print, and how they end."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import os
import re
import signal
import socket
import sys
from pathlib import Path

import pytest
from servers import Server, serving, steps, wait_until
from sites import Site
from werkzeug.test import create_environ, run_wsgi_app

from wsgicgi import CGIMiddleware, create_app
from wsgicgi.exchange import SHORT_ANSWER_SECONDS
from wsgicgi.habits import MAX_HABITS

CT = "Content-Type: text/plain\n"


def report(server: Server, target: str, method: str = "GET", **options: object) -> dict:
    response, body = server.request(method, target, **options)
    assert response.status == 200, body
    return json.loads(body)


def is_running(pid_file: Path) -> bool:
    try:
        status = Path(f"/proc/{int(pid_file.read_text())}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def test_script_gets_metavars_and_nothing_of_the_servers_own(server: Server, site: Site) -> None:
    """RFC 3875 section 4.1, through every server; no wsgi.* key and no variable of the server's comes along."""
    given = report(server, "/cgi-bin/sub/report.py/a%20b//c?x=%20y", headers={"X-Foo": "bar", "Proxy": "http://evil"})
    environ = given["environ"]
    assert environ["SCRIPT_NAME"] == "/cgi-bin/sub/report.py"
    assert environ["PATH_INFO"] == "/a b//c"
    assert environ["PATH_TRANSLATED"] == f"{site.directory}/a b//c"
    assert environ["QUERY_STRING"] == "x=%20y"
    assert environ["REQUEST_URI"] == "/cgi-bin/sub/report.py/a%20b//c?x=%20y"
    assert environ["SERVER_NAME"] == "127.0.0.1"
    assert environ["SERVER_PORT"] == str(server.port)
    assert environ["REMOTE_ADDR"] == environ["REMOTE_HOST"] == "127.0.0.1"
    assert environ["GATEWAY_INTERFACE"] == "CGI/1.1"
    assert environ["HTTP_X_FOO"] == "bar"
    assert "HTTP_PROXY" not in environ
    assert "CONTENT_LENGTH" not in environ
    assert not [name for name in environ if name.startswith("wsgi") or name == "WSGICGI_DIRECTORY"]


def test_script_runs_in_its_directory_with_its_path_and_three_descriptors(server: Server, site: Site) -> None:
    """cwd is the script's directory, argv[0] its path (RFC 3875 section 7.2), and only 0, 1 and 2 are open."""
    given = report(server, "/cgi-bin/sub/report.py")
    directory = site.directory / "cgi-bin" / "sub"
    assert given["cwd"] == str(directory)
    assert given["argv"] == [str(directory / "report.py")]
    assert given["descriptors"] == [0, 1, 2]
    assert given["pid"] == given["pgid"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("alpha+beta", ["alpha", "beta"]),
        ("a=b+c", []),
        ("-s", []),
        ("x+%2ds", []),
        ("a%00b", []),
        ("%24%28id%29", ["$(id)"]),
    ],
)
def test_search_words_become_the_command_line(server: Server, query: str, words: list[str]) -> None:
    """RFC 3875 section 4.4; no word that a program could take for an option (CVE-2012-1823), and never a shell."""
    assert report(server, f"/cgi-bin/report.py?{query}")["argv"][1:] == words


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 1_100_000])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_body_arrives_whole_with_its_true_length(server: Server, size: int, chunked: bool) -> None:
    """RFC 3875 sections 4.1.2 and 4.2: CONTENT_LENGTH is the number of bytes, then comes the end of file."""
    data = os.urandom(size)
    parts = (data[i : i + 10_000] for i in range(0, size, 10_000)) if chunked else data
    given = report(server, "/cgi-bin/report.py", "POST", body=parts)
    assert given["body"].encode("latin-1") == data
    assert given["environ"].get("CONTENT_LENGTH", "0") == str(size)
    assert "HTTP_TRANSFER_ENCODING" not in given["environ"]


@pytest.mark.parametrize("order", [[["echo"]], [["fill", 3 << 20], ["hash"]], [["fill", 3 << 20]]], ids=str)
def test_no_order_of_reads_and_writes_deadlocks(server: Server, order: list) -> None:
    """A script may write before it reads, while it reads, or never read."""
    body = os.urandom(1 << 20) * 3
    response, answer = server.request("POST", steps(["out", CT + "\n"], *order), body=body)
    assert response.status == 200
    if order == [["echo"]]:
        assert hashlib.sha256(answer).digest() == hashlib.sha256(body).digest()
    else:
        assert len(answer) >= 3 << 20


def test_document_response_keeps_status_fields_and_body(server: Server) -> None:
    """RFC 3875 sections 6.2.1 and 6.3: any status and reason, repeated fields in order, the body untouched."""
    head = "Status: 299 Fine By Me\nSet-Cookie: a=1\nSet-Cookie: b=2\nX-Dropped: no\nConnection: close\n" + CT + "\n"
    response, body = server.get(steps(["out", head + "a\r\n\x00\xff"]))
    assert (response.status, response.reason) == (299, "Fine By Me")
    assert response.headers.get_all("Set-Cookie") == ["a=1", "b=2"]
    assert response.headers["Content-Type"] == "text/plain"
    assert body == b"a\r\n\x00\xff"


def test_short_answer_gets_its_length(server: Server) -> None:
    """An answer whose end is known when its head goes out carries Content-Length, so that the connection lives on."""

    def length() -> str | None:
        response, body = server.get(steps(["out", CT + "\nhello"], ["exit", 0]))
        assert body == b"hello"
        return response.headers["Content-Length"]

    wait_until(lambda: length() == "5", "it ended at once")  # a busy machine may take its time


def test_head_is_not_held_back_where_the_answer_goes_on(site: Site) -> None:
    """What the last answer of a URL was like decides, in both directions."""
    script = str(site.sh("grows", "printf 'Content-Type: text/plain\\n\\na'; sleep 1; echo b\n"))
    app = CGIMiddleware(lambda environ, start_response: [], site.directory)
    habits = app._gateway._habits

    def hold_after_get(query: str) -> float:
        body, status, _ = run_wsgi_app(app, create_environ(f"/cgi-bin/grows?{query}"), buffered=True)
        assert (status, b"".join(body)) == ("200 OK", b"ab\n")
        return habits.hold(script, query)

    assert hold_after_get("x") == 0.0
    assert habits.hold(script, "y") == SHORT_ANSWER_SECONDS
    site.sh("grows", "printf 'Content-Type: text/plain\\n\\nab\\n'\n")
    wait_until(lambda: hold_after_get("x") == SHORT_ANSWER_SECONDS, "it ended at once")
    for number in range(2 * MAX_HABITS):
        habits.note("script", str(number), went_on=True, was_quick=True)
    assert len(habits._going_on) <= MAX_HABITS
    assert len(habits._quick) <= MAX_HABITS


def test_short_answer_that_becomes_a_long_one_is_whole(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a script that was short is all that is waited for, but not for long, and not a second time."""
    script = str(site.sh("changes", "printf 'Content-Type: text/plain\\n\\na'\n"))
    app = CGIMiddleware(lambda environ, start_response: [], site.directory)
    habits = app._gateway._habits

    monkeypatch.setattr("wsgicgi.exchange.QUICK_SECONDS", 1.0)

    def get() -> bytes:
        body, status, _ = run_wsgi_app(app, create_environ("/cgi-bin/changes"), buffered=True)
        assert status == "200 OK"
        return b"".join(body)

    wait_until(lambda: get() == b"a" and habits.is_quick(script, ""), "it ended at once")
    site.sh("changes", "printf 'Content-Type: text/plain\\n\\n'; head -c 1000000 /dev/zero; sleep 0.1; echo b\n")
    assert get() == bytes(1_000_000) + b"b\n"
    assert not habits.is_quick(script, "")


def test_no_content_type_is_made_up(server: Server) -> None:
    """A script's response without Content-Type goes out without one: it is never guessed."""
    response, _ = server.get(steps(["out", "X-A: 1\n\n<html>"]))
    assert response.status == 200
    assert "Content-Type" not in response.headers


def test_local_redirect_is_answered_by_what_it_names(server: Server, site: Site) -> None:
    """RFC 3875 section 6.2.2: a file, or a script with extra path and query; the client does not notice."""
    site.file("page.txt", "the page")
    response, body = server.get(steps(["out", "Location: /page.txt\n\n"]))
    assert (response.status, body, response.headers["Location"]) == (200, b"the page", None)
    site.sh("to-report", "echo 'Location: /cgi-bin/report.py/p%20q?x=1'; echo\n")
    given = report(server, "/cgi-bin/to-report", "POST", body=b"not for the target")
    assert given["environ"]["PATH_INFO"] == "/p q"
    assert given["environ"]["QUERY_STRING"] == "x=1"
    assert given["environ"]["REQUEST_METHOD"] == "GET"
    assert given["body"] == ""


def test_local_redirects_without_end_are_stopped(server: Server, site: Site) -> None:
    """A script that redirects to itself gives a 500 after ten rounds."""
    site.sh("loop", "echo x >> rounds; echo 'Location: /cgi-bin/loop'; echo\n")
    response, _ = server.get("/cgi-bin/loop")
    assert response.status == 500
    assert len((site.directory / "cgi-bin/rounds").read_text().split()) == 11


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("DELETE", 400), ("POST", 400), ("MOVE", 400)])
def test_a_fragment_is_refused_where_it_would_matter(server: Server, method: str, status: int) -> None:
    """A target has none (RFC 9112 section 3.2): DELETE of /dir/#x is not that of /dir/, which litmus warns of."""
    response, _ = server.request(method, "/cgi-bin/report.py/dir/#x", b"" if method == "POST" else None)
    assert response.status == status


@pytest.mark.parametrize(
    ("head", "status", "location"),
    [
        ("Location: http://example.test/x\n\n", 302, "http://example.test/x"),
        ("Status: 303 See Other\nLocation: /x\n\n", 303, "/x"),
        ("Location: /x\nSet-Cookie: a=1\n\n", 302, "/x"),
        ("Location: //example.test/x\n\n", 302, "//example.test/x"),
    ],
)
def test_client_redirect_goes_to_the_client(server: Server, head: str, status: int, location: str) -> None:
    """RFC 3875 sections 6.2.3 and 6.2.4; a path with Status or with fields of its own is meant for the client too."""
    response, _ = server.get(steps(["out", head]))
    assert (response.status, response.headers["Location"]) == (status, location)


def test_nph_script_speaks_http_itself(server: Server, site: Site) -> None:
    """RFC 3875 section 5: its status line and fields become those of the one response."""
    site.sh("nph-x", r"printf 'HTTP/1.1 299 Mine\r\nContent-Type: text/x\r\nX-A: 1\r\nConnection: close\r\n\r\nbody'")
    response, body = server.get("/cgi-bin/nph-x")
    assert (response.status, response.reason, response.headers["X-A"], body) == (299, "Mine", "1", b"body")


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified"])
def test_no_body_where_there_must_be_none(server: Server, site: Site, status: str) -> None:
    """HEAD, 204 and 304 have no body on the wire, whatever the script prints (RFC 9112 section 6.3)."""
    method = "HEAD" if status.startswith("200") else "GET"
    with socket.create_connection(("127.0.0.1", server.port), 20) as sock:
        target = steps(["out", f"Status: {status}\nX-A: 1\n{CT}\nmust not be seen"])
        sock.sendall(f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        received = b""
        while data := sock.recv(65536):
            received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status[:3].encode())
    assert b"\r\nX-A: 1" in head
    assert rest == b""


def read_some(server: Server, target: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", target)
    return connection, connection.getresponse()


def test_first_byte_arrives_while_the_script_still_runs(server: Server, site: Site, tmp_path: Path) -> None:
    """RFC 3875 section 6.4: output streams; the head too goes out before there is a body."""
    go_on = str(tmp_path / "go-on")
    connection, response = read_some(server, steps(["out", CT + "\n"], ["wait_for", go_on], ["out", "rest"]))
    assert response.status == 200
    Path(go_on).touch()
    assert response.read() == b"rest"
    connection.close()
    Path(go_on).unlink()
    connection, response = read_some(server, steps(["out", CT + "\nfirst"], ["wait_for", go_on], ["out", "second"]))
    assert response.read(5) == b"first"
    Path(go_on).touch()
    assert response.read() == b"second"
    connection.close()


def test_stderr_goes_to_the_log_line_by_line_with_the_path(server: Server) -> None:
    """Standard error never reaches the client; control characters cannot forge lines (CWE-117)."""
    response, body = server.get(steps(["err", "one\ntwo \x1b[31m\n"], ["out", CT + "\nok"], ["err", "last"]))
    assert (response.status, body) == (200, b"ok")
    wait_until(lambda: "/cgi-bin/steps.py: last\n" in server.log, "all of standard error is in the log")
    assert re.search(r"(?m)^( *)/cgi-bin/steps\.py: one\n\1/cgi-bin/steps\.py: two \\x1b\[31m$", server.log)


def test_flood_of_stderr_does_not_block(server: Server) -> None:
    """A script that fills standard error before it answers is answered (the pipes' deadlock)."""
    response, body = server.get(steps(["fill", 2 << 20, 2], ["out", CT + "\nfine"]))
    assert (response.status, body) == (200, b"fine")


BROKEN = {
    "no x bit": ("noexec.sh", "#!/bin/sh\n", 0o644, 403, "is not executable (mode 0644). Try: chmod 755"),
    "CRLF shebang": (
        "crlf",
        "#!/bin/sh\r\necho\r\n",
        0o755,
        500,
        "ends in CR LF, so the kernel looks for '/bin/sh\\r'",
    ),
    "no shebang": ("noshebang", "echo\n", 0o755, 500, "does not begin with #!"),
    "byte order mark": ("bom", b"\xef\xbb\xbf#!/bin/sh\n", 0o755, 500, "byte order mark"),
    "no interpreter": ("nointerp", "#!/no/such/sh\n", 0o755, 500, "'/no/such/sh', which does not exist. There is "),
    "empty file": ("empty", "", 0o755, 500, "is empty"),
    "no output": ("nothing", "#!/bin/sh\nexit 3\n", 0o755, 502, "there was no output"),
    "HTML at once": (
        "html",
        "#!/bin/sh\necho '<html>'; echo; echo x\n",
        0o755,
        502,
        "output line 1 is not a header field: b'<html>'",
    ),
    "no empty line": (
        "noblank",
        "#!/bin/sh\necho Content-Type: text/html\n",
        0o755,
        502,
        "the empty line that ends the header is missing",
    ),
    "HTTP by itself": ("http", "#!/bin/sh\nprintf 'HTTP/1.1 200 OK\\n\\n'\n", 0o755, 502, "name that begins with nph-"),
    "bad status": ("status", "#!/bin/sh\nprintf 'Status: abc\\n\\n'\n", 0o755, 502, "is not three digits and a reason"),
    "killed": ("killed", "#!/bin/sh\nkill -9 $$\n", 0o755, 502, "It was killed by SIGKILL"),
}


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN)
def test_broken_script_has_its_status_and_one_clear_line(server: Server, site: Site, case: tuple) -> None:
    """The client gets the status and nothing else; the log has the URL, the cause and the request id in one line."""
    name, text, mode, status, cause = case
    site.script(name, text, mode)
    response, body = server.get(f"/cgi-bin/{name}")
    assert response.status == status
    assert str(site.directory).encode() not in body
    assert response.headers["Content-Type"].startswith("text/html")
    request_id = body.split(b"Request ")[1][:16].decode()
    wait_until(lambda: request_id in server.log, "the cause is in the log")
    [line] = [line for line in server.log.splitlines() if request_id in line]
    assert f"/cgi-bin/{name}: " in line
    assert cause in line


def test_python_script_without_x_bit_or_shebang_runs(server: Server, site: Site) -> None:
    """A .py needs neither: it runs with the server's own Python."""
    for name, mode in (("plain.py", 0o644), ("executable.py", 0o755)):
        site.script(name, "import sys\nprint('Content-Type: text/plain\\n\\n' + sys.prefix)\n", mode)
        _, body = server.get(f"/cgi-bin/{name}")
        assert body.decode().strip() == sys.prefix


def test_script_that_never_answers_is_ended_with_its_children(site: Site, tmp_path: Path, server_kind: str) -> None:
    """No complete head in ``timeout`` seconds: 504, and the whole process group is gone."""
    pid_file = tmp_path / "pid"
    site.sh("silent", f"sleep 300 & echo $! > {pid_file}; wait\n")
    with serving(server_kind, site.directory, tmp_path / "log", env={"WSGICGI_TIMEOUT": "0.5"}) as server:
        response, _ = server.get("/cgi-bin/silent")
        assert response.status == 504
        wait_until(lambda: not is_running(pid_file), "its child has ended")
        wait_until(lambda: "(timeout=0.5, 0 bytes received)" in server.log, "the cause")


def test_silence_after_the_head_breaks_the_connection(site: Site, tmp_path: Path, server_kind: str) -> None:
    """An answer that cannot be completed must not look complete (RFC 9112 section 8)."""
    site.sh("quiet", "printf 'Content-Type: text/plain\\n\\nbegin'; exec sleep 300\n")
    with serving(server_kind, site.directory, tmp_path / "log", env={"WSGICGI_TIMEOUT": "2"}) as server:
        with pytest.raises(http.client.IncompleteRead):
            server.get("/cgi-bin/quiet")
        server.wait_for_log(r"no output for \d+\.\d s \(timeout=2\)")


def test_max_time_ends_a_script_that_keeps_writing(site: Site, tmp_path: Path, server_kind: str) -> None:
    """``max_time`` counts from the start, whatever the script writes."""
    site.sh("ticks", "printf 'Content-Type: text/plain\\n\\n'; while :; do echo tick; sleep 0.1; done\n")
    with serving(server_kind, site.directory, tmp_path / "log", env={"WSGICGI_MAX_TIME": "2"}) as server:
        with pytest.raises(http.client.IncompleteRead):
            server.get("/cgi-bin/ticks")
        wait_until(lambda: "(max_time=2)" in server.log, "the cause is in the log")


def test_max_time_ends_a_script_behind_a_slow_client(site: Site, tmp_path: Path) -> None:
    """A script that always has more to say is looked at too."""
    site.sh("endless", "printf 'Content-Type: text/plain\\n\\n'; exec cat /dev/zero\n")
    with (
        serving("gunicorn", site.directory, tmp_path / "log", env={"WSGICGI_MAX_TIME": "2"}) as server,
        socket.create_connection(("127.0.0.1", server.port), 20) as sock,
    ):
        sock.sendall(b"GET /cgi-bin/endless HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b"x"
        with contextlib.suppress(ConnectionError):
            while received:
                received = sock.recv(1 << 16)
        wait_until(lambda: "(max_time=2)" in server.log, "the cause is in the log")


def test_killed_script_breaks_the_connection(server: Server, tmp_path: Path) -> None:
    """A script that dies by a signal after its head went out leaves a broken message, and a line in the log."""
    go_on = tmp_path / "go-on"
    connection, response = read_some(server, steps(["out", CT + "\nbegin"], ["wait_for", str(go_on)], ["kill", 9]))
    assert response.read(5) == b"begin"
    go_on.touch()
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    connection.close()
    wait_until(lambda: "was killed by SIGKILL in the middle of its output" in server.log, "the cause is in the log")


def test_too_little_output_for_its_length_does_not_look_complete(server: Server, tmp_path: Path) -> None:
    """A Content-Length that is too large: 502, or, where the head is out already, a broken connection."""
    with contextlib.suppress(http.client.IncompleteRead):  # or the end comes a moment later
        assert server.get(steps(["out", f"Content-Length: 1000\n{CT}\nhello"]))[0].status == 502
    wait_until(lambda: "the output ended after 5 of the 1000 bytes" in server.log, "the cause is in the log")
    server.begin_log()
    go_on = tmp_path / "go-on"
    target = steps(["out", f"Content-Length: 1000\n{CT}\nhello"], ["wait_for", str(go_on)])
    connection, response = read_some(server, target)
    assert response.read(5) == b"hello"
    go_on.touch()
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    connection.close()
    wait_until(lambda: "the output ended after 5 of the 1000 bytes" in server.log, "the cause is in the log")


def test_surplus_output_is_cut(server: Server) -> None:
    """A Content-Length that is too small: the surplus can never become a second response."""
    _, body = server.get(steps(["out", f"Content-Length: 5\n{CT}\nhelloHTTP/1.1 200 OK\r\n\r\n"]))
    assert body == b"hello"
    wait_until(lambda: "output after its Content-Length of 5 bytes was cut off" in server.log, "it is in the log")


def test_exit_status_after_a_whole_answer_is_only_logged(server: Server) -> None:
    """The answer counts; the status is for the log."""
    response, body = server.get(steps(["out", CT + "\nwhole"], ["exit", 3]))
    assert (response.status, body) == (200, b"whole")
    wait_until(lambda: "/cgi-bin/steps.py: exited with status 3" in server.log, "the exit status is in the log")


def test_background_child_that_holds_stdout_does_not_hold_the_answer(server: Server, tmp_path: Path) -> None:
    """The answer ends when the script has exited and the pipe is drained."""
    go_on = tmp_path / "go-on"
    _, body = server.get(steps(["background", [["wait_for", str(go_on)]]], ["out", CT + "\ndone"]), timeout=10)
    assert body == b"done"
    go_on.touch()


def test_script_may_finish_its_work_after_closing_its_output(server: Server, tmp_path: Path) -> None:
    """The answer ends with the output; the script is not ended with it."""
    go_on, done = tmp_path / "go-on", tmp_path / "done"
    target = steps(["out", CT + "\nanswer"], ["close", 1], ["wait_for", str(go_on)], ["touch", str(done)])
    _, body = server.get(target, timeout=10)
    assert body == b"answer"
    go_on.touch()
    wait_until(done.exists, "the script has finished its work")


def test_script_may_finish_its_work_after_a_local_redirect(server: Server, site: Site, tmp_path: Path) -> None:
    """What it has to say is said, but it may have something left to do."""
    site.file("thanks.txt", "thanks")
    go_on, done = tmp_path / "go-on", tmp_path / "done"
    target = steps(["out", "Location: /thanks.txt\n\n"], ["wait_for", str(go_on)], ["touch", str(done)])
    assert server.get(target)[1] == b"thanks"
    go_on.touch()
    wait_until(done.exists, "the script has finished its work")


def test_head_request_lets_the_script_run_to_its_end(server: Server, tmp_path: Path) -> None:
    """RFC 3875 section 4.3.3: the script runs; its body is dropped, however long, and the client need not wait."""
    done = tmp_path / "done"
    response, body = server.request("HEAD", steps(["out", CT + "\n"], ["fill", 3 << 20], ["touch", str(done)]))
    assert (response.status, body) == (200, b"")
    wait_until(done.exists, "the script came to its end")


@pytest.mark.parametrize("silent", [True, False], ids=["silent", "writing"])
@pytest.mark.parametrize("before_head", [True, False], ids=["before head", "after head"])
def test_client_gone_ends_the_process_group(server: Server, tmp_path: Path, silent: bool, before_head: bool) -> None:
    """A script does not outlive its viewer, also while it is silent (RFC 3875 section 9.5)."""
    pid_file = tmp_path / "pid"
    begin = [] if before_head else [["out", CT + "\nx"]]
    work = [["sleep", 300]] if silent else [["fill", 1 << 40]]
    with socket.create_connection(("127.0.0.1", server.port), 20) as sock:
        target = steps(*begin, ["touch", str(pid_file)], *([["out", CT + "\n"]] if not silent else []), *work)
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        wait_until(lambda: pid_file.exists() and pid_file.read_text(), "the script runs")
    wait_until(lambda: not is_running(pid_file), "the script has ended")


def test_script_that_ignores_sigterm_is_killed(server: Server, tmp_path: Path) -> None:
    """SIGTERM, three seconds, SIGKILL."""
    pid_file = tmp_path / "pid"
    with socket.create_connection(("127.0.0.1", server.port), 20) as sock:
        target = steps(["ignore", signal.SIGTERM], ["touch", str(pid_file)], ["sleep", 300])
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        wait_until(lambda: pid_file.exists() and pid_file.read_text(), "the script runs")
    wait_until(lambda: not is_running(pid_file), "the script has ended")


def test_body_that_is_too_large_is_refused_before_it_is_read(site: Site, tmp_path: Path, server_kind: str) -> None:
    """413 for more than ``max_body_bytes``, announced or chunked; the script does not run."""
    with serving(server_kind, site.directory, tmp_path / "log", env={"WSGICGI_MAX_BODY_BYTES": "1000"}) as server:
        response, _ = server.request("POST", "/cgi-bin/report.py", body=b"x" * 1001)
        assert response.status == 413
        response, _ = server.request("POST", "/cgi-bin/report.py", body=iter([b"x" * 600, b"x" * 600]))
        assert response.status == 413
        assert len(report(server, "/cgi-bin/report.py", "POST", body=b"x" * 1000)["body"]) == 1000


def test_body_that_stops_coming_is_given_up(site: Site, tmp_path: Path) -> None:
    """Where the server shows its socket (gunicorn), a stalled body gives 408 after ``timeout`` seconds."""
    with (
        serving("gunicorn", site.directory, tmp_path / "log", env={"WSGICGI_TIMEOUT": "0.5"}) as server,
        socket.create_connection(("127.0.0.1", server.port), 20) as sock,
    ):
        sock.sendall(b"POST /cgi-bin/report.py HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        assert sock.recv(100).startswith(b"HTTP/1.1 408 ")


def test_environment_that_does_not_fit_is_refused(server: Server) -> None:
    """A request whose fields are too large for an environment gives a 4xx, from the server or from us (431)."""
    response, _ = server.get("/cgi-bin/report.py", headers={f"X-{i}": "y" * 8000 for i in range(30)})
    assert response.status in (200, 431)
    response, _ = server.get("/cgi-bin/report.py?" + "q" * 200_000)
    assert 400 <= response.status < 500


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "PROPFIND", "REPORT", "OPTIONS", "BREW"])
def test_every_method_reaches_the_script_with_its_body(server: Server, method: str) -> None:
    """RFC 3875 section 4.3.4; what TRACE would echo is refused."""
    given = report(server, "/cgi-bin/report.py/x", method, body=b"data")
    assert (given["environ"]["REQUEST_METHOD"], given["body"]) == (method, "data")


def test_trace_is_refused(server: Server) -> None:
    """TRACE would show cookies to scripts in the page (cross-site tracing)."""
    response, body = server.request("TRACE", "/cgi-bin/report.py", headers={"Cookie": "secret=1"})
    assert response.status == 405
    assert b"secret" not in body


@pytest.mark.parametrize(
    "target",
    [
        "//cgi-bin/secret.sh",
        "/cgi-bin//secret.sh",
        "/./cgi-bin/secret.sh",
        "/sub/../cgi-bin/secret.sh",
        "/%63gi-bin/secret.sh",
        "/cgi-bin%2fsecret.sh",
        "/cgi-bin/secret.sh/",
        "/cgi-bin/secret.sh%00",
        "/cgi-bin/secret.sh#/../..",
        "/cgi-bin/%252e%252e/cgi-bin/secret.sh",
        "/%252e%252e/cgi-bin/secret.sh",
        "/cgi-bin/secret.sh~",
        "/cgi-bin/secret.txt",
        "/cgi-bin/.secret",
        "/link-to-secret",
        "/CGI-BIN/secret.sh",
        "/cgi-bin/",
        "/cgi-bin",
    ],
)
def test_source_is_never_shown(server: Server, site: Site, target: str) -> None:
    """Below a CGI directory, by whatever spelling or link, the answer is a script's output or an error."""
    for name in ("secret.sh", "secret.sh~", "secret.txt", ".secret"):
        mode = 0o755 if name == "secret.sh" else 0o644
        site.script(name, "#!/bin/sh\n# THE SOURCE\nprintf 'Content-Type: text/plain\\n\\nran\\n'\n", mode)
    link = site.directory / "link-to-secret"
    link.unlink(missing_ok=True)
    link.symlink_to("cgi-bin/secret.sh")
    response, body = server.get(target)
    assert b"THE SOURCE" not in body
    assert (response.status == 200 and body == b"ran\n") or 400 <= response.status < 500


def test_what_is_refused_is_logged_with_its_url(site: Site) -> None:
    """What is wrong with a request's body or Host knows nothing of URLs, and a line without one helps nobody."""
    app = create_app(site.directory, max_body_bytes=3)
    for method, fields, cause in (
        ("TRACE", {}, "TRACE is not for scripts"),
        ("POST", {"CONTENT_LENGTH": "4"}, "the request body has 4 bytes; at most 3 are taken (max_body_bytes)"),
        ("GET", {"HTTP_HOST": "a b"}, "Host: 'a b' is not one host"),
    ):
        environ = create_environ("/cgi-bin/report.py", method=method)
        environ.update(fields)
        environ["wsgi.errors"] = errors = io.StringIO()
        run_wsgi_app(app, environ)
        assert re.fullmatch(rf"/cgi-bin/report.py: {re.escape(cause)} \[[0-9a-f]{{16}}\]\n", errors.getvalue())
    app.close()
