/** Writes one line of JSON about a model: what the operator judges a spec by. Run in the pod of a Job. */
import { writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { describeModel } from '#engine/weights/describe.ts';
import {
  OptionError,
  type OptionTable,
  optional,
  optionLines,
  readOptions,
  required,
} from '#options/table.ts';
import { text } from '#options/types.ts';

const OPTIONS = {
  model: required(text, '', 'Model reference, as for serving'),
  output: optional(text, 'File to write to; default: standard output'),
  'hf-token': optional(text, 'Token for private or gated models of the hub'),
  'hf-endpoint': optional(text, 'Address of the model hub'),
} satisfies OptionTable;

function readArguments() {
  try {
    const result = readOptions(OPTIONS, process.argv.slice(2), process.env, () => true);
    if (result !== 'help') return result.values;
    console.log(
      `Usage: node engine/describe/main.ts --model REF [options]\n\n${optionLines(OPTIONS)}`,
    );
    process.exit(0);
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    console.error(error.message);
    process.exit(2);
  }
}

const options = readArguments();
const write = (line: string): void => {
  if (options.output === undefined) console.log(line);
  else writeFileSync(options.output, line);
};
try {
  const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache');
  const description = await describeModel(options.model, {
    cacheDirectory: join(cache, 'nvlm', 'models'),
    hub: {
      ...(options.hfEndpoint === undefined ? {} : { endpoint: options.hfEndpoint }),
      ...(options.hfToken === undefined ? {} : { token: options.hfToken }),
    },
  });
  write(JSON.stringify(description));
} catch (error) {
  const { code, message } = error as { code?: string; message: string };
  write(JSON.stringify({ error: code === undefined ? message : `${code}: ${message}` }));
  process.exit(1);
}
