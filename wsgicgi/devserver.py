"""``wsgicgi-dev``: the local server, on waitress. One command serves a folder of scripts and shows what they do.

``python -m wsgicgi`` is the same. It takes the options of ``python -m http.server`` and begins and ends with its words.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import logging
import os
import re
import signal
import socket
import ssl
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

import waitress.channel
import waitress.parser
import waitress.server
import waitress.task
import waitress.wasyncore

from . import __version__, check, compress, panel, replay, run, tls
from .accesslog import AccessLog
from .app import Application
from .checkconfig import check_config
from .config import Config
from .errors import ConfigError
from .journal import Journal
from .loading import gather, load
from .panel import Panel
from .paths import PathRules
from .recording import Recorder
from .scripts import count_scripts

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: Requests at once; a waiting thread costs next to nothing, and slow scripts are many in class rooms.
THREADS = 64
#: Seconds between two looks of the server's loop at itself, when nothing happens.
LOOP_SECONDS = 1
#: Seconds that a terminated server gives running requests.
GRACE = 8

#: Addresses are tried so often when a free port of one turns out to be taken on another.
TRIES = 10

# RFC 9110 sections 5.1 and 5.5
_FIELD_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# What says where a message ends and what becomes of the connection is for the server to know.
_FRAMING = {"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
# Of these an answer may have several; others that an answer has are not sent twice.
_REPEATABLE = {"link", "set-cookie", "vary"}

DEMO_DIRECTORY = Path(__file__).parent / "demo"


#: What runs when the first argument is such a word; takes the arguments after it, gives the exit status.
SUBCOMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "check": check.main,
    "check-config": check_config,
    "compress": compress.main,
    "run": run.run,
    "replay": replay.replay,
}


def _subcommand(name: str, words: Sequence[str]) -> int:
    """Run one, whose reader may leave before its end, as ``head`` does."""
    try:
        status = SUBCOMMANDS[name](words)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would complain again at its end
        return 1
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in SUBCOMMANDS:
        return _subcommand(words[0], words[1:])
    options = _parser().parse_args(words)
    try:
        settings = _settings(options)
        app = Application(load(settings, config=options.config))
        served: WSGIApplication = Recorder(app, options.record) if options.record else app
        if "debug" not in gather(settings, config=options.config):
            served = ShowsCauses(served)
        fields = _extra_fields(options.header)
        channel_class = _channel_class(options)
        context = _tls_context(options)
    except ConfigError as error:
        print(f"wsgicgi-dev: {error}", file=sys.stderr)
        return 2
    try:
        listening = _listen(options.bind, options.port)
    except (OSError, OverflowError, ValueError) as error:
        print(f"wsgicgi-dev: {_cannot_listen(error, options.bind, options.port)}", file=sys.stderr)
        return 1
    sockets: dict[int, Any] = {}
    scheme = "http" if context is None else "https"
    journal = Journal()
    server = _create_server(
        Panel(AccessLog(ExtraFields(served, fields), _standard_error(), journal), journal),
        [sock if context is None else tls.listen(context, sock) for sock in listening],
        sockets,
        channel_class,
        url_scheme=scheme,
        server_name=options.bind,
        max_request_body_size=_largest_body(app.config) + 1,
    )
    print(_banner(app.config, scheme, server), flush=True)
    if options.open:
        url = _urls(scheme, server)[0]
        threading.Thread(target=_open_browser, args=(url,), name="wsgicgi --open", daemon=True).start()
    _serve(server, sockets, app)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wsgicgi-dev",
        description="Serve a directory and run its CGI scripts. For development: bind it to your own machine."
        " Takes the options of python -m http.server too.",
        epilog="Commands: wsgicgi-dev check [DIR], check-config FILE, compress DIR, run SCRIPT, replay FILE;"
        " each has --help.",
    )
    parser.add_argument("port", metavar="PORT", type=int, nargs="?", default=8000, help="default: 8000; 0: a free one")
    parser.add_argument("-b", "--bind", metavar="ADDR", default="127.0.0.1", help=_BIND_HELP)
    parser.add_argument("-d", "--directory", metavar="DIR", help="what to serve; default: the current directory")
    parser.add_argument(
        "--cgi-dir",
        metavar="/x",
        action="append",
        dest="cgi_directories",
        help="URL path of scripts, instead of /cgi-bin and /htbin; may be repeated",
    )
    parser.add_argument("--config", metavar="FILE", help="settings in TOML; options and variables win over it")
    parser.add_argument("--cgi", action="store_true", help="run scripts: so it is always, with or without this option")
    parser.add_argument(
        "-p",
        "--protocol",
        metavar="VERSION",
        default="HTTP/1.1",
        help="HTTP/1.1, the default, or HTTP/1.0: each connection ends after one answer",
    )
    parser.add_argument(
        "-H",
        "--header",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="field for every answer with status 200 or 206, unless that has such a field; may be repeated",
    )
    parser.add_argument("--tls-cert", metavar="FILE", help="speak HTTPS; the certificate and its chain (PEM)")
    parser.add_argument("--tls-key", metavar="FILE", help="the private key, if it is not in the same file")
    parser.add_argument("--tls-password-file", metavar="FILE", help="holds the password of the private key")
    parser.add_argument(
        "--warm",
        action="store_const",
        const="warm",
        dest="runner",
        help="start Python and Perl scripts from interpreters that have started already: --runner warm",
    )
    parser.add_argument("--open", action="store_true", help="open the site in a browser")
    parser.add_argument("--demo", action="store_true", help="serve a small site that shows scripts at work")
    parser.add_argument("--record", metavar="DIR", help="keep each script's request and response, for replay")
    parser.add_argument("--version", action="version", version=f"wsgicgi {__version__}")
    group = parser.add_argument_group("settings", "each may also be given as a variable such as WSGICGI_TIMEOUT")
    for item in dataclasses.fields(Config):
        if item.metadata["is_text"] and item.name not in ("directory", "cgi_directories"):
            _add_setting(group, item)
    return parser


_BIND_HELP = (
    "address; default: 127.0.0.1, so that nobody else can run your scripts; http.server's default, all interfaces,"
    " is 0.0.0.0 or ::"
)


def _add_setting(group: argparse._ArgumentGroup, item: dataclasses.Field[Any]) -> None:
    flag = "--" + item.name.replace("_", "-")
    text = item.metadata["help"].replace("%", "%%")
    if isinstance(item.default, bool):
        group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
    else:
        group.add_argument(flag, metavar=(item.metadata["unit"] or "value").upper(), help=text)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    names = [item.name for item in dataclasses.fields(Config)]
    settings = {name: value for name, value in vars(options).items() if name in names and value is not None}
    if options.demo:
        settings["directory"] = DEMO_DIRECTORY
        settings.setdefault("run_as", None)  # our own scripts, wherever root has installed them
    return settings


def _extra_fields(given: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    for name, value in given:
        if not _FIELD_NAME.fullmatch(name):
            raise ConfigError(f"--header: {name!r} is no name of a field: write for example --header X-Test 1")
        if not _FIELD_VALUE.fullmatch(value):
            raise ConfigError(f"--header: {name}: {value!r} cannot be sent: printable characters of Latin-1 can")
        if name.lower() in _FRAMING:
            raise ConfigError(f"--header: {name} tells how an answer is sent, which the server does: leave it out")
    return [(name, value) for name, value in given]


def _tls_context(options: argparse.Namespace) -> ssl.SSLContext | None:
    if options.tls_cert is not None:
        return tls.context(options.tls_cert, options.tls_key, options.tls_password_file)
    for option in ("--tls-key", "--tls-password-file"):
        if getattr(options, option[2:].replace("-", "_")) is not None:
            raise ConfigError(f"{option}: is for a certificate: name its file too, by --tls-cert")
    return None


def _channel_class(options: argparse.Namespace) -> Any:
    """The class of waitress's connections. Any: waitress has no annotations."""
    base = waitress.channel.HTTPChannel if options.tls_cert is None else tls.TLSChannel
    if options.protocol not in ("HTTP/1.0", "HTTP/1.1"):
        raise ConfigError(f"--protocol: {options.protocol!r}: expected HTTP/1.1 or HTTP/1.0")
    tasks = {"task_class": _HTTP10Task, "error_task_class": _HTTP10ErrorTask} if options.protocol == "HTTP/1.0" else {}
    return type("Channel", (base,), {"parser_class": _RequestParser, **tasks})


