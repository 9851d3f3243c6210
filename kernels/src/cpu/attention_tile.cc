#include "attention.h"
#include "attention_int8.h"
#include "kernels.h"
#include "narrow.h"

namespace nvlm::NVLM_PATH {
namespace {

// Rows of a register tile, and 16-lane columns of one of `rows` rows: as many sums as the registers hold beside their operands.
#if defined(__AVX512F__)
constexpr int kRegisterRows = 6;
constexpr int registerColumns(int) { return 4; }
#elif defined(__AVX2__)
constexpr int kRegisterRows = 6;
constexpr int registerColumns(int rows) { return rows <= 2 ? 2 : 1; }
#else
constexpr int kRegisterRows = 2;
constexpr int registerColumns(int) { return 1; }
#endif

// How the left operand of a product, queries or probabilities, is held in rows of fp32: as it is, or widened from the bf16 it is
// rounded to, or as pairs of bf16 where there are instructions for their dot products.
template <bool kBf16>
constexpr bool kPairs = kBf16 && !kWideLinear;

// Floats of the left operand that one step takes.
template <bool kBf16>
constexpr int kStepFloats = kBf16 && !kPairs<kBf16> ? 2 : 1;

// acc += left * right over one 4-byte step: one fp32 product or two bf16 ones. `left` is the step's first value of the first row,
// `right(c)` points to its 16 lanes of column c.
template <bool kBf16, int kRows, int kColumns, class Right>
NVLM_INLINE void multiplyStep(F32x16 (&acc)[kRows][kColumns], const float* left, int64_t leftStride, const Right& right) {
  if constexpr (kPairs<kBf16>) {
    I32x16 pairs[kColumns];
    for (int c = 0; c < kColumns; ++c) pairs[c] = loadInt(right(c));
    for (int r = 0; r < kRows; ++r) {
      const I32x16 a = broadcastBytes(left + r * leftStride);
      for (int c = 0; c < kColumns; ++c) acc[r][c] = dotBf16(acc[r][c], a, pairs[c]);
    }
  } else {
    // Of bf16 all even values, then all odd ones: widened at once they would leave no registers for the sums.
    for (int i = 0; i < kStepFloats<kBf16>; ++i) {
      F32x16 wide[kColumns];
      for (int c = 0; c < kColumns; ++c) {
        if constexpr (kBf16) {
          wide[c] = i == 0 ? evenBf16(loadInt(right(c))) : oddBf16(loadInt(right(c)));
        } else {
          wide[c] = load(reinterpret_cast<const float*>(right(c)));
        }
      }
      for (int r = 0; r < kRows; ++r) {
        const F32x16 a = splat(left[r * leftStride + i]);
        for (int c = 0; c < kColumns; ++c) accumulate(acc[r][c], wide[c], a);
      }
    }
  }
}

// scores (rows, kKeyBlock) = queries (rows, D) * keys^T, for kRows rows and kColumns groups of 16 keys. Fetches ahead the
// lines of `nextKeys` as it goes, where not null.
template <bool kBf16, int kRows, int kColumns>
void scoreRegisters(const float* queries, int64_t queryStride, const uint8_t* const* keys,
                    const uint8_t* const* nextKeys, int steps, float* scores) {
  F32x16 acc[kRows][kColumns];
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kColumns; ++c) acc[r][c] = zero();
  }
  for (int s = 0; s < steps; ++s) {
    if (nextKeys) {
      for (int c = 0; c < kColumns; ++c) __builtin_prefetch(nextKeys[c] + s * 64, 0, 2);
    }
    multiplyStep<kBf16>(acc, queries + s * kStepFloats<kBf16>, queryStride,
                        [&](int c) NVLM_INLINE_LAMBDA { return keys[c] + s * 64; });
  }
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kColumns; ++c) store(scores + r * kKeyBlock + c * kLanes, acc[r][c]);
  }
}

