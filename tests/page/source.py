"""Checks of the page's view of the program: what lines cost, and what lights up with them."""


def check_source(page, settle, expect):
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    settle(page)
    shown(page, expect)
    sums(page, expect)
    shares(page, expect)
    traces(page, expect)
    lights(page, settle, expect)
    lit(page, settle, expect)


def shown(page, expect):
    expect(page.locator("#tab-source").get_attribute("aria-selected") == "true", "`s` shows the program")
    rows = page.locator("#source .source-line[data-line]")
    expect(rows.count() == page.evaluate("app.lines.length"), "every line is there")
    text = page.evaluate("[...document.querySelectorAll('#source [data-line] code')].map(e => e.textContent).join('\\n')")
    expect(text == page.evaluate("DATA.source"), "as it was written")
    word = "Measured on" if page.evaluate("Boolean(app.entry.profile)") else "Predicted"
    expect(word in page.locator(".source-head").inner_text(), f"the head says `{word}`")
    # The dearest line is what one sees: the widest bar, and in the roles' colours.
    widths = page.evaluate("""() => [...app.views.source.rows].map(([line, row]) => {
        const parts = [...row.querySelectorAll('.part')];
        const colours = parts.map(part => getComputedStyle(part).backgroundColor);
        const width = parts.reduce((sum, part) => sum + part.getBoundingClientRect().width, 0);
        return { line, width, colours, seconds: lineCosts(app.entry).get(line)?.seconds ?? 0 };
    })""")
    wide, dear = (max(widths, key=lambda row: row[what]) for what in ("width", "seconds"))
    expect(wide["line"] == dear["line"] and wide["width"] > 40, f"the dearest line has the widest bar: {wide}, {dear}")
    expect(any(len(row["colours"]) > 1 for row in widths), "lines have several roles")
    for row in widths:
        expect(len(set(row["colours"])) == len(row["colours"]), f"which are told apart: {row}")
        share = row["seconds"] / dear["seconds"]
        expect(abs(row["width"] / wide["width"] - share) < 0.06, f"bars are as long as what they stand for: {row}")


def sums(page, expect):
    """Lines, and what has none, add up: to the kernels, to the step, to the bytes at the peak."""
    told = page.evaluate("""() => {
        const { entry } = app, sum = (list, of) => list.reduce((total, x) => total + of(x), 0);
        const costs = [...lineCosts(entry).values()], roles = cost => sum(Object.values(cost.roles), s => s);
        return {
            lines: sum(costs, cost => cost.seconds),
            roles: sum(costs, roles),
            calls: sum(costs, cost => sum([...cost.calls.values()], call => call.seconds)),
            kernels: sum(entry.kernels, k => (entry.profile ? k.time.seconds : k.ceiling)),
            between: entry.profile?.step.between_seconds ?? 0,
            step: entry.profile?.step.seconds ?? sum(entry.kernels, k => k.ceiling),
            flops: sum(costs, cost => cost.flops) / sum(entry.kernels, k => k.flops),
            bytes: sum(costs, cost => cost.bytes) / sum(entry.kernels, k => k.bytes),
            peak: sum(costs, cost => cost.peak), most: Math.max(...entry.live),
        };
    }""")
    near = lambda a, b: abs(a - b) <= 1e-9 * max(a, b)
    expect(near(told["lines"], told["kernels"]), f"lines add up to the kernels: {told}")
    expect(near(told["roles"], told["lines"]) and near(told["calls"], told["lines"]), f"so do roles and calls: {told}")
    expect(near(told["lines"] + told["between"], told["step"]), f"and to the step: {told}")
    expect(near(told["flops"], 1) and near(told["bytes"], 1), f"and FLOPs and bytes: {told}")
    expect(told["peak"] == told["most"], f"and what is in use at the peak: {told}")


def shares(page, expect):
    """A line that several calls share says each one's part."""
    hint = page.evaluate("""() => {
        const costs = [...lineCosts(app.entry)].filter(([line, cost]) => line && cost.calls.size > 1);
        const [line, cost] = costs.sort((a, b) => b[1].calls.size - a[1].calls.size)[0];
        const parts = callsOf(app.entry, cost).map(call => call.name);
        return { text: app.views.source.rows.get(line).querySelector('.margin').title, parts };
    }""")
    said = [part in hint["text"] for part in hint["parts"][:12]]
    expect(len(said) > 1 and all(said), f"each call of a line is said: {hint}")
    blocks = page.evaluate("[...blockCosts(app.entry, app.lines)]")
    expect(blocks, "blocks have totals")
    for line, block in blocks:
        inside = page.evaluate(f"""[...lineCosts(app.entry)].reduce(
            (sum, [line, cost]) => sum + (line >= {line} && line <= {block["to"]} ? cost.seconds : 0), 0)""")
        expect(abs(inside - block["seconds"]) <= 1e-9 * inside, f"the block from line {line} is its lines together")
        text = page.locator(f"#source [data-line='{line}'] .of-time").inner_text()
        expect(text.startswith("Σ"), f"and says so: {text}")


