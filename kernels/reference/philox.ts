/** Philox4x32-10, the counter-based generator of Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011. */

const ROUNDS = 10;
const MULTIPLIER_0 = 0xd2511f53n;
const MULTIPLIER_1 = 0xcd9e8d57n;
const KEY_STEP_0 = 0x9e3779b9;
const KEY_STEP_1 = 0xbb67ae85;

/** Four random words of a counter (4 words) under a key (2 words). */
export function philox4x32(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter.map((word) => word >>> 0) as [number, number, number, number];
  let [k0, k1] = key.map((word) => word >>> 0) as [number, number];
  for (let round = 0; round < ROUNDS; round++) {
    const product0 = MULTIPLIER_0 * BigInt(c0);
    const product1 = MULTIPLIER_1 * BigInt(c2);
    const high0 = Number(product0 >> 32n);
    const high1 = Number(product1 >> 32n);
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = Number(product1 & 0xffffffffn);
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = Number(product0 & 0xffffffffn);
    k0 = (k0 + KEY_STEP_0) >>> 0;
    k1 = (k1 + KEY_STEP_1) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** The draw of a request's token: a multiple of 2^-24 in [0, 1), a pure function of seed and position. */
export function uniformDraw(seedLow: number, seedHigh: number, position: number): number {
  return (philox4x32([position, 0, 0, 0], [seedLow, seedHigh])[0] >>> 8) * 2 ** -24;
}
