//! Images that a layer has flattened.

use super::rewrite::differentiated;
use super::{PassContext, Report};
use crate::ir::{Graph, NodeId, Op, Type};
use std::collections::{HashMap, HashSet, VecDeque};

/// Gives values that are images in all but shape the shape of images: what a dense layer gives and a convolution takes
/// is `[N,F]` up to the reshape in between, with its bias, normalisation and activation. Targets whose images lie pixel
/// by pixel in memory ([`PassContext::images`]) can do so only with what has four dimensions. Reshapes are left at
/// matrix products and at parameters.
///
/// Elementwise operations, draws, broadcasts and reductions over `[N,F]` and `[1,F]` become those over `[N,C,H,W]` and
/// `[1,C,H,W]`, of the same elements in the same order.
///
/// ```text
/// %y: f32[8,12] = matmul %x %w                %y: f32[8,12] = matmul %x %w
/// %r: f32[8,12] = tanh %y              →      %a: f32[8,3,2,2] = reshape %y
/// %i: f32[8,3,2,2] = reshape %r               %i: f32[8,3,2,2] = tanh %a
/// %z: f32[8,4,2,2] = conv2d %i %f             %z: f32[8,4,2,2] = conv2d %i %f
/// ```
pub fn unflatten(graph: &mut Graph, context: &PassContext) -> Report {
    let nodes_before = graph.len();
    let mut changed = 0;
    if context.images {
        let mut regions = Regions { opaque: differentiated(graph), image_of: HashMap::new() };
        let order = graph.topological();
        let images = images(graph, &order);
        for &id in &order {
            if let Some((start, image)) = flattened(graph, id, &images) {
                regions.spread(graph, start, image);
            }
        }
        changed = regions.rewrite(graph, &order);
    }
    Report::new(changed, nodes_before, graph)
}

/// The images that convolutions read and write, and all of their shape that is computed elementwise from them or to them.
fn images(graph: &Graph, order: &[NodeId]) -> HashSet<NodeId> {
    let mut stack = Vec::new();
    for &id in order {
        let operands = graph.operands(id);
        match graph.op(id) {
            Op::Conv2d { .. } | Op::Conv2dInputGrad { .. } => stack.extend([id, operands[0]]),
            Op::Conv2dFilterGrad { .. } => stack.extend(operands),
            _ => {}
        }
    }
    let mut found: HashSet<NodeId> = stack.iter().copied().collect();
    let is_elementwise = |id: NodeId| matches!(graph.op(id), Op::Scalar(_) | Op::Convert { .. });
    while let Some(id) = stack.pop() {
        let operands = if is_elementwise(id) { graph.operands(id) } else { Vec::new() };
        let users = graph.users(id).into_iter().filter(|&user| is_elementwise(user));
        stack.extend(operands.into_iter().chain(users).filter(|&other| found.insert(other)));
    }
    found
}

/// Where a reshape joins an image to rows: the node of rows and the image's shape.
fn flattened(graph: &Graph, id: NodeId, images: &HashSet<NodeId>) -> Option<(NodeId, [usize; 4])> {
    let Op::Reshape { .. } = graph.op(id) else { return None };
    let operand = graph.operands(id)[0];
    let (rows, image) = if images.contains(&id) { (operand, id) } else { (id, operand) };
    let (&[n, features], &[images_n, c, h, w]) = (graph.shape(rows), graph.shape(image)) else { return None };
    let is_flat = images.contains(&image) && n == images_n && n > 1 && features == c * h * w && h * w > 1;
    is_flat.then_some((rows, [n, c, h, w]))
}

/// Connected nodes of rows, by node the shape of the images that its region's rows are.
struct Regions {
    opaque: HashSet<NodeId>,
    image_of: HashMap<NodeId, [usize; 4]>,
}

/// A shape of rows, or of what is alike for all rows or all features, as one of images.
fn unflat(shape: &[usize], [n, c, h, w]: [usize; 4]) -> Option<Vec<usize>> {
    match *shape {
        [rows, features] if (rows == 1 || rows == n) && features == c * h * w => Some(vec![rows, c, h, w]),
        [rows, 1] if rows == 1 || rows == n => Some(vec![rows, 1, 1, 1]),
        _ => None,
    }
}

impl Regions {
    /// Whether a node can have an image's shape instead.
    fn fits(&self, graph: &Graph, id: NodeId, image: [usize; 4]) -> bool {
        let is_kind = match graph.op(id) {
            Op::Scalar(_) | Op::Convert { .. } | Op::Random { .. } => true,
            Op::Broadcast { .. } | Op::Reduce { .. } => unflat(graph.shape(graph.operands(id)[0]), image).is_some(),
            _ => false,
        };
        is_kind && unflat(graph.shape(id), image).is_some() && !self.opaque.contains(&id)
    }

