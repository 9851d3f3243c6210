// One runner: a workspace, a team of threads, and the inputs and outputs of the step in flight.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model.h"
#include "team.h"

namespace nvlm {

// Copies of a step's inputs, but for inputRows, which the caller keeps alive; the meaning of each is in kernels/step.ts.
// Validated in TypeScript.
struct StepInputs {
  std::vector<int32_t> tokenIds, positions, slotMapping, cuSeqlensQ, seqLens, blockTables, logitRows;
  std::vector<float> temperature, topP, minP, repetitionPenalty, presencePenalty, frequencyPenalty, biasValues;
  std::vector<int32_t> topK, seenOffsets, seenIds, seenCounts, biasOffsets, biasIds, wantLogprobs;
  std::vector<uint32_t> seed, position, allowedMask;
  std::vector<int32_t> inputTargets;
  const float* inputRows = nullptr;
  int maxBlocks = 0;
};

// Memory that the caller keeps alive until the step has finished; `logits` and members of `tensors` are copied out on lane 0.
struct StepOutputs {
  int32_t* tokenIds = nullptr;
  float* logprobs = nullptr;
  int32_t* topIds = nullptr;
  float* topLogprobs = nullptr;
  int maxTop = 0;
  float* logits = nullptr;  // null: not wanted
  struct Tensor {
    int id;
    float* values;
  };
  std::vector<Tensor> tensors;
};

class Runner {
 public:
  // `finished` is called on a thread of the runner when a step has ended.
  Runner(std::shared_ptr<const Model> model, int threads, std::function<void()> finished);

  StepInputs inputs;
  StepOutputs outputs;
  // Starts a step over `inputs`; one at a time.
  void start();

 private:
  void runOps(const Lane& lane);
  void runOp(size_t index, const Lane& lane, const float* x);
  const float* normForOneself(const OpSpec& op, const Lane& lane) const;
  void embed(const OpSpec& op, const Lane& lane) const;
  void gather(const OpSpec& op, const Lane& lane) const;
  void copyIn(const OpSpec& op, const Lane& lane) const;
  void scatter(const OpSpec& op, const Lane& lane) const;
  void drawTokens(const OpSpec& op, const Lane& lane);
  void copyOut();
  void poisonMemory(const Lane& lane);
  // What runOps needs to know of the ops to spare barriers and memory's idle time where a step has few rows.
  void planFewRows(int threads);
  RmsNormArgs normArgs(const OpSpec& op, float* out) const;
  LayerNormArgs layerNormArgs(const OpSpec& op) const;
  QueryKeyNormArgs queryKeyNormArgs(const OpSpec& op) const;
  AttentionArgs attentionArgs(const OpSpec& op) const;
  int64_t rowsOf(int tensor) const;
  int64_t widthOf(int tensor) const { return model_->spec().tensors[static_cast<size_t>(tensor)].width; }
  float* tensor(int id) const { return tensors_[static_cast<size_t>(id)]; }

  std::shared_ptr<const Model> model_;
  StepView step_{};
  Region workspace_, shared_, ownRows_;
  size_t ownRowsBytes_ = 0;
  std::vector<bool> fusedNorm_;      // by op: a norm whose lanes may each compute all rows, for the linear after it
  std::vector<size_t> nextLinear_;   // by op: the linear after it, or the number of ops
  std::vector<float*> tensors_;
  // Last: its threads use everything above.
  std::unique_ptr<Team> team_;
};

}  // namespace nvlm
