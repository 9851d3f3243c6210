/** The study's questions in the four batch modes: those of text, and those with a picture where the model sees. */
import type { LoadedModel } from '#engine/start.ts';
import { type RunFigures, runTogether } from './generate.ts';
import { startEnergyMeter } from './machine.ts';
import type { BenchResult } from './result.ts';
import {
  METHODS,
  type MeasuredWorkload,
  type Mode,
  studyCharts,
  studyTables,
} from './study-report.ts';
import { pictureWorkload, readStudy, textWorkload, type Workload } from './study-workload.ts';

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
    /** Per question of text, and per question with a picture. */
    readonly newTokens: number;
    readonly imageNewTokens: number;
    readonly rounds: number;
    readonly threads: number;
    readonly peers: readonly PeerStudy[];
  },
  progress: (fraction: number, note: string) => void,
): Promise<BenchResult> {
  const text = textWorkload(model, options.newTokens);
  const pictures = pictureWorkload(model, options.imageNewTokens);
  const measured = [...(pictures === undefined ? [] : [pictures]), text].map((workload) => ({
    workload,
    runs: byMode<RunFigures>(),
    joules: byMode<number>(),
  }));
  const peers = options.peers.map((peer) => ({
    peer,
    name: peer.name,
    sequential: [] as number[],
    together: [] as number[],
  }));
  const total = (options.rounds + 1) * (METHODS.length * measured.length + peers.length);
  let finished = 0;
  const begin = (round: number, what: string): void =>
    progress(finished++ / total, `round ${round} of ${options.rounds}: ${what}`);
  // Round 0 warms up; the modes and peers take turns within a round, so that a drift of the machine meets all of them.
  for (let round = 0; round <= options.rounds; round++) {
    for (const { mode } of METHODS) {
      for (const { workload, runs, joules } of measured) {
        begin(round, `${workload.name}, ${mode}`);
        const { figures, used } = await runOnce(model, workload, mode, round, options.threads);
        if (round === 0) continue;
        runs[mode].push(figures);
        if (used !== undefined) joules[mode].push(used);
      }
    }
    for (const { peer, sequential, together } of peers) {
      begin(round, peer.name);
      const seconds = await peer.run(text.prompts, options.newTokens);
      if (round === 0) continue;
      sequential.push(seconds.sequential);
      together.push(seconds.together);
    }
  }
  const workloads = measured.map(({ workload, runs, joules }): MeasuredWorkload => {
    const { name, count, newTokens } = workload;
    return { name, count, newTokens, runs, joules };
  });
  for (const each of workloads) assertSameTokens(each);
  const reported = readStudy();
  return {
    name: 'study',
    tables: studyTables(reported, workloads, peers, {
      rounds: options.rounds,
      model: model.description,
    }),
    charts: studyCharts(reported, workloads, peers),
    figures: {
      ...Object.fromEntries(
        workloads.map(({ name, runs }) => [
          name,
          Object.fromEntries(
            METHODS.map(({ mode }) => [mode, runs[mode].map(({ seconds }) => seconds)]),
          ),
        ]),
      ),
      ...Object.fromEntries(
        peers.map(({ name, sequential, together }) => [name, { sequential, together }]),
      ),
    },
  };
}

const byMode = <T>(): Record<Mode, T[]> => ({
  Sequential: [],
  Static: [],
  Threads: [],
  Continuous: [],
});

/** All questions of a workload at once. */
async function runOnce(
  model: LoadedModel,
  workload: Workload,
  mode: Mode,
  round: number,
  threads: number,
): Promise<{ readonly figures: RunFigures; readonly used: number | undefined }> {
  const { count } = workload;
  const engine = model.startEngine({ mode, maxSequences: count, workers: threads });
  const energy = startEnergyMeter();
  const figures = await runTogether(
    engine,
    Array.from({ length: count }, (_, i) => () => workload.request(i, `${mode}-${round}-${i}`)),
  );
  const used = energy?.();
  await engine.drain(0);
  return { figures, used };
}

/** A speed-up that changes the answer is none. */
function assertSameTokens({ name, runs }: MeasuredWorkload): void {
  const answers = new Set(
    Object.values(runs)
      .flat()
      .map((figures) => JSON.stringify(figures.tokenIds)),
  );
  if (answers.size > 1)
    throw new Error(
      `${name}: the modes gave ${answers.size} different sets of answers to the same greedy requests; expected one.`,
    );
}
