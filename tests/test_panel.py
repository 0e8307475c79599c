"""The dev server's panel: who sees it, what it shows, what it never shows, and that it works in a browser."""

from __future__ import annotations

import html
import json
import re
import socket
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import servers
from browser import browse
from servers import Server, dev, gunicorn, steps, wait_until
from sites import Site

from wsgicgi import panel
from wsgicgi.journal import RUNS, Journal, redacted
from wsgicgi.panel import PATH, Panel, is_on_this_machine
from wsgicgi.runners import Invocation

CT = "Content-Type: text/plain\n"


@pytest.fixture(scope="module")
def dev_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("panel") / "site")


@pytest.fixture(scope="module")
def dev_server(dev_site: Site) -> Iterator[Server]:
    """One dev server for this module; each test looks for its own runs."""
    log_file = dev_site.directory.parent / "log"
    with dev(log_file, "-d", str(dev_site.directory), "--pass-authorization") as server:
        yield server


def page(server: Server, rest: str = "", **options: Any) -> str:
    response, body = server.get(PATH + rest, **options)
    assert response.status == 200
    return body.decode()


SLOW = '<span class="tag slow">slow</span>'


def text_of(markup: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", markup)).split())


def rows(server: Server) -> list[str]:
    """The texts of the runs' rows, the latest first; whether one was slow depends on the machine."""
    found = re.findall(r'(?s)<tr role="row">.*?</tr>', page(server))[1:]
    return [text_of(row.replace(SLOW, "")) for row in found]


def record(server: Server, target: str) -> str:
    """The page of the latest run with this target."""
    found = re.findall(r'href="(/-/wsgicgi/run/\d+)">(.*?)</a>', page(server))
    link = next(href for href, text in found if html.unescape(text).split(" ", 1)[1] == target)
    return page(server, link.removeprefix(PATH))


# -- what it shows


def test_run_is_shown_with_what_there_is_to_know(dev_server: Server) -> None:
    """Time, status, method and path, exit, duration, bytes, how it was started; static files are no runs."""
    target = steps(["out", "Status: 203 X\n" + CT + "\nabc"], ["err", "words\n"], ["exit", 7])
    dev_server.request("POST", target, body=b"x")
    dev_server.get("/index.html")
    wait_until(lambda: f"POST {target} stderr exit 7" in rows(dev_server)[0], "the run is shown")
    found = rows(dev_server)[0]
    assert re.fullmatch(rf"\d\d:\d\d:\d\d 203 POST {re.escape(target)} stderr exit 7 [\d.]+ m?s 3 B spawned", found)


def test_record_of_one_run_is_complete(dev_server: Server) -> None:
    """Meta-variables, the head that was sent, standard error, size, command, what the log says."""
    target = steps(["err", "<i>words\n"], ["out", "X-Own: 1\n" + CT + "\nabc"], ["exit", 7])
    dev_server.get(target, headers={"X-Mine": "it & that"})
    wait_until(lambda: "X-Own: 1\n" in record(dev_server, target), "the record is complete")
    found = record(dev_server, target)
    for expected in ("<dt>HTTP_X_MINE</dt><dd>it &amp; that</dd>", "X-Own: 1\n", "<pre>\n&lt;i&gt;words\n", "3 bytes"):
        assert expected in found
    assert re.search(r"<h2>The log says</h2>\n<pre>\n/cgi-bin/steps\.py: .*exited with status 7\b", found)
    assert '<a href="/cgi-bin/steps.py?' in found
    assert text_of(found).startswith("GET " + target)


def test_credentials_are_never_shown(dev_server: Server) -> None:
    """Neither those that came nor those that went out; that they were there is said."""
    target = steps(["out", "Set-Cookie: id=secret-out\n" + CT + "\n"], ["err", "no secret\n"])
    sent = {"Authorization": "Basic c2VjcmV0", "Cookie": "id=secret-in", "X-Api-Key": "secret-key"}
    dev_server.get(target, headers=sent)
    wait_until(lambda: "Set-Cookie" in record(dev_server, target), "the record is complete")
    found = record(dev_server, target)
    for secret in ("c2VjcmV0", "secret-in", "secret-key"):
        assert secret not in found
    assert "Set-Cookie: (left out, 13 characters)" in found
    assert "<dt>HTTP_AUTHORIZATION</dt><dd>(left out, 14 characters)</dd>" in found


@pytest.mark.parametrize(
    ("name", "is_left_out"),
    [
        ("HTTP_COOKIE", True),
        ("Set-Cookie", True),
        ("HTTP_PROXY_AUTHORIZATION", True),
        ("DB_PASSWORD", True),
        ("X-Api-Key", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("HTTP_X_CSRF_TOKEN", True),
        ("PATH_INFO", False),
        ("HTTP_HOST", False),
        ("Content-Type", False),
    ],
)
def test_what_counts_as_a_credential(name: str, is_left_out: bool) -> None:
    """By its name: fields of requests and responses, and variables of the settings ``env`` and ``pass_env``."""
    assert redacted(name, "value") == ("(left out, 5 characters)" if is_left_out else "value")


def test_running_script_is_shown_as_running(dev_server: Server, tmp_path: Path) -> None:
    """Before its first byte, and with what it has said so far."""
    go_on = tmp_path / "go-on"
    target = steps(["err", "thinking\n"], ["wait_for", str(go_on)], ["out", CT + "\ndone"])
    client = threading.Thread(target=dev_server.get, args=(target,))
    client.start()
    try:
        wait_until(lambda: rows(dev_server) and target in rows(dev_server)[0], "the run is shown")
        wait_until(lambda: "thinking" in record(dev_server, target), "what it said is shown")
        assert re.search(r"running \d+ s so far", rows(dev_server)[0])
    finally:
        go_on.touch()
        client.join(20)
    wait_until(lambda: re.search(r"200 GET .* exit 0", rows(dev_server)[0]), "its end is shown")


def test_script_that_cannot_start_is_shown(dev_server: Server, dev_site: Site) -> None:
    """It has no exit status, and the log's reason."""
    dev_site.script("crlf", "#!/bin/sh\r\n")
    dev_server.get("/cgi-bin/crlf")
    wait_until(lambda: "500 GET /cgi-bin/crlf did not start" in rows(dev_server)[0], "the run is shown")
    assert "ends in CR LF" in record(dev_server, "/cgi-bin/crlf")


def test_script_that_goes_on_after_its_answer_is_shown_until_its_end(
    dev_server: Server, dev_site: Site, tmp_path: Path
) -> None:
    """Its exit status is known later than its answer."""
    go_on = tmp_path / "go-on"
    wait = f"while [ ! -e {go_on} ]; do sleep 0.05; done"
    dev_site.sh("later", f"printf 'Content-Length: 2\\n\\nok'; exec >&-; {wait}; echo late >&2; exit 4\n")
    dev_server.get("/cgi-bin/later")
    wait_until(lambda: "GET /cgi-bin/later still running" in rows(dev_server)[0], "that it goes on")
    go_on.touch()
    wait_until(lambda: "GET /cgi-bin/later stderr exit 4" in rows(dev_server)[0], "its end")


def test_local_redirect_is_two_runs(dev_server: Server, dev_site: Site) -> None:
    """Each script has its own; the client's answer is the second one's."""
    dev_site.sh("go", "printf 'Location: /cgi-bin/come\\n\\n'\n")
    dev_site.sh("come", "printf 'Content-Type: text/plain\\n\\nhere'; exit 5\n")
    dev_server.get("/cgi-bin/go")
    wait_until(lambda: "GET /cgi-bin/come exit 5" in rows(dev_server)[0], "the second run")
    wait_until(lambda: "GET /cgi-bin/go exit 0" in rows(dev_server)[1], "the end of the first")
    second, first = rows(dev_server)[:2]
    assert re.search(r"200 GET /cgi-bin/come exit 5 [\d.]+ m?s 4 B", second)
    assert re.search(r"\d GET /cgi-bin/go exit 0 [\d.]+ m?s 0 B", first)
    assert "None was sent for this run." in record(dev_server, "/cgi-bin/go")


def test_names_and_words_add_no_markup(dev_server: Server, dev_site: Site) -> None:
    """CWE-79: whatever a URL, a field, or a script says."""
    hostile = "<script>alert(1)</script>\"'"
    dev_site.sh(
        "<b>x",
        f"cat >&2 <<'END'\n{hostile}\nEND\nprintf 'X-A: {hostile.replace(chr(39), '')}\\nContent-Type: a/b\\n\\n'\n",
    )
    target = "/cgi-bin/%3Cb%3Ex?<script>alert(2)</script>\"'"
    with socket.create_connection(("127.0.0.1", dev_server.port)) as sock:
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nX-B: {hostile}\r\nConnection: close\r\n\r\n".encode())
        while sock.recv(65536):
            pass
    wait_until(lambda: target in rows(dev_server)[0], "the run is shown")
    for markup in (page(dev_server), page(dev_server, "/live"), record(dev_server, target)):
        assert "alert(2)" in markup
        assert "<script>alert" not in markup
        assert "<b>" not in markup


def test_only_the_last_200_runs_are_remembered() -> None:
    """Memory is bounded, and so is what one run may fill of it."""
    journal = Journal()
    invocation = Invocation(argv=("/x",), metavars={"SCRIPT_NAME": "/x", "HTTP_LONG": "y" * 100_000}, cwd="/", stdin=0)
    made = [journal.begin(method="GET", target=f"/x?{n}", invocation=invocation) for n in range(RUNS + 5)]
    assert [run.number for run in journal.runs()] == list(range(RUNS + 5, 5, -1))
    assert (journal.find(5), journal.find(6)) == (None, made[5])
    run = made[-1]
    assert len(run.metavars["HTTP_LONG"]) < 5000
    for _ in range(100):
        run.write_stderr("/x: " + "z" * 1023 + "\n")
    assert run.stderr == ("z" * 1023 + "\n") * 64
    assert run.stderr_left_out == 36 * 1024


@pytest.mark.parametrize(
    ("method", "target", "is_offered"),
    [
        ("GET", "/cgi-bin/x?a=b", True),
        ("POST", "/cgi-bin/x", False),
        ("GET", "//evil.example/", False),
        ("GET", "/\\evil.example/", False),
        ("GET", "http://evil.example/", False),
        ("GET", "/x?" + "y" * 10_000, False),
    ],
)
def test_only_a_path_of_this_server_is_offered_again(method: str, target: str, is_offered: bool) -> None:
    """A link that sends nothing and leads nowhere else."""
    invocation = Invocation(argv=("/x",), metavars={"SCRIPT_NAME": "/x"}, cwd="/", stdin=0)
    run = Journal().begin(method=method, target=target, invocation=invocation)
    assert panel._run(run)["again"] == (target if is_offered else "")
    assert len(run.target) < 5000


def test_no_more_is_shown_of_a_forgotten_run(dev_server: Server) -> None:
    """A 404 with the way back."""
    for rest in ("/run/999999", "/run/x", "/run/", "/other", "/run/1/2"):
        response, body = dev_server.get(PATH + rest)
        assert (response.status, b"All runs" in body) == (404, True), rest


# -- charts


def test_each_script_has_a_chart_of_its_durations() -> None:
    """The latest at the right, the longest as high as the chart; slow and failed ones differ in more than height."""
    journal = Journal()
    invocation = Invocation(argv=("/x",), metavars={"SCRIPT_NAME": "/x"}, cwd="/", stdin=0)
    runs = [journal.begin(method="GET", target="/x", invocation=invocation) for _ in range(panel.BARS + 3)]
    for number, run in enumerate(runs):
        run.finish("200 OK", [], size=0, exchange=None)
        run.seconds = 0.5 + number / 40
    chart = panel._chart("/x", runs)
    assert len(chart.bars) == panel.BARS
    assert (chart.bars[-1].height, chart.bars[-1].x) == (panel.CHART_HEIGHT, (panel.BARS - 1) * panel.BAR_WIDTH)
    assert [bar.height for bar in chart.bars] == sorted(bar.height for bar in chart.bars)
    assert (chart.runs, chart.median, chart.slowest) == (43, "1.02 s", "1.55 s")
    assert {bar.kind for bar in chart.bars} == {"failed"}  # none has ended with a status


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, "0 ms"), (0.0344, "34 ms"), (0.9994, "999 ms"), (0.9996, "1.00 s"), (123.4, "123 s")]
)
def test_durations_are_readable(seconds: float, expected: str) -> None:
    assert panel.readable_seconds(seconds) == expected


