/** Numbers and layers in plain words. */

const whole = new Intl.NumberFormat("en");

/** 62378344 -> "62,378,344". */
export const count = (number) => whole.format(number);

/** 1135256096 -> "1.1 billion". */
export function roughly(number) {
  for (const [size, name] of [[1e9, "billion"], [1e6, "million"], [1e3, "thousand"]]) {
    const many = number / size;
    if (many >= 1) return `${many < 10 ? many.toFixed(1) : Math.round(many)} ${name}`;
  }
  return String(number);
}

/** 0.9714 -> "97.1 %"; what is below a thousandth is said to be. */
export function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${(100 * share).toFixed(1)} %`;
}

/** 4 -> "four pixels apart". */
export function spacing(stride) {
  const names = ["no", "one", "two", "three", "four", "five"];
  return `${names[stride] ?? stride} pixel${stride === 1 ? "" : "s"} apart`;
}

/** Return the row of model.layers before another. */
export const layerBefore = (row, { layers }) => layers[layers.indexOf(row) - 1];

/** Return the convolution that made the maps of a layer: its own, or that before its pool. */
export function convBehind(row, model) {
  const { name } = row.kind === "pool" ? layerBefore(row, model) : row;
  return model.spec.convs.find((conv) => conv.name === name);
}

/** Say in a sentence or two what a layer does. */
export function layerSentence(row, model) {
  const { kind, channels, size } = row;
  const before = layerBefore(row, model);
  if (kind === "input") {
    return `The photograph, cut to ${size}×${size} pixels of red, green and blue.`;
  }
  if (kind === "dense") {
    const inputs = before.channels * before.size ** 2;
    return `${count(channels)} units, each connected to all ${count(inputs)} numbers before it.`;
  }
  const conv = convBehind(row, model);
  if (kind === "pool") {
    const { kind: form, kernel_size: window, stride } = conv.pool;
    const what = form === "max" ? "The largest" : "The average";
    const overlap = window > stride ? " The squares overlap." : "";
    return (
      `${what} of every ${window}×${window} pixels, ${spacing(stride)}: ` +
      `maps of ${before.size}×${before.size} become ${size}×${size}.${overlap}`
    );
  }
  const { kernel_size: window, stride, grouped } = conv;
  const { towers } = model.spec;
  const tower = towers === 1 ? "" : grouped ? " of its own tower" : " of both towers";
  const sees = before.kind === "input" ? `the ${before.channels} colours`
    : `${before.channels / (grouped ? towers : 1)} maps${tower}`;
  const own = conv.locally_connected ? " Every position has filters of its own." : "";
  return (
    `${window}×${window} filters, ${channels} of them, ${spacing(stride)}. Each ` +
    `sees ${sees} and makes one map of ${size}×${size}.${own}`
  );
}

/**
 * How the side of a layer's maps comes about, "(55 − 3) / 2 + 1 = 27"; where a part of a step is
 * left, what is done with it. Undefined for a layer that has no maps.
 */
export function sideArithmetic(row, model) {
  if (row.kind !== "conv" && row.kind !== "pool") return undefined;
  const before = layerBefore(row, model).size;
  const conv = convBehind(row, model);
  const { kernel_size: window, stride, padding = 0, asymmetric_padding: after = 0 } =
    row.kind === "pool" ? conv.pool : conv;
  const zeros = (padding ? ` + 2×${padding}` : "") + (after ? ` + ${after}` : "");
  const written = `${before}${zeros} − ${window}`;
  const exact = (before + 2 * padding + after - window) / stride + 1;
  const steps = stride === 1 ? written : `(${written}) / ${stride}`;
  const way = exact < row.size ? "up" : "down";
  const rest = exact === row.size ? "" : `, rounded ${way} to ${row.size}`;
  return `${steps} + 1 = ${Number(exact.toFixed(2))}${rest}`;
}
