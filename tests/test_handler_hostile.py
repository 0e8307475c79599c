"""Hostile requests to ``CGIHTTPRequestHandler``: each gets an answer, and none gets what it is after."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from handlers import Answer, Client, handler_on, handling, read_all

SCRIPT = f"""#!{sys.executable}
# SOURCE of a script
import os, sys
body = sys.stdin.buffer.read()
print("Content-Type: text/plain")
print()
print("RAN", os.environ["SCRIPT_NAME"], os.environ["PATH_INFO"], len(body), "HTTP_PROXY" in os.environ)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site, and what must not be reached beside it."""
    place = tmp_path_factory.mktemp("hostile")
    root = place / "site"
    for name in ("cgi-bin/sub/deep", "dir/inner", "cgi-bin2", "cgi-bin/%2e%2e"):
        (root / name).mkdir(parents=True)
    for name in ("cgi-bin/x.py", "cgi-bin/sub/y.py", "cgi-bin/nph-raw.py"):
        (root / name).write_text(SCRIPT)
        (root / name).chmod(0o755)
    (root / "cgi-bin/noexec.py").write_text(SCRIPT)
    (root / "cgi-bin/data.txt").write_text("SOURCE of data")
    (root / "cgi-bin2/plain.txt").write_text("plain two")
    (root / "file.txt").write_text("plain")
    (root / "dir/a.txt").write_text("plain a")
    (place / "outside.py").write_text(SCRIPT.replace("RAN", "OUTSIDE").replace("SOURCE", "OUTSIDE"))
    (place / "outside.py").chmod(0o755)
    (place / "outside.txt").write_text("OUTSIDE")
    (root / "alias").symlink_to("cgi-bin")
    (root / "alias.py").symlink_to("cgi-bin/x.py")
    return root


@pytest.fixture(scope="module", params=["HTTP/1.0", "HTTP/1.1"])
def client(request: pytest.FixtureRequest, root: Path) -> Iterator[Client]:
    """A server of each protocol version."""
    with handling(handler_on(root, protocol_version=request.param)) as client:
        yield client


def judge(answer: Answer, root: Path) -> None:
    """What holds whatever was asked."""
    assert answer.raw, "no answer"
    assert b"SOURCE" not in answer.raw
    assert b"OUTSIDE" not in answer.raw
    for location in answer.fields("Location"):
        assert not location.startswith(("//", "/\\", "\\")), location
        assert ":" not in location.partition("/")[0] or location.startswith("http://localhost/"), location
    assert len(answer.fields("Content-Length")) <= 1
    assert not answer.fields("X-Injected")


OK, REDIRECT, BAD, FORBIDDEN, MISSING = 200, 301, 400, 403, 404

TARGETS: list[tuple[str, int]] = [
    # dots and percent signs
    ("/cgi-bin/%252e%252e/outside.py", MISSING),
    ("/cgi-bin/%252e%252e/%252e%252e/outside.py", MISSING),
    ("/cgi-bin/%25252e%25252e/outside.py", MISSING),
    ("/cgi-bin/%2e%2e/%2e%2e/outside.py", MISSING),
    ("/cgi-bin/%2e%2e/outside.txt", MISSING),
    ("/cgi-bin/../../outside.py", MISSING),
    ("/cgi-bin/..%2f..%2foutside.py", MISSING),
    ("/cgi-bin/..%252f..%252foutside.py", MISSING),
    ("/cgi-bin/.%2e/.%2e/outside.py", MISSING),
    ("/../outside.txt", MISSING),
    ("/..", MISSING),
    ("/../", MISSING),
    ("/%2e%2e", MISSING),
    ("/%2e%2e/outside.txt", MISSING),
    ("/%2e%2e%2foutside.txt", MISSING),
    ("/dir/../../outside.txt", MISSING),
    ("/./../outside.txt", MISSING),
    ("/..;/outside.txt", MISSING),
    ("/...//outside.txt", MISSING),
    ("/%c0%ae%c0%ae/outside.txt", MISSING),
    ("/%uff0e%uff0e/outside.txt", MISSING),
    ("/..%5coutside.txt", MISSING),
    ("/..\\outside.txt", MISSING),
    ("/cgi-bin/..%5c..%5coutside.py", MISSING),
    ("/cgi-bin/x.py/../../../outside.py", MISSING),
    ("/cgi-bin/x.py/..%2f..%2f..%2foutside.py", MISSING),
    ("/cgi-bin/x.py/../../file.txt", OK),
    ("/cgi-bin/./x.py", OK),
    ("/cgi-bin/%2e/x.py", OK),
    ("/dir/../cgi-bin/x.py", OK),
    ("/dir/%2e%2e/cgi-bin/x.py", OK),
    ("/dir/..%2fcgi-bin/x.py", OK),
    # slashes
    ("//cgi-bin/x.py", OK),
    ("///cgi-bin///x.py", OK),
    ("/cgi-bin//x.py", OK),
    ("/cgi-bin%2fx.py", OK),
    ("/%2fcgi-bin/x.py", OK),
    ("/cgi-bin%2f%2fx.py", OK),
    ("/cgi-bin%5cx.py", MISSING),
    ("/cgi-bin\\x.py", MISSING),
    ("/cgi-bin/x.py/", OK),
    ("/cgi-bin/x.py//extra", OK),
    ("/cgi-bin/x.py%2f", OK),
    ("/./cgi-bin/x.py", OK),
    ("/.//cgi-bin/x.py", OK),
    ("cgi-bin/x.py", OK),
    ("./cgi-bin/x.py", OK),
    # other spellings of names
    ("/%63gi-bin/x.py", OK),
    ("/cgi-bin/%78.py", OK),
    ("/cgi-bin/x%2epy", OK),
    ("/cgi%2Dbin/x.py", OK),
    ("/cgi%252dbin/x.py", MISSING),
    ("/CGI-BIN/x.py", MISSING),
    ("/cgi-bin/X.PY", MISSING),
    ("/cgi-bin/x.py%20", MISSING),
    ("/cgi-bin/x.py.", MISSING),
    ("/cgi-bin/x.py::$DATA", MISSING),
    ("/cgi-bin/x.py;a", MISSING),
    ("/cgi-bin;a/x.py", MISSING),
    ("/cgi-bin/x.py%3f", MISSING),
    ("/cgi-bin/x.py%3fa=b", MISSING),
    ("/cgi-bin/x.py%23", MISSING),
    ("/cgi-bin/x.py%2500", MISSING),
    ("/cgi-bin/x.py%00", MISSING),
    ("/cgi-bin/x.py%00.txt", MISSING),
    ("/cgi-bin/x.py/%00", MISSING),
    ("/cgi-bin/%00", MISSING),
    ("/%00", MISSING),
    ("/file.txt%00", MISSING),
    ("/cgi-bin%00/x.py", MISSING),
    ("/cgi-bin/%ff", MISSING),
    ("/cgi-bin/%E2%82%AC", MISSING),
    ("/%E2%82%AC", MISSING),
    ("/%ff", MISSING),
    ("/?%ED%A0%80", OK),
    ("/dir/?%ED%A0%80=%ff", OK),
    ("/cgi-bin/%ED%A0%80", MISSING),
    ("/cgi-bin/%0d%0aX-Injected:%201", MISSING),
    ("/%0d%0aX-Injected:%201", MISSING),
    ("/cgi-bin/x.py/%0d%0aX-Injected:%201", OK),
    ("/cgi-bin/x.py?%0d%0aX-Injected:%201", OK),
    ("/cgi-bin/x.py%", MISSING),
    ("/cgi-bin/x.py%zz", MISSING),
    ("/%", MISSING),
    # fragments
    ("/cgi-bin/x.py#/../..", OK),
    ("/cgi-bin/x.py#", OK),
    ("/#/cgi-bin/x.py", OK),
    ("/cgi-bin/#x.py", FORBIDDEN),
    ("/cgi-bin#/x.py", REDIRECT),
    ("/dir#//host", REDIRECT),
    ("#", OK),
    # redirects
    ("/dir", REDIRECT),
    ("//localhost/../dir", REDIRECT),
    ("//evil.example/../dir", REDIRECT),
    ("/\\evil.example/../dir", REDIRECT),
    ("\\\\evil.example/../dir", REDIRECT),
    ("\\evil.example/../dir", REDIRECT),
    ("/%5cevil.example/../dir", REDIRECT),
    ("///evil.example/%2e%2e/dir", REDIRECT),
    ("/.//evil.example/../dir", REDIRECT),
    ("https:evil.example/../dir", REDIRECT),
    ("javascript:alert(1)/../dir", REDIRECT),
    ("/dir?//evil.example/", REDIRECT),
    ("/dir%2f", REDIRECT),
    ("/cgi-bin", REDIRECT),
    ("/cgi-bin?x", REDIRECT),
    # what is no script
    ("/cgi-bin/", FORBIDDEN),
    ("/cgi-bin/.", FORBIDDEN),
    ("/cgi-bin//", FORBIDDEN),
    ("/cgi-bin%2f", FORBIDDEN),
    ("/cgi-bin/sub", FORBIDDEN),
    ("/cgi-bin/sub/", FORBIDDEN),
    ("/cgi-bin/sub/deep/", FORBIDDEN),
    ("/cgi-bin/noexec.py", FORBIDDEN),
    ("/cgi-bin/data.txt", FORBIDDEN),
    ("/cgi-bin/data.txt/", FORBIDDEN),
    ("/cgi-bin/none.py", MISSING),
    ("/cgi-bin/none/x.py", MISSING),
    ("/alias", REDIRECT),
    ("/alias/", FORBIDDEN),
    ("/alias/x.py", FORBIDDEN),
    ("/alias/data.txt", FORBIDDEN),
    ("/alias.py", FORBIDDEN),
    ("/dir/../alias/sub/y.py", FORBIDDEN),
    ("/cgi-bin2/plain.txt", OK),
    ("/file.txt/", MISSING),
    ("/file.txt%2f", MISSING),
    ("/file.txt/.", MISSING),
    ("/file.txt/x/..", MISSING),
    ("/file.txt%2f.", MISSING),
    # targets of other forms
    ("http://localhost/cgi-bin/x.py", OK),
    ("http://localhost/dir", REDIRECT),
    ("http://localhost", OK),
    ("http://localhost//cgi-bin/x.py", OK),
    ("http://user@localhost/file.txt", OK),
    ("http://[/cgi-bin/x.py", OK),
    ("http://[::1", OK),
    ("file:///etc/passwd", MISSING),
    ("*", MISSING),
    ("?", OK),
    ("localhost:80", MISSING),
    ("/" + "a" * 300, MISSING),
    ("/cgi-bin/" + "a" * 5000, MISSING),
    ("/cgi-bin/" + "%E2%82%AC" * 5000, MISSING),
    ("/" + "../" * 2000, MISSING),
    ("/" + "a/" * 3000, MISSING),
    ("/cgi-bin/x.py/" + "/" * 5000, OK),
    ("/cgi-bin/x.py?" + "a+" * 20000, OK),
    ("/<script>alert(1)</script>", MISSING),
    ("/cgi-bin/<script>", MISSING),
    ("/?<script>alert(1)</script>", OK),
]


@pytest.mark.parametrize(("target", "status"), TARGETS, ids=[target[:60] for target, _ in TARGETS])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_hostile_target_gets_an_answer_and_nothing_else(
    client: Client, root: Path, method: str, target: str, status: int
) -> None:
    """No source, nothing outside the directory, no other host, and always an answer, in one try."""
    answer = client.request(method, target)
    judge(answer, root)
    assert answer.status == status, answer.raw[:300]
    assert b"<script>" not in answer.body
    assert method == "GET" or not answer.body
    assert client.errors == []


def post(*lines: bytes, body: bytes = b"hello", target: bytes = b"/cgi-bin/x.py", version: bytes = b"1.1") -> bytes:
    return b"\r\n".join([b"POST " + target + b" HTTP/" + version, b"Host: h", *lines, b"", body])


def get(*lines: bytes, target: bytes = b"/file.txt", version: bytes = b"1.1") -> bytes:
    return b"\r\n".join([b"GET " + target + b" HTTP/" + version, b"Connection: close", *lines, b"", b""])


SMUGGLED = b"GET /cgi-bin/x.py/smuggled HTTP/1.1\r\nHost: h\r\n\r\n"

REQUESTS: list[tuple[str, bytes, set[int]]] = [
    # lengths
    ("two-lengths", post(b"Content-Length: 5", b"Content-Length: 6"), {400}),
    ("two-equal-lengths", post(b"Content-Length: 5", b"Content-Length: 5"), {400}),
    ("lengths-with-comma", post(b"Content-Length: 5, 6"), {400}),
    ("negative-length", post(b"Content-Length: -5"), {400}),
    ("signed-length", post(b"Content-Length: +5"), {400}),
    ("hex-length", post(b"Content-Length: 0x5"), {400}),
    ("word-for-length", post(b"Content-Length: five"), {400}),
    ("empty-length", post(b"Content-Length: "), {400}),
    ("float-length", post(b"Content-Length: 5.0"), {400}),
    ("underscore-length", post(b"Content-Length: 1_0"), {400}),
    ("other-digits", post("Content-Length: \u0665".encode()), {400}),
    ("superscript", post(b"Content-Length: \xb2"), {400}),
    ("huge-length", post(b"Content-Length: 100000000000000"), {413}),
    ("length-of-5000-digits", post(b"Content-Length: " + b"9" * 5000), {413}),
    ("length-with-cr", post(b"Content-Length: 5\rX: y"), {400}),
    ("blank-before-colon", post(b"Content-Length : 5"), {400}),
    ("folded-length", post(b"Content-Length:", b" 5"), {400}),
    ("length-on-get", get(b"Content-Length: nonsense"), {400}),
    ("null-in-length", post(b"Content-Length: 5\0"), {400}),
    # codings
    ("coding-and-length", post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"), {400}),
    ("coding-in-1.0", post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n", version=b"1.0"), {400}),
    ("unknown-coding", post(b"Transfer-Encoding: gzip"), {501}),
    ("chunked-twice", post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"), {501}),
    ("coding-twice", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"), {501}),
    ("obscured-coding", post(b"Transfer-Encoding: xchunked"), {501}),
    ("vertical-tab-coding", post(b"Transfer-Encoding: \x0bchunked"), {400}),
    ("blank-before-colon-of-coding", post(b"Transfer-Encoding : chunked"), {400}),
    ("chunk-size-none", post(b"Transfer-Encoding: chunked", body=b"zz\r\nhello\r\n0\r\n\r\n"), {400}),
    ("chunk-size-signed", post(b"Transfer-Encoding: chunked", body=b"-5\r\nhello\r\n0\r\n\r\n"), {400}),
    ("chunk-size-0x", post(b"Transfer-Encoding: chunked", body=b"0x5\r\nhello\r\n0\r\n\r\n"), {400}),
    ("chunk-size-huge", post(b"Transfer-Encoding: chunked", body=b"f" * 40 + b"\r\nhello\r\n0\r\n\r\n"), {400}),
    ("chunk-line-endless", post(b"Transfer-Encoding: chunked", body=b"5;" + b"a" * 70000), {400}),
    ("chunk-too-long", post(b"Transfer-Encoding: chunked", body=b"3\r\nhello\r\n0\r\n\r\n"), {400}),
    ("chunk-with-lf", post(b"Transfer-Encoding: chunked", body=b"5\nhello\n0\n\n"), {400}),
    ("bad-trailer", post(b"Transfer-Encoding: chunked", body=b"0\r\nbad trailer\r\n\r\n"), {400}),
    ("endless-trailers", post(b"Transfer-Encoding: chunked", body=b"0\r\n" + b"a: b\r\n" * 1000 + b"\r\n"), {400}),
    ("good-chunks", post(b"Transfer-Encoding: chunked", b"Connection: close", body=b"5\r\nhello\r\n0\r\n\r\n"), {200}),
    # fields
    ("no-colon", get(b"nonsense"), {400}),
    ("no-name", get(b": x"), {400}),
    ("blank-first", get(b" X: y"), {400}),
    ("folded-field", get(b"X: y", b"\tz"), {400}),
    ("cr-in-field", get(b"X: y\rX-Injected: 1"), {400}),
    ("null-in-field", get(b"X: y\0z"), {400}),
    ("null-in-name", get(b"X\0: y"), {400}),
    ("control-in-field", get(b"X: \x1b[2J"), {400}),
    ("two-hosts", get(b"Host: a", b"Host: b"), {400}),
    ("bad-host", get(b"Host: a/b"), {400}),
    ("host-with-markup", get(b"Host: <script>"), {400}),
    ("empty-host", get(b"Host: "), {200}),
    ("no-host", get(), {200}),
    ("proxy", get(b"Proxy: http://evil/", target=b"/cgi-bin/x.py"), {200}),
    ("field-with-8-bits", get("X: \u20ac".encode(), target=b"/cgi-bin/x.py"), {200}),
    ("101-fields", get(*[b"X: y"] * 101), {431}),
    ("line-of-65-kib", get(b"X: " + b"y" * 66000), {431}),
    ("90-lines-of-60-kib", get(*[b"X: " + b"y" * 60000] * 90, target=b"/cgi-bin/x.py"), {431}),
    ("bad-date", get(b"If-Modified-Since: Thu, 99 Foo 99999999999 99:99:99 GMT"), {200}),
    ("bad-date-2", get(b"If-Modified-Since: \xff\xfe"), {200}),
    ("bad-authorization", get(b"Authorization: Basic !!!", target=b"/cgi-bin/x.py"), {200}),
    ("bad-range", get(b"Range: bytes=99999999999999999999-"), {200, 416}),
    ("expect-nonsense", get(b"Expect: nonsense"), {200, 417}),
    # request lines
    ("no-version", b"GET /file.txt\r\n\r\n", {0}),
    ("no-version-script", b"GET /cgi-bin/x.py\r\n", {0}),
    ("only-a-word", b"GET\r\n\r\n", {0, 400}),
    ("four-words", b"GET / x HTTP/1.1\r\n\r\n", {0, 400}),
    ("blanks", b"   \r\n\r\n", {0, 400}),
    ("empty-lines-first", b"\r\n\r\n" + get(), {200}),
    ("bad-version", b"GET / HTTQ/1.1\r\n\r\n", {0, 400}),
    ("version-2", b"GET / HTTP/2.0\r\n\r\n", {0, 505}),
    ("version-9.9", b"GET / HTTP/9.9\r\n\r\n", {0, 505}),
    ("version-with-letters", b"GET / HTTP/1.x\r\n\r\n", {0, 400}),
    ("version-too-long", b"GET / HTTP/1." + b"1" * 50 + b"\r\n\r\n", {0, 400}),
    ("version-superscript", b"GET / HTTP/1.\xb9\r\n\r\n", {0, 400}),
    ("preface-of-h2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {0, 505}),
    ("tls-to-plain", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 \r\n\r\n", {0, 400}),
    ("null-in-target", b"GET /file.txt\0 HTTP/1.1\r\n\r\n", {400}),
    ("control-in-target", b"GET /\x1b[2J HTTP/1.1\r\n\r\n", {400}),
    ("cr-in-line", b"GET /file.txt\rX HTTP/1.1\r\n\r\n", {0, 400}),
    ("vertical-tabs", b"GET\x0b/file.txt\x0bHTTP/1.1\r\n\r\n", {400}),
    ("unknown-method", b"BREW / HTTP/1.1\r\n\r\n", {501}),
    ("method-in-lower-case", b"get / HTTP/1.1\r\n\r\n", {501}),
    ("method-of-python", b"__class__ / HTTP/1.1\r\n\r\n", {501}),
    ("method-with-markup", b"<script> / HTTP/1.1\r\n\r\n", {501}),
    ("trace", b"TRACE /cgi-bin/x.py HTTP/1.1\r\n\r\n", {501}),
    ("connect", b"CONNECT localhost:22 HTTP/1.1\r\n\r\n", {501}),
    ("options", b"OPTIONS * HTTP/1.1\r\n\r\n", {501}),
    ("line-of-70-kib", b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n", {0, 414}),
    ("8-bit-target", b"GET /\xff\xfe HTTP/1.1\r\n\r\n", {404}),
    ("8-bit-script", b"GET /cgi-bin/\xe9 HTTP/1.1\r\n\r\n", {404}),
    ("lf-only", b"GET /file.txt HTTP/1.0\nHost: h\n\n", {200}),
    # posts where none is taken
    ("post-to-file", post(b"Content-Length: 5", target=b"/file.txt"), {501}),
    ("post-to-nothing", post(b"Content-Length: 5", target=b"/none"), {501}),
    ("post-to-parent", post(b"Content-Length: 5", target=b"/.."), {404}),
    ("post-to-null", post(b"Content-Length: 5", target=b"/%00"), {404}),
    ("post-to-listing", post(b"Content-Length: 5", target=b"/cgi-bin/"), {403}),
    ("post-double-dots", post(b"Content-Length: 5", target=b"/cgi-bin/%252e%252e/outside.py"), {404}),
    ("body-with-request", post(b"Content-Length: 5", target=b"/file.txt", body=b"hello" + SMUGGLED), {501}),
]


@pytest.mark.parametrize(("data", "statuses"), [row[1:] for row in REQUESTS], ids=[row[0] for row in REQUESTS])
def test_a_hostile_request_gets_an_answer_and_nothing_else(
    client: Client, root: Path, data: bytes, statuses: set[int]
) -> None:
    """As above, for whole requests: what RFC 9112 refuses is refused, and no body becomes a request."""
    answer = client.send(data)
    judge(answer, root)
    assert answer.status in statuses, answer.raw[:300]
    assert b"smuggled" not in answer.raw
    assert b"<script>" not in answer.body
    assert b" True\n" not in answer.body  # HTTP_PROXY
    assert client.errors == []


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET /cgi-bin/x.py HT", id="half-a-line"),
        pytest.param(b"GET /cgi-bin/x.py HTTP/1.1\r\nHo", id="half-a-head"),
        pytest.param(b"POST /cgi-bin/x.py HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf", id="half-a-body"),
        pytest.param(b"POST /cgi-bin/x.py HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", id="half-a-chunk"),
        pytest.param(b"GET /cgi-bin/x.py HTTP/1.1\r\n\r\n", id="before-the-answer"),
    ],
)
def test_a_client_that_leaves_does_no_harm(client: Client, data: bytes) -> None:
    """Whenever it leaves, no traceback is written and the next is served."""
    with client.connect() as sock:
        sock.sendall(data)
    assert client.get("/cgi-bin/x.py").body.startswith(b"RAN") or client.get("/cgi-bin/x.py").status == 200
    assert client.errors == []


@pytest.mark.parametrize("data", [b"Content-Length: 100\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel"])
def test_a_body_that_ends_early_is_refused(client: Client, data: bytes) -> None:
    """A script gets the whole body or does not run."""
    with client.connect() as sock:
        sock.sendall(b"POST /cgi-bin/x.py HTTP/1.1\r\n" + data)
        sock.shutdown(socket.SHUT_WR)
        assert Answer(read_all(sock)).status == 400


def test_a_large_body_to_a_file_still_lets_its_client_see_the_answer(client: Client) -> None:
    """A connection that is closed with unread bytes is reset, and the answer lost with it."""
    answer = client.post("/file.txt", b"x" * 3_000_000)
    assert (answer.status, answer.reason) == (501, "Can only POST to CGI scripts")


@pytest.mark.parametrize("target", ["/file.txt", "/cgi-bin/x.py", "/dir"])
def test_the_body_of_a_get_is_not_the_next_request(root: Path, target: str) -> None:
    """On a connection that stays open, the body is taken before the next request is read."""
    with handling(handler_on(root, protocol_version="HTTP/1.1")) as client, client.connect() as sock:
        length = f"Content-Length: {len(SMUGGLED)}"
        first = f"GET {target} HTTP/1.1\r\nHost: h\r\n{length}\r\n\r\n".encode() + SMUGGLED
        sock.sendall(first + b"GET /file.txt HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        data = read_all(sock)
    assert data.count(b"HTTP/1.1 ") == 2
    assert b"smuggled" not in data
    assert data.endswith(b"plain")


def test_the_chunked_body_of_a_get_is_not_the_next_request(root: Path) -> None:
    """As above, for a body in chunks."""
    chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
    with handling(handler_on(root, protocol_version="HTTP/1.1")) as client, client.connect() as sock:
        sock.sendall(b"GET /file.txt HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + get())
        data = read_all(sock)
    assert data.count(b"HTTP/1.1 200") == 2
    assert b"smuggled" not in data


def test_a_huge_announced_length_takes_no_memory(root: Path) -> None:
    """It is refused by its number, before a byte of it is read."""
    with handling(handler_on(root, cgi_settings={"max_body_bytes": 1000})) as client:
        assert client.send(post(b"Content-Length: 1001", body=b"")).status == 413
        assert client.post("/cgi-bin/x.py", b"x" * 1000).status == 200
        chunks = b"".join(b"100\r\n" + b"x" * 256 + b"\r\n" for _ in range(8)) + b"0\r\n\r\n"
        assert client.send(post(b"Transfer-Encoding: chunked", body=chunks)).status == 413


def test_a_body_that_stops_coming_gives_up(root: Path) -> None:
    """Without a timeout of the handler's, the gateway's: 408, and the script does not run."""
    with handling(handler_on(root, cgi_settings={"timeout": 0.3})) as client:
        assert client.send(post(b"Content-Length: 50")).status == 408


def test_with_a_timeout_of_the_handler_a_script_gets_what_came(root: Path) -> None:
    """As the tests of Python 3.14 want it, however much was announced."""
    with handling(handler_on(root, timeout=1)) as client:
        for length in (b"50", b"18446744073709551616"):
            answer = client.send(post(b"Content-Length: " + length))
            assert (answer.status, answer.body.split()[2:4]) == (200, [b"5", b"False"])


def test_two_hundred_connections_that_say_nothing_do_not_stop_a_threading_server(root: Path) -> None:
    """Each has its thread."""
    with handling(handler_on(root)) as client, contextlib.ExitStack() as open_ones:
        for _ in range(200):
            open_ones.enter_context(client.connect())
        assert client.get("/cgi-bin/x.py").status == 200
