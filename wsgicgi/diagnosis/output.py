"""What is wrong with what a script printed, when that is no CGI response (RFC 3875 section 6)."""

from __future__ import annotations

import ast
import difflib
import os
import re
from collections.abc import Sequence

from .base import Diagnosis, Evidence, cut, quote_bytes

_FIELD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:.*")
_KNOWN_FIELD = re.compile(
    rb"(content-(type|length|disposition|language|encoding)|status|location|set-cookie|cache-control|expires|pragma"
    rb"|last-modified|etag|refresh|x-[\w-]+|access-control-[\w-]+|vary|link)[ \t]*:",
    re.IGNORECASE,
)
_LATE_FIELD = re.compile(rb"^[ \t]*(content-type|status|location)[ \t]*:", re.IGNORECASE | re.MULTILINE)

#: What to write for a header, by language.
HEADERS = {
    "Python": 'print("Content-Type: {}\\n")',
    "Perl": 'print "Content-Type: {}\\n\\n";',
    "PHP": "#!/usr/bin/php-cgi",
    "Ruby": 'print "Content-Type: {}\\n\\n"',
    "JavaScript": 'process.stdout.write("Content-Type: {}\\n\\n")',
    "C": 'printf("Content-Type: {}\\n\\n");',
    "shell": "printf 'Content-Type: {}\\n\\n'",
}

_RULE = "A script prints header fields, an empty line, then the body (RFC 3875 6.2)."
_NO_FIELD = "is not a header field"


def nothing(evidence: Evidence) -> Diagnosis | None:
    """No byte of output."""
    if evidence.output:
        return None
    idle = never_called(evidence)
    if idle is not None:
        return idle
    text = "\n".join(evidence.source)
    if evidence.language == "Perl" and re.search(r"\bprint\s+header\b", text) and not re.search(r"\buse\s+CGI\b", text):
        what = "there was no output: print header needs CGI.pm, which the script does not use"
        line = _find(evidence, b"print header")
        return _placed(evidence, "perl-no-cgi", what, "Write it below line 1.", line, "use CGI qw(:standard);")
    if evidence.code == 0 and _daemonises(evidence):
        return _said(
            evidence,
            "background",
            "there was no output when it ended: what it left in the background answers nobody",
            "Print the response before the script ends, or wait for that.",
        )
    return _said(evidence, "no-output", "there was no output", _RULE, _header_for(evidence, "text/html"))


def _daemonises(evidence: Evidence) -> bool:
    text = "\n".join(evidence.source)
    return bool(re.search(r"os\.fork\(|\bfork\b|&\s*$|nohup|setsid|daemon", text, re.MULTILINE))


def never_called(evidence: Evidence) -> Diagnosis | None:
    """Functions that nothing calls, as where ``__name__`` is compared with a misspelt name."""
    if evidence.language != "Python" or not evidence.source:
        return None
    try:
        body = ast.parse("\n".join(evidence.source)).body
    except (SyntaxError, ValueError):
        return None
    functions = [node.name for node in body if isinstance(node, ast.FunctionDef)]
    guards = [node for node in body if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)]
    passive = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    others = [node for node in body if not isinstance(node, passive) and node not in guards and not _is_text(node)]
    if others or (not functions and not guards):
        return None
    for guard in guards:
        test = ast.unparse(guard.test)
        if "'__main__'" not in test:
            what = f"there was no output: line {guard.lineno} compares {test}, which is never true"
            remedy = "Write if __name__ == '__main__':"
            return Diagnosis(rule="python-main", what=what, file=evidence.file.path, line=guard.lineno, remedy=remedy)
    if guards:
        return None
    name = "main" if "main" in functions else functions[0]
    what = f"there was no output: the script defines {', '.join(functions[:3])} and calls nothing"
    line = next(node.lineno for node in body if isinstance(node, ast.FunctionDef) and node.name == name)
    return Diagnosis(
        rule="never-called",
        what=what,
        file=evidence.file.path,
        line=line,
        remedy="Call it at the end of the file.",
        command=f"{name}()",
    )


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def encoding(evidence: Evidence) -> Diagnosis | None:
    """A byte order mark, or UTF-16."""
    output = evidence.output
    if output.startswith(b"\xef\xbb\xbf"):
        what = "the output begins with a byte order mark (BOM), so its line 1 is no header field"
        remedy = "Save the file that prints it, or that it includes, as UTF-8 without BOM."
        return _said(evidence, "output-byte-order-mark", what, remedy)
    if output.startswith((b"\xff\xfe", b"\xfe\xff")) or output[1:8:2] == b"\0\0\0\0" or output[0:8:2] == b"\0\0\0\0":
        return _said(evidence, "output-utf-16", "the header is printed as UTF-16", "Header fields are ASCII.")
    return None


