"""Identity and limits through real servers: the status, the line in the log, and that nothing is left."""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Server, living, running, serving, steps, wait_until
from sites import Site
from werkzeug.test import EnvironBuilder, run_wsgi_app

from wsgicgi import create_app

CT = "printf 'Content-Type: text/plain\\n\\n'"
SERVERS = ("gunicorn", "waitress")


@pytest.fixture
def public_site() -> Iterator[Site]:
    """A site that every user may enter."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        yield Site(Path(place) / "site")


@contextlib.contextmanager
def under(kind: str, site: Site, tmp_path: Path, **settings: object) -> Iterator[Server]:
    env = {f"WSGICGI_{name.upper()}": str(value) for name, value in settings.items()}
    with serving(kind, site.directory, tmp_path / "log", env=env) as server:
        yield server


# -- each limit, exceeded by a real script


PERL = "#!/usr/bin/perl\n$| = 1;\n"
HEAD = 'print "Content-Type: text/plain\\n\\n";\n'

EXCEEDED = [
    ("max_cpu", "1", PERL + "while (1) {}\n", 504, "came against max_cpu=1"),
    ("max_memory", "64M", PERL + "$x = 'x' x 300_000_000;\n" + HEAD, 502, "came against max_memory=67108864"),
    (
        "max_file_size",
        "100K",
        PERL + "open(F, '>', \"$ENV{PLACE}/big\") or die; print F 'x' x 1_000_000; close F or die \"$!\";\n" + HEAD,
        502,
        "came against max_file_size=102400",
    ),
    (
        "max_open_files",
        "20",
        PERL + "for (1 .. 50) { open($f[$_], '<', '/dev/null') or die \"$!\" }\n" + HEAD,
        502,
        "came against max_open_files=20",
    ),
    ("timeout", "0.5", PERL + "sleep 60;\n", 504, "(timeout=0.5, 0 bytes received)"),
    ("max_time", "0.5", PERL + "sleep 60;\n", 504, "(max_time=0.5"),
    (
        "max_output_bytes",
        "1K",
        "#!/usr/bin/perl\nprint \"Content-Type: text/plain\\n\\n\", 'x' x 2000;\n",  # all at once
        502,
        "more output than 1024 bytes (max_output_bytes)",
    ),
    ("max_header_bytes", "100", PERL + "print 'X-A: ', 'a' x 200, \"\\n\\n\";\n", 502, "100"),
]


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize(("name", "value", "text", "status", "line"), EXCEEDED, ids=[row[0] for row in EXCEEDED])
def test_limit_that_is_exceeded_has_its_status_and_its_line(
    kind: str, public_site: Site, tmp_path: Path, name: str, value: str, text: str, status: int, line: str
) -> None:
    """The client learns the status, the log the limit."""
    public_site.script("x", text)
    settings = {name: value, "env": f"PLACE={tmp_path}"}
    with under(kind, public_site, tmp_path, **settings) as server:
        assert server.get("/cgi-bin/x")[0].status == status
        wait_until(lambda: line in server.log, f"{line!r} in the log")


@pytest.mark.parametrize("kind", SERVERS)
def test_answer_that_grows_too_large_is_cut_visibly(kind: str, public_site: Site, tmp_path: Path) -> None:
    """After the head the connection breaks, so that nobody takes what came for all."""
    public_site.script("x", PERL + HEAD + "for (1 .. 100) { print 'x' x 100_000; }\n")
    with under(kind, public_site, tmp_path, max_output_bytes="1M") as server:
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            server.get("/cgi-bin/x")
        wait_until(lambda: "max_output_bytes" in server.log, "the cause")


def test_body_that_is_too_large_is_413(public_site: Site, tmp_path: Path) -> None:
    """Without running the script."""
    public_site.script("x", PERL + HEAD)
    with under("gunicorn", public_site, tmp_path, max_body_bytes="1K") as server:
        assert server.request("POST", "/cgi-bin/x", body=b"x" * 2000)[0].status == 413
        assert server.request("POST", "/cgi-bin/x", body=b"x" * 1000)[0].status == 200


@pytest.mark.root_only
@pytest.mark.parametrize("kind", SERVERS)
def test_fork_bomb_behind_a_server_ends_with_its_time(kind: str, public_site: Site, tmp_path: Path) -> None:
    """Bounded while it runs, gone afterwards; other requests are answered all along."""
    uid = 61236
    public_site.script("bomb", PERL + "while (1) { defined(fork) or select(undef, undef, undef, 0.01) }\n")
    public_site.directory.joinpath("ok.txt").write_text("ok")
    settings = {"run_as": f"{uid}:{uid}", "max_processes": 30, "timeout": 2}
    with under(kind, public_site, tmp_path, **settings) as server:
        assert server.get("/cgi-bin/bomb")[0].status == 504
        assert server.get("/ok.txt")[1] == b"ok"
        wait_until(lambda: len(processes_of(uid)) <= 2, "only wardens are left", 20)
    wait_until(lambda: not processes_of(uid), "nothing is left", 20)


def processes_of(uid: int) -> list[str]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{name}/status").read_text()
            if f"\nUid:\t{uid}\t" in text and "State:\tZ" not in text:
                found.append(name)
    return found


# -- identity


@pytest.mark.root_only
@pytest.mark.parametrize("kind", SERVERS)
def test_scripts_of_a_server_started_as_root_run_as_nobody(kind: str, public_site: Site, tmp_path: Path) -> None:
    """Unless something else is said; what the server is for remains root's."""
    public_site.sh("x", f"{CT}; id -u; id -G; echo body | cat /dev/stdin; cat\n")
    with under(kind, public_site, tmp_path, run_as="auto") as server:
        nobody = pwd.getpwnam("nobody")
        response, body = server.request("POST", "/cgi-bin/x", body=b"x" * 100_000)
        assert response.status == 200
        assert body.decode() == f"{nobody.pw_uid}\n{nobody.pw_gid}\nbody\n" + "x" * 100_000


