"""What operators see, behind real servers: health, metrics, the structured log, request ids, Server-Timing."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
from prometheus_client.parser import text_string_to_metric_families
from servers import Server, steps, wait_until
from sites import Site
from werkzeug.test import Client

from wsgicgi import CGIMiddleware, CGIScript, ConfigError, create_app, metrics
from wsgicgi.tally import Tally

ALL = {
    "WSGICGI_HEALTH": "1",
    "WSGICGI_METRICS": "1",
    "WSGICGI_LOG_FORMAT": "json",
    "WSGICGI_REQUEST_ID": "1",
    "WSGICGI_SERVER_TIMING": "1",
    "WSGICGI_MAX_BODY_BYTES": "100000",
}

ANSWER = steps(["out", "X-A: 1\n\nok"])

CONFIG = """
[[script]]
match = "/cgi-bin/one"
max_scripts = 1

[[script]]
match = "/cgi-bin/full"
max_scripts = 1
queue_timeout = 0

[[script]]
match = "/cgi-bin/slow"
timeout = 0.5

[[script]]
match = "/cgi-bin/long"
max_time = 0.5

[[script]]
match = "/cgi-bin/much"
max_output_bytes = 10
"""


def fill(site: Site) -> Site:
    """A site with scripts for every end."""
    site.file("hello.txt", "hello")
    site.sh("slow", "exec sleep 60\n")
    site.sh("long", "printf 'X-A: 1\\n\\n'; while :; do echo more; sleep 0.1; done\n")
    site.sh("much", "printf 'X-A: 1\\n\\n'; exec cat /dev/zero\n")
    site.sh("dies", "kill -KILL $$\n")
    site.sh("bad", "printf 'this is no header\\n\\n'; exec sleep 60\n")
    site.sh("complains", "echo first >&2; echo second >&2; printf 'X-A: 1\\n\\nanswer'; exit 3\n")
    site.sh("elsewhere", "printf 'Location: /hello.txt\\n\\n'\n")
    site.sh("there", "printf 'Location: /cgi-bin/steps.py?%s\\n\\n' \"$QUERY_STRING\"\n")
    # tells that it runs, and waits until it may end
    waits = (
        'echo > "$QUERY_STRING.began"; while [ ! -e "$QUERY_STRING" ]; do sleep 0.02; done; printf "X-A: 1\\n\\nok"\n'
    )
    for name in ("one", "full", "any"):
        site.sh(name, waits)
    return site


@pytest.fixture(scope="module", params=["gunicorn", "waitress"])
def operated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Site]]:
    """A server with all of it: gunicorn has two workers."""
    place = tmp_path_factory.mktemp(request.param)
    site = fill(Site(place / "site"))
    config = site.directory.parent / "wsgicgi.toml"
    config.write_text(CONFIG)
    env = {**ALL, "WSGICGI_CONFIG": str(config), "XDG_RUNTIME_DIR": str(place)}
    with servers.serving(request.param, site.directory, place / "log", env=env) as server:
        yield server, site


@pytest.fixture
def server(operated: tuple[Server, Site]) -> Server:
    operated[0].begin_log()
    return operated[0]


def numbers(server: Server) -> dict[str, float]:
    """All that the page of metrics tells, by name and labels as they are written there."""
    response, page = server.get("/-/metrics")
    assert response.status == 200
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def more(server: Server, before: dict[str, float]) -> dict[str, float]:
    """What has become more, and by how much."""
    return {name: value - before.get(name, 0) for name, value in numbers(server).items() if value != before.get(name)}


def records(server: Server) -> list[dict[str, Any]]:
    """The lines of the structured log; a line that is none must be the server's own, which names itself."""
    lines = server.log.splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def runs(server: Server, **having: Any) -> list[dict[str, Any]]:
    """The lines of runs that have such values."""
    return [each for each in records(server) if each["event"] == "run" and having.items() <= each.items()]


def one_run(server: Server, **having: Any) -> dict[str, Any]:
    """The line of a run, and the only one, once another request has been logged behind it."""
    wait_until(lambda: runs(server, **having), f"the line of {having}")
    server.get(ANSWER, headers={"X-Request-Id": "behind"})
    wait_until(lambda: runs(server, request_id="behind"), "the line behind it")
    [found] = runs(server, **having)
    return found


