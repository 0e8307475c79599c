"""``wsgicgi-dev check``: what is wrong with the scripts of a directory, without a server and without running them.

The rules are those of the log and of the page (``diagnosis``). Interpreters are asked to read a script, which runs none
of it: Python compiles it and looks for the modules that it imports, shells and PHP have options for it, Perl is only
asked where it looks for modules, since its own check runs ``BEGIN`` blocks.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import re
import stat
import sys
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import run
from .app import Application
from .config import Config
from .diagnosis import Diagnosis, Evidence, Fault, diagnose, look_at, source_of, start
from .diagnosis.base import first, interpreter, quoted
from .diagnosis.facts import find_program
from .diagnosis.output import never_called
from .errors import ConfigError, GatewayError, printable
from .gateway import base_variables
from .loading import load
from .paths import PathRules, files_below, find_file
from .pipes import Source, watch
from .runners import RUNNERS, Invocation
from .scripts import command_of, find_script, is_python
from .urlpaths import native

#: Seconds that an interpreter may take to read a script.
ASK_SECONDS = 20.0
#: Seconds that a script may take with ``--run``.
RUN_SECONDS = 10.0

#: Exit statuses.
GOOD, BAD, MISUSED = 0, 1, 2

ERROR, WARNING = "error", "warning"

# Run by the Python that would run the script: any from 3.6 on.
_ASK_PYTHON = """
import ast, importlib.util, sys, traceback
name = sys.argv[1]
with open(name, "rb") as file:
    data = file.read()
try:
    tree = ast.parse(data, name)
    compile(data, name, "exec", dont_inherit=True)
except Exception as error:
    sys.stderr.write("".join(traceback.format_exception_only(type(error), error)))
    sys.exit(1)
sys.path.insert(0, sys.argv[2])
for node in tree.body:
    names = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level:
        names = [node.module]
    for module in names:
        module = module.split(".")[0]
        if module in sys.modules or importlib.util.find_spec(module) is not None:
            continue
        sys.stderr.write("Traceback (most recent call last):\\n")
        sys.stderr.write("  File \\"%s\\", line %d, in <module>\\n" % (name, node.lineno))
        sys.stderr.write("ModuleNotFoundError: No module named '%s'\\n" % module)
        sys.exit(1)
"""

# Which of the files in ARGV are nowhere in @INC.
_ASK_PERL = 'for my $f (@ARGV) { print "$f\\n" unless grep { -e "$_/$f" } @INC }'

# How other interpreters read a script without running it; the first word is their own.
_READERS = {"shell": ("-n",), "PHP": ("-l",), "Ruby": ("-c",), "JavaScript": ("--check",)}

# Files that hold secrets, or that tools and editors leave; nobody should be able to fetch them.
_LEFT_OVERS = (
    (r"\.git|\.svn|\.hg|\.bzr|CVS", "a version control directory: it holds the source of everything"),
    (r"\.env(\..*)?", "a file of secrets"),
    (r"\.htpasswd|\.netrc|\.pgpass|\.my\.cnf|id_(rsa|ed25519|ecdsa)|.*\.(pem|key|p12|pfx|kdbx)", "a file of secrets"),
    (r".*~|.*\.(bak|old|orig|save|swp|swo|rej)|#.*#|.*\.(py|pl|php|cgi|sh|rb)\.txt", "a left-over: it may show source"),
    (r".*\.(sql|sqlite3?|db|dump)(\.gz)?", "a database"),
    (r"\.(bash|zsh|python|mysql|psql)_history", "a history of commands"),
    (r"\.DS_Store|Thumbs\.db", "a left-over: it lists the names of files"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong with a file."""

    level: str
    file: str
    diagnosis: Diagnosis


