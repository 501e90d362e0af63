//! Adding nodes to an entry's graph: names, origins, state and random draws.

use super::diagnostic::{Diagnostic, Span};
use super::limits::Limits;
use super::ron::decode::Decoder;
use crate::ir::{
    DType, Distribution, Entry, Feed, Graph, Initialiser, InputDecl, NodeId, Op, Origin, Role, StateDecl, StateRole,
    Type, Update,
};
use crate::scalar::{Lane, ScalarOp};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// The name of the state that counts steps.
pub const STEP: &str = "step";
/// The name of the input that holds the seed.
pub const SEED: &str = "seed";

/// Expressions and layers that one entry may be expanded to. A program of a few lines can ask for
/// billions, with functions that call functions; the largest useful step has some thousands.
const MAX_EXPANSIONS: usize = 1 << 17;
/// Nodes of one entry: an expression may come to thousands, such as a convolution in many groups.
const MAX_NODES: usize = 1 << 20;
/// Expressions may nest this deep, functions expanded, so that a hostile text cannot exhaust the stack.
const MAX_DEPTH: usize = 200;

/// An entry's graph while it is built: where the next node stands, the state and the random draws. What the text of
/// the program says is not known here.
pub struct Nodes<'l> {
    d: &'l mut Decoder,
    /// The state of all entries, in the order in which they come to it.
    states: &'l mut Vec<StateDecl>,
    /// Their names.
    declared: HashSet<String>,
    pub(super) graph: Graph,
    inputs: Vec<InputDecl>,
    /// What those may hold that are indices.
    pub(super) limits: Limits,
    /// The present value of each state tensor.
    pub(super) current: BTreeMap<String, NodeId>,
    /// The leaf of each state tensor.
    leaves: BTreeMap<String, NodeId>,
    /// The input that holds the seed, once something draws.
    seed: Option<NodeId>,
    /// The declarations around the node that is being built, and what the node is for.
    scope: Vec<String>,
    role: Role,
    /// Scopes and streams that are taken.
    scopes: BTreeSet<String>,
    streams: BTreeSet<String>,
    /// What groups of probes are called.
    probes: BTreeSet<String>,
    /// Networks that were called and could not be expanded: what misses them then is no mistake of its own.
    pub(super) broken: BTreeSet<String>,
    /// How many weights are normalised.
    pub(super) normalised: usize,
    /// See [`Nodes::descend`].
    expansions: usize,
    /// Nodes that were added.
    added: usize,
    depth: usize,
    exhausted: bool,
}

impl<'l> Nodes<'l> {
    pub fn new(name: &str, d: &'l mut Decoder, states: &'l mut Vec<StateDecl>) -> Self {
        let declared = states.iter().map(|state| state.name.clone()).collect();
        Nodes {
            d,
            states,
            declared,
            graph: Graph::new(name),
            inputs: Vec::new(),
            limits: Limits::default(),
            current: BTreeMap::new(),
            leaves: BTreeMap::new(),
            seed: None,
            scope: Vec::new(),
            role: Role::Forward,
            scopes: BTreeSet::new(),
            streams: BTreeSet::new(),
            probes: BTreeSet::new(),
            broken: BTreeSet::new(),
            normalised: 0,
            expansions: 0,
            added: 0,
            depth: 0,
            exhausted: false,
        }
    }

    /// Where mistakes are reported.
    pub fn d(&mut self) -> &mut Decoder {
        self.d
    }

    /// The graph with its state after the run.
    pub fn finish(mut self) -> Entry {
        for (name, node) in &self.current {
            if self.leaves.get(name) != Some(node) {
                self.graph.updates.push(Update { state: name.clone(), node: *node });
            }
        }
        let limits = std::mem::take(&mut self.limits).of_inputs(&self.graph);
        for input in &mut self.inputs {
            if let Some(bound) = limits.get(&input.name) {
                (input.below, input.from_end) = (Some(bound.below), bound.from_end);
            }
        }
        // Constants that were given another shape where they are used.
        self.graph.remove_dead();
        Entry { graph: self.graph, inputs: self.inputs }
    }

    pub fn shape(&self, x: NodeId) -> &[usize] {
        self.graph.shape(x)
    }

    pub fn ty(&self, x: NodeId) -> &Type {
        self.graph.ty(x)
    }

