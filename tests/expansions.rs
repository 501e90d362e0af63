//! Every operation and layer of the graph language: its example is differentiated, and the gradient compared with
//! central differences of the reference interpreter in f64.

use gcc_gan::declare::load;
use gcc_gan::declare::vocabulary::vocabulary;
use gcc_gan::replay::{Replay, Tensors};

type Value = gcc_gan::ir::Value<f64>;

/// What examples take, and some values: distinct, so that no two are the largest, none near 0, none on a jump or a
/// kink.
fn given() -> Tensors {
    let number = |at: f64| (at * 0.754_877_666).fract() * 1.7 - 0.85;
    let away = |x: f64| x + 0.2f64.copysign(x);
    let numbers =
        |count: usize, start: f64| -> Vec<f64> { (0..count).map(|i| away(number(i as f64 + start))).collect() };
    [
        ("x", Value::real([4, 6], numbers(24, 0.4))),
        ("y", Value::real([4, 6], numbers(24, 40.7))),
        ("images", Value::real([4, 1, 8, 8], numbers(256, 7.3))),
        ("labels", Value::u32([4], vec![2, 0, 3, 1])),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .into()
}

/// A program that gives a number that depends on the example, and its gradients in what the example takes.
fn program(example: &str, of: &[&str]) -> String {
    let gradients: Vec<String> = of.iter().map(|x| format!("Let(\"by_{x}\", Gradient(\"loss\", \"{x}\"))")).collect();
    let names: Vec<String> = of.iter().map(|x| format!("\"by_{x}\"")).collect();
    format!(
        r#"Program(
    name: "examples",
    entries: {{
        "step": Entry(
            inputs: {{
                "x": Tensor([4, 6]), "y": Tensor([4, 6]), "images": Tensor([4, 1, 8, 8]), "labels": Labels([4])
            }},
            steps: [
                Let("result", {example}), Let("loss", Sum(Sin(Add("result", 0.3)))), {}
            ],
            outputs: ["loss", {}],
        ),
    }},
)"#,
        gradients.join(", "),
        names.join(", ")
    )
}

fn run(text: &str, given: &Tensors) -> Tensors {
    let module = load("example.ron", text, &[], &[]).unwrap_or_else(|error| panic!("{text}\n{error:?}"));
    let needed = gcc_gan::replay::names(&module, Some("step"));
    let given = given.iter().filter(|(name, _)| needed.iter().any(|n| n.name == **name));
    let given = given.map(|(name, value)| (name.clone(), value.clone())).collect();
    Replay::new(&module, "step", given, 1, 0).unwrap().run_reference().unwrap()
}

/// Compares the gradients of an example with differences; gives how many elements were not 0, or where they differ. Where
/// it is defined for other numbers only, as a logarithm is, those of more than 1 are taken.
fn check(example: &str) -> Result<usize, String> {
    match check_of(example, &given()) {
        Err(problem) if problem.contains("NaN") => {
            let mut above = given();
            for name in ["x", "y", "images"] {
                let value = above.get_mut(name).unwrap();
                let moved = value.to_f64().into_iter().map(|x| 1.1 + x.abs()).collect();
                *value = Value::real(value.shape.clone(), moved);
            }
            check_of(example, &above)
        }
        checked => checked,
    }
}

fn check_of(example: &str, given: &Tensors) -> Result<usize, String> {
    // These depend on shapes alone.
    let is_constant = ["EyeLike", "Shape", "Size"].iter().any(|word| example.starts_with(word));
    let taken = |x: &&str| !is_constant && example.contains(&format!("\"{x}\""));
    let of: Vec<&str> = ["x", "y", "images"].into_iter().filter(taken).collect();
    let text = program(example, &of);
    let (step, mut moved) = (1e-6, 0);
    let found = run(&text, given);
    for name in of {
        let gradient = found[&format!("by_{name}")].to_f64();
        let values = given[name].to_f64();
        // Some elements of images stand for all, with some of those that count.
        let counted = (0..values.len()).filter(|&at| gradient[at] != 0.0).take(8);
        let some = (0..values.len()).step_by(if values.len() > 24 { 37 } else { 1 });
        for at in some.chain(counted) {
            let loss = |by: f64| {
                let (mut changed, mut moved) = (given.clone(), values.clone());
                moved[at] += by;
                changed.insert(name.to_string(), Value::real(given[name].shape.clone(), moved));
                run(&text, &changed)["loss"].to_f64()[0]
            };
            let difference = (loss(step) - loss(-step)) / (2.0 * step);
            let near = (difference - gradient[at]).abs() <= 1e-5 * (1.0 + difference.abs());
            if !near {
                return Err(format!("{example}: by {name}[{at}] {} instead of {difference}", gradient[at]));
            }
            moved += usize::from(gradient[at] != 0.0);
        }
    }
    Ok(moved)
}

