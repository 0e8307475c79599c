"""What a Python script's traceback means, for people who meet it for the first time."""

from __future__ import annotations

import difflib
import itertools
import os
import re
import sys
from dataclasses import dataclass

from . import facts
from .base import Diagnosis, Evidence, Row, cut, interpreter, quoted


@dataclass(frozen=True, slots=True, kw_only=True)
class Traceback:
    """The last exception in a text: where it was raised, as seen from the script, and its last line."""

    error: str
    message: str
    file: str
    line: int
    text: str  # the whole of it

    @property
    def said(self) -> str:
        """The exception as Python prints it, in one line."""
        return f"{self.error}: {self.message}" if self.message else self.error


_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)', re.MULTILINE)
_ERROR = re.compile(r"^(?P<error>[A-Za-z_][\w.]*)(?:: (?P<message>.*))?$")
_BEGIN = re.compile(r'^(?:Traceback \(most recent call last\):|  File "[^"]+", line \d+$)', re.MULTILINE)


def find_traceback(text: str, cwd: str) -> Traceback | None:
    """Find the last traceback in a text; None when there is none.

    Its place is the last frame in a file below the script's directory: that of a library helps nobody.
    """
    begins = [found.start() for found in _BEGIN.finditer(text) if text[found.start()] == "T"] or [
        found.start() for found in _BEGIN.finditer(text)
    ]
    if not begins:
        return None
    part = text[begins[-1] :]
    lines = part.splitlines()
    for number, line in enumerate(lines[1:], 1):
        found = _ERROR.match(line)
        if found is None or line.startswith((" ", "Traceback")):
            continue
        frames = list(_FRAME.finditer("\n".join(lines[:number])))
        if not frames:
            return None
        own = [frame for frame in frames if _is_own(frame["file"], cwd)] or frames[-1:]
        return Traceback(
            error=found["error"].rpartition(".")[2],
            message=found["message"] or "",
            file=os.path.join(cwd, own[-1]["file"]) if not own[-1]["file"].startswith("<") else "",
            line=int(own[-1]["line"]),
            text=part,
        )
    return None


def _is_own(file: str, cwd: str) -> bool:
    if file.startswith("<"):  # <frozen os>, <string>
        return False
    full = os.path.join(cwd, file)
    return full.startswith(cwd.rstrip("/") + "/") and "/site-packages/" not in full and "/lib/python" not in full


# -- what Python 2 had and Python 3 has not

_PYTHON_2_MODULES = frozenset(
    (
        "urllib2",
        "ConfigParser",
        "StringIO",
        "cStringIO",
        "cPickle",
        "Queue",
        "httplib",
        "cookielib",
        "urlparse",
        "HTMLParser",
        "Cookie",
        "BaseHTTPServer",
        "CGIHTTPServer",
        "SimpleHTTPServer",
        "Tkinter",
        "commands",
        "__builtin__",
        "md5",
        "sha",
        "sets",
        "anydbm",
        "dbhash",
        "gdbm",
        "xmlrpclib",
        "htmlentitydefs",
        "robotparser",
        "SocketServer",
        "thread",
        "copy_reg",
        "UserDict",
        "UserList",
        "exceptions",
    )
)
_PYTHON_2_SYNTAX = re.compile(
    r"Missing parentheses in call to '(print|exec)'|multiple exception types must be parenthesized"
    r"|leading zeros in decimal integer literals are not permitted|invalid decimal literal.*L\b"
)
_PYTHON_2_NAMES = {
    "raw_input",
    "unicode",
    "xrange",
    "unichr",
    "basestring",
    "long",
    "reduce",
    "execfile",
    "cmp",
    "reload",
}
_PYTHON_2_METHODS = re.compile(
    r"'dict' object has no attribute '(has_key|iteritems|itervalues|iterkeys)'|'str' object has no attribute 'decode'"
    r"|module 'urllib' has no attribute '(quote|unquote|urlencode|urlopen)\w*'"
    r"|module 'string' has no attribute '(letters|lowercase|uppercase|join|replace|split|lower|upper)'"
)

# Removed from the standard library in 3.13 (PEP 594), in 3.12, and what brings them back.
_REMOVED = {
    "cgi": "legacy-cgi",
    "cgitb": "legacy-cgi",
    "distutils": "setuptools",
    "imp": "",
    "asyncore": "pyasyncore",
    "asynchat": "pyasynchat",
    "telnetlib": "standard-telnetlib",
    "imghdr": "standard-imghdr",
    "sndhdr": "standard-sndhdr",
    "crypt": "legacycrypt",
    "pipes": "standard-pipes",
    "uu": "standard-uu",
    "xdrlib": "standard-xdrlib",
    "mailcap": "standard-mailcap",
    "nntplib": "standard-nntplib",
    "chunk": "standard-chunk",
    "aifc": "standard-aifc",
    "sunau": "standard-sunau",
    "smtpd": "aiosmtpd",
}

