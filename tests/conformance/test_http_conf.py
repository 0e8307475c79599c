"""Files over HTTP, seen from outside: methods, validators, conditions, ranges, types, and the connection itself."""

from __future__ import annotations

import contextlib
import email.utils
import gzip
import hashlib
import os
import re
import time
import urllib.parse
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import servers
import wire
from conftest import Host

LETTERS = "abcdefghijklmnopqrstuvwxyz"
OLD = 1577934245
OLD_DATE = "Thu, 02 Jan 2020 03:04:05 GMT"
LARGE = 64 << 20
ROOT = os.geteuid() == 0  # permission bits do not bind

# What two answers to the same question may differ in.
_CHANGING = {"date", "age", "connection", "keep-alive", "transfer-encoding", "server"}


@pytest.fixture(scope="module")
def web(host: Host) -> Host:
    """The server, with this module's files on its site."""
    put(host, "letters.txt", LETTERS)
    put(host, "empty.txt", "")
    put(host, "page.html", "<!doctype html><meta charset=utf-8><title>Grüße</title><p>漢字\n")
    put(host, "index.html", "<!doctype html><title>http</title><p>index of http\n")
    put(host, "sub/index.html", "<!doctype html><title>sub</title><p>index of sub\n")
    put(host, "dir.with.dots/index.html", "<p>dotted\n")
    put(host, "htm/index.htm", "<p>htm\n")
    put(host, "both/index.html", "<p>html\n")
    put(host, "both/index.htm", "<p>htm\n")
    put(host, "index-dir/index.html/file.txt", "x")
    put(host, "list/file.txt", "x")
    large = host.site.directory / "http/large.bin"
    with open(large, "wb") as file:
        for number in range(LARGE >> 20):
            file.write(b"%08d" % number * (1 << 17))
    return host


def put(host: Host, name: str, data: str | bytes, mtime: float = OLD) -> Path:
    """Write a file of the site as of a given time."""
    path = host.site.file(f"http/{name}", data)
    os.utime(path, (mtime, mtime))
    return path


def etag_of(host: Host, target: str = "/http/letters.txt") -> str:
    etag = host.get(target).get("ETag")
    assert etag is not None
    return etag


def remaining(connection: wire.Connection) -> Iterator[bytes]:
    """What still comes, piece by piece, until the server closes the connection or sends nothing for too long."""
    while True:
        try:
            yield connection.read_some()
        except wire.Fault as fault:
            if "nothing came" in str(fault):
                raise
            return


def date(seconds: float) -> str:
    return email.utils.formatdate(seconds, usegmt=True)


def stable(answer: wire.Answer) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.fields if name.lower() not in _CHANGING}


# ---- GET and HEAD


def test_file_comes_with_its_bytes_and_length(web: Host) -> None:
    """RFC 9110 sections 9.3.1 and 8.6."""
    answer = web.get("/http/letters.txt")
    assert (answer.status, answer.reason, answer.text) == (200, "OK", LETTERS)
    assert answer.get("Content-Length") == "26"
    assert answer.get("Accept-Ranges") == "bytes"


def test_empty_file_comes_as_an_empty_body(web: Host) -> None:
    """RFC 9110 section 8.6."""
    answer = web.get("/http/empty.txt")
    assert (answer.status, answer.body, answer.get("Content-Length")) == (200, b"", "0")


def test_large_file_arrives_whole(web: Host) -> None:
    """64 MiB, compared by its hash."""
    found, size = hashlib.sha256(), 0
    with web.connect() as connection:
        connection.send(wire.request("GET", "/http/large.bin"))
        head = connection.read_head()
        assert (head.status, head.get("Content-Length")) == (200, str(LARGE))
        for data in remaining(connection):
            found.update(data)
            size += len(data)
    with open(web.site.directory / "http/large.bin", "rb") as file:
        expected = hashlib.file_digest(file, "sha256")
    assert (size, found.hexdigest()) == (LARGE, expected.hexdigest())


@pytest.mark.parametrize(
    "target",
    [
        "/http/letters.txt",
        "/http/",
        "/http/sub/",
        "/http/sub",
        "/http/no-such",
        "/http/empty.txt",
        "/http/list/",
        "/cgi-bin/",
        "/cgi-bin/no-such",
        "/http/letters.txt/",
        "/%00",
        "/http/list/?x=y",
        "/http/sub?a=b",
        "/",
    ],
)
def test_head_is_get_without_its_body(web: Host, target: str) -> None:
    """RFC 9110 section 9.3.2: same status, same fields; a length may be missing but not wrong."""
    got, head = web.get(target), web.ask("HEAD", target)
    assert (head.status, head.body) == (got.status, b"")
    theirs, ours = stable(got), stable(head)
    if "content-length" not in ours:
        theirs.pop("content-length", None)
    assert ours == theirs


@pytest.mark.parametrize(
    "field",
    [
        ("If-None-Match", "*"),
        ("If-Match", '"other"'),
        ("If-Modified-Since", OLD_DATE),
        ("If-Unmodified-Since", date(0)),
    ],
)
def test_head_is_conditional_like_get(web: Host, field: tuple[str, str]) -> None:
    """RFC 9110 section 13.2.1."""
    got, head = web.get("/http/letters.txt", [field]), web.ask("HEAD", "/http/letters.txt", [field])
    assert (head.status, head.body) == (got.status, b"")
    assert head.status in (304, 412)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "MADEUP", "LOCK"])
@pytest.mark.parametrize("target", ["/http/letters.txt", "/http/sub/", "/http/sub", "/http/list/"])
def test_other_methods_change_nothing(web: Host, method: str, target: str) -> None:
    """RFC 9110 sections 15.5.6 and 9.3.8: 405 with what is allowed; TRACE must not give cookies back."""
    before = web.get(target)
    body = b"new content" if method in ("POST", "PUT", "PATCH") else None
    answer = web.ask(method, target, [("Cookie", "secret=1"), ("Destination", "/http/new.txt")], body)
    assert answer.status in (405, 501)
    if answer.status == 405:
        assert {"GET", "HEAD"} <= set(re.split(r"\s*,\s*", answer.get("Allow") or ""))
    assert b"secret=1" not in answer.body
    after = web.get(target)
    assert (after.status, after.body) == (before.status, before.body)


def test_put_makes_no_file(web: Host) -> None:
    """CWE-434."""
    for target in ("/http/made.txt", "/cgi-bin/made.sh", "/http/made/x.txt"):
        answer = web.ask("PUT", target, body=b"#!/bin/sh\n")
        assert answer.status in (403, 404, 405, 501), target
        assert not (web.site.directory / target[1:]).exists()


def test_connect_is_refused(web: Host) -> None:
    """RFC 9110 section 9.3.6: this is no proxy."""
    for target in ("127.0.0.1:22", "evil.test:443", "/http/letters.txt", "/cgi-bin/report.py"):
        answer = web.raw(wire.request("CONNECT", target), "GET")
        assert 400 <= answer.status < 500 or answer.status == 501, target


def test_method_names_have_a_case(web: Host) -> None:
    """RFC 9110 section 9.1: "get" is another method."""
    for method in ("get", "Get", "head", "gET"):
        answer = web.ask(method, "/http/letters.txt")
        assert answer.status in (400, 405, 501), method


