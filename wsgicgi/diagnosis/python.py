"""What a Python script's traceback means, for people who meet it for the first time."""

from __future__ import annotations

import os
import re

from . import facts, imports, python2
from .base import Diagnosis, Evidence, Row, quoted
from .tracebacks import Traceback, find_traceback


def traceback(evidence: Evidence) -> Diagnosis | None:
    """An exception that nobody caught, on standard error or, with ``cgitb``, in the page."""
    found = find_traceback(evidence.error_text, evidence.cwd)
    if found is None:
        output = evidence.output.decode("utf-8", "backslashreplace")
        found = find_traceback(output, evidence.cwd)
    if found is None or found.error in ("KeyboardInterrupt", "BrokenPipeError"):
        return None
    for special in (python2.old_source, imports.hidden, imports.failed, _syntax, _file, _by_table):
        diagnosis = special(found, evidence)
        if diagnosis is not None:
            return diagnosis
    return found.diagnosis("python-exception", f"{found.said}{found.place}")


_SYNTAX = (
    Row(
        rule="python-encoding",
        pattern=r"Non-UTF-8 code starting with '(?P<byte>[^']+)'|\(unicode error\) 'utf-8' codec",
        what="the source is not saved as UTF-8: it has the byte {byte}",
        remedy="Save it as UTF-8.",
    ),
    Row(
        rule="python-typographic",
        pattern=r"invalid (?:non-printable )?character (?P<what>.*)",
        what="the source has the character {what}, as word processors and web pages make it",
        remedy="Write straight quotes, plain blanks and hyphens.",
    ),
    Row(
        rule="python-tabs",
        pattern=r"inconsistent use of tabs and spaces",
        what="tabs and spaces are mixed in the indentation",
        remedy="Indent with four spaces.",
        command="expand -i -t 4 {script} > fixed.py",
    ),
    Row(
        rule="python-indentation",
        pattern=r"^(?P<message>unexpected indent|unindent does not match.*|expected an indented block.*)",
        what="IndentationError: {message}",
        remedy="Lines of one block begin in the same column.",
    ),
    Row(
        rule="python-nul",
        pattern=r"source code (?:string )?cannot contain null bytes",
        what="the source has NUL bytes: it is saved as UTF-16, or is no text",
        remedy="Save it as UTF-8.",
    ),
)


def _syntax(found: Traceback, evidence: Evidence) -> Diagnosis | None:
    if found.error not in ("SyntaxError", "IndentationError", "TabError", "UnicodeDecodeError", "ValueError"):
        return None
    for row in _SYNTAX:
        said = row.judge(found.message, evidence)
        if said is not None and (found.error != "ValueError" or row.rule == "python-nul"):
            return found.diagnosis(row.rule, f"{said.what}{found.place}", said.remedy, said.command)
    if found.error not in ("SyntaxError", "IndentationError", "TabError"):
        return None
    code = found.quoted_line
    return found.diagnosis("python-syntax", f"{found.said}{found.place}{f': {code!r}' if code else ''}")


def _file(found: Traceback, evidence: Evidence) -> Diagnosis | None:
    """A file or program that is not there, or that this user may not use."""
    name = re.search(r"\[Errno (\d+)\] [^:]+: '([^']*)'$", found.message)
    if name is None:
        return None
    number, path = int(name[1]), name[2]
    full = os.path.join(evidence.cwd, path)
    if number == 13:
        place = full if os.path.exists(full) else os.path.dirname(full).rstrip("/") or "/"
        state = facts.describe_mode(place)
        what = f"PermissionError: permission denied for {path!r}{found.place}"
        remedy = f"{place} is {state}, and the script runs as {evidence.user or 'another user'}."
        command = f"ls -ld {quoted(place)}"
        if place == evidence.cwd and evidence.user:
            remedy += " Let it write into a directory of its own that is not one for scripts."
            command = f"install -d -o {evidence.user} {quoted(os.path.join(os.path.dirname(place), 'data'))}"
        return found.diagnosis("python-permission", what, remedy, command)
    if number == 2 and re.search(r"subprocess\.py|_execute_child", found.text):
        what = f"it starts the program {path!r}, which is not on PATH{found.place}"
        nearest = facts.nearest_program(path)
        remedy = f"There is {nearest}." if nearest else f"Install {os.path.basename(path)}, or give its full path."
        return found.diagnosis("python-no-program", what, remedy)
    if number == 2:
        what = f"FileNotFoundError: there is no file {path!r}{found.place}"
        if os.path.isabs(path):
            directory = os.path.dirname(path)
            remedy = "" if os.path.isdir(directory) else f"There is no directory {directory} either."
            return found.diagnosis("python-no-file", what, remedy)
        elsewhere = facts.find_upwards(os.path.dirname(evidence.cwd), os.path.basename(path))
        there = f" There is {elsewhere}." if elsewhere else ""
        remedy = f"Scripts run in their own directory: it looked for {full}.{there}"
        return found.diagnosis("python-relative-file", what, remedy)
    return None


