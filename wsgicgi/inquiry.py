"""What is known of one run of a script, and what of it goes to the log: first the cause of a failure, then the rest.

Lines of standard error are held back for a moment, because most scripts that write some are about to fail: the line
that says why comes first then, and the traceback below it. Those of a script that runs on go out a second later.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from . import diagnosis, identity
from .diagnosis import Activity, Diagnosis, Evidence, Fault
from .diagnosis.output import misspelt_name
from .errors import BadScriptOutput, GatewayError, ScriptExceeded, ScriptTimeout, log, write_log
from .exchange import Exchange
from .runners import ExitStatus, Invocation
from .scripts import Script

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: Seconds and characters for which standard error is held back.
HOLD_SECONDS = 1.0
HOLD_CHARACTERS = 64 * 1024
#: Seconds that the end of a script may take after the end of its output, to be known as the cause of a failure.
END_SECONDS = 1.0

#: What is not shown to people, nor written to files: credentials by their usual names.
SECRET_VARIABLES = (
    "AUTHORIZATION",
    "COOKIE",
    "TOKEN",
    "SECRET",
    "PASSW",
    "PASSPHRASE",
    "APIKEY",
    "API_KEY",
    "PRIVATEKEY",
    "PRIVATE_KEY",
    "CREDENTIAL",
)
REDACTED = "(redacted)"

#: What a message says that names a limit which the script met.
LIMIT = "came against"
REMEDY_OF_LIMITS = (
    "Let it need less, or raise that limit, for this script alone in a [[script]] section of a configuration file."
)

# What says nothing but that a script ended with an error, which some do after a good answer.
_NO_CRASH = ("last-words", "other")


class Inquiry:
    """One run. Its methods are what an ``Exchange`` calls.

    Args:
        environ: The request.
        script: What runs.
        label: What its lines in the log begin with.
        invocation: How it is started.
    """

    def __init__(self, environ: WSGIEnvironment, script: Script, label: str, invocation: Invocation) -> None:
        self.environ = environ
        self.script = script
        self.label = label
        self.invocation = invocation
        self.exchange: Exchange | None = None
        self.diagnosis: Diagnosis | None = None
        self._held: list[str] = []
        self._held_since = 0.0
        self._is_failing = False
        self._exit_status: ExitStatus | None = None
        self._activity: Activity | None = None
        self._last_words: bytes | None = None

    # -- what the exchange tells

    def write_stderr(self, lines: str) -> None:
        """Take whole lines of standard error."""
        if not self._held:
            self._held_since = time.monotonic()
        self._held.append(lines)
        if sum(map(len, self._held)) > HOLD_CHARACTERS:
            self.flush()

    def ticking(self, is_client_gone: Callable[[], bool]) -> Callable[[], bool]:
        """The same question, which is asked all the time: what is held back too long goes out by the way."""

        def ask() -> bool:
            if self._held and time.monotonic() - self._held_since >= HOLD_SECONDS:
                self.flush()
            return is_client_gone()

        return ask

    def log(self, message: str) -> None:
        """Take a message about a run whose head is out already."""
        if self._is_failing:
            return  # the response tells it
        exchange = self.exchange
        failure = exchange.failure if exchange is not None else None
        status = exchange.exit_status if exchange is not None else None
        fault = None
        if LIMIT in message:
            pass  # it says all that there is to say
        elif isinstance(failure, ScriptTimeout) and exchange is not None:
            fault = Fault.SILENCE
            self._activity = diagnosis.activity(exchange.pid)
        elif isinstance(failure, BadScriptOutput):
            fault = Fault.CUT_SHORT
        elif status is not None and message.endswith(str(status)):
            fault = Fault.EXIT
        elif "its Content-Length" in message:
            fault = Fault.CUT_SHORT
            status = None
        if fault is None:
            log(self.environ, message)
        else:
            self._exit_status = status
            self.conclude(fault, message.removeprefix(f"{self.label}: "))
            log(self.environ, f"{self.label}: {self.diagnosis}")
        self.flush()

    def end(self) -> None:
        """Take the end of the run. A shell goes on after its errors: they are explained too."""
        if self._is_failing:
            return
        if self.diagnosis is None and self.exchange is not None and self.exchange.stderr.tail:
            found = diagnosis.explain_shell(self.evidence(Fault.EXIT, ""))
            if found is not None:
                self.diagnosis = found
                log(self.environ, f"{self.label}: {found}")
        self.close()

    def close(self) -> None:
        """Write what was held back, and let go of the request, whose environ holds this."""
        self.flush()
        self.environ = {}

    def flush(self) -> None:
        """Write what was held back."""
        held, self._held = self._held, []
        if held:
            write_log(self.environ, "".join(held))

    # -- a failure that becomes the response

    def begin_failure(self, error: BaseException) -> None:
        """Note how things stand before the script is ended: the response will tell of it."""
        self._is_failing = True
        if self.exchange is None:
            return
        if isinstance(error, ScriptTimeout):
            self._activity = diagnosis.activity(self.exchange.pid)
            self._last_words = self.exchange.stderr.tail  # what is said of its end is not why it came
        self._exit_status = self.exchange.wait_for_exit(END_SECONDS if isinstance(error, BadScriptOutput) else 0)

    def judge(self, error: GatewayError) -> GatewayError:
        """The same error, with the cause in its message."""
        if LIMIT in str(error) or isinstance(error, ScriptExceeded):
            what = str(error).removeprefix(f"{self.label}: ")
            self.diagnosis = Diagnosis(rule="limit", what=what, remedy=REMEDY_OF_LIMITS, file=str(self.script.file))
            self.environ["wsgicgi.diagnosis"] = self.diagnosis
            return type(error)(f"{self.label}: {self.diagnosis}")
        if isinstance(error, ScriptTimeout):
            fault = Fault.SILENCE
        elif isinstance(error, BadScriptOutput):
            is_late = "its output" in str(error) or "its Content-Length" in str(error)
            fault = Fault.CUT_SHORT if is_late else Fault.OUTPUT
        else:
            return error
        self.conclude(fault, str(error).removeprefix(f"{self.label}: "))
        return type(error)(f"{self.label}: {self.diagnosis}")

    def conclude(self, fault: Fault, problem: str, error: OSError | None = None) -> Diagnosis:
        """Find out why it failed."""
        self.diagnosis = diagnosis.diagnose(self.evidence(fault, problem, error))
        self.environ["wsgicgi.diagnosis"] = self.diagnosis
        return self.diagnosis

    def conclude_forbidden(self, verb: str, place: str) -> Diagnosis:
        """Find out what keeps whom the script was to run as from a directory or a file."""
        first_line = self.evidence(Fault.START, "").shebang.split() or [""]
        self.diagnosis = diagnosis.why_not_allowed(identity.name(self.invocation.identity), verb, place, first_line[0])
        self.environ["wsgicgi.diagnosis"] = self.diagnosis
        return self.diagnosis

    def looks_dying(self) -> bool:
        """Whether what is on standard error so far is what scripts write when they die."""
        if self.exchange is None or not self.exchange.stderr.tail:
            return False
        evidence = dataclasses.replace(self.evidence(Fault.EXIT, ""), code=1)
        return diagnosis.diagnose(evidence).rule not in _NO_CRASH

    def look_for_crash(self) -> Diagnosis | None:
        """Why a script ended with an error whose answer is whole: only what it says of itself; else None."""
        if self.exchange is None or not self.exchange.stderr.tail:
            return None
        status = self.exchange.wait_for_exit(END_SECONDS)
        if status is None or status.is_success:
            return None
        self._exit_status = status
        found = diagnosis.diagnose(self.evidence(Fault.EXIT, str(status)))
        return None if found.rule in _NO_CRASH else found

    def look_at_names(self, fields: Sequence[tuple[str, str]]) -> Diagnosis | None:
        """A header field whose name is nearly that of one which the answer lacks."""
        if misspelt_name(fields) is None:
            return None
        file = str(self.script.file)
        self.diagnosis = misspelt_name(fields, file, diagnosis.source_of(file))
        self.environ["wsgicgi.diagnosis"] = self.diagnosis
        return self.diagnosis

    def evidence(self, fault: Fault, problem: str, error: OSError | None = None) -> Evidence:
        """All that is known now."""
        file = str(self.script.file)
        status, exchange = self._exit_status, self.exchange
        return Evidence(
            fault=fault,
            problem=problem,
            file=diagnosis.look_at(file),
            command=self.script.command,
            cwd=self.invocation.cwd,
            errno=(error.errno or 0) if error is not None else 0,
            strerror=(error.strerror or "") if error is not None else "",
            stderr=self._stderr(),
            output=exchange.output_head if exchange is not None else b"",
            output_end=exchange.output_tail if exchange is not None else b"",
            code=status.code if status is not None and not status.signal else None,
            signal=status.signal if status is not None else 0,
            user=identity.name(self.invocation.identity) if self.invocation.identity else diagnosis.own_user(),
            activity=self._activity,
            metavars=self.invocation.metavars,
            source=diagnosis.source_of(file),
        )

    def _stderr(self) -> bytes:
        if self._last_words is not None:
            return self._last_words
        return self.exchange.stderr.tail if self.exchange is not None else b""

    @property
    def exit_status(self) -> ExitStatus | None:
        """How the script ended by itself."""
        return self._exit_status


def is_secret(name: str) -> bool:
    """Whether a variable or field of this name is not for other people's eyes."""
    upper = name.upper().replace("-", "_")
    return any(word in upper for word in SECRET_VARIABLES)


def shell_command(invocation: Invocation) -> str:
    """What to type to repeat a run: its directory, its variables but for secret ones, its words, no body."""
    variables = [
        f"{name}={shlex.quote(_text(value))}"
        for name, value in sorted(invocation.metavars.items())
        if not is_secret(name) and name.isidentifier()
    ]
    words = [shlex.quote(word) for word in invocation.argv]
    has_body = invocation.metavars.get("CONTENT_LENGTH", "0") != "0"
    stdin = "< body" if has_body else f"< {os.devnull}"
    return " ".join(["cd", shlex.quote(invocation.cwd), "&&", "env -i", *variables, *words, stdin])


def _text(value: str) -> str:
    """A native string as people read it."""
    return os.fsdecode(value.encode("latin-1", "replace"))