def test_every_answer_has_one_date(web: Host) -> None:
    """RFC 9110 sections 6.6.1 and 5.6.7."""
    for target in ("/http/letters.txt", "/http/no-such", "/http/list/", "/http/sub", "/cgi-bin/report.py"):
        value = web.get(target).get("Date")
        assert value is not None, target
        moment = datetime.strptime(value, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
        assert abs(moment.timestamp() - time.time()) < 30


# ---- validators


def test_last_modified_is_the_file_s_time(web: Host) -> None:
    """RFC 9110 sections 8.8.2 and 5.6.7."""
    assert web.get("/http/letters.txt").get("Last-Modified") == OLD_DATE


def test_last_modified_is_rounded_down(web: Host) -> None:
    """RFC 9110 section 8.8.2: dates have whole seconds, and none may lie after the change."""
    put(web, "fraction.txt", "x", OLD + 0.9)
    assert web.get("/http/fraction.txt").get("Last-Modified") == OLD_DATE
    assert web.get("/http/fraction.txt", [("If-Modified-Since", OLD_DATE)]).status == 304


def test_last_modified_is_not_in_the_future(web: Host) -> None:
    """RFC 9110 section 8.8.2.1: it must be replaced by the time of the answer."""
    put(web, "future.txt", "x", time.time() + 86400)
    answer = web.get("/http/future.txt")
    assert answer.status == 200
    value = answer.get("Last-Modified")
    if value is not None:
        assert email.utils.parsedate_to_datetime(value).timestamp() <= time.time() + 1


@pytest.mark.parametrize("seconds", [0, 1, -1, -86400 * 365, 2**31, 2**32 + 5, 2**33, 253402300800, 2**39, -(2**36)])
def test_file_of_any_time_is_served(web: Host, seconds: int) -> None:
    """A file system's clock is not ours: before 1970, after 2038, after 9999."""
    path = put(web, f"time{seconds}/file.txt", "x")
    try:
        os.utime(path, (seconds, seconds))
    except (OSError, OverflowError):
        os.utime(path, (2**32, 2**32))
    for target in (f"/http/time{seconds}/file.txt", f"/http/time{seconds}/"):
        for fields in ([], [("If-Modified-Since", OLD_DATE)], [("If-None-Match", '"x"'), ("Range", "bytes=0-0")]):
            answer = web.get(target, fields)
            assert answer.status in (200, 206, 304), (target, fields)


def test_etag_is_well_formed_stable_and_its_own(web: Host) -> None:
    """RFC 9110 section 8.8.3."""
    etag = etag_of(web)
    assert re.fullmatch(r'(W/)?"[\x21\x23-\x7e\x80-\xff]*"', etag)
    assert etag_of(web) == etag
    put(web, "other.txt", LETTERS[:-1])
    assert etag_of(web, "/http/other.txt") != etag


def test_etag_changes_within_a_second_and_with_the_same_size(web: Host) -> None:
    """RFC 9110 section 8.8.1: a strong validator changes with every byte."""
    put(web, "quick.txt", "one", OLD + 0.1)
    before = etag_of(web, "/http/quick.txt")
    put(web, "quick.txt", "two", OLD + 0.2)
    after = etag_of(web, "/http/quick.txt")
    assert before != after
    assert web.get("/http/quick.txt", [("If-None-Match", before)]).text == "two"


def test_scripts_get_no_validators(web: Host) -> None:
    """RFC 9110 section 8.8: what a program prints has no file's tag or date, nor ranges."""
    answer = web.get("/cgi-bin/report.py")
    assert answer.status == 200
    assert [
        name for name in ("ETag", "Last-Modified", "Accept-Ranges", "Expires") if answer.get(name) is not None
    ] == []


def test_script_s_answer_is_not_cut_to_a_range(web: Host) -> None:
    """RFC 9110 section 14.2: ranges and conditions of a script's answer are the script's."""
    fields = [("Range", "bytes=0-1"), ("If-None-Match", "*"), ("If-Modified-Since", date(time.time()))]
    assert web.get("/cgi-bin/report.py", fields).status == 200


# ---- conditions


def test_file_not_modified_since_is_not_sent_again(web: Host) -> None:
    """RFC 9110 section 13.1.3."""
    for seconds in (OLD, OLD + 1, OLD + 86400):
        answer = web.get("/http/letters.txt", [("If-Modified-Since", date(seconds))])
        assert (answer.status, answer.body) == (304, b""), seconds
    for seconds in (OLD - 1, OLD - 86400, 0):
        assert web.get("/http/letters.txt", [("If-Modified-Since", date(seconds))]).status == 200, seconds


@pytest.mark.parametrize(
    "value",
    [
        "nonsense",
        "",
        "0",
        "-1",
        "Wed, 99 Foo 2020 00:00:00 GMT",
        "Thu, 01 Jan 1970 00:00:00 +9999",
        "9" * 400,
        "*",
        '"x"',
        "Thu, 02 Jan 2020 25:04:05 GMT",
        "Thu, 30 Feb 2020 03:04:05 GMT",
        "Thu, 02 Jan 0000 03:04:05 GMT",
        "2020-01-02T03:04:05Z",
        "Thu, 02 Jan 2020 03:04:99999999999999999999 GMT",
        "1577934245",
        ", ,",
        "Thu, 02 Jan 2020 03:04:05 +99999999999999",
    ],
)
def test_if_modified_since_without_a_date_is_ignored(web: Host, value: str) -> None:
    """RFC 9110 section 13.1.3."""
    answer = web.get("/http/letters.txt", [("If-Modified-Since", value)])
    assert (answer.status, answer.text) == (200, LETTERS)


def test_if_modified_since_beyond_all_years_is_no_failure(web: Host) -> None:
    """RFC 9110 section 5.6.7 knows four digits only."""
    for value in ("Fri, 31 Dec 99999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 -0100"):
        assert web.get("/http/letters.txt", [("If-Modified-Since", value)]).status in (200, 304), value


def test_two_dates_are_no_date(web: Host) -> None:
    """RFC 9110 section 13.1.3: a value of more than one member must be ignored."""
    twice = [("If-Modified-Since", OLD_DATE), ("If-Modified-Since", OLD_DATE)]
    assert web.get("/http/letters.txt", twice).status in (200, 400)
    assert web.get("/http/letters.txt", [("If-Modified-Since", f"{OLD_DATE}, {OLD_DATE}")]).status == 200


@pytest.mark.parametrize("value", ["Thursday, 02-Jan-20 03:04:05 GMT", "Thu Jan  2 03:04:05 2020", OLD_DATE])
@pytest.mark.parametrize(("name", "status"), [("If-Modified-Since", 304), ("If-Unmodified-Since", 200)])
def test_old_date_formats_are_understood(web: Host, value: str, name: str, status: int) -> None:
    """RFC 9110 section 5.6.7: recipients must accept all three."""
    assert web.get("/http/letters.txt", [(name, value)]).status == status


def test_known_etag_is_not_sent_again(web: Host) -> None:
    """RFC 9110 sections 13.1.2 and 15.4.5: alone, weak, in a list, and as any."""
    etag = etag_of(web)
    weak = "W/" + etag.removeprefix("W/")
    values = [
        etag,
        weak,
        "*",
        f'"x", {etag}',
        f'"x" , {etag} ,"y"',
        f'W/"x",{weak}',
        f'"a,b", {etag}',
        f"{etag},",
        f", {etag}",
    ]
    for value in values:
        answer = web.get("/http/letters.txt", [("If-None-Match", value)])
        assert (answer.status, answer.body, answer.get("ETag")) == (304, b"", etag), value
    answer = web.get("/http/letters.txt", [("If-None-Match", '"x"'), ("If-None-Match", etag)])
    assert answer.status == 304  # a list may come in several fields (section 5.3)


def test_other_etags_do_not_match(web: Host) -> None:
    """RFC 9110 section 8.8.3.2."""
    etag = etag_of(web)
    inner = etag.removeprefix("W/").strip('"')
    values = [
        '"x"',
        'W/"x"',
        f'"{inner}x"',
        f'"{inner[:-1]}"',
        f'"{inner.upper()}X"',
        '""',
        "",
        f'"x{inner}"',
        '"*"',
        f"'{inner}'",
    ]
    for value in values:
        answer = web.get("/http/letters.txt", [("If-None-Match", value)])
        assert (answer.status, answer.text) == (200, LETTERS), value


def test_not_modified_says_no_more_than_needed(web: Host) -> None:
    """RFC 9110 section 15.4.5: validators, but nothing of a body that is not there."""
    answer = web.get("/http/letters.txt", [("If-None-Match", "*")])
    assert answer.status == 304
    names = ("Content-Type", "Content-Encoding", "Content-Range", "Content-Language", "Transfer-Encoding")
    assert [name for name in names if answer.get(name) is not None] == []
    assert answer.get("Content-Length") in (None, "26")


def test_tags_come_before_dates(web: Host) -> None:
    """RFC 9110 section 13.2.2: If-None-Match decides alone where it stands, and so does If-Match."""
    etag = etag_of(web)
    cases = [
        ([("If-None-Match", '"x"'), ("If-Modified-Since", OLD_DATE)], 200),
        ([("If-None-Match", etag), ("If-Modified-Since", date(0))], 304),
        ([("If-Match", etag), ("If-Unmodified-Since", date(0))], 200),
        ([("If-Match", '"x"'), ("If-Unmodified-Since", OLD_DATE)], 412),
        ([("If-Match", '"x"'), ("If-None-Match", etag)], 412),
        ([("If-Match", etag), ("If-None-Match", etag)], 304),
        ([("If-Unmodified-Since", date(0)), ("If-None-Match", etag)], 412),
        ([("If-Unmodified-Since", OLD_DATE), ("If-Modified-Since", OLD_DATE)], 304),
    ]
    for fields, status in cases:
        assert web.get("/http/letters.txt", fields).status == status, fields


def test_failed_preconditions_give_412(web: Host) -> None:
    """RFC 9110 sections 13.1.1 and 13.1.4: comparison is strong."""
    etag = etag_of(web)
    failing = [("If-Match", '"other"'), ("If-Match", f"W/{etag}"), ("If-Match", '"a", "b"'), ("If-Match", "")]
    failing += [("If-Unmodified-Since", date(OLD - 1)), ("If-Unmodified-Since", date(0)), ("If-Match", '"*"')]
    for field in failing:
        answer = web.get("/http/letters.txt", [field])
        assert (answer.status, LETTERS in answer.text) == (412, False), field
    holding = [("If-Match", etag), ("If-Match", "*"), ("If-Match", f'"a", {etag}'), ("If-Unmodified-Since", OLD_DATE)]
    holding += [
        ("If-Unmodified-Since", date(OLD + 9)),
        ("If-Unmodified-Since", "nonsense"),
        ("If-Unmodified-Since", ""),
    ]
    for field in holding:
        assert web.get("/http/letters.txt", [field]).text == LETTERS, field


def test_conditions_do_not_hide_errors(web: Host) -> None:
    """RFC 9110 section 13.2.1: they are for what would be a success."""
    fields = [
        [("If-None-Match", "*")],
        [("If-Match", "*")],
        [("If-Modified-Since", OLD_DATE)],
        [("Range", "bytes=0-1")],
    ]
    for more in fields:
        assert web.get("/http/no-such", more).status == 404, more
        assert web.get("/http/sub", more).status == 301, more
        assert web.ask("POST", "/http/letters.txt", more, b"x").status == 405, more


def test_hostile_conditions_are_no_failure(web: Host) -> None:
    """CWE-1333, CWE-400: long lists, bare quotes, control characters."""
    values: list[str | bytes] = [
        '"' * 5000,
        '"a", ' * 1200,
        "W/" * 3000,
        ",",
        '"',
        '"\\"',
        b'"\xff\xfe"',
        "W/",
        "*,*",
        '"a"b"c"',
    ]
    values += ["W/*", "w/" + etag_of(web), "\t", "a" * 6000, '"a' + " " * 6000, "," * 6000]
    for name in ("If-None-Match", "If-Match", "If-Range", "If-Modified-Since", "If-Unmodified-Since", "Range"):
        for value in values:
            answer = web.get(
                "/http/letters.txt", [("Range", "bytes=0-1"), (name, value)] if name != "Range" else [(name, value)]
            )
            assert answer.status in (200, 206, 304, 400, 412, 416, 431), (name, value)


# ---- ranges


@pytest.mark.parametrize(
    ("value", "text", "where"),
    [
        ("bytes=0-4", "abcde", "0-4"),
        ("bytes=5-", LETTERS[5:], "5-25"),
        ("bytes=-5", "vwxyz", "21-25"),
        ("bytes=0-0", "a", "0-0"),
        ("bytes=25-25", "z", "25-25"),
        ("bytes=0-", LETTERS, "0-25"),
        ("bytes=0-25", LETTERS, "0-25"),
        ("bytes=20-999", "uvwxyz", "20-25"),
        ("bytes=-26", LETTERS, "0-25"),
        ("bytes=-27", LETTERS, "0-25"),
        ("bytes=-99999999999999999999", LETTERS, "0-25"),
        ("bytes=-1", "z", "25-25"),
        ("bytes=25-", "z", "25-25"),
        ("bytes=1-99999999999999999999", LETTERS[1:], "1-25"),
        ("bytes=00-004", "abcde", "0-4"),
    ],
)
def test_one_range_gives_its_bytes(web: Host, value: str, text: str, where: str) -> None:
    """RFC 9110 sections 14.1.2 and 15.3.7; a suffix may be longer than the file."""
    answer = web.get("/http/letters.txt", [("Range", value)])
    assert (answer.status, answer.text, answer.get("Content-Range")) == (206, text, f"bytes {where}/26")
    assert answer.get("Content-Length") == str(len(text))
    assert (answer.media_type, answer.get("ETag"), answer.get("Last-Modified")) == (
        "text/plain",
        etag_of(web),
        OLD_DATE,
    )


@pytest.mark.parametrize("value", ["bytes=26-", "bytes=26-26", "bytes=1000-2000", "bytes=99999999999999999999-"])
def test_range_behind_the_end_gives_416(web: Host, value: str) -> None:
    """RFC 9110 sections 14.4 and 15.5.17."""
    answer = web.get("/http/letters.txt", [("Range", value)])
    assert (answer.status, answer.get("Content-Range")) == (416, "bytes */26")
    assert LETTERS not in answer.text


@pytest.mark.parametrize(
    "value",
    [
        "bytes=abc",
        "bytes=5-2",
        "items=0-1",
        "bytes=",
        "bytes=-",
        "bytes",
        "bytes=1-2-3",
        "bytes=+1-2",
        "bytes=0x1-2",
        "bytes=1_0-12",
        "bytes= 1-2",
        "bytes=--1",
        "bytes=-0",
        "=",
        "bytes=0-4;x",
        "bytes=\u0661-2".encode(),
        "bytes=1.0-2",
        "bytes:0-4",
        "bytes 0-4",
        "bytes=1-+2",
        "bytes=1 -2",
        "bytes=1- 2",
        "bytes==1-2",
        "bytes=,",
        "bytes=1-2,",
        "bytes=,1-2",
        "Bytes=0-4",
        "BYTES=0-4",
        "0-4",
        "bytes=1-" + "9" * 5000,
        "bytes=" + "9" * 5000 + "-",
        "bytes=-" + "9" * 5000,
        b"bytes=\xb2-\xb3",
        "bytes=1e1-20",
        "bytes=26-5",
        "none",
        "bytes=*",
        "bytes=-5-",
        "bytes=1-2 junk",
        "seconds=1-2",
        "bytes=\t1-2",
        "",
        "bytes=0-4,x",
    ],
)
def test_invalid_range_never_gives_wrong_bytes(web: Host, value: str | bytes) -> None:
    """RFC 9110 section 14.2: all, an error, or what the answer says that it is."""
    answer = web.get("/http/letters.txt", [("Range", value)])
    assert answer.status in (200, 206, 400, 416)
    if answer.status == 200:
        assert (answer.text, answer.get("Content-Range")) == (LETTERS, None)
    if answer.status == 206:
        match = re.fullmatch(r"bytes (\d+)-(\d+)/26", answer.get("Content-Range") or "")
        assert match is not None
        assert answer.text == LETTERS[int(match[1]) : int(match[2]) + 1]


def _parts(answer: wire.Answer) -> list[tuple[int, int, str]]:
    """The parts of a 206 answer: one, or those of multipart/byteranges (RFC 9110 section 14.6)."""
    one = re.fullmatch(r"bytes (\d+)-(\d+)/26", answer.get("Content-Range") or "")
    if one is not None:
        return [(int(one[1]), int(one[2]), answer.text)]
    boundary = re.fullmatch(r'multipart/byteranges; *boundary="?([^" ;]+)"?', answer.get("Content-Type") or "")
    assert boundary is not None, answer
    found = []
    for part in answer.text.split(f"--{boundary[1]}")[1:-1]:
        head, _, body = part.partition("\r\n\r\n")
        where = re.search(r"(?im)^content-range: *bytes (\d+)-(\d+)/26\r?$", head)
        assert where is not None, part
        found.append((int(where[1]), int(where[2]), body.removesuffix("\r\n")))
    return found


@pytest.mark.parametrize(
    "value",
    ["bytes=0-1, 5-6,-2", "bytes=0-0,1-1", "bytes=-1,0-0", "bytes=5-9,0-30", "bytes=0-1,1000-", "bytes=3-4,3-4"],
)
def test_several_ranges_give_the_right_parts_or_everything(web: Host, value: str) -> None:
    """RFC 9110 sections 14.2 and 15.3.7.2."""
    answer = web.get("/http/letters.txt", [("Range", value)])
    assert answer.status in (200, 206)
    if answer.status == 200:
        assert (answer.text, answer.media_type) == (LETTERS, "text/plain")
        return
    for first, last, text in _parts(answer):
        assert text == LETTERS[first : last + 1]


def test_several_range_fields_give_no_wrong_bytes(web: Host) -> None:
    """RFC 9110 section 5.3: Range is no list of fields."""
    answer = web.get("/http/letters.txt", [("Range", "bytes=0-1"), ("Range", "bytes=3-4")])
    assert answer.status in (200, 206, 400, 416)
    if answer.status == 206:
        assert all(text == LETTERS[first : last + 1] for first, last, text in _parts(answer))


def test_many_ranges_do_not_multiply_the_answer(web: Host) -> None:
    """CVE-2011-3192, RFC 9110 section 17.15: thousands of overlapping ranges."""
    for value in ("bytes=" + ",".join(["0-"] * 1500), "bytes=" + ",".join(f"{n}-" for n in range(900))):
        answer = web.get("/http/letters.txt", [("Range", value)])
        assert answer.status in (200, 400, 416, 431)
        assert len(answer.body) < 2000


def test_range_of_an_empty_file(web: Host) -> None:
    """RFC 9110 section 14.1.2: no first byte is below a length of zero."""
    for value in ("bytes=0-", "bytes=0-0", "bytes=5-9", "bytes=-5"):
        answer = web.get("/http/empty.txt", [("Range", value)])
        assert answer.status in (200, 416), value
        if answer.status == 416:
            assert answer.get("Content-Range") == "bytes */0"


def test_head_has_no_ranges(web: Host) -> None:
    """RFC 9110 section 14.2: Range is defined for GET alone."""
    for value in ("bytes=0-1", "bytes=99-", "nonsense"):
        answer = web.ask("HEAD", "/http/letters.txt", [("Range", value)])
        assert (answer.status, answer.get("Content-Range"), answer.get("Content-Length")) == (200, None, "26"), value


def test_other_methods_have_no_ranges(web: Host) -> None:
    """RFC 9110 section 14.2."""
    assert web.ask("POST", "/http/letters.txt", [("Range", "bytes=0-1")], b"x").status == 405


def test_if_range_needs_the_very_file(web: Host) -> None:
    """RFC 9110 section 13.1.5: a strong tag or the exact date; else everything."""
    etag = etag_of(web)
    values = [OLD_DATE] if etag.startswith("W/") else [etag, OLD_DATE]
    for value in values:
        answer = web.get("/http/letters.txt", [("Range", "bytes=0-4"), ("If-Range", value)])
        assert (answer.status, answer.text) == (206, "abcde"), value
    others = [
        '"other"',
        'W/"other"',
        "W/" + etag.removeprefix("W/"),
        "nonsense",
        "",
        "*",
        f'"x", {etag}',
        f"{etag}, {etag}",
    ]
    others += [date(OLD + 5), date(OLD - 5), date(0), etag.strip('W/"'), f"'{etag}'", date(time.time())]
    for value in others:
        answer = web.get("/http/letters.txt", [("Range", "bytes=0-4"), ("If-Range", value)])
        assert (answer.status, answer.text, answer.get("Content-Range")) == (200, LETTERS, None), value


def test_if_range_alone_means_nothing(web: Host) -> None:
    """RFC 9110 section 13.1.5: it must be ignored without Range."""
    for value in (etag_of(web), '"other"', "nonsense"):
        assert web.get("/http/letters.txt", [("If-Range", value)]).status == 200, value


def test_if_range_decides_before_416(web: Host) -> None:
    """RFC 9110 section 13.2.2: where it does not hold, Range is not looked at."""
    answer = web.get("/http/letters.txt", [("Range", "bytes=99-"), ("If-Range", '"other"')])
    assert (answer.status, answer.text) == (200, LETTERS)


def test_conditions_come_before_ranges(web: Host) -> None:
    """RFC 9110 section 13.2.2."""
    etag = etag_of(web)
    wanted = ("Range", "bytes=0-4")
    cases = [([("If-None-Match", etag)], 304), ([("If-Match", '"x"')], 412), ([("If-Match", etag)], 206)]
    cases += [
        ([("If-None-Match", '"x"')], 206),
        ([("If-Modified-Since", OLD_DATE)], 304),
        ([("If-None-Match", "*")], 304),
    ]
    cases += [([("If-Match", etag), ("If-Range", etag)], 206), ([("If-Match", etag), ("If-Range", '"x"')], 200)]
    for fields, status in cases:
        assert web.get("/http/letters.txt", [wanted, *fields]).status == status, fields
    assert web.get("/http/letters.txt", [("Range", "bytes=99-"), ("If-None-Match", etag)]).status == 304


def test_ranges_of_a_large_file(web: Host) -> None:
    """From its middle and its end, across blocks."""
    for first, last in ((LARGE - 1, LARGE - 1), (33_000_000, 36_000_000), ((1 << 20) - 3, (1 << 20) + 3), (0, 65536)):
        answer = web.get("/http/large.bin", [("Range", f"bytes={first}-{last}")])
        assert (answer.status, answer.get("Content-Range")) == (206, f"bytes {first}-{last}/{LARGE}")
        with open(web.site.directory / "http/large.bin", "rb") as file:
            file.seek(first)
            assert answer.body == file.read(last - first + 1)


def test_listings_errors_and_redirects_have_no_ranges(web: Host) -> None:
    """RFC 9110 section 14.2: a range that is not served is ignored."""
    for target in ("/http/list/", "/http/no-such", "/http/sub"):
        plain, ranged = web.get(target), web.get(target, [("Range", "bytes=0-0")])
        assert (ranged.status, len(ranged.body)) == (plain.status, len(plain.body)), target


# ---- directories


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/http/sub", "/http/sub/"),
        ("/http/sub?a=b&c=%20d", "/http/sub/?a=b&c=%20d"),
        ("/http/dir.with.dots", "/http/dir.with.dots/"),
        ("/http/sub?", "/http/sub/"),
        ("/http/./sub", "/http/sub/"),
        ("/http/sub/../sub?x", "/http/sub/?x"),
        ("/http//sub", "/http/sub/"),
        ("/http/sub?a=/../b//c?d", "/http/sub/?a=/../b//c?d"),
        ("/h%74tp/s%75b", "/http/sub/"),
        ("/http", "/http/"),
        ("/http/sub?%zz%", "/http/sub/?%zz%"),
        ("/http/sub?a+b", "/http/sub/?a+b"),
    ],
)
def test_directory_without_its_slash_is_redirected(web: Host, target: str, location: str) -> None:
    """RFC 3986 section 5.2: relative links need it; the query stays."""
    for method in ("GET", "HEAD"):
        answer = web.ask(method, target)
        assert answer.status in (301, 302, 307, 308)
        base = f"http://127.0.0.1:{web.port}"
        there = urllib.parse.urljoin(base + target, answer.get("Location") or "")
        assert there.removesuffix("?") == base + location


