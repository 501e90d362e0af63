// Runs CUDA C++ on the host: blocks one after the other, each thread of a block a fiber.
//
// Barriers and warp shuffles are where fibers change, so what a kernel computes is what a device would
// compute, in the same order of additions. The fibers of a block can run in either order: a kernel whose
// result depends on it has a race. A barrier or shuffle that not all threads reach ends the program.
//
// What a warp does together (kernels/tensor.cuh) happens when all its 32 threads are there. An asynchronous copy takes
// effect at the wait for it; until then, and before a block writes it, shared memory is not a number.

#pragma once
#include <math.h>
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
#define GCC_GAN_HOST  // primitives of warps are here

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
struct uint4 {
    unsigned x, y, z, w;
};
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }
static inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline void __nanosleep(unsigned) {}
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
enum class At { Running, Barrier, Shuffle, Together, End };
// What the lanes of a warp do together, given what each of them has for it.
typedef void (*Operation)(void* const* lanes);

struct Copy {
    void* to;
    const void* from;
    unsigned size, bytes;
};

struct Fiber {
    ucontext_t context;
    At at;
    float value;    // given to a shuffle
    unsigned lane;  // from which a shuffle takes its result
    float result;
    Operation operation;
    void* operands;
    std::vector<std::vector<Copy>> copies;  // groups; the last is not ended yet
};

const size_t STACK = 64 * 1024;
static std::vector<Fiber> fibers;
static std::vector<std::vector<char>> stacks;
static ucontext_t scheduler;
static unsigned current;
static Kernel kernel;
static unsigned char* arena;
static const size_t GUARD = 64;  // bytes after a block's shared memory that nobody writes
alignas(1024) static unsigned char shared[256 * 1024];

[[noreturn]] static void fail(const char* what) {
    fprintf(stderr, "block %u, thread %u: %s\n", blockIdx.x, threadIdx.x, what);
    exit(3);
}

static void yield(At at) {
    fibers[current].at = at;
    swapcontext(&fibers[current].context, &scheduler);
}

static void entry() {
    kernel(arena);
    yield(At::End);
}

static void resume(unsigned thread) {
    current = thread;
    threadIdx = {thread, 0, 0};
    fibers[thread].at = At::Running;
    swapcontext(&scheduler, &fibers[thread].context);
}

// Whether all of some threads are at one place.
static bool all_at(At at, unsigned first, unsigned count) {
    for (unsigned t = first; t < first + count; ++t) {
        if (fibers[t].at != at) return false;
    }
    return true;
}

static void run_block(unsigned threads, bool backwards) {
    if (fibers.size() < threads) {
        fibers.resize(threads);
        stacks.resize(threads, std::vector<char>(STACK));
    }
    for (unsigned t = 0; t < threads; ++t) {
        Fiber& fiber = fibers[t];
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = stacks[t].data();
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, entry, 0);
        fiber.at = At::Running;
        fiber.copies.assign(1, {});
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
        for (unsigned first = 0; first + 32 <= threads; first += 32) {
            if (!all_at(At::Together, first, 32)) continue;
            void* lanes[32];
            for (unsigned lane = 0; lane < 32; ++lane) {
                if (fibers[first + lane].operation != fibers[first].operation) fail("lanes do different things together");
                lanes[lane] = fibers[first + lane].operands;
            }
            fibers[first].operation(lanes);
            for (unsigned t = first; t < first + 32; ++t) fibers[t].at = At::Running;
            moved = true;
        }
        if (!moved) fail("some threads wait for others that do not come");
    }
}

static void launch(Kernel function, unsigned grid, unsigned block, size_t shared_bytes, unsigned char* memory,
                   bool backwards) {
    if (shared_bytes + GUARD > sizeof shared) fail("more shared memory than there is");
    kernel = function;
    arena = memory;
    gridDim = {grid, 1, 1};
    blockDim = {block, 1, 1};
    for (unsigned b = 0; b < grid; ++b) {
        blockIdx = {backwards ? grid - 1 - b : b, 0, 0};
        memset(shared, 0xff, shared_bytes + GUARD);
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

static void together(Operation operation, void* operands) {
    Fiber& fiber = fibers[current];
    fiber.operation = operation;
    fiber.operands = operands;
    yield(At::Together);
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
