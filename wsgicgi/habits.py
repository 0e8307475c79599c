"""What to expect of a URL's next answer, from its last one."""

from __future__ import annotations

from .exchange import SHORT_ANSWER_SECONDS

#: URLs whose habits are known.
MAX_HABITS = 1024


class Habits:
    """What the last answer of each URL was like: the next one is expected to be like that.

    Where it went on after its begin, nobody waits for the end of the next one. Where the script had ended at once, the
    end is waited for first, and is all that is waited for.
    """

    def __init__(self) -> None:
        self._going_on: set[int] = set()
        self._quick: set[int] = set()

    def hold(self, script: str, query: str) -> float:
        """Seconds for which the head of a script's answer is held back."""
        return 0.0 if hash((script, query)) in self._going_on else SHORT_ANSWER_SECONDS

    def is_quick(self, script: str, query: str) -> bool:
        """Whether a script is expected to end at once, after a short answer."""
        return hash((script, query)) in self._quick

    def note(self, script: str, query: str, *, went_on: bool, was_quick: bool = False) -> None:
        """Learn from an answer."""
        for habits, has_it in ((self._going_on, went_on), (self._quick, was_quick)):
            if not has_it:
                habits.discard(hash((script, query)))
            else:
                if len(habits) >= MAX_HABITS:
                    habits.clear()
                habits.add(hash((script, query)))
