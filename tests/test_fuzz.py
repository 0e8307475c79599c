"""What must hold for whatever clients, scripts and file names contain, tried with generated input.

``FUZZ=ci``, the default, tries the same examples every time and takes some seconds. ``FUZZ=long`` tries other ones,
each property for ``FUZZ_SECONDS`` (60), and prints how many there were: ``FUZZ=long pytest -rP tests/test_fuzz.py``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import os
import re
import stat
import sys
import tempfile
import time
import unicodedata
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hypothesis")

from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

from wsgicgi import CGIMiddleware, Config, StaticMiddleware, listing
from wsgicgi.conditional import select
from wsgicgi.errors import BadScriptOutput, GatewayError, NotFound, error_response, printable
from wsgicgi.metavars import MAX_SEARCH_WORDS, build, inherited, search_words
from wsgicgi.paths import PathRules, find_file
from wsgicgi.response import HeadParser, Kind, ResponseHead
from wsgicgi.runners import ExitStatus, Invocation, SpawnRunner
from wsgicgi.scripts import Script, find_script

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="names there are no bytes; FIFOs and links are needed")

settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile(
    "long",
    deadline=None,
    print_blob=True,
    database=DirectoryBasedExampleDatabase(os.path.join(tempfile.gettempdir(), "wsgicgi-fuzz")),
)
FUZZ = os.environ.get("FUZZ", "ci")
FUZZ_SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
#: Examples of one round of the long profile: what hypothesis remembers of a round is given up after it.
ROUND = 1000
settings.load_profile(FUZZ)

Property = Callable[..., None]


def tried(examples: int) -> Callable[[Property], Property]:
    """Try a property with so many examples; in the long profile in rounds, until its time is over."""

    def decorate(prop: Property) -> Property:
        count = 0
        inner = prop.hypothesis.inner_test  # type: ignore[attr-defined]  # given's own way to put something around it

        @functools.wraps(inner)
        def counted(*args: Any, **kwargs: Any) -> None:
            nonlocal count
            count += 1
            inner(*args, **kwargs)

        prop.hypothesis.inner_test = counted  # type: ignore[attr-defined]
        held = settings(max_examples=ROUND if FUZZ == "long" else examples)(prop)

        @functools.wraps(prop, updated=())
        def test() -> None:
            begin = time.monotonic()
            try:
                held()
                while FUZZ == "long" and time.monotonic() - begin < FUZZ_SECONDS:
                    held()
            finally:
                print(f"{prop.__name__}: {count} examples in {time.monotonic() - begin:.0f} s")

        return test

    return decorate


LATIN_1 = st.characters(max_codepoint=0xFF)
CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
#: Of a tree with loops in it.
MOST_PATHS = 60
MARK = re.compile(rb"<mark ([0-9]+)>")


# -- paths


@dataclass(frozen=True)
class Node:
    """Something to put into a tree: what ``parent`` and ``target`` count are the directories and places made so far."""

    kind: str
    parent: int
    name: bytes
    target: int | bytes = 0
    mtime: int = 0


@dataclass(frozen=True)
class Url:
    """A path of a URL: pieces are bytes, or numbers of places in the tree; ``glue`` comes between them."""

    pieces: tuple[int | bytes, ...]
    glue: bytes = b"/"
    end: bytes = b""
    swap_case: bool = False


class Tree:
    """A root, and a directory outside of it; each file holds a mark of its own."""

    def __init__(self, top: bytes, nodes: Sequence[Node], *, cgi_bin: str) -> None:
        self.root = os.path.join(top, b"root")
        self.outside = os.path.join(top, b"outside")
        self.files: list[bytes] = []
        self.places: list[bytes] = []
        docs, lib, cgi = (
            os.path.join(self.root, b"docs"),
            os.path.join(self.outside, b"lib"),
            os.path.join(self.root, b"cgi-bin"),
        )
        self.directories = [self.root, self.outside, docs, lib]
        for directory in self.directories:
            os.mkdir(directory)
        if cgi_bin == "directory":
            os.mkdir(cgi)
        elif cgi_bin != "missing":
            os.symlink({"inside": docs, "outside": lib}[cgi_bin], cgi)
        if cgi_bin != "missing":
            self.directories.append(cgi)
            self._file(os.path.join(cgi, b"unseen-run"), 0o755)
        self._file(os.path.join(self.root, b"page.txt"), 0o644)
        self._file(os.path.join(lib, b"unseen-lib"), 0o755)
        self._file(os.path.join(self.outside, b"unseen"), 0o644)
        # what every tree has: ways out by name, and names that a Location must not begin with or hold
        for place in (os.path.join(self.root, b"far.cgi"), os.path.join(docs, b"index.cgi")):
            os.symlink(os.path.join(lib, b"unseen-lib"), place)
            self.places.append(place)
        for name in (b"\\evil.com", b"a\r\nX: y"):
            os.mkdir(os.path.join(self.root, name))
            self.places.append(os.path.join(self.root, name))
        for node in nodes:
            with contextlib.suppress(OSError, ValueError):  # what this file system cannot have, or has already
                self._put(node)

    def _file(self, place: bytes, mode: int) -> None:
        with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(b"#!/bin/sh\n# <mark %d>\n" % len(self.files))
            os.fchmod(file.fileno(), mode)
        self.files.append(os.path.realpath(place))
        self.places.append(place)

    def _put(self, node: Node) -> None:
        parent = self.directories[node.parent % len(self.directories)]
        place = os.path.join(parent, node.name)
        if node.kind == "directory":
            os.mkdir(place)
            self.directories.append(place)
        elif node.kind == "link":
            everything = self.directories + self.places
            target = node.target if isinstance(node.target, bytes) else everything[node.target % len(everything)]
            os.symlink(target, place)
        elif node.kind == "fifo":
            os.mkfifo(place)
            os.chmod(place, 0o777)
        else:
            self._file(place, 0o755 if node.kind == "program" else 0o644)
            os.utime(place, (node.mtime, node.mtime))
            return
        self.places.append(place)

    def paths(self, around: tuple[bytes, bytes]) -> Iterator[bytes]:
        """The paths of everything in the tree, by names and through links, with something before and behind."""
        before, behind = around
        found = {os.path.relpath(place, self.root) for place in self.places + self.directories}
        for place, directories, names in os.walk(self.root, followlinks=True):
            found.update(os.path.relpath(os.path.join(place, name), self.root) for name in directories + names)
            if place.count(b"/") > self.root.count(b"/") + 1 or len(found) > MOST_PATHS:
                directories.clear()
        for path in sorted(found)[:MOST_PATHS]:
            yield before + path + behind
            if os.path.isdir(os.path.join(self.root, path)):
                yield b"/" + path + b"/"

    def path(self, url: Url) -> bytes:
        """The bytes of a URL's path."""
        everything = self.places + self.directories
        pieces = [
            piece if isinstance(piece, bytes) else os.path.relpath(everything[piece % len(everything)], self.root)
            for piece in url.pieces
        ]
        path = b"/" + url.glue.join(pieces) + url.end
        return path.swapcase() if url.swap_case else path


