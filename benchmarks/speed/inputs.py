"""Write the adapters that are scanned. Run as a module: the launcher must not import numpy."""

from __future__ import annotations

import sys
from pathlib import Path

from fixtures.temporary import llama70b_shaped, seven_b_shaped


def main(name: str, folder: Path) -> None:
    """Write the adapter called `name` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    match name:
        case "7B r=16":
            seven_b_shaped(folder, 16)
        case "7B r=64":
            seven_b_shaped(folder, 64)
        case "70B r=64":
            llama70b_shaped(folder, 64)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
