//! Transforms of minimal filtering as text: a thread for each element of the result. Compilers choose them for the CPU only,
//! so this is plain rather than fast.

use super::{KernelText, Launch};
use crate::kernel::body::{BufferId, TransformBody};
use crate::plan::{Buffer, DType};
use crate::winograd::{Direction, Matrix};

/// Threads of a block.
const THREADS: usize = 256;

pub(super) fn render(text: &mut KernelText, name: &str, t: &TransformBody<BufferId>, buffers: &[Buffer]) {
    let [down, across] = t.transform.matrices();
    let planes = t.layout();
    let numbers = |values: &[f64]| values.iter().map(|v| format!("{:?}f", *v as f32)).collect::<Vec<_>>().join(", ");
    let offsets: Vec<String> = planes.points_offsets.iter().map(usize::to_string).collect();
    let table = |name: &str, matrix: &Matrix| {
        format!("static __device__ const float {name}[] = {{{}}};\n", numbers(&matrix.values))
    };
    text.source += &table(&format!("{name}_down"), &down);
    text.source += &table(&format!("{name}_across"), &across);
    text.source += &format!("static __device__ const unsigned {name}_offsets[] = {{{}}};\n", offsets.join(", "));

    let [outer_stride, lane_stride] = planes.map_strides;
    let map = |width: usize, i: &str, j: &str| {
        format!("outer * {outer_stride}u + lane * {lane_stride}u + {i} * {width}u + {j}")
    };
    let points = |width: usize, i: &str, j: &str| {
        format!("{name}_offsets[{i} * {width}u + {j}] + outer * {}u + lane", planes.points_stride)
    };
    let (read, written) = match t.transform.direction {
        Direction::ToPoints => (map(across.columns, "i", "j"), points(across.rows, "row", "column")),
        Direction::FromPoints => (points(across.columns, "i", "j"), map(across.rows, "row", "column")),
    };
    let place = |id: BufferId| buffers[id.index()].offset;
    let (result, sum) = match buffers[t.store.buffer.index()].dtype {
        DType::Bf16 => ("unsigned short", "to_bf16(sum)"),
        DType::F32 | DType::U32 => ("float", "sum"),
    };
    let elements = planes.outer * planes.lanes * down.rows * across.rows;
    let body = vec![
        format!("const unsigned at = blockIdx.x * {THREADS}u + threadIdx.x;"),
        format!("if (at >= {elements}u) return;"),
        format!("const float* operand = reinterpret_cast<const float*>(arena + {}ull);", place(t.operand)),
        format!("{result}* result = reinterpret_cast<{result}*>(arena + {}ull);", place(t.store.buffer)),
        format!("const unsigned lane = at % {}u, outer = at / {}u % {}u;", planes.lanes, planes.lanes, planes.outer),
        format!("const unsigned element = at / {}u;", planes.lanes * planes.outer),
        format!("const unsigned row = element / {}u, column = element % {}u;", across.rows, across.rows),
        "float sum = 0.0f;".into(),
        format!("for (unsigned j = 0; j < {}u; ++j) {{", across.columns),
        "    float half = 0.0f;".into(),
        format!("    for (unsigned i = 0; i < {}u; ++i) {{", down.columns),
        format!("        half += {name}_down[row * {}u + i] * operand[{read}];", down.columns),
        "    }".into(),
        format!("    sum += {name}_across[column * {}u + j] * half;", across.columns),
        "}".into(),
        format!("result[{written}] = {sum};"),
    ];
    let grid = elements.div_ceil(THREADS) as u32;
    text.add_function(Launch { function: name.into(), grid, block: THREADS as u32, shared_bytes: 0 }, body);
}
