// A loaded program: its ops, packed weights, tables and paged cache. Immutable after load but for the cache's contents;
// runners share it.
#pragma once
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "memory.h"
#include "ops.h"
#include "pack.h"

namespace nvlm {

struct WeightSpec {
  std::string name;
  StorageType type;
  int64_t rows, columns;
  int64_t rotaryHead;
  std::string path;  // empty: `data` holds the bytes
  uint64_t offset, byteLength;
  std::vector<uint8_t> data;
};

// What the rows of a tensor count. The order is that of ROW_KINDS in kernels/cpu/addon.ts.
enum class RowKind : int { kTokens, kLogitRows, kInputRows };

struct TensorSpec {
  RowKind rows;
  int64_t width;
};

// The order is that of OPS in kernels/cpu/addon.ts.
enum class OpKind : int {
  kEmbedding,
  kRmsNorm,
  kLinear,
  kRopeAndCache,
  kAttention,
  kGatherRows,
  kSample,
  kInput,
  kScatterRows,
  kLayerNorm,
  kQueryKeyNorm
};

// Ids are indices as in kernels/program.ts; -1: absent.
struct OpSpec {
  OpKind kind;
  int x = -1, out = -1, residual = -1, weight = -1;
  int layer = 0;
  float eps = 0, scale = 0, magnitude = 1;
  bool siluMul = false, gelu = false, causal = true, add = false;
  int bias = -1;                          // layerNorm
  int outputScale = -1;                   // linear
  int64_t meanWidth = 0;                  // queryKeyNorm
  std::vector<int> offsets;               // gatherRows
  std::vector<int> weights, biases;       // linear; queryKeyNorm: weights of queries, then keys
  std::vector<float> inverseFrequencies;  // ropeAndCache; empty: no rotation
};

struct ModelSpec {
  std::vector<WeightSpec> weights;
  std::vector<TensorSpec> tensors;
  std::vector<OpSpec> ops;
  int heads, layers, kvHeads, headSize, vocabularyRows, validTokens, partition;
  int blockSize, blockCount;
  int64_t maxTokens, maxSequences, maxPositions;
  ComputeType computeType;
  CacheType cacheType;
  bool poison;
};

class Model {
 public:
  // Plans sizes; allocates nothing big. The spec has been validated in TypeScript.
  Model(ModelSpec spec, const KernelTable* kernels);

  // Maps, packs and allocates. Blocks for as long as the disk and the packing take; throws CodedError.
  void load();

  int64_t weightBytes() const { return weightBytes_; }
  int64_t cacheBytes() const { return blockStride_ * spec_.blockCount * spec_.layers; }
  // 0..1, from any thread.
  double progress() const;

  const ModelSpec& spec() const { return spec_; }
  const KernelTable& kernels() const { return *kernels_; }
  const StoredMatrix& matrix(int weight) const { return matrices_[static_cast<size_t>(weight)]; }
  // fp32 values of a norm weight, bias or scale.
  const float* vector(int weight) const { return vectors_.at(weight).data(); }
  const PackedLinear& linear(size_t op) const { return linears_[op]->linear; }
  // Null for an op that rotates nothing.
  const float* cosSin(size_t op) const {
    const auto found = ropeOf_.find(op);
    return found == ropeOf_.end() ? nullptr : ropeTables_[found->second].data();
  }
  CacheLayer cacheLayer(int layer) const;

 private:
  void mapWeights();
  void loadVector(int weight);
  void packLinear(size_t op, uint8_t* arena);
  void releaseSources(const OpSpec& op) const;
  void buildRopeTables();

  ModelSpec spec_;
  const KernelTable* kernels_;
  std::vector<StoredMatrix> matrices_;
  std::vector<const MappedFile*> fileOf_;  // by weight; null when in memory
  std::map<std::string, std::unique_ptr<MappedFile>> files_;
  std::map<int, std::vector<float>> vectors_;
  std::vector<std::unique_ptr<LinearPlan>> linears_;  // by op
  std::vector<std::vector<float>> packedBiases_;
  std::map<size_t, size_t> ropeOf_;  // op -> table
  std::vector<std::vector<float>> ropeTables_;
  Region weights_, cache_;
  int64_t weightBytes_ = 0, blockStride_ = 0;
  int64_t bytesToPack_ = 0;
  std::atomic<int64_t> bytesPacked_{0};
};

}  // namespace nvlm
