// Passes over one row of logits: highest, softmax sum, candidates above a threshold, best ids. NaN counts as -infinity.
#pragma once
#include "sample_select.h"

namespace nvlm::NVLM_PATH {

constexpr float kNoLogit = -__builtin_inff();

constexpr int kDoubles = kPartBytes / 8;
typedef double DoublePart __attribute__((vector_size(kPartBytes)));
typedef int64_t LongPart __attribute__((vector_size(kPartBytes)));

// e^x for x <= 0, within 2 ulp of double precision; 0 below -700 and for NaN.
NVLM_INLINE DoublePart expDouble(DoublePart x) {
  const double magic = 0x1.8p52;  // adding and subtracting it rounds to the nearest integer
  const DoublePart bounded = x > -700.0 ? x : DoublePart{} - 700.0;
  const DoublePart shifted = bounded * 1.4426950408889634074 + magic;
  const DoublePart n = shifted - magic;
  const DoublePart r = (bounded - n * 0x1.62e42fee00000p-1) - n * 0x1.a39ef35793c76p-33;
  // Taylor's series: the first term left out is below 4e-18 for |r| <= ln(2) / 2.
  const double inverseFactorial[] = {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880,
                                     1.0 / 40320, 1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0};
  DoublePart p = DoublePart{};
  for (const double coefficient : inverseFactorial) p = p * r + coefficient;
  const LongPart exponent = (reinterpret_cast<LongPart>(shifted) - (0x4338000000000000 - 1023)) << 52;
  const DoublePart power = reinterpret_cast<DoublePart>(exponent);
  return x > -700.0 ? p * power : DoublePart{};
}

struct Best {
  int32_t id;  // -1: nothing above -infinity
  float logit;
};

// The highest of `count` logits, ties to the lower id.
NVLM_INLINE Best highest(const float* logits, int count) {
  constexpr int kChunk = 8 * kLanes;
  Best best{-1, kNoLogit};
  int bestChunk = -1;
  for (int begin = 0; begin < count; begin += kChunk) {
    F32x16 top[2] = {splat(kNoLogit), splat(kNoLogit)};
    if (begin + kChunk <= count) {
      for (int i = 0; i < kChunk; i += kLanes) top[i / kLanes % 2] = max(load(logits + begin + i), top[i / kLanes % 2]);
    } else {
      for (int i = begin; i < count; i += kLanes) {
        top[0] = max(loadPartial(logits + i, count - i < kLanes ? count - i : kLanes, kNoLogit), top[0]);
      }
    }
    const float chunkTop = horizontalMax(max(top[0], top[1]));
    if (chunkTop > best.logit) {
      best.logit = chunkTop;
      bestChunk = begin;
    }
  }
  if (bestChunk < 0) return best;
  best.id = bestChunk;
  while (logits[best.id] != best.logit) ++best.id;
  return best;
}

// Sum of e^((logit - peak) * factor) over the logits below `threshold`; peak is the highest logit and finite. Single precision
// per term, double for the sum of every 64 vectors.
NVLM_INLINE double softmaxSumBelow(const float* logits, int count, float threshold, float peak, double factor) {
  constexpr int kRun = 64 * kLanes;
  const F32x16 none = splat(kNoLogit), limit = splat(threshold), top = splat(peak);
  const F32x16 scale = splat(static_cast<float>(factor));
  double total = 0;
  for (int begin = 0; begin < count; begin += kRun) {
    const int end = begin + kRun < count ? begin + kRun : count;
    F32x16 sum = zero();
    for (int i = begin; i < end; i += kLanes) {
      const F32x16 x = max(i + kLanes <= end ? load(logits + i) : loadPartial(logits + i, end - i, kNoLogit), none);
      sum = sum + exp(selectLess(x, limit, (x - top) * scale, none));
    }
    total += horizontalSum(sum);
  }
  return total;
}

// Calls visit(id, logit) for every logit >= threshold, ascending ids; runs of logits below it are skipped at vector speed.
// `threshold` is read again for every run.
template <class Visit>
NVLM_INLINE void visitFrom(const float* logits, int count, const float& threshold, const Visit& visit) {
  constexpr int kRun = 4 * kLanes;
  int begin = 0;
  for (; begin + kRun <= count; begin += kRun) {
    F32x16 top = splat(kNoLogit);
    for (int i = 0; i < kRun; i += kLanes) top = max(load(logits + begin + i), top);
    if (!(horizontalMax(top) >= threshold)) continue;
    for (int i = begin; i < begin + kRun; ++i) {
      if (logits[i] >= threshold) visit(i, logits[i]);
    }
  }
  for (; begin < count; ++begin) {
    if (logits[begin] >= threshold) visit(begin, logits[begin]);
  }
}

// The candidates with logit >= threshold, threshold above -infinity; returns how many.
NVLM_INLINE int64_t collect(const float* logits, int count, float threshold, float peak, double factor, Candidate* to) {
  int64_t found = 0;
  visitFrom(logits, count, threshold, [&](int id, float logit) {
    to[found++] = {candidateOrder(logit, id), (static_cast<double>(logit) - static_cast<double>(peak)) * factor};
  });
  for (int64_t i = 0; i < found; i += kDoubles) {
    DoublePart exponents{};
    const int n = found - i < kDoubles ? static_cast<int>(found - i) : kDoubles;
    for (int j = 0; j < n; ++j) exponents[j] = to[i + j].weight;
    exponents = expDouble(exponents);
    for (int j = 0; j < n; ++j) to[i + j].weight = exponents[j];
  }
  return found;
}

// The `wanted` best ids of a row and their log-probabilities, best first, ties by lower id; -1 and NaN where there are fewer.
NVLM_INLINE void bestIds(const float* logits, int count, int wanted, double normaliser, int32_t* ids, float* logprobs) {
  int kept = 0;
  float threshold = -3.402823466e38f;  // ids at -infinity are none of the best
  if (wanted > 0) {
    visitFrom(logits, count, threshold, [&](int id, float logit) {
      if (kept == wanted && !(logit > logprobs[wanted - 1])) return;
      int at = kept < wanted ? kept++ : wanted - 1;
      for (; at > 0 && logit > logprobs[at - 1]; --at) {
        ids[at] = ids[at - 1];
        logprobs[at] = logprobs[at - 1];
      }
      ids[at] = id;
      logprobs[at] = logit;
      if (kept == wanted) threshold = logprobs[wanted - 1];
    });
  }
  for (int i = 0; i < kept; ++i) logprobs[i] = static_cast<float>(static_cast<double>(logprobs[i]) - normaliser);
  for (int i = kept; i < wanted; ++i) {
    ids[i] = -1;
    logprobs[i] = __builtin_nanf("");
  }
}

}  // namespace nvlm::NVLM_PATH
