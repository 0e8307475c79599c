"""``wsgicgi-dev``: the local server, on waitress. One command serves a folder of scripts and shows what they do."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

import waitress.server
import waitress.wasyncore

from . import __version__, check, replay
from .app import Application
from .config import Config, load
from .errors import ConfigError, printable
from .paths import PathRules, count_scripts, shown
from .replay import Recorder

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: Requests at once; a waiting thread costs next to nothing, and slow scripts are many in class rooms.
THREADS = 64
#: Seconds between two looks of the server's loop at itself, when nothing happens.
LOOP_SECONDS = 1
#: Seconds that a terminated server gives running requests.
GRACE = 8

#: Sub-commands: each takes the words behind its name and gives the exit status.
COMMANDS = {"check": check.main, "run": replay.run, "replay": replay.replay}

DEMO_DIRECTORY = Path(__file__).parent / "demo"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in COMMANDS:
        return COMMANDS[words[0]](words[1:])
    options = _parser().parse_args(words)
    try:
        app = Application(load(_settings(options), defaults={"debug": True}))
        served = Recorder(app, options.record) if options.record else app
    except ConfigError as error:
        print(f"wsgicgi-dev: {error}", file=sys.stderr)
        return 2
    try:
        sockets: dict[int, Any] = {}
        server = _create_server(app, served, options.bind, options.port, sockets)
    except (OSError, OverflowError, ValueError) as error:
        print(f"wsgicgi-dev: {_cannot_listen(error, options.bind, options.port)}", file=sys.stderr)
        return 1
    print(_banner(app.config, _urls(server)), flush=True)
    _serve(server, sockets, app)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wsgicgi-dev",
        description="Serve a directory and run its CGI scripts. For development: bind it to your own machine.",
        epilog="Commands: wsgicgi-dev check [DIR], wsgicgi-dev run SCRIPT, wsgicgi-dev replay FILE; each has --help.",
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
    parser.add_argument("--demo", action="store_true", help="serve a small site that shows scripts at work")
    parser.add_argument("--record", metavar="DIR", help="keep each script's request and response, for replay")
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


def _create_server(app: Application, served: WSGIApplication, host: str, port: int, sockets: dict[int, Any]) -> Any:
    """A waitress server, whose sockets are put into the mapping.

    Any: one class for a single socket, another for several, with nothing in common.
    """
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    return waitress.server.create_server(
        AccessLog(served, sys.stderr),
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
    return "\n".join([*lines, "Stop with Ctrl-C."])


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


class AccessLog:
    """Writes a line for each request: method, target, status, bytes of body, time, and how a script ended."""

    def __init__(self, app: WSGIApplication, stream: TextIO) -> None:
        self.app = app
        self._stream = stream

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        begin = time.monotonic()
        seen: dict[str, str] = {}

        def recording(status: str, fields: list[tuple[str, str]], exc_info: Any = None) -> Any:
            seen.update({name.lower(): value for name, value in fields}, status=status[:3])
            return start_response(status, fields, exc_info) if exc_info else start_response(status, fields)

        app_iter = self.app(environ, recording)
        if isinstance(app_iter, environ["wsgi.file_wrapper"]):
            # the server sends the file by itself, when it likes
            self._write(environ, seen, begin, int(seen.get("content-length", 0)))
            return app_iter  # type: ignore[no-any-return]  # isinstance with what an environ holds makes it Any
        return _Counted(app_iter, lambda size: self._write(environ, seen, begin, size))

    def _write(self, environ: WSGIEnvironment, seen: dict[str, str], begin: float, size: int) -> None:
        target = printable(shown(environ.get("REQUEST_URI", "")))
        took = (time.monotonic() - begin) * 1000
        parts = [environ["REQUEST_METHOD"], target, seen.get("status", "-"), f"{size} B", f"{took:.0f} ms"]
        exchange = environ.get("wsgicgi.exchange")
        if exchange is not None:
            parts.append("still running" if exchange.exit_status is None else str(exchange.exit_status))
        self._stream.write(f"{time.strftime('%H:%M:%S')} {'  '.join(parts)}\n")
        self._stream.flush()


class _Counted:
    """An ``app_iter`` that counts its bytes and tells their number once it is closed."""

    def __init__(self, app_iter: Iterable[bytes], tell: Any) -> None:
        self._app_iter = app_iter
        self._tell = tell
        self._size = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._app_iter:
            self._size += len(piece)
            yield piece

    def close(self) -> None:
        """Close the counted one too (PEP 3333)."""
        close = getattr(self._app_iter, "close", None)
        if close is not None:
            close()
        self._tell(self._size)
