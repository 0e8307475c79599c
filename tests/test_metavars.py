"""What a script is told about a request: its meta-variables and its command line, and what it is never told."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from wsgicgi.errors import request_id
from wsgicgi.metavars import DEFAULT_PATH, MAX_SEARCH_WORDS, build, inherited, search_words
from wsgicgi.scripts import Script

# A request as a server presents it (PEP 3333), with what servers put beside it.
REQUEST: dict[str, Any] = {
    "REQUEST_METHOD": "GET",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/cgi-bin/x.sh",
    "QUERY_STRING": "",
    "SERVER_NAME": "server.example",
    "SERVER_PORT": "8000",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SERVER_SOFTWARE": "server/1.0",
    "REMOTE_ADDR": "192.0.2.7",
    "HTTP_HOST": "www.example:8000",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.input": None,
    "wsgi.errors": None,
    "wsgi.multithread": True,
    "wsgi.file_wrapper": object,
    "gunicorn.socket": object(),
    "werkzeug.request": "text",
    "HOME": "/root",
    "SECRET_KEY": "of the server",
    "DATABASE_URL": "postgres://user:password@host/db",
}


def script(extra_path: str = "", script_path: str = "/cgi-bin/x.sh", root: str = "/srv/site") -> Script:
    return Script(
        file=Path(root + "/cgi-bin/x.sh"),
        command=(root + "/cgi-bin/x.sh",),
        script_path=script_path,
        extra_path=extra_path,
        root_dir=Path(root),
    )


def metavars(
    *,
    of: Script | None = None,
    content_length: int | None = None,
    base: dict[str, str] | None = None,
    pass_authorization: bool = False,
    without: tuple[str, ...] = (),
    **changes: object,
) -> dict[str, str]:
    """The meta-variables of a request that differs from ``REQUEST`` by some variables."""
    environ = {name: value for name, value in {**REQUEST, **changes}.items() if name not in without}
    return build(
        environ,
        script() if of is None else of,
        content_length=content_length,
        base={} if base is None else base,
        software="wsgicgi/0",
        pass_authorization=pass_authorization,
    )


# -- the whole


def test_a_plain_request_gives_these_metavars_and_no_others() -> None:
    """Meta-variables come from an allow-list: RFC 3875 section 4.1 and what everyone expects, nothing of the server."""
    environ = dict(REQUEST)
    made = build(environ, script(), content_length=None, base={"PATH": "/bin"}, software="wsgicgi/0")
    assert made == {
        "DOCUMENT_ROOT": "/srv/site",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "HTTP_HOST": "www.example:8000",
        "PATH": "/bin",
        "QUERY_STRING": "",
        "REDIRECT_STATUS": "200",
        "REMOTE_ADDR": "192.0.2.7",
        "REMOTE_HOST": "192.0.2.7",
        "REQUEST_METHOD": "GET",
        "REQUEST_SCHEME": "http",
        "REQUEST_URI": "/cgi-bin/x.sh",
        "SCRIPT_FILENAME": "/srv/site/cgi-bin/x.sh",
        "SCRIPT_NAME": "/cgi-bin/x.sh",
        "SERVER_NAME": "www.example",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "wsgicgi/0 (server/1.0)",
        "UNIQUE_ID": request_id(environ),
    }


def test_the_environ_is_left_as_it_was() -> None:
    """Building takes values and gives a value; only the request id may be remembered in the environ."""
    environ = dict(REQUEST)
    build(environ, script("/x"), content_length=3, base={}, software="wsgicgi/0")
    del environ["wsgicgi.request_id"]
    assert environ == REQUEST


def test_what_a_server_may_leave_out_is_made_up() -> None:
    """PEP 3333 lets SCRIPT_NAME, QUERY_STRING and more be missing; RFC 3875 section 4.1 wants the variables."""
    made = metavars(without=("SCRIPT_NAME", "QUERY_STRING", "SERVER_PROTOCOL", "SERVER_SOFTWARE", "REMOTE_ADDR"))
    expected = {
        "SCRIPT_NAME": "/cgi-bin/x.sh",
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "wsgicgi/0",
        "REMOTE_ADDR": "0.0.0.0",
        "REMOTE_HOST": "0.0.0.0",
    }
    assert {name: made[name] for name in expected} == expected


def test_the_requests_own_variables_go_before_the_configured_ones() -> None:
    """A variable of ``env`` or ``pass_env`` cannot forge what the request says."""
    base = {"REQUEST_METHOD": "PUT", "SERVER_NAME": "forged", "HTTP_HOST": "forged", "LANG": "C.UTF-8"}
    made = metavars(base=base)
    assert (made["REQUEST_METHOD"], made["SERVER_NAME"], made["HTTP_HOST"], made["LANG"]) == (
        "GET",
        "www.example",
        "www.example:8000",
        "C.UTF-8",
    )


# -- header fields


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("HTTP_USER_AGENT", "Browser/1.0 (a; b)", id="usual"),
        pytest.param("HTTP_ACCEPT", "text/html, */*;q=0.1", id="list"),
        pytest.param("HTTP_COOKIE", "a=b; c=d", id="cookie"),
        pytest.param("HTTP_X_HGARG_1", "x" * 1000, id="long"),
        pytest.param("HTTP_X_1", "", id="empty"),
        pytest.param("HTTP_X_LATIN", "caf\xe9", id="latin-1"),
        pytest.param("HTTP_CONTENT_ENCODING", "gzip", id="content-encoding"),
        pytest.param("HTTP_CONTENT_MD5", "Q2hlY2s=", id="content-md5"),
        pytest.param("HTTP_X_FORWARDED_FOR", "192.0.2.1", id="forwarded"),
        pytest.param("HTTP_REMOTE_USER", "admin", id="own-name-space"),
    ],
)
def test_header_fields_reach_the_script(name: str, value: str) -> None:
    """Each header field is a variable with HTTP_ before its name (RFC 3875 section 4.1.18)."""
    assert metavars(**{name: value})[name] == value


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("HTTP_PROXY", id="httpoxy"),
        pytest.param("HTTP_TRANSFER_ENCODING", id="transfer-encoding"),
        pytest.param("HTTP_CONTENT_LENGTH", id="content-length"),
        pytest.param("HTTP_CONTENT_TYPE", id="content-type"),
        pytest.param("HTTP_AUTHORIZATION", id="authorization"),
        pytest.param("HTTP_PROXY_AUTHORIZATION", id="proxy-authorization"),
        pytest.param("HTTP_X.Y", id="dot"),
        pytest.param("HTTP_X!Z", id="exclamation-mark"),
        pytest.param("HTTP_X-Y", id="hyphen"),
        pytest.param("HTTP_PROXY\n", id="newline"),
        pytest.param("HTTP_PROXY=X", id="equals-sign"),
        pytest.param("HTTP_X Y", id="blank"),
        pytest.param("HTTP_()", id="parentheses"),
        pytest.param("HTTP_\xc4", id="latin-1"),
        pytest.param("HTTP_proxy", id="lower-case"),
        pytest.param("HTTP_", id="no-name"),
        pytest.param("http_proxy", id="proxy-in-lower-case"),
        pytest.param("HTTPS_PROXY", id="https-proxy"),
        pytest.param("ALL_PROXY", id="all-proxy"),
        pytest.param("NO_PROXY", id="no-proxy"),
        pytest.param("LD_PRELOAD", id="ld-preload"),
        pytest.param("PYTHONPATH", id="pythonpath"),
        pytest.param("BASH_ENV", id="bash-env"),
        pytest.param("REDIRECT_REMOTE_USER", id="redirect-user"),
        pytest.param("SSL_CLIENT_S_DN", id="of-another-server"),
    ],
)
def test_a_variable_that_is_not_on_the_list_never_reaches_the_script(name: str) -> None:
    """Proxy settings (CVE-2016-5385), the body's framing, credentials and odd names stay out (RFC 3875 4.1.18, 9.2)."""
    assert name not in metavars(**{name: "http://evil.example:3128"})


