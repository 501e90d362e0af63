//! gcc-gan is a dataflow-graph compiler with a static-graph executor.
//!
//! A model, its losses and its training step are declared as a serialisable op graph in a RON file. The compiler
//! checks it, differentiates it symbolically, optimises it, fuses it to kernels, orders them and plans their memory;
//! what comes out is a *plan*: a static schedule of the whole training step in one arena. An executor runs it.
//!
//! # The flow, which is also the folder layout
//!
//! ```text
//! graphs/*.ron ─▶ declare ─▶ ir ─▶ autodiff ─▶ passes ─▶ schedule ─▶ plan ─▶ exec ─▶ train
//!                 (parse,    (typed  (graph →   (graph →  (fuse,       (the     (cpu,   (the loop,
//!                  expand)    SSA)    graph)     graph)    select,      file)    cuda)   data, runs)
//!                                                          order,
//!                                                          memory)
//!                             kernel: what one launch computes, as data; below schedule, plan, exec and inspect
//!                             inspect: looks at every stage, changes none
//! ```
//!
//! | room | holds | must not know |
//! |---|---|---|
//! | [`declare`] | the graph language: RON with source spans, layers, losses and optimisers expanded to primitive operations, diagnostics | devices, training |
//! | [`ir`] | [`ir::Graph`], the closed [`ir::Op`], types, verifier, text form, the reference interpreter | what a GAN, a device or a file is |
//! | [`scalar`] | the table of scalar operations: a row holds name, arity, derivative, f64 meaning, CUDA spelling, vector function and cost; pairs of operations in one pass; Philox, the random numbers | graphs |
//! | [`autodiff`] | reverse mode, graph to graph; a rule for each operation | numbers: it only builds nodes |
//! | [`passes`] | one file for each rewrite, the list of them in order, translation validation | schedules, devices |
//! | [`kernel`] | the kernel IR: bodies, accesses, contractions and the matrix products they come to, algorithms, costs; buffers and schedules as data; targets (a CPU, or a kind of GPU) and what pays on them | graphs, device calls |
//! | [`schedule`] | fusion into kernels, the order of dimensions in memory, the choice of an algorithm and workspace for each, their order, the memory planner | device calls |
//! | [`plan`](mod@plan) | the compiled artifact and its file; loading verifies all that execution relies on, live buffers that overlap included | the compiler: a plan runs without it |
//! | [`exec`] | the [`exec::Device`] and [`exec::Executor`] traits; `cpu`, and `cuda`: the renderer of kernels as CUDA C++, NVIDIA's compiler and driver behind a seam of a few functions, graphs of launches | graphs of operations |
//! | [`train`] | the loop, data sets, checkpoints, samples, metrics | the device it runs on |
//! | [`export`] | models for other programs: an entry as ONNX, parameters under PyTorch's names, and from there | devices, training |
//! | [`inspect`] | every stage as text, picture or page; times of kernels, differences, explanations; the report on runs | what it looks at is never changed |
//!
//! Four files lie below all rooms: [`tensor`], element types, shapes and the one tensor of bytes that crosses from room
//! to room; [`types`], attributes and declarations that graphs and plans share; [`winograd`], the constant matrices of fast
//! convolutions; [`mod@visible`] writes out what a terminal would obey. Three modules join rooms:
//! [`mod@compile`] is the compiler as one call, from text to plan; [`replay`] runs one entry on given tensors, as
//! `gcc-gan run` does; [`atomic`] writes files whole or not at all. `tests/rooms.rs` reads from the sources what each
//! room uses, and holds it to this table.
//!
//! # Decisions
//!
//! - **State is functional.** A step is (state, inputs) → (state', outputs). That parameters are updated in place is
//!   the memory planner's doing, never a side effect in the graph: the generator's half of a GAN's step reads the
//!   updated discriminator by using the node that holds it.
//! - **Layers are expansions, not operations.** BatchNorm, Dropout, Adam and cross-entropies exist in [`declare`] only;
//!   everything behind it knows some thirty primitives. The set is closed under differentiation.
//! - **Randomness is counter-based.** A draw's bits follow from the seed, the step and the draw's name, so they are the
//!   same in every schedule, for any number of threads and after every resume; and any draw can be replaced
//!   by a given tensor. On a GPU one kernel makes all draws of 0 or 1 of an entry, and keeps them as bits.
//! - **What changes from step to step is state in tensors**, Adam's count of steps included, never a number baked in.
//! - **A kernel's body is data**: a small expression graph over an index space. The CPU evaluates it
//!   tile by tile in cache, [`exec::cuda`] writes it as C++. It reads and writes by affine accesses with bounds
//!   ([`kernel::access::Access`]), so padding, windows and movement cost no memory, and what is touched can be checked.
//! - **Algorithms are rewrites where they can be.** A large convolution on the CPU becomes a matrix product between the
//!   constant transforms of Winograd's minimal filtering ([`passes::winograd()`]) before differentiation, so its gradients are
//!   computed in the same way and share the transformed operands. On a GPU one of images of few channels multiplies their
//!   windows, as a 1x1 convolution ([`passes::im2col()`]), and a product with a vector is a sum
//!   ([`passes::thin_products()`]), so both are what kernels for all others are good at; and what a gradient asks of a leaky
//!   relu's operand is asked of its result ([`passes::signs()`]), which the next layer reads anyway.
//! - **A run decides nothing.** The algorithm of each kernel and the memory it works in are chosen by
//!   [`schedule::select`] and are part of the plan. The arena is all that threads share: it is planned, and verified
//!   again when a plan is loaded. Apart from it, each thread has blocks of its own, sized for a cache.
//! - **What a contraction's tiles have in registers is reduced there** ([`kernel::tile_reduction`]): a batch's statistics, each
//!   call's own where calls are merged, and what gradients sum. The launch that combines the tiles' results also computes what
//!   follows from them element by element ([`kernel::body::Finish`]), such as the root of a variance, and what else is of
//!   their shape and ready by then, such as a running mean. Whether it can is known once there is an algorithm, so fusion
//!   tries, asks [`schedule::select`], and starts again without what was declined ([`schedule::fuse::fuse`]).
//! - **What pays is a target's policy** ([`kernel::target::Policy`]): fusion asks it, and has no numbers of its own.
//! - **A plan is for one target** ([`kernel::target::Target`]). For a GPU the passes of [`passes::DEVICE`] follow the others
//!   (calls that run twice with the same weights are merged, and what tensor cores multiply is rounded where it is
//!   computed, so that it is stored in fewer bits, as on a CPU in bf16), and [`mod@schedule`] keeps activations with the batch next to
//!   the channels, so that every tile of a convolution is contiguous. State has an order in the arena, and its declared
//!   order wherever it is read or written from outside: checkpoints pass from device to device. Of weights that are
//!   multiplied in fewer bits there are copies in the arena, which what updates the weights writes too ([`schedule::states`]).
//! - **Device code is text that people read**: `kernels/*.cuh` hold what kernels have in common, and what is a kernel's own
//!   (sizes, operands, epilogue) is written around it. Where a buffer is in the arena is a constant of the text, and nothing
//!   is an argument of a launch, so that a step is one CUDA graph, made once. Its edges are the bytes that launches share. Where
//!   the device keeps the examples ([`exec::Executor::keep`]) the host is not needed from step to step, and looks at results late.
//! - **Compiled code is beside the plan, not in it**: an optional section of the file ([`plan::device_code`]), found by the hash
//!   of the text, options and compiler that it came from. The plan is verified whole; compiled code can't be, so it runs only
//!   where this machine made the same or the user trusts it, and else is made again from the plan.
//! - **Memory is worth a little time.** Kernels run in an order in which little is live at once ([`schedule::order`]), and on a
//!   CPU what is cheap to make is made again behind the moment at which most is live, within two percent of a step's time
//!   ([`schedule::recompute`]). A GPU has memory enough, and runs kernels side by side that share no place in it.
//! - **The oracle is simple and slow.** Every executor and every pass is compared with [`ir::evaluate`].
//!
//! # Adding to it
//!
//! A scalar operation is one row of the table in `src/scalar/table.rs`. A primitive is a variant of [`ir::Op`] and one
//! arm in each exhaustive `match`, which the compiler lists. A layer, operation of the language or optimiser is a row
//! of a table in [`declare`]. A pass is a function and a row in [`passes::PIPELINE`] or [`passes::DEVICE`]; the page,
//! `--stage` and `--validate` know it from there.
//!
//! # Looking at it
//!
//! [`inspect::observe`] compiles with every stage kept; the page, `explain` and `diff` are made from that. What a
//! kernel costs is counted in [`kernel::cost`]; the same numbers are in summaries and profiles, and in the least time
//! that a machine's ceilings allow. Why two nodes are not in one kernel is answered by the code that decided it
//! ([`schedule::fuse::why_not_fused`]); [`inspect::missed_fusions`] ranks all such pairs by what one kernel would save, and
//! [`inspect::peak()`] lists what must be in memory together.
//!
//! # Deliberately absent
//!
//! - *Shapes that vary at run time*: every size is known when a program is compiled. Another size (an epoch's smaller
//!   last batch) is a further specialisation in the same plan.
//! - *Control flow*: a program is one static graph for each entry; the loop over steps is the host's.
//! - *Operations as trait objects*: [`ir::Op`] is a closed enum, so every place that must handle a new operation is
//!   found by the compiler.
//! - *Types other than f32, u32 and bf16*: bf16 is for storage, converted to and from by [`ir::Op::Convert`]; f64
//!   exists in the interpreter, as the oracle.
//! - *Atomic additions in floating point*: every sum has one order, on GPUs too, so that a run can be repeated bit by bit.
//! - *Libraries of kernels*: no cuBLAS or cuDNN; a GPU needs its driver, and NVRTC where kernels are compiled.
//! - *A layout engine for every taste*: pictures are laid out in layers, and in the browser by dagre.

pub mod atomic;
pub mod autodiff;
pub mod compile;
pub mod declare;
pub mod exec;
pub mod export;
pub mod inspect;
pub mod ir;
pub mod kernel;
pub mod passes;
pub mod plan;
pub mod replay;
pub mod scalar;
pub mod schedule;
pub mod tensor;
#[doc(hidden)]
pub mod testing;
pub mod train;
pub mod tune;
pub mod types;
pub mod visible;
pub mod winograd;
