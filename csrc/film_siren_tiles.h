// How film_siren divides its points: every tile lies in one FiLM row.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "ops.h"

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

}  // namespace semfaceedit
