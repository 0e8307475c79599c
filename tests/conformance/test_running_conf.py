"""How scripts are run: command line, directory, descriptors, signals, and what may run at all; on every server."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest
import servers
import wire
from conftest import Host
from sites import Site

REPORT = "/cgi-bin/report.py"
PLAIN = "Content-Type: text/plain\\n\\n"
SECRET = "a-line-of-source-that-nobody-may-see"

# What report.py does not tell: what a process inherits beside its environment.
PROCESS = """
import json, os, re
status = dict(re.findall(r"^(\\w+):\\s*(.*)$", open("/proc/self/status").read(), re.M))
links = {}
for name in os.listdir("/proc/self/fd"):
    try:
        links[name] = os.readlink("/proc/self/fd/" + name)
    except OSError:
        pass  # that of the listing itself
facts = {"status": status, "links": links, "nice": os.nice(0), "parent": os.getppid(),
         "group": os.getpgid(0), "pid": os.getpid(), "ttys": [os.isatty(i) for i in range(3)]}
print("Content-Type: application/json\\n\\n" + json.dumps(facts))
"""


def words(host: Host, query: str, **options: object) -> list[str]:
    """The search words that a script finds on its command line."""
    argv: list[str] = host.report(f"{REPORT}?{query}", **options)["argv"]
    return argv[1:]


def facts(host: Host, **options: object) -> dict:  # type: ignore[type-arg]
    """What a script finds out about its own process."""
    host.site.python("process.py", PROCESS)
    return host.report("/cgi-bin/process.py", **options)


def shell(text: str, *, interpreter: str = "/bin/sh") -> str:
    """A shell script that prints this text."""
    return f"#!{interpreter}\n# {SECRET}\nprintf '{PLAIN}{text}'\n"


def never_source(answer: wire.Answer) -> wire.Answer:
    """An answer without a line of any script's text."""
    assert SECRET.encode() not in answer.raw + answer.body, answer
    return answer


# -- the command line


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("one+two", ["one", "two"]),
        ("one", ["one"]),
        ("one%2Btwo", ["one+two"]),
        ("one%20two+three", ["one two", "three"]),
        ("a%3Db", ["a=b"]),
        ("caf%C3%A9", ["caf\xc3\xa9"]),
        ("%FF", ["\xff"]),
        ("a&b;c", ["a&b;c"]),
        ("/etc/passwd", ["/etc/passwd"]),
        ("?a?b", ["?a?b"]),
        ("*+~", ["*", "~"]),
        ("a%0Ab", ["a\nb"]),
    ],
)
def test_query_without_equals_sign_is_the_command_line(host: Host, query: str, expected: list[str]) -> None:
    """RFC 3875 4.4: split at "+", and each word decoded."""
    assert words(host, query) == expected


@pytest.mark.parametrize("query", ["", "k=v", "k=v+w", "v+k=", "=", "a+b+c=d+e", "a%20b=c", "?a=b"])
def test_query_with_an_equals_sign_gives_no_arguments(host: Host, query: str) -> None:
    """RFC 3875 4.4: it is a form then."""
    assert words(host, query) == []


def test_command_line_of_a_request_with_a_body_is_empty(host: Host) -> None:
    """RFC 3875 4.4: an indexed query is a GET or a HEAD."""
    assert words(host, "one+two", method="POST", body=b"x") == []


def test_query_of_an_indexed_search_is_in_query_string_too(host: Host) -> None:
    """RFC 3875 4.1.7 and 4.4: "in addition", still encoded."""
    given = host.report(f"{REPORT}/x?one+t%77o")
    assert given["argv"][1:] == ["one", "two"]
    assert given["environ"]["QUERY_STRING"] == "one+t%77o"


def test_first_word_of_the_command_line_is_the_script(host: Host) -> None:
    """RFC 3875 7.2, practice: argv[0] is how the program was called."""
    assert host.report("/cgi-bin/sub/report.py?a")["argv"] == [f"{host.site.directory}/cgi-bin/sub/report.py", "a"]


@pytest.mark.parametrize("query", ["-x", "%2Dx", "--help", "-d+y%3d1", "one+-x", "+-x", "%2d%64+two"])
def test_no_word_looks_like_an_option(host: Host, query: str) -> None:
    """CVE-2012-1823, CVE-2024-4577: what php-cgi made of ``?-s``."""
    assert [word for word in words(host, query) if word.startswith("-")] == []


