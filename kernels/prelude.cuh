// What every generated kernel may use: the wait it begins with, random draws, bf16 and tf32, and reductions in a fixed order.

// --- Launches that overlap --------------------------------------------------------------------
// From sm_90 on a kernel can be launched while those that it depends on still run: an edge of the graph is then
// "programmatic". So every kernel begins with this, in each thread and before it touches memory: the wait is for the end of
// all of them, and makes what they wrote visible. Then those that depend on this kernel may be launched, to wait in turn.
#ifndef GCC_GAN_HOST
static __device__ __forceinline__ void await_predecessors() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Does nothing. The host looks for this name in a module: edges to kernels that do not wait must not be programmatic.
#if __CUDA_ARCH__ >= 900
extern "C" __global__ void kernels_await_predecessors(unsigned char*) {}
#endif
#endif

// --- Registers --------------------------------------------------------------------------------
// From sm_90 on the assembler gives some products 96 or 128 registers where they need up to 212, and spills the rest, unless
// it is told that one block a multiprocessor is enough.
#if __CUDA_ARCH__ >= 900
#define PRODUCT_BOUNDS(threads) __launch_bounds__(threads, 1)
#else
#define PRODUCT_BOUNDS(threads) __launch_bounds__(threads)
#endif

// --- Random draws -----------------------------------------------------------------------------
// Counter-based: element i of a draw is word i % 4 of the Philox4x32-10 block (Salmon et al., SC 2011)
// with the counter (i / 4, step, stream) and the seed as key. So a draw has the same values on every
// device and for every launch configuration.

struct Draw {
    unsigned seed[2];
    unsigned step;
    unsigned stream[2];  // low and high half of the hash of the draw's name
};

