"""From URL paths to scripts and files: what runs, what is served, what is refused, on real directories."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from wsgicgi.errors import Forbidden, GatewayError, NotFound, ScriptForbidden, ScriptNotFound
from wsgicgi.paths import PathRules, find_file, visible_names
from wsgicgi.scripts import MAX_KNOWN, Script, ScriptFinder, count_scripts, find_script
from wsgicgi.urlpaths import canonical, segments, shown

IS_ROOT = os.geteuid() == 0  # permission bits do not bind root

PROGRAM = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nran\\n'\n"
LONG_NAME = "n" * 300  # longer than any file system's 255 bytes
LONG_PATH = "/x" * 5000  # longer than PATH_MAX


def put(place: Path, text: str = PROGRAM, mode: int = 0o644) -> Path:
    """A file with all directories above it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    place.chmod(mode)
    return place


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with scripts and files of all sorts, and others outside of it."""
    outside = tmp_path / "outside"
    put(outside / "program", mode=0o755)
    put(outside / "secret.txt", "secret")
    put(outside / "scripts" / "far.sh", mode=0o755)

    root = tmp_path / "root"
    put(root / "index.html", "index")
    put(root / "page.txt", "page")
    put(root / "%2e%2e" / "page.txt", "page in a directory named %2e%2e")
    put(root / ".secret" / "page.txt", "hidden")
    put(root / ".well-known" / "security.txt", "Contact: mailto:a@b")
    put(root / "page.txt~", "old")
    put(root / "docs" / "page.txt", "docs")
    put(root / "docs" / "index.cgi", mode=0o755)
    put(root / "docs" / "a.cgi", mode=0o755)
    put(root / "docs" / "off.cgi")
    put(root / "docs" / "b.php", "<?php")
    put(root / "docs.cgi" / "page.txt", "a directory may be named so")
    put(root / "plain" / "index.html", "index")
    put(root / "plain" / "index.cgi", mode=0o755)
    put(Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.txt")), "latin-1")
    put(root / "café.txt", "UTF-8")
    os.mkfifo(root / "fifo")

    cgi = root / "cgi-bin"
    put(cgi / "hello.sh", mode=0o755)
    put(cgi / "plain.txt", "no program")
    put(cgi / "tool.py", "print()")
    put(cgi / "TOOL.PY", "print()")
    put(cgi / "run.py", "#!/usr/bin/env python3\n", mode=0o755)
    put(cgi / "sub" / "deep.sh", mode=0o755)
    put(cgi / "sub" / "deeper" / "deepest.sh", mode=0o755)
    put(cgi / "%2e.sh", mode=0o755)
    put(cgi / "with space.sh", mode=0o755)
    put(cgi / "new\nline.sh", mode=0o755)
    put(Path(os.fsdecode(os.fsencode(cgi) + b"/caf\xe9.sh")), mode=0o755)
    put(cgi / "café.sh", mode=0o755)
    put(cgi / ".hidden.sh", mode=0o755)
    put(cgi / ".hidden" / "x.sh", mode=0o755)
    put(cgi / "hello.sh~", mode=0o755)
    put(cgi / "hello.sh.bak", mode=0o755)
    put(cgi / ".hello.sh.swp", mode=0o755)
    put(cgi / "#hello.sh#", mode=0o755)
    put(cgi / "withindex" / "index.py", "print()")
    put(cgi / "withindex" / "other.sh", mode=0o755)
    os.mkfifo(cgi / "fifo", 0o755)
    (cgi / "link").symlink_to(outside / "program")
    (cgi / "linked-dir").symlink_to(outside / "scripts")
    (cgi / "dangling").symlink_to(outside / "nothing")
    (cgi / "loop").symlink_to("loop")

    (root / "inside.txt").symlink_to("page.txt")
    (root / "out.txt").symlink_to(outside / "secret.txt")
    (root / "out").symlink_to(outside)
    (root / "source.txt").symlink_to("cgi-bin/hello.sh")
    (root / "source").symlink_to("cgi-bin")
    (root / "source-of-cgi.txt").symlink_to("docs/a.cgi")
    (root / "dangling.txt").symlink_to("nothing")
    return root.resolve()


@pytest.fixture
def rules(root: Path) -> PathRules:
    """The default rules on that directory."""
    return PathRules(root_dir=root)


# -- canonical and segments

CANONICAL = [
    pytest.param("/", "/", id="root"),
    pytest.param("/a/b", "/a/b", id="plain"),
    pytest.param("/a/b/", "/a/b/", id="final-slash"),
    pytest.param("//a///b//", "//a///b//", id="empty-segments-stay"),
    pytest.param("/./a", "/a", id="dot-first"),
    pytest.param("/a/./b", "/a/b", id="dot-inside"),
    pytest.param("/a/.", "/a/", id="dot-last"),
    pytest.param("/.", "/", id="dot-alone"),
    pytest.param("/a/../b", "/b", id="dots-inside"),
    pytest.param("/a/b/..", "/a/", id="dots-last"),
    pytest.param("/a/b/../", "/a/", id="dots-and-slash-last"),
    pytest.param("/a/..", "/", id="dots-back-to-root"),
    pytest.param("/a/b/c/../../d", "/a/d", id="dots-twice"),
    pytest.param("/a//../b", "/b", id="dots-take-an-empty-segment-along"),
    pytest.param("/a/...", "/a/...", id="three-dots-are-a-name"),
    pytest.param("/.a/b.", "/.a/b.", id="dots-in-names"),
    pytest.param("/a/%2e%2e/b", "/a/%2e%2e/b", id="decoded-once"),
    pytest.param("/a\\..\\b", "/a\\..\\b", id="backslashes-are-no-slashes"),
    pytest.param("/caf\xc3\xa9/./x", "/caf\xc3\xa9/x", id="utf-8-as-latin-1"),
    pytest.param("/\xff/../\xfe", "/\xfe", id="latin-1"),
]


@pytest.mark.parametrize(("path", "expected"), CANONICAL)
def test_dot_segments_are_taken_out_of_a_path(path: str, expected: str) -> None:
    """Dot segments go, all else stays as it is (RFC 3986 section 5.2.4)."""
    assert canonical(path) == expected


@pytest.mark.parametrize(("path", "expected"), CANONICAL)
def test_a_canonical_path_stays_as_it_is(path: str, expected: str) -> None:
    """A canonical path is its own canonical form, so that no second look can see another path."""
    assert canonical(expected) == expected


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/..", id="above-root"),
        pytest.param("/../", id="above-root-with-slash"),
        pytest.param("/../a", id="out-first"),
        pytest.param("/a/../../b", id="out-later"),
        pytest.param("/a/../../root/b", id="out-and-in-again"),
        pytest.param("//..", id="empty-segments-are-no-depth"),
        pytest.param("///../a", id="many-empty-segments-are-no-depth"),
        pytest.param("/./../a", id="dot-is-no-depth"),
        pytest.param("/a\0b", id="nul"),
        pytest.param("/\0", id="nul-alone"),
        pytest.param("/a/..\0", id="nul-after-dots"),
        pytest.param("", id="empty"),
        pytest.param("a/b", id="relative"),
        pytest.param("*", id="asterisk"),
        pytest.param("http://host/a", id="absolute-form"),
    ],
)
def test_a_path_out_of_the_root_is_not_found(path: str) -> None:
    """A path that leaves the root, holds NUL or is not absolute names nothing here (CWE-22, CWE-158)."""
    with pytest.raises(NotFound):
        canonical(path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("/", [], id="root"),
        pytest.param("/a/b", ["a", "b"], id="plain"),
        pytest.param("//a///b//", ["a", "b"], id="empty-segments"),
        pytest.param("/%2e%2e/x", ["%2e%2e", "x"], id="not-decoded-again"),
        pytest.param("/caf\xc3\xa9", ["café"], id="utf-8"),
        pytest.param("/caf\xe9", [os.fsdecode(b"caf\xe9")], id="latin-1"),
        pytest.param("/a b\n", ["a b\n"], id="blank-and-newline"),
    ],
)
def test_segments_are_names_as_the_file_system_spells_them(path: str, expected: list[str]) -> None:
    """Environ shows bytes as latin-1 (PEP 3333); names on disk are those bytes, as ``os.fsdecode`` spells them."""
    assert segments(path) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("/plain", "/plain", id="ascii"),
        pytest.param("/caf\xc3\xa9", "/café", id="utf-8"),
        pytest.param("/caf\xe9", "/caf�", id="latin-1"),
    ],
)
def test_a_path_in_a_message_reads_as_people_write_it(path: str, expected: str) -> None:
    """Messages show UTF-8 as text, and what is no UTF-8 by a replacement character."""
    assert shown(path) == expected


# -- names

HIDDEN = [
    pytest.param(".htaccess", True, id="dot-file"),
    pytest.param(".git", True, id="dot-directory"),
    pytest.param(".", True, id="dot"),
    pytest.param(".well-known", False, id="well-known"),
    pytest.param(".well-known2", True, id="nearly-well-known"),
    pytest.param("x.py~", True, id="tilde"),
    pytest.param("x.py.bak", True, id="bak"),
    pytest.param("X.PY.BAK", True, id="bak-in-capitals"),
    pytest.param("x.swp", True, id="swp"),
    pytest.param("x.swo", True, id="swo"),
    pytest.param("x.orig", True, id="orig"),
    pytest.param("#x.py#", True, id="emacs-auto-save"),
    pytest.param("new\nline~", True, id="left-over-with-a-newline"),
    pytest.param("x.py", False, id="script"),
    pytest.param("x.bak.py", False, id="bak-inside"),
    pytest.param("~x", False, id="tilde-first"),
    pytest.param("#x", False, id="number-sign-first"),
    pytest.param("backup", False, id="backup"),
    pytest.param("%2ehtaccess", False, id="encoded-dot-is-a-name"),
]


@pytest.mark.parametrize(("name", "expected"), HIDDEN)
def test_dot_files_and_left_overs_are_hidden(name: str, expected: bool) -> None:
    """Dot files but ``.well-known`` (RFC 8615), and what editors leave behind (CWE-530), are never shown."""
    assert PathRules(root_dir=Path("/")).is_hidden(name) is expected


@pytest.mark.parametrize(("name", "expected"), HIDDEN)
def test_nothing_is_hidden_when_hidden_names_are_allowed(name: str, expected: bool) -> None:
    """The setting ``allow_hidden`` lifts the rule for every name."""
    assert not PathRules(root_dir=Path("/"), allow_hidden=True).is_hidden(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("x.cgi", True, id="extension"),
        pytest.param("X.CGI", True, id="extension-in-capitals"),
        pytest.param("x.php", True, id="interpreter"),
        pytest.param("x.tar.cgi", True, id="last-suffix-counts"),
        pytest.param("x.cgi.txt", False, id="suffix-inside"),
        pytest.param("x.py", False, id="not-listed"),
        pytest.param("cgi", False, id="no-dot"),
        pytest.param("xcgi", False, id="no-suffix"),
        pytest.param("x.cgi~", False, id="left-over"),
    ],
)
def test_script_names_end_in_a_listed_suffix(name: str, expected: bool) -> None:
    """A file is a script by its name when its suffix is in ``cgi_extensions`` or ``interpreters``, in any case."""
    rules = PathRules(root_dir=Path("/"), cgi_extensions=(".cgi",), interpreters={".php": ("/usr/bin/php-cgi",)})
    assert rules.is_script_name(name) is expected


# -- scripts below a CGI directory


@pytest.mark.parametrize(
    ("path", "script_path", "extra_path"),
    [
        pytest.param("/cgi-bin/hello.sh", "/cgi-bin/hello.sh", "", id="no-extra-path"),
        pytest.param("/cgi-bin/hello.sh/", "/cgi-bin/hello.sh", "/", id="slash"),
        pytest.param("/cgi-bin/hello.sh/a/b", "/cgi-bin/hello.sh", "/a/b", id="extra-path"),
        pytest.param("/cgi-bin/hello.sh/a//b/", "/cgi-bin/hello.sh", "/a//b/", id="slashes-kept"),
        pytest.param("/cgi-bin/hello.sh//", "/cgi-bin/hello.sh", "//", id="two-slashes"),
        pytest.param("//cgi-bin///hello.sh//a", "/cgi-bin/hello.sh", "//a", id="slashes-before-merged"),
        pytest.param("/./cgi-bin/./hello.sh/./a", "/cgi-bin/hello.sh", "/a", id="dot-segments"),
        pytest.param("/cgi-bin/sub/../hello.sh/a", "/cgi-bin/hello.sh", "/a", id="dots-inside"),
        pytest.param("/docs/../cgi-bin/hello.sh", "/cgi-bin/hello.sh", "", id="dots-into-the-directory"),
        pytest.param("/cgi-bin/hello.sh/a/../b", "/cgi-bin/hello.sh", "/b", id="dots-in-extra-path"),
        pytest.param("/cgi-bin/hello.sh/a/..", "/cgi-bin/hello.sh", "/", id="dots-end-extra-path"),
        pytest.param("/cgi-bin/hello.sh/%2e%2e/x", "/cgi-bin/hello.sh", "/%2e%2e/x", id="decoded-once"),
        pytest.param("/cgi-bin/hello.sh/.hidden/x~", "/cgi-bin/hello.sh", "/.hidden/x~", id="hidden-in-extra-path"),
        pytest.param("/cgi-bin/hello.sh/cgi-bin/no.sh", "/cgi-bin/hello.sh", "/cgi-bin/no.sh", id="first-file-counts"),
        pytest.param(f"/cgi-bin/hello.sh/{LONG_NAME}", "/cgi-bin/hello.sh", f"/{LONG_NAME}", id="long-extra-path"),
        pytest.param("/cgi-bin/sub/deep.sh/x", "/cgi-bin/sub/deep.sh", "/x", id="sub-directory"),
        pytest.param("/cgi-bin/sub//deeper//deepest.sh", "/cgi-bin/sub/deeper/deepest.sh", "", id="two-down"),
        pytest.param("/cgi-bin/%2e.sh", "/cgi-bin/%2e.sh", "", id="percent-in-name"),
        pytest.param("/cgi-bin/with space.sh/ x", "/cgi-bin/with space.sh", "/ x", id="blank-in-name"),
        pytest.param("/cgi-bin/new\nline.sh", "/cgi-bin/new\nline.sh", "", id="newline-in-name"),
        pytest.param("/cgi-bin/caf\xe9.sh/\xe9", "/cgi-bin/caf\xe9.sh", "/\xe9", id="latin-1-name"),
        pytest.param("/cgi-bin/caf\xc3\xa9.sh", "/cgi-bin/caf\xc3\xa9.sh", "", id="utf-8-name"),
        pytest.param("/cgi-bin/link/x", "/cgi-bin/link", "/x", id="link-to-a-program-elsewhere"),
        pytest.param("/cgi-bin/linked-dir/far.sh", "/cgi-bin/linked-dir/far.sh", "", id="linked-directory"),
        pytest.param("/cgi-bin/run.py", "/cgi-bin/run.py", "", id="executable-python"),
        pytest.param("/cgi-bin/tool.py/x", "/cgi-bin/tool.py", "/x", id="python-without-x-bit"),
    ],
)
def test_first_file_below_a_cgi_directory_is_the_script(
    rules: PathRules, root: Path, path: str, script_path: str, extra_path: str
) -> None:
    """The first segment that is a regular file is the script, the rest the extra path (RFC 3875 section 3.3)."""
    script = find_script(rules, path)
    assert script is not None
    assert (script.script_path, script.extra_path) == (script_path, extra_path)
    assert os.fsencode(script.file) == os.fsencode(root) + script_path.encode("latin-1")
    assert script.root_dir == root


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/", id="root"),
        pytest.param("/index.html", id="file"),
        pytest.param("/nothing", id="nothing"),
        pytest.param("/cgi-bin2/hello.sh", id="longer-name"),
        pytest.param("/cgi-bi", id="shorter-name"),
        pytest.param("/docs/cgi-bin/hello.sh", id="same-name-deeper"),
        pytest.param("/cgi-bin/../index.html", id="out-again-by-dots"),
        pytest.param("/cgi-bin%2fhello.sh", id="slash-encoded-twice"),
        pytest.param("/docs/a.cgi", id="suffix-not-set"),
    ],
)
def test_a_path_outside_the_cgi_directories_names_no_script(rules: PathRules, path: str) -> None:
    """What is below no CGI directory is for the next application."""
    assert find_script(rules, path) is None


@pytest.mark.parametrize(
    ("path", "error"),
    [
        pytest.param("/cgi-bin", ScriptForbidden, id="directory-itself"),
        pytest.param("/cgi-bin/", ScriptForbidden, id="directory-with-slash"),
        pytest.param("//cgi-bin//", ScriptForbidden, id="directory-with-slashes"),
        pytest.param("/cgi-bin/sub", ScriptForbidden, id="sub-directory"),
        pytest.param("/cgi-bin/sub/", ScriptForbidden, id="sub-directory-with-slash"),
        pytest.param("/cgi-bin/nothing.sh", ScriptNotFound, id="nothing-there"),
        pytest.param("/cgi-bin/nothing/x", ScriptNotFound, id="no-directory-there"),
        pytest.param("/cgi-bin/sub/nothing", ScriptNotFound, id="nothing-in-sub-directory"),
        pytest.param("/htbin/x", ScriptNotFound, id="cgi-directory-missing"),
        pytest.param("/cgi-bin/.hidden.sh", ScriptNotFound, id="dot-file"),
        pytest.param("/cgi-bin/.hidden/x.sh", ScriptNotFound, id="in-dot-directory"),
        pytest.param("/cgi-bin/hello.sh~", ScriptNotFound, id="tilde"),
        pytest.param("/cgi-bin/hello.sh.bak", ScriptNotFound, id="bak"),
        pytest.param("/cgi-bin/.hello.sh.swp", ScriptNotFound, id="swp"),
        pytest.param("/cgi-bin/#hello.sh#", ScriptNotFound, id="auto-save"),
        pytest.param("/cgi-bin/plain.txt", ScriptForbidden, id="not-executable"),
        pytest.param("/cgi-bin/plain.txt/x", ScriptForbidden, id="not-executable-with-extra-path"),
        pytest.param("/cgi-bin/fifo", ScriptForbidden, id="fifo"),
        pytest.param("/cgi-bin/fifo/x", ScriptForbidden, id="fifo-with-extra-path"),
        pytest.param("/cgi-bin/dangling", ScriptNotFound, id="dangling-link"),
        pytest.param("/cgi-bin/loop", ScriptNotFound, id="link-to-itself"),
        pytest.param(f"/cgi-bin/{LONG_NAME}", ScriptNotFound, id="long-name"),
        pytest.param(f"/cgi-bin{LONG_PATH}", ScriptNotFound, id="long-path"),
        pytest.param("/cgi-bin/%2e%2e/index.html", ScriptNotFound, id="encoded-twice"),
        pytest.param("/cgi-bin/hello.sh\0", NotFound, id="nul"),
        pytest.param("/cgi-bin/hello.sh/\0", NotFound, id="nul-in-extra-path"),
        pytest.param("/cgi-bin/../../etc/passwd", NotFound, id="out-of-root"),
        pytest.param("/cgi-bin/hello.sh/../../../x", NotFound, id="out-of-root-by-extra-path"),
    ],
)
def test_below_a_cgi_directory_what_is_no_script_is_an_error(
    rules: PathRules, path: str, error: type[GatewayError]
) -> None:
    """Below a CGI directory the answer is a script's or an error, never None, which would serve the source."""
    with pytest.raises(error) as raised:
        find_script(rules, path)
    assert raised.value.status == error.status


