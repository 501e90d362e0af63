"""Rules, checked badges, and the page of a program against another one: python against.py CHECKED.html AGAINST.html...

The first page was made with --validate, the others with --against or --against-profile. Pictures go to $PICTURES, where
that is set.
"""

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright


def check_rules(page, settle, expect):
    """Every node that a table of rules added or replaced says by which rule, and the panel shows it."""
    seen = page.evaluate("""() => {
        const bare = [], passes = new Set();
        for (const stage of app.entry.graphStages) {
            if (!stage.by) continue;
            passes.add(stage.name);
            for (const name of [...stage.changes.added, ...stage.changes.removed.keys()])
                if (!rulesOf(stage, name).length) bare.push([stage.name, app.entry.names[name]]);
        }
        return { bare, passes: [...passes] };
    }""")
    expect(not seen["bare"], f"changes without a rule: {seen['bare'][:5]}")
    expect("arithmetic" in seen["passes"], f"passes with rules: {seen['passes']}")
    page.evaluate("app.choose(null); app.setTab('graph')")
    page.evaluate("app.setStage(app.entry.stages.findIndex(s => s.name === 'arithmetic'))")
    settle(page)
    expect(page.locator("#details .rules li").count() >= 1, "the list of changes counts rules")
    page.keyboard.press("n")
    settle(page)
    text = page.locator("#details .by-rule").first.inner_text()
    expect("rule" in text and text.count("→") == 1, f"a change says by which rewrite of which rule: {text}")
    rewrites = page.evaluate("app.entry.rules.map(rule => rule.rewrite)")
    expect(all(rewrite.count("→") == 1 for rewrite in rewrites), f"each is one rewrite: {rewrites}")
    page.keyboard.press("Escape")
    is_checked = page.evaluate("app.entry.graphStages.some(s => s.check)")
    page.evaluate("app.choose(null)")
    if not is_checked:
        expect(page.locator(".checked").count() == 0, "no badge where nothing was checked")
        expect("--validate" in page.locator("#details").inner_text(), "and the page says how to check")


def check_checked(page, settle, expect):
    """With --validate, each pass that changed something has its badge."""
    seen = page.evaluate("""() => app.entry.graphStages.filter(s => s.check?.values).map(s => {
        app.setTab('graph');
        app.setStage(s.index);
        return [s.name, document.querySelector('#stage-changes .checked')?.innerText ?? '', s.check.values];
    })""")
    settle(page)
    expect(len(seen) >= 3, f"passes that were compared: {seen}")
    expect(all("values" in badge for _, badge, _ in seen), f"badges: {seen}")
    expect(page.locator("#stage .is-checked").count() == len(seen), "and on the strip")


def check_waterfall(page, expect):
    sums = page.evaluate("""() => {
        const { sums, changes } = app.entry.base, moved = changes.reduce((sum, c) => sum + c.to - c.from, 0);
        const { step } = app.entry.profile ?? {};
        return { ...sums, moved, step: step?.seconds,
            ceilings: app.entry.kernels.reduce((sum, k) => sum + k.ceiling, 0) };
    }""")
    expect(abs(sums["from"] + sums["moved"] - sums["to"]) < 1e-9 * max(sums["from"], sums["to"]), f"exact sums: {sums}")
    whole = sums["step"] if sums["measured"] else sums["ceilings"]
    expect(abs(sums["to"] - whole) < 1e-6 * whole, f"A's sum is the whole: {sums}")
    # Bars touch: each begins where the one before ends.
    gaps = page.evaluate("""() => {
        const rows = [...document.querySelectorAll('#against .falls tbody tr')].map(r => r.querySelector('.fall i'));
        const edges = rows.map(i => [parseFloat(i.style.left),
            parseFloat(i.style.left) + parseFloat(i.style.width)]);
        let at = edges[0][1], worst = 0;
        for (const [left, right] of edges.slice(1, -1)) {
            worst = Math.max(worst, Math.min(Math.abs(left - at), Math.abs(right - at)));
            at = Math.abs(left - at) < Math.abs(right - at) ? right : left;
        }
        return { worst, end: Math.abs(at - edges[edges.length - 1][1]), rows: rows.length };
    }""")
    expect(gaps["worst"] < 0.05 and gaps["end"] < 0.5 and gaps["rows"] > 2, f"bars of the waterfall touch: {gaps}")
    # What steps of one program differ by too has no colour.
    colours = page.evaluate("""() => [...document.querySelectorAll('#against .falls tbody tr[tabindex]')].map(row =>
        [row.querySelector('td:nth-child(2)').className, row.querySelector('.fall i').className])""")
    expect(all(text == bar for text, bar in colours), f"one colour for a row: {colours}")
    spread = page.evaluate("app.entry.base.changes.slice(0, FALLS).filter(c => c.in_spread).length")
    grey = sum(text == "spread" for text, _ in colours)
    expect(grey == spread or not sums["measured"] and grey == 0, f"{grey} of {spread} rows are grey")
    if sums["measured"]:
        names = page.locator("#against .sides").inner_text()
        files = page.evaluate("[DATA.against.a.profile, DATA.against.b.profile]")
        expect(all(files) and all(file in names for file in files), f"files of times: {names}")


