// film_siren on CUDA: which of the bodies runs, and how it is launched.

#include <algorithm>
#include <stdexcept>
#include <string>

#include "cuda_launch.h"
#include "film_siren_backward.h"
#include "film_siren_cuda.h"

namespace semfaceedit {
namespace {

int attribute(cudaDeviceAttr name, int device) {
  int value = 0;
  check_cuda(cudaDeviceGetAttribute(&value, name, device), "cudaDeviceGetAttribute");
  return value;
}

bool by_groups(int device) {
  const DeviceGuard guard(device);
  return attribute(cudaDevAttrComputeCapabilityMajor, device) == 9 &&
         attribute(cudaDevAttrComputeCapabilityMinor, device) == 0 && film_siren_sm90_is_built();
}

}  // namespace

std::string film_siren_body(int device) { return by_groups(device) ? "sm90" : "sm80"; }

int64_t film_siren_width(int64_t width) {
  for (int64_t room : {64, 128, 256})
    if (width <= room) return room;
  throw std::invalid_argument("film_siren: the cuda backend takes stacks of up to 256 units, got " +
                              std::to_string(width) + "; use the triton or reference backend");
}

int64_t film_siren_rows(int device) {
  return by_groups(device) ? FILM_CLUSTER * FILM_ROWS : FILM_ROWS;
}

int64_t film_siren_blocks(int64_t tiles, int device) {
  if (!by_groups(device))
    return std::min<int64_t>(tiles, attribute(cudaDevAttrMultiProcessorCount, device));
  const DeviceGuard guard(device);
  return FILM_CLUSTER * std::min(tiles, film_siren_sm90_clusters());
}

void film_siren_forward(int64_t width, int64_t blocks, const FilmSirenChain& chain,
                        const CudaPlace& place) {
  const DeviceGuard guard(place.device);
  const auto forward = by_groups(place.device) ? film_siren_forward_sm90 : film_siren_forward_sm80;
  forward(width, blocks, chain, place);
}

int64_t film_siren_backward_parts(int device) {
  return by_groups(device) ? FILM_CLUSTER * FILM_GROUPS : 1;
}

void film_siren_backward(int64_t width, int64_t blocks, const FilmSirenBackward& pass,
                         const CudaPlace& place) {
  const DeviceGuard guard(place.device);
  const auto backward =
      by_groups(place.device) ? film_siren_backward_sm90 : film_siren_backward_sm80;
  backward(width, blocks, pass, place);
}

void film_siren_weight_gradients(int64_t width, const FilmSirenProduct& product,
                                 const CudaPlace& place) {
  const DeviceGuard guard(place.device);
  const auto gradients =
      by_groups(place.device) ? film_siren_weight_gradients_sm90 : film_siren_weight_gradients_sm80;
  gradients(width, product, place);
}

}  // namespace semfaceedit