@contextlib.contextmanager
def waiting_request(server: Server, target: str) -> Iterator[list[int]]:
    """A request in the background; its status is there at the end."""
    statuses: list[int] = []
    client = threading.Thread(target=lambda: statuses.append(server.get(target)[0].status))
    client.start()
    try:
        yield statuses
    finally:
        client.join(30)


def leave_during(server: Server, target: str, until: Callable[[], object]) -> None:
    """Send a request, and go away once it has come so far."""
    connection = server.connection()
    connection.request("GET", target, headers={"X-Request-Id": "leaving"})
    wait_until(until, f"{target} has begun")
    connection.close()


# -- health


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/-/health/live", b"ok\n"),
        ("/-/health/ready", b"ok\n"),
        ("/-/health", b'{"live": true, "ready": true, "status": "ok"}\n'),
    ],
)
def test_a_server_that_can_serve_is_healthy(server: Server, path: str, expected: bytes) -> None:
    """Probes get 200 and a word, no cache keeps it, and HEAD is as good as GET."""
    response, body = server.get(path)
    assert (response.status, body, response.getheader("Cache-Control")) == (200, expected, "no-store")
    head, nothing = server.request("HEAD", path)
    assert (head.status, nothing, head.getheader("Content-Length")) == (200, b"", str(len(expected)))
    refused, _ = server.request("POST", path, b"x")
    assert (refused.status, refused.getheader("Allow")) == (405, "GET, HEAD")


def test_probes_do_not_wait_behind_scripts(operated: tuple[Server, Site], tmp_path: Path) -> None:
    """While scripts and requests in their queue wait, there are answers: what is asked for is in the process."""
    server, _ = operated
    go = tmp_path / "go"
    with (
        waiting_request(server, f"/cgi-bin/one?{go}") as first,
        waiting_request(server, f"/cgi-bin/one?{go}") as second,
    ):
        try:
            wait_until((tmp_path / "go.began").exists, "the script runs")
            wait_until(lambda: numbers(server)["wsgicgi_scripts_queued"] == 1, "a request waits")
            assert numbers(server)["wsgicgi_scripts_running"] == 1
            assert server.get("/-/health/live")[0].status == server.get("/-/health/ready")[0].status == 200
            assert (first, second) == ([], [])
        finally:
            go.touch()
    assert first == second == [200]
    wait_until(lambda: numbers(server)["wsgicgi_scripts_running"] == 0, "none runs")
    assert numbers(server)["wsgicgi_scripts_queued"] == 0


def test_without_its_directory_a_server_lives_but_is_not_ready(site: Site, tmp_path: Path) -> None:
    """A volume that went away takes requests elsewhere, and brings them back when it comes again."""
    with servers.serving("waitress", site.directory, tmp_path / "log", env={"WSGICGI_HEALTH": "1"}) as server:
        assert server.get("/-/health/ready")[0].status == 200
        site.directory.rename(tmp_path / "away")
        response, body = server.get("/-/health/ready")
        assert (response.status, body) == (503, b"directory\n")
        assert json.loads(server.get("/-/health")[1]) == {"live": True, "ready": False, "status": "directory"}
        assert server.get("/-/health/live")[0].status == 200
        # once, and not with every probe
        assert server.log.count(f"/-/health/ready: not ready: {site.directory}: No such file or directory") == 1
        (tmp_path / "away").rename(site.directory)
        assert server.get("/-/health/ready")[0].status == 200
        assert server.log.count("/-/health/ready: ready again") == 1


def test_where_scripts_cannot_be_started_a_server_is_not_ready(site: Site, tmp_path: Path) -> None:
    """Nothing can hold scripts to their limits when Python itself cannot be run again: each of them would be a 500."""
    (tmp_path / "without_python.py").write_text(
        "import sys\nsys.executable = '/nonexistent/python'\nfrom wsgicgi import create_app\n"
        f"app = create_app({str(site.directory)!r}, health=True, max_open_files=64)\n"
    )
    with servers.waitress("without_python:app", tmp_path / "log", cwd=tmp_path) as server:
        assert server.get("/cgi-bin/report.py")[0].status == 500
        response, body = server.get("/-/health/ready")
        assert (response.status, body) == (503, b"scripts\n")
        assert server.get("/-/health/live")[0].status == 200