def check_work(page, expect):
    """Of two machines no times are compared, but what kernels compute and move is."""
    text = page.locator("#against").inner_text()
    expect("--against-profile" in text, "it says how times come in")
    table = page.locator("#against .totals").inner_text()
    expect("ceilings" not in table and "measured" not in table and "FLOPs" in table, f"no time in the sums: {table}")
    expect(page.locator("#against .fall").count() == 0, "no waterfall")
    rows = page.evaluate("""() => {
        const rows = document.querySelectorAll('#against .falls tbody tr[tabindex]');
        return [...rows].map(row => [...row.querySelectorAll('td')].map(td => td.innerText));
    }""")
    expect(rows and all(len(row) == 5 for row in rows), f"{len(rows)} kernels that differ")
    expect(not any(" ms" in cell or " µs" in cell for row in rows for cell in row[1:]), "no time of a kernel")


def check_against(page, width, settle, expect):
    """The waterfall leads from one sum to the other, and the graph shows what is gone and new."""
    page.keyboard.press("a")
    settle(page)
    expect(page.locator("#tab-against").get_attribute("aria-selected") == "true", "a shows the comparison")
    if page.evaluate("Boolean(app.entry.base.sums)"):
        check_waterfall(page, expect)
    else:
        check_work(page, expect)
    expect(page.evaluate("document.documentElement.scrollWidth") <= width, f"nothing is wider than {width}")
    cut = page.evaluate("(e => e.scrollWidth - e.clientWidth)(document.getElementById('against'))")
    expect(cut <= 1, f"the waterfall is {cut} pixels too wide")
    # A row is a kernel, and from there everything else.
    page.locator("#against .falls tbody tr[tabindex]").first.click()
    settle(page)
    expect(page.locator("#details h2").count() >= 1, "a row says more in the panel")
    page.keyboard.press("Escape")
    if "optimised graphs are the same" in page.locator("#against").inner_text():
        lists = page.evaluate("changeList(app.entry.stages[app.entry.stages.length - 1]).length")
        expect(lists == 0, f"{lists} changes of graphs that are the same")
        return
    page.locator("#against .totals .link").click()
    settle(page)
    expect("against B" in page.locator("#stage-name").inner_text(), "the graph has a stage against B")
    counts = page.evaluate("""() => {
        const { changes } = app.stage;
        return { added: changes.added.size, removed: changes.removed.size, changed: changes.changed.size };
    }""")
    expect(sum(counts.values()) > 0, f"something differs: {counts}")
    gone = page.evaluate("""() => {
        const [name] = [...app.stage.changes.removed.keys()].filter(n => app.entry.nodes.some(
            node => node.name === n && node.role.kind !== 'leaf'));
        if (name === undefined) return null;
        app.setStage(0);
        app.choose({ kind: 'node', id: app.entry.names[name] });
        return app.entry.names[name];
    }""")
    settle(page)
    if gone:
        expect(gone in page.locator("#details h2").first.inner_text(), f"`{gone}` of B is shown")


def main(files):
    from browser import expect, open_page, settle

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    expect(chromium, "there is no Chromium: set $CHROMIUM")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for scheme, width in [("light", 1400), ("dark", 700)]:
            for number, file in enumerate(files):
                context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
                problems = []
                page = open_page(context, Path(file).resolve().as_uri(), problems)
                check_rules(page, settle, expect)
                if number == 0:
                    check_checked(page, settle, expect)
                else:
                    check_against(page, width, settle, expect)
                if pictures := os.environ.get("PICTURES"):
                    name = f"{Path(file).stem}-{scheme}-{width}.png"
                    page.screenshot(path=str(Path(pictures) / f"graph-{name}"))
                    if number:
                        page.keyboard.press("Escape")
                        page.keyboard.press("a")
                        settle(page)
                        page.screenshot(path=str(Path(pictures) / f"against-{name}"))
                expect(not problems, f"the browser complains: {problems}")
                print(f"{Path(file).name}, {scheme}, {width} wide: all as expected")
                context.close()
        browser.close()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except AssertionError as error:
        sys.exit(f"wrong: {error}")
