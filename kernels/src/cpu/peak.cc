// Loops that keep one kind of unit busy and do nothing else: what the bench divides the kernels' speed by.
#include "kernels.h"
#include "narrow.h"

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

// The value stays, and the compiler knows nothing of it any more: work on it is neither shared between steps nor moved out of
// the loop.
template <class Vector>
NVLM_INLINE void forget(Vector& value) {
#pragma GCC unroll 4
  for (int part = 0; part < kParts; ++part) asm volatile("" : NVLM_VECTOR_REGISTER(value.part[part]));
}

// Chains all hold the same value; forgotten they are not folded into one.
template <class Vector, class Operand, class Step>
NVLM_INLINE void repeat(int64_t iterations, Vector (&chains)[kChains], Operand operand, const Step& step) {
  for (int64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) {
      forget(operand);
      chains[i] = step(chains[i], operand);
      forget(chains[i]);
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
      repeat(iterations, sums, value, [](F32x16 sum, F32x16 x) NVLM_INLINE_LAMBDA { return fma(x, x, sum); });
      *sink += sumOf(sums);
      return iterations * kChains * 16 * 2;
    case PeakKind::kBfloat16:
#if defined(__AVX512BF16__)
      repeat(iterations, sums, raw, [](F32x16 sum, I32x16 x) NVLM_INLINE_LAMBDA { return dotBf16(sum, x, x); });
      *sink += sumOf(sums);
      return iterations * kChains * 32 * 2;
#else
      // Without such a unit values are widened and go through that of float32. Widening is not counted: it can be shared.
      return peak(PeakKind::kFloat32, iterations, memory, bytes, sink);
#endif
    case PeakKind::kInt8:
      // Of the two forms of AVX2 the one of fewer instructions: no kernel is faster.
      repeat(iterations, counts, raw, [](I32x16 count, I32x16 x) NVLM_INLINE_LAMBDA { return dotU8S8<true>(count, x, x); });
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
