"""Why scripts fail: a real failing script for each rule, through the real application and real processes."""

from __future__ import annotations

import dataclasses
import errno
import inspect
import io
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from programs import find
from servers import serving, wait_until
from sites import Site
from werkzeug.test import EnvironBuilder

from wsgicgi import create_app
from wsgicgi.diagnosis import (
    Diagnosis,
    Evidence,
    Fault,
    FileFacts,
    diagnose,
    ends,
    facts,
    imports,
    output,
    programs,
    python,
    python2,
    start,
)

CT = "Content-Type: text/html"
PY = f"#!{sys.executable}\n"
SH = "#!/bin/sh\n"
PERL = "#!/usr/bin/perl\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A broken script, the rule that finds out, and words of the line in the log."""

    rule: str
    text: str | bytes
    words: str
    name: str = "x.cgi"
    mode: int = 0o755
    line: int = 0
    status: int = 502
    program: tuple[str, str] | None = None
    files: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    query: str = ""
    is_log_only: bool = False

    @property
    def id(self) -> str:
        return f"{self.rule}: {self.words}"


def perl(rule: str, text: str, words: str, **rest: Any) -> Case:
    return Case(rule=rule, text=PERL + text, words=words, program=("perl", "perl"), **rest)


def php(rule: str, text: str, words: str, interpreter: str = "php-cgi", **rest: Any) -> Case:
    text = f"#!/usr/bin/{interpreter}\n{text}"
    return Case(rule=rule, text=text, words=words, program=(interpreter, "php-cgi"), name="x.php", **rest)


def ruby(rule: str, text: str, words: str, **rest: Any) -> Case:
    return Case(rule=rule, text="#!/usr/bin/ruby\n" + text, words=words, program=("ruby", "ruby"), **rest)


def node(rule: str, text: str, words: str, **rest: Any) -> Case:
    return Case(rule=rule, text="#!/usr/bin/env node\n" + text, words=words, program=("node", "nodejs"), **rest)


def py(rule: str, text: str, words: str, **rest: Any) -> Case:
    return Case(rule=rule, text=PY + text, words=words, name=rest.pop("name", "x.py"), **rest)


def sh(rule: str, text: str, words: str, **rest: Any) -> Case:
    return Case(rule=rule, text=SH + text, words=words, **rest)


def cannot_start(rule: str, text: str | bytes, words: str, **rest: Any) -> Case:
    return Case(rule=rule, text=text, words=words, status=500, **rest)


START = [
    cannot_start("empty-file", "", "is empty"),
    cannot_start("utf-16", "#!/bin/sh\necho\n".encode("utf-16"), "is saved as UTF-16"),
    cannot_start("byte-order-mark", b"\xef\xbb\xbf#!/bin/sh\necho\n", "byte order mark", line=1),
    cannot_start("crlf", "#!/bin/sh\r\necho\r\n", r"ends in CR LF, so the kernel looks for '/bin/sh\r'", line=1),
    cannot_start("cr-line-ends", "#!/bin/sh\recho\r", "end in CR alone"),
    cannot_start("displaced-shebang", "\n#!/bin/sh\necho\n", "does not begin with #!: that is on line 2"),
    cannot_start("displaced-shebang", " #!/bin/sh\necho\n", "behind a blank"),
    cannot_start("misspelt-shebang", "#/bin/sh\necho\n", "line 1 is '#/bin/sh'"),
    cannot_start("misspelt-shebang", "!#/bin/sh\necho\n", "line 1 is '!#/bin/sh'"),
    cannot_start("misspelt-shebang", "# !/bin/sh\necho\n", "sed -i '1s|.*|#!/bin/sh|'"),
    cannot_start("no-shebang", "print 'x';\nmy $x = 1;\n", "is Perl source and does not begin with #!", name="x.pl"),
    cannot_start("no-shebang", "<?php echo 1; ?>\n", "--interpreters .php=php-cgi", name="x.php"),
    cannot_start("no-shebang", "echo hello\n", "does not begin with #! and an interpreter"),
    cannot_start("c-source", "#include <stdio.h>\nint main(void) { return 0; }\n", "is C source", name="x.c"),
    cannot_start("html-file", "<!doctype html>\n<h1>x</h1>\n", "is an HTML page", name="x.html"),
    cannot_start("foreign-program", b"MZ\x90\0\3\0\0\0", "is a Windows program", name="x.exe"),
    cannot_start("bare-shebang", "#!\necho\n", "is #! without an interpreter"),
    cannot_start("long-shebang", f"#!/{'x' * 300}/sh\necho\n", "longer than the 255 bytes"),
    cannot_start("no-interpreter", "#!/no/such/sh\necho\n", "'/no/such/sh', which does not exist. There is "),
    cannot_start("no-interpreter", "#!/opt/my/perl -w\n1;\n", "There is /usr/bin/perl", program=("perl", "perl")),
    cannot_start("directory-interpreter", "#!/usr/bin\necho\n", "names the directory '/usr/bin'"),
    cannot_start(
        "no-interpreter", "#!/etc/passwd\necho\n", "'/etc/passwd' as the interpreter, which is not executable"
    ),
    cannot_start("relative-interpreter", "#!python3\nprint(1)\n", "'python3' without its full path"),
    cannot_start("relative-interpreter", "#!C:\\Python312\\python.exe\nprint(1)\n", "an interpreter on Windows"),
    cannot_start(
        "wrong-machine", b"\x7fELF\x02\x02\x01" + bytes(11) + b"\0\x16" + bytes(100), "is a program for s390, and this"
    ),
    Case(rule="crlf", text="#!/usr/bin/env python3\r\nprint(1)\r\n", words=r"/usr/bin/env looks for 'python3\r'"),
    Case(rule="env-needs-S", text="#!/usr/bin/env python3 -u\nprint(1)\n", words="#!/usr/bin/env -S python3 -u"),
    Case(rule="no-interpreter", text="#!/usr/bin/env pyhton3\n1\n", words="line 1 asks env for 'pyhton3'", line=1),
    Case(
        rule="env-without-program",
        text="#!/usr/bin/env\nprint(1)\n",
        words="names env without a program",
        settings={"timeout": 0.5},
        status=504,
    ),
]

