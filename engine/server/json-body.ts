/** Bytes to one JSON object, strictly: invalid UTF-8 and invalid JSON are named, never repaired. */
import { NvlmError } from '#engine/protocol/errors.ts';

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: false });

/** Throws 'invalid_json'. Depth is bounded by the parser's own stack check, which is caught here too. */
export function parseJsonBytes(bytes: Uint8Array): unknown {
  let text: string;
  try {
    text = decoder.decode(bytes);
  } catch {
    throw new NvlmError('invalid_json', 'expected JSON in UTF-8; the bytes are not valid UTF-8');
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    const detail = error instanceof Error ? error.message.slice(0, 200) : '';
    throw new NvlmError('invalid_json', `expected one JSON object: ${detail}`);
  }
}
