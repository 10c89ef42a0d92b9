// Every kernel of csrc/cuda on this processor, against loops in double.
//
//   kernels [--op NAME] [--seed N] [--rounds N]
#include "attention_cases.h"
#include "drive.h"
#include "gemm_cases.h"
#include "head_cases.h"
#include "pooling_cases.h"
#include "rowwise_cases.h"

namespace {

using namespace driver;

const Case kCases[] = {
    {"layer_norm", norm_case, 30},
    {"residual_norm", residual_norm_case, 40},
    {"embedding_norm", embedding_norm_case, 40},
    {"glu", activation_case, 80},
    {"rope", rope_case, 40},
    {"rope_rows", rope_rows_case, 30},
    {"pool", pool_case, 70},
    {"unknown_rows", unknown_rows_case, 20},
    {"activate", activate_case, 40},
    {"unit", unit_case, 30},
    {"narrow", narrow_case, 20},
    {"pack", pack_case, 3, true},
    {"project", project_case, 3, true},
    {"infinite", infinite_case, 2, true},
    {"infinite_w", infinite_weight_case, 2, true},
    {"project_glu", glu_case, 2, true},
    {"project_qkv", qkv_case, 2, true},
    {"heights", heights_case, 2, true},
    {"norm_operand", norm_operand_case, 3, true},
    {"attention", attention_case, 2, true},
    {"launch", attention_launch_case, 2, true},
    {"untouched", attention_untouched_case, 2, true},
};

}  // namespace

int main(int argc, char** argv) { return driver::drive(argc, argv, kCases); }
