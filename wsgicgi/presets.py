"""Settings for programs that many people run: each function gives a ``CGIScript`` to be mounted in any WSGI stack.

They find the program where the systems' packages put it, and say what it needs and would not tell: variables, time,
the files that its pages ask for. Further keywords are settings, and win; ``env`` is added to.

Programs run as whom ``run_as`` says: what they read and write must be theirs to read and write.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, NotFound, error_response
from .middleware import CGIScript
from .static import StaticMiddleware

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    AnyPath = str | os.PathLike[str]

#: Seconds that a program may be silent which reads a whole repository before it says anything.
REPOSITORY_TIMEOUT = 300

#: Where the pages of a preset find their style sheets and pictures, below its mount point.
FILES_PATH = "/static"

# Debian, Arch; Fedora, Alpine, Gentoo; openSUSE; FreeBSD; Homebrew on both kinds of Mac; Apple's own
_GIT_PLACES = (
    "/usr/lib/git-core",
    "/usr/libexec/git-core",
    "/usr/lib/git",
    "/usr/local/libexec/git-core",
    "/opt/homebrew/opt/git/libexec/git-core",
    "/usr/local/opt/git/libexec/git-core",
    "/Library/Developer/CommandLineTools/usr/libexec/git-core",
)
# Debian, Arch, Alpine; Fedora; FreeBSD; openSUSE
_GITWEB_PLACES = ("/usr/share/gitweb", "/var/www/git", "/usr/local/share/examples/git/gitweb", "/srv/www/gitweb")
# Debian, Arch; Alpine; Fedora; FreeBSD
_CGIT_PLACES = ("/usr/lib/cgit", "/usr/share/webapps/cgit", "/var/www/cgi-bin", "/usr/local/www/cgit")
_CGIT_FILES = ("/usr/share/cgit", "/usr/share/webapps/cgit", "/usr/local/www/cgit")
# Debian; Fedora; Arch; FreeBSD
_AWSTATS_PLACES = (
    "/usr/lib/cgi-bin",
    "/usr/share/awstats/wwwroot/cgi-bin",
    "/usr/share/webapps/awstats/cgi-bin",
    "/usr/local/www/awstats/cgi-bin",
)
_AWSTATS_FILES = (
    "/usr/share/awstats/icon",
    "/usr/share/awstats/wwwroot/icon",
    "/usr/share/webapps/awstats/icon",
    "/usr/local/www/awstats/icons",
)
# Debian, with Apache's package and without; Fedora
_MAPSERVER_PLACES = ("/usr/lib/cgi-bin", "/usr/libexec/mapserver", "/usr/libexec")

# git refuses what belongs to others, but when this is said outside of the repositories (git-config(1), safe.directory)
_ANY_OWNER = {"safe.directory": "*"}

# what Mercurial's own hgweb.cgi does, with the configuration file as its argument; never a module from where it is
_HGWEB = (
    "import os, sys; sys.path = [place for place in sys.path if place];"
    " from mercurial.hgweb import hgweb, wsgicgi; wsgicgi.launch(hgweb(os.fsencode(sys.argv[1])))"
)


class ScriptWithFiles(CGIScript):
    """A program, and a directory of files that its pages ask for.

    Args:
        file: The program.
        files: The directory, served at ``FILES_PATH`` below the mount point; None: there is none.
        settings: As of ``CGIScript``.
    """

    def __init__(self, file: AnyPath, *, files: AnyPath | None, **settings: Any) -> None:
        super().__init__(file, **settings)
        self._files = None
        if files is not None:
            self._files = StaticMiddleware(
                _not_found, files, config=self.config, directory_listing=False, follow_symlinks=True
            )

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        path = environ.get("PATH_INFO", "")
        if self._files is None or not path.startswith(FILES_PATH + "/"):
            return super().__call__(environ, start_response)
        below = {
            **environ,
            "SCRIPT_NAME": environ.get("SCRIPT_NAME", "") + FILES_PATH,
            "PATH_INFO": path.removeprefix(FILES_PATH),
        }
        return self._files(below, start_response)


def git(
    root: AnyPath,
    *,
    push: str | None = None,
    export_all: bool = True,
    any_owner: bool | None = None,
    program: AnyPath | None = None,
    **settings: object,
) -> CGIScript:
    """Repositories that git clones from and pushes to: ``git http-backend`` over a directory of them.

    Args:
        root: Where the repositories are.
        push: Who may push: "users", those whom the application around it has let in (``REMOTE_USER``); "anyone"; None,
            nobody.
        export_all: All repositories; else only those with a file ``git-daemon-export-ok``.
        any_owner: Also repositories that do not belong to whom it runs as, which git refuses. Default: unless ``push``
            is given, for a push runs hooks: who may write one of the repositories could do all that this user can.
        program: ``git-http-backend``; default: where packages put it.
        settings: As of ``CGIScript``.

    Raises:
        ConfigError: A setting is wrong, or the program is not here.
    """
    if push not in (None, "users", "anyone"):
        raise ConfigError(f"presets.git: push={push!r}: expected 'users', 'anyone', or None for nobody")
    found = program or _find("git-http-backend", _git_places(), "git (Alpine: git-daemon)", preset="git")
    options = {"users": {}, "anyone": {"http.receivepack": "true"}, None: {"http.receivepack": "false"}}[push]
    if any_owner is None:
        any_owner = push is None
    if any_owner:
        options = {**options, **_ANY_OWNER}
    env = {"GIT_PROJECT_ROOT": _directory(root, "presets.git: root"), **_git_options(options)}
    if export_all:
        env["GIT_HTTP_EXPORT_ALL"] = "1"
    return CGIScript(found, **_settings(settings, env, timeout=REPOSITORY_TIMEOUT))


def gitweb(config: AnyPath, *, any_owner: bool = True, program: AnyPath | None = None, **settings: object) -> CGIScript:
    """Repositories as pages: gitweb, with its style sheet, script and pictures at ``FILES_PATH``.

    Args:
        config: Its configuration file, in Perl; it takes the place of ``/etc/gitweb.conf``.
        any_owner: Also repositories that do not belong to whom it runs as, which git refuses.
        program: ``gitweb.cgi``; default: where packages put it.
        settings: As of ``CGIScript``.

    Raises:
        ConfigError: A setting is wrong, or the program is not here.
    """
    found = program or _find("gitweb.cgi", _GITWEB_PLACES, "gitweb (Arch: git)", preset="gitweb")
    env = {"GITWEB_CONFIG": _file(config, "presets.gitweb: config"), **_owners(any_owner=any_owner)}
    files = _first_directory([Path(found).resolve().parent / "static"])
    return ScriptWithFiles(found, files=files, **_settings(settings, env, timeout=REPOSITORY_TIMEOUT))


def cgit(config: AnyPath, *, any_owner: bool = True, program: AnyPath | None = None, **settings: object) -> CGIScript:
    """Repositories as pages: cgit, with its style sheet and pictures at ``FILES_PATH``.

    Args:
        config: Its configuration file; it takes the place of ``/etc/cgitrc``.
        any_owner: Also repositories that do not belong to whom it runs as, which cgit shows as empty.
        program: ``cgit.cgi``; default: where packages put it.
        settings: As of ``CGIScript``.

    Raises:
        ConfigError: A setting is wrong, or the program is not here.
    """
    found = program or _find("cgit.cgi", _CGIT_PLACES, "cgit", preset="cgit", also="cgit")
    env = {"CGIT_CONFIG": _file(config, "presets.cgit: config"), **_owners(any_owner=any_owner)}
    return ScriptWithFiles(
        found, files=_first_directory(_CGIT_FILES), **_settings(settings, env, timeout=REPOSITORY_TIMEOUT)
    )


def fossil(control_file: AnyPath, *, program: AnyPath | None = None, **settings: object) -> CGIScript:
    """A Fossil repository, or several: pages, clone and sync.

    Args:
        control_file: As of ``fossil cgi``: a line such as ``repository: /srv/project.fossil``; it need not be
            executable. Whom it runs as writes the repository and the directory that this is in.
        program: ``fossil``; default: that on PATH.
        settings: As of ``CGIScript``.

    Raises:
        ConfigError: A setting is wrong, or the program is not here.
    """
    found = program or _find("fossil", (), "fossil", preset="fossil")
    control = _file(control_file, "presets.fossil: control_file")
    return CGIScript(control, args=[os.fspath(found)], **_settings(settings, {}, timeout=REPOSITORY_TIMEOUT))


def hgweb(config: AnyPath, *, python: AnyPath | None = None, **settings: object) -> CGIScript:
    """Mercurial repositories: pages, clone and push.

    Args:
        config: The configuration file of ``hgweb``, with a section ``[paths]``.
        python: The Python that has Mercurial; default: that of the ``hg`` on PATH.
        settings: As of ``CGIScript``.

    Raises:
        ConfigError: A setting is wrong, or the program is not here.
    """
    interpreter = [os.fspath(python)] if python else _python_of_hg()
    # the names and messages of repositories are in UTF-8, whatever the server's language is
    env = {"HGENCODING": "UTF-8"}
    return CGIScript(
        _file(config, "presets.hgweb: config"),
        args=[*interpreter, "-c", _HGWEB],
        **_settings(settings, env, timeout=REPOSITORY_TIMEOUT),
    )


def mapserver(
    config: AnyPath, *, mapfile: AnyPath | None = None, program: AnyPath | None = None, **settings: object
) -> CGIScript:
    """Maps and geographic data (WMS, WFS): MapServer.

    Args:
        config: Its configuration file, ``mapserver.conf``, which says what map files may be asked for.
        mapfile: The one that is shown when a request names none.
        program: ``mapserv``; default: where packages put it.
        settings: As of ``CGIScript``.

    Raises:
        ConfigError: A setting is wrong, or the program is not here.
    """
    found = program or _find("mapserv", _MAPSERVER_PLACES, "mapserver-bin or cgi-mapserver", preset="mapserver")
    env = {"MAPSERVER_CONFIG_FILE": _file(config, "presets.mapserver: config")}
    if mapfile is not None:
        env["MS_MAPFILE"] = _file(mapfile, "presets.mapserver: mapfile")
    return CGIScript(found, **_settings(settings, env))


def awstats(config_dir: AnyPath | None = None, *, program: AnyPath | None = None, **settings: object) -> CGIScript:
    """Statistics of a web server's log: AWStats, with its pictures at ``FILES_PATH``.

    Args:
        config_dir: Where ``awstats.NAME.conf`` files are, for requests with ``?config=NAME&configdir=`` and this
            directory; default: only ``/etc/awstats``, where they need no ``configdir``.
        program: ``awstats.pl``; default: where packages put it.
        settings: As of ``CGIScript``.

    Raises:
        ConfigError: A setting is wrong, or the program is not here.
    """
    found = program or _find("awstats.pl", _AWSTATS_PLACES, "awstats", preset="awstats")
    env = {}
    if config_dir is not None:
        # it takes this for a pattern, and looks for it anywhere in what it is asked for
        env["AWSTATS_ENABLE_CONFIG_DIR"] = f"^{re.escape(_directory(config_dir, 'presets.awstats: config_dir'))}/?\\z"
    return ScriptWithFiles(found, files=_first_directory(_AWSTATS_FILES), **_settings(settings, env))


def _settings(given: Mapping[str, object], env: Mapping[str, str], **defaults: object) -> dict[str, Any]:
    """A preset's settings and the user's, which win; Any: ``CGIScript`` checks them."""
    own_env = given.get("env", {})
    both = {**env, **own_env} if isinstance(own_env, Mapping) else own_env
    return {**defaults, **given, "env": both}


def _git_options(options: Mapping[str, str]) -> dict[str, str]:
    """Variables that set options of git's for one process and its children (git-config(1), GIT_CONFIG_COUNT)."""
    env = {"GIT_CONFIG_COUNT": str(len(options))} if options else {}
    for number, (name, value) in enumerate(options.items()):
        env |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return env


