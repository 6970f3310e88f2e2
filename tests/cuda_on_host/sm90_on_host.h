// The functions of csrc/sm90.h for the host. Copies arrive in pieces, in any order, and until then
// their place is NaN; products are done warp by warp, from the registers and the shared memory of that
// time. Both happen when the schedule says so, at the latest when nothing else can go on. What the
// hardware would not forgive is an error: too many arrivals, a barrier that is used before it is
// published or after its block has ended, products without a fence. Faults can be planted, by name in
// CUDA_ON_HOST_FAULT: a test that does not see one is no test.
#pragma once

#include <cuda_runtime.h>

#include <cstring>
#include <deque>
#include <map>

namespace semfaceedit {
namespace sm90 {

using cuda_on_host::current;
using cuda_on_host::fault;
using cuda_on_host::schedule;

inline void require(bool right, const char* what) {
  if (!right) throw std::runtime_error(what);
}

constexpr unsigned GROUP = 128, WARP = 32;

struct Barrier {
  int arrivals, missing;
  long bytes = 0;  // that are still expected
  unsigned ended = 0;
  bool published = false;
};

struct NamedBarrier {
  unsigned there = 0, meetings = 0;
};

struct Block {
  std::map<uint32_t, Barrier> barriers;
  std::map<int, NamedBarrier> named;
  int registers = 0;  // more than at launch, of all threads
};

struct Piece {  // of a copy, to one block
  unsigned block;
  uint32_t to, barrier, bytes;
  const unsigned char* from;
};

// PTX's descriptor of a matrix in shared memory, and whether it is transposed there ("MN-major").
struct Matrix {
  uint64_t descriptor;
  bool transposed;

  bool operator==(const Matrix& other) const {
    return descriptor == other.descriptor && transposed == other.transposed;
  }

  uint32_t bytes(int first_bit) const { return (descriptor >> first_bit & 0x3fff) << 4; }

  // Where an element lies, by PTX's canonical layouts: `row` of M or N, `k` of the inputs.
  uint32_t at(uint32_t row, uint32_t k) const {
    const uint32_t start = bytes(0), leading = bytes(16), stride = bytes(32);
    const auto form = static_cast<unsigned>(descriptor >> 62);
    require(form <= 1 && (descriptor >> 49 & 7) == 0, "a matrix of another form");
    if (form == 1) {  // swizzled: rows of 128 bytes
      uint32_t at =
          start + (transposed ? row / 64 * leading + row % 64 * 2 + k / 8 * stride + k % 8 * 128
                              : row / 8 * stride + row % 8 * 128 + k * 2);
      return at ^ (at >> 7 & 7) << 4;
    }
    if (transposed) return start + row / 8 * stride + row % 8 * 2 + k / 8 * leading + k % 8 * 16;
    return start + row / 8 * stride + row % 8 * 16 + k / 8 * leading + k % 8 * 2;
  }
};

struct Product {
  float* d[WARP] = {};
  const uint32_t* a[WARP];  // null: a lies in shared memory
  Matrix a_matrix, b;
  int columns;
  bool onto;
  unsigned lanes = 0;  // that have issued it
};

struct Warp {
  std::deque<Product> waiting;
  long done = 0;
};

struct Lane {
  long products = 0;         // issued
  std::vector<long> groups;  // products issued when each was closed
  bool fenced = false;
  std::vector<std::pair<uint32_t, uint32_t>> stores;  // that products do not see yet: place, word
};

inline float half_of(uint16_t bits) {
  static const std::vector<float> values = [] {
    std::vector<float> all(1 << 16);
    for (unsigned i = 0; i < all.size(); ++i) {
      const uint16_t half = static_cast<uint16_t>(i);
      _Float16 value;
      std::memcpy(&value, &half, 2);
      all[i] = static_cast<float>(value);
    }
    return all;
  }();
  return values[bits];
}

inline unsigned char* bytes_of(unsigned block) {
  return reinterpret_cast<unsigned char*>(cuda_on_host::shared_memory(block));
}

struct Hopper : cuda_on_host::Device {
  std::vector<Block> blocks;
  std::vector<Piece> pieces;
  std::vector<Warp> warps;
  std::vector<Lane> lanes;
  unsigned eager_copies, eager_products;  // one in so many turns; drawn anew for each cluster
  unsigned meetings;                      // of the cluster
  unsigned at_cluster;                    // threads that wait for it

  Hopper() { cuda_on_host::devices.push_back(this); }

