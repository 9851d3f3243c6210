/** JSON as checkpoints write it: UTF-8, and no key twice in one object (JSON.parse would keep the last in silence). */
import { CheckpointError } from './errors.ts';

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * Parses a JSON object. Throws CheckpointError CHECKPOINT_HEADER_INVALID, naming `file`, for bytes that are not
 * UTF-8, not JSON, not an object at the top, or that repeat a key.
 */
export function parseJsonObject(bytes: Uint8Array, file: string): Record<string, unknown> {
  const value = parseJson(decodeUtf8(bytes, file, 'JSON text'), file);
  if (!isObject(value)) {
    throw new CheckpointError('CHECKPOINT_HEADER_INVALID', 'the JSON is of the wrong kind', {
      file,
      expected: 'an object',
      received: Array.isArray(value) ? 'an array' : value === null ? 'null' : `a ${typeof value}`,
    });
  }
  return value;
}

/** The text of UTF-8 bytes; throws CHECKPOINT_HEADER_INVALID naming `what` otherwise. */
export function decodeUtf8(bytes: Uint8Array, file: string, what: string): string {
  try {
    return utf8.decode(bytes);
  } catch (cause) {
    throw new CheckpointError(
      'CHECKPOINT_HEADER_INVALID',
      `${what} is not valid UTF-8`,
      { file },
      { cause },
    );
  }
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function parseJson(text: string, file: string): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new CheckpointError(
      'CHECKPOINT_HEADER_INVALID',
      `not valid JSON: ${cause instanceof Error ? cause.message : String(cause)}`,
      { file },
      { cause },
    );
  }
  const repeated = findRepeatedKey(text);
  if (repeated !== undefined) {
    throw new CheckpointError('CHECKPOINT_HEADER_INVALID', 'a key stands twice in one object', {
      file,
      expected: 'each key once',
      received: `'${repeated}' again`,
    });
  }
  return value;
}

/** First repeated key of text that JSON.parse has accepted. Keeps its own stack: nesting depth is the file's choice. */
function findRepeatedKey(text: string): string | undefined {
  // One entry per open bracket: the keys seen so far of an object, undefined for an array.
  const open: (Set<string> | undefined)[] = [];
  let expectKey = false;
  for (let at = 0; at < text.length; at++) {
    switch (text[at]) {
      case '{':
        open.push(new Set());
        expectKey = true;
        break;
      case '[':
        open.push(undefined);
        expectKey = false;
        break;
      case '}':
      case ']':
        open.pop();
        expectKey = false;
        break;
      case ',':
        expectKey = open.at(-1) !== undefined;
        break;
      case '"': {
        const end = endOfString(text, at);
        if (expectKey) {
          const key: string = JSON.parse(text.slice(at, end));
          const keys = open.at(-1);
          if (keys?.has(key)) return key;
          keys?.add(key);
          expectKey = false;
        }
        at = end - 1;
        break;
      }
    }
  }
  return undefined;
}

/** Index after the closing quote of the string that opens at `start`. */
function endOfString(text: string, start: number): number {
  let end = text.indexOf('"', start + 1);
  for (;;) {
    let backslashes = 0;
    while (text[end - 1 - backslashes] === '\\') backslashes++;
    if (backslashes % 2 === 0) return end + 1;
    end = text.indexOf('"', end + 1);
  }
}
