#include "runner.h"

#include <algorithm>
#include <cstring>

#include "cpu/linear.h"

namespace nvlm {
namespace {

// Bytes of the next linear's panels that a lane fetches during the ops between two linears: what memory gives one core in that time,
// and well within a second-level cache.
constexpr int64_t kReadAheadBytes = 128 << 10;

}  // namespace

Runner::Runner(std::shared_ptr<const Model> model, int threads, std::function<void()> finished)
    : model_(std::move(model)) {
  const ModelSpec& spec = model_->spec();
  size_t bytes = 0;
  for (const TensorSpec& tensor : spec.tensors) bytes += static_cast<size_t>(spec.maxTokens * tensor.width * 4 + 127) / 64 * 64;
  // Pages are taken as rows are used: logits for every token are address space, not memory, until someone asks for them.
  workspace_ = Region(bytes, false, "activations");
  uint8_t* next = workspace_.data();
  for (const TensorSpec& tensor : spec.tensors) {
    tensors_.push_back(reinterpret_cast<float*>(next));
    next += static_cast<size_t>(spec.maxTokens * tensor.width * 4 + 127) / 64 * 64;
  }
  size_t lane = 0, shared = 0;
  StepView largest{};
  largest.tokens = static_cast<int>(spec.maxTokens);
  largest.sequences = static_cast<int>(spec.maxSequences);
  largest.maxBlocks = static_cast<int>((spec.maxPositions + spec.blockSize - 1) / spec.blockSize);
  step_ = largest;
  for (size_t i = 0; i < spec.ops.size(); ++i) {
    const OpSpec& op = spec.ops[i];
    if (op.kind == OpKind::kLinear) {
      lane = std::max(lane, linearLaneBytes(model_->linear(i)));
      shared = std::max(shared, linearSharedBytes(model_->linear(i), spec.maxTokens));
    } else if (op.kind == OpKind::kAttention) {
      lane = std::max(lane, model_->kernels().attentionScratchBytes(attentionArgs(op)));
    } else if (op.kind == OpKind::kSample) {
      lane = std::max(lane, model_->kernels().sampleScratchBytes(spec.vocabularyRows));
    }
  }
  shared_ = Region(shared, false, "prepared activations");
  planFewRows(threads);
  team_ = std::make_unique<Team>(
      threads, lane, [this](const Lane& own) { runOps(own); },
      [this, finished = std::move(finished)] {
        copyOut();
        finished();
      });
}

void Runner::planFewRows(int threads) {
  const std::vector<OpSpec>& ops = model_->spec().ops;
  fusedNorm_.resize(ops.size());
  nextLinear_.resize(ops.size());
  int64_t widest = 0;
  size_t next = ops.size();
  for (size_t i = ops.size(); i-- > 0;) {
    nextLinear_[i] = next;
    if (ops[i].kind == OpKind::kLinear) next = i;
    if (ops[i].kind != OpKind::kRmsNorm || ops[i].residual >= 0 || i + 1 == ops.size()) continue;
    const OpSpec& linear = ops[i + 1];
    // What one lane writes without a barrier, no other may read.
    fusedNorm_[i] = linear.kind == OpKind::kLinear && linear.x == ops[i].out && linear.out != ops[i].x &&
                    linear.out != ops[i].out && linear.residual != ops[i].out;
    if (fusedNorm_[i]) widest = std::max(widest, model_->spec().tensors[static_cast<size_t>(linear.x)].width);
  }
  ownRowsBytes_ = static_cast<size_t>(kOwnRows * widest * 4 + 63) / 64 * 64;
  ownRows_ = Region(ownRowsBytes_ * static_cast<size_t>(threads), false, "activations of the threads");
}

void Runner::start() {
  const ModelSpec& spec = model_->spec();
  step_ = {static_cast<int>(inputs.tokenIds.size()),
           static_cast<int>(inputs.seqLens.size()),
           static_cast<int>(inputs.logitRows.size()),
           inputs.tokenIds.data(),
           inputs.positions.data(),
           inputs.slotMapping.data(),
           inputs.cuSeqlensQ.data(),
           inputs.seqLens.data(),
           inputs.blockTables.data(),
           inputs.maxBlocks,
           inputs.logitRows.data()};
  // Block tables may hold more keys than the rotary table has positions.
  for (const OpSpec& op : spec.ops) {
    if (op.kind == OpKind::kAttention) team_->reserveScratch(model_->kernels().attentionScratchBytes(attentionArgs(op)));
  }
  team_->start();
}

AttentionArgs Runner::attentionArgs(const OpSpec& op) const {
  const ModelSpec& spec = model_->spec();
  return {op.x >= 0 ? tensor(op.x) : nullptr,
          op.out >= 0 ? tensor(op.out) : nullptr,
          &step_,
          model_->cacheLayer(op.layer),
          spec.heads,
          op.scale,
          spec.partition,
          op.causal};
}

int64_t Runner::rowsOf(int id) const {
  switch (model_->spec().tensors[static_cast<size_t>(id)].rows) {
    case RowKind::kTokens:
      return step_.tokens;
    case RowKind::kLogitRows:
      return step_.logitRows;
    case RowKind::kInputRows:
      return static_cast<int64_t>(inputs.inputTargets.size());
  }
  return 0;
}

void Runner::runOps(const Lane& lane) {
  if (model_->spec().poison) {
    poisonMemory(lane);
    lane.sync();
  }
  *lane.ahead = {};
  const std::vector<OpSpec>& ops = model_->spec().ops;
  for (size_t i = 0; i < ops.size(); ++i) {
    if (i > 0) lane.sync();
    const float* normed = nullptr;
    if (fusedNorm_[i] && rowsOf(ops[i].x) <= kOwnRows) normed = normForOneself(ops[i++], lane);
    runOp(i, lane, normed);
    if (ops[i].kind == OpKind::kLinear && nextLinear_[i] < ops.size() && rowsOf(ops[i].out) <= kOwnRows) {
      *lane.ahead = linearReadAhead(model_->linear(nextLinear_[i]), lane, kReadAheadBytes);
    }
  }
}

// The rows of a norm, computed by every lane so that the linear after it needs no barrier before: lane 0 leaves them in the
// tensor, the others in memory of their own.
const float* Runner::normForOneself(const OpSpec& op, const Lane& lane) const {
  float* out = lane.index == 0 ? tensor(op.out)
                               : reinterpret_cast<float*>(ownRows_.data() + static_cast<size_t>(lane.index) * ownRowsBytes_);
  Lane alone{};
  alone.count = 1;
  alone.ahead = lane.ahead;
  model_->kernels().rmsNorm(normArgs(op, out), alone);
  return out;
}

RmsNormArgs Runner::normArgs(const OpSpec& op, float* out) const {
  return {tensor(op.x),
          op.residual >= 0 ? tensor(op.residual) : nullptr,
          model_->vector(op.weight),
          out,
          rowsOf(op.x),
          model_->spec().tensors[static_cast<size_t>(op.x)].width,
          op.eps};
}

void Runner::poisonMemory(const Lane& lane) {
  if (lane.scratchBytes > 0) std::memset(lane.scratch, 0xff, lane.scratchBytes);
  if (lane.index != 0) return;
  if (shared_.size() > 0) std::memset(shared_.data(), 0xff, shared_.size());
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const int64_t rows = std::max<int64_t>(rowsOf(static_cast<int>(i)), 1);
    std::memset(tensors_[i], 0xff, static_cast<size_t>(rows * model_->spec().tensors[i].width * 4));
  }
}

