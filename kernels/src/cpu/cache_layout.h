// Where a key or a value of a token lies inside one block of the paged cache. Keys come in groups of 16 tokens with the head
// dimension outermost, so that scores of 16 keys need one broadcast of the query per step; values come token by token.
//
//   bf16  keys   [kvHead][blockSize / 16][D / 2][16 keys][2]    values [kvHead][blockSize / 2][P][2 tokens]
//   f32   keys   [kvHead][blockSize / 16][D]    [16 keys]       values [kvHead][blockSize]    [P]
//
// All keys of a block, then all its values. D is even; P is D rounded up to 16, the padding never written and never used.
// In bf16 a 4-byte word holds the pair that one step of a bf16 dot product takes: two dimensions of a key, two tokens of a value.
#pragma once
#include "../ops.h"

namespace nvlm {

constexpr int kKeyGroup = 16;

// Byte offsets and strides within a block.
struct BlockLayout {
  int64_t keyHead, keyGroup, keyStep;        // from one kv head, key group, 4-byte step of D to the next
  int64_t valuesBegin, valueHead;            // first value; from one kv head's values to the next
  int64_t valueGroup, valueStep;             // from 16 tokens to the next 16; from one step of the token axis to the next
  int keySteps, valueSteps;                  // steps per key (over D); steps per group of 16 tokens
  int64_t bytes;
};

__attribute__((always_inline)) inline BlockLayout blockLayout(int blockSize, int kvHeads, int headSize,
                                                              CacheType type) {
  const int packed = type == CacheType::kBf16 ? 2 : 1;
  const int padded = (headSize + 15) / 16 * 16;
  BlockLayout layout{};
  layout.keySteps = headSize / packed;
  layout.valueSteps = kKeyGroup / packed;
  layout.keyStep = kKeyGroup * 4;
  layout.keyGroup = layout.keySteps * layout.keyStep;
  layout.keyHead = blockSize / kKeyGroup * layout.keyGroup;
  layout.valuesBegin = kvHeads * layout.keyHead;
  layout.valueStep = padded * 4;
  layout.valueGroup = layout.valueSteps * layout.valueStep;
  layout.valueHead = blockSize / kKeyGroup * layout.valueGroup;
  layout.bytes = layout.valuesBegin + kvHeads * layout.valueHead;
  return layout;
}

}  // namespace nvlm
