"""The life of a script beside its response, on every server: standard error, ends, streams, clients that go, NPH."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import servers
import wire
from conftest import Host
from scripts import CT, assert_in_step, is_running, mark, printed, printing

LEAVING: dict[str, Callable[[wire.Connection], None]] = {"close": wire.Connection.close, "reset": wire.Connection.reset}


def started(pid_file: Path) -> bool:
    """Whether a script's ``touch`` has left its process id."""
    return pid_file.exists() and pid_file.read_text() != ""


# -- standard error


@pytest.mark.parametrize("size", [1 << 16, 1 << 20])
def test_much_standard_error_before_the_output_blocks_nothing(host: Host, size: int) -> None:
    # the deadlock of two pipes: nobody reads the one while waiting for the other
    answer = host.steps(["fill", size, 2], ["out", CT + "\nfine\n"])
    assert (answer.status, answer.body) == (200, b"fine\n")


def test_much_standard_error_amid_and_after_the_output_blocks_nothing(host: Host) -> None:
    # the same, in every part of the response
    flood = ["fill", 1 << 18, 2]
    answer = host.steps(["out", "X-A: 1\n"], flood, ["out", CT + "\none "], flood, ["out", "two"], flood)
    assert (answer.status, answer.get("X-A"), answer.body) == (200, "1", b"one two")


def test_standard_error_never_reaches_the_client(host: Host) -> None:
    # RFC 3875 9.4; CWE-209
    answer = host.steps(["err", "CANARY\n"], ["out", CT + "\nfine\n"], ["err", "CANARY\n"])
    assert (answer.status, answer.body) == (200, b"fine\n")
    assert b"CANARY" not in answer.raw
    for end in (["exit", 1], ["exit", 0], ["kill", 9], ["out", "nonsense\n\n"]):
        answer = host.steps(["err", "CANARY\n"], end)
        assert 500 <= answer.status <= 599
        assert b"CANARY" not in answer.raw + answer.body


def test_standard_error_reaches_the_log(host: Host) -> None:
    # RFC 3875 leaves it open; httpd and all others log it
    host.server.begin_log()
    host.steps(["err", "a line for the log\n"], ["out", CT + "\n"])
    servers.wait_until(lambda: "a line for the log" in host.server.log, "the line is in the log")


def test_output_that_looks_like_a_head_on_standard_error_is_no_output(host: Host) -> None:
    # RFC 3875 7.2: the response is what comes from standard output
    answer = host.steps(["err", "Status: 404 Not Found\n\n"], ["out", CT + "\nx"])
    assert (answer.status, answer.body) == (200, b"x")


# -- ends


@pytest.mark.parametrize("code", [1, 3, 127, 255])
def test_exit_status_does_not_undo_a_complete_response(host: Host, code: int) -> None:
    # RFC 3875 6: the response is the output
    answer = host.out(CT + "\ncomplete\n", ["exit", code])
    assert (answer.status, answer.body) == (200, b"complete\n")
    answer = host.out("Status: 404 Lost\n" + CT + "\nmine", ["exit", code])
    assert (answer.status, answer.body) == (404, b"mine")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT, signal.SIGPIPE])
@pytest.mark.parametrize("before", ["", "Content-Type: text/plain\n"], ids=["nothing", "half a head"])
def test_script_that_is_killed_before_its_head_is_a_server_error(host: Host, number: int, before: str) -> None:
    # RFC 3875 6.1
    assert 500 <= host.steps(["out", before], ["kill", int(number)]).status <= 599


def test_script_that_is_killed_amid_its_body_does_not_look_complete(host: Host) -> None:
    # RFC 9112 8: an incomplete message must be known as one
    go_on = mark(host)
    target = servers.steps(["out", CT + "\nbegin"], ["wait_for", str(go_on)], ["kill", 9])
    with host.connect() as connection:
        connection.send(wire.request("GET", target, close=False))
        answer = connection.read_head()
        received = connection.read_some()
        go_on.touch()
        received += connection.rest()
    assert answer.get("Transfer-Encoding") == "chunked"
    assert b"begin" in received
    assert not received.endswith(b"0\r\n\r\n")


