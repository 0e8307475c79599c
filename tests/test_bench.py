"""The benchmark tools in ``tests/bench`` work; how fast anything is, no test says."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parent / "bench"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="they look into /proc")


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("WSGICGI_")}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the clients."""
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("load")


def test_a_workload_is_measured_shown_and_written(tmp_path: Path) -> None:
    """Real answers of a real server in each round, without errors, and its processor time and memory."""
    short = ["--rounds", "2", "--duration", "0.3", "--connections", "2", "--generator", "python"]
    done = bench(BENCH / "run.py", "--workload", "sh-hello", "--peers", "none", *short, "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads((tmp_path / "out.json").read_text())["results"]
    assert (result["workload"], result["connections"], result["left_out"]) == ("sh-hello", 2, {})
    (server,) = result["servers"]
    assert (server["name"], server["errors"], len(server["rounds"])) == ("wsgicgi gthread", 0, 2)
    assert all(each["requests"] > 0 and each["value"] > 0 for each in server["rounds"])
    assert server["range"][0] <= server["median"] <= server["range"][1]
    assert 0 < server["p50_ms"] <= server["p99_ms"]
    assert server["cpu_ms"] > 0
    assert server["peak_bytes"] > 1024 * 1024
    assert "wsgicgi gthread" in done.stdout


def test_who_gives_wrong_answers_is_left_out(tmp_path: Path) -> None:
    """A server is measured only with the answers that it should give: here wsgicgi refuses all scripts' answers."""
    short = ["--rounds", "1", "--duration", "0.1", "--connections", "1", "--generator", "python"]
    done = bench(
        BENCH / "run.py", "--workload", "sh-hello", "--peers", "none", *short, "--setting", "max_header_bytes=1"
    )
    assert done.returncode == 0, done.stderr
    assert "left out: wsgicgi gthread: WrongAnswer" in done.stdout


def test_the_stages_of_the_profile_are_those_of_the_code() -> None:
    """Each function that the profile times is still there."""
    code = f"import sys; sys.path.insert(0, {str(BENCH)!r}); import profile; profile._instrumented()"
    done = bench("-c", code)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["limits.py", "scale.py"])
def test_limits_and_scale_can_be_called(name: str) -> None:
    """Nothing that they import has gone."""
    done = bench(BENCH / name, "--help")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_chunks_are_counted_however_they_come(load: ModuleType, size: int) -> None:
    """Only the bytes of the body count, and the last chunk ends it."""
    data = b"5\r\nhello\r\n" + b"A;x=y\r\n" + b"\r\n" * 5 + b"\r\n" + b"0\r\n\r\n"
    chunks = load._Chunks()
    count = 0
    for at in range(0, len(data), size):
        piece = data[at : at + size]
        count += chunks.feed(bytearray(piece), len(piece))
        if chunks.has_ended:  # nobody reads on then
            break
    assert (count, chunks.has_ended) == (15, True)
