"""Perl scripts from a warm parent: they cannot tell, and nothing goes from one to the next."""

from __future__ import annotations

import logging
import os
import pwd
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import living, wait_until
from sites import Site
from warm_perl_cases import CASES
from werkzeug.test import Client

from wsgicgi import Config, ConfigError, create_app
from wsgicgi.runners import Execution, Identity, Invocation, Restrictions, SpawnRunner, WarmRunner, warmparent
from wsgicgi.runners.base import ExitStatus

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not os.access("/usr/bin/perl", os.X_OK), reason="needs Linux and Debian's perl"
)

PATH = "/usr/local/bin:/usr/bin:/bin"
BODY = b"name=Ada+Lovelace&text=0123456789+&name=two\nsecond line\n"
METAVARS = {
    "PATH": PATH,
    "GATEWAY_INTERFACE": "CGI/1.1",
    "REQUEST_METHOD": "POST",
    "CONTENT_LENGTH": str(len(BODY)),
    "CONTENT_TYPE": "application/x-www-form-urlencoded",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "SCRIPT_NAME": "/cgi-bin/script.pl",
    "SERVER_SOFTWARE": "wsgicgi",
    "EMPTY": "",
    "EQUAL": "a=b=c",
}

#: What each kind of parent has in its first line.
FIRST_LINES = [
    "#!/usr/bin/perl",
    "#!/usr/bin/perl -w",
    "#! /usr/bin/perl -w -w ",
    "#!/usr/bin/perl -W",
    "#!/usr/bin/perl -X",
]

#: Cases that a warm parent cannot do as they are: they are spawned.
COLD = {
    "flag w of a program elsewhere",
    "flag T",
    "flag t",
    "flag n",
    "flag l",
    "flag s",
    "flag C",
    "flag M",
    "flag x",
}

Ran = tuple[str, str, ExitStatus | None]


def started(
    runner: SpawnRunner,
    argv: Path | tuple[str, ...],
    *,
    body: bytes = b"",
    metavars: dict[str, str] | None = None,
    identity: Identity | None = None,
    preload: tuple[str, ...] | str = "learn",
    **restrictions: Any,
) -> Execution:
    """Start a script in its directory."""
    words = argv if isinstance(argv, tuple) else (str(argv), "one", "two words")
    read_end, write_end = os.pipe()
    os.write(write_end, body)
    os.close(write_end)
    try:
        return runner.start(
            Invocation(
                argv=words,
                metavars={**METAVARS, "UNIQUE_ID": "the same", **(metavars or {})},
                cwd=str(Path(words[0] if words[0].endswith(".pl") else words[1]).parent),
                stdin=read_end,
                identity=identity,
                restrictions=Restrictions(**restrictions),
                preload=preload,
            )
        )
    finally:
        os.close(read_end)


def ended(execution: Execution) -> Ran:
    """All that a script writes, and its end."""
    output, errors = b"", b""
    try:
        while piece := os.read(execution.stdout, 65536):
            output += piece
        while piece := os.read(execution.stderr, 65536):
            errors += piece
        return output.decode("latin-1"), errors.decode("latin-1"), execution.wait(20)
    finally:
        execution.terminate()
        execution.close()


def run(runner: SpawnRunner, argv: Path | tuple[str, ...], **more: Any) -> Ran:
    return ended(started(runner, argv, **more))


def is_warm(execution: Execution) -> bool:
    return isinstance(execution, warmparent.WarmExecution)


def run_warm(runner: WarmRunner, argv: Path | tuple[str, ...], **more: Any) -> Ran:
    """Run a script from a warm parent, as soon as there is one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        execution = started(runner, argv, **more)
        if is_warm(execution):
            return ended(execution)
        ended(execution)
    raise AssertionError("no parent got ready")


def write(file: Path, text: str) -> Path:
    file.unlink(missing_ok=True)  # it may be closed even to us
    file.write_text(text if text.startswith("#!") else f"#!/usr/bin/perl\n{text}")
    file.chmod(0o755)
    return file


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Where scripts are, with modules beside them; pytest's own directories are closed to others."""
    with tempfile.TemporaryDirectory(prefix="wsgicgi-perl-") as name:
        yield furnished(Path(name).resolve())


