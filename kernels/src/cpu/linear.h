// Packed weights of a linear op: what pack.cc writes at load and linear.cc reads in every step.
//
// The output channels of a segment are cut into pairs of blocks of 16; a pair is one contiguous panel that a thread streams
// through once. Without epilogue, pair p holds channels 32p .. 32p + 31. With 'siluMul' it holds gate channels 16p .. 16p + 15 in
// its first block and the up channels of the same numbers in its second, so that both meet in registers. Channels beyond
// the last are zero weights and are never stored.
//
//   kF32    [K][32] fp32
//   kBf16   [K/2 padded to 16 steps][32][2] bf16: one step is two 64-byte vectors of pairs for vdpbf16ps; 16 steps are two B tiles
//           of AMX (rows of 64 bytes, 128 apart). Padding is zero.
//   kU8     one record per 32 values of K (the last padded with zero activations):
//           [8 quads][32][4] codes, then d [subs][32], then m [subs][32] where the format has minima
//   kU4     the same record with [4][32][4] bytes of codes: quad q in the low nibbles, quad q + 4 in the high ones
//
// d and m are fp16 where the checkpoint's are, else fp32; subs is 2 for formats with groups of 16 (q6_k), else 1. Every record is
// a multiple of 64 bytes. A weight is d * (code - zero) + m. The activations of a row are scaled to -127..127 per group of 32, so
//   y = sum over groups of d * da * (sum of (code - zero) * a, exact in int32) + m * (da * sum of a)
// in ascending order of groups, one accumulator per output, whatever the number of rows: a row's bits depend on nothing else.
#pragma once
#include <cstddef>
#include <cstdint>

#include "../parallel.h"

namespace nvlm {

enum class PackedKind : int { kF32, kBf16, kU8, kU4 };

constexpr int kPairChannels = 32;
constexpr int kGroup = 32;             // activations per scale, and weights per record
constexpr int64_t kPreparedRowsPad = 32;  // rows an AMX tile may read beyond the last

struct PackedSegment {
  PackedKind kind;
  bool wideScales;     // d and m are fp32
  bool hasMin;
  int subs;            // d per record and channel
  int zero;
  int64_t outputs;     // columns of out this segment writes
  int64_t outOffset;   // first of them
  int64_t pairs;
  int64_t recordBytes; // of one K step: 32 values (kU8, kU4), 2 (kBf16), 1 (kF32)
  int64_t records;     // per pair
  uint8_t* data;       // pairs * records * recordBytes
  const float* bias;   // (pairs * 32) in the order of the channels of the pairs, or null
  const float* scale;  // like bias: a factor on each column of out, or null
};

// An op's activations are prepared once per row, in one of these layouts:
//   bf16 rows:  padded K bf16
//   int rows:   records * 32 int8, then da [records], then for each segment: -zero * sum(a) int32 [records * subs] and
//               da * sum(a) fp32 [records * subs]
// fp32 weights read the activations as they are. Paths without dot products of bf16 have, in place of bf16 rows, the tiles of
// linear_wide.h, for fp32 weights too: after all int rows those of bf16 weights, then those of fp32 weights.
struct PackedLinear {
  int64_t n;  // columns of out
  int64_t k;
  bool siluMul;
  bool gelu;
  bool integer;                // some segment is kU8 or kU4
  bool bfloat16;               // some segment is kBf16
  bool float32;                // some segment is kF32
  int segmentCount;
  PackedSegment* segments;
  int64_t preparedRowBytes;    // all layouts together
  int64_t integerRowBytes;     // of the int layout, which comes first
  int64_t panelScratchBytes;   // one unpacked kU4 pair, as kU8
};

// Rows that every thread prepares for itself rather than meet at a barrier; a step of so few waits for memory, not arithmetic.
constexpr int64_t kOwnRows = 4;
constexpr int64_t kTileScratchBytes = 96 << 10;  // sums of the AMX and the wide kernels

// Scratch a lane needs, and shared scratch for at most `rows` rows.
inline size_t linearLaneBytes(const PackedLinear& w) {
  return static_cast<size_t>(w.panelScratchBytes + kTileScratchBytes +
                             (kOwnRows + kPreparedRowsPad) * w.preparedRowBytes);
}
inline size_t linearSharedBytes(const PackedLinear& w, int64_t rows) {
  return static_cast<size_t>((rows + kPreparedRowsPad) * w.preparedRowBytes);
}

inline int64_t linearPairs(const PackedLinear& w) {
  int64_t pairs = 0;
  for (int s = 0; s < w.segmentCount; ++s) pairs += w.segments[s].pairs;
  return pairs;
}

// The first `bytes` of panels that a lane will read, less when its share of the first segment it has a part in is smaller.
inline ReadAhead linearReadAhead(const PackedLinear& w, const Lane& lane, int64_t bytes) {
  int64_t begin, end;
  lane.share(linearPairs(w), &begin, &end);
  for (int s = 0; s < w.segmentCount && begin < end; ++s) {
    const PackedSegment& segment = w.segments[s];
    if (begin < segment.pairs) {
      const int64_t pairBytes = segment.records * segment.recordBytes;
      const int64_t left = ((end < segment.pairs ? end : segment.pairs) - begin) * pairBytes;
      const uint8_t* first = segment.data + begin * pairBytes;
      return {first, first + (left < bytes ? left : bytes)};
    }
    begin -= segment.pairs;
    end -= segment.pairs;
  }
  return {};
}

}  // namespace nvlm
