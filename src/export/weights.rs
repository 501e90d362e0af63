//! Parameters and running statistics under the names and in the layouts that PyTorch has for the same layers, and back.
//!
//! A network is a `torch.nn.Sequential` under the network's name: `generator/4-conv_transpose/weight` is
//! `generator.4.weight`. Layers within `Residual` and `Repeat` have their places behind one another in the name.

use crate::declare::diagnostic::closest;
use crate::tensor::{Bf16, DType, Tensor, Type, half_to_f32};
use crate::types::{StateDecl, StateRole};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How PyTorch lays out the elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Same,
    /// A matrix whose rows are ours columns.
    Transposed,
    /// A single number is a row of one.
    Row,
}

/// A state tensor with its name in PyTorch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub ours: String,
    pub theirs: String,
    ty: Type,
    layout: Layout,
}

impl Named {
    /// The shape in PyTorch.
    pub fn shape(&self) -> Vec<usize> {
        match self.layout {
            Layout::Same => self.ty.shape.clone(),
            Layout::Transposed => self.ty.shape.iter().rev().copied().collect(),
            Layout::Row => vec![1],
        }
    }

    /// Our tensor as PyTorch has it.
    fn exported(&self, tensor: &Tensor) -> Tensor {
        self.relaid(tensor, self.shape())
    }

    /// PyTorch's tensor as we have it.
    fn imported(&self, tensor: &Tensor) -> Tensor {
        self.relaid(tensor, self.ty.shape.clone())
    }

    fn relaid(&self, tensor: &Tensor, shape: Vec<usize>) -> Tensor {
        let bytes = tensor.view().to_le_bytes();
        let ty = Type::new(tensor.dtype(), shape);
        let bytes = match (self.layout, tensor.shape()) {
            (Layout::Transposed, &[rows, columns]) => {
                let size = tensor.dtype().size();
                let at = |row: usize, column: usize| &bytes[(row * columns + column) * size..][..size];
                (0..columns).flat_map(|c| (0..rows).flat_map(move |r| at(r, c).iter().copied())).collect()
            }
            _ => bytes.into_owned(),
        };
        Tensor::from_le_bytes(ty, &bytes).unwrap_or_else(|| unreachable!("the elements are the same"))
    }
}

/// The parameters and running statistics of a program, or of one of its networks, in the order of declaration. A
/// network's own names do not begin with the network's.
pub fn names(states: &[StateDecl], network: Option<&str>) -> Vec<Named> {
    let all: BTreeSet<&str> = states.iter().map(|s| s.name.as_str()).collect();
    let is_weight = |s: &&StateDecl| matches!(s.role, StateRole::Parameter | StateRole::Statistic);
    let mut named: Vec<Named> = (states.iter())
        .filter(is_weight)
        .filter_map(|state| {
            let inside = match network {
                Some(network) => state.name.strip_prefix(network)?.strip_prefix('/')?,
                None => &state.name,
            };
            Some(renamed(state, inside, &all))
        })
        .collect();
    // Names that would be another's stay ours.
    let mut counts: HashMap<String, usize> = HashMap::new();
    named.iter().for_each(|n| *counts.entry(n.theirs.clone()).or_default() += 1);
    for name in named.iter_mut().filter(|n| counts[&n.theirs] > 1) {
        (name.theirs, name.layout) = (name.ours.clone(), Layout::Same);
    }
    named
}

fn renamed(state: &StateDecl, name: &str, all: &BTreeSet<&str>) -> Named {
    let mut parts: Vec<&str> = name.split('/').collect();
    let last = parts.pop().unwrap_or_default();
    let layer = parts.last().map_or("", |part| without_number(part).1);
    let is_normalised = || {
        let path = state.name.rsplit_once('/').map_or("", |(path, _)| path);
        all.contains(format!("{path}/spectral_u").as_str())
    };
    let theirs = match (layer, last) {
        (_, "weight") if is_normalised() => "parametrizations.weight.original",
        (_, "spectral_u") => "parametrizations.weight.0._u",
        (_, "spectral_v") => "parametrizations.weight.0._v",
        (_, "scale") | ("p_relu", "slope") => "weight",
        (_, "offset") => "bias",
        (_, "running_variance") => "running_var",
        (_, last) => last,
    };
    let layout = match (layer, last) {
        ("dense", "weight") if state.ty.rank() == 2 => Layout::Transposed,
        ("p_relu", "slope") if state.ty.rank() == 0 => Layout::Row,
        _ => Layout::Same,
    };
    let path: Vec<&str> = parts.into_iter().map(|part| without_number(part).0).chain([theirs]).collect();
    Named { ours: state.name.clone(), theirs: path.join("."), ty: state.ty.clone(), layout }
}

