#include "parallel.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <ctime>

#include "team.h"

namespace nvlm {
namespace {

// Polls of about 10 to 20 ns: longer than the lanes of a balanced op are apart, shorter than a time slice of the event loop's
// thread matters.
constexpr int kSpins = 256;
// A thread that others wait for in vain this long is not running: its core has other work, or is asleep.
constexpr std::chrono::microseconds kYieldInStep{20};
// Between steps the event loop takes about 100 us. Waking a thread that sleeps on an idle core takes as long again.
constexpr std::chrono::microseconds kYieldBetweenSteps{400};

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Polls until `done`, false when that took too long. The cache lines of `ahead`, if any, are fetched on the way.
template <class Done>
bool poll(const Done& done, std::chrono::microseconds yieldFor, ReadAhead* ahead) {
  constexpr int kLinesPerPoll = 4;
  for (int i = 0; i < kSpins; ++i) {
    if (done()) return true;
    if (!ahead || !ahead->fetch(kLinesPerPoll)) relax();
  }
  const auto until = std::chrono::steady_clock::now() + yieldFor;
  do {
    for (int i = 0; i < 16; ++i) {
      if (done()) return true;
      sched_yield();
    }
  } while (std::chrono::steady_clock::now() < until);
  return false;
}

void sleepWhile(const std::atomic<uint32_t>& word, uint32_t seen) {
  // The arrival may have looked for sleepers before there was one: then the time limit is what wakes it.
  const timespec limit{0, 1'000'000};
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, &limit, nullptr, 0);
}

void wakeAll(const std::atomic<uint32_t>& word) { syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0); }

}  // namespace

void Barrier::wait(int index, ReadAhead* ahead) {
  std::atomic<uint32_t>& own = arrivals_[static_cast<size_t>(index)].count;
  const uint32_t target = own.load(std::memory_order_relaxed) + 1;
  own.store(target, std::memory_order_release);
  if (sleepers_.load(std::memory_order_relaxed) > 0) wakeAll(own);
  for (const Arrivals& other : arrivals_) {
    uint32_t seen;
    // Another thread may be at the next barrier already.
    const auto arrived = [&] {
      seen = other.count.load(std::memory_order_acquire);
      return static_cast<int32_t>(seen - target) >= 0;
    };
    if (poll(arrived, kYieldInStep, ahead)) continue;
    sleepers_.fetch_add(1);
    while (!arrived()) sleepWhile(other.count, seen);
    sleepers_.fetch_sub(1);
  }
}

Team::Team(int threads, size_t scratchBytes, std::function<void(const Lane&)> step, std::function<void()> finished)
    : barrier_(threads), states_(static_cast<size_t>(threads)), step_(std::move(step)), finished_(std::move(finished)) {
  lanes_.resize(static_cast<size_t>(threads));
  for (int i = 0; i < threads; ++i) {
    LaneState& state = states_[static_cast<size_t>(i)];
    lanes_[static_cast<size_t>(i)] = Lane{i, threads, &barrier_, nullptr, 0, lanes_.data(), &state.ahead, &state.claims};
  }
  reserveScratch(scratchBytes);
  threads_.reserve(lanes_.size());
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this, i] { serve(i); });
}

Team::~Team() {
  // By epoch, not by a flag: a lane that has yet to wake for the step in flight must run it, or the others wait for ever.
  lastEpoch_.store(epoch_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  start();
  for (std::thread& thread : threads_) thread.join();
}

void Team::start() {
  epoch_.fetch_add(1);
  epoch_.notify_all();
}

void Team::reserveScratch(size_t bytes) {
  const size_t each = (bytes + 4095) / 4096 * 4096;
  if (each * lanes_.size() <= scratch_.size() && lanes_[0].scratchBytes >= each) return;
  scratch_ = Region(each * lanes_.size(), false, "scratch memory of the threads");
  for (size_t i = 0; i < lanes_.size(); ++i) {
    lanes_[i].scratch = scratch_.data() + i * each;
    lanes_[i].scratchBytes = each;
  }
}

void Team::serve(int index) {
  int seen = 0;
  const Lane& lane = lanes_[static_cast<size_t>(index)];
  while (true) {
    if (!poll([&] { return epoch_.load(std::memory_order_acquire) != seen; }, kYieldBetweenSteps, nullptr)) epoch_.wait(seen);
    ++seen;
    if (seen == lastEpoch_.load(std::memory_order_acquire)) return;
    step_(lane);
    lane.sync();
    if (index == 0) finished_();
  }
}

}  // namespace nvlm
