//! Tensors whose dimensions lie in another order on the device than callers see them in.

use crate::kernel::access::ordered_strides;

/// Where callers' tensors are row-major and the device's have their dimensions in `order`, outermost first: calls `each`
/// with the number of each element in the caller's and in the device's memory.
fn elements(shape: &[usize], order: &[usize], mut each: impl FnMut(usize, usize)) {
    let strides = ordered_strides(shape, order);
    let count: usize = shape.iter().product();
    let mut point = vec![0usize; shape.len()];
    let mut there = 0;
    for here in 0..count {
        each(here, there);
        for d in (0..shape.len()).rev() {
            let stride = strides[d] as usize;
            point[d] += 1;
            there += stride;
            if point[d] < shape[d] {
                break;
            }
            there -= stride * shape[d];
            point[d] = 0;
        }
    }
}

/// Copies a tensor as the device has it; an empty `order` is that of the shape.
///
/// # Panics
/// When either side has not `size` bytes for each element.
pub fn to_device(from: &[u8], into: &mut [u8], shape: &[usize], order: &[usize], size: usize) {
    assert_eq!(from.len(), into.len(), "a tensor has its bytes in any order");
    if order.is_empty() {
        return into.copy_from_slice(from);
    }
    elements(shape, order, |here, there| {
        into[there * size..][..size].copy_from_slice(&from[here * size..][..size]);
    });
}

/// The way back.
///
/// # Panics
/// As [`to_device`].
pub fn from_device(from: &[u8], into: &mut [u8], shape: &[usize], order: &[usize], size: usize) {
    assert_eq!(from.len(), into.len(), "a tensor has its bytes in any order");
    if order.is_empty() {
        return into.copy_from_slice(from);
    }
    elements(shape, order, |here, there| {
        into[here * size..][..size].copy_from_slice(&from[there * size..][..size]);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_transposed_on_its_way() {
        let mut there = [0u8; 6];
        to_device(&[1, 2, 3, 4, 5, 6], &mut there, &[2, 3], &[1, 0], 1);
        assert_eq!(there, [1, 4, 2, 5, 3, 6]);
    }

    #[test]
    fn every_order_comes_back_and_has_each_element_where_its_strides_say() {
        let shape = [2, 3, 1, 4];
        let from: Vec<u8> = (0..48).collect();
        for order in [[2, 3, 0, 1], [3, 2, 1, 0], [0, 1, 2, 3], [1, 3, 0, 2]] {
            let (mut there, mut back) = (vec![0; 48], vec![0; 48]);
            to_device(&from, &mut there, &shape, &order, 2);
            from_device(&there, &mut back, &shape, &order, 2);
            assert_eq!(back, from);
            // By the definition of the order: the inner dimensions' sizes multiply to a dimension's stride.
            let stride = |d: usize| -> usize {
                let place = order.iter().position(|&o| o == d).unwrap();
                order[place + 1..].iter().map(|&o| shape[o]).product()
            };
            for (i, element) in from.chunks_exact(2).enumerate() {
                let point = [i / 12, i / 4 % 3, 0, i % 4];
                let at: usize = (0..4).map(|d| point[d] * stride(d)).sum();
                assert_eq!(&there[2 * at..][..2], element);
            }
        }
        let mut same = vec![0; 48];
        to_device(&from, &mut same, &shape, &[], 2);
        assert_eq!(same, from);
    }

    #[test]
    fn a_scalar_has_one_element() {
        let mut there = [0u8; 4];
        to_device(&[1, 2, 3, 4], &mut there, &[], &[], 4);
        assert_eq!(there, [1, 2, 3, 4]);
    }
}
