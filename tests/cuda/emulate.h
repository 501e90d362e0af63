// Runs CUDA C++ on the host: blocks one after the other, each thread of a block a fiber.
//
// Barriers and warp shuffles are where fibers change, so what a kernel computes is what a device would
// compute, in the same order of additions. The fibers of a block can run in either order: a kernel whose
// result depends on it has a race. A barrier or shuffle that not all threads reach ends the program.
//
// What a warp does together (kernels/tensor.cuh) happens when all its 32 threads are there. An asynchronous copy takes
// effect at the wait for it; until then, and before a block writes it, shared memory is not a number.
//
// What a warpgroup multiplies (kernels/wgmma.cuh) reads shared memory from its start to the wait for it: it ends the program
// when copies were not shown to it, or when its operands change meanwhile. Until the wait its sums are not a number.

#pragma once
// Fibers jump between stacks, which glibc's checked longjmp takes for a mistake. Before any header.
#undef _FORTIFY_SOURCE
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <vector>

#define __global__
#define __device__
#define __shared__ static  // one block runs at a time
#define __launch_bounds__(threads)
#define __forceinline__ inline
#define GCC_GAN_HOST  // primitives of warps are here, and the wait that kernels begin with

struct Dim {
    unsigned x, y, z;
};
static Dim threadIdx, blockIdx, blockDim, gridDim;

