"""The page that a script's author sees: what it shows, what it never shows, and as browsers show it."""

from __future__ import annotations

import html
import io
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from programs import find
from servers import Server, dev, gunicorn, wait_until
from sites import Site
from test_diagnosis import CT, ask
from test_gitweb import browse, read_png

HOSTILE = "<script>alert('x')</script>\x1b[31m"
BROKEN = f"""\
import sys

# {HOSTILE[:-5]}
def total(order):
    print({HOSTILE!r}, file=sys.stderr)
    return order["price"]

print({HOSTILE!r})
total({{}})
"""


class Reader(HTMLParser):
    """The elements of a page, its texts, and what is not balanced."""

    VOID = ("meta", "br", "hr", "img", "input", "link")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self.open[-1:]:
            self.texts[tag] = self.texts.get(tag, "") + data


def page_of(site: Site, path: str, **options: Any) -> tuple[int, str]:
    answer = ask(site, path, debug=True, timeout=20, **options)
    return answer.status, answer.body


def test_cause_and_remedy_come_first(site: Site) -> None:
    """Then the source with the line that failed, standard error, the output, the end, the variables."""
    script = site.python("x.py", f"import sys\n\nprint('{CT}')\nprint('<p>x</p>')\nsys.exit(3)\n")
    status, page = page_of(site, "/cgi-bin/x.py", query="a=1")
    assert status == 502
    order = [
        "<h1>The empty line between header and body is missing",
        "print() after the last field prints it.",
        f"{script}, line 4",
        "→ 4",
        "It wrote nothing to standard error.",
        "What it printed",
        "Content-Type: text/html\n&lt;p&gt;x&lt;/p&gt;",
        "<p>It exited with status 3.</p>\n</section>",
        "Run it again in a shell",
        "<code>QUERY_STRING</code></th><td>a=1</td>",
    ]
    places = [page.find(part) for part in order]
    assert -1 not in places
    assert places == sorted(places)


def test_nothing_in_it_is_markup_of_others(site: Site) -> None:
    """Source, standard error, output, URL and variables are escaped; control characters are shown (CWE-79)."""
    site.python("x.py", BROKEN)
    _, page = page_of(site, "/cgi-bin/x.py/<b>", query="<i>")
    reader = Reader(page)
    assert reader.open == []
    assert not {"script", "b", "i", "img", "link", "iframe"} & {tag for tag, _ in reader.tags}
    assert "\x1b" not in page
    assert r"<script>alert('x')</script>\x1b[31m" in reader.texts["pre"]
    assert not [attrs for _, attrs in reader.tags if {"src", "href", "onclick", "style"} & set(attrs)]


def test_it_has_the_structure_that_screen_readers_need(site: Site) -> None:
    """A language, a title, one h1, landmarks; no heading is skipped; what scrolls can be reached by keyboard."""
    site.python("x.py", BROKEN)
    _, page = page_of(site, "/cgi-bin/x.py")
    reader = Reader(page)
    tags = [tag for tag, _ in reader.tags]
    assert [tags.count(tag) for tag in ("h1", "main", "header", "footer", "title")] == [1, 1, 1, 1, 1]
    assert ("html", {"lang": "en"}) in reader.tags
    assert {tag for tag in tags if re.fullmatch(r"h\d", tag)} == {"h1", "h2"}
    assert all(attrs.get("tabindex") == "0" for tag, attrs in reader.tags if tag == "pre")
    assert all(attrs.get("aria-labelledby") for tag, attrs in reader.tags if tag == "section")


def test_credentials_are_not_in_it(site: Site) -> None:
    """Authorization, Cookie and variables with such names are left out, also of the command."""
    site.python("x.py", "1 / 0\n")
    settings: dict[str, Any] = {"pass_authorization": True, "env": {"DB_PASSWORD": "hunter2", "PLAIN": "seen"}}
    with_secrets = {"HTTP_AUTHORIZATION": "Basic c2VjcmV0", "HTTP_COOKIE": "session=s3cret"}
    answer = ask(site, "/cgi-bin/x.py", debug=True, environ=with_secrets, **settings)
    for secret in ("c2VjcmV0", "s3cret", "hunter2"):
        assert secret not in answer.body
    assert answer.body.count("(redacted)") == 3
    assert "PLAIN=seen" in answer.body


