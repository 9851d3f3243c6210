// Candidates of a draw, and the selection of prefixes of their sorted order without sorting: a quickselect that weighs the parts.
#pragma once
#include "simd.h"

namespace nvlm::NVLM_PATH {

// Ascending `order` is descending logit, ties by lower id.
struct Candidate {
  uint64_t order;
  double weight;

  int32_t id() const { return static_cast<int32_t>(order & 0xffffffffu); }
};

NVLM_INLINE uint64_t candidateOrder(float logit, int32_t id) {
  const float unsignedZero = logit + 0.0f;
  uint32_t bits;
  std::memcpy(&bits, &unsignedZero, 4);
  const uint32_t ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(~ascending) << 32 | static_cast<uint32_t>(id);
}

NVLM_INLINE double totalWeight(const Candidate* candidates, int64_t count) {
  double total = 0;
  for (int64_t i = 0; i < count; ++i) total += candidates[i].weight;
  return total;
}

// Length of the shortest prefix of the sorted order for which enough(count, total weight) holds, `count` where none does; the
// candidates of that prefix come to stand first, its last one last. `enough` never turns false again on longer prefixes.
// Expected time O(count): only parts that the end of the prefix lies in are looked at again.
template <class Enough>
int64_t selectPrefix(Candidate* candidates, int64_t count, const Enough& enough) {
  const auto swap = [&](int64_t i, int64_t j) {
    const Candidate kept = candidates[i];
    candidates[i] = candidates[j];
    candidates[j] = kept;
  };
  int64_t low = 0, high = count;
  double weightBelow = 0;
  uint32_t random = 1;
  while (high - low > 24) {
    const auto pick = [&] {
      random = random * 1664525u + 1013904223u;
      return candidates[low + static_cast<int64_t>((static_cast<uint64_t>(random) * (high - low)) >> 32)].order;
    };
    const uint64_t a = pick(), b = pick(), c = pick();
    const uint64_t least = a < b ? a : b, most = a < b ? b : a;
    const uint64_t pivot = c < least ? least : c < most ? c : most;
    // Orders differ, so only the last candidate can leave nothing on the right; then one of the others will be picked next.
    int64_t middle = low;
    double weight = 0;
    for (int64_t i = low; i < high; ++i) {
      if (candidates[i].order > pivot) continue;
      weight += candidates[i].weight;
      swap(i, middle++);
    }
    if (enough(middle, weightBelow + weight)) {
      high = middle;
    } else {
      weightBelow += weight;
      low = middle;
    }
  }
  for (int64_t i = low + 1; i < high; ++i) {
    for (int64_t j = i; j > low && candidates[j].order < candidates[j - 1].order; --j) swap(j, j - 1);
  }
  for (int64_t i = low; i < high; ++i) {
    weightBelow += candidates[i].weight;
    if (enough(i + 1, weightBelow)) return i + 1;
  }
  return high;
}

}  // namespace nvlm::NVLM_PATH
