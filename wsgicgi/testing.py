"""Tests of CGI scripts: pytest's fixture ``cgi`` gives a WebTest ``TestApp`` over a script or a directory of them.

Scripts run as they run under a server: started by the system, with meta-variables, and their body on standard input. No
server runs; the application is called. What scripts write to standard error, and why one failed, is shown in the report
of a test that fails, and is there as ``app.log``.

pytest knows the fixture by ``pytest_wsgicgi``, which imports this module when the first test asks for it.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .app import create_app
from .middleware import CGIScript
from .urlpaths import native

if TYPE_CHECKING:
    import pytest
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

with warnings.catch_warnings():
    # WebOb imports cgi (up to Python 3.12), which says that it is deprecated: no news for whoever tests CGI scripts
    warnings.simplefilter("ignore", DeprecationWarning)
    import webtest


class TestApp(webtest.TestApp):  # type: ignore[misc]  # webtest has no annotations
    """WebTest's ``TestApp``, with what its scripts said."""

    __test__ = False  # no class of tests, whatever its name says

    def __init__(self, app: WSGIApplication, log: io.StringIO) -> None:
        # no lint: the validator knows few methods, and refuses answers that CGI allows
        super().__init__(app, extra_environ={"REMOTE_ADDR": "127.0.0.1"}, lint=False)
        self._log = log

    @property
    def log(self) -> str:
        """What scripts wrote to standard error and why requests failed, of all requests so far."""
        return self._log.getvalue()


class Cgi:
    """The fixture ``cgi`` of one test: call it with a script or a directory.

    Args:
        request: The test's; tells where it is.
    """

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._places = (request.path.parent, request.config.rootpath)
        self._logs: list[io.StringIO] = []
        self._exit_stack = contextlib.ExitStack()

    def __call__(self, target: str | os.PathLike[str], **settings: Any) -> TestApp:
        """Give the application of a script, or of a directory with its scripts.

        A script stands alone, at the URL path of its name, such as ``/hello.py``. The root means it too: ``/?x=1`` asks
        for it without an extra path, ``/more`` with one.

        Args:
            target: A path; a relative one is looked for beside the test's file, then in pytest's root directory.
            settings: As for ``create_app`` and ``CGIScript``.

        Raises:
            FileNotFoundError: There is nothing of that name.
            ConfigError: A setting is wrong, or the script is not executable.
        """
        __tracebackhide__ = True
        place = self._find(Path(target))
        # Any: two applications with the same methods
        settings = {"run_as": None, **settings}  # whom tests run as owns their directories
        app: Any = create_app(place, **settings) if place.is_dir() else CGIScript(place, **settings)
        self._exit_stack.callback(app.close)
        log = io.StringIO()
        self._logs.append(log)
        return TestApp(_with_errors(app if place.is_dir() else _at_its_name(app, place.name), log), log)

    def _find(self, target: Path) -> Path:
        __tracebackhide__ = True
        tried = list(dict.fromkeys(place / target for place in self._places))
        for path in tried:
            if path.exists():
                return path
        raise FileNotFoundError(f"cgi({str(target)!r}): there is no {' and no '.join(map(str, tried))}")

    @property
    def log(self) -> str:
        """What all of its applications logged."""
        return "".join(log.getvalue() for log in self._logs)

    def close(self) -> None:
        """End all scripts that still run."""
        self._exit_stack.close()


def _with_errors(app: WSGIApplication, log: io.StringIO) -> WSGIApplication:
    """Collect what goes to ``wsgi.errors``. WebTest takes anything there for a failure, but many a script warns."""

    def logged(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.errors"] = log
        return app(environ, start_response)

    return logged


def _at_its_name(app: WSGIApplication, name: str) -> WSGIApplication:
    """Mount a script at its name, where links of its pages to itself lead; the root means it too."""
    mount = "/" + native(name)

    def mounted(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == mount or path.startswith(mount + "/"):
            path = path[len(mount) :]
        elif path == "/":
            path = ""
        environ.update(SCRIPT_NAME=environ["SCRIPT_NAME"] + mount, PATH_INFO=path)
        return app(environ, start_response)

    return mounted