def test_redirect_encodes_what_no_field_may_hold(web: Host) -> None:
    """RFC 3986 section 2: bytes above 127 in a query, which a server may refuse as well."""
    answer = web.get("/http/sub?a=é".encode())
    assert answer.status in (301, 400)
    if answer.status == 301:
        assert answer.get("Location") == "/http/sub/?a=%C3%A9"


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("/http/", "index of http"),
        ("/http/sub/", "index of sub"),
        ("/http/sub/?x=y", "index of sub"),
        ("/http/htm/", "<p>htm"),
        ("/http/both/", "<p>html"),
        ("/http/sub/index.html", "index of sub"),
        ("/http/sub/.", "index of sub"),
        ("/http/dir.with.dots/", "dotted"),
    ],
)
def test_index_stands_for_its_directory(web: Host, target: str, text: str) -> None:
    """By custom index.html, then index.htm."""
    answer = web.get(target)
    assert (answer.status, answer.media_type, text in answer.text) == (200, "text/html", True)
    assert answer.get("ETag") is not None


def test_root_answers(web: Host) -> None:
    """Its index if it has one, else its listing; also with a query, and for an absolute form without a path."""
    for target in ("/", "/?x=y", f"http://127.0.0.1:{web.port}/"):
        answer = web.get(target)
        assert (answer.status, answer.media_type) == (200, "text/html"), target


