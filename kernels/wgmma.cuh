// Matrix products by `wgmma`, the tensor cores of sm_90a: one tile of results for each block of up to four warpgroups, each of
// 128 threads that multiply together.
//
// As in tensor.cuh, pieces of both operands are copied to shared memory while earlier ones are multiplied, and taps on padding
// are not computed. What is new: operands are read from shared memory by the tensor cores themselves, so they are multiplied as
// they are there and nothing is rounded on the way. Of f32 they take the sign, the exponent and the upper 10 bits of the
// mantissa, tf32 with the rest cut off. Copies and prologues are seen by them after a fence, and multiplications end when they are
// waited for.
//
// `Product` is that of tensor.cuh, of which A_COPY and B_COPY are not looked at. In place of MATH it has
//   Element: what operands are made of: float, or unsigned short as bf16.
// Floats lie along the depth (A_ALONG_DEPTH, B_ALONG_DEPTH): of them `wgmma` takes nothing else.

// --- What a warpgroup does together -----------------------------------------------------------
// All 128 threads call these.

#ifndef GCC_GAN_HOST
static __device__ __forceinline__ unsigned char* shared_lines() {
    extern __shared__ __align__(1024) unsigned char lines[];
    return lines;
}

// What this thread's copies wrote to shared memory is there for tensor cores, once all threads have met.
static __device__ __forceinline__ void show_copies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Before the first multiplication: the sums are in their registers.
static __device__ __forceinline__ void begin_multiplying() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Ends a group of multiplications.
static __device__ __forceinline__ void end_multiplying() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until all but the last `LEFT` groups are done: their operands are not read any more. Sums are there with LEFT = 0.
template <int LEFT>
static __device__ __forceinline__ void await_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

#define REGISTERS_32 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define REGISTERS_64 \
    REGISTERS_32 ", " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define REGISTERS_128 \
    REGISTERS_64 ", " \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define SUMS_8(i) \
    "+f"(sums[i]), "+f"(sums[i + 1]), "+f"(sums[i + 2]), "+f"(sums[i + 3]), "+f"(sums[i + 4]), "+f"(sums[i + 5]), \
        "+f"(sums[i + 6]), "+f"(sums[i + 7])
#define SUMS_32(i) SUMS_8(i), SUMS_8(i + 8), SUMS_8(i + 16), SUMS_8(i + 24)

// sums += a * b for a of 64 rows and b of 64, 128 or 256 columns, each 32 bytes deep, in shared memory; `Lines::part_at` says where.
// Thread 32w + 4g + t has of the sums (16w + g, 8j + 2t), (16w + g, 8j + 2t + 1), and the same two of row 16w + g + 8, from 4j on.
template <bool A_ALONG_DEPTH, bool B_ALONG_DEPTH>
static __device__ __forceinline__ void multiply_lines(float (&sums)[32], unsigned long long a, unsigned long long b, float) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k8.f32.tf32.tf32 {" REGISTERS_32 "}, %32, %33, 1, 1, 1;"
                 : SUMS_32(0)
                 : "l"(a), "l"(b));
}

template <bool A_ALONG_DEPTH, bool B_ALONG_DEPTH>
static __device__ __forceinline__ void multiply_lines(float (&sums)[64], unsigned long long a, unsigned long long b, float) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k8.f32.tf32.tf32 {" REGISTERS_64 "}, %64, %65, 1, 1, 1;"
                 : SUMS_32(0), SUMS_32(32)
                 : "l"(a), "l"(b));
}

template <bool A_ALONG_DEPTH, bool B_ALONG_DEPTH>
static __device__ __forceinline__ void multiply_lines(float (&sums)[128], unsigned long long a, unsigned long long b, float) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n256k8.f32.tf32.tf32 {" REGISTERS_128 "}, %128, %129, 1, 1, 1;"
                 : SUMS_32(0), SUMS_32(32), SUMS_32(64), SUMS_32(96)
                 : "l"(a), "l"(b));
}

// The same for bf16, which may lie along the rows.
template <bool A_ALONG_DEPTH, bool B_ALONG_DEPTH>
static __device__ __forceinline__ void multiply_lines(float (&sums)[32], unsigned long long a, unsigned long long b,
                                                      unsigned short) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" REGISTERS_32 "}, %32, %33, 1, 1, 1, %34, %35;"
                 : SUMS_32(0)
                 : "l"(a), "l"(b), "n"(A_ALONG_DEPTH ? 0 : 1), "n"(B_ALONG_DEPTH ? 0 : 1));
}

template <bool A_ALONG_DEPTH, bool B_ALONG_DEPTH>
static __device__ __forceinline__ void multiply_lines(float (&sums)[64], unsigned long long a, unsigned long long b,
                                                      unsigned short) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" REGISTERS_64 "}, %64, %65, 1, 1, 1, %66, %67;"
                 : SUMS_32(0), SUMS_32(32)
                 : "l"(a), "l"(b), "n"(A_ALONG_DEPTH ? 0 : 1), "n"(B_ALONG_DEPTH ? 0 : 1));
}

