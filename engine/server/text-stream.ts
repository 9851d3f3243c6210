/** Engine events to text: detokenises, applies stop strings and ends in exactly one terminal event with exact usage. */
import { NvlmError } from '#engine/protocol/errors.ts';
import type { SamplingFields } from '#engine/protocol/sampling-fields.ts';
import type {
  GenerationEvent,
  GenerationRequest,
  GenerationTimings,
  GenerationUsage,
  TokenLogprobs,
} from '#engine/scheduler/request.ts';
import { StopStringMatcher } from '#engine/tokenizer/stop-string-matcher.ts';
import type { RequestIdentity, ServerContext } from './context.ts';

export interface GeneratedToken {
  readonly tokenId: number;
  readonly logprobs: TokenLogprobs | undefined;
}

export interface GenerationEnd {
  readonly type: 'end';
  readonly reason: 'stop' | 'length' | 'abort';
  /** The stop string or stop id that ended it; null for end of sequence, length and abort. */
  readonly stopReason: string | number | null;
  readonly usage: GenerationUsage;
  readonly timings: GenerationTimings;
}

export type TextEvent =
  | Extract<GenerationEvent, { type: 'queued' | 'prefill' | 'promptLogprobs' | 'error' }>
  /** Text that is certain, with the tokens since the last delta. Empty text only with the last tokens. */
  | { readonly type: 'delta'; readonly text: string; readonly tokens: readonly GeneratedToken[] }
  | GenerationEnd;

/**
 * Queues the request and returns its text. Throws what the engine throws at once (queue_full, ...). Leaving the iteration
 * early aborts the request. One log line and one set of metrics are written when it ends, however it ends.
 */
export function streamText(
  context: ServerContext,
  request: GenerationRequest,
  fields: SamplingFields,
  identity: RequestIdentity,
  signal: AbortSignal,
): AsyncGenerator<TextEvent, void> {
  const abort = new AbortController();
  const events = context.engine.submit(request, AbortSignal.any([signal, abort.signal]));
  return readText(context, request, fields, identity, events, abort);
}

async function* readText(
  context: ServerContext,
  request: GenerationRequest,
  fields: SamplingFields,
  identity: RequestIdentity,
  events: AsyncIterable<GenerationEvent>,
  abort: AbortController,
): AsyncGenerator<TextEvent, void> {
  const decoder = context.tokenizer.createDecoder({
    skipSpecialTokens: fields.skip_special_tokens ?? true,
  });
  const includeStop = fields.include_stop_str_in_output ?? false;
  const matcher = new StopStringMatcher(fields.stop ?? [], {
    includeStopString: includeStop,
  });
  const ending = new Set([...request.eosTokenIds, ...request.stopTokenIds]);
  const record = context.metrics.startGeneration(request, identity);
  let pending: GeneratedToken[] = [];
  let generated = 0;
  let matchedStop: string | undefined;

  const delta = (text: string): TextEvent => {
    const tokens = pending;
    pending = [];
    return { type: 'delta', text, tokens };
  };

  try {
    for await (const event of events) {
      if (event.type === 'end') {
        if (matchedStop === undefined) {
          const rest = matcher.push(decoder.flush());
          matchedStop = rest.matched;
          const text = rest.text + (matchedStop === undefined ? matcher.flush() : '');
          if (text !== '' || pending.length > 0) yield delta(text);
        }
        const end: GenerationEnd =
          matchedStop === undefined
            ? event
            : {
                ...event,
                reason: 'stop',
                stopReason: matchedStop,
                usage: { ...event.usage, generatedTokens: generated },
              };
        record.finish(end.reason, end.usage, end.timings);
        yield end;
        return;
      }
      if (event.type === 'error') {
        record.finish('error', event.usage, event.timings, event.error);
        yield event;
        return;
      }
      if (event.type !== 'token') {
        yield event;
        continue;
      }
      // After a stop string the engine may have run ahead: what it made since does not exist for the client.
      if (matchedStop !== undefined) continue;
      generated++;
      record.token();
      pending.push(event);
      const isEnding = ending.has(event.tokenId) && generated > request.minTokens;
      if (isEnding && !includeStop) continue;
      const piece = decoder.push(event.tokenId);
      // vLLM's rule: stop strings count only in what follows the first min_tokens tokens.
      const out =
        generated <= request.minTokens ? { text: piece, matched: undefined } : matcher.push(piece);
      if (out.matched !== undefined) {
        matchedStop = out.matched;
        yield delta(out.text);
        abort.abort();
      } else if (out.text !== '') {
        yield delta(out.text);
      }
    }
    throw new Error('the engine ended a stream without a terminal event');
  } catch (cause) {
    const error =
      cause instanceof NvlmError
        ? cause
        : new NvlmError('internal_error', 'the engine failed; the log has the cause', { cause });
    if (error.code === 'internal_error') {
      context.logger.error({ err: cause, requestId: identity.requestId }, 'generation failed');
    }
    const { usage, timings } = record.soFar();
    record.finish('error', usage, timings, error);
    yield { type: 'error', error, usage, timings };
  } finally {
    record.abandon();
    abort.abort();
  }
}
