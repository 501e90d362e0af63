//! The reader against the `ron` crate, on texts of the grammar, random values and random damage;
//! and what each kind of syntax error looks like.

use proptest::prelude::*;
use ron::ser::PrettyConfig;
use ron::value::{F64, Map, Number, Value as Ron};

use super::value::MAX_ERRORS;
use super::*;
use crate::declare::diagnostic::Diagnostics;

/// A tree as the `ron` crate gives it: names of structs dropped, fields as keys of a map.
fn to_ron(node: &Node) -> Ron {
    match &node.value {
        Value::Bool(x) => Ron::Bool(*x),
        Value::Int(x) => Ron::Number(Number::I64(*x)),
        Value::Float(x) => Ron::Number(Number::F64(F64(*x))),
        Value::Str(x) => Ron::String(x.clone()),
        Value::Char(x) => Ron::Char(*x),
        Value::List(items) => Ron::Seq(items.iter().map(to_ron).collect()),
        Value::Map(entries) => {
            let entries = entries.iter().map(|(k, v)| (to_ron(k), to_ron(v)));
            Ron::Map(entries.collect::<Map>())
        }
        Value::Struct { fields, .. } => {
            let fields = fields.iter().map(|(k, v)| (Ron::String(k.text.clone()), to_ron(v)));
            Ron::Map(fields.collect::<Map>())
        }
        Value::Tuple { name, items } => match name {
            Some(name) if name.text == "Some" => Ron::Option(Some(Box::new(to_ron(&items[0])))),
            _ => Ron::Seq(items.iter().map(to_ron).collect()),
        },
        Value::Unit { name } => match name {
            Some(name) if name.text == "None" => Ron::Option(None),
            _ => Ron::Unit,
        },
    }
}

/// One width for every number: the `ron` crate picks the smallest type that holds it.
fn normal(value: Ron) -> Ron {
    match value {
        Ron::Number(n) => {
            let int = match n {
                Number::I8(x) => Some(i64::from(x)),
                Number::I16(x) => Some(i64::from(x)),
                Number::I32(x) => Some(i64::from(x)),
                Number::I64(x) => Some(x),
                Number::U8(x) => Some(i64::from(x)),
                Number::U16(x) => Some(i64::from(x)),
                Number::U32(x) => Some(i64::from(x)),
                Number::U64(x) => i64::try_from(x).ok(),
                _ => None,
            };
            match int {
                Some(x) => Ron::Number(Number::I64(x)),
                None => {
                    let x = n.into_f64();
                    Ron::Number(Number::F64(F64(if x.is_nan() { f64::NAN } else { x })))
                }
            }
        }
        Ron::Option(inner) => Ron::Option(inner.map(|x| Box::new(normal(*x)))),
        Ron::Seq(items) => Ron::Seq(items.into_iter().map(normal).collect()),
        Ron::Map(map) => Ron::Map(map.into_iter().map(|(k, v)| (normal(k), normal(v))).collect()),
        // `()` is a unit and `( )` an empty sequence to the `ron` crate; to us they are the same.
        Ron::Unit => Ron::Seq(Vec::new()),
        other => other,
    }
}

fn errors(text: &str) -> String {
    let diags = parse(text).expect_err("the text is wrong");
    Diagnostics::new("test.ron", text, diags).render(100, false)
}

fn codes(text: &str) -> Vec<&'static str> {
    let diags = parse(text).expect_err("the text is wrong");
    let sorted = Diagnostics::new("test.ron", text, diags);
    sorted.entries().iter().map(|d| d.code).collect()
}

