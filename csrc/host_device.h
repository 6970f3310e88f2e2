// For functions written once and compiled twice: by the host's compiler for the CPU kernels, and by
// nvcc for the device.
#pragma once

#if defined(__CUDACC__)
#define SEMFACEEDIT_DEVICE __device__
#else
#define SEMFACEEDIT_DEVICE
#endif