PYTHON = [
    py("python-syntax", f'print("{CT}\\n")\nprint("x"\n', "SyntaxError: '(' was never closed in x.py line 3", line=3),
    py("python-syntax", "print('x\n", "SyntaxError: unterminated string literal", line=2),
    py("python-indentation", "x = 1\n  y = 2\n", "IndentationError: unexpected indent in x.py line 3", line=3),
    py("python-indentation", "if 1:\nprint(1)\n", "expected an indented block after 'if'", line=3),
    py("python-tabs", "if 1:\n        x = 1\n\ty = 2\n", "tabs and spaces are mixed", line=4),
    py("python-typographic", "print(“hello”)\n", "'“' (U+201C), as word processors and web pages make it", line=2),
    Case(
        rule="python-encoding",
        text=PY.encode() + b"x = 'caf\xe9'\n",
        words=r"not saved as UTF-8: it has the byte \xe9",
        name="x.py",
    ),
    py("python-2", 'print "Content-Type: text/html"\n', "this is Python 2 source", line=2),
    py("python-2", "import urllib2\n", "this is Python 2 source", line=2),
    py("python-2", "try:\n    open('none')\nexcept IOError, e:\n    print(e)\n", "this is Python 2 source", line=4),
    py("python-2", "x = raw_input()\n", "this is Python 2 source", line=2),
    py(
        "python-removed-module",
        "import asyncore2\nimport imp\n".replace("asyncore2", "os"),
        "no part of Python since 3.12",
    )
    if sys.version_info >= (3, 12)
    else py("python-no-module", "import no_such_module_x\n", "there is no Python module 'no_such_module_x'", line=2),
    py("python-no-module", "import yaml_\n".replace("yaml_", "nosuchyaml"), "-m pip install nosuchyaml", line=2),
    py("python-misspelt-module", "import josn\n", "Did you mean 'json'?", line=2),
    py(
        "python-own-module",
        "import mine\n",
        "/lib/mine.py, but Python looks in the script's",
        files={"lib/mine.py": ""},
    ),
    py(
        "python-other-venv",
        "import only_there\n",
        "venv/bin/python: name that in line 1",
        files={
            "venv/pyvenv.cfg": "",
            "venv/bin/python": "",
            "venv/lib/python3.11/site-packages/only_there/__init__.py": "",
        },
    ),
    py(
        "python-hidden-module",
        "import random\nrandom.randint(1, 2)\n",
        "hides Python's own module 'random'",
        name="random.py",
    ),
    py(
        "python-circular-import",
        "import a\n",
        "import each other in a circle",
        files={"cgi-bin/a.py": "from b import x\ny = 1\n", "cgi-bin/b.py": "from a import y\nx = 1\n"},
    ),
    py(
        "python-circular-import",
        "import a\n",
        "import each other in a circle: AttributeError: ",
        files={"cgi-bin/a.py": "import b\ny = 1\n", "cgi-bin/b.py": "import a\na.y\n"},
    ),
    py(
        "python-hidden-module",
        "import requests\nrequests.get('x')\n",
        "imports itself instead of a library 'requests', whose name it has: AttributeError: ",
        line=3,
        name="requests.py",
    ),
    py(
        "python-hidden-module",
        "import calendar\ncalendar.month(2026, 1)\n",
        "/calendar.py hides Python's own module 'calendar'",
        files={"cgi-bin/calendar.py": "x = 1\n"},
    ),
    py("python-import", "import json.nothing\n", "No module named 'json.nothing'", line=2),
    py("python-import", "from os import nothing_there\n", "cannot import name 'nothing_there' from 'os'", line=2),
    py(
        "python-exception",
        f'print("{CT}")\nprint(name)\n',
        "NameError: name 'name' is not defined in x.py line 3",
        line=3,
    ),
    py("python-exception", "x = 1 / 0\n", "ZeroDivisionError: division by zero in x.py line 2", line=2),
    py("python-exception", "import json\njson.loads('x')\n", "JSONDecodeError: Expecting value", line=3),
    py("python-relative-file", "open('data.txt')\n", "Scripts run in their own directory: it looked for", line=2),
    py("python-no-file", "open('/no/such/file')\n", "there is no file '/no/such/file' in x.py line 2", line=2),
    py(
        "python-no-program",
        "import subprocess\nsubprocess.run(['pyhton3'])\n",
        "the program 'pyhton3', which is not on PATH",
    ),
    py(
        "python-locale",
        f"print('{CT}\\n\\nä')\n",
        "the locale's encoding is ascii",
        settings={"env": {"PYTHONIOENCODING": "ascii"}},
    ),
    py(
        "python-surrogates",
        f"print('{CT}\\n\\n\\udce4')\n",
        "decoded from bytes that are not UTF-8",
        settings={"env": {"PYTHONIOENCODING": "utf-8:strict"}},
    ),
    py("python-decode", "open('x.bin').read()\n", "bytes (0xff) that are not utf-8", files={"cgi-bin/x.bin": "\udcff"}),
    py("python-bytes-to-text", "import sys\nsys.stdout.write(b'x')\n", "it writes bytes to sys.stdout", line=3),
    py(
        "python-text-to-bytes",
        "import sys\nsys.stdout.buffer.write('x')\n",
        "it gives text to what takes bytes",
        line=3,
    ),
    py("python-concatenation", "print('a' + 1)\n", 'can only concatenate str (not "int") to str', line=2),
    py("python-no-body", "import os\nint(os.environ['CONTENT_LENGTH'])\n", "this request has no body", line=3),
    py("python-no-body", "import os\nint(os.environ.get('CONTENT_LENGTH'))\n", "this request has no body", line=3),
    py("python-no-variable", "import os\nos.environ['HTTP_AUTHORIZATION']\n", "pass_authorization"),
    py("python-no-variable", "import os\nos.environ['HTTP_REFERER']\n", "HTTP_REFERER is not set in this request"),
    py("python-no-variable", "import os\nos.environ['PATH_INFO']\n", "Write os.environ.get('PATH_INFO', '')"),
    py("python-no-variable", "import os\nos.environ['DB_PASSWORD']\n", "the variable 'DB_PASSWORD' is not set"),
    py("python-no-field", "form = {}\nprint(form['name'])\n", "the request has no field 'name'", line=3),
    py("python-input", "name = input()\n", "it asks for input(), and a request has no keyboard", line=2),
    py(
        "sqlite-write", "import sqlite3\nsqlite3.connect('/no/such/dir/x.db')\n", "SQLite: unable to open database file"
    ),
    py("python-memory", "raise MemoryError\n", "it needs more memory than it may have"),
    py(
        "limit-open-files",
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (9, 9))\nx = [open(__file__) for _ in 'x' * 9]\n",
        "it has more files open than it may",
        line=4,
    ),
    py(
        "limit-file-size",
        "import resource, tempfile\nresource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))\n"
        "tempfile.TemporaryFile(buffering=0).write(b'x' * 9)\ntempfile.TemporaryFile().write(b'x' * 90000)\n",
        "a file that is larger than its limit",
        line=5,
    ),
    py("disk-full", "open('/dev/full', 'wb', 0).write(b'x')\n", "it cannot write: No space left on device", line=2),
    py(
        "python-memory",
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28))\nx = bytes(1 << 30)\n",
        "it needs more memory than it may have",
        line=4,
    ),
    py("python-2", "import urllib\nurllib.quote('x')\n", "this is Python 2 source", line=3),
    py("python-recursion", "def f(): f()\nf()\n", "a function calls itself without an end"),
    py("last-words", "import sys\nsys.exit('cannot read the configuration')\n", "wrote: cannot read the configuration"),
    py("never-called", f"def main():\n    print('{CT}\\n')\n", "defines main and calls nothing", line=2),
    py("python-main", f"if __name__ == 'main':\n    print('{CT}\\n')\n", "which is never true", line=2),
    py("no-output", "pass\n", "there was no output"),
    py("bytes-printed", f"print(b'{CT}\\n\\n')\n", "it prints the text of a bytes object", line=2),
    py(
        "unflushed-header",
        f"import sys\nprint('{CT}\\n')\nsys.stdout.buffer.write(b'<p>x</p>\\n')\n",
        "stdout.buffer",
        line=4,
    ),
    py(
        "unflushed-header",
        f"import os\nprint('{CT}\\n')\nos.system('echo hello')\n",
        "the header waits in a buffer",
        line=4,
    ),
    py(
        "no-empty-line",
        f"print('{CT}')\nprint('<h1>x</h1>')\n",
        "the empty line between header and body is missing",
        line=2,
    ),
    py("leading-empty-line", f'print("""\n{CT}\n\nx""")\n', "the output begins with an empty line", line=3),
    py("indented-header", f"print(' {CT}\\n')\n", "the header is indented", line=2),
    py("late-header", f"print('debug')\nprint('{CT}\\n')\n", "the header comes too late, in output line 2", line=2),
    py("no-header", "print('<html><body>x</body></html>')\n", "it prints HTML without a header: output line 1", line=2),
    py("no-header", "import json\nprint(json.dumps({'a': 1}))\n", "it prints JSON without a header"),
    py("no-header", "print('hello world')\n", "it prints text without a header", line=2),
    py(
        "quoted-header",
        "print(repr('Content-Type: text/html'))\nprint()\n",
        "printed with its quotation marks",
        status=200,
    ),
    py(
        "background",
        "import os\nif os.fork():\n    os._exit(0)\nos.setsid()\nos.close(1)\n",
        "what it left in the background answers nobody",
    ),
    Case(
        rule="python-option",
        text=f"#!{os.path.realpath(sys.executable)} -u -x\nprint(1)\n",
        words="all that follows the interpreter is one word",
    ),
]