def furnished(directory: Path) -> Path:
    (directory / "sibling.pm").write_text("package sibling; use strict; sub f { 'sibling' } 1;\n")
    (directory / "sibling.pl").write_text("'value of sibling' . join '|', caller;\n")
    (directory / "dying.pm").write_text("package dying; die 'in module'; 1;\n")
    directory.chmod(0o755)
    return directory


@pytest.fixture(scope="module")
def warm(directory: Path) -> Iterator[WarmRunner]:
    """A runner with a parent of each kind, which tests share."""
    runner = WarmRunner()
    for number, first_line in enumerate(FIRST_LINES):
        run_warm(runner, write(directory / f"kind{number}.pl", f"{first_line}\nuse CGI;\n"))
    run_warm(runner, write(directory / "path.pl", "print @INC;"))
    yield runner
    runner.close()


@pytest.fixture
def own() -> Iterator[WarmRunner]:
    """A runner of the test's own."""
    runner = WarmRunner()
    yield runner
    runner.close()


def parent_of(runner: WarmRunner) -> warmparent.WarmParent:
    """The parent of the first kind."""
    parent = next(iter(runner._parents.values()))._current
    assert parent is not None
    return parent


# -- a script cannot tell


@pytest.mark.parametrize("name", [name for name in CASES if name not in COLD])
def test_script_is_as_if_it_had_been_spawned(warm: WarmRunner, directory: Path, name: str) -> None:
    """Each byte that it writes, and its end, the first time and later."""
    script = write(directory / "script.pl", CASES[name])
    cold = run(SpawnRunner(), script, body=BODY)
    for _ in range(2):
        execution = started(warm, script, body=BODY)
        assert is_warm(execution)
        assert without_time(ended(execution)) == without_time(cold)


def without_time(ran: Ran) -> Ran:
    """Without the time of day, which CGI::Carp writes."""
    return ran[0], re.sub(r"\d\d:\d\d:\d\d", "", ran[1]), ran[2]


@pytest.mark.parametrize("name", sorted(COLD))
def test_what_a_fork_cannot_do_faithfully_is_spawned(warm: WarmRunner, directory: Path, name: str) -> None:
    """Taint mode, and what else perl must know before it starts."""
    script = write(directory / "script.pl", CASES[name])
    execution = started(warm, script, body=BODY)
    assert not is_warm(execution)
    assert ended(execution) == run(SpawnRunner(), script, body=BODY)


@pytest.mark.parametrize(
    "metavars", [{"PERL5OPT": "-Mstrict"}, {"PERL_UNICODE": "SDA"}, {"PERL5DB": "BEGIN { print 'debugged' }"}]
)
def test_variables_that_change_how_perl_begins_are_heeded(
    warm: WarmRunner, directory: Path, metavars: dict[str, str]
) -> None:
    """Those that no parent can have are for spawn."""
    script = write(directory / "script.pl", "$x = 1; print $x, chr 233, @ARGV;")
    execution = started(warm, script, metavars=metavars)
    assert not is_warm(execution)
    assert ended(execution) == run(SpawnRunner(), script, metavars=metavars)


def test_perl5lib_and_locale_are_those_of_the_script(own: WarmRunner, directory: Path) -> None:
    """Parents differ by them."""
    script = write(directory / "script.pl", 'use POSIX; print "$_\\n" for @INC, setlocale(LC_ALL), sibling::f();')
    script.write_text(script.read_text().replace("use POSIX", "use sibling; use POSIX"))
    metavars = {"PERL5LIB": str(directory), "LC_ALL": "C.UTF-8"}
    assert run_warm(own, script, metavars=metavars) == run(SpawnRunner(), script, metavars=metavars)


def test_command_of_a_perl_and_a_script(warm: WarmRunner, directory: Path) -> None:
    """As ``interpreters`` has it; the script needs no permission to be executed."""
    script = write(
        directory / "script.pl", "#!/usr/bin/perl -w\nprint join '|', $0, $^X, $^W, @ARGV; print `cat /proc/$$/comm`;"
    )
    script.chmod(0o644)
    argv = ("/usr/bin/perl", str(script), "a", "b")
    assert run_warm(warm, argv) == run(SpawnRunner(), argv)