/// A root has no derivative at 0, but the norm of zeros must not spoil a gradient.
#[test]
fn norms_of_zeros_have_a_gradient_of_zero() {
    for (example, of) in [("ReduceL2(\"x\", [1])", "x"), ("LpPool(x: \"images\", size: 2)", "images")] {
        let mut zeros = given();
        let shape = zeros[of].shape.clone();
        zeros.insert(of.into(), Value::real(shape.clone(), vec![0.0; shape.iter().product()]));
        let found = run(&program(example, &[of]), &zeros);
        assert!(found[&format!("by_{of}")].to_f64().iter().all(|x| *x == 0.0), "{example}");
        assert!(found["loss"].to_f64()[0].is_finite());
    }
}

/// Numbers between -1 and 1 in a shape, none near 0.
fn numbers(shape: &[usize], start: f64) -> Value {
    let count: usize = shape.iter().product();
    let number = |at: f64| (at * 0.618_033_988).fract() * 1.7 - 0.85;
    let values = (0..count).map(|i| number(i as f64 + start)).map(|x| x + 0.15f64.copysign(x)).collect();
    Value::real(shape.to_vec(), values)
}

/// The value of an expression of tensors.
fn evaluate(expression: &str, given: &[(&str, Value)]) -> Value {
    let inputs: Vec<String> = given.iter().map(|(name, v)| format!("\"{name}\": Tensor({:?})", v.shape)).collect();
    let text = format!(
        "Program(name: \"one\", entries: {{ \"step\": Entry(inputs: {{ {} }}, steps: [Let(\"result\", {expression})], \
         outputs: [\"result\"]) }})",
        inputs.join(", ")
    );
    let given = given.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    run(&text, &given)["result"].clone()
}

/// All indices below the sizes of a shape, the last one fastest.
fn indices(shape: &[usize]) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for &size in shape {
        all = all.iter().flat_map(|index| (0..size).map(move |i| [&index[..], &[i]].concat())).collect();
    }
    all
}

fn at(value: &Value, index: &[usize]) -> f64 {
    let place = index.iter().zip(&value.shape).fold(0, |place, (i, size)| place * size + i);
    value.to_f64()[place]
}

/// How a convolution is spaced: stride, padding before and after, dilation, for each dimension, and groups.
struct Spaced {
    stride: Vec<usize>,
    low: Vec<usize>,
    high: Vec<usize>,
    dilation: Vec<usize>,
    groups: usize,
}

/// A convolution as its sum is defined, element by element.
fn convolution(x: &Value, w: &Value, spaced: &Spaced) -> Value {
    let d = x.shape.len() - 2;
    let reach = |i: usize| (w.shape[2 + i] - 1) * spaced.dilation[i] + 1;
    let out: Vec<usize> =
        (0..d).map(|i| (x.shape[2 + i] + spaced.low[i] + spaced.high[i] - reach(i)) / spaced.stride[i] + 1).collect();
    let shape = [&[x.shape[0], w.shape[0]], &out[..]].concat();
    let (inside, outside) = (w.shape[1], w.shape[0] / spaced.groups);
    let value = |index: &Vec<usize>| -> f64 {
        let group = index[1] / outside;
        let term = |tap: Vec<usize>| {
            let mut from = vec![index[0], group * inside + tap[0]];
            for i in 0..d {
                let place = index[2 + i] * spaced.stride[i] + tap[1 + i] * spaced.dilation[i];
                match place.checked_sub(spaced.low[i]) {
                    Some(place) if place < x.shape[2 + i] => from.push(place),
                    _ => return 0.0,
                }
            }
            at(x, &from) * at(w, &[&[index[1]], &tap[..]].concat())
        };
        indices(&w.shape[1..]).into_iter().map(term).sum()
    };
    Value::real(shape.clone(), indices(&shape).iter().map(value).collect())
}

fn agree(found: &Value, expected: &Value, what: &str) {
    assert_eq!(found.shape, expected.shape, "{what}");
    for (i, (a, b)) in found.to_f64().iter().zip(expected.to_f64()).enumerate() {
        assert!((a - b).abs() < 1e-9, "{what}: element {i} is {a}, not {b}");
    }
}