def nph(evidence: Evidence) -> Diagnosis | None:
    """A script that must write a whole HTTP response, by its name, and does not."""
    if not os.path.basename(evidence.file.path).startswith("nph-"):
        return None
    if not re.match(rb"HTTP/\d\.\d \d{3}", evidence.output):
        what = f"output line 1 is not an HTTP status line: {quote_bytes(_line(evidence, 0))}"
        remedy = "The name of the script begins with nph-: let it print HTTP/1.1 200 OK first, or have another name."
        return _said(evidence, "nph", what, remedy)
    what = re.sub(r" It (exited|was killed).*| A script prints header fields.*", "", evidence.problem).rstrip(".")
    remedy = "A script whose name begins with nph- prints a status line, header fields, an empty line, then the body."
    return _said(evidence, "nph", what, remedy)


def http_itself(evidence: Evidence) -> Diagnosis | None:
    """A status line as servers write it."""
    found = re.match(rb"\s*HTTP/\d(?:\.\d)? *(\d{3})?([^\r\n]*)", evidence.output)
    if found is None:
        return None
    line = _line(evidence, 0)
    status = f"{(found[1] or b'200').decode()}{found[2].decode('latin-1')}".strip()
    what = f"the script writes HTTP itself: output line 1 {_NO_FIELD}: {quote_bytes(line)}"
    remedy = (
        f"Write Status: {status} in its place, or leave it out. A script that writes HTTP itself has a name that begins"
        " with nph-."
    )
    return _placed(evidence, "http-status-line", what, remedy, _find(evidence, line))


def escaped(evidence: Evidence) -> Diagnosis | None:
    r"""``\n`` in letters, ``b'...'``, quotation marks around the header."""
    line = _line(evidence, 0)
    if re.match(rb"\s*[bB]['\"]", line):
        what = f"it prints the text of a bytes object: {quote_bytes(line)}"
        remedy = "Print text without b, or write to sys.stdout.buffer."
        return _placed(evidence, "bytes-printed", what, remedy, _find(evidence, line[2:]))
    if re.match(rb"\s*['\"(\[]\s*['\"]?(content-type|status|location)\s*:", line, re.IGNORECASE):
        what = f"the header is printed with its quotation marks: {quote_bytes(line)}"
        return _placed(evidence, "quoted-header", what, "Print it without them.", _find(evidence, line))
    if evidence.language == "shell" and re.match(rb"-[neE]+ ", line):
        what = f"the echo of sh has no options, and prints them: {quote_bytes(line)}"
        place = _find(evidence, line.partition(b" ")[2])
        return _placed(evidence, "echo-options", what, "Use printf, or let bash run it.", place)
    number, line = next(
        ((n, line) for n, line in enumerate(_lines(evidence)[:20]) if _FIELD.match(line) and rb"\n" in line), (0, b"")
    )
    if line:
        how = {"shell": "Use printf, or echo twice.", "Perl": "Use double quotes.", "PHP": "Use double quotes."}
        what = f"output line {number + 1} has \\n as two characters, which ends no line: {quote_bytes(line)}"
        remedy = how.get(evidence.language, "Write a real line end.")
        return _placed(evidence, "literal-newline", what, remedy, _find(evidence, line.split(rb"\n")[0]))
    return None


def blanks(evidence: Evidence) -> Diagnosis | None:
    """Empty lines or blanks where the header should begin, or CR alone as line end."""
    output = evidence.output
    if re.match(rb"[^\n]*?:[^\n]*\r[^\n]", output) and b"\n" not in output.partition(b"\r")[0]:
        what = "the lines of the header end in CR alone"
        return _said(evidence, "cr-output", what, "End them with LF (\\n) or CR LF (\\r\\n).")
    if re.match(rb"[ \t]*\r?\n", output):
        if not output.strip():
            return _said(evidence, "only-blank", f"it prints only empty lines: {quote_bytes(output)}", _RULE)
        what = "the output begins with an empty line, which ends a header that has no fields"
        remedy = "Print the first header field first; after triple quotes, begin in the same line."
        if not _LATE_FIELD.search(output[:2000]):
            remedy = _RULE
        late = _LATE_FIELD.search(output)
        return _placed(evidence, "leading-empty-line", what, remedy, _find(evidence, late[0].strip()) if late else 0)
    line = _line(evidence, 0)
    if re.match(rb"[ \t]+[\w-]+:", line):
        what = f"the header is indented: output line 1 {_NO_FIELD}: {quote_bytes(line)}"
        return _placed(evidence, "indented-header", what, "Begin it in column 1.", _find(evidence, line.strip()))
    return None