def test_a_script_that_is_not_executable_is_refused_with_the_remedy(rules: PathRules, root: Path) -> None:
    """A message says where, what was found and what to do."""
    with pytest.raises(ScriptForbidden) as raised:
        find_script(rules, "/cgi-bin/plain.txt")
    place = root / "cgi-bin" / "plain.txt"
    expected = f"/cgi-bin/plain.txt: {place} is not executable (mode 0644). Try: chmod 755 {place}"
    assert str(raised.value) == expected


def test_hidden_scripts_run_when_allowed(rules: PathRules) -> None:
    """The setting ``allow_hidden`` holds for scripts too."""
    script = find_script(replace(rules, allow_hidden=True), "/cgi-bin/.hidden/x.sh")
    assert script is not None
    assert script.script_path == "/cgi-bin/.hidden/x.sh"


def test_the_case_of_a_cgi_directory_counts(rules: PathRules) -> None:
    """URL paths differ by case (RFC 9110 section 4.2.3); a disk that ignores case is ``find_file``'s concern."""
    assert find_script(rules, "/CGI-BIN/hello.sh") is None


@pytest.mark.parametrize(
    ("name", "command"),
    [
        pytest.param("hello.sh", ["{place}"], id="executable"),
        pytest.param("run.py", ["{place}"], id="executable-python"),
        pytest.param("tool.py", ["{python}", "{place}"], id="python-without-x-bit"),
        pytest.param("TOOL.PY", ["{python}", "{place}"], id="python-in-capitals"),
        pytest.param("link", ["{place}"], id="link"),
    ],
)
def test_a_script_runs_itself_or_by_python(rules: PathRules, root: Path, name: str, command: list[str]) -> None:
    """An executable file is its own command; a ``.py`` without x bit runs by this Python, as in http.server."""
    script = find_script(rules, f"/cgi-bin/{name}")
    assert script is not None
    place = str(root / "cgi-bin" / name)
    assert list(script.command) == [word.format(place=place, python=sys.executable) for word in command]


