// Register tiles of the linear op: a few rows by one pair of channel blocks, accumulated over the whole of K. Every row of a tile
// goes through the same operations in the same order whatever the number of rows.
#pragma once
#include "linear_output.h"
#include "narrow.h"

namespace nvlm::NVLM_PATH {

// Rows of the largest tile: on avx512 two blocks times six rows of integer and of float accumulators fill the registers.
#if defined(__AVX512F__)
constexpr int kLinearTileRows = 6;
#else
constexpr int kLinearTileRows = 2;
#endif

// Rows from which a panel of nibbles is unpacked once rather than by every tile.
#if defined(NVLM_AMX)
constexpr int64_t kUnpackRows = 32;
#else
constexpr int64_t kUnpackRows = 8 * kLinearTileRows;
#endif

// How far ahead of the reader a panel is fetched, when it comes from memory.
#if defined(__AVX512F__)
constexpr int64_t kPrefetchBytes = 8192;
#else
constexpr int64_t kPrefetchBytes = 4096;
#endif

// Panels of integers, and of bf16 that tiles read, go to the first-level cache in two steps where the third level is large and answers
// late, as on Intel's servers: far ahead to the second, and from there.
#if defined(NVLM_AMX)
constexpr int64_t kNearBytes = 2048, kFarBytes = 12288;
#else
constexpr int64_t kNearBytes = kPrefetchBytes, kFarBytes = 0;
#endif

// Where a tile's prepared activations are; rows are `stride` bytes apart.
struct PreparedRows {
  const uint8_t* base;
  int64_t stride;
  int64_t scales;   // offset of da within a row
  int64_t starts;   // offset of this segment's -zero * sum(a)
  int64_t offsets;  // offset of this segment's da * sum(a)

