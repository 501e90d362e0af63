//! The reference interpreter: every operation by its definition, in f32 or f64.
//!
//! It is the oracle for every executor and every pass, so it is written to be read. Its only concession
//! to speed is the order of the contractions' loops, without which a full training step would take
//! hours.

use super::{Distribution, Graph, NodeId, Op, ReduceKind, Window};
use crate::scalar::{ScalarOp, philox, stream_hash};
use crate::tensor::{Bf16, DType, Shape, Tensor, Type, round_to_bf16};
use crate::winograd::{Direction, Transform};
use std::collections::{BTreeMap, HashMap};

/// A number that the interpreter computes with.
pub trait Element: Copy + Send + Sync + PartialEq + std::fmt::Debug + 'static {
    fn from_f64(value: f64) -> Self;
    fn to_f64(self) -> f64;
    fn add(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
}

macro_rules! element {
    ($($ty:ty)*) => {$(
        impl Element for $ty {
            fn from_f64(value: f64) -> Self { value as $ty }
            fn to_f64(self) -> f64 { f64::from(self) }
            fn add(self, other: Self) -> Self { self + other }
            fn mul(self, other: Self) -> Self { self * other }
        }
    )*};
}
element!(f32 f64);

/// The elements of a tensor in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub enum Data<T> {
    Real(Vec<T>),
    U32(Vec<u32>),
}

/// A tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Value<T> {
    pub shape: Shape,
    pub data: Data<T>,
}

impl<T: Element> Value<T> {
    pub fn real(shape: impl Into<Shape>, values: Vec<T>) -> Self {
        Value { shape: shape.into(), data: Data::Real(values) }
    }

    pub fn u32(shape: impl Into<Shape>, values: Vec<u32>) -> Self {
        Value { shape: shape.into(), data: Data::U32(values) }
    }

    /// The type of the tensor; reals are f32 whatever they are computed in.
    pub fn ty(&self) -> Type {
        match self.data {
            Data::Real(_) => Type::f32(self.shape.clone()),
            Data::U32(_) => Type::u32(self.shape.clone()),
        }
    }

    /// The elements as f64.
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.data {
            Data::Real(values) => values.iter().map(|v| v.to_f64()).collect(),
            Data::U32(values) => values.iter().map(|&v| f64::from(v)).collect(),
        }
    }

    /// Whether it can be given for a tensor of that type: reals are, for any real type.
    pub fn fits(&self, ty: &Type) -> bool {
        let is_real = matches!(self.data, Data::Real(_));
        is_real == ty.dtype.is_real() && self.shape == ty.shape && self.len() == ty.elements()
    }

    /// The value as executors and files hold it: reals rounded to f32, or to bf16 where that is asked for.
    pub fn to_tensor(&self, dtype: DType) -> Tensor {
        match &self.data {
            Data::Real(values) if dtype == DType::Bf16 => {
                let narrow = values.iter().map(|v| Bf16::from_f32(v.to_f64() as f32));
                Tensor::new(self.shape.clone(), &narrow.collect::<Vec<_>>())
            }
            Data::Real(values) => {
                Tensor::new(self.shape.clone(), &values.iter().map(|v| v.to_f64() as f32).collect::<Vec<_>>())
            }
            Data::U32(values) => Tensor::new(self.shape.clone(), values),
        }
    }

    pub fn from_tensor(tensor: &Tensor) -> Self {
        let data = match tensor.dtype() {
            DType::F32 => {
                Data::Real(tensor.values::<f32>().into_iter().flatten().map(|&v| T::from_f64(f64::from(v))).collect())
            }
            DType::Bf16 => Data::Real(
                tensor.values::<Bf16>().into_iter().flatten().map(|&v| T::from_f64(f64::from(v.to_f32()))).collect(),
            ),
            DType::U32 => Data::U32(tensor.values::<u32>().into_iter().flatten().copied().collect()),
        };
        Value { shape: tensor.shape().to_vec(), data }
    }

    pub(crate) fn reals(&self) -> &[T] {
        match &self.data {
            Data::Real(values) => values,
            Data::U32(_) => unreachable!("types are inferred"),
        }
    }

    fn len(&self) -> usize {
        match &self.data {
            Data::Real(values) => values.len(),
            Data::U32(values) => values.len(),
        }
    }
}

