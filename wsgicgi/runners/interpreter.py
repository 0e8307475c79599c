"""What an interpreter has once, lent to a script for the time of its run, and then put back as it was.

Each part is a context: streams, variables, arguments, modules, the working directory, and settings that scripts change.
For ``inprocess``, which lets one script run at a time.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import locale
import os
import socket
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, ClassVar, TextIO

_WINDOWS = sys.platform == "win32"

# The locales in which Python lets undecodable bytes through (PEP 538, PEP 540).
_LENIENT_LOCALES = {"C", "POSIX", "C.UTF-8", "C.utf8", "UTF-8"}

STREAM_NAMES = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")


@contextlib.contextmanager
def streams(
    ends: dict[str, int], metavars: Mapping[str, str], *, is_unbuffered: bool
) -> Iterator[Mapping[str, Stream]]:
    """Standard input, output and error, as a fresh interpreter makes them; they own what is taken from ``ends``."""
    encoding, errors = _stream_encoding(metavars)
    before = {name: getattr(sys, name) for name in STREAM_NAMES}
    streams = {}
    for name in ("stdin", "stdout", "stderr"):
        streams[name] = _open_stream(
            ends.pop(name),
            name,
            before[name],
            encoding=encoding,
            errors="backslashreplace" if name == "stderr" else errors,
            is_unbuffered=is_unbuffered,
        )
    for name, stream in streams.items():
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    try:
        yield streams
    finally:
        for name, stream in before.items():
            setattr(sys, name, stream)
        for stream in streams.values():
            stream.end()


class Stream(io.TextIOWrapper):
    """A stream of the script's thread; what other threads write to it goes where it would have gone before."""

    def __init__(self, buffer: Any, server: TextIO | None, **options: Any) -> None:
        super().__init__(buffer, **options)
        self.mode = "r" if buffer.readable() else "w"  # type: ignore[misc]  # as the interpreter sets it
        self.bytes = buffer  # the script may detach it
        self._owner = threading.get_ident()
        self._server = server

    def write(self, text: str, /) -> int:
        """Write a text, in the script's thread to the script's output."""
        if self._is_owned() or self._server is None:
            return super().write(text)
        return self._server.write(text)

    def flush(self) -> None:
        """Flush the stream that ``write`` writes to."""
        if self._is_owned() or self._server is None:
            super().flush()
        else:
            self._server.flush()

    def _is_owned(self) -> bool:
        """Whether the caller is the script; once that has ended, another thread may have the number of its thread."""
        return threading.get_ident() == self._owner and not self._is_over

    _is_over = False

    def end(self) -> None:
        """Close the layer of bytes; all was flushed before."""
        self._is_over = True
        with contextlib.suppress(OSError, ValueError):
            self.bytes.close()


def _open_stream(
    descriptor: int, name: str, server: TextIO | None, *, encoding: str, errors: str, is_unbuffered: bool
) -> Stream:
    mode = "r" if name == "stdin" else "w"
    raw = io.FileIO(descriptor, mode)
    raw.name = f"<{name}>"
    buffer: Any = raw
    if mode == "r":
        buffer = io.BufferedReader(raw)
    elif not is_unbuffered:
        buffer = io.BufferedWriter(raw)
    return Stream(
        buffer,
        server,
        encoding=encoding,
        errors=errors,
        newline=None if _WINDOWS else "\n",
        line_buffering=name == "stderr",
        write_through=is_unbuffered and mode == "w",
    )


def _stream_encoding(metavars: Mapping[str, str]) -> tuple[str, str]:
    """The encoding and error handler of standard input and output that a new interpreter would take."""
    encoding = "utf-8" if sys.flags.utf8_mode else locale.getencoding()
    is_lenient = sys.flags.utf8_mode or locale.setlocale(locale.LC_CTYPE) in _LENIENT_LOCALES
    asked, _, handler = metavars.get("PYTHONIOENCODING", "").partition(":")
    return codecs.lookup(asked or encoding).name, handler or (
        "surrogateescape" if is_lenient and not asked else "strict"
    )


def flush(streams: Mapping[str, Stream]) -> bool:
    """Write what is left in the script's streams, and in those that it put in their place; whether all output went out.

    It does so while the script can still be terminated, for nobody may be reading.
    """
    is_written = True
    for name in ("stdout", "stderr"):
        for stream in (getattr(sys, name), streams[name], streams[name].bytes):
            try:
                if stream is not None and not stream.closed:
                    stream.flush()
            except ValueError:  # the script took its layers apart
                pass
            except OSError:
                is_written = is_written and name != "stdout"
    return is_written