# -- who sees it

HOME = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost:8000"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param({}, True, id="localhost"),
        pytest.param({"HTTP_HOST": "127.0.0.1:8000"}, True, id="ipv4"),
        pytest.param({"HTTP_HOST": "[::1]:8000", "REMOTE_ADDR": "::1"}, True, id="ipv6"),
        pytest.param({"HTTP_HOST": "0.0.0.0:8000"}, True, id="everywhere"),
        pytest.param({"HTTP_HOST": "my.LOCALHOST"}, True, id="below-localhost"),
        pytest.param({"REMOTE_ADDR": "::ffff:127.0.0.1"}, True, id="mapped-ipv4"),
        pytest.param({"REMOTE_ADDR": "192.0.2.1"}, False, id="other-client"),
        pytest.param({"REMOTE_ADDR": "::ffff:192.0.2.1"}, False, id="mapped-other-client"),
        pytest.param({"REMOTE_ADDR": ""}, False, id="unix-socket"),
        pytest.param({"REMOTE_ADDR": "localhost"}, False, id="no-address"),
        pytest.param({"HTTP_HOST": "rebound.example"}, False, id="dns-rebinding"),
        pytest.param({"HTTP_HOST": "127.0.0.1.evil.example"}, False, id="looks-like-an-address"),
        pytest.param({"HTTP_HOST": "localhost.evil.example"}, False, id="looks-like-localhost"),
        pytest.param({"HTTP_HOST": "evillocalhost"}, False, id="ends-like-localhost"),
        pytest.param({"HTTP_HOST": "192.0.2.1:8000"}, False, id="address-of-the-network"),
        pytest.param({"HTTP_HOST": "localhost, evil.example"}, False, id="two-hosts"),
        pytest.param({"HTTP_HOST": "user@localhost"}, False, id="user"),
        pytest.param({"HTTP_HOST": ""}, False, id="no-host"),
        pytest.param({"REQUEST_URI": "http://evil.example/-/wsgicgi"}, False, id="absolute-target"),
        pytest.param({"REQUEST_URI": "http://localhost/-/wsgicgi"}, True, id="absolute-target-here"),
        pytest.param(
            {"REQUEST_URI": "http://localhost/-/wsgicgi", "HTTP_HOST": "evil.example"}, False, id="other-host-field"
        ),
        *(
            pytest.param({f"HTTP_{name}": "127.0.0.1"}, False, id=name.lower())
            for name in ("X_FORWARDED_FOR", "FORWARDED", "X_REAL_IP", "X_FORWARDED_HOST", "VIA")
        ),
    ],
)
def test_who_is_on_this_machine(environ: dict[str, str], expected: bool) -> None:
    """The connection is from here, not through a proxy, and the host's name is one that no name server answers for."""
    assert is_on_this_machine({**HOME, **environ}) is expected


