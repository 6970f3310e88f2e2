// LANES neighbouring threads of a warp as the lanes of semantic_composite_ray.h, which lists what is
// defined here. Included in the namespace of a LANES: no include guard.

typedef float Vec;
typedef int32_t VecInt;

SEMFACEEDIT_DEVICE static inline int lane() { return static_cast<int>(threadIdx.x % LANES); }

// The group's threads among those of its warp.
SEMFACEEDIT_DEVICE static inline unsigned members() {
  const unsigned first = threadIdx.x % 32 / LANES * LANES;
  return (0xffffffffu >> (32 - LANES)) << first;
}

SEMFACEEDIT_DEVICE static inline Vec load(const float* p) { return p[lane()]; }

SEMFACEEDIT_DEVICE static inline void store(float* p, Vec v) { p[lane()] = v; }

SEMFACEEDIT_DEVICE static inline float sum(Vec v) {
  for (int step = LANES / 2; step > 0; step /= 2) v += __shfl_xor_sync(members(), v, step);
  return v;
}

SEMFACEEDIT_DEVICE static inline void sync() { __syncwarp(members()); }

struct Channels {
  int64_t count;

  SEMFACEEDIT_DEVICE Channels(const CompositeSizes& s, const float*, int64_t) : count(s.channels) {}

  SEMFACEEDIT_DEVICE Vec read(const float* row, int64_t j) const {
    return j + lane() < count ? row[j + lane()] : 0.0f;
  }

  SEMFACEEDIT_DEVICE void write(float* row, int64_t j, Vec v) const {
    if (j + lane() < count) row[j + lane()] = v;
  }
};

SEMFACEEDIT_DEVICE static inline void write_labels(int64_t* labels, int64_t j, int64_t hit_count,
                                                   VecInt index) {
  if (j + lane() < hit_count) labels[j + lane()] = index;
}

struct Scores {
  const float* mixed;
  int64_t ld, hit_count;

  SEMFACEEDIT_DEVICE Scores(const float* mixed, int64_t ld, int64_t hit_count, int64_t,
                            const float*)
      : mixed(mixed), ld(ld), hit_count(hit_count) {}

  SEMFACEEDIT_DEVICE Vec read(int64_t channel, int64_t hit) const {
    const int64_t k = hit + lane();
    return mixed[(k < hit_count ? k : hit_count - 1) * ld + channel];
  }
};
