"""A request to a handler of ``http.server`` as the gateway takes it: an environ (PEP 3333)."""

from __future__ import annotations

import base64
import contextlib
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from . import targets
from .config import Config
from .framing import BodyStream, RequestInput, find_framing
from .handlerpaths import ScriptPaths
from .loading import load
from .scripts import Script

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_TOKEN = re.compile(r"[!#$%&'*+\-.^`|~0-9A-Za-z]+")  # without "_", by which "A_B" could stand for "A-B"


class ScriptRequests(ScriptPaths):
    """A handler that makes environs of its requests; see ``CGIHTTPRequestHandler`` for its attributes."""

    cgi_settings: ClassVar[Mapping[str, object]] = {}
    trust_authorization: bool = False

    _target: str | None = None

    def _config(self) -> Config:
        return load({"directory": os.sep, **self.cgi_settings})

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


class _Log:
    """``wsgi.errors``: what the gateway and scripts say goes to ``log_error``."""

    def __init__(self, handler: ScriptRequests) -> None:
        self._handler = handler

    def write(self, lines: str) -> None:
        for line in lines.splitlines():
            self._handler.log_error("%s", line)

    def flush(self) -> None:
        pass


def _raw_target(handler: ScriptRequests) -> str:
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
