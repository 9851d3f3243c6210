// The tile registers of AMX, or a software model of them (NVLM_AMX_EMULATED) that runs the same source on machines without.
#pragma once
#include "narrow.h"

namespace nvlm::NVLM_PATH {

// The 64-byte operand of ldtilecfg.
struct alignas(64) TileConfig {
  uint8_t palette = 1, startRow = 0, reserved[14] = {};
  uint16_t columnBytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

// Tile registers of this thread, configured for one shape at a time. The roles are fixed: tiles 0-3 are sums, fp32 or int32,
// (rows, 16); 4-5 activations (rows, stepBytes); 6-7 weights (stepBytes / 4, 16 channels of 4 bytes).
class Tiles {
 public:
  Tiles() = default;
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

#if defined(NVLM_AMX_EMULATED)
  void configure(int rows, int stepBytes) {
    rows_ = rows;
    stepBytes_ = stepBytes;
  }
  template <int kTile>
  NVLM_INLINE void clear() { std::memset(data_[kTile], 0, sizeof(data_[kTile])); }
  template <int kTile>
  NVLM_INLINE void load(const void* p, int64_t stride) {
    const int rows = kTile < 6 ? rows_ : stepBytes_ / 4;
    const size_t bytes = static_cast<size_t>(kTile == 4 || kTile == 5 ? stepBytes_ : 64);
    for (int r = 0; r < rows; ++r) std::memcpy(data_[kTile][r], static_cast<const uint8_t*>(p) + r * stride, bytes);
  }
  template <int kTile>
  NVLM_INLINE void store(void* p, int64_t stride) const {
    for (int r = 0; r < rows_; ++r) std::memcpy(static_cast<uint8_t*>(p) + r * stride, data_[kTile][r], 64);
  }
  // Signed activations by unsigned weights, four to a step.
  template <int kSum, int kA, int kW>
  NVLM_INLINE void dotBytes() {
    for (int r = 0; r < rows_; ++r) {
      I32x16 sum = loadInt(data_[kSum][r]);
      for (int step = 0; step < stepBytes_ / 4; ++step) {
        sum = dotU8S8<false>(sum, loadInt(data_[kW][step]), broadcastBytes(data_[kA][r] + 4 * step));
      }
      storeInt(data_[kSum][r], sum);
    }
  }
  template <int kSum, int kA, int kW>
  NVLM_INLINE void dotBf16Pairs() {
    for (int r = 0; r < rows_; ++r) {
      float* sums = reinterpret_cast<float*>(data_[kSum][r]);
      F32x16 sum = nvlm::NVLM_PATH::load(sums);
      for (int step = 0; step < stepBytes_ / 4; ++step) {
        sum = dotBf16(sum, loadInt(data_[kW][step]), broadcastBytes(data_[kA][r] + 4 * step));
      }
      nvlm::NVLM_PATH::store(sums, sum);
    }
  }

 private:
  int rows_ = 0, stepBytes_ = 0;
  alignas(64) uint8_t data_[8][16][64];
#else
  ~Tiles() {
    if (rows_ != 0) asm volatile("tilerelease" ::: "memory");
  }
  void configure(int rows, int stepBytes) {
    if (rows == rows_ && stepBytes == stepBytes_) return;
    rows_ = rows;
    stepBytes_ = stepBytes;
    TileConfig config;
    for (int tile = 0; tile < 8; ++tile) {
      config.rows[tile] = static_cast<uint8_t>(tile < 6 ? rows : stepBytes / 4);
      config.columnBytes[tile] = static_cast<uint16_t>(tile == 4 || tile == 5 ? stepBytes : 64);
    }
    asm volatile("ldtilecfg %0" ::"m"(config));
  }
  template <int kTile>
  NVLM_INLINE void clear() { asm volatile("tilezero %%tmm%c0" ::"i"(kTile)); }
  template <int kTile>
  NVLM_INLINE void load(const void* p, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kTile>
  NVLM_INLINE void store(void* p, int64_t stride) const {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kSum, int kA, int kW>
  NVLM_INLINE void dotBytes() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kW));
  }
  template <int kSum, int kA, int kW>
  NVLM_INLINE void dotBf16Pairs() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kW));
  }

 private:
  int rows_ = 0, stepBytes_ = 0;
#endif
};

}  // namespace nvlm::NVLM_PATH