/// Shapes of images and filters, strides, padding (before, after), dilation, groups.
type Case = (&'static [usize], &'static [usize], &'static [usize], [&'static [usize]; 2], &'static [usize], usize);

const CONVOLUTIONS: &[Case] = &[
    (&[2, 3, 7, 6], &[4, 3, 3, 2], &[2, 1], [&[1, 0], &[1, 0]], &[1, 1], 1),
    (&[2, 4, 7, 6], &[6, 2, 3, 2], &[1, 2], [&[0, 2], &[1, 0]], &[2, 1], 2),
    (&[1, 4, 9, 9], &[4, 1, 3, 3], &[2, 2], [&[2, 2], &[2, 2]], &[2, 3], 4),
    (&[2, 3, 6, 5], &[6, 1, 2, 3], &[1, 1], [&[0, 1], &[1, 1]], &[1, 1], 3),
    (&[2, 4, 11], &[6, 2, 3], &[2], [&[1], &[2]], &[2], 2),
    (&[2, 2, 5, 6, 4], &[3, 2, 2, 3, 2], &[2, 1, 1], [&[1, 0, 1], &[0, 2, 0]], &[2, 1, 2], 1),
    (&[1, 4, 4, 5, 6], &[4, 2, 3, 2, 2], &[1, 2, 1], [&[1, 1, 0], &[1, 1, 0]], &[1, 1, 1], 2),
];

#[test]
fn convolutions_are_the_sums_that_define_them_and_their_transposes_their_gradients() {
    for (x, w, stride, [low, high], dilation, groups) in CONVOLUTIONS {
        let (image, filter) = (numbers(x, 0.3), numbers(w, 5.9));
        let spaced = Spaced {
            stride: stride.to_vec(),
            low: low.to_vec(),
            high: high.to_vec(),
            dilation: dilation.to_vec(),
            groups: *groups,
        };
        let pad = [*low, *high].concat();
        let how = format!("stride: {stride:?}, pad: {pad:?}, dilation: {dilation:?}, groups: {groups}");
        let said = format!("Conv(x: \"x\", weight: \"w\", {how})");
        let expected = convolution(&image, &filter, &spaced);
        agree(&evaluate(&said, &[("x", image.clone()), ("w", filter.clone())]), &expected, &said);
        // The elements at the end of an image that no window reaches.
        let rest: Vec<usize> = (0..stride.len())
            .map(|i| (x[2 + i] + low[i] + high[i] - (w[2 + i] - 1) * dilation[i] - 1) % stride[i])
            .collect();
        let y = numbers(&expected.shape, 2.2);
        let gradient = format!("Gradient(Sum(Mul({said}, \"y\")), \"x\")");
        let transposed = format!("ConvTranspose(x: \"y\", weight: \"w\", {how}, output_padding: {rest:?})");
        let by_gradient = evaluate(&gradient, &[("x", image), ("w", filter.clone()), ("y", y.clone())]);
        agree(&evaluate(&transposed, &[("w", filter), ("y", y)]), &by_gradient, &transposed);
    }
}

#[test]
fn a_same_padding_leaves_the_size_divided_by_the_stride() {
    for (size, stride) in [(7, 2), (8, 2), (8, 3), (5, 1)] {
        let x = numbers(&[1, 1, size, size], 0.1);
        for (pad, odd_first) in [("Same", false), ("SameLower", true)] {
            let said = format!("Conv(x: \"x\", weight: \"w\", stride: {stride}, pad: {pad})");
            let w = numbers(&[1, 1, 4, 4], 0.7);
            let found = evaluate(&said, &[("x", x.clone()), ("w", w.clone())]);
            let total = (size.div_ceil(stride) - 1) * stride + 4 - size;
            let low = if odd_first { total.div_ceil(2) } else { total / 2 };
            let spaced = Spaced {
                stride: vec![stride; 2],
                low: vec![low; 2],
                high: vec![total - low; 2],
                dilation: vec![1; 2],
                groups: 1,
            };
            assert_eq!(found.shape[2], size.div_ceil(stride), "{said} of {size}");
            agree(&found, &convolution(&x, &w, &spaced), &said);
        }
    }
}

