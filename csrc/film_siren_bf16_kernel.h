// film_siren with operands in bf16, for one instruction set; see film_siren_bf16.cpp.
//
// Points are rows here: a block of products is 32 points by 32 outputs, and a row of 32 outputs,
// rounded, is a row of a tile of the next layer's left operand.

#include "simd.h"
#include "bf16_vectors.h"

constexpr int64_t POINTS = 128;  // of a tile of film_siren: the weights are read once for so many

// sin(2 pi x) to 8e-6 with three coefficients, 2e-7 with four (and the rounding of x): with r the
// distance to the nearest integer and v = |r| (1/2 - |r|), it is an odd multiple of v P(v).
template <int parts>
static inline Vec sin_turns(Vec x) {
  const Vec r = x - round_even(x);
  const Vec magnitude = absolute(r);
  const Vec rest = 0.5f - magnitude;
  const Vec v = magnitude * rest;
  Vec q;
  if constexpr (parts == 1) {
    q = v * 77.9394327f + 50.0248861f;
    q = q * v + 12.5688687f;
  } else {
    q = v * 56.1448535f + 71.1933247f;
    q = q * v + 50.2695818f;
    q = q * v + 12.5663441f;
  }
  return r * rest * q;
}

template <int parts>
static inline void store_parts(uint16_t* const (&to)[parts], int64_t at, Vec value) {
  store_bf16(to[0] + at, value);
  if constexpr (parts == 2) store_bf16(to[1] + at, value - load_bf16(to[0] + at));
}

// What remains to be done with a block of products: FiLM and sin, then it is an operand again.
template <int parts>
struct Epilogue {
  const float* products;                // (32, 32); null: none
  const float* fp32;                    // (32, 4) further inputs, added in fp32; null: none
  const float *w0, *w1, *w2;            // (32,) each, their weights
  const float *scale, *shift;           // (32,) FiLM with the bias, in turns
  uint16_t* to[parts];                  // the tile of the first 16 points
  int64_t next;                         // from there to that of the other 16
  int64_t row = BLOCK;                  // the first that is not done yet

  void run(int64_t rows) {
    const int64_t end = std::min(row + rows, BLOCK);
    if (products && fp32) go<true, true>(end);
    else if (products) go<true, false>(end);
    else go<false, true>(end);
    row = end;
  }

 private:
  template <bool with_products, bool with_fp32>
  inline void go(int64_t end) {
    for (int64_t j = 0; j < BLOCK; j += LANES) {
      const Vec f = load(scale + j), p = load(shift + j);
      Vec a{}, b{}, c{};
      if constexpr (with_fp32) a = load(w0 + j), b = load(w1 + j), c = load(w2 + j);
      for (int64_t i = row; i < end; ++i) {
        Vec z{};
        if constexpr (with_products) z = load(products + i * BLOCK + j);
        if constexpr (with_fp32) {
          const float* x = fp32 + i * 4;
          z = z + x[0] * a + x[1] * b + x[2] * c;
        }
        store_parts<parts>(to, i / 16 * next + i % 16 * BLOCK + j, sin_turns<parts>(z * f + p));
      }
    }
  }
};

// (POINTS, 32 * steps) as tiles: (POINTS / 16, steps, 16, 32).
template <int parts>
struct Activations {
  uint16_t* part[parts];
  int64_t steps;

  Activations(float*& scratch, int64_t steps) : steps(steps) {
    for (uint16_t*& to : part) {
      to = reinterpret_cast<uint16_t*>(scratch);
      scratch += POINTS * steps * BLOCK / 2;
    }
  }
  int64_t next() const { return steps * TILE_SIZE; }
  Operand<parts> rows(int64_t block) const {
    Operand<parts> result{};
    for (int i = 0; i < parts; ++i) result.part[i] = part[i] + block * 2 * next();
    result.next = next();
    return result;
  }
};

template <int parts>
class TileRun {
 public:
  TileRun(const FilmSirenProblem& p, const PackedWeights& w, const Tile& tile, Unit& unit,
          float* scratch)
      : p_(p),
        w_(w),
        tile_(tile),
        unit_(unit),
        group_(p.row_groups[tile.row]),
        scale_(take(scratch, (p.layers + 1) * w.width)),
        shift_(take(scratch, (p.layers + 1) * w.width)),
        x_(take(scratch, POINTS * 4)),
        directions_(take(scratch, POINTS * 4)),
        out_(take(scratch, POINTS * w.channels)),
        products_(take(scratch, BLOCK * BLOCK)),
        inputs_(scratch, w.first_steps),
        h_{Activations<parts>(scratch, w.width / BLOCK),
           Activations<parts>(scratch, w.width / BLOCK)} {}

