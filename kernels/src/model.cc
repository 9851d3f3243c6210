#include "model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>

namespace nvlm {
namespace {

// Bytes of panels after which the pages they came from are let go: an lm head may be a third of a checkpoint.
constexpr int64_t kPackedAtOnce = int64_t{4} << 20;

// Runs body(begin, end) on a few threads over [0, n).
template <class Body>
void parallelFor(int64_t n, const Body& body) {
  const int64_t threads = std::clamp<int64_t>(std::thread::hardware_concurrency(), 1, std::min<int64_t>(8, std::max<int64_t>(n, 1)));
  std::vector<std::thread> others;
  for (int64_t i = 1; i < threads; ++i) {
    others.emplace_back([&, i] { body(n * i / threads, n * (i + 1) / threads); });
  }
  body(0, n / threads);
  for (std::thread& thread : others) thread.join();
}

// Weights that an op reads as fp32 values.
std::vector<int> vectorsOf(const OpSpec& op) {
  std::vector<int> ids = op.biases;
  if (op.kind == OpKind::kRmsNorm || op.kind == OpKind::kLayerNorm) ids.push_back(op.weight);
  if (op.kind == OpKind::kLayerNorm) ids.push_back(op.bias);
  if (op.kind == OpKind::kQueryKeyNorm) ids = op.weights;
  if (op.outputScale >= 0) ids.push_back(op.outputScale);
  return ids;
}

}  // namespace

Model::Model(ModelSpec spec, const KernelTable* kernels) : spec_(std::move(spec)), kernels_(kernels) {
  for (const WeightSpec& weight : spec_.weights) {
    matrices_.push_back({weight.type, weight.rows, weight.columns, weight.rotaryHead,
                         weight.path.empty() ? weight.data.data() : nullptr});
  }
  fileOf_.resize(matrices_.size(), nullptr);
  linears_.resize(spec_.ops.size());
  std::vector<bool> vectorUse(matrices_.size());
  for (size_t i = 0; i < spec_.ops.size(); ++i) {
    const OpSpec& op = spec_.ops[i];
    for (const int id : vectorsOf(op)) vectorUse[static_cast<size_t>(id)] = true;
    if (op.kind != OpKind::kLinear) continue;
    std::vector<StoredMatrix> sources;
    for (const int weight : op.weights) {
      sources.push_back(matrix(weight));
      bytesToPack_ += matrix(weight).rows * storageRowBytes(matrix(weight).type, matrix(weight).columns);
    }
    linears_[i] = std::make_unique<LinearPlan>(planLinear(std::move(sources), op.siluMul, spec_.computeType, kernels->wideLinear));
    linears_[i]->linear.gelu = op.gelu;
    weightBytes_ += (linears_[i]->bytes + 63) / 64 * 64;
  }
  for (size_t i = 0; i < matrices_.size(); ++i) {
    if (vectorUse[i]) weightBytes_ += matrices_[i].columns * 4;
    // Embedding tables stay where they are: in the page cache, or in the bytes that were handed over.
    weightBytes_ += static_cast<int64_t>(spec_.weights[i].data.size());
  }
  const int64_t blockBytes = cacheBlockBytes(spec_.blockSize, spec_.kvHeads, spec_.headSize, spec_.cacheType);
  blockStride_ = (blockBytes + 63) / 64 * 64;
}

double Model::progress() const {
  return bytesToPack_ == 0 ? 1.0 : static_cast<double>(bytesPacked_.load()) / static_cast<double>(bytesToPack_);
}

CacheLayer Model::cacheLayer(int layer) const {
  return {cache_.data() + static_cast<int64_t>(layer) * spec_.blockCount * blockStride_,
          blockStride_,
          spec_.blockSize,
          spec_.kvHeads,
          spec_.headSize,
          spec_.cacheType};
}

void Model::load() {
  mapWeights();
  for (const OpSpec& op : spec_.ops) {
    for (const int id : vectorsOf(op)) loadVector(id);
  }
  int64_t panels = 0;
  for (const auto& plan : linears_) panels += plan ? (plan->bytes + 63) / 64 * 64 : 0;
  weights_ = Region(static_cast<size_t>(panels), true, "weights");
  uint8_t* arena = weights_.data();
  for (size_t i = 0; i < linears_.size(); ++i) {
    if (!linears_[i]) continue;
    packLinear(i, arena);
    arena += (linears_[i]->bytes + 63) / 64 * 64;
  }
  buildRopeTables();
  cache_ = Region(static_cast<size_t>(cacheBytes()), true, "key-value cache");
  if (spec_.poison && cache_.size() > 0) std::memset(cache_.data(), 0xff, cache_.size());
}

void Model::mapWeights() {
  for (size_t i = 0; i < matrices_.size(); ++i) {
    const WeightSpec& weight = spec_.weights[i];
    if (weight.path.empty()) continue;
    auto& file = files_[weight.path];
    if (!file) file = std::make_unique<MappedFile>(weight.path);
    if (weight.offset > file->size() || weight.byteLength > file->size() - weight.offset) {
      throw CodedError("KERNEL_WEIGHT_INVALID",
                       "weight " + weight.name + ": expected " + std::to_string(weight.byteLength) + " bytes at offset " +
                           std::to_string(weight.offset) + " of " + weight.path + ", received a file of " +
                           std::to_string(file->size()) + " bytes; the file is truncated");
    }
    matrices_[i].data = file->data() + weight.offset;
    fileOf_[i] = file.get();
  }
}

void Model::loadVector(int weight) {
  std::vector<float>& values = vectors_[weight];
  if (!values.empty()) return;
  const StoredMatrix& stored = matrix(weight);
  values.resize(static_cast<size_t>(stored.rows * stored.columns));
  for (int64_t row = 0; row < stored.rows; ++row) {
    dequantizeRow(stored.type, stored.row(row), stored.columns, values.data() + row * stored.columns);
  }
  // A bias is one row here, and its values are what the matrix beside it calls rows.
  if (stored.rows == 1 && stored.rotaryHead > 0) {
    const std::vector<float> inOrderOfFile = values;
    for (int64_t i = 0; i < stored.columns; ++i) values[static_cast<size_t>(i)] = inOrderOfFile[static_cast<size_t>(stored.storedRow(i))];
  }
}

void Model::packLinear(size_t op, uint8_t* arena) {
  LinearPlan& plan = *linears_[op];
  const OpSpec& spec = spec_.ops[op];
  for (size_t i = 0; i < plan.sources.size(); ++i) plan.sources[i].data = matrix(spec.weights[i]).data;
  plan.linear.segments = plan.segments.data();
  std::vector<const float*> biases;
  for (const int bias : spec.biases) biases.push_back(vector(bias));
  // One factor per column of out, which stacked sources share out among them and gate and up have in common.
  std::vector<const float*> scales;
  if (spec.outputScale >= 0) {
    const float* next = vector(spec.outputScale);
    for (const StoredMatrix& source : plan.sources) {
      scales.push_back(next);
      if (!spec.siluMul) next += source.rows;
    }
  }
  for (int s = 0; s < plan.linear.segmentCount; ++s) {
    PackedSegment& segment = plan.segments[static_cast<size_t>(s)];
    segment.data = arena;
    arena += segment.pairs * segment.records * segment.recordBytes;
    const int64_t chunk = std::max<int64_t>(1, kPackedAtOnce / (segment.records * segment.recordBytes));
    for (int64_t first = 0; first < segment.pairs; first += chunk) {
      const int64_t count = std::min(chunk, segment.pairs - first);
      parallelFor(count, [&](int64_t begin, int64_t end) { packPairs(plan, s, first + begin, first + end); });
      releaseSources(spec);
    }
    if (!biases.empty()) {
      packedBiases_.push_back(packBias(plan, s, biases));
      segment.bias = packedBiases_.back().data();
    }
    if (!scales.empty()) {
      packedBiases_.push_back(packBias(plan, s, scales));
      segment.scale = packedBiases_.back().data();
    }
  }
  for (const int weight : spec.weights) bytesPacked_ += matrix(weight).rows * storageRowBytes(matrix(weight).type, matrix(weight).columns);
}

void Model::releaseSources(const OpSpec& op) const {
  for (const int weight : op.weights) {
    const StoredMatrix& stored = matrix(weight);
    const MappedFile* file = fileOf_[static_cast<size_t>(weight)];
    if (!file) continue;
    const int64_t bytes = stored.rows * storageRowBytes(stored.type, stored.columns);
    file->release(static_cast<size_t>(stored.data - file->data()), static_cast<size_t>(bytes));
  }
}

void Model::buildRopeTables() {
  std::map<std::pair<std::vector<float>, float>, size_t> known;
  const int64_t half = spec_.headSize / 2;
  for (size_t i = 0; i < spec_.ops.size(); ++i) {
    const OpSpec& op = spec_.ops[i];
    if (op.kind != OpKind::kRopeAndCache || op.inverseFrequencies.empty()) continue;
    const auto [entry, added] = known.try_emplace({op.inverseFrequencies, op.magnitude}, ropeTables_.size());
    ropeOf_[i] = entry->second;
    if (!added) continue;
    std::vector<float>& table = ropeTables_.emplace_back(static_cast<size_t>(spec_.maxPositions * half * 2));
    parallelFor(spec_.maxPositions, [&](int64_t begin, int64_t end) {
      for (int64_t position = begin; position < end; ++position) {
        float* row = table.data() + position * half * 2;
        for (int64_t j = 0; j < half; ++j) {
          // The angle is rounded to fp32, as the models were trained; its cosine and sine are exact to fp32.
          const float angle = static_cast<float>(position) * op.inverseFrequencies[static_cast<size_t>(j)];
          row[j] = static_cast<float>(std::cos(static_cast<double>(angle))) * op.magnitude;
          row[half + j] = static_cast<float>(std::sin(static_cast<double>(angle))) * op.magnitude;
        }
      }
    });
  }
}

}  // namespace nvlm
