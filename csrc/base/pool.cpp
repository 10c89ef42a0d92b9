#include "base/pool.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "base/cpus.h"

namespace refimpl {
namespace {

using Clock = std::chrono::steady_clock;

// As long as the gap between two loops of one forward pass; waking a sleeper takes about as long.
constexpr std::chrono::microseconds kSpin{50};

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// How a thread rounds and whether it flushes subnormal numbers: each thread's own, so helpers take over
// the caller's.
#if defined(__x86_64__)
using Arithmetic = unsigned;  // MXCSR: several times faster than <cfenv>, which looks after the x87 as well
void get_arithmetic(Arithmetic& a) { a = __builtin_ia32_stmxcsr(); }
void set_arithmetic(const Arithmetic& a) { __builtin_ia32_ldmxcsr(a); }
#else
using Arithmetic = std::fenv_t;
void get_arithmetic(Arithmetic& a) { std::fegetenv(&a); }
void set_arithmetic(const Arithmetic& a) { std::fesetenv(&a); }
#endif

// Waits for ready() without sleeping, for kSpin at most. Whether it came.
template <class F>
bool spin_until(F ready) {
  const Clock::time_point end = Clock::now() + kSpin;
  do {
    for (int i = 0; i < 16; ++i, pause())
      if (ready()) return true;
  } while (Clock::now() < end);
  return false;
}

// Tasks [next, end), which one thread begins with; who has done its own takes from the others'.
struct alignas(64) Share {
  std::atomic<std::size_t> next{0};
  std::size_t end = 0;
};

struct Loop {
  const Body& body;
  Share* const shares;
  const int count;  // of shares
  Arithmetic arithmetic{};
  std::atomic<int> helpers{0};  // that were asked, less those that are done or were too late
};

void deal(std::size_t tasks, Share* shares, int count) {
  const std::size_t n = static_cast<std::size_t>(count);
  for (std::size_t i = 0; i < n; ++i) {
    shares[i].next.store(tasks / n * i + std::min(i, tasks % n), std::memory_order_relaxed);
    shares[i].end = tasks / n * (i + 1) + std::min(i + 1, tasks % n);
  }
}

// No task begins any more.
void end(Loop& loop) {
  for (int i = 0; i < loop.count; ++i) loop.shares[i].next.store(loop.shares[i].end, std::memory_order_relaxed);
}

void work(Loop& loop, int thread, Stop* stop) {
  for (int i = 0; i < loop.count; ++i) {
    Share& share = loop.shares[(thread + i) % loop.count];
    while (share.next.load(std::memory_order_relaxed) < share.end) {  // a look costs less than taking
      if (stop && stop->poll()) return end(loop);
      const std::size_t task = share.next.fetch_add(1, std::memory_order_relaxed);
      if (task < share.end) loop.body.call(loop.body.f, task, thread);
    }
  }
}

// A tenth of a core's time is left to a thread behind others that want all of it.
constexpr int kBehind = 10;

void lower_priority() {
#if defined(__linux__)  // where it is the calling thread's alone; elsewhere it would be the process'
  setpriority(PRIO_PROCESS, 0, std::min(getpriority(PRIO_PROCESS, 0) + kBehind, 19));
#endif
}

class Pool {
 public:
  explicit Pool(bool background) : background_(background) {}
  bool background() const { return background_; }

  // Whether the loop was done here; if not, the pool is another loop's and nothing was done.
  // `is_mine` tells whether this process still is the one that the helpers live in.
  bool run(int threads, const Body& body, std::size_t tasks, Stop* stop, bool (*is_mine)(Pool*)) {
    if (taken_.exchange(true, std::memory_order_acquire)) return false;
    grow(threads - 1);
    deal(tasks, shares_, threads);
    Loop loop{body, shares_, threads};
    get_arithmetic(loop.arithmetic);
    const int helpers = std::min(threads - 1, born_);
    loop.helpers.store(helpers, std::memory_order_relaxed);
    for (int i = 0; i < helpers; ++i) offer(slots_[i], &loop);
    work(loop, 0, stop);
    if (!is_mine(this)) {  // a child, where nobody ends what helpers began
      if (stop && stop->said()) return true;
      throw std::runtime_error("forked in the middle of a parallel loop");
    }
    for (int i = 0; i < helpers; ++i)  // take back what nobody has begun
      if (slots_[i].offered.exchange(nullptr, std::memory_order_relaxed))
        loop.helpers.fetch_sub(1, std::memory_order_relaxed);
    const auto done = [&] { return loop.helpers.load(std::memory_order_acquire) == 0; };
    if (!spin_until(done)) {
      std::unique_lock<std::mutex> lock(mutex_);
      done_.wait(lock, done);
    }
    taken_.store(false, std::memory_order_release);
    return true;
  }