/// Tensors by the name of the input, state or random stream that they are the value of.
pub type Bindings<T> = BTreeMap<String, Value<T>>;

/// What a graph gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation<T> {
    pub outputs: Vec<(String, Value<T>)>,
    /// New values of state tensors.
    pub updates: Vec<(String, Value<T>)>,
}

/// Why a graph could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InterpError {
    #[error("no value is given for {kind} `{name}`")]
    Unbound { kind: &'static str, name: String },
    #[error("`{name}` must be {expected}, got {found}")]
    WrongType { name: String, expected: Type, found: Type },
    #[error("`{0}` is a gradient that has not been differentiated")]
    Gradient(String),
}

/// Evaluates a graph on given inputs and state. A random draw whose stream is bound takes that value.
///
/// # Errors
/// When an input or state tensor has no value or one of another type, or a `Gradient` is left.
pub fn evaluate<T: Element>(graph: &Graph, bindings: &Bindings<T>) -> Result<Evaluation<T>, InterpError> {
    let values = evaluate_nodes(graph, bindings, &graph.results())?;
    let take = |node: NodeId| values[&node].clone();
    Ok(Evaluation {
        outputs: graph.outputs.iter().map(|o| (o.name.clone(), take(o.node))).collect(),
        updates: graph.updates.iter().map(|u| (u.state.clone(), take(u.node))).collect(),
    })
}

/// Evaluates chosen nodes of a graph; all others' values are freed after their last use.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_nodes<T: Element>(
    graph: &Graph,
    bindings: &Bindings<T>,
    wanted: &[NodeId],
) -> Result<HashMap<NodeId, Value<T>>, InterpError> {
    evaluate_while(graph, bindings, wanted, &mut |_, _, _| true)
}

/// Shown a node, the values of its operands and its own; says whether to go on.
pub type Watcher<'w, T> = dyn FnMut(NodeId, &[&Value<T>], &Value<T>) -> bool + 'w;

/// [`evaluate_nodes`] for as long as `goes_on`, which is shown each node, the values of its operands and its own, in
/// the order of [`Graph::topological`].
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_while<T: Element>(
    graph: &Graph,
    bindings: &Bindings<T>,
    wanted: &[NodeId],
    goes_on: &mut Watcher<T>,
) -> Result<HashMap<NodeId, Value<T>>, InterpError> {
    let mut needed = vec![false; graph.bound()];
    let mut stack = wanted.to_vec();
    while let Some(id) = stack.pop() {
        if !std::mem::replace(&mut needed[id.index()], true) {
            stack.extend(graph.operands(id));
        }
    }
    let order: Vec<NodeId> = graph.topological().into_iter().filter(|id| needed[id.index()]).collect();
    let mut uses = vec![0usize; graph.bound()];
    wanted.iter().for_each(|id| uses[id.index()] += 1);
    for &id in &order {
        graph.operands(id).iter().for_each(|o| uses[o.index()] += 1);
    }
    let mut values: HashMap<NodeId, Value<T>> = HashMap::new();
    for id in order {
        let operands = graph.operands(id);
        let (value, is_last) = {
            let operands: Vec<&Value<T>> = operands.iter().map(|o| &values[o]).collect();
            let value = node_value(graph, id, &operands, bindings)?;
            let is_last = !goes_on(id, &operands, &value);
            (value, is_last)
        };
        for operand in operands {
            uses[operand.index()] -= 1;
            if uses[operand.index()] == 0 {
                values.remove(&operand);
            }
        }
        values.insert(id, value);
        if is_last {
            break;
        }
    }
    Ok(values)
}

fn bound<T: Element>(
    bindings: &Bindings<T>,
    kind: &'static str,
    name: &str,
    ty: &Type,
) -> Result<Option<Value<T>>, InterpError> {
    match bindings.get(name) {
        None if kind == "draw" => Ok(None),
        None => Err(InterpError::Unbound { kind, name: name.into() }),
        Some(value) if value.fits(ty) => {
            Ok(Some(Value { shape: value.shape.clone(), data: stored_as(value.data.clone(), ty.dtype) }))
        }
        Some(value) => Err(InterpError::WrongType { name: name.into(), expected: ty.clone(), found: value.ty() }),
    }
}

