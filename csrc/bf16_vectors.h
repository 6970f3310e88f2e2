// Rounding of vectors and the order of bf16 values in tiles, for the instruction set being
// compiled. Included after simd.h.

#if LANES == 16

static inline Vec round_even(Vec x) { return _mm512_roundscale_ps(x, 0); }

static inline Vec absolute(Vec x) { return _mm512_abs_ps(x); }

static inline void store_bf16(uint16_t* to, Vec x) {
  const __m256bh rounded = _mm512_cvtneps_pbh(x);
  std::memcpy(to, &rounded, sizeof rounded);
}

static inline Vec load_bf16(const uint16_t* from) {
  __m256i bits;
  std::memcpy(&bits, from, sizeof bits);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// Rows (32, 32), as two tiles of 16, to their transpose's pairs: (2, 16 pairs of rows, 16 columns, 2).
static inline void pair_rows(const uint16_t* upper, const uint16_t* lower, uint16_t* to) {
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  for (int pair = 0; pair < 16; ++pair) {
    const uint16_t* from = (pair < 8 ? upper : lower) + pair % 8 * 64;
    const __m512i a = _mm512_loadu_si512(from), b = _mm512_loadu_si512(from + 32);
    const __m512i low = _mm512_unpacklo_epi16(a, b), high = _mm512_unpackhi_epi16(a, b);
    _mm512_storeu_si512(to + pair * 32, _mm512_permutex2var_epi64(low, first, high));
    _mm512_storeu_si512(to + TILE_SIZE + pair * 32, _mm512_permutex2var_epi64(low, second, high));
  }
}

// A tile seen as (16, 16) pairs, transposed.
static inline void transpose_pairs(const uint16_t* from, uint16_t* to) {
  __m512i a[16], b[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(from + i * 32);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {  // rows i to i + 3, column 4 lane + j in lane of a[i + j]
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512i even_upper = _mm512_shuffle_i32x4(a[j], a[4 + j], 0x88);
    const __m512i odd_upper = _mm512_shuffle_i32x4(a[j], a[4 + j], 0xdd);
    const __m512i even_lower = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0x88);
    const __m512i odd_lower = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0xdd);
    _mm512_storeu_si512(to + j * 32, _mm512_shuffle_i32x4(even_upper, even_lower, 0x88));
    _mm512_storeu_si512(to + (4 + j) * 32, _mm512_shuffle_i32x4(odd_upper, odd_lower, 0x88));
    _mm512_storeu_si512(to + (8 + j) * 32, _mm512_shuffle_i32x4(even_upper, even_lower, 0xdd));
    _mm512_storeu_si512(to + (12 + j) * 32, _mm512_shuffle_i32x4(odd_upper, odd_lower, 0xdd));
  }
}

#else

static inline Vec round_even(Vec x) {
  for (int i = 0; i < LANES; ++i) x[i] = std::nearbyint(x[i]);
  return x;
}

static inline Vec absolute(Vec x) {
  for (int i = 0; i < LANES; ++i) x[i] = std::abs(x[i]);
  return x;
}

static inline void store_bf16(uint16_t* to, Vec x) {
  for (int i = 0; i < LANES; ++i) to[i] = to_bf16(x[i]);
}

static inline Vec load_bf16(const uint16_t* from) {
  Vec x;
  for (int i = 0; i < LANES; ++i) x[i] = from_bf16(from[i]);
  return x;
}

static inline void pair_rows(const uint16_t* upper, const uint16_t* lower, uint16_t* to) {
  for (int row = 0; row < 32; ++row) {
    const uint16_t* from = (row < 16 ? upper : lower) + row % 16 * 32;
    for (int i = 0; i < 32; ++i)
      to[i / 16 * TILE_SIZE + row / 2 * 32 + i % 16 * 2 + row % 2] = from[i];
  }
}

static inline void transpose_pairs(const uint16_t* from, uint16_t* to) {
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j)
      for (int k = 0; k < 2; ++k) to[(j * 16 + i) * 2 + k] = from[(i * 16 + j) * 2 + k];
}

#endif

// value = the sum of its parts
template <int parts>
static inline void store_parts(uint16_t* const (&to)[parts], int64_t at, Vec value) {
  store_bf16(to[0] + at, value);
  if constexpr (parts == 2) store_bf16(to[1] + at, value - load_bf16(to[0] + at));
}

constexpr int ROW_VECS = BLOCK / LANES;  // vectors of a row of a block

// A row of a block as a row of an operand's tiles; the second tile lies at `next`.
template <int parts>
static inline void store_row(uint16_t* const (&to)[parts], int64_t next, int64_t row,
                             const Vec (&values)[ROW_VECS]) {
  const int64_t at = row * BLOCK + (row < 16 ? 0 : next - 16 * BLOCK);
#if LANES == 16
  if constexpr (parts == 1) {
    const __m512bh rounded = _mm512_cvtne2ps_pbh(values[1], values[0]);
    std::memcpy(to[0] + at, &rounded, sizeof rounded);
    return;
  }
#endif
#pragma GCC unroll 8
  for (int j = 0; j < ROW_VECS; ++j) store_parts<parts>(to, at + j * LANES, values[j]);
}
