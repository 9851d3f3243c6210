// The threads of one runner: every thread runs every op, takes its share of it, and meets the others at a barrier.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace nvlm {

// Memory that a thread will read next, brought into its cache while it waits for others or computes what needs little memory.
struct ReadAhead {
  const uint8_t* next = nullptr;
  const uint8_t* end = nullptr;

  // Fetches the next `lines` lines; false when all have been.
  bool fetch(int lines) {
    if (next >= end) return false;
    for (int line = 0; line < lines; ++line) __builtin_prefetch(next + 64 * line, 0, 2);
    next += 64 * lines;
    return true;
  }
};

// Every thread counts its arrivals in a cache line of its own and waits for the others' counts: one transfer between cores from
// the last arrival to the release. Spins briefly, then yields, then sleeps: the event loop's thread may hold one of the cores.
class Barrier {
 public:
  explicit Barrier(int parties) : arrivals_(static_cast<size_t>(parties)) {}
  // `index` is the thread's own, below parties.
  void wait(int index, ReadAhead* ahead);

 private:
  struct alignas(64) Arrivals {
    std::atomic<uint32_t> count{0};
  };
  std::vector<Arrivals> arrivals_;
  alignas(64) std::atomic<int> sleepers_{0};
};

// What a thread has claimed of its share of a divided op; see Lane::divide. Two sets take turns: one is in use while the other,
// which no thread looks at before the next barrier, is made ready.
struct alignas(64) Claims {
  std::atomic<int64_t> taken[2] = {};
  uint32_t round = 0;  // its own thread's
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
  // Written by this thread only.
  ReadAhead* ahead;
  Claims* claims;

  void sync() const {
    if (count > 1) barrier->wait(index, ahead);
  }
  // To be called about every 50 ns: memory gives a core no more in that time.
  void fetchAhead() const {
    if (ahead) ahead->fetch(8);
  }
  // Half-open share [begin, end) of n items, contiguous, sizes differing by at most one.
  void share(int64_t n, int64_t* begin, int64_t* end) const {
    *begin = n * index / count;
    *end = n * (index + 1) / count;
  }
  // Calls body(i) for items of [0, n), each on one thread: those of its own share in order, then what is left of the others',
  // so that a thread whose core has other work holds nobody up. Called by all threads, once between two barriers at most.
  // Of its own share a thread claims a quarter of the rest at a time: a claim waits for all stores before it, some of them to
  // lines that another core has.
  template <class Body>
  void divide(int64_t n, const Body& body) const {
    if (count == 1) {
      for (int64_t i = 0; i < n; ++i) body(i);
      return;
    }
    const uint32_t set = claims->round++ & 1;
    claims->taken[set ^ 1].store(0, std::memory_order_relaxed);
    for (int i = 0; i < count; ++i) {
      const Lane& owner = team[(index + i) % count];
      int64_t begin, end;
      owner.share(n, &begin, &end);
      std::atomic<int64_t>& taken = owner.claims->taken[set];
      while (true) {
        const int64_t rest = end - begin - taken.load(std::memory_order_relaxed);
        if (rest <= 0) break;
        const int64_t claim = i == 0 ? rest / 4 + 1 : 1;
        const int64_t first = begin + taken.fetch_add(claim, std::memory_order_relaxed);
        for (int64_t item = first; item < first + claim && item < end; ++item) body(item);
      }
    }
  }
};

}  // namespace nvlm
