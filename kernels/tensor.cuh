// Matrix products by tensor cores: one tile of results for each block of 128 threads, on sm_80 and newer.
//
// A piece of each operand, 128 bytes deep, is copied to shared memory while earlier ones are multiplied; each of the
// four warps has a quarter of the tile, a matrix of 16 x 8 results for each multiplication of the tensor cores. Taps of a
// convolution that fall on padding are not computed: which there are is the same for all threads of a block.
//
// `Product` is written for each kernel. It has
//   POINTS: how many places there are where tiles of ROWS x COLUMNS results are computed (the pixels of a convolution's output);
//   DEPTH: the terms of one tap, and PARTS in which all terms are added by different blocks;
//   TILE_ROWS, TILE_COLUMNS, STAGES: the tile, and how many pieces of operands are in shared memory;
//   MATH: what operands are in memory, and how they are rounded;
//   A_ALONG_DEPTH, A_LINE, A_OUTER, A_INNER: whether elements are next to each other along the depth (else along the rows), how
//     far apart lines of them are, and the strides of the two loops over taps; the same of B;
//   A_COPY: how many bytes of it are copied at a time, 16 or 8; the same of B;
//   A_PROLOGUE: whether a is computed of what is copied, floats, by prologue_a(arena, point, outer, inner, row, depth, element),
//     with the row and the depth of the whole product; the same of B, with a column in place of the row;
//   STORE_ALONG_ROWS: whether neighbouring rows of the output are neighbours in memory;
//   point(number): the points in the order in which their blocks start, those with the most taps first;
//   a(arena), b(arena): the operands;
//   place(point): where they start, and which taps there are;
//   store(arena, part, point, row, column, sum): what is done with a sum;
//   KEPT: of which results there are reductions; where of less than all, `store` gives VALUES values that are reduced, each to
//     a number of its own, start(values) and combine(values, others) are how, and partials(arena) is where the results of tiles
//     go: PARTIALS of the first value, then those of the next; value number DEVIATED (of whole tiles; VALUES: none) is also reduced
//     to the sum of squared deviations from its mean over the tile, which is behind all others.

enum class Math {
    TF32,         // operands rounded to tf32
    TF32_STORED,  // operands that are rounded to tf32 in memory
    TF32X3,       // each operand as a sum of two tf32: three products, and the sum moved to f32 every 128 terms
    BF16,         // operands rounded to bf16
    BF16_STORED,  // operands that are bf16 in memory
};

// What the values of a tile are reduced to: a result for each row, one for each column, or one for all. ALL: not at all.
enum class Kept { ALL, ROWS, COLUMNS, NEITHER };

// --- What a warp does together ----------------------------------------------------------------
// All 32 lanes call these.

#ifndef GCC_GAN_HOST
static __device__ __forceinline__ unsigned shared_address(const void* pointer) {
    return (unsigned)__cvta_generic_to_shared(pointer);
}

static __device__ __forceinline__ float* shared_floats() {
    extern __shared__ __align__(128) float floats[];
    return floats;
}

// Starts to copy 16 or 8 bytes to shared memory, of which all but the first `bytes` are zeros and not read.
template <unsigned SIZE>
static __device__ __forceinline__ void start_copy(void* to, const void* from, unsigned bytes) {
    if (SIZE == 16) {
        asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes));
    } else {
        asm volatile("cp.async.ca.shared.global.L2::128B [%0], [%1], 8, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes));
    }
}

// Ends a group of copies.
static __device__ __forceinline__ void end_copies() { asm volatile("cp.async.commit_group;"); }

// Waits until all but the last `LEFT` groups of this thread are there.
template <int LEFT>
static __device__ __forceinline__ void await_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

// Four matrices of 8 lines of 4 words; lane l gives where line l % 8 of matrix l / 8 is, and gets word l % 4 of line l / 4
// of each.
static __device__ __forceinline__ void load_matrices(unsigned (&to)[4], const void* line) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(line)));
}

// The same of matrices of 8 lines of 8 bf16, but the lane gets element l / 4 of line l % 4 * 2 and of the one after.
static __device__ __forceinline__ void load_transposed(unsigned (&to)[4], const void* line) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(line)));
}

