//! Where state tensors lie, and which of them are kept in fewer bits too.
//!
//! A step that rounds its weights before it multiplies them reads them once more for that. What updates them has them at
//! hand: it writes each rounded too, in every order in which a contraction reads it best. A copy is a state tensor that is
//! not seen from outside; whoever writes the tensor from there also writes its copies.

use super::fuse::base;
use super::movement::through;
use super::physical::{PIXEL_MAJOR, can_move, free_states};
use super::value::ValueId;
use crate::ir::{Builder, DType, Graph, Node, NodeId, Op, Type, Update, added};
use crate::kernel::access::Access;
use crate::kernel::schedule::{StateCopy, StateLayout, StateTooLarge};
use crate::kernel::target::{Layout, Strategy};
use crate::types::{Rounding, StateDecl};
use petgraph::unionfind::UnionFind;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Gives state tensors their places, an order that suits all of a program's entries, and the copies that are worth keeping.
///
/// # Errors
/// When they do not fit the address space.
pub fn lay_out_states(
    states: &[StateDecl],
    graphs: &[&Graph],
    strategy: &Strategy,
) -> Result<StateLayout, StateTooLarge> {
    let copies = strategy.state_copies().map_or(Vec::new(), |rounding| copies_of(states, graphs, rounding));
    let own = states.iter().map(|state| (state.name.as_str(), &state.ty));
    let mut layout = StateLayout::new(own.chain(copies.iter().map(|copy| (copy.name.as_str(), &copy.ty))))?;
    if strategy.policy.layout == Layout::PixelMajor && strategy.policy.strided_images {
        layout.orders = state_orders(graphs, &copies);
    }
    for NewCopy { name, copy, order, .. } in copies {
        if !order.is_empty() {
            layout.orders.insert(name.clone(), order);
        }
        layout.copies.insert(name, copy);
    }
    Ok(layout)
}

/// The orders of state tensors that are not in that of their shape: pixel-major of what has four dimensions, wherever
/// every graph of the program can read and write it so; of matrices that contractions read by one turned copy alone, that
/// of the copy, and the same of what is updated with them.
fn state_orders(graphs: &[&Graph], copies: &[NewCopy]) -> BTreeMap<String, Vec<usize>> {
    let free = free_states(graphs.iter().copied());
    let filters = free.iter().filter(|(_, rank)| **rank == PIXEL_MAJOR.len());
    let mut orders: BTreeMap<String, Vec<usize>> =
        filters.map(|(name, _)| (name.clone(), PIXEL_MAJOR.to_vec())).collect();
    let mut by_tensor: BTreeMap<&String, Vec<&NewCopy>> = BTreeMap::new();
    copies.iter().for_each(|copy| by_tensor.entry(&copy.copy.of).or_default().push(copy));
    let together = updated_together(graphs);
    let set_of: HashMap<&String, &Vec<String>> =
        together.iter().flat_map(|set| set.iter().map(move |name| (name, set))).collect();
    for (of, copies) in by_tensor {
        let ([copy], Some(&alike)) = (&copies[..], set_of.get(of)) else { continue };
        let can_turn = copy.ty.rank() != PIXEL_MAJOR.len() && !copy.order.is_empty();
        if can_turn && alike.iter().all(|name| free.contains_key(name)) {
            orders.extend(alike.iter().map(|name| (name.clone(), copy.order.clone())));
        }
    }
    orders
}

/// The state tensors in sets of those that some update reads element by element beside each other, such as a weight and its
/// moments.
fn updated_together(graphs: &[&Graph]) -> Vec<Vec<String>> {
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    let mut together: Vec<Vec<usize>> = Vec::new();
    for (graph, update) in graphs.iter().flat_map(|graph| updates(graph).map(move |update| (graph, update))) {
        let mut number = |name: String| {
            let next = numbers.len();
            *numbers.entry(name).or_insert(next)
        };
        together.push(read_by_element(graph, update).into_iter().map(&mut number).collect());
    }
    let mut sets = UnionFind::new(numbers.len());
    for names in &together {
        for &name in names {
            sets.union(names[0], name);
        }
    }
    let mut found: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    numbers.into_iter().for_each(|(name, number)| found.entry(sets.find(number)).or_default().push(name));
    found.into_values().collect()
}

