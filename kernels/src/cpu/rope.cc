// Rotary position embedding (Su et al., RoFormer, 2021; half-split order) and the write of keys and values into the paged cache.
#include "cache_layout.h"
#include "kernels.h"
#include "narrow.h"

namespace nvlm::NVLM_PATH {
namespace {

constexpr int kMaxHeadSize = 256;

// x (D) in place; cosSin is D/2 cosines, then D/2 sines.
NVLM_INLINE void rotate(float* x, const float* cosSin, int half) {
  for (int i = 0; i < half; i += kLanes) {
    const int n = half - i < kLanes ? half - i : kLanes;
    const F32x16 cosine = loadPartial(cosSin + i, n);
    const F32x16 sine = loadPartial(cosSin + half + i, n);
    const F32x16 first = loadPartial(x + i, n);
    const F32x16 second = loadPartial(x + half + i, n);
    storePartial(x + i, first * cosine - second * sine, n);
    storePartial(x + half + i, second * cosine + first * sine, n);
  }
}

// out (D rounded up to 16) = bf16 of x (D).
NVLM_INLINE void toBf16(uint16_t* out, const float* x, int headSize) {
  for (int d = 0; d < headSize; d += kLanes) {
    const int n = headSize - d < kLanes ? headSize - d : kLanes;
    storeBf16(out + d, loadPartial(x + d, n));
  }
}

// x (n) as int8 codes of one scale, the least bf16 with which the largest magnitude fits 127; NaN when a value is not finite. Writes
// whole vectors of 32 codes.
NVLM_INLINE void toInt8(int8_t* codes, uint8_t* scale, const float* x, int n) {
  const auto value = [&](int first) NVLM_INLINE_LAMBDA {
    const int left = n - first;
    return loadPartial(x + first, left < 0 ? 0 : left < kLanes ? left : kLanes);
  };
  F32x16 magnitudes = zero();
  for (int d = 0; d < n; d += kLanes) magnitudes = largerMagnitude(magnitudes, value(d));
  const float largest = largestMagnitude(magnitudes), least = largest * (1.0f / 127.0f);
  uint32_t bits;
  std::memcpy(&bits, &least, 4);
  bits = (bits + 0xffff) & 0xffff0000;
  float step;
  std::memcpy(&step, &bits, 4);
  const F32x16 inverse = splat(step > 0.0f ? 1.0f / step : 0.0f);
  for (int d = 0; d < n; d += 2 * kLanes) {
    const auto rounded = [&](int first) NVLM_INLINE_LAMBDA { return roundToInt(min(value(first) * inverse, splat(127.0f))); };
    storeInt8(codes + d, rounded(d), rounded(d + kLanes));
  }
  step += largest * 0.0f;
  std::memcpy(&bits, &step, 4);
  const uint16_t high = static_cast<uint16_t>(bits >> 16);
  std::memcpy(scale, &high, 2);
}

NVLM_INLINE void storeKey(uint8_t* group, int lane, const float* x, int headSize, const BlockLayout& layout, CacheType type) {
  if (type == CacheType::kInt8) {
    alignas(64) int8_t codes[kMaxHeadSize];
    uint8_t* scale = group + layout.keyScales + 2 * lane;
    for (int d = 0; d < headSize; d += kKeyScaleSpan, scale += 2 * kKeyGroup) {
      toInt8(codes + d, scale, x + d, headSize - d < kKeyScaleSpan ? headSize - d : kKeyScaleSpan);
    }
    uint8_t* to = group + lane * 2;
    for (int d = 0; d < headSize; d += 2, to += layout.keyStep) std::memcpy(to, codes + d, 2);
    return;
  }
  uint8_t* to = group + lane * 4;
  if (type == CacheType::kF32) {
    for (int d = 0; d < headSize; ++d) std::memcpy(to + d * kKeyGroup * 4, x + d, 4);
    return;
  }
  alignas(64) uint16_t rounded[kMaxHeadSize];
  toBf16(rounded, x, headSize);
  for (int d = 0; d < headSize; d += 2) std::memcpy(to + d / 2 * kKeyGroup * 4, rounded + d, 4);
}

// Writes one half of a pair at a time: the other belongs to a token that another thread may be writing.
NVLM_INLINE void storeValue(uint8_t* group, int lane, const float* x, int headSize, const BlockLayout& layout, CacheType type) {
  const int64_t step = layout.valueStep;
  if (type == CacheType::kF32) {
    std::memcpy(group + lane * step, x, headSize * sizeof(float));
    return;
  }
  if (type == CacheType::kInt8) {
    alignas(64) int8_t codes[kMaxHeadSize];
    toInt8(codes, group + layout.valueScales + 2 * lane, x, headSize);
    uint8_t* to = group + lane / 2 * step + lane % 2;
    for (int d = 0; d < headSize; ++d) to[d * 2] = static_cast<uint8_t>(codes[d]);
    return;
  }
  alignas(64) uint16_t rounded[kMaxHeadSize];
  toBf16(rounded, x, headSize);
  uint8_t* to = group + lane / 2 * step + lane % 2 * 2;
  for (int d = 0; d < headSize; ++d) std::memcpy(to + d * 4, rounded + d, 2);
}

}  // namespace

void ropeAndCache(const RopeAndCacheArgs& args, const Lane& lane) {
  const CacheLayer& cache = args.cache;
  const StepView& step = *args.step;
  const int headSize = cache.headSize, half = headSize / 2;
  const int headsPerToken = args.heads + 2 * cache.kvHeads;
  const BlockLayout layout = blockLayout(cache.blockSize, cache.kvHeads, headSize, cache.type);

  int64_t begin, end;
  lane.share(static_cast<int64_t>(step.tokens) * headsPerToken, &begin, &end);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int token = static_cast<int>(unit / headsPerToken);
    const int head = static_cast<int>(unit % headsPerToken);
    float* x = args.qkv + unit * headSize;
    lane.fetchAhead();
    const bool isValue = head >= args.heads + cache.kvHeads;
    if (!isValue && args.cosSin) rotate(x, args.cosSin + static_cast<int64_t>(step.positions[token]) * headSize, half);

    const int slot = step.slotMapping[token];
    if (head < args.heads || slot < 0) continue;
    const int offset = slot % cache.blockSize;
    const int group = offset / kKeyGroup, groupLane = offset % kKeyGroup;
    const int kvHead = (head - args.heads) % cache.kvHeads;
    uint8_t* keys = cache.base + slot / cache.blockSize * cache.blockStride + kvHead * layout.head;
    if (isValue) {
      storeValue(keys + layout.valuesBegin + group * layout.valueGroup, groupLane, x, headSize, layout, cache.type);
    } else {
      storeKey(keys + group * layout.keyGroup, groupLane, x, headSize, layout, cache.type);
    }
  }
}

}  // namespace nvlm::NVLM_PATH