PLAIN_NAMES = (
    b"a b sub x.cgi X.CGI y.py z.php index.html index.cgi nph-x page.txt x.tar.gz CGI-BIN cgi-bin htbin".split()
)
HIDDEN_NAMES = b".hidden .htaccess .well-known page.txt~ p.bak #p# .x.swp ... ~".split()
ODD_NAMES = b'%2e%2e %00 a%2fb a\\b \\evil.com \xff\xfe \xc3\xa4 http: -x <b> " cgi-bin.'.split()
BLANK_NAMES = [b" ", b"\n", b"a\r\nX: y", b"cgi-bin "]
NAMES = (
    st.sampled_from(PLAIN_NAMES)
    | st.sampled_from(HIDDEN_NAMES + ODD_NAMES + BLANK_NAMES)
    | st.binary(min_size=1, max_size=8)
)
LONG_NAME = b"n" * 300  # longer than any file system's 255 bytes
TARGETS = st.integers(0, 30) | st.sampled_from(
    [*b". .. a b x.cgi sub cgi-bin ../cgi-bin a/b page.txt/x ../outside".split(), LONG_NAME]
)
MTIMES = st.sampled_from([0, 1_700_000_000]) | st.integers(-(2**40), 2**40)
NODES = st.lists(
    st.builds(
        Node,
        kind=st.sampled_from(["file", "program", "directory", "link", "link", "fifo"]),
        parent=st.integers(0, 4) | st.integers(0, 30),  # 4 is the CGI directory
        name=NAMES,
        target=TARGETS,
        mtime=MTIMES,
    ),
    max_size=12,
)
ODD_PIECES = st.sampled_from(
    [
        *b".. . ... %2e%2e %2e %2f %00 % \\ ..\\ ~ cgi-bin CGI-BIN cgi-bin. cgi-bin::$DATA htbin".split(),
        *b"outside docs lib root unseen evil.com extra".split(),
        *(b"", b"\0", b"a\0.cgi", b"cgi-bin ", LONG_NAME),
    ]
)
URLS = st.builds(
    Url,
    pieces=st.lists(st.integers(0, 40) | ODD_PIECES | NAMES, min_size=1, max_size=5).map(tuple),
    glue=st.sampled_from([b"/", b"/", b"/", b"//", b"/./", b"/x/../", b"\\", b"/cgi-bin/../"]),
    end=st.sampled_from([b"", b"", b"", b"/", b"//", b"/.", b"/..", b"/extra", b"\0", b"~"]),
    swap_case=st.booleans(),
) | st.builds(Url, pieces=st.tuples(st.binary(max_size=20)))
FLAGS = st.fixed_dictionaries(
    {
        "cgi_directories": st.sampled_from([("/cgi-bin", "/htbin"), ("/cgi-bin",), ("/docs/sub",), ("/",), ()]),
        "cgi_extensions": st.sampled_from([(), (".cgi", ".py")]),
        "interpreters": st.sampled_from([{}, {".php": ("sh", "-e")}]),
        "index_names": st.sampled_from([("index.html",), ("index.cgi", "index.html"), ("a",)]),
        "follow_symlinks": st.booleans(),
        "allow_hidden": st.booleans(),
        "directory_listing": st.booleans(),
    }
)
DEFAULTS: dict[str, Any] = {
    "cgi_directories": ("/cgi-bin", "/htbin"),
    "cgi_extensions": (),
    "interpreters": {},
    "index_names": ("index.html",),
    "follow_symlinks": False,
    "allow_hidden": False,
    "directory_listing": True,
}
BEFORE = st.sampled_from([b"//", b"/./", b"/docs/../", b"/cgi-bin/../", b"/cgi-bin//../", b"/\\", b"/%2e/"])
BEHIND = st.sampled_from([b"/", b"/extra", b"//", b"/.", b"/x/..", b"\0", b"~"])
AROUND = st.tuples(st.just(b"/") | BEFORE, st.just(b"") | BEHIND)
CGI_BINS = st.sampled_from(["directory", "directory", "directory", "inside", "outside", "missing"])


@contextlib.contextmanager
def planted(nodes: Sequence[Node], cgi_bin: str, flags: dict[str, Any]) -> Iterator[tuple[Tree, Config]]:
    """A tree on disk, and the settings that serve its root."""
    with tempfile.TemporaryDirectory(prefix="wsgicgi-fuzz-") as top:
        tree = Tree(os.path.realpath(os.fsencode(top)), nodes, cgi_bin=cgi_bin)
        yield tree, Config(directory=Path(os.fsdecode(tree.root)), **flags)


