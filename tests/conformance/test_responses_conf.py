"""What becomes of a script's response on the wire (RFC 3875 section 6), on every server."""

from __future__ import annotations

import concurrent.futures
import email.utils
import gzip
import http
import time

import pytest
import servers
import wire
from conftest import Host
from scripts import CT, assert_in_step, is_running, mark, printed, printing

ALL_BYTES = bytes(range(256))


def assert_failed(answer: wire.Answer, *hidden: bytes) -> None:
    """A 5xx with the server's own page, and none of these bytes anywhere."""
    assert 500 <= answer.status <= 599, (answer.status, answer.body[:200])
    for text in hidden:
        assert text not in answer.raw + answer.body


# -- documents


def test_document_is_200_with_its_type_and_every_byte(host: Host) -> None:
    # RFC 3875 6.2.1, 6.3.1
    media_type = 'application/x-thing; charset=koi8-r; title="a; b"'
    answer = printed(host, f"Content-Type: {media_type}\n\n".encode() + ALL_BYTES)
    assert (answer.status, answer.reason) == (200, "OK")
    assert answer.get("Content-Type") == media_type
    assert answer.body == ALL_BYTES


def test_head_without_a_body_is_a_whole_response(host: Host) -> None:
    # RFC 3875 6.2
    answer = printed(host, CT + "X-Only: head\n\n")
    assert (answer.status, answer.get("X-Only"), answer.body) == (200, "head", b"")
    assert answer.get("Content-Length") in (None, "0")


def test_body_without_content_type_is_not_given_one(host: Host) -> None:
    # RFC 3875 6.3.1: what the script did not say is not guessed
    answer = printed(host, "X-A: 1\n\n<html>")
    assert (answer.status, answer.all("Content-Type"), answer.body) == (200, [], b"<html>")


@pytest.mark.parametrize(
    "body",
    [
        "\n\n\nafter three empty lines",
        "\r\n\r\n",
        "X-Not: a field\n\nStatus: 500\n",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "\x00" * 1000,
        "\r",
        "no line end",
    ],
    ids=["LFs", "CRLFs", "like a head", "like HTTP", "like chunks", "NULs", "one CR", "text"],
)
def test_body_is_left_alone_whatever_it_looks_like(host: Host, body: str) -> None:
    # RFC 3875 6.4: the body is passed unmodified
    answer = printed(host, f"{CT}\n{body}")
    assert (answer.status, answer.text) == (200, body)


