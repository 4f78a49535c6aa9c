// Windows of images at any zoom, coloured and less the mean, in one pass. kernels/pixels.py compiles
// this kernel.
//
// Two rows of bytes are blended into one of floats, then its pixels two by two: each row of the
// result reads two of the image once, and is converted and stored while it is in the cache.
//
// Defined on the compiler's command line:
//   WANTED    bfloat16, float or double: the type of the result
//   CHANNELS  of the images
//   DIVIDES   1 where the result is divided by `ZoomArguments::divisor`

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

using Size = std::int64_t;
using bfloat16 = std::uint16_t;  // the upper half of a float

struct ZoomArguments {
    Size images, height, width;
    Size side;  // of the result
    Size threads;
    double divisor;
};

namespace {

typedef float Four __attribute__((vector_size(16)));
constexpr Size OVER = 3;  // floats past a row's end that the last four may reach

// Where a pixel of the result lies: `part` of the way from pixel `first` to pixel `second`.
struct Place {
    Size first, second;
    float part;
};

inline Place place(Size number, double start, double step, Size pixels) {
    const double pixel = std::min(std::max(start + number * step, 0.0), double(pixels - 1));
    const Size first = Size(pixel);
    return {first, std::min(first + 1, pixels - 1), float(pixel - first)};
}

inline Four four(const float* at) {
    Four numbers;
    std::memcpy(&numbers, at, sizeof numbers);
    return numbers;
}

inline void put(float x, double& to) { to = x; }
inline void put(float x, float& to) { to = x; }
inline void put(float x, bfloat16& to) {  // to the nearest, ties to even; no pixel is NaN
    const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, x);
    to = bfloat16((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace

// windows: of each image, in its pixels, where the result's first pixel lies (x, y) and the steps
// from one to the next (x, y). shifts: a number a channel of each image. mean: (side, side, CHANNELS).
extern "C" void run(
    const std::uint8_t* input, const double* windows, const float* shifts, const float* mean,
    WANTED* output, const ZoomArguments& shape) {
    const Size line = shape.width * CHANNELS, numbers = shape.side * CHANNELS;
#pragma omp parallel num_threads(shape.threads)
    {
        std::vector<float> blended(line + OVER), cut(numbers + OVER), shift(numbers);
        std::vector<Place> columns(shape.side);
#pragma omp for schedule(static)
        for (Size image = 0; image < shape.images; ++image) {
            const double* const window = windows + 4 * image;
            for (Size x = 0; x < shape.side; ++x) {
                columns[x] = place(x, window[0], window[2], shape.width);
                for (Size channel = 0; channel < CHANNELS; ++channel)
                    shift[x * CHANNELS + channel] = shifts[image * CHANNELS + channel];
            }
            for (Size y = 0; y < shape.side; ++y) {
                const Place row = place(y, window[1], window[3], shape.height);
                const std::uint8_t* const above = input + (image * shape.height + row.first) * line;
                const std::uint8_t* const below = input + (image * shape.height + row.second) * line;
#pragma omp simd
                for (Size i = 0; i < line; ++i)
                    blended[i] = above[i] + row.part * (float(below[i]) - float(above[i]));
                // A pixel's channels at once, with what lies beside them: the next pixel covers it.
                for (Size x = 0; x < shape.side; ++x)
                    for (Size channel = 0; channel < CHANNELS; channel += 4) {
                        const Four left = four(&blended[columns[x].first * CHANNELS + channel]);
                        const Four right = four(&blended[columns[x].second * CHANNELS + channel]);
                        const Four pixel = left + columns[x].part * (right - left);
                        std::memcpy(&cut[x * CHANNELS + channel], &pixel, sizeof pixel);
                    }
                const float* const less = mean + y * numbers;
                WANTED* const out = output + (image * shape.side + y) * numbers;
#pragma omp simd
                for (Size i = 0; i < numbers; ++i) {
                    const float seen = cut[i] + shift[i] - less[i];
                    put(DIVIDES ? seen / float(shape.divisor) : seen, out[i]);
                }
            }
        }
    }
}