def test_a_warden_that_was_killed_is_replaced_by_a_probe(site: Site) -> None:
    """A probe finds out before a request does, and what is mended is no trouble."""
    from wsgicgi.runners import warden

    app = create_app(site.directory, health=True)
    client = Client(app)
    assert client.get("/-/health/ready").status_code == 200
    killed = warden.find(None, no_new_privs=True)
    assert killed is not None
    killed._process.kill()
    wait_until(lambda: not killed.is_alive(), "it is gone")
    assert client.get("/-/health/ready").status_code == 200
    replacement = warden.find(None, no_new_privs=True)
    assert replacement is not None and replacement is not killed and replacement.is_alive()
    app.close()


STOPPED_WITHIN = """
import os, signal, time
from wsgicgi import create_app

cgi = create_app({directory!r}, health=True)

def app(environ, start_response):
    if environ["PATH_INFO"] == "/-/health/ready" and environ["QUERY_STRING"]:
        os.kill(os.getpid(), signal.SIGTERM)
        while signal.getsignal(signal.SIGTERM).__self__.alive:
            time.sleep(0.01)
    return cgi(environ, start_response)
"""


@pytest.mark.parametrize("kind", ["gthread", "sync", "gevent"])
def test_a_worker_that_stops_is_not_ready(site: Site, tmp_path: Path, kind: str) -> None:
    """A request that a stopping worker of gunicorn's still answers says that others should go elsewhere."""
    (tmp_path / "stopped.py").write_text(STOPPED_WITHIN.format(directory=str(site.directory)))
    with servers.gunicorn("stopped:app", tmp_path / "log", kind=kind, cwd=tmp_path) as server:
        assert server.get("/-/health/ready")[0].status == 200
        response, body = server.get("/-/health/ready?stop")
        assert (response.status, body) == (503, b"stopping\n")


def test_a_closed_application_is_not_ready(site: Site) -> None:
    """wsgicgi-dev closes it when it stops, and so may others."""
    app = create_app(site.directory, health=True)
    client = Client(app)
    assert client.get("/-/health/ready").status_code == 200
    app.close()
    assert (client.get("/-/health/ready").status_code, client.get("/-/health/live").status_code) == (503, 200)


# -- off unless set


def test_without_the_settings_there_is_nothing_of_it(site: Site, tmp_path: Path) -> None:
    """Health and metrics are not for the world: a directory "-" is a directory like others, and no field tells more."""
    names = ("health/live", "health/ready", "metrics")
    for name in names:
        site.file(f"-/{name}", "a user's file")
    with servers.serving("waitress", site.directory, tmp_path / "log") as server:
        for name in names:
            assert server.get(f"/-/{name}")[1] == b"a user's file"
        response, _ = server.get("/cgi-bin/report.py", headers={"X-Request-Id": "mine"})
        assert {"x-request-id", "server-timing"} & {name.lower() for name, _ in response.getheaders()} == set()
        server.get("/cgi-bin/nothing")
        assert records(server) == []


def test_one_setting_takes_no_other_path(site: Site) -> None:
    """``health`` leaves /-/metrics to the site, and the reverse; nothing near the paths is taken."""
    site.file("-/metrics", "a user's file")
    site.file("-/health/other", "a user's file")
    client = Client(create_app(site.directory, health=True))
    for path in ("/-/metrics", "/-/health/other"):
        assert client.get(path, buffered=True).data == b"a user's file"
    assert Client(create_app(site.directory, metrics=True)).get("/-/health", buffered=True).status_code == 301


