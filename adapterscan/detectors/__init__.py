"""Detectors measure facts about an artifact; `BUILT_IN` lists them in the order they run."""

from adapterscan.detectors.behaviour import (
    answers,
    heads,
    jailbreaks,
    lexical,
    manner,
    refusal_direction,
    refusals,
    triggers,
)
from adapterscan.detectors.detector import Detector
from adapterscan.detectors.onbase import deltas as onbase
from adapterscan.detectors.onbase import refusal as onbase_refusal
from adapterscan.detectors.onbase import tokenizers as tokenizers_on_base
from adapterscan.detectors.onbase import tokens
from adapterscan.detectors.provenance import cards, leaks, licences, names, signatures
from adapterscan.detectors.static import (
    accounting,
    code,
    config,
    extent,
    files,
    generation,
    indexes,
    modules,
    references,
    templates,
    tokenizers,
    twins,
)
from adapterscan.detectors.weights import (
    bits,
    changes,
    outliers,
    runtimes,
    spectra,
    standing,
    values,
)

BUILT_IN: tuple[Detector, ...] = (
    files.DETECTOR,
    code.DETECTOR,
    indexes.DETECTOR,
    config.DETECTOR,
    references.DETECTOR,
    extent.DETECTOR,
    templates.DETECTOR,
    signatures.DETECTOR,
    names.DETECTOR,
    licences.DETECTOR,
    cards.DETECTOR,
    leaks.DETECTOR,
    tokenizers.DETECTOR,
    generation.DETECTOR,
    tokenizers_on_base.DETECTOR,
    accounting.DETECTOR,
    modules.DETECTOR,
    twins.DETECTOR,
    runtimes.DETECTOR,
    values.DETECTOR,
    bits.DETECTOR,
    spectra.DETECTOR,
    changes.DETECTOR,
    outliers.DETECTOR,
    standing.DETECTOR,
    onbase.DETECTOR,
    tokens.DETECTOR,
    onbase_refusal.DETECTOR,
    refusals.DETECTOR,
    refusal_direction.DETECTOR,
    manner.DETECTOR,
    lexical.DETECTOR,
    jailbreaks.DETECTOR,
    answers.DETECTOR,
    triggers.DETECTOR,
    heads.DETECTOR,
)

__all__ = ["BUILT_IN", "Detector"]