// sums += a * b for a of 16 x 8, b of 8 x 8, in tf32. Lane l = 4g + t has of a the elements (g, t), (g + 8, t), (g, t + 4),
// (g + 8, t + 4), of b (t, g), (t + 4, g), and of the sums (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
static __device__ __forceinline__ void multiply_tf32(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The same for a of 16 x 16, b of 16 x 8, in bf16: each word has two elements, of depth 2t and 2t + 1 where the above has t, of
// 2t + 8 and 2t + 9 where it has t + 4.
static __device__ __forceinline__ void multiply_bf16(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// A float rounded to tf32, both as their bits.
static __device__ __forceinline__ unsigned to_tf32(unsigned x) {
    unsigned rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__int_as_float((int)x)));
    return rounded;
}

// Two floats rounded to bf16, the first in the lower half.
static __device__ __forceinline__ unsigned pack_bf16(unsigned low, unsigned high) {
    unsigned packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(__int_as_float((int)high)), "f"(__int_as_float((int)low)));
    return packed;
}
#endif

// --- Taps -------------------------------------------------------------------------------------

// The iterations of a loop: from `first` up to before `last`.
struct Range {
    int first, last;
    __device__ unsigned count() const { return last > first ? (unsigned)(last - first) : 0; }
};

// Where a block's operands start, and its taps.
struct Place {
    unsigned a, b;
    Range outer, inner;
};

// The iterations i of a loop with 0 <= base + step * i < below.
static __device__ __forceinline__ Range within(Range range, int base, int step, int below) {
    if (step == 0) {
        if (base < 0 || base >= below) range.last = range.first;
        return range;
    }
    const int first = base < 0 ? (-base + step - 1) / step : 0;
    const int last = base < below ? (below - base + step - 1) / step : 0;
    return {max(range.first, first), min(range.last, last)};
}

// What a block computes, a tile of one point and a part of its terms, and how far it has come through the pieces of that part.
// Those of all taps are one after the other, each STEP deep.
template <class Product, unsigned STEP>
struct Walk {
    static constexpr unsigned TILES_DOWN = (Product::ROWS + Product::TILE_ROWS - 1) / Product::TILE_ROWS;
    static constexpr unsigned TILES_ACROSS = (Product::COLUMNS + Product::TILE_COLUMNS - 1) / Product::TILE_COLUMNS;
    static constexpr unsigned PIECES = (Product::DEPTH + STEP - 1) / STEP;  // of a tap

    unsigned row0, column0, part, point;
    unsigned count;  // how many pieces there are
    Place place;
    unsigned piece, outer, inner;  // the next: its number in its tap, and the tap, whose indices wrap around below 0 and back

    __device__ __forceinline__ explicit Walk(unsigned block) {
        column0 = block % TILES_ACROSS * Product::TILE_COLUMNS;
        row0 = block / TILES_ACROSS % TILES_DOWN * Product::TILE_ROWS;
        part = block / (TILES_ACROSS * TILES_DOWN) % Product::PARTS;
        point = Product::point(block / (TILES_ACROSS * TILES_DOWN * Product::PARTS));
        place = Product::place(point);
        const unsigned taps_across = place.inner.count(), pieces = place.outer.count() * taps_across * PIECES;
        const unsigned first = (unsigned)((unsigned long long)pieces * part / Product::PARTS);
        const unsigned last = (unsigned)((unsigned long long)pieces * (part + 1) / Product::PARTS);
        count = last - first;
        const unsigned tap = taps_across == 0 ? 0 : first / PIECES;
        piece = first % PIECES;
        outer = (unsigned)place.outer.first + (taps_across == 0 ? 0 : tap / taps_across);
        inner = (unsigned)place.inner.first + (taps_across == 0 ? 0 : tap % taps_across);
    }

    // Where the next piece starts: its depth in its tap, and its first element of a's first row, and of b's first column, of the
    // tile.
    __device__ __forceinline__ unsigned depth() const { return piece * STEP; }
    __device__ __forceinline__ unsigned a() const {
        return place.a + outer * (unsigned)Product::A_OUTER + inner * (unsigned)Product::A_INNER +
               (Product::A_ALONG_DEPTH ? depth() : depth() * Product::A_LINE);
    }
    __device__ __forceinline__ unsigned b() const {
        return place.b + outer * (unsigned)Product::B_OUTER + inner * (unsigned)Product::B_INNER +
               (Product::B_ALONG_DEPTH ? depth() : depth() * Product::B_LINE);
    }

    __device__ __forceinline__ void advance() {
        if (++piece == PIECES) {
            piece = 0;
            if (++inner == (unsigned)place.inner.last) {
                inner = (unsigned)place.inner.first;
                ++outer;
            }
        }
    }
};

// --- Pieces of operands in shared memory ------------------------------------------------------

static constexpr unsigned THREADS = 128;  // of a block

