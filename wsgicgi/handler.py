"""``CGIHTTPRequestHandler``, as ``http.server`` had it up to Python 3.14, on the gateway of ``CGIMiddleware``.

What ``http.server`` still has is inherited: parsing, files, listings, logging. What it removed is here: finding a
script (``is_cgi``, ``cgi_info``, ``translate_path``) and running it. ``run_cgi`` shows the line: a ``Script`` and an
environ, the gateway, and the answer through ``send_response``, ``send_header``, ``end_headers`` and ``wfile``, so that
whatever a subclass overrides applies to scripts too. Requests are checked before a subclass sees them (``connection``).

``cgi_info`` is a directory and a rest, written as a URL is: percent-encoded or not, it is decoded once, in ``run_cgi``.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import functools
import http.server
import mimetypes
import os
import re
import socket
import stat
import sys
import urllib.parse
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar

from . import metavars, targets
from .config import Config
from .errors import GatewayError, NotFound, TooManyRedirects
from .exchange import Exchange
from .framing import BodyStream, RequestInput, find_framing, is_http11
from .gateway import (
    MAX_LOCAL_REDIRECTS,
    NOT_REDIRECTED,
    SOFTWARE,
    Gateway,
    answer_fields,
    has_body,
)
from .handlerpaths import Refusal, ScriptPaths, executable
from .loading import load
from .response import Kind, ResponseHead
from .runners import RUNNERS, Runner
from .scripts import Script
from .urlpaths import canonical

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["CGIHTTPRequestHandler", "executable", "nobody_uid", "test"]

_TOKEN = re.compile(r"[!#$%&'*+\-.^`|~0-9A-Za-z]+")  # without "_", by which "A_B" could stand for "A-B"

#: Variables that scripts of the original always had, empty where a request has no such field.
_ALWAYS = (
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "HTTP_ACCEPT",
    "HTTP_COOKIE",
    "HTTP_REFERER",
    "HTTP_USER_AGENT",
    "PATH_INFO",
)


@functools.cache
def nobody_uid() -> int:
    """The user id of ``nobody``; without such a user one above all others; -1 where there are no users."""
    try:
        import pwd  # noqa: PLC0415  # not on Windows
    except ImportError:
        return -1
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return max(user.pw_uid for user in pwd.getpwall()) + 1


def _url_collapse_path(path: str) -> str:
    """Decode a URL's path once and take empty and dot segments out of it; its last segment and its query stay.

    The result has a directory and a last segment: ``/`` gives ``//``, ``/a`` gives ``//a``, ``/a/b`` stays as it is.

    Raises:
        IndexError: There are more ``..`` than directories.
    """
    path, mark, query = path.partition("?")
    *names, last = urllib.parse.unquote(path).split("/")
    if last in (".", ".."):
        names.append(last)
        last = ""
    kept: list[str] = []
    for name in names:
        if name == "..":
            kept.pop()
        elif name not in ("", "."):
            kept.append(name)
    return f"/{'/'.join(kept)}/{last}{mark + query if query else ''}"


class CGIHTTPRequestHandler(ScriptPaths):
    """Serves files, and runs the scripts that are below ``cgi_directories``.

    Args:
        request: The connection.
        client_address: Where it comes from.
        server: The server that has taken it.
        directory: What "/" maps to; default: the current directory.
        extra_response_headers: Pairs of names and values for every answer with status 200, as in Python 3.15.

    Attributes:
        cgi_directories: URL paths below which every file is a script; ``/`` stands for the files of the top level.
        have_fork: Scripts are run directly and must be executable. Without it, Python scripts are run by this Python,
            and need not be.
        cgi_settings: Settings of the gateway, as in ``Config``, such as ``{"timeout": 10}``.
        trust_authorization: Believe the user name in an Authorization field, which nobody has verified here.
        default_content_type: The type of files that tell none, as in Python 3.15.
    """

    server_version: str = SOFTWARE
    rbufsize = 0  # what follows the head stays in the socket, for those who read from there
    cgi_settings: ClassVar[Mapping[str, object]] = {}
    trust_authorization: bool = False
    default_content_type: str = "application/octet-stream"

    _redirects = 0
    _target: str | None = None

    # -- the interface of the original

    def do_POST(self) -> None:  # noqa: N802  # by that name it is found
        """Run a script; nothing else takes a POST."""
        is_script = self._ask_is_cgi()
        if is_script:
            self.run_cgi()
        elif is_script is not None:
            self.send_error(HTTPStatus.NOT_IMPLEMENTED, "Can only POST to CGI scripts")

    def send_head(self) -> Any:
        """Answer GET and HEAD: a script's answer goes out here; of a file the head does, and the file is given back."""
        is_script = self._ask_is_cgi()
        if is_script is None:
            return None
        return self.run_cgi() if is_script else self._send_file_head()

    def run_cgi(self) -> None:
        """Run the script that ``cgi_info`` names, and send its answer."""
        try:
            script, query = self._find_script()
            environ = self._environ(script, query)
            exchange, head, length = self._gateway().run(environ, script)
        except Refusal as refusal:
            self.send_error(refusal.status, str(refusal))
            return
        except GatewayError as error:
            inquiry = environ.get("wsgicgi.inquiry")
            self._refuse(error if inquiry is None else inquiry.judge(error))
            if inquiry is not None:
                inquiry.close()
            return
        finally:
            self._close_after_cut_body()
        with contextlib.closing(exchange):
            if head.kind is Kind.LOCAL_REDIRECT:
                exchange.leave()
            else:
                self._answer(exchange, head, environ, length)
        status = exchange.exit_status
        if status is not None and not status.is_success:
            self.log_error("CGI script exit code %d", -status.signal or status.code)
        if head.kind is Kind.LOCAL_REDIRECT:
            self._follow(head.location)

    def parse_request(self) -> bool:
        """Parse a request's head; what belongs to the last request is forgotten first."""
        if self._own_cgi_info is not None and self.__dict__.get("cgi_info") is self._own_cgi_info:
            del self.cgi_info
        self._own_cgi_info = None
        self._redirects = 0
        self._target = None
        return super().parse_request()

    # -- files

    def guess_type(self, path: Any) -> str:
        """Guess the type of a file from its name."""
        guessed = super().guess_type(path)
        suffix = os.path.splitext(path)[1]
        is_known = {suffix, suffix.lower()} & set(self.extensions_map) or mimetypes.guess_type(os.fspath(path))[0]
        return guessed if is_known else self.default_content_type

    def list_directory(self, path: Any) -> Any:
        """List a directory. Its title is made from the path, which may not be fit for that."""
        with contextlib.suppress(UnicodeDecodeError):
            try:
                urllib.parse.unquote(self.path, errors="surrogatepass").encode(errors="surrogateescape")
            except UnicodeEncodeError:
                self.path = urllib.parse.quote(urllib.parse.unquote(self.path, errors="replace"), safe="/?=&")
        return super().list_directory(path)

    def _send_file_head(self) -> Any:
        origin, self.path = targets.origin_form(self.path)
        path, query = targets.split_query(self.path)
        place = os.fspath(self.translate_path(self.path))
        try:
            mode = os.stat(place).st_mode
            decoded = canonical("/" + targets.decode(path))
        except (OSError, ValueError, NotFound):
            mode, decoded = 0, ""
        is_file = stat.S_ISREG(mode) and (self._has_own_map() or not decoded.endswith("/"))
        if not is_file and not stat.S_ISDIR(mode):
            self.send_error(HTTPStatus.NOT_FOUND, "File not found")
            return None
        if not is_file and not path.endswith("/"):
            return self._redirect_to_slash(origin, path, query)
        if is_file and self._is_script_by_its_plain_name(place, query):
            return self.run_cgi()
        if self._is_kept_back(place, is_file=is_file):
            self.send_error(HTTPStatus.FORBIDDEN)
            return None
        # what was looked at is what is served, and a text, which a subclass's translate_path need not give
        had = self.__dict__.get("translate_path")
        self.__dict__["translate_path"] = lambda path: place
        try:
            return super().send_head()
        finally:
            del self.__dict__["translate_path"]
            if had is not None:
                self.__dict__["translate_path"] = had

    def _redirect_to_slash(self, origin: str, path: str, query: str) -> None:
        # Browsers take "\" for "/", "//host" for another host, and what is before a first ":" for a scheme.
        path = path.replace("\\", "%5C")
        if ":" in path.partition("/")[0]:
            path = "/" + path
        self.send_response(HTTPStatus.MOVED_PERMANENTLY)
        self.send_header("Location", f"{origin}{path}/{'?' + query if query else ''}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    # -- scripts

    def _ask_is_cgi(self) -> bool | None:
        """Ask ``is_cgi``; None when it has rejected the path, which is then answered."""
        try:
            return bool(self.is_cgi())
        except (IndexError, ValueError, NotFound):
            self.send_error(HTTPStatus.NOT_FOUND, "File not found")
            return None

    def _config(self) -> Config:
        return load({"directory": os.sep, **self.cgi_settings})

    def _gateway(self) -> Gateway:
        base = {**dict.fromkeys(_ALWAYS, ""), **metavars.inherited_whole(os.environ)}
        try:
            cwd = os.getcwd()
        except OSError:  # it was removed
            cwd = None
        config = self._config()
        return Gateway(config, _shared_runner(config.runner), base=base, cwd=cwd, software=self.version_string())

    def _environ(self, script: Script, query: str) -> WSGIEnvironment:
        """This request as the gateway takes it (PEP 3333)."""
        target = self._target or _raw_target(self)
        host, port = _own_address(self.server)
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.command,
            "SCRIPT_NAME": "",
            "PATH_INFO": script.script_path + script.extra_path,
            "QUERY_STRING": targets.wire(query),
            "REQUEST_URI": target,
            "SERVER_NAME": host,
            "SERVER_PORT": port,
            "SERVER_PROTOCOL": self.request_version,
            "wsgi.url_scheme": "https" if self._is_encrypted() else "http",
            "wsgi.errors": _Log(self),
            "wsgicgi.socket": self._socket(),
            **self._field_variables(),
            **self._body_variables(),
        }
        if isinstance(self.client_address, tuple):
            environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = map(str, self.client_address[:2])
        origin = targets.ABSOLUTE_FORM.fullmatch(target)
        if origin:
            environ["HTTP_HOST"] = origin[2].rpartition("@")[2]
        if self.trust_authorization:
            environ.update(_user(self.headers.get("Authorization", "")))
        return environ

    def _field_variables(self) -> dict[str, str]:
        variables: dict[str, str] = {}
        for name, value in self.headers.items():
            if not _TOKEN.fullmatch(name):
                continue
            variable = "HTTP_" + name.upper().replace("-", "_")
            text = targets.wire(str(value).strip(" \t"))
            if variable in variables:
                text = variables[variable] + ("; " if variable == "HTTP_COOKIE" else ",") + text
            variables[variable] = text
        if "HTTP_CONTENT_TYPE" in variables:
            variables["CONTENT_TYPE"] = variables.pop("HTTP_CONTENT_TYPE")
        variables.pop("HTTP_CONTENT_LENGTH", None)
        variables.pop("HTTP_TRANSFER_ENCODING", None)
        return variables

    def _body_variables(self) -> dict[str, Any]:
        """The body. With a ``timeout`` of the handler's, a script gets what came in time, as in Python 3.14."""
        if not isinstance(self.rfile, RequestInput):  # a subclass parses requests by itself
            self.rfile = RequestInput(self.rfile)
            self.rfile.begin_body(find_framing(self.headers, self.request_version))
        framing = self.rfile.framing
        is_patient = self.timeout is not None
        timeout = self.timeout if self.timeout is not None else self._config().timeout
        stream = BodyStream(self.rfile, sock=self._socket(), timeout=timeout, is_patient=is_patient)
        variables: dict[str, Any] = {"wsgi.input": stream, "wsgi.input_terminated": True}
        if framing.length is not None and not (is_patient and framing.length):
            variables["CONTENT_LENGTH"] = str(self.rfile.left)
        return variables

    def _answer(self, exchange: Exchange, head: ResponseHead, environ: WSGIEnvironment, length: int | None) -> None:
        fields = answer_fields(environ, head, length)
        with_body = has_body(environ, head)
        has_length = any(name == "Content-Length" for name, _ in fields)
        is_11 = is_http11(self.protocol_version)
        # a body that is caught in a file of a subclass's stays as it is
        in_chunks = is_11 and is_http11(self.request_version) and self.wfile is self._own_wfile
        in_chunks = in_chunks and with_body and not has_length
        self.send_response(head.status, head.reason)
        for name, value in fields:
            self.send_header(name, value)
        if in_chunks:
            self.send_header("Transfer-Encoding", "chunked")
        elif with_body and not has_length:
            self.close_connection = True
            if is_11:
                self.send_header("Connection", "close")
        self.end_headers()
        exchange.answer(head, has_body=with_body)
        for piece in exchange:
            if piece:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if in_chunks else piece)
        if in_chunks:
            self.wfile.write(b"0\r\n\r\n")

    def _follow(self, location: str) -> None:
        """Answer with what another URL of ours names (RFC 3875 section 6.2.2)."""
        self._redirects += 1
        if self._redirects > MAX_LOCAL_REDIRECTS:
            self._refuse(TooManyRedirects(f"{self.path}: more than {MAX_LOCAL_REDIRECTS} local redirects"))
            return
        given = self.path, self.command, self.headers, self._target
        self.path = self._target = location
        self.command = "HEAD" if self.command == "HEAD" else "GET"
        self.headers = copy.copy(self.headers)
        for variable in NOT_REDIRECTED:
            del self.headers[variable.removeprefix("HTTP_").replace("_", "-")]
        if self._own_cgi_info is self.cgi_info:
            del self.cgi_info
        try:
            file = self.send_head()
            if file:
                with contextlib.closing(file):
                    if self.command != "HEAD":
                        self.copyfile(file, self.wfile)
        finally:
            self.path, self.command, self.headers, self._target = given


