"""From URL to file, seen from outside: what may be had, what may be run, and what must never come out."""

from __future__ import annotations

import html.parser
import json
import os
import re
import socket
import stat
import sys
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
import wire
from conftest import Host

OUTSIDE = "text-of-a-file-outside-7f3a90"  # in every file that is not below the root
SOURCE = "text-of-a-source-b21c44"  # in every script and every private file beside one
HIDDEN = "text-of-a-dot-file-90e5d1"
STATIC_RUN = "a-static-file-was-run-5c77"
NEVER = {
    OUTSIDE: "a file outside of the root",
    SOURCE: "the text of a script or of a file beside one",
    HIDDEN: "a hidden file",
    STATIC_RUN: "the output of a file that is no script",
    "root:x:0:0:": "the system's users",
}
CANARY = f"# {SOURCE}\nprintf 'Content-Type: text/plain\\n\\nran:%s\\n' \"$REQUEST_METHOD\"\n"
MARKUP = "<script>alert(1)</script>"
ROOT = os.geteuid() == 0  # permission bits do not bind

ODD_NAMES = {  # id: a file's name
    "blank": "two words.txt",
    "percent": "100%25.txt",
    "question": "why?.txt",
    "hash": "no#1.txt",
    "plus": "a+b&c.txt",
    "semicolon": "a;v=1.txt",
    "colon": "c:drive.txt",
    "scheme": "javascript:alert(1).txt",
    "markup": "<img src=x onerror=alert(1)>.txt",
    "quotes": '"it\'s".txt',
    "attribute": 'x" onmouseover="alert(1).txt',
    "entity": "&lt;b&gt;&amp;.txt",
    "backslash": "up\\..\\down.txt",
    "umlauts": "grüße.txt",
    "chinese": "漢字.txt",
    "emoji": "😀.txt",
    "decomposed": "e\u0301.txt",
    "right-to-left": "abc\u202egpj.txt",
    "leading-blank": " first.txt",
    "trailing-blank": "last.txt ",
    "trailing-dot": "end.",
    "dash": "-rf.txt",
    "tilde": "~user.txt",
    "two-dots-inside": "a..b.txt",
    "brackets": "[1]{2}|^`.txt",
    "comma": "a,b=c@d$!*().txt",
    "tab": "a\tb.txt",
    "newline": "a\nb.txt",
    "carriage-return": "a\rX-Evil: 1\r\n.txt",
    "escape": "\x1b[31mred.txt",
    "latin-1": os.fsdecode(b"caf\xe9.txt"),
    "no-utf-8": os.fsdecode(b"\xff\xfe\x80.txt"),
    "percent-2e": "%2e%2e",
    "windows-device": "nul.txt",
}


@pytest.fixture(scope="module")
def web(host: Host) -> Host:
    """The server, with this module's files on its site."""
    directory = host.site.directory
    for name in ("map-outside.txt", "map-outside/secret.txt", f"{directory.name}-private/secret.txt"):
        _put(directory.parent / name, OUTSIDE)
    program = f"#!/bin/sh\n# {OUTSIDE}\nprintf 'Content-Type: text/plain\\n\\n%s\\n' {OUTSIDE}\n"
    _put(directory.parent / "map-outside.sh", program, 0o755)
    _put_static_files(host)
    _put_scripts(host)
    return host


def _put(place: Path, text: str, mode: int = 0o644) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    place.chmod(mode)


def _put_static_files(host: Host) -> None:
    file = host.site.file
    file("map.txt", "map\n")
    file("map/ok.txt", "ok\n")
    file("map/sub/index.html", "<p>index of sub")
    file("map/sub/deep/x.txt", "deep\n")
    for name in (".env", "map/.git/config", "map/.htpasswd", "map/.svn/entries", "map/sub/.secret", "map/old.txt~"):
        file(name, HIDDEN)
    file("map/.well-known/security.txt", "Contact: none\n")
    for name in ODD_NAMES.values():
        file(f"map/odd/{name}", f"content of {name!r}\n")
    runs = f"#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n%s\\n' {STATIC_RUN[:8]}''{STATIC_RUN[8:]}\n"
    for name in ("cgi-binary/run.sh", "cgi-bin2/run.cgi", "map/tools/run.cgi", "map/tools/run.sh", "map/cgi-bin/run"):
        file(name, runs, 0o755)
    file("cgi-binary/file.txt", "beside cgi-bin\n")


def _put_scripts(host: Host) -> None:
    sh, script = host.site.sh, host.site.script
    for name in ("map", "map.sh", "map-dir/map.sh", "map-dir.d/map.sh"):
        sh(name, CANARY)
    _put(host.site.directory / "htbin/map.sh", f"#!/bin/sh\n{CANARY}", 0o755)
    for name in ("map.sh~", "map.sh.bak", "map.sh.orig", "#map.sh#", ".map.sh.swp", ".map-hidden.sh"):
        sh(name, CANARY)  # executable, as copies of scripts are
    for name in ("map-data.txt", "map-notes.html", "map-private/config.ini", ".map-netrc", "map-noexec.sh"):
        script(name, f"#!/bin/sh\n{CANARY}", 0o644)
    script("map-unknown-interpreter", f"#!/nonexistent/interpreter\n{CANARY}")
    script("map-no-interpreter", CANARY)


# ---- means


def refused(answer: wire.Answer) -> bool:
    return 400 <= answer.status < 500


def ran(answer: wire.Answer) -> bool:
    return answer.status == 200 and answer.text == "ran:GET\n"


def ran_or_refused(answer: wire.Answer) -> bool:
    return ran(answer) or refused(answer)


def no_failure(answer: wire.Answer) -> bool:
    return 200 <= answer.status < 500


def problems(
    host: Host,
    targets: Iterable[str | bytes],
    wanted: Callable[[wire.Answer], bool] = refused,
    *,
    method: str = "GET",
    fields: Sequence[tuple[str, str]] = (),
    body: bytes | None = None,
) -> list[str]:
    """Ask for each target; tell which answers are not as wanted, or hold what never may come out."""
    found = []
    for target in targets:
        try:
            answer = host.raw(wire.request(method, target, list(fields), body), method, timeout=8)
        except (wire.Fault, OSError) as error:
            found.append(f"{target!r:.90}: {error}")
            continue
        everything = answer.raw + answer.body
        found += [f"{target!r:.90} gives {what}" for text, what in NEVER.items() if text.encode() in everything]
        if not wanted(answer):
            found.append(f"{target!r:.90}: {answer.status} {answer.reason} {answer.body[:60]!r}")
    return found


def quoted(name: str) -> str:
    return urllib.parse.quote(os.fsencode(name), safe="")


