"""Why a script failed: what happened, where, how to mend it, and what shows it.

``diagnose`` takes an ``Evidence`` and asks the tables in an order that depends on what the gateway met. ``facts`` looks
at the machine; the rest judges. The same rules serve the log, the page of ``debug`` and ``wsgicgi-dev check``.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace

from . import ends, output, programs, python, start
from .base import Activity, Diagnosis, Evidence, Fault, FileFacts, first, with_evidence
from .facts import activity, has_shebang, look_at, own_user, source_of

__all__ = [
    "Activity",
    "Diagnosis",
    "Evidence",
    "Fault",
    "FileFacts",
    "activity",
    "diagnose",
    "explain_shell",
    "has_shebang",
    "look_at",
    "own_user",
    "source_of",
    "why_not_allowed",
    "why_not_executable",
]

#: What was written to standard error, by language, before anything else is looked at.
_WORDS = (programs.unreadable, *python.RULES, *programs.RULES)


def diagnose(evidence: Evidence) -> Diagnosis:
    """Find out why a script failed."""
    if evidence.fault is Fault.START:
        return first(start.RULES, evidence) or start.refused(evidence)
    if evidence.fault is Fault.SILENCE:
        return ends.silence(evidence)
    found = first(_WORDS, evidence) or ends.by_signal(evidence)
    if found is None and evidence.fault is Fault.OUTPUT:
        found = None if evidence.output else programs.last_words(evidence)
        found = found or first(output.RULES, evidence) or programs.last_words(evidence)
    elif found is None and evidence.fault is Fault.EXIT:
        found = programs.last_words(evidence)
    if found is None:
        return Diagnosis(rule="other", what=evidence.problem.rstrip("."), remedy=_advice(evidence))
    return _with_place(with_evidence(found, _circumstances(evidence, found)), evidence)


def why_not_executable(file: str) -> Diagnosis:
    """Why a file may not be executed: its mode, its owner, or where it is."""
    strerror = os.strerror(errno.EACCES)
    return diagnose(
        Evidence(
            fault=Fault.START,
            file=look_at(file),
            command=(file,),
            errno=errno.EACCES,
            strerror=strerror,
            user=own_user(),
        )
    )


def why_not_allowed(user: str, verb: str, place: str, program: str = "") -> Diagnosis:
    """What keeps the user whom scripts run as from a directory or a file.

    Args:
        user: That user's name.
        verb: What was tried: "enter", a directory, or "run", a file.
        place: What it was tried with.
        program: What is to run a script, by its first line, or "".
    """
    what, command = f"{user} may not {verb} {place}", ""
    remedy = "The setting run_as says whom scripts run as."
    for path in (os.path.join(place, "*") if verb == "enter" else place, program):
        file = look_at(os.path.realpath(path))
        evidence = Evidence(fault=Fault.START, file=file, command=(file.path,), errno=errno.EACCES)
        found = first((start.closed_directory, start.not_executable), evidence) if path and file.mode else None
        if found is not None:
            what, command = f"{what}: {found.what.removeprefix('Permission denied: ')}", found.command
            break
    else:
        found = start.first_line(Evidence(fault=Fault.START, file=look_at(place), command=(place,), errno=errno.EACCES))
        if verb == "run" and found is not None:  # nobody may run it, whoever that is
            what, remedy, command = f"{what}: {found.what}", found.remedy, found.command
    return Diagnosis(rule="not-allowed", what=what, file=place, remedy=remedy, command=command)


def explain_shell(evidence: Evidence) -> Diagnosis | None:
    """What a shell complained of and went on from; None when there is no such thing."""
    return programs.in_shell(evidence) if evidence.language == "shell" else None


def _circumstances(evidence: Evidence, found: Diagnosis) -> str:
    """How it ended, and what the client got, where the cause does not tell."""
    parts = []
    if evidence.fault in (Fault.EXIT, Fault.CUT_SHORT) and evidence.ended not in found.what:
        parts.append("It had printed the header already, so its answer may be incomplete.")
    if evidence.ended and evidence.ended[3:-1] not in found.what:
        parts.append(evidence.ended)
    return " ".join(parts)


def _with_place(found: Diagnosis, evidence: Evidence) -> Diagnosis:
    """Programs name files as they were started; the page wants whole paths."""
    if found.file and not found.file.startswith("/") and evidence.cwd:
        return replace(found, file=f"{evidence.cwd}/{found.file}")
    return found


def _advice(evidence: Evidence) -> str:
    if "Content-Length" in evidence.problem:
        return "Content-Length is the number of bytes of the body, not of characters; it may be left out."
    if evidence.fault is Fault.OUTPUT and "max_header_bytes" in evidence.problem:
        return "Is the empty line missing that ends the header?"
    return ""
