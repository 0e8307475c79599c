"""RFC 3875: the table of what it asks of the server (``rfc3875.toml``), and what no other test holds of it."""

from __future__ import annotations

import ast
import itertools
import json
import re
import shutil
import socket
import tomllib
from functools import cache
from pathlib import Path
from urllib.parse import quote

import pytest
from servers import Server, steps
from sites import Site

from wsgicgi.metavars import build
from wsgicgi.scripts import Script

HERE = Path(__file__).parent
TABLE = tomllib.loads((HERE / "rfc3875.toml").read_text(encoding="utf-8"))["requirement"]

# BCP 14's words, those that the RFC writes in small letters, and what it states without such a word
LEVELS = {
    *("MUST", "MUST NOT", "REQUIRED", "SHALL", "SHALL NOT", "SHOULD", "SHOULD NOT", "RECOMMENDED", "MAY", "OPTIONAL"),
    *("must", "must not", "should", "should not", "may", "defined"),
}
# The sections that can hold a requirement on the server; 8.2 is for scripts.
SECTIONS = [
    *("3.1", "3.2", "3.3", "3.4"),
    *("4.1", *(f"4.1.{number}" for number in range(1, 19)), "4.2", *(f"4.3.{number}" for number in range(1, 5)), "4.4"),
    *("5", "5.1", "5.2"),
    *("6.1", *(f"6.2.{number}" for number in range(1, 5)), *(f"6.3.{number}" for number in range(1, 6)), "6.4"),
    *("7.1", "7.2", "8.1", *(f"9.{number}" for number in range(1, 10))),
]


# -- the table


def section_key(section: str) -> list[int]:
    """A section's number as something to sort by."""
    return [int(part) for part in section.split(".")]


@cache
def function_names(file: Path) -> frozenset[str]:
    """The names of a file's test functions."""
    nodes = ast.parse(file.read_text(encoding="utf-8")).body
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"))


def test_each_row_says_what_is_asked_and_what_holds_it() -> None:
    """A row has a section, a level, a statement, and either a test or a reason; none is empty."""
    allowed = [{"section", "level", "statement", "test"}, {"section", "level", "statement", "reason"}]
    assert [row for row in TABLE if row.keys() not in allowed or not all(row.values())] == []


def test_each_level_is_one_of_the_rfcs() -> None:
    """Levels are the words of RFC 2119, as RFC 3875 writes them, or "defined"."""
    assert {row["level"] for row in TABLE} - LEVELS == set()


def test_each_text_is_one_sentence() -> None:
    """Statements and reasons begin with a capital, a name or a quotation, and end with their only full stop."""
    texts = [row[key] for row in TABLE for key in ("statement", "reason") if key in row]
    assert [text for text in texts if not re.fullmatch(r"[A-Z'].*[^.]\.", text) or ". " in text] == []


def test_sections_are_in_their_order() -> None:
    """The table reads like the RFC, from section 3 to section 9."""
    keys = [section_key(row["section"]) for row in TABLE]
    assert keys == sorted(keys)
    assert {key[0] for key in keys} == set(range(3, 10))


def test_every_section_is_represented() -> None:
    """No section that can hold a requirement on the server is left out."""
    assert set(SECTIONS) - {row["section"] for row in TABLE} == set()


def test_no_requirement_stands_twice() -> None:
    """A statement is made once in a section."""
    rows = sorted((row["section"], row["statement"]) for row in TABLE)
    assert [first for first, second in itertools.pairwise(rows) if first == second] == []


def test_every_test_that_is_named_exists() -> None:
    """A test is named as pytest names it, without parameters."""
    missing = []
    for row in TABLE:
        file, _, name = row.get("test", "").partition("::")
        if file and (
            not re.fullmatch(r"tests/(\w+/)*test_\w+\.py", file) or name not in function_names(HERE.parent / file)
        ):
            missing.append(row["test"])
    assert missing == []


def test_every_test_of_this_file_holds_a_row() -> None:
    """What stands below the tests of the table is here because the table needs it."""
    own = {name for name in function_names(Path(__file__)) if name not in TESTS_OF_THE_TABLE}
    assert own - {row["test"].partition("::")[2] for row in TABLE if "test" in row} == set()


TESTS_OF_THE_TABLE = {name for name in globals() if name.startswith("test_")}


# -- the requirements that no other test holds

CT = "Content-Type: text/plain\n"


