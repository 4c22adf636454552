"""A report can be written in other formats later, and a file that is none is refused."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from adapterscan.cli import app
from adapterscan.cli.formats import Format, Wanted, wanted
from adapterscan.errors import UsageError
from adapterscan.report_file import read_report
from adapterscan.reporters.json_report import render_json

ADAPTERS = Path(__file__).parents[1] / "fixtures" / "adapters"


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.json"
    targets = [str(ADAPTERS / name) for name in ("overwrite-layernorm", "header-cut", "benign")]
    run("scan", *targets, "-o", str(path))
    return path


def test_a_report_that_was_read_is_written_as_it_was(written: Path):
    assert "".join(render_json(read_report(written))) == written.read_text("utf-8")


def test_a_report_ends_as_its_scan_did(written: Path):
    code, text = run("report", str(written))
    assert code == 1
    assert "base-weight-overwrite" in text


def test_several_formats_are_written_in_one_scan(tmp_path: Path):
    code, text = run(
        "scan", str(ADAPTERS / "benign"), "-f", "table", "-f", "sarif", "-f", "json",
        "-o", str(tmp_path / "r.json"), "-o", str(tmp_path / "r.sarif"),
    )  # fmt: skip
    assert code == 0
    assert "Coverage" in text
    assert json.loads((tmp_path / "r.sarif").read_text())["version"] == "2.1.0"
    assert json.loads((tmp_path / "r.json").read_text())["schema"] == "1"


def test_a_scan_and_a_later_report_give_the_same_page(tmp_path: Path):
    run("scan", str(ADAPTERS / "header-cut"), "-o", str(tmp_path / "a.json"), "-f", "json",
        "-f", "html", "-o", str(tmp_path / "a.html"))  # fmt: skip
    run("report", str(tmp_path / "a.json"), "-o", str(tmp_path / "b.html"))
    page = (tmp_path / "a.html").read_text("utf-8")
    assert page == (tmp_path / "b.html").read_text("utf-8")
    assert "What was not looked at" in page


def test_a_scan_and_a_later_report_give_the_same_sarif(tmp_path: Path):
    run("scan", str(ADAPTERS / "header-cut"), "-f", "json", "-f", "sarif",
        "-o", str(tmp_path / "a.json"), "-o", str(tmp_path / "a.sarif"))  # fmt: skip
    run("report", str(tmp_path / "a.json"), "-o", str(tmp_path / "b.sarif"))
    assert (tmp_path / "a.sarif").read_bytes() == (tmp_path / "b.sarif").read_bytes()


@pytest.mark.parametrize(
    ("formats", "outputs", "places"),
    [
        ((), (), [("table", None)]),
        (("json",), (), [("json", None)]),
        ((), ("a.sarif",), [("sarif", "a.sarif")]),
        ((), ("a.txt",), [("table", "a.txt")]),
        ((), ("a.cdx.json", "a.json"), [("cyclonedx", "a.cdx.json"), ("json", "a.json")]),
        (("json",), ("report",), [("json", "report")]),
        (("json",), ("a.sarif",), [("json", "a.sarif")]),
        (("table", "sarif"), ("a.sarif",), [("sarif", "a.sarif"), ("table", None)]),
        (("sarif", "json"), ("x", "y"), [("sarif", "x"), ("json", "y")]),
    ],
)
def test_files_take_the_format_of_their_name_or_the_next(formats, outputs, places):
    found = wanted([Format(name) for name in formats], [Path(name) for name in outputs])
    expected = [Wanted(Format(name), Path(path) if path else None) for name, path in places]
    assert found == expected


@pytest.mark.parametrize(
    ("formats", "outputs"), [(("json", "sarif"), ()), ((), ("a.json", "a.json"))]
)
def test_two_reports_in_one_place_are_refused(formats, outputs):
    with pytest.raises(UsageError):
        wanted([Format(name) for name in formats], [Path(name) for name in outputs])


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"schema": "2"}', "null", "[" * 100_000, '{"schema": "1", "reports": 1}'],
)
def test_a_file_that_is_no_report_is_refused(text: str, tmp_path: Path):
    path = tmp_path / "report.json"
    path.write_text(text)
    code, said = run("report", str(path))
    assert code == 2
    assert "is no JSON report of adapterscan" in said


def test_a_missing_report_is_named(tmp_path: Path):
    code, said = run("report", str(tmp_path / "none.json"))
    assert code == 2
    assert "no such file" in said


_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.data())
def test_any_part_of_a_report_may_be_anything(data: st.DataObject, written: Path, tmp_path: Path):
    document = json.loads(written.read_text("utf-8"))
    place = document
    for _ in range(data.draw(st.integers(0, 6))):
        keys = list(place) if isinstance(place, dict) else range(len(place))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key]:
            break
        place = place[key]
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    place[data.draw(st.sampled_from(keys))] = data.draw(_VALUES)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(document))
    result = CliRunner().invoke(app, ["report", str(path)])
    assert isinstance(result.exception, SystemExit | None), result.exc_info
    assert result.exit_code in (0, 1, 2, 3), result.output