@pytest.mark.parametrize("size", [1, 4096, 65535, 65536, 65537, 131073, 1 << 20])
@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_body_of_any_size_arrives_whole(host: Host, size: int, version: str) -> None:
    # RFC 3875 6.4; the sizes are those of pipes, pages and buffers
    body = (ALL_BYTES * (size // 256 + 1))[:size]
    answer = printed(host, f"{CT}\n".encode() + body, version=version)
    assert answer.status == 200
    assert answer.body == body


def test_large_body_without_length_arrives_whole(host: Host) -> None:
    # RFC 3875 6.4
    size = 32 << 20
    answer = host.out(CT + "\n", ["fill", size], ["out", "the end"])
    assert (answer.status, len(answer.body)) == (200, size + 7)
    assert answer.body[:16] + answer.body[-7:] == b"0123456789abcdefthe end"


@pytest.mark.parametrize(
    ("newline", "body"), [("\n", "a\nb\n"), ("\r\n", "a\r\nb\n\r\n"), ("\r\n", "\n")], ids=["LF", "CRLF", "LF body"]
)
def test_lines_may_end_in_lf_or_crlf(host: Host, newline: str, body: str) -> None:
    # RFC 3875 6.2 (NL = LF, or CR LF), 7.2; that the client sees CR LF alone is wire.py's to watch
    head = f"Content-Type: text/plain{newline}X-A: 1{newline}X-B: 2{newline}{newline}"
    answer = printed(host, head + body)
    assert (answer.status, answer.get("X-A"), answer.get("X-B"), answer.text) == (200, "1", "2", body)


@pytest.mark.parametrize("end", ["\n\r\n", "\r\n\n"], ids=["LF CRLF", "CRLF LF"])
def test_line_ends_may_be_mixed(host: Host, end: str) -> None:
    # RFC 3875 6.2: each NL is either
    answer = printed(host, f"X-A: 1\r\nContent-Type: text/plain\nX-B: 2{end}body")
    assert (answer.get("X-A"), answer.get("X-B"), answer.media_type) == ("1", "2", "text/plain")
    assert answer.body == b"body"


@pytest.mark.parametrize("newline", ["\\n", "\\r\\n"], ids=["LF", "CRLF"])
def test_output_written_byte_by_byte_is_the_same_response(host: Host, newline: str) -> None:
    # RFC 3875 6.2: the pieces of the output mean nothing
    text = f"Status: 404 Lost{newline}Content-Type: text/plain{newline}X-A: 1{newline}{newline}the body"
    name = f"bytewise-{len(newline)}.py"
    host.site.python(name, f"import os\nfor byte in b'{text}':\n    os.write(1, bytes([byte]))\n")
    answer = host.get(f"/cgi-bin/{name}")
    assert (answer.status, answer.reason, answer.get("X-A"), answer.body) == (404, "Lost", "1", b"the body")


def test_every_byte_survives_in_pieces_of_its_own(host: Host) -> None:
    # RFC 3875 6.4
    text = "import os\nos.write(1, b'Content-Type: text/plain\\n\\n')\nfor n in range(256): os.write(1, bytes([n]))\n"
    host.site.python("pieces.py", text)
    assert host.get("/cgi-bin/pieces.py").body == ALL_BYTES


# -- the status


@pytest.mark.parametrize("code", [200, 201, 202, 203, 400, 401, 402, 403, 404, 405, 406, 409, 410, 412, 413, 416, 417])
def test_status_field_sets_the_status_and_the_body_stays(host: Host, code: int) -> None:
    # RFC 3875 6.3.3
    answer = printed(host, f"Status: {code} {http.HTTPStatus(code).phrase}\n{CT}\nmine\n")
    assert (answer.status, answer.reason, answer.body) == (code, http.HTTPStatus(code).phrase, b"mine\n")


@pytest.mark.parametrize(
    "status", ["299 Fine By Me", "418 I'm a teapot", "422 No", "428 X", "451 Fahrenheit", "500 Mine", "503 x", "599 -"]
)
def test_uncommon_status_and_its_reason_are_passed(host: Host, status: str) -> None:
    # RFC 3875 6.3.3: the code may be an extension code; RFC 9110 15
    answer = printed(host, f"Status: {status}\n{CT}\nx")
    assert (f"{answer.status} {answer.reason}", answer.body) == (status, b"x")


@pytest.mark.parametrize(
    "field",
    [
        "status: 404 Not Found",
        "STATUS: 404 Not Found",
        "Status:404 Not Found",
        "Status:    404   Not Found",
        "Status:\t404 Not Found  ",
        "Status: 404",
        "Status: 404 ",
    ],
    ids=["lower case", "upper case", "no blank", "blanks", "tab", "no reason", "empty reason"],
)
def test_status_is_read_in_every_spelling(host: Host, field: str) -> None:
    # RFC 3875 6.3 (field names are case-insensitive), 6.3.3; real scripts leave the reason out
    answer = printed(host, f"{field}\n{CT}\nmine")
    assert (answer.status, answer.reason, answer.body) == (404, "Not Found", b"mine")


def test_status_may_stand_behind_other_fields(host: Host) -> None:
    # RFC 3875 6.3: the order of fields is free
    answer = printed(host, f"X-A: 1\n{CT}X-B: 2\nStatus: 410 Gone\nX-C: 3\n\nx")
    assert (answer.status, answer.get("X-A"), answer.get("X-B"), answer.get("X-C")) == (410, "1", "2", "3")


@pytest.mark.parametrize(
    "status",
    [
        "abc",
        "20",
        "1000",
        "0",
        "-1",
        "099 x",
        "2OO OK",
        "99999999999999999999",
        "200OK",
        "OK 200",
        "2 00",
        "+200",
        "200.0",
        "0x194",
        "404\tNot\x01Found",
        "\xb2\xb0\xb0 OK",
        "200, 404",
    ],
)
def test_invalid_status_is_a_server_error(host: Host, status: str) -> None:
    # RFC 3875 6.3.3 (status-code = 3digit), RFC 9112 4; the status line itself is checked by wire.py
    assert_failed(printed(host, f"Status: {status}\n{CT}\nmine"), b"mine")


@pytest.mark.parametrize("status", ["100 Continue", "101 Switching Protocols", "102 Processing", "103 Early Hints"])
def test_interim_status_is_no_final_response(host: Host, status: str) -> None:
    # RFC 9110 15.2: 1xx ends no exchange; a client would wait for more
    with host.connect() as connection:
        connection.send(wire.request("GET", printing(host, f"Status: {status}\n{CT}\nmine")))
        answer = connection.read()
    assert_failed(answer, b"mine")
    assert answer.interim == []


def test_repeated_status_gives_one_status_line(host: Host) -> None:
    # RFC 3875 6.3: no CGI field more than once; the last counts, as in Apache
    answer = printed(host, f"Status: 404 Not Found\nStatus: 410 Gone\n{CT}\nx")
    assert answer.status in (404, 410) or answer.status >= 500
    assert answer.raw.count(b"HTTP/1.") == 1


def test_status_is_not_sent_as_a_field(host: Host) -> None:
    # RFC 3875 6.3: CGI fields are for the server
    for name in ("Status", "status", "STATUS"):
        answer = printed(host, f"{name}: 202 Accepted\n{CT}\nx")
        assert (answer.status, answer.all("Status")) == (202, [])


@pytest.mark.parametrize("code", [204, 304])
def test_status_without_content_has_no_byte_of_body_and_keeps_step(host: Host, code: int) -> None:
    # RFC 9112 6.3: both end with the head
    status = f"{code} {http.HTTPStatus(code).phrase}"
    with host.connect() as connection:
        target = printing(host, f"Status: {status}\nX-A: 1\n{CT}Content-Length: 9\n\nforbidden")
        connection.send(wire.request("GET", target, close=False))
        answer = connection.read()
        assert (answer.status, answer.get("X-A"), answer.body) == (code, "1", b"")
        assert_in_step(host, connection)


def test_reset_content_has_no_content(host: Host) -> None:
    # RFC 9110 15.3.6: a 205 must not have content, but is framed like other responses
    with host.connect() as connection:
        connection.send(wire.request("GET", printing(host, f"Status: 205 Reset Content\n{CT}\nforbidden"), close=False))
        answer = connection.read()
        assert (answer.status, answer.body) == (205, b"")
        assert_in_step(host, connection)


def test_endless_body_of_a_status_without_content_does_not_hold_the_answer(host: Host) -> None:
    # RFC 9112 6.3; the script's pipe is emptied meanwhile
    done = mark(host)
    answer = host.out("Status: 204 No Content\n\n", ["fill", 3 << 20], ["touch", str(done)])
    assert answer.status == 204
    servers.wait_until(done.exists, "the script came to its end")


def test_unauthorized_keeps_all_its_challenges(host: Host) -> None:
    # RFC 9110 11.6.1: several fields are several challenges
    challenges = ['Basic realm="a, b"', 'Bearer realm="c", error="invalid_token"']
    fields = "".join(f"WWW-Authenticate: {challenge}\n" for challenge in challenges)
    answer = printed(host, f"Status: 401 Unauthorized\n{fields}{CT}\nwho?")
    assert (answer.status, answer.body) == (401, b"who?")
    assert ", ".join(answer.all("WWW-Authenticate")) == ", ".join(challenges)


def test_partial_content_of_a_script_is_its_own_affair(host: Host) -> None:
    # RFC 9110 14, 15.3.7: the script answers a range; nobody cuts its answer again
    output = f"Status: 206 Partial Content\nContent-Range: bytes 2-4/10\nAccept-Ranges: bytes\n{CT}\ncde"
    answer = printed(host, output, fields=[("Range", "bytes=2-4")])
    assert (answer.status, answer.get("Content-Range"), answer.body) == (206, "bytes 2-4/10", b"cde")


def test_range_is_not_applied_to_a_scripts_whole_answer(host: Host) -> None:
    # RFC 9110 14.2: a server may ignore Range; a 200 is whole
    answer = printed(host, f"{CT}\n0123456789", fields=[("Range", "bytes=2-4")])
    assert (answer.status, answer.body) == (200, b"0123456789")


def test_script_does_its_own_validation(host: Host) -> None:
    # RFC 9110 13: the conditions reach it, its 304 reaches the client
    conditions = [("If-None-Match", '"v1"'), ("If-Modified-Since", "Wed, 01 Jan 2020 00:00:00 GMT")]
    environ = host.report("/cgi-bin/report.py", fields=conditions)["environ"]
    assert [environ["HTTP_IF_NONE_MATCH"], environ["HTTP_IF_MODIFIED_SINCE"]] == [value for _, value in conditions]
    fields = 'ETag: "v1"\nLast-Modified: Wed, 01 Jan 2020 00:00:00 GMT\nVary: Cookie\nSet-Cookie: seen=1\n'
    answer = printed(host, f"Status: 304 Not Modified\n{fields}\n", fields=conditions)
    assert (answer.status, answer.get("ETag"), answer.get("Vary")) == (304, '"v1"', "Cookie")
    assert answer.get("Set-Cookie") == "seen=1"


def test_conditions_are_not_decided_over_a_scripts_head(host: Host) -> None:
    # RFC 9110 13.2.1: the script is the origin; a 200 of its own stays one
    output = f'ETag: "v1"\nLast-Modified: Wed, 01 Jan 2020 00:00:00 GMT\n{CT}\nwhole'
    answer = printed(host, output, fields=[("If-None-Match", '"v1"')])
    assert (answer.status, answer.body) == (200, b"whole")


# -- header fields


FIELDS = {
    "X-Custom": 'a, b; c="d:e"',
    "ETag": 'W/"abc"',
    "Cache-Control": "no-store, max-age=0",
    "Content-Disposition": "attachment; filename*=UTF-8''%e2%82%ac.txt",
    "Last-Modified": "Wed, 01 Jan 2020 00:00:00 GMT",
    "Expires": "0",
    "Content-Language": "de",
    "Content-Location": "/x/y?z",
    "Vary": "*",
    "Allow": "GET, POST",
    "Retry-After": "120",
    "Link": "<a>; rel=x, <b>; rel=y",
    "Content-Security-Policy": "default-src 'self'; img-src *",
    "Strict-Transport-Security": "max-age=1",
    "Access-Control-Allow-Origin": "*",
    "Refresh": "3; url=http://example.test/",
    "Pragma": "no-cache",
    "Age": "7",
    "P3P": 'CP="x"',
}


def test_other_fields_reach_the_client_unchanged(host: Host) -> None:
    # RFC 3875 6.3.4
    answer = printed(host, "".join(f"{name}: {value}\n" for name, value in FIELDS.items()) + f"{CT}\nx")
    assert answer.status == 200
    assert {name: answer.get(name) for name in FIELDS} == FIELDS


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("X-A:none", "none"),
        ("X-A:  \t many \t ", "many"),
        ("X-A:", ""),
        ("X-A: a:b::c", "a:b::c"),
        ("X-A: tab\tinside", "tab\tinside"),
        ("X-A: \xe4\xff\x80 \xc3\xa4", "\xe4\xff\x80 \xc3\xa4"),
        ('X-A: "q\\"" <>@,;:\\/[]?={}\'', '"q\\"" <>@,;:\\/[]?={}\''),
        ("X-A: %0d%0aX-B: 1", "%0d%0aX-B: 1"),
    ],
    ids=["no blank", "blanks around", "empty", "colons", "tab", "bytes above 127", "separators", "escapes"],
)
def test_field_value_is_passed_without_the_blanks_around_it(host: Host, line: str, value: str) -> None:
    # RFC 9110 5.5: field-content may hold tabs and obs-text; the white space around it is no part of it
    answer = printed(host, f"{CT}{line}\nX-After: 1\n\nx")
    assert (answer.status, answer.all("X-A"), answer.all("X-B"), answer.get("X-After")) == (200, [value], [], "1")


