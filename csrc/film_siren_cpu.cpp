// film_siren on the CPU in fp32: tiles of points pass through all layers without leaving the cache.
// The backward pass runs a tile forward again and then back.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "film_siren_tiles.h"
#include "ops.h"
#include "parallel.h"

namespace semfaceedit {

namespace {

// A segment is the tiles of one row in one part: what is summed per row is first summed there.
// Returns each segment's row.
std::vector<int64_t> make_segments(std::vector<Tile>& tiles, const Partition& parts) {
  std::vector<int64_t> rows;
  for (int64_t part = 0; part < parts.parts; ++part)
    for (int64_t i = parts.begin(part); i < parts.end(part); ++i) {
      if (i == parts.begin(part) || tiles[i].row != rows.back()) rows.push_back(tiles[i].row);
      tiles[i].segment = static_cast<int64_t>(rows.size()) - 1;
    }
  return rows;
}

// FiLM gradients are sums over a row's segments; biases are sums over rows, since for a layer
// dz = g cos f, and the sum of g cos is the gradient of the phase.
void add_segments(const FilmSirenProblem& p, const std::vector<int64_t>& segment_rows,
                  const std::vector<float>& sums, const FilmSirenGradients& to) {
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
  const float* frequencies = sums.data();
  for (const int64_t row : segment_rows) {
    const int64_t group = p.row_groups[row];
    const float* phases = frequencies + film;
    const float* head_bias = phases + film;
    const auto add = [](float* result, int64_t at, int64_t size, const float* from) {
      if (!result) return;
      for (int64_t i = 0; i < size; ++i) result[at + i] += from[i];
    };
    const auto add_bias = [&](float* result, int64_t at, int64_t size, int64_t layer) {
      if (!result) return;
      const float* f = p.frequencies + row * film + layer * W;
      for (int64_t i = 0; i < size; ++i) result[at + i] += phases[layer * W + i] * f[i];
    };
    add(to.frequencies, row * film, film, frequencies);
    add(to.phases, row * film, film, phases);
    add_bias(to.first_bias, 0, W, 0);
    add_bias(to.hidden_bias, 0, heads * W, 1);
    add_bias(to.view_bias, group * W, W, p.layers);
    for (int64_t head = 0; head < heads; ++head)
      add(to.head_bias, (group * heads + head) * C, C, head_bias);
    frequencies = head_bias + C;
  }
}

}  // namespace

}  // namespace semfaceedit

#define SEMFACEEDIT_KERNEL "film_siren_kernel.h"
#include "each_isa.h"

namespace semfaceedit {

void film_siren_forward(const FilmSirenProblem& problem, Precision precision, float* output,
                        int threads) {
  if (precision != Precision::fp32)
    return film_siren_forward_bf16(problem, precision, output, threads);
  SEMFACEEDIT_DISPATCH(film_siren_forward, problem, output, threads);
}

void film_siren_backward(const FilmSirenProblem& problem, const float* grad_output,
                         const FilmSirenGradients& gradients, int threads) {
  SEMFACEEDIT_DISPATCH(film_siren_backward, problem, grad_output, gradients, threads);
}

}  // namespace semfaceedit
