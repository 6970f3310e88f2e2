// Blocks of products by AVX512-BF16, without tiles; the same interface and layouts as
// bf16_product_tiles.h.

struct Unit {
  template <int parts, typename Between>
  static void product(std::initializer_list<Term<parts>> terms, float* c, int64_t ldc,
                      bool accumulate, const Between& between) {
    constexpr int ROWS = 8;
    for (const Term<parts>& term : terms)
      for (int64_t step = 0; step < term.steps; ++step) between();
    for (int64_t row = 0; row < 32; row += ROWS)
      rows<ROWS>(terms, row, c + row * ldc, ldc, accumulate);
  }

  // Products of what registers hold; returns the floating-point operations.
  static int64_t busy(int64_t rounds) {
    __m512 sums[16] = {};
    for (__m512& sum : sums) asm volatile("" : "+v"(sum));  // equal, but not to the compiler
    __m512i factor = _mm512_setzero_si512();
    for (int64_t round = 0; round < rounds; ++round) {
      asm volatile("" : "+v"(factor));
#pragma GCC unroll 16
      for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, (__m512bh)factor, (__m512bh)factor);
    }
#pragma GCC unroll 16
    for (const __m512& sum : sums) asm volatile("" : : "v"(sum));
    return rounds * 16 * 2 * 32;
  }

 private:
  template <int ROWS, int parts>
  static inline void rows(std::initializer_list<Term<parts>> terms, int64_t first, float* c,
                          int64_t ldc, bool accumulate) {
    static_assert(parts == 1, "three products in this way are slower than one in fp32");
    __m512 sums[ROWS][2];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i)
      for (int j = 0; j < 2; ++j)
        sums[i][j] = accumulate ? _mm512_loadu_ps(c + i * ldc + 16 * j) : _mm512_setzero_ps();
    for (const Term<parts>& term : terms) {
      const uint16_t* left = term.a.part[0] + first / 16 * term.a.next + first % 16 * 32;
      const uint16_t* right = term.b.part[0];
      for (int64_t step = 0; step < term.steps; ++step, left += TILE_SIZE, right += 2 * TILE_SIZE)
        for (int64_t k = 0; k < 32; k += 2) {
          const __m512bh b0 = (__m512bh)_mm512_loadu_si512(right + 16 * k);
          const __m512bh b1 = (__m512bh)_mm512_loadu_si512(right + 16 * k + TILE_SIZE);
#pragma GCC unroll 8
          for (int i = 0; i < ROWS; ++i) {
            int32_t pair;
            std::memcpy(&pair, left + i * 32 + k, sizeof pair);
            const __m512bh factor = (__m512bh)_mm512_set1_epi32(pair);
            sums[i][0] = _mm512_dpbf16_ps(sums[i][0], factor, b0);
            sums[i][1] = _mm512_dpbf16_ps(sums[i][1], factor, b1);
          }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i)
      for (int j = 0; j < 2; ++j) _mm512_storeu_ps(c + i * ldc + 16 * j, sums[i][j]);
  }
};
