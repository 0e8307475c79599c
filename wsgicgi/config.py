"""Every setting of wsgicgi, once: its name, type, default, unit and help.

``create_app``'s keywords, the ``WSGICGI_*`` variables, the keys of a configuration file, the options of ``wsgicgi-dev``
and the table in the README all come from the fields of ``Config``; ``loading`` reads what they say. What holds for some
scripts only is in a ``Section``; ``Config.for_script`` puts it together.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import values
from .errors import ConfigError
from .filerules import FileRule, file_rules, immutables
from .globs import compile_glob
from .values import GIB, KIB, MIB, YEAR

# Where Python cannot start processes.
_NO_PROCESSES = {"android", "emscripten", "ios", "tvos", "wasi", "watchos"}


def default_runner(platform: str) -> str:
    """The way of starting scripts that a system has, by its ``sys.platform``."""
    return "inprocess" if platform in _NO_PROCESSES else "spawn"


def setting(
    parse: Callable[[object], Any],
    default: Any,
    *,
    unit: str = "",
    help: str,
    per_script: bool = False,
    is_text: bool = True,
    from_file: Callable[[Path, object], object] | None = None,
    write: Callable[[Any], Any] | None = None,
) -> Any:
    """Declare a setting.

    Args:
        parse: Its check, from ``values``.
        default: As a user would write it.
        unit: What a number counts.
        help: What it is, in a line.
        per_script: Whether a section may give it.
        is_text: Whether a variable and an option can.
        from_file: Makes of a configuration file's directory and what the file says the value to check: for paths.
        write: Makes of a value what a user would write.
    """
    metadata = {
        "parse": parse,
        "unit": unit,
        "help": help,
        "per_script": per_script,
        "is_text": is_text,
        "from_file": from_file,
        "write": write,
    }
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Settings of the scripts whose URL paths match.

    Attributes:
        number: Its place among the sections, from 1; the same in every process that reads the same settings.
        place: Where it was said, for messages.
        match: The patterns (``globs``), one of which a path must match.
        settings: Checked values of settings that single scripts may have.
    """

    number: int
    place: str = field(compare=False)
    match: tuple[str, ...]
    settings: Mapping[str, Any] = field(hash=False)
    _patterns: tuple[re.Pattern[str], ...] = field(repr=False, compare=False)

    def matches(self, path: str) -> bool:
        """Whether it is for the script with this URL path, decoded."""
        return any(pattern.fullmatch(path) for pattern in self._patterns)


def _as_given(name: str, value: object) -> object:
    return value


def sections(
    value: object, place: str = "scripts: section", convert: Callable[[str, object], object] = _as_given
) -> tuple[Section, ...]:
    """Make sections of a list of mappings, each with "match" and settings.

    Args:
        value: The list.
        place: What messages call a section, before its number.
        convert: Makes of a setting's name and value the value to check.

    Raises:
        ConfigError: A section is wrong; the message tells which.
    """
    if not isinstance(value, list | tuple):
        raise ValueError(
            "expected a list of sections, such as [{'match': '/cgi-bin/report.py', 'timeout': 5}];"
            " in a configuration file each begins with [[script]]"
        )
    return tuple(
        dataclasses.replace(given, number=number)
        if isinstance(given, Section)
        else _section(given, number, place=f"{place} {number}", convert=convert)
        for number, given in enumerate(value, 1)
    )


