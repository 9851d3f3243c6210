// Loops that keep one kind of unit busy and do nothing else: what the bench divides the kernels' speed by.
#include "kernels.h"
#include "simd.h"

namespace nvlm::NVLM_PATH {

namespace {

// As many chains as hide the latency of a fused multiply-add on two ports.
constexpr int kChains = 12;

float sumOf(const F32x16* values) {
  F32x16 total = values[0];
  for (int i = 1; i < kChains; ++i) total = total + values[i];
  return horizontalSum(total);
}

}  // namespace

// Runs `iterations` rounds of one unit and returns the operations done (a multiply and an add count as two); for kRead, the
// bytes read. `memory` holds at least 64 * kChains bytes; for kRead, `bytes` of it are read each round.
int64_t peak(PeakKind kind, int64_t iterations, const uint8_t* memory, int64_t bytes, float* sink) {
  F32x16 sums[kChains] = {};
  I32x16 counts[kChains] = {};
  const I32x16 raw = loadInt(memory);
  const F32x16 value = load(reinterpret_cast<const float*>(memory));
  switch (kind) {
    case PeakKind::kFloat32:
      for (int64_t n = 0; n < iterations; ++n) {
        for (int i = 0; i < kChains; ++i) sums[i] = fma(value, value, sums[i]);
      }
      *sink += sumOf(sums);
      return iterations * kChains * 16 * 2;
    case PeakKind::kBfloat16:
      for (int64_t n = 0; n < iterations; ++n) {
        for (int i = 0; i < kChains; ++i) sums[i] = dotBf16(sums[i], raw, raw);
      }
      *sink += sumOf(sums);
      return iterations * kChains * 32 * 2;
    case PeakKind::kInt8:
      for (int64_t n = 0; n < iterations; ++n) {
        for (int i = 0; i < kChains; ++i) counts[i] = dotU8S8<false>(counts[i], raw, raw);
      }
      for (int i = 0; i < kChains; ++i) sums[i] = toFloat(counts[i]);
      *sink += sumOf(sums);
      return iterations * kChains * 64 * 2;
    case PeakKind::kRead:
      for (int64_t n = 0; n < iterations; ++n) {
        for (int64_t at = 0; at + 64 * kChains <= bytes; at += 64 * kChains) {
          for (int i = 0; i < kChains; ++i) counts[i] = counts[i] + loadInt(memory + at + 64 * i);
        }
      }
      for (int i = 0; i < kChains; ++i) sums[i] = toFloat(counts[i]);
      *sink += sumOf(sums);
      return iterations * (bytes / (64 * kChains)) * (64 * kChains);
  }
  return 0;
}

}  // namespace nvlm::NVLM_PATH