def test_server_answers_on_after_scripts_of_every_end(host: Host) -> None:
    # RFC 3875 6: one script's fault is none of the next one's
    for steps in ([["exit", 9]], [["kill", 9]], [["out", "nonsense"]], [["close", 0, 1, 2]]):
        host.steps(*steps)
        assert host.out(CT + "\nfine").body == b"fine"


def test_ended_scripts_are_reaped(host: Host) -> None:
    # wait(2): who starts processes takes their status, or the table of processes fills up
    for steps in ([["out", CT + "\n"]], [["exit", 1]], [["kill", 9]]):
        host.steps(*steps)
    servers.wait_until(lambda: not zombies(host.server.pids()), "no zombie is left below the server")


def zombies(parents: list[int]) -> list[str]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            state, parent = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and int(parent) in parents:
            found.append(name)
    return found


# -- standard output that closes early, and what lives on


def test_response_ends_when_standard_output_is_closed(host: Host) -> None:
    # RFC 3875 6.4, 7.2: the end of the output is its end of file, not the end of the script
    go_on = mark(host)
    answer = host.out(CT + "\ndone\n", ["close", 1], ["close", 2], ["close", 0], ["wait_for", str(go_on)])
    assert (answer.status, answer.body) == (200, b"done\n")
    go_on.touch()


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1]], ids=str)
def test_script_may_finish_its_work_behind_a_closed_output(host: Host, order: list[int]) -> None:
    # practice: programs close their descriptors in order to work on unseen
    go_on, done = mark(host), mark(host)
    work = [["wait_for", str(go_on)], ["touch", str(done)]]
    answer = host.out(CT + "\ndone\n", *[["close", number] for number in order], *work)
    assert (answer.status, answer.body) == (200, b"done\n")
    assert not done.exists()
    go_on.touch()
    servers.wait_until(done.exists, "the script came to its end")


def test_output_closed_without_a_head_is_a_server_error_at_once(host: Host) -> None:
    # RFC 3875 6.1: nothing can come any more, whatever the script still does
    go_on = mark(host)
    assert 500 <= host.steps(["close", 1], ["wait_for", str(go_on)]).status <= 599
    go_on.touch()


def test_script_that_closed_standard_input_and_error_is_answered(host: Host) -> None:
    # RFC 3875 4.2: a script need not read its body
    answer = host.steps(["close", 0], ["close", 2], ["out", CT + "\nx"], method="POST", body=b"unread" * 50_000)
    assert (answer.status, answer.body) == (200, b"x")


def test_script_that_writes_on_behind_its_length_comes_to_its_end(host: Host) -> None:
    # RFC 9112 6.3: the answer is over, and the pipe is emptied for the script's sake
    done = mark(host)
    answer = host.out(f"Content-Length: 5\n{CT}\nhello", ["fill", 1 << 20], ["touch", str(done)])
    assert answer.body == b"hello"
    servers.wait_until(done.exists, "the script came to its end")


