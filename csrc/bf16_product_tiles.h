// Blocks of products by a TileUnit. Included inside a namespace; see film_siren_bf16.cpp.

static inline void tile_dot(const uint16_t* a, const uint16_t* b, float* c) {
  TileUnit unit;
  unit.template load<0>(c, 64), unit.template load<1>(a, 64), unit.template load<2>(b, 64);
  unit.template dot<0, 1, 2>();
  unit.template store<0>(c, 64);
}

struct Unit : TileUnit {
  // c (32, 32) = the sum of the terms a b, or += with `accumulate`; a (32, 32 * steps) and
  // b (32 * steps, 32) are tiles of bf16 in one or two parts. `between` is called after each step,
  // before c is written: its vector instructions run beside the tile unit.
  template <int parts, typename Between>
  void product(std::initializer_list<Term<parts>> terms, float* c, int64_t ldc, bool accumulate,
               const Between& between) {
    const int64_t stride = ldc * 4;
    float* const lower = c + 16 * ldc;
    if (accumulate) {
      this->template load<0>(c, stride), this->template load<1>(c + 16, stride);
      this->template load<2>(lower, stride), this->template load<3>(lower + 16, stride);
    } else {
      this->template zero<0>(), this->template zero<1>();
      this->template zero<2>(), this->template zero<3>();
    }
    for (const Term<parts>& term : terms)
      for (int64_t step = 0; step < term.steps; ++step) {
        // With two parts, from the smallest products to the largest but for the last: each part
        // of an operand is loaded once, and small low by low is left out.
        load_a(term.a, 0, step);
        if constexpr (parts == 2) {
          load_b(term.b, 1, step);
          dots();
        }
        load_b(term.b, 0, step);
        dots();
        if constexpr (parts == 2) {
          load_a(term.a, 1, step);
          dots();
        }
        between();
      }
    this->template store<0>(c, stride), this->template store<1>(c + 16, stride);
    this->template store<2>(lower, stride), this->template store<3>(lower + 16, stride);
  }

  // Products of what the tiles hold; returns the floating-point operations.
  int64_t busy(int64_t rounds) {
    this->template zero<0>(), this->template zero<1>(), this->template zero<2>();
    this->template zero<3>(), this->template zero<4>(), this->template zero<5>();
    this->template zero<6>(), this->template zero<7>();
    for (int64_t round = 0; round < rounds; ++round) dots();
    return rounds * 4 * 2 * 16 * 16 * 32;
  }

 private:
  template <int parts>
  void load_a(const Operand<parts>& a, int part, int64_t step) {
    const uint16_t* tile = a.part[part] + step * TILE_SIZE;
    this->template load<4>(tile, 64), this->template load<5>(tile + a.next, 64);
  }
  template <int parts>
  void load_b(const Operand<parts>& b, int part, int64_t step) {
    const uint16_t* tile = b.part[part] + 2 * step * TILE_SIZE;
    this->template load<6>(tile, 64), this->template load<7>(tile + TILE_SIZE, 64);
  }
  void dots() {
    this->template dot<0, 4, 6>(), this->template dot<1, 4, 7>();
    this->template dot<2, 5, 6>(), this->template dot<3, 5, 7>();
  }
};
