"""Checks of what the page says things cost: missed fusions, the peak of memory, layers."""


def check_costs(page, width, settle, expect):
    missed(page, width, settle, expect)
    peak(page, settle, expect)
    layers(page, settle, expect)
    page.keyboard.press("Escape")


def details(page):
    return page.locator("#details").inner_text()


def missed(page, width, settle, expect):
    page.keyboard.press("f")
    page.keyboard.press("Escape")
    settle(page)
    # Every edge between two kernels has its reason and its price, in the list and on the edge itself.
    unknown = page.evaluate("""() => {
        const { entry } = app;
        const without = entry.flows.filter(flow => !missedText(entry, flow.from, flow.to).includes('not fused: '));
        return without.concat(entry.missed.reasons.filter(reason => reason.title === 'not known'));
    }""")
    expect(not unknown, f"edges without a reason: {unknown[:3]}")
    pairs = page.evaluate("app.entry.missed.pairs.length")
    rows = page.locator("#missed tbody tr")
    expect(rows.count() == min(pairs, 150), f"{rows.count()} rows of {pairs} pairs")
    saves = page.evaluate("app.entry.missed.pairs.map(p => p.seconds)")
    expect(saves == sorted(saves, reverse=True) and saves[-1] > 0, "those that save most come first")
    foot = page.locator("#missed tfoot").inner_text()
    total = page.evaluate("time(app.entry.missed.pairs.reduce((sum, p) => sum + p.seconds, 0))")
    expect(total in foot and "do not add up" in foot, f"the foot has the sum {total}: {foot}")
    # What matters is in the window, and nothing is cut off.
    edge = page.locator("#views").bounding_box()
    cell = page.locator("#missed tbody td.why").first.bounding_box()
    expect(cell["x"] + cell["width"] <= edge["x"] + edge["width"] + 1, f"reasons are seen at {width}")
    # A reason alone.
    reason = page.locator("#missed .reasons button").first
    title = reason.get_attribute("data-reason")
    reason.click()
    of = page.evaluate(
        "title => app.entry.missed.pairs.filter(p => app.entry.missed.reasons[p.reason].title === title).length", title
    )
    expect(rows.count() == min(of, 150) and of <= pairs, f"{rows.count()} rows of `{title}`, {of} pairs")
    page.locator(f"#missed .reasons button[data-reason='{title}']").click()
    # Links: both kernels, which the panel explains in turn, and the buffer.
    first = page.evaluate("app.entry.missed.pairs[0]")
    rows.first.locator(".pair .link").nth(1).click()
    expect(page.evaluate("app.chosen") == {"kind": "kernel", "id": first["to"]}, "the reader is chosen")
    expect("WHY NOT FUSED" in details(page).upper() and "saves" in details(page), "and the panel says why it is apart")
    expect("chosen" in rows.first.get_attribute("class"), "its rows are marked")
    rows.first.locator(".through .link").first.click()
    settle(page)
    expect(
        page.locator("#memory .item.chosen").count() == 1
        and page.evaluate("app.chosen.id") == first["buffers"][0],
        "the buffer is shown in memory",
    )
    page.keyboard.press("Escape")
    # On the edges of the pictures.
    page.evaluate("app.setStage(app.entry.stages.length - 1)")
    for level, edges in [("2", "#graph path.edge > title"), ("4", "#graph .order path.edge > title")]:
        page.keyboard.press("g")
        page.keyboard.press(level)
        settle(page)
        texts = page.locator(edges).all_text_contents()
        expect(texts and all("would save" in text for text in texts), f"edges at level {level} say why: {texts[:2]}")
    page.keyboard.press("2")
    page.evaluate("app.setStage(0)")