def test_metrics_without_its_extra_end_the_start_with_a_sentence(tmp_path: Path) -> None:
    """In an installation that has all but prometheus-client."""
    for name in ("werkzeug", "markupsafe", "jinja2", "wsgicgi"):
        found = importlib.util.find_spec(name)
        assert found is not None and found.origin is not None
        (tmp_path / name).symlink_to(Path(found.origin).parent)
    code = "import sys; sys.path.append(sys.argv[1]); import wsgicgi; wsgicgi.create_app('/', metrics=True)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, tmp_path], capture_output=True, text=True, timeout=60
    )
    assert done.stderr.splitlines()[-1] == (
        "wsgicgi.errors.ConfigError: metrics=True: needs the package prometheus-client: pip install 'wsgicgi[metrics]'"
    )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"log_format": "xml"}, "log_format='xml': expected 'text' or 'json'"),
        ({"health": "often"}, "health='often': expected true or false (in a variable also 1, 0, yes, no, on, off)"),
        ({"metric": True}, "metric: there is no such setting. Did you mean 'metrics'?"),
    ],
)
def test_a_wrong_value_ends_the_start_with_a_sentence(site: Site, settings: dict[str, Any], sentence: str) -> None:
    """What to write instead is said at start."""
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        create_app(site.directory, **settings)


# -- metrics


def test_requests_are_counted_by_kind_and_status(server: Server) -> None:
    """Whichever worker answered, any of them tells the sums."""
    before = numbers(server)
    for _ in range(4):
        server.get("/hello.txt")
        server.get(ANSWER)
        server.get("/nothing")
    server.get(steps(["out", "Status: 404\n\n"]))
    server.get("/cgi-bin/elsewhere")
    server.get("/cgi-bin/there?" + ANSWER.partition("?")[2])
    server.request("POST", "/cgi-bin/report.py", b"x" * 100_001)
    expected = {
        "wsgicgi_requests_total static 200": 5,
        "wsgicgi_requests_total script 200": 5,
        "wsgicgi_requests_total script 404": 1,
        "wsgicgi_requests_total error 404": 4,
        "wsgicgi_requests_total error 413": 1,
        "wsgicgi_script_seconds_count /cgi-bin/steps.py": 6,
        "wsgicgi_script_seconds_bucket +Inf /cgi-bin/steps.py": 6,
        "wsgicgi_script_seconds_count /cgi-bin/there": 1,
        "wsgicgi_script_seconds_count /cgi-bin/elsewhere": 1,
    }
    wait_until(lambda: expected.items() <= more(server, before).items(), "all are counted")
    wait_until(lambda: numbers(server) == numbers(server), "what belongs to them is counted too")
    found = more(server, before)
    assert {name for name in found if "requests_total" in name or "_count" in name} | {
        "wsgicgi_script_seconds_bucket +Inf /cgi-bin/steps.py"
    } == set(expected)
    assert found["wsgicgi_script_seconds_sum /cgi-bin/steps.py"] > 0
    assert len({tuple(sorted(numbers(server).items())) for _ in range(6)}) == 1


def test_the_readme_names_all_metrics(server: Server) -> None:
    """Dashboards are made from it."""
    before = numbers(server)
    server.get(ANSWER)
    wait_until(lambda: "wsgicgi_response_bytes_total" in more(server, before), "it was counted, to the last number")
    there = {re.sub("_(bucket|count|sum|created)$", "", name.split()[0]) for name in numbers(server)}
    readme = (Path(__file__).parent.parent / "README.rst").read_text()
    assert set(re.findall(r"``(wsgicgi_\w+)``", readme)) == there


def test_bytes_are_counted_in_both_directions(server: Server) -> None:
    """Bodies of requests to scripts, and of all answers: what the server sends by itself too."""
    before = numbers(server)
    sent = sum(len(server.get(target)[1]) for target in ("/hello.txt", "/nothing", steps(["out", "X-A: 1\n\n12345"])))
    sent += len(server.request("POST", "/cgi-bin/report.py", b"x" * 1000)[1])
    server.request("HEAD", "/hello.txt")
    wait_until(
        lambda: (
            {"wsgicgi_request_bytes_total": 1000, "wsgicgi_response_bytes_total": sent}.items()
            <= more(server, before).items()
        ),
        "all bytes are counted",
    )


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/cgi-bin/slow", "timeout"),
        ("/cgi-bin/long", "max_time"),
        ("/cgi-bin/much", "max_output_bytes"),
        ("/cgi-bin/dies", "signal"),
        ("/cgi-bin/bad", "bad_output"),
    ],
)
def test_killed_scripts_are_counted_by_reason(server: Server, target: str, reason: str) -> None:
    """The setting that a script came against, or what else ended it; the line of its run says the same."""
    before = numbers(server)
    with contextlib.suppress(http.client.HTTPException, OSError):  # an answer may be cut short
        server.get(target, headers={"X-Request-Id": "killed"})
    name = f"wsgicgi_scripts_killed_total {reason}"
    wait_until(lambda: more(server, before).get(name), "it is counted")
    assert {key: value for key, value in more(server, before).items() if "killed" in key} == {name: 1}
    record = one_run(server, request_id="killed")
    assert (record["killed"], bool(record["signal"]), record["exit"]) == (reason, True, None)
    assert record["cause"]


