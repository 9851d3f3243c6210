#include "format.h"

#include <cmath>
#include <cstring>
#include <vector>

namespace nvlm {
namespace {

// blockLength, blockBytes, codeBits, zero, hasMin, halfScales, groupLength
constexpr StorageInfo kInfos[kStorageTypes] = {
    {1, 4, 0, 0, false, false, 1},         // f32
    {1, 2, 0, 0, false, false, 1},         // f16
    {1, 2, 0, 0, false, false, 1},         // bf16
    {32, 18, 4, 8, false, true, 32},       // q4_0: d, 16 bytes of nibbles
    {32, 20, 4, 0, true, true, 32},        // q4_1: d, m, nibbles
    {32, 22, 8, 16, false, true, 32},      // q5_0: d, 32 high bits, nibbles
    {32, 24, 8, 0, true, true, 32},        // q5_1: d, m, 32 high bits, nibbles
    {32, 34, 8, 128, false, true, 32},     // q8_0: d, 32 signed bytes
    {256, 144, 4, 0, true, false, 32},     // q4_k: d, dmin, 12 bytes of 6-bit scales, 128 bytes of nibbles
    {256, 176, 8, 0, true, false, 32},     // q5_k: d, dmin, scales, 32 bytes of high bits, nibbles
    {256, 210, 8, 32, false, false, 16},   // q6_k: 128 bytes of low nibbles, 64 of high bit pairs, 16 scales, d
};

uint16_t readHalf(const uint8_t* p) {
  uint16_t bits;
  std::memcpy(&bits, p, 2);
  return bits;
}

// Low nibbles are values 0..15 of a block, high nibbles 16..31.
void splitNibbles(const uint8_t* packed, uint8_t* codes) {
  for (int i = 0; i < 16; ++i) {
    codes[i] = packed[i] & 15;
    codes[i + 16] = packed[i] >> 4;
  }
}

void addFifthBits(const uint8_t* highBits, uint8_t* codes) {
  uint32_t bits;
  std::memcpy(&bits, highBits, 4);
  for (int i = 0; i < 32; ++i) codes[i] |= static_cast<uint8_t>(((bits >> i) & 1) << 4);
}

// Scale and minimum of group j out of the 12 bytes that hold eight 6-bit pairs.
void sixBitPair(const uint8_t* packed, int j, int* scale, int* minimum) {
  if (j < 4) {
    *scale = packed[j] & 63;
    *minimum = packed[j + 4] & 63;
  } else {
    *scale = (packed[j + 4] & 15) | ((packed[j - 4] >> 6) << 4);
    *minimum = (packed[j + 4] >> 4) | ((packed[j] >> 6) << 4);
  }
}

// q4_k and q5_k: 64 values share 32 bytes, low nibbles first; `highBits` is null for q4_k.
void decodeSuperBlock(const uint8_t* block, const uint8_t* highBits, const uint8_t* nibbles,
                      uint8_t* codes, float* d, float* m) {
  const float scale = halfToFloat(readHalf(block));
  const float minimum = halfToFloat(readHalf(block + 2));
  for (int j = 0; j < 8; ++j) {
    int scaleCode, minimumCode;
    sixBitPair(block + 4, j, &scaleCode, &minimumCode);
    d[j] = scale * static_cast<float>(scaleCode);
    m[j] = -minimum * static_cast<float>(minimumCode);
    const uint8_t* bytes = nibbles + 32 * (j / 2);
    for (int i = 0; i < 32; ++i) {
      int code = j % 2 == 0 ? bytes[i] & 15 : bytes[i] >> 4;
      if (highBits) code |= ((highBits[i] >> j) & 1) << 4;
      codes[32 * j + i] = static_cast<uint8_t>(code);
    }
  }
}

void decodeQ6K(const uint8_t* block, uint8_t* codes, float* d) {
  const float scale = halfToFloat(readHalf(block + 208));
  for (int j = 0; j < 16; ++j) d[j] = scale * static_cast<float>(static_cast<int8_t>(block[192 + j]));
  for (int half = 0; half < 2; ++half) {
    const uint8_t* low = block + 64 * half;
    const uint8_t* high = block + 128 + 32 * half;
    uint8_t* out = codes + 128 * half;
    for (int i = 0; i < 32; ++i) {
      out[i] = static_cast<uint8_t>((low[i] & 15) | ((high[i] & 3) << 4));
      out[i + 32] = static_cast<uint8_t>((low[i + 32] & 15) | (((high[i] >> 2) & 3) << 4));
      out[i + 64] = static_cast<uint8_t>((low[i] >> 4) | (((high[i] >> 4) & 3) << 4));
      out[i + 96] = static_cast<uint8_t>((low[i + 32] >> 4) | (((high[i] >> 6) & 3) << 4));
    }
  }
}

void decodeBlock(StorageType type, const uint8_t* block, uint8_t* codes, float* d, float* m) {
  switch (type) {
    case StorageType::kQ4_0:
    case StorageType::kQ5_0:
      d[0] = halfToFloat(readHalf(block));
      m[0] = 0;
      splitNibbles(block + (type == StorageType::kQ4_0 ? 2 : 6), codes);
      if (type == StorageType::kQ5_0) addFifthBits(block + 2, codes);
      return;
    case StorageType::kQ4_1:
    case StorageType::kQ5_1:
      d[0] = halfToFloat(readHalf(block));
      m[0] = halfToFloat(readHalf(block + 2));
      splitNibbles(block + (type == StorageType::kQ4_1 ? 4 : 8), codes);
      if (type == StorageType::kQ5_1) addFifthBits(block + 4, codes);
      return;
    case StorageType::kQ8_0:
      d[0] = halfToFloat(readHalf(block));
      m[0] = 0;
      for (int i = 0; i < 32; ++i) codes[i] = static_cast<uint8_t>(block[2 + i] + 128);
      return;
    case StorageType::kQ4_K:
      decodeSuperBlock(block, nullptr, block + 16, codes, d, m);
      return;
    case StorageType::kQ5_K:
      decodeSuperBlock(block, block + 16, block + 48, codes, d, m);
      return;
    case StorageType::kQ6_K:
      decodeQ6K(block, codes, d);
      for (int j = 0; j < 16; ++j) m[j] = 0;
      return;
    default:
      return;
  }
}

}  // namespace

const StorageInfo& storageInfo(StorageType type) { return kInfos[static_cast<int>(type)]; }

int64_t storageRowBytes(StorageType type, int64_t columns) {
  const StorageInfo& info = storageInfo(type);
  return columns / info.blockLength * info.blockBytes;
}

void decodeRow(StorageType type, const uint8_t* row, int64_t columns, uint8_t* codes, float* d, float* m) {
  const StorageInfo& info = storageInfo(type);
  const int groups = info.blockLength / info.groupLength;
  for (int64_t block = 0; block < columns / info.blockLength; ++block) {
    decodeBlock(type, row + block * info.blockBytes, codes + block * info.blockLength, d + block * groups,
                m + block * groups);
  }
}

void dequantizeRow(StorageType type, const uint8_t* row, int64_t columns, float* out) {
  switch (type) {
    case StorageType::kF32:
      std::memcpy(out, row, static_cast<size_t>(columns) * 4);
      return;
    case StorageType::kF16:
      for (int64_t i = 0; i < columns; ++i) out[i] = halfToFloat(readHalf(row + 2 * i));
      return;
    case StorageType::kBf16:
      for (int64_t i = 0; i < columns; ++i) {
        const uint32_t bits = static_cast<uint32_t>(readHalf(row + 2 * i)) << 16;
        std::memcpy(out + i, &bits, 4);
      }
      return;
    default:
      break;
  }
  const StorageInfo& info = storageInfo(type);
  uint8_t codes[256];
  float d[16], m[16];
  for (int64_t block = 0; block < columns / info.blockLength; ++block) {
    decodeBlock(type, row + block * info.blockBytes, codes, d, m);
    float* values = out + block * info.blockLength;
    for (int i = 0; i < info.blockLength; ++i) {
      const int group = i / info.groupLength;
      values[i] = d[group] * static_cast<float>(codes[i] - info.zero) + m[group];
    }
  }
}

float halfToFloat(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t rest = bits & 0x7fffu;
  uint32_t wide;
  if (rest >= 0x7c00u) {
    wide = 0x7f800000u | (rest << 13);
  } else if (rest >= 0x0400u) {
    wide = (rest << 13) + (112u << 23);
  } else {
    const float small = static_cast<float>(rest) * 0x1p-24f;
    std::memcpy(&wide, &small, 4);
  }
  wide |= sign;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

uint16_t floatToHalf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7e00u;
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u;
  if (magnitude < 0x38800000u) {
    // Below the normal range: adding a power of two rounds to its ulp, 2^-24.
    float small;
    std::memcpy(&small, &magnitude, 4);
    const float shifted = small + 0.5f;
    uint32_t mantissa;
    std::memcpy(&mantissa, &shifted, 4);
    return static_cast<uint16_t>(sign | (mantissa - 0x3f000000u));
  }
  return static_cast<uint16_t>(sign | ((magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13));
}

uint16_t floatToBfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace nvlm