/// The state tensor that is updated, and those that its update reads element by element.
fn read_by_element(graph: &Graph, update: &Update) -> BTreeSet<String> {
    let mut names = BTreeSet::from([update.state.clone()]);
    let (mut seen, mut stack) = (HashSet::new(), vec![update.node]);
    while let Some(id) = stack.pop() {
        match graph.op(id) {
            Op::State { name, .. } => drop(names.insert(name.clone())),
            Op::Scalar(_) | Op::Convert { .. } if seen.insert(id) => stack.extend(graph.operands(id)),
            _ => {}
        }
    }
    names
}

/// A copy that is worth keeping.
struct NewCopy {
    name: String,
    copy: StateCopy,
    ty: Type,
    order: Vec<usize>,
}

/// Which copy a contraction reads best: of a state tensor, in fewer bits, with its dimensions in an order
/// ([`StateLayout::orders`]).
type Wanted = (String, Rounding, Vec<usize>);

/// An operand of a contraction that is a rounded value, moved perhaps.
struct Read {
    contraction: NodeId,
    position: usize,
    /// What rounds the value.
    rounds: NodeId,
    rounding: Rounding,
    /// The order of the rounded value's dimensions in which the terms of a sum are beside each other; empty where it is
    /// the shape's.
    order: Vec<usize>,
}

/// The value that is rounded.
enum Source {
    /// A state tensor before the run.
    Before(String),
    /// What one is updated to.
    After(String),
}

/// The copies that are worth keeping: an entry that updates the tensor reads it rounded. Another that only reads it so, such
/// as a moving average for samples, runs seldom, and rounds it by itself.
fn copies_of(states: &[StateDecl], graphs: &[&Graph], rounding: Rounding) -> Vec<NewCopy> {
    let (mut wanted, mut kept) = (BTreeSet::new(), BTreeSet::new());
    for graph in graphs {
        let updates = Updates::of(graph);
        for read in reads(graph).into_iter().filter(|read| read.rounding == rounding) {
            let state = match updates.source(graph, &read) {
                Some(Source::Before(state)) if updates.states.contains_key(&state) => {
                    kept.insert(state.clone());
                    state
                }
                // Where the step itself multiplies what it has updated, it rounds it in any case.
                Some(Source::After(state)) => state,
                _ => continue,
            };
            wanted.insert((state, rounding, read.order));
        }
    }
    wanted.retain(|(state, ..)| kept.contains(state));
    let mut names: BTreeSet<String> = states.iter().map(|state| state.name.clone()).collect();
    let floats = states.iter().filter(|state| state.ty.dtype == DType::F32);
    let types: HashMap<&String, &Type> = floats.map(|state| (&state.name, &state.ty)).collect();
    let copy = |(of, rounding, order): Wanted| {
        let is_turned = matches!(order[..], [.., before, last] if before > last);
        let mut name = format!("{of}.{}{}", rounding.name(), if is_turned { "_turned" } else { "" });
        let copy = StateCopy { rounding, of };
        let ty = copy.ty(types.get(&copy.of)?);
        while !names.insert(name.clone()) {
            name.push('_');
        }
        Some(NewCopy { name, copy, ty, order })
    };
    wanted.into_iter().filter_map(copy).collect()
}

