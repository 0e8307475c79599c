"""``cgi.FieldStorage``, which most Python CGI scripts read forms with, gets every field and every byte."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from servers import Server
from sites import Site

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the script runs by its shebang")

MIB = 1024 * 1024
BOUNDARY = "----a-boundary-0f4d"

# the module is deprecated in Python 3.11 and 3.12, and the package legacy-cgi from 3.13 on
SCRIPT = """\
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
import cgi, hashlib, json

def described(item):
    data = item.file.read() if item.filename else item.value.encode()
    text = None if item.filename else item.value
    return [item.filename, item.type if item.filename else None, text, len(data), hashlib.sha256(data).hexdigest()]

form = cgi.FieldStorage()
fields = {name: form[name] if isinstance(form[name], list) else [form[name]] for name in form}
print("Content-Type: application/json")
print()
print(json.dumps({name: [described(item) for item in items] for name, items in fields.items()}))
"""

Described = tuple[str | None, str | None, str | None, int, str]


def text(value: str) -> Described:
    """What the script tells of a field."""
    return None, None, value, len(value.encode()), hashlib.sha256(value.encode()).hexdigest()


def file(name: str, media_type: str, data: bytes) -> Described:
    """What the script tells of an uploaded file."""
    return name, media_type, None, len(data), hashlib.sha256(data).hexdigest()


def pieces(body: bytes) -> Iterator[bytes]:
    """A body in pieces of uneven sizes; without a length it is sent chunked."""
    sizes, start = random.Random(len(body)), 0
    while start < len(body):
        stop = start + sizes.randint(1, 300_000)
        yield body[start:stop]
        start = stop


def multipart(*parts: tuple[str, bytes]) -> bytes:
    """A body of parts, each given as its header fields and its content (RFC 7578)."""
    lines = [f"--{BOUNDARY}\r\n{fields}\r\n\r\n".encode() + content + b"\r\n" for fields, content in parts]
    return b"".join(lines) + f"--{BOUNDARY}--\r\n".encode()


def submit(
    server: Server, site: Site, body: bytes, content_type: str, *, is_chunked: bool
) -> dict[str, list[Described]]:
    """Send a form to the script; what it got."""
    site.python("form.py", SCRIPT)
    response, answer = server.request(
        "POST", "/cgi-bin/form.py", body=pieces(body) if is_chunked else body, headers={"Content-Type": content_type}
    )
    assert response.status == 200, server.log[-3000:]
    return {name: [tuple(item) for item in items] for name, items in json.loads(answer).items()}


both_ways = pytest.mark.parametrize("is_chunked", [False, True], ids=["content-length", "chunked"])


@both_ways
def test_urlencoded_form_keeps_its_fields(server: Server, site: Site, is_chunked: bool) -> None:
    """Fields of a form arrive decoded, repeated ones in their order."""
    body = urlencode([("name", "Zoë & Ärger=+ 100%"), ("pick", "one"), ("pick", "two"), ("long", "x" * 200_000)])
    got = submit(server, site, body.encode(), "application/x-www-form-urlencoded", is_chunked=is_chunked)
    assert got == {
        "name": [text("Zoë & Ärger=+ 100%")],
        "pick": [text("one"), text("two")],
        "long": [text("x" * 200_000)],
    }


@both_ways
def test_uploaded_file_arrives_byte_for_byte(server: Server, site: Site, is_chunked: bool) -> None:
    """Twenty MiB of any bytes, line ends and half a boundary at its end included, arrive as they were sent."""
    data = random.Random(20).randbytes(20 * MIB) + f"\r\n--{BOUNDARY[:-1]}\r\n\r\n".encode()
    body = multipart(
        ('Content-Disposition: form-data; name="title"', "Größe".encode()),
        ('Content-Disposition: form-data; name="file"; filename="a b.bin"\r\nContent-Type: image/x-raw', data),
        ('Content-Disposition: form-data; name="empty"; filename="empty.txt"\r\nContent-Type: text/plain', b""),
    )
    got = submit(server, site, body, f"multipart/form-data; boundary={BOUNDARY}", is_chunked=is_chunked)
    assert got == {
        "title": [text("Größe")],
        "file": [file("a b.bin", "image/x-raw", data)],
        "empty": [file("empty.txt", "text/plain", b"")],
    }


def test_form_in_the_query_is_read(server: Server, site: Site) -> None:
    """A form that is sent with GET stands in QUERY_STRING."""
    site.python("form.py", SCRIPT)
    response, answer = server.get("/cgi-bin/form.py?" + urlencode({"name": "Zoë", "empty": "", "n": "1"}))
    assert response.status == 200, server.log[-3000:]
    assert {name: items[0][2] for name, items in json.loads(answer).items()} == {"name": "Zoë", "n": "1"}