def test_directory_is_no_index(web: Host) -> None:
    """A directory called index.html stands for nothing."""
    answer = web.get("/http/index-dir/")
    assert (answer.status, "index.html/" in answer.text) == (200, True)
    assert web.get("/http/index-dir/index.html").get("Location") == "/http/index-dir/index.html/"


def test_index_is_conditional_and_has_ranges(web: Host) -> None:
    """RFC 9110 section 13: it is a file like others."""
    etag = etag_of(web, "/http/sub/")
    assert web.get("/http/sub/", [("If-None-Match", etag)]).status == 304
    assert web.get("/http/sub/", [("Range", "bytes=0-8")]).text == "<!doctype"
    assert web.get("/http/sub/", [("If-Modified-Since", OLD_DATE)]).status == 304


# ---- types


def test_html_is_html(web: Host) -> None:
    """RFC 9110 section 8.3: a charset, where one is said, must be right."""
    answer = web.get("/http/page.html")
    assert (answer.status, answer.media_type) == (200, "text/html")
    assert "漢字" in answer.body.decode()
    charset = re.search(r'charset="?([\w-]+)', answer.get("Content-Type") or "", re.IGNORECASE)
    assert charset is None or charset[1].lower() == "utf-8"


@pytest.mark.parametrize(
    ("suffix", "types"),
    [
        ("html htm HTML", "text/html"),
        ("css", "text/css"),
        ("js mjs", "text/javascript application/javascript application/x-javascript"),
        ("json", "application/json"),
        ("txt TXT", "text/plain"),
        ("xml", "text/xml application/xml"),
        ("svg", "image/svg+xml"),
        ("png", "image/png"),
        ("jpg jpeg JPG", "image/jpeg"),
        ("gif", "image/gif"),
        ("webp", "image/webp"),
        ("ico", "image/x-icon image/vnd.microsoft.icon"),
        ("pdf", "application/pdf"),
        ("wasm", "application/wasm"),
        ("zip", "application/zip application/x-zip-compressed"),
        ("mp4", "video/mp4"),
        ("mp3", "audio/mpeg"),
        ("csv", "text/csv"),
        ("woff2", "font/woff2 application/font-woff2"),
        ("woff", "font/woff application/font-woff"),
        ("webmanifest", "application/manifest+json"),
        ("webm", "video/webm"),
        ("md", "text/markdown text/plain"),
        ("tar", "application/x-tar"),
        ("gz", "application/gzip application/x-gzip"),
        ("tar.gz tgz", "application/gzip application/x-gzip application/x-tar application/x-gtar"),
        ("bz2", "application/x-bzip2 application/x-bzip"),
        ("min.js", "text/javascript application/javascript"),
        ("avif", "image/avif application/octet-stream"),
        ("wav", "audio/wav audio/x-wav audio/vnd.wave"),
        ("bin exe unknownsuffix", "application/octet-stream application/x-msdos-program application/x-msdownload"),
    ],
)
def test_known_suffixes_have_their_types(web: Host, suffix: str, types: str) -> None:
    """IANA's media types."""
    for each in suffix.split():
        put(web, f"types/file.{each}", "x" * 40)
        answer = web.get(f"/http/types/file.{each}")
        assert answer.media_type in types.split(), each
        assert answer.get("Content-Encoding") is None


