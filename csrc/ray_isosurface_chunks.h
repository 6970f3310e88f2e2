// How ray_isosurface divides its rays on the CPU.
#pragma once

#include <cstdint>

namespace semfaceedit {

constexpr int64_t RAYS_EACH = 48;  // rays that are worked on together

}  // namespace semfaceedit
