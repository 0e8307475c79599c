"""Meta-variables: what a script learns about its request (RFC 3875 section 4.1), asked of every server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import wire
from conftest import Host

REPORT = "/cgi-bin/report.py"

# The grammar of RFC 3875 section 2.3, with the brackets that 4.1.14 wants around an IPv6 address.
LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
TOP_LABEL = "[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
SERVER_NAME = re.compile(rf"(?:{LABEL}\.)*{TOP_LABEL}\.?|\d+\.\d+\.\d+\.\d+|\[[0-9A-Fa-f:.]+\]")

CREDENTIALS = "bXk6Y2FuYXJ5"


def seen(host: Host, target: str | bytes = REPORT, method: str = "GET", **options: object) -> dict[str, str]:
    """The meta-variables of a script."""
    environ: dict[str, str] = host.report(target, method, **options)["environ"]
    return environ


def seen_with(host: Host, *fields: tuple[str, str | bytes], **options: object) -> dict[str, str]:
    """The meta-variables of a script that is asked with these header fields."""
    return seen(host, fields=list(fields), **options)


def answered(answer: wire.Answer) -> dict[str, str] | None:
    """The meta-variables out of an answer; None when the request was refused as the client's fault."""
    if 400 <= answer.status <= 499:
        return None
    assert answer.status == 200, answer
    environ: dict[str, str] = json.loads(answer.body)["environ"]
    return environ


def halves(environ: dict[str, str]) -> tuple[str, str]:
    """The two halves of the script-URI's path."""
    return environ["SCRIPT_NAME"], environ.get("PATH_INFO", "")


# -- the interface and the request line


def test_gateway_interface_is_cgi_1_1(host: Host) -> None:
    """RFC 3875 4.1.4."""
    assert seen(host)["GATEWAY_INTERFACE"] == "CGI/1.1"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_request_method_is_the_one_of_the_request_line(host: Host, method: str) -> None:
    """RFC 3875 4.1.12."""
    body = None if method == "GET" else b"x"
    assert seen(host, method=method, body=body)["REQUEST_METHOD"] == method


def test_request_method_of_a_head_request_is_head(host: Host) -> None:
    """RFC 3875 4.1.12 and 4.3.3: the script itself is told, though its body is not sent."""
    host.site.sh("method.sh", 'printf "Content-Type: text/plain\\nX-Asked-With: $REQUEST_METHOD\\n\\nbody"\n')
    answer = host.ask("HEAD", "/cgi-bin/method.sh")
    assert (answer.status, answer.get("X-Asked-With"), answer.body) == (200, "HEAD", b"")


@pytest.mark.parametrize(
    "sent",
    [("X-HTTP-Method-Override", "DELETE"), ("X-Method-Override", "PUT"), ("Request-Method", "PUT")],
    ids=lambda field: field[0],
)
def test_no_header_field_changes_the_request_method(host: Host, sent: tuple[str, str]) -> None:
    """RFC 3875 4.1.12: it is the method of the request line."""
    assert seen_with(host, sent)["REQUEST_METHOD"] == "GET"


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_server_protocol_is_a_version_of_http(host: Host, version: str) -> None:
    """RFC 3875 4.1.16."""
    assert seen(host, version=version)["SERVER_PROTOCOL"] in ("HTTP/1.0", "HTTP/1.1")


def test_server_protocol_of_an_old_request_is_not_a_newer_one(host: Host) -> None:
    """RFC 3875 4.1.16: the protocol the request came with."""
    assert seen(host, version="HTTP/1.0")["SERVER_PROTOCOL"] == "HTTP/1.0"


def test_absolute_form_of_the_target_names_the_same_script(host: Host) -> None:
    """RFC 9112 3.2.2: a server accepts the absolute form, even though clients send it to proxies only."""
    environ = seen(host, f"http://127.0.0.1:{host.port}{REPORT}/x?y")
    assert (*halves(environ), environ["QUERY_STRING"]) == (REPORT, "/x", "y")


def test_host_of_the_absolute_form_goes_before_the_host_field(host: Host) -> None:
    """RFC 9112 3.2.2: the field is ignored then; RFC 3875 4.1.14: SERVER_NAME is whom the request is directed to."""
    environ = answered(host.get(f"http://target.test{REPORT}", [("Host", "field.test")]))
    assert environ is None or environ["SERVER_NAME"] == "target.test"


# -- the query


@pytest.mark.parametrize("target", [REPORT, REPORT + "?", REPORT + "/x", REPORT + "/x?"])
def test_query_string_is_set_and_empty_without_a_query(host: Host, target: str) -> None:
    """RFC 3875 4.1.7: it is there in any case."""
    assert seen(host, target)["QUERY_STRING"] == ""


