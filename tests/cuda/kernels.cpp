// Every kernel of csrc/cuda on this processor, against loops in double.
//
//   kernels [--op NAME] [--seed N] [--rounds N]
//
// One line per kernel and dtype. Ends with 0 when each stayed within its bound and its memory; what a device
// forbids ends the program at once, with a line that says what.
#include <csignal>
#include <cstdlib>
#include <cstring>

#include <unistd.h>

#include "attention_cases.h"
#include "pooling_cases.h"
#include "rowwise_cases.h"

namespace {

using namespace driver;

struct Case {
  const char* name;
  void (*run)(const Subject&, Random&, Op&);
  std::size_t per_round;
  bool each_dtype = false;
};
const Case kCases[] = {
    {"layer_norm", norm_case, 30},
    {"residual_norm", residual_norm_case, 40},
    {"embedding_norm", embedding_norm_case, 40},
    {"glu", activation_case, 80},
    {"rope", rope_case, 40},
    {"rope_rows", rope_rows_case, 30},
    {"pool", pool_case, 60},
    {"attention", attention_case, 2, true},
    {"launch", attention_launch_case, 2, true},
    {"untouched", attention_untouched_case, 2, true},
};

char crash_line[200];

void crashed(int signal_number) {
  const ssize_t ignored = write(1, crash_line, std::strlen(crash_line));
  (void)ignored;
  std::signal(signal_number, SIG_DFL);
  _exit(1);
}

// False when something failed.
bool run(const Case& c, const Subject& subject, std::uint64_t seed, std::size_t rounds) {
  const char* dtype = c.each_dtype ? dtype_name(subject.dtype) : "";
  Op op(c.name);
  Random random(seed);
  for (std::size_t i = 0; i < rounds * c.per_round && !op.failures; ++i) {
    std::snprintf(crash_line, sizeof crash_line, "%-14s %-8s FAILED: memory that is not its own, case %zu of seed %llu\n", c.name, dtype, i,
                  static_cast<unsigned long long>(seed));
    c.run(subject, random, op);
  }
  std::printf("%-14s %-8s %4zu cases, worst error %.4f of its bound", c.name, dtype, op.cases, op.worst);
  if (op.failures) std::printf(", FAILED: %s", op.first.c_str());
  std::printf("\n"), std::fflush(stdout);
  return op.failures == 0;
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
  const Kernels float32 = kernels_here<float, 3>(), bf16x3 = kernels_here<float, 2>(), bfloat16 = kernels_here<bf16, 1>();
  // float32 stays within the bounds of plain float32; two terms leave out what subject_of says.
  const Subject subjects[] = {{"emulated", Dtype::float32, float32, false, 1, 0},
                              {"emulated", Dtype::bf16x3, bf16x3, false, 1, 0, 3 * 0x1p-16 + 2 * 0x1p-24 + 0x1p-32},
                              {"emulated", Dtype::bfloat16, bfloat16, true, 1, 0}};
  for (const Case& c : kCases) {
    if (only && std::strcmp(only, c.name)) continue;
    for (const Subject& subject : subjects) {
      if (!c.each_dtype && subject.dtype != Dtype::float32) continue;
      ++done, failed += !run(c, subject, seed, rounds);
    }
  }
  std::printf("%zu kernels, %zu failed\n", done, failed);
  return done == 0 || failed ? 1 : 0;
}