@pytest.mark.parametrize("name", ["HTTP_AUTHORIZATION", "HTTP_PROXY_AUTHORIZATION"])
def test_credentials_reach_the_script_when_asked_for(name: str) -> None:
    """Credentials are given only where the user says so (RFC 3875 section 4.1.18: "SHOULD remove")."""
    assert metavars(pass_authorization=True, **{name: "Basic eDp5"})[name] == "Basic eDp5"


def test_the_proxy_header_never_reaches_the_script_that_gets_credentials() -> None:
    """No setting lets the client's Proxy field in (CVE-2016-5385)."""
    assert "HTTP_PROXY" not in metavars(pass_authorization=True, HTTP_PROXY="http://evil.example:3128")


def test_no_key_of_the_servers_own_is_a_metavar() -> None:
    """Keys with a dot are the business of server and middleware (PEP 3333)."""
    assert [name for name in metavars() if "." in name or not name.isupper()] == []


def test_every_metavar_is_text() -> None:
    """A process environment holds texts; objects that a server puts under such a name are left out."""
    made = metavars(HTTP_X=object(), HTTP_Y=None, HTTP_Z=1)
    assert {name: type(value) for name, value in made.items() if not isinstance(value, str)} == {}
    assert not {"HTTP_X", "HTTP_Y", "HTTP_Z"} & made.keys()


