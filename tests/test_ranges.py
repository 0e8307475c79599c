"""Several byte ranges: what a field names, and the answers of real servers."""

from __future__ import annotations

import email
import os
from pathlib import Path

import pytest
import servers
from sites import Site
from webtest import TestApp

from wsgicgi import create_app
from wsgicgi.ranges import MAX_RANGES, multipart, parse_ranges

SIZE = 100


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("bytes=0-0,2-2", [(0, 1), (2, 3)], id="two"),
        pytest.param("bytes=0-0, -1", [(0, 1), (99, 100)], id="range-and-suffix"),
        pytest.param("bytes=50-60,0-10", [(50, 61), (0, 11)], id="in-the-order-asked-for"),
        pytest.param("bytes=0-50,25-75", [(0, 76)], id="overlapping"),
        pytest.param("bytes=0-9,10-19", [(0, 20)], id="touching"),
        pytest.param("bytes=90-,0-4,-20", [(0, 5), (80, 100)], id="one-in-another"),
        pytest.param("bytes=0-,0-,0-", [(0, 100)], id="all-and-all-again"),
        pytest.param("bytes=0-0,200-300", [(0, 1)], id="one-behind-the-end"),
        pytest.param("bytes=100-,200-300", [], id="all-behind-the-end"),
        pytest.param("bytes=-0,-0", [], id="suffixes-of-nothing"),
        pytest.param("bytes=-500,0-0", [(0, 100)], id="suffix-of-more-than-all"),
        pytest.param("bytes=0-0,,\t5-5 ,", [(0, 1), (5, 6)], id="empty-elements-and-blanks"),
        pytest.param("Bytes=0-0,5-5", [(0, 1), (5, 6)], id="unit-in-capitals"),
        pytest.param(f"bytes=0-0,5-{'9' * 30}", [(0, 1), (5, 100)], id="huge"),
        pytest.param("bytes=0-0,9-5", None, id="one-backwards"),
        pytest.param("bytes=0-0,x", None, id="one-is-no-range"),
        pytest.param("bytes=0-0,1", None, id="one-without-hyphen"),
        pytest.param("bytes=0-0,-", None, id="hyphen-alone"),
        pytest.param("bytes=,", None, id="nothing"),
        pytest.param("items=0-0,2-2", None, id="other-unit"),
        pytest.param("0-0,2-2", None, id="no-unit"),
        pytest.param("bytes=0-0,\xb2-\xb3", None, id="superscripts"),
        pytest.param("bytes=" + ",".join(["0-0"] * (MAX_RANGES + 1)), None, id="too-many"),
        pytest.param("bytes=" + "0-," * 10_000, None, id="endless"),
    ],
)
def test_ranges_are_read(value: str, expected: list[tuple[int, int]] | None) -> None:
    """RFC 9110 sections 14.1.2 and 14.2; overlapping ones make no answer larger than the file (CVE-2011-3192)."""
    assert parse_ranges(value, SIZE) == expected


def test_an_empty_file_has_no_ranges() -> None:
    """Section 14.1.2: none can be satisfied."""
    assert parse_ranges("bytes=0-,-1", 0) == []


def parts_of(content_type: str, body: bytes) -> list[tuple[str, str, bytes]]:
    """Type, Content-Range and bytes of each part, read by the standard library's parser of MIME."""
    message = email.message_from_bytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    assert message.is_multipart()
    assert not message.defects
    return [
        (part["Content-Type"], part["Content-Range"], part.get_payload(decode=True))  # type: ignore[misc]
        for part in message.get_payload()
    ]


def test_the_length_is_that_of_the_body() -> None:
    """What is announced before anything is read."""
    layout = multipart([(0, 5), (90, 100)], 100, "text/plain; charset=utf-8", boundary="b" * 32)
    body = layout.heads[0] + b"x" * 5 + layout.heads[1] + b"y" * 10 + layout.end
    assert layout.length == len(body)
    assert parts_of(layout.content_type, body) == [
        ("text/plain; charset=utf-8", "bytes 0-4/100", b"xxxxx"),
        ("text/plain; charset=utf-8", "bytes 90-99/100", b"y" * 10),
    ]


@pytest.mark.parametrize("kind", ["gunicorn", "waitress"])
def test_servers_send_several_parts(site: Site, tmp_path: Path, kind: str) -> None:
    """With one length for all, on a connection that stays; larger than any buffer; conditions as for one range."""
    data = os.urandom(300_000)
    site.file("data.bin", data)
    with servers.serving(kind, site.directory, tmp_path / "log") as server:
        connection = server.connection()
        for _ in range(3):
            connection.request("GET", "/data.bin", headers={"Range": "bytes=200000-299999,0-99,1000-150000"})
            response = connection.getresponse()
            body = response.read()
            assert (response.status, response.headers["Content-Length"]) == (206, str(len(body)))
            assert response.headers["Content-Range"] is None
            assert parts_of(response.headers["Content-Type"], body) == [
                ("application/octet-stream", "bytes 200000-299999/300000", data[200000:]),
                ("application/octet-stream", "bytes 0-99/300000", data[:100]),
                ("application/octet-stream", "bytes 1000-150000/300000", data[1000:150001]),
            ]
            tag = response.headers["ETag"]
        connection.close()
        headers = {"Range": "bytes=0-1,5-6"}
        assert server.get("/data.bin", headers={**headers, "If-Range": tag})[0].status == 206
        assert server.get("/data.bin", headers={**headers, "If-Range": '"other"'})[0].status == 200
        assert server.get("/data.bin", headers={**headers, "If-None-Match": tag})[0].status == 304
        response, body = server.get("/data.bin", headers={"Range": "bytes=0-9,5-20"})
        assert (response.headers["Content-Range"], body) == ("bytes 0-20/300000", data[:21])
        response, _ = server.get("/data.bin", headers={"Range": "bytes=300000-,400000-"})
        assert (response.status, response.headers["Content-Range"]) == (416, "bytes */300000")
        response, body = server.request("HEAD", "/data.bin", headers=headers)
        assert (response.status, response.headers["Content-Length"], body) == (200, "300000", b"")


def test_a_file_that_becomes_shorter_breaks_the_answer(site: Site) -> None:
    """It must not look complete; the log says why."""
    file = site.file("data.bin", b"x" * 200_000)
    app = create_app(site.directory)
    errors: list[str] = []
    environ = TestApp.RequestClass.blank("/data.bin", headers={"Range": "bytes=0-9,100000-199999"}).environ
    environ["wsgi.errors"].write = errors.append  # type: ignore[method-assign]
    answer = app(environ, lambda status, fields, exc_info=None: lambda data: None)
    pieces = iter(answer)
    next(pieces)
    os.truncate(file, 50_000)
    with pytest.raises(ConnectionResetError):
        list(pieces)
    answer.close()  # type: ignore[attr-defined]
    assert "has become shorter" in "".join(errors)
