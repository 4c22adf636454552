"""The HTML report in a real browser: no script, no request, no error, readable everywhere."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from adapterscan.model import Outcome, Severity
from adapterscan.reporters.html import render_html
from adapterscan.rules.judging import load_rules
from tests.reporters import page_reports
from tests.reporters.chromium import BROWSER, browser

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium on this machine: apt-get install chromium"
)


def written(*reports):
    return "".join(render_html(Outcome(reports, (), 1, Severity.HIGH), load_rules()))


@pytest.fixture(scope="module")
def trap():
    """A server that every address in hostile text leads to, with the paths that were asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, asked
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory, trap):
    port, _ = trap
    texts = [text.replace("127.0.0.1:9/", f"127.0.0.1:{port}/") for text in page_reports.NASTY]
    reports = {
        "full": page_reports.full(),
        "large": page_reports.large(),
        "hostile": page_reports.hostile(texts),
        "combined": page_reports.combined(),
    }
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for name, report in reports.items():
        path = folder / f"{name}.html"
        path.write_text(written(report), "utf-8")
        found[name] = path.as_uri()
    return found


@pytest.fixture(scope="module")
def page():
    with browser() as opened:
        yield opened


@pytest.mark.parametrize("name", ["full", "large", "hostile", "combined"])
def test_a_page_opens_without_an_error_and_asks_for_nothing_but_itself(name, page, pages, trap):
    page.look()
    page.open(pages[name])
    assert page.complaints() == []
    assert [url for url in page.requests() if url != pages[name]] == []
    assert trap[1] == []


def test_hostile_text_makes_no_element_and_runs_nothing(page, pages):
    page.look()
    page.open(pages["hostile"])
    held = page.value("document.querySelectorAll('script,img,iframe,object,base,[onload]').length")
    assert held == 0
    assert page.value("document.querySelectorAll('style').length") == 1
    assert page.value("document.querySelectorAll('h1').length") == 1
    assert page.value("document.title").startswith("</script><img src=x")
    assert page.value("document.querySelector('h1').textContent").startswith("</script><img")
    assert page.value("getComputedStyle(document.body).position") == "static"


def test_the_policy_stops_what_is_put_in_afterwards(page, pages):
    """The policy works: a script and a style that are added to the page do nothing."""
    page.look()
    page.open(pages["full"])
    page.value(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
        "document.body.append(s); const c = document.createElement('style');"
        "c.textContent = 'body { position: fixed }'; document.head.append(c); })()"
    )
    assert page.value("window.ran") is None
    assert page.value("getComputedStyle(document.body).position") == "static"
    assert len(page.complaints()) >= 1


@pytest.mark.parametrize("name", ["full", "hostile", "combined"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_is_wider_than_the_window(name, width, page, pages):
    page.look(width)
    page.open(pages[name])
    assert page.value("document.documentElement.scrollWidth") <= width


def test_dark_and_light_follow_the_reader(page, pages):
    seen = set()
    for dark in (False, True):
        page.look(dark=dark)
        page.open(pages["full"])
        seen.add(page.value("getComputedStyle(document.body).backgroundColor"))
    assert seen == {"rgb(246, 247, 248)", "rgb(15, 19, 23)"}


def press(page, key):
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                  windowsVirtualKeyCode={"Tab": 9, "ArrowRight": 39, "Enter": 13}[key])  # fmt: skip


def test_the_first_key_offers_to_skip_to_the_report(page, pages):
    page.look()
    page.open(pages["full"])
    press(page, "Tab")
    assert page.value("document.activeElement.className") == "skip"
    assert page.value("document.activeElement.getBoundingClientRect().left") >= 0


def test_statistics_are_chosen_with_the_arrow_keys(page, pages):
    shown = "[...document.querySelectorAll('.shown')[0].children].map(f => f.offsetHeight > 0)"
    page.look()
    page.open(pages["full"])
    before = page.value(shown)
    page.value("document.querySelector('.tabs input:checked').focus()")
    press(page, "ArrowRight")
    after = page.value(shown)
    assert before.count(True) == after.count(True) == 1
    assert after.index(True) == before.index(True) + 1
    ringed = page.value("getComputedStyle(document.querySelector('input:checked + label')).outline")
    assert "3px" in ringed


def test_a_reader_of_the_screen_hears_a_name_for_every_picture_and_control(page, pages):
    page.look()
    page.open(pages["full"])
    page.call("Accessibility.enable")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = ("image", "radio", "link", "region", "table", "heading", "DisclosureTriangle")
    found = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and node.get("role", {}).get("value") in roles
    ]
    assert {role for role, _ in found} >= {"image", "radio", "link", "region", "heading"}
    assert [role for role, name in found if not name.strip()] == []


def test_paper_is_light_and_shows_the_evidence(page, pages, tmp_path):
    page.look(dark=True)
    page.open(pages["full"])
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    evidence = (
        "document.querySelector('.finding .open-in-print table').getBoundingClientRect().height"
    )
    assert page.value(evidence) > 20
    page.paper(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    page.call("Emulation.setEmulatedMedia", media="")
