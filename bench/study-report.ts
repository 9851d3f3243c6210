/** The study's table with our figures beside its own, and the charts of it. */
import type { RunFigures } from './generate.ts';
import type { Table } from './report.ts';
import type { Chart } from './result.ts';
import { figure, figureWithSpread, median, spread } from './statistics.ts';
import { REPORTED_COLUMN, type Study, type WorkloadName } from './study-workload.ts';

/** Our mode and the study's method that it is. */
export const METHODS = [
  { mode: 'Sequential', method: 'Benchmark' },
  { mode: 'Static', method: 'Dataloader Handle Batch input' },
  { mode: 'Threads', method: 'Thread-based concurrency' },
  { mode: 'Continuous', method: 'vLLM' },
] as const;

export type Mode = (typeof METHODS)[number]['mode'];

export interface MeasuredWorkload {
  readonly name: WorkloadName;
  readonly count: number;
  readonly newTokens: number;
  /** Of each counted round. */
  readonly runs: Readonly<Record<Mode, readonly RunFigures[]>>;
  /** Of each counted round; none where the machine does not tell. */
  readonly joules: Readonly<Record<Mode, readonly number[]>>;
}

export interface MeasuredPeer {
  readonly name: string;
  readonly sequential: readonly number[];
  readonly together: readonly number[];
}

const COLOURS: Readonly<Record<WorkloadName, { readonly here: string; readonly there: string }>> = {
  'TEXT + IMAGE': { here: '#b45309', there: '#f3c48b' },
  'TEXT ONLY': { here: '#1d4fb8', there: '#a9c4f5' },
};

/** In the order of the study's columns. */
const NAMES: readonly WorkloadName[] = ['TEXT + IMAGE', 'TEXT ONLY'];

const secondsOf = (measured: MeasuredWorkload, mode: Mode): number =>
  median(measured.runs[mode].map(({ seconds }) => seconds));
const tokensOf = ({ count, newTokens }: MeasuredWorkload): number => count * newTokens;
const reportedOf = (study: Study, name: WorkloadName, method: string): number =>
  study.reported_seconds[method]?.[REPORTED_COLUMN[name]] ?? Number.NaN;

/** NaN where either was not measured. */
const speedUps = (
  study: Study,
  name: WorkloadName,
  measured: MeasuredWorkload | undefined,
): { readonly ours: readonly number[]; readonly theirs: readonly number[] } => ({
  ours: METHODS.map(({ mode }) =>
    measured === undefined
      ? Number.NaN
      : secondsOf(measured, 'Sequential') / secondsOf(measured, mode),
  ),
  theirs: METHODS.map(
    ({ method }) => reportedOf(study, name, 'Benchmark') / reportedOf(study, name, method),
  ),
});

const times = (value: number): string => (Number.isNaN(value) ? '—' : `${figure(value)}x`);

/** `measured` lacks TEXT + IMAGE where the model reads text only. */
export function studyTables(
  study: Study,
  measured: readonly MeasuredWorkload[],
  peers: readonly MeasuredPeer[],
  options: { readonly rounds: number; readonly model: string },
): Table[] {
  const find = (name: WorkloadName) => measured.find((one) => one.name === name);
  const both = NAMES.map((name) => ({
    name,
    found: find(name),
    ...speedUps(study, name, find(name)),
  }));
  const blind = find('TEXT + IMAGE') === undefined ? ' This model reads text only.' : '';
  return [
    {
      title: "The study's table",
      columns: [
        'mode',
        "the study's method",
        ...NAMES.flatMap((name) => [`${name} s`, 'study s', 'speed-up', 'study']),
      ],
      rows: METHODS.map(({ mode, method }, i) => [
        mode,
        method,
        ...both.flatMap(({ name, found, ours, theirs }) => [
          found === undefined ? '—' : figure(secondsOf(found, mode)),
          figure(reportedOf(study, name, method)),
          times(ours[i]!),
          times(theirs[i]!),
        ]),
      ]),
      note: `Median of ${options.rounds} ${options.rounds === 1 ? 'round' : 'rounds'}; ${options.model}. The study ran NVLM-D-72B on 8 A100-40GB: compare the speed-ups, not the seconds. It has no figure of vLLM for pictures.${blind}`,
    },
    ...both.flatMap(({ found }) => (found === undefined ? [] : [detailTable(found)])),
    ...peerTables(find('TEXT ONLY'), peers),
  ];
}

