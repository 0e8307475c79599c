"""What Perl, shells, PHP, Ruby, Node and the loader of programs write to standard error, and what it means."""

from __future__ import annotations

import difflib
import os
import re

from . import facts, start
from .base import Diagnosis, Evidence, Row, cut, quoted

# Debian's packages of Perl modules are lib<name>-perl, but for these (a module's name begins with the key).
_PERL_PACKAGES = {
    "CGI": "libcgi-pm-perl",
    "LWP": "libwww-perl",
    "HTTP::Request": "libwww-perl",
    "Template": "libtemplate-perl",
    "Image::Magick": "libimage-magick-perl",
    "Net::SSLeay": "libnet-ssleay-perl",
    "Moose": "libmoose-perl",
    "Apache2": "libapache2-mod-perl2",
    "Gtk3": "libgtk3-perl",
    "SOAP::Lite": "libsoap-lite-perl",
}

# Parts of CGI.pm that have packages of their own.
_PERL_OWN = {"CGI::Session": "libcgi-session-perl", "CGI::Fast": "libcgi-fast-perl", "CGI::SpeedyCGI": ""}


def perl_module(evidence: Evidence) -> Diagnosis | None:
    """``Can't locate``: a module that is not installed, or a file that lies beside the script."""
    pattern = r"Can't locate (?P<path>\S+) in @INC.* at (?P<file>\S.*) line (?P<line>\d+)"
    found = re.search(pattern, evidence.error_text)
    if found is None:
        return None
    file, line, path = found["file"], int(found["line"]), found["path"]
    at = f" ({os.path.basename(file)} line {line})"
    if facts.is_file(os.path.join(evidence.cwd, path)):
        what = f"Perl does not look for {path} in the script's directory, where it is{at}"
        remedy = "Since 5.26 '.' is no part of @INC."
        command = "use FindBin; use lib $FindBin::Bin;" if path.endswith(".pm") else f'require "./{path}";'
        return Diagnosis(rule="perl-inc", what=what, file=file, line=line, remedy=remedy, command=command)
    if not path.endswith(".pm"):
        what = f"there is no Perl library {path}{at}"
        return Diagnosis(rule="perl-no-library", what=what, file=file, line=line, remedy="Put it beside the script.")
    module = path.removesuffix(".pm").replace("/", "::")
    package = perl_package(module)
    is_debian = package and facts.perl_has_debian_package_names()
    return Diagnosis(
        rule="perl-no-module",
        what=f"the Perl module {module} is not installed{at}",
        file=file,
        line=line,
        remedy=f"Debian's package is {package}." if package else "",
        command=f"apt install {package}" if is_debian else f"cpan {module}",
    )


def perl_package(module: str) -> str:
    """The usual name of the Debian package that has a Perl module."""
    for names in (_PERL_OWN, _PERL_PACKAGES):
        for prefix, package in names.items():
            if module == prefix or module.startswith(prefix + "::"):
                return package
    return f"lib{module.lower().replace('::', '-').replace('_', '-')}-perl"


_AT = r" at (?P<file>/?\S[^\n]*?) line (?P<line>\d+)"

