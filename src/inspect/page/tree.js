'use strict';
// Boxes in boxes: all nodes of an entry, of whatever stage, in one tree, so that a box keeps its place from stage to
// stage; and the tree of its kernels.

const MAX_LABEL = 34; // characters of a name that are shown

/** A node, a leaf beside its users, an output, or a group with what is in it. */
class Box {
  constructor(index, id, parent, more) {
    Object.assign(this, { index, id, parent, children: [] }, more);
    this.depth = parent ? parent.depth + 1 : -1;
  }

  /** The boxes around it and itself, from the outside in, without the root. */
  get path() {
    if (!this.parent) return [];
    return (this.chain ??= [...this.parent.path, this]);
  }
}

class Tree {
  constructor(entry, kind) {
    Object.assign(this, {
      entry,
      kind,
      id: Tree.made++,
      boxes: [],
      byId: new Map(),
      ties: new Map(),
      edges: [],
      read: new Map(),
    });
    this.root = this.box(null, '', { isGroup: true, label: '' });
  }

  box(parent, id, more) {
    const known = this.byId.get(id);
    if (known) return known;
    const box = new Box(this.boxes.length, id, parent, more);
    this.boxes.push(box);
    this.byId.set(id, box);
    parent?.children.push(box);
    return box;
  }

  group(parent, { id, label }, role, more) {
    return this.box(parent, id, {
      isGroup: true,
      label: label.split(' · ').map(layerWords).join(' · '),
      role,
      ...more,
    });
  }

  /** The edge between the boxes in the innermost group around both ends that hold them; nothing inside one box. */
  tie(from, to) {
    const a = from.path,
      b = to.path;
    let depth = 0;
    while (depth < a.length - 1 && depth < b.length - 1 && a[depth] === b[depth]) depth++;
    if (a[depth] === b[depth]) return -1;
    const when = a[depth] === from ? undefined : this.when(from);
    if (when !== undefined) push(this.read, a[depth], when);
    const key = a[depth].index * 0x4000000 + b[depth].index;
    let at = this.ties.get(key);
    if (at === undefined) {
      at = this.edges.length;
      this.ties.set(key, at);
      this.edges.push({ from: a[depth], to: b[depth], around: depth ? a[depth - 1] : this.root, weight: 0 });
    }
    this.edges[at].weight = Math.min(8, this.edges[at].weight + 1);
    return at;
  }

  edge(from, to) {
    return this.ties.get(from * 0x4000000 + to);
  }

  /** By a box's index, when it is computed: of a group, as of what others beside it read. */
  order() {
    const at = this.boxes.map(box => {
      if (box.isResult) return Infinity;
      const times = this.read.get(box)?.sort((a, b) => a - b);
      return times ? this.amongst(times) : (this.when(box) ?? -1);
    });
    // Others come after what is in them; in the list of boxes, what is in a box comes after it.
    for (const box of [...this.boxes].reverse()) {
      if (box.isGroup && !this.read.has(box))
        at[box.index] = Math.max(-1, ...box.children.map(child => at[child.index]));
    }
    return at;
  }

  /** Whether a group is open where nobody opened or closed it. */
  isOpenAt(box, level) {
    if (this.kind === 'kernels') return level >= (box.kernel === undefined ? 1 : 2);
    // The optimisers' many small updates open only at the finest level.
    return box.depth < (box.role.kind === 'optimiser' && level === 1 ? 0 : level);
  }

  /**
   * As arrays, for a layout. Edges go down, but those against the order in which things are computed: over all stages
   * and between groups there are circles. They have their weights below zero.
   */
  plain() {
    const inner = this.boxes.map(() => []),
      at = this.order();
    for (const { from, to, around, weight } of this.edges) {
      inner[around.index].push(from.index, to.index, at[from.index] > at[to.index] ? -weight : weight);
    }
    const sizes = this.boxes.map(box => (box === this.root ? { w: 0, h: 0 } : this.size(box)));
    return {
      w: sizes.map(s => s.w),
      h: sizes.map(s => s.h),
      inner,
      head: this.boxes.map(box => (box.isGroup ? 1.1 * textWidth(clip(box.label, 60)) + 150 : 0)),
      children: this.boxes.map(box => box.children.map(child => child.index)),
    };
  }

  /** Large enough at every stage. Widths are in steps, so that groups that look alike have the same layout. */
  size(box) {
    let width = 0,
      high = 24;
    // Against another program most groups have all three kinds of changes.
    const badge = !box.isGroup || this.kind !== 'graph' ? 0 : this.entry.baseStage ? 90 : 60;
    for (const lines of this.allLines(box)) {
      width = Math.max(width, ...lines.map(textWidth), textWidth(lines[0]) + badge);
      if (lines.length > 1) high = 38;
    }
    // Beside the arrow that opens it.
    if (box.isGroup) width += 16;
    return { w: Math.ceil((Math.max(24, width) + 20) / 8) * 8, h: high };
  }
}

