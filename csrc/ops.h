// What the bindings call: sizes and raw pointers in, results written through pointers.
#pragma once

#include <cstdint>

namespace semfaceedit {

enum class Isa { portable, avx2, avx512 };

bool isa_available(Isa isa);
Isa isa();               // the one in use; at first the best that the CPU has
void set_isa(Isa isa);   // for tests and measurements

// Calls the copy of `function` that was compiled for the instruction set in use.
#if defined(__x86_64__)
#define SEMFACEEDIT_DISPATCH(function, ...)                                       \
  (::semfaceedit::isa() == ::semfaceedit::Isa::avx512 ? avx512::function(__VA_ARGS__) \
   : ::semfaceedit::isa() == ::semfaceedit::Isa::avx2 ? avx2::function(__VA_ARGS__)   \
                                                      : portable::function(__VA_ARGS__))
#else
#define SEMFACEEDIT_DISPATCH(function, ...) portable::function(__VA_ARGS__)
#endif

struct FilmSirenProblem {
  int64_t points, inputs, width, layers, rows, groups, channels, trunk_channels;  // P I W L M G C
  const float* x;             // (P, I)
  const float* directions;    // (P, 3)
  const float* frequencies;   // (M, L + 1, W)
  const float* phases;        // (M, L + 1, W)
  const int64_t* row_offsets;  // (M + 1,)
  const int64_t* row_groups;   // (M,)
  const float* first_weight;   // (W, I)
  const float* first_bias;     // (W,)
  const float* hidden_weight;  // (L - 1, W, W)
  const float* hidden_bias;    // (L - 1, W)
  const float* view_weight;    // (G, W, 3 + W)
  const float* view_bias;      // (G, W)
  const float* head_weight;    // (G, L - 1, C, W)
  const float* head_bias;      // (G, L - 1, C)
};

// Shapes as in FilmSirenProblem; null where a gradient is not needed.
struct FilmSirenGradients {
  float* x;
  float* directions;
  float* frequencies;
  float* phases;
  float* first_weight;
  float* first_bias;
  float* hidden_weight;
  float* hidden_bias;
  float* view_weight;
  float* view_bias;
  float* head_weight;
  float* head_bias;
};

void film_siren_forward(const FilmSirenProblem& problem, float* output, int threads);
void film_siren_backward(const FilmSirenProblem& problem, const float* grad_output,
                         const FilmSirenGradients& gradients, int threads);

}  // namespace semfaceedit