def test_field_name_may_be_any_token(host: Host) -> None:
    # RFC 9110 5.6.2
    names = ["X_Under_Score", "x.dots", "X!#$%&'*+-^`|~", "1-2-3", "a"]
    answer = printed(host, "".join(f"{name}: {number}\n" for number, name in enumerate(names)) + f"{CT}\nx")
    assert [answer.get(name) for name in names] == ["0", "1", "2", "3", "4"]


def test_hundred_fields_arrive_in_their_order(host: Host) -> None:
    # RFC 3875 6.3 sets no limit to their number
    fields = [(f"X-Field-{number:03}", "v" * number) for number in range(100)]
    answer = printed(host, "".join(f"{name}: {value}\n" for name, value in fields) + f"{CT}\nx")
    assert [field for field in answer.fields if field[0].startswith("X-Field-")] == fields
    assert answer.body == b"x"


@pytest.mark.parametrize("count", [1, 10, 1000])
def test_head_of_sixty_kib_is_passed(host: Host, count: int) -> None:
    # RFC 3875 9.6 lets a server have limits; cookies and policies of real sites stay far below this one
    size = 60 * 1024 // count
    lines = [f"X-{number:04}: " for number in range(count)]
    answer = printed(host, "".join(line + "v" * (size - len(line) - 1) + "\n" for line in lines) + f"{CT}\nbody")
    assert (answer.status, answer.body) == (200, b"body")
    assert sum(name.startswith("X-") for name, _ in answer.fields) == count
    assert len(answer.raw) > 60 * 1024


def test_repeated_fields_keep_their_values_in_order(host: Host) -> None:
    # RFC 9110 5.3: joined or apart, but in order
    answer = printed(host, f"Link: <a>; rel=x\nX-A: 1\nLink: <b>; rel=y\nX-A: 2\nx-a: 3\n{CT}\nx")
    assert ", ".join(answer.all("Link")) == "<a>; rel=x, <b>; rel=y"
    assert ", ".join(answer.all("X-A")) == "1, 2, 3"


COOKIES = ["a=1; Path=/", "b=2; Expires=Wed, 01 Jan 2031 00:00:00 GMT; HttpOnly", "a=3; Path=/x", 'c="4, 5"', "d="]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (CT, 200),
        (f"Status: 404 Not Found\n{CT}", 404),
        (f"Status: 500 Broken\n{CT}", 500),
        ("Location: http://example.test/\n", 302),
        ("Status: 303 See Other\nLocation: /x\n", 303),
        ("Location: /x\n", 302),
        ("Status: 204 No Content\n", 204),
    ],
    ids=["200", "404", "500", "302", "303", "path only", "204"],
)
def test_cookies_stay_apart_and_in_order(host: Host, head: str, status: int) -> None:
    # RFC 6265 3: Set-Cookie cannot be joined with commas. RFC 3875 6.2.2: a local redirect has no other field than
    # Location, so one with cookies is the client's
    answer = printed(host, "".join(f"Set-Cookie: {cookie}\n" for cookie in COOKIES) + f"{head}\n")
    assert (answer.status, answer.all("Set-Cookie")) == (status, COOKIES)


def test_many_cookies_in_any_spelling_of_the_name_all_arrive(host: Host) -> None:
    # RFC 6265 4.1
    names = ["Set-Cookie", "set-cookie", "SET-COOKIE"]
    cookies = [f"c{number}={'v' * number}" for number in range(60)]
    lines = [f"{names[number % 3]}: {cookie}\n" for number, cookie in enumerate(cookies)]
    assert printed(host, "".join(lines) + f"{CT}\nx").all("Set-Cookie") == cookies


def test_extension_fields_stay_inside(host: Host) -> None:
    # RFC 3875 6.3.5: X-CGI-* speak to the server, which may delete those that it does not know
    answer = printed(host, f"X-CGI-Secret: 1\nx-cgi-other: 2\nX-CG: 3\n{CT}\nx")
    assert (answer.all("X-CGI-Secret"), answer.all("X-CGI-Other"), answer.get("X-CG")) == ([], [], "3")