Tree.made = 0;

/** All nodes of all stages. */
class GraphTree extends Tree {
  constructor(entry) {
    super(entry, 'graph');
    this.stages = entry.baseStage ? [...entry.graphStages, entry.baseStage] : entry.graphStages;
    this.atStage = [];
    this.stages = entry.baseStage ? [...entry.graphStages, entry.baseStage] : entry.graphStages;
    this.versions = new Map(); // box -> what stood for it, stage by stage, each once
    const plain = new Set();
    // An input that is only a key of random numbers says nothing.
    const isPlain = node => node.role.kind !== 'leaf' || (node.op === 'input' && !node.ty.startsWith('u32[2]'));
    for (const node of entry.nodes) if (isPlain(node)) plain.add(node.name);
    this.own = new Map(); // node name (a number) -> its box
    for (const node of entry.nodes) {
      if (!plain.has(node.name)) continue;
      let box = this.own.get(node.name);
      if (!box) {
        let parent = this.root;
        for (const at of node.groups) parent = this.group(parent, entry.groups[at], node.role);
        box = this.box(parent, 'n:' + node.name, { name: node.name, role: node.role });
        this.own.set(node.name, box);
      }
      push(this.versions, box, node);
    }
    const byName = new Map();
    for (const node of entry.nodes) if (!plain.has(node.name)) push(byName, node.name, node);
    this.leaves = new Map(); // leaf's name -> its boxes
    // By a node's place in the data: its edges, and the leaves drawn beside it.
    this.edgesOf = entry.nodes.map(node => {
      const user = this.own.get(node.name),
        edges = [];
      if (!user) return edges;
      for (const name of new Set(node.operands)) {
        let from = this.own.get(name);
        if (!from && byName.has(name)) {
          const id = `l:${name}@${user.parent.id}`;
          from = this.byId.get(id);
          if (!from) {
            from = this.box(user.parent, id, { name, role: { kind: 'leaf' }, isLeaf: true });
            push(this.leaves, name, from);
            byName.get(name).forEach(leaf => push(this.versions, from, leaf));
          }
        }
        if (from) edges.push({ from, at: this.tie(from, user) });
      }
      return edges;
    });
    for (const stage of this.stages) {
      for (const [kind, name, node] of stage.results) {
        const from = this.own.get(node);
        if (kind !== 'output' || !from) continue;
        const box = this.box(this.root, 'r:' + name, { label: name, role: { kind: 'leaf' }, isResult: true });
        this.tie(from, box);
      }
    }
  }

  /** The last: what is made early is often of weights or constants alone. */
  amongst(times) {
    return times[times.length - 1];
  }

  /** How long the longest path to it is, at the last stage that has it. */
  when(box) {
    if (box.isGroup || box.isLeaf || box.isResult) return undefined;
    this.depths ??= [...this.stages].reverse().reduce((depths, stage) => {
      for (const node of stage.nodes) {
        if (depths.has(node.name)) continue;
        depths.set(
          node.name,
          node.operands.reduce((most, operand) => Math.max(most, 1 + (depths.get(operand) ?? 0)), 0),
        );
      }
      return depths;
    }, new Map());
    return this.depths.get(box.name);
  }

  /** What there is at a stage: nodes and marks by a box's index, counts of groups, and which edges are there. */
  at(index) {
    return (this.atStage[index] ??= this.collect(this.entry.stages[index]));
  }

  collect(stage) {
    const { entry } = this,
      count = this.boxes.length,
      changes = stage.changes;
    const { before } = stage;
    const here = {
      node: new Array(count),
      mark: new Array(count),
      shown: new Uint8Array(count),
      edges: new Uint8Array(this.edges.length),
    };
    for (const kind of ['nodes', 'added', 'changed', 'removed']) here[kind] = new Int32Array(count);
    const markOf = name => (changes?.added.has(name) ? 'added' : changes?.changed.has(name) ? 'changed' : undefined);
    const show = (box, node, mark) => {
      if (here.shown[box.index] && !here.node[box.index]) return;
      here.node[box.index] = node;
      here.mark[box.index] = mark;
      here.shown[box.index] = 1;
      for (let at = box.parent; at; at = at.parent) {
        here.shown[at.index] = 1;
        if (mark !== 'removed' && !box.isLeaf) here.nodes[at.index]++;
        if (mark && !box.isLeaf) here[mark][at.index]++;
      }
    };
    const edges = (index, of, isGone) => {
      for (const { from, at } of this.edgesOf[index]) {
        if (at >= 0) here.edges[at] = 1;
        if (from.isLeaf && !here.shown[from.index]) {
          const leaf = of.byName.get(from.name);
          if (leaf) show(from, leaf, isGone && !stage.byName.has(from.name) ? 'removed' : markOf(from.name));
        }
      }
    };
    stage.ids.forEach((index, i) => {
      const node = stage.nodes[i],
        box = this.own.get(node.name);
      if (!box) return;
      show(box, node, markOf(node.name));
    });
    if (changes)
      for (const [name, node] of changes.removed) if (this.own.has(name)) show(this.own.get(name), node, 'removed');
    stage.ids.forEach(index => edges(index, stage, false));
    if (changes) {
      before.ids.forEach((index, i) => {
        const { name } = before.nodes[i];
        if (changes.removed.has(name)) edges(index, before, true);
        // What a changed node no longer reads, where that went.
        else if (changes.changed.has(name)) {
          for (const { from, at } of this.edgesOf[index]) {
            if (!from.isLeaf || !changes.removed.has(from.name)) continue;
            show(from, changes.removed.get(from.name), 'removed');
            if (at >= 0) here.edges[at] = 1;
          }
        }
      });
    }
    for (const [kind, name, node] of stage.results) {
      const box = this.byId.get('r:' + name),
        from = this.own.get(node);
      if (kind !== 'output' || !box || !from) continue;
      show(box, stage.byName.get(node), undefined);
      here.edges[this.edge(from.path[0].index, box.index)] = 1;
    }
    return here;
  }

