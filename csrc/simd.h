// Vectors of LANES floats and the functions of a tile, for the instruction set being compiled.
// Included by the kernels inside that instruction set's namespace: no include guard.
//
// A tile is a matrix of up to TILE points, one point a column, so that a layer is a matrix product
// with the weights as they are stored, and any width and channel count needs no padding.

typedef float Vec __attribute__((vector_size(LANES * 4)));
typedef int32_t VecInt __attribute__((vector_size(LANES * 4)));
typedef uint32_t VecUint __attribute__((vector_size(LANES * 4)));
typedef float UnalignedVec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));

constexpr int64_t BLOCK_VECS = 3;
constexpr int64_t TILE = 96;
static_assert(TILE % (BLOCK_VECS * LANES) == 0, "a tile is a whole number of blocks");

static inline int64_t round_up(int64_t size) { return (size + LANES - 1) / LANES * LANES; }

static inline Vec load(const float* p) { return *reinterpret_cast<const UnalignedVec*>(p); }

static inline void store(float* p, Vec v) { *reinterpret_cast<UnalignedVec*>(p) = v; }

static inline Vec splat(float x) { return x - Vec{}; }

static inline float sum(Vec v) {
  Four parts[LANES / 4];
  std::memcpy(parts, &v, sizeof v);
  Four total = parts[0];
  for (int i = 1; i < LANES / 4; ++i) total += parts[i];
  return (total[0] + total[2]) + (total[1] + total[3]);
}

static inline bool any(VecInt mask) {
  int64_t words[LANES / 2], seen = 0;
  std::memcpy(words, &mask, sizeof mask);
  for (int64_t word : words) seen |= word;
  return seen != 0;
}

// c (ROWS, VECS * LANES) = start + a (ROWS, depth) b (depth, VECS * LANES), where start is c
// itself, a bias for each row, or zero. With `transposed`, a is stored as (depth, ROWS).
template <int ROWS, int VECS, bool transposed>
static inline void multiply_block(int64_t depth, const float* __restrict__ a, int64_t lda,
                                  const float* __restrict__ b, int64_t ldb, float* __restrict__ c,
                                  int64_t ldc, const float* bias, bool accumulate) {
  Vec acc[ROWS][VECS];
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < VECS; ++j)
      acc[i][j] = accumulate ? load(c + i * ldc + j * LANES) : splat(bias ? bias[i] : 0.0f);
  for (int64_t k = 0; k < depth; ++k) {
    Vec row[VECS];
#pragma GCC unroll 8
    for (int j = 0; j < VECS; ++j) row[j] = load(b + k * ldb + j * LANES);
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
      const float factor = transposed ? a[k * lda + i] : a[i * lda + k];
#pragma GCC unroll 8
      for (int j = 0; j < VECS; ++j) acc[i][j] += factor * row[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < VECS; ++j) store(c + i * ldc + j * LANES, acc[i][j]);
}

template <int VECS, bool transposed>
static inline void multiply_columns(int64_t rows, int64_t depth, const float* a, int64_t lda,
                                    const float* b, int64_t ldb, float* c, int64_t ldc,
                                    const float* bias, bool accumulate) {
  int64_t i = 0;
  const auto block = [&](auto height) {
    for (; i + height.value <= rows; i += height.value)
      multiply_block<height.value, VECS, transposed>(depth, a + (transposed ? i : i * lda), lda, b,
                                                     ldb, c + i * ldc, ldc,
                                                     bias ? bias + i : nullptr, accumulate);
  };
  block(std::integral_constant<int, BLOCK_ROWS>{});
  if constexpr (BLOCK_ROWS > 4) block(std::integral_constant<int, 4>{});
  block(std::integral_constant<int, 2>{});
  block(std::integral_constant<int, 1>{});
}

// c (rows, columns) = start + a (rows, depth) b (depth, columns); columns are whole vectors. An
// element's sum runs over `depth` in order, whatever its place, so results do not depend on tiling.
template <bool transposed>
static void multiply(int64_t rows, int64_t depth, int64_t columns, const float* a, int64_t lda,
                     const float* b, int64_t ldb, float* c, int64_t ldc,
                     const float* bias = nullptr, bool accumulate = false) {
  int64_t j = 0;
  const auto strip = [&](auto vecs) {
    constexpr int64_t step = vecs.value * LANES;
    for (; j + step <= columns; j += step)
      multiply_columns<vecs.value, transposed>(rows, depth, a, lda, b + j, ldb, c + j, ldc, bias,
                                               accumulate);
  };
  strip(std::integral_constant<int, 3>{});
  strip(std::integral_constant<int, 2>{});
  strip(std::integral_constant<int, 1>{});
}

// (rows, columns) -> (columns, rows), four by four.
static inline void transpose(int64_t rows, int64_t columns, const float* __restrict__ from,
                             int64_t ld_from, float* __restrict__ to, int64_t ld_to) {
  const auto four = [](const float* p) { return *reinterpret_cast<const Four*>(p); };
  const auto put = [](float* p, Four v) { *reinterpret_cast<Four*>(p) = v; };
  int64_t j = 0;
  for (; j + 4 <= columns; j += 4) {
    int64_t i = 0;
    for (; i + 4 <= rows; i += 4) {
      const float* p = from + i * ld_from + j;
      const Four a = four(p), b = four(p + ld_from), c = four(p + 2 * ld_from),
                 d = four(p + 3 * ld_from);
      const Four ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
      const Four ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
      const Four cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5);
      const Four cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
      float* q = to + j * ld_to + i;
      put(q, __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5));
      put(q + ld_to, __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7));
      put(q + 2 * ld_to, __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5));
      put(q + 3 * ld_to, __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7));
    }
    for (; i < rows; ++i)
      for (int64_t k = j; k < j + 4; ++k) to[k * ld_to + i] = from[i * ld_from + k];
  }
  for (; j < columns; ++j)
    for (int64_t i = 0; i < rows; ++i) to[j * ld_to + i] = from[i * ld_from + j];
}
