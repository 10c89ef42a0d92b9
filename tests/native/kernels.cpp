// Every kernel of every tier and dtype that runs here, against plain double loops. No Python.
//
//   c++ -std=c++17 -O1 -ffp-contract=off -Icsrc tests/native/kernels.cpp csrc/{base,tiers,engine}/*.cpp -pthread
//   ./a.out [--tier NAME] [--dtype NAME] [--op NAME] [--seed N] [--rounds N]
//   ./a.out --tasks        counts the tasks of attention of every tier, here or not
//
// Bounds are derived (bounded.h, subject.h). Also: nothing is written but the outputs, nothing is
// read but the inputs (guarded.h), and any split of rows and panels gives the same bits. One line per
// kernel, with the largest error relative to its bound; exit status 1 when anything failed.
#include <csignal>
#include <cstdlib>

#include "base/cpu.h"
#include "cases.h"
#include "encoder.h"

namespace {

using namespace driver;

struct Case {
  const char* name;
  void (*run)(const Subject&, Random&, Op&);
  std::size_t per_round;
};

const Case kCases[] = {
    {"widen", widen_case, 2},           {"to_operand", operand_case, 8}, {"pack", pack_case, 12},
    {"infinite", infinite_case, 8},     {"infinite_w", infinite_weight_case, 8},
    {"project", project_case, 16},      {"project_glu", glu_case, 16},   {"project_qkv", qkv_case, 12},
    {"layer_norm", norm_case, 12},      {"norm_operand", norm_operand_case, 8},
    {"glu", activation_case, 16},       {"rope", rope_case, 12},         {"attention", attention_case, 24},
    {"forward", forward_case, 1},
};

// Other kernels of int8 differ from the best ones in their products alone.
bool takes_products(const Case& c) { return c.run == project_case || c.run == glu_case || c.run == qkv_case || c.run == forward_case; }

// What to say when a kernel touches memory that is not its own.
char crash_line[300];

void crashed(int signal_number) {
  const ssize_t ignored = write(1, crash_line, std::strlen(crash_line));
  (void)ignored;
  std::signal(signal_number, SIG_DFL);
  _exit(1);
}

struct Options {
  std::string tier, dtype, op;
  bool tasks = false;
  std::uint64_t seed = 1;
  std::size_t rounds = 2;
};

Options options_of(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
    if (name == "--tasks") {
      o.tasks = true, --i;
      continue;
    }
    if (name == "--tier") o.tier = value;
    else if (name == "--dtype") o.dtype = value;
    else if (name == "--op") o.op = value;
    else if (name == "--seed") o.seed = std::strtoull(value.c_str(), nullptr, 10);
    else if (name == "--rounds") o.rounds = std::strtoull(value.c_str(), nullptr, 10);
    else std::printf("unknown option %s\n", argv[i]), std::exit(2);
    if (value.empty()) std::printf("%s needs a value\n", argv[i]), std::exit(2);
  }
  return o;
}

// Why a tier cannot run here, or "". Tiles in plain C++ (plain_tiles.h) run wherever its vectors do.
std::string why_not_here(Tier tier) {
#if defined(REFIMPL_PLAIN_TILES)
  if (tier == Tier::amx && why_unavailable(Tier::avx512).empty() && __builtin_cpu_supports("avx512bf16")) return "";
#endif
  return why_unavailable(tier);
}

// One sequence of 128 tokens under 12 heads has a task of attention for each of 64 threads. Needs no such
// processor.
bool enough_tasks(Tier tier, Dtype dtype, const Kernels& k) {
  const std::size_t tasks = attention_tasks(k, 128, 12, 64);
  std::printf("%-7s %-9s %zu tasks of attention\n", tier_name(tier), dtype_name(dtype), tasks);
  return tasks >= 64;
}

// False when something failed.
bool run(const Subject& s, const Case& c, const Options& o) {
  Op op(c.name);
  Random random(o.seed);
  for (std::size_t i = 0; i < o.rounds * c.per_round; ++i) {
    std::snprintf(crash_line, sizeof crash_line, "%-7s %-9s %-13s FAILED: memory that is not its own, case %zu of seed %llu\n",
                  s.tier, dtype_name(s.dtype), c.name, i, static_cast<unsigned long long>(o.seed));
    c.run(s, random, op);
  }
  std::printf("%-7s %-9s %-13s %4zu cases, worst error %.2f of its bound", s.tier, dtype_name(s.dtype), c.name, op.cases, op.worst);
  if (op.failures) std::printf(", FAILED %zu times, first: %s", op.failures, op.first.c_str());
  std::printf("\n");
  std::fflush(stdout);
  return op.failures == 0;
}

}  // namespace

int main(int argc, char** argv) {
  const Options o = options_of(argc, argv);
  std::signal(SIGSEGV, crashed);
  std::signal(SIGBUS, crashed);
  std::size_t done = 0, failed = 0;
  for (const Tier tier : built_tiers()) {
    if (!o.tier.empty() && o.tier != tier_name(tier)) continue;
    if (o.tasks) {
      for (const Dtype dtype : kDtypes)
        if (const Kernels* kernels = kernels_of(tier, dtype)) ++done, failed += !enough_tasks(tier, dtype, *kernels);
      continue;
    }
    if (const std::string why = why_not_here(tier); !why.empty()) {
      std::printf("%-7s not here: %s\n", tier_name(tier), why.c_str());
      continue;
    }
    for (const Dtype dtype : kDtypes) {
      if (!o.dtype.empty() && o.dtype != dtype_name(dtype)) continue;
      for (std::size_t i = 0; const Kernels* kernels = kernels_of(tier, dtype, i); ++i) {
        const Subject subject = subject_of(tier, dtype, *kernels);
        for (const Case& c : kCases)
          if ((o.op.empty() || o.op == c.name) && (i == 0 || takes_products(c))) ++done, failed += !run(subject, c, o);
      }
    }
  }
  std::printf("%zu kernels, %zu failed\n", done, failed);
  return done == 0 || failed ? 1 : 0;
}