@pytest.mark.parametrize(
    "name",
    [
        "noext",
        "file.unknownsuffix",
        "html",
        "file.html.x1",
        "a.htmlx",
        "data:text.html,x.x1",
        "file.",
        "file.html ",
        "%2ehtml",
        "x;y=.html;z",
    ],
)
def test_unknown_suffixes_are_never_html(web: Host, name: str) -> None:
    """RFC 9110 section 8.3: what is declared HTML runs in the site's name (CWE-79)."""
    put(web, f"types/{name}", "<script>alert(1)</script>\n")
    answer = web.get("/http/types/" + urllib.parse.quote(name, safe=""))
    assert (answer.status, answer.media_type in ("application/octet-stream", "text/plain", "")) == (200, True)


def test_archives_come_as_they_are(web: Host) -> None:
    """RFC 9110 section 8.4: the coding is part of what x.tar.gz is, so it is no Content-Encoding."""
    data = gzip.compress(b"not a tar" * 99, mtime=0)
    put(web, "types/archive.tar.gz", data)
    for fields in ([], [("Accept-Encoding", "gzip")], [("Accept-Encoding", "identity;q=1, *;q=0")]):
        answer = web.get("/http/types/archive.tar.gz", fields)
        assert (answer.status, answer.body, answer.get("Content-Encoding")) == (200, data, None), fields