class Page(html.parser.HTMLParser):
    """What a browser would find in a page; the links of a listing without those that sort it or lead up."""

    def __init__(self, answer: wire.Answer) -> None:
        super().__init__()
        self.hrefs: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(answer.body.decode("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if dict(attrs).get("class") not in ("crumb", "sort"):
            self.hrefs += [value for name, value in attrs if name == "href" and value]


# ---- traversal


def test_dot_segments_do_not_leave_the_root(web: Host) -> None:
    """CWE-22; RFC 3986 section 5.2.4."""
    site = web.site.directory.name
    targets = ["/..", "/../", "/../map-outside.txt", "/./../map-outside.txt", "/.././map-outside.txt", "/map/../.."]
    targets += ["/map/../../map-outside.txt", "/map/sub/deep/../../../../map-outside/secret.txt", "/map/sub/../../.."]
    targets += [f"/../{site}-private/secret.txt", f"/../{site}/../map-outside.txt", "/../map-outside/"]
    targets += ["/map.txt/../../map-outside.txt", "/no-such/../../map-outside.txt", "/map/ok.txt/../../../etc/passwd"]
    targets += ["/../" * depth + "etc/passwd" for depth in (2, 8, 40)]
    targets += ["../map-outside.txt", "..", "./../map-outside.txt", f"/../{site}/map.txt/../../../etc/passwd"]
    assert problems(web, targets) == []


def test_encoded_dot_segments_do_not_leave_the_root(web: Host) -> None:
    """CWE-22; RFC 3986 section 6.2.2.2: an encoded dot is a dot."""
    ups = ["%2e%2e/", "%2E%2e/", ".%2e/", "%2E./", "..%2f", "..%2F", "%2e%2e%2f", ".%2E%2F", "%2e%2e%2f%2e%2f"]
    site = web.site.directory.name
    targets = [f"/{up}{name}" for up in ups for name in ("map-outside.txt", f"{site}-private/secret.txt")]
    targets += [f"/map/{up}{up}map-outside.txt" for up in ups] + [f"/{up * 12}etc/passwd" for up in ups]
    targets += ["/map%2f..%2f..%2fmap-outside.txt", "/map%2f%2e%2e/..%2fmap-outside.txt", "/%2e%2e", "/%2e%2e%2f"]
    targets += ["/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/..%2fmap-outside%2fsecret.txt", "/%2f..%2f..%2fmap-outside.txt"]
    assert problems(web, targets) == []


def test_what_looks_like_a_dot_segment_is_a_name(web: Host) -> None:
    """CWE-22, CWE-41: parameters of servlet containers, dots of Windows, blanks and controls around the dots."""
    ups = ["..;", "..;a=b", ".;/..;", "...", "....", "....//", "..%20", "%20..", "..%09", "%09..", "..%0a", ".%0a."]
    ups += ["..%0d", "..%0d%0a", ".%0d.", "..%3b", "..%3f", "..%23", "..%3a", "..%7e", ".%08.", "..%7f", "..%00"]
    ups += ["%00..", ".%00.", "..%01", ".+.", "..+", "..%2e%2e", ". .", ".. ", "..\t", ".\t.", "..;/..;", "*", "..*"]
    targets = [f"/{up}/map-outside.txt" for up in ups] + [f"/map/{up}/{up}/map-outside.txt" for up in ups]
    targets += ["/..?/map-outside.txt", "/..?../map-outside.txt", "/..#/map-outside.txt", "/.;/../map-outside.txt"]
    assert problems(web, targets) == []


def test_backslashes_are_no_slashes(web: Host) -> None:
    """CWE-22 on Windows; elsewhere a backslash is a letter."""
    ups = ["..\\", "..%5c", "%2e%2e%5c", "%2e%2e\\", "..%5C", "..\\/", "..%5c%5c", "\\..\\", "%5c..%5c", "..%255c"]
    ups += ["..%c1%9c", "..%c0%5c", "..%ef%bc%bc"]
    targets = [f"/{up}map-outside.txt" for up in ups] + [f"/map/{up}{up}map-outside.txt" for up in ups]
    targets += ["/\\etc\\passwd", "\\..\\map-outside.txt", "/map\\..\\..\\map-outside.txt", "/C:\\boot.ini", "/c:/x"]
    assert problems(web, targets) == []


def test_bad_utf_8_is_not_decoded_to_dots_and_slashes(web: Host) -> None:
    """CWE-176; RFC 3629 section 10: overlong forms; full-width forms; %u."""
    dots = [
        "%c0%ae",
        "%c0%2e",
        "%e0%80%ae",
        "%f0%80%80%ae",
        "%f8%80%80%80%ae",
        "%fc%80%80%80%80%ae",
        "%u002e",
        "%uff0e",
    ]
    dots += ["%ef%bc%8e", "%e2%80%a4", "%00%2e", "%2e%00", "%fe%2e", "%ae", "&#46;", "\\x2e", "%32%65", "0x2e"]
    slashes = ["%c0%af", "%c0%2f", "%e0%80%af", "%f0%80%80%af", "%u002f", "%u2215", "%ef%bc%8f", "%e2%81%84", "%af"]
    targets = [f"/{dot}{dot}/map-outside.txt" for dot in dots] + [f"/{dot * 2}%2fmap-outside.txt" for dot in dots]
    targets += [f"/..{slash}map-outside.txt" for slash in slashes]
    targets += [f"/%c0%ae%c0%ae{slash}map-outside.txt" for slash in slashes]
    targets += [b"/\xc0\xae\xc0\xae/map-outside.txt", b"/..\xc0\xafmap-outside.txt", b"/\xff\xfe.\x00.\x00/x"]
    assert problems(web, targets) == []


def test_nothing_is_decoded_twice(web: Host) -> None:
    """CWE-174; CVE-2021-42013."""
    ups = ["%252e%252e/", "%252e%252e%252f", "..%252f", "%25%32%65%25%32%65/", "%%32%65%%32%65/", "%%32e%%32e/"]
    ups += ["%2%65%2%65/", "%25252e%25252e/", "%252e.%252f", "..%25c0%25af", "%2525%32%65/"]
    targets = [f"/{up}map-outside.txt" for up in ups] + [f"/{up * 9}etc/passwd" for up in ups]
    targets += [f"/map/{up}{up}map-outside.txt" for up in ups]
    assert problems(web, targets) == []


def test_absolute_paths_start_at_the_root(web: Host) -> None:
    """CWE-36: joining with an absolute path forgets the root."""
    outside = str(web.site.directory.parent / "map-outside.txt")
    coded, half = outside.replace("/", "%2f"), "%2f" + outside[1:]
    targets = [f"/{outside}", f"//{outside}", f"/{coded}", f"/{half}", f"/map/{outside}", f"/map/{coded}", f"/{coded}/"]
    targets += [f"/cgi-bin/{outside}", f"/cgi-bin/{coded}", f"/.{outside}", f"/./{outside}", f"/map/..//{outside}"]
    targets += [
        "//etc/passwd",
        "///etc/passwd",
        "////etc/passwd",
        "/%2fetc/passwd",
        "/%2fetc%2fpasswd",
        "/.//etc/passwd",
    ]
    targets += ["/map//etc/passwd", "/map/%2fetc/passwd", "/file:///etc/passwd", "/file:%2f%2f/etc/passwd"]
    targets += ["/cgi-bin//etc/passwd", "/cgi-bin/%2fetc/passwd", "/~root/.bashrc", "/~/map-outside.txt", "/$HOME/x"]
    assert problems(web, targets) == []


def test_absolute_form_targets_name_what_their_path_names(web: Host) -> None:
    """RFC 9112 section 3.2.2: a server takes the absolute form from every client."""
    answer = web.get(f"http://127.0.0.1:{web.port}/map/ok.txt")
    assert (answer.status, answer.text) == (200, "ok\n")
    assert ran(web.get(f"http://127.0.0.1:{web.port}/cgi-bin/map.sh"))
    hosts = ["http://127.0.0.1", "http://evil.test", "https://evil.test:8", "http://[::1]", "http://u:p@evil.test"]
    tails = ["/../map-outside.txt", "/%2e%2e/map-outside.txt", "//etc/passwd", "/cgi-bin/", "/cgi-bin/map-data.txt"]
    assert problems(web, [host + tail for host in hosts for tail in tails]) == []
    assert (
        problems(web, ["http://127.0.0.1/../cgi-bin/map.sh", "http://127.0.0.1//cgi-bin/map.sh"], ran_or_refused) == []
    )


def test_targets_that_are_no_paths_give_nothing(web: Host) -> None:
    """RFC 9112 section 3.2: other schemes, authorities, and no target at all."""
    targets = [
        "file:///etc/passwd",
        f"file://{web.site.directory.parent}/map-outside.txt",
        "ftp://127.0.0.1/etc/passwd",
    ]
    targets += [
        "etc/passwd",
        "map.txt/../../map-outside.txt",
        "cgi-bin/map-data.txt",
        "data:text/html,x",
        "127.0.0.1:80",
    ]
    targets += ["*", "http:", "http://", "http:/..", "://", ":", "@", "%2e%2e/map-outside.txt"]
    assert problems(web, targets, no_failure) == []


def test_malformed_absolute_form_is_refused(web: Host) -> None:
    """RFC 9112 section 3.2; RFC 3986 section 3.2.2: a bracket without its end."""
    assert problems(web, ["http://[::1/map.txt", "http://[/map.txt", "http://]/map.txt"], no_failure) == []


def test_options_for_the_whole_server_is_no_failure(web: Host) -> None:
    """RFC 9110 section 9.3.7."""
    assert web.ask("OPTIONS", "*").status in {*range(200, 300), *range(400, 500), 501}


def test_no_program_outside_is_run(web: Host) -> None:
    """CVE-2021-41773, CVE-2021-42013: a shell reached by dots would run the body."""
    ups = ["/..", "/.%2e", "/%2e%2e", "/%2E.", "/..%2f..", "/%%32%65%%32%65", "/%252e%252e", "/..;", "/%c0%ae%c0%ae"]
    ups += ["/..%5c..", "//..", "/map-dir/../..", "/map.sh/../..", "/./.."]
    targets = [f"/{space}{up * 12}{tail}" for space in ("cgi-bin", "htbin") for up in ups for tail in ("/bin/sh",)]
    targets += [f"/cgi-bin{up * 12}/usr/bin/env" for up in ups]
    body = b"echo Content-Type: text/plain; echo; echo text-of-a-file-''outside-7f3a90\n"
    assert problems(web, targets, method="POST", body=body) == []
    targets = [f"/cgi-bin{up * n}/map-outside.sh" for up in ups for n in (1, 2)]
    assert problems(web, [*targets, "/../map-outside.sh", "/%2e%2e/map-outside.sh"]) == []


def test_attempts_at_traversal_are_no_failures(web: Host) -> None:
    """RFC 9110 section 15.6: a 5xx would say that the server is at fault."""
    targets: list[str | bytes] = [
        "/../x",
        "/%2e%2e/x",
        "/..%2fx",
        "/..%5cx",
        "/..;/x",
        "/..%00/x",
        "/%00",
        "/%c0%ae%c0%ae/x",
    ]
    targets += ["/cgi-bin/../../x", "/cgi-bin/..%2f..%2fx", "/%252e%252e/x", "//etc/passwd", "/cgi-bin/%00", "/\\..\\x"]
    targets += ["/..%ff/x", "/" + "../" * 1500, "/" + "%2e%2e%2f" * 800, "/" + "map/../" * 900, "/" + "./" * 3000]
    targets += ["/" + "/" * 7000, "/" + "%2f" * 2000, "/map" + "/." * 3000, b"/\xff\xfe\xfd", b"/..\xff/x", "/%ff%fe"]
    assert problems(web, targets, no_failure) == []


@pytest.mark.parametrize(
    "target",
    [
        "/map/./ok.txt",
        "/map/sub/../ok.txt",
        "/./map/ok.txt",
        "/m%61p/ok.txt",
        "/map/%6fk.txt",
        "/map/sub/deep/../../ok.txt",
        "/map/ok%2Etxt",
        "/map/ok%2etxt",
        "/map/%2e/ok.txt",
        "/map/sub/%2e%2e/ok.txt",
        "/map/ok.txt?x=../..",
        "/map/ok.txt?",
        "/map/.//sub/../ok.txt",
    ],
)
def test_equivalent_paths_name_the_same_file(web: Host, target: str) -> None:
    """RFC 3986 section 6.2.2: percent-encoding and dot segments make no other resource."""
    answer = web.get(target)
    assert (answer.status, answer.text) == (200, "ok\n")


# ---- scripts are run, never delivered


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH", "PROPFIND", "TRACE", "get", "MADEUP", "COPY"]
)
def test_no_method_and_no_field_gives_a_script_s_text(web: Host, method: str) -> None:
    """CWE-540; "Translate: f" is that of IIS."""
    cases: list[tuple[str, str]] = [("X-Nothing", "1"), ("Range", "bytes=0-60"), ("Translate", "f"), ("Depth", "1")]
    cases += [("If-Modified-Since", "Wed, 01 Jan 2020 00:00:00 GMT"), ("If-None-Match", "*"), ("Accept", "text/x-sh")]
    cases += [("X-HTTP-Method-Override", "GET"), ("X-Original-URL", "/map.txt"), ("X-Rewrite-URL", "/map.txt")]
    body = b"x" if method in ("POST", "PUT", "PATCH") else None
    for field in cases:
        faults = problems(
            web, ["/cgi-bin/map.sh", "/cgi-bin/map"], no_failure, method=method, fields=[field], body=body
        )
        assert faults == [], field


def test_more_slashes_do_not_give_a_script_s_text(web: Host) -> None:
    """CVE-2011-1015, bpo-2254."""
    targets = [
        f"{a}{space}{b}map.sh{c}"
        for space in ("cgi-bin", "htbin")
        for a, b, c in (
            ("//", "/", ""),
            ("///", "/", ""),
            ("/", "//", ""),
            ("/", "///", ""),
            ("//", "//", ""),
            ("////", "////", ""),
            ("/", "/", "/"),
            ("/", "/", "//"),
            ("//", "/", "//"),
            ("/.//", "/", ""),
            ("/", "//./", ""),
            ("/", "/map-dir//", ""),
            ("/", "/map-dir//../", ""),
            ("//", "/map-dir/../", ""),
            ("//x//..//", "/", ""),
            ("//./", "/", ""),
        )
    ]
    targets += ["//cgi-bin/map-data.txt", "/cgi-bin//map-data.txt", "//cgi-bin/.map-netrc", "//cgi-bin//map-noexec.sh"]
    assert problems(web, targets, ran_or_refused) == []


def test_encoding_does_not_give_a_script_s_text(web: Host) -> None:
    """CVE-2014-4650: the decoded path decides."""
    targets = [
        "/cgi-bin%2fmap.sh",
        "/cgi-bin%2Fmap.sh",
        "/%2fcgi-bin/map.sh",
        "/%2fcgi-bin%2fmap.sh",
        "/cgi-bin%2f%2fmap.sh",
    ]
    targets += ["/%63gi-bin/map.sh", "/cgi%2dbin/map.sh", "/cgi-bin/%6dap.sh", "/cgi-bin/map%2esh", "/cgi-bin/map.s%68"]
    targets += ["/%63%67%69%2d%62%69%6e%2f%6d%61%70%2e%73%68", "/cgi-bin/%2fmap.sh", "/cgi-bin%2fmap-data.txt"]
    targets += [
        "/cgi-bin%2f.map-netrc",
        "/cgi-bin%5cmap.sh",
        "/cgi-bin\\map.sh",
        "/cgi-bin%252fmap.sh",
        "/cgi-bin%c0%afmap.sh",
    ]
    targets += [
        "/%2e/cgi-bin/map.sh",
        "/cgi-bin%2f%2e%2fmap.sh",
        "/%68tbin%2fmap.sh",
        "/cgi-bin%00/map.sh",
        "/cgi-bin%2",
    ]
    targets += ["/cgi%u002dbin/map.sh", "/cgi-bin%ef%bc%8fmap.sh", "/cgi\xadbin/map.sh", "/cgi-bin%2fmap.sh%2f"]
    assert problems(web, targets, ran_or_refused) == []


def test_dot_segments_do_not_give_a_script_s_text(web: Host) -> None:
    """CVE-2011-1015; RFC 3986 section 5.2.4."""
    prefixes = [
        "/.",
        "/map/..",
        "/no-such/..",
        "/..",
        "/%2e",
        "/map/%2e%2e",
        "/map.txt/..",
        "/./",
        "/x/../",
        "/map/..%2f",
    ]
    prefixes += ["/map/sub/../..", "/htbin/..", "/cgi-bin/..", "/cgi-bin/map.sh/../..", "/map/..%5c", "/.;", "/..;"]
    names = ["cgi-bin/map.sh", "cgi-bin/map-data.txt", "cgi-bin/.map-netrc", "cgi-bin%2fmap.sh", "htbin/map.sh"]
    targets = [f"{prefix}/{name}" for prefix in prefixes for name in names]
    targets += ["/cgi-bin/./map.sh", "/cgi-bin/map-dir/../map.sh", "/cgi-bin/no-such/../map.sh", "/cgi-bin/map.sh/."]
    targets += [
        "/cgi-bin/map.sh/..",
        "/cgi-bin/map.sh/x/..",
        "/cgi-bin/%2e/map.sh",
        "/cgi-bin/map-private/../map-data.txt",
    ]
    assert problems(web, targets, lambda a: ran_or_refused(a) or a.status == 301) == []


@pytest.mark.parametrize(
    "target",
    [
        "/cgi-bin/map.sh",
        "/cgi-bin/./map.sh",
        "/%63gi-bin/map.sh",
        "/cgi%2Dbin/map%2esh",
        "/map/../cgi-bin/map.sh",
        "/cgi-bin/map-dir/../map.sh",
        "/no-such/../cgi-bin/map.sh",
        "/./cgi-bin/map.sh?x",
        "/map/%2e%2e/cgi-bin/map.sh",
        "/cgi-bin/map.sh/",
        "/cgi-bin/map.sh/extra",
        "/htbin/map.sh",
        "/cgi-bin/map-dir/map.sh",
        "/cgi-bin/map.sh/.hidden",
    ],
)
def test_equivalent_paths_run_the_same_script(web: Host, target: str) -> None:
    """RFC 3986 section 6.2.2; RFC 3875 section 3.3."""
    answer = web.get(target)
    assert (answer.status, answer.text) == (200, "ran:GET\n")


def test_almost_the_script_directory_s_name_gives_no_text(web: Host) -> None:
    """CWE-41, CWE-178: case, parameters, dots, blanks and streams of other file systems."""
    directories = ["cgi-bin;x", "cgi-bin;", "cgi-bin.", "cgi-bin..", "cgi-bin%20", "cgi-bin%2e", "cgi-bin ", "CGI-BIN"]
    directories += [
        "Cgi-Bin",
        "cgi-bin::$DATA",
        "cgi-bin:$I30:$INDEX_ALLOCATION",
        "CGI-BI~1",
        "cgi-bin%00",
        "cgi-bin%09",
    ]
    directories += [
        "cgi-bin%0a",
        "%20cgi-bin",
        "cgi-bi%C5%84",
        "cgi%20-bin",
        "cgi-bin*",
        "cgi-bi?",
        "cgi-bin#",
        "cgi_bin",
    ]
    targets = [f"/{name}/{file}" for name in directories for file in ("map.sh", "map-data.txt", "")]
    assert problems(web, targets) == []


def test_almost_a_script_s_name_gives_no_text(web: Host) -> None:
    """CWE-41: CVE-2001-0500 and its kin."""
    tails = [
        ".",
        "..",
        "...",
        "%20",
        "%20%20",
        " ",
        "%2e",
        "%00",
        "%00.txt",
        "%00.html",
        "::$DATA",
        "%3a%3a$DATA",
        ":x",
    ]
    tails += [
        "%0a",
        "%0d",
        "%09",
        "%5c",
        "\\",
        ";",
        ";.txt",
        "%3b.txt",
        "%7e",
        "~1",
        "%3f",
        "%23",
        "*",
        "%2a",
        "%25",
        "%ff",
    ]
    tails += [".txt", ".bak", ".old", ".save", "+", ",v", "_", "%c0%80", "%e2%80%8b", ".SH", "%26"]
    targets = [f"/cgi-bin/map.sh{tail}" for tail in tails] + ["/cgi-bin/MAP.SH", "/cgi-bin/Map.sh", "/cgi-bin/map.s"]
    assert problems(web, targets, ran_or_refused) == []


def test_copies_and_data_beside_scripts_are_not_delivered(web: Host) -> None:
    """CWE-530: what editors leave behind, and what scripts read; executable copies are not run either."""
    names = ["map.sh~", "map.sh.bak", "map.sh.orig", "%23map.sh%23", ".map.sh.swp", ".map-hidden.sh", ".map-netrc"]
    names += ["map-data.txt", "map-notes.html", "map-private/config.ini", "map-noexec.sh", "map-data.txt/"]
    names += [
        "map-data.txt/x",
        "map-private/../map-data.txt",
        "map-noexec.sh/x",
        "./.map-netrc",
        "map-private/./config.ini",
    ]
    targets = [f"/cgi-bin/{name}" for name in names]
    assert problems(web, targets) == []
    assert problems(web, targets, method="POST", body=b"x") == []
    assert problems(web, targets, method="HEAD") == []


def test_script_that_cannot_start_keeps_its_text(web: Host) -> None:
    """CWE-540: an error is answered in place of the source."""
    targets = ["/cgi-bin/map-unknown-interpreter", "/cgi-bin/map-no-interpreter", "/cgi-bin/map-noexec.sh"]
    assert problems(web, targets, lambda answer: answer.status in (200, 403, 404, 500, 502)) == []


def test_links_to_scripts_do_not_give_their_text(web: Host) -> None:
    """CWE-59: from the static tree to a script, to its directory, and in two steps."""
    place = web.site.directory / "map/links"
    place.mkdir(exist_ok=True)
    for name, to in (("script.txt", "../../cgi-bin/map.sh"), ("scripts", "../../cgi-bin"), ("step.txt", "script.txt")):
        _link(place / name, to)
    _link(place / "data.txt", str(web.site.directory / "cgi-bin/map-data.txt"))
    targets = [f"/map/links/{name}" for name in ("script.txt", "step.txt", "scripts/map.sh", "scripts/map-data.txt")]
    targets += ["/map/links/data.txt", "/map/links/scripts/", "/map/links/scripts/map-dir/map.sh", "/map/links/scripts"]
    assert problems(web, targets) == []


def _link(place: Path, to: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.is_symlink():
        place.symlink_to(to)


def test_script_directories_are_not_listed(web: Host) -> None:
    """CWE-548."""
    for space in ("cgi-bin", "htbin"):
        paths = [
            "/{}",
            "/{}/",
            "//{}",
            "//{}/",
            "/{}//",
            "/{}/.",
            "/{}/./",
            "/{}%2f",
            "/./{}/",
            "/map/../{}/",
            "/{}/?x",
        ]
        paths += [
            "/{}/..%2f{}/",
            "/{}/../{}",
            "/{}/no-such/..",
            "/{}/no-such/../",
            "/%2e/{}",
            "/{}/%2e",
            "/{}/index.html",
        ]
        targets = [path.replace("{}", space) for path in paths]
        for target in targets:
            answer = web.get(target)
            assert answer.status in (403, 404), target
            assert "map" not in answer.text, target
    more = [
        "/cgi-bin/map-dir",
        "/cgi-bin/map-dir/",
        "/cgi-bin/map-dir/..",
        "/cgi-bin/map-private/",
        "/cgi-bin/map-dir.d/",
    ]
    assert problems(web, [*more, "/%63gi-bin/", "/cgi-bin/map-private/..", "/cgi-bin/map-private/../"]) == []
    for fields in ([("Accept", "application/json")], [("Accept", "*/*"), ("Depth", "1")]):
        assert problems(web, ["/cgi-bin/", "/cgi-bin/map-dir/"], fields=fields) == []


def test_only_script_directories_hold_scripts(web: Host) -> None:
    """CWE-434: an execute bit makes no script, nor does a longer name."""
    targets = ["/cgi-binary/run.sh", "/cgi-bin2/run.cgi", "/map/tools/run.cgi", "/map/tools/run.sh", "/map/cgi-bin/run"]
    targets += ["/cgi-bin/../map/tools/run.cgi", "/cgi-bin/%2e%2e/map/tools/run.sh", "/cgi-bin/..%2fmap/tools/run.sh"]
    targets += [
        "/cgi-bin/../cgi-binary/run.sh",
        "/map/tools/run.cgi/x",
        "/map/cgi-bin/run/x",
        "/map/cgi-bin/../tools/run.sh",
    ]
    assert problems(web, targets, no_failure) == []
    assert problems(web, targets, lambda a: a.status in (404, 405), method="POST", body=b"x") == []
    assert web.get("/cgi-binary/file.txt").text == "beside cgi-bin\n"


@pytest.mark.parametrize(
    "name",
    [
        "map blank",
        "map%41",
        "map;x=1",
        "map+",
        "map-é",
        "-map",
        "map?x",
        "map#x",
        "map&x",
        "map'\"x",
        "map$x`x`",
        "map\\x",
        "map.d.x/map",
        "map*",
        "map=x",
        "漢字",
        "map\nx",
        "map,x",
        "map|x;id",
        "map:x",
        "~map",
        "map@x",
        "map!",
    ],
)
def test_scripts_with_odd_names_run(web: Host, name: str) -> None:
    """RFC 3986 section 2.1; and no shell reads the name (CWE-78)."""
    web.site.sh(name, CANARY)
    for tail in ("", "/x?y", "?a=b"):
        answer = web.get("/cgi-bin/" + urllib.parse.quote(name) + tail)
        assert (answer.status, answer.text) == (200, "ran:GET\n"), tail


def test_script_that_is_gone_is_not_found_and_a_new_one_runs(web: Host) -> None:
    """RFC 9110 section 15.5.5: nothing is remembered about files."""
    assert web.get("/cgi-bin/map-soon.sh").status == 404
    script = web.site.sh("map-soon.sh", CANARY)
    assert ran(web.get("/cgi-bin/map-soon.sh"))
    script.chmod(0o644)
    assert web.get("/cgi-bin/map-soon.sh").status == 403
    script.unlink()
    assert web.get("/cgi-bin/map-soon.sh").status == 404


# ---- redirects and error pages


def test_redirects_stay_on_this_host(web: Host) -> None:
    """CVE-2021-28861; CWE-601: a path with two slashes in front would be another host."""
    spellings = [
        "//map",
        "///map",
        "////map/sub",
        "//evil.test/%2e%2e/map",
        "//evil.test/../map",
        "//evil.test/..%2fmap",
    ]
    spellings += [
        "/%2fevil.test/%2e%2e/map",
        "/%2f%2fevil.test/%2e%2e/map",
        "/%5cevil.test/%2e%2e/map",
        "/.//map",
        "/..//map",
    ]
    spellings += [
        "//evil.test%2f..%2fmap",
        "/%09/evil.test/%2e%2e/%2e%2e/map",
        "//evil.test@x/../map",
        "//map?x=//evil.test",
    ]
    spellings += [
        "///evil.test/..//map",
        "/x/..//map",
        "/%2e//map",
        "/\\evil.test/../map",
        "//map%3f",
        "//cgi-bin",
        "/%2fmap",
    ]
    spellings += [
        "http://evil.test//map",
        "http://evil.test/map",
        "//map#//evil.test",
        "/;//evil.test/../../map",
        "//map/sub",
    ]
    for target in spellings:
        answer = web.get(target)
        assert answer.status < 500, target
        location = answer.get("Location")
        if location is not None:
            assert not re.match(r"[/\\]{2}|/[\\\t\r\n]", location), (target, location)
            there = urllib.parse.urljoin(f"http://127.0.0.1:{web.port}/", location)
            assert urllib.parse.urlsplit(there).netloc == f"127.0.0.1:{web.port}", (target, location)


@pytest.mark.parametrize("field", ["Host", "X-Forwarded-Host", "Forwarded", "X-Forwarded-Server", "X-Host"])
def test_fields_do_not_choose_where_redirects_lead(web: Host, field: str) -> None:
    """CWE-644, CWE-601: a cache would hand the answer to others."""
    value = "for=1.2.3.4;host=evil.test" if field == "Forwarded" else "evil.test"
    answer = web.get("/map/sub", [(field, value)])
    assert (answer.status, answer.get("Location")) == (301, "/map/sub/")
    assert "evil.test" not in answer.text


@pytest.mark.parametrize("name", [name for name in ODD_NAMES.values() if name != "%2e%2e"])
def test_directory_with_an_odd_name_is_redirected_and_opened(web: Host, name: str) -> None:
    """RFC 3986 section 2.1; CWE-113: a name with CR and LF makes no field."""
    web.site.file(f"map/odd-dirs/{name}/index.html", f"<p>index of {name!r}")
    target = "/map/odd-dirs/" + quoted(name)
    answer = web.get(target + "?a=%0d%0aX-Evil:%201&b=c")
    assert (answer.status, answer.get("X-Evil")) == (301, None)
    location = answer.get("Location") or ""
    assert re.fullmatch(r"[!-~]+", location)
    path, _, query = location.partition("?")
    assert (urllib.parse.unquote_to_bytes(path), query) == (
        urllib.parse.unquote_to_bytes(target) + b"/",
        "a=%0d%0aX-Evil:%201&b=c",
    )
    followed = web.get(
        urllib.parse.urljoin(f"http://127.0.0.1:{web.port}{target}", location).partition(str(web.port))[2]
    )
    assert (followed.status, followed.body) == (200, f"<p>index of {name!r}".encode())


def test_no_field_can_be_made_from_a_target(web: Host) -> None:
    """CWE-113: encoded line ends in paths and queries."""
    for line_end in ("%0d%0a", "%0a", "%0d", "%E5%98%8A%E5%98%8D", "%00%0d%0a", "%250d%250a"):
        evil = f"{line_end}X-Evil:%20yes{line_end}{line_end}x"
        for target in (f"/map/sub{evil}", f"/map/sub?{evil}", f"/{evil}", f"/map/sub/..{evil}", f"/map?x{evil}"):
            answer = web.get(target)
            assert (answer.status < 500, answer.get("X-Evil")) == (True, None), target


def test_error_pages_repeat_no_markup(web: Host) -> None:
    """CWE-79: whatever part of the request it stands in."""
    coded = urllib.parse.quote(MARKUP, safe="")
    cases: list[tuple[str, str, list[tuple[str, str | bytes]]]] = [
        (method, f"{path}/{spelling}", [])
        for method in ("GET", "POST")
        for path in ("", "/cgi-bin", "/map.txt", "/cgi-bin/map-noexec.sh", "/map/sub", "/map/.git")
        for spelling in (MARKUP, coded)
    ]
    fields = (
        "Host",
        "Expect",
        "Range",
        "Referer",
        "User-Agent",
        "Accept",
        "Content-Type",
        "If-Match",
        "Cookie",
        "From",
    )
    cases += [("GET", "/no-such", [(name, MARKUP)]) for name in fields]
    cases += [
        ("GET", "/map.txt", [("Range", f"bytes={MARKUP}")]),
        ("GET", f"/map.txt?{MARKUP}", [("If-Match", MARKUP)]),
    ]
    cases += [(MARKUP, "/map.txt", []), ("GET", f"http://{MARKUP}/no-such", []), ("POST", "/map.txt", [("X", MARKUP)])]
    cases += [("GET", "/no-such", [("Transfer-Encoding", MARKUP)]), ("GET", "/no-such", [("Content-Length", MARKUP)])]
    for method, target, more in cases:
        answer = web.ask(method, target, more)
        if answer.media_type in ("text/html", "application/xhtml+xml", "image/svg+xml", ""):
            assert MARKUP.encode() not in answer.body, (method, target, more)


def test_error_pages_tell_nothing_of_the_machine(web: Host) -> None:
    """CWE-209."""
    root = web.site.directory
    web.site.file("map/secret-mode.txt", "x", 0o000)
    _link(root / "map/away.txt", "../../map-outside.txt")
    targets = [
        "/no-such",
        "/cgi-bin/no-such",
        "/cgi-bin/map-noexec.sh",
        "/cgi-bin/map-unknown-interpreter",
        "/%00",
        "/.env",
    ]
    targets += [
        "/cgi-bin/",
        "/cgi-bin/%00",
        "/" + "x" * 300,
        "/map/away.txt",
        "/map/secret-mode.txt",
        "/map.txt/x",
        "/..",
        "*",
    ]
    targets += [
        "/cgi-bin/map-no-interpreter",
        "/map/sub/../..",
        "http://[",
        "/%ff",
        "/cgi-bin/" + "y" * 300,
        "/cgi-bin/map~",
    ]
    words = [
        str(root),
        str(root.parent),
        root.parent.name,
        str(Path(sys.executable).parent),
        "Traceback",
        'File "',
        ".py",
    ]
    words += ["Errno", "Permission denied", "No such file"]
    for target in targets:
        try:
            answer = web.get(target)
        except wire.Fault:  # no answer tells nothing
            continue
        shown = (answer.raw + answer.body).decode("latin-1")
        assert [word for word in words if word in shown] == [], target


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/no-such", 404),
        ("/cgi-bin/no-such", 404),
        ("/cgi-bin/", 403),
        ("/map/.git/config", 404),
        ("/cgi-bin/map-noexec.sh", 403),
    ],
)
def test_error_pages_are_whole_documents(web: Host, target: str, status: int) -> None:
    """RFC 9110 sections 8.3 and 15.5; and none is stored for long (9111 section 4.2.2 has no validator to go by)."""
    answer = web.get(target)
    assert (answer.status, answer.get("Content-Type")) == (status, "text/html; charset=utf-8")
    assert answer.get("Content-Length") == str(len(answer.body))
    assert (answer.get("ETag"), answer.get("Last-Modified"), answer.get("Accept-Ranges")) == (None, None, None)
    assert answer.text.lower().startswith("<!doctype html>")


