//! Names from files on a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The text with every character that a terminal would obey rather than show written as an escape: `\u{1b}`. Names come
/// from files, and a file is not to move the cursor, change colours or turn the line around. New lines and tabs stay.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_obeyed(c) {
            let _ = write!(out, "{}", c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Control characters, and those that change the direction of what follows (Unicode Standard Annex 9).
fn is_obeyed(c: char) -> bool {
    let is_direction =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    is_direction || (c.is_control() && !matches!(c, '\n' | '\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_written_out() {
        assert_eq!(
            visible("a \x1b[31mred\x1b[0m\x07\r\u{9b}2J\u{202e}"),
            r"a \u{1b}[31mred\u{1b}[0m\u{7}\u{d}\u{9b}2J\u{202e}"
        );
        assert!(matches!(visible("weight ∂/größe\n\t日本"), Cow::Borrowed(_)));
    }
}
