//! Loop nests with few kept points: blocks share each sweep, and the results of their parts are combined in order by the
//! launches that follow.
//!
//! There is a launch for each sweep over the full space, which first combines what the parts of earlier sweeps left, and one
//! at the end for what is stored at kept points, when all have read what that overwrites.

use super::expr::{Expressions, Scope};
use super::index::{KEPT, POINT, Points, REDUCED};
use super::names::Names;
use super::nest::{Walk, Writer, combiner, declaration, pointers_of, space_of, touched, walk_of};
use super::{KernelText, Launch};
use crate::kernel::body::{BufferId, Expr, ExprId, Nest, SlotId, Sweep};
use crate::plan::Buffer;
use std::collections::{BTreeMap, BTreeSet};

const THREADS: usize = 256;

/// Adds the launches of a nest whose sweeps are cut into `parts`, whose results are in `partials`: for each reduction in
/// order and each part, one for each kept point.
pub fn render(
    text: &mut KernelText,
    name: &str,
    nest: &Nest<BufferId>,
    parts: usize,
    partials: BufferId,
    buffers: &[Buffer],
) {
    for (number, sweep) in nest.sweeps.iter().enumerate() {
        if !(sweep.reductions.is_empty() && sweep.stores.is_empty()) {
            let function = format!("{name}_sweep{number}");
            Part { nest, parts, partials, buffers }.sweep(text, function, number, sweep);
        }
    }
    if nest.sweeps.iter().any(|sweep| !sweep.kept_stores.is_empty()) {
        Part { nest, parts, partials, buffers }.kept(text, format!("{name}_kept"));
    }
}

/// What the launches of one nest have in common.
struct Part<'n> {
    nest: &'n Nest<BufferId>,
    parts: usize,
    partials: BufferId,
    buffers: &'n [Buffer],
}

