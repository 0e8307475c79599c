"""Where settings come from: keywords, then ``WSGICGI_*`` variables, then a configuration file, then the defaults.

This is the only module that reads ``os.environ`` for settings. What settings there are, ``config`` says.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .config import Config, declaration, parse_setting, require_known, sections, setting_names
from .errors import ConfigError
from .filerules import FILE_KEY, file_rules
from .tomlfile import read_toml

PREFIX = "WSGICGI_"

#: The variable that names the configuration file.
CONFIG_VARIABLE = PREFIX + "CONFIG"

#: What sections are called in a configuration file, where each is a ``[[script]]``.
SECTION_KEY = "script"

#: Settings that are lists of sections, and what a section of them is called in a configuration file.
_FILE_KEYS = {"scripts": SECTION_KEY, "files": FILE_KEY}

#: Variables that others set: tools that start us name their interpreter so, and Kubernetes and container links describe
#: a service called "wsgicgi" to every container beside it.
_NOT_OURS = re.compile(
    PREFIX + r"(PYTHON|NAME|ENV_\w+|(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A value of a setting, and who gave it."""

    value: Any
    origin: str


def load(
    settings: Mapping[str, object],
    environ: Mapping[str, str] | None = None,
    *,
    config: Config | str | os.PathLike[str] | None = None,
) -> Config:
    """Make the settings from keywords, else from ``WSGICGI_*`` variables, else from a file, else from the defaults.

    Args:
        settings: Keywords; they win. ``None`` for ``directory`` counts as not given.
        environ: Where the variables are; default: the process's environment.
        config: A configuration file; default: ``WSGICGI_CONFIG``. Or settings made before, which stand in the place of
            variables and file.

    Raises:
        ConfigError: A name is unknown or a value is wrong.
    """
    if isinstance(config, Config):
        keywords = _keywords(settings)
        return dataclasses.replace(config, **keywords) if keywords else config
    return Config(**{name: given.value for name, given in gather(settings, environ, config=config).items()})


def gather(
    settings: Mapping[str, object],
    environ: Mapping[str, str] | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
) -> dict[str, Given]:
    """Collect what is said about each setting, with its origin; see ``load``."""
    variables = os.environ if environ is None else environ
    found = {name: Given(value=value, origin="keyword") for name, value in _keywords(settings).items()}
    found.update(_from_variables(variables, but=found))
    file = variables.get(CONFIG_VARIABLE) if config is None else config
    if file is not None:
        found.update(_from_file(file, but=found))
    return found


def _keywords(settings: Mapping[str, object]) -> dict[str, Any]:
    """What was given; Any: Config checks the types."""
    given = {name: value for name, value in settings.items() if not (name == "directory" and value is None)}
    for name in given:
        require_known(name, setting_names())
    return given


def _from_variables(variables: Mapping[str, str], *, but: Iterable[str]) -> dict[str, Given]:
    names = [item.name for item in dataclasses.fields(Config) if item.metadata["is_text"]]
    found = {}
    for variable, text in variables.items():
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE or _NOT_OURS.fullmatch(variable):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in names:
            require_known(variable, [CONFIG_VARIABLE, *(PREFIX + known.upper() for known in names)])
        if name not in but:
            found[name] = Given(value=parse_setting(name, text, variable), origin=variable)
    return found


def _from_file(file: str | os.PathLike[str], *, but: Iterable[str]) -> dict[str, Given]:
    origin = os.fsdecode(file)
    base_dir, said = read_toml(file)

    def convert(name: str, value: object) -> object:
        _require_no_settings_in(name, value, origin)
        from_file = declaration(name).metadata["from_file"]
        return value if from_file is None else from_file(base_dir, value)

    names = [_FILE_KEYS.get(name, name) for name in setting_names()]
    found = {}
    parsed: Any  # Config checks it
    for key, value in said.items():
        require_known(key, names, place=f"{origin}: ")
        name = next((name for name, other in _FILE_KEYS.items() if other == key), key)
        if name in but:
            continue
        if name in _FILE_KEYS and not isinstance(value, list):
            raise ConfigError(f"{origin}: {key}: begin each section with [[{key}]], in two brackets")
        if name == "scripts":
            parsed = sections(value, f"{origin}: [[{key}]]", convert)
        elif name == "files":
            parsed = file_rules(value, f"{origin}: [[{key}]]")
        else:
            parsed = parse_setting(name, convert(name, value), f"{origin}: {name}")
        found[name] = Given(value=parsed, origin=origin)
    return found


def _require_no_settings_in(name: str, value: object, origin: str) -> None:
    """Refuse a setting that was written below a table's head, where it is the table's and would silently do nothing."""
    for key in value if isinstance(value, Mapping) else ():
        if key in setting_names():
            raise ConfigError(
                f"{origin}: {key} stands below [{name}], where it is no setting but part of that table: move it above"
            )
