// Lanes narrower than 32 bits: half-precision formats, signed bytes and int16, and their dot products. Inlined as simd.h is.
#pragma once
#include "simd.h"

namespace nvlm::NVLM_PATH {

// --- half-width formats --------------------------------------------------------------------------------------------------

NVLM_INLINE float bf16ToFloat(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}
NVLM_INLINE F32x16 loadBf16(const uint16_t* p) {
  F32x16 r;
#if defined(__AVX512F__)
  const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  r.part[0] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
#elif defined(__AVX2__)
  for (int i = 0; i < kParts; ++i) {
    const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p) + i);
    r.part[i] = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16));
  }
#else
  for (int i = 0; i < kParts; ++i) {
    for (int j = 0; j < kPartLanes; ++j) r.part[i][j] = bf16ToFloat(p[i * kPartLanes + j]);
  }
#endif
  return r;
}
// Each lane rounded to the nearest bf16, ties to even; NaN stays NaN.
NVLM_INLINE F32x16 roundToBf16(F32x16 v) {
  F32x16 r;
  for (int i = 0; i < kParts; ++i) {
    const IntPart bits = reinterpret_cast<IntPart>(v.part[i]);
    const IntPart rounded = bits + 0x7fff + ((bits >> 16) & 1);
    const IntPart isNan = (bits & 0x7fffffff) > 0x7f800000;
    r.part[i] = reinterpret_cast<FloatPart>(((isNan & (bits | 0x400000)) | (~isNan & rounded)) & static_cast<int32_t>(0xffff0000));
  }
  return r;
}
// Round to nearest even; NaN stays NaN. With the bf16 instructions denormals become zero.
NVLM_INLINE void storeBf16(uint16_t* p, F32x16 v) {
#if defined(__AVX512BF16__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v.part[0])));
#else
  const F32x16 rounded = roundToBf16(v);
#if defined(__AVX2__)
  // Packs within each half of the register: the quarters come out in the order 0, 2, 1, 3.
  const __m256i low = _mm256_srli_epi32(reinterpret_cast<__m256i>(rounded.part[0]), 16);
  const __m256i high = _mm256_srli_epi32(reinterpret_cast<__m256i>(rounded.part[1]), 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xd8);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), packed);
#else
  alignas(64) uint32_t lanes[kLanes];
  std::memcpy(lanes, &rounded, sizeof lanes);
  for (int i = 0; i < kLanes; ++i) p[i] = static_cast<uint16_t>(lanes[i] >> 16);
#endif
#endif
}

// The first and the second of each pair of bf16, exact.
NVLM_INLINE F32x16 evenBf16(I32x16 pairs) {
  F32x16 r;
  for (int i = 0; i < kParts; ++i) r.part[i] = reinterpret_cast<FloatPart>(pairs.part[i] << 16);
  return r;
}
NVLM_INLINE F32x16 oddBf16(I32x16 pairs) {
  F32x16 r;
  for (int i = 0; i < kParts; ++i) r.part[i] = reinterpret_cast<FloatPart>(pairs.part[i] & static_cast<int32_t>(0xffff0000));
  return r;
}

// IEEE half precision, exact.
NVLM_INLINE float f16ToFloat(uint16_t bits) {
#if defined(__AVX2__)
  return _cvtsh_ss(bits);
#else
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t rest = bits & 0x7fffu;
  uint32_t wide;
  if (rest >= 0x7c00u) {
    wide = sign | 0x7f800000u | (rest << 13);
  } else if (rest >= 0x0400u) {
    wide = sign | ((rest << 13) + (112u << 23));
  } else {
    const float small = static_cast<float>(rest) * 0x1p-24f;
    std::memcpy(&wide, &small, 4);
    wide |= sign;
  }
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
#endif
}
NVLM_INLINE F32x16 loadF16(const uint16_t* p) {
  F32x16 r;
#if defined(__AVX512F__)
  r.part[0] = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__AVX2__)
  for (int i = 0; i < kParts; ++i) {
    r.part[i] = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p) + i));
  }