fn node_value<T: Element>(
    graph: &Graph,
    id: NodeId,
    operands: &[&Value<T>],
    bindings: &Bindings<T>,
) -> Result<Value<T>, InterpError> {
    let ty = graph.ty(id);
    let given = match graph.op(id) {
        Op::Input { name, .. } => bound(bindings, "input", name, ty)?,
        Op::State { name, .. } => bound(bindings, "state", name, ty)?,
        Op::Random { stream, .. } => bound(bindings, "draw", stream, ty)?,
        Op::Gradient => return Err(InterpError::Gradient(graph.node(id).name.clone())),
        _ => None,
    };
    if let Some(value) = given {
        return Ok(value);
    }
    let elements = ty.elements();
    let data = match graph.op(id) {
        Op::Input { .. } | Op::State { .. } | Op::Gradient => unreachable!("handled above"),
        Op::Constant { value, .. } => fill(ty, |_| value.0),
        Op::Iota { axis, .. } => {
            let inner: usize = ty.shape[axis + 1..].iter().product();
            fill(ty, |i| (i / inner % ty.shape[*axis]) as f64)
        }
        Op::Random { distribution, stream, .. } => {
            let (Data::U32(seed), Data::U32(step)) = (&operands[0].data, &operands[1].data) else {
                unreachable!("types are inferred")
            };
            let (seed, step, stream) = ([seed[0], seed[1]], step[0], stream_hash(stream));
            fill(ty, |i| match distribution {
                Distribution::Uniform => philox::uniform(seed, step, stream, i as u64),
                Distribution::Normal => philox::normal(seed, step, stream, i as u64),
                // The probability is an f32 on devices.
                Distribution::Bernoulli(p) => {
                    f64::from(u8::from(philox::uniform(seed, step, stream, i as u64) < f64::from(p.0 as f32)))
                }
            })
        }
        Op::Scalar(op) => {
            let columns: Vec<&Data<T>> = operands.iter().map(|o| &o.data).collect();
            let at = |column: &Data<T>, i: usize| match column {
                Data::Real(values) => values[i].to_f64(),
                Data::U32(values) => f64::from(values[i]),
            };
            let mut args = vec![0.0; columns.len()];
            fill(ty, |i| {
                args.iter_mut().zip(&columns).for_each(|(arg, column)| *arg = at(column, i));
                op.eval(&args)
            })
        }
        Op::Reshape { .. } | Op::Detach => operands[0].data.clone(),
        Op::Transpose { permutation } => {
            let strides = strides(&operands[0].shape);
            gather(operands[0], places(&ty.shape, permutation.iter().map(|&p| strides[p]).collect(), 0))
        }
        Op::Broadcast { .. } => gather(operands[0], places(&ty.shape, kept_strides(&operands[0].shape, &ty.shape), 0)),
        Op::Pad { low, .. } => pad(operands[0], low, ty),
        Op::Slice { start, .. } => {
            let strides = strides(&operands[0].shape);
            let first = strides.iter().zip(start).map(|(stride, &start)| stride * start as isize).sum();
            gather(operands[0], places(&ty.shape, strides, first))
        }
        Op::Reverse { axes } => {
            let mut strides = strides(&ty.shape);
            let last = |&a: &usize| strides[a] * (ty.shape[a] as isize - 1);
            let first = if elements == 0 { 0 } else { axes.iter().map(last).sum() };
            axes.iter().for_each(|&a| strides[a] = -strides[a]);
            gather(operands[0], places(&ty.shape, strides, first))
        }
        Op::Concat { axis } => concat(operands, *axis, ty),
        Op::Convert { .. } => stored_as(operands[0].data.clone(), ty.dtype),
        Op::Reduce { kind, .. } => Data::Real(reduce(operands[0], *kind, ty)),
        Op::MatMul => Data::Real(matmul(operands[0], operands[1], ty)),
        Op::Conv2d { window } => {
            let sizes = Conv::new(&operands[0].shape, &operands[1].shape, &ty.shape, window);
            Data::Real(sizes.forward(operands[0].reals(), operands[1].reals()))
        }
        Op::Conv2dInputGrad { window, .. } => {
            let sizes = Conv::new(&ty.shape, &operands[1].shape, &operands[0].shape, window);
            Data::Real(sizes.input_grad(operands[0].reals(), operands[1].reals()))
        }
        Op::Conv2dFilterGrad { window, .. } => {
            let sizes = Conv::new(&operands[0].shape, &ty.shape, &operands[1].shape, window);
            Data::Real(sizes.filter_grad(operands[0].reals(), operands[1].reals()))
        }
        Op::Im2col { window, kernel } => {
            let x = operands[0].reals();
            let mut result = vec![T::from_f64(0.0); elements];
            on_windows(&operands[0].shape, &ty.shape, window, *kernel, |pixel, element| result[element] = x[pixel]);
            Data::Real(result)
        }
        Op::Col2im { window, kernel, .. } => {
            let elements_of_windows = operands[0].reals();
            let mut result = vec![T::from_f64(0.0); elements];
            on_windows(&ty.shape, &operands[0].shape, window, *kernel, |pixel, element| {
                result[pixel] = result[pixel].add(elements_of_windows[element]);
            });
            Data::Real(result)
        }
        Op::Winograd(transform) => Data::Real(winograd(transform, operands[0], ty)),
    };
    Ok(Value { shape: ty.shape.clone(), data })
}

