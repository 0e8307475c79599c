"""What all tests share: a site of one's own, real servers on it, and a look at what a test leaves behind."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
from servers import Server
from sites import Site

from wsgicgi import body
from wsgicgi.runners import warden

# Root's scripts would run as nobody, who may not enter pytest's directories; tests of identities say what they want.
os.environ.setdefault("WSGICGI_RUN_AS", "none")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only root, or only an ordinary user, can see: ``.ci/run`` runs these tests as both."""
    other = "user_only" if os.geteuid() == 0 else "root_only"
    left_out = [item for item in items if item.get_closest_marker(other)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    """A fresh site; for tests with ``server`` the one that it serves."""
    if "server" in request.fixturenames:
        return request.getfixturevalue("_shared")[1]  # type: ignore[no-any-return]
    return Site(tmp_path / "site")


@pytest.fixture(params=servers.KINDS)
def server_kind(request: pytest.FixtureRequest) -> str:
    """Each kind of server in turn."""
    return str(request.param)


@pytest.fixture(scope="module", params=servers.KINDS)
def _shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Site]]:
    place = tmp_path_factory.mktemp(request.param)
    site = Site(place / "site")
    with servers.serving(request.param, site.directory, place / "server.log") as started:
        yield started, site


@pytest.fixture
def server(_shared: tuple[Server, Site]) -> Server:
    """Each kind of server in turn, on a site that a module's tests share; its log begins with the test."""
    _shared[0].begin_log()
    return _shared[0]


@pytest.fixture(scope="session", autouse=True)
def _warden() -> None:
    """What comes with the first script of a process and stays is no leak of the test that has it."""
    importlib.import_module("ctypes")  # newer libffi keeps its own file open
    warden.find(None, no_new_privs=True)
    body.no_input()


def _descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()


def _children() -> set[int]:
    if not os.path.isdir("/proc"):
        return set()
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # none at all: most tests
        return {os.getpid()}
    # a server's wardens stay as long as the server, but come with its first script
    return {pid for pid in servers.descendants(os.getpid()) if not servers.is_warden(pid)}


def _let_wardens_go(known: dict[Any, Any]) -> None:
    """End the wardens that came with a test: they would stay as long as this process."""
    for key, each in list(warden._wardens.items()):
        if known.get(key) is not each:
            del warden._wardens[key]
            each.close()
            each._process.returncode = None
            each._process.wait(15)
    if (None, True) in known:
        warden.find(None, no_new_privs=True)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[Callable[[], None]]:
    """No test leaves a descriptor or a child process behind: raw descriptors leak without any warning."""
    descriptors, children, wardens = _descriptors(), _children(), dict(warden._wardens)

    def check() -> None:
        _let_wardens_go(wardens)
        # one more descriptor is that of the listing itself, which may take a freed number
        servers.wait_until(lambda: len(_descriptors()) <= len(descriptors), "descriptors are closed")
        servers.wait_until(lambda: not _children() - children, "children have ended")

    yield check
    check()
