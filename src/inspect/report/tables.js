'use strict';
// Figures of the metrics, and how the runs were made.

function figuresTable(root, runs) {
  const names = [...new Set(runs.flatMap(run => run.figures.map(each => each.name)))];
  const rate = names.indexOf('images_per_second');
  if (rate >= 0) names.push(...names.splice(rate, 1));
  if (!names.length) return;
  const at = pair => (pair ? [figure(pair[1]), ' ', html('small', {}, `step ${thousands(pair[0])}`)] : ['–']);
  const isAnyLost = runs.some(run => run.figures.some(each => each.lost));
  const rows = names.flatMap(name => {
    const found = runs.filter(run => run.shown).map(run => [run, run.figures.find(each => each.name === name)]).filter(([, each]) => each);
    return found.map(([run, each], i) => html('tr', {},
      i ? null : html('th', { rowspan: found.length, scope: 'rowgroup' }, name),
      runs.length > 1 ? html('td', {}, run.label()) : null,
      html('td', { class: 'figure' }, at(each.last)), html('td', { class: 'figure' }, at(each.lowest)), html('td', { class: 'figure' }, at(each.highest)),
      isAnyLost ? html('td', { class: 'figure' }, each.lost ? thousands(each.lost) : '') : null));
  });
  const heads = [['metric'], ...(runs.length > 1 ? [['run']] : []), ['last', 'figure'], ['lowest', 'figure'], ['highest', 'figure'], ...(isAnyLost ? [['not finite', 'figure']] : [])];
  root.replaceChildren(html('h2', {}, 'Figures'), html('div', { class: 'scroll' },
    html('table', { class: 'list' }, html('thead', {}, html('tr', {}, heads.map(([text, kind]) => html('th', { class: kind, scope: 'col' }, text)))), html('tbody', {}, rows))));
}

// What could not be read, above all else: whoever compares runs must know what is missing.
function notesList(root, runs) {
  const notes = [
    ...DATA.left_out.map(each => ['left out', each.problem]),
    ...runs.flatMap(run => run.notes.map(note => [run.name, note])),
  ];
  root.hidden = !notes.length;
  if (!notes.length) return;
  root.append(html('h2', {}, 'Not shown'), html('ul', {}, notes.map(([of, note]) => html('li', {}, html('b', {}, of), ': ', note))));
}

function command(text) {
  const button = html('button', { title: 'Copy the command', onclick: () => {
    const done = () => { button.textContent = 'copied'; setTimeout(() => { button.textContent = 'copy'; }, 1200); };
    // A page from a file may have no clipboard: then the text is selected, to be copied by hand.
    const select = () => getSelection().selectAllChildren(button.parentElement.querySelector('code'));
    navigator.clipboard ? navigator.clipboard.writeText(text).then(done, select) : select();
  } }, 'copy');
  return html('div', { class: 'command' }, html('code', {}, text), button);
}

function settingsTable(root, runs) {
  const isHash = name => /checksum|SHA/.test(name);
  const cell = (name, value) => {
    if (name === 'commands') return command(value);
    return html('div', {}, isHash(name) ? html('code', {}, value) : value);
  };
  const draw = () => {
    const shown = runs.filter(run => run.shown);
    const rows = DATA.settings.filter(row => !only.checked || row.differs).map(row => html('tr', { class: row.differs ? 'differs' : null },
      html('th', { class: 'name', scope: 'row' }, row.name), shown.map(run => html('td', {}, row.values[run.index].map(value => cell(row.name, value))))));
    const head = html('tr', {}, html('th', {}), shown.map(run => html('th', { scope: 'col' }, run.label())));
    table.replaceChildren(...(runs.length > 1 ? [html('thead', {}, head)] : []), html('tbody', {}, rows));
  };
  const only = html('input', { type: 'checkbox', id: 'only-differences', onchange: draw });
  const count = DATA.settings.filter(row => row.differs).length;
  const table = html('table', { class: 'list' });
  root.append(html('h2', {}, 'Settings', runs.length > 1 ? html('small', {}, html('label', {}, only, ` differences only (${count})`)) : null), html('div', { class: 'scroll' }, table));
  for (const run of runs) if (run.unread) root.append(html('p', { class: 'dim' }, `How ${run.name} was started is not known: ${run.unread}`));
  draw();
  return draw;
}
