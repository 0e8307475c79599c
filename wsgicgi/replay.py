"""A recorded request is made again, and what differs is shown: ``wsgicgi-dev replay``."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .app import Application
from .errors import ConfigError, printable
from .inquiry import REDACTED, is_secret
from .loading import load
from .recording import MAX_RECORDED, recorded
from .run import FAILED, OK, Errors, Response, misused, perform


def replay(arguments: Sequence[str]) -> int:
    """Repeat a recorded request and print what differs; gives the exit status of the command."""
    parser = argparse.ArgumentParser(
        prog="wsgicgi-dev replay",
        description="Repeat a request that wsgicgi-dev --record kept, and show what differs.",
        epilog="Exit status: 0 nothing differs, 1 something does, 2 wrong usage.",
    )
    parser.add_argument("file", metavar="FILE", help="a recording")
    parser.add_argument("-d", "--directory", metavar="DIR", help="what '/' maps to; default: as it was recorded")
    options = parser.parse_args(arguments)
    try:
        recording = json.loads(Path(options.file).read_text(encoding="utf-8"))
        request, was = recorded(recording)
        settings = {
            "directory": options.directory or recording["directory"],
            "cgi_directories": recording["cgi_directories"],
            "debug": False,
        }
        app = Application(load(settings))
    except (OSError, KeyError, TypeError, ValueError) as error:
        return misused(f"{options.file}: {error if isinstance(error, OSError | ConfigError) else 'is no recording'}")
    try:
        now = perform(app, request, Errors(sys.stderr))
    finally:
        app.close()
    lines = list(differences(was, now, recording["diagnosis"]))
    print("\n".join(lines) or f"{request.method} {request.target}: nothing differs ({now.status})")
    return FAILED if lines else OK


def differences(was: Response, now: Response, old_diagnosis: str | None) -> Iterator[str]:
    """What is not as it was, line by line: status, cause of failure, fields, body."""
    if was.status != now.status:
        yield f"status: was {was.status}, is {now.status}"
    if was.is_complete != now.is_complete:
        yield f"the answer was {_completeness(was)}, is {_completeness(now)}"
    cause = None if now.diagnosis is None else str(now.diagnosis)
    if cause != old_diagnosis:
        yield f"failure: was {old_diagnosis or 'none'}"
        yield f"failure: is {cause or 'none'}"
    if old_diagnosis is not None or cause is not None:
        return  # the answer is a page of ours then, which shows the request's id
    old_fields, new_fields = _lines(_comparable(was, now)), _lines(_comparable(now, was))
    yield from difflib.unified_diff(old_fields, new_fields, "fields as recorded", "fields now", lineterm="", n=1)
    new_body = now.body[:MAX_RECORDED]
    if was.body == new_body:
        return
    try:
        old_text, new_text = was.body.decode().splitlines(), new_body.decode().splitlines()
    except UnicodeDecodeError:
        yield f"body: was {len(was.body)} bytes, is {len(now.body)} bytes, and they differ"
        return
    yield from map(printable, difflib.unified_diff(old_text, new_text, "body as recorded", "body now", lineterm=""))


def _completeness(response: Response) -> str:
    return "complete" if response.is_complete else "cut short"


def _comparable(response: Response, other: Response) -> list[tuple[str, str]]:
    """The fields of a response that another is expected to have too.

    A length is told where the script has ended in time, which is a matter of luck; bodies are compared anyway.
    """
    names = {name.lower() for name, _ in other.fields}
    return [
        (name, value) for name, value in response.fields if name.lower() != "content-length" or name.lower() in names
    ]


def _lines(fields: Iterable[tuple[str, str]]) -> list[str]:
    shown = (f"{name}: {REDACTED if is_secret(name) else value}" for name, value in fields)
    return sorted(map(printable, shown))
