// Where a key or a value of a token lies inside one block of the paged cache. Keys come in groups of 16 tokens with the head
// dimension outermost, so that scores of 16 keys need one broadcast of the query per step; values come token by token.
//
//   f32   keys   [blockSize / 16][D]    [16 keys]       values [blockSize]    [P]
//   bf16  keys   [blockSize / 16][D / 2][16 keys][2]    values [blockSize / 2][P][2 tokens]
//   int8  as bf16, and behind each group of 16 tokens their scales in bf16:
//         keys [(D + 31) / 32][16], one for 32 dimensions         values [16], one for a token's head
//
// The keys of the first kv head, then its values, then the next head: what a tile reads of a block is one stretch of memory. D is even;
// P is D rounded up to 16, the padding never written and never used.
// A step is what one dot product takes, per lane: of bf16 and int8 a pair, two dimensions of a key or two tokens of a value.
#pragma once
#include "../ops.h"

namespace nvlm {

constexpr int kKeyGroup = 16;
constexpr int kKeyScaleSpan = 32;  // dimensions of an int8 key that share a scale

// Byte offsets and strides within a block.
struct BlockLayout {
  int64_t head;                              // from one kv head to the next
  int64_t keyGroup, keyStep;                 // from one key group, step of D to the next
  int64_t keyScales;                         // from a key group to its scales
  int64_t valuesBegin;                       // from a head's keys to its values
  int64_t valueGroup, valueStep;             // from 16 tokens to the next 16; from one step of the token axis to the next
  int64_t valueScales;                       // from 16 tokens to their scales
  int keySteps, valueSteps;                  // steps per key (over D); steps per group of 16 tokens
  int padded;                                // P
  int64_t bytes;
};

__attribute__((always_inline)) inline BlockLayout blockLayout(int blockSize, int kvHeads, int headSize,
                                                              CacheType type) {
  const auto wholeLines = [](int64_t bytes) { return (bytes + 63) / 64 * 64; };
  const int packed = type == CacheType::kF32 ? 1 : 2;
  const int laneBytes = type == CacheType::kInt8 ? 2 : 4;
  const int64_t scaleBytes = type == CacheType::kInt8 ? 2 * kKeyGroup : 0;
  BlockLayout layout{};
  layout.padded = (headSize + 15) / 16 * 16;
  layout.keySteps = headSize / packed;
  layout.valueSteps = kKeyGroup / packed;
  layout.keyStep = kKeyGroup * laneBytes;
  layout.keyScales = layout.keySteps * layout.keyStep;
  layout.keyGroup = wholeLines(layout.keyScales + (headSize + kKeyScaleSpan - 1) / kKeyScaleSpan * scaleBytes);
  layout.valueStep = layout.padded * laneBytes;
  layout.valueScales = layout.valueSteps * layout.valueStep;
  layout.valueGroup = wholeLines(layout.valueScales + scaleBytes);
  const int groups = blockSize / kKeyGroup;
  layout.valuesBegin = groups * layout.keyGroup;
  layout.head = groups * (layout.keyGroup + layout.valueGroup);
  layout.bytes = kvHeads * layout.head;
  return layout;
}

}  // namespace nvlm
