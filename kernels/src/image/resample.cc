#include "resample.h"

#include <algorithm>
#include <cstring>

// One build for each level of vector instructions, chosen when the program starts. All are exact integers: they cannot differ.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define NVLM_VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define NVLM_VECTOR_CLONES
#endif

namespace nvlm {
namespace {

constexpr int kPrecisionBits = 22;
constexpr int32_t kHalf = 1 << (kPrecisionBits - 1);
constexpr int64_t kColumnsAtOnce = 64;

typedef int32_t Pixel __attribute__((vector_size(16)));
typedef uint8_t PackedPixel __attribute__((vector_size(4)));

inline uint8_t clip(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kPrecisionBits, 0, 255)); }

}  // namespace

NVLM_VECTOR_CLONES
void resampleRows(const uint8_t* source, int64_t width, int64_t rows, const ResampleAxis& axis, uint8_t* out) {
  // Four bytes are read for a pixel of three; behind the last pixel there is none.
  const uint8_t* const lastWhole = source + rows * width * 3 - 4;
  for (int64_t row = 0; row < rows; ++row) {
    const uint8_t* const line = source + row * width * 3;
    for (int64_t x = 0; x < axis.outputs; ++x, out += 3) {
      const int32_t* const weights = axis.weights + x * axis.taps;
      const uint8_t* from = line + int64_t{axis.first[x]} * 3;
      Pixel sum = {kHalf, kHalf, kHalf, kHalf};
      for (int32_t tap = 0; tap < axis.count[x]; ++tap, from += 3) {
        PackedPixel packed;
        if (from <= lastWhole) {
          std::memcpy(&packed, from, 4);
        } else {
          packed = PackedPixel{from[0], from[1], from[2], 0};
        }
        sum += __builtin_convertvector(packed, Pixel) * weights[tap];
      }
      out[0] = clip(sum[0]);
      out[1] = clip(sum[1]);
      out[2] = clip(sum[2]);
    }
  }
}

NVLM_VECTOR_CLONES
void resampleColumns(const uint8_t* source, int64_t width, const ResampleAxis& axis, uint8_t* out) {
  const int64_t stride = width * 3;
  for (int64_t y = 0; y < axis.outputs; ++y, out += stride) {
    const int32_t* const weights = axis.weights + y * axis.taps;
    const uint8_t* const top = source + int64_t{axis.first[y]} * stride;
    int64_t x = 0;
    for (; x + kColumnsAtOnce <= stride; x += kColumnsAtOnce) {
      int32_t sums[kColumnsAtOnce];
      for (int64_t i = 0; i < kColumnsAtOnce; ++i) sums[i] = kHalf;
      for (int32_t tap = 0; tap < axis.count[y]; ++tap) {
        const uint8_t* const from = top + tap * stride + x;
        const int32_t weight = weights[tap];
        for (int64_t i = 0; i < kColumnsAtOnce; ++i) sums[i] += from[i] * weight;
      }
      for (int64_t i = 0; i < kColumnsAtOnce; ++i) out[x + i] = clip(sums[i]);
    }
    for (; x < stride; ++x) {
      int32_t sum = kHalf;
      for (int32_t tap = 0; tap < axis.count[y]; ++tap) sum += top[tap * stride + x] * weights[tap];
      out[x] = clip(sum);
    }
  }
}

}  // namespace nvlm