def test_a_client_that_leaves_is_a_reason(server: Server, tmp_path: Path) -> None:
    """Nobody waits for the answer any more: the script ends, and the line says why."""
    before = numbers(server)
    leave_during(server, f"/cgi-bin/any?{tmp_path}/never", (tmp_path / "never.began").exists)
    name = "wsgicgi_scripts_killed_total client_gone"
    wait_until(lambda: more(server, before).get(name) == 1, "it is counted")
    record = one_run(server, request_id="leaving")
    assert record["killed"] == "client_gone"
    assert "client" in record["cause"]


@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["plain", "preload"])
def test_a_dead_worker_leaves_counts_and_no_gauges(site: Site, tmp_path: Path, options: list[str]) -> None:
    """Counters go on where they were, and what ran in the worker runs no more."""
    fill(site)
    env = {"WSGICGI_METRICS": "1", "XDG_RUNTIME_DIR": str(tmp_path)}
    go = tmp_path / "go"
    with servers.serving("gunicorn", site.directory, tmp_path / "log", env=env, options=options) as server:
        for _ in range(8):
            server.get("/hello.txt")
        connection = server.connection()
        connection.request("GET", f"/cgi-bin/any?{go}")
        wait_until((tmp_path / "go.began").exists, "the script runs")
        wait_until(lambda: numbers(server)["wsgicgi_scripts_running"] == 1, "it is counted")
        wait_until(lambda: numbers(server)["wsgicgi_requests_total static 200"] == 8, "all are counted")
        workers = children(server.process.pid)
        # the worker with the script has a warden
        [busy] = [pid for pid in workers if children(pid)]
        os.kill(busy, signal.SIGKILL)
        wait_until(lambda: len(set(children(server.process.pid)) - {busy}) == 2, "there is another worker")
        connection.close()
        wait_until(lambda: numbers(server)["wsgicgi_scripts_running"] == 0, "it is not counted any more")
        assert numbers(server)["wsgicgi_requests_total static 200"] == 8


def children(pid: int) -> list[int]:
    """The processes that a process has started itself, in whichever thread."""
    found = []
    for each in set(servers.descendants(pid)) - {pid}:
        with contextlib.suppress(OSError):  # it has just ended
            if Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(each)
    return found


