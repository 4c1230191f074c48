"""What a newcomer sees: each button's effect on the page, in a real browser."""

import re
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from demo_process import PATIENCE, Demo
from mtaio.app import ExitCode

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
# A status that says no is logged by the browser; saying no is what it is for.
ANSWERED_NO = re.compile(r"the server responded with a status of (429|502|503)")
# Elements that would change gradually.
MOVING = """[...document.querySelectorAll("*")].filter(
    (each) => parseFloat(getComputedStyle(each).transitionDuration) > 0).length"""

pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None, reason=f"none of {', '.join(NAMES)} is on the PATH"
    ),
    pytest.mark.timeout(180),
]
expect.set_options(timeout=PATIENCE * 1000)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    with Demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


@pytest.fixture
def visit(browser):
    """Opens the page of a demo; afterwards nothing may have gone wrong in it."""
    faults, contexts = [], []

    def hear(message):
        if message.type in ("error", "warning") and not ANSWERED_NO.search(
            message.text
        ):
            faults.append(message.text)

    def asked(request):
        if not request.url.startswith("http://127.0.0.1:"):
            faults.append(f"asked {request.url}")

    def open_page(demo, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", hear)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", asked)
        page.goto(demo.page)
        expect(page.locator("#readyz strong")).to_have_text("200")
        return page

    open_page.faults = faults
    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def press(page, button, **choose):
    form = page.locator(".action", has=page.get_by_role("button", name=button))
    if choose:
        form.locator("select").select_option(str(choose["seconds"]))
    form.get_by_role("button").click()


def event(page, pattern):
    return page.locator("#events li", has_text=re.compile(pattern)).first


def told(page, chart):
    """What a chart says to those who can't see it."""
    return page.get_by_role("img", name=re.compile(f"^{re.escape(chart)}, the last"))


def longest(page, lane):
    """Milliseconds of the slowest answer in a lane's last minute."""
    text = page.locator(f"#lane-{lane} svg").get_attribute("aria-label")
    return int(re.search(r"the longest took (\d+) ms", text)[1])


def test_all_is_well_and_moves(demo, visit):
    page = visit(demo)

    expect(page.locator("#verdict")).to_have_text(re.compile("healthy|degraded"))
    for lane in ("loop", "thread", "probes"):
        expect(page.locator(f"#lane-{lane} strong")).to_have_text(re.compile(r"\d ms$"))
    expect(page.locator("figure.chart")).to_have_count(9)
    for chart in page.locator("figure.chart").all():
        expect(chart.locator("svg")).to_have_attribute(
            "aria-label", re.compile(r"now [\d.,]+")
        )
        expect(chart.locator("path.line-0")).to_have_attribute("d", re.compile("^M.*L"))
    for check in ("loop", "log", "limiter", "cache", "stock", "items"):
        expect(page.locator(f"#check-{check}")).to_be_visible()


def test_a_blocked_loop_is_seen_while_the_probes_answer(demo, visit):
    page = visit(demo)

    press(page, "Block the loop", seconds=3)

    expect(page.locator("#lane-loop strong")).to_contain_text("no answer for")
    expect(event(page, "has not run for")).to_be_visible()
    expect(event(page, "has not run for").locator(".where")).to_contain_text(
        "read_from_a_slow_disk"
    )
    expect(page.locator("#lane-probes")).to_have_attribute(
        "data-level", re.compile("good|warning")
    )
    expect(page.locator("#livez strong")).to_have_text("200")
    expect(event(page, "runs again after")).to_be_visible()
    expect(page.locator("#lane-loop strong")).to_have_text(re.compile(r"\d ms$"))
    expect(told(page, "Event loop lag")).to_have_attribute(
        "aria-label", re.compile(r"most [1-9][\d.]*,\d{3}")
    )
    assert longest(page, "loop") > max(2000, longest(page, "probes"))


def test_held_by_c_code_only_the_probes_answer(demo, visit):
    page = visit(demo)

    press(page, "Hold the GIL", seconds=3)

    expect(page.locator("#lane-thread strong")).to_contain_text("no answer for")
    expect(page.locator("#lane-probes")).to_have_attribute(
        "data-level", re.compile("good|warning")
    )
    expect(page.locator("#livez strong")).to_have_text("200")
    held = event(page, "the interpreter was held")
    expect(held.locator(".where")).to_contain_text("trouble.py")
    assert longest(page, "thread") > max(2000, longest(page, "probes"))


