"""What names a script: ``CGIMiddleware`` for a directory of scripts, ``CGIScript`` for a single one.

Below a CGI directory the answer is the script's or an error; it never goes on to the next application, and never is the
file's text.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .config import Config
from .errors import ConfigError, GatewayError, ScriptForbidden
from .frameworks import with_paths_as_sent
from .gateway import Gateway
from .health import Trouble
from .loading import load
from .operating import Front, front
from .paths import PathRules
from .runners import Runner
from .scripts import Script, ScriptFinder, script_command
from .urlpaths import canonical, shown

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class CGIMiddleware:
    """A WSGI application that runs what is below the CGI directories and passes everything else to ``app``.

    Args:
        app: What answers for all other URLs.
        directory, config, settings: As for ``create_app``.
        runner: What starts scripts: an object, or a name as in ``Config``.

    Raises:
        ConfigError: A setting is wrong.
    """

    def __init__(
        self,
        app: WSGIApplication,
        directory: str | os.PathLike[str] | None = None,
        *,
        config: Config | str | os.PathLike[str] | None = None,
        runner: Runner | str | None = None,
        **settings: object,
    ) -> None:
        if isinstance(runner, str):
            settings["runner"] = runner
        self.config = load({"directory": directory, **settings}, config=config)
        self.app = app
        self._scripts = ScriptFinder(PathRules.of(self.config))
        self._gateway = Gateway(self.config, runner)
        self._front = front(self._answer, self.config, find_trouble=self._gateway.find_trouble, passed_on="app")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        return (self._front or self._answer)(environ, start_response)

    def take_front(self, app: WSGIApplication) -> Front | None:
        """Let what operators asked for stand before an application around this one, which serves files beside."""
        taken, self._front = self._front, None
        if taken is not None:
            taken.app, taken.passed_on = app, "static"
        return taken

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ = with_paths_as_sent(environ)
        if not environ.get("PATH_INFO"):
            return self.app(environ, start_response)  # the mount point itself, without a slash
        try:
            script = self._scripts.find(environ["PATH_INFO"])
        except GatewayError as error:
            return self._gateway.refuse(error, environ, start_response)
        if script is None:
            return self.app(environ, start_response)
        return self._gateway.respond(environ, start_response, script, redirect_app=self)

    def close(self) -> None:
        """End all scripts that still run."""
        self._gateway.close()


class CGIScript:
    """One program at a mount point of any WSGI stack; what follows the mount point is its extra path.

    Args:
        file: The program: executable, or a ``.py``.
        args: Words that come before the program, such as an interpreter and its options: ``["/usr/bin/perl", "-T"]``.
        directory: DOCUMENT_ROOT and the base of PATH_TRANSLATED; default: the program's directory.
        config: A configuration file, or a ``Config``. Sections match the program's name: ``match="/git-http-backend"``.
        runner: What starts it: an object, or a name as in ``Config``.
        settings: As in ``Config``, but for what concerns directories; they win over ``config``. ``deny`` is about what
            follows the mount point.

    Raises:
        ConfigError: A setting is wrong, or the program cannot run.
    """

    def __init__(
        self,
        file: str | os.PathLike[str],
        *,
        args: Sequence[str] = (),
        directory: str | os.PathLike[str] | None = None,
        config: Config | str | os.PathLike[str] | None = None,
        runner: Runner | str | None = None,
        **settings: object,
    ) -> None:
        self.file = Path(os.path.abspath(os.fsdecode(file)))
        root_dir = self.file.parent if directory is None else directory
        if isinstance(runner, str):
            settings["runner"] = runner
        self.config = load({"directory": root_dir, **settings}, config=config)
        self._rules = PathRules.of(self.config)
        self._args = _interpreter(args or self.config.interpreters.get(self.file.suffix.lower(), ()))
        self._gateway = Gateway(self.config, runner)
        self._front = front(self._answer, self.config, find_trouble=self._find_trouble, passed_on="script")
        if not self.file.is_file():
            raise ConfigError(f"CGIScript: there is no file {str(self.file)!r}: give the path of a program")
        if self._command() is None:
            raise ConfigError(f"CGIScript: {str(self.file)!r} is not executable. Try: chmod 755 {self.file}")

    def _command(self) -> tuple[str, ...] | None:
        return (*self._args, str(self.file)) if self._args else script_command(str(self.file))

    def _find_trouble(self) -> Trouble | None:
        if not self.file.is_file() or self._command() is None:
            return Trouble(word="scripts", cause=f"{self.file} is not there any more, or not executable")
        return self._gateway.find_trouble()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        return (self._front or self._answer)(environ, start_response)

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ = with_paths_as_sent(environ)
        try:
            path_info = environ.get("PATH_INFO", "")
            extra_path = canonical(path_info) if path_info else ""
            command = self._command()
            if command is None:
                raise ScriptForbidden(f"{self.file} is not executable any more. Try: chmod 755 {self.file}")
            if self._rules.is_denied(extra_path):
                raise ScriptForbidden(f"{shown(extra_path)}: is refused by the setting deny")
        except GatewayError as error:
            return self._gateway.refuse(error, environ, start_response)
        script = Script(
            file=self.file, command=command, script_path="", extra_path=extra_path, root_dir=self.config.directory
        )
        return self._gateway.respond(environ, start_response, script, redirect_app=self)

    def close(self) -> None:
        """End all of its runs."""
        self._gateway.close()


def _interpreter(words: Sequence[str]) -> tuple[str, ...]:
    """The words before a script with the full path of the program that they name."""
    if not words:
        return ()
    program = shutil.which(words[0])
    if program is None:
        raise ConfigError(f"CGIScript: args: there is no program {words[0]!r}: install it, or give its full path")
    return (os.path.abspath(program), *words[1:])
