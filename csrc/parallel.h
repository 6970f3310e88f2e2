// Threads, and how work is divided so that results depend on the problem alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

namespace semfaceedit {

// Memory that is not written before it is used; aligned to a cache line.
class Buffer {
 public:
  explicit Buffer(int64_t size)
      : memory_(new float[size + 16]),
        data_(memory_.get() + (64 - reinterpret_cast<uintptr_t>(memory_.get()) % 64) % 64 / 4),
        size_(size) {}
  float* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  std::unique_ptr<float[]> memory_;
  float* data_;
  int64_t size_;
};

// This thread's working memory, kept from call to call.
inline float* thread_scratch(int64_t size) {
  static thread_local Buffer buffer(0);
  if (buffer.size() < size) buffer = Buffer(size);
  return buffer.data();
}

// Memory for the sums of all parts, kept by the thread that calls an op: the system would clear new
// memory at every call.
inline float* sums_scratch(int64_t size) {
  static thread_local Buffer buffer(0);
  if (buffer.size() < size) buffer = Buffer(size);
  return buffer.data();
}

// `count` items divided into contiguous parts, each summed by one thread, then added in order.
struct Partition {
  int64_t count, parts;

  int64_t begin(int64_t part) const { return count * part / parts; }
  int64_t end(int64_t part) const { return count * (part + 1) / parts; }
};

// Enough parts to keep the threads of a large machine busy, few enough that their sums of `size`
// floats stay small beside the work.
inline Partition partition(int64_t count, int64_t size, int64_t items_each = 4) {
  constexpr int64_t most = 32, most_floats = int64_t{1} << 24;
  const int64_t affordable = std::max<int64_t>(4, most_floats / std::max<int64_t>(size, 1));
  const int64_t parts = std::min({most, affordable, (count + items_each - 1) / items_each});
  return {count, std::max<int64_t>(parts, 1)};
}

// A matrix whose gradient is summed in each part, its rows padded there to whole vectors. Columns
// may lie in strips of `padded`, `strip` floats apart.
struct MatrixSum {
  int64_t rows, columns, padded, offset;
  float* result;                        // null: not needed
  int64_t strip = 0, stride = columns;  // stride: between rows of the result
};

// result = the parts' sums, in order; `size` floats lie between two parts.
inline void add_parts(const MatrixSum& matrix, const float* sums, int64_t size, int64_t parts,
                      int threads) {
  if (!matrix.result) return;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t row = 0; row < matrix.rows; ++row) {
    float* to = matrix.result + row * matrix.stride;
    std::fill(to, to + matrix.columns, 0.0f);
    for (int64_t part = 0; part < parts; ++part) {
      const float* from = sums + part * size + matrix.offset + row * matrix.padded;
      for (int64_t at = 0; at < matrix.columns; at += matrix.padded, from += matrix.strip) {
        const int64_t count = std::min(matrix.padded, matrix.columns - at);
        for (int64_t i = 0; i < count; ++i) to[at + i] += from[i];
      }
    }
  }
}

}  // namespace semfaceedit