/// Lets contractions read the copies that there are, and what updates a state tensor its copies too.
pub fn with_copies(graph: &mut Graph, states: &StateLayout) {
    let order = |name: &str| states.orders.get(name).cloned().unwrap_or_default();
    let copies: HashMap<Wanted, &String> =
        (states.copies.iter()).map(|(name, copy)| ((copy.of.clone(), copy.rounding, order(name)), name)).collect();
    let mut kept = Kept { moved: HashMap::new(), before: HashMap::new(), after: HashMap::new() };
    let updates = Updates::of(graph);
    for read in reads(graph) {
        let Some(source) = updates.source(graph, &read) else { continue };
        let (Source::Before(state) | Source::After(state)) = &source;
        let Some(&name) = copies.get(&(state.clone(), read.rounding, read.order.clone())) else { continue };
        let copy = match source {
            Source::Before(_) => kept.before(graph, name, &read),
            Source::After(_) => kept.after(graph, name, &read),
        };
        if copy != read.rounds {
            let operand = graph.operands(read.contraction)[read.position];
            let moved = kept.moved(graph, operand, read.rounds, copy);
            graph.replace_operand_at(read.contraction, read.position, moved);
        }
    }
    for (name, copy) in &states.copies {
        let Some(&value) = updates.states.get(&copy.of) else { continue };
        let node = match kept.after.get(name) {
            Some(&node) => node,
            None => rounded(graph, value, copy.rounding),
        };
        graph.updates.push(Update { state: name.clone(), node });
    }
    graph.remove_dead();
}

/// The copies in tf32 that a graph reads.
pub(super) fn in_tf32(graph: &Graph, states: &StateLayout) -> HashSet<ValueId> {
    let holds_tf32 = |&id: &NodeId| matches!(graph.op(id), Op::State { name, .. } if states.holds_tf32(name));
    graph.ids().into_iter().filter(holds_tf32).map(ValueId::of).collect()
}

/// The nodes that hold copies.
struct Kept {
    /// By what was moved and the copy in its place.
    moved: HashMap<(NodeId, NodeId), NodeId>,
    /// Before the run.
    before: HashMap<String, NodeId>,
    /// After it.
    after: HashMap<String, NodeId>,
}

impl Kept {
    fn before(&mut self, graph: &mut Graph, name: &str, read: &Read) -> NodeId {
        let node = self.before.get(name).copied().unwrap_or_else(|| {
            let ty = graph.ty(read.rounds).clone();
            let origin = graph.node(graph.operands(read.rounds)[0]).origin.clone();
            Builder::new(graph, origin).named(name, Op::State { name: name.to_string(), ty }, &[])
        });
        self.before.insert(name.to_string(), node);
        node
    }

    /// Each copy has a node of its own, since it has an order of its own, in which whoever else reads the node must be able to
    /// read it.
    fn after(&mut self, graph: &mut Graph, name: &str, read: &Read) -> NodeId {
        let node = self.after.get(name).copied().unwrap_or_else(|| {
            let is_taken = self.after.values().any(|&node| node == read.rounds);
            let is_free = read.order.is_empty() || can_move(graph, read.rounds);
            if is_free && !is_taken {
                read.rounds
            } else {
                rounded(graph, graph.operands(read.rounds)[0], read.rounding)
            }
        });
        self.after.insert(name.to_string(), node);
        node
    }

    /// What is to `copy` as `id`, which is moved perhaps, is to `rounds`.
    fn moved(&mut self, graph: &mut Graph, id: NodeId, rounds: NodeId, copy: NodeId) -> NodeId {
        if id == rounds {
            return copy;
        }
        if let Some(&node) = self.moved.get(&(id, copy)) {
            return node;
        }
        let operand = graph.operands(id)[0];
        let operand = self.moved(graph, operand, rounds, copy);
        let Node { op, name, origin, .. } = graph.node(id).clone();
        let node = Builder::new(graph, origin).named(&name, op, &[operand]);
        self.moved.insert((id, copy), node);
        node
    }
}

/// Adds what rounds a value.
fn rounded(graph: &mut Graph, value: NodeId, rounding: Rounding) -> NodeId {
    added(graph, value, Op::rounding(rounding), &[value], rounding.name())
}

/// The updates that change their state tensor.
fn updates(graph: &Graph) -> impl Iterator<Item = &Update> {
    let changes = |update: &&Update| match graph.op(base(graph, update.node)) {
        Op::State { name, .. } => *name != update.state,
        _ => true,
    };
    graph.updates.iter().filter(changes)
}

