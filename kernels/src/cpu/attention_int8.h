// The products of attention over an int8 cache, exact in integers: int16 queries with int8 keys, int16 probabilities with int8
// values. The shapes and the way they are covered are those of attention_tile.cc.
#pragma once
#include "attention.h"
#include "narrow.h"

namespace nvlm::NVLM_PATH {

// The largest magnitude of an int16 code.
constexpr float kInt16Most = 32767.0f;

// The scale of codes for magnitudes up to `largest`; NaN unless that is finite.
NVLM_INLINE float scaleOfCodes(float largest) { return largest * (1.0f / kInt16Most) + largest * 0.0f; }

// One row of queries (D) as int16 codes of one scale, which it returns; NaN when a value is not finite.
NVLM_INLINE float quantizeQuery(const float* from, int headSize, F32x16 factor, int16_t* codes) {
  const auto value = [&](int d) NVLM_INLINE_LAMBDA {
    return loadPartial(from + d, headSize - d < kLanes ? headSize - d : kLanes) * factor;
  };
  F32x16 magnitudes = zero();
  for (int d = 0; d < headSize; d += kLanes) magnitudes = largerMagnitude(magnitudes, value(d));
  const float largest = largestMagnitude(magnitudes);
  const F32x16 inverse = splat(largest > 0.0f ? kInt16Most / largest : 0.0f);
  for (int d = 0; d < headSize; d += kLanes) {
    storeInt16(codes + d, roundToInt(min(max(value(d) * inverse, splat(-kInt16Most)), splat(kInt16Most))));
  }
  return scaleOfCodes(largest);
}

// dots (rows, columns of 16 lanes) gain kSteps pairs: codes of the left rows, `stride` apart, times the bytes at right[c], which
// move on.
template <int kSteps, int kRows, int kColumns>
NVLM_INLINE void multiplyPairs(I32x16 (&dots)[kRows][kColumns], const int16_t* left, int64_t stride,
                               const uint8_t* (&right)[kColumns], int64_t rightStep) {
#pragma GCC unroll 8
  for (int s = 0; s < kSteps; ++s) {
    I32x16 bytes[kColumns];
    for (int c = 0; c < kColumns; ++c) {
      bytes[c] = widenInt8(right[c]);
      right[c] += rightStep;
    }
    for (int r = 0; r < kRows; ++r) {
      const I32x16 pair = broadcastBytes(left + r * stride + 2 * s);
      for (int c = 0; c < kColumns; ++c) dots[r][c] = dotInt16(dots[r][c], pair, bytes[c]);
    }
  }
}

NVLM_INLINE void fetchLines(const uint8_t* from, int64_t bytes) {
  for (int64_t line = 0; line < bytes; line += 64) __builtin_prefetch(from + line, 0, 3);
}

template <int kRows, int kColumns>
NVLM_INLINE void clear(I32x16 (&dots)[kRows][kColumns]) {
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kColumns; ++c) dots[r][c] = zeroInt();
  }
}

// scores (rows, kKeyBlock) = queries (rows, D) * keys^T, for kRows rows and kColumns groups of 16 keys. Fetches the lines of
// `nextKeys` as it goes, where not null.
template <int kRows, int kColumns>
void scoreInt8(const int16_t* queries, int64_t queryStride, const float* queryScales, const uint8_t* const* keys,
               const uint8_t* const* nextKeys, const BlockLayout& layout, float* scores) {
  constexpr int kSpanSteps = kKeyScaleSpan / 2, kUnrolled = 8;
  for (int begin = 0, span = 0; begin < layout.keySteps; begin += kSpanSteps, ++span) {
    const int end = begin + kSpanSteps < layout.keySteps ? begin + kSpanSteps : layout.keySteps;
    const uint8_t* codes[kColumns];
    for (int c = 0; c < kColumns; ++c) codes[c] = keys[c] + begin * 32;
    I32x16 dots[kRows][kColumns];
    clear(dots);
    int s = begin;
    for (; s + kUnrolled <= end; s += kUnrolled) {
      for (int c = 0; nextKeys && c < kColumns; ++c) fetchLines(nextKeys[c] + s * 32, kUnrolled * 32);
      multiplyPairs<kUnrolled>(dots, queries + 2 * s, queryStride, codes, 32);
    }
    for (; s < end; ++s) multiplyPairs<1>(dots, queries + 2 * s, queryStride, codes, 32);
    for (int c = 0; nextKeys && end == layout.keySteps && c < kColumns; ++c) fetchLines(nextKeys[c] + layout.keyScales, 64);
    for (int c = 0; c < kColumns; ++c) {
      const F32x16 scale = loadBf16(reinterpret_cast<const uint16_t*>(keys[c] + layout.keyScales) + span * kKeyGroup);
      for (int r = 0; r < kRows; ++r) {
        float* to = scores + r * kKeyBlock + c * kLanes;
        const F32x16 product = toFloat(dots[r][c]) * (scale * splat(queryScales[r]));
        store(to, begin == 0 ? product : load(to) + product);
      }
    }
  }
}

// out (rows, P) = out * decay + probabilities (rows, keys) * values (keys, P), for kRows rows and 16 kColumns columns, the
// codes of a row's probabilities times `scales`. Fetches as scoreInt8 does.
template <int kRows, int kColumns>
void valueInt8(const int16_t* probabilities, const float* scales, const KeyBlock& block, const KeyBlock* next, int64_t column,
               int64_t valueStep, const float* decay, float* out, int64_t outStride) {
  constexpr int kSteps = kKeyGroup / 2;
  const int64_t first = column * 2;
  I32x16 sums[kRows][kColumns];
  clear(sums);
  for (int g = 0; g < block.groups; ++g) {
    if (next && g < next->groups) {
      // Each column its share, in order, so that the lines come evenly.
      fetchLines(next->values[g] + first * kSteps, kColumns * 32 * kSteps);
      if (first == 0) fetchLines(next->values[g] + kSteps * valueStep, 64);
    }
    const uint8_t* values[kColumns];
    for (int c = 0; c < kColumns; ++c) values[c] = block.values[g] + first + c * 32;
    multiplyPairs<kSteps>(sums, probabilities + g * kKeyGroup, 2 * kKeyBlock, values, valueStep);
  }
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kColumns; ++c) {
      float* to = out + r * outStride + c * kLanes;
      store(to, fma(toFloat(sums[r][c]), splat(scales[r]), load(to) * splat(decay[r])));
    }
  }
}

// Probabilities of the 16 keys of group g times the scales of their values. Keys from `visible` on count nothing, whatever their
// scales.
NVLM_INLINE F32x16 weighProbabilities(F32x16 probabilities, const KeyBlock& block, int g, int visible, int64_t valueScales) {
  const F32x16 weighed = probabilities * loadBf16(reinterpret_cast<const uint16_t*>(block.values[g] + valueScales));
  if (visible >= (g + 1) * kKeyGroup) return weighed;
  return selectFirst(visible - g * kKeyGroup, weighed, zero());
}

// `groups` of 16 weighed probabilities, none larger than `largest`, as int16 codes of one scale, in place; returns the scale.
NVLM_INLINE float quantizeWeights(float* row, int groups, float largest) {
  const F32x16 inverse = splat(largest > 0.0f ? kInt16Most / largest : 0.0f);
  int16_t* const codes = reinterpret_cast<int16_t*>(row);
  for (int g = 0; g < groups; ++g) {
    storeInt16(codes + g * kKeyGroup, roundToInt(min(load(row + g * kLanes) * inverse, splat(kInt16Most))));
  }
  return scaleOfCodes(largest);
}

}  // namespace nvlm::NVLM_PATH
