// ReLU, local response normalisation across channels and max pooling in one pass over memory,
// forward and backward. kernels/lrn_pool.py compiles this kernel for one layer on the machine that
// runs it.
//
// Tensors are channels-last: a pixel's channels lie side by side, so each inner loop runs over
// channels and is vector code. Channels are taken in pairs, an even and an odd one: a pair of
// bfloat16 is one word, widened by a shift or a mask, and the neighbours of a channel are mostly
// whole pairs. Of the normalised image only the rows under one pooling window exist at a time, and
// none where nothing is pooled. The backward pass computes them again from the input, so nothing
// else is kept between the passes.
//
// Beta is 3/4, the paper's. The power is the cube of energy^(-1/4), found from a guess made of the
// number's own bits and a polynomial: no logarithm, root or division.
//
// Defined on the compiler's command line:
//   STORED    bfloat16, float or double: the type of the tensors; sums are of float or double
//   CHANNELS  channels of one tower, even; the window of neighbours stays inside
//   RELU      1 where a ReLU comes first
//   NORM      channels in the window of neighbours, odd; 0: no normalisation
//   WINDOW, STRIDE  of the pooling; 1, 1: none

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

using Size = std::int64_t;
using bfloat16 = std::uint16_t;  // the upper half of a float
using Wide = std::conditional_t<std::is_same_v<STORED, double>, double, float>;
using Line = std::vector<Wide>;  // a row of an image; of each pixel's tower first the even channels

struct PoolArguments {
    Size images, height, width, towers;  // of the input
    Size out_height, out_width;
    Size threads;
    double scale, k;  // energy = k + scale * sum of squares
};

namespace {

constexpr int PAIRS = CHANNELS / 2;
constexpr int REACH = (NORM / 2 + 1) / 2;  // of the window of neighbours, in pairs
constexpr int PLACES = WINDOW * WINDOW;
constexpr Size CHUNK = 16;  // pixels between a store and its shifted loads, which must not meet

#define EACH_PAIR _Pragma("omp simd") for (int i = 0; i < PAIRS; ++i)
#define UNROLLED _Pragma("GCC unroll 32")

struct Pair {
    Wide even, odd;
};

inline float from_bits(std::uint32_t bits) { return __builtin_bit_cast(float, bits); }
inline std::uint32_t bits_of(float x) { return __builtin_bit_cast(std::uint32_t, x); }

inline Pair read(const bfloat16* from, int i) {
    std::uint32_t word;
    std::memcpy(&word, from + 2 * i, sizeof word);
    return {from_bits(word << 16), from_bits(word & 0xffff0000)};
}
template <class T> inline Pair read(const T* from, int i) { return {from[2 * i], from[2 * i + 1]}; }

// To the nearest, ties to even, as everywhere; the lower half of the result is to be dropped.
inline std::uint32_t rounded(float x) { return bits_of(x) + 0x7fff + (bits_of(x) >> 16 & 1); }

inline void write(Pair x, bfloat16* to, int i) {
    const std::uint32_t word = rounded(x.even) >> 16 | (rounded(x.odd) & 0xffff0000);
    std::memcpy(to + 2 * i, &word, sizeof word);
}
template <class T> inline void write(Pair x, T* to, int i) {
    to[2 * i] = x.even;
    to[2 * i + 1] = x.odd;
}

// A pixel's tower, computed first and written then: a processor that rounds to bfloat16 by itself
// does 32 channels in two instructions, where the above has eleven, and takes denormal numbers for
// zero. Beside the pooling it gains nothing.
struct Tower {
    alignas(64) Wide even[PAIRS], odd[PAIRS];