/// A text with most of the grammar in it.
const SAMPLE: &str = r###"
#![enable(implicit_some, unwrap_newtypes,)]
// a comment /* that is no block
/* a block /* in a block */ */
Program(
    sizes: { "batch": 128, "latent": 0x12c, "rate": 2e-4, 'k': -1_000, },
    nets: [
        Net(name: "G", layers: [Dense(12544), BatchNorm, Relu(), Dropout(p: .25,),]),
        Net(name: r#"D "raw""#, layers: [(1, 2.5), (), ((3,),)],),
    ],
    r#odd-name: Some(None), text: "tab\t quote\" \u{e9}\x41\xE2\x82\xAC line \
        goes on", numbers: (0b101, 0o17, +3, 1., 1.5f32, -inf, NaN, inf, 5u8, b'a', 1_0.2_5e+3),
    flags: (true, false), unit: (),
)
"###;

#[test]
fn reads_what_the_ron_crate_reads() {
    let texts = [
        SAMPLE,
        "()",
        "( )",
        "A",
        "A()",
        "A ( 1 )",
        "[]",
        "{}",
        "{a: 1, (1, 2): [3]}",
        "'''",
        r"'\''",
        r"'\u{1F600}'",
        "\"two\nlines\"",
        "r\"a\\b\"",
        "r##\"a\"#b\"##",
        "1 // end",
        "/**/1/**/",
        "-0",
        "-0.0",
        ".5",
        "5.",
        "1e5",
        "1E-5",
        "0xFFi16",
        "-128i8",
        "9223372036854775807",
        "-9223372036854775808",
        "1_",
        "1.5f64",
        "3f32",
        "Some(3)",
        "Some ( Some ( None ) )",
        "r#true",
        "infinity",
        "(true: 1, Some: 2)",
        "#![type = \"T\"] #![schema = \"S\"] 1",
        "#![enable(implicit_some)]\n#![enable(unwrap_newtypes)] [1]",
        "größe(höhe: 1)",
    ];
    for text in texts {
        let theirs = ron::from_str::<Ron>(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let ours = parse(text).unwrap_or_else(|d| panic!("{:?}", Diagnostics::new("", text, d)));
        assert_eq!(normal(to_ron(&ours)), normal(theirs), "{text}");
    }
}

#[test]
fn every_node_spans_its_own_text() {
    fn check(text: &str, node: &Node) {
        let own = &text[node.span.start..node.span.end];
        let again = parse(own).unwrap_or_else(|d| panic!("{:?}", Diagnostics::new("", own, d)));
        // NaN is not equal to itself; the printed tree with its spans taken out is.
        let shape = |n: &Node| format!("{:?}", to_ron(n));
        assert_eq!(shape(&again), shape(node), "{own}");
        match &node.value {
            Value::List(items) | Value::Tuple { items, .. } => {
                items.iter().for_each(|n| check(text, n));
            }
            Value::Struct { name, fields } => {
                let name = name.iter().chain(fields.iter().map(|(name, _)| name));
                for name in name {
                    let own = &text[name.span.start..name.span.end];
                    assert_eq!(own.trim_start_matches("r#"), name.text);
                }
                fields.iter().for_each(|(_, n)| check(text, n));
            }
            Value::Map(entries) => entries.iter().for_each(|(k, v)| {
                check(text, k);
                check(text, v);
            }),
            _ => {}
        }
    }
    check(SAMPLE, &parse(SAMPLE).unwrap());
}

#[test]
fn keeps_names_and_kinds_apart() {
    let kind = |text: &str| match parse(text).unwrap().value {
        Value::Unit { name } => format!("unit {}", name.map_or("-".into(), |n| n.text)),
        Value::Tuple { name, items } => {
            format!("tuple {} {}", name.map_or("-".into(), |n| n.text), items.len())
        }
        Value::Struct { name, fields } => {
            format!("struct {} {}", name.map_or("-".into(), |n| n.text), fields.len())
        }
        other => format!("{other:?}"),
    };
    assert_eq!(kind("Relu"), "unit Relu");
    assert_eq!(kind("Relu()"), "tuple Relu 0");
    assert_eq!(kind("()"), "unit -");
    assert_eq!(kind("(1)"), "tuple - 1");
    assert_eq!(kind("Dense(12544)"), "tuple Dense 1");
    assert_eq!(kind("Dense(units: 12544)"), "struct Dense 1");
    assert_eq!(kind("(units: 12544)"), "struct - 1");
    assert_eq!(kind("r#a.b-c"), "unit a.b-c");
    assert_eq!(kind("0.1f32"), format!("Float({:?})", f64::from(0.1_f32)));
}

#[test]
fn hostile_nesting_is_refused_without_exhausting_the_stack() {
    for bracket in ["(", "[", "{", "A(", "Some(", "{1:", "(a:", "[(", "/*"] {
        let text = bracket.repeat(100_000);
        assert!(parse(&text).is_err(), "{bracket}");
    }
    let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
    assert!(parse(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(codes(&nested(MAX_DEPTH + 1)), ["too-deep"]);
    assert_eq!(codes(&nested(100_000)), ["too-deep"]);
    assert_eq!(codes(&" ".repeat(MAX_SOURCE + 1)), ["source-too-large"]);
    assert_eq!(codes(&"; ".repeat(100_000)).len(), MAX_ERRORS);
    assert_eq!(codes(&format!("[{}]", "a b, ".repeat(100_000))).len(), MAX_ERRORS);
    assert!(parse(&",".repeat(100_000)).is_err());
    assert!(parse(&"(".repeat(50).chars().chain(") ]".repeat(9_999).chars()).collect::<String>()).is_err());
}

#[test]
fn what_ron_has_and_a_graph_has_not_is_refused_by_name() {
    assert_eq!(codes("b\"abc\""), ["unsupported-byte-string"]);
    assert_eq!(codes("br#\"abc\"#"), ["unsupported-byte-string"]);
    assert_eq!(codes("[1..2, 3..=4, .., 5..]"), ["unsupported-range"; 4]);
    assert_eq!(codes("9223372036854775808"), ["number-out-of-range"]);
    assert_eq!(codes("999999999999999999999999999999999999999999999"), ["number-out-of-range"]);
    assert_eq!(codes("[r#Some(1), r#Some(), r#None]"), ["invalid-name"; 3]);
    assert_eq!(codes("1 '"), ["invalid-char"]);
    assert_eq!(codes("1e999"), ["number-out-of-range"]);
    assert_eq!(codes("[256u8, -1u8, -129i8, 0x1_0000u16]"), ["number-out-of-range"; 4]);
}

#[test]
fn several_errors_are_found_at_once() {
    let text = "(\n  a: 1x,\n  a: 2,\n  a: 3,\n  b: [1 2, ; , 'ab'],\n  c d,\n  f: ,\n  e: \"\\q\",\n)";
    assert_eq!(
        codes(text),
        [
            "invalid-number",
            "duplicate-field",
            "missing-comma",
            "unexpected-character",
            "invalid-char",
            "unexpected-token",
            "missing-value",
            "invalid-escape",
        ]
    );
}

#[test]
fn the_bracket_that_was_forgotten_is_found_by_its_indentation() {
    insta::assert_snapshot!(errors("Program(\n    g: Net(\n        x: Dense(1,\n    ),\n    d: Net(\n    ),\n)\n"));
}

/// One snapshot for each kind of error.
#[test]
fn each_kind_of_error_is_shown_with_its_place_and_the_way_out() {
    let cases = [
        ("unclosed_bracket", "Net(\n    layers: [\n        Dense(1),\n)\n"),
        ("unclosed_at_end", "Net(layers: [Dense(1)"),
        ("unopened_bracket", "[\n    1,\n    2),\n    3,\n]"),
        ("missing_comma", "Net(\n    units: 3\n    bias: true,\n)"),
        ("missing_colon", "Net(units 3, bias = true)"),
        ("missing_value", "Net(units: , bias)"),
        ("mixed_arguments", "[Conv(64, kernel: 4), Conv(units: 64, 4)]"),
        ("quoted_field", "Net(\"units\": 3)"),
        ("duplicate_field", "Net(\n    units: 3,\n    bias: true,\n    units: 4,\n)"),
        ("duplicate_key", "{\"batch\": 128, \"latent\": 300, \"batch\": 64}"),
        ("map_without_value", "{\"batch\", \"latent\": 300}"),
        ("unexpected_character", "[1; 2 * 3, “x”]"),
        ("unclosed_string", "[\n    \"G,\n    \"D\",\n]"),
        ("unclosed_single_string", "[1, \"G]"),
        ("unclosed_raw_string", "[r#\"G\"]"),
        ("unclosed_comment", "[1, /* two /* three */ ]"),
        ("invalid_escape", r#"["\q", "\u{110000}", "\xff", "C:\data"]"#),
        ("invalid_char", "['', 'ab', 'a]"),
        ("invalid_number", "[12px, 0b12, 0x, 1.2.3, 1._5, -, 5u7, 300u8]"),
        ("invalid_name", "(batch-size: 3, b: [x.y])"),
        ("unsupported", "[b\"x\", 0..10]"),
        ("trailing_input", "Net(units: 3),\nNet(units: 4)"),
        ("empty_source", "// nothing yet\n"),
        ("malformed_option", "[Some, Some(1, 2), None(1)]"),
        ("invalid_attribute", "#![allow(dead_code)]\n()"),
        ("unknown_extension", "#![enable(implicit_sum)]\n()"),
    ];
    for (name, text) in cases {
        insta::assert_snapshot!(name, errors(text));
    }
}

fn any_ron() -> impl Strategy<Value = Ron> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Ron::Bool),
        any::<i64>().prop_map(|x| Ron::Number(Number::I64(x))),
        any::<f64>().prop_map(|x| Ron::Number(Number::F64(F64(x)))),
        any::<char>().prop_map(Ron::Char),
        ".*".prop_map(Ron::String),
        "[a-z\"\\\\#\n\t]{0,8}".prop_map(Ron::String),
        Just(Ron::Unit),
        Just(Ron::Option(None)),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Ron::Seq),
            inner.clone().prop_map(|x| Ron::Option(Some(Box::new(x)))),
            prop::collection::vec((inner.clone(), inner), 0..6)
                .prop_map(|entries| Ron::Map(entries.into_iter().collect())),
        ]
    })
}