struct float2 {
    float x, y;
};
struct float4 {
    float x, y, z, w;
};
struct uint2 {
    unsigned x, y;
};
struct uint4 {
    unsigned x, y, z, w;
};
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }
static inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline void __nanosleep(unsigned) {}
static inline float4 __ldcg(const float4* at) { return *at; }
static inline float __int_as_float(int bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline int __float_as_int(float value) {
    int bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

namespace emulation {

typedef void (*Kernel)(unsigned char* arena);
enum class At { Running, Barrier, Shuffle, Together, Warpgroup, End };
// What the lanes of a warp or the threads of a warpgroup do together, given what each of them has for it.
typedef void (*Operation)(void* const* lanes);

struct Copy {
    void* to;
    const void* from;
    unsigned size, bytes;
};

// Two operands that a warpgroup multiplies.
struct Factor {
    unsigned long long at;  // as the device has it
    bool along_depth;
    std::vector<float> elements;  // when it began
};

struct Multiplication {
    unsigned element_bytes;
    Factor a, b;
};

struct Fiber {
    char* stack;    // made, and the fiber begun, when it is first needed
    jmp_buf where;  // it goes on. A jump makes no system call, as `swapcontext` does
    At at;
    float value;    // given to a shuffle
    unsigned lane;  // from which a shuffle takes its result
    float result;
    Operation operation;
    void* operands;
    std::vector<std::vector<Copy>> copies;  // groups; the last is not ended yet
    std::vector<size_t> hidden_runs;  // of shared memory, which its own copies wrote
    std::vector<std::vector<Multiplication>> multiplications;  // groups, of a warpgroup's first thread; see above
    bool may_multiply;
    float* sums;  // of what it has begun to multiply
    std::vector<float> hidden_sums;
};

const size_t STACK = 64 * 1024;
static Fiber fibers[1024];
static jmp_buf scheduler;
static unsigned current;
static Kernel kernel;
static unsigned char* arena;
static size_t awaits;  // threads that waited for the kernels before
static const size_t GUARD = 64;  // bytes after a block's shared memory that nobody writes
alignas(1024) static unsigned char shared[256 * 1024];
// Which runs of 16 bytes of it were copied and not shown to warpgroups yet.
static bool is_hidden[sizeof shared / 16];

[[noreturn]] static void fail(const char* what) {
    fprintf(stderr, "block %u, thread %u: %s\n", blockIdx.x, threadIdx.x, what);
    exit(3);
}

static void yield(At at) {
    fibers[current].at = at;
    if (_setjmp(fibers[current].where) == 0) _longjmp(scheduler, 1);
}

// A fiber runs one block's thread after the other's.
static void entry() {
    while (true) {
        kernel(arena);
        yield(At::End);
    }
}

[[noreturn]] static void begin(Fiber& fiber) {
    static ucontext_t context;
    fiber.stack = (char*)malloc(STACK);
    if (fiber.stack == nullptr || getcontext(&context) != 0) fail("there is no memory for a fiber");
    context.uc_stack.ss_sp = fiber.stack;
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
    setcontext(&context);
    fail("a fiber cannot begin");
}

static void resume(unsigned thread) {
    current = thread;
    threadIdx = {thread, 0, 0};
    fibers[thread].at = At::Running;
    if (_setjmp(scheduler) != 0) return;
    if (fibers[thread].stack == nullptr) begin(fibers[thread]);
    _longjmp(fibers[thread].where, 1);
}

// Whether all of some threads are at one place.
static bool all_at(At at, unsigned first, unsigned count) {
    for (unsigned t = first; t < first + count; ++t) {
        if (fibers[t].at != at) return false;
    }
    return true;
}

static void run_block(unsigned threads, bool backwards) {
    if (threads > 1024) fail("more threads than a block may have");
    for (unsigned t = 0; t < threads; ++t) {
        Fiber& fiber = fibers[t];
        fiber.at = At::Running;
        fiber.copies.clear();
        fiber.copies.emplace_back();
        fiber.hidden_runs.clear();
        fiber.multiplications.clear();
        fiber.multiplications.emplace_back();
        fiber.may_multiply = false;
        fiber.sums = nullptr;
    }
    while (true) {
        for (unsigned i = 0; i < threads; ++i) {
            const unsigned t = backwards ? threads - 1 - i : i;
            if (fibers[t].at == At::Running) resume(t);
        }
        if (all_at(At::End, 0, threads)) return;
        bool moved = all_at(At::Barrier, 0, threads);
        if (moved) {
            for (unsigned t = 0; t < threads; ++t) fibers[t].at = At::Running;
            continue;
        }
        for (unsigned first = 0; first + 32 <= threads; first += 32) {
            if (!all_at(At::Shuffle, first, 32)) continue;
            for (unsigned t = first; t < first + 32; ++t) fibers[t].result = fibers[first + fibers[t].lane].value;
            for (unsigned t = first; t < first + 32; ++t) fibers[t].at = At::Running;
            moved = true;
        }
        for (const unsigned size : {32u, 128u}) {
            const At at = size == 32 ? At::Together : At::Warpgroup;
            for (unsigned first = 0; first + size <= threads; first += size) {
                if (!all_at(at, first, size)) continue;
                void* lanes[128];
                for (unsigned lane = 0; lane < size; ++lane) {
                    if (fibers[first + lane].operation != fibers[first].operation) fail("lanes do different things together");
                    lanes[lane] = fibers[first + lane].operands;
                }
                fibers[first].operation(lanes);
                for (unsigned t = first; t < first + size; ++t) fibers[t].at = At::Running;
                moved = true;
            }
        }
        if (!moved) fail("some threads wait for others that do not come");
    }
}

static void launch(Kernel function, unsigned grid, unsigned block, size_t shared_bytes, unsigned char* memory,
                   bool backwards) {
    if (shared_bytes + GUARD > sizeof shared) fail("more shared memory than there is");
    kernel = function;
    awaits = 0;
    arena = memory;
    gridDim = {grid, 1, 1};
    blockDim = {block, 1, 1};
    for (unsigned b = 0; b < grid; ++b) {
        blockIdx = {backwards ? grid - 1 - b : b, 0, 0};
        memset(shared, 0xff, shared_bytes + GUARD);
        memset(is_hidden, 0, sizeof is_hidden);
        run_block(block, backwards);
        for (size_t i = 0; i < GUARD; ++i) {
            if (shared[shared_bytes + i] != 0xff) fail("something is written behind shared memory");
        }
    }
}

// Reads `bytes` of an arena from a file, or writes them.
static void transfer(FILE* file, unsigned char* memory, size_t bytes, bool write) {
    const size_t done = write ? fwrite(memory, 1, bytes, file) : fread(memory, 1, bytes, file);
    if (done != bytes) {
        fprintf(stderr, "%zu of %zu bytes\n", done, bytes);
        exit(4);
    }
}

}  // namespace emulation

static inline void await_predecessors() { ++emulation::awaits; }

static inline void __syncthreads() { emulation::yield(emulation::At::Barrier); }

static inline float __shfl_xor_sync(unsigned, float value, int distance) {
    emulation::Fiber& fiber = emulation::fibers[emulation::current];
    fiber.value = value;
    fiber.lane = (emulation::current % 32) ^ (unsigned)distance;
    emulation::yield(emulation::At::Shuffle);
    return emulation::fibers[emulation::current].result;
}

// --- What a warp does together: see kernels/tensor.cuh ----------------------------------------

namespace emulation {

static void together(Operation operation, void* operands, At at = At::Together) {
    Fiber& fiber = fibers[current];
    fiber.operation = operation;
    fiber.operands = operands;
    yield(at);
}

struct Vote {
    bool is_for;
    unsigned result;
};

static void ballot(void* const* lanes) {
    unsigned result = 0;
    for (unsigned lane = 0; lane < 32; ++lane) result |= (unsigned)((Vote*)lanes[lane])->is_for << lane;
    for (unsigned lane = 0; lane < 32; ++lane) ((Vote*)lanes[lane])->result = result;
}

static float as_tf32(unsigned bits) { return __int_as_float((int)(bits & 0xffffe000u)); }
static float as_bf16(unsigned bits) { return __int_as_float((int)(bits << 16)); }

struct Matrices {
    unsigned* to;
    const void* line;
};

struct Factors {
    float* sums;
    const unsigned* a;
    unsigned b[2];
};

static void load_matrices(void* const* lanes) {
    for (unsigned lane = 0; lane < 32; ++lane) {
        for (unsigned m = 0; m < 4; ++m) {
            const unsigned* line = (const unsigned*)((const Matrices*)lanes[8 * m + lane / 4])->line;
            ((const Matrices*)lanes[lane])->to[m] = line[lane % 4];
        }
    }
}

static void load_transposed(void* const* lanes) {
    for (unsigned lane = 0; lane < 32; ++lane) {
        for (unsigned m = 0; m < 4; ++m) {
            const auto element = [&](unsigned line) {
                return (unsigned)((const unsigned short*)((const Matrices*)lanes[8 * m + line])->line)[lane / 4];
            };
            ((const Matrices*)lanes[lane])->to[m] = element(lane % 4 * 2) | element(lane % 4 * 2 + 1) << 16;
        }
    }
}

// sums += a * b, where a lane's word w of a has `PACKED` neighbouring terms of row lane / 4 + 8 * (w % 2).
template <unsigned PACKED>
static void multiply(void* const* lanes) {
    const unsigned DEPTH = 8 * PACKED;
    static float a[16][16], b[16][8];
    const auto element = [](unsigned word, unsigned e) {
        return PACKED == 1 ? as_tf32(word) : as_bf16(e == 0 ? word & 0xffffu : word >> 16);
    };
    for (unsigned lane = 0; lane < 32; ++lane) {
        const Factors& mine = *(const Factors*)lanes[lane];
        const unsigned g = lane / 4, t = lane % 4;
        for (unsigned e = 0; e < PACKED; ++e) {
            for (unsigned half = 0; half < 2; ++half) {
                const unsigned term = PACKED * (t + 4 * half) + e;
                a[g][term] = element(mine.a[2 * half], e);
                a[g + 8][term] = element(mine.a[2 * half + 1], e);
                b[term][g] = element(mine.b[half], e);
            }
        }
    }
    for (unsigned lane = 0; lane < 32; ++lane) {
        const Factors& mine = *(const Factors*)lanes[lane];
        for (unsigned e = 0; e < 4; ++e) {
            const unsigned row = lane / 4 + e / 2 * 8, column = lane % 4 * 2 + e % 2;
            for (unsigned term = 0; term < DEPTH; ++term) mine.sums[e] += a[row][term] * b[term][column];
        }
    }
}

}  // namespace emulation

static inline unsigned __ballot_sync(unsigned, bool is_for) {
    emulation::Vote vote = {is_for, 0};
    emulation::together(emulation::ballot, &vote);
    return vote.result;
}

static inline float* shared_floats() { return (float*)emulation::shared; }

template <unsigned SIZE>
static inline void start_copy(void* to, const void* from, unsigned bytes) {
    if ((uintptr_t)to % SIZE != 0 || (bytes > 0 && (uintptr_t)from % SIZE != 0)) emulation::fail("a copy is not aligned");
    if (bytes > SIZE) emulation::fail("a copy is longer than it is");
    memset(to, 0xff, SIZE);
    emulation::fibers[emulation::current].copies.back().push_back({to, from, SIZE, bytes});
}

static inline void end_copies() { emulation::fibers[emulation::current].copies.push_back({}); }

template <int LEFT>
static inline void await_copies() {
    auto& groups = emulation::fibers[emulation::current].copies;
    while (groups.size() > LEFT + 1) {
        for (const emulation::Copy& copy : groups.front()) {
            memset(copy.to, 0, copy.size);
            memcpy(copy.to, copy.from, copy.bytes);
            const size_t run = (size_t)((unsigned char*)copy.to - emulation::shared) / 16;
            emulation::is_hidden[run] = true;
            emulation::fibers[emulation::current].hidden_runs.push_back(run);
        }
        groups.erase(groups.begin());
    }
}

static inline void load_matrices(unsigned (&to)[4], const void* line) {
    if ((uintptr_t)line % 16 != 0) emulation::fail("a line of a matrix is not aligned");
    emulation::Matrices operands = {to, line};
    emulation::together(emulation::load_matrices, &operands);
}

static inline void load_transposed(unsigned (&to)[4], const void* line) {
    if ((uintptr_t)line % 16 != 0) emulation::fail("a line of a matrix is not aligned");
    emulation::Matrices operands = {to, line};
    emulation::together(emulation::load_transposed, &operands);
}

static inline void multiply_tf32(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    emulation::Factors operands = {sums, a, {b0, b1}};
    emulation::together(emulation::multiply<1>, &operands);
}

static inline void multiply_bf16(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    emulation::Factors operands = {sums, a, {b0, b1}};
    emulation::together(emulation::multiply<2>, &operands);
}

// To nearest, ties away from zero.
static inline unsigned to_tf32(unsigned x) { return (x + 0x1000u) & 0xffffe000u; }

static inline unsigned pack_bf16(unsigned low, unsigned high) {
    const auto rounded = [](unsigned x) { return (x + 0x7fffu + (x >> 16 & 1u)) >> 16; };
    return rounded(low) | rounded(high) << 16;
}

// --- What a warpgroup does together: see kernels/wgmma.cuh ------------------------------------

namespace emulation {

// The elements of 64 rows of a, or of some columns of b, and of 32 bytes of depth, row by row.
static std::vector<float> elements_of(const Factor& factor, unsigned rows, unsigned element_bytes) {
    const unsigned depth = 32 / element_bytes;
    const auto field = [&](unsigned bit) { return (unsigned)(factor.at >> bit & 0x3fff) * 16; };
    if (factor.at >> 62 != 1 || (factor.at >> 46 & 0xffff) != 0) fail("lines of operands are not permuted in 128 bytes");
    if (!factor.along_depth && element_bytes != 2) fail("floats of an operand are not along the depth");
    std::vector<float> elements;
    for (unsigned row = 0; row < rows; ++row) {
        for (unsigned term = 0; term < depth; ++term) {
            const unsigned line = factor.along_depth ? row : term, across = factor.along_depth ? term : row % 64;
            unsigned at = field(0) + line / 8 * field(32) + line % 8 * 128 + across * element_bytes;
            if (!factor.along_depth) at += row / 64 * field(16);
            at ^= (at >> 7 & 7) << 4;
            if (at + element_bytes > sizeof shared) fail("an operand is outside of shared memory");
            if (is_hidden[at / 16]) fail("a copy is not shown to those who multiply");
            unsigned bits = 0;
            memcpy(&bits, shared + at, element_bytes);
            elements.push_back(element_bytes == 4 ? as_tf32(bits) : as_bf16(bits));
        }
    }
    return elements;
}

struct LineFactors {
    Fiber* fiber;
    float* sums;
    unsigned columns;
    Multiplication factors;
};

static void multiply_together(void* const* lanes) {
    LineFactors& first = *(LineFactors*)lanes[0];
    Multiplication& m = first.factors;
    const unsigned depth = 32 / m.element_bytes;
    m.a.elements = elements_of(m.a, 64, m.element_bytes);
    m.b.elements = elements_of(m.b, first.columns, m.element_bytes);
    for (unsigned lane = 0; lane < 128; ++lane) {
        const LineFactors& mine = *(const LineFactors*)lanes[lane];
        Fiber& fiber = *mine.fiber;
        const unsigned count = first.columns / 2;
        if (mine.factors.a.at != m.a.at || mine.factors.b.at != m.b.at) fail("threads multiply different operands");
        if (!fiber.may_multiply) fail("sums are multiplied to before their fence");
        if (fiber.sums == nullptr) {
            fiber.sums = mine.sums;
            fiber.hidden_sums.assign(mine.sums, mine.sums + count);
            memset(mine.sums, 0xff, count * sizeof(float));
        }
        if (fiber.sums != mine.sums) fail("a warpgroup has one array of sums at a time");
        for (unsigned i = 0; i < count; ++i) {
            const unsigned row = lane / 32 * 16 + lane % 32 / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
            const float *a = &m.a.elements[row * depth], *b = &m.b.elements[column * depth];
            for (unsigned term = 0; term < depth; ++term) fiber.hidden_sums[i] += a[term] * b[term];
        }
    }
    first.fiber->multiplications.back().push_back(m);
}

// Ends the oldest groups but for so many.
static void await_products(unsigned left) {
    Fiber& fiber = fibers[current];
    auto& groups = fiber.multiplications;
    while (groups.size() > left + 1) {
        for (const Multiplication& m : groups.front()) {
            const auto is_same = [&](const Factor& factor) {
                const unsigned depth = 32 / m.element_bytes;
                const auto now = elements_of(factor, (unsigned)factor.elements.size() / depth, m.element_bytes);
                return memcmp(now.data(), factor.elements.data(), now.size() * sizeof(float)) == 0;
            };
            if (!is_same(m.a) || !is_same(m.b)) fail("operands change while they are multiplied");
        }
        groups.erase(groups.begin());
    }
    if (left > 0 || fiber.sums == nullptr) return;
    if (!groups.back().empty()) fail("a group of multiplications is not ended");
    memcpy(fiber.sums, fiber.hidden_sums.data(), fiber.hidden_sums.size() * sizeof(float));
    fiber.sums = nullptr;
    fiber.may_multiply = false;
}

template <unsigned COLUMNS>
static void multiply_lines(float (&sums)[COLUMNS / 2], unsigned element_bytes, Factor a, Factor b) {
    LineFactors operands = {&fibers[current], sums, COLUMNS, {element_bytes, a, b}};
    together(multiply_together, &operands, At::Warpgroup);
}

}  // namespace emulation

static inline unsigned char* shared_lines() { return emulation::shared; }

static inline unsigned shared_address(const void* pointer) {
    return (unsigned)((const unsigned char*)pointer - emulation::shared);
}

static inline void show_copies() {
    auto& runs = emulation::fibers[emulation::current].hidden_runs;
    for (const size_t run : runs) emulation::is_hidden[run] = false;
    runs.clear();
}

static inline void begin_multiplying() { emulation::fibers[emulation::current].may_multiply = true; }

static inline void end_multiplying() { emulation::fibers[emulation::current].multiplications.push_back({}); }

template <int LEFT>
static inline void await_products() {
    emulation::await_products(LEFT);
}

template <bool A_ALONG_DEPTH, bool B_ALONG_DEPTH, unsigned SUMS, class Element>
static inline void multiply_lines(float (&sums)[SUMS], unsigned long long a, unsigned long long b, Element) {
    emulation::multiply_lines<2 * SUMS>(sums, sizeof(Element), {a, A_ALONG_DEPTH, {}}, {b, B_ALONG_DEPTH, {}});
}