// Puts prologue(row, depth, element) in the place of the first `elements` of four in shared memory, whose rows or (ALONG_DEPTH)
// depths rise by one.
template <bool ALONG_DEPTH, class Prologue>
static __device__ __forceinline__ void compute_four(float* four, unsigned elements, unsigned row, unsigned depth, Prologue prologue) {
    float4 x = *(const float4*)four;
    if (elements > 0) x.x = prologue(row, depth, x.x);
    if (elements > 1) x.y = prologue(ALONG_DEPTH ? row : row + 1, ALONG_DEPTH ? depth + 1 : depth, x.y);
    if (elements > 2) x.z = prologue(ALONG_DEPTH ? row : row + 2, ALONG_DEPTH ? depth + 2 : depth, x.z);
    if (elements > 3) x.w = prologue(ALONG_DEPTH ? row : row + 3, ALONG_DEPTH ? depth + 3 : depth, x.w);
    *(float4*)four = x;
}

// A piece of an operand of floats, or of bf16 as unsigned short: ROWS rows of a (or columns of b), STEP deep.
//
// Where elements lie along the depth, a row is a line of 128 bytes, whose eight runs of 16 bytes are permuted by the row so that
// eight rows of one run are in different banks. Else a line is all rows at one depth, and groups of eight rows are permuted by
// the depth.
template <class Element, unsigned ROWS, bool ALONG_DEPTH>
struct Piece {
    static constexpr unsigned RUN = 16 / sizeof(Element), STEP = 8 * RUN;
    static constexpr unsigned ELEMENTS = ROWS * STEP;
    static constexpr bool IS_HALF = sizeof(Element) == 2;

    static __device__ __forceinline__ unsigned at(unsigned row, unsigned depth) {
        return ALONG_DEPTH ? row * STEP + (depth ^ row % 8 * RUN) : depth * ROWS + (row ^ depth % RUN * 8);
    }

    // Gives the runs of COPIED elements that this thread copies to visit(i, row, depth, elements): a line's number from its first
    // on, where the run starts in the piece, and how many of its elements are inside an operand of SIZE rows and DEPTH terms.
    template <unsigned SIZE, unsigned DEPTH, unsigned COPIED, class Visit>
    static __device__ __forceinline__ void each_run(unsigned row0, unsigned depth0, Visit visit) {
        constexpr unsigned COPIES = (ALONG_DEPTH ? STEP : ROWS) / COPIED, LINES = ALONG_DEPTH ? ROWS : STEP;
        const unsigned first = threadIdx.x / COPIES, start = threadIdx.x % COPIES * COPIED;
#pragma unroll
        for (unsigned i = 0; i < LINES; i += THREADS / COPIES) {
            const unsigned line = first + i, row = ALONG_DEPTH ? line : start, depth = ALONG_DEPTH ? start : line;
            unsigned elements = COPIED;
            if (SIZE % ROWS != 0) elements = min(elements, left(SIZE, row0 + row, ALONG_DEPTH));
            if (DEPTH % STEP != 0) elements = min(elements, left(DEPTH, depth0 + depth, !ALONG_DEPTH));
            visit(i, row, depth, elements);
        }
    }

    // Starts the copy of a piece of an operand, with zeros beyond its rows and terms; `from` is where the piece starts, LINE how
    // far apart its lines are, and COPY how many bytes are copied at a time.
    template <unsigned SIZE, unsigned DEPTH, unsigned LINE, unsigned COPY>
    static __device__ __forceinline__ void copy(Element* piece, const Element* from, unsigned row0, unsigned depth0) {
        constexpr unsigned COPIED = COPY / sizeof(Element), COPIES = (ALONG_DEPTH ? STEP : ROWS) / COPIED;
        from += threadIdx.x / COPIES * LINE + threadIdx.x % COPIES * COPIED;
        each_run<SIZE, DEPTH, COPIED>(row0, depth0, [&](unsigned i, unsigned row, unsigned depth, unsigned elements) {
            start_copy<COPY>(piece + at(row, depth), from + (size_t)i * LINE, elements * (unsigned)sizeof(Element));
        });
    }

    // Computes a prologue of what this thread has copied, when that is there; zeros beyond rows and terms stay.
    template <unsigned SIZE, unsigned DEPTH, unsigned COPY, class Prologue>
    static __device__ __forceinline__ void compute(float* piece, unsigned row0, unsigned depth0, Prologue prologue) {
        static_assert(COPY == 16, "a thread has copied four floats at a time");
        each_run<SIZE, DEPTH, 4>(row0, depth0, [&](unsigned, unsigned row, unsigned depth, unsigned elements) {
            compute_four<ALONG_DEPTH>(piece + at(row, depth), elements, row0 + row, depth0 + depth, prologue);
        });
    }

