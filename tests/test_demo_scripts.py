"""The demo site's scripts, each run as a server runs it: a process with meta-variables, a body, and nothing else."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from dataclasses import dataclass
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

DEMO_DIR = Path(__file__).resolve().parent.parent / "wsgicgi" / "demo"
CGI_DIR = DEMO_DIR / "cgi-bin"
SCRIPTS = ["hello.py", "hello.sh", "form.py"]

DEADLINE = 30.0  # seconds for one script, far more than it needs; a hanging script fails here

HOSTILE = "<script>alert(1)</script>\"'&"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a shebang needs a POSIX kernel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: str
    header: dict[str, str]
    body: str


class Tags(HTMLParser):
    """The tags of a page, and the addresses it names."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.addresses: list[str] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "action", "data-script")]


def run(name: str, *, body: bytes = b"", **metavars: str | bytes) -> Answer:
    """Run a script of the demo site by its shebang and read its answer (RFC 3875 section 6)."""
    environment: dict[str, str | bytes] = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "",
        "SCRIPT_NAME": f"/mount/cgi-bin/{name}",
        "SERVER_NAME": "host.example",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        # No meta-variable, but what "env python3" needs to find the Python under test.
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.defpath]),
    }
    environment |= metavars
    done = subprocess.run(
        [CGI_DIR / name], input=body, env=environment, capture_output=True, timeout=DEADLINE, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    head, empty_line, content = done.stdout.partition(b"\n\n")
    assert empty_line == b"\n\n"
    header = dict(line.split(": ", 1) for line in head.decode("ascii").split("\n"))
    return Answer(status=header.pop("Status", "200 OK"), header=header, body=content.decode())


def post(body: bytes, **metavars: str) -> Answer:
    given = {"CONTENT_TYPE": "application/x-www-form-urlencoded", "CONTENT_LENGTH": str(len(body))} | metavars
    return run("form.py", body=body, REQUEST_METHOD="POST", **given)


@pytest.mark.parametrize(
    ("name", "content_type", "greeting"),
    [
        ("hello.py", "text/html; charset=utf-8", "Hello from Python"),
        ("hello.sh", "text/plain; charset=utf-8", "Hello from the shell"),
        ("form.py", "text/html; charset=utf-8", "Nothing was sent yet."),
    ],
    ids=SCRIPTS,
)
def test_script_answers(name: str, content_type: str, greeting: str) -> None:
    """Every script answers a plain GET with 200, its media type with charset, and what index.html looks for."""
    answer = run(name)
    assert answer.status == "200 OK"
    assert answer.header["Content-Type"] == content_type
    assert greeting in answer.body
    assert f'data-script="cgi-bin/{name}" data-expect="{greeting}"' in (DEMO_DIR / "index.html").read_text("utf-8")


@pytest.mark.parametrize("name", ["hello.py", "hello.sh"])
def test_greeting_shows_metavars(name: str) -> None:
    """The greetings show the meta-variables of the request."""
    body = run(name, QUERY_STRING="colour=blue", PATH_INFO="/extra/path").body
    for value in ("GET", f"/mount/cgi-bin/{name}", "/extra/path", "colour=blue", "HTTP/1.1", "192.0.2.1"):
        assert value in body


@pytest.mark.parametrize("name", ["hello.py", "form.py"])
def test_hostile_metavars_stay_text(name: str) -> None:
    """Nothing that a client sends becomes markup."""
    hostile = run(
        name,
        QUERY_STRING=f"text={HOSTILE}&{HOSTILE}=x",
        PATH_INFO=f"/{HOSTILE}",
        SCRIPT_NAME=f"/{HOSTILE}",
        HTTP_USER_AGENT=HOSTILE,
    )
    assert "script" not in Tags(hostile.body).names
    assert hostile.body.count("&lt;script&gt;") >= 2


@pytest.mark.parametrize("name", ["hello.py", "form.py"])
def test_metavars_that_are_not_utf_8_are_replaced(name: str) -> None:
    """Raw bytes in a meta-variable neither stop a script nor make its page invalid UTF-8."""
    assert "caf\ufffd" in run(name, QUERY_STRING=b"text=caf\xe9").body


@pytest.mark.parametrize("name", ["hello.py", "form.py"])
def test_locale_does_not_change_the_answer(name: str) -> None:
    """A page is UTF-8 with LF line ends under the plainest locale too."""
    query = "text=" + "Grüße, 世界"
    assert run(name, QUERY_STRING=query.encode(), LC_ALL="C") == run(name, QUERY_STRING=query.encode())


@pytest.mark.parametrize("text", ["plain", "Grüße, 世界 \U0001f600", HOSTILE, "a+b=c&d;e%41", "two\r\nlines"])
def test_form_gives_back_text_by_get_and_post(text: str) -> None:
    """The form shows the same text, escaped, whether it came in the query or in the body."""
    encoded = urlencode({"text": text})
    shown = f"<dt>text</dt><dd>{escape(text)}</dd>"
    assert shown in run("form.py", QUERY_STRING=encoded).body
    assert shown in post(encoded.encode()).body


def test_form_shows_every_field_in_order() -> None:
    """Repeated and empty fields are shown as they were sent."""
    assert "<dl><dt>a</dt><dd>1</dd><dt>b</dt><dd></dd><dt>a</dt><dd>2</dd></dl>" in post(b"a=1&b=&a=2").body


def test_form_reads_no_more_than_content_length() -> None:
    """The body ends after CONTENT_LENGTH bytes, whatever follows on standard input (RFC 3875 section 4.2)."""
    assert "<dl><dt>a</dt><dd>1</dd></dl>" in post(b"a=1&b=2", CONTENT_LENGTH="3").body


def test_form_waits_for_no_end_of_its_body() -> None:
    """A server may keep standard input open; the script answers all the same (RFC 3875 section 4.2)."""
    script_stdin, our_stdin = os.pipe()
    try:
        os.write(our_stdin, b"text=open")
        done = subprocess.run(
            [sys.executable, CGI_DIR / "form.py"],
            stdin=script_stdin,
            env={
                "REQUEST_METHOD": "POST",
                "CONTENT_TYPE": "application/x-www-form-urlencoded",
                "CONTENT_LENGTH": "9",
            },
            capture_output=True,
            timeout=DEADLINE,
            check=True,
        )
    finally:
        os.close(script_stdin)
        os.close(our_stdin)
    assert b"<dd>open</dd>" in done.stdout


@pytest.mark.parametrize(
    ("metavars", "status"),
    [
        pytest.param({"CONTENT_TYPE": "text/xml"}, "415 Unsupported Media Type", id="media-type"),
        pytest.param({"CONTENT_LENGTH": "many"}, "400 Bad Request", id="length-is-no-number"),
        pytest.param({"CONTENT_LENGTH": "-1"}, "400 Bad Request", id="length-is-negative"),
        pytest.param({"CONTENT_LENGTH": "65537"}, "413 Content Too Large", id="too-large"),
        pytest.param({"CONTENT_LENGTH": "9" * 5000}, "413 Content Too Large", id="too-large-for-an-int"),
    ],
)
def test_form_refuses_what_it_cannot_read(metavars: dict[str, str], status: str) -> None:
    """A body that the form cannot read gets the status that says why, and never a crash."""
    assert post(b"a=1", **metavars).status == status


def test_form_refuses_too_many_fields() -> None:
    """The number of fields is bounded, so that a small body cannot cost much."""
    assert post(b"&".join([b"a=1"] * 101)).status == "400 Bad Request"


def test_form_refuses_other_methods() -> None:
    """A method that the form does not know gets 405 with the methods it knows (RFC 9110 section 15.5.6)."""
    answer = run("form.py", REQUEST_METHOD="DELETE")
    assert (answer.status, answer.header["Allow"]) == ("405 Method Not Allowed", "GET, HEAD, POST")


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_executable(name: str) -> None:
    """A script runs by its own shebang, so it may be executed and its lines end in LF."""
    assert os.access(CGI_DIR / name, os.X_OK)
    assert b"\r" not in (CGI_DIR / name).read_bytes()


@pytest.mark.parametrize("name", ["hello.py", "form.py"])
def test_python_script_imports_only_what_every_python_has(name: str) -> None:
    """The demo runs under any Python without packages; ``cgi`` is not in 3.13 any more (PEP 594)."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse((CGI_DIR / name).read_bytes())):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    assert imported <= {"html", "os", "platform", "sys", "urllib.parse"}


def test_every_address_in_the_demo_is_relative() -> None:
    """The demo works below any mount prefix and loads nothing from elsewhere."""
    addresses = Tags((DEMO_DIR / "index.html").read_text("utf-8")).addresses
    addresses += Tags(run("form.py").body).addresses
    assert set(addresses) == {"data:,", "form.py", *(f"cgi-bin/{name}" for name in SCRIPTS)}


def test_index_page_finds_the_text_it_sends() -> None:
    """The text that the form's badge sends comes back in just the words that the badge looks for."""
    echo = "Zoë, Grüße, 世界"
    assert f'data-echo="{echo}"' in (DEMO_DIR / "index.html").read_text("utf-8")
    assert f"<dd>{echo}</dd>" in run("form.py", QUERY_STRING=f"text={quote(echo)}").body
    assert f"<dd>{echo}</dd>" in post(urlencode({"text": echo}).encode()).body
