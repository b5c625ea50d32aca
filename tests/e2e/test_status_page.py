"""What does a person see and do at `/`, in a real Chromium on a real daemon?

Promises 1 and 10: what the page calls invalidated is invalidated; the page asks no other server,
and offers nobody what their role refuses.
"""

from __future__ import annotations

import gzip
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import NewDaemon
from tests.support import sample_objects
from tests.support.browser import opened, running_chromium
from tests.support.daemons import Daemon, floor_of_the_whole_disk
from tests.support.grpc_calls import get_garment, get_human
from tests.support.http_calls import ask
from tests.support.sample_objects import fresh_id

MAX_PAGE_BYTES = 150_000
PHONE = {"width": 360, "height": 740}
# The page polls every 2 s; on a busy machine several polls may be needed.
WITHIN_MS = 20_000
ONE_MORE_KIND = {
    "KINDS__DEPTH__MAX_ENTRIES": "20",
    "KINDS__DEPTH__SUBJECT": "user",
    "KINDS__DEPTH__NAMESPACES": '[{"name": "depth_front", "part": "front"}]',
    "KINDS__DEPTH__FIELDS": '[{"name": "depth_img", "encoding": "png", '
    '"template": "users/{owner}/depth/{part}_img.png"}]',
}
_CONTRASTS = """
() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  let seen = 0;
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!text || !element.checkVisibility() || element.closest(":disabled")) continue;
    const style = getComputedStyle(element);
    const colour = parse(element instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(colour), light(ground(element))].sort((x, y) => y - x);
    seen += 1;
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(element.textContent.trim().slice(0, 40));
  }
  return { seen, poor };
}
"""


GETS_PER_SECOND = """
() => {
  const tiles = [...document.querySelectorAll("#figures > div")];
  const tile = tiles.find((one) => one.firstChild.textContent === "Gets per second");
  const legend = [...document.querySelectorAll("#chart-gets .legend li")];
  const number = (element) => Number(element.textContent.match(/[\\d.]+$/)?.[0] ?? 0);
  return [number(tile.querySelector("dd")), legend.map(number)];
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as running:
        yield running


def address(daemon: Daemon) -> str:
    return f"http://127.0.0.1:{daemon.http_port}/"


def cached_garment(daemon: Daemon) -> str:
    """Return the id of a garment that is in L1 and L2."""
    clothing = fresh_id("item")
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.garment(clothing, "shop"))
    get_garment(daemon.stub(), clothing, "shop")
    daemon.wait_until_stored()
    return clothing


def loaded(page: Page) -> None:
    """Return once the page shows the daemon's first answer."""
    expect(page.locator("#figures dd").first).to_be_visible(timeout=WITHIN_MS)


def figure(page: Page, name: str) -> Any:
    return page.locator("#figures > div", has_text=name).locator("dd").first


def search(page: Page, entry_id: str) -> None:
    page.get_by_label("Id (user or clothing)").fill(entry_id)
    page.get_by_role("button", name="Find").click()


def test_the_page_is_one_answer_below_its_weight_with_a_policy_of_hashes(daemon: Daemon) -> None:
    plain = ask(daemon, "GET", "/")
    zipped = ask(daemon, "GET", "/", Accept_Encoding="gzip")
    policy = plain.headers["content-security-policy"]
    assert plain.headers["content-type"] == "text/html; charset=utf-8"
    assert len(plain.body.encode()) < MAX_PAGE_BYTES
    assert zipped.headers["content-encoding"] == "gzip"
    assert int(zipped.headers["content-length"]) < len(plain.body) / 2
    assert re.search(r"script-src 'sha256-[^']+';", policy)
    assert "unsafe" not in policy
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", plain.body)


