//! Contractions as C++: what is one kernel's own beside the functions of `kernels/gemm.cuh`.

use super::expr::{Expressions, Scope};
use super::index::{KEPT, POINT, Points, REDUCED, STAGED, Space};
use super::names::Names;
use super::nest::{declaration, indented, pointers_of, sizes};
use super::tensor;
use super::{KernelText, Launch};
use crate::kernel::access::Access;
use crate::kernel::body::{BufferId, Contraction, Expr, ExprId, Exprs, Nest, Store};
use crate::kernel::choice::{Algorithm, Choice, Purpose};
use crate::kernel::contraction::{ContractionKind, ConvShape};
use crate::kernel::few_columns;
use crate::kernel::gemm::Gemm;
use crate::kernel::tile_reduction::TileReduction;
use crate::kernel::tiling::tilings;
use crate::plan::Buffer;
use crate::tensor::DType;
use std::collections::BTreeSet;
use std::ops::Range;

/// Rows and columns of a block's tile, and its threads, in `product_fma`.
const TILE: usize = 64;
const THREADS: u32 = 256;

/// An operand in memory.
pub struct InMemory {
    pub buffer: BufferId,
    pub access: Access,
}

/// Adds the functions of a contraction to a kernel's text: what computes its operands, the products, and the epilogue
/// where that has a launch of its own.
pub fn render(text: &mut KernelText, name: &str, c: &Contraction<BufferId>, choice: &Choice, buffers: &[Buffer]) {
    text.source += &describe(c);
    let (shapes, _) = c.kind.shapes();
    let purposes = [Purpose::FirstOperand, Purpose::SecondOperand];
    let mut operand = |side: usize| match (c.operands[side].exprs(), c.operands[side].staged()) {
        (_, Some((&buffer, access))) if !choice.algorithm.stores_prologue(&c.operands[side]) => {
            InMemory { buffer, access: access.clone() }
        }
        (exprs, _) => {
            let access = Access::contiguous(&shapes[side]);
            // A plan's verification sees that there is the workspace that the algorithm needs.
            let buffer = choice.buffer(purposes[side]).unwrap_or(BufferId::new(0));
            if let Some((exprs, value)) = exprs.and_then(|exprs| Some((exprs, exprs.last()?))) {
                let store = Store { value, buffer, access: access.clone() };
                let nest = Nest::elementwise(shapes[side].clone(), exprs.clone(), vec![store]);
                text.add_nests(&format!("{name}_operand{side}"), &[nest], buffers);
            }
            InMemory { buffer, access }
        }
    };
    let operands = [operand(0), operand(1)];
    let sums = choice.buffer(Purpose::Sums);
    let [a, b] = c.kind.in_product_order([&operands[0], &operands[1]]);
    let function = |number: usize, of: usize| if of == 1 { name.to_string() } else { format!("{name}_{number}") };
    let tiled = match &choice.algorithm {
        Algorithm::ThreadBlocks(blocks) => tensor::math(blocks.math).and_then(|math| Some((blocks, math, tilings(c)?))),
        _ => None,
    };
    match tiled {
        Some((blocks, math, tilings)) => {
            for (number, tiling) in tilings.iter().enumerate() {
                let reduction = TileReduction::of(c, blocks).zip(choice.buffer(Purpose::Partials));
                let product =
                    tensor::Product { tiling, blocks, math, operands: [a, b], contraction: c, sums, reduction };
                product.render(text, &function(number, tilings.len()), buffers);
            }
        }
        None => {
            let products = c.kind.gemms_of([&operands[0].access, &operands[1].access]);
            for (number, gemm) in products.iter().enumerate() {
                let function = function(number, products.len());
                let product = Product { gemm, operands: [a, b], contraction: c, sums };
                product.render(text, &function, &choice.algorithm, buffers);
            }
        }
    }
    if let (Some(reduction), Some(partials)) = (choice.algorithm.tile_reduction(c), choice.buffer(Purpose::Partials)) {
        text.add_nests(&format!("{name}_reduced"), &[reduction.combine(partials)], buffers);
    }
    if let Some(sums) = sums {
        let epilogue = c.epilogue(sums, &c.order_of_sums(), choice.algorithm.splits()).in_memory_order();
        text.add_nests(&format!("{name}_epilogue"), &[epilogue], buffers);
    }
}

