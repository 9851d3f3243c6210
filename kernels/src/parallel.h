// The threads of one runner: every thread runs every op, takes its share of it, and meets the others at a barrier.
#pragma once
#include <atomic>
#include <cstdint>

namespace nvlm {

// Sense-reversing barrier. Spins briefly, then yields: the event loop's thread may hold one of the cores.
class Barrier {
 public:
  explicit Barrier(int parties) : parties_(parties) {}
  void wait();

 private:
  const int parties_;
  std::atomic<int> arrived_{0};
  std::atomic<uint32_t> phase_{0};
};

// One thread's view of its team.
struct Lane {
  int index;
  int count;
  Barrier* barrier;
  // This thread's own scratch, 64-byte aligned, at least `scratchBytes` as planned at load.
  uint8_t* scratch;
  size_t scratchBytes;
  // All lanes of the team, by index: after a sync a thread may read what another left in its scratch.
  const Lane* team;

  void sync() const {
    if (count > 1) barrier->wait();
  }
  // Half-open share [begin, end) of n items, contiguous, sizes differing by at most one.
  void share(int64_t n, int64_t* begin, int64_t* end) const {
    *begin = n * index / count;
    *end = n * (index + 1) / count;
  }
};

}  // namespace nvlm