class _RequestParser(waitress.parser.HTTPRequestParser):  # type: ignore[misc]  # waitress has no annotations
    """Refuses a body with two lengths: whoever stands before us may have taken the other (RFC 9112 section 6.1).

    A client that wants the end of the connection may say so with other words beside it (section 9.6), as Perl's LWP
    does (``TE, close``); waitress looks for the one word.
    """

    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        if "close" in (word.strip() for word in self.headers.get("CONNECTION", "").lower().split(",")):
            self.headers["CONNECTION"] = "close"
        if self.chunked and "CONTENT_LENGTH" in self.headers:
            raise waitress.parser.ParsingError("Content-Length and Transfer-Encoding in one request")


class _HTTP10:
    """An answer in HTTP/1.0, whatever the request: without chunks, and the connection ends with it."""

    version: str
    request: Any

    def build_response_header(self) -> Any:
        self.version = "1.0"  # scripts have been told the request's own version by now
        self.request.headers["CONNECTION"] = "close"
        return super().build_response_header()  # type: ignore[misc]  # waitress's Task has it


class _HTTP10Task(_HTTP10, waitress.task.WSGITask):  # type: ignore[misc]  # waitress has no annotations
    pass


class _HTTP10ErrorTask(_HTTP10, waitress.task.ErrorTask):  # type: ignore[misc]
    pass


