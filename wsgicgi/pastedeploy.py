"""Entry points for PasteDeploy's .ini files.

``use = egg:wsgicgi`` is an application or a filter, ``use = egg:wsgicgi#script`` a single program. All other keys are
settings, written as in variables; paths are seen from the directory of the file.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .app import Application, create_app
from .config import Config
from .errors import ConfigError
from .middleware import CGIMiddleware, CGIScript
from .values import below

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

T = TypeVar("T")


def app_factory(global_conf: Mapping[str, str], **local_conf: str) -> Application:
    """Make the application that serves a directory and runs its scripts (``paste.app_factory``).

    Raises:
        ConfigError: A setting is wrong; the message begins with the name of the file.
    """
    return _made(lambda settings: create_app(**settings), global_conf, local_conf)


def filter_factory(global_conf: Mapping[str, str], **local_conf: str) -> Callable[[WSGIApplication], CGIMiddleware]:
    """Give what runs a directory's scripts and passes all else to an application (``paste.filter_factory``).

    Raises:
        ConfigError: A setting is wrong; the message begins with the name of the file.
    """
    _made(lambda settings: CGIMiddleware(_nothing, **settings), global_conf, local_conf).close()  # told now, not later
    return lambda app: _made(lambda settings: CGIMiddleware(app, **settings), global_conf, local_conf)


def script_factory(global_conf: Mapping[str, str], **local_conf: str) -> CGIScript:
    """Make the application that is one program: ``file``, and the words before it in ``args``.

    Raises:
        ConfigError: A setting is wrong; the message begins with the name of the file.
    """
    place = Path(global_conf.get("here", "."))
    file, args = local_conf.pop("file", ""), local_conf.pop("args", "")

    def make(settings: dict[str, Any]) -> CGIScript:
        if not file:
            raise ConfigError("file is missing: say which program, such as file = /usr/lib/git-core/git-http-backend")
        return CGIScript(str(below(place, file)), args=_words(args), **settings)

    return _made(make, global_conf, local_conf)


def _made(make: Callable[[dict[str, Any]], T], global_conf: Mapping[str, str], local_conf: Mapping[str, str]) -> T:
    try:
        return make(_settings(local_conf, Path(global_conf.get("here", "."))))
    except ConfigError as error:
        raise ConfigError(f"{global_conf.get('__file__', 'PasteDeploy')}: {error}") from None


def _settings(local_conf: Mapping[str, str], place: Path) -> dict[str, Any]:
    """The keys of a section, with paths as seen from the file's directory; Any: what takes them checks them."""
    fields = {item.name: item.metadata for item in dataclasses.fields(Config)}
    settings: dict[str, Any] = {}
    for name, text in local_conf.items():
        metadata = fields.get(name)
        if metadata is not None and not metadata["is_text"]:
            raise ConfigError(
                f"{name}: an .ini file has no place for it: write a TOML file, and say config = site.toml"
            )
        from_file = below if name == "config" else metadata and metadata["from_file"]
        settings[name] = from_file(place, text) if from_file else text
    return settings


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"args={text!r:.80}: {error}: write words as in a shell") from None


def _nothing(environ: object, start_response: object) -> list[bytes]:
    return []