@pytest.mark.parametrize("headers", [{"Host": "rebound.example"}, {"X-Forwarded-For": "192.0.2.1"}])
def test_others_find_nothing_there(dev_server: Server, headers: dict[str, str]) -> None:
    """The page does not exist for them, and what they ask is answered by the site: with 404."""
    for rest in ("", "/", "/live", "/run/1"):
        response, body = dev_server.get(PATH + rest, headers=headers)
        assert (response.status, b"Script runs" in body, response.headers["ETag"]) == (404, False, None)


def test_client_from_the_network_finds_nothing_there(site: Site, tmp_path: Path) -> None:
    """A server that listens everywhere is asked by this machine's other address, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but its own")
        address = probe.getsockname()[0]
    command = [servers.BIN / "wsgicgi-dev", "-b", "0.0.0.0", "-d", str(site.directory), "0"]
    with servers.running(command, r"http://0\.0\.0\.0:(\d+)/", tmp_path / "log") as server:
        assert server.get(PATH, headers={"Host": "localhost"})[0].status == 200
        server.host = address
        assert server.get(PATH, headers={"Host": "localhost"})[0].status == 404


def test_there_is_none_under_another_server(site: Site, tmp_path: Path) -> None:
    """``create_app`` knows nothing of it."""
    env = {"WSGICGI_DIRECTORY": str(site.directory)}
    with gunicorn("wsgicgi:create_app()", tmp_path / "log", env=env) as server:
        server.get("/cgi-bin/report.py")
        assert server.get(PATH)[0].status == 404


def test_neighbours_are_the_site_s(dev_server: Server, dev_site: Site) -> None:
    """Only the path itself and what is below it."""
    dev_site.file("-/wsgicgi-notes.txt", "mine")
    dev_site.file("-/other.txt", "mine too")
    assert dev_server.get("/-/wsgicgi-notes.txt")[1] == b"mine"
    assert dev_server.get("/-/other.txt")[1] == b"mine too"


def test_answers_are_for_this_page_only(dev_server: Server) -> None:
    """Nothing keeps them, frames them from elsewhere, or runs what it does not bring itself; no other method."""
    for rest in ("", "/live", "/run/999999"):
        response, body = dev_server.get(PATH + rest)
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'self'" in policy
        nonces = set(re.findall(rb'nonce="([^"]+)"', body))
        assert nonces <= {policy.split("'nonce-")[1].split("'")[0].encode()}
        assert dev_server.request("HEAD", PATH + rest)[1] == b""
    response, _ = dev_server.request("POST", PATH, body=b"x")
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


def test_the_panel_itself_is_neither_logged_nor_a_run(dev_server: Server) -> None:
    """A browser that shows it asks every second."""
    dev_server.get(steps(["out", CT + "\n"]))
    wait_until(lambda: "/run/1" in page(dev_server), "there is a run")
    logged = dev_server.log
    for rest in ("", "/live", "/run/1"):
        page(dev_server, rest)
    assert PATH not in dev_server.log[len(logged) :]
    assert not [row for row in rows(dev_server) if PATH in row]


# -- in a browser


class Tags(HTMLParser):
    """The tags of a page, each with its attributes."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_pages_need_nothing_from_elsewhere(dev_server: Server) -> None:
    """No asset has an address."""
    dev_server.get("/cgi-bin/report.py")
    for markup in (page(dev_server), record(dev_server, "/cgi-bin/report.py")):
        addresses = [
            value for _, attrs in Tags(markup).found for name, value in attrs.items() if name in ("src", "href")
        ]
        assert not [value for value in addresses if value and re.match(r"https?:|//", value)]
        assert not re.search(r"url\(|@import", markup)