    void write_to(STORED* to) const {
#ifdef __AVX512BF16__
        if constexpr (std::is_same_v<STORED, bfloat16> && PAIRS % 16 == 0) {
            const __m512i half = _mm512_set_epi32(
                0x1f000f, 0x1e000e, 0x1d000d, 0x1c000c, 0x1b000b, 0x1a000a, 0x190009, 0x180008,
                0x170007, 0x160006, 0x150005, 0x140004, 0x130003, 0x120002, 0x110001, 0x100000);
            for (int i = 0; i < PAIRS; i += 16) {
                const auto both =
                    _mm512_cvtne2ps_pbh(_mm512_load_ps(odd + i), _mm512_load_ps(even + i));
                _mm512_storeu_si512(to + 2 * i, _mm512_permutexvar_epi16(half, __m512i(both)));
            }
            return;
        }
#endif
        EACH_PAIR write({even[i], odd[i]}, to, i);
    }
};

inline Wide relu(Wide x) { return RELU && x < 0 ? 0 : x; }  // NaN stays

inline Pair activation(const STORED* from, int i) {
    const Pair x = read(from, i);
    return {relu(x.even), relu(x.odd)};
}

// x^(-1/4) for x > 0. x y^4 of the guess y is within 12.4 % of 1; the polynomial is the best of
// its degree there and leaves 6e-5, little beside the 4e-3 of bfloat16; Newton's step leaves 8e-9.
inline float inverse_fourth_root(float x) {
    float y = from_bits(0x4f581800 - (bits_of(x) >> 2));
    const float r = x * ((y * y) * (y * y));
    y *= 1.40922227f + r * (0.15787547f * r - 0.56710169f);
    if (!std::is_same_v<STORED, bfloat16>) y *= 1.25f - 0.25f * x * ((y * y) * (y * y));
    return y;
}
inline double inverse_fourth_root(double x) { return 1 / std::sqrt(std::sqrt(x)); }

// One number for each channel of a pixel's tower, with zeros for the neighbours of the outermost.
struct Neighbourhood {
    Wide even[REACH + PAIRS + REACH], odd[REACH + PAIRS + REACH], both[REACH + PAIRS + REACH];

    void set(int i, Pair x) {
        even[REACH + i] = x.even;
        odd[REACH + i] = x.odd;
        both[REACH + i] = x.even + x.odd;
    }

    void set_squares(const STORED* from) {
        EACH_PAIR {
            const Pair a = activation(from, i);
            set(i, {a.even * a.even, a.odd * a.odd});
        }
    }

