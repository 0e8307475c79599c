"""Why a script ended, or did not: signals, limits, and what it did when its time was up."""

from __future__ import annotations

import os
import re

from .base import Diagnosis, Evidence, cut, signal_name

#: Part of the time that a script must have computed to be called busy; less when it is seen computing: others do too.
BUSY = 0.6
BUSY_NOW = 0.1

_SIGNALS = {
    "SIGSEGV": (
        "segfault",
        "it touched memory that it does not have",
        "Compile with -g -fsanitize=address and run it.",
    ),
    "SIGBUS": ("bus-error", "it touched memory that is not there, perhaps of a file that was cut", ""),
    "SIGABRT": ("abort", "it gave up by abort(): a failed assertion or damaged memory", ""),
    "SIGFPE": ("arithmetic", "it divided by zero or overflowed", ""),
    "SIGILL": ("illegal-instruction", "it was compiled for another processor", "Compile it here."),
    "SIGSYS": ("forbidden-call", "it made a system call that is forbidden here", ""),
    "SIGXCPU": ("limit-cpu", "it used more CPU time than its limit", "Look for an endless loop, or raise the limit."),
    "SIGXFSZ": ("limit-file-size", "it wrote a file that is larger than its limit", "Raise the limit."),
    "SIGKILL": (
        "killed",
        "the system was out of memory, its limit was exceeded, or somebody ended it",
        "The kernel's log tells.",
    ),
    "SIGTERM": ("terminated", "somebody or something asked it to end", ""),
    "SIGPIPE": ("broken-pipe", "it wrote to something that was closed", ""),
    "SIGALRM": ("alarm", "its own alarm() was not caught", ""),
}


def by_signal(evidence: Evidence) -> Diagnosis | None:
    """Ended by a signal, itself or, through a shell, its last command."""
    number = evidence.signal
    through_shell = not number and evidence.code is not None and 128 < evidence.code < 160
    if through_shell and not evidence.output and evidence.language == "shell":
        number = (evidence.code or 128) - 128
    if not number:
        return None
    name = signal_name(number)
    rule, meaning, remedy = _SIGNALS.get(name, ("signal", "", ""))
    command = ""
    if name == "SIGKILL" and os.name == "posix":
        command = "dmesg | grep -i 'killed process'"
    said = f"It was killed by {name}" if evidence.signal else f"its last command was killed by {name}"
    # the sentence is the one of exchange: "was killed by SIGSEGV"
    what = f"{said}: {meaning}" if meaning else said
    if evidence.problem and "in the middle of its output" in evidence.problem:
        what = f"{evidence.problem.rstrip('.')}: {meaning}" if meaning else evidence.problem
    return Diagnosis(rule=rule, what=what, remedy=remedy, command=command)


def silence(evidence: Evidence) -> Diagnosis:
    """Its time was up: what it was doing, and what it wrote last."""
    doing, remedy, rule = _doing(evidence)
    what = evidence.problem.rstrip(".")
    last = _last_line(evidence)
    nothing = "It wrote nothing behind its header." if what.startswith("no output for") else "It wrote nothing."
    said = f"The last line that it wrote: {last!r}." if last else nothing
    return Diagnosis(rule=rule, what=f"{what}: {doing}" if doing else what, remedy=remedy, evidence=said)


def _doing(evidence: Evidence) -> tuple[str, str, str]:
    done = evidence.activity
    if evidence.shebang.split()[-1:] == ["/usr/bin/env"]:
        return "line 1 names env without a program, which starts this script again and again", "", "env-without-program"
    if done is None:
        return "", "", "timeout"
    if done.is_stopped:
        return "it was stopped by a signal", "Look for what sends SIGSTOP or SIGTSTP, and never SIGCONT.", "stopped"
    took = _seconds(evidence.problem)
    if took and done.cpu >= (BUSY_NOW if done.is_running else BUSY) * took:
        return f"it computed all the time ({done.cpu:.1f} s of CPU)", "Look for an endless loop.", "endless-loop"
    if done.child:
        return f"it waited for {cut(done.child, 80)!r}", "Give that a time limit of its own.", "waits-for-child"
    word = next((text for key, text in _WAITS.items() if key in done.waits_in), "something")
    return f"it waited for {word} ({done.cpu:.1f} s of CPU)", "Give what it waits for a time limit.", "waits"


# Linux: names of the kernel's functions in /proc/PID/wchan
_WAITS = {
    "nanosleep": "time to pass: it sleeps",
    "pipe": "a pipe",
    "fifo": "a FIFO that nobody opens at its other end",
    "connect": "a network connection",
    "accept": "a network connection",
    "sk_": "the network",
    "skb": "the network",
    "inet": "the network",
    "unix": "a socket",
    "poll": "the network or a pipe",
    "futex": "a lock or a thread",
    "lock": "a locked file",
    "wait": "a process",
}


def _seconds(problem: str) -> float:
    found = re.search(r"(?:after|for) (\d+\.\d) s", problem)
    return float(found[1]) if found else 0.0


def _last_line(evidence: Evidence) -> str:
    for text in (evidence.error_text, evidence.output_end.decode("utf-8", "backslashreplace")):
        lines = [line for line in text.splitlines() if line.strip()]
        if lines:
            return cut(lines[-1].strip(), 120)
    return ""
