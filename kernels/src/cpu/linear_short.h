// The linear op over integer codes with AVX2: products of bytes add up in pairs to 16 bits, which must not overflow. What the codes of
// a segment can be decides how: dots are exact integers either way, so the bits are those of integerTile.
//
// The rows are cut into blocks whose activations stay in the second-level cache while the panels of a segment pass by, and K into
// chunks whose records stay in the first-level one while all rows of a block go over them; the sums of the block wait in the lane's
// scratch from one chunk to the next. An output is one chain over ascending K, whatever the blocking.
#pragma once
#include "linear_tile.h"

namespace nvlm::NVLM_PATH {

// Rows of a register tile of one block of 16 channels: their dots fill half the registers.
constexpr int kShortRows = 4;
constexpr int64_t kShortChunkRecords = 18;
constexpr int64_t kShortBlockRows = 96;
static_assert(kShortBlockRows * kPairChannels * 4 <= kTileScratchBytes);

// Rows from which a chunk of nibbles is unpacked once rather than by every tile.
constexpr int64_t kShortUnpackRows = 2 * kShortRows + 1;

NVLM_INLINE Division shortDivision(int64_t pairs, int64_t rows) { return {pairs, (rows + kShortBlockRows - 1) / kShortBlockRows}; }

enum class Codes {
  kNibbles,  // at most 15: a whole group adds up in 16 bits, 16 pairs of 2 * 15 * 127
  kSmall,    // at most 127: one pair of products fits
  kSigned,   // 0..255 about a zero of 128: code - 128 as magnitude and sign, the sign given to the activation
};

// Codes of one quad of 16 channels, or their dots.
struct CodeVector {
  __m256i half[2];
};

NVLM_INLINE CodeVector loadCodes(const uint8_t* p) {
  return {{_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p) + 1)}};
}