@pytest.mark.root_only
def test_run_as_of_a_section_is_for_its_scripts(
    public_site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others keep theirs."""
    public_site.sh("a", f"{CT}; id -u\n")
    public_site.sh("b", f"{CT}; id -u\n")
    file = tmp_path / "site.toml"
    file.write_text('run_as = "nobody"\n[[script]]\nmatch = "/cgi-bin/b"\nrun_as = "www-data"\n')
    monkeypatch.delenv("WSGICGI_RUN_AS")
    with under("gunicorn", public_site, tmp_path, config=file) as server:
        assert int(server.get("/cgi-bin/a")[1]) == pwd.getpwnam("nobody").pw_uid
        assert int(server.get("/cgi-bin/b")[1]) == pwd.getpwnam("www-data").pw_uid


@pytest.mark.root_only
@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_the_scripts_user_may_not_run_is_403_with_the_reason(public_site: Site, tmp_path: Path, what: str) -> None:
    """The log says who may not do what."""
    public_site.sh("x", f"{CT}; id\n")
    ((public_site.directory / "cgi-bin") / "x" if what == "file" else (public_site.directory / "cgi-bin")).chmod(0o700)
    with under("gunicorn", public_site, tmp_path, run_as="auto") as server:
        assert server.get("/cgi-bin/x")[0].status == 403
        verb = "run" if what == "file" else "enter"
        wait_until(lambda: f"nobody may not {verb} {(public_site.directory / 'cgi-bin')}" in server.log, "the reason")
        mode = "chmod 755" if what == "file" else "chmod o+x"
        assert f"run_as says whom scripts run as. Try: {mode} {public_site.directory / 'cgi-bin'}" in server.log


@pytest.mark.root_only
def test_interpreter_in_a_closed_directory_is_told_with_the_directory(public_site: Site) -> None:
    """A virtual environment of root's is a link into root's home, which nobody may enter."""
    closed = public_site.directory / "closed"
    closed.mkdir(mode=0o700)
    shutil.copy("/bin/true", closed)
    (public_site.directory / "python").symlink_to(closed / "true")
    public_site.file("cgi-bin/x", f"#!{public_site.directory}/python\n", 0o755)
    errors = io.StringIO()
    environ = EnvironBuilder("/cgi-bin/x", errors_stream=errors).get_environ() | {"wsgicgi.debug": True}
    app = create_app(public_site.directory, run_as="nobody")
    try:
        body, status, _ = run_wsgi_app(app, environ, buffered=True)
        page = b"".join(body).decode()
    finally:
        app.close()
    assert status.startswith("403 ")
    assert f"directory {closed} may not be searched by everyone" in errors.getvalue()
    assert f"chmod o+x {closed}" in page


@pytest.mark.root_only
def test_refused_owner_is_403_with_the_checks_name(public_site: Site, tmp_path: Path) -> None:
    """suEXEC's checks; nothing runs."""
    public_site.sh("x", f"touch {tmp_path}/ran; {CT}; id\n")
    with under("gunicorn", public_site, tmp_path, run_as="owner") as server:
        assert server.get("/cgi-bin/x")[0].status == 403
        wait_until(lambda: "run_as='owner': check 'owner-is-root' failed" in server.log, "the check")
    assert not (tmp_path / "ran").exists()


@pytest.mark.root_only
def test_root_without_the_right_to_change_identity_runs_nothing(public_site: Site, tmp_path: Path) -> None:
    """A container may have taken CAP_SETUID away: 500, not a script run by root."""
    public_site.sh("x", f"touch {tmp_path}/ran; {CT}; id\n")
    from servers import BIN, has_control_socket

    command = ["setpriv", "--bounding-set=-setuid", "--inh-caps=-setuid", str(BIN / "gunicorn"), "-b", "127.0.0.1:0"]
    command += ["--no-control-socket"] * has_control_socket()
    env = {"WSGICGI_DIRECTORY": str(public_site.directory), "WSGICGI_RUN_AS": "auto"}
    ready = r"(?s)Listening at: http://127\.0\.0\.1:(\d+).*Booting worker"
    with running([*command, "wsgicgi:create_app()"], ready, tmp_path / "log", env=env) as server:
        assert server.get("/cgi-bin/x")[0].status == 500
        wait_until(lambda: "cannot run as nobody" in server.log, "the cause")
    assert not (tmp_path / "ran").exists()


# -- the whole tree


@pytest.mark.parametrize("kind", SERVERS)
def test_daemons_of_a_script_that_takes_too_long_end_with_it(kind: str, site: Site, tmp_path: Path) -> None:
    """Also those with a session of their own."""
    pid_file = tmp_path / "pid"
    tell = f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}"
    site.sh("x", f"setsid sh -c '{tell}; exec sleep 300' >/dev/null 2>&1 & exec sleep 300\n")
    with under(kind, site, tmp_path, timeout=3) as server:
        assert server.get("/cgi-bin/x")[0].status == 504
        wait_until(lambda: not Path(f"/proc/{int(pid_file.read_text())}").exists(), "the daemon has ended")