def probe(site: Site, server: Server, tmp_path: Path, name: str, script: str) -> Any:
    """What a script of a page of the site finds out in a browser; it calls ``tell`` with it."""
    site.file(
        name,
        "<!doctype html><title>waiting</title><body><script>\n"
        "const tell = (found) => { document.body.textContent = ''; document.body.append(JSON.stringify(found)); };\n"
        "const frame = (src, width) => new Promise((done) => {\n"
        "  const made = document.createElement('iframe');\n"
        "  made.style.width = `${width}px`; made.onload = () => done(made); made.src = src;\n"
        "  document.body.append(made); });\n"
        "const until = async (condition) => { while (!condition()) await new Promise((go) => setTimeout(go, 50)); };\n"
        f"(async () => {{ {script} }})().catch((error) => tell(String(error)));\n</script>\n",
    )
    dom = browse(tmp_path, "--dump-dom", "--virtual-time-budget=20000", f"{server.url}/{name}").decode()
    body = re.search(r"(?s)<body>(.*?)</body>", dom)
    assert body is not None
    return json.loads(html.unescape(body[1]))


def test_panel_is_live_in_a_browser(dev_server: Server, dev_site: Site, tmp_path: Path) -> None:
    """A run that comes later is there without a reload, and the focus stays on the link that had it."""
    dev_server.get("/cgi-bin/report.py?first")
    found = probe(
        dev_site,
        dev_server,
        tmp_path,
        "probe-live.html",
        """
        const page = (await frame("/-/wsgicgi", 800)).contentDocument;
        const first = page.querySelector("td a");
        first.focus();
        const before = first.textContent;
        await (await fetch("/cgi-bin/report.py?second")).text();
        await until(() => page.querySelector("td a").textContent.includes("second"));
        await until(() => page.querySelectorAll("svg rect").length > 1);
        tell([before, page.querySelector("td a").textContent, page.activeElement.textContent,
              page.querySelectorAll("svg rect").length > 1, page.querySelector(".live").hidden]);
        """,
    )
    assert found == [
        "GET /cgi-bin/report.py?first",
        "GET /cgi-bin/report.py?second",
        "GET /cgi-bin/report.py?first",
        True,
        False,
    ]