def test_a_link_to_a_program_keeps_its_own_name_and_directory(rules: PathRules, root: Path) -> None:
    """A symlink in a CGI directory to a program elsewhere runs, under the link's name (Debian's cgi-bin has such)."""
    script = find_script(rules, "/cgi-bin/link")
    assert script is not None
    assert script.file == root / "cgi-bin" / "link"


@pytest.mark.parametrize(("mode", "readable_by_others"), [(0o000, False), (0o200, False), (0o400, True)])
def test_python_that_cannot_be_read_is_refused(
    rules: PathRules, root: Path, mode: int, readable_by_others: bool
) -> None:
    """A ``.py`` without x bit needs to be readable for the interpreter; root reads everything."""
    (root / "cgi-bin" / "tool.py").chmod(mode)
    if IS_ROOT or readable_by_others:
        assert find_script(rules, "/cgi-bin/tool.py") is not None
    else:
        with pytest.raises(ScriptForbidden):
            find_script(rules, "/cgi-bin/tool.py")


def test_x_bit_is_needed_by_root_too(rules: PathRules, root: Path) -> None:
    """A file without any x bit is no program, whoever asks (execve(2), EACCES)."""
    (root / "cgi-bin" / "hello.sh").chmod(0o666)
    with pytest.raises(ScriptForbidden):
        find_script(rules, "/cgi-bin/hello.sh")


