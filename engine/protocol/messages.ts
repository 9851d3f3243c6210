/** Chat messages of both chat interfaces, reduced to role and text. */
import { invalid, isObject, unsupportedError } from './fields.ts';

/** Structurally the tokenizer's ChatMessage. */
export interface TextMessage {
  readonly role: string;
  readonly content: string;
  readonly name?: string;
}

const TEXT_PARTS = new Set(['text', 'input_text', 'output_text']);
const OTHER_PARTS =
  /^(input_)?(image|image_url|file|audio|input_audio|video|video_url)$|^refusal$|^encrypted_content$/;

/**
 * A string, or a list of text parts joined without separator. Throws 'unsupported_parameter' for images, audio and files.
 */
export function textOfContent(content: unknown, path: string): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) throw invalid(path, 'a string or a list of text parts', content);
  return content.map((part, index) => textOfPart(part, `${path}[${index}]`)).join('');
}

function textOfPart(part: unknown, path: string): string {
  if (!isObject(part)) throw invalid(path, 'a content part', part);
  const { type, text } = part;
  if (typeof type === 'string' && OTHER_PARTS.test(type)) {
    throw unsupportedError(path, `the served model reads text only, not ${type}`);
  }
  if (typeof type !== 'string' || !TEXT_PARTS.has(type)) {
    throw invalid(`${path}.type`, 'text, input_text or output_text', type);
  }
  if (typeof text !== 'string') throw invalid(`${path}.text`, 'a string', text);
  return text;
}

const ROLES = new Set(['system', 'developer', 'user', 'assistant', 'tool']);

/** Templates know no `developer`: it is the newer name of the system role. */
export function roleOf(role: unknown, path: string): string {
  if (typeof role !== 'string' || !ROLES.has(role)) {
    throw invalid(path, 'system, developer, user or assistant', role);
  }
  if (role === 'tool') throw unsupportedError(path, 'tools are not called by this engine');
  return role === 'developer' ? 'system' : role;
}

/** `messages` of /v1/chat/completions. */
export function parseChatMessages(value: unknown, path: string): readonly TextMessage[] {
  if (!Array.isArray(value) || value.length === 0) {
    throw invalid(path, 'a list of at least one message', value);
  }
  return value.map((message, index) => {
    const at = `${path}[${index}]`;
    if (!isObject(message)) throw invalid(at, 'a message object', message);
    for (const field of ['tool_calls', 'function_call', 'audio'] as const) {
      const present = message[field];
      if (present !== undefined && present !== null) {
        throw unsupportedError(`${at}.${field}`, 'the served model writes text only');
      }
    }
    const role = roleOf(message.role, `${at}.role`);
    const name = message.name;
    const content = textOfContent(message.content, `${at}.content`);
    return typeof name === 'string' ? { role, content, name } : { role, content };
  });
}
