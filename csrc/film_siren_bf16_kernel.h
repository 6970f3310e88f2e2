// film_siren with operands in bf16, for one instruction set; see film_siren_bf16.cpp.
//
// Points are rows here: a block of products is 32 points by 32 outputs, and a row of 32 outputs,
// rounded, is a row of a tile of the next layer's left operand.

#include "simd.h"
#include "bf16_vectors.h"
#include "sine_turns.h"
#include "bf16_layers.h"
#include "film_siren_packed.h"

// What the backward pass keeps of a layer's 32 by 32 block: the products z and the cosine, two
// floats each, or two bf16 in the place of one.
template <int parts>
static inline void keep(float* to, int64_t at, Vec z, Vec cosine) {
  if constexpr (parts == 2) {
    store(to + at, z);
    store(to + BLOCK * BLOCK + at, cosine);
  } else {
    VecUint upper, lower;
    std::memcpy(&upper, &z, sizeof z);
    std::memcpy(&lower, &cosine, sizeof z);
    upper = ((upper + 0x8000u) & 0xffff0000u) | ((lower + 0x8000u) >> 16);
    Vec both;
    std::memcpy(&both, &upper, sizeof both);
    store(to + at, both);
  }
}

template <int parts>
static inline void recall(const float* from, int64_t at, Vec* z, Vec* cosine) {
  if constexpr (parts == 2) {
    *z = load(from + at);
    *cosine = load(from + BLOCK * BLOCK + at);
  } else {
    VecUint upper;
    std::memcpy(&upper, from + at, sizeof upper);
    const VecUint lower = upper << 16;
    upper &= 0xffff0000u;
    std::memcpy(z, &upper, sizeof upper);
    std::memcpy(cosine, &lower, sizeof lower);
  }
}

// What remains to be done with a block of products: FiLM and sin, then it is an operand again.
template <int parts>
struct Film {
  const float* products;       // (32, 32); null: none
  int64_t stride;              // of their rows
  const float* fp32;           // (32, 4) further inputs, added in fp32; null: none
  const float *w0, *w1, *w2;   // (32,) each, their weights
  const float *scale, *shift;  // (32,) FiLM with the bias, in turns
  float* kept;                 // see `keep`; null: nothing is
  uint16_t* to[parts];         // the tile of the first 16 points
  int64_t next;                // from there to that of the other 16

  // Rows [row, end).
  void run(int64_t row, int64_t end) const {
    if (kept)
      choose<true>(row, end);
    else
      choose<false>(row, end);
  }

 private:
  template <bool keeps>
  void choose(int64_t row, int64_t end) const {
    if (products && fp32)
      go<true, true, keeps>(row, end);
    else if (products)
      go<true, false, keeps>(row, end);
    else
      go<false, true, keeps>(row, end);
  }

  template <bool with_products, bool with_fp32, bool keeps>
  inline void go(int64_t row, int64_t end) const {
    for (int64_t i = row; i < end; ++i) {
      Vec sines[ROW_VECS];
#pragma GCC unroll 8
      for (int v = 0; v < ROW_VECS; ++v) {
        const int64_t j = v * LANES;
        Vec z{};
        if constexpr (with_products) z = load(products + i * stride + j);
        if constexpr (with_fp32) {
          const float* x = fp32 + i * 4;
          z = z + x[0] * load(w0 + j) + x[1] * load(w1 + j) + x[2] * load(w2 + j);
        }
        const Turns argument = turns(z * load(scale + j) + load(shift + j));
        sines[v] = sin_turns<parts>(argument);
        if constexpr (keeps) keep<parts>(kept, i * BLOCK + j, z, cos_turns<parts>(argument));
      }
      store_row<parts>(to, next, i, sines);
    }
  }
};

// What both passes do with a tile of points: its layers.
template <int parts>
class TileRun {
 public:
  // `slots`: of how many layers the activations are kept.
  TileRun(const FilmSirenProblem& p, const PackedWeights<parts>& w, const Tile& tile, Unit& unit,
          int64_t slots, float*& scratch)
      : p_(p),
        w_(w),
        tile_(tile),
        unit_(unit),
        group_(p.row_groups[tile.row]),
        scale_(take(scratch, (p.layers + 1) * w.width)),
        shift_(take(scratch, (p.layers + 1) * w.width)),
        x_(take(scratch, POINTS * 4)),
        directions_(take(scratch, POINTS * 4)),
        products_(take(scratch, BLOCK * BLOCK)),
        slots_(slots),
        inputs_(scratch, w.inputs / BLOCK),
        h_(take(scratch, slots * Activations<parts>::floats(w.width / BLOCK))) {}