def test_content_coding_only_where_it_is_accepted(web: Host) -> None:
    """RFC 9110 sections 12.5.3 and 12.5.5: with Vary, and what it unpacks to is the file."""
    text = b"function f() { return 'twice'; }\n" * 200
    put(web, "twice/app.js", text)
    put(web, "twice/app.js.gz", gzip.compress(text, mtime=0))
    for value in (None, "identity", "gzip;q=0", "gzip;q=0.0, identity", "br", "", "x-gzipped", "*;q=0"):
        answer = web.get("/http/twice/app.js", [] if value is None else [("Accept-Encoding", value)])
        assert (answer.status, answer.get("Content-Encoding"), answer.body) == (200, None, text), value
    for value in ("gzip", "gzip, br", "*", "GZIP;q=0.5"):
        answer = web.get("/http/twice/app.js", [("Accept-Encoding", value)])
        assert answer.media_type in ("text/javascript", "application/javascript"), value
        if answer.get("Content-Encoding") is None:
            assert answer.body == text, value
        else:
            assert gzip.decompress(answer.body) == text, value
            assert "accept-encoding" in (answer.get("Vary") or "").lower()


# ---- files that change


def test_changed_file_is_seen_with_new_validators(web: Host) -> None:
    """RFC 9110 section 8.8; and 404 once it is gone."""
    path = put(web, "changing.txt", "one\n")
    first = web.get("/http/changing.txt")
    assert first.text == "one\n"
    put(web, "changing.txt", "second\n", OLD + 100)
    second = web.get("/http/changing.txt")
    assert (second.text, second.get("ETag") != first.get("ETag")) == ("second\n", True)
    assert web.get("/http/changing.txt", [("If-Modified-Since", OLD_DATE)]).status == 200
    assert web.get("/http/changing.txt", [("If-None-Match", first.get("ETag") or "")]).status == 200
    answer = web.get("/http/changing.txt", [("Range", "bytes=0-1"), ("If-Range", first.get("ETag") or "")])
    assert (answer.status, answer.text) == (200, "second\n")
    path.unlink()
    assert web.get("/http/changing.txt").status == 404


def test_file_may_become_a_directory_and_back(web: Host) -> None:
    """Nothing is remembered about names."""
    path = put(web, "kind/x", "file")
    assert web.get("/http/kind/x").text == "file"
    path.unlink()
    put(web, "kind/x/index.html", "directory")
    assert (web.get("/http/kind/x").status, web.get("/http/kind/x/").text) == (301, "directory")
    (path / "index.html").unlink()
    path.rmdir()
    put(web, "kind/x", "file again")
    assert web.get("/http/kind/x").text == "file again"


@contextlib.contextmanager
def _half_read(web: Host, name: str, size: int) -> Iterator[tuple[wire.Connection, Path]]:
    """A file that a client has begun to read, but not ended: too large for what lies between."""
    path = put(web, name, b"a" * size)
    with web.connect(6) as connection:
        connection.send(wire.request("GET", f"/http/{name}"))
        head = connection.read_head()
        assert (head.status, head.get("Content-Length")) == (200, str(size))
        yield connection, path
    path.unlink()


def test_file_that_is_replaced_while_it_is_sent_comes_whole(web: Host) -> None:
    """It is opened once: what its name means later does not matter."""
    size = 24 << 20
    with _half_read(web, "replaced.bin", size) as (connection, path):
        new = path.with_name("replacement.bin")
        new.write_bytes(b"b" * 1000)
        new.replace(path)
        assert b"".join(remaining(connection)) == b"a" * size


def test_file_that_grows_while_it_is_sent_keeps_its_length(web: Host) -> None:
    """RFC 9112 section 6.2: no byte beyond Content-Length, which would be the next answer's."""
    size = 24 << 20
    with _half_read(web, "growing.bin", size) as (connection, path):
        with open(path, "ab") as file:
            file.write(b"b" * (4 << 20))
        assert b"".join(remaining(connection)) == b"a" * size


def test_file_that_is_cut_while_it_is_sent_ends_the_connection(web: Host) -> None:
    """RFC 9112 section 8: an incomplete message is known as such, and nobody waits for what is not there."""
    size = 24 << 20
    with _half_read(web, "cut.bin", size) as (connection, path):
        os.truncate(path, 0)
        rest = b"".join(remaining(connection))
        assert len(rest) < size
        assert rest == b"a" * len(rest)
    assert web.get("/http/letters.txt").text == LETTERS


def test_cut_file_is_not_filled_up_with_the_next_answer(web: Host) -> None:
    """RFC 9112 section 9.2: on a connection that would go on, the same."""
    size = 24 << 20
    path = put(web, "cut-on.bin", b"a" * size)
    with web.connect(6) as connection:
        connection.send(wire.request("GET", "/http/cut-on.bin", close=False))
        assert connection.read_head().get("Content-Length") == str(size)
        os.truncate(path, 0)
        connection.send(wire.request("GET", "/http/letters.txt"))
        rest = b"".join(remaining(connection))
        assert set(rest) <= set(b"a")
        assert len(rest) < size
    path.unlink()


