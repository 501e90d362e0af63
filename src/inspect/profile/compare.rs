//! Two profiles side by side: what became faster, what slower, what is only in one.

use super::grouped::By;
use super::table::{ms, percent};
use super::{KernelTime, Recorded, StepTime, Subject};
use crate::inspect::{Align, Table};
use serde::Serialize;
use std::collections::BTreeMap;

/// A kernel or a group of kernels in two profiles. Seconds are means over the typical steps of each.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    pub name: String,
    /// In the first profile; nothing where it is only in the second.
    pub seconds_a: Option<f64>,
    pub seconds_b: Option<f64>,
    /// The second less the first; what is only in one counts whole.
    pub difference: f64,
    /// The second divided by the first, where it is in both.
    pub ratio: Option<f64>,
}

impl Change {
    fn new(name: impl Into<String>, seconds_a: Option<f64>, seconds_b: Option<f64>) -> Change {
        let ratio = seconds_a.zip(seconds_b).filter(|(a, _)| *a > 0.0).map(|(a, b)| b / a);
        let difference = seconds_b.unwrap_or(0.0) - seconds_a.unwrap_or(0.0);
        Change { name: name.into(), seconds_a, seconds_b, difference, ratio }
    }
}

/// Two profiles compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    pub a: Subject,
    pub b: Subject,
    /// Why a profile's times may be too long, of each.
    pub busy: [Option<String>; 2],
    /// What the rows are of; kernels where nothing is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<By>,
    /// By the size of the difference, the largest first.
    pub rows: Vec<Change>,
    pub between_kernels: Change,
    /// The rows and the time between kernels add up to it.
    pub step: Change,
    pub step_a: StepTime,
    pub step_b: StepTime,
}

/// Compares two profiles kernel by kernel, matched by their names, or group by group.
pub fn compare(a: &Recorded, b: &Recorded, by: Option<By>) -> Comparison {
    let mut seconds: BTreeMap<String, [Option<f64>; 2]> = BTreeMap::new();
    for (side, kernels) in [&a.kernels, &b.kernels].into_iter().enumerate() {
        for (name, time) in named(kernels, by) {
            *seconds.entry(name).or_default()[side].get_or_insert(0.0) += time;
        }
    }
    let mut rows: Vec<Change> = seconds.into_iter().map(|(name, [a, b])| Change::new(name, a, b)).collect();
    // Names are in order already, and stay so where differences are the same.
    rows.sort_by(|x, y| y.difference.abs().total_cmp(&x.difference.abs()));
    let (step_a, step_b) = (a.profile.step_time(), b.profile.step_time());
    Comparison {
        a: a.profile.subject.clone(),
        b: b.profile.subject.clone(),
        busy: [&a.profile, &b.profile].map(|profile| profile.subject.spread.busy()),
        by,
        rows,
        between_kernels: Change::new("between kernels", Some(step_a.between_seconds), Some(step_b.between_seconds)),
        step: Change::new("the step", Some(step_a.seconds), Some(step_b.seconds)),
        step_a,
        step_b,
    }
}

/// Each kernel's seconds under the name that it is compared by.
fn named(kernels: &[KernelTime], by: Option<By>) -> impl Iterator<Item = (String, f64)> {
    kernels.iter().map(move |kernel| (by.map_or_else(|| kernel.name.clone(), |by| by.group_of(kernel)), kernel.seconds))
}

