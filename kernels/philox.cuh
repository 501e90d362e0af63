// Random draws.
//
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