OTHERS = [
    perl("perl-no-module", "use No::Such_Module;\n", "Debian's package is libno-such-module-perl", line=2),
    perl("perl-inc", 'require "cgi-lib.pl";\n', "where it is", files={"cgi-bin/cgi-lib.pl": "1;"}, line=2),
    perl("perl-no-library", 'require "no-lib.pl";\n', "there is no Perl library no-lib.pl", line=2),
    perl("perl-syntax", f'print "{CT}\\n\\n"\nprint "x";\n', 'syntax error in line 3, near "print"', line=3),
    perl("perl-syntax", 'print "x;\n', "Can't find string terminator", line=2),
    perl("perl-syntax", "if (1) {\n print 1;\n", "Missing right curly", line=3),
    perl("perl-syntax", "use warnings\nprint 1;\n", "a semicolon is missing after use warnings", line=3),
    sh("shell-bash", "[ $REQUEST_METHOD == GET ] || exit 1\n", "== is bash's", line=2),
    perl("perl-no-cgi", "print header;\n", "print header needs CGI.pm", line=2),
    sh("echo-options", f"echo -e '{CT}\\n'\n", "the echo of sh has no options, and prints them: b'-e Content-", line=2),
    sh("misspelt-field", f"echo '{CT}'; echo 'X-Powered By: me'; echo\n", "its name has a blank", line=2),
    sh("shell-arithmetic", "x=0; echo $((1 / x))\n", "division by zero", line=2),
    sh("shell-cannot-create", ". ./config.sh\n", "line 2: ./config.sh: No such file", line=2),
    sh("shell-no-command", "exec /no/such/program\n", "runs '/no/such/program', and there is no such command", line=2),
    ruby("ruby-no-file", "require './nolib'\n", "Ruby finds no file './nolib'", line=2),
    py("python-exception", "'\\u20ac'.encode('ascii')\n", "UnicodeEncodeError: 'ascii' codec can't encode", line=2),
    py(
        "endless-loop",
        "import threading\ndef f():\n    while True: pass\nthreading.Thread(target=f).start()\n",
        "it computed all the time",
        settings={"timeout": 2},
        status=504,
    ),
    perl("perl-strict", "use strict;\n$x = 1;\n", "the variable $x is not declared", line=3),
    perl("perl-bareword", "use strict;\nmy $x = hello;\n", 'the word "hello" in line 3', line=3),
    perl("perl-no-sub", "foo();\n", "there is no sub foo, which line 2 calls", line=2),
    perl(
        "perl-died", 'open(F, "/no/x") or die "cannot open: $!";\n', "cannot open: No such file or directory in line 2"
    ),
    perl("perl-died", "print 1 / 0;\n", "Illegal division by zero in line 2", line=2),
    Case(
        rule="perl-taint",
        text="#!/usr/bin/perl -T\nsystem('ls');\n",
        words="insecure $ENV{PATH} while running with -T",
        program=("perl", "perl"),
    ),
    Case(
        rule="perl-taint-late",
        text="#!/usr/bin/perl -T\nprint 1;\n",
        words="Perl was started without it",
        name="x.pl",
        settings={"interpreters": {".pl": "perl"}},
        program=("perl", "perl"),
    ),
    perl("literal-newline", f"print '{CT}\\n\\n<p>x</p>';\n", r"has \n as two characters", line=2),
    perl("unflushed-header", f'print "{CT}\\n\\n";\nsyswrite(STDOUT, "<p>x</p>\\n");\n', "Write $| = 1;", line=3),
    sh(
        "shell-no-command",
        f"ehco '{CT}'\necho\n",
        "line 2 runs 'ehco', and there is no such command. Did you mean echo?",
    ),
    sh("shell-no-command", "x = 1\n", "no such command"),
    sh("shell-syntax", "if true; then\necho x\n", "Syntax error: end of file unexpected", line=4),
    sh("shell-syntax", 'echo "x\n', "Unterminated quoted string"),
    sh("shell-bash", "[[ a = b ]]\n", "uses [[, which bash has and sh has not", line=2),
    sh("shell-bash", "x=(1 2)\n", "this is written for bash"),
    sh("shell-unset", "set -u\necho $nope\n", "uses the variable nope, which is not set", line=3),
    sh("shell-cannot-create", "echo x > /no/such/x\n", "/no/such/x: Directory nonexistent", line=2),
    sh("literal-newline", f"printf '%s\\n' '{CT}\\n\\n'\n", r"has \n as two characters", line=2),
    sh("no-output", "exit 3\n", "there was no output"),
    sh("killed", "kill -9 $$\n", "It was killed by SIGKILL"),
    sh("segfault", "kill -11 $$\n", "It was killed by SIGSEGV: it touched memory"),
    sh("limit-cpu", "kill -XCPU $$\n", "it used more CPU time than its limit"),
    sh("limit-file-size", "kill -XFSZ $$\n", "a file that is larger than its limit"),
    sh("arithmetic", "kill -FPE $$\n", "it divided by zero"),
    sh("bus-error", "kill -BUS $$\n", "memory that is not there"),
    sh("abort", "kill -ABRT $$\n", "it gave up by abort()"),
    sh("illegal-instruction", "kill -ILL $$\n", "another processor"),
    sh("forbidden-call", "kill -SYS $$\n", "a system call that is forbidden"),
    sh("terminated", "kill -TERM $$\n", "asked it to end"),
    sh("broken-pipe", "kill -PIPE $$\n", "wrote to something that was closed"),
    sh("alarm", "kill -ALRM $$\n", "its own alarm()"),
    sh("signal", "kill -USR1 $$\n", "was killed by SIGUSR1"),
    sh(
        "assertion",
        'echo "x: x.c:3: main: Assertion \\`n > 0\' failed." >&2; kill -ABRT $$\n',
        "'n > 0' failed in line 3",
    ),
    sh(
        "heap", "echo 'free(): double free detected in tcache 2' >&2; kill -ABRT $$\n", "the program damaged its memory"
    ),
    sh("no-memory", "echo 'x: Cannot allocate memory' >&2; exit 1\n", "it needs more memory than it may have"),
    sh(
        "no-processes", "echo 'x: fork: Resource temporarily unavailable' >&2; exit 1\n", "may not start more processes"
    ),
    sh(
        "shared-library",
        "echo './x: error while loading shared libraries: libfoo.so.1: cannot open shared object file:"
        " No such file or directory' >&2; exit 127\n",
        "needs the shared library libfoo.so.1",
    ),
    sh(
        "glibc",
        'echo "./x: /lib/libc.so.6: version \\`GLIBC_2.99\' not found (required by ./x)" >&2; exit 1\n',
        "GLIBC_2.99",
    ),
    sh(
        "lua-error",
        "echo 'lua: x.lua:3: attempt to call a nil value' >&2; exit 1\n",
        "Lua: attempt to call a nil value",
    ),
    sh("http-status-line", f"printf 'HTTP/1.1 200 OK\\n{CT}\\n\\nx'\n", "Write Status: 200 OK in its place", line=2),
    sh("wrong-status", f"printf 'Status: OK 200\\n{CT}\\n\\nx'\n", "Write Status: 200 OK", line=2),
    sh("wrong-status", "printf 'Status: abc\\n\\n'\n", "is not three digits and a reason"),
    sh("wrong-status", "printf 'Status: 103 Early Hints\\n\\n'\n", "a script gives the final one. Write 200 to 599"),
    sh("other", f"printf '{CT}\\nX: a\\001b\\n\\n'\n", "output line 2 has a control character in a header field"),
    sh("nph", "echo hello\n", "or have another name. It exited with status 0.", name="nph-x"),
    sh("nph", f"printf 'HTTP/2 200\\n{CT}\\n\\nx'\n", "let it print HTTP/1.1 200 OK first", name="nph-x"),
    sh("nph", "printf 'HTTP/1.1 200 OK\\nx\\n\\n'\n", "output line 2 is not a header field", name="nph-x"),
    sh(
        "nph",
        "printf 'HTTP/1.1 200 OK\\nTransfer-Encoding: chunked\\n\\n0\\n\\n'\n",
        "must leave Transfer-Encoding to the server",
        name="nph-x",
    ),
    sh("folded-field", f"printf '{CT};\\n charset=x\\n\\nx'\n", "output line 2 continues the field before it", line=2),
    sh("no-empty-line", f"printf '{CT}\\n  <p>x</p>\\n\\nx'\n", "the empty line between header and body", line=2),
    sh("misspelt-field", "echo 'Content-type = text/html'; echo; echo x\n", "it has = in place of the colon", line=2),
    sh("misspelt-field", "echo 'Content-Type text/html'; echo; echo x\n", "it has no colon", line=2),
    sh("misspelt-field", "echo 'Content Type: text/html'; echo; echo x\n", "Write Content-Type: text/html", line=2),
    sh("misspelt-field", "echo 'Content-Type : text/html'; echo; echo x\n", "a blank stands between name and colon"),
    sh("no-empty-line", f"echo {CT}\n", "the empty line that ends the header is missing", line=2),
    sh("no-empty-line", "echo Location: /x\n", "the empty line that ends the header is missing", line=2),
    sh("blank-line-not-empty", f"echo '{CT}'; echo '  '; echo x\n", "which should end the header, is not empty: b'  '"),
    sh("cr-output", f"printf '{CT}\\r\\r<p>x</p>'\n", "the lines of the header end in CR alone"),
    sh("output-byte-order-mark", f"printf '\\357\\273\\277{CT}\\n\\nx'\n", "the output begins with a byte order mark"),
    sh("output-utf-16", "printf 'C\\0o\\0n\\0t\\0e\\0n\\0\\n\\0\\n\\0\\n\\n'\n", "printed as UTF-16"),
    sh("only-blank", "echo\n", "it prints only empty lines"),
    sh("no-header", "printf 'usage: x NAME\n'; exit 2\n", "it prints text without a header", line=2),
    Case(
        rule="source-printed",
        text=SH + "printf '<?php echo 1; ?>\\n\\n'\n",
        words="it prints PHP source",
    ),
    Case(
        rule="no-header", text=SH + "printf '\\211PNG\\r\\n\\032\\n\\n'\n", words="it prints an image without a header"
    ),
    php("php-syntax", '<?php\necho "a"\necho "b";\n', 'PHP: syntax error, unexpected token "echo"', line=4, status=500),
    php(
        "php-error",
        "<?php\nfoo();\n",
        "PHP: Call to undefined function foo()",
        line=3,
        status=500,
    ),
    php(
        "php-removed",
        "<?php\nmysql_connect('x');\n",
        "the function mysql_connect() is no part of PHP any more",
        line=3,
        status=500,
    ),
    php(
        "php-extension", "<?php\nldap_connect('x');\n", "the extension that has it is not installed", line=3, status=500
    ),
    php("php-without-cgi", "<?php\necho '<p>x</p>';\n", "php, which prints no header, runs it", interpreter="php"),
    ruby("ruby-error", "puts foo\n", "undefined local variable or method", line=2),
    ruby("ruby-syntax", "def x\nputs 1\n", "Ruby: syntax error", line=3),
    ruby("ruby-no-library", "require 'no_such_library'\n", "Ruby has no library 'no_such_library'"),
    node("node-error", "console.log(x)\n", "Node: ReferenceError: x is not defined in line 2", line=2),
    node("node-error", "JSON.parse('x')\n", "Node: SyntaxError: Unexpected token 'x'", line=2),
    node("node-error", "let x = ;\n", "Node: SyntaxError: Unexpected token ';' in line 2", line=2),
    node("node-no-module", "require('no-such-module')\n", "there is no Node module 'no-such-module'"),
    py("endless-loop", "while True: pass\n", "it computed all the time", settings={"timeout": 2}, status=504),
    sh("stopped", "kill -STOP $$\n", "it was stopped by a signal. Look", settings={"timeout": 0.5}, status=504),
    sh("waits-for-child", "sleep 300\necho\n", "it waited for 'sleep 300'", settings={"timeout": 2}, status=504),
    py(
        "waits",
        "import sys, time\nprint('step 3', file=sys.stderr, flush=True)\ntime.sleep(300)\n",
        "The last line that it wrote: 'step 3'",
        settings={"timeout": 3},
        status=504,
    ),
    sh(
        "waits-for-child",
        f"echo '{CT}'; head -c 50000 /dev/zero | tr '\\0' x; echo; echo last words; sleep 300; echo\n",
        "The last line that it wrote: 'last words'",
        settings={"timeout": 2},
        status=504,
    ),
]

