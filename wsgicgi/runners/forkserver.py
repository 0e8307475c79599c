"""Python and Perl scripts from warm parents; all others, and what no warm process does faithfully, by ``spawn``.

There is one warm parent (``warmparent``) for each ``Kind`` of scripts: interpreter, options, variables, identity,
modules. It starts while the request that wants it goes the cold way: nobody waits for it, and a request that finds none
ready, or one that has just gone, loses nothing.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Sequence

from . import shebang, warmperl
from .base import LEARN, Execution, Invocation
from .shebang import Kind, plan
from .spawn import SpawnRunner
from .warmparent import NotTaken, PerlParent, Planned, WarmParent
from .warmperl import PerlKind

#: Parents that one runner has, each of some megabytes; seconds that one is kept while scripts of another kind come.
MAX_PARENTS = 8
KEEP_SECONDS = 10.0
#: Seconds until a parent must be ready.
READY_SECONDS = 60.0
#: Seconds until a parent that could not start is tried again: at first, and at most.
FIRST_DELAY = 1.0
MAX_DELAY = 300.0
#: Seconds between two parents that differ in what was learned, and the most modules that are.
LEARN_SECONDS = 1.0
MAX_LEARNED = 1000

_logger = logging.getLogger("wsgicgi")


class _Parents:
    """The parents of one kind of scripts: the one that starts them, and the one that will."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.used_at = 0.0
        self._lock = threading.Lock()
        self._state = kind.state
        self._current: WarmParent | None = None
        self._next: WarmParent | None = None
        self._modules: list[str] = [] if kind.preload == LEARN else [name for name in kind.preload if "::" not in name]
        self._dropped: set[str] = set()
        self._has_learned = False
        self._start_at = 0.0
        self._delay = FIRST_DELAY
        self._name = f"{' '.join((kind.interpreter, *kind.options))}"

    def find(self) -> WarmParent | None:
        """The one that is ready; None: none is, but the next may be."""
        with self._lock:
            self.used_at = time.monotonic()
            self._look_at_interpreter()
            self._hear_current()
            self._hear_next()
            if self._next is None and self._wants_next():
                self._start_next()
            return self._current

    def _look_at_interpreter(self) -> None:
        state = self.kind.state
        if state != self._state:
            self._state = state
            self._retire(self._current, self._next)
            self._current = self._next = None
            self._dropped.clear()
            self._start_at = 0.0

    def _hear_current(self) -> None:
        parent = self._current
        if parent is None:
            return
        messages = parent.messages()
        for kind, value in messages or ():
            if kind == b"L" and self.kind.preload == LEARN:
                self._learn(value)
            elif kind == b"P":
                shebang.note_places(*value)
            elif kind == b"W":
                _logger.warning("%s: preload: %s", self._name, value)
            elif kind == b"X":
                parent.retire()
                self._current = None
                self._start_at = 0.0
        if messages is None:
            _logger.warning("%s: the warm parent of scripts has gone (killed?); another takes its place", self._name)
            parent.close()
            self._current = None
            self._start_at = time.monotonic() if time.monotonic() - parent.begin > FIRST_DELAY else self._later()

    def _learn(self, names: Sequence[str]) -> None:
        new = [name for name in names if not self._is_dropped(name) and name not in self._modules]
        if new and len(self._modules) < MAX_LEARNED:
            self._modules += new
            self._has_learned = True

    def _is_dropped(self, name: str) -> bool:
        return any(name == each or name.startswith(each + ".") for each in self._dropped)

    def _hear_next(self) -> None:
        parent = self._next
        if parent is None:
            return
        messages = parent.messages()
        for kind, value in messages or ():
            if kind == b"R":
                parent.get_ready(value)
                self._retire(self._current)
                self._current, self._next = parent, None
                self._delay = FIRST_DELAY
                return
            if kind == b"D":
                self._drop(*value)
                return
        if messages is None:
            self._fail(parent.last_words() or "it has gone before it was ready")
        elif time.monotonic() - parent.begin > READY_SECONDS:
            self._fail(f"it is not ready after {READY_SECONDS:.0f} s")

    def _drop(self, name: str, reason: str) -> None:
        """Begin again without a module."""
        if not name:
            self._fail(reason)
            return
        _logger.warning("%s: preload: %s is not kept warm: %s", self._name, name, reason)
        self._dropped.add(name)
        self._modules = [each for each in self._modules if not self._is_dropped(each)]
        self._retire(self._next)
        self._next = None
        self._has_learned = True  # what is left is still to be imported
        self._start_at = 0.0

    def _fail(self, reason: str) -> None:
        if self._delay == FIRST_DELAY:
            _logger.warning("%s cannot be kept warm (%s): its scripts are started cold", self._name, reason)
        if self._next is not None:
            self._next.kill()
            self._next.close()
            self._next = None
        self._start_at = self._later()

    def _later(self) -> float:
        delay, self._delay = self._delay, min(self._delay * 2, MAX_DELAY)
        return time.monotonic() + delay

    def _wants_next(self) -> bool:
        now = time.monotonic()
        if self._current is None:
            return now >= self._start_at
        return self._has_learned and now >= max(self._start_at, self._current.begin + LEARN_SECONDS)

    def _start_next(self) -> None:
        self._has_learned = False
        try:
            parent = PerlParent if isinstance(self.kind, PerlKind) else WarmParent
            self._next = parent(self.kind, self._modules)
        except OSError as error:
            self._fail(error.strerror or str(error))

    def _retire(self, *parents: WarmParent | None) -> None:
        for parent in parents:
            if parent is not None:
                parent.retire()

    def close(self) -> None:
        """Let all go."""
        for parent in (self._current, self._next):
            if parent is not None:
                parent.close()
        self._current = self._next = None

    def retire(self) -> None:
        """Let all go when their scripts have ended."""
        with self._lock:
            self._retire(self._current, self._next)
            self._current = self._next = None