def test_live_figures_change_under_load_without_a_complaint_or_a_foreign_request(
    new_daemon: NewDaemon, browser: Browser
) -> None:
    daemon = new_daemon()
    clothing = cached_garment(daemon)
    with opened(browser, address(daemon)) as opening:
        page = opening.page
        loaded(page)
        expect(figure(page, "Failed")).to_have_text("0")
        for _ in range(99):
            get_garment(daemon.stub(), clothing, "shop")
        expect(page.get_by_text("100 since the start")).to_be_visible(timeout=WITHIN_MS)
        expect(figure(page, "Hit ratio")).to_have_text(re.compile(r"^(99\.\d|100) %$"))
        expect(page.locator("#chart-gets path.of-memory")).to_have_count(1, timeout=WITHIN_MS)
        expect(page.locator("#chart-latency .legend")).to_contain_text(re.compile(r"L1 memory \d"))
        # Both in one step of the page, or a poll could come in between.
        tile, parts = page.evaluate(GETS_PER_SECOND)
        assert tile == pytest.approx(sum(parts), rel=0.02)
        assert opening.complaints == []
        assert {url.startswith(address(daemon)) for url in opening.requests} == {True}


def test_a_page_just_opened_shows_the_minutes_before(daemon: Daemon, browser: Browser) -> None:
    cached_garment(daemon)
    sampled = ask(daemon, "GET", "/api/history").body["samples"]
    with opened(browser, address(daemon)) as opening:
        loaded(opening.page)
        drawn = opening.page.evaluate("performance.getEntriesByName(location + 'api/history')")
        assert len(drawn) == 1
        assert sampled
        # One poll gives no difference to draw: a chart that is drawn at once came from the daemon.
        expect(opening.page.locator("#chart-gets path").first).to_be_attached(timeout=WITHIN_MS)


def test_a_key_is_found_and_invalidated_after_a_confirmation(
    daemon: Daemon, browser: Browser
) -> None:
    clothing = cached_garment(daemon)
    with opened(browser, address(daemon)) as opening:
        page = opening.page
        loaded(page)
        search(page, clothing)
        expect(page.locator("#finder-status")).to_have_text("Found in garment.")
        expect(page.locator(".found")).to_contain_text(re.compile(r"L1 memory.*L2 disk", re.DOTALL))
        expect(page.locator(".found")).to_contain_text("shop")
        page.get_by_role("button", name="Invalidate: garment").click()
        page.get_by_role("button", name="Keep").click()
        assert ask(daemon, "GET", f"/api/key/garment/{clothing}").body["tiers"]
        page.get_by_role("button", name="Invalidate: garment").click()
        page.get_by_role("dialog").get_by_role("button", name="Invalidate").click()
        expect(page.get_by_text("Invalidated, and final: 1 entry removed.")).to_be_visible()
        expect(page.locator(".found")).to_have_count(0)
        assert ask(daemon, "GET", f"/api/key/garment/{clothing}").body["tiers"] == []
        expect(page.locator("#invalidations")).to_contain_text(clothing, timeout=WITHIN_MS)
        assert opening.complaints == []


def test_an_invalidation_that_failed_is_not_called_final(
    new_daemon: NewDaemon, browser: Browser
) -> None:
    daemon = new_daemon()
    clothing = cached_garment(daemon)
    with opened(browser, address(daemon)) as opening:
        page = opening.page
        loaded(page)
        search(page, clothing)
        page.get_by_role("button", name="Invalidate: garment").click()
        daemon.kill()
        page.get_by_role("dialog").get_by_role("button", name="Invalidate").click()
        expect(page.locator("#finder-status")).to_contain_text("Not known to be invalidated")


