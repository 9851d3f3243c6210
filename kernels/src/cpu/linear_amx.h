// The linear op on AMX tiles: 32 rows by one pair of channel blocks at a time. Integer dots are exact, so they mix freely with the
// vector kernels; bf16 dots round in the order of the tile unit, so on this path every number of rows goes through it.
#pragma once
#include "amx.h"
#include "linear_tile.h"

namespace nvlm::NVLM_PATH {

// From here on tiles beat vectors: with a scale for every 32 values a tile's dots are half its depth and go through memory. On an Emerald
// Rapids 16 rows took 141 ns a record where vectors took 129, 32 rows as long as they, 512 rows mostly a tenth to a third less.
constexpr int64_t kAmxIntegerRows = 32;
static_assert(kUnpackRows <= kAmxIntegerRows);
constexpr int kAmxRows = 16;

// Rows of activations of a chunk: one or two tiles.
struct AmxChunk {
  int64_t row;
  int rows;
  bool two;
};

template <class Body>
NVLM_INLINE void forAmxChunks(int64_t rowCount, const Body& body) {
  for (int64_t row = 0; row < rowCount; row += 2 * kAmxRows) {
    const int64_t left = rowCount - row;
    const int rows = static_cast<int>(left < 2 * kAmxRows ? left : 2 * kAmxRows);
    body(AmxChunk{row, rows, rows > kAmxRows});
  }
}

// The four sums to memory, (32, 32) of 4 bytes.
NVLM_INLINE void storeSums(const Tiles& tiles, bool two, uint8_t* out) {
  tiles.store<0>(out, 128);
  tiles.store<1>(out + 64, 128);
  if (two) {
    tiles.store<2>(out + kAmxRows * 128, 128);
    tiles.store<3>(out + kAmxRows * 128 + 64, 128);
  }
}

// `scratch` has kTileScratchBytes: sums (32, 32) fp32, then dots of the same shape. Same arithmetic as integerTile.
inline void amxIntegerPair(Tiles& tiles, const PackedSegment& weight, const uint8_t* panel, int64_t recordBytes,
                           const PreparedRows& rows, int64_t rowCount, const PairOutput& output, uint8_t* scratch) {
  const int subs = weight.subs;
  const int stepBytes = 32 / subs;
  const int64_t vectorBytes = weight.wideScales ? 128 : 64;
  float* sums = reinterpret_cast<float*>(scratch);
  uint8_t* dots = scratch + 32 * 32 * 4;
  tiles.configure(rowCount < kAmxRows ? static_cast<int>(rowCount) : kAmxRows, stepBytes);
  forAmxChunks(rowCount, [&](const AmxChunk& chunk) NVLM_INLINE_LAMBDA {
    const PreparedRows from = rows.from(chunk.row);
    std::memset(sums, 0, 32 * 32 * 4);
    for (int64_t g = 0; g < weight.records; ++g) {
      const uint8_t* record = panel + g * recordBytes;
      const uint8_t* scales = record + 1024;
      for (int sub = 0; sub < subs; ++sub) {
        const uint8_t* codes = record + sub * 512;
        tiles.load<6>(codes, 128);
        tiles.load<7>(codes + 64, 128);
        const uint8_t* activations = from.base + g * 32 + sub * stepBytes;
        tiles.load<4>(activations, from.stride);
        tiles.clear<0>();
        tiles.clear<1>();
        tiles.dotBytes<0, 4, 6>();
        tiles.dotBytes<1, 4, 7>();
        if (chunk.two) {
          tiles.load<5>(activations + kAmxRows * from.stride, from.stride);
          tiles.clear<2>();
          tiles.clear<3>();
          tiles.dotBytes<2, 5, 6>();
          tiles.dotBytes<3, 5, 7>();
        }
        storeSums(tiles, chunk.two, dots);
        const F32x16 d0 = loadScale(scales + sub * vectorBytes, weight.wideScales, 0);
        const F32x16 d1 = loadScale(scales + sub * vectorBytes, weight.wideScales, 1);
        const uint8_t* minima = scales + (subs + sub) * vectorBytes;
        const F32x16 m0 = weight.hasMin ? loadScale(minima, weight.wideScales, 0) : zero();
        const F32x16 m1 = weight.hasMin ? loadScale(minima, weight.wideScales, 1) : zero();
        const int64_t meta = g * subs + sub;
        for (int r = 0; r < chunk.rows; ++r) {
          const uint8_t* row = from.row(r);
          const I32x16 start = broadcastBytes(row + from.starts + 4 * meta);
          const F32x16 da = splat(reinterpret_cast<const float*>(row + from.scales)[g]);
          F32x16 s0 = load(sums + r * 32), s1 = load(sums + r * 32 + 16);
          s0 = fma(toFloat(loadInt(dots + r * 128) + start), d0 * da, s0);
          s1 = fma(toFloat(loadInt(dots + r * 128 + 64) + start), d1 * da, s1);
          if (weight.hasMin) {
            const F32x16 offset = splat(reinterpret_cast<const float*>(row + from.offsets)[meta]);
            s0 = fma(m0, offset, s0);
            s1 = fma(m1, offset, s1);
          }
          store(sums + r * 32, s0);
          store(sums + r * 32 + 16, s1);
        }
      }
    }
    for (int r = 0; r < chunk.rows; ++r) {
      finishRow(output, chunk.row + r, load(sums + r * 32), load(sums + r * 32 + 16));
    }
  });
}

inline void amxBf16Pair(Tiles& tiles, const PackedSegment& weight, const uint8_t* panel, const PreparedRows& rows,
                        int64_t rowCount, const PairOutput& output, uint8_t* scratch) {
  const float* sums = reinterpret_cast<const float*>(scratch);
  tiles.configure(rowCount < kAmxRows ? static_cast<int>(rowCount) : kAmxRows, 64);
  forAmxChunks(rowCount, [&](const AmxChunk& chunk) NVLM_INLINE_LAMBDA {
    const PreparedRows from = rows.from(chunk.row);
    tiles.clear<0>();
    tiles.clear<1>();
    tiles.clear<2>();
    tiles.clear<3>();
    for (int64_t step = 0; step < weight.records / 16; ++step) {
      const uint8_t* weights = panel + step * 16 * 128;
      tiles.load<4>(from.base + step * 64, from.stride);
      tiles.load<6>(weights, 128);
      tiles.load<7>(weights + 64, 128);
      tiles.dotBf16Pairs<0, 4, 6>();
      tiles.dotBf16Pairs<1, 4, 7>();
      if (chunk.two) {
        tiles.load<5>(from.base + kAmxRows * from.stride + step * 64, from.stride);
        tiles.dotBf16Pairs<2, 5, 6>();
        tiles.dotBf16Pairs<3, 5, 7>();
      }
    }
    storeSums(tiles, chunk.two, scratch);
    for (int r = 0; r < chunk.rows; ++r) {
      finishRow(output, chunk.row + r, load(sums + r * 32), load(sums + r * 32 + 16));
    }
  });
}

}  // namespace nvlm::NVLM_PATH
