"""Put adapters together in a process of its own, so that nothing in them can hang or end ours.

Limits: one process for all of them. A file that ends it ends the work; the reports before stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from adapterscan.apart import POSSIBLE, Limits, apart
from adapterscan.combination import MergeRequest, combine, merge, place_of
from adapterscan.desk import Desk
from adapterscan.errors import Stopped
from adapterscan.events import Opened, Reading
from adapterscan.model import Artifact, Report, Skipped
from adapterscan.rules.book import RuleBook
from adapterscan.scan import ScanOptions, tell

if TYPE_CHECKING:
    from adapterscan.probe import ProbeRequest


def merge_apart(
    artifacts: Sequence[Artifact],
    rules: RuleBook,
    request: MergeRequest,
    limits: Limits,
    *,
    options: ScanOptions,
    probing: ProbeRequest | None = None,
    config_file: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Report]:
    """Yield what `merge` would, within `limits`. Raises as it, and Stopped.

    The report on which the process ended says so, and is yielded before.
    """
    if not POSSIBLE or not limits.any:
        yield from merge(
            artifacts, rules, request, options=options, probing=probing, config_file=config_file,
            progress=progress,
        )  # fmt: skip
        return
    desk, file, open_report = Desk(rules, config_file), "", False
    with place_of(request) as folder:
        work = partial(combine, artifacts, request, folder, options=options, probing=probing)
        try:
            for event in apart(lambda emit: work(emit=emit), limits):
                tell(event, progress)
                match event:
                    case Reading(path):
                        file = path
                    case Opened():
                        open_report = True
                if report := desk.hear(event):
                    open_report = False
                    yield report
        except Stopped as stopped:
            if open_report:
                what = file or "what the files say together"
                desk.hear(Skipped(what, stopped.reason, True, stopped.hint))
                yield desk.close()
            where = f" (while reading {file})" if open_report and file else ""
            raise Stopped(
                f"nothing was put together: it {stopped.reason}{where}", hint=stopped.hint
            ) from None
