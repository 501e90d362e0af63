"""Checks of the page's memory map, list of kernels, timeline, search and side panel."""


def check_views(page, width, settle, expect):
    memory(page, settle, expect)
    kernels(page, width, settle, expect)
    timeline(page, settle, expect)
    search(page, settle, expect)
    panel(page, width, settle, expect)


def details(page):
    return page.locator("#details").inner_text()


def memory(page, settle, expect):
    page.keyboard.press("m")
    page.keyboard.press("Escape")
    expect(page.locator("#stage").is_hidden(), "stages mean nothing in the memory map")
    page.keyboard.press("0")
    settle(page)
    page.locator("#memory .item").nth(30).dispatch_event("click")
    expect("OFFSET" in details(page).upper(), "a rectangle of the map is a buffer")
    expect(page.locator("#memory .handed").count() > 0, "hand-overs in place are drawn")

    # Zoom by the wheel, by keys and back; a small buffer is reached.
    window = lambda: page.evaluate("({ ...app.views.memory.now })")
    whole = window()
    sheet = page.locator("#memory .chart-sheet").bounding_box()
    page.mouse.move(sheet["x"] + sheet["width"] / 2, sheet["y"] + 40)
    page.mouse.wheel(0, -600)
    settle(page)
    near = window()
    expect(near["x1"] - near["x0"] < whole["x1"] - whole["x0"], "the wheel zooms across")
    expect(near["y1"] - near["y0"] < whole["y1"] - whole["y0"], "and up")
    page.keyboard.press("Shift+ArrowRight")
    settle(page)
    expect(window()["x0"] > near["x0"], "shift and an arrow key move the map")
    page.keyboard.press("0")
    settle(page)
    expect(window() == whole, "0 shows the whole")
    small = page.evaluate("""() => {
        const temporary = app.entry.buffers.filter(b => b.bytes && b.role === 'temporary');
        const b = temporary.sort((p, q) => p.bytes - q.bytes || p.at - q.at)[0].at;
        app.choose({ kind: 'buffer', id: b });
        return b;
    }""")
    settle(page)
    box = page.locator(f"#memory .item[data-buffer='{small}']").bounding_box()
    expect(box and box["height"] > 3 and box["width"] > 3, f"the smallest buffer is reached: {box}")

    # A result that is written in place says over what, and what it was written over says so.
    page.evaluate("app.choose({ kind: 'kernel', id: app.entry.kernels.findIndex(k => k.in_place.length) })")
    page.locator("#details h3:has-text('In place') + ul .link").nth(1).click()
    expect("overwritten by" in details(page), f"details: {details(page)[:300]}")


def kernels(page, width, settle, expect):
    page.keyboard.press("k")
    page.locator("#kernels th button", has_text="bytes").first.click()
    order = page.locator("#kernels tbody tr").evaluate_all(
        "rows => rows.map(r => app.entry.kernels[r.dataset.kernel].bytes)"
    )
    expect(order == sorted(order, reverse=True), "kernels are sorted by bytes")
    rows = page.locator("#kernels tfoot td").all_inner_texts()
    expect("between kernels" in rows and "the step" in rows, f"the table ends with {rows}")
    # What matters is in the window.
    page.locator("#kernels").evaluate("e => e.scrollTo(0, 0)")
    head = page.locator("#kernels th", has_text="of ceiling").bounding_box()
    edge = page.locator("#views").bounding_box()
    expect(
        head["x"] >= 0 and head["x"] + head["width"] <= edge["x"] + edge["width"],
        f"the share of the ceiling is seen at {width}",
    )
    row = page.locator("#kernels tbody tr[data-kernel='11'] .name")
    expect("of generator, for fake_" in row.text_content(), f"a kernel's name is words: {row.text_content()}")
    full = row.locator(".ends").get_attribute("title")
    expect(full == page.evaluate("app.entry.kernels[11].name"), "its full name is shown on hover")


