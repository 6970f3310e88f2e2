// How film_siren divides its points: every tile lies in one FiLM row; and what is summed over a row.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "ops.h"
#include "parallel.h"

namespace semfaceedit {

// Points [start, start + count) of a FiLM row, and the segment that its sums belong to.
struct Tile {
  int64_t row, start, count, segment;
};

inline std::vector<Tile> make_tiles(const FilmSirenProblem& p, int64_t size) {
  std::vector<Tile> tiles;
  for (int64_t row = 0; row < p.rows; ++row)
    for (int64_t start = p.row_offsets[row]; start < p.row_offsets[row + 1]; start += size)
      tiles.push_back({row, start, std::min(size, p.row_offsets[row + 1] - start), 0});
  return tiles;
}

// A segment is the tiles of one row in one part: what is summed per row is first summed there.
// Returns each segment's row.
inline std::vector<int64_t> make_segments(std::vector<Tile>& tiles, const Partition& parts) {
  std::vector<int64_t> rows;
  for (int64_t part = 0; part < parts.parts; ++part)
    for (int64_t i = parts.begin(part); i < parts.end(part); ++i) {
      if (i == parts.begin(part) || tiles[i].row != rows.back()) rows.push_back(tiles[i].row);
      tiles[i].segment = static_cast<int64_t>(rows.size()) - 1;
    }
  return rows;
}

// What the backward pass adds to for a segment.
struct SegmentSums {
  float *frequencies, *phases;  // (L + 1, W)
  float* head_bias;             // (C,)

  static int64_t floats(const FilmSirenProblem& p) {
    return 2 * (p.layers + 1) * p.width + p.channels;
  }
  SegmentSums(const FilmSirenProblem& p, float* sums, int64_t segment)
      : frequencies(sums + segment * floats(p)),
        phases(frequencies + (p.layers + 1) * p.width),
        head_bias(phases + (p.layers + 1) * p.width) {}
};

// FiLM gradients are sums over a row's segments; biases are sums over rows, since for a layer
// dz = g cos f, and the sum of g cos is the gradient of the phase.
inline void add_segments(const FilmSirenProblem& p, const std::vector<int64_t>& segment_rows,
                         float* sums, const FilmSirenGradients& to) {
  const int64_t W = p.width, C = p.channels, heads = p.layers - 1, film = (p.layers + 1) * W;
  const auto clear = [](float* result, int64_t size) {
    if (result) std::fill(result, result + size, 0.0f);
  };
  clear(to.frequencies, p.rows * film);
  clear(to.phases, p.rows * film);
  clear(to.first_bias, W);
  clear(to.hidden_bias, heads * W);
  clear(to.view_bias, p.groups * W);
  clear(to.head_bias, p.groups * heads * C);
  for (size_t segment = 0; segment < segment_rows.size(); ++segment) {
    const int64_t row = segment_rows[segment], group = p.row_groups[row];
    const SegmentSums from(p, sums, static_cast<int64_t>(segment));
    const auto add = [](float* result, int64_t at, int64_t size, const float* values) {
      if (!result) return;
      for (int64_t i = 0; i < size; ++i) result[at + i] += values[i];
    };
    const auto add_bias = [&](float* result, int64_t at, int64_t size, int64_t layer) {
      if (!result) return;
      const float* f = p.frequencies + row * film + layer * W;
      for (int64_t i = 0; i < size; ++i) result[at + i] += from.phases[layer * W + i] * f[i];
    };
    add(to.frequencies, row * film, film, from.frequencies);
    add(to.phases, row * film, film, from.phases);
    add_bias(to.first_bias, 0, W, 0);
    add_bias(to.hidden_bias, 0, heads * W, 1);
    add_bias(to.view_bias, group * W, W, p.layers);
    for (int64_t head = 0; head < heads; ++head)
      add(to.head_bias, (group * heads + head) * C, C, from.head_bias);
  }
}

}  // namespace semfaceedit