def report(server: Server, target: str, method: str = "GET", **options: object) -> dict:  # type: ignore[type-arg]
    """What ``report.py`` at this target was given."""
    response, body = server.request(method, target, **options)  # type: ignore[arg-type]
    assert response.status == 200, body
    return json.loads(body)  # type: ignore[no-any-return]


def environ_of(server: Server, target: str, method: str = "GET", **options: object) -> dict[str, str]:
    """The meta-variables that ``report.py`` at this target was given."""
    return report(server, target, method, **options)["environ"]  # type: ignore[no-any-return]


def exchange(server: Server, request: bytes) -> tuple[bytes, bytes]:
    """Send bytes as they are on a connection of their own; the head and the rest of all that comes back."""
    with socket.create_connection((server.host, server.port), 20) as sock:
        sock.sendall(request)
        received = b""
        while data := sock.recv(65536):
            received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    return head, rest


def told(server: Server, request: bytes) -> dict[str, str] | None:
    """The meta-variables that ``report.py`` was given for a request of HTTP/1.0; None when it was refused."""
    head, rest = exchange(server, request)
    status = int(head.split()[1])
    assert status == 200 or 400 <= status < 500, head
    return json.loads(rest)["environ"] if status == 200 else None


@pytest.mark.parametrize(
    "target",
    [
        "/cgi-bin/report.py",
        "/cgi-bin/report.py?",
        "/cgi-bin/report.py?a=%26+b;c/?d",
        "/cgi-bin/report.py/",
        "/cgi-bin/report.py/a//b/?x",
        "/cgi-bin/report.py/a%2Fb%3Bc%3Dd%3Fe%23f%25g",
        "/cgi-bin/report.py/a;b=c/d,e",
        "/cgi-bin/report.py/a/../b/./c/..",
        "/cgi-bin/report.py/%2e%2e/report.py/%252e%252e/x",
        "/cgi-bin/report.py/caf%C3%A9/%E9/%0A",
        "/%63gi-bin//sub/./report.py/x",
        "/cgi-bin/with%20index/?x",
    ],
)
def test_script_uri_leads_to_the_same_script(server: Server, site: Site, target: str) -> None:
    """The URI that the meta-variables make gives the same three of them again (RFC 3875 section 3.3)."""
    index = site.script("with index/index.html", "")
    shutil.copyfile(site.directory / "cgi-bin/report.py", index)
    names = ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING")
    first = environ_of(server, target)
    assert (first["SERVER_NAME"], first["SERVER_PORT"]) == (server.host, str(server.port))
    path = (first["SCRIPT_NAME"] + first.get("PATH_INFO", "")).encode("latin-1")
    second = environ_of(server, f"{quote(path)}?{first['QUERY_STRING']}")
    assert [second.get(name) for name in names] == [first.get(name) for name in names]


def test_fragment_of_a_target_is_no_part_of_the_script_uri(server: Server) -> None:
    """Fragments are not permitted in the Script-URI (RFC 3875 section 3.3); a target that has one may be refused."""
    environ = told(server, b"GET /cgi-bin/report.py/x?a#b HTTP/1.0\r\nHost: h\r\n\r\n")
    assert environ is None or (environ["PATH_INFO"], environ["QUERY_STRING"]) == ("/x", "a")


def test_names_of_metavars_differ_in_more_than_case(server: Server) -> None:
    """Names of meta-variables have no case: one that the client sends in another case is the same (RFC 3875 4.1)."""
    environ = environ_of(server, "/cgi-bin/report.py", headers={"x-foo": "1", "PATH": "2", "path-info": "3"})
    names = [name.lower() for name in environ]
    assert len(names) == len(set(names))
    assert (environ["HTTP_X_FOO"], environ["HTTP_PATH"], environ["HTTP_PATH_INFO"]) == ("1", "2", "3")