PERL = (
    Row(
        rule="perl-syntax",
        pattern=rf"^syntax error{_AT}, near \"(?P<near>(?:print|my|our|use|\$|@|if|for|return|open|\w+)[^\n\"]*)",
        what='Perl: syntax error in line {line}, near "{near}"',
        remedy="Often the line before lacks its semicolon.",
        command="perl -c {script}",
    ),
    Row(
        rule="perl-syntax",
        pattern=rf"^(?P<message>syntax error|Missing right .*|Unmatched right .*|Can't find string terminator .*?"
        rf"|Unrecognized character .*?|Can't use .*?|Scalar found where operator expected){_AT}",
        what="Perl: {message} in line {line}",
        command="perl -c {script}",
    ),
    Row(
        rule="perl-syntax",
        pattern=rf"^Unknown warnings category '[^']*'{_AT}",
        what="Perl: a semicolon is missing after use warnings, before line {line}",
        command="perl -c {script}",
    ),
    Row(
        rule="perl-strict",
        pattern=rf"^Global symbol \"(?P<name>[^\"]+)\" requires explicit package name.*{_AT}",
        what="Perl: the variable {name} is not declared, which use strict demands, in line {line}",
        remedy="Write my {name}.",
    ),
    Row(
        rule="perl-bareword",
        pattern=rf"^Bareword \"(?P<name>[^\"]+)\" not allowed while \"strict subs\" in use{_AT}",
        what='Perl: the word "{name}" in line {line} has no quotes and no $',
    ),
    Row(
        rule="perl-no-sub",
        pattern=rf"^Undefined subroutine &(?:main::)?(?P<name>\S+) called{_AT}",
        what="Perl: there is no sub {name}, which line {line} calls",
        remedy="Define it, or use the module that has it.",
    ),
    Row(
        rule="perl-taint",
        pattern=rf"^Insecure (?P<name>.*?) while running with -T switch{_AT}",
        what="Perl: insecure {name} while running with -T, in line {line}",
        remedy="Set $ENV{{PATH}} = '/usr/bin:/bin' first, and check what comes from the client by a pattern.",
    ),
    Row(
        rule="perl-taint-late",
        pattern=r"^\"-T\" is on the #! line, it must also be used on the command line(?:" + _AT + ")?",
        what="Perl: -T is in line 1, but Perl was started without it",
        remedy="Make the script executable, or put perl -T into the setting interpreters.",
    ),
    Row(
        rule="perl-cannot-open",
        pattern=r"^Can't open perl script \"(?P<file>[^\"]+)\": (?P<message>.*)",
        what="Perl cannot read {file}: {message}",
        command="chmod a+r {script}",
    ),
)

#: ``die``, and errors at run time: only when nothing above applies, for warnings look the same.
PERL_DIED = Row(
    rule="perl-died",
    pattern=rf"^(?P<message>[^\n]+?){_AT}(?:, <\w*> (?:line|chunk) \d+)?\.\s*\Z",
    what="Perl: {message} in line {line}",
)

# What Perl says after the cause.
_PERL_FOLLOWS = re.compile(r"BEGIN failed--|Compilation failed in require|Execution of .* aborted|\t")

_SHELL_AT = r"^(?P<file>[^\n:]+): (?:line )?(?P<line>\d+): "

SHELL = (
    Row(
        rule="shell-crlf",
        pattern=_SHELL_AT
        + r"[^\n]*?(?:\$'[^']*\\r'|\r): (?:command )?not found|"
        + _SHELL_AT.replace("file", "file2").replace("<line>", "<line2>")
        + r"[^\n]*\r",
        what="the shell script has CR LF line ends",
        remedy="Save it with LF line ends.",
        command=r"sed -i 's/\r$//' {script}",
    ),
    Row(
        rule="shell-bash",
        pattern=_SHELL_AT + r"(?P<word>\[\[|source|declare|local|shopt|function|let|select|typeset|pushd|mapfile):"
        r" not found",
        what="line {line} uses {word}, which bash has and sh has not",
        remedy="Let bash run it.",
        command="sed -i '1s|.*|#!/bin/bash|' {script}",
    ),
    Row(
        rule="shell-bash",
        pattern=_SHELL_AT + r"(?P<message>Bad substitution|Syntax error: \"\(\" unexpected"
        r"|Syntax error: redirection unexpected|Syntax error: Bad for loop variable)",
        what="line {line}: {message}: this is written for bash, and sh runs it",
        command="sed -i '1s|.*|#!/bin/bash|' {script}",
    ),
    Row(
        rule="shell-bash",
        pattern=_SHELL_AT + r"(?P<word>\[|test): [^\n]*unexpected operator",
        what="line {line}: {word} does not know an operator: == is bash's",
        remedy="Write = for ==, or let bash run it.",
        command="sed -i '1s|.*|#!/bin/bash|' {script}",
    ),
    Row(
        rule="shell-syntax",
        pattern=_SHELL_AT + r"(?P<message>[Ss]yntax error[^\n]*|unexpected EOF[^\n]*|Unterminated quoted string)",
        what="the shell says in line {line}: {message}",
        remedy="A quote, fi, done or esac may be missing before it.",
        command="sh -n {script}",
    ),
    Row(
        rule="shell-arithmetic",
        pattern=_SHELL_AT + r"(?P<message>(?:arithmetic expression: )?[^\n]*division by (?:0|zero))",
        what="the shell says in line {line}: {message}",
    ),
    Row(
        rule="shell-unset",
        pattern=_SHELL_AT + r"(?P<name>\w+): (?:parameter not set|unbound variable)",
        what="line {line} uses the variable {name}, which is not set",
    ),
    Row(
        rule="shell-cannot-create",
        pattern=_SHELL_AT + r"(?:\.: )?(?:cannot (?:create|open) )?(?P<name>[^\n:]+): (?P<message>Permission denied"
        r"|Directory nonexistent|No such file(?: or directory)?|Is a directory|Read-only file system)",
        what="line {line}: {name}: {message}",
        remedy="Scripts run in their own directory, as the user whom the server has for them.",
    ),
    Row(
        rule="shell-option",
        pattern=r"^(?P<name>\S*sh): \d*:? ?(?:Illegal option|invalid option) ?(?P<option>-.*)?",
        what="line 1 gives {name} an option that it does not know: {option}",
        remedy="All that follows the interpreter is one word there.",
    ),
)


