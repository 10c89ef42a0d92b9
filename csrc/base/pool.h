// A small pool of threads for loops over tasks. Lazy in birth, fork-safe.
//
// The calling thread works too. Between loops workers spin shortly, then sleep. A loop that starts
// while another thread's runs is done by its own thread alone: nothing waits. After a fork the child
// has no workers; they are born again on its first loop.
#pragma once

#include <cstddef>
#include <functional>

namespace refimpl {

constexpr int kMaxThreads = 256;

// Threads that a loop may use by default, 1 .. kMaxThreads: REFIMPL_THREADS, else OMP_NUM_THREADS,
// else the least of the affinity mask, the cgroup's CPU quota (rounded up) and the cores.
int default_threads();

// f(task, thread) for task in [0, tasks), on up to `threads` threads, thread in [0, threads);
// returns when all are done. f must neither throw nor start a loop. Which thread takes which task is
// not determined.
void parallel_for(int threads, std::size_t tasks, const std::function<void(std::size_t task, int thread)>& f);

}  // namespace refimpl
