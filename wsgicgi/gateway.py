"""The way of a request through a script: ``Gateway.run`` shows the line from top to bottom.

What the request is for has been found before (``middleware``, ``handler``). The answer is the script's, or an error.
"""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import sys
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

from . import __version__, body, debug_page, diagnosis, identity, metavars
from .admission import Admission, admit
from .client import presence
from .config import Config
from .diagnosis import Fault, has_shebang
from .errors import (
    NO_RESOURCES,
    BadRequest,
    CannotChangeIdentity,
    GatewayError,
    MetavarsTooLarge,
    MethodNotAllowed,
    OutOfResources,
    ScriptCannotStart,
    ScriptFailed,
    ScriptForbidden,
    ScriptNotFound,
    TooManyRedirects,
    error_response,
    log,
    printable,
    redirect_response,
    write_log,
)
from .exchange import Exchange, Limits
from .forwarded import Proxies
from .frameworks import keeps
from .habits import Habits
from .health import Trouble, find_trouble
from .inquiry import Inquiry
from .observation import UnwatchedRun, begin_run
from .pipes import watch
from .response import HeadParser, Kind, ResponseHead
from .runners import RUNNERS, Execution, IdentityRefused, Invocation, Runner
from .scripts import Script, is_python
from .server import check_polling, keeps_answers
from .terms import AllTerms, Terms
from .urlpaths import shown

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

SOFTWARE: str = f"wsgicgi/{__version__}"

#: What ``wsgicgi-dev`` calls itself in SERVER_SOFTWARE.
DEV_SERVER = "wsgicgi"
#: With ``debug``: how often the end of any script is looked for before its answer begins, and that of one that seems to
#: die; each look takes ``exchange.SHORT_ANSWER_SECONDS`` at most.
FIRST_LOOKS = 5
CRASH_LOOKS = 200

#: Local redirects that one request may take; Apache's LimitInternalRecursion is 10 too.
MAX_LOCAL_REDIRECTS = 10

#: Methods that change nothing (RFC 9110 section 9.2.1), of those that are common.
SAFE_METHODS = ("GET", "HEAD", "OPTIONS", "PROPFIND", "REPORT", "SEARCH")

# What belongs to a request's body or to conditions on what the first URL names; a local redirect asks for another.
NOT_REDIRECTED = {
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "HTTP_TRANSFER_ENCODING",
    "HTTP_CONTENT_ENCODING",
    "HTTP_IF_MATCH",
    "HTTP_IF_MODIFIED_SINCE",
    "HTTP_IF_NONE_MATCH",
    "HTTP_IF_RANGE",
    "HTTP_IF_UNMODIFIED_SINCE",
    "HTTP_RANGE",
}