_SHELL_WORDS = (
    "echo",
    "printf",
    "cat",
    "date",
    "grep",
    "sed",
    "read",
    "test",
    "export",
    "exit",
    "while",
    "done",
    "then",
)


def shell_command(evidence: Evidence) -> Diagnosis | None:
    """``not found``: a word that names no program."""
    pattern = _SHELL_AT + r"(?:exec: )?(?P<word>[^\n:]+): (?:command )?not found"
    found = re.search(pattern, evidence.error_text, re.MULTILINE)
    if found is None:
        return None
    word, line = found["word"].split(" ")[0], int(found["line"])
    path = evidence.metavars.get("PATH")
    text = evidence.source[line - 1] if line <= len(evidence.source) else ""
    if re.search(rf"(?:^|[\s;&|]){re.escape(word)}\s+=", text):
        remedy = "An assignment has no blanks around its =."
    elif facts.find_program(word) and not facts.find_program(word, path):
        remedy = f"It is {facts.find_program(word)}, which is not on the PATH of scripts ({path})."
    else:
        nearest = facts.nearest_program(word, path) or _nearest_word(word)
        remedy = f"Did you mean {os.path.basename(nearest)}?" if nearest else "Install it, or give its full path."
    what = f"line {line} runs {word!r}, and there is no such command"
    return Diagnosis(rule="shell-no-command", what=what, file=found["file"], line=line, remedy=remedy)


def _nearest_word(word: str) -> str:
    return (difflib.get_close_matches(word, _SHELL_WORDS, n=1, cutoff=0.6) or [""])[0]


def env_refused(evidence: Evidence) -> Diagnosis | None:
    """``env`` in line 1 does not find a program."""
    found = re.search(r"^(?:\S*/)?env: (.*)", evidence.error_text, re.MULTILINE)
    if found is None:
        return None
    judged = start.first_line(evidence)
    if judged is not None:
        return judged
    return Diagnosis(rule="env", what=f"env says: {cut(found[1])}", file=evidence.file.path, line=1)


def unreadable(evidence: Evidence) -> Diagnosis | None:
    """An interpreter that may not read the script; executing it is another right."""
    path = evidence.file.path
    found = re.search(rf"^[^\n]*{re.escape(path)}[^\n]*Permission denied", evidence.error_text, re.MULTILINE)
    if found is None or evidence.file.mode & 0o004:
        return None
    return Diagnosis(
        rule="unreadable",
        what=f"{path} may not be read by everyone (mode {evidence.file.mode:04o}, owned by {evidence.file.owner}), and"
        " its interpreter must read it",
        file=path,
        command=f"chmod 755 {quoted(path)}",
    )