AFTER_THE_HEADER = [
    py(
        "misspelt-name",
        "print('Contnet-Type: text/html\\n')\n",
        "the header field 'Contnet-Type' means nothing",
        line=2,
    ),
    py("python-exception", f"print('{CT}\\n', flush=True)\n1 / 0\n", "division by zero in x.py line 3", line=3),
    py(
        "python-exception",
        f"print('{CT}\\n')\nprint(x)\n",
        "It had printed the header already, so its answer may be incomplete",
    ),
    perl("perl-died", f'print "{CT}\\n\\n"; die "no database";\n', "no database in line 2", line=2),
    sh("last-words", f"echo '{CT}'; echo; echo oops >&2; exit 4\n", "exited with status 4 and wrote: oops"),
    sh(
        "other",
        f"printf 'Content-Length: 2\\n{CT}\\n\\nlonger'\n",
        "output after its Content-Length of 2 bytes was cut off. Content-Length is the number of bytes",
    ),
    sh("other", f"echo '{CT}'; echo; exit 4\n", "/cgi-bin/x.cgi: exited with status 4."),
]

CASES = [*(dataclasses.replace(case, status=200) for case in AFTER_THE_HEADER), *START, *PYTHON, *OTHERS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a request: the status, the body, the log, and what was found out."""

    status: int
    body: str
    log: str
    diagnosis: Diagnosis | None


def ask(
    site: Site,
    path: str,
    *,
    method: str = "GET",
    query: str = "",
    environ: dict[str, Any] | None = None,
    **settings: Any,
) -> Answer:
    """One request to the application; its answer must be complete."""
    log = io.StringIO()
    given = environ or {}
    environ = EnvironBuilder(path=path, method=method, query_string=query, errors_stream=log).get_environ() | given
    app = create_app(site.directory, **settings)
    try:
        started: list[str] = []
        pieces: list[bytes] = []

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            started.append(status)
            return pieces.append

        app_iter = app(environ, start_response)
        try:
            body = b"".join([*app_iter]).decode("utf-8", "replace")
        finally:
            getattr(app_iter, "close", lambda: None)()
    finally:
        app.close()
    return Answer(status=int(started[0][:3]), body=body, log=log.getvalue(), diagnosis=environ.get("wsgicgi.diagnosis"))


def put(site: Site, case: Case) -> Path:
    for name, text in case.files.items():
        site.file(name, text.encode("utf-8", "surrogateescape"), 0o755)
    if case.program is not None:
        find(case.program[0], package=case.program[1])
    return site.script(case.name, case.text, case.mode)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_first_line_of_the_log_names_the_cause(site: Site, case: Case) -> None:
    """Cause, place and remedy in one line, before anything that the script wrote; the client gets the status alone."""
    script = put(site, case)
    answer = ask(site, f"/cgi-bin/{case.name}", **{"timeout": 20, **case.settings})
    lines = answer.log.splitlines()
    is_slow = answer.status == 504  # then, what it wrote is in the log already
    first, *others = [line for line in lines if not is_slow or line.endswith("]")]
    assert case.words in first
    assert re.fullmatch(r"/cgi-bin/\S+: .* \[[0-9a-f]{16}\]", first)
    assert not [line for line in others if re.search(r"\[[0-9a-f]{16}\]$", line)]
    found = answer.diagnosis
    assert found is not None
    assert (found.rule, found.line) == (case.rule, case.line or found.line)
    if case.line:
        assert found.file == str(script)
    assert answer.status == case.status
    if answer.status != 500 or case.rule[:3] != "php":
        assert str(site.directory) not in answer.body


def head_of_python() -> bytes:
    with open(sys.executable, "rb") as file:
        return file.read(4096)


EVIDENCE = {
    "missing": (FileFacts(path="/s/x", exists=False), errno.ENOENT, "there is no file /s/x"),
    "dangling-link": (
        FileFacts(path="/s/x", exists=False, link_to="/no"),
        errno.ENOENT,
        "to /no, which does not exist",
    ),
    "link-loop": (FileFacts(path="/s/x", exists=False, link_to="x", is_link_loop=True), errno.ELOOP, "back to itself"),
    "directory": (FileFacts(path="/s/x", is_directory=True), errno.EACCES, "/s/x is a directory"),
    "not-executable": (
        FileFacts(path="/s/x", mode=0o644, size=9, head=b"#!/bin/sh"),
        errno.EACCES,
        "/s/x is not executable (mode 0644). Try: chmod 755 /s/x",
    ),
    "not-executable-by-us": (
        FileFacts(path="/s/x", mode=0o700, owner="eve", size=9, head=b"#!/bin/sh"),
        errno.EACCES,
        "may not be executed by everyone (mode 0700, owned by eve)",
    ),
    "noexec": (
        FileFacts(path="/s/x", is_noexec=True, size=9, head=b"#!/bin/sh"),
        errno.EACCES,
        "on a file system that is mounted noexec",
    ),
    "closed-directory": (
        FileFacts(path="/s/x", size=9, head=b"#!/bin/sh", closed_directory="/s"),
        errno.EACCES,
        "the directory /s may not be searched by everyone",
    ),
    "bad-interpreter": (
        FileFacts(path="/s/x", size=9, head=b"#!/bin/sh\n"),
        errno.ENOEXEC,
        "line 1 names '/bin/sh', which is no program for this machine",
    ),
    "endless-interpreter": (
        FileFacts(path="/s/x", size=9, head=b"#!/bin/sh\n"),
        errno.ELOOP,
        "line 1 names '/bin/sh', a script whose first line names another one",
    ),
    "no-loader": (
        FileFacts(path="/s/x", size=4096, head=head_of_python()),
        errno.ENOENT,
        "which does not exist: it was compiled for another system",
    ),
    "damaged-program": (
        FileFacts(path="/s/x", size=4096, head=head_of_python()),
        errno.ENOEXEC,
        "/s/x is a damaged program",
    ),
    "refused": (FileFacts(path="/s/x", size=9, head=b"#!/bin/sh"), errno.EIO, "Input/output error: /s/x"),
}


@pytest.mark.parametrize("rule", EVIDENCE)
@pytest.mark.skipif(sys.platform != "linux", reason="ELF, and the words of Linux")
def test_what_the_system_refuses_is_told_from_the_file(rule: str) -> None:
    """What a test cannot have done to it (it may be root): from the facts and the errno alone."""
    file, number, words = EVIDENCE[rule]
    evidence = Evidence(fault=Fault.START, file=file, errno=number, strerror=os.strerror(number), command=(file.path,))
    found = diagnose(evidence)
    assert found.rule == rule
    assert words in str(found)


RAISED = 'Traceback (most recent call last):\n  File "/s/x", line 2, in <module>\n'
WORDS = {
    "python-cannot-open": "/usr/bin/python3: can't open file '/s/x.py': [Errno 13] Permission denied",
    "python-damaged": "Fatal Python error: init_fs_encoding: failed to get the Python codec",
    "python-permission": RAISED + "PermissionError: [Errno 13] Permission denied: '/etc/x.log'",
    "limit-processes": RAISED + "BlockingIOError: [Errno 11] Resource temporarily unavailable",
    "python-escape": RAISED + "AttributeError: module 'cgi' has no attribute 'escape'",
    "python-removed-module": RAISED + "ModuleNotFoundError: No module named 'cgi'",
    "python-nul": '  File "/s/x", line 1\nSyntaxError: source code cannot contain null bytes',
    "perl-cannot-open": 'Can\'t open perl script "/s/x": Permission denied',
    "php-no-input": "No input file specified.",
    "shell-crlf": "/s/x: line 2: $'\\r': command not found",
    "shell-option": "/bin/sh: 0: Illegal option - ",
    "env": "env: cannot run it",
}


@pytest.mark.parametrize("rule", WORDS)
def test_what_a_program_wrote_is_understood(rule: str) -> None:
    """Messages of programs in states or versions that this machine does not have."""
    file = FileFacts(path="/s/x", size=9, head=b"#!/bin/sh\n")
    stderr = WORDS[rule].encode()
    found = diagnose(Evidence(fault=Fault.OUTPUT, file=file, cwd="/s", stderr=stderr, code=1, problem="x"))
    assert found.rule == rule


def test_a_script_that_may_not_be_read_is_told_from_its_mode() -> None:
    """Executable, but not readable for its interpreter: each interpreter has its own words for that."""
    file = FileFacts(path="/s/x", mode=0o711, owner="eve", size=9, head=b"#!/bin/sh\n")
    stderr = b"/bin/sh: 0: cannot open /s/x: Permission denied\n"
    found = diagnose(Evidence(fault=Fault.OUTPUT, file=file, cwd="/s", stderr=stderr, code=2, problem="x"))
    assert found.rule == "unreadable"
    assert found.command == "chmod 755 /s/x"


def test_every_rule_has_a_case() -> None:
    """A rule without a script that it finds would be a guess."""
    rules = set()
    for module in (start, python, python2, imports, programs, ends, output):
        text = inspect.getsource(module)
        rules |= set(re.findall(r'rule="([a-z][\w-]+)"', text))
        rules |= set(re.findall(r'(?:_(?:at_line_1|made|said|placed)\(\s*\w+,|\.diagnosis\()\s*"([\w-]+)"', text))
        rules |= {rule for rule, _, _ in getattr(module, "_SIGNALS", {}).values()}
    cases = {case.rule for case in CASES} | set(EVIDENCE) | set(WORDS) | {"unreadable"}
    assert rules - cases == set()
    assert len(rules) > 100


def test_an_import_of_cgi_says_what_to_install() -> None:
    """The most common failure after an upgrade to Python 3.13."""
    stderr = WORDS["python-removed-module"].encode()
    file = FileFacts(path="/s/x", size=9, head=f"#!{sys.executable}\n".encode())
    found = diagnose(Evidence(fault=Fault.OUTPUT, file=file, cwd="/s", stderr=stderr, code=1))
    assert str(found) == (
        "the module 'cgi' is no part of Python since 3.13 in x line 2. pip install legacy-cgi brings it back."
        f" It exited with status 1. Try: {sys.executable} -m pip install legacy-cgi"
    )


#: Where the answer is no error, the script's last words may come after it.
SAMPLE = [
    case
    for case in CASES
    if case.rule in ("crlf", "python-exception", "no-header", "perl-no-module", "php-error") and case.status != 200
]


@pytest.mark.parametrize("kind", ["gunicorn", "dev"])
def test_real_servers_log_the_cause_first(kind: str, site: Site, tmp_path: Path) -> None:
    """The same line, before what the script wrote, in the log of a server in production and of wsgicgi-dev."""
    with serving(kind, site.directory, tmp_path / "log") as server:
        for case in SAMPLE:
            put(site, case)
            server.begin_log()
            _, body = server.get(f"/cgi-bin/{case.name}")
            assert str(site.directory).encode() not in body
            wait_until(lambda: re.search(r" \[[0-9a-f]{16}\]\n", server.log), "the cause is in the log")
            lines = [line for line in server.log.splitlines() if f"/cgi-bin/{case.name}: " in line]
            assert case.words in lines[0]


def test_standard_error_of_a_script_that_runs_is_not_held_back(site: Site, tmp_path: Path) -> None:
    """Only for a moment: a slow script's lines are seen while it works."""
    site.sh("slow", f"echo 'step 1' >&2; while ! [ -e {tmp_path}/go-on ]; do sleep 0.05; done; echo '{CT}'; echo\n")
    with serving("gunicorn", site.directory, tmp_path / "log") as server:
        client = threading.Thread(target=server.get, args=("/cgi-bin/slow",))
        client.start()
        wait_until(lambda: "/cgi-bin/slow: step 1\n" in server.log, "the line is in the log")
        (tmp_path / "go-on").touch()
        client.join(20)


def test_a_shell_that_goes_on_after_an_error_is_explained(site: Site) -> None:
    """The answer is good as far as the shell can tell; the log says what was meant."""
    site.sh("x", f"echo '{CT}'; echo; name = Joe; echo $name\n")
    answer = ask(site, "/cgi-bin/x")
    assert (answer.status, answer.diagnosis) == (200, None)
    assert answer.log.startswith(
        "/cgi-bin/x: line 2 runs 'name', and there is no such command. An assignment has no blanks around its =."
    )


def test_a_file_system_that_runs_nothing_is_named(tmp_path: Path) -> None:
    """chmod would not help there; the test has a mount of its own where it may have one."""
    unshare = find("unshare", package="util-linux")
    test = (
        "import sys, wsgicgi.diagnosis as d\n"
        "print(d.why_not_executable(sys.argv[1]).rule, d.look_at(sys.argv[1]).is_noexec)\n"
    )
    steps = """mount -t tmpfs -o noexec tmpfs "$1" &&
    echo '#!/bin/sh' > "$1/x" && chmod 755 "$1/x" && exec "$2" -c "$3" "$1/x" """
    command = [unshare, "--mount", "--map-root-user", "sh", "-c", steps, "sh", str(tmp_path), sys.executable, test]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "noexec" not in done.stdout:
        assert "denied" in done.stderr or "not permitted" in done.stderr, done.stderr
        pytest.skip("no mounts here")
    assert done.stdout == "noexec True\n"


@pytest.fixture
def open_site() -> Iterator[Site]:
    """A site that everybody may enter, as pytest's directories are not."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield Site(Path(place) / "site")


@pytest.mark.root_only
def test_a_first_line_that_nobody_can_run_is_named_whoever_it_is(open_site: Site) -> None:
    """Where scripts run as somebody else, the system says the same of a closed file and of a wrong first line."""
    open_site.script("x", "#!/usr/bin\n")
    answer = ask(open_site, "/cgi-bin/x", run_as="nobody")
    assert answer.status == 403
    assert "nobody may not run" in answer.log
    assert "line 1 names the directory '/usr/bin' as the interpreter. Write the path of a program." in answer.log


@pytest.mark.root_only
def test_the_program_that_could_not_run_is_named(open_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script without a first line is run by our own Python, which may be in root's home."""
    closed = open_site.directory.parent / "closed"
    closed.mkdir(mode=0o700)
    (closed / "python3").symlink_to("/bin/sh")
    open_site.script("x.py", "print()\n")
    monkeypatch.setattr("wsgicgi.gateway.sys", SimpleNamespace(executable=str(closed / "python3")))
    answer = ask(open_site, "/cgi-bin/x.py", run_as="nobody")
    assert f"nobody may not run {closed}/python3" in answer.log


@pytest.mark.root_only
def test_an_interpreter_that_is_named_can_be_run_by_everybody(tmp_path: Path) -> None:
    """Root's PATH may begin in root's home, where scripts that run as nobody find nothing."""
    tmp_path.chmod(0o700)
    own = tmp_path / "sh"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    assert facts.find_program("sh", f"{tmp_path}:/bin") != str(own)
    own.rename(tmp_path / "only-here")
    assert facts.find_program("only-here", f"{tmp_path}:/bin") == str(tmp_path / "only-here")