@contextlib.contextmanager
def modules(main: ModuleType, directory: str) -> Iterator[None]:
    """``sys.modules``, with the script as ``__main__`` and without what it would take for its own."""
    before = dict(sys.modules)
    places = {os.path.abspath(place) for place in sys.path} - {directory}
    for name in _shadowed(before, directory):
        del sys.modules[name]
    sys.modules["__main__"] = main
    try:
        yield
    finally:
        tops = {name for name in sys.modules if "." not in name and sys.modules[name] is not before.get(name)}
        foreign = {name for name in tops if _is_foreign(sys.modules[name], places)}
        for name in list(sys.modules):
            if name.partition(".")[0] in foreign:
                del sys.modules[name]
        for name, module in before.items():
            if sys.modules.get(name) is not module:
                sys.modules[name] = module
        sys.path_importer_cache.pop(directory, None)


def _shadowed(modules: Mapping[str, ModuleType], directory: str) -> list[str]:
    """Modules of the server whose names the script means for files beside it; never those that Python itself needs."""
    try:
        with os.scandir(directory) as entries:
            there = {
                entry.name.removesuffix(".py") for entry in entries if entry.name.endswith(".py") or entry.is_dir()
            }
    except OSError:
        return []
    there -= sys.stdlib_module_names | {"wsgicgi", "__main__"}
    return [name for name in modules if name.partition(".")[0] in there]


def _is_foreign(module: ModuleType, places: set[str]) -> bool:
    """Whether a top-level module was found elsewhere than in the server's own places, or was made by the script."""
    if getattr(module, "__spec__", None) is None:
        return True
    for path in (*getattr(module, "__path__", ()), getattr(module, "__file__", None)):
        if isinstance(path, str):
            return os.path.dirname(os.path.abspath(path)) not in places
    return False


@contextlib.contextmanager
def search_path(directory: str, python_path: str) -> Iterator[None]:
    """``sys.path``, beginning with the script's directory, then PYTHONPATH."""
    before, content = sys.path, list(sys.path)
    sys.path[:0] = [directory, *filter(None, _text(python_path).split(os.pathsep))]
    try:
        yield
    finally:
        sys.path = before
        sys.path[:] = content


@contextlib.contextmanager
def process_settings() -> Iterator[None]:
    """What scripts like to set, and would set for the server."""
    hook, limit, umask = sys.excepthook, sys.getrecursionlimit(), os.umask(0o077)
    os.umask(umask)
    socket_timeout, in_use = socket.getdefaulttimeout(), locale.setlocale(locale.LC_ALL)
    sys.excepthook = sys.__excepthook__
    try:
        with warnings.catch_warnings():
            yield
    finally:
        sys.excepthook = hook
        sys.setrecursionlimit(limit)
        os.umask(umask)
        socket.setdefaulttimeout(socket_timeout)
        locale.setlocale(locale.LC_ALL, in_use)


@contextlib.contextmanager
def argv(words: tuple[str, ...]) -> Iterator[None]:
    """``sys.argv``."""
    before = sys.argv
    sys.argv = list(words)
    try:
        yield
    finally:
        sys.argv = before


class _ThreadEnviron(os._Environ[Any]):
    """The class of ``os.environ`` while a script runs: in the script's thread it shows other variables.

    Servers look there too (gunicorn for SCRIPT_NAME, with each request), and must not find the script's.
    """

    script: ClassVar[tuple[int, dict[Any, Any]]]

    @property
    def _data(self) -> dict[Any, Any]:
        thread, variables = self.script
        server: dict[Any, Any] = self.__dict__["_data"]
        return variables if threading.get_ident() == thread else server


@contextlib.contextmanager
def variables(metavars: Mapping[str, str]) -> Iterator[None]:
    """``os.environ``: the same object, for many have it by a name of their own; and what processes inherit."""
    names = [name for name in ("environ", "environb") if hasattr(os, name)]
    mappings = [getattr(os, name) for name in names]
    _ThreadEnviron.script = (threading.get_ident(), {})
    for name in list(os.environ):
        os.unsetenv(name)
    for mapping in mappings:
        mapping.__class__ = _ThreadEnviron
    try:
        for name, value in metavars.items():
            os.environ[_text(name)] = _text(value)
        yield
    finally:
        for name, mapping in zip(names, mappings, strict=True):
            setattr(os, name, mapping)  # a script may have put something else there
        for name in list(os.environ):
            os.unsetenv(name)
        for mapping in mappings:
            mapping.__class__ = os._Environ
        for name, value in os.environ.items():
            os.putenv(name, value)


def _text(value: str) -> str:
    """A native WSGI string as the system's text; one that is none after all (REMOTE_USER, say) as it is."""
    try:
        return os.fsdecode(value.encode("latin-1"))
    except UnicodeEncodeError:
        return value


@contextlib.contextmanager
def working_directory(directory: str) -> Iterator[None]:
    """The working directory."""
    try:
        before = os.getcwd()
    except OSError:  # it was removed
        before = os.path.abspath(os.sep)
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)