@pytest.mark.parametrize("order", [("text/html", "text/plain"), ("text/plain", "text/plain")], ids=["differ", "same"])
def test_repeated_content_type_is_sent_once(host: Host, order: tuple[str, str]) -> None:
    # RFC 3875 6.3, RFC 9110 5.3: it is no list; two of them let clients disagree
    answer = printed(host, f"Content-Type: {order[0]}\nContent-Type: {order[1]}\n\nx")
    assert answer.status >= 500 or answer.get("Content-Type") in order


def test_content_coding_of_a_script_is_kept(host: Host) -> None:
    # RFC 9110 8.4: the coding belongs to what is sent; nobody undoes or repeats it
    data = gzip.compress(b"hello " * 1000, mtime=0)
    answer = printed(host, f"Content-Encoding: gzip\n{CT}\n".encode() + data, fields=[("Accept-Encoding", "br")])
    assert (answer.get("Content-Encoding"), answer.body) == ("gzip", data)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified", "404 Not Found"])
def test_date_is_one_and_true_whatever_the_script_says(host: Host, status: str, method: str) -> None:
    # RFC 9110 6.6.1
    output = f"Status: {status}\nDate: Thu, 01 Jan 1970 00:00:00 GMT\n{CT}\nx"
    date = printed(host, output, method=method).get("Date")
    assert date is not None
    assert abs(email.utils.parsedate_to_datetime(date).timestamp() - time.time()) < 60


def test_server_is_named_once_and_by_itself(host: Host) -> None:
    # RFC 9110 10.2.4
    answer = printed(host, f"Server: Forged/1.0\n{CT}\nx")
    assert "Forged" not in (answer.get("Server") or "")


@pytest.mark.parametrize(
    "field",
    [
        "Connection: close",
        "Connection: keep-alive",
        "Connection: X-Private",
        "connection: Upgrade",
        "Keep-Alive: timeout=99",
        "Upgrade: websocket",
        "Trailer: X-Later",
        "TE: trailers",
        "Proxy-Connection: keep-alive",
    ],
)
def test_fields_of_the_connection_do_not_come_from_scripts(host: Host, field: str) -> None:
    # RFC 9110 7.6.1: the connection is the server's, with a script's word or without
    name, _, value = field.partition(": ")
    with host.connect() as connection:
        connection.send(wire.request("GET", printing(host, f"{field}\n{CT}Content-Length: 5\n\nhello"), close=False))
        answer = connection.read()
        assert (answer.status, answer.body) == (200, b"hello")
        if name.lower() == "connection":
            assert (answer.get(name) or "close").lower() in ("close", "keep-alive")
        else:
            assert value not in answer.all(name)
        assert_in_step(host, connection)


# -- what is no response


def test_script_that_prints_nothing_is_a_server_error(host: Host) -> None:
    # RFC 3875 6.1: a script must give a response
    assert_failed(host.steps(["exit", 0]))
    assert_failed(printed(host, ""))


@pytest.mark.parametrize(
    "output",
    [
        "<html><p>a page\n</html>\n",
        "just one line",
        "hello\n\nworld\n",
        "hello world\n",
        "Content-Type text/html\n\nx",
        "Traceback (most recent call last):\n  File secret\n\nx",
    ],
)
def test_output_without_a_header_is_a_server_error(host: Host, output: str) -> None:
    # RFC 3875 6.2: every kind of response begins with a header field
    assert_failed(printed(host, output), b"File secret", b"world")


@pytest.mark.parametrize("output", ["\nCANARY\n", "\r\nCANARY\n", "\n", "\n\n" + CT + "\nCANARY"])
def test_output_that_begins_with_the_empty_line_is_a_server_error(host: Host, output: str) -> None:
    # RFC 3875 6.2
    assert_failed(printed(host, output), b"CANARY")


@pytest.mark.parametrize("output", ["Content-Type: text/plain\n", "Content-Type: text/plain", "Status: 200 OK\r\nX-A"])
def test_head_without_its_end_is_a_server_error(host: Host, output: str) -> None:
    # RFC 3875 6.2: NL ends the head; without it nobody knows whether it is whole
    assert_failed(printed(host, output))


NOISE = bytes((number * 7919 + 13) % 256 for number in range(700))


@pytest.mark.parametrize(
    "output",
    [
        NOISE,
        b"\0" * 100,
        b"\x89PNG\r\n\x1a\n" + NOISE,
        b"\x1f\x8b\x08\0" + NOISE,
        b"\xef\xbb\xbfContent-Type: text/plain\n\nCANARY",
        b"\xff\xfeC\0o\0n\0t\0",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nCANARY",
        b": no name\n\nCANARY",
        b"Content-Type: text/plain\rX-A: 1\r\rCANARY",
    ],
    ids=["noise", "NULs", "PNG", "gzip", "BOM", "UTF-16", "HTTP", "no name", "CR lines"],
)
def test_garbage_is_a_server_error_and_none_of_it_is_sent(host: Host, output: bytes) -> None:
    # RFC 3875 6.3
    assert_failed(printed(host, output), b"CANARY", NOISE[4:12])


@pytest.mark.parametrize(
    "line",
    [
        "Bad Name: x",
        "Bad : x",
        "no colon at all",
        "N\xe4me: x",
        "X(y): z",
        "X[y]: z",
        "X{y}: z",
        "X@y: z",
        "X/y: z",
        "X\0Y: z",
        "X\x0bY: z",
        "X\x7fY: z",
        '"X": y',
        ": x",
        "\tX: y",
        "X;Y: z",
    ],
)
def test_invalid_field_name_is_never_forwarded(host: Host, line: str) -> None:
    # RFC 9110 5.1 (a field name is a token); RFC 9112 5.1 (no blank before the colon)
    assert_failed(printed(host, f"{CT}{line}\nX-After: 1\n\nbody\n"), line.encode("latin-1"), b"X-After")


@pytest.mark.parametrize("place", ["X-A: {}", "Content-Type: {}", "Location: http://x/{}", "Set-Cookie: {}"])
@pytest.mark.parametrize(
    "value",
    ["a\0b", "a\rX-Injected: 1", "a\r\rX-Injected: 1", "a\x0bb", "a\x0cb", "a\x7fb", "a\x1b[31mb", "a\x08b", "a\r\r"],
)
def test_control_character_in_a_field_is_never_forwarded(host: Host, place: str, value: str) -> None:
    # RFC 9110 5.5; CWE-113
    answer = printed(host, f"{CT}{place.format(value)}\nX-After: 1\n\nbody\n")
    assert_failed(answer, b"X-Injected", b"X-After")


def test_continuation_line_is_never_sent_folded(host: Host) -> None:
    # RFC 9112 5.2 (obs-fold must not be generated), RFC 3875 6.3 (a field is one line)
    for line in (" two", "\ttwo", " X-Two: 2"):
        answer = printed(host, f"{CT}X-A: one\n{line}\nX-B: 2\n\nbody\n")
        assert_failed(answer, b"two", b"X-Two")