def _owners(*, any_owner: bool) -> dict[str, str]:
    return _git_options(_ANY_OWNER if any_owner else {})


def _git_places() -> Iterable[str]:
    """Where git keeps its programs: beside the ``git`` on PATH, and where packages put them."""
    found = shutil.which("git")
    prefix = Path(found).resolve().parent.parent if found else None
    beside = [str(prefix / name / "git-core") for name in ("libexec", "lib")] if prefix else []
    return (*beside, *_GIT_PLACES)


def _find(name: str, places: Iterable[str], package: str, *, preset: str, also: str = "") -> str:
    """The path of a program, in one of the places or on PATH; ``also`` is another name that it may have."""
    for each in filter(None, (name, also)):
        for place in (*places, None):  # None: PATH
            if found := shutil.which(each, path=place):
                return found
    keyword = "python" if preset == "hgweb" else "program"
    raise ConfigError(
        f"presets.{preset}: there is no {name!r} here: install the package {package}, or say {keyword}= where it is"
    )


def _python_of_hg() -> list[str]:
    """The words of the first line of ``hg``, which is a Python script."""
    hg = _find("hg", (), "mercurial", preset="hgweb")
    with open(hg, "rb") as file:
        line = os.fsdecode(file.readline(1024))
    words = shlex.split(line[2:]) if line.startswith("#!") else []
    if words[:1] and os.path.basename(words[0]) == "env":
        words = words[1:]
    if not words or "python" not in os.path.basename(words[0]):
        raise ConfigError(f"presets.hgweb: {hg} is no Python script: say python= which Python has Mercurial")
    return words


def _file(file: AnyPath, what: str) -> str:
    """The absolute path of a file that is there."""
    path = os.path.abspath(os.path.expanduser(os.fsdecode(file)))
    if not os.path.isfile(path):
        raise ConfigError(f"{what}: there is no file {path!r}: write it, or name another")
    return path


def _directory(directory: AnyPath, what: str) -> str:
    """The absolute path of a directory that is there."""
    path = os.path.abspath(os.path.expanduser(os.fsdecode(directory)))
    if not os.path.isdir(path):
        raise ConfigError(f"{what}: there is no directory {path!r}: create it, or name another")
    return path


def _first_directory(places: Iterable[AnyPath]) -> AnyPath | None:
    return next((place for place in places if os.path.isdir(place)), None)


def _not_found(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return error_response(NotFound(), environ, start_response)
