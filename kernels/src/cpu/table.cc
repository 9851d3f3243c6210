// The KernelTable of one instruction-set path.
#include "kernels.h"

#define NVLM_STRING_OF(name) #name
#define NVLM_STRING(name) NVLM_STRING_OF(name)

namespace nvlm::NVLM_PATH {

extern const KernelTable kTable;
const KernelTable kTable = {
    .name = NVLM_STRING(NVLM_PATH),
    .rmsNorm = rmsNorm,
    .layerNorm = layerNorm,
    .queryKeyNorm = queryKeyNorm,
    .linear = linear,
    .wideLinear = kWideLinear,
    .ropeAndCache = ropeAndCache,
    .attention = attention,
    .attentionScratchBytes = attentionScratchBytes,
    .sample = sample,
    .sampleScratchBytes = sampleScratchBytes,
    .peak = peak,
};

}  // namespace nvlm::NVLM_PATH