@pytest.mark.parametrize("query", ["%00", "one%00", "one+%00+two", "one+two%00three"])
def test_word_that_cannot_be_an_argument_empties_the_command_line(host: Host, query: str) -> None:
    """RFC 3875 4.4: then "no command line information", but still a query."""
    answer = host.get(f"{REPORT}?{query}")
    if not 400 <= answer.status <= 499:
        assert answer.status == 200, answer
        given = json.loads(answer.body)
        assert (given["argv"][1:], given["environ"]["QUERY_STRING"]) == ([], query)


def test_search_words_beyond_every_limit_do_no_harm(host: Host) -> None:
    """RFC 3875 4.4: a server may leave them out where the system could not take them."""
    query = "+".join(["w"] * 3500)
    answer = host.get(f"{REPORT}?{query}")
    assert answer.status == 200
    given = json.loads(answer.body)
    assert given["argv"][1:] in ([], ["w"] * 3500)
    assert given["environ"]["QUERY_STRING"] == query


INJECTIONS = {
    "semicolon": "x;{}",
    "pipe": "|{}",
    "ampersands": "%26%26{}%26",
    "dollar": "$({})",
    "backticks": "%60{}%60",
    "line_end": "x%0A{}%0A",
    "single_quote": "';{};'",
    "double_quote": "%22;{};%22",
    "word_behind": "x+;{}",
    "brace": "${{x:-$({})}}",
    "redirect": "%3E{mark}",
    "newline_cr": "%0D%0A{}",
}


@pytest.mark.parametrize("pattern", INJECTIONS.values(), ids=INJECTIONS.keys())
def test_no_shell_reads_the_request(host: Host, pattern: str) -> None:
    """RFC 3875 4.4 and 9.3: shell characters in a query, a path or a name of a script are characters."""
    mark = host.state_dir / "injected"
    command = urllib.parse.quote(f"touch {mark}", safe="")
    text = pattern.format(command, mark=urllib.parse.quote(str(mark), safe=""))
    host.site.script("calm.sh", shell("calm"))
    for target in (
        f"/cgi-bin/calm.sh?{text}",
        f"/cgi-bin/calm.sh/{text}",
        f"/cgi-bin/calm.sh{text}",
        f"/cgi-bin/{text}",
    ):
        assert host.get(target).status in (200, 400, 403, 404), target
    assert not mark.exists()


@pytest.mark.parametrize("value", ["() {{ :; }}; {}", "$({})", "`{}`", "x; {}", "| {}", "x' ; {} ; '"])
def test_no_shell_reads_the_header_fields(host: Host, value: str) -> None:
    """CVE-2014-6271 (Shellshock) for shells that are whole; and nothing else on the way evaluates a field."""
    mark = host.state_dir / "injected-by-field"
    text = value.format(f"touch {mark}")
    host.site.script("calm.sh", shell("calm"))
    fields: list[tuple[str, str | bytes]] = [(name, text) for name in ("User-Agent", "Referer", "Cookie", "X-It")]
    assert host.get("/cgi-bin/calm.sh", fields).text == "calm"
    assert not mark.exists()


# -- what a script inherits


@pytest.mark.parametrize("name", ["report.py", "sub/report.py"])
def test_working_directory_is_that_of_the_script(host: Host, name: str) -> None:
    """RFC 3875 7.2."""
    assert host.report(f"/cgi-bin/{name}/x")["cwd"] == str((host.site.directory / "cgi-bin" / name).parent)


@pytest.mark.parametrize("body", [None, b"", b"x", b"x" * 300_000], ids=["none", "empty", "small", "large"])
def test_only_the_three_standard_descriptors_are_open(host: Host, body: bytes | None) -> None:
    """RFC 3875 9.5, CWE-403: no socket of the server's, no file, not the pipes of other scripts."""
    given = host.report(REPORT, "GET" if body is None else "POST", body=body)
    assert given["descriptors"] == [0, 1, 2]


def test_no_descriptor_of_a_script_is_a_socket(host: Host) -> None:
    """RFC 3875 9.5: what it writes goes through the server, also on its standard descriptors."""
    links = facts(host, method="POST", body=b"x")["links"]
    assert {name for name in links if int(name) <= 2} == {"0", "1", "2"}
    assert [link for link in links.values() if link.startswith("socket:")] == []