def test_a_directory_that_may_not_be_searched_is_forbidden(rules: PathRules, root: Path) -> None:
    """EACCES on the way is 403, not 404: the difference helps who has to mend it; root may search everything."""
    directory = root / "cgi-bin" / "sub"
    directory.chmod(0o000)
    try:
        if IS_ROOT:
            assert find_script(rules, "/cgi-bin/sub/deep.sh") is not None
        else:
            with pytest.raises(Forbidden):
                find_script(rules, "/cgi-bin/sub/deep.sh")
    finally:
        directory.chmod(0o755)


def test_a_file_in_the_place_of_a_cgi_directory_is_not_found(tmp_path: Path) -> None:
    """A CGI directory that is a file holds no scripts, and is not served as a file either."""
    put(tmp_path / "cgi-bin", mode=0o755)
    rules = PathRules(root_dir=tmp_path.resolve())
    with pytest.raises(ScriptNotFound):
        find_script(rules, "/cgi-bin/x")


def test_scripts_appear_and_vanish_while_the_server_runs(rules: PathRules, root: Path) -> None:
    """Nothing is remembered between requests: the disk is asked each time."""
    with pytest.raises(ScriptNotFound):
        find_script(rules, "/cgi-bin/late.sh")
    late = put(root / "cgi-bin" / "late.sh", mode=0o755)
    assert find_script(rules, "/cgi-bin/late.sh") is not None
    late.unlink()
    with pytest.raises(ScriptNotFound):
        find_script(rules, "/cgi-bin/late.sh")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("nph-x", True), ("nph-", True), ("NPH-x", False), ("x-nph-", False), ("nphx", False)],
)
def test_nph_scripts_are_known_by_their_name(tmp_path: Path, name: str, expected: bool) -> None:
    """A name that begins with "nph-" stands for a non-parsed-header script (RFC 3875 section 5)."""
    put(tmp_path / "cgi-bin" / name, mode=0o755)
    script = find_script(PathRules(root_dir=tmp_path.resolve()), f"/cgi-bin/{name}")
    assert script is not None
    assert script.is_nph is expected


# -- other CGI directories