#else
  for (int i = 0; i < kParts; ++i) {
    for (int j = 0; j < kPartLanes; ++j) r.part[i][j] = f16ToFloat(p[i * kPartLanes + j]);
  }
#endif
  return r;
}

// --- signed bytes and int16 ------------------------------------------------------------------------------------------------

// 32 signed bytes as 32 int16, two to a lane.
NVLM_INLINE I32x16 widenInt8(const void* p) {
  I32x16 r;
#if defined(__AVX512F__)
  r.part[0] = reinterpret_cast<IntPart>(_mm512_cvtepi8_epi16(_mm256_loadu_si256(static_cast<const __m256i*>(p))));
#elif defined(__AVX2__)
  for (int i = 0; i < kParts; ++i) {
    r.part[i] = reinterpret_cast<IntPart>(_mm256_cvtepi8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(p) + i)));
  }
#elif defined(__SSE4_1__)
  for (int i = 0; i < kParts; ++i) {
    r.part[i] = reinterpret_cast<IntPart>(_mm_cvtepi8_epi16(_mm_loadu_si64(static_cast<const uint8_t*>(p) + 8 * i)));
  }
#else
  int16_t wide[2 * kLanes];
  for (int i = 0; i < 2 * kLanes; ++i) wide[i] = static_cast<const int8_t*>(p)[i];
  r = loadInt(wide);
#endif
  return r;
}
// 32 lanes as bytes, those beyond -127..127 as the nearest of them.
NVLM_INLINE void storeInt8(int8_t* p, I32x16 low, I32x16 high) {
#if defined(__AVX512F__)
  for (int i = 0; i < 2; ++i) {
    const __m128i bytes = _mm512_cvtsepi32_epi8(reinterpret_cast<__m512i>(i == 0 ? low.part[0] : high.part[0]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p) + i, _mm_max_epi8(bytes, _mm_set1_epi8(-127)));
  }
#elif defined(__AVX2__)
  const auto words = [](I32x16 v) NVLM_INLINE_LAMBDA {
    return _mm256_packs_epi32(reinterpret_cast<__m256i>(v.part[0]), reinterpret_cast<__m256i>(v.part[1]));
  };
  const __m256i bytes = _mm256_max_epi8(_mm256_packs_epi16(words(low), words(high)), _mm256_set1_epi8(-127));
  // Packs within each half of the register: the eighths come out in the order 0, 2, 4, 6, 1, 3, 5, 7.
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
#elif defined(__SSE4_1__)
  for (int i = 0; i < 2; ++i) {
    const auto words = [&](int part) NVLM_INLINE_LAMBDA {
      const I32x16& v = i == 0 ? low : high;
      return _mm_packs_epi32(reinterpret_cast<__m128i>(v.part[part]), reinterpret_cast<__m128i>(v.part[part + 1]));
    };
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p) + i, _mm_max_epi8(_mm_packs_epi16(words(0), words(2)), _mm_set1_epi8(-127)));
  }
#else
  alignas(64) int32_t lanes[2 * kLanes];
  storeInt(lanes, low);
  storeInt(lanes + kLanes, high);
  for (int i = 0; i < 2 * kLanes; ++i) p[i] = static_cast<int8_t>(lanes[i] < -127 ? -127 : lanes[i] > 127 ? 127 : lanes[i]);
#endif
}

// Lanes of -32768..32767 as int16.
NVLM_INLINE void storeInt16(int16_t* p, I32x16 v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(v.part[0])));
#elif defined(__AVX2__)
  // Packs within each half of the register: the quarters come out in the order 0, 2, 1, 3.
  const __m256i packed = _mm256_packs_epi32(reinterpret_cast<__m256i>(v.part[0]), reinterpret_cast<__m256i>(v.part[1]));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
#else
  alignas(64) int32_t lanes[kLanes];
  storeInt(lanes, v);
  for (int i = 0; i < kLanes; ++i) p[i] = static_cast<int16_t>(lanes[i]);