def test_descriptors_of_a_running_script_are_not_in_the_next(host: Host) -> None:
    """CWE-403: else a script could read what is meant for another, and its end would not be seen."""
    gate = host.state_dir / "descriptors-gate"
    with host.connect() as connection:
        connection.send(
            wire.request("GET", servers.steps(["out", "Content-Type: text/plain\n\n"], ["wait_for", str(gate)]))
        )
        connection.read_head()
        try:
            assert host.report(REPORT)["descriptors"] == [0, 1, 2]
        finally:
            gate.touch()
        connection.rest()
    gate.unlink()


def test_signals_have_their_default_actions_and_none_is_blocked(host: Host) -> None:
    """Practice, ``restore_signals``: Python servers ignore SIGPIPE, which would make ``yes | head`` go wrong."""
    # read by a Python, which itself ignores SIGPIPE and SIGXFSZ: ask a program that changes nothing
    host.site.script("signals.sh", f"#!/bin/sh\nprintf '{PLAIN}'; exec cat /proc/self/status\n")
    status = dict(re.findall(r"^(\w+):\s*(.*)$", host.get("/cgi-bin/signals.sh").text, re.M))
    ignored, blocked = int(status["SigIgn"], 16), int(status["SigBlk"], 16)
    found = {number for number in range(1, 65) if (ignored | blocked) >> (number - 1) & 1}
    assert found <= {32, 33}  # glibc's own, which no program can name; its posix_spawn leaves them ignored


def test_script_that_is_cut_off_by_its_own_reader_ends_quietly(host: Host) -> None:
    """The same as a shell user sees it: SIGPIPE ends the writer of a pipeline."""
    host.site.script("pipeline.sh", f"#!/bin/sh\nprintf '{PLAIN}'; yes | head -n 3\n")
    assert host.get("/cgi-bin/pipeline.sh").text == "y\ny\ny\n"


def test_script_has_no_terminal(host: Host) -> None:
    """RFC 3875 4.2: nobody could answer a question there; a server in a terminal's foreground must not lend it."""
    found = facts(host)
    assert found["ttys"] == [False, False, False]


def test_script_cannot_reach_the_terminal_that_the_server_was_started_in(tmp_path: Path) -> None:
    """Practice, POSIX.1 11.1: a password prompt on /dev/tty would stop a script for ever (SIGTTIN)."""
    site = Site(tmp_path / "site")
    site.sh("tty.sh", f"printf '{PLAIN}'; (: < /dev/tty) 2>/dev/null && echo reached || echo none\n")
    terminal, servers_side = os.openpty()
    # a session's leader that opens a terminal gets it as its own
    start = "import os, sys; os.open(sys.argv[1], os.O_RDWR); os.execv(sys.argv[2], sys.argv[2:])"
    command = [sys.executable, "-c", start, os.ttyname(servers_side)]
    command += [str(servers.BIN / "wsgicgi-dev"), "-d", str(site.directory), "0"]
    try:
        with servers.running(command, r"http://127\.0\.0\.1:(\d+)/", tmp_path / "server.log") as server:
            assert server.get("/cgi-bin/tty.sh")[1] == b"none\n"
    finally:
        os.close(terminal)
        os.close(servers_side)


def test_script_leads_a_process_group_of_its_own(host: Host) -> None:
    """Practice: so that its children end with it, and a Ctrl-C for the server is not theirs."""
    found = facts(host)
    assert found["group"] == found["pid"]


def test_script_is_started_by_the_server_and_not_by_a_shell(host: Host) -> None:
    """RFC 3875 9.3."""
    parent = facts(host)["parent"]
    assert parent in host.server.pids()
    assert Path(f"/proc/{parent}/comm").read_text().strip() not in ("sh", "bash", "dash")


def test_umask_and_priority_are_those_of_the_server(host: Host) -> None:
    """Practice: whoever starts the server decides who may read what scripts write."""
    found = facts(host)
    worker = Path(f"/proc/{found['parent']}/status").read_text()
    match = re.search(r"^Umask:\s*(\d+)", worker, re.M)
    assert match is not None
    assert found["status"]["Umask"] == match[1]
    assert found["nice"] == os.getpriority(os.PRIO_PROCESS, found["parent"])