def _section(given: object, number: int, *, place: str, convert: Callable[[str, object], object]) -> Section:
    if not isinstance(given, Mapping):
        raise ConfigError(f"{place}: expected a mapping, such as {{'match': '/cgi-bin/report.py', 'timeout': 5}}")
    if not given.get("match"):
        raise ConfigError(f"{place}: match is missing: say for which scripts it is, such as '/cgi-bin/report.py'")
    match = (given["match"],) if isinstance(given["match"], str) else given["match"]
    if not isinstance(match, list | tuple) or not all(isinstance(glob, str) for glob in match):
        raise ConfigError(f"{place}: match: expected a pattern such as '/cgi-bin/*.py', or a list of patterns")
    try:
        patterns = tuple(map(compile_glob, match))
    except ValueError as error:
        raise ConfigError(f"{place}: match: {error}") from None
    place += f" (match={', '.join(map(repr, match))})"
    allowed = [item.name for item in dataclasses.fields(Config) if item.metadata["per_script"]]
    parsed = {}
    for name, value in given.items():
        if name == "match":
            continue
        if name in setting_names() and name not in allowed:
            raise ConfigError(f"{place}: {name} is for the whole application: give it outside of the sections")
        require_known(name, [*allowed, "match"], place=f"{place}: ")
        parsed[name] = parse_setting(name, convert(name, value), f"{place}: {name}")
    return Section(number=number, place=place, match=tuple(match), settings=parsed, _patterns=patterns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one application. Values are checked and brought into one form when it is made.

    Raises:
        ConfigError: A value is wrong; the message names the setting and says what to write.
    """

    directory: Path = setting(values.directory, ".", from_file=values.below, help="what '/' maps to")
    cgi_directories: tuple[str, ...] = setting(
        values.cgi_directories, ("/cgi-bin", "/htbin"), help="URL paths below which every file is a script"
    )
    cgi_extensions: tuple[str, ...] = setting(
        values.suffixes, (), help="suffixes of scripts in every other directory too, such as .cgi"
    )
    interpreters: Mapping[str, tuple[str, ...]] = setting(
        values.interpreters, {}, help="commands that run files of a suffix, everywhere: {'.php': ['php-cgi']}"
    )
    index_names: tuple[str, ...] = setting(
        values.file_names, ("index.html", "index.htm"), help="what stands for a directory: files, or scripts"
    )
    content_type: str = setting(
        values.media_type, "application/octet-stream", help="media type of files whose name does not tell theirs"
    )
    directory_listing: bool = setting(values.flag, True, help="list directories that have no index")
    follow_symlinks: bool = setting(
        values.flag, False, help="follow symbolic links of static files out of the directory"
    )
    allow_hidden: bool = setting(values.flag, False, help="serve .dotfiles and left-overs such as x~ and x.bak")
    deny: tuple[str, ...] = setting(
        values.globs, (), help="patterns of URL paths that get 403, files and scripts, such as /private/**"
    )
    precompressed: bool = setting(
        values.flag, True, help="send x.br, x.zst or x.gz in the place of x to who takes that"
    )
    cache_control: str | None = setting(
        values.optional(values.field_value), None, help="the Cache-Control field of static files"
    )
    immutable: tuple[str, ...] = setting(
        immutables, (), help="patterns of static files that never change; hashed: those named like app.3f2a9c1b.js"
    )
    cors: tuple[str, ...] = setting(
        values.origins, (), help="origins whose scripts may read static files (CORS); * for all"
    )
    files: tuple[FileRule, ...] = setting(
        file_rules, (), is_text=False, help="fields and types of some static files; [[file]] in a configuration file"
    )
    error_pages: Mapping[int, str] = setting(
        values.error_pages, {}, help="URL paths of files or scripts for errors: {404: '/errors/404.html'}"
    )
    runner: str = setting(
        values.runner,
        default_runner(sys.platform),
        per_script=True,
        help="how scripts start: spawn, a process each; warm, the same, Python's and Perl's from interpreters"
        " that have started already; inprocess, Python scripts only, one at a time",
    )
    preload: tuple[str, ...] | str = setting(
        values.modules,
        "learn",
        per_script=True,
        help="modules that warm interpreters have imported, such as sqlite3,jinja2; learn: those that scripts import",
    )
    pass_authorization: bool = setting(
        values.flag, False, per_script=True, help="give scripts the Authorization field as HTTP_AUTHORIZATION"
    )
    pass_env: tuple[str, ...] = setting(
        values.names, (), per_script=True, help="names of the server's variables that scripts get too"
    )
    env: Mapping[str, str] = setting(values.environment, {}, per_script=True, help="variables that scripts get")
    run_as: str | None = setting(
        values.account,
        "auto",
        per_script=True,
        help="a user, user:group, a uid, owner (of the script), or none (unchanged); auto: nobody when started as root",
    )
    timeout: float = setting(
        values.seconds,
        60.0,
        unit="seconds",
        per_script=True,
        help="until the response head is complete; then without a byte from the script",
    )
    max_time: float | None = setting(
        values.optional(values.seconds), None, unit="seconds", per_script=True, help="for a script in all"
    )
    max_cpu: int | None = setting(
        values.optional(values.whole(1, YEAR, of="number of seconds", example=10)),
        None,
        unit="seconds",
        per_script=True,
        help="processor time of each process of a script",
    )
    max_memory: int | None = setting(
        values.optional(values.size(32 * MIB, example="256M")),
        None,
        unit="bytes",
        per_script=True,
        help="address space of each process of a script",
    )
    max_processes: int | None = setting(
        values.optional(values.whole(1, example=64)),
        None,
        per_script=True,
        help="processes and threads that scripts of one user may have, beside those that are no scripts'",
    )
    max_file_size: int | None = setting(
        values.optional(values.size(example="100M")),
        None,
        unit="bytes",
        per_script=True,
        help="size of each file that a script writes",
    )
    max_open_files: int | None = setting(
        values.optional(values.whole(16, example=256)),
        None,
        per_script=True,
        help="open files of each process of a script",
    )
    max_output_bytes: int | None = setting(
        values.optional(values.size(1, example="100M")),
        None,
        unit="bytes",
        per_script=True,
        help="size of a script's answer",
    )
    max_header_bytes: int = setting(
        values.size(), 64 * KIB, unit="bytes", per_script=True, help="size of a script's response head"
    )
    max_body_bytes: int = setting(
        values.size(), GIB, unit="bytes", per_script=True, help="size of a request body; larger ones get 413"
    )
    body_memory: int = setting(
        values.size(), MIB, unit="bytes", per_script=True, help="size of a request body from which on it waits on disk"
    )
    umask: int | None = setting(
        values.optional(values.umask),
        None,
        per_script=True,
        write=values.octal,
        help="mode bits that a script's new files do not get, in octal: '022'; none: the server's",
    )
    nice: int | None = setting(
        values.optional(values.whole(0, 19, example=10)),
        None,
        per_script=True,
        help="by how much scripts give way to other processes, up to 19",
    )
    max_scripts: int | None = setting(
        values.optional(values.whole(1, example=16)),
        None,
        per_script=True,
        help="scripts that run at once, in all processes of a server; each machine counts its own",
    )
    queue_timeout: float = setting(
        values.seconds_or_zero,
        10.0,
        unit="seconds",
        per_script=True,
        help="how long a request waits while max_scripts run; then 503",
    )
    sandbox: str | None = setting(
        values.optional(values.choice("bwrap")),
        None,
        per_script=True,
        help="bwrap: scripts see a read-only system and a /tmp of their own (Linux, bubblewrap)",
    )
    writable: tuple[Path, ...] = setting(
        values.directories,
        (),
        per_script=True,
        from_file=values.all_below,
        help="directories that scripts in a sandbox may write to",
    )
    network: bool = setting(values.flag, True, per_script=True, help="whether scripts in a sandbox have the network")
    allow_setuid: bool = setting(
        values.flag, False, per_script=True, help="let scripts gain rights by setuid programs such as sudo and sendmail"
    )
    scripts: tuple[Section, ...] = setting(
        sections, (), is_text=False, help="settings of some scripts; [[script]] in a configuration file"
    )

    trusted_proxies: tuple[str, ...] = setting(
        values.networks,
        (),
        help="proxies whose X-Forwarded fields count: addresses, networks, unix (a Unix socket)",
    )
    proxy_headers: tuple[str, ...] = setting(
        values.proxy_headers,
        ("X-Forwarded-For", "X-Forwarded-Proto"),
        help="fields that each trusted proxy sets, of X-Forwarded-For, -Proto, -Host, -Port, -Prefix",
    )
    health: bool = setting(
        values.flag, False, help="answer at /-/health, /-/health/live and /-/health/ready, for probes"
    )
    metrics: bool = setting(
        values.flag_with_package("prometheus_client", extra="metrics"),
        False,
        help="answer at /-/metrics, for Prometheus (extra metrics)",
    )
    log_format: str = setting(
        values.choice("text", "json"), "text", help="json: the log has a line of JSON for each run of a script"
    )
    request_id: bool = setting(
        values.flag, False, help="take a request's id from its X-Request-Id, or make one, and send it to the client"
    )
    server_timing: bool = setting(values.flag, False, help="send Server-Timing: what took how long; for development")

    debug: bool = setting(
        values.flag,
        False,
        help="show the cause of a failure, the source and the variables in error pages; never in production",
    )

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            object.__setattr__(self, item.name, parse_setting(item.name, getattr(self, item.name), item.name))
        _require_sandbox(self)
        _require_one_process(self)

    def for_script(self, script_path: str) -> Config:
        """The settings that hold for a script.

        Args:
            script_path: The part of the URL path that names it, as in ``environ``: bytes shown as latin-1 (PEP 3333).
        """
        return self.with_sections(self.sections_for(script_path))

    def sections_for(self, script_path: str) -> tuple[Section, ...]:
        """The sections for a script, in their order."""
        if not self.scripts:
            return ()
        path = script_path.encode("latin-1").decode("utf-8", "surrogateescape")
        return tuple(section for section in self.scripts if section.matches(path))

    def with_sections(self, chosen: Iterable[Section]) -> Config:
        """These settings with those of sections: the later ones win, ``env`` is added to.

        Nothing is checked again, so this is cheap and cannot fail.
        """
        merged: dict[str, Any] = {"scripts": ()}
        for section in chosen:
            merged.update(_PARTS_OFF if "sandbox" in section.settings and not section.settings["sandbox"] else {})
            env = {**merged.get("env", self.env), **section.settings.get("env", {})}
            merged.update({**section.settings, "env": env})
        effective = copy.copy(self)
        for name, value in merged.items():
            object.__setattr__(effective, name, value)
        return effective


def section_giving(name: str, chosen: Iterable[Section]) -> Section | None:
    """The one of a script's sections whose value of a setting holds; None: it comes from outside of the sections."""
    return next((section for section in reversed(tuple(chosen)) if name in section.settings), None)


# What a sandbox is made of; a section that switches it off switches these off too.
_PARTS_OFF = {"network": True, "writable": ()}


def _require_sandbox(config: Config) -> None:
    """See to it that what only a sandbox can do is never said to a script without one, whatever sections it has."""
    _require_sandbox_for({"network": config.network, "writable": config.writable}, config.sandbox, "")
    sandbox = config.sandbox
    for section in config.scripts:
        _require_sandbox_for(section.settings, section.settings.get("sandbox", sandbox), f"{section.place}: ")
        if "sandbox" in section.settings and section.settings["sandbox"] is None:
            sandbox = None  # for some scripts, so later sections cannot rely on it


def _require_sandbox_for(settings: Mapping[str, Any], sandbox: str | None, place: str) -> None:
    if sandbox is not None:
        return
    for name, off in _PARTS_OFF.items():
        if settings.get(name, off) != off:
            what = "network=False" if name == "network" else name
            raise ConfigError(f"{place}{what} needs a sandbox: say sandbox='bwrap' beside it, or leave {name} out")


def _require_one_process(config: Config) -> None:
    """A runner that lends this process to scripts can do so for all of them only."""
    for section in config.scripts:
        runner = section.settings.get("runner", config.runner)
        if "inprocess" in (runner, config.runner) and runner != config.runner:
            raise ConfigError(f"{section.place}: runner='inprocess' is for all scripts or none: give it outside")


def setting_names() -> list[str]:
    """The names of all settings, in the order of their declaration."""
    return [item.name for item in dataclasses.fields(Config)]


def parse_setting(name: str, value: object, place: str) -> Any:
    """Check a value of a setting; ``place`` is what a message begins with."""
    try:
        return declaration(name).metadata["parse"](value)
    except ConfigError:  # which has its place
        raise
    except ValueError as error:
        raise ConfigError(f"{place}{_shown(value)}: {error}") from None


def declaration(name: str) -> dataclasses.Field[Any]:
    """How a setting was declared."""
    return next(item for item in dataclasses.fields(Config) if item.name == name)


def require_known(name: object, known: list[str], place: str = "") -> None:
    """Refuse the name of a setting that is none."""
    if name in known:
        return
    if not isinstance(name, str) or not name.isidentifier():
        name = repr(name)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]!r}?" if close else f"Settings are: {', '.join(known)}"
    raise ConfigError(f"{place}{name}: there is no such setting. {hint}")


def _shown(value: object) -> str:
    """A wrong value for a message, unless the message names the part of it that is wrong."""
    if isinstance(value, str | bool | int | float | os.PathLike) or value is None:
        return f"={value!r:.80}"
    return ""


def settings_table() -> str:
    """The settings as a table in reStructuredText, for the README."""
    rows = [("Setting", "Default", "What it is")]
    for item in dataclasses.fields(Config):
        default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        text = item.metadata["help"] + (f"; {item.metadata['unit']}" if item.metadata["unit"] else "")
        rows.append((f"``{item.name}``", f"``{default!r}``", text))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    rule = " ".join("=" * width for width in widths)
    lines = [" ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])
