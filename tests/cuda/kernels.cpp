// Every kernel of csrc/cuda on this processor, against loops in double.
//
//   kernels [--op NAME] [--seed N] [--rounds N]
//
// Compiled with REFIMPL_ONLY, a name as a string, it has that kernel's cases alone: for test_cuda_planted.py.
#include "attention_cases.h"
#include "drive.h"
#include "gemm_cases.h"
#include "head_cases.h"
#include "pooling_cases.h"
#include "rowwise_cases.h"

namespace {

using namespace driver;

#ifdef REFIMPL_ONLY
constexpr bool wanted(const char* name, const char* only = REFIMPL_ONLY) { return *name == *only && (!*name || wanted(name + 1, only + 1)); }
#define REFIMPL_CASE(name, ...)                                \
  [] {                                                         \
    if constexpr (wanted(name)) return Case{name, __VA_ARGS__}; \
    else return Case{name, nullptr, 0};                        \
  }()
#else
#define REFIMPL_CASE(...) Case{__VA_ARGS__}
#endif

const Case kCases[] = {
    REFIMPL_CASE("layer_norm", norm_case, 30),
    REFIMPL_CASE("residual_norm", residual_norm_case, 40),
    REFIMPL_CASE("embedding_norm", embedding_norm_case, 40),
    REFIMPL_CASE("glu", activation_case, 80),
    REFIMPL_CASE("rope", rope_case, 40),
    REFIMPL_CASE("rope_rows", rope_rows_case, 30),
    REFIMPL_CASE("pool", pool_case, 70),
    REFIMPL_CASE("unknown_rows", unknown_rows_case, 20),
    REFIMPL_CASE("activate", activate_case, 40),
    REFIMPL_CASE("unit", unit_case, 30),
    REFIMPL_CASE("narrow", narrow_case, 20),
    REFIMPL_CASE("pack", pack_case, 3, true),
    REFIMPL_CASE("project", project_case, 3, true),
    REFIMPL_CASE("infinite", infinite_case, 2, true),
    REFIMPL_CASE("infinite_w", infinite_weight_case, 2, true),
    REFIMPL_CASE("project_glu", glu_case, 2, true),
    REFIMPL_CASE("project_qkv", qkv_case, 2, true),
    REFIMPL_CASE("heights", heights_case, 2, true),
    REFIMPL_CASE("norm_operand", norm_operand_case, 3, true),
    REFIMPL_CASE("attention", attention_case, 2, true),
    REFIMPL_CASE("launch", attention_launch_case, 2, true),
    REFIMPL_CASE("untouched", attention_untouched_case, 2, true),
};

}  // namespace

int main(int argc, char** argv) { return driver::drive(argc, argv, kCases); }
