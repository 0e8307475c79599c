"""The view of Django's: what it makes of URL patterns, of users, and of requests that a middleware has read already.

What it does in a server is in ``test_mounting_frameworks.py``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import RawPostDataException
from django.test import AsyncRequestFactory, RequestFactory
from sites import Site

from wsgicgi import CGIScript

if not settings.configured:
    settings.configure(ALLOWED_HOSTS=["*"], USE_TZ=True)

from wsgicgi.django import as_view

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the scripts run by their shebangs")


@pytest.fixture
def view(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """The view of a script that tells what it got."""
    script = CGIScript(Site(tmp_path / "site").directory / "cgi-bin" / "report.py")
    yield as_view(script)
    script.close()


def told(response: Any) -> dict[str, Any]:
    """What the script tells."""
    text = b"".join(response.streaming_content)
    response.close()
    assert response.status_code == 200, text
    answer: dict[str, Any] = json.loads(text)
    return answer


@pytest.mark.parametrize(
    ("url", "path", "expected"),
    [
        pytest.param("/tools/a/b", "/a/b", ("/tools", "/a/b"), id="with-slash"),
        pytest.param("/tools/a/b", "a/b", ("/tools", "/a/b"), id="path-converter"),
        pytest.param("/tools", "", ("/tools", ""), id="bare"),
        pytest.param("/tools/", "/", ("/tools", "/"), id="slash"),
        pytest.param("/deep/down/tools/x//y/", "/x//y/", ("/deep/down/tools", "/x//y/"), id="included"),
        pytest.param("/%C3%BC/%E2%82%AC", "/€", ("/\xc3\xbc", "/\xe2\x82\xac"), id="letters"),
        pytest.param("/x", "/x", ("", "/x"), id="whole-site"),
    ],
)
def test_path_of_the_pattern_divides_the_url(
    view: Callable[..., Any], url: str, path: str, expected: tuple[str, str]
) -> None:
    """What comes before it is SCRIPT_NAME."""
    environ = told(view(RequestFactory().get(url), path))["environ"]
    assert (environ["SCRIPT_NAME"], environ.get("PATH_INFO", "")) == expected


def test_mount_of_the_whole_project_stays_in_front(view: Callable[..., Any]) -> None:
    """SCRIPT_NAME of the server's."""
    request = RequestFactory(SCRIPT_NAME="/project").get("/tools/x")
    environ = told(view(request, "/x"))["environ"]
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/project/tools", "/x")


@pytest.mark.parametrize(("url", "path"), [("/tools/a/b", "a"), ("/toolsa", "a")])
def test_pattern_that_does_not_name_the_rest_is_told(view: Callable[..., Any], url: str, path: str) -> None:
    """With a pattern that does."""
    request = RequestFactory().get(url)
    request.resolver_match = SimpleNamespace(route="^tools(?P<path>.)")
    with pytest.raises(ImproperlyConfigured, match=r"as r'\^tools\(\?P<path>/\.\*\)\?\$' does"):
        view(request, path)


def test_body_that_a_middleware_has_read_is_there_again(view: Callable[..., Any]) -> None:
    """Django keeps what ``request.body`` gave."""
    request = RequestFactory().post("/tools", b"the body", content_type="text/plain")
    assert request.body == b"the body"
    answer = told(view(request))
    assert (answer["body"], answer["environ"]["CONTENT_LENGTH"]) == ("the body", "8")


def test_body_that_a_middleware_has_used_up_is_an_error(view: Callable[..., Any]) -> None:
    """No script gets an empty one in its place."""
    request = RequestFactory().post("/tools", {"file": SimpleNamespace(name="x", read=lambda: b"y")})
    assert request.FILES
    with pytest.raises(RawPostDataException):
        view(request)


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (None, "of-the-server"),
        (SimpleNamespace(is_authenticated=False), None),
        (SimpleNamespace(is_authenticated=True, get_username=lambda: "Jörg"), "J\xc3\xb6rg"),
    ],
)
def test_user_is_djangos_where_django_has_users(view: Callable[..., Any], user: Any, expected: str | None) -> None:
    """Who has not logged in is nobody, whatever the server in front says."""
    request = RequestFactory(REMOTE_USER="of-the-server").get("/tools")
    if user is not None:
        request.user = user
    assert told(view(request))["environ"].get("REMOTE_USER") == expected


def test_answer_without_a_type_has_none(tmp_path: Path) -> None:
    """Django's default is for Django's pages."""
    script = CGIScript(Site(tmp_path / "site").sh("x", "printf 'X-A: 1\\nX-A: 2\\nStatus: 299 So So\\n\\nabc'\n"))
    response = as_view(script)(RequestFactory().get("/x"))
    fields = [(name, value) for name, value in response.items() if name != "Content-Length"]
    assert (response.status_code, response.reason_phrase, fields) == (299, "So So", [("X-A", "1"), ("X-A", "2")])
    assert b"".join(response.streaming_content) == b"abc"
    response.close()
    script.close()


def test_asgi_is_told_to_be_the_wrong_place(view: Callable[..., Any]) -> None:
    """There is no body that could be read."""
    with pytest.raises(ImproperlyConfigured, match=r"serve this project with its wsgi\.py, not asgi\.py"):
        view(AsyncRequestFactory().get("/tools"))