@pytest.mark.parametrize(
    ("directories", "path", "expected"),
    [
        pytest.param(["/"], "/cgi-bin/hello.sh/x", ("/cgi-bin/hello.sh", "/x"), id="everything"),
        pytest.param(["/"], "//docs//a.cgi", ("/docs/a.cgi", ""), id="everything-elsewhere"),
        pytest.param(["/cgi-bin/sub"], "/cgi-bin/sub/deep.sh/y", ("/cgi-bin/sub/deep.sh", "/y"), id="nested"),
        pytest.param(["/cgi-bin/sub"], "/cgi-bin/hello.sh", None, id="above-a-nested-one"),
        pytest.param(["/cgi-bin/sub"], "/cgi-bin/sub2/deep.sh", None, id="beside-a-nested-one"),
        pytest.param(["/cgi-bin", "/cgi-bin/sub"], "/cgi-bin/sub/deep.sh", ("/cgi-bin/sub/deep.sh", ""), id="both"),
        pytest.param(["/.secret", "/cgi-bin"], "/cgi-bin/hello.sh", ("/cgi-bin/hello.sh", ""), id="second"),
        pytest.param(["/cgi-bin/.hidden"], "/cgi-bin/.hidden/x.sh", ("/cgi-bin/.hidden/x.sh", ""), id="hidden-one"),
        pytest.param([], "/cgi-bin/hello.sh", None, id="none"),
    ],
)
def test_cgi_directories_may_be_anywhere(
    rules: PathRules, directories: list[str], path: str, expected: tuple[str, str] | None
) -> None:
    """Scripts are below those URL paths that ``cgi_directories`` names, whole segments counted."""
    script = find_script(replace(rules, cgi_directories=directories), path)
    assert expected == (script and (script.script_path, script.extra_path))


@pytest.mark.parametrize(
    ("path", "error"),
    [
        pytest.param("/", ScriptForbidden, id="root"),
        pytest.param("/page.txt", ScriptForbidden, id="file"),
        pytest.param("/.secret/page.txt", ScriptNotFound, id="hidden"),
        pytest.param("/nothing", ScriptNotFound, id="nothing"),
    ],
)
def test_with_the_root_as_cgi_directory_nothing_is_static(
    rules: PathRules, path: str, error: type[GatewayError]
) -> None:
    """Below a CGI directory of "/" everything is a script or an error."""
    rules = replace(rules, cgi_directories=["/"], index_names=())
    with pytest.raises(error):
        find_script(rules, path)
    with pytest.raises((Forbidden, NotFound)):
        find_file(rules, path)


@pytest.mark.parametrize("name", ["café", "скрипты"])
def test_a_cgi_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    """A setting is text; environ's path is its UTF-8 bytes as latin-1 (PEP 3333), and both name one directory."""
    put(tmp_path / name / "x.sh", mode=0o755)
    rules = PathRules(root_dir=tmp_path.resolve(), cgi_directories=(f"/{name}",))
    path = f"/{name}/x.sh".encode().decode("latin-1")
    script = find_script(rules, path)
    assert script is not None
    assert script.file == tmp_path.resolve() / name / "x.sh"
    assert count_scripts(rules, f"/{name}") == 1


@pytest.mark.parametrize("name", ["café", "скрипты"])
def test_the_source_below_a_cgi_directory_of_any_name_is_never_served(tmp_path: Path, name: str) -> None:
    """A file below a CGI directory is never served, whatever letters the directory's name has (CWE-540)."""
    put(tmp_path / name / "x.sh", mode=0o755)
    rules = PathRules(root_dir=tmp_path.resolve(), cgi_directories=(f"/{name}",))
    with pytest.raises(Forbidden):
        find_file(rules, f"/{name}/x.sh".encode().decode("latin-1"))


# -- scripts by their name, interpreters, index scripts


@pytest.fixture
def by_name(rules: PathRules) -> PathRules:
    """Rules with scripts in every directory."""
    return replace(
        rules,
        cgi_extensions=(".cgi",),
        interpreters={".php": ("/usr/bin/php-cgi", "-q")},
        index_names=("index.html", "index.cgi"),
    )


@pytest.mark.parametrize(
    ("path", "script_path", "extra_path", "interpreter"),
    [
        pytest.param("/docs/a.cgi", "/docs/a.cgi", "", (), id="extension"),
        pytest.param("/docs/a.cgi/x//y/", "/docs/a.cgi", "/x//y/", (), id="extension-with-extra-path"),
        pytest.param("//docs//a.cgi//x", "/docs/a.cgi", "//x", (), id="slashes"),
        pytest.param("/docs/b.php", "/docs/b.php", "", ("/usr/bin/php-cgi", "-q"), id="interpreter"),
        pytest.param("/docs/b.php/x", "/docs/b.php", "/x", ("/usr/bin/php-cgi", "-q"), id="interpreter-extra-path"),
        pytest.param("/docs/", "/docs/index.cgi", "", (), id="index"),
        pytest.param("/docs//", "/docs/index.cgi", "", (), id="index-with-slashes"),
    ],
)
def test_files_with_a_script_suffix_run_everywhere(
    by_name: PathRules, root: Path, path: str, script_path: str, extra_path: str, interpreter: tuple[str, ...]
) -> None:
    """Suffixes make scripts outside CGI directories; an interpreter's file needs no x bit."""
    script = find_script(by_name, path)
    assert script is not None
    assert (script.script_path, script.extra_path) == (script_path, extra_path)
    assert script.command == (*interpreter, str(root) + script_path)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/docs", id="directory-without-slash"),
        pytest.param("/docs/page.txt", id="file"),
        pytest.param("/docs/no.cgi", id="nothing"),
        pytest.param("/docs.cgi/", id="directory-with-such-a-name"),
        pytest.param("/docs.cgi/page.txt", id="file-in-a-directory-with-such-a-name"),
        pytest.param("/plain/", id="index-that-is-a-file-comes-first"),
        pytest.param("/nothing/", id="no-directory"),
        pytest.param("/", id="root-with-a-file-as-index"),
        pytest.param(f"/{LONG_NAME}.cgi", id="long-name"),
    ],
)
def test_other_names_are_no_scripts(by_name: PathRules, path: str) -> None:
    """What has no script's suffix, or is no file, is for the next application."""
    assert find_script(by_name, path) is None