fn reads(graph: &Graph) -> Vec<Read> {
    let contractions = graph.topological().into_iter().filter(|&id| graph.op(id).is_contraction());
    let operands = contractions.flat_map(|id| (0..graph.operands(id).len()).map(move |position| (id, position)));
    operands.filter_map(|(contraction, position)| read(graph, contraction, position)).collect()
}

fn read(graph: &Graph, contraction: NodeId, position: usize) -> Option<Read> {
    let mut id = graph.operands(contraction)[position];
    // The dimension along which it adds up.
    let depth = match (graph.op(contraction), position) {
        (Op::MatMul, 0) => graph.shape(id).len() - 1,
        (Op::MatMul, _) => graph.shape(id).len() - 2,
        (Op::Conv2d { .. }, 1) => 1,
        (Op::Conv2dInputGrad { .. }, 1) => 0,
        _ => return None,
    };
    let mut movements = Vec::new();
    let rounding = loop {
        match graph.op(id) {
            op if op.rounds_to().is_some() => break op.rounds_to()?,
            Op::Convert { to: DType::F32 } => {}
            op if op.is_movement() => movements.push(id),
            _ => return None,
        }
        let [operand] = graph.operands(id)[..] else { return None };
        id = operand;
    };
    movements.reverse();
    let is_filter = *graph.op(contraction) != Op::MatMul && movements.is_empty();
    let orders = orders(graph.shape(id).len(), is_filter);
    let is_along_depth = |order: &Vec<usize>| {
        let access = moved_access(graph, id, order, &movements);
        access.is_some_and(|access| access.strides[depth] == 1)
    };
    // Of bf16 tensor cores read any order.
    let best = match rounding {
        Rounding::Tf32 => orders.iter().position(is_along_depth).unwrap_or(0),
        Rounding::Bf16 => 0,
    };
    let order = orders.into_iter().nth(best).filter(|order| !order.is_sorted()).unwrap_or_default();
    Some(Read { contraction, position, rounds: id, rounding, order })
}

/// In which order the dimensions of what a contraction reads may lie, the usual one first.
fn orders(rank: usize, is_filter: bool) -> Vec<Vec<usize>> {
    if is_filter {
        let [y, x, outputs, inputs] = PIXEL_MAJOR;
        return vec![vec![y, x, outputs, inputs], vec![y, x, inputs, outputs]];
    }
    let others = |last: usize| (0..rank).filter(move |&d| d != last);
    let turned = (0..rank.saturating_sub(1)).rev().map(|last| others(last).chain([last]).collect());
    [(0..rank).collect()].into_iter().chain(turned).collect()
}

/// Where the elements of a value are after movements, if its dimensions lie in that order.
fn moved_access(graph: &Graph, value: NodeId, order: &[usize], movements: &[NodeId]) -> Option<Access> {
    let ordered = (Access::ordered(graph.shape(value), order), value);
    let moved = movements.iter().try_fold(ordered, |(access, from), &id| {
        Some((through(&access, graph.op(id), graph.shape(from), graph.shape(id))?, id))
    });
    moved.map(|(access, _)| access)
}

/// What a graph's updates change.
struct Updates {
    /// By state tensor, the node that it is updated to.
    states: HashMap<String, NodeId>,
    /// By such a node, the first state tensor that it is for.
    nodes: HashMap<NodeId, String>,
}

impl Updates {
    fn of(graph: &Graph) -> Updates {
        let mut nodes = HashMap::new();
        for update in updates(graph) {
            nodes.entry(update.node).or_insert_with(|| update.state.clone());
        }
        Updates { states: updates(graph).map(|update| (update.state.clone(), update.node)).collect(), nodes }
    }