template <bool A_ALONG_DEPTH, bool B_ALONG_DEPTH>
static __device__ __forceinline__ void multiply_lines(float (&sums)[128], unsigned long long a, unsigned long long b,
                                                      unsigned short) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" REGISTERS_128 "}, %128, %129, 1, 1, 1, %130, %131;"
                 : SUMS_32(0), SUMS_32(32), SUMS_32(64), SUMS_32(96)
                 : "l"(a), "l"(b), "n"(A_ALONG_DEPTH ? 0 : 1), "n"(B_ALONG_DEPTH ? 0 : 1));
}
#endif

// --- Pieces of operands in shared memory ------------------------------------------------------

// A piece of an operand in lines of 128 bytes, whose eight runs of 16 bytes are permuted by the line: what PTX calls the
// 128-byte swizzle. ROWS rows of a (or columns of b), as deep as a line is long.
//
// Where elements lie along the depth, a line is a row. Else a line is 64 rows at one depth; lines of one depth after the other,
// and then those of the next 64 rows.
template <class Element, unsigned ROWS, bool ALONG_DEPTH, unsigned THREADS>
struct Lines {
    static constexpr unsigned RUN = 16 / sizeof(Element), STEP = 8 * RUN;
    static constexpr unsigned BYTES = ROWS * 128;

    // Gives the runs of 16 bytes that this thread copies to visit(to, row, depth, bytes): where a run lies in the piece, where it
    // starts in the operand's piece, and how many of its bytes are inside an operand of SIZE rows and DEPTH terms.
    template <unsigned SIZE, unsigned DEPTH, class Visit>
    static __device__ __forceinline__ void each_run(unsigned char* piece, unsigned row0, unsigned depth0, Visit visit) {
        const unsigned first = threadIdx.x / 8, run = threadIdx.x % 8;
#pragma unroll
        for (unsigned i = 0; i < ROWS; i += THREADS / 8) {
            const unsigned line = first + i;
            const unsigned row = ALONG_DEPTH ? line : line / STEP * STEP + run * RUN;
            const unsigned depth = ALONG_DEPTH ? run * RUN : line % STEP;
            unsigned bytes = 16;
            if (SIZE % ROWS != 0) bytes = min(bytes, left(SIZE, row0 + row, ALONG_DEPTH));
            if (DEPTH % STEP != 0) bytes = min(bytes, left(DEPTH, depth0 + depth, !ALONG_DEPTH));
            visit(piece + line * 128 + (run ^ line % 8) * 16, row, depth, bytes);
        }
    }

    // Starts the copy of a piece of an operand, with zeros beyond its rows and terms; `from` is where the piece starts and LINE
    // how far apart its lines are.
    template <unsigned SIZE, unsigned DEPTH, unsigned LINE>
    static __device__ __forceinline__ void copy(unsigned char* piece, const Element* from, unsigned row0, unsigned depth0) {
        each_run<SIZE, DEPTH>(piece, row0, depth0, [&](unsigned char* to, unsigned row, unsigned depth, unsigned bytes) {
            const Element* const at = from + (ALONG_DEPTH ? (size_t)row * LINE + depth : (size_t)depth * LINE + row);
            start_copy<16>(to, at, bytes);
        });
    }

    // Computes a prologue of what this thread has copied, when that is there; zeros beyond rows and terms stay.
    template <unsigned SIZE, unsigned DEPTH, unsigned COPY, class Prologue>
    static __device__ __forceinline__ void compute(unsigned char* piece, unsigned row0, unsigned depth0, Prologue prologue) {
        each_run<SIZE, DEPTH>(piece, row0, depth0, [&](unsigned char* at, unsigned row, unsigned depth, unsigned bytes) {
            const unsigned floats = bytes / (unsigned)sizeof(float);
            compute_four<ALONG_DEPTH>((float*)at, floats, row0 + row, depth0 + depth, prologue);
        });
    }

    // Bytes of a run that are inside a dimension of `size`, of which all or (else) each element is at another index.
    static __device__ __forceinline__ unsigned left(unsigned size, unsigned index, bool all) {
        return index >= size ? 0 : all ? 16 : min(size - index, RUN) * (unsigned)sizeof(Element);
    }