def misspelt(evidence: Evidence) -> Diagnosis | None:
    """A field whose name or colon is wrong."""
    for number, line in enumerate(_lines(evidence)[:20], 1):
        if _FIELD.match(line):
            continue
        found = re.match(
            rb"\s*(content[ _-]?type|content[ _-]?length|status|location|set-cookie)\s*(=|:|\s)?\s*(.*)", line, re.I
        )
        if found is None:
            return None
        separator = found[2] or b""
        if separator == b":" and re.fullmatch(
            rb"(?i)(content-type|content-length|status|location|set-cookie)", found[1]
        ):
            problem = "a blank stands between name and colon"
        elif separator == b":":
            problem = "its name is not as it must be"
        elif separator == b"=":
            problem = "it has = in place of the colon"
        elif found[1].lower() in (b"status", b"location") and not re.match(rb"[\d/h]", found[3]):
            return None
        else:
            problem = "it has no colon"
        name = re.sub(r"(?i)^content.?", "Content-", found[1].decode("latin-1").title())
        right = f"{name}: {found[3].decode('latin-1').strip()}"
        what = f"output line {number} {_NO_FIELD}: {quote_bytes(line)}: {problem}"
        return _placed(evidence, "misspelt-field", what, f"Write {right}", _find(evidence, line))
    return None


def no_empty_line(evidence: Evidence) -> Diagnosis | None:
    """Good fields, and then at once the body, or nothing."""
    lines = _lines(evidence)
    fields = _leading_fields(lines)
    if not fields or not any(_KNOWN_FIELD.match(line) for line in fields):
        return None
    place = _find(evidence, fields[-1])
    rest = lines[len(fields) :]
    if len(rest) > 1 and not rest[0]:
        return None  # it is there
    if not any(line.strip() for line in rest):
        if rest and any(line for line in rest):
            return None if b"\n\n" in evidence.output else _blank_line(evidence, len(fields) + 1, rest[0])
        what = (
            f"the output ended inside the header, after {quote_bytes(evidence.output[-80:])}: the empty line that ends"
            " the header is missing"
        )
        return _placed(evidence, "no-empty-line", what, _how_to_end(evidence), place)
    bad = rest[0]
    if re.match(rb"[\w-]+( [\w-]+)+:", bad) and (not rest[1:] or not rest[1] or _FIELD.match(rest[1])):
        what = f"output line {len(fields) + 1} {_NO_FIELD}: {quote_bytes(bad)}: its name has a blank"
        return _placed(evidence, "misspelt-field", what, "Write - in its place.", _find(evidence, bad))
    if bad and not bad.strip():
        return _blank_line(evidence, len(fields) + 1, bad)
    if not bad:
        return None
    if _continues(rest):
        what = (
            f"output line {len(fields) + 1} continues the field before it, which HTTP has no more: {quote_bytes(bad)}"
        )
        return _placed(evidence, "folded-field", what, "Write each field in one line.", _find(evidence, bad.strip()))
    what = (
        f"the empty line between header and body is missing: output line {len(fields) + 1} {_NO_FIELD}:"
        f" {quote_bytes(bad)}"
    )
    return _placed(evidence, "no-empty-line", what, _how_to_end(evidence), place)


def _continues(lines: list[bytes]) -> bool:
    """Whether lines are the rest of a folded field (RFC 9112 section 5.2), and no body that is indented."""
    behind = next((number for number, line in enumerate(lines) if not re.match(rb"[ \t]+[^ \t<{\[]", line)), 0)
    return behind > 0 and (not lines[behind] or _KNOWN_FIELD.match(lines[behind]) is not None)


def _blank_line(evidence: Evidence, number: int, line: bytes) -> Diagnosis:
    what = f"output line {number}, which should end the header, is not empty: {quote_bytes(line)}"
    return _said(evidence, "blank-line-not-empty", what, "Print no blanks in it.")


def _how_to_end(evidence: Evidence) -> str:
    how = {
        "Python": "print() after the last field prints it.",
        "Perl": "End the last field with \\n\\n.",
        "shell": "An echo after the last field prints it.",
        "C": "End the last field with \\n\\n.",
    }
    return how.get(evidence.language, "Print an empty line after the last field.")