  NVLM_INLINE const uint8_t* row(int64_t r) const { return base + r * stride; }
  NVLM_INLINE PreparedRows from(int64_t r) const {
    return {base + r * stride, stride, scales, starts, offsets};
  }
};

// How a segment is handed out: groups of pairs, times blocks of rows where they are so many that their activations would not stay
// in a cache.
struct Division {
  int64_t groups, rowBlocks;
  NVLM_INLINE int64_t items() const { return groups * rowBlocks; }
  // The first row of a block; blocks are whole tiles of tileRows but for the last row's.
  NVLM_INLINE int64_t rowBegin(int64_t block, int64_t rows, int64_t tileRows) const {
    const int64_t row = (rows + tileRows - 1) / tileRows * block / rowBlocks * tileRows;
    return row < rows ? row : rows;
  }
};

template <int kRows>
struct LinearTile {
  F32x16 sum[kRows][2];
};

NVLM_INLINE F32x16 loadScale(const uint8_t* p, bool wide, int block) {
  return wide ? load(reinterpret_cast<const float*>(p) + 16 * block)
              : loadF16(reinterpret_cast<const uint16_t*>(p) + 16 * block);
}

// One tile over all of a panel, whose first record is `record`. kFetch says that it comes from memory and not from a cache. A function
// of its own, so that its registers are its own.
template <int kRows, bool kNibbles, int kSubs, bool kFetch>
void integerTile(LinearTile<kRows>& tile, const PackedSegment& weight, const uint8_t* record, int64_t recordBytes,
                 const PreparedRows& rows) {
  const int64_t vectorBytes = weight.wideScales ? 128 : 64;
  const int64_t stride = rows.stride;
  const uint8_t* codes = rows.base;
  const uint8_t* da = rows.base + rows.scales;
  const uint8_t* starts = rows.base + rows.starts;
  const uint8_t* offsets = rows.base + rows.offsets;
  const bool wide = weight.wideScales, hasMin = weight.hasMin;
  F32x16 sum[kRows][2];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = zero();
  for (int64_t g = weight.records; g > 0; --g) {
    // One by one: a burst takes all that a core has for lines under way, and what comes behind it waits.
    int64_t line = 0;
    const auto fetch = [&](I32x16& after) NVLM_INLINE_LAMBDA {
      if constexpr (kFetch) prefetchAfter<1>(record + kNearBytes + line, after);
      if constexpr (kFetch && kFarBytes > 0) prefetchAfter<2>(record + kFarBytes + line, after);
      line += 64;
    };
    const uint8_t* scales = record + (kNibbles ? 512 : 1024);
#pragma GCC unroll 2
    for (int sub = 0; sub < kSubs; ++sub) {
      I32x16 dot[kRows][2];
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) dot[r][0] = dot[r][1] = broadcastBytes(starts + r * stride);
      if constexpr (kNibbles) {
        const I32x16 mask = splatInt(0x0f0f0f0f);
#pragma GCC unroll 4
        for (int quad = 0; quad < 4; ++quad) {
          fetch(dot[0][0]);
          const I32x16 packed0 = loadInt(record + quad * 128);
          const I32x16 packed1 = loadInt(record + quad * 128 + 64);
#pragma GCC unroll 8
          for (int r = 0; r < kRows; ++r) {
            const I32x16 a = broadcastBytes(codes + r * stride + quad * 4);
            dot[r][0] = dotU8S8<true>(dot[r][0], packed0 & mask, a);
            dot[r][1] = dotU8S8<true>(dot[r][1], packed1 & mask, a);
          }
          fetch(dot[0][0]);
#pragma GCC unroll 8
          for (int r = 0; r < kRows; ++r) {
            const I32x16 a = broadcastBytes(codes + r * stride + quad * 4 + 16);
            dot[r][0] = dotU8S8<true>(dot[r][0], shiftRight<4>(packed0) & mask, a);
            dot[r][1] = dotU8S8<true>(dot[r][1], shiftRight<4>(packed1) & mask, a);
          }
        }
      } else {
#pragma GCC unroll 8
        for (int quad = sub * (8 / kSubs); quad < (sub + 1) * (8 / kSubs); ++quad) {
          fetch(dot[0][0]);
          const I32x16 w0 = loadInt(record + quad * 128);
          const I32x16 w1 = loadInt(record + quad * 128 + 64);
#pragma GCC unroll 8
          for (int r = 0; r < kRows; ++r) {
            const I32x16 a = broadcastBytes(codes + r * stride + quad * 4);
            dot[r][0] = dotU8S8<false>(dot[r][0], w0, a);
            dot[r][1] = dotU8S8<false>(dot[r][1], w1, a);
          }
          fetch(dot[0][0]);
        }
      }
      // Dots are exact; then two roundings in a fixed order.
      const F32x16 d0 = loadScale(scales + sub * vectorBytes, wide, 0);
      const F32x16 d1 = loadScale(scales + sub * vectorBytes, wide, 1);
      fetch(dot[0][0]);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const F32x16 factor = splat(*reinterpret_cast<const float*>(da + r * stride));
        sum[r][0] = fma(toFloat(dot[r][0]), d0 * factor, sum[r][0]);
        sum[r][1] = fma(toFloat(dot[r][1]), d1 * factor, sum[r][1]);
      }
      if (hasMin) {
        const uint8_t* minima = scales + (kSubs + sub) * vectorBytes;
        const F32x16 m0 = loadScale(minima, wide, 0);
        const F32x16 m1 = loadScale(minima, wide, 1);
        fetch(dot[0][0]);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const F32x16 offset = splat(*reinterpret_cast<const float*>(offsets + r * stride));
          sum[r][0] = fma(m0, offset, sum[r][0]);
          sum[r][1] = fma(m1, offset, sum[r][1]);
        }
      }
      starts += 4;
      offsets += 4;
    }
    codes += 32;
    da += 4;
    record += recordBytes;
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    tile.sum[r][0] = sum[r][0];
    tile.sum[r][1] = sum[r][1];
  }
}