@pytest.mark.parametrize("name", ["a b.pl", "naïve.pl", "quo'te.pl", 'double"quote.pl', "$x.pl", "x" * 240 + ".pl"])
def test_name_of_a_script_is_shown_as_it_is(warm: WarmRunner, directory: Path, name: str) -> None:
    """In messages, and as the name of the process."""
    script = write(
        directory / name, "open my $f, '<', '/proc/self/comm'; print $0, __FILE__, <$f>; use strict; $x; die;"
    )
    cold = run(SpawnRunner(), script)
    assert f"Execution of {script} aborted" in cold[1].encode("latin-1").decode()
    assert run(warm, script) == run(warm, script) == cold


@pytest.mark.parametrize("mode", [0o644, 0o000])
def test_script_that_may_not_be_executed_is_refused(warm: WarmRunner, directory: Path, mode: int) -> None:
    """With the error that the kernel has for it."""
    script = write(directory / "script.pl", "print 1;")
    script.chmod(mode)
    with pytest.raises(PermissionError):
        started(warm, script)


def test_script_that_is_gone_is_refused(warm: WarmRunner, directory: Path) -> None:
    """And a directory that is."""
    with pytest.raises(FileNotFoundError):
        started(warm, directory / "none.pl")
    script = write(directory / "script.pl", "print 1;")
    null = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(FileNotFoundError) as caught:
        warm.start(Invocation(argv=(str(script),), metavars=METAVARS, cwd="/no/such", stdin=null, preload="learn"))
    os.close(null)
    assert caught.value.filename == "/no/such"


def test_body_of_a_file_and_a_large_answer(warm: WarmRunner, directory: Path) -> None:
    """Standard input that can be sought, and more output than a pipe holds."""
    script = write(
        directory / "script.pl", "print tell STDIN; print scalar <STDIN>; seek STDIN, 0, 0; print 'x' x 1e6;"
    )
    body = directory / "body"
    body.write_bytes(b"line\nline\n")
    results = []
    for runner in (SpawnRunner(), warm):
        with body.open("rb") as stdin:
            execution = runner.start(
                Invocation(argv=(str(script),), metavars=METAVARS, cwd="/", stdin=stdin.fileno(), preload="learn")
            )
            results.append(ended(execution))
    assert results[0] == results[1]
    assert len(results[0][0]) == 1_000_006


# -- nothing goes from one request to the next


def test_globals_of_a_script_are_gone_with_it(warm: WarmRunner, directory: Path) -> None:
    """Variables, functions, modules, handlers, streams, environment, directory, umask."""
    script = write(
        directory / "script.pl",
        "no strict; print join '|', $main::count++, defined &f, $INC{'sibling.pm'}, $SIG{USR1}, $ENV{LEFT}, umask, $|, "
        "$/, fileno(LEFT), scalar(keys %h), $CGI::Q, -e 'script.pl' ? 'here' : 'there', "
        "exists $INC{'x'};"
        "eval 'sub f { 1 }'; require './sibling.pm'; $SIG{USR1} = sub { }; $ENV{LEFT} = 1; umask "
        "077; $| = 1; $h{1} = 2;"
        "open LEFT, '<', '/dev/null'; chdir '/'; $INC{x} = 1; require CGI; $CGI::POST_MAX = 5; CGI::param('a');"
        "$/ = undef;",
    )
    first = run(warm, script, body=BODY)
    assert first[0].startswith("0||||")
    assert [run(warm, script, body=BODY) for _ in range(3)] == [first] * 3


def test_parameters_are_the_requests_own(warm: WarmRunner, directory: Path) -> None:
    """CGI.pm keeps an object in a global variable, which is how a mod_perl leaks."""
    script = write(
        directory / "script.pl",
        "use CGI qw(:standard); print join '|', map { scalar param($_) // 'none' } qw(a b); "
        "print cookie('c') // 'no cookie';",
    )
    get = {"REQUEST_METHOD": "GET", "CONTENT_LENGTH": "", "CONTENT_TYPE": ""}
    assert run(warm, script, metavars={**get, "QUERY_STRING": "a=1", "HTTP_COOKIE": "c=secret"})[0] == "1|nonesecret"
    assert run(warm, script, metavars={**get, "QUERY_STRING": "b=2"})[0] == "none|2no cookie"
    assert run(warm, script, metavars={**get, "QUERY_STRING": ""})[0] == "none|noneno cookie"


