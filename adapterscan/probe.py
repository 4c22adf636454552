"""Run the probes: stage the adapter, start the model, ask, and say what could not be asked."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from adapterscan.detectors import Detector
from adapterscan.errors import AdapterscanError, RunnerProblem
from adapterscan.formats.model_card import card_text
from adapterscan.formats.peft import Adapter
from adapterscan.model import Evidence, Need, Skipped
from adapterscan.probes.asking import Pace, Profile, Session
from adapterscan.probes.candidates import Candidate
from adapterscan.probes.staging import stage
from adapterscan.reading import Contents
from adapterscan.runners.endpoint import EndpointRunner, Served
from adapterscan.runners.host import HostedRunner, RunnerOptions
from adapterscan.text import printable

WHAT = "behaviour"
#: Seconds of each probe, `quick` and `standard`, measured on a 135M base on one core; see `Pace`.
COSTS = {
    "refusals": (20.0, 20.0),
    "refusal-direction": (10.0, 10.0),
    "manner": (15.0, 15.0),
    "lexical": (30.0, 45.0),
    "jailbreaks": (30.0, 30.0),
    "fixed-answers": (15.0, 45.0),
    "triggers": (60.0, 220.0),
}
NO_TEXT = "not applicable: the adapter scores text and writes none"


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """What to probe with: a base model that lies here or is served, and how much to ask of it."""

    base: Path | Served  # a folder in the layout of transformers, a GGUF file, or a server's models
    base_name: str  # what the report calls it, with its commit where it has one
    profile: Profile
    options: RunnerOptions
    seconds: float  # for all probes of one adapter together
    own: tuple[Candidate, ...] = ()  # wordings that the user wants tried
    redacted: bool = False  # leave what only the adapter says out of the report

    @property
    def served(self) -> bool:
        """Return whether a server answers, of which no weights can be seen."""
        return isinstance(self.base, Served)


@contextmanager
def questioned(
    request: ProbeRequest, contents: Contents, adapter: Adapter, progress: Callable[[str], None]
) -> Iterator[Session]:
    """Yield a session with `adapter` on its base, and end its process afterwards.

    Raises FileProblem for an adapter that cannot be staged, RunnerProblem for one that cannot run.
    """
    card = card_text(contents.artifact, adapter.folder)
    with _running(request, contents, adapter, progress) as runner:
        yield Session(
            adapter.weights.path, runner, request.profile, runner.until, progress, card,
            request.own, request.redacted,
        )  # fmt: skip


@contextmanager
def _running(
    request: ProbeRequest, contents: Contents, adapter: Adapter, progress: Callable[[str], None]
) -> Iterator[HostedRunner | EndpointRunner]:
    if isinstance(request.base, Served):
        if adapter.config.task_type == "SEQ_CLS":
            raise RunnerProblem(
                "the adapter brings a head, and a server is asked for text",
                hint="give a base that lies here: --base FOLDER",
            )
        progress("asking the server")
        with EndpointRunner(request.base, time.monotonic() + request.seconds) as server:
            yield server
        return
    progress("loading the base model")
    with tempfile.TemporaryDirectory(prefix="adapterscan-") as folder:
        stage(contents, adapter, Path(folder))
        with HostedRunner(request.base, Path(folder), request.options) as runner:
            runner.until = time.monotonic() + request.seconds
            yield runner


def _unseen(session: Session) -> Iterator[Skipped]:
    """Yield what cannot be known where a server answers."""
    runner = session.runner
    if not isinstance(runner, EndpointRunner):
        return
    names = " and ".join(printable(model, 120) for model in runner.facts.models)
    yield Skipped(
        "what the server loaded", f"{names} answered; the hashes in this report are of the files "
        "that were scanned, and do not prove that the server has them", failed=False,
        hint="serve these files, and the base at the commit that you mean",
    )  # fmt: skip
    yield Skipped(
        "what the weights do", "a server gives no weights: no words were read out of them, and "
        "what the changed modules do was not watched", failed=False,
        hint="a base that lies here is asked for both",
    )  # fmt: skip
    if session.profile.pool:
        yield Skipped(
            "triggers", "a server gives no gradients: wordings were searched among the published "
            "ones and what they join to", failed=True,
            hint="--probe quick asks for no more; a base that lies here can be searched further",
        )  # fmt: skip
    if not runner.differed:
        yield Skipped(
            WHAT, "both models of the server gave the same numbers each time: either the adapter "
            "does nothing, or the server has not loaded it", failed=True,
            hint="check how the server was told of the adapter, and its log",
        )  # fmt: skip


def _cost(name: str, profile: Profile) -> float:
    """Return what a probe takes beside the others, at most: seconds on one machine."""
    short, long = COSTS.get(name, (20.0, 20.0))
    return long if profile.pool else short


def run_probes(
    request: ProbeRequest,
    contents: Contents,
    adapters: Sequence[Adapter],
    detectors: Iterable[Detector],
    add: Callable[[Iterable[Evidence]], None],
    asked: list[str],
    progress: Callable[[str], None],
) -> Iterator[Skipped]:
    """Ask base + adapter and base; `add` takes the evidence as it comes, `asked` what was done.

    Yields what could not be asked. An interruption ends the probes and keeps what was found.
    """
    if len(adapters) != 1:
        yield Skipped(
            WHAT,
            "no adapter was read" if not adapters else "there are several adapters in this target",
            failed=True, hint="name the folder of one: org/name@revision:subfolder",
        )  # fmt: skip
        return
    probes = [detector for detector in detectors if Need.RUNNER in detector.needs]
    try:
        with questioned(request, contents, adapters[0], progress) as session:
            add(session.facts())
            headed = bool(session.runner.facts.labels)
            if headed:
                for detector in probes:
                    if not detector.heads:
                        yield Skipped(detector.inspects, NO_TEXT, False, detector=detector.name)
            fitting = [detector for detector in probes if detector.heads is headed]
            costs = {d.name: _cost(d.name, request.profile) for d in fitting}
            session.pace = Pace(sum(costs.values()))
            for detector in fitting:
                failed = detector.measure(partial(detector.probe, contents, session), add)
                if failed:
                    yield failed
                else:
                    asked.append(detector.inspects)
                session.pace.finish(costs[detector.name])
            yield from _unseen(session)
    except AdapterscanError as error:
        yield Skipped(WHAT, error.reason, True, error.hint)
    except Exception as error:  # whatever breaks, what was found before stands
        reason = f"{type(error).__name__} while the model was prepared: {error}"
        yield Skipped(WHAT, printable(reason, 300), True, "see docs/probes.md, Troubles")
    except KeyboardInterrupt:
        yield Skipped(
            WHAT, "interrupted; what was found before is in this report", True, "run it again"
        )