def peak(page, settle, expect):
    page.keyboard.press("m")
    page.keyboard.press("Escape")
    page.keyboard.press("0")
    settle(page)
    seen = page.evaluate("""() => {
        const { entry } = app, { peak } = entry;
        return {
            sum: peak.buffers.reduce((sum, b) => sum + b.bytes, peak.other_state), bytes: peak.bytes,
            most: Math.max(...entry.live), at: entry.live.indexOf(Math.max(...entry.live)), peak: peak.at,
            tight: entry.arena === entry.lower_bound,
            needed: peak.buffers.filter(b => b.why.kind === 'needed_by').length,
            live: peak.buffers.every(({ buffer }) => {
                const [from, to] = entry.buffers[buffer].live;
                return from <= peak.at && peak.at < to;
            }),
        };
    }""")
    expect(seen["sum"] == seen["bytes"] == seen["most"] and seen["at"] == seen["peak"], f"the list is the peak: {seen}")
    expect(seen["live"], "all of it is live there")
    panel = page.locator("#memory .peak")
    text = panel.inner_text()
    expect(("no plan of this schedule can be smaller" in text) == seen["tight"], f"the certificate: {text[:200]}")
    # A narrow window begins with the list closed.
    opener = panel.locator("button[aria-expanded]")
    if opener.get_attribute("aria-expanded") == "false":
        opener.click()
        settle(page)
    sizes = page.evaluate(
        "[...document.querySelectorAll('.peak tr[data-buffer]')].map(r => "
        "app.entry.peak.buffers.find(b => b.buffer === Number(r.dataset.buffer)).bytes)"
    )
    expect(sizes and sizes == sorted(sizes, reverse=True), f"the largest comes first: {sizes[:5]}")
    expect(not seen["needed"] or "needed by" in panel.inner_text(), "what is needed says by which kernel")
    again = page.evaluate("""() => {
        const { entry } = app, rows = [...document.querySelectorAll('.peak tr[data-buffer]')];
        return rows.map(row => [row, entry.peak.buffers.find(b => b.buffer === Number(row.dataset.buffer)).again])
            .filter(([, again]) => again.kind === 'possible').map(([row, again]) => ({
                shown: row.children[5].innerText, measured: Boolean(entry.profile),
                wanted: time(again.kernels.reduce((sum, k) => sum + secondsOf(entry.kernels[k]), 0)) }));
    }""")
    head = panel.locator("th").nth(5).inner_text()
    wrong = [row for row in again if row["shown"] != row["wanted"] or row["measured"] != ("measured" in head)]
    expect(not wrong, f"what computing again costs, {head}: {wrong[:3]}")
    names = page.evaluate("[...document.querySelectorAll('.peak tr[data-buffer] td.name')].map(cell => cell.innerText)")
    bare = [name for name in names if name.startswith(("matmul", "conv2d", "add.", "mul.", "reduce_", "d_discriminator"))]
    expect(not bare, f"buffers have words: {bare}")
    expect(page.locator("#memory .peak-column rect").count() == 1, "the peak is shaded in the map")
    column = page.locator("#memory .peak-column rect").bounding_box()
    inside = page.evaluate("""() => {
        const peak = document.querySelector('#memory .peak-column rect').getBoundingClientRect();
        const middle = peak.x + peak.width / 2, wrong = [];
        for (const { buffer } of app.entry.peak.buffers) {
            const box = document.querySelector(`#memory .item[data-buffer='${buffer}']`)?.getBoundingClientRect();
            if (box && (box.x > middle + 1 || box.right < middle - 1)) wrong.push(buffer);
        }
        return wrong;
    }""")
    expect(column["height"] > 50 and not inside, f"all that is live is in the column: {inside}")
    row = panel.locator("tr[data-buffer]").first
    row.locator("td").first.click()
    expect(page.locator("#memory .item.chosen").count() == 1, "a row marks its rectangle")
    opener.click()
    expect(panel.locator("table").count() == 0, "the list closes")
    opener.click()
    expect(panel.locator("table").count() == 1, "and opens")
    page.keyboard.press("Escape")


def layers(page, settle, expect):
    page.keyboard.press("y")
    settle(page)
    sums = page.evaluate("""() => {
        const { entry } = app, { costs, profile } = entry, sum = list => list.reduce((a, b) => a + b, 0);
        const kernels = sum(entry.kernels.map(k => (profile ? k.time.seconds : k.ceiling)));
        return {
            parts: sum(costs.parts.map(p => p.seconds)), step: profile ? profile.step.seconds : kernels,
            layers: sum(costs.layers.map(l => l.seconds ?? l.ceiling)), kernels,
            all: costs.layers.flatMap(l => l.kernels).sort((a, b) => a - b).every((k, i) => k === i),
            count: sum(costs.layers.map(l => l.kernels.length)), of: entry.kernels.length,
            points: costs.layers.filter(l => l.flops && l.bytes).length, names: new Set(costs.layers.map(l => l.layer)).size,
        };
    }""")
    close = lambda a, b: abs(a - b) <= 1e-9 * max(abs(a), abs(b))
    expect(close(sums["parts"], sums["step"]), f"the parts are the step: {sums}")
    expect(close(sums["layers"], sums["kernels"]), f"layers are all kernels: {sums}")
    expect(sums["all"] and sums["count"] == sums["of"], f"each kernel is in one layer: {sums}")
    expect(page.locator("#layers tbody tr.layer").count() == sums["names"], "every layer has a row")
    expect(page.locator("#layers circle").count() == sums["points"], "and its roles are under the roofline")
    # A machine that is too slow for its launches to matter, as a busy one seems to be, has no such ceiling.
    curves = page.evaluate("""LAUNCH_PARTS.filter(times =>
        DATA.machine.launch_seconds * DATA.machine.bytes_per_second / times >= LEAST_MOVED).length""")
    found = page.locator("#layers path.ceiling.launches").count()
    expect(found == 0 if curves == 0 else 1 <= found <= curves, f"ceilings of launches: {found} of {curves}")
    caches = page.evaluate("""() => {
        const { caches, bytes_per_second: memory } = DATA.machine, faster = rate => rate > 1.05 * memory;
        const seen = app.entry.kernels.some(k => k.time && faster(k.bytes / k.time.seconds));
        return { measured: Object.values(caches ?? {}).filter(faster).length, seen };
    }""")
    dotted = page.locator("#layers path.ceiling.cache").count()
    expect(dotted == (caches["measured"] or int(caches["seen"])), f"{dotted} ceilings of caches: {caches}")
    if caches["measured"]:
        expect("-level cache" in page.locator("#layers").inner_text(), "which are called by their caches")
    page.locator("#layers th button", has_text="bytes").first.click()
    order = page.evaluate("app.views.layers.rows.filter(r => r.element.classList.contains('layer')).map("
                          "r => r.kernels.reduce((sum, k) => sum + app.entry.kernels[k].bytes, 0))")
    expect(order == sorted(order, reverse=True), f"layers are sorted by bytes: {order[:5]}")
    part = page.locator("#layers tr.part").first
    part.locator("td").first.click()
    link = page.locator("#layers tr.inside .link").first
    link.click()
    expect(page.evaluate("app.chosen.kind") == "kernel" and "Body" in details(page).replace("BODY", "Body"), "its kernels are listed")
    expect(page.locator("#layers tr.part.chosen").count() == 1, "and their row is marked")