  static int64_t scratch(const FilmSirenProblem& p, const PackedWeights& w) {
    const int64_t activations = parts * POINTS * (w.first_steps * BLOCK + 2 * w.width) / 2;
    return 2 * (p.layers + 1) * w.width + POINTS * (8 + w.channels) + BLOCK * BLOCK +
           activations;
  }

  void forward(float* output) {
    const int64_t L = p_.layers, C = p_.channels, split = p_.trunk_channels;
    prepare();
    if (w_.first_steps)
      layer(0, &inputs_, w_.first(), nullptr, nullptr, h_[0]);
    else
      layer(0, nullptr, 0, x_, w_.first_fp32(), h_[0]);
    for (int64_t i = 1; i < L; ++i) {
      layer(i, &h_[(i - 1) % 2], w_.hidden(i), nullptr, nullptr, h_[i % 2]);
      if (i < L - 1) head(i - 1, h_[i % 2], 0, C);
    }
    head(L - 2, h_[(L - 1) % 2], 0, split);
    write(output, 0, split);
    layer(L, &h_[(L - 1) % 2], w_.view(group_), directions_, w_.view_fp32(group_), h_[L % 2]);
    head(L - 1, h_[L % 2], split, C);
    finish();
    write(output, split, C);
  }

 private:
  const FilmSirenProblem& p_;
  const PackedWeights& w_;
  const Tile& tile_;
  Unit& unit_;
  const int64_t group_;
  float *scale_, *shift_;     // (L + 1, width)
  float *x_, *directions_;    // (POINTS, 4)
  float* out_;                // (POINTS, channels)
  float* products_;           // (32, 32)
  Activations<parts> inputs_, h_[2];
  Epilogue<parts> pending_{};
  const uint16_t* unread_ = nullptr;  // the activations that `pending_` completes

  static float* take(float*& scratch, int64_t size) {
    float* result = scratch;
    scratch += size;
    return result;
  }

  int64_t point_blocks() const { return blocks(tile_.count); }

  void prepare() {
    const int64_t W = p_.width, L = p_.layers, C = p_.channels, heads = L - 1;
    const int64_t points = point_blocks() * BLOCK, inputs = w_.first_steps ? 0 : p_.inputs;
    constexpr float turn = 0.159154943f;
    std::fill(scale_, scale_ + (L + 1) * w_.width, 0.0f);
    std::fill(shift_, shift_ + (L + 1) * w_.width, 0.0f);
    for (int64_t layer = 0; layer <= L; ++layer) {
      const float* bias = layer == 0  ? p_.first_bias
                          : layer < L ? p_.hidden_bias + (layer - 1) * W
                                      : p_.view_bias + group_ * W;
      const float* f = p_.frequencies + (tile_.row * (L + 1) + layer) * W;
      const float* phase = p_.phases + (tile_.row * (L + 1) + layer) * W;
      for (int64_t i = 0; i < W; ++i) {
        scale_[layer * w_.width + i] = f[i] * turn;
        shift_[layer * w_.width + i] = (f[i] * bias[i] + phase[i]) * turn;
      }
    }
    copy_fp32(p_.x + tile_.start * p_.inputs, p_.inputs, inputs, points, x_);
    copy_fp32(p_.directions + tile_.start * 3, 3, 3, points, directions_);
    if (w_.first_steps) round_inputs(points);

    std::fill(out_, out_ + w_.channels, 0.0f);
    const float* bias = p_.head_bias + group_ * heads * C;
    for (int64_t head = 0; head < heads; ++head)
      for (int64_t c = 0; c < C; ++c) out_[c] += bias[head * C + c];
    for (int64_t i = 1; i < points; ++i)
      std::copy(out_, out_ + w_.channels, out_ + i * w_.channels);
  }

  void copy_fp32(const float* from, int64_t stride, int64_t size, int64_t points, float* to) {
    std::fill(to, to + points * 4, 0.0f);
    for (int64_t i = 0; i < tile_.count; ++i)
      for (int64_t j = 0; j < size; ++j) to[i * 4 + j] = from[i * stride + j];
  }

