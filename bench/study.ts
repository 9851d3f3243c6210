/** The study's four text questions in the four batch modes, as its table, beside the study's own seconds. */
import { readFileSync } from 'node:fs';
import type { LoadedModel } from '#engine/start.ts';
import type { RunFigures } from './generate.ts';
import { benchRequest, runTogether } from './generate.ts';
import { startEnergyMeter } from './machine.ts';
import type { BenchResult } from './result.ts';
import { figure, figureWithSpread, median, spread } from './statistics.ts';

interface Study {
  readonly text_only: readonly string[];
  readonly reported_seconds: Readonly<Record<string, readonly (number | null)[]>>;
}

/** Our mode, the study's method and the row of its table. */
const methods = [
  { mode: 'Sequential', method: 'Benchmark' },
  { mode: 'Static', method: 'Dataloader Handle Batch input' },
  { mode: 'Threads', method: 'Thread-based concurrency' },
  { mode: 'Continuous', method: 'vLLM' },
] as const;

export interface PeerStudy {
  readonly name: string;
  /** Seconds for the questions one by one, and all at once. */
  run(
    prompts: readonly (readonly number[])[],
    newTokens: number,
  ): Promise<{ sequential: number; together: number }>;
}

export async function study(
  model: LoadedModel,
  options: {
    readonly newTokens: number;
    readonly rounds: number;
    readonly threads: number;
    readonly peers: readonly PeerStudy[];
  },
  progress: (fraction: number, note: string) => void,
): Promise<BenchResult> {
  const workload = JSON.parse(
    readFileSync(new URL('workloads/study-questions.json', import.meta.url), 'utf8'),
  ) as Study;
  const prompts = workload.text_only.map((question) =>
    model.tokenizer.encode(
      model.chatTemplate.render([{ role: 'user', content: question }], {
        addGenerationPrompt: true,
      }),
    ),
  );
  const measured = new Map<string, RunFigures[]>(methods.map(({ mode }) => [mode, []]));
  const joules = new Map<string, number[]>(methods.map(({ mode }) => [mode, []]));
  const peerRuns = options.peers.map((peer) => ({
    peer,
    sequential: [] as number[],
    together: [] as number[],
  }));
  const total = (options.rounds + 1) * (methods.length + peerRuns.length);
  let finished = 0;
  // Round 0 warms up; the modes and peers take turns within a round, so that a drift of the machine meets all of them.
  for (let round = 0; round <= options.rounds; round++) {
    for (const { mode } of methods) {
      progress(finished++ / total, `round ${round} of ${options.rounds}: ${mode}`);
      const engine = model.startEngine({
        mode,
        maxSequences: prompts.length,
        workers: options.threads,
      });
      const energy = startEnergyMeter();
      const figures = await runTogether(
        engine,
        prompts.map((prompt, i) =>
          benchRequest(`${mode}-${round}-${i}`, prompt, options.newTokens),
        ),
      );
      const used = energy?.();
      await engine.drain(0);
      if (round > 0) {
        measured.get(mode)?.push(figures);
        if (used !== undefined) joules.get(mode)?.push(used);
      }
    }
    for (const run of peerRuns) {
      progress(finished++ / total, `round ${round} of ${options.rounds}: ${run.peer.name}`);
      const seconds = await run.peer.run(prompts, options.newTokens);
      if (round > 0) {
        run.sequential.push(seconds.sequential);
        run.together.push(seconds.together);
      }
    }
  }
  assertSameTokens(measured);

  const secondsOf = (mode: string) =>
    spread((measured.get(mode) ?? []).map((figures) => figures.seconds));
  const baseline = secondsOf('Sequential').median;
  const reported = (method: string) => workload.reported_seconds[method]?.[2] ?? null;
  const reportedBaseline = reported('Benchmark') as number;
  const tokens = prompts.length * options.newTokens;
  const rows = methods.map(({ mode, method }) => {
    const runs = measured.get(mode) ?? [];
    const pick = (of: (figures: RunFigures) => number) => figure(median(runs.map(of)));
    const seconds = secondsOf(mode);
    const theirs = reported(method);
    const energy = joules.get(mode) ?? [];
    return [
      mode,
      figureWithSpread(seconds),
      figure(tokens / seconds.median),
      pick((figures) => figures.timeToFirstTokenMs),
      pick((figures) => figures.timePerOutputTokenMs),
      `${figure(baseline / seconds.median)}x`,
      energy.length > 0 ? figure(median(energy) / tokens) : '—',
      theirs === null ? '—' : figure(theirs),
      theirs === null ? '—' : `${figure(reportedBaseline / theirs)}x`,
    ];
  });
  const peerRows = peerRuns.flatMap(({ peer, sequential, together }) =>
    (
      [
        [`${peer.name}, one by one`, spread(sequential), secondsOf('Sequential').median],
        [`${peer.name}, together`, spread(together), secondsOf('Continuous').median],
      ] as const
    ).map(([name, seconds, ours]) => [
      name,
      figureWithSpread(seconds),
      figure(tokens / seconds.median),
      `${figure(seconds.median / ours)}x`,
    ]),
  );
  return {
    name: 'study',
    tables: [
      {
        title: `The study's ${prompts.length} text questions, ${options.newTokens} new tokens each, greedy`,
        columns: [
          'mode',
          'seconds',
          'tokens/s',
          'TTFT ms',
          'TPOT ms',
          'speed-up',
          'J/token',
          "study's seconds",
          "study's speed-up",
        ],
        rows,
        note: `Median of ${options.rounds} rounds (range); ${model.description}. The study ran NVLM-D-72B on 8 A100-40GB: compare the speed-ups, not the seconds. ${
          (joules.get('Continuous') ?? []).length > 0
            ? ''
            : 'This machine does not tell its energy use.'
        }`,
      },
      ...(peerRows.length > 0
        ? [
            {
              title: 'Peers, same questions, same rounds',
              columns: ['peer', 'seconds', 'tokens/s', 'our speed-up'],
              rows: peerRows,
              note: 'One by one is compared with Sequential, together with Continuous.',
            },
          ]
        : []),
    ],
    charts: [
      {
        name: 'study',
        kind: 'bar',
        title: 'Tokens per second by mode',
        unit: 'tok/s',
        labels: [...methods.map(({ mode }) => mode), ...peerRows.map(([name]) => name as string)],
        series: [
          {
            name: 'tokens/s',
            values: [
              ...methods.map(({ mode }) => tokens / secondsOf(mode).median),
              ...peerRuns.flatMap(({ sequential, together }) => [
                tokens / median(sequential),
                tokens / median(together),
              ]),
            ],
          },
        ],
      },
      {
        name: 'study-speed-up',
        kind: 'bar',
        title: 'Speed-up over one question at a time, ours and the study’s',
        unit: 'x',
        labels: methods.map(({ mode }) => mode),
        series: [
          {
            name: 'this run',
            values: methods.map(({ mode }) => baseline / secondsOf(mode).median),
          },
          {
            name: 'the study (72B, A100)',
            values: methods.map(
              ({ method }) => reportedBaseline / (reported(method) ?? Number.NaN),
            ),
          },
        ],
      },
    ],
    figures: Object.fromEntries(
      methods.map(({ mode }) => [mode, measured.get(mode)?.map(({ seconds }) => seconds) ?? []]),
    ),
  };
}

/** A speed-up that changes the answer is none. */
function assertSameTokens(measured: ReadonlyMap<string, readonly RunFigures[]>): void {
  const answers = new Set(
    [...measured.values()].flat().map((figures) => JSON.stringify(figures.tokenIds)),
  );
  if (answers.size > 1)
    throw new Error(
      `The modes gave ${answers.size} different sets of answers to the same greedy requests; expected one.`,
    );
}
