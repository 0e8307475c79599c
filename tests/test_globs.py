"""Patterns for URL paths: which paths each matches, and what a wrong one is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsgicgi.globs import compile_glob

MATCHES = [
    ("/cgi-bin/a.py", ["/cgi-bin/a.py"], ["/cgi-bin/a.pyc", "/cgi-bin/aXpy", "/x/cgi-bin/a.py", "/cgi-bin/a.py/", ""]),
    ("/cgi-bin/*.py", ["/cgi-bin/a.py", "/cgi-bin/.py"], ["/cgi-bin/x/a.py", "/cgi-bin/a.pl", "/cgi-bin/a.py\n"]),
    ("/*/a", ["/x/a", "/x y/a"], ["/a", "/x/y/a"]),
    ("/*", ["/a", "/", "/a\nb"], ["/a/b", ""]),
    ("/a?c", ["/abc", "/aäc", "/a?c"], ["/ac", "/a/c", "/abbc"]),
    ("/**", ["/", "/a", "/a/b/c"], [""]),
    ("/cgi-bin/**", ["/cgi-bin/a", "/cgi-bin/x/y/a", "/cgi-bin/"], ["/cgi-bin", "/cgi-bin2/a"]),
    ("/cgi-bin/**/a.py", ["/cgi-bin/a.py", "/cgi-bin/x/a.py", "/cgi-bin/x/y/a.py"], ["/cgi-bin/xa.py", "/cgi-bina.py"]),
    ("/**/a.py", ["/a.py", "/x/a.py", "/x/y/a.py"], ["/xa.py", "/a.py/b"]),
    ("/**/x/**/a", ["/x/a", "/1/x/2/3/a"], ["/a", "/1/a"]),
    ("/a**z", ["/az", "/a/b/z", "/abz"], ["/a", "/z"]),
    ("/a***z", ["/az", "/a/b/z"], ["/z"]),
    ("/[ab]", ["/a", "/b"], ["/c", "/ab", "/", "/[ab]"]),
    ("/[!ab]", ["/c", "/!"], ["/a", "/b", "//", "/"]),
    ("/[a-c]x", ["/ax", "/bx", "/cx"], ["/dx", "/-x"]),
    ("/[a-]", ["/a", "/-"], ["/b"]),
    ("/[-a]", ["/a", "/-"], ["/b"]),
    ("/[]a]", ["/]", "/a"], ["/[", "/b"]),
    ("/[!]a]", ["/[", "/b"], ["/]", "/a"]),
    ("/[!]", ["/!"], ["/a", "/"]),
    ("/[[]x]", ["/[x]"], ["/x", "/[x"]),
    ("/[*]", ["/*"], ["/a"]),
    ("/[?]", ["/?"], ["/a"]),
    ("/x[.-0]y", ["/x.y", "/x0y"], ["/x/y"]),
    ("/[&&--||~~^\\]", ["/-", "/&", "/|", "/~", "/^", "/\\"], ["/a"]),
    ("/a]b", ["/a]b"], ["/ab"]),
    ("/a.b+(c){2}|d$^\\w", ["/a.b+(c){2}|d$^\\w"], ["/a.b+cc"]),
    ("/ä*", ["/ä", "/äö"], ["/a"]),
    ("/\udcff*", ["/\udcffx"], ["/ÿx"]),
]


@pytest.mark.parametrize(("glob", "matched", "others"), MATCHES, ids=[ascii(case[0]) for case in MATCHES])
def test_whole_paths_match(glob: str, matched: list[str], others: list[str]) -> None:
    """A star stays within a segment, two stars do not; a pattern is for the whole path."""
    pattern = compile_glob(glob)
    assert [path for path in [*matched, *others] if pattern.fullmatch(path)] == matched


@pytest.mark.parametrize(
    ("glob", "sentence"),
    [
        ("", "'' must start with '/': whole URL paths are matched. Did you mean '/**'?"),
        ("**", "'**' must start with '/': whole URL paths are matched. Did you mean '/**'?"),
        ("*.py", "'*.py' must start with '/': whole URL paths are matched. Did you mean '/**/*.py'?"),
        ("**/a", "'**/a' must start with '/': whole URL paths are matched. Did you mean '/**/a'?"),
        ("cgi-bin/a", "'cgi-bin/a' must start with '/': whole URL paths are matched. Did you mean '/**/cgi-bin/a'?"),
        ("/[a", "'/[a': '[' begins a set, which ']' must end; '[[]' stands for the character"),
        ("/[", "'/[': '[' begins a set, which ']' must end; '[[]' stands for the character"),
        ("/[]", "'/[]': '[' begins a set, which ']' must end; '[[]' stands for the character"),
        ("/[z-a]", "'/[z-a]': the range 'z-a' is empty: write 'a-z'"),
    ],
)
def test_a_pattern_that_can_match_nothing_is_refused(glob: str, sentence: str) -> None:
    """The sentence says what to write."""
    with pytest.raises(ValueError) as raised:
        compile_glob(glob)
    assert str(raised.value) == sentence


@given(st.text(st.characters(exclude_characters="*?["), max_size=20), st.text(max_size=20))
def test_a_path_without_special_characters_matches_itself_alone(path: str, other: str) -> None:
    """All other characters stand for themselves."""
    pattern = compile_glob("/" + path)
    assert pattern.fullmatch("/" + path)
    assert bool(pattern.fullmatch("/" + other)) == (other == path)


@given(st.text(st.sampled_from("*?[]!-^/ab\\"), max_size=12))
def test_no_pattern_breaks_the_compiler(text: str) -> None:
    """Whatever is written, it is a pattern or an error of ours; a star never steps over a slash."""
    try:
        pattern = compile_glob("/" + text)
    except ValueError as error:
        assert str(error).startswith(repr("/" + text))
        return
    if "**" not in text:
        assert not pattern.fullmatch("/" + "a/" * (text.count("/") + 1))