def main(arguments: Sequence[str]) -> int:
    """Run the command; gives its exit status."""
    options = _parser().parse_args(arguments)
    given = {"directory": options.directory, "cgi_directories": options.cgi_directories}
    given |= {"interpreters": options.interpreters, "cgi_extensions": options.cgi_extensions}
    try:
        config = load({name: value for name, value in given.items() if value is not None})
    except ConfigError as error:
        print(f"wsgicgi-dev: {error}", file=sys.stderr)
        return MISUSED
    scripts = list(_scripts(config))
    findings = [*check(config, scripts, runs=options.run), *left_overs(config)]
    if options.json:
        print(json.dumps(_as_json(config, scripts, findings), indent=1))
    else:
        print(_as_table(config, scripts, findings))
    return BAD if any(finding.level == ERROR for finding in findings) else GOOD


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wsgicgi-dev check",
        description="Look for what is wrong with the scripts of a directory. Runs none of them, unless told --run.",
        epilog="Exit status: 0 no errors (there may be warnings), 1 errors, 2 wrong usage.",
    )
    parser.add_argument("directory", metavar="DIR", nargs="?", help="what '/' maps to; default: the current directory")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--run", action="store_true", help="also make a GET request for each script")
    parser.add_argument("--cgi-dir", metavar="/x", action="append", dest="cgi_directories", help="as for wsgicgi-dev")
    parser.add_argument("--interpreters", metavar="VALUE", help="as for wsgicgi-dev: .php=php-cgi")
    parser.add_argument("--cgi-extensions", metavar="VALUE", help="as for wsgicgi-dev: .cgi,.py")
    return parser


def _scripts(config: Config) -> Iterator[str]:
    """Every file that is a script, or that looks as if it should be one."""
    rules = PathRules.of(config)
    seen = set()
    for path in config.cgi_directories:
        for file in files_below(rules, path):
            if file not in seen and (command_of(rules, file) is not None or _looks_like_script(file)):
                seen.add(file)
                yield file
    for file in files_below(rules, "/"):
        if file not in seen and rules.is_script_name(os.path.basename(file)):
            yield file


def _looks_like_script(file: str) -> bool:
    name = os.path.basename(file).lower()
    head = look_at(file).head.removeprefix(b"\xef\xbb\xbf")
    return head.startswith((b"#!", b"\x7fELF")) or name.endswith((".cgi", ".pl", ".sh", ".rb", ".php"))


def check(config: Config, scripts: Sequence[str], *, runs: bool = False) -> Iterator[Finding]:
    """What is wrong with each script, at most one failure each: the first that it would die of."""
    rules = PathRules.of(config)
    variables = base_variables(config)
    for place in sorted({os.path.dirname(file) for file in scripts}):
        yield from _open_directory(place)
    for file in scripts:
        yield from _dangers(file)
        evidence = _evidence(file, command_of(rules, file) or (file,), variables)
        found = offline(evidence)
        if found is not None:
            yield Finding(level=ERROR, file=file, diagnosis=found)
        elif runs:
            yield from _run(config, file)
        elif not _is_module(evidence) and (hint := _no_header(evidence)):
            yield Finding(level=WARNING, file=file, diagnosis=hint)


def _evidence(file: str, command: tuple[str, ...], variables: Mapping[str, str]) -> Evidence:
    return Evidence(
        fault=Fault.START,
        file=look_at(file),
        command=command,
        cwd=os.path.dirname(file),
        metavars=variables,
        source=source_of(file),
    )


def offline(evidence: Evidence) -> Diagnosis | None:
    """What a script would die of, as far as it can be known without running it."""
    found = first(start.RULES, evidence)
    if found is not None:
        return found
    stderr = _what_its_interpreter_says(evidence)
    if stderr:
        found = diagnose(dataclasses.replace(evidence, fault=Fault.OUTPUT, stderr=stderr, code=None, problem="?"))
        if found.rule not in ("other", "no-output", "last-words", "never-called", "python-main", "background"):
            return found
    return None if _is_module(evidence) else never_called(evidence)


def _is_module(evidence: Evidence) -> bool:
    """Whether a ``.py`` is something that scripts import, as far as its looks tell."""
    return evidence.file.mode & 0o111 == 0 and not evidence.shebang


