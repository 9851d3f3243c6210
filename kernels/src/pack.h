// Turns stored weights into the panels of linear.h.
#pragma once
#include <string>
#include <vector>

#include "cpu/linear.h"
#include "format.h"

namespace nvlm {

// The order is that of COMPUTE_TYPES in kernels/cpu/addon.ts.
enum class ComputeType : int { kFloat32, kBfloat16, kInt8, kInt4, kAuto };

// A stored matrix, row-major. Logical rows are reordered per head when `rotaryHead` is not 0: see WeightSource.rowOrder.
struct StoredMatrix {
  StorageType type;
  int64_t rows, columns;
  int64_t rotaryHead;
  const uint8_t* data;  // null until mapped

  int64_t storedRow(int64_t logical) const;
  const uint8_t* row(int64_t logical) const;
};

// Arithmetic that a linear over weights of `type` runs in.
ComputeType resolveComputeType(StorageType type, ComputeType requested);

// A PackedLinear with its segments, their sizes known and their memory not yet there.
struct LinearPlan {
  PackedLinear linear{};
  std::vector<PackedSegment> segments;
  // Index into `sources` of the first matrix of each segment, and one past the last.
  std::vector<int> firstSource;
  std::vector<StoredMatrix> sources;
  int64_t bytes = 0;  // of all panels
};

// `sources` are stacked along the outputs; with siluMul they are gate and up. `wide` says that the path prepares activations as
// linear_wide.h describes.
LinearPlan planLinear(std::vector<StoredMatrix> sources, bool siluMul, ComputeType requested, bool wide);

// Writes pairs [begin, end) of one segment, whose data pointer is set.
void packPairs(const LinearPlan& plan, int segment, int64_t begin, int64_t end);

// Bias values in the order of the channels of a segment's pairs, zero-padded. `biases[i]` belongs to plan.sources[i].
std::vector<float> packBias(const LinearPlan& plan, int segment, const std::vector<const float*>& biases);

}  // namespace nvlm
