// Every kernel of csrc/cuda on this processor, against loops in double.
//
//   kernels [--op NAME] [--seed N] [--rounds N]
//
// One line per kernel. Ends with 0 when each stayed within its bound and its memory; what a device
// forbids ends the program at once, with a line that says what.
#include <csignal>
#include <cstdlib>
#include <cstring>

#include <unistd.h>

#include "pooling_cases.h"
#include "rowwise_cases.h"

namespace {

using namespace driver;

struct Case {
  const char* name;
  void (*run)(const Subject&, Random&, Op&);
  std::size_t per_round;
};
const Case kCases[] = {
    {"layer_norm", norm_case, 6},
    {"residual_norm", residual_norm_case, 8},
    {"embedding_norm", embedding_norm_case, 8},
    {"glu", activation_case, 16},
    {"rope", rope_case, 8},
    {"rope_rows", rope_rows_case, 6},
    {"pool", pool_case, 12},
};

char crash_line[200];

void crashed(int signal_number) {
  const ssize_t ignored = write(1, crash_line, std::strlen(crash_line));
  (void)ignored;
  std::signal(signal_number, SIG_DFL);
  _exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  const char* only = nullptr;
  std::uint64_t seed = 1;
  std::size_t rounds = 1, done = 0, failed = 0;
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 == argc) return std::printf("%s needs a value\n", argv[i]), 2;
    if (!std::strcmp(argv[i], "--op")) only = argv[i + 1];
    else if (!std::strcmp(argv[i], "--seed")) seed = std::strtoull(argv[i + 1], nullptr, 10);
    else if (!std::strcmp(argv[i], "--rounds")) rounds = std::strtoull(argv[i + 1], nullptr, 10);
    else return std::printf("unknown option %s\n", argv[i]), 2;
  }
  std::signal(SIGSEGV, crashed), std::signal(SIGBUS, crashed);
  const Kernels kernels = kernels_here();
  const Subject subject{"emulated", Dtype::float32, kernels, false, 1, 0};
  for (const Case& c : kCases) {
    if (only && std::strcmp(only, c.name)) continue;
    Op op(c.name);
    Random random(seed);
    for (std::size_t i = 0; i < rounds * c.per_round; ++i) {
      std::snprintf(crash_line, sizeof crash_line, "%-14s FAILED: memory that is not its own, case %zu of seed %llu\n", c.name, i,
                    static_cast<unsigned long long>(seed));
      c.run(subject, random, op);
    }
    std::printf("%-14s %4zu cases, worst error %.2f of its bound", c.name, op.cases, op.worst);
    if (op.failures) std::printf(", FAILED %zu times, first: %s", op.failures, op.first.c_str());
    std::printf("\n"), std::fflush(stdout);
    ++done, failed += op.failures != 0;
  }
  std::printf("%zu kernels, %zu failed\n", done, failed);
  return done == 0 || failed ? 1 : 0;
}