def test_head_without_an_end_is_cut_off_and_its_script_ended(host: Host) -> None:
    # RFC 3875 9.6; CWE-770
    pid_file = mark(host)
    answer = host.steps(["touch", str(pid_file)], ["fill", 64 << 20], ["sleep", 60])
    assert_failed(answer, b"0123456789")
    servers.wait_until(lambda: not is_running(pid_file), "the script has ended")


def test_head_with_too_many_fields_is_cut_off(host: Host) -> None:
    # RFC 3875 9.6; CWE-770: whole lines do not make it better
    assert_failed(printed(host, "X-A: 1\n" * 1_000_000 + "\nbody"), b"X-A")


@pytest.mark.parametrize("output", ["", "nonsense\n\n", "Status: x\n\n"], ids=["nothing", "no field", "bad status"])
def test_error_page_tells_the_client_nothing_of_the_inside(host: Host, output: str) -> None:
    # CWE-209; RFC 9110 15.6: a page of its own, whole and typed
    answer = printed(host, output)
    assert_failed(answer, str(host.site.directory).encode(), str(host.state_dir).encode(), b"Traceback", b"nonsense")
    assert answer.media_type == "text/html"
    assert answer.body


def test_connection_is_in_step_after_a_broken_script(host: Host) -> None:
    # RFC 9112 9.3: an error of a script is none of the connection's
    with host.connect() as connection:
        connection.send(wire.request("GET", printing(host, "nonsense"), close=False))
        assert_failed(connection.read())
        assert_in_step(host, connection)


# -- local redirects


def test_local_redirect_is_answered_by_the_file_it_names(host: Host) -> None:
    # RFC 3875 6.2.2: the client does not notice
    host.site.file("redirected/to.txt", "the file\n")
    answer = printed(host, "Location: /redirected/to.txt\n\n")
    assert (answer.status, answer.body, answer.all("Location")) == (200, b"the file\n", [])
    assert answer.media_type == "text/plain"


@pytest.mark.parametrize(
    "output", ["location: {}\n\n", "LOCATION:{}\r\n\r\n", "Content-Type: text/html\nLocation: {}\n\n"]
)
def test_local_redirect_in_every_spelling(host: Host, output: str) -> None:
    # RFC 3875 6.3: names are case-insensitive
    host.site.file("redirected/to.txt", "the file\n")
    answer = printed(host, output.format("/redirected/to.txt"))
    assert (answer.status, answer.body) == (200, b"the file\n")


def test_local_redirect_gives_a_script_its_extra_path_and_query(host: Host) -> None:
    # RFC 3875 6.2.2: as if the client had asked for it
    target = printing(host, "Location: /cgi-bin/sub/report.py/p%20q/%c3%a4?x=%20y&z=a/b?c\n\n")
    environ = host.report(target, fields=[("Cookie", "k=v"), ("X-Mine", "1")])["environ"]
    assert environ["SCRIPT_NAME"] == "/cgi-bin/sub/report.py"
    assert environ["PATH_INFO"] == "/p q/\xc3\xa4"
    assert environ["QUERY_STRING"] == "x=%20y&z=a/b?c"
    assert environ["REQUEST_METHOD"] == "GET"
    assert (environ["HTTP_COOKIE"], environ["HTTP_X_MINE"]) == ("k=v", "1")


def test_local_redirect_without_query_does_not_inherit_one(host: Host) -> None:
    # RFC 3875 6.2.2: the query is the new URL's
    given = host.report(printing(host, "Location: /cgi-bin/report.py\n\n"))
    assert given["environ"]["QUERY_STRING"] == ""
    assert given["argv"][1:] == []


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_local_redirect_of_a_request_with_a_body_is_a_get_without(host: Host, method: str) -> None:
    # RFC 3875 6.2.2: the body was the first script's
    target = printing(host, "Location: /cgi-bin/report.py/extra\n\n")
    given = host.report(target, method, body=b"for the first" * 10_000, fields=[("Content-Type", "text/x-first")])
    environ = given["environ"]
    assert (environ["REQUEST_METHOD"], environ["PATH_INFO"], given["body"]) == ("GET", "/extra", "")
    assert environ.get("CONTENT_LENGTH", "0") in ("", "0")
    assert "CONTENT_TYPE" not in environ


def test_local_redirect_of_a_chunked_request_is_a_get_without(host: Host) -> None:
    # RFC 3875 6.2.2, 4.2
    head = wire.request(
        "POST", printing(host, "Location: /cgi-bin/report.py\n\n"), [("Transfer-Encoding", "chunked")], close=True
    )
    answer = host.raw(head + wire.chunked(b"for the first" * 1000), "POST")
    assert answer.status == 200
    assert b'"REQUEST_METHOD": "GET"' in answer.body
    assert b'"body": ""' in answer.body


def test_local_redirect_of_head_is_a_head(host: Host) -> None:
    # RFC 3875 6.2.2, RFC 9110 9.3.2
    host.site.file("redirected/to.txt", "the file\n")
    answer = printed(host, "Location: /redirected/to.txt\n\n", method="HEAD")
    assert (answer.status, answer.get("Content-Length"), answer.body) == (200, "9", b"")


def test_local_redirect_does_not_carry_conditions_of_the_first_url(host: Host) -> None:
    # RFC 9110 13, 14: they were about what the first URL names
    host.site.file("redirected/to.txt", "the file\n")
    conditions = [("Range", "bytes=0-1"), ("If-Modified-Since", email.utils.formatdate(usegmt=True))]
    answer = printed(host, "Location: /redirected/to.txt\n\n", fields=conditions)
    assert (answer.status, answer.body) == (200, b"the file\n")


@pytest.mark.parametrize(
    ("location", "status"),
    [
        ("/redirected/missing.txt", 404),
        ("/cgi-bin/missing", 404),
        ("/../to.txt", 404),
        ("/%2e%2e/%2e%2e/etc/passwd", 404),
        ("/..%2f..%2fetc/passwd", 404),
        ("/redirected/a%00b", 404),
        ("/cgi-bin/", 403),
        ("/%63gi-bin/steps.py%00", 404),
        ("/redirected/.hidden", 404),
    ],
)
def test_local_redirect_has_no_more_rights_than_a_client(host: Host, location: str, status: int) -> None:
    # RFC 3875 6.2.2: the answer is that to a request for this URL; CWE-22
    host.site.file("redirected/.hidden", "hidden\n")
    answer = printed(host, f"Location: {location}\n\n")
    assert answer.status == status
    assert b"root:" not in answer.body
    assert b"VERBS" not in answer.body