template <int kRows>
NVLM_INLINE void bf16Tile(LinearTile<kRows>& tile, const PackedSegment& weight, const uint8_t* panel, const PreparedRows& rows) {
  for (int r = 0; r < kRows; ++r) tile.sum[r][0] = tile.sum[r][1] = zero();
  for (int64_t step = 0; step < weight.records; ++step) {
    const I32x16 w0 = loadInt(panel + step * 128);
    const I32x16 w1 = loadInt(panel + step * 128 + 64);
    __builtin_prefetch(panel + step * 128 + kPrefetchBytes);
    __builtin_prefetch(panel + step * 128 + kPrefetchBytes + 64);
    for (int r = 0; r < kRows; ++r) {
      const I32x16 a = broadcastBytes(rows.row(r) + step * 4);
      tile.sum[r][0] = dotBf16(tile.sum[r][0], w0, a);
      tile.sum[r][1] = dotBf16(tile.sum[r][1], w1, a);
    }
  }
}

template <int kRows>
NVLM_INLINE void floatTile(LinearTile<kRows>& tile, const PackedSegment& weight, const uint8_t* panel, const float* x, int64_t stride) {
  for (int r = 0; r < kRows; ++r) tile.sum[r][0] = tile.sum[r][1] = zero();
  const float* w = reinterpret_cast<const float*>(panel);
  for (int64_t step = 0; step < weight.records; ++step, w += 32) {
    const F32x16 w0 = load(w), w1 = load(w + 16);
    __builtin_prefetch(reinterpret_cast<const uint8_t*>(w) + kPrefetchBytes);
    __builtin_prefetch(reinterpret_cast<const uint8_t*>(w) + kPrefetchBytes + 64);
    for (int r = 0; r < kRows; ++r) {
      const F32x16 a = splat(x[r * stride + step]);
      tile.sum[r][0] = fma(w0, a, tile.sum[r][0]);
      tile.sum[r][1] = fma(w1, a, tile.sum[r][1]);
    }
  }
}

template <int kRows>
NVLM_INLINE void finishTile(const PairOutput& output, int64_t firstRow, const LinearTile<kRows>& tile) {
  for (int r = 0; r < kRows; ++r) finishRow(output, firstRow + r, tile.sum[r][0], tile.sum[r][1]);
}

template <int kRows>
struct RowCount {
  static constexpr int value = kRows;
};

// Calls body with the RowCount of `rows`, of kMost where there are more; at least one.
template <int kMost, class Body>
NVLM_INLINE void withRowCount(int64_t rows, const Body& body) {
  if constexpr (kMost > 1) {
    if (rows < kMost) return withRowCount<kMost - 1>(rows, body);
  }
  body(RowCount<kMost>());
}

// Calls body(row, RowCount) for the tiles that cover `rows`, all but the last of kLinearTileRows.
template <class Body>
NVLM_INLINE void forRowTiles(int64_t rows, const Body& body) {
  for (int64_t row = 0; row < rows; row += kLinearTileRows) {
    withRowCount<kLinearTileRows>(rows - row, [&](auto count) NVLM_INLINE_LAMBDA { body(row, count); });
  }
}

// kU4 records as kU8: codes one to a byte, scales copied.
inline void unpackRecords(const uint8_t* from, int64_t recordBytes, int64_t count, int64_t ahead, uint8_t* to) {
  const I32x16 mask = splatInt(0x0f0f0f0f);
  for (int64_t g = 0; g < count; ++g, from += recordBytes, to += recordBytes + 512) {
    for (int64_t line = 0; line < recordBytes; line += 64) __builtin_prefetch(from + ahead + line);
    for (int v = 0; v < 8; ++v) {
      const I32x16 packed = loadInt(from + v * 64);
      storeInt(to + v * 64, packed & mask);
      storeInt(to + 512 + v * 64, shiftRight<4>(packed) & mask);
    }
    for (int64_t b = 512; b < recordBytes; b += 64) storeInt(to + 512 + b, loadInt(from + b));
  }
}

}  // namespace nvlm::NVLM_PATH
