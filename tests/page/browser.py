"""The page of `gcc-gan inspect` in a real browser: python browser.py DCGAN.html DEEP.html WIDE.html [FOLDER]

Pictures go to the folder.

The first page is of the DCGAN, with a profile of several steps; the others are of what `programs.py` makes,
`layers 100` and `calls 12`. Uses the system's Chromium (or $CHROMIUM), headless. Exits with 1 and says what is wrong
where something is.
"""

import concurrent.futures
import os
import shutil
import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from against import check_rules
from costs import check_costs
from fit import check_fit
from playhead import check_playhead
from source import check_source
from views import check_views

MOST_BYTES = 5_000_000
MOST_SECONDS = 2.0
MOST_SELECTION = 50  # milliseconds


def expect(holds, what):
    if not holds:
        raise AssertionError(what)


def settle(page):
    """Waits for layouts, for what glides, and for the address."""
    page.wait_for_selector("html[data-ready]:not([data-busy])", timeout=120_000)
    page.wait_for_timeout(350)


def press(page, key):
    page.keyboard.press(key)
    settle(page)


def check_graph(page):
    stage = lambda: page.locator("#stage-name").inner_text()
    details = lambda: page.locator("#details").inner_text()
    boxes = lambda: page.evaluate("app.views.graph.positions.size")
    box = lambda of: page.locator(f".box[data-id='{of}']")

    # Load: what was declared, by layers.
    expect("declared" in stage(), f"the first stage is `{stage()}`")
    expect(boxes() > 40, f"{boxes()} boxes of the declared program")
    expect("fake_d · generator" in page.locator("#graph").inner_text(), "calls are named")

    # Through every stage that means something.
    seen = []
    while page.locator("#after").is_enabled():
        press(page, "ArrowRight")
        seen.append(stage().split()[-1])
        expect(boxes() > 10, f"stage {seen[-1]} shows {boxes()} boxes")
    expect(seen[-1] == "kernels" and "schedule" not in seen and "expanded" not in seen, f"the stages are {seen}")
    expect("differentiate" in seen and "cse" in seen, f"the stages are {seen}")
    nothing = page.evaluate("app.entry.graphStages.filter((s, i) => i && changeList(s).length === 0).map(s => s.name)")
    expect(nothing and not set(nothing) & set(seen), f"passes that changed nothing are skipped: {nothing}, {seen}")
    expect(page.locator("#stage .tick").count() == len(nothing), "and are ticks")
    press(page, "4")
    expect(page.locator("#graph .box").count() >= 50, "kernels in order")
    press(page, "2")

    # What a pass did: marks, a list, and a walk through it.
    page.evaluate("app.setStage(app.entry.stages.findIndex(s => s.name === 'differentiate'))")
    settle(page)
    expect("+" in page.locator("#stage-changes").inner_text(), "differentiation adds nodes")
    press(page, "0")
    expect(page.locator("#graph tspan.added, #graph .is-added").count() > 0, "what was added is marked")
    page.evaluate("app.setStage(app.entry.stages.findIndex(s => s.name === 'cse'))")
    settle(page)
    expect(
        "removed" in details() and page.locator("#details summary.removed").count() == 1, "a list says what cse removed"
    )
    walked = []
    for _ in range(3):
        press(page, "n")
        walked.append(page.locator("#details h2").first.inner_text())
        expect(page.locator("#details .diff pre").count() >= 1, "a change has its text before and after")
        expect("Nodes that compute the same become one" in details(), "and what the pass is for")
    expect(len(set(walked)) == 3, f"three changes: {walked}")
    press(page, "p")
    expect(page.locator("#details h2").first.inner_text() == walked[1], "p goes back")
    press(page, "Escape")
    page.evaluate("app.setStage(0)")

    # Open and close, from calls to operations; groups can be chosen.
    press(page, "1")
    few = boxes()
    press(page, "2")
    some = boxes()
    group = "f:fake_d/generator/1-batch_norm"
    box(group).dispatch_event("click")
    expect(
        boxes() == some and "BatchNorm 1 of generator, for fake_d" in details(), f"a group is chosen: {details()[:80]}"
    )
    expect("of ceiling" in details() and "kernels" in details(), "and has totals")
    # At the edge of a small window it would move to show what is in it.
    page.evaluate("id => { const g = app.views.graph; g.center(g.place(g.tree.byId.get(id))); }", group)
    settle(page)
    page.evaluate("app.views.graph.zoomBy(0.5)")
    settle(page)
    before = box(group).bounding_box()
    box(group).press(" ")
    settle(page)
    after = box(group).bounding_box()
    expect(boxes() > some > few, f"{few} calls, {some} layers, {boxes()} with one open")
    expect(
        abs(before["x"] - after["x"]) < 2 and abs(before["y"] - after["y"]) < 2,
        f"an opened box stays: {before}, {after}",
    )
    press(page, "3")
    many = boxes()
    expect(many > 800, f"{many} operations")
    press(page, "2")
    press(page, "Escape")

    # Search, and go graph, kernel, buffer and back by the links.
    page.keyboard.press("/")
    page.keyboard.type("fake_d 5-batch_norm rsqrt")
    expect(page.locator("#found li").count() >= 1, "the search finds a node")
    press(page, "Enter")
    expect("fake_d/generator/5-batch_norm/rsqrt" in details(), f"details: {details()[:200]}")
    expect("BatchNorm()" in details(), "the declaring line is shown")
    expect(page.locator("#graph .box.chosen").count() == 1, "the node is marked in the graph")
    press(page, "o")
    expect("rsqrt" in page.locator("#graph .box.chosen").text_content(), "and opened to")
    page.locator("#details h3:has-text('Computed in kernel') + ul .link").first.click()
    expect("Body" in details() or "BODY" in details(), "the kernel's body is shown")
    page.locator("#details h3:has-text('Writes') + ul .link").first.click()
    expect(page.locator("#tab-memory").get_attribute("aria-selected") == "true", "a buffer is shown in memory")
    expect(page.locator("#memory .item.chosen").count() == 1, "the buffer is marked in the map")
    page.locator("#details h3:has-text('Written by') + ul .link").first.click()
    expect(page.locator("#tab-kernels").get_attribute("aria-selected") == "true", "its kernel is shown in the list")
    expect(page.locator("#kernels tr.chosen").count() == 1, "the kernel is marked in the list")
    expect(page.locator("#kernels circle.chosen").count() == 1, "and under the roofline")
    page.locator("#details h3:has-text('Computes') + ul .link").first.click()
    expect(page.locator("#tab-graph").get_attribute("aria-selected") == "true", "a node is shown in the graph")


