// A runner's threads. They sleep between steps; a step wakes all of them, and the last word of a step is lane 0's.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "memory.h"
#include "parallel.h"

namespace nvlm {

class Team {
 public:
  // `step` runs on every lane; `finished` runs on lane 0 after all lanes have ended the step.
  Team(int threads, size_t scratchBytes, std::function<void(const Lane&)> step, std::function<void()> finished);
  // Waits for a step in flight.
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  // Starts a step; the previous one has finished.
  void start();
  // Between steps only: scratch of at least `bytes` for every lane.
  void reserveScratch(size_t bytes);
  int threads() const { return static_cast<int>(lanes_.size()); }

 private:
  void serve(int index);

  Barrier barrier_;
  std::vector<Lane> lanes_;
  // What the lanes point to, in cache lines of its own: written at every barrier.
  struct LaneState {
    alignas(64) ReadAhead ahead;
    Claims claims;
  };
  std::vector<LaneState> states_;
  Region scratch_;
  std::function<void(const Lane&)> step_;
  std::function<void()> finished_;
  std::atomic<int> epoch_{0};
  std::atomic<int> lastEpoch_{-1};
  std::vector<std::thread> threads_;
};

}  // namespace nvlm
