#include "base/cpu.h"

#include <cstdint>
#include <stdexcept>

#include "base/target.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace refimpl {
namespace {

std::string why_not_scalar() { return ""; }

#if defined(__aarch64__)
std::string why_not_neon() { return ""; }  // part of the architecture's ABI
#endif

#if defined(__x86_64__)

// XCR0: the register states that the operating system saves on a context switch.
std::uint64_t saved_states() {
  std::uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (std::uint64_t{high} << 32) | low;
}

constexpr std::uint64_t kStateAvx = 0x6;      // XMM and YMM
constexpr std::uint64_t kStateAvx512 = 0xe6;  // also opmask, the high halves of ZMM, ZMM 16 - 31
constexpr std::uint64_t kStateTiles = 0x60000;  // the configuration of tiles, and tiles

std::string why_not_avx2() {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return "CPUID is not available";
  if (!(c & bit_OSXSAVE)) return "the operating system does not use XSAVE";
  const bool fma = c & bit_FMA;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return "CPUID has no leaf 7";
  if (!fma || !(b & bit_AVX2)) return "the processor has no AVX2 with FMA";
  if ((saved_states() & kStateAvx) != kStateAvx) return "the operating system does not save AVX registers";
  return "";
}

std::string why_not_avx512() {
  if (const std::string why = why_not_avx2(); !why.empty()) return why;
  unsigned a, b = 0, c, d;
  __get_cpuid_count(7, 0, &a, &b, &c, &d);
  constexpr unsigned kNeeded = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
  if ((b & kNeeded) != kNeeded) return "the processor has no AVX-512 F, DQ, BW and VL";
  if ((saved_states() & kStateAvx512) != kStateAvx512) return "the operating system does not save AVX-512 registers";
  return "";
}

// Linux hands out the state of tiles on request, once per process. It refuses where an alternate stack
// for signals is too small to save it.
bool tiles_permitted() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, the bit of XCR0
  static const bool granted = syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
  return granted;
#else
  return false;
#endif
}

std::string why_not_avx512bf16() {
#if !defined(REFIMPL_AMX)
  return "the compiler of this build does not know AVX512_BF16";
#else
  if (const std::string why = why_not_avx512(); !why.empty()) return why;
  unsigned a = 0, b = 0, c = 0, d = 0;
  __get_cpuid_count(7, 1, &a, &b, &c, &d);
  if (!(a & (1u << 5))) return "the processor has no AVX512_BF16";
  __get_cpuid(0, &a, &b, &c, &d);
  // Intel's VDPBF16PS does half of what its fma does per second; AMD's, twice as much.
  if (b != signature_AMD_ebx || c != signature_AMD_ecx || d != signature_AMD_edx) return "its VDPBF16PS is known to be fast on AMD's processors only";
  return "";
#endif
}

std::string why_not_amx() {
#if !defined(REFIMPL_AMX)
  return "the compiler of this build does not know AMX";
#else
  if (const std::string why = why_not_avx512(); !why.empty()) return why;
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24, kAvx512Bf16 = 1u << 5;
  __get_cpuid_count(7, 0, &a, &b, &c, &d);
  if (!(d & kAmxBf16) || !(d & kAmxTile)) return "the processor has no AMX with bfloat16";
  __get_cpuid_count(7, 1, &a, &b, &c, &d);
  if (!(a & kAvx512Bf16)) return "the processor has no AVX512_BF16";
  if ((saved_states() & kStateTiles) != kStateTiles) return "the operating system does not save AMX tiles";
  if (!tiles_permitted()) return "the operating system refuses AMX tiles to this process";
  return "";
#endif
}

#endif

// A bit of CPUID's leaf 7; false where there is no such leaf.
enum class Register { a, c, d };
bool in_leaf_7([[maybe_unused]] unsigned subleaf, [[maybe_unused]] Register which, [[maybe_unused]] unsigned bit) {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || a < subleaf) return false;
  if (subleaf) __get_cpuid_count(7, subleaf, &a, &b, &c, &d);
  return (which == Register::a ? a : which == Register::c ? c : d) >> bit & 1u;
#else
  return false;
#endif
}

// The tier of that name, whether it can run here or not.
Tier known_tier(const std::string& name) {
  std::string known;
  for (Tier tier : built_tiers()) {
    if (name == tier_name(tier)) return tier;
    known += (known.empty() ? "" : ", ") + std::string(tier_name(tier));
  }
  throw std::invalid_argument("tier '" + name + "' is unknown; this build has " + known);
}

}  // namespace

const std::vector<Tier>& built_tiers() {
  static const std::vector<Tier> tiers = {
#define REFIMPL_TIER(name) Tier::name,
#include "base/tiers.inc"
  };
  return tiers;
}

const char* tier_name(Tier tier) {
  switch (tier) {
#define REFIMPL_TIER(name) \
  case Tier::name: return #name;
#include "base/tiers.inc"
  }
  return "";
}

// Asked once, as a virtual machine takes tens of microseconds for each CPUID. Never destroyed: threads may outlive
// main.
std::string why_unavailable(Tier tier) {
  switch (tier) {
#define REFIMPL_TIER(name)                                                \
  case Tier::name: {                                                      \
    static const std::string& why = *new std::string(why_not_##name());   \
    return why;                                                           \
  }
#include "base/tiers.inc"
  }
  return "";
}

bool has_avx_vnni() {
  static const bool has = in_leaf_7(1, Register::a, 4);
  return has;
}
bool has_avx512_vnni() {
  static const bool has = in_leaf_7(0, Register::c, 11);
  return has;
}
bool has_amx_int8() {
  static const bool has = in_leaf_7(0, Register::d, 25);
  return has;
}
bool has_neon_dot() {
#if defined(__aarch64__) && defined(__linux__)
  constexpr unsigned long kDot = 1ul << 20;  // HWCAP_ASIMDDP
  return getauxval(AT_HWCAP) & kDot;
#else
  return false;
#endif
}

Tier named_tier(const std::string& name) {
  const Tier tier = known_tier(name);
  if (const std::string why = why_unavailable(tier); !why.empty())
    throw std::invalid_argument("tier '" + name + "' cannot run here: " + why);
  return tier;
}

Tier best_tier(const std::string& cap) {
  const Tier top = cap.empty() ? built_tiers().front() : known_tier(cap);
  bool below = false;
  for (Tier tier : built_tiers()) {
    below = below || tier == top;
    if (below && why_unavailable(tier).empty()) return tier;
  }
  return Tier::scalar;
}

}  // namespace refimpl
