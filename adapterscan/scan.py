"""The pipeline: an artifact goes in, a report comes out. No network, terminal or environment.

`observe` tells what is there, and `scan` has it judged. The two can be in different processes: see
`supervised`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from adapterscan.calibration import Reference, built_in
from adapterscan.desk import Desk
from adapterscan.detectors import BUILT_IN, Detector
from adapterscan.events import Asking, Closed, Doing, Emit, Event, Inspected, Opened, Reading
from adapterscan.formats.chat_templates import SUFFIXES
from adapterscan.formats.tokenizer_reader import limit_of
from adapterscan.formats.transforms import BY_KIND
from adapterscan.model import (
    AdapterSummary,
    Artifact,
    Evidence,
    FileKind,
    Need,
    Report,
    Severity,
    Skipped,
)
from adapterscan.onbase.documents import BaseDocuments, BaseTokenizer
from adapterscan.onbase.used import Used
from adapterscan.provenance.papers import is_signature
from adapterscan.reading import Contents, WeighedAdapter, read_files
from adapterscan.reading.documents import TEMPLATE_DOCUMENT
from adapterscan.rules.judging import RuleBook
from adapterscan.text import plural, printable
from adapterscan.tokenizing import Tokenizers

if TYPE_CHECKING:
    from adapterscan.formats.peft import Adapter
    from adapterscan.onbase.base import BaseWeights
    from adapterscan.probe import ProbeRequest
    from adapterscan.provenance.signing import Key

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
UNSIGNED = Skipped(
    "signatures", "there is none to verify with the key that was given", failed=True,
    hint="ask the author for model.sig, or leave --verify-key out",
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
    `documents`: where its tokenizer and templates are. `key`: to verify signatures with.
    """

    workers: int = 2
    peers: Reference | None = None
    base: BaseWeights | None = None
    no_base: str = ""
    key: Key | None = None
    documents: BaseDocuments | None = None


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
    desk = Desk(rules, config_file)
    reports: list[Report] = []

    def hear(event: Event) -> None:
        match event:
            case Reading(text) | Doing(text) if text:
                progress(text)
        if report := desk.hear(event):
            reports.append(report)

    observe(
        artifact, hear, detectors=detectors, options=options or ScanOptions(), probing=probing,
        keep=keep,
    )  # fmt: skip
    return reports[0]


def tell(event: Event, progress: Callable[[str], None]) -> None:
    """Tell `progress` what is being done, where an event says it."""
    match event:
        case Reading(text) | Doing(text) if text:
            progress(text)


def observe(
    artifact: Artifact,
    emit: Emit,
    *,
    detectors: Sequence[Detector] = BUILT_IN,
    options: ScanOptions,
    probing: ProbeRequest | None = None,
    keep: Callable[[Adapter], None] = lambda _: None,
) -> None:
    """Read `artifact`, run `detectors`, and tell `emit` each fact as soon as it is known.

    Otherwise as `scan`.
    """
    peers = options.peers or built_in()
    base = Used(options.base) if options.base is not None else None
    beside = BaseTokenizer(options.documents) if options.documents else None
    contents = Contents(artifact, peers, base, key=options.key, tokenizers=Tokenizers(beside))
    watch = _Watch(contents, emit)
    contents.tell = watch.doing
    emit(opening(artifact, detectors, options, probing))
    for fact in artifact.evidence:
        emit(fact)
    watch.note(artifact.problems)
    probed: list[Adapter] = []
    adapters = 0
    for weighed in read_files(contents, workers=options.workers, progress=watch.reading):
        watch.pass_on()
        if weighed is None:
            continue
        for detector in detectors:
            watch.note(_run(detector, contents, weighed, watch))
        adapters += 1
        emit(_summary(weighed))
        keep(weighed.adapter)
        if probing and len(probed) < SEVERAL:
            probed.append(weighed.adapter)
        watch.note(_unmeasured(weighed, compared=base is not None))
        del weighed  # the next file needs the room
    watch.reading("")
    for detector in detectors:
        watch.note(_run(detector, contents, None, watch))
    watch.pass_on()
    lacking = {Need.RUNNER} if base is not None else {Need.RUNNER, Need.BASE}
    for detector in detectors:
        if detector.name in watch.given - watch.stopped and not detector.needs & lacking:
            emit(Inspected(detector.inspects))
    watch.note((*contents.tokenizers.skipped, *contents.papers.skipped))
    if options.key is not None and not any(map(is_signature, contents.papers.papers)):
        watch.note((UNSIGNED,))
    if base is not None:
        watch.note(base.notes())
    else:
        watch.note((_not_compared(options, served=bool(probing and probing.served)),))
    if probing:
        _probe(probing, contents, probed, detectors, watch)
    else:
        watch.note((NOT_PROBED,))
    if not adapters and not watch.failed:
        watch.note((_nothing(artifact),))
    watch.note(_unread(artifact, compared=beside is not None))
    emit(Closed())


