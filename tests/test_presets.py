"""Well-known programs through their presets: the files of ``deploy/programs``, and the clients that people use.

Only the place is another: what is below ``/srv`` there is below a directory of the tests here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import html
import http.client
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from programs import find, git
from servers import BIN, Server, gunicorn, running, wait_until, waitress
from werkzeug.security import generate_password_hash

from wsgicgi import ConfigError, presets

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the programs are POSIX systems'")

RECIPES = Path(__file__).parent.parent / "deploy" / "programs"
SECONDS = 120

WORLD = """\
MAP
  NAME "world"
  EXTENT -180 -90 180 90
  SIZE 400 200
  IMAGETYPE PNG
  IMAGECOLOR 170 200 255
  PROJECTION "init=epsg:4326" END
  WEB METADATA "ows_title" "World" "ows_srs" "EPSG:4326" "ows_enable_request" "*" END END
  LAYER
    NAME "squares" TYPE POLYGON STATUS ON
    PROJECTION "init=epsg:4326" END
    METADATA "ows_title" "Squares" END
    FEATURE POINTS -90 -45 90 -45 90 45 -90 45 -90 -45 END END
    CLASS STYLE COLOR 20 140 60 END END
  END
END
"""

PHP = r"""<?php
session_save_path(getenv('TMPDIR') ?: '/tmp');
switch ($_GET['a'] ?? '') {
case 'form': header('Content-Type: application/json');
  echo json_encode([$_POST, $_GET['x'], $_SERVER['REDIRECT_STATUS']]); break;
case 'upload': header('Content-Type: application/json');
  echo json_encode([$_FILES['f']['name'], $_FILES['f']['size'], hash_file('sha256', $_FILES['f']['tmp_name'])]); break;
case 'visit': session_start(); $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1; echo "visit ", $_SESSION['n']; break;
case 'go': header('Location: ' . $_GET['to']); break;
default: echo "php ", $_SERVER['SCRIPT_NAME'], " ", $_SERVER['PATH_INFO'] ?? '-', " ", PHP_SAPI;
}
"""

SHOP = """\
import hashlib
from flask import Flask, redirect, request, session, url_for
app = Flask(__name__)
app.secret_key = "of a test"

@app.get("/item/<name>")
def item(name):
    return f"{name} at {url_for('item', name=name, _external=True)}"

@app.post("/upload")
def upload():
    return {key: hashlib.sha256(file.read()).hexdigest() for key, file in request.files.items()} | request.form

@app.get("/visit")
def visit():
    session["n"] = session.get("n", 0) + 1
    return f"visit {session['n']}"

@app.get("/go")
def go():
    return redirect(url_for("item", name="a b"))
"""

DJANGO_SETTINGS = """\
SECRET_KEY = "of a test"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "project.urls"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
APPEND_SLASH = True
"""

DJANGO_URLS = """\
import hashlib
from django.http import JsonResponse, HttpResponse
from django.shortcuts import redirect
from django.urls import path, reverse

def upload(request):
    return JsonResponse({**request.POST.dict(), "f": hashlib.sha256(request.FILES["f"].read()).hexdigest()})

urlpatterns = [
    path("item/<name>/", lambda request, name: HttpResponse(name + " at " + request.build_absolute_uri()), name="item"),
    path("upload", upload),
    path("go", lambda request: redirect(reverse("item", args=["a b"]))),
]
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """A server with all the programs, and the directory that stands for ``/srv``."""

    server: Server
    srv: Path

    def get(self, target: str, status: int = 200, **fields: str) -> tuple[http.client.HTTPResponse, str]:
        """A page, in UTF-8."""
        response, body = self.server.get(target, headers=fields)
        assert response.status == status, f"{target}: {response.status}: {body[:2000]!r}\n{self.server.log[-2000:]}"
        return response, body.decode(errors="replace")

    def post_form(self, target: str, file: bytes | None = None, **values: str) -> str:
        """The answer to a form, with a file named "f" if one is given."""
        if file is None:
            return self._post(target, urllib.parse.urlencode(values).encode(), "application/x-www-form-urlencoded")
        lines = []
        for name, value in values.items():
            lines.append(f'--limit\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
        lines.append(b'--limit\r\nContent-Disposition: form-data; name="f"; filename="gr\xc3\xbcn.bin"\r\n\r\n')
        return self._post(target, b"".join([*lines, file, b"\r\n--limit--\r\n"]), "multipart/form-data; boundary=limit")

    def _post(self, target: str, body: bytes, kind: str) -> str:
        response, answer = self.server.request("POST", target, body, {"Content-Type": kind})
        assert response.status == 200, f"{target}: {response.status}: {answer[:2000]!r}\n{self.server.log[-2000:]}"
        return answer.decode()


def run(*words: str | Path, cwd: Path | None = None, **variables: str) -> str:
    """What a client prints."""
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd or "/nonexistent"), "LC_ALL": "C.UTF-8", "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        [*map(str, words)], cwd=cwd, env=env | variables, capture_output=True, timeout=SECONDS, stdin=subprocess.DEVNULL
    )
    text = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, f"{words}: {text[-3000:]}"
    return text