def test_head_lets_a_writing_script_come_to_its_end(host: Host) -> None:
    # RFC 3875 4.3.3: its body is dropped; it is not stopped
    done = mark(host)
    answer = host.out(CT + "\n", ["fill", 1 << 20], ["touch", str(done)], method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    servers.wait_until(done.exists, "the script came to its end")


@pytest.mark.parametrize(
    "begin",
    [[["session"], ["close", 0, 1, 2]], [["close", 0, 1, 2]], [["session"]], []],
    ids=["daemon", "own descriptors", "own session", "as it is"],
)
def test_child_in_the_background_does_not_delay_the_response(host: Host, begin: list[list[object]]) -> None:
    # practice: the script has exited; that a child still holds its output says nothing
    go_on, done = mark(host), mark(host)
    child = [*begin, ["wait_for", str(go_on)], ["touch", str(done)]]
    answer = host.steps(["background", child], ["out", CT + "\nstarted\n"])
    assert (answer.status, answer.body) == (200, b"started\n")
    assert not done.exists()
    go_on.touch()
    servers.wait_until(done.exists, "the child came to its end")


def test_background_child_without_a_head_of_the_script_is_a_server_error(host: Host) -> None:
    # RFC 3875 6.1: who has exited says nothing more
    go_on = mark(host)
    answer = host.steps(["background", [["wait_for", str(go_on)]]], ["exit", 0])
    assert 500 <= answer.status <= 599
    go_on.touch()


# -- streams


def test_output_is_sent_while_the_script_still_runs(host: Host) -> None:
    # RFC 3875 6.4; practice: progress pages, event streams
    marks = [mark(host) for _ in range(3)]
    script = [
        step for number, path in enumerate(marks) for step in (["wait_for", str(path)], ["out", f"part {number}"])
    ]
    with host.connect() as connection:
        connection.send(wire.request("GET", servers.steps(["out", CT + "\nbegin"], *script)))
        answer = connection.read_head()
        received = b""
        for awaited, path in zip([b"begin", b"part 0", b"part 1"], marks, strict=True):
            while awaited not in received:
                received += connection.read_some()
            path.touch()
        received += connection.rest()
    assert answer.status == 200
    assert b"part 2" in received


def test_head_is_sent_before_there_is_a_body(host: Host) -> None:
    # practice: a client can know type and cookies of an answer that takes long
    go_on = mark(host)
    target = servers.steps(["out", f"{CT}X-A: 1\n\n"], ["wait_for", str(go_on)], ["out", "body\n"])
    with host.connect() as connection:
        connection.send(wire.request("GET", target))
        answer = connection.read_head()
        assert (answer.status, answer.get("X-A")) == (200, "1")
        go_on.touch()
        assert b"body\n" in connection.rest()


def test_stream_of_many_small_pieces_arrives_whole(host: Host) -> None:
    # RFC 3875 6.4
    text = (
        "import os\nos.write(1, b'Content-Type: text/plain\\n\\n')\nfor n in range(3000): os.write(1, b'%d\\n' % n)\n"
    )
    host.site.python("ticks.py", text)
    assert host.get("/cgi-bin/ticks.py").body == b"".join(b"%d\n" % number for number in range(3000))


def test_streams_at_once_do_not_wait_for_each_other(host: Host) -> None:
    # each waits for the next one to have begun: served one by one, none would end
    marks = [mark(host) for _ in range(5)]

    def ask(number: int) -> bytes:
        following = marks[(number + 1) % len(marks)]
        return host.out(CT + "\n", ["touch", str(marks[number])], ["wait_for", str(following)], ["out", "met"]).body

    with concurrent.futures.ThreadPoolExecutor(len(marks)) as pool:
        assert list(pool.map(ask, range(len(marks)))) == [b"met"] * len(marks)


def test_slow_reader_gets_every_byte(host: Host) -> None:
    # RFC 3875 6.4: the script waits for its client, and nothing is lost
    size = 8 << 20
    with host.connect() as connection:
        pid_file = mark(host)
        target = servers.steps(["touch", str(pid_file)], ["out", f"Content-Length: {size}\n{CT}\n"], ["fill", size])
        connection.send(wire.request("GET", target))
        servers.wait_until(lambda: started(pid_file), "the script has begun")
        answer = connection.read()
    assert answer.body == b"0123456789abcdef" * (size // 16)


# -- clients that go


@pytest.mark.parametrize("leave", LEAVING)
def test_endless_writer_ends_with_its_client(host: Host, leave: str) -> None:
    # RFC 3875 9.5; CWE-404
    pid_file = mark(host)
    target = servers.steps(["touch", str(pid_file)], ["out", CT + "\n"], ["fill", 1 << 40])
    with host.connect() as connection:
        connection.send(wire.request("GET", target))
        assert connection.read_head().status == 200
        connection.read_some(100_000)
        LEAVING[leave](connection)
    servers.wait_until(lambda: not is_running(pid_file), "the script has ended")


@pytest.mark.parametrize("leave", LEAVING)
def test_slow_writer_ends_with_its_client(host: Host, leave: str) -> None:
    # RFC 3875 9.5; CWE-404: each line still fits into some buffer
    pid_file = mark(host)
    text = f"echo $$ > '{pid_file}'\nprintf 'Content-Type: text/plain\\n\\n'\nwhile :; do echo tick; sleep 0.1; done\n"
    host.site.sh(f"ticks-{leave}", text)
    with host.connect() as connection:
        connection.send(wire.request("GET", f"/cgi-bin/ticks-{leave}"))
        assert connection.read_head().status == 200
        connection.read_some()
        LEAVING[leave](connection)
    servers.wait_until(lambda: not is_running(pid_file), "the script has ended")


@pytest.mark.parametrize("leave", LEAVING)
@pytest.mark.parametrize("head", ["", CT + "\nbegin"], ids=["before head", "after head"])
def test_silent_script_ends_with_its_client(host: Host, head: str, leave: str) -> None:
    # RFC 3875 9.5: nothing is written that could fail, so the connection must be looked at
    pid_file = mark(host)
    with host.connect() as connection:
        target = servers.steps(["out", head], ["touch", str(pid_file)], ["sleep", 60])
        connection.send(wire.request("GET", target, close=False))
        servers.wait_until(lambda: started(pid_file), "the script has begun")
        LEAVING[leave](connection)
    servers.wait_until(lambda: not is_running(pid_file), "the script has ended")


def test_script_of_a_post_ends_with_its_client(host: Host) -> None:
    # RFC 3875 9.5: the body that was sent with it changes nothing
    pid_file = mark(host)
    with host.connect() as connection:
        target = servers.steps(["hash"], ["touch", str(pid_file)], ["sleep", 60])
        connection.send(wire.request("POST", target, body=b"x" * 100_000))
        servers.wait_until(lambda: started(pid_file), "the script has read its body")
    servers.wait_until(lambda: not is_running(pid_file), "the script has ended")


def test_children_of_a_script_end_with_its_client(host: Host) -> None:
    # RFC 3875 9.5: what the script started for this answer has no other use
    pids = [mark(host), mark(host)]
    child = [["touch", str(pids[1])], ["sleep", 60]]
    with host.connect() as connection:
        target = servers.steps(["background", child], ["touch", str(pids[0])], ["sleep", 60])
        connection.send(wire.request("GET", target))
        servers.wait_until(lambda: all(map(started, pids)), "script and child have begun")
    servers.wait_until(lambda: not any(map(is_running, pids)), "script and child have ended")


def test_script_that_ignores_sigterm_ends_with_its_client_all_the_same(host: Host) -> None:
    # RFC 3875 9.5: what does not end when asked is ended
    pid_file = mark(host)
    with host.connect() as connection:
        target = servers.steps(["ignore", int(signal.SIGTERM)], ["touch", str(pid_file)], ["sleep", 60])
        connection.send(wire.request("GET", target))
        servers.wait_until(lambda: started(pid_file), "the script has begun")
    servers.wait_until(lambda: not is_running(pid_file), "the script has ended")


def test_client_that_closes_only_its_half_is_answered(host: Host) -> None:
    # RFC 9112 9.6: a client may end what it sends and still read
    with host.connect() as connection:
        connection.send(wire.request("GET", servers.steps(["out", CT + "\nstill there"])))
        connection.socket.shutdown(socket.SHUT_WR)
        answer = connection.read()
    assert (answer.status, answer.body) == (200, b"still there")


def test_client_that_goes_takes_no_other_answer_with_it(host: Host) -> None:
    # RFC 3875 9.5: only the script whose client went is ended
    go_on, pid_file = mark(host), mark(host)
    with host.connect() as staying, host.connect() as going:
        staying.send(
            wire.request("GET", servers.steps(["out", CT + "\none "], ["wait_for", str(go_on)], ["out", "two"]))
        )
        assert staying.read_head().status == 200
        going.send(wire.request("GET", servers.steps(["touch", str(pid_file)], ["sleep", 60])))
        servers.wait_until(lambda: started(pid_file), "the other script has begun")
        going.close()
        servers.wait_until(lambda: not is_running(pid_file), "the other script has ended")
        go_on.touch()
        assert b"two" in staying.rest()


# -- many


def test_many_scripts_at_once_are_all_answered(host: Host) -> None:
    # each gets its own query and its own answer
    def ask(number: int) -> str:
        environ = host.report(f"/cgi-bin/report.py/{number}?n={number}")["environ"]
        return f"{environ['PATH_INFO']} {environ['QUERY_STRING']}"

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(48))) == [f"/{number} n={number}" for number in range(48)]


