// Sampling, row by row; kernels/reference/sample.ts defines it stage by stage. Threads share rows. The logits are left as they
// are: a row with bias, mask or penalties is adjusted in scratch.
#include <cmath>

#include "kernels.h"
#include "philox.h"
#include "sample_scan.h"

namespace nvlm::NVLM_PATH {
namespace {

// Candidates this far (in units of temperature) below the highest logit are looked at only if the others do not settle the draw.
constexpr double kUsualDepth = 12.0;
constexpr float kLowestLogit = -3.402823466e38f;

int64_t adjustedBytes(int vocabularyRows) { return (static_cast<int64_t>(vocabularyRows) * 4 + 63) / 64 * 64; }

bool allowsAll(const uint32_t* mask, int count) {
  for (int word = 0; word < count / 32; ++word) {
    if (mask[word] != ~0u) return false;
  }
  return count % 32 == 0 || (~mask[count / 32] & ((1u << count % 32) - 1)) == 0;
}

// The row after bias, mask and penalties: the raw row itself where there are none, else `adjusted` filled.
const float* adjust(const SampleArgs& args, int row, const float* raw, float* adjusted) {
  const int valid = args.validTokens;
  const int64_t words = (static_cast<int64_t>(args.vocabularyRows) + 31) / 32;
  const uint32_t* mask = args.allowedMask ? args.allowedMask + row * words : nullptr;
  if (mask && allowsAll(mask, valid)) mask = nullptr;
  const int biasBegin = args.biasOffsets[row], biasEnd = args.biasOffsets[row + 1];
  const double repetition = args.repetitionPenalty[row], frequency = args.frequencyPenalty[row],
               presence = args.presencePenalty[row];
  const bool penalised = repetition != 1.0 || frequency != 0.0 || presence != 0.0;
  const int seenBegin = args.seenOffsets[row], seenEnd = penalised ? args.seenOffsets[row + 1] : seenBegin;
  if (!mask && biasBegin == biasEnd && seenBegin == seenEnd) return raw;

  for (int id = 0; id < valid; ++id) adjusted[id] = raw[id] == raw[id] ? raw[id] : kNoLogit;
  for (int i = biasBegin; i < biasEnd; ++i) {
    if (args.biasIds[i] < valid) adjusted[args.biasIds[i]] += args.biasValues[i];
  }
  for (int begin = 0; mask && begin < valid; begin += 32) {
    const uint32_t word = mask[begin / 32];
    if (word == ~0u) continue;
    for (int bit = 0; bit < 32 && begin + bit < valid; ++bit) {
      if (!(word >> bit & 1)) adjusted[begin + bit] = kNoLogit;
    }
  }
  for (int i = seenBegin; i < seenEnd; ++i) {
    const int id = args.seenIds[i];
    if (id >= valid) continue;
    const double logit = adjusted[id];
    adjusted[id] = static_cast<float>(logit > 0 ? logit / repetition : logit * repetition);
    const int count = args.seenCounts[i];
    if (count > 0) adjusted[id] = static_cast<float>(adjusted[id] - (count * frequency + presence));
  }
  return adjusted;
}

// Logits from here on are weighed in double precision; the many below make up a small part of a sum.
float usualThreshold(float peak, double inverseTemperature) {
  const double usual = static_cast<double>(peak) - kUsualDepth / inverseTemperature;
  return usual > kLowestLogit ? static_cast<float>(usual) : kLowestLogit;
}

// Sum of e^(logit - peak).
double softmaxSum(const float* logits, int valid, float peak, Candidate* candidates) {
  const float threshold = usualThreshold(peak, 1.0);
  const int64_t count = collect(logits, valid, threshold, peak, 1.0, candidates);
  return totalWeight(candidates, count) + softmaxSumBelow(logits, valid, threshold, peak, 1.0);
}

struct Filters {
  double inverseTemperature;
  int topK;
  double topP, minP, draw;
};

// Draws among `count` candidates, the best of the row; `total` is the softmax sum over all that top-k leaves. Returns -1 where
// candidates beyond them could matter and `complete` does not say that there are none.
int32_t drawFrom(Candidate* candidates, int64_t count, double total, const Filters& filters, bool complete) {
  double mass = total;
  if (filters.topP < 1.0) {
    const double target = filters.topP * total;
    if (!complete && !(totalWeight(candidates, count) >= target)) return -1;
    count = selectPrefix(candidates, count, [&](int64_t, double weight) { return weight >= target; });
    mass = totalWeight(candidates, count);
    complete = true;
  }
  if (filters.minP > 0.0) {
    // The best weight is 1, so at least that one stays.
    int64_t kept = 0;
    for (int64_t i = 0; i < count; ++i) {
      if (!(candidates[i].weight >= filters.minP)) continue;
      const Candidate moved = candidates[i];
      candidates[i] = candidates[kept];
      candidates[kept++] = moved;
    }
    if (!complete && kept == count) return -1;
    count = kept;
    mass = totalWeight(candidates, count);
    complete = true;
  }
  const double target = filters.draw * mass;
  if (!complete && !(totalWeight(candidates, count) > target)) return -1;
  const int64_t drawn = selectPrefix(candidates, count, [&](int64_t, double weight) { return weight > target; });
  return candidates[drawn - 1].id();
}

int32_t draw(const float* logits, int valid, float peak, const Filters& filters, Candidate* candidates) {
  const float thresholds[2] = {usualThreshold(peak, filters.inverseTemperature), kLowestLogit};
  for (const float threshold : thresholds) {
    int64_t count = collect(logits, valid, threshold, peak, filters.inverseTemperature, candidates);
    double total = totalWeight(candidates, count);
    bool complete = threshold == kLowestLogit;
    if (filters.topK > 0) {
      if (!complete && count < filters.topK) continue;
      count = selectPrefix(candidates, count, [&](int64_t length, double) { return length >= filters.topK; });
      total = totalWeight(candidates, count);
      complete = true;
    } else if (!complete) {
      total += softmaxSumBelow(logits, valid, threshold, peak, filters.inverseTemperature);
    }
    const int32_t id = drawFrom(candidates, count, total, filters, complete);
    if (id >= 0) return id;
  }
  return -1;
}

int32_t choose(const SampleArgs& args, int row, const float* logits, Candidate* candidates) {
  const Best best = highest(logits, args.validTokens);
  const double temperature = args.temperature[row];
  if (best.id < 0 || temperature == 0.0 || best.logit == -kNoLogit) return best.id;
  const Filters filters{1.0 / temperature, args.topK[row], args.topP[row], args.minP[row],
                        uniformDraw(args.seed[2 * row], args.seed[2 * row + 1], args.position[row])};
  return draw(logits, args.validTokens, best.logit, filters, candidates);
}

}  // namespace

size_t sampleScratchBytes(int vocabularyRows) {
  return static_cast<size_t>(adjustedBytes(vocabularyRows)) + static_cast<size_t>(vocabularyRows) * sizeof(Candidate);
}

void sample(const SampleArgs& args, const Lane& lane) {
  float* adjusted = reinterpret_cast<float*>(lane.scratch);
  Candidate* candidates = reinterpret_cast<Candidate*>(lane.scratch + adjustedBytes(args.vocabularyRows));
  int64_t begin, end;
  lane.share(args.rows, &begin, &end);
  for (int row = static_cast<int>(begin); row < end; ++row) {
    const float* raw = args.logits + static_cast<int64_t>(row) * args.vocabularyRows;
    const int32_t id = choose(args, row, adjust(args, row, raw, adjusted), candidates);
    args.outIds[row] = id;

    const int wanted = args.wantLogprobs[row];
    int32_t* topIds = args.topIds + static_cast<int64_t>(row) * args.maxTop;
    float* topLogprobs = args.topLogprobs + static_cast<int64_t>(row) * args.maxTop;
    double normaliser = __builtin_nan("");
    if (wanted >= 0) {
      const float peak = highest(raw, args.validTokens).logit;
      if (peak > kNoLogit) normaliser = peak + std::log(softmaxSum(raw, args.validTokens, peak, candidates));
    }
    args.outLogprobs[row] = id >= 0 ? static_cast<float>(raw[id] - normaliser) : __builtin_nanf("");
    const int best = wanted < 0 ? 0 : wanted < args.maxTop ? wanted : args.maxTop;
    bestIds(raw, args.validTokens, best, normaliser, topIds, topLogprobs);
    for (int i = best; i < args.maxTop; ++i) {
      topIds[i] = -1;
      topLogprobs[i] = __builtin_nanf("");
    }
  }
}

}  // namespace nvlm::NVLM_PATH
