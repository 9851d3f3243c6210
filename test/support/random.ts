/** Seeded random numbers for tests. Failing tests print the seed; the same seed gives the same run. */

export interface Random {
  readonly seed: number;
  /** Uniform in [0, 1), multiples of 2^-32. */
  uniform(): number;
  /** Integer from `least` to `most`, both included. */
  integer(least: number, most: number): number;
  /** Standard normal. */
  normal(): number;
  pick<T>(values: readonly T[]): T;
  /** The values in random order, as a new array. */
  shuffle<T>(values: readonly T[]): T[];
}

/** splitmix32 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014, at 32 bits). */
export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  const uniform = (): number => {
    state = (state + 0x9e3779b9) >>> 0;
    let word = state;
    word = Math.imul(word ^ (word >>> 16), 0x21f0aaad);
    word = Math.imul(word ^ (word >>> 15), 0x735a2d97);
    return ((word ^ (word >>> 15)) >>> 0) * 2 ** -32;
  };
  const integer = (least: number, most: number): number =>
    least + Math.floor(uniform() * (most - least + 1));
  return {
    seed,
    uniform,
    integer,
    normal: () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()),
    pick: (values) => values[integer(0, values.length - 1)]!,
    shuffle: (values) => {
      const order = [...values];
      for (let i = order.length - 1; i > 0; i--) {
        const j = integer(0, i);
        [order[i], order[j]] = [order[j]!, order[i]!];
      }
      return order;
    },
  };
}
