// How checkpoints store tensors: plain types, and GGUF's block formats. A quantised weight is d * (code - zero) + m, with d and m
// per group of 32 or 16 values along the row and `zero` a constant of the format.
#pragma once
#include <cstdint>

namespace nvlm {

// The order is that of STORAGE_TYPES in kernels/cpu/addon.ts.
enum class StorageType : int { kF32, kF16, kBf16, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kQ4_K, kQ5_K, kQ6_K };
constexpr int kStorageTypes = 11;

struct StorageInfo {
  int blockLength;
  int blockBytes;
  int codeBits;     // 0: plain type; 4 or 8: bits a code takes when repacked
  int zero;
  bool hasMin;      // m may differ from 0
  bool halfScales;  // d and m are fp16 values exactly
  int groupLength;  // values per d
};
const StorageInfo& storageInfo(StorageType type);
int64_t storageRowBytes(StorageType type, int64_t columns);

// fp32 values of one stored row.
void dequantizeRow(StorageType type, const uint8_t* row, int64_t columns, float* out);

// Codes, d and m of one stored row of a quantised type: `columns` codes, columns / groupLength of d and of m.
void decodeRow(StorageType type, const uint8_t* row, int64_t columns, uint8_t* codes, float* d, float* m);

float halfToFloat(uint16_t bits);
// Round to nearest even; overflow to infinity.
uint16_t floatToHalf(float value);
uint16_t floatToBfloat16(float value);

}  // namespace nvlm
