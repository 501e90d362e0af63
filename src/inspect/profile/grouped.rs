//! Times of kernels added up: by layer, by call, by role or by kind.

use super::origin::{KernelOrigin, KernelRole, REST};
use super::table::{ms, percent, rates};
use super::{KernelTime, Profile};
use crate::inspect::{Align, Table};
use serde::Serialize;
use std::collections::BTreeMap;

/// What kernels are added up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// A layer of a network, all its calls together.
    Layer,
    /// Each call of a layer by itself.
    Call,
    /// Forward, backward of a loss, update of a network.
    Role,
    /// The sort of the kernel.
    Kind,
}

impl By {
    pub fn name(self) -> &'static str {
        match self {
            By::Layer => "layer",
            By::Call => "call",
            By::Role => "role",
            By::Kind => "kind",
        }
    }

    /// The name of the group that a kernel is in.
    pub fn group_of(self, kernel: &KernelTime) -> String {
        let of_origin = |text: fn(&KernelOrigin) -> String| kernel.origin.as_ref().map_or(REST.to_string(), text);
        match self {
            By::Layer => of_origin(|origin| origin.layer.clone()),
            By::Call => of_origin(KernelOrigin::call_text),
            By::Role => of_origin(KernelOrigin::role_text),
            By::Kind => kernel.kind.clone(),
        }
    }
}

/// The kernels of a group, added up. Seconds are means over the typical steps, as a kernel's are.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupTime {
    pub name: String,
    /// The calls of the layer that are in it.
    pub calls: Vec<String>,
    /// The number of kernels.
    pub kernels: usize,
    pub seconds: f64,
    /// Of the step.
    pub share: f64,
    /// Of the seconds, those that compute values.
    pub forward_seconds: f64,
    /// Those that compute gradients.
    pub backward_seconds: f64,
    /// Those that update parameters.
    pub update_seconds: f64,
    pub flops: u64,
    pub bytes: u64,
    /// The least time that the measured ceilings allow.
    pub ceiling_seconds: f64,
    /// The part of the time that the machine needs at the ceilings that bind the kernels, launches left out.
    pub of_ceiling: f64,
}

impl Profile {
    /// Adds up kernels; the group that takes longest comes first.
    pub fn groups(&self, kernels: &[KernelTime], by: By) -> Vec<GroupTime> {
        self.groups_named(kernels.iter().map(|kernel| (by.group_of(kernel), kernel)))
    }

