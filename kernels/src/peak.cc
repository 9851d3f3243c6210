#include "peak.h"

#include <chrono>
#include <thread>
#include <vector>

namespace nvlm {

namespace {

// The best of several rounds: the machine may be shared, and the scheduler is slow to part two threads on one core.
double perSecond(const KernelTable& kernels, PeakKind kind, int threads, int64_t iterations, const uint8_t* memory, int64_t bytesEach) {
  double best = 0;
  std::vector<float> sinks(static_cast<size_t>(threads) * 16);
  for (int round = 0; round < 12; ++round) {
    std::vector<std::thread> team;
    std::vector<int64_t> done(static_cast<size_t>(threads) * 8);
    const auto start = std::chrono::steady_clock::now();
    for (int t = 0; t < threads; ++t) {
      team.emplace_back([&, t] {
        done[static_cast<size_t>(t) * 8] =
            kernels.peak(kind, iterations, memory + t * bytesEach, bytesEach, &sinks[static_cast<size_t>(t) * 16]);
      });
    }
    int64_t total = 0;
    for (auto& thread : team) thread.join();
    for (int t = 0; t < threads; ++t) total += done[static_cast<size_t>(t) * 8];
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(total) / elapsed.count());
  }
  return best;
}

}  // namespace

Peaks measurePeaks(const KernelTable& kernels, int threads) {
  constexpr int64_t kBytesEach = int64_t{192} << 20;
  const std::vector<uint8_t> memory(static_cast<size_t>(kBytesEach * threads), 0);
  constexpr int64_t kIterations = 4'000'000;
  return {
      .readBytes = perSecond(kernels, PeakKind::kRead, threads, 1, memory.data(), kBytesEach),
      .float32 = perSecond(kernels, PeakKind::kFloat32, threads, kIterations, memory.data(), kBytesEach),
      .bfloat16 = perSecond(kernels, PeakKind::kBfloat16, threads, kIterations, memory.data(), kBytesEach),
      .int8 = perSecond(kernels, PeakKind::kInt8, threads, kIterations, memory.data(), kBytesEach),
  };
}

}  // namespace nvlm
