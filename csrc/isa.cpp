#include <atomic>
#include <initializer_list>

#include "ops.h"

#if defined(SEMFACEEDIT_BF16)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace semfaceedit {

namespace {

#if defined(SEMFACEEDIT_BF16)

bool cpuid_bit(unsigned leaf, unsigned subleaf, int word, unsigned bit) {
  unsigned words[4];  // eax, ebx, ecx, edx
  return __get_cpuid_count(leaf, subleaf, &words[0], &words[1], &words[2], &words[3]) &&
         (words[word] >> bit & 1u);
}

// Of the process, threads and forks included; fails where CPU or kernel have no tiles.
bool tile_permission() {
  constexpr long request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool granted = syscall(SYS_arch_prctl, request, tile_data) == 0;
  return granted;
}

bool has_avx512_bf16() {
  return isa_available(Isa::avx512) && __builtin_cpu_supports("avx512bw") && cpuid_bit(7, 1, 0, 5);
}

bool has_amx() {
  return has_avx512_bf16() && cpuid_bit(7, 0, 3, 24) && cpuid_bit(7, 0, 3, 22) &&  // tile, bf16
         tile_permission();
}

#else

bool has_avx512_bf16() { return false; }
bool has_amx() { return false; }

#endif

Isa best() {
  for (const Isa isa : {Isa::amx, Isa::avx512_bf16, Isa::avx512, Isa::avx2})
    if (isa_available(isa)) return isa;
  return Isa::portable;
}

std::atomic<Isa>& current() {
  static std::atomic<Isa> value{best()};
  return value;
}

}  // namespace

bool isa_available(Isa isa) {
  if (isa == Isa::amx) return has_amx();
  if (isa == Isa::avx512_bf16) return has_avx512_bf16();
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (isa == Isa::avx512)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           isa_available(Isa::avx2);
  if (isa == Isa::avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return isa == Isa::portable || isa == Isa::amx_model;
}

Isa isa() { return current(); }

Isa fp32_isa() {
  const Isa in_use = isa();
  if (in_use == Isa::amx || in_use == Isa::avx512_bf16) return Isa::avx512;
  return in_use == Isa::amx_model ? Isa::portable : in_use;
}

void set_isa(Isa isa) { current() = isa; }

bool offers(Isa isa, Precision precision) {
  const bool tiles = isa == Isa::amx || isa == Isa::amx_model;
  if (precision == Precision::accurate) return tiles;
  return precision == Precision::fp32 || tiles || isa == Isa::avx512_bf16;
}

}  // namespace semfaceedit
