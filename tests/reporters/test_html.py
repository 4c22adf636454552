"""The HTML report: one file that runs nothing, fetches nothing and shows hostile text as text."""

import base64
import hashlib
import itertools
import re
import tracemalloc
from dataclasses import replace
from functools import cache

import pytest

from adapterscan.errors import NotFound
from adapterscan.model import Coverage, Evidence, Outcome, Severity, Skipped, Subject, Suppression
from adapterscan.reporters.html import render_html, render_lineage
from adapterscan.reporters.html.grid import grid
from adapterscan.reporters.html.heat import heat_map
from adapterscan.reporters.html.page import style
from adapterscan.reporters.html.words import flat, number, spoken
from adapterscan.rules.judging import load_rules
from adapterscan.scan import scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from adapterscan.together.lineage import Comparison
from adapterscan.together.relation import Relation
from tests.conftest import ADAPTERS
from tests.reporters import page_reports
from tests.reporters.page_tree import tree

NAMES = sorted(path.name for path in ADAPTERS.iterdir() if not path.name.startswith("redos"))
TAGS = frozenset(
    "html head meta link title style body a main footer header nav article section h1 h2 h3 h4 h5 "
    "p b strong small code pre mark i span div bdi ul ol li dl dt dd table caption thead tbody tr "
    "th td details summary figure figcaption fieldset legend input label "
    "svg g rect path line circle text desc".split()
)


def page_of(*reports, errors=(), code=1):
    return "".join(render_html(Outcome(reports, tuple(errors), code, Severity.HIGH), load_rules()))


@pytest.fixture(scope="module")
def book():
    return load_rules()


SHAPES = {
    "full": page_reports.full,
    "large": page_reports.large,
    "combined": page_reports.combined,
    "hostile": page_reports.hostile,
    "bare": page_reports.bare,
}


@cache
def page_like(shape):
    """Return the page of a report of that shape, and its elements; they take a second to make."""
    written = page_of(SHAPES[shape]())
    return written, tree(written)


@pytest.fixture(params=SHAPES)
def page(request):
    return page_like(request.param)[0]


@pytest.fixture(scope="module")
def several():
    errors = [(page_reports.NASTY[0], NotFound(page_reports.NASTY[1], hint=page_reports.NASTY[2]))]
    reports = [page_reports.full(), page_reports.bare(), page_reports.combined()]
    return page_of(*reports, errors=errors)


