// What layers of products in bf16 share, with points as rows. Included after bf16_vectors.h.

constexpr int64_t POINTS = 128;  // of a tile of points: the weights are read once for so many

// A right operand of several blocks of columns: where, and its summands.
struct Matrix {
  int64_t at, steps;
};

// 32 rows and columns of weights as a step of a right operand; rows outside of [begin, end) and
// columns from `columns` on are zero. Forward a row is a column of the operand, back it is a summand.
template <int parts>
static inline void pack_block(const float* from, int64_t stride, int64_t begin, int64_t end,
                              int64_t columns, bool back, uint16_t* const (&tiles)[parts]) {
  alignas(64) uint16_t rounded[parts][2 * TILE_SIZE];
  uint16_t* to[parts];
  for (int part = 0; part < parts; ++part) to[part] = rounded[part];
  for (int64_t row = 0; row < BLOCK; ++row) {
    float line[BLOCK] = {};
    if (row >= begin && row < end) std::copy_n(from + row * stride, std::min(columns, BLOCK), line);
    for (int64_t k = 0; k < BLOCK; k += LANES)
      store_parts<parts>(to, row * BLOCK + k, load(line + k));
  }
  for (int part = 0; part < parts; ++part) {
    if (back) {
      pair_rows(to[part], to[part] + TILE_SIZE, tiles[part]);
    } else {
      transpose_pairs(to[part], tiles[part]);
      transpose_pairs(to[part] + TILE_SIZE, tiles[part] + TILE_SIZE);
    }
  }
}

// The work on a block of products that is done beside the next block.
template <typename Work>
class Pending {
 public:
  void begin(const Work& work) {
    work_ = work;
    row_ = 0;
  }
  void run(int64_t rows) {
    if (row_ == BLOCK) return;
    const int64_t end = std::min(row_ + rows, BLOCK);
    work_.run(row_, end);
    row_ = end;
  }
  void finish() { run(BLOCK); }

 private:
  Work work_{};
  int64_t row_ = BLOCK;  // the first that is not done yet
};

// One block of products; before they are written, the block before them is finished.
template <int parts, typename Work>
static inline void multiply_beside(Unit& unit, std::initializer_list<Term<parts>> terms, float* to,
                                   int64_t ld, bool accumulate, Pending<Work>& pending) {
  int64_t steps = 0;
  for (const Term<parts>& term : terms) steps += term.steps;
  if (steps == 0) pending.finish();
  const int64_t rows = steps ? (BLOCK + steps - 1) / steps : BLOCK;
  unit.template product<parts>(terms, to, ld, accumulate, [&] { pending.run(rows); });
  pending.finish();
}

// (POINTS, 32 * steps) as tiles: (POINTS / 16, steps, 16, 32).
template <int parts>
struct Activations {
  uint16_t* part[parts];
  int64_t steps;

  static int64_t floats(int64_t steps) { return parts * POINTS * steps * BLOCK / 2; }

  Activations(float*& scratch, int64_t steps) : steps(steps) {
    for (uint16_t*& to : part) {
      to = reinterpret_cast<uint16_t*>(scratch);
      scratch += POINTS * steps * BLOCK / 2;
    }
  }
  int64_t next() const { return steps * TILE_SIZE; }
  Operand<parts> rows(int64_t block, int64_t step = 0) const {
    Operand<parts> result{};
    for (int i = 0; i < parts; ++i)
      result.part[i] = part[i] + block * 2 * next() + step * TILE_SIZE;
    result.next = next();
    return result;
  }
  void point_to(int64_t block, int64_t step, uint16_t* (&to)[parts]) const {
    for (int i = 0; i < parts; ++i) to[i] = part[i] + block * 2 * next() + step * TILE_SIZE;
  }

  // The rows of a block of points and columns, as `round` or a layer left them, at `to` with stride `ld`.
  void unround(int64_t block, int64_t step, int64_t count, int64_t size, float* to,
               int64_t ld) const {
    alignas(64) float line[BLOCK];
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = (2 * block + i / 16) * next() + step * TILE_SIZE + i % 16 * BLOCK;
      for (int64_t k = 0; k < BLOCK; k += LANES) {
        Vec value = load_bf16(part[0] + at + k);
        if constexpr (parts == 2) value += load_bf16(part[1] + at + k);
        store(line + k, value);
      }
      std::copy_n(line, size, to + i * ld);
    }
  }

  // Rows (count, size) of memory, rounded; zero beyond them up to `points`.
  void round(const float* from, int64_t count, int64_t size, int64_t points) const {
    alignas(64) float line[BLOCK];
    for (int64_t i = 0; i < points; ++i)
      for (int64_t step = 0; step < steps; ++step) {
        const int64_t inside = i < count ? std::min(size - step * BLOCK, BLOCK) : 0;
        const float* row = from + i * size + step * BLOCK;
        if (inside < BLOCK) {
          for (int64_t k = 0; k < BLOCK; ++k) line[k] = k < inside ? row[k] : 0.0f;
          row = line;
        }
        const int64_t at = (i / 16 * steps + step) * TILE_SIZE + i % 16 * BLOCK;
        for (int64_t k = 0; k < BLOCK; k += LANES) store_parts<parts>(part, at + k, load(row + k));
      }
  }
};
