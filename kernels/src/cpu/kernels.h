// What the sources of one instruction-set path define; table.cc gathers them into that path's KernelTable.
// Every source listed under NVLM_PATH_SOURCES in kernels/CMakeLists.txt is compiled once per path, with NVLM_PATH naming the
// namespace; what instructions there are is read from the compiler's own macros (__AVX512F__, __AVX512BF16__, __AVX2__, ...).
#pragma once
#include "../ops.h"

namespace nvlm::NVLM_PATH {

// Whether bf16 is widened to fp32 for arithmetic, as in linear_wide.h: without an instruction for its dot products.
#if defined(__AVX512F__)
constexpr bool kWideLinear = false;
#else
constexpr bool kWideLinear = true;
#endif

void rmsNorm(const RmsNormArgs&, const Lane&);                // norm.cc
void layerNorm(const LayerNormArgs&, const Lane&);            // norm.cc
void queryKeyNorm(const QueryKeyNormArgs&, const Lane&);      // norm.cc
void linear(const LinearArgs&, const Lane&);                  // linear.cc
void ropeAndCache(const RopeAndCacheArgs&, const Lane&);      // rope.cc
void attention(const AttentionArgs&, const Lane&);            // attention.cc
size_t attentionScratchBytes(const AttentionArgs& largest);   // attention.cc
void sample(const SampleArgs&, const Lane&);                  // sample.cc
size_t sampleScratchBytes(int vocabularyRows);                // sample.cc
int64_t peak(PeakKind, int64_t iterations, const uint8_t* memory, int64_t bytes, float* sink);  // peak.cc

}  // namespace nvlm::NVLM_PATH
