// Functions between SEMFACEEDIT_TARGET("avx2,fma") and SEMFACEEDIT_END_TARGET may use these
// instructions, in GCC and in Clang.
#pragma once

#define SEMFACEEDIT_PRAGMA(text) _Pragma(#text)

#if defined(__clang__)
#define SEMFACEEDIT_TARGET(features) \
  SEMFACEEDIT_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define SEMFACEEDIT_END_TARGET SEMFACEEDIT_PRAGMA(clang attribute pop)
#else
#define SEMFACEEDIT_TARGET(features) \
  SEMFACEEDIT_PRAGMA(GCC push_options) SEMFACEEDIT_PRAGMA(GCC target(features))
#define SEMFACEEDIT_END_TARGET SEMFACEEDIT_PRAGMA(GCC pop_options)
#endif
