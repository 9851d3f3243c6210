// out = epilogue(x W^T + bias) (* scale) (+ residual): prepares the activations, then divides the pairs of channels among the threads.
#include "linear.h"

#include "kernels.h"
#include "linear_tile.h"
#if defined(NVLM_AMX)
#include "linear_amx.h"
#endif

namespace nvlm::NVLM_PATH {

#if !defined(NVLM_AMX)
struct Tiles {};
#endif

namespace {

NVLM_INLINE int64_t segmentMetaOffset(const PackedLinear& weight, int segment, int64_t* starts) {
  const int64_t records = (weight.k + kGroup - 1) / kGroup;
  int64_t offset = records * 36;
  for (int s = 0; s < segment; ++s) offset += records * weight.segments[s].subs * 8;
  *starts = offset;
  return offset + records * weight.segments[segment].subs * 4;
}

// Quantises one row to int8 per group of 32, the values beyond K being zero, and sums each group for every segment.
void prepareIntegerRow(const PackedLinear& weight, const float* x, uint8_t* row) {
  const int64_t records = (weight.k + kGroup - 1) / kGroup;
  int8_t* codes = reinterpret_cast<int8_t*>(row);
  float* scales = reinterpret_cast<float*>(row + records * 32);
  for (int64_t g = 0; g < records; ++g) {
    const int64_t left = weight.k - g * 32;
    F32x16 low, high;
    if (left >= 32) {
      low = load(x + g * 32);
      high = load(x + g * 32 + 16);
    } else {
      low = loadPartial(x + g * 32, left < 16 ? static_cast<int>(left) : 16);
      high = loadPartial(x + g * 32 + 16 * (left > 16), left > 16 ? static_cast<int>(left - 16) : 0);
    }
    const float largest = horizontalMax(max(abs(low), abs(high)));
    const float inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
    const F32x16 factor = splat(inverse);
    // The bounds change no number; infinity times zero and NaN get a code, so that the sums below stay integers.
    const F32x16 least = splat(-127.0f), most = splat(127.0f);
    const I32x16 lowCodes = roundToInt(min(max(low * factor, least), most));
    const I32x16 highCodes = roundToInt(min(max(high * factor, least), most));
    storeInt8(codes + g * 32, lowCodes);
    storeInt8(codes + g * 32 + 16, highCodes);
    // Zero times the sum is zero unless a value is infinite or NaN; then every output of the row becomes NaN, as it should.
    const float poison = horizontalSum(low + high) * 0.0f;
    const float scale = largest * (1.0f / 127.0f) + poison;
    scales[g] = scale;
    // At most 32 * 127: exact in fp32.
    const float lowSum = horizontalSum(toFloat(lowCodes));
    const float highSum = horizontalSum(toFloat(highCodes));
    for (int s = 0; s < weight.segmentCount; ++s) {
      const PackedSegment& segment = weight.segments[s];
      if (segment.kind != PackedKind::kU8 && segment.kind != PackedKind::kU4) continue;
      int64_t startsOffset;
      const int64_t offsetsOffset = segmentMetaOffset(weight, s, &startsOffset);
      int32_t* starts = reinterpret_cast<int32_t*>(row + startsOffset);
      float* offsets = reinterpret_cast<float*>(row + offsetsOffset);
      if (segment.subs == 2) {
        starts[2 * g] = -segment.zero * static_cast<int32_t>(lowSum);
        starts[2 * g + 1] = -segment.zero * static_cast<int32_t>(highSum);
        offsets[2 * g] = scale * lowSum;
        offsets[2 * g + 1] = scale * highSum;
      } else {
        starts[g] = -segment.zero * static_cast<int32_t>(lowSum + highSum);
        offsets[g] = scale * (lowSum + highSum);
      }
    }
  }
}

void prepareBf16Row(const PackedLinear& weight, const float* x, uint8_t* row) {
  uint16_t* out = reinterpret_cast<uint16_t*>(row);
  const int64_t padded = (weight.k + 31) / 32 * 32;
  int64_t i = 0;
  for (; i + 16 <= weight.k; i += 16) storeBf16(out + i, load(x + i));
  for (; i < padded; i += 16) {
    const int64_t left = weight.k - i;
    storeBf16(out + i, left > 0 ? loadPartial(x + i, static_cast<int>(left)) : zero());
  }
}

void prepareRows(const LinearArgs& args, int64_t begin, int64_t end, uint8_t* prepared) {
  const PackedLinear& weight = *args.weight;
  for (int64_t r = begin; r < end; ++r) {
    uint8_t* row = prepared + r * weight.preparedRowBytes;
    if (weight.integer) prepareIntegerRow(weight, args.x + r * weight.k, row);
    if (weight.bfloat16) prepareBf16Row(weight, args.x + r * weight.k, row + weight.bf16Offset);
  }
}

// A kU4 panel as kU8: codes one to a byte, scales copied.
void unpackPanel(const PackedSegment& segment, const uint8_t* panel, uint8_t* out) {
  const I32x16 mask = splatInt(0x0f0f0f0f);
  const int64_t scaleBytes = segment.recordBytes - 512;
  for (int64_t g = 0; g < segment.records; ++g) {
    for (int64_t line = 0; line < segment.recordBytes; line += 64) __builtin_prefetch(panel + kPrefetchBytes + line);
    for (int v = 0; v < 8; ++v) {
      const I32x16 packed = loadInt(panel + v * 64);
      storeInt(out + v * 64, packed & mask);
      storeInt(out + 512 + v * 64, shiftRight<4>(packed) & mask);
    }
    for (int64_t b = 0; b < scaleBytes; b += 64) storeInt(out + 1024 + b, loadInt(panel + 512 + b));
    panel += segment.recordBytes;
    out += 1024 + scaleBytes;
  }
}

// All rows of one pair of an integer segment.
void integerPair(const PackedSegment& segment, const uint8_t* panel, const PreparedRows& rows, int64_t rowCount,
                 [[maybe_unused]] int64_t panelScratch,
                 const PairOutput& output, const Lane& lane, [[maybe_unused]] Tiles& tiles) {
  int64_t recordBytes = segment.recordBytes;
  bool nibbles = segment.kind == PackedKind::kU4;
  bool streamed = true;
  if (nibbles && rowCount >= kUnpackRows) {
    streamed = false;
    unpackPanel(segment, panel, lane.scratch);
    panel = lane.scratch;
    recordBytes += 512;
    nibbles = false;
  }
#if defined(NVLM_AMX)
  if (rowCount >= kAmxIntegerRows && !nibbles) {
    amxIntegerPair(tiles, segment, panel, recordBytes, rows, rowCount, output, lane.scratch + panelScratch);
    return;
  }
#endif
  forRowTiles(rowCount, [&](int64_t row, auto count) NVLM_INLINE_LAMBDA {
    constexpr int kRows = decltype(count)::value;
    LinearTile<kRows> tile;
    const PreparedRows from = rows.from(row);
    const int64_t ahead = streamed && row == 0 ? kPrefetchBytes : 0;
    if (nibbles) {
      integerTile<kRows, true, 1>(tile, segment, panel, recordBytes, ahead, from);
    } else if (segment.subs == 1) {
      integerTile<kRows, false, 1>(tile, segment, panel, recordBytes, ahead, from);
    } else {
      integerTile<kRows, false, 2>(tile, segment, panel, recordBytes, ahead, from);
    }
    finishTile<kRows>(output, row, tile);
  });
}

void bf16Pair(const PackedSegment& segment, const uint8_t* panel, const PreparedRows& rows, int64_t rowCount,
              const PairOutput& output, [[maybe_unused]] uint8_t* scratch, [[maybe_unused]] Tiles& tiles) {
#if defined(NVLM_AMX)
  amxBf16Pair(tiles, segment, panel, rows, rowCount, output, scratch);
#else
  forRowTiles(rowCount, [&](int64_t row, auto count) NVLM_INLINE_LAMBDA {
    constexpr int kRows = decltype(count)::value;
    LinearTile<kRows> tile;
    bf16Tile<kRows>(tile, segment, panel, rows.from(row));
    finishTile<kRows>(output, row, tile);
  });
#endif
}

void floatPair(const PackedSegment& segment, const uint8_t* panel, const float* x, int64_t stride, int64_t rowCount,
               const PairOutput& output) {
  forRowTiles(rowCount, [&](int64_t row, auto count) NVLM_INLINE_LAMBDA {
    constexpr int kRows = decltype(count)::value;
    LinearTile<kRows> tile;
    floatTile<kRows>(tile, segment, panel, x + row * stride, stride);
    finishTile<kRows>(output, row, tile);
  });
}

}  // namespace

void linear(const LinearArgs& args, const Lane& lane) {
  const PackedLinear& weight = *args.weight;
  if (args.rows == 0) return;
  const uint8_t* prepared = args.shared;
  if (weight.integer || weight.bfloat16) {
    if (args.rows <= kOwnRows || lane.count == 1) {
      uint8_t* own = args.rows <= kOwnRows
                         ? lane.scratch + weight.panelScratchBytes + kTileScratchBytes
                         : args.shared;
      prepareRows(args, 0, args.rows, own);
      prepared = own;
    } else {
      int64_t begin, end;
      lane.share(args.rows, &begin, &end);
      prepareRows(args, begin, end, args.shared);
      lane.sync();
    }
  }
  Tiles tiles;
  lane.divide(linearPairs(weight), [&](int64_t pair) {
    int s = 0;
    for (; pair >= weight.segments[s].pairs; ++s) pair -= weight.segments[s].pairs;
    const PackedSegment& segment = weight.segments[s];
    PreparedRows rows{prepared, weight.preparedRowBytes, (weight.k + kGroup - 1) / kGroup * 32, 0, 0};
    if (segment.kind == PackedKind::kBf16) {
      rows.base += weight.bf16Offset;
    } else {
      rows.offsets = segmentMetaOffset(weight, s, &rows.starts);
    }
    const int64_t width = weight.siluMul ? 16 : kPairChannels;
    const uint8_t* panel = segment.data + pair * segment.records * segment.recordBytes;
    const int64_t column = segment.outOffset + pair * width;
    const int64_t left = segment.outputs - pair * width;
    const PairOutput output{segment.bias ? segment.bias + pair * kPairChannels : nullptr,
                            segment.scale ? segment.scale + pair * kPairChannels : nullptr,
                            args.residual ? args.residual + column : nullptr,
                            args.out + column,
                            weight.n,
                            static_cast<int>(left < width ? left : width),
                            weight.siluMul,
                            weight.gelu};
    switch (segment.kind) {
      case PackedKind::kF32:
        floatPair(segment, panel, args.x, weight.k, args.rows, output);
        break;
      case PackedKind::kBf16:
        bf16Pair(segment, panel, rows, args.rows, output, lane.scratch + weight.panelScratchBytes, tiles);
        break;
      default:
        integerPair(segment, panel, rows, args.rows, weight.panelScratchBytes, output, lane, tiles);
    }
  });
}

}  // namespace nvlm::NVLM_PATH
