"""The pipeline: coverage, surviving failures, and reading what is really there."""

from pathlib import Path

import pytest

from adapterscan.detectors import BUILT_IN, Detector
from adapterscan.model import Evidence, Need, Severity, Subject
from adapterscan.rules.judging import load_rules
from adapterscan.scan import exit_code, scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref

SHARED = Path(__file__).parents[2] / "shared" / "data" / "adapters"


@pytest.fixture(scope="module")
def book():
    return load_rules()


@pytest.fixture
def scanned(adapters, book):
    def of(name, **options):
        return scan(open_artifact(parse_ref(str(adapters / name)), HubOptions()), book, **options)

    return of


def names(report):
    return {item.name for item in report.evidence}


def rules(report, least=Severity.LOW):
    return {finding.rule for finding in report.findings if finding.severity >= least}


def detector(run, needs=frozenset()):
    return Detector("test", 1, needs, "a test", run)


def test_evidence_survives_a_detector_that_raises(scanned):
    def broken(contents):
        yield Evidence("delta.zero", Subject("module", "f", "m"), 0.0)
        raise RuntimeError("boom")

    report = scanned("benign-qv", detectors=(detector(broken), *BUILT_IN))
    assert "delta.zero" in names(report)
    assert not report.coverage.complete
    assert exit_code([report], Severity.CRITICAL) == 3


def test_an_unmet_need_is_skipped_and_does_not_make_the_scan_incomplete(scanned):
    needy = detector(lambda contents: iter(()), frozenset({Need.BASE}))
    report = scanned("benign-qv", detectors=(needy,))
    assert report.coverage.complete
    assert "a test" not in report.coverage.inspected
    said = [item.reason for item in report.coverage.skipped if item.what == "base model"]
    assert said == ["weights were not compared with the base model"]


@pytest.mark.parametrize("name", ["kohya", "lfs-pointer"])
def test_where_no_adapter_was_read_only_names_hashes_and_documents_were_inspected(scanned, name):
    inspected = set(scanned(name).coverage.inspected)
    assert "content hashes and names" in inspected
    assert inspected <= {
        "content hashes and names", "code, import and code hooks", "configuration",
        "names against those of known owners", "secrets and personal traces in texts",
        "files and repositories that the config names", "how much the configuration asks for",
    }  # fmt: skip


def test_in_an_empty_folder_nothing_was_inspected(tmp_path, book):
    report = scan(open_artifact(parse_ref(str(tmp_path)), HubOptions()), book)
    assert report.coverage.inspected == ()


def test_without_a_config_nothing_was_held_against_it(scanned):
    inspected = scanned("config-missing").coverage.inspected
    assert "spectra, norms and moments of every ΔW" in inspected
    assert "modules against the configuration" not in inspected
    assert "configuration" not in inspected


def test_of_a_file_that_ends_early_no_weights_were_inspected(scanned):
    inspected = scanned("truncated").coverage.inspected
    assert not any("ΔW" in what or "NaN" in what for what in inspected)


def test_templates_were_inspected_where_there_are_some(scanned):
    what = "what chat templates do with a conversation"
    assert what in scanned("template-trigger").coverage.inspected
    assert what not in scanned("benign-qv").coverage.inspected


def test_what_was_skipped_was_not_inspected(scanned):
    def broken(contents):
        raise RuntimeError("boom")

    coverage = scanned("benign-qv", detectors=(detector(broken), *BUILT_IN)).coverage
    assert "a test" in {item.what for item in coverage.skipped}
    assert not {item.what for item in coverage.skipped} & set(coverage.inspected)


def test_too_few_modules_for_any_to_stand_out_were_not_inspected_for_that(scanned):
    assert "modules that stand out" in scanned("benign-deep-qv").coverage.inspected
    assert "modules that stand out" not in scanned("benign-qv").coverage.inspected


def test_findings_outrank_errors_outrank_silence(scanned):
    poisoned, clean = scanned("overwrite-lm-head"), scanned("benign-qv")
    assert exit_code([poisoned, clean], Severity.HIGH, failures=1) == 1
    assert exit_code([clean], Severity.HIGH, failures=1) == 2
    assert exit_code([clean], Severity.HIGH) == 0


@pytest.mark.parametrize(
    "name",
    ["overwrite-layernorm", "overwrite-down-proj", "overwrite-base-layer", "overwrite-lm-head",
     "overwrite-no-prefix"],
)  # fmt: skip
def test_an_undeclared_overwrite_is_critical(scanned, name):
    assert "base-weight-overwrite" in rules(scanned(name), Severity.CRITICAL)


@pytest.mark.parametrize(
    "name",
    ["benign", "benign-bin", "benign-checkpoints", "benign-conv", "benign-deep-qv", "benign-dora",
     "benign-merged-linear", "benign-modules-to-save", "benign-qv",
     "benign-regex-targets", "benign-rslora-patterns", "benign-target-parameters",
     "benign-trainable-tokens", "default-adapter-name"],
)  # fmt: skip
def test_benign_variants_are_analysed_whole_and_raise_nothing_above_low(scanned, name):
    report = scanned(name)
    assert rules(report, Severity.MEDIUM) == set()
    assert report.coverage.complete
    assert report.adapters[0].modules > 0


def test_an_adapted_embedding_is_analysed_whole_and_its_base_layer_is_asked_about(scanned):
    report = scanned("benign-embedding")
    assert rules(report, Severity.MEDIUM) == {"adapted-embedding-replaced"}
    assert report.coverage.complete


def test_every_module_of_an_adapter_is_measured(scanned):
    report = scanned("benign")
    measured = {item.subject.name for item in report.evidence if item.name == "delta.statistics"}
    assert len(measured) == report.adapters[0].modules == 24 * 7


def test_an_edited_module_stands_out_and_its_honest_twin_does_not(scanned):
    def outliers(name):
        found = [e for e in scanned(name).evidence if e.name == "delta.outlier"]
        return {e.subject.name for e in found if abs(e.value) >= 10}

    assert len(outliers("spike-one-module")) == 1
    assert outliers("benign-deep-qv") == set()


def test_statistics_never_reach_medium(scanned):
    for name in ("spike-one-module", "rank-one-dominated", "extreme-norm"):
        report = scanned(name)
        assert rules(report)
        assert rules(report, Severity.MEDIUM) == set()


def test_an_adapter_without_config_is_incomplete(scanned):
    assert exit_code([scanned("config-missing")], Severity.HIGH) == 3


def test_a_folder_without_an_adapter_does_not_look_clean(tmp_path, book):
    (tmp_path / "notes.txt").write_text("nothing here")
    report = scan(open_artifact(parse_ref(str(tmp_path)), HubOptions()), book)
    assert not report.coverage.complete


def test_a_config_beside_changes_the_result_of_the_same_weights(scanned):
    plain, boosted = scanned("benign-deep-qv"), scanned("alpha-pattern-boost")
    assert "scaling-boosted" in rules(boosted)
    assert "scaling-boosted" not in rules(plain)


@pytest.mark.skipif(
    not SHARED.is_dir(), reason="other people's adapters are not beside the checkout"
)
def test_other_peoples_benign_adapters_stay_below_medium(book):
    folders = sorted(
        {
            path.parent
            for path in SHARED.rglob("*")
            if path.suffix in (".safetensors", ".bin", ".npz")
        }
    )
    accused = {}
    for folder in folders:
        report = scan(open_artifact(parse_ref(str(folder)), HubOptions()), book)
        found = rules(report, Severity.MEDIUM)
        if found:
            accused[folder.name] = found
    assert len(folders) >= 25
    assert len(accused) <= 0.05 * len(folders), accused