class Recorder:
    """A runner that runs nothing: it takes down what it is asked to start, and gives an answer of its own."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.invocations: list[Invocation] = []

    def start(self, invocation: Invocation) -> Recorded:
        self.invocations.append(invocation)
        return Recorded(self.answer)

    def close(self) -> None:
        pass


class Recorded:
    """An execution that has ended already, with its output in the pipe."""

    pid = 0
    exit_fd = None

    def __init__(self, answer: bytes) -> None:
        self.stdout, script_stdout = os.pipe()
        self.stderr, script_stderr = os.pipe()
        os.write(script_stdout, answer)
        os.close(script_stdout)
        os.close(script_stderr)
        self._is_closed = False

    def wait(self, timeout: float | None) -> ExitStatus:
        return ExitStatus()

    def told(self) -> None:
        pass

    def terminate(self) -> ExitStatus:
        return ExitStatus()

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            os.close(self.stdout)
            os.close(self.stderr)


def not_found(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    return error_response(NotFound(), environ, start_response)


def call(app: Any, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
    """The answer of a WSGI application, as a server takes it."""
    started: list[tuple[str, list[tuple[str, str]]]] = []
    written: list[bytes] = []

    def start_response(status: str, fields: list[tuple[str, str]], exc_info: object = None) -> Callable[[bytes], None]:
        started.append((status, fields))
        return written.append

    app_iter = app(environ, start_response)
    try:
        written.extend(app_iter)
    finally:
        if hasattr(app_iter, "close"):
            app_iter.close()
    assert len(started) == 1
    return *started[0], b"".join(written)


def is_below(place: bytes, directory: bytes) -> bool:
    return place.startswith(directory.rstrip(b"/") + b"/")


def cgi_places(tree: Tree, config: Config) -> list[bytes]:
    return [os.path.join(tree.root, os.fsencode(path[1:])).rstrip(b"/") for path in config.cgi_directories]


def is_script_name(config: Config, place: bytes) -> bool:
    suffix = os.path.splitext(os.fsdecode(place))[1].lower()
    return suffix in config.cgi_extensions or suffix in config.interpreters


def has_hidden_name(place: bytes) -> bool:
    left_over = re.compile(rb".*(~|\.bak|\.swp|\.swo|\.orig)|#.*#", re.IGNORECASE | re.DOTALL)
    names = [name for name in place.split(b"/") if name]
    return any(
        (name.startswith(b".") and name not in (b".", b"..", b".well-known")) or left_over.fullmatch(name)
        for name in names
    )


def assert_may_be_served(tree: Tree, config: Config, file: bytes) -> None:
    """A static file, by its real path."""
    assert config.follow_symlinks or is_below(file, tree.root) or file == tree.root
    for place in map(os.path.realpath, cgi_places(tree, config)):
        # a CGI directory that is not there has no files
        assert not (os.path.exists(place) and (is_below(file, place) or file == place))
    assert os.path.isdir(file) or not is_script_name(config, file)


def assert_may_run(tree: Tree, config: Config, program: bytes) -> None:
    """A program, by the path that it is run as: links in a CGI directory may lead anywhere."""
    inside = os.path.relpath(program, tree.root)
    assert is_below(program, tree.root) and program == os.path.join(tree.root, inside), "it has no dot segments"
    mode = os.stat(program).st_mode
    assert stat.S_ISREG(mode)
    is_python = program.lower().endswith((b".py", b".pyw"))
    has_interpreter = os.path.splitext(os.fsdecode(program))[1].lower() in config.interpreters
    assert mode & 0o111 or is_python or has_interpreter
    inside_cgi = [os.path.relpath(program, cgi) for cgi in cgi_places(tree, config) if is_below(program, cgi)]
    if inside_cgi:
        assert config.allow_hidden or any(not has_hidden_name(rest) for rest in inside_cgi)
        return
    assert is_script_name(config, program)
    assert config.follow_symlinks or is_below(os.path.realpath(program), tree.root)
    assert config.allow_hidden or not has_hidden_name(inside)


METHODS = st.sampled_from(["GET", "GET", "GET", "HEAD", "POST", "PROPFIND", "TRACE"])
REQUESTS = st.tuples(
    URLS,
    METHODS,
    st.fixed_dictionaries(
        {
            "SCRIPT_NAME": st.sampled_from(["", "", "/app", "/\xc3\xa4 b"]),
            "QUERY_STRING": st.sampled_from(["", "a=b", "-x", "a+b"]) | st.text(LATIN_1, max_size=8),
        },
        optional={
            "HTTP_ACCEPT": st.sampled_from(["application/json", "*/*"]) | st.text(LATIN_1, max_size=12),
            "HTTP_RANGE": st.sampled_from(["bytes=0-", "bytes=-1", "bytes=5-9"]),
            "HTTP_HOST": st.text(LATIN_1, max_size=8),
            "CONTENT_LENGTH": st.sampled_from(["", "0", "3", "4", "-1", "9" * 5000]),
        },
    ),
)
DOCUMENT = b"Content-Type: text/plain\n\nran\n"


def answer(tree: Tree, redirect: Url | None) -> bytes:
    """What every script says: a document, or a redirect to another URL of ours."""
    if redirect is None:
        return DOCUMENT
    return b"Location: %s\n\n" % urllib.parse.quote(tree.path(redirect)).encode()


@tried(examples=100)
@given(
    nodes=NODES,
    cgi_bin=CGI_BINS,
    flags=st.just(DEFAULTS) | FLAGS,
    redirect=st.none() | URLS,
    requests=st.lists(REQUESTS, min_size=1, max_size=8),
    around=AROUND,
)
def test_no_request_gets_at_what_it_may_not_see_or_run(
    nodes: list[Node],
    cgi_bin: str,
    flags: dict[str, Any],
    redirect: Url | None,
    requests: list[tuple[Url, str, dict[str, str]]],
    around: tuple[bytes, bytes],
) -> None:
    """No file outside the root, no text below a CGI directory, no program elsewhere, no exception, no foreign redirect.

    CWE-22, CWE-59, CWE-540 and CWE-601; PEP 3333 leaves exceptions to servers, whose answers differ.
    """
    with planted(nodes, cgi_bin, flags) as (tree, config):
        runner = Recorder(answer(tree, redirect))
        app = CGIMiddleware(StaticMiddleware(not_found, config=config), config=config, runner=runner)
        generated = [(tree.path(url), method, more) for url, method, more in requests]
        for path, method, more in [*generated, *((path, "GET", {}) for path in tree.paths(around))]:
            environ: dict[str, Any] = {
                "REQUEST_METHOD": method,
                "SCRIPT_NAME": "",
                "PATH_INFO": path.decode("latin-1"),
                "QUERY_STRING": "",
                "SERVER_NAME": "localhost",
                "SERVER_PORT": "80",
                "wsgi.input": io.BytesIO(b"abc"),
                "wsgi.errors": io.StringIO(),
                **more,
            }
            runner.invocations.clear()
            status, fields, page = call(app, environ)
            assert re.fullmatch(r"[2-5][0-9]{2} [\x20-\x7e]+", status)
            for name, value in fields:
                assert not CONTROLS.search(name + value)
                value.encode("latin-1")
                if name == "Location" and status.startswith("301"):
                    assert re.match(r"/(?![/\\])", value)
            for number in MARK.findall(page):
                assert_may_be_served(tree, config, tree.files[int(number)])
                assert config.allow_hidden or redirect is not None or not has_hidden_name(normal(path))
            if tree.root + b"/cgi-bin" in cgi_places(tree, config):
                assert b"unseen-run" not in page
            if not config.follow_symlinks:
                assert b"unseen-lib" not in page
            for invocation in runner.invocations:
                program = invocation.metavars["SCRIPT_FILENAME"].encode("latin-1")
                assert os.fsdecode(program) in invocation.argv
                assert_may_run(tree, config, program)
            if redirect is None and any(is_below(normal(path) + b"/", p.encode()) for p in config.cgi_directories):
                assert not MARK.search(page)


def normal(path: bytes) -> bytes:
    """A path without empty and dot segments; written without a look at ``paths.canonical``."""
    kept: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            del kept[-1:]
        elif segment not in (b"", b"."):
            kept.append(segment)
    return b"/" + b"/".join(kept)


@tried(examples=100)
@given(nodes=NODES, cgi_bin=CGI_BINS, flags=st.just(DEFAULTS) | FLAGS, urls=st.lists(URLS, max_size=8), around=AROUND)
def test_finders_give_what_may_be_had_or_an_error_of_ours(
    nodes: list[Node], cgi_bin: str, flags: dict[str, Any], urls: list[Url], around: tuple[bytes, bytes]
) -> None:
    """Each finder holds containment by itself, whatever stands in front of it, and raises ``GatewayError`` only."""
    with planted(nodes, cgi_bin, flags) as (tree, config):
        rules = PathRules.of(config)
        for path in (path.decode("latin-1") for path in [*map(tree.path, urls), *tree.paths(around)]):
            with contextlib.suppress(GatewayError):
                script = find_script(rules, path)
                if script is not None:
                    assert_may_run(tree, config, os.fsencode(script.file))
                    assert script.extra_path == "" or script.extra_path.startswith("/")
                    assert re.fullmatch(r"(/[^/\0]+)+", script.script_path)
            with contextlib.suppress(GatewayError):
                file, clean = find_file(rules, path)
                assert_may_be_served(tree, config, os.path.realpath(os.fsencode(file)))
                assert clean == "/" or re.fullmatch(r"(/[^/\0]+)+/?", clean)


# -- a script's output

LINE_ENDS = st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\r\n", b"\r", b"\r\r\n", b""])
GOOD_NAMES = st.sampled_from(
    [
        *b"Content-Type Location Status STATUS Content-Length Set-Cookie X-CGI-A X a.b Location".split(),
        *b"Connection tRansfer-encoding Keep-Alive Upgrade TE Trailer Date Server Proxy-Connection".split(),
    ]
)
FIELD_NAMES = GOOD_NAMES | st.sampled_from([b"HTTP/1.1", b" folded", b"\tfolded", b"", b"a b"]) | st.binary(max_size=4)
GOOD_VALUES = st.sampled_from(b"text/plain /path?q //host/ /a#b http://a 404 5 \xc3\xa4 close \xb2 /\\a".split())
FIELD_VALUES = st.sampled_from(
    [
        *b"text/plain /path?q //host/ /a#b http://a 200 199 1000 5 \xc3\xa4 \x7f close \xb2".split(),
        *(b"404 Not Found", b"404\tNo\tTabs", b"200 a\rb", b"a\0b", b"200 \xc3\xa0", b"9" * 30, b""),
    ]
) | st.binary(max_size=6)
STATUS_LINES = st.builds(
    b"%s %s".__mod__,
    st.tuples(
        st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2", b"ICY", b"HTTP/1.1 "]),
        st.sampled_from(
            [b"200 OK", b"404", b"100 Continue", b"103 Early", b"099 No", b"999 \xff", b"200 a\tb", b"200 \0"]
        ),
    ),
)
FIELD_LINES = st.builds(
    lambda *parts: b"".join(parts), FIELD_NAMES, st.sampled_from([b":", b": ", b":\t", b" :", b""]), FIELD_VALUES
)
HEADS = st.lists(st.tuples(FIELD_LINES | STATUS_LINES | st.just(b""), LINE_ENDS).map(b"".join), max_size=6).map(
    b"".join
)
GOOD_LINES = st.builds(b"%s: %s".__mod__, st.tuples(GOOD_NAMES, GOOD_VALUES | FIELD_VALUES))
STATUS_BEGINS = st.sampled_from(
    [[b"HTTP/1.1 200 OK"], [b"HTTP/1.0 404"], [b"HTTP/1.1 100 Continue", b"", b"HTTP/1.1 200 OK"]]
) | STATUS_LINES.map(lambda line: [line])


def nearly_good(nph: bool) -> st.SearchStrategy[tuple[bytes, bool]]:
    """Outputs that a script could mean, with a wrong byte here and there; and whether it is an NPH script's."""
    return st.builds(
        lambda status, lines, end, body: (end.join([*status, *lines, b"", body]), nph),
        STATUS_BEGINS if nph else st.just([]),
        st.lists(GOOD_LINES, min_size=1, max_size=3),
        st.sampled_from([b"\n", b"\r\n"]),
        st.binary(max_size=6),
    )