/// One product, by multiplications and additions one by one.
struct Product<'p> {
    gemm: &'p Gemm,
    /// Of the product's rows and of its columns.
    operands: [&'p InMemory; 2],
    contraction: &'p Contraction<BufferId>,
    sums: Option<BufferId>,
}

impl Product<'_> {
    /// Adds the product's constants and functions, and its launch.
    fn render(&self, text: &mut KernelText, function: &str, algorithm: &Algorithm, buffers: &[Buffer]) {
        let (gemm, parts) = (self.gemm, algorithm.splits());
        let [batch, rows, columns, depth] =
            [&gemm.batch, &gemm.m, &gemm.n, &gemm.k].map(|dims| dims.iter().product::<usize>());
        let (a_space, b_space) = (gemm.space([&gemm.m, &gemm.k]), gemm.space([&gemm.k, &gemm.n]));
        let before = gemm.batch.len();
        let (a_depth, b_depth) = (before + gemm.m.len()..a_space.len(), before..before + gemm.k.len());
        // By the innermost dimensions of depth and of rows or columns.
        let is_along_depth = |access: &Access, depth: usize, other: usize| {
            let stride = |d: usize| access.strides[d].unsigned_abs();
            stride(depth) == 1 || stride(other) != 1
        };
        let a_along = is_along_depth(&gemm.a, a_space.len() - 1, a_depth.start - 1);
        let b_along = is_along_depth(&gemm.b, b_depth.end - 1, b_space.len() - 1);
        let mut lines = vec![
            format!("static constexpr unsigned BATCH = {batch}, ROWS = {rows}, COLUMNS = {columns}, DEPTH = {depth};"),
            format!("static constexpr unsigned PARTS = {parts};"),
            format!("static constexpr bool A_ALONG_DEPTH = {a_along}, B_ALONG_DEPTH = {b_along};"),
        ];
        let [a, b] = self.operands;
        lines.extend(element("a", a, &gemm.a, &a_space, a_depth, buffers));
        lines.extend(element("b", b, &gemm.b, &b_space, b_depth, buffers));
        lines.extend(store(gemm, self.contraction, self.sums, buffers));
        text.add_struct(&format!("{function}_product"), lines);
        let (product, blocks, block) = match algorithm {
            Algorithm::ThreadBlocks(blocks) if few_columns::is_choice(blocks) => {
                ("product_few_columns", rows.div_ceil(few_columns::ROWS), few_columns::THREADS as u32)
            }
            _ => ("product_fma", batch * rows.div_ceil(TILE) * columns.div_ceil(TILE) * parts, THREADS),
        };
        let launch = Launch { function: function.to_string(), grid: blocks as u32, block, shared_bytes: 0 };
        text.add_function(launch, [format!("{product}<{function}_product>(arena, blockIdx.x);")]);
    }
}

/// A function that reads an element of an operand, with `r` over the dimensions of the depth and `k` over the others.
fn element(
    name: &str,
    operand: &InMemory,
    access: &Access,
    space: &[usize],
    depth: Range<usize>,
    buffers: &[Buffer],
) -> Vec<String> {
    let mut names = Names::default();
    let pointers = names.pointers(&[operand.buffer], buffers);
    let reduced: Vec<bool> = (0..space.len()).map(|d| depth.contains(&d)).collect();
    let mut space = Space::new(space, &reduced, &[access]);
    let at = space.element(access, Points::Full);
    let pointer = &pointers[&operand.buffer];
    let value = match buffers[operand.buffer.index()].dtype {
        DType::F32 | DType::U32 => format!("{pointer}[{at}]"),
        DType::Bf16 => format!("from_bf16({pointer}[{at}])"),
    };
    let read = match space.condition(access, Points::Full) {
        None => format!("return {value};"),
        Some(condition) => format!("return {condition} ? {value} : 0.0f;"),
    };
    let mut lines =
        vec![format!("static __device__ float {name}(unsigned char* arena, const unsigned k, const unsigned r) {{")];
    let mut body = vec![declaration(&buffers[operand.buffer.index()], pointer, false)];
    body.extend(space.declarations(KEPT));
    body.extend(space.declarations(REDUCED));
    body.push(read);
    lines.extend(indented(body));
    lines.push("}".to_string());
    lines
}

