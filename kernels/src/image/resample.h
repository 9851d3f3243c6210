// Separable resampling of 8-bit RGB with weights in fixed point: the arithmetic of engine/vision/resize.ts, which makes the weights.
#pragma once
#include <cstdint>

namespace nvlm {

// For each output position the first input position that counts, how many count, and their weights times 2^22.
struct ResampleAxis {
  int64_t outputs;
  int64_t taps;            // stored per output
  const int32_t* first;    // (outputs)
  const int32_t* count;    // (outputs)
  const int32_t* weights;  // (outputs, taps)
};

// (rows, width, 3) -> (rows, axis.outputs, 3)
void resampleRows(const uint8_t* source, int64_t width, int64_t rows, const ResampleAxis& axis, uint8_t* out);
// (any rows, width, 3) -> (axis.outputs, width, 3)
void resampleColumns(const uint8_t* source, int64_t width, const ResampleAxis& axis, uint8_t* out);

}  // namespace nvlm