@pytest.mark.parametrize("kind", SERVERS)
def test_what_a_script_left_behind_outlives_the_one_that_it_redirected_to(
    kind: str, site: Site, tmp_path: Path
) -> None:
    """Both run for one request; the second one is ended, and what it has started itself."""
    daemon = "setsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 300' >/dev/null 2>&1 &\n"
    place = {name: tmp_path / name for name in ("first", "second")}
    begun = "".join(f"until [ -s {file} ]; do sleep 0.02; done\n" for file in place.values())
    site.sh("first", daemon.format(place["first"]) + "printf 'Location: /cgi-bin/second\n\n'\n")
    site.sh("second", daemon.format(place["second"]) + begun + "exec sleep 300\n")
    with under(kind, site, tmp_path, timeout=3) as server:
        assert server.get("/cgi-bin/first")[0].status == 504
        pids = {name: int(file.read_text()) for name, file in place.items()}
        wait_until(lambda: not living([pids["second"]]), "the second one's daemon has ended")
        assert server.get(steps(["out", "Content-Type: text/plain\n\na"]))[1] == b"a"  # all that was to end has ended
        assert living([pids["first"]])
    wait_until(lambda: not living([pids["first"]]), "the server's end is everybody's")


def test_warden_that_is_killed_costs_its_running_scripts_only(site: Site, tmp_path: Path) -> None:
    """The next request is answered as if nothing had been."""
    with under("waitress", site, tmp_path) as server:
        assert server.get(steps(["out", "Content-Type: text/plain\n\na"]))[1] == b"a"
        wardens = [pid for pid in server.pids() if b"_warden.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(wardens) == 1
        os.kill(wardens[0], 9)
        assert server.get(steps(["out", "Content-Type: text/plain\n\nb"]))[1] == b"b"
