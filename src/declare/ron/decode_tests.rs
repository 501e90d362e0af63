use super::super::parse;
use super::*;
use crate::declare::diagnostic::Diagnostics;

/// Decodes with `f` and draws what it reports.
fn reports(text: &str, f: impl FnOnce(&mut Decoder, &Node)) -> String {
    let node = parse(text).unwrap_or_else(|d| panic!("{:?}", Diagnostics::new("", text, d)));
    let mut d = Decoder::default();
    f(&mut d, &node);
    Diagnostics::new("test.ron", text, d.diags).render(100, false)
}

fn adam(d: &mut Decoder, node: &Node) -> Option<(f64, Option<f64>)> {
    let (_, mut args) = d.call(node, "an optimiser")?;
    let rate = args.required(d, "rate");
    let beta1 = args.optional("beta1");
    args.finish(d);
    let beta1 = beta1.and_then(|n| d.f64(n, "`beta1`"));
    Some((d.f64(rate?, "`rate`")?, beta1))
}

#[test]
fn arguments_are_read_by_name_and_by_position() {
    for (text, expected) in [
        ("Adam(rate: 0.5, beta1: 1)", (0.5, Some(1.0))),
        ("Adam(beta1: 1, rate: 0.5)", (0.5, Some(1.0))),
        ("Adam(0.5, 1)", (0.5, Some(1.0))),
        ("Adam(0.5)", (0.5, None)),
    ] {
        let mut d = Decoder::default();
        assert_eq!(adam(&mut d, &parse(text).unwrap()), Some(expected), "{text}");
        assert_eq!(d.diags, []);
    }
}

#[test]
fn a_misspelt_argument_is_one_error() {
    let node = parse("Adam(rat: 0.5)").unwrap();
    let mut d = Decoder::default();
    assert_eq!(adam(&mut d, &node), None);
    let codes: Vec<_> = d.diags.iter().map(|d| d.code).collect();
    assert_eq!(codes, ["unknown-field"]);
}

#[test]
fn an_argument_that_is_given_already_is_not_proposed() {
    let node = parse("Adam(rate: 0.5, rates: 1)").unwrap();
    let mut d = Decoder::default();
    adam(&mut d, &node);
    assert_eq!(d.diags.iter().map(|d| (d.code, d.help.as_deref())).collect::<Vec<_>>(), [("unknown-field", None)]);
}

#[test]
fn a_missing_argument_is_reported_besides_a_given_one_of_similar_name() {
    let node = parse("Pair(beta1: 1)").unwrap();
    let mut d = Decoder::default();
    let (_, mut args) = d.call(&node, "a pair").unwrap();
    assert!(args.required(&mut d, "beta1").is_some());
    assert!(args.required(&mut d, "beta2").is_none());
    args.finish(&mut d);
    let codes: Vec<_> = d.diags.iter().map(|d| d.code).collect();
    assert_eq!(codes, ["missing-field"]);
}

#[test]
fn wrong_arguments_are_shown() {
    let text =
        "[\n    Adam(rat: 1),\n    Adam(momentum: 0.9),\n    Adam,\n    Adam(1, 2, 3),\n    Adam(\"fast\"),\n    3,\n]";
    insta::assert_snapshot!(reports(text, |d, node| {
        for node in d.list(node, "the optimisers").unwrap() {
            adam(d, node);
        }
    }));
}

#[test]
fn wrong_values_are_shown() {
    let text = "(\n    bool: 1,\n    int: 1.5,\n    size: -1,\n    float: \"x\",\n    str: relu,\n    list: 3,\n    map: [],\n    option: 3,\n    mode: trainig,\n    units: batch,\n    fields: 5,\n)";
    insta::assert_snapshot!(reports(text, |d, node| {
        let mut args = d.fields(node, "the test").unwrap();
        let mut take = |name| args.optional(name).unwrap();
        assert_eq!(d.bool(take("bool"), "`bool`"), None);
        assert_eq!(d.int(take("int"), "`int`"), None);
        assert_eq!(d.usize(take("size"), "`size`"), None);
        assert_eq!(d.f64(take("float"), "`float`"), None);
        assert_eq!(d.str(take("str"), "`str`"), None);
        assert_eq!(d.list(take("list"), "`list`"), None);
        assert_eq!(d.named_map(take("map"), "`map`"), None);
        assert_eq!(d.option(take("option"), "`option`"), None);
        let modes = [("training", 0), ("inference", 1)];
        assert_eq!(d.choice(take("mode"), "`mode`", &modes), None);
        assert_eq!(d.usize_or_name(take("units"), "`units`"), None);
        assert!(d.fields(take("fields"), "`fields`").is_none());
        args.finish(d);
    }));
}

#[test]
fn right_values_are_read() {
    let node = parse(
        "(b: true, i: -3, n: 7, f: 2, s: \"x\", l: [1], t: (1, 2), m: {\"k\": 1}, o: Some(1), \
         none: None, c: training, q: \"inference\", u: \"batch\", v: 5, e: ())",
    )
    .unwrap();
    let mut d = Decoder::default();
    let mut args = d.fields(&node, "the test").unwrap();
    assert_eq!(args.len(), 15);
    let mut take = |name| args.optional(name).unwrap();
    assert_eq!(d.bool(take("b"), ""), Some(true));
    assert_eq!(d.int(take("i"), ""), Some(-3));
    assert_eq!(d.usize(take("n"), ""), Some(7));
    assert_eq!(d.f64(take("f"), ""), Some(2.0));
    assert_eq!(d.str(take("s"), ""), Some("x"));
    assert_eq!(d.list(take("l"), "").map(<[Node]>::len), Some(1));
    assert_eq!(d.list(take("t"), "").map(<[Node]>::len), Some(2));
    assert_eq!(d.named_map(take("m"), "").unwrap()[0].0.text, "k");
    assert!(d.option(take("o"), "").unwrap().is_some());
    assert!(d.option(take("none"), "").unwrap().is_none());
    let modes = [("training", 0), ("inference", 1)];
    assert_eq!(d.choice(take("c"), "", &modes), Some(0));
    assert_eq!(d.choice(take("q"), "", &modes), Some(1));
    let name = d.usize_or_name(take("u"), "");
    assert!(matches!(name, Some(OrName::Name { text: "batch", .. })));
    assert_eq!(d.usize_or_name(take("v"), ""), Some(OrName::Value(5)));
    assert_eq!(d.f64_or_name(take("v"), ""), Some(OrName::Value(5.0)));
    assert!(d.fields(take("e"), "").unwrap().is_empty());
    args.finish(&mut d);
    assert_eq!(d.diags, []);
}
