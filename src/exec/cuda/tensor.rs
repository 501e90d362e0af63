//! Matrix products by tensor cores: what is one product's own beside the functions of `kernels/tensor.cuh`, or of
//! `kernels/wgmma.cuh` where warpgroups multiply.

use super::contraction::{InMemory, Stored, prologue};
use super::expr::c_type;
use super::index::{Points, STAGED, Space, TILED};
use super::names::Names;
use super::nest::{combiner, declaration, indented};
use super::{KernelText, Launch};
use crate::kernel::access::Access;
use crate::kernel::body::{BufferId, Contraction, Nest, Operand, Store};
use crate::kernel::choice::{Math, ThreadBlocks, Tile};
use crate::kernel::tile_reduction::{Kept, TileReduction};
use crate::kernel::tiling::{Tiling, coordinates, shared_bytes};
use crate::kernel::warpgroup;
use crate::plan::Buffer;

/// Threads of a block, in `product_tensor`.
const THREADS: u32 = 128;

/// One product and all that it is computed with.
pub struct Product<'p> {
    pub tiling: &'p Tiling,
    pub blocks: &'p ThreadBlocks,
    /// See [`math`].
    pub math: &'static str,
    /// Of the product's rows and of its columns.
    pub operands: [&'p InMemory; 2],
    pub contraction: &'p Contraction<BufferId>,
    pub sums: Option<BufferId>,
    /// What tiles reduce, and where their results go.
    pub reduction: Option<(TileReduction<BufferId>, BufferId)>,
}

/// How tensor cores multiply, as `kernels/tensor.cuh` calls it; `None` where they don't.
pub fn math(math: Math) -> Option<&'static str> {
    match math {
        Math::Fma => None,
        Math::Tf32 => Some("TF32"),
        Math::Tf32Stored => Some("TF32_STORED"),
        Math::Tf32x3 => Some("TF32X3"),
        Math::Bf16 => Some("BF16"),
        Math::Bf16Stored => Some("BF16_STORED"),
    }
}

