/** Chat messages of both chat interfaces, reduced to role, text and the pictures within it. */
import { randomUUID } from 'node:crypto';
import { invalid, isObject, unsupportedError } from './fields.ts';

/** Structurally the tokenizer's ChatMessage. */
export interface TextMessage {
  readonly role: string;
  readonly content: string;
  readonly name?: string;
  /** In the order of their markers in `content`. */
  readonly images?: readonly ImagePart[];
}

/** A picture that a client sent. */
export interface ImagePart {
  /** Stands in the text where the picture stands; no other text can be mistaken for it. */
  readonly marker: string;
  /** Type of the part as the client named it. */
  readonly type: string;
  readonly url: string;
  readonly detail: ImageDetail;
  /** Where in the request it stands. */
  readonly path: string;
}

export type ImageDetail = 'low' | 'high' | 'auto';

const TEXT_PARTS = new Set(['text', 'input_text', 'output_text']);
const OTHER_PARTS =
  /^(input_)?(image|file|audio|input_audio|video|video_url)$|^refusal$|^encrypted_content$/;
const IMAGE_PARTS = new Set(['image_url', 'input_image']);
const DETAILS: readonly unknown[] = ['low', 'high', 'auto'];

/**
 * A string, or a list of text parts joined without separator, each picture on a line of its own. Throws 'unsupported_parameter'
 * for audio and files.
 */
export function readContent(
  content: unknown,
  path: string,
): { readonly content: string; readonly images?: readonly ImagePart[] } {
  if (typeof content === 'string') return { content };
  if (!Array.isArray(content)) throw invalid(path, 'a string or a list of content parts', content);
  const images: ImagePart[] = [];
  let text = '';
  let isAfterImage = false;
  for (const [index, part] of content.entries()) {
    const at = `${path}[${index}]`;
    if (isObject(part) && IMAGE_PARTS.has(String(part.type))) {
      const image = imageOfPart(part, at);
      images.push(image);
      text += (text === '' || text.endsWith('\n') ? '' : '\n') + image.marker;
      isAfterImage = true;
      continue;
    }
    const added = textOfPart(part, at);
    text += (isAfterImage && !added.startsWith('\n') ? '\n' : '') + added;
    isAfterImage = false;
  }
  return images.length === 0 ? { content: text } : { content: text, images };
}

/** `{type: 'image_url', image_url: {url, detail} | url}` or `{type: 'input_image', image_url: url, detail}`. */
function imageOfPart(part: Record<string, unknown>, path: string): ImagePart {
  const type = String(part.type);
  const nested = isObject(part.image_url) ? part.image_url : undefined;
  if (part.file_id !== undefined && part.file_id !== null) {
    throw unsupportedError(
      `${path}.file_id`,
      'files are not kept here; send the picture as a data URL',
    );
  }
  const url = nested === undefined ? part.image_url : nested.url;
  if (typeof url !== 'string') throw invalid(`${path}.image_url`, 'a data URL', url);
  const detail = nested?.detail ?? part.detail ?? 'auto';
  if (!DETAILS.includes(detail)) throw invalid(`${path}.detail`, 'low, high or auto', detail);
  const marker = `<|image ${randomUUID()}|>`;
  return { marker, type, url, detail: detail as ImageDetail, path: `${path}.image_url` };
}

/** The parts of a message as they were sent: texts, and pictures where their markers stand. */
export function partsOf({ content, images = [] }: TextMessage): (string | ImagePart)[] {
  const parts: (string | ImagePart)[] = [];
  let rest = content;
  for (const image of images) {
    const at = rest.indexOf(image.marker);
    const before = rest.slice(0, at).trim();
    if (before !== '') parts.push(before);
    parts.push(image);
    rest = rest.slice(at + image.marker.length);
  }
  if (rest !== '' || parts.length === 0) parts.push(images.length === 0 ? rest : rest.trim());
  return parts.filter((part) => part !== '' || images.length === 0);
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
    const content = readContent(message.content, `${at}.content`);
    return typeof name === 'string' ? { role, ...content, name } : { role, ...content };
  });
}