    fn source(&self, graph: &Graph, read: &Read) -> Option<Source> {
        let value = graph.operands(read.rounds)[0];
        match graph.op(value) {
            Op::State { name, .. } => Some(Source::Before(name.clone())),
            _ => self.nodes.get(&value).cloned().map(Source::After),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::text::parse;
    use crate::ir::{Bindings, Value, evaluate, verify};
    use crate::kernel::target::{Architecture, Fusion, Precision, Target};
    use crate::passes::{PassContext, operand_precision};
    use crate::tensor::Tensor;
    use crate::testing::random_bindings;
    use crate::types::{Initialiser, StateRole};
    use insta::assert_snapshot;

    const INIT: &str = r#"
        %v: f32[48,16] = constant 0.5
        %f: f32[48,32,5,5] = constant 0.25
        %average: f32[48,16] = constant 0.5
        update "v" = %v
        update "f" = %f
        update "average" = %average"#;

    /// A matrix and a filter that forward and backward products read, the matrix also once it is updated.
    const STEP: &str = r#"
        %x: f32[16,48] = input "x"
        %v: f32[48,16] = state "v"
        %average: f32[48,16] = state "average"
        %y: f32[16,16] = matmul %x %v
        %vt: f32[16,48] = transpose %v permutation=[1,0]
        %dx: f32[16,48] = matmul %y %vt
        %xt: f32[48,16] = transpose %x permutation=[1,0]
        %dv: f32[48,16] = matmul %xt %y
        %next = sub %v %dv
        %again: f32[16,16] = matmul %dx %next
        %nt: f32[16,48] = transpose %next permutation=[1,0]
        %back: f32[16,48] = matmul %again %nt
        %sum = add %average %next
        %images: f32[16,32,7,7] = input "images"
        %f: f32[48,32,5,5] = state "f"
        %a: f32[16,48,7,7] = conv2d %images %f stride=[1,1] pad=[2,2]
        %b: f32[16,32,7,7] = conv2d_input_grad %a %f stride=[1,1] pad=[2,2] size=[7,7]
        %df: f32[48,32,5,5] = conv2d_filter_grad %b %a stride=[1,1] pad=[2,2] kernel=[5,5]
        %nf = sub %f %df
        output back = %back
        output b = %b
        update "v" = %next
        update "f" = %nf
        update "average" = %sum"#;

    /// Reads the matrix and its average; only the matrix has a copy.
    const SAMPLE: &str = r#"
        %x: f32[16,48] = input "x"
        %v: f32[48,16] = state "v"
        %average: f32[48,16] = state "average"
        %y: f32[16,16] = matmul %x %v
        %z: f32[16,16] = matmul %x %average
        output y = %y
        output z = %z"#;

    fn state((name, shape): (&str, &[usize])) -> StateDecl {
        StateDecl {
            name: name.into(),
            ty: Type::f32(shape.to_vec()),
            role: StateRole::Parameter,
            init: Initialiser::Constant(0.0),
            span: None,
        }
    }

    fn on_gpu(precision: Precision) -> Strategy {
        Strategy::new(Fusion::On, Target::Cuda(Architecture(90)), precision)
    }

    /// The layout of a program, and its entries' graphs without copies and with them.
    fn laid_out(precision: Precision) -> (StateLayout, Vec<[Graph; 2]>) {
        let rounding = on_gpu(precision).rounding().unwrap();
        let context = PassContext { operands: Some(rounding), ..PassContext::default() };
        let rounded = [("init", INIT), ("step", STEP), ("sample", SAMPLE)].map(|(name, lines)| {
            let mut graph = parse(&format!("graph {name} {{\n{lines}\n}}")).unwrap();
            operand_precision(&mut graph, &context);
            graph
        });
        let states: [(&str, &[usize]); 3] = [("v", &[48, 16]), ("f", &[48, 32, 5, 5]), ("average", &[48, 16])];
        let states = states.map(state);
        let layout = lay_out_states(&states, &rounded.each_ref(), &on_gpu(precision)).unwrap();
        let both = rounded.map(|before| {
            let mut after = before.clone();
            with_copies(&mut after, &layout);
            verify(&after).unwrap();
            [before, after]
        });
        (layout, both.into())
    }

    #[test]
    fn contractions_read_copies_which_updates_write() {
        let (layout, graphs) = laid_out(Precision::Tf32);
        let copies: Vec<String> = (layout.copies.iter())
            .map(|(name, copy)| format!("{name}: of {} in order {:?}", copy.of, layout.orders.get(name)))
            .collect();
        let after: Vec<String> = graphs.iter().map(|[_, after]| after.to_string()).collect();
        assert_snapshot!(format!("{}\n{}", copies.join("\n"), after.concat()));
    }

    #[test]
    fn of_bf16_one_copy_is_enough() {
        let (layout, _) = laid_out(Precision::Bf16);
        assert_eq!(layout.copies.keys().collect::<Vec<_>>(), ["f.bf16", "v.bf16"]);
        let offset = |name: &str| layout.offsets[name];
        assert_eq!(offset("v.bf16") - offset("f.bf16"), 48 * 32 * 5 * 5 * 2, "two bytes an element");
    }

    #[test]
    fn a_name_that_is_taken_is_not_given_to_a_copy() {
        let lines = r#"graph g {
            %x: f32[16,16] = input "x"
            %v: f32[16,16] = state "v"
            %r = round_tf32 %v
            %y: f32[16,16] = matmul %r %x
            update "v" = %y
        }"#;
        let graph = parse(lines).unwrap();
        let states: [(&str, &[usize]); 2] = [("v", &[16, 16]), ("v.tf32", &[16, 16])];
        let layout = lay_out_states(&states.map(state), &[&graph], &on_gpu(Precision::Tf32)).unwrap();
        assert_eq!(layout.offsets.keys().collect::<Vec<_>>(), ["v", "v.tf32", "v.tf32_"]);
        assert_eq!(layout.copies.keys().collect::<Vec<_>>(), ["v.tf32_"]);
        for strategy in [Fusion::On.into(), on_gpu(Precision::F32), on_gpu(Precision::Bf16)] {
            let layout = lay_out_states(&states.map(state), &[&graph], &strategy).unwrap();
            assert!(layout.copies.is_empty(), "nothing is rounded so for {strategy:?}");
        }
    }

    /// A reshape of an updated weight that no access expresses reads a node of its own, which is in the shape's order.
    #[test]
    fn whoever_needs_rows_does_not_read_a_turned_copy() {
        let lines = r#"graph g {
            %x: f32[16,48] = input "x"
            %v: f32[48,16] = state "v"
            %vr: f32[48,16] = round_tf32 %v
            %xr: f32[16,48] = round_tf32 %x
            %y: f32[16,16] = matmul %xr %vr
            %next = add %v %v
            %nr: f32[48,16] = round_tf32 %next
            %again: f32[16,16] = matmul %xr %nr
            %flat: f32[16,48] = reshape %nr
            %both: f32[32,48] = concat %flat %xr axis=0
            %z: f32[32,16] = matmul %both %vr
            output y = %y
            output again = %again
            output z = %z
            update "v" = %next
        }"#;
        let before = parse(lines).unwrap();
        let states: [(&str, &[usize]); 1] = [("v", &[48, 16])];
        let strategy = on_gpu(Precision::Tf32);
        let layout = lay_out_states(&states.map(state), &[&before], &strategy).unwrap();
        let mut after = before.clone();
        with_copies(&mut after, &layout);
        assert_eq!(layout.orders["v.tf32_turned"], [1, 0]);
        assert_eq!(after.find("nr"), Some(after.operands(after.find("flat").unwrap())[0]));
        assert!(!after.is_result(after.find("nr").unwrap()));
        crate::schedule::schedule(&after, &layout, strategy).unwrap();
    }