def test_identity_is_that_of_the_server(host: Host) -> None:
    """Practice: no rights are gained or lost by the way."""
    found = facts(host)
    worker = Path(f"/proc/{found['parent']}/status").read_text()
    for name in ("Uid", "Gid"):
        match = re.search(rf"^{name}:\s*(.*)$", worker, re.M)
        assert match is not None
        assert found["status"][name].split() == match[1].split()


def test_written_file_lands_beside_the_script(host: Host) -> None:
    """RFC 3875 7.2: relative names work."""
    host.site.sh("writer.sh", f"echo kept > writer.out; printf '{PLAIN}'; cat ./writer.out\n")
    assert host.get("/cgi-bin/writer.sh").text == "kept\n"
    assert (host.site.directory / "cgi-bin/writer.out").read_text() == "kept\n"


# -- what may run


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program in machine code: from a compiler where there is one, else a copy of one that prints."""
    program = tmp_path_factory.mktemp("compiled") / "program"
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        shutil.copy(shutil.which("env") or "/usr/bin/env", program)
        return program
    source = program.with_suffix(".c")
    source.write_text(
        "#include <stdio.h>\n#include <stdlib.h>\nint main(int count, char **words) {\n"
        '  printf("Content-Type: text/plain\\n\\n%s\\n%d\\n", getenv("QUERY_STRING"), count);\n  return 0;\n}\n'
    )
    subprocess.run([compiler, "-o", program, source], check=True)
    return program


def test_compiled_program_is_a_script(host: Host, compiled: Path) -> None:
    """RFC 3875 3.1: any executable."""
    target = host.site.script("compiled", compiled.read_bytes())
    assert target.stat().st_mode & stat.S_IXUSR
    if compiled.with_suffix(".c").exists():
        answer = host.get("/cgi-bin/compiled?a+b")
        assert (answer.status, answer.text) == (200, "a+b\n3\n")
    else:
        assert host.get("/cgi-bin/compiled").status == 502  # env prints variables, which are no header


FIRST_LINES = {
    "plain": "#!/bin/sh\n",
    "blank_before": "#! /bin/sh\n",
    "argument": "#!/bin/sh -e\n",
    "trailing_blank": "#!/bin/sh \n",
    "env": "#!/usr/bin/env sh\n",
    "env_with_arguments": "#!/usr/bin/env -S sh -e\n",
}


@pytest.mark.parametrize("line", FIRST_LINES.values(), ids=FIRST_LINES.keys())
def test_first_line_names_the_interpreter(host: Host, line: str) -> None:
    """execve(2): with blanks, with an argument, through env."""
    host.site.script("first-line", f"{line}printf '{PLAIN}%s' \"$1\"\n")
    answer = host.get("/cgi-bin/first-line?word")
    assert (answer.status, answer.text) == (200, "word")


def test_python_script_gets_the_options_of_its_first_line(host: Host) -> None:
    """execve(2)."""
    host.site.script("isolated", f"#!{sys.executable} -I\nimport sys\nprint('{PLAIN}' + str(sys.flags.isolated))\n")
    assert host.get("/cgi-bin/isolated").text == "1\n"


@pytest.mark.parametrize("name", ["no-suffix", "x.cgi", "x.pl", "x.txt", "x.html", "UPPER.CGI", "x.tar.gz"])
def test_executable_runs_whatever_its_suffix(host: Host, name: str) -> None:
    """RFC 3875 3.1: below a CGI directory everything is a script."""
    host.site.script(name, shell("ran"))
    answer = never_source(host.get(f"/cgi-bin/{name}"))
    assert (answer.status, answer.text) == (200, "ran")


def test_script_can_be_its_interpreters_script_in_turn(host: Host) -> None:
    """execve(2): an interpreter may be a script itself, a few levels deep."""
    inner = host.site.directory.parent / "interpreter"
    inner.write_text(f"#!/bin/sh\nprintf '{PLAIN}via %s' \"${{1##*/}}\"\n")
    inner.chmod(0o755)
    host.site.script("outer", f"#!{inner}\n")
    assert host.get("/cgi-bin/outer").text == "via outer"


UNFIT = {
    "missing-interpreter": "#!/no/such/interpreter\n",
    "crlf": "#!/bin/sh\r\n",
    "no-first-line": "",
    "bare-marks": "#!\n",
    "directory": "#!/usr\n",
    "not-executable-interpreter": "#!/etc/passwd\n",
    "mark-before": "\ufeff#!/bin/sh\n",
    "relative-interpreter": "#!no/such/thing\n",
    "overlong": "#!/" + "i" * 5000 + "\n",
}


@pytest.mark.parametrize(("name", "line"), UNFIT.items(), ids=UNFIT.keys())
def test_script_that_the_system_cannot_start_gives_500(host: Host, name: str, line: str) -> None:
    """RFC 9110 15.6.1, 15.6.3: a fault on the server's side, and not one word of the source."""
    host.site.script(f"unfit-{name}", f"{line}# {SECRET}\nprintf '{PLAIN}ran'\n")
    answer = never_source(host.get(f"/cgi-bin/unfit-{name}"))
    assert answer.status in (500, 502)
    assert str(host.site.directory) not in answer.text