@pytest.mark.parametrize("name", ["HTTP_X", "CONTENT_TYPE", "REMOTE_USER"])
def test_a_value_with_nul_is_dropped(name: str) -> None:
    """NUL ends a variable in a process environment (execve(2)): half a value would be another value (CWE-158)."""
    assert name not in metavars(**{name: "begin\0end"})


# -- SERVER_NAME


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        pytest.param("www.example", "www.example", id="name"),
        pytest.param("www.example:8000", "www.example", id="name-and-port"),
        pytest.param("www.example:", "www.example", id="name-and-empty-port"),
        pytest.param("WWW.Example", "WWW.Example", id="capitals"),
        pytest.param("localhost", "localhost", id="one-label"),
        pytest.param("a", "a", id="one-letter"),
        pytest.param("www.example.", "www.example.", id="final-dot"),
        pytest.param("xn--caf-dma.example", "xn--caf-dma.example", id="idna"),
        pytest.param("3com.example", "3com.example", id="digit-first"),
        pytest.param("192.0.2.1", "192.0.2.1", id="ipv4"),
        pytest.param("192.0.2.1:80", "192.0.2.1", id="ipv4-and-port"),
        pytest.param("[2001:db8::1]", "[2001:db8::1]", id="ipv6"),
        pytest.param("[2001:db8::1]:8443", "[2001:db8::1]", id="ipv6-and-port"),
        pytest.param("[::ffff:192.0.2.1]", "[::ffff:192.0.2.1]", id="ipv6-with-ipv4"),
        pytest.param("", "server.example", id="empty"),
        pytest.param("2001:db8::1", "server.example", id="ipv6-without-brackets"),
        pytest.param("[2001:db8::1", "server.example", id="ipv6-half-open"),
        pytest.param("[::1]evil", "server.example", id="ipv6-and-more"),
        pytest.param("[fe80::1%25eth0]", "server.example", id="ipv6-zone"),
        pytest.param("www.example:80:80", "server.example", id="two-ports"),
        pytest.param("www.example:http", "server.example", id="port-is-a-word"),
        pytest.param("www.example/path", "server.example", id="slash"),
        pytest.param("user@www.example", "server.example", id="user"),
        pytest.param("www.example\n", "server.example", id="newline"),
        pytest.param("www.example\r\nX: y", "server.example", id="injection"),
        pytest.param("www example", "server.example", id="blank"),
        pytest.param("<script>alert(1)</script>", "server.example", id="html"),
        pytest.param("$(reboot)", "server.example", id="shell"),
        pytest.param("`reboot`.example", "server.example", id="back-quotes"),
        pytest.param("'; DROP TABLE x;--", "server.example", id="sql"),
        pytest.param("../../etc/passwd", "server.example", id="dots"),
        pytest.param("..", "server.example", id="dots-alone"),
        pytest.param("www..example", "server.example", id="empty-label"),
        pytest.param(".example", "server.example", id="dot-first"),
        pytest.param("-www.example", "server.example", id="hyphen-first"),
        pytest.param("www-.example", "server.example", id="hyphen-last"),
        pytest.param("www.example,evil.example", "server.example", id="two-names"),
        pytest.param("caf\xe9.example", "server.example", id="latin-1"),
        pytest.param("www.example\0", "server.example", id="nul"),
        pytest.param("a-" * 30_000 + "!", "server.example", id="long-without-end"),
        pytest.param("a." * 30_000 + "!", "server.example", id="many-labels-without-end"),
    ],
)
def test_server_name_is_a_name_or_an_address(host: str, expected: str) -> None:
    """SERVER_NAME is what Host names if that is a host name or an address (RFC 3875 section 4.1.14), else our own."""
    assert metavars(HTTP_HOST=host)["SERVER_NAME"] == expected


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        pytest.param("server.example", "server.example", id="name"),
        pytest.param("0.0.0.0", "0.0.0.0", id="ipv4"),
        pytest.param("::1", "[::1]", id="ipv6-gets-brackets"),
        pytest.param("[::1]", "[::1]", id="ipv6-with-brackets"),
        pytest.param("", "localhost", id="empty"),
        pytest.param("not a name", "localhost", id="no-name"),
    ],
)
def test_without_a_host_field_server_name_is_the_servers_own(own: str, expected: str) -> None:
    """HTTP/1.0 has no Host; RFC 3875 section 2.3 writes IPv6 addresses in brackets."""
    assert metavars(without=("HTTP_HOST",), SERVER_NAME=own)["SERVER_NAME"] == expected