fn fill<T: Element>(ty: &Type, mut f: impl FnMut(usize) -> f64) -> Data<T> {
    match ty.dtype {
        DType::F32 | DType::Bf16 => Data::Real((0..ty.elements()).map(|i| T::from_f64(f(i))).collect()),
        DType::U32 => Data::U32((0..ty.elements()).map(|i| f(i) as u32).collect()),
    }
}

/// The elements as a type holds them: bf16 is rounded to by way of f32, as devices do.
fn stored_as<T: Element>(data: Data<T>, dtype: DType) -> Data<T> {
    match (data, dtype) {
        (Data::Real(values), DType::Bf16) => {
            Data::Real(values.into_iter().map(|v| T::from_f64(f64::from(round_to_bf16(v.to_f64() as f32)))).collect())
        }
        (data, DType::F32 | DType::U32 | DType::Bf16) => data,
    }
}

/// The elements of `source` at these places.
fn gather<T: Element>(source: &Value<T>, places: impl Iterator<Item = usize>) -> Data<T> {
    match &source.data {
        Data::Real(values) => Data::Real(places.map(|at| values[at]).collect()),
        Data::U32(values) => Data::U32(places.map(|at| values[at]).collect()),
    }
}

/// The elements of `source` with zeros around them.
fn pad<T: Element>(source: &Value<T>, low: &[usize], ty: &Type) -> Data<T> {
    let strides = strides(&ty.shape);
    let first = strides.iter().zip(low).map(|(stride, &low)| stride * low as isize).sum();
    let places = places(&source.shape, strides, first);
    match &source.data {
        Data::Real(values) => {
            let mut padded = vec![T::from_f64(0.0); ty.elements()];
            places.zip(values).for_each(|(at, value)| padded[at] = *value);
            Data::Real(padded)
        }
        Data::U32(values) => {
            let mut padded = vec![0; ty.elements()];
            places.zip(values).for_each(|(at, value)| padded[at] = *value);
            Data::U32(padded)
        }
    }
}

/// How many elements a step along each dimension moves by, in row-major order.
fn strides(shape: &[usize]) -> Vec<isize> {
    (0..shape.len()).map(|d| shape[d + 1..].iter().product::<usize>() as isize).collect()
}

/// The strides of a tensor of shape `kept` for steps in `shape`, along which it has the same size or 1.
fn kept_strides(kept: &[usize], shape: &[usize]) -> Vec<isize> {
    let sizes = kept.iter().zip(shape);
    strides(kept).into_iter().zip(sizes).map(|(stride, (kept, size))| if kept == size { stride } else { 0 }).collect()
}

/// A place for each index of `shape`, in row-major order: `first`, and a stride further for each step along a
/// dimension.
fn places(shape: &[usize], strides: Vec<isize>, first: isize) -> impl Iterator<Item = usize> {
    let mut index = vec![0; shape.len()];
    let mut at = first;
    (0..shape.iter().product()).map(move |_| {
        let here = at as usize;
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            at += strides[d];
            if index[d] < shape[d] {
                break;
            }
            at -= strides[d] * shape[d] as isize;
            index[d] = 0;
        }
        here
    })
}