def test_a_script_by_name_without_x_bit_is_forbidden(by_name: PathRules) -> None:
    """A file with a script's suffix that cannot run is an error, and never its source."""
    with pytest.raises(ScriptForbidden):
        find_script(by_name, "/docs/off.cgi")
    with pytest.raises(Forbidden):
        find_file(by_name, "/docs/off.cgi")


@pytest.mark.parametrize("path", ["/.secret/x.cgi", "/docs/.x.cgi", "/.secret/"])
def test_hidden_files_are_no_scripts_by_name(by_name: PathRules, root: Path, path: str) -> None:
    """Hidden names are hidden for scripts too: neither runs nor shows."""
    for place in (".secret/x.cgi", "docs/.x.cgi", ".secret/index.cgi"):
        put(root / place, mode=0o755)
    assert find_script(by_name, path) is None
    with pytest.raises(NotFound):
        find_file(by_name, path)


@pytest.mark.parametrize("name", ["docs/far.cgi", "docs/far/x.cgi", "far/"])
def test_a_script_by_name_out_of_the_root_is_forbidden(by_name: PathRules, root: Path, name: str) -> None:
    """Outside CGI directories, a link that leaves the root makes no script unless ``follow_symlinks`` says so."""
    outside = root.parent / "outside" / "more"
    put(outside / "x.cgi", mode=0o755)
    put(outside / "index.cgi", mode=0o755)
    (root / "docs" / "far.cgi").symlink_to(outside / "x.cgi")
    (root / "docs" / "far").symlink_to(outside)
    (root / "far").symlink_to(outside)
    with pytest.raises(Forbidden):
        find_script(by_name, f"/{name}")
    assert find_script(replace(by_name, follow_symlinks=True), f"/{name}") is not None


def test_an_interpreter_runs_files_in_a_cgi_directory_too(rules: PathRules, root: Path) -> None:
    """``interpreters`` goes before the x bit and before the rule for ``.py``."""
    rules = replace(rules, interpreters={".py": ("/opt/python",), ".sh": ("/bin/sh", "-e")})
    commands = []
    for name in ("tool.py", "run.py", "hello.sh"):
        script = find_script(rules, f"/cgi-bin/{name}")
        assert script is not None
        commands.append(script.command)
    cgi = root / "cgi-bin"
    assert commands == [
        ("/opt/python", str(cgi / "tool.py")),
        ("/opt/python", str(cgi / "run.py")),
        ("/bin/sh", "-e", str(cgi / "hello.sh")),
    ]


@pytest.mark.parametrize("path", ["/cgi-bin/withindex/", "//cgi-bin//withindex//"])
def test_a_script_stands_for_a_directory_of_scripts(rules: PathRules, root: Path, path: str) -> None:
    """An index script below a CGI directory answers for its directory; any name may be one there."""
    script = find_script(replace(rules, index_names=("index.html", "index.py")), path)
    assert script is not None
    assert script.file == root / "cgi-bin" / "withindex" / "index.py"
    assert (script.script_path, script.extra_path) == ("/cgi-bin/withindex/index.py", "")


def test_a_directory_of_scripts_needs_its_slash_for_an_index(rules: PathRules) -> None:
    """Without the final slash, relative links in the script's page would point elsewhere: no index is run."""
    with pytest.raises(ScriptForbidden):
        find_script(replace(rules, index_names=("index.py",)), "/cgi-bin/withindex")


def test_a_file_that_may_not_run_does_not_stand_for_a_directory_of_scripts(rules: PathRules, root: Path) -> None:
    """The first index name that is there counts, and below a CGI directory it is a script or an error."""
    put(root / "cgi-bin" / "withindex" / "index.html", "page")
    with pytest.raises(ScriptForbidden):
        find_script(replace(rules, index_names=("index.html", "index.py")), "/cgi-bin/withindex/")


# -- counting


def test_runnable_scripts_are_counted(root: Path) -> None:
    """The count has what can run by its x bit or as Python, in (linked) sub-directories too, without what is hidden."""
    rules = PathRules(root_dir=root)
    counted = {
        *("hello.sh", "tool.py", "TOOL.PY", "run.py", "%2e.sh", "with space.sh", "new\nline.sh", "café.sh", "link"),
        *("sub/deep.sh", "sub/deeper/deepest.sh", "withindex/index.py", "withindex/other.sh"),
        os.fsdecode(b"caf\xe9.sh"),
        *(f"linked-dir/{name}" for name in os.listdir(root / "cgi-bin/linked-dir")),
    }
    assert count_scripts(rules, "/cgi-bin") == len(counted)


@pytest.mark.parametrize(
    ("directory", "expected"),
    [("/cgi-bin/sub", 2), ("/cgi-bin/sub/deeper", 1), ("/htbin", 0), ("/page.txt", 0), ("/.secret", 0)],
)
def test_scripts_of_other_directories_are_counted(rules: PathRules, directory: str, expected: int) -> None:
    """A directory that is not there, or holds no programs, has none."""
    assert count_scripts(rules, directory) == expected


def test_interpreters_make_more_scripts_to_count(rules: PathRules) -> None:
    """A file that an interpreter runs counts without an x bit."""
    more = replace(rules, interpreters={".txt": ("/bin/cat",)})
    assert count_scripts(more, "/cgi-bin") == count_scripts(rules, "/cgi-bin") + 1


# -- static files


