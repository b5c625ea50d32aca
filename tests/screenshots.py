"""What does the status page look like? Makes pictures for the docs: `make screenshots`.

A real daemon under a small load of every kind, photographed with a real Chromium.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser

from cachesvc_client import CacheClient
from tests.support import sample_objects
from tests.support.browser import opened, running_chromium
from tests.support.daemons import Daemon, running_daemon
from tests.support.grpc_calls import get_garment, get_human, refused

USERS = [f"user{n:03}" for n in range(1, 31)]
ITEMS = [f"item{n:03}" for n in range(1, 21)]
# The top of the page, for an operator's first questions; another picture has the whole page.
TOP = {"width": 1280, "height": 860}
WHOLE = {"width": 1280, "height": 2800}
# As much as three or four swipes on a phone show.
PHONE = {"width": 360, "height": 1900}
PICTURES: dict[str, dict[str, object]] = {
    "status-light": {"viewport": TOP, "color_scheme": "light"},
    "status-dark": {"viewport": WHOLE, "color_scheme": "dark"},
    "status-phone": {"viewport": PHONE, "color_scheme": "dark"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Photograph the status page under load.")
    parser.add_argument("--into", type=Path, default=Path("docs/images"))
    parser.add_argument("--load-s", type=float, default=90, help="how long the load runs before")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        running_daemon(Path(folder), {"L2__MAX_BYTES": str(16 << 20)}) as daemon,
        running_chromium() as browser,
    ):
        fill_origin(daemon)
        use(daemon, arguments.load_s)
        for name, context in PICTURES.items():
            photograph(browser, daemon, arguments.into / f"{name}.png", context)


def fill_origin(daemon: Daemon) -> None:
    people = [sample_objects.person(user) for user in USERS]
    garments = [sample_objects.garment(item, "shop") for item in ITEMS]
    sample_objects.put_in_folder(daemon.origin_dir, *people, *garments)


def use(daemon: Daemon, load_s: float) -> None:
    """Get the objects of a few people and garments, some often, some absent or changed."""
    chance = random.Random(7)
    stub = daemon.stub()
    ends = time.monotonic() + load_s
    with CacheClient(daemon.target) as client:
        while time.monotonic() < ends:
            user = USERS[min(int(chance.expovariate(0.15)), len(USERS) - 1)]
            item = ITEMS[min(int(chance.expovariate(0.25)), len(ITEMS) - 1)]
            client.get_human(user, "upper_body")
            client.get_garment(item, "shop")
            if chance.random() < 0.4:
                get_human(stub, user)
                get_garment(stub, item, "shop")
            if chance.random() < 0.02:
                client.invalidate(user_id=user)
            if chance.random() < 0.01:
                with refused():
                    get_garment(stub, "not-made-yet", "shop")
            time.sleep(chance.uniform(0.02, 0.12))


def photograph(browser: Browser, daemon: Daemon, path: Path, context: dict[str, object]) -> None:
    with opened(browser, f"http://127.0.0.1:{daemon.http_port}/", **context) as page:
        page.page.locator("#figures dd").first.wait_for()
        page.page.get_by_label("Id (user or clothing)").fill(USERS[0])
        page.page.get_by_role("button", name="Find").click()
        page.page.locator(".found").first.wait_for()
        page.page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        page.page.screenshot(path=path)
        assert not page.complaints, page.complaints


if __name__ == "__main__":
    main()