fn concat<T: Element>(operands: &[&Value<T>], axis: usize, ty: &Type) -> Data<T> {
    let outer: usize = ty.shape[..axis].iter().product();
    fn join<X: Copy>(outer: usize, parts: &[&[X]]) -> Vec<X> {
        let mut joined = Vec::new();
        for o in 0..outer {
            for part in parts {
                let size = part.len() / outer;
                joined.extend_from_slice(&part[o * size..][..size]);
            }
        }
        joined
    }
    match ty.dtype {
        DType::F32 | DType::Bf16 => Data::Real(join(outer, &operands.iter().map(|o| o.reals()).collect::<Vec<_>>())),
        DType::U32 => {
            let parts: Vec<&[u32]> = (operands.iter())
                .map(|o| match &o.data {
                    Data::U32(values) => values.as_slice(),
                    Data::Real(_) => unreachable!("types are inferred"),
                })
                .collect();
            Data::U32(join(outer, &parts))
        }
    }
}

fn reduce<T: Element>(operand: &Value<T>, kind: ReduceKind, ty: &Type) -> Vec<T> {
    // Sums are taken in f64, so that the f32 reference is no worse than a blocked sum.
    let combined = |start: f64, combine: &dyn Fn(usize, f64, f64) -> f64| {
        let mut result = vec![start; ty.elements()];
        let places = places(&operand.shape, kept_strides(&ty.shape, &operand.shape), 0);
        for (at, value) in places.zip(operand.reals()) {
            result[at] = combine(at, result[at], value.to_f64());
        }
        result
    };
    let sum = || combined(0.0, &|_, sum, value| sum + value);
    let result = match kind {
        ReduceKind::Sum => sum(),
        ReduceKind::Max => combined(f64::NEG_INFINITY, &|_, max, value| ScalarOp::Max.eval(&[max, value])),
        ReduceKind::Deviations => {
            let count = operand.reals().len() as f64 / ty.elements() as f64;
            let means: Vec<f64> = sum().into_iter().map(|sum| sum / count).collect();
            combined(0.0, &|at, sum, value| sum + (value - means[at]) * (value - means[at]))
        }
    };
    result.into_iter().map(T::from_f64).collect()
}

/// Fills equal parts of a result, each by `f(part index, part)`, on all cores. Each part is computed by
/// one thread alone, so the result does not depend on their number.
fn in_parts<T: Element>(len: usize, part: usize, f: impl Fn(usize, &mut [T]) + Sync) -> Vec<T> {
    let mut result = vec![T::from_f64(0.0); len];
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let parts_each = (len / part).div_ceil(threads);
    std::thread::scope(|scope| {
        for (i, chunk) in result.chunks_mut(part * parts_each).enumerate() {
            let f = &f;
            scope.spawn(move || {
                for (j, one) in chunk.chunks_mut(part).enumerate() {
                    f(i * parts_each + j, one);
                }
            });
        }
    });
    result
}

/// `y += a · x`.
fn axpy<T: Element>(a: T, x: &[T], y: &mut [T]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = y.add(a.mul(x));
    }
}

fn matmul<T: Element>(a: &Value<T>, b: &Value<T>, ty: &Type) -> Vec<T> {
    let rank = ty.rank();
    let (m, n, k) = (ty.shape[rank - 2], ty.shape[rank - 1], a.shape[rank - 1]);
    let (a, b) = (a.reals(), b.reals());
    in_parts(ty.elements(), n, |row, out: &mut [T]| {
        let batch = row / m;
        for i in 0..k {
            axpy(a[row * k + i], &b[(batch * k + i) * n..][..n], out);
        }
    })
}

