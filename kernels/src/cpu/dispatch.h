// Which instruction-set paths this machine can run.
#pragma once
#include <string>
#include <vector>

#include "../ops.h"

namespace nvlm {

// Names usable here, fastest first; amx-emulated, slow and meant for tests, is the last.
std::vector<std::string> availablePaths();
// Null for a name that is unknown or that this machine cannot run.
const KernelTable* kernelsOf(const std::string& name);

}  // namespace nvlm