def _listen(host: str, port: int) -> list[socket.socket]:
    """Bind a socket to each address of a host that this machine has, all to one port.

    Raises:
        OSError: None can be had.
        OverflowError: There is no such port.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    for _ in range(TRIES - 1):
        try:
            return _bind_all(addresses, port)
        except OSError as error:
            if port or error.errno != errno.EADDRINUSE:
                raise
    return _bind_all(addresses, port)


def _bind_all(addresses: Sequence[tuple[int, tuple[Any, ...]]], port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    refusal: OSError | None = None
    with contextlib.ExitStack() as opened:
        for family, (address, _, *rest) in addresses:
            try:
                sock = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
                _bind(sock, (address, port, *rest))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                refusal = error  # "localhost" may mean an address that is not in use here
                continue
            port = sock.getsockname()[1]
            sockets.append(sock)
        if not sockets and refusal is not None:
            raise refusal
        opened.pop_all()
    return sockets


def _bind(sock: socket.socket, address: tuple[Any, ...]) -> None:
    if sys.platform != "win32":  # there it would let others take the port away
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        # as http.server does: :: is for both kinds of addresses
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
    sock.bind(address)


def _create_server(
    app: WSGIApplication,
    listening: Sequence[socket.socket],
    sockets: dict[int, Any],
    channel_class: Any,
    **adjustments: Any,
) -> Any:
    """A waitress server, whose sockets are put into the mapping.

    Any: one class for a single socket, another for several, with nothing in common.
    """
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    server = waitress.server.create_server(
        app,
        map=sockets,
        sockets=listening,
        threads=THREADS,
        ident="wsgicgi",
        connection_limit=2000,
        asyncore_use_poll=True,
        log_socket_errors=False,
        **adjustments,
        clear_untrusted_proxy_headers=False,  # by them the panel sees that a proxy asks for another
    )
    for each in sockets.values():
        if hasattr(each, "channel_class"):
            each.channel_class = channel_class
    return server


def _largest_body(config: Config) -> int:
    """The most that some script may take: the server itself must not refuse it."""
    return max([config.max_body_bytes, *(int(part.settings.get("max_body_bytes", 0)) for part in config.scripts)])


def _cannot_listen(error: Exception, host: str, port: int) -> str:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return f"port {port} of {host} is in use. Give another, for example: wsgicgi-dev {port + 1}"
    if number == errno.EACCES:
        return f"port {port} needs more rights than you have. Give one above 1023, for example: wsgicgi-dev 8000"
    return f"cannot listen on port {port} of {host!r}: {getattr(error, 'strerror', None) or error}"


def _urls(scheme: str, server: Any) -> list[str]:
    listening = getattr(server, "effective_listen", None) or [(server.effective_host, server.effective_port)]
    return [f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/" for host, port in listening]


def _banner(config: Config, scheme: str, server: Any) -> str:
    lines = []
    for url in _urls(scheme, server):
        host, _, port = url.partition("//")[2].rstrip("/").rpartition(":")
        lines.append(f"Serving {scheme.upper()} on {host.strip('[]')} port {port} ({url}) ...")
    lines.append(f"  directory: {config.directory}")
    rules = PathRules.of(config)
    for path in config.cgi_directories:
        there = (config.directory / path[1:]).is_dir()
        number = count_scripts(rules, path) if there else 0
        what = f"{number} runnable script{'' if number == 1 else 's'}" if there else "no such directory"
        lines.append(f"  {path}: {what}")
    lines.append(f"  {panel.PATH}: the last script runs, for browsers on this machine")
    return "\n".join([*lines, "Stop with Ctrl-C."])


def _standard_error() -> TextIO:
    """Where lines go: nowhere under ``pythonw.exe`` and without descriptor 2, where there is none."""
    return sys.stderr or open(os.devnull, "w", encoding="utf-8")  # as long as the server


def _open_browser(url: str) -> None:
    """Show the site in the user's browser; a browser in the terminal stays there until it is left."""
    for wildcard in ("//0.0.0.0:", "//[::]:"):
        url = url.replace(wildcard, "//localhost:")
    if not webbrowser.open(url):
        print(f"wsgicgi-dev: --open: no browser was found. Open {url} in one yourself.", file=sys.stderr)


