"""From what a script prints to a response head, however the bytes arrive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from wsgicgi.errors import BadScriptOutput
from wsgicgi.response import HeadParser, Kind, ResponseHead

MAX = 4096
#: What may follow a head: it looks like more of it, like its end, and is no text.
BODY = b"\r\n\nX: y\r\n\r\nHTTP/1.1 200 OK\n\n\0\xff"

Feed = Callable[[Callable[[], HeadParser], bytes], ResponseHead]


def whole(make: Callable[[], HeadParser], output: bytes) -> ResponseHead:
    """The head in one piece."""
    found = make().feed(output)
    assert found is not None
    head, body = found
    assert body == b""
    return head


def byte_by_byte(make: Callable[[], HeadParser], output: bytes) -> ResponseHead:
    """The head in pieces of one byte; it is complete with the last one and not before."""
    parser = make()
    for number in range(len(output) - 1):
        assert parser.feed(output[number : number + 1]) is None
    found = parser.feed(output[-1:])
    assert found is not None
    head, body = found
    assert body == b""
    return head


def with_body(make: Callable[[], HeadParser], output: bytes) -> ResponseHead:
    """The head and bytes after its end in one piece."""
    found = make().feed(output + BODY)
    assert found is not None
    head, body = found
    assert body == BODY
    return head


def in_two_pieces(make: Callable[[], HeadParser], output: bytes) -> ResponseHead:
    """The head and bytes after its end in two pieces, cut at every place; empty pieces change nothing."""
    heads = set()
    for cut in range(len(output)):
        parser = make()
        assert parser.feed(b"") is None
        assert parser.feed(output[:cut]) is None
        found = parser.feed(output[cut:] + BODY)
        assert found is not None
        head, body = found
        assert body == BODY
        heads.add(head)
    assert len(heads) == 1
    return heads.pop()


@pytest.fixture(params=[whole, byte_by_byte, with_body, in_two_pieces], ids=lambda feed: feed.__name__)
def feed(request: pytest.FixtureRequest) -> Feed:
    """Each way in which bytes may arrive."""
    return request.param  # type: ignore[no-any-return]


def parsed(max_bytes: int = MAX) -> HeadParser:
    return HeadParser(max_bytes=max_bytes)


def non_parsed(max_bytes: int = MAX) -> HeadParser:
    return HeadParser(max_bytes=max_bytes, nph=True)


def expect(head: ResponseHead, **parts: Any) -> None:
    """The head has these parts, and the usual ones else."""
    usual = {"kind": Kind.DOCUMENT, "status": 200, "reason": "OK", "fields": (), "location": "", "content_length": None}
    assert head == ResponseHead(**{**usual, **parts})


# -- the four kinds

TEXT = ("Content-Type", "text/plain")


@pytest.mark.parametrize(
    ("output", "parts"),
    [
        pytest.param(b"Content-Type: text/plain\n\n", {"fields": (TEXT,)}, id="document"),
        pytest.param(b"Content-Type: text/plain\r\n\r\n", {"fields": (TEXT,)}, id="document-crlf"),
        pytest.param(b"Content-Type: text/plain\r\n\n", {"fields": (TEXT,)}, id="crlf-then-lf"),
        pytest.param(b"Content-Type: text/plain\n\r\n", {"fields": (TEXT,)}, id="lf-then-crlf"),
        pytest.param(
            b"Content-Type: text/plain\r\nX-A: 1\nX-B: 2\r\n\n",
            {"fields": (TEXT, ("X-A", "1"), ("X-B", "2"))},
            id="mixed-line-ends",
        ),
        pytest.param(b"Status: 204\n\n", {"status": 204, "reason": "No Content"}, id="document-without-type"),
        pytest.param(b"X-A: 1\n\n", {"fields": (("X-A", "1"),)}, id="document-with-neither"),
        pytest.param(
            b"Location: /other?a=b\n\n",
            {
                "kind": Kind.LOCAL_REDIRECT,
                "location": "/other?a=b",
                "fields": (("Location", "/other?a=b"),),
            },
            id="local-redirect",
        ),
        pytest.param(
            b"X-CGI-Ext: 1\nLocation: /other\nDate: now\n\n",
            {"kind": Kind.LOCAL_REDIRECT, "location": "/other", "fields": (("Location", "/other"),)},
            id="local-redirect-with-what-is-not-forwarded",
        ),
        pytest.param(
            b"Location: http://other.example/x#y\n\n",
            {
                "kind": Kind.CLIENT_REDIRECT,
                "status": 302,
                "reason": "Found",
                "fields": (("Location", "http://other.example/x#y"),),
            },
            id="client-redirect",
        ),
        pytest.param(
            b"Location: //other.example/x\n\n",
            {
                "kind": Kind.CLIENT_REDIRECT,
                "status": 302,
                "reason": "Found",
                "fields": (("Location", "//other.example/x"),),
            },
            id="another-host-without-a-scheme-is-the-clients",
        ),
        pytest.param(
            b"Location: /x#fragment\n\n",
            {
                "kind": Kind.CLIENT_REDIRECT,
                "status": 302,
                "reason": "Found",
                "fields": (("Location", "/x#fragment"),),
            },
            id="a-fragment-is-the-clients",
        ),
        pytest.param(
            b"Location: other\n\n",
            {"kind": Kind.CLIENT_REDIRECT, "status": 302, "reason": "Found", "fields": (("Location", "other"),)},
            id="a-relative-path-is-the-clients",
        ),
        pytest.param(
            b"Set-Cookie: a=b\nLocation: /x\n\n",
            {
                "kind": Kind.CLIENT_REDIRECT,
                "status": 302,
                "reason": "Found",
                "fields": (("Location", "/x"), ("Set-Cookie", "a=b")),
            },
            id="a-path-with-a-cookie-is-the-clients",
        ),
        pytest.param(
            b"Status: 302 Moved\nLocation: /x\nContent-Type: text/plain\n\n",
            {
                "kind": Kind.CLIENT_REDIRECT_WITH_DOCUMENT,
                "status": 302,
                "reason": "Moved",
                "fields": (TEXT, ("Location", "/x")),
            },
            id="client-redirect-with-document",
        ),
        pytest.param(
            b"Status: 201 Created\nLocation: http://h/x\n\n",
            {
                "kind": Kind.CLIENT_REDIRECT_WITH_DOCUMENT,
                "status": 201,
                "reason": "Created",
                "fields": (("Location", "http://h/x"),),
            },
            id="created",
        ),
        pytest.param(
            b"Location:\nContent-Type: text/plain\n\n", {"fields": (TEXT,)}, id="an-empty-location-is-a-document"
        ),
    ],
)
def test_the_kind_of_response_follows_from_location_and_status(
    feed: Feed, output: bytes, parts: dict[str, Any]
) -> None:
    """Document, local redirect, client redirect and client redirect with document (RFC 3875 section 6.2)."""
    expect(feed(parsed, output), **parts)


# -- Status


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        pytest.param(b"Status: 404 Not Found", 404, "Not Found", id="usual"),
        pytest.param(b"Status:404 Not Found", 404, "Not Found", id="no-space"),
        pytest.param(b"Status:\t404\tNot Found", 404, "Not Found", id="tabs"),
        pytest.param(b"Status:   404   Not Found  ", 404, "Not Found", id="many-spaces"),
        pytest.param(b"Status: 404", 404, "Not Found", id="no-reason"),
        pytest.param(b"Status: 404 ", 404, "Not Found", id="empty-reason"),
        pytest.param(b"status: 404 Gone Fishing", 404, "Gone Fishing", id="own-reason"),
        pytest.param(b"STATUS: 404 \xe9t\xe9", 404, "\xe9t\xe9", id="latin-1-reason"),
        pytest.param(b"Status: 299", 299, "Unknown", id="unknown-code"),
        pytest.param(b"Status: 999 X", 999, "X", id="highest"),
        pytest.param(b"Status: 200", 200, "OK", id="lowest"),
        pytest.param(b"Status: 404\nStatus: 410", 410, "Gone", id="last-one-counts"),
    ],
)
def test_status_gives_code_and_reason(feed: Feed, line: bytes, status: int, reason: str) -> None:
    """Status has three digits and a reason, which may be missing; its name has any case (RFC 3875 section 6.3.3)."""
    head = feed(parsed, line + b"\nContent-Type: text/plain\n\n")
    expect(head, status=status, reason=reason, fields=(TEXT,))
    assert head.status_line == f"{status} {reason}"


def test_an_empty_cgi_field_is_as_none_at_all(feed: Feed) -> None:
    """A field without a value counts as not sent (RFC 3875 section 6.3)."""
    head = feed(parsed, b"Location: http://a.example/\nStatus:\nLocation:\nContent-Type: \n\n")
    expect(head, status=302, reason="Found", kind=Kind.CLIENT_REDIRECT, fields=(("Location", "http://a.example/"),))


@pytest.mark.parametrize(
    "value",
    [b"OK", b"20", b"2000", b"200OK", b"-200", b"+200", b"2 00", b"100 Continue", b"199", b"000", b"2\xb20 x"],
)
def test_a_status_that_is_none_is_bad_output(feed: Feed, value: bytes) -> None:
    """A Status is three digits, at least 200: an interim response is no CGI response (RFC 3875 section 6.3.3)."""
    with pytest.raises(BadScriptOutput):
        feed(parsed, b"Status: " + value + b"\nContent-Type: text/plain\n\n")


def test_a_message_about_a_status_shows_it(feed: Feed) -> None:
    """A message has the value, cut to a sane length, and what was expected."""
    with pytest.raises(BadScriptOutput) as raised:
        feed(parsed, b"Status: " + b"x" * 500 + b"\n\n")
    assert str(raised.value) == f"Status: {'x' * 80!r} is not three digits and a reason, such as 404 Not Found"


@pytest.mark.parametrize(("status", "has_body"), [(200, True), (204, False), (205, False), (304, False), (404, True)])
def test_a_status_says_whether_a_body_may_follow(status: int, has_body: bool) -> None:
    """204, 205 and 304 have no body (RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5)."""
    assert whole(parsed, b"Status: %d\n\n" % status).has_body is has_body


# -- header fields


@pytest.mark.parametrize(
    ("lines", "fields"),
    [
        pytest.param(
            [b"Set-Cookie: a=1", b"X: y", b"Set-Cookie: b=2", b"Set-Cookie: a=1"],
            [("Set-Cookie", "a=1"), ("X", "y"), ("Set-Cookie", "b=2"), ("Set-Cookie", "a=1")],
            id="repeated-in-order",
        ),
        pytest.param(
            [b"Content-Type: text/html", b"X: y", b"content-type: text/plain"],
            [("content-type", "text/plain"), ("X", "y")],
            id="last-content-type-counts",
        ),
        pytest.param(
            [b"Status: 201", b"Location: http://a/", b"Location: http://b/"],
            [("Location", "http://b/")],
            id="last-location-counts",
        ),
        pytest.param([b"X-Case: 1", b"x-case: 2"], [("X-Case", "1"), ("x-case", "2")], id="case-kept"),
        pytest.param([b"X:no space"], [("X", "no space")], id="no-space"),
        pytest.param([b"X: \t blanks \t "], [("X", "blanks")], id="blanks-around"),
        pytest.param([b"X:"], [("X", "")], id="empty-value"),
        pytest.param([b"X: a: b:c"], [("X", "a: b:c")], id="colons-in-value"),
        pytest.param([b"X: a\tb"], [("X", "a\tb")], id="tab-in-value"),
        pytest.param([b"X: caf\xe9 \xff"], [("X", "caf\xe9 \xff")], id="latin-1"),
        pytest.param([b"!#$%&'*+-.^_`|~09azAZ: x"], [("!#$%&'*+-.^_`|~09azAZ", "x")], id="every-token-character"),
        pytest.param([b"X: " + b"y" * 2000], [("X", "y" * 2000)], id="long"),
        pytest.param([b"Content-Type:", b"X: y"], [("X", "y")], id="empty-content-type"),
        pytest.param([b"ETag: x", b"Last-Modified: y"], [("ETag", "x"), ("Last-Modified", "y")], id="validators"),
        pytest.param(
            [b"WWW-Authenticate: Basic", b"Content-Encoding: gzip"],
            [("WWW-Authenticate", "Basic"), ("Content-Encoding", "gzip")],
            id="forwarded",
        ),
    ],
)
def test_header_fields_are_forwarded_as_they_are(feed: Feed, lines: list[bytes], fields: list[tuple[str, str]]) -> None:
    """Fields keep order, case and repetition; the CGI fields count once (RFC 3875 sections 6.3 and 6.3.4)."""
    assert feed(parsed, b"\n".join(lines) + b"\n\n").fields == tuple(fields)


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        pytest.param("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT", id="imf-fixdate"),
        pytest.param("Sunday, 06-Nov-94 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT", id="rfc-850"),
        pytest.param("Sun Nov  6 08:49:37 1994", "Sun, 06 Nov 1994 08:49:37 GMT", id="asctime"),
        pytest.param("Sun, 6 Nov 1994 08:49:37 +0000", "Sun, 06 Nov 1994 08:49:37 GMT", id="date-R"),
        pytest.param("Sun, 06 Nov 1994 09:49:37 +0100", "Sun, 06 Nov 1994 08:49:37 GMT", id="zone"),
        pytest.param("1994-11-06", "1994-11-06", id="no-date"),
        pytest.param("Sun, 06 Nov 99999 08:49:37 GMT", "Sun, 06 Nov 99999 08:49:37 GMT", id="no-year"),
    ],
)
def test_last_modified_goes_out_as_http_writes_dates(feed: Feed, printed: str, expected: str) -> None:
    """A sender writes dates in one format (RFC 9110 section 5.6.7); scripts use what their language has."""
    head = feed(parsed, f"Content-Type: text/plain\nLast-Modified: {printed}\n\n".encode())
    assert head.fields == (TEXT, ("Last-Modified", expected))


NOT_FORWARDED = [
    *("Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "TE", "Trailer"),
    *("Trailers", "Transfer-Encoding", "Upgrade", "Date", "Server", "X-CGI-", "X-CGI-Extension", "x-cgi-y"),
]


@pytest.mark.parametrize("change", [str, str.lower, str.upper], ids=["as-it-is", "lower", "upper"])
@pytest.mark.parametrize("name", NOT_FORWARDED)
def test_fields_that_are_the_servers_business_are_dropped(feed: Feed, name: str, change: Callable[[str], str]) -> None:
    """Hop-by-hop fields (RFC 9110 7.6.1), Date and Server, which the server writes, and X-CGI-* (RFC 3875 6.3.5)."""
    output = f"{change(name)}: x\nContent-Type: text/plain\n\n".encode()
    expect(feed(parsed, output), fields=(TEXT,))


def test_wsgi_accepts_the_fields() -> None:
    """Names and values are native strings without control characters, and no hop-by-hop field (PEP 3333)."""
    head = whole(parsed, b"Connection: close\nX: caf\xe9\nContent-Type: text/plain\n\n")
    assert [(type(name), type(value)) for name, value in head.fields] == [(str, str), (str, str)]
    assert head.fields[1][1].encode("latin-1") == b"caf\xe9"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([b"Content-Length: 5"], 5, id="usual"),
        pytest.param([b"content-length:0"], 0, id="zero"),
        pytest.param([b"Content-Length: 007"], 7, id="leading-zeros"),
        pytest.param([b"Content-Length:  5  "], 5, id="blanks"),
        pytest.param([b"Content-Length: 9999999999999999999"], 9999999999999999999, id="large"),
        pytest.param([], None, id="none"),
        pytest.param([b"Content-Length:"], None, id="empty"),
        pytest.param([b"Content-Length: 5", b"Content-Length: 5"], None, id="repeated"),
        pytest.param([b"Content-Length: 5", b"Content-Length: 6"], None, id="contradicting"),
        pytest.param([b"Content-Length: 5, 5"], None, id="list"),
        pytest.param([b"Content-Length: -5"], None, id="negative"),
        pytest.param([b"Content-Length: +5"], None, id="plus"),
        pytest.param([b"Content-Length: 5.0"], None, id="fraction"),
        pytest.param([b"Content-Length: 0x5"], None, id="hexadecimal"),
        pytest.param([b"Content-Length: 5_0"], None, id="underscore"),
        pytest.param([b"Content-Length: 5 bytes"], None, id="unit"),
        pytest.param([b"Content-Length: \xb2"], None, id="superscript"),
        pytest.param([b"Content-Length: " + b"9" * 2000], None, id="endless"),
    ],
)
def test_content_length_counts_when_it_is_one_number(feed: Feed, lines: list[bytes], expected: int | None) -> None:
    """Content-Length is one number of digits (RFC 9110 section 8.6); another is dropped, not forwarded."""
    head = feed(parsed, b"\n".join([b"Content-Type: text/plain", *lines]) + b"\n\n")
    expect(head, fields=(TEXT,), content_length=expected)


# -- what is no head


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"Traceback (most recent call last)", id="no-colon"),
        pytest.param(b"Hello, world: this is no field", id="blank-in-name"),
        pytest.param(b"X : y", id="blank-before-colon"),
        pytest.param(b"X\t: y", id="tab-before-colon"),
        pytest.param(b": y", id="no-name"),
        pytest.param(b" X: y", id="blank-first"),
        pytest.param(b" folded", id="folding"),
        pytest.param(b"\tfolded: by a tab", id="folding-by-tab"),
        pytest.param(b"X(y): z", id="delimiters-in-name"),
        pytest.param(b'"X": z', id="quotes-in-name"),
        pytest.param(b"X/Y: z", id="slash-in-name"),
        pytest.param(b"\xe9: z", id="latin-1-name"),
        pytest.param(b"X\0: z", id="nul-in-name"),
        pytest.param(b"\xef\xbb\xbfX: z", id="byte-order-mark"),
        pytest.param(b"<html>", id="html"),
        pytest.param(b"\r\r", id="crs-alone"),
        pytest.param(b"X: a\0b", id="nul-in-value"),
        pytest.param(b"X: a\rSet-Cookie: b=c", id="cr-in-value"),
        pytest.param(b"X: a\r\r", id="crs-at-the-end"),
        pytest.param(b"X: a\x1b[2J", id="escape-in-value"),
        pytest.param(b"X: a\x7f", id="delete-in-value"),
        pytest.param(b"X: a\x0b", id="vertical-tab-in-value"),
        pytest.param(b"X: a\x0c", id="form-feed-in-value"),
        pytest.param(b"X: a\x08", id="backspace-in-value"),
        pytest.param(b"Content-Type: a\0b", id="nul-in-content-type"),
        pytest.param(b"Location: http://a/\rb", id="cr-in-location"),
        pytest.param(b"Connection: \0", id="nul-in-a-field-that-is-dropped"),
        pytest.param(b"Status: 200\0", id="nul-in-status"),
    ],
)
@pytest.mark.parametrize("place", ["first", "later"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_a_line_that_is_no_header_field_is_bad_output(feed: Feed, line: bytes, place: str, end: bytes) -> None:
    """Each line of a head is a field of RFC 9110 section 5, without folding: no response splitting (CWE-113)."""
    lines = [line] if place == "first" else [b"Content-Type: text/plain", line]
    with pytest.raises(BadScriptOutput) as raised:
        feed(parsed, end.join([*lines, b"X-Last: z", b"", b""]))
    assert f"output line {len(lines)} " in str(raised.value)


@pytest.mark.parametrize("output", [b"\n", b"\r\n", b"\nContent-Type: text/plain\n\n", b"\r\nX: y\r\n\r\n"])
def test_an_empty_first_line_is_bad_output(output: bytes) -> None:
    """A response has at least one header field (RFC 3875 section 6.2)."""
    with pytest.raises(BadScriptOutput) as raised:
        parsed().feed(output)
    assert str(raised.value) == (
        "the output begins with an empty line. A script prints header fields, an empty line, then the body"
        " (RFC 3875 6.2)"
    )


def test_the_message_about_a_traceback_says_what_to_print(feed: Feed) -> None:
    """A message has the line, cut to a sane length, and says what was expected."""
    with pytest.raises(BadScriptOutput) as raised:
        feed(parsed, b"Traceback (most recent call last):\n  File x\n\n")
    assert str(raised.value) == (
        "output line 1 is not a header field: b'Traceback (most recent call last):'. A script prints header fields,"
        " an empty line, then the body (RFC 3875 6.2)."
    )


def test_a_long_bad_line_is_cut_in_the_message(feed: Feed) -> None:
    """A message shows at most 80 bytes of what was found."""
    with pytest.raises(BadScriptOutput) as raised:
        feed(parsed, b"x" * 1000 + b"\n\n")
    assert repr(b"x" * 80) in str(raised.value)
    assert "x" * 81 not in str(raised.value)


def test_a_script_that_writes_http_itself_is_told_of_nph(feed: Feed) -> None:
    """A status line in a parsed header is refused, with the hint how such a script is named (RFC 3875 section 5)."""
    with pytest.raises(BadScriptOutput) as raised:
        feed(parsed, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    assert str(raised.value).endswith(" A script that writes HTTP itself has a name that begins with nph-.")


def test_the_hint_about_nph_is_for_the_first_line_only(feed: Feed) -> None:
    """A later line with HTTP/ is not what an NPH script writes."""
    with pytest.raises(BadScriptOutput) as raised:
        feed(parsed, b"X: y\nHTTP/1.1 200 OK\n\n")
    assert "nph-" not in str(raised.value)


# -- how long a head may be


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("nph", [False, True], ids=["parsed", "nph"])
def test_a_head_may_have_all_the_bytes_that_are_allowed(feed: Feed, end: bytes, nph: bool) -> None:
    """The limit counts the head with its empty line, however it arrives."""
    begin = b"HTTP/1.0 200 OK\nX: " if nph else b"X: "
    output = begin + b"y" * (200 - len(begin) - len(end)) + end
    assert len(output) == 200
    assert len(feed(lambda: HeadParser(max_bytes=200, nph=nph), output).fields) == 1
    with pytest.raises(BadScriptOutput) as raised:
        feed(lambda: HeadParser(max_bytes=199, nph=nph), output)
    assert str(raised.value) == "the header is longer than 199 bytes (max_header_bytes)."


@pytest.mark.parametrize("size", [1, 7, 200])
def test_a_head_without_an_end_is_refused_once_it_is_too_long(size: int) -> None:
    """What a script may put into the server's memory before its head is complete is bounded (CWE-770)."""
    parser = parsed(max_bytes=100)
    taken = 0
    with pytest.raises(BadScriptOutput):
        while taken < 1000:
            assert parser.feed(b"x" * size) is None
            taken += size
    assert taken <= 100