def check_rest(page):
    # Other entries, themes, the keys' list.
    page.locator("#entry").select_option(index=0)
    page.keyboard.press("g")
    settle(page)
    expect(page.locator("#graph .box").count() > 0, "another entry is drawn")
    theme = lambda: page.evaluate("document.documentElement.dataset.theme")
    before = theme()
    page.locator("#theme").click()
    expect(theme() != before, "the theme changes")
    page.keyboard.press("?")
    expect(page.locator("#keys").is_visible(), "the keys are listed")
    page.keyboard.press("Escape")


def check_places(page, level):
    """Boxes keep their places from stage to stage, no window is empty, the chosen stays on the screen."""
    page.evaluate("app.choose(null); app.setStage(0)")
    press(page, level)
    # A node that is there from the first stage to the last.
    chosen = page.evaluate("""() => {
        const { graphStages, names } = app.entry, always = n => graphStages.every(s => s.byName.has(n.name));
        const node = graphStages[0].nodes.find(n => n.role.kind === 'forward' && always(n));
        app.choose({ kind: 'node', id: names[node.name] });
        return names[node.name];
    }""")
    settle(page)
    seen = page.evaluate("""() => {
        const view = app.views.graph, all = new Map(), moved = [], empty = [], places = new Set();
        app.entry.graphStages.forEach((stage, s) => {
            app.setStage(s);
            for (const [id, p] of view.positions) {
                const known = all.get(id);
                if (known && (known.x !== p.x || known.y !== p.y)) moved.push([stage.name, id]);
                all.set(id, p);
            }
            const { x, y, w, h } = view.region;
            const meets = (a, b, from, size) => Math.abs(a - from - size / 2) < (b + size) / 2;
            const inside = p => meets(p.x, p.w, x, w) && meets(p.y, p.h, y, h);
            if (![...view.positions.values()].some(inside)) empty.push(stage.name);
            const chosen = document.querySelector('#graph .box.chosen');
            const at = chosen?.getBoundingClientRect();
            if (at) places.add(`${Math.round(at.x)} ${Math.round(at.y)}`);
        });
        return { count: all.size, moved, empty, places: [...places] };
    }""")
    expect(seen["count"] > 5, f"{seen['count']} boxes at level {level}")
    expect(not seen["moved"], f"boxes move at level {level}: {seen['moved'][:5]}")
    expect(not seen["empty"], f"windows are empty at level {level}: {seen['empty']}")
    expect(len(seen["places"]) == 1, f"`{chosen}` is at one place of the screen at level {level}: {seen['places']}")
    press(page, "Escape")


