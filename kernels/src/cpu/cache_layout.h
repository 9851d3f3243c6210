// Where a key or a value of a token lies inside one block of the paged cache. Keys come in groups of 16 tokens with the head
// dimension outermost, so that scores of 16 keys need one broadcast of the query per step; values come token by token.
//
//   f32   keys   [kvHead][blockSize / 16][D]    [16 keys]       values [kvHead][blockSize]    [P]
//   bf16  keys   [kvHead][blockSize / 16][D / 2][16 keys][2]    values [kvHead][blockSize / 2][P][2 tokens]
//   int8  as bf16, and behind each group of 16 tokens their scales in bf16:
//         keys [(D + 31) / 32][16], one for 32 dimensions         values [16], one for a token's head
//
// All keys of a block, then all its values. D is even; P is D rounded up to 16, the padding never written and never used.
// A step is what one dot product takes, per lane: of bf16 and int8 a pair, two dimensions of a key or two tokens of a value.
#pragma once
#include "../ops.h"

namespace nvlm {

constexpr int kKeyGroup = 16;
constexpr int kKeyScaleSpan = 32;  // dimensions of an int8 key that share a scale

// Byte offsets and strides within a block.
struct BlockLayout {
  int64_t keyHead, keyGroup, keyStep;        // from one kv head, key group, step of D to the next
  int64_t keyScales;                         // from a key group to its scales
  int64_t valuesBegin, valueHead;            // first value; from one kv head's values to the next
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
  layout.keyHead = blockSize / kKeyGroup * layout.keyGroup;
  layout.valuesBegin = kvHeads * layout.keyHead;
  layout.valueStep = layout.padded * laneBytes;
  layout.valueScales = layout.valueSteps * layout.valueStep;
  layout.valueGroup = wholeLines(layout.valueScales + scaleBytes);
  layout.valueHead = blockSize / kKeyGroup * layout.valueGroup;
  layout.bytes = layout.valuesBegin + kvHeads * layout.valueHead;
  return layout;
}

}  // namespace nvlm