def traces(page, expect):
    """A kernel that is hardly a line's is not told to be its, nor the line the kernel's."""
    told = page.evaluate("""() => {
        const { entry } = app, wrong = [];
        let left = 0;
        for (const kernel of entry.kernels) {
            const parts = new Map();
            for (const { line, time } of kernel.lines) parts.set(line, (parts.get(line) ?? 0) + time);
            for (const [line, part] of parts) {
                if (!line || part >= 0.01) continue;
                const alone = lineKernels(entry, line).every(k => entry.kernels[k].lines.reduce(
                    (sum, share) => sum + (share.line === line ? share.time : 0), 0) < 0.01);
                left += 1;
                const shown = linesOf(entry, { kind: 'kernel', id: kernel.at }).has(line);
                if (!alone && lineKernels(entry, line).includes(kernel.at)) wrong.push([line, kernel.at]);
                if (shown && [...parts].some(([other, of]) => other && of >= 0.01)) wrong.push([kernel.at, line]);
            }
        }
        return { left, wrong };
    }""")
    expect(not told["wrong"], f"traces of lines and kernels: {told}")


def lights(page, settle, expect):
    """A line's kernels, buffers and nodes light up in every view."""
    line = page.evaluate("""() => {
        const { entry } = app, costs = [...lineCosts(entry)];
        const full = costs.filter(([line, cost]) => line && cost.seconds && lineBuffers(entry, line).length);
        return full.sort((a, b) => b[1].seconds - a[1].seconds)[0][0];
    }""")
    page.locator(f"#source [data-line='{line}'] .number").click()
    expect(f"Line {line}" in page.locator("#details").inner_text(), "a click on a line chooses it")
    expect(page.locator("#source .source-line.chosen").count() == 1, "and marks it")
    # What is made of the line is found here from the nodes of kernels, not from what the page computed.
    made = page.evaluate("""line => {
        const { entry } = app, own = new Set(entry.last.nodes.filter(n => n.line === line).map(n => n.name));
        const kernels = entry.kernels.filter(k => k.nodes.some(n => own.has(n) &&
            entry.last.byName.get(n).role.kind !== 'leaf'));
        // Not where all but a trace of a kernel is for other lines.
        const part = k => k.lines.reduce((sum, share) => sum + (share.line === line ? share.time : 0), 0);
        return { kernels: kernels.filter(k => part(k) >= 0.01).map(k => k.at), own: own.size };
    }""", line)
    expect(made["own"] and made["kernels"], f"line {line} has nodes and kernels: {made}")
    for tab, key, items in [("kernels", "k", "#kernels tr.chosen"), ("timeline", "l", "#timeline .item.chosen")]:
        page.keyboard.press(key)
        page.keyboard.press("0")
        settle(page)
        lit = page.locator(items).evaluate_all("list => [...new Set(list.map(e => Number(e.dataset.kernel)))]")
        drawn = page.evaluate("""tab => (tab === 'kernels' ? [...app.views.kernels.rows.keys()]
            : [...app.views.timeline.elements.keys()])""", tab)
        expect(sorted(lit) == sorted(set(made["kernels"]) & set(drawn)) and lit, f"its kernels light up in {tab}")
    page.keyboard.press("m")
    page.keyboard.press("0")
    settle(page)
    lit = page.locator("#memory .item.chosen").evaluate_all("list => list.map(e => Number(e.dataset.buffer))")
    right = page.evaluate("list => list.every(b => app.entry.buffers[b].line === app.chosen.id)", lit)
    expect(lit and right, f"its buffers light up in memory: {lit}")
    for stage in ["declared", page.evaluate("app.entry.last.name"), "kernels"]:
        page.keyboard.press("g")
        page.evaluate("name => app.setStage(app.entry.stages.findIndex(s => s.name === name))", stage)
        settle(page)
        expect(page.evaluate("app.views.graph.chosenBoxes.size") > 0, f"its nodes light up in the graph at {stage}")
    page.keyboard.press("4")
    settle(page)
    lit = page.locator("#graph .box.chosen").count()
    expect(lit == len(made["kernels"]), f"and in the order: {lit} of {len(made['kernels'])}")
    page.keyboard.press("2")
    settle(page)
    page.keyboard.press("Escape")


def lit(page, settle, expect):
    """The lines of whatever is chosen, in any view, light up in the program."""
    lines = lambda: page.locator("#source .source-line.chosen").evaluate_all("list => list.map(e => Number(e.dataset.line))")
    chosen = page.evaluate("""() => {
        const { entry } = app, { last } = entry, kernel = entry.kernels.find(k => k.nodes.length > 3);
        const own = n => last.byName.get(n), node = last.nodes.find(n => n.line && n.role.kind === 'gradient');
        const buffer = entry.buffers.find(b => b.role === 'temporary' && b.nodes.some(n => own(n)?.line));
        const group = node.groups[0], unique = list => [...new Set(list)].filter(Boolean).sort((a, b) => a - b);
        return [
            ['kernel', kernel.at, unique(kernel.nodes.map(own).filter(n => n.role.kind !== 'leaf').map(n => n.line))],
            ['node', entry.names[node.name], [node.line]],
            ['buffer', buffer.at, unique([buffer.line])],
            ['group', entry.groups[group].id, unique(entry.nodes.filter(n => n.groups.includes(group)).map(n => n.line))],
        ];
    }""")
    for kind, at, wanted in chosen:
        page.evaluate("chosen => { app.choose(chosen, { stay: true }); app.setTab('source'); }", {"kind": kind, "id": at})
        settle(page)
        expect(lines() == wanted and wanted, f"the lines of {kind} {at} are {wanted}, {lines()} light up")
        box = page.locator("#source .source-line.chosen").first.bounding_box()
        expect(box, f"and the line of {kind} {at} is there")
    page.keyboard.press("Escape")
    expect(not lines(), "nothing chosen, nothing lit")
