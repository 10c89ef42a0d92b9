// A whole pass in which each step is done by the kernels of csrc/cuda: the CPU engine calls them, one task
// after the other, as it calls those of a tier. There is no engine of the device's own yet.
//
//   pass [--seed N] [--rounds N]
#include "../native/encoder.h"
#include "drive.h"

namespace {

const driver::Case kCases[] = {{"forward", driver::forward_case, 1, true}};

}  // namespace

int main(int argc, char** argv) { return driver::drive(argc, argv, kCases); }
