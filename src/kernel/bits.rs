//! Draws of 0 or 1 that are kept as bits: see [`super::schedule::Storage::Bits`].

use super::access::Access;
use super::body::{Expr, Nest, Word};
use crate::types::Distribution;

/// What a nest draws that does nothing else.
#[derive(Debug, Clone, Copy)]
pub struct BitDraw<'n, B> {
    /// Of a 1.
    pub probability: f64,
    pub stream: u64,
    pub seed: &'n [Word<B>; 2],
    pub step: &'n Word<B>,
    /// From a point of the nest's space to the number of its element in the draw.
    pub access: &'n Access,
    /// What is filled: point after point, in the order of the space.
    pub buffer: &'n B,
}

/// The draw of a nest that only draws zeros and ones and fills a buffer with them.
pub fn bit_draw<B>(nest: &Nest<B>) -> Option<BitDraw<'_, B>> {
    let [sweep] = nest.sweeps.as_slice() else { return None };
    let [store] = sweep.stores.as_slice() else { return None };
    let reduces = nest.reduced.contains(&true) || !(sweep.reductions.is_empty() && sweep.kept_stores.is_empty());
    if reduces || nest.exprs.len() != 1 || !store.access.is_contiguous(&nest.space) {
        return None;
    }
    match nest.exprs.get(store.value)? {
        Expr::Random { distribution: Distribution::Bernoulli(p), stream, seed, step, access }
            if access.bounds.is_empty() =>
        {
            Some(BitDraw { probability: p.0, stream: *stream, seed, step, access, buffer: &store.buffer })
        }
        _ => None,
    }
}