BAD_OUTPUTS = (
    st.builds(lambda *parts: b"".join(parts), HEADS, LINE_ENDS, HEADS, st.binary(max_size=6))
    | st.builds(lambda line, end, rest: line + end + rest, STATUS_LINES, LINE_ENDS, HEADS)
    | st.binary(max_size=40)
    | st.text("\r\n:aX ", max_size=12).map(str.encode)
)
OUTPUTS = nearly_good(False) | nearly_good(True) | st.tuples(BAD_OUTPUTS, st.booleans())
HOP_BY_HOP = re.compile(
    "connection|keep-alive|proxy-(authenticate|authorization|connection)|te|trailer|transfer-encoding|upgrade"
)
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2


def parse(pieces: Sequence[bytes], *, max_bytes: int, nph: bool) -> tuple[ResponseHead, bytes] | str | bytes:
    """A head and the body behind it; or the message of the error; or what is there of a head that is not complete."""
    parser = HeadParser(max_bytes=max_bytes, nph=nph)
    for number, piece in enumerate(pieces, start=1):
        try:
            found = parser.feed(piece)
        except BadScriptOutput as error:
            return str(error)
        if found is not None:
            return found[0], found[1] + b"".join(pieces[number:])
    return parser.received


@tried(examples=1000)
@given(
    case=OUTPUTS,
    cuts=st.lists(st.integers(0, 200), max_size=8),
    max_bytes=st.just(65536) | st.integers(0, 60),
)
def test_a_head_does_not_depend_on_the_pieces_that_it_comes_in(
    case: tuple[bytes, bool], cuts: list[int], max_bytes: int
) -> None:
    """A pipe gives bytes in pieces of any size (pipe(7)), so the same output is always the same answer."""
    output, nph = case
    whole = parse([output], max_bytes=max_bytes, nph=nph)
    ends = sorted({min(cut, len(output)) for cut in cuts} | {len(output)})
    pieces = [output[start:stop] for start, stop in zip([0, *ends], ends, strict=False)]
    assert b"".join(pieces) == output
    assert parse(pieces, max_bytes=max_bytes, nph=nph) == whole
    assert parse([output[i : i + 1] for i in range(len(output))], max_bytes=max_bytes, nph=nph) == whole