# -- paths


@pytest.mark.parametrize(
    ("mount", "script_path", "expected"),
    [
        pytest.param("", "/cgi-bin/x.sh", "/cgi-bin/x.sh", id="no-mount"),
        pytest.param("/app", "/cgi-bin/x.sh", "/app/cgi-bin/x.sh", id="mount"),
        pytest.param("/app", "", "/app", id="mounted-script"),
        pytest.param("/caf\xc3\xa9", "/x", "/caf\xc3\xa9/x", id="utf-8-mount"),
    ],
)
def test_script_name_begins_with_the_mount_point(mount: str, script_path: str, expected: str) -> None:
    """SCRIPT_NAME is the whole URL path of the script (RFC 3875 section 4.1.13), the outer part included (PEP 3333)."""
    assert metavars(of=script(script_path=script_path), SCRIPT_NAME=mount)["SCRIPT_NAME"] == expected


@pytest.mark.parametrize(
    ("extra_path", "root", "path_translated"),
    [
        pytest.param("/", "/srv/site", "/srv/site/", id="slash"),
        pytest.param("/a/b", "/srv/site", "/srv/site/a/b", id="path"),
        pytest.param("/a//b/", "/srv/site", "/srv/site/a//b/", id="slashes-kept"),
        pytest.param("/a", "/", "/a", id="root-of-the-disk"),
        pytest.param("/caf\xc3\xa9", "/srv/sité", "/srv/sit\xc3\xa9/caf\xc3\xa9", id="utf-8"),
        pytest.param("/%2e%2e/x", "/srv/site", "/srv/site/%2e%2e/x", id="decoded-once"),
    ],
)
def test_path_translated_is_the_extra_path_below_the_document_root(
    extra_path: str, root: str, path_translated: str
) -> None:
    """PATH_TRANSLATED is PATH_INFO taken as a path of this site (RFC 3875 sections 4.1.5 and 4.1.6)."""
    made = metavars(of=script(extra_path, root=root))
    assert (made["PATH_INFO"], made["PATH_TRANSLATED"]) == (extra_path, path_translated)


def test_without_an_extra_path_there_is_no_path_translated() -> None:
    """Nor is there a PATH_INFO: programs written for Apache ask whether it is set (RFC 3875 section 4.1.5)."""
    assert not {"PATH_INFO", "PATH_TRANSLATED"} & metavars().keys()