def test_descriptors_do_not_leak(web: Host) -> None:
    """Files are closed after every kind of answer, and when the client goes away."""
    put(web, "leak/large.bin", b"a" * (8 << 20))
    put(web, "leak/letters.txt", LETTERS)
    put(web, "leak/empty.txt", "")
    put(web, "leak/sub/index.html", "x")
    put(web, "leak/list/x", "x")
    etag = etag_of(web, "/http/leak/letters.txt")

    def once() -> None:
        for fields in (
            [],
            [("Range", "bytes=0-1")],
            [("Range", "bytes=99-")],
            [("If-None-Match", etag)],
            [("If-Match", '"x"')],
        ):
            web.get("/http/leak/letters.txt", fields)
            web.ask("HEAD", "/http/leak/letters.txt", fields)
        for target in (
            "/http/leak/empty.txt",
            "/http/leak/list/",
            "/http/leak/sub",
            "/http/leak/no-such",
            "/http/leak/sub/",
        ):
            web.get(target)
        for _ in range(3):
            with web.connect() as connection:
                connection.send(wire.request("GET", "/http/leak/large.bin"))
                connection.read_head()
                connection.reset()

    def count() -> int:
        total = 0
        for pid in web.server.pids():
            with contextlib.suppress(OSError):
                links = [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")]
                total += sum("/http/leak/" in link for link in links)
        return total

    for _ in range(3):
        once()
    servers.wait_until(lambda: count() == 0, "the site's files are closed")


# ---- connections


@pytest.mark.parametrize(
    "target", ["/http/letters.txt", "/http/no-such", "/http/list/", "/cgi-bin/report.py", "/http/sub"]
)
def test_http_1_0_gets_no_chunks_and_is_closed(web: Host, target: str) -> None:
    """RFC 9112 sections 7.1 and 9.3; also without Host."""
    for host in ("127.0.0.1", None):
        with web.connect() as connection:
            connection.send(wire.request("GET", target, version="HTTP/1.0", host=host, close=False))
            answer = connection.read()
            assert (answer.get("Transfer-Encoding"), answer.status < 500) == (None, True)
            assert connection.rest() == b""


def test_http_1_0_may_stay_open_when_asked(web: Host) -> None:
    """RFC 9112 appendix C.2.2: with keep-alive the length is known, or the connection ends."""
    with web.connect() as connection:
        connection.send(wire.request("GET", "/http/letters.txt", [("Connection", "keep-alive")], version="HTTP/1.0"))
        answer = connection.read()
        assert (answer.text, answer.get("Transfer-Encoding")) == (LETTERS, None)
        if (answer.get("Connection") or "").lower() == "keep-alive":
            connection.send(wire.request("GET", "/http/letters.txt", version="HTTP/1.0", close=False))
            assert connection.read().text == LETTERS


def test_other_versions_are_no_failure(web: Host) -> None:
    """RFC 9112 section 2.3; 505 or a 400 says what it is."""
    for version in (
        "HTTP/2.0",
        "HTTP/3.0",
        "HTTP/0.9",
        "HTTP/9.9",
        "http/1.1",
        "HTTP/1",
        "HTTP/1.10",
        "X/1.1",
        "HTTP/1.1.1",
    ):
        answer = web.raw(wire.request("GET", "/http/letters.txt", version=version))
        assert answer.status in (200, 400, 426, 505), version


def test_higher_minor_version_is_answered_with_our_own(web: Host) -> None:
    """RFC 9110 section 2.5: the version in the answer is one that the server conforms to."""
    answer = web.raw(wire.request("GET", "/http/letters.txt", version="HTTP/1.2"))
    assert (answer.status, answer.raw[:9] in (b"HTTP/1.1 ", b"HTTP/1.0 ")) == (200, True) or answer.status in (400, 505)


def test_connection_takes_one_request_after_the_other(web: Host) -> None:
    """RFC 9112 section 9.3: files, 304, 404, HEAD, ranges, errors, redirects, scripts."""
    letters = "/http/letters.txt"
    asked = [
        ("GET", letters, [], None, 200),
        ("HEAD", letters, [], None, 200),
        ("GET", "/http/no-such", [], None, 404),
        ("GET", "/http/empty.txt", [], None, 200),
        ("GET", letters, [("Range", "bytes=1-2")], None, 206),
        ("HEAD", "/http/no-such", [], None, 404),
        ("GET", letters, [("Range", "bytes=99-")], None, 416),
        ("GET", "/http/sub", [], None, 301),
        ("GET", letters, [("If-Match", '"x"')], None, 412),
        ("GET", "/http/sub/", [], None, 200),
        ("GET", "/http/list/", [], None, 200),
        ("HEAD", "/http/large.bin", [], None, 200),
        ("GET", "/cgi-bin/", [], None, 403),
        ("GET", letters, [], None, 200),
    ]
    with web.connect() as connection:
        for number, (method, target, fields, body, status) in enumerate(asked):
            connection.send(wire.request(method, target, fields, body, close=False))
            answer = connection.read(method)
            assert answer.status == status, (number, method, target)
            if method == "GET" and target == letters and status == 200:
                assert answer.text == LETTERS
        connection.send(wire.request("GET", letters))
        assert connection.read().text == LETTERS
        assert connection.rest() == b""


def test_connection_goes_on_after_a_304(web: Host) -> None:
    """RFC 9112 section 6.3: a 304 ends with its head, whatever its fields say."""
    for method in ("GET", "HEAD"):
        with web.connect() as connection:
            connection.send(wire.request(method, "/http/letters.txt", [("If-None-Match", "*")], close=False))
            assert connection.read(method).status == 304
            connection.send(wire.request("GET", "/http/letters.txt"))
            assert connection.read().text == LETTERS


def test_body_that_nobody_reads_is_not_the_next_request(web: Host) -> None:
    """CWE-444: after a 404 or 405 the body is skipped, or the connection ends."""
    inner = wire.request("GET", "/http/letters.txt", close=False)
    for method, target in (
        ("POST", "/http/letters.txt"),
        ("POST", "/http/no-such"),
        ("PUT", "/http/sub/"),
        ("POST", "/cgi-bin/"),
    ):
        for fields, body in (([], inner), ([("Transfer-Encoding", "chunked")], wire.chunked(inner))):
            with web.connect() as connection:
                connection.send(wire.request(method, target, fields, body, close=False))
                connection.send(wire.request("GET", "/http/sub/index.html"))
                answer = connection.read()
                assert 400 <= answer.status < 500, (method, target, fields)
                try:
                    answer = connection.read()
                except wire.Fault:
                    continue  # closed
                assert "index of sub" in answer.text, (method, target, fields)
                assert connection.rest() == b""


def test_body_of_a_get_is_not_the_next_request(web: Host) -> None:
    """RFC 9110 section 9.3.1: content in a GET means nothing, but has a length."""
    inner = wire.request("GET", "/http/page.html", close=False)
    for method, target in (
        ("GET", "/http/letters.txt"),
        ("HEAD", "/http/letters.txt"),
        ("GET", "/http/sub"),
        ("GET", "/http/list/"),
    ):
        with web.connect() as connection:
            connection.send(wire.request(method, target, body=inner, close=False))
            connection.send(wire.request("GET", "/http/sub/index.html"))
            assert connection.read(method).status in (200, 301, 400)
            try:
                answer = connection.read()
            except wire.Fault:
                continue  # closed
            assert "index of sub" in answer.text, (method, target)
            assert connection.rest() == b""


def test_pipelined_requests_are_answered_in_order(web: Host) -> None:
    """RFC 9112 section 9.3.2."""
    targets = [
        "/http/letters.txt",
        "/http/no-such",
        "/http/sub/",
        "/http/empty.txt",
        "/http/list/",
        "/http/letters.txt",
    ]
    with web.connect() as connection:
        connection.send(b"".join(wire.request("GET", target, close=False) for target in targets))
        answers = [connection.read() for _ in targets]
        assert [answer.status for answer in answers] == [200, 404, 200, 200, 200, 200]
        assert (answers[0].text, answers[5].text, "index of sub" in answers[2].text) == (LETTERS, LETTERS, True)


def test_pipelined_heads_and_ranges_stay_apart(web: Host) -> None:
    """RFC 9112 section 6.3: answers without a body take none of the next."""
    letters = "/http/letters.txt"
    asked: list[tuple[str, list[tuple[str, str | bytes]], int]] = [
        ("HEAD", [], 200),
        ("GET", [("Range", "bytes=3-5")], 206),
        ("GET", [("If-Match", '"x"')], 412),
        ("HEAD", [], 200),
        ("GET", [], 200),
    ]
    with web.connect() as connection:
        connection.send(b"".join(wire.request(method, letters, fields, close=False) for method, fields, _ in asked))
        for method, _, status in asked:
            answer = connection.read(method)
            assert answer.status == status
        assert answer.text == LETTERS


def test_connection_is_closed_when_asked(web: Host) -> None:
    """RFC 9112 section 9.6: whatever the answer, and the token has no case."""
    for value in ("close", "Close", "CLOSE"):
        for target in ("/http/letters.txt", "/http/no-such", "/http/sub", "/http/list/"):
            with web.connect() as connection:
                connection.send(wire.request("GET", target, [("Connection", value)]))
                answer = connection.read()
                assert (answer.get("Connection") or "").lower() == "close"
                assert connection.rest() == b""


def test_request_may_come_byte_by_byte(web: Host) -> None:
    """RFC 9112 section 2.2: TCP knows no messages."""
    with web.connect() as connection:
        for byte in wire.request("GET", "/http/letters.txt", [("Range", "bytes=0-4")]):
            connection.send(bytes([byte]))
        assert connection.read().text == "abcde"


def test_empty_line_before_a_request_is_ignored(web: Host) -> None:
    """RFC 9112 section 2.2."""
    assert web.raw(b"\r\n" + wire.request("GET", "/http/letters.txt")).text == LETTERS


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        ["a", "b"],
        ["a", "a"],
        ["a b"],
        ["a/b"],
        ["a,b"],
        ["<x>"],
        ["a@b"],
        ["a?b"],
        ["a#b"],
        ["a:x"],
        ["a:1:2"],
        ["[::1"],
        ["a\\b"],
        ["http://a"],
        ["a", ""],
    ],
)
def test_request_says_once_whom_it_is_for(web: Host, hosts: list[str]) -> None:
    """RFC 9112 section 3.2: none, several and invalid ones give 400, for files and scripts."""
    for target in ("/http/letters.txt", "/cgi-bin/report.py", "/http/no-such"):
        data = b"GET %s HTTP/1.1\r\n" % target.encode()
        data += b"".join(b"Host: %s\r\n" % host.encode() for host in hosts)
        assert web.raw(data + b"Connection: close\r\n\r\n").status == 400, target


