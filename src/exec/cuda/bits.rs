//! Draws of 0 or 1 as bits: what is one draw's own beside the functions of `kernels/philox.cuh`.

use super::expr::{Expressions, literal};
use super::index::{POINT, Points};
use super::names::Names;
use super::nest::{MOST_BLOCKS, NestCode, THREADS, declaration, describe, indented, pointers_of, space_of, touched};
use crate::kernel::access::{Access, contiguous_strides};
use crate::kernel::bits::{BitDraw, bit_draw};
use crate::kernel::body::{BufferId, Nest};
use crate::plan::{Buffer, DType, Storage};

const WORD: usize = 32;

/// How the elements of a buffer of bits are numbered in the draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// As they lie in memory.
    Own,
    /// The buffer is a matrix, row by row, of which the draw has one column after the other. Columns are whole words.
    Columns {
        rows: usize,
        columns: usize,
    },
    Any,
}

impl Order {
    fn of(access: &Access, space: &[usize]) -> Order {
        if access.is_contiguous(space) {
            return Order::Own;
        }
        let by_columns = |&split: &usize| {
            let (outer, inner) = space.split_at(split);
            let rows: usize = outer.iter().product();
            let down = contiguous_strides(inner).into_iter().map(|stride| stride * rows as isize);
            let strides: Vec<isize> = contiguous_strides(outer).into_iter().chain(down).collect();
            access.offset == 0 && access.strides == strides && inner.iter().product::<usize>().is_multiple_of(WORD)
        };
        let split = (1..space.len()).find(by_columns);
        let sizes = split.map(|split| space.split_at(split)).map(|(a, b)| (a.iter().product(), b.iter().product()));
        sizes.map_or(Order::Any, |(rows, columns)| Order::Columns { rows, columns })
    }
}

/// Renders a nest that fills a buffer of bits; `None` for others.
pub fn render(nest: &Nest<BufferId>, buffers: &[Buffer], block: &str, blocks: &str) -> Option<NestCode> {
    let BitDraw { probability, stream, seed, step, access, buffer } = bit_draw(nest)?;
    if buffers[buffer.index()].storage != Storage::Bits {
        return None;
    }
    let elements: usize = nest.space.iter().product();
    let mut names = Names::default();
    let (reads, writes) = touched(nest);
    let pointers = pointers_of(&mut names, &reads, &writes, buffers);
    let mut lines = vec![format!("// {}, as bits", describe(nest))];
    lines.extend(pointers.iter().map(|(&b, name)| declaration(&buffers[b.index()], name, writes.contains(&b))));
    let mut expressions = Expressions::new(nest, buffers, &pointers, space_of(nest), names, POINT);
    let (draw, line) = expressions.draw(stream, seed, step);
    lines.push(line);
    let words = &pointers[buffer];
    let p = literal(probability, DType::F32);
    let count = elements.div_ceil(WORD);
    let threads = match Order::of(access, &nest.space) {
        Order::Own => {
            lines.push(format!("draw_words<{count}>({words}, {draw}, {p}, {block}, {blocks});"));
            count
        }
        Order::Columns { rows, columns } => {
            lines.push(format!("draw_columns<{rows}, {columns}>({words}, {draw}, {p}, {block}, {blocks});"));
            // A warp for each run of rows: see the function.
            columns * rows.div_ceil(64)
        }
        Order::Any => {
            let element = expressions.space.element(access, Points::Full);
            let word = expressions.names.fresh("word");
            let is_one = format!("i < {elements} && bernoulli({draw}, {element}, {p}) != 0.0f");
            let mut body = expressions.space.declarations(POINT);
            body.push(format!("const unsigned {word} = __ballot_sync(0xffffffffu, {is_one});"));
            body.push(format!("if (i % 32 == 0) {words}[i / 32] = {word};"));
            lines.push(format!(
                "for (unsigned i = {block} * blockDim.x + threadIdx.x; i < {}; i += {blocks} * blockDim.x) {{",
                count * WORD
            ));
            lines.extend(indented(body));
            lines.push("}".to_string());
            count * WORD
        }
    };
    Some(NestCode { lines, blocks: threads.div_ceil(THREADS).min(MOST_BLOCKS), threads: THREADS })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_s_order_is_seen_from_where_its_elements_lie() {
        // [n][c][h][w] = [4][8][3][5], walked pixel by pixel.
        let space = [3, 5, 4, 8];
        let strides = vec![5, 1, 120, 15];
        let access = Access { offset: 0, strides, bounds: Vec::new() };
        assert_eq!(Order::of(&access, &space), Order::Columns { rows: 15, columns: 32 });
        assert_eq!(Order::of(&Access::contiguous(&space), &space), Order::Own);
        assert_eq!(Order::of(&Access::contiguous(&[7]), &[7]), Order::Own);
        // 4 x 7 columns are no whole words.
        let few = Access { offset: 0, strides: vec![5, 1, 105, 15], bounds: Vec::new() };
        assert_eq!(Order::of(&few, &[3, 5, 4, 7]), Order::Any);
        // Channels before images.
        let other = Access { offset: 0, strides: vec![5, 1, 15, 120], bounds: Vec::new() };
        assert_eq!(Order::of(&other, &[3, 5, 8, 4]), Order::Any);
    }
}