# ---- hidden files, links, special files


def test_hidden_files_are_not_served(web: Host) -> None:
    """CWE-538; RFC 8615."""
    names = [".env", "map/.git/config", "map/.htpasswd", "map/.svn/entries", "map/sub/.secret", "map/old.txt~"]
    targets = ["/" + name for name in names] + ["//" + name for name in names] + ["/./" + name for name in names]
    targets += ["/%2eenv", "/map/%2egit/config", "/map/%2Egit/", "/map/.git", "/map/.git/", "/map/sub/../.git/config"]
    targets += [
        "/map/.git/../.git/config",
        "/map/.git%2fconfig",
        "/map//.git//config",
        "/map/old.txt%7e",
        "/map/.git/.",
        "/.env/",
    ]
    assert problems(web, targets) == []
    assert problems(web, targets, method="HEAD") == []


def test_well_known_is_not_hidden(web: Host) -> None:
    """RFC 8615 section 3."""
    assert web.get("/map/.well-known/security.txt").text == "Contact: none\n"


def test_links_inside_work(web: Host) -> None:
    """Links are how people arrange a site."""
    place = web.site.directory / "map/inside"
    for name, to in (("file.txt", "../ok.txt"), ("directory", "../sub"), ("twice.txt", "file.txt"), ("up", "..")):
        _link(place / name, to)
    _link(place / "absolute.txt", str(web.site.directory / "map/ok.txt"))
    for name in ("file.txt", "twice.txt", "absolute.txt", "up/ok.txt", "up/inside/up/ok.txt"):
        answer = web.get(f"/map/inside/{name}")
        assert (answer.status, answer.text) == (200, "ok\n"), name
    assert web.get("/map/inside/directory/").text == "<p>index of sub"
    assert web.get("/map/inside/directory/deep/x.txt").text == "deep\n"
    assert web.get("/map/inside/directory").get("Location") == "/map/inside/directory/"


