"""The page of a program in which nothing runs: python empty.py EMPTY.html"""

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright


def main(file):
    from browser import expect, open_page, settle

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme="light")
        problems = []
        page = open_page(context, Path(file).resolve().as_uri(), problems)
        settle(page)
        for key, tab in zip("gmkyfl", ["graph", "memory", "kernels", "layers", "missed", "timeline"]):
            page.keyboard.press(key)
            page.wait_for_timeout(150)
            expect(page.locator(f"#tab-{tab}").get_attribute("aria-selected") == "true", f"{key} shows {tab}")
            text = page.locator("#views").inner_text().strip()
            expect(text.count("nothing to run") == 1 and len(text.splitlines()) == 1, f"{tab} says it once: {text}")
        page.keyboard.press("s")
        page.wait_for_timeout(150)
        expect("Program(" in page.locator("#source").inner_text(), "the program is there all the same")
        words = page.locator("body").inner_text()
        expect("kernel -1" not in words and "kernels 0:" not in words, "no kernel that is not there")
        expect(not problems, f"the browser complains: {problems}")
        browser.close()
    print("a program in which nothing runs: all as expected")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except AssertionError as error:
        sys.exit(f"error: {error}")