_TABLE = (
    Row(
        rule="python-locale",
        pattern=r"^UnicodeEncodeError: '(?P<codec>(?!utf)[\w-]+)' codec can't encode character",
        what="UnicodeEncodeError: the locale's encoding is {codec}, which lacks characters that it prints",
        remedy="Set PYTHONIOENCODING, or call sys.stdout.reconfigure(encoding='utf-8') first.",
        command="WSGICGI_ENV=PYTHONIOENCODING=utf-8",
    ),
    Row(
        rule="python-surrogates",
        pattern=r"^UnicodeEncodeError: .*surrogates not allowed",
        what="UnicodeEncodeError: it prints text that was decoded from bytes that are not UTF-8",
        remedy="Print such text with errors='replace', or as bytes to sys.stdout.buffer.",
    ),
    Row(
        rule="python-decode",
        pattern=r"^UnicodeDecodeError: '(?P<codec>[\w-]+)' codec can't decode byte (?P<byte>\w+)",
        what="UnicodeDecodeError: it reads bytes ({byte}) that are not {codec} text",
        remedy="Read bytes (sys.stdin.buffer, open(..., 'rb')), or name the encoding that they have.",
    ),
    Row(
        rule="python-bytes-to-text",
        pattern=r"^TypeError: write\(\) argument must be str, not bytes",
        what="TypeError: it writes bytes to sys.stdout, which takes text",
        remedy="Write them to sys.stdout.buffer, after sys.stdout.flush().",
    ),
    Row(
        rule="python-text-to-bytes",
        pattern=r"^TypeError: a bytes-like object is required, not 'str'",
        what="TypeError: it gives text to what takes bytes",
        remedy="Encode it: text.encode().",
    ),
    Row(
        rule="python-concatenation",
        pattern=r"^TypeError: (?P<message>can only concatenate str .*|must be str, not .*|can't concat .*)",
        what="TypeError: {message}",
        remedy="Convert it first: str(x), or an f-string.",
    ),
    Row(
        rule="python-no-body",
        pattern=r"^KeyError: 'CONTENT_LENGTH'"
        r"|^(?:TypeError|ValueError): int\(\) argument must be .*NoneType(?=[\s\S]*\Z)",
        what="it takes CONTENT_LENGTH for granted, and this request has no body",
        remedy="Write int(os.environ.get('CONTENT_LENGTH') or 0).",
    ),
    Row(
        rule="python-no-variable",
        pattern=r"^KeyError: '(?P<name>HTTP_AUTHORIZATION)'",
        what="the variable {name} is withheld from scripts",
        remedy="The setting pass_authorization gives it to them.",
        command="WSGICGI_PASS_AUTHORIZATION=1",
    ),
    Row(
        rule="python-no-variable",
        pattern=r"^KeyError: '(?P<name>HTTP_[A-Z_]+|REMOTE_USER|CONTENT_TYPE|PATH_INFO|PATH_TRANSLATED|HTTPS)'",
        what="the variable {name} is not set in this request",
        remedy="Write os.environ.get('{name}', '').",
    ),
    Row(
        rule="python-input",
        pattern=r"^EOFError: EOF when reading a line",
        what="it asks for input(), and a request has no keyboard: standard input is the request body, which has ended",
        remedy="Read fields from QUERY_STRING or from the body.",
    ),
    Row(
        rule="python-escape",
        pattern=r"^AttributeError: module 'cgi' has no attribute 'escape'",
        what="cgi.escape is no part of Python since 3.8",
        remedy="Use html.escape.",
    ),
    Row(
        rule="sqlite-write",
        pattern=r"^OperationalError: (?P<message>unable to open database file|attempt to write a readonly database)",
        what="SQLite: {message}",
        remedy="The user who runs the script must be able to write to the database and to its directory.",
    ),
    Row(
        rule="python-memory",
        pattern=r"^MemoryError",
        what="MemoryError: it needs more memory than it may have",
        remedy="Read and write in pieces, or raise the limit.",
    ),
    Row(
        rule="limit-open-files",
        pattern=r"^OSError: \[Errno 24\]",
        what="it has more files open than it may",
        remedy="Close them (with open(...) as file), or raise the limit.",
    ),
    Row(
        rule="limit-file-size",
        pattern=r"^OSError: \[Errno 27\]",
        what="it wrote a file that is larger than its limit",
        remedy="Raise the limit.",
    ),
    Row(
        rule="disk-full",
        pattern=r"^OSError: \[Errno (?:28|122)\] (?P<message>[^:]*)",
        what="it cannot write: {message}",
        remedy="Make room on the disk.",
        command="df -h .",
    ),
    Row(
        rule="limit-processes",
        pattern=r"^(?:BlockingIOError: \[Errno 11\] Resource temporarily|RuntimeError: can't start new thread)",
        what="it may not start more processes or threads",
        remedy="Start fewer, or raise the limit.",
    ),
    Row(
        rule="python-recursion",
        pattern=r"^RecursionError: (?P<message>.*)",
        what="RecursionError: a function calls itself without an end ({message})",
    ),
)