@dataclass(slots=True)
class _Watch:
    """Tells what comes in, and remembers what decides how a scan went on."""

    contents: Contents
    emit: Emit
    given: set[str] = field(default_factory=set)  # detectors that had something to look at
    stopped: set[str] = field(default_factory=set)  # and those that did not get to their end
    failed: bool = False
    _records: int = 0
    _skipped: int = 0

    def note(self, skipped: Iterable[Skipped]) -> None:
        for item in skipped:
            self.failed |= item.failed
            self.stopped.add(item.detector)
            self.emit(item)

    def facts(self, evidence: Iterable[Evidence]) -> None:
        for item in evidence:
            self.emit(item)

    def pass_on(self) -> None:
        """Tell what reading has found since the last time."""
        contents = self.contents
        self.facts(contents.evidence)
        contents.evidence.clear()
        for item in contents.skipped[self._skipped :]:
            self.failed |= item.failed
            self.emit(item)
        for record in contents.records[self._records :]:
            self.emit(record)
        self._skipped, self._records = len(contents.skipped), len(contents.records)

    def reading(self, path: str) -> None:
        self.pass_on()
        self.emit(Reading(path))

    def doing(self, text: str) -> None:
        self.pass_on()
        self.emit(Doing(text))


def opening(
    artifact: Artifact,
    detectors: Iterable[Detector],
    options: ScanOptions,
    probing: ProbeRequest | None = None,
) -> Opened:
    """Return what is known of a scan before anything is read."""
    peers = options.peers or built_in()
    versions = {
        "detectors": ",".join(f"{d.name}@{d.version}" for d in detectors),
        "reference": ",".join(digest[:DIGEST] for digest in peers.digests),
        **({"base": options.base.name} if options.base is not None else {}),
        **({"base": probing.base_name, "probes": probing.profile.name} if probing else {}),
    }
    ref = artifact.ref
    return Opened(ref.text, artifact.name, ref.kind, artifact.commit, versions)


def _probe(
    probing: ProbeRequest,
    contents: Contents,
    probed: Sequence[Adapter],
    detectors: Sequence[Detector],
    watch: _Watch,
) -> None:
    from adapterscan.probe import run_probes  # what only probes need

    asked: list[str] = []
    watch.emit(Asking(float(probing.seconds)))
    watch.note(run_probes(probing, contents, probed, detectors, watch.facts, asked, watch.doing))
    for what in asked:
        watch.emit(Inspected(what))


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
    detector: Detector, contents: Contents, weighed: WeighedAdapter | None, watch: _Watch
) -> Iterator[Skipped]:
    """Tell a detector's evidence up to wherever it gets: on an adapter, or on all else.

    `watch.given` takes its name if there was something to look at and it got to the end.
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
    if failed := detector.measure(each or partial(detector.run, contents), watch.facts):
        yield failed
    elif detector.had_input(contents, weighed):
        watch.given.add(detector.name)


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


def _unread(artifact: Artifact, *, compared: bool) -> Iterator[Skipped]:
    """Say which files were not looked into. `compared`: with the base's own, where there is one."""
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
    tokenizers = [file.path for file in artifact.files if file.kind is FileKind.TOKENIZER]
    unread = [path for path in tokenizers if not _is_read(path)]
    if unread:
        yield Skipped(
            plural(len(unread), "tokenizer file"), "in a format that is not read "
            f"({printable(', '.join(unread[:3]), 120)})", failed=False,
            hint="compare it with the base model's before you use it",
        )  # fmt: skip
    if len(tokenizers) > len(unread) and not compared:
        yield Skipped(
            plural(len(tokenizers) - len(unread), "tokenizer file"), "was not compared with the "
            "base model's own" if len(tokenizers) - len(unread) == 1
            else "were not compared with the base model's own", failed=False,
            hint="a vocabulary in which words changed places shows beside the base's alone; "
            "--base BASE compares", ask="--base BASE",
        )  # fmt: skip


def _is_read(path: str) -> bool:
    return limit_of(path) is not None or path.lower().endswith((*SUFFIXES, TEMPLATE_DOCUMENT))


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