    // The sums over the windows around both channels of a pair: of the pairs inside, and of a
    // channel beside them.
    Pair sums(int i) const {
        constexpr int in_pairs = NORM / 2 % 2 ? 2 * REACH - 1 : 2 * REACH;
        Pair sum{NORM / 2 % 2 ? odd[i] : even[i + in_pairs], 0};
        sum.odd = NORM / 2 % 2 ? even[i + in_pairs + 1] : odd[i];
        UNROLLED for (int near = 0; near < in_pairs; ++near) {
            sum.even += both[i + near + NORM / 2 % 2];
            sum.odd += both[i + near + 1];
        }
        return sum;
    }
};

// energy^(-1/4) of both channels of a pair, of the squares around them; 1 without a normalisation.
inline Pair roots(const Neighbourhood& squares, int i, Wide scale, Wide k) {
    if (!NORM) return {1, 1};
    const Pair sum = squares.sums(i);
    return {inverse_fourth_root(k + scale * sum.even), inverse_fourth_root(k + scale * sum.odd)};
}

inline Wide cube(Wide x) { return x * x * x; }

// Normalise where nothing is pooled: no pixel needs another.
void forward_alone(const STORED* input, STORED* output, const PoolArguments& shape) {
    const Size towers = shape.images * shape.height * shape.width * shape.towers;
    const Wide scale = Wide(shape.scale), k = Wide(shape.k);
#pragma omp parallel num_threads(shape.threads)
    {
        Neighbourhood near[CHUNK] = {};
#pragma omp for schedule(static)
        for (Size first = 0; first < towers; first += CHUNK) {
            const Size last = std::min(towers, first + CHUNK);
            for (Size tower = first; NORM && tower < last; ++tower)
                near[tower - first].set_squares(input + tower * CHANNELS);
            for (Size tower = first; tower < last; ++tower) {
                const STORED* const x = input + tower * CHANNELS;
                const Neighbourhood& squares = near[tower - first];
                Tower out;
                EACH_PAIR {
                    const Pair a = activation(x, i), y = roots(squares, i, scale, k);
                    out.even[i] = a.even * cube(y.even);
                    out.odd[i] = a.odd * cube(y.odd);
                }
                out.write_to(output + tower * CHANNELS);
            }
        }
    }
}

// The rows of an image that lie under one pooling window; row y is number y % WINDOW.
template <bool BACKWARD> class Rows {
    struct Row {
        Line normalised, root, gradient;  // root: energy^(-1/4); the last two in the backward pass
    };
    const PoolArguments& shape;
    const Size towers;  // of all pixels of a row
    Row rows[WINDOW];
    Neighbourhood near[CHUNK] = {};

public:
    explicit Rows(const PoolArguments& shape) : shape(shape), towers(shape.width * shape.towers) {
        for (Row& row : rows) {
            row.normalised.resize(towers * CHANNELS);
            row.root.resize(BACKWARD ? towers * CHANNELS : 0);
            row.gradient.resize(BACKWARD ? towers * CHANNELS : 0);
        }
    }

    // Bring in row y of the input.
    void load(Size y, const STORED* input) {
        Row& row = rows[y % WINDOW];
        std::fill(row.gradient.begin(), row.gradient.end(), Wide(0));
        for (Size first = 0; first < towers; first += CHUNK) {
            const Size last = std::min(towers, first + CHUNK);
            for (Size tower = first; NORM && tower < last; ++tower)
                near[tower - first].set_squares(input + tower * CHANNELS);
            for (Size tower = first; tower < last; ++tower)
                normalise(input + tower * CHANNELS, near[tower - first], row, tower * CHANNELS);
        }
    }

    // Write a row of outputs: the largest under each window.
    void pool(Size top, STORED* output) {
        for (Size x = 0; x < shape.out_width; ++x)
            for (Size tower = 0; tower < shape.towers; ++tower, output += CHANNELS) {
                const Wide* under[PLACES];
                for (int place = 0; place < PLACES; ++place)
                    under[place] = row(top, place).normalised.data() + start(x, place, tower);
                EACH_PAIR {
                    Wide even = under[0][i], odd = under[0][i + PAIRS];
                    UNROLLED for (int place = 1; place < PLACES; ++place) {
                        even = larger(under[place][i], even);
                        odd = larger(under[place][i + PAIRS], odd);
                    }
                    write({even, odd}, output, i);
                }
            }
    }

    // Give each output's gradient to the first of the largest under its window.
    void unpool(Size top, const STORED* gradient) {
        for (Size x = 0; x < shape.out_width; ++x)
            for (Size tower = 0; tower < shape.towers; ++tower, gradient += CHANNELS) {
                const Wide* under[PLACES];
                Wide* to[PLACES];
                for (int place = 0; place < PLACES; ++place) {
                    under[place] = row(top, place).normalised.data() + start(x, place, tower);
                    to[place] = row(top, place).gradient.data() + start(x, place, tower);
                }
                Wide given[CHANNELS];
                EACH_PAIR {
                    const Pair pair = read(gradient, i);
                    given[i] = pair.even;
                    given[i + PAIRS] = pair.odd;
                }
                std::int32_t chosen[CHANNELS];
#pragma omp simd
                for (int channel = 0; channel < CHANNELS; ++channel) {
                    Wide best = under[0][channel];
                    std::int32_t best_place = 0;
                    UNROLLED for (int place = 1; place < PLACES; ++place) {
                        const bool better = beyond(under[place][channel], best);
                        best = better ? under[place][channel] : best;
                        best_place = better ? place : best_place;
                    }
                    chosen[channel] = best_place;
                }
                for (int place = 0; place < PLACES; ++place)
#pragma omp simd
                    for (int channel = 0; channel < CHANNELS; ++channel)
                        to[place][channel] += chosen[channel] == place ? given[channel] : 0;
            }
    }

    // Take the finished gradient of row y back through the normalisation and the ReLU.
    void finish(Size y, const STORED* input, STORED* output) {
        const Row& row = rows[y % WINDOW];
        const Wide factor = Wide(1.5 * shape.scale);  // 2 beta scale
        for (Size first = 0; first < towers; first += CHUNK) {
            const Size last = std::min(towers, first + CHUNK);
            for (Size tower = first; NORM && tower < last; ++tower) {
                const STORED* const x = input + tower * CHANNELS;
                const Wide* const root = row.root.data() + tower * CHANNELS;
                const Wide* const g = row.gradient.data() + tower * CHANNELS;
                Neighbourhood& terms = near[tower - first];
                EACH_PAIR {
                    const Pair a = activation(x, i);
                    terms.set(i, {g[i] * a.even * seventh(root[i]),
                                  g[i + PAIRS] * a.odd * seventh(root[i + PAIRS])});
                }
            }
            for (Size tower = first; tower < last; ++tower) {
                const STORED* const x = input + tower * CHANNELS;
                const Wide* const root = row.root.data() + tower * CHANNELS;
                const Wide* const g = row.gradient.data() + tower * CHANNELS;
                const Neighbourhood& terms = near[tower - first];
                STORED* const out = output + tower * CHANNELS;
                EACH_PAIR {
                    const Pair a = activation(x, i);
                    Pair d{g[i], g[i + PAIRS]};
                    if (NORM) {
                        const Pair sum = terms.sums(i);
                        d.even = d.even * cube(root[i]) - factor * a.even * sum.even;
                        d.odd = d.odd * cube(root[i + PAIRS]) - factor * a.odd * sum.odd;
                    }
                    write({RELU && a.even <= 0 ? 0 : d.even, RELU && a.odd <= 0 ? 0 : d.odd},
                          out, i);
                }
            }
        }
    }

private:
    static Wide seventh(Wide x) { return cube(x) * cube(x) * x; }  // energy^(-7/4), of the root
    static bool beyond(Wide x, Wide y) { return (x > y) | (x != x); }  // NaN is largest

    static Wide larger(Wide x, Wide y) { return beyond(x, y) ? x : y; }

    // The row under a place of a window. A row or column past the edge is the last one once more.
    Row& row(Size top, int place) {
        return rows[std::min(top + place / WINDOW, shape.height - 1) % WINDOW];
    }
    Size start(Size x, int place, Size tower) const {
        const Size column = std::min(x * STRIDE + place % WINDOW, shape.width - 1);
        return (column * shape.towers + tower) * CHANNELS;
    }

    void normalise(const STORED* input, const Neighbourhood& squares, Row& row, Size start) {
        Wide* const out = row.normalised.data() + start;
        Wide* const root = BACKWARD ? row.root.data() + start : nullptr;
        const Wide scale = Wide(shape.scale), k = Wide(shape.k);
        EACH_PAIR {
            const Pair a = activation(input, i), y = roots(squares, i, scale, k);
            out[i] = a.even * cube(y.even);
            out[i + PAIRS] = a.odd * cube(y.odd);
            if (BACKWARD) {
                root[i] = y.even;
                root[i + PAIRS] = y.odd;
            }
        }
    }
};

}  // namespace

