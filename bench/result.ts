/** What a bench hands back, and how it is shown and kept. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Machine } from './machine.ts';
import { machineLine } from './machine.ts';
import type { Series, Table } from './report.ts';
import { barChart, lineChart, markdownTable, terminalTable } from './report.ts';

export type Chart =
  | {
      readonly name: string;
      readonly kind: 'bar';
      readonly title: string;
      readonly unit: string;
      readonly labels: readonly string[];
      readonly series: readonly Series[];
    }
  | {
      readonly name: string;
      readonly kind: 'line';
      readonly title: string;
      readonly xLabel: string;
      readonly yLabel: string;
      readonly x: readonly number[];
      readonly series: readonly Series[];
    };

export interface BenchResult {
  readonly name: string;
  readonly tables: readonly Table[];
  readonly charts: readonly Chart[];
  /** Raw samples, kept as JSON beside the tables. */
  readonly figures: Readonly<Record<string, unknown>>;
}

export function printResult(result: BenchResult, machine: Machine): void {
  console.log(`\n${machineLine(machine)}\n`);
  for (const table of result.tables) console.log(terminalTable(table));
}

/** Writes NAME.md, NAME.json and one SVG per chart into the directory; returns the Markdown file's path. */
export function writeResult(
  result: BenchResult,
  machine: Machine,
  command: string,
  directory: string,
): string {
  mkdirSync(directory, { recursive: true });
  for (const chart of result.charts) {
    writeFileSync(
      join(directory, `${chart.name}.svg`),
      chart.kind === 'bar' ? barChart(chart) : lineChart(chart),
    );
  }
  const path = join(directory, `${result.name}.md`);
  writeFileSync(
    path,
    [
      `# Bench: ${result.name}`,
      `\`${command}\``,
      machineLine(machine),
      ...result.tables.map(markdownTable),
      ...result.charts.map((chart) => `![${chart.title}](${chart.name}.svg)`),
      '',
    ].join('\n\n'),
  );
  writeFileSync(
    join(directory, `${result.name}.json`),
    `${JSON.stringify({ command, machine, figures: result.figures }, null, 1)}\n`,
  );
  return path;
}