class _Log:
    """``wsgi.errors``: what the gateway and scripts say goes to ``log_error``."""

    def __init__(self, handler: CGIHTTPRequestHandler) -> None:
        self._handler = handler

    def write(self, lines: str) -> None:
        for line in lines.splitlines():
            self._handler.log_error("%s", line)

    def flush(self) -> None:
        pass


@functools.cache
def _shared_runner(name: str) -> Runner:
    """One runner of a kind for all requests of this process."""
    return RUNNERS[name]()


def _raw_target(handler: CGIHTTPRequestHandler) -> str:
    """The target as the client sent it."""
    words = getattr(handler, "requestline", "").split()
    return words[1] if len(words) > 1 else handler.path


def _own_address(server: Any) -> tuple[str, str]:
    """Name and port of a server; only those of ``http.server`` tell them."""
    address = getattr(server, "server_address", None)
    host, port = address[:2] if isinstance(address, tuple) else ("localhost", 80)
    return str(getattr(server, "server_name", host)), str(getattr(server, "server_port", port))


def _user(authorization: str) -> dict[str, str]:
    """Who an Authorization field says that the client is."""
    scheme, _, credentials = authorization.strip(" \t").partition(" ")
    if not credentials:
        return {}
    variables = {"AUTH_TYPE": scheme}
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            user, colon, _ = base64.b64decode(credentials.strip()).decode("latin-1").partition(":")
            if colon:
                variables["REMOTE_USER"] = user
    return variables


