/** Progress on a terminal: a bar that redraws in place; on a pipe, one line when a step starts and one when it ends. */

const barWidth = 28;
const isTerminal = process.stderr.isTTY === true && process.env.CI === undefined;

/**
 * A step with a bar; a fraction of undefined draws a moving mark.
 *
 * @param {string} title
 * @returns {{ update(fraction: number | undefined, note?: string): void, done(text?: string): void, fail(text: string): void }}
 */
export function startStep(title) {
  const startedAt = Date.now();
  let fraction;
  let note = '';
  let drawn = false;
  const seconds = () => ((Date.now() - startedAt) / 1000).toFixed(1);
  const draw = () => {
    const filled =
      fraction === undefined
        ? Math.floor((Date.now() - startedAt) / 120) % barWidth
        : Math.round(fraction * barWidth);
    const bar =
      fraction === undefined
        ? '·'.repeat(filled) +
          '━━━'.slice(0, barWidth - filled) +
          '·'.repeat(Math.max(0, barWidth - filled - 3))
        : '━'.repeat(filled) + '·'.repeat(barWidth - filled);
    const percent =
      fraction === undefined ? '    ' : `${String(Math.floor(fraction * 100)).padStart(3)}%`;
    process.stderr.write(
      `\r\x1b[2K  ${title.padEnd(34)} ${bar} ${percent} ${seconds()} s ${note}`.slice(
        0,
        process.stderr.columns || 120,
      ),
    );
    drawn = true;
  };
  // A step shorter than half a second draws nothing but its last line.
  const timer = isTerminal
    ? setInterval(() => Date.now() - startedAt > 500 && draw(), 120)
    : undefined;
  if (!isTerminal) process.stderr.write(`  ${title} ...\n`);
  const finish = (mark, text) => {
    clearInterval(timer);
    if (drawn) process.stderr.write('\r\x1b[2K');
    process.stderr.write(`${mark} ${title.padEnd(34)} ${text} (${seconds()} s)\n`);
  };
  return {
    update(nextFraction, nextNote = note) {
      fraction = nextFraction;
      note = nextNote;
    },
    done: (text = 'done') => finish('✔', text),
    fail: (text) => finish('✖', text),
  };
}