def test_paths_of_the_disk_are_native_strings() -> None:
    """Bytes are shown as latin-1 (PEP 3333), those of file names too, whatever they are."""
    root = os.fsdecode(b"/srv/caf\xe9/\xc3\xa9")
    made = metavars(of=script("/x", root=root))
    expected = "/srv/caf\xe9/\xc3\xa9"
    assert made["DOCUMENT_ROOT"] == expected
    assert made["SCRIPT_FILENAME"] == expected + "/cgi-bin/x.sh"
    assert made["PATH_TRANSLATED"] == expected + "/x"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"REQUEST_URI": "/a%2Fb?c%20d"}, "/a%2Fb?c%20d", id="raw"),
        pytest.param({"RAW_URI": "/a%2Fb?c"}, "/a%2Fb?c", id="raw-as-gunicorn-has-it"),
        pytest.param({"REQUEST_URI": "/one", "RAW_URI": "/two"}, "/one", id="both"),
        pytest.param({"REQUEST_URI": "//evil.example/x"}, "//evil.example/x", id="two-slashes"),
        pytest.param({"REQUEST_URI": "/a?u=http://b/c"}, "/a?u=http://b/c", id="url-in-query"),
        pytest.param({"REQUEST_URI": "http://www.example/a?b"}, "/a?b", id="absolute-form"),
        pytest.param({"REQUEST_URI": "HTTPS://www.example:8443/a//b"}, "/a//b", id="absolute-form-with-port"),
        pytest.param({"REQUEST_URI": "http://www.example/"}, "/", id="absolute-form-of-root"),
        pytest.param({"REQUEST_URI": "http://www.example"}, "/", id="absolute-form-without-path"),
        pytest.param({"REQUEST_URI": "http://www.example?a/b"}, "/?a/b", id="absolute-form-with-query-only"),
        pytest.param({"REQUEST_URI": "*"}, "*", id="asterisk-form"),
        pytest.param({"REQUEST_URI": ""}, "/cgi-bin/x.sh", id="empty"),
        pytest.param({}, "/cgi-bin/x.sh", id="made-from-the-path"),
        pytest.param({"QUERY_STRING": "a=%20&b"}, "/cgi-bin/x.sh?a=%20&b", id="made-with-query"),
        pytest.param({"SCRIPT_NAME": "/app", "PATH_INFO": "/x"}, "/app/x", id="made-with-mount"),
        pytest.param({"PATH_INFO": "/a b\xc3\xa9%?#"}, "/a%20b%C3%A9%25%3F%23", id="made-and-encoded"),
        pytest.param({"PATH_INFO": "/a\r\nb"}, "/a%0D%0Ab", id="made-without-line-ends"),
        pytest.param({"PATH_INFO": "/~a/b;c=d,e@f:g"}, "/~a/b;c=d,e@f:g", id="made-without-needless-encoding"),
    ],
)
def test_request_uri_is_the_target_as_it_was_sent(changes: dict[str, str], expected: str) -> None:
    """REQUEST_URI is raw, from the first slash on (RFC 9112 section 3.2); an empty path is "/" (RFC 9110 4.2.3)."""
    assert metavars(**changes)["REQUEST_URI"] == expected


# -- the body


def test_content_length_is_that_of_the_collected_body() -> None:
    """CONTENT_LENGTH is the size of what the script can read (RFC 3875 section 4.1.2), not what a client claims."""
    assert metavars(content_length=5, CONTENT_LENGTH="99", HTTP_CONTENT_LENGTH="99")["CONTENT_LENGTH"] == "5"


def test_an_empty_body_has_a_length() -> None:
    """A body of no bytes is a body: its length is 0."""
    assert metavars(content_length=0)["CONTENT_LENGTH"] == "0"


def test_without_a_body_there_is_no_content_length() -> None:
    """CONTENT_LENGTH is not set when there is no body (RFC 3875 section 4.1.2), whatever a client claims."""
    made = metavars(content_length=None, CONTENT_LENGTH="99")
    assert "CONTENT_LENGTH" not in made


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [("text/plain; charset=utf-8", "text/plain; charset=utf-8"), ("", None), (None, None)],
)
def test_content_type_is_the_requests(content_type: str | None, expected: str | None) -> None:
    """CONTENT_TYPE is set when the request has one (RFC 3875 section 4.1.3), and never guessed."""
    assert metavars(CONTENT_TYPE=content_type, content_length=1).get("CONTENT_TYPE") == expected


