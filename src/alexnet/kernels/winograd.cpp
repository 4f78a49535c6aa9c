// The two ends of a Winograd convolution in float32 on a processor (Lavin and Gray, 2016).
//
// `spread` transforms tiles of an image and lays them out so that one matrix product for each of the
// TILE * TILE places in a tile is the convolution; of the products `gather` makes OUTPUTS * OUTPUTS
// pixels a tile. Gradients are made of the same parts: that of the image is a convolution again, that
// of the filters the products of the image's tiles with the `spread_gradient` of the output's.
//
// Defined on the compiler's command line:
//   TILE     side of a tile of the input: OUTPUTS plus the side of the filters, less 1
//   OUTPUTS  side of a tile of the output

#include "vectors.h"

struct WinogradArguments {
    Size images, height, width, channels;  // of the image that is read or written, channels-last
    Size groups, padding, down, across;    // tiles in a column and in a row of an image
    Size threads;
};

namespace {

// out = matrix * in * matrix^T, the matrix being (TO, FROM).
template <int TO, int FROM>
inline void transform(const float* matrix, const Vector (&in)[FROM][FROM], Vector (&out)[TO][TO]) {
    Vector half[TO][FROM];
    for (int i = 0; i < TO; ++i)
        for (int j = 0; j < FROM; ++j) {
            half[i][j] = Vector{};
            for (int k = 0; k < FROM; ++k) half[i][j] += matrix[i * FROM + k] * in[k][j];
        }
    for (int i = 0; i < TO; ++i)
        for (int j = 0; j < TO; ++j) {
            out[i][j] = Vector{};
            for (int k = 0; k < FROM; ++k) out[i][j] += matrix[j * FROM + k] * half[i][k];
        }
}

// Calls work(image, row, column, tile) for every tile.
template <class Work> inline void each_tile(const WinogradArguments& s, Work work) {
#pragma omp parallel for collapse(3) schedule(static) num_threads(s.threads)
    for (Size image = 0; image < s.images; ++image)
        for (Size row = 0; row < s.down; ++row)
            for (Size column = 0; column < s.across; ++column)
                work(image, row, column, (image * s.down + row) * s.across + column);
}

// Where a channel of a tile lies among (TILE * TILE, groups, tiles, channels of a group).
inline Size place(const WinogradArguments& s, Size tile, Size channel) {
    const Size width = s.channels / s.groups, tiles = s.images * s.down * s.across;
    return (channel / width * tiles + tile) * width + channel % width;
}

inline Size step(const WinogradArguments& s) { return s.images * s.down * s.across * s.channels; }

// Transforms squares of SIDE pixels, one every OUTPUTS, by a matrix (TILE, SIDE).
template <int SIDE>
void spread_squares(const float* image, const float* matrix, float* out, const WinogradArguments& s) {
    each_tile(s, [&](Size n, Size row, Size column, Size tile) {
        const Size top = row * OUTPUTS - s.padding, left = column * OUTPUTS - s.padding;
        for (Size channel = 0; channel < s.channels; channel += LANES) {
            Vector pixels[SIDE][SIDE], made[TILE][TILE];
            for (Size i = 0; i < SIDE; ++i)
                for (Size j = 0; j < SIDE; ++j) {
                    const Size y = top + i, x = left + j;
                    const bool inside = y >= 0 && y < s.height && x >= 0 && x < s.width;
                    const Size pixel = (n * s.height + y) * s.width + x;
                    pixels[i][j] = inside ? at(image + pixel * s.channels + channel) : Vector{};
                }
            transform<TILE, SIDE>(matrix, pixels, made);
            float* const to = out + place(s, tile, channel);
            for (Size i = 0; i < TILE * TILE; ++i) at(to + i * step(s)) = made[i / TILE][i % TILE];
        }
    });
}

}  // namespace

// (N, H, W, C) to (TILE * TILE, groups, tiles, C / groups); C / groups fills whole vectors.
extern "C" void spread(const float* image, const float* matrix, float* out, const WinogradArguments& s) {
    spread_squares<TILE>(image, matrix, out, s);
}

// The same of the gradient of an output, whose tiles do not overlap.
extern "C" void spread_gradient(const float* gradient, const float* matrix, float* out,
                                const WinogradArguments& s) {
    spread_squares<OUTPUTS>(gradient, matrix, out, s);
}

// (TILE * TILE, groups, tiles, C / groups) to (N, H, W, C), and the bias added.
extern "C" void gather(const float* products, const float* matrix, const float* bias, float* out,
                       const WinogradArguments& s) {
    each_tile(s, [&](Size n, Size row, Size column, Size tile) {
        const Size top = row * OUTPUTS, left = column * OUTPUTS;
        for (Size channel = 0; channel < s.channels; channel += LANES) {
            Vector product[TILE][TILE], made[OUTPUTS][OUTPUTS];
            const float* const from = products + place(s, tile, channel);
            for (Size i = 0; i < TILE * TILE; ++i) product[i / TILE][i % TILE] = at(from + i * step(s));
            transform<OUTPUTS, TILE>(matrix, product, made);
            for (Size i = 0; i < OUTPUTS && top + i < s.height; ++i)
                for (Size j = 0; j < OUTPUTS && left + j < s.width; ++j) {
                    const Size pixel = (n * s.height + top + i) * s.width + left + j;
                    at(out + pixel * s.channels + channel) = made[i][j] + at(bias + channel);
                }
        }
    });
}