def test_a_long_body_does_not_count_as_head() -> None:
    """The limit is for the head: the body that arrives with it may be of any size."""
    found = parsed(max_bytes=10).feed(b"X: y\n\n" + b"z" * 100_000)
    assert found is not None
    assert len(found[1]) == 100_000


def test_what_was_received_of_an_incomplete_head_can_be_told() -> None:
    """A message about a script that stopped in its head shows what came."""
    parser = parsed()
    assert parser.received == b""
    parser.feed(b"Content-Type: te")
    parser.feed(b"xt/plain\n")
    assert parser.received == b"Content-Type: text/plain\n"


def test_many_small_pieces_take_no_more_time_than_they_must() -> None:
    """A head of many pieces is searched once, not anew for each piece (CWE-407): this ends at once."""
    parser = parsed(max_bytes=2_000_000)
    line = b"X-" + b"a" * 60 + b": b\n"
    for _ in range(20_000):
        assert parser.feed(line) is None
    found = parser.feed(b"\n")
    assert found is not None
    assert len(found[0].fields) == 20_000


# -- NPH


@pytest.mark.parametrize(
    ("output", "parts"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n", {"fields": (TEXT,)}, id="usual"),
        pytest.param(b"HTTP/1.0 200 OK\nContent-Type: text/plain\n\n", {"fields": (TEXT,)}, id="lf"),
        pytest.param(b"HTTP/1.0 200 OK\n\n", {}, id="no-fields"),
        pytest.param(b"HTTP/1.0 404\n\n", {"status": 404, "reason": "Not Found"}, id="no-reason"),
        pytest.param(b"HTTP/1.0 404 \n\n", {"status": 404, "reason": "Not Found"}, id="empty-reason"),
        pytest.param(b"HTTP/1.1 404 Gone  Fishing\n\n", {"status": 404, "reason": "Gone  Fishing"}, id="own-reason"),
        pytest.param(b"HTTP/1.1 299 \xe9\n\n", {"status": 299, "reason": "\xe9"}, id="latin-1-reason"),
        pytest.param(
            b"HTTP/1.1 200 OK\nStatus: 404 Not Found\nContent-Type: text/plain\n\n",
            {"fields": (TEXT,)},
            id="status-field-does-not-count",
        ),
        pytest.param(
            b"HTTP/1.1 302 Found\nLocation: /x\n\n",
            {
                "kind": Kind.CLIENT_REDIRECT_WITH_DOCUMENT,
                "status": 302,
                "reason": "Found",
                "fields": (("Location", "/x"),),
            },
            id="location-is-the-clients",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\nConnection: close\nDate: x\nContent-Length: 3\n\n",
            {"content_length": 3},
            id="framing-is-the-servers",
        ),
        pytest.param(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n",
            {"fields": (TEXT,)},
            id="interim-100",
        ),
        pytest.param(
            b"HTTP/1.1 103 Early Hints\nLink: </x>\n\nHTTP/1.1 102 P\n\nHTTP/1.1 201 Created\n\n",
            {"status": 201, "reason": "Created"},
            id="two-interim-heads",
        ),
    ],
)
def test_an_nph_script_writes_a_whole_response(feed: Feed, output: bytes, parts: dict[str, Any]) -> None:
    """The status line is read, interim heads are skipped, the rest is an ordinary head (RFC 3875 section 5)."""
    expect(feed(non_parsed, output), **parts)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"Content-Type: text/plain", id="a-field"),
        pytest.param(b"Status: 200 OK", id="status-field"),
        pytest.param(b"200 OK", id="no-version"),
        pytest.param(b"HTTP/1.1", id="no-code"),
        pytest.param(b"HTTP/1.1 ", id="empty-code"),
        pytest.param(b"HTTP/1.1  200 OK", id="two-spaces"),
        pytest.param(b"HTTP/1.1 20 OK", id="two-digits"),
        pytest.param(b"HTTP/1.1 2000 OK", id="four-digits"),
        pytest.param(b"HTTP/1.1 200OK", id="no-space"),
        pytest.param(b"HTTP/1.1 099 X", id="below-100"),
        pytest.param(b"HTTP/x.y 200 OK", id="bad-version"),
        pytest.param(b"HTTP/11.1 200 OK", id="long-version"),
        pytest.param(b"http/1.1 200 OK", id="lower-case"),
        pytest.param(b" HTTP/1.1 200 OK", id="blank-first"),
        pytest.param(b"HTTP/1.1 200 O\0K", id="nul"),
        pytest.param(b"HTTP/1.1 200 O\rX: y", id="cr"),
        pytest.param(b"HTTP/1.1 200 \x1b[2J", id="escape"),
        pytest.param(b"ICY 200 OK", id="another-protocol"),
    ],
)
def test_a_bad_status_line_of_an_nph_script_is_bad_output(feed: Feed, line: bytes) -> None:
    """An NPH script begins with a status line (RFC 9112 section 4); the message says so and shows what it wrote."""
    with pytest.raises(BadScriptOutput) as raised:
        feed(non_parsed, line + b"\nContent-Type: text/plain\n\n")
    assert str(raised.value) == (
        f"output line 1 is not an HTTP status line: {line!r}. The name of the script begins with nph-, so it must write"
        " a whole HTTP response (RFC 3875 5)"
    )


