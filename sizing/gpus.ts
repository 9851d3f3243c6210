/** What GPUs have and can do, by the makers' data sheets: memory as the driver tells it, bandwidth, dense bf16 arithmetic. */

export interface Gpu {
  readonly name: string;
  readonly memoryBytes: number;
  /** Undefined for a GPU of which only the memory was told. */
  readonly bytesPerSecond: number | undefined;
  readonly flopsPerSecond: number | undefined;
}

const GIB = 2 ** 30;
const gpu = (name: string, gib: number, gigabytes: number, teraflops: number): Gpu => ({
  name,
  memoryBytes: gib * GIB,
  bytesPerSecond: gigabytes * 1e9,
  flopsPerSecond: teraflops * 1e12,
});

/** By the names of the command line. */
export const GPUS: ReadonlyMap<string, Gpu> = new Map(
  [
    gpu('a100-40gb', 40, 1555, 312),
    gpu('a100-64gb', 64, 1638, 312),
    gpu('a100-80gb', 80, 2039, 312),
    gpu('h100', 80, 3350, 989),
    // 141 GB, of which the driver gives this much.
    gpu('h200', 140, 4800, 989),
  ].map((one) => [one.name, one]),
);

/** Pattern of the node label `nvidia.com/gpu.product` -> GPU. */
const PRODUCTS: readonly (readonly [RegExp, string])[] = [
  [/A100.*40GB/, 'a100-40gb'],
  [/A100.*64GB/, 'a100-64gb'],
  [/A100.*80GB/, 'a100-80gb'],
  [/H100/, 'h100'],
  [/H200/, 'h200'],
];

/** Undefined for a product that is not in the table. */
export function gpuOfProduct(product: string): Gpu | undefined {
  const name = PRODUCTS.find(([pattern]) => pattern.test(product))?.[1];
  return name === undefined ? undefined : GPUS.get(name);
}