def test_first_lines_in_a_circle_give_500(host: Host) -> None:
    """execve(2): ELOOP."""
    directory = host.site.directory / "cgi-bin"
    host.site.script("circle-a", f"#!{directory}/circle-b\n")
    host.site.script("circle-b", f"#!{directory}/circle-a\n")
    assert host.get("/cgi-bin/circle-a").status in (500, 502)


@pytest.mark.parametrize("data", [b"", b"\n", b"\x7fELF", os.urandom(500)], ids=["empty", "line", "elf", "noise"])
def test_executable_that_is_no_program_gives_500(host: Host, data: bytes) -> None:
    """RFC 9110 15.6.1: ENOEXEC is no reason to ask a shell."""
    host.site.script("no-program", data)
    assert host.get("/cgi-bin/no-program").status in (500, 502)


@pytest.mark.parametrize(
    "target",
    [
        "/cgi-bin/absent",
        "/cgi-bin/absent/x",
        "/cgi-bin/absent.py?x",
        "/cgi-bin/sub/absent",
        "/cgi-bin/absent/report.py",
        "/cgi-bin/report",
        "/cgi-bin/report.pyc",
        "/cgi-bin/report.py~",
        "/cgi-bin/report.py%20",
        "/cgi-bin/report.py.",
        "/cgi-bin/REPORT.PY",
        "/CGI-BIN/report.py",
        "/cgi-bin/%20report.py",
        "/cgi-bin/" + "n" * 300,
    ],
)
def test_script_that_is_not_there_gives_404(host: Host, target: str) -> None:
    """RFC 9110 15.5.5."""
    assert host.get(target).status == 404


@pytest.mark.parametrize("leads_to", ["nowhere", "looping", "../../../../../../../nowhere"])
def test_link_that_leads_nowhere_gives_403_or_404(host: Host, leads_to: str) -> None:
    """RFC 9110 15.5.5; ELOOP counts as not found."""
    link = host.site.directory / "cgi-bin/looping"
    link.unlink(missing_ok=True)
    link.symlink_to(leads_to)
    assert host.get("/cgi-bin/looping").status in (403, 404)


@pytest.mark.parametrize(
    "target", ["/cgi-bin", "/cgi-bin/", "/cgi-bin/sub", "/cgi-bin/sub/", "/cgi-bin//", "/cgi-bin/."]
)
def test_directory_of_scripts_is_not_listed(host: Host, target: str) -> None:
    """RFC 3875 9: names of scripts are nobody's business."""
    answer = host.get(target)
    assert answer.status in (403, 404)
    assert "report" not in answer.text


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "PUT", "OPTIONS"])
@pytest.mark.parametrize("name", ["plain.sh", "data.txt", "page.html", "config.ini", "picture.png"])
def test_file_that_is_not_executable_is_neither_run_nor_shown(host: Host, name: str, method: str) -> None:
    """Practice of all servers: 403, 404 or 500."""
    host.site.script(f"not-{name}", shell("ran"), 0o644)
    answer = never_source(host.ask(method, f"/cgi-bin/not-{name}", body=b"" if method in ("POST", "PUT") else None))
    assert answer.status in (403, 404, 500)
    assert "ran" not in answer.text