// out (rows, P) = out * decay + probabilities (rows, keys) * values (keys, P), for kRows rows and 16 kColumns columns. Fetches
// ahead as scoreRegisters does.
template <bool kBf16, int kRows, int kColumns>
void valueRegisters(const float* probabilities, const KeyBlock& block, const KeyBlock* next, int64_t column,
                    int64_t valueStep, const float* decay, float* out, int64_t outStride) {
  constexpr int kSteps = kBf16 ? kKeyGroup / 2 : kKeyGroup;
  F32x16 acc[kRows][kColumns];
  for (int r = 0; r < kRows; ++r) {
    const F32x16 factor = splat(decay[r]);
    for (int c = 0; c < kColumns; ++c) acc[r][c] = load(out + r * outStride + c * kLanes) * factor;
  }
  for (int g = 0; g < block.groups; ++g) {
    const uint8_t* values = block.values[g] + column * 4;
    const uint8_t* nextValues = next && g < next->groups ? next->values[g] + column * 4 : nullptr;
    const float* weights = probabilities + g * kSteps * kStepFloats<kBf16>;
    for (int s = 0; s < kSteps; ++s) {
      if (nextValues) {
        for (int c = 0; c < kColumns; ++c) __builtin_prefetch(nextValues + s * valueStep + c * 64, 0, 2);
      }
      multiplyStep<kBf16>(acc, weights + s * kStepFloats<kBf16>, kKeyBlock,
                          [&](int c) NVLM_INLINE_LAMBDA { return values + s * valueStep + c * 64; });
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kColumns; ++c) store(out + r * outStride + c * kLanes, acc[r][c]);
  }
}

// Calls body.template operator()<rows, columns>(row, column) so as to cover a (rows, columns) range with register tiles.
template <int kRows, class Body>
NVLM_INLINE void coverColumns(int row, int columns, const Body& body) {
  constexpr int kColumns = registerColumns(kRows);
  int column = 0;
  for (; column + kColumns <= columns; column += kColumns) body.template operator()<kRows, kColumns>(row, column);
  if constexpr (kColumns > 2) {
    for (; column + 2 <= columns; column += 2) body.template operator()<kRows, 2>(row, column);
  }
  for (; column < columns; ++column) body.template operator()<kRows, 1>(row, column);
}
template <class Body>
NVLM_INLINE void cover(int rowBegin, int rowEnd, int columns, const Body& body) {
  int row = rowBegin;
  for (; row + kRegisterRows <= rowEnd; row += kRegisterRows) coverColumns<kRegisterRows>(row, columns, body);
  switch (rowEnd - row) {
    case 5: if constexpr (kRegisterRows > 5) coverColumns<5>(row, columns, body); break;
    case 4: if constexpr (kRegisterRows > 4) coverColumns<4>(row, columns, body); break;
    case 3: if constexpr (kRegisterRows > 3) coverColumns<3>(row, columns, body); break;
    case 2: if constexpr (kRegisterRows > 2) coverColumns<2>(row, columns, body); break;
    case 1: coverColumns<1>(row, columns, body); break;
    default: break;
  }
}

// Raises the peak of rows [rowBegin, rowEnd) to the highest visible score, leaves in `decay` what their earlier sums and outputs
// are to be multiplied with, and turns scores into probabilities.
template <CacheType kType>
void softmaxBlock(int rowBegin, int rowEnd, const KeyBlock& block, const BlockLayout& layout, const TileScratch& scratch,
                  float* peak) {
  constexpr bool kBf16 = kType == CacheType::kBf16, kInt8 = kType == CacheType::kInt8;
  const int columns = block.groups;
  for (int r = rowBegin; r < rowEnd; ++r) {
    float* row = scratch.scores + r * kKeyBlock;
    const int visible = scratch.limits[r] - block.begin;
    if (visible < columns * kKeyGroup) {
      // Not only keys to come: lanes beyond the sequence's end hold whatever the memory held, NaN among it.
      for (int c = 0; c < columns; ++c) {
        float* scores = row + c * kLanes;
        store(scores, selectFirst(visible - c * kKeyGroup, load(scores), splat(-__builtin_inff())));
      }
    }
    F32x16 highest = load(row);
    for (int c = 1; c < columns; ++c) highest = max(highest, load(row + c * kLanes));
    const float top = horizontalMax(highest);
    scratch.newPeak[r] = top > peak[r] ? top : peak[r];
  }
  for (int r = rowBegin / kLanes * kLanes; r < rowEnd; r += kLanes) {
    store(scratch.decay + r, exp2(load(peak + r) - load(scratch.newPeak + r)));
  }
  for (int r = rowBegin; r < rowEnd; ++r) {
    float* row = scratch.scores + r * kKeyBlock;
    peak[r] = scratch.newPeak[r];
    const F32x16 shift = splat(peak[r]);
    F32x16 sum = load(scratch.sums + r * kLanes) * splat(scratch.decay[r]);
    F32x16 magnitudes = zero();
    for (int c = 0; c < columns; ++c) {
      F32x16 probability = exp2(load(row + c * kLanes) - shift);
      sum = sum + probability;
      if constexpr (kInt8) {
        probability = weighProbabilities(probability, block, c, scratch.limits[r] - block.begin, layout.valueScales);
        magnitudes = largerMagnitude(magnitudes, probability);
      }
      if constexpr (kPairs<kBf16>) {
        storeBf16(reinterpret_cast<uint16_t*>(row) + c * kLanes, probability);
      } else {
        store(row + c * kLanes, kBf16 ? roundToBf16(probability) : probability);
      }
    }
    store(scratch.sums + r * kLanes, sum);
    if constexpr (kInt8) scratch.weightScales[r] = largestMagnitude(magnitudes);
  }
  // In a loop of its own: the rows of the one above do not wait for each other's largest weight then.
  for (int r = rowBegin; kInt8 && r < rowEnd; ++r) {
    scratch.weightScales[r] = quantizeWeights(scratch.scores + r * kKeyBlock, columns, scratch.weightScales[r]);
  }
}

