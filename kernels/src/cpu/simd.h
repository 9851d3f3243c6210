// Sixteen-lane vectors, one source for every instruction-set path. A vector is kParts native registers: one of 64 bytes
// (avx512, amx), two of 32 (avx2) or four of 16 (portable). Everything here is always inlined, so that no function compiled
// for one path can be linked into another: kernel sources keep to this header, <cstring> and plain loops over their own types.
// The sources are built without floating-point contraction: a multiply-add is fused only where `fma` says so, and `fma` is two
// roundings on the portable path.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE4_1__)
#include <smmintrin.h>
#endif

#define NVLM_INLINE inline __attribute__((always_inline))
#define NVLM_INLINE_LAMBDA __attribute__((always_inline))

namespace nvlm::NVLM_PATH {

constexpr int kLanes = 16;
#if defined(__AVX512F__)
constexpr int kPartBytes = 64;
#elif defined(__AVX2__)
constexpr int kPartBytes = 32;
#else
constexpr int kPartBytes = 16;
#endif
constexpr int kParts = 64 / kPartBytes;
constexpr int kPartLanes = kLanes / kParts;

typedef float FloatPart __attribute__((vector_size(kPartBytes)));
typedef int32_t IntPart __attribute__((vector_size(kPartBytes)));
typedef int16_t ShortPart __attribute__((vector_size(kPartBytes)));
typedef float LooseFloatPart __attribute__((vector_size(kPartBytes), aligned(4), may_alias));
typedef int32_t LooseIntPart __attribute__((vector_size(kPartBytes), aligned(1), may_alias));

// 16 floats.
struct F32x16 {
  FloatPart part[kParts];
};
// 16 int32, or 64 raw bytes, or 32 bf16.
struct I32x16 {
  IntPart part[kParts];
};

// --- moves ---------------------------------------------------------------------------------------------------------------

NVLM_INLINE F32x16 splat(float value) {
  F32x16 r;
  // x - 0 is x, also for -0, and the compiler knows it: a broadcast alone is left.
  for (int i = 0; i < kParts; ++i) r.part[i] = value - FloatPart{};
  return r;
}
NVLM_INLINE I32x16 splatInt(int32_t value) {
  I32x16 r;
  for (int i = 0; i < kParts; ++i) r.part[i] = IntPart{} + value;
  return r;
}
NVLM_INLINE F32x16 zero() { return F32x16{}; }
NVLM_INLINE I32x16 zeroInt() { return I32x16{}; }

NVLM_INLINE F32x16 load(const float* p) {
  F32x16 r;
  for (int i = 0; i < kParts; ++i) r.part[i] = reinterpret_cast<const LooseFloatPart*>(p)[i];
  return r;
}
NVLM_INLINE void store(float* p, F32x16 v) {
  for (int i = 0; i < kParts; ++i) reinterpret_cast<LooseFloatPart*>(p)[i] = v.part[i];
}
// 64 bytes from any address.
NVLM_INLINE I32x16 loadInt(const void* p) {
  I32x16 r;
  for (int i = 0; i < kParts; ++i) r.part[i] = reinterpret_cast<const LooseIntPart*>(p)[i];
  return r;
}
NVLM_INLINE void storeInt(void* p, I32x16 v) {
  for (int i = 0; i < kParts; ++i) reinterpret_cast<LooseIntPart*>(p)[i] = v.part[i];
}
// Four bytes of memory in every lane.
NVLM_INLINE I32x16 broadcastBytes(const void* p) {
  int32_t value;
  std::memcpy(&value, p, 4);
  return splatInt(value);
}

// The first n (0..16) floats; the other lanes are `fill`, and no memory beyond p + n is touched.
NVLM_INLINE F32x16 loadPartial(const float* p, int n, float fill = 0.0f) {
#if defined(__AVX512F__)
  F32x16 r;
  r.part[0] = _mm512_mask_loadu_ps(_mm512_set1_ps(fill), static_cast<__mmask16>((1u << n) - 1), p);
  return r;
#else
  if (n == kLanes) return load(p);
  alignas(64) float lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = i < n ? p[i] : fill;
  return load(lanes);
#endif
}
// Stores the first n (0..16) lanes only.
NVLM_INLINE void storePartial(float* p, F32x16 v, int n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v.part[0]);
#else
  if (n == kLanes) return store(p, v);
  alignas(64) float lanes[kLanes];
  store(lanes, v);
  for (int i = 0; i < n; ++i) p[i] = lanes[i];
#endif
}

