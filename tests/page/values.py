"""The values of a run's step on the page of `gcc-gan inspect`: python values.py VALUES.html [FOLDER for pictures]

The page is of `mlp-gan` with `--values`. Uses the system's Chromium (or $CHROMIUM), headless. Exits with 1 and says what is
wrong where something is.
"""

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from browser import expect, settle


def pixels(canvas):
    """How many different colours a canvas has, and whether all of them are grey: read once, as the browser wants it."""
    return canvas.evaluate("""canvas => {
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height), seen = new Set();
        for (let i = 0; i < data.length; i += 4) if (data[i + 3]) seen.add([data[i], data[i + 1], data[i + 2]].join());
        const greys = [...seen].filter(colour => new Set(colour.split(',')).size === 1);
        return { colours: seen.size, isGrey: greys.length === seen.size };
    }""")


def check(page):
    details = page.locator("#details")
    expect("step 31 of" in details.inner_text() and "All of them are finite" in details.inner_text(), "values are told of")
    without = page.evaluate("app.entry.last.nodes.filter(node => !app.entry.valueOf(app.entry.names[node.name])).length")
    expect(without == 0, f"{without} of the scheduled nodes have no value")

    # What is chosen: the images that were trained on, as pictures of many grey levels.
    page.evaluate("app.choose({ kind: 'node', id: 'real' })")
    settle(page)
    picture = details.locator("canvas.value-picture")
    expect(picture.count() == 1, "real images are shown")
    seen = pixels(picture)
    expect(seen["colours"] > 30 and seen["isGrey"], f"in grey, although they have values of both signs: {seen}")
    expect(details.locator(".value-histogram rect").count() == 32, "with a histogram")
    expect("[0..4, 0, :, :]" in details.inner_text(), "and which part of them it is")

    # What is pointed at, in the graph and in the memory map.
    tip = page.locator("#value-tip")
    box = page.locator("#graph .box.chosen").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_timeout(500)
    expect(tip.is_visible() and "real" in tip.inner_text(), "the value is shown beside the pointer")
    page.mouse.move(box["x"] - 40, box["y"] - 40)
    page.wait_for_timeout(100)
    expect(tip.is_hidden(), "and goes with it")
    page.keyboard.press("m")
    settle(page)
    found = page.evaluate("""() => {
        const buffers = app.entry.buffers.filter(b => app.entry.valueOfBuffer(b.at) && b.bytes);
        return buffers.sort((p, q) => q.bytes - p.bytes || p.at - q.at)[0].at;
    }""")
    box = page.locator(f"#memory .item[data-buffer='{found}']").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_timeout(500)
    expect(tip.is_visible() and "mean" in tip.inner_text(), "a buffer shows the value that it holds")
    edge = tip.bounding_box()
    size = page.viewport_size
    expect(edge["x"] >= 0 and edge["x"] + edge["width"] <= size["width"], "within the window")
    page.keyboard.press("+")
    settle(page)
    expect(tip.is_hidden(), "it goes when the view moves")
    # Of what has both signs and is no image, below and above 0 are told apart.
    page.evaluate("""() => {
        const found = app.entry.values.nodes.find(([n, value]) => value.picture && value.low < 0 && value.high > 0
            && !isImages(app.entry, app.entry.names[n]));
        app.choose({ kind: 'node', id: app.entry.names[found[0]] });
    }""")
    settle(page)
    expect(not pixels(picture)["isGrey"], "a gradient or a weight is blue and orange")

    # What is not finite is told of first.
    page.evaluate("""() => {
        const [n, value] = app.entry.values.nodes.find(([, value]) => value.picture);
        value.nan = 3;
        app.choose(null);
        app.panel.draw();
    }""")
    expect("1 node with elements that are NaN or infinite" in details.inner_text(), "NaN is told of")


def main(file, folder=None):
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for theme in ("light", "dark"):
            for width in (1400, 700):
                page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
                problems = []
                page.on("console", lambda message: problems.append(message.text))
                page.on("pageerror", lambda error: problems.append(str(error)))
                page.goto(Path(file).resolve().as_uri() + "#tab=graph")
                settle(page)
                check(page)
                if folder:
                    page.screenshot(path=Path(folder) / f"values-{theme}-{width}.png")
                expect(not problems, f"the console is empty: {problems}")
                page.close()
        browser.close()
    print("the values of a step are shown")


if __name__ == "__main__":
    main(*sys.argv[1:])