/// Calls `f` with each pixel of images `[N,C,H,W]` and where it is in the windows `[N,C·KH·KW,OH,OW]` that read it.
fn on_windows(
    images: &[usize],
    windows: &[usize],
    window: &Window,
    kernel: [usize; 2],
    mut f: impl FnMut(usize, usize),
) {
    let (channels, [rows, columns]) = (images[1], [images[2], images[3]]);
    for element in 0..windows.iter().product() {
        let (column, rest) = (element % windows[3], element / windows[3]);
        let (row, rest) = (rest % windows[2], rest / windows[2]);
        let (right, rest) = (rest % kernel[1], rest / kernel[1]);
        let (down, rest) = (rest % kernel[0], rest / kernel[0]);
        let (channel, image) = (rest % channels, rest / channels);
        let y = (row * window.stride[0] + down).checked_sub(window.pad[0]).filter(|&y| y < rows);
        let x = (column * window.stride[1] + right).checked_sub(window.pad[1]).filter(|&x| x < columns);
        if let (Some(y), Some(x)) = (y, x) {
            f(((image * channels + channel) * rows + y) * columns + x, element);
        }
    }
}

/// The matrices of a transform applied to every plane, down and then across.
fn winograd<T: Element>(transform: &Transform, operand: &Value<T>, ty: &Type) -> Vec<T> {
    let is_to_points = transform.direction == Direction::ToPoints;
    let map = transform.map(&operand.shape, &ty.shape);
    let planes = transform.planes([map[0], map[1]]);
    let [down, across] = transform.matrices();
    let from = operand.reals();
    let mut result = vec![T::from_f64(0.0); ty.elements()];
    let term =
        |sum: T, factor: f64, value: T| if factor == 0.0 { sum } else { sum.add(T::from_f64(factor).mul(value)) };
    for outer in 0..planes.outer {
        for lane in 0..planes.lanes {
            let of_map = outer * planes.map_strides[0] + lane * planes.map_strides[1];
            let of_points = outer * planes.points_stride + lane;
            let map = |i: usize, j: usize| of_map + i * map[3] + j;
            let points = |q: usize, r: usize, width: usize| of_points + planes.points_offsets[q * width + r];
            let read = |i: usize, j: usize| from[if is_to_points { map(i, j) } else { points(i, j, across.columns) }];
            let mut half = vec![T::from_f64(0.0); down.rows * across.columns];
            for q in 0..down.rows {
                for j in 0..across.columns {
                    let sum = (0..down.columns).fold(T::from_f64(0.0), |sum, i| term(sum, down.at(q, i), read(i, j)));
                    half[q * across.columns + j] = sum;
                }
            }
            for q in 0..down.rows {
                for r in 0..across.rows {
                    let value = |j: usize| half[q * across.columns + j];
                    let sum = (0..across.columns).fold(T::from_f64(0.0), |sum, j| term(sum, across.at(r, j), value(j)));
                    result[if is_to_points { points(q, r, across.rows) } else { map(q, r) }] = sum;
                }
            }
        }
    }
    result
}

/// The sizes of a convolution `[n,c,h,w] * [o,c,kh,kw] → [n,o,oh,ow]`.
struct Conv<'w> {
    n: usize,
    c: usize,
    o: usize,
    input: [usize; 2],
    kernel: [usize; 2],
    output: [usize; 2],
    window: &'w Window,
}

impl<'w> Conv<'w> {
    fn new(input: &[usize], filter: &[usize], output: &[usize], window: &'w Window) -> Self {
        Conv {
            n: input[0],
            c: input[1],
            o: filter[0],
            input: [input[2], input[3]],
            kernel: [filter[2], filter[3]],
            output: [output[2], output[3]],
            window,
        }
    }

    /// The input index along `axis` that output index `out` reads with kernel index `k`, if any.
    fn source(&self, axis: usize, out: usize, k: usize) -> Option<usize> {
        (out * self.window.stride[axis] + k).checked_sub(self.window.pad[axis]).filter(|&i| i < self.input[axis])
    }

    /// Calls `f(output position, input position)` for every pair that kernel position `(ky, kx)` joins.
    fn pairs(&self, ky: usize, kx: usize, mut f: impl FnMut(usize, usize)) {
        for oy in 0..self.output[0] {
            let Some(iy) = self.source(0, oy, ky) else { continue };
            for ox in 0..self.output[1] {
                if let Some(ix) = self.source(1, ox, kx) {
                    f(oy * self.output[1] + ox, iy * self.input[1] + ix);
                }
            }
        }
    }

