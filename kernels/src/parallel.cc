#include "parallel.h"

#include <sched.h>

#include "team.h"

namespace nvlm {
namespace {

// About 5 us: longer than the lanes of a balanced op are apart, shorter than a time slice of the event loop's thread matters.
constexpr int kSpins = 256;
constexpr int kYields = 32;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns once `word` differs from `seen`.
template <class Word, class Value>
void awaitChange(const Word& word, Value seen) {
  for (int i = 0; i < kSpins; ++i) {
    if (word.load(std::memory_order_acquire) != seen) return;
    relax();
  }
  for (int i = 0; i < kYields; ++i) {
    if (word.load(std::memory_order_acquire) != seen) return;
    sched_yield();
  }
  word.wait(seen, std::memory_order_acquire);
}

}  // namespace

void Barrier::wait() {
  const uint32_t phase = phase_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == parties_) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    phase_.notify_all();
    return;
  }
  awaitChange(phase_, phase);
}

Team::Team(int threads, size_t scratchBytes, std::function<void(const Lane&)> step, std::function<void()> finished)
    : barrier_(threads), step_(std::move(step)), finished_(std::move(finished)) {
  lanes_.resize(static_cast<size_t>(threads));
  for (int i = 0; i < threads; ++i) {
    lanes_[static_cast<size_t>(i)] = Lane{i, threads, &barrier_, nullptr, 0, lanes_.data()};
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
  epoch_.fetch_add(1, std::memory_order_acq_rel);
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
    awaitChange(epoch_, seen);
    ++seen;
    if (seen == lastEpoch_.load(std::memory_order_acquire)) return;
    step_(lane);
    lane.sync();
    if (index == 0) finished_();
  }
}

}  // namespace nvlm
