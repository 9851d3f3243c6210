// Activations as the integer dots of the linear op take them: codes of a byte, a scale for each group of 32, and sums of the codes.
#pragma once
#include "linear.h"
#include "narrow.h"

namespace nvlm::NVLM_PATH {

// The largest magnitude of each of four groups of 32 floats; a NaN is larger than infinity.
NVLM_INLINE Quad groupMagnitudes(const float* p) {
  const auto larger = [](auto a, auto b) NVLM_INLINE_LAMBDA { return a > b ? a : b; };
  IntPart group[4];
  for (int g = 0; g < 4; ++g) {
    const F32x16 both = largerMagnitude(abs(load(p + 32 * g)), load(p + 32 * g + 16));
    group[g] = reinterpret_cast<IntPart>(both.part[0]);
    for (int i = 1; i < kParts; ++i) group[g] = larger(group[g], reinterpret_cast<IntPart>(both.part[i]));
  }
#if defined(__AVX2__)
  const auto half = [&](int g) NVLM_INLINE_LAMBDA {
#if defined(__AVX512F__)
    const __m512i whole = reinterpret_cast<__m512i>(group[g]);
    return _mm256_max_epi32(_mm512_castsi512_si256(whole), _mm512_extracti64x4_epi64(whole, 1));
#else
    return reinterpret_cast<__m256i>(group[g]);
#endif
  };
  // Either 16 bytes of a register fold by themselves.
  const auto fold = [](__m256i a, __m256i b) NVLM_INLINE_LAMBDA {
    return _mm256_max_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
  };
  const __m256i first = fold(half(0), half(1)), second = fold(half(2), half(3));
  const __m256i both = _mm256_max_epi32(_mm256_unpacklo_epi64(first, second), _mm256_unpackhi_epi64(first, second));
  return _mm_castsi128_ps(_mm_max_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1)));
#else
  const auto fold = [&](IntPart a, IntPart b) NVLM_INLINE_LAMBDA {
    return larger(__builtin_shufflevector(a, b, 0, 4, 1, 5), __builtin_shufflevector(a, b, 2, 6, 3, 7));
  };
  const IntPart first = fold(group[0], group[1]), second = fold(group[2], group[3]);
  return reinterpret_cast<Quad>(
      larger(__builtin_shufflevector(first, second, 0, 1, 4, 5), __builtin_shufflevector(first, second, 2, 3, 6, 7)));
#endif
}

// The sums of the first and of the second halves of each of four groups of 32 bytes.
NVLM_INLINE void groupSums(const int8_t* p, int32_t* firstHalves, int32_t* secondHalves) {
#if defined(__AVX2__)
  // Sums of 16 bytes fit in 16 bits, so that packing loses nothing and puts those of two vectors side by side.
  const auto pairs = [](__m256i words) NVLM_INLINE_LAMBDA { return _mm256_madd_epi16(words, _mm256_set1_epi16(1)); };
  const auto fours = [&](int g) NVLM_INLINE_LAMBDA {
    return pairs(_mm256_maddubs_epi16(_mm256_set1_epi8(1), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p) + g)));
  };
  const auto eights = [&](int g) NVLM_INLINE_LAMBDA { return pairs(_mm256_packs_epi32(fours(g), fours(g + 1))); };
  const __m256i sums = pairs(_mm256_packs_epi32(eights(0), eights(2)));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(firstHalves), _mm256_castsi256_si128(sums));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(secondHalves), _mm256_extracti128_si256(sums, 1));
#elif defined(__SSE4_1__)
  const auto fours = [&](int half) NVLM_INLINE_LAMBDA {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p) + half);
    return _mm_madd_epi16(_mm_maddubs_epi16(_mm_set1_epi8(1), bytes), _mm_set1_epi16(1));
  };
  const auto sums = [&](int half) NVLM_INLINE_LAMBDA {
    return _mm_hadd_epi32(_mm_hadd_epi32(fours(half), fours(half + 2)), _mm_hadd_epi32(fours(half + 4), fours(half + 6)));
  };
  _mm_storeu_si128(reinterpret_cast<__m128i*>(firstHalves), sums(0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(secondHalves), sums(1));
#else
  for (int g = 0; g < 4; ++g) {
    firstHalves[g] = secondHalves[g] = 0;
    for (int i = 0; i < 16; ++i) {
      firstHalves[g] += p[32 * g + i];
      secondHalves[g] += p[32 * g + 16 + i];
    }
  }
#endif
}

// Whether a segment's sums of the activations are those of the segment before it.
NVLM_INLINE bool sharesSums(const PackedLinear& weight, int segment) {
  const auto integer = [](const PackedSegment& s) NVLM_INLINE_LAMBDA { return s.kind == PackedKind::kU8 || s.kind == PackedKind::kU4; };
  if (segment == 0) return false;
  const PackedSegment& a = weight.segments[segment - 1];
  const PackedSegment& b = weight.segments[segment];
  return integer(a) && integer(b) && a.subs == b.subs && a.zero == b.zero;
}