    fn taps(&self) -> impl Iterator<Item = (usize, usize)> {
        let [kh, kw] = self.kernel;
        (0..kh).flat_map(move |ky| (0..kw).map(move |kx| (ky, kx)))
    }

    fn weight(&self, o: usize, c: usize, ky: usize, kx: usize) -> usize {
        ((o * self.c + c) * self.kernel[0] + ky) * self.kernel[1] + kx
    }

    fn forward<T: Element>(&self, x: &[T], w: &[T]) -> Vec<T> {
        let (image, plane) = (self.input.iter().product::<usize>(), self.output.iter().product::<usize>());
        in_parts(self.n * self.o * plane, plane, |part, out: &mut [T]| {
            let (n, o) = (part / self.o, part % self.o);
            for c in 0..self.c {
                let x = &x[(n * self.c + c) * image..][..image];
                for (ky, kx) in self.taps() {
                    let weight = w[self.weight(o, c, ky, kx)];
                    self.pairs(ky, kx, |to, from| out[to] = out[to].add(weight.mul(x[from])));
                }
            }
        })
    }

    fn input_grad<T: Element>(&self, dy: &[T], w: &[T]) -> Vec<T> {
        let (image, plane) = (self.input.iter().product::<usize>(), self.output.iter().product::<usize>());
        in_parts(self.n * self.c * image, image, |part, out: &mut [T]| {
            let (n, c) = (part / self.c, part % self.c);
            for o in 0..self.o {
                let dy = &dy[(n * self.o + o) * plane..][..plane];
                for (ky, kx) in self.taps() {
                    let weight = w[self.weight(o, c, ky, kx)];
                    self.pairs(ky, kx, |from, to| out[to] = out[to].add(weight.mul(dy[from])));
                }
            }
        })
    }

