// A program of cases, each asked of the kernels in every dtype.
//
// One line per kernel and dtype. Ends with 0 when each stayed within its bound and its memory; what a
// device forbids ends the program at once, with a line that says what.
#pragma once

#include <csignal>
#include <cstdlib>
#include <cstring>

#include <unistd.h>

#include "emulated.h"

namespace driver {

struct Case {
  const char* name;
  void (*run)(const Subject&, Random&, Op&);
  std::size_t per_round;
  bool each_dtype = false;
};

inline char crash_line[200];

inline void crashed(int signal_number) {
  const ssize_t ignored = write(1, crash_line, std::strlen(crash_line));
  (void)ignored;
  std::signal(signal_number, SIG_DFL);
  _exit(1);
}

// False when something failed.
inline bool run(const Case& c, const Subject& subject, std::uint64_t seed, std::size_t rounds) {
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

// --op NAME, --seed N, --rounds N.
template <std::size_t kCount>
int drive(int argc, char** argv, const Case (&cases)[kCount]) {
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
  // As subject_of has it for the tier that multiplies so: three terms and six products, two and three, one.
  // Attention in three terms stays within the bounds of plain float32.
  const double two_terms = 3 * 0x1p-16 + 2 * 0x1p-24 + 0x1p-32;
  const Subject subjects[] = {{"emulated", Dtype::float32, float32, false, 6, 2 * 0x1p-24 + 0x1p-32},
                              {"emulated", Dtype::bf16x3, bf16x3, false, 3, two_terms, two_terms},
                              {"emulated", Dtype::bfloat16, bfloat16, true, 1, 0}};
  for (const Case& c : cases) {
    if (!c.run || (only && std::strcmp(only, c.name))) continue;
    for (const Subject& subject : subjects) {
      if (!c.each_dtype && subject.dtype != Dtype::float32) continue;
      ++done, failed += !run(c, subject, seed, rounds);
    }
  }
  std::printf("%zu kernels, %zu failed\n", done, failed);
  return done == 0 || failed ? 1 : 0;
}

}  // namespace driver