/// `4` and `conv_transpose` of `4-conv_transpose`; what has no number stays whole.
fn without_number(part: &str) -> (&str, &str) {
    match part.split_once('-') {
        Some((number, kind)) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => (number, kind),
        _ => (part, ""),
    }
}

/// The bytes of a safetensors file with those of the tensors that have a name here.
///
/// # Errors
/// The name of a tensor that is missing, or what the format refuses.
pub fn encode(named: &[Named], tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>, String> {
    let mut encoded = Vec::new();
    for name in named {
        let tensor = tensors.get(&name.ours).ok_or_else(|| format!("the run has no state `{}`", name.ours))?;
        let dtype = match tensor.dtype() {
            DType::F32 => Dtype::F32,
            DType::Bf16 => Dtype::BF16,
            DType::U32 => Dtype::U32,
        };
        let tensor = name.exported(tensor);
        encoded.push((name.theirs.as_str(), dtype, tensor.shape().to_vec(), tensor.view().to_le_bytes().into_owned()));
    }
    let views = encoded.iter().map(|(name, dtype, shape, bytes)| {
        TensorView::new(*dtype, shape.clone(), bytes).map(|view| (*name, view)).map_err(|e| e.to_string())
    });
    let views = views.collect::<Result<Vec<_>, String>>()?;
    // By which other programs know that the layouts are PyTorch's.
    let facts = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize(views, Some(facts)).map_err(|e| e.to_string())
}

/// State tensors that were read.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// By our names.
    pub tensors: BTreeMap<String, Tensor>,
    /// Element types that were converted to ours, each with the number of tensors.
    pub converted: BTreeMap<String, usize>,
}

/// Why tensors are not those of a program.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("it is truncated, damaged or no safetensors file ({0})")]
    File(String),
    #[error("its tensors are not those of {of}:\n  {}", problems.join("\n  "))]
    Tensors { of: String, problems: Vec<String> },
    #[error(
        "its tensors are those of one network, without the network's name: say which by {}",
        .0.iter().map(|network| format!("--network {network}")).collect::<Vec<_>>().join(" or ")
    )]
    OneNetwork(Vec<String>),
    #[error("the program has no parameters of a network `{network}`; it has those of {known}")]
    NoNetwork { network: String, known: String },
}

/// Reads state tensors from the bytes of a safetensors file: every parameter and running statistic by PyTorch's name or
/// ours, and any other state by ours; or those of one network, whose name PyTorch's names do not begin with. Counts of
/// steps, and PyTorch's of batches, are passed over.
///
/// # Errors
/// When it is no such file, or everything that is missing, unknown or of another shape.
pub fn decode(bytes: &[u8], states: &[StateDecl], network: Option<&str>) -> Result<Imported, ImportError> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| ImportError::File(error.to_string()))?;
    let named = names(states, network);
    if let (Some(network), true) = (network, named.is_empty()) {
        let known = super::networks(states).join(", ");
        return Err(ImportError::NoNetwork { network: network.to_string(), known });
    }
    let of = network.map_or("the program".to_string(), |network| format!("the network `{network}`"));
    let is_inside = |name: &str| network.is_none_or(|n| name.strip_prefix(n).is_some_and(|rest| rest.starts_with('/')));
    let (mut tensors, mut converted) = (BTreeMap::new(), BTreeMap::new());
    let mut problems = Vec::new();
    for (name, view) in file.iter().collect::<BTreeMap<_, _>>() {
        let by_theirs = named.iter().find(|n| n.theirs == name);
        let by_ours = states.iter().find(|s| s.name == name && is_inside(name));
        if by_ours.is_some_and(|state| state.role == StateRole::Counter) {
            continue;
        }
        let (ours, ty, shape) = match (by_theirs, by_ours) {
            (Some(named), _) => (&named.ours, &named.ty, named.shape()),
            (None, Some(state)) => (&state.name, &state.ty, state.ty.shape.clone()),
            (None, None) => {
                if !name.ends_with(".num_batches_tracked") {
                    let known = named.iter().map(|n| n.theirs.as_str());
                    let hint = closest(name, known).map_or(String::new(), |n| format!("; did you mean `{n}`?"));
                    problems.push(format!("`{name}` is not in {of}{hint}"));
                }
                continue;
            }
        };
        if view.shape() != shape {
            problems.push(format!("`{name}` must be {shape:?}, and is {:?}", view.shape()));
            // Told once: it is there.
            tensors.insert(ours.clone(), Tensor::zeros(ty.clone()));
            continue;
        }
        let Some(values) = read(&view, ty.dtype) else {
            problems.push(format!("`{name}` is {}: {} was expected", view.dtype(), ty.dtype));
            tensors.insert(ours.clone(), Tensor::zeros(ty.clone()));
            continue;
        };
        let infinite = not_finite(&values, ty.dtype);
        if infinite > 0 {
            let place = if view.dtype() == Dtype::F64 { " (as f32)" } else { "" };
            problems.push(format!("`{name}` has {infinite} numbers that are NaN or infinite{place}"));
        }
        let from = view.dtype().to_string();
        if from.to_lowercase() != ty.dtype.to_string() {
            *converted.entry(from).or_default() += 1;
        }
        let tensor = Tensor::from_le_bytes(Type::new(ty.dtype, shape), &values);
        let tensor = tensor.unwrap_or_else(|| unreachable!("the shape is that of the file"));
        let tensor = match by_theirs {
            Some(named) => named.imported(&tensor),
            None => tensor,
        };
        if tensors.insert(ours.clone(), tensor).is_some() {
            problems.push(format!("`{name}` is there by PyTorch's name and by ours"));
        }
    }
    for name in named.iter().filter(|n| !tensors.contains_key(&n.ours)) {
        problems.push(format!("`{}` {:?} is missing", name.theirs, name.shape()));
    }
    if problems.is_empty() {
        return Ok(Imported { tensors, converted });
    }
    let fitting = if network.is_none() { fitting_networks(&file, states) } else { Vec::new() };
    Err(if fitting.is_empty() { ImportError::Tensors { of, problems } } else { ImportError::OneNetwork(fitting) })
}

