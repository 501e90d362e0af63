use super::super::ron;
use super::super::source_text::acts;
use super::*;

fn at(text: &str, part: &str) -> Span {
    let start = text.find(part).expect("the part is in the text");
    Span { start, end: start + part.len() }
}

#[test]
fn the_nearest_name_within_a_third_of_its_length_is_proposed() {
    let ops = ["relu", "leakyrelu", "tanh", "sigmoid", "Dense", "x"];
    assert_eq!(closest("rleu", ops), Some("relu"));
    assert_eq!(closest("leaky_relu", ops), Some("leakyrelu"));
    assert_eq!(closest("sigmiod", ops), Some("sigmoid"));
    assert_eq!(closest("dense", ops), Some("Dense"));
    assert_eq!(closest("DENSE", ops), Some("Dense"));
    assert_eq!(closest("y", ops), None);
    assert_eq!(closest("", ops), None);
    assert_eq!(closest("convolution", ops), None);
    assert_eq!(closest(&"relu".repeat(1000), ops), None);
    assert_eq!(closest("a", std::iter::empty()), None);
}

#[test]
fn a_swap_of_neighbours_is_one_edit() {
    assert_eq!(closest("acbd", ["abcd"]), Some("abcd"));
    assert_eq!(closest("kitten", ["sitting"]), None);
}

#[test]
fn diagnostics_are_sorted_by_position_and_capped() {
    let text = "x\n".repeat(30);
    let entries = (0..30)
        .rev()
        .map(|i| {
            let span = Span { start: 2 * i, end: 2 * i + 1 };
            Diagnostic::new("unknown-name", format!("number {i}")).label(span, "")
        })
        .collect();
    let all = Diagnostics::new("a.ron", text, entries);
    assert_eq!(all.entries()[0].message, "number 0");
    let drawn = all.render(80, false);
    assert_eq!(drawn.matches("unknown-name").count(), MAX_SHOWN);
    assert!(drawn.ends_with("and 10 more\n"), "{drawn}");
    assert_eq!(all.to_string(), "a.ron:1:1: number 0 (and 29 more)");
}

#[test]
fn columns_count_characters() {
    let text = "(\n  größe: \"日本\", x: yy,\r\n)";
    let unknown = Diagnostic::new("unknown-name", "there is no `yy`").label(at(text, "yy"), "here");
    let all = Diagnostics::new("a.ron", text, vec![unknown]);
    assert_eq!(all.to_string(), "a.ron:2:19: there is no `yy`");
    insta::assert_snapshot!(all.render(80, false));
}

#[test]
fn a_span_over_many_lines_keeps_its_first() {
    let text = "Net(\n  a,\n  b,\n)";
    let whole = Span { start: 0, end: text.len() };
    let d = Diagnostic::new("cycle", "a network that needs itself").label(whole, "this one");
    insta::assert_snapshot!(Diagnostics::new("a.ron", text, vec![d]).render(80, false));
}

#[test]
fn two_places_are_shown_together() {
    let text = "(\n  a: 1,\n  b: 2,\n  c: 3,\n  d: 4,\n  e: 5,\n  f: 6,\n)";
    let d = Diagnostic::new("shape-mismatch", "the operands of `add` differ in shape")
        .label(at(text, "f: 6"), "f32[3]")
        .label(at(text, "a: 1"), "f32[2]")
        .help("a long help text is wrapped to the width of the terminal, at word boundaries");
    insta::assert_snapshot!(Diagnostics::new("a.ron", text, vec![d]).render(60, false));
}

#[test]
fn a_very_long_line_is_shown_in_part() {
    let text = format!("[{}oops,{}]", "1,".repeat(5000), "2,".repeat(5000));
    let d = Diagnostic::new("unknown-name", "there is no `oops`").label(at(&text, "oops"), "here");
    insta::assert_snapshot!(Diagnostics::new("a.ron", text, vec![d]).render(80, false));
}

#[test]
fn spans_that_do_not_fit_the_text_do_no_harm() {
    for (start, end) in [(0, 0), (1, 2), (2, 1), (3, 3), (900, 1000), (0, usize::MAX)] {
        for text in ["", "é\n", "日", "\r\n\r\n", "a\rb"] {
            let d = Diagnostic::new("wrong-type", "wrong").label(Span { start, end }, "here");
            let drawn = Diagnostics::new("a.ron", text, vec![d]).render(0, true);
            assert!(drawn.contains("wrong"));
        }
    }
}

#[test]
fn colour_and_box_characters_are_for_terminals() {
    let text = "[1 2]";
    let all = Diagnostics::new("a.ron", text, ron::parse(text).unwrap_err());
    assert!(all.render(80, false).is_ascii());
    assert!(all.render(80, true).contains('\u{1b}'));
}

#[test]
fn a_program_may_hand_the_whole_to_miette() {
    let text = "[1 2 3]";
    let all = Diagnostics::new("a.ron", text, ron::parse(text).unwrap_err());
    let mut drawn = String::new();
    GraphicalReportHandler::new_themed(GraphicalTheme::none()).render_report(&mut drawn, &all).unwrap();
    assert_eq!(drawn.matches("missing-comma").count(), 2, "{drawn}");
    assert!(drawn.contains("a.ron:1:2"), "{drawn}");
}

#[test]
fn places_far_apart_in_one_line_are_told_in_words() {
    let text = format!("(a: 1, {}b: 2)", "c: 0, ".repeat(20_000));
    let d =
        Diagnostic::new("duplicate-name", "twice").label(at(&text, "b: 2"), "again").label(at(&text, "a: 1"), "first");
    let drawn = Diagnostics::new("a.ron", text, vec![d]).render(80, false);
    assert!(drawn.contains("a.ron:1:2: first") && drawn.len() < 2_000, "{drawn}");
    // A label as long as that, and one across a line like that.
    let text = format!("a\n{}\nb", "x".repeat(100_000));
    let whole = Span { start: 2, end: 100_002 };
    let long = Diagnostic::new("wrong-type", "long").label(whole, "here");
    let across = Diagnostic::new("wrong-type", "across").label(at(&text, "a"), "one").label(at(&text, "b"), "two");
    let drawn = Diagnostics::new("a.ron", text, vec![long, across]).render(80, true);
    assert!(drawn.contains("a.ron:3:1: two") && drawn.len() < 4_000, "{drawn}");
}

#[test]
fn nothing_of_a_text_acts_on_the_terminal() {
    let text = "(\u{1b}[2J\u{7}\u{9b}31m\u{202e}: oops)";
    let d = Diagnostic::new("unknown-name", format!("no `{text}`")).label(at(text, "oops"), text).help(text);
    let all = Diagnostics::new(text, text, vec![d]);
    for drawn in [all.render(200, false), all.to_string()] {
        assert!(drawn.chars().all(|c| c == '\n' || !acts(c)), "{drawn:?}");
        assert!(drawn.contains("\\u{1b}[2J"), "{drawn}");
    }
}
