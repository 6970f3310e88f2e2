// The weights of film_siren as bf16 tiles.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "bf16.h"
#include "ops.h"
#include "parallel.h"

namespace semfaceedit {

constexpr int64_t BLOCK = 32;      // points and outputs of a block of products; inputs of a step
constexpr int64_t TILE_SIZE = 512;  // bf16 values: 16 rows of 32
constexpr int64_t FP32_INPUTS = 3;  // a first layer of up to so many inputs stays in fp32

inline int64_t blocks(int64_t size) { return (size + BLOCK - 1) / BLOCK; }

// An operand of a block of products as `parts` bf16 terms (value = high + low). A left operand has
// its second 16 points at `next`.
template <int parts>
struct Operand {
  const uint16_t* part[parts];
  int64_t next = 0;
};

// Matrices are cut into blocks of 32 outputs, those into steps of 32 inputs, those into two tiles
// of 16 outputs: (blocks, steps, 2, 16 pairs of inputs, 16 outputs, 2). Widths and channels are
// padded with zeros to whole blocks.
class PackedWeights {
 public:
  const int64_t width, channels, first_steps;  // padded; no steps: the first layer is in fp32

  PackedWeights(const FilmSirenProblem& p, int parts, int threads)
      : width(blocks(p.width) * BLOCK),
        channels(blocks(p.channels) * BLOCK),
        first_steps(p.inputs <= FP32_INPUTS ? 0 : blocks(p.inputs)),
        square_(width * width),
        head_(channels * width),
        hidden_(first_steps * BLOCK * width),
        view_(hidden_ + (p.layers - 1) * square_),
        heads_(view_ + p.groups * square_),
        part_(heads_ + p.groups * p.layers * head_),
        tiles_((parts * part_ + 1) / 2),
        fp32_((1 + p.groups) * FP32_INPUTS * width) {
    pack_fp32(p.first_weight, p.inputs, first_steps ? 0 : p.inputs, p.width, 0);
    for (int64_t group = 0; group < p.groups; ++group)
      pack_fp32(p.view_weight + group * p.width * (3 + p.width), 3 + p.width, 3, p.width,
                1 + group);
    const std::vector<Job> jobs = jobs_of(p);
    const int64_t count = static_cast<int64_t>(jobs.size());
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; ++i) pack(jobs[i], parts);
  }

  // Offsets of matrices, for `at`.
  int64_t first() const { return 0; }
  int64_t hidden(int64_t layer) const { return hidden_ + (layer - 1) * square_; }
  int64_t view(int64_t group) const { return view_ + group * square_; }
  // Of L - 1 heads the last is two matrices: L - 2 holds the trunk's channels and zeros for the
  // others, L - 1 the other way round; each has only the blocks that are not all zero.
  int64_t head(int64_t group, int64_t head, int64_t layers) const {
    return heads_ + (group * layers + head) * head_;
  }

  // The block of outputs of a matrix whose inputs are so many steps.
  template <int parts>
  Operand<parts> at(int64_t matrix, int64_t block, int64_t steps) const {
    Operand<parts> result;
    for (int part = 0; part < parts; ++part)
      result.part[part] = data() + part * part_ + matrix + block * steps * 2 * TILE_SIZE;
    return result;
  }

  // (3, width): what inputs or directions are multiplied with in fp32.
  const float* first_fp32() const { return fp32_.data(); }
  const float* view_fp32(int64_t group) const {
    return fp32_.data() + (1 + group) * FP32_INPUTS * width;
  }

 private:
  // A block of a matrix: its outputs [begin, end) are rows, the others zero.
  struct Job {
    const float* rows;  // of the block's output 0
    int64_t stride, begin, end, inputs, steps, to;
  };

  int64_t square_, head_, hidden_, view_, heads_, part_;
  Buffer tiles_, fp32_;

  uint16_t* data() const { return reinterpret_cast<uint16_t*>(tiles_.data()); }

  void pack_fp32(const float* from, int64_t stride, int64_t inputs, int64_t outputs, int64_t to) {
    float* row = fp32_.data() + to * FP32_INPUTS * width;
    std::fill(row, row + FP32_INPUTS * width, 0.0f);
    for (int64_t i = 0; i < inputs; ++i)
      for (int64_t j = 0; j < outputs; ++j) row[i * width + j] = from[j * stride + i];
  }

  std::vector<Job> jobs_of(const FilmSirenProblem& p) const {
    const int64_t W = p.width, C = p.channels, L = p.layers, split = p.trunk_channels;
    std::vector<Job> jobs;
    const auto matrix = [&](const float* rows, int64_t stride, int64_t begin, int64_t end,
                            int64_t inputs, int64_t to) {
      const int64_t steps = blocks(inputs);
      for (int64_t block = begin / BLOCK; block < blocks(end); ++block) {
        const int64_t first = block * BLOCK;
        jobs.push_back({rows + first * stride, stride, begin - first, end - first, inputs, steps,
                        to + block * steps * 2 * TILE_SIZE});
      }
    };
    if (first_steps) matrix(p.first_weight, p.inputs, 0, W, p.inputs, first());
    for (int64_t layer = 1; layer < L; ++layer)
      matrix(p.hidden_weight + (layer - 1) * W * W, W, 0, W, W, hidden(layer));
    for (int64_t group = 0; group < p.groups; ++group) {
      matrix(p.view_weight + group * W * (3 + W) + 3, 3 + W, 0, W, W, view(group));
      const float* rows = p.head_weight + group * (L - 1) * C * W;
      for (int64_t i = 0; i < L - 2; ++i) matrix(rows + i * C * W, W, 0, C, W, head(group, i, L));
      matrix(rows + (L - 2) * C * W, W, 0, split, W, head(group, L - 2, L));
      matrix(rows + (L - 2) * C * W, W, split, C, W, head(group, L - 1, L));
    }
    return jobs;
  }

  void pack(const Job& job, int parts) const {
    uint16_t* to = data() + job.to;
    for (int64_t output = 0; output < BLOCK; ++output)
      for (int64_t input = 0; input < job.steps * BLOCK; ++input) {
        const bool inside = output >= job.begin && output < job.end && input < job.inputs;
        const float value = inside ? job.rows[output * job.stride + input] : 0.0f;
        const int64_t at = (input / BLOCK * 2 + output / 16) * TILE_SIZE +
                           input % BLOCK / 2 * BLOCK + output % 16 * 2 + input % 2;
        const uint16_t high = to_bf16(value);
        to[at] = high;
        if (parts == 2) to[part_ + at] = to_bf16(value - from_bf16(high));
      }
  }
};

}  // namespace semfaceedit