def test_pages_fit_a_phone(dev_server: Server, dev_site: Site, tmp_path: Path) -> None:
    """Nothing is wider than 360 px, however long a URL is without a blank; rows come below each other."""
    dev_site.sh("w" * 100, "echo " + "e" * 300 + " >&2; printf 'X-Long: " + "h" * 300 + "\\nContent-Type: a/b\\n\\n'\n")
    dev_server.get("/cgi-bin/" + "w" * 100 + "?" + "q" * 300)
    found = probe(
        dev_site,
        dev_server,
        tmp_path,
        "probe-phone.html",
        """
        const list = (await frame("/-/wsgicgi", 360)).contentDocument;
        const run = (await frame(list.querySelector("td a").getAttribute("href"), 360)).contentDocument;
        const surplus = (page) => page.documentElement.scrollWidth - page.documentElement.clientWidth;
        tell([surplus(list), surplus(run), run.querySelector("pre").textContent.length > 300]);
        """,
    )
    assert found == [0, 0, True]


def test_listing_is_filtered_while_one_types(dev_server: Server, dev_site: Site, tmp_path: Path) -> None:
    """Rows that do not match go, the count is told, links that sort keep the filter; and it fits a phone."""
    for name in ("Apple.txt", "pear.txt", "n" * 120 + ".txt", "fruit/x"):
        dev_site.file(f"shelf/{name}", "x")
    found = probe(
        dev_site,
        dev_server,
        tmp_path,
        "probe-listing.html",
        """
        const page = (await frame("/shelf/?sort=size", 360)).contentDocument;
        const width = page.documentElement.scrollWidth - page.documentElement.clientWidth;
        const input = page.querySelector("input[type=search]");
        const type = (text) => { input.value = text; input.dispatchEvent(new Event("input")); };
        const shown = () => [...page.querySelectorAll("tbody tr")].filter((row) => !row.hidden)
          .map((row) => row.querySelector("a").textContent);
        type("P");
        const some = shown(), count = page.querySelector(".count").textContent;
        const sort = page.querySelector("a.sort").getAttribute("href");
        type("");
        tell([width, some, count, sort, shown().length, page.querySelector(".count").textContent]);
        """,
    )
    assert found == [0, ["../", "Apple.txt", "pear.txt"], "2 of 4 shown.", "?filter=P", 5, ""]


def test_panel_works_without_a_server_below() -> None:
    """The middleware passes on what is not its own (PEP 3333)."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        return [environ["PATH_INFO"].encode()]

    made = Panel(app, Journal())
    assert list(made({**HOME, "PATH_INFO": "/x", "REQUEST_METHOD": "GET"}, lambda *_: lambda _: None)) == [b"/x"]
