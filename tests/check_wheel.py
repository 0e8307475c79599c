"""Runs the demo of an installed wsgicgi-dev and looks at all it serves. Usage: check_wheel.py WSGICGI-DEV"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from servers import running


def main(program: str) -> None:
    with tempfile.TemporaryDirectory() as empty:
        log_file = Path(empty) / "log"
        command = [program, "--demo", "0"]
        with running(command, r"http://127\.0\.0\.1:(\d+)/", log_file, cwd=Path(empty)) as server:
            if "/cgi-bin: 3 runnable scripts" not in server.log:
                raise SystemExit(f"the banner does not name three scripts:\n{server.log}")
            for target, words in (
                ("/", b"cgi-bin/hello.py"),
                ("/cgi-bin/hello.py", b"Hello"),
                ("/cgi-bin/hello.sh", b"Hello"),
                ("/cgi-bin/form.py?text=%C3%84nne", "Änne".encode()),
            ):
                response, body = server.get(target)
                if response.status != 200 or words not in body:
                    raise SystemExit(f"{target}: {response.status}\n{body[:2000]!r}\n{server.log}")
                print(f"{target}: {response.status}, {len(body)} bytes")
            if server.stop() != 0:
                raise SystemExit(f"it did not stop cleanly:\n{server.log}")


if __name__ == "__main__":
    main(sys.argv[1])
