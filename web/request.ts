/** From a question in the tree to the frame that asks it. */

import { type Conversation, pathTo, type Turn, type UserTurn } from './conversation.ts';
import type { ContentPart, CreateRequest, InputMessage } from './protocol.ts';
import { requestParameters, type Settings } from './settings.ts';

/**
 * The request that answers `question`. It sends the new text alone and names the answer before it where the engine still has
 * that answer (`previous_response_id`: its KV cache is reused); with `wholeHistory`, or where that answer did not finish, it
 * sends every turn of the branch. `background` keeps the response alive on the engine when the socket drops.
 */
export function createRequest(
  conversation: Conversation,
  question: UserTurn,
  streamId: string,
  settings: Settings,
  wholeHistory: boolean,
  pictureUrl: (id: string) => string | undefined,
): CreateRequest {
  const previous = conversation.turns[question.parentId ?? ''];
  const canContinue =
    !wholeHistory &&
    previous?.kind === 'assistant' &&
    previous.responseId !== null &&
    (previous.status === 'completed' || previous.status === 'incomplete');
  const input: InputMessage[] = canContinue
    ? [{ role: 'user', content: contentOf(question, pictureUrl) }]
    : pathTo(conversation, question)
        .filter((turn) => turn.kind === 'user' || turn.text !== '')
        .map((turn) => ({ role: turn.kind, content: contentOf(turn, pictureUrl) }));
  return {
    type: 'response.create',
    stream_id: streamId,
    background: true,
    store: true,
    input,
    ...(canContinue && previous.responseId !== null
      ? { previous_response_id: previous.responseId }
      : {}),
    ...requestParameters(settings),
  };
}

/** Pictures come before the words about them. One that the browser has lost is left out. */
function contentOf(
  turn: Turn,
  pictureUrl: (id: string) => string | undefined,
): InputMessage['content'] {
  const pictures = turn.kind === 'user' ? (turn.pictures ?? []) : [];
  const parts = pictures.flatMap(({ id }): ContentPart[] => {
    const url = pictureUrl(id);
    return url === undefined ? [] : [{ type: 'input_image', image_url: url, detail: 'auto' }];
  });
  if (parts.length === 0) return turn.text;
  return turn.text === '' ? parts : [...parts, { type: 'input_text', text: turn.text }];
}
