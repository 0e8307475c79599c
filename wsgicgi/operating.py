"""What operators see: health, metrics, request ids, a structured log, Server-Timing; each where it was asked for.

A ``Front`` stands before an application that has at least one of them; without one nothing of this is on a request's
way. It answers for ``/-/health`` and ``/-/metrics``, gives the request its id, and puts an ``Observation`` into the
environ, which the gateway fills.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from . import health, metrics
from .config import Config
from .errors import MethodNotAllowed, error_response, request_id
from .health import Health, Trouble
from .observation import Observation

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

METRICS = "/-/metrics"

FIELD = "X-Request-Id"

# What proxies send (hex digits, UUIDs), and what is safe everywhere that an id goes: header fields, variables,
# lines of a log, names of files.
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=@+-]{0,127}", re.ASCII)

_Fields = list[tuple[str, str]]


def front(
    app: WSGIApplication, config: Config, *, find_trouble: Callable[[], Trouble | None], passed_on: str
) -> Front | None:
    """What is to stand before an application; None when its settings ask for nothing of this.

    Args:
        app: The application.
        config: Its settings.
        find_trouble: Finds what keeps it from serving.
        passed_on: What requests are, in the metrics, that no script answers: "static", or another application's: "app".
    """
    wanted = (config.health, config.metrics, config.request_id, config.server_timing, config.log_format != "text")
    return Front(app, config, find_trouble=find_trouble, passed_on=passed_on) if any(wanted) else None


class Front:
    """Stands before an application; see ``front``."""

    def __init__(
        self, app: WSGIApplication, config: Config, *, find_trouble: Callable[[], Trouble | None], passed_on: str
    ) -> None:
        self.app = app
        self._config = config
        self.passed_on = passed_on
        self._is_structured = config.log_format == "json"
        self._observes = config.metrics or config.server_timing or self._is_structured
        self._pages: dict[str, WSGIApplication] = {}
        if config.health:
            self._pages = dict.fromkeys((health.PATH, health.LIVE, health.READY), Health(find_trouble))
        if config.metrics:
            self._pages[METRICS] = _metrics

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        if "wsgicgi.redirects" in environ:  # a script's, not the client's
            return self.app(environ, start_response)
        if self._config.request_id:
            start_response = _with_request_id(environ, start_response)
        page = self._pages.get(environ.get("PATH_INFO", ""))
        if page is not None:
            return self._show(page, environ, start_response)
        if "wsgicgi.observation" in environ or not self._observes:
            return self.app(environ, start_response)
        return self._observe(environ, start_response)

    def _show(self, page: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._is_structured:
            environ["wsgicgi.structured"] = Observation(environ, counts=False, is_structured=True)
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return error_response(MethodNotAllowed("", allow="GET, HEAD"), environ, start_response)
        return page(environ, start_response)

    def _observe(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._config.metrics:
            metrics.attach(environ)
        observation = Observation(environ, counts=self._config.metrics, is_structured=self._is_structured)
        environ["wsgicgi.observation"] = observation
        if self._is_structured:
            environ["wsgicgi.structured"] = observation
        begun: list[tuple[str, _Fields]] = []

        def starting(status: str, fields: _Fields, exc_info: Any = None) -> Any:
            observation.start(status)
            if self._config.server_timing:
                fields = [*fields, ("Server-Timing", _server_timing(observation))]
            begun[:] = [(status, fields)]
            return start_response(status, fields, exc_info) if exc_info else start_response(status, fields)

        def end() -> None:
            observation.end(self._kind(environ, begun[0][0] if begun else "500"))

        try:
            app_iter = self.app(environ, starting)
        except BaseException:
            end()
            raise
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(app_iter, wrapper):
            # the server sends the file by itself, when it likes
            observation.bytes_out = _content_length(begun[0][1])
            end()
            return app_iter
        return _Observed(app_iter, observation, end)

    def _kind(self, environ: WSGIEnvironment, status: str) -> str:
        """What answered: a script, an error page of ours, or what requests are passed on to."""
        observation: Observation = environ["wsgicgi.observation"]
        if observation.run is not None and not observation.has_failed:
            return "script"
        if observation.has_failed or (self.passed_on == "static" and status[:1] in "45"):
            return "error"
        return self.passed_on


def _metrics(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Tell the metrics, by prometheus-client, which knows nothing of HEAD."""
    metrics.attach(environ)
    started: list[tuple[str, _Fields]] = []

    def starting(status: str, fields: _Fields, exc_info: Any = None) -> Any:
        started.append((status, fields))

    page = b"".join(metrics.page()({**environ, "REQUEST_METHOD": "GET"}, starting))
    [(status, fields)] = started
    start_response(status, [*fields, ("Content-Length", str(len(page))), ("Cache-Control", "no-store")])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [page]


def _with_request_id(environ: WSGIEnvironment, start_response: StartResponse) -> StartResponse:
    """Give a request its id: its own, if that is well-formed, else a new one; and the client the same."""
    own = environ.get("HTTP_X_REQUEST_ID", "")
    if "wsgicgi.request_id" not in environ and _REQUEST_ID.fullmatch(own):
        environ["wsgicgi.request_id"] = own
        environ["wsgicgi.has_given_id"] = True
    environ["HTTP_X_REQUEST_ID"] = number = request_id(environ)

    def starting(status: str, fields: _Fields, exc_info: Any = None) -> Any:
        fields = [*((name, value) for name, value in fields if name.lower() != "x-request-id"), (FIELD, number)]
        return start_response(status, fields, exc_info) if exc_info else start_response(status, fields)

    return starting


def _server_timing(observation: Observation) -> str:
    """What took how long, in milliseconds, as far as it is known with the head (W3C Server Timing)."""
    metrics_of: list[tuple[str, float]] = []
    if observation.run is not None:
        marks = observation.run.marks
        for name, begin, end in (
            ("queue", "wait", "start"),
            ("start", "start", "run"),
            ("first-byte", "run", "answer"),
        ):
            if begin in marks and end in marks:
                metrics_of.append((name, marks[end] - marks[begin]))
    metrics_of.append(("total", time.monotonic() - observation.begin))
    return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in metrics_of)


def _content_length(fields: Iterable[tuple[str, str]]) -> int:
    return sum(int(value) for name, value in fields if name.lower() == "content-length" and value.isdigit())


class _Observed:
    """An ``app_iter`` whose bytes are counted, and whose end is the request's."""

    def __init__(self, app_iter: Iterable[bytes], observation: Observation, end: Callable[[], None]) -> None:
        self._app_iter = app_iter
        self._pieces = iter(app_iter)
        self._observation = observation
        self._end = end

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = next(self._pieces)
        self._observation.bytes_out += len(piece)
        return piece

    def close(self) -> None:
        """Close the observed one too (PEP 3333)."""
        close = getattr(self._app_iter, "close", None)
        try:
            if close is not None:
                close()
        finally:
            self._end()
