/** The branch on show as Markdown to read and as JSON to process. */

import { figures } from './answer.ts';
import { activePath, type Conversation } from './conversation.ts';

/** Headings for turns, the text as it is below them. `exportedAt` is milliseconds since the epoch. */
export function toMarkdown(
  conversation: Conversation,
  systemPrompt: string,
  exportedAt: number,
): string {
  const path = activePath(conversation);
  const model = path.findLast((turn) => turn.kind === 'assistant')?.model ?? null;
  const head = [
    '# Conversation',
    '',
    `Exported ${new Date(exportedAt).toISOString()}${model === null ? '' : `, model ${model}`}`,
  ];
  const system = systemPrompt.trim() === '' ? [] : ['', '## System', '', systemPrompt.trim()];
  const turns = path.flatMap((turn) => [
    '',
    turn.kind === 'user' ? '## You' : '## Assistant',
    '',
    ...(turn.kind === 'user' ? (turn.pictures ?? []) : []).map(
      ({ name, width, height }) => `*(picture ${name}, ${width} × ${height})*`,
    ),
    turn.text.trim(),
    ...(turn.kind === 'assistant' && turn.status !== 'completed' ? ['', `*(${turn.status})*`] : []),
  ]);
  return `${[...head, ...system, ...turns].join('\n')}\n`;
}

/** Messages in the order shown, with usage and speed of each answer; the shape of chat fine-tuning files plus figures. */
export function toJson(
  conversation: Conversation,
  systemPrompt: string,
  exportedAt: number,
): string {
  const system = systemPrompt.trim();
  const messages = activePath(conversation).map((turn) => {
    const message = {
      role: turn.kind,
      content: turn.text,
      created_at: new Date(turn.createdAt).toISOString(),
    };
    if (turn.kind === 'user') {
      return turn.pictures === undefined ? message : { ...message, pictures: turn.pictures };
    }
    const { tokensPerSecond, timeToFirstTokenMs } = figures(turn);
    return {
      ...message,
      status: turn.status,
      model: turn.model,
      response_id: turn.responseId,
      usage: turn.usage,
      tokens_per_second: tokensPerSecond,
      time_to_first_token_ms: timeToFirstTokenMs,
    };
  });
  const document = {
    exported_at: new Date(exportedAt).toISOString(),
    messages: system === '' ? messages : [{ role: 'system', content: system }, ...messages],
  };
  return `${JSON.stringify(document, null, 2)}\n`;
}