def body_first(evidence: Evidence) -> Diagnosis | None:
    """A header that comes too late: behind text, or because it waited in a buffer."""
    late = _LATE_FIELD.search(evidence.output)
    if late is None or late.start() == 0:
        return None
    first = _line(evidence, 0)
    number = evidence.output[: late.start()].count(b"\n") + 1
    what = f"the header comes too late, in output line {number}: output line 1 {_NO_FIELD}: {quote_bytes(first)}"
    source = "\n".join(evidence.source)
    place = _find(evidence, first)
    buffered = {
        "Python": r"stdout\.buffer|os\.system|os\.write|subprocess\.|os\.spawn",
        "Perl": r"\bsystem\b|`|syswrite|exec\b",
        "C": r"\bsystem *\(|\bwrite *\(|popen|execl",
        "Ruby": r"\bsystem\b|`|syswrite",
    }.get(evidence.language)
    header_at = _find(evidence, late[0].strip())
    if buffered and (found := re.search(buffered, source)) and (not place or not header_at or header_at < place):
        flush = {
            "Python": "Call sys.stdout.flush() after the header.",
            "Perl": "Write $| = 1; at the top.",
            "C": "Call fflush(stdout) after the header.",
            "Ruby": "Write $stdout.sync = true at the top.",
        }[evidence.language]
        line = source[: found.start()].count("\n") + 1
        writer = found[0].strip(" .(") or "a command"
        what = f"the header waits in a buffer while {writer} writes past it: {what}"
        return _placed(evidence, "unflushed-header", what, flush, line)
    remedy = "Print nothing before the header."
    if evidence.language == "C":
        remedy += " If it is printed first, call fflush(stdout) before another program writes."
    return _placed(evidence, "late-header", what, remedy, place)


def body_only(evidence: Evidence) -> Diagnosis | None:
    """A document without a header."""
    output = evidence.output
    first = _line(evidence, 0)
    for pattern, kind, media_type in _DOCUMENTS:
        if re.match(pattern, output, re.IGNORECASE):
            what = f"it prints {kind} without a header: output line 1 {_NO_FIELD}: {quote_bytes(first)}"
            if kind == "PHP source":
                return _said(evidence, "source-printed", what, "Its interpreter prints it: line 1 should name php-cgi.")
            if evidence.language == "PHP" and "cgi" not in evidence.shebang + " ".join(evidence.command[:-1]):
                return _php_without_cgi(evidence, first)
            header = _header_for(evidence, media_type)
            return _placed(evidence, "no-header", what, "Print a header first.", _find(evidence, first), header)
    if evidence.language == "PHP" and "cgi" not in evidence.shebang + " ".join(evidence.command[:-1]):
        return _php_without_cgi(evidence, first)
    return None


def _php_without_cgi(evidence: Evidence, first: bytes) -> Diagnosis:
    what = f"php, which prints no header, runs it: output line 1 {_NO_FIELD}: {quote_bytes(first)}"
    return _placed(evidence, "php-without-cgi", what, "Let php-cgi run it.", 1, HEADERS["PHP"])


_DOCUMENTS = (
    (rb"\s*<\?php", "PHP source", "text/html"),
    (rb"\s*<\?xml", "XML", "application/xml"),
    (rb"\s*<svg", "an image", "image/svg+xml"),
    (rb"\s*(<!doctype|<!--|</?[a-z][a-z0-9]*[\s>])", "HTML", "text/html"),
    (rb"\s*(\{\s*(\"|'|\})|\[\s*[\[{\"'\d\]])", "JSON", "application/json"),
    (rb"\x89PNG", "an image", "image/png"),
    (rb"GIF8", "an image", "image/gif"),
    (rb"\xff\xd8\xff", "an image", "image/jpeg"),
    (rb"%PDF", "a PDF file", "application/pdf"),
    (rb"PK\x03\x04", "an archive", "application/zip"),
)