def test_only_sources_of_the_site_are_shown(site: Site, tmp_path: Path) -> None:
    """A traceback is text, and a client may have had a hand in it: no file from elsewhere is opened for it (CWE-22)."""
    (tmp_path / "elsewhere.py").write_text("this is private\n")
    error = f'Traceback (most recent call last):\n  File "{tmp_path}/elsewhere.py", line 1, in x\nValueError: x'
    site.python("x.py", f"import sys\nsys.exit({error!r})\n")
    status, page = page_of(site, "/cgi-bin/x.py")
    assert status == 502
    assert "ValueError: x" in page
    assert "this is private" not in page


def test_the_command_repeats_the_run(site: Site) -> None:
    """Pasted into a shell it gives the same output, with odd characters in directory and query."""
    site.python("it's.py", "import os\nprint(os.environ['QUERY_STRING'], os.environ['SCRIPT_NAME'])\n")
    _, page = page_of(site, "/cgi-bin/it's.py", query="a='$(id)'&b=\"%20")
    command = html.unescape(re.findall(r'id="again".*?<pre[^>]*>(.*?)</pre>', page, re.DOTALL)[0])
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=20, cwd="/")
    assert done.stdout == "a='$(id)'&b=\"%20 /cgi-bin/it's.py\n"
    output = re.findall(r'id="output".*?<pre[^>]*>(.*?)</pre>', page, re.DOTALL)[0]
    assert html.unescape(output) == done.stdout


def test_the_command_of_a_request_with_a_body_says_where_that_comes_from(site: Site) -> None:
    """The body is not in the page; a file stands for it."""
    site.python("x.py", "1 / 0\n")
    with_body = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "3", "wsgi.input": io.BytesIO(b"a=1")}
    _, page = page_of(site, "/cgi-bin/x.py", environ=with_body)
    assert "/cgi-bin/x.py &lt; body</pre>" in page
    assert "<code>wsgicgi-dev --record</code> keeps it" in page


def test_a_script_that_dies_after_its_header_is_told_of(site: Site) -> None:
    """In the place of an empty or half page; a script that only exits with an error keeps its answer."""
    site.python("dies.py", f"print('{CT}\\n')\nprint('half')\nprint(name)\n")
    status, page = page_of(site, "/cgi-bin/dies.py")
    assert status == 500
    assert "<h1>NameError: name &#39;name&#39; is not defined in dies.py line 4</h1>" in page
    site.sh("exits", f"echo '{CT}'; echo; echo whole; echo oops >&2; exit 3\n")
    assert page_of(site, "/cgi-bin/exits") == (200, "whole\n")
    site.python(
        "handles.py",
        f"import traceback\ntry:\n    1/0\nexcept Exception:\n    traceback.print_exc()\nprint('{CT}\\n\\nok')\n",
    )
    assert page_of(site, "/cgi-bin/handles.py") == (200, "ok\n")


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/cgi-bin/x.sh", 403, "is not executable (mode 0644)"),
        ("/cgi-bin/X.SH", 404, "cgi-bin/x.sh."),
        ("/cgi-bin/y.py", 404, "cgi-bin/y.py.txt."),
        ("/cgi-bin/link", 404, "is a symbolic link to nowhere, which does not exist"),
        ("/cgi-bin/", 403, "is a directory, and CGI directories are not listed"),
    ],
)
def test_what_was_not_run_is_told_of(site: Site, path: str, status: int, words: str) -> None:
    """No x bit, another name: before anything started."""
    site.sh("x.sh", "echo\n", mode=0o644)
    site.script("y.py.txt", "")
    (site.directory / "cgi-bin" / "link").symlink_to("nowhere")
    answer = page_of(site, path)
    assert answer[0] == status
    assert words in answer[1]


def test_without_debug_there_is_the_status_and_an_id(site: Site) -> None:
    """Never in production: the id is in the log too, and nothing else of the cause is sent."""
    site.python("x.py", "secret = 1 / 0\n")
    answer = ask(site, "/cgi-bin/x.py")
    assert "ZeroDivisionError" in answer.log
    assert "secret" not in answer.body and "ZeroDivision" not in answer.body
    number = re.findall(r"Request ([0-9a-f]{16})", answer.body)[0]
    assert f"[{number}]" in answer.log.splitlines()[0]


def test_head_has_no_page(site: Site) -> None:
    """RFC 9110 section 9.3.2."""
    site.python("x.py", "1 / 0\n")
    answer = ask(site, "/cgi-bin/x.py", debug=True, method="HEAD")
    assert (answer.status, answer.body) == (502, "")