# -- user, address, scheme


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"REMOTE_ADDR": "", "SERVER_PORT": ""}, {"REMOTE_ADDR": "0.0.0.0", "SERVER_PORT": "80"}),
        ({"REMOTE_ADDR": "localhost", "SERVER_PORT": "/run/x.sock"}, {"REMOTE_ADDR": "0.0.0.0", "SERVER_PORT": "80"}),
        ({"SERVER_PORT": "", "wsgi.url_scheme": "https"}, {"SERVER_PORT": "443"}),
        ({"REMOTE_PORT": "None"}, {"REMOTE_PORT": None}),
        ({"REMOTE_PORT": "1234"}, {"REMOTE_PORT": "1234"}),
        (
            {"REMOTE_ADDR": "localhost", "REMOTE_HOST": "localhost"},
            {"REMOTE_ADDR": "0.0.0.0", "REMOTE_HOST": "0.0.0.0"},
        ),
        ({"REMOTE_ADDR": "2001:db8::1"}, {"REMOTE_ADDR": "2001:db8::1", "REMOTE_HOST": "2001:db8::1"}),
        ({"SERVER_NAME": "waitress.invalid", "HTTP_HOST": ""}, {"SERVER_NAME": "localhost"}),
    ],
    ids=str,
)
def test_what_is_no_address_and_no_port_does_not_reach_the_script(given: dict, expected: dict) -> None:
    """Servers on Unix sockets give other texts; the variables are an address and digits (RFC 3875 4.1.8, 4.1.15)."""
    made = metavars(**given)
    assert {name: made.get(name) for name in expected} == expected


@pytest.mark.parametrize("name", ["AUTH_TYPE", "REMOTE_USER", "REMOTE_IDENT"])
def test_what_the_outer_stack_found_out_reaches_the_script(name: str) -> None:
    """A user comes from the server or an application around us (RFC 3875 section 4.1.11)."""
    assert metavars(**{name: "x"})[name] == "x"


@pytest.mark.parametrize("name", ["AUTH_TYPE", "REMOTE_USER", "REMOTE_IDENT", "REMOTE_PORT"])
def test_a_client_cannot_name_the_user(name: str) -> None:
    """No header field becomes one of these: HTTP_REMOTE_USER is another variable (RFC 3875 section 4.1.11)."""
    fields = {f"HTTP_{name}": "admin", f"HTTP_X_{name}": "admin", "HTTP_AUTHORIZATION": "Basic YWRtaW46"}
    assert name not in metavars(**fields, **{name: ""})
    assert name not in metavars(pass_authorization=True, **fields)


@pytest.mark.parametrize(
    ("host", "expected"),
    [(None, "192.0.2.7"), ("", "192.0.2.7"), ("client.example", "client.example")],
)
def test_remote_host_is_the_address_when_there_is_no_name(host: str | None, expected: str) -> None:
    """REMOTE_HOST falls back to REMOTE_ADDR (RFC 3875 section 4.1.9)."""
    assert metavars(REMOTE_HOST=host)["REMOTE_HOST"] == expected


@pytest.mark.parametrize(("scheme", "https"), [("https", "on"), ("http", None)])
def test_https_is_on_under_tls_only(scheme: str, https: str | None) -> None:
    """HTTPS=on says that the connection is TLS; a client's header field does not."""
    made = metavars(**{"wsgi.url_scheme": scheme, "HTTP_HTTPS": "on", "HTTP_X_FORWARDED_PROTO": "https"})
    assert (made["REQUEST_SCHEME"], made.get("HTTPS")) == (scheme, https)


def test_https_of_the_servers_environment_says_nothing_about_the_request() -> None:
    """A plain request has no HTTPS, even if its environ has one of another origin."""
    assert "HTTPS" not in metavars(HTTPS="on")


# -- search words