def test_values_of_metavars_keep_their_case(server: Server, site: Site) -> None:
    """Values are case-sensitive; the case of the path is kept (RFC 3875 sections 4.1, 4.1.5 and 4.1.6)."""
    fields = {"X-Foo": "MiXed", "Content-Type": 'Text/Plain; A="B"'}
    environ = environ_of(server, "/cgi-bin/report.py/MiXed/%4d?MiXed=%4d%4D", headers=fields)
    expected = {
        "PATH_INFO": "/MiXed/M",
        "PATH_TRANSLATED": f"{site.directory}/MiXed/M",
        "QUERY_STRING": "MiXed=%4d%4D",
        "HTTP_X_FOO": "MiXed",
        "CONTENT_TYPE": 'Text/Plain; A="B"',
    }
    assert {name: environ[name] for name in expected} == expected


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("POST", b"{}"), ("POST", b"")])
def test_content_type_is_set_with_and_without_a_body(server: Server, method: str, body: bytes | None) -> None:
    """CONTENT_TYPE is the request's Content-Type (RFC 3875 section 4.1.3), which stands nowhere else (4.1.18)."""
    environ = environ_of(server, "/cgi-bin/report.py", method, body=body, headers={"Content-Type": "a/b;c=d"})
    assert environ["CONTENT_TYPE"] == "a/b;c=d"
    assert not {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"} & environ.keys()


def test_gateway_interface_is_version_1_1_without_leading_zeros(server: Server) -> None:
    """GATEWAY_INTERFACE is CGI, a slash and two numbers (RFC 3875 section 4.1.4)."""
    assert environ_of(server, "/cgi-bin/report.py")["GATEWAY_INTERFACE"] == "CGI/1.1"


@pytest.mark.parametrize(
    ("target", "path_info"),
    [
        ("/cgi-bin/report.py", ""),
        ("/cgi-bin/report.py/", "/"),
        ("/cgi-bin/report.py/this%2eis%2epath%3binfo", "/this.is.path;info"),
        ("/cgi-bin/report.py/a%2541", "/a%41"),
        ("/cgi-bin/report.py/a%2fb", "/a/b"),
        ("/cgi-bin/report.py/a+b", "/a+b"),
    ],
)
def test_path_info_is_the_decoded_rest_of_the_path(server: Server, target: str, path_info: str) -> None:
    """PATH_INFO is not URL-encoded, and "/" is one empty segment (RFC 3875 section 4.1.5)."""
    assert environ_of(server, target).get("PATH_INFO", "") == path_info


def test_nul_in_the_path_is_refused(server: Server) -> None:
    """An objectionable PATH_INFO gives an error (RFC 3875 section 4.1.5): no environment can hold NUL."""
    response, _ = server.get("/cgi-bin/report.py/a%00b")
    assert 400 <= response.status < 500


@pytest.mark.parametrize(
    ("target", "query"),
    [
        ("/cgi-bin/report.py", ""),
        ("/cgi-bin/report.py?", ""),
        ("/cgi-bin/report.py/x?%41+%2B=%c3%A9&a;b/?c", "%41+%2B=%c3%A9&a;b/?c"),
    ],
)
def test_query_string_is_always_set_and_not_decoded(server: Server, target: str, query: str) -> None:
    """QUERY_STRING is set in any case, URL-encoded as it came (RFC 3875 section 4.1.7)."""
    assert environ_of(server, target)["QUERY_STRING"] == query


# what PEP 3333 has every server say of a request
REQUEST = {"REQUEST_METHOD": "GET", "SERVER_NAME": "h", "SERVER_PORT": "80", "wsgi.url_scheme": "http"}


def metavars_at_the_root() -> dict[str, str]:
    """The meta-variables of a single script that is mounted at the root of the usual port."""
    script = Script(file=Path("/x"), command=("/x",), script_path="", extra_path="/y", root_dir=Path("/"))
    environ = {**REQUEST, "SCRIPT_NAME": "", "PATH_INFO": "/y"}
    return build(environ, script, content_length=None, base={}, software="wsgicgi/0")


def test_script_name_is_set_for_a_script_at_the_root() -> None:
    """SCRIPT_NAME is set even if its path is empty (RFC 3875 section 4.1.13)."""
    metavars = metavars_at_the_root()
    assert (metavars["SCRIPT_NAME"], metavars["PATH_INFO"]) == ("", "/y")


def test_the_usual_port_is_told() -> None:
    """SERVER_PORT is set even if a URI could leave it out (RFC 3875 section 4.1.15)."""
    assert metavars_at_the_root()["SERVER_PORT"] == "80"


@pytest.mark.parametrize("host", ["one.example", "TWO.example:8443", "[2001:db8::1]:80", "192.0.2.1"])
def test_server_name_is_the_host_that_was_asked(server: Server, host: str) -> None:
    """Virtual hosts are told apart by Host; the port is the one that was used (RFC 3875 sections 4.1.14 and 4.1.15)."""
    environ = environ_of(server, "/cgi-bin/report.py", headers={"Host": host})
    assert environ["SERVER_NAME"] == re.sub(r":\d+\Z", "", host)
    assert environ["SERVER_PORT"] == str(server.port)


@pytest.mark.parametrize("method", ["get", "Brew", "HEAd"])
def test_method_keeps_its_case_or_is_refused(server: Server, method: str) -> None:
    """Methods are case-sensitive (RFC 3875 section 4.1.12): "get" is never taken for GET."""
    environ = told(server, f"{method} /cgi-bin/report.py HTTP/1.0\r\nHost: h\r\n\r\n".encode())
    assert environ is None or environ["REQUEST_METHOD"] == method


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_server_protocol_is_that_of_the_request(server: Server, version: str) -> None:
    """SERVER_PROTOCOL has the version by which the client asks (RFC 3875 section 4.1.16)."""
    request = f"GET /cgi-bin/report.py HTTP/1.{version[-1]}\r\nHost: h\r\nConnection: close\r\n\r\n"
    _, rest = exchange(server, request.encode())
    assert f'"SERVER_PROTOCOL": "{version}"' in rest.decode()


def test_server_software_is_a_product_with_the_server_below_as_comment(server: Server) -> None:
    """SERVER_SOFTWARE is made of products and comments (RFC 3875 section 4.1.17)."""
    software = environ_of(server, "/cgi-bin/report.py")["SERVER_SOFTWARE"]
    assert re.fullmatch(r"wsgicgi/[0-9][0-9A-Za-z.]*( \([^()]+\))?", software)


def test_repeated_fields_become_one_value(server: Server) -> None:
    """Fields of one name are one value, in their order (RFC 3875 section 4.1.18, RFC 9110 section 5.3)."""
    environ = told(server, b"GET /cgi-bin/report.py HTTP/1.0\r\nHost: h\r\nX-A: 1\r\nX-B: 0\r\nx-a: 2, 3\r\n\r\n")
    assert environ is not None
    assert re.fullmatch("1, ?2, 3", environ["HTTP_X_A"])


def test_folded_field_is_refused_or_becomes_one_line(server: Server) -> None:
    """A field of several lines is merged (RFC 3875 section 4.1.18) or refused (RFC 9112 section 5.2)."""
    environ = told(server, b"GET /cgi-bin/report.py HTTP/1.0\r\nHost: h\r\nX-A: one\r\n two\r\n\r\n")
    assert environ is None or re.fullmatch("one +two", environ["HTTP_X_A"])


def test_bytes_of_a_field_arrive_as_they_were_sent(server: Server) -> None:
    """A value is what an environment variable can hold: its bytes (RFC 3875 sections 4.1.18 and 7.2)."""
    environ = told(server, b"GET /cgi-bin/report.py HTTP/1.0\r\nHost: h\r\nX-A: caf\xe9 \xc3\xa9 \xff\r\n\r\n")
    assert environ is not None
    assert environ["HTTP_X_A"] == "caf\xe9 \xc3\xa9 \xff"


def nph_steps(site: Site, *given: list[object]) -> str:
    """The target that makes an NPH script do these steps."""
    if not (site.directory / "cgi-bin/nph-steps.py").exists():
        site.script("nph-steps.py", (site.directory / "cgi-bin/steps.py").read_bytes())
    return steps(*given).replace("/steps.py", "/nph-steps.py")


NPH_HEAD = "HTTP/1.0 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n"
ALL_BYTES = bytes(range(256)) * 300


def test_nph_script_gets_the_body_as_it_was_sent(server: Server, site: Site) -> None:
    """The body of a request is not altered, whatever codings it says to have (RFC 3875 section 4.2)."""
    target = nph_steps(site, ["out", NPH_HEAD], ["echo"])
    _, body = server.request("POST", target, body=ALL_BYTES, headers={"Content-Encoding": "gzip"})
    assert body == ALL_BYTES


def test_body_of_an_nph_response_is_sent_as_it_is(server: Server, site: Site) -> None:
    """The output of an NPH script is not modified behind its head (RFC 3875 section 5.2)."""
    _, body = server.get(nph_steps(site, ["out", NPH_HEAD + bytes(range(256)).decode("latin-1")], ["out", "\n\r\n"]))
    assert body == bytes(range(256)) + b"\n\r\n"


def test_output_of_an_nph_script_is_not_held_back(server: Server, site: Site, tmp_path: Path) -> None:
    """NPH output is not buffered (RFC 3875 section 5.2): its begin arrives while the script waits for us."""
    go_on = tmp_path / "go-on"
    target = nph_steps(site, ["out", NPH_HEAD + "first"], ["wait_for", str(go_on)], ["out", "second"])
    with socket.create_connection((server.host, server.port), 20) as sock:
        sock.sendall(f"GET {target} HTTP/1.0\r\nHost: h\r\n\r\n".encode())
        received = b""
        while b"first" not in received:
            received += sock.recv(65536)
        go_on.touch()
        while data := sock.recv(65536):
            received += data
    assert received.endswith(b"firstsecond")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_order_of_cgi_fields_has_no_meaning(server: Server, order: tuple[int, ...]) -> None:
    """Content-Type, Status and Location mean the same in each order (RFC 3875 section 6.2)."""
    lines = [CT, "Status: 303 See Other\n", "Location: /x\n"]
    response, body = server.get(steps(["out", "".join(lines[i] for i in order) + "\nhere"]))
    assert (response.status, response.headers["Location"], body) == (303, "/x", b"here")
    assert response.headers["Content-Type"] == "text/plain"


def test_http_1_0_client_gets_no_chunks(server: Server) -> None:
    """A response keeps to the client's version: HTTP/1.0 has no transfer-codings (RFC 3875 section 6.2.1)."""
    target = steps(["out", CT + "\n"], ["fill", 300_000])
    head, rest = exchange(server, f"GET {target} HTTP/1.0\r\nHost: h\r\n\r\n".encode())
    assert b"transfer-encoding" not in head.lower()
    assert len(rest) == 300_000


def test_client_redirect_is_302_found(server: Server) -> None:
    """An absolute URI alone makes a 302 with the reason phrase Found (RFC 3875 section 6.2.3)."""
    response, body = server.get(steps(["out", "Location: http://h.example/x?y#z\n\n"]))
    assert (response.status, response.reason, body) == (302, "Found", b"")
    assert response.headers["Location"] == "http://h.example/x?y#z"


def test_document_of_a_client_redirect_is_sent(server: Server) -> None:
    """A redirect with Status, Content-Type and a body keeps all of them (RFC 3875 section 6.2.4)."""
    head = f"Location: http://h.example/x\nStatus: 302 Found\n{CT}X-A: 1\n\n"
    response, body = server.get(steps(["out", head + "it is there"]))
    assert (response.status, response.reason, body) == (302, "Found", b"it is there")
    assert response.headers["Location"] == "http://h.example/x"
    assert (response.headers["Content-Type"], response.headers["X-A"]) == ("text/plain", "1")


@pytest.mark.parametrize("value", ["Text/HTML", 'text/plain ;  charset="ISO-8859-1"', "x-a/b+c;d=e", "nonsense"])
def test_content_type_of_a_script_is_sent_as_it_is(server: Server, value: str) -> None:
    """Content-Type goes to the client unmodified (RFC 3875 section 6.3.1)."""
    response, _ = server.get(steps(["out", f"Content-Type: {value}\n\nx"]))
    assert response.headers.get_all("Content-Type") == [value]


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_lines_of_a_head_end_in_crlf_on_the_wire(server: Server, end: str) -> None:
    """Whether a script's newline is LF or CR LF (RFC 3875 section 7.2), HTTP's is CR LF (section 6.3.4)."""
    output = end.join(["Content-Type: text/plain", "X-A: 1", "Status: 404 Gone Fishing", "", "a\nb\r\nc"])
    head, rest = exchange(server, f"GET {steps(['out', output])} HTTP/1.0\r\nHost: h\r\n\r\n".encode())
    lines = head.split(b"\r\n")
    assert [line for line in lines if b"\n" in line or b"\r" in line] == []
    assert lines[0].endswith(b" 404 Gone Fishing")
    assert b"X-A: 1" in lines
    assert rest == b"a\nb\r\nc"


def test_fields_of_the_server_come_once(server: Server) -> None:
    """A script's fields do not contradict what the server writes (RFC 3875 section 6.3.4)."""
    fields = "Date: then\nServer: mine\nConnection: keep-alive, x\nKeep-Alive: 9\nTransfer-Encoding: chunked\n"
    target = steps(["out", f"{fields}Content-Length: 4\n{CT}\nbody"])
    head, rest = exchange(server, f"GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
    names = [line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]]
    assert len(names) == len(set(names))
    assert not {b"keep-alive", b"transfer-encoding"} & set(names)
    assert not re.search(rb"(?i)then|mine|keep-alive", head)
    assert rest == b"body"


def test_body_of_a_document_is_sent_as_it_is(server: Server) -> None:
    """Every byte of a body goes to the client unmodified (RFC 3875 section 6.4)."""
    head = "Content-Type: text/plain; charset=utf-8\nContent-Encoding: gzip\n\n"
    response, body = server.request("POST", steps(["out", head], ["echo"]), body=ALL_BYTES)
    assert (response.headers["Content-Encoding"], body) == ("gzip", ALL_BYTES)


@pytest.mark.parametrize(
    ("target", "path_info"),
    [
        ("//cgi-bin//report.py", ""),
        ("/cgi-bin///sub//report.py//", "//"),
        ("/cgi-bin/report.py//a///b", "//a///b"),
        ("/cgi-bin/report.py/%2f/", "///"),
    ],
)
def test_empty_segments_stay_in_path_info_only(server: Server, target: str, path_info: str) -> None:
    """Empty segments count for nothing on the way to a script and are kept behind it (RFC 3875 section 8.1)."""
    environ = environ_of(server, target)
    assert environ["SCRIPT_NAME"] in ("/cgi-bin/report.py", "/cgi-bin/sub/report.py")
    assert environ.get("PATH_INFO", "") == path_info


@pytest.mark.parametrize(
    ("target", "script_name", "path_info"),
    [
        ("/cgi-bin/./report.py/a/./b", "/cgi-bin/report.py", "/a/b"),
        ("/cgi-bin/report.py/a/../b", "/cgi-bin/report.py", "/b"),
        ("/cgi-bin/report.py/a/%2e%2E/b/..", "/cgi-bin/report.py", "/"),
        ("/cgi-bin/report.py/../sub/report.py/x", "/cgi-bin/sub/report.py", "/x"),
        ("/none/../cgi-bin/report.py", "/cgi-bin/report.py", ""),
        ("/cgi-bin/report.py/...", "/cgi-bin/report.py", "/..."),
    ],
)
def test_dot_segments_are_resolved_before_the_script_is_found(
    server: Server, target: str, script_name: str, path_info: str
) -> None:
    """ "." and ".." are resolved before the path is split into its two halves (RFC 3875 sections 8.1 and 9.8)."""
    environ = environ_of(server, target)
    assert (environ["SCRIPT_NAME"], environ.get("PATH_INFO", "")) == (script_name, path_info)


@pytest.mark.parametrize(
    "extra_path", ["/../../../x", "/..", "/a/../../../../x", "/%2e%2e/%2e%2e/%2e%2e/x", "//../..//../x"]
)
def test_path_translated_stays_below_the_document_root(server: Server, site: Site, extra_path: str) -> None:
    """No extra path is translated to a place outside of the served directory (RFC 3875 section 9.8)."""
    response, body = server.get("/cgi-bin/report.py" + extra_path)
    if response.status == 200 and body.startswith(b"{"):
        translated = json.loads(body)["environ"].get("PATH_TRANSLATED", "")
        assert ".." not in translated.split("/")
        assert not translated or translated.startswith(str(site.directory))
    else:
        assert 400 <= response.status < 500


def test_long_field_of_a_script_reaches_the_client(server: Server, site: Site) -> None:
    """The server has no buffer of fixed size for a field (RFC 3875 section 9.6)."""
    site.python("long-field", 'print("Content-Type: text/plain\\nX-A: " + "0123456789" * 5000 + "\\n\\nx", end="")')
    response, body = server.get("/cgi-bin/long-field")
    assert (response.headers["X-A"], body) == ("0123456789" * 5000, b"x")


def test_each_request_has_a_process_of_its_own(server: Server) -> None:
    """Each run is independent of all others (RFC 3875 section 9.7): nothing of one request is in the next."""
    first = report(
        server, "/cgi-bin/report.py/x?a", "POST", body=b"body", headers={"X-Once": "1", "Content-Type": "a/b"}
    )
    second = report(server, "/cgi-bin/report.py")
    assert first["pid"] != second["pid"]
    left = {"HTTP_X_ONCE", "CONTENT_TYPE", "CONTENT_LENGTH", "PATH_TRANSLATED"} & second["environ"].keys()
    assert (left, second["body"], second["argv"][1:]) == (set(), "", [])