def test_a_broken_dependency_fails_readiness_with_its_root_cause(demo, visit):
    page = visit(demo)

    press(page, "Break the stock service")

    expect(page.locator("#check-stock .badge")).to_have_text("unhealthy")
    expect(page.locator("#check-stock")).to_contain_text("answered 503")
    expect(page.locator("#check-items .cause")).to_have_text("root cause: stock")
    expect(page.locator("#readyz strong")).to_have_text("503")
    expect(page.locator("#readyz")).to_contain_text("stock: ")
    expect(page.locator("#livez strong")).to_have_text("200")
    expect(page.locator("#verdict")).to_have_text("unhealthy")
    expect(event(page, "alert: stock")).to_be_visible()
    expect(page.locator("#events li", has_text="alert: items")).to_have_count(0)

    press(page, "Mend the stock service")

    expect(page.locator("#check-stock .badge")).to_have_text("healthy")
    expect(page.locator("#check-items .badge")).to_have_text("healthy")
    expect(page.locator("#readyz strong")).to_have_text("200")
    expect(event(page, "check stock went from unhealthy to")).to_be_visible()


def test_a_flood_is_refused_and_its_alert_fires_and_clears(demo, visit):
    page = visit(demo)

    press(page, "Flood the limiter", seconds=5)

    expect(event(page, "alert: limiter_waiting")).to_be_visible()
    expect(told(page, "Limiter: tokens")).to_have_attribute(
        "aria-label", re.compile(r"refused: now [1-9]")
    )
    expect(told(page, "Limiter: line")).to_have_attribute(
        "aria-label", re.compile(r"waiting: .*most ([4-9]\d|\d{3})")
    )
    expect(event(page, "cleared: limiter_waiting")).to_be_visible()
    expect(event(page, "the impatient clients are gone")).to_be_visible()


def test_the_drain_fails_readiness_first_and_loses_no_request(visit, tmp_path):
    with Demo(tmp_path, DRAIN_DELAY=2) as demo:
        page = visit(demo)

        press(page, "Start the drain")

        expect(page.locator("#readyz strong")).to_have_text("503")
        # Not ready any more, but it still serves what is under way.
        expect(page.locator("#phase")).to_have_text("draining")
        expect(page.locator("#in-flight")).not_to_have_text("0")
        expect(page.locator("#lane-loop strong")).to_have_text(re.compile(r"\d ms$"))
        expect(page.locator("#livez strong")).to_have_text("200")
        expect(event(page, "slow request 5 answered .* while stopping")).to_be_visible()
        expect(page.locator("#ended")).to_contain_text("Exit code 0")
        expect(page.locator("#livez strong")).to_have_text("no answer")
        expect(page.get_by_role("button", name="Block the loop")).to_be_disabled()
        assert demo.process.wait(PATIENCE) == ExitCode.CLEAN
    # Nobody listens any more, and the browser says so, at each look of the page.
    page.close()
    refused = [fault for fault in visit.faults if "ERR_CONNECTION" in fault]
    assert visit.faults == refused
    visit.faults.clear()


def test_the_keyboard_is_enough(demo, visit):
    page = visit(demo)
    keys = page.keyboard

    keys.press("Tab")
    expect(page.get_by_role("link", name="Skip to the buttons")).to_be_focused()
    keys.press("Enter")
    keys.press("Tab")
    expect(page.locator("#block-for")).to_be_focused()
    keys.press("ArrowUp")
    expect(page.locator("#block-for")).to_have_value("2")
    keys.press("Tab")
    button = page.get_by_role("button", name="Block the loop")
    expect(button).to_be_focused()
    assert button.evaluate("b => getComputedStyle(b).outlineStyle") != "none"
    keys.press("Space")

    expect(event(page, "blocking the event loop for 2 s")).to_be_visible()
    expect(button).to_be_focused()
    # Told by a screen reader too, without moving the focus.
    expect(page.locator("#announcer")).to_have_text(re.compile("runs again after"))
    summary = page.locator("figure.chart summary").first
    summary.focus()
    keys.press("Enter")
    expect(
        page.get_by_role("row", name=re.compile(r"^0 [\d.]+$")).first
    ).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits(demo, visit, scheme):
    page = visit(demo, color_scheme=scheme, reduced_motion="reduce")
    expect(page.locator("#events li").first).to_be_visible()
    page.locator("details summary").first.click()

    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 800})
        found = Axe().run(page).response["violations"]

        assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(MOVING) == 0


def test_every_request_of_a_visit_stays_on_this_machine(demo, visit):
    page = visit(demo)
    hosts = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))

    page.reload()
    expect(page.locator("#readyz strong")).to_have_text("200")

    expected = {url.removeprefix("http://") for url in (demo.page, demo.probes)}
    assert expected <= hosts <= expected | {demo.service.removeprefix("http://")}