QUERIES = {
    "escapes": "q=%20x+y%2Bz&u=%C3%BC%E2%82%AC&n=%00&p=%25%32%35",
    "reserved": "a=1&b;c=/x:@!$'()*,~-._&&=&",
    "question_marks": "a?b",
    "two_question_marks_first": "?a?b",
    "lower_case_escapes": "%c3%a9%2f",
    "broken_escapes": "100%&%zz=%4",
    "ends_with_ampersand": "a=b&",
    "slashes_and_dots": "/../..//x/./y",
    "url": "next=http://other.test/p?q=1",
    "plus_only": "+",
    "escaped_line_end": "a%0d%0aX-Evil:%201",
    "square_brackets": "a[]=1&a[]=2",
    "long": "x=" + "0123456789" * 600,
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_query_string_comes_as_it_was_sent(host: Host, query: str) -> None:
    """RFC 3875 4.1.7: not decoded, nothing of it changed."""
    assert seen(host, f"{REPORT}?{query}")["QUERY_STRING"] == query


@pytest.mark.parametrize(
    "query", ['"<>', "a|b", "{x}", "^`", "\\"], ids=["quote", "bar", "brace", "caret", "backslash"]
)
def test_query_with_characters_that_no_url_has_is_kept_or_refused(host: Host, query: str) -> None:
    """RFC 3986 3.4 does not know them; clients send them, and then they arrive as they are."""
    environ = answered(host.get(f"{REPORT}?{query}"))
    assert environ is None or environ["QUERY_STRING"] == query


def test_query_with_raw_bytes_is_kept_or_refused(host: Host) -> None:
    """RFC 3875 4.1.7 with what old clients send: the same bytes, or their escapes, or a 4xx."""
    environ = answered(host.get(REPORT.encode() + b"?caf\xc3\xa9"))
    assert environ is None or environ["QUERY_STRING"] in ("caf\xc3\xa9", "caf%C3%A9")


# -- the body's own variables


def test_content_length_is_unset_or_empty_without_a_body(host: Host) -> None:
    """RFC 3875 4.1.2."""
    assert seen(host).get("CONTENT_LENGTH", "") == ""


@pytest.mark.parametrize("size", [1, 10, 4096, 23456])
def test_content_length_counts_the_bytes_of_the_body(host: Host, size: int) -> None:
    """RFC 3875 4.1.2."""
    assert seen(host, method="POST", body=b"b" * size)["CONTENT_LENGTH"] == str(size)


def test_content_length_of_an_announced_empty_body_is_zero_or_unset(host: Host) -> None:
    """RFC 3875 4.1.2: "If no message-body is attached, then the value is NULL (or unset)"; 0 says the same."""
    assert seen(host, method="POST", body=b"").get("CONTENT_LENGTH", "") in ("", "0")


CONTENT_TYPES = {
    "multipart": 'multipart/form-data; boundary="--- (x)/y=z"; charset=utf-8',
    "form": "application/x-www-form-urlencoded",
    "case": "Text/PLAIN;Charset=ISO-8859-1",
    "structured": "application/vnd.api+json; ext=\"https://x.test/a,b\"; profile='q'",
}


@pytest.mark.parametrize("content_type", CONTENT_TYPES.values(), ids=CONTENT_TYPES.keys())
def test_content_type_comes_with_all_its_parameters(host: Host, content_type: str) -> None:
    """RFC 3875 4.1.3."""
    environ = seen_with(host, ("Content-Type", content_type), method="POST", body=b"x")
    assert environ["CONTENT_TYPE"] == content_type


def test_content_type_is_unset_or_empty_when_the_client_names_none(host: Host) -> None:
    """RFC 3875 4.1.3: the server does not invent one."""
    assert seen(host, method="POST", body=b"x").get("CONTENT_TYPE", "") == ""


def test_content_type_and_length_have_no_second_variable(host: Host) -> None:
    """RFC 3875 4.1.18: what is available in other variables need not come as HTTP_ too."""
    environ = seen_with(host, ("Content-Type", "text/x-y"), method="POST", body=b"x")
    assert [name for name in environ if name.startswith("HTTP_CONTENT_")] == []


def test_other_content_fields_come_as_http_variables(host: Host) -> None:
    """RFC 3875 4.1.18: only Content-Type and Content-Length have names of their own."""
    environ = seen_with(host, ("Content-Language", "eo"), ("Content-MD5", "Q2hl"), method="POST", body=b"x")
    assert (environ["HTTP_CONTENT_LANGUAGE"], environ["HTTP_CONTENT_MD5"]) == ("eo", "Q2hl")


# -- the path


@pytest.mark.parametrize("target", [REPORT, REPORT + "?p=/q", REPORT + "?/q"])
def test_path_info_is_unset_or_empty_when_nothing_follows_the_script(host: Host, target: str) -> None:
    """RFC 3875 4.1.5."""
    environ = seen(host, target)
    assert environ.get("PATH_INFO", "") == ""
    assert environ.get("PATH_TRANSLATED", "") == ""


@pytest.mark.parametrize(
    "extra", ["/", "/one/two", "/Mixed.CASE.txt", "/report.py/cgi-bin/report.py", "/.hidden/x~", "/a/", "/a..b/...c"]
)
def test_path_info_is_what_follows_the_script(host: Host, extra: str) -> None:
    """RFC 3875 4.1.5: with its case and its dots."""
    assert halves(seen(host, REPORT + extra)) == (REPORT, extra)


EXTRA_PATHS = {
    "blank": ("/x%20y", "/x y"),
    "once_only": ("/%2541%252F", "/%41%2F"),
    "unreserved": ("/%66oo%2Ebar%7E", "/foo.bar~"),
    "reserved": ("/a%3Bb%3Dc%26d", "/a;b=c&d"),
    "plus_is_no_blank": ("/a+b%2Bc", "/a+b+c"),
    "excluded": ("/%22%3C%3E%5B%5C%5D%5E%60%7B%7C%7D", '/"<>[\\]^`{|}'),
    "question_mark": ("/a%3Fb", "/a?b"),
    "hash": ("/a%23b", "/a#b"),
    "percent": ("/100%25", "/100%"),
    "lower_case_escape": ("/%c3%a9", "/\xc3\xa9"),
    "tab": ("/a%09b", "/a\tb"),
    "colon_at": ("/a:b@c", "/a:b@c"),
    "sub_delims": ("/!$&'()*,=", "/!$&'()*,="),
    "equals": ("/k=v", "/k=v"),
}


@pytest.mark.parametrize(("sent", "expected"), EXTRA_PATHS.values(), ids=EXTRA_PATHS.keys())
def test_path_info_is_decoded_once(host: Host, sent: str, expected: str) -> None:
    """RFC 3875 4.1.5: "not URL-encoded", and one decoding only."""
    assert halves(seen(host, REPORT + sent)) == (REPORT, expected)


def test_escaped_question_mark_does_not_begin_a_query(host: Host) -> None:
    """RFC 3986 2.2: escaped, it is data."""
    environ = seen(host, REPORT + "/a%3Fb?c%3Fd")
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == ("/a?b", "c%3Fd")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("/%C3%BC/%E2%82%AC/%F0%9F%90%8D", "/\xc3\xbc/\xe2\x82\xac/\xf0\x9f\x90\x8d"),
        ("/caf%E9", "/caf\xe9"),
        ("/%FF%FE%80", "/\xff\xfe\x80"),
    ],
    ids=["utf8", "latin1", "no_text_at_all"],
)
def test_path_info_holds_the_very_bytes_that_the_url_encodes(host: Host, sent: str, expected: str) -> None:
    """RFC 3875 4.1.5 and 7.2: whatever encoding they are in."""
    assert seen(host, REPORT + sent)["PATH_INFO"] == expected