// --- arithmetic ----------------------------------------------------------------------------------------------------------

#define NVLM_LANEWISE(op)                                                 \
  NVLM_INLINE F32x16 operator op(F32x16 a, F32x16 b) {                    \
    F32x16 r;                                                             \
    for (int i = 0; i < kParts; ++i) r.part[i] = a.part[i] op b.part[i];  \
    return r;                                                             \
  }
NVLM_LANEWISE(+)
NVLM_LANEWISE(-)
NVLM_LANEWISE(*)
NVLM_LANEWISE(/)
#undef NVLM_LANEWISE

#define NVLM_LANEWISE_INT(op)                                             \
  NVLM_INLINE I32x16 operator op(I32x16 a, I32x16 b) {                    \
    I32x16 r;                                                             \
    for (int i = 0; i < kParts; ++i) r.part[i] = a.part[i] op b.part[i];  \
    return r;                                                             \
  }
NVLM_LANEWISE_INT(+)
NVLM_LANEWISE_INT(-)
NVLM_LANEWISE_INT(&)
NVLM_LANEWISE_INT(|)
#undef NVLM_LANEWISE_INT

// a * b + c.
NVLM_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  F32x16 r;
  for (int i = 0; i < kParts; ++i) {
#if defined(__AVX512F__)
    r.part[i] = _mm512_fmadd_ps(a.part[i], b.part[i], c.part[i]);
#elif defined(__AVX2__)
    r.part[i] = _mm256_fmadd_ps(a.part[i], b.part[i], c.part[i]);
#else
    r.part[i] = a.part[i] * b.part[i] + c.part[i];
#endif
  }
  return r;
}

// sum += w * x. Assembly keeps the sums where they are: the compiler moves one of twelve through memory at every step, which makes
// its chain a third longer than the multiply-adds take.
NVLM_INLINE void accumulate(F32x16& sum, F32x16 w, F32x16 x) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  for (int i = 0; i < kParts; ++i) {
    FloatPart part = sum.part[i];
    asm("vfmadd231ps %2, %1, %0" : "+x"(part) : "x"(x.part[i]), "x"(w.part[i]));
    sum.part[i] = part;
  }
#else
  sum = fma(w, x, sum);
#endif
}

// a > b ? a : b, lane by lane; b where either is NaN, as the instruction does.
NVLM_INLINE F32x16 max(F32x16 a, F32x16 b) {
  F32x16 r;
  for (int i = 0; i < kParts; ++i) {
#if defined(__AVX512F__)
    r.part[i] = _mm512_max_ps(a.part[i], b.part[i]);
#elif defined(__AVX2__)
    r.part[i] = _mm256_max_ps(a.part[i], b.part[i]);
#elif defined(__SSE4_1__)
    r.part[i] = _mm_max_ps(a.part[i], b.part[i]);
#else
    r.part[i] = a.part[i] > b.part[i] ? a.part[i] : b.part[i];
#endif
  }
  return r;
}
// a < b ? a : b, lane by lane; b where either is NaN.
NVLM_INLINE F32x16 min(F32x16 a, F32x16 b) {
  F32x16 r;
  for (int i = 0; i < kParts; ++i) {
#if defined(__AVX512F__)
    r.part[i] = _mm512_min_ps(a.part[i], b.part[i]);
#elif defined(__AVX2__)
    r.part[i] = _mm256_min_ps(a.part[i], b.part[i]);
#elif defined(__SSE4_1__)
    r.part[i] = _mm_min_ps(a.part[i], b.part[i]);
#else
    r.part[i] = a.part[i] < b.part[i] ? a.part[i] : b.part[i];
#endif
  }
  return r;
}
// x < limit ? below : otherwise.
NVLM_INLINE F32x16 selectLess(F32x16 x, F32x16 limit, F32x16 below, F32x16 otherwise) {
  F32x16 r;
  for (int i = 0; i < kParts; ++i) {
#if defined(__AVX512F__)
    r.part[i] = _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.part[i], limit.part[i], _CMP_LT_OQ),
                                     otherwise.part[i], below.part[i]);
#else
    r.part[i] = x.part[i] < limit.part[i] ? below.part[i] : otherwise.part[i];