  static int64_t floats(const FilmSirenProblem& p, const PackedWeights<parts>& w, int64_t slots) {
    return 2 * (p.layers + 1) * w.width + POINTS * 8 + BLOCK * BLOCK +
           Activations<parts>::floats((w.inputs + slots * w.width) / BLOCK);
  }

 protected:
  const FilmSirenProblem& p_;
  const PackedWeights<parts>& w_;
  const Tile& tile_;
  Unit& unit_;
  const int64_t group_;
  float *scale_, *shift_;   // (L + 1, width)
  float *x_, *directions_;  // (POINTS, 4)
  float* products_;         // (32, 32)
  int64_t slots_;
  Activations<parts> inputs_;
  float* h_;
  Pending<Film<parts>> film_;

  static float* take(float*& scratch, int64_t size) {
    float* result = scratch;
    scratch += size;
    return result;
  }

  int64_t point_blocks() const { return blocks(tile_.count); }
  int64_t width_blocks() const { return w_.width / BLOCK; }

  // The layer's activations.
  Activations<parts> h(int64_t layer) const {
    float* at = h_ + layer % slots_ * Activations<parts>::floats(width_blocks());
    return Activations<parts>(at, width_blocks());
  }

  const float* bias(int64_t layer) const {
    if (layer == 0) return p_.first_bias;
    return layer < p_.layers ? p_.hidden_bias + (layer - 1) * p_.width
                             : p_.view_bias + group_ * p_.width;
  }

  void prepare() {
    const int64_t W = p_.width, L = p_.layers, points = point_blocks() * BLOCK;
    if (!p_.first_weight)  // read in blocks, whose short rows the CPU does not see coming
      for (int64_t i = 0; i < tile_.count * W; i += 16)
        __builtin_prefetch(p_.x + tile_.start * W + i);
    constexpr float turn = 0.159154943f;
    std::fill(scale_, scale_ + (L + 1) * w_.width, 0.0f);
    std::fill(shift_, shift_ + (L + 1) * w_.width, 0.0f);
    for (int64_t layer = 0; layer <= L; ++layer) {
      const float* b = bias(layer);
      const float* f = p_.frequencies + (tile_.row * (L + 1) + layer) * W;
      const float* phase = p_.phases + (tile_.row * (L + 1) + layer) * W;
      for (int64_t i = 0; i < W; ++i) {
        scale_[layer * w_.width + i] = f[i] * turn;
        shift_[layer * w_.width + i] = (f[i] * b[i] + phase[i]) * turn;
      }
    }
    copy_fp32(p_.x + tile_.start * p_.inputs, p_.inputs, w_.fp32_inputs ? p_.inputs : 0, x_);
    copy_fp32(p_.directions + tile_.start * 3, 3, 3, directions_);
    if (w_.bf16_inputs)
      inputs_.round(p_.x + tile_.start * p_.inputs, tile_.count, p_.inputs, points);
  }

  void first_layer(float* kept) {
    if (w_.bf16_inputs)
      layer(0, &inputs_, w_.first(), nullptr, nullptr, kept);
    else if (w_.fp32_inputs)
      layer(0, nullptr, Matrix{}, x_, w_.first_fp32(), kept);
    else
      layer(0, nullptr, Matrix{}, nullptr, nullptr, kept);
  }
  void hidden_layer(int64_t index, float* kept) {
    const Activations<parts> from = h(index - 1);
    layer(index, &from, w_.hidden(index), nullptr, nullptr, kept);
  }
  void view_layer(float* kept) {
    const Activations<parts> from = h(p_.layers - 1);
    layer(p_.layers, &from, w_.view(group_), directions_, w_.view_fp32(group_), kept);
  }

  // Blocks go by points, so with two or more blocks of points a layer's last block can wait while
  // the next layer begins.
  template <typename Work>
  void begin_layer(Pending<Work>& pending) const {
    if (point_blocks() == 1) pending.finish();
  }

 private:
  void copy_fp32(const float* from, int64_t stride, int64_t size, float* to) const {
    std::fill(to, to + point_blocks() * BLOCK * 4, 0.0f);
    for (int64_t i = 0; i < tile_.count; ++i)
      for (int64_t j = 0; j < size; ++j) to[i * 4 + j] = from[i * stride + j];
  }

  // The points' inputs as a block of products, rows of `stride`; zero beyond them.
  const float* block_of_inputs(int64_t points, int64_t block, int64_t* stride) const {
    const int64_t count = std::clamp<int64_t>(tile_.count - points * BLOCK, 0, BLOCK);
    const int64_t columns = std::min(BLOCK, p_.width - block * BLOCK);
    const float* from = p_.x + (tile_.start + points * BLOCK) * p_.width + block * BLOCK;
    *stride = p_.width;
    if (count == BLOCK && columns == BLOCK) return from;
    std::fill(products_, products_ + BLOCK * BLOCK, 0.0f);
    for (int64_t i = 0; i < count; ++i)
      std::copy_n(from + i * p_.width, columns, products_ + i * BLOCK);
    *stride = BLOCK;
    return products_;
  }

