// The linear op on AMX tiles: 16 or, of bf16, 32 rows by one pair of channel blocks at a time. Integer dots are exact, so they mix freely
// with the vector kernels; bf16 dots round in the order of the tile unit, so on this path every number of rows goes through it.
#pragma once
#include "amx.h"
#include "linear_tile.h"

namespace nvlm::NVLM_PATH {

// From here on tiles beat vectors: with a scale for every 32 values a tile's dots are half its depth and go through memory. On a Granite
// Rapids a step of 16 rows takes an eighth more with them, one of 32 as long, of 100 a tenth less.
constexpr int64_t kAmxIntegerRows = 32;
static_assert(kUnpackRows <= kAmxIntegerRows);
constexpr int kAmxRows = 16;

// Steps of K whose dots wait in the first-level cache, beside the panel and the activations, to be scaled together: while tiles are
// under way, vectors of 64 bytes have one of their two multipliers. On a Granite Rapids, 434 rows in ns for a row of 16 channels and a
// record: 1.62 by 6 steps, 1.74 by 9, 1.77 and more where each step is scaled at once, 1.96 without tiles.
constexpr int kAmxChunkSteps = 6;
constexpr int64_t kAmxDotBytes = kAmxRows * 64;  // of one block

// The dots of both blocks over steps [first, end) of K, which are a record's or, with two scales for each, half of one: a step's are
// 2 * kAmxDotBytes, the first block's before the second's.
NVLM_INLINE void amxDots(Tiles& tiles, const PackedSegment& weight, const uint8_t* panel, int64_t recordBytes, const PreparedRows& rows,
                         int64_t first, int64_t end, uint8_t* dots) {
  const int subs = weight.subs, stepBytes = 32 / subs;
  const auto dot = [&]<int kSum>(int64_t step) NVLM_INLINE_LAMBDA {
    const uint8_t* codes = panel + step / subs * recordBytes + step % subs * 512;
    tiles.load<4>(rows.base + step * stepBytes, rows.stride);
    tiles.load<6>(codes, 128);
    tiles.load<7>(codes + 64, 128);
    tiles.clear<kSum>();
    tiles.clear<kSum + 1>();
    tiles.dotBytes<kSum, 4, 6>();
    tiles.dotBytes<kSum + 1, 4, 7>();
  };
  const auto put = [&]<int kSum>(int64_t step) NVLM_INLINE_LAMBDA {
    uint8_t* to = dots + (step - first) * 2 * kAmxDotBytes;
    tiles.store<kSum>(to, 64);
    tiles.store<kSum + 1>(to + kAmxDotBytes, 64);
  };
  // A step behind, so that a store does not wait for its own dots.
  dot.template operator()<0>(first);
  int64_t step = first + 1;
  for (; step + 1 < end; step += 2) {
    dot.template operator()<2>(step);
    put.template operator()<0>(step - 1);
    dot.template operator()<0>(step + 1);
    put.template operator()<2>(step);
  }
  if (step < end) dot.template operator()<2>(step);
  put.template operator()<0>(step - 1);
  if (step < end) put.template operator()<2>(step);
}

// One block's sums (16, 16) gain the scaled dots of steps [first, end): the arithmetic of integerTile. kStart says that the segment's
// zero is not 0.
template <bool kStart>
void amxScale(const PackedSegment& weight, const uint8_t* panel, int64_t recordBytes, const PreparedRows& rows, int block, int64_t first,
              int64_t end, const uint8_t* dots, float* sums) {
  const int subs = weight.subs;
  const int64_t vectorBytes = weight.wideScales ? 128 : 64;
  F32x16 sum[kAmxRows];
#pragma GCC unroll 16
  for (int r = 0; r < kAmxRows; ++r) sum[r] = first == 0 ? zero() : load(sums + r * kLanes);
  for (int64_t step = first; step < end; ++step, dots += 2 * kAmxDotBytes) {
    const int64_t record = step / subs, sub = step % subs;
    const uint8_t* scales = panel + record * recordBytes + 1024;
    const F32x16 d = loadScale(scales + sub * vectorBytes, weight.wideScales, block);
    const uint8_t* const da = rows.base + rows.scales + 4 * record;
#pragma GCC unroll 16
    for (int r = 0; r < kAmxRows; ++r) {
      I32x16 dot = loadInt(dots + r * 64);
      if constexpr (kStart) dot = dot + broadcastBytes(rows.row(r) + rows.starts + 4 * step);
      sum[r] = fma(toFloat(dot), d * splat(*reinterpret_cast<const float*>(da + r * rows.stride)), sum[r]);
    }
    if (weight.hasMin) {
      const F32x16 m = loadScale(scales + (subs + sub) * vectorBytes, weight.wideScales, block);
      const uint8_t* const offsets = rows.base + rows.offsets + 4 * step;
#pragma GCC unroll 16
      for (int r = 0; r < kAmxRows; ++r) sum[r] = fma(m, splat(*reinterpret_cast<const float*>(offsets + r * rows.stride)), sum[r]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kAmxRows; ++r) store(sums + r * kLanes, sum[r]);
}

// A multiple of kAmxRows rows. `scratch` has kTileScratchBytes: sums (2 blocks, 16, 16), then the dots of a chunk of steps.
inline void amxIntegerPair(Tiles& tiles, const PackedSegment& weight, const uint8_t* panel, int64_t recordBytes,
                           const PreparedRows& rows, int64_t rowCount, const PairOutput& output, uint8_t* scratch) {
  constexpr int kBlockSums = kAmxRows * kLanes;
  float* const sums = reinterpret_cast<float*>(scratch);
  uint8_t* const dots = scratch + 2 * kBlockSums * sizeof(float);
  const int64_t steps = weight.records * weight.subs;
  const auto scale = weight.zero == 0 ? amxScale<false> : amxScale<true>;
  tiles.configure(kAmxRows, 32 / weight.subs);
  for (int64_t row = 0; row < rowCount; row += kAmxRows) {
    const PreparedRows from = rows.from(row);
    for (int64_t first = 0; first < steps; first += kAmxChunkSteps) {
      const int64_t end = first + kAmxChunkSteps < steps ? first + kAmxChunkSteps : steps;
      amxDots(tiles, weight, panel, recordBytes, from, first, end, dots);
      for (int block = 0; block < 2; ++block) {
        scale(weight, panel, recordBytes, from, block, first, end, dots + block * kAmxDotBytes, sums + block * kBlockSums);
      }
    }
    for (int r = 0; r < kAmxRows; ++r) {
      finishRow(output, row + r, load(sums + r * kLanes), load(sums + kBlockSums + r * kLanes));
    }
  }
}

// One or two tiles of rows at a time. `scratch` has kTileScratchBytes: the sums (32, 32) fp32.
inline void amxBf16Pair(Tiles& tiles, const PackedSegment& weight, const uint8_t* panel, const PreparedRows& rows,
                        int64_t rowCount, const PairOutput& output, uint8_t* scratch) {
  constexpr int64_t kRowBytes = kPairChannels * 4;
  const float* sums = reinterpret_cast<const float*>(scratch);
  tiles.configure(rowCount < kAmxRows ? static_cast<int>(rowCount) : kAmxRows, 64);
  for (int64_t row = 0; row < rowCount; row += 2 * kAmxRows) {
    const int64_t left = rowCount - row < 2 * kAmxRows ? rowCount - row : 2 * kAmxRows;
    const bool two = left > kAmxRows;
    const PreparedRows from = rows.from(row);
    tiles.clear<0>();
    tiles.clear<1>();
    tiles.clear<2>();
    tiles.clear<3>();
    // The first rows' panel comes from memory, the others' from a cache.
    const auto fetch = [&](const uint8_t* lines) NVLM_INLINE_LAMBDA {
      if (row > 0) return;
      for (int64_t line = 0; line < 512; line += 64) {
        __builtin_prefetch(lines + kNearBytes + line);
        __builtin_prefetch(lines + kFarBytes + line, 0, 2);
      }
    };
    for (int64_t step = 0; step < weight.records / 16; ++step) {
      const uint8_t* weights = panel + step * 16 * 128;
      fetch(weights);
      tiles.load<4>(from.base + step * 64, from.stride);
      tiles.load<6>(weights, 128);
      fetch(weights + 512);
      tiles.load<7>(weights + 64, 128);
      fetch(weights + 1024);
      tiles.dotBf16Pairs<0, 4, 6>();
      fetch(weights + 1536);
      tiles.dotBf16Pairs<1, 4, 7>();
      if (two) {
        tiles.load<5>(from.base + kAmxRows * from.stride + step * 64, from.stride);
        tiles.dotBf16Pairs<2, 5, 6>();
        tiles.dotBf16Pairs<3, 5, 7>();
      }
    }
    tiles.store<0>(scratch, kRowBytes);
    tiles.store<1>(scratch + 64, kRowBytes);
    if (two) {
      tiles.store<2>(scratch + kAmxRows * kRowBytes, kRowBytes);
      tiles.store<3>(scratch + kAmxRows * kRowBytes + 64, kRowBytes);
    }
    for (int64_t r = 0; r < left; ++r) {
      const float* of = sums + r * kPairChannels;
      finishRow(output, row + r, load(of), load(of + kLanes));
    }
  }
}

}  // namespace nvlm::NVLM_PATH