@pytest.mark.parametrize(
    ("sent", "expected"), [("/x%2Fy", "/x/y"), ("/%2F", "//"), ("/x%2fy/z", "/x/y/z")], ids=["one", "alone", "lower"]
)
def test_escaped_slash_in_the_extra_path_is_a_slash_or_refused(host: Host, sent: str, expected: str) -> None:
    """RFC 3875 4.1.5: a server may refuse what it cannot say without loss."""
    environ = answered(host.get(REPORT + sent))
    assert environ is None or halves(environ) == (REPORT, expected)


def test_escaped_slash_before_the_extra_path_finds_the_script_or_nothing(host: Host) -> None:
    """RFC 3875 3.3; in no case is the source delivered."""
    answer = host.get("/cgi-bin%2Freport.py")
    environ = answered(answer)
    assert environ is None or halves(environ) == (REPORT, "")
    assert b"import json" not in answer.body


@pytest.mark.parametrize("extra", ["/a//b/", "//a", "/a///"])
def test_empty_segments_of_the_extra_path_stay(host: Host, extra: str) -> None:
    """RFC 3875 4.1.5 and 8.1: "//" is not the same as "/" to a script."""
    assert halves(seen(host, REPORT + extra)) == (REPORT, extra)


def test_semicolon_belongs_to_the_extra_path(host: Host) -> None:
    """RFC 3986 3.3: path parameters are up to the script."""
    assert halves(seen(host, REPORT + "/a;v=1/b;c")) == (REPORT, "/a;v=1/b;c")


@pytest.mark.parametrize("sent", ["/a%00b", "/%00", "%00"])
def test_nul_in_the_path_is_refused(host: Host, sent: str) -> None:
    """RFC 3875 7.2: no variable can hold it."""
    assert 400 <= host.get(REPORT + sent).status <= 499


@pytest.mark.parametrize("sent", ["/a%0Ab", "/a%0D%0AX-Evil:%201"])
def test_line_ends_in_the_path_stay_data(host: Host, sent: str) -> None:
    """RFC 9112 11.1: they reach nothing but PATH_INFO, if they are taken at all."""
    answer = host.get(REPORT + sent)
    assert answer.get("X-Evil") is None
    environ = answered(answer)
    if environ is not None:
        assert environ["PATH_INFO"].startswith("/a")
        assert "\n" not in environ["REQUEST_URI"]


@pytest.mark.parametrize(
    "extra",
    ["/a/../b", "/a/./b", "/%2e%2e/x", "/../../../../etc/passwd", "/..", "/%2E%2E%2F%2E%2E%2F%2E%2E%2Fetc/passwd"],
)
def test_dot_segments_never_lead_path_translated_out_of_the_root(host: Host, extra: str) -> None:
    """RFC 3875 9.8: PATH_INFO may hold anything, but what we make of it stays inside."""
    answer = host.get(REPORT + extra)
    if answer.status == 200 and answer.media_type == "application/json":
        environ = json.loads(answer.body)["environ"]
        translated = environ.get("PATH_TRANSLATED", "")
        assert ".." not in translated.split("/")
        assert not translated or translated.startswith(f"{host.site.directory}/")
    else:
        assert answer.status in (400, 403, 404)


def test_path_translated_is_the_extra_path_below_the_document_root(host: Host) -> None:
    """RFC 3875 4.1.6."""
    environ = seen(host, REPORT + "/some%20where/file.html")
    assert environ["PATH_TRANSLATED"] == f"{host.site.directory}/some where/file.html"