def wrong_status(evidence: Evidence) -> Diagnosis | None:
    """A Status field without three digits first, or of a response that is not the final one."""
    if "announces another response" in evidence.problem:
        what, _, remedy = re.sub(r" It (exited|was killed).*", "", evidence.problem).rstrip(".").partition(": write ")
        return _said(evidence, "wrong-status", what, f"Write {remedy}.")
    if "is not three digits and a reason" not in evidence.problem:
        return None
    what = re.sub(r" It (exited|was killed).*", "", evidence.problem).rstrip(".")
    found = re.search(rb"(?im)^status[ \t]*:[ \t]*(.*?)[ \t\r]*$", evidence.output)
    value = found[1].decode("latin-1") if found else ""
    digits = re.search(r"(?<!\d)([1-9]\d\d)(?!\d)", value)
    remedy = "Write for example Status: 404 Not Found"
    if digits:
        reason = value.replace(digits[1], " ").replace("HTTP/1.1", "").replace("HTTP/1.0", "").strip(" :,-")
        remedy = f"Write Status: {digits[1]} {reason}".rstrip()
    return _placed(evidence, "wrong-status", what, remedy, _find(evidence, found[0]) if found else 0)


def text_first(evidence: Evidence) -> Diagnosis | None:
    """Whatever else stands where the header should."""
    if _NO_FIELD not in evidence.problem and "the output ended inside" not in evidence.problem:
        return None
    first = _line(evidence, 0)
    what = f"it prints text without a header: output line 1 {_NO_FIELD}: {quote_bytes(first)}"
    return _placed(evidence, "no-header", what, _RULE, _find(evidence, first), _header_for(evidence, "text/plain"))


#: In the order in which they are asked.
RULES = (
    nothing,
    encoding,
    nph,
    http_itself,
    wrong_status,
    escaped,
    blanks,
    misspelt,
    no_empty_line,
    body_first,
    body_only,
    text_first,
)


#: Fields that people misspell, and mean.
_MEANT = ("Content-Type", "Location", "Set-Cookie", "Status")


def misspelt_name(fields: Sequence[tuple[str, str]], file: str = "", source: tuple[str, ...] = ()) -> Diagnosis | None:
    """A field that is correct, but of no known name, and nearly that of one which the answer lacks."""
    names = [name.lower() for name, _ in fields]
    for name, value in fields:
        bare = name.strip("'`").lower()
        close = difflib.get_close_matches(bare, [meant.lower() for meant in _MEANT], n=1, cutoff=0.8)
        if not close or close[0] == name.lower() or close[0] in names or name.lower() in _REAL:
            continue
        meant = next(known for known in _MEANT if known.lower() == close[0])
        line = next((n for n, text in enumerate(source, 1) if name.strip("'`") in text), 0)
        what = f"the header field {name!r} means nothing, and there is no {meant}"
        if bare == meant.lower():
            what = f"the header is printed with its quotation marks: {name}: {cut(value, 60)}"
        return Diagnosis(
            rule="quoted-header" if bare == meant.lower() else "misspelt-name",
            what=cut(what),
            file=file if line else "",
            line=line,
            remedy=f"Write {meant}: {cut(value, 60)}".rstrip("'`"),
        )
    return None


_REAL = {"content-location", "content-encoding", "set-cookie2", "x-content-type"}


def _lines(evidence: Evidence) -> list[bytes]:
    return [line.removesuffix(b"\r") for line in evidence.output.split(b"\n")]


def _line(evidence: Evidence, number: int) -> bytes:
    lines = _lines(evidence)
    return lines[number] if number < len(lines) else b""


def _leading_fields(lines: list[bytes]) -> list[bytes]:
    fields = []
    for line in lines:
        if not _FIELD.match(line) or re.match(rb"https?://", line):
            break
        fields.append(line)
    return fields


def _header_for(evidence: Evidence, media_type: str) -> str:
    return HEADERS.get(evidence.language, "").format(media_type)


def _find(evidence: Evidence, text: bytes) -> int:
    """The line of the source that prints a text, as far as the text stands there; 0 when none does."""
    wanted = text.decode("utf-8", "replace").strip().strip("'\"")
    if len(wanted) < 3:
        return 0
    for part in (wanted, wanted[:24], wanted[:10], wanted.split(" ")[0]):
        if len(part) < 3:
            continue
        for number, line in enumerate(evidence.source, 1):
            if part in line and not (number == 1 and line.startswith("#!")) and not line.lstrip().startswith("# "):
                return number
    return 0


def _said(evidence: Evidence, rule: str, what: str, remedy: str = "", command: str = "") -> Diagnosis:
    return Diagnosis(rule=rule, what=cut(what), remedy=remedy, command=command)


def _placed(  # noqa: PLR0917  # in the order of a Diagnosis
    evidence: Evidence, rule: str, what: str, remedy: str, line: int, command: str = ""
) -> Diagnosis:
    file = evidence.file.path if line else ""
    return Diagnosis(rule=rule, what=cut(what), file=file, line=line, remedy=remedy, command=command)