def hg(*words: str | Path, cwd: Path | None = None) -> str:
    """Run Mercurial with nobody's settings."""
    program = find("hg", package="mercurial")
    return run(program, "--config", "ui.username=A U Thor", *words, cwd=cwd, HGRCPATH="", USER="author")


def fossil(*words: str | Path, home: Path, cwd: Path | None = None) -> str:
    """Run Fossil; its settings are in ``home``."""
    return run(find("fossil", package="fossil"), *words, cwd=cwd, HOME=str(home), USER="admin")


def write(file: Path, text: str, mode: int = 0o644) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)


def install(srv: Path) -> None:
    """The files of ``deploy/programs``, each where it says that it is."""
    places = {".cgi": "apps", ".py": "."}
    for recipe in sorted(RECIPES.iterdir()):
        if recipe.is_file() and recipe.suffix != ".rst":
            name = "awstats/" + recipe.name if recipe.name.startswith("awstats") else recipe.name
            text = recipe.read_text().replace("/srv/apps/venv/bin/python", sys.executable).replace("/srv", str(srv))
            write(srv / places.get(recipe.suffix, "etc") / name, text, 0o755 if recipe.suffix == ".cgi" else 0o644)
    write(srv / "etc" / "git-users", f"ann:{generate_password_hash('secret')}\n")


def fill(srv: Path) -> None:
    """What the programs show: a repository of each kind, a map, a log, applications."""
    for name in ("git", "hg", "fossil", "awstats", "tmp"):
        (srv / name).mkdir(parents=True)
    write(srv / "etc" / "mercurial" / "__init__.py", "raise SystemExit('a module beside a configuration file')")
    make_git(srv / "git" / "demo.git", srv / "tmp" / "git")
    make_hg(srv / "hg" / "demo")
    fossil("init", "--admin-user", "admin", srv / "fossil" / "demo.fossil", home=srv / "tmp")
    fossil("user", "password", "admin", "secret", "-R", srv / "fossil" / "demo.fossil", home=srv / "tmp")
    # else a process of it waits for a minute after a push, for what else there may be to do
    fossil("setting", "backoffice-nodelay", "on", "-R", srv / "fossil" / "demo.fossil", home=srv / "tmp")
    write(srv / "maps" / "world.map", WORLD)
    write(srv / "secret" / "other.map", WORLD)
    lines = [
        f'10.1.0.{number % 30} - - [0{1 + number // 100}/Mar/2024:00:00:00 +0000] "GET /page{number % 7}.html HTTP/1.1"'
        f' 200 1000 "-" "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0"\n'
        for number in range(600)
    ]
    write(srv / "log" / "access.log", "".join(lines))
    write(srv / "site" / "shop" / "index.php", PHP)
    write(srv / "apps" / "shop.py", SHOP)
    write(srv / "apps" / "project" / "__init__.py", "")
    write(srv / "apps" / "project" / "settings.py", DJANGO_SETTINGS)
    write(srv / "apps" / "project" / "urls.py", DJANGO_URLS)


def make_git(bare_dir: Path, source_dir: Path) -> None:
    git("init", "--quiet", "--initial-branch=main", source_dir)
    for number in range(3):
        (source_dir / "greet.c").write_text(f'int main(void) {{ return puts("Grüße {number}"); }}\n')
        git("add", "--all", cwd=source_dir)
        git("commit", "--quiet", "--message", f"Change {number}", cwd=source_dir)
    git("clone", "--quiet", "--bare", source_dir, bare_dir)
    (bare_dir / "description").write_text("What demo.git is for\n")


