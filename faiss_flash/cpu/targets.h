// Which instruction sets the CPU kernels are compiled for: a portable
// baseline, AVX2 and AVX-512 on x86, NEON on 64-bit Arm; the CPU decides at
// run time. Included before Highway by every kernel file. Left out: sets
// between the baseline and AVX2 and refinements of AVX-512 that the kernels
// would not use (compile time), and scalable vectors (the micro-kernel keeps
// vectors in arrays).

#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS                                                 \
    (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | \
     HWY_SVE2_128)
#endif