def test_another_server_warns_once_that_debug_is_on(site: Site, tmp_path: Path) -> None:
    """Whoever leaves it on finds a line in the log; wsgicgi-dev, where it is meant to be on, has none."""
    site.python("x.py", "1 / 0\n")
    app, env = "wsgicgi:create_app(debug=True)", {"WSGICGI_DIRECTORY": str(site.directory)}
    with gunicorn(app, tmp_path / "log", options=["-w", "1"], env=env) as server:
        for _ in range(2):
            assert "ZeroDivisionError" in server.get("/cgi-bin/x.py")[1].decode()
        assert server.log.count("debug=True: error pages show sources and variables to every client") == 1
    with dev(tmp_path / "log2", "-d", str(site.directory)) as server:
        response, body = server.get("/cgi-bin/x.py", headers={"Accept": "*/*"})
        assert "ZeroDivisionError" in body.decode()
        assert "debug=True" not in server.log
        # a client that says nothing of itself is a program: RFC 3875 section 9.4, CWE-209
        assert "ZeroDivisionError" not in server.get("/cgi-bin/x.py")[1].decode()
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")
    with dev(tmp_path / "log3", "-d", str(site.directory), "--no-debug") as server:
        assert "ZeroDivisionError" not in server.get("/cgi-bin/x.py")[1].decode()


WIDE = """\
<!doctype html><html><head><script>
addEventListener("message", () => 0);
function measure() {{
  const page = document.querySelector("iframe").contentDocument.documentElement;
  document.title = "inner " + page.scrollWidth + " of " + page.clientWidth;
}}
</script></head><body><iframe onload="measure()" style="width:{width}px;height:600px"
 frameborder="0" src="/cgi-bin/x.py"></iframe>
</body></html>
"""


@pytest.fixture
def shown(site: Site, tmp_path: Path) -> Any:
    """A server with a script whose page has long lines everywhere."""
    long = "x" * 300
    site.python(
        "x.py", f"import sys\nvalue = '{long}'\nprint('{long}', file=sys.stderr)\nprint('{long}')\nint(value)\n"
    )
    for width in (360, 1280):
        site.file(f"wide{width}.html", WIDE.format(width=width))
    find("chromium", "chromium-browser", "google-chrome", package="chromium")
    with dev(tmp_path / "log", "-d", str(site.directory)) as server:
        yield server


@pytest.mark.parametrize("width", [360, 1280])
def test_no_page_is_wider_than_its_window(shown: Server, tmp_path: Path, width: int) -> None:
    """On a phone as on a desk: the browser itself says how wide the page is."""
    dom = browse(tmp_path, "--dump-dom", "--window-size=1400,900", f"{shown.url}/wide{width}.html").decode()
    found = re.search(r"<title>inner (\d+) of (\d+)</title>", dom)
    assert found is not None, dom[:2000]
    inner, outer = map(int, found.groups())
    assert inner <= outer <= width
    assert outer >= width - 20  # a scroll bar


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_in_both_schemes(shown: Server, tmp_path: Path, scheme: str) -> None:
    """Paper, text and the mark of the failed line have their colours."""
    screenshot = tmp_path / "page.png"
    flags = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    browse(
        tmp_path,
        f"--screenshot={screenshot}",
        "--window-size=800,900",
        "--hide-scrollbars",
        *flags,
        f"{shown.url}/cgi-bin/x.py",
    )
    width, height, colours = read_png(screenshot.read_bytes())
    paper, mark = {
        "light": ((0xFF, 0xFF, 0xFF), (0xFD, 0xEC, 0xEC)),
        "dark": ((0x14, 0x19, 0x1F), (0x40, 0x19, 0x1D)),
    }[scheme]
    assert colours[paper] > width * height / 4
    assert colours[mark] > 1000


def test_a_limit_that_was_met_is_named_first(site: Site, tmp_path: Path) -> None:
    """With what to do about it."""
    site.script("x.pl", "#!/usr/bin/perl\n$x = 'x' x 300_000_000;\nprint \"Content-Type: text/plain\\n\\n\";\n")
    with dev(tmp_path / "log", "-d", str(site.directory), "--max-memory", "64M", "--debug") as server:
        response, body = server.get("/cgi-bin/x.pl")
        assert response.status == 502
        text = body.decode()
        assert "It came against max_memory=67108864" in text.partition("</h1>")[0]
        assert "raise that limit" in text
        wait_until(lambda: "/cgi-bin/x.pl: it came against max_memory=67108864: " in server.log, "the log says so too")
