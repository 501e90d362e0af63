//! Convolutions by Winograd's minimal filtering.

use super::rewrite::replace;
use super::{MinimalFiltering, PassContext, Report};
use crate::ir::{Builder, Graph, NodeId, Op, Window};
use crate::winograd::{Part, Transform};

/// Replaces convolutions by a matrix product between transforms where that is faster. It runs before differentiation, so
/// the gradients are such products too, and share the transformed operands.
///
/// Small tiles compute less of what is thrown away, larger ones multiply less for each result: of all tiles that are accurate
/// enough, the one that costs least is taken, by multiplications and the bytes that the transforms write and
/// read ([`PassContext::minimal_filtering`]). A convolution that would cost nearly as much stays as it is.
///
/// ```text
///                                                %u: f32[64,512,256] = input_to_points %x …
///                                                %v: f32[64,256,128] = filter_to_points %w …
/// %y: f32[128,128,7,7] = conv2d %x %w …    →     %p: f32[64,512,128] = matmul %u %v
///                                                %y: f32[128,128,7,7] = output_from_points %p …
/// ```
///
/// The gradient of a convolution in its input, which a transposed convolution is, is the adjoint: `input_from_points` of
/// the product of `output_to_points` with the transposed filter's.
pub fn winograd(graph: &mut Graph, context: &PassContext) -> Report {
    let nodes_before = graph.len();
    let mut changed = 0;
    let Some(decision) = context.minimal_filtering else {
        return Report::new(changed, nodes_before, graph);
    };
    for id in graph.topological() {
        let Some(convolution) = Convolution::of(graph, id) else { continue };
        let Some(tile) = convolution.best_tile(decision) else { continue };
        let [a, b] = [0, 1].map(|side| graph.operands(id)[side]);
        let is_transposed = matches!(graph.op(id), Op::Conv2dInputGrad { .. });
        let part = |part| {
            let transform = convolution.transform(part, tile);
            Op::Winograd(transform.unwrap_or_else(|| unreachable!("the tile was found possible")))
        };
        let adjoint = |op: Op| match op {
            Op::Winograd(transform) => Op::Winograd(transform.adjoint()),
            op => op,
        };
        let name = graph.node(id).name.clone();
        let origin = graph.node(id).origin.clone();
        let mut builder = Builder::new(graph, origin);
        let filter = builder.named(&format!("{name}/filter"), part(Part::Filter), &[b]);
        let new = if is_transposed {
            let output = builder.named(&format!("{name}/output"), adjoint(part(Part::Output)), &[a]);
            let filter = builder.op(Op::Transpose { permutation: vec![0, 2, 1] }, &[filter]);
            let product = builder.named(&format!("{name}/product"), Op::MatMul, &[output, filter]);
            builder.op(adjoint(part(Part::Input)), &[product])
        } else {
            let input = builder.named(&format!("{name}/input"), part(Part::Input), &[a]);
            let product = builder.named(&format!("{name}/product"), Op::MatMul, &[input, filter]);
            builder.op(part(Part::Output), &[product])
        };
        replace(graph, id, new);
        changed += 1;
    }
    Report::new(changed, nodes_before, graph)
}

/// The sizes of a convolution, which all its gradients have in common.
#[derive(Debug)]
struct Convolution {
    window: Window,
    n: usize,
    c: usize,
    o: usize,
    /// Height and width of input, filter and output.
    sizes: [[usize; 2]; 3],
}

/// The part of a convolution's cost that minimal filtering may take at most to be worth its memory.
const WORTH: f64 = 0.8;

impl Convolution {
    fn of(graph: &Graph, id: NodeId) -> Option<Convolution> {
        let shape = |id: NodeId| <[usize; 4]>::try_from(graph.shape(id)).ok();
        let operands = graph.operands(id);
        let (window, input, output) = match graph.op(id) {
            Op::Conv2d { window } => (*window, operands[0], id),
            Op::Conv2dInputGrad { window, .. } => (*window, id, operands[0]),
            _ => return None,
        };
        let [n, c, h, w] = shape(input)?;
        let [o, _, kh, kw] = shape(operands[1])?;
        let [_, _, oh, ow] = shape(output)?;
        Some(Convolution { window, n, c, o, sizes: [[h, w], [kh, kw], [oh, ow]] })
    }

    fn transform(&self, part: Part, tile: [usize; 2]) -> Option<Transform> {
        Transform::new(part, &self.window, self.sizes, tile)
    }

    /// Multiplications and additions as they are written.
    fn direct(&self) -> f64 {
        let [_, kernel, output] = self.sizes.map(|[down, across]| down as f64 * across as f64);
        2.0 * (self.n * self.o) as f64 * output * self.c as f64 * kernel
    }

    /// The same and what memory takes, in multiplications and additions, by minimal filtering.
    fn by_points(&self, tile: [usize; 2], decision: MinimalFiltering) -> Option<f64> {
        let mut transforms = 0.0;
        let mut elements = [0.0; 3];
        let planes = [(self.n, self.c), (self.o, self.c), (self.n, self.o)];
        for (i, (part, (n, c))) in [Part::Input, Part::Filter, Part::Output].into_iter().zip(planes).enumerate() {
            let transform = self.transform(part, tile)?;
            if transform.axes.iter().any(|axis| axis.points() > decision.most_points) {
                return None;
            }
            transforms += transform.flops(n * c) as f64;
            elements[i] = (transform.axes.iter().map(|axis| axis.rows(part)).product::<usize>() * n * c) as f64;
        }
        // Each point has as many multiplications as input, filter and output have in common.
        let points = self.transform(Part::Input, tile)?.points() as f64;
        let product = 2.0 * (elements[0] * elements[1] * elements[2]).sqrt() / points.sqrt();
        let bytes = 2.0 * size_of::<f32>() as f64 * elements.iter().sum::<f64>();
        Some(product + transforms + bytes * decision.flops_per_byte as f64)
    }

    /// The tile that costs least, where it is worth it.
    fn best_tile(&self, decision: MinimalFiltering) -> Option<[usize; 2]> {
        let most = decision.most_points;
        let tiles = (1..=most).flat_map(|down| (1..=most).map(move |across| [down, across]));
        let costs = tiles.filter_map(|tile| Some((self.by_points(tile, decision)?, tile)));
        let (cost, tile) = costs.min_by(|a, b| a.0.total_cmp(&b.0))?;
        (cost < WORTH * self.direct()).then_some(tile)
    }
}
