/** The chat templates that NVLM-D is used with, by the names that their sources give them. */
import { nearestName } from '#engine/protocol/fields.ts';

const turns = (end: string): string =>
  `{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '${end}' }}{% endfor %}` +
  `{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}`;

const systemTurn = (message: string, end: string): string =>
  `{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\n${message}${end}' }}{% endif %}`;

/** Jinja sources. */
export const NAMED_CHAT_TEMPLATES = {
  /** `chat()` of the checkpoint's own code, `"template": "chatml"` in its config: nothing stands between two turns. */
  chatml: systemTurn('Answer the questions.', '<|im_end|>') + turns('<|im_end|>'),
  /** Qwen2's `apply_chat_template`, which vLLM uses. */
  qwen2: systemTurn('You are a helpful assistant.', '<|im_end|>\\n') + turns('<|im_end|>\\n'),
  /** Megatron-LM's prompt format `qwen2p0`, which NVLM-D was tuned and evaluated with: no system turn but the client's. */
  qwen2p0: turns('<|im_end|>\\n'),
} as const;

export type ChatTemplateName = keyof typeof NAMED_CHAT_TEMPLATES;

const names = Object.keys(NAMED_CHAT_TEMPLATES);

export const isChatTemplateName = (value: unknown): value is ChatTemplateName =>
  typeof value === 'string' && names.includes(value);

/**
 * A name of the table, or the path of a Jinja file, which has a dot or a slash. Returns the value. Throws Error: a misspelt name is
 * told from a path that way, and answered with the nearest.
 */
export function checkChatTemplateChoice(value: string): string {
  if (isChatTemplateName(value) || /[./\\]/.test(value)) return value;
  const nearest = nearestName(value, names);
  throw new Error(
    `expected ${names.join(', ')} or the path of a Jinja file (./FILE), got '${value}'` +
      (nearest === undefined ? '' : `; did you mean ${nearest}?`),
  );
}