# Projects whose modules have other names.
_PROJECTS = {
    "PIL": "Pillow",
    "yaml": "PyYAML",
    "bs4": "beautifulsoup4",
    "MySQLdb": "mysqlclient",
    "cv2": "opencv-python-headless",
    "sklearn": "scikit-learn",
    "dotenv": "python-dotenv",
    "psycopg2": "psycopg2-binary",
    "Crypto": "pycryptodome",
    "serial": "pyserial",
    "dateutil": "python-dateutil",
    "mysql": "mysql-connector-python",
    "pymysql": "PyMySQL",
    "jwt": "PyJWT",
    "docx": "python-docx",
    "ldap": "python-ldap",
}


def python_2(found: Traceback) -> bool:
    """Whether the source was written for Python 2."""
    if found.error == "SyntaxError":
        return bool(_PYTHON_2_SYNTAX.search(found.message)) or bool(
            re.search(r"^\s*(print\s+(>>|['\"\w])|except\s+[\w.]+\s*,\s*\w+\s*:|raise\s+\w+\s*,)", found.text, re.M)
        )
    if found.error in ("ModuleNotFoundError", "ImportError"):
        return _module(found.message) in _PYTHON_2_MODULES
    if found.error == "NameError":
        name = re.search(r"name '(\w+)'", found.message)
        return name is not None and name[1] in _PYTHON_2_NAMES
    return bool(_PYTHON_2_METHODS.search(found.message))


def _module(message: str) -> str:
    name = re.search(r"No module named '?([\w.]+)'?", message)
    return name[1].split(".")[0] if name else ""


def traceback(evidence: Evidence) -> Diagnosis | None:
    """An exception that nobody caught, on standard error or, with ``cgitb``, in the page."""
    found = find_traceback(evidence.error_text, evidence.cwd)
    if found is None:
        output = evidence.output.decode("utf-8", "backslashreplace")
        found = find_traceback(output, evidence.cwd)
    if found is None or found.error in ("KeyboardInterrupt", "BrokenPipeError"):
        return None
    for special in (_python_2, _hidden, _import, _syntax, _file, _by_table):
        diagnosis = special(found, evidence)
        if diagnosis is not None:
            return diagnosis
    return _made(found, "python-exception", f"{found.said}{_at(found)}")


def _at(found: Traceback) -> str:
    name = os.path.basename(found.file)
    return f" in {name} line {found.line}" if name else ""


def _made(found: Traceback, rule: str, what: str, remedy: str = "", command: str = "") -> Diagnosis:
    return Diagnosis(rule=rule, what=cut(what), file=found.file, line=found.line, remedy=remedy, command=command)


def _python_2(found: Traceback, evidence: Evidence) -> Diagnosis | None:
    if not python_2(found):
        return None
    what = f"this is Python 2 source, and Python 3 runs it: {found.said}{_at(found)}"
    remedy = "Write it for Python 3 (print(x), urllib.request, input(), except E as e)."
    python = facts.find_program("python2")
    if python:
        remedy += f" Or let {python} run it."
    return _made(found, "python-2", what, remedy)


# A module is named that is there, but is not what the script expects; 3.13 says which file is to be renamed.
_UNEXPECTED = re.compile(
    r"module '(\w+)' has no attribute|from (?:partially initialized module )?'(\w+)'|'(\w+)' is not a package"
)


def _hidden(found: Traceback, evidence: Evidence) -> Diagnosis | None:
    """A file beside the script that has the name of a standard module."""
    unexpected = _UNEXPECTED.search(found.message.replace("partially initialized module '", "module '"))
    name = next(filter(None, unexpected.groups()), "") if unexpected else ""
    file = os.path.join(evidence.cwd, f"{name}.py")
    if name not in sys.stdlib_module_names or not facts.is_file(file):
        return None
    what = f"{file} hides Python's own module {name!r}: {found.error}{_at(found)}"
    command = f"mv {quoted(file)} {quoted(os.path.join(evidence.cwd, f'my_{name}.py'))}"
    return _made(found, "python-hidden-module", what, "Give it another name.", command)


def _import(found: Traceback, evidence: Evidence) -> Diagnosis | None:
    if "partially initialized module" in found.message:
        what = f"modules import each other in a circle: {found.said}{_at(found)}"
        return _made(found, "python-circular-import", what, "Import inside of the function that needs it.")
    if found.error == "ImportError" and "cannot import name" in found.message:
        return _made(found, "python-import", f"{found.said}{_at(found)}", "Its version may be another than you expect.")
    if found.error not in ("ModuleNotFoundError", "ImportError"):
        return None
    name = _module(found.message)
    if not name:
        return None
    if name in sys.stdlib_module_names and name not in _REMOVED:
        return _made(found, "python-import", f"{found.said}{_at(found)}", f"{name} itself is there.")
    return _missing_module(name, found, evidence)