 private:
  struct alignas(64) Slot {
    std::atomic<Loop*> offered{nullptr};
    std::mutex mutex;
    std::condition_variable wake;
  };

  static void offer(Slot& slot, Loop* loop) {
    {
      std::lock_guard<std::mutex> lock(slot.mutex);
      slot.offered.store(loop, std::memory_order_release);
    }
    slot.wake.notify_one();
  }

  // Helpers take no signals but those of their own faults: others are for the threads of the program. They have
  // the priority of the thread that needs them first.
  void grow(int wanted) {
    if (born_ >= wanted) return;
    sigset_t others, before;
    sigfillset(&others);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP}) sigdelset(&others, fault);
    pthread_sigmask(SIG_SETMASK, &others, &before);
    try {
      for (; born_ < wanted; ++born_) std::thread([this, index = born_] { serve(index); }).detach();
    } catch (const std::exception&) {
      // As many as the system gives.
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void serve(int index) {
    Slot& slot = slots_[index];
    const auto offered = [&] { return slot.offered.load(std::memory_order_relaxed) != nullptr; };
    for (;;) {
      if (!spin_until(offered)) {
        std::unique_lock<std::mutex> lock(slot.mutex);
        slot.wake.wait(lock, offered);
      }
      Loop* loop = slot.offered.exchange(nullptr, std::memory_order_acquire);
      if (!loop) continue;  // taken back
      set_arithmetic(loop->arithmetic);
      work(*loop, index + 1, nullptr);
      if (loop->helpers.fetch_sub(1, std::memory_order_acq_rel) == 1) {  // from here on it may be gone
        std::lock_guard<std::mutex> lock(mutex_);
        done_.notify_one();
      }
    }
  }

  const bool background_;
  std::atomic<bool> taken_{false};
  int born_ = 0;  // used by the loop that has taken the pool
  Share shares_[kMaxThreads];
  std::mutex mutex_;
  std::condition_variable done_;
  Slot slots_[kMaxThreads - 1];
};

// Of the foreground and of the background. Never destroyed: helpers may outlive main. A fork leaves the child
// none, and the memory of its parent's; registered when the library is loaded, so that no fork finds it half done.
std::atomic<Pool*> the_pools[2] = {};
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { the_pools[0] = the_pools[1] = nullptr; });
thread_local bool in_background = false;

Pool& pool() {
  std::atomic<Pool*>& the_pool = the_pools[in_background];
  if (Pool* there = the_pool.load(std::memory_order_acquire)) return *there;
  Pool *fresh = new Pool(in_background), *other = nullptr;
  if (the_pool.compare_exchange_strong(other, fresh)) return *fresh;
  delete fresh;
  return *other;
}

// The value of an environment variable when it is a positive number, else 0.
int positive(const char* name) {
  const char* text = std::getenv(name);
  const long n = text ? std::strtol(text, nullptr, 10) : 0;
  return static_cast<int>(std::clamp(n, 0L, static_cast<long>(kMaxThreads)));
}

}  // namespace

int default_threads() {
  int n = positive("REFIMPL_THREADS");
  if (!n) n = positive("OMP_NUM_THREADS");
  if (!n) n = usable_cpus();
  return std::clamp(n, 1, kMaxThreads);
}

void give_way() {
  if (!in_background) lower_priority();
  in_background = true;
}

bool Stop::poll() {
  if (said_ || !ask_) return said_;
  if (const Clock::time_point now = Clock::now(); now - last_ >= kEvery) {
    said_ = ask_();
    last_ = Clock::now();  // waiting for the answer is not part of the interval
  }
  return said_;
}

bool run_loop(int threads, std::size_t tasks, const Body& body, Stop* stop) {
  if (stop && stop->poll()) return false;
  threads = std::clamp(threads, 1, tasks < kMaxThreads ? std::max(static_cast<int>(tasks), 1) : kMaxThreads);
  const auto is_mine = [](Pool* p) { return the_pools[p->background()].load() == p; };
  if (threads < 2 || !pool().run(threads, body, tasks, stop, is_mine)) {
    Share all;
    deal(tasks, &all, 1);
    Loop loop{body, &all, 1};
    work(loop, 0, stop);
  }
  return !(stop && stop->said());
}

}  // namespace refimpl
