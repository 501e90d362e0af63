//! On which rank each box stands: below all that point to it.

/// Arrows that form no cycle: those that close one are reversed. Arrows from a box to itself are left out.
pub fn without_cycles(boxes: usize, arrows: &[(usize, usize)]) -> Vec<(usize, usize)> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        No,
        /// On the path from where the search started.
        Open,
        Done,
    }
    let mut out: Vec<Vec<usize>> = vec![Vec::new(); boxes];
    let mut has_source = vec![false; boxes];
    for (index, &(from, to)) in arrows.iter().enumerate().filter(|(_, (from, to))| from != to) {
        out[from].push(index);
        has_source[to] = true;
    }
    let mut turned = vec![false; arrows.len()];
    let mut seen = vec![Seen::No; boxes];
    // First from where nothing points to: what is on top of a cycle is then what is reached first.
    let starts = (0..boxes).filter(|&v| !has_source[v]).chain((0..boxes).filter(|&v| has_source[v]));
    for start in starts {
        if seen[start] != Seen::No {
            continue;
        }
        seen[start] = Seen::Open;
        // A search in depth that keeps its own stack: chains may be longer than the thread's stack is deep.
        let mut path = vec![(start, 0)];
        while let Some((v, next)) = path.last_mut() {
            let Some(&arrow) = out[*v].get(*next) else {
                seen[*v] = Seen::Done;
                path.pop();
                continue;
            };
            *next += 1;
            let to = arrows[arrow].1;
            match seen[to] {
                Seen::No => {
                    seen[to] = Seen::Open;
                    path.push((to, 0));
                }
                Seen::Open => turned[arrow] = true,
                Seen::Done => {}
            }
        }
    }
    (arrows.iter().zip(turned))
        .filter(|((from, to), _)| from != to)
        .map(|(&(from, to), turned)| if turned { (to, from) } else { (from, to) })
        .collect()
}

/// The rank of each box, counted from 0: every arrow goes down by at least one, and arrows are short. `arrows` form no
/// cycle.
pub fn ranks(boxes: usize, arrows: &[(usize, usize)]) -> Vec<usize> {
    const ROUNDS: usize = 16;
    let (mut above, mut below) = (vec![Vec::new(); boxes], vec![Vec::new(); boxes]);
    for &(from, to) in arrows {
        below[from].push(to);
        above[to].push(from);
    }
    // As high as can be.
    let mut rank = vec![0usize; boxes];
    let mut waiting: Vec<usize> = above.iter().map(Vec::len).collect();
    let mut order: Vec<usize> = (0..boxes).filter(|&v| waiting[v] == 0).collect();
    let mut next = 0;
    while let Some(&v) = order.get(next) {
        next += 1;
        for &to in &below[v] {
            rank[to] = rank[to].max(rank[v] + 1);
            waiting[to] -= 1;
            if waiting[to] == 0 {
                order.push(to);
            }
        }
    }
    // Then each box moves to where its arrows are shorter together; where it makes no difference, down, so that what
    // is above it can follow. No move lengthens the sum.
    for _ in 0..ROUNDS {
        let mut is_moved = false;
        for &v in order.iter().rev() {
            if let Some(lowest) = below[v].iter().map(|&to| rank[to] - 1).min()
                && below[v].len() >= above[v].len()
                && rank[v] != lowest
            {
                (rank[v], is_moved) = (lowest, true);
            }
        }
        for &v in &order {
            let highest = above[v].iter().map(|&from| rank[from] + 1).max().unwrap_or(rank[v]);
            if above[v].len() > below[v].len() && rank[v] != highest {
                (rank[v], is_moved) = (highest, true);
            }
        }
        if !is_moved {
            break;
        }
    }
    let first = rank.iter().copied().min().unwrap_or(0);
    rank.iter_mut().for_each(|r| *r -= first);
    rank
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_is_cut_where_it_closes() {
        assert_eq!(without_cycles(3, &[(0, 1), (1, 2), (2, 0)]), [(0, 1), (1, 2), (0, 2)]);
        assert_eq!(without_cycles(2, &[(0, 0), (1, 0), (1, 0)]), [(1, 0), (1, 0)]);
    }

    #[test]
    fn arrows_are_short() {
        // What only the last of a chain uses stands beside the last but one.
        let chain = [(0, 1), (1, 2), (2, 3), (4, 5), (5, 3)];
        assert_eq!(ranks(6, &chain), [0, 1, 2, 3, 1, 2]);
        assert_eq!(ranks(0, &[]), [0usize; 0]);
    }
}