impl Product<'_> {
    /// Adds the product's constants and functions, and its launch.
    pub fn render(&self, text: &mut KernelText, function: &str, buffers: &[Buffer]) {
        let Product { tiling, blocks, .. } = self;
        let Tile { rows, columns, .. } = blocks.tile;
        let mut lines = vec![
            format!(
                "static constexpr unsigned POINTS = {}, ROWS = {}, COLUMNS = {}, DEPTH = {}, PARTS = {};",
                tiling.points(),
                tiling.rows,
                tiling.columns,
                tiling.depth,
                blocks.splits,
            ),
            format!(
                "static constexpr unsigned TILE_ROWS = {rows}, TILE_COLUMNS = {columns}, STAGES = {};",
                blocks.stages
            ),
            self.how(buffers),
        ];
        for (side, name) in ["A", "B"].into_iter().enumerate() {
            let (along_depth, line) = tiling.lines(side);
            let [outer, inner] = tiling.loop_strides(side);
            let has_prologue = self.operand(side).has_staged_prologue();
            lines.push(format!(
                "static constexpr bool {name}_ALONG_DEPTH = {along_depth}, {name}_PROLOGUE = {has_prologue};"
            ));
            let copied = tiling.copy_bytes(side, blocks.math);
            lines.push(format!("static constexpr unsigned {name}_LINE = {line}, {name}_COPY = {copied};"));
            lines.push(format!("static constexpr int {name}_OUTER = {outer}, {name}_INNER = {inner};"));
        }
        let (store, along_rows) = self.store(buffers);
        lines.push(format!("static constexpr bool STORE_ALONG_ROWS = {along_rows};"));
        for (operand, name) in self.operands.into_iter().zip(["a", "b"]) {
            lines.extend(pointer(name, operand.buffer, false, buffers));
        }
        lines.extend([0, 1].into_iter().filter_map(|side| self.prologue(side, buffers)).flatten());
        let kept = match self.reduction.as_ref().map(|(reduction, _)| reduction.kept) {
            None => "ALL",
            Some(Kept::Rows) => "ROWS",
            Some(Kept::Columns) => "COLUMNS",
            Some(Kept::Neither) => "NEITHER",
        };
        lines.push(format!("static constexpr Kept KEPT = Kept::{kept};"));
        if let Some((reduction, partials)) = &self.reduction {
            lines.extend(reduce(reduction));
            lines.extend(pointer("partials", *partials, true, buffers));
        }
        lines.extend(self.place());
        lines.extend(store);
        let order = tiling.longest_first();
        let point = match &order {
            Some(_) => format!("{function}_order[number]"),
            None => "number".to_string(),
        };
        lines.push(format!("static __device__ unsigned point(const unsigned number) {{ return {point}; }}"));

        if let Some(order) = order {
            text.source += &table(&format!("{function}_order"), &order);
        }
        text.add_struct(&format!("{function}_product"), lines);
        let tiles = tiling.rows.div_ceil(rows) * tiling.columns.div_ceil(columns);
        let (kernel, block) = if warpgroup::is_choice(blocks) {
            ("product_warpgroups", (32 * blocks.warps[0]) as u32)
        } else {
            ("product_tensor", THREADS)
        };
        let launch = Launch {
            function: function.to_string(),
            grid: (tiles * tiling.points() * blocks.splits) as u32,
            block,
            shared_bytes: shared_bytes(blocks) as u32,
        };
        text.add_function(launch, [format!("{kernel}<{function}_product>(arena, blockIdx.x);")]);
    }

    /// The contraction's operand that the product's rows (of side 1: columns) are of.
    fn operand(&self, side: usize) -> &Operand<BufferId> {
        let c = self.contraction;
        c.kind.in_product_order([&c.operands[0], &c.operands[1]])[side]
    }

    /// How operands are rounded, or what they are already.
    fn how(&self, buffers: &[Buffer]) -> String {
        if warpgroup::is_choice(self.blocks) {
            let element = c_type(buffers[self.operands[0].buffer.index()].dtype);
            return format!("using Element = {element};");
        }
        format!("static constexpr Math MATH = Math::{};", self.math)
    }

    /// The function that gives where a block's operands start and its taps.
    fn place(&self) -> Vec<String> {
        let tiling = self.tiling;
        let bases = [tiling.base(0), tiling.base(1)];
        let all: Vec<&Access> = bases.iter().chain(tiling.bounds.iter().map(|bound| &bound.base)).collect();
        let variables = vec![0; tiling.fixed.len()];
        let mut space = Space::over(&tiling.fixed, &variables, &TILED[..1], &all);
        let [a, b] = [0, 1].map(|side| space.element(&bases[side], Points::Full));
        let [outer, inner] = tiling.loops;
        let mut body = vec![format!("Place place = {{{a}, {b}, {{0, {outer}}}, {{0, {inner}}}}};")];
        for bound in &tiling.bounds {
            let range = ["outer", "inner"][bound.number];
            let base = space.element(&bound.base, Points::Full);
            body.push(format!(
                "place.{range} = within(place.{range}, (int)({base}), {}, {});",
                bound.step, bound.below
            ));
        }
        body.push("return place;".to_string());
        let declarations = space.all_declarations();
        let mut lines = vec!["static __device__ Place place([[maybe_unused]] const unsigned p) {".to_string()];
        lines.extend(indented(declarations.into_iter().chain(body)));
        lines.push("}".to_string());
        lines
    }

    /// The function that computes an operand of what is staged, where it has such a prologue.
    fn prologue(&self, side: usize, buffers: &[Buffer]) -> Option<Vec<String>> {
        let tiling = self.tiling;
        let Operand::Computed { exprs, staged } = self.operand(side) else { return None };
        let (staged, coordinates) = ((*staged)?, &tiling.operand_coordinates[side]);
        let (line, fixed) = ([tiling.rows, tiling.columns][side], tiling.fixed.len());
        let sizes = [&tiling.fixed[..], &tiling.loops, &[line, tiling.depth]].concat();
        let variables: Vec<usize> = (0..sizes.len()).map(|d| (d + 1).saturating_sub(fixed)).collect();
        let exprs = exprs.clone().with_accesses(|access| access.through(coordinates, sizes.len()));
        let space = |accesses: &[&Access]| Space::over(&sizes, &variables, &STAGED, accesses);
        Some(prologue(["prologue_a", "prologue_b"][side], &exprs, staged, buffers, space))
    }

    /// The function that takes a sum, into the workspace as it is or through the epilogue, and whether neighbouring
    /// rows are neighbours in memory.
    fn store(&self, buffers: &[Buffer]) -> (Vec<String>, bool) {
        let (tiling, c) = (self.tiling, self.contraction);
        let sizes = [&tiling.fixed[..], &[tiling.rows, tiling.columns]].concat();
        let fixed = tiling.fixed.len();
        let variables: Vec<usize> = (0..sizes.len()).map(|d| (d + 1).saturating_sub(fixed)).collect();
        let is_along_rows = |access: &Access| access.strides[fixed].abs() == 1 && access.strides[fixed + 1].abs() != 1;
        let over = |accesses: &[&Access]| Space::over(&sizes, &variables, &TILED, accesses);
        let mut body = Vec::new();
        let values = self.reduction.iter().flat_map(|(reduction, _)| &reduction.values);
        let stored = Stored { reduced: values.map(|&(_, value)| value).collect(), ..Stored::of(c, self.sums) };
        let values = match stored.reduced.len() {
            0 => String::new(),
            count => format!(", float (&values)[{count}]"),
        };
        let along_rows = match coordinates(&tiling.out, &sizes, &c.space) {
            Some(coordinates) => {
                let stored = Stored { nest: through(&stored.nest, &coordinates, &sizes), ..stored };
                body.extend(stored.lines(buffers, over));
                stored.nest.stores().next().is_some_and(|store| is_along_rows(&store.access))
            }
            None => {
                let mut space = over(&[&tiling.out]);
                let at = space.element(&tiling.out, Points::Full);
                body.extend(space.all_declarations());
                body.push(format!("[[maybe_unused]] const unsigned i = {at};"));
                let space = |accesses: &[&Access]| Space::new(&c.space, &stored.nest.reduced, accesses);
                body.push("{".to_string());
                body.extend(indented(stored.lines(buffers, space)));
                body.push("}".to_string());
                is_along_rows(&tiling.out)
            }
        };
        let mut lines = vec![format!(
            "static __device__ __forceinline__ void store(unsigned char* arena, \
             [[maybe_unused]] const unsigned part, [[maybe_unused]] const unsigned p, const unsigned k, \
             const unsigned r, const float accumulator{values}) {{"
        )];
        lines.extend(indented(body));
        lines.push("}".to_string());
        (lines, along_rows)
    }
}