    // Where tensor cores find the part number `k` of a piece, 32 bytes of rows deep, from a multiple of 64 rows on: the address
    // in units of 16 bytes; from bit 16 how far the next 64 rows are where elements lie along the rows (else it means nothing);
    // from bit 32 how far the next eight lines are; and from bit 62 the kind of permutation.
    static __device__ __forceinline__ unsigned long long part_at(const unsigned char* piece, unsigned row, unsigned k) {
        const unsigned at = shared_address(piece) + row * 128 + (ALONG_DEPTH ? k * 32 : k * 16 * 128);
        return (unsigned long long)(at >> 4 & 0x3fffu) | (unsigned long long)(ALONG_DEPTH ? 1 : STEP * 128 >> 4) << 16 |
               (unsigned long long)(8 * 128 >> 4) << 32 | 1ull << 62;
    }
};

// --- The kernel -------------------------------------------------------------------------------

// Each block: find its tile and its taps; keep STAGES - 1 pieces on their way to shared memory while the oldest is multiplied,
// after each thread has computed the prologues of what it has copied; then the sums through shared memory to `store`.
template <class Product>
static __device__ __forceinline__ void product_warpgroups(unsigned char* arena, unsigned block) {
    using Element = typename Product::Element;
    constexpr unsigned TILE_ROWS = Product::TILE_ROWS, TILE_COLUMNS = Product::TILE_COLUMNS, STAGES = Product::STAGES;
    constexpr unsigned THREADS = 2 * TILE_ROWS;  // a warpgroup for each 64 rows
    using A = Lines<Element, TILE_ROWS, Product::A_ALONG_DEPTH, THREADS>;
    using B = Lines<Element, TILE_COLUMNS, Product::B_ALONG_DEPTH, THREADS>;

    Walk<Product, A::STEP> walk(block);
    const unsigned row0 = walk.row0, column0 = walk.column0, count = walk.count;
    unsigned char* const a_pieces = shared_lines();
    unsigned char* const b_pieces = a_pieces + STAGES * A::BYTES;
    const Element* const a = Product::a(arena) + (Product::A_ALONG_DEPTH ? row0 * Product::A_LINE : row0);
    const Element* const b = Product::b(arena) + (Product::B_ALONG_DEPTH ? column0 * Product::B_LINE : column0);

    auto copy = [&](unsigned stage) {
        A::template copy<Product::ROWS, Product::DEPTH, Product::A_LINE>(a_pieces + stage * A::BYTES, a + walk.a(), row0,
                                                                         walk.depth());
        B::template copy<Product::COLUMNS, Product::DEPTH, Product::B_LINE>(b_pieces + stage * B::BYTES, b + walk.b(), column0,
                                                                            walk.depth());
        walk.advance();
    };

    [[maybe_unused]] Walk<Product, A::STEP> oldest = walk;  // of the pieces that are multiplied next
    const unsigned row = threadIdx.x / 128 * 64;  // of the tile, where this warpgroup's rows start
    float sums[TILE_COLUMNS / 2] = {};
    for (unsigned i = 0; i < STAGES - 1; ++i) {
        if (i < count) copy(i);
        end_copies();
    }
    unsigned stage = 0, free = STAGES - 1;
#pragma unroll 1
    for (unsigned i = 0; i < count; ++i) {
        await_copies<STAGES - 2>();
        compute_prologues<Product, A, B>(arena, oldest, a_pieces + stage * A::BYTES, b_pieces + stage * B::BYTES);
        show_copies();
        __syncthreads();  // the piece is there for all
        begin_multiplying();
#pragma unroll
        for (unsigned k = 0; k < 4; ++k) {
            multiply_lines<Product::A_ALONG_DEPTH, Product::B_ALONG_DEPTH>(
                sums, A::part_at(a_pieces + stage * A::BYTES, row, k), B::part_at(b_pieces + stage * B::BYTES, 0, k),
                Element());
        }
        end_multiplying();
        // The stage that is copied to next is that of the piece before: wait until all are done with it, while this one is
        // multiplied.
        await_products<1>();
        __syncthreads();
        if (i + STAGES - 1 < count) copy(free);
        end_copies();
        stage = stage + 1 == STAGES ? 0 : stage + 1;
        free = free + 1 == STAGES ? 0 : free + 1;
    }
    await_products<0>();
    await_copies<0>();
    __syncthreads();

    // The sums through shared memory, so that neighbours write neighbours.
    constexpr bool ALONG_ROWS = Product::STORE_ALONG_ROWS;
    constexpr unsigned PITCH = (ALONG_ROWS ? TILE_ROWS : TILE_COLUMNS) + 8;
    float* const tile = (float*)shared_lines();
    const unsigned warp_row = threadIdx.x / 32 * 16, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (unsigned i = 0; i < TILE_COLUMNS / 2; ++i) {
        const unsigned r = warp_row + i / 2 % 2 * 8 + g, c = i / 4 * 8 + 2 * t + i % 2;
        tile[ALONG_ROWS ? c * PITCH + r : r * PITCH + c] = sums[i];
    }
    __syncthreads();
    store_tile<Product, PITCH, THREADS>(arena, tile, walk.part, walk.point, row0, column0);
}
