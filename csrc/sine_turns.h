// Sine and cosine of turns, for operands in bf16 of one or two parts. Included after bf16_vectors.h.

// The distance r to the nearest integer, |r|, and v = |r| (1/2 - |r|).
struct Turns {
  Vec r, magnitude, v;
};

static inline Turns turns(Vec x) {
  const Vec r = x - round_even(x);
  const Vec magnitude = absolute(r);
  return {r, magnitude, magnitude * (0.5f - magnitude)};
}

// sin(2 pi x) to 8e-6 with three coefficients, 2e-7 with four (and the rounding of x): an odd
// multiple of v P(v).
template <int parts>
static inline Vec sin_turns(const Turns& x) {
  const Vec v = x.v;
  Vec q;
  if constexpr (parts == 1) {
    q = v * 77.9394327f + 50.0248861f;
    q = q * v + 12.5688687f;
  } else {
    q = v * 56.1448535f + 71.1933247f;
    q = q * v + 50.2695818f;
    q = q * v + 12.5663441f;
  }
  return x.r * (0.5f - x.magnitude) * q;
}

// cos(2 pi x) is odd about |r| = 1/4: a multiple of (1/4 - |r|) P(v).
template <int parts>
static inline Vec cos_turns(const Turns& x) {
  const Vec v = x.v;
  Vec q;
  if constexpr (parts == 1) {  // to 7e-5
    q = v * 73.5854628f + 31.8970566f;
    q = q * v + 4.00027079f;
  } else {  // to 6e-7
    q = v * 70.9934106f + 68.0295023f;
    q = q * v + 32.0015005f;
    q = q * v + 3.99999764f;
  }
  return (0.25f - x.magnitude) * q;
}
