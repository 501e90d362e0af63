"""The page of `gcc-gan report` in a real browser: python report.py REPORT.html [FOLDER for pictures]

REPORT is of two runs: the first was resumed with another value, both have samples of several steps, the second has a
damaged line of metrics, and a third is not there. Uses the system's Chromium (or $CHROMIUM), headless. Exits with 1 and
says what is wrong where something is.
"""

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

MOST_SECONDS = 2.0


def expect(holds, what):
    if not holds:
        raise AssertionError(what)


def check_curves(page):
    data = page.evaluate("DATA.runs.map(run => run.series.map(s => s.name))")
    names = {name for run in data for name in run}
    expect(page.locator(".card").count() == len(names), "each metric has a chart")
    first = page.locator(".card").first
    plot = first.locator(".plot")
    expect(plot.locator("path[d^='M']").count() >= len(data), "each run has a curve")
    title = plot.locator(".resume title").first.text_content()
    expect("resumed after step" in title and "with lr=" in title, f"the resume is marked: {title}")

    # The pointer: a line through all charts, values in the one that it is in.
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    expect(first.locator(".tip").is_visible(), "values are shown at the pointer")
    expect("step" in first.locator(".tip").inner_text(), "with their step")
    expect(page.locator(".plot .cursor").count() == len(names), "the line goes through all charts")
    expect(page.locator(".tip:visible").count() == 1, "values are shown once")
    page.mouse.move(5, 5)
    expect(page.locator(".plot .cursor").count() == 0, "and go with the pointer")

    # A part is enlarged by dragging, in all charts, and a double click or 0 shows the whole.
    before = plot.locator("text").all_text_contents()
    page.mouse.move(box["x"] + 120, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, middle, steps=4)
    page.mouse.up()
    expect(page.locator("#whole").is_visible() and plot.locator("text").all_text_contents() != before, "a part is enlarged")
    page.keyboard.press("0")
    expect(not page.locator("#whole").is_visible() and plot.locator("text").all_text_contents() == before, "0 shows the whole")

    # By keys alone.
    plot.focus()
    page.keyboard.press("Home")
    expect("step" in first.locator(".tip").inner_text(), "Home shows the first values")
    at = lambda: page.evaluate("app.curves.cursor")
    start = at()
    page.keyboard.press("ArrowRight")
    second = at()
    page.keyboard.press("Shift+ArrowRight")
    expect(start < second < at(), "arrow keys go through the values")
    page.keyboard.press("+")
    expect(page.locator("#whole").is_visible(), "+ enlarges")
    page.keyboard.press("-")
    page.keyboard.press("Escape")
    expect(at() is None, "Esc shows no values")

    # Axes, scale, smoothing.
    for name in ["epoch", "time", "step"]:
        page.keyboard.press("x")
        expect(page.locator(f"#axis [data-axis={name}]").get_attribute("aria-pressed") == "true", f"x chooses {name}")
        expect(plot.locator("path[d^='M']").count() >= len(data), f"curves are drawn by {name}")
    page.keyboard.press("l")
    expect(page.locator("#log").is_checked(), "l chooses the log scale")
    page.locator("#smooth").fill("0.8")
    expect(plot.locator("path.raw").count() == len(data), "raw values stand behind the smoothed ones")
    expect(page.evaluate("location.hash") == "#log=1&smooth=0.8", "the address tells what is shown")
    page.keyboard.press("l")
    page.locator("#smooth").fill("0")
    expect(page.evaluate("smoothed([1, 3, null], 0)") == [1, 3, None], "without smoothing values stay")
    first, second, lost = page.evaluate("smoothed([1, 3, null], 0.5)")
    expect(first == 1 and abs(second - 7 / 3) < 1e-12 and lost is None, f"smoothed: {first}, {second}, {lost}")