    // Elements from an index on that are inside a dimension of `size`, of which all or (else) each element is at another index.
    static __device__ __forceinline__ unsigned left(unsigned size, unsigned index, bool all) {
        return index >= size ? 0 : all ? RUN : size - index;
    }

    // Which row of its warp's quarter is row g (+ 8 where `half` is 1) of matrix i: lanes read four neighbours at a time
    // where rows of floats are neighbours.
    static __device__ __forceinline__ unsigned row_of(unsigned i, unsigned half, unsigned g) {
        return ALONG_DEPTH || IS_HALF ? 16 * i + 8 * half + g : 32 * (i / 2) + 4 * g + 2 * (i % 2) + half;
    }

    // The matrices of 16 rows and 32 bytes of depth from a row and a depth on, spread over the lanes as `multiply_tf32` has
    // them of floats, and `multiply_bf16` of bf16.
    template <unsigned COUNT>
    static __device__ __forceinline__ void load(unsigned (&to)[COUNT][4], const Element* piece, unsigned row, unsigned depth) {
        const unsigned lane = threadIdx.x % 32;
        if (ALONG_DEPTH) {
#pragma unroll
            for (unsigned i = 0; i < COUNT; ++i) {
                load_matrices(to[i], piece + at(row + 16 * i + lane % 16, depth + lane / 16 * RUN));
            }
        } else if (IS_HALF) {
#pragma unroll
            for (unsigned i = 0; i < COUNT; ++i) {
                load_transposed(to[i], piece + at(row + 16 * i + lane / 8 % 2 * 8, depth + lane / 16 * 8 + lane % 8));
            }
        } else {
#pragma unroll
            for (unsigned i = 0; i < COUNT; i += 2) {
                const unsigned from = row + 16 * i + lane / 4 * 4;
                const uint4 near = *(const uint4*)(piece + at(from, depth + lane % 4));
                const uint4 far = *(const uint4*)(piece + at(from, depth + lane % 4 + 4));
                to[i][0] = near.x, to[i][1] = near.y, to[i + 1][0] = near.z, to[i + 1][1] = near.w;
                to[i][2] = far.x, to[i][3] = far.y, to[i + 1][2] = far.z, to[i + 1][3] = far.w;
            }
        }
    }
};

// Computes the prologues of a product on its pieces at `walk`, where it has some, and goes on to the next.
template <class Product, class A, class B, class Copied>
static __device__ __forceinline__ void compute_prologues(const unsigned char* arena, Walk<Product, A::STEP>& walk, Copied* a,
                                                         Copied* b) {
    if constexpr (Product::A_PROLOGUE) {
        auto prologue = [&](unsigned row, unsigned depth, float element) {
            return Product::prologue_a(arena, walk.point, walk.outer, walk.inner, row, depth, element);
        };
        A::template compute<Product::ROWS, Product::DEPTH, Product::A_COPY>(a, walk.row0, walk.depth(), prologue);
    }
    if constexpr (Product::B_PROLOGUE) {
        auto prologue = [&](unsigned column, unsigned depth, float element) {
            return Product::prologue_b(arena, walk.point, walk.outer, walk.inner, column, depth, element);
        };
        B::template compute<Product::COLUMNS, Product::DEPTH, Product::B_COPY>(b, walk.column0, walk.depth(), prologue);
    }
    if constexpr (Product::A_PROLOGUE || Product::B_PROLOGUE) walk.advance();
}

// --- The product of two pieces ----------------------------------------------------------------

template <Math MATH>
struct Multiply;

template <bool ROUNDED>
struct MultiplyTf32 {
    typedef float Element;
    static constexpr unsigned PROMOTED = 0;  // pieces after which the sums move to f32; 0 never

    template <class A, class B, unsigned DOWN, unsigned ACROSS>
    static __device__ __forceinline__ void pieces(float (&sums)[DOWN][2 * ACROSS][4], const float* a_piece,
                                                  const float* b_piece, unsigned row, unsigned column) {
#pragma unroll
        for (unsigned depth = 0; depth < A::STEP; depth += 8) {
            unsigned a[DOWN][4], b[ACROSS][4];
            A::load(a, a_piece, row, depth);
            B::load(b, b_piece, column, depth);
            if (!ROUNDED) {
#pragma unroll
                for (unsigned i = 0; i < DOWN; ++i) {
#pragma unroll
                    for (unsigned e = 0; e < 4; ++e) a[i][e] = to_tf32(a[i][e]);
                }
#pragma unroll
                for (unsigned j = 0; j < ACROSS; ++j) {
#pragma unroll
                    for (unsigned e = 0; e < 4; ++e) b[j][e] = to_tf32(b[j][e]);
                }
            }
#pragma unroll
            for (unsigned i = 0; i < DOWN; ++i) {
#pragma unroll
                for (unsigned j = 0; j < 2 * ACROSS; ++j) {
                    multiply_tf32(sums[i][j], a[i], b[j / 2][j % 2], b[j / 2][j % 2 + 2]);
                }
            }
        }
    }
};