impl Part<'_> {
    fn sweep(&self, text: &mut KernelText, function: String, number: usize, sweep: &Sweep<BufferId>) {
        let roots: Vec<ExprId> = sweep.swept().collect();
        let needed = self.needed_slots(&roots);
        let writes = sweep.stores.iter().map(|store| store.buffer);
        self.function(text, function, &roots, writes.chain([self.partials]), |writer, lines, pointer| {
            let points = writer.expressions.space.points(REDUCED);
            let kept = writer.expressions.space.points(KEPT);
            let parts = self.parts;
            let mut outer = Scope::default();
            self.combine(writer, &needed, number, pointer, &mut outer);
            outer.lines.push(format!("const unsigned first = (unsigned)({points}ull * part / {parts});"));
            outer.lines.push(format!("const unsigned last = (unsigned)({points}ull * (part + 1) / {parts});"));
            writer.full_points(sweep, ["first", "last"], &mut outer);
            if !sweep.reductions.is_empty() {
                outer.lines.push(format!("if ({}) {{", writer.first_threads()));
                for reduction in &sweep.reductions {
                    let (place, name) = (self.place(reduction.slot), &writer.expressions.slots[&reduction.slot]);
                    let at = sum_of(place * parts * kept, &format!("part * {kept}u + {}", kept_index(kept)));
                    outer.lines.push(format!("    {pointer}[{at}] = {name};"));
                }
                outer.lines.push("}".to_string());
            }
            let (blocks, threads) = writer.launch();
            // Threads for the points of a part.
            let step = if writer.walk == Walk::Columns { 32 } else { 1 };
            let enough = points.div_ceil(parts).saturating_mul(step).next_multiple_of(32);
            lines.push(format!("const unsigned part = blockIdx.x % {parts};"));
            lines.extend(writer.kept_point());
            lines.extend(outer.lines);
            (blocks * parts, threads.min(enough).max(32))
        });
    }

    /// What is stored at kept points, one for each thread.
    fn kept(&self, text: &mut KernelText, function: String) {
        let stores: Vec<_> = self.nest.sweeps.iter().flat_map(|sweep| &sweep.kept_stores).collect();
        let roots: Vec<ExprId> = stores.iter().map(|store| store.value).collect();
        let needed = self.needed_slots(&roots);
        self.function(text, function, &roots, stores.iter().map(|store| store.buffer), |writer, lines, pointer| {
            let kept = writer.expressions.space.points(KEPT);
            let mut outer = Scope::default();
            self.combine(writer, &needed, self.nest.sweeps.len(), pointer, &mut outer);
            let values: Vec<String> =
                stores.iter().map(|store| writer.expressions.kept(store.value, &mut outer)).collect();
            for (store, value) in stores.iter().zip(values) {
                let position = writer.expressions.space.element(&store.access, Points::Kept);
                let value = writer.expressions.stored(store.buffer, value);
                outer.lines.push(format!("{}[{position}] = {value};", writer.expressions.pointers[&store.buffer]));
            }
            lines.push(format!("const unsigned k = blockIdx.x * {THREADS} + threadIdx.x;"));
            lines.push(format!("if (k >= {kept}) return;"));
            lines.extend(writer.expressions.space.declarations(KEPT));
            lines.extend(outer.lines);
            (kept.div_ceil(THREADS), THREADS)
        });
    }

    /// Adds a function whose lines, blocks and threads `write` gives, with pointers to what it touches and the one to the
    /// partial results.
    fn function(
        &self,
        text: &mut KernelText,
        function: String,
        roots: &[ExprId],
        writes: impl Iterator<Item = BufferId>,
        write: impl FnOnce(&mut Writer, &mut Vec<String>, &str) -> (usize, usize),
    ) {
        let writes: BTreeSet<BufferId> = writes.collect();
        let mut used = self.read_for(roots);
        used.insert(self.partials);
        let space = space_of(self.nest);
        let walk = walk_of(self.nest, &space);
        let mut names = Names::default();
        // Names for all, since expressions ask for those of what they are stored to.
        let (all_reads, all_writes) = touched(self.nest);
        let all: BTreeSet<BufferId> = all_reads.union(&all_writes).copied().chain([self.partials]).collect();
        let pointers = pointers_of(&mut names, &all, &BTreeSet::new(), self.buffers);
        let inner = if walk == Walk::Elementwise { POINT } else { REDUCED };
        let expressions = Expressions::new(self.nest, self.buffers, &pointers, space, names, inner);
        let block = format!("(blockIdx.x / {})", self.parts);
        let mut writer = Writer { expressions, walk, block: &block, blocks: "gridDim.x" };
        let mut lines = Vec::new();
        let (blocks, threads) = write(&mut writer, &mut lines, &pointers[&self.partials]);
        let is_used = |b: &BufferId| used.contains(b) || writes.contains(b);
        let mut body: Vec<String> = (pointers.iter().filter(|(b, _)| is_used(b)))
            .map(|(&b, name)| declaration(&self.buffers[b.index()], name, writes.contains(&b)))
            .collect();
        body.extend(lines);
        text.add_function(Launch { function, grid: blocks as u32, block: threads as u32, shared_bytes: 0 }, body);
    }

    /// Gives names to the needed slots of sweeps before `number`: results of parts combined in order, and what is computed
    /// of these.
    fn combine(&self, writer: &mut Writer, needed: &BTreeSet<SlotId>, number: usize, pointer: &str, outer: &mut Scope) {
        let (kept, parts) = (writer.expressions.space.points(KEPT), self.parts);
        for sweep in &self.nest.sweeps[..number] {
            for reduction in sweep.reductions.iter().filter(|reduction| needed.contains(&reduction.slot)) {
                let (op, hint) = combiner(reduction.kind);
                let name = writer.expressions.slot_name(reduction.slot, hint);
                let at =
                    sum_of(self.place(reduction.slot) * parts * kept, &format!("p * {kept}u + {}", kept_index(kept)));
                outer.lines.push(format!("float {name} = {op}::identity();"));
                // All loads at once would need more registers than a thread of so large a block may have.
                outer.lines.push("#pragma unroll 8".into());
                outer.lines.push(format!(
                    "for (unsigned p = 0; p < {parts}; ++p) {name} = {op}::combine({name}, {pointer}[{at}]);"
                ));
            }
            for &(slot, value) in sweep.kept.iter().filter(|(slot, _)| needed.contains(slot)) {
                let name = writer.expressions.kept(value, outer);
                writer.expressions.slots.insert(slot, name);
            }
        }
    }

    /// The slots that expressions need, those behind other slots included.
    fn needed_slots(&self, roots: &[ExprId]) -> BTreeSet<SlotId> {
        let computed: BTreeMap<SlotId, ExprId> =
            self.nest.sweeps.iter().flat_map(|sweep| &sweep.kept).copied().collect();
        let (mut slots, mut open) = (BTreeSet::new(), roots.to_vec());
        while !open.is_empty() {
            let needed = self.nest.exprs.needed(open.drain(..));
            let found = self.nest.exprs.ids().filter(|id| needed[id.index()]);
            for slot in
                found.filter_map(|id| if let Expr::Slot(slot) = self.nest.exprs[id] { Some(slot) } else { None })
            {
                if slots.insert(slot) {
                    open.extend(computed.get(&slot));
                }
            }
        }
        slots
    }

    /// The buffers that are read for expressions, for those behind slots too.
    fn read_for(&self, roots: &[ExprId]) -> BTreeSet<BufferId> {
        let slots = self.needed_slots(roots);
        let kept = self.nest.sweeps.iter().flat_map(|sweep| &sweep.kept);
        let behind = kept.filter(|(slot, _)| slots.contains(slot)).map(|(_, value)| *value);
        let needed = self.nest.exprs.needed(roots.iter().copied().chain(behind));
        let exprs = self.nest.exprs.ids().filter(|id| needed[id.index()]);
        exprs.flat_map(|id| self.nest.exprs[id].reads()).copied().collect()
    }

    /// The number of a reduction among all of the nest.
    fn place(&self, slot: SlotId) -> usize {
        let reductions = self.nest.sweeps.iter().flat_map(|sweep| &sweep.reductions);
        reductions.take_while(|reduction| reduction.slot != slot).count()
    }
}

/// The text of the kept point's number.
fn kept_index(kept: usize) -> &'static str {
    if kept == 1 { "0u" } else { "k" }
}

/// A sum of a number and a text.
fn sum_of(number: usize, text: &str) -> String {
    if number == 0 { text.to_string() } else { format!("{number}u + {text}") }
}
