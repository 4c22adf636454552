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
from adapterscan.detectors.static import accounting, code, config, files, modules, templates
from adapterscan.detectors.weights import outliers, runtimes, spectra, standing, values

BUILT_IN: tuple[Detector, ...] = (
    files.DETECTOR,
    code.DETECTOR,
    config.DETECTOR,
    templates.DETECTOR,
    accounting.DETECTOR,
    modules.DETECTOR,
    runtimes.DETECTOR,
    values.DETECTOR,
    spectra.DETECTOR,
    outliers.DETECTOR,
    standing.DETECTOR,
    onbase.DETECTOR,
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
