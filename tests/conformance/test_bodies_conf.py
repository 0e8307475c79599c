"""Request bodies and methods: what a script reads (RFC 3875 section 4.2), and who may ask for what; on every server."""

from __future__ import annotations

import concurrent.futures
import gzip
import hashlib
import json
import os
import socket

import pytest
import wire
from conftest import Host

REPORT = "/cgi-bin/report.py"
PLAIN = "Content-Type: text/plain\n\n"
NOISE = os.urandom(1 << 20)
CHUNKED = ("Transfer-Encoding", "chunked")

# Reads its standard input to the end, whatever CONTENT_LENGTH says, and compares.
STRICT = """
import os, stat, sys
data = sys.stdin.buffer.read()
said = os.environ.get("CONTENT_LENGTH", "")
print("Content-Type: text/plain\\n\\n%d %s %s" % (len(data), said or "-", stat.S_ISSOCK(os.fstat(0).st_mode)))
"""


def fingerprint(data: bytes) -> str:
    """What steps.py's ``hash`` prints."""
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}"


def hashed(host: Host, data: bytes, **options: object) -> str:
    """What arrives of a body, as its fingerprint."""
    answer = host.steps(["out", PLAIN], ["hash"], method="POST", body=data, **options)
    assert answer.status == 200, answer
    return answer.text


def settle(host: Host, data: bytes, method: str = "POST", timeout: float = 5) -> wire.Answer | None:
    """The answer to a request that may be refused without one: None when the connection was just closed."""
    with host.connect(timeout) as connection:
        connection.send(data)
        try:
            return connection.read(method)
        except wire.Fault as fault:
            if str(fault) != "the connection ended inside a line: b''":
                raise
            return None


def is_refused(answer: wire.Answer | None) -> bool:
    """Whether a request was refused as the client's fault, or as something the server does not do."""
    return answer is None or 400 <= answer.status <= 499 or answer.status == 501


def given(answer: wire.Answer) -> dict:  # type: ignore[type-arg]
    """What report.py was given."""
    assert answer.status == 200, answer
    return json.loads(answer.body)  # type: ignore[no-any-return]


def post_chunks(
    chunks: bytes, *fields: tuple[str, str | bytes], method: str = "POST", target: str = REPORT, close: bool = True
) -> bytes:
    """A request with these bytes as its chunked body."""
    return wire.request(method, target, [*fields, CHUNKED], close=close) + chunks


# -- what arrives


def test_body_arrives_byte_for_byte_and_then_ends(host: Host) -> None:
    """RFC 3875 4.2: every byte value, nothing converted, and end of file behind it."""
    body = bytes(range(256)) * 33 + NOISE[:5000]
    found = host.report(REPORT, "POST", [("Content-Type", "application/octet-stream")], body)
    assert found["body"].encode("latin-1") == body
    assert found["environ"]["CONTENT_LENGTH"] == str(len(body))


@pytest.mark.parametrize(
    "size", [1, 2, 4095, 8192, 65535, 65536, 65537, 524_289, (1 << 20) - 1, 1 << 20, (1 << 20) + 1]
)
def test_body_of_any_size_arrives_whole(host: Host, size: int) -> None:
    """RFC 3875 4.2: around the sizes at which servers and pipes change their ways."""
    body = (NOISE + NOISE)[:size]
    assert hashed(host, body) == fingerprint(body)


def test_large_body_arrives_unchanged(host: Host) -> None:
    """RFC 3875 4.2: 9 MiB."""
    body = NOISE * 9
    assert hashed(host, body) == fingerprint(body)