def test_random_numbers_differ(warm: WarmRunner, directory: Path) -> None:
    """Each process has a seed of its own."""
    script = write(directory / "script.pl", "print rand; print srand;")
    assert len({run(warm, script)[0] for _ in range(8)}) == 8


def test_change_of_a_script_is_seen_at_once(warm: WarmRunner, directory: Path) -> None:
    """And of a module beside it."""
    script = write(directory / "script.pl", "require './changing.pm'; print changing::f();")
    for text in ("one", "two", "three"):
        (directory / "changing.pm").write_text(f"package changing; sub f {{ '{text}' }} 1;")
        assert run(warm, script)[0] == text
        write(directory / "other.pl", f"print '{text}';")
        assert run(warm, directory / "other.pl")[0] == text


# -- modules


def loaded(runner: WarmRunner, directory: Path, **more: Any) -> str:
    """The files that a script finds loaded which uses nothing."""
    return run_warm(runner, write(directory / "nothing.pl", "print map { qq{$_\\n} } sort keys %INC;"), **more)[0]


def until(condition: Callable[[], bool], what: str) -> None:
    wait_until(condition, what, 30)


def test_modules_that_scripts_use_are_learned(own: WarmRunner, directory: Path, tmp_path: Path) -> None:
    """Those of @INC; never those of the script's directory."""
    script = write(directory / "script.pl", "require './sibling.pm'; use Text::Wrap; require Text::Tabs; print 'done';")
    assert "Text/Wrap.pm" not in loaded(own, directory)
    assert run(own, script)[0] == "done"
    until(lambda: "Text/Wrap.pm" in loaded(own, directory), "it is learned")
    assert "sibling.pm" not in loaded(own, directory)


def test_a_script_with_modules_elsewhere_gets_these(own: WarmRunner, directory: Path, tmp_path: Path) -> None:
    """One that is kept warm since another script uses it is not taken in the place of its own (vendored libraries)."""
    (tmp_path / "Text").mkdir()
    (tmp_path / "Text" / "Wrap.pm").write_text("package Text::Wrap; our $whose = 'its own'; 1;")
    use = "use Text::Wrap; print $Text::Wrap::whose // 'installed';"
    script = write(directory / "script.pl", f"use lib '{tmp_path}'; {use}")
    other = write(directory / "other.pl", use)
    assert run_warm(own, script)[0] == "its own"
    assert run(own, other)[0] == "installed"
    until(lambda: run(own, other)[0] == "installed" and "Text/Wrap.pm" in loaded(own, directory), "it is learned")
    assert run_warm(own, script)[0] == "its own"


def test_what_is_loaded_at_run_time_is_learned_too(own: WarmRunner, directory: Path) -> None:
    """At the end of the script it is known."""
    script = write(directory / "script.pl", "require Text::ParseWords; print 'done';")
    loaded(own, directory)
    assert run(own, script)[0] == "done"
    until(lambda: "Text/ParseWords.pm" in loaded(own, directory), "it is learned")


