// Vectors of floats as wide as the processor's registers, read and written where floats lie.

#pragma once

#include <cstdint>

using Size = std::int64_t;

#ifdef __AVX512F__
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
typedef float Vector __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

inline const Vector& at(const float* p) { return *reinterpret_cast<const Vector*>(p); }
inline Vector& at(float* p) { return *reinterpret_cast<Vector*>(p); }