BODIES = {
    "line_ends": b"a\nb\r\nc\rd\n\n\r\n\r\n",
    "request_in_it": b"\r\n\r\nGET /cgi-bin/report.py HTTP/1.1\r\nHost: x\r\n\r\n",
    "response_in_it": b"Status: 500\n\nHTTP/1.1 500 X\r\n\r\n",
    "chunks_in_it": b"5\r\nhello\r\n0\r\n\r\n",
    "nul": b"\0" * 100,
    "ctrl_z": b"a\x1ab\x04c",
    "utf8_with_mark": b"\xef\xbb\xbf\xc3\xa9",
    "form": b"a=1&b=%20+%2B&c[]=\xff",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_body_is_not_looked_into(host: Host, body: bytes) -> None:
    """RFC 3875 4.2: whatever it looks like."""
    assert host.report(REPORT, "POST", body=body)["body"].encode("latin-1") == body


def test_form_stays_on_standard_input(host: Host) -> None:
    """RFC 3875 4.2 and 4.4: it becomes neither a query nor arguments."""
    fields: list[tuple[str, str | bytes]] = [("Content-Type", "application/x-www-form-urlencoded")]
    found = host.report(f"{REPORT}?q=1", "POST", fields, b"a=b&c=d+e")
    assert (found["body"], found["environ"]["QUERY_STRING"], found["argv"][1:]) == ("a=b&c=d+e", "q=1", [])


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
def test_without_a_body_standard_input_ends_at_once(host: Host, method: str) -> None:
    """RFC 3875 4.2: a script that reads all the same does not hang."""
    host.site.python("strict.py", STRICT)
    answer = host.raw(wire.request(method, "/cgi-bin/strict.py"), method, timeout=8)
    assert answer.status == 200
    if method != "HEAD":
        assert answer.text == "0 - False\n"


def test_announced_empty_body_ends_at_once(host: Host) -> None:
    """RFC 3875 4.2: Content-Length: 0."""
    host.site.python("strict.py", STRICT)
    answer = host.raw(wire.request("POST", "/cgi-bin/strict.py", body=b""), "POST", timeout=8)
    assert (answer.status, answer.text.split()[0], answer.text.split()[1] in "-0") == (200, "0", True)


def test_post_without_any_length_has_no_body(host: Host) -> None:
    """RFC 9112 6.3: neither field means a length of zero; 411 is allowed too."""
    answer = host.raw(wire.request("POST", REPORT), "POST", timeout=8)
    assert answer.status == 411 or given(answer)["body"] == ""


def test_old_client_without_a_length_has_no_body(host: Host) -> None:
    """RFC 9112 6.3: the same with HTTP/1.0, though it may close its half of the connection."""
    answer = host.raw(wire.request("POST", REPORT, version="HTTP/1.0"), "POST", timeout=8)
    assert is_refused(answer) or given(answer)["body"] == ""


def test_old_client_with_a_length_is_served(host: Host) -> None:
    """RFC 1945 7.2.2."""
    answer = host.raw(wire.request("POST", REPORT, body=b"old body", version="HTTP/1.0"), "POST")
    assert given(answer)["body"] == "old body"
    assert answer.framing != "chunked"


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_body_in_many_small_packets_arrives_whole(host: Host, piece: int) -> None:
    """RFC 9112 2.2: packets mean nothing; the head comes in pieces too."""
    body = NOISE[: piece * 40]
    data = wire.request("POST", REPORT, body=body)
    with host.connect() as connection:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for begin in range(0, len(data), piece):
            connection.send(data[begin : begin + piece])
        assert given(connection.read("POST"))["body"].encode("latin-1") == body


def test_body_is_followed_by_nothing_of_the_next_request(host: Host) -> None:
    """RFC 3875 4.2: the next request on the connection is not the script's, and is answered afterwards."""
    host.site.file("next.txt", "the next one")
    with host.connect() as connection:
        connection.send(wire.request("POST", REPORT, body=b"mine", close=False) + wire.request("GET", "/next.txt"))
        answer = connection.read("POST")
        assert given(answer)["body"] == "mine"
        if (answer.get("Connection") or "").lower() != "close":
            assert connection.read().text == "the next one"


def test_pipelined_bodies_come_to_their_own_scripts_in_order(host: Host) -> None:
    """RFC 9112 9.3.2: three requests at once, with a length, in chunks, and with a length again."""
    requests = [
        wire.request("POST", REPORT + "/1", body=b"first", close=False),
        post_chunks(wire.chunked(b"second"), target=REPORT + "/2", close=False),
        wire.request("POST", REPORT + "/3", body=b"third"),
    ]
    seen = []
    with host.connect() as connection:
        connection.send(b"".join(requests))
        for _ in requests:
            answer = connection.read("POST")
            found = given(answer)
            seen.append((found["environ"]["PATH_INFO"], found["body"]))
            if (answer.get("Connection") or "").lower() == "close":
                break
    assert seen == [("/1", "first"), ("/2", "second"), ("/3", "third")][: len(seen)]


def test_bodies_one_after_the_other_on_one_connection(host: Host) -> None:
    """RFC 9112 9.3: as long as the server keeps the connection."""
    with host.connect() as connection:
        for number in range(5):
            connection.send(wire.request("POST", REPORT, body=b"n%d" % number, close=False))
            answer = connection.read("POST")
            assert given(answer)["body"] == f"n{number}"
            if (answer.get("Connection") or "").lower() == "close":
                break


@pytest.mark.parametrize("size", [10, 1 << 20])
def test_script_that_does_not_read_its_body_is_answered(host: Host, size: int) -> None:
    """RFC 3875 4.2: it is not obliged to."""
    answer = host.steps(["out", f"{PLAIN}unread"], method="POST", body=b"b" * size)
    assert (answer.status, answer.text) == (200, "unread")


def test_unread_body_is_not_taken_for_the_next_request(host: Host) -> None:
    """RFC 9112 9.3: the connection stays in step, or is closed."""
    host.site.sh("unread.sh", "printf 'Content-Type: text/plain\\n\\nunread'\n")
    body = wire.request("GET", "/must-not-be-asked-for") * 50
    with host.connect() as connection:
        connection.send(wire.request("POST", "/cgi-bin/unread.sh", body=body, close=False))
        answer = connection.read("POST")
        assert (answer.status, answer.text) == (200, "unread")
        if (answer.get("Connection") or "").lower() != "close":
            connection.send(wire.request("GET", REPORT))
            assert given(connection.read())["environ"]["REQUEST_METHOD"] == "GET"


def test_script_that_closes_its_standard_input_is_answered(host: Host) -> None:
    """RFC 3875 4.2: the same, said to the system."""
    answer = host.steps(["close", 0], ["out", f"{PLAIN}closed"], method="POST", body=NOISE)
    assert (answer.status, answer.text) == (200, "closed")


def test_script_that_answers_while_it_reads_blocks_nobody(host: Host) -> None:
    """Pipes that are full in both directions must not wait for each other: 5 MiB each way."""
    body = NOISE * 5
    answer = host.steps(["out", "Content-Type: application/octet-stream\n\n"], ["echo"], method="POST", body=body)
    assert fingerprint(answer.body) == fingerprint(body)


def test_script_that_answers_before_it_reads_blocks_nobody(host: Host) -> None:
    """The same, when all of a large answer comes first."""
    answer = host.steps(["out", PLAIN], ["fill", 3 << 20], ["hash"], method="POST", body=NOISE * 2)
    assert (len(answer.body) > 3 << 20, answer.text.endswith(fingerprint(NOISE * 2))) == (True, True)


def test_concurrent_bodies_are_not_mixed_up(host: Host) -> None:
    """RFC 3875 4.2: each script reads the body of its own request."""
    bodies = [NOISE[i : i + 150_000 + i] for i in range(8)]
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        found = list(pool.map(lambda body: hashed(host, body), bodies))
    assert found == [fingerprint(body) for body in bodies]


def test_encoded_body_arrives_as_it_was_sent(host: Host) -> None:
    """RFC 3875 4.1.2 and 4.2: Content-Encoding is the script's business; the length is that of what it reads."""
    body = gzip.compress(b"text " * 200)
    found = host.report(REPORT, "POST", [("Content-Encoding", "gzip")], body)
    assert found["body"].encode("latin-1") == body
    assert found["environ"]["CONTENT_LENGTH"] == str(len(body))
    assert found["environ"]["HTTP_CONTENT_ENCODING"] == "gzip"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_body_of_a_get_is_the_scripts_and_the_connection_stays_in_step(host: Host, method: str) -> None:
    """RFC 9110 9.3.1: it has no meaning to HTTP, but it is there."""
    host.site.file("next.txt", "the next one")
    with host.connect() as connection:
        connection.send(wire.request(method, REPORT, body=b"for a get", close=False))
        answer = connection.read(method)
        if method == "GET" and not is_refused(answer):
            assert given(answer)["body"] == "for a get"
        if (answer.get("Connection") or "").lower() != "close":
            connection.send(wire.request("GET", "/next.txt"))
            assert connection.read().text == "the next one"


def test_body_for_a_script_that_is_not_there_leaves_the_connection_in_step(host: Host) -> None:
    """RFC 9112 9.3: what nobody reads is skipped, or the connection is closed."""
    with host.connect() as connection:
        connection.send(wire.request("POST", "/cgi-bin/absent", body=b"GET /x HTTP/1.1\r\n\r\n" * 9, close=False))
        answer = connection.read("POST")
        assert answer.status == 404
        if (answer.get("Connection") or "").lower() != "close":
            connection.send(wire.request("GET", REPORT))
            assert connection.read().status == 200


# -- chunked bodies

CHUNKS = {
    "one": (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "single_bytes": (wire.chunked(b"hello", 1), b"hello"),
    "upper_case": (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    "lower_case": (b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    "leading_zeros": (b"0005\r\nhello\r\n000\r\n\r\n", b"hello"),
    "extension": (b"5;name=value\r\nhello\r\n0;last\r\n\r\n", b"hello"),
    "quoted_extension": (b'5;a="b;c";d\r\nhello\r\n0\r\n\r\n', b"hello"),
    "line_ends_in_it": (b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", b"\r\n0\r\n\r\n"),
    "long": (wire.chunked(NOISE[:200_000], 4093), NOISE[:200_000]),
    "one_large_chunk": (wire.chunked(NOISE[:300_000], 300_000), NOISE[:300_000]),
}


@pytest.mark.parametrize(("chunks", "body"), CHUNKS.values(), ids=CHUNKS.keys())
def test_chunked_body_arrives_decoded_with_its_length(host: Host, chunks: bytes, body: bytes) -> None:
    """RFC 3875 4.2, RFC 9112 7.1: "transfer-codings ... must be removed"; else 411 or 501."""
    answer = host.raw(post_chunks(chunks), "POST")
    if not is_refused(answer):
        found = given(answer)
        assert found["body"].encode("latin-1") == body
        assert found["environ"]["CONTENT_LENGTH"] == str(len(body))


def test_large_chunked_body_arrives_unchanged(host: Host) -> None:
    """RFC 9112 7.1: 3 MiB, which waits in a file."""
    body = NOISE * 3
    with host.connect() as connection:
        target = (
            "/cgi-bin/steps.py?" + "%5B%5B%22out%22,%22Content-Type:%20text/plain%5Cn%5Cn%22%5D,%5B%22hash%22%5D%5D"
        )
        connection.send(post_chunks(wire.chunked(body, 60_000), target=target))
        assert connection.read("POST").text == fingerprint(body)


def test_empty_chunked_body_is_no_body_or_an_empty_one(host: Host) -> None:
    """RFC 3875 4.1.2: the script does not hang, and is told no other length."""
    answer = host.raw(post_chunks(b"0\r\n\r\n"), "POST", timeout=8)
    if not is_refused(answer):
        found = given(answer)
        assert (found["body"], found["environ"].get("CONTENT_LENGTH", "") in ("", "0")) == ("", True)


@pytest.mark.parametrize("coding", ["Chunked", "CHUNKED", " chunked "])
def test_name_of_the_chunked_coding_has_no_case(host: Host, coding: str) -> None:
    """RFC 9112 7: "All transfer-coding names are case-insensitive"."""
    data = wire.request("POST", REPORT, [("Transfer-Encoding", coding)]) + wire.chunked(b"hello")
    answer = host.raw(data, "POST")
    assert is_refused(answer) or given(answer)["body"] == "hello"


def test_trailers_of_a_chunked_body_become_no_variables(host: Host) -> None:
    """RFC 9110 6.5.1: merging them into the header section is for those who know the field."""
    chunks = b"5\r\nhello\r\n0\r\nX-Trailer: 1\r\nContent-Type: text/evil\r\nProxy: evil\r\n\r\n"
    answer = settle(host, post_chunks(chunks, ("Trailer", "X-Trailer")))
    if answer is not None and not is_refused(answer):
        found = given(answer)
        assert found["body"] == "hello"
        assert {"HTTP_X_TRAILER", "CONTENT_TYPE", "HTTP_PROXY"} & set(found["environ"]) == set()


def test_connection_stays_in_step_after_trailers(host: Host) -> None:
    """RFC 9112 7.1.2: they belong to the request that they end."""
    chunks = b"5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n"
    with host.connect() as connection:
        connection.send(post_chunks(chunks, close=False) + wire.request("GET", REPORT + "/next"))
        answer = connection.read("POST")
        if not is_refused(answer):
            assert given(answer)["body"] == "hello"
            if (answer.get("Connection") or "").lower() != "close":
                assert given(connection.read())["environ"]["PATH_INFO"] == "/next"


BROKEN_CHUNKS = {
    "no_number": b"x\r\nhello\r\n0\r\n\r\n",
    "negative": b"-5\r\nhello\r\n0\r\n\r\n",
    "plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "empty_size": b"\r\nhello\r\n0\r\n\r\n",
    "too_short": b"3\r\nhello\r\n0\r\n\r\n",
    "too_long": b"9\r\nhello\r\n0\r\n\r\n",
    "bare_lf": b"5\nhello\n0\n\n",
    "huge": b"ffffffffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "blank_inside": b"1 0\r\nhello\r\n0\r\n\r\n",
    "not_chunked_at_all": b"hello\r\n\r\n",
}


@pytest.mark.parametrize("chunks", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS.keys())
def test_broken_chunks_are_refused(host: Host, chunks: bytes) -> None:
    """RFC 9112 7.1: no script sees a body that may be another's (request smuggling)."""
    with host.connect(5) as connection:
        connection.send(post_chunks(chunks))
        connection.socket.shutdown(socket.SHUT_WR)
        try:
            answer = connection.read("POST")
        except wire.Fault as fault:
            assert str(fault) == "the connection ended inside a line: b''"
        else:
            assert is_refused(answer), answer


def test_chunked_body_that_ends_early_is_noticed(host: Host) -> None:
    """RFC 9112 8: an incomplete message; no script may take it for the whole."""
    with host.connect(8) as connection:
        connection.send(post_chunks(b"5\r\nhello\r\n5\r\nwo"))
        connection.socket.shutdown(socket.SHUT_WR)
        try:
            assert is_refused(connection.read("POST"))
        except wire.Fault as fault:
            assert str(fault) == "the connection ended inside a line: b''"


@pytest.mark.parametrize(
    "coding", ["gzip", "gzip, chunked", "chunked, gzip", "identity", "xchunked", "chunked;q=1", "chunke"]
)
def test_other_transfer_codings_are_refused(host: Host, coding: str) -> None:
    """RFC 9112 6.1 and 7: 501 for what one does not know, 400 for what has no end; RFC 3875 4.2: none is left over."""
    data = wire.request("POST", REPORT, [("Transfer-Encoding", coding)]) + wire.chunked(b"hello")
    assert is_refused(settle(host, data))


def test_chunked_coding_twice_is_refused(host: Host) -> None:
    """RFC 9112 7.1: it must not be applied more than once."""
    data = wire.request("POST", REPORT, [("Transfer-Encoding", "chunked, chunked")]) + wire.chunked(b"hello")
    assert is_refused(settle(host, data))


def test_transfer_encoding_in_two_fields_is_refused(host: Host) -> None:
    """RFC 9112 6.1, RFC 9110 5.3: the same as the list of both."""
    data = wire.request("POST", REPORT, [("Transfer-Encoding", "gzip"), CHUNKED]) + wire.chunked(b"hello")
    assert is_refused(settle(host, data))


# -- the length, and who decides it


@pytest.mark.parametrize(
    "length",
    [
        "x",
        "-5",
        "+5",
        "5_0",
        "0x5",
        "5 5",
        "5, 6",
        "5;",
        "\u0665".encode(),
        "5e0",
        "5.0",
        "5,",
        "'5'",
        b"\xb2",
        "9" * 40,
    ],
    ids=repr,
)
def test_length_that_is_no_number_is_refused(host: Host, length: str | bytes) -> None:
    """RFC 9110 8.6, RFC 9112 6.3: 1*DIGIT, and nothing that Python's ``int`` takes beside."""
    assert is_refused(settle(host, wire.request("POST", REPORT, [("Content-Length", length)]) + b"hello"))


@pytest.mark.parametrize("length", ["", " "], ids=["empty", "blank"])
def test_empty_length_is_refused_or_means_none(host: Host, length: str) -> None:
    """RFC 9112 6.3: it is no number; but above all nothing behind the head is taken for a body."""
    answer = settle(host, wire.request("POST", REPORT, [("Content-Length", length)]))
    assert is_refused(answer) or (answer is not None and given(answer)["body"] == "")


def test_leading_zeros_of_a_length_do_not_matter(host: Host) -> None:
    """RFC 9110 8.6: 1*DIGIT; and decimal, not octal."""
    answer = host.raw(wire.request("POST", REPORT, [("Content-Length", "0010")]) + b"0123456789", "POST")
    if not is_refused(answer):
        found = given(answer)
        assert (found["body"], int(found["environ"]["CONTENT_LENGTH"])) == ("0123456789", 10)


@pytest.mark.parametrize("lengths", [("5", "6"), ("6", "5"), ("5", "x"), ("0", "5")], ids=" ".join)
def test_two_lengths_are_refused(host: Host, lengths: tuple[str, str]) -> None:
    """RFC 9112 6.3: unrecoverable."""
    data = wire.request("POST", REPORT, [("Content-Length", length) for length in lengths])
    assert is_refused(settle(host, data + b"hello"))


@pytest.mark.parametrize(
    "fields", [[("Content-Length", "5")] * 2, [("Content-Length", "5, 5")]], ids=["fields", "list"]
)
def test_the_same_length_twice_is_refused_or_taken_once(host: Host, fields: list[tuple[str, str | bytes]]) -> None:
    """RFC 9112 6.3: either; never a body of another length."""
    answer = settle(host, wire.request("POST", REPORT, fields) + b"hello")
    if answer is not None and not is_refused(answer):
        found = given(answer)
        assert (found["body"], found["environ"]["CONTENT_LENGTH"]) == ("hello", "5")


AMBIGUOUS = {
    "short_length_first": [("Content-Length", "4"), CHUNKED],
    "short_length_last": [CHUNKED, ("Content-Length", "4")],
    "zero": [("Content-Length", "0"), CHUNKED],
    "long_length": [("Content-Length", "9999"), CHUNKED],
}


@pytest.mark.parametrize("fields", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_length_beside_chunks_is_refused_or_ignored(host: Host, fields: list[tuple[str, str | bytes]]) -> None:
    """RFC 9112 6.1 and 6.3: the chunks count, and nothing behind them is answered with something else's words."""
    behind = wire.request("GET", REPORT + "/behind", close=False)
    with host.connect(6) as connection:
        connection.send(wire.request("POST", REPORT, fields, close=False) + b"5\r\nhello\r\n0\r\n\r\n" + behind)
        try:
            answer = connection.read("POST")
        except wire.Fault as fault:
            assert str(fault) == "the connection ended inside a line: b''"
            return
        if is_refused(answer):
            return
        found = given(answer)
        assert found["body"] == "hello"
        assert found["environ"].get("CONTENT_LENGTH", "") in ("", "5")
        if (answer.get("Connection") or "").lower() != "close":
            assert given(connection.read())["environ"]["PATH_INFO"] == "/behind"


def test_chunks_from_an_old_client_are_decoded_or_refused(host: Host) -> None:
    """RFC 9112 6.1: Transfer-Encoding in HTTP/1.0 is faulty framing, so no script is told that there is no body."""
    data = wire.request("POST", REPORT, [CHUNKED, ("Connection", "keep-alive")], version="HTTP/1.0")
    answer = settle(host, data + b"5\r\nhello\r\n0\r\n\r\n")
    assert is_refused(answer) or (answer is not None and given(answer)["body"] == "hello")


@pytest.mark.parametrize("sent", [b"", b"only a part", b"x" * 99_999], ids=["nothing", "little", "much"])
def test_body_that_ends_early_is_noticed(host: Host, sent: bytes) -> None:
    """RFC 9112 8: an answer of 4xx or the end of the connection, soon; no script takes it for the whole."""
    with host.connect(10) as connection:
        connection.send(wire.request("POST", REPORT, [("Content-Length", "100000")]) + sent)
        connection.socket.shutdown(socket.SHUT_WR)
        try:
            assert is_refused(connection.read("POST"))
        except wire.Fault as fault:
            assert str(fault) == "the connection ended inside a line: b''"


def test_client_that_half_closes_after_its_request_is_answered_or_closed(host: Host) -> None:
    """RFC 9112 9.6 leaves it open; what must not be is silence."""
    with host.connect(10) as connection:
        connection.send(wire.request("POST", REPORT, body=b"hello"))
        connection.socket.shutdown(socket.SHUT_WR)
        try:
            assert given(connection.read("POST"))["body"] == "hello"
        except wire.Fault as fault:
            assert str(fault) == "the connection ended inside a line: b''"


def test_body_that_is_too_large_is_refused_before_it_comes(host: Host) -> None:
    """RFC 9110 15.5.14: 413 at its announcement; nobody waits for gigabytes."""
    answer = settle(host, wire.request("POST", REPORT, [("Content-Length", str(3 << 30))]))
    assert answer is None or answer.status == 413


# -- Expect


def test_client_that_waits_for_a_100_gets_it_or_a_final_answer(host: Host) -> None:
    """RFC 9110 10.1.1: before the body is sent."""
    with host.connect(6) as connection:
        fields: list[tuple[str, str | bytes]] = [("Expect", "100-continue"), ("Content-Length", "5")]
        connection.send(wire.request("POST", REPORT, fields))
        first = connection.read_some(12)
        connection.put_back(first)
        if first.startswith(b"HTTP/1.1 100"):
            connection.send(b"hello")
            answer = connection.read("POST")
            assert (answer.interim, given(answer)["body"]) == ([100], "hello")
        else:
            assert 400 <= connection.read("POST").status <= 499


@pytest.mark.parametrize("expectation", ["100-Continue", "100-CONTINUE"])
def test_expectation_has_no_case(host: Host, expectation: str) -> None:
    """RFC 9110 10.1.1: "case-insensitive"."""
    with host.connect(6) as connection:
        connection.send(wire.request("POST", REPORT, [("Expect", expectation), ("Content-Length", "5")]))
        first = connection.read_some(12)
        assert first.startswith((b"HTTP/1.1 100", b"HTTP/1.1 4"))
        connection.send(b"hello")


def test_body_that_does_not_wait_for_its_100_is_taken(host: Host) -> None:
    """RFC 9110 10.1.1: a client need not wait; the answer is right with and without an interim one."""
    answer = host.raw(wire.request("POST", REPORT, [("Expect", "100-continue")], b"hello"), "POST")
    assert given(answer)["body"] == "hello"
    assert answer.interim in ([], [100])


def test_expectation_of_an_old_client_is_not_answered_with_a_100(host: Host) -> None:
    """RFC 9110 10.1.1: "MUST ignore" in HTTP/1.0; such clients take it for the answer."""
    answer = host.raw(wire.request("POST", REPORT, [("Expect", "100-continue")], b"hello", version="HTTP/1.0"), "POST")
    assert (answer.interim, given(answer)["body"]) == ([], "hello")


def test_expected_chunked_body_is_asked_for(host: Host) -> None:
    """RFC 9110 10.1.1 with RFC 9112 7.1."""
    with host.connect(6) as connection:
        connection.send(post_chunks(b"", ("Expect", "100-continue")))
        first = connection.read_some(12)
        connection.put_back(first)
        if first.startswith(b"HTTP/1.1 100"):
            connection.send(wire.chunked(b"hello"))
            assert given(connection.read("POST"))["body"] == "hello"
        else:
            assert is_refused(connection.read("POST"))


def test_unknown_expectation_is_refused_or_ignored(host: Host) -> None:
    """RFC 9110 10.1.1: 417 is allowed."""
    answer = host.raw(wire.request("POST", REPORT, [("Expect", "miracles")], b"hello"), "POST")
    assert answer.status == 417 or given(answer)["body"] == "hello"


# -- methods


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "POST"])
def test_method_with_a_body_reaches_the_script(host: Host, method: str) -> None:
    """RFC 3875 4.3.4."""
    found = host.report(REPORT + "/thing", method, body=b"content")
    assert (found["environ"]["REQUEST_METHOD"], found["body"]) == (method, "content")


def test_options_reaches_the_script(host: Host) -> None:
    """RFC 3875 4.3.4: the preflight of CORS is the script's to answer."""
    fields: list[tuple[str, str | bytes]] = [("Origin", "https://o.test"), ("Access-Control-Request-Method", "PUT")]
    environ = host.report(REPORT, "OPTIONS", fields)["environ"]
    assert environ["REQUEST_METHOD"] == "OPTIONS"
    assert environ["HTTP_ACCESS_CONTROL_REQUEST_METHOD"] == "PUT"


@pytest.mark.parametrize("method", ["PROPFIND", "REPORT", "BREW", "MKCALENDAR", "SEARCH", "QUERY", "M-SEARCH"])
def test_extension_method_reaches_the_script(host: Host, method: str) -> None:
    """RFC 3875 4.1.12 and 4.3.4: with its body."""
    found = host.report(REPORT, method, body=b"<q/>")
    assert (found["environ"]["REQUEST_METHOD"], found["body"]) == (method, "<q/>")


@pytest.mark.parametrize("method", ["get", "Post", "pUT"])
def test_method_has_a_case(host: Host, method: str) -> None:
    """RFC 9110 9.1: "get" is another method than "GET"; it is refused, or passed on as it is."""
    answer = settle(host, wire.request(method, REPORT, body=b"x"))
    assert is_refused(answer) or (answer is not None and given(answer)["environ"]["REQUEST_METHOD"] == method)


@pytest.mark.parametrize("method", ["G(T", "G\xe9T", "", "G\x01T"], ids=["separator", "high", "empty", "control"])
def test_method_that_is_no_token_is_refused(host: Host, method: str) -> None:
    """RFC 9110 9.1."""
    assert is_refused(settle(host, wire.request(method, REPORT)))


@pytest.mark.parametrize("target", [REPORT, "/trace.txt", "/", "/cgi-bin/absent"])
def test_trace_echoes_no_secrets(host: Host, target: str) -> None:
    """RFC 9110 9.3.8: cross-site tracing."""
    host.site.file("trace.txt", "text")
    fields: list[tuple[str, str | bytes]] = [("Cookie", "id=tracing-canary"), ("Authorization", "Basic tracing-canary")]
    answer = host.ask("TRACE", target, fields)
    assert b"tracing-canary" not in answer.body
    assert answer.status in (403, 404, 405, 501)


def test_connect_is_refused(host: Host) -> None:
    """RFC 9110 9.3.6: this is no proxy."""
    for target in ("127.0.0.1:80", REPORT):
        assert is_refused(settle(host, wire.request("CONNECT", target)))


def test_options_of_the_server_itself_is_answered(host: Host) -> None:
    """RFC 9112 3.2.4: "*" names no resource; any whole answer that is not the server's fault."""
    answer = settle(host, wire.request("OPTIONS", "*"), "OPTIONS")
    assert answer is not None
    assert answer.status < 500 or answer.status == 501


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "MOVE", "COPY", "MKCOL", "LINK", "PROPPATCH"])
def test_static_files_are_not_changed_by_any_method(host: Host, method: str) -> None:
    """RFC 9110 9.3: refused, and nothing has happened."""
    kept = host.site.file("kept.txt", "kept")
    before = sorted(os.listdir(host.site.directory))
    destination: list[tuple[str, str | bytes]] = [("Destination", f"http://127.0.0.1:{host.port}/moved.txt")]
    for target in ("/kept.txt", "/created.txt", "/", "/created/"):
        answer = host.ask(method, target, destination, b"changed")
        assert answer.status in (400, 403, 404, 405, 501), (target, answer)
    assert host.ask(method, "/kept.txt", destination, b"changed").status != 404
    assert (kept.read_text(), sorted(os.listdir(host.site.directory))) == ("kept", before)


@pytest.mark.parametrize("body", [b"a=1", b"", b"x" * 300_000], ids=["form", "empty", "large"])
def test_post_to_a_static_file_is_refused(host: Host, body: bytes) -> None:
    """RFC 9110 15.5.6: 405, as it is no script."""
    host.site.file("static.txt", "text")
    answer = host.ask("POST", "/static.txt", body=body)
    assert answer.status in (403, 405, 501)
    assert answer.text != "text"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "PROPFIND"])
def test_refused_method_names_those_that_are_allowed(host: Host, method: str) -> None:
    """RFC 9110 15.5.6: a 405 has Allow, with GET and HEAD for a file."""
    host.site.file("static.txt", "text")
    answer = host.ask(method, "/static.txt", body=b"x")
    assert answer.status == 405
    assert {"GET", "HEAD"} <= {name.strip() for name in (answer.get("Allow") or "").split(",")}


def test_trace_of_a_script_names_what_is_allowed(host: Host) -> None:
    """RFC 9110 15.5.6."""
    answer = host.ask("TRACE", REPORT)
    assert answer.status != 405 or answer.get("Allow")


@pytest.mark.parametrize("target", [REPORT, "/static.txt"])
def test_head_has_the_fields_of_get_and_no_body(host: Host, target: str) -> None:
    """RFC 9110 9.3.2, RFC 3875 4.3.3: and the connection is in step behind it."""
    host.site.file("static.txt", "text")
    with host.connect() as connection:
        connection.send(wire.request("HEAD", target, close=False))
        answer = connection.read("HEAD")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.media_type == host.get(target).media_type
        if (answer.get("Connection") or "").lower() != "close":
            connection.send(wire.request("GET", "/static.txt"))
            assert connection.read().text == "text"