def test_named_modules_are_loaded_and_no_others_but_cgi(own: WarmRunner, directory: Path) -> None:
    """What is no module of Perl is for Python's scripts."""
    preload = ("sqlite3", "Text::Wrap", "Text.Abbrev")
    assert {"Text/Wrap.pm", "Text/Abbrev.pm"} <= set(loaded(own, directory, preload=preload).split())
    script = write(directory / "script.pl", "use CGI; use Text::ParseWords; print 'done';")
    assert run(own, script, preload=preload)[0] == "done"
    until(lambda: "CGI.pm" in loaded(own, directory, preload=preload), "CGI is learned")
    assert "Text/ParseWords.pm" not in loaded(own, directory, preload=preload)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("open our $kept, '<', '/dev/null';", "opens a descriptor"),
        ("$SIG{__WARN__} = sub { };", "changes %SIG"),
        ("$ENV{ADDED} = 1;", "changes %ENV"),
        ("our $method = $ENV{REQUEST_METHOD};", "reads the variable REQUEST_METHOD"),
        ("binmode STDOUT, ':utf8';", "changes the standard streams"),
        ("$| = 1;", "changes the standard streams"),
        ("*CORE::GLOBAL::time = sub { 1 };", "replaces functions of Perl"),
        ("sub UNIVERSAL::shout { 1 }", "adds methods to every class"),
        ("sub main::helper { 1 }", "adds functions to main"),
        ("push @INC, '/elsewhere';", "changes @INC"),
        ("use threads; threads->create(sub { sleep 60 })->detach;", "starts a thread"),
        ("exit 0;", "ends the process"),
        ("die 'not today';", "does not load: not today"),
    ],
)
def test_module_that_others_would_notice_is_left_to_its_users(
    own: WarmRunner, directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, reason: str
) -> None:
    """With a line in the log, once."""
    library = tmp_path / "lib"
    library.mkdir()
    (library / "Noticed.pm").write_text(f"package Noticed; {text} sub f {{ 'used' }} 1;\n")
    more: dict[str, Any] = {"metavars": {"PERL5LIB": str(library)}, "preload": ("Noticed", "Text::Wrap")}
    found = loaded(own, directory, **more)
    assert "Text/Wrap.pm" in found
    assert "Noticed.pm" not in found
    until(lambda: bool(loaded(own, directory, **more)) and "Noticed" in caplog.text, "the log has it")
    assert caplog.text.count("the Perl module Noticed.pm is not kept warm") == 1
    assert reason in caplog.text
    script = write(directory / "script.pl", "use Noticed; print Noticed::f();")
    assert run(own, script, **more)[0] == run(SpawnRunner(), script, **more)[0]


def test_module_that_needs_one_that_needs_it_is_left_to_its_users(
    own: WarmRunner, directory: Path, tmp_path: Path
) -> None:
    """Which is first decides what they become (Template Toolkit's Stash and VMethods); the others are kept."""
    library = tmp_path / "lib"
    library.mkdir()
    (library / "First.pm").write_text("package First; use Second; our $copy = $Second::value // 'none'; 1;\n")
    (library / "Second.pm").write_text("package Second; require First; our $value = 'copied'; 1;\n")
    more: dict[str, Any] = {"metavars": {"PERL5LIB": str(library)}, "preload": ("Second", "Text::Wrap")}
    found = loaded(own, directory, **more)
    assert "Text/Wrap.pm" in found
    assert "Second.pm" not in found
    assert run_warm(own, write(directory / "script.pl", "use First; print $First::copy;"), **more)[0] == "copied"


@pytest.mark.parametrize(
    ("text", "is_kept"),
    [
        ("use First; print $First::copy;", True),
        ("=pod\n\nnot Second\n\n=cut\n\nuse First; print $First::copy;\n__END__\nnot Second", True),
        ("print First->can('x') ? '' : eval { require First } && $First::copy;", True),
        ("use First; use Second; print $First::copy;", False),
        ("my $name = 'Fir' . 'st.pm'; require $name; print $First::copy;", False),
    ],
    ids=["first", "documentation", "run-time", "both", "hidden"],
)
def test_module_of_a_circle_is_kept_where_it_is_seen_to_be_the_first(
    text: str, is_kept: bool, own: WarmRunner, directory: Path, tmp_path: Path
) -> None:
    """In the files that the script has loaded, and its own; CGI.pm loads HTML::Entities, which needs HTML::Parser."""
    library = tmp_path / "lib"
    library.mkdir()
    (library / "First.pm").write_text("package First; use Second; our $copy = $Second::value // 'none'; 1;\n")
    (library / "Second.pm").write_text("package Second; require First; our $value = 'copied'; 1;\n")
    variables = {"PERL5LIB": str(library)}
    script = write(directory / "script.pl", text)
    other = write(directory / "other.pl", "use Text::Wrap; print 'done';")

    assert run_warm(own, script, metavars=variables)[0] == "copied"
    assert run_warm(own, other, metavars=variables)[0] == "done"
    until(lambda: "Text/Wrap.pm" in loaded(own, directory, metavars=variables), "what came later is learned")
    assert ("First.pm" in loaded(own, directory, metavars=variables)) is is_kept
    assert run_warm(own, script, metavars=variables)[0] == "copied"