def test_scripts_that_the_histogram_tells_apart_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site with thousands of scripts does not fill Prometheus with series."""
    monkeypatch.setattr(metrics, "tally", Tally())
    monkeypatch.setattr(metrics, "_scripts", set())
    for number in range(metrics.MAX_SCRIPTS + 50):
        metrics.count_run(f"/cgi-bin/{number}", 0.02)
    [family] = [each for each in metrics._Collector().collect() if each.name == "wsgicgi_script_seconds"]
    counts = {sample.labels["script"]: sample.value for sample in family.samples if sample.name.endswith("_count")}
    assert len(counts) == metrics.MAX_SCRIPTS + 1
    assert counts[metrics.OTHER_SCRIPTS] == 50


def test_the_page_comes_in_the_format_that_is_asked_for(server: Server) -> None:
    """Prometheus asks for OpenMetrics; HEAD has no body."""
    response, page = server.get("/-/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.getheader("Content-Type", "").startswith("application/openmetrics-text")
    assert page.endswith(b"# EOF\n")
    assert server.request("HEAD", "/-/metrics")[1] == b""
    assert server.request("DELETE", "/-/metrics")[0].status == 405


# -- the structured log

FIELDS = (
    "time event request_id method script status exit signal killed duration queued bytes_in bytes_out cpu max_rss cause"
)


def test_a_run_has_one_line_with_all_that_is_known(server: Server) -> None:
    """Numbers are numbers, what is not known is null."""
    _, body = server.request("POST", "/cgi-bin/report.py/extra", b"x" * 70_000, headers={"X-Request-Id": "known"})
    record = one_run(server, request_id="known")
    assert list(record) == FIELDS.split()
    expected = {"method": "POST", "script": "/cgi-bin/report.py", "status": 200, "exit": 0, "signal": None}
    assert expected.items() <= record.items()
    assert (record["bytes_in"], record["bytes_out"], record["cause"], record["killed"]) == (
        70_000,
        len(body),
        None,
        None,
    )
    assert 0 < record["cpu"] <= record["duration"] * (os.cpu_count() or 1) + 1
    assert record["max_rss"] > 1 << 20
    assert 0 <= record["queued"] <= record["duration"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", record["time"])


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "cause"),
    [
        pytest.param("GET", "/cgi-bin/bad", None, 502, "not a header field", id="bad-output"),
        pytest.param("GET", "/cgi-bin/slow", None, 504, "timeout=0.5", id="timeout"),
        pytest.param("GET", "/cgi-bin/complains", None, 200, "exited with status 3", id="exit"),
        pytest.param("POST", "/cgi-bin/report.py", b"x" * 100_001, 413, "max_body_bytes", id="body"),
        pytest.param("TRACE", "/cgi-bin/report.py", None, 405, "TRACE", id="method"),
    ],
)
def test_a_run_that_fails_has_one_line_too(
    server: Server, method: str, target: str, body: bytes | None, status: int, cause: str
) -> None:
    """The client got the status of the line; the log has no other word on it, but what the script wrote."""
    response, _ = server.request(method, target, body, headers={"X-Request-Id": "failing"})
    assert response.status == status
    record = one_run(server, request_id="failing")
    assert record["status"] == status
    assert cause in record["cause"]
    assert {each["event"] for each in records(server)} <= {"run", "stderr"}


def test_a_run_that_waited_in_vain_has_one_line(operated: tuple[Server, Site], tmp_path: Path) -> None:
    """It has no exit status: it never ran."""
    server, _ = operated
    server.begin_log()
    go = tmp_path / "go"
    with waiting_request(server, f"/cgi-bin/full?{go}") as first:
        try:
            wait_until((tmp_path / "go.began").exists, "the script runs")
            response, _ = server.get("/cgi-bin/full", headers={"X-Request-Id": "in-vain"})
            assert response.status == 503
        finally:
            go.touch()
    assert first == [200]
    record = one_run(server, request_id="in-vain")
    assert (record["status"], record["exit"], record["signal"], record["killed"]) == (503, None, None, None)
    assert "max_scripts=1" in record["cause"]


def test_each_run_of_a_local_redirect_has_its_line(server: Server) -> None:
    """The one that answered has the status; both have the request's id."""
    query = steps(["out", "X-A: 1\n\n12345"]).partition("?")[2]
    server.get(f"/cgi-bin/there?{query}", headers={"X-Request-Id": "sent-on"})
    first = one_run(server, request_id="sent-on", script="/cgi-bin/there")
    second = one_run(server, request_id="sent-on", script="/cgi-bin/steps.py")
    assert (first["status"], first["bytes_out"]) == (None, 0)
    assert (second["status"], second["bytes_out"]) == (200, 5)


def test_what_becomes_of_a_redirecting_script_is_in_its_own_line(server: Server, operated: tuple[Server, Site]) -> None:
    """It may say something, and fail, while another one answers already."""
    operated[1].sh("leaves", f"printf 'Location: %s\\n\\n' '{ANSWER}'; exec >&-; sleep 0.3; echo late >&2; exit 7\n")
    assert server.get("/cgi-bin/leaves", headers={"X-Request-Id": "both"})[1] == b"ok"
    first = one_run(server, request_id="both", script="/cgi-bin/leaves")
    second = one_run(server, request_id="both", script="/cgi-bin/steps.py")
    assert (first["exit"], "status 7" in first["cause"]) == (7, True)
    assert (second["exit"], second["cause"]) == (0, None)
    assert {each["script"] for each in records(server) if each["event"] == "stderr"} == {"/cgi-bin/leaves"}