def test_the_keyboard_alone_finds_and_invalidates(daemon: Daemon, browser: Browser) -> None:
    clothing = cached_garment(daemon)
    with opened(browser, address(daemon)) as opening:
        page = opening.page
        loaded(page)
        keys = page.keyboard
        keys.press("Tab")
        expect(page.locator(".skip:focus")).to_be_in_viewport()
        keys.press("Enter")
        keys.press("Tab")
        expect(page.get_by_label("Namespace", exact=True)).to_be_focused()
        keys.press("Tab")
        keys.type(clothing)
        keys.press("Enter")
        expect(page.locator(".found")).to_be_visible()
        keys.press("Tab")
        keys.press("Tab")
        expect(page.get_by_role("button", name="Invalidate: garment")).to_be_focused()
        keys.press("Enter")
        expect(page.get_by_role("button", name="Keep")).to_be_focused()
        keys.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        keys.press("Enter")
        expect(page.get_by_role("button", name="Keep")).to_be_focused()
        keys.press("Tab")
        keys.press("Enter")
        expect(page.get_by_text("Invalidated, and final: 1 entry removed.")).to_be_visible()
        expect(page.get_by_label("Id (user or clothing)")).to_be_focused()


def test_a_question_asked_again_at_once_is_not_closed_by_the_first(
    daemon: Daemon, browser: Browser
) -> None:
    clothing = cached_garment(daemon)
    with opened(browser, address(daemon)) as opening:
        page = opening.page
        loaded(page)
        search(page, clothing)
        again = page.get_by_role("button", name="Invalidate: garment")
        again.click()
        # Both in one turn of the page's loop: the event of the closing comes after it.
        again.evaluate(
            """async (button) => {
                 const dialog = document.getElementById("confirm");
                 const closed = new Promise((told) => dialog.addEventListener("close", told));
                 dialog.close();
                 button.click();
                 await closed;
               }"""
        )
        expect(page.get_by_role("button", name="Keep")).to_be_focused()
        page.get_by_role("dialog").get_by_role("button", name="Invalidate").click()
        expect(page.get_by_text("Invalidated, and final: 1 entry removed.")).to_be_visible()


def test_one_person_in_several_categories_goes_by_one_confirmation(
    daemon: Daemon, browser: Browser
) -> None:
    user = fresh_id("user")
    for part in ("upper", "lower"):
        sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user, part))
    get_human(daemon.stub(), user)
    get_human(daemon.stub(), user, category=2)
    with opened(browser, address(daemon)) as opening:
        page = opening.page
        loaded(page)
        search(page, user)
        page.get_by_role("button", name="Invalidate all 2").click()
        page.get_by_role("dialog").get_by_role("button", name="Invalidate").click()
        expect(page.get_by_text("Invalidated, and final: 2 entries removed.")).to_be_visible()
        for space in ("human_upper_body", "human_lower_body"):
            assert ask(daemon, "GET", f"/api/key/{space}/{user}").body["tiers"] == []


def test_what_is_no_id_is_said_to_be_none_and_not_sent(daemon: Daemon, browser: Browser) -> None:
    with opened(browser, address(daemon)) as opening:
        page = opening.page
        loaded(page)
        for entry_id in ("..", "사용자", "a/b", "<img src=x>", "x" * 129, ""):
            page.locator("#finder-status").evaluate("place => place.replaceChildren()")
            search(page, entry_id)
            expect(page.locator("#finder-status")).to_contain_text("An id has 1 to 128 of")
        assert not [url for url in opening.requests if "/api/key" in url]


def test_an_observer_is_told_what_is_not_offered(new_daemon: NewDaemon, browser: Browser) -> None:
    daemon = new_daemon(HTTP__LOOPBACK_ROLE="observer")
    with opened(browser, address(daemon)) as opening:
        page = opening.page
        loaded(page)
        expect(page.get_by_role("button", name="Find")).to_be_disabled()
        expect(page.get_by_text("Your role (observer) may not look up keys.")).to_be_visible()
        assert opening.complaints == []


def test_a_worker_finds_a_key_and_is_offered_no_invalidation(
    new_daemon: NewDaemon, browser: Browser
) -> None:
    daemon = new_daemon(HTTP__LOOPBACK_ROLE="worker")
    clothing = cached_garment(daemon)
    with opened(browser, address(daemon)) as opening:
        page = opening.page
        loaded(page)
        search(page, clothing)
        expect(page.locator(".found")).to_contain_text("Your role may not invalidate")
        expect(page.get_by_role("button", name="Invalidate")).to_have_count(0)


