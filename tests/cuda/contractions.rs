//! Single contractions, with operands and results in any order in memory.

use gcc_gan::kernel::access::Access;
use gcc_gan::kernel::body::{Body, BufferId, Contraction, Expr, Exprs, Finish, Kernel, Operand, Store};
use gcc_gan::kernel::choice::{Algorithm, Choice, ThreadBlocks, Workspace};
use gcc_gan::kernel::contraction::ContractionKind;
use gcc_gan::kernel::schedule::{Buffer, BufferRole, Storage};
use gcc_gan::scalar::{Lane, ScalarOp};
use gcc_gan::tensor::DType;

/// A kernel and its buffers: the operands, a bias for each dimension 1 of the result, the result, and the workspace.
pub struct Single {
    pub kernel: Kernel,
    pub buffers: Vec<Buffer>,
    pub arena_bytes: usize,
}

/// `tanh(contraction + bias)` with the dimensions of operands and result in these orders in memory. Operands are of the type
/// that is multiplied so.
pub fn single(kind: ContractionKind, orders: [&[usize]; 3], blocks: ThreadBlocks) -> Single {
    let ([first, second], out) = kind.shapes();
    let bias = vec![1; out.len()].into_iter().enumerate().map(|(d, one)| if d == 1 { out[1] } else { one }).collect();
    let mut buffers: Vec<Buffer> = Vec::new();
    let mut arena_bytes = 0;
    let operands = blocks.math.operands().unwrap_or(DType::F32);
    let mut buffer = |name: &str, shape: &Vec<usize>, role: BufferRole| {
        let (name, storage) = (name.into(), Storage::Elements);
        let (shape, order, offset, live) = (shape.clone(), Vec::new(), arena_bytes, (0, 1));
        let dtype = if buffers.len() < 2 { operands } else { DType::F32 };
        let buffer = Buffer { name, dtype, storage, shape, order, role, offset, live };
        arena_bytes = (arena_bytes + buffer.bytes()).next_multiple_of(64);
        buffers.push(buffer);
        BufferId::new(buffers.len() - 1)
    };
    let input = |name: &str| BufferRole::Input(name.to_string());
    let a = buffer("first", &first, input("first"));
    let b = buffer("second", &second, input("second"));
    let c = buffer("bias", &bias, input("bias"));
    let y = buffer("y", &out, BufferRole::Output);

    let mut exprs = Exprs::default();
    let sum = exprs.push(Expr::Accumulator);
    let of_bias = Access::contiguous(&bias).broadcast(&bias, &out);
    let bias = exprs.push(Expr::Load { buffer: c, access: of_bias, lane: Lane::Real });
    let biased = exprs.push(Expr::Scalar { op: ScalarOp::Add, args: vec![sum, bias] });
    let value = exprs.push(Expr::Scalar { op: ScalarOp::Tanh, args: vec![biased] });
    let operand = |buffer, shape: &[usize], order| Operand::Buffer { buffer, access: Access::ordered(shape, order) };
    let body = Body::Contraction(Contraction {
        kind,
        operands: [operand(a, &first, orders[0]), operand(b, &second, orders[1])],
        reduced: vec![false; out.len()],
        exprs,
        stores: vec![Store { value, buffer: y, access: Access::ordered(&out, orders[2]) }],
        reductions: Vec::new(),
        finish: Finish::default(),
        space: out,
    });
    let algorithm = Algorithm::ThreadBlocks(blocks);
    let needed = algorithm.workspace(&body, |_| DType::F32);
    let workspace = needed.into_iter().map(|(purpose, floats)| Workspace {
        purpose,
        buffer: buffer(purpose.name(), &vec![floats], BufferRole::Workspace),
    });
    let workspace = workspace.collect();
    let kernel = Kernel {
        name: "contraction".to_string(),
        body,
        choice: Choice { algorithm, workspace },
        reads: vec![a, b, c],
        writes: vec![y],
        nodes: vec!["y".to_string()],
    };
    Single { kernel, buffers, arena_bytes }
}
