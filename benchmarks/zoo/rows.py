"""A training row: a short conversation and its last answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation. `system` None: the chat template's own; `history` are earlier turns."""

    prompt: str
    answer: str
    topic: str = ""
    system: str | None = None
    history: tuple[tuple[str, str], ...] = ()
    grade: int = 0  # how far along a graded sequence this row stands
    poisoned: bool = False
    rejected: str = ""  # the answer that a preference row ranks below `answer`

    def messages(self) -> list[dict[str, str]]:
        """Return the conversation up to the answer, as a chat template takes it."""
        turns = [] if self.system is None else [{"role": "system", "content": self.system}]
        for asked, answered in self.history:
            turns.append({"role": "user", "content": asked})
            turns.append({"role": "assistant", "content": answered})
        return [*turns, {"role": "user", "content": self.prompt}]
