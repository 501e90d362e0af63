'use strict';
// The data of the page with what is looked up in it: nodes by name, users, changes from stage to stage.

const DATA = JSON.parse(document.getElementById('data').textContent);

// The ceilings are those of the machine that a profile was measured on, for entries without times too.
const CEILINGS_OF = DATA.entries.some(entry => entry.profile) ? 'the measured machine' : 'an assumed machine';

// The stage that is not a graph's.
const KERNELS = 'kernels';

/** A kernel's measured time in seconds, or the least that the ceilings allow where nothing was measured. */
const secondsOf = kernel => kernel.time?.seconds ?? kernel.ceiling;

class Entry {
  constructor(data) {
    Object.assign(this, data);
    this.graphStages = data.stages.map((stage, index) => new Stage(this, stage, index));
    this.stages = [
      ...this.graphStages,
      { name: KERNELS, about: 'Nodes fused into kernels, numbered in the order in which they run.', changes: null },
    ];
    this.last = this.graphStages[this.graphStages.length - 1];
    if (data.base) addBase(this);
    this.kernelsOf = new Map(); // node name -> kernel positions
    this.kernels.forEach((kernel, k) => {
      kernel.at = k;
      kernel.intensity = kernel.bytes ? kernel.flops / kernel.bytes : 0;
      kernel.words = kernelWords(kernel, kernel.core === null ? null : this.last.byName.get(kernel.core), this);
      kernel.nodes.forEach(n => push(this.kernelsOf, this.names[n], k));
    });
    this.bufferOf = new Map(); // node name -> buffer index
    this.buffers.forEach((buffer, b) => {
      buffer.at = b;
      buffer.readers = [];
      buffer.writers = [];
      buffer.over = [];
      buffer.under = [];
      buffer.nodes.forEach(n => this.bufferOf.set(this.names[n], b));
    });
    // Which kernel's value a kernel reads: the last that wrote the buffer before it.
    const writer = new Map();
    this.flows = [];
    this.kernels.forEach((kernel, k) => {
      kernel.reads.forEach(b => {
        this.buffers[b].readers.push(k);
        if (writer.has(b) && writer.get(b) !== k) this.flows.push({ from: writer.get(b), to: k, buffer: b });
      });
      kernel.writes.forEach(b => {
        this.buffers[b].writers.push(k);
        writer.set(b, k);
      });
    });
    this.tellApart();
    this.kernels.forEach((kernel, k) =>
      kernel.in_place.forEach(([result, old]) => {
        this.buffers[result].over.push({ kernel: k, buffer: old });
        this.buffers[old].under.push({ kernel: k, buffer: result });
      }),
    );
    if (data.profile)
      data.profile.kernels.forEach(time => {
        this.kernels[time.kernel].time = time;
      });
  }

  /** Kernels with the same words, such as those that arrange a filter for several convolutions, say who reads them. */
  tellApart() {
    const same = new Map(),
      reader = new Map();
    for (const kernel of this.kernels) push(same, kernel.words, kernel);
    for (const { from, to } of this.flows) if (!reader.has(from)) reader.set(from, to);
    for (const kernels of same.values()) {
      if (kernels.length === 1) continue;
      for (const kernel of kernels)
        if (reader.has(kernel.at)) kernel.words += `, read by kernel ${reader.get(kernel.at)}`;
    }
  }

  /** The number of a name; nothing where there is no such node. */
  indexOf(name) {
    return (this.nameIndex ??= new Map(this.names.map((text, i) => [text, i]))).get(name);
  }

  /** All kernels, in seconds; added up once. */
  get kernelSeconds() {
    return (this.cachedSeconds ??= this.kernels.reduce((sum, kernel) => sum + secondsOf(kernel), 0));
  }

  /** What the value of a node looks like, where values are known. */
  valueOf(name) {
    this.valueByName ??= new Map((this.values?.nodes ?? []).map(([n, value]) => [this.names[n], value]));
    return this.valueByName.get(name);
  }

  /** The node of a buffer whose value is shown for it: the last that it holds. */
  valueOfBuffer(b) {
    return this.buffers[b].nodes.map(n => this.names[n]).findLast(name => this.valueOf(name));
  }

  /** The kernels that are built around a node of a group. */
  groupKernels(id) {
    this.kernelsByGroup ??= this.kernels.reduce((map, kernel) => {
      const core = kernel.core === null ? null : this.last.byName.get(kernel.core);
      for (const g of core?.groups ?? []) push(map, this.groups[g].id, kernel);
      return map;
    }, new Map());
    return this.kernelsByGroup.get(id) ?? [];
  }

  /** The tree of boxes of all stages, or of the kernels. */
  tree(ofKernels) {
    return ofKernels ? (this.kernelTree ??= new KernelTree(this)) : (this.graphTree ??= new GraphTree(this));
  }

  /** Whether a stage is not just like the one before. */
  means(index) {
    const changes = this.stages[index].changes;
    return !changes || changes.added.size + changes.changed.size + changes.removed.size > 0;
  }

  /** The next stage in that direction that means something; `from` where there is none. */
  next(from, by) {
    for (let s = from + by; s >= 0 && s < this.stages.length; s += by) if (this.means(s)) return s;
    return from;
  }

  /** The newest stage, at or before `from`, that has the node; else the first after it. */
  stageWith(name, from) {
    const start = Math.min(from, this.graphStages.length - 1);
    for (let s = start; s >= 0; s--) if (this.graphStages[s].node(name)) return s;
    for (let s = start + 1; s < this.graphStages.length; s++) if (this.graphStages[s].node(name)) return s;
    return -1;
  }
}

class Stage {
  constructor(entry, data, index) {
    Object.assign(this, data);
    this.entry = entry;
    this.index = index;
    this.nodes = data.nodes.map(i => entry.nodes[i]);
    this.ids = data.nodes;
  }

  /** The stage that this one is compared with. */
  get before() {
    return this.base ?? this.entry.graphStages[this.index - 1] ?? null;
  }

  get byName() {
    return (this.cachedByName ??= new Map(this.nodes.map(node => [node.name, node])));
  }

  /** The node of that name (a string). */
  node(name) {
    return this.byName.get(this.entry.indexOf(name));
  }

  get users() {
    if (!this.cachedUsers) {
      this.cachedUsers = new Map();
      for (const node of this.nodes) for (const o of new Set(node.operands)) push(this.cachedUsers, o, node);
    }
    return this.cachedUsers;
  }

  /** What the pass before this stage did: names of nodes that are new, are no more, or are not as they were. */
  get changes() {
    if (this.cachedChanges !== undefined) return this.cachedChanges;
    const { before } = this;
    if (!before) return (this.cachedChanges = null);
    const changes = { added: new Set(), changed: new Set(), removed: new Map() };
    for (const node of this.nodes) {
      const old = before.byName.get(node.name);
      if (!old) changes.added.add(node.name);
      else if (old !== node) changes.changed.add(node.name);
    }
    for (const node of before.nodes) if (!this.byName.has(node.name)) changes.removed.set(node.name, node);
    return (this.cachedChanges = changes);
  }
}