#endif
}

// --- the magnitude that a scale of codes is made for ----------------------------------------------------------------------

// The larger of `largest`, which has no signs, and the magnitude of v, lane by lane; a NaN is larger than infinity.
NVLM_INLINE F32x16 largerMagnitude(F32x16 largest, F32x16 v) {
  const F32x16 magnitude = abs(v);
  F32x16 r;
  for (int i = 0; i < kParts; ++i) {
    // Without their signs floats order as the integers of the same bits.
    const IntPart a = reinterpret_cast<IntPart>(largest.part[i]), b = reinterpret_cast<IntPart>(magnitude.part[i]);
    r.part[i] = reinterpret_cast<FloatPart>(a > b ? a : b);
  }
  return r;
}
// The largest lane of what largerMagnitude gave.
NVLM_INLINE float largestMagnitude(F32x16 magnitudes) {
  typedef int32_t IntQuad __attribute__((vector_size(16)));
  const auto larger = [](IntQuad a, IntQuad b) NVLM_INLINE_LAMBDA { return a > b ? a : b; };
  const auto quad = [&](int i) NVLM_INLINE_LAMBDA { return reinterpret_cast<IntQuad>(quadOf(magnitudes, i)); };
  const IntQuad four = larger(larger(quad(0), quad(2)), larger(quad(1), quad(3)));
  const IntQuad two = larger(four, __builtin_shufflevector(four, four, 2, 3, 0, 1));
  return reinterpret_cast<Quad>(larger(two, __builtin_shufflevector(two, two, 1, 0, 3, 2)))[0];
}

// Fetches a line into the cache of kLevel once `after` is there: compilers put fetches that depend on nothing one behind the
// other, in a burst.
template <int kLevel>
NVLM_INLINE void prefetchAfter(const uint8_t* line, [[maybe_unused]] I32x16& after) {
#if defined(__AVX512F__)
  if constexpr (kLevel == 1) {
    asm("prefetcht0 %1" : "+v"(after.part[0]) : "m"(*line));
  } else {
    asm("prefetcht1 %1" : "+v"(after.part[0]) : "m"(*line));
  }
#else
  __builtin_prefetch(line, 0, kLevel == 1 ? 3 : 2);
#endif
}

// --- dot products of narrow lanes ----------------------------------------------------------------------------------------

// Lane i of acc gains a[2i] * b[2i] + a[2i + 1] * b[2i + 1], a and b being 32 bf16.
NVLM_INLINE F32x16 dotBf16(F32x16 acc, I32x16 a, I32x16 b) {
#if defined(__AVX512BF16__)
  acc.part[0] = _mm512_dpbf16_ps(acc.part[0], reinterpret_cast<__m512bh>(a.part[0]),
                                 reinterpret_cast<__m512bh>(b.part[0]));
  return acc;
#else
  return fma(oddBf16(a), oddBf16(b), fma(evenBf16(a), evenBf16(b), acc));
#endif
}

// Lane i of acc gains the exact a[2i] * b[2i] + a[2i + 1] * b[2i + 1], a and b being 32 int16, not both pairs of -32768.
NVLM_INLINE I32x16 dotInt16(I32x16 acc, I32x16 a, I32x16 b) {
#if defined(__AVX512VNNI__)
  acc.part[0] = reinterpret_cast<IntPart>(_mm512_dpwssd_epi32(reinterpret_cast<__m512i>(acc.part[0]),
                                                              reinterpret_cast<__m512i>(a.part[0]),
                                                              reinterpret_cast<__m512i>(b.part[0])));
#elif defined(__AVX2__)
  for (int i = 0; i < kParts; ++i) {
    __m256i sum = _mm256_add_epi32(reinterpret_cast<__m256i>(acc.part[i]),
                                   _mm256_madd_epi16(reinterpret_cast<__m256i>(a.part[i]), reinterpret_cast<__m256i>(b.part[i])));
    // Compilers would add the products as a tree, reading all of them before the first sum: far more than there are registers.
    asm("" : "+x"(sum));
    acc.part[i] = reinterpret_cast<IntPart>(sum);
  }
#elif defined(__SSE4_1__)
  for (int i = 0; i < kParts; ++i) {
    acc.part[i] += reinterpret_cast<IntPart>(_mm_madd_epi16(reinterpret_cast<__m128i>(a.part[i]), reinterpret_cast<__m128i>(b.part[i])));
  }
#else
  alignas(64) int16_t left[2 * kLanes], right[2 * kLanes];
  alignas(64) int32_t sums[kLanes];
  storeInt(left, a);
  storeInt(right, b);
  storeInt(sums, acc);
  for (int i = 0; i < kLanes; ++i) sums[i] += left[2 * i] * right[2 * i] + left[2 * i + 1] * right[2 * i + 1];
  acc = loadInt(sums);
#endif
  return acc;
}

