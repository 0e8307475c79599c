"""What goes out with static files whose URL paths match: ``[[file]]`` sections, and the header fields that they make.

A section is one of the setting ``files``. The later ones win, setting by setting; ``headers`` are added to by name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import values
from .errors import ConfigError
from .globs import compile_glob

#: What sections are called in a configuration file, where each is a ``[[file]]``.
FILE_KEY = "file"

#: The word that stands in ``immutable`` for all files whose names have a hash.
HASHED = "hashed"

#: A year, as RFC 9111 has it for what never changes.
IMMUTABLE = "public, max-age=31536000, immutable"

# app.3f2a9c1b.js, app-3f2a9c1bd2.min.css: eight hex digits or more between marks, with a letter and a figure among
# them, so that no date or number passes for one
_HASH = re.compile(r"[.-](?=[0-9a-f]*[a-f])(?=[0-9a-f]*[0-9])[0-9a-f]{8,64}[.-]", re.IGNORECASE)

_SETTINGS: Mapping[str, Callable[[object], Any]] = {
    "cache_control": values.field_value,
    "content_type": values.media_type,
    "headers": values.header_fields,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRule:
    """Settings of the files whose URL paths match.

    Attributes:
        number: Its place among the sections, from 1.
        match: The patterns (``globs``), one of which a path must match.
        settings: Checked values of ``cache_control``, ``content_type``, ``headers``.
    """

    number: int
    match: tuple[str, ...]
    settings: Mapping[str, Any] = field(hash=False)
    _patterns: tuple[re.Pattern[str], ...] = field(repr=False, compare=False)

    def matches(self, path: str) -> bool:
        """Whether it is for the file with this URL path, decoded."""
        return any(pattern.fullmatch(path) for pattern in self._patterns)


def file_rules(value: object, place: str = "files: section") -> tuple[FileRule, ...]:
    """Make sections of a list of mappings, each with "match" and settings; ``place`` is what messages call one.

    Raises:
        ConfigError: A section is wrong; the message tells which.
    """
    if not isinstance(value, list | tuple):
        raise ValueError(
            "expected a list of sections, such as [{'match': '/assets/**', 'cache_control': 'max-age=3600'}];"
            " in a configuration file each begins with [[file]]"
        )
    return tuple(
        replace(given, number=number) if isinstance(given, FileRule) else _rule(given, number, f"{place} {number}")
        for number, given in enumerate(value, 1)
    )


def _rule(given: object, number: int, place: str) -> FileRule:
    if not isinstance(given, Mapping) or not given.get("match"):
        raise ConfigError(f"{place}: match is missing: say for which files it is, such as '/assets/**'")
    match = (given["match"],) if isinstance(given["match"], str) else given["match"]
    settings = {}
    for name, value in given.items():
        if name == "match":
            continue
        if name not in _SETTINGS:
            close = difflib.get_close_matches(str(name), _SETTINGS, n=1, cutoff=0.5)
            hint = f"Did you mean {close[0]!r}?" if close else f"A section of files has: match, {', '.join(_SETTINGS)}"
            raise ConfigError(f"{place}: {name!r:.80}: there is no such setting. {hint}")
        try:
            settings[name] = _SETTINGS[name](value)
        except ValueError as error:
            raise ConfigError(f"{place}: {name}: {error}") from None
    try:
        globs = values.globs(list(match) if isinstance(match, list | tuple) else match)
    except ValueError as error:
        raise ConfigError(f"{place}: match: {error}") from None
    return FileRule(number=number, match=globs, settings=settings, _patterns=tuple(map(compile_glob, globs)))


def immutables(value: object) -> tuple[str, ...]:
    """Patterns of files that never change, and the word for those whose names have a hash."""
    given = values.names(value)
    return tuple(text if text == HASHED else values.globs([text])[0] for text in given)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTerms:
    """What goes out with one file, whatever the request.

    Attributes:
        content_type: Its media type; None: by its name.
        fields: Header fields of a 200 or 206.
        kept_fields: Those among them that a 304 has too (RFC 9110 section 15.4.5).
    """

    content_type: str | None
    fields: tuple[tuple[str, str], ...]
    kept_fields: tuple[tuple[str, str], ...]


_KEPT = {"cache-control", "expires", "vary", "content-location"}


class AllFileTerms:
    """The terms of all files of an application.

    Args:
        rules: The sections.
        cache_control: For all files.
        immutable: As in ``Config``.
    """

    def __init__(self, rules: Sequence[FileRule], *, cache_control: str | None, immutable: Sequence[str]) -> None:
        self._rules = rules
        self._cache_control = cache_control
        self._hashed = HASHED in immutable
        self._immutable = [compile_glob(glob) for glob in immutable if glob != HASHED]

    def of(self, path: str) -> FileTerms:
        """The terms of a file.

        Args:
            path: Its URL path, as in ``environ``: bytes shown as latin-1 (PEP 3333).
        """
        path = path.encode("latin-1").decode("utf-8", "surrogateescape")
        cache_control = IMMUTABLE if self._is_immutable(path) else self._cache_control
        content_type: str | None = None
        headers: dict[str, tuple[str, str]] = {}
        for rule in self._rules:
            if rule.matches(path):
                cache_control = rule.settings.get("cache_control", cache_control)
                content_type = rule.settings.get("content_type", content_type)
                given = rule.settings.get("headers", {})
                headers.update({name.lower(): (name, value) for name, value in given.items()})
        fields = list(headers.values())
        if cache_control:
            fields.append(("Cache-Control", cache_control))
        return FileTerms(
            content_type=content_type,
            fields=tuple(fields),
            kept_fields=tuple(pair for pair in fields if pair[0].lower() in _KEPT),
        )

    def _is_immutable(self, path: str) -> bool:
        if self._hashed and _HASH.search(path.rpartition("/")[2]):
            return True
        return any(pattern.fullmatch(path) for pattern in self._immutable)
