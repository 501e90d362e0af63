//! The order of vertices in each rank that lets few arrows cross (Sugiyama, Tagawa and Toda, "Methods for visual
//! understanding of hierarchical system structures", IEEE Trans. SMC 11(2), 1981; transposing neighbours as in Gansner
//! et al., "A technique for drawing directed graphs", IEEE TSE 19(3), 1993).

/// Sweeps over all ranks.
const SWEEPS: usize = 24;
/// Sweeps in a row that improve nothing, after which it is left at that.
const PATIENCE: usize = 6;
/// Passes that exchange neighbours, and the vertices up to which they are worth their time.
const EXCHANGES: usize = 6;
const MOST_TO_EXCHANGE: usize = 6_000;

/// What a vertex is joined with, one rank up and one rank down.
struct Joined {
    up: Vec<Vec<usize>>,
    down: Vec<Vec<usize>>,
}

/// The vertices of each rank from left to right. Every step goes from a rank to the next.
pub fn ordered(rank: &[usize], steps: &[(usize, usize)]) -> Vec<Vec<usize>> {
    let n = rank.len();
    let mut joined = Joined { up: vec![Vec::new(); n], down: vec![Vec::new(); n] };
    for &(from, to) in steps {
        joined.down[from].push(to);
        joined.up[to].push(from);
    }
    let mut rows = first_order(rank, &joined);
    let mut at = vec![0; n];
    number(&rows, &mut at);
    let mut best = (crossings(&rows, &joined, &at), rows.clone());
    let mut without_gain = 0;
    for sweep in 0..SWEEPS {
        if best.0 == 0 || without_gain == PATIENCE {
            break;
        }
        let down = sweep % 2 == 0;
        for step in 1..rows.len() {
            let row = if down { step } else { rows.len() - 1 - step };
            let neighbours = if down { &joined.up } else { &joined.down };
            by_barycentre(&mut rows[row], neighbours, &mut at);
        }
        without_gain += 1;
        let crossings = crossings(&rows, &joined, &at);
        if crossings < best.0 {
            best = (crossings, rows.clone());
            without_gain = 0;
        }
    }
    rows = best.1;
    number(&rows, &mut at);
    if best.0 > 0 && n <= MOST_TO_EXCHANGE {
        exchange(&mut rows, &joined, &mut at);
    }
    rows
}

/// In the order of a search in depth: what is joined starts out near.
fn first_order(rank: &[usize], joined: &Joined) -> Vec<Vec<usize>> {
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); rank.iter().max().map_or(0, |r| r + 1)];
    let mut seen = vec![false; rank.len()];
    for start in 0..rank.len() {
        let mut stack = vec![start];
        while let Some(v) = stack.pop() {
            if !std::mem::replace(&mut seen[v], true) {
                rows[rank[v]].push(v);
                stack.extend(joined.down[v].iter().rev().chain(joined.up[v].iter().rev()).filter(|&&w| !seen[w]));
            }
        }
    }
    rows
}

/// Writes each vertex's place in its rank.
fn number(rows: &[Vec<usize>], at: &mut [usize]) {
    rows.iter().for_each(|row| row.iter().enumerate().for_each(|(i, &v)| at[v] = i));
}

/// Sorts a rank by the mean place of what its vertices are joined with; what is joined with nothing stays.
fn by_barycentre(row: &mut [usize], neighbours: &[Vec<usize>], at: &mut [usize]) {
    let mean = |v: usize| neighbours[v].iter().map(|&w| at[w] as f64).sum::<f64>() / neighbours[v].len() as f64;
    let places: Vec<usize> = (0..row.len()).filter(|&i| !neighbours[row[i]].is_empty()).collect();
    let mut sorted: Vec<(f64, usize)> = places.iter().map(|&i| (mean(row[i]), row[i])).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    places.into_iter().zip(sorted).for_each(|(i, (_, v))| row[i] = v);
    row.iter().enumerate().for_each(|(i, &v)| at[v] = i);
}

/// How many pairs of steps cross.
fn crossings(rows: &[Vec<usize>], joined: &Joined, at: &[usize]) -> u64 {
    let mut sum = 0;
    for pair in rows.windows(2) {
        // Ends below, in the order of the ends above: pairs out of order cross. A tree of sums counts them
        // (Barth, Mutzel and Jünger, "Simple and efficient bilayer cross counting", JGAA 8(2), 2004).
        let mut tree = vec![0u64; pair[1].len() + 1];
        let mut before = 0;
        for &v in &pair[0] {
            let mut ends: Vec<usize> = joined.down[v].iter().map(|&w| at[w]).collect();
            ends.sort_unstable();
            for &end in &ends {
                let (mut i, mut up_to) = (end + 1, 0);
                while i > 0 {
                    up_to += tree[i];
                    i &= i - 1;
                }
                sum += before - up_to;
            }
            for &end in &ends {
                let mut i = end + 1;
                while i < tree.len() {
                    tree[i] += 1;
                    i += i & i.wrapping_neg();
                }
            }
            before += ends.len() as u64;
        }
    }
    sum
}

/// Exchanges neighbours in a rank where fewer steps cross then.
fn exchange(rows: &mut [Vec<usize>], joined: &Joined, at: &mut [usize]) {
    for _ in 0..EXCHANGES {
        let mut is_better = false;
        for row in rows.iter_mut() {
            for i in 1..row.len() {
                let (v, w) = (row[i - 1], row[i]);
                let [mut now, mut then] = [0, 0];
                for neighbours in [&joined.up, &joined.down] {
                    let (a, b) = out_of_order(&neighbours[v], &neighbours[w], at);
                    now += a;
                    then += b;
                }
                if then < now {
                    row.swap(i - 1, i);
                    (at[w], at[v]) = (i - 1, i);
                    is_better = true;
                }
            }
        }
        if !is_better {
            break;
        }
    }
}

/// The pairs of steps that cross where one vertex is left of the other, and where it is right.
fn out_of_order(left: &[usize], right: &[usize], at: &[usize]) -> (u64, u64) {
    let places = |of: &[usize]| {
        let mut places: Vec<usize> = of.iter().map(|&v| at[v]).collect();
        places.sort_unstable();
        places
    };
    let (left, right) = (places(left), places(right));
    let below = |of: &[usize], than: usize| of.partition_point(|&place| place < than) as u64;
    (left.iter().map(|&place| below(&right, place)).sum(), right.iter().map(|&place| below(&left, place)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_need_not_cross_does_not() {
        // Two arrows drawn crosswise, and a third vertex in between.
        let rows = ordered(&[0, 0, 0, 1, 1, 1], &[(0, 5), (1, 4), (2, 3)]);
        let place = |row: usize, v: usize| rows[row].iter().position(|&w| w == v).unwrap();
        assert_eq!([place(0, 0), place(0, 1), place(0, 2)], [place(1, 5), place(1, 4), place(1, 3)]);
    }

    #[test]
    fn crossings_are_counted() {
        let joined = Joined { up: Vec::new(), down: vec![vec![3, 2], vec![2], Vec::new(), Vec::new()] };
        let (rows, at) = ([vec![0, 1], vec![2, 3]], [0, 1, 0, 1]);
        assert_eq!(crossings(&rows, &joined, &at), 1);
        assert_eq!(out_of_order(&[3, 2], &[2], &at), (1, 1 - 1));
        assert_eq!(out_of_order(&[2], &[3, 2], &at), (0, 1));
    }
}