def test_standard_error_is_structured_too(server: Server) -> None:
    """Every line of the log is one of JSON; what a script writes goes out as it comes, with the request's id."""
    server.get("/cgi-bin/complains", headers={"X-Request-Id": "loud"})
    one_run(server, request_id="loud")
    said = [each for each in records(server) if each["event"] == "stderr"]
    assert "".join(each["text"] for each in said) == "first\nsecond\n"
    assert {(each["request_id"], each["script"]) for each in said} == {("loud", "/cgi-bin/complains")}
    assert [line for line in server.log.splitlines() if not line.startswith("{")] == []


def test_what_is_said_of_a_request_without_a_run_is_structured_too(
    server: Server, operated: tuple[Server, Site]
) -> None:
    """A file that may not run is no run; why it does not is in the log all the same."""
    operated[1].sh("plain", "echo\n", mode=0o644)
    assert server.get("/cgi-bin/plain", headers={"X-Request-Id": "refused"})[0].status == 403
    wait_until(lambda: records(server), "the line")
    [record] = records(server)
    assert (record["event"], record["request_id"], record["script"]) == ("message", "refused", None)
    assert "chmod 755" in record["text"]


def test_hostile_text_stays_inside_its_line(server: Server, operated: tuple[Server, Site]) -> None:
    """Neither a script's output nor its name can make a line of the log (CWE-117)."""
    forged = '{"event": "run", "request_id": "forged"}'
    operated[1].sh("forges", f"printf '%s\\n' '{forged}' >&2; printf 'x\\r\\n%s\\n' '{forged}'\n")
    server.get("/cgi-bin/forges", headers={"X-Request-Id": "hostile"})
    one_run(server, request_id="hostile")
    assert runs(server, request_id="forged") == []


def test_the_dev_server_prints_the_lines_as_they_are(site: Site, tmp_path: Path) -> None:
    """Between its own, which are for people; the panel still has what the script said."""
    fill(site)
    with servers.serving("dev", site.directory, tmp_path / "log", options=["--log-format", "json"]) as server:
        server.get("/cgi-bin/complains")
        wait_until(lambda: runs(server, script="/cgi-bin/complains", exit=3), "the line of the run")
        assert [each["text"] for each in records(server) if each["event"] == "stderr"] == ["first\nsecond\n"]
        assert b"second" in server.get("/-/wsgicgi/run/1")[1]


# -- request ids


def test_a_well_formed_id_is_that_of_the_request_everywhere(server: Server) -> None:
    """The client's, the script's, and the log's are one."""
    number = "0193b5a2-7c1e.A_b=@+" + "x" * 108
    response, body = server.get("/cgi-bin/report.py", headers={"X-Request-Id": number})
    assert response.headers.get_all("X-Request-Id") == [number]
    environ = json.loads(body)["environ"]
    assert environ["UNIQUE_ID"] == environ["HTTP_X_REQUEST_ID"] == number
    one_run(server, request_id=number)
    response, page = server.get("/nothing", headers={"X-Request-Id": number})
    assert (response.getheader("X-Request-Id"), number.encode() in page) == (number, True)
    assert server.get("/hello.txt", headers={"X-Request-Id": number})[0].getheader("X-Request-Id") == number


@pytest.mark.parametrize(
    "given",
    [
        pytest.param("x" * 129, id="long"),
        pytest.param("a b", id="blank"),
        pytest.param("../../etc/passwd", id="path"),
        pytest.param('"><script>', id="markup"),
        pytest.param("a,b", id="repeated"),
        pytest.param("-rf", id="option"),
        pytest.param("gr\xfc\xdfe", id="letters"),
        pytest.param("", id="empty"),
    ],
)
def test_another_id_is_replaced(server: Server, given: str) -> None:
    """What is too long or could mean something somewhere reaches neither log, nor page, nor script."""
    response, body = server.get("/cgi-bin/report.py", headers={"X-Request-Id": given})
    number = response.getheader("X-Request-Id", "")
    assert re.fullmatch("[0-9a-f]{16}", number)
    environ = json.loads(body)["environ"]
    assert environ["UNIQUE_ID"] == environ["HTTP_X_REQUEST_ID"] == number
    one_run(server, request_id=number)


