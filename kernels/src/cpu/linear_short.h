// Register tiles of the linear op over integer codes with AVX2: products of bytes add up in pairs to 16 bits, which must not
// overflow. What the codes of a segment can be decides how: dots are exact integers either way, so the bits are those of integerTile.
#pragma once
#include "linear_tile.h"

namespace nvlm::NVLM_PATH {

enum class Codes {
  kNibbles,  // at most 15: a whole group adds up in 16 bits, 16 pairs of 2 * 15 * 127
  kSmall,    // at most 127: one pair of products fits
  kSigned,   // 0..255 about a zero of 128: code - 128 as magnitude and sign, the sign given to the activation
};

struct CodeVector {
  __m256i half[2];
};

NVLM_INLINE CodeVector loadCodes(const uint8_t* p) {
  return {{_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p) + 1)}};
}

template <Codes kCodes>
NVLM_INLINE void addQuad(CodeVector& dot, const CodeVector& codes, __m256i activations) {
  for (int i = 0; i < 2; ++i) {
    if constexpr (kCodes == Codes::kNibbles) {
      dot.half[i] = _mm256_add_epi16(dot.half[i], _mm256_maddubs_epi16(codes.half[i], activations));
      continue;
    }
    __m256i pairs;
    if constexpr (kCodes == Codes::kSigned) {
      const __m256i weight = _mm256_xor_si256(codes.half[i], _mm256_set1_epi8(-128));
      pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weight), _mm256_sign_epi8(activations, weight));
    } else {
      pairs = _mm256_maddubs_epi16(codes.half[i], activations);
    }
    dot.half[i] = _mm256_add_epi32(dot.half[i], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
}

// The sum in 32 bits, -zero * sum(a) included.
template <Codes kCodes>
NVLM_INLINE I32x16 finishDot(const CodeVector& dot, int32_t start) {
  I32x16 result;
  for (int i = 0; i < 2; ++i) {
    __m256i sum = dot.half[i];
    if constexpr (kCodes == Codes::kNibbles) sum = _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
    if constexpr (kCodes != Codes::kSigned) sum = _mm256_add_epi32(sum, _mm256_set1_epi32(start));
    result.part[i] = reinterpret_cast<IntPart>(sum);
  }
  return result;
}

// As integerTile; kPacked: two codes to a byte.
template <int kRows, bool kPacked, Codes kCodes, int kSubs>
NVLM_INLINE void shortTile(LinearTile<kRows>& tile, const PackedSegment& weight, const uint8_t* panel, int64_t recordBytes,
                           int64_t ahead, const PreparedRows& rows) {
  for (int r = 0; r < kRows; ++r) tile.sum[r][0] = tile.sum[r][1] = zero();
  const __m256i mask = _mm256_set1_epi8(15);
  const uint8_t* record = panel;
  for (int64_t g = 0; g < weight.records; ++g, record += recordBytes) {
    if (ahead > 0) {
      for (int64_t line = 0; line < recordBytes; line += 64) __builtin_prefetch(record + ahead + line);
    }
    const uint8_t* scales = record + (kPacked ? 512 : 1024);
    const auto activations = [&](int r, int quad) NVLM_INLINE_LAMBDA {
      int32_t value;
      std::memcpy(&value, rows.row(r) + g * 32 + quad * 4, 4);
      return _mm256_set1_epi32(value);
    };
    for (int sub = 0; sub < kSubs; ++sub) {
      CodeVector sums[kRows][2];
      for (int r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = {{_mm256_setzero_si256(), _mm256_setzero_si256()}};
      if constexpr (kPacked) {
#pragma GCC unroll 4
        for (int quad = 0; quad < 4; ++quad) {
          for (int block = 0; block < 2; ++block) {
            const CodeVector packed = loadCodes(record + quad * 128 + block * 64);
            CodeVector low, high;
            for (int i = 0; i < 2; ++i) {
              low.half[i] = _mm256_and_si256(packed.half[i], mask);
              high.half[i] = _mm256_and_si256(_mm256_srli_epi16(packed.half[i], 4), mask);
            }
            for (int r = 0; r < kRows; ++r) addQuad<kCodes>(sums[r][block], low, activations(r, quad));
            for (int r = 0; r < kRows; ++r) addQuad<kCodes>(sums[r][block], high, activations(r, quad + 4));
          }
        }
      } else {
#pragma GCC unroll 8
        for (int quad = sub * (8 / kSubs); quad < (sub + 1) * (8 / kSubs); ++quad) {
          for (int block = 0; block < 2; ++block) {
            const CodeVector codes = loadCodes(record + quad * 128 + block * 64);
            for (int r = 0; r < kRows; ++r) addQuad<kCodes>(sums[r][block], codes, activations(r, quad));
          }
        }
      }
      I32x16 dot[kRows][2];
      for (int r = 0; r < kRows; ++r) {
        int32_t start;
        std::memcpy(&start, rows.row(r) + rows.starts + 4 * (g * kSubs + sub), 4);
        dot[r][0] = finishDot<kCodes>(sums[r][0], start);
        dot[r][1] = finishDot<kCodes>(sums[r][1], start);
      }
      addGroup<kRows>(tile, dot, weight, scales, sub, rows, g, kSubs);
    }
  }
}

}  // namespace nvlm::NVLM_PATH