  void begin() override {
    blocks.assign(cuda_on_host::count / blockDim.x, Block{});
    pieces.clear();
    warps.assign(cuda_on_host::count / WARP, Warp{});
    lanes.assign(cuda_on_host::count, Lane{});
    eager_copies = 1u << schedule() % 3, eager_products = 1u << schedule() % 5;
    meetings = at_cluster = 0;
  }

  bool step(bool forced) override {
    bool moved = false;
    while (!pieces.empty() && schedule() % (2 * eager_copies) != 0) moved = true, finish_piece();
    for (unsigned w = 0; w < warps.size(); ++w)
      while (ready(warps[w]) && schedule() % (2 * eager_products) == 0) moved = true, finish(w);
    if (moved || !forced) return moved;
    for (unsigned w = 0; w < warps.size(); ++w)
      if (ready(warps[w])) return finish(w), true;
    if (pieces.empty()) return false;
    return finish_piece(), true;
  }

  void end() override {
    require(pieces.empty(), "a copy arrives when its block has ended");
    for (const Warp& warp : warps) require(warp.waiting.empty(), "products are not waited for");
    for (const Block& block : blocks) {
      require(block.registers == 0, "the warpgroups' registers are not those of the launch");
      for (const auto& [number, barrier] : block.named)
        require(barrier.there == 0, "an arrival is left at a barrier of the block");
      for (const auto& [address, barrier] : block.barriers)
        require(barrier.missing == barrier.arrivals, "an arrival is left at a barrier");
    }
  }

  static bool ready(const Warp& warp) {
    return !warp.waiting.empty() && warp.waiting.front().lanes == WARP;
  }

  bool has_ended(unsigned block) const {
    for (unsigned i = 0; i < blockDim.x; ++i)
      if (!cuda_on_host::threads[block * blockDim.x + i].finished) return false;
    return true;
  }

  Barrier& barrier(unsigned block, uint32_t address, bool of_cluster) {
    const auto found = blocks[block].barriers.find(address);
    require(found != blocks[block].barriers.end(), "a barrier is used before it is there");
    require(found->second.published || !of_cluster, "a barrier is used before it is published");
    require(!has_ended(block), "a barrier is used when its block has ended");
    return found->second;
  }

  static void arrive(Barrier& barrier, int arrivals, long bytes) {
    barrier.missing -= arrivals;
    barrier.bytes += bytes;
    require(barrier.missing >= 0, "more arrive at a barrier than it counts");
    if (barrier.missing != 0 || barrier.bytes != 0) return;
    ++barrier.ended;
    barrier.missing = barrier.arrivals;
  }

  void finish_piece() {
    const size_t chosen = schedule() % pieces.size();
    const Piece piece = pieces[chosen];
    pieces.erase(pieces.begin() + static_cast<long>(chosen));
    std::memcpy(bytes_of(piece.block) + piece.to, piece.from, piece.bytes);
    arrive(barrier(piece.block, piece.barrier, true), 0, -static_cast<long>(piece.bytes));
  }

  // The oldest product of a warp.
  void finish(unsigned w) {
    const Product product = warps[w].waiting.front();
    warps[w].waiting.pop_front();
    ++warps[w].done;
    const unsigned char* memory = bytes_of(w * WARP / blockDim.x);
    static float b[16][256];  // inputs, outputs
    for (int n = 0; n < product.columns; ++n)
      for (int k = 0; k < 16; ++k) b[k][n] = element(memory, product.b, n, k);
    for (int row = 0; row < 16; ++row) {
      float a[16];
      for (int k = 0; k < 16; ++k) {
        if (product.a[0] == nullptr) {
          a[k] = element(memory, product.a_matrix, static_cast<int>(w * 16 % 64) + row, k);
          continue;
        }
        const uint32_t word = product.a[row % 8 * 4 + k % 8 / 2][k / 8 * 2 + row / 8];
        a[k] = half_of(static_cast<uint16_t>(word >> k % 2 * 16));
      }
      multiply_row(product, row, a, b);
    }
  }

  static float element(const unsigned char* memory, const Matrix& matrix, int row, int k) {
    uint16_t bits;
    std::memcpy(&bits, memory + matrix.at(static_cast<uint32_t>(row), static_cast<uint32_t>(k)), 2);
    return half_of(bits);
  }