    fn filter_grad<T: Element>(&self, x: &[T], dy: &[T]) -> Vec<T> {
        let (image, plane) = (self.input.iter().product::<usize>(), self.output.iter().product::<usize>());
        let taps = self.kernel.iter().product::<usize>();
        in_parts(self.o * self.c * taps, taps, |part, out: &mut [T]| {
            let (o, c) = (part / self.c, part % self.c);
            for n in 0..self.n {
                let x = &x[(n * self.c + c) * image..][..image];
                let dy = &dy[(n * self.o + o) * plane..][..plane];
                for (tap, (ky, kx)) in self.taps().enumerate() {
                    let mut sum = T::from_f64(0.0);
                    self.pairs(ky, kx, |at, from| sum = sum.add(dy[at].mul(x[from])));
                    out[tap] = out[tap].add(sum);
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Builder, Origin};
    use crate::scalar::ScalarOp;

    fn input(graph: &mut Graph, name: &str, shape: &[usize]) -> NodeId {
        let op = Op::Input { name: name.into(), ty: Type::f32(shape) };
        graph.add(op, &[], name, Origin::default()).unwrap()
    }

    fn count(shape: &[usize]) -> Value<f64> {
        let n: usize = shape.iter().product();
        Value::real(shape, (0..n).map(|i| i as f64).collect())
    }

    fn run(graph: &Graph, node: NodeId, bindings: &[(&str, Value<f64>)]) -> Vec<f64> {
        let bindings = bindings.iter().map(|(n, v)| (n.to_string(), v.clone())).collect();
        evaluate_nodes(graph, &bindings, &[node]).unwrap()[&node].to_f64()
    }

    #[test]
    fn movements_and_reductions() {
        let mut graph = Graph::new("g");
        let x = input(&mut graph, "x", &[2, 3]);
        let mut b = Builder::new(&mut graph, Origin::default());
        let t = b.transpose(x, &[1, 0]);
        let padded = b.op(Op::Pad { low: vec![1, 0], high: vec![0, 1] }, &[x]);
        let back = b.op(Op::Slice { start: vec![1, 1], end: vec![3, 4] }, &[padded]);
        let reversed = b.op(Op::Reverse { axes: vec![1] }, &[x]);
        let joined = b.op(Op::Concat { axis: 1 }, &[x, reversed]);
        let sum = b.sum(x, &[1]);
        let max = b.op(Op::Reduce { kind: ReduceKind::Max, axes: vec![0] }, &[x]);
        let wide = b.broadcast(sum, &[2, 2]);
        let given = [("x", count(&[2, 3]))];
        assert_eq!(run(&graph, t, &given), [0., 3., 1., 4., 2., 5.]);
        assert_eq!(run(&graph, padded, &given), [0., 0., 0., 0., 0., 1., 2., 0., 3., 4., 5., 0.]);
        assert_eq!(run(&graph, back, &given), [1., 2., 0., 4., 5., 0.]);
        assert_eq!(run(&graph, joined, &given), [0., 1., 2., 2., 1., 0., 3., 4., 5., 5., 4., 3.]);
        assert_eq!(run(&graph, max, &given), [3., 4., 5.]);
        assert_eq!(run(&graph, wide, &given), [3., 3., 12., 12.]);
    }

    #[test]
    fn contractions() {
        let mut graph = Graph::new("g");
        let a = input(&mut graph, "a", &[2, 2]);
        let x = input(&mut graph, "x", &[1, 1, 3, 3]);
        let w = input(&mut graph, "w", &[1, 1, 2, 2]);
        let mut b = Builder::new(&mut graph, Origin::default());
        let square = b.matmul(a, a);
        let window = Window { stride: [1, 1], pad: [0, 0] };
        let y = b.op(Op::Conv2d { window }, &[x, w]);
        let dx = b.op(Op::Conv2dInputGrad { window, size: [3, 3] }, &[w, w]);
        let dw = b.op(Op::Conv2dFilterGrad { window, kernel: [2, 2] }, &[x, w]);
        let given = [("a", count(&[2, 2])), ("x", count(&[1, 1, 3, 3])), ("w", count(&[1, 1, 2, 2]))];
        assert_eq!(run(&graph, square, &given), [2., 3., 6., 11.]);
        // 0·0 + 1·1 + 2·3 + 3·4 = 19, and 6 more for each step right, 18 for each down.
        assert_eq!(run(&graph, y, &given), [19., 25., 37., 43.]);
        // (w ⊛ w): the square of the polynomial y·2 + x·1 + xy·3.
        assert_eq!(run(&graph, dx, &given), [0., 0., 1., 0., 4., 6., 4., 12., 9.]);
        assert_eq!(run(&graph, dw, &given), [19., 25., 37., 43.]);
    }

    #[test]
    fn windows() {
        let mut graph = Graph::new("g");
        let x = input(&mut graph, "x", &[1, 2, 2, 3]);
        let mut b = Builder::new(&mut graph, Origin::default());
        let window = Window { stride: [1, 2], pad: [0, 1] };
        let columns = b.op(Op::Im2col { window, kernel: [2, 2] }, &[x]);
        let images = b.op(Op::Slice { start: vec![0; 4], end: vec![1, 8, 1, 1] }, &[columns]);
        let images = b.op(Op::Col2im { window, kernel: [2, 2], size: [2, 4] }, &[images]);
        let given = [("x", count(&[1, 2, 2, 3]))];
        // Rows 0 1 2 and 3 4 5 of the first channel: columns -1 0 and 1 2 for each tap; then those of the second, 6 more.
        let first = [0., 1., 0., 2., 0., 4., 3., 5.];
        assert_eq!(run(&graph, columns, &given)[..8], first);
        assert_eq!(run(&graph, columns, &given)[8..], [0., 7., 6., 8., 0., 10., 9., 11.]);
        // Of the first window alone, whose left half is on padding.
        let back = [0., 0., 0., 0., 3., 0., 0., 0., 6., 0., 0., 0., 9., 0., 0., 0.];
        assert_eq!(run(&graph, images, &given), back);
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut graph = Graph::new("g");
        let x = input(&mut graph, "x", &[2]);
        let mut b = Builder::new(&mut graph, Origin::default());
        let y = b.scalar(ScalarOp::Neg, &[x]);
        let error = evaluate_nodes::<f32>(&graph, &Bindings::new(), &[y]).unwrap_err();
        assert_eq!(error.to_string(), "no value is given for input `x`");
        let wrong = Bindings::from([("x".to_string(), Value::real([3], vec![0f32; 3]))]);
        let error = evaluate_nodes(&graph, &wrong, &[y]).unwrap_err();
        assert_eq!(error.to_string(), "`x` must be f32[2], got f32[3]");
    }
}
