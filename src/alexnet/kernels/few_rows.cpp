// A fully-connected layer over few images, in float32 on a processor: what takes time there is reading
// the weights, which is done once for all of them.

#include "vectors.h"

namespace {

constexpr int UNITS = 4, ROWS = 3;  // whose sums fit in the registers

// Dot products of `M` rows of x with `UNITS` rows of weights.
template <int M>
inline void dot(const float* x, const float* weights, float* out, Size inputs, Size units) {
    Vector sums[UNITS][M] = {};
    for (Size k = 0; k < inputs; k += LANES)
        for (int unit = 0; unit < UNITS; ++unit) {
            const Vector weight = at(weights + unit * inputs + k);
            for (int m = 0; m < M; ++m) sums[unit][m] += weight * at(x + m * inputs + k);
        }
    for (int unit = 0; unit < UNITS; ++unit)
        for (int m = 0; m < M; ++m)
            for (int lane = 0; lane < LANES; ++lane) out[m * units + unit] += sums[unit][m][lane];
}

}  // namespace

// out (rows, units), filled with the bias, += x (rows, inputs) * weights^T (units, inputs).
// `inputs` is a multiple of LANES, `units` of UNITS.
extern "C" void multiply(const float* x, const float* weights, float* out, Size rows, Size inputs,
                         Size units, Size threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (Size unit = 0; unit < units; unit += UNITS) {
        const float* const from = weights + unit * inputs;
        Size row = 0;
        for (; row + ROWS <= rows; row += ROWS)
            dot<ROWS>(x + row * inputs, from, out + row * units + unit, inputs, units);
        for (; row < rows; ++row)
            dot<1>(x + row * inputs, from, out + row * units + unit, inputs, units);
    }
}