// Lane i of acc gains the exact sum over j < 4 of u[4i + j] * s[4i + j], u unsigned and s signed bytes. The s bytes lie in
// -127..127. kSmall promises u <= 15, which the short multiply-add instructions take without saturating.
template <bool kSmall>
NVLM_INLINE I32x16 dotU8S8(I32x16 acc, I32x16 u, I32x16 s) {
#if defined(__AVX512VNNI__)
  __m512i sum = _mm512_dpbusd_epi32(reinterpret_cast<__m512i>(acc.part[0]), reinterpret_cast<__m512i>(u.part[0]),
                                    reinterpret_cast<__m512i>(s.part[0]));
  // Compilers would put off a chain of dots to where its sum is used, all operands kept until then: far more than there are registers.
  asm("" : "+v"(sum));
  acc.part[0] = reinterpret_cast<IntPart>(sum);
#elif defined(__AVX2__)
  for (int i = 0; i < kParts; ++i) {
    const __m256i bytes = reinterpret_cast<__m256i>(u.part[i]);
    const __m256i codes = reinterpret_cast<__m256i>(s.part[i]);
    __m256i sum;
    if constexpr (kSmall) {
      sum = _mm256_madd_epi16(_mm256_maddubs_epi16(bytes, codes), _mm256_set1_epi16(1));
    } else {
      const __m256i even = _mm256_madd_epi16(_mm256_and_si256(bytes, _mm256_set1_epi16(255)),
                                             _mm256_srai_epi16(_mm256_slli_epi16(codes, 8), 8));
      const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(bytes, 8), _mm256_srai_epi16(codes, 8));
      sum = _mm256_add_epi32(even, odd);
    }
    acc.part[i] += reinterpret_cast<IntPart>(sum);
  }
#elif defined(__SSE4_1__)
  for (int i = 0; i < kParts; ++i) {
    const __m128i bytes = reinterpret_cast<__m128i>(u.part[i]);
    const __m128i codes = reinterpret_cast<__m128i>(s.part[i]);
    const __m128i even = _mm_madd_epi16(_mm_and_si128(bytes, _mm_set1_epi16(255)),
                                        _mm_srai_epi16(_mm_slli_epi16(codes, 8), 8));
    const __m128i odd = _mm_madd_epi16(_mm_srli_epi16(bytes, 8), _mm_srai_epi16(codes, 8));
    acc.part[i] += reinterpret_cast<IntPart>(_mm_add_epi32(even, odd));
  }
#else
  for (int i = 0; i < kParts; ++i) {
    for (int j = 0; j < kPartLanes; ++j) {
      const uint32_t bytes = static_cast<uint32_t>(u.part[i][j]);
      const uint32_t codes = static_cast<uint32_t>(s.part[i][j]);
      int32_t sum = 0;
      for (int k = 0; k < 32; k += 8) {
        sum += static_cast<int32_t>((bytes >> k) & 255u) * static_cast<int8_t>((codes >> k) & 255u);
      }
      acc.part[i][j] += sum;
    }
  }
#endif
  return acc;
}

}  // namespace nvlm::NVLM_PATH