def _what_its_interpreter_says(evidence: Evidence) -> bytes:
    """What the program that would run a script says when it reads it; nothing when all is well."""
    language, file = evidence.language, evidence.file.path
    name = interpreter(evidence)
    program = find_program(name, evidence.metavars.get("PATH"))
    if not program and is_python(file):
        program = sys.executable
    if not program or not evidence.file.is_readable:
        return b""
    if language == "Python" and "python2" not in os.path.basename(program):
        return _ask((program, "-I", "-c", _ASK_PYTHON, file, evidence.cwd), evidence)[1]
    if language == "Perl":
        return _ask_perl(program, evidence)
    if language in _READERS:
        # php-cgi knows -l too; what it says goes to standard output
        output, errors, code = _ask((program, *_READERS[language], file), evidence)
        return errors + output if code else b""
    return b""


def _ask_perl(program: str, evidence: Evidence) -> bytes:
    wanted: dict[str, int] = {}
    for number, line in enumerate(evidence.source, 1):
        if line.startswith("__END__"):
            break
        found = re.match(r"(?:use|require)\s+([A-Z]\w*(?:::\w+)*)\b", line)
        if found is not None:
            wanted.setdefault(found[1].replace("::", "/") + ".pm", number)
    if not wanted:
        return b""
    options = ["-I", evidence.cwd] if any("use lib" in line for line in evidence.source) else []
    output, _, _ = _ask((program, *options, "-e", _ASK_PERL, *wanted), evidence)
    for path in output.decode(errors="replace").split():
        return f"Can't locate {path} in @INC (@INC contains: ) at {evidence.file.path} line {wanted[path]}.\n".encode()
    return b""


def _ask(argv: tuple[str, ...], evidence: Evidence) -> tuple[bytes, bytes, int]:
    """Run an interpreter: its output, its standard error, its exit status."""
    runner = RUNNERS["spawn"]()
    texts = {Source.STDOUT: b"", Source.STDERR: b""}
    with open(os.devnull, "rb") as null:
        try:
            execution = runner.start(
                Invocation(argv=argv, metavars=evidence.metavars, cwd=evidence.cwd, stdin=null.fileno())
            )
        except OSError:
            return b"", b"", 0
    pipes = watch(execution)
    deadline = time.monotonic() + ASK_SECONDS
    try:
        has_ended = False
        while time.monotonic() < deadline:
            events = pipes.wait(0.0 if has_ended else deadline - time.monotonic())
            for source, data in events:
                if source is Source.EXIT:
                    has_ended = True
                else:
                    texts[source] += data
            if has_ended and not any(data for _, data in events):
                break
        status = execution.wait(0) or execution.terminate()
    finally:
        pipes.close()
        execution.close()
        runner.close()
    return texts[Source.STDOUT], texts[Source.STDERR], status.code


def _no_header(evidence: Evidence) -> Diagnosis | None:
    """A source that names no header field and nothing that could print one for it."""
    text = "\n".join(evidence.source)
    makers = (
        r"content-type|location:|status:|HTTP/1|header|wsgi|CGIHandler|cgitb|use CGI|exec\b|<\?php|^\s*(\.|source) "
    )
    if not text or evidence.language not in ("Python", "Perl", "shell") or re.search(makers, text, re.I | re.M):
        return None
    return Diagnosis(
        rule="no-header-in-source",
        what="its source has no Content-Type",
        file=evidence.file.path,
        remedy="A script prints header fields, an empty line, then the body (RFC 3875 6.2).",
    )


def _dangers(file: str) -> Iterator[Finding]:
    """Who else may change a script, and whose rights it has."""
    facts = look_at(file)
    if os.name == "posix" and facts.exists:
        if facts.mode & stat.S_IWOTH:
            what = f"everyone may change it (mode {facts.mode:04o})"
            yield _finding(ERROR, file, "world-writable", what, command=f"chmod o-w {quoted(file)}")
        if facts.mode & (stat.S_ISUID | stat.S_ISGID):
            what = f"it runs with its owner's rights (mode {facts.mode:04o}, {facts.owner})"
            yield _finding(WARNING, file, "set-id", what, command=f"chmod ug-s {quoted(file)}")