def test_module_that_reads_a_variable_is_for_scripts_that_have_it_so(
    own: WarmRunner, directory: Path, tmp_path: Path
) -> None:
    """What it has made of that would be wrong for others: they are spawned."""
    library = tmp_path / "lib"
    library.mkdir()
    (library / "Reader.pm").write_text("package Reader; our $home = $ENV{APP_HOME} // 'none'; 1;\n")
    script = write(directory / "script.pl", "use Reader; print $Reader::home;")
    more = {"PERL5LIB": str(library)}
    preload = ("Reader",)
    assert run_warm(own, script, metavars={**more, "APP_HOME": "/a"}, preload=preload)[0] == "/a"
    other = started(own, script, metavars={**more, "APP_HOME": "/b"}, preload=preload)
    assert not is_warm(other)
    assert ended(other)[0] == "/b"
    assert run(own, script, metavars=more, preload=preload)[0] == "none"


def test_changed_module_takes_effect_with_the_next_request(own: WarmRunner, directory: Path, tmp_path: Path) -> None:
    """Its parent is replaced; nobody sees the old one."""
    library = tmp_path / "lib"
    library.mkdir()
    module = library / "Version.pm"
    module.write_text("package Version; sub f { 1 } 1;\n")
    script = write(directory / "script.pl", "use Version; print Version::f();")
    more: dict[str, Any] = {"metavars": {"PERL5LIB": str(library)}, "preload": ("Version",)}
    assert run_warm(own, script, **more)[0] == "1"
    module.write_text("package Version; sub f { 'two' } 1;\n")
    assert run(own, script, **more)[0] == "two"
    assert run_warm(own, script, **more)[0] == "two"


# -- identity and limits

NOBODY = pwd.getpwnam("nobody")
AS_NOBODY = Identity(uid=NOBODY.pw_uid, gid=NOBODY.pw_gid, groups=(NOBODY.pw_gid,))


@pytest.mark.root_only
def test_script_has_the_identity_wholly_and_for_good(own: WarmRunner, directory: Path) -> None:
    """A parent for each; what it reads it could read as itself."""
    script = write(
        directory / "script.pl", "print qq{$<|$>|$(|$)\\n}; $> = 0; print $>; print `id; cat /proc/self/status`;"
    )
    cold = run(SpawnRunner(), script, identity=AS_NOBODY)
    ran = run_warm(own, script, identity=AS_NOBODY)
    uid, gid = NOBODY.pw_uid, NOBODY.pw_gid
    assert ran[0].split("\n")[0] == f"{uid}|{uid}|{gid} {gid}|{gid} {gid}"
    wanted = re.compile(r"^(?:\d.*|uid.*|Uid.*|Gid.*|Groups.*|Cap.*|NoNewPrivs.*)$", re.MULTILINE)
    assert wanted.findall(ran[0]) == wanted.findall(cold[0])


def test_limits_are_those_of_the_script(warm: WarmRunner, directory: Path) -> None:
    """Soft and hard, from its first instruction; the next has none of them."""
    # the wait is for spawn, whose hard limits are set from outside right after the start
    look = "select undef, undef, undef, 0.5; print `ulimit -Sa; ulimit -Ha; umask`, getpriority 0, 0;"
    script = write(directory / "script.pl", look)
    limits = {
        "max_cpu": 5,
        "max_memory": 500 << 20,
        "max_file_size": 1 << 20,
        "max_open_files": 20,
        "umask": 0o027,
        "nice": 3,
    }
    before = run(warm, script)
    assert run(warm, script, **limits) == run(SpawnRunner(), script, **limits)
    assert run(warm, script) == before == run(SpawnRunner(), script)


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("1 while 1;", {"max_cpu": 1}),
        (
            "open my $f, '>', 'grown'; $| = 1; print $f 'x' x 1e6 for 1 .. 9; close $f; print 'all';",
            {"max_file_size": 1 << 20},
        ),
        ("open $f[$_], '<', '/dev/null' or die \"$!\" for 1 .. 100;", {"max_open_files": 20}),
        ("my $x = 'x' x 400_000_000; print 'had it';", {"max_memory": 100 << 20}),
    ],
    ids=["cpu", "file size", "open files", "memory"],
)
def test_limits_hold(warm: WarmRunner, directory: Path, text: str, limits: dict[str, int]) -> None:
    """With the same end as spawned."""
    script = write(directory / "script.pl", text)
    assert run(warm, script, **limits) == run(SpawnRunner(), script, **limits)


