// bfloat16 as its upper 16 bits of a float.
#pragma once

#include <cstdint>
#include <cstring>

namespace semfaceedit {

// To nearest even; what is subnormal becomes zero and a NaN stays one, as the instructions have it.
inline uint16_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  if (magnitude < 0x00800000u) bits &= 0x80000000u;
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

inline float from_bf16(uint16_t value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

}  // namespace semfaceedit