/// The function that takes a sum: into the workspace as it is, or through the epilogue.
fn store(gemm: &Gemm, c: &Contraction<BufferId>, sums: Option<BufferId>, buffers: &[Buffer]) -> Vec<String> {
    let space = gemm.space([&gemm.m, &gemm.n]);
    let reduced = (0..space.len()).map(|d| d >= gemm.batch.len() + gemm.m.len()).collect::<Vec<_>>();
    let mut output = Space::new(&space, &reduced, &[&gemm.out]);
    let at = output.element(&gemm.out, Points::Full);
    let mut body: Vec<String> = output.declarations(KEPT);
    body.extend(output.declarations(REDUCED));
    body.push(format!("[[maybe_unused]] const unsigned i = {at};"));
    let stored = Stored::of(c, sums);
    body.extend(stored.lines(buffers, |accesses| Space::new(&c.space, &stored.nest.reduced, accesses)));
    let mut lines = vec![
        "static __device__ void store(unsigned char* arena, [[maybe_unused]] const unsigned part, const unsigned k, \
         const unsigned r, const float accumulator) {"
            .to_string(),
    ];
    lines.extend(indented(body));
    lines.push("}".to_string());
    lines
}

/// What a product does with a sum.
pub struct Stored {
    /// Elementwise, with the sum as its accumulator: the epilogue, or the store of a part of the sum for later.
    pub nest: Nest<BufferId>,
    /// Of sums in parts, how many elements each part has.
    pub part: Option<usize>,
    /// What is reduced: it goes to the elements of `values`.
    pub reduced: Vec<ExprId>,
}

impl Stored {
    /// Into the workspace where there is one for sums, else through the epilogue.
    pub fn of(c: &Contraction<BufferId>, sums: Option<BufferId>) -> Stored {
        let (exprs, stores, part) = match sums {
            None => (c.exprs.clone(), c.stores.clone(), None),
            Some(buffer) => {
                let mut exprs = Exprs::default();
                let value = exprs.push(Expr::Accumulator);
                let store = Store { value, buffer, access: c.order_of_sums() };
                (exprs, vec![store], Some(c.space.iter().product()))
            }
        };
        Stored { nest: Nest::elementwise(c.space.clone(), exprs, stores), part, reduced: Vec::new() }
    }

    /// What is done at the point of a space of which there are the variables; the sum is `accumulator`, and the number of
    /// its part `part`.
    pub fn lines(&self, buffers: &[Buffer], space: impl FnOnce(&[&Access]) -> Space) -> Vec<String> {
        let first = self.part.map_or(String::new(), |elements| format!("part * {elements}u + "));
        epilogue(&self.nest, buffers, &first, &self.reduced, space)
    }
}