def make_hg(place: Path) -> None:
    hg("init", place)
    (place / "data.bin").write_bytes(bytes(range(256)) * 1000)
    (place / "readme").write_text("Grüße\n")
    hg("commit", "--addremove", "--quiet", "--message", "Änderung", cwd=place)


@contextlib.contextmanager
def serving(kind: str, srv: Path, module: str = "programs", **variables: str) -> Iterator[Server]:
    """gunicorn or waitress on a file of ``deploy/programs``."""
    log_file, target = srv / f"{kind}-{module}.log", f"{module}:application"
    env = {"TMPDIR": str(srv / "tmp"), "WSGICGI_PASS_ENV": "TMPDIR", **variables}
    make = {"gunicorn": gunicorn, "waitress": waitress}[kind]
    options = ["-w", "2"] if kind == "gunicorn" else []
    with make(target, log_file, options=options, cwd=srv, env=env) as server:  # type: ignore[operator]
        yield server


@contextlib.contextmanager
def made() -> Iterator[Path]:
    """A directory for ``/srv``, where other users may look too."""
    for name, package in (
        ("/usr/lib/cgit/cgit.cgi", "cgit"),
        ("/usr/share/gitweb/gitweb.cgi", "gitweb"),
        ("/usr/lib/cgi-bin/awstats.pl", "awstats"),
        ("mapserv", "mapserver-bin"),
        ("php-cgi", "php-cgi"),
        ("fossil", "fossil"),
        ("hg", "mercurial"),
        ("git", "git"),
    ):
        find(name, package=package)
    with tempfile.TemporaryDirectory(prefix="wsgicgi-srv-") as name:
        place = Path(name).resolve() / "srv"
        place.parent.chmod(0o755)
        fill(place)
        install(place)
        yield place


@pytest.fixture(scope="module")
def srv() -> Iterator[Path]:
    """One for all tests that do not change what it is about."""
    with made() as place:
        yield place


@pytest.fixture(scope="module", params=["gunicorn", "waitress"])
def programs(request: pytest.FixtureRequest, srv: Path) -> Iterator[Programs]:
    """All programs in a server."""
    with serving(request.param, srv) as server:
        yield Programs(server=server, srv=srv)


def links(page: str) -> list[str]:
    """The addresses that a page names."""
    return [html.unescape(link) for link in re.findall(r"""(?:href|src)=['"]([^'"]+)""", page)]


# -- git


