// What every generated kernel may use: the wait it begins with, bf16 and tf32, and four neighbours in memory at once.

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