    /// An input of the entry.
    pub fn input(&mut self, decl: InputDecl, span: Span) -> Option<NodeId> {
        let op = Op::Input { name: decl.name.clone(), ty: decl.ty.clone() };
        let node = self.add(op, &[], &decl.name, span)?;
        self.inputs.push(decl);
        Some(node)
    }

    /// What nodes are for from here on.
    pub fn set_role(&mut self, role: Role) {
        self.role = role;
    }

    /// Goes into a declaration whose name is free.
    pub fn push_scope(&mut self, name: &str) {
        self.scope.push(name.to_string());
    }

    pub fn pop_scope(&mut self) {
        self.scope.pop();
    }

    /// The parameters of a network that there are so far, in the order of its layers.
    pub fn parameters_of(&self, network: &str) -> Vec<String> {
        let prefix = format!("{network}/");
        (self.states.iter())
            .filter(|s| s.role == StateRole::Parameter && s.name.starts_with(&prefix))
            .map(|s| s.name.clone())
            .filter(|name| self.current.contains_key(name))
            .collect()
    }

    /// Whether the walk over the program has come to its limit, which is told.
    pub fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// What the run so far made of a network's state tensors of some roles, as far as it changed them.
    pub fn changed_state(&self, network: &str, looked_at: impl Fn(&StateRole) -> bool) -> Vec<NodeId> {
        let prefix = format!("{network}/");
        (self.states.iter())
            .filter(|s| looked_at(&s.role) && s.name.starts_with(&prefix))
            .filter_map(|s| self.current.get(&s.name).filter(|&node| self.leaves.get(&s.name) != Some(node)))
            .copied()
            .collect()
    }

    /// A state tensor as it was before the run.
    pub fn leaf(&self, state: &str) -> NodeId {
        self.leaves[state]
    }

    /// Every node that a value depends on, itself included.
    pub fn reached_from(&self, node: NodeId) -> BTreeSet<NodeId> {
        let mut reached = BTreeSet::new();
        let mut stack = vec![node];
        while let Some(node) = stack.pop() {
            if reached.insert(node) {
                stack.extend(self.graph.operands(node));
            }
        }
        reached
    }

    /// Reports anything but f32[].
    pub fn expect_scalar(&mut self, x: NodeId, message: &str, span: Span) -> Option<()> {
        let ty = self.graph.ty(x);
        if *ty == Type::f32([]) {
            return Some(());
        }
        let diagnostic = Diagnostic::new("non-scalar-loss", message)
            .label(span, format!("this is {ty}"))
            .help("`Mean(...)` or `Sum(...)` makes one number of many");
        self.d().report(diagnostic);
        None
    }

    /// An entry that learns counts its runs, so that the next one draws other numbers.
    pub fn count_step(&mut self, span: Span) -> Option<()> {
        let step = self.step_count(span)?;
        let one = self.add(Op::constant(1.0, DType::U32, []), &[], "one", span)?;
        let next = self.add(Op::Scalar(ScalarOp::AddU32), &[step, one], "next_step", span)?;
        self.current.insert(STEP.into(), next);
        Some(())
    }

    /// Counts one expansion and goes one level down; [`Nodes::leave`] goes up again. `None` where there
    /// are too many.
    pub fn descend(&mut self, span: Span) -> Option<()> {
        if self.exhausted {
            return None;
        }
        self.expansions += 1;
        let too_deep = self.depth >= MAX_DEPTH;
        if too_deep || self.expansions > MAX_EXPANSIONS {
            self.exhausted = true;
            let message = if too_deep {
                format!("expressions nest more than {MAX_DEPTH} deep")
            } else {
                format!("the entry `{}` comes to more than {MAX_EXPANSIONS} expressions", self.graph.name)
            };
            let help = "the bodies of functions count at each of their calls";
            self.d().report(Diagnostic::new("too-large", message).label(span, "too large from here on").help(help));
            return None;
        }
        self.depth += 1;
        Some(())
    }

    pub fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Goes into a declaration, see [`Nodes::pop_scope`]; a path that was taken before gets a number.
    pub fn enter(&mut self, name: &str) {
        let above = self.scope.join("/") + "/";
        let path = unique(&mut self.scopes, &format!("{above}{name}"));
        self.scope.push(path[above.len()..].to_string());
    }

    /// A name for a group of probes; one that was taken before gets a number.
    pub fn probe_group(&mut self, name: &str) -> String {
        unique(&mut self.probes, name)
    }