NVLM_INLINE int64_t segmentMetaOffset(const PackedLinear& weight, int segment, int64_t* starts) {
  while (sharesSums(weight, segment)) --segment;
  const int64_t records = (weight.k + kGroup - 1) / kGroup;
  int64_t offset = records * 36;
  for (int s = 0; s < segment; ++s) offset += records * weight.segments[s].subs * 8;
  *starts = offset;
  return offset + records * weight.segments[segment].subs * 4;
}

// Groups [begin, end) of a prepared row for every segment: `low` and `high` are the sums of the codes of their halves.
NVLM_INLINE void prepareSums(const PackedLinear& weight, int64_t begin, int64_t end, const float* scales, const int32_t* low,
                             const int32_t* high, uint8_t* row) {
  const int64_t records = (weight.k + kGroup - 1) / kGroup;
  uint8_t* meta = row + records * 36;
  for (int s = 0; s < weight.segmentCount; ++s) {
    const PackedSegment& segment = weight.segments[s];
    int32_t* __restrict starts = reinterpret_cast<int32_t*>(meta) + begin * segment.subs;
    float* __restrict offsets = reinterpret_cast<float*>(starts + records * segment.subs);
    meta += records * segment.subs * 8;
    if ((segment.kind != PackedKind::kU8 && segment.kind != PackedKind::kU4) || sharesSums(weight, s)) continue;
    const int zero = segment.zero;
    for (int64_t i = 0; i < end - begin; ++i) {
      if (segment.subs == 2) {
        starts[2 * i] = -zero * low[i];
        starts[2 * i + 1] = -zero * high[i];
        offsets[2 * i] = scales[i] * static_cast<float>(low[i]);
        offsets[2 * i + 1] = scales[i] * static_cast<float>(high[i]);
      } else {
        const int32_t sum = low[i] + high[i];
        starts[i] = -zero * sum;
        offsets[i] = scales[i] * static_cast<float>(sum);
      }
    }
  }
}

// Quantises one row to int8 per group of 32, the values beyond K being zero, and sums each group for every segment. Four groups at a
// time: the last four begin early enough to be whole, and give some numbers again; a row of fewer is padded.
inline void prepareIntegerRow(const PackedLinear& weight, const float* x, uint8_t* row, const Lane& lane) {
  constexpr int64_t kChunk = 64;
  const int64_t records = (weight.k + kGroup - 1) / kGroup;
  const bool few = records < 4;
  alignas(32) int8_t fewCodes[128];
  float fewScales[4] = {};
  int8_t* const codes = few ? fewCodes : reinterpret_cast<int8_t*>(row);
  float* const scales = few ? fewScales : reinterpret_cast<float*>(row + records * 32);
  int32_t low[kChunk], high[kChunk];
  const int64_t chunks = (records + kChunk - 1) / kChunk;
  Quad poison{};
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int64_t begin = records * chunk / chunks, end = records * (chunk + 1) / chunks;
    for (int64_t g = begin; g < end; g += 4) {
      const int64_t first = few || g + 4 <= end ? g : end - 4;
      const int64_t left = weight.k - first * 32;
      const float* from = x + first * 32;
      alignas(64) float padded[128];
      if (left < 128) {
        std::memset(padded, 0, sizeof padded);
        std::memcpy(padded, from, static_cast<size_t>(left) * 4);
        from = padded;
      }
      lane.fetchAhead();
      const Quad largest = groupMagnitudes(from);
      const Quad inverse = largest > 0.0f ? 127.0f / largest : Quad{};
      const Quad scale = largest * (1.0f / 127.0f);
      poison = poison + largest * 0.0f;
      // The bound changes no number; with that of storeInt8 infinity times zero and NaN get a code.
      const F32x16 most = splat(127.0f);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const F32x16 factor = splat(inverse[i]);
        const auto rounded = [&](const float* p) NVLM_INLINE_LAMBDA { return roundToInt(min(most, load(p) * factor)); };
        storeInt8(codes + (first + i) * 32, rounded(from + 32 * i), rounded(from + 32 * i + 16));
      }
      std::memcpy(scales + first, &scale, sizeof scale);
      groupSums(codes + first * 32, low + (first - begin), high + (first - begin));
    }
    prepareSums(weight, begin, end, scales + begin, low, high, row);
  }
  // Zero unless a value of the row is infinite or NaN; then each of its outputs becomes NaN, as it should.
  scales[0] += (poison[0] + poison[1]) + (poison[2] + poison[3]);
  if (few) {
    std::memcpy(row, codes, static_cast<size_t>(records) * 32);
    std::memcpy(row + records * 32, scales, static_cast<size_t>(records) * 4);
  }
}

}  // namespace nvlm::NVLM_PATH