def test_script_needs_no_more_descriptors_than_its_own(warm: WarmRunner, directory: Path) -> None:
    """One beside its three: perl's for the script, and then any."""
    script = write(directory / "script.pl", "print 'on'; open my $f, '<', '/dev/null' or die $!; print fileno $f;")
    execution = started(warm, script, max_open_files=4)
    assert is_warm(execution)
    assert ended(execution) == ("on3", "", ExitStatus(code=0))


@pytest.mark.root_only
def test_processes_of_a_script_are_limited(own: WarmRunner, directory: Path) -> None:
    """Those of its user that are no scripts' do not count."""
    uid = 61237
    identity = Identity(uid=uid, gid=uid, groups=(uid,))
    script = write(
        directory / "script.pl",
        "my $n = 0; while ($n < 60) { last if not defined(my $p = fork); $p or sleep 60, exit; $n++ } print $n;"
        "close STDOUT; close STDERR; kill 9, 0 - $$;",
    )
    ran = run_warm(own, script, identity=identity, max_processes=10)
    assert 0 < int(ran[0]) <= 10  # the last ones may still be counted


# -- the end


ESCAPE = (
    "use POSIX 'setsid'; $| = 1; for my $way (0 .. 2) { next if fork; setsid; if ($way) { exit if fork }"
    " if ($way == 2) { setsid } print qq{$$\\n}; close STDOUT; sleep 300; exit } print qq{parent\\n}; sleep 300;"
)


def test_all_that_a_script_started_ends_with_it(warm: WarmRunner, directory: Path) -> None:
    """Also what made a session of its own, and lost its parent: the client has gone, say."""
    execution = started(warm, write(directory / "script.pl", ESCAPE), metavars={"UNIQUE_ID": os.urandom(8).hex()})
    assert is_warm(execution)
    said = ""
    while len(said.split()) < 4:
        said += os.read(execution.stdout, 1000).decode()
    pids = [int(word) for word in said.split() if word.isdigit()]
    assert len(living(pids)) == 3
    assert execution.terminate() == ExitStatus(signal=signal.SIGTERM)
    execution.close()
    wait_until(lambda: not living(pids), "they have ended")


def test_stubborn_script_is_killed(warm: WarmRunner, directory: Path) -> None:
    """After the time that it has for its end."""
    script = write(directory / "script.pl", "$SIG{TERM} = 'IGNORE'; $| = 1; print 'on'; sleep 300 while 1;")
    execution = started(warm, script)
    assert os.read(execution.stdout, 2) == b"on"
    assert execution.terminate() == ExitStatus(signal=signal.SIGKILL)
    execution.close()


