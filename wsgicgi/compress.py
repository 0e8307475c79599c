"""``wsgicgi-dev compress``: writes the compressed siblings that the server sends (``variants``), and renews them.

A sibling appears whole or not at all, has the time and the mode of its file, and is there only where it saves
something. One that is older than its file is written anew, or removed. What has no file beside it is nobody's sibling
and is left alone: ``data.tar.gz`` without ``data.tar`` is a file of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import os
import re
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .errors import ConfigError, printable
from .listing import readable_size
from .loading import load
from .paths import PathRules, visible_names
from .variants import SUFFIXES, is_fresh

#: Bytes of a file below which nothing is saved: it fits a packet as it is.
MIN_SIZE = 256
#: What a sibling must save, or it is not worth the client's work.
MIN_SAVED = 0.05
_BLOCK = 256 * 1024

# Suffixes of what is compressed already.
_PACKED = re.compile(
    r"\.(7z|aac|apk|avif|br|bz2|docx|epub|flac|gif|gz|heic|ico|jar|jpe?g|m4a|mkv|mov|mp[34]|odt|og[gv]|opus|pdf|png|pptx"
    r"|rar|t[gx]z|web[mp]|whl|woff2?|xlsx|xz|zip|zst)",
    re.IGNORECASE,
)


class Compressor(Protocol):
    """Compresses one stream."""

    def compress(self, data: bytes, /) -> bytes:
        """Take some of it; gives what is ready."""

    def flush(self) -> bytes:
        """Give the rest."""


class _Brotli:
    """Brotli's compressor with the names of the others' methods."""

    def __init__(self, module: Any) -> None:
        self._compressor = module.Compressor(quality=11)

    def compress(self, data: bytes, /) -> bytes:
        return bytes(self._compressor.process(data))

    def flush(self) -> bytes:
        return bytes(self._compressor.finish())


def _gzip() -> Compressor:
    return zlib.compressobj(9, zlib.DEFLATED, 31)  # 31: a gzip header, without name and time: same file, same bytes


def _brotli() -> Compressor:
    return _Brotli(importlib.import_module("brotli"))


def _zstd() -> Compressor:
    # the decoders of browsers need no more than 8 MiB of window (RFC 9659)
    if importlib.util.find_spec("compression") is not None:
        zstd = importlib.import_module("compression.zstd")
        parameter = zstd.CompressionParameter
        made = zstd.ZstdCompressor(options={parameter.compression_level: 19, parameter.window_log: 23})
    else:
        module = importlib.import_module("zstandard")
        parameters = module.ZstdCompressionParameters.from_level(19, window_log=23)
        made = module.ZstdCompressor(compression_params=parameters).compressobj()
    return made  # type: ignore[no-any-return]  # neither is known to every Python


_COMPRESSORS: Mapping[str, Callable[[], Compressor]] = {"br": _brotli, "zstd": _zstd, "gzip": _gzip}


def available() -> list[str]:
    """The codings that this Python can write."""
    modules = {"br": ("brotli",), "zstd": ("compression", "zstandard"), "gzip": ("zlib",)}
    return [coding for coding in SUFFIXES if any(importlib.util.find_spec(name) for name in modules[coding])]


@dataclass(slots=True, kw_only=True)
class Report:
    """What was done: numbers of siblings, and what went wrong."""

    written: int = 0
    removed: int = 0
    kept: int = 0
    problems: list[str] = field(default_factory=list)


def main(arguments: Sequence[str]) -> int:
    """Run the sub-command; gives its exit status."""
    options = _parser().parse_args(arguments)
    known = available()
    codings = options.codings or known
    missing = [coding for coding in codings if coding not in known]
    try:
        if missing:
            raise ConfigError(f"this Python cannot write {', '.join(missing)}: pip install 'wsgicgi[compress]'")
        rules = PathRules.of(load({"directory": options.directory}, config=options.config))
    except ConfigError as error:
        print(f"wsgicgi-dev: {error}", file=sys.stderr)
        return 2
    report = Report()
    for file in _files(rules, rules.root_dir, report):
        for coding in codings:
            _renew(file, coding, report, is_quiet=options.quiet)
    if not options.codings and len(known) < len(SUFFIXES):
        left_out = ", ".join(sorted(set(SUFFIXES) - set(known)))
        print(f"left out: {left_out}: pip install 'wsgicgi[compress]'", file=sys.stderr)
    for problem in report.problems:
        print(printable(problem), file=sys.stderr)
    print(f"{report.written} written, {report.removed} removed, {report.kept} as they were")
    return 1 if report.problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wsgicgi-dev compress",
        description="Write x.br, x.zst and x.gz beside the static files of a directory, where that saves something;"
        " renew those that are older than their files, and remove those that save nothing any more.",
    )
    parser.add_argument("directory", metavar="DIR", help="what the server serves")
    parser.add_argument("--config", metavar="FILE", help="the server's settings: scripts and hidden files are left out")
    parser.add_argument(
        "--coding", action="append", dest="codings", choices=list(SUFFIXES), help="only this one; may be repeated"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print the sum only")
    return parser


def _files(rules: PathRules, directory: Path, report: Report) -> Iterator[Path]:
    """The plain files below a directory that a client can fetch and that are not packed; links are not followed."""
    try:
        entries = sorted(visible_names(rules, directory), key=lambda entry: entry.name)
    except OSError as error:
        report.problems.append(f"{directory}: {error.strerror}")
        return
    for entry in entries:
        if entry.is_symlink():
            continue
        if entry.is_dir():
            yield from _files(rules, directory / entry.name, report)
        elif not rules.is_script_name(entry.name) and not _PACKED.fullmatch(os.path.splitext(entry.name)[1]):
            yield directory / entry.name


def _renew(file: Path, coding: str, report: Report, *, is_quiet: bool) -> None:
    """Bring one sibling up to date."""
    sibling = file.with_name(file.name + SUFFIXES[coding])
    try:
        found = _status(sibling)
        original = file.stat()
        if found is not None and not stat.S_ISREG(found.st_mode):
            report.problems.append(f"{sibling}: is no plain file, so it is left as it is")
            return
        if found is not None and is_fresh(found.st_mtime_ns, original.st_mtime_ns):
            report.kept += 1
            return
        size = _write(file, sibling, coding) if original.st_size >= MIN_SIZE else None
        if size is not None:
            report.written += 1
            if not is_quiet:
                print(f"{printable(str(sibling))}: {readable_size(original.st_size)} -> {readable_size(size)}")
        elif found is not None:
            sibling.unlink()
            report.removed += 1
            if not is_quiet:
                print(f"{printable(str(sibling))}: removed")
    except OSError as error:
        report.problems.append(f"{sibling}: {error.strerror}")


def _status(place: Path) -> os.stat_result | None:
    try:
        return place.lstat()
    except FileNotFoundError:
        return None


def _write(file: Path, sibling: Path, coding: str) -> int | None:
    """Write a sibling, and put it in its place when it saves enough; gives its size then."""
    with open(file, "rb") as opened:
        original = os.fstat(opened.fileno())
        # hidden from clients by its name until it is whole
        descriptor, written = tempfile.mkstemp(prefix=".", suffix="~", dir=file.parent)
        try:
            with open(descriptor, "wb") as target:
                compressor = _COMPRESSORS[coding]()
                while data := opened.read(_BLOCK):
                    target.write(compressor.compress(data))
                target.write(compressor.flush())
                size = target.tell()
            now = os.stat(file)
            if (now.st_mtime_ns, now.st_size, now.st_ino) != (original.st_mtime_ns, original.st_size, original.st_ino):
                raise OSError(0, "the file has changed meanwhile: run this again")
            if size > original.st_size * (1 - MIN_SAVED):
                return None
            if hasattr(os, "chown") and os.geteuid() == 0:
                os.chown(written, original.st_uid, original.st_gid)
            os.chmod(written, stat.S_IMODE(original.st_mode) & 0o666)
            os.utime(written, ns=(original.st_atime_ns, original.st_mtime_ns))
            os.replace(written, sibling)
            return size
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(written)