def test_the_page_says_that_the_daemon_is_gone_and_goes_on_with_its_successor(
    new_daemon: NewDaemon, browser: Browser
) -> None:
    daemon = new_daemon()
    with opened(browser, address(daemon)) as opening:
        page = opening.page
        loaded(page)
        expect(page.get_by_role("alert")).to_have_count(0)
        daemon.kill()
        expect(page.get_by_role("alert")).to_contain_text(
            re.compile(r"does not answer\. What you see is from \d\d:"), timeout=WITHIN_MS
        )
        expect(page.get_by_role("heading", name="Not known")).to_be_visible()
        daemon.start()
        expect(page.get_by_role("alert")).to_have_count(0, timeout=WITHIN_MS)
        expect(page.get_by_role("heading", name="Healthy")).to_be_visible()


def test_the_namespaces_of_a_successor_take_the_place_of_those_before(
    new_daemon: NewDaemon, browser: Browser
) -> None:
    daemon = new_daemon()
    with opened(browser, address(daemon)) as opening:
        page = opening.page
        loaded(page)
        choice = page.locator("#namespace")
        before = choice.locator("option").all_text_contents()
        choice.select_option("garment")
        daemon.kill()
        daemon.settings |= ONE_MORE_KIND
        daemon.start()
        expect(choice.locator("option")).to_have_text([*before, "depth_front"], timeout=WITHIN_MS)
        expect(choice).to_have_value("garment")


def test_a_warning_says_what_to_do_and_where_more_is(
    new_daemon: NewDaemon, browser: Browser
) -> None:
    daemon = new_daemon(L2__FREE_FLOOR_BYTES=str(floor_of_the_whole_disk()))
    with opened(browser, address(daemon)) as opening:
        warnings = opening.page.locator("#warnings li", has_text="Others fill the disk")
        expect(warnings).to_contain_text("Do: Find who fills the disk", timeout=WITHIN_MS)
        expect(warnings).to_contain_text("docs/runbook.md#cachesvcdiskatfloor")
        expect(opening.page.locator("#headline")).to_contain_text("warning")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_a_phone_and_is_legible_in_both_themes(
    daemon: Daemon, browser: Browser, scheme: str, width: int
) -> None:
    clothing = cached_garment(daemon)
    look = {"viewport": {"width": width, "height": 740}, "color_scheme": scheme}
    with opened(browser, address(daemon), **look) as opening:
        page = opening.page
        loaded(page)
        search(page, clothing)
        expect(page.locator(".found")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        contrasts = page.evaluate(_CONTRASTS)
        assert contrasts["seen"] > 50
        assert contrasts["poor"] == []


def test_ids_as_long_as_they_may_be_fit_a_phone(new_daemon: NewDaemon, browser: Browser) -> None:
    daemon = new_daemon()
    clothing, owner = "c" * 128, "o" * 128
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.garment(clothing, owner))
    get_garment(daemon.stub(), clothing, owner)
    assert ask(daemon, "DELETE", f"/cache/garment/{clothing}").status == 200
    get_garment(daemon.stub(), clothing, owner)
    with opened(browser, address(daemon), viewport=PHONE) as opening:
        page = opening.page
        loaded(page)
        expect(page.locator("#invalidations")).to_contain_text(clothing, timeout=WITHIN_MS)
        search(page, clothing)
        expect(page.locator(".found")).to_be_visible()
        page.get_by_role("button", name="Invalidate: garment").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_gzip_says_the_same_as_plain(daemon: Daemon) -> None:
    request = urllib.request.Request(address(daemon), headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert gzip.decompress(answer.read()).decode() == ask(daemon, "GET", "/").body