@pytest.mark.parametrize(
    ("path", "name", "clean"),
    [
        pytest.param("/", "", "/", id="root"),
        pytest.param("//", "", "/", id="root-with-slashes"),
        pytest.param("/page.txt", "page.txt", "/page.txt", id="file"),
        pytest.param("//docs///page.txt", "docs/page.txt", "/docs/page.txt", id="slashes-merged"),
        pytest.param("/docs", "docs", "/docs", id="directory"),
        pytest.param("/docs/", "docs", "/docs/", id="directory-with-slash"),
        pytest.param("/docs//", "docs", "/docs/", id="directory-with-slashes"),
        pytest.param("//evil.example/..", "", "/", id="back-to-root"),
        pytest.param("/docs/./../page.txt", "page.txt", "/page.txt", id="dot-segments"),
        pytest.param("/page.txt/", "page.txt", "/page.txt/", id="file-with-slash"),
        pytest.param("/%2e%2e/page.txt", "%2e%2e/page.txt", "/%2e%2e/page.txt", id="encoded-twice-is-a-name"),
        pytest.param("/caf\xc3\xa9.txt", "café.txt", "/caf\xc3\xa9.txt", id="utf-8"),
        pytest.param("/caf\xe9.txt", os.fsdecode(b"caf\xe9.txt"), "/caf\xe9.txt", id="latin-1"),
        pytest.param(
            "/.well-known/security.txt", ".well-known/security.txt", "/.well-known/security.txt", id="rfc8615"
        ),
        pytest.param("/inside.txt", "page.txt", "/inside.txt", id="link-inside"),
        pytest.param("/docs/a.cgi", "docs/a.cgi", "/docs/a.cgi", id="suffix-not-set"),
    ],
)
def test_a_path_names_a_file_by_its_real_path(rules: PathRules, root: Path, path: str, name: str, clean: str) -> None:
    """A static file is found by its real path; its clean URL path has one slash at a time."""
    assert find_file(rules, path) == (root / name, clean)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        pytest.param("/nothing.txt", NotFound, id="nothing"),
        pytest.param("/page.txt/x", NotFound, id="below-a-file"),
        pytest.param("/dangling.txt", NotFound, id="dangling-link"),
        pytest.param(f"/{LONG_NAME}", NotFound, id="long-name"),
        pytest.param(LONG_PATH, NotFound, id="long-path"),
        pytest.param("/.secret/page.txt", NotFound, id="in-dot-directory"),
        pytest.param("/.secret", NotFound, id="dot-directory"),
        pytest.param("/page.txt~", NotFound, id="left-over"),
        pytest.param("/../outside/secret.txt", NotFound, id="out-of-root"),
        pytest.param("/%2e%2e/secret.txt", NotFound, id="encoded-twice"),
        pytest.param("/..\\outside\\secret.txt", NotFound, id="backslashes"),
        pytest.param("/page.txt\0.html", NotFound, id="nul"),
        pytest.param("", NotFound, id="empty"),
        pytest.param("/out.txt", Forbidden, id="link-out-of-root"),
        pytest.param("/out/secret.txt", Forbidden, id="through-a-linked-directory"),
        pytest.param("/out/", Forbidden, id="linked-directory"),
        pytest.param("/source.txt", Forbidden, id="link-into-cgi-directory"),
        pytest.param("/source/hello.sh", Forbidden, id="through-a-link-to-cgi-directory"),
        pytest.param("/source/", Forbidden, id="link-to-cgi-directory"),
        pytest.param("/cgi-bin/hello.sh", Forbidden, id="script"),
        pytest.param("/cgi-bin/plain.txt", Forbidden, id="file-in-cgi-directory"),
        pytest.param("/cgi-bin/", Forbidden, id="cgi-directory"),
        pytest.param("/docs/../cgi-bin//sub/./deep.sh", Forbidden, id="script-by-dots"),
    ],
)
def test_a_path_to_what_may_not_be_seen_is_refused(rules: PathRules, path: str, error: type[GatewayError]) -> None:
    """No static file comes from outside the root, from a hidden name or from a CGI directory, by whatever path."""
    with pytest.raises(error) as raised:
        find_file(rules, path)
    assert raised.value.status == error.status


@pytest.mark.parametrize("path", ["/out.txt", "/out/secret.txt"])
def test_links_out_of_the_root_are_followed_when_allowed(rules: PathRules, root: Path, path: str) -> None:
    """The setting ``follow_symlinks`` lets static files be elsewhere."""
    assert find_file(replace(rules, follow_symlinks=True), path)[0] == root.parent / "outside" / "secret.txt"


@pytest.mark.parametrize("path", ["/source.txt", "/source/hello.sh", "/cgi-bin/hello.sh"])
def test_followed_links_do_not_lead_into_a_cgi_directory(rules: PathRules, path: str) -> None:
    """A script's source is not served through a link, whatever ``follow_symlinks`` says (CWE-540)."""
    with pytest.raises(Forbidden):
        find_file(replace(rules, follow_symlinks=True), path)


def test_a_cgi_directory_elsewhere_is_closed_to_static_links(root: Path) -> None:
    """A CGI directory that is itself a link is known by what it leads to, not by its name."""
    scripts = root.parent / "outside" / "scripts"
    (root / "linked-cgi").symlink_to(scripts)
    (root / "other-way").symlink_to(scripts)
    rules = PathRules(root_dir=root, cgi_directories=("/linked-cgi",), follow_symlinks=True)
    for path in ("/linked-cgi/far.sh", "/other-way/far.sh"):
        with pytest.raises(Forbidden):
            find_file(rules, path)


@pytest.mark.parametrize(
    "path",
    ["/docs/a.cgi", "/docs/off.cgi", "/docs/b.php", "/source-of-cgi.txt", "/docs/link.cgi"],
)
def test_the_source_of_a_script_by_name_is_never_served(by_name: PathRules, root: Path, path: str) -> None:
    """A file with a script's suffix is no static file, neither by its own name nor by a link's (CWE-540)."""
    (root / "docs" / "link.cgi").symlink_to("page.txt")
    with pytest.raises(Forbidden):
        find_file(by_name, path)


@pytest.mark.parametrize("path", ["/docs.cgi", "/docs.cgi/", "/docs.cgi/page.txt"])
def test_directories_may_be_named_like_scripts(by_name: PathRules, path: str) -> None:
    """A suffix makes files scripts, not directories."""
    assert find_file(by_name, path)[1] == path


def test_hidden_files_are_found_when_allowed(rules: PathRules, root: Path) -> None:
    """The setting ``allow_hidden`` holds for static files."""
    allowed = replace(rules, allow_hidden=True)
    assert find_file(allowed, "/.secret/page.txt")[0] == root / ".secret" / "page.txt"
    assert find_file(allowed, "/page.txt~")[0] == root / "page.txt~"


def test_a_fifo_is_found_without_being_opened(rules: PathRules, root: Path) -> None:
    """Finding a file opens nothing: a FIFO without a writer would hang the server."""
    assert find_file(rules, "/fifo") == (root / "fifo", "/fifo")


def test_a_static_directory_that_may_not_be_searched_is_forbidden(rules: PathRules, root: Path) -> None:
    """EACCES on the way is 403; root may search everything."""
    directory = root / "docs"
    directory.chmod(0o600)
    try:
        if IS_ROOT:
            assert find_file(rules, "/docs/page.txt")[0] == directory / "page.txt"
        else:
            with pytest.raises(Forbidden):
                find_file(rules, "/docs/page.txt")
    finally:
        directory.chmod(0o755)