template <>
struct Multiply<Math::TF32> : MultiplyTf32<false> {};

template <>
struct Multiply<Math::TF32_STORED> : MultiplyTf32<true> {};

// x = high + low up to 2^-22 of x; the product of two low parts is less than that.
template <>
struct Multiply<Math::TF32X3> {
    typedef float Element;
    static constexpr unsigned PROMOTED = 4;  // tensor cores add with truncation

    template <unsigned COUNT>
    static __device__ __forceinline__ void split(unsigned (&high)[COUNT][4], unsigned (&low)[COUNT][4]) {
#pragma unroll
        for (unsigned i = 0; i < COUNT; ++i) {
#pragma unroll
            for (unsigned e = 0; e < 4; ++e) {
                const float x = __int_as_float((int)high[i][e]);
                high[i][e] = to_tf32(high[i][e]);
                low[i][e] = to_tf32((unsigned)__float_as_int(x - __int_as_float((int)high[i][e])));
            }
        }
    }

    template <class A, class B, unsigned DOWN, unsigned ACROSS>
    static __device__ __forceinline__ void pieces(float (&sums)[DOWN][2 * ACROSS][4], const float* a_piece,
                                                  const float* b_piece, unsigned row, unsigned column) {
#pragma unroll
        for (unsigned depth = 0; depth < A::STEP; depth += 8) {
            unsigned a[DOWN][4], b[ACROSS][4], a_low[DOWN][4], b_low[ACROSS][4];
            A::load(a, a_piece, row, depth);
            B::load(b, b_piece, column, depth);
            split(a, a_low);
            split(b, b_low);
#pragma unroll
            for (unsigned i = 0; i < DOWN; ++i) {
#pragma unroll
                for (unsigned j = 0; j < 2 * ACROSS; ++j) {
                    multiply_tf32(sums[i][j], a_low[i], b[j / 2][j % 2], b[j / 2][j % 2 + 2]);
                    multiply_tf32(sums[i][j], a[i], b_low[j / 2][j % 2], b_low[j / 2][j % 2 + 2]);
                    multiply_tf32(sums[i][j], a[i], b[j / 2][j % 2], b[j / 2][j % 2 + 2]);
                }
            }
        }
    }
};

template <>
struct Multiply<Math::BF16_STORED> {
    typedef unsigned short Element;
    static constexpr unsigned PROMOTED = 0;

    template <class A, class B, unsigned DOWN, unsigned ACROSS>
    static __device__ __forceinline__ void pieces(float (&sums)[DOWN][2 * ACROSS][4], const Element* a_piece,
                                                  const Element* b_piece, unsigned row, unsigned column) {
#pragma unroll
        for (unsigned depth = 0; depth < A::STEP; depth += 16) {
            unsigned a[DOWN][4], b[ACROSS][4];
            A::load(a, a_piece, row, depth);
            B::load(b, b_piece, column, depth);
#pragma unroll
            for (unsigned i = 0; i < DOWN; ++i) {
#pragma unroll
                for (unsigned j = 0; j < 2 * ACROSS; ++j) {
                    multiply_bf16(sums[i][j], a[i], b[j / 2][j % 2], b[j / 2][j % 2 + 2]);
                }
            }
        }
    }
};

// The terms are paired in another order than they are in memory, the same for both operands: t with t + 4.
template <>
struct Multiply<Math::BF16> {
    typedef float Element;
    static constexpr unsigned PROMOTED = 0;

    template <class Operand, unsigned COUNT>
    static __device__ __forceinline__ void load(unsigned (&to)[COUNT][4], const float* piece, unsigned row, unsigned depth) {
#pragma unroll
        for (unsigned half = 0; half < 2; ++half) {
            unsigned floats[COUNT][4];
            Operand::load(floats, piece, row, depth + 8 * half);
#pragma unroll
            for (unsigned i = 0; i < COUNT; ++i) {
                to[i][2 * half] = pack_bf16(floats[i][0], floats[i][2]);
                to[i][2 * half + 1] = pack_bf16(floats[i][1], floats[i][3]);
            }
        }
    }