/// Pieces that syntax errors are made of.
const PIECES: [&str; 40] = [
    "(", ")", "[", "]", "{", "}", ",", ":", "\"", "'", "\\", "#", "!", "=", "/*", "*/", "//", "\n", " ", "r#", "r\"",
    "b'", "b\"", "..", ".", "-", "+", "_", "e", "0x", "1", "9", "f32", "u8", "Some", "None", "true", "inf", "é",
    "\u{2028}",
];

#[derive(Debug, Clone)]
enum Edit {
    Insert(usize, &'static str),
    Remove(usize, usize),
    Copy(usize, usize, usize),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let at = 0..SAMPLE.len();
    let edit = prop_oneof![
        3 => (at.clone(), prop::sample::select(&PIECES[..])).prop_map(|(i, s)| Edit::Insert(i, s)),
        2 => (at.clone(), 1..4_usize).prop_map(|(i, n)| Edit::Remove(i, n)),
        1 => (at.clone(), at, 1..12_usize).prop_map(|(i, j, n)| Edit::Copy(i, j, n)),
    ];
    prop::collection::vec(edit, 1..6)
}

fn damaged(edits: &[Edit]) -> String {
    let mut chars: Vec<char> = SAMPLE.chars().collect();
    for edit in edits {
        let len = chars.len();
        match *edit {
            Edit::Insert(i, piece) => {
                let i = i.min(len);
                chars.splice(i..i, piece.chars());
            }
            Edit::Remove(i, n) => {
                chars.drain(i.min(len)..(i + n).min(len));
            }
            Edit::Copy(i, j, n) => {
                let part = chars[j.min(len)..(j + n).min(len)].to_vec();
                let i = i.min(len);
                chars.splice(i..i, part);
            }
        }
    }
    chars.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_value_the_ron_crate_prints_is_read_as_the_same_tree(value in any_ron(), pretty: bool) {
        let text = if pretty {
            ron::ser::to_string_pretty(&value, PrettyConfig::new()).unwrap()
        } else {
            ron::to_string(&value).unwrap()
        };
        let ours = parse(&text)
            .unwrap_or_else(|d| panic!("{:?}", Diagnostics::new("printed", &*text, d)));
        prop_assert_eq!(normal(to_ron(&ours)), normal(value), "{}", text);
    }

    /// Damage is either reported at a place within the text, or harmless, and then the `ron` crate agrees
    /// on what is left.
    #[test]
    fn damaged_texts_are_reported_or_read_as_the_ron_crate_reads_them(edits in edits()) {
        let text = damaged(&edits);
        match parse(&text) {
            Ok(ours) => {
                let theirs = ron::from_str::<Ron>(&text);
                prop_assert!(theirs.is_ok(), "{}\n{:?}", text, theirs);
                prop_assert_eq!(normal(to_ron(&ours)), normal(theirs.unwrap()), "{}", text);
            }
            Err(diags) => {
                prop_assert!(!diags.is_empty());
                for d in &diags {
                    prop_assert!(!d.labels.is_empty(), "{:?}", d);
                    for (span, _) in &d.labels {
                        prop_assert!(span.start <= span.end && span.end <= text.len());
                        prop_assert!(text.get(span.start..span.end).is_some());
                    }
                }
                let drawn = Diagnostics::new("damaged", text, diags).render(80, true);
                prop_assert!(!drawn.is_empty());
            }
        }
    }

    #[test]
    fn any_text_at_all_is_read_or_reported(text in ".{0,60}") {
        if let Err(diags) = parse(&text) {
            Diagnostics::new("noise", text, diags).render(80, false);
        }
    }
}

/// Reading and drawing take time in proportion to the text: nothing scans it again per token.
#[test]
fn the_largest_hostile_texts_take_no_time() {
    let n = MAX_SOURCE;
    let texts = [
        "(".to_owned() + &"() ".repeat(n / 3 - 1),
        "[".to_owned() + &"1,".repeat(n / 2 - 1),
        format!("{{{}", "{1:2}:3,".repeat(n / 8 - 1)),
        "\"".repeat(n),
        "r#".repeat(n / 2),
        "/*".repeat(n / 2),
        ")".repeat(n),
        "[".repeat(99) + &"{".repeat(n - 99),
        "\n(".repeat(50) + &"\n ()".repeat(n / 4 - 50),
        "\"\\x".repeat(n / 3),
        "1".repeat(n),
        "r#\"".repeat(n / 3),
    ];
    let start = std::time::Instant::now();
    for text in texts {
        assert!(text.len() <= n);
        let head: String = text.chars().take(20).collect();
        let diags = parse(&text).expect_err(&head);
        Diagnostics::new("hostile.ron", text, diags).render(80, true);
        // A tenth of a second each at most; the limit leaves room for slow machines and is far below what
        // quadratic work on a megabyte takes.
        assert!(start.elapsed().as_secs() < 20, "{head}");
    }
    eprintln!("hostile texts: {:?}", start.elapsed());
}
