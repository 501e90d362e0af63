"""Checks that what the page shows can be read: the first view of the graph, tables, and names in charts."""

LEAST_TEXT = 9.4  # pixels of height on the screen
SMALL_TEXT = 10.5  # of the smallest letters in a box, at a scale of one


def check_fit(page, settle, expect):
    page.evaluate("app.choose(null); app.playHead.set(null); app.setStage(0); app.setLevel(1)")
    settle(page)
    page.evaluate("app.views.graph.fit()")
    settle(page)
    first_view(page, expect)
    names(page, expect)
    tables(page, settle, expect)
    charts(page, settle, expect)
    tabs(page, settle, expect)
    page.evaluate("app.setTab('graph')")
    settle(page)


def first_view(page, expect):
    seen = page.evaluate("""() => {
        const view = app.views.graph, { x, y, w, h } = view.region, places = view.drawn.map(box => [box, view.place(box)]);
        const inside = p => p.x >= x - 1 && p.x + p.w <= x + w + 1 && p.y >= y - 1 && p.y + p.h <= y + h + 1;
        const held = places.filter(([, p]) => !p.open && inside(p));
        // The call that most of them are of.
        const calls = new Map();
        for (const [box] of held) calls.set(box.path[0], (calls.get(box.path[0]) ?? 0) + 1);
        const [call] = [...calls].sort((a, b) => b[1] - a[1])[0] ?? [], p = call && view.place(call);
        return { scale: view.view.scale, boxes: held.length, fits: view.extent.w <= w && view.extent.h <= h,
            isWide: p && p.w > w, left: p && (p.x - x) / w, right: p && (x + w - p.x - p.w) / w };
    }""")
    expect(SMALL_TEXT * seen["scale"] >= LEAST_TEXT, f"text of boxes is read at first: {seen}")
    expect(seen["boxes"] >= 4, f"there are boxes at first: {seen}")
    # What is wider than the window begins in it; anything else is whole.
    expect(0 <= seen["left"] and (seen["isWide"] or seen["right"] >= 0), f"a call is not cut off: {seen}")


def names(page, expect):
    numbered = page.evaluate("app.views.graph.tree.boxes.map(box => box.label).filter(label => /^\\\\d+-\\\\w/.test(label))")
    expect(not numbered, f"layers have their words in the graph: {numbered[:3]}")
    alike = page.evaluate("""() => {
        const words = app.entry.kernels.map(kernel => kernel.words);
        return words.filter((text, i) => words.indexOf(text) !== i);
    }""")
    expect(not alike, f"kernels are called alike: {alike[:3]}")


def tables(page, settle, expect):
    for tab, table in [("kernels", "#kernels"), ("layers", "#layers"), ("memory", "#memory .peak-list")]:
        page.evaluate("tab => app.setTab(tab)", tab)
        settle(page)
        opener = page.locator("#memory .peak button[aria-expanded=false]")
        if tab == "memory" and opener.count():
            opener.click()
            settle(page)
        cut = page.locator(table).evaluate("e => e.scrollWidth - e.clientWidth")
        expect(cut <= 1, f"the table of {tab} is {cut} pixels too wide")
    # Names that are cut keep their ends.
    ends = page.locator("#kernels .ends").evaluate_all("""list => list.filter(e => {
        const spans = e.querySelectorAll('span');
        return e.closest('tr') && spans.length === 2 && spans[1].scrollWidth > spans[1].clientWidth + 1;
    }).map(e => e.textContent)""")
    expect(not ends, f"ends of names are cut: {ends[:3]}")


def charts(page, settle, expect):
    page.evaluate("app.setTab('timeline')")
    settle(page)
    page.keyboard.press("0")
    settle(page)
    seen = page.evaluate("""() => {
        const sheet = document.querySelector('#timeline .chart-sheet'), box = sheet.getBoundingClientRect();
        const chart = sheet.querySelector('svg'), over = [];
        let bar = null;
        for (const element of chart.querySelector('g').children) {
            if (element.tagName === 'rect') bar = element.getBoundingClientRect();
            if (element.tagName !== 'text') continue;
            const text = element.getBoundingClientRect();
            if (text.left < bar.left - 1 || text.right > bar.right + 1 || text.top < bar.top - 1 || text.bottom > bar.bottom + 1)
                over.push(element.textContent);
        }
        const cut = [...chart.querySelectorAll('text')].filter(t => {
            const text = t.getBoundingClientRect();
            return text.right > box.right + 1 || text.left < box.left - 1;
        }).map(t => t.textContent);
        return { over, cut, height: chart.clientHeight, room: sheet.clientHeight };
    }""")
    expect(not seen["over"] and not seen["cut"], f"names leave their bars, or the chart: {seen}")
    expect(seen["height"] >= 0.95 * seen["room"], f"the timeline has the height that there is: {seen}")
    said = page.locator("#head-kernel").inner_text()
    steps = page.evaluate("app.entry.profile?.steps ?? 0")
    expect(not steps or f"of {steps}: " in said, f"the bar says which step it is: {said}")
    page.evaluate("app.setTab('memory')")
    settle(page)
    low = page.evaluate("""() => {
        const sheet = document.querySelector('#memory .chart-sheet').getBoundingClientRect();
        const texts = [...document.querySelectorAll('#memory .chart-sheet text')].map(t => t.getBoundingClientRect());
        return Math.max(...texts.map(t => t.bottom)) - sheet.bottom;
    }""")
    expect(low <= 1, f"numbers under the memory map are cut by {low} pixels")


def tabs(page, settle, expect):
    places = set()
    for tab in ["memory", "timeline", "source"]:
        page.evaluate("tab => app.setTab(tab)", tab)
        settle(page)
        places.add(tuple(page.locator("#tabs [role=tab]").evaluate_all("l => l.map(t => Math.round(t.getBoundingClientRect().x))")))
        spare = page.evaluate("document.querySelector('main').offsetTop - document.querySelector('#tab-source').getBoundingClientRect().bottom")
        expect(spare < 8, f"{spare} pixels of nothing are under the tabs")
    expect(len(places) == 1, f"tabs move: {places}")