    /// A matrix that contractions read in one turned copy lies as that does, with what is updated beside it.
    #[test]
    fn matrices_lie_as_the_only_copy_of_them() {
        const STEP: &str = r#"
            %x: f32[32,48] = input "x"
            %w: f32[48,16] = state "w"
            %m: f32[48,16] = state "m"
            %other: f32[48,16] = state "other"
            %r: f32[48,16] = round_tf32 %w
            %xr: f32[32,48] = round_tf32 %x
            %y: f32[32,16] = matmul %xr %r
            %xt: f32[48,32] = transpose %xr permutation=[1,0]
            %yr: f32[32,16] = round_tf32 %y
            %g: f32[48,16] = matmul %xt %yr
            %moment = add %m %g
            %next = sub %w %moment
            %more = add %other %other
            update "w" = %next
            update "m" = %moment
            update "other" = %more"#;
        let orders = |lines: &[&str]| {
            let graphs: Vec<Graph> =
                lines.iter().map(|lines| parse(&format!("graph g {{\n{lines}\n}}")).unwrap()).collect();
            let states: [(&str, &[usize]); 3] = [("w", &[48, 16]), ("m", &[48, 16]), ("other", &[48, 16])];
            let graphs: Vec<&Graph> = graphs.iter().collect();
            lay_out_states(&states.map(state), &graphs, &on_gpu(Precision::Tf32)).unwrap().orders
        };
        let turned =
            |names: &[&str]| names.iter().map(|name| (name.to_string(), vec![1, 0])).collect::<BTreeMap<_, _>>();
        assert_eq!(orders(&[STEP]), turned(&["w", "m", "w.tf32_turned"]));
        let average = "%w: f32[48,16] = state \"w\"\n%other: f32[48,16] = state \"other\"\n%a = max %w %other\n\
                       update \"other\" = %a";
        assert_eq!(orders(&[STEP, average]), turned(&["w", "m", "other", "w.tf32_turned"]));
        // Rows that are wanted as one can't be had of a turned matrix.
        let flat = "%m: f32[48,16] = state \"m\"\n%f: f32[768] = reshape %m\noutput f = %f";
        assert_eq!(orders(&[STEP, flat]), turned(&["w.tf32_turned"]));
        // Two copies lie in both orders.
        let back = "%y: f32[32,16] = input \"y\"\n%w: f32[48,16] = state \"w\"\n%r: f32[48,16] = round_tf32 %w\n\
                    %t: f32[16,48] = transpose %r permutation=[1,0]\n%b: f32[32,48] = matmul %y %t\noutput b = %b\n\
                    update \"w\" = %r";
        assert_eq!(orders(&[STEP, back]), turned(&["w.tf32_turned"]));
    }

