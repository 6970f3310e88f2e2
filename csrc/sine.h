// Sine and cosine in fp32. Included after simd.h.

// sin and cos by Cody-Waite reduction to [-pi/2, pi/2] and minimax polynomials. Beyond this
// magnitude the reduction loses accuracy, and the C library takes over.
constexpr float MAX_ARGUMENT = 8192.0f;

struct Reduced {
  Vec r;        // the argument less n pi
  VecInt sign;  // the sign bit of (-1)^n
};

static inline Reduced reduce(Vec x) {
  constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it leaves n in the low bits
  const Vec shifted = x * 0.318309886f + round;
  const Vec n = shifted - round;
  VecInt bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  // pi in four parts whose products with n are exact
  Vec r = x - n * 3.140625f;
  r -= n * 0.000967025756835937500f;
  r -= n * 6.27711415290832519531e-7f;
  r -= n * 1.21542012565534204e-10f;
  return {r, bits << 31};
}

static inline Vec flip(Vec v, VecInt sign) {
  VecInt bits;
  std::memcpy(&bits, &v, sizeof v);
  bits ^= sign;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}

static inline Vec sin_of(const Reduced& x) {
  const Vec s = x.r * x.r;
  Vec q = s * 2.5999031e-6f - 1.98065463e-4f;
  q = q * s + 8.33301619e-3f;
  q = q * s - 1.66666567e-1f;
  return flip(x.r + x.r * s * q, x.sign);
}

static inline Vec cos_of(const Reduced& x) {
  const Vec s = x.r * x.r;
  Vec q = s * -2.61924839e-7f + 2.47692406e-5f;
  q = q * s - 1.38885679e-3f;
  q = q * s + 4.16666567e-2f;
  return flip(1.0f - 0.5f * s + s * s * q, x.sign);
}
