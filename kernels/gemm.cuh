// Matrix products by multiplications and additions in f32: for GPUs older than sm_80, where an operand is not contiguous
// enough for `tensor.cuh`, and of few columns.
//
// `Product` is written for each kernel. It has the sizes BATCH, ROWS, COLUMNS and DEPTH, the number of PARTS in which sums are
// added, whether an operand's elements are next to each other along the depth (A_ALONG_DEPTH, B_ALONG_DEPTH), and functions:
//   a(arena, batch * ROWS + row, depth), b(arena, batch * COLUMNS + column, depth): an element of an operand, 0 on padding;
//   store(arena, part, batch * ROWS + row, column, sum): what is done with a sum.

// A block of 256 threads has a tile of 64 x 64 results. Slabs of both operands, 16 deep, are copied to shared memory, and each
// thread adds from there to its 4 x 4 results, 16 apart, so that neighbours write neighbours.
template <class Product>
static __device__ void product_fma(unsigned char* arena, unsigned block) {
    const unsigned TILE = 64, STEP = 16;
    __shared__ float a_tile[STEP][TILE + 1], b_tile[STEP][TILE + 1];
    const unsigned tiles_down = (Product::ROWS + TILE - 1) / TILE, tiles_across = (Product::COLUMNS + TILE - 1) / TILE;
    const unsigned column0 = block % tiles_across * TILE;
    const unsigned row0 = block / tiles_across % tiles_down * TILE;
    const unsigned batch = block / (tiles_across * tiles_down) % Product::BATCH;
    const unsigned part = block / (tiles_across * tiles_down * Product::BATCH);
    const unsigned first = (unsigned)((unsigned long long)Product::DEPTH * part / Product::PARTS);
    const unsigned last = (unsigned)((unsigned long long)Product::DEPTH * (part + 1) / Product::PARTS);
    const unsigned x = threadIdx.x % 16, y = threadIdx.x / 16;
    float sums[4][4] = {};
    for (unsigned depth0 = first; depth0 < last; depth0 += STEP) {
        for (unsigned i = threadIdx.x; i < TILE * STEP; i += 256) {
            const unsigned a_depth = Product::A_ALONG_DEPTH ? i % STEP : i / TILE;
            const unsigned a_row = Product::A_ALONG_DEPTH ? i / STEP : i % TILE;
            const bool a_inside = row0 + a_row < Product::ROWS && depth0 + a_depth < last;
            a_tile[a_depth][a_row] =
                a_inside ? Product::a(arena, batch * Product::ROWS + row0 + a_row, depth0 + a_depth) : 0.0f;
            const unsigned b_depth = Product::B_ALONG_DEPTH ? i % STEP : i / TILE;
            const unsigned b_column = Product::B_ALONG_DEPTH ? i / STEP : i % TILE;
            const bool b_inside = column0 + b_column < Product::COLUMNS && depth0 + b_depth < last;
            b_tile[b_depth][b_column] =
                b_inside ? Product::b(arena, batch * Product::COLUMNS + column0 + b_column, depth0 + b_depth) : 0.0f;
        }
        __syncthreads();
        for (unsigned depth = 0; depth < STEP; ++depth) {
            float a[4], b[4];
            for (int i = 0; i < 4; ++i) a[i] = a_tile[depth][y + 16 * i];
            for (int j = 0; j < 4; ++j) b[j] = b_tile[depth][x + 16 * j];
            for (int i = 0; i < 4; ++i) {
                for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
            }
        }
        __syncthreads();
    }
    for (int i = 0; i < 4; ++i) {
        for (int j = 0; j < 4; ++j) {
            const unsigned row = row0 + y + 16 * i, column = column0 + x + 16 * j;
            if (row < Product::ROWS && column < Product::COLUMNS) {
                Product::store(arena, part, batch * Product::ROWS + row, column, sums[i][j]);
            }
        }
    }
}

// A product of few columns: a block of 128 threads has 128 rows, each of its warps 32 of them, one after the other. The lanes
// have the terms of a row, 32 apart, and keep those of all columns in registers.
template <class Product>
static __device__ void product_few_columns(unsigned char* arena, unsigned block) {
    const unsigned WARP = 32, TERMS = (Product::DEPTH + WARP - 1) / WARP;
    const unsigned lane = threadIdx.x % WARP;
    const unsigned first = block * blockDim.x + threadIdx.x / WARP * WARP;
    float columns[Product::COLUMNS][TERMS], sums[Product::COLUMNS] = {};
#pragma unroll
    for (unsigned t = 0; t < TERMS; ++t) {
        const unsigned depth = WARP * t + lane;
        for (unsigned c = 0; c < Product::COLUMNS; ++c) {
            columns[c][t] = depth < Product::DEPTH ? Product::b(arena, c, depth) : 0.0f;
        }
    }
#pragma unroll 2
    for (unsigned i = 0; i < WARP; ++i) {
        const unsigned row = min(first + i, Product::ROWS - 1);
        float parts[Product::COLUMNS] = {};
#pragma unroll
        for (unsigned t = 0; t < TERMS; ++t) {
            const unsigned depth = WARP * t + lane;
            const float a = depth < Product::DEPTH ? Product::a(arena, row, depth) : 0.0f;
            for (unsigned c = 0; c < Product::COLUMNS; ++c) parts[c] = fmaf(a, columns[c][t], parts[c]);
        }
        for (unsigned c = 0; c < Product::COLUMNS; ++c) {
            const float sum = warp_reduce<Sum>(parts[c]);
            if (lane == i) sums[c] = sum;
        }
    }
    if (first + lane < Product::ROWS) {
        for (unsigned c = 0; c < Product::COLUMNS; ++c) Product::store(arena, 0, first + lane, c, sums[c]);
    }
}
