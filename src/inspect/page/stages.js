'use strict';
// The strip of stages, and what a pass did, as a list that is walked through.

const LISTED = 40; // changes of a kind that are listed before one asks for more

/** A dot for every stage that means something, a tick for a pass that changed nothing. */
class StageStrip {
  constructor(app) {
    this.app = app;
    this.track = $('stage');
    this.track.addEventListener('pointerdown', event => {
      this.track.setPointerCapture(event.pointerId);
      this.take(event);
    });
    this.track.addEventListener('pointermove', event => {
      if (event.buttons) this.take(event);
    });
    this.track.addEventListener('keydown', event => {
      const { entry, stageIndex } = app,
        last = entry.stages.length - 1;
      const to = { ArrowLeft: entry.next(stageIndex, -1), ArrowRight: entry.next(stageIndex, 1), Home: 0, End: last }[
        event.key
      ];
      if (to === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      app.setStage(to);
    });
  }

  /** The stage at the pointer; one that means something, unless the pointer is right on a tick. */
  take(event) {
    const { left, width } = this.track.getBoundingClientRect(),
      { entry } = this.app,
      steps = entry.stages.length - 1;
    const at = ((event.clientX - left - 8) / (width - 16)) * steps;
    let best = 0;
    for (let s = 0; s <= steps; s++) if (entry.means(s) && Math.abs(s - at) < Math.abs(best - at)) best = s;
    this.app.setStage(best);
  }

  draw() {
    const { entry, stageIndex, stage } = this.app,
      steps = Math.max(1, entry.stages.length - 1);
    this.track.replaceChildren(
      ...entry.stages.map((of, s) => {
        const { changes } = of,
          means = entry.means(s);
        const did = !changes ? '' : means ? `: ${changeWords(changes)}` : ': changed nothing',
          checked = means && checkWords(of);
        return html('i', {
          class: (means ? 'dot' : 'tick') + (s === stageIndex ? ' at' : '') + (of.check?.values ? ' is-checked' : ''),
          style: `left:calc(8px + (100% - 16px) * ${s / steps})`,
          title: `${s + 1} ${of.name}${did}${checked ? `; ${checked}` : ''}`,
        });
      }),
    );
    const set = (name, value) => this.track.setAttribute(name, value);
    set('aria-valuemin', 1);
    set('aria-valuemax', steps + 1);
    set('aria-valuenow', stageIndex + 1);
    set('aria-valuetext', stage.name);
    $('before').disabled = entry.next(stageIndex, -1) === stageIndex;
    $('after').disabled = entry.next(stageIndex, 1) === stageIndex;
    $('stage-name').textContent = `${stageIndex + 1}/${entry.stages.length} ${stage.name}`;
    const size = stage instanceof Stage ? many(stage.nodes.length, 'node') : many(entry.kernels.length, 'kernel');
    $('stage-about').textContent = `${stage.about} ${size}.`;
    $('about').title = stage.about;
    const { changes } = stage;
    $('stage-changes').replaceChildren(
      ...(!changes
        ? []
        : entry.means(stageIndex)
          ? [
              ['added', '+'],
              ['removed', '−'],
              ['changed', '~'],
            ]
              .filter(([kind]) => changes[kind].size)
              .flatMap(([kind, sign]) => [html('span', { class: kind }, `${sign}${changes[kind].size} ${kind}`), ' '])
          : [html('span', {}, 'It changed nothing here.')]),
      ...checkBadge(stage),
    );
  }
}

function changeWords(changes) {
  return ['added', 'removed', 'changed']
    .filter(kind => changes[kind].size)
    .map(kind => `${changes[kind].size} ${kind}`)
    .join(', ');
}

/** What a pass did, in the order of the graph: names and kinds of change. */
function changeList(stage) {
  if (!stage.changes) return [];
  return (stage.cachedList ??= (() => {
    const { added, changed, removed } = stage.changes,
      list = [];
    const { before } = stage;
    // What went stands where its first user, or what it stood before, is.
    for (const node of before.nodes) if (removed.has(node.name)) list.push({ name: node.name, kind: 'removed' });
    for (const node of stage.nodes) {
      if (changed.has(node.name)) list.push({ name: node.name, kind: 'changed' });
      else if (added.has(node.name)) list.push({ name: node.name, kind: 'added' });
    }
    return list;
  })());
}

/** The lists of what the pass before a stage did. */
function changeSections(app, stage) {
  const { entry } = app,
    list = changeList(stage);
  if (!list.length) return stage.changes ? [html('p', { class: 'hint' }, `${stage.name} changed nothing here.`)] : [];
  const title = stage.isAgainst ? 'What differs from B' : `What ${stage.name} did`;
  const parts = [html('h3', {}, title), html('p', { class: 'hint' }, 'n and p walk through it.'), ...ruleCounts(stage)];
  for (const kind of ['removed', 'changed', 'added']) {
    const of = list.filter(change => change.kind === kind);
    if (!of.length) continue;
    const items = html('ul'),
      row = change =>
        html('li', {}, app.link({ kind: 'node', id: entry.names[change.name] }, entry.names[change.name]));
    of.slice(0, LISTED).forEach(change => items.append(row(change)));
    if (of.length > LISTED) {
      const more = html(
        'button',
        { class: 'link', onclick: () => more.parentElement.replaceWith(...of.slice(LISTED).map(row)) },
        `and ${of.length - LISTED} more`,
      );
      items.append(html('li', {}, more));
    }
    const details = html('details', {}, html('summary', { class: kind }, `${of.length} ${kind}`), items);
    details.open = of.length <= LISTED || kind !== 'added';
    parts.push(details);
  }
  return parts;
}

/** What a pass did to one node: its text before and after, and which pass, with what it is for. */
function changeOf(app, stage, name) {
  const { entry } = app,
    index = entry.indexOf(name);
  if (!(stage instanceof Stage) || !stage.changes) return [];
  const { before } = stage,
    old = before.byName.get(index),
    now = stage.byName.get(index);
  if (old === now) return [];
  const list = changeList(stage),
    at = list.findIndex(change => change.name === index);
  const parts = [html('h3', {}, `${stage.name}, change ${at + 1} of ${list.length}`)];
  const line = (sign, node) =>
    html('pre', { class: 'wrap ' + (sign === '−' ? 'removed' : 'added') }, `${sign} ${node.text.trim()}`);
  const diff = html('div', { class: 'diff' });
  if (old) diff.append(line('−', old));
  if (now) diff.append(line('+', now));
  parts.push(...changeBy(app, stage, index, old, now), diff);
  if (old && !now) {
    const stood = insteadOf(before, stage, index);
    if (stood.length)
      parts.push(
        html(
          'p',
          {},
          'Its users now read ',
          ...stood.flatMap((of, i) => [
            i ? ', ' : '',
            app.link({ kind: 'node', id: entry.names[of] }, entry.names[of]),
          ]),
          '.',
        ),
      );
    else
      parts.push(
        html(
          'p',
          { class: 'hint' },
          'Nothing stands in its place: its users went too, or read something else altogether.',
        ),
      );
  }
  if (!old && now) {
    const users = (stage.users.get(index) ?? []).filter(user => before.byName.has(user.name));
    if (users.length)
      parts.push(
        html(
          'p',
          {},
          'Read by ',
          ...users
            .slice(0, 6)
            .flatMap((user, i) => [
              i ? ', ' : '',
              app.link({ kind: 'node', id: entry.names[user.name] }, entry.names[user.name]),
            ]),
          ', which were there before.',
        ),
      );
  }
  return parts;
}

/** What users of a node that went read where they read it before. */
function insteadOf(before, after, name) {
  const found = new Set();
  for (const user of before.users.get(name) ?? []) {
    const now = after.byName.get(user.name);
    if (!now || now.op !== user.op || now.operands.length !== user.operands.length) continue;
    user.operands.forEach((operand, i) => {
      if (operand === name && now.operands[i] !== name) found.add(now.operands[i]);
    });
  }
  return [...found];
}
