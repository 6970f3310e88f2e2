// The tile unit of the CPU. Included inside the namespace of its instruction set.
//
// A tile is 16 rows of 64 bytes, numbered 0 to 7: floats (16, 16), or pairs of bf16 (16, 16, 2).

struct TileUnit {
  // Every thread sets the shapes of its tiles before use, and gives them back afterwards.
  TileUnit() {
    alignas(64) struct {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shapes;
    static_assert(sizeof shapes == 64);
    asm volatile("ldtilecfg %0" : : "m"(shapes));
  }
  ~TileUnit() { asm volatile("tilerelease"); }
  TileUnit(const TileUnit&) = delete;
  TileUnit& operator=(const TileUnit&) = delete;

  template <int tile>
  static inline void zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(tile));
  }
  // `stride` in bytes, between rows.
  template <int tile>
  static inline void load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(tile) : "memory");
  }
  template <int tile>
  static inline void store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(tile) : "memory");
  }
  // c (16, 16) += the sum over pairs k of a (16, k) b (k, 16).
  template <int c, int a, int b>
  static inline void dot() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(c), "i"(a), "i"(b));
  }
};