def test_path_translated_has_the_bytes_of_the_extra_path(host: Host) -> None:
    """RFC 3875 4.1.6 and 7.2."""
    environ = seen(host, REPORT + "/caf%C3%A9")
    assert environ["PATH_TRANSLATED"] == f"{host.site.directory}/caf\xc3\xa9"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (REPORT, (REPORT, "")),
        ("/cgi-bin/sub/report.py", ("/cgi-bin/sub/report.py", "")),
        ("/cgi-bin/sub/report.py/on?q=1", ("/cgi-bin/sub/report.py", "/on")),
        ("/cgi-bin/sub/report.py/sub/report.py", ("/cgi-bin/sub/report.py", "/sub/report.py")),
    ],
    ids=["plain", "nested", "nested_with_extra_path", "its_own_name_again"],
)
def test_script_name_is_the_url_path_of_the_script(host: Host, target: str, expected: tuple[str, str]) -> None:
    """RFC 3875 4.1.13."""
    assert halves(seen(host, target)) == expected


def test_script_name_is_decoded(host: Host) -> None:
    """RFC 3875 4.1.13: like PATH_INFO, "not URL-encoded"."""
    assert halves(seen(host, "/cgi-bin/rep%6Frt%2Epy/x")) == (REPORT, "/x")


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("two words.py", "two%20words.py"),
        ("per%41cent.py", "per%2541cent.py"),
        ("a+b.py", "a+b.py"),
        ("semi;colon.py", "semi;colon.py"),
        ("-dash.py", "-dash.py"),
        ("q?mark.py", "q%3Fmark.py"),
        ("\N{GREEK SMALL LETTER LAMDA}.py", "%CE%BB.py"),
    ],
    ids=["blank", "percent", "plus", "semicolon", "dash", "question_mark", "greek"],
)
def test_script_with_an_odd_name_is_found_and_named(host: Host, name: str, sent: str) -> None:
    """RFC 3875 4.1.13: any name that a file can have."""
    source = (host.site.directory / "cgi-bin/report.py").read_text()
    host.site.script(name, source)
    environ = seen(host, f"/cgi-bin/{sent}/x")
    assert halves(environ) == (f"/cgi-bin/{name}".encode().decode("latin-1"), "/x")


def test_script_in_a_deep_directory_is_found(host: Host) -> None:
    """RFC 3875 3.3: the server decides where the script's part ends; here at the first file."""
    source = (host.site.directory / "cgi-bin/report.py").read_text()
    host.site.script("d1/d.2/d 3/deep.py", source)
    assert halves(seen(host, "/cgi-bin/d1/d.2/d%203/deep.py/d1/x")) == ("/cgi-bin/d1/d.2/d 3/deep.py", "/d1/x")


def test_script_name_and_extra_path_and_query_make_up_the_url(host: Host) -> None:
    """RFC 3875 3.3: the script-URI leads to the same script with the same variables again."""
    first = seen(host, "/cgi-bin/sub/report.py/a/b?c=d")
    again = seen(host, f"{first['SCRIPT_NAME']}{first['PATH_INFO']}?{first['QUERY_STRING']}")
    names = ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "SERVER_NAME", "SERVER_PORT")
    assert [again[name] for name in names] == [first[name] for name in names]


# -- the client


def test_remote_addr_is_the_address_of_the_client(host: Host) -> None:
    """RFC 3875 4.1.8."""
    assert seen(host)["REMOTE_ADDR"] == "127.0.0.1"


CLAIMS = {
    "x_forwarded_for": [("X-Forwarded-For", "198.51.100.9")],
    "x_forwarded_for_list": [("X-Forwarded-For", "198.51.100.9, 127.0.0.1")],
    "forwarded": [("Forwarded", 'for=198.51.100.9;proto=https;host="evil.test"')],
    "x_real_ip": [("X-Real-IP", "198.51.100.9")],
    "client_ip": [("Client-IP", "198.51.100.9"), ("True-Client-IP", "198.51.100.9"), ("Via", "1.1 evil.test")],
    "remote_addr": [("Remote-Addr", "198.51.100.9"), ("Remote-Host", "evil.test")],
}


@pytest.mark.parametrize("fields", CLAIMS.values(), ids=CLAIMS.keys())
def test_remote_addr_and_host_believe_no_header_field(host: Host, fields: list[tuple[str, str | bytes]]) -> None:
    """RFC 3875 4.1.8 and 4.1.9: the peer of the connection, whatever it claims."""
    environ = seen_with(host, *fields)
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    assert environ.get("REMOTE_HOST", "localhost") in ("127.0.0.1", "localhost")


def test_remote_host_is_a_name_or_the_address(host: Host) -> None:
    """RFC 3875 4.1.9."""
    assert SERVER_NAME.fullmatch(seen(host)["REMOTE_HOST"])


def test_remote_port_is_the_port_of_the_client(host: Host) -> None:
    """Practice of Apache httpd; where it is set, it is true."""
    with host.connect() as connection:
        connection.send(wire.request("GET", REPORT))
        environ = answered(connection.read())
        assert environ is not None
        assert environ.get("REMOTE_PORT", "") in ("", str(connection.socket.getsockname()[1]))


def test_remote_ident_is_not_made_up(host: Host) -> None:
    """RFC 3875 4.1.10: nobody asks an RFC 1413 server here."""
    assert seen_with(host, ("Remote-Ident", "root")).get("REMOTE_IDENT", "") == ""


UNPROVEN = {
    "basic": [("Authorization", f"Basic {CREDENTIALS}")],
    "digest": [("Authorization", 'Digest username="root", realm="r", response="0"')],
    "bearer": [("Authorization", f"Bearer {CREDENTIALS}")],
    "proxy": [("Proxy-Authorization", f"Basic {CREDENTIALS}")],
    "by_name": [("Remote-User", "root"), ("Auth-Type", "Basic"), ("X-Remote-User", "root"), ("From", "root@x.test")],
}