def _missing_module(name: str, found: Traceback, evidence: Evidence) -> Diagnosis:
    what = f"there is no Python module {name!r}{_at(found)}"
    python = facts.find_program(interpreter(evidence)) or sys.executable
    pip = f"{quoted(python)} -m pip install"
    if name in _REMOVED:
        project = _REMOVED[name]
        since = "3.12" if name in ("distutils", "imp", "asyncore", "asynchat", "smtpd") else "3.13"
        what = f"the module {name!r} is no part of Python since {since}{_at(found)}"
        if not project:
            return _made(found, "python-removed-module", what, "Use importlib instead.")
        remedy = f"pip install {project} brings it back."
        return _made(found, "python-removed-module", what, remedy, f"{pip} {project}")
    elsewhere = facts.environment_with(name, evidence.cwd)
    if elsewhere and elsewhere != python:
        remedy = f"It is installed for {elsewhere}: name that in line 1."
        return _made(found, "python-other-venv", what, remedy, f"sed -i '1s|.*|#!{elsewhere}|' {quoted(found.file)}")
    own = facts.find_upwards(evidence.cwd, f"{name}.py")
    if own:
        remedy = f"There is {own}, but Python looks in the script's directory: put it there, or set PYTHONPATH."
        return _made(found, "python-own-module", what, remedy, f"WSGICGI_ENV=PYTHONPATH={os.path.dirname(own)}")
    close = difflib.get_close_matches(name, sys.stdlib_module_names, n=1, cutoff=0.75)
    if close:
        return _made(found, "python-misspelt-module", what, f"Did you mean {close[0]!r}?")
    project = _PROJECTS.get(name, name)
    return _made(found, "python-no-module", what, f"Install it for {python}.", f"{pip} {project}")


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
            return _made(found, row.rule, f"{said.what}{_at(found)}", said.remedy, said.command)
    if found.error not in ("SyntaxError", "IndentationError", "TabError"):
        return None
    code = _quoted_line(found)
    return _made(found, "python-syntax", f"{found.said}{_at(found)}{f': {code!r}' if code else ''}")


def _quoted_line(found: Traceback) -> str:
    """The line that the message shows, if it shows one."""
    code = ""
    lines = found.text.splitlines()
    for line, following in itertools.pairwise(lines):
        if _FRAME.match(line):
            code = following.strip()
    return "" if _ERROR.fullmatch(code) else cut(code, 80)


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
        what = f"PermissionError: permission denied for {path!r}{_at(found)}"
        remedy = f"{place} is {state}, and the script runs as {evidence.user or 'another user'}."
        command = f"ls -ld {quoted(place)}"
        if place == evidence.cwd and evidence.user:
            remedy += " Let it write into a directory of its own that is not one for scripts."
            command = f"install -d -o {evidence.user} {quoted(os.path.join(os.path.dirname(place), 'data'))}"
        return _made(found, "python-permission", what, remedy, command)
    if number == 2 and re.search(r"subprocess\.py|_execute_child", found.text):
        what = f"it starts the program {path!r}, which is not on PATH{_at(found)}"
        nearest = facts.nearest_program(path)
        remedy = f"There is {nearest}." if nearest else f"Install {os.path.basename(path)}, or give its full path."
        return _made(found, "python-no-program", what, remedy)
    if number == 2:
        what = f"FileNotFoundError: there is no file {path!r}{_at(found)}"
        if os.path.isabs(path):
            directory = os.path.dirname(path)
            remedy = "" if os.path.isdir(directory) else f"There is no directory {directory} either."
            return _made(found, "python-no-file", what, remedy)
        elsewhere = facts.find_upwards(os.path.dirname(evidence.cwd), os.path.basename(path))
        there = f" There is {elsewhere}." if elsewhere else ""
        remedy = f"Scripts run in their own directory: it looked for {full}.{there}"
        return _made(found, "python-relative-file", what, remedy)
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
        if row.rule == "python-locale" and ".encode(" in _quoted_line(found):
            continue  # it asked for that encoding itself
        if row.rule == "python-no-body" and "CONTENT_LENGTH" not in found.text:
            continue
        return _made(found, row.rule, f"{said.what}{_at(found)}", said.remedy, said.command)
    if found.error == "KeyError" and "environ" in found.text:
        what = f"the variable {found.message} is not set{_at(found)}"
        remedy = "Scripts get few of the server's variables; the settings env and pass_env give them more."
        return _made(found, "python-no-variable", what, remedy)
    if found.error == "KeyError" and re.search(r"FieldStorage|form|cgi\.py|getvalue|query", found.text):
        what = f"KeyError: the request has no field {found.message}{_at(found)}"
        return _made(found, "python-no-field", what, "Use form.getvalue(name, default).")
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
