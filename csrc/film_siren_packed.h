// The weights of film_siren as bf16 tiles. Included inside the namespace of an instruction set.

constexpr int64_t FP32_INPUTS = 3;  // a first layer of up to so many inputs stays in fp32

// Forward a matrix's summands are a layer's inputs and its columns the outputs; back it is the other
// way round. Widths and channels are padded with zeros to whole blocks.
template <int parts>
class PackedWeights {
 public:
  const int64_t width, channels, inputs;  // padded
  const bool fp32_inputs, bf16_inputs;    // neither: the first layer has no weights

  // With `back`, what the backward pass needs: it evaluates no heads.
  PackedWeights(const FilmSirenProblem& p, bool back, int threads)
      : width(blocks(p.width) * BLOCK),
        channels(blocks(p.channels) * BLOCK),
        inputs(blocks(p.inputs) * BLOCK),
        fp32_inputs(p.first_weight && p.inputs <= FP32_INPUTS),
        bf16_inputs(p.first_weight && !fp32_inputs),
        heads_each_(p.layers),
        fp32_((1 + p.groups) * FP32_INPUTS * width) {
    pack_fp32(p.first_weight, p.inputs, fp32_inputs ? p.inputs : 0, p.width, 0);
    for (int64_t group = 0; group < p.groups; ++group)
      pack_fp32(p.view_weight + group * p.width * (3 + p.width), 3 + p.width, 3, p.width,
                1 + group);
    add_layers(p, back);
    add_heads(p, back);
    tiles_ = Buffer((parts * size_ + 1) / 2);
    const int64_t count = static_cast<int64_t>(jobs_.size());
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; ++i) pack(jobs_[i]);
  }

  Matrix first() const { return first_; }
  Matrix hidden(int64_t layer) const { return hidden_[layer - 1]; }
  Matrix view(int64_t group) const { return view_[group]; }
  // Of L - 1 heads the last is two matrices: L - 2 is zero but for the trunk's channels, L - 1 is
  // zero for those.
  Matrix head(int64_t group, int64_t head) const { return heads_[group * heads_each_ + head]; }

  Matrix first_back() const { return first_back_; }
  Matrix hidden_back(int64_t layer) const { return hidden_back_[layer - 1]; }
  Matrix view_back(int64_t group) const { return view_back_[group]; }
  Matrix directions_back(int64_t group) const { return directions_back_[group]; }
  Matrix head_back(int64_t group, int64_t head) const {
    return heads_back_[group * heads_each_ + head];
  }

  Operand<parts> at(Matrix matrix, int64_t block, int64_t step = 0) const {
    Operand<parts> result;
    for (int part = 0; part < parts; ++part)
      result.part[part] =
          data() + part * size_ + matrix.at + (block * matrix.steps + step) * 2 * TILE_SIZE;
    return result;
  }

  // (3, width): what inputs or directions are multiplied with in fp32.
  const float* first_fp32() const { return fp32_.data(); }
  const float* view_fp32(int64_t group) const {
    return fp32_.data() + (1 + group) * FP32_INPUTS * width;
  }

 private:
  // 32 rows and columns of weights; those outside of [begin, end) and of `columns` are zero.
  struct Job {
    const float* from;
    int64_t stride, begin, end, columns, to;
    bool back;
  };

  int64_t heads_each_, size_ = 0;  // size in bf16 values, of a part
  std::vector<Job> jobs_;
  Matrix first_{}, first_back_{};
  std::vector<Matrix> hidden_, view_, heads_, hidden_back_, view_back_, directions_back_,
      heads_back_;
  Buffer tiles_{0}, fp32_;

  uint16_t* data() const { return reinterpret_cast<uint16_t*>(tiles_.data()); }

  void pack_fp32(const float* from, int64_t stride, int64_t inputs, int64_t outputs, int64_t to) {
    float* row = fp32_.data() + to * FP32_INPUTS * width;
    std::fill(row, row + FP32_INPUTS * width, 0.0f);
    for (int64_t i = 0; i < inputs; ++i)
      for (int64_t j = 0; j < outputs; ++j) row[i * width + j] = from[j * stride + i];
  }

  void add_layers(const FilmSirenProblem& p, bool back) {
    const int64_t W = p.width;
    if (bf16_inputs) first_ = add(p.first_weight, p.inputs, 0, W, p.inputs, false);
    if (back && p.first_weight) first_back_ = add(p.first_weight, p.inputs, 0, W, p.inputs, true);
    for (int64_t layer = 1; layer < p.layers; ++layer) {
      const float* weight = p.hidden_weight + (layer - 1) * W * W;
      hidden_.push_back(add(weight, W, 0, W, W, false));
      if (back) hidden_back_.push_back(add(weight, W, 0, W, W, true));
    }
    for (int64_t group = 0; group < p.groups; ++group) {
      const float* weight = p.view_weight + group * W * (3 + W);
      view_.push_back(add(weight + 3, 3 + W, 0, W, W, false));
      if (!back) continue;
      view_back_.push_back(add(weight + 3, 3 + W, 0, W, W, true));
      directions_back_.push_back(add(weight, 3 + W, 0, W, 3, true));
    }
  }

  void add_heads(const FilmSirenProblem& p, bool back) {
    const int64_t W = p.width, C = p.channels, L = p.layers, split = p.trunk_channels;
    std::vector<Matrix>& to = back ? heads_back_ : heads_;
    for (int64_t group = 0; group < p.groups; ++group) {
      const float* rows = p.head_weight + group * (L - 1) * C * W;
      for (int64_t i = 0; i < L - 2; ++i) to.push_back(add(rows + i * C * W, W, 0, C, W, back));
      to.push_back(add(rows + (L - 2) * C * W, W, 0, split, W, back));
      to.push_back(add(rows + (L - 2) * C * W, W, split, C, W, back));
    }
  }

  // The matrix of weights (end, columns) whose rows before `begin` are zero.
  Matrix add(const float* from, int64_t stride, int64_t begin, int64_t end, int64_t columns,
             bool back) {
    const int64_t down = blocks(end), across = blocks(columns);
    const Matrix result{size_, back ? down : across};
    for (int64_t i = 0; i < down; ++i)
      for (int64_t j = 0; j < across; ++j)
        jobs_.push_back({from + i * BLOCK * stride + j * BLOCK, stride, begin - i * BLOCK,
                         end - i * BLOCK, columns - j * BLOCK,
                         size_ + (back ? j * down + i : i * across + j) * 2 * TILE_SIZE, back});
    size_ += down * across * 2 * TILE_SIZE;
    return result;
  }

  void pack(const Job& job) const {
    uint16_t* to[parts];
    for (int part = 0; part < parts; ++part) to[part] = data() + part * size_ + job.to;
    pack_block<parts>(job.from, job.stride, job.begin, job.end, job.columns, job.back, to);
  }
};
