//! Number literals of RON: `12`, `-0x1F`, `1_000u32`, `.5`, `2e-4`, `1.5f32`, `-inf`.

use super::value::Value;
use crate::declare::diagnostic::Diagnostic;

/// Reads a number from its whole text. The error has no label yet.
pub(super) fn parse(text: &str) -> Result<Value, Diagnostic> {
    let (negative, body) = match text.strip_prefix('-') {
        Some(body) => (true, body),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if let Some(value) = word(body) {
        return Ok(Value::Float(if negative { -value } else { value }));
    }
    for (prefix, radix) in [("0b", 2), ("0o", 8), ("0x", 16)] {
        if let Some(digits) = body.strip_prefix(prefix) {
            return integer(text, digits, radix, negative);
        }
    }
    let is_float = body.contains(['.', 'e', 'E']) || body.ends_with("f32") || body.ends_with("f64");
    if is_float { float(text) } else { integer(text, body, 10, negative) }
}

/// The numbers that are written as words.
pub(super) fn word(text: &str) -> Option<f64> {
    match text {
        "inf" | "inff32" | "inff64" => Some(f64::INFINITY),
        "NaN" | "NaNf32" | "NaNf64" => Some(f64::NAN),
        _ => None,
    }
}

fn invalid(text: &str, help: &str) -> Diagnostic {
    Diagnostic::new("invalid-number", format!("`{text}` is not a number")).help(help)
}

fn integer(text: &str, body: &str, radix: u32, negative: bool) -> Result<Value, Diagnostic> {
    let (digits, suffix) = body.split_at(body.find(['i', 'u']).unwrap_or(body.len()));
    let (low, high) = match suffix {
        "" | "i64" => (i128::from(i64::MIN), i128::from(i64::MAX)),
        "i8" => (i128::from(i8::MIN), i128::from(i8::MAX)),
        "i16" => (i128::from(i16::MIN), i128::from(i16::MAX)),
        "i32" => (i128::from(i32::MIN), i128::from(i32::MAX)),
        "u8" => (0, i128::from(u8::MAX)),
        "u16" => (0, i128::from(u16::MAX)),
        "u32" => (0, i128::from(u32::MAX)),
        // What is used as a signed size cannot use the upper half.
        "u64" => (0, i128::from(i64::MAX)),
        _ => {
            return Err(invalid(
                text,
                "a number is followed by nothing, or by its type: i8 to i64, u8 to u64, f32, f64",
            ));
        }
    };
    if digits.is_empty() || digits.starts_with('_') {
        return Err(invalid(text, "a digit must come first"));
    }
    let mut value = 0_i128;
    for c in digits.chars().filter(|&c| c != '_') {
        let Some(digit) = c.to_digit(radix) else {
            let help = format!("`{c}` is not a digit in base {radix}");
            return Err(invalid(text, &help));
        };
        // Saturates far above the limit checked below.
        value = value.saturating_mul(i128::from(radix)) + i128::from(digit);
        value = value.min(i128::from(u64::MAX) * 2);
    }
    let value = if negative { -value } else { value };
    if !(low..=high).contains(&value) {
        return Err(Diagnostic::new("number-out-of-range", "this integer is out of range")
            .help(format!("it must lie between {low} and {high}; a float is written with a point or an exponent")));
    }
    let value = i64::try_from(value).expect("the limits lie within i64");
    Ok(Value::Int(value))
}

fn float(text: &str) -> Result<Value, Diagnostic> {
    let (body, single) = match text.strip_suffix("f32") {
        Some(body) => (body, true),
        None => (text.strip_suffix("f64").unwrap_or(text), false),
    };
    let mut digits = String::with_capacity(body.len());
    let mut underscore_allowed = false;
    for c in body.chars() {
        match c {
            '_' if underscore_allowed => continue,
            '_' => return Err(invalid(text, "`_` stands between digits")),
            '0'..='9' | 'e' | 'E' => underscore_allowed = true,
            '.' => underscore_allowed = false,
            '+' | '-' => {}
            _ => {
                let help = format!("`{c}` has no place in a number");
                return Err(invalid(text, &help));
            }
        }
        digits.push(c);
    }
    let value = if single { digits.parse::<f32>().map(f64::from) } else { digits.parse::<f64>() };
    match value {
        Ok(value) if value.is_finite() => Ok(Value::Float(value)),
        // The standard library rounds to infinity, which nobody writes that way.
        Ok(_) => {
            Err(Diagnostic::new("number-out-of-range", "this number is too large").help("the largest is about 3.4e38"))
        }
        Err(_) => Err(invalid(text, "a float is written as in `0.5`, `2e-4` or `1.5f32`")),
    }
}