// The groups from `begin` on, which a shorter block before them has no steps to fetch on the way.
NVLM_INLINE void fetchGroups(const KeyBlock& block, int begin, const BlockLayout& layout) {
  for (int g = begin; g < block.groups; ++g) {
    for (int64_t line = 0; line < layout.keyGroup; line += 64) __builtin_prefetch(block.keys[g] + line, 0, 2);
    for (int64_t line = 0; line < layout.valueGroup; line += 64) __builtin_prefetch(block.values[g] + line, 0, 2);
  }
}

// The values of `count` < 16 tokens, the rest of the group zero: unwritten memory times probability 0 may be NaN.
void copyTail(const uint8_t* from, int count, const BlockLayout& layout, uint8_t* to) {
  const int tokensPerStep = kKeyGroup / layout.valueSteps;
  const int64_t whole = count / tokensPerStep * layout.valueStep;
  std::memcpy(to, from, whole);
  std::memset(to + whole, 0, layout.valueGroup - whole);
  if (count % tokensPerStep == 0) return;
  for (int64_t i = whole; i < whole + layout.valueStep; i += 4) std::memcpy(to + i, from + i, 2);
}

template <CacheType kType>
void attend(const Tile& tile, int group, const CacheLayer& cache, const BlockLayout& layout, const int32_t* blockTable,
            int keyBegin, int keyEnd, const KeyBlock& after, const TileScratch& scratch, const Partial& result, const Lane& lane) {
  constexpr bool kBf16 = kType == CacheType::kBf16, kInt8 = kType == CacheType::kInt8;
  const int padded = layout.padded;
  const float* const queries = reinterpret_cast<const float*>(scratch.queries);
  const int64_t queryStride = kPairs<kBf16> || kInt8 ? padded / 2 : padded;
  // Whole vectors of rows are looked at.
  const int peaks = (tile.rows + kLanes - 1) / kLanes * kLanes;
  for (int r = 0; r < peaks; ++r) result.peak[r] = scratch.newPeak[r] = kLowestPeak;
  std::memset(scratch.sums, 0, tile.rows * kLanes * sizeof(float));
  std::memset(result.out, 0, static_cast<int64_t>(tile.rows) * padded * sizeof(float));

  KeyBlocks blocks(tile, cache, layout, blockTable, keyBegin);
  KeyBlock next = blocks.next();
  for (int begin = keyBegin; begin < keyEnd; begin += kKeyBlock) {
    KeyBlock block = next;
    next = blocks.next();
    if (next.groups == 0) next = after;
    const int lastGroup = block.groups - 1;
    const int written = tile.keyCount - (begin + lastGroup * kKeyGroup);
    // Codes are numbers whatever the memory held.
    if (!kInt8 && written < kKeyGroup) {
      copyTail(block.values[lastGroup], written, layout, scratch.tail);
      block.values[lastGroup] = scratch.tail;
    }

    const int firstRow = tile.firstRow(begin, group);
    cover(firstRow, tile.rows, block.groups, [&]<int kRows, int kColumns>(int row, int column) {
      const float* const from = queries + row * queryStride;
      const uint8_t* const* const nextKeys = row == firstRow && column + kColumns <= next.groups ? next.keys + column : nullptr;
      float* const to = scratch.scores + row * kKeyBlock + column * kLanes;
      if constexpr (kInt8) {
        scoreInt8<kRows, kColumns>(reinterpret_cast<const int16_t*>(from), 2 * queryStride, scratch.queryScales + row,
                                   block.keys + column, nextKeys, layout, to);
      } else {
        scoreRegisters<kBf16, kRows, kColumns>(from, queryStride, block.keys + column, nextKeys, layout.keySteps, to);
      }
    });
    fetchGroups(next, block.groups, layout);
    lane.fetchAhead();
    softmaxBlock<kType>(firstRow, tile.rows, block, layout, scratch, result.peak);
    lane.fetchAhead();
    cover(firstRow, tile.rows, padded / kLanes, [&]<int kRows, int kColumns>(int row, int column) {
      const float* const weights = scratch.scores + row * kKeyBlock;
      const KeyBlock* const nextBlock = row == firstRow ? &next : nullptr;
      float* const out = result.out + row * padded + column * kLanes;
      if constexpr (kInt8) {
        valueInt8<kRows, kColumns>(reinterpret_cast<const int16_t*>(weights), scratch.weightScales + row, block, nextBlock,
                                   column * kLanes, layout.valueStep, scratch.decay + row, out, padded);
      } else {
        valueRegisters<kBf16, kRows, kColumns>(weights, block, nextBlock, column * kLanes, layout.valueStep,
                                               scratch.decay + row, out, padded);
      }
    });
  }
  for (int r = 0; r < tile.rows; ++r) result.sum[r] = horizontalSum(load(scratch.sums + r * kLanes));
}

}  // namespace