    /// Adds a node that is named after where it stands; a mistake in its types is reported at `span`.
    pub fn add(&mut self, op: Op, operands: &[NodeId], name: &str, span: Span) -> Option<NodeId> {
        self.added += 1;
        if self.added > MAX_NODES {
            if !self.exhausted {
                self.exhausted = true;
                let message = format!("the entry `{}` comes to more than {MAX_NODES} operations", self.graph.name);
                self.d().report(Diagnostic::new("too-large", message).label(span, "too large from here on"));
            }
            return None;
        }
        let scope = self.scope.join("/");
        let full = match (scope.is_empty(), name.is_empty()) {
            (true, _) => name.to_string(),
            (false, true) => scope.clone(),
            (false, false) => format!("{scope}/{name}"),
        };
        let origin = Origin { span: Some(span), scope, role: self.role.clone() };
        match self.graph.add(op, operands, &full, origin) {
            Ok(node) => Some(node),
            Err(error) => {
                let types: Vec<String> = operands.iter().map(|&o| self.graph.ty(o).to_string()).collect();
                let mut diagnostic = Diagnostic::new("shape-mismatch", error.to_string()).label(span, "in this");
                if !types.is_empty() {
                    let (noun, verb) = if types.len() == 1 { ("operand", "is") } else { ("operands", "are") };
                    diagnostic = diagnostic.help(format!("the {noun} {verb} {}", types.join(" and ")));
                }
                self.d().report(diagnostic);
                None
            }
        }
    }

    /// A constant scalar.
    pub fn constant(&mut self, value: f64, span: Span) -> Option<NodeId> {
        self.add(Op::constant(value, DType::F32, []), &[], "constant", span)
    }

    /// A scalar operation, named after it: see [`Nodes::apply_as`].
    pub fn apply(&mut self, op: ScalarOp, operands: &[NodeId], span: Span) -> Option<NodeId> {
        self.apply_as(op, operands, op.name(), span)
    }

    /// A scalar operation on operands that are brought to one shape first, as NumPy does: aligned at the last
    /// dimension, sizes of 1 repeated.
    pub fn apply_as(&mut self, op: ScalarOp, operands: &[NodeId], name: &str, span: Span) -> Option<NodeId> {
        let rank = operands.iter().map(|&o| self.graph.shape(o).len()).max().unwrap_or(0);
        let mut shape = vec![1; rank];
        for &operand in operands {
            let of = self.graph.shape(operand).to_vec();
            for (to, &size) in shape[rank - of.len()..].iter_mut().zip(&of) {
                if *to == 1 {
                    *to = size;
                } else if size != 1 && size != *to {
                    let types: Vec<String> = operands.iter().map(|&o| self.graph.ty(o).to_string()).collect();
                    let diagnostic =
                        Diagnostic::new("shape-mismatch", format!("the operands of `{}` do not fit", written(op)))
                            .label(span, format!("these are {}", types.join(" and ")))
                            .help("sizes are compared from the last on; they must be equal, or one of them 1");
                    self.d().report(diagnostic);
                    return None;
                }
            }
        }
        let mut fitted = Vec::new();
        for (&operand, lane) in operands.iter().zip(op.operand_lanes()) {
            let expected = if *lane == Lane::U32 { DType::U32 } else { DType::F32 };
            let found = self.graph.ty(operand).dtype;
            if found != expected {
                let mut diagnostic = Diagnostic::new("wrong-dtype", format!("`{}` takes {expected}", written(op)))
                    .label(span, format!("an operand is {}", self.graph.ty(operand)));
                if found == DType::U32 {
                    diagnostic = diagnostic.help("`ToReal(...)` makes real numbers of labels");
                }
                self.d().report(diagnostic);
                return None;
            }
            fitted.push(self.broadcast_to(operand, &shape, span)?);
        }
        self.add(Op::Scalar(op), &fitted, name, span)
    }

    /// `x` with sizes of 1 put in front and repeated to `shape`.
    pub fn broadcast_to(&mut self, x: NodeId, shape: &[usize], span: Span) -> Option<NodeId> {
        let from = self.graph.shape(x).to_vec();
        if from == shape {
            return Some(x);
        }
        // A constant is the same at any shape that it fits.
        if let (Op::Constant { value, ty }, true) = (self.graph.op(x).clone(), from.is_empty()) {
            return self.add(Op::constant(value.0, ty.dtype, shape), &[], "constant", span);
        }
        let mut x = x;
        if from.len() < shape.len() {
            let to = [vec![1; shape.len() - from.len()], from].concat();
            x = self.add(Op::Reshape { to }, &[x], "reshape", span)?;
        }
        if self.graph.shape(x) == shape {
            return Some(x);
        }
        self.add(Op::Broadcast { to: shape.to_vec() }, &[x], "broadcast", span)
    }