@pytest.mark.parametrize(
    "value", ["127.0.0.1", "127.0.0.1:80", "example.test", "[::1]", "[::1]:8000", "EXAMPLE.test:", "a_b.test", "xn--a"]
)
def test_ordinary_hosts_are_taken(web: Host, value: str) -> None:
    """RFC 9110 section 7.2."""
    assert web.get("/http/letters.txt", [("Host", value)]).text == LETTERS
    assert web.get("/http/letters.txt", [("hOST", value)]).text == LETTERS


def test_empty_host_is_taken_or_refused(web: Host) -> None:
    """RFC 9112 section 3.2: it is empty where the target has no authority."""
    assert web.get("/http/letters.txt", [("Host", "")]).status in (200, 400)


@pytest.mark.parametrize(
    "line",
    [
        b"GET",
        b"GET ",
        b"GET /http/letters.txt HTTP/1.1 x",
        b"GET  /http/letters.txt HTTP/1.1",
        b"GET /http/letters.txt  HTTP/1.1",
        b"GET\t/http/letters.txt\tHTTP/1.1",
        b"G(T /http/letters.txt HTTP/1.1",
        b"/http/letters.txt",
        b"GET HTTP/1.1",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /http/two words HTTP/1.1",
    ],
)
def test_malformed_request_line_is_refused(web: Host, line: bytes) -> None:
    """RFC 9112 section 3: nothing of the file comes, and the server lives."""
    with web.connect() as connection:
        connection.send(line + b"\r\nHost: a\r\nConnection: close\r\n\r\n")
        data = connection.rest()
    assert LETTERS.encode() not in data
    assert data == b"" or re.match(rb"HTTP/1\.[01] (4\d\d|50[15]) ", data), data[:80]


def test_blank_before_the_method_is_refused(web: Host) -> None:
    """RFC 9112 section 2.2: only empty lines may be passed over."""
    assert web.raw(b" " + wire.request("GET", "/http/letters.txt")).status == 400


@pytest.mark.parametrize(
    "field",
    [
        b"X-A : 1",
        b" X-A: 1",
        b"X A: 1",
        b": 1",
        b"X-A",
        b"X\0A: 1",
        b"X-A: a\0b",
        b"X-A: a\rb",
        b"X(A): 1",
        b"Content-Length: x",
        b"Content-Length: -1",
        b"Content-Length: +1",
        b"Content-Length: 1, 2",
        b"Content-Length: 0\r\nContent-Length: 5",
        b"Content-Length: 0x1",
        b"Transfer-Encoding: nonsense",
        b"Content-Length: 1_0",
        b"Content-Length: ",
    ],
)
def test_malformed_field_is_refused(web: Host, field: bytes) -> None:
    """RFC 9112 sections 5.1, 5.2 and 6.3 (CWE-444)."""
    request = b"GET /http/letters.txt HTTP/1.1\r\n%sHost: a\r\nConnection: close\r\n\r\n"
    data = request % (field + b"\r\n") if not field.startswith(b" ") else request % (b"X: 1\r\n" + field + b"\r\n")
    answer = web.raw(data)
    obs_fold = field.startswith(b" ")  # section 5.2 lets a server take it, with blanks in place of the line end
    assert 400 <= answer.status <= 501 or (obs_fold and answer.status == 200)
    assert answer.status != 500


def test_expectations_for_files(web: Host) -> None:
    """RFC 9110 section 10.1.1: no 100 is needed where the answer is known, but the answer must come."""
    with web.connect() as connection:
        data = wire.request("POST", "/http/letters.txt", [("Expect", "100-continue"), ("Content-Length", "5")])
        connection.send(data)
        begin = connection.read_some(12)
        if begin.startswith(b"HTTP/1.1 100"):
            connection.send(b"12345")
            begin += connection.rest()
        assert re.search(rb"(?m)^HTTP/1.1 (405|417) ", begin)


def test_expectation_without_a_body_is_answered(web: Host) -> None:
    """RFC 9110 section 10.1.1: a client must not send it, and a server must not wait."""
    answer = web.raw(wire.request("GET", "/http/letters.txt", [("Expect", "100-continue")]), timeout=8)
    assert (answer.status in (400, 417)) or (answer.status, answer.text) == (200, LETTERS)


def test_client_that_goes_away_harms_nobody(web: Host) -> None:
    """Half requests, resets at once and in the middle: others are served."""
    for data in (b"", b"GET", b"GET /http/letters.txt HTTP/1.1\r\n", wire.request("GET", "/http/large.bin")):
        for _ in range(4):
            connection = web.connect()
            connection.send(data)
            connection.reset()
    for _ in range(8):
        assert web.get("/http/letters.txt").text == LETTERS


def test_upgrade_is_not_taken_up(web: Host) -> None:
    """RFC 9110 section 7.8: a server may ignore it."""
    fields: list[tuple[str, str | bytes]] = [
        ("Connection", "Upgrade, close"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAAQ"),
    ]
    answer = web.raw(wire.request("GET", "/http/letters.txt", fields))
    assert (answer.status, answer.text) == (200, LETTERS)
