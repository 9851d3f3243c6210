// The linear op on multiply-adds of fp32, for paths without dot products of bf16: a matrix product blocked as by Goto and van de Geijn
// (Anatomy of High-Performance Matrix Multiplication, 2008). bf16 weights are widened in registers, which costs nothing beside the
// multiply-adds of a full tile.
//
// Activations are prepared as fp32 (rounded to bf16 where a segment's weights are), in tiles of kWideRows rows with the rows of a
// tile side by side: value k of row r of a tile of n rows at k * n + r. K is cut into chunks, the rows into blocks and the pairs
// into groups, so that a chunk of one block of channels stays in the first-level cache and a block of rows in the second-level one.
// Sums wait in the lane's scratch from one chunk to the next and are exact copies there: an output is one chain of multiply-adds
// over ascending K, whatever the blocking and the number of rows.
#pragma once
#include "linear_tile.h"

namespace nvlm::NVLM_PATH {

// Rows of a register tile of one block of 16 channels.
#if defined(__AVX2__)
constexpr int kWideRows = 6;
#else
constexpr int kWideRows = 2;
#endif
// So few rows are bound by memory: both blocks of a pair at once, in one pass over its panel.
constexpr int kStreamedRows = kWideRows / 2;

constexpr int64_t kChunkValues = 512;  // of K
constexpr int64_t kBlockRows = 48;
constexpr int64_t kGroupPairs = 8;
static_assert(kBlockRows % kWideRows == 0);
static_assert(kBlockRows * kGroupPairs * kPairChannels * 4 <= kTileScratchBytes);

// Prepared activations of all rows: tiles of kWideRows rows, the last with what is left.
struct WideRows {
  const float* base;
  int64_t values;  // K with its padding
  int64_t rows;

