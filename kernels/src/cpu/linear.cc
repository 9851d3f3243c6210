// out = epilogue(x W^T + bias) (* scale) (+ residual): prepares the activations, then divides the pairs of channels among the threads.
#include "linear.h"

#include "kernels.h"
#include "linear_prepare.h"
#include "linear_tile.h"
#if defined(NVLM_AMX)
#include "linear_amx.h"
#endif
#if !defined(__AVX512F__)
#include "linear_wide.h"
#endif
#if defined(__AVX2__) && !defined(__AVX512F__)
#include "linear_short.h"
#endif

namespace nvlm::NVLM_PATH {

#if !defined(NVLM_AMX)
struct Tiles {};
#endif

namespace {

#if defined(__AVX512F__)
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
#endif

// Where the layouts of a step's prepared activations begin.
struct Prepared {
  uint8_t* base;
  int64_t integerStride;  // between int rows, and between bf16 rows
  uint8_t* bf16;
  uint8_t* float32;

  Prepared(const PackedLinear& weight, int64_t rows, uint8_t* memory) : base(memory) {
    if constexpr (kWideLinear) {
      integerStride = weight.integerRowBytes;
      bf16 = memory + rows * weight.integerRowBytes;
      float32 = bf16 + (weight.bfloat16 ? rows * ((weight.k + 31) / 32 * 128) : 0);
    } else {
      integerStride = weight.preparedRowBytes;
      bf16 = memory + weight.integerRowBytes;
      float32 = nullptr;
    }
  }
};

// Rows that are prepared together.
#if defined(__AVX512F__)
constexpr int64_t kPreparedTogether = 1;
#else
constexpr int64_t kPreparedTogether = kWideRows;
#endif

// Rows [begin, end), whole groups of those that are prepared together but for the last.
void prepareRows(const LinearArgs& args, int64_t begin, int64_t end, const Prepared& prepared, const Lane& lane) {
  const PackedLinear& weight = *args.weight;
  for (int64_t r = begin; r < end; ++r) {
    if (weight.integer) prepareIntegerRow(weight, args.x + r * weight.k, prepared.base + r * prepared.integerStride, lane);
#if defined(__AVX512F__)
    if (weight.bfloat16) prepareBf16Row(weight, args.x + r * weight.k, prepared.bf16 + r * prepared.integerStride);
#endif
  }
#if !defined(__AVX512F__)
  const auto wide = [&](bool rounded, uint8_t* out) {
    prepareWideRows(args.x, weight.k, args.rows, begin, end, rounded, reinterpret_cast<float*>(out));
  };
  if (weight.bfloat16) wide(true, prepared.bf16);
  if (weight.float32) wide(false, prepared.float32);
#endif
}

// One pair of an integer segment, for the rows of a block.
#if defined(__AVX2__) && !defined(__AVX512F__)
constexpr int64_t kIntegerTileRows = kShortRows;
Division integerDivision(int64_t pairs, int64_t rows) { return shortDivision(pairs, rows); }

void integerPair(const PackedSegment& segment, const uint8_t* panel, const PreparedRows& rows, int64_t rowCount, int64_t panelScratch,
                 const PairOutput& output, const Lane& lane, Tiles&) {
  const auto run = [&](auto pair) NVLM_INLINE_LAMBDA {
    pair(segment, panel, rows, rowCount, output, lane.scratch, lane.scratch + panelScratch);
  };
  if (segment.kind == PackedKind::kU4) {
    segment.zero == 0 ? run(shortPair<Codes::kNibbles, 1, false>) : run(shortPair<Codes::kNibbles, 1>);
  } else if (segment.zero == 128) {
    segment.subs == 1 ? run(shortPair<Codes::kSigned, 1>) : run(shortPair<Codes::kSigned, 2>);
  } else {
    segment.subs == 1 ? run(shortPair<Codes::kSmall, 1>) : run(shortPair<Codes::kSmall, 2>);
  }
}
#else
constexpr int64_t kIntegerTileRows = 1;
Division integerDivision(int64_t pairs, int64_t) { return {pairs, 1}; }

void integerPair(const PackedSegment& segment, const uint8_t* panel, const PreparedRows& rows, int64_t rowCount,
                 [[maybe_unused]] int64_t panelScratch,
                 const PairOutput& output, const Lane& lane, [[maybe_unused]] Tiles& tiles) {
  int64_t recordBytes = segment.recordBytes;
  bool nibbles = segment.kind == PackedKind::kU4;
  bool streamed = true;
  if (nibbles && rowCount >= kUnpackRows) {
    streamed = false;
    unpackRecords(panel, segment.recordBytes, segment.records, kPrefetchBytes, lane.scratch);
    panel = lane.scratch;
    recordBytes += 512;
    nibbles = false;
  }
  int64_t first = 0;
#if defined(NVLM_AMX)
  if (rowCount >= kAmxIntegerRows && !nibbles) {
    first = rowCount / kAmxRows * kAmxRows;
    streamed = false;
    amxIntegerPair(tiles, segment, panel, recordBytes, rows, first, output, lane.scratch + panelScratch);
  }
#endif
  forRowTiles(rowCount - first, [&](int64_t row, auto count) NVLM_INLINE_LAMBDA {
    constexpr int kRows = decltype(count)::value;
    LinearTile<kRows> tile;
    const PreparedRows from = rows.from(first + row);
    const auto run = [&]<bool kNibbles, int kSubs>() NVLM_INLINE_LAMBDA {
      if (streamed && row == 0) {
        integerTile<kRows, kNibbles, kSubs, true>(tile, segment, panel, recordBytes, from);
      } else {
        integerTile<kRows, kNibbles, kSubs, false>(tile, segment, panel, recordBytes, from);
      }
    };
    if (nibbles) {
      run.template operator()<true, 1>();
    } else if (segment.subs == 1) {
      run.template operator()<false, 1>();
    } else {
      run.template operator()<false, 2>();
    }
    finishTile<kRows>(output, first + row, tile);
  });
}
#endif

#if defined(__AVX512F__)
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
#endif

PairOutput outputOf(const LinearArgs& args, const PackedSegment& segment, int64_t pair) {
  const PackedLinear& weight = *args.weight;
  const int64_t width = weight.siluMul ? 16 : kPairChannels;
  const int64_t column = segment.outOffset + pair * width;
  const int64_t left = segment.outputs - pair * width;
  return {segment.bias ? segment.bias + pair * kPairChannels : nullptr,
          segment.scale ? segment.scale + pair * kPairChannels : nullptr,
          args.residual ? args.residual + column : nullptr,
          args.out + column,
          weight.n,
          static_cast<int>(left < width ? left : width),
          weight.siluMul,
          weight.gelu};
}

Division divisionOf(const PackedSegment& segment, int64_t rows) {
#if !defined(__AVX512F__)
  if (segment.kind == PackedKind::kBf16 || segment.kind == PackedKind::kF32) return wideDivision(segment.pairs, rows);
#endif
  return integerDivision(segment.pairs, rows);
}

}  // namespace

void linear(const LinearArgs& args, const Lane& lane) {
  const PackedLinear& weight = *args.weight;
  if (args.rows == 0) return;
  uint8_t* memory = args.rows <= kOwnRows ? lane.scratch + weight.panelScratchBytes + kTileScratchBytes : args.shared;
  const Prepared prepared(weight, args.rows, memory);
  if (weight.preparedRowBytes > 0) {
    if (args.rows <= kOwnRows || lane.count == 1) {
      prepareRows(args, 0, args.rows, prepared, lane);
    } else {
      int64_t begin, end;
      lane.share((args.rows + kPreparedTogether - 1) / kPreparedTogether, &begin, &end);
      end *= kPreparedTogether;
      prepareRows(args, begin * kPreparedTogether, end < args.rows ? end : args.rows, prepared, lane);
      lane.sync();
    }
  }
  Tiles tiles;
  int64_t items = 0;
  for (int s = 0; s < weight.segmentCount; ++s) items += divisionOf(weight.segments[s], args.rows).items();
  lane.divide(items, [&](int64_t item) {
    int s = 0;
    Division division = divisionOf(weight.segments[0], args.rows);
    for (; item >= division.items(); division = divisionOf(weight.segments[++s], args.rows)) item -= division.items();
    const PackedSegment& segment = weight.segments[s];
    if (segment.kind == PackedKind::kU8 || segment.kind == PackedKind::kU4) {
      PreparedRows rows{prepared.base, prepared.integerStride, (weight.k + kGroup - 1) / kGroup * 32, 0, 0};
      rows.offsets = segmentMetaOffset(weight, s, &rows.starts);
      // The pairs of one block of rows are neighbours.
      const int64_t pair = item % division.groups, block = item / division.groups;
      const int64_t begin = division.rowBegin(block, args.rows, kIntegerTileRows);
      const int64_t count = division.rowBegin(block + 1, args.rows, kIntegerTileRows) - begin;
      const PairOutput output = outputOf(args, segment, pair).from(begin);
      fetchOutput(output, count);
      integerPair(segment, segment.data + pair * segment.records * segment.recordBytes, rows.from(begin), count,
                  weight.panelScratchBytes, output, lane, tiles);
      return;
    }
#if defined(__AVX512F__)
    const uint8_t* panel = segment.data + item * segment.records * segment.recordBytes;
    if (segment.kind == PackedKind::kF32) {
      floatPair(segment, panel, args.x, weight.k, args.rows, outputOf(args, segment, item));
    } else {
      bf16Pair(segment, panel, {prepared.bf16, prepared.integerStride, 0, 0, 0}, args.rows, outputOf(args, segment, item),
               lane.scratch + weight.panelScratchBytes, tiles);
    }
#else
    const bool isBf16 = segment.kind == PackedKind::kBf16;
    const WideRows rows{reinterpret_cast<const float*>(isBf16 ? prepared.bf16 : prepared.float32), (weight.k + 31) / 32 * 32, args.rows};
    const auto output = [&](int64_t pair) { return outputOf(args, segment, pair); };
    if (isBf16) {
      wideItem<true>(segment, division, item, rows, lane.scratch + weight.panelScratchBytes, output);
    } else {
      wideItem<false>(segment, division, item, rows, lane.scratch + weight.panelScratchBytes, output);
    }
#endif
  });
}

}  // namespace nvlm::NVLM_PATH
