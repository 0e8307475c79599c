"""Scripts that were written for Python 2: what it had and Python 3 has not."""

from __future__ import annotations

import re

from . import facts
from .base import Diagnosis, Evidence
from .tracebacks import Traceback

_MODULES = frozenset(
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

_SYNTAX = re.compile(
    r"Missing parentheses in call to '(print|exec)'|multiple exception types must be parenthesized"
    r"|leading zeros in decimal integer literals are not permitted|invalid decimal literal.*L\b"
)

_EXCEPT = re.compile(r"except\s+[\w.]+\s*,\s*(\w+)\s*:")

_NAMES = {
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

_METHODS = re.compile(
    r"'dict' object has no attribute '(has_key|iteritems|itervalues|iterkeys)'|'str' object has no attribute 'decode'"
    r"|module 'urllib' has no attribute '(quote|unquote|urlencode|urlopen)\w*'"
    r"|module 'string' has no attribute '(letters|lowercase|uppercase|join|replace|split|lower|upper)'"
)


def _is_python_2(found: Traceback) -> bool:
    if found.error == "SyntaxError":
        return bool(_SYNTAX.search(found.message)) or bool(
            re.search(rf"^\s*(print\s+(>>|['\"\w])|{_EXCEPT.pattern}|raise\s+\w+\s*,)", found.text, re.M)
        )
    if found.error in ("ModuleNotFoundError", "ImportError"):
        return found.missing_module in _MODULES
    if found.error == "NameError":
        name = re.search(r"name '(\w+)'", found.message)
        caught = _EXCEPT.search(found.quoted_line)  # from Python 3.14 on it means two kinds of exceptions
        return name is not None and (name[1] in _NAMES or bool(caught and caught[1] == name[1]))
    return bool(_METHODS.search(found.message))


def old_source(found: Traceback, evidence: Evidence) -> Diagnosis | None:
    """Python 2 source that Python 3 runs."""
    if not _is_python_2(found):
        return None
    what = f"this is Python 2 source, and Python 3 runs it: {found.said}{found.place}"
    remedy = "Write it for Python 3 (print(x), urllib.request, input(), except E as e)."
    python = facts.find_program("python2")
    if python:
        remedy += f" Or let {python} run it."
    return found.diagnosis("python-2", what, remedy)
