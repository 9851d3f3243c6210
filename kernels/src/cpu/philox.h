// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
#pragma once
#include "simd.h"

namespace nvlm::NVLM_PATH {

struct PhiloxWords {
  uint32_t word[4];
};

NVLM_INLINE PhiloxWords philox4x32(PhiloxWords counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = 0xd2511f53ull * counter.word[0];
    const uint64_t product1 = 0xcd9e8d57ull * counter.word[2];
    counter = {{static_cast<uint32_t>(product1 >> 32) ^ counter.word[1] ^ key0, static_cast<uint32_t>(product1),
                static_cast<uint32_t>(product0 >> 32) ^ counter.word[3] ^ key1, static_cast<uint32_t>(product0)}};
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
  return counter;
}

// A multiple of 2^-24 in [0, 1), a pure function of the request's seed and the token's position.
NVLM_INLINE double uniformDraw(uint32_t seedLow, uint32_t seedHigh, uint32_t position) {
  return (philox4x32({{position, 0, 0, 0}}, seedLow, seedHigh).word[0] >> 8) * 0x1p-24;
}

}  // namespace nvlm::NVLM_PATH