def _open_directory(place: str) -> Iterator[Finding]:
    """A directory of scripts in which everyone may replace them."""
    mode = look_at(place).mode
    if os.name == "posix" and mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        what = f"everyone may replace the scripts in it (mode {mode:04o})"
        yield _finding(ERROR, place, "world-writable-directory", what, command=f"chmod o-w {quoted(place)}")


def _finding(level: str, file: str, rule: str, what: str, *, command: str = "", remedy: str = "") -> Finding:
    diagnosis = Diagnosis(rule=rule, what=what, file=file, command=command, remedy=remedy)
    return Finding(level=level, file=file, diagnosis=diagnosis)


def _run(config: Config, file: str) -> Iterator[Finding]:
    """Make a request for a script, and tell what it failed of."""
    url = "/" + Path(file).relative_to(config.directory).as_posix()
    app = Application(dataclasses.replace(config, timeout=RUN_SECONDS, debug=False))
    log = io.StringIO()
    try:
        response = run.perform(app, run.Request(method="GET", target=urllib.parse.quote(url)), log)
    finally:
        app.close()
    if response.diagnosis is not None:
        yield Finding(level=ERROR, file=file, diagnosis=response.diagnosis)
    elif not response.is_complete or not response.has_run:
        yield _finding(ERROR, file, "failed", log.getvalue().splitlines()[-1])


def left_overs(config: Config) -> Iterator[Finding]:
    """Secrets and left-overs below the root: what should not be in reach of a web server at all."""
    rules = PathRules.of(config)
    for place, directories, names in os.walk(config.directory):
        for name in sorted([*directories, *names]):
            kind = next((kind for pattern, kind in _LEFT_OVERS if re.fullmatch(pattern, name, re.IGNORECASE)), "")
            if not kind:
                continue
            file = os.path.join(place, name)
            is_hidden = not _is_served(rules, file)
            remedy = (
                "It is hidden here, but move it out of reach." if is_hidden else "Everyone can fetch it: move it away."
            )
            yield _finding(WARNING if is_hidden else ERROR, file, "left-over", kind, remedy=remedy)
        directories[:] = sorted(name for name in directories if not rules.is_hidden(name))


def _is_served(rules: PathRules, file: str) -> bool:
    """Whether a request can have a file, or what is in a directory."""
    path = native("/" + Path(file).relative_to(rules.root_dir).as_posix())
    try:
        if find_script(rules, path) is not None:
            return False
        find_file(rules, path)
    except GatewayError:
        return False
    return True


def _shown_path(config: Config, file: str) -> str:
    with contextlib.suppress(ValueError):
        return str(Path(file).relative_to(config.directory))
    return file


def _as_table(config: Config, scripts: Sequence[str], findings: Sequence[Finding]) -> str:
    rows = []
    for finding in findings:
        found = finding.diagnosis
        line = f":{found.line}" if found.line and found.file == finding.file else ""
        rows.append((finding.level, _shown_path(config, finding.file) + line, found))
    width = max((len(place) for _, place, _ in rows), default=0)
    lines = []
    for level, place, found in rows:
        lines.append(f"{level:<8} {place:<{width}}  {printable(found.what)}")
        remedy = " ".join(part for part in (found.remedy, f"Try: {found.command}" if found.command else "") if part)
        if remedy:
            lines.append(f"{'':<8} {'':<{width}}  {printable(remedy)}")
    errors = sum(finding.level == ERROR for finding in findings)
    counts = [_count(len(scripts), "script"), _count(errors, "error"), _count(len(findings) - errors, "warning")]
    return "\n".join([*lines, ", ".join(counts)])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _as_json(config: Config, scripts: Sequence[str], findings: Sequence[Finding]) -> dict[str, object]:
    return {
        "directory": str(config.directory),
        "scripts": [_shown_path(config, file) for file in scripts],
        "findings": [
            {
                "level": finding.level,
                "file": _shown_path(config, finding.file),
                "line": finding.diagnosis.line or None,
                "rule": finding.diagnosis.rule,
                "what": finding.diagnosis.what,
                "remedy": finding.diagnosis.remedy,
                "command": finding.diagnosis.command,
            }
            for finding in findings
        ],
    }
