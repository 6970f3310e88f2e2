// Rounding of vectors, for the instruction set being compiled. Included after simd.h.

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

#endif