  static void multiply_row(const Product& product, int row, const float (&a)[16],
                           const float (&b)[16][256]) {
    float sums[256] = {};
    for (int k = 0; k < 16; ++k)
      for (int n = 0; n < product.columns; ++n) sums[n] += a[k] * b[k][n];
    for (int n = 0; n < product.columns; ++n) {
      float& to = product.d[row % 8 * 4 + n % 8 / 2][n / 8 * 4 + row / 8 * 2 + n % 2];
      to = product.onto ? to + sums[n] : sums[n];
    }
  }
};
inline Hopper hopper;

inline uint32_t block_rank() { return cuda_on_host::block_rank(); }

inline bool fills() { return threadIdx.x < GROUP; }

inline void cluster_sync() {
  if (fault("blocks do not wait for each other")) return;
  const unsigned meeting = hopper.meetings;
  if (++hopper.at_cluster == cuda_on_host::count) hopper.at_cluster = 0, ++hopper.meetings;
  cuda_on_host::wait_until([meeting] { return hopper.meetings != meeting; });
}

constexpr int AT_LAUNCH = 168;

template <int count>
void decrease_registers() {
  hopper.blocks[block_rank()].registers += count - AT_LAUNCH;
}

template <int count>
void increase_registers() {
  hopper.blocks[block_rank()].registers += count - AT_LAUNCH;
}

inline void init_barrier(uint32_t barrier, int arrivals) {
  if (arrivals > 1 && fault("a barrier counts an arrival too few")) --arrivals;
  if (arrivals > 1 && fault("a barrier counts an arrival too many")) ++arrivals;
  hopper.blocks[block_rank()].barriers[barrier] = Barrier{arrivals, arrivals};
}

inline void publish_barriers() {
  if (fault("barriers are not published")) return;
  for (auto& [address, barrier] : hopper.blocks[block_rank()].barriers) barrier.published = true;
}

inline void wait_barrier(uint32_t address, uint32_t parity) {
  if (fault(fills() ? "room is not waited for" : "slabs are not waited for")) return;
  if (fault(fills() ? "the filling phase is not flipped" : "the phase is not flipped"))
    parity = fills();
  const Barrier& barrier = hopper.barrier(block_rank(), address, false);
  cuda_on_host::wait_until([&barrier, parity] { return barrier.ended % 2 != parity; });
  cuda_on_host::wait_warp(0xffffffffu);  // its threads agree
}

inline void expect_bytes(uint32_t address, int bytes) {
  if (fault("too many bytes are expected")) bytes += 16;
  if (fault("too few bytes are expected")) bytes -= 16;
  Hopper::arrive(hopper.barrier(block_rank(), address, false), 1, bytes);
}

inline void arrive(uint32_t address, uint32_t block) {
  if (fault("places are released in the own block alone")) block = block_rank();
  Hopper::arrive(hopper.barrier(block, address, true), 1, 0);
}

inline void copy_to(unsigned block, uint32_t to, const void* from, uint32_t bytes, uint32_t barrier,
                    uint32_t cut) {
  std::memset(bytes_of(block) + to, 0xff, bytes);
  const auto* source = static_cast<const unsigned char*>(from);
  if (cut != 0) hopper.pieces.push_back({block, to, barrier, cut, source});
  if (cut != bytes) hopper.pieces.push_back({block, to + cut, barrier, bytes - cut, source + cut});
}

// Where a copy is cut in two.
inline uint32_t cut_of(uint32_t to, const void* from, uint32_t bytes) {
  require(bytes % 16 == 0 && to % 16 == 0 && reinterpret_cast<uintptr_t>(from) % 16 == 0,
          "a copy is not of a multiple of 16");
  return schedule() % (bytes / 16 + 1) * 16;
}

template <unsigned BLOCKS>
void copy_to_cluster(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  require(BLOCKS == hopper.blocks.size(), "copy_to_cluster: the cluster has other blocks");
  const uint32_t cut = cut_of(to, from, bytes);
  for (unsigned block = 0; block < BLOCKS; ++block)
    if (block == block_rank() || !fault("a copy goes to one block alone"))
      copy_to(block, to, from, bytes, barrier, cut);
}

inline void copy_to_block(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  copy_to(block_rank(), to, from, bytes, barrier, cut_of(to, from, bytes));
}

inline void count_at(int number, unsigned threads) {
  NamedBarrier& barrier = hopper.blocks[block_rank()].named[number];
  if (++barrier.there == threads) barrier.there = 0, ++barrier.meetings;
}

inline void meet(int number, int threads) {
  if (fault("turns are not waited for")) return;
  const NamedBarrier& barrier = hopper.blocks[block_rank()].named[number];
  const unsigned meeting = barrier.meetings;
  count_at(number, static_cast<unsigned>(threads));
  cuda_on_host::wait_until([&barrier, meeting] { return barrier.meetings != meeting; });
}

inline void pass(int number, int threads) {
  if (!fault("turns are not given")) count_at(number, static_cast<unsigned>(threads));
}

inline void fence_registers() {
  if (!fault("registers are not fenced")) hopper.lanes[current].fenced = true;
}

inline void close_products() {
  Lane& lane = hopper.lanes[current];
  lane.groups.push_back(lane.products);
}

inline void wait_for_products(int pending) {
  if (pending == 0 && fault("products are not waited for")) return;
  if (pending != 0 && fault("a place is released before its products are done")) return;
  Lane& lane = hopper.lanes[current];
  if (pending == 0) lane.fenced = false;  // registers may change from here on
  const size_t last = lane.groups.size() - static_cast<size_t>(pending);
  const long products = lane.groups[last - 1];
  const Warp& warp = hopper.warps[current / WARP];
  cuda_on_host::wait_until([&warp, products] { return warp.done >= products; });
}

template <int COUNT>
void hold(float* sums) {
  for (const Product& product : hopper.warps[current / WARP].waiting)
    require(product.d[current % WARP] != sums, "registers are used while products write them");
}

inline void group_sync(const char* what) {
  if (fault((std::string("no barrier: ") + what).c_str())) return;
  const int number = static_cast<int>(2 + threadIdx.x / GROUP);
  const NamedBarrier& barrier = hopper.blocks[block_rank()].named[number];
  const unsigned meeting = barrier.meetings;
  count_at(number, GROUP);
  cuda_on_host::wait_until([&barrier, meeting] { return barrier.meetings != meeting; });
}

inline void keep_single() {}

// Products see it once it is fenced, and NaN before.
inline void store_shared(uint32_t to, uint32_t word) {
  std::memset(bytes_of(block_rank()) + to, 0xff, 4);
  hopper.lanes[current].stores.emplace_back(to, word);
}

inline void fence_shared() {
  if (fault("stores are not fenced")) return;
  for (const auto& [to, word] : hopper.lanes[current].stores)
    std::memcpy(bytes_of(block_rank()) + to, &word, 4);
  hopper.lanes[current].stores.clear();
}

// a: a thread's words, or null for the matrix at `a_matrix`.
template <int COLUMNS>
void issue(float* d, const uint32_t* a, Matrix a_matrix, Matrix b, bool onto) {
  Lane& lane = hopper.lanes[current];
  Warp& warp = hopper.warps[current / WARP];
  require(lane.fenced, "products without a fence");
  const size_t number = static_cast<size_t>(lane.products++ - warp.done);
  if (number == warp.waiting.size()) {
    warp.waiting.emplace_back();
    warp.waiting.back().b = b, warp.waiting.back().columns = COLUMNS;
    warp.waiting.back().onto = onto, warp.waiting.back().a_matrix = a_matrix;
  }
  Product& product = warp.waiting[number];
  require(product.b == b && product.columns == COLUMNS && product.onto == onto &&
              product.a_matrix == a_matrix,
          "the threads of a warp want different products");
  product.d[current % WARP] = d, product.a[current % WARP] = a;
  ++product.lanes;
}

// Rows of inputs, by the lower word of a descriptor.
inline Matrix rows(uint32_t matrix) { return {uint64_t{MATRIX_FORM} << 32 | matrix, false}; }

template <int COLUMNS>
void multiply(float* d, const uint32_t (&a)[4], uint32_t b, bool onto) {
  issue<COLUMNS>(d, a, Matrix{}, rows(b), onto);
}

inline void multiply_shared(float (&d)[32], uint32_t a, uint32_t b, bool onto) {
  issue<64>(d, nullptr, rows(a), rows(b), onto);
}

inline Matrix points(uint32_t matrix) {
  uint64_t form = POINTS_FORM;
  if (fault("a matrix has another stride")) form /= 2;
  return {form << 32 | matrix, !fault("a matrix is not transposed")};
}

template <int COLUMNS>
void multiply_points(float* d, uint32_t a, uint32_t b) {
  issue<COLUMNS>(d, nullptr, points(a), points(b), true);
}

}  // namespace sm90
}  // namespace semfaceedit
