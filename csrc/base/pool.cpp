#include "base/pool.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace refimpl {
namespace {

constexpr int kSpins = 4000;  // about 50 us: as long as the gap between two loops of one forward pass

struct Loop {
  const std::function<void(std::size_t, int)>* f;
  std::size_t tasks;
  std::atomic<std::size_t> next{0};
};

void work(Loop& loop, int thread) {
  for (std::size_t task; (task = loop.next.fetch_add(1, std::memory_order_relaxed)) < loop.tasks;)
    (*loop.f)(task, thread);
}

class Pool {
 public:
  // Whether this call had the pool to itself; if not, nothing was done.
  bool run(int threads, Loop& loop) {
    std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
    if (!turn.owns_lock()) return false;
    grow(threads - 1);
    const int helpers = std::min(threads - 1, workers_);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      loop_ = &loop;
      invited_ = helpers;
      busy_.store(helpers, std::memory_order_relaxed);
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    work(loop, 0);
    while (busy_.load(std::memory_order_acquire) > 0) std::this_thread::yield();
    return true;
  }

 private:
  // Workers take no signals: those are for the threads of the program.
  void grow(int wanted) {
    if (workers_ >= wanted) return;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      for (; workers_ < wanted; ++workers_)
        std::thread([this, index = workers_, seen = generation_.load()] { serve(index, seen); }).detach();
    } catch (const std::system_error&) {
      // As many as the system gives.
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void serve(int index, unsigned seen) {
    for (;;) {
      for (int i = 0; i < kSpins && generation_.load(std::memory_order_acquire) == seen; ++i) pause();
      Loop* loop;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_relaxed) != seen; });
        seen = generation_.load(std::memory_order_relaxed);
        // run() waits for those that it invited, so that theirs is a loop which still exists.
        loop = index < invited_ ? loop_ : nullptr;
      }
      if (!loop) continue;
      work(*loop, index + 1);
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    std::this_thread::yield();
#endif
  }

  std::mutex turn_, mutex_;
  std::condition_variable wake_;
  std::atomic<unsigned> generation_{0};
  std::atomic<int> busy_{0};
  int workers_ = 0, invited_ = 0;
  Loop* loop_ = nullptr;
};

// Never destroyed: workers may outlive main. A fork leaves the child a fresh one.
std::atomic<Pool*> the_pool{nullptr};

Pool& pool() {
  static const bool once = [] {
    the_pool = new Pool;
    pthread_atfork(nullptr, nullptr, [] { the_pool = new Pool; });
    return true;
  }();
  (void)once;
  return *the_pool.load();
}

// The value of an environment variable when it is a positive number, else 0.
int positive(const char* name) {
  const char* text = std::getenv(name);
  const long n = text ? std::strtol(text, nullptr, 10) : 0;
  return static_cast<int>(std::clamp(n, 0L, static_cast<long>(kMaxThreads)));
}

#if defined(__linux__)

// CPUs that the files of one cgroup grant (v2 or v1), 0 for no limit.
int quota_of(const std::string& folder) {
  double quota = 0, period = 0;
  if (std::ifstream v2(folder + "/cpu.max"); v2) {
    std::string first;
    if (v2 >> first >> period && first != "max") quota = std::strtod(first.c_str(), nullptr);
  } else {
    std::ifstream q(folder + "/cpu/cpu.cfs_quota_us"), p(folder + "/cpu/cpu.cfs_period_us");
    q >> quota, p >> period;
  }
  return quota > 0 && period > 0 ? std::max(1, static_cast<int>(std::min(std::ceil(quota / period), 1e6))) : 0;
}

// The least that the process's own cgroup and those above it grant, 0 for no limit.
int cgroup_cpus() {
  std::string own, line;
  std::ifstream self("/proc/self/cgroup");
  while (std::getline(self, line))
    if (line.rfind("0::", 0) == 0) own = line.substr(3);
  int least = 0;
  for (;;) {
    if (const int n = quota_of("/sys/fs/cgroup" + own); n && (!least || n < least)) least = n;
    if (own.empty()) return least;
    own.erase(own.rfind('/') == std::string::npos ? 0 : own.rfind('/'));
  }
}

int usable_cpus() {
  cpu_set_t set;
  const bool known = sched_getaffinity(0, sizeof set, &set) == 0;
  const int n = known ? CPU_COUNT(&set) : static_cast<int>(std::thread::hardware_concurrency());
  const int granted = cgroup_cpus();
  return granted ? std::min(n, granted) : n;
}

#else

int usable_cpus() { return static_cast<int>(std::thread::hardware_concurrency()); }

#endif

}  // namespace

int default_threads() {
  int n = positive("REFIMPL_THREADS");
  if (!n) n = positive("OMP_NUM_THREADS");
  if (!n) n = usable_cpus();
  return std::clamp(n, 1, kMaxThreads);
}

void parallel_for(int threads, std::size_t tasks, const std::function<void(std::size_t, int)>& f) {
  Loop loop{&f, tasks};
  threads = static_cast<int>(std::min<std::size_t>(std::clamp(threads, 1, kMaxThreads), tasks));
  if (threads > 1 && pool().run(threads, loop)) return;
  work(loop, 0);
}

}  // namespace refimpl