@tried(examples=1000)
@given(case=OUTPUTS)
@example(case=(b"Status: 200 a\tb\n\n", False))
@example(case=(b"HTTP/1.1 200 a\tb\n\n", True))
def test_no_output_makes_a_head_that_a_server_may_not_send(case: tuple[bytes, bool]) -> None:
    """Names are tokens, nothing breaks a line, and the connection is the server's (RFC 9110 5.1, 5.5, 7.6.1; PEP 3333).

    A tab may stand in a field's value (RFC 9110 section 5.5), but not in the status (PEP 3333).
    """
    output, nph = case
    result = parse([output], max_bytes=65536, nph=nph)
    if not isinstance(result, tuple):
        return
    head, body = result
    assert output.endswith(body)
    assert re.fullmatch(r"[2-9][0-9]{2} [^\x00-\x1f\x7f]+", head.status_line)
    head.status_line.encode("latin-1")
    for name, value in head.fields:
        assert TOKEN.fullmatch(name)
        assert not CONTROLS.search(value.replace("\t", " "))
        assert value == value.strip(" \t")
        value.encode("latin-1")
        assert not HOP_BY_HOP.fullmatch(name.lower())
        assert name.lower() not in ("status", "content-length", "date", "server")
        assert not name.lower().startswith("x-cgi-")
    assert head.content_length is None or head.content_length >= 0
    assert (head.kind is Kind.LOCAL_REDIRECT) == (re.match(r"/(?!/)", head.location) is not None)


@tried(examples=300)
@given(
    code=st.integers(200, 999),
    reason=st.lists(st.sampled_from([b" ", *(bytes([c]) for c in (*range(0x21, 0x7F), *range(0x80, 0x100)))])).map(
        b"".join
    ),
    nph=st.booleans(),
)
@example(code=404, reason=b"voil\xc3\xa0", nph=False)  # "voilà" in UTF-8 ends in a byte that is NBSP in latin-1
@example(code=404, reason=b"voil\xc3\xa0", nph=True)
def test_a_reason_phrase_reaches_the_client_byte_by_byte(code: int, reason: bytes, nph: bool) -> None:
    """Only blanks around it are no part of it (RFC 3875 section 6.3.3, RFC 9112 section 4)."""
    begin = b"HTTP/1.1" if nph else b"Status:"
    result = parse([b"%s %d %s\n\n" % (begin, code, reason)], max_bytes=65536, nph=nph)
    assert isinstance(result, tuple)
    assert result[0].status == code
    if reason.strip(b" "):
        assert result[0].reason.encode("latin-1") == reason.strip(b" ")


