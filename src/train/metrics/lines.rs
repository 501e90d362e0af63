//! The lines of a metrics file, read back.

use crate::atomic;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::path::Path;

/// A line of a run's metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub step: u64,
    /// Absent in a file that other programs wrote.
    pub epoch: Option<f64>,
    /// As it is written: of one process in files of older versions, of all that trained the run in others.
    pub seconds: Option<f64>,
    /// All other numbers by name, the rate among them; `None` is one that was not finite.
    pub values: BTreeMap<String, Option<f64>>,
}

impl Line {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it.
    fn parse(bytes: &[u8]) -> Result<Line, String> {
        let fields: Result<Map<String, Value>, _> = serde_json::from_slice(bytes);
        let mut fields = fields.map_err(|error| {
            // The parser knows of one line alone.
            let reason = error.to_string().replace(" at line 1 column ", " at column ");
            format!("a JSON object was expected ({reason})")
        })?;
        let step = fields.remove("step").and_then(|step| step.as_u64());
        let step = step.ok_or("a whole number \"step\" was expected")?;
        let mut number = |name: &str| fields.remove(name).and_then(|value| value.as_f64());
        let (epoch, seconds) = (number("epoch"), number("seconds"));
        // What is no number, another program has put there.
        let values = fields.into_iter().filter(|(_, value)| value.is_number() || value.is_null());
        Ok(Line { step, epoch, seconds, values: values.map(|(name, value)| (name, value.as_f64())).collect() })
    }
}

/// A line at its place in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// Its number, from 1.
    pub number: usize,
    /// The bytes of the file up to its end.
    pub end: u64,
    /// The line, or what is wrong with it.
    pub line: Result<Line, String>,
}

/// The lines of a file in their order. A last one that has no end is being written, or was cut off by a kill: it is left
/// out.
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    number: usize,
    end: u64,
    bytes: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub fn new(reader: R) -> Lines<R> {
        Lines { reader, number: 0, end: 0, bytes: Vec::new() }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<Placed>;

    fn next(&mut self) -> Option<io::Result<Placed>> {
        self.bytes.clear();
        if let Err(error) = self.reader.read_until(b'\n', &mut self.bytes) {
            return Some(Err(error));
        }
        if self.bytes.last() != Some(&b'\n') {
            return None;
        }
        self.number += 1;
        self.end += self.bytes.len() as u64;
        Some(Ok(Placed { number: self.number, end: self.end, line: Line::parse(self.bytes.trim_ascii_end()) }))
    }
}

/// All lines of a file.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<Placed>> {
    Lines::new(&atomic::read(path)?[..]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(text: &str) -> Vec<Placed> {
        Lines::new(text.as_bytes()).map(Result::unwrap).collect()
    }

    #[test]
    fn numbers_are_read_and_the_rest_left_out() {
        let found = placed("{\"step\":4,\"seconds\":3.0,\"note\":\"x\",\"a\":1,\"b\":null}\n{\"step\":5,\"sec");
        let [only] = &found[..] else { panic!("{found:?}") };
        let values = [("a".to_string(), Some(1.0)), ("b".to_string(), None)].into();
        assert_eq!(only.line, Ok(Line { step: 4, epoch: None, seconds: Some(3.0), values }));
        assert_eq!(placed(""), []);
    }

    #[test]
    fn what_is_wrong_is_told_and_the_next_line_read() {
        for (text, expected) in [
            ("my notes\n", "a JSON object was expected (expected value"),
            ("\n", "a JSON object was expected"),
            ("{\"step\":1,\"lo\n", "a JSON object was expected (EOF while parsing a string at column 13)"),
            ("[1]\n", "a JSON object was expected"),
            ("{\"loss\":1}\n", "a whole number \"step\" was expected"),
            ("{\"step\":-1}\n", "a whole number \"step\" was expected"),
            ("\u{0}\n", "a JSON object was expected"),
        ] {
            let found = placed(&format!("{text}{{\"step\":2}}\n"));
            let error = found[0].line.as_ref().unwrap_err();
            assert!(error.starts_with(expected), "{error}");
            let next = &found[1];
            assert_eq!((next.number, next.end), (2, text.len() as u64 + 11));
            assert_eq!(next.line.as_ref().map(|line| line.step), Ok(2));
        }
    }
}