// `x`, if not null, stands for the rows of the tensor that a linear reads.
void Runner::runOp(size_t index, const Lane& lane, const float* x) {
  const OpSpec& op = model_->spec().ops[index];
  const KernelTable& kernels = model_->kernels();
  switch (op.kind) {
    case OpKind::kEmbedding:
      embed(op, lane);
      return;
    case OpKind::kRmsNorm:
      kernels.rmsNorm(normArgs(op, tensor(op.out)), lane);
      return;
    case OpKind::kLinear:
      kernels.linear({x ? x : tensor(op.x), &model_->linear(index), op.residual >= 0 ? tensor(op.residual) : nullptr,
                      tensor(op.out), rowsOf(op.x), shared_.data()},
                     lane);
      return;
    case OpKind::kRopeAndCache:
      kernels.ropeAndCache({tensor(op.x), model_->cosSin(index), &step_, model_->cacheLayer(op.layer), model_->spec().heads},
                           lane);
      return;
    case OpKind::kAttention:
      kernels.attention(attentionArgs(op), lane);
      return;
    case OpKind::kGatherRows:
      gather(op, lane);
      return;
    case OpKind::kSample:
      drawTokens(op, lane);
      return;
    case OpKind::kInput:
      copyIn(op, lane);
      return;
    case OpKind::kScatterRows:
      scatter(op, lane);
      return;
    case OpKind::kLayerNorm:
      kernels.layerNorm(layerNormArgs(op), lane);
      return;
    case OpKind::kQueryKeyNorm:
      kernels.queryKeyNorm(queryKeyNormArgs(op), lane);
      return;
  }
}

LayerNormArgs Runner::layerNormArgs(const OpSpec& op) const {
  return {tensor(op.x), model_->vector(op.weight), model_->vector(op.bias), tensor(op.out), rowsOf(op.x), widthOf(op.x), op.eps};
}

