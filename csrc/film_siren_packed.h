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
// of 16 outputs: (blocks, steps, 2, 16 pairs of inputs, 16 outputs, 2). Widths are padded with
// zeros to whole blocks; of the channels, those of the trunk and those of the view layer each.
class PackedWeights {
 public:
  const int64_t width, trunk, channels, first_steps;  // padded; 0 first steps: fp32

  PackedWeights(const FilmSirenProblem& p, int parts, int threads)
      : width(blocks(p.width) * BLOCK),
        trunk(blocks(p.trunk_channels) * BLOCK),
        channels(trunk + blocks(p.channels - p.trunk_channels) * BLOCK),
        first_steps(p.inputs <= FP32_INPUTS ? 0 : blocks(p.inputs)),
        square_(width * width),
        head_(channels * width),
        hidden_(first_steps * BLOCK * width),
        view_(hidden_ + (p.layers - 1) * square_),
        heads_(view_ + p.groups * square_),
        part_(heads_ + p.groups * (p.layers - 1) * head_),
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
  int64_t head(int64_t group, int64_t head, int64_t heads) const {
    return heads_ + (group * heads + head) * head_;
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
  // Up to 32 rows of a matrix, and where they go.
  struct Job {
    const float* rows;
    int64_t stride, outputs, inputs, steps, to;
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
    const int64_t W = p.width, C = p.channels, heads = p.layers - 1;
    std::vector<Job> jobs;
    const auto matrix = [&](const float* rows, int64_t stride, int64_t outputs, int64_t inputs,
                            int64_t to) {
      const int64_t steps = blocks(inputs);
      for (int64_t block = 0; block < blocks(outputs); ++block)
        jobs.push_back({rows + block * BLOCK * stride, stride,
                        std::min(BLOCK, outputs - block * BLOCK), inputs, steps,
                        to + block * steps * 2 * TILE_SIZE});
    };
    if (first_steps) matrix(p.first_weight, p.inputs, W, p.inputs, first());
    for (int64_t layer = 1; layer < p.layers; ++layer)
      matrix(p.hidden_weight + (layer - 1) * W * W, W, W, W, hidden(layer));
    for (int64_t group = 0; group < p.groups; ++group) {
      matrix(p.view_weight + group * W * (3 + W) + 3, 3 + W, W, W, view(group));
      for (int64_t i = 0; i < heads; ++i) {
        const float* rows = p.head_weight + (group * heads + i) * C * W;
        const int64_t split = p.trunk_channels, to = head(group, i, heads);
        matrix(rows, W, split, W, to);
        matrix(rows + split * W, W, C - split, W, to + trunk * width);
      }
    }
    return jobs;
  }

  void pack(const Job& job, int parts) const {
    uint16_t* to = data() + job.to;
    for (int64_t output = 0; output < BLOCK; ++output)
      for (int64_t input = 0; input < job.steps * BLOCK; ++input) {
        const bool inside = output < job.outputs && input < job.inputs;
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
