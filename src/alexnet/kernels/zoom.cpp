// Boxes of images, resized by bilinear interpolation. kernels/zoom.py compiles this page.
//
// Two rows of bytes are blended into one of floats, then its pixels two by two: each row of the
// result reads two of the image once.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

using Size = std::int64_t;

struct Shape {
    Size images, height, width, channels;
    Size side;  // of the result
    Size threads;
};

// Where a pixel of the result lies: `part` of the way from pixel `first` to pixel `second`.
struct Place {
    Size first, second;
    float part;
};

static Place place(Size number, Size side, Size pixels, float centre, float half) {
    const float at = half * ((2 * number + 1) / float(side) - 1) + centre;  // -1 to 1
    const float pixel = std::min(std::max(((at + 1) * pixels - 1) / 2, 0.0f), float(pixels - 1));
    const Size first = Size(std::floor(pixel));
    return {first, std::min(first + 1, pixels - 1), pixel - first};
}

// boxes: centre x, centre y, half width (negative: mirrored) and half height of each, -1 to 1.
extern "C" void run(
    const std::uint8_t* input, const float* boxes, float* output, const Shape& shape) {
    const Size line = shape.width * shape.channels, numbers = shape.side * shape.channels;
#pragma omp parallel num_threads(shape.threads)
    {
        std::vector<float> blended(line), parts(numbers);
        std::vector<std::int32_t> first(numbers), second(numbers);
#pragma omp for schedule(static)
        for (Size image = 0; image < shape.images; ++image) {
            const float* const box = boxes + 4 * image;
            for (Size x = 0; x < shape.side; ++x) {
                const Place at = place(x, shape.side, shape.width, box[0], box[2]);
                for (Size channel = 0; channel < shape.channels; ++channel) {
                    first[x * shape.channels + channel] = at.first * shape.channels + channel;
                    second[x * shape.channels + channel] = at.second * shape.channels + channel;
                    parts[x * shape.channels + channel] = at.part;
                }
            }
            for (Size y = 0; y < shape.side; ++y) {
                const Place at = place(y, shape.side, shape.height, box[1], box[3]);
                const std::uint8_t* const above = input + (image * shape.height + at.first) * line;
                const std::uint8_t* const below = input + (image * shape.height + at.second) * line;
#pragma omp simd
                for (Size i = 0; i < line; ++i)
                    blended[i] = above[i] + at.part * (float(below[i]) - float(above[i]));
                float* const out = output + (image * shape.side + y) * numbers;
#pragma omp simd
                for (Size i = 0; i < numbers; ++i) {
                    const float left = blended[first[i]];
                    out[i] = left + parts[i] * (blended[second[i]] - left);
                }
            }
        }
    }
}
