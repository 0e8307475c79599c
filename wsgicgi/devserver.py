"""``wsgicgi-dev``: the local server. One command serves a folder of scripts and shows what they do.

``python -m wsgicgi`` is the same. It takes the options of ``python -m http.server`` and begins and ends with its words.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import ssl
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from . import __version__, check, compress, devhttp, panel, replay, run, tls
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
        channels = devhttp.channel_class(protocol=options.protocol, over_tls=options.tls_cert is not None)
        context = _tls_context(options)
    except ConfigError as error:
        print(f"wsgicgi-dev: {error}", file=sys.stderr)
        return 2
    try:
        listening = devhttp.listen(options.bind, options.port)
    except (OSError, OverflowError, ValueError) as error:
        print(f"wsgicgi-dev: {devhttp.cannot_listen(error, options.bind, options.port)}", file=sys.stderr)
        return 1
    sockets: dict[int, Any] = {}
    scheme = "http" if context is None else "https"
    journal = Journal()
    server = devhttp.create_server(
        Panel(AccessLog(ExtraFields(served, fields), _standard_error(), journal), journal),
        [sock if context is None else tls.listen(context, sock) for sock in listening],
        sockets,
        channels,
        url_scheme=scheme,
        server_name=options.bind,
        max_request_body_size=_largest_body(app.config) + 1,
    )
    print(_banner(app.config, scheme, server), flush=True)
    if options.open:
        url = devhttp.urls(scheme, server)[0]
        threading.Thread(target=_open_browser, args=(url,), name="wsgicgi --open", daemon=True).start()
    devhttp.serve(server, sockets, app.close)
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


def _largest_body(config: Config) -> int:
    """The most that some script may take: the server itself must not refuse it."""
    return max([config.max_body_bytes, *(int(part.settings.get("max_body_bytes", 0)) for part in config.scripts)])


def _banner(config: Config, scheme: str, server: Any) -> str:
    lines = []
    for url in devhttp.urls(scheme, server):
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