def test_many_clients_that_go_leave_a_server_that_answers(host: Host) -> None:
    # CWE-404: neither threads nor scripts pile up
    pid_files = [mark(host) for _ in range(6)]
    connections = [host.connect() for _ in pid_files]
    for connection, pid_file in zip(connections, pid_files, strict=True):
        connection.send(wire.request("GET", servers.steps(["touch", str(pid_file)], ["sleep", 60])))
    servers.wait_until(lambda: all(map(started, pid_files)), "all scripts have begun")
    for connection in connections:
        connection.reset()
    servers.wait_until(lambda: not any(map(is_running, pid_files)), "all scripts have ended")
    assert host.out(CT + "\nfine").body == b"fine"


# -- NPH (RFC 3875 section 5)


@pytest.mark.parametrize("newline", ["\r\n", "\n"], ids=["CRLF", "LF"])
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize("asked", ["HTTP/1.1", "HTTP/1.0"])
def test_nph_script_has_its_own_status_line_and_fields(host: Host, newline: str, version: str, asked: str) -> None:
    # RFC 3875 5.1
    lines = [f"{version} 299 My Own", "Content-Type: text/x-nph", "X-A: 1", "Connection: close", "", "nph body\n"]
    answer = printed(host, newline.join(lines), nph=True, version=asked)
    assert (answer.status, answer.reason) == (299, "My Own")
    assert (answer.get("Content-Type"), answer.get("X-A"), answer.body) == ("text/x-nph", "1", b"nph body\n")


