#include "dispatch.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace nvlm {

namespace portable { extern const KernelTable kTable; }
#if defined(__x86_64__)
namespace avx2 { extern const KernelTable kTable; }
namespace avx512 { extern const KernelTable kTable; }
namespace amx { extern const KernelTable kTable; }
namespace amx_emulated { extern const KernelTable kTable; }
#endif

namespace {

#if defined(__x86_64__)
bool hasAvx2() { return __builtin_cpu_supports("x86-64-v3"); }

// AVX-512 without VNNI and BF16 runs the avx2 path: the integer and bf16 kernels have no other form at this width.
bool hasAvx512() {
  return __builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
}

// Tile registers are state that a process must ask the kernel for.
bool hasAmx() {
  unsigned a, b, c, d;
  if (!hasAvx512() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25;
  if ((d & (kBf16 | kTile | kInt8)) != (kBf16 | kTile | kInt8)) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

struct Path {
  const char* name;
  const KernelTable* table;
  bool usable;
};

const std::vector<Path>& paths() {
  static const std::vector<Path> all = {
#if defined(__x86_64__)
      {"amx", &amx::kTable, hasAmx()},
      {"avx512", &avx512::kTable, hasAvx512()},
      {"avx2", &avx2::kTable, hasAvx2()},
      {"portable", &portable::kTable, static_cast<bool>(__builtin_cpu_supports("x86-64-v2"))},
      {"amx-emulated", &amx_emulated::kTable, hasAvx512()},
#else
      {"portable", &portable::kTable, true},
#endif
  };
  return all;
}

}  // namespace

std::vector<std::string> availablePaths() {
  std::vector<std::string> names;
  for (const Path& path : paths()) {
    if (path.usable) names.push_back(path.name);
  }
  return names;
}

const KernelTable* kernelsOf(const std::string& name) {
  for (const Path& path : paths()) {
    if (path.usable && name == path.name) return path.table;
  }
  return nullptr;
}

}  // namespace nvlm
