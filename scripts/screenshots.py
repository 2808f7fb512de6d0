"""The pictures in the README: the report of the demo's first export, on a wide screen and on a phone."""

import os
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import tfzip
from tfzip import demo

HERE = Path(__file__).parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def main():
    """Run a round of the demo, make its report, and look at it twice."""
    sandbox = [] if os.geteuid() else ["--no-sandbox"]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        demo.run("demo", "tfzip", seeds=1)
        os.rename("demo/0/labelled", "labelled")
        page = Path(tfzip.report("labelled")).resolve().as_uri()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
            take(browser, page, 1280, 980, None)
            take(browser, page, 390, 980, "#pictures")


def take(browser, address, width, height, place):
    """A picture of a window, scrolled to a place."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(address)
    if place:
        page.evaluate("place => document.querySelector(place).scrollIntoView()", place)
    page.wait_for_timeout(300)
    page.screenshot(path=HERE / f"report-{width}.png")


if __name__ == "__main__":
    main()
