'use strict';
// Which rule made a change, and how passes were checked against the interpreter.

/** The rules that made, replaced or removed a node on the way to a stage, in order. */
function rulesOf(stage, name) {
  stage.byRule ??= new Map(stage.by ?? []);
  return (stage.byRule.get(name) ?? []).map(r => stage.entry.rules[r]);
}

/** A rule with the one of its rewrites that was applied. */
function ruleText(rule) {
  return [html('b', {}, rule.name), ' ', html('code', { class: 'rule' }, rule.rewrite)];
}

/** Who made a change: the rule, or the pass where it is no table of rules. */
function changeBy(app, stage, name, old, now) {
  const kind = !old ? 'added' : !now ? 'removed' : 'changed',
    word = html('span', { class: kind }, kind);
  if (stage.isAgainst)
    return [
      html('p', {}, word, kind === 'changed' ? ', from B to A' : kind === 'added' ? ': only in A' : ': only in B'),
    ];
  const rules = rulesOf(stage, name),
    about = html('p', { class: 'hint' }, stage.about);
  if (rules.length) {
    const parts = rules.map((rule, i) =>
      html('p', { class: 'by-rule' }, i ? 'then by the rule ' : 'by the rule ', ...ruleText(rule)),
    );
    return [html('p', {}, word, ` by ${stage.name}`), ...parts, about];
  }
  // It reads what a rule put in the place of an operand.
  if (kind === 'changed' && stage.by?.length) {
    const operands = old.operands.filter((operand, i) => operand !== now.operands[i]);
    const by = operands.map(operand => [operand, rulesOf(stage, operand)]).filter(([, of]) => of.length);
    if (by.length) {
      const parts = by.map(([operand, of]) =>
        html(
          'p',
          { class: 'by-rule' },
          'its operand ',
          app.link({ kind: 'node', id: stage.entry.names[operand] }, stage.entry.names[operand]),
          ' was rewritten by the rule ',
          ...of.flatMap((rule, i) => (i ? [', then ', ...ruleText(rule)] : ruleText(rule))),
        ),
      );
      return [html('p', {}, word, ` by ${stage.name}`), ...parts, about];
    }
  }
  return [html('p', {}, word, ` by ${stage.name}: ${stage.about}`)];
}

/** What rules did most in a stage, for the list of its changes. */
function ruleCounts(stage) {
  const counts = new Map();
  for (const [, rules] of stage.by ?? []) for (const r of rules) counts.set(r, (counts.get(r) ?? 0) + 1);
  if (!counts.size) return [];
  const items = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  const row = ([r, n]) =>
    html('li', {}, html('span', { class: 'times' }, `${n} ×`), ' ', ...ruleText(stage.entry.rules[r]));
  const details = html(
    'details',
    {},
    html('summary', {}, `by ${many(items.length, 'rewrite')}, with the nodes each touched`),
    html('ul', { class: 'rules' }, ...items.map(row)),
  );
  details.open = items.length <= 6;
  return [details];
}

/** An error as people compare them. */
function relative(error) {
  return error === 0 ? 'no difference' : `worst relative error ${error.toExponential(1)}`;
}

/** The result of a stage's check in words; nothing where it was not checked. */
function checkWords(stage) {
  const { check } = stage;
  if (!check) return null;
  return check.values
    ? `checked: ${relative(check.worst_relative_error)} in ${check.values.toLocaleString('en')} values`
    : 'checked: the graph is as it was';
}

/** The badge of a stage that was checked. */
function checkBadge(stage) {
  if (!stage.check?.values) return [];
  const { values, worst_relative_error: error } = stage.check;
  const text = `✓ ${error === 0 ? 'exact' : error.toExponential(1)} · ${count(values)} values`;
  return [
    html(
      'span',
      {
        class: 'checked',
        title: `Both graphs were evaluated by the reference interpreter in f64: ${checkWords(stage)}`,
      },
      text,
    ),
    ' ',
  ];
}

/** What checking found in all, or how to get it. */
function checkSection(app) {
  const { entry } = app,
    checked = entry.graphStages.filter(stage => stage.check);
  const parts = [html('h3', {}, 'Checked')];
  if (!checked.length) {
    const command = `gcc-gan inspect ${DATA.arguments} --validate -o ${DATA.program}.html`;
    parts.push(
      html(
        'p',
        { class: 'hint' },
        'No pass was compared with the reference interpreter here. ',
        html('code', {}, command),
        ' does, and shows how closely each pass keeps what is computed.',
      ),
    );
    return parts;
  }
  const compared = checked.filter(stage => stage.check.values);
  if (!compared.length) return [...parts, html('p', {}, 'No pass changed anything: there was nothing to compare.')];
  const worst = compared.reduce((a, b) => (b.check.worst_relative_error > a.check.worst_relative_error ? b : a));
  const go = stage =>
    html('button', { class: 'link', onclick: () => (app.setTab('graph'), app.setStage(stage.index)) }, stage.name);
  parts.push(
    html(
      'p',
      {},
      `${compared.length === 1 ? '1 pass' : compared.length + ' passes'} compared with the interpreter in f64; `,
      'the worst, ',
      go(worst),
      `: ${relative(worst.check.worst_relative_error)}.`,
    ),
  );
  const table = html(
    'table',
    { class: 'checks' },
    html(
      'tbody',
      {},
      ...compared.map(stage => html('tr', {}, html('td', {}, go(stage)), html('td', {}, ...checkBadge(stage)))),
    ),
  );
  const details = html('details', {}, html('summary', {}, 'pass by pass'), table);
  return [...parts, details];
}
