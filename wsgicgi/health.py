"""Whether this process can serve: the answers at ``/-/health``, ``/-/health/live`` and ``/-/health/ready``.

A look is a few calls of the system and waits for no script. Clients learn a word, the log has the cause, once.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import identity
from .errors import ConfigError, log
from .runners import Runner
from .runners.base import Identity
from .server import is_stopping
from .terms import Terms

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PATH = "/-/health"
LIVE = PATH + "/live"
READY = PATH + "/ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why requests should go elsewhere.

    Attributes:
        word: For clients: stopping, directory or scripts.
        cause: For the log.
    """

    word: str
    cause: str


STOPPING = Trouble(word="stopping", cause="the server is about to stop")


def find_trouble(*, directory: Path, runner: Runner, terms: Terms, is_closed: bool) -> Trouble | None:
    """Find what keeps an application from serving; None: it can.

    Args:
        directory: What it serves.
        runner: What starts its scripts.
        terms: Of scripts that no section is for.
        is_closed: Whether it was closed.
    """
    if is_closed or is_stopping():
        return STOPPING
    try:
        found = os.stat(directory)
    except OSError as error:
        return Trouble(word="directory", cause=f"{directory}: {error.strerror}")
    if not stat.S_ISDIR(found.st_mode) or not os.access(directory, os.X_OK):
        return Trouble(word="directory", cause=f"{directory} is no directory that may be entered")
    check = getattr(runner, "check", None)  # one of the user's own need not have it
    if check is not None:
        try:
            check(
                identity=_identity(terms.config.run_as),
                restrictions=terms.restrictions,
                is_sandboxed=terms.bwrap is not None,
            )
        except (OSError, ConfigError) as error:
            return Trouble(word="scripts", cause=f"scripts cannot be started: {error}")
    return None


def _identity(run_as: str | None) -> Identity | None:
    """Whom scripts run as, as far as that is the same for all."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    return identity.known(run_as)


class Health:
    """The application that tells of it.

    Args:
        find: Finds what keeps this process from serving.
    """

    def __init__(self, find: Callable[[], Trouble | None]) -> None:
        self._find = find
        self._known: Trouble | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333): 200, or 503 when requests should go elsewhere."""
        path = environ["PATH_INFO"]
        trouble = None if path == LIVE else self._find()
        if path != LIVE and trouble != self._known:
            self._known = trouble
            log(environ, f"{READY}: {'ready again' if trouble is None else f'not ready: {trouble.cause}'}")
        word = "ok" if trouble is None else trouble.word
        if path == PATH:
            media_type = "application/json"
            page = json.dumps({"live": True, "ready": trouble is None, "status": word}).encode() + b"\n"
        else:
            media_type, page = "text/plain; charset=utf-8", word.encode() + b"\n"
        fields = [("Content-Type", media_type), ("Content-Length", str(len(page))), ("Cache-Control", "no-store")]
        start_response("200 OK" if trouble is None else "503 Service Unavailable", fields)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [page]
