/**
 * The door of every npm script: sets up what is missing, then hands over to the real command under the Node of the lockfile.
 * Plain JavaScript that Node 20 runs with nothing installed.
 */
import { join } from 'node:path';
import { build, node, root } from './build.mjs';
import { runForeground } from './command.mjs';
import { missingTools } from './prerequisites.mjs';

const commands = {
  demo: ['engine/demo/main.ts'],
  serve: ['engine/main.ts'],
  chat: ['engine/chat/main.ts'],
  operator: ['operator/main.ts'],
  bench: ['bench/main.ts'],
  plan: ['sizing/main.ts'],
  images: ['images/build.mjs'],
  cluster: ['scripts/cluster/main.ts'],
  plugin: ['scripts/plugin.mjs'],
  test: ['scripts/test.mjs'],
  build: undefined,
};

const [name, ...rest] = process.argv.slice(2);
if (!Object.hasOwn(commands, name)) {
  console.error(`Unknown command ${name}; expected one of ${Object.keys(commands).join(', ')}.`);
  process.exit(2);
}
const missing = missingTools();
if (missing) {
  console.error(missing);
  process.exit(1);
}
try {
  await build();
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
const script = commands[name];
if (script) {
  const [file, ...fixed] = script;
  // The children of npm scripts find the lockfile's Node first, whatever the machine has.
  const env = { PATH: `${join(root, 'node_modules/node/bin')}:${process.env.PATH}` };
  process.exit(await runForeground(node, [join(root, file), ...fixed, ...rest], { env }));
}
