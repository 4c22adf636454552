"""The process that runs the model: `python -m adapterscan.runners.child`.

Reads one JSON line per question from standard input and answers with one. Whatever libraries print
goes to standard error. Its environment has no token of any hub and tells the hub's client to stay
offline; its memory is limited where the asker says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from adapterscan.apart import lift_limits


def main() -> None:
    """Answer until the questions end."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    runner: Any = None
    for line in sys.stdin:
        question = json.loads(line)
        try:
            if question["ask"] == "open":
                runner = _open(question)
                _tell(answers, {"answer": asdict(runner.facts)})
            else:
                from adapterscan.runners.wire import arguments

                given = arguments(question["ask"], question["with"])
                found = getattr(runner, question["ask"])(*given)
                _tell(answers, {"answer": found})
        except Exception as error:  # whatever breaks in there, the asker decides what to do
            _tell(answers, {"problem": type(error).__name__, "text": str(error)[:600]})


def _open(question: dict[str, Any]) -> Any:
    lift_limits()
    _limit_memory(question["memory"])
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from adapterscan.runners.head_runner import HeadRunner
    from adapterscan.runners.transformers_runner import TransformersRunner

    staged: Path | None = None
    kind: type[TransformersRunner] = TransformersRunner
    if question["adapter"]:
        staged = Path(question["adapter"])
        config = json.loads((staged / "adapter_config.json").read_text("utf-8"))
        kind = HeadRunner if config["task_type"] == "SEQ_CLS" else TransformersRunner
    return kind(
        Path(question["base"]), staged, question["device"], question["threads"], question["dtype"]
    )


def _limit_memory(limit: int) -> None:
    """Limit private memory; a GPU's driver maps far more than it uses, so not there."""
    if limit:
        with contextlib.suppress(ImportError, ValueError, OSError):
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _tell(out: TextIO, answer: dict[str, Any]) -> None:
    out.write(json.dumps(answer, default=asdict) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
