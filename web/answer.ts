/** What each event of a response does to the answer on the page, and the figures shown under it. */

import type { AssistantTurn } from './conversation.ts';
import { type LifecycleEvent, outputText, type ServerEvent } from './protocol.ts';

/**
 * Applies one event. Events must come in order and once: the connection drops replayed ones.
 * `now` is milliseconds since the epoch.
 */
export function applyEvent(answer: AssistantTurn, event: ServerEvent, now: number): void {
  if (event.sequence_number !== undefined) answer.lastSequence = event.sequence_number;
  switch (event.type) {
    case 'response.created':
    case 'response.queued':
    case 'response.in_progress':
      if (event.type === 'response.in_progress') answer.progress = null;
      answer.responseId = event.response.id;
      answer.model = event.response.model ?? answer.model;
      return;
    case 'nvlm.progress':
      answer.progress = {
        phase: event.phase ?? 'queued',
        position: event.position ?? null,
        percent: event.percent ?? null,
        etaSeconds: event.eta_seconds ?? null,
      };
      return;
    case 'response.output_text.delta':
      answer.status = 'streaming';
      answer.progress = null;
      answer.text += event.delta;
      answer.deltaCount += 1;
      answer.firstTokenAt ??= now;
      answer.lastTokenAt = now;
      return;
    case 'response.output_text.done':
      answer.text = event.text;
      return;
    case 'response.completed':
    case 'response.incomplete':
    case 'response.failed':
    case 'response.cancelled':
      finish(answer, event);
      return;
    case 'error':
      answer.status = 'failed';
      answer.progress = null;
      answer.error = event.error;
      return;
  }
}

function finish(answer: AssistantTurn, event: LifecycleEvent): void {
  const { response } = event;
  answer.status = event.type.slice('response.'.length) as AssistantTurn['status'];
  answer.progress = null;
  answer.responseId = response.id;
  answer.model = response.model ?? answer.model;
  answer.text = outputText(response) ?? answer.text;
  answer.usage = response.usage ?? null;
  answer.incompleteReason = response.incomplete_details?.reason ?? null;
  answer.error =
    answer.status === 'failed'
      ? (response.error ?? { code: null, message: 'the engine gave no reason' })
      : null;
}

export interface AnswerFigures {
  /** Exact once the answer is finished; before that one per delta. */
  readonly tokens: number;
  /** Null until two tokens have come. */
  readonly tokensPerSecond: number | null;
  readonly timeToFirstTokenMs: number | null;
}

/** Speed as the reader saw it: tokens after the first over the time since the first. */
export function figures(answer: AssistantTurn): AnswerFigures {
  const tokens = answer.usage?.output_tokens ?? answer.deltaCount;
  const { firstTokenAt, lastTokenAt } = answer;
  const seconds =
    firstTokenAt === null || lastTokenAt === null ? 0 : (lastTokenAt - firstTokenAt) / 1000;
  return {
    tokens,
    tokensPerSecond: tokens > 1 && seconds > 0 ? (tokens - 1) / seconds : null,
    timeToFirstTokenMs: firstTokenAt === null ? null : firstTokenAt - answer.createdAt,
  };
}