class Gateway:
    """Runs scripts for requests; one for each application object.

    Args:
        config: The settings.
        runner: What starts scripts: an object, or a name as in ``Config``.
        base: Variables that every script gets beside ``env``; default: what ``inherited`` chooses.
        cwd: Where scripts run; default: each in its own directory.
        software: SERVER_SOFTWARE.
    """

    def __init__(
        self,
        config: Config,
        runner: Runner | str | None,
        *,
        base: Mapping[str, str] | None = None,
        cwd: str | None = None,
        software: str = SOFTWARE,
    ) -> None:
        check_polling()
        self._runners: dict[str, Runner] = {}  # by name; an object that was given starts all scripts
        if runner is None or isinstance(runner, str):
            names = {config.runner, *(section.settings.get("runner", config.runner) for section in config.scripts)}
            self._runners = {name: RUNNERS[name]() for name in names}
            runner = self._runners[config.runner]
        self.runner = runner
        self._all_terms = AllTerms(config, base=base)
        self._config = config
        self._proxies = Proxies(config.trusted_proxies, config.proxy_headers)
        self._cwd = cwd
        self._software = software
        self._habits = Habits()
        self._has_warned = False
        self._is_closed = False

    def find_trouble(self) -> Trouble | None:
        """Find what keeps it from running scripts; None: it can."""
        return find_trouble(
            directory=self._config.directory,
            runner=self.runner,
            terms=self._all_terms.general(),
            is_closed=self._is_closed,
        )

    def close(self) -> None:
        """End all scripts that still run, and turn away all that wait for their turn."""
        self._is_closed = True
        self._all_terms.close()
        for runner in {self.runner, *self._runners.values()}:
            runner.close()

    def respond(
        self, environ: WSGIEnvironment, start_response: StartResponse, script: Script, *, redirect_app: WSGIApplication
    ) -> Iterable[bytes]:
        """Answer a request with a script's output, or with an error."""
        try:
            exchange, head, length = self.run(environ, script)
        except GatewayError as error:
            return self._fail(error, environ, start_response)
        if head.kind is Kind.LOCAL_REDIRECT:
            exchange.leave()
            return self._redirect(environ, start_response, head, redirect_app)
        try:
            with_body = has_body(environ, head)
            exchange.answer(head, has_body=with_body)
            write = start_response(head.status_line, answer_fields(environ, head, length))
            if callable(write) and not keeps(write) and not (with_body and exchange.has_bytes):
                # The head goes out at once. An empty first piece does it too, but not with waitress.
                write(b"")
                if environ["REQUEST_METHOD"] == "HEAD":
                    _leave_out_last_chunk(write)
        except BaseException:
            exchange.close()
            raise
        return exchange

    def run(self, environ: WSGIEnvironment, script: Script) -> tuple[Exchange, ResponseHead, int | None]:
        """Run a script up to its response head; also tells the length of the body where that is known already."""
        self._proxies.apply(environ)
        terms = self._all_terms.of(script)
        config = terms.config
        for name in ("wsgicgi.inquiry", "wsgicgi.diagnosis"):
            environ.pop(name, None)  # of the script that redirected here
        run = begin_run(environ, script)
        method = environ["REQUEST_METHOD"]
        if method in ("TRACE", "CONNECT"):
            raise MethodNotAllowed(f"{method} is not for scripts", allow="GET, HEAD, POST")
        if method not in SAFE_METHODS and metavars.has_fragment(environ):
            # DELETE /dir/#x would take the whole directory with it
            raise BadRequest(f"{shown(environ.get('PATH_INFO', ''))}: {method} with a fragment: # is %23 in a URL")
        run_as = identity.of_script(config.run_as, script)
        with body.collect(
            environ, max_bytes=config.max_body_bytes, memory=config.body_memory, timeout=config.timeout
        ) as request_body:
            command = script.command
            if terms.bwrap is not None and is_python(command[0]) and not has_shebang(command[0]):
                command = (sys.executable, *command)  # a sandbox would take it for a shell script
            invocation = Invocation(
                argv=(*command, *metavars.search_words(method, environ.get("QUERY_STRING", ""))),
                metavars=metavars.build(
                    environ,
                    script,
                    content_length=request_body.length,
                    base=terms.base,
                    software=self._software,
                    pass_authorization=config.pass_authorization,
                ),
                cwd=self._cwd or script.directory,
                stdin=request_body.stdin,
                identity=run_as,
                restrictions=terms.restrictions,
                sandbox=terms.sandbox_of(script),
                preload=config.preload,
            )
            label = printable(shown(environ.get("SCRIPT_NAME", "") + script.script_path)) or script.file.name
            inquiry = environ["wsgicgi.inquiry"] = Inquiry(environ, script, label, invocation)
            if "wsgicgi.observer" in environ:  # the dev server's journal
                environ["wsgicgi.observer"](invocation, environ)
            # after the body: a slow upload keeps no other script from running
            run.begin_wait(body_length=request_body.length)
            admission = self._admit(environ, terms)
            run.begin_start()
            try:
                execution = self._start(inquiry, shown(environ.get("PATH_INFO", "")), self._runner_for(config))
                exchange = self._exchange(inquiry, execution, terms.limits, admission, run)
            except BaseException:
                admission.leave()
                raise
        run.begin()
        try:
            parser = HeadParser(max_bytes=config.max_header_bytes, nph=script.is_nph)
            habit = (script.place, environ.get("QUERY_STRING", ""))
            if self._habits.is_quick(*habit):
                exchange.expect_end()
            head = exchange.read_head(parser)
            run.begin_answer(is_redirect=head.kind is Kind.LOCAL_REDIRECT)
            length = None
            if head.kind is not Kind.LOCAL_REDIRECT:
                announced = head.content_length if has_body(environ, head) else None
                length = exchange.body_length(announced, self._habits.hold(*habit))
                if self._shows(environ):
                    length = self._look_for_crash(inquiry, exchange, length, announced)
            self._look_at_names(inquiry, head)
        except BaseException as error:
            run.fail(error)
            inquiry.begin_failure(error)
            exchange.close()
            raise
        return exchange, head, length

    def _fail(self, error: GatewayError, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer with what went wrong with a script, and log the cause; what the script wrote goes below it."""
        inquiry: Inquiry | None = environ.get("wsgicgi.inquiry")
        if inquiry is None:
            return self.refuse(error, environ, start_response)
        error = inquiry.judge(error)
        page = debug_page.html(error, inquiry) if self._shows(environ) and inquiry.diagnosis is not None else None
        answer = error_response(error, environ, start_response, debug_page=page)
        inquiry.close()
        return answer

    def refuse(self, error: GatewayError, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request that no script was started for."""
        url = shown(environ.get("PATH_INFO", ""))
        found = None
        if str(error) and url not in str(error):
            error.args = (f"{url}: {error}",)  # of the body, say, which knows nothing of the URL
        if isinstance(error, ScriptForbidden) and error.file:
            found = environ["wsgicgi.diagnosis"] = diagnosis.why_not_executable(error.file)
            error = ScriptForbidden(f"{url}: {found}")
        page = None
        if str(error) and self._shows(environ):
            found = found or debug_page.refusal(error, url)
            page = debug_page.refusal_html(error, environ, found)
            if isinstance(error, ScriptNotFound):  # not logged elsewhere
                log(environ, f"{url}: {found}")
        return error_response(error, environ, start_response, debug_page=page)

    def _shows(self, environ: WSGIEnvironment) -> bool:
        """Whether the author of the scripts is to see the cause; warns once when somebody else might.

        That is with ``debug``, and where the dev server says so of a request.
        """
        if self._config.debug and not self._has_warned:
            self._has_warned = True
            if environ.get("SERVER_SOFTWARE") != DEV_SERVER:
                write_log(environ, "wsgicgi: debug=True: error pages show sources and variables to every client\n")
        return self._config.debug or bool(environ.get("wsgicgi.debug"))

    def _look_for_crash(
        self, inquiry: Inquiry, exchange: Exchange, length: int | None, announced: int | None
    ) -> int | None:
        """With ``debug``: a short answer whose script dies is not given, for what it died of is told instead.

        A script that has written what dying scripts write is given some time to end, and so is one that announced a
        length, for it may be wrong.
        """
        for look in range(CRASH_LOOKS):
            if length is not None or (look == FIRST_LOOKS and not announced and not inquiry.looks_dying()):
                break
            length = exchange.body_length(announced)
        crash = inquiry.look_for_crash() if length is not None else None
        if crash is not None:
            inquiry.conclude(Fault.EXIT, str(exchange.exit_status))
            raise ScriptFailed(f"{inquiry.label}: {inquiry.diagnosis}")
        return length

    def _look_at_names(self, inquiry: Inquiry, head: ResponseHead) -> None:
        """Tell of a misspelt Content-Type, which nobody else notices: the answer is correct, and useless."""
        if head.kind is not Kind.DOCUMENT or any(name.lower() == "content-type" for name, _ in head.fields):
            return
        found = inquiry.look_at_names(head.fields)
        if found is None:
            return
        if self._shows(inquiry.environ):
            raise ScriptFailed(f"{inquiry.label}: {found}")
        log(inquiry.environ, f"{inquiry.label}: {found}")

    def _admit(self, environ: WSGIEnvironment, terms: Terms) -> Admission:
        url = shown(environ.get("PATH_INFO", ""))
        timeout = terms.config.queue_timeout
        return admit(terms.pools, environ, label=url, timeout=timeout, is_client_gone=presence(environ))

    def _runner_for(self, config: Config) -> Runner:
        """What starts the scripts that these settings hold for."""
        return self._runners.get(config.runner, self.runner)

    def _start(self, inquiry: Inquiry, url: str, runner: Runner) -> Execution:
        invocation, script = inquiry.invocation, inquiry.script
        program = script.command[0]
        try:
            try:
                return runner.start(invocation)
            except OSError as error:
                if error.errno != errno.ENOEXEC or not is_python(program):
                    raise
                # executable, but without a first line that says by what
                program = sys.executable
                return runner.start(dataclasses.replace(invocation, argv=(sys.executable, *invocation.argv)))
        except IdentityRefused as error:
            who = identity.name(invocation.identity)
            raise CannotChangeIdentity(f"{url}: cannot run as {who}: {error.strerror}; nothing was run") from None
        except OSError as error:
            if error.errno == errno.EACCES and invocation.identity is not None:
                verb, place = ("enter", str(error.filename)) if error.filename else ("run", program)
                raise ScriptForbidden(f"{url}: {inquiry.conclude_forbidden(verb, place)}") from None
            if error.errno == errno.E2BIG:
                raise MetavarsTooLarge(f"{url:.200}: the URL and fields do not fit into an environment") from None
            if error.errno in NO_RESOURCES:
                raise OutOfResources(f"{url}: cannot start: {error.strerror}") from None
            why = inquiry.conclude(Fault.START, error.strerror or str(error), error)
            raise ScriptCannotStart(f"{url}: cannot start: {why}") from None

    def _exchange(
        self, inquiry: Inquiry, execution: Execution, limits: Limits, admission: Admission, run: UnwatchedRun
    ) -> Exchange:
        query = inquiry.environ.get("QUERY_STRING", "")

        def end() -> None:
            try:
                self._habits.note(inquiry.script.place, query, went_on=exchange.went_on, was_quick=exchange.was_quick)
                inquiry.end()
            finally:
                admission.leave()
                run.end(exchange, is_stopping=self._is_closed)

        exchange = Exchange(
            execution,
            label=inquiry.label,
            limits=limits,
            log=inquiry.log,
            write_stderr=inquiry.write_stderr,
            is_client_gone=inquiry.ticking(presence(inquiry.environ)),
            at_end=end,
            pipes=watch(execution, in_large_pieces=not keeps_answers(inquiry.environ)),
        )
        inquiry.exchange = inquiry.environ["wsgicgi.exchange"] = exchange
        return exchange

    def _redirect(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        head: ResponseHead,
        redirect_app: WSGIApplication,
    ) -> Iterable[bytes]:
        """Answer with what another URL of ours names (RFC 3875 section 6.2.2); the client does not notice."""
        path, _, query = head.location.partition("?")
        mount = environ.get("SCRIPT_NAME", "")
        path_info = urllib.parse.unquote_to_bytes(path.encode("latin-1")).decode("latin-1")
        if not path_info.startswith(mount + "/"):
            # outside of what we answer for: only the client can go there
            return redirect_response(HTTPStatus.FOUND, head.location, start_response)
        redirects = environ.get("wsgicgi.redirects", 0) + 1
        if redirects > MAX_LOCAL_REDIRECTS:
            url = shown(environ.get("PATH_INFO", ""))
            error = TooManyRedirects(f"{url}: more than {MAX_LOCAL_REDIRECTS} local redirects")
            return self.refuse(error, environ, start_response)
        redirected = {name: value for name, value in environ.items() if name not in NOT_REDIRECTED}
        redirected.update(
            {
                "REQUEST_METHOD": "HEAD" if environ["REQUEST_METHOD"] == "HEAD" else "GET",
                "PATH_INFO": path_info[len(mount) :],
                "QUERY_STRING": query,
                "REQUEST_URI": head.location,
                "RAW_URI": head.location,
                "wsgi.input": io.BytesIO(),
                "wsgicgi.redirects": redirects,
            }
        )
        return redirect_app(redirected, start_response)


def base_variables(config: Config) -> dict[str, str]:
    """The variables that every script gets: of the server's those on the list, and those of the settings."""
    return {**metavars.inherited(os.environ, config.pass_env), **metavars.native(config.env)}


def has_body(environ: WSGIEnvironment, head: ResponseHead) -> bool:
    """Whether the answer to a request has a body, which one to HEAD has not."""
    return head.has_body and environ["REQUEST_METHOD"] != "HEAD"


def answer_fields(environ: WSGIEnvironment, head: ResponseHead, length: int | None) -> list[tuple[str, str]]:
    """The header fields for the client: the script's, and Content-Length where it is known."""
    fields = list(head.fields)
    if head.status == 205:
        return [*fields, ("Content-Length", "0")]
    if not head.has_body:
        return fields
    if head.content_length is not None:
        length = head.content_length
    elif environ["REQUEST_METHOD"] == "HEAD" and not length:
        length = None  # a script that leaves the body out does not tell how long it would be
    if length is not None:
        fields.append(("Content-Length", str(length)))
    return fields


def _leave_out_last_chunk(write: Callable[[bytes], object]) -> None:
    """Keep waitress (3.0) from ending a HEAD answer of unknown length with a last chunk, which is no part of it.

    There is no setting for it: ``write`` is a method of the object that knows. Other servers' have no such attribute.
    """
    task = getattr(write, "__self__", None)
    if getattr(task, "chunked_response", False):
        task.chunked_response = False  # type: ignore[union-attr]  # it has that attribute
