/**
 * A photograph's pixels as `alexnet predict` sees them: resized in Pillow's whole numbers, cut as the
 * paper tested, less the mean. Rows are resized before columns, as Pillow always did; version 13
 * begins with the columns of tall images, which moves some bytes by 1.
 */

const BITS = 22; // of the fraction in Pillow's weights: 32, less 8 of a pixel and 2 of overshoot
const BOX = { support: 0.5, weigh: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) };
const BICUBIC = { support: 2, weigh: bicubic };

function bicubic(x) {
  const a = -0.5;
  const far = Math.abs(x);
  if (far < 1) return ((a + 2) * far - (a + 3)) * far * far + 1;
  if (far < 2) return (((far - 5) * far + 8) * far - 4) * a;
  return 0;
}

/** Which pixels of `count` each of `size` new ones is made of, between two edges, and how much. */
function weights(count, from, to, size) {
  const { support, weigh } = to - from >= size ? BOX : BICUBIC;
  const scale = (to - from) / size;
  const wide = Math.max(1, scale);
  return Array.from({ length: size }, (_, place) => {
    const centre = from + (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support * wide + 0.5));
    const end = Math.min(count, Math.trunc(centre + support * wide + 0.5));
    const shares = [];
    for (let x = first; x < end; x++) shares.push(weigh((x - centre + 0.5) * (1 / wide)));
    const sum = shares.reduce((a, b) => a + b, 0);
    const whole = shares.map((share) => {
      const part = (sum ? share / sum : share) * 2 ** BITS;
      return Math.trunc(part + (part < 0 ? -0.5 : 0.5));
    });
    return { first, shares: whole };
  });
}

/**
 * Resize along one axis, each result rounded to a byte; the axes change places in what is returned,
 * so that two of these resize both. `along` and `across` are the steps in `values` from one pixel
 * to the next on the axis, and from one line to the next.
 */
function resample(values, parts, lines, along, across) {
  const out = new Uint8ClampedArray(parts.length * lines * 3);
  let to = 0;
  for (const { first, shares } of parts) {
    for (let line = 0; line < lines; line++) {
      const from = line * across + first * along;
      for (let colour = 0; colour < 3; colour++) {
        let sum = 2 ** (BITS - 1);
        for (let i = 0, at = from + colour; i < shares.length; i++, at += along) {
          sum += values[at] * shares[i];
        }
        out[to++] = sum >> BITS;
      }
    }
  }
  return out;
}

/**
 * Scale the central square of an image to `size` pixels on a side.
 *
 * @param image {data, width, height}: RGBA bytes
 * @param box [left, top, right, bottom] of the square in it; may have halves of pixels
 * @returns Uint8ClampedArray of size * size * 3: RGB, row by row
 */
export function resizeSquare({ data, width, height }, [left, top, right, bottom], size) {
  const columns = resample(data, weights(width, left, right, size), height, 4, 4 * width);
  return resample(columns, weights(height, top, bottom, size), size, 3, 3 * height);
}

/** The tops and lefts of one view, the centre, or of five that are seen mirrored too (section 4.1). */
export function cropOffsets(prepared, size, views) {
  const rest = prepared - size;
  const middle = Math.floor(rest / 2);
  const five = [[middle, middle], [0, 0], [0, rest], [rest, 0], [rest, rest]];
  return views === 10 ? five : five.slice(0, 1);
}

/**
 * Write a view of a square into `out` as the network takes it: (3, size, size), normalised.
 *
 * @param square RGB bytes, `prepared` pixels on a side
 * @param about {size, prepared, scale, mean, stdev, bgr}: mean has a number a colour, or one
 *   of each pixel
 */
export function cropInto(out, square, [top, left], mirrored, about) {
  const { size, prepared, scale, mean, stdev, bgr } = about;
  const area = size * size;
  for (let colour = 0; colour < 3; colour++) {
    let to = (bgr ? 2 - colour : colour) * area;
    for (let y = 0; y < size; y++) {
      for (let x = 0; x < size; x++) {
        const column = left + (mirrored ? size - 1 - x : x);
        const value = square[((top + y) * prepared + column) * 3 + colour];
        const less = mean.length === 3 ? mean[colour] : mean[colour * area + y * size + x];
        out[to++] = (value * scale - less) / stdev[colour];
      }
    }
  }
}

/** Return a square of RGB bytes with a part of it covered by one colour. */
export function cover(square, prepared, [top, left], size, colour) {
  const copy = square.slice();
  for (let y = top; y < top + size; y++) {
    for (let x = left; x < left + size; x++) copy.set(colour, (y * prepared + x) * 3);
  }
  return copy;
}
