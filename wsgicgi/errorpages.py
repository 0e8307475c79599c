"""The site's own pages for errors: a file or a script of the same application, in the place of ours (``error_pages``).

``errors.error_response`` asks for one, so only errors of ours get a page: a script that answers with an error has
written its own. The status of the error stays, whatever the page's. A page that fails itself is logged, and ours goes
out in its place; there is no page for the failure of a page.
"""

from __future__ import annotations

import io
import re
import urllib.parse
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .config import Config
from .errors import ConfigError, GatewayError, log, request_id
from .gateway import NOT_REDIRECTED
from .paths import PathRules, find_file
from .scripts import find_script

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# What a page's own answer says of a file at another URL, which is not the one that was asked for.
_NOT_OF_AN_ERROR = {"accept-ranges", "cache-control", "etag", "expires", "last-modified", "content-location"}

# What Apache gives the script of an ErrorDocument, beside REDIRECT_STATUS, REDIRECT_URL and REDIRECT_QUERY_STRING.
_PASSED_ON = {
    "REQUEST_METHOD": "REDIRECT_REQUEST_METHOD",
    "REMOTE_USER": "REDIRECT_REMOTE_USER",
    "wsgicgi.request_id": "REDIRECT_UNIQUE_ID",
}


class ErrorPages:
    """The pages of an application.

    Args:
        app: Where they are.
        config: The settings.

    Raises:
        ConfigError: There is no such page.
    """

    def __init__(self, app: WSGIApplication, config: Config) -> None:
        self._app = app
        self._pages = config.error_pages
        rules = PathRules.of(config)
        for status, target in self._pages.items():
            path = _path(target)
            try:
                found = find_script(rules, path) or find_file(rules, path)[0].is_file()
            except GatewayError as error:
                raise ConfigError(f"error_pages: {status}: {error}") from None
            if not found:
                raise ConfigError(f"error_pages: {status}: {target!r} is no file and no script: name one")

    def answer(
        self, error: GatewayError, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes] | None:
        """Answer with an error's page; None when it has none, or that fails."""
        target = self._pages.get(error.status.value)
        if target is None:
            return None
        page = _Page(error, environ, start_response)
        answer = self._app(page.environ(target), page.start_response)
        if page.failure is None:
            return answer
        close = getattr(answer, "close", None)
        if close is not None:
            close()
        log(environ, f"error_pages: {error.status.value}: {target}: {page.failure.status.value} {page.failure}")
        return None


def _path(target: str) -> str:
    """The path that a URL names, as in ``environ``."""
    return urllib.parse.unquote_to_bytes(target.partition("?")[0]).decode("latin-1")


class _Page:
    """One request for a page, in the place of the request that failed."""

    def __init__(self, error: GatewayError, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        self._error = error
        self._environ = environ
        self._start_response = start_response
        self.failure: GatewayError | None = None

    def environ(self, target: str) -> WSGIEnvironment:
        """The request for the page: a GET or HEAD without body, range and conditions."""
        failed = self._environ
        request_id(failed)
        changed = {name: value for name, value in failed.items() if name not in NOT_REDIRECTED}
        mount = failed.get("SCRIPT_NAME", "")
        variables = {
            "REDIRECT_STATUS": str(self._error.status.value),
            "REDIRECT_URL": mount + failed.get("PATH_INFO", ""),
        }
        if failed.get("QUERY_STRING"):
            variables["REDIRECT_QUERY_STRING"] = failed["QUERY_STRING"]
        variables.update({new: str(failed[name]) for name, new in _PASSED_ON.items() if failed.get(name)})
        changed.update(
            {
                "REQUEST_METHOD": "HEAD" if failed["REQUEST_METHOD"] == "HEAD" else "GET",
                "PATH_INFO": _path(target),
                "QUERY_STRING": target.partition("?")[2],
                "wsgi.input": io.BytesIO(),
                "wsgicgi.error_pages": self._fail,
                "wsgicgi.error_variables": variables,
            }
        )
        # its author looks for the cause of the first failure; processes are known by the id of their request
        for name in ("wsgicgi.debug", "wsgicgi.request_id"):
            changed.pop(name, None)
        return changed

    def _fail(
        self, error: GatewayError, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes] | None:
        """Take note that the page cannot be had; nothing is answered."""
        self.failure = error
        return []

    # Any: exc_info
    def start_response(
        self, status: str, fields: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        """Start the response with the error's status, unless the page sends the client elsewhere."""
        if not re.match("30[12378]", status):
            status = f"{self._error.status.value} {self._error.status.phrase}"
        dropped = _NOT_OF_AN_ERROR | ({"content-length"} if self._error.closes_connection else set())
        fields = [(name, value) for name, value in fields if name.lower() not in dropped]
        fields += self._own_fields()
        return self._start_response(status, fields, exc_info) if exc_info else self._start_response(status, fields)

    def _own_fields(self) -> list[tuple[str, str]]:
        """What only the error knows, such as Allow, Retry-After, Content-Range."""
        return [(name, value) for name, value in self._error.headers if name.lower() not in _NOT_OF_AN_ERROR]
