//! What the boxes of pictures are for, and their colours: the same in DOT, in SVG and on the page.

use crate::ir::{Op, Role};
use std::fmt::Write as _;

/// What a node or kernel is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Colour {
    Forward,
    Backward,
    Optimiser,
    /// Input, state or constant.
    Leaf,
    /// An output of the graph.
    Result,
}

/// A row of the table: light enough for dark text on the light theme, dark enough for light text on the other.
#[derive(Debug)]
pub struct Row {
    pub colour: Colour,
    /// In a legend.
    pub name: &'static str,
    /// The name of the page's style, which is the role's name in its data.
    pub style: &'static str,
    pub fill: &'static str,
    pub stroke: &'static str,
    pub dark_fill: &'static str,
    pub dark_stroke: &'static str,
}

const fn row(
    colour: Colour,
    name: &'static str,
    style: &'static str,
    [fill, stroke, dark_fill, dark_stroke]: [&'static str; 4],
) -> Row {
    Row { colour, name, style, fill, stroke, dark_fill, dark_stroke }
}

/// All colours, in the order of a legend. Hue and lightness both differ, for those who see no red and green.
pub const COLOURS: [Row; 5] = [
    row(Colour::Forward, "forward", "forward", ["#e3eefa", "#2f73b8", "#19324c", "#6cb0f5"]),
    row(Colour::Backward, "backward", "gradient", ["#fdebd9", "#c05d0b", "#46290f", "#f5a45c"]),
    row(Colour::Optimiser, "update", "optimiser", ["#dcf3e9", "#137a56", "#113a2b", "#55cf9f"]),
    row(Colour::Leaf, "input, state, constant", "leaf", ["#eef0f3", "#747d89", "#262b34", "#9aa4b1"]),
    row(Colour::Result, "output", "result", ["#ffffff", "#747d89", "#14171c", "#9aa4b1"]),
];

impl Colour {
    pub fn of_role(role: &Role) -> Colour {
        match role {
            Role::Forward => Colour::Forward,
            Role::Gradient(_) => Colour::Backward,
            Role::Optimiser(_) => Colour::Optimiser,
        }
    }

    pub fn of_node(op: &Op, role: &Role) -> Colour {
        if matches!(op, Op::Input { .. } | Op::State { .. } | Op::Constant { .. }) {
            return Colour::Leaf;
        }
        Colour::of_role(role)
    }

    pub fn row(self) -> &'static Row {
        &COLOURS[self as usize]
    }
}

/// The table as the custom properties of the page's two themes.
pub fn page_style() -> String {
    let mut text = String::new();
    let theme = |text: &mut String, selector: &str, of: fn(&Row) -> (&str, &str)| {
        let _ = write!(text, "{selector} {{");
        for row in &COLOURS {
            let (fill, stroke) = of(row);
            let _ = write!(text, " --{}: {stroke}; --{}-fill: {fill};", row.style, row.style);
        }
        text.push_str(" }\n");
    };
    theme(&mut text, ":root", |row| (row.fill, row.stroke));
    theme(&mut text, ":root[data-theme=\"dark\"]", |row| (row.dark_fill, row.dark_stroke));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_colour_is_at_its_place() {
        for (index, row) in COLOURS.iter().enumerate() {
            assert_eq!((row.colour as usize, row.colour.row().name), (index, row.name));
            assert!(page_style().matches(row.stroke).count() >= 1);
        }
    }
}