def test_local_redirect_path_is_resolved_like_any_other(host: Host) -> None:
    # RFC 3986 5.2.4
    host.site.file("redirected/a b.txt", "found\n")
    for path in ("/redirected/a%20b.txt", "/redirected/./x/../a%20b.txt", "//../redirected/a%20b.txt"[1:]):
        answer = printed(host, f"Location: {path}\n\n")
        assert (answer.status, answer.body) in ((200, b"found\n"), (404, answer.body)), path
    assert printed(host, "Location: /cgi-bin/../redirected/a%20b.txt\n\n").body == b"found\n"


def test_local_redirect_to_a_directory_is_answered_as_a_directory(host: Host) -> None:
    # RFC 3875 6.2.2
    host.site.file("redirected/place/index.html", "<p>the index\n")
    answer = printed(host, "Location: /redirected/place/\n\n")
    assert (answer.status, answer.body) == (200, b"<p>the index\n")
    answer = printed(host, "Location: /redirected/place\n\n")
    assert answer.status in (301, 302, 307, 308)
    assert (answer.get("Location") or "").endswith("/redirected/place/")


def test_local_redirect_keeps_the_status_of_what_it_names(host: Host) -> None:
    # RFC 3875 6.2.2
    last = printing(host, f"Status: 418 Teapot\nSet-Cookie: a=1\n{CT}\nshort")
    answer = printed(host, f"Location: {last}\n\n")
    assert (answer.status, answer.get("Set-Cookie"), answer.body) == (418, "a=1", b"short")


def test_local_redirect_may_lead_to_a_client_redirect(host: Host) -> None:
    # RFC 3875 6.2.2, 6.2.3
    last = printing(host, "Location: http://example.test/end\n\n")
    answer = printed(host, f"Location: {last}\n\n")
    assert (answer.status, answer.get("Location")) == (302, "http://example.test/end")


def test_local_redirect_to_an_nph_script(host: Host) -> None:
    # RFC 3875 5, 6.2.2
    last = printing(host, "HTTP/1.1 202 Accepted\r\nX-A: 1\r\n\r\nnph", nph=True)
    answer = printed(host, f"Location: {last}\n\n")
    assert (answer.status, answer.get("X-A"), answer.body) == (202, "1", b"nph")


def test_local_redirects_may_form_a_chain(host: Host) -> None:
    # RFC 3875 6.2.2
    target = printing(host, f"{CT}\nthe end\n")
    for _ in range(8):
        target = printing(host, f"Location: {target}\n\n")
    answer = host.get(target)
    assert (answer.status, answer.body) == (200, b"the end\n")


@pytest.mark.parametrize("names", [["round"], ["there", "back"]], ids=["itself", "two"])
def test_local_redirects_in_a_circle_end(host: Host, names: list[str]) -> None:
    # RFC 3875 6.2.2; CWE-835
    runs = mark(host)
    for name, following in zip(names, [*names[1:], names[0]], strict=True):
        host.site.sh(f"circle-{name}", f"echo x >> '{runs}'\nprintf 'Location: /cgi-bin/circle-{following}\\n\\n'\n")
    assert_failed(host.get(f"/cgi-bin/circle-{names[0]}"))
    assert len(runs.read_text().split()) <= 20


def test_circle_of_local_redirects_that_grows_ends_too(host: Host) -> None:
    # RFC 3875 6.2.2; CWE-835: no two URLs of it are the same
    host.site.sh(
        "circle-grows", 'printf \'Location: /cgi-bin/circle-grows%s/x?%sx\\n\\n\' "$PATH_INFO" "$QUERY_STRING"\n'
    )
    assert_failed(host.get("/cgi-bin/circle-grows"))


def test_local_redirect_on_a_connection_that_stays(host: Host) -> None:
    # RFC 9112 9.3
    host.site.file("redirected/to.txt", "the file\n")
    with host.connect() as connection:
        connection.send(
            wire.request("POST", printing(host, "Location: /redirected/to.txt\n\n"), body=b"x" * 70_000, close=False)
        )
        assert connection.read().body == b"the file\n"
        assert_in_step(host, connection)


# -- client redirects


@pytest.mark.parametrize(
    "uri",
    [
        "http://example.test/x?y=z",
        "https://example.test:8443/a%20b#frag",
        "HTTP://EXAMPLE.TEST/",
        "ftp://example.test/",
        "mailto:a@example.test",
        "http://[::1]:8080/",
        "urn:isbn:0451450523",
        "http://example.test/" + "long/" * 1000,
    ],
    ids=lambda uri: uri[:30],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_absolute_uri_is_a_302_to_exactly_there(host: Host, uri: str, method: str) -> None:
    # RFC 3875 6.2.3
    answer = printed(host, f"Location: {uri}\n\n", method=method)
    assert (answer.status, answer.reason, answer.all("Location")) == (302, "Found", [uri])


def test_absolute_uri_of_this_very_server_goes_to_the_client(host: Host) -> None:
    # RFC 3875 6.2.3: only a path is local
    uri = f"http://127.0.0.1:{host.port}/redirected/to.txt"
    answer = printed(host, f"Location: {uri}\n\n")
    assert (answer.status, answer.all("Location")) == (302, [uri])


@pytest.mark.parametrize("location", ["other", "../up", "./x", "?q=1", "#top", "//example.test/x", "/x#part"])
def test_what_is_neither_path_nor_uri_is_the_clients_to_resolve(host: Host, location: str) -> None:
    # RFC 9110 10.2.2: a relative reference is resolved by the client, against the URL that it asked for
    answer = printed(host, f"Location: {location}\n\n")
    assert (answer.status, answer.all("Location")) == (302, [location])


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["http://example.test/x", "/x?y", "x"])
def test_redirect_with_document_keeps_all_three(host: Host, code: int, location: str) -> None:
    # RFC 3875 6.2.4; a path with a Status is the client's in httpd and lighttpd too
    status = f"{code} {http.HTTPStatus(code).phrase}"
    answer = printed(host, f"Status: {status}\nLocation: {location}\nContent-Type: text/html\n\n<p>moved\n")
    assert (answer.status, answer.get("Content-Type"), answer.body) == (code, "text/html", b"<p>moved\n")
    assert answer.all("Location") == [location]


def test_path_with_a_redirect_status_is_the_clients(host: Host) -> None:
    # practice (httpd, lighttpd): only without Status is it local
    host.site.file("redirected/to.txt", "the file\n")
    for status in ("302 Found", "303 See Other", "303"):
        answer = printed(host, f"Status: {status}\nLocation: /redirected/to.txt\n\n")
        assert (answer.status, answer.body) == (int(status[:3]), b"")
        assert answer.get("Location") in ("/redirected/to.txt", host.server.url + "/redirected/to.txt")


def test_redirect_with_document_before_its_status(host: Host) -> None:
    # RFC 3875 6.3: the order of fields is free
    answer = printed(host, f"Location: /x\n{CT}Status: 307 Temporary Redirect\n\nmoved")
    assert (answer.status, answer.get("Location"), answer.body) == (307, "/x", b"moved")


