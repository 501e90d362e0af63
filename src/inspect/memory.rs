//! The memory map as text.

use super::hand_overs;
use super::table::{Align, Table, bytes};
use crate::kernel::schedule::{BufferRole, Schedule};

/// Every buffer by its place in the arena: offset, size, and the kernels from the first to the last that
/// need its contents.
pub fn memory_text(schedule: &Schedule) -> String {
    let mut order: Vec<usize> = (0..schedule.buffers.len()).collect();
    order.sort_by_key(|&i| (schedule.buffers[i].offset, schedule.buffers[i].live, i));
    let hand_overs = hand_overs(schedule);
    let mut table = Table::new([Align::Right, Align::Right, Align::Right, Align::Left, Align::Left]);
    table.row(["offset", "bytes", "live", "role", "buffer"]);
    for i in order {
        let buffer = &schedule.buffers[i];
        let (role, name) = match &buffer.role {
            BufferRole::Input(name) => ("input", name),
            BufferRole::State(name) => ("state", name),
            BufferRole::Output => ("output", &buffer.name),
            BufferRole::Temporary => ("temporary", &buffer.name),
            BufferRole::Workspace => ("workspace", &buffer.name),
        };
        let live = format!("{}..{}", buffer.live.0, buffer.live.1);
        let over: Vec<String> = (hand_overs.iter())
            .filter(|pair| pair.new.index() == i)
            .map(|pair| {
                format!("  (over {}, in place in kernel {})", schedule.buffers[pair.old.index()].name, pair.kernel)
            })
            .collect();
        let name = format!("{name}{}", over.concat());
        table.row([&buffer.offset.to_string(), &buffer.bytes().to_string(), &live, role, &name]);
    }
    format!(
        "arena {} bytes ({}), lower bound {} bytes, {} kernels\n{}",
        schedule.arena_bytes,
        bytes(schedule.arena_bytes),
        schedule.lower_bound,
        schedule.kernels.len(),
        table.render("")
    )
}