static __device__ uint4 philox4x32_10(const Draw& draw, unsigned block) {
    uint4 c = make_uint4(block, draw.step, draw.stream[0], draw.stream[1]);
    unsigned key0 = draw.seed[0], key1 = draw.seed[1];
    for (int round = 0; round < 10; ++round) {
        const unsigned low0 = 0xD2511F53u * c.x, high0 = __umulhi(0xD2511F53u, c.x);
        const unsigned low1 = 0xCD9E8D57u * c.z, high1 = __umulhi(0xCD9E8D57u, c.z);
        c = make_uint4(high1 ^ c.y ^ key0, low1, high0 ^ c.w ^ key1, low0);
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c;
}

// Multiples of 2^-24 in [0, 1): neighbouring elements 2j and 2j + 1, of which `element` is one.
static __device__ float2 uniform_pair(const Draw& draw, unsigned element) {
    const uint4 words = philox4x32_10(draw, element / 4);
    const bool second = element % 4 >= 2;
    const float unit = 1.0f / 16777216.0f;
    return make_float2((float)((second ? words.z : words.x) >> 8) * unit,
                       (float)((second ? words.w : words.y) >> 8) * unit);
}

static __device__ float uniform(const Draw& draw, unsigned element) {
    const float2 pair = uniform_pair(draw, element);
    return element % 2 == 0 ? pair.x : pair.y;
}

// cos(angle - turns * pi / 2) for an angle from 0 to 2 pi, up to the last place of a double: by Taylor's series for what is
// left after the nearest quarter turn, of which pi / 2 is taken in two parts. The library's functions are for all angles, of
// which they reduce large ones with an array in each thread's memory.
static __device__ double cosine(double angle, unsigned turns) {
    const double nearest = floor(angle * 0.6366197723675814 + 0.5);
    const double rest = fma(-nearest, 6.123233995736766e-17, fma(-nearest, 1.5707963267948966, angle));
    const unsigned quarter = ((unsigned)nearest + 4 - turns) % 4;
    const bool is_sine = quarter % 2 == 1;
    double series = 1.0;
#pragma unroll
    for (unsigned n = 18; n >= 2; n -= 2) {
        series = 1.0 - rest * rest * series * (is_sine ? 1.0 / (n * (n + 1)) : 1.0 / (n * (n - 1)));
    }
    if (is_sine) series *= rest;
    return quarter == 1 || quarter == 2 ? -series : series;
}

// Box-Muller on neighbouring pairs, in double precision so that the rounded result is the same on every
// device. The first of a pair is moved to (0, 1], where its logarithm is finite.
static __device__ float normal(const Draw& draw, unsigned element) {
    const float2 pair = uniform_pair(draw, element);
    const double radius = sqrt(-2.0 * log((double)pair.x + 1.0 / 16777216.0));
    const double angle = 6.283185307179586 * (double)pair.y;
    return (float)(radius * cosine(angle, element % 2));
}

static __device__ float bernoulli(const Draw& draw, unsigned element, float p) {
    return uniform(draw, element) < p ? 1.0f : 0.0f;
}

// --- Draws of 0 or 1 as bits ------------------------------------------------------------------
// Element i of a buffer of bits is bit i % 32 of its word i / 32. A block of Philox is computed once, for
// its four elements.

static __device__ float bit(const unsigned* words, unsigned element) {
    return (words[element / 32] >> element % 32 & 1u) != 0 ? 1.0f : 0.0f;
}

// Bit j is element 4 * block + j.
static __device__ unsigned four_bits(const Draw& draw, unsigned block, float p) {
    const uint4 words = philox4x32_10(draw, block);
    const float unit = 1.0f / 16777216.0f;
    return ((float)(words.x >> 8) * unit < p ? 1u : 0u) | ((float)(words.y >> 8) * unit < p ? 2u : 0u) |
           ((float)(words.z >> 8) * unit < p ? 4u : 0u) | ((float)(words.w >> 8) * unit < p ? 8u : 0u);
}

// A buffer in the order of the draw: each thread makes whole words. The last one may end with draws
// that nobody reads.
template <unsigned WORDS>
static __device__ void draw_words(unsigned* words, const Draw& draw, float p, unsigned block, unsigned blocks) {
    for (unsigned i = block * blockDim.x + threadIdx.x; i < WORDS; i += blocks * blockDim.x) {
        unsigned word = 0;
        for (unsigned part = 0; part < 8; ++part) word |= four_bits(draw, 8 * i + part, p) << 4 * part;
        words[i] = word;
    }
}

// A buffer of rows of COLUMNS elements, whole words, of which the draw has one column after the other:
// images by pixels. A warp goes down a run of rows of 32 columns, a lane for each: the lane's four draws
// are for its next four rows, and of each row the lanes' bits are a word.
template <unsigned ROWS, unsigned COLUMNS>
static __device__ void draw_columns(unsigned* words, const Draw& draw, float p, unsigned block, unsigned blocks) {
    constexpr unsigned WORDS = COLUMNS / 32;
    constexpr unsigned RUNS = (ROWS + 63) / 64, RUN = ((ROWS + RUNS - 1) / RUNS + 3) / 4 * 4;
    const unsigned lane = threadIdx.x % 32;
    for (unsigned i = (block * blockDim.x + threadIdx.x) / 32; i < RUNS * WORDS; i += blocks * blockDim.x / 32) {
        const unsigned column = i % WORDS, first = i / WORDS * RUN, end = min(first + RUN, ROWS);
        const unsigned element = (32 * column + lane) * ROWS + first;
        // Where columns do not begin with a block of Philox, a lane's four rows are in two of them.
        constexpr bool SPLIT = ROWS % 4 != 0;
        unsigned bits = SPLIT ? four_bits(draw, element / 4, p) : 0;
        for (unsigned row = first; row < end; row += 4) {
            const unsigned next = (element + row - first) / 4 + (SPLIT ? 1 : 0);
            bits |= four_bits(draw, next, p) << (SPLIT ? 4 : 0);
            for (unsigned j = 0; j < 4; ++j) {
                const unsigned word = __ballot_sync(0xffffffffu, bits >> (element % 4 + j) & 1u);
                if (lane == j && row + j < end) words[(row + j) * WORDS + column] = word;
            }
            bits >>= 4;
        }
    }
}

// --- bf16 -------------------------------------------------------------------------------------
// The upper half of a float, as its bits. Rounded to nearest, ties to even; NaN stays NaN.

static __device__ float round_bf16(float x) {
    const unsigned bits = (unsigned)__float_as_int(x);
    const unsigned rounded = bits + 0x7fffu + (bits >> 16 & 1u);
    return __int_as_float((int)((x != x ? bits | 0x00400000u : rounded) & 0xffff0000u));
}

static __device__ unsigned short to_bf16(float x) {
    return (unsigned short)((unsigned)__float_as_int(round_bf16(x)) >> 16);
}

static __device__ float from_bf16(unsigned short bits) {
    return __int_as_float((int)((unsigned)bits << 16));
}

// --- tf32 -------------------------------------------------------------------------------------
// A float of 11 significant bits. Rounded to nearest, ties away from zero, as tensor cores' operands are.

static __device__ float round_tf32(float x) {
    const unsigned bits = (unsigned)__float_as_int(x);
    const bool is_finite = (bits & 0x7f800000u) != 0x7f800000u;
    return is_finite ? __int_as_float((int)((bits + 0x1000u) & 0xffffe000u)) : x;
}

// --- Four neighbours in memory ----------------------------------------------------------------
// Read and written at once: 16 bytes of floats, 8 of bf16.

struct Four {
    float of[4];
};

static __device__ __forceinline__ Four load_four(const float* at) {
    const float4 x = *(const float4*)at;
    return {{x.x, x.y, x.z, x.w}};
}

static __device__ __forceinline__ Four load_four(const unsigned short* at) {
    const uint2 x = *(const uint2*)at;
    return {{from_bf16((unsigned short)x.x), from_bf16((unsigned short)(x.x >> 16)), from_bf16((unsigned short)x.y),
             from_bf16((unsigned short)(x.y >> 16))}};
}

static __device__ __forceinline__ void store_four(float* at, const Four& x) {
    *(float4*)at = make_float4(x.of[0], x.of[1], x.of[2], x.of[3]);
}

static __device__ __forceinline__ void store_four(unsigned short* at, const Four& x) {
    *(uint2*)at = make_uint2(to_bf16(x.of[0]) | (unsigned)to_bf16(x.of[1]) << 16,
                             to_bf16(x.of[2]) | (unsigned)to_bf16(x.of[3]) << 16);
}

// --- Reductions -------------------------------------------------------------------------------
// Every sum is a tree of one shape, so a run gives the same bits each time. All threads of the block
// take part, and blocks are whole warps.

struct Sum {
    static __device__ float identity() { return 0.0f; }
    static __device__ float combine(float a, float b) { return a + b; }
};

struct Max {
    static __device__ float identity() { return -__int_as_float(0x7f800000); }
    // NaN where either is; fmaxf would give the other.
    static __device__ float combine(float a, float b) { return a > b || a != a ? a : b; }
};

template <class Op>
static __device__ float warp_reduce(float x) {
    for (int distance = 16; distance > 0; distance /= 2) {
        x = Op::combine(x, __shfl_xor_sync(0xffffffffu, x, distance));
    }
    return x;
}

// The values of all threads of the block combined; every thread gets the result.
template <class Op>
static __device__ float block_reduce(float x) {
    __shared__ float warps[32];
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    x = warp_reduce<Op>(x);
    if (lane == 0) warps[warp] = x;
    __syncthreads();
    x = warp_reduce<Op>(lane < blockDim.x / 32 ? warps[lane] : Op::identity());
    __syncthreads();  // all have read before the next reduction writes
    return x;
}

// The values of the threads of equal lane combined over the block's warps; each of them gets the result.
template <class Op>
static __device__ float column_reduce(float x) {
    __shared__ float columns[32][32];
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    columns[warp][lane] = x;
    __syncthreads();
    for (unsigned count = blockDim.x / 32; count > 1;) {
        const unsigned half = (count + 1) / 2;
        if (warp + half < count) columns[warp][lane] = Op::combine(columns[warp][lane], columns[warp + half][lane]);
        __syncthreads();
        count = half;
    }
    x = columns[0][lane];
    __syncthreads();  // all have read before the next reduction writes
    return x;
}