def test_links_that_lead_outside_are_not_followed(web: Host) -> None:
    """CWE-59: files, directories, an index, siblings whose names begin like the root's, and ways back in."""
    root = web.site.directory
    place = root / "map/escapes"
    links = {
        "file.txt": "../../../map-outside.txt",
        "directory": "../../../map-outside",
        "root": "/",
        "step": "directory",
    }
    links |= {"private": f"../../../{root.name}-private", "absolute.txt": str(root.parent / "map-outside.txt")}
    links |= {"indexed/index.html": "../../../../map-outside.txt", "users.txt": "/etc/passwd", "proc": "/proc/self"}
    for name, to in links.items():
        _link(place / name, to)
    names = [
        "file.txt",
        "directory/secret.txt",
        "directory/",
        "directory",
        "root/etc/passwd",
        "root/",
        "step/secret.txt",
    ]
    names += [
        "private/secret.txt",
        "absolute.txt",
        "indexed/",
        "indexed/index.html",
        "users.txt",
        "proc/environ",
        "proc/cwd/",
    ]
    names += ["directory/../file.txt", f"root{root}/../map-outside.txt", "file.txt/", "file.txt?x", "directory/no-such"]
    assert problems(web, [f"/map/escapes/{name}" for name in names]) == []
    listed = Page(web.get("/map/escapes/")).hrefs
    assert [href for href in listed if href not in ("../", "indexed/")] == []