def _by_table(found: Traceback, evidence: Evidence) -> Diagnosis | None:
    for row in _TABLE:
        said = row.judge(found.said, evidence)
        if said is None or (row.rule == "python-no-variable" and "environ" not in found.text):
            continue
        if row.rule == "python-locale" and ".encode(" in found.quoted_line:
            continue  # it asked for that encoding itself
        if row.rule == "python-no-body" and "CONTENT_LENGTH" not in found.text:
            continue
        return found.diagnosis(row.rule, f"{said.what}{found.place}", said.remedy, said.command)
    if found.error == "KeyError" and "environ" in found.text:
        what = f"the variable {found.message} is not set{found.place}"
        remedy = "Scripts get few of the server's variables; the settings env and pass_env give them more."
        return found.diagnosis("python-no-variable", what, remedy)
    if found.error == "KeyError" and re.search(r"FieldStorage|form|cgi\.py|getvalue|query", found.text):
        what = f"KeyError: the request has no field {found.message}{found.place}"
        return found.diagnosis("python-no-field", what, "Use form.getvalue(name, default).")
    return None


#: What the interpreter says before it runs anything.
ROWS = (
    Row(
        rule="python-encoding",
        pattern=r"^SyntaxError: Non-UTF-8 code starting with '(?P<byte>[^']+)' in file (?P<file>.*)"
        r" on line (?P<line>\d+)",
        what="the source is not saved as UTF-8: it has the byte {byte} in line {line}",
        remedy="Save it as UTF-8.",
        command="iconv -f latin1 -t UTF-8 {script} > fixed.py",
    ),
    Row(
        rule="python-option",
        pattern=r"^Unknown option: -(?P<option>.?)\nusage: (?P<python_file>\S*python\S*)",
        what="line 1 gives Python an option that it does not know; all that follows the interpreter is one word there",
        remedy="Give one option, or use #!/usr/bin/env -S.",
    ),
    Row(
        rule="python-cannot-open",
        pattern=r"can't open file '(?P<file>[^']+)': \[Errno 2\] (?P<message>.*)",
        what="it starts Python with {file}: {message}",
        remedy="Scripts run in their own directory.",
    ),
    Row(
        rule="python-cannot-open",
        pattern=r"can't open file '(?P<file>[^']+)': \[Errno (?P<number>\d+)\] (?P<message>.*)",
        what="Python cannot read {file}: {message}",
        remedy="The user who runs the script must be able to read it.",
        command="chmod a+r {script}",
    ),
    Row(
        rule="python-damaged",
        pattern=r"^Fatal Python error: (?P<message>.*)",
        what="Fatal Python error: {message}",
        remedy="PYTHONHOME or PYTHONPATH is wrong, or the installation is damaged.",
    ),
)


def interpreter_message(evidence: Evidence) -> Diagnosis | None:
    """What Python itself refuses."""
    text = evidence.error_text
    return next((said for row in ROWS if (said := row.judge(text, evidence)) is not None), None)


RULES = (traceback, interpreter_message)