#endif
  }
  return r;
}
NVLM_INLINE F32x16 abs(F32x16 a) {
  F32x16 r;
  for (int i = 0; i < kParts; ++i) {
    r.part[i] = reinterpret_cast<FloatPart>(reinterpret_cast<IntPart>(a.part[i]) & 0x7fffffff);
  }
  return r;
}
NVLM_INLINE F32x16 toFloat(I32x16 a) {
  F32x16 r;
  for (int i = 0; i < kParts; ++i) r.part[i] = __builtin_convertvector(a.part[i], FloatPart);
  return r;
}
// To the nearest integer, ties to even, for |x| < 2^22.
NVLM_INLINE I32x16 roundToInt(F32x16 x) {
  I32x16 r;
  for (int i = 0; i < kParts; ++i) {
#if defined(__AVX512F__)
    r.part[i] = reinterpret_cast<IntPart>(_mm512_cvtps_epi32(x.part[i]));
#elif defined(__AVX2__)
    r.part[i] = reinterpret_cast<IntPart>(_mm256_cvtps_epi32(x.part[i]));
#else
    // Adding 1.5 * 2^23 leaves the rounded integer in the low mantissa bits.
    r.part[i] = reinterpret_cast<IntPart>(x.part[i] + 12582912.0f) - 0x4b400000;
#endif
  }
  return r;
}

template <int kBits>
NVLM_INLINE I32x16 shiftRight(I32x16 a) {
  typedef uint32_t WordPart __attribute__((vector_size(kPartBytes)));
  I32x16 r;
  for (int i = 0; i < kParts; ++i) {
    r.part[i] = reinterpret_cast<IntPart>(reinterpret_cast<WordPart>(a.part[i]) >> kBits);
  }
  return r;
}

// e^x, within 2 ulp; exactly 0 below -87.33 (so for -infinity too), largest finite power above 88.37, NaN for NaN.
NVLM_INLINE F32x16 exp(F32x16 x) {
  const F32x16 low = splat(-87.33f);
  const F32x16 bounded = min(splat(88.37f), max(low, x));
  // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
  const F32x16 magic = splat(12582912.0f);
  const F32x16 shifted = fma(bounded, splat(1.44269504088896341f), magic);
  const F32x16 n = shifted - magic;
  F32x16 r = fma(n, splat(-0.693359375f), bounded);
  r = fma(n, splat(2.12194440e-4f), r);
  F32x16 p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p, r * r, r + splat(1.0f));
  F32x16 power;
  for (int i = 0; i < kParts; ++i) {
    const IntPart exponent = reinterpret_cast<IntPart>(shifted.part[i]) - (0x4b400000 - 127);
    power.part[i] = reinterpret_cast<FloatPart>(exponent << 23);
  }
  return selectLess(x, low, zero(), p * power);
}

// --- reductions: always the tree i + (i + 8), + 4, + 2, + 1 ---------------------------------------------------------------

typedef float Quad __attribute__((vector_size(16)));

NVLM_INLINE Quad quadOf(F32x16 v, int index) {
#if defined(__AVX512F__)
  switch (index) {
    case 0: return _mm512_castps512_ps128(v.part[0]);
    case 1: return _mm512_extractf32x4_ps(v.part[0], 1);
    case 2: return _mm512_extractf32x4_ps(v.part[0], 2);
    default: return _mm512_extractf32x4_ps(v.part[0], 3);
  }
#elif defined(__AVX2__)
  return index % 2 == 0 ? _mm256_castps256_ps128(v.part[index / 2])
                        : _mm256_extractf128_ps(v.part[index / 2], 1);
#else
  return v.part[index];
#endif
}
NVLM_INLINE float horizontalSum(F32x16 v) {
  const Quad low = quadOf(v, 0) + quadOf(v, 2);
  const Quad high = quadOf(v, 1) + quadOf(v, 3);
  const Quad four = low + high;
  return (four[0] + four[2]) + (four[1] + four[3]);
}
NVLM_INLINE float horizontalMax(F32x16 v) {
  const Quad a = quadOf(v, 0), b = quadOf(v, 1), c = quadOf(v, 2), d = quadOf(v, 3);
  const Quad low = a > c ? a : c;
  const Quad high = b > d ? b : d;
  const Quad four = low > high ? low : high;
  const float left = four[0] > four[2] ? four[0] : four[2];
  const float right = four[1] > four[3] ? four[1] : four[3];
  return left > right ? left : right;
}

}  // namespace nvlm::NVLM_PATH
