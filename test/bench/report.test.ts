import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { barChart, lineChart, markdownTable, terminalTable } from '#bench/report.ts';
import { writeResult } from '#bench/result.ts';

const table = {
  title: 'Speed',
  columns: ['mode', 'tok/s'],
  rows: [
    ['Sequential', '454'],
    ['Continuous', '1,287'],
  ],
  note: 'Median.',
};

describe('reports of a bench', () => {
  it('align the columns of a terminal table', () => {
    const lines = terminalTable(table).split('\n');
    assert.equal(lines[1]?.length, lines[3]?.length);
    assert.match(lines[3] as string, /^Sequential +454$/);
    assert.ok(lines.includes('Median.'));
  });

  it('write a Markdown table with as many cells in every row', () => {
    const lines = markdownTable(table)
      .split('\n')
      .filter((line) => line.startsWith('|'));
    assert.equal(lines.length, 4);
    assert.ok(lines.every((line) => line.split('|').length === 4));
  });

  it('draw bars in proportion, mark what was not measured, and escape names', () => {
    const svg = barChart({
      title: 'a < b & c',
      unit: 'x',
      labels: ['one', 'two', 'none'],
      series: [{ name: '"s"', values: [1, 2, Number.NaN] }],
    });
    const widths = [...svg.matchAll(/width="([\d.]+)" height="18"/g)].map((m) => Number(m[1]));
    assert.equal(widths.length, 2);
    assert.ok(Math.abs((widths[1] as number) - 2 * (widths[0] as number)) < 0.2);
    assert.match(svg, /not measured/);
    assert.match(svg, /a &lt; b &amp; c/);
    assert.match(svg, /&quot;s&quot;/);
  });

  it('draw one line per series, with a point per value and no NaN', () => {
    const svg = lineChart({
      title: 't',
      xLabel: 'x',
      yLabel: 'y',
      x: [0, 1, 2],
      series: [
        { name: 'a', values: [1, 2, 3] },
        { name: 'b', values: [3, 2, 1] },
      ],
    });
    const lines = [...svg.matchAll(/points="([^"]*)"/g)].map((m) => (m[1] as string).split(' '));
    assert.deepEqual(
      lines.map((points) => points.length),
      [3, 3],
    );
    assert.doesNotMatch(svg, /NaN/);
  });

  it('keep the command, the machine, the tables, the pictures and the raw figures', () => {
    const directory = mkdtempSync(join(tmpdir(), 'bench-report-'));
    try {
      const machine = {
        cpu: 'A CPU',
        cores: 2,
        memoryGiB: 4,
        flags: ['avx2'],
        node: 'v24.0.0',
        commit: 'abc1234',
        date: '2026-01-02',
      };
      const chart = {
        name: 'speed',
        kind: 'bar',
        title: 'Speed',
        unit: 'tok/s',
        labels: ['a'],
        series: [{ name: 's', values: [1] }],
      } as const;
      const path = writeResult(
        { name: 'example', tables: [table], charts: [chart], figures: { a: [1, 2] } },
        machine,
        'npm run bench -- example',
        directory,
      );
      assert.deepEqual(readdirSync(directory).sort(), ['example.json', 'example.md', 'speed.svg']);
      const markdown = readFileSync(path, 'utf8');
      for (const text of ['npm run bench -- example', 'A CPU', 'abc1234', '1,287', '(speed.svg)'])
        assert.ok(markdown.includes(text), text);
      const raw = JSON.parse(readFileSync(join(directory, 'example.json'), 'utf8'));
      assert.deepEqual(raw.figures, { a: [1, 2] });
      assert.equal(raw.machine.cpu, 'A CPU');
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