  NVLM_INLINE const float* tile(int64_t row) const { return base + row * values; }
};

// sum[r][b] gains `panels` 128-byte steps of a pair's panel times the values of row r; `block` is the first of kBlocks blocks of
// channels. Touches a line every step from `ahead` on, `aheadBytes` apart.
template <bool kBf16, int kRows, int kBlocks>
NVLM_INLINE void wideSteps(F32x16 (&sum)[kRows][kBlocks], const uint8_t* panel, const float* x, int64_t steps,
                           const uint8_t* ahead, int64_t aheadBytes) {
  for (int64_t step = 0; step < steps; ++step, panel += 128, ahead += aheadBytes) {
    if constexpr (kBlocks == 1) {
      __builtin_prefetch(ahead, 0, 2);
    } else {
      __builtin_prefetch(ahead);
      __builtin_prefetch(ahead + 64);
    }
    if constexpr (kBf16) {
      for (int b = 0; b < kBlocks; ++b) {
        const F32x16 even = evenBf16(loadInt(panel + 64 * b));
        for (int r = 0; r < kRows; ++r) accumulate(sum[r][b], even, splat(x[r]));
      }
      for (int b = 0; b < kBlocks; ++b) {
        const F32x16 odd = oddBf16(loadInt(panel + 64 * b));
        for (int r = 0; r < kRows; ++r) accumulate(sum[r][b], odd, splat(x[kRows + r]));
      }
      x += 2 * kRows;
    } else {
      for (int b = 0; b < kBlocks; ++b) {
        const F32x16 w = load(reinterpret_cast<const float*>(panel) + 16 * b);
        for (int r = 0; r < kRows; ++r) accumulate(sum[r][b], w, splat(x[r]));
      }
      x += kRows;
    }
  }
}

// One chunk of one tile and block of channels; `sums` are kPairChannels floats apart, and hold nothing yet when isFirst.
template <bool kBf16, int kRows>
void wideTile(const uint8_t* panel, const float* x, int64_t steps, bool isFirst, float* sums, const uint8_t* ahead,
              int64_t aheadBytes) {
  F32x16 sum[kRows][1];
  for (int r = 0; r < kRows; ++r) sum[r][0] = isFirst ? zero() : load(sums + r * kPairChannels);
  wideSteps<kBf16, kRows, 1>(sum, panel, x, steps, ahead, aheadBytes);
  for (int r = 0; r < kRows; ++r) store(sums + r * kPairChannels, sum[r][0]);
}

// All of a pair for at most kStreamedRows rows.
template <bool kBf16, int kRows>
void streamPair(const PackedSegment& segment, const uint8_t* panel, const WideRows& rows, const PairOutput& output) {
  F32x16 sum[kRows][2];
  for (int r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = zero();
  wideSteps<kBf16, kRows, 2>(sum, panel, rows.base, segment.records, panel + kPrefetchBytes, 128);
  for (int r = 0; r < kRows; ++r) finishRow(output, r, sum[r][0], sum[r][1]);
}

// Pairs [pairBegin, pairEnd) of a segment for rows [rowBegin, rowEnd), which are tiles but for the last: at most kGroupPairs and
// kBlockRows of them. `outputOf(pair)` is the pair's PairOutput; `scratch` has kTileScratchBytes.
template <bool kBf16, class OutputOf>
void wideBlock(const PackedSegment& segment, int64_t pairBegin, int64_t pairEnd, const WideRows& rows, int64_t rowBegin, int64_t rowEnd,
               uint8_t* scratch, const OutputOf& outputOf) {
  constexpr int64_t kChunkSteps = kBf16 ? kChunkValues / 2 : kChunkValues;
  float* const sums = reinterpret_cast<float*>(scratch);
  const int64_t blockRows = rowEnd - rowBegin;
  const int64_t tiles = (blockRows + kWideRows - 1) / kWideRows;
  const int64_t panelBytes = segment.records * 128;
  for (int64_t first = 0; first < segment.records; first += kChunkSteps) {
    const int64_t steps = segment.records - first < kChunkSteps ? segment.records - first : kChunkSteps;
    const int64_t value = kBf16 ? 2 * first : first;
    for (int64_t pair = pairBegin; pair < pairEnd; ++pair) {
      const uint8_t* panel = segment.data + pair * panelBytes + first * 128;
      // What is read after this chunk, fetched evenly while this one is multiplied.
      const uint8_t* next = pair + 1 < pairEnd ? panel + panelBytes : segment.data + pairBegin * panelBytes + (first + steps) * 128;
      const int64_t aheadBytes = (128 + 2 * tiles - 1) / (2 * tiles);
      float* const pairSums = sums + (pair - pairBegin) * blockRows * kPairChannels;
      for (int block = 0; block < 2; ++block) {
        for (int64_t tile = 0; tile < tiles; ++tile) {
          const int64_t row = rowBegin + tile * kWideRows;
          withRowCount<kWideRows>(rowEnd - row, [&](auto count) NVLM_INLINE_LAMBDA {
            constexpr int kRows = decltype(count)::value;
            wideTile<kBf16, kRows>(panel + 64 * block, rows.tile(row) + value * kRows, steps, first == 0,
                                   pairSums + tile * kWideRows * kPairChannels + 16 * block, next, aheadBytes);
          });
          next += steps * aheadBytes;
        }
      }
    }
  }
  for (int64_t pair = pairBegin; pair < pairEnd; ++pair) {
    const PairOutput output = outputOf(pair);
    const float* from = sums + (pair - pairBegin) * blockRows * kPairChannels;
    for (int64_t r = 0; r < blockRows; ++r, from += kPairChannels) finishRow(output, rowBegin + r, load(from), load(from + 16));
  }
}

NVLM_INLINE Division wideDivision(int64_t pairs, int64_t rows) {
  if (rows <= kStreamedRows) return {pairs, 1};
  const int64_t most = rows <= kBlockRows / 2 ? kGroupPairs / 2 : kGroupPairs;
  return {(pairs + most - 1) / most, (rows + kBlockRows - 1) / kBlockRows};
}

// Item `item` of a segment's division, those of one group of pairs being neighbours.
template <bool kBf16, class OutputOf>
void wideItem(const PackedSegment& segment, const Division& division, int64_t item, const WideRows& rows, uint8_t* scratch,
              const OutputOf& outputOf) {
  const int64_t group = item / division.rowBlocks, rowBlock = item % division.rowBlocks;
  const int64_t pairBegin = segment.pairs * group / division.groups, pairEnd = segment.pairs * (group + 1) / division.groups;
  if (rows.rows <= kStreamedRows) {
    const uint8_t* panel = segment.data + pairBegin * segment.records * 128;
    return withRowCount<kStreamedRows>(rows.rows, [&](auto count) NVLM_INLINE_LAMBDA {
      streamPair<kBf16, decltype(count)::value>(segment, panel, rows, outputOf(pairBegin));
    });
  }
  const int64_t rowBegin = division.rowBegin(rowBlock, rows.rows, kWideRows);
  const int64_t rowEnd = division.rowBegin(rowBlock + 1, rows.rows, kWideRows);
  wideBlock<kBf16>(segment, pairBegin, pairEnd, rows, rowBegin, rowEnd, scratch, outputOf);
}

// Writes rows [begin, end) of the prepared activations; begin is a multiple of kWideRows, and so is end unless it is `rows`.
inline void prepareWideRows(const float* x, int64_t k, int64_t rows, int64_t begin, int64_t end, bool rounded, float* out) {
  const int64_t values = (k + 31) / 32 * 32;
  for (int64_t first = begin; first < end; first += kWideRows) {
    const int64_t count = rows - first < kWideRows ? rows - first : kWideRows;
    float* to = out + first * values;
    for (int64_t i = 0; i < values; i += kLanes, to += kLanes * count) {
      alignas(64) float lanes[kWideRows][kLanes];
      const int n = k - i >= kLanes ? kLanes : k > i ? static_cast<int>(k - i) : 0;
      for (int64_t r = 0; r < count; ++r) {
        const F32x16 value = n > 0 ? loadPartial(x + (first + r) * k + i, n) : zero();
        store(lanes[r], rounded ? roundToBf16(value) : value);
      }
      for (int64_t r = 0; r < count; ++r) {
        for (int j = 0; j < kLanes; ++j) to[j * count + r] = lanes[r][j];
      }
    }
  }
}

}  // namespace nvlm::NVLM_PATH