def check_samples(page):
    step = lambda: page.locator("#sample-step").inner_text()
    image = lambda: page.locator("#grids img").first.get_attribute("src")
    last, shown = step(), image()
    page.keyboard.press(",")
    expect(step() != last and image() != shown, ", shows the samples before")
    expect("step=" in page.evaluate("location.hash"), "the address has the step")
    page.keyboard.press(".")
    expect(step() == last and image() == shown, ". shows those after")
    page.locator("#speed").select_option("16")
    page.locator("#speed").blur()
    page.keyboard.press("Space")
    expect("pause" in page.locator("#play").inner_text(), "Space plays")
    page.locator("#play", has_text="▶").wait_for(timeout=10_000)
    expect(step() == last, "it plays to the end")
    page.locator("#sample").focus()
    page.keyboard.press("Home")
    expect(step() == "step 0", f"the slider begins at {step()}")
    expect(page.locator("#grids img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") > 50, "images are shown")
    plot = page.locator(".plot").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.click(box["x"] + box["width"] - 30, box["y"] + box["height"] / 2)
    expect(step() != "step 0", "a click on a curve shows the samples of its step")


def check_tables(page):
    expect("last" in page.locator("#figures thead").inner_text(), "figures are listed")
    settings = page.locator("#settings")
    commands = settings.locator(".command code").all_text_contents()
    expect(len(commands) == 3 and any("--resume" in c for c in commands), f"the commands are {commands}")
    expect("seed" in settings.locator("tr.differs th").all_text_contents(), "the seed differs")
    rows = settings.locator("tbody tr").count()
    page.locator("#only-differences").check()
    expect(0 < settings.locator("tbody tr").count() < rows, "differences alone are shown")
    page.locator("#only-differences").uncheck()
    page.keyboard.press("2")
    expect(settings.locator("thead .run").count() == 1 and page.locator("#grids figure:visible").count() == 1, "2 hides a run")
    page.keyboard.press("2")
    expect(settings.locator("thead .run").count() == 2, "and shows it again")
    text = page.locator("#programs pre")
    if not text.is_visible():
        page.locator("#programs summary").click()
    expect("Program(" in text.inner_text(), "the program's text is shown")
    page.locator("#program-from").select_option("1")
    expect("no difference" in text.inner_text(), "equal programs have no difference")
    rows = page.evaluate("lineDiff(['a', 'b', 'c'], ['a', 'x', 'c', 'd']).map(r => r.kind + r.text)")
    expect(rows == ["a", "removedb", "addedx", "c", "addedd"], f"the difference is {rows}")
    page.keyboard.press("?")
    expect(page.locator("#keys").is_visible(), "? shows the keys")
    page.keyboard.press("Escape")


def check_notes(page):
    notes = page.locator("#notes li")
    expect(page.locator("#notes").is_visible() and notes.count() == 2, "what is not shown is told")
    expect("there is no run in" in notes.nth(0).inner_text(), "a run that is not there")
    expect("is left out: a JSON object was expected" in notes.nth(1).inner_text(), "a line that is damaged")


def main(file, pictures):
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    expect(chromium, "Chromium is not installed")
    address = Path(file).resolve().as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for scheme, width in [("light", 1400), ("dark", 1400), ("light", 700), ("dark", 700)]:
            context = browser.new_context(viewport={"width": width, "height": 950}, color_scheme=scheme, offline=True)
            page = context.new_page()
            problems = []
            page.on("console", lambda message: problems.append(message.text))
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("request", lambda request: request.url.startswith(("file:", "data:")) or problems.append(request.url))
            page.goto(address)
            page.wait_for_selector("html[data-ready]", timeout=MOST_SECONDS * 1000)
            expect(page.evaluate("document.documentElement.dataset.theme") == scheme, f"the theme is the system's, {scheme}")
            expect(page.evaluate("document.documentElement.scrollWidth") <= width, f"nothing is wider than {width}")
            if pictures:
                page.screenshot(path=str(Path(pictures) / f"report-{scheme}-{width}.png"), full_page=True)
            check_notes(page)
            check_curves(page)
            check_samples(page)
            check_tables(page)
            page.keyboard.press("t")
            expect(page.evaluate("document.documentElement.dataset.theme") != scheme, "t changes the theme")
            page.goto("about:blank")
            page.goto(address + "#x=epoch&hide=1&step=0")
            page.wait_for_selector("html[data-ready]")
            expect(page.locator("#runs [aria-pressed=false]").count() == 1, "an address hides a run")
            expect(page.locator("#sample-step").inner_text() == "step 0", "and says which samples are shown")
            expect(not problems, f"the console is empty: {problems}")
            print(f"{scheme}, {width} wide: all as expected")
            context.close()
        browser.close()


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
    except AssertionError as error:
        sys.exit(f"wrong: {error}")