    /// A copy that holds what it is said to hold is read as the rounded tensor was, and holds it after the run.
    #[test]
    fn copies_change_no_result() {
        for (precision, rounding) in [(Precision::Tf32, Rounding::Tf32), (Precision::Bf16, Rounding::Bf16)] {
            let (layout, graphs) = laid_out(precision);
            let of = |values: &Value<f32>| {
                let Value { shape, .. } = values;
                let found: Tensor = rounding.round(values.to_tensor(DType::F32).values().unwrap());
                Value::<f32> { shape: shape.clone(), ..Value::from_tensor(&found) }
            };
            for [before, after] in &graphs {
                let mut bindings: Bindings<f32> = random_bindings(before, 5);
                for (name, copy) in &layout.copies {
                    if let Some(value) = bindings.get(&copy.of) {
                        bindings.insert(name.clone(), of(value));
                    }
                }
                let (expected, found) = (evaluate(before, &bindings).unwrap(), evaluate(after, &bindings).unwrap());
                assert_eq!(found.outputs, expected.outputs);
                let (own, copies) = found.updates.split_at(expected.updates.len());
                assert_eq!(own, expected.updates);
                for (name, value) in copies {
                    let copied = own.iter().find(|(state, _)| *state == layout.copies[name].of).unwrap();
                    assert_eq!(*value, of(&copied.1), "{name}");
                }
                let changed = |name: &String| own.iter().any(|(state, _)| *state == layout.copies[name].of);
                assert_eq!(copies.len(), layout.copies.keys().filter(|name| changed(name)).count());
            }
        }
    }
}