// dots[r] gains one quad of every row: `activations` are the first row's bytes of it.
template <Codes kCodes, int kRows>
NVLM_INLINE void addQuad(CodeVector (&dots)[kRows], const CodeVector& codes, const uint8_t* activations, int64_t stride) {
  CodeVector magnitude = codes, sign = codes;
  if constexpr (kCodes == Codes::kSigned) {
    for (int i = 0; i < 2; ++i) {
      sign.half[i] = _mm256_xor_si256(codes.half[i], _mm256_set1_epi8(-128));
      magnitude.half[i] = _mm256_abs_epi8(sign.half[i]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    int32_t value;
    std::memcpy(&value, activations + r * stride, 4);
    const __m256i a = _mm256_set1_epi32(value);
    for (int i = 0; i < 2; ++i) {
      const __m256i factor = kCodes == Codes::kSigned ? _mm256_sign_epi8(a, sign.half[i]) : a;
      const __m256i pairs = _mm256_maddubs_epi16(magnitude.half[i], factor);
      __m256i sum = dots[r].half[i];
      if constexpr (kCodes == Codes::kNibbles) {
        sum = _mm256_add_epi16(sum, pairs);
      } else {
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
      }
      // Compilers would add the products as a tree, reading all quads before the first sum: far more than there are registers.
      asm("" : "+x"(sum));
      dots[r].half[i] = sum;
    }
  }
}

// The sum in 32 bits, -zero * sum(a) included where kStart says that it is not 0 anyway.
template <Codes kCodes, bool kStart>
NVLM_INLINE I32x16 finishDot(const CodeVector& dot, int32_t start) {
  I32x16 result;
  for (int i = 0; i < 2; ++i) {
    __m256i sum = dot.half[i];
    if constexpr (kCodes == Codes::kNibbles) sum = _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
    if constexpr (kCodes != Codes::kSigned && kStart) sum = _mm256_add_epi32(sum, _mm256_set1_epi32(start));
    result.part[i] = reinterpret_cast<IntPart>(sum);
  }
  return result;
}

// Sums of kRows rows, kPairChannels floats apart, gain records [first, first + count) of both blocks. `record` is the first of
// them, with two codes to a byte when kPacked; `ahead` is how far before its use a line is fetched, 0 when it is in a cache.
template <int kRows, bool kPacked, Codes kCodes, int kSubs, bool kStart>
void shortTile(float* sums, const PackedSegment& weight, const uint8_t* record, int64_t recordBytes, int64_t first, int64_t count,
               int64_t ahead, const PreparedRows& rows) {
  const __m256i mask = _mm256_set1_epi8(15);
  const int64_t vectorBytes = weight.wideScales ? 128 : 64;
  const int64_t stride = rows.stride;
  const uint8_t* codes = rows.base + first * 32;
  const uint8_t* da = rows.base + rows.scales + first * 4;
  const uint8_t* starts = rows.base + rows.starts + first * kSubs * 4;
  const uint8_t* offsets = rows.base + rows.offsets + first * kSubs * 4;
  for (int64_t g = 0; g < count; ++g, record += recordBytes, codes += 32, da += 4, starts += kSubs * 4, offsets += kSubs * 4) {
    // One by one: a burst takes all that a core has for lines under way, and what comes behind it waits.
    const uint8_t* next = record + ahead;
    const auto fetch = [&] NVLM_INLINE_LAMBDA {
      if (ahead > 0) __builtin_prefetch(next);
      next += 64;
    };
    const uint8_t* scales = record + (kPacked ? 512 : 1024);
    for (int block = 0; block < 2; ++block) {
#pragma GCC unroll 2
      for (int sub = 0; sub < kSubs; ++sub) {
        CodeVector dots[kRows];
        for (int r = 0; r < kRows; ++r) dots[r] = {{_mm256_setzero_si256(), _mm256_setzero_si256()}};
        const uint8_t* from = record + block * 64;
        if constexpr (kPacked) {
#pragma GCC unroll 4
          for (int quad = 0; quad < 4; ++quad) {
            const CodeVector packed = loadCodes(from + quad * 128);
            CodeVector low, high;
            for (int i = 0; i < 2; ++i) {
              low.half[i] = _mm256_and_si256(packed.half[i], mask);
              high.half[i] = _mm256_and_si256(_mm256_srli_epi16(packed.half[i], 4), mask);
            }
            fetch();
            addQuad<kCodes>(dots, low, codes + quad * 4, stride);
            addQuad<kCodes>(dots, high, codes + quad * 4 + 16, stride);
          }
        } else {
#pragma GCC unroll 8
          for (int quad = sub * (8 / kSubs); quad < (sub + 1) * (8 / kSubs); ++quad) {
            fetch();
            addQuad<kCodes>(dots, loadCodes(from + quad * 128), codes + quad * 4, stride);
          }
        }
        const auto valueOf = [&](const uint8_t* of, int r, auto& value) NVLM_INLINE_LAMBDA { std::memcpy(&value, of + r * stride, 4); };
        fetch();
        if (weight.wideScales) fetch();
        const F32x16 d = loadScale(scales + sub * vectorBytes, weight.wideScales, block);
        F32x16 total[kRows];
        for (int r = 0; r < kRows; ++r) {
          int32_t start;
          float scale;
          valueOf(starts + sub * 4, r, start);
          valueOf(da, r, scale);
          total[r] = fma(toFloat(finishDot<kCodes, kStart>(dots[r], start)), d * splat(scale), load(sums + r * kPairChannels + 16 * block));
        }
        if (weight.hasMin) {
          const F32x16 m = loadScale(scales + (kSubs + sub) * vectorBytes, weight.wideScales, block);
          for (int r = 0; r < kRows; ++r) {
            float offset;
            valueOf(offsets + sub * 4, r, offset);
            total[r] = fma(m, splat(offset), total[r]);
          }
        }
        for (int r = 0; r < kRows; ++r) store(sums + r * kPairChannels + 16 * block, total[r]);
      }
    }
  }
}

// One pair for at most kShortBlockRows rows. `unpacked` has a chunk's place, `scratch` kTileScratchBytes.
template <Codes kCodes, int kSubs, bool kStart = true>
void shortPair(const PackedSegment& segment, const uint8_t* panel, const PreparedRows& rows, int64_t rowCount, const PairOutput& output,
               uint8_t* unpacked, uint8_t* scratch) {
  float* const sums = reinterpret_cast<float*>(scratch);
  const bool unpack = kCodes == Codes::kNibbles && rowCount >= kShortUnpackRows;
  // One tile goes through its panel once: no chunks.
  const int64_t chunks = rowCount <= kShortRows ? 1 : (segment.records + kShortChunkRecords - 1) / kShortChunkRecords;
  for (int64_t i = 0; i < rowCount * kPairChannels; i += kLanes) store(sums + i, zero());
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int64_t first = segment.records * chunk / chunks, count = segment.records * (chunk + 1) / chunks - first;
    const uint8_t* record = panel + first * segment.recordBytes;
    int64_t recordBytes = segment.recordBytes;
    int64_t ahead = kPrefetchBytes;
    if (unpack) {
      unpackRecords(record, recordBytes, count, ahead, unpacked);
      record = unpacked;
      recordBytes += 512;
      ahead = 0;
    }
    for (int64_t row = 0; row < rowCount; row += kShortRows, ahead = 0) {
      withRowCount<kShortRows>(rowCount - row, [&](auto rowsOfTile) NVLM_INLINE_LAMBDA {
        constexpr int kRows = decltype(rowsOfTile)::value;
        const PreparedRows from = rows.from(row);
        float* const to = sums + row * kPairChannels;
        if constexpr (kCodes == Codes::kNibbles) {
          if (!unpack) return shortTile<kRows, true, kCodes, kSubs, kStart>(to, segment, record, recordBytes, first, count, ahead, from);
        }
        shortTile<kRows, false, kCodes, kSubs, kStart>(to, segment, record, recordBytes, first, count, ahead, from);
      });
    }
  }
  for (int64_t r = 0; r < rowCount; ++r) {
    const float* from = sums + r * kPairChannels;
    finishRow(output, r, load(from), load(from + 16));
  }
}

}  // namespace nvlm::NVLM_PATH