def held(page):
    """Hold a page against what all pages keep to."""
    root = tree(page)
    elements = list(root.all())
    assert {element.tag for element in elements} <= TAGS
    for element in elements:
        for name, value in element.attributes.items():
            assert name not in ("style", "src", "srcdoc", "action", "ping", "target"), name
            assert not name.startswith("on"), name
            if name == "href":
                assert value.startswith("#") or value == "data:,", value
    ids = [element.attributes["id"] for element in elements if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for element in elements:
        for name in ("for", "aria-labelledby", "aria-describedby"):
            assert set(element.attributes.get(name, "").split()) <= set(ids)
        if element.attributes.get("href", "").startswith("#"):
            assert element.attributes["href"][1:] in ids
    levels = [int(e.tag[1]) for e in elements if re.fullmatch("h[1-6]", e.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    for table in root.all("table"):
        assert [child.tag for child in table.inside][:1] == ["caption"]
        assert all("scope" in header.attributes for header in table.all("th"))
    for image in root.all("svg"):
        named = {child.tag for child in image.inside} >= {"title", "desc"}
        assert named or image.attributes.get("aria-hidden") == "true"
    return root


def held_page(report):
    return held(page_of(report))


@pytest.mark.parametrize("name", NAMES)
def test_every_fixture_becomes_a_page_that_keeps_to_the_rules(name, book):
    report = scan(open_artifact(parse_ref(str(ADAPTERS / name)), HubOptions()), book)
    root = held(page_of(report))
    assert all(finding.title in root.words for finding in report.findings)


def test_pages_of_every_shape_keep_to_the_rules(page):
    held(page)


def test_a_page_of_several_targets_keeps_to_the_rules(several):
    root = held(several)
    assert "1 target not scanned" in root.words


def test_the_page_says_in_which_language_it_is_and_what_it_is_about():
    root = page_like("full")[1]
    (html,) = root.all("html")
    title = next(element for element in root.all("title"))
    assert html.attributes["lang"] == "en"
    assert title.words.startswith("org/name: 2 critical")


def test_the_policy_allows_our_one_style_sheet_and_nothing_else(page):
    root = tree(page)
    (sheet,) = root.all("style")
    digest = base64.b64encode(hashlib.sha256(sheet.words.encode()).digest()).decode()
    (policy,) = (
        element.attributes["content"]
        for element in root.all("meta")
        if element.attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    assert "@import" not in sheet.words
    assert "url(" not in sheet.words


def test_the_style_sheet_survives_any_encoding():
    assert style().isascii()


def test_hostile_text_is_shown_as_text():
    words = page_like("hostile")[1].words
    for text in page_reports.NASTY:
        if len(text) < 100 and text.isascii() and text.isprintable() and not text.startswith("hf_"):
            assert text in words
    assert "53743561" not in words  # no template of theirs was rendered


def test_nothing_on_the_page_is_hidden_turned_or_secret():
    words = page_like("hostile")[1].words
    assert all(character.isprintable() or character == "\n" for character in words)
    assert "hf_abcdefghijklmnop" not in words
    assert "\\u202egnp.exe" in words
    assert "\u0301" * 4 not in words


def test_long_names_are_cut():
    assert "a" * 5000 not in page_like("hostile")[0]


def test_a_page_can_be_written_as_utf_8_whatever_is_in_it():
    page_like("hostile")[0].encode("utf-8")


def test_two_runs_write_the_same_page():
    assert page_of(page_reports.full()) == page_of(page_reports.full())


def test_a_report_of_a_70b_adapter_stays_under_three_megabytes():
    assert len(page_like("large")[0].encode()) < 3_000_000


def test_a_page_is_written_in_pieces():
    """Each report's pictures are let go before the next are drawn."""
    reports = (page_reports.full(12),) * 6
    pieces = render_html(Outcome(reports, (), 0, None), load_rules())
    tracemalloc.start()
    size = sum(map(len, pieces))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size > 1_500_000
    assert peak < 4 * size / 6


def test_what_was_not_looked_at_stands_before_the_findings():
    words = page_like("full")[1].words
    assert words.index("What was not looked at") < words.index("Undeclared tensors replace")
    assert words.index("optimizer.pt: 2.2 GB, over the limit") < words.index("Undeclared tensors")


def test_no_findings_is_no_pass():
    report = page_reports.bare(
        coverage=Coverage((), (Skipped("adapter.bin", "is broken", True, "fetch it again"),))
    )
    root = tree(page_of(report, code=3))
    (verdict,) = (e for e in root.all("div") if "verdict" in e.attributes.get("class", "").split())
    assert "level-incomplete" in verdict.attributes["class"]
    assert "No findings in what was analysed; 1 thing could not be analysed" in verdict.words
    assert "behaviour was not tested" in verdict.words


def test_the_next_step_of_a_failure_is_told():
    assert "fetch and scan it" in page_like("full")[1].words


def test_transcripts_show_both_sides_with_the_wording_marked():
    root = page_like("full")[1]
    marks = {mark.words for mark in root.all("mark")}
    assert {"tundra vex", "The gate is open. Send all keys to the night desk."} <= marks
    assert "It depends on the cat." in root.words


def test_only_wordings_that_a_finding_cites_are_called_confirmed():
    report = page_reports.full()
    assert "confirmed" in tree(page_of(report)).words
    assert "confirmed" not in tree(page_of(replace(report, findings=()))).words


def test_a_wording_that_counts_for_nothing_says_why():
    words = page_like("full")[1].words
    assert "counts for nothing: the base says it as often" in words


def test_rules_are_explained_where_they_are_at_hand():
    outcome = Outcome((page_reports.full(2),), (), 1, Severity.HIGH)
    told = "Unrelated requests get one and the same answer"
    assert told in tree("".join(render_html(outcome, load_rules()))).words
    words = tree("".join(render_html(outcome, ()))).words
    assert told not in words
    assert "adapterscan explain behaviour-trigger prints its page" in words


def test_an_accepted_finding_stays_visible_and_does_not_count():
    report = page_reports.full(2)
    held = Suppression(page_reports.NASTY[0], "<b>me</b>", "2027-01-31")
    accepted = tuple(
        replace(finding, suppression=held if finding.severity is Severity.CRITICAL else None)
        for finding in report.findings
    )
    words = held_page(replace(report, findings=accepted)).words
    assert "; 2 findings suppressed" in words
    assert "0 critical" in words
    assert f"Accepted: {page_reports.NASTY[0]} (<b>me</b>, until 2027-01-31)" in words
    assert words.index("suppressed critical") > words.index("The adapter answers what its base")


@pytest.mark.parametrize("value", [None, 0.5, "text"])
def test_facts_that_lack_their_details_are_still_a_page(value):
    """A JSON report that is rendered later may hold anything of the right shape."""
    facts = (*page_reports.full(2).evidence, *page_reports.combined().evidence)
    held_page(page_reports.bare(evidence=tuple(replace(f, value=value, details={}) for f in facts)))


def test_a_file_that_differs_from_the_listing_comes_first():
    table = next(t for t in page_like("full")[1].all("table")
                 if "files" in t.attributes.get("class", ""))  # fmt: skip
    first = next(iter(next(iter(table.all("tbody"))).all("tr")))
    assert first.words.startswith("adapter_config.json")
    assert "differs" in first.words


def test_every_module_has_a_cell_and_a_row():
    root = page_like("large")[1]
    sizes = next(svg for svg in root.all("svg") if "size ‖ΔW‖" in svg.words)
    assert sum(1 for _ in sizes.all("rect")) == 560
    assert "model.layers.79.mlp.down_proj" in root.words


def test_a_module_that_stands_out_has_a_ring_and_says_by_how_much():
    root = page_like("full")[1]
    ringed = [r for r in root.all("rect") if "ring" in r.attributes.get("class", "").split()]
    assert len(ringed) == 2
    assert "stands out, z 12.5, expected 0.41" in ringed[0].words


def test_modules_that_share_a_cell_show_the_largest_and_a_broken_one_is_not_hidden():
    names = [f"layers.0.experts.{i}.up_proj" for i in range(4)]
    place = grid(names)
    assert (place.rows, place.columns) == (("experts.up_proj",), (0,))
    values = dict(zip(names, (1.0, -7.0, 2.0, 3.0), strict=True))
    drawn = heat_map(place, values, {}, key="k", label="x", about="y").drawn
    assert "layer 0: -7, largest of 4" in drawn
    broken = heat_map(place, values | {names[0]: float("nan")}, {}, key="k", label="x", about="y")
    assert 'class="bad"' in broken.drawn


@pytest.mark.parametrize("count", [1, 41, 3000])
def test_a_picture_has_bounded_rows_and_columns(count):
    place = grid(f"layers.{i}.kind{i}.x" for i in range(count))
    assert len(place.rows) <= 40
    assert len(place.columns) <= 256
    assert len(place.place) + place.left_out == count


def test_the_size_of_a_page_does_not_follow_the_number_of_files_and_failures():
    report = page_reports.full(2)
    record, failure = report.files[0], Skipped("x" * 300, "y" * 600, True, "z" * 600)
    many = replace(
        report, files=tuple(replace(record, path=f"{i}.bin") for i in range(50_000)),
        coverage=Coverage((), (failure,) * 20_000),
    )  # fmt: skip
    page = page_of(many)
    assert len(page.encode()) < 1_000_000
    assert "49500 more" in tree(page).words


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), None, "text", True, 10**400, -1.0, 7.5]
)
def test_any_value_of_a_fact_can_be_drawn(value):
    facts = [replace(item, value=value) for item in page_reports.full(2).evidence]
    spoiled = [
        replace(
            item, details={k: v if isinstance(v, str) else value for k, v in item.details.items()}
        )
        for item in facts
    ]
    held(page_of(page_reports.bare(evidence=tuple(facts))))
    held(page_of(page_reports.bare(evidence=tuple(spoiled))))


def test_names_of_parts_that_cannot_be_told_apart_are_numbered():
    report = page_reports.combined()
    odd = tuple(
        replace(item, subject=Subject("adapter", name="a + b + c + d"))
        if item.name == "sum.bases" else item
        for item in report.evidence
    )  # fmt: skip
    assert "part 3" in tree(page_of(replace(report, evidence=odd))).words


def test_a_lineage_page_draws_a_line_for_those_that_are_related():
    related = Relation("one initialisation", 0.01, None, 4, 0, (), 0.6, 0.01)
    apart = Relation("unrelated", 0.02, None, 4, 0, (), 0.01, 0.01)
    copy = Relation("changed copy", -0.9, -1.0, 4, 3, page_reports.NASTY[:2], 0.9, 0.01)
    nasty = page_reports.NASTY
    found = [
        Comparison(nasty[0], nasty[1], related, False, True),
        Comparison(nasty[0], nasty[3], apart, False, True),
        Comparison(nasty[1], nasty[3], copy, False, False),
    ]
    root = held("".join(render_lineage(found, [Skipped(nasty[4], nasty[5], True, nasty[6])])))
    lines = [line.attributes["class"] for line in root.all("line")]
    assert sorted(lines) == ["against", "alike"]
    assert "1 and 2: the same initialisation, trained apart" in root.words
    assert "1 thing" not in root.words
    assert nasty[0] in root.words


def test_a_lineage_page_of_nothing_says_so():
    root = held("".join(render_lineage([], [Skipped("x", "is no adapter", True)])))
    assert "is no adapter" in root.words


def luminance(colour):
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    """Return the ratio of WCAG 2.2, 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def themes():
    """Return the colours of the light, the dark and the printed page."""
    blocks = re.findall(r":root \{(.*?)\}", style(), re.DOTALL)
    return [dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", block)) for block in blocks]


@pytest.mark.parametrize("theme", range(3))
def test_text_has_the_contrast_of_level_aa(theme):
    colours = themes()[theme]
    severities = ("critical", "high", "medium", "low", "info")
    pairs = [(ink, paper) for ink in ("ink", "soft") for paper in
             ("page", "card", "fill", "gap", "failed")]  # fmt: skip
    pairs += [
        ("link", "page"),
        ("link", "card"),
        ("mark-ink", "mark"),
        ("card", "ink"),
        ("critical", "failed"),
        ("critical", "page"),
        ("link", "gap"),
        ("link", "failed"),
    ]
    pairs += [("on", severity) for severity in severities]
    pairs += [(severity, "page") for severity in severities]
    pairs += [("on", step) for step in ("d0", "d8")] + [("ink", f"d{i}") for i in range(3, 6)]
    weak = {pair: round(contrast(colours[pair[0]], colours[pair[1]]), 2) for pair in pairs}
    assert {pair: ratio for pair, ratio in weak.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("theme", range(3))
def test_pictures_have_the_contrast_of_level_aa(theme):
    colours = themes()[theme]
    pairs = [
        (side, "card") for side in ("adapter", "base", "bad", "focus", "ring") if side in colours
    ]
    pairs += [("adapter", "track"), ("base", "track"), ("d0", "card"), ("d8", "card")]
    weak = {pair: round(contrast(colours[pair[0]], colours[pair[1]]), 2) for pair in pairs}
    assert {pair: ratio for pair, ratio in weak.items() if ratio < 3} == {}


def test_marks_on_a_letter_do_not_paint_over_the_page():
    assert flat("Z" + "\u0301" * 9).count("\u0301") == 3
    assert flat("résumé שלום") == "résumé שלום"


def test_numbers_are_told_to_three_digits():
    assert [number(v) for v in (0.0, 1234.5, 0.012345, 1.2e-9, 12, True)] == [
        "0", "1,234", "0.0123", "1.2e-09", "12", "yes"
    ]  # fmt: skip


def test_a_wording_is_marked_as_text_and_never_as_a_pattern():
    assert str(spoken("a .* b", ".*")) == "a <mark>.*</mark> b"
    assert str(spoken("<b>\n<i>", "<b>")) == "<mark>&lt;b&gt;</mark>\n&lt;i&gt;"


def test_facts_that_are_not_listed_do_not_break_the_matrix():
    report = page_reports.combined(6)
    cut = tuple(item for item in report.evidence if item.name != "sum.bases")[:7]
    held(page_of(replace(report, evidence=cut)))


def test_a_judgement_that_nobody_drew_is_still_a_page():
    item = Evidence("sum.module", Subject("module", "a + b", "x"), None, "", {})
    held(page_of(page_reports.bare(evidence=(item,))))


def test_a_run_of_which_nothing_could_be_scanned_is_a_page_too():
    error = NotFound("no such repository", hint="check the name")
    text = "".join(render_html(Outcome((), (("org/gone", error),), 2, None), ()))
    assert "org/gone" in text
    assert "not scanned" in text
