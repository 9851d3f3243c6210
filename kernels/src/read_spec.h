// A ModelSpec out of the plain object that kernels/cpu/describe.ts builds.
#pragma once
#include <napi.h>

#include "model.h"

namespace nvlm {

ModelSpec readModelSpec(const Napi::Object& description);

}  // namespace nvlm
