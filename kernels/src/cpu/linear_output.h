// What becomes of the sums of a pair of channel blocks: bias, gelu or silu(gate) * up, a factor per column, residual, memory.
#pragma once
#include "linear.h"
#include "simd.h"

namespace nvlm::NVLM_PATH {

// Where the columns of one pair go.
struct PairOutput {
  const float* bias;      // 32 values or null
  const float* scale;     // 32 values or null
  const float* residual;  // first row, first column, or null
  float* out;             // first row, first column
  int64_t stride;         // floats between rows
  int columns;            // 1..32, or 1..16 with siluMul
  bool siluMul;
  bool gelu;

  NVLM_INLINE PairOutput from(int64_t row) const {
    PairOutput output = *this;
    output.out += row * stride;
    if (residual) output.residual += row * stride;
    return output;
  }
};

// Fetches the lines that finishRow will write and read of the first rows, while they are computed: another core may have them, and
// a store that waits for its line holds up all stores behind it.
NVLM_INLINE void fetchOutput(const PairOutput& output, int64_t rows) {
  constexpr int64_t kMostRows = 16;
  for (int64_t r = 0; r < rows && r < kMostRows; ++r) {
    const float* out = output.out + r * output.stride;
    __builtin_prefetch(out, 1);
    if (output.columns > 16) __builtin_prefetch(out + 16, 1);
    if (output.residual) {
      const float* residual = output.residual + r * output.stride;
      __builtin_prefetch(residual);
      if (output.columns > 16) __builtin_prefetch(residual + 16);
    }
  }
}

// x / 2 * erfc(-x / sqrt(2)). erfc is the Chebyshev fit of Press et al., Numerical Recipes (1992), 6.2: relative error below
// 1.2e-7 in exact arithmetic, so that the small values of negative x keep their digits.
NVLM_INLINE F32x16 gelu(F32x16 x) {
  const F32x16 one = splat(1.0f);
  const F32x16 z = abs(x) * splat(0.70710678118654752f);
  const F32x16 t = one / fma(z, splat(0.5f), one);
  F32x16 p = splat(0.17087277f);
  p = fma(p, t, splat(-0.82215223f));
  p = fma(p, t, splat(1.48851587f));
  p = fma(p, t, splat(-1.13520398f));
  p = fma(p, t, splat(0.27886807f));
  p = fma(p, t, splat(-0.18628806f));
  p = fma(p, t, splat(0.09678418f));
  p = fma(p, t, splat(0.37409196f));
  p = fma(p, t, splat(1.00002368f));
  p = fma(p, t, splat(-1.26551223f));
  // The rounding of z^2 is given back: it would be multiplied by the exponent.
  const F32x16 square = z * z;
  const F32x16 rest = fma(z, z, zero() - square);
  const F32x16 tail = t * exp(p - square) * (one - rest);
  return x * splat(0.5f) * selectLess(x, zero(), tail, splat(2.0f) - tail);
}

NVLM_INLINE void storeColumns(float* out, const float* residual, F32x16 value, int columns) {
  if (columns >= kLanes) {
    store(out, residual ? value + load(residual) : value);
  } else if (columns > 0) {
    storePartial(out, residual ? value + loadPartial(residual, columns) : value, columns);
  }
}

// One row's sums of both blocks, through bias, silu(gate) * up and residual, to memory.
NVLM_INLINE void finishRow(const PairOutput& output, int64_t row, F32x16 first, F32x16 second) {
  if (output.bias) {
    first = first + load(output.bias);
    second = second + load(output.bias + 16);
  }
  if (output.gelu) {
    first = gelu(first);
    second = gelu(second);
  }
  float* out = output.out + row * output.stride;
  const float* residual = output.residual ? output.residual + row * output.stride : nullptr;
  if (output.siluMul) {
    const F32x16 gate = first / (splat(1.0f) + exp(zero() - first));
    const F32x16 product = gate * second;
    storeColumns(out, residual, output.scale ? product * load(output.scale) : product, output.columns);
  } else {
    if (output.scale) {
      first = first * load(output.scale);
      second = second * load(output.scale + 16);
    }
    storeColumns(out, residual, first, output.columns);
    storeColumns(out + 16, residual ? residual + 16 : nullptr, second, output.columns - 16);
  }
}

}  // namespace nvlm::NVLM_PATH
