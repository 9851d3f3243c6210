/** `npm run chat`: a chat in the terminal with an engine at --url, or with one started for it. Also reads from and writes to pipes. */
import { createInterface } from 'node:readline';
import { styleText } from 'node:util';
import { OptionError } from '../options.ts';
import { ChatError } from './chat-error.ts';
import { chatHelp, readChatOptions } from './chat-options.ts';
import { ChatSession } from './chat-session.ts';
import { type EngineProcess, startEngine } from './engine-process.ts';
import { ResponsesClient } from './responses-client.ts';

let isLeaving = false;
const isTerminal = process.stdin.isTTY === true && process.stdout.isTTY === true;

/** Control characters of a model would move the cursor or worse: shown as their pictures (U+2400 on). */
const withoutControls = (text: string): string =>
  isTerminal
    ? // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
      text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, (character) => {
        const code = character.charCodeAt(0);
        return code < 0x20 ? String.fromCharCode(0x2400 + code) : '\u2421';
      })
    : text;

const terminal = {
  write: (text: string) => void process.stdout.write(withoutControls(text)),
  note: (text: string) => {
    if (!isLeaving)
      console.error(styleText('dim', withoutControls(text), { stream: process.stderr }));
  },
};

function readOptions() {
  try {
    const options = readChatOptions(process.argv.slice(2), process.env);
    if (options !== 'help') return options;
    process.stdout.write(chatHelp());
    process.exit(0);
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    console.error(error.message);
    process.exit(2);
  }
}

function engineEnvironment(own: Readonly<Record<string, string>>) {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('NVLM_'));
  return { ...Object.fromEntries(inherited), NVLM_LOG_LEVEL: 'warn', ...own };
}

const { values, engineEnvironment: given } = readOptions();
let engine: EngineProcess | undefined;
// While the engine loads every signal ends the chat, and by 'exit' the engine.
let onInterrupt = (): void => process.exit(130);
let onEnd = onInterrupt;
process.on('SIGINT', () => onInterrupt());
process.on('SIGTERM', () => onEnd());
process.on('SIGHUP', () => onEnd());

try {
  engine = values.url === undefined ? await startEngine(engineEnvironment(given)) : undefined;
  const client = new ResponsesClient(engine?.url ?? (values.url as string), values.apiKey, values);
  await client.connect();
  await chat(client);
  client.close();
} catch (error) {
  if (!(error instanceof ChatError)) throw error;
  if (!isLeaving) {
    console.error(error.message);
    process.exitCode = 1;
  }
} finally {
  isLeaving = true;
  await engine?.stop();
}

async function chat(client: ResponsesClient): Promise<void> {
  const session = new ChatSession(client, terminal, values.system, Date.now);
  const reader = createInterface({
    input: process.stdin,
    ...(isTerminal ? { output: process.stdout, prompt: '> ' } : {}),
    terminal: isTerminal,
  });
  const leave = () => {
    isLeaving = true;
    reader.close();
    client.close();
  };
  let isClosed = false;
  reader.once('close', () => {
    isClosed = true;
  });
  const prompt = () => {
    if (isTerminal && !isClosed && !session.isAnswering) reader.prompt();
  };
  onEnd = leave;
  onInterrupt = () => {
    if (isTerminal && !session.isAnswering) {
      // What was typed is dropped, and the note starts a line of its own.
      reader.write(null, { ctrl: true, name: 'u' });
      process.stdout.write('\n');
    }
    if (session.interrupt() === 'leave') leave();
    else prompt();
  };
  // With a terminal Ctrl-C is a key that the reader sees; without one it is a signal.
  reader.on('SIGINT', () => onInterrupt());
  process.stdout.on('error', leave);
  void engine?.ended.then((message) => {
    if (isLeaving) return;
    console.error(message);
    process.exitCode = 1;
    leave();
  });
  if (isTerminal) terminal.note('/help lists the commands.');
  prompt();
  for await (const line of reader) {
    if ((await session.read(line)) === 'leave' || isLeaving) break;
    prompt();
  }
  leave();
}
