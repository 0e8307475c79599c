"""gitweb, a large Perl CGI program, through several servers, and as a browser shows it."""

from __future__ import annotations

import html
import io
import os
import re
import shutil
import struct
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import servers
from browser import browse
from programs import find, git, need_perl_module
from sites import Site

pytestmark = pytest.mark.skipif(os.name != "posix", reason="gitweb runs by its shebang")

CONFIG = """\
our $projectroot = "{root}";
our $projects_list = $projectroot;
our $site_name = "Repositories of a test";
our @stylesheets = ("/gitweb/gitweb.css");
our $javascript = "/gitweb/gitweb.js";
our $logo = "/gitweb/git-logo.png";
our $favicon = "/gitweb/git-favicon.png";
$feature{{"snapshot"}}{{"default"}} = ["tgz"];
1;
"""

PROGRAM = """\
#include <stdio.h>

int main(void) { return puts("Grüße & <Küsse>") < 0; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gitweb:
    """gitweb on a server, and the revision that it shows."""

    server: servers.Server
    commit: str

    def page(self, query: str) -> str:
        """A page of gitweb's that is whole, correct HTML as far as its first and last tags tell."""
        response, body = self.server.get(f"/cgi-bin/gitweb.cgi{query}")
        text = body.decode()
        assert response.status == 200, text
        assert response.getheader("Content-Type", "").startswith(("text/html", "application/xhtml+xml"))
        assert "<html" in text and text.rstrip().endswith("</html>")
        return text


@pytest.fixture
def repositories(site: Site, tmp_path: Path) -> tuple[Path, str]:
    """Where the bare repositories are, and the newest commit of ``demo.git``; gitweb and its files are in the site."""
    program = Path(find("/usr/share/gitweb/gitweb.cgi", package="gitweb"))
    (site.directory / "cgi-bin" / "gitweb.cgi").symlink_to(program)
    shutil.copytree(program.parent / "static", site.directory / "gitweb")

    source_dir, root = tmp_path / "source", tmp_path / "repositories"
    git("init", "--quiet", "--initial-branch=main", source_dir)
    (source_dir / "src").mkdir()
    for text, message in ((PROGRAM.replace("Grüße", "Gruss"), "Begin with a greeting"), (PROGRAM, "Spell it right")):
        (source_dir / "src" / "greet.c").write_text(text)
        (source_dir / "README").write_text(f"{message}.\n")
        git("add", "--all", cwd=source_dir)
        git("commit", "--quiet", "--message", message, cwd=source_dir)
    git("tag", "--annotate", "--message", "First release", "v1.0", cwd=source_dir)
    for name in ("demo.git", "other.git"):
        git("clone", "--quiet", "--bare", source_dir, root / name)
        (root / name / "description").write_text(f"What {name} is for\n")
    return root, git("rev-parse", "HEAD", cwd=source_dir)


@pytest.fixture(params=["gunicorn", "waitress", "dev"])
def gitweb(
    request: pytest.FixtureRequest, site: Site, tmp_path: Path, repositories: tuple[Path, str]
) -> Iterator[Gitweb]:
    """gitweb on several kinds of server, configured through its environment."""
    root, commit = repositories
    config_file = tmp_path / "gitweb.conf"
    config_file.write_text(CONFIG.format(root=root))
    trust = "GIT_CONFIG_COUNT=1,GIT_CONFIG_KEY_0=safe.directory,GIT_CONFIG_VALUE_0=*"
    env = {"WSGICGI_ENV": f"GITWEB_CONFIG={config_file},{trust}"}
    with servers.serving(request.param, site.directory, tmp_path / "server.log", env=env) as server:
        yield Gitweb(server=server, commit=commit)


def test_project_list_names_every_repository(gitweb: Gitweb) -> None:
    """The program's first page shows what its configuration names: it got its environment."""
    page = gitweb.page("")
    for expected in ("Repositories of a test", "demo.git", "other.git", "What demo.git is for"):
        assert expected in page


