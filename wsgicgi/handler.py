"""``CGIHTTPRequestHandler``, as ``http.server`` had it up to Python 3.14, on the gateway of ``CGIMiddleware``.

What ``http.server`` still has is inherited: parsing, files, listings, logging. What it removed is here: finding a
script (``is_cgi``, ``cgi_info``, ``translate_path``) and running it. ``run_cgi`` shows the line: a ``Script`` and an
environ, the gateway, and the answer through ``send_response``, ``send_header``, ``end_headers`` and ``wfile``, so that
whatever a subclass overrides applies to scripts too. Requests are checked before a subclass sees them (``connection``);
what they are to the gateway, ``handlerenviron`` says.

``cgi_info`` is a directory and a rest, written as a URL is: percent-encoded or not, it is decoded once, in ``run_cgi``.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import http.server
import mimetypes
import os
import socket
import stat
import sys
import urllib.parse
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from . import metavars, targets
from .errors import GatewayError, NotFound, TooManyRedirects
from .exchange import Exchange
from .framing import is_http11
from .gateway import (
    MAX_LOCAL_REDIRECTS,
    NOT_REDIRECTED,
    SOFTWARE,
    Gateway,
    answer_fields,
    has_body,
)
from .handlerenviron import ScriptRequests
from .handlerpaths import Refusal, executable
from .response import Kind, ResponseHead
from .runners import RUNNERS, Runner
from .urlpaths import canonical

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["CGIHTTPRequestHandler", "executable", "nobody_uid", "test"]

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


class CGIHTTPRequestHandler(ScriptRequests):
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
    default_content_type: str = "application/octet-stream"

    _redirects = 0

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

    def _gateway(self) -> Gateway:
        base = {**dict.fromkeys(_ALWAYS, ""), **metavars.inherited_whole(os.environ)}
        try:
            cwd = os.getcwd()
        except OSError:  # it was removed
            cwd = None
        config = self._config()
        return Gateway(config, _shared_runner(config.runner), base=base, cwd=cwd, software=self.version_string())

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


@functools.cache
def _shared_runner(name: str) -> Runner:
    """One runner of a kind for all requests of this process."""
    return RUNNERS[name]()


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