def test_extra_path_of_a_file_that_is_not_executable_shows_nothing(host: Host) -> None:
    """The same with something behind the name."""
    host.site.script("not-run.txt", shell("ran"), 0o644)
    for target in (
        "/cgi-bin/not-run.txt/",
        "/cgi-bin/not-run.txt/x",
        "/cgi-bin/not-run.txt?x",
        "/cgi-bin/./not-run.txt",
    ):
        assert never_source(host.get(target)).status in (403, 404, 500)


@pytest.mark.parametrize("mode", [0o000, 0o111, 0o200, 0o600])
def test_unreadable_script_is_not_shown(host: Host, mode: int) -> None:
    """RFC 9110 15.5.4: it may run, where the system lets it (as root it does); or 403, 404, 500, 502."""
    script = host.site.script("unreadable", shell("ran"), mode)
    answer = never_source(host.get("/cgi-bin/unreadable"))
    assert (answer.status, answer.text) == (200, "ran") or answer.status in (403, 404, 500, 502)
    assert not (mode & 0o111 == 0 and answer.status == 200)
    script.chmod(0o755)


def test_fifo_among_the_scripts_blocks_nobody(host: Host) -> None:
    """Only plain files are scripts; opening a FIFO would wait for a writer."""
    fifo = host.site.directory / "cgi-bin/fifo"
    if not fifo.exists():
        os.mkfifo(fifo, 0o755)
        fifo.chmod(0o777)
    assert host.raw(wire.request("GET", "/cgi-bin/fifo"), timeout=5).status in (403, 404, 500)


@pytest.mark.parametrize("name", [".hidden", ".hidden.py", "left-over.py~", "left-over.bak", ".dir/script"])
def test_hidden_names_are_no_scripts(host: Host, name: str) -> None:
    """CWE-530: what editors leave behind is neither run nor shown."""
    host.site.script(name, shell("ran"))
    answer = never_source(host.get(f"/cgi-bin/{name}"))
    assert (answer.status, "ran" in answer.text) == (404, False)


# -- links


def test_linked_script_runs_under_the_name_of_the_link(host: Host) -> None:
    """RFC 3875 4.1.13: SCRIPT_NAME is what the URL says; a link within the site is a file like others."""
    link = host.site.directory / "cgi-bin/linked.py"
    link.unlink(missing_ok=True)
    link.symlink_to("sub/report.py")
    given = host.report("/cgi-bin/linked.py/x")
    assert (given["environ"]["SCRIPT_NAME"], given["environ"]["PATH_INFO"]) == ("/cgi-bin/linked.py", "/x")
    assert given["cwd"] in (f"{host.site.directory}/cgi-bin", f"{host.site.directory}/cgi-bin/sub")


def test_script_below_a_linked_directory_runs(host: Host) -> None:
    """RFC 3875 3.3: the same for directories."""
    link = host.site.directory / "cgi-bin/linked-dir"
    link.unlink(missing_ok=True)
    link.symlink_to("sub")
    environ = host.report("/cgi-bin/linked-dir/report.py/x")["environ"]
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/cgi-bin/linked-dir/report.py", "/x")


def test_linked_script_from_elsewhere_runs_or_is_refused(host: Host) -> None:
    """Practice: who may put links into a CGI directory may put programs there; never the text."""
    outside = host.site.directory.parent / "outside.sh"
    outside.write_text(shell("ran"))
    outside.chmod(0o755)
    link = host.site.directory / "cgi-bin/outside.sh"
    link.unlink(missing_ok=True)
    link.symlink_to(outside)
    answer = never_source(host.get("/cgi-bin/outside.sh"))
    assert (answer.status, answer.text) == (200, "ran") or answer.status in (403, 404)


def test_link_to_a_text_from_elsewhere_is_not_shown(host: Host) -> None:
    """CWE-59."""
    outside = host.site.directory.parent / "outside.txt"
    outside.write_text(SECRET)
    link = host.site.directory / "cgi-bin/outside.txt"
    link.unlink(missing_ok=True)
    link.symlink_to(outside)
    assert never_source(host.get("/cgi-bin/outside.txt")).status in (403, 404, 500)


def test_link_from_outside_the_cgi_directory_shows_no_source(host: Host) -> None:
    """CWE-540: a link among the static files that leads to a script."""
    host.site.script("shown.sh", shell("ran"))
    link = host.site.directory / "shown.txt"
    link.unlink(missing_ok=True)
    link.symlink_to("cgi-bin/shown.sh")
    assert never_source(host.get("/shown.txt")).status in (200, 403, 404)