/// Between the centres of pixels lines are drawn: a ramp stays one but for the edges.
#[test]
fn upsampling_repeats_pixels_or_draws_lines_between_them() {
    let x = Value::real([1, 1, 3], vec![0.0, 3.0, 6.0]);
    let of = |said: &str| evaluate(said, &[("x", x.clone())]).to_f64();
    assert_eq!(of("Upsample(\"x\", 2)"), [0.0, 0.0, 3.0, 3.0, 6.0, 6.0]);
    let lines = of("Upsample(\"x\", 3, Linear)");
    let expected = [0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.0];
    assert!(lines.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{lines:?}");
    assert!(of("Resize(\"x\", [9], Linear)").iter().zip(lines).all(|(a, b)| (a - b).abs() < 1e-9));
}

#[test]
fn the_gradient_of_every_layer_agrees_with_differences() {
    let (mut checked, mut wrong) = (0, Vec::new());
    let layers = vocabulary().into_iter().find(|group| group.title == "layers").expect("layers are a group");
    for word in &layers.words {
        // Class numbers and rounding have no derivative.
        if ["Embedding", "RoundBf16", "RoundTf32", "Acosh"].contains(&word.name.as_str()) {
            continue;
        }
        let front = if word.name == "Dense" { "Flatten(), " } else { "" };
        let text = format!(
            r#"Program(name: "layer", networks: {{ "net": Network(input: [2, 6, 4], layers: [{front}{}]) }}, entries: {{
    "step": Entry(
        inputs: {{ "x": Tensor([3, 2, 6, 4]) }},
        steps: [
            Let("result", Call("net", "x", Training)), Let("loss", Sum(Sin(Add("result", 0.3)))),
            Let("by_x", Gradient("loss", "x")),
        ],
        outputs: ["loss", "by_x"],
    )
}})"#,
            word.example
        );
        let mut values = numbers(&[3, 2, 6, 4], 0.17).to_f64();
        if ["Log", "Rsqrt", "Sqrt"].contains(&word.name.as_str()) {
            values.iter_mut().for_each(|x| *x = 1.1 + x.abs());
        }
        let given = |values: Vec<f64>| Tensors::from([("x".to_string(), Value::real([3, 2, 6, 4], values))]);
        let gradient = run(&text, &given(values.clone()))["by_x"].to_f64();
        for at in (0..values.len()).step_by(11) {
            let loss = |by: f64| {
                let mut moved = values.clone();
                moved[at] += by;
                run(&text, &given(moved))["loss"].to_f64()[0]
            };
            let difference = (loss(1e-6) - loss(-1e-6)) / 2e-6;
            let near = (difference - gradient[at]).abs() <= 1e-5 * (1.0 + difference.abs());
            if !near {
                wrong.push(format!("{}: [{at}] {} instead of {difference}", word.example, gradient[at]));
            }
        }
        checked += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 50, "{checked}");
}

#[test]
fn an_embedding_gives_the_row_of_each_class_and_learns_it_alone() {
    let text = r#"Program(name: "embedding", networks: { "net": Network(input: [], layers: [Embedding(5, 3)]) },
    entries: {
    "step": Entry(
        inputs: { "labels": Labels([4]) },
        steps: [
            Let("result", Call("net", ToReal("labels"), Training)), Let("loss", Sum("result")),
            Minimise("loss", "net", Sgd(1.0)),
        ],
        outputs: ["result"],
    )
})"#;
    let table = numbers(&[5, 3], 0.9);
    let labels = [4, 1, 4, 0];
    let given = [
        ("labels".to_string(), Value::u32([4], labels.to_vec())),
        ("net/0-embedding/weight".to_string(), table.clone()),
    ];
    let given = given.into();
    let found = run(text, &given);
    // Labels are taken as they are, too.
    assert_eq!(run(&text.replace("ToReal(\"labels\")", "\"labels\""), &given), found);
    let rows: Vec<f64> =
        labels.iter().flat_map(|&l| (0..3).map(move |i| (l as usize, i))).map(|(l, i)| at(&table, &[l, i])).collect();
    assert_eq!(found["result"].to_f64(), rows);
    // Each use of a row takes the learning rate away from it.
    let uses = [1.0, 1.0, 0.0, 0.0, 2.0];
    let expected: Vec<f64> = table.to_f64().iter().enumerate().map(|(i, v)| v - uses[i / 3]).collect();
    agree(&found["net/0-embedding/weight"], &Value::real([5, 3], expected), "the table");
}