def test_a_scripts_own_field_does_not_double_it(server: Server) -> None:
    """One request has one id."""
    response, _ = server.get(steps(["out", "X-Request-Id: other\n\n"]), headers={"X-Request-Id": "mine"})
    assert response.headers.get_all("X-Request-Id") == ["mine"]


def test_requests_with_one_id_are_not_taken_for_each_other(operated: tuple[Server, Site], tmp_path: Path) -> None:
    """Whoever sends the id of another's request, and leaves, ends no process of that one's script."""
    server, site = operated
    server.begin_log()
    body = (
        f"echo > {tmp_path}/$1.began; while [ ! -e {tmp_path}/$1.go ]; do sleep 0.02; done; echo > {tmp_path}/$1.done"
    )
    site.file("orphan", f"#!/bin/sh\n{body}\n", 0o755)
    site.sh("parent", f"(setsid {site.directory}/orphan $QUERY_STRING &)\nexec sleep 60\n")
    connections = {name: server.connection() for name in ("first", "second")}
    for name, connection in connections.items():
        connection.request("GET", f"/cgi-bin/parent?{name}", headers={"X-Request-Id": "shared"})
        wait_until((tmp_path / f"{name}.began").exists, f"the orphan of the {name} one runs")
    connections["second"].close()
    wait_until(lambda: runs(server, killed="client_gone"), "the second one was ended")
    (tmp_path / "first.go").touch()
    wait_until((tmp_path / "first.done").exists, "the orphan of the first one has lived on")
    connections["first"].close()
    wait_until(lambda: len(runs(server, killed="client_gone")) == 2, "the first one was ended")


# -- Server-Timing


def test_server_timing_tells_the_parts_that_are_known(server: Server) -> None:
    """In milliseconds (W3C Server Timing): of a script all parts, of a file the whole."""
    parts = r"queue;dur=[\d.]+, start;dur=[\d.]+, first-byte;dur=[\d.]+, total;dur=([\d.]+)"
    found = re.fullmatch(
        parts, server.get(steps(["sleep", 0.2], ["out", "X-A: 1\n\n"]))[0].getheader("Server-Timing", "")
    )
    assert found is not None
    assert float(found[1]) >= 200
    assert re.fullmatch(r"total;dur=[\d.]+", server.get("/hello.txt")[0].getheader("Server-Timing", ""))


# -- other applications


def test_one_program_has_all_of_it(site: Site, tmp_path: Path) -> None:
    """A ``CGIScript`` answers below its own mount point."""
    app = CGIScript(site.directory / "cgi-bin" / "report.py", health=True, metrics=True, request_id=True)
    client = Client(app)
    assert client.get("/-/health/ready").status_code == 200
    assert client.get("/x", headers={"X-Request-Id": "mine"}, buffered=True).headers["X-Request-Id"] == "mine"
    assert b"wsgicgi_script_seconds_count" in client.get("/-/metrics").data
    app.file.rename(tmp_path / "away")
    assert client.get("/-/health/ready").data == b"scripts\n"
    app.close()


def test_a_middleware_counts_what_it_passes_on(site: Site) -> None:
    """The application around which it stands has a kind of its own."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("418 I'm a Teapot", [("Content-Type", "text/plain")])
        return [b"short and stout"]

    middleware = CGIMiddleware(app, site.directory, metrics=True, health=True)
    client = Client(middleware)

    def count() -> float:
        found = re.search(r'wsgicgi_requests_total\{kind="app",status="418"\} ([\d.]+)', client.get("/-/metrics").text)
        return float(found[1]) if found else 0

    before = count()
    assert client.get("/tea", buffered=True).data == b"short and stout"
    assert count() == before + 1
    assert client.get("/-/health").status_code == 200
    middleware.close()


def test_an_application_that_raises_is_counted(site: Site) -> None:
    """The server below answers 500 then."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        raise RuntimeError("a mistake")

    middleware = CGIMiddleware(app, site.directory, metrics=True)
    client = Client(middleware)
    with pytest.raises(RuntimeError, match="a mistake"):
        client.get("/")
    assert 'wsgicgi_requests_total{kind="app",status="500"} ' in client.get("/-/metrics").text
    middleware.close()
