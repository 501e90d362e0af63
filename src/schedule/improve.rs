//! Moves kernels of an order to where less memory is live.

use super::assemble::Assembled;
use super::live::{Accesses, Live};
use super::order::apply;

/// Orders of more kernels stay as they are: each move is weighed against the whole order.
const MOST_KERNELS: usize = 256;
/// How often each sort of move is tried on all kernels, at most.
const ROUNDS: usize = 8;

/// Moves kernels, alone and in blocks, wherever that lowers the peak of memory or, at the same peak, what is live in
/// all. The kernels are sorted, and stay so.
pub(super) fn improve(work: &mut Assembled) {
    let n = work.kernels.len();
    if n > MOST_KERNELS {
        return;
    }
    let accesses = Accesses::of(work);
    let mut search = Search::new(work, &accesses);
    search.move_blocks();
    search.move_kernels();
    search.move_blocks();
    let order = search.order;
    apply(work, &order);
}

struct Search<'a> {
    accesses: &'a Accesses,
    /// For each kernel those that it needs, and those that need it.
    before: Vec<Vec<usize>>,
    after: Vec<Vec<usize>>,
    order: Vec<usize>,
    live: Live,
}

impl<'a> Search<'a> {
    fn new(work: &Assembled, accesses: &'a Accesses) -> Search<'a> {
        let n = work.kernels.len();
        let before: Vec<Vec<usize>> = work.before.iter().map(|before| before.iter().copied().collect()).collect();
        let mut after = vec![Vec::new(); n];
        for (k, before) in before.iter().enumerate() {
            before.iter().for_each(|&b| after[b].push(k));
        }
        let order: Vec<usize> = (0..n).collect();
        let live = accesses.live(&order);
        Search { accesses, before, after, order, live }
    }

    /// Takes an order where it is better.
    fn offer(&mut self, order: Vec<usize>) {
        let live = self.accesses.live(&order);
        if live < self.live {
            (self.order, self.live) = (order, live);
        }
    }

    /// Moves each kernel to the latest or the earliest place that it can have.
    fn move_kernels(&mut self) {
        let n = self.order.len();
        for _ in 0..ROUNDS {
            let live = self.live;
            for k in self.order.clone().into_iter().rev() {
                for is_later in [true, false] {
                    let place = self.places();
                    let from = place[k];
                    let to = match is_later {
                        true => self.after[k].iter().map(|&user| place[user] - 1).min().unwrap_or(n - 1),
                        false => self.before[k].iter().map(|&needed| place[needed] + 1).max().unwrap_or(0),
                    };
                    let mut moved = self.order.clone();
                    if from < to {
                        moved[from..=to].rotate_left(1);
                    } else {
                        moved[to..=from].rotate_right(1);
                    }
                    self.offer(moved);
                }
            }
            if self.live == live {
                break;
            }
        }
    }

    fn places(&self) -> Vec<usize> {
        let mut place = vec![0; self.order.len()];
        self.order.iter().enumerate().for_each(|(p, &k)| place[k] = p);
        place
    }

    /// Moves what leads away from one kernel from before the peak to a valley after it, or what leads to one kernel
    /// from after the peak to a valley before it: alone, no kernel of such a block may gain anything.
    fn move_blocks(&mut self) {
        for _ in 0..ROUNDS {
            let mut bytes = Vec::new();
            self.accesses.walk(&self.order, |_, live| bytes.push(live));
            let reversed = |list: &[usize]| list.iter().rev().copied().collect::<Vec<usize>>();
            let live = self.live;
            let later = blocks(&self.order, &self.before, &bytes);
            let earlier = blocks(&reversed(&self.order), &self.after, &reversed(&bytes));
            later.into_iter().for_each(|order| self.offer(order));
            earlier.into_iter().for_each(|order| self.offer(reversed(&order)));
            if self.live == live {
                break;
            }
        }
    }
}

/// Orders in which one kernel before the peak, and what `needs` it, come after a valley behind the peak. `bytes` are
/// live at each place of the present order.
fn blocks(order: &[usize], needs: &[Vec<usize>], bytes: &[usize]) -> Vec<Vec<usize>> {
    let n = order.len();
    let Some(peak) = (0..n).max_by_key(|&place| (bytes[place], n - place)) else { return Vec::new() };
    let is_valley = |place: usize| {
        place > peak && bytes[place] < bytes[place - 1] && (place + 1 == n || bytes[place] <= bytes[place + 1])
    };
    let mut found = Vec::new();
    for start in 0..peak {
        let mut is_in_block = vec![false; n];
        let (mut block, mut others) = (Vec::new(), Vec::new());
        for place in start..n {
            let k = order[place];
            if place == start || needs[k].iter().any(|&needed| is_in_block[needed]) {
                if place == peak {
                    break;
                }
                is_in_block[k] = true;
                block.push(k);
            } else {
                others.push(k);
            }
            if is_valley(place) {
                let parts = [&order[..start], &others, &block, &order[place + 1..]];
                found.push(parts.concat());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kernel 0 makes what only 3 reads, by way of 1, and 2 is the peak.
    #[test]
    fn what_leads_away_from_a_kernel_moves_together() {
        let needs = [vec![], vec![0], vec![], vec![1, 2]];
        assert_eq!(blocks(&[0, 1, 2, 3], &needs, &[1, 4, 9, 3]), [[2, 0, 1, 3], [0, 2, 1, 3]]);
        // Where the peak is part of what leads away, the block ends the search.
        let needs = [vec![], vec![0], vec![1], vec![2]];
        assert_eq!(blocks(&[0, 1, 2, 3], &needs, &[1, 4, 9, 3]), Vec::<Vec<usize>>::new());
    }
}