PHP = (
    Row(
        rule="php-syntax",
        pattern=r"^(?:PHP )?Parse error: +(?P<message>.*?) in (?P<file>.*) on line (?P<line>\d+)",
        what="PHP: {message} in line {line}",
        remedy="Often the line before lacks its semicolon.",
        command="php -l {script}",
    ),
    Row(
        rule="php-removed",
        pattern=r"^(?:PHP )?Fatal error: +Uncaught Error: Call to undefined function (?P<name>(?:mysql|ereg|split|each"
        r"|create_function|mcrypt)\w*)\(\) in (?P<file>.*?):(?P<line>\d+)",
        what="PHP: the function {name}() is no part of PHP any more (line {line})",
        remedy="Use mysqli or PDO for mysql_*, preg_* for ereg*.",
    ),
    Row(
        rule="php-extension",
        pattern=r"^(?:PHP )?Fatal error: +Uncaught Error: (?P<what>Call to undefined function (?P<name>mb|curl|image"
        r"|simplexml|xml|mysqli|pg|intl|bc|ldap|sqlite)\w*\(\)|Class \"(?P<class>mysqli|PDO|SQLite3|DOMDocument"
        r"|ZipArchive|SimpleXMLElement)\" not found) in (?P<file>.*?):(?P<line>\d+)",
        what="PHP: {what} in line {line}: the extension that has it is not installed",
        remedy="Debian's packages are php-mbstring, php-curl, php-gd, php-xml, php-mysql, php-sqlite3 and the like.",
    ),
    Row(
        rule="php-error",
        pattern=r"^(?:PHP )?Fatal error: +(?:Uncaught (?:Error: )?)?(?P<message>.*?)"
        r"(?: in (?P<file>[^\n]*?)(?::| on line )(?P<line>\d+))$",
        what="PHP: {message} in line {line}",
    ),
    Row(
        rule="php-no-input",
        pattern=r"^No input file specified|^Could not open input file: (?P<name>.*)",
        what="PHP cannot read the script",
        command="chmod a+r {script}",
    ),
)

OTHERS = (
    Row(
        rule="node-no-module",
        pattern=r"^Error: Cannot find module '(?P<name>[^']+)'\nRequire stack:\n- (?P<file>.*)",
        what="there is no Node module {name!r}",
        remedy="Install it in the script's directory.",
        command="npm install {name}",
    ),
    Row(
        rule="node-error",
        pattern=r"^(?P<file>/[^\n:]+):(?P<line>\d+)\n(?:[^\n]*\n)*?(?P<message>[A-Z]\w*Error(?: \[\w+\])?: [^\n]+)",
        what="Node: {message} in line {line}",
    ),
    Row(
        rule="node-error",
        pattern=r"^(?P<message>[A-Z]\w*Error(?: \[\w+\])?: [^\n]+)\n(?:\s+at [^\n]*\n)*?"
        r"\s+at [^\n]*?\(?(?P<file>/[^\n():]+):(?P<line>\d+):\d+\)?",
        what="Node: {message} in line {line}",
    ),
    Row(
        rule="ruby-no-file",
        pattern=r"cannot load such file -- (?P<name>[./]\S*) \(LoadError\)"
        r"(?:[\s\S]*?from (?P<file>/(?!usr/lib)[^\n:]+):(?P<line>\d+):in `<main>')?",
        what="Ruby finds no file {name!r}",
        remedy="Scripts run in their own directory; require_relative looks beside the file itself.",
    ),
    Row(
        rule="ruby-no-library",
        pattern=r"cannot load such file -- (?P<name>\S+) \(LoadError\)(?:[\s\S]*?from (?P<file>/(?!usr/lib)[^\n:]+)"
        r":(?P<line>\d+):in `<main>')?",
        what="Ruby has no library {name!r}",
        remedy="Install it, or put it beside the script and use require_relative.",
        command="gem install {name}",
    ),
    Row(
        rule="ruby-error",
        pattern=r"^(?P<file>[^\n:]+\.?\w*):(?P<line>\d+):in [`'][^']*': (?P<message>.*? \([A-Z][\w:]*\))",
        what="Ruby: {message} in line {line}",
    ),
    Row(
        rule="ruby-syntax",
        pattern=r"^(?P<file>[^\n:]+):(?P<line>\d+): (?P<message>syntax errors?\b[^\n]*|[^\n]*\(SyntaxError\))",
        what="Ruby: {message} in line {line}",
        command="ruby -c {script}",
    ),
    Row(
        rule="lua-error",
        pattern=r"^lua[\d.]*: (?P<file>[^\n:]+):(?P<line>\d+): (?P<message>.*)",
        what="Lua: {message} in line {line}",
    ),
    Row(
        rule="shared-library",
        pattern=r"error while loading shared libraries: (?P<name>[^:\s]+): (?P<message>.*)",
        what="the program needs the shared library {name}, which is not installed",
        remedy="Install it, or set LD_LIBRARY_PATH.",
        command="ldd {script}",
    ),
    Row(
        rule="glibc",
        pattern=r"version `(?P<name>GLIBC\w*_[\d.]+)' not found",
        what="the program was compiled for a newer system: it needs {name}",
        remedy="Compile it here.",
    ),
    Row(
        rule="assertion",
        pattern=r"^(?P<program>[^\n:]+): (?P<file>[^\n:]+):(?P<line>\d+): [^\n]*?Assertion `(?P<message>.*)' failed",
        what="the program's assertion {message!r} failed in line {line}",
    ),
    Row(
        rule="heap",
        pattern=r"^(?P<message>(?:free\(\)|malloc\(\)|double free|munmap_chunk|corrupted|\*\*\* stack smashing)[^\n]*)",
        what="the program damaged its memory: {message}",
        remedy="Look for it with -fsanitize=address.",
    ),
    Row(
        rule="no-memory",
        pattern=r"^(?P<message>[^\n]*(?:Cannot allocate memory|[Oo]ut of memory)[^\n]*)",
        what="it needs more memory than it may have: {message}",
    ),
    Row(
        rule="no-processes",
        pattern=r"^(?P<message>[^\n]*(?:fork|[Cc]annot fork)[^\n]*Resource temporarily unavailable[^\n]*)",
        what="it may not start more processes: {message}",
    ),
)


