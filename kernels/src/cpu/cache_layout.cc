#include "cache_layout.h"

namespace nvlm {

int64_t cacheBlockBytes(int blockSize, int kvHeads, int headSize, CacheType type) {
  return blockLayout(blockSize, kvHeads, headSize, type).bytes;
}

}  // namespace nvlm
