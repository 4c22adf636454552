"""What a corpus is made of: a file's bytes under a name, and what a scanner should say of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: "attack": loading it runs something, or hides that it would. "benign": nothing may be alarmed.
#: "inert": it looks like an attack, but no loader runs it as it stands; `why` says so.
Truth = Literal["attack", "benign", "inert"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One file. `name` is unique in its `group`; `file` is the name that it is saved under."""

    group: str
    name: str
    file: str
    data: bytes
    truth: Truth = "attack"
    why: str = ""
    config: bytes = b""  # of the adapter_config.json beside it

    @property
    def key(self) -> str:
        """Return what results are kept under."""
        return f"{self.group}/{self.name}"