def test_summary_shows_branch_tag_and_commits(gitweb: Gitweb) -> None:
    """A query with semicolons reaches the script as it was sent."""
    page = gitweb.page("?p=demo.git;a=summary")
    for expected in ("What demo.git is for", "Spell it right", "Begin with a greeting", "v1.0", "main", "A U Thor"):
        assert expected in page


def test_path_info_names_the_repository(gitweb: Gitweb) -> None:
    """Instead of a query, the extra path names repository, action and file (RFC 3875 section 4.1.5)."""
    assert "greet.c" in gitweb.page("/demo.git/tree/main:/src")
    assert "Spell it right" in gitweb.page("/demo.git/log")


def test_tree_lists_files(gitweb: Gitweb) -> None:
    """A directory of the repository shows its files, with links to them."""
    page = gitweb.page("?p=demo.git;a=tree;f=src;hb=HEAD")
    assert "greet.c" in page
    assert "a=blob;f=src/greet.c" in page


def test_blob_shows_the_file_as_text(gitweb: Gitweb) -> None:
    """A file's text arrives in UTF-8 and escaped."""
    assert "Grüße &amp; &lt;Küsse&gt;" in gitweb.page("?p=demo.git;a=blob;f=src/greet.c;hb=HEAD").replace("&nbsp;", " ")


def test_commitdiff_shows_both_sides(gitweb: Gitweb) -> None:
    """The change from one revision to the next shows the old line and the new."""
    page = gitweb.page(f"?p=demo.git;a=commitdiff;h={gitweb.commit}")
    assert "Spell it right" in page
    lines = html.unescape(re.sub(r"<[^>]*>", "", page)).replace("\N{NO-BREAK SPACE}", " ").splitlines()
    assert '-int main(void) { return puts("Gruss & <Küsse>") < 0; }' in lines
    assert '+int main(void) { return puts("Grüße & <Küsse>") < 0; }' in lines


def test_raw_blob_is_the_very_file(gitweb: Gitweb) -> None:
    """A raw file keeps every byte."""
    response, body = gitweb.server.get("/cgi-bin/gitweb.cgi?p=demo.git;a=blob_plain;f=src/greet.c;hb=HEAD")
    assert (response.status, body) == (200, PROGRAM.encode())
    assert response.getheader("Content-Type", "").startswith("text/")
    assert response.getheader("Content-Disposition") == 'inline; filename="src/greet.c"'


def test_snapshot_is_an_archive_of_the_tree(gitweb: Gitweb) -> None:
    """Binary output, made while it is sent, arrives whole and with the name that the script gave it."""
    response, body = gitweb.server.get("/cgi-bin/gitweb.cgi?p=demo.git;a=snapshot;h=v1.0;sf=tgz")
    assert response.status == 200
    assert response.getheader("Content-Type", "").startswith("application/x-gzip")
    assert "demo-v1.0" in response.getheader("Content-Disposition", "")
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        names = {Path(name).name for name in archive.getnames()}
        (member,) = (item for item in archive if item.name.endswith("greet.c"))
        extracted = archive.extractfile(member)
        assert extracted is not None and extracted.read() == PROGRAM.encode()
    assert {"README", "greet.c"} <= names


def test_unknown_repository_is_gitwebs_own_404(gitweb: Gitweb) -> None:
    """The script's status and its page reach the client together."""
    response, body = gitweb.server.get("/cgi-bin/gitweb.cgi?p=none.git;a=summary")
    assert (response.status, b"No such project" in body) == (404, True)


def test_unchanged_snapshot_is_not_sent_again(gitweb: Gitweb) -> None:
    """The script sees If-Modified-Since, and its 304 reaches the client without a body."""
    need_perl_module("HTTP::Date", package="libhttp-date-perl")  # without it gitweb never says 304
    target = "/cgi-bin/gitweb.cgi?p=demo.git;a=rss"
    first, _ = gitweb.server.get(target)
    again, body = gitweb.server.get(target, headers={"If-Modified-Since": first.getheader("Last-Modified", "")})
    assert (first.status, again.status, body) == (200, 304, b"")