# -- meta-variables

VARIABLES = st.sampled_from(
    [
        *("HTTP_PROXY", "HTTP_AUTHORIZATION", "HTTP_PROXY_AUTHORIZATION", "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE"),
        *("HTTP_TRANSFER_ENCODING", "HTTP_ACCEPT", "HTTP_X.Y", "HTTP_X!Z", "HTTP_A B", "HTTP_PROXY=x", "HTTP_PROXY\n"),
        *("HTTP_", "HTTP_\xc4", "HTTP_proxy", "Http_Proxy", "http_proxy", "LD_PRELOAD", "PATH", "BASH_FUNC_x%%"),
        *("SECRET", "CONTENT_LENGTH", "CONTENT_TYPE", "REMOTE_USER", "AUTH_TYPE", "REMOTE_IDENT", "REMOTE_ADDR"),
        *("REMOTE_HOST", "REMOTE_PORT", "REQUEST_URI", "RAW_URI", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING"),
        *("SERVER_PROTOCOL", "SERVER_SOFTWARE", "PATH_TRANSLATED"),
    ]
)
LATIN_1_TEXTS = st.text(LATIN_1, max_size=12)
HOST_TEXTS = (
    st.text("aZ0-.:[]_", max_size=12)
    | st.builds(
        "[{}]{}".format, st.text("0aF:.", max_size=8) | st.ip_addresses(v=6).map(str), st.sampled_from(["", ":80"])
    )
    | st.ip_addresses(v=4).map(str)
    | LATIN_1_TEXTS
)
SCHEMES = st.sampled_from(["http", "https"])
ENVIRONS = st.builds(
    lambda needed, known, fields, odd: {**odd, **fields, **known, **needed},
    st.fixed_dictionaries(
        {
            "REQUEST_METHOD": st.sampled_from(["GET", "POST"]) | LATIN_1_TEXTS,
            "SERVER_NAME": HOST_TEXTS,
            "SERVER_PORT": st.just("80") | LATIN_1_TEXTS,
        },
        optional={"HTTP_HOST": HOST_TEXTS, "wsgi.url_scheme": SCHEMES},
    ),
    st.dictionaries(VARIABLES, LATIN_1_TEXTS, max_size=8),
    st.dictionaries(LATIN_1_TEXTS.map("HTTP_".__add__), LATIN_1_TEXTS, max_size=4),
    st.dictionaries(
        st.text(max_size=8) | st.sampled_from(["wsgi.input", "wsgi.version", "x.object"]),
        LATIN_1_TEXTS | st.sampled_from([None, (1, 0), True, 5, b"bytes"]),
        max_size=4,
    ).filter(lambda odd: not any(name.isupper() for name in odd)),
)
FILES = st.binary(min_size=1, max_size=10).filter(lambda name: b"\0" not in name).map(os.fsdecode)
SCRIPTS = st.builds(
    Script,
    file=FILES.map(lambda name: Path("/srv/cgi-bin", name)),
    command=st.just(("x",)),
    script_path=LATIN_1_TEXTS.map("/".__add__),
    extra_path=st.just("") | LATIN_1_TEXTS.map("/".__add__),
    root_dir=FILES.map(lambda name: Path("/srv", name)),
)
LENGTHS = st.none() | st.integers(0, 2**64)
OWN_ENVIRONS = st.dictionaries(
    st.sampled_from(["PATH", "LANG", "LC_ALL", "TZ", "LC_=", "SECRET", "LD_PRELOAD", "HTTP_PROXY", "PATH\n"])
    | st.text(max_size=6),
    FILES,
    max_size=5,
)

# RFC 3875 sections 4.1.14 and 2.3, word by word
LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
TOP_LABEL = r"[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
HOSTNAME = rf"(?:{LABEL}\.)*{TOP_LABEL}\.?"
IPV4 = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
HEXSEQ = r"[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4})*"
HEXPART = rf"(?:{HEXSEQ}|(?:{HEXSEQ})?::(?:{HEXSEQ})?)"
SERVER_NAME = re.compile(rf"{HOSTNAME}|{IPV4}|\[{HEXPART}(?::{IPV4})?\]")
# What an address with "::" before its last 32 bits (::ffff:192.0.2.1, ::192.0.2.1) needs: RFC 4291 section 2.2
MAPPED = re.compile(rf"\[(?:{HEXSEQ})?::(?:{HEXSEQ}:)?{IPV4}\]")


@tried(examples=600)
@given(
    environ=ENVIRONS,
    script=SCRIPTS,
    length=LENGTHS,
    own=OWN_ENVIRONS,
    pass_authorization=st.sampled_from([False, True]),
)
@example(
    environ={"REQUEST_METHOD": "GET", "SERVER_NAME": "a", "SERVER_PORT": "80", "HTTP_HOST": "[.]"},
    script=Script(file=Path("/srv/x"), command=("x",), script_path="/x", extra_path="", root_dir=Path("/srv")),
    length=None,
    own={},
    pass_authorization=False,
)
def test_only_what_an_environment_can_hold_and_a_script_may_know_is_passed(
    environ: dict[str, Any], script: Script, length: int | None, own: dict[str, str], pass_authorization: bool
) -> None:
    """Names that shells can read, no NUL, no HTTP_PROXY, no credentials unasked (RFC 3875 4.1, 9.2; CVE-2016-5385)."""
    metavars = build(
        environ,
        script,
        content_length=length,
        base=inherited(own),
        software="wsgicgi/1",
        pass_authorization=pass_authorization,
    )
    for name, value in metavars.items():
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
        assert "\0" not in value
        value.encode("latin-1")
    assert not {"HTTP_PROXY", "LD_PRELOAD", "SECRET", "HTTP_TRANSFER_ENCODING", "HTTP_CONTENT_LENGTH"} & set(metavars)
    for credentials in ("HTTP_AUTHORIZATION", "HTTP_PROXY_AUTHORIZATION"):
        assert metavars.get(credentials) in ([environ.get(credentials), None] if pass_authorization else [None])
    name = metavars["SERVER_NAME"]
    assert SERVER_NAME.fullmatch(name) or MAPPED.fullmatch(name)
    assert metavars.get("CONTENT_LENGTH") == (None if length is None else str(length))


@tried(examples=400)
@given(
    method=st.sampled_from(["GET", "HEAD", "POST"]),
    query=st.text("a-+%=0/2dD \xe4", max_size=12) | LATIN_1_TEXTS | st.integers(1, 40000).map("a+".__mul__),
)
def test_search_words_are_no_options_and_fit_a_command_line(method: str, query: str) -> None:
    """The words of ``?a+b``, decoded; none when one could be an option (RFC 3875 section 4.4, CVE-2012-1823)."""
    words = [os.fsencode(word) for word in search_words(method, query)]
    assert not any(word.startswith(b"-") or b"\0" in word for word in words)
    assert sum(map(len, words)) <= MAX_SEARCH_WORDS
    if words:
        assert method in ("GET", "HEAD") and "=" not in query
        assert words == [urllib.parse.unquote_to_bytes(word.encode("latin-1")) for word in query.split("+") if word]


@tried(examples=15)
@given(environ=ENVIRONS, script=SCRIPTS, length=LENGTHS)
def test_a_process_finds_exactly_the_metavariables_in_its_environment(
    environ: dict[str, Any], script: Script, length: int | None
) -> None:
    """The names and bytes that were built are those of the program's environment (RFC 3875 section 7.2)."""
    metavars = build(environ, script, content_length=length, base={}, software="wsgicgi/1")
    runner = SpawnRunner()
    with open(os.devnull, "rb") as null:
        try:
            execution = runner.start(
                Invocation(argv=("/usr/bin/env", "-0"), metavars=metavars, cwd="/", stdin=null.fileno())
            )
            with open(execution.stdout, "rb", closefd=False) as stdout:
                found = stdout.read()
            assert execution.wait(10) == ExitStatus()
            execution.close()
        finally:
            runner.close()
    expected = {name.encode("latin-1"): value.encode("latin-1") for name, value in metavars.items()}
    pairs = [variable.split(b"=", 1) for variable in found.split(b"\0")[:-1]]
    assert len(pairs) == len(expected)
    assert dict(pairs) == expected


# -- conditional and range requests

NUMBERS = (
    st.integers(0, 300).map(str) | st.integers(0, 10**20).map(str) | st.sampled_from(["", "9" * 5000, "-1", "\xb2"])
)
RANGES = (
    st.builds("bytes={}-{}".format, NUMBERS, NUMBERS)
    | st.builds("{}={}".format, st.sampled_from(["bytes", "Bytes", "x"]), st.text("0123-, \t", max_size=12))
    | LATIN_1_TEXTS
)
TAGS = st.text('a",W/*\\ ', max_size=8) | st.sampled_from(['"a"', 'W/"a"', "*", '"b", "a"']) | LATIN_1_TEXTS
MOMENTS = st.datetimes().map(lambda moment: moment.replace(tzinfo=UTC, microsecond=0))
ZONES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
DATES = (
    st.builds(format_datetime, MOMENTS, st.just(True))
    | st.datetimes(timezones=ZONES).map(format_datetime)
    | MOMENTS.map(lambda moment: moment.strftime("%A, %d-%b-%y %H:%M:%S GMT"))
    | MOMENTS.map(lambda moment: moment.strftime("%a %b %d %H:%M:%S %Y"))
    | st.builds("Sun, {} Nov {} 08:{}:37 {}".format, NUMBERS, NUMBERS, NUMBERS, st.text("GMT+-0123456789", max_size=6))
    | st.builds("Sun, 06 Nov {} 08:49:37 GMT".format, NUMBERS)
    | LATIN_1_TEXTS
)

CONDITIONS = {
    "HTTP_RANGE": RANGES,
    "HTTP_IF_RANGE": TAGS | DATES,
    "HTTP_IF_MATCH": TAGS,
    "HTTP_IF_NONE_MATCH": TAGS,
    "HTTP_IF_MODIFIED_SINCE": DATES,
    "HTTP_IF_UNMODIFIED_SINCE": DATES,
}


@tried(examples=600)
@given(
    environ=st.fixed_dictionaries(
        {"REQUEST_METHOD": st.just("GET"), "HTTP_RANGE": RANGES}, optional={"HTTP_IF_RANGE": TAGS | DATES}
    )
    | st.fixed_dictionaries({"REQUEST_METHOD": st.sampled_from(["GET", "HEAD"])}, optional=CONDITIONS),
    etag=st.sampled_from(["a", "b", "17a-5"]),
    modified=MOMENTS,
    size=st.integers(0, 300) | st.integers(0, 2**63 - 1),
)
def test_a_selection_lies_within_the_file(environ: dict[str, str], etag: str, modified: datetime, size: int) -> None:
    """Whatever the fields hold, the answer is 200, 206, 304, 412 or 416, of bytes that are there (RFC 9110 13, 14)."""
    selection = select(environ, etag=etag, modified=modified, size=size)
    assert 0 <= selection.start <= selection.stop <= size
    match selection.status:
        case 200:
            assert (selection.start, selection.stop) == (0, size)
        case 206:
            assert selection.start < selection.stop
            assert environ["REQUEST_METHOD"] == "GET" and "HTTP_RANGE" in environ
        case 304:
            assert {"HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE"} & set(environ)
        case 412:
            assert {"HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE"} & set(environ)
        case status:
            assert status == 416 and "HTTP_RANGE" in environ


# -- the listing


OF_ENTRIES = ("href", "title", "datetime")  # attributes whose values are an entry's: its address, size and date


class Page(HTMLParser):
    """The tags of a page with their attributes; the links of the entries apart."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.links: list[str] = []
        self._in_entries = False
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._in_entries |= tag == "tbody"
        self.links += [value or "" for name, value in attributes if name == "href" and self._in_entries]
        self.tags.append((tag, tuple((n, "" if n in OF_ENTRIES else v) for n, v in attributes)))

    def handle_endtag(self, tag: str) -> None:
        self._in_entries &= tag != "tbody"
        self.tags.append(("/" + tag, ()))

    def handle_comment(self, data: str) -> None:
        self.tags.append(("!--", ()))

    def handle_decl(self, decl: str) -> None:
        self.tags.append(("!" + decl, ()))

    def handle_pi(self, data: str) -> None:
        self.tags.append(("?", ()))

    def unknown_decl(self, data: str) -> None:
        self.tags.append(("![", ()))


HTML_TEXTS = st.sampled_from(
    [
        *(
            "<script>",
            "</title><script>x</script>",
            "</bdi></a>",
            "<!--",
            "-->",
            "<![CDATA[",
            "&lt;",
            "</style>",
            "<?x?>",
        ),
        *("<svg/onload=x>", '" onclick="x', "' x='", "{{7*7}}", "javascript:x", "//evil.com", "\\\\evil.com", "http:"),
        *("a:b", "?x", "#x", "%2e%2e", "...", " ", "\n", "\0", "\u202egpj", "\ud800"),
    ]
)
ENTRY_NAMES = (
    (st.binary(min_size=1, max_size=12) | HTML_TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")) | NAMES)
    .map(lambda name: name.replace(b"/", b"\\").replace(b"\0", b"?"))
    .filter(lambda name: name not in (b"", b".", b".."))
)
URL_PATHS = st.lists(ENTRY_NAMES, max_size=3).map(
    lambda names: "".join(n.decode("latin-1") + "/" for n in [b"", *names])
)
ENTRIES = st.lists(
    st.builds(
        listing.Entry,
        name=ENTRY_NAMES.map(os.fsdecode),
        is_dir=st.booleans(),
        size=st.integers(0, 2**63 - 1),
        mtime=st.floats(allow_nan=False, allow_infinity=False),
    ),
    max_size=6,
    unique_by=lambda entry: entry.name,
)


@tried(examples=250)
@given(url_path=URL_PATHS, entries=ENTRIES)
def test_no_name_adds_markup_to_a_listing_or_leads_elsewhere(url_path: str, entries: list[listing.Entry]) -> None:
    """A page has the template's tags and attributes only, and each link leads to its name in the directory (CWE-79)."""
    page = Page(listing.html(url_path, entries))
    plain = [listing.Entry(name=f"n{n}", is_dir=e.is_dir, size=1, mtime=0.0) for n, e in enumerate(entries)]
    assert page.tags == Page(listing.html(re.sub("[^/]+", "x", url_path), plain)).tags

    base = "http://host.example" + urllib.parse.quote(url_path.encode("latin-1"))
    links = page.links
    if url_path != "/":
        assert links.pop(0) == "../"
    found = []
    for link in links:
        url = urllib.parse.urljoin(base, link)
        assert url.startswith(base)
        path, slash, rest = url.removeprefix(base).partition("/")
        assert not rest and not set(path) & set("?#\\:")
        found.append((urllib.parse.unquote_to_bytes(path), bool(slash)))
    assert sorted(found) == sorted((os.fsencode(entry.name), entry.is_dir) for entry in entries)


QUERIES = st.text(LATIN_1, max_size=40) | st.lists(
    st.tuples(
        st.sampled_from(["sort", "order", "filter", "x"]),
        st.sampled_from(["size", "modified", "desc", "n"]) | HTML_TEXTS | st.text(max_size=8),
    ),
    max_size=5,
).map(lambda pairs: urllib.parse.urlencode(pairs, errors="surrogatepass"))


@tried(examples=250)
@given(query=QUERIES, entries=ENTRIES)
def test_no_query_adds_markup_to_a_listing_or_breaks_it(query: str, entries: list[listing.Entry]) -> None:
    """Whatever is asked for, some of the entries are shown, and what is asked for back stays in the page (CWE-79)."""
    view = listing.View.of(query)
    assert listing.View.of(view.query()) == view
    page = Page(listing.html("/x/", entries, view=view))
    assert set(page.links) <= {"../"} | set(Page(listing.html("/x/", entries)).links)
    harmless = dataclasses.replace(view, filter=view.filter and "\0")  # which no name has
    without = Page(listing.html("/x/", [], view=harmless))
    values = [(tag, tuple((n, "" if n == "value" else v) for n, v in attributes)) for tag, attributes in without.tags]
    shown = Page(listing.html("/x/", [], view=view))
    assert [(tag, tuple((n, "" if n == "value" else v) for n, v in given)) for tag, given in shown.tags] == values


# -- the log


@tried(examples=500)
@given(text=st.text(st.characters(exclude_categories=())) | st.text("\r\n\t\x0b\x1b\x85\u2028\u2029\udcffa"))
def test_a_message_stays_one_line_that_no_terminal_obeys(text: str) -> None:
    """No control character but tab, no lone surrogate, no end of line gets into the log (CWE-117, CWE-150)."""
    shown = printable(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in shown.replace("\t", ""))
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")
    assert printable(shown) == shown
