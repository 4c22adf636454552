"""The pipeline: an artifact goes in, a report comes out. No network, terminal or environment."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from adapterscan import __version__
from adapterscan.calibration import Reference, built_in
from adapterscan.detectors import BUILT_IN, Detector
from adapterscan.formats.transforms import BY_KIND
from adapterscan.model import (
    AdapterSummary,
    Artifact,
    Coverage,
    Evidence,
    FileKind,
    Need,
    Report,
    Severity,
    Skipped,
)
from adapterscan.onbase.used import Used
from adapterscan.reading import Contents, WeighedAdapter, read_files
from adapterscan.rules.docket import Docket
from adapterscan.rules.judging import RuleBook
from adapterscan.text import plural, printable

if TYPE_CHECKING:
    from adapterscan.formats.peft import Adapter
    from adapterscan.onbase.base import BaseWeights
    from adapterscan.probe import ProbeRequest

DIGEST = 16  # characters of a reference's, in a report
SEVERAL = 2  # adapters: more than one cannot be probed at once
EXIT_CLEAN, EXIT_FINDINGS, EXIT_ERROR, EXIT_INCOMPLETE = 0, 1, 2, 3

#: What was not asked for. A report says so each time.
NOT_PROBED = Skipped(
    "behaviour", "no prompts were run against base + adapter", failed=False,
    hint="a backdoor that only shows when triggered is outside of this report; "
    "--base BASE --probe quick looks for one", ask="--base BASE --probe quick",
)  # fmt: skip
NOT_COMPARED = Skipped(
    "base model", "weights were not compared with the base model", failed=False,
    hint="how large an update is beside its weight, what a merge carries of it, and which "
    "overwrites move something are outside of this report; --base BASE compares",
    ask="--base BASE",
)  # fmt: skip
SERVED = Skipped(
    "base model", "weights were not compared: the base is on a server, which shows none",
    failed=False, hint="scan once more with --base FOLDER or org/name@commit and without --probe",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """How a scan runs. `workers` threads measure weights; results do not depend on them.

    `peers`: adapters to compare with; None: those that come with the package. `base`: the base
    model's weights, to compare with; without them `no_base` may say why there are none.
    """

    workers: int = 2
    peers: Reference | None = None
    base: BaseWeights | None = None
    no_base: str = ""


def scan(
    artifact: Artifact,
    rules: RuleBook,
    *,
    detectors: Sequence[Detector] = BUILT_IN,
    options: ScanOptions | None = None,
    probing: ProbeRequest | None = None,
    config_file: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
    keep: Callable[[Adapter], None] = lambda _: None,
) -> Report:
    """Read `artifact`, run `detectors`, judge their evidence by `rules`, and state the coverage.

    With `probing`, the one adapter in it is loaded onto a base model and asked questions. `keep` is
    told each adapter, for what comes after.
    Never raises for what is in the artifact: a file or a detector that fails becomes a Skipped and
    what was found before stays.
    """
    options = options or ScanOptions()
    workers, peers = options.workers, options.peers or built_in()
    base = Used(options.base) if options.base is not None else None
    contents = Contents(artifact, peers, base, progress)
    docket = Docket(rules)
    compared = base is not None
    docket.add(artifact.evidence)
    skipped = list(artifact.problems)
    adapters: list[AdapterSummary] = []
    probed: list[Adapter] = []
    asked: list[str] = []
    given: set[str] = set()  # detectors that had something to look at
    for weighed in read_files(contents, workers=workers, progress=progress):
        docket.add(contents.evidence)
        contents.evidence.clear()
        if weighed is None:
            continue
        for detector in detectors:
            skipped += _run(detector, contents, weighed, docket, given)
        adapters.append(_summary(weighed))
        keep(weighed.adapter)
        if probing and len(probed) < SEVERAL:
            probed.append(weighed.adapter)
        skipped += _unmeasured(weighed, compared=compared)
        del weighed  # the next file needs the room
    for detector in detectors:
        skipped += _run(detector, contents, None, docket, given)
    stopped = {item.detector for item in skipped}
    lacking = {Need.RUNNER} if compared else {Need.RUNNER, Need.BASE}
    inspected = [
        detector.inspects
        for detector in detectors
        if detector.name in given - stopped and not detector.needs & lacking
    ]
    skipped += contents.skipped
    if base is not None:
        skipped += base.notes()
    else:
        skipped.append(_not_compared(options, served=bool(probing and probing.served)))
    if probing:
        from adapterscan.probe import run_probes  # what only probes need

        skipped += run_probes(probing, contents, probed, detectors, docket.add, asked, progress)
    else:
        skipped.append(NOT_PROBED)
    if not adapters and not any(item.failed for item in skipped):
        skipped.append(_nothing(artifact))
    skipped += _unread(artifact)
    evidence = docket.evidence()
    skipped += _unlisted(docket.counts(), evidence)
    unique = sorted(dict.fromkeys(skipped), key=lambda item: (not item.failed, item.what))
    return Report(
        target=artifact.ref.text,
        name=artifact.name,
        source=artifact.ref.kind,
        commit=artifact.commit,
        files=tuple(contents.records),
        adapters=tuple(adapters),
        findings=docket.findings(),
        evidence=evidence,
        counts=docket.counts(),
        coverage=Coverage((*inspected, *asked), tuple(unique)),
        versions={
            "adapterscan": __version__,
            "detectors": ",".join(f"{d.name}@{d.version}" for d in detectors),
            "rules": rules.digest,
            "reference": ",".join(digest[:DIGEST] for digest in peers.digests),
            **({"base": base.name} if base is not None else {}),
            **({"base": probing.base_name, "probes": probing.profile.name} if probing else {}),
        },
        config_file=config_file,
    )


def exit_code(reports: Iterable[Report], fail_on: Severity | None, failures: int = 0) -> int:
    """Return the exit code for all targets together: findings outrank errors outrank silence.

    Suppressed findings fail nothing, and `fail_on` None never fails on findings. `failures` counts
    targets that gave no report at all.
    """
    reports = list(reports)
    if fail_on is not None and any(
        finding.severity >= fail_on and not finding.suppression
        for report in reports
        for finding in report.findings
    ):
        return EXIT_FINDINGS
    if failures:
        return EXIT_ERROR
    return EXIT_CLEAN if all(r.coverage.complete for r in reports) else EXIT_INCOMPLETE


def _run(
    detector: Detector,
    contents: Contents,
    weighed: WeighedAdapter | None,
    docket: Docket,
    given: set[str],
) -> Iterator[Skipped]:
    """Collect a detector's evidence up to wherever it gets: on an adapter, or on all else.

    `given` takes its name if there was something to look at and it got to the end.
    """
    if Need.RUNNER in detector.needs:  # asked apart, when all was read
        return
    if Need.BASE in detector.needs and contents.base is None:
        return  # which is told once for all of them
    unmet = detector.needs - {Need.FILES, Need.WEIGHTS, Need.PEERS, Need.BASE}
    if unmet:
        needs = ", ".join(sorted(need.value for need in unmet))
        yield Skipped(detector.inspects, f"needs {needs}", failed=False, detector=detector.name)
        return
    each = partial(detector.each, contents, weighed) if weighed is not None else None
    if failed := detector.measure(each or partial(detector.run, contents), docket.add):
        yield failed
    elif detector.had_input(contents, weighed):
        given.add(detector.name)


def _not_compared(options: ScanOptions, *, served: bool) -> Skipped:
    if served:
        return SERVED
    if not options.no_base:
        return NOT_COMPARED
    reason = f"weights were not compared with the base model: {printable(options.no_base, 200)}"
    hint = "--base FOLDER with safetensors compares"
    return replace(NOT_COMPARED, reason=reason, hint=hint, ask="")


def _nothing(artifact: Artifact) -> Skipped:
    return Skipped(
        artifact.name, "no adapter found: no weight file in a layout that we know", failed=True,
        hint="name the folder that holds adapter_config.json (hub: org/name@revision:subfolder)",
    )  # fmt: skip


def _unlisted(counts: Mapping[str, int], listed: Iterable[Evidence]) -> Iterator[Skipped]:
    left = Counter(counts) - Counter(item.name for item in listed)
    if left:
        names = ", ".join(f"{count:,} {name}" for name, count in left.items())
        yield Skipped(
            "evidence", f"{plural(left.total(), 'more fact')} than there is room to list ({names})",
            failed=False, hint="all were judged: findings count them and cite the worst",
        )  # fmt: skip


def _unread(artifact: Artifact) -> Iterator[Skipped]:
    """Say which files were not looked into."""
    told = {problem.what for problem in artifact.problems}
    absent = [f for f in artifact.files if f.local is None and f.parts is None]
    for file in absent:
        if file.path in told:
            continue
        if file.kind in (FileKind.WEIGHTS, FileKind.PICKLE, FileKind.UNKNOWN):
            failed = file.kind is FileKind.PICKLE
            hint = "fetch and scan it before you load it"
            yield Skipped(file.path, file.not_fetched or "not fetched", failed, hint)
    others = [file.path for file in absent if file.kind is FileKind.OTHER]
    if others:
        yield Skipped(
            f"{plural(len(others), 'other file')} ({', '.join(others[:3])}"
            f"{', …' if len(others) > 3 else ''})",
            "text or media, listed but not fetched", failed=False,
        )  # fmt: skip
    unread = [file.path for file in artifact.files if file.kind is FileKind.TOKENIZER]
    if unread:
        yield Skipped(
            plural(len(unread), "tokenizer file"), "only chat templates in them were analysed",
            failed=False, hint="what the tokenizer makes of texts is outside of this report: "
            "compare it with the base model's before you use it",
        )  # fmt: skip


def _unmeasured(weighed: WeighedAdapter, *, compared: bool) -> Iterator[Skipped]:
    """Say where the deltas are not all that an adapter does. `compared`: a base was at hand."""
    config, deltas = weighed.adapter.config, weighed.adapter.deltas
    if weighed.adapter.transforms and not compared:
        needs = BY_KIND[weighed.adapter.transforms[0].kind].needs
        yield Skipped(
            weighed.file, f"{printable(config.peft_type, 40)}: what it adds to weights depends on "
            f"{needs}, so that ΔW was not measured", failed=True, hint="--base BASE measures it",
            detector="weighing",
        )  # fmt: skip
    if any(delta.magnitude is not None for delta in deltas) and not compared:
        yield Skipped(
            weighed.file, "DoRA: B·A was measured; the true delta also needs the base weights",
            failed=False, hint="--base BASE measures it", detector="weighing",
        )  # fmt: skip
    if config.raw.get("kasa_config") and any(delta.diag is not None for delta in deltas):
        yield Skipped(
            weighed.file, "KaSA: B·diag·A was measured; the base also loses its smallest "
            "singular directions, which needs its weights", failed=False, detector="weighing",
        )  # fmt: skip
    if config.raw.get("use_qalora"):
        yield Skipped(
            weighed.file, "QALoRA: B·A was measured; on a quantized base it acts on sums over "
            "groups of inputs, which scales its norm", failed=False, detector="weighing",
        )  # fmt: skip
    initialisation = config.raw.get("init_lora_weights")
    if isinstance(initialisation, str) and initialisation.lower() != "gaussian":
        yield Skipped(
            weighed.file, "its initialisation changes the base; ΔW against the original base "
            "differs from B·A unless it was converted", failed=False, detector="weighing",
        )  # fmt: skip
    if not config.path:
        yield Skipped(
            weighed.file, "no adapter_config.json beside it: scale and declared weights are "
            "unknown", failed=True, hint="fetch the config from where the weights came from",
            detector="reading",
        )  # fmt: skip


def _summary(weighed: WeighedAdapter) -> AdapterSummary:
    adapter = weighed.adapter
    ranks = Counter(str(delta.rank) for delta in adapter.deltas)
    norms = weighed.weighed.deltas.column("frobenius").tolist()
    return AdapterSummary(
        path=adapter.folder,
        weights=weighed.file,
        peft_type=adapter.config.peft_type or "LORA",
        base_model=adapter.config.base_model,
        modules=len({d.module for d in adapter.deltas} | {t.module for t in adapter.transforms}),
        tensors=len(adapter.weights.tensors),
        parameters=sum(tensor.numel for tensor in adapter.weights.tensors),
        ranks=dict(sorted(ranks.items(), key=lambda item: int(item[0]))),
        frobenius_norm=math.hypot(*norms) if norms else None,
    )
