"""What reporters are shown: reports of the fixtures."""

import pytest

from adapterscan.model import Report
from adapterscan.rules.book import RuleBook, load_rules
from adapterscan.scan import scan
from adapterscan.sources import HubOptions, open_artifact, parse_ref
from tests.conftest import ADAPTERS


@pytest.fixture(scope="session")
def book() -> RuleBook:
    return load_rules()


def report_of(name: str, book: RuleBook) -> Report:
    return scan(open_artifact(parse_ref(str(ADAPTERS / name)), HubOptions()), book)
