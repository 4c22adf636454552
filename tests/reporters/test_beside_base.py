"""What the terminal report says of a comparison with a base."""

from dataclasses import replace

from adapterscan.model import Evidence, Subject
from adapterscan.reporters.beside_base import beside_base
from adapterscan.reporters.layout import Page
from tests.reporters.test_composition import BARE


def test_the_heading_is_wrapped_to_the_width():
    item = Evidence("base.dora", Subject("adapter", "a"), 1.0, "", {"factors": 1.0})
    report = replace(BARE, evidence=(item,), versions={"base": "/a/long/path/" + "x" * 60})
    heading = next(iter(beside_base(report, Page(width=80))))
    assert max(map(len, heading.splitlines())) <= 80
    assert "no verdict)" in heading.splitlines()[-1]