#[test]
fn einstein_sums_are_products_and_diagonals() {
    let given = || [("x", numbers(&[2, 3, 4], 0.4)), ("y", numbers(&[2, 4, 5], 1.4)), ("z", numbers(&[3, 3], 2.4))];
    for (sum, same) in [
        (r#"Einsum("bij,bjk->bik", ["x", "y"])"#, r#"MatMul("x", "y")"#),
        (r#"Einsum("...ij,...jk->...ki", ["x", "y"])"#, r#"Transpose(MatMul("x", "y"), [0, 2, 1])"#),
        (r#"Einsum("bij->ji", ["x"])"#, r#"Transpose(Sum("x", [0], false))"#),
        (
            r#"Einsum("bij,bjk,il->lk", ["x", "y", "z"])"#,
            r#"Sum(MatMul(MatMul(Transpose("z"), "x"), "y"), [0], false)"#,
        ),
        (r#"Einsum("ii->i", ["z"])"#, r#"Sum(Mul("z", Eye(3, 3)), [1], false)"#),
        (r#"Einsum("ii", ["z"])"#, r#"Sum(Mul("z", Eye(3, 3)))"#),
    ] {
        let taken = |said: &str| {
            given().into_iter().filter(|(name, _)| said.contains(&format!("\"{name}\""))).collect::<Vec<_>>()
        };
        agree(&evaluate(sum, &taken(sum)), &evaluate(same, &taken(same)), sum);
    }
}

#[test]
fn words_for_what_is_left_out_can_be_written() {
    let x = numbers(&[1, 1, 4, 6], 0.4);
    for (short, long) in [
        ("Sum(\"x\")", "Sum(\"x\", all)"),
        ("Transpose(\"x\")", "Transpose(\"x\", reversed)"),
        ("MaxPool(\"x\", 2)", "MaxPool(\"x\", 2, size)"),
        ("Clip(\"x\", 0.1)", "Clip(\"x\", 0.1, None)"),
        ("Slice(\"x\", [0, 0, 1], [1, 1, 3])", "Slice(\"x\", [0, 0, 1], [Sub(2, 1), 1, -1], all, 1)"),
    ] {
        let of = |said: &str| evaluate(said, &[("x", x.clone())]);
        agree(&of(long), &of(short), long);
    }
}

/// What is wrong is told, never panicked on: `x` is f32[1,3,6,6], `v` f32[3].
#[test]
fn arguments_that_do_not_fit_are_told() {
    for said in [
        r#"ConvTranspose("x", 1)"#,
        r#"ConvTranspose("x", "x", 0, [1, 1, 1])"#,
        r#"Conv("v", "v")"#,
        r#"Conv("x", Normal([3, 3, 3, 3]), 0, 1, [1, 2, 3])"#,
        r#"Conv("x", Normal([3, 3, 3, 3]), 0, 1, Sme)"#,
        r#"Conv("x", Normal([3, 3, 3, 3]), 0, 1, 0, 30000)"#,
        r#"Conv(x: "x", weight: Normal([3, 1, 9, 9]), groups: 3)"#,
        r#"Conv(x: "x", weight: Normal([3, 1, 3, 3]), groups: 2)"#,
        r#"MaxPool("x", [1, 2, 3])"#,
        r#"MaxPool("x", 1, 1, 5)"#,
        r#"AveragePool("x", 7)"#,
        r#"Gather(1, "v")"#,
        r#"GatherND("x", "v", 5)"#,
        r#"ScatterND("x", 1, 1)"#,
        r#"ScatterND("x", "v", 1)"#,
        r#"ScatterElements("x", "v", "v")"#,
        r#"MatMul(1, "x")"#,
        r#"MatMul("x", "v")"#,
        r#"Gemm("x", "x")"#,
        r#"Softmax(1)"#,
        r#"Sum(1, [0])"#,
        r#"Unsqueeze("x", [0, 0])"#,
        r#"Squeeze("x", [1])"#,
        r#"Tile("x", [99999, 99999, 99999, 99999])"#,
        r#"Slice("x", [0], [9, 9])"#,
        r#"Slice("x", [0], [1], [0], [0])"#,
        r#"Slice("x", -9223372036854775808, 9223372036854775807, [0], -9223372036854775808)"#,
        r#"Split("x", [1, 1], 0, 1)"#,
        r#"Chunk("x", 2147483647, 0, 0)"#,
        r#"Concat([], 0)"#,
        r#"Pad("x", [1])"#,
        r#"Pad("x", [-9223372036854775808, 0, 0, 0, 0, 0, 0, 0])"#,
        r#"Pad("x", [0, 0, 0, 9, 0, 0, 0, 0], Reflect)"#,
        r#"DepthToSpace("x", 5)"#,
        r#"OneHot("v", 2147483647)"#,
        r#"Range(0, 1, 0)"#,
        r#"Eye(99999, 99999)"#,
        r#"Upsample("x", 30000, Linear)"#,
        r#"Resize("x")"#,
        r#"Resize("x", [5], Linear, HalfPixel, Floor, [0.0])"#,
        r#"BatchNormalization("x", 1, 1, 1)"#,
        r#"GroupNormalization("x", 1, 0, 2)"#,
        r#"NegativeLogLikelihoodLoss("x", "v")"#,
        r#"MeanOf([])"#,
        r#"Einsum("ij,jk", ["x"])"#,
        r#"Einsum("abbc", ["x"])"#,
        r#"Einsum("abcd->abe", ["x"])"#,
        r#"Einsum("ab1d", ["x"])"#,
        r#"Einsum("abcd,b->aa", ["x", "v"])"#,
        r#"Einsum("abcd,c->a", ["x", "v"])"#,
        r#"LpNormalization("x", 0, 3)"#,
        r#"Slice("x", [0, 0], [6, 2], [2, 2], [2, 1])"#,
        r#"Pad("x", [1, 1, 1, 1], Constant, 0.0, [2, -2])"#,
        r#"Sum("x", [1, 1])"#,
        r#"Resize("x", [5], Linear, HalfPixel, Floor, [1e-20])"#,
        r#"Resize("x", [1], Linear, AlignCorners, Floor, [1e-9], [3], true)"#,
        r#"OneHot(1, 20000000)"#,
        r#"Range(0, 1000000000000)"#,
        r#"Reshape("x", [-1, -1])"#,
        r#"Reshape("x", [7, -1])"#,
        r#"Reshape("x", [9223372036854775807, 9223372036854775807])"#,
        r#"Broadcast("x", [Div(1, 0)])"#,
        r#"Broadcast("x", [Sub(1, 2)])"#,
        r#"Broadcast("x", [Div(-9223372036854775808, -1)])"#,
    ] {
        let text = format!(
            "Program(name: \"wrong\", entries: {{ \"step\": Entry(inputs: {{ \"x\": Tensor([1, 3, 6, 6]), \"v\": Tensor([3]) }}, \
             steps: [Let(\"r\", {said})], outputs: [\"r\", \"x\", \"v\"]) }})"
        );
        let error = load("wrong.ron", &text, &[], &[]).expect_err(said);
        let told = error.diagnostics().expect("the text is wrong");
        assert!(told.entries().iter().all(|d| !d.labels.is_empty()), "{said}: {told}");
    }
}

/// Words whose result does not change a little when what they take does.
const FLAT: &[&str] = &[
    "And",
    "ArgMax",
    "ArgMin",
    "ConstantOfShape",
    "Eq",
    "Eye",
    "EyeLike",
    "Ge",
    "Gt",
    "Hardmax",
    "Iota",
    "IsInf",
    "IsNaN",
    "Le",
    "Lt",
    "Not",
    "OneHot",
    "Or",
    "Range",
    "Shape",
    "Sign",
    "Size",
    "Xor",
    "Floor",
    "Ceil",
    "Round",
    "Detach",
    "RoundBf16",
    "RoundTf32",
    "ToReal",
    "AddU32",
];

#[test]
fn the_gradient_of_every_operation_agrees_with_differences() {
    let (mut checked, mut wrong) = (0, Vec::new());
    for group in vocabulary() {
        // What does not stand in expressions, or depends on nothing that is given.
        let others = ["layers", "weights", "draws", "gradients", "schedules", "optimisers", "steps", "inputs"];
        if others.contains(&group.title) {
            continue;
        }
        for word in &group.words {
            // Networks have layers, which are checked by what they expand to; rounding and labels have no derivative;
            // draws are others in each run of a program, and a bf16 cannot be compared.
            if ["Call", "Convert", "RoundBf16", "RoundTf32", "AddU32", "ToReal"].contains(&word.name.as_str()) {
                continue;
            }
            checked += 1;
            match check(&word.example) {
                Ok(0) if !FLAT.contains(&word.name.as_str()) => wrong.push(format!("{} has no gradient", word.example)),
                Ok(_) => {}
                Err(problem) => wrong.push(problem),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 100, "{checked}");
}