QueryKeyNormArgs Runner::queryKeyNormArgs(const OpSpec& op) const {
  const ModelSpec& spec = model_->spec();
  return {tensor(op.x),
          model_->vector(op.weights[0]),
          model_->vector(op.weights[1]),
          rowsOf(op.x),
          widthOf(op.x),
          static_cast<int64_t>(spec.heads) * spec.headSize,
          static_cast<int64_t>(spec.kvHeads) * spec.headSize,
          op.meanWidth,
          op.eps};
}

void Runner::copyIn(const OpSpec& op, const Lane& lane) const {
  const int64_t width = widthOf(op.out);
  int64_t begin, end;
  lane.share(rowsOf(op.out), &begin, &end);
  if (end > begin) {
    std::memcpy(tensor(op.out) + begin * width, inputs.inputRows + begin * width, static_cast<size_t>((end - begin) * width) * 4);
  }
}

// Targets are ascending: no two rows meet.
void Runner::scatter(const OpSpec& op, const Lane& lane) const {
  const int64_t width = widthOf(op.x);
  int64_t begin, end;
  lane.share(rowsOf(op.x), &begin, &end);
  for (int64_t r = begin; r < end; ++r) {
    const float* from = tensor(op.x) + r * width;
    float* to = tensor(op.out) + inputs.inputTargets[static_cast<size_t>(r)] * width;
    if (!op.add) {
      std::memcpy(to, from, static_cast<size_t>(width) * 4);
      continue;
    }
    for (int64_t i = 0; i < width; ++i) to[i] += from[i];
  }
}

void Runner::embed(const OpSpec& op, const Lane& lane) const {
  const StoredMatrix& table = model_->matrix(op.weight);
  int64_t begin, end;
  lane.share(step_.tokens, &begin, &end);
  for (int64_t t = begin; t < end; ++t) {
    dequantizeRow(table.type, table.row(step_.tokenIds[t]), table.columns, tensor(op.out) + t * table.columns);
  }
}

void Runner::gather(const OpSpec& op, const Lane& lane) const {
  const int64_t width = widthOf(op.x);
  const int64_t count = static_cast<int64_t>(op.offsets.size());
  int64_t begin, end;
  lane.share(step_.logitRows, &begin, &end);
  for (int64_t l = begin; l < end; ++l) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = step_.logitRowIds[l] + op.offsets[static_cast<size_t>(i)];
      std::memcpy(tensor(op.out) + (l * count + i) * width, tensor(op.x) + row * width, static_cast<size_t>(width) * 4);
    }
  }
}

void Runner::drawTokens(const OpSpec& op, const Lane& lane) {
  if (outputs.logits) {
    // Before sampling, which may overwrite them.
    const int64_t values = static_cast<int64_t>(step_.logitRows) * model_->spec().vocabularyRows;
    int64_t begin, end;
    lane.share(values, &begin, &end);
    if (end > begin) std::memcpy(outputs.logits + begin, tensor(op.x) + begin, static_cast<size_t>(end - begin) * 4);
    lane.sync();
  }
  SampleArgs args{};
  args.logits = tensor(op.x);
  args.rows = step_.logitRows;
  args.vocabularyRows = model_->spec().vocabularyRows;
  args.validTokens = model_->spec().validTokens;
  args.temperature = inputs.temperature.data();
  args.topP = inputs.topP.data();
  args.minP = inputs.minP.data();
  args.repetitionPenalty = inputs.repetitionPenalty.data();
  args.presencePenalty = inputs.presencePenalty.data();
  args.frequencyPenalty = inputs.frequencyPenalty.data();
  args.topK = inputs.topK.data();
  args.seed = inputs.seed.data();
  args.position = inputs.position.data();
  args.seenOffsets = inputs.seenOffsets.data();
  args.seenIds = inputs.seenIds.data();
  args.seenCounts = inputs.seenCounts.data();
  args.biasOffsets = inputs.biasOffsets.data();
  args.biasIds = inputs.biasIds.data();
  args.biasValues = inputs.biasValues.data();
  args.allowedMask = inputs.allowedMask.empty() ? nullptr : inputs.allowedMask.data();
  args.wantLogprobs = inputs.wantLogprobs.data();
  args.maxTop = outputs.maxTop;
  args.outIds = outputs.tokenIds;
  args.outLogprobs = outputs.logprobs;
  args.topIds = outputs.topIds;
  args.topLogprobs = outputs.topLogprobs;
  model_->kernels().sample(args, lane);
}

void Runner::copyOut() {
  for (const StepOutputs::Tensor& wanted : outputs.tensors) {
    const int64_t values = rowsOf(wanted.id) * model_->spec().tensors[static_cast<size_t>(wanted.id)].width;
    if (values > 0) std::memcpy(wanted.values, tensor(wanted.id), static_cast<size_t>(values) * 4);
  }
}

}  // namespace nvlm