def test_location_of_what_was_created_is_kept(host: Host) -> None:
    # RFC 9110 15.3.2, 10.2.2: Location is not only for redirects
    for location in ("/things/7", "http://example.test/things/7"):
        answer = printed(host, f"Status: 201 Created\nLocation: {location}\n{CT}\nmade", method="POST")
        assert (answer.status, answer.get("Location"), answer.body) == (201, location, b"made")


def test_several_locations_give_one(host: Host) -> None:
    # RFC 3875 6.3: no CGI field more than once
    for first, second in (("http://a.test/", "http://b.test/"), ("/next.txt", "http://b.test/")):
        answer = printed(host, f"Location: {first}\nLocation: {second}\n\n")
        assert answer.status >= 500 or (answer.status, answer.get("Location")) == (302, second)


def test_empty_cgi_field_counts_as_not_sent(host: Host) -> None:
    # RFC 3875 6.3: a field with a NULL value is equivalent to one that is not sent
    for fields in ("Location:\n", "Status:\n", "Status: \nLocation: \n"):
        answer = printed(host, f"{fields}{CT}\nx")
        assert (answer.status, answer.all("Location"), answer.body) == (200, [], b"x")
    assert printed(host, "Content-Type:\n\nx").body == b"x"


def test_client_redirect_keeps_its_other_fields(host: Host) -> None:
    # RFC 3875 6.3.4; many programs set a cookie with a redirect, though 6.2.3 has no room for it
    answer = printed(host, "Cache-Control: no-store\nX-A: 1\nLocation: http://example.test/\nX-B: 2\n\n")
    assert answer.status == 302
    assert [answer.get(name) for name in ("Cache-Control", "X-A", "X-B")] == ["no-store", "1", "2"]


# -- framing


def test_right_content_length_is_used_or_replaced(host: Host) -> None:
    # RFC 9110 8.6
    for field in ("Content-Length: 6", "content-length:6", "Content-Length: 006"):
        answer = printed(host, f"{field}\n{CT}\nhello\n")
        assert (answer.status, answer.body) == (200, b"hello\n")
        assert int(answer.get("Content-Length") or 6) == 6


def test_short_answer_is_given_its_length(host: Host) -> None:
    # RFC 9112 6.2: with it, the connection can stay; a busy machine may take too long for one or the other of them
    answers = (printed(host, f"{CT}\nhello") for _ in range(20))
    assert any((answer.framing, answer.get("Content-Length")) == ("length", "5") for answer in answers)


@pytest.mark.parametrize("length", [0, 1, 5])
def test_surplus_behind_the_announced_length_is_never_a_response(host: Host, length: int) -> None:
    # RFC 9112 6.3; CWE-113 (response splitting)
    surplus = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    with host.connect() as connection:
        target = printing(host, f"Content-Length: {length}\n{CT}\n" + "hello"[:length] + surplus)
        connection.send(wire.request("GET", target, close=False))
        answer = connection.read()
        assert answer.status >= 500 or answer.text == "hello"[:length]
        assert_in_step(host, connection)


@pytest.mark.parametrize("close", [True, False], ids=["close", "keep-alive"])
@pytest.mark.parametrize("body", ["hello", ""], ids=["some", "none"])
def test_body_shorter_than_announced_leaves_no_client_waiting(host: Host, close: bool, body: str) -> None:
    # RFC 9112 6.3, 8: the connection ends, so that the client sees an incomplete message; or a 5xx
    target = printing(host, f"Content-Length: 1000\n{CT}\n{body}")
    with host.connect(5) as connection:
        connection.send(wire.request("GET", target, close=close))
        answer = connection.read_head()
        if answer.status < 500:
            assert answer.get("Content-Length") == "1000"
            assert connection.rest().decode() == body


@pytest.mark.parametrize(
    "fields",
    [
        "Content-Length: abc",
        "Content-Length: -5",
        "Content-Length: +5",
        "Content-Length: 5x",
        "Content-Length: 0x5",
        "Content-Length: 5, 5",
        "Content-Length: 5 5",
        "Content-Length:",
        "Content-Length: 1e1",
        "Content-Length: 99999999999999999999999999",
        "Content-Length: \xb2",
        "Content-Length: 5\nContent-Length: 5",
        "Content-Length: 5\nContent-Length: 3",
        "Content-Length: 3\nContent-Length: 500",
    ],
)
def test_content_length_that_is_no_number_does_no_harm(host: Host, fields: str) -> None:
    # RFC 9110 8.6 (1*DIGIT, once), RFC 9112 6.3
    with host.connect() as connection:
        connection.send(wire.request("GET", printing(host, f"{fields}\n{CT}\nhello"), close=False))
        answer = connection.read()
        assert answer.status >= 500 or (answer.status, answer.body) == (200, b"hello")
        assert_in_step(host, connection)


@pytest.mark.parametrize("coding", ["chunked", "Chunked", "identity", "gzip", "gzip, chunked", "xchunked", ""])
@pytest.mark.parametrize("length", ["", "Content-Length: 6\n"], ids=["alone", "with length"])
def test_transfer_encoding_of_a_script_does_not_break_the_framing(host: Host, coding: str, length: str) -> None:
    # RFC 3875 6.3.4 (the server may replace what concerns transport), RFC 9112 6.1
    with host.connect() as connection:
        target = printing(host, f"Transfer-Encoding: {coding}\n{length}{CT}\nhello\n")
        connection.send(wire.request("GET", target, close=False))
        answer = connection.read()
        assert answer.status >= 500 or (answer.status, answer.body) == (200, b"hello\n")
        assert_in_step(host, connection)


@pytest.mark.parametrize(
    ("output", "nph"),
    [
        (f"{CT}\nhello", False),
        (f"{CT}\n", False),
        (f"{CT}Content-Length: 5\n\nhello", False),
        (f"Status: 404 Lost\n{CT}\nhello", False),
        (f"{CT}\n" + "x" * 300_000, False),
        (f"Content-Length: 300000\n{CT}\n" + "x" * 300_000, False),
        ("Location: /next.txt\n\n", False),
        ("Location: http://example.test/\n\n", False),
        (f"Status: 301 Moved\nLocation: /x\n{CT}\nmoved", False),
        ("nonsense", False),
        ("HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\nhello", True),
    ],
    ids=["short", "empty", "length", "404", "long", "long with length", "local", "302", "301", "broken", "nph"],
)
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_connection_is_in_step_after_every_kind_of_answer(host: Host, output: str, nph: bool, version: str) -> None:
    # RFC 9112 6.3, 9.3: what frames an answer is believed by the next one; no chunks for HTTP/1.0
    host.site.file("next.txt", "the next one\n")
    target = printing(host, output, nph=nph)
    with host.connect() as connection:
        connection.send(wire.request("GET", target, [("Connection", "keep-alive")], close=False, version=version))
        answer = connection.read()
        assert version == "HTTP/1.1" or answer.framing != "chunked"
        assert_in_step(host, connection)