/// How the values of a tile are reduced.
fn reduce(reduction: &TileReduction<BufferId>) -> Vec<String> {
    let count = reduction.values.len();
    let ops: Vec<&str> = reduction.values.iter().map(|&(kind, _)| combiner(kind).0).collect();
    let mut lines = vec![
        format!("static constexpr unsigned VALUES = {count}, PARTIALS = {};", reduction.partials()),
        format!("static constexpr unsigned DEVIATED = {};", reduction.deviated.unwrap_or(count)),
        format!("static __device__ __forceinline__ void start(float (&values)[{count}]) {{"),
    ];
    lines.extend(ops.iter().enumerate().map(|(i, op)| format!("    values[{i}] = {op}::identity();")));
    lines.push("}".to_string());
    lines.push(format!(
        "static __device__ __forceinline__ void combine(float (&values)[{count}], const float (&others)[{count}]) {{"
    ));
    let combined = |(i, op): (usize, &&str)| format!("    values[{i}] = {op}::combine(values[{i}], others[{i}]);");
    lines.extend(ops.iter().enumerate().map(combined));
    lines.push("}".to_string());
    lines
}

/// A constant table of points, by their number in the order in which blocks start.
fn table(name: &str, points: &[usize]) -> String {
    const IN_A_LINE: usize = 24;
    let line =
        |points: &[usize]| format!("    {},\n", points.iter().map(usize::to_string).collect::<Vec<_>>().join(", "));
    let lines: String = points.chunks(IN_A_LINE).map(line).collect();
    format!("// Points with the most taps first.\nstatic __device__ const unsigned short {name}[] = {{\n{lines}}};\n")
}

/// A function that gives where a buffer's elements start.
fn pointer(name: &str, buffer: BufferId, is_written: bool, buffers: &[Buffer]) -> Vec<String> {
    let mut names = Names::default();
    let pointers = names.pointers(&[buffer], buffers);
    let element = c_type(buffers[buffer.index()].dtype);
    let constness = if is_written { "" } else { "const " };
    vec![
        format!("static __device__ {constness}{element}* {name}({constness}unsigned char* arena) {{"),
        format!("    {}", declaration(&buffers[buffer.index()], &pointers[&buffer], is_written)),
        format!("    return {};", pointers[&buffer]),
        "}".to_string(),
    ]
}

/// An elementwise nest over a space whose points have these coordinates in its own.
fn through(nest: &Nest<BufferId>, coordinates: &[Access], sizes: &[usize]) -> Nest<BufferId> {
    let map = |access: &Access| access.through(coordinates, sizes.len());
    let exprs = nest.exprs.clone().with_accesses(map);
    let stores = nest.stores().map(|store| Store { access: map(&store.access), ..store.clone() }).collect();
    Nest::elementwise(sizes.to_vec(), exprs, stores)
}
