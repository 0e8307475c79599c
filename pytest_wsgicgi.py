"""pytest's door to ``wsgicgi.testing``. pytest imports it at every start, so it imports nothing else by itself."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from wsgicgi.testing import Cgi

_MADE = pytest.StashKey["Cgi"]()


@pytest.fixture
def cgi(request: pytest.FixtureRequest) -> Iterator[Cgi]:
    """Give a WebTest TestApp over a CGI script or over a directory with its scripts: call it with the path."""
    try:
        from wsgicgi.testing import Cgi  # noqa: PLC0415  # not before a test asks for it
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("webtest", "webob"):
            raise
        pytest.fail(f'The fixture "cgi" needs WebTest ({error}). Try: pip install "wsgicgi[testing]"', pytrace=False)
    made = request.node.stash[_MADE] = Cgi(request)
    yield made
    made.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Put what scripts said into the report of their test."""
    report = (yield).get_result()
    made = item.stash.get(_MADE, None)
    if made is not None and made.log and call.when != "teardown":
        report.sections.append(("cgi log", made.log))
