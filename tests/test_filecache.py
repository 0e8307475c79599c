"""What is remembered of paths: answers are those of a server that remembers nothing, whatever happens to the files."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import servers
from sites import Site
from werkzeug.test import Client

from wsgicgi import create_app, filecache
from wsgicgi.app import Application
from wsgicgi.paths import PathRules

#: Seconds that stand for ``SETTLED_SECONDS`` here: more than the steps of any kernel's clock for files.
SETTLED = 0.03


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories count as settled soon."""
    monkeypatch.setattr(filecache, "SETTLED_SECONDS", 0)
    monkeypatch.setattr(filecache, "time", _Clock)


class _Clock:
    @staticmethod
    def time_ns() -> int:
        return time.time_ns() - int(SETTLED * 10**9)


def let_settle() -> None:
    """Wait until what was changed just now counts as settled."""
    begin = time.time()
    servers.wait_until(lambda: time.time() > begin + 1.5 * SETTLED, "time passes")


Answer = tuple[str, list[tuple[str, str]], bytes]


def ask(app: Application, target: str, method: str = "GET", **fields: str) -> Answer:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    response = Client(app).open(target, method=method, headers=headers, errors_stream=io.StringIO())
    body = b"" if response.status_code >= 400 else response.get_data()  # an error page has the id of its request
    response.close()
    fields_of = [pair for pair in response.headers if pair[0] != "Content-Length" or response.status_code < 400]
    return response.status, sorted(fields_of), body


def remembered(app: Application, path: str) -> bool:
    return app._static._known.get(path) is not None


@pytest.fixture
def app(site: Site) -> Application:
    site.file("a/b/page.txt", "the page")
    site.file("top.txt", "top")
    site.file("index.htm", "the index")
    app = create_app(site.directory)
    let_settle()
    for path in ("/a/b/page.txt", "/top.txt", "/"):
        first = ask(app, path)
        assert remembered(app, path)
        assert ask(app, path) == first
    return app


def moved_out(site: Site, name: str) -> Path:
    """A directory is moved out of the site, and a link to it takes its place."""
    outside = site.directory.parent / "outside"
    (site.directory / name).rename(outside)
    (site.directory / name).symlink_to(outside)
    return outside