@pytest.mark.parametrize(
    ("query", "words"),
    [
        pytest.param("", (), id="no-query"),
        pytest.param("a", ("a",), id="one"),
        pytest.param("a+b+c", ("a", "b", "c"), id="split-at-plus"),
        pytest.param("a%20b+c", ("a b", "c"), id="decoded"),
        pytest.param("a%2Bb", ("a+b",), id="encoded-plus-does-not-split"),
        pytest.param("a%2541", ("a%41",), id="decoded-once"),
        pytest.param("a%3Db", ("a=b",), id="encoded-equals-sign"),
        pytest.param("a=b", (), id="equals-sign"),
        pytest.param("a+b=c", (), id="equals-sign-later"),
        pytest.param("=", (), id="equals-sign-alone"),
        pytest.param("-s", (), id="option"),
        pytest.param("a+-s", (), id="option-later"),
        pytest.param("%2ds", (), id="encoded-option"),
        pytest.param("%2Ds", (), id="encoded-option-in-capitals"),
        pytest.param("a+%2d", (), id="encoded-option-later"),
        pytest.param("--", (), id="two-hyphens"),
        pytest.param("a-b", ("a-b",), id="hyphen-inside"),
        pytest.param("+-s", (), id="option-after-empty-word"),
        pytest.param("a%00b", (), id="encoded-nul"),
        pytest.param("a+%00", (), id="encoded-nul-later"),
        pytest.param("a\0b", (), id="nul"),
        pytest.param("caf%C3%A9", ("café",), id="utf-8"),
        pytest.param("caf%E9", (os.fsdecode(b"caf\xe9"),), id="latin-1"),
        pytest.param("caf\xc3\xa9", ("café",), id="raw-utf-8"),
        pytest.param("$(x)+;y+`z`", ("$(x)", ";y", "`z`"), id="shell-words-stay-as-they-are"),
        pytest.param("a%0Ab", ("a\nb",), id="newline"),
        pytest.param("a%zz", ("a%zz",), id="no-encoding"),
        pytest.param("x" * MAX_SEARCH_WORDS, ("x" * MAX_SEARCH_WORDS,), id="long"),
        pytest.param("x" * (MAX_SEARCH_WORDS + 1), (), id="too-long"),
        pytest.param("a+" * 50_000, (), id="too-many"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_search_words_are_those_of_an_indexed_query(method: str, query: str, words: tuple[str, ...]) -> None:
    """A query without "=" is split at "+" and decoded once; all or none are passed (RFC 3875 4.4, CVE-2012-1823)."""
    assert search_words(method, query) == words


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PROPFIND", "get", ""])
def test_other_methods_have_no_search_words(method: str) -> None:
    """Only an indexed HTTP query, by GET or HEAD, has a command line (RFC 3875 section 4.4)."""
    assert search_words(method, "a+b") == ()


# -- what is inherited

SERVER_ENVIRONMENT = {
    "PATH": "/opt/bin:/bin",
    "LANG": "C.UTF-8",
    "LANGUAGE": "de:en",
    "LC_ALL": "C",
    "LC_CTYPE": "de_DE.UTF-8",
    "TZ": "Europe/Berlin",
    "LD_LIBRARY_PATH": "/opt/lib",
    "LD_PRELOAD": "/x.so",
    "PYTHONPATH": "/x",
    "HOME": "/root",
    "USER": "root",
    "HTTP_PROXY": "http://proxy",
    "http_proxy": "http://proxy",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "DATABASE_URL": "secret",
    "PATH_TO_SECRET": "/x",
    "MY_PATH": "/x",
    "LC_": "x",
    "LC_lower": "x",
    "WSGICGI_DIRECTORY": "/srv",
    "VIRTUAL_ENV": "/x",
}


def test_scripts_inherit_what_a_process_needs_and_nothing_else() -> None:
    """Of the server's environment comes only what finds programs and speaks the user's language (RFC 3875 9.4)."""
    expected = {"PATH", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH"}
    if sys.platform == "win32":
        expected = {"PATH", "LANG", "TZ"}
    assert inherited(SERVER_ENVIRONMENT) == {name: SERVER_ENVIRONMENT[name] for name in expected}


def test_scripts_inherit_the_variables_that_are_named() -> None:
    """``pass_env`` names more of the server's variables; one that is not there is not made."""
    more = inherited(SERVER_ENVIRONMENT, ["DATABASE_URL", "HOME", "NOT_THERE"])
    assert set(more) - set(inherited(SERVER_ENVIRONMENT)) == {"DATABASE_URL", "HOME"}
    assert more["DATABASE_URL"] == "secret"


def test_scripts_have_a_path_even_if_the_server_has_none() -> None:
    """Without PATH a script would not find ``env``, and so not start."""
    assert inherited({}) == {"PATH": DEFAULT_PATH}


def test_inherited_values_are_native_strings() -> None:
    """Bytes are shown as latin-1 (PEP 3333), so that they come out of the runner as they went in."""
    given = {"PATH": "/bin", "GREETING": "grüße 世", "RAW": os.fsdecode(b"\xff")}
    made = inherited(given, ["GREETING", "RAW"])
    assert made["GREETING"].encode("latin-1") == "grüße 世".encode()
    assert made["RAW"].encode("latin-1") == b"\xff"
