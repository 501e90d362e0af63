"""Checks of the play-head: one position in the step, in all views at once."""

PLAYED = 10.0  # seconds that a step takes
FRAME = 16  # milliseconds: sixty in a second


def check_playhead(page, settle, expect):
    page.evaluate("app.choose(null)")
    page.keyboard.press("m")
    page.keyboard.press("0")
    settle(page)
    steps(page, settle, expect)
    everywhere(page, settle, expect)
    address(page, settle, expect)
    plays(page, settle, expect)
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(page.evaluate("app.playHead.at") is None, "Esc takes the play-head away")
    for key in "smlkg":
        page.keyboard.press(key)
        settle(page)
        marks = page.locator(".head-line:visible, .now:visible, .now-marks rect:visible").count()
        expect(marks == 0, f"and its marks: `{key}` shows {marks}")


def at(page):
    return page.evaluate("app.playHead.at")


def steps(page, settle, expect):
    expect(at(page) is None and page.locator("#playhead").is_visible(), "there is a bar, and no play-head at first")
    last = page.evaluate("app.entry.kernels.length - 1")
    for key, wanted in [("]", 0), ("]", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("[", 0), ("[", 0)]:
        page.keyboard.press(key)
        expect(at(page) == wanted, f"`{key}` goes to kernel {wanted}, not {at(page)}")
    page.locator("#head-track").press("End")
    expect(at(page) == last, "End goes to the last kernel")
    page.keyboard.press("]")
    expect(at(page) == last, "and there it stays")
    said = page.locator("#playhead").inner_text()
    expect(f"kernel {last} of 0 to {last}" in said and "live" in said, f"the bar says where it is: {said}")
    # A click in the middle of the strip is the middle of the time.
    box = page.locator("#head-track").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    part = page.evaluate("app.playHead.time / app.playHead.clock.total")
    expect(abs(part - 0.5) < 0.01, f"the strip is of time: {part}")
    # Shift and an arrow move the window, not the play-head.
    page.keyboard.press("+")
    settle(page)
    window, before = page.evaluate("app.views.memory.now.x0"), at(page)
    page.keyboard.press("Shift+ArrowRight")
    settle(page)
    expect(page.evaluate("app.views.memory.now.x0") > window and at(page) == before, "shift and an arrow move the map")
    page.keyboard.press("0")
    settle(page)
    # From what is chosen.
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.evaluate("app.choose({ kind: 'kernel', id: 3 }, { stay: true })")
    page.keyboard.press("]")
    expect(at(page) == 3, "it begins at the kernel that is chosen")
    page.evaluate("app.choose(null)")


def everywhere(page, settle, expect):
    """Each view shows the same kernel."""
    longest = page.evaluate("app.entry.kernels.reduce((a, b) => (secondsOf(a) > secondsOf(b) ? a : b)).at")
    middle = page.evaluate("Math.floor(app.entry.kernels.length / 2)")
    for k in [longest, middle]:
        page.evaluate("k => app.playHead.set(k)", k)
        for key in "mlksg":
            page.keyboard.press(key)
            if key in "ml":
                page.keyboard.press("0")
            if key == "g":
                page.evaluate("app.setStage(app.entry.stages.length - 1)")
            settle(page)
            seen(page, key, k, expect)
        page.evaluate("app.setStage(app.entry.last.index)")
        settle(page)
        marks = page.evaluate("app.views.graph.nowMarks.children.length")
        expect(marks > 0, f"the nodes of kernel {k} are marked at the last stage of the graph")
        page.evaluate("app.setStage(app.entry.stages.length - 1)")
        page.keyboard.press("4")
        settle(page)
        rows = page.locator("#graph .box.now").evaluate_all("list => list.map(e => e.dataset.id)")
        expect(rows == [f"k:{k}"], f"kernel {k} is marked in the order: {rows}")
        page.keyboard.press("2")
        settle(page)


def seen(page, key, k, expect):
    if key == "m":
        told = page.evaluate("""k => {
            const view = app.views.memory, { reads, writes } = app.entry.kernels[k], sheet = view.sheet;
            const drawn = [...new Set([...reads, ...writes])].filter(b => view.elements.has(b));
            const marked = [...view.elements].filter(([, e]) => e.classList.contains('now')).map(([b]) => b);
            const line = view.line.getBoundingClientRect().x - sheet.getBoundingClientRect().x;
            return { drawn: drawn.sort(), marked: marked.sort(), line, x: view.x(k) };
        }""", k)
        expect(abs(told["line"] - told["x"] + 1) < 1.5, f"the line stands at kernel {k} of the map: {told}")
        expect(told["drawn"] == told["marked"], f"what kernel {k} reads and writes is marked: {told}")
    if key == "l":
        told = page.evaluate("""k => {
            const view = app.views.timeline, lane = view.lanes[0], launch = lane.launches.find(l => l[0] === k);
            const line = view.line.getBoundingClientRect().x - view.sheet.getBoundingClientRect().x;
            return { line, x: view.x(launch[1]) };
        }""", k)
        expect(abs(told["line"] - told["x"] + 1) < 1.5, f"the line stands at the start of kernel {k}: {told}")
        kernels = page.locator("#timeline .item.now").evaluate_all("list => list.map(e => Number(e.dataset.kernel))")
        expect(set(kernels) <= {k}, f"only kernel {k} is marked: {kernels}")
    if key == "k":
        rows = page.locator("#kernels tr.now").evaluate_all("list => list.map(e => Number(e.dataset.kernel))")
        expect(rows == [k], f"the row of kernel {k} is marked: {rows}")
    if key == "s":
        lines = page.locator("#source .source-line.now").evaluate_all("list => list.map(e => Number(e.dataset.line))")
        wanted = page.evaluate("k => [...linesOf(app.entry, { kind: 'kernel', id: k }).keys()].sort((a, b) => a - b)", k)
        expect(lines == wanted, f"the lines of kernel {k} are marked: {lines}, {wanted}")
    if key == "g":
        inside = page.evaluate("""k => {
            const view = app.views.graph, box = view.tree.byId.get('k:' + k), [shown] = view.shownBoxes([box]);
            const p = view.place(shown), [frame] = view.nowMarks.children;
            return Number(frame?.getAttribute('x')) === p.x - 4 && Number(frame?.getAttribute('y')) === p.y - 4;
        }""", k)
        expect(inside, f"the box of kernel {k} is framed in the graph")


def address(page, settle, expect):
    page.evaluate("app.playHead.set(5)")
    settle(page)
    hash = page.evaluate("location.hash")
    expect("at=5" in hash, f"the address has the position: {hash}")
    page.evaluate("app.playHead.set(7)")
    settle(page)
    page.evaluate("hash => { location.hash = hash; }", hash)
    settle(page)
    expect(at(page) == 5, "and the address brings it back")


def plays(page, settle, expect):
    """Played, it goes through the step in ten seconds, frame by frame."""
    for key in "mls":
        page.keyboard.press(key)
        settle(page)
        page.evaluate("app.playHead.set(0)")
        page.keyboard.press("\\")
        told = page.evaluate("""() => new Promise(done => {
            const frames = [], start = performance.now();
            const look = now => {
                frames.push({ now, part: app.playHead.time / app.playHead.clock.total, at: app.playHead.at });
                if (now - start < 1500) requestAnimationFrame(look);
                else done(frames);
            };
            requestAnimationFrame(look);
        })""")
        page.keyboard.press("\\")
        passed = (told[-1]["now"] - told[0]["now"]) / 1000
        gone = told[-1]["part"] - told[0]["part"]
        expect(all(a["part"] <= b["part"] for a, b in zip(told, told[1:])), "time goes forward")
        expect(0 < gone <= 1.05 * passed / PLAYED, f"{gone:.3f} of the step in {passed:.2f} s")
        expect(len({frame["part"] for frame in told}) > 5, f"it moves frame by frame: {len(told)} frames")
        stopped = page.evaluate("app.playHead.time")
        page.wait_for_timeout(100)
        expect(page.evaluate("app.playHead.time") == stopped, "and it pauses")
        took = page.evaluate("""() => {
            const { playHead } = app, { total } = playHead.clock, times = [];
            for (let i = 0; i < 60; i++) {
                const start = performance.now();
                playHead.seek((total * i) / 60);
                document.body.offsetWidth;
                times.push(performance.now() - start);
            }
            return times.sort((a, b) => a - b)[30];
        }""")
        expect(took < FRAME, f"it moves smoothly: a position takes {took:.1f} ms")
    # At the end it stops, and begins again.
    page.evaluate("app.playHead.seek(app.playHead.clock.total * 0.995)")
    page.keyboard.press("\\")
    page.wait_for_timeout(100)
    for _ in range(50):
        if not page.evaluate("app.playHead.playing"):
            break
        page.wait_for_timeout(100)
    expect(page.evaluate("app.playHead.time === app.playHead.clock.total"), "it stops at the end")
    page.keyboard.press("\\")
    page.wait_for_timeout(200)
    page.keyboard.press("\\")
    part = page.evaluate("app.playHead.time / app.playHead.clock.total")
    expect(part < 0.2, f"and begins again: {part}")
