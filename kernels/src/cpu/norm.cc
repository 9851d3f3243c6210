// Norms over the rows of a tensor, the rows shared among the threads.
#include "kernels.h"
#include "simd.h"

namespace nvlm::NVLM_PATH {
namespace {

// Values between two calls of Lane::fetchAhead.
constexpr int64_t kFetchValues = 256;

// Calls body(i, n) for vectors of n lanes at i: whole ones, then what is left.
template <class Body>
NVLM_INLINE void forVectors(int64_t width, const Body& body) {
  const int64_t whole = width / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) body(i, kLanes);
  if (whole < width) body(whole, static_cast<int>(width - whole));
}

NVLM_INLINE void normInPlace(float* x, const float* weight, int64_t width, int64_t meanWidth, float eps) {
  F32x16 squares = zero();
  forVectors(meanWidth, [&](int64_t i, int n) NVLM_INLINE_LAMBDA {
    const F32x16 value = loadPartial(x + i, n);
    squares = fma(value, value, squares);
  });
  const float mean = horizontalSum(squares) / static_cast<float>(meanWidth);
  const F32x16 factor = splat(1.0f / __builtin_sqrtf(mean + eps));
  forVectors(width, [&](int64_t i, int n) NVLM_INLINE_LAMBDA {
    storePartial(x + i, loadPartial(x + i, n) * factor * loadPartial(weight + i, n), n);
  });
}

}  // namespace

// out = x * rsqrt(mean(x^2) + eps) * weight.
void rmsNorm(const RmsNormArgs& args, const Lane& lane) {
  int64_t begin, end;
  lane.share(args.rows, &begin, &end);
  const int64_t width = args.width;
  const int64_t whole = width / kLanes * kLanes;
  const int tail = static_cast<int>(width - whole);
  for (int64_t r = begin; r < end; ++r) {
    const float* x = args.x + r * width;
    if (args.residual) {
      float* residual = args.residual + r * width;
      for (int64_t i = 0; i < whole; i += kLanes) store(residual + i, load(residual + i) + load(x + i));
      if (tail > 0) {
        storePartial(residual + whole, loadPartial(residual + whole, tail) + loadPartial(x + whole, tail), tail);
      }
      x = residual;
    }
    F32x16 squares = zero();
    for (int64_t i = 0; i < whole; i += kLanes) {
      squares = fma(load(x + i), load(x + i), squares);
      if (i % kFetchValues == 0) lane.fetchAhead();
    }
    if (tail > 0) {
      const F32x16 rest = loadPartial(x + whole, tail);
      squares = fma(rest, rest, squares);
    }
    const float mean = horizontalSum(squares) / static_cast<float>(width);
    const F32x16 factor = splat(1.0f / __builtin_sqrtf(mean + args.eps));
    float* out = args.out + r * width;
    for (int64_t i = 0; i < whole; i += kLanes) {
      store(out + i, load(x + i) * factor * load(args.weight + i));
      if (i % kFetchValues == 0) lane.fetchAhead();
    }
    if (tail > 0) {
      storePartial(out + whole, loadPartial(x + whole, tail) * factor * loadPartial(args.weight + whole, tail), tail);
    }
  }
}

// out = (x - mean) * rsqrt(mean((x - mean)^2) + eps) * weight + bias.
void layerNorm(const LayerNormArgs& args, const Lane& lane) {
  int64_t begin, end;
  lane.share(args.rows, &begin, &end);
  for (int64_t r = begin; r < end; ++r) {
    const float* x = args.x + r * args.width;
    float* out = args.out + r * args.width;
    F32x16 sum = zero();
    forVectors(args.width, [&](int64_t i, int n) NVLM_INLINE_LAMBDA { sum = sum + loadPartial(x + i, n); });
    const float mean = horizontalSum(sum) / static_cast<float>(args.width);
    const F32x16 centre = splat(mean);
    F32x16 squares = zero();
    forVectors(args.width, [&](int64_t i, int n) NVLM_INLINE_LAMBDA {
      // Lanes beyond the row take the mean itself, whose distance is 0.
      const F32x16 distance = loadPartial(x + i, n, mean) - centre;
      squares = fma(distance, distance, squares);
    });
    const float variance = horizontalSum(squares) / static_cast<float>(args.width);
    const F32x16 factor = splat(1.0f / __builtin_sqrtf(variance + args.eps));
    forVectors(args.width, [&](int64_t i, int n) NVLM_INLINE_LAMBDA {
      const F32x16 normed = (loadPartial(x + i, n) - centre) * factor;
      storePartial(out + i, fma(normed, loadPartial(args.weight + i, n), loadPartial(args.bias + i, n)), n);
    });
  }
}

void queryKeyNorm(const QueryKeyNormArgs& args, const Lane& lane) {
  int64_t begin, end;
  lane.share(args.rows, &begin, &end);
  for (int64_t r = begin; r < end; ++r) {
    float* row = args.qkv + r * args.width;
    normInPlace(row, args.queryWeight, args.queryWidth, args.meanWidth, args.eps);
    normInPlace(row + args.queryWidth, args.keyWeight, args.keyWidth, args.meanWidth, args.eps);
  }
}

}  // namespace nvlm::NVLM_PATH
