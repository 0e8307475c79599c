"""Putting it together: one application from one set of settings."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .config import load
from .errors import NotFound, error_response
from .gateway import CGIMiddleware
from .static import StaticMiddleware

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def create_app(directory: str | os.PathLike[str] | None = None, **settings: object) -> CGIMiddleware:
    """Make the application that serves a directory and runs its scripts.

    Args:
        directory: What "/" maps to; default: ``WSGICGI_DIRECTORY``, else the current directory.
        settings: As in ``Config``; each may also come from a variable such as ``WSGICGI_TIMEOUT``.

    Raises:
        ConfigError: A setting is wrong; the message says what to write instead.
    """
    config = load({"directory": directory, **settings})
    return CGIMiddleware(StaticMiddleware(_not_found, config=config), config=config)


def _not_found(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return error_response(NotFound(), environ, start_response)