def no_overlap(page, level):
    """No two boxes overlap but where one is inside the other: of all stages together."""
    press(page, level)
    overlaps = page.evaluate("""() => {
        const view = app.views.graph, { boxes } = view.tree, found = [], b = view.scene.boxes, items = [];
        for (let i = 0; i < b.length; i += 6) {
            const [index, x, y, w, h] = b.slice(i, i + 5);
            items.push({ box: boxes[index], x, y, r: x + w, t: y + h });
        }
        items.sort((p, q) => p.y - q.y);
        const inside = (p, q) => p.box.path.includes(q.box);
        items.forEach((p, i) => {
            for (let j = i + 1; j < items.length && items[j].y < p.t - 0.5; j++) {
                const q = items[j];
                if (p.x >= q.r - 0.5 || q.x >= p.r - 0.5 || inside(p, q) || inside(q, p)) continue;
                found.push([p.box.id, q.box.id]);
            }
        });
        return found;
    }""")
    expect(not overlaps, f"boxes overlap at level {level}: {overlaps[:5]}")


def check_selection(page):
    """Choosing a node, a group, a kernel and a buffer each takes less than a blink, and lays nothing out."""
    for stage in ["declared", page.evaluate("app.entry.last.name")]:
        page.evaluate(
            """name => {
            app.choose(null);
            app.setTab('graph');
            app.setStage(app.entry.stages.findIndex(s => s.name === name));
        }""",
            stage,
        )
        settle(page)
        times = page.evaluate("""() => {
            const { stage } = app, times = [], scene = app.views.graph.scene;
            for (let i = 0; i < 30; i++) {
                const node = stage.nodes[Math.floor(i * stage.nodes.length / 30)], name = app.entry.names[node.name];
                const start = performance.now();
                app.choose({ kind: 'node', id: name });
                document.body.offsetWidth;
                times.push(performance.now() - start);
            }
            return { times: times.sort((a, b) => a - b), same: scene === app.views.graph.scene };
        }""")
        expect(times["same"], "choosing a node lays nothing out")
        # A busy machine may stop the browser at times: the median, and hardly ever longer.
        most, late = times["times"][15], times["times"][26]
        expect(
            most < MOST_SELECTION and late < 2 * MOST_SELECTION,
            f"choosing a node of {stage} takes {most:.0f} ms, at times {late:.0f}",
        )
        settle(page)
    return times["times"][15]


def check_slow(context, address, problems):
    """A layout that takes long says so, and the page answers meanwhile; without a worker it is made all the same."""
    page = open_page(context, address, problems)
    seen = page.evaluate("""async () => {
        const busy = () => document.documentElement.dataset.busy === 'yes', notice = document.querySelector('.notice');
        const start = performance.now();
        app.setLevel(2);
        const asked = performance.now() - start, early = notice.hidden;
        let late = null;
        while (busy()) {
            await new Promise(done => setTimeout(done, 20));
            if (busy() && performance.now() - start > 700) late ??= !notice.hidden;
        }
        return { asked, early, late, after: notice.hidden, took: performance.now() - start };
    }""")
    expect(seen["early"] and seen["after"], f"nothing is said before or after: {seen}")
    expect(seen["late"] is not False, f"'laying out…' is shown: {seen}")
    expect(seen["asked"] < seen["took"], f"the page goes on at once: {seen}")
    page.close()
    page = context.new_page()
    page.add_init_script("window.Worker = class { constructor() { throw new Error('forbidden'); } }")
    page.goto(address)
    settle(page)
    expect(page.locator("#graph .box").count() > 10, "without a worker the graph is drawn")
    page.close()


def open_page(context, address, problems):
    page = context.new_page()
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
    page.goto(address)
    settle(page)
    return page