    template <class A, class B, unsigned DOWN, unsigned ACROSS>
    static __device__ __forceinline__ void pieces(float (&sums)[DOWN][2 * ACROSS][4], const float* a_piece,
                                                  const float* b_piece, unsigned row, unsigned column) {
#pragma unroll
        for (unsigned depth = 0; depth < A::STEP; depth += 16) {
            unsigned a[DOWN][4], b[ACROSS][4];
            load<A>(a, a_piece, row, depth);
            load<B>(b, b_piece, column, depth);
#pragma unroll
            for (unsigned i = 0; i < DOWN; ++i) {
#pragma unroll
                for (unsigned j = 0; j < 2 * ACROSS; ++j) {
                    multiply_bf16(sums[i][j], a[i], b[j / 2][j % 2], b[j / 2][j % 2 + 2]);
                }
            }
        }
    }
};

// --- Reductions by tiles ----------------------------------------------------------------------

// One sum, as a product's values are reduced.
struct OneSum {
    static __device__ __forceinline__ void combine(float (&values)[1], const float (&others)[1]) { values[0] += others[0]; }
};

// Combines what threads have whose numbers differ by a multiple of LEFT, in one order; all of them get it.
template <class Reduce, unsigned VALUES, unsigned BLOCK, unsigned LEFT>
static __device__ __forceinline__ void combine_threads(float (&values)[VALUES]) {
    if constexpr (BLOCK > LEFT) {
        __shared__ float all[VALUES][BLOCK];
        const unsigned t = threadIdx.x;
#pragma unroll
        for (unsigned j = 0; j < VALUES; ++j) all[j][t] = values[j];
#pragma unroll 1
        for (unsigned distance = BLOCK / 2; distance >= LEFT; distance /= 2) {
            __syncthreads();
            if (t < distance) {
                float others[VALUES];
#pragma unroll
                for (unsigned j = 0; j < VALUES; ++j) others[j] = all[j][t + distance];
                Reduce::combine(values, others);
#pragma unroll
                for (unsigned j = 0; j < VALUES; ++j) all[j][t] = values[j];
            }
        }
        __syncthreads();
#pragma unroll
        for (unsigned j = 0; j < VALUES; ++j) values[j] = all[j][t % LEFT];
        __syncthreads();  // all have read before the next writes
    }
}