@pytest.mark.parametrize("fields", UNPROVEN.values(), ids=UNPROVEN.keys())
def test_nobody_is_authenticated_by_claiming_it(host: Host, fields: list[tuple[str, str | bytes]]) -> None:
    """RFC 3875 4.1.1 and 4.1.11: AUTH_TYPE and REMOTE_USER stand for what the server has checked."""
    environ = seen_with(host, *fields)
    assert (environ.get("AUTH_TYPE", ""), environ.get("REMOTE_USER", "")) == ("", "")


@pytest.mark.parametrize("field", ["Authorization", "authorization", "Proxy-Authorization"])
def test_credentials_are_not_passed_on_unless_asked_for(host: Host, field: str) -> None:
    """RFC 3875 4.1.18 and 9.2."""
    environ = seen_with(host, (field, f"Basic {CREDENTIALS}"))
    assert [name for name, value in environ.items() if CREDENTIALS in value] == []


# -- the server


def test_server_name_is_a_host_without_a_port(host: Host) -> None:
    """RFC 3875 4.1.14."""
    assert SERVER_NAME.fullmatch(seen(host)["SERVER_NAME"])


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("site.test", "site.test"),
        ("site.test:8080", "site.test"),
        ("site.test:", "site.test"),
        ("Site.TEST", "Site.TEST"),
        ("site.test.", "site.test."),
        ("192.0.2.1:99", "192.0.2.1"),
        ("[::1]", "[::1]"),
        ("[2001:db8::1]:8000", "[2001:db8::1]"),
        ("xn--bcher-kva.test", "xn--bcher-kva.test"),
        ("3com.test", "3com.test"),
    ],
)
def test_server_name_is_the_host_that_the_client_asked(host: Host, asked: str, expected: str) -> None:
    """RFC 3875 4.1.14: "the name of the server host to which the client request is directed"."""
    environ = seen_with(host, ("Host", asked))
    assert environ["SERVER_NAME"].lower() == expected.lower()
    assert environ["HTTP_HOST"] == asked


@pytest.mark.parametrize("asked", ["", "my_app.test", "123", "a..b", "*.test", "a%20b", "~x", "-a.test", "site.test:0"])
def test_server_name_stays_a_name_for_odd_hosts(host: Host, asked: str) -> None:
    """RFC 3875 4.1.14 with RFC 9110 7.2: valid uri-hosts that are no host names give something else, or a 400."""
    environ = answered(host.ask("GET", REPORT, host=asked))
    assert environ is None or SERVER_NAME.fullmatch(environ["SERVER_NAME"])


HOSTILE = {
    "markup": "<svg/onload=alert(1)>",
    "quote": 'x"onclick="y',
    "blank": "a b",
    "command": "x;$(id)",
    "path": "evil.test/../..",
    "query": "evil.test?x",
    "control": "a\x02b",
    "user": "root@evil.test",
    "port": "evil.test:80x",
    "two_ports": "evil.test:80:90",
    "list": "good.test, evil.test",
    "bracket": "[::1",
    "no_address": "[evil.test]",
    "high": "\xe9vil.test",
    "backslash": "evil.test\\x",
}


