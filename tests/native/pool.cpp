// The pool of threads by itself, for the sanitizers and tests/engine/test_native_pool.py: every task
// once, the stop, several callers, forks in every state; and how many CPUs control groups grant. Prints
// the name of each part; ends with 1 at the first check that fails. No part depends on time but by
// waiting.
#include "base/pool.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/cpus.h"
#include "check.h"

using refimpl::parallel_for;
using refimpl::Stop;

namespace {

#if defined(__SANITIZE_THREAD__)
constexpr int kInChild = 1;  // its runtime cannot bear threads in the child of several threads
#else
constexpr int kInChild = 3;
#endif

void nap() { std::this_thread::sleep_for(std::chrono::milliseconds(1)); }

// Threads of this process, by their numbers.
std::set<std::string> living() {
  std::set<std::string> tasks;
  DIR* folder = opendir("/proc/self/task");
  while (const dirent* entry = readdir(folder))
    if (entry->d_name[0] != '.') tasks.insert(entry->d_name);
  closedir(folder);
  return tasks;
}

bool sums_up(int threads, std::size_t tasks) {
  std::atomic<std::size_t> sum{0};
  return parallel_for(threads, tasks, [&](std::size_t task, int) { sum += task + 1; }) && sum == tasks * (tasks + 1) / 2;
}

template <class F>
bool well_in_child(F f) {
  const pid_t child = fork();
  if (child == 0) std::_Exit(f() ? 0 : 1);
  int status = -1;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// -- loops ----------------------------------------------------------------------------------------

void loops_of_one_task_wake_nobody() {
  const std::set<std::string> before = living();
  for (int threads : {1, 2, 64}) {
    const std::thread::id self = std::this_thread::get_id();
    CHECK(parallel_for(threads, 1, [&](std::size_t, int thread) { CHECK(thread == 0 && std::this_thread::get_id() == self); }));
    CHECK(parallel_for(threads, 0, [](std::size_t, int) { CHECK(false); }));
  }
  CHECK(living() == before);
}

void helpers_are_as_many_as_tasks_allow_and_take_no_signals_but_faults() {
  const std::set<std::string> before = living();
  std::atomic<int> inside{0};
  parallel_for(64, 3, [&](std::size_t, int) {
    for (++inside; inside < 3;) std::this_thread::yield();  // so that all have begun
  });
  std::size_t born = 0;
  for (const std::string& task : living()) {
    if (before.count(task)) continue;
    ++born;
    std::string blocked;
    std::ifstream status("/proc/self/task/" + task + "/status");
    for (std::string line; std::getline(status, line);)
      if (line.rfind("SigBlk:", 0) == 0) blocked = line.substr(7);
    const unsigned long long mask = std::strtoull(blocked.c_str(), nullptr, 16);
    for (int s : {SIGINT, SIGALRM, SIGTERM, SIGUSR1}) CHECK(mask >> (s - 1) & 1);
    for (int s : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) CHECK(!(mask >> (s - 1) & 1));  // else no handler hears of them
  }
  CHECK(born == 2);
}

void helpers_round_as_the_caller_does() {
  for (const int rounding : {FE_UPWARD, FE_DOWNWARD, FE_TONEAREST}) {
    CHECK(std::fesetround(rounding) == 0);
    const auto third = [] {
      volatile double one = 1.0, three = 3.0;
      return one / three;
    };
    const double expected = third();
    std::atomic<int> inside{0};
    parallel_for(3, 3, [&](std::size_t, int) {
      for (++inside; inside < 3;) std::this_thread::yield();  // so that all have begun
      CHECK(third() == expected);
    });
  }
}

void every_task_is_done_once_by_one_thread_at_a_time() {
  for (int threads = 1; threads <= 9; ++threads)
    for (std::size_t tasks : {0, 1, 2, 3, 7, 8, 9, 100, 1000}) {
      std::vector<std::atomic<int>> done(tasks), inside(static_cast<std::size_t>(threads));
      CHECK(parallel_for(threads, tasks, [&](std::size_t task, int thread) {
        CHECK(thread >= 0 && thread < threads);
        CHECK(inside[static_cast<std::size_t>(thread)]++ == 0);
        ++done[task];
        --inside[static_cast<std::size_t>(thread)];
      }));
      for (const auto& n : done) CHECK(n == 1);
    }
}

void a_thread_begins_with_its_own_part_in_every_loop() {
  for (int round = 0; round < 20; ++round) {
    std::size_t first[3];
    std::vector<int> begun(3);
    std::atomic<int> inside{0};
    parallel_for(3, 10, [&](std::size_t task, int thread) {
      if (begun[static_cast<std::size_t>(thread)]++) return;
      first[thread] = task;
      for (++inside; inside < 3;) std::this_thread::yield();  // so that all begin
    });
    CHECK(first[0] == 0 && first[1] == 4 && first[2] == 7);
  }
}

void who_has_done_its_own_part_takes_from_the_others() {
  for (std::size_t held : {0, 60}) {  // of the calling thread's part, of the helper's
    std::atomic<int> done{0};
    parallel_for(2, 100, [&](std::size_t task, int) {
      while (task == held && done < 99) std::this_thread::yield();
      ++done;
    });
    CHECK(done == 100);
  }
}

// What a loop wrote, the next one and the caller read: for ThreadSanitizer.
void loops_follow_each_other() {
  std::vector<int> x(500);
  for (int round = 0; round < 300; ++round)
    parallel_for(1 + round % 4, x.size(), [&](std::size_t i, int) { x[i] += static_cast<int>(i); });
  for (std::size_t i = 0; i < x.size(); ++i) CHECK(x[i] == 300 * static_cast<int>(i));
}

void more_threads_than_the_pool_has_are_as_many_as_it_has() { CHECK(sums_up(1 << 20, 5000)); }

void several_callers_all_get_done() {
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([] {
      for (std::size_t i = 0; i < 300; ++i) CHECK(sums_up(3, i % 50));
    });
  for (std::thread& c : callers) c.join();
}

void the_background_has_helpers_of_its_own_that_give_way() {
  const int here = getpriority(PRIO_PROCESS, 0);
  std::atomic<bool> over{false};
  std::atomic<int> behind{0}, inside{0};
  std::thread background([&] {
    refimpl::give_way(), refimpl::give_way();
    parallel_for(2, 2, [&](std::size_t, int) {
#if defined(__linux__)
      CHECK(getpriority(PRIO_PROCESS, 0) == std::min(here + 10, 19));
#endif
      for (++behind; !over;) nap();
    });
  });
  while (behind < 2) nap();
  parallel_for(2, 2, [&](std::size_t, int) {
    CHECK(getpriority(PRIO_PROCESS, 0) == here);
    for (++inside; inside < 2;) std::this_thread::yield();  // so that both have begun
  });
  CHECK(well_in_child([] { return sums_up(kInChild, 100); }));
  over = true;
  background.join();
}

// -- the stop -------------------------------------------------------------------------------------

std::atomic<int> asked{0};
std::atomic<std::thread::id> asker;

void a_stop_ends_the_loop_and_all_later_ones() {
  for (int threads : {1, 3}) {
    asked = 0, asker = std::this_thread::get_id();
    Stop stop([] {
      CHECK(std::this_thread::get_id() == asker.load());
      return ++asked == 2;
    });
    std::atomic<int> begun{0}, ended{0};
    const auto task = [&](std::size_t, int) { ++begun, nap(), ++ended; };
    CHECK(!parallel_for(threads, 1000000, task, &stop));
    CHECK(begun == ended && begun < 1000000 && asked == 2 && stop.said());
    const int before = begun;
    CHECK(!parallel_for(threads, 1, task, &stop));
    for (int i = 0; i < 50; ++i) CHECK(!parallel_for(64, 100, task, &stop));  // asking so many takes a while
    CHECK(begun == before && asked == 2);
  }
}

void the_time_of_asking_goes_on_from_loop_to_loop() {
  asked = 0;
  Stop stop([] { return ++asked == 3; });
  while (parallel_for(2, 2, [](std::size_t, int) { nap(); }, &stop)) {
  }
  CHECK(asked == 3);
}

void a_stop_is_asked_now_and_then_only() {
  asked = 0;
  Stop stop([] { return ++asked < 0; });
  std::atomic<std::size_t> sum{0};
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 100; ++i) CHECK(parallel_for(2, 100, [&](std::size_t task, int) { sum += task; }, &stop));
  CHECK((asked.load() * Stop::kEvery <= std::chrono::steady_clock::now() - start));
  Stop never(nullptr);
  CHECK(parallel_for(2, 30, [](std::size_t, int) { nap(); }, &never) && !never.said());
}

void a_stop_may_loop_itself() {
  Stop stop([] {
    CHECK(sums_up(3, 100));
    return true;
  });
  CHECK(!parallel_for(2, 1000000, [](std::size_t, int) { nap(); }, &stop));
  CHECK(sums_up(3, 100));
}

// -- forks ----------------------------------------------------------------------------------------

void forks_after_use_answer() {
  for (int i = 0; i < 200; ++i) CHECK(well_in_child([] { return sums_up(3, 100) && sums_up(2, 10); }));
  CHECK(well_in_child([] { return sums_up(3, 9) && well_in_child([] { return sums_up(3, 9); }) && sums_up(3, 9); }));
  CHECK(sums_up(3, 100));
}

void forks_while_others_loop_answer() {
  std::atomic<bool> over{false};
  std::vector<std::thread> others;
  for (int i = 0; i < 2; ++i)
    others.emplace_back([&] {
      while (!over) CHECK(sums_up(3, 50));
    });
  for (int i = 0; i < 100; ++i) CHECK(well_in_child([] { return sums_up(kInChild, 100); }));
  over = true;
  for (std::thread& t : others) t.join();
}

pid_t forked = -1;

void a_child_of_the_stop_is_told() {
  Stop stop([] {
    if (forked == -1) forked = fork();
    return forked != 0;  // the parent stops, the child goes on
  });
  bool told = false;
  try {
    CHECK(!parallel_for(2, 100, [](std::size_t, int) { nap(); }, &stop));
  } catch (const std::runtime_error&) {
    told = true;
  }
  if (forked == 0) std::_Exit(told && sums_up(kInChild, 100) ? 0 : 1);
  int status = -1;
  CHECK(!told && waitpid(forked, &status, 0) == forked && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(sums_up(3, 100));
}

void a_child_of_the_stop_may_stop() {
  pid_t child = -1;
  Stop stop([&] {
    child = fork();
    return true;
  });
  const bool done = parallel_for(2, 100, [](std::size_t, int) { nap(); }, &stop);
  if (child == 0) std::_Exit(!done && sums_up(kInChild, 100) ? 0 : 1);
  int status = -1;
  CHECK(!done && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

// -- control groups -------------------------------------------------------------------------------

class Machine {  // what /proc and /sys would say
 public:
  explicit Machine(const std::string& groups) {
    char name[] = "/tmp/refimpl-pool-XXXXXX";
    CHECK(mkdtemp(name));
    root_ = name;
    file("/proc/self/cgroup", groups);
  }
  ~Machine() { std::filesystem::remove_all(root_); }

  Machine& v2(const std::string& group, const std::string& max) { return file("/sys/fs/cgroup" + group + "/cpu.max", max); }
  Machine& v1(const std::string& group, const std::string& quota, const std::string& period) {
    return file("/sys/fs/cgroup/cpu" + group + "/cpu.cfs_quota_us", quota)
        .file("/sys/fs/cgroup/cpu" + group + "/cpu.cfs_period_us", period);
  }
  int cpus() const { return refimpl::cgroup_cpus(root_); }

 private:
  Machine& file(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text << "\n";
    return *this;
  }
  std::string root_;
};

void control_groups_are_read() {
  CHECK(refimpl::cgroup_cpus("/nowhere") == 0);
  CHECK(Machine("0::/").cpus() == 0);
  // v2: a limit, none, a part of a CPU; the least on the way up
  CHECK(Machine("0::/a").v2("/a", "200000 100000").cpus() == 2);
  CHECK(Machine("0::/a").v2("/a", "max 100000").cpus() == 0);
  CHECK(Machine("0::/a").v2("/a", "1000 100000").cpus() == 1);
  CHECK(Machine("0::/a").v2("/a", "150000 100000").cpus() == 2);
  CHECK(Machine("0::/a/b").v2("/a/b", "max 100000").v2("/a", "300000 100000").cpus() == 3);
  CHECK(Machine("0::/a/b").v2("/a/b", "100000 100000").v2("/a", "300000 100000").cpus() == 1);
  CHECK(Machine("0::/a/b").v2("/a/b", "400000 100000").v2("/a", "300000 100000").cpus() == 3);
  CHECK(Machine("0::/").v2("", "500000 100000").cpus() == 5);  // a container's own namespace
  // v1: no limit, one of this group, one above, one that a container mounts as its root
  const std::string v1 = "5:cpuset:/x\n4:cpu,cpuacct:/a/b\n1:name=systemd:/a";
  CHECK(Machine(v1).v1("/a/b", "-1", "100000").v1("/x", "100000", "100000").cpus() == 0);
  CHECK(Machine(v1).v1("/a/b", "250000", "100000").cpus() == 3);
  CHECK(Machine(v1).v1("/a/b", "-1", "100000").v1("/a", "50000", "100000").cpus() == 1);
  CHECK(Machine(v1).v1("", "400000", "100000").cpus() == 4);
  CHECK(Machine("3:cpuacct:/a").v1("/a", "100000", "100000").cpus() == 0);
  CHECK(Machine("2:cpu:/a\n0::/").v1("/a", "100000", "100000").v2("", "300000 100000").cpus() == 1);
  // what nobody writes
  CHECK(Machine("nonsense\n::\n0::a").v2("/a", "x y").cpus() == 0);
  CHECK(Machine("0::/a").v2("/a", "100000 0").cpus() == 0);
  CHECK(Machine("0::/a").v2("/a", "1e300 1").cpus() == 1000000);
}

}  // namespace

#define PART(name) std::puts(#name), std::fflush(stdout), name()

int main() {
  std::thread([] {}).join();  // a sanitizer's own thread is born with the first
  PART(loops_of_one_task_wake_nobody);
  PART(helpers_are_as_many_as_tasks_allow_and_take_no_signals_but_faults);
  PART(helpers_round_as_the_caller_does);
  PART(every_task_is_done_once_by_one_thread_at_a_time);
  PART(a_thread_begins_with_its_own_part_in_every_loop);
  PART(who_has_done_its_own_part_takes_from_the_others);
  PART(loops_follow_each_other);
  PART(several_callers_all_get_done);
  PART(the_background_has_helpers_of_its_own_that_give_way);
  PART(a_stop_ends_the_loop_and_all_later_ones);
  PART(the_time_of_asking_goes_on_from_loop_to_loop);
  PART(a_stop_is_asked_now_and_then_only);
  PART(a_stop_may_loop_itself);
  PART(forks_after_use_answer);
  PART(forks_while_others_loop_answer);
  PART(a_child_of_the_stop_is_told);
  PART(a_child_of_the_stop_may_stop);
  PART(control_groups_are_read);
  PART(more_threads_than_the_pool_has_are_as_many_as_it_has);
}