def test_links_to_nothing_and_in_circles_are_not_found(web: Host) -> None:
    """CWE-61: ELOOP and ENOENT are the site's matter, no failure of the server."""
    place = web.site.directory / "map/bad-links"
    for name, to in (("self", "self"), ("a", "b"), ("b", "a"), ("dangling.txt", "nowhere"), ("deep", "self/x/y")):
        _link(place / name, to)
    for name, to in (("map-self", "map-self"), ("map-dangling", "nowhere")):
        _link(web.site.directory / "cgi-bin" / name, to)
    names = ["self", "self/", "self/x", "a", "b/", "dangling.txt", "dangling.txt/", "deep", "deep/z"]
    targets = [f"/map/bad-links/{name}" for name in names] + [
        "/cgi-bin/map-self",
        "/cgi-bin/map-dangling",
        "/cgi-bin/map-self/x",
    ]
    assert problems(web, targets, lambda answer: answer.status in (403, 404)) == []
    assert Page(web.get("/map/bad-links/")).hrefs == ["../"]


def _special_files(place: Path) -> list[str]:
    """Put a FIFO, a socket, and a device where that is allowed into a directory; their names."""
    place.mkdir(parents=True, exist_ok=True)
    if not (place / "fifo").exists():
        os.mkfifo(place / "fifo", 0o666)
    if not (place / "socket").exists():
        descriptor = os.open(place, os.O_RDONLY)
        try:
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(f"/proc/self/fd/{descriptor}/socket")  # addresses are short
        finally:
            os.close(descriptor)
    names = ["fifo", "socket"]
    for name, minor in (("zero", 5), ("null", 3)):
        try:
            if not (place / name).exists():
                os.mknod(place / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        except PermissionError:
            _link(place / name, f"/dev/{name}")
        names.append(name)
    return names


def test_special_files_are_refused_at_once(web: Host) -> None:
    """CWE-400: a FIFO without a writer blocks who opens it, /dev/zero never ends."""
    directory = web.site.directory
    names = _special_files(directory / "map/special")
    _special_files(directory / "cgi-bin/map-special")
    targets = [f"/map/special/{name}" for name in names] + [f"/cgi-bin/map-special/{name}" for name in names]
    targets += ["/map/special/fifo/", "/map/special/fifo/x", "/cgi-bin/map-special/fifo/x", "/map/special/socket/"]
    wanted = (403, 404)
    assert problems(web, targets, lambda answer: answer.status in wanted) == []
    assert problems(web, targets, lambda answer: answer.status in wanted, method="HEAD") == []
    assert web.get("/map/ok.txt").text == "ok\n"


def test_special_file_as_index_does_not_block(web: Host) -> None:
    """CWE-400: the index is found by name too."""
    place = web.site.directory / "map/special-index"
    place.mkdir(exist_ok=True)
    if not (place / "index.html").exists():
        os.mkfifo(place / "index.html")
    answer = web.get("/map/special-index/")
    assert answer.status in (200, 403, 404)
    assert "index.html" not in answer.text


def test_special_files_are_not_listed(web: Host) -> None:
    """A listing shows what can be had."""
    _special_files(web.site.directory / "map/special")
    assert Page(web.get("/map/special/")).hrefs == ["../"]


def test_unreadable_files_and_directories_are_refused(web: Host) -> None:
    """RFC 9110 section 15.5.4; root may read everything."""
    web.site.file("map/unreadable.txt", "for nobody\n", 0o000)
    web.site.file("map/closed/file.txt", "for nobody\n")
    web.site.file("map/no-list/file.txt", "known by name\n")
    web.site.file("map/closed-index/index.html", "for nobody\n", 0o000)
    (web.site.directory / "map/closed").chmod(0o000)
    (web.site.directory / "map/no-list").chmod(0o111)
    wanted = {200} if ROOT else {403, 404}
    targets = ["/map/unreadable.txt", "/map/closed/", "/map/closed/file.txt", "/map/closed-index/", "/map/no-list/"]
    assert problems(web, targets, lambda answer: answer.status in wanted) == []
    assert web.get("/map/closed").status in wanted | {301}
    assert web.get("/map/no-list/file.txt").text == "known by name\n"


def test_unreadable_scripts_are_refused(web: Host) -> None:
    """RFC 9110 section 15.5.4: no execute bit, no way in."""
    web.site.sh("map-closed/map.sh", CANARY)
    web.site.sh("map-mode-0.sh", CANARY, 0o000)
    (web.site.directory / "cgi-bin/map-closed").chmod(0o000)
    assert web.get("/cgi-bin/map-mode-0.sh").status == 403
    assert web.get("/cgi-bin/map-closed/map.sh").status in ({200} if ROOT else {403, 404})
    assert web.get("/cgi-bin/map-closed/").status in (403, 404)


def test_file_is_no_directory(web: Host) -> None:
    """RFC 3986 section 3.3: a slash more is another name."""
    targets = [
        "/map.txt/",
        "/map.txt//",
        "/map.txt/x",
        "/map.txt/.",
        "/map.txt/./",
        "/map.txt%2f",
        "/map/ok.txt/ok.txt",
    ]
    assert problems(web, targets, lambda answer: answer.status == 404) == []


# ---- names


@pytest.mark.parametrize("key", ODD_NAMES)
def test_files_with_odd_names_are_served(web: Host, key: str) -> None:
    """RFC 3986 section 2.1: every byte but the slash and NUL can be in a name."""
    name = ODD_NAMES[key]
    everything = "".join(f"%{byte:02x}" for byte in os.fsencode(name))
    for spelling in (quoted(name), everything, everything.upper()):
        answer = web.get("/map/odd/" + spelling)
        assert (answer.status, answer.body) == (200, f"content of {name!r}\n".encode())


@pytest.mark.parametrize(
    "name", [b"n" * 255, "漢".encode() * 85, b"%" * 255, b"\xff" * 255], ids=["ascii", "utf-8", "percent", "bytes"]
)
def test_longest_names_are_served(web: Host, name: bytes) -> None:
    """NAME_MAX is 255 bytes; one more is no failure."""
    web.site.file(f"map/long/{os.fsdecode(name)}", "long\n")
    coded = urllib.parse.quote(name, safe="")
    assert web.get(f"/map/long/{coded}").text == "long\n"
    assert web.get(f"/map/long/{coded}x").status == 404
    assert web.get(f"/cgi-bin/{coded}x").status == 404
    hrefs = Page(web.get("/map/long/")).hrefs
    assert coded in hrefs


def test_deep_directories_are_served(web: Host) -> None:
    """No limit but the system's: 100 levels, and a path of almost 3 KiB."""
    for names in (["d"] * 100, ["e" * 60] * 45):
        path = "map/" + "/".join(names)
        web.site.file(f"{path}/end.txt", "deep\n")
        assert web.get(f"/{path}/end.txt").text == "deep\n"
        assert web.get(f"/{path}").get("Location") == f"/{path}/"
        assert "end.txt" in Page(web.get(f"/{path}/")).hrefs
        assert web.get(f"/{path}" + "/.." * len(names) + "/ok.txt").text == "ok\n"


def test_case_matters(web: Host) -> None:
    """RFC 3986 section 6.2.2.1: paths are compared with their case."""
    assert problems(web, ["/MAP.TXT", "/Map.txt", "/map/OK.txt", "/map/ok.TXT", "/MAP/ok.txt"]) == []


def test_plus_is_no_blank(web: Host) -> None:
    """RFC 3986: a plus means a blank in forms only."""
    assert web.get("/map/odd/two+words.txt").status == 404
    assert web.get("/map/odd/a+b&c.txt").status == 200


def test_unencoded_bytes_in_a_target_name_the_same_file(web: Host) -> None:
    """Clients send UTF-8 as it is; that is refused, or means what it says."""
    answer = web.get("/map/odd/grüße.txt".encode())
    assert answer.status in (200, 400)
    if answer.status == 200:
        assert answer.text == "content of 'grüße.txt'\n".encode().decode("latin-1")


# ---- listings


def test_listing_links_lead_to_its_files(web: Host) -> None:
    """RFC 3986 section 5: each href, resolved, is the file of that name, whatever the name is."""
    base = f"http://127.0.0.1:{web.port}/map/odd/"
    hrefs = Page(web.get("/map/odd/")).hrefs
    found = {}
    for href in hrefs:
        there = urllib.parse.urljoin(base, href)
        assert there.startswith(f"http://127.0.0.1:{web.port}/map/"), href
        if href != "../":
            found[there.removeprefix(base)] = web.get(there.partition(str(web.port))[2]).body.decode()
    shown = {name for name in ODD_NAMES.values() if not name.startswith(".")}
    assert sorted(found.values()) == sorted(f"content of {name!r}\n" for name in shown)


def test_listing_takes_no_markup_from_names(web: Host) -> None:
    """CWE-79: neither from the names in it nor from that of the directory."""
    for name in ODD_NAMES.values():
        web.site.file(f"map/{MARKUP.replace('/', '|')}/{name}", "x")
    plain = Page(web.get("/map/long/")) if (web.site.directory / "map/long").exists() else Page(web.get("/map/"))
    for target in ("/map/odd/", "/map/" + urllib.parse.quote(MARKUP.replace("/", "|"), safe="") + "/"):
        answer = web.get(target)
        page = Page(answer)
        assert page.tags <= plain.tags | {"tr", "td", "a", "bdi", "span", "time"}
        assert not [name for name in page.attributes if name.startswith("on")]
        assert "<script>alert" not in answer.text
        assert "<img" not in answer.text.lower()


def test_listing_hides_what_cannot_be_had(web: Host) -> None:
    """CWE-548: dot files, left-overs, script directories."""
    for name in (".dot-file", ".dot-dir/x", "left~", "left.bak", "left.swp", "plain.txt"):
        web.site.file(f"map/listed/{name}", HIDDEN if name != "plain.txt" else "x")
    assert Page(web.get("/map/listed/")).hrefs == ["../", "plain.txt"]
    listed = json.loads(web.get("/map/listed/", [("Accept", "application/json")]).body)
    assert [entry["name"] for entry in listed["entries"]] == ["plain.txt"]
    root = web.get("/map/../")
    assert (root.status, "cgi-bin/" in Page(root).hrefs, "htbin/" in Page(root).hrefs) == (200, False, False)


def test_listing_declares_its_charset_and_length(web: Host) -> None:
    """RFC 9110 section 8.3.2: a browser that guesses can be led to UTF-7."""
    answer = web.get("/map/odd/")
    assert (answer.status, answer.get("Content-Type")) == (200, "text/html; charset=utf-8")
    assert answer.get("Content-Length") == str(len(answer.body))
    answer.body.decode("utf-8")


def test_listing_of_a_directory_s_other_spellings_has_the_same_links(web: Host) -> None:
    """RFC 3986 section 5.2.4: links are relative, so every spelling must end in a slash or be redirected."""
    web.site.file("map/listed-again/file.txt", "x")
    for target in (
        "/map/listed-again/",
        "/map/listed-again/?C=N;O=D",
        "/map/./listed-again/",
        "/map/sub/../listed-again/",
    ):
        answer = web.get(target)
        assert (answer.status, Page(answer).hrefs) == (200, ["../", "file.txt"]), target
    for target in ("/map/listed-again", "/map/listed-again/.", "/map//listed-again"):
        answer = web.get(target)
        if answer.status == 200:
            there = urllib.parse.urljoin(f"http://127.0.0.1:{web.port}{target}", "file.txt").partition(str(web.port))[2]
            assert web.get(there).status == 200, target
        else:
            assert answer.status in (301, 302, 307, 308, 404), target


def test_listing_of_many_entries_is_whole(web: Host) -> None:
    """1000 files, in order, each once."""
    names = [f"file-{number:04}.txt" for number in range(1000)]
    if not (web.site.directory / "map/many").exists():
        for name in names:
            web.site.file(f"map/many/{name}", name)
    assert Page(web.get("/map/many/")).hrefs == ["../", *names]
    assert web.get("/map/many/file-0999.txt").text == "file-0999.txt"


def test_listing_of_an_empty_directory_is_a_page(web: Host) -> None:
    (web.site.directory / "map/empty").mkdir(exist_ok=True)
    answer = web.get("/map/empty/")
    assert (answer.status, Page(answer).hrefs) == (200, ["../"])


def test_listing_follows_the_directory(web: Host) -> None:
    """What was put there or taken away is seen at once."""
    file = web.site.file("map/moving/one.txt", "1")
    assert Page(web.get("/map/moving/")).hrefs == ["../", "one.txt"]
    web.site.file("map/moving/two.txt", "2")
    file.unlink()
    assert Page(web.get("/map/moving/")).hrefs == ["../", "two.txt"]


# ---- limits


@pytest.mark.parametrize(
    "path",
    [
        "/" + "x" * 7000,
        "/" + "x" * 300,
        "/" + "a/" * 3000,
        "/" + "a" * 256 + "/x",
        "/map/ok.txt/" + "x" * 4096,
        "/cgi-bin/" + "x" * 300,
        "/cgi-bin/" + "x" * 7000,
        "/cgi-bin/" + "a/" * 3000,
        "/" + "%61" * 2300,
        "/" + "é" * 256,
    ],
    ids=[
        "7000",
        "300",
        "segments",
        "directory",
        "below-file",
        "script-300",
        "script-7000",
        "script-segments",
        "encoded",
        "bytes",
    ],
)
def test_long_paths_are_refused(web: Host, path: str) -> None:
    """RFC 9110 sections 15.5.5 and 15.5.15: ENAMETOOLONG is the client's error."""
    assert problems(web, [urllib.parse.quote(path, safe="/%")]) == []


def test_extra_path_of_7_kib_reaches_the_script(web: Host) -> None:
    """RFC 3875 section 4.1.5: the extra path is no file's name."""
    given = web.report("/cgi-bin/report.py/" + "x" * 7000)
    assert given["environ"]["PATH_INFO"] == "/" + "x" * 7000


def test_query_of_3000_bytes_arrives_and_a_larger_one_is_not_cut(web: Host) -> None:
    """RFC 9110 section 4.1; RFC 3875 section 8.1."""
    query = "a=" + "q" * 3000
    assert web.report(f"/cgi-bin/report.py?{query}")["environ"]["QUERY_STRING"] == query
    query = "a=" + "q" * 65536
    answer = web.get(f"/cgi-bin/report.py?{query}")
    assert answer.status in (200, 400, 414, 431)
    if answer.status == 200:
        assert json.loads(answer.body)["environ"]["QUERY_STRING"] == query


def test_query_that_fits_into_no_environment_is_refused(web: Host) -> None:
    """RFC 6585 section 5: Linux takes no variable above 128 KiB."""
    assert problems(web, ["/cgi-bin/report.py?a=" + "q" * 140_000]) == []


def test_query_of_7900_bytes_reaches_the_script(web: Host) -> None:
    """RFC 9110 section 4.1: 8000 octets should pass."""
    query = "a=" + "q" * 7900
    assert web.report(f"/cgi-bin/report.py?{query}")["environ"]["QUERY_STRING"] == query


def test_thousand_fields_arrive_or_are_refused(web: Host) -> None:
    """RFC 6585 section 5: all of them or a 4xx, never some."""
    answer = web.get("/cgi-bin/report.py", [(f"X-Many-{number}", str(number)) for number in range(1000)])
    assert answer.status == 200 or refused(answer)
    if answer.status == 200:
        given = json.loads(answer.body)["environ"]
        assert {given.get(f"HTTP_X_MANY_{number}") == str(number) for number in range(1000)} == {True}


def test_field_of_300_kib_is_refused_or_arrives(web: Host) -> None:
    """RFC 6585 section 5."""
    data = wire.request("GET", "/cgi-bin/report.py", [("X-Large", "v" * 300_000)])
    with web.connect() as connection:
        try:
            connection.send(data)
            answer = connection.read()
        except (OSError, wire.Fault):
            return  # a server may break off what is far too large before it has read it
    assert refused(answer)


@pytest.mark.parametrize(
    "value",
    [b"caf\xe9", "é漢".encode(), bytes(range(0xA1, 0x100)), bytes(range(0x80, 0xA0)), b"a\xa0b", b"\xff"],
    ids=["latin-1", "utf-8", "upper-half", "c1", "no-break", "ff"],
)
def test_bytes_above_127_in_a_field_arrive(web: Host, value: bytes) -> None:
    """RFC 9110 section 5.5: obs-text is opaque."""
    answer = web.get("/cgi-bin/report.py", [("X-Bytes", b"<" + value + b">")])
    assert answer.status == 200 or refused(answer)
    if answer.status == 200:
        assert json.loads(answer.body)["environ"]["HTTP_X_BYTES"] == f"<{value.decode('latin-1')}>"


def test_nul_in_a_path_is_refused(web: Host) -> None:
    """CWE-158: the file before the NUL must not come."""
    paths = ["/map.txt", "/map/ok.txt", "/map/sub/", "/map/sub", "/cgi-bin/map.sh", "/cgi-bin/map-data.txt", "/"]
    tails = ["%00", "%00.html", "%00/", "%00/../x", "/%00", "%00%00"]
    targets = [path + tail for path in paths for tail in tails]
    targets += [
        "/map%00/ok.txt",
        "/%00/map.txt",
        "/cgi-bin%00/map.sh",
        "/cgi-bin/%00map.sh",
        "/cgi-bin/map-dir%00/map.sh",
    ]
    assert problems(web, targets, lambda a: refused(a) or ran(a)) == []
    assert problems(web, ["/map.txt%00", "/cgi-bin/map.sh%00", "/cgi-bin/map-dir%00/map.sh", "/map/sub/%00/file"]) == []


def test_nul_byte_in_a_target_is_refused(web: Host) -> None:
    """RFC 9112 section 3: no NUL in a request line, encoded or not."""
    assert problems(web, [b"/map.txt\0", b"/map\0.txt", b"/cgi-bin/map.sh\0.txt", b"/\0"]) == []


def test_malformed_percent_signs_are_no_failure(web: Host) -> None:
    """RFC 3986 section 2.1."""
    tails = [
        "%",
        "%z",
        "%zz",
        "%1",
        "%%",
        "%%%",
        "%-1",
        "%u0041",
        "%2",
        "%2x",
        "%x2",
        "%%35",
        "% 20",
        "%+1",
        "%0x",
        "%G0",
    ]
    targets = [f"{place}{tail}" for tail in tails for place in ("/", "/map/", "/map.txt", "/cgi-bin/", "/cgi-bin/map")]
    assert problems(web, targets) == []
    targets = [
        f"{place}{tail}" for tail in tails for place in ("/cgi-bin/map.sh/", "/cgi-bin/map.sh?", "/cgi-bin/map.sh?+")
    ]
    assert problems(web, targets, ran_or_refused) == []


def test_control_characters_in_a_path_are_no_failure(web: Host) -> None:
    """RFC 3986 section 2: encoded, in static and script space; and bytes that are no UTF-8."""
    numbers = (*range(0x30), *range(0x3A, 0x41), *range(0x7B, 0x100, 5))
    targets = [f"{place}%{byte:02x}" for byte in numbers for place in ("/map/ctl-", "/cgi-bin/ctl-")]
    assert problems(web, targets, lambda answer: answer.status in (400, 403, 404)) == []


def test_server_still_answers(web: Host) -> None:
    """After all of this: files and scripts, and no process of the server has died."""
    for _ in range(8):
        assert web.get("/map/ok.txt").text == "ok\n"
        assert ran(web.get("/cgi-bin/map.sh"))
    assert web.server.process.poll() is None
    words = ["was terminated due to signal", "WORKER TIMEOUT"]
    if web.kind != "waitress":  # it logs an answer that was cut short so, unless --no-log-socket-errors
        words.append("Traceback")
    for word in words:
        assert word not in web.server.log, word
