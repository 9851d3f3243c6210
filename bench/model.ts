/** The model alone, without a server: prefill of 512 and 2048 tokens, decode at batch 1, at depth, and batched. */
import type { LoadedModel } from '#engine/start.ts';
import { benchRequest, runTogether } from './generate.ts';
import type { BenchResult } from './result.ts';
import { figure, figureWithSpread, median, spread } from './statistics.ts';

export const modelWorks = [
  { name: 'prefill 512', prompt: 512, generate: 0, depth: 0, sequences: 1 },
  { name: 'prefill 2048', prompt: 2048, generate: 0, depth: 0, sequences: 1 },
  { name: 'decode, batch 1', prompt: 0, generate: 128, depth: 0, sequences: 1 },
  { name: 'decode at 1k context', prompt: 0, generate: 128, depth: 1024, sequences: 1 },
  { name: 'decode, 4 sequences', prompt: 128, generate: 128, depth: 0, sequences: 4 },
  { name: 'decode, 16 sequences', prompt: 128, generate: 128, depth: 0, sequences: 16 },
  { name: 'decode, 32 sequences', prompt: 128, generate: 128, depth: 0, sequences: 32 },
] as const;
export type ModelWork = (typeof modelWorks)[number];

export interface ModelPeer {
  readonly name: string;
  /** tokens/s, as llama-bench counts them. */
  speed(work: ModelWork, threads: number): Promise<number>;
}

/** Token ids of each sequence of a work; the i-th begins unlike every other whose `salt` + i is another. */
export const promptsOf = (work: ModelWork, salt: number): number[][] =>
  Array.from({ length: work.sequences }, (_, s) =>
    Array.from(
      { length: Math.max(1, work.depth + work.prompt) },
      (_, i) => 1000 + ((i * 7919 + (salt + s) * 104729) % 30000),
    ),
  );

/** tokens/s, as llama-bench counts them: prompt tokens for prefill; for decode the tokens after the first. */
async function ours(
  model: LoadedModel,
  work: ModelWork,
  round: number,
  threads: number,
): Promise<number> {
  const engine = model.startEngine({
    mode: 'Continuous',
    maxSequences: work.sequences,
    workers: threads,
  });
  const figures = await runTogether(
    engine,
    promptsOf(work, round * 64).map((prompt, i) =>
      benchRequest(
        `${work.name}-${round}-${i}`,
        prompt,
        work.generate === 0 ? 1 : work.generate + 1,
      ),
    ),
  );
  await engine.drain(0);
  if (work.generate === 0) return work.prompt / (figures.timeToFirstTokenMs / 1000);
  return (work.sequences * 1000) / figures.timePerOutputTokenMs;
}

export async function modelBench(
  model: LoadedModel,
  options: {
    readonly works: readonly ModelWork[];
    readonly rounds: number;
    readonly threads: number;
    readonly peers: readonly ModelPeer[];
  },
  progress: (fraction: number, note: string) => void,
): Promise<BenchResult> {
  const { works } = options;
  const names = ['ours', ...options.peers.map(({ name }) => name)];
  const samples = works.map(() => names.map(() => [] as number[]));
  const total = works.length * (options.rounds + 1) * names.length;
  let finished = 0;
  for (const [w, work] of works.entries()) {
    for (let round = 0; round <= options.rounds; round++) {
      for (const [n, name] of names.entries()) {
        progress(finished++ / total, `${work.name}: ${name}`);
        const peer = options.peers[n - 1];
        if (peer !== undefined && round === 0) continue;
        const speed = peer
          ? await peer.speed(work, options.threads)
          : await ours(model, work, round, options.threads);
        if (round > 0) samples[w]?.[n]?.push(speed);
      }
    }
  }
  const medianOf = (w: number, n: number) => median(samples[w]?.[n] ?? []);
  return {
    name: 'model',
    tables: [
      {
        title: 'Tokens per second, the model alone',
        columns: ['work', ...names, ...(options.peers.length > 0 ? ['ours / best peer'] : [])],
        rows: works.map((work, w) => [
          work.name,
          ...names.map((_, n) => figureWithSpread(spread(samples[w]?.[n] ?? []))),
          ...(options.peers.length > 0
            ? [
                `${figure(medianOf(w, 0) / Math.max(...options.peers.map((_, p) => medianOf(w, p + 1))))}x`,
              ]
            : []),
        ]),
        note: `Median of ${options.rounds} rounds (range), interleaved; ${options.threads} threads; ${model.description}.`,
      },
    ],
    charts: [
      {
        name: 'model',
        kind: 'bar',
        title: 'Tokens per second, the model alone',
        unit: 'tok/s',
        labels: works.map(({ name }) => name),
        series: names.map((name, n) => ({ name, values: works.map((_, w) => medianOf(w, n)) })),
      },
    ],
    figures: Object.fromEntries(
      works.map(({ name }, w) => [
        name,
        Object.fromEntries(names.map((n, i) => [n, samples[w]?.[i] ?? []])),
      ]),
    ),
  };
}