    /// Adds up kernels that are given with the names of their groups.
    pub fn groups_named<'k>(&self, kernels: impl Iterator<Item = (String, &'k KernelTime)>) -> Vec<GroupTime> {
        let mut members: BTreeMap<String, Vec<&KernelTime>> = BTreeMap::new();
        for (name, kernel) in kernels {
            members.entry(name).or_default().push(kernel);
        }
        let mut groups: Vec<GroupTime> = members.into_iter().map(|(name, of)| self.group(name, &of)).collect();
        groups.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then_with(|| a.name.cmp(&b.name)));
        groups
    }

    fn group(&self, name: String, kernels: &[&KernelTime]) -> GroupTime {
        let seconds_of = |role: Option<KernelRole>| -> f64 {
            let of_role = |k: &&&KernelTime| role.is_none() || k.origin.as_ref().map(|o| o.role) == role;
            kernels.iter().filter(of_role).map(|k| k.seconds).sum()
        };
        let sum = |of: fn(&KernelTime) -> u64| kernels.iter().map(|k| of(k)).fold(0, u64::saturating_add);
        let mut calls: Vec<String> = Vec::new();
        for origin in kernels.iter().filter_map(|k| k.origin.as_ref()) {
            if !origin.call.is_empty() && !calls.contains(&origin.call) {
                calls.push(origin.call.clone());
            }
        }
        let seconds = seconds_of(None);
        let ceiling_seconds: f64 = kernels.iter().map(|k| k.ceiling_seconds).sum();
        let launches = kernels.len() as f64 * self.subject.machine.launch_seconds;
        GroupTime {
            name,
            calls,
            kernels: kernels.len(),
            seconds,
            share: seconds / self.step_time().seconds.max(f64::MIN_POSITIVE),
            forward_seconds: seconds_of(Some(KernelRole::Forward)),
            backward_seconds: seconds_of(Some(KernelRole::Gradient)),
            update_seconds: seconds_of(Some(KernelRole::Optimiser)),
            flops: sum(|k| k.flops),
            bytes: sum(|k| k.bytes),
            ceiling_seconds,
            of_ceiling: (ceiling_seconds - launches) / seconds.max(f64::MIN_POSITIVE),
        }
    }

    /// Groups as a table, the one that takes longest first. Its first column adds up to the step, and the columns of the roles
    /// to its first, but for kernels that only copy.
    pub fn group_table(&self, kernels: &[KernelTime], by: By) -> String {
        let groups = self.groups(kernels, by);
        let step = self.step_time();
        // A row of roles has one role, and one of calls or kinds no list of calls.
        let (has_roles, has_calls) = (by != By::Role, by == By::Layer);
        let mut table = Table::new([vec![Align::Right; if has_roles { 10 } else { 7 }], vec![Align::Left; 2]].concat());
        let row = |start: [String; 2], roles: [String; 3], rest: [String; 5], name: &str, calls: String| {
            let mut cells = start.to_vec();
            cells.extend(has_roles.then_some(roles).into_iter().flatten());
            cells.extend(rest);
            cells.push(name.to_string());
            cells.extend(has_calls.then_some(calls));
            cells
        };
        let head = ["at ceiling", "of ceiling", "GFLOP/s", "GB/s", "kernels"].map(String::from);
        let roles = ["forward", "backward", "update"].map(String::from);
        table.row(row(["ms".into(), "share".into()], roles, head, by.name(), "calls".into()));
        let or_dash = |seconds: f64| if seconds > 0.0 { ms(seconds) } else { "-".into() };
        let mut sums = [0.0; 3];
        for group in &groups {
            let roles = [group.forward_seconds, group.backward_seconds, group.update_seconds];
            sums.iter_mut().zip(roles).for_each(|(sum, seconds)| *sum += seconds);
            let [flops, bytes] = rates(group.flops, group.bytes, group.seconds);
            let of_ceiling = format!("{:.0}%", group.of_ceiling * 100.0);
            let rest = [ms(group.ceiling_seconds), of_ceiling, flops, bytes, group.kernels.to_string()];
            let start = [ms(group.seconds), percent(group.share)];
            table.row(row(start, roles.map(or_dash), rest, &group.name, group.calls.join(", ")));
        }
        let blank = String::new;
        let share = percent(step.between_seconds / step.seconds.max(f64::MIN_POSITIVE));
        let blanks = || [blank(), blank(), blank()];
        let rest = [blank(), blank(), blank(), blank(), blank()];
        table.row(row([ms(step.between_seconds), share], blanks(), rest, "between kernels", blank()));
        let sum = |of: fn(&GroupTime) -> u64| groups.iter().map(of).fold(0, u64::saturating_add);
        let [flops, bytes] = rates(sum(|g| g.flops), sum(|g| g.bytes), step.seconds);
        let ceiling: f64 = groups.iter().map(|g| g.ceiling_seconds).sum();
        let launches = kernels.len() as f64 * self.subject.machine.launch_seconds;
        let of_ceiling = format!("{:.0}%", (ceiling - launches) / step.seconds.max(f64::MIN_POSITIVE) * 100.0);
        let rest = [ms(ceiling), of_ceiling, flops, bytes, kernels.len().to_string()];
        table.row(row([ms(step.seconds), percent(1.0)], sums.map(ms), rest, "the step", blank()));
        format!("{}\n{}", self.heading(kernels), table.render(""))
    }
}