  allLines(box) {
    const versions = this.versions.get(box);
    if (box.isResult) return [[clip(box.label), 'output']];
    if (box.isGroup) return [[clip(box.label), '0000 nodes']];
    return versions.map(node => this.nodeLines(node));
  }

  lines(box, here) {
    if (box.isResult) return [clip(box.label), 'output'];
    if (box.isGroup) return [clip(box.label), many(here.nodes[box.index], 'node')];
    return this.nodeLines(here.node[box.index]);
  }

  nodeLines(node) {
    const isLeaf = node.role.kind === 'leaf',
      isFed = node.op === 'input' || node.op === 'state';
    const first = clip(isLeaf && !isFed ? node.op : layerWords(this.entry.names[node.name].split('/').pop()));
    if (isLeaf) return isFed ? [first, `${node.op} ${node.ty}`] : [first];
    return [first.startsWith(node.op) ? first : `${first} = ${node.op}`, node.ty];
  }
}

/** What ends up in kernels, under the calls that they belong to. */
class KernelTree extends Tree {
  constructor(entry) {
    super(entry, 'kernels');
    const last = entry.last,
      groups = [];
    this.own = new Map();
    this.here = { node: [], mark: [], nodes: [] };
    const node = (box, of) => {
      this.here.node[box.index] = of;
      return box;
    };
    entry.kernels.forEach((kernel, k) => {
      const core = kernel.core === null ? null : last.byName.get(kernel.core);
      const around =
        core && core.groups.length ? this.group(this.root, entry.groups[core.groups[0]], kernel.role) : this.root;
      const group = this.group(around, { id: 'k:' + k, label: `${k} ${kernel.words}` }, kernel.role, { kernel: k });
      groups.push(group);
      const inside = new Map();
      for (const name of kernel.nodes) {
        const of = last.byName.get(name);
        const box = node(this.box(group, `n:${name}@${k}`, { name, role: of.role }), of);
        inside.set(name, box);
        for (const operand of of.operands) if (inside.has(operand)) this.tie(inside.get(operand), box);
      }
    });
    entry.kernels.forEach((kernel, k) =>
      kernel.reads.forEach(b => {
        const buffer = entry.buffers[b];
        if (buffer.role !== 'input' || buffer.ty.startsWith('u32[2]')) return;
        const box = this.box(this.root, 'b:' + b, { label: buffer.name, role: { kind: 'leaf' }, buffer: b });
        this.tie(box, groups[k]);
      }),
    );
    for (const flow of entry.flows) this.tie(groups[flow.from], groups[flow.to]);
    const { here } = this;
    for (const box of [...this.boxes].reverse())
      here.nodes[box.index] = box.isGroup ? box.children.reduce((sum, c) => sum + here.nodes[c.index], 0) : 1;
    here.shown = new Uint8Array(this.boxes.length).fill(1);
    here.edges = new Uint8Array(this.edges.length).fill(1);
  }

  at() {
    return this.here;
  }

  /** The middle: calls share kernels, which may run far later for one of them. */
  amongst(times) {
    return times[Math.floor(times.length / 2)];
  }

  when(box) {
    return box.path.find(around => around.kernel !== undefined)?.kernel;
  }

  allLines(box) {
    return [this.lines(box, this.here)];
  }

  lines(box, here) {
    if (box.kernel !== undefined) {
      const kernel = this.entry.kernels[box.kernel];
      return [
        clip(box.label, 44),
        `${kernel.kind}, ${kernel.time ? time(kernel.time.seconds) : many(kernel.values, 'value')}`,
      ];
    }
    if (box.isGroup) return [clip(box.label), many(box.children.length, 'kernel')];
    if (box.buffer !== undefined) return [clip(box.label)];
    return GraphTree.prototype.nodeLines.call(this, here.node[box.index]);
  }
}