    /// `keep·old + follow·new`: what a moving average becomes.
    pub fn followed(
        &mut self,
        [old, keep]: [NodeId; 2],
        [new, follow]: [NodeId; 2],
        name: &str,
        span: Span,
    ) -> Option<NodeId> {
        let kept = self.apply_as(ScalarOp::Mul, &[old, keep], "kept", span)?;
        let followed = self.apply_as(ScalarOp::Mul, &[new, follow], "followed", span)?;
        self.apply_as(ScalarOp::Add, &[kept, followed], name, span)
    }

    /// Part `index` of `parts` equal ones of a value, along the first dimension.
    pub fn part(&mut self, whole: NodeId, (index, parts): (usize, usize), name: &str, span: Span) -> Option<NodeId> {
        let mut end = self.shape(whole).to_vec();
        let length = end.first()? / parts;
        let mut start = vec![0; end.len()];
        (start[0], end[0]) = (index * length, (index + 1) * length);
        self.add(Op::Slice { start, end }, &[whole], name, span)
    }

    /// The present value of a state tensor, which is declared where it is new.
    pub fn state(&mut self, name: &str, ty: Type, role: StateRole, init: Initialiser, span: Span) -> Option<NodeId> {
        if let Some(&node) = self.current.get(name) {
            return Some(node);
        }
        let scope = std::mem::take(&mut self.scope);
        let outer = std::mem::replace(&mut self.role, Role::Forward);
        let node = self.add(Op::State { name: name.into(), ty: ty.clone() }, &[], name, span);
        (self.scope, self.role) = (scope, outer);
        let node = node?;
        if self.declared.insert(name.to_string()) {
            self.states.push(StateDecl { name: name.into(), ty, role, init, span: Some(span) });
        }
        self.current.insert(name.into(), node);
        self.leaves.insert(name.into(), node);
        Some(node)
    }

    /// The count of steps, which keys the random draws.
    pub fn step_count(&mut self, span: Span) -> Option<NodeId> {
        self.state(STEP, Type::u32([]), StateRole::Counter, Initialiser::Constant(0.0), span)
    }

    /// A random draw. Its stream is named after where it stands, so it stays the same when other draws come
    /// and go, and in a specialisation for another number of examples.
    pub fn draw(&mut self, distribution: Distribution, shape: Vec<usize>, span: Span) -> Option<NodeId> {
        let path = [std::slice::from_ref(&self.graph.name), &self.scope[..]].concat().join("/");
        let stream = unique(&mut self.streams, &path);
        let seed = match self.seed {
            Some(seed) => seed,
            None => {
                let ty = Type::u32([2]);
                let scope = std::mem::take(&mut self.scope);
                let seed = self.add(Op::Input { name: SEED.into(), ty: ty.clone() }, &[], SEED, span);
                self.scope = scope;
                let meaning = "the seed of all randomness".to_string();
                self.inputs.push(InputDecl {
                    name: SEED.into(),
                    ty,
                    feed: Feed::Seed,
                    below: None,
                    from_end: false,
                    meaning,
                });
                self.seed = seed;
                seed?
            }
        };
        let step = self.step_count(span)?;
        self.add(Op::Random { distribution, stream, shape }, &[seed, step], "draw", span)
    }
}

/// A name, with a number behind it where it is taken; it is taken from then on.
fn unique(taken: &mut BTreeSet<String>, name: &str) -> String {
    let mut unique = name.to_string();
    let mut number = 1;
    while !taken.insert(unique.clone()) {
        unique = format!("{name}.{number}");
        number += 1;
    }
    unique
}

/// How a scalar operation is written: `log` is `Log`, `add_u32` is `AddU32`.
pub fn written(op: ScalarOp) -> String {
    if op == ScalarOp::IsNan {
        return "IsNaN".to_string();
    }
    op.name().split('_').map(|part| part[..1].to_uppercase() + &part[1..]).collect()
}

/// The operation from the scalar table that is written like this.
pub fn scalar_named(name: &str) -> Option<ScalarOp> {
    ScalarOp::ALL.iter().copied().find(|&op| written(op) == name)
}
