"""``wsgicgi-dev check-config``: the settings that a configuration file comes to, and where each is from.

What is printed is itself a configuration file, with nothing left to defaults.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence

from .config import Config
from .errors import ConfigError, printable
from .filerules import FILE_KEY
from .loading import CONFIG_VARIABLE, SECTION_KEY, Given, gather

#: Where the origins stand, unless a value is longer.
_COLUMN = 44


def check_config(arguments: Sequence[str]) -> int:
    """Run the sub-command; gives its exit status."""
    file = _parser().parse_args(arguments).file
    try:
        found = gather({}, config=file)
        config = Config(**{name: given.value for name, given in found.items()})
    except ConfigError as error:
        print(f"wsgicgi-dev: {error}", file=sys.stderr)
        return 2
    print("\n".join(_lines(config, found)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wsgicgi-dev check-config",
        description="Check a configuration file, and print all settings with where each comes from: a variable, the"
        " file, or a default. The values of variables for scripts (env) are printed as they are.",
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help=f"in TOML; default: what {CONFIG_VARIABLE} names")
    return parser


def _lines(config: Config, found: Mapping[str, Given]) -> Iterator[str]:
    for item in dataclasses.fields(Config):
        if item.name not in ("scripts", "files"):
            origin = found[item.name].origin if item.name in found else "default"
            line = f"{item.name} = {_written(item, getattr(config, item.name))}"
            yield f"{line:<{_COLUMN}}  # {printable(origin)}"
    for rule in config.files:
        yield ""
        yield f"{f'[[{FILE_KEY}]]':<{_COLUMN}}  # {printable(found['files'].origin)}, section {rule.number}"
        yield f"match = {_toml(rule.match)}"
        yield from (f"{name} = {_toml(value)}" for name, value in rule.settings.items())
    for section in config.scripts:
        yield ""
        yield f"{f'[[{SECTION_KEY}]]':<{_COLUMN}}  # {printable(found['scripts'].origin)}, section {section.number}"
        yield f"match = {_toml(section.match)}"
        for item in dataclasses.fields(Config):
            if item.name in section.settings:
                yield f"{item.name} = {_written(item, section.settings[item.name])}"


def _written(item: dataclasses.Field[object], value: object) -> str:
    write = item.metadata["write"]
    return _toml(value if write is None else write(value))


def _toml(value: object) -> str:
    """A value as TOML writes it; None, for which it has no word, as our parsers take it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_toml(key)} = {_toml(part)}" for key, part in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    # a basic string is JSON's, but for DEL; bytes of a file name that are no UTF-8 are shown by their escape
    text = json.dumps("none" if value is None else str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return text.encode("utf-8", "backslashreplace").decode()