impl Comparison {
    /// The comparison as a table; `names` are what to call the two profiles, which are files as a rule.
    pub fn table(&self, names: [&str; 2]) -> String {
        let mut table = Table::new([Align::Right, Align::Right, Align::Right, Align::Right, Align::Left]);
        table.row(["A, ms", "B, ms", "B - A", "B / A", self.by.map_or("kernel", By::name)]);
        let or_dash = |seconds: Option<f64>| seconds.map_or("-".into(), ms);
        for change in self.rows.iter().chain([&self.between_kernels, &self.step]) {
            let ratio = match (change.seconds_a, change.seconds_b) {
                (Some(_), None) => "only in A".into(),
                (None, Some(_)) => "only in B".into(),
                _ => change.ratio.map_or("-".into(), |ratio| format!("{ratio:.3}")),
            };
            table.row([
                or_dash(change.seconds_a),
                or_dash(change.seconds_b),
                format!("{:+.3}", change.difference * 1e3),
                ratio,
                change.name.clone(),
            ]);
        }
        let mut text = String::new();
        let sides = [("A", names[0], &self.a, &self.step_a), ("B", names[1], &self.b, &self.step_b)];
        for ((side, file, subject, step), busy) in sides.into_iter().zip(&self.busy) {
            let busy = busy.as_ref().map_or(String::new(), |why| format!("; the machine was busy: {why}"));
            text += &format!(
                "{side}: {file}: {} of {}{}, {} ms a step ({} to {} in {} measured), {}{busy}\n",
                subject.entry,
                subject.program,
                subject.sets.iter().map(|set| format!(" {set}")).collect::<String>(),
                ms(step.seconds),
                ms(step.min_seconds),
                ms(step.max_seconds),
                subject.steps,
                subject.device,
            );
        }
        let only = |side: fn(&Change) -> bool| self.rows.iter().filter(|change| side(change)).count();
        let (in_a, in_b) = (only(|c| c.seconds_b.is_none()), only(|c| c.seconds_a.is_none()));
        if in_a + in_b > 0 {
            text += &format!("rows only in A: {in_a}, only in B: {in_b}\n");
        }
        if self.a.device != self.b.device {
            text += "the devices differ\n";
        }
        let saved = self.step.ratio.map_or(String::new(), |ratio| {
            let change = ratio - 1.0;
            format!("a step of B takes {} {} time\n", percent(change.abs()), if change < 0.0 { "less" } else { "more" })
        });
        format!("{text}{saved}\n{}", table.render(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Spread;
    use crate::inspect::profile::origin::{KernelOrigin, KernelRole};
    use crate::inspect::profile::{Facts, Launch, Profile};
    use crate::kernel::cost::{Machine, Multiplied};

    /// A profile of one step with these kernels, a hundredth of a second between them: name, layer, seconds.
    fn recorded(kernels: &[(&str, &str, f64)]) -> Recorded {
        let subject = Subject {
            program: "p".into(),
            entry: "train_step".into(),
            sets: Vec::new(),
            device: "cpu".into(),
            steps: 1,
            machine: Machine::NOMINAL,
            spread: Spread::default(),
        };
        let mut start = 0.0;
        let mut launches = Vec::new();
        for (kernel, &(.., seconds)) in kernels.iter().enumerate() {
            launches.push(Launch { step: 0, kernel, start, seconds });
            start += seconds + 0.01;
        }
        let origin = |layer: &str| KernelOrigin {
            layer: layer.into(),
            call: String::new(),
            role: KernelRole::Forward,
            of: String::new(),
        };
        let origins = kernels.iter().map(|&(_, layer, _)| Some(origin(layer))).collect();
        let facts = |&(name, ..): &(&str, &str, f64)| Facts {
            name: name.into(),
            kind: "elementwise".into(),
            flops: 1,
            bytes: 1,
            multiplied: Multiplied::F32,
        };
        let facts: Vec<_> = kernels.iter().map(facts).collect();
        let profile = Profile { subject, launches, origins };
        let kernels = profile.times(&facts).unwrap();
        Recorded { profile, kernels }
    }

    #[test]
    fn what_changed_most_comes_first_and_all_adds_up() {
        let a = recorded(&[("x", "one", 1.0), ("y", "one", 2.0), ("gone", "two", 0.25)]);
        let b = recorded(&[("y", "one", 1.0), ("new", "two", 0.5), ("x", "one", 1.125)]);
        let compared = compare(&a, &b, None);
        let names: Vec<&str> = compared.rows.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["y", "new", "gone", "x"]);
        assert_eq!(compared.rows[0].ratio, Some(0.5));
        assert_eq!((compared.rows[1].seconds_a, compared.rows[1].difference), (None, 0.5));
        assert_eq!((compared.rows[2].seconds_b, compared.rows[2].difference), (None, -0.25));
        let sum: f64 = compared.rows.iter().map(|c| c.difference).sum::<f64>() + compared.between_kernels.difference;
        assert!((sum - compared.step.difference).abs() < 1e-9 && (compared.step.difference + 0.625).abs() < 1e-9);
        let table = compared.table(["a.json", "b.json"]);
        assert!(table.contains("rows only in A: 1, only in B: 1"), "{table}");
        assert!(table.contains("\n 250.000         -   -250.000  only in A  gone\n"), "{table}");
        let layers = compare(&a, &b, Some(By::Layer));
        let layer = |name: &str| layers.rows.iter().find(|c| c.name == name).unwrap().clone();
        assert_eq!(layer("one").seconds_a.zip(layer("one").seconds_b), Some((3.0, 2.125)));
        assert_eq!(layer("two").ratio, Some(2.0));
        assert_eq!(layers.rows.len(), 2);
    }

    #[test]
    fn a_profile_beside_itself_has_no_differences() {
        let a = recorded(&[("x", "one", 1.0), ("y", "two", 2.0)]);
        let compared = compare(&a, &a, None);
        assert!(compared.rows.iter().all(|c| c.difference == 0.0 && c.ratio == Some(1.0)), "{compared:?}");
        assert_eq!(compared.rows.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["x", "y"]);
        assert!(!compared.table(["a", "b"]).contains("only in"));
    }
}
