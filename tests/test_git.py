"""The real git client against ``git http-backend``, run as git's manual tells, through real servers."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from programs import find, git
from servers import Server, serving
from sites import Site

MIB = 1024 * 1024

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the wrapper is a shell script")

WRAPPER = """\
GIT_PROJECT_ROOT='{root}'
GIT_HTTP_EXPORT_ALL=1
GIT_CONFIG_COUNT=2
GIT_CONFIG_KEY_0=http.receivepack
GIT_CONFIG_VALUE_0=true
GIT_CONFIG_KEY_1=safe.directory
GIT_CONFIG_VALUE_1='*'
export GIT_PROJECT_ROOT GIT_HTTP_EXPORT_ALL GIT_CONFIG_COUNT
export GIT_CONFIG_KEY_0 GIT_CONFIG_VALUE_0 GIT_CONFIG_KEY_1 GIT_CONFIG_VALUE_1
exec '{git}' http-backend
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosted:
    """A repository on a server: its URL, its directory there, and the working tree it was made from."""

    url: str
    bare_dir: Path
    source_dir: Path


@pytest.fixture(params=["gunicorn", "waitress"])
def git_server(request: pytest.FixtureRequest, site: Site, tmp_path: Path) -> Iterator[Server]:
    """A server on the site: one that hands on chunked bodies as a stream, and one that collects them."""
    with serving(request.param, site.directory, tmp_path / "server.log") as started:
        yield started


@pytest.fixture
def hosted(git_server: Server, site: Site, tmp_path: Path) -> Hosted:
    """A repository with three commits, served by git-http-backend."""
    site.sh("git.cgi", WRAPPER.format(root=tmp_path / "repositories", git=find("git", package="git")))
    source_dir = tmp_path / "source"
    git("init", "--quiet", "--initial-branch=main", source_dir)
    (source_dir / "docs").mkdir()
    for number in range(3):
        (source_dir / "README").write_text(f"Version {number}\n")
        (source_dir / "docs" / f"page {number}.txt").write_text("Grüße\n" * (number + 1))
        (source_dir / f"data{number}.bin").write_bytes(random.Random(number).randbytes(MIB))
        commit_all(source_dir, f"Change {number}")
    (source_dir / "manual").symlink_to("docs")
    commit_all(source_dir, "A link")
    bare_dir = tmp_path / "repositories" / "team" / "demo.git"
    git("clone", "--quiet", "--bare", source_dir, bare_dir)
    return Hosted(url=f"{git_server.url}/cgi-bin/git.cgi/team/demo.git", bare_dir=bare_dir, source_dir=source_dir)


def commit_all(work_dir: Path, message: str) -> None:
    git("add", "--all", cwd=work_dir)
    git("commit", "--quiet", "--message", message, cwd=work_dir)


def tree(repository: Path, revision: str = "HEAD") -> str:
    return git("rev-parse", revision + "^{tree}", cwd=repository)


def files_tree(work_dir: Path) -> str:
    """The tree hash of the files as they are on disk, whatever the history says."""
    index = {"GIT_INDEX_FILE": str(work_dir / ".git" / "fresh-index")}
    git("add", "--all", cwd=work_dir, variables=index)
    return git("write-tree", cwd=work_dir, variables=index)


@pytest.mark.parametrize("protocol", ["0", "2"])
def test_clone_has_the_tree_of_the_source(hosted: Hosted, tmp_path: Path, protocol: str) -> None:
    """A clone gets every object unchanged, in the old and the new wire protocol (gitprotocol-http)."""
    clone_dir = tmp_path / "clone"
    git("-c", f"protocol.version={protocol}", "clone", "--quiet", hosted.url, clone_dir)
    assert files_tree(clone_dir) == tree(clone_dir) == tree(hosted.source_dir)
    assert git("rev-list", "--count", "HEAD", cwd=clone_dir) == "4"
    git("fsck", "--full", "--strict", cwd=clone_dir)


def test_shallow_clone_has_one_commit_and_the_whole_tree(hosted: Hosted, tmp_path: Path) -> None:
    """A shallow clone cuts the history, not the files, and can be made whole later."""
    clone_dir = tmp_path / "clone"
    git("clone", "--quiet", "--depth=1", hosted.url, clone_dir)
    assert git("rev-list", "--count", "HEAD", cwd=clone_dir) == "1"
    assert files_tree(clone_dir) == tree(hosted.source_dir)
    git("fetch", "--quiet", "--unshallow", cwd=clone_dir)
    assert git("rev-list", "--count", "HEAD", cwd=clone_dir) == "4"