class WarmRunner(SpawnRunner):
    """Starts Python and Perl scripts from warm parents, and all others as ``SpawnRunner`` does."""

    def __init__(self) -> None:
        super().__init__()
        self._parents: OrderedDict[Kind, _Parents] = OrderedDict()
        self._lock = threading.Lock()
        _runners.add(self)

    def start(self, invocation: Invocation) -> Execution:
        """Start a script; see ``Runner``."""
        execution = self._start_warm(invocation)
        return super().start(invocation) if execution is None else self._remember(execution)

    def _start_warm(self, invocation: Invocation) -> Execution | None:
        found = (plan(invocation) or warmperl.plan(invocation)) if sys.platform != "win32" else None
        parent = None if found is None else self.find(found.kind)
        if found is None or parent is None:
            return None
        given = {item.name: getattr(invocation, item.name) for item in dataclasses.fields(Invocation)}
        try:
            return parent.start(Planned(**{**given, "argv": found.argv}, plan=found))
        except NotTaken:
            return None

    def find(self, kind: Kind) -> WarmParent | None:
        """A parent that is ready; None: none is."""
        with self._lock:
            parents = self._parents.get(kind)
            if parents is None:
                if not self._has_room():
                    return None
                parents = self._parents[kind] = _Parents(kind)
            self._parents.move_to_end(kind)
        return parents.find()

    def _has_room(self) -> bool:
        if len(self._parents) < MAX_PARENTS:
            return True
        kind, oldest = next(iter(self._parents.items()))
        if time.monotonic() - oldest.used_at < KEEP_SECONDS:
            return False
        oldest.retire()
        del self._parents[kind]
        return True

    def close(self) -> None:
        """End all that still runs, and the parents."""
        super().close()
        self._let_go()

    def _let_go(self) -> None:
        self._lock = threading.Lock()  # in a process that was just forked a thread that is not here may have held it
        parents = list(self._parents.values())
        self._parents.clear()
        for each in parents:
            each.close()


_runners: weakref.WeakSet[WarmRunner] = weakref.WeakSet()


def _let_go() -> None:
    """In a process that was just forked: parents are of one process only."""
    for runner in list(_runners):
        runner._let_go()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_let_go)