def _serve(server: Any, sockets: dict[int, Any], app: Application) -> None:
    """Run until SIGINT, which ends scripts at once, or SIGTERM, which lets requests finish first."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # who presses it again does not want to wait
        print("\nKeyboard interrupt received, exiting.", flush=True)
        app.close()
        raise KeyboardInterrupt

    def terminate(number: int, frame: FrameType | None) -> None:
        raise SystemExit

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, terminate)
    try:
        waitress.wasyncore.loop(timeout=LOOP_SECONDS, map=sockets, use_poll=True)
    except (SystemExit, KeyboardInterrupt):
        with contextlib.suppress(KeyboardInterrupt):
            server.task_dispatcher.shutdown(timeout=GRACE)
    finally:
        # scripts first, so that the threads which wait for them come to their end before their sockets are closed
        app.close()
        server.task_dispatcher.shutdown(timeout=GRACE)
        server.close()


class ShowsCauses:
    """Lets people see why a script failed, unless ``debug`` was said or denied.

    A client that says nothing of itself (no User-Agent, no Accept) is no browser and no tool of a person's: it gets the
    error page of every server.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self.app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        environ["wsgicgi.debug"] = bool(environ.get("HTTP_USER_AGENT") or environ.get("HTTP_ACCEPT"))
        return self.app(environ, start_response)


class ExtraFields:
    """Adds header fields to successful answers: files, listings and scripts' own, whole or in part."""

    def __init__(self, app: WSGIApplication, fields: Sequence[tuple[str, str]]) -> None:
        self.app = app
        self._fields = fields

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        if not self._fields:
            return self.app(environ, start_response)

        def adding(status: str, fields: list[tuple[str, str]], exc_info: Any = None) -> Any:
            if status[:3] in ("200", "206"):
                there = {name.lower() for name, _ in fields} - _REPEATABLE
                fields = [*fields, *((name, value) for name, value in self._fields if name.lower() not in there)]
            return start_response(status, fields, exc_info) if exc_info else start_response(status, fields)

        return self.app(environ, adding)
