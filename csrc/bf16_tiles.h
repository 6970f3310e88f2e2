// Operands of products in bf16, cut into tiles.
#pragma once

#include <cstdint>

namespace semfaceedit {

constexpr int64_t BLOCK = 32;       // rows and columns of a block of products; summands of a step
constexpr int64_t TILE_SIZE = 512;  // bf16 values: 16 rows of 32

inline int64_t blocks(int64_t size) { return (size + BLOCK - 1) / BLOCK; }

// An operand of a block of products as `parts` bf16 terms (value = high + low), step after step. On
// the left a step is two tiles of 16 rows of 32 summands, the second at `next`; on the right two
// tiles of 16 columns, one after the other: (2, 16 pairs of summands, 16 columns, 2).
template <int parts>
struct Operand {
  const uint16_t* part[parts];
  int64_t next = 0;
};

// One of the products that are added up in a block.
template <int parts>
struct Term {
  Operand<parts> a, b;
  int64_t steps;
};

}  // namespace semfaceedit