def test_response_of_an_nph_script_has_one_head(host: Host) -> None:
    # RFC 3875 5, 9.9: its head does not come as the body of another one
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: x\r\nServer: y\r\nConnection: close\r\n\r\n"
    answer = printed(host, head + "nph body\n", nph=True)
    assert (answer.status, answer.body) == (200, b"nph body\n")
    assert answer.raw.count(b"HTTP/1.") == 1
    assert answer.get("Date") is not None
    assert (answer.get("Connection") or "close").lower() == "close"


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        ("HTTP/1.1 404", 404, "Not Found"),
        ("HTTP/1.1 404 ", 404, "Not Found"),
        ("HTTP/1.0 200 All Is Well", 200, "All Is Well"),
        ("HTTP/1.1 451 Fahrenheit", 451, "Fahrenheit"),
        ("HTTP/1.1 503 Later", 503, "Later"),
    ],
)
def test_nph_status_line_may_lack_its_reason(host: Host, line: str, status: int, reason: str) -> None:
    # RFC 9112 4: the reason phrase may be empty
    answer = printed(host, f"{line}\r\n{CT}\r\nx", nph=True)
    assert (answer.status, answer.reason, answer.body) == (status, reason, b"x")


def test_nph_script_may_send_several_cookies(host: Host) -> None:
    # RFC 6265 3
    answer = printed(host, f"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n{CT}\r\nx", nph=True)
    assert answer.all("Set-Cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize("interim", ["100 Continue", "102 Processing", "103 Early Hints"])
def test_nph_interim_response_does_not_take_the_place_of_the_final_one(host: Host, interim: str) -> None:
    # RFC 9110 15.2
    output = f"HTTP/1.1 {interim}\r\nLink: </x>\r\n\r\nHTTP/1.1 201 Created\r\nX-A: 1\r\n{CT}\r\nfinal"
    answer = printed(host, output, nph=True)
    assert (answer.status, answer.get("X-A"), answer.body) == (201, "1", b"final")


@pytest.mark.parametrize("interim", ["100 Continue", "101 Switching Protocols", "103 Early Hints"])
def test_nph_interim_response_alone_is_a_server_error(host: Host, interim: str) -> None:
    # RFC 9110 15.2: a final response must follow
    assert 500 <= printed(host, f"HTTP/1.1 {interim}\r\nUpgrade: x\r\n\r\n", nph=True).status <= 599


@pytest.mark.parametrize(
    "output",
    [
        "",
        "\r\n",
        "nonsense\r\n\r\nCANARY",
        "HTTP/1.1 OK\r\n\r\nCANARY",
        "HTTP/1.1 20 OK\r\n\r\nCANARY",
        "HTTP/1.1 2000 OK\r\n\r\nCANARY",
        "HTTP/1.1 099 OK\r\n\r\nCANARY",
        "HTTP/1.1  200 OK\r\n\r\nCANARY",
        "HTTP/1 200 OK\r\n\r\nCANARY",
        "http/1.1 200 OK\r\n\r\nCANARY",
        "HTTP/1.1 200 O\0K\r\n\r\nCANARY",
        "HTTP/1.1 200 OK\rX: y\r\n\r\nCANARY",
        f"{CT}\nCANARY",
        f"Status: 200 OK\n{CT}\nCANARY",
        "HTTP/1.1 200 OK\r\nno field\r\n\r\nCANARY",
        "HTTP/1.1 200 OK\r\nBad : x\r\n\r\nCANARY",
        "HTTP/1.1 200 OK\r\nX-A: a\0b\r\n\r\nCANARY",
        "HTTP/1.1 200 OK\r\nX-A: a\r\n folded\r\n\r\nCANARY",
        "HTTP/1.1 200 OK\r\nX-A: 1\r\n",
        "HTTP/1.1 200 OK",
    ],
)
def test_nph_output_that_is_no_http_is_a_server_error(host: Host, output: str) -> None:
    # RFC 3875 5.1: the script must return a complete HTTP response
    answer = printed(host, output, nph=True)
    assert 500 <= answer.status <= 599
    assert b"CANARY" not in answer.raw + answer.body


@pytest.mark.parametrize("body", ["5\r\nhello\r\n0\r\n\r\n", "hello"], ids=["chunks", "no chunks"])
def test_nph_transfer_encoding_does_not_break_the_framing(host: Host, body: str) -> None:
    # RFC 9112 6.1: one framing, and it is the server's
    target = printing(host, f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{CT}\r\n{body}", nph=True)
    with host.connect() as connection:
        connection.send(wire.request("GET", target, close=False))
        answer = connection.read()
        assert answer.status >= 500 or (answer.status, answer.body) == (200, b"hello")
        assert_in_step(host, connection)


@pytest.mark.parametrize("length", [3, 5])
def test_nph_content_length_frames_the_body(host: Host, length: int) -> None:
    # RFC 9112 6.2, 6.3
    output = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{CT}\r\n" + "hello"[:length]
    target = printing(host, output, nph=True)
    with host.connect() as connection:
        connection.send(wire.request("GET", target, close=False))
        answer = connection.read()
        assert (answer.status, answer.text) == (200, "hello"[:length])
        assert_in_step(host, connection)


def test_nph_second_response_is_body_and_never_a_response(host: Host) -> None:
    # CWE-113 (response splitting)
    forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    with host.connect() as connection:
        target = printing(host, f"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n{CT}\r\nhello{forged}", nph=True)
        connection.send(wire.request("GET", target, close=False))
        assert connection.read().body == b"hello"
        assert_in_step(host, connection)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_nph_status_without_content_has_no_body(host: Host, status: str) -> None:
    # RFC 9112 6.3
    with host.connect() as connection:
        target = printing(host, f"HTTP/1.1 {status}\r\nX-A: 1\r\n\r\nforbidden", nph=True)
        connection.send(wire.request("GET", target, close=False))
        answer = connection.read()
        assert (f"{answer.status} {answer.reason}", answer.get("X-A"), answer.body) == (status, "1", b"")
        assert_in_step(host, connection)


def test_nph_location_is_the_clients(host: Host) -> None:
    # RFC 3875 5: no CGI field has a meaning there, so nothing is redirected locally
    for status, location in (("302 Found", "/next.txt"), ("301 Moved", "http://x.test/"), ("201 Created", "/next.txt")):
        answer = printed(host, f"HTTP/1.1 {status}\r\nLocation: {location}\r\n{CT}\r\nthere", nph=True)
        assert (answer.status, answer.get("Location"), answer.body) == (int(status[:3]), location, b"there")


def test_nph_status_field_does_not_change_the_status_line(host: Host) -> None:
    # RFC 3875 5.1: its status is that of its status line
    answer = printed(host, f"HTTP/1.1 202 Accepted\r\nStatus: 404 Not Found\r\n{CT}\r\nx", nph=True)
    assert (answer.status, answer.reason, answer.body) == (202, "Accepted", b"x")


def test_nph_head_has_no_body(host: Host) -> None:
    # RFC 9110 9.3.2
    answer = printed(host, f"HTTP/1.1 404 Lost\r\nX-A: 1\r\n{CT}\r\nforbidden", nph=True, method="HEAD")
    assert (answer.status, answer.get("X-A"), answer.body) == (404, "1", b"")


def test_nph_output_is_sent_while_the_script_still_runs(host: Host) -> None:
    # RFC 3875 5: its output is not held back
    go_on = mark(host)
    head = "printf 'HTTP/1.1 200 OK\\r\\nContent-Type: text/plain\\r\\n\\r\\nfirst'"
    host.site.sh("nph-stream", f"{head}\nwhile [ ! -e '{go_on}' ]; do sleep 0.02; done\nprintf second\n")
    with host.connect() as connection:
        connection.send(wire.request("GET", "/cgi-bin/nph-stream"))
        assert connection.read_head().status == 200
        received = connection.read_some(5)
        assert b"first" in received
        go_on.touch()
        assert b"second" in connection.rest()


def test_nph_script_gets_its_meta_variables(host: Host) -> None:
    # RFC 3875 5, 4.1: all but the response is as for other scripts
    lines = ["printf 'HTTP/1.1 200 OK\\r\\n\\r\\n'", 'echo "$SCRIPT_NAME|$PATH_INFO|$QUERY_STRING|$SERVER_PROTOCOL"']
    host.site.sh("nph-env", "\n".join(lines) + "\n")
    assert host.get("/cgi-bin/nph-env/a%20b?c=d").text == "/cgi-bin/nph-env|/a b|c=d|HTTP/1.1\n"


def test_only_names_that_begin_with_nph_speak_http(host: Host) -> None:
    # RFC 3875 5: the name tells
    text = "printf 'HTTP/1.1 200 OK\\r\\nContent-Type: text/plain\\r\\n\\r\\nCANARY'\n"
    for name in ("x-nph-", "nphx", "sub/xnph-y"):
        host.site.sh(name, text)
        answer = host.get(f"/cgi-bin/{name}")
        assert 500 <= answer.status <= 599
        assert b"CANARY" not in answer.body
    host.site.sh("sub/nph-y", text)
    assert host.get("/cgi-bin/sub/nph-y").body == b"CANARY"


# -- time


def test_short_scripts_take_no_longer_than_their_work(host: Host) -> None:
    # practice: no step of the way waits for a fixed time
    target = printing(host, f"{CT}\nx")
    begin = time.monotonic()
    for _ in range(20):
        assert host.get(target).status == 200
    assert time.monotonic() - begin < 10