def test_a_root_at_the_top_of_the_disk_contains_everything(root: Path) -> None:
    """Containment holds for a root directory of "/" too, which ends in a slash already."""
    rules = PathRules(root_dir=Path("/"), cgi_directories=())
    path = os.fsencode(root / "page.txt").decode("latin-1")
    assert find_file(rules, path) == (root / "page.txt", path)


def test_a_directory_whose_name_begins_like_the_root_is_outside(root: Path) -> None:
    """Containment counts whole names: ``root2`` is not in ``root`` (CWE-22)."""
    put(root.parent / "root2" / "x.txt")
    (root / "sibling.txt").symlink_to(root.parent / "root2" / "x.txt")
    with pytest.raises(Forbidden):
        find_file(PathRules(root_dir=root), "/sibling.txt")


# -- listings


def names_in(rules: PathRules, directory: Path) -> set[str]:
    return {entry.name for entry in visible_names(rules, directory)}


def test_a_listing_has_what_can_be_asked_for(rules: PathRules, root: Path) -> None:
    """A listing shows files and directories that a request can have: nothing hidden, out of bounds, or special."""
    assert names_in(rules, root) == {
        *("index.html", "page.txt", "%2e%2e", ".well-known", "docs", "docs.cgi", "plain", "café.txt"),
        *("inside.txt", "source-of-cgi.txt", os.fsdecode(b"caf\xe9.txt")),
    }


def test_a_listing_shows_links_and_hidden_names_when_allowed(rules: PathRules, root: Path) -> None:
    """With ``follow_symlinks`` and ``allow_hidden`` the rest shows too, but never a CGI directory or a FIFO."""
    allowed = replace(rules, follow_symlinks=True, allow_hidden=True)
    more = names_in(allowed, root) - names_in(rules, root)
    assert more == {"out.txt", "out", ".secret", "page.txt~"}


def test_every_listed_name_can_be_found(rules: PathRules, root: Path) -> None:
    """What a listing links to is there."""
    for name in names_in(rules, root):
        path = "/" + os.fsencode(name).decode("latin-1")
        assert find_file(rules, path)[1] == path


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("loop", id="link-to-itself"),
        pytest.param("page.txt/below", id="link-through-a-file"),
        pytest.param(LONG_NAME, id="link-to-a-long-name"),
        pytest.param("nothing", id="dangling-link"),
    ],
)
def test_a_link_that_leads_nowhere_does_not_spoil_a_listing(rules: PathRules, root: Path, target: str) -> None:
    """One broken link (ELOOP, ENOTDIR, ENAMETOOLONG, ENOENT) is left out, and the rest of the directory shows."""
    before = names_in(rules, root)
    (root / "loop").symlink_to(target)
    assert names_in(rules, root) == before


def test_a_script_is_a_value() -> None:
    """Scripts with the same parts are equal and cannot be changed: they cross module boundaries."""
    parts = {"file": Path("/a"), "command": ("/a",), "script_path": "/a", "extra_path": "", "root_dir": Path("/")}
    assert Script(**parts) == Script(**parts)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        Script(**parts).extra_path = "/x"  # type: ignore[arg-type,misc]


# -- a finder that remembers


def outcome(find: Callable[[str], Script | None], path: str) -> object:
    """What is found, or the error."""
    try:
        return find(path)
    except GatewayError as error:
        return type(error), str(error)


CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda root: None,
    "not-executable": lambda root: (root / "cgi-bin/d/s").chmod(0o644),
    "written": lambda root: (root / "cgi-bin/d/s").write_text(PROGRAM + "#"),
    "replaced": lambda root: os.replace(put(root / "other", mode=0o600), root / "cgi-bin/d/s"),
    "removed": lambda root: (root / "cgi-bin/d/s").unlink(),
    "made-a-directory": lambda root: [(root / "cgi-bin/d/s").unlink(), (root / "cgi-bin/d/s/x").mkdir(parents=True)],
    "directory-renamed": lambda root: (root / "cgi-bin/d").rename(root / "cgi-bin/e"),
    "directory-made-a-script": lambda root: [
        (root / "cgi-bin/d").rename(root / "old"),
        put(root / "cgi-bin/d", mode=0o755),
    ],
    "made-a-link-out": lambda root: [
        (root / "cgi-bin/d/s").unlink(),
        (root / "cgi-bin/d/s").symlink_to(root.parent / "outside" / "secret.txt"),
    ],
    "directory-made-a-link": lambda root: [
        (root / "cgi-bin/d").rename(root / "old"),
        put(root.parent / "outside" / "s"),
        (root / "cgi-bin/d").symlink_to(root.parent / "outside"),
    ],
}


@pytest.mark.parametrize("path", ["/cgi-bin/d/s", "/cgi-bin/d/s/x/y"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_a_finder_remembers_is_what_is_there(
    rules: PathRules, root: Path, change: Callable[[Path], object], path: str
) -> None:
    """Each change is in effect with the next request."""
    put(root / "cgi-bin/d/s", mode=0o755)
    finder = ScriptFinder(rules)
    assert finder.find(path) == find_script(rules, path) is not None
    assert finder.find(path) is finder.find(path)
    change(root)
    assert outcome(finder.find, path) == outcome(lambda path: find_script(rules, path), path)
    put(root / "cgi-bin/d2/s", mode=0o755)  # nothing else was spoilt
    assert finder.find("/cgi-bin/d2/s") is not None


def test_a_finder_sees_a_better_index(by_name: PathRules, root: Path) -> None:
    """What stands for a directory is looked for each time."""
    rules = replace(by_name, index_names=("index.cgi", "other.cgi"))
    put(root / "place/other.cgi", mode=0o755)
    finder = ScriptFinder(rules)
    for name in ("other.cgi", "index.cgi"):
        put(root / "place" / name, mode=0o755)
        script = finder.find("/place/")
        assert script is not None
        assert script.file.name == name


def test_a_finder_does_not_grow(rules: PathRules, root: Path) -> None:
    """Extra paths are of the client's making."""
    put(root / "cgi-bin/d/s", mode=0o755)
    finder = ScriptFinder(rules)
    for number in range(3 * MAX_KNOWN):
        finder.find(f"/cgi-bin/d/s/{number}")
        assert len(finder._known) <= MAX_KNOWN
