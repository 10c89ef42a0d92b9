// How many CPUs this process may use: the least of its affinity mask, the CPU quotas of its control
// groups (v2 and v1, rounded up) and the machine's cores. Read anew at each call.
#pragma once

#include <string>

namespace refimpl {

// At least 1.
int usable_cpus();

// What the control groups grant, 0 for no limit; `root` stands before /proc and /sys.
int cgroup_cpus(const std::string& root);

}  // namespace refimpl
