// Squares of pixels laid side by side as channels, so that a convolution with a stride becomes a
// dense one. kernels/pixels.py compiles this kernel.
//
// An image is channels-last. Of each square the rows follow each other, each with its pixels and
// their channels as they lie in the image; so a row of a square is one contiguous copy.
//
// Defined on the compiler's command line:
//   GIVEN, WANTED  bfloat16, float or double: the types of the image and of the result
//   CHANNELS       of the image
//   SIDE           of a square, in pixels

#include <algorithm>
#include <cstdint>

using Size = std::int64_t;
using bfloat16 = std::uint16_t;  // the upper half of a float

struct SpaceToDepthArguments {
    Size images, height, width;
    Size padding;                 // zeros before the first row and column
    Size out_height, out_width;   // in squares; past the image are zeros
    Size threads;
};

namespace {

constexpr Size RUN = SIDE * CHANNELS;  // numbers in a row of a square

inline float widen(bfloat16 x) { return __builtin_bit_cast(float, std::uint32_t(x) << 16); }
inline float widen(float x) { return x; }
inline double widen(double x) { return x; }

template <class T> inline void put(T x, double& to) { to = x; }
template <class T> inline void put(T x, float& to) { to = float(x); }
template <class T> inline void put(T x, bfloat16& to) {  // to the nearest, ties to even
    const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, float(x));
    to = bfloat16(x == x ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fc0);
}

}  // namespace

extern "C" void run(const GIVEN* input, WANTED* output, const SpaceToDepthArguments& shape) {
    const Size line = shape.width * CHANNELS;
#pragma omp parallel for collapse(2) schedule(static) num_threads(shape.threads)
    for (Size image = 0; image < shape.images; ++image)
        for (Size row = 0; row < shape.out_height; ++row) {
            WANTED* const out =
                output + (image * shape.out_height + row) * shape.out_width * SIDE * RUN;
            for (Size inside = 0; inside < SIDE; ++inside) {
                const Size y = row * SIDE + inside - shape.padding;
                const bool outside = y < 0 || y >= shape.height;
                const GIVEN* const from = input + (image * shape.height + (outside ? 0 : y)) * line;
                for (Size column = 0; column < shape.out_width; ++column) {
                    WANTED* const to = out + (column * SIDE + inside) * RUN;
                    const Size start = column * RUN - shape.padding * CHANNELS;
                    if (!outside && start >= 0 && start + RUN <= line) {
#pragma omp simd
                        for (Size i = 0; i < RUN; ++i) put(widen(from[start + i]), to[i]);
                        continue;
                    }
                    for (Size i = 0; i < RUN; ++i) {
                        const Size at = start + i;
                        const bool there = !outside && at >= 0 && at < line;
                        put(there ? widen(from[at]) : 0, to[i]);
                    }
                }
            }
        }
}