@pytest.mark.parametrize("asked", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_host_never_becomes_server_name(host: Host, asked: str) -> None:
    """RFC 3875 4.1.14, RFC 9112 3.2: refused, or replaced by a real name; no failure of the server's."""
    environ = answered(host.get(REPORT, [("Host", asked)]))
    if environ is not None:
        assert SERVER_NAME.fullmatch(environ["SERVER_NAME"])
        assert "evil" not in environ["SERVER_NAME"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_request_without_host_is_refused(host: Host, method: str) -> None:
    """RFC 9112 3.2: 400 in HTTP/1.1."""
    assert host.ask(method, REPORT, host=None).status == 400


def test_two_hosts_are_refused(host: Host) -> None:
    """RFC 9112 3.2: 400."""
    assert host.get(REPORT, [("Host", "a.test"), ("Host", "b.test")]).status == 400


def test_old_request_without_host_has_a_server_name_all_the_same(host: Host) -> None:
    """RFC 3875 4.1.14: it MUST be set; RFC 1945 knows no Host."""
    environ = answered(host.ask("GET", REPORT, version="HTTP/1.0", host=None))
    assert environ is not None
    assert SERVER_NAME.fullmatch(environ["SERVER_NAME"])
    assert "HTTP_HOST" not in environ


def test_server_port_is_where_the_request_came_in(host: Host) -> None:
    """RFC 3875 4.1.15."""
    assert seen(host)["SERVER_PORT"] == str(host.port)


@pytest.mark.parametrize(
    "field",
    [("Host", "site.test:1"), ("X-Forwarded-Port", "1"), ("Server-Port", "1"), ("Forwarded", "host=site.test:1")],
    ids=lambda field: field[0],
)
def test_server_port_believes_no_header_field(host: Host, field: tuple[str, str]) -> None:
    """RFC 3875 4.1.15: "the TCP/IP port number on which this request is received"."""
    assert seen_with(host, field)["SERVER_PORT"] == str(host.port)


def test_server_software_names_a_product(host: Host) -> None:
    """RFC 3875 4.1.17: product or comment, separated by blanks."""
    product = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:/[!#$%&'*+.^_`|~0-9A-Za-z-]+)?"
    assert re.fullmatch(rf"{product}(?: +(?:{product}|\([^()]*\)))*", seen(host)["SERVER_SOFTWARE"])


def test_connection_without_tls_is_not_called_https(host: Host) -> None:
    """Practice of Apache httpd: HTTPS is set on TLS connections only."""
    environ = seen_with(host, ("Https", "on"), ("Front-End-Https", "on"))
    assert environ.get("HTTPS", "off") in ("", "off")
    assert environ.get("REQUEST_SCHEME", "http") == "http"


def test_forwarded_scheme_of_a_stranger_is_not_believed(host: Host) -> None:
    """RFC 7239 8.1: only fields of proxies that one trusts count."""
    environ = seen_with(host, ("X-Forwarded-Proto", "https"), ("X-Forwarded-Ssl", "on"))
    assert environ.get("HTTPS", "off") in ("", "off")


# -- header fields

FIELDS = {
    "dash_to_underscore": ("X-Some-Thing", "1", "HTTP_X_SOME_THING", "1"),
    "lower_case": ("x-lower", "1", "HTTP_X_LOWER", "1"),
    "mixed_case_value": ("X-Value", "KeepCASE", "HTTP_X_VALUE", "KeepCASE"),
    "digits": ("X-2-Many-4U", "1", "HTTP_X_2_MANY_4U", "1"),
    "one_letter": ("Q", "z", "HTTP_Q", "z"),
    "outer_blanks": ("X-Blanks", " \t in  side \t ", "HTTP_X_BLANKS", "in  side"),
    "inner_tab": ("X-Tab", "a\tb", "HTTP_X_TAB", "a\tb"),
    "accept": ("Accept", "text/*;q=0.3, */*;q=0.1", "HTTP_ACCEPT", "text/*;q=0.3, */*;q=0.1"),
    "user_agent": ("User-Agent", "probe/2 (+x; y)", "HTTP_USER_AGENT", "probe/2 (+x; y)"),
    "referer": ("Referer", "https://r.test/p?q=1#f", "HTTP_REFERER", "https://r.test/p?q=1#f"),
    "equals": ("X-Eq", "=a==b=", "HTTP_X_EQ", "=a==b="),
    "colons": ("X-Colon", ":a:b::", "HTTP_X_COLON", ":a:b::"),
    "shell": ("X-Shell", "`id` $(id) ${HOME} ; | & > < \\ \" ' *", "HTTP_X_SHELL", None),
    "cookie": ("Cookie", 'a="x y"; b=%20; c', "HTTP_COOKIE", 'a="x y"; b=%20; c'),
    "range": ("Range", "bytes=0-1", "HTTP_RANGE", "bytes=0-1"),
    "condition": ("If-None-Match", '"x", W/"y"', "HTTP_IF_NONE_MATCH", '"x", W/"y"'),
    "accept_encoding": ("Accept-Encoding", "gzip, br", "HTTP_ACCEPT_ENCODING", "gzip, br"),
    "origin": ("Origin", "null", "HTTP_ORIGIN", "null"),
    "format_strings": ("X-Format", "%s %(x)s {0} %n", "HTTP_X_FORMAT", "%s %(x)s {0} %n"),
    "long": ("X-Long", "v" * 6000, "HTTP_X_LONG", "v" * 6000),
    "high_bytes": ("X-High", "caf\xe9 \xc3\xa9", "HTTP_X_HIGH", "caf\xe9 \xc3\xa9"),
}


@pytest.mark.parametrize(("name", "value", "variable", "expected"), FIELDS.values(), ids=FIELDS.keys())
def test_header_field_becomes_a_variable(
    host: Host, name: str, value: str, variable: str, expected: str | None
) -> None:
    """RFC 3875 4.1.18: upper case, "_" for "-", and the value as it was sent."""
    environ = seen_with(host, (name, value), ("X-Behind", "it"))
    assert environ[variable] == (value if expected is None else expected)
    assert environ["HTTP_X_BEHIND"] == "it"


def test_host_field_is_a_variable_too(host: Host) -> None:
    """RFC 3875 4.1.18."""
    asked = f"127.0.0.1:{host.port}"
    assert seen_with(host, ("Host", asked))["HTTP_HOST"] == asked


def test_forwarded_for_is_passed_on_as_it_is_or_not_at_all(host: Host) -> None:
    """RFC 3875 4.1.18, RFC 7239 8.1: a server may drop what a stranger claims, but not write its own into it."""
    environ = seen_with(host, ("X-Forwarded-For", "192.0.2.1, 192.0.2.2"))
    assert environ.get("HTTP_X_FORWARDED_FOR", "192.0.2.1, 192.0.2.2") == "192.0.2.1, 192.0.2.2"


def test_many_header_fields_all_arrive(host: Host) -> None:
    """RFC 3875 4.1.18; 60 fields are below the limit of every server."""
    environ = seen_with(host, *((f"X-N{i}", str(i * i)) for i in range(60)))
    assert [environ.get(f"HTTP_X_N{i}") for i in range(60)] == [str(i * i) for i in range(60)]


def test_repeated_header_fields_are_joined_in_order(host: Host) -> None:
    """RFC 3875 4.1.18, RFC 9110 5.3: one variable, with commas between, whatever stood between the fields."""
    environ = seen_with(host, ("X-List", "a"), ("X-Else", "-"), ("x-list", "b, c"), ("X-LIST", "d"))
    assert re.split(r"[ \t]*,[ \t]*", environ["HTTP_X_LIST"]) == ["a", "b", "c", "d"]


def test_repeated_cookie_fields_are_joined_with_semicolons(host: Host) -> None:
    """RFC 6265 5.4, RFC 9113 8.2.3: a comma may be part of a cookie."""
    assert seen_with(host, ("Cookie", "a=1"), ("Cookie", "b=2"))["HTTP_COOKIE"] == "a=1; b=2"


@pytest.mark.parametrize("folded", ["a\r\n b\r\n\tc", "a\r\n  b c", "\r\n a b c"], ids=["twice", "blanks", "at_once"])
def test_folded_header_field_is_one_line_or_refused(host: Host, folded: str) -> None:
    """RFC 3875 4.1.18, RFC 9112 5.2."""
    environ = answered(host.get(REPORT, [("X-Folded", folded), ("X-Behind", "it")]))
    if environ is not None:
        assert not set("\r\n") & set(environ["HTTP_X_FOLDED"])
        assert environ["HTTP_X_FOLDED"].split() == ["a", "b", "c"]
        assert environ["HTTP_X_BEHIND"] == "it"


def test_empty_header_field_does_no_harm(host: Host) -> None:
    """RFC 9110 5.5: a value may be empty."""
    environ = seen_with(host, ("X-Nothing", ""), ("X-Blank", "   "), ("X-Behind", "it"))
    assert [environ.get(f"HTTP_X_{name}", "") for name in ("NOTHING", "BLANK", "BEHIND")] == ["", "", "it"]


@pytest.mark.parametrize(
    "line", [b"X-Bad : 1", b" X-Bad: 1", b"X Bad: 1", b"X-Bad", b": 1", b"X-\xe9: 1", b"X(Bad): 1"]
)
def test_malformed_header_line_is_refused_or_left_out(host: Host, line: bytes) -> None:
    """RFC 9112 5.1: above all a blank before the colon."""
    data = wire.request("GET", REPORT, [("X-Behind", "it")])
    head, _, rest = data.partition(b"X-Behind")
    environ = answered(host.raw(head + line + b"\r\nX-Behind" + rest))
    if environ is not None:
        assert [name for name in environ if "BAD" in name or name in ("HTTP_", "HTTP_X_")] == []


@pytest.mark.parametrize("value", ["a\0b", "a\rb"], ids=["nul", "cr"])
def test_control_characters_in_a_header_field_never_reach_the_script(host: Host, value: str) -> None:
    """RFC 9110 5.5: the field is refused, or they are replaced."""
    environ = answered(host.get(REPORT, [("X-Control", value)]))
    assert environ is None or not set("\0\r\n") & set(environ.get("HTTP_X_CONTROL", ""))


@pytest.mark.parametrize("name", ["Proxy", "proxy", "PROXY", "ProXy"])
def test_proxy_field_never_becomes_http_proxy(host: Host, name: str) -> None:
    """CVE-2016-5385 and its kin (httpoxy): HTTP_PROXY is a setting of many HTTP clients."""
    environ = seen_with(host, (name, "http://evil.test:3128/"))
    assert [key for key, value in environ.items() if "evil.test" in value or key.upper() == "HTTP_PROXY"] == []


@pytest.mark.parametrize("fields", [["X-Real", "X_Real"], ["X_Real", "X-Real"], ["X_Real", "X-Real", "X_REAL"]])
def test_underscore_field_cannot_pose_as_another(host: Host, fields: list[str]) -> None:
    """RFC 3875 4.1.18: both would be HTTP_X_REAL; nginx calls the cure ``underscores_in_headers off``."""
    environ = answered(host.get(REPORT, [(name, "true" if "-" in name else "false") for name in fields]))
    assert environ is None or environ["HTTP_X_REAL"] == "true"


@pytest.mark.parametrize("name", ["X.Real", "X!Real", "X~Real", "X'Real", "X+Real"])
def test_field_with_an_odd_name_cannot_pose_as_another(host: Host, name: str) -> None:
    """RFC 9110 5.6.2 allows such names; shells cannot have such variables."""
    environ = answered(host.get(REPORT, [(name, "false"), ("X-Real", "true")]))
    if environ is not None:
        assert environ["HTTP_X_REAL"] == "true"
        assert all(re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", key) for key in environ)


NAMESAKES = [
    "Gateway-Interface",
    "Path-Info",
    "Path-Translated",
    "Query-String",
    "Script-Name",
    "Script-Filename",
    "Document-Root",
    "Server-Name",
    "Server-Protocol",
    "Server-Software",
    "Request-Uri",
    "Path",
    "LD-Preload",
    "Bash-Env",
    "Redirect-Status",
]


def test_header_fields_cannot_replace_other_variables(host: Host) -> None:
    """RFC 3875 4.1.18: whatever a field is called, its variable begins with HTTP_."""
    environ = seen_with(host, *((name, "/evil") for name in NAMESAKES))
    assert sorted(name for name, value in environ.items() if "/evil" in value and not name.startswith("HTTP_")) == []


@pytest.mark.parametrize(
    "name", ["QUERY_STRING", "REMOTE_USER", "PATH_INFO", "CONTENT_TYPE", "CONTENT_LENGTH", "HTTPS"]
)
def test_header_field_with_a_variables_own_name_sets_nothing(host: Host, name: str) -> None:
    """RFC 3875 4.1: no client writes a meta-variable."""
    environ = answered(host.get(REPORT, [(name, "7")]))
    assert environ is None or environ.get(name, "") == ""


def test_header_field_script_name_moves_nothing(host: Host) -> None:
    """RFC 3875 4.1.13: no client writes a meta-variable."""
    environ = answered(host.get(REPORT, [("SCRIPT_NAME", "/cgi-bin")]))
    assert environ is None or halves(environ) == (REPORT, "")


def test_transfer_encoding_and_its_kin_tell_the_script_nothing_untrue(host: Host) -> None:
    """RFC 3875 4.2: the framing is undone before, so no variable may say that the body is chunked."""
    data = wire.request("POST", REPORT, [("Transfer-Encoding", "chunked")]) + wire.chunked(b"body")
    environ = answered(host.raw(data, "POST"))
    assert environ is None or "HTTP_TRANSFER_ENCODING" not in environ


# -- the rest of the environment


def test_environment_of_the_server_stays_there(host: Host) -> None:
    """RFC 3875 9.3: what the server was configured and started with is not the scripts' business."""
    text = Path(f"/proc/{host.server.process.pid}/environ").read_text("latin-1")
    names = {entry.partition("=")[0] for entry in text.split("\0") if entry}
    assert {"WSGICGI_DIRECTORY", "PYTHONUNBUFFERED"} <= names
    usual = re.compile("PATH|LANG|LANGUAGE|LC_.*|TZ|LD_LIBRARY_PATH|DOCUMENT_ROOT|SERVER_.*")
    assert sorted(name for name in names & set(seen(host)) if not usual.fullmatch(name)) == []


def test_names_of_variables_are_names(host: Host) -> None:
    """RFC 3875 4.1 and 7.2: letters, digits and "_"; nothing of the server's inner life such as ``wsgi.input``."""
    environ = seen_with(host, ("X-Some", "1"))
    assert [name for name in environ if not re.fullmatch("[A-Z_][A-Z0-9_]*", name)] == []
    assert [name for name in environ if "WSGI" in name or "GUNICORN" in name or "WAITRESS" in name] == []


def test_no_variable_is_there_twice(host: Host) -> None:
    """RFC 3875 4.1: names are not case-sensitive, so they must differ in more than case."""
    host.site.sh("raw-environ.sh", "printf 'Content-Type: text/plain\\n\\n'; cat /proc/$$/environ\n")
    answer = host.get("/cgi-bin/raw-environ.sh/x?y", [("X-A", "1"), ("x-a", "2"), ("Content-Type", "a/b")])
    names = [entry.partition("=")[0].upper() for entry in answer.text.split("\0") if entry]
    assert len(names) > 10
    assert sorted(names) == sorted(set(names))


def test_path_lets_scripts_find_programs(host: Host) -> None:
    """RFC 3875 7.2, practice: for ``#!/usr/bin/env`` and for what a shell script calls."""
    host.site.script("by-env", "#!/usr/bin/env sh\nprintf 'Content-Type: text/plain\\n\\n'; expr 6 \\* 7\n")
    assert "/usr/bin" in seen(host)["PATH"].split(":")
    assert host.get("/cgi-bin/by-env").text.strip() == "42"


@pytest.mark.parametrize(
    "target",
    [
        REPORT + "/x%20y?z=%20",
        REPORT + "?",
        REPORT + "/%C3%A9;a=b//c",
        "/cgi-bin/rep%6Frt.py/a%2Fb",
        REPORT + "/a/./b?c?d",
    ],
)
def test_request_uri_is_the_target_as_it_was_sent(host: Host, target: str) -> None:
    """Practice of Apache httpd, lighttpd and nginx: neither decoded nor normalized."""
    assert seen(host, target)["REQUEST_URI"] == target


def test_script_filename_and_document_root_tell_where_things_are(host: Host) -> None:
    """Practice of Apache httpd, lighttpd and nginx."""
    environ = seen(host, "/cgi-bin/sub/report.py/x")
    assert environ["SCRIPT_FILENAME"] == f"{host.site.directory}/cgi-bin/sub/report.py"
    assert environ["DOCUMENT_ROOT"].rstrip("/") == str(host.site.directory)


def test_second_script_directory_works_like_the_first(host: Host) -> None:
    """As http.server's CGIHTTPRequestHandler had it: /htbin beside /cgi-bin."""
    host.site.file("htbin/report.py", (host.site.directory / "cgi-bin/report.py").read_text(), 0o755)
    assert halves(seen(host, "/htbin/report.py/x")) == ("/htbin/report.py", "/x")


def test_requests_on_one_connection_share_nothing(host: Host) -> None:
    """RFC 3875 4.1: variables are those of one request, not of the one before it."""
    with host.connect() as connection:
        connection.send(wire.request("POST", REPORT + "/one?two", [("X-Three", "3")], b"four", close=False))
        first = answered(connection.read("POST"))
        if connection.socket.fileno() < 0 or first is None:
            raise AssertionError("no answer to the first request")
    second = seen(host)
    assert (first["PATH_INFO"], first["QUERY_STRING"], first["HTTP_X_THREE"]) == ("/one", "two", "3")
    assert {"HTTP_X_THREE", "CONTENT_LENGTH", "PATH_TRANSLATED"} & set(second) == set()
    assert halves(second) == (REPORT, "")
