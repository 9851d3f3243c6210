/**
 * A node:test reporter: one line per test file, failures whole, then what was skipped and why, and node:test's closing
 * summary last.
 */
import { relative } from 'node:path';
import { inspect } from 'node:util';

const summaryNames = [
  'tests',
  'suites',
  'pass',
  'fail',
  'cancelled',
  'skipped',
  'todo',
  'duration_ms',
];

export default async function* report(source) {
  const files = new Map();
  const skipped = [];
  const failed = [];
  const summary = [];
  /** The end of what each file wrote to stderr. */
  const errors = new Map();
  // The file that was run; `data.file` is where the test was written, which may be a suite that several files share.
  const fileOf = (data) => relative(process.cwd(), data.entryFile ?? data.file ?? '');
  for await (const { type, data } of source) {
    if (type === 'test:stderr' || type === 'test:stdout') {
      // Output of a test is shown only where it helps: when the run asks for it.
      if (process.env.NVLM_TEST_OUTPUT) yield data.message;
      const file = fileOf(data);
      if (type === 'test:stderr')
        errors.set(file, `${errors.get(file) ?? ''}${data.message}`.slice(-4000));
    } else if (type === 'test:pass' || type === 'test:fail') {
      // A suite counts where none of its tests can tell: it is skipped as a whole, or its hooks fail.
      if (data.details?.type === 'suite' && type === 'test:pass' && data.skip === undefined)
        continue;
      const file = fileOf(data);
      const counts = files.get(file) ?? { pass: 0, fail: 0, skip: 0 };
      files.set(file, counts);
      if (data.skip !== undefined) {
        counts.skip++;
        skipped.push([file, data.name, data.skip === true ? 'no reason given' : data.skip]);
      } else if (type === 'test:pass') {
        counts.pass++;
      } else if (data.details?.error?.failureType !== 'subtestsFailed') {
        counts.fail++;
        const cause = data.details?.error?.cause ?? data.details?.error;
        // A file that fails as a whole, as one that cannot be loaded, says why on stderr only.
        const isFile = data.entryFile === undefined && typeof cause === 'string';
        const text = (isFile && errors.get(file)?.trim()) || (cause?.stack ?? inspect(cause));
        failed.push([file, data.name, text.split('\n').slice(0, 6).join('\n').slice(0, 1000)]);
        yield `\n✖ ${file}: ${data.name}\n${text.replace(/^/gm, '    ')}\n\n`;
      }
    } else if (type === 'test:summary' && data.file) {
      const file = fileOf(data);
      const counts = files.get(file) ?? { pass: 0, fail: 0, skip: 0 };
      const note = [
        counts.fail && `${counts.fail} failed`,
        counts.skip && `${counts.skip} skipped`,
      ];
      yield `${data.success ? '✔' : '✖'} ${file.padEnd(52)} ${String(counts.pass).padStart(4)} passed ${note.filter(Boolean).join(', ')} (${(data.duration_ms / 1000).toFixed(1)} s)\n`;
    } else if (type === 'test:diagnostic' && data.nesting === 0) {
      const [name] = data.message.split(' ');
      if (summaryNames.includes(name)) summary.push(data.message);
    }
  }
  if (skipped.length > 0) {
    yield `\nSkipped on this machine (${skipped.length}):\n`;
    for (const [file, name, reason] of skipped) yield `  - ${file}: ${name}: ${reason}\n`;
  }
  if (failed.length > 0) {
    yield `\nFailed (${failed.length}):\n`;
    // The cause again: of a long run, often only the end is kept.
    for (const [file, name, cause] of failed)
      yield `  ✖ ${file}: ${name}\n${cause.replace(/^/gm, '      ')}\n`;
  }
  yield `\n${summary.map((line) => `ℹ ${line}`).join('\n')}\n`;
}
