'use strict';
// The programs' text, and how that of one run differs from another's.

// The lines of both with what became of each: by the longest common subsequence of what lies between equal ends.
function lineDiff(before, after) {
  const [a, b] = [before, after];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const [n, m] = [a.length - start - end, b.length - start - end];
  const longest = Array.from({ length: n + 1 }, () => new Uint16Array(m + 1));
  for (let i = n - 1; i >= 0; i--) {
    for (let j = m - 1; j >= 0; j--) {
      longest[i][j] = a[start + i] === b[start + j] ? longest[i + 1][j + 1] + 1 : Math.max(longest[i + 1][j], longest[i][j + 1]);
    }
  }
  const rows = [];
  const same = (i, j) => rows.push({ kind: '', text: a[i], number: j + 1 });
  for (let i = 0; i < start; i++) same(i, i);
  let [i, j] = [0, 0];
  while (i < n || j < m) {
    if (i < n && j < m && a[start + i] === b[start + j]) { same(start + i, start + j); i++; j++; }
    else if (i < n && (j === m || longest[i + 1][j] >= longest[i][j + 1])) { rows.push({ kind: 'removed', text: a[start + i], number: null }); i++; }
    else { rows.push({ kind: 'added', text: b[start + j], number: start + j + 1 }); j++; }
  }
  for (let k = end; k > 0; k--) same(a.length - k, b.length - k);
  return rows;
}

class Programs {
  constructor(root, runs) {
    this.runs = runs.filter(run => run.text !== undefined);
    for (const run of runs) {
      if (run.problem) root.append(html('p', { class: 'dim' }, `${run.name} has no program to show: ${run.problem}`));
    }
    if (!this.runs.length) return;
    const texts = new Set(this.runs.map(run => run.text));
    const option = run => html('option', { value: this.runs.indexOf(run) }, run.name);
    this.of = html('select', { id: 'program-of', 'aria-label': 'Program of', onchange: () => this.draw() }, this.runs.map(option));
    this.from = html('select', { id: 'program-from', 'aria-label': 'Compared with', onchange: () => this.draw() }, html('option', { value: -1 }, 'nothing'), this.runs.map(option));
    const other = this.runs.find(run => run.text !== this.runs[0].text);
    if (other) {
      this.of.value = this.runs.indexOf(other);
      this.from.value = 0;
    }
    this.box = html('pre', { class: 'text', tabindex: 0 });
    const about = this.runs.length === 1 ? this.runs[0].program : texts.size === 1 ? `${this.runs[0].program}, the same in all runs` : `${texts.size} different texts`;
    root.append(html('details', { open: other !== undefined }, html('summary', {}, 'Program', html('small', {}, about)),
      this.runs.length > 1 ? html('div', { class: 'pick' }, html('label', {}, 'of ', this.of), html('label', {}, 'compared with ', this.from)) : null, this.box));
    this.draw();
  }

  draw() {
    const lines = text => text.replace(/\n$/, '').split('\n');
    const run = this.runs[Number(this.of.value)];
    const from = this.runs[Number(this.from.value)];
    const row = ({ kind, text, number }) => html('span', { class: kind }, html('i', {}, number ?? ''), from ? { removed: '− ', added: '+ ' }[kind] ?? '  ' : '', text);
    let rows = from ? lineDiff(lines(from.text), lines(run.text)) : lines(run.text).map((text, i) => ({ kind: '', text, number: i + 1 }));
    // Of what is the same, three lines around each difference.
    if (from && rows.some(each => each.kind)) {
      const near = i => rows.slice(Math.max(0, i - 3), i + 4).some(each => each.kind);
      const shown = rows.map((_, i) => near(i));
      const short = [];
      rows.forEach((each, i) => {
        if (shown[i]) short.push(row(each));
        else if (i === 0 || shown[i - 1]) {
          let next = i;
          while (next < rows.length && !shown[next]) next++;
          short.push(html('span', { class: 'skipped' }, html('i', {}), `${next - i} equal line${next - i === 1 ? '' : 's'}`));
        }
      });
      this.box.replaceChildren(...short);
      return;
    }
    this.box.replaceChildren(...(from ? [html('span', { class: 'skipped' }, html('i', {}), 'no difference')] : []), ...rows.map(row));
  }
}
