/** What tests read from the stream of a response, whichever transport it came over. */
import assert from 'node:assert/strict';
import type {
  ResponseStreamEvent,
  ResponsesServerEvent,
} from 'openai/resources/responses/responses';

type Event = ResponseStreamEvent | ResponsesServerEvent;

/** Without our extension, which the package's types do not know. */
export const official = <E extends Event>(events: readonly E[]): E[] =>
  events.filter(({ type }) => !(type as string).startsWith('nvlm.'));

export const textOf = (events: readonly Event[]): string =>
  events.map((event) => (event.type === 'response.output_text.delta' ? event.delta : '')).join('');

/** One text message from its creation to its end, every event in its place. */
export function assertLifecycle(
  events: readonly Event[],
  end: 'response.completed' | 'response.incomplete',
): void {
  const types = official(events).map(({ type }) => type);
  assert.deepEqual(
    types.filter((type, index) => type !== types[index - 1] && type !== 'response.queued'),
    [
      'response.created',
      'response.in_progress',
      'response.output_item.added',
      'response.content_part.added',
      'response.output_text.delta',
      'response.output_text.done',
      'response.content_part.done',
      'response.output_item.done',
      end,
    ],
  );
}