// Gives the sums of a tile, whose lines in shared memory are PITCH apart, to `store`, neighbours to neighbours, and reduces what
// that gives, in one order. The results of tiles are one after the other for each point.
template <class Product, unsigned PITCH, unsigned BLOCK>
static __device__ __forceinline__ void reduce_tile(unsigned char* arena, float* tile, unsigned part, unsigned point, unsigned row0,
                                                   unsigned column0) {
    constexpr bool ALONG_ROWS = Product::STORE_ALONG_ROWS;
    constexpr unsigned TILE_ROWS = Product::TILE_ROWS, TILE_COLUMNS = Product::TILE_COLUMNS, VALUES = Product::VALUES;
    constexpr unsigned TILES_DOWN = (Product::ROWS + TILE_ROWS - 1) / TILE_ROWS;
    constexpr unsigned TILES_ACROSS = (Product::COLUMNS + TILE_COLUMNS - 1) / TILE_COLUMNS;
    constexpr unsigned LINES = ALONG_ROWS ? TILE_COLUMNS : TILE_ROWS, LINE = ALONG_ROWS ? TILE_ROWS : TILE_COLUMNS;
    // Whether there is a result for each line, or for each place in the lines (or one for all).
    constexpr bool OF_LINES = Product::KEPT == (ALONG_ROWS ? Kept::COLUMNS : Kept::ROWS);
    constexpr unsigned COUNT = OF_LINES ? LINES : Product::KEPT == Kept::NEITHER ? 1 : LINE;
    static_assert(!OF_LINES || VALUES == 1, "of lines there is one value in shared memory");
    constexpr bool DEVIATES = Product::DEVIATED < VALUES;
    constexpr unsigned IN_SHARED = DEVIATES ? Product::DEVIATED : 0;
    const unsigned k = threadIdx.x;
    float results[VALUES];
    Product::start(results);
#pragma unroll 4
    for (unsigned i = k; i < LINES * LINE; i += BLOCK) {
        // A thread has the same place in every line.
        const unsigned line = i / LINE, place = i % LINE;
        const unsigned r = row0 + (ALONG_ROWS ? place : line), c = column0 + (ALONG_ROWS ? line : place);
        float values[VALUES];
        Product::start(values);
        if (r < Product::ROWS && c < Product::COLUMNS) {
            Product::store(arena, part, point, r, c, tile[line * PITCH + place], values);
        }
        if (OF_LINES || DEVIATES) tile[line * PITCH + place] = values[IN_SHARED];
        if (!OF_LINES) Product::combine(results, values);
    }
    if (OF_LINES) {
        __syncthreads();
        if (k < LINES) {
#pragma unroll 8
            for (unsigned i = 0; i < LINE; ++i) {
                // Threads start at different places of their lines: in different banks.
                float values[VALUES];
                values[0] = tile[k * PITCH + (i + k) % LINE];
                Product::combine(results, values);
            }
        }
    } else {
        combine_threads<Product, VALUES, BLOCK, COUNT>(results);
    }
    float deviations[1] = {};
    if (DEVIATES) {
        const float mean = results[IN_SHARED] * (1.0f / (float)(LINES * LINE / COUNT));
        // The elements that this thread has had.
        const unsigned first = OF_LINES ? k * PITCH : k / LINE * PITCH + k % LINE;
        const unsigned count = OF_LINES ? (k < LINES ? LINE : 0) : LINES * LINE / BLOCK;
#pragma unroll 8
        for (unsigned i = 0; i < count; ++i) {
            const float deviation = tile[first + (OF_LINES ? (i + k) % LINE : i * (BLOCK / LINE) * PITCH)] - mean;
            deviations[0] += deviation * deviation;
        }
        if (!OF_LINES) combine_threads<OneSum, 1, BLOCK, COUNT>(deviations);
    }
    const unsigned down = row0 / TILE_ROWS, across = column0 / TILE_COLUMNS;
    const unsigned row = row0 + k, column = column0 + k;
    unsigned at = (point * TILES_DOWN + down) * TILES_ACROSS + across;
    bool inside = k < COUNT;
    if (Product::KEPT == Kept::ROWS) at = (point * TILES_ACROSS + across) * Product::ROWS + row, inside &= row < Product::ROWS;
    if (Product::KEPT == Kept::COLUMNS) {
        at = (point * TILES_DOWN + down) * Product::COLUMNS + column, inside &= column < Product::COLUMNS;
    }
    if (!inside) return;
    float* const partials = Product::partials(arena);
#pragma unroll
    for (unsigned j = 0; j < VALUES; ++j) partials[j * Product::PARTIALS + at] = results[j];
    if (DEVIATES) partials[VALUES * Product::PARTIALS + at] = deviations[0];
}

// Gives the sums of a tile, whose lines in shared memory are PITCH apart, to `store`, neighbours to neighbours; reduces what that
// gives, if anything.
template <class Product, unsigned PITCH, unsigned BLOCK>
static __device__ __forceinline__ void store_tile(unsigned char* arena, float* tile, unsigned part, unsigned point, unsigned row0,
                                                  unsigned column0) {
    if constexpr (Product::KEPT != Kept::ALL) {
        reduce_tile<Product, PITCH, BLOCK>(arena, tile, part, point, row0, column0);
    } else {
        constexpr bool ALONG_ROWS = Product::STORE_ALONG_ROWS;
        constexpr unsigned ACROSS_LINE = ALONG_ROWS ? Product::TILE_ROWS : Product::TILE_COLUMNS;
#pragma unroll 4
        for (unsigned i = threadIdx.x; i < Product::TILE_ROWS * Product::TILE_COLUMNS; i += BLOCK) {
            const unsigned line = i / ACROSS_LINE, place_in_line = i % ACROSS_LINE;
            const unsigned r = row0 + (ALONG_ROWS ? place_in_line : line);
            const unsigned c = column0 + (ALONG_ROWS ? line : place_in_line);
            if (r < Product::ROWS && c < Product::COLUMNS) {
                Product::store(arena, part, point, r, c, tile[line * PITCH + place_in_line]);
            }
        }
    }
}

// --- The kernel -------------------------------------------------------------------------------