def test_killed_parent_is_replaced(own: WarmRunner, directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The next request is answered; what ran is told as killed."""
    caplog.set_level(logging.WARNING)
    script = write(directory / "script.pl", "print 'on';")
    sleeper = write(directory / "sleeper.pl", "$| = 1; print 'on'; sleep 300;")
    assert run_warm(own, script)[0] == "on"
    running = started(own, sleeper)
    assert is_warm(running)
    assert os.read(running.stdout, 2) == b"on"
    os.kill(parent_of(own).pid, signal.SIGKILL)
    assert running.wait(10) == ExitStatus(signal=signal.SIGKILL)
    running.terminate()
    running.close()
    wait_until(lambda: not living([running.pid]), "its script has ended")
    assert run(own, script)[0] == "on"
    assert run_warm(own, script)[0] == "on"


def test_parent_ends_with_its_server(directory: Path, tmp_path: Path) -> None:
    """However it ends; and all scripts with it."""
    script = write(directory / "script.pl", ESCAPE)
    hello = write(directory / "hello.pl", "print 'hello';")
    program = (
        "import os, sys, time\n"
        "from wsgicgi.runners import Invocation, WarmRunner, warmparent\n"
        "null = os.open('/dev/null', os.O_RDONLY)\n"
        "runner = WarmRunner()\n"
        "def start(path):\n"
        "    metavars = {'UNIQUE_ID': 'x1', 'PATH': os.environ['PATH']}\n"
        "    return runner.start(Invocation(argv=(path,), metavars=metavars, cwd='/', stdin=null, preload='learn'))\n"
        f"while not isinstance(run := start({str(hello)!r}), warmparent.WarmExecution): run.wait(9); run.close()\n"
        f"run = start({str(script)!r})\n"
        "print(next(iter(runner._parents.values()))._current.pid, run.pid, flush=True)\n"
        "while True: os.write(1, os.read(run.stdout, 100))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        said = b""
        while len(said.split()) < 6:
            piece = os.read(server.stdout.fileno(), 1000)
            assert piece, said
            said += piece
        pids = [int(word) for word in said.split() if word.isdigit()]
        assert len(living(pids)) == 5
        server.kill()
        wait_until(lambda: not living(pids), "they have ended")


def test_many_at_once(warm: WarmRunner, directory: Path) -> None:
    """Each gets its own streams and its own end."""
    script = write(directory / "script.pl", "print $ENV{NUMBER}; exit $ENV{NUMBER};")
    executions = [started(warm, script, metavars={"NUMBER": str(number)}) for number in range(60)]
    assert all(map(is_warm, executions))
    found = [ended(execution) for execution in executions]
    assert found == [(str(number), "", ExitStatus(code=number)) for number in range(60)]


def test_environment_larger_than_a_socket_holds(warm: WarmRunner, directory: Path) -> None:
    """Frames are read in as many pieces as it takes."""
    script = write(directory / "script.pl", "print length join '', %ENV;")
    metavars = {f"X_{number}": "y" * 100_000 for number in range(15)}
    assert run(warm, script, metavars=metavars) == run(SpawnRunner(), script, metavars=metavars)


def test_perl_that_cannot_be_a_parent_is_no_loss(
    own: WarmRunner, directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its scripts are spawned, with one line in the log."""
    library = tmp_path / "lib" / "Filter" / "Util"
    library.mkdir(parents=True)
    (library / "Call.pm").write_text("die qq{none here\\n};")
    metavars = {"PERL5LIB": str(tmp_path / "lib")}
    script = write(directory / "script.pl", "print 'on';")
    until(lambda: run(own, script, metavars=metavars)[0] == "on" and "kept warm" in caplog.text, "the log has it")
    assert [run(own, script, metavars=metavars)[0] for _ in range(5)] == ["on"] * 5
    assert caplog.text.count("cannot be kept warm (none here") == 1


def test_application_runs_perl_scripts_warm(site: Site) -> None:
    """With ``runner="warm"``, whole requests: the form that CGI.pm reads, and one process for each."""
    site.script("form.pl", FORM)
    app = create_app(site.directory, runner="warm", preload=["CGI", "Text::Wrap"], run_as="none")
    client = Client(app)
    try:
        answers = set()
        deadline = time.monotonic() + 60
        while "warm" not in answers and time.monotonic() < deadline:
            response = client.post("/cgi-bin/form.pl", data={"name": "Ada & Co"})
            text = response.get_data(as_text=True)
            assert (response.status_code, text.split()[:3]) == (201, ["Ada", "&", "Co"])
            answers.add(text.split()[3])
        assert "warm" in answers
        pids = {
            client.post("/cgi-bin/form.pl", data={"name": "x"}).get_data(as_text=True).split()[-1] for _ in range(5)
        }
        assert len(pids) == 5
    finally:
        app.close()


FORM = """\
#!/usr/bin/perl
use strict;
my $is_warm = $INC{"Text/Wrap.pm"};
use CGI;
my $query = CGI->new;
print $query->header(-status => 201, -type => "text/plain");
print scalar $query->param("name"), " ", $is_warm ? "warm" : "cold", " ", $$, "\\n";
"""


@pytest.mark.parametrize("name", ["CGI::", "::CGI", "CGI:Session", "a-b"])
def test_name_that_is_no_modules_is_refused(name: str) -> None:
    """At the start, not with the first request."""
    with pytest.raises(ConfigError, match="not the name of a module"):
        Config(preload=[name])


def test_memory_of_a_parent_is_small(warm: WarmRunner, directory: Path) -> None:
    """With CGI loaded."""
    run(warm, write(directory / "script.pl", "use CGI; print 1;"))
    text = Path(f"/proc/{parent_of(warm).pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    assert int(found[1]) < 40 * 1024
