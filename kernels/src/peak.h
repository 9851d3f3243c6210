// What this machine's memory and arithmetic units give at most, measured.
#pragma once
#include "ops.h"

namespace nvlm {

// Per second: bytes read from a memory larger than the caches, operations of each kind (a multiply-add counts as two).
struct Peaks {
  double readBytes, float32, bfloat16, int8;
};

// Blocks the calling thread for about half a second.
Peaks measurePeaks(const KernelTable& kernels, int threads);

}  // namespace nvlm
