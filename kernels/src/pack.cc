#include "pack.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace nvlm {
namespace {

struct PanelFormat {
  PackedKind kind;
  bool wideScales;
  bool hasMin;
  int subs;
  int zero;
  bool operator==(const PanelFormat&) const = default;
};

PanelFormat panelFormat(StorageType type, ComputeType requested) {
  const StorageInfo& info = storageInfo(type);
  switch (resolveComputeType(type, requested)) {
    case ComputeType::kFloat32: return {PackedKind::kF32, false, false, 1, 0};
    case ComputeType::kBfloat16: return {PackedKind::kBf16, false, false, 1, 0};
    case ComputeType::kInt8:
      if (info.codeBits == 0) return {PackedKind::kU8, true, false, 1, 128};
      return {PackedKind::kU8, !info.halfScales, info.hasMin, 32 / info.groupLength, info.zero};
    default:
      if (info.codeBits != 4) return {PackedKind::kU4, true, true, 1, 0};
      return {PackedKind::kU4, !info.halfScales, info.hasMin, 1, info.zero};
  }
}

// The least format that holds both exactly: gate and up share their panels.
PanelFormat commonFormat(const PanelFormat& a, const PanelFormat& b) {
  if (a == b) return a;
  const auto integer = [](const PanelFormat& f) { return f.kind == PackedKind::kU8 || f.kind == PackedKind::kU4; };
  if (!integer(a) || !integer(b)) {
    const bool single = a.kind == PackedKind::kF32 || b.kind == PackedKind::kF32;
    return {single ? PackedKind::kF32 : PackedKind::kBf16, false, false, 1, 0};
  }
  const bool bothNibbles = a.kind == PackedKind::kU4 && b.kind == PackedKind::kU4;
  if (bothNibbles && a.zero == b.zero) {
    return {PackedKind::kU4, a.wideScales || b.wideScales, a.hasMin || b.hasMin, 1, a.zero};
  }
  // Codes of every format fit a byte when their zero is moved to 128.
  return {PackedKind::kU8, a.wideScales || b.wideScales, a.hasMin || b.hasMin, std::max(a.subs, b.subs), 128};
}

int64_t recordBytes(const PanelFormat& format) {
  if (format.kind == PackedKind::kF32 || format.kind == PackedKind::kBf16) return 128;
  const int64_t codes = format.kind == PackedKind::kU4 ? 512 : 1024;
  return codes + format.subs * (format.hasMin ? 2 : 1) * kPairChannels * (format.wideScales ? 4 : 2);
}

// One channel as integers: codes relative to the segment's zero, d and m per sub-group.
struct IntegerRow {
  std::vector<uint8_t> codes;
  std::vector<float> d, m;
};

void quantizeGroup(const float* values, int count, bool nibbles, uint8_t* codes, float* d, float* m) {
  float least = 0, most = 0;
  for (int i = 0; i < count; ++i) {
    least = std::min(least, values[i]);
    most = std::max(most, values[i]);
  }
  const float step = nibbles ? (most - least) / 15.0f : std::max(most, -least) / 127.0f;
  const float inverse = step > 0 ? 1.0f / step : 0.0f;
  *d = step;
  *m = nibbles ? least : 0.0f;
  for (int i = 0; i < count; ++i) {
    const float code = nibbles ? (values[i] - least) * inverse : values[i] * inverse + 128.0f;
    codes[i] = static_cast<uint8_t>(std::clamp(std::nearbyint(code), 0.0f, nibbles ? 15.0f : 255.0f));
  }
}

void integerRow(const StoredMatrix& source, int64_t row, const PackedSegment& segment, IntegerRow* out) {
  const StorageInfo& info = storageInfo(source.type);
  const int64_t padded = segment.records * kGroup;
  const int subs = segment.subs;
  out->codes.assign(static_cast<size_t>(padded), 0);
  out->d.assign(static_cast<size_t>(segment.records * subs), 0.0f);
  out->m.assign(static_cast<size_t>(segment.records * subs), 0.0f);
  const bool nibbles = segment.kind == PackedKind::kU4;
  const bool exact = info.codeBits != 0 && (!nibbles || info.codeBits == 4);
  if (!exact) {
    std::vector<float> values(static_cast<size_t>(source.columns));
    dequantizeRow(source.type, source.row(row), source.columns, values.data());
    for (int64_t g = 0; g < segment.records; ++g) {
      const int count = static_cast<int>(std::min<int64_t>(kGroup, source.columns - g * kGroup));
      float d, m;
      quantizeGroup(values.data() + g * kGroup, count, nibbles, out->codes.data() + g * kGroup, &d, &m);
      for (int sub = 0; sub < subs; ++sub) {
        out->d[static_cast<size_t>(g * subs + sub)] = d;
        out->m[static_cast<size_t>(g * subs + sub)] = m;
      }
    }
    return;
  }
  const int stored = kGroup / info.groupLength;
  std::vector<float> d(static_cast<size_t>(segment.records * stored)), m(d.size());
  decodeRow(source.type, source.row(row), source.columns, out->codes.data(), d.data(), m.data());
  const int shift = segment.zero - info.zero;
  if (shift != 0) {
    for (int64_t i = 0; i < source.columns; ++i) {
      out->codes[static_cast<size_t>(i)] = static_cast<uint8_t>(out->codes[static_cast<size_t>(i)] + shift);
    }
  }
  for (int64_t i = 0; i < segment.records * subs; ++i) {
    out->d[static_cast<size_t>(i)] = d[static_cast<size_t>(i * stored / subs)];
    out->m[static_cast<size_t>(i)] = m[static_cast<size_t>(i * stored / subs)];
  }
}

void writeScale(uint8_t* vector, int channel, bool wide, float value) {
  if (wide) {
    std::memcpy(vector + 4 * channel, &value, 4);
  } else {
    const uint16_t half = floatToHalf(value);
    std::memcpy(vector + 2 * channel, &half, 2);
  }
}

void writeIntegerChannel(const PackedSegment& segment, const IntegerRow& row, int channel, uint8_t* panel) {
  const bool nibbles = segment.kind == PackedKind::kU4;
  const int64_t vectorBytes = kPairChannels * (segment.wideScales ? 4 : 2);
  for (int64_t g = 0; g < segment.records; ++g) {
    uint8_t* record = panel + g * segment.recordBytes;
    const uint8_t* codes = row.codes.data() + g * kGroup;
    for (int i = 0; i < kGroup; ++i) {
      const int quad = i / 4;
      if (!nibbles) {
        record[quad * 128 + channel * 4 + i % 4] = codes[i];
      } else if (quad < 4) {
        record[quad * 128 + channel * 4 + i % 4] |= codes[i];
      } else {
        record[(quad - 4) * 128 + channel * 4 + i % 4] |= static_cast<uint8_t>(codes[i] << 4);
      }
    }
    uint8_t* scales = record + (nibbles ? 512 : 1024);
    for (int sub = 0; sub < segment.subs; ++sub) {
      const size_t at = static_cast<size_t>(g * segment.subs + sub);
      writeScale(scales + sub * vectorBytes, channel, segment.wideScales, row.d[at]);
      if (segment.hasMin) writeScale(scales + (segment.subs + sub) * vectorBytes, channel, segment.wideScales, row.m[at]);
    }
  }
}

void writeFloatChannel(const PackedSegment& segment, const std::vector<float>& values, int channel, uint8_t* panel) {
  if (segment.kind == PackedKind::kF32) {
    float* out = reinterpret_cast<float*>(panel);
    for (size_t i = 0; i < values.size(); ++i) out[i * kPairChannels + static_cast<size_t>(channel)] = values[i];
    return;
  }
  uint16_t* out = reinterpret_cast<uint16_t*>(panel);
  for (size_t i = 0; i < values.size(); ++i) {
    out[i / 2 * 64 + static_cast<size_t>(channel) * 2 + i % 2] = floatToBfloat16(values[i]);
  }
}

// Source and row of channel `channel` of pair `pair`; false for padding.
bool locate(const LinearPlan& plan, int segment, int64_t pair, int channel, int* source, int64_t* row) {
  const int first = plan.firstSource[static_cast<size_t>(segment)];
  if (plan.linear.siluMul) {
    *source = channel < 16 ? 0 : 1;
    *row = pair * 16 + channel % 16;
    return *row < plan.sources[0].rows;
  }
  *row = pair * kPairChannels + channel;
  for (*source = first; *source < plan.firstSource[static_cast<size_t>(segment) + 1]; ++*source) {
    const int64_t rows = plan.sources[static_cast<size_t>(*source)].rows;
    if (*row < rows) return true;
    *row -= rows;
  }
  return false;
}

}  // namespace

