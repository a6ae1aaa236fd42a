"""Makes the pictures in the README: scripts/test-page --screenshots."""

import os
import sys
import tempfile
import time
from pathlib import Path

from conftest import ADMIN, ARGUMENTS, Server, Visit
from playwright.sync_api import expect, sync_playwright

# So that ages differ. Seconds.
BETWEEN = 25

WAITING = {"shop:42:inventory": 14, "billing:invoices": 3, "deploy:production": 2, "import:feed-03": 1}


def fill(server):
    server.hold("shop:42:inventory", "sync-worker@app-3", reason="nightly sync with the warehouse", ttl=7200)
    server.hold("deploy:production", "anna@laptop", reason="release 2026.11")
    time.sleep(BETWEEN)
    server.hold("billing:invoices", "invoice-run@db-1:4711", reason="November", ttl=3600)
    for n in range(WAITING["shop:42:inventory"]):
        server.lock("shop:42:inventory", f"web-{n}@app-{n % 4}", reason=f"order {4700 + n}")
    time.sleep(BETWEEN)
    for n in range(1, 19):
        server.hold(f"import:feed-{n:02}", f"feeds-{n % 4 + 1}", ttl=120 + 7 * (n * 37 % 90))
    for name in ["billing:invoices", "deploy:production", "import:feed-03"]:
        for n in range(WAITING[name]):
            server.lock(name, f"web-{n}@app-{n % 4}")


def picture(browser, server, folder, file, fragment, seen, **options):
    visit = Visit(browser, server, **options)
    page = visit.open(fragment, ADMIN)
    expect(page.get_by_text(seen).first).to_be_visible()
    expect(page.locator(".live")).to_have_text("live")
    # Grants a minute take a while to be known.
    expect(page.get_by_text("…", exact=True)).to_have_count(0)
    page.evaluate("document.activeElement?.blur()")
    page.screenshot(path=folder / file)
    visit.close()


def main(folder):
    with tempfile.TemporaryDirectory() as work, sync_playwright() as playwright:
        server = Server(Path(work), CLAIM_SECONDS="3000")
        browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=ARGUMENTS)
        try:
            fill(server)
            picture(
                browser, server, folder, "page-locks.png", "", "import:feed-11",
                viewport={"width": 1180, "height": 720}, color_scheme="dark",
            )
            picture(
                browser, server, folder, "page-lock-phone.png", "#/lock/shop%3A42%3Ainventory", "web-4@app",
                viewport={"width": 360, "height": 740}, device_scale_factor=1.5, color_scheme="light",
            )
        finally:
            browser.close()
            server.stop()


main(Path(sys.argv[1]))