  void round_inputs(int64_t points) {
    const int64_t size = p_.inputs, padded = w_.first_steps * BLOCK;
    float line[BLOCK];
    for (int64_t i = 0; i < points; ++i)
      for (int64_t j = 0; j < padded; j += BLOCK) {
        const float* from = p_.x + (tile_.start + i) * size + j;
        const int64_t count = i < tile_.count ? std::clamp<int64_t>(size - j, 0, BLOCK) : 0;
        std::fill(std::copy(from, from + count, line), line + BLOCK, 0.0f);
        const int64_t at = (i / 16 * w_.first_steps + j / BLOCK) * TILE_SIZE + i % 16 * BLOCK;
        for (int64_t k = 0; k < BLOCK; k += LANES)
          store_parts<parts>(inputs_.part, at + k, load(line + k));
      }
  }

  void finish() {
    if (unread_) pending_.run(BLOCK);
    unread_ = nullptr;
  }

  // One block of products; before they are written, the block before them is finished. Blocks go
  // by points, so with two or more blocks of points a layer's last block can wait while the next
  // layer begins.
  void product(const Activations<parts>& from, int64_t points, int64_t matrix, int64_t block,
               float* to, int64_t ld, bool accumulate) {
    if (point_blocks() == 1 && unread_ == from.part[0]) finish();
    const int64_t rows = (BLOCK + from.steps - 1) / from.steps;
    unit_.template product<parts>(from.steps, from.rows(points),
                                  w_.template at<parts>(matrix, block, from.steps), to, ld,
                                  accumulate, [&] {
                                    if (unread_) pending_.run(rows);
                                  });
    finish();
  }

  void layer(int64_t index, const Activations<parts>* from, int64_t matrix, const float* fp32,
             const float* fp32_weight, const Activations<parts>& to) {
    const float* const scale = scale_ + index * w_.width;
    const float* const shift = shift_ + index * w_.width;
    for (int64_t points = 0; points < point_blocks(); ++points)
      for (int64_t block = 0; block < w_.width / BLOCK; ++block) {
        const int64_t at = block * BLOCK;
        if (from) product(*from, points, matrix, block, products_, BLOCK, false);
        Epilogue<parts> next{from ? products_ : nullptr,
                             fp32 ? fp32 + points * BLOCK * 4 : nullptr,
                             fp32 ? fp32_weight + at : nullptr,
                             fp32 ? fp32_weight + w_.width + at : nullptr,
                             fp32 ? fp32_weight + 2 * w_.width + at : nullptr,
                             scale + at,
                             shift + at,
                             {},
                             to.next(),
                             0};
        for (int i = 0; i < parts; ++i)
          next.to[i] = to.part[i] + points * 2 * to.next() + block * TILE_SIZE;
        pending_ = next;
        unread_ = to.part[0];
        if (!from) finish();
      }
  }

  // Adds a head to the blocks of channels [begin, end).
  void head(int64_t index, const Activations<parts>& from, int64_t begin, int64_t end) {
    const int64_t matrix = w_.head(group_, index, p_.layers);
    for (int64_t points = 0; points < point_blocks(); ++points)
      for (int64_t block = begin / BLOCK; block < blocks(end); ++block)
        product(from, points, matrix, block,
                out_ + points * BLOCK * w_.channels + block * BLOCK, w_.channels, true);
  }

  // The trunk's channels are written before the view layer's head is added to the block that
  // they may share with others: there their weights are zero, and zero times NaN is not.
  void write(float* output, int64_t begin, int64_t end) const {
    for (int64_t i = 0; i < tile_.count; ++i) {
      const float* from = out_ + i * w_.channels;
      std::copy(from + begin, from + end, output + (tile_.start + i) * p_.channels + begin);
    }
  }
};

template <int parts>
static void film_siren_forward_parts(const FilmSirenProblem& p, float* output, int threads) {
  const std::vector<Tile> tiles = make_tiles(p, POINTS);
  const int64_t count = static_cast<int64_t>(tiles.size());
  const PackedWeights weights(p, parts, threads);
#pragma omp parallel num_threads(threads)
  {
    Unit unit;
    float* scratch = thread_scratch(TileRun<parts>::scratch(p, weights));
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < count; ++i)
      TileRun<parts>(p, weights, tiles[i], unit, scratch).forward(output);
  }
}