int64_t StoredMatrix::storedRow(int64_t logical) const {
  if (rotaryHead == 0) return logical;
  const int64_t i = logical % rotaryHead, half = rotaryHead / 2;
  return logical - i + (i < half ? 2 * i : 2 * (i - half) + 1);
}

const uint8_t* StoredMatrix::row(int64_t logical) const { return data + storedRow(logical) * storageRowBytes(type, columns); }

ComputeType resolveComputeType(StorageType type, ComputeType requested) {
  if (requested != ComputeType::kAuto) return requested;
  switch (type) {
    case StorageType::kF32:
    case StorageType::kF16: return ComputeType::kFloat32;
    case StorageType::kBf16: return ComputeType::kBfloat16;
    default: return storageInfo(type).codeBits == 4 ? ComputeType::kInt4 : ComputeType::kInt8;
  }
}

LinearPlan planLinear(std::vector<StoredMatrix> sources, bool siluMul, ComputeType requested, bool wide) {
  LinearPlan plan;
  plan.sources = std::move(sources);
  PackedLinear& linear = plan.linear;
  linear.k = plan.sources[0].columns;
  linear.siluMul = siluMul;
  const auto addSegment = [&](const PanelFormat& format, int64_t outputs) {
    PackedSegment segment{};
    segment.kind = format.kind;
    segment.wideScales = format.wideScales;
    segment.hasMin = format.hasMin;
    segment.subs = format.subs;
    segment.zero = format.zero;
    segment.outputs = outputs;
    segment.outOffset = linear.n;
    segment.pairs = siluMul ? (outputs + 15) / 16 : (outputs + kPairChannels - 1) / kPairChannels;
    segment.recordBytes = recordBytes(format);
    const bool integer = format.kind == PackedKind::kU8 || format.kind == PackedKind::kU4;
    segment.records = format.kind == PackedKind::kF32     ? linear.k
                      : format.kind == PackedKind::kBf16 ? (linear.k + 31) / 32 * 16
                                                         : (linear.k + kGroup - 1) / kGroup;
    linear.integer |= integer;
    linear.bfloat16 |= format.kind == PackedKind::kBf16;
    linear.float32 |= format.kind == PackedKind::kF32;
    linear.n += outputs;
    plan.bytes += segment.pairs * segment.records * segment.recordBytes;
    if (format.kind == PackedKind::kU4) {
      linear.panelScratchBytes = std::max(linear.panelScratchBytes, segment.records * (segment.recordBytes + 512));
    }
    plan.segments.push_back(segment);
  };
  if (siluMul) {
    plan.firstSource = {0, 2};
    addSegment(commonFormat(panelFormat(plan.sources[0].type, requested), panelFormat(plan.sources[1].type, requested)),
               plan.sources[0].rows);
  } else {
    for (size_t first = 0; first < plan.sources.size();) {
      const PanelFormat format = panelFormat(plan.sources[first].type, requested);
      size_t last = first;
      int64_t outputs = 0;
      for (; last < plan.sources.size() && panelFormat(plan.sources[last].type, requested) == format; ++last) {
        outputs += plan.sources[last].rows;
      }
      plan.firstSource.push_back(static_cast<int>(first));
      addSegment(format, outputs);
      first = last;
    }
    plan.firstSource.push_back(static_cast<int>(plan.sources.size()));
  }
  int64_t rowBytes = 0;
  if (linear.integer) {
    const int64_t records = (linear.k + kGroup - 1) / kGroup;
    rowBytes = records * 36;
    for (const PackedSegment& segment : plan.segments) rowBytes += records * segment.subs * 8;
    rowBytes = (rowBytes + 63) / 64 * 64;
  }
  linear.integerRowBytes = rowBytes;
  const int64_t padded = (linear.k + 31) / 32 * 32;
  if (linear.bfloat16) rowBytes += padded * (wide ? 4 : 2);
  if (linear.float32 && wide) rowBytes += padded * 4;
  linear.preparedRowBytes = rowBytes;
  linear.segmentCount = static_cast<int>(plan.segments.size());
  return plan;
}

