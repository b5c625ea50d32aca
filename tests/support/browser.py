"""How is a page opened as a person opens it? In Debian's Chromium, driven by Playwright.

Playwright's own browsers are not downloaded. The page's errors and requests are recorded.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

from tests.support import debian


def why_not_available() -> str | None:
    """Return why Chromium cannot run here, or None."""
    return debian.why_missing("chromium", "libatomic.so.1")


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """Run Chromium without a window. Skips the test if there is none."""
    reason = why_not_available()
    if reason is not None:
        pytest.skip(reason)
    # Its sandbox refuses root, and shared memory is small in containers.
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=arguments
        )
        try:
            yield browser
        finally:
            browser.close()


class OpenedPage:
    """A page in a context of its own, with all its requests and errors."""

    def __init__(self, browser: Browser, url: str, **context: Any) -> None:
        self._context = browser.new_context(**context)
        self.page: Page = self._context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._asked)
        self.url = url
        self.page.goto(url)

    def close(self) -> None:
        self._context.close()

    def _note(self, sort: str, text: str) -> None:
        if sort in ("error", "warning"):
            self.complaints.append(text)

    def _asked(self, request: Request) -> None:
        self.requests.append(request.url)


@contextmanager
def opened(browser: Browser, url: str, **context: Any) -> Iterator[OpenedPage]:
    """Open `url` for the duration of a `with`; `context` has Playwright's own options."""
    page = OpenedPage(browser, url, **context)
    try:
        yield page
    finally:
        page.close()