function detailTable(measured: MeasuredWorkload): Table {
  const { name, count, newTokens, runs, joules } = measured;
  const isPictures = name === 'TEXT + IMAGE';
  return {
    title: `${name}: ${count} ${isPictures ? 'questions with a picture each' : 'questions'}, ${newTokens} new tokens each, greedy`,
    columns: ['mode', 'seconds', 'tokens/s', 'TTFT ms', 'TPOT ms', 'J/token'],
    rows: METHODS.map(({ mode }) => {
      const pick = (of: (figures: RunFigures) => number) => figure(median(runs[mode].map(of)));
      return [
        mode,
        figureWithSpread(spread(runs[mode].map(({ seconds }) => seconds))),
        figure(tokensOf(measured) / secondsOf(measured, mode)),
        pick((figures) => figures.timeToFirstTokenMs),
        pick((figures) => figures.timePerOutputTokenMs),
        joules[mode].length > 0 ? figure(median(joules[mode]) / tokensOf(measured)) : '—',
      ];
    }),
    note: [
      isPictures
        ? 'Reading, cutting and encoding the pictures is part of every figure; no run finds what another encoded.'
        : '',
      joules.Continuous.length > 0 ? '' : 'This machine does not tell its energy use.',
    ]
      .filter((sentence) => sentence !== '')
      .join(' '),
  };
}

const peerLines = (
  text: MeasuredWorkload,
  peers: readonly MeasuredPeer[],
): { readonly name: string; readonly seconds: readonly number[]; readonly ours: number }[] =>
  peers.flatMap(({ name, sequential, together }) => [
    { name: `${name}, one by one`, seconds: sequential, ours: secondsOf(text, 'Sequential') },
    { name: `${name}, together`, seconds: together, ours: secondsOf(text, 'Continuous') },
  ]);

function peerTables(text: MeasuredWorkload | undefined, peers: readonly MeasuredPeer[]): Table[] {
  if (text === undefined || peers.length === 0) return [];
  return [
    {
      title: 'Peers, the text questions, same rounds',
      columns: ['peer', 'seconds', 'tokens/s', 'our speed-up'],
      rows: peerLines(text, peers).map(({ name, seconds, ours }) => [
        name,
        figureWithSpread(spread(seconds)),
        figure(tokensOf(text) / median(seconds)),
        times(median(seconds) / ours),
      ]),
      note: 'One by one is compared with Sequential, together with Continuous.',
    },
  ];
}

export function studyCharts(
  study: Study,
  measured: readonly MeasuredWorkload[],
  peers: readonly MeasuredPeer[],
): Chart[] {
  const modes = METHODS.map(({ mode }) => mode);
  const text = measured.find(({ name }) => name === 'TEXT ONLY');
  const others = text === undefined ? [] : peerLines(text, peers);
  return [
    {
      name: 'study',
      kind: 'bar',
      title: 'Tokens per second by mode',
      unit: 'tok/s',
      labels: [...modes, ...others.map(({ name }) => name)],
      series: measured.map((one) => ({
        name: one.name,
        colour: COLOURS[one.name].here,
        values: [
          ...modes.map((mode) => tokensOf(one) / secondsOf(one, mode)),
          ...others.map(({ seconds }) =>
            one === text ? tokensOf(one) / median(seconds) : Number.NaN,
          ),
        ],
      })),
    },
    {
      name: 'study-speed-up',
      kind: 'bar',
      title: 'Speed-up over one question at a time, here and in the study (72B, 8 A100)',
      unit: 'x',
      labels: modes,
      series: measured.flatMap((one) => {
        const { ours, theirs } = speedUps(study, one.name, one);
        const { here, there } = COLOURS[one.name];
        return [
          { name: `${one.name}, here`, values: ours, colour: here },
          { name: `${one.name}, study`, values: theirs, colour: there },
        ];
      }),
    },
  ];
}