void packPairs(const LinearPlan& plan, int segmentIndex, int64_t begin, int64_t end) {
  const PackedSegment& segment = plan.segments[static_cast<size_t>(segmentIndex)];
  const bool integer = segment.kind == PackedKind::kU8 || segment.kind == PackedKind::kU4;
  IntegerRow integers;
  std::vector<float> values(static_cast<size_t>(plan.linear.k));
  for (int64_t pair = begin; pair < end; ++pair) {
    uint8_t* panel = segment.data + pair * segment.records * segment.recordBytes;
    for (int channel = 0; channel < kPairChannels; ++channel) {
      int source;
      int64_t row;
      if (!locate(plan, segmentIndex, pair, channel, &source, &row)) continue;
      const StoredMatrix& matrix = plan.sources[static_cast<size_t>(source)];
      if (integer) {
        integerRow(matrix, row, segment, &integers);
        writeIntegerChannel(segment, integers, channel, panel);
      } else {
        dequantizeRow(matrix.type, matrix.row(row), matrix.columns, values.data());
        writeFloatChannel(segment, values, channel, panel);
      }
    }
  }
}

std::vector<float> packBias(const LinearPlan& plan, int segment, const std::vector<const float*>& biases) {
  const int64_t pairs = plan.segments[static_cast<size_t>(segment)].pairs;
  std::vector<float> packed(static_cast<size_t>(pairs * kPairChannels), 0.0f);
  for (int64_t pair = 0; pair < pairs; ++pair) {
    for (int channel = 0; channel < kPairChannels; ++channel) {
      int source;
      int64_t row;
      if (!locate(plan, segment, pair, channel, &source, &row)) continue;
      packed[static_cast<size_t>(pair * kPairChannels + channel)] = biases[static_cast<size_t>(source)][row];
    }
  }
  return packed;
}

}  // namespace nvlm