// Each block: find its tile and its taps; keep STAGES - 1 pieces on their way to shared memory while the oldest is
// multiplied, after each thread has computed the prologues of what it has copied; then the sums through shared memory to `store`.
template <class Product>
static __device__ __forceinline__ void product_tensor(unsigned char* arena, unsigned block) {
    constexpr unsigned TILE_ROWS = Product::TILE_ROWS, TILE_COLUMNS = Product::TILE_COLUMNS, STAGES = Product::STAGES;
    // Matrices of 16 rows and of 16 columns of a warp.
    constexpr unsigned DOWN = TILE_ROWS / 32, ACROSS = TILE_COLUMNS / 32;
    using Mul = Multiply<Product::MATH>;
    using Element = typename Mul::Element;
    using A = Piece<Element, TILE_ROWS, Product::A_ALONG_DEPTH>;
    using B = Piece<Element, TILE_COLUMNS, Product::B_ALONG_DEPTH>;

    Walk<Product, A::STEP> walk(block);
    const unsigned row0 = walk.row0, column0 = walk.column0, count = walk.count;
    Element* const a_pieces = (Element*)shared_floats();
    Element* const b_pieces = a_pieces + STAGES * A::ELEMENTS;
    const Element* const a = Product::a(arena) + (Product::A_ALONG_DEPTH ? row0 * Product::A_LINE : row0);
    const Element* const b = Product::b(arena) + (Product::B_ALONG_DEPTH ? column0 * Product::B_LINE : column0);

    auto copy = [&](unsigned stage) {
        A::template copy<Product::ROWS, Product::DEPTH, Product::A_LINE, Product::A_COPY>(
            a_pieces + stage * A::ELEMENTS, a + walk.a(), row0, walk.depth());
        B::template copy<Product::COLUMNS, Product::DEPTH, Product::B_LINE, Product::B_COPY>(
            b_pieces + stage * B::ELEMENTS, b + walk.b(), column0, walk.depth());
        walk.advance();
    };

    [[maybe_unused]] Walk<Product, A::STEP> oldest = walk;  // of the pieces that are multiplied next
    const unsigned warp = threadIdx.x / 32;
    const unsigned row = warp % 2 * (TILE_ROWS / 2), column = warp / 2 * (TILE_COLUMNS / 2);
    float sums[DOWN][2 * ACROSS][4] = {}, totals[DOWN][2 * ACROSS][4] = {};
    for (unsigned i = 0; i < STAGES - 1; ++i) {
        if (i < count) copy(i);
        end_copies();
    }
    unsigned stage = 0, free = STAGES - 1;
#pragma unroll 1
    for (unsigned i = 0; i < count; ++i) {
        await_copies<STAGES - 2>();
        compute_prologues<Product, A, B>(arena, oldest, a_pieces + stage * A::ELEMENTS, b_pieces + stage * B::ELEMENTS);
        __syncthreads();  // the piece is there for all, and all are done with the one before
        if (i + STAGES - 1 < count) copy(free);
        end_copies();
        Mul::template pieces<A, B, DOWN, ACROSS>(sums, a_pieces + stage * A::ELEMENTS, b_pieces + stage * B::ELEMENTS, row,
                                                 column);
        stage = stage + 1 == STAGES ? 0 : stage + 1;
        free = free + 1 == STAGES ? 0 : free + 1;
        if (Mul::PROMOTED != 0 && (i + 1 == count || (i + 1) % (Mul::PROMOTED != 0 ? Mul::PROMOTED : 1) == 0)) {
#pragma unroll
            for (unsigned m = 0; m < DOWN; ++m) {
#pragma unroll
                for (unsigned n = 0; n < 2 * ACROSS; ++n) {
#pragma unroll
                    for (unsigned e = 0; e < 4; ++e) totals[m][n][e] += sums[m][n][e], sums[m][n][e] = 0.0f;
                }
            }
        }
    }
    await_copies<0>();
    __syncthreads();

    // The sums through shared memory, so that neighbours write neighbours.
    constexpr bool ALONG_ROWS = Product::STORE_ALONG_ROWS;
    constexpr unsigned PITCH = (ALONG_ROWS ? TILE_ROWS : TILE_COLUMNS) + 8;
    float* const tile = shared_floats();
    const unsigned g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (unsigned i = 0; i < DOWN; ++i) {
#pragma unroll
        for (unsigned j = 0; j < 2 * ACROSS; ++j) {
#pragma unroll
            for (unsigned e = 0; e < 4; ++e) {
                const unsigned r = row + A::row_of(i, e / 2, g), c = column + B::row_of(j / 2, j % 2, 2 * t + e % 2);
                tile[ALONG_ROWS ? c * PITCH + r : r * PITCH + c] = Mul::PROMOTED != 0 ? totals[i][j][e] : sums[i][j][e];
            }
        }
    }
    __syncthreads();
    store_tile<Product, PITCH, THREADS>(arena, tile, walk.part, walk.point, row0, column0);
}