    /// Makes a region of what is connected with `start` and in none yet.
    fn spread(&mut self, graph: &Graph, start: NodeId, image: [usize; 4]) {
        let features = graph.shape(start)[1];
        let mut queue = VecDeque::from([start]);
        let mut seen = HashSet::from([start]);
        while let Some(id) = queue.pop_front() {
            if id != start || self.fits(graph, id, image) {
                self.image_of.entry(id).or_insert(image);
            }
            // What is left of a row's reduction is a member, but leads no further.
            if graph.shape(id)[1] != features {
                continue;
            }
            let operands = if self.image_of.contains_key(&id) { graph.operands(id) } else { Vec::new() };
            for other in operands.into_iter().chain(graph.users(id)) {
                let is_wide = matches!(*graph.shape(other), [_, f] if f == features);
                let is_sum = matches!(graph.op(other), Op::Reduce { .. }) && graph.operands(other)[0] == id;
                let is_free = (is_wide || is_sum) && !self.image_of.contains_key(&other);
                if is_free && self.fits(graph, other, image) && seen.insert(other) {
                    queue.push_back(other);
                }
            }
        }
    }

    /// Gives every node of the regions its image's shape; how many nodes that were.
    fn rewrite(self, graph: &mut Graph, order: &[NodeId]) -> usize {
        let members: Vec<NodeId> = order.iter().copied().filter(|id| self.image_of.contains_key(id)).collect();
        let mut image_of_operand: HashMap<(NodeId, [usize; 4]), NodeId> = HashMap::new();
        let mut renewed: HashMap<NodeId, NodeId> = HashMap::new();
        for &id in &members {
            let image = self.image_of[&id];
            let mut operands = graph.operands(id);
            if !matches!(graph.op(id), Op::Random { .. }) {
                for operand in &mut operands {
                    *operand = match self.image_of.get(operand) {
                        Some(other) if *other == image => renewed[operand],
                        _ => *image_of_operand
                            .entry((*operand, image))
                            .or_insert_with(|| as_image(graph, *operand, image)),
                    };
                }
            }
            let op = op_of_image(graph, id, image);
            let (name, origin) = (graph.node(id).name.clone(), graph.node(id).origin.clone());
            let new = added(graph, op, &operands, &name, origin);
            renewed.insert(id, new);
        }
        // What is not in the region goes on reading rows.
        for &id in members.iter().rev() {
            let new = renewed[&id];
            let is_probed = graph.probes.iter().any(|probe| probe.node == id);
            // Users that are members are gone by now.
            if graph.use_count(id) > 0 || graph.is_result(id) || is_probed {
                let (to, origin) = (graph.shape(id).to_vec(), graph.node(id).origin.clone());
                let rows = added(graph, Op::Reshape { to }, &[new], "reshape", origin);
                graph.replace_uses(id, rows);
            }
            let name = graph.node(id).name.clone();
            graph.remove(id);
            graph.rename(new, &name);
        }
        members.len()
    }
}

/// What is no member, in the shape of images.
fn as_image(graph: &mut Graph, id: NodeId, image: [usize; 4]) -> NodeId {
    let Some(to) = unflat(graph.shape(id), image) else {
        unreachable!("a member's operands have its rows or features")
    };
    let origin = graph.node(id).origin.clone();
    match graph.op(id).clone() {
        Op::Constant { value, ty } => {
            added(graph, Op::Constant { value, ty: Type::new(ty.dtype, to) }, &[], "constant", origin)
        }
        _ => added(graph, Op::Reshape { to }, &[id], "reshape", origin),
    }
}

/// A member's operation over images.
fn op_of_image(graph: &Graph, id: NodeId, image: [usize; 4]) -> Op {
    let Some(to) = unflat(graph.shape(id), image) else { unreachable!("only what fits is a member") };
    match graph.op(id).clone() {
        Op::Broadcast { .. } => Op::Broadcast { to },
        Op::Reduce { kind, axes } => {
            let axes = axes.into_iter().flat_map(|axis| if axis == 0 { 0..1 } else { 1..4 }).collect();
            Op::Reduce { kind, axes }
        }
        Op::Random { distribution, stream, .. } => Op::Random { distribution, stream, shape: to },
        op => op,
    }
}

fn added(graph: &mut Graph, op: Op, operands: &[NodeId], name: &str, origin: crate::ir::Origin) -> NodeId {
    match graph.add(op, operands, name, origin) {
        Ok(id) => id,
        Err(error) => panic!("an image's operation is ill-typed: {error}"),
    }
}
