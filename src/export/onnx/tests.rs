use super::proto::{Model, Size};
use super::*;
use crate::ir::evaluate;
use crate::ir::{Bindings, Value};

const PROGRAM: &str = r#"Program(
    name: "small",
    sizes: {"batch": 4, "samples": 6},
    networks: {
        "net": Network(input: [2, 4, 4], layers: [
            Conv(channels: 3, kernel: 3, pad: 1),
            Relu(),
            ConvTranspose(channels: 1, kernel: 3, stride: 2, pad: 1, output_padding: 1),
            Flatten(),
            Dense(units: 2),
        ]),
    },
    entries: {
        "train_step": Entry(
            inputs: {"x": Tensor(["batch", 2, 4, 4])},
            steps: [
                Let("y", Call("net", "x", Training)),
                Let("loss", Mean(Mul("y", "y"))),
                Minimise("loss", "net", Sgd(lr: 0.1)),
            ],
            outputs: ["loss"],
        ),
        "sample": Entry(
            inputs: {"x": Tensor(["samples", 2, 4, 4], "what it is made from")},
            steps: [
                Let("noise", Normal(["samples", 2, 4, 4])),
                Let("y", Call("net", Add("x", "noise"), Inference)),
                Let("mean", Mean("y")),
            ],
            outputs: ["y", "mean"],
        ),
    },
)"#;

/// The program's state as its `init` makes it.
fn weights() -> BTreeMap<String, Tensor> {
    let module = declare::load("small", PROGRAM, &[], &[]).unwrap();
    let init = module.entries.iter().find(|e| e.graph.name == "init").unwrap();
    let seed: Bindings<f32> = init.inputs.iter().map(|i| (i.name.clone(), Value::u32([2], vec![1, 2]))).collect();
    let states = evaluate(&init.graph, &seed).unwrap().updates;
    let of = |name: &str| module.states.iter().find(|s| s.name == name).unwrap().ty.dtype;
    states.into_iter().map(|(name, value)| (name.clone(), value.to_tensor(of(&name)))).collect()
}

fn exported(callee: Callee) -> Result<Exported, ExportError> {
    let facts = Facts { opset: 20, step: 7, properties: vec![("program".into(), "small".into())] };
    export(Program { name: "small", text: PROGRAM, sets: &[] }, callee, &weights(), &facts)
}

fn text(model: &Model) -> String {
    let graph = model.graph.as_ref().unwrap();
    let size = |size: Option<Size>| match size {
        Some(Size::Value(value)) => value.to_string(),
        Some(Size::Name(name)) => name,
        None => "?".into(),
    };
    let info = |kind: &str, info: &proto::ValueInfo| {
        let ty = info.ty.clone().and_then(|ty| ty.tensor_type).unwrap_or_default();
        let sizes: Vec<String> = ty.shape.unwrap_or_default().dim.into_iter().map(|d| size(d.size)).collect();
        format!("{kind} {}: {}[{}] {}\n", info.name, ty.elem_type.unwrap_or(0), sizes.join(","), info.doc_string)
    };
    let mut text: String = graph.input.iter().map(|i| info("input", i)).collect();
    for constant in &graph.initializer {
        text += &format!("constant {}: {:?}\n", constant.name, constant.dims);
    }
    for node in &graph.node {
        let said: Vec<String> = (node.attribute.iter())
            .map(|a| format!(" {}={}", a.name, a.i.map_or(format!("{:?}", a.ints), |i| i.to_string())))
            .collect();
        let (op, inputs) = (&node.op_type, node.input.join(", "));
        text += &format!("{} = {op}({inputs}){}  # {}\n", node.output.join(", "), said.concat(), node.doc_string);
    }
    text + &graph.output.iter().map(|o| info("output", o)).collect::<String>()
}

#[test]
fn an_entry_becomes_the_operations_that_it_declares() {
    let exported = exported(Callee::Entry("sample")).unwrap();
    assert_eq!(exported.fixed, None);
    let model = exported.model;
    assert_eq!((model.model_version, model.opset_import[0].version), (Some(7), Some(20)));
    insta::assert_snapshot!(text(&model));
    // Protobuf's own reader finds the same.
    assert_eq!(Model::decode(encode(&model).as_slice()).unwrap(), model);
}

#[test]
fn a_network_takes_any_number_of_examples() {
    let exported = exported(Callee::Network("net")).unwrap();
    assert_eq!(exported.fixed, None);
    let text = text(&exported.model);
    assert!(text.contains("input input: 1[N,2,4,4]") && text.contains("output output: 1[N,2]"), "{text}");
}

#[test]
fn what_cannot_be_said_is_refused_at_its_place() {
    let refusal = |callee| exported(callee).unwrap_err();
    let ExportError::Declare(declare::Error::Text(diagnostics)) = refusal(Callee::Entry("train_step")) else {
        panic!("training is no function")
    };
    let shown = diagnostics.render(100, false);
    assert!(shown.contains("Minimise") && shown.contains("an ONNX model has none"), "{shown}");
    let unknown = refusal(Callee::Entry("evaluate")).to_string();
    assert_eq!(unknown, "there is no entry `evaluate`; the program has init, train_step, sample");
    let unknown = refusal(Callee::Network("nut")).to_string();
    assert_eq!(unknown, "there is no network `nut`; the program has net");
}

#[test]
fn weights_of_another_shape_are_refused() {
    let mut other = weights();
    other.insert("net/0-conv/weight".into(), Tensor::new([1], &[0.0f32]));
    let program = Program { name: "small", text: PROGRAM, sets: &[] };
    let error = export(program, Callee::Entry("sample"), &other, &Facts::default()).unwrap_err();
    assert!(error.to_string().contains("does not fit"), "{error}");
}

#[test]
fn sizes_that_have_no_name_stay_as_they_are() {
    let text = PROGRAM.replace("\"samples\", 2, 4, 4", "6, 2, 4, 4");
    let program = Program { name: "small", text: &text, sets: &[] };
    let exported = export(program, Callee::Entry("sample"), &weights(), &Facts::default()).unwrap();
    assert!(exported.fixed.is_some_and(|why| why.contains("has no name")));
}
