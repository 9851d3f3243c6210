// Arguments of every op, and the table of functions that one instruction-set path fills in. Dims: T tokens, S sequences,
// L logit rows, D head size, V vocabulary rows, N output and K input features. All activations are fp32, row-major.
// Each function is called by all threads of a team with the same arguments; the executor puts a barrier after each op.
#pragma once
#include <cstddef>
#include <cstdint>

#include "parallel.h"

namespace nvlm {

// The order is that of CACHE_TYPES in kernels/cpu/addon.ts.
enum class CacheType : int { kF32, kBf16, kInt8 };

// Paged cache of one layer. Layout is the attention file's own business (kernels/src/cpu/attention.h says it):
// a block holds keys then values of all kv heads.
struct CacheLayer {
  uint8_t* base;          // block b starts at base + b * blockStride
  int64_t blockStride;    // bytes
  int blockSize;          // tokens, a multiple of 16
  int kvHeads;
  int headSize;
  CacheType type;
};

struct StepView {
  int tokens, sequences, logitRows;
  const int32_t* tokenIds;     // (T)
  const int32_t* positions;    // (T)
  const int32_t* slotMapping;  // (T)
  const int32_t* cuSeqlensQ;   // (S + 1)
  const int32_t* seqLens;      // (S)
  const int32_t* blockTables;  // (S, maxBlocks)
  int maxBlocks;
  const int32_t* logitRowIds;  // (L)
};

struct RmsNormArgs {
  const float* x;       // (rows, width)
  float* residual;      // may be null; residual += x, then norm(residual)
  const float* weight;  // (width)
  float* out;
  int64_t rows, width;
  float eps;
};

struct LayerNormArgs {
  const float* x;       // (rows, width)
  const float* weight;  // (width)
  const float* bias;    // (width)
  float* out;
  int64_t rows, width;
  float eps;
};

// Queries, then keys of each row, normed in place; their squares are averaged over the first meanWidth values.
struct QueryKeyNormArgs {
  float* qkv;                // (rows, width)
  const float* queryWeight;  // (queryWidth)
  const float* keyWeight;    // (keyWidth)
  int64_t rows, width, queryWidth, keyWidth, meanWidth;
  float eps;
};

struct RopeAndCacheArgs {
  float* qkv;                // (T, (heads + 2 kvHeads) * D), q and k rotated in place
  const float* cosSin;       // (positions, D): D/2 cosines then D/2 sines, magnitude included; null: nothing is rotated
  const StepView* step;
  CacheLayer cache;
  int heads;
};

struct AttentionArgs {
  const float* qkv;          // (T, (heads + 2 kvHeads) * D)
  float* out;                // (T, heads * D)
  const StepView* step;
  CacheLayer cache;
  int heads;
  float scale;
  int partition;             // keys per partition, program.ts ATTENTION_PARTITION
  bool causal;               // else every query sees all keys of its sequence
};

struct SampleArgs {
  float* logits;             // (L, V), may be overwritten
  int rows, vocabularyRows, validTokens;
  const float *temperature, *topP, *minP, *repetitionPenalty, *presencePenalty, *frequencyPenalty;
  const int32_t* topK;
  const uint32_t* seed;      // (L, 2)
  const uint32_t* position;  // (L)
  const int32_t *seenOffsets, *seenIds, *seenCounts;
  const int32_t *biasOffsets, *biasIds;
  const float* biasValues;
  const uint32_t* allowedMask;  // (L, ceil(V / 32)) or null
  const int32_t* wantLogprobs;  // (L)
  int maxTop;
  int32_t* outIds;           // (L)
  float* outLogprobs;        // (L)
  int32_t* topIds;           // (L, maxTop)
  float* topLogprobs;        // (L, maxTop)
};

struct PackedLinear;  // kernels/src/cpu/linear.h

struct LinearArgs {
  const float* x;            // (rows, K)
  const PackedLinear* weight;
  const float* residual;     // (rows, N) or null; may equal out
  float* out;                // (rows, N)
  int64_t rows;
  uint8_t* shared;           // scratch of the whole team, linearSharedBytes() of it, 64-byte aligned
};

// What a peak loop keeps busy: memory reads, or multiply-adds of one kind.
enum class PeakKind : int { kRead, kFloat32, kBfloat16, kInt8 };

// One path of the dispatch (portable, avx2, avx512, amx). Plain function pointers: no virtual call knows the ISA.
struct KernelTable {
  const char* name;
  void (*rmsNorm)(const RmsNormArgs&, const Lane&);
  void (*layerNorm)(const LayerNormArgs&, const Lane&);
  void (*queryKeyNorm)(const QueryKeyNormArgs&, const Lane&);
  void (*linear)(const LinearArgs&, const Lane&);
  bool wideLinear;           // it prepares activations as cpu/linear_wide.h describes
  void (*ropeAndCache)(const RopeAndCacheArgs&, const Lane&);
  void (*attention)(const AttentionArgs&, const Lane&);
  size_t (*attentionScratchBytes)(const AttentionArgs& largest);
  void (*sample)(const SampleArgs&, const Lane&);
  size_t (*sampleScratchBytes)(int vocabularyRows);
  int64_t (*peak)(PeakKind, int64_t iterations, const uint8_t* memory, int64_t bytes, float* sink);
};

// Bytes of one block of one layer in the attention file's layout; the same on every path of one machine.
int64_t cacheBlockBytes(int blockSize, int kvHeads, int headSize, CacheType type);

}  // namespace nvlm