def test(  # noqa: PLR0917  # the original's signature
    HandlerClass: Any = CGIHTTPRequestHandler,  # noqa: N803
    ServerClass: Any = http.server.ThreadingHTTPServer,  # noqa: N803
    protocol: str = "HTTP/1.0",
    port: int = 8000,
    bind: str | None = None,
    tls_cert: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
    tls_password: Any = None,
) -> None:
    """Run a server until it is interrupted.

    Args:
        HandlerClass: What answers.
        ServerClass: What listens.
        protocol: ``HTTP/1.1`` keeps connections open.
        port: Where to listen.
        bind: At which address; default: at all.
        tls_cert: A file with a certificate and the chain above it, to speak HTTPS.
        tls_key: A file with its key, if that is elsewhere.
        tls_password: The key's password, or what gives it.
    """
    ServerClass.address_family, address = _best_family(bind, port)
    HandlerClass.protocol_version = protocol
    options = {}
    if tls_cert and hasattr(http.server, "HTTPSServer") and issubclass(ServerClass, http.server.HTTPSServer):
        options = {"certfile": tls_cert, "keyfile": tls_key, "password": tls_password}
    with ServerClass(address, HandlerClass, **options) as server:
        if tls_cert and not options:
            server.socket = _encrypted(server.socket, tls_cert, tls_key, tls_password)
        host, port = server.socket.getsockname()[:2]
        scheme = "https" if tls_cert else "http"
        url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"
        print(f"Serving {scheme.upper()} on {host} port {port} ({url}) ...")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nKeyboard interrupt received, exiting.")
            sys.exit(0)


def _best_family(host: str | None, port: int) -> tuple[socket.AddressFamily, Any]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return found[0][0], found[0][4]


def _encrypted(listening: socket.socket, certificate: Any, key: Any, password: Any) -> socket.socket:
    """A listening socket whose connections speak TLS, each in the thread that serves it."""
    import ssl  # noqa: PLC0415  # a Python may be without it

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key, password)
    context.set_alpn_protocols(["http/1.1"])
    return context.wrap_socket(listening, server_side=True, do_handshake_on_connect=False)
