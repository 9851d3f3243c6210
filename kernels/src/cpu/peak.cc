// Loops that keep one kind of unit busy and do nothing else: what the bench divides the kernels' speed by.
#include "kernels.h"
#include "simd.h"

namespace nvlm::NVLM_PATH {

namespace {

// As many chains as the registers hold beside the operand: a dot product takes up to six cycles on two ports.
#if defined(__AVX512F__)
constexpr int kChains = 24;
#elif defined(__AVX2__)
constexpr int kChains = 6;
#else
constexpr int kChains = 3;
#endif

constexpr int64_t kReadAhead = 8192;

// The register class of a vector in inline assembly.
#if defined(__AVX512F__)
#define NVLM_VECTOR_REGISTER "+v"
#elif defined(__x86_64__)
#define NVLM_VECTOR_REGISTER "+x"
#else
#define NVLM_VECTOR_REGISTER "+w"
#endif

// The empty assembly keeps the compiler from folding the chains, which all hold the same value, into one.
template <class Vector, class Step>
NVLM_INLINE void repeat(int64_t iterations, Vector (&chains)[kChains], const Step& step) {
  for (int64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) {
      chains[i] = step(chains[i]);
#pragma GCC unroll 4
      for (int part = 0; part < kParts; ++part) asm volatile("" : NVLM_VECTOR_REGISTER(chains[i].part[part]));
    }
  }
}

NVLM_INLINE float sumOf(const F32x16 (&values)[kChains]) {
  F32x16 total = values[0];
#pragma GCC unroll 24
  for (int i = 1; i < kChains; ++i) total = total + values[i];
  return horizontalSum(total);
}

NVLM_INLINE float sumOf(const I32x16 (&values)[kChains]) {
  I32x16 total = values[0];
#pragma GCC unroll 24
  for (int i = 1; i < kChains; ++i) total = total + values[i];
  return horizontalSum(toFloat(total));
}

}  // namespace

// Runs `iterations` rounds of one unit and returns the operations done (a multiply and an add count as two); for kRead, the
// bytes read. `memory` holds at least 64 bytes; for kRead, `bytes` of it are read each round.
int64_t peak(PeakKind kind, int64_t iterations, const uint8_t* memory, int64_t bytes, float* sink) {
  F32x16 sums[kChains] = {};
  I32x16 counts[kChains] = {};
  const I32x16 raw = loadInt(memory);
  const F32x16 value = load(reinterpret_cast<const float*>(memory));
  switch (kind) {
    case PeakKind::kFloat32:
      repeat(iterations, sums, [&](F32x16 sum) NVLM_INLINE_LAMBDA { return fma(value, value, sum); });
      *sink += sumOf(sums);
      return iterations * kChains * 16 * 2;
    case PeakKind::kBfloat16:
      repeat(iterations, sums, [&](F32x16 sum) NVLM_INLINE_LAMBDA { return dotBf16(sum, raw, raw); });
      *sink += sumOf(sums);
      return iterations * kChains * 32 * 2;
    case PeakKind::kInt8:
      repeat(iterations, counts, [&](I32x16 count) NVLM_INLINE_LAMBDA { return dotU8S8<false>(count, raw, raw); });
      *sink += sumOf(counts);
      return iterations * kChains * 64 * 2;
    case PeakKind::kRead: {
      I32x16 even = zeroInt(), odd = zeroInt();
      for (int64_t n = 0; n < iterations; ++n) {
        for (int64_t at = 0; at + 128 <= bytes; at += 128) {
          __builtin_prefetch(memory + at + kReadAhead);
          __builtin_prefetch(memory + at + kReadAhead + 64);
          even = even + loadInt(memory + at);
          odd = odd + loadInt(memory + at + 64);
        }
      }
      *sink += horizontalSum(toFloat(even + odd));
      return iterations * (bytes / 128) * 128;
    }
  }
  return 0;
}

}  // namespace nvlm::NVLM_PATH
