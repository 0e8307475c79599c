"""The terms on which a script runs: the settings that hold for it, made into what others take."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from . import identity, metavars
from .admission import Pool
from .config import Config, Section, section_giving
from .errors import ConfigError
from .exchange import Limits
from .runners import Restrictions, sandbox
from .scripts import Script
from .urlpaths import native

#: Combinations of sections whose terms are kept.
MAX_TERMS = 256
#: Processes that a sandbox takes beside the script's own.
SANDBOX_PROCESSES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What holds for the scripts that have the same sections.

    Attributes:
        config: Their settings.
        base: The variables that each gets, whatever the request.
        limits: What their answers are held to.
        restrictions: What the system holds them to.
        pools: Where they wait for their turn.
        bwrap: The program that confines them, if they are confined.
    """

    config: Config
    base: Mapping[str, str]
    limits: Limits
    restrictions: Restrictions
    pools: tuple[Pool, ...]
    bwrap: str | None

    def sandbox_of(self, script: Script) -> tuple[str, ...]:
        """The words that confine a script."""
        if self.bwrap is None:
            return ()
        return sandbox.prefix(
            self.bwrap,
            script_dir=script.file.parent,
            root_dir=script.root_dir,
            writable=self.config.writable,
            network=self.config.network,
            programs=[os.path.dirname(os.path.realpath(script.file))],
        )


class AllTerms:
    """The terms of all scripts of an application.

    Args:
        config: Its settings.
        base: Variables that every script gets beside ``env``; default: what ``metavars.inherited`` chooses.

    Raises:
        ConfigError: Scripts cannot have the identity or the sandbox that they shall have.
    """

    def __init__(self, config: Config, *, base: Mapping[str, str] | None = None) -> None:
        self._config = config
        self._base = base
        self._environ = dict(os.environ)
        self._pools: dict[tuple[str, int], Pool] = {}
        self._with = functools.lru_cache(MAX_TERMS)(self._make)
        for sections in [(), *((section,) for section in config.scripts)]:
            effective = config.with_sections(sections)
            identity.check(effective.run_as)
            if effective.runner == "inprocess":
                _require_nothing_of_processes(effective)
            _find_bwrap(effective)

    def of(self, script: Script) -> Terms:
        """The terms of one script."""
        # a CGIScript has no path below its mount point but its name
        path = script.script_path or "/" + native(script.file.name)
        return self._with(self._config.sections_for(path))

    def general(self) -> Terms:
        """The terms of scripts that no section is for."""
        return self._with(())

    def close(self) -> None:
        """Turn away the requests that wait for their turn."""
        for pool in list(self._pools.values()):
            pool.close()

    def _make(self, sections: tuple[Section, ...]) -> Terms:
        config = self._config.with_sections(sections)
        bwrap = _find_bwrap(config)
        base = metavars.inherited(self._environ, config.pass_env) if self._base is None else self._base
        restrictions = Restrictions(
            max_cpu=config.max_cpu,
            max_memory=config.max_memory,
            max_processes=config.max_processes,
            max_file_size=config.max_file_size,
            max_open_files=config.max_open_files,
            umask=config.umask,
            nice=config.nice,
            no_new_privs=not config.allow_setuid,
        )
        if bwrap is not None and config.max_processes is not None:
            restrictions = dataclasses.replace(restrictions, max_processes=config.max_processes + SANDBOX_PROCESSES)
        return Terms(
            config=config,
            base={**base, **metavars.native(config.env)},
            limits=Limits(
                timeout=config.timeout,
                max_time=config.max_time,
                max_output_bytes=config.max_output_bytes,
                restrictions=restrictions,
            ),
            restrictions=restrictions,
            pools=self._pools_of(sections),
            bwrap=bwrap,
        )

    def _pools_of(self, sections: tuple[Section, ...]) -> tuple[Pool, ...]:
        """The pool of the section that has one, and that of all scripts, in this order."""
        wanted = []
        section = section_giving("max_scripts", sections)
        if section is not None and section.settings["max_scripts"] is not None:
            wanted.append((f"section {section.number}", section.settings["max_scripts"]))
        if self._config.max_scripts is not None:
            wanted.append(("all", self._config.max_scripts))
        # workers of one server make the same names of the same settings
        return tuple(self._pool(f"{self._config.directory}\n{name}", size) for name, size in wanted)

    def _pool(self, name: str, size: int) -> Pool:
        if (name, size) not in self._pools:
            self._pools[name, size] = Pool(name, size)
        return self._pools[name, size]


def _require_nothing_of_processes(config: Config) -> None:
    """Scripts in this process have its identity, and no limits of their own.

    Raises:
        ConfigError: They shall have others.
    """
    if sys.platform != "win32" and (config.run_as == "owner" or identity.known(config.run_as) is not None):
        raise ConfigError(
            "run_as: runner='inprocess' runs scripts as this process itself: say run_as='none' if you mean that, or"
            " take runner='spawn'"
        )
    limits = ("max_cpu", "max_memory", "max_processes", "max_file_size", "max_open_files")
    for name in (*limits, "umask", "nice", "sandbox"):
        if getattr(config, name) is not None:
            raise ConfigError(f"{name}: runner='inprocess' cannot hold scripts to it: leave it out, or take 'spawn'")


@functools.lru_cache(maxsize=MAX_TERMS)
def _bwrap_for(user: int | None, group: int | None) -> str:
    return sandbox.find_bwrap(user=user, group=group)


def _find_bwrap(config: Config) -> str | None:
    if config.sandbox is None:
        return None
    who = None if sys.platform == "win32" else identity.known(config.run_as)
    return _bwrap_for(who.uid if who else None, who.gid if who else None)
