// A small pool of threads for loops over tasks. Lazy in birth, fork-safe.
//
// Each thread begins with its own part of the tasks, the same in every loop of so many: what a loop leaves in
// the caches of a core is there for the next one. Who has done its own takes from the others'.
// The calling thread works too, and waits for no helper that has not begun. Between loops helpers
// spin shortly, then sleep; a loop wakes those that it can use and no other. A loop that starts while
// another thread's runs is done by its own thread alone: nothing waits. Threads in the background have
// helpers of their own, which give way as they do. After a fork the child has no helpers; they are born
// again on its first loop.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <utility>

namespace refimpl {

constexpr int kMaxThreads = 256;

// Threads that a loop may use by default, 1 .. kMaxThreads: REFIMPL_THREADS, else OMP_NUM_THREADS,
// else usable_cpus().
int default_threads();

// From here on the calling thread is in the background: its loops have helpers of their own, and where the system
// allows it (Linux) it and they get what other threads leave of the cores, and a tenth at least.
void give_way();

// Whether a job of several loops should end early. One per job, used by its calling thread alone.
class Stop {
 public:
  explicit Stop(std::function<bool()> ask) : ask_(std::move(ask)) {}  // empty: never

  // Asks when kEvery has passed since the last time, or since birth; stays true once it was.
  bool poll();
  bool said() const { return said_; }

  static constexpr std::chrono::milliseconds kEvery{20};

 private:
  using Clock = std::chrono::steady_clock;
  std::function<bool()> ask_;
  Clock::time_point last_ = Clock::now();
  bool said_ = false;
};

// What a loop does with a task, borrowed from the caller.
struct Body {
  const void* f;
  void (*call)(const void* f, std::size_t task, int thread);
};

bool run_loop(int threads, std::size_t tasks, const Body& body, Stop* stop);

// f(task, thread) for task in [0, tasks), on up to `threads` threads, thread in [0, threads). A thread
// begins with its own part of neighbours, then takes what others have left; all round, and flush
// subnormal numbers or not, as the calling thread does. f must neither throw nor start a loop.
// The calling thread polls `stop` (may be null) before each of its tasks; once it says yes no task
// begins. Returns when every begun task has ended: true when all are done, false when stopped.
// `stop` may run loops of its own, and must not throw. Throws std::bad_alloc before anything is begun,
// std::runtime_error in a child that `stop` forked and did not stop: its loop is left unfinished.
template <class F>
bool parallel_for(int threads, std::size_t tasks, const F& f, Stop* stop = nullptr) {
  const auto call = [](const void* g, std::size_t task, int thread) { (*static_cast<const F*>(g))(task, thread); };
  return run_loop(threads, tasks, {&f, call}, stop);
}

}  // namespace refimpl
