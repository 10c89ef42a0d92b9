#include "base/cpus.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace refimpl {
namespace {

// quota / period of CPU time as CPUs, rounded up; 0 when there is no quota.
int whole_cpus(double quota, double period) {
  return quota > 0 && period > 0 ? static_cast<int>(std::ceil(std::min(quota / period, 1e6))) : 0;
}

int quota_v2(const std::string& folder) {
  std::string quota;  // "max" is no number: 0
  double period = 0;
  std::ifstream(folder + "/cpu.max") >> quota >> period;
  return whole_cpus(std::strtod(quota.c_str(), nullptr), period);
}

int quota_v1(const std::string& folder) {
  double quota = 0, period = 0;  // a quota of -1 is none
  std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;
  std::ifstream(folder + "/cpu.cfs_period_us") >> period;
  return whole_cpus(quota, period);
}

// The least that the group at mount + path and those above it grant. Inside a container the mount may
// be the group itself, whatever the path says: then its own files are found at the end of the walk.
int least_upwards(const std::string& mount, std::string path, int (*quota_of)(const std::string&)) {
  int least = 0;
  for (;;) {
    if (const int n = quota_of(mount + path); n && (!least || n < least)) least = n;
    if (path.empty()) return least;
    path.erase(std::min(path.size(), path.rfind('/')));
    if (path.find('/') == std::string::npos) path.clear();
  }
}

bool lists(const std::string& controllers, const std::string& wanted) {
  std::istringstream all(controllers);
  for (std::string one; std::getline(all, one, ',');)
    if (one == wanted) return true;
  return false;
}

}  // namespace

int cgroup_cpus(const std::string& root) {
  const std::string mount = root + "/sys/fs/cgroup";
  int least = 0;
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // id:controllers:path, no controllers in v2
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    int n = 0;
    if (controllers.empty()) n = least_upwards(mount, path, quota_v2);
    if (lists(controllers, "cpu")) n = least_upwards(mount + "/cpu", path, quota_v1);
    if (n && (!least || n < least)) least = n;
  }
  return least;
}

int usable_cpus() {
  int n = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
  if (const int granted = cgroup_cpus("")) n = std::min(n, granted);
#endif
  return std::max(n, 1);
}

}  // namespace refimpl
