// What the bindings call: sizes and raw pointers in, results written through pointers.
#pragma once

#include <cstdint>

namespace semfaceedit {

// Linux hands out AMX's tiles on request, and the compiler must know bf16 vectors.
#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) || __GNUC__ >= 11)
#define SEMFACEEDIT_BF16
#endif

// `amx_model` is AMX in software on top of the portable code: for tests, never chosen by itself.
enum class Isa { portable, avx2, avx512, avx512_bf16, amx, amx_model };

bool isa_available(Isa isa);
Isa isa();              // the one in use; at first the best that the CPU has
Isa fp32_isa();         // the one of those that have fp32 code of their own: the first three
void set_isa(Isa isa);  // for tests and measurements

// Of matrix products: fp32, split bf16 (operands as two parts, three products) or bf16; the sums
// are in fp32 throughout.
enum class Precision { fp32, accurate, fast };

bool offers(Isa isa, Precision precision);

// Rates of `threads` threads from registers alone: floating-point operations of products, and sines,
// a second. The precision must be offered.
struct Peaks {
  double products, sines;
};
Peaks peaks(Precision precision, int threads);

// Calls the copy of `function` that was compiled for the instruction set in use.
#if defined(__x86_64__)
#define SEMFACEEDIT_DISPATCH(function, ...)                                                \
  (::semfaceedit::fp32_isa() == ::semfaceedit::Isa::avx512 ? avx512::function(__VA_ARGS__) \
   : ::semfaceedit::fp32_isa() == ::semfaceedit::Isa::avx2 ? avx2::function(__VA_ARGS__)   \
                                                           : portable::function(__VA_ARGS__))
#else
#define SEMFACEEDIT_DISPATCH(function, ...) portable::function(__VA_ARGS__)
#endif

struct FilmSirenProblem {
  int64_t points, inputs, width, layers, rows, groups, channels, trunk_channels;  // P I W L M G C
  const float* x;                                                                 // (P, I)
  const float* directions;                                                        // (P, 3)
  const float* frequencies;                                                       // (M, L + 1, W)
  const float* phases;                                                            // (M, L + 1, W)
  const int64_t* row_offsets;                                                     // (M + 1,)
  const int64_t* row_groups;                                                      // (M,)
  const float* first_weight;  // (W, I); null: the identity, which is not multiplied with, and I = W
  const float* first_bias;    // (W,)
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

void film_siren_forward(const FilmSirenProblem& problem, Precision precision, float* output,
                        int threads);
// For `accurate` and `fast`, here and below. Throws std::invalid_argument if the instruction set in
// use does not offer them.
void film_siren_forward_bf16(const FilmSirenProblem& problem, Precision precision, float* output,
                             int threads);
// One tile product for tests, by the CPU's unit (Isa::amx) or its model: c (16, 16) += a b with a
// (16, 32) and b (16, 16, 2), rows of pairs, in bf16.
void tile_dot(Isa isa, const uint16_t* a, const uint16_t* b, float* c);
void film_siren_backward(const FilmSirenProblem& problem, Precision precision,
                         const float* grad_output, const FilmSirenGradients& gradients,
                         int threads);
void film_siren_backward_bf16(const FilmSirenProblem& problem, Precision precision,
                              const float* grad_output, const FilmSirenGradients& gradients,
                              int threads);

struct RayIsosurfaceProblem {
  int64_t rays, hit_count, samples, width, layers;  // R K S H D
  float centre[3], scale, far, plane_z;
  const float* origins;        // (R, 3)
  const float* directions;     // (R, 3)
  const float* levels;         // (K - 1,)
  const float* distances;      // (S,) of the samples, ascending
  const float* first_weight;   // (H, 3)
  const float* first_bias;     // (H,)
  const float* hidden_weight;  // (D - 1, H, H)
  const float* hidden_bias;    // (D - 1, H)
  const float* last_weight;    // (1, H)
  const float* last_bias;      // (1,)
};

struct RayIsosurfaceHits {
  float* points;         // (R, K, 3)
  float* depths;         // (R, K)
  bool* valid;           // (R, K)
  int64_t* level;        // (R, K)
  int64_t* plane_index;  // (R,)
  int32_t* interval;     // (R, K): the sample that starts the hit's interval
};

// What the backward pass reads of the hits, and the gradients that arrive at them.
struct RayIsosurfaceGradHits {
  const float* points;  // (R, K, 3) gradient
  const float* depths;  // (R, K) gradient
  const float* depth;   // (R, K)
  const int64_t* level;
  const bool* valid;
  const int32_t* interval;
};

// Shapes as in RayIsosurfaceProblem; null where a gradient is not needed.
struct RayIsosurfaceGradients {
  float* origins;
  float* directions;
  float* first_weight;
  float* first_bias;
  float* hidden_weight;
  float* hidden_bias;
  float* last_weight;
  float* last_bias;
};

void ray_isosurface_forward(const RayIsosurfaceProblem& problem, const RayIsosurfaceHits& hits,
                            int threads);
// With the field in split bf16 where there are tiles, else the above.
void ray_isosurface_forward_bf16(const RayIsosurfaceProblem& problem, const RayIsosurfaceHits& hits,
                                 int threads);
void ray_isosurface_backward(const RayIsosurfaceProblem& problem, const RayIsosurfaceGradHits& hits,
                             const RayIsosurfaceGradients& gradients, int threads);

// R rays, K hits a ray, N channels a hit.
struct CompositeSizes {
  int64_t rays, hit_count, channels;
};

void semantic_forward(const CompositeSizes& sizes, const float* alpha, const float* semantics,
                      int64_t* labels, float* map, int threads);
// Gradients that are not needed are null, here and below.
void semantic_backward(const CompositeSizes& sizes, const float* grad_map, const float* alpha,
                       const float* semantics, float* grad_alpha, float* grad_semantics,
                       int threads);
void color_forward(const CompositeSizes& sizes, const float* alpha, const float* colors,
                   const float* depths, float* color, float* depth, float* weights, int threads);

struct ColorGradOutputs {
  const float* color;    // (R, C)
  const float* depth;    // (R,)
  const float* weights;  // (R, K)
};

void color_backward(const CompositeSizes& sizes, const ColorGradOutputs& grad_outputs,
                    const float* alpha, const float* colors, const float* depths,
                    const float* depth, float* grad_alpha, float* grad_colors, float* grad_depths,
                    int threads);

}  // namespace semfaceedit