def pictures_of(page, address, folder, name):
    shots = [
        ("declared", ""), ("cse", "#stage=cse"), ("kernels", "#stage=kernels"), ("order", "#stage=kernels&level=3"),
        ("memory", "#tab=memory"), ("list", "#tab=kernels&kernel=7"), ("timeline", "#tab=timeline"),
        ("layers", "#tab=layers"), ("missed", "#tab=missed"),
        ("source", "#tab=source&at=12"), ("at", "#stage=kernels&at=12"), ("memory-at", "#tab=memory&at=40"),
    ]  # fmt: skip
    for shot, at in shots:
        page.goto("about:blank")
        page.goto(address + at)
        settle(page)
        page.screenshot(path=str(Path(folder) / f"{shot}-{name}.png"))


def check_whole(context, address, scheme, width, folder):
    """All that the page of the DCGAN can do; gives what was found in words."""
    problems = []
    page = open_page(context, address, problems)
    # The browser's own start is not the page's: the best of three loads.
    seconds = []
    for _ in range(3):
        page.goto("about:blank")
        started = time.monotonic()
        page.goto(address)
        page.wait_for_selector("html[data-ready]", timeout=30_000)
        seconds.append(time.monotonic() - started)
    expect(min(seconds) < MOST_SECONDS, f"the page opens in {min(seconds):.2f} s")
    settle(page)
    expect(
        page.evaluate("document.documentElement.dataset.theme") == scheme,
        f"the theme is the system's, {scheme}",
    )
    expect(page.evaluate("document.documentElement.scrollWidth") <= width, f"nothing is wider than {width}")
    if folder:
        pictures_of(page, address, folder, f"{scheme}-{width}")
        page.goto("about:blank")
        page.goto(address)
        settle(page)
    check_graph(page)
    check_fit(page, settle, expect)
    check_views(page, width, settle, expect)
    check_costs(page, width, settle, expect)
    check_source(page, settle, expect)
    check_playhead(page, settle, expect)
    check_rules(page, settle, expect)
    check_rest(page)
    page.goto("about:blank")
    page.goto(address + "#stage=declared")
    settle(page)
    for level in "123":
        no_overlap(page, level)
        check_places(page, level)
    took = check_selection(page)
    expect(not problems, f"the browser complains: {problems}")
    return f"opens in {min(seconds):.2f} s, selects in {took:.0f} ms"


def check_large(context, address, scheme, width, folder, is_whole):
    """That a large graph is laid out and answers; for some all else too, which is slow."""
    problems = []
    page = open_page(context, address, problems)
    for level in "23" if is_whole else "2":
        check_places(page, level)
        no_overlap(page, level)
    check_costs(page, width, settle, expect)
    check_fit(page, settle, expect)
    took = check_selection(page)
    if is_whole:
        check_rules(page, settle, expect)
        check_source(page, settle, expect)
        check_playhead(page, settle, expect)
        check_slow(context, address, problems)
    if folder:
        pictures_of(page, address, folder, f"{Path(address).stem}-{scheme}-{width}")
    expect(not problems, f"the browser complains: {problems}")
    return f"selects in {took:.0f} ms"


def in_browser(chromium, check, address, scheme, width, *others):
    """What a check gives, in a browser of its own, and where."""
    where = f"{Path(address).name}, {scheme}, {width} wide"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        try:
            return f"{where}: {check(context, address, scheme, width, *others)}; all as expected"
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from None
        finally:
            browser.close()


def main(files, folder):
    size = Path(files[0]).stat().st_size
    expect(size < MOST_BYTES, f"the page has {size} bytes")
    dcgan, deep, wide = [Path(file).resolve().as_uri() for file in files]
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    expect(chromium, "there is no Chromium: set $CHROMIUM")
    looks = [("light", 1400), ("dark", 1400), ("light", 700), ("dark", 700)]
    whole = {(deep, "dark", 1400), (wide, "light", 1400), (deep, "light", 700)}
    checks = [(check_whole, dcgan, *look, folder) for look in looks]
    checks += [(check_large, page, *look, folder, (page, *look) in whole) for page in (deep, wide) for look in looks]
    # Most of the time a page settles, and a core waits.
    with concurrent.futures.ProcessPoolExecutor() as pool:
        for found in [pool.submit(in_browser, chromium, *check) for check in checks]:
            try:
                print(found.result(), flush=True)
            except Exception:
                pool.shutdown(cancel_futures=True)
                raise


if __name__ == "__main__":
    try:
        main(sys.argv[1:4], sys.argv[4] if len(sys.argv) > 4 else None)
    except AssertionError as error:
        sys.exit(f"wrong: {error}")