/// The function that computes a prologue at one point of the operand, of which there are the variables [`STAGED`]; `element` is
/// what is staged of that point.
pub fn prologue(
    name: &str,
    exprs: &Exprs<BufferId>,
    staged: ExprId,
    buffers: &[Buffer],
    space: impl FnOnce(&[&Access]) -> Space,
) -> Vec<String> {
    let Some(value) = exprs.last() else { return Vec::new() };
    let is_other = |id: &ExprId| *id != staged;
    let others = || exprs.ids().filter(is_other);
    let accesses: Vec<&Access> = others().filter_map(|id| exprs[id].access()).collect();
    let reads: BTreeSet<BufferId> = others().flat_map(|id| exprs[id].reads()).copied().collect();
    let space = space(&accesses);
    let mut names = Names::default();
    let pointers = pointers_of(&mut names, &reads, &BTreeSet::new(), buffers);
    let nest = Nest::elementwise(Vec::new(), exprs.clone(), Vec::new());
    let mut expressions = Expressions::new(&nest, buffers, &pointers, space, names, POINT);
    let (mut outer, mut inner) = (Scope::default(), Scope::default());
    outer.name(staged, "element");
    inner.name(staged, "element");
    let value = expressions.full(value, &mut outer, &mut inner);
    let mut body: Vec<String> =
        pointers.iter().map(|(&b, name)| declaration(&buffers[b.index()], name, false)).collect();
    body.extend(expressions.space.all_declarations());
    body.extend(outer.lines);
    body.extend(inner.lines);
    body.push(format!("return {value};"));
    let variables = STAGED.map(|name| format!("[[maybe_unused]] const unsigned {name}")).join(", ");
    let mut lines = vec![format!(
        "static __device__ __forceinline__ float {name}([[maybe_unused]] const unsigned char* arena, {variables}, \
         const float element) {{"
    )];
    lines.extend(indented(body));
    lines.push("}".to_string());
    lines
}

/// An elementwise nest whose stores are from the element `first` on, and that gives values to reduce.
fn epilogue(
    nest: &Nest<BufferId>,
    buffers: &[Buffer],
    first: &str,
    reduced: &[ExprId],
    space: impl FnOnce(&[&Access]) -> Space,
) -> Vec<String> {
    let stores: Vec<&Store<BufferId>> = nest.stores().collect();
    let accesses: Vec<&Access> =
        nest.exprs.iter().filter_map(Expr::access).chain(stores.iter().map(|store| &store.access)).collect();
    let space = space(&accesses);
    let mut names = Names::default();
    let reads: BTreeSet<BufferId> = nest.exprs.reads().copied().collect();
    let writes: BTreeSet<BufferId> = stores.iter().map(|store| store.buffer).collect();
    let pointers = pointers_of(&mut names, &reads, &writes, buffers);
    let mut lines: Vec<String> =
        pointers.iter().map(|(&b, name)| declaration(&buffers[b.index()], name, writes.contains(&b))).collect();
    let mut expressions = Expressions::new(nest, buffers, &pointers, space, names, POINT);
    let (mut outer, mut inner) = (Scope::default(), Scope::default());
    let values: Vec<String> = stores.iter().map(|s| expressions.full(s.value, &mut outer, &mut inner)).collect();
    let reduced: Vec<String> = reduced.iter().map(|&v| expressions.full(v, &mut outer, &mut inner)).collect();
    let mut writes: Vec<String> =
        reduced.iter().enumerate().map(|(number, value)| format!("values[{number}] = {value};")).collect();
    for (store, value) in stores.iter().zip(values) {
        let position = expressions.space.element(&store.access, Points::Full);
        let value = expressions.stored(store.buffer, value);
        writes.push(format!("{}[{first}{position}] = {value};", pointers[&store.buffer]));
    }
    lines.extend(expressions.space.all_declarations());
    lines.extend(outer.lines);
    lines.extend(inner.lines);
    lines.extend(writes);
    lines
}

/// What it computes, in a comment.
fn describe(contraction: &Contraction<BufferId>) -> String {
    let ([a, b], out) = contraction.kind.shapes();
    let window = |c: &ConvShape| format!(", stride {:?}, padding {:?}", c.window.stride, c.window.pad);
    let (kind, window) = match &contraction.kind {
        ContractionKind::MatMul { .. } => ("matrix product", String::new()),
        ContractionKind::Conv2d(c) => ("convolution", window(c)),
        ContractionKind::Conv2dInputGrad(c) => ("input gradient of a convolution", window(c)),
        ContractionKind::Conv2dFilterGrad(c) => ("filter gradient of a convolution", window(c)),
    };
    format!("// {kind} {} x {} -> {}{window}\n", sizes(&a), sizes(&b), sizes(&out))
}