@pytest.mark.parametrize("output", [b"\n", b"\r\n", b"\nHTTP/1.1 200 OK\n\n"])
def test_an_nph_script_does_not_begin_with_an_empty_line(output: bytes) -> None:
    """The first line of an NPH script's output is its status line (RFC 3875 section 5)."""
    with pytest.raises(BadScriptOutput):
        non_parsed().feed(output)


def test_an_nph_script_that_frames_its_body_is_bad_output(feed: Feed) -> None:
    """Chunks of its own would be sent in chunks once more; it is told so."""
    with pytest.raises(BadScriptOutput, match="must leave Transfer-Encoding to the server"):
        feed(non_parsed, b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n0\r\n\r\n")


def test_lines_of_an_nph_script_are_numbered_with_the_status_line(feed: Feed) -> None:
    """A message names the line as an editor would."""
    with pytest.raises(BadScriptOutput) as raised:
        feed(non_parsed, b"HTTP/1.1 200 OK\nX: y\nbad\n\n")
    assert str(raised.value).startswith("output line 3 is not a header field: b'bad'.")


def test_a_bad_head_after_an_interim_one_is_bad_output(feed: Feed) -> None:
    """What follows an interim head is a head of its own (RFC 9110 section 15.2)."""
    with pytest.raises(BadScriptOutput):
        feed(non_parsed, b"HTTP/1.1 100 Continue\n\nContent-Type: text/plain\n\n")


def test_an_interim_head_alone_is_no_head() -> None:
    """After a 1xx the parser waits for the head that counts (RFC 9110 section 15.2)."""
    parser = non_parsed()
    assert parser.feed(b"HTTP/1.1 100 Continue\r\n\r\n") is None
    assert parser.received == b""