def test_ten_clones_at_once_are_all_whole(hosted: Hosted, tmp_path: Path) -> None:
    """Ten clients at once each get everything: no request waits for another's end or takes its bytes."""
    clone_dirs = [tmp_path / f"clone{number}" for number in range(10)]
    with ThreadPoolExecutor(len(clone_dirs)) as pool:
        list(pool.map(lambda clone_dir: git("clone", "--quiet", hosted.url, clone_dir), clone_dirs))
    assert {files_tree(clone_dir) for clone_dir in clone_dirs} == {tree(hosted.source_dir)}


def test_large_push_arrives_whole(hosted: Hosted, tmp_path: Path) -> None:
    """A push above http.postBuffer (1 MiB) comes as a chunked body, and git-http-backend gets all of it."""
    clone_dir, trace_file = tmp_path / "clone", tmp_path / "trace"
    git("clone", "--quiet", hosted.url, clone_dir)
    (clone_dir / "large.bin").write_bytes(random.Random(30).randbytes(30 * MIB))
    commit_all(clone_dir, "Thirty MiB that nothing can compress")
    trace = {"GIT_TRACE_CURL": str(trace_file), "GIT_TRACE_CURL_NO_DATA": "1"}
    git("push", "--quiet", "origin", "HEAD:refs/heads/large", cwd=clone_dir, variables=trace)
    assert "Transfer-Encoding: chunked" in trace_file.read_text(errors="replace")
    assert tree(hosted.bare_dir, "refs/heads/large") == files_tree(clone_dir)
    git("fsck", "--full", "--strict", cwd=hosted.bare_dir)


def test_what_one_client_pushes_another_fetches(hosted: Hosted, tmp_path: Path) -> None:
    """A small push has a Content-Length; a branch can be made, moved and taken away by it."""
    writer_dir, reader_dir = tmp_path / "writer", tmp_path / "reader"
    git("clone", "--quiet", hosted.url, writer_dir)
    git("clone", "--quiet", hosted.url, reader_dir)
    (writer_dir / "README").write_text("Version 4\n")
    commit_all(writer_dir, "Change 4")
    git("push", "--quiet", "origin", "HEAD:main", "HEAD:refs/heads/extra", cwd=writer_dir)
    git("push", "--quiet", "origin", ":refs/heads/extra", cwd=writer_dir)
    git("pull", "--quiet", "--ff-only", cwd=reader_dir)
    assert files_tree(reader_dir) == tree(writer_dir) == tree(hosted.bare_dir)
    assert git("branch", "--list", "extra", cwd=hosted.bare_dir) == ""


def test_compressed_request_reaches_git_as_it_was_sent(hosted: Hosted, tmp_path: Path) -> None:
    """A Content-Encoding is the script's business: git compresses a long list of what it has."""
    clone_dir, trace_file = tmp_path / "clone", tmp_path / "trace"
    git("clone", "--quiet", hosted.url, clone_dir)
    for number in range(60):
        # git tells of the newest commits first: these must all be newer than what both sides have
        date = {"GIT_COMMITTER_DATE": f"{1_900_000_000 + number} +0000"}
        git("commit", "--quiet", "--allow-empty", "--message", f"Local {number}", cwd=clone_dir, variables=date)
    (hosted.source_dir / "README").write_text("Version 5\n")
    commit_all(hosted.source_dir, "Change 5")
    git("push", "--quiet", hosted.bare_dir, "HEAD:main", cwd=hosted.source_dir)
    trace = {"GIT_TRACE_CURL": str(trace_file), "GIT_TRACE_CURL_NO_DATA": "1"}
    git("fetch", "--quiet", "origin", cwd=clone_dir, variables=trace)
    assert "Content-Encoding: gzip" in trace_file.read_text(errors="replace")
    assert tree(clone_dir, "origin/main") == tree(hosted.source_dir)


def test_unknown_repository_is_the_scripts_own_404(hosted: Hosted, git_server: Server) -> None:
    """The status that git-http-backend gives reaches the client as it is."""
    response, _ = git_server.get("/cgi-bin/git.cgi/team/none.git/info/refs?service=git-upload-pack")
    assert (response.status, response.getheader("Expires")) == (404, "Fri, 01 Jan 1980 00:00:00 GMT")
