// The tile unit in plain C++, as Intel's instruction reference defines it, so that what is written
// for tiles can be tested on any machine. Included inside a namespace; see tile_amx.h.

struct TileUnit {
  TileUnit() { std::memset(tiles, 0xff, sizeof tiles); }  // NaN: a tile is not zero before use

  template <int tile>
  void zero() {
    std::memset(tiles[tile], 0, sizeof tiles[tile]);
  }
  template <int tile>
  void load(const void* from, int64_t stride) {
    for (int64_t row = 0; row < 16; ++row)
      std::memcpy(tiles[tile][row], static_cast<const char*>(from) + row * stride, 64);
  }
  template <int tile>
  void store(void* to, int64_t stride) {
    for (int64_t row = 0; row < 16; ++row)
      std::memcpy(static_cast<char*>(to) + row * stride, tiles[tile][row], 64);
  }
  // First and second members of the pairs are summed apart, in the order of k. A product of two
  // bf16 is exact in a float (unless it is subnormal), so multiplying and adding rounds once.
  template <int c, int a, int b>
  void dot() {
    for (int64_t row = 0; row < 16; ++row) {
      float sums[2][16] = {};
      for (int64_t k = 0; k < 16; ++k)
        for (int64_t odd = 0; odd < 2; ++odd)
          for (int64_t column = 0; column < 16; ++column)
            sums[odd][column] =
                flushed(sums[odd][column] + flushed(operand(tiles[a][row] + 2 * k + odd) *
                                                    operand(tiles[b][k] + 2 * column + odd)));
      for (int64_t column = 0; column < 16; ++column) {
        float total;
        std::memcpy(&total, tiles[c][row] + 2 * column, sizeof total);
        total = flushed(flushed(total) + flushed(sums[0][column] + sums[1][column]));
        std::memcpy(tiles[c][row] + 2 * column, &total, sizeof total);
      }
    }
  }

 private:
  uint16_t tiles[8][16][32];

  static float flushed(float x) {
    return std::abs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x;
  }
  static float operand(const uint16_t* x) { return flushed(from_bf16(*x)); }
};