def _rows(rows: tuple[Row, ...], evidence: Evidence) -> Diagnosis | None:
    text = evidence.error_text
    return next((found for row in rows if (found := row.judge(text, evidence)) is not None), None)


def by_table(evidence: Evidence) -> Diagnosis | None:
    """The tables above, in their order; ``die`` last."""
    for rows in (PERL, SHELL, PHP, OTHERS):
        found = _rows(rows, evidence)
        if found is not None:
            return found
    return None


def in_shell(evidence: Evidence) -> Diagnosis | None:
    """The tables of shells alone."""
    return _rows(SHELL, evidence) or shell_command(evidence)


def php_output(evidence: Evidence) -> Diagnosis | None:
    """PHP's errors, where it shows them in the page instead."""
    if evidence.language != "PHP":
        return None
    text = re.sub(r"<[^>]+>", "", evidence.output.decode("utf-8", "backslashreplace"))
    return next((found for row in PHP[:-1] if (found := row.judge(text, evidence)) is not None), None)


def perl_died(evidence: Evidence) -> Diagnosis | None:
    """The last words of a Perl script that ended with an error."""
    if not evidence.code or evidence.language != "Perl":
        return None
    lines = [line for line in evidence.error_text.splitlines() if not _PERL_FOLLOWS.match(line)]
    return PERL_DIED.judge("\n".join(lines), evidence)


def last_words(evidence: Evidence) -> Diagnosis | None:
    """A script that ended with an error: the last line that it wrote to standard error."""
    if not evidence.code:
        return None
    lines = [line.strip() for line in evidence.error_text.splitlines() if line.strip() and "Node.js v" not in line]
    if not lines:
        return None
    return Diagnosis(
        rule="last-words",
        what=f"it exited with status {evidence.code} and wrote: {cut(lines[-1], 200)}",
        file=evidence.file.path,
    )


#: In the order in which they are asked. A command that is not found comes last: a syntax error tells more.
RULES = (env_refused, perl_module, by_table, shell_command, php_output, perl_died)