  // Products of `from` and a matrix, of `fp32` and its weights, or both; with neither the inputs.
  void layer(int64_t index, const Activations<parts>* from, Matrix matrix, const float* fp32,
             const float* fp32_weight, float* kept) {
    const float* const scale = scale_ + index * w_.width;
    const float* const shift = shift_ + index * w_.width;
    const Activations<parts> to = h(index);
    begin_layer(film_);
    for (int64_t points = 0; points < point_blocks(); ++points)
      for (int64_t block = 0; block < width_blocks(); ++block) {
        const int64_t at = block * BLOCK;
        if (from)
          multiply_beside<parts>(unit_, {{from->rows(points), w_.at(matrix, block), from->steps}},
                                 products_, BLOCK, false, film_);
        int64_t stride = BLOCK;
        const float* const products = from    ? products_
                                      : !fp32 ? block_of_inputs(points, block, &stride)
                                              : nullptr;
        Film<parts> next{products,
                         stride,
                         fp32 ? fp32 + points * BLOCK * 4 : nullptr,
                         fp32 ? fp32_weight + at : nullptr,
                         fp32 ? fp32_weight + w_.width + at : nullptr,
                         fp32 ? fp32_weight + 2 * w_.width + at : nullptr,
                         scale + at,
                         shift + at,
                         kept,
                         {},
                         to.next()};
        to.point_to(points, block, next.to);
        film_.begin(next);
        if (!from) film_.finish();
        if (kept) kept += parts * BLOCK * BLOCK;
      }
  }
};

template <int parts>
class ForwardRun : TileRun<parts> {
  using Run = TileRun<parts>;
  using Run::film_, Run::group_, Run::p_, Run::tile_, Run::unit_, Run::w_;

 public:
  ForwardRun(const FilmSirenProblem& p, const PackedWeights<parts>& w, const Tile& tile, Unit& unit,
             float* scratch)
      : Run(p, w, tile, unit, 2, scratch), out_(Run::take(scratch, POINTS * w.channels)) {}

  static int64_t floats(const FilmSirenProblem& p, const PackedWeights<parts>& w) {
    return Run::floats(p, w, 2) + POINTS * w.channels;
  }

  void forward(float* output) {
    const int64_t L = p_.layers, C = p_.channels, split = p_.trunk_channels;
    Run::prepare();
    begin_heads();
    Run::first_layer(nullptr);
    for (int64_t i = 1; i < L; ++i) {
      Run::hidden_layer(i, nullptr);
      if (i < L - 1) head(i - 1, i, 0, C);
    }
    head(L - 2, L - 1, 0, split);
    write(output, 0, split);
    Run::view_layer(nullptr);
    head(L - 1, L, split, C);
    film_.finish();
    write(output, split, C);
  }

 private:
  float* out_;  // (POINTS, channels)

  void begin_heads() {
    const int64_t C = p_.channels, heads = p_.layers - 1;
    std::fill(out_, out_ + w_.channels, 0.0f);
    const float* bias = p_.head_bias + group_ * heads * C;
    for (int64_t head = 0; head < heads; ++head)
      for (int64_t c = 0; c < C; ++c) out_[c] += bias[head * C + c];
    for (int64_t i = 1; i < Run::point_blocks() * BLOCK; ++i)
      std::copy(out_, out_ + w_.channels, out_ + i * w_.channels);
  }

  // Adds a head of a layer to the blocks of channels [begin, end).
  void head(int64_t index, int64_t layer, int64_t begin, int64_t end) {
    const Matrix matrix = w_.head(group_, index);
    const Activations<parts> from = Run::h(layer);
    Run::begin_layer(film_);
    for (int64_t points = 0; points < Run::point_blocks(); ++points)
      for (int64_t block = begin / BLOCK; block < blocks(end); ++block)
        multiply_beside<parts>(unit_, {{from.rows(points), w_.at(matrix, block), from.steps}},
                               out_ + points * BLOCK * w_.channels + block * BLOCK, w_.channels,
                               true, film_);
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
  const PackedWeights<parts> weights(p, false, threads);
#pragma omp parallel num_threads(threads)
  {
    Unit unit;
    float* scratch = thread_scratch(ForwardRun<parts>::floats(p, weights));
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < count; ++i)
      ForwardRun<parts>(p, weights, tiles[i], unit, scratch).forward(output);
  }
}

#include "film_siren_bf16_backward.h"
