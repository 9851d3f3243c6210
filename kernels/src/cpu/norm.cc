// out = x * rsqrt(mean(x^2) + eps) * weight, rows shared among the threads.
#include "kernels.h"
#include "simd.h"

namespace nvlm::NVLM_PATH {

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
    for (int64_t i = 0; i < whole; i += kLanes) squares = fma(load(x + i), load(x + i), squares);
    if (tail > 0) {
      const F32x16 rest = loadPartial(x + whole, tail);
      squares = fma(rest, rest, squares);
    }
    const float mean = horizontalSum(squares) / static_cast<float>(width);
    const F32x16 factor = splat(1.0f / __builtin_sqrtf(mean + args.eps));
    float* out = args.out + r * width;
    for (int64_t i = 0; i < whole; i += kLanes) store(out + i, load(x + i) * factor * load(args.weight + i));
    if (tail > 0) {
      storePartial(out + whole, loadPartial(x + whole, tail) * factor * loadPartial(args.weight + whole, tail), tail);
    }
  }
}

}  // namespace nvlm::NVLM_PATH