void packQueries(const Tile& tile, int group, int headSize, CacheType type, const float* queries, int64_t tokenStride,
                 float scale, const TileScratch& scratch) {
  const int padded = (headSize + kLanes - 1) / kLanes * kLanes;
  const F32x16 factor = splat(scale * 1.44269504088896341f);
  for (int r = 0; r < tile.rows; ++r) {
    const int query = (tile.rowBegin + r) / group, head = (tile.rowBegin + r) % group;
    scratch.limits[r] = tile.visibleKeys(query);
    const float* from = queries + query * tokenStride + static_cast<int64_t>(head) * headSize;
    if (type == CacheType::kInt8) {
      int16_t* const codes = reinterpret_cast<int16_t*>(scratch.queries) + r * padded;
      scratch.queryScales[r] = quantizeQuery(from, headSize, factor, codes);
      continue;
    }
    for (int d = 0; d < headSize; d += kLanes) {
      const int n = headSize - d < kLanes ? headSize - d : kLanes;
      const F32x16 value = loadPartial(from + d, n) * factor;
      if (type == CacheType::kBf16 && kPairs<true>) {
        storeBf16(reinterpret_cast<uint16_t*>(scratch.queries) + r * padded + d, value);
      } else {
        store(reinterpret_cast<float*>(scratch.queries) + r * padded + d, type == CacheType::kBf16 ? roundToBf16(value) : value);
      }
    }
  }
}

void attendPartition(const Tile& tile, int group, const CacheLayer& cache, const BlockLayout& layout,
                     const int32_t* blockTable, int keyBegin, int keyEnd, const KeyBlock& after,
                     const TileScratch& scratch, const Partial& result, const Lane& lane) {
  const auto run = [&]<CacheType kType>() {
    attend<kType>(tile, group, cache, layout, blockTable, keyBegin, keyEnd, after, scratch, result, lane);
  };
  switch (cache.type) {
    case CacheType::kF32: return run.template operator()<CacheType::kF32>();
    case CacheType::kBf16: return run.template operator()<CacheType::kBf16>();
    case CacheType::kInt8: return run.template operator()<CacheType::kInt8>();
  }
}

}  // namespace nvlm::NVLM_PATH