# -- changes while the server runs


def test_new_script_is_there_at_once(host: Host) -> None:
    """Practice: no restart for a new file."""
    assert host.get("/cgi-bin/newcomer").status == 404
    script = host.site.script("newcomer", shell("here"))
    assert host.get("/cgi-bin/newcomer").text == "here"
    script.unlink()


def test_changed_script_runs_in_its_new_form_and_a_removed_one_is_gone(host: Host) -> None:
    """Practice: overwritten, or replaced by another file; then 404 (or 403)."""
    script = host.site.script("changing", shell("one"))
    assert host.get("/cgi-bin/changing").text == "one"
    script.write_text(shell("two"))
    assert host.get("/cgi-bin/changing").text == "two"
    host.site.script("changing.new", shell("three")).rename(script)
    assert host.get("/cgi-bin/changing").text == "three"
    script.unlink()
    servers.wait_until(lambda: host.get("/cgi-bin/changing").status in (403, 404), "the removed script is gone")


def test_changed_permission_counts_at_once(host: Host) -> None:
    """Practice: chmod is how one takes a script out of service."""
    script = host.site.script("on-and-off.sh", shell("ran"))
    assert host.get("/cgi-bin/on-and-off.sh").status == 200
    script.chmod(0o644)
    assert never_source(host.get("/cgi-bin/on-and-off.sh")).status in (403, 404, 500)
    script.chmod(0o755)
    assert host.get("/cgi-bin/on-and-off.sh").status == 200


def test_script_may_become_a_directory(host: Host) -> None:
    """RFC 3875 3.3: where the script's part of the path ends is found anew each time."""
    script = host.site.script("two-forms", shell("file"))
    assert host.get("/cgi-bin/two-forms").text == "file"
    script.unlink()
    inner = host.site.script("two-forms/inner", shell("inner"))
    assert host.get("/cgi-bin/two-forms/inner").text == "inner"
    inner.unlink()
    inner.parent.rmdir()


# -- several at once


def test_two_scripts_run_at_the_same_time(host: Host) -> None:
    """RFC 3875 9.7: each waits for what the other does."""
    here, there = (str(host.state_dir / f"rendezvous-{i}") for i in range(2))

    def meet(mine: str, other: str) -> wire.Answer:
        return host.steps(["touch", mine], ["wait_for", other], ["out", "Content-Type: text/plain\n\nmet"])

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(meet, (here, there), (there, here)))
    assert [(answer.status, answer.text) for answer in answers] == [(200, "met")] * 2
    os.unlink(here)
    os.unlink(there)


def test_the_same_script_runs_several_times_at_once(host: Host) -> None:
    """RFC 3875 9.7: four of one script, none of which ends before all have begun."""
    names = [str(host.state_dir / f"quartet-{i}") for i in range(4)]

    def play(mine: str) -> wire.Answer:
        waits = [["wait_for", name] for name in names]
        return host.steps(["touch", mine], *waits, ["out", f"Content-Type: text/plain\n\n{mine}"])

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(play, names))
    assert [answer.text for answer in answers] == names
    for name in names:
        os.unlink(name)


def test_concurrent_requests_are_not_mixed_up(host: Host) -> None:
    """RFC 3875 4.1: each script has the variables, words and body of its own request."""

    def ask(number: int) -> bool:
        given = host.report(f"{REPORT}/p{number}?q={number}", "POST", [("X-Number", str(number))], b"%d" % number)
        environ = given["environ"]
        found = (environ["PATH_INFO"], environ["QUERY_STRING"], environ["HTTP_X_NUMBER"], given["body"])
        return found == (f"/p{number}", f"q={number}", str(number), str(number))

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert all(pool.map(ask, range(18)))


def test_waiting_script_does_not_hold_up_a_file(host: Host) -> None:
    """RFC 3875 9.7: nor other requests at all."""
    gate = host.state_dir / "file-gate"
    host.site.file("quick.txt", "quick")
    with host.connect() as connection:
        connection.send(wire.request("GET", servers.steps(["wait_for", str(gate)], ["out", "Status: 204\n\n"])))
        try:
            assert host.get("/quick.txt").text == "quick"
        finally:
            gate.touch()
        assert connection.read().status == 204
    gate.unlink()
