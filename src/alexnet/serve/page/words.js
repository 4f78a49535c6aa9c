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
export function apart(stride) {
  const names = ["no", "one", "two", "three", "four", "five"];
  return `${names[stride] ?? stride} pixel${stride === 1 ? "" : "s"} apart`;
}

/** Say in a sentence or two what a layer does. `before` is the row of the layer before it. */
export function sentence(row, before, spec) {
  if (row.kind === "input") {
    return `The photograph, cut to ${row.size}×${row.size} pixels of red, green and blue.`;
  }
  if (row.kind === "dense") {
    const inputs = before.channels * before.size ** 2;
    return `${count(row.channels)} units, each connected to all ${count(inputs)} numbers before it.`;
  }
  if (row.kind === "pool") {
    const pool = named(before.name, spec).pool;
    const what = pool.kind === "max" ? "The largest" : "The average";
    const overlap = pool.kernel_size > pool.stride ? " The squares overlap." : "";
    return (
      `${what} of every ${pool.kernel_size}×${pool.kernel_size} pixels, ${apart(pool.stride)}: ` +
      `maps of ${before.size}×${before.size} become ${row.size}×${row.size}.${overlap}`
    );
  }
  const conv = named(row.name, spec);
  const sees = before.kind === "input" ? `the ${before.channels} colours`
    : `${before.channels / groups(conv, spec)} maps${towerWords(conv, spec)}`;
  const own = conv.locally_connected ? " Every position has filters of its own." : "";
  return (
    `${conv.kernel_size}×${conv.kernel_size} filters, ${conv.out_channels} of them, ${apart(conv.stride)}. Each ` +
    `sees ${sees} and makes one map of ${row.size}×${row.size}.${own}`
  );
}

/** How the side of a layer's maps comes about, written out; undefined where it has none. */
export function sideArithmetic(row, before, spec) {
  if (row.kind === "conv") {
    const { kernel_size: kernel, stride, padding, asymmetric_padding: overhang } = named(row.name, spec);
    const zeros = (padding ? ` + 2×${padding}` : "") + (overhang ? ` + ${overhang}` : "");
    const reach = before.size + 2 * padding + overhang;
    return side(`${before.size}${zeros}`, reach, kernel, stride, row.size);
  }
  if (row.kind === "pool") {
    const { window, stride } = named(before.name, spec).pool;
    return side(String(before.size), before.size, window, stride, row.size);
  }
  return undefined;
}

/** "(55 − 3) / 2 + 1 = 27"; where a part of a step is left, what is done with it. */
function side(written, reach, window, stride, size) {
  const exact = (reach - window) / stride + 1;
  const steps = stride === 1 ? `${written} − ${window}` : `(${written} − ${window}) / ${stride}`;
  const rest = exact === size ? "" : `, rounded ${exact < size ? "up" : "down"} to ${size}`;
  return `${steps} + 1 = ${Number(exact.toFixed(2))}${rest}`;
}

/** A pool's row comes right after its convolution's, so `before` names it. */
const named = (name, spec) => spec.convs.find((conv) => conv.name === name);

const groups = (conv, spec) => (conv.grouped ? spec.towers : 1);

function towerWords(conv, spec) {
  if (spec.towers === 1) return "";
  return conv.sees === "tower" ? " of its own tower" : " of both towers";
}
