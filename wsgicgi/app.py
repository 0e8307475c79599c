"""Putting it together: one application from one set of settings."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .config import Config
from .errorpages import ErrorPages
from .errors import BadRequest, GatewayError, NotFound, error_response
from .forwarded import Proxies
from .frameworks import with_paths_as_sent
from .loading import load
from .metavars import authority
from .middleware import CGIMiddleware
from .static import StaticMiddleware
from .urlpaths import shown

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


# RFC 9110 section 7.2: uri-host [":" port]; without the comma, by which servers join repeated fields
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+;=-]*)(:[0-9]*)?")


class Application:
    """The whole of wsgicgi: scripts, then files, then 404."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._proxies = Proxies(config.trusted_proxies, config.proxy_headers)
        self._static = StaticMiddleware(_not_found, config=config)
        self._app = CGIMiddleware(self._static, config=config)
        self._error_pages = ErrorPages(self._app, config) if config.error_pages else None
        self._front = self._app.take_front(self._answer)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        self._proxies.apply(environ)
        return (self._front or self._answer)(environ, start_response)

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._error_pages is not None:
            environ["wsgicgi.error_pages"] = self._error_pages.answer
        host = _host(environ)
        if host is None:
            field = environ.get("HTTP_HOST")
            found = "no Host, which HTTP/1.1 wants" if field is None else f"Host: {field!r:.80} is not one host"
            return error_response(
                BadRequest(f"{shown(environ.get('PATH_INFO', ''))}: {found}"), environ, start_response
            )
        if host != environ.get("HTTP_HOST", ""):
            environ["HTTP_HOST"] = host
        environ = with_paths_as_sent(environ)
        try:
            # most requests of most sites: a file that was sent before, and has been found to be no script's
            answer = self._static.recall(environ, start_response)
        except GatewayError as error:
            return error_response(error, environ, start_response)
        return self._app(environ, start_response) if answer is None else answer

    def close(self) -> None:
        """End all scripts that still run."""
        self._app.close()


def create_app(
    directory: str | os.PathLike[str] | None = None,
    *,
    config: Config | str | os.PathLike[str] | None = None,
    **settings: object,
) -> Application:
    """Make the application that serves a directory and runs its scripts.

    Args:
        directory: What "/" maps to; default: ``WSGICGI_DIRECTORY``, else the current directory.
        config: A configuration file in TOML; default: ``WSGICGI_CONFIG``. Or a ``Config``.
        settings: As in ``Config``; they win over variables such as ``WSGICGI_TIMEOUT``, and these over the file.

    Raises:
        ConfigError: A setting is wrong; the message says what to write instead.
    """
    return Application(load({"directory": directory, **settings}, config=config))


def _host(environ: WSGIEnvironment) -> str | None:
    """Whom a request is for; None when it does not say so, or not once, which servers below let through.

    RFC 9112 section 3.2 wants a 400 then, and the host of a target in absolute form in place of the field.
    """
    field = environ.get("HTTP_HOST")
    if field is None and environ.get("SERVER_PROTOCOL") == "HTTP/1.1":
        return None
    if not _is_host(field or ""):
        return None
    host = authority(environ)
    if not host:
        return field or ""
    return host if _is_host(host) else None


@functools.lru_cache(256)
def _is_host(text: str) -> bool:
    return _HOST.fullmatch(text) is not None


def _not_found(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return error_response(NotFound(), environ, start_response)