def timeline(page, settle, expect):
    page.keyboard.press("l")
    page.keyboard.press("Escape")
    kernels = page.evaluate("app.entry.kernels.length")
    steps = page.evaluate("app.entry.profile.lanes.length")
    expect(steps > 1, f"the profile has {steps} steps")
    lanes = page.evaluate(
        "new Set([...document.querySelectorAll('#timeline .item')].map(e => e.getAttribute('y'))).size"
    )
    expect(lanes == steps, f"{lanes} lanes of {steps} steps")
    expect(page.locator("#timeline .live").count() == 1, "memory is under the time")
    window = lambda: page.evaluate("({ ...app.views.timeline.now })")
    whole = window()
    page.keyboard.press("+")
    page.keyboard.press("+")
    settle(page)
    expect(window()["x1"] - window()["x0"] < whole["x1"] - whole["x0"], "the timeline zooms")
    page.keyboard.press("0")
    settle(page)
    # Every kernel that is not narrower than what can be drawn; the shortest is reached by its link.
    k = page.evaluate("app.entry.profile.kernels.reduce((a, b) => (a.seconds < b.seconds ? a : b)).kernel")
    page.evaluate(f"app.choose({{ kind: 'kernel', id: {k} }})")
    settle(page)
    expect(0 <= k < kernels and page.locator("#timeline .item.chosen").count() >= 1, "the shortest kernel is reached")
    # A launch that is far above the median of its kernel is marked: made so here, as a quiet machine has none. What was
    # chosen may have moved the window away from it.
    page.keyboard.press("0")
    settle(page)
    late = page.evaluate("""() => {
        const { profile } = app.entry, { launches } = profile.lanes[profile.typical];
        const longest = launches.reduce((a, b) => (a[2] > b[2] ? a : b));
        const kept = longest[2];
        longest[2] = 4 * app.entry.kernels[longest[0]].time.median_seconds * 1e6;
        app.views.timeline.draw();
        const seen = document.querySelectorAll('#timeline .item.late').length;
        longest[2] = kept;
        app.views.timeline.draw();
        return seen;
    }""")
    expect(late >= 1, "an outlier is marked")


def search(page, settle, expect):
    page.keyboard.press("g")
    settle(page)
    kinds = lambda: set(page.evaluate("app.search.hits.map(hit => hit.chosen.kind)"))

    def look(text):
        page.locator("#search").fill(text)
        return page.evaluate("app.search.hits.length")

    expect(look("kernel 7") >= 1 and page.evaluate("app.search.hits[0].chosen.id") == 7, "kernels are found by number")
    shape = page.evaluate("app.stage.nodes.find(n => n.role.kind === 'forward' && n.ty.includes(',')).ty")
    expect(look(shape) >= 1 and "node" in kinds(), f"shapes are found: {shape}")
    expect(look("ConvT 4 fake_d") >= 1 and "group" in kinds(), "layers are found by their words")
    expect(
        look("BatchNorm()") >= 3 and "line" in kinds() and "node" in kinds(),
        "lines of the program are found, and what is declared there",
    )
    line = page.evaluate("app.lines.findIndex(line => line.includes('BatchNorm()')) + 1")
    expect(look(f"line {line}") >= 1 and "line" in kinds(), "a line is found by its number")
    page.evaluate(f"app.choose({{ kind: 'line', id: {line} }})")
    settle(page)
    expect(
        f"Line {line}" in details(page) and "batch_norm" in details(page),
        f"a line has its nodes: {details(page)[:200]}",
    )
    indented = page.locator("#details pre span").first.inner_text()
    expect(indented.strip()[0].isdigit(), f"lines have their numbers: {indented}")
    page.keyboard.press("Escape")
    expect(look("backward of loss_d") >= 1, "roles are found")
    expect(look("rsqrt") >= 2, "operations are found")
    marked = page.evaluate("app.views.graph.foundBoxes.size")
    expect(marked >= 2, f"{marked} boxes of hits are marked")
    page.keyboard.press("Enter")
    settle(page)
    first = page.locator("#details h2").first.inner_text()
    page.keyboard.press(".")
    settle(page)
    expect(page.locator("#details h2").first.inner_text() != first, "hits are walked through")
    expect(page.locator("#hit-count").inner_text().startswith("2 of"), "and counted")
    page.keyboard.press(",")
    settle(page)
    expect(page.locator("#details h2").first.inner_text() == first, "and back")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(page.locator("#hits").is_hidden() and page.locator("#search").input_value() == "", "Esc forgets the search")


def panel(page, width, settle, expect):
    size = lambda: page.locator("#details").bounding_box()["width" if width > 900 else "height"]
    before = size()
    page.locator("#splitter").press("ArrowLeft")
    settle(page)
    expect(size() > before + 10, f"the panel is resized by keys: {before} to {size()}")
    box = page.locator("#splitter").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 60, steps=3)
    page.mouse.up()
    settle(page)
    expect(size() < before, f"and by dragging: {before} to {size()}")
    legend, canvas = page.locator(".legend").bounding_box(), page.locator("#graph svg.canvas").bounding_box()
    expect(legend["y"] >= canvas["y"] + canvas["height"] - 1, "the legend covers nothing")
