"""``wsgicgi-dev``: the local server, on waitress. One command serves a folder of scripts and shows what they do."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import logging
import signal
import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import waitress.server
import waitress.wasyncore

from . import __version__, panel
from .accesslog import AccessLog
from .app import Application, create_app
from .config import Config
from .errors import ConfigError
from .journal import Journal
from .panel import Panel
from .paths import PathRules, count_scripts

#: Requests at once; a waiting thread costs next to nothing, and slow scripts are many in class rooms.
THREADS = 64
#: Seconds between two looks of the server's loop at itself, when nothing happens.
LOOP_SECONDS = 1
#: Seconds that a terminated server gives running requests.
GRACE = 8

DEMO_DIRECTORY = Path(__file__).parent / "demo"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    options = _parser().parse_args(arguments)
    try:
        app = create_app(**_settings(options))
    except ConfigError as error:
        print(f"wsgicgi-dev: {error}", file=sys.stderr)
        return 2
    try:
        sockets: dict[int, Any] = {}
        server = _create_server(app, options.bind, options.port, sockets)
    except (OSError, OverflowError, ValueError) as error:
        print(f"wsgicgi-dev: {_cannot_listen(error, options.bind, options.port)}", file=sys.stderr)
        return 1
    print(_banner(app.config, _urls(server)), flush=True)
    if options.open:
        threading.Thread(target=_open_browser, args=(_urls(server)[0],), name="wsgicgi --open", daemon=True).start()
    _serve(server, sockets, app)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wsgicgi-dev",
        description="Serve a directory and run its CGI scripts. For development: bind it to your own machine.",
    )
    parser.add_argument("port", metavar="PORT", type=int, nargs="?", default=8000, help="default: 8000; 0: a free one")
    parser.add_argument("-b", "--bind", metavar="ADDR", default="127.0.0.1", help="address; default: 127.0.0.1")
    parser.add_argument("-d", "--directory", metavar="DIR", help="what to serve; default: the current directory")
    parser.add_argument(
        "--cgi-dir",
        metavar="/x",
        action="append",
        dest="cgi_directories",
        help="URL path of scripts, instead of /cgi-bin and /htbin; may be repeated",
    )
    parser.add_argument("--open", action="store_true", help="open the site in a browser")
    parser.add_argument("--demo", action="store_true", help="serve a small site that shows scripts at work")
    parser.add_argument("--version", action="version", version=f"wsgicgi {__version__}")
    group = parser.add_argument_group("settings", "each may also be given as a variable such as WSGICGI_TIMEOUT")
    for item in dataclasses.fields(Config):
        if item.name not in ("directory", "cgi_directories"):
            _add_setting(group, item)
    return parser


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
    return settings


def _create_server(app: Application, host: str, port: int, sockets: dict[int, Any]) -> Any:
    """A waitress server, whose sockets are put into the mapping.

    Any: one class for a single socket, another for several, with nothing in common.
    """
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    journal = Journal()
    return waitress.server.create_server(
        Panel(AccessLog(app, sys.stderr, journal), journal),
        map=sockets,
        host=host,
        port=port,
        threads=THREADS,
        ident="wsgicgi",
        server_name=host,
        connection_limit=2000,
        asyncore_use_poll=True,
        log_socket_errors=False,
        max_request_body_size=app.config.max_body_bytes + 1,
        clear_untrusted_proxy_headers=False,  # by them the panel sees that a proxy asks for another
    )


def _cannot_listen(error: Exception, host: str, port: int) -> str:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return f"port {port} of {host} is in use. Give another, for example: wsgicgi-dev {port + 1}"
    if number == errno.EACCES:
        return f"port {port} needs more rights than you have. Give one above 1023, for example: wsgicgi-dev 8000"
    return f"cannot listen on port {port} of {host!r}: {error}"


def _urls(server: Any) -> list[str]:
    listening = getattr(server, "effective_listen", None) or [(server.effective_host, server.effective_port)]
    return [f"http://{f'[{host}]' if ':' in host else host}:{port}/" for host, port in listening]


def _banner(config: Config, urls: list[str]) -> str:
    lines = [f"Serving {config.directory}"]
    lines += [f"  {url}" for url in urls]
    rules = PathRules.of(config)
    for path in config.cgi_directories:
        there = (config.directory / path[1:]).is_dir()
        number = count_scripts(rules, path) if there else 0
        what = f"{number} runnable script{'' if number == 1 else 's'}" if there else "no such directory"
        lines.append(f"  {path}: {what}")
    lines.append(f"  {panel.PATH}: the last script runs, for browsers on this machine")
    return "\n".join([*lines, "Stop with Ctrl-C."])


def _open_browser(url: str) -> None:
    """Show the site in the user's browser; a browser in the terminal stays there until it is left."""
    for wildcard in ("//0.0.0.0:", "//[::]:"):
        url = url.replace(wildcard, "//localhost:")
    if not webbrowser.open(url):
        print(f"wsgicgi-dev: --open: no browser was found. Open {url} in one yourself.", file=sys.stderr)


def _serve(server: Any, sockets: dict[int, Any], app: Application) -> None:
    """Run until SIGINT, which ends scripts at once, or SIGTERM, which lets requests finish first."""

    def interrupt(number: int, frame: FrameType | None) -> None:
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
        server.task_dispatcher.shutdown(timeout=GRACE)
    finally:
        # scripts first, so that the threads which wait for them come to their end before their sockets are closed
        app.close()
        server.task_dispatcher.shutdown(timeout=GRACE)
        server.close()
