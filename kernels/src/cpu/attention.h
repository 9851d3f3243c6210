// Attention of one tile over one partition of the keys: FlashAttention-2 (Dao, 2023) with the heads of a group packed into the
// rows of the tile. A row is one query head of one query token; the rows of a sequence and kv head are numbered token by token,
// the heads of the group innermost, and a tile is up to kTileRows of them in a row.
//
// Bits: a row meets key blocks at absolute positions, only those in which it sees a key, and each of its numbers is one chain
// of operations that other rows have no part in. So its result is the same in every tile, batch and chunk.
#pragma once
#include "cache_layout.h"
#include "simd.h"
#include "../parallel.h"

namespace nvlm::NVLM_PATH {

constexpr int kTileRows = 48;
constexpr int kKeyBlock = 64;  // keys per online-softmax step; partitions are a multiple of it
constexpr int kGroupsPerBlock = kKeyBlock / kKeyGroup;

struct Tile {
  int sequence, kvHead;
  int rowBegin, rows;
  int queryBegin, queryCount;  // first token row of the sequence in the step, and how many
  int keyCount;                // keys of the sequence
  int keys;                    // keys the last row of the tile sees
  bool causal;

  int visibleKeys(int query) const { return causal ? keyCount - queryCount + query + 1 : keyCount; }
  // The first row that sees key `key`; the rows before it end earlier.
  int firstRow(int key, int group) const {
    if (!causal) return 0;
    const int64_t row = static_cast<int64_t>(key - (keyCount - queryCount)) * group - rowBegin;
    return row > 0 ? static_cast<int>(row) : 0;
  }
};

// One block of keys and values, as pointers to its 16-token groups.
struct KeyBlock {
  const uint8_t* keys[kGroupsPerBlock];
  const uint8_t* values[kGroupsPerBlock];
  int begin;
  int groups;
};

// Walks the key blocks of a sequence.
class KeyBlocks {
 public:
  KeyBlocks(const Tile& tile, const CacheLayer& cache, const BlockLayout& layout, const int32_t* blockTable, int keyBegin)
      : cache_(cache), layout_(layout), blockTable_(blockTable), keys_(tile.keys), begin_(keyBegin),
        tableIndex_(keyBegin / cache.blockSize), offset_(keyBegin % cache.blockSize),
        keyBase_(tile.kvHead * layout.head), valueBase_(keyBase_ + layout.valuesBegin) {}

  // Has no groups behind the tile's last key.
  KeyBlock next() {
    KeyBlock block{};
    block.begin = begin_;
    for (; block.groups < kGroupsPerBlock && begin_ < keys_; ++block.groups, begin_ += kKeyGroup) {
      const uint8_t* base = cache_.base + blockTable_[tableIndex_] * cache_.blockStride;
      const int group = offset_ / kKeyGroup;
      block.keys[block.groups] = base + keyBase_ + group * layout_.keyGroup;
      block.values[block.groups] = base + valueBase_ + group * layout_.valueGroup;
      offset_ += kKeyGroup;
      if (offset_ == cache_.blockSize) {
        offset_ = 0;
        ++tableIndex_;
      }
    }
    return block;
  }

 private:
  const CacheLayer& cache_;
  const BlockLayout& layout_;
  const int32_t* const blockTable_;
  const int keys_;
  int begin_, tableIndex_, offset_;
  const int64_t keyBase_, valueBase_;
};

// Running softmax of every row: out is not yet divided by sum; peak is in units of log2.
struct Partial {
  float* out;   // (kTileRows, P)
  float* peak;  // (kTileRows)
  float* sum;   // (kTileRows)
};

// Working memory of one thread for one tile.
struct TileScratch {
  uint8_t* queries;     // (kTileRows, P) scaled and rounded to bf16 (held as fp32 without its dot products), int16 codes for int8
  float* scores;        // (kTileRows, kKeyBlock); probabilities, in the same type as the queries, take their place
  float* newPeak;       // (kTileRows)
  float* decay;         // (kTileRows) factor on what earlier key blocks gave
  float* sums;          // (kTileRows, 16 lanes)
  float* queryScales;   // (kTileRows) int8 cache: factor on the codes of a row's queries
  float* weightScales;  // (kTileRows) and of its probabilities times the scales of their values
  int32_t* limits;      // (kTileRows) keys that each row sees
  uint8_t* tail;        // (16 tokens, P) values of a sequence's last group, zero beyond its end
};

// The scores beyond any key. Finite, so that a row of -infinity scores gives zeros and not NaN.
constexpr float kLowestPeak = -3.0e38f;

// `first` in the lanes below n, `rest` in the others; n may lie beyond either end.
NVLM_INLINE F32x16 selectFirst(int n, F32x16 first, F32x16 rest) {
  const float lanes[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return selectLess(load(lanes), splat(static_cast<float>(n)), first, rest);
}

// 2^x for x <= 0 within 1 ulp; exactly 0 below -126 (so for -infinity too), NaN for NaN.
NVLM_INLINE F32x16 exp2(F32x16 x) {
  const F32x16 low = splat(-126.0f);
  const F32x16 bounded = max(low, x);
  // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
  const F32x16 magic = splat(12582912.0f);
  const F32x16 shifted = bounded + magic;
  const F32x16 r = bounded - (shifted - magic);
  // (2^r - 1) / r, interpolated at the Chebyshev nodes of [-1/2, 1/2].
  F32x16 p = splat(0x1.44138ap-13f);
  p = fma(p, r, splat(0x1.5f089p-10f));
  p = fma(p, r, splat(0x1.3b2a54p-7f));
  p = fma(p, r, splat(0x1.c6af6cp-5f));
  p = fma(p, r, splat(0x1.ebfbep-3f));
  p = fma(p, r, splat(0x1.62e43p-1f));
  p = fma(p, r, splat(1.0f));
  F32x16 power;
  for (int i = 0; i < kParts; ++i) {
    const IntPart exponent = reinterpret_cast<IntPart>(shifted.part[i]) - (0x4b400000 - 127);
    power.part[i] = reinterpret_cast<FloatPart>(exponent << 23);
  }
  return selectLess(x, low, zero(), p * power);
}

// Rounds and scales the queries of a tile and fills the limits. `queries` is the first query head of the tile's kv head in token
// row 0 of the sequence; rows of tokens are tokenStride floats apart.
void packQueries(const Tile& tile, int group, int headSize, CacheType type, const float* queries, int64_t tokenStride,
                 float scale, const TileScratch& scratch);

// Attends to keys [keyBegin, keyEnd) of the tile, keyBegin a multiple of kKeyBlock and keyEnd <= tile.keys, and overwrites
// `result`. Rows that see no key of the range have peak kLowestPeak and sum 0. `after` is the block that the thread reads once the
// tile's keys end, and is fetched meanwhile; without groups: none.
void attendPartition(const Tile& tile, int group, const CacheLayer& cache, const BlockLayout& layout,
                     const int32_t* blockTable, int keyBegin, int keyEnd, const KeyBlock& after,
                     const TileScratch& scratch, const Partial& result, const Lane& lane);

}  // namespace nvlm::NVLM_PATH
