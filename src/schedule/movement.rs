//! Movement operations as views: nothing is moved inside a kernel, each changes how a leaf is read.

use crate::ir::Op;
use crate::kernel::access::Access;

/// The access through one more movement operation, from `shape` to `to`.
///
/// `None` where no single access expresses it: a reshape across strides or bounds that do not line up; or `Concat`,
/// which does not access one operand.
pub fn through(access: &Access, op: &Op, shape: &[usize], to: &[usize]) -> Option<Access> {
    match op {
        Op::Reshape { .. } => access.reshaped(shape, to),
        Op::Transpose { permutation } => Some(access.permuted(permutation)),
        Op::Broadcast { .. } => Some(access.broadcast(shape, to)),
        Op::Pad { low, .. } => Some(access.shifted(shape, to, |d| -(low[d] as isize))),
        Op::Slice { start, .. } => Some(access.shifted(shape, to, |d| start[d] as isize)),
        Op::Reverse { axes } => Some(access.reversed(shape, axes)),
        // With the taps as dimensions of their own.
        Op::Im2col { window, .. } => Some(access.windows(shape, window).normalised(to)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::access::contiguous_strides;
    use proptest::prelude::*;

    /// The elements that an access reads over a shape, `None` outside the bounds, in row-major order.
    fn elements(access: &Access, shape: &[usize]) -> Vec<Option<isize>> {
        let total: usize = shape.iter().product();
        (0..total)
            .map(|mut linear| {
                let mut index = vec![0; shape.len()];
                for d in (0..shape.len()).rev() {
                    index[d] = linear % shape[d];
                    linear /= shape[d];
                }
                access.element(&index).map(|element| element as isize)
            })
            .collect()
    }

    fn movement() -> impl Strategy<Value = Vec<(u8, u64)>> {
        prop::collection::vec((0u8..6, any::<u64>()), 0..6)
    }

    /// A movement operation on `shape` picked by `choice` and `seed`, with its result's shape.
    fn pick(choice: u8, mut seed: u64, shape: &[usize]) -> (Op, Vec<usize>) {
        let mut next = |bound: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize % bound.max(1)
        };
        let rank = shape.len();
        match choice {
            0 => {
                let mut p: Vec<usize> = (0..rank).collect();
                (1..rank).for_each(|i| p.swap(i, next(i + 1)));
                let to = p.iter().map(|&d| shape[d]).collect();
                (Op::Transpose { permutation: p }, to)
            }
            1 => {
                let to: Vec<usize> = shape.iter().map(|&s| if s == 1 { 1 + next(3) } else { s }).collect();
                (Op::Broadcast { to: to.clone() }, to)
            }
            2 => {
                let low: Vec<usize> = shape.iter().map(|_| next(3)).collect();
                let high: Vec<usize> = shape.iter().map(|_| next(2)).collect();
                let to = (0..rank).map(|d| low[d] + shape[d] + high[d]).collect();
                (Op::Pad { low, high }, to)
            }
            3 => {
                let start: Vec<usize> = shape.iter().map(|&s| next(s)).collect();
                let end: Vec<usize> = (0..rank).map(|d| start[d] + 1 + next(shape[d] - start[d])).collect();
                let to = (0..rank).map(|d| end[d] - start[d]).collect();
                (Op::Slice { start, end }, to)
            }
            4 => {
                let axes: Vec<usize> = (0..rank).filter(|_| next(2) == 1).collect();
                (Op::Reverse { axes }, shape.to_vec())
            }
            _ => {
                let mut to = shape.to_vec();
                if rank >= 2 && next(2) == 0 {
                    let d = next(rank - 1);
                    to[d] *= to.remove(d + 1);
                } else {
                    let d = next(rank + 1);
                    to.insert(d, 1);
                    if d < rank && to[d + 1].is_multiple_of(2) {
                        to[d] = 2;
                        to[d + 1] /= 2;
                    }
                }
                (Op::Reshape { to: to.clone() }, to)
            }
        }
    }

    /// What a movement operation does to a row-major list of elements, by definition.
    fn moved(op: &Op, data: &[Option<isize>], shape: &[usize], to: &[usize]) -> Vec<Option<isize>> {
        let total: usize = to.iter().product();
        let strides = contiguous_strides(shape);
        (0..total)
            .map(|linear| {
                let mut rest = linear;
                let mut index = vec![0isize; to.len()];
                for d in (0..to.len()).rev() {
                    index[d] = (rest % to[d]) as isize;
                    rest /= to[d];
                }
                let source: Vec<isize> = match op {
                    Op::Reshape { .. } => return data[linear],
                    Op::Transpose { permutation } => {
                        let mut s = vec![0; shape.len()];
                        permutation.iter().enumerate().for_each(|(d, &p)| s[p] = index[d]);
                        s
                    }
                    Op::Broadcast { .. } => (0..to.len()).map(|d| if shape[d] == 1 { 0 } else { index[d] }).collect(),
                    Op::Pad { low, .. } => (0..to.len()).map(|d| index[d] - low[d] as isize).collect(),
                    Op::Slice { start, .. } => (0..to.len()).map(|d| index[d] + start[d] as isize).collect(),
                    Op::Reverse { axes } => (0..to.len())
                        .map(|d| if axes.contains(&d) { shape[d] as isize - 1 - index[d] } else { index[d] })
                        .collect(),
                    _ => unreachable!("not picked"),
                };
                if source.iter().zip(shape).any(|(&i, &size)| i < 0 || i >= size as isize) {
                    return None;
                }
                let at: isize = source.iter().zip(&strides).map(|(i, s)| i * s).sum();
                data[at as usize]
            })
            .collect()
    }

    proptest! {
        #[test]
        fn a_chain_of_movements_reads_what_its_definition_says(
            shape in prop::collection::vec(1usize..5, 0..4), chain in movement(),
        ) {
            let mut shape = shape;
            let mut access = Access::contiguous(&shape);
            let mut data: Vec<Option<isize>> = (0..shape.iter().product::<usize>() as isize).map(Some).collect();
            for (choice, seed) in chain {
                let (op, to) = pick(choice, seed, &shape);
                let Some(next) = through(&access, &op, &shape, &to) else { break };
                data = moved(&op, &data, &shape, &to);
                access = next;
                shape = to;
                prop_assert_eq!(elements(&access, &shape), data.clone(), "after {:?}", op);
                if let Some((least, greatest)) = access.element_range(&shape).unwrap() {
                    let inside: Vec<isize> = data.iter().flatten().copied().collect();
                    prop_assert!(inside.iter().all(|element| (least..=greatest).contains(element)));
                } else {
                    prop_assert!(data.iter().all(Option::is_none));
                }
            }
        }
    }

    #[test]
    fn a_transposed_matrix_is_not_flat() {
        let transpose = Op::Transpose { permutation: vec![1, 0] };
        let access = through(&Access::contiguous(&[3, 4]), &transpose, &[3, 4], &[4, 3]);
        assert_eq!(through(&access.unwrap(), &Op::Reshape { to: vec![12] }, &[4, 3], &[12]), None);
    }
}