@pytest.mark.parametrize("options", [(), ("--depth=1",), ("--filter=blob:none",)], ids=["whole", "shallow", "partial"])
def test_git_clones(programs: Programs, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Also repositories of another owner, in protocol 2, which a header field asks for."""
    trace_file = tmp_path / "trace"
    url = f"{programs.server.url}/git/demo.git"
    git("clone", "--quiet", *options, url, tmp_path / "clone", variables={"GIT_TRACE_PACKET": str(trace_file)})
    git("fsck", cwd=tmp_path / "clone")
    assert git("rev-list", "--count", "HEAD", cwd=tmp_path / "clone") == ("1" if "--depth=1" in options else "3")
    assert "version 2" in trace_file.read_text(errors="replace")


def test_git_refuses_pushes_unless_they_are_asked_for(programs: Programs, tmp_path: Path) -> None:
    """The default is read-only, whatever a repository says."""
    git("clone", "--quiet", f"{programs.server.url}/git/demo.git", tmp_path / "clone")
    git("config", "http.receivepack", "true", cwd=programs.srv / "git" / "demo.git")
    with pytest.raises(AssertionError, match="403"):
        git("push", "--quiet", "origin", "HEAD:refs/heads/new", cwd=tmp_path / "clone")


@pytest.mark.parametrize("kind", ["gunicorn", "waitress"])
def test_git_pushes_by_users_with_a_password(srv: Path, tmp_path: Path, kind: str) -> None:
    """``git_users.py``: everybody clones; a push needs a user, and a large one comes in chunks."""
    with serving(kind, srv, "git_users") as server:
        url = f"{server.url}/demo.git"
        git("clone", "--quiet", url, tmp_path / "clone")
        (tmp_path / "clone" / "large").write_bytes(os.urandom(3_000_000))
        git("add", "large", cwd=tmp_path / "clone")
        git("commit", "--quiet", "--message", "Large", cwd=tmp_path / "clone")
        push = ("push", "--quiet", "origin", f"HEAD:refs/heads/{kind}")
        with pytest.raises(AssertionError, match=r"could not read Username|terminal prompts disabled"):
            git(*push, cwd=tmp_path / "clone")
        for credentials, refusal in (("ann:wrong", "Authentication failed"), ("ann:secret", None)):
            git("remote", "set-url", "origin", url.replace("//", f"//{credentials}@"), cwd=tmp_path / "clone")
            if refusal:
                with pytest.raises(AssertionError, match=refusal):
                    git(*push, cwd=tmp_path / "clone")
            else:
                git(*push, cwd=tmp_path / "clone")
    head = git("rev-parse", "HEAD", cwd=tmp_path / "clone")
    assert git("rev-parse", f"refs/heads/{kind}", cwd=srv / "git" / "demo.git") == head


def test_git_takes_compressed_requests(programs: Programs) -> None:
    """With the protocol's version in a header field, both as they were sent."""
    pkt = b"0014command=ls-refs\n0000"
    fields = {"Content-Type": "application/x-git-upload-pack-request", "Git-Protocol": "version=2"}
    target = "/git/demo.git/git-upload-pack"
    plain, refs = programs.server.request("POST", target, pkt, fields)
    packed, same = programs.server.request("POST", target, gzip.compress(pkt), fields | {"Content-Encoding": "gzip"})
    assert (plain.status, packed.status, same) == (200, 200, refs)
    assert b" refs/heads/main\n" in refs


# -- pages of repositories


@pytest.mark.parametrize(
    ("mount", "pages"),
    [
        (
            "/gitweb",
            {"": "What demo.git is for", "?p=demo.git;a=log": "Change 2", "/demo.git/blob/HEAD:/greet.c": "Grüße 2"},
        ),
        ("/cgit", {"/": "What demo.git is for", "/demo.git/log/": "Change 2", "/demo.git/tree/greet.c": "Grüße 2"}),
    ],
)
def test_pages_of_repositories(programs: Programs, mount: str, pages: dict[str, str]) -> None:
    """Text, and all that a page loads: style sheet, script, pictures."""
    loaded = set()
    for path, expected in pages.items():
        _, page = programs.get(mount + path)
        assert expected in page.replace("&nbsp;", " ")
        files = [urllib.parse.urljoin(mount + path, link) for link in links(page) if "/static/" in link]
        for target in files:
            response, _ = programs.get(target)
            loaded.add(response.getheader("Content-Type", "").partition(";")[0])
    assert {"text/css", "image/png"} <= loaded
    programs.get(f"{mount}/static/../../../etc/gitweb.conf", 404)


def test_cgit_and_gitweb_give_whole_archives(programs: Programs) -> None:
    """Made while they are sent."""
    for target in ("/gitweb/demo.git/blob_plain/HEAD:/greet.c", "/cgit/demo.git/plain/greet.c"):
        _, text = programs.get(target)
        assert text == 'int main(void) { return puts("Grüße 2"); }\n'
    response, body = programs.server.get("/cgit/demo.git/snapshot/demo-main.tar.gz")
    assert (response.status, body[:2]) == (200, b"\x1f\x8b")


# -- Fossil


def test_fossil_lists_clones_and_takes_what_is_committed(programs: Programs, tmp_path: Path) -> None:
    """A commit in a clone is in the repository's time line, by Fossil's own login."""
    assert "demo" in programs.get("/fossil/")[1]
    url = programs.server.url.replace("//", "//admin:secret@") + "/fossil/demo"
    fossil("clone", "--save-http-password", url, tmp_path / "clone.fossil", home=tmp_path)
    (tmp_path / "work").mkdir()
    fossil("open", tmp_path / "clone.fossil", "--workdir", tmp_path / "work", home=tmp_path)
    message = f"through {programs.server.port}"
    name = f"hello-{programs.server.port}"
    (tmp_path / "work" / name).write_bytes(os.urandom(300_000))
    fossil("add", name, home=tmp_path, cwd=tmp_path / "work")
    told = fossil("commit", "-m", message, "--no-warnings", home=tmp_path, cwd=tmp_path / "work")
    assert "New_Version" in told and "error" not in told.lower()
    assert message in programs.get("/fossil/demo/timeline")[1]


# -- Mercurial


def test_hg_clones_and_pushes(programs: Programs, tmp_path: Path) -> None:
    """Byte for byte, with names and messages in UTF-8."""
    url = f"{programs.server.url}/hg/demo"
    hg("clone", "--quiet", url, tmp_path / "clone")
    assert (tmp_path / "clone" / "data.bin").read_bytes() == bytes(range(256)) * 1000
    (tmp_path / "clone" / f"new-{programs.server.port}").write_text("new\n")
    hg("commit", "--addremove", "--quiet", "--message", f"pushed to {programs.server.port}", cwd=tmp_path / "clone")
    assert "added 1 changesets" in hg("push", cwd=tmp_path / "clone")
    page = programs.get("/hg/demo/log")[1]
    assert f"pushed to {programs.server.port}" in page and "Änderung" in page


# -- MapServer


def test_mapserver_draws_the_map_that_it_may(programs: Programs) -> None:
    """By the name of the configuration; a file outside of what that allows is refused."""
    fields = {"SERVICE": "WMS", "VERSION": "1.1.1", "LAYERS": "squares", "STYLES": "", "SRS": "EPSG:4326"}
    fields |= {"BBOX": "-180,-90,180,90", "WIDTH": "300", "HEIGHT": "150", "FORMAT": "image/png", "REQUEST": "GetMap"}
    query = urllib.parse.urlencode({"map": "WORLD", **fields})
    response, body = programs.server.get(f"/maps?{query}")
    assert (response.status, response.getheader("Content-Type")) == (200, "image/png"), body[:500]
    assert struct.unpack(">II", body[16:24]) == (300, 150)
    capabilities = programs.get("/maps?map=WORLD&SERVICE=WMS&VERSION=1.3.0&REQUEST=GetCapabilities")[1]
    assert ET.fromstring(capabilities.encode()) is not None and "<Name>squares</Name>" in capabilities
    assert f"{programs.server.url}/maps?" in html.unescape(capabilities)
    refused = programs.server.get(f"/maps?map={programs.srv}/secret/other.map&SERVICE=WMS&REQUEST=GetCapabilities")[1]
    assert b"squares" not in refused


# -- AWStats


def test_awstats_shows_the_figures_of_a_log(programs: Programs) -> None:
    """Read by the command of its configuration's second line; every picture and link of the page leads somewhere."""
    config_dir = programs.srv / "etc" / "awstats"
    update = ("-config=example", f"-configdir={config_dir}", "-update")
    run(find("/usr/lib/cgi-bin/awstats.pl", package="awstats"), *update, cwd=programs.srv)
    query = f"?config=example&configdir={config_dir}&month=03&year=2024"
    _, page = programs.get(f"/awstats{query}")
    assert "Statistics for www.example.org" in page
    assert re.search(r"\b600\b", re.sub(r"<[^>]+>", " ", page))
    pictures = {link for link in links(page) if link.startswith("/awstats/static/")}
    further = {link for link in links(page) if link.startswith("/awstats?") and "output=urldetail" in link}
    assert pictures and further
    for link in [*sorted(pictures)[:5], *sorted(further)[:1]]:
        programs.get(link)
    assert "/page6.html" in programs.get(f"/awstats{query}&output=urldetail")[1]


def test_awstats_reads_no_other_configuration(programs: Programs) -> None:
    """The directory is that of the preset, not one that has its name within."""
    other = f"{programs.srv}/etc/awstats/../../secret"
    assert "is possible only if" in programs.get(f"/awstats?config=example&configdir={other}")[1]


# -- PHP


def test_php_pages_forms_uploads_sessions_and_redirects(programs: Programs) -> None:
    """php-cgi runs .php files of a directory as they are: no x bit, no first line."""
    assert programs.get("/shop/index.php/a%20b?q")[1] == "php /shop/index.php /a b cgi-fcgi"
    assert programs.get("/shop/")[1].startswith("php /shop/")
    form = json.loads(programs.post_form("/shop/index.php?a=form&x=1", name="Jürgen", t="a+b&c=d"))
    assert form == [{"name": "Jürgen", "t": "a+b&c=d"}, "1", "200"]
    data = os.urandom(5_000_000)  # above php.ini's 2 MB
    assert json.loads(programs.post_form("/shop/index.php?a=upload", data))[:2] == ["grün.bin", len(data)]
    response, text = programs.get("/shop/index.php?a=visit")
    cookie = response.getheader("Set-Cookie", "").partition(";")[0]
    assert (text, programs.get("/shop/index.php?a=visit", Cookie=cookie)[1]) == ("visit 1", "visit 2")
    response, _ = programs.get("/shop/index.php?a=go&to=https://example.org/", 302)
    assert response.getheader("Location") == "https://example.org/"


@pytest.mark.parametrize("query", ["-s", "-d+allow_url_include%3d1", "%ad-s", "-n"])
def test_php_takes_no_options_from_the_query(programs: Programs, query: str) -> None:
    """CVE-2012-1823, CVE-2024-4577."""
    assert programs.get(f"/shop/index.php?{query}")[1] == "php /shop/index.php - cgi-fcgi"


# -- Flask and Django by CGIHandler


@pytest.mark.parametrize("mount", ["/flask", "/django"])
def test_wsgi_application_as_a_script(programs: Programs, mount: str) -> None:
    """It finds its own URLs, gets uploads and forms whole, and its redirects are the client's."""
    slash = "/" if mount == "/django" else ""
    url = f"{programs.server.url}{mount}/item/a%20b{slash}"
    assert programs.get(f"{mount}/item/a%20b{slash}")[1] == f"a b at {url}"
    data = os.urandom(400_000)
    told = json.loads(programs.post_form(f"{mount}/upload", data, note="Grüße"))
    assert told == {"f": hashlib.sha256(data).hexdigest(), "note": "Grüße"}
    response, _ = programs.get(f"{mount}/go", 302)
    assert response.getheader("Location", "").removeprefix(programs.server.url) == f"{mount}/item/a%20b{slash}"
    programs.get(f"{mount}/nothing", 404)


def test_flask_session_is_kept(programs: Programs) -> None:
    """By a signed cookie."""
    response, text = programs.get("/flask/visit")
    cookie = response.getheader("Set-Cookie", "").partition(";")[0]
    assert (text, programs.get("/flask/visit", Cookie=cookie)[1]) == ("visit 1", "visit 2")


# -- whom they run as


def chown(place: Path, user: str) -> None:
    """Give a directory and all below it to somebody."""
    for path in (place, *place.rglob("*")):
        shutil.chown(path, user, user)


@pytest.mark.root_only
def test_root_pushes_to_what_belongs_to_whom_the_programs_run_as(tmp_path: Path) -> None:
    """A server of root's, ``run_as`` the owner of the repositories: git and Mercurial write them as that user."""
    with made() as srv:
        for name in ("git", "hg", "fossil", "tmp"):
            chown(srv / name, "www-data")
        with serving("gunicorn", srv, "git_users", WSGICGI_RUN_AS="www-data") as server:
            url = f"{server.url}/demo.git".replace("//", "//ann:secret@")
            git("clone", "--quiet", url, tmp_path / "git")
            git("push", "--quiet", "origin", "HEAD:refs/heads/new", cwd=tmp_path / "git")
        with serving("waitress", srv, WSGICGI_RUN_AS="www-data") as server:
            hg("clone", "--quiet", f"{server.url}/hg/demo", tmp_path / "hg")
            (tmp_path / "hg" / "new").write_text("new\n")
            hg("commit", "--addremove", "--quiet", "--message", "new", cwd=tmp_path / "hg")
            hg("push", cwd=tmp_path / "hg")
            fossil("clone", f"{server.url}/fossil/demo", tmp_path / "x.fossil", home=tmp_path)
        new = [
            srv / "git" / "demo.git" / "refs" / "heads" / "new",
            srv / "hg" / "demo" / ".hg" / "store" / "data" / "new.i",
        ]
        assert [path.owner() for path in new] == ["www-data", "www-data"]


@pytest.mark.root_only
def test_root_without_run_as_gives_away_repositories_to_read_only(tmp_path: Path) -> None:
    """As ``nobody``: everybody's repositories can be cloned; a push is refused, and the log has git's reason."""
    with made() as srv:
        with serving("waitress", srv, WSGICGI_RUN_AS="auto") as server:
            git("clone", "--quiet", f"{server.url}/git/demo.git", tmp_path / "git")
            assert "What demo.git is for" in server.get("/gitweb")[1].decode()
            assert "Change 2" in server.get("/cgit/demo.git/log/")[1].decode()
        with serving("waitress", srv, "git_users", WSGICGI_RUN_AS="auto") as server:
            refused, _ = server.get("/demo.git/info/refs?service=git-upload-pack")
            wait_until(lambda: "dubious ownership" in server.log, "git's message is in the log")
        assert refused.status >= 400


# -- the patterns


@pytest.mark.parametrize("name", sorted(path.name for path in RECIPES.iterdir() if path.is_file()))
def test_pattern_begins_with_what_it_is_for_and_how_to_start(name: str) -> None:
    """Two lines that a newcomer can act on, in a script below its first."""
    lines = [line for line in (RECIPES / name).read_text().splitlines()[:3] if not line.startswith("#!")]
    assert lines[0].startswith("# What for: ")
    assert lines[1].startswith("# Start: ")


@pytest.mark.parametrize("name", ["programs", "git_users"])
def test_pattern_starts_by_its_second_line(srv: Path, name: str) -> None:
    """As it is written, in a directory that has ``deploy/programs``; only the port is another."""
    line = (RECIPES / f"{name}.py").read_text().splitlines()[1].removeprefix("# Start: ")
    (srv / "deploy" / "programs").mkdir(parents=True, exist_ok=True)
    shutil.copy(srv / f"{name}.py", srv / "deploy" / "programs")
    words = shlex.split(line)
    command = [BIN / words[0], "-b", "127.0.0.1:0", *words[1:]]
    with running(command, r"Listening at: http://127\.0\.0\.1:(\d+)", srv / "start.log", cwd=srv) as server:
        target = "/git/demo.git" if name == "programs" else "/demo.git"
        assert server.get(f"{target}/info/refs?service=git-upload-pack")[0].status == 200


# -- what is wrong is told when it is made


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda here: presets.git(here, push="all"), "push='all': expected 'users', 'anyone', or None for nobody"),
        (lambda here: presets.git(here / "none"), r"presets.git: root: there is no directory '.*none': create it"),
        (lambda here: presets.gitweb(here / "none"), r"presets.gitweb: config: there is no file '.*none': write it"),
        (lambda here: presets.cgit(here), r"presets.cgit: config: there is no file"),
        (lambda here: presets.fossil(here / "none"), "presets.fossil: control_file: there is no file"),
        (lambda here: presets.hgweb(here / "none"), "presets.hgweb: config: there is no file"),
        (lambda here: presets.mapserver(here / "none"), "presets.mapserver: config: there is no file"),
        (lambda here: presets.awstats(here / "none"), "presets.awstats: config_dir: there is no directory"),
        (lambda here: presets.git(here, timout=3), "Did you mean 'timeout'"),
        (lambda here: presets.git(here, env="x"), "env='x': expected pairs"),
        (
            lambda here: presets.git(here, program=here / "none"),
            "there is no file '.*none': give the path of a program",
        ),
    ],
)
def test_wrong_settings_are_told_at_start(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    """With what to write instead."""
    with pytest.raises(ConfigError, match=message):
        make(tmp_path)


@pytest.mark.parametrize(
    ("make", "package"),
    [
        (lambda file: presets.git(file.parent), "git"),
        (presets.gitweb, "gitweb"),
        (presets.cgit, "cgit"),
        (presets.fossil, "fossil"),
        (presets.hgweb, "mercurial"),
        (presets.mapserver, "cgi-mapserver"),
        (lambda file: presets.awstats(), "awstats"),
    ],
)
def test_missing_program_is_told_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object], package: str
) -> None:
    """And how to say where it is."""
    (tmp_path / "config").write_text("")
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("_GIT_PLACES", "_GITWEB_PLACES", "_CGIT_PLACES", "_AWSTATS_PLACES", "_MAPSERVER_PLACES"):
        monkeypatch.setattr(presets, name, ())
    with pytest.raises(ConfigError, match=rf"install the package .*{package}.*, or say (program|python)= where it is"):
        make(tmp_path / "config")


def test_hg_that_is_no_python_script_needs_to_be_told_its_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has Mercurial cannot be known then."""
    write(tmp_path / "hg", "#!/bin/sh\n", 0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="is no Python script: say python= which Python has Mercurial"):
        presets.hgweb(tmp_path / "hg")


def test_settings_of_the_user_win_over_those_of_a_preset(srv: Path) -> None:
    """``env`` is added to; everything else takes the preset's place."""
    app = presets.git(srv / "git", timeout=5, max_body_bytes="4G", env={"GIT_HTTP_EXPORT_ALL": "", "X": "1"})
    app.close()
    assert (app.config.timeout, app.config.max_body_bytes) == (5.0, 4 * 2**30)
    assert app.config.env["GIT_PROJECT_ROOT"] == str(srv / "git")
    assert (app.config.env["GIT_HTTP_EXPORT_ALL"], app.config.env["X"]) == ("", "1")