def test_static_files_have_their_types(gitweb: Gitweb, site: Site) -> None:
    """What a page asks for beside the script comes from the same site, with the types that browsers insist on."""
    page, types = gitweb.page("?p=demo.git;a=summary"), {}
    for name in ("gitweb.css", "gitweb.js", "git-logo.png", "git-favicon.png"):
        assert f'"/gitweb/{name}"' in page
        response, body = gitweb.server.get(f"/gitweb/{name}")
        assert (response.status, body) == (200, (site.directory / "gitweb" / name).read_bytes())
        types[name.rpartition(".")[2]] = response.getheader("Content-Type", "").partition(";")[0]
    assert types == {"css": "text/css", "js": "text/javascript", "png": "image/png"}


# -- in a browser


def test_browser_shows_the_repository(gitweb: Gitweb, tmp_path: Path) -> None:
    """A browser loads the page with its script: gitweb.js makes dates change their zone at a click."""
    url = f"{gitweb.server.url}/cgi-bin/gitweb.cgi?p=demo.git;a=summary"
    dom = browse(tmp_path, "--dump-dom", url).decode()
    for expected in ("Repositories of a test", "What demo.git is for", "Spell it right", "v1.0"):
        assert expected in dom
    assert "Click to change timezone" in dom
    assert "Click to change timezone" not in gitweb.page("?p=demo.git;a=summary")


def test_browser_paints_the_page_in_its_colours(gitweb: Gitweb, tmp_path: Path) -> None:
    """The picture has the size that was asked for, text in it, and the grey bars of gitweb's style sheet."""
    screenshot_file = tmp_path / "screenshot.png"
    url = f"{gitweb.server.url}/cgi-bin/gitweb.cgi?p=demo.git;a=summary"
    browse(tmp_path, f"--screenshot={screenshot_file}", "--window-size=1100,800", "--hide-scrollbars", url)
    width, height, colours = read_png(screenshot_file.read_bytes())
    assert (width, height) == (1100, 800)
    assert len(colours) > 50  # a blank page has one
    assert colours[0xD9, 0xD8, 0xD1] > 1100 * 10  # .page_header, .title


def read_png(data: bytes) -> tuple[int, int, Counter[tuple[int, int, int]]]:
    """Width, height, and the number of pixels of each colour; for 8 bits of RGB or RGBA (PNG, sections 9 and 11)."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    compressed, position = b"", 8
    width = height = channels = 0
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        content = data[position + 8 : position + 8 + length]
        assert zlib.crc32(kind + content) == int.from_bytes(data[position + 8 + length :][:4])
        if kind == b"IHDR":
            width, height, depth, colour_type, _, _, interlace = struct.unpack(">IIBBBBB", content)
            assert (depth, interlace) == (8, 0)
            channels = {2: 3, 6: 4}[colour_type]
        elif kind == b"IDAT":
            compressed += content
        position += 12 + length
    rows, stride = zlib.decompress(compressed), width * channels
    assert len(rows) == height * (stride + 1)
    colours: Counter[tuple[int, int, int]] = Counter()
    above = bytearray(stride)
    for start in range(0, len(rows), stride + 1):
        above = _unfilter(rows[start], rows[start + 1 : start + 1 + stride], above, channels)
        colours.update(zip(above[0::channels], above[1::channels], above[2::channels], strict=True))
    return width, height, colours


def _unfilter(kind: int, row: bytes, above: bytearray, channels: int) -> bytearray:
    """Undo the filter of one row of a PNG (section 9.2)."""
    done = bytearray(channels) + row  # begins with the pixel left of the row, which counts as 0
    corners = bytes(channels) + above
    for index, value in enumerate(row):
        left, up = done[index], above[index]
        if kind == 1:
            predicted = left
        elif kind == 2:
            predicted = up
        elif kind == 3:
            predicted = (left + up) // 2
        elif kind == 4:
            predicted = _paeth(left, up, corners[index])
        else:
            break
        done[index + channels] = (value + predicted) & 255
    return done[channels:]


def _paeth(left: int, up: int, corner: int) -> int:
    """Whichever of the three is nearest to left + up - corner (section 9.4)."""
    by_left, by_up, by_corner = abs(up - corner), abs(left - corner), abs(left + up - corner - corner)
    if by_left <= by_up and by_left <= by_corner:
        return left
    return up if by_up <= by_corner else corner