CHANGES: dict[str, tuple[Callable[[Site], object], str, int]] = {
    "new text of the same length": (lambda site: site.file("top.txt", "new"), "/top.txt", 200),
    "removed": (lambda site: (site.directory / "top.txt").unlink(), "/top.txt", 404),
    "another file in its place": (lambda site: site.file("x", "x").rename(site.directory / "top.txt"), "/top.txt", 200),
    "a directory in its place": (
        lambda site: ((site.directory / "top.txt").unlink(), (site.directory / "top.txt").mkdir()),
        "/top.txt",
        301,
    ),
    "a link out in its place": (
        lambda site: (
            (site.directory / "top.txt").rename(site.directory.parent / "out.txt"),
            (site.directory / "top.txt").symlink_to(site.directory.parent / "out.txt"),
        ),
        "/top.txt",
        403,
    ),
    "a FIFO in its place": (
        lambda site: ((site.directory / "top.txt").unlink(), os.mkfifo(site.directory / "top.txt")),
        "/top.txt",
        403,
    ),
    "its directory moved out": (lambda site: moved_out(site, "a/b"), "/a/b/page.txt", 403),
    "the directory above moved out": (lambda site: moved_out(site, "a"), "/a/b/page.txt", 403),
    "its directory renamed": (lambda site: (site.directory / "a").rename(site.directory / "z"), "/a/b/page.txt", 404),
    "its directory becomes hidden scripts": (
        lambda site: (
            shutil.rmtree(site.directory / "cgi-bin"),
            (site.directory / "cgi-bin").symlink_to(site.directory / "a"),
        ),
        "/a/b/page.txt",
        403,
    ),
    "the whole site becomes scripts": (
        lambda site: (
            shutil.rmtree(site.directory / "cgi-bin"),
            (site.directory / "cgi-bin").symlink_to(site.directory),
        ),
        "/top.txt",
        403,
    ),
    "a new directory of scripts is its own": (
        lambda site: (site.directory / "htbin").symlink_to("a/b"),
        "/a/b/page.txt",
        403,
    ),
    "a better index": (lambda site: site.file("index.html", "better"), "/", 200),
    "no index any more": (lambda site: (site.directory / "index.htm").unlink(), "/", 200),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen_at_once(app: Application, site: Site, change: str) -> None:
    """The very next request has the status, the fields and the bytes that a new server gives."""
    do, path, status = CHANGES[change]
    before = ask(app, path)
    do(site)
    assert ask(app, path)[0][:3] == str(status)
    fresh = create_app(site.directory)
    assert ask(app, path) == ask(fresh, path) != before


@pytest.mark.parametrize(
    "change", ["its directory moved out", "the directory above moved out", "its directory renamed"]
)
def test_not_even_a_304_hides_a_change_of_the_way(app: Application, site: Site, change: str) -> None:
    """The file is the same, but the path does not lead to it any more, or not inside the site."""
    do, path, status = CHANGES[change]
    tag = dict(ask(app, path)[1])["ETag"]
    assert ask(app, path, If_None_Match=tag)[0][:3] == "304"
    do(site)
    assert ask(app, path, If_None_Match=tag)[0][:3] == str(status)


@pytest.mark.user_only
def test_modes_are_seen_at_once(app: Application, site: Site) -> None:
    """A file or a directory that is closed meanwhile: 403 for who has the file already, too."""
    for place, path in (("top.txt", "/top.txt"), ("a", "/a/b/page.txt"), ("a/b", "/a/b/page.txt")):
        tag = dict(ask(app, path)[1])["ETag"]
        mode = (site.directory / place).stat().st_mode
        (site.directory / place).chmod(0)
        assert ask(app, path)[0][:3] == "403"
        assert ask(app, path, If_None_Match=tag)[0][:3] == "403"
        (site.directory / place).chmod(mode)
        assert ask(app, path)[0][:3] == "200"


@pytest.mark.root_only
def test_a_change_of_the_mode_is_a_change_of_the_state(app: Application, site: Site) -> None:
    """root may read all; that the file is looked at anew is what counts."""
    (site.directory / "top.txt").chmod(0o600)
    known = app._static._known.get("/top.txt")
    assert known is not None
    assert not known.found.original.is_unchanged()
    (site.directory / "a").chmod(0o700)
    known = app._static._known.get("/a/b/page.txt")
    assert known is not None
    assert not known.is_current()


def test_a_path_through_a_link_is_not_remembered(site: Site) -> None:
    """What it leads to may change where nobody looks."""
    site.file("releases/1/page.txt", "one")
    site.file("releases/2/page.txt", "two")
    (site.directory / "current").symlink_to("releases/1")
    (site.directory / "page.txt").symlink_to("releases/1/page.txt")
    app = create_app(site.directory)
    let_settle()
    assert [ask(app, path)[2] for path in ("/current/page.txt", "/page.txt")] == [b"one"] * 2
    assert not remembered(app, "/current/page.txt")
    assert not remembered(app, "/page.txt")


def test_a_directory_that_has_just_changed_is_not_trusted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its times may stay the same with the next change."""
    monkeypatch.setattr(filecache, "SETTLED_SECONDS", 3600)
    site.file("top.txt", "top")
    app = create_app(site.directory)
    assert ask(app, "/top.txt")[2] == b"top"
    assert not remembered(app, "/top.txt")


@pytest.mark.parametrize("path", ["//top.txt", "/./top.txt", "/a/../top.txt", "/a//b/page.txt"])
def test_only_plain_paths_are_remembered(app: Application, path: str) -> None:
    """One file has many spellings."""
    assert ask(app, path)[0] == "200 OK"
    assert not remembered(app, path)


def test_no_more_than_a_number_of_paths_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first; very long ones are not kept at all."""
    monkeypatch.setattr(filecache, "MAX_PATHS", 3)
    cache: filecache.FileCache[int] = filecache.FileCache()
    for number in range(10):
        cache.put(f"/{number}", (), number)
    cache.put("/" + "x" * filecache.MAX_PATH, (), 0)
    cache.put("/never", None, 0)
    assert list(cache._found) == ["/7", "/8", "/9"]


def test_a_link_among_the_cgi_directories_means_that_nothing_is_remembered(site: Site) -> None:
    """Where it leads may change without a change of the directory that it is in."""
    (site.directory / "htbin").symlink_to("elsewhere")
    let_settle()
    assert filecache.watch(PathRules(root_dir=site.directory), ["top.txt"]) is None


def test_threads_share_what_is_remembered(app: Application, site: Site) -> None:
    """Requests and changes at the same time: each answer is one of the two files, whole."""
    texts = {b"a" * 1000, b"b" * 2000}
    site.file("top.txt", b"a" * 1000)
    seen: set[bytes] = set()
    statuses: set[str] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            status, _, body = ask(app, "/top.txt")
            statuses.add(status)
            seen.add(body)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(200):
            new = site.file(".new", sorted(texts)[number % 2])
            new.rename(site.directory / "top.txt")
    finally:
        stop.set()
        for thread in threads:
            thread.join(15)
    assert seen == texts
    assert statuses == {"200 OK"}


def test_a_file_that_grows_all_the_time_is_sent_as_it_was(site: Site) -> None:
    """A log: each answer is whole, as it was at one moment."""
    file = site.file("x.log", "")
    app = create_app(site.directory)
    stop = threading.Event()

    def write() -> None:
        with open(file, "ab", buffering=0) as log:
            while not stop.is_set():
                log.write(b"x")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(50):
            for fields in ({}, {"Range": "bytes=0-0"}, {"If_None_Match": '"x"'}):
                status, headers, body = ask(app, "/x.log", **fields)
                if status[:3] != "416":  # it was empty still
                    assert status[:3] in ("200", "206")
                    assert dict(headers)["Content-Length"] == str(len(body))
                    assert body == b"x" * len(body)
    finally:
        stop.set()
        writer.join(15)


# -- any changes, in any order

PATHS = ("/", "/d/", "/d", "/d/f.txt", "/d/e/f.txt", "/f.txt", "/l/f.txt", "/cgi-bin/f.txt", "/d/f.txt.gz", "/g/f.txt")
FIELDS: tuple[dict[str, str], ...] = (
    {},
    {"Accept_Encoding": "gzip"},
    {"Range": "bytes=1-2"},
    {"Range": "bytes=900-"},
    {"If_None_Match": "*"},
    {"If_Match": '"x"'},
    {"If_Modified_Since": "Sun, 13 Sep 2020 12:26:40 GMT"},
)


class Changer:
    """Does something to a site, by chance."""

    def __init__(self, site: Site, seed: int) -> None:
        self._root = site.directory
        self._outside = site.directory.parent / "outside"
        (self._outside / "e").mkdir(parents=True)
        (self._outside / "f.txt").write_text("from outside")
        self._random = random.Random(seed)

    def change(self) -> None:
        place = self._root / self._random.choice(["f.txt", "d", "d/f.txt", "d/e", "d/e/f.txt", "l", "g", "d/index.htm"])
        chosen = self._random.choice(
            [self._write, self._write, self._remove, self._link, self._move, self._pack, self._cgi]
        )
        with contextlib.suppress(OSError):  # it is something else, or not there
            chosen(place)

    def _write(self, place: Path) -> None:
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(bytes(self._random.choices(range(97, 123), k=self._random.choice([0, 5, 500]))))
        second = 1_600_000_000 + self._random.choice([0, 0, 1])
        os.utime(place, (second, second))

    def _remove(self, place: Path) -> None:
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink()

    def _link(self, place: Path) -> None:
        place.symlink_to(self._random.choice([self._outside, self._root / "d", self._root / "f.txt"]))

    def _move(self, place: Path) -> None:
        place.rename(self._root / self._random.choice(["d", "g", "d/e", "f.txt", "../gone"]))

    def _pack(self, place: Path) -> None:
        packed = place.with_name(place.name + ".gz")
        packed.write_bytes(gzip.compress(place.read_bytes()))
        second = 1_600_000_000 + self._random.choice([0, 1])
        os.utime(packed, (second, second))

    def _cgi(self, place: Path) -> None:
        cgi = self._root / "htbin"
        if cgi.is_symlink():
            cgi.unlink()
        else:
            cgi.symlink_to(self._random.choice(["d", "d/e", "g"]))


@pytest.mark.parametrize("seed", range(2))
def test_after_any_changes_the_answers_are_those_of_a_new_server(site: Site, seed: int) -> None:
    """Files, directories, links and siblings come, go and change places; what is remembered makes no difference."""
    changer = Changer(site, seed)
    app = create_app(site.directory)
    hits = 0
    for _ in range(40):
        changer.change()
        let_settle()
        fresh = create_app(site.directory)
        for path in PATHS:
            for fields in FIELDS:
                assert ask(app, path, **fields) == ask(fresh, path, **fields), (path, fields)
            hits += remembered(app, path)
    assert hits > 5