/// The networks that have all tensors of a file, without the network's name, and no others.
fn fitting_networks(file: &SafeTensors, states: &[StateDecl]) -> Vec<String> {
    let given: BTreeMap<String, Vec<usize>> = (file.iter())
        .filter(|(name, _)| !name.ends_with(".num_batches_tracked"))
        .map(|(name, view)| (name.to_string(), view.shape().to_vec()))
        .collect();
    let fits = |network: &&str| {
        let own: BTreeMap<String, Vec<usize>> =
            names(states, Some(network)).into_iter().map(|n| (n.theirs.clone(), n.shape())).collect();
        !own.is_empty() && own == given
    };
    super::networks(states).into_iter().filter(fits).map(String::from).collect()
}

/// How many of some little-endian numbers are NaN or infinite.
fn not_finite(values: &[u8], dtype: DType) -> usize {
    match dtype {
        DType::F32 => values.as_chunks().0.iter().filter(|b| !f32::from_le_bytes(**b).is_finite()).count(),
        DType::Bf16 => {
            values.as_chunks().0.iter().filter(|b| !Bf16(u16::from_le_bytes(**b)).to_f32().is_finite()).count()
        }
        DType::U32 => 0,
    }
}

/// Elements as little-endian bytes of one of our types; `None` where numbers of that kind are not expected.
fn read(view: &TensorView, dtype: DType) -> Option<Vec<u8>> {
    let data = view.data();
    let reals: Vec<f32> = match (view.dtype(), dtype) {
        (Dtype::F32, DType::F32) | (Dtype::BF16, DType::Bf16) | (Dtype::U32, DType::U32) => return Some(data.to_vec()),
        (_, DType::U32) => return None,
        (Dtype::F32, _) => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        (Dtype::F64, _) => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        (Dtype::BF16, _) => data.as_chunks().0.iter().map(|b| Bf16(u16::from_le_bytes(*b)).to_f32()).collect(),
        (Dtype::F16, _) => data.as_chunks().0.iter().map(|b| half_to_f32(u16::from_le_bytes(*b))).collect(),
        _ => return None,
    };
    Some(match dtype {
        DType::Bf16 => reals.into_iter().flat_map(|v| Bf16::from_f32(v).0.to_le_bytes()).collect(),
        DType::F32 | DType::U32 => reals.into_iter().flat_map(f32::to_le_bytes).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declare;

    const PROGRAM: &str = r#"Program(
        name: "small",
        networks: {
            "net": Network(input: [2, 4, 4], layers: [
                SpectralNorm(Conv(channels: 3, kernel: 3, pad: 1)),
                BatchNorm(),
                PRelu(),
                Residual([Conv(channels: 3, kernel: 1)]),
                Flatten(),
                Dense(units: 2),
            ]),
        },
        entries: {
            "train_step": Entry(
                inputs: {"x": Tensor([4, 2, 4, 4])},
                steps: [
                    Let("y", Call("net", "x", Training)),
                    Let("loss", Mean(Mul("y", "y"))),
                    Minimise("loss", "net", Sgd(lr: 0.1)),
                ],
                outputs: ["loss"],
            ),
        },
    )"#;

    fn states() -> Vec<StateDecl> {
        declare::load("small", PROGRAM, &[], &[]).unwrap().states
    }

    fn counted(states: &[StateDecl]) -> BTreeMap<String, Tensor> {
        let mut next = 0;
        let mut tensor = |ty: &Type| {
            let values: Vec<f32> = (0..ty.elements()).map(|i| (next + i) as f32).collect();
            next += values.len();
            Tensor::new(ty.shape.clone(), &values)
        };
        let weights = states.iter().filter(|s| matches!(s.role, StateRole::Parameter | StateRole::Statistic));
        weights.map(|s| (s.name.clone(), tensor(&s.ty))).collect()
    }

    #[test]
    fn names_and_shapes_are_those_of_pytorch() {
        let mut found: Vec<String> =
            names(&states(), None).iter().map(|n| format!("{} {:?}", n.theirs, n.shape())).collect();
        found.sort();
        assert_eq!(
            found,
            [
                "net.0.bias [3]",
                "net.0.parametrizations.weight.0._u [3]",
                "net.0.parametrizations.weight.0._v [18]",
                "net.0.parametrizations.weight.original [3, 2, 3, 3]",
                "net.1.bias [3]",
                "net.1.running_mean [3]",
                "net.1.running_var [3]",
                "net.1.weight [3]",
                "net.2.weight [1]",
                "net.3.0.bias [3]",
                "net.3.0.weight [3, 3, 1, 1]",
                "net.5.bias [2]",
                "net.5.weight [2, 48]",
            ]
        );
        assert!(names(&states(), Some("net")).iter().any(|n| n.theirs == "5.weight"));
        assert!(names(&states(), Some("ne")).is_empty());
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        let (states, mut tensors) = (states(), counted(&states()));
        let name = names(&states, None).iter().find(|n| n.theirs == "net.5.bias").unwrap().ours.clone();
        tensors.insert(name, Tensor::new([2], &[f32::NAN, f32::INFINITY]));
        let bytes = encode(&names(&states, None), &tensors).unwrap();
        let error = decode(&bytes, &states, None).unwrap_err().to_string();
        assert!(error.contains("`net.5.bias` has 2 numbers that are NaN or infinite"), "{error}");
    }

    #[test]
    fn what_is_exported_comes_back() {
        let (states, tensors) = (states(), counted(&states()));
        let bytes = encode(&names(&states, None), &tensors).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let dense = file.tensor("net.5.weight").unwrap();
        // The second element of a row is the first of our second row.
        let first = f32::from_le_bytes(dense.data()[..4].try_into().unwrap());
        let second = f32::from_le_bytes(dense.data()[4..8].try_into().unwrap());
        assert_eq!(second - first, 2.0);
        assert_eq!(decode(&bytes, &states, None).unwrap(), Imported { tensors, converted: BTreeMap::new() });
    }

    #[test]
    fn one_network_comes_back_without_its_name() {
        let (states, tensors) = (states(), counted(&states()));
        let bytes = encode(&names(&states, Some("net")), &tensors).unwrap();
        assert_eq!(decode(&bytes, &states, Some("net")).unwrap().tensors, tensors);
        let error = decode(&bytes, &states, None).unwrap_err();
        assert!(matches!(&error, ImportError::OneNetwork(of) if of[..] == ["net"]), "{error}");
        assert!(error.to_string().ends_with("say which by --network net"), "{error}");
        let error = decode(&bytes, &states, Some("ne")).unwrap_err().to_string();
        assert!(error.ends_with("no parameters of a network `ne`; it has those of net"), "{error}");
        let whole = encode(&names(&states, None), &tensors).unwrap();
        let error = decode(&whole, &states, Some("net")).unwrap_err().to_string();
        assert!(error.contains("`net.0.bias` is not in the network `net`"), "{error}");
    }

    #[test]
    fn all_that_does_not_fit_is_told_at_once() {
        let states = states();
        let data = [0u8; 8];
        let view = |dtype, shape: &[usize]| {
            let bytes = shape.iter().product::<usize>() * if dtype == Dtype::F16 { 2 } else { 4 };
            TensorView::new(dtype, shape.to_vec(), &data[..bytes]).unwrap()
        };
        let tensors = [
            ("net.5.bias", view(Dtype::F32, &[1])),
            ("net.5.weigth", view(Dtype::F32, &[1])),
            ("net.2.weight", view(Dtype::I32, &[1])),
            ("net.1.num_batches_tracked", view(Dtype::I32, &[])),
        ];
        let bytes = safetensors::serialize(tensors, None).unwrap();
        let error = decode(&bytes, &states, None).unwrap_err().to_string();
        for part in [
            "`net.5.bias` must be [2], and is [1]",
            "`net.5.weigth` is not in the program; did you mean `net.5.weight`?",
            "`net.2.weight` is I32: f32 was expected",
            "`net.0.bias` [3] is missing",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(!error.contains("num_batches") && !error.contains("`net.5.bias` [2] is missing"), "{error}");
        let cut = decode(&bytes[..bytes.len() - 1], &states, None).unwrap_err();
        assert!(matches!(cut, ImportError::File(_)), "{cut}");
    }
}
