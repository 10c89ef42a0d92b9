// Which of the build's tiers this machine and this operating system can run.
//
// A tier is a bundle of instructions that one set of kernels is compiled for.
#pragma once

#include <string>
#include <vector>

namespace refimpl {

enum class Tier {
#define REFIMPL_TIER(name) name,
#include "base/tiers.inc"
};

// Tiers of this build, best first; scalar is the last and runs everywhere.
const std::vector<Tier>& built_tiers();

// Lower-case name, as in REFIMPL_ISA.
const char* tier_name(Tier tier);

// Why a tier cannot run here, in words; empty when it can. Reads CPUID and XCR0.
std::string why_unavailable(Tier tier);

// The tier of that name. Throws std::invalid_argument when there is none, or it cannot run here.
Tier named_tier(const std::string& name);

// The best tier that can run here and is not above the one named `cap`; an empty name is no cap.
// Throws std::invalid_argument for a name that is no tier.
Tier best_tier(const std::string& cap);

// Instructions that sum products of four bytes, beside those that a tier needs.
bool has_avx_vnni();
bool has_avx512_vnni();
bool has_amx_int8();
bool has_neon_dot();

}  // namespace refimpl
