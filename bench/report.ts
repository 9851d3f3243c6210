/** Tables for the terminal and Markdown, charts as SVG: people look rather than read. */

export interface Table {
  readonly title: string;
  readonly columns: readonly string[];
  readonly rows: readonly (readonly string[])[];
  readonly note?: string;
}

export function terminalTable({ title, columns, rows, note }: Table): string {
  const widths = columns.map((column, i) =>
    Math.max(column.length, ...rows.map((row) => row[i]?.length ?? 0)),
  );
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join('   ');
  const rule = '─'.repeat(widths.reduce((sum, width) => sum + width + 3, -3));
  return `${title}\n${line(columns)}\n${rule}\n${rows.map(line).join('\n')}\n${note ? `${note}\n` : ''}`;
}

export function markdownTable({ title, columns, rows, note }: Table): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const rule = `|${columns.map((_, i) => (i === 0 ? '---' : '---:')).join('|')}|`;
  return `## ${title}\n\n${line(columns)}\n${rule}\n${rows.map(line).join('\n')}\n${note ? `\n${note}\n` : ''}`;
}

export interface Series {
  readonly name: string;
  readonly values: readonly number[];
  /** Of the palette where it is left out. */
  readonly colour?: string;
}

const palette = ['#2f6fde', '#e08a1e', '#2a9d6f', '#b4469f', '#6b7280', '#c0392b'];
const escapeXml = (text: string) =>
  text.replace(
    /[&<>"]/g,
    (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c] as string,
  );

/** Horizontal bars, one group per label, one bar per series; missing values (NaN) are left out and marked. */
export function barChart(options: {
  readonly title: string;
  readonly unit: string;
  readonly labels: readonly string[];
  readonly series: readonly Series[];
}): string {
  const { title, unit, labels, series } = options;
  // About 7.4 pixels a letter of the bold labels.
  const left = Math.max(120, Math.ceil(24 + 7.4 * Math.max(...labels.map(({ length }) => length))));
  const right = 110;
  const width = 860;
  const barHeight = 18;
  const groupGap = 16;
  const groupHeight = series.length * (barHeight + 4) + groupGap;
  const top = 78;
  const height = top + labels.length * groupHeight + 24;
  const largest =
    Math.max(...series.flatMap(({ values }) => values.filter(Number.isFinite)), 0) || 1;
  const scale = (width - left - right) / largest;
  const parts: string[] = [];
  const colours = series.map(({ colour }, s) => colour ?? palette[s % palette.length]);
  let legendX = left;
  series.forEach(({ name }, s) => {
    parts.push(
      `<rect x="${legendX}" y="46" width="12" height="12" rx="2" fill="${colours[s]}"/><text x="${legendX + 18}" y="56">${escapeXml(name)}</text>`,
    );
    legendX += Math.max(110, 48 + Math.ceil(6.8 * name.length));
  });
  labels.forEach((label, g) => {
    const groupTop = top + g * groupHeight;
    const middle = groupTop + (series.length * (barHeight + 4)) / 2 + 4;
    parts.push(
      `<text x="${left - 12}" y="${middle}" text-anchor="end" font-weight="600">${escapeXml(label)}</text>`,
    );
    series.forEach(({ values }, s) => {
      const value = values[g] ?? Number.NaN;
      const y = groupTop + s * (barHeight + 4);
      if (!Number.isFinite(value)) {
        parts.push(`<text x="${left + 6}" y="${y + 13}" fill="#9ca3af">not measured</text>`);
        return;
      }
      const length = Math.max(1, value * scale);
      parts.push(
        `<rect x="${left}" y="${y}" width="${length.toFixed(1)}" height="${barHeight}" rx="3" fill="${colours[s]}"/>`,
      );
      parts.push(
        `<text x="${(left + length + 6).toFixed(1)}" y="${y + 13}">${escapeXml(`${Number(value.toPrecision(3)).toLocaleString('en-US')} ${unit}`)}</text>`,
      );
    });
  });
  return svg(width, height, title, parts);
}

/** Lines over a numeric x axis. */
export function lineChart(options: {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly x: readonly number[];
  readonly series: readonly Series[];
}): string {
  const { title, xLabel, yLabel, x, series } = options;
  const [width, height, left, right, top, bottom] = [860, 420, 70, 30, 80, 50];
  const maxX = Math.max(...x, 1);
  const maxY = Math.max(...series.flatMap(({ values }) => values.filter(Number.isFinite)), 0) || 1;
  const px = (value: number) => left + (value / maxX) * (width - left - right);
  const py = (value: number) => height - bottom - (value / maxY) * (height - top - bottom);
  const parts: string[] = [];
  for (let i = 0; i <= 4; i++) {
    const y = py((maxY * i) / 4);
    parts.push(`<line x1="${left}" x2="${width - right}" y1="${y}" y2="${y}" stroke="#e5e7eb"/>`);
    parts.push(
      `<text x="${left - 8}" y="${y + 4}" text-anchor="end">${Number(((maxY * i) / 4).toPrecision(3))}</text>`,
    );
    parts.push(
      `<text x="${px((maxX * i) / 4)}" y="${height - bottom + 18}" text-anchor="middle">${Number(((maxX * i) / 4).toPrecision(3))}</text>`,
    );
  }
  parts.push(
    `<text x="${(left + width - right) / 2}" y="${height - 10}" text-anchor="middle">${escapeXml(xLabel)}</text>`,
  );
  parts.push(
    `<text x="${left}" y="${top - 12}" text-anchor="start" fill="#6b7280">${escapeXml(yLabel)}</text>`,
  );
  series.forEach(({ name, values }, s) => {
    const color = palette[s % palette.length];
    const points = values
      .map((value, i) => `${px(x[i] ?? 0).toFixed(1)},${py(value).toFixed(1)}`)
      .join(' ');
    parts.push(`<polyline points="${points}" fill="none" stroke="${color}" stroke-width="2"/>`);
    parts.push(
      `<rect x="${left + s * 150}" y="40" width="12" height="12" rx="2" fill="${color}"/><text x="${left + s * 150 + 18}" y="50">${escapeXml(name)}</text>`,
    );
  });
  return svg(width, height, title, parts);
}

function svg(width: number, height: number, title: string, parts: readonly string[]): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="system-ui, sans-serif" font-size="12" role="img" aria-label="${escapeXml(title)}">
<rect width="${width}" height="${height}" fill="#ffffff"/>
<text x="24" y="26" font-size="16" font-weight="700">${escapeXml(title)}</text>
${parts.join('\n')}
</svg>
`;
}