def test_connection_stays_after_short_answers(host: Host) -> None:
    # RFC 9112 9.3: persistence is the default of HTTP/1.1
    targets = [printing(host, f"{CT}\n{number}") for number in range(5)]
    with host.connect() as connection:
        for number, target in enumerate(targets):
            connection.send(wire.request("GET", target, close=False))
            assert connection.read().text == str(number)
        assert assert_in_step(host, connection)


def test_connection_stays_for_posts_and_heads_in_turn(host: Host) -> None:
    # RFC 9112 9.3
    target = printing(host, f"Content-Length: 5\n{CT}\nhello")
    with host.connect() as connection:
        for method in ("POST", "HEAD", "POST", "GET", "HEAD"):
            body = b"x" * 1000 if method == "POST" else None
            connection.send(wire.request(method, target, body=body, close=False))
            answer = connection.read(method)
            assert (answer.status, answer.body) == (200, b"" if method == "HEAD" else b"hello")
        assert assert_in_step(host, connection)


def test_old_client_gets_a_whole_answer_without_chunks(host: Host) -> None:
    # RFC 9112 6.1: no Transfer-Encoding to HTTP/1.0; the end of the connection ends the body
    for output in (f"{CT}\nhello", f"{CT}\n" + "x" * 300_000):
        with host.connect() as connection:
            target = printing(host, output)
            connection.send(wire.request("GET", target, version="HTTP/1.0", host=None, close=False))
            answer = connection.read()
        assert (answer.status, answer.text) == (200, output.partition("\n\n")[2])
        assert answer.framing in ("length", "close")


def test_old_client_gets_a_stream_that_the_connection_ends(host: Host) -> None:
    # RFC 9112 6.3
    go_on = mark(host)
    with host.connect() as connection:
        target = servers.steps(["out", CT + "\nfirst "], ["wait_for", str(go_on)], ["out", "second"])
        connection.send(wire.request("GET", target, version="HTTP/1.0", close=False))
        answer = connection.read_head()
        first = connection.read_some(6)
        go_on.touch()
        assert (answer.get("Transfer-Encoding"), first + connection.rest()) == (None, b"first second")


# -- HEAD


KINDS = {
    "document": f"X-A: 1\n{CT}\nthe body",
    "empty": f"X-A: 1\n{CT}\n",
    "with length": f"Content-Length: 8\nX-A: 1\n{CT}\nthe body",
    "long": f"X-A: 1\n{CT}\n" + "x" * 300_000,
    "long with length": f"Content-Length: 300000\nX-A: 1\n{CT}\n" + "x" * 300_000,
    "404": f"Status: 404 Nope\nX-A: 1\n{CT}\nnot here",
    "500": f"Status: 500 Mine\nX-A: 1\n{CT}\nbroken",
    "204": "Status: 204 No Content\nX-A: 1\n\n",
    "304": 'Status: 304 Not Modified\nETag: "x"\n\n',
    "401": f"Status: 401 Unauthorized\nWWW-Authenticate: Basic realm=x\n{CT}\nwho?",
    "client redirect": "Location: http://example.test/\n\n",
    "redirect with document": f"Status: 303 See Other\nLocation: /x\n{CT}\nmoved",
    "local redirect": "Location: /next.txt\n\n",
    "local redirect to nothing": "Location: /nothing.txt\n\n",
    "broken": "nonsense\n",
    "nph": f"HTTP/1.1 299 Mine\r\nX-A: 1\r\n{CT}\nthe body",
}
OF_THE_MESSAGE = {"date", "content-length", "transfer-encoding", "connection", "keep-alive"}


@pytest.mark.parametrize("kind", KINDS)
def test_head_has_the_head_of_get_and_no_body(host: Host, kind: str) -> None:
    # RFC 3875 4.3.3; RFC 9110 9.3.2 (the same fields), 8.6 (a Content-Length is GET's, or is left out)
    host.site.file("next.txt", "the next one\n")
    target = printing(host, KINDS[kind], nph=kind == "nph")
    got, headed = host.get(target), host.ask("HEAD", target)
    assert (headed.status, headed.reason, headed.body) == (got.status, got.reason, b"")

    def fields(answer: wire.Answer) -> list[tuple[str, str]]:
        return [field for field in answer.fields if field[0].lower() not in OF_THE_MESSAGE]

    assert fields(headed) == fields(got)
    assert headed.get("Content-Length") in (None, str(len(got.body)))


def test_head_runs_the_script_once(host: Host) -> None:
    # RFC 3875 4.3.3: it gets HEAD, and may leave its body out
    runs = mark(host)
    host.site.sh("head-once", f"echo $REQUEST_METHOD >> '{runs}'\nprintf 'Status: 404 Nope\\nX-A: 1\\n\\nhidden'\n")
    answer = host.ask("HEAD", "/cgi-bin/head-once")
    assert (answer.status, answer.get("X-A"), answer.body) == (404, "1", b"")
    assert runs.read_text() == "HEAD\n"


def test_head_of_a_script_that_leaves_the_body_out_keeps_its_length(host: Host) -> None:
    # RFC 9110 8.6: the script knows how long the answer to GET would be
    answer = printed(host, f"Content-Length: 1000\n{CT}\n", method="HEAD")
    assert (answer.status, answer.get("Content-Length"), answer.body) == (200, "1000", b"")


def test_head_of_a_script_that_leaves_the_body_out_is_not_given_a_length(host: Host) -> None:
    # RFC 9110 8.6: none is sent unless it is that of GET's answer, which nobody knows here
    host.site.sh("head-short", "printf 'Content-Type: text/plain\\n\\n'\n[ $REQUEST_METHOD = HEAD ] || echo hello\n")
    assert host.get("/cgi-bin/head-short").body == b"hello\n"
    assert host.ask("HEAD", "/cgi-bin/head-short").get("Content-Length") in (None, "6")


def test_connection_is_in_step_after_head(host: Host) -> None:
    # RFC 9112 6.3
    for kind in ("document", "long", "with length", "204", "broken"):
        with host.connect() as connection:
            connection.send(wire.request("HEAD", printing(host, KINDS[kind]), close=False))
            connection.read("HEAD")
            assert_in_step(host, connection)


# -- many


def test_many_different_answers_at_once_do_not_mix(host: Host) -> None:
    # RFC 3875 6: each response is its own script's
    def ask(number: int) -> tuple[int, str | None, str]:
        body = f"{number} " * (1 + number * 100)
        answer = printed(host, f"Status: {200 + number} N\nX-Number: {number}\n{CT}\n{body}")
        assert answer.text == body
        return answer.status, answer.get("X-Number"), answer.reason

    numbers = [number for number in range(60) if number not in (4, 5)]
    printing(host, "")
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, numbers)) == [(200 + number, str(number), "N") for number in numbers]