extern "C" void forward(const STORED* input, STORED* output, const PoolArguments& shape) {
    if (WINDOW == 1 && STRIDE == 1) return forward_alone(input, output, shape);
    const Size row = shape.width * shape.towers * CHANNELS;
    const Size out_row = shape.out_width * shape.towers * CHANNELS;
    // With fewer images than threads, an image is divided into bands of rows.
    const Size wanted = (shape.threads + shape.images - 1) / shape.images;
    const Size bands = std::min(wanted, shape.out_height);
#pragma omp parallel num_threads(shape.threads)
    {
        Rows<false> rows(shape);
#pragma omp for collapse(2) schedule(static)
        for (Size image = 0; image < shape.images; ++image)
            for (Size band = 0; band < bands; ++band) {
                Size loaded = 0;
                for (Size y = shape.out_height * band / bands;
                     y < shape.out_height * (band + 1) / bands; ++y) {
                    const Size top = y * STRIDE, bottom = std::min(top + WINDOW, shape.height);
                    for (loaded = std::max(loaded, top); loaded < bottom; ++loaded)
                        rows.load(loaded, input + (image * shape.height + loaded) * row);
                    rows.pool(top, output + (image * shape.out_height + y) * out_row);
                }
            }
    }
}

extern "C" void backward(
    const STORED* input, const STORED* gradient, STORED* output, const PoolArguments& shape) {
    const Size row = shape.width * shape.towers * CHANNELS;
    const Size out_row = shape.out_width * shape.towers * CHANNELS;
#pragma omp parallel num_threads(shape.threads)
    {
        Rows<true> rows(shape);
#pragma omp for schedule(static)
        for (Size image = 0; image < shape.images; ++image) {
            const Size start = image * shape.height, out_start = image * shape.out_height;
            Size finished = 0, next = 0;  // rows of the input, and of the outputs
            for (Size y = 0; y < shape.height; ++y) {
                rows.load(y, input + (start + y) * row);
                const bool at_edge = y == shape.height - 1;
                for (; next < shape.out_height && (next * STRIDE + WINDOW <= y + 1 || at_edge); ++next)
                    rows.unpool(next * STRIDE, gradient + (out_start + next) * out_row);
                const Size needed = next < shape.out_height ? next * STRIDE : shape.height;
                for (; finished < std::min(needed, y + 1); ++finished)
                    rows.finish(finished, input + (start + finished) * row,
                                output + (start + finished) * row);
            }
        }
    }
}
