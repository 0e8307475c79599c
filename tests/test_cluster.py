"""More than one machine: HAProxy with ``deploy/haproxy.cfg`` in front of three replicas, which come and go."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import cluster
import pytest
from servers import wait_until
from sites import Site

CLIENT = Path(__file__).parent / "cluster_client.py"
CLIENTS = 8
REQUESTS = 2000
#: Far more than it ever takes.
SECONDS = 300


def make_site(place: Path) -> tuple[Site, Path]:
    """Files, a script to get, and one that writes down what was posted to it; also where."""
    site = Site(place / "site")
    ledger = place / "posted"
    ledger.touch()
    site.file("small.bin", b"x" * 1024)
    site.file("large.bin", b"x" * 40_000)
    head = "Content-Type: text/plain\\nX-Replica: $REPLICA\\n\\n"
    site.sh("get", f'printf "{head}got\\n"\n')
    # one write each, at the end of the file: no two of them mix
    site.sh("post", f'read body\necho "$QUERY_STRING" >> {ledger}\nprintf "{head}$QUERY_STRING $body"\n')
    return site, ledger


class Clients:
    """Clients on the balancer's machine, and what became of their requests."""

    def __init__(self, net: cluster.Network) -> None:
        self.results: list[dict[str, Any]] = []
        command = [*net.on("balancer"), sys.executable, str(CLIENT), net.address("balancer"), str(net.front_port)]
        self._process = subprocess.Popen(
            [*command, str(CLIENTS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def take(self, number: int) -> list[dict[str, Any]]:
        """The results of the next requests."""
        assert self._process.stdout is not None
        lines = [self._process.stdout.readline() for _ in range(number)]
        found = [json.loads(line) for line in lines]
        self.results += found
        return found

    def finish(self) -> None:
        """Let those requests end that have begun."""
        rest, _ = self._process.communicate(timeout=SECONDS)
        self.results += [json.loads(line) for line in rest.splitlines()]
        assert self._process.returncode == 0

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


@pytest.mark.root_only
def test_machines_come_and_go_and_clients_do_not_notice(tmp_path: Path) -> None:
    """One of three is killed, another restarted: no GET fails, and no POST is done twice, or silently not at all."""
    site, ledger = make_site(tmp_path)

    def replica(name: str, **variables: str) -> Any:
        log = tmp_path / f"{name}{len(list(tmp_path.glob(f'{name}*.log')))}.log"
        variables = {"WORKERS": "1", "THREADS": "16", "DRAIN": "0", **variables}
        return cluster.replica(net, name, site.directory, log, **variables)

    with (
        cluster.network(3) as net,
        replica("m1") as killed,
        replica("m2", DRAIN="600") as restarted,
        replica("m3"),
        cluster.balancing(net, tmp_path) as balancer,
    ):
        clients = Clients(net)
        try:
            clients.take(400)
            cluster.kill(killed)
            wait_until(lambda: not balancer.is_up("m1"), "the balancer knows that m1 is gone", 30)
            clients.take(300)
            before_restart = len(clients.results)

            restarted.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not balancer.is_up("m2"), "m2 gets nothing new", 30)
            wait_until(lambda: balancer.is_idle("m2"), "what m2 got is answered", 30)
            restarted.process.send_signal(signal.SIGTERM)
            assert restarted.process.wait(60) == 0
            clients.take(300)
            with replica("m2"):
                wait_until(lambda: balancer.is_up("m2"), "m2 is back", 30)
                clients.take(max(300, REQUESTS - len(clients.results)))
                clients.finish()
        finally:
            clients.close()

    failed = [each for each in clients.results if each["result"] != "ok"]
    print(len(clients.results), "requests;", [(clients.results.index(each), each) for each in failed])
    assert len(clients.results) >= REQUESTS
    assert [each for each in failed if each["kind"] != "post"] == []
    # an answer that was under way from the killed machine cannot be made whole by anybody but its client
    repeated = [each for each in clients.results if each["is_repeated"]]
    assert len(failed) + len(repeated) <= CLIENTS
    later = clients.results[before_restart:]
    assert [each for each in later if each["result"] != "ok" or each["is_repeated"]] == []

    posted = Counter(ledger.read_text().split())
    assert {name: times for name, times in posted.items() if times > 1} == {}
    answered = {each["name"] for each in clients.results if each["kind"] == "post" and each["result"] == "ok"}
    assert answered - set(posted) == set()
    refused = {each["name"] for each in failed if each["kind"] == "post"}
    assert set(posted) - answered <= refused
    # all have worked: m2 twice
    assert {each["replica"] for each in clients.results} >= {"m1", "m2", "m3"}
    assert "m2" in {each["replica"] for each in clients.results[-300:]}


@pytest.mark.root_only
def test_only_what_may_be_repeated_goes_to_a_second_machine(tmp_path: Path) -> None:
    """A script ends its own server before it answers: the GET is made again elsewhere, the POST is not."""
    site = Site(tmp_path / "site")
    ledger, dead = tmp_path / "ledger", tmp_path / "dead"
    dead.mkdir()
    site.sh(
        "die",
        f"echo $REQUEST_METHOD >> {ledger}\n"
        f"if mkdir {dead}/$REQUEST_METHOD 2>/dev/null; then\n"
        "  worker=$(sed 's/.*) //' /proc/$PPID/stat | cut -d ' ' -f 2)\n"
        "  kill -9 $worker; sleep 60\n"
        "fi\n"
        "printf 'Content-Type: text/plain\\n\\nalive'\n",
    )
    with (
        cluster.network(2) as net,
        cluster.replica(net, "m1", site.directory, tmp_path / "m1.log", WORKERS="1", DRAIN="0"),
        cluster.replica(net, "m2", site.directory, tmp_path / "m2.log", WORKERS="1", DRAIN="0"),
        cluster.balancing(net, tmp_path),
    ):
        url = f"http://{net.address('balancer')}:{net.front_port}/cgi-bin/die"

        def answer(*options: str) -> list[str]:
            command = ["curl", "-sS", "--noproxy", "*", "--max-time", "60", "-o", "-", "-w", "\n%{http_code}"]
            done = subprocess.run(
                [*net.on("balancer"), *command, *options, url], capture_output=True, text=True, timeout=90
            )
            lines = done.stdout.splitlines()
            return [lines[0], lines[-1]]

        assert answer() == ["alive", "200"]
        assert answer("--data", "x")[1] == "502"
    assert Counter(ledger.read_text().split()) == {"GET": 2, "POST": 1}
