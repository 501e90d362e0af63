// Reductions in a fixed order.
//
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
